package main

// What the sessions of all protocols share: one client's connection with its
// buffers, its TLS, its way to log in and its part in an orderly shutdown.
// The deadlines live one layer below, in conn_deadline.go; what failed logins
// cost is in throttle.go, what ties a login to its connection in conn_binding.go.

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrShutdown is what reads give once the appliance shuts down.
	ErrShutdown = errors.New("the appliance is shutting down")
	// ErrPlaintextAfterStartTLS says that bytes were waiting behind STARTTLS:
	// somebody may have put them there to have them run under TLS (CVE-2011-0411).
	ErrPlaintextAfterStartTLS = errors.New("plaintext follows the STARTTLS command")
)

const (
	readerSize = 4 << 10  // bytes of a read buffer, in which the name of a header field has to end
	writerSize = 16 << 10 // bytes of a write buffer: one full TLS record
	copySize   = 32 << 10 // bytes that are copied at once
)

// connLimits are the numbers that keep hostile and dead clients from holding
// what others need. Zero fields take the default.
type connLimits struct {
	Total       int // connections in all, default 1,000
	PerProtocol int // of them to the ports of one protocol, default 600: a flood on one leaves the others open
	Spare       int // beyond both for loopback and private addresses, default 200: a flood from outside locks nobody in the house out
	PerAddr     int // of one protocol from one address (IPv6: one /64), default 50
	PerLAN      int // of one protocol from one loopback or private address, default 200

	Handshake time.Duration // a TLS handshake in all, default 30 s
	PreLogin  time.Duration // silence before login, default 60 s
	Login     time.Duration // from the greeting to a login, default 3 min
	Write     time.Duration // 16 KiB to be taken by the client, default 2 min
	Session   time.Duration // an SMTP session without a login or a message, default 30 min
	Slack     time.Duration // what a slow transfer may take beyond its bytes, default 5 min
	MinRate   int64         // bytes a second that a transfer makes on average beyond Slack, default 1,024
	Linger    time.Duration // a client's time to take the last reply before the close, default 300 ms
	Shutdown  time.Duration // running commands at shutdown, default 10 s
}

// withDefaults fills in what is zero.
func (l connLimits) withDefaults() connLimits {
	setDefault(&l.Total, 1000)
	setDefault(&l.PerProtocol, 600)
	setDefault(&l.Spare, 200)
	setDefault(&l.PerAddr, 50)
	setDefault(&l.PerLAN, 200)
	setDefault(&l.Handshake, 30*time.Second)
	setDefault(&l.PreLogin, 60*time.Second)
	setDefault(&l.Login, 3*time.Minute)
	setDefault(&l.Write, 2*time.Minute)
	setDefault(&l.Session, 30*time.Minute)
	setDefault(&l.Slack, 5*time.Minute)
	setDefault(&l.MinRate, 1024)
	setDefault(&l.Linger, 300*time.Millisecond)
	setDefault(&l.Shutdown, 10*time.Second)
	return l
}

func setDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// connEnv is what all connections of a process have in common.
type connEnv struct {
	limits    connLimits
	tls       *tls.Config
	accounts  *Accounts
	throttle  *Throttle
	strangers *Strangers
	readers   sync.Pool     // *bufio.Reader
	writers   sync.Pool     // *bufio.Writer
	packers   sync.Pool     // *packer
	copiers   sync.Pool     // *[copySize]byte
	closing   chan struct{} // closed when the shutdown begins
}

func newConnEnv(limits connLimits, tlsConfig *tls.Config, accounts *Accounts, now func() time.Time) *connEnv {
	return &connEnv{
		limits:    limits.withDefaults(),
		tls:       serveCertificates(tlsConfig),
		accounts:  accounts,
		throttle:  NewThrottle(now),
		strangers: NewStrangers(now),
		readers:   sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readerSize) }},
		writers:   sync.Pool{New: func() any { return bufio.NewWriterSize(nil, writerSize) }},
		copiers:   sync.Pool{New: func() any { return new([copySize]byte) }},
		closing:   make(chan struct{}),
	}
}

// takeReader gives a buffer around r, for what is read besides a connection.
func (e *connEnv) takeReader(r io.Reader) *bufio.Reader {
	b := e.readers.Get().(*bufio.Reader)
	b.Reset(r)
	return b
}

// giveReader takes the buffer back.
func (e *connEnv) giveReader(b *bufio.Reader) {
	b.Reset(nil)
	e.readers.Put(b)
}

// copy is io.Copy with a buffer that other messages have had before.
func (e *connEnv) copy(w io.Writer, r io.Reader) (int64, error) {
	buf := e.copiers.Get().(*[copySize]byte)
	defer e.copiers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buf[:])
}

// Conn is one client's connection. The protocol's accept loop makes it, tracks
// it, recovers a panic of its session, and flushes and closes it after the
// session's serve function returns.
//
// One goroutine may read while another writes; apart from that it is used by
// one goroutine at a time.
type Conn struct {
	ID     string       // short, unique in the process
	Log    *slog.Logger // has the id and the remote address
	Remote netip.Addr

	env    *connEnv
	raw    *deadlineConn
	secure *tls.Conn // nil without TLS
	packed *packed   // nil without compression
	r      *bufio.Reader
	w      *bufio.Writer
	peek   [1]byte // the byte that ended WaitInput, while peeked
	peeked bool

	who    atomic.Pointer[MailSession]    // nil: nobody is logged in
	doing  atomic.Pointer[sessionCommand] // nil: nothing since the login
	client atomic.Pointer[string]         // what the program calls itself; nil: nothing
}

// newConn wraps an accepted connection. Its silence is limited by PreLogin,
// its time until a login by Login.
func newConn(env *connEnv, raw net.Conn, id string, log *slog.Logger) *Conn {
	c := &Conn{ID: id, Remote: remoteAddr(raw), env: env, raw: newDeadlineConn(raw, env.limits)}
	c.Log = log.With("conn", id, "remote", c.Remote.String())
	c.raw.setIdle(env.limits.PreLogin)
	c.raw.setEnd(time.Now().Add(env.limits.Login))
	return c
}

// remoteAddr gives the peer's address, IPv4 never in its IPv6 form.
func remoteAddr(c net.Conn) netip.Addr { return addrOf(c.RemoteAddr().String()) }

// addrOf gives the address in one with a port; one that is none, such as that of a pipe, is unspecified.
func addrOf(hostPort string) netip.Addr {
	ap, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return netip.IPv4Unspecified()
	}
	return ap.Addr().Unmap().WithZone("")
}

// connStream is the byte stream beneath the buffers.
type connStream struct{ *Conn }

func (s connStream) Read(p []byte) (int, error) {
	if s.peeked && len(p) > 0 {
		p[0], s.peeked = s.peek[0], false
		return 1, nil
	}
	return s.read(p)
}

func (s connStream) Write(p []byte) (int, error) {
	if s.packed != nil {
		return s.packed.Write(p)
	}
	return s.stream().Write(p)
}

// read reads from the stream, through its compression.
func (c *Conn) read(p []byte) (int, error) {
	if c.packed != nil {
		return c.packed.in.Read(p)
	}
	return c.stream().Read(p)
}

func (c *Conn) stream() net.Conn {
	if c.secure != nil {
		return c.secure
	}
	return c.raw
}

// Reader is the buffered input. Do not keep it over StartTLS, WaitInput or
// ReleaseBuffers. Each byte of progress slides the deadline: a slow honest link
// finishes, a silent one ends with a time-out error.
func (c *Conn) Reader() *bufio.Reader {
	if c.r == nil {
		c.r = c.env.takeReader(connStream{c})
	}
	return c.r
}

// Writer is the buffered output; nothing is sent before it is flushed or full.
// Do not keep it over StartTLS or ReleaseBuffers. Writes have a sliding deadline
// of their own.
func (c *Conn) Writer() *bufio.Writer {
	if c.w == nil {
		c.w = c.env.writers.Get().(*bufio.Writer)
		c.w.Reset(connStream{c})
	}
	return c.w
}

// ReleaseBuffers gives the buffers back while there is nothing in them, so that
// an idle session costs little. Reader and Writer take new ones.
func (c *Conn) ReleaseBuffers() {
	c.releaseReader()
	c.ReleaseWriter()
}

// ReleaseWriter gives the output buffer alone back, for a session in which
// another goroutine is reading.
func (c *Conn) ReleaseWriter() {
	if c.w != nil && c.w.Buffered() == 0 {
		c.w.Reset(nil)
		c.env.writers.Put(c.w)
		c.w = nil
	}
}

func (c *Conn) releaseReader() {
	if c.r != nil && c.r.Buffered() == 0 {
		c.env.giveReader(c.r)
		c.r = nil
	}
}

// WaitInput blocks until there is at least one byte to read, and holds no read
// buffer meanwhile. Its errors are those of a read.
func (c *Conn) WaitInput() error {
	if c.peeked || c.r != nil && c.r.Buffered() > 0 {
		return nil
	}
	c.releaseReader()
	for {
		n, err := c.read(c.peek[:])
		if n == 1 {
			c.peeked = true
			return nil
		}
		if err != nil {
			return err
		}
	}
}

var (
	// errLineTooLong says that a line was longer than allowed; it has been skipped.
	errLineTooLong = errors.New("line is too long")
	// errEndlessLine says that the end of a line was not found within maxSkippedLine.
	errEndlessLine = errors.New("line has no end")
)

// maxSkippedLine is how much of an over-long line is read to find its end.
const maxSkippedLine = 1 << 20

// ReadLine reads a line of at most limit octets and gives it without its CRLF
// (a bare LF ends it too), valid until the next read. errLineTooLong means that a
// longer line was skipped, and the session can go on.
func (c *Conn) ReadLine(limit int) ([]byte, error) {
	r := c.Reader()
	piece, err := r.ReadSlice('\n')
	if err == nil && len(piece) <= limit {
		return trimLineEnd(piece), nil
	}
	var line []byte
	total := len(piece)
	for err == bufio.ErrBufferFull {
		if total <= limit {
			line = append(line, piece...)
		} else if total > maxSkippedLine {
			return nil, errEndlessLine
		}
		piece, err = r.ReadSlice('\n')
		total += len(piece)
	}
	switch {
	case err == io.EOF && total > 0:
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	case total > limit:
		return nil, errLineTooLong
	}
	return trimLineEnd(append(line, piece...)), nil
}

// trimLineEnd cuts LF or CRLF off.
func trimLineEnd(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}

// SetIdle sets how long a read may wait for the next byte. Before login it is
// 60 s; the session sets its own after (POP3 10 min, IMAP 30 min).
func (c *Conn) SetIdle(d time.Duration) { c.raw.setIdle(d) }

// StopReading makes the read that is waiting and all later ones fail with
// net.ErrClosed, for a session that has said its last word while it waits.
func (c *Conn) StopReading() { c.raw.stopReading() }

// Busy tells the shutdown that the client is in the middle of sending a message
// (DATA, APPEND): while on, reads go on during the shutdown's 10 s instead of
// failing at once.
func (c *Conn) Busy(on bool) { c.raw.setBusy(on) }

// StartTLS speaks the server's side of the handshake, within 30 s. Nothing may
// be buffered in either direction: input behind the command is refused with
// ErrPlaintextAfterStartTLS, output must have been flushed.
func (c *Conn) StartTLS() error {
	if c.secure != nil {
		return errors.New("TLS is already active")
	}
	if c.peeked || c.r != nil && c.r.Buffered() > 0 {
		return ErrPlaintextAfterStartTLS
	}
	c.ReleaseBuffers()
	end := c.raw.setEnd(time.Now().Add(c.env.limits.Handshake))
	secure := tls.Server(c.raw, c.env.tls)
	if err := secure.Handshake(); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.raw.setEnd(end)
	c.secure = secure
	return nil
}

// TLS gives the state of TLS, nil without it.
func (c *Conn) TLS() *tls.ConnectionState {
	if c.secure == nil {
		return nil
	}
	state := c.secure.ConnectionState()
	return &state
}

// Loopback says that the peer is this machine.
func (c *Conn) Loopback() bool { return c.Remote.IsLoopback() }

// MayLogin says whether a password may be sent: under TLS or on loopback.
func (c *Conn) MayLogin() bool { return c.secure != nil || c.Loopback() }

// Closing is true once the appliance shuts down. Reads then fail at once with
// ErrShutdown (unless Busy), and the session says BYE and returns.
func (c *Conn) Closing() bool {
	select {
	case <-c.env.closing:
		return true
	default:
		return false
	}
}

// Shutdown is closed when the appliance shuts down, for sessions that wait for
// more than input.
func (c *Conn) Shutdown() <-chan struct{} { return c.env.closing }

// Login checks a password. The throttle is asked first and makes a failed login
// wait. ErrBadLogin, or ErrThrottled when it has to be tried later; any other
// error is the appliance's own. After a success the limit of the time before
// login is lifted.
func (c *Conn) Login(ctx context.Context, protocol, user, password string) (Identity, error) {
	id, err := c.tryLogin(ctx, protocol, user, password, func() (Identity, error) {
		return c.env.accounts.Login(ctx, user, password)
	})
	if err == nil {
		c.loggedIn(protocol, "password", id)
	}
	return id, err
}

// tryLogin lets check decide about a login that the throttle allows, and makes
// it wait when check gives ErrBadLogin. guess is what the client knows: the same
// one counts once.
func (c *Conn) tryLogin(ctx context.Context, protocol, user, guess string, check func() (Identity, error)) (Identity, error) {
	id, wait, err := c.env.throttle.Try(c.Remote, c.env.accounts.LoginName(user), guess, check)
	switch {
	case errors.Is(err, ErrThrottled):
		c.rejectLogin(protocol, user, err)
		return Identity{}, err
	case errors.Is(err, ErrBadLogin):
		c.rejectLogin(protocol, user, err)
		c.pause(ctx, wait)
		return Identity{}, ErrBadLogin
	case err != nil:
		return Identity{}, fmt.Errorf("checking a login: %w", err)
	}
	return id, nil
}

func (c *Conn) rejectLogin(protocol, user string, err error) {
	c.Log.Warn("rejected", "protocol", protocol, "user", clip(user, 100), "reason", err.Error())
}

// loggedIn lifts the limit of the time before login, and says who has come. by
// is the mechanism of SASL or "password".
func (c *Conn) loggedIn(protocol, by string, id Identity) {
	c.raw.setEnd(time.Time{})
	c.who.Store(&MailSession{Identity: id, Protocol: protocol, Remote: c.Remote, TLS: c.secure != nil, Since: time.Now()})
	c.env.accounts.LoggedIn(id, protocol)
	c.Log.Info("login", "protocol", protocol, "account", id.Account, "via", id.Via, "by", by, "tls", c.secure != nil)
}

// Logout brings back the limits of the time before login.
func (c *Conn) Logout() {
	c.who.Store(nil)
	c.raw.setIdle(c.env.limits.PreLogin)
	c.raw.setEnd(time.Now().Add(c.env.limits.Login))
}

// pause waits, but not longer than the appliance runs.
func (c *Conn) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-c.env.closing:
	}
}

// Close flushes what is buffered, ends TLS and closes, giving the client a
// moment to take the last reply.
func (c *Conn) Close() error {
	if c.w != nil && c.w.Buffered() > 0 {
		_ = c.w.Flush() // the client may be gone, which is no concern any more
	}
	err := c.stream().Close()
	if c.r != nil {
		_, _ = c.r.Discard(c.r.Buffered())
	}
	c.ReleaseBuffers()
	return err
}

// clip cuts a string that a client gave to n bytes, for the log.
func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// isClientGone says whether an error of a read or write only means that the
// client went away or fell silent, which is nothing to log as an error.
func isClientGone(err error) bool {
	var op *net.OpError
	var record tls.RecordHeaderError
	for _, is := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, ErrShutdown, os.ErrDeadlineExceeded, errEndlessLine} {
		if errors.Is(err, is) {
			return true
		}
	}
	return errors.As(err, &op) || errors.As(err, &record)
}
