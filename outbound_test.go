package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// nextServer is the server of friends.test, on loopback: it takes mail and remembers it.
type nextServer struct {
	port int

	mu      sync.Mutex
	got     []nextMail
	arrived chan struct{}           // has a token after each message
	refuse  func(to string) error   // at RCPT, nil: nobody
	settle  func(text string) error // at the end of DATA, nil: taken
	pause   time.Duration           // before a recipient is taken, and between taking a message and saying so
}

// nextMail is one message that has arrived.
type nextMail struct {
	from string
	mail smtp.MailOptions
	to   []string
	rcpt []smtp.RcptOptions
	text string
}

func startNextServer(t testing.TB) *nextServer {
	t.Helper()
	n := &nextServer{arrived: make(chan struct{}, 10_000)}
	srv := smtp.NewServer(n)
	srv.Domain, srv.EnableDSN, srv.EnableSMTPUTF8 = "mx.friends.test", true, true
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.port = l.Addr().(*net.TCPAddr).Port
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(l) // ends with Close
	}()
	t.Cleanup(func() {
		srv.Close()
		<-ended
	})
	return n
}

// NewSession is smtp.Backend.
func (n *nextServer) NewSession(*smtp.Conn) (smtp.Session, error) { return &nextSession{n: n}, nil }

type nextSession struct {
	n    *nextServer
	mail nextMail
}

func (s *nextSession) Reset()        { s.mail = nextMail{} }
func (s *nextSession) Logout() error { return nil }

func (s *nextSession) Mail(from string, opts *smtp.MailOptions) error {
	s.mail.from, s.mail.mail = from, *opts
	return nil
}

func (s *nextSession) Rcpt(to string, opts *smtp.RcptOptions) error {
	s.n.mu.Lock()
	refuse, pause := s.n.refuse, s.n.pause
	s.n.mu.Unlock()
	time.Sleep(pause)
	if refuse != nil {
		if err := refuse(to); err != nil {
			return err
		}
	}
	s.mail.to, s.mail.rcpt = append(s.mail.to, to), append(s.mail.rcpt, *opts)
	return nil
}

func (s *nextSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.mail.text = string(text)
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	if s.n.settle != nil {
		if err := s.n.settle(s.mail.text); err != nil {
			return err
		}
	}
	s.n.got = append(s.n.got, s.mail)
	s.n.arrived <- struct{}{}
	if pause := s.n.pause; pause > 0 {
		s.n.mu.Unlock()
		time.Sleep(pause)
		s.n.mu.Lock()
	}
	return nil
}

// wait gives the next message.
func (n *nextServer) wait(t testing.TB) nextMail {
	t.Helper()
	select {
	case <-n.arrived:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing arrives")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.got[len(n.got)-len(n.arrived)-1]
}

// outWorld is an appliance with people, and a next server that the DNS names for friends.test.
type outWorld struct {
	*portServer
	t    testing.TB
	dir  string // of the queue
	next *nextServer
	dns  *testDNS
	out  *Outbound
	end  func() // of Run

	adjust func(*Sender) // before it is used; nil: nothing
	clock  func() time.Time
	srs    *SRS
	step   func(name string)

	markers int // messages that have marked the end of answers
}

func openOutWorld(t testing.TB) *outWorld {
	t.Helper()
	return openOutWorldOf(t, &Protocols{})
}

// openOutWorldOf is openOutWorld with ports of one's own.
func openOutWorldOf(t testing.TB, p *Protocols) *outWorld {
	t.Helper()
	w := &outWorld{t: t, dir: filepath.Join(t.TempDir(), "queue"), next: startNextServer(t)}
	w.dns = startDNS(t, "friends.test. MX 10 mx.friends.test.\nmx.friends.test. A 127.0.0.1\nnothing.test. MX 0 .")
	accounts := openTestAccounts(t, transcriptAccounts(t))
	w.portServer = transcriptServer(t, p)
	w.Accounts, w.env.accounts = accounts, accounts
	w.Store.quota = accounts.Quota
	w.reopen(w.next.port)
	return w
}

// reopen begins to send, to other servers on this port, with a queue that is read from disk.
func (w *outWorld) reopen(port int) {
	w.t.Helper()
	if w.end != nil {
		w.end()
	}
	sender := &Sender{Resolver: w.dns.Resolver, Port: port, Hostname: func() string { return "mail.test" }}
	if w.adjust != nil {
		w.adjust(sender)
	}
	out, err := OpenOutbound(OutboundConfig{QueueDir: w.dir, Accounts: w.Accounts, Store: w.Store, Sender: sender, Hostname: "mail.test", PerHour: 5, Sent: filepath.Join(filepath.Dir(w.dir), "sent.json"), Answered: NewAwayMemory(filepath.Join(filepath.Dir(w.dir), "away")), SRS: w.srs, step: w.step, Now: w.clock, Log: slog.New(slog.NewTextHandler(w.log, nil))})
	if err != nil {
		w.t.Fatal(err)
	}
	w.out, w.Queue, w.Flood, w.Deliver, w.Returns = out, out.Queue, out.Flood, out.Rules.Deliver, out.Rules
	w.end = inBackground(out.Run)
	w.t.Cleanup(w.end)
}

// login opens a session of submission for ann.
func (w *outWorld) login() *rawClient {
	w.t.Helper()
	c := w.raw(w.t, "submissions")
	c.send("EHLO laptop\r\nAUTH PLAIN " + encodeLine("{plain ann@test.lan ann-secret}") + "\r\n")
	c.expect("220 ", "250 ", "235 ")
	return c
}

// submit sends a message of ann's. params follow MAIL FROM; each of to is what follows RCPT TO:.
func (w *outWorld) submit(params, text string, to ...string) {
	w.t.Helper()
	c := w.login()
	defer c.Close()
	c.send("MAIL FROM:<ann@test.lan>" + params + "\r\n")
	c.expect("250 ")
	for _, rcpt := range to {
		c.send("RCPT TO:" + rcpt + "\r\n")
		c.expect("250 ")
	}
	c.send("DATA\r\n")
	c.expect("354 ")
	c.send("From: ann@test.lan\r\n" + text + "\r\n.\r\n")
	c.expect("250 ")
}

// until waits for something that happens in the background.
func (w *outWorld) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s does not happen\n%s", what, w.log.String())
		}
	}
}

// wait gives the messages in an INBOX when there are n of them.
func (w *outWorld) wait(account string, n int) []string {
	w.t.Helper()
	w.until(fmt.Sprintf("the arrival of message %d for %s", n, account), func() bool { return len(w.inboxOf(w.t, account)) >= n })
	return w.inboxOf(w.t, account)
}

func (w *outWorld) empty() {
	w.until("the end of the queue", func() bool { return w.Queue.Len() == 0 })
}

func TestOutboundArrives(t *testing.T) {
	w := openOutWorld(t)
	w.submit(" RET=HDRS ENVID=QQ314+2B BODY=8BITMIME", "Subject: hi\r\n\r\nGrüße",
		"<Friend@FRIENDS.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;old+2Bfriend@friends.test", "<bob@test.lan> NOTIFY=SUCCESS", "<team@test.lan>")
	m := w.next.wait(t)
	if m.from != "ann@test.lan" || !slices.Equal(m.to, []string{"Friend@friends.test"}) {
		t.Errorf("envelope: %s %v", m.from, m.to)
	}
	if m.mail.Return != smtp.DSNReturnHeaders || m.mail.EnvelopeID != "QQ314+" || m.mail.Body != smtp.Body8BitMIME {
		t.Errorf("MAIL: %+v", m.mail)
	}
	if r := m.rcpt[0]; !slices.Equal(r.Notify, []smtp.DSNNotify{"SUCCESS", "DELAY"}) || r.OriginalRecipient != "old+friend@friends.test" {
		t.Errorf("RCPT: %+v", r)
	}
	if strings.Contains(m.text, "Return-Path") || !strings.Contains(m.text, "Received: from laptop") || !strings.HasSuffix(m.text, "\r\n\r\nGrüße\r\n") {
		t.Errorf("text:\n%s", m.text)
	}
	for _, account := range []string{"bob@test.lan", "ann@test.lan"} {
		got := w.wait(account, 1)
		at := slices.IndexFunc(got, func(text string) bool {
			return strings.Contains(text, "Subject: hi\r\n") && strings.HasSuffix(text, "\r\n\r\nGrüße\r\n")
		})
		if at < 0 || !strings.HasPrefix(got[at], "Return-Path: <ann@test.lan>\r\nReceived:") {
			t.Errorf("%s has %q", account, got)
		}
	}
	w.empty()
	if got := w.inboxOf(t, "bob@test.lan"); len(got) != 1 {
		t.Errorf("bob got it %d times", len(got))
	}
	reports := slices.DeleteFunc(w.wait("ann@test.lan", 2), func(text string) bool { return !strings.Contains(text, "report-type=delivery-status") })
	if len(reports) != 1 || !strings.Contains(reports[0], "Action: delivered") || !strings.Contains(reports[0], "bob@test.lan") || !strings.HasPrefix(reports[0], "Return-Path: <>\r\n") {
		t.Errorf("reports: %q", reports)
	}
}

// A message for people here alone is delivered directly, unless its sender wants to be told of that.
func TestOutboundLocalOnly(t *testing.T) {
	w := openOutWorld(t)
	w.submit("", "Subject: plain\r\n", "<bob@test.lan>")
	if got := w.inboxOf(t, "bob@test.lan"); len(got) != 1 {
		t.Fatalf("bob has %d messages at once", len(got))
	}
	w.submit("", "Subject: told\r\n", "<bob@test.lan> NOTIFY=SUCCESS")
	w.wait("bob@test.lan", 2)
	if got := w.wait("ann@test.lan", 1); !strings.Contains(got[0], "Action: delivered") {
		t.Errorf("report: %s", got[0])
	}
	w.empty()
}

func TestOutboundBounce(t *testing.T) {
	w := openOutWorld(t)
	w.next.refuse = func(to string) error {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "Nobody called " + to + ", \x1b[31m and \u202eback"}
	}
	w.submit("", "Subject: lost\r\n\r\ntext", "<friend@friends.test>", "<x@nothing.test> NOTIFY=NEVER")
	got := w.wait("ann@test.lan", 1)
	for _, part := range []string{"Return-Path: <>\r\n", "550 5.1.1 Nobody called friend@friends.test, ?[31m and ?back\r\n", "Final-Recipient: rfc822; friend@friends.test", "Action: failed", "Status: 5.1.1", "Subject: lost"} {
		if !strings.Contains(got[0], part) {
			t.Errorf("the report lacks %q:\n%s", part, got[0])
		}
	}
	w.empty()
	if got := w.inboxOf(t, "ann@test.lan"); len(got) != 1 || strings.Contains(got[0], "nothing.test") {
		t.Errorf("ann has %d messages: %q", len(got), got)
	}
	// A report to somebody elsewhere goes by the queue, from nobody.
	w.next.mu.Lock()
	w.next.refuse = nil
	w.next.mu.Unlock()
	if err := w.out.report(context.Background(), &Envelope{From: "friend@friends.test", Account: "removed@test.lan"}, []byte("Subject: report\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if m := w.next.wait(t); m.from != "" || m.text != "Subject: report\r\n\r\n" {
		t.Errorf("report: %+v", m)
	}
	if err := w.out.report(context.Background(), &Envelope{From: "gone@test.lan"}, []byte("Subject: report\r\n\r\n")); err != nil {
		t.Errorf("a report for nobody: %v", err)
	}
}

// What waits is sent after a restart.
func TestOutboundRestart(t *testing.T) {
	w := openOutWorld(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	w.reopen(closed.Addr().(*net.TCPAddr).Port)
	w.submit("", "Subject: patience\r\n", "<friend@friends.test>")
	w.until("the first try", func() bool { return w.Queue.List()[0].Recipients[0].Tries == 1 })
	w.reopen(w.next.port)
	e := w.Queue.List()[0]
	if r := e.Recipients[0]; !strings.Contains(r.Reason, "refuses connections") || e.Account != "ann@test.lan" {
		t.Errorf("entry: %+v", e)
	}
	if err := w.Queue.Retry(e.ID); err != nil {
		t.Fatal(err)
	}
	if m := w.next.wait(t); !strings.Contains(m.text, "Subject: patience") {
		t.Errorf("text: %s", m.text)
	}
	w.empty()
}

// A recipient here whose mailbox is full waits; one whose account has gone fails.
func TestOutboundLocalTrouble(t *testing.T) {
	w := openOutWorld(t)
	send := func(to ...string) []Outcome {
		m := &Outgoing{Envelope: envelopeTo("ann@test.lan", to...), Message: strings.NewReader("Subject: x\r\n\r\n"), Size: 14}
		for i := range to {
			m.Recipients = append(m.Recipients, i)
		}
		return w.out.send(context.Background(), localMail, m)
	}
	setQuota(t, w.Accounts, "bob@test.lan", "1K")
	deliverText(t, w.Store, "Subject: much\r\n\r\n"+strings.Repeat("x", 1000), "bob@test.lan")
	got := send("cat@test.lan", "bob@test.lan", "gone@test.lan", "ann@test.lan", "friend@friends.test")
	want := []SendState{SendSent, SendWaiting, SendFailed, SendSent, SendWaiting}
	for i, o := range got {
		if o.State != want[i] {
			t.Errorf("recipient %d: %+v, want %q", i, o, want[i])
		}
	}
	if got[1].Enhanced != "4.2.2" || got[2].Enhanced != "5.1.1" {
		t.Errorf("codes: %+v", got)
	}
	if n := len(w.inboxOf(t, "cat@test.lan")) + len(w.inboxOf(t, "ann@test.lan")); n != 2 {
		t.Errorf("%d messages arrived", n)
	}
	for err, want := range map[error]Outcome{
		ErrAboveQuota: {State: SendFailed, Enhanced: "5.2.3"}, ErrDiskFull: {Enhanced: "4.3.1"}, errors.New("x"): {Enhanced: "4.3.0"},
	} {
		if o := w.out.undelivered(context.Background(), err); o.State != want.State || o.Enhanced != want.Enhanced {
			t.Errorf("%v: %+v", err, o)
		}
	}
}

// The limit of recipients an hour: who reaches it is stopped, and the owner gets one mail about it.
func TestOutboundFlood(t *testing.T) {
	w := openOutWorld(t)
	c := w.login()
	c.send("MAIL FROM:<ann@test.lan>\r\n")
	c.expect("250 ")
	rcpt := func(name string) string {
		c.send("RCPT TO:<" + name + "@friends.test>\r\n")
		line, err := c.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	for _, name := range []string{"a", "b", "A", "c", "d"} { // A is a once more
		if line := rcpt(name); !strings.HasPrefix(line, "250 ") {
			t.Fatalf("%s: %s", name, line)
		}
	}
	c.send("RSET\r\nMAIL FROM:<ann@test.lan>\r\n") // what is not sent does not count
	c.expect("250 ", "250 ")
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		if line := rcpt(name); !strings.HasPrefix(line, "250 ") {
			t.Fatalf("%s: %s", name, line)
		}
	}
	for range 2 {
		if line := rcpt("f"); !strings.HasPrefix(line, "451 4.7.1 ann@test.lan has written to 5 addresses elsewhere") {
			t.Errorf("one too many: %s", line)
		}
	}
	c.send("RCPT TO:<bob@test.lan>\r\nDATA\r\n")
	c.expect("250 ", "354 ")
	c.send("From: ann@test.lan\r\n\r\n.\r\n")
	c.expect("250 ")
	w.next.wait(t)
	c.send("MAIL FROM:<ann@test.lan>\r\nRCPT TO:<g@friends.test>\r\n")
	c.expect("250 ", "451 4.7.1 ")
	w.empty()
	w.reopen(w.next.port) // a restart does not begin a new hour
	c = w.login()
	c.send("MAIL FROM:<ann@test.lan>\r\nRCPT TO:<h@friends.test>\r\n")
	c.expect("250 ", "451 4.7.1 ")
	got := w.inboxOf(t, "ann@test.lan") // she is the owner
	if len(got) != 1 || !strings.Contains(got[0], "Subject: ann@test.lan has sent very much mail") || !strings.Contains(got[0], "  5 with the main password\r\n") ||
		!strings.Contains(got[0], "from the address 127.0.0.1.") {
		t.Errorf("the owner has: %q", got)
	}
}

func TestFloodLimit(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var told []string
	l := NewFloodLimit(3, func(r FloodReport) { told = append(told, r.Sender.Account) }, func() time.Time { return now })
	take := func(account string, want int) {
		t.Helper()
		n := 0
		for l.Take(floodBy(account)) {
			n++
		}
		if n != want {
			t.Errorf("%s at %s: %d, want %d", account, now.Format("15:04"), n, want)
		}
	}
	take("ann", 3)
	take("bob", 3)
	now = now.Add(50 * time.Minute)
	take("ann", 0)
	l.GiveBack(Identity{Account: "ann"}, 2)
	take("ann", 2)
	now = now.Add(15 * time.Minute) // the one of the beginning is over an hour old
	take("ann", 1)
	now = now.Add(-3 * time.Hour) // a clock set back forgets nothing
	take("ann", 0)
	now = now.Add(27 * time.Hour)
	take("ann", 3)
	if !slices.Equal(told, []string{"ann", "bob", "ann"}) {
		t.Errorf("told: %v", told)
	}
	var none *FloodLimit
	none.GiveBack(Identity{Account: "ann"}, 1)
	if !none.Take(floodBy("ann")) {
		t.Error("no limit stops somebody")
	}
}

// A recipient whose domain comes here while its mail waits goes the new way.
func TestQueueDestinationChanges(t *testing.T) {
	w := openQueueWorld(t)
	way := "a"
	var mu sync.Mutex
	w.queue.cfg.Destination = func(_, domain string) string {
		mu.Lock()
		defer mu.Unlock()
		return way + "." + domain
	}
	id := w.submit(envelopeTo("ann@test.lan", "x@example.org"))
	mu.Lock()
	way = "b"
	mu.Unlock()
	w.run()
	defer w.stop()
	for end := time.Now().Add(10 * time.Second); w.queue.Len() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s waits for ever: %v", id, w.tried())
		}
	}
	if got := w.tried(); !slices.Equal(got, []string{"b.example.org x@example.org"}) {
		t.Errorf("tries: %v", got)
	}
}
