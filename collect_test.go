package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// collectWorld is a store here that collects for ann@home.lan.
type collectWorld struct {
	t        testing.TB
	dir      string
	accounts *Accounts
	store    *Store
	c        *Collector
	log      *syncBuffer
	now      time.Time // of the collector; zero: the clock
	told     []string
	source   CollectSource
}

func openCollectWorld(t testing.TB) *collectWorld {
	t.Helper()
	w := &collectWorld{t: t, dir: t.TempDir(), log: &syncBuffer{}}
	w.accounts = openTestAccounts(t, "[[user]]\naddress = 'ann@home.lan'\n[[user]]\naddress = 'bob@home.lan'\n")
	w.store = testStore(t, w.dir)
	w.store.quota = w.accounts.Quota
	t.Cleanup(func() {
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	w.reopen(nil)
	return w
}

// reopen begins anew with what is on disk.
func (w *collectWorld) reopen(adjust func(cfg *CollectorConfig)) {
	cfg := CollectorConfig{File: filepath.Join(w.dir, "collect.toml"), Dir: filepath.Join(w.dir, "collect"), Accounts: w.accounts, Store: w.store,
		Hostname: "mail.home.lan", MaxSize: 1 << 20, Log: slog.New(slog.NewTextHandler(w.log, nil)),
		Tell: func(account string, message []byte) error {
			w.told = append(w.told, account+" "+string(message))
			return nil
		},
		Now: func() time.Time {
			if w.now.IsZero() {
				return time.Now()
			}
			return w.now
		}}
	if w.c != nil {
		cfg.Dialer = w.c.cfg.Dialer
	}
	if adjust != nil {
		adjust(&cfg)
	}
	w.c = OpenCollector(cfg)
	w.c.idling = collectIdle // a look ends, and does not wait
}

// from collects from a port of this machine.
func (w *collectWorld) from(server *OutsideServer, keep bool) {
	w.source = CollectSource{Account: "ann@home.lan", OutsideServer: *server, Keep: keep}
	if _, err := w.c.Add(w.source, CollectChange{}); err != nil {
		w.t.Fatal(err)
	}
}

// fromFake collects from a fake.
func (w *collectWorld) fromFake(f *fakeOutside, protocol string, keep bool) {
	w.c.cfg.Dialer.Roots = f.root.RootCAs
	w.from(&OutsideServer{Protocol: protocol, Host: "localhost", Port: f.port, TLS: tlsImplicit, Login: "ann", Password: "secret"}, keep)
}

// look looks until there is no more.
func (w *collectWorld) look() error {
	w.t.Helper()
	for range 50 {
		w.c.slot <- struct{}{}
		job := &collectJob{source: w.source, status: w.c.readStatus(w.source.id()), poke: make(chan struct{}, 1)}
		r := &collectRound{c: w.c, job: job, source: w.source, holds: true}
		more, err := r.run(context.Background())
		<-w.c.slot
		w.c.writeStatus(w.source.id(), &job.status)
		if !more || err != nil {
			return err
		}
	}
	w.t.Fatal("there is always more")
	return nil
}

func (w *collectWorld) mustLook() {
	w.t.Helper()
	if err := w.look(); err != nil {
		w.t.Fatal(err)
	}
}

// here gives the messages in a folder, sorted.
func (w *collectWorld) here(folder string) (texts []string) {
	w.t.Helper()
	drop, err := w.store.Maildrop("ann@home.lan")
	if err != nil {
		w.t.Fatal(err)
	}
	defer drop.Release()
	f, err := drop.Open(folder)
	if errors.Is(err, ErrNoFolder) {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Release()
	dir := filepath.Join(w.dir, "mail", "home.lan", "ann")
	if folder != inboxName {
		dir = filepath.Join(dir, "."+strings.ReplaceAll(folder, "/", "."))
	}
	for _, sub := range []string{"new", "cur"} {
		names, err := listNames(filepath.Join(dir, sub))
		if err != nil {
			w.t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(filepath.Join(dir, sub, name))
			if err != nil {
				w.t.Fatal(err)
			}
			texts = append(texts, string(text))
		}
	}
	slices.Sort(texts)
	return texts
}

// expect compares what is here, and that nothing lies in tmp/.
func (w *collectWorld) expect(folder string, texts ...string) {
	w.t.Helper()
	slices.Sort(texts)
	if got := w.here(folder); !slices.Equal(got, texts) {
		w.t.Errorf("%s holds %q, want %q", folder, clipAll(got), clipAll(texts))
	}
	if names, err := listNames(filepath.Join(w.dir, "mail", "home.lan", "ann", "tmp")); err != nil || len(names) > 0 {
		w.t.Errorf("tmp: %v %v", names, err)
	}
}

func clipAll(texts []string) (short []string) {
	for _, text := range texts {
		short = append(short, clip(text, 60))
	}
	return short
}

// mailNo is a message with a number.
func mailNo(n int) string {
	return fmt.Sprintf("Received: from a by b; Wed, 01 Jan 2020 0%d:00:00 +0000\r\nFrom: maria@friends.test\r\nSubject: number %d\r\n\r\n.dot\r\n..\r\ntext %d\r\n", n%10, n, n)
}

// mailsNo are messages for a fake.
func mailsNo(imapUIDs bool, numbers ...int) (list []fakeMail) {
	for _, n := range numbers {
		m := fakeMail{uidl: fmt.Sprintf("u%d", n), text: mailNo(n)}
		if imapUIDs {
			m.uid = n
		}
		list = append(list, m)
	}
	return list
}

func textsNo(numbers ...int) (list []string) {
	for _, n := range numbers {
		list = append(list, mailNo(n))
	}
	return list
}

// Both protocols, both ways to TLS, with and without --keep, against a server of our own.
func TestCollectFromUs(t *testing.T) {
	t.Parallel()
	for _, port := range []string{"pop3s", "pop3", "imaps", "imap"} {
		for _, keep := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s keep=%v", port, keep), func(t *testing.T) {
				s := transcriptServer(t, &Protocols{})
				there := s.appendTo(t, mailNo(1), mailNo(2), mailNo(3))
				defer there.Release()
				w := openCollectWorld(t)
				w.c.cfg.Dialer.Roots = s.client.RootCAs
				server := OutsideServer{Protocol: strings.TrimSuffix(port, "s"), Host: "localhost", Port: s.ports[port], Login: "ann", Password: "ann-secret"}
				found, err := w.c.cfg.Dialer.find(context.Background(), server)
				if err != nil || found.TLS != map[bool]string{true: tlsImplicit, false: tlsStart}[strings.HasSuffix(port, "s")] {
					t.Fatalf("%+v %v", found, err)
				}
				w.from(&found, keep)
				w.source.Folder = "Old/Mail"
				w.mustLook()
				w.expect("Old/Mail", textsNo(1, 2, 3)...)
				w.mustLook()
				w.expect("Old/Mail", textsNo(1, 2, 3)...)
				if left := len(there.UIDs()); left != map[bool]int{true: 3}[keep] {
					t.Errorf("%d messages are left over there", left)
				}
				s.appendTo(t, mailNo(4)).Release()
				w.reopen(nil)
				w.mustLook()
				w.expect("Old/Mail", textsNo(1, 2, 3, 4)...)
				drop, err := w.store.Maildrop("ann@home.lan")
				if err != nil {
					t.Fatal(err)
				}
				defer drop.Release()
				f := openFolder(t, drop, "Old/Mail")
				defer f.Release()
				if f.UIDs()[0] != 1 {
					t.Error(f.UIDs())
				}
			})
		}
	}
}

// A message has the date at which it came over there, and the flags that it has there.
func TestCollectDateAndFlags(t *testing.T) {
	for _, protocol := range []string{protocolPOP3, protocolIMAP} {
		mail := mailsNo(protocol == protocolIMAP, 1)
		mail[0].flags = `\Seen \Flagged $Junk`
		f := startFake(t, mail...)
		w := openCollectWorld(t)
		w.fromFake(f, protocol, true)
		w.mustLook()
		drop, err := w.store.Maildrop("ann@home.lan")
		if err != nil {
			t.Fatal(err)
		}
		inbox := openFolder(t, drop, inboxName)
		msgs, err := inbox.Messages(nil, inbox.UIDs(), true)
		if err != nil || len(msgs) != 1 {
			t.Fatal(msgs, err)
		}
		m := msgs[0]
		want, flags := "2020-01-01T01:00:00Z", Flags(0)
		if protocol == protocolIMAP {
			want, flags = "2020-02-01T03:04:05Z", FlagSeen|FlagFlagged
		}
		if got := time.Unix(m.Date, 0).UTC().Format(time.RFC3339); got != want || m.Flags != flags {
			t.Errorf("%s: %s %v", protocol, got, m.Flags)
		}
		inbox.Release()
		drop.Release()
	}
}

// A crash at every step: the journal as it is at that moment, with or without the message in the maildrop.
func TestCollectAfterCrash(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{protocolPOP3, protocolIMAP} {
		for _, keep := range []bool{false, true} {
			f := startFake(t, mailsNo(protocol == protocolIMAP, 1, 2)...)
			f.set(func() { f.removes = false }) // what is over there before the crash
			w := openCollectWorld(t)
			w.fromFake(f, protocol, keep)
			w.mustLook()
			path := filepath.Join(w.c.cfg.Dir, w.source.id()+seenSuffix)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			before, _, _ := strings.Cut(string(whole), "gone ") // it is written after the deletion
			whole = []byte(before)
			// The journal is cut after every line, and within it. The lines that are whole tell what was on disk then.
			for cut := range len(whole) + 1 {
				torn := cut > 0 && whole[cut-1] != '\n'
				if torn && (cut+5 != len(before)/2 && cut+5 != len(before)) {
					continue
				}
				lines := string(whole[:cut])
				lines = lines[:strings.LastIndexByte(lines, '\n')+1]
				done, pending := strings.Count(lines, "done "), strings.Count(lines, "pending ")
				for _, delivered := range slices.Compact([]int{done, pending}) {
					f := startFake(t, mailsNo(protocol == protocolIMAP, 1, 2)...)
					again := openCollectWorld(t)
					again.fromFake(f, protocol, keep)
					for n := range delivered {
						again.put(mailNo(n + 1))
					}
					if err := os.MkdirAll(again.c.cfg.Dir, 0o700); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(again.c.cfg.Dir, again.source.id()+seenSuffix), whole[:cut], 0o600); err != nil {
						t.Fatal(err)
					}
					again.mustLook()
					again.mustLook()
					again.expect(inboxName, textsNo(1, 2)...)
					if left := len(f.left()); left != map[bool]int{true: 2}[keep] {
						t.Errorf("%s keep=%v cut %d: %d left over there", protocol, keep, cut, left)
					}
				}
				if t.Failed() {
					t.Fatalf("%s keep=%v, journal:\n%s", protocol, keep, whole[:cut])
				}
			}
		}
	}
}

// put delivers a message as the collector does.
func (w *collectWorld) put(text string) {
	w.t.Helper()
	drop, err := w.store.Maildrop("ann@home.lan")
	if err != nil {
		w.t.Fatal(err)
	}
	defer drop.Release()
	in, err := drop.Receive()
	if err == nil {
		_, err = io.WriteString(in, text)
	}
	if err == nil {
		err = w.store.Deliver(context.Background(), in, []Delivery{{Account: "ann@home.lan", Folder: inboxName}})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// The message that a crash has left behind is found in whatever folder its owner has put it.
func TestCollectFindsMovedMessage(t *testing.T) {
	w := openCollectWorld(t)
	f := startFake(t, mailsNo(false, 1)...)
	w.fromFake(f, protocolPOP3, true)
	w.mustLook()
	path := filepath.Join(w.c.cfg.Dir, w.source.id()+seenSuffix)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "done")
	if err := os.WriteFile(path, []byte(first), 0o600); err != nil {
		t.Fatal(err)
	}
	drop, err := w.store.Maildrop("ann@home.lan")
	if err != nil {
		t.Fatal(err)
	}
	defer drop.Release()
	inbox, archive := openFolder(t, drop, inboxName), openFolder(t, drop, "Archive")
	defer inbox.Release()
	defer archive.Release()
	setFlag(t, inbox, imap.FlagFlagged, 1)
	if _, _, _, err := inbox.Move([]imap.UID{1}, archive); err != nil {
		t.Fatal(err)
	}
	w.mustLook()
	w.expect(inboxName)
	w.expect("Archive", mailNo(1))
}

// A server that numbers its messages anew gets nothing fetched twice.
func TestCollectRenumbered(t *testing.T) {
	for _, protocol := range []string{protocolPOP3, protocolIMAP} {
		t.Run(protocol, func(t *testing.T) {
			f := startFake(t, mailsNo(protocol == protocolIMAP, 1, 2, 3)...)
			w := openCollectWorld(t)
			w.fromFake(f, protocol, true)
			w.mustLook()
			f.set(func() {
				f.validity = 8
				f.mail = mailsNo(protocol == protocolIMAP, 5, 6, 7, 8)
				for i, n := range []int{3, 1, 4, 2} {
					f.mail[i].text = mailNo(n)
				}
			})
			w.mustLook()
			w.mustLook()
			w.expect(inboxName, textsNo(1, 2, 3, 4)...)
		})
	}
}

// UIDLs that are given again, to other messages or to several at once, lose nothing and double nothing.
func TestCollectBadUIDLs(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("keep=%v", keep), func(t *testing.T) {
			f := startFake(t, fakeMail{uidl: "same", text: mailNo(1)}, fakeMail{uidl: "same", text: mailNo(22)}, fakeMail{uidl: "x", text: mailNo(3)})
			w := openCollectWorld(t)
			w.fromFake(f, protocolPOP3, keep)
			w.mustLook()
			w.mustLook()
			w.expect(inboxName, textsNo(1, 22, 3)...)
			// Others have them now; the sizes are others as well, without which nobody could tell with --keep.
			f.set(func() {
				f.mail = []fakeMail{{uidl: "same", text: mailNo(4) + "more\r\n"}, {uidl: "x", text: mailNo(3) + "longer\r\n"}}
			})
			w.mustLook()
			w.mustLook()
			w.expect(inboxName, append(textsNo(1, 22, 3), mailNo(4)+"more\r\n", mailNo(3)+"longer\r\n")...)
			if left := len(f.left()); left != map[bool]int{true: 2}[keep] {
				t.Errorf("%d left over there", left)
			}
		})
	}
}

// A UIDL that another message got before the deletion of the first was noted is not taken for the first, though the two have
// the same size.
func TestCollectReusedUIDL(t *testing.T) {
	f := startFake(t, mailsNo(false, 1)...)
	w := openCollectWorld(t)
	w.fromFake(f, protocolPOP3, false)
	w.mustLook()
	f.set(func() { f.mail = []fakeMail{{uidl: "u1", text: mailNo(2)}} })
	w.mustLook()
	w.expect(inboxName, textsNo(1, 2)...)
	if left := f.left(); len(left) > 0 {
		t.Error(left)
	}
}

// A server that does not delete is asked twice; its messages are not read again and again.
func TestCollectServerKeeps(t *testing.T) {
	f := startFake(t, mailsNo(false, 1, 2)...)
	f.set(func() { f.removes = false })
	w := openCollectWorld(t)
	w.fromFake(f, protocolPOP3, false)
	for range 4 {
		w.mustLook()
	}
	w.expect(inboxName, textsNo(1, 2)...)
	if n := f.came("RETR"); n != 4 {
		t.Errorf("%d messages were read", n)
	}
}

// One message that is broken, too large, or not what it is said to be does not hold up the others.
func TestCollectBrokenMessages(t *testing.T) {
	for _, protocol := range []string{protocolPOP3, protocolIMAP} {
		t.Run(protocol, func(t *testing.T) {
			mail := mailsNo(protocol == protocolIMAP, 1, 2, 3, 4, 5, 6, 7)
			mail[1].size = 3 << 20                                         // it says that it is large
			mail[2].text = mailNo(3) + strings.Repeat("x", 2<<20) + "\r\n" // it is large
			mail[2].size = 10                                              // and does not say so
			mail[4].size = 1 << 19                                         // it is smaller than it says
			mail[6].text = "no header\x00 at all, one line\xff without end\r\n"
			f := startFake(t, mail...)
			f.set(func() { f.refuse[map[bool]string{true: "4", false: "u4"}[protocol == protocolIMAP]] = true })
			w := openCollectWorld(t)
			w.fromFake(f, protocol, false)
			w.mustLook()
			w.mustLook()
			want := append(textsNo(1, 5, 6), mail[6].text)
			w.expect(inboxName, want...)
			if left := f.left(); len(left) != 3 {
				t.Errorf("left: %q", clipAll(left))
			}
			list := w.report()
			if list.Large != 2 || list.Failed != 1 || list.Fetched != 4 {
				t.Errorf("%+v", list.CollectStatus)
			}
			// The limit is raised.
			w.reopen(func(cfg *CollectorConfig) { cfg.MaxSize = 4 << 20 })
			w.mustLook()
			w.expect(inboxName, append(want, mailNo(2), mail[2].text)...)
			// The refused one is tried some times and then left alone.
			for range 8 {
				w.mustLook()
			}
			n := f.came("RETR 4") + f.came("RETR 2") + f.came("UID FETCH 4 (UID BODY")
			if protocol == protocolIMAP && n != maxSeenTries || f.came("RETR") > 7+2*maxSeenTries+10 {
				t.Errorf("it was asked for %d times", n)
			}
		})
	}
}

// report is what `collect list` tells of the one source.
func (w *collectWorld) report() CollectReport {
	w.t.Helper()
	w.c.jobs = map[string]*collectJob{} // from disk
	list, err := w.c.List("")
	if err != nil || len(list) != 1 {
		w.t.Fatal(list, err)
	}
	if list[0].Password != "" {
		w.t.Error("the password is shown")
	}
	return list[0]
}

// A connection that ends within a message leaves nothing here, and loses nothing; if it does so each time, the others come
// all the same.
func TestCollectBrokenOff(t *testing.T) {
	for _, protocol := range []string{protocolPOP3, protocolIMAP} {
		t.Run(protocol, func(t *testing.T) {
			f := startFake(t, mailsNo(protocol == protocolIMAP, 1, 2, 3)...)
			name := map[bool]string{true: "2", false: "u2"}[protocol == protocolIMAP]
			f.set(func() { f.cut[name] = len(mailNo(2)) - 3 })
			w := openCollectWorld(t)
			w.fromFake(f, protocol, false)
			if err := w.look(); err == nil || !strings.Contains(err.Error(), "closed the connection") {
				t.Errorf("%v", err)
			}
			w.expect(inboxName, textsNo(1)...)
			for range maxSeenTries {
				_ = w.look() // it fails, or gives that message up
			}
			w.expect(inboxName, textsNo(1, 3)...)
			if left := f.left(); !slices.Equal(left, textsNo(2)) {
				t.Errorf("left: %q", left)
			}
			if failed := w.report().Failed; failed != 1 {
				t.Errorf("%d failed", failed)
			}
			f.set(func() { delete(f.cut, name) })
			w.c.slot <- struct{}{}
			r := &collectRound{c: w.c, job: &collectJob{source: w.source}, source: w.source, holds: true, anyway: true}
			if _, err := r.run(context.Background()); err != nil {
				t.Error(err)
			}
			<-w.c.slot
			w.expect(inboxName, textsNo(1, 2, 3)...)
		})
	}
}

// Servers that are silent, endless or mad end in a sentence, soon, and nothing is left open.
func TestCollectHostileServers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1<<20)
	for _, test := range []struct {
		name, protocol string
		manners        func(f *fakeOutside)
		want           string
	}{
		{"silent greeting", protocolPOP3, func(f *fakeOutside) { f.mute = "greeting" }, "did not answer in time"},
		{"silent list", protocolPOP3, func(f *fakeOutside) { f.mute = "UIDL" }, "did not answer in time"},
		{"silent message", protocolPOP3, func(f *fakeOutside) { f.mute = "RETR" }, "did not answer in time"},
		{"silent end", protocolPOP3, func(f *fakeOutside) { f.mute = "QUIT" }, "did not answer in time"},
		{"other protocol", protocolPOP3, func(f *fakeOutside) { f.reply["greeting"] = "220 SMTP here\r\n" }, "does not speak POP3"},
		{"busy", protocolPOP3, func(f *fakeOutside) { f.reply["PASS"] = "-ERR [IN-USE] one at a time\r\n" }, "lets nobody in now (it says: one at a time)"},
		{"endless line", protocolPOP3, func(f *fakeOutside) { f.reply["CAPA"] = "+OK\r\n" + long }, "more than was asked for"},
		{"no UIDL", protocolPOP3, func(f *fakeOutside) { f.reply["UIDL"] = "-ERR what?\r\n" }, "does not tell one message from another"},
		{"bad UIDL", protocolPOP3, func(f *fakeOutside) { f.reply["UIDL"] = "+OK\r\n1 a\r\n1 b\r\n.\r\n" }, "does not speak POP3"},
		{"no LIST", protocolPOP3, func(f *fakeOutside) { f.reply["LIST"] = "-ERR later\r\n" }, "lets nobody in now"},
		{"closes", protocolPOP3, func(f *fakeOutside) { f.end = "DELE" }, "closed the connection"},
		{"silent greeting", protocolIMAP, func(f *fakeOutside) { f.mute = "greeting" }, "did not answer in time"},
		{"silent login", protocolIMAP, func(f *fakeOutside) { f.mute = "LOGIN" }, "did not answer in time"},
		{"silent search", protocolIMAP, func(f *fakeOutside) { f.mute = "UID SEARCH" }, "did not answer in time"},
		{"silent message", protocolIMAP, func(f *fakeOutside) { f.mute = "UID FETCH 1 (UID BODY" }, "did not answer in time"},
		{"silent store", protocolIMAP, func(f *fakeOutside) { f.mute = "UID STORE" }, "did not answer in time"},
		{"bye", protocolIMAP, func(f *fakeOutside) { f.reply["greeting"] = "* BYE too many\r\n" }, "lets nobody in now (it says: too many)"},
		{"unavailable", protocolIMAP, func(f *fakeOutside) { f.reply["LOGIN"] = "<T> NO [UNAVAILABLE] come back\r\n" }, "lets nobody in now"},
		{"no INBOX", protocolIMAP, func(f *fakeOutside) { f.reply["SELECT"] = "<T> NO none\r\n" }, "refuses to open INBOX"},
		{"no UIDVALIDITY", protocolIMAP, func(f *fakeOutside) { f.reply["SELECT"] = "* 1 EXISTS\r\n<T> OK\r\n" }, "no lasting numbers"},
		{"endless atom", protocolIMAP, func(f *fakeOutside) { f.reply["SELECT"] = "* OK [" + long + long }, "more than was asked for"},
		{"mad", protocolIMAP, func(f *fakeOutside) { f.reply["UID SEARCH"] = "* ((((\r\n" }, "no IMAP"},
		{"mad numbers", protocolIMAP, func(f *fakeOutside) {
			f.reply["UID SEARCH"] = "* ESEARCH (TAG \"<T>\") UID ALL 1:4294967295\r\n<T> OK\r\n"
		}, "more than was asked for"},
		{"closes", protocolIMAP, func(f *fakeOutside) { f.end = "UID STORE" }, "closed the connection"},
		{"expunge refused", protocolIMAP, func(f *fakeOutside) { f.reply["UID EXPUNGE"] = "<T> NO never\r\n" }, "refuses to delete what was fetched (it says: never)"},
		{"huge literal", protocolIMAP, func(f *fakeOutside) {
			f.reply["UID FETCH 1 (UID BODY"] = "* 1 FETCH (UID 1 BODY[] {99999999999}\r\nabc"
			f.refuse["1"] = true
		}, ""},
	} {
		t.Run(test.protocol+" "+test.name, func(t *testing.T) {
			before := goroutinesOf(t)
			f := startFake(t, mailsNo(test.protocol == protocolIMAP, 1)...)
			f.set(func() { test.manners(f) })
			w := openCollectWorld(t)
			w.c.cfg.Dialer.Patience = 300 * time.Millisecond
			w.fromFake(f, test.protocol, false)
			err := w.look()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v, want %s", err, test.want)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("not a sentence: %q", err)
			}
			waitForGoroutines(t, before+8) // those of the fake and the store end with the test
		})
	}
}

func waitForGoroutines(t *testing.T, n int) {
	t.Helper()
	for range 300 {
		if goroutinesOf(t) <= n {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<20)
	t.Errorf("goroutines are left over:\n%s", buf[:runtime.Stack(buf, true)])
}

// Where a server cannot delete single messages, those of others stay.
func TestCollectWithoutUIDPLUS(t *testing.T) {
	mail := mailsNo(true, 1, 2, 3)
	mail[1].flags = `\Deleted`
	f := startFake(t, mail...)
	f.set(func() { f.caps = "" })
	w := openCollectWorld(t)
	w.fromFake(f, protocolIMAP, false)
	w.mustLook()
	w.expect(inboxName, textsNo(1, 3)...)
	if left := f.left(); len(left) != 3 {
		t.Errorf("left: %q", clipAll(left))
	}
	f.set(func() { f.mail = slices.DeleteFunc(f.mail, func(m fakeMail) bool { return m.uid == 2 }) })
	w.mustLook()
	w.expect(inboxName, textsNo(1, 3)...)
	if left := f.left(); len(left) != 0 {
		t.Errorf("left: %q", clipAll(left))
	}
}

// The judge decides where a message goes and what stands before it; what claims to be our own verdict is left out.
func TestCollectJudged(t *testing.T) {
	forged := "Authentication-Results: mail.home.lan; spf=pass\r\n"
	f := startFake(t, fakeMail{uidl: "a", text: forged + mailNo(1)}, fakeMail{uidl: "b", text: mailNo(2)}, fakeMail{uidl: "c", text: mailNo(3)}, fakeMail{uidl: "d", text: mailNo(4)})
	w := openCollectWorld(t)
	var accounts []string
	w.reopen(func(cfg *CollectorConfig) {
		cfg.Judge = func(_ context.Context, account string, message io.ReaderAt, size int64) (Verdict, error) {
			accounts = append(accounts, account)
			text := make([]byte, size)
			if _, err := message.ReadAt(text, 0); err != nil && err != io.EOF {
				return Verdict{}, err
			}
			switch {
			case strings.Contains(string(text), "number 1"):
				return Verdict{Folder: "Junk", Fields: "X-Spam: yes\r\n"}, nil
			case strings.Contains(string(text), "number 2"):
				return Verdict{Refuse: "no"}, nil
			case strings.Contains(string(text), "number 3"):
				return Verdict{}, errors.New("out of order")
			}
			return Verdict{Fields: "X-Spam: no\r\n"}, nil
		}
	})
	w.fromFake(f, protocolPOP3, false)
	w.mustLook()
	w.expect("Junk", "X-Spam: yes\r\n"+mailNo(1), mailNo(2))
	w.expect(inboxName, mailNo(3), "X-Spam: no\r\n"+mailNo(4))
	if !slices.Equal(accounts, []string{"ann@home.lan", "ann@home.lan", "ann@home.lan", "ann@home.lan"}) || len(f.left()) != 0 {
		t.Error(accounts, f.left())
	}
}

// A full mailbox stops the look, and nothing is deleted over there; what can never fit is left.
func TestCollectQuota(t *testing.T) {
	mail := mailsNo(false, 1, 2)
	mail = append(mail, fakeMail{uidl: "big", text: mailNo(3) + strings.Repeat(strings.Repeat("y", 70)+"\r\n", 100)})
	f := startFake(t, mail...)
	w := openCollectWorld(t)
	w.fromFake(f, protocolPOP3, false)
	quota := Quota{Messages: 1}
	w.store.quota = func(string) Quota { return quota }
	if err := w.look(); !errors.Is(err, ErrOverQuota) || !strings.Contains(collectWords(&w.source, err), "mailbox of ann@home.lan is full") {
		t.Fatal(err)
	}
	w.expect(inboxName, textsNo(1)...)
	if len(f.left()) != 3 {
		t.Error("something was deleted over there")
	}
	quota = Quota{Bytes: 2000}
	w.mustLook()
	w.expect(inboxName, textsNo(1, 2)...)
	if left := f.left(); len(left) != 1 || w.report().Failed != 1 {
		t.Errorf("left: %q", clipAll(left))
	}
	n := f.came("RETR")
	w.mustLook()
	if f.came("RETR") != n {
		t.Error("the large one was fetched again")
	}
}

// An account that is removed gets nothing any more, and nothing of its sources is left.
func TestCollectForRemovedAccount(t *testing.T) {
	f := startFake(t, mailsNo(false, 1)...)
	w := openCollectWorld(t)
	w.fromFake(f, protocolPOP3, false)
	w.mustLook()
	ad := testAdmin(t, w.accounts, w.store)
	ad.collector, ad.log = w.c, w.c.cfg.Log
	if a := ad.do(order{Do: "user remove", Address: "ann@home.lan"}); a.Error != "" {
		t.Fatal(a.Error)
	}
	text, err := os.ReadFile(w.c.cfg.File)
	names, _ := listNames(w.c.cfg.Dir)
	if err != nil || string(text) != collectPreamble || len(names) > 0 {
		t.Errorf("%s %v %v", text, names, err)
	}
	if err := w.look(); !errors.Is(err, errAccountGone) {
		t.Error(err)
	}
}

// Many messages by either protocol come in sessions that are bounded.
func TestCollectMany(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{protocolPOP3, protocolIMAP} {
		var numbers []int
		for n := 1; n <= 210; n++ {
			numbers = append(numbers, n)
		}
		f := startFake(t, mailsNo(protocol == protocolIMAP, numbers...)...)
		w := openCollectWorld(t)
		w.fromFake(f, protocol, false)
		w.mustLook()
		w.expect(inboxName, textsNo(numbers...)...)
		if left := f.left(); len(left) != 0 || f.count() != map[string]int{protocolPOP3: 3, protocolIMAP: 2}[protocol] {
			t.Errorf("%s: %d left, %d sessions", protocol, len(left), f.count())
		}
	}
}

// testAdmin changes accounts as a server does that has nothing else.
func testAdmin(t *testing.T, accounts *Accounts, store *Store) *admin {
	t.Helper()
	codes, err := OpenCodes(filepath.Join(t.TempDir(), "codes.json"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return &admin{accounts: accounts, store: store, codes: codes, answered: NewAwayMemory(t.TempDir()), log: slog.New(slog.DiscardHandler)}
}
