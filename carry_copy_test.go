package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCopyDataDir copies a data folder with its dates and modes, and nothing that leads out of it.
func TestCopyDataDir(t *testing.T) {
	from, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	old := time.Unix(1_700_000_000, 0)
	for name, text := range map[string]string{
		"accounts.toml": "owner = 'maria'\n", "lock": "1\n", "control.json": "{}", "mail/home.lan/maria/cur/1.M1P1Q1.host,S=3,W=3:2,S": "abc", "tls/ca.pem": "x",
	} {
		path := filepath.Join(from, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		name = strings.ReplaceAll(name, ":", string(infoSeparator()))
		path = filepath.Join(from, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(outside, []byte("a secret of somebody else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(from, "mail", "link")); err != nil {
		t.Logf("without a link: %v", err)
	}
	to := dataDir(filepath.Join(t.TempDir(), "to"))
	if err := os.MkdirAll(to.in(takingName+"/mail"), 0o700); err != nil { // of a copy that was interrupted
		t.Fatal(err)
	}
	if err := copyDataDir(dataDir(from), to); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := filepath.WalkDir(string(to), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		below, _ := filepath.Rel(string(to), path)
		got = append(got, filepath.ToSlash(below))
		if info, err := d.Info(); err != nil || below != "lock" && !info.ModTime().Equal(old) {
			t.Errorf("%s: %v %v", below, info, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll("accounts.toml lock mail/home.lan/maria/cur/1.M1P1Q1.host,S=3,W=3:2,S tls/ca.pem", ":", string(infoSeparator()))
	if strings.Join(got, " ") != want {
		t.Errorf("copied: %q", got)
	}
	if _, err := os.Stat(filepath.Join(from, "control.json")); err != nil {
		t.Errorf("it is no copy: %v", err)
	}
}

// TestCopyDataDirOccupied leaves a folder alone in which something lies.
func TestCopyDataDirOccupied(t *testing.T) {
	from, to := homeData(t), dataDir(t.TempDir())
	if err := os.Mkdir(to.mail(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dataDir(from).mail(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dataDir(from).accounts(), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := copyDataDir(dataDir(from), to); err == nil || !strings.Contains(err.Error(), "mail is there already") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(to.accounts()); err == nil {
		t.Error("a folder that is not whole has accounts")
	}
}

// TestEarlierFolder finds the folder of nobody where nobody has called sudo.
func TestEarlierFolder(t *testing.T) {
	for _, name := range []string{"", "no-such-person-here"} {
		if dir := earlierFolder(func(string) string { return name }); dir != "" {
			t.Errorf("%q: %s", name, dir)
		}
	}
}
