package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What people have sent is kept over a restart, and no longer than the hour, whatever a clock has said.
func TestFloodLimitRemembers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sent.json")
	clock := &testClock{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	told := 0
	var log syncBuffer
	open := func() *FloodLimit {
		l := NewFloodLimit(3, func(string) { told++ }, clock.now)
		l.Remember(path, slog.New(slog.NewTextHandler(&log, nil)))
		return l
	}
	take := func(l *FloodLimit, account string, want int) {
		t.Helper()
		n := 0
		for l.Take(account) {
			n++
		}
		if n != want {
			t.Errorf("%s: %d, want %d", account, n, want)
		}
	}
	l := open()
	l.Take("bob")
	l.Take("bob")
	l.GiveBack("bob", 1)
	l.Close()
	l = open()
	take(l, "ann", 3) // and is on disk then, without Close
	clock.t = clock.t.Add(30 * time.Minute)
	l = open()
	take(l, "ann", 0)
	take(l, "bob", 2)
	if told != 2 {
		t.Errorf("the owner was told %d times", told)
	}
	clock.t = clock.t.Add(-20 * 365 * 24 * time.Hour) // the one before was wrong
	l = open()
	take(l, "ann", 0)
	clock.t = clock.t.Add(time.Hour)
	take(l, "ann", 3)
	l.Close()
	if told != 2 {
		t.Errorf("the owner was told %d times", told)
	}

	clock.t = clock.t.Add(25 * time.Hour) // nobody is left in it
	l = open()
	l.Take("cat")
	l.GiveBack("cat", 1)
	l.Close()
	if text, err := os.ReadFile(path); err != nil || string(text) != "{}\n" {
		t.Errorf("%s, %v", text, err)
	}
	if err := os.WriteFile(path, []byte(`{"ann":{"slots":`), 0o600); err != nil {
		t.Fatal(err)
	}
	take(open(), "ann", 3)
	if !strings.Contains(log.String(), "the file cannot be read") {
		t.Errorf("logged: %s", log.String())
	}
}
