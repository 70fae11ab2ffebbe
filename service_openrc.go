//go:build !windows

package main

import "fmt"

// openrcInit is OpenRC, as Alpine and Gentoo have it.
func openrcInit() initSystem {
	return initSystem{
		name: "OpenRC", here: func() bool { return isThere("/run/openrc") },
		file: "/etc/init.d/" + serviceName, mode: 0o755, script: openrcScript, program: "/usr/local/bin/appliance",
		enable:  [][]string{{"rc-update", "--quiet", "add", serviceName, "default"}},
		disable: [][]string{{"rc-update", "--quiet", "delete", serviceName, "default"}},
		start:   [][]string{{"rc-service", "--quiet", serviceName, "start"}},
		stop:    [][]string{{"rc-service", "--quiet", serviceName, "stop"}},
		running: [][]string{{"rc-service", "--quiet", serviceName, "status"}},
		atBoot:  [][]string{{"sh", "-c", "rc-update show default | grep -qw " + serviceName}},
		left:    []string{"/run/" + serviceName + ".pid"},
	}
}

// openrcScript is its script. The service is started as root, opens the ports, and then becomes the owner of its folder.
func openrcScript(plan *ServicePlan) string {
	return fmt.Sprintf(`#!/sbin/openrc-run
# Written by `+"`appliance install`"+`, and again by each.
# %[1]s

name="%[2]s"
description="Mail for the people of one network: SMTP, IMAP and POP3"
supervisor=supervise-daemon
command=%[3]s
command_args=%[4]s
pidfile=/run/%[5]s.pid
respawn_delay=2
respawn_max=0
rc_ulimit="-n 65536"
umask=077

depend() {
	use net dns logger
	after localmount bootmisc firewall ntp-client ntpd chronyd
}
`, plan.optionsLine(), serviceTitle, shellQuoted(plan.Program), shellQuoted(shellQuoted(plan.Args...)), serviceName)
}
