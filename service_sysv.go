//go:build !windows

package main

import "fmt"

// sysvInit is System V init, with the tools of Debian's kind or those of Red Hat's, or with links alone.
func sysvInit() initSystem {
	const file = "/etc/init.d/" + serviceName
	links := "for n in 2 3 4 5; do [ ! -d /etc/rc$n.d ] || ln -sf ../init.d/" + serviceName + " /etc/rc$n.d/S50" + serviceName + "; done; " +
		"for n in 0 1 6; do [ ! -d /etc/rc$n.d ] || ln -sf ../init.d/" + serviceName + " /etc/rc$n.d/K02" + serviceName + "; done"
	return initSystem{
		name: "System V init", here: func() bool { return isThere("/etc/init.d") && (isThere("/etc/rc2.d") || isThere("/etc/rc.d/rc2.d")) },
		file: file, mode: 0o755, script: sysvScript, program: "/usr/local/bin/appliance",
		enable:  [][]string{{"update-rc.d", serviceName, "defaults"}, {"chkconfig", "--add", serviceName}, {"sh", "-c", links}},
		disable: [][]string{{"update-rc.d", "-f", serviceName, "remove"}, {"chkconfig", "--del", serviceName}, {"true"}},
		start:   [][]string{{file, "start"}},
		stop:    [][]string{{file, "stop"}},
		running: [][]string{{file, "status"}},
		atBoot:  [][]string{{"sh", "-c", "ls /etc/rc[2-5].d/S*" + serviceName + " /etc/rc.d/rc[2-5].d/S*" + serviceName + " 2>/dev/null | grep -q ."}},
		left:    []string{"/etc/rc?.d/[SK]??" + serviceName, "/run/" + serviceName + ".pid"},
	}
}

// sysvScript is its script. Nothing here starts a program again that has crashed, so the script does: its part called supervise
// stays as long as the service is to run. The service is started as root, opens the ports, and then becomes the owner of its
// folder.
func sysvScript(plan *ServicePlan) string {
	return fmt.Sprintf(`#!/bin/sh
# Written by `+"`appliance install`"+`, and again by each.
# %[1]s
#
# chkconfig: 2345 50 02
# description: %[2]s
### BEGIN INIT INFO
# Provides:          %[3]s mail-transport-agent
# Required-Start:    $remote_fs $network
# Required-Stop:     $remote_fs $network
# Should-Start:      $named $time $syslog
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: %[2]s
### END INIT INFO

name=%[3]s
pidfile=/run/$name.pid

# supervise starts the service again 2 seconds after it has ended, until it is told to stop.
supervise() {
	child=
	trap 'trap "" TERM; [ -z "$child" ] || { kill "$child"; wait "$child"; }; exit 0' TERM
	ulimit -n 65536 2>/dev/null
	umask 077
	while :; do
		%[4]s &
		child=$!
		wait "$child"
		child=
		sleep 2 &
		wait $!
	done
}

# alive gives the process that supervises, if there is one: a number alone may be somebody else's by now.
alive() {
	[ -s "$pidfile" ] && pid=$(cat "$pidfile") || return 1
	if [ -d /proc/self ]; then
		tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q "$name supervise"
	else
		kill -0 "$pid" 2>/dev/null
	fi
}

case "$1" in
start)
	alive && { echo "$name runs already"; exit 0; }
	(trap '' HUP; exec "/etc/init.d/$name" supervise) </dev/null >/dev/null 2>&1 &
	echo $! >"$pidfile"
	;;
supervise)
	supervise
	;;
stop)
	alive || { rm -f "$pidfile"; echo "$name does not run"; exit 0; }
	kill "$pid"
	n=0
	while kill -0 "$pid" 2>/dev/null; do
		n=$((n + 1))
		[ "$n" -le 30 ] || { echo "$name does not stop"; exit 1; }
		sleep 1
	done
	rm -f "$pidfile"
	;;
restart|force-reload)
	"$0" stop && "$0" start
	;;
status)
	if alive; then echo "$name runs"; else echo "$name does not run"; exit 3; fi
	;;
*)
	echo "Usage: $0 start|stop|restart|status" >&2
	exit 2
	;;
esac
`, plan.optionsLine(), serviceTitle, serviceName, shellQuoted(append([]string{plan.Program}, plan.Args...)...))
}
