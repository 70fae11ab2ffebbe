package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// one gives what a pattern's parenthesis matches in the lines.
func one(t *testing.T, lines []string, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(strings.Join(lines, "\n"))
	if m == nil {
		t.Fatalf("no %s in %q", pattern, lines)
	}
	return m[1]
}

// TestIMAPObjectIDsStay follows ids through COPY, MOVE, RENAME, a restart and the loss of the index.
func TestIMAPObjectIDsStay(t *testing.T) {
	dir := t.TempDir()
	cfg := StoreConfig{MailDir: filepath.Join(dir, "mail"), IndexDir: filepath.Join(dir, "index"), Host: "mail.test"}
	start := func() (*imapServer, *imapLine) {
		store, err := OpenStore(cfg)
		if err != nil {
			t.Fatal(err)
		}
		s := startIMAPWith(t, func(p *Protocols) { p.Store = store })
		s.store = store
		mustAdd(t, s.Accounts, "ann@home.lan", imapPassword)
		return s, s.login(t, "ann@home.lan")
	}
	s, c := start()
	const emailPattern, mailboxPattern = `EMAILID \((M[0-9a-f]+)\)`, `MAILBOXID \((F[0-9a-f]+)\)`
	foo := one(t, c.ok(t, "CREATE foo"), mailboxPattern)
	if again := one(t, c.ok(t, "STATUS foo (MAILBOXID)"), mailboxPattern); again != foo {
		t.Errorf("%s, then %s", foo, again)
	}
	c.ok(t, "APPEND foo {9+}\r\nA: b\r\n\r\nx")
	c.ok(t, "APPEND foo {9+}\r\nA: b\r\n\r\ny")
	c.ok(t, "SELECT foo")
	id := one(t, c.ok(t, "FETCH 1 EMAILID"), emailPattern)
	if other := one(t, c.ok(t, "FETCH 2 EMAILID"), emailPattern); other == id {
		t.Error("two messages have one id")
	}
	c.ok(t, "COPY 1 INBOX")
	c.ok(t, "RENAME foo bar")
	c.ok(t, "CREATE foo")
	c.ok(t, "MOVE 1 foo")
	bar := one(t, c.ok(t, "STATUS bar (MAILBOXID)"), mailboxPattern)
	if second := one(t, c.ok(t, "STATUS foo (MAILBOXID)"), mailboxPattern); bar != foo || second == foo {
		t.Errorf("renamed %s, now %s, the new one %s", foo, bar, second)
	}
	c.ok(t, "LOGOUT")
	s.stop()
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(cfg.IndexDir); err != nil {
		t.Fatal(err)
	}
	s, c = start()
	t.Cleanup(func() {
		s.stop()
		_ = s.store.Close()
	})
	if now := one(t, c.ok(t, "STATUS bar (MAILBOXID)"), mailboxPattern); now != foo {
		t.Errorf("after the loss of the index %s, not %s", now, foo)
	}
	for _, folder := range []string{"INBOX", "foo"} {
		c.ok(t, "SELECT "+folder)
		if now := one(t, c.ok(t, "FETCH 1 EMAILID"), emailPattern); now != id {
			t.Errorf("in %s %s, not %s", folder, now, id)
		}
	}
}

func TestPreviewText(t *testing.T) {
	for in, want := range map[string]string{
		"<p>a<!-- b --> c</p>":                       "a c",
		"<HEAD><title>x</title></HEAD><body>y &lt;z": "y <z",
		"<script>if (a<b) x()</script >now":          "now",
		"<style":                                     "",
		"a < b":                                      "a",
		strings.Repeat("é ", 300):                    strings.TrimSpace(strings.Repeat("é ", 100)),
		"zero\u200bwidth\u00a0and\r\n\r\ncontrol\x07 characters ": "zerowidth and control characters",
	} {
		if got := previewLine(htmlText(in)); got != want {
			t.Errorf("%.40q: %q, not %q", in, got, want)
		}
	}
	if got := previewLine(withoutQuotes("> old\nnew\n")); got != "new" {
		t.Error(got)
	}
	if got := previewLine(withoutQuotes("> old\n")); got != "> old" {
		t.Error(got)
	}
}
