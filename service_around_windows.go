package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
	"golang.org/x/sys/windows/svc/eventlog"
)

// What Windows has around a service: the event log, the firewall, the path in which programs are looked for, and who may go into
// a folder.

// registerEvents gives the service a name in the Application log.
func registerEvents() error {
	err := eventlog.InstallAsEventCreate(serviceName, eventlog.Error|eventlog.Warning|eventlog.Info)
	if err != nil && !strings.Contains(err.Error(), "exists") { // the library has no value for it
		return fmt.Errorf("registering with the event log: %w", err)
	}
	return nil
}

func forgetEvents() error {
	if err := eventlog.Remove(serviceName); err != nil && !errors.Is(err, registry.ErrNotExist) {
		return fmt.Errorf("taking the name out of the event log: %w", err)
	}
	return nil
}

// openFirewall lets others reach the ports of the program.
func openFirewall(plan *ServicePlan) error {
	var ports []string
	for _, n := range plan.Ports {
		ports = append(ports, strconv.Itoa(n))
	}
	_ = closeFirewall() // a rule of an earlier installation; there may be none
	err := netsh("add", "rule", "name="+serviceTitle, "dir=in", "action=allow", "protocol=TCP",
		"localport="+strings.Join(ports, ","), "program="+plan.Program)
	if err != nil {
		return fmt.Errorf("opening the firewall: %w", err)
	}
	return nil
}

// closeFirewall takes the rule away. netsh fails where there is none.
func closeFirewall() error {
	_ = netsh("delete", "rule", "name="+serviceTitle)
	return nil
}

func netsh(words ...string) error {
	cmd := exec.Command("netsh", append([]string{"advfirewall", "firewall"}, words...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("netsh: %w: %s", err, strings.Join(strings.Fields(string(out)), " "))
	}
	return nil
}

// environmentKey is where Windows keeps the environment of all processes.
const environmentKey = `SYSTEM\CurrentControlSet\Control\Session Manager\Environment`

// addToPath has terminals that are opened from now on find the programs in a folder.
func addToPath(dir string) error {
	return changePath(func(dirs []string) []string { return append(without(dirs, dir), dir) })
}

func removeFromPath(dir string) error {
	return changePath(func(dirs []string) []string { return without(dirs, dir) })
}

func without(dirs []string, dir string) (kept []string) {
	for _, d := range dirs {
		if !strings.EqualFold(filepath.Clean(d), dir) {
			kept = append(kept, d)
		}
	}
	return kept
}

func changePath(change func([]string) []string) error {
	key, err := registry.OpenKey(registry.LOCAL_MACHINE, environmentKey, registry.QUERY_VALUE|registry.SET_VALUE)
	if err != nil {
		return fmt.Errorf("opening the path of programs: %w", err)
	}
	defer key.Close()
	before, _, err := key.GetStringValue("Path")
	if err != nil {
		return fmt.Errorf("reading the path of programs: %w", err)
	}
	after := strings.Join(change(strings.Split(before, ";")), ";")
	if after == before {
		return nil
	}
	if err := key.SetExpandStringValue("Path", after); err != nil {
		return fmt.Errorf("changing the path of programs: %w", err)
	}
	tellEnvironment()
	return nil
}

// tellEnvironment has the desktop read the environment again, which the terminals that it opens get.
func tellEnvironment() {
	const (
		broadcast     = 0xffff // HWND_BROADCAST
		settingChange = 0x1a   // WM_SETTINGCHANGE
		abortIfHung   = 2      // SMTO_ABORTIFHUNG
		patience      = 1000   // ms
	)
	what, err := syscall.UTF16PtrFromString("Environment")
	if err != nil {
		return
	}
	send := windows.NewLazySystemDLL("user32.dll").NewProc("SendMessageTimeoutW")
	if send.Find() == nil {
		_, _, _ = send.Call(broadcast, settingChange, 0, uintptr(unsafe.Pointer(what)), abortIfHung, patience, 0) // else at the next login
	}
}
