package main

import (
	"strings"
	"testing"
	"time"
)

// Whoever gives only a new password changes nothing else: above all, what was to stay over there stays.
func TestCollectAddAgainKeepsOptions(t *testing.T) {
	f := startFake(t, mailsNo(false, 1, 2)...)
	w := openCollectWorld(t)
	w.source = CollectSource{Account: "ann@home.lan", Keep: true, Every: "10m", Folder: "Old Mail"}
	w.source.OutsideServer = OutsideServer{Protocol: protocolPOP3, Host: "localhost", Port: f.port, TLS: tlsImplicit, Login: "ann", Password: "secret"}
	w.c.cfg.Dialer.Roots = f.root.RootCAs
	add := func(change CollectChange) {
		t.Helper()
		s := CollectSource{Account: w.source.Account, OutsideServer: w.source.OutsideServer}
		if _, err := w.c.Add(s, change); err != nil {
			t.Fatal(err)
		}
		list, err := w.c.book.list()
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		w.source = list[0]
	}
	keep, every, folder := true, "10m", "Old Mail"
	add(CollectChange{&keep, &every, &folder})
	w.mustLook()
	add(CollectChange{})
	if !w.source.Keep || w.source.Every != every || w.source.Folder != folder {
		t.Errorf("%+v", w.source)
	}
	w.mustLook()
	w.expect(folder, textsNo(1, 2)...)
	if n := len(f.left()); n != 2 {
		t.Errorf("%d messages are left over there", n)
	}
	inbox := "inbox"
	add(CollectChange{Folder: &inbox})
	if !w.source.Keep || w.source.Every != every || w.source.folder() != inboxName {
		t.Errorf("%+v", w.source)
	}
	off := false
	add(CollectChange{Keep: &off})
	w.mustLook()
	if n := len(f.left()); w.source.Keep || w.source.Every != every || n != 0 {
		t.Errorf("%+v, %d messages are left over there", w.source, n)
	}
}

// The line that a person is told to give has all that the source has.
func TestCollectTellsWholeCommand(t *testing.T) {
	for _, test := range []struct {
		source CollectSource
		want   string
	}{
		{CollectSource{}, "collect add ann@home.lan pop3 pop.example.org:995 ann\n"},
		{CollectSource{Keep: true}, "collect add ann@home.lan pop3 pop.example.org:995 ann --keep\n"},
		{CollectSource{Keep: true, Every: "10m", Folder: "Old Mail"}, `collect add ann@home.lan pop3 pop.example.org:995 ann --keep --every 10m --folder "Old Mail"` + "\n"},
	} {
		w := openCollectWorld(t)
		s := test.source
		s.Account, s.OutsideServer = "ann@home.lan", OutsideServer{Protocol: protocolPOP3, Host: "pop.example.org", Port: 995, TLS: tlsImplicit, Login: "ann", Password: "secret"}
		if !w.c.tell(&s, &CollectStatus{Reason: "no such luck", Since: time.Now()}) || len(w.told) != 1 || !strings.Contains(strings.ReplaceAll(w.told[0], "\r\n", "\n"), test.want) {
			t.Errorf("%q, want %s", w.told, test.want)
		}
	}
}
