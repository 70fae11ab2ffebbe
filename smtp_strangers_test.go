package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// tarpitServer is a server whose clients seem to come from elsewhere, whose clock a test moves, and which notes how long it
// would make them wait.
type tarpitServer struct {
	*portServer
	from *transcript

	mu    sync.Mutex
	now   time.Time
	waits []time.Duration
}

func startTarpit(t *testing.T, p *Protocols) *tarpitServer {
	t.Helper()
	s := &tarpitServer{from: &transcript{t: t}, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	p.wrapConn = s.from.wrap
	p.Now = func() time.Time {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.now
	}
	if p.wait == nil {
		p.wait = func(_ *Conn, _ context.Context, d time.Duration) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.waits = append(s.waits, d)
		}
	}
	s.portServer = transcriptServer(t, p)
	return s
}

// open connects from an address and reads the first line.
func (s *tarpitServer) open(t *testing.T, address, port, first string) *rawClient {
	t.Helper()
	s.from.direct([]string{"remote", address})
	c := s.raw(t, port)
	c.expect(first)
	return c
}

// sleep moves the clock.
func (s *tarpitServer) sleep(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

// waited gives the waits since it was asked last.
func (s *tarpitServer) waited() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	waits := s.waits
	s.waits = nil
	return waits
}

// Each mistake makes the replies slower, also in the next session; a harvester is sent away, and one line tells of it.
func TestSMTPTarpit(t *testing.T) {
	s := startTarpit(t, &Protocols{})
	c := s.open(t, "192.0.2.1", "smtp", "220 ")
	c.send("EHLO a\r\nWHAT\r\nEVER\r\nHELP\r\n")
	c.expect("250 ", "500 ", "500 ", "214 ")
	if waits := s.waited(); len(waits) != 0 {
		t.Errorf("the first mistakes cost %v", waits)
	}
	c.send("MAIL FROM:<x@example.org>\r\nRCPT TO:<ann@test.lan>\r\n" + strings.Repeat("RCPT TO:<a@test.lan>\r\n", 12))
	c.expect("250 ", "250 ")
	for range 12 {
		c.expect("550 5.1.1 ")
	}
	waits := s.waited()
	for i, wait := range waits {
		if i > 0 && wait < waits[i-1] || wait > tarpitMost {
			t.Errorf("waits: %v", waits)
		}
	}
	if len(waits) < 10 || waits[0] != tarpitFirst || waits[len(waits)-1] != tarpitMost {
		t.Errorf("waits: %v", waits)
	}
	c.send("DATA\r\n")
	c.expect("354 ")
	c.send("Subject: for ann\r\n\r\n.\r\nQUIT\r\n") // one who errs is served all the same
	c.expect("250 ", "221 ")
	s.waited()

	c = s.open(t, "192.0.2.1", "smtp", "220 ")
	if waits := s.waited(); len(waits) == 0 || waits[0] != tarpitMost {
		t.Errorf("before the greeting: %v", waits)
	}
	c.send("EHLO a\r\nMAIL FROM:<>\r\n")
	c.expect("250 ", "250 ")
	for range strangerUnknown - 12 {
		c.send("RCPT TO:<a@test.lan>\r\n")
		c.expect("550 5.1.1 ")
	}
	c.expect("421 4.7.0 Your address has asked for too many people who are not here, try again later")
	c.expectEnd("")
	for range 3 {
		s.open(t, "192.0.2.1", "smtp", "421 4.7.0 Your address has asked for too many people").expectEnd("")
	}
	if n := strings.Count(s.log.String(), "too many people who are not here"); n != 1 {
		t.Errorf("%d lines tell of it:\n%s", n, s.log.String())
	}
	s.open(t, "192.0.2.2", "smtp", "220 ")
	s.sleep(strangerBlock)
	s.open(t, "192.0.2.1", "smtp", "220 ")
	if got := len(s.inboxOf(t, "ann@test.lan")); got != 1 {
		t.Errorf("ann has %d messages", got)
	}
}

// What was said is sent before each wait, and who has made mistakes waits for the greeting too. The client sees the waits
// as lines.
func TestSMTPTarpitOrder(t *testing.T) {
	s := startTarpit(t, &Protocols{wait: func(c *Conn, _ context.Context, d time.Duration) {
		fmt.Fprintf(c.raw, "wait %v\r\n", d)
	}})
	c := s.open(t, "192.0.2.1", "smtp", "220 ")
	c.send("A\r\nB\r\nC\r\nD\r\nNOOP\r\nQUIT\r\n")
	c.expect("500 ", "500 ", "500 ", "wait 250ms", "500 ", "wait 500ms", "250 ", "wait 500ms", "221 ")
	c.expectEnd("")
	c = s.open(t, "192.0.2.1", "smtp", "wait 500ms")
	c.expect("220 ", "wait 500ms")
}

// The LAN, this machine, and those who have logged in wait for nothing.
func TestSMTPTarpitSpares(t *testing.T) {
	s := startTarpit(t, &Protocols{})
	for _, address := range []string{"127.0.0.1", "::1", "192.168.1.2", "fe80::1", "fd00::1"} {
		c := s.open(t, address, "smtp", "220 ")
		c.send("EHLO a\r\nMAIL FROM:<x@example.org>\r\n" + strings.Repeat("RCPT TO:<a@test.lan>\r\n", 30))
		c.expect("250 ", "250 ")
		for range 30 {
			c.expect("550 ")
		}
	}
	c := s.open(t, "192.0.2.1", "submissions", "220 ")
	c.send("EHLO a\r\nAUTH PLAIN " + encodeLine("{plain ann@test.lan ann-secret}") + "\r\nMAIL FROM:<ann@test.lan>\r\n")
	c.expect("250 ", "235 ", "250 ")
	for range 30 {
		c.send("RCPT TO:<a@test.lan>\r\n")
		c.expect("550 ")
	}
	s.open(t, "192.0.2.1", "smtp", "220 ")
	if waits := s.waited(); len(waits) != 0 {
		t.Errorf("they waited %v", waits)
	}
}

// Who is waiting in the tarpit is told at once that the server shuts down.
func TestSMTPTarpitShutdown(t *testing.T) {
	waiting := make(chan *Conn, 1)
	s := startTarpit(t, &Protocols{limits: connLimits{Shutdown: time.Hour}, wait: func(c *Conn, ctx context.Context, _ time.Duration) {
		waiting <- c
		c.pause(ctx, time.Hour)
	}})
	c := s.open(t, "192.0.2.1", "smtp", "220 ")
	c.send("A\r\nB\r\nC\r\n")
	c.expect("500 ", "500 ", "500 ") // they come before the wait
	if held := <-waiting; held.r != nil || held.w != nil {
		t.Error("a buffer is held meanwhile")
	}
	s.stop()
	c.expect("421 4.3.2 ")
	c.expectEnd("")
}

// What one address may send within a minute.
func TestSMTPRates(t *testing.T) {
	s := startTarpit(t, &Protocols{})
	c := s.open(t, "192.0.2.1", "smtp", "220 ")
	c.send("EHLO a\r\n")
	c.expect("250 ")
	for range strangerMessages {
		c.send("MAIL FROM:<x@example.org>\r\nRSET\r\n")
		c.expect("250 ", "250 ")
	}
	c.send("MAIL FROM:<x@example.org>\r\n")
	c.expect("421 4.7.0 Too many messages from your address within a minute, try again later")
	c.expectEnd("")

	c = s.open(t, "192.0.2.2", "smtp", "220 ")
	c.send("EHLO a\r\n")
	c.expect("250 ")
	for range strangerRecipients / smtpMaxRecipients {
		c.send("MAIL FROM:<x@example.org>\r\n" + strings.Repeat("RCPT TO:<ann@test.lan>\r\n", smtpMaxRecipients) + "RSET\r\n")
		c.expect("250 ")
		for range smtpMaxRecipients {
			c.expect("250 2.1.5 ")
		}
		c.expect("250 ")
	}
	c.send("MAIL FROM:<x@example.org>\r\nRCPT TO:<ann@test.lan>\r\n")
	c.expect("250 ", "451 4.7.0 Too many recipients from your address within a minute, try again later")
	s.sleep(time.Minute)
	c.send("RCPT TO:<ann@test.lan>\r\n")
	c.expect("250 ")

	for range strangerConnections {
		s.open(t, "192.0.2.3", "smtp", "220 ").Close()
	}
	s.open(t, "192.0.2.3", "smtp", "421 4.7.0 Too many connections from your address within a minute, try again later").expectEnd("")
	s.open(t, "192.0.2.3", "imap", "* OK ")
	for _, address := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
		if n := strings.Count(s.log.String(), "level=WARN msg=rejected conn="); n != 3 || !strings.Contains(s.log.String(), "remote="+address+" protocol=smtp reason=") {
			t.Errorf("%s: %d lines:\n%s", address, n, s.log.String())
		}
	}
}

// One protocol's flood leaves the others open, and those in the house get in all the same.
func TestCapsByProtocol(t *testing.T) {
	s := startTarpit(t, &Protocols{limits: connLimits{PerProtocol: 3, PerAddr: 2, Total: 7, Spare: 1}})
	const from1, full = "Too many connections from your address, try again later", "Too many connections, try again later"
	s.open(t, "192.0.2.1", "smtp", "220 ")
	s.open(t, "192.0.2.1", "smtp", "220 ")
	s.open(t, "192.0.2.1", "smtp", "421 4.7.0 "+from1).expectEnd("")
	s.open(t, "2001:db8::1", "smtp", "220 ")
	s.open(t, "192.0.2.3", "smtp", "421 4.7.0 "+full).expectEnd("")
	s.open(t, "10.0.0.3", "smtp", "220 ")
	s.open(t, "10.0.0.3", "smtp", "421 4.7.0 "+full).expectEnd("")
	s.open(t, "192.0.2.1", "imap", "* OK ")
	s.open(t, "192.0.2.1", "imap", "* OK ")
	s.open(t, "192.0.2.1", "imap", "* BYE [UNAVAILABLE] "+from1).expectEnd("")
	s.open(t, "192.0.2.3", "pop3", "+OK ")
	s.open(t, "192.0.2.4", "pop3", "-ERR [SYS/TEMP] "+full).expectEnd("")
	s.open(t, "127.0.0.1", "pop3", "+OK ")
	s.open(t, "127.0.0.1", "pop3", "-ERR [SYS/TEMP] "+full).expectEnd("")
}

// Nothing that comes by port 25 is ever answered by a message: what is not taken is refused while the other server waits.
func TestNoBackscatter(t *testing.T) {
	from := &transcript{t: t}
	from.direct([]string{"remote", "192.0.2.66"})
	var filter *SpamFilter
	w := openOutWorldOf(t, &Protocols{wrapConn: from.wrap, wait: noWait, Judge: func(ctx context.Context, m *ReceivedMail) (Verdict, error) {
		return filter.Judge(ctx, m)
	}})
	dns := startDNS(t, "_dmarc.bank.example. TXT \"v=DMARC1; p=reject\"\nother.example. TXT \"v=spf1 ip4:192.0.2.66 -all\"")
	filter = testSpamFilter(t, SpamConfig{Store: w.Store, IsLocalDomain: w.Accounts.IsLocalDomain,
		Verifier: &Verifier{Resolver: dns.Resolver, Hostname: func() string { return "mail.test" }}})
	full := "Subject: it leaves no room\r\n\r\n" + strings.Repeat("x\r\n", 500)
	if err := w.out.deliver(t.Context(), "", strings.NewReader(full), []string{"cat@test.lan"}); err != nil {
		t.Fatal(err)
	}
	setQuota(t, w.Accounts, "cat@test.lan", "2K")

	c := w.raw(t, "smtp")
	c.send("EHLO other.example\r\n")
	c.expect("220 ", "250 ")
	message := func(sender, author string, result string) {
		t.Helper()
		c.send("MAIL FROM:<" + sender + ">\r\nRCPT TO:<nobody@test.lan>\r\nRCPT TO:<x@friends.test>\r\nRCPT TO:<cat@test.lan>\r\nRCPT TO:<ann@test.lan>\r\nDATA\r\n")
		c.expect("250 ", "550 5.1.1 ", "550 5.7.1 ", "452 4.2.2 ", "250 ", "354 ")
		c.send(fmt.Sprintf("From: %s\r\nSubject: x\r\nDisposition-Notification-To: %s\r\nReturn-Receipt-To: %s\r\n\r\n.\r\n", author, author, author))
		c.expect(result)
	}
	message("x@other.example", "service@bank.example", "550 5.7.26 ")
	message("x@other.example", "x@other.example", "250 ")
	message("", "MAILER-DAEMON@other.example", "250 ")
	c.send("MAIL FROM:<x@other.example>\r\nRCPT TO:<ann@test.lan> NOTIFY=SUCCESS\r\nQUIT\r\n")
	c.expect("250 ", "555 5.5.4 ", "221 ")

	// A report of ours that is refused elsewhere is not reported in turn.
	if err := w.out.report(t.Context(), &Envelope{From: "x@nothing.test"}, []byte("Subject: a report\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	w.empty()
	if strings.Count(w.log.String(), "msg=queued") != 1 {
		t.Errorf("something was queued:\n%s", w.log.String())
	}
	for account, want := range map[string]int{"ann@test.lan": 2, "bob@test.lan": 0, "cat@test.lan": 1} {
		if got := w.inboxOf(t, account); len(got) != want {
			t.Errorf("%s has %q", account, got)
		}
	}
}
