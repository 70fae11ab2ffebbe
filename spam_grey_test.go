package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// greyWorld is a filter with a greylist and a clock of the test's own.
type greyWorld struct {
	test *testing.T
	f    *SpamFilter
	cfg  SpamConfig
	log  syncBuffer
	testClock
}

func newGreyWorld(t *testing.T, zone string) *greyWorld {
	w := &greyWorld{test: t, testClock: testClock{time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}}
	w.cfg = SpamConfig{Dir: t.TempDir(), Verifier: testVerifier(startDNS(t, zone)), Greylist: true, Log: slog.New(slog.NewTextHandler(&w.log, nil)), Now: w.now,
		IsLocalDomain: func(d string) bool { return d == "test.lan" }}
	w.f = testSpamFilter(t, w.cfg)
	return w
}

func (w *greyWorld) wait(d time.Duration) { w.t = w.t.Add(d) }

// restart closes the filter and opens it again.
func (w *greyWorld) restart() {
	w.test.Helper()
	if err := w.f.Close(); err != nil {
		w.test.Fatal(err)
	}
	w.f = testSpamFilter(w.test, w.cfg)
}

// want sends a message and says whether it has to come again.
func (w *greyWorld) want(remote, from, to string, again bool) {
	w.test.Helper()
	v := judged(w.test, w.f, mailTo(remote, from, friendLetter, to))
	if (v.Refuse != "") != again || again && (!v.Later || v.Detail != 0 || !strings.Contains(v.Refuse, "try again in five minutes")) {
		w.test.Errorf("%s %s %s: %+v", remote, from, to, v)
	}
}

func TestGreylist(t *testing.T) {
	w := newGreyWorld(t, "")
	const from, ann, bob = "carl@friend.example", "ann@test.lan", "bob@test.lan"
	w.want("192.0.2.9", from, ann, true)
	w.want("192.0.2.9", from, ann, true) // too soon
	w.wait(2 * time.Minute)
	w.want("192.0.2.9", from, ann, true)
	w.want("127.0.0.1", "x@lan.example", ann, false) // the LAN is not asked
	w.wait(4 * time.Minute)
	w.want("198.51.100.9", from, ann, true) // another network
	w.want("192.0.2.9", "other@friend.example", ann, true)
	w.want("192.0.2.9", from, bob, true)
	w.restart()
	w.want("192.0.2.200", from, ann, false) // another machine of the network, as those with many have
	w.want("192.0.2.9", from, bob, false)   // who has come again is no stranger to anybody
	w.wait(50 * 24 * time.Hour)
	w.want("192.0.2.9", from, bob, false)
	w.wait(50 * 24 * time.Hour)
	w.want("192.0.2.9", from, bob, false) // counted from the last message
	w.wait(61 * 24 * time.Hour)
	w.want("192.0.2.9", from, bob, true)
	w.wait(3 * 24 * time.Hour)
	w.want("192.0.2.9", from, bob, true) // no mail server waits so long
	w.wait(-48 * time.Hour)
	w.want("192.0.2.9", from, bob, true) // the clock was set back
	w.wait(6 * time.Minute)
	w.want("192.0.2.9", from, bob, false)

	w.want("2001:db8:0:1::5", from, ann, true)
	w.wait(6 * time.Minute)
	w.want("2001:db8:0:1:ffff::1", from, ann, false) // the same customer
	w.want("2001:db8:0:2::5", from, ann, true)
}

// TestGreylistAcquaintance does not ask those who are no strangers.
func TestGreylistAcquaintance(t *testing.T) {
	w := newGreyWorld(t, "")
	w.f.learned.note("ann@test.lan", mustAddress("carl@friend.example"), knownWritten, 0)
	w.want("198.51.100.1", "bounce@list.example", "ann@test.lan", false) // she has written to him
	w.want("198.51.100.2", "bounce@list.example", "bob@test.lan", false) // the list is known since
	w.want("198.51.101.3", "bounce@list.example", "bob@test.lan", true)  // not from everywhere

	w = newGreyWorld(t, `
		_dmarc.friend.example. TXT "v=DMARC1; p=none"
		friend.example. TXT "v=spf1 ip4:192.0.2.1 ip4:203.0.113.1 -all"
	`)
	w.want("192.0.2.1", "carl@friend.example", "ann@test.lan", true) // DMARC passes, but the domain is not known yet
	w.wait(6 * time.Minute)
	w.want("192.0.2.1", "carl@friend.example", "ann@test.lan", false)
	w.want("203.0.113.1", "other@friend.example", "bob@test.lan", false) // the domain is, wherever it sends from
	w.want("198.51.100.1", "other@friend.example", "bob@test.lan", true) // a forger's is not
}

// TestGreylistBroken has a file that nobody can read, and a folder that cannot be written.
func TestGreylistBroken(t *testing.T) {
	w := newGreyWorld(t, "")
	for _, text := range []string{"", "x", strings.Repeat("\xff", 100), strings.Repeat("x", greyLimit+2)} {
		if err := os.WriteFile(filepath.Join(w.cfg.Dir, greyName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		before := strings.Count(w.log.String(), "greylist cannot be read")
		if g := openGreylist(w.cfg.Dir, w.cfg.Log, w.now); len(g.seen.memos) != 0 {
			t.Errorf("%d are remembered", len(g.seen.memos))
		}
		if n := strings.Count(w.log.String(), "greylist cannot be read"); n != before+1 {
			t.Errorf("%d octets: %s", len(text), w.log.String())
		}
	}
	g := openGreylist(filepath.Join(w.cfg.Dir, "none"), w.cfg.Log, w.now)
	g.write()
	if !strings.Contains(w.log.String(), "the greylist cannot be written") {
		t.Errorf("log: %s", w.log.String())
	}
}
