package main

import (
	"runtime/debug"
	"testing"
)

func TestVersionOf(t *testing.T) {
	commit := []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}, {Key: "vcs.modified", Value: "true"}}
	for _, c := range []struct {
		name, release, main string
		settings            []debug.BuildSetting
		want                string
	}{
		{"a release", "v1.2.3", "v0.0.0-20261129", commit, "v1.2.3"},
		{"go build in a repository", "", "v1.2.4-0.20261129093000-0123456789ab", commit, "v1.2.4-0.20261129093000-0123456789ab"},
		{"an older go build", "", "(devel)", commit, "devel-0123456789ab+dirty"},
		{"go run outside of a repository", "", "(devel)", nil, "devel"},
		{"nothing known", "", "", nil, "devel"},
	} {
		info := &debug.BuildInfo{Main: debug.Module{Version: c.main}, Settings: c.settings}
		if got := versionOf(info, c.release).Version; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
