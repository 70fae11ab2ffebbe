package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestSMTPTranscripts(t *testing.T) { runTranscripts(t, "testdata/smtp") }

// rawClient speaks a protocol of lines, octet by octet.
type rawClient struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func (s *portServer) raw(t testing.TB, port string) *rawClient {
	t.Helper()
	c := s.dial(t, port)
	if strings.HasSuffix(port, "s") {
		c = tls.Client(c, s.client)
	}
	return &rawClient{t, c, bufio.NewReader(c)}
}

// send sends octets, and expect reads replies, of which each must have this
// beginning; lines 250-… of EHLO are skipped.
func (c *rawClient) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatal(err)
	}
}

func (c *rawClient) expect(prefixes ...string) {
	c.t.Helper()
	for _, prefix := range prefixes {
		line, err := c.r.ReadString('\n')
		for err == nil && strings.HasPrefix(line, "250-") {
			line, err = c.r.ReadString('\n')
		}
		if err != nil || !strings.HasPrefix(line, prefix) {
			c.t.Fatalf("got %q, %v; want %s", line, err, prefix)
		}
	}
}

// expectEnd reads what the server still says until it closes, and wants this
// beginning of it.
func (c *rawClient) expectEnd(prefix string) {
	c.t.Helper()
	rest, err := io.ReadAll(c.r)
	if errors.Is(err, os.ErrDeadlineExceeded) || !strings.HasPrefix(string(rest), prefix) {
		c.t.Fatalf("got %q, %v; want %s", rest, err, prefix)
	}
}

// begin says all up to DATA, to ann.
func (c *rawClient) begin() {
	c.t.Helper()
	c.send("EHLO client\r\nMAIL FROM:<x@example.org>\r\nRCPT TO:<ann@test.lan>\r\n")
	c.expect("220 ", "250 ", "250 ", "250 ")
}

// inboxOf gives the messages of an account's INBOX as they are stored.
func (s *portServer) inboxOf(t testing.TB, account string) []string {
	t.Helper()
	drop, err := s.Store.Maildrop(account)
	if err != nil {
		t.Fatal(err)
	}
	defer drop.Release()
	inbox := openFolder(t, drop, "INBOX")
	defer inbox.Release()
	if _, err := inbox.Status(false); err != nil {
		t.Fatal(err)
	}
	view, err := inbox.NewView(true, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	var all []string
	for _, uid := range view.UIDs() {
		m, err := inbox.OpenMessage(uid)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(m.Section(0, m.Size()))
		m.Close()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(text))
	}
	return all
}

// withoutTrace cuts the fields off that the server put in front.
func withoutTrace(t testing.TB, message string) string {
	t.Helper()
	rest, ok := strings.CutPrefix(message, "Return-Path: <")
	if i := strings.Index(rest, ";\r\n\t"); ok && i >= 0 {
		if j := strings.Index(rest[i+4:], "\r\n"); j >= 0 {
			return rest[i+4+j+2:]
		}
	}
	t.Fatalf("no trace fields in %.200q", message)
	return ""
}

// noTemporaryFiles wants nothing half received on disk.
func (s *portServer) noTemporaryFiles(t testing.TB) {
	t.Helper()
	var left []string
	err := filepath.WalkDir(s.mail, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Base(filepath.Dir(path)) == "tmp" {
			left = append(left, path)
		}
		return err
	})
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Only CRLF.CRLF ends a message: none of these bodies may be two messages, and
// what follows the false end may not run as a command.
func TestSMTPSmuggling(t *testing.T) {
	ends := []string{
		"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\n.\r", "\r.\n",
		"\r\n.\r\r\n", "\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n..\r\n", "\r\r\n..\r\n", "\n\n.\n\n", "\r\n .\r\n",
	}
	s := transcriptServer(t, &Protocols{})
	for i, end := range ends {
		c := s.raw(t, "smtp")
		c.begin()
		c.send("DATA\r\n")
		c.expect("354 ")
		smuggled := "MAIL FROM:<evil@example.org>\r\nRCPT TO:<bob@test.lan>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil"
		c.send("Subject: outer\r\n\r\nbody" + end + smuggled + "\r\n.\r\nQUIT\r\n")
		c.expect("250 2.0.0 Stored", "221 ")
		c.expectEnd("")
		inbox := s.inboxOf(t, "ann@test.lan")
		if len(inbox) != i+1 {
			t.Fatalf("%q: %d messages", end, len(inbox))
		}
		got := withoutTrace(t, inbox[i])
		if strings.Contains(strings.ReplaceAll(got, "\r\n", ""), "\r") || strings.Contains(strings.ReplaceAll(got, "\r\n", ""), "\n") {
			t.Errorf("%q: a bare CR or LF in %q", end, got)
		}
		if !strings.HasSuffix(got, "evil\r\n") {
			t.Errorf("%q: got %q", end, got)
		}
	}
	if n := len(s.inboxOf(t, "bob@test.lan")); n != 0 {
		t.Errorf("%d messages were smuggled", n)
	}
}

// A body that ends in CR CRLF . CRLF ends there, and what comes is stored with
// clean line ends; dots and all octets survive.
func TestSMTPBodies(t *testing.T) {
	tests := []struct{ sent, stored string }{
		{"a\r\r\n.\r\n", "a\r\n\r\n"},
		{".\r\n", ""},
		{"\r\n.\r\n", "\r\n"},
		{"..\r\n.\r\n", ".\r\n"},
		{"...a\r\n.b\r\n.\r\n", "..a\r\nb\r\n"},
		{"a\nb\rc\r\n.\r\n", "a\r\nb\r\nc\r\n"},
		{"a\n.b\r\n.\r\n", "a\r\n.b\r\n"},
		{".\n\r\n.\r\n", "\r\n\r\n"},
		{".\rx\r\n.\r\n", "\r\nx\r\n"},
		{"\x00\xff\x80\x01\r\n.\r\n", "\x00\xff\x80\x01\r\n"},
		{strings.Repeat("long", 50_000) + "\r\n.\r\n", strings.Repeat("long", 50_000) + "\r\n"},
	}
	s := transcriptServer(t, &Protocols{})
	for i, test := range tests {
		c := s.raw(t, "smtp")
		c.begin()
		c.send("DATA\r\n")
		c.expect("354 ")
		c.send("X: y\r\n\r\n" + test.sent + "NOOP\r\n")
		c.expect("250 2.0.0 Stored", "250 2.0.0 Still")
		inbox := s.inboxOf(t, "ann@test.lan")
		if len(inbox) != i+1 {
			t.Fatalf("%d messages after %d", len(inbox), i+1)
		}
		if got := withoutTrace(t, inbox[i]); got != "X: y\r\n\r\n"+test.stored {
			t.Errorf("%.60q became %.60q", test.sent, got)
		}
	}
}

// Mail on its way to an account that is removed meanwhile is refused, and makes no maildrop that the next person with
// the address would find; the other recipients get it.
func TestSMTPAccountRemovedMeanwhile(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	alone, both := s.raw(t, "smtp"), s.raw(t, "smtp")
	alone.begin() // its recipient is ann alone
	both.send("EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<ann@test.lan>\r\nRCPT TO:<bob@test.lan>\r\n")
	both.expect("220 ", "250 ", "250 ", "250 ", "250 ")
	if _, err := s.Accounts.Remove("ann@test.lan"); err != nil {
		t.Fatal(err)
	}
	alone.send("DATA\r\n")
	alone.expect("354 ")
	alone.send("X: y\r\n\r\n.\r\n")
	alone.expect("550 5.1.1")
	both.send("BDAT 9 LAST\r\nX: y\r\n\r\nz")
	both.expect("250 2.0.0 Stored")
	if _, err := os.Stat(filepath.Join(s.mail, "test.lan", "ann")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the removed account has a maildrop: %v", err)
	}
	if n := len(s.inboxOf(t, "bob@test.lan")); n != 1 {
		t.Errorf("%d messages", n)
	}
}

func TestSMTPSizeLimit(t *testing.T) {
	const limit = 1000
	s := transcriptServer(t, &Protocols{MaxSize: limit})
	c := s.raw(t, "smtp")
	c.send("EHLO a\r\n")
	c.expect("220 ", "250 SIZE 1000")
	body := func(n int) string { return "X: y\r\n\r\n" + strings.Repeat("z", n-10) + "\r\n" }
	for _, test := range []struct {
		n    int
		want string
	}{{limit, "250 2.0.0 Stored"}, {limit + 1, "552 5.3.4"}, {3 * limit, "552 5.3.4"}} {
		c.send("MAIL FROM:<>\r\nRCPT TO:<ann@test.lan>\r\nDATA\r\n")
		c.expect("250 ", "250 ", "354 ")
		c.send(body(test.n) + ".\r\n")
		c.expect(test.want)
		c.send("MAIL FROM:<>\r\nRCPT TO:<ann@test.lan>\r\n")
		c.expect("250 ", "250 ")
		c.send(fmt.Sprintf("BDAT %d\r\n%sBDAT 0 LAST\r\n", test.n, body(test.n)))
		if test.n > limit {
			// The chunk may be refused or its successor, by the time at which it is noticed.
			line, _ := c.r.ReadString('\n')
			if strings.HasPrefix(line, "250 ") {
				c.expect("552 5.3.4")
			} else if strings.HasPrefix(line, "552 5.3.4") {
				c.expect("503 ")
			} else {
				t.Fatalf("got %q", line)
			}
			continue
		}
		c.expect("250 ", "250 2.0.0 Stored")
	}
	if n := len(s.inboxOf(t, "ann@test.lan")); n != 2 {
		t.Errorf("%d messages", n)
	}
	c.send("MAIL FROM:<>\r\nRCPT TO:<ann@test.lan>\r\nBDAT 99999999\r\n")
	c.expect("250 ", "250 ", "552 5.3.4")
	c.expectEnd("")

	// One that never ends is cut off.
	c = s.raw(t, "smtp")
	c.begin()
	c.send("DATA\r\n")
	c.expect("354 ")
	chunk := bytes.Repeat([]byte("endless "), 10_000)
	for range 1000 {
		if _, err := c.Write(chunk); err != nil {
			s.noTemporaryFiles(t)
			return
		}
	}
	t.Error("80 MB were taken")
}

func TestSMTPClientGoesAway(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	for _, broken := range []string{
		"DATA\r\nSubject: half", "DATA\r\nSubject: half\r\n\r\nbody\r\n.", "BDAT 100 LAST\r\nSubject: half\r\n",
		"BDAT 5\r\nX: y\r", "BDAT 10 LAST\r\n", "BDAT 0\r\n", "DATA\r\n",
	} {
		c := s.raw(t, "smtp")
		c.begin()
		c.send(broken)
		time.Sleep(5 * time.Millisecond) // so that some of it is being worked at
		c.Close()
	}
	s.stop()
	s.noTemporaryFiles(t)
	if n := len(s.inboxOf(t, "ann@test.lan")); n != 0 {
		t.Errorf("%d half messages", n)
	}
	if log := s.log.String(); strings.Contains(log, "panic") || strings.Contains(log, "level=ERROR") {
		t.Errorf("log:\n%s", log)
	}
}

func TestSMTPLoopsAndHugeHeaders(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	c := s.raw(t, "smtp")
	c.begin()
	c.send("DATA\r\n")
	c.expect("354 ")
	c.send(strings.Repeat("Received: from a by b\r\n", maxReceivedFields+1) + "\r\n.\r\n")
	c.expect("554 5.4.6")

	// A header of 5 MB is kept as it is, and still looked at.
	huge := "X-Huge: " + strings.Repeat("h", 5<<20) + "\r\nreturn-path : <gone@example.org>\r\n folded\r\nSubject: x\r\n\r\nbody\r\n"
	c.send("MAIL FROM:<>\r\nRCPT TO:<ann@test.lan>\r\nDATA\r\n")
	c.expect("250 ", "250 ", "354 ")
	c.send(huge + ".\r\n")
	c.expect("250 ")
	inbox := s.inboxOf(t, "ann@test.lan")
	if len(inbox) != 1 || withoutTrace(t, inbox[0]) != huge {
		t.Errorf("%d messages, or not as sent", len(inbox))
	}
}

func TestSMTPRecipients(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	c := s.raw(t, "smtp")
	c.send("EHLO a\r\nMAIL FROM:<>\r\n")
	c.expect("220 ", "250 ", "250 ")
	c.send(strings.Repeat("RCPT TO:<ann@test.lan>\r\n", smtpMaxRecipients) + "RCPT TO:<bob@test.lan>\r\n")
	for range smtpMaxRecipients {
		c.expect("250 ")
	}
	c.expect("452 4.5.3")
	c.send("DATA\r\n")
	c.expect("354 ")
	c.send("X: y\r\n\r\n.\r\nQUIT\r\n")
	c.expect("250 ")
	if a, b := len(s.inboxOf(t, "ann@test.lan")), len(s.inboxOf(t, "bob@test.lan")); a != 1 || b != 0 {
		t.Errorf("%d and %d messages", a, b)
	}
}

func TestSMTPSeveralAccountsShareOneFile(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	c := s.raw(t, "smtp")
	c.send("EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<team@test.lan>\r\nRCPT TO:<bob@test.lan>\r\nDATA\r\n")
	c.expect("220 ", "250 ", "250 ", "250 ", "250 ", "354 ")
	c.send("X: y\r\n\r\n.\r\n")
	c.expect("250 ")
	if a, b := s.inboxOf(t, "ann@test.lan"), s.inboxOf(t, "bob@test.lan"); len(a) != 1 || len(b) != 1 || a[0] != b[0] {
		t.Errorf("got %q and %q", a, b)
	} else if strings.Contains(a[0], "for <") {
		t.Errorf("the trace tells of recipients: %s", a[0])
	}
}

func TestSMTPTooManyErrors(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	c := s.raw(t, "smtp")
	c.send(strings.Repeat("WHAT\r\n", smtpMaxErrors+5))
	c.expect("220 ")
	for range smtpMaxErrors {
		c.expect("500 5.5.1")
	}
	c.expectEnd("421 4.7.0")

	c = s.raw(t, "smtp")
	c.send("POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<>\r\n")
	c.expect("220 ")
	c.expectEnd("421 4.7.0")
}

func TestSMTPLongLines(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	c := s.raw(t, "submissions")
	c.send("EHLO a\r\nNOOP " + strings.Repeat("x", 12_000) + "\r\nNOOP " + strings.Repeat("x", 20_000) + "\r\n")
	c.expect("220 ", "250 ", "250 ", "500 5.5.2")
	c.send("AUTH PLAIN\r\n" + strings.Repeat("A", 30_000) + "\r\nNOOP\r\n")
	c.expect("334 ", "501 5.0.0", "250 ")
	// A line of AUTH is never a command.
	c.send("AUTH PLAIN\r\nQUIT\r\nNOOP\r\n")
	c.expect("334 ", "501 5.5.2", "250 ")
	c.send("MAIL FROM:<" + strings.Repeat("a", 5000) + "@test.lan>\r\n")
	c.expect("530 ")
	go func() { _, _ = c.Write(bytes.Repeat([]byte("x"), 2<<20)) }() // it is cut off
	c.expectEnd("421 4.7.0")
}

func TestSMTPFailedLogins(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	c := s.raw(t, "submissions")
	c.send("EHLO a\r\n")
	c.expect("220 ", "250 ")
	for range smtpMaxLogins { // the same one again counts once, so this is quick
		c.send(encodeLine("AUTH PLAIN {plain ann hunter2}\r\n"))
		c.expect("535 5.7.8")
	}
	c.expectEnd("421 4.7.0")
	if log := s.log.String(); strings.Contains(log, "hunter2") || !strings.Contains(log, "msg=rejected") {
		t.Errorf("log: %s", log)
	}
}

func TestSMTPShutdown(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	idle, busy := s.raw(t, "smtp"), s.raw(t, "smtp")
	idle.expect("220 ")
	busy.begin()
	busy.send("DATA\r\n")
	busy.expect("354 ")
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	idle.expectEnd("421 4.3.2")
	busy.send("X: y\r\n\r\nthe last one\r\n.\r\n")
	busy.expect("250 2.0.0 Stored")
	busy.expectEnd("421 4.3.2")
	<-stopped
	if n := len(s.inboxOf(t, "ann@test.lan")); n != 1 {
		t.Errorf("%d messages", n)
	}
}

func TestSMTPSilentClient(t *testing.T) {
	s := transcriptServer(t, &Protocols{limits: connLimits{PreLogin: 50 * time.Millisecond}})
	c := s.raw(t, "submission")
	c.expect("220 ")
	c.expectEnd("421 4.4.2")
	s.noTemporaryFiles(t)
}

func TestSMTPSessionWithoutMail(t *testing.T) {
	s := transcriptServer(t, &Protocols{limits: connLimits{Session: 50 * time.Millisecond}})
	c := s.raw(t, "smtp")
	c.expect("220 ")
	for range 1000 {
		c.send("NOOP\r\n")
		line, err := c.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "421 4.4.2") {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("the session goes on")
}

func TestSMTPJudge(t *testing.T) {
	verdicts := map[string]Verdict{
		"no":    {Refuse: "No thanks"},
		"later": {Refuse: "Not now", Later: true},
		"junk":  {Folder: "Junk", Fields: "X-Spam: yes\r\n"},
		"good":  {},
	}
	judge := func(_ context.Context, m *ReceivedMail) (Verdict, error) {
		text, err := io.ReadAll(io.NewSectionReader(m.Message, 0, m.Size))
		if err != nil {
			return Verdict{}, err
		}
		_, subject, _ := strings.Cut(string(text), "Subject: ")
		switch subject = strings.TrimSpace(subject); subject {
		case "panic":
			panic("judge is out of order")
		case "error":
			return Verdict{}, errors.New("secret detail")
		case "full":
			return Verdict{}, fmt.Errorf("secret path: %w", ErrDiskFull)
		}
		return verdicts[subject], nil
	}
	s := transcriptServer(t, &Protocols{Judge: judge})
	c := s.raw(t, "smtp")
	c.send("EHLO a\r\n")
	c.expect("220 ", "250 ")
	for _, test := range [][2]string{
		{"no", "550 5.7.1 No thanks"}, {"later", "451 4.7.1 Not now"}, {"junk", "250 "}, {"good", "250 "},
		{"error", "451 4.3.0 That cannot be done"}, {"full", "452 4.3.1 The disk is full"}, {"panic", "421 4.0.0 Internal server error"},
	} {
		c.send("MAIL FROM:<>\r\nRCPT TO:<ann@test.lan>\r\nDATA\r\n")
		c.expect("250 ", "250 ", "354 ")
		c.send("X-Spam: no\r\nSubject: " + test[0] + "\r\n\r\n.\r\n")
		c.expect(test[1])
	}
	c.expectEnd("")
	if n := len(s.inboxOf(t, "ann@test.lan")); n != 1 {
		t.Errorf("%d messages in INBOX", n)
	}
	drop, err := s.Store.Maildrop("ann@test.lan")
	if err != nil {
		t.Fatal(err)
	}
	defer drop.Release()
	junk := openFolder(t, drop, "Junk")
	defer junk.Release()
	m, err := junk.OpenMessage(1)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if text, _ := io.ReadAll(m.Section(0, m.Size())); !strings.HasPrefix(string(text), "X-Spam: yes\r\nReturn-Path: <>\r\n") || strings.Count(string(text), "X-Spam") != 1 {
		t.Errorf("got %s", text)
	}
	if log := s.log.String(); !strings.Contains(log, "judge is out of order") || !strings.Contains(log, "secret detail") {
		t.Errorf("log: %s", log)
	}
	s.noTemporaryFiles(t)
}

func TestSubmissionWithoutBlankLine(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	c := s.raw(t, "submissions")
	c.send(encodeLine("EHLO a\r\nAUTH PLAIN {plain ann ann-secret}\r\n"))
	c.expect("220 ", "250 ", "235 ")
	send := func(text string) string {
		c.send("MAIL FROM:<ann@test.lan>\r\nRCPT TO:<bob@test.lan>\r\n")
		c.expect("250 ", "250 ")
		c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(text), text))
		c.expect("250 ")
		all := s.inboxOf(t, "bob@test.lan")
		return withoutTrace(t, all[len(all)-1])
	}
	if got := send("From: ann@test.lan\r\nno field\r\n"); !strings.HasSuffix(got, "@test.lan>\r\n\r\nno field\r\n") {
		t.Errorf("got %q", got)
	}
	if got := send("From: ann@test.lan"); !strings.HasPrefix(got, "From: ann@test.lan\r\nDate: ") {
		t.Errorf("got %q", got)
	}
	whole := "Date: x\r\nMESSAGE-ID: y\r\nFrom: ann@test.lan\r\nno field\r\n"
	if got := send(whole); got != whole {
		t.Errorf("got %q", got)
	}
}

func FuzzDataDecoder(f *testing.F) {
	for _, s := range []string{"a\r\n.\r\n", "\n.\n", "..\r\n.\r\n", "\r\r\n.\r\n", ".\r.\r\n.\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var d dataDecoder
		var out []byte
		dst := make([]byte, 2*dataStep)
		end := -1
		for rest := in; len(rest) > 0 && end < 0; {
			n, used, done := d.decode(dst, rest)
			out = append(out, dst[:n]...)
			rest = rest[used:]
			if done {
				end = len(in) - len(rest)
			}
		}
		// The end is at the first CRLF.CRLF, the beginning counting as a line's.
		wantEnd := -1
		if i := bytes.Index(append([]byte("\r\n"), in...), []byte("\r\n.\r\n")); i >= 0 {
			wantEnd = i + 3
		}
		if end != wantEnd {
			t.Fatalf("%q ends at %d, not at %d", in, end, wantEnd)
		}
		if end < 0 {
			return
		}
		want := ""
		lines := strings.SplitAfter(string(in[:end-3]), "\r\n")
		for _, line := range lines {
			text, ended := strings.CutSuffix(strings.TrimPrefix(line, "."), "\r\n")
			want += strings.NewReplacer("\r", "\r\n", "\n", "\r\n").Replace(text)
			if ended {
				want += "\r\n"
			}
		}
		if string(out) != want {
			t.Fatalf("%q became %q, not %q", in, out, want)
		}
	})
}

func TestLineEndReader(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	for range 2000 {
		in := make([]byte, rnd.Intn(20))
		for i := range in {
			in[i] = "\r\nab"[rnd.Intn(4)]
		}
		want := strings.NewReplacer("\r\n", "\r\n", "\r", "\r\n", "\n", "\r\n").Replace(string(in))
		got, err := io.ReadAll(newLineEndReader(iotest.OneByteReader(bytes.NewReader(in))))
		if err != nil || string(got) != want {
			t.Fatalf("%q became %q, %v", in, got, err)
		}
		got, err = io.ReadAll(newLineEndReader(bytes.NewReader(in)))
		if err != nil || string(got) != want {
			t.Fatalf("%q became %q, %v", in, got, err)
		}
	}
}

func FuzzSMTPSession(f *testing.F) {
	f.Add("EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<ann@test.lan>\r\nBDAT 3 LAST\r\nabcQUIT\r\n")
	f.Add("HELO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<postmaster>\r\nDATA\r\n.\r\n")
	s := transcriptServer(f, &Protocols{limits: connLimits{Linger: time.Microsecond, Shutdown: time.Second}})
	f.Fuzz(func(t *testing.T, in string) {
		c := s.raw(t, "smtp")
		if _, err := io.WriteString(c, in); err != nil {
			return
		}
		_ = c.Conn.(*net.TCPConn).CloseWrite()
		if _, err := io.ReadAll(c.r); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("hangs after %q", in)
		}
		if log := s.log.String(); strings.Contains(log, "panic") {
			t.Fatalf("%q: %s", in, log)
		}
	})
}
