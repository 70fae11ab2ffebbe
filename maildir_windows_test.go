package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/windows"
)

// A program such as a virus scanner has a file open for a moment, and lets nobody have it.
func TestWindowsWaitsForScanners(t *testing.T) {
	for name, do := range map[string]func(path string) error{
		"rename": func(path string) error { return renameFile(path, path+".new") },
		"remove": removeFile,
		"replace": func(path string) error {
			if err := os.WriteFile(path+".other", []byte("new"), 0o600); err != nil {
				return err
			}
			return renameFile(path+".other", path)
		},
		"atomic": func(path string) error { return writeFileAtomic(path, []byte("new")) },
	} {
		path := filepath.Join(t.TempDir(), "letter")
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		scanner, err := os.Open(path) // lets others read and write, not rename
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(300*time.Millisecond, func() { scanner.Close() })
		if err := do(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Who never lets go does not hold up things for ever.
func TestWindowsGivesUpOnScanners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "letter")
	scanner, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer scanner.Close()
	if err := renameFile(path, path+".new"); !errors.Is(err, windows.ERROR_SHARING_VIOLATION) && !errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		t.Errorf("%v", err)
	}
}

// A message gets another name while somebody reads it.
func TestWindowsRenamesWhatIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "letter")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := openShared(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Rename(path, path+";2,S"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if _, err := f.ReadAt(buf, 0); err != nil || !bytes.Equal(buf, []byte("text")) {
		t.Errorf("%q %v", buf, err)
	}
}

func TestWindowsLongPaths(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("a", 100), strings.Repeat("b", 100), strings.Repeat("c", 100))
	if err := makeDirs(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "letter")
	if err := writeFileAtomic(path, []byte("text")); err != nil {
		t.Fatal(err)
	}
	f, err := openShared(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := removeFile(path); err != nil {
		t.Error(err)
	}
}

// Folders whose names Windows cannot have, or does not tell apart, keep their mail to themselves.
func TestWindowsFolderNames(t *testing.T) {
	data := t.TempDir()
	store, err := OpenStore(StoreConfig{MailDir: filepath.Join(data, "mail"), IndexDir: filepath.Join(data, "index"), Host: "mail.test"})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	drop, err := store.Maildrop("maria@mail.test")
	if err != nil {
		t.Fatal(err)
	}
	defer drop.Release()
	names := []string{"CON", "nul.txt", "com1", "trailing.", "trailing ", `a:b\c*?"<>|d`, "Größe/日本", "x/aux/y"}
	for _, name := range names {
		if err := drop.CreateFolder(name, nil); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	list, err := drop.Folders()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, f := range list {
		have[f.Name] = true
	}
	for _, name := range names {
		if !have[name] {
			t.Errorf("%q is not listed", name)
		}
	}
	if err := drop.CreateFolder("con", nil); !errors.Is(err, ErrExists) {
		t.Errorf("a folder that differs in case alone: %v", err)
	}
	one, err := drop.Open("CON")
	if err != nil {
		t.Fatal(err)
	}
	other, err := drop.Open("Con")
	if err != nil {
		t.Fatal(err)
	}
	if one != other {
		t.Error("one directory has two folders in memory")
	}
}
