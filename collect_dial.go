package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
)

// The way to a mailbox on another server: a connection that is patient but not for ever, TLS with a certificate that is
// right, and one sentence for whatever goes wrong.

const (
	outsideDial     = 15 * time.Second // to connect, and again for TLS
	outsideGreet    = 30 * time.Second // for the next byte before TLS
	outsidePatience = time.Minute      // for the next byte
	outsideCommand  = 3 * time.Minute  // for a whole reply
	outsideRate     = 2 << 10          // bytes a second that a message comes in at least
	outsideReply    = 1 << 20          // bytes of a reply that is no list and no message
	outsideLine     = 8 << 10          // bytes of a line of a reply
	outsideGreeting = 100              // lines before STARTTLS is answered
)

// outsideFault says what kind of trouble it is, and with it when to try again.
type outsideFault int

const (
	faultPassing outsideFault = iota // the network, a server that is busy
	faultLogin                       // the login is refused: trying often locks the account
	faultSetup                       // no TLS, a wrong certificate, no UIDL: only people can mend it
)

// outsideError is trouble with another server, as one sentence that says what to do.
type outsideError struct {
	fault outsideFault
	text  string
	cause error // may be nil
}

func (e *outsideError) Error() string { return e.text }
func (e *outsideError) Unwrap() error { return e.cause }

// faultOf gives the kind of an error.
func faultOf(err error) outsideFault {
	var e *outsideError
	if errors.As(err, &e) {
		return e.fault
	}
	return faultPassing
}

// errTooMuch says that a server sends more than was asked for.
var errTooMuch = errors.New("it sends more than was asked for")

// outsideDialer opens connections. The zero value is ready.
type outsideDialer struct {
	Roots    *x509.CertPool                                                       // nil: the system's
	Dial     func(ctx context.Context, network, address string) (net.Conn, error) // nil: net.Dialer
	Patience time.Duration                                                        // 0: outsidePatience
}

// outsideConn is a connection under TLS.
type outsideConn struct {
	net.Conn // TLS
	patient  *patientConn
	stop     func() bool
	where    string
	greeted  bool // the greeting was read before TLS began
}

// Close closes at once.
func (c *outsideConn) Close() error {
	c.stop()
	return c.patient.Conn.Close()
}

// patientConn is a connection whose deadlines nobody else sets: each operation says how long it may take, how long it may be
// silent, and how many bytes come back at most.
type patientConn struct {
	net.Conn
	mu   sync.Mutex
	idle time.Duration
	end  time.Time
	left int64 // bytes that may still come
	err  error // the first that ended it
}

// allow begins an operation.
func (p *patientConn) allow(idle, whole time.Duration, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle, p.end, p.left = idle, time.Now().Add(whole), bytes
	_ = p.Conn.SetReadDeadline(p.next()) // also of the read that waits already; it fails only when all is closed
}

// next is the deadline of a read that begins now.
func (p *patientConn) next() time.Time { return earlier(time.Now().Add(p.idle), p.end) }

// Read is io.Reader.
func (p *patientConn) Read(b []byte) (int, error) {
	p.mu.Lock()
	if err := p.err; err != nil { // who reads on after a timeout would wait once more
		p.mu.Unlock()
		return 0, err
	}
	if p.left <= 0 {
		p.mu.Unlock()
		return 0, p.fail(errTooMuch)
	}
	_ = p.Conn.SetReadDeadline(p.next()) // as above
	p.mu.Unlock()
	n, err := p.Conn.Read(b)
	p.mu.Lock()
	p.left -= int64(n)
	p.mu.Unlock()
	return n, p.fail(err)
}

// fail keeps the first error: go-imap's client passes on the text of some alone.
func (p *patientConn) fail(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	return err
}

// failure is the error that ended the connection, nil if none did or we closed it.
func (p *patientConn) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if errors.Is(p.err, net.ErrClosed) {
		return nil
	}
	return p.err
}

// Write is io.Writer.
func (p *patientConn) Write(b []byte) (int, error) {
	p.mu.Lock()
	idle := p.idle
	p.mu.Unlock()
	if err := p.Conn.SetWriteDeadline(time.Now().Add(idle)); err != nil {
		return 0, p.fail(err)
	}
	n, err := p.Conn.Write(b)
	return n, p.fail(err)
}

// SetDeadline leaves the deadlines as they are.
func (p *patientConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline leaves the deadline as it is.
func (p *patientConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline leaves the deadline as it is.
func (p *patientConn) SetWriteDeadline(time.Time) error { return nil }

func (d *outsideDialer) patience() time.Duration {
	if d.Patience == 0 {
		return outsidePatience
	}
	return d.Patience
}

// command allows for one command and its reply.
func (c *outsideConn) command(d *outsideDialer, bytes int64) {
	c.patient.allow(d.patience(), max(outsideCommand, d.patience()), bytes)
}

// message allows for a message of at most so many bytes.
func (c *outsideConn) message(d *outsideDialer, bytes int64) {
	bytes += bytes/16 + outsideReply // TLS, and dots that are doubled
	c.patient.allow(d.patience(), outsideCommand+time.Duration(bytes/outsideRate)*time.Second, bytes)
}

// connect opens a connection with TLS. It ends with ctx.
func (d *outsideDialer) connect(ctx context.Context, s *OutsideServer) (*outsideConn, error) {
	dial := d.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	host := s.Host
	if ascii, err := asciiName(host); err == nil {
		host = ascii
	}
	dialCtx, cancel := context.WithTimeout(ctx, min(outsideDial, d.patience()))
	defer cancel()
	raw, err := dial(dialCtx, "tcp", net.JoinHostPort(host, strconv.Itoa(s.Port)))
	if err != nil {
		return nil, netTrouble(s, err)
	}
	c := &outsideConn{patient: &patientConn{Conn: raw}, where: s.where()}
	c.stop = context.AfterFunc(ctx, func() { raw.Close() })
	if err := c.secure(ctx, d, s, host); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// secure begins TLS, for a certificate of this host.
func (c *outsideConn) secure(ctx context.Context, d *outsideDialer, s *OutsideServer, host string) error {
	c.patient.allow(min(outsideGreet, d.patience()), outsideCommand, outsideReply)
	if s.TLS == tlsStart {
		if err := c.startTLS(s); err != nil {
			return err
		}
	}
	secure := tls.Client(c.patient, &tls.Config{ServerName: host, RootCAs: d.Roots, MinVersion: tls.VersionTLS12})
	tlsCtx, cancelTLS := context.WithTimeout(ctx, min(outsideDial, d.patience()))
	defer cancelTLS()
	if err := secure.HandshakeContext(tlsCtx); err != nil {
		return tlsTrouble(s, err)
	}
	c.Conn = secure
	return nil
}

// startTLS asks for TLS (RFC 2595, RFC 9051 §6.2.1). Nothing that came before TLS is believed.
func (c *outsideConn) startTLS(s *OutsideServer) error {
	r := bufio.NewReader(c.patient)
	say, ok, greeting := "STLS\r\n", "+OK", "+OK"
	if s.Protocol == protocolIMAP {
		say, ok, greeting = "a STARTTLS\r\n", "a OK", "* OK"
	}
	line, err := readOutsideLine(r)
	if err != nil {
		return netTrouble(s, err)
	}
	if !hasWord(line, greeting) {
		return &outsideError{faultPassing, fmt.Sprintf("%s does not let anybody in now: %s", c.where, foreignWords(line, 200)), nil}
	}
	if _, err := io.WriteString(c.patient, say); err != nil {
		return netTrouble(s, err)
	}
	for range outsideGreeting {
		if line, err = readOutsideLine(r); err != nil {
			return netTrouble(s, err)
		}
		if !strings.HasPrefix(line, "* ") {
			break
		}
	}
	if !hasWord(line, ok) {
		return &outsideError{faultSetup, fmt.Sprintf("%s offers no TLS, and a password is never sent without it: ask the provider for the port with TLS", c.where), nil}
	}
	if r.Buffered() > 0 { // somebody has put plaintext behind the reply (CVE-2021-38371)
		return tlsTrouble(s, errors.New("text follows the reply to STARTTLS"))
	}
	c.greeted = true
	return nil
}

// hasWord says whether a line begins with these words, whatever their case.
func hasWord(line, words string) bool {
	return len(line) >= len(words) && strings.EqualFold(line[:len(words)], words) && (len(line) == len(words) || line[len(words)] == ' ')
}

// readOutsideLine reads a line without its end.
func readOutsideLine(r *bufio.Reader) (string, error) {
	var line []byte
	for {
		piece, err := r.ReadSlice('\n')
		line = append(line, piece...)
		if len(line) > outsideLine {
			return "", errTooMuch
		}
		if err == nil {
			return strings.TrimRight(string(line), "\r\n"), nil
		}
		if err != bufio.ErrBufferFull {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
	}
}

// netTrouble puts an error of the network into words.
func netTrouble(s *OutsideServer, err error) error {
	var known *outsideError
	if errors.As(err, &known) {
		return err
	}
	var name *net.DNSError
	switch {
	case errors.As(err, &name) && name.IsNotFound:
		return &outsideError{faultPassing, fmt.Sprintf("there is no server %s: look up the name that the provider gives for %s", s.Host, strings.ToUpper(s.Protocol)), err}
	case errors.As(err, &name):
		return &outsideError{faultPassing, fmt.Sprintf("the address of %s cannot be found out: look whether this machine reaches the internet", s.Host), err}
	}
	return &outsideError{faultPassing, serverWords(s.where(), err), err}
}

// tlsTrouble puts a failed handshake into words.
func tlsTrouble(s *OutsideServer, err error) error {
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return &outsideError{faultSetup, serverWords(s.where(), err) + ": take the name of the server that the provider gives", err}
	}
	return &outsideError{faultPassing, "TLS with " + serverWords(s.where(), err), err}
}

// serverWords says what an error of a connection means, with the server as who does it.
func serverWords(where string, err error) string {
	words := strings.TrimSuffix(netWords(err), ".")
	if what, ok := strings.CutPrefix(words, "It "); ok {
		return where + " " + what
	}
	if what, ok := strings.CutPrefix(words, "Its "); ok {
		return where + ": its " + what
	}
	return where + ": " + words
}

// loginTrouble puts a refused login into words. said is what the server says to it.
func loginTrouble(s *OutsideServer, said string) error {
	if said = foreignWords(said, 300); said != "" {
		said = " (it says: " + said + ")"
	}
	return &outsideError{faultLogin, fmt.Sprintf("%s does not take the login of %s%s: look at login and password; many providers want an app password, and %s switched on in their settings",
		s.Host, s.Login, said, strings.ToUpper(s.Protocol)), nil}
}

// busyTrouble is a server that lets nobody in for now.
func busyTrouble(s *OutsideServer, said string) error {
	return &outsideError{faultPassing, fmt.Sprintf("%s lets nobody in now (it says: %s): it is tried again by itself", s.Host, foreignWords(said, 300)), nil}
}

// candidates gives the ways to try, the safest first: TLS from the start and then STARTTLS, on the ports that the protocol
// has for them (RFC 8314), or on the one that was given.
func (s *OutsideServer) candidates() []OutsideServer {
	implicit, start := 993, 143
	if s.Protocol == protocolPOP3 {
		implicit, start = 995, 110
	}
	try := func(port int, kind string) OutsideServer {
		c := *s
		c.Port, c.TLS = port, kind
		return c
	}
	switch s.Port {
	case 0:
		return []OutsideServer{try(implicit, tlsImplicit), try(start, tlsStart)}
	case implicit:
		return []OutsideServer{try(implicit, tlsImplicit)}
	case start:
		return []OutsideServer{try(start, tlsStart)}
	}
	return []OutsideServer{try(s.Port, tlsImplicit), try(s.Port, tlsStart)}
}

// find logs in once, and gives the server with the port and the kind of TLS that did it. A login that is refused, and a
// certificate that is wrong, are not tried in another way.
func (d *outsideDialer) find(ctx context.Context, s OutsideServer) (OutsideServer, error) {
	var troubles []string
	var last error
	for _, c := range s.candidates() {
		err := d.tryLogin(ctx, &c)
		var certificate *tls.CertificateVerificationError
		var name *net.DNSError
		switch {
		case err == nil:
			return c, nil
		case ctx.Err() != nil:
			return s, context.Cause(ctx)
		case faultOf(err) == faultLogin, errors.As(err, &certificate), errors.As(err, &name):
			return s, err
		}
		last = err
		if text := err.Error(); !slices.Contains(troubles, text) {
			troubles = append(troubles, text)
		}
	}
	if len(troubles) == 1 {
		return s, last
	}
	return s, &outsideError{faultOf(last), strings.Join(troubles, "; "), last}
}

// tryLogin logs in, looks whether the mailbox can be collected from, and leaves.
func (d *outsideDialer) tryLogin(ctx context.Context, s *OutsideServer) error {
	if s.Protocol == protocolPOP3 {
		c, err := d.openPOP3(ctx, s)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.List(); err != nil {
			return err
		}
		return c.Quit()
	}
	c, err := d.openIMAP(ctx, s)
	if err != nil {
		return err
	}
	defer c.close()
	_, err = c.enter(inboxName, true)
	return err
}

// plainLogin is the answer of SASL PLAIN (RFC 4616).
func plainLogin(s *OutsideServer) sasl.Client { return sasl.NewPlainClient("", s.Login, s.Password) }
