package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/emersion/go-imap/v2"
)

func TestPOP3Transcripts(t *testing.T) { runTranscripts(t, "testdata/pop3") }

// appendTo puts messages into ann's INBOX and keeps it open until the test ends.
func (s *portServer) appendTo(t testing.TB, texts ...string) *Folder {
	t.Helper()
	drop, err := s.Store.Maildrop("ann@test.lan")
	if err != nil {
		t.Fatal(err)
	}
	inbox := openFolder(t, drop, "INBOX")
	t.Cleanup(func() { inbox.Release(); drop.Release() })
	for _, text := range texts {
		if _, err := inbox.Append([]AppendMessage{{In: receiveText(t, drop, text)}}); err != nil {
			t.Fatal(err)
		}
	}
	return inbox
}

// login logs ann in by POP3.
func (s *portServer) pop3Login(t testing.TB) *rawClient {
	t.Helper()
	c := s.raw(t, "pop3")
	c.send("USER ann\r\nPASS ann-secret\r\n")
	c.expect("+OK", "+OK")
	line, err := c.r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "+OK") {
		t.Fatalf("login: %q, %v", line, err)
	}
	return c
}

// multi reads a multi-line response with its dots taken off.
func (c *rawClient) multi() (first, text string) {
	c.t.Helper()
	first, err := c.r.ReadString('\n')
	if err != nil || !strings.HasPrefix(first, "+OK") {
		c.t.Fatalf("got %q, %v", first, err)
	}
	for {
		line, err := c.r.ReadString('\n')
		switch {
		case err != nil:
			c.t.Fatal(err)
		case line == ".\r\n":
			return first, text
		}
		text += strings.TrimPrefix(line, ".")
	}
}

func TestPOP3SizesAreWhatIsSent(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	texts := []string{
		"Subject: a\r\n\r\n.dot\r\n..\r\n.\r\n", "Subject: b\r\n\r\n" + strings.Repeat(strings.Repeat("x", 998)+"\r\n.\r\n", 200),
		"\r\n", "X: \x00\xff\r\n\r\n8 bit \xe4\r\n",
	}
	inbox := s.appendTo(t, texts...)
	// One that another program has put there, with bare LF.
	file := filepath.Join(s.mail, "test.lan", "ann", "new", "1700000000.M1P1.elsewhere")
	if err := os.WriteFile(file, []byte("Subject: lf\n\n.one\ntwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	texts = append(texts, "Subject: lf\r\n\r\n.one\r\ntwo\r\n")
	if _, err := inbox.Status(false); err != nil {
		t.Fatal(err)
	}
	c := s.pop3Login(t)
	c.send("LIST\r\n")
	_, list := c.multi()
	for i, text := range texts {
		if !strings.Contains("\r\n"+list, fmt.Sprintf("\r\n%d %d\r\n", i+1, len(text))) {
			t.Errorf("message %d of %d octets in %q", i+1, len(text), list)
		}
		c.send(fmt.Sprintf("RETR %d\r\n", i+1))
		if first, got := c.multi(); got != text || !strings.Contains(first, fmt.Sprint(len(text))) {
			t.Errorf("message %d: %q %.80q", i+1, first, got)
		}
	}
}

func TestPOP3DeletionsAreSeenByOthers(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	inbox := s.appendTo(t, "A: 1\r\n\r\n", "B: 2\r\n\r\n", "C: 3\r\n\r\n")
	view, err := inbox.NewView(false, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	c := s.pop3Login(t)
	c.send("DELE 1\r\nRETR 2\r\nDELE 3\r\n")
	c.expect("+OK")
	c.multi()
	c.expect("+OK")
	if ch, err := view.Sync(true); err != nil || len(ch.Expunged) > 0 {
		t.Errorf("deleted before QUIT: %v, %v", ch.Expunged, err)
	}
	c.send("QUIT\r\n")
	c.expect("+OK")
	c.expectEnd("")
	if ch, err := view.Sync(true); err != nil || fmt.Sprint(ch.ExpungedUIDs) != "[1 3]" {
		t.Errorf("expunged %v, %v", ch.ExpungedUIDs, err)
	}
	s.waitForLogout(t)
	msgs, err := inbox.Messages(nil, []imap.UID{2}, false)
	if err != nil || len(msgs) != 1 || msgs[0].Flags&FlagSeen == 0 {
		t.Errorf("the fetched message: %v, %v", msgs, err)
	}
}

// waitForLogout waits until ann's maildrop has no POP3 session.
func (s *portServer) waitForLogout(t testing.TB) {
	t.Helper()
	drop, err := s.Store.Maildrop("ann@test.lan")
	if err != nil {
		t.Fatal(err)
	}
	defer drop.Release()
	for range 1000 {
		if unlock, ok := drop.LockPOP3(); ok {
			unlock()
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the maildrop stays locked")
}

func TestPOP3BrokenConnectionDeletesNothing(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	inbox := s.appendTo(t, "A: 1\r\n\r\n", "B: 2\r\n\r\n")
	c := s.pop3Login(t)
	c.send("RETR 1\r\nDELE 1\r\nDELE 2\r\n")
	c.multi()
	c.expect("+OK", "+OK")
	c.Close()
	s.waitForLogout(t)
	st, err := inbox.Status(false)
	if err != nil || st.Messages != 2 || st.Unseen != 1 {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestPOP3MessageVanishes(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	inbox := s.appendTo(t, "A: 1\r\n\r\n", "B: 2\r\n\r\n")
	c := s.pop3Login(t)
	if _, _, err := inbox.Expunge([]imap.UID{1}, false); err != nil {
		t.Fatal(err)
	}
	c.send("RETR 1\r\nTOP 1 0\r\nSTAT\r\nDELE 1\r\nRETR 2\r\nQUIT\r\n")
	c.expect("-ERR", "-ERR", "+OK 2 ", "+OK")
	c.multi()
	c.expect("+OK")
	c.expectEnd("")
}

func TestPOP3UIDLIsStable(t *testing.T) {
	dir := t.TempDir()
	uidl := func() string {
		p := &Protocols{Accounts: openTestAccounts(t, transcriptAccounts(t)), Store: testStore(t, dir)}
		s := startPorts(t, p)
		defer p.Store.Close()
		defer s.stop()
		if len(s.inboxOf(t, "ann@test.lan")) == 0 {
			drop, err := p.Store.Maildrop("ann@test.lan")
			if err != nil {
				t.Fatal(err)
			}
			inbox := openFolder(t, drop, "INBOX")
			for i := range 5 {
				if _, err := inbox.Append([]AppendMessage{{In: receiveText(t, drop, fmt.Sprintf("N: %d\r\n\r\n", i))}}); err != nil {
					t.Fatal(err)
				}
			}
			inbox.Release()
			drop.Release()
		}
		c := s.pop3Login(t)
		c.send("UIDL\r\n")
		_, text := c.multi()
		c.send("QUIT\r\n")
		c.expect("+OK")
		return text
	}
	first := uidl()
	if again := uidl(); again != first || strings.Count(first, "\n") != 5 {
		t.Errorf("after a restart %q, before %q", again, first)
	}
	if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
		t.Fatal(err)
	}
	if again := uidl(); again != first {
		t.Errorf("without the index %q, before %q", again, first)
	}
}

func TestPOP3Shutdown(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	s.appendTo(t, "A: 1\r\n\r\n")
	c := s.pop3Login(t)
	c.send("DELE 1\r\n")
	c.expect("+OK")
	s.stop()
	c.expectEnd("-ERR [SYS/TEMP] ")
	if n := len(s.inboxOf(t, "ann@test.lan")); n != 1 {
		t.Errorf("%d messages", n)
	}
}

func TestPOP3SilentClient(t *testing.T) {
	s := transcriptServer(t, &Protocols{limits: connLimits{PreLogin: 20 * time.Millisecond}})
	c := s.raw(t, "pop3")
	c.expect("+OK")
	c.expectEnd("") // RFC 1939 §3: without a word
}

func TestPOP3Throttle(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	for i := range throttleLoopback {
		if a, err := s.env.throttle.Begin(netip.MustParseAddr("127.0.0.1"), fmt.Sprint("user", i), "x"); err == nil {
			a.Failed()
			a.End()
		}
	}
	c := s.raw(t, "pop3")
	c.expect("+OK")
	for range pop3MaxLogins {
		c.send("USER ann\r\nPASS ann-secret\r\n")
		c.expect("+OK", "-ERR [LOGIN-DELAY]")
	}
	c.expectEnd("")
}

func TestTopReader(t *testing.T) {
	tests := []struct {
		text  string
		lines int
		want  string
	}{
		{"A: 1\r\nB: 2\r\n\r\none\r\ntwo\r\n", 0, "A: 1\r\nB: 2\r\n\r\n"},
		{"A: 1\r\nB: 2\r\n\r\none\r\ntwo\r\n", 1, "A: 1\r\nB: 2\r\n\r\none\r\n"},
		{"A: 1\r\nB: 2\r\n\r\none\r\ntwo\r\n", 9, "A: 1\r\nB: 2\r\n\r\none\r\ntwo\r\n"},
		{"\r\none\r\ntwo\r\n", 1, "\r\none\r\n"},
		{"A: 1\r\n", 1, "A: 1\r\n"},
		{"A: 1\r\n\r\n\r\n\r\nx", 2, "A: 1\r\n\r\n\r\n\r\n"},
		{"", 3, ""},
	}
	for _, test := range tests {
		for _, r := range []io.Reader{strings.NewReader(test.text), iotest.OneByteReader(strings.NewReader(test.text))} {
			got, err := io.ReadAll(&topReader{r: r, lines: test.lines})
			if err != nil || string(got) != test.want {
				t.Errorf("%d lines of %q: %q, %v", test.lines, test.text, got, err)
			}
		}
	}
}

func FuzzPOP3Command(f *testing.F) {
	for _, s := range []string{"RETR 1", "top 1 2", "AUTH PLAIN =", "", " ", "USER a b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		verb, arg := parsePOP3(line)
		if strings.Contains(verb, " ") || len(verb)+len(arg) > 4*len(line) {
			t.Errorf("%q: %q %q", line, verb, arg)
		}
		_, _ = decodeSASL(arg)
		var out bytes.Buffer
		d := &dotWriter{w: &out, lineStart: true}
		for i := range line { // as if it were a message, in single octets
			if _, err := d.Write(line[i : i+1]); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.end(); err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(append([]byte("\n"), out.Bytes()...), []byte("\n.\r\n")); i+3 != out.Len() {
			t.Errorf("%q became %q", line, out.Bytes())
		}
	})
}

func FuzzPOP3Session(f *testing.F) {
	f.Add("USER ann\r\nPASS ann-secret\r\nSTAT\r\nLIST\r\nUIDL\r\nRETR 1\r\nTOP 1 1\r\nDELE 1\r\nRSET\r\nQUIT\r\n")
	f.Add("CAPA\r\nAUTH PLAIN\r\n*\r\nUTF8\r\nSTLS\r\n")
	s := transcriptServer(f, &Protocols{limits: connLimits{Linger: time.Microsecond, Shutdown: time.Second}})
	f.Fuzz(func(t *testing.T, in string) {
		if strings.Contains(strings.ToUpper(in), "PASS") && !strings.Contains(in, "PASS ann-secret") {
			return // a failed login waits
		}
		c := s.raw(t, "pop3")
		if _, err := io.WriteString(c, in); err != nil {
			return
		}
		_ = c.Conn.(*net.TCPConn).CloseWrite()
		if _, err := io.ReadAll(c.r); os.IsTimeout(err) {
			t.Fatalf("hangs after %q", in)
		}
		if log := s.log.String(); strings.Contains(log, "panic") {
			t.Fatalf("%q: %s", in, log)
		}
	})
}

// TestPOP3ReadAhead fetches one message after the other, which has the next one read before it is asked for.
func TestPOP3ReadAhead(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	large := "Subject: large\r\n\r\n" + strings.Repeat("0123456789\r\n", 3000)
	texts := []string{"one\r\n", "two\r\n", "three\r\n.dot\r\n", "four\r\n", "five, its line not ended", "six\r\n", large, "eight\r\n", "nine\r\n", "ten\r\n"}
	inbox := s.appendTo(t, texts...)
	c := s.pop3Login(t)
	uids := inbox.allUIDs()
	for i, want := range texts {
		if i == 3 || i == 8 { // both were read ahead
			if _, _, err := inbox.Expunge([]imap.UID{uids[i]}, false); err != nil {
				t.Fatal(err)
			}
			c.send(fmt.Sprintf("RETR %d\r\n", i+1))
			c.expect("-ERR the message has been removed meanwhile")
			continue
		}
		if i == 7 {
			setFlag(t, inbox, imap.FlagFlagged, uids...)
		}
		c.send(fmt.Sprintf("RETR %d\r\n", i+1))
		if !strings.HasSuffix(want, "\n") {
			want += "\r\n"
		}
		if first, text := c.multi(); text != want || first != fmt.Sprintf("+OK %d octets\r\n", len(texts[i])) {
			t.Errorf("message %d: %q %q, want %q", i+1, first, text, want)
		}
		time.Sleep(2 * time.Millisecond) // it reads ahead while it waits
	}
	c.send("RETR 1\r\nRETR 2\r\nLIST 1\r\nDELE 2\r\nRETR 1\r\nRETR 2\r\n")
	for _, want := range []string{"one\r\n", "two\r\n"} {
		if _, text := c.multi(); text != want {
			t.Errorf("got %q, want %q", text, want)
		}
	}
	c.expect("+OK 1 5", "+OK")
	if _, text := c.multi(); text != "one\r\n" {
		t.Errorf("got %q", text)
	}
	c.expect("-ERR the message is marked as deleted")
}

// BenchmarkPOP3 fetches 1,000 messages one after the other.
func BenchmarkPOP3(b *testing.B) {
	s := transcriptServer(b, &Protocols{})
	var texts []string
	for i := range 1000 {
		texts = append(texts, benchText(i))
	}
	s.appendTo(b, texts...)
	c := s.pop3Login(b)
	for b.Loop() {
		for i := range texts {
			c.send(fmt.Sprintf("RETR %d\r\n", i+1))
			c.multi()
		}
	}
}
