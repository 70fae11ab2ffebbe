package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// testAuthority signs certificates that senders in a test trust.
type testAuthority struct {
	t     testing.TB
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey
	Roots *x509.CertPool
}

func newTestAuthority(t testing.TB) *testAuthority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := signAuthority(key, "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a := &testAuthority{t: t, key: key, Roots: x509.NewCertPool()}
	if a.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.Roots.AddCert(a.ca)
	return a
}

// serve is a server's configuration with a certificate for names, the authority's behind it.
func (a *testAuthority) serve(names ...string) *tls.Config {
	a.t.Helper()
	pair, _, err := signLeaf(a.ca, a.key, time.Now(), names, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	pair.Certificate = append(pair.Certificate, a.ca.Raw)
	return &tls.Config{Certificates: []tls.Certificate{*pair}, MinVersion: tls.VersionTLS12}
}

// remoteServer is another mail server, whose every word a test can choose.
type remoteServer struct {
	extensions []string    // what EHLO offers
	tls        *tls.Config // STARTTLS is offered with one
	implicit   bool        // TLS from the start
	// answer gives the reply to a command ("" before the greeting, "." after a message) in place of the usual one; ""
	// leaves that. It may also write to the connection, or close it.
	answer func(c *remoteConn, line string) string
	took   func(m remoteMail) // a message has been taken, which is not kept; nil: all are kept

	listener net.Listener
	mu       sync.Mutex
	lines    []string // commands of all connections
	mails    []remoteMail
	conns    int
	arrived  chan struct{} // has a token after each message
	ended    sync.WaitGroup
}

// remoteMail is a message that a remote server has taken.
type remoteMail struct {
	mail, text string
	rcpts      []string
	secure     bool
}

// remoteConn is one session there.
type remoteConn struct {
	net.Conn
	server *remoteServer
	r      *bufio.Reader
	mail   remoteMail
	secure bool
	last   string // the reply that was given
}

// remoteSilence is an answer that never comes, until the client closes.
const remoteSilence = "silence"

// start opens the server's port.
func (s *remoteServer) start(t testing.TB) *remoteServer {
	t.Helper()
	var err error
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	s.arrived = make(chan struct{}, 10_000)
	conns := map[net.Conn]bool{}
	var mu sync.Mutex
	s.ended.Go(func() {
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[conn] = true
			mu.Unlock()
			s.mu.Lock()
			s.conns++
			s.mu.Unlock()
			s.ended.Go(func() {
				defer conn.Close()
				s.session(conn)
			})
		}
	})
	t.Cleanup(func() {
		s.listener.Close()
		mu.Lock()
		for conn := range conns {
			conn.Close()
		}
		mu.Unlock()
		s.ended.Wait()
	})
	return s
}

func (s *remoteServer) session(conn net.Conn) {
	c := &remoteConn{Conn: conn, server: s}
	if s.implicit && !c.begin() {
		return
	}
	c.r = bufio.NewReader(c.Conn)
	if !c.reply("", "220 mx.test ESMTP") {
		return
	}
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		if s.took == nil {
			s.mu.Lock()
			s.lines = append(s.lines, line)
			s.mu.Unlock()
		}
		if !c.command(line) {
			return
		}
	}
}

// begin begins TLS.
func (c *remoteConn) begin() bool {
	secure := tls.Server(c.Conn, c.server.tls)
	if secure.Handshake() != nil {
		return false
	}
	c.Conn, c.r, c.secure = secure, bufio.NewReader(secure), true
	return true
}

// reply says what the test wants, or else what is usual; false ends the session.
func (c *remoteConn) reply(line, usual string) bool {
	text := usual
	if other := c.server.ask(c, line); other != "" {
		text = other
	}
	if text == remoteSilence {
		_, _ = io.Copy(io.Discard, c.Conn)
		return false
	}
	c.last = text
	_, err := io.WriteString(c.Conn, text+"\r\n")
	return err == nil && !strings.HasPrefix(text, "421") && !strings.HasPrefix(text, "221")
}

func (c *remoteConn) command(line string) bool {
	verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
	switch verb {
	case "EHLO":
		offered := append([]string{"mx.test"}, c.server.extensions...)
		if c.server.tls != nil && !c.secure {
			offered = append(offered, "STARTTLS")
		}
		for i := range offered[:len(offered)-1] {
			offered[i] = "250-" + offered[i]
		}
		offered[len(offered)-1] = "250 " + offered[len(offered)-1]
		return c.reply(line, strings.Join(offered, "\r\n"))
	case "STARTTLS":
		return c.reply(line, "220 go ahead") && (!strings.HasPrefix(c.last, "220") || c.begin())
	case "AUTH":
		if !c.reply(line, "235 2.7.0 welcome") {
			return false
		}
		for strings.HasPrefix(c.last, "334") {
			line, err := c.r.ReadString('\n')
			if err != nil || !c.reply(strings.TrimSpace(line), "535 5.7.8 no") {
				return false
			}
		}
		return true
	case "MAIL":
		c.mail = remoteMail{mail: line, secure: c.secure}
		return c.reply(line, "250 2.1.0 sender ok")
	case "RCPT":
		c.mail.rcpts = append(c.mail.rcpts, line)
		return c.reply(line, "250 2.1.5 recipient ok")
	case "DATA":
		return c.reply(line, "354 go ahead") && (!strings.HasPrefix(c.last, "354") || c.message())
	case "QUIT":
		return c.reply(line, "221 bye")
	}
	return c.reply(line, "250 ok")
}

// message takes a message.
func (c *remoteConn) message() bool {
	var text strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		switch {
		case err != nil:
			return false
		case line == ".\r\n":
			c.mail.text = text.String()
			return c.settle()
		}
		text.WriteString(strings.TrimPrefix(line, "."))
	}
}

// settle answers a message, which counts as taken if the answer was 250.
func (c *remoteConn) settle() bool {
	answer := c.server.ask(c, ".")
	switch taken := answer == "" || strings.HasPrefix(answer, "250"); {
	case taken && c.server.took != nil:
		c.server.took(c.mail)
	case taken:
		c.server.mu.Lock()
		c.server.mails = append(c.server.mails, c.mail)
		c.server.mu.Unlock()
		c.server.arrived <- struct{}{}
	}
	if answer == "" {
		answer = "250 2.0.0 taken as 4711"
	}
	if answer == remoteSilence {
		_, _ = io.Copy(io.Discard, c.Conn)
		return false
	}
	_, err := io.WriteString(c.Conn, answer+"\r\n")
	return err == nil
}

// ask gives the test's answer to a command, "" for the usual one.
func (s *remoteServer) ask(c *remoteConn, line string) string {
	s.mu.Lock()
	answer := s.answer
	s.mu.Unlock()
	if answer == nil {
		return ""
	}
	return answer(c, line)
}

// become changes how the server answers.
func (s *remoteServer) become(answer func(c *remoteConn, line string) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// got gives the messages that have arrived.
func (s *remoteServer) got() []remoteMail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}

// said gives how often a command came that begins so.
func (s *remoteServer) said(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

// sendWorld is a sender with an internet of the test's own: its DNS, and servers at any addresses.
type sendWorld struct {
	*Sender
	t         testing.TB
	dns       *testDNS
	authority *testAuthority

	mu      sync.Mutex
	servers map[string]string // address and port to those of a listener here
	dialled []string
	now     time.Time
}

func openSendWorld(t testing.TB, zone string) *sendWorld {
	t.Helper()
	w := &sendWorld{t: t, dns: startDNS(t, zone), authority: newTestAuthority(t), servers: map[string]string{}, now: time.Now()}
	w.Sender = &Sender{Hostname: func() string { return "mail.home.test" }}
	w.adjust(w.Sender)
	w.limits = sendLimits{connect: 5 * time.Second, command: 5 * time.Second, final: 5 * time.Second, write: 5 * time.Second,
		whole: 20 * time.Second, grace: 5 * time.Second, idle: 5 * time.Second}
	t.Cleanup(w.Close)
	return w
}

// adjust makes a sender live in this internet.
func (w *sendWorld) adjust(s *Sender) {
	s.Resolver, s.Roots, s.Dial, s.Now = w.dns.Resolver, w.authority.Roots, w.dialTest, w.clock
}

func (w *sendWorld) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *sendWorld) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// at puts a server at an address and port.
func (w *sendWorld) at(address string, s *remoteServer) *remoteServer {
	w.t.Helper()
	if s.listener == nil {
		s.start(w.t)
	}
	w.place(address, s.listener.Addr().String())
	return s
}

func (w *sendWorld) place(address, listener string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.servers[netip.MustParseAddrPort(address).String()] = listener
}

// dialTest is Sender.Dial. Where nobody is, the connection is refused.
func (w *sendWorld) dialTest(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	w.dialled = append(w.dialled, address)
	listener := w.servers[address]
	w.mu.Unlock()
	if listener == "" {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	return new(net.Dialer).DialContext(ctx, network, listener)
}

// tries gives the addresses that were dialled since the last call.
func (w *sendWorld) tries() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := strings.Join(w.dialled, " ")
	w.dialled = nil
	return text
}

const sendTestText = "From: ann@home.test\r\nSubject: hi\r\n\r\ntext\r\n"

// outgoing is a message for recipients.
func outgoing(text string, to ...string) *Outgoing {
	m := &Outgoing{Envelope: envelopeTo("ann@home.test", to...), Message: strings.NewReader(text), Size: int64(len(text))}
	for i := range to {
		m.Recipients = append(m.Recipients, i)
	}
	return m
}

// one sends a message to one recipient and gives the outcome.
func (w *sendWorld) one(m *Outgoing) Outcome {
	w.t.Helper()
	outcomes := w.all(context.Background(), m)
	if len(outcomes) != 1 {
		w.t.Fatalf("%d outcomes", len(outcomes))
	}
	return outcomes[0]
}

// all sends a message to recipients at one destination.
func (w *sendWorld) all(ctx context.Context, m *Outgoing) []Outcome {
	return w.Send(ctx, w.Destination(m.Envelope.From, m.Envelope.Recipients[0].Domain()), m)
}

// expect looks at an outcome: its state, and what its text and code contain.
func (w *sendWorld) expect(what string, o Outcome, state SendState, parts ...string) {
	w.t.Helper()
	text := fmt.Sprintf("%d %s %s: %s", o.Code, o.Enhanced, o.Remote, o.Text)
	if o.State != state {
		w.t.Errorf("%s: %q (%s), want %q", what, o.State, text, state)
	}
	for _, part := range parts {
		if !strings.Contains(text, part) {
			w.t.Errorf("%s: %s lacks %q", what, text, part)
		}
	}
}
