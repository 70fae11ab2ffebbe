package main

import (
	"context"
	"flag"
	"runtime"
	"runtime/debug"
)

func versionCommands() []command {
	return []command{{
		name: "version", about: "print the version",
		flags: func(fs *flag.FlagSet, o *options) { fs.BoolVar(&o.json, "json", false, "print JSON") },
		run: func(_ context.Context, c *call) error {
			v := thisVersion()
			if c.opt.json {
				return c.sayJSON(v)
			}
			c.say("appliance %s (%s, %s/%s)", v.Version, v.Go, v.OS, v.Arch)
			return nil
		},
	}}
}

// version is what the build tells of itself.
type version struct {
	Version string `json:"version"` // a tag or pseudo-version; "devel" without
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func thisVersion() version {
	v := version{Version: "devel", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if main := info.Main.Version; main != "" && main != "(devel)" {
		v.Version = main
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Commit = s.Value
		}
	}
	return v
}
