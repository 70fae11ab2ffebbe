package main

import (
	"bufio"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// portHolder names the program that listens on a TCP port, and the service of systemd that it belongs to; "" for what cannot be
// told. Root sees all programs, others their own.
func portHolder(number int) (program, unit string) {
	socket := listeningSocket(number)
	if socket == "" {
		return "", ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is right
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || to != socket {
			continue
		}
		process := filepath.Dir(filepath.Dir(link))
		name, err := os.ReadFile(process + "/comm")
		if err != nil {
			return "", "" // it has just ended
		}
		program = cleanProgram(string(name))
		groups, _ := os.ReadFile(process + "/cgroup") // none: no service
		if unit = serviceOfGroup(program, string(groups)); unit != "" && unit != program {
			return fmt.Sprintf("%s (%s, process %s)", unit, program, filepath.Base(process)), unit
		}
		return fmt.Sprintf("%s (process %s)", program, filepath.Base(process)), unit
	}
	return "", ""
}

// cleanProgram is a program's name as it may be printed.
func cleanProgram(name string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, name)
}

// serviceOfGroup gives the service of systemd that a process belongs to, by /proc/PID/cgroup; "" for none. One that runs
// programs for others, such as docker, is none: it does more than to have that port.
func serviceOfGroup(program, groups string) string {
	for _, host := range []string{"docker", "podman", "conmon", "rootlessport", "containerd", "systemd"} {
		if strings.HasPrefix(program, host) {
			return ""
		}
	}
	for line := range strings.Lines(groups) {
		name, ok := strings.CutSuffix(path.Base(strings.TrimSpace(line)), ".service")
		if !ok || !strings.Contains(line, "/system.slice/") {
			continue
		}
		name, _, _ = strings.Cut(name, "@") // postfix@- belongs to postfix
		return name
	}
	return ""
}

// listeningSocket gives the socket that listens on a port, as links in /proc/PID/fd name it; "" for none.
func listeningSocket(number int) string {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if socket := socketInTable(table, number); socket != "" {
			return socket
		}
	}
	return ""
}

func socketInTable(table string, number int) string {
	f, err := os.Open(table)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		const listening = "0A"
		if len(fields) < 10 || fields[3] != listening {
			continue
		}
		_, port, _ := strings.Cut(fields[1], ":")
		if n, err := strconv.ParseUint(port, 16, 16); err == nil && int(n) == number {
			return "socket:[" + fields[9] + "]"
		}
	}
	return ""
}
