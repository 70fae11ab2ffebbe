package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// dailyWorld is a world that is looked at day by day.
type dailyWorld struct {
	*doctorWorld
	check    *DailyCheck
	now      time.Time
	mails    []string // subject and text
	telling  error    // what writing to the owner gives
	reopened int
	log      lockedBuffer
}

func openDailyWorld(t *testing.T) *dailyWorld {
	t.Helper()
	w := &dailyWorld{doctorWorld: openDoctorWorld(t), now: time.Now()}
	w.doctor.Now = func() time.Time { return w.now }
	w.routes["udp 192.0.2.22:123"] = routeNoWay // its time is the real one
	w.restart(filepath.Join(t.TempDir(), "doctor.json"))
	return w
}

// restart opens the check anew.
func (w *dailyWorld) restart(file string) {
	w.check = OpenDailyCheck(file, slog.New(slog.NewTextHandler(&w.log, nil)))
	w.check.Doctor = w.doctor
	w.check.Reopened = func() { w.reopened++ }
	w.check.Tell = func(subject, text string) error {
		if w.telling == nil {
			w.mails = append(w.mails, subject+"\n"+text)
		}
		return w.telling
	}
}

// look lets time pass and looks. mails is how many there are to be in all.
func (w *dailyWorld) look(after time.Duration, open bool, mails int) {
	w.t.Helper()
	w.now = w.now.Add(after)
	if got := w.check.look(context.Background()); got != open || len(w.mails) != mails {
		w.t.Errorf("open %v, mails %q\n%s%s", got, w.mails, showFindings(w.check.Last().Findings), w.log.String())
	}
}

func TestDailyCheckTellsOfChanges(t *testing.T) {
	w := openDailyWorld(t)
	open25 := map[string]string{}
	for _, key := range []string{"tcp 192.0.2.11:25", "tcp 192.0.2.12:25"} {
		open25[key] = w.routes[key]
	}
	day := 24 * time.Hour
	w.look(0, false, 0)
	if w.check.Closed() || w.check.NoIPv6() {
		t.Error("a way is closed where all is well")
	}

	w.route("tcp 192.0.2.1", routeSilent)
	w.look(day, true, 0)
	if !w.check.Closed() {
		t.Error("port 25 is not known to be closed")
	}
	w.look(time.Hour, false, 1)
	w.look(day, false, 1)

	// What cannot be told changes nothing, and so does a time without internet.
	w.breakNames("mx.provider.example", "in.mx.second.example")
	w.look(day, false, 1)
	w.set(func(s *testDNS) { s.silent = true })
	w.look(day, true, 1) // the network itself is worse now, by one look
	w.set(func(s *testDNS) { s.silent, s.broken = false, map[string]bool{} })
	w.look(day, false, 1)
	if !w.check.Closed() || w.reopened != 0 {
		t.Error("port 25 is forgotten")
	}

	// A new start knows what was known.
	w.restart(w.check.file)
	if !w.check.Closed() {
		t.Error("the start does not know that port 25 is closed")
	}
	for key, to := range open25 {
		w.routes[key] = to
	}
	w.look(day, true, 1)
	if w.check.Closed() || w.reopened != 1 {
		t.Errorf("closed %v, reopened %d", w.check.Closed(), w.reopened)
	}
	w.look(time.Hour, false, 2)
	if first := w.mails[0]; !strings.HasPrefix(first, "The mail server: something needs a look\n") || !strings.Contains(first, "\nThis is not as it should be:\n") ||
		!strings.Contains(first, "  * Port 25 is closed on the way out:") || !strings.Contains(first, "appliance relay set HOST USER") || strings.Contains(first, "better") {
		t.Errorf("the first mail:\n%s", first)
	}
	if second := w.mails[1]; !strings.HasPrefix(second, "The mail server: in order again\n") || !strings.Contains(second, "\nThis is better now:\n\n  * Other mail servers can be reached.\n") {
		t.Errorf("the second mail:\n%s", second)
	}
	for _, mail := range w.mails {
		for line := range strings.Lines(mail) {
			if len(line) > textWidth+1 {
				t.Errorf("a line of %d characters: %s", len(line), line)
			}
		}
	}
}

// What comes and goes is not told, several changes are told in one mail, and there is one a day at most.
func TestDailyCheckMailsSeldom(t *testing.T) {
	w := openDailyWorld(t)
	dmarc, dkim := w.records["_dmarc.example.org."], w.records["rsa1._domainkey.example.org."]
	put := func() {
		w.set(func(s *testDNS) {
			s.records["_dmarc.example.org."], s.records["rsa1._domainkey.example.org."] = dmarc, dkim
		})
	}
	day := 24 * time.Hour
	for range 3 {
		w.replace("_dmarc.example.org", "")
		w.look(day, true, 0)
		put()
		w.look(time.Hour, false, 0)
	}
	w.replace("_dmarc.example.org", "")
	w.replace("rsa1._domainkey.example.org", "")
	w.look(day, true, 0)
	w.telling = errors.New("the disk is full")
	w.look(time.Hour, false, 0)
	w.telling = nil
	w.look(day, false, 1)
	if !strings.Contains(w.mails[0], "DMARC") || !strings.Contains(w.mails[0], "rsa1._domainkey.example.org") {
		t.Errorf("the mail:\n%s", w.mails[0])
	}
	put()
	w.look(time.Hour, true, 1)
	w.look(time.Hour, false, 1) // too soon after the last mail
	w.look(day, false, 2)
	w.look(day, false, 2)

	// An address that changes every day is not news every day.
	w.replace("7.100.51.198.in-addr.arpa", "")
	w.look(day, true, 2)
	w.add(t, "mail.example.org. A 198.51.100.8\nmail.example.org. A 198.51.100.9")
	for i, last := range []string{"8", "9"} {
		addr := strings.TrimSuffix(worldV4, "7") + last
		w.local[0] = netip.MustParseAddr(addr)
		w.mu.Lock()
		w.seen[false] = w.local[0]
		w.mu.Unlock()
		w.look(day, i < 0, 3)
	}
}

func TestDailyCheckFirstFindsWrong(t *testing.T) {
	w := openDailyWorld(t)
	w.replace("example.org", "")
	w.look(0, true, 0)
	w.look(time.Hour, false, 1)
	if !strings.Contains(w.mails[0], "example.org has no MX record") {
		t.Error(w.mails[0])
	}
	w.facts.Domains = nil // what is gone is not better
	w.look(24*time.Hour, false, 1)
	if len(w.check.record.Told) > 10 || w.check.record.Told["mx example.org"] != "" {
		t.Errorf("still known: %v", w.check.record.Told)
	}
}

func TestDailyCheckIPv6(t *testing.T) {
	w := openDailyWorld(t)
	const name = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
	ptr := w.records[name+"."]
	w.replace(name, "")
	w.look(0, false, 0)
	if !w.check.NoIPv6() {
		t.Error("an address without a name is used")
	}
	w.breakNames(name)
	w.look(0, false, 0)
	if !w.check.NoIPv6() {
		t.Error("it is used because nobody can tell")
	}
	w.set(func(s *testDNS) { s.broken, s.records[name+"."] = map[string]bool{}, ptr })
	w.look(0, false, 0)
	if w.check.NoIPv6() {
		t.Error("it is not used although it has a name")
	}
}

// A command's findings count at once, and nobody is written to for them.
func TestDailyCheckLearns(t *testing.T) {
	w := openDailyWorld(t)
	w.route("tcp 192.0.2.1", routeRefused)
	w.check.Learn(w.examine())
	w.check.Learn(w.examine())
	if !w.check.Closed() || len(w.mails) != 0 {
		t.Errorf("closed %v, %q", w.check.Closed(), w.mails)
	}
	w.restart(w.check.file)
	if !w.check.Closed() || w.check.Last() == nil || w.check.Last().Port25 != AnswerNo {
		t.Errorf("not on disk: %+v", w.check.Last())
	}
}

func TestDailyCheckFile(t *testing.T) {
	w := openDailyWorld(t)
	file := w.check.file
	for _, text := range []string{"", "{", `{"port_25": 3}`, strings.Repeat(" ", dailyMaxFile+1)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w.log = lockedBuffer{}
		w.restart(file)
		if w.check.Last() != nil || w.check.Closed() || !strings.Contains(w.log.String(), "cannot be read") {
			t.Errorf("%.20q: %+v %s", text, w.check.record, w.log.String())
		}
	}
	w.look(0, false, 0)
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("%v, %v", info, err)
	}
	w.log = lockedBuffer{}
	if w.restart(file); w.check.Last() == nil || w.log.String() != "" {
		t.Errorf("not read again: %s", w.log.String())
	}
}

func TestDailyCheckRun(t *testing.T) {
	w := openDailyWorld(t)
	inBackground(w.check.Run)() // ends while it waits
	if w.check.Last() != nil {
		t.Error("it looks at once")
	}
	w.check.first = time.Millisecond
	end := inBackground(w.check.Run)
	untilTrue(t, "a look", func() bool { _, err := os.Stat(w.check.file); return err == nil })
	end()
	if len(w.check.Last().Findings) == 0 {
		t.Error("nothing is found")
	}
	// The end of the appliance makes nothing unknown.
	before := w.check.Last()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if w.check.look(ended) || w.check.Last() != before {
		t.Error("a look that was broken off counts")
	}
}

func TestWrapWords(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "> ",
		"short":                         "> short",
		strings.Repeat("word ", 20):     "> " + strings.TrimSpace(strings.Repeat("word ", 15)) + "\n  " + strings.TrimSpace(strings.Repeat("word ", 5)),
		strings.Repeat("x", 100) + " y": "> " + strings.Repeat("x", 100) + "\n  y",
		strings.Repeat("ü", 76) + " y":  "> " + strings.Repeat("ü", 76) + "\n  y",
	} {
		if got := wrapWords("> ", "  ", text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
