//go:build !windows

package main

import "fmt"

// procdInit is procd, as OpenWrt has it. It was not run under procd: a test runs start_service of the script with procd's
// functions replaced by its own. Not seen are the links of rc.common, respawn, and the user that is written into /etc/passwd.
func procdInit() initSystem {
	const file = "/etc/init.d/" + serviceName
	return initSystem{
		name: "procd", here: func() bool { return isThere("/sbin/procd") && isThere("/etc/rc.common") },
		file: file, mode: 0o755, script: procdScript, program: "/usr/bin/appliance",
		enable:  [][]string{{file, "enable"}},
		disable: [][]string{{file, "disable"}},
		start:   [][]string{{file, "start"}},
		stop:    [][]string{{file, "stop"}},
		running: [][]string{{file, "running"}},
		atBoot:  [][]string{{file, "enabled"}},
		left:    []string{"/etc/rc.d/[SK]??" + serviceName},
	}
}

// procdScript is its script. The service is started as root, opens the ports, and then becomes the owner of its folder.
func procdScript(plan *ServicePlan) string {
	return fmt.Sprintf(`#!/bin/sh /etc/rc.common
# Written by `+"`appliance install`"+`, and again by each.
# %[1]s

USE_PROCD=1
START=95
STOP=05

start_service() {
	procd_open_instance
	procd_set_param command %[2]s
	procd_set_param respawn 0 2 0 # always, after 2 seconds, however often
	procd_set_param limits nofile="65536 65536"
	procd_set_param term_timeout 30
	procd_close_instance
}
`, plan.optionsLine(), shellQuoted(append([]string{plan.Program}, plan.Args...)...))
}
