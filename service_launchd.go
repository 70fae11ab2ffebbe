//go:build !windows

package main

import (
	"encoding/xml"
	"fmt"
	"runtime"
	"strings"
)

// launchdInit is launchd of macOS. Nobody has run this: a test looks that the file is XML with the right words, and that is all.
// Not seen are bootstrap and bootout, making and removing the user by dscl, and giving up root there.
func launchdInit() initSystem {
	const file = "/Library/LaunchDaemons/" + serviceName + ".plist"
	return initSystem{
		name: "launchd", here: func() bool { return runtime.GOOS == "darwin" },
		file: file, mode: 0o644, script: launchdPlist, program: "/usr/local/bin/appliance",
		start:   [][]string{{"launchctl", "bootstrap", "system", file}},
		stop:    [][]string{{"launchctl", "bootout", "system/" + serviceName}},
		running: [][]string{{"launchctl", "print", "system/" + serviceName}},
		atBoot:  [][]string{{"test", "-e", file}},
	}
}

// launchdPlist is its file. The service is started as root, opens the ports, and then becomes the owner of its folder.
func launchdPlist(plan *ServicePlan) string {
	var words strings.Builder
	for _, w := range append([]string{plan.Program}, plan.Args...) {
		words.WriteString("\n\t\t<string>")
		_ = xml.EscapeText(&words, []byte(w)) // a Builder takes all
		words.WriteString("</string>")
	}
	return fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- Written by `+"`appliance install`"+`, and again by each. -->
<!-- %[1]s -->
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>%[2]s</string>
	<key>ProgramArguments</key>
	<array>%[3]s
	</array>
	<key>RunAtLoad</key>
	<true/>
	<key>KeepAlive</key>
	<true/>
	<key>ThrottleInterval</key>
	<integer>2</integer>
	<key>ExitTimeOut</key>
	<integer>30</integer>
	<key>ProcessType</key>
	<string>Background</string>
	<key>Umask</key>
	<integer>63</integer>
	<key>SoftResourceLimits</key>
	<dict>
		<key>NumberOfFiles</key>
		<integer>65536</integer>
	</dict>
	<key>HardResourceLimits</key>
	<dict>
		<key>NumberOfFiles</key>
		<integer>65536</integer>
	</dict>
</dict>
</plist>
`, plan.optionsLine(), serviceName, words.String())
}
