package main

import (
	"slices"
	"testing"
)

// The number of an account of a service is made of its name; this one is on every Windows.
func TestWindowsServiceSID(t *testing.T) {
	const want = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
	if got := serviceSID("TrustedInstaller"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The next installation knows what a person has asked for at this one.
func TestWindowsServiceKeepsOptions(t *testing.T) {
	options := []string{"--data", `D:\my mail\`, "--hostname", `a"b`}
	plan := &ServicePlan{Program: `C:\Program Files\appliance\appliance.exe`, Args: append([]string{"run", "--service"}, options...)}
	if got := commandOptions(commandLine(plan)); !slices.Equal(got, options) {
		t.Errorf("got %q, want %q", got, options)
	}
	if got := commandOptions(`C:\x.exe run`); got != nil {
		t.Errorf("somebody else's service gives %q", got)
	}
}

func TestWindowsPath(t *testing.T) {
	dirs := []string{`C:\Windows`, `c:\program files\Appliance\`, `D:\x`}
	if got := without(dirs, `C:\Program Files\appliance`); !slices.Equal(got, []string{`C:\Windows`, `D:\x`}) {
		t.Errorf("%q", got)
	}
}
