package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// want reads lines that must come.
func (c *imapLine) want(t testing.TB, lines ...string) {
	t.Helper()
	for _, want := range lines {
		if got := c.readLine(t); got != want && !(strings.HasSuffix(want, "…") && strings.HasPrefix(got, strings.TrimSuffix(want, "…"))) {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func TestIMAPStartTLS(t *testing.T) {
	s := startIMAP(t)
	mustAdd(t, s.Accounts, "tls@home.lan", imapPassword)
	c := s.connect(t)
	c.want(t, "* OK [CAPABILITY IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR ENABLE ID STARTTLS AUTH=PLAIN…")
	c.send(t, "a STARTTLS\r\n")
	c.want(t, "a OK Begin TLS now")
	secure := tls.Client(c.Conn, s.client)
	c = &imapLine{secure, bufio.NewReader(secure)}
	c.send(t, "b CAPABILITY\r\n")
	c.want(t, "* CAPABILITY IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR ENABLE ID AUTH=PLAIN AUTH=LOGIN AUTH=SCRAM-SHA-256 AUTH=SCRAM-SHA-256-PLUS", "b OK CAPABILITY completed")
	c.send(t, "c STARTTLS\r\n")
	c.want(t, "c BAD TLS is active already")
	c.ok(t, fmt.Sprintf("LOGIN tls %q", imapPassword))
}

// Plaintext behind STARTTLS is never run, neither before nor under TLS.
func TestIMAPStartTLSInjection(t *testing.T) {
	s := startIMAP(t)
	c := s.connect(t)
	c.readLine(t)
	c.send(t, "a STARTTLS\r\nb LOGIN someone else\r\n")
	c.want(t, "a BAD Nothing may follow STARTTLS", "* BYE Nothing may follow STARTTLS", "<EOF>")
}

func TestIMAPRefusesPlaintextLogin(t *testing.T) {
	s := startIMAPWith(t, fromAfar)
	mustAdd(t, s.Accounts, "far@home.lan", imapPassword)
	c := s.connect(t)
	c.want(t, "* OK [CAPABILITY IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR ENABLE ID STARTTLS LOGINDISABLED] mail.test IMAP ready")
	c.send(t, "a LOGIN far@home.lan {13}\r\nb AUTHENTICATE PLAIN\r\n")
	c.want(t, "a NO [PRIVACYREQUIRED] Logging in needs TLS: use STARTTLS, or the port for TLS", "* BYE More data follows than can be skipped", "<EOF>")
	c = s.connect(t)
	c.readLine(t)
	c.send(t, "b AUTHENTICATE PLAIN AGEAYg==\r\n")
	c.want(t, "b NO [PRIVACYREQUIRED] Logging in needs TLS: use STARTTLS, or the port for TLS")
	c.send(t, "c STARTTLS\r\n")
	c.want(t, "c OK Begin TLS now")
	secure := tls.Client(c.Conn, s.client)
	c = &imapLine{secure, bufio.NewReader(secure)}
	c.ok(t, fmt.Sprintf("LOGIN far %q", imapPassword))
}

// Before login a command may have 64 KiB of literals, and little is skipped.
func TestIMAPAnonymousLimits(t *testing.T) {
	s := startIMAP(t)
	c := s.connect(t)
	c.readLine(t)
	c.send(t, "a LOGIN {65537}\r\n")
	c.want(t, "a NO [LIMIT] The literals of a command may have 65536 bytes in all")
	c.send(t, "a LOGIN {40000+}\r\n"+strings.Repeat("x", 40000)+" {40000+}\r\n"+strings.Repeat("x", 40000)+"\r\nb NOOP\r\n")
	c.want(t, "a NO [LIMIT] The literals of a command may have 65536 bytes in all", "b OK NOOP completed")
	c.send(t, "a LOGIN x "+strings.Repeat("y", 60000)+"\r\nb NOOP\r\n")
	c.want(t, "a NO [AUTHENTICATIONFAILED] Wrong address or password", "b OK NOOP completed")
	c.send(t, "a LOGIN {2000000+}\r\nb NOOP\r\n")
	c.want(t, "a NO [LIMIT] The literals of a command may have 65536 bytes in all", "* BYE More data follows than can be skipped", "<EOF>")
}

// At shutdown sessions hear BYE, in IDLE as well.
func TestIMAPShutdown(t *testing.T) {
	s := startIMAP(t)
	mustAdd(t, s.Accounts, "end@home.lan", imapPassword)
	idle, silent, fresh := s.login(t, "end@home.lan"), s.login(t, "end@home.lan"), s.connect(t)
	idle.ok(t, "SELECT INBOX")
	idle.send(t, "a IDLE\r\n")
	idle.want(t, "+ idling")
	fresh.readLine(t)
	s.stop()
	for _, c := range []*imapLine{idle, silent, fresh} {
		c.want(t, "* BYE The server is shutting down", "<EOF>")
	}
}

// The sessions of a removed account end: at once in IDLE, the others with their next command on mailboxes.
func TestIMAPAccountRemoved(t *testing.T) {
	s := startIMAP(t)
	mustAdd(t, s.Accounts, "gone@home.lan", imapPassword)
	idle, silent := s.login(t, "gone@home.lan"), s.login(t, "gone@home.lan")
	idle.ok(t, "SELECT INBOX")
	idle.send(t, "a IDLE\r\n")
	idle.want(t, "+ idling")
	if _, err := s.Store.SetAside("gone@home.lan"); err != nil {
		t.Fatal(err)
	}
	idle.want(t, "* BYE The selected mailbox has been deleted", "<EOF>")
	silent.send(t, "a LIST \"\" *\r\n")
	silent.want(t, "a NO [UNAVAILABLE] The account is no longer available", "* BYE The account is no longer available", "<EOF>")
}

// Who is silent for too long hears why the session ends.
func TestIMAPSilence(t *testing.T) {
	s := startIMAPWith(t, func(p *Protocols) { p.limits.PreLogin = 50 * time.Millisecond })
	c := s.connect(t)
	c.readLine(t)
	c.want(t, "* BYE Nothing was heard for too long", "<EOF>")
}

// The same goes for a new message of which NOTIFY wants to know: it is told of when all changes below its own have been.
func TestNoticeLeavesLaterChanges(t *testing.T) {
	folder := startFetch(t, "x\r\n").folder
	s, written := bareSession(t, folder)
	q := new(fetchRequest)
	q.add(fetchUID, nil)
	q.add(fetchFlags, nil)
	s.notify = &notifier{selected: messageEvents, fetch: q}
	uids := []imap.UID{appendText(t, folder, "y\r\n"), appendText(t, folder, "z\r\n")}
	added := folder.highestModSeq()
	changes, err := s.view.Sync(true)
	if err != nil {
		t.Fatal(err)
	}
	var modseq uint64
	for _, uid := range []imap.UID{1, uids[1]} { // meanwhile
		if _, _, modseq, err = folder.SetFlags([]imap.UID{uid}, FlagsAdd, []imap.Flag{imap.FlagFlagged}, NoUnchangedSince); err != nil {
			t.Fatal(err)
		}
	}
	s.announce(&changes, nil)
	want := fmt.Sprintf("* 3 EXISTS\r\n* 2 FETCH (UID 2 FLAGS () MODSEQ (%d))\r\n", added-1)
	if got := written(); got != want {
		t.Errorf("%q, not %q", got, want)
	}
	s.update(true)
	want = fmt.Sprintf("* 1 FETCH (UID 1 FLAGS (\\Flagged) MODSEQ (%d))\r\n* 3 FETCH (UID 3 FLAGS (\\Flagged) MODSEQ (%[2]d))\r\n* 3 FETCH (UID 3 FLAGS (\\Flagged) MODSEQ (%[2]d))\r\n", modseq-1, modseq)
	if got := written(); got != want {
		t.Errorf("%q, not %q", got, want)
	}
	s.update(true)
	if got := written(); got != "" {
		t.Errorf("%q is told again", got)
	}
}

// Behind BYE nothing more is pushed, though the store has more news before the session has ended.
func TestIMAPPushEndsWithBYE(t *testing.T) {
	s := startIMAP(t)
	mustAdd(t, s.Accounts, "gone@home.lan", imapPassword)
	drop, err := s.store.Maildrop("gone@home.lan")
	if err != nil {
		t.Fatal(err)
	}
	defer drop.Release()
	folder, err := drop.Open("INBOX")
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Release()
	view, err := folder.NewView(false, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	ours, theirs := net.Pipe()
	c := newConn(newConnEnv(connLimits{}, nil, nil, nil), theirs, "test", s.Log)
	session := &imapSession{c: c, p: s.Protocols, drop: drop, view: view}
	session.idle.init(session)
	if _, err := s.store.SetAside("gone@home.lan"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		session.idle.start(false)
		session.idle.mu.Lock()
		for session.idle.pushing {
			session.idle.ended.Wait()
		}
		session.idle.mu.Unlock()
		session.idle.onChange()
		session.idle.wait()
		c.Close()
	})
	heard, err := io.ReadAll(ours)
	wg.Wait()
	if string(heard) != "* BYE The selected mailbox has been deleted\r\n" {
		t.Errorf("%q, %v", heard, err)
	}
}

// A panic in a push ends the session and nothing else.
func TestIMAPPushPanics(t *testing.T) {
	s := startIMAP(t)
	session := &imapSession{c: &Conn{Log: s.Log}}
	session.idle.init(session)
	session.view = &View{} // without a folder
	session.idle.start(true)
	if !session.idle.wait() {
		t.Error("the push has not noticed")
	}
	if !strings.Contains(s.log.String(), "panic in a session") {
		t.Error("the log does not tell")
	}
}

// Commands that come together are answered in order and in few writes.
func TestIMAPPipelining(t *testing.T) {
	s := startIMAP(t)
	mustAdd(t, s.Accounts, "pipe@home.lan", imapPassword)
	c := s.login(t, "pipe@home.lan")
	const text = "Subject: x\r\n\r\nhello\r\n"
	var b, want strings.Builder
	for i := range 20 {
		fmt.Fprintf(&b, "a%d APPEND INBOX {%d+}\r\n%s\r\n", i, len(text), text)
		fmt.Fprintf(&b, "b%d SELECT INBOX\r\nc%d STORE %d FLAGS.SILENT (\\Seen)\r\nd%d UNSELECT\r\n", i, i, i+1, i)
		for _, tag := range "abcd" {
			fmt.Fprintf(&want, "%c%d OK ", tag, i)
		}
	}
	c.send(t, b.String())
	var got strings.Builder
	for n := 0; n < 80; {
		if line := c.readLine(t); line[0] != '*' {
			got.WriteString(strings.Join(strings.Fields(line)[:2], " ") + " ")
			n++
		}
	}
	if got.String() != want.String() {
		t.Errorf("got %s\nwant %s", got.String(), want.String())
	}
}

// What store errors become; their text stays here.
func TestIMAPStoreErrors(t *testing.T) {
	s := startIMAP(t)
	mustAdd(t, s.Accounts, "err@home.lan", imapPassword)
	c := s.login(t, "err@home.lan")
	c.ok(t, "SELECT INBOX")
	drop, err := s.store.Maildrop("err@home.lan")
	if err != nil {
		t.Fatal(err)
	}
	defer drop.Release()
	session := &imapSession{c: &Conn{Log: s.Log}}
	for want, err := range map[string]error{
		"NO [OVERQUOTA] The disk is full":                                fmt.Errorf("appending: %w", ErrDiskFull),
		"NO [SERVERBUG] The server could not do this; its log tells why": errors.New("open /secret: denied"),
		"NO [EXPUNGEISSUED] Some of the messages are no longer there":    fmt.Errorf("copying: %w", ErrExpunged),
		"NO [LIMIT] The mailbox has no room for more keywords":           ErrKeywords,
		"BAD Expected something":                                         fmt.Errorf("wrapped: %w", imapBad("Expected something")),
		"NO [ALREADYEXISTS] There is such a mailbox already":             ErrExists,
		"NO [CANNOT] A mailbox cannot have this name":                    ErrBadName,
	} {
		if got := session.replyOf(&imapCommand{name: "X"}, err).Error(); got != want {
			t.Errorf("%v becomes %q, want %q", err, got, want)
		}
	}
	// The account is taken away while the session is open.
	if _, err := s.store.SetAside("err@home.lan"); err != nil {
		t.Fatal(err)
	}
	last := c.do(t, "NOOP")
	if got := strings.Join(append(last, c.readLine(t)), "\n"); !strings.Contains(got, "BYE") {
		t.Errorf("after SetAside: %s", got)
	}
}

// bareSession is a session without a client: its methods are called one by one. written gives what they have written.
func bareSession(t *testing.T, folder *Folder) (s *imapSession, written func() string) {
	t.Helper()
	view, err := folder.NewView(false, nil)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	c := newConn(newConnEnv(connLimits{}, nil, nil, nil), theirs, "test", slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		ours.Close()
		c.Close()
		view.Close()
	})
	written = func() string {
		t.Helper()
		text := make([]byte, c.Writer().Buffered())
		var wg sync.WaitGroup
		wg.Go(func() { c.Writer().Flush() })
		_, err := io.ReadFull(ours, text)
		wg.Wait()
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	return &imapSession{c: c, view: view, condstore: true, rev2: true}, written
}

// A message that changes again while updates are told comes with the next ones: its new mod-sequence would say that all
// below it has been told.
func TestAnnounceLeavesLaterChanges(t *testing.T) {
	folder := startFetch(t, "x\r\n", "x\r\n", "x\r\n").folder
	s, written := bareSession(t, folder)
	set := func(flag imap.Flag, uids ...imap.UID) uint64 {
		t.Helper()
		_, _, modseq, err := folder.SetFlags(uids, FlagsAdd, []imap.Flag{flag}, NoUnchangedSince)
		if err != nil {
			t.Fatal(err)
		}
		return modseq
	}
	told := func(also ...imap.UID) (string, []imap.UID) {
		t.Helper()
		changes, err := s.view.Sync(true)
		if err != nil {
			t.Fatal(err)
		}
		if len(also) > 0 { // meanwhile
			set(imap.FlagSeen, 3)
			set(imap.FlagAnswered, 1)
		}
		since := s.announce(&changes, also)
		return written(), since
	}
	first := set(imap.FlagFlagged, 1, 2)
	want := fmt.Sprintf("* 2 FETCH (UID 2 FLAGS (\\Flagged) MODSEQ (%d))\r\n", first)
	if got, since := told(2, 3); got != want || len(since) != 2 || since[0] != 1 || since[1] != 3 {
		t.Errorf("%q, and later %v", got, since)
	}
	want = fmt.Sprintf("* 1 FETCH (UID 1 FLAGS (\\Answered \\Flagged) MODSEQ (%d))\r\n* 3 FETCH (UID 3 FLAGS (\\Seen) MODSEQ (%d))\r\n", first+2, first+1)
	if got, since := told(); got != want || since != nil {
		t.Errorf("%q, and later %v", got, since)
	}
}

// BenchmarkIMAPIdleSession measures what a silent session in IDLE under TLS costs. The client's side runs in the same
// process and is counted with it, so the server's share is less.
func BenchmarkIMAPIdleSession(b *testing.B) {
	const sessions = 500
	s := startIMAP(b)
	s.env.limits.Total, s.env.limits.PerProtocol, s.env.limits.PerLAN = 2*sessions, 2*sessions, 2*sessions
	mustAdd(b, s.Accounts, "idle@home.lan", imapPassword)
	for b.Loop() {
		before := heapAndStacks()
		var open []net.Conn
		for range sessions {
			c := tls.Client(s.dial(b, "imaps"), s.client)
			open = append(open, c)
			line := &imapLine{c, bufio.NewReaderSize(c, 16)}
			line.readLine(b)
			line.ok(b, fmt.Sprintf("LOGIN idle@home.lan %q", imapPassword))
			line.ok(b, "SELECT INBOX")
			line.send(b, "a IDLE\r\n")
			line.want(b, "+ idling")
		}
		b.ReportMetric(float64(heapAndStacks()-before)/sessions/1024, "KiB/session+client")
		for _, c := range open {
			c.Close()
		}
	}
}

// heapAndStacks gives the bytes in use after a collection.
func heapAndStacks() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// TestIMAPGarbage sends the transcripts' commands cut, joined and garbled. Whatever comes, nothing panics, no store error
// comes of it, and each session ends in order.
func TestIMAPGarbage(t *testing.T) {
	s := startIMAP(t)
	mustAdd(t, s.Accounts, "garbage@home.lan", imapPassword)
	commands := transcriptCommands(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 12 {
		c := s.login(t, "garbage@home.lan")
		c.ok(t, "APPEND INBOX {24+}\r\nSubject: test\r\n\r\nhello\r\n")
		c.ok(t, "SELECT INBOX")
		var b []byte
		for range 60 {
			b = append(append(b, garble(rnd, commands)...), "\r\n"...)
		}
		go func() {
			c.Write(b)
			c.Conn.(*net.TCPConn).CloseWrite()
		}()
		if _, err := io.Copy(io.Discard, c.r); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
	}
	if log := s.log.String(); strings.Contains(log, "panic") || strings.Contains(log, "command failed") {
		t.Errorf("the log has failures:\n%s", log)
	}
}

// transcriptCommands gives what clients say in the transcripts.
func transcriptCommands(t *testing.T) []string {
	files, _ := filepath.Glob("testdata/imap/*.txt")
	var commands []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if m := imapTranscriptLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil && m[1] == "C" && !strings.Contains(line, "<REPEAT") {
				commands = append(commands, m[3])
			}
		}
	}
	return commands
}

// garble takes a command, or a piece of one with a piece of another, and changes some bytes.
func garble(rnd *rand.Rand, commands []string) []byte {
	const noise = "\x00\xff{}()[]\"\\*%$:,1 ~+-"
	pick := func() string { return commands[rnd.IntN(len(commands))] }
	text := pick()
	if rnd.IntN(3) == 0 {
		other := pick()
		text = text[:rnd.IntN(len(text)+1)] + other[rnd.IntN(len(other)+1):]
	}
	b := []byte(text)
	for range rnd.IntN(3) {
		if len(b) > 0 {
			b[rnd.IntN(len(b))] = noise[rnd.IntN(len(noise))]
		}
	}
	return b
}
