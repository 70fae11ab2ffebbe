package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Messages that come one after the other are listed at once under one lock, which other programs get soon after; what they
// have put in the place of the list meanwhile is what later messages go to.
func TestListBurst(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	f := openFolder(t, d, "INBOX")
	defer f.Release()
	list, lock := f.list.path, filepath.Join(d.dir, uidlistLockName)
	lines := func() int {
		data, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(data), "\n") - 1
	}
	for n := range 3 {
		appendText(t, f, "Subject: x\r\n\r\nx\r\n")
		if got := lines(); got != n+1 {
			t.Fatalf("%d of %d messages are listed", got, n+1)
		}
	}
	if _, err := os.Stat(lock); err != nil {
		t.Errorf("the lock is not kept between messages: %v", err)
	}
	free := false
	for end := time.Now().Add(20 * uidlistBurst); !free && time.Now().Before(end); time.Sleep(uidlistBurst / 10) {
		_, err := os.Stat(lock)
		free = os.IsNotExist(err)
	}
	if !free {
		t.Fatal("the lock is kept for ever")
	}
	data, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFileAtomic(list, data); err != nil {
		t.Fatal(err)
	}
	deliverText(t, s, "Subject: y\r\n\r\ny\r\n", "ann@example.org")
	if got := lines(); got != 4 {
		t.Errorf("%d of 4 messages are in the list that another program has written", got)
	}
}

// A list that is replaced or locked while a burst is on, as by a folder's rename or compaction, ends the burst.
func TestListBurstEnds(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	if err := d.CreateFolder("a", nil); err != nil {
		t.Fatal(err)
	}
	f := openFolder(t, d, "a")
	appendText(t, f, "Subject: x\r\n\r\nx\r\n")
	if err := d.RenameFolder("a", "b"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(d.dir, ".b", uidlistLockName)); err == nil {
		t.Error("the lock went with the folder")
	}
	appendText(t, f, "Subject: x\r\n\r\nx\r\n")
	f.mu.Lock()
	err := f.rewriteList()
	burst := f.list.burst
	f.mu.Unlock()
	if err != nil || burst != nil {
		t.Errorf("rewriting: %v, burst %v", err, burst)
	}
	appendText(t, f, "Subject: x\r\n\r\nx\r\n")
	data, err := os.ReadFile(f.list.path)
	if err != nil || strings.Count(string(data), "\n") != 4 {
		t.Errorf("the list is %q, %v", data, err)
	}
	f.Release()
	if err := d.DeleteFolder("b"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.list.path); !os.IsNotExist(err) {
		t.Errorf("the deleted folder left its list: %v", err)
	}
}
