package main

import (
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
		l := NewFloodLimit(3, func(FloodReport) { told++ }, clock.now)
		l.Remember(path, slog.New(slog.NewTextHandler(&log, nil)))
		return l
	}
	take := func(l *FloodLimit, account string, want int) {
		t.Helper()
		n := 0
		for l.Take(floodBy(account)) {
			n++
		}
		if n != want {
			t.Errorf("%s: %d, want %d", account, n, want)
		}
	}
	l := open()
	l.Take(floodBy("bob"))
	l.Take(floodBy("bob"))
	l.GiveBack(Identity{Account: "bob"}, 1)
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
	l.Take(floodBy("cat"))
	l.GiveBack(Identity{Account: "cat"}, 1)
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

// floodBy is somebody who sends with the main password.
func floodBy(account string) FloodSender { return FloodSender{Identity: Identity{Account: account}} }

// The mail to the owner tells with which password so much was sent, over a restart, and its commands work when they are pasted.
func TestFloodReport(t *testing.T) {
	data := homeData(t)
	const phone = "Maria's old phone"
	mustRun(t, data, "user", "app-password", "add", "maria", phone)
	mustRun(t, data, "user", "app-password", "add", "maria", "laptop")
	clock := &testClock{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	path := filepath.Join(t.TempDir(), "sent.json")
	var reports []FloodReport
	open := func() *FloodLimit {
		l := NewFloodLimit(7, func(r FloodReport) { reports = append(reports, r) }, clock.now)
		l.Remember(path, slog.New(slog.DiscardHandler))
		return l
	}
	l := open()
	send := func(via string, n int) {
		for range n {
			l.Take(FloodSender{Identity{"maria@home.lan", via}, netip.MustParseAddr("203.0.113.9")})
		}
	}
	send("", 2)
	send("laptop", 1)
	l.GiveBack(Identity{"maria@home.lan", "laptop"}, 1) // counts no more
	l.GiveBack(Identity{"maria@home.lan", "tablet"}, 1) // has nothing to give back
	l.Close()
	l = open()
	send(phone, 6)
	want := []FloodShare{{phone, 5}, {"", 2}}
	if len(reports) != 1 || !slices.Equal(reports[0].Shares, want) || reports[0].Sender.Via != phone {
		t.Fatalf("%+v", reports)
	}
	text := reports[0].words()
	for _, part := range []string{"maria@home.lan has written to 7 addresses", "  5 with the app password \"Maria's old phone\"\n  2 with the main password\n", "from the address 203.0.113.9."} {
		if !strings.Contains(text, part) {
			t.Errorf("lacks %q:\n%s", part, text)
		}
	}
	var commands []string
	for line := range strings.Lines(text) {
		if words, ok := strings.CutPrefix(line, "  appliance "); ok {
			commands = append(commands, strings.TrimSpace(words))
		}
	}
	if len(commands) != 3 || !strings.HasPrefix(commands[0], "user app-password remove") {
		t.Fatalf("commands: %q", commands)
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("there is no sh here to paste them into")
	}
	for _, words := range commands {
		out, err := exec.Command(sh, "-c", `printf '%s\n' `+words).Output()
		if err != nil {
			t.Fatal(err)
		}
		args := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		if args[1] == "passwd" {
			args = append(args, "--password-stdin")
		}
		if status, _, errs := runCommand(t, data, "another-secret\n", args...); status != exitDone {
			t.Errorf("%s: %s", words, errs)
		}
	}
	if list := mustRun(t, data, "user", "app-password", "list", "maria"); strings.Contains(list, phone) || !strings.Contains(list, "laptop") {
		t.Errorf("app passwords: %s", list)
	}
}
