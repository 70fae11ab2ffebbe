package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// run collects until the function that it gives is called.
func (w *collectWorld) run() (end func()) {
	w.c.idling = 0
	return inBackground(w.c.Run)
}

// until waits for something.
func (w *collectWorld) until(what string, done func() bool) {
	w.t.Helper()
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); {
		if done() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	list, err := w.c.List("")
	w.t.Fatalf("%s did not come: %+v %v\n%s", what, list, err, w.log)
}

// inbox says whether just these messages are here.
func (w *collectWorld) inbox(numbers ...int) func() bool {
	want := textsNo(numbers...)
	slices.Sort(want)
	return func() bool { return slices.Equal(w.here(inboxName), want) }
}

// An account that gets another address goes on collecting, and nothing comes twice.
func TestCollectForRenamedAccount(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	s.appendTo(t, mailNo(1)).Release()
	w := openCollectWorld(t)
	w.c.cfg.Dialer.Roots = s.client.RootCAs
	end := w.run()
	defer end()
	w.from(&OutsideServer{Protocol: protocolIMAP, Host: "localhost", Port: s.ports["imaps"], TLS: tlsImplicit, Login: "ann", Password: "ann-secret"}, true)
	w.until("the first message", w.inbox(1))
	const to = "anna@home.lan"
	if err := w.store.Rename("ann@home.lan", to, func() error { return w.accounts.Rename("ann@home.lan", to) }); err != nil {
		t.Fatal(err)
	}
	if err := w.c.RenameAccount("ann@home.lan", to); err != nil {
		t.Fatal(err)
	}
	s.appendTo(t, mailNo(2)).Release()
	count := func() (n int) {
		for _, sub := range []string{"new", "cur"} {
			names, err := listNames(filepath.Join(w.dir, "mail", "home.lan", "anna", sub))
			if err != nil {
				t.Fatal(err)
			}
			n += len(names)
		}
		return n
	}
	w.until("the second message", func() bool { return count() >= 2 })
	w.until("the end of the look", func() bool {
		list, err := w.c.List(to)
		return err == nil && len(list) == 1 && list[0].Waiting
	})
	if n := count(); n != 2 {
		t.Errorf("%d messages", n)
	}
	if list, err := w.c.List("ann@home.lan"); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
}

// A server that can IDLE tells at once; one session does all, ends with a removal, and no goroutine is left.
func TestCollectIdle(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	s.appendTo(t, mailNo(1)).Release()
	w := openCollectWorld(t)
	w.c.cfg.Dialer.Roots = s.client.RootCAs
	before := goroutinesOf(t)
	end := w.run()
	w.from(&OutsideServer{Protocol: protocolIMAP, Host: "localhost", Port: s.ports["imaps"], TLS: tlsImplicit, Login: "ann", Password: "ann-secret"}, false)
	waits := func() bool {
		list, err := w.c.List("ann@home.lan")
		return err == nil && len(list) == 1 && list[0].Waiting
	}
	w.until("the first message", w.inbox(1))
	w.until("the wait", waits)
	s.appendTo(t, mailNo(2)).Release()
	w.until("the second message", w.inbox(1, 2))
	w.until("the wait", waits)
	if n, running, err := w.c.LookNow("ann@home.lan", "", ""); n != 1 || !running || err != nil {
		t.Error(n, running, err)
	}
	w.until("the wait", waits)
	s.appendTo(t, mailNo(3)).Release()
	w.until("the third message", w.inbox(1, 2, 3))
	if n := strings.Count(s.log.String(), "msg=login"); n != 1 {
		t.Errorf("%d logins", n)
	}
	if _, err := w.c.Remove("ann@home.lan", "localhost", ""); err != nil {
		t.Error(err)
	}
	if names, err := listNames(w.c.cfg.Dir); err != nil || len(names) > 0 {
		t.Error(names, err)
	}
	end()
	waitForGoroutines(t, before+3) // what the stores have opened
}

// Without IDLE the account is looked into again and again.
func TestCollectPolls(t *testing.T) {
	for _, protocol := range []string{protocolPOP3, protocolIMAP} {
		f := startFake(t, mailsNo(protocol == protocolIMAP, 1)...)
		w := openCollectWorld(t)
		w.fromFake(f, protocol, true)
		w.c.mu.Lock()
		w.now = time.Now()
		w.c.mu.Unlock()
		end := w.run()
		w.until("the first message", w.inbox(1))
		w.until("the end of the look", func() bool { list, _ := w.c.List(""); return !list[0].Next.IsZero() })
		list, err := w.c.List("")
		if err != nil || list[0].Next.Sub(w.now).Round(time.Minute) != 5*time.Minute || list[0].Fetched != 1 {
			t.Errorf("%+v %v", list, err)
		}
		f.set(func() { f.mail = mailsNo(protocol == protocolIMAP, 1, 2) })
		if _, _, err := w.c.LookNow("", "", ""); err != nil {
			t.Error(err)
		}
		w.until("the second message", w.inbox(1, 2))
		end()
	}
}

// Hundreds of accounts have few connections at a time, whether they wait for news or not, and end at once.
func TestCollectFromHundreds(t *testing.T) {
	t.Parallel()
	f := startFake(t, mailsNo(true, 1)...)
	f.set(func() { f.caps = "UIDPLUS IDLE" })
	w := openCollectWorld(t)
	w.fromFake(f, protocolIMAP, true)
	sources := []CollectSource{}
	for n := range 300 {
		s := w.source
		s.Login = fmt.Sprintf("login%d", n)
		sources = append(sources, s)
	}
	if err := w.c.book.change(func([]CollectSource) ([]CollectSource, error) { return sources, nil }); err != nil {
		t.Fatal(err)
	}
	end := w.run()
	w.until("a look into each", func() bool {
		list, _ := w.c.List("")
		return !slices.ContainsFunc(list, func(r CollectReport) bool { return r.Looked.IsZero() })
	})
	w.until("as many connections that wait as there may be", func() bool {
		w.c.mu.Lock()
		defer w.c.mu.Unlock()
		return w.c.idling == collectIdle
	})
	f.mu.Lock()
	most, open := f.most, f.open
	f.mu.Unlock()
	// Over there a connection is seen to end a little later than here.
	if open > collectIdle+2*collectAtOnce || most > collectIdle+4*collectAtOnce {
		t.Errorf("%d connections are open, %d were at most", open, most)
	}
	end()
	if n := len(w.here(inboxName)); n != 300 {
		t.Errorf("%d messages", n)
	}
	w.until("the end of the connections", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.open == 0 })
}

// A wrong password is tried a few times in days, also over restarts; whose mail it is gets one mail about it.
func TestCollectWrongPassword(t *testing.T) {
	for _, protocol := range []string{protocolPOP3, protocolIMAP} {
		t.Run(protocol, func(t *testing.T) {
			f := startFake(t, mailsNo(protocol == protocolIMAP, 1)...)
			f.set(func() { f.password = "another" })
			w := openCollectWorld(t)
			w.fromFake(f, protocol, false)
			start := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
			var tries []string
			for minutes := 0; minutes <= 3*24*60; minutes += 30 {
				w.now = start.Add(time.Duration(minutes) * time.Minute)
				if minutes%120 == 0 { // a restart
					w.reopen(nil)
				}
				before := f.count()
				end := w.run()
				w.until("a look", func() bool {
					w.c.mu.Lock()
					defer w.c.mu.Unlock()
					for _, job := range w.c.jobs {
						return job.cancel == nil && job.next.After(w.now)
					}
					return false
				})
				end()
				if f.count() != before {
					tries = append(tries, w.now.Sub(start).String())
				}
			}
			if got := strings.Join(tries, " "); got != "0s 30m0s 2h30m0s 8h30m0s 24h30m0s 48h30m0s" {
				t.Errorf("tried at %s", got)
			}
			if len(w.told) != 1 || !strings.HasPrefix(w.told[0], "ann@home.lan From: ") || !strings.Contains(w.told[0], "Subject: No mail comes from localhost") ||
				!strings.Contains(w.told[0], "no such luck") || !strings.Contains(w.told[0], fmt.Sprintf("collect add ann@home.lan %s localhost:%d ann", protocol, f.port)) || strings.Contains(w.told[0], "secret") {
				t.Errorf("told: %q", w.told)
			}
			report := w.report()
			if report.Tries != 6 || !strings.Contains(report.Reason, "does not take the login of ann (it says: no such luck)") || !report.Since.Equal(start) {
				t.Errorf("%+v", report.CollectStatus)
			}
			if strings.Contains(w.log.String(), "secret") {
				t.Error("the password is in the log")
			}
			// The new password is used at once.
			w.source.Password = "another"
			w.reopen(nil)
			end := w.run()
			if changed, err := w.c.Add(w.source, CollectChange{}); !changed || err != nil {
				t.Error(changed, err)
			}
			w.until("the message", w.inbox(1))
			end()
			if report := w.report(); report.Reason != "" || report.Told {
				t.Errorf("%+v", report.CollectStatus)
			}
		})
	}
}

func TestCollectGaps(t *testing.T) {
	for _, test := range []struct {
		fault outsideFault
		every time.Duration
		want  string
	}{
		{faultPassing, 5 * time.Minute, "5m0s 10m0s 20m0s 40m0s 1h0m0s 1h0m0s"},
		{faultPassing, 2 * time.Hour, "2h0m0s 2h0m0s 2h0m0s 2h0m0s 2h0m0s 2h0m0s"},
		{faultSetup, 5 * time.Minute, "1h0m0s 2h0m0s 4h0m0s 4h0m0s 4h0m0s 4h0m0s"},
		{faultLogin, time.Minute, "30m0s 2h0m0s 6h0m0s 16h0m0s 24h0m0s 24h0m0s"},
	} {
		var got []string
		for tries := 1; tries <= 6; tries++ {
			got = append(got, collectGap(test.fault, tries, test.every).String())
		}
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("%v %v: %s", test.fault, test.every, s)
		}
	}
	if collectGap(faultPassing, 1<<30, time.Minute) != time.Hour || collectGap(faultSetup, 1<<30, time.Minute) != 4*time.Hour {
		t.Error("a long row of failures")
	}
}

// An edit by hand counts; one that is wrong is said once, and what was good goes on.
func TestCollectEditedFile(t *testing.T) {
	f := startFake(t, mailsNo(false, 1)...)
	w := openCollectWorld(t)
	w.fromFake(f, protocolPOP3, true)
	good, err := os.ReadFile(w.c.cfg.File)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(w.c.cfg.File); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	end := w.run()
	defer end()
	w.until("the message", w.inbox(1))
	for text, want := range map[string]string{
		"[[source]\n":                                            "collect.toml line 2: ",
		string(good) + "colour = 'red'\n":                        `there is no setting "source.colour"`,
		strings.Replace(string(good), "pop3", "nntp", 1):         `collect.toml line 5: protocol: "nntp" is no way to collect mail: take imap or pop3`,
		string(good) + string(good):                              "login: the same account is there twice",
		strings.Replace(string(good), `tls = "implicit"`, "", 1): "tls: it is missing",
		strings.Replace(string(good), `"secret"`, `""`, 1):       "password: the password is missing",
	} {
		if err := writeFileAtomic(w.c.cfg.File, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.c.List(""); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %s", err, want)
		}
		if _, err := w.c.Add(w.source, CollectChange{}); err == nil {
			t.Error("a bad file was written over")
		}
		if _, err := w.c.Remove("ann@home.lan", "", ""); err == nil {
			t.Error("a bad file was written over")
		}
		w.c.hurry()
		w.until("a word about it", func() bool { return strings.Contains(w.log.String(), "what is collected stays as it was") })
	}
	f.set(func() { f.mail = append(f.mail, mailsNo(false, 2)...) })
	second := w.inbox(1, 2)
	w.until("the second message", func() bool {
		w.c.mu.Lock()
		for _, job := range w.c.jobs {
			job.next = time.Time{}
		}
		w.c.mu.Unlock()
		w.c.hurry()
		return second()
	})
	if err := writeFileAtomic(w.c.cfg.File, nil); err != nil {
		t.Fatal(err)
	}
	w.c.hurry()
	w.until("the end of it", func() bool { w.c.mu.Lock(); defer w.c.mu.Unlock(); return len(w.c.jobs) == 0 })
}

// What is kept of the messages survives what it can be, and is told apart from damage.
func TestSeenList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.seen")
	l, err := openSeen(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3000 {
		key := fmt.Sprint(n)
		if err := l.set(key, seenMessage{state: seenDone, size: int64(n), sum: seenSum{1}}); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			if err := l.forget(fmt.Sprint(n - 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.tidy(); err != nil {
		t.Fatal(err)
	}
	if err := l.begin(pendingDelivery{key: "p", size: 5, sum: seenSum{2}, stored: 7, hash: [32]byte{3}}); err != nil {
		t.Fatal(err)
	}
	l.close()
	text, err := os.ReadFile(path)
	if err != nil || strings.Count(string(text), "\n") != 2 {
		t.Fatalf("%q %v", text, err)
	}
	if err := os.WriteFile(path, append(text, "done torn 5 0"...), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err = openSeen(path)
	if err != nil || len(l.messages) != 1 || l.messages["2999"].size != 2999 || l.pending == nil || l.pending.stored != 7 || l.pending.hash != [32]byte{3} {
		t.Fatalf("%+v %v", l, err)
	}
	if err := l.set("next", seenMessage{state: seenFailed, size: -1, tries: 2}); err != nil {
		t.Fatal(err)
	}
	l.close()
	l, err = openSeen(path)
	if err != nil || len(l.messages) != 2 || l.messages["next"].tries != 2 {
		t.Fatalf("%+v %v", l, err)
	}
	l.close()
	if err := os.WriteFile(path, []byte("done a 5 00\nlarge b 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openSeen(path); err == nil || !strings.Contains(err.Error(), "x.seen is damaged in line 1") {
		t.Error(err)
	}
}

// Only so many are remembered; UIDs that were forgotten are not fetched again.
func TestSeenListIsBounded(t *testing.T) {
	l, err := openSeen(filepath.Join(t.TempDir(), "x.seen"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { l.close() }()
	if err := l.renumber(9); err != nil {
		t.Fatal(err)
	}
	for n := range maxSeen + 10 {
		l.put(fmt.Sprint(n+1), seenMessage{state: seenDone})
	}
	if err := l.trim(); err != nil {
		t.Fatal(err)
	}
	if _, oldest := l.messages["1"]; oldest || len(l.messages) != maxSeen*9/10 || l.last != maxSeen+10 {
		t.Errorf("%d messages, last %d", len(l.messages), l.last)
	}
	path := l.path
	l.close()
	if l, err = openSeen(path); err != nil || l.last != maxSeen+10 || l.validity != 9 {
		t.Errorf("%v", err)
	}
}

// FuzzSeenList reads whatever lies there, and then can read what it has written.
func FuzzSeenList(f *testing.F) {
	f.Add("validity 7\nlast 9\ndone 5 10 00112233445566778899aabbccddeeff\nfailed 6 -1 2\nlarge 7 8\nformer 00112233445566778899aabbccddeeff\n")
	f.Add("pending k 1 00112233445566778899aabbccddeeff 2 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\ndropped\ngone k")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "x.seen")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := openSeen(path)
		if err != nil {
			return
		}
		if err := l.writeAnew(); err != nil {
			t.Fatal(err)
		}
		l.close()
		again, err := openSeen(path)
		if err != nil || len(again.messages) != len(l.messages) || again.last != l.last || (again.pending == nil) != (l.pending == nil) {
			t.Errorf("%v: %+v, was %+v", err, again, l)
		}
		if again != nil {
			again.close()
		}
	})
}

// A cancelled look ends at once, wherever it stands.
func TestCollectEndsAtOnce(t *testing.T) {
	for _, at := range []string{"greeting", "UIDL", "RETR"} {
		f := startFake(t, mailsNo(false, 1)...)
		f.set(func() { f.mute = at })
		w := openCollectWorld(t)
		w.fromFake(f, protocolPOP3, false)
		end := w.run()
		w.until("the silence", func() bool {
			if at == "greeting" {
				f.mu.Lock()
				defer f.mu.Unlock()
				return f.open > 0
			}
			return f.came(at) > 0
		})
		began := time.Now()
		end()
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: %v", at, took)
		}
		w.expect(inboxName)
		if w.report().Reason != "" {
			t.Error("the end counts as trouble")
		}
	}
}
