//go:build !windows

package main

import (
	"fmt"
	"strings"
)

// systemdInit is systemd.
func systemdInit() initSystem {
	const unit = serviceName + ".service"
	return initSystem{
		name: "systemd", here: func() bool { return isThere("/run/systemd/system") },
		file: "/etc/systemd/system/" + unit, mode: 0o644, script: systemdUnit, program: "/usr/local/bin/appliance",
		reload:  [][]string{{"systemctl", "daemon-reload"}},
		enable:  [][]string{{"systemctl", "--quiet", "enable", unit}},
		disable: [][]string{{"systemctl", "--quiet", "disable", unit}},
		start:   [][]string{{"systemctl", "--quiet", "start", unit}},
		stop:    [][]string{{"systemctl", "--quiet", "stop", unit}},
		running: [][]string{{"sh", "-c", "case $(systemctl is-active " + unit + ") in active|activating|reloading) ;; *) exit 1; esac"}},
		atBoot:  [][]string{{"systemctl", "--quiet", "is-enabled", unit}},
		logs:    []string{"journalctl", "--quiet", "--no-pager", "--unit", unit},
	}
}

// systemdUnit is the unit. The service is started with the rights that it keeps: those of its user, and to open low ports.
//
// Of what systemd can lock, only this is left open, and why: the network; /proc of its own processes, which Go reads;
// ReadWritePaths, the mail. PrivateUsers would take the low ports away. There is no limit on how often it is started: whatever
// is in the way may go away by itself, such as a disk that is mounted late.
func systemdUnit(plan *ServicePlan) string {
	home := "yes"
	for _, dir := range []string{"/home/", "/root/", "/run/user/"} {
		if strings.HasPrefix(plan.Data+"/", dir) {
			home = "no" // somebody wants the mail to lie there
		}
	}
	return fmt.Sprintf(`# Written by `+"`appliance install`"+`, and again by each. Changes of your own: systemctl edit %[1]s
# %[2]s
[Unit]
Description=%[3]s
Wants=network-online.target
After=network-online.target nss-lookup.target time-sync.target
RequiresMountsFor=%[4]s
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=%[5]s
User=%[6]s
Restart=always
RestartSec=2
TimeoutStartSec=5min
TimeoutStopSec=30
WatchdogSec=3min
LimitNOFILE=65536
OOMScoreAdjust=-200

AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
NoNewPrivileges=yes
UMask=0077
ProtectSystem=strict
ReadWritePaths=%[4]s
ProtectHome=%[7]s
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectProc=invisible
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
`, serviceName, plan.optionsLine(), serviceTitle, systemdPath(plan.Data), systemdCommand(plan), plan.User, home)
}

// systemdCommand is the command line (systemd.service(5), Command lines).
func systemdCommand(plan *ServicePlan) string {
	words := []string{systemdWord(plan.Program)}
	for _, a := range plan.Args {
		words = append(words, systemdWord(a))
	}
	return strings.Join(words, " ")
}

// systemdWord is one word of a command line.
func systemdWord(word string) string {
	word = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`).Replace(word)
	if strings.ContainsAny(word, " \t'") || strings.Contains(word, `\"`) || word == "" {
		return `"` + word + `"`
	}
	return word
}

// systemdPath is a path where a list of them may stand.
func systemdPath(path string) string {
	path = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`).Replace(path)
	return `"` + path + `"`
}
