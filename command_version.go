package main

import (
	"context"
	"flag"
	"runtime"
	"runtime/debug"
)

func versionCommands() []command {
	return []command{licenseCommand(), {
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
	Version string `json:"version"` // a tag or pseudo-version; "devel" where the build knew of no repository
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// releaseVersion is set by the linker when scripts/release builds, which is why it is a variable; "" otherwise. Nothing writes it.
var releaseVersion string

func thisVersion() version {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	return versionOf(info, releaseVersion)
}

// versionOf gives the version of a release, else the one that Go has found in the repository, else what is known of the commit.
func versionOf(info *debug.BuildInfo, release string) version {
	v := version{Version: "devel", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	changed := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			changed = s.Value == "true"
		}
	}
	switch main := info.Main.Version; {
	case release != "":
		v.Version = release
	case main != "" && main != "(devel)":
		v.Version = main
	case v.Commit != "":
		v.Version = "devel-" + v.Commit[:min(12, len(v.Commit))]
		if changed {
			v.Version += "+dirty"
		}
	}
	return v
}
