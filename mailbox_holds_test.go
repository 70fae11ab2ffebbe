package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A message with an old date that is just being delivered is not what a crash has left in tmp/.
func TestCleanTmpLeavesNewFiles(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	in, err := d.Receive()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Discard()
	if _, err := in.Write([]byte("Subject: old\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := in.finish(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(d.dir, "tmp", "1000000000.M1P1.old")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(left, time.Time{}, time.Unix(1000000000, 0)); err != nil {
		t.Fatal(err)
	}
	d.cleanTmp()
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Error("what a crash has left is there still:", err)
	}
	if err := s.Deliver(context.Background(), in, []Delivery{{Account: "ann@example.org", Folder: inboxName}}); err != nil {
		t.Error(err)
	}
}

// A message is found by its content in any folder, and only if all of it is the same.
func TestHolds(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	for i, folder := range []string{inboxName, "Archive", "A/B"} {
		text := fmt.Sprintf("Subject: %d\r\n\r\ntext\r\n", i)
		in, err := d.Receive()
		if err == nil {
			_, err = in.Write([]byte(text))
		}
		if err == nil {
			err = s.Deliver(context.Background(), in, []Delivery{{Account: "ann@example.org", Folder: folder}})
		}
		if err != nil {
			t.Fatal(err)
		}
		for look, want := range map[string]bool{text: true, strings.ToUpper(text): false, text + "\r\n": false} {
			if held, err := d.Holds(int64(len(look)), sha256.Sum256([]byte(look))); err != nil || held != want {
				t.Errorf("%s %q: %v %v", folder, look, held, err)
			}
		}
	}
}
