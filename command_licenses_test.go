package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// updateLicenses has TestLicenses write licenses.txt; scripts/licenses sets it.
const updateLicenses = "APPLIANCE_UPDATE_LICENSES"

// TestLicenses holds licenses.txt true: the licence of each module that a release is built from, and of nothing else.
func TestLicenses(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("there is no go here to ask for the modules")
	}
	text := licensesOf(t, goTool)
	if os.Getenv(updateLicenses) != "" {
		if err := os.WriteFile("licenses.txt", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if text != licenseTexts {
		t.Error("licenses.txt is not what the modules say now; scripts/licenses writes it anew")
	}
	if _, out, _ := runCommand(t, t.TempDir(), "", "licenses"); out != licenseTexts {
		t.Errorf("licenses prints %d bytes, not the %d of the file", len(out), len(licenseTexts))
	}
	for _, name := range []string{"golang.org/x/crypto", "go.etcd.io/bbolt", "Go "} {
		if !strings.Contains(licenseTexts, name) {
			t.Errorf("%s is not there", name)
		}
	}
}

// builtModule is a module that the program is built from.
type builtModule struct {
	Path, Version, Dir string
	Main               bool
}

// licensesOf asks for the modules of all systems and puts their licences together, each text once.
func licensesOf(t *testing.T, goTool string) string {
	modules := map[string]string{"Go, its compiler's support and standard library": goRoot(t, goTool)}
	for _, system := range []string{"linux", "windows", "darwin"} {
		for _, m := range modulesOf(t, goTool, system) {
			modules[m.Path+" "+m.Version] = m.Dir
		}
	}
	names := map[string][]string{}
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		text := licenseIn(t, name, modules[name])
		if names[text] == nil {
			texts = append(texts, text)
		}
		names[text] = append(names[text], name)
	}
	var all strings.Builder
	all.WriteString("This program contains the software named below, under the licences that follow each list of names.\n")
	for _, text := range texts {
		fmt.Fprintf(&all, "\n%s\n\n%s\n\n%s", strings.Repeat("=", 72), strings.Join(names[text], "\n"), text)
	}
	return all.String()
}

func goRoot(t *testing.T, goTool string) string {
	root, err := exec.Command(goTool, "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(root))
}

// modulesOf gives the modules of the packages in the program on one system.
func modulesOf(t *testing.T, goTool, system string) []builtModule {
	cmd := exec.Command(goTool, "list", "-deps", "-json=Module", ".")
	cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var found []builtModule
	for in := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ Module *builtModule }
		if err := in.Decode(&p); errors.Is(err, io.EOF) {
			return found
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Module != nil && !p.Module.Main {
			found = append(found, *p.Module)
		}
	}
}

// licenseIn reads the licence of a module, and its notice and grant of patents where it has them.
func licenseIn(t *testing.T, name, dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, e := range entries {
		word, _, _ := strings.Cut(strings.ToUpper(e.Name()), ".")
		if e.IsDir() || !slices.Contains([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "PATENTS"}, word) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if text.Len() > 0 {
			text.WriteString("\n")
		}
		text.WriteString(strings.TrimRight(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n") + "\n")
	}
	if text.Len() == 0 {
		t.Fatalf("%s has no licence in %s", name, dir)
	}
	return text.String()
}
