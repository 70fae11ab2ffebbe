//go:build winetest

package main

// wine has every process in session 1, where Windows has no services: so with this tag, for tests alone, the flag says it.

import (
	"os"
	"slices"

	_ "unsafe" // for go:linkname

	_ "github.com/kardianos/service" // whose variable it is
)

//go:linkname interactive github.com/kardianos/service.interactive
var interactive bool

func init() {
	if slices.Contains(os.Args, "--service") {
		interactive = false
	}
}
