package main

// The table of ports, what serves each, and the life of all connections: accept,
// caps, TLS from the start, a panic that ends one session alone, and the orderly
// shutdown.

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// portShift is added to all ports when the operating system refuses low ones.
const portShift = 1000

// DefaultMaxSize is the size of a message in bytes that is taken by default.
const DefaultMaxSize = 50 << 20

// portSpec is one row of the table of ports.
type portSpec struct {
	number   int
	name     string
	implicit bool                                             // TLS from the start
	serve    func(ctx context.Context, c *Conn, p *Protocols) // one session, from the greeting on
	busy     string                                           // what a client is told that is not admitted, before the reason
}

// protocol gives the port's protocol, the same with TLS from the start and without.
func (s portSpec) protocol() string { return strings.TrimSuffix(s.name, "s") }

// portTable lists what is opened, in the order in which it is reported.
func portTable() []portSpec {
	const (
		smtpBusy = "421 4.7.0 "
		pop3Busy = "-ERR [SYS/TEMP] "
		imapBusy = "* BYE [UNAVAILABLE] "
	)
	return []portSpec{
		{25, "smtp", false, serveSMTP, smtpBusy},
		{465, "submissions", true, serveSubmission, smtpBusy},
		{587, "submission", false, serveSubmission, smtpBusy},
		{110, "pop3", false, servePOP3, pop3Busy},
		{995, "pop3s", true, servePOP3, pop3Busy},
		{143, "imap", false, serveIMAP, imapBusy},
		{993, "imaps", true, serveIMAP, imapBusy},
	}
}

// Protocols is the table of ports and all listeners. The exported fields are set
// before Open and not changed after; Listen and Offset before Bind.
type Protocols struct {
	Accounts *Accounts
	Store    *Store
	TLS      *tls.Config // of all ports
	Hostname string      // the name in greetings and trace fields
	Listen   string      // "" all addresses, else one address
	Offset   int         // added to each port; at 0, refused low ports are shifted by 1000
	MaxSize  int64       // bytes of a message, 0: DefaultMaxSize
	Log      *slog.Logger
	Now      func() time.Time // nil: time.Now; for throttling and trace fields
	Throttle *Throttle        // of logins, shared with the page; nil: one of its own

	// Queue takes mail of the people here for other domains. Nil: it is refused.
	Queue *Queue
	// Flood says how much of it one person may send. Nil: as much as they like.
	Flood *FloodLimit

	// Judge is asked for a verdict about each message that is complete, before it
	// is delivered. Nil takes all.
	Judge func(ctx context.Context, m *ReceivedMail) (Verdict, error)

	// Deliver puts a message with this reverse-path into the folders of its recipients, and is done when it is on disk there.
	// Nil: Store.Deliver.
	Deliver func(ctx context.Context, in *Incoming, from string, to []Delivery) error

	// Returns knows to whom bounces of forwarded mail go. Nil: there are none.
	Returns interface {
		ReturnTo(address string) (to Address, known bool, err error)
		TakeBounce(to Address) bool
	}

	limits   connLimits                                  // zero: the defaults
	anyPort  bool                                        // take free ports in place of the table's numbers
	listen   func(address string) (net.Listener, error)  // nil: listenTCP
	specs    []portSpec                                  // nil: portTable
	progress time.Duration                               // between two INPROGRESS of IMAP, 0: 10 s
	aging    time.Duration                               // between two looks of IMAP at what comes of an age, 0: 10 s
	wrapConn func(net.Conn) net.Conn                     // what is put around a connection that was accepted, nil: nothing
	wait     func(*Conn, context.Context, time.Duration) // of who is in the tarpit, nil: Conn.pause
	env      *connEnv
	text     *textFeeder // of SEARCH; nil: there is none
	open     []openPort
	shifted  bool // the operating system has refused low ports
	exchange int  // the port of SMTP as bound
	lastConn atomic.Uint64
	traffic  map[string]*PortTraffic // by the name of the port, guarded by mu
	visitor  atomic.Int64            // second in which somebody from the internet came to the SMTP port by IPv4, 0: never

	mu          sync.Mutex
	conns       map[*Conn]struct{}
	perProtocol map[string]int
	perAddr     map[connSource]int
	running     sync.WaitGroup // accept loops and sessions
}

// connSource is what connections are counted by.
type connSource struct {
	protocol string
	remote   netip.Addr // by throttlePrefix
}

// openPort is a port of the table that is bound.
type openPort struct {
	portSpec
	listener net.Listener
}

// Port is one open port, for the first-start text and status.
type Port struct {
	Name   string `json:"name"`   // "smtp", "submissions", "submission", "pop3", "pop3s", "imap", "imaps", "http", "https"
	Number int    `json:"number"` // as bound
	TLS    string `json:"tls"`    // "from the start", "STARTTLS" or "none"
}

// Bind binds all ports, or none. It comes before Open where the process gives up the
// right to bind them in between; clients that connect by then wait for Serve.
func (p *Protocols) Bind() error {
	if p.specs == nil {
		p.specs = portTable()
	}
	if p.listen == nil {
		p.listen = listenTCP
	}
	err := p.bind(p.Offset)
	if isPermission(err) && p.Offset == 0 {
		p.shifted = true
		err = p.bind(portShift)
	}
	if err != nil {
		return err
	}
	p.exchange = p.open[0].listener.Addr().(*net.TCPAddr).Port // the table begins with smtp
	return nil
}

// Exchange is the port as bound that other servers bring mail to, 0 before Bind.
func (p *Protocols) Exchange() int { return p.exchange }

// Open binds what Bind has not bound yet, and reports all ports. shifted says that the
// operating system refused the low ports and portShift was added to all.
func (p *Protocols) Open() (ports []Port, shifted bool, err error) {
	p.prepare()
	if len(p.open) == 0 {
		if err := p.Bind(); err != nil {
			return nil, false, err
		}
	}
	for _, o := range p.open {
		port := Port{Name: o.name, Number: o.listener.Addr().(*net.TCPAddr).Port, TLS: "STARTTLS"}
		if o.implicit {
			port.TLS = "from the start"
		}
		p.Log.Info("listening", "protocol", o.name, "address", o.listener.Addr().String())
		ports = append(ports, port)
	}
	return ports, p.shifted, nil
}

func (p *Protocols) prepare() {
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	if p.MaxSize == 0 {
		p.MaxSize = DefaultMaxSize
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.wait == nil {
		p.wait = (*Conn).pause
	}
	p.env = newConnEnv(p.limits, p.TLS, p.Accounts, p.Now)
	if p.Throttle != nil {
		p.env.throttle = p.Throttle
	}
	if p.Store != nil {
		p.text = newTextFeeder()
		p.Store.OnArrival(p.text.arrived)
	}
	p.conns = map[*Conn]struct{}{}
	p.perProtocol, p.perAddr = map[string]int{}, map[connSource]int{}
	p.traffic = map[string]*PortTraffic{}
}

// bind opens all ports of the table, or none.
func (p *Protocols) bind(offset int) error {
	for _, spec := range p.specs {
		number := spec.number + offset
		if p.anyPort {
			number = 0
		}
		l, err := p.listen(net.JoinHostPort(p.Listen, strconv.Itoa(number)))
		if err != nil {
			p.Close()
			return p.bindError(spec, number, err)
		}
		p.open = append(p.open, openPort{spec, l})
	}
	return nil
}

// listenTCP listens on an address. Connections are asked rarely whether they are
// still there: each time would wake a phone that waits for mail.
func listenTCP(address string) (net.Listener, error) {
	keepAlive := net.KeepAliveConfig{Enable: true, Idle: 10 * time.Minute, Interval: time.Minute, Count: 5}
	return (&net.ListenConfig{KeepAliveConfig: keepAlive}).Listen(context.Background(), "tcp", address)
}

// bindError says in one sentence why a port is not to be had.
func (p *Protocols) bindError(spec portSpec, number int, err error) error {
	switch {
	case isInUse(err):
		return fmt.Errorf("port %d (%s) is in use by another program; stop it, or choose other ports with --port-offset: %w", number, spec.name, err)
	case isPermission(err):
		return fmt.Errorf("port %d (%s) is refused by the operating system; choose other ports with --port-offset: %w", number, spec.name, err)
	case p.Listen != "":
		return fmt.Errorf("cannot listen on address %s, port %d (%s): %w", p.Listen, number, spec.name, err)
	default:
		return fmt.Errorf("cannot listen on port %d (%s): %w", number, spec.name, err)
	}
}

// The numbers that Windows has for a refused and a used port.
const (
	windowsAccess = syscall.Errno(10013) // WSAEACCES
	windowsInUse  = syscall.Errno(10048) // WSAEADDRINUSE
)

func isPermission(err error) bool {
	return errors.Is(err, fs.ErrPermission) || isWindowsError(err, windowsAccess)
}

func isInUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || isWindowsError(err, windowsInUse)
}

func isWindowsError(err error, number syscall.Errno) bool {
	var e syscall.Errno
	return runtime.GOOS == "windows" && errors.As(err, &e) && e == number
}

// answerPatience is how long the own port may take to greet.
const answerPatience = 30 * time.Second

// Answers connects to the first port, and gives an error unless it greets: sessions can begin.
func (p *Protocols) Answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(p.Listen, strconv.Itoa(p.Exchange())))
	if err != nil {
		return fmt.Errorf("connecting to the own port: %w", err)
	}
	defer conn.Close()
	end, _ := ctx.Deadline()
	_ = conn.SetDeadline(end)
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("waiting for the own greeting: %w", err)
	}
	return nil
}

// Close closes the listeners. Serve does it by itself; Close is for ports that
// were opened and are not served.
func (p *Protocols) Close() {
	for _, o := range p.open {
		_ = o.listener.Close() // nothing more is wanted from it
	}
	p.open = nil
}

// Serve serves the ports that Open bound until ctx ends, and then shuts down
// within 10 s: the listeners are closed, idle sessions get BYE or 421 at once,
// running commands and messages that are being received may finish.
func (p *Protocols) Serve(ctx context.Context) error {
	if p.env == nil || len(p.open) == 0 {
		return errors.New("serving: no port is open")
	}
	sessions, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	for _, o := range p.open {
		p.running.Go(func() { p.accept(sessions, o) })
	}
	<-ctx.Done()
	p.Close()
	p.shutdown(cancel)
	return nil
}

// shutdown ends the sessions: politely, and after limits.Shutdown by force.
func (p *Protocols) shutdown(cancel context.CancelFunc) {
	p.mu.Lock()
	close(p.env.closing)
	for c := range p.conns {
		c.raw.shutdown()
	}
	p.mu.Unlock()
	force := time.AfterFunc(p.env.limits.Shutdown, func() {
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		for c := range p.conns {
			c.raw.abort()
		}
	})
	p.running.Wait()
	force.Stop()
	p.text.close()
}

// accept takes connections until the listener is closed. When the system has no
// more to give (file descriptors), it waits a little longer each time.
func (p *Protocols) accept(ctx context.Context, o openPort) {
	const firstPause, maxPause = 5 * time.Millisecond, time.Second
	pause := firstPause
	for {
		raw, err := o.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			p.Log.Warn("cannot accept a connection", "protocol", o.name, "error", err, "retry", pause)
			select {
			case <-time.After(pause):
			case <-p.env.closing:
			}
			pause = min(2*pause, maxPause)
		default:
			pause = firstPause
			p.admit(ctx, o.portSpec, raw)
		}
	}
}

// admit starts the session of a connection, if the caps allow it.
func (p *Protocols) admit(ctx context.Context, spec portSpec, raw net.Conn) {
	if p.wrapConn != nil {
		raw = p.wrapConn(raw)
	}
	id := strconv.FormatUint(p.lastConn.Add(1), 36)
	c := newConn(p.env, raw, id, p.Log)
	if spec.name == "smtp" && c.Remote.Unmap().Is4() && !isNear(c.Remote) {
		p.visitor.Store(p.Now().Unix())
	}
	reason := p.enter(c, spec.protocol())
	p.count(spec.name, reason == "")
	if reason != "" {
		if p.env.strangers.Tell(c.Remote) {
			c.Log.Warn("rejected", "protocol", spec.name, "reason", reason)
		}
		refuse(spec, reason, raw)
		return
	}
	p.running.Go(func() { p.session(ctx, spec, c) })
}

// PortTraffic is how many connections a port has had since the start.
type PortTraffic struct {
	Port     string // its name
	Protocol string
	Served   uint64
	Refused  uint64 // there were too many
	Open     int    // of the protocol, -1 where another port of it tells
}

// count notes a connection of a port.
func (p *Protocols) count(port string, served bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.traffic[port]
	if t == nil {
		t = new(PortTraffic)
		p.traffic[port] = t
	}
	if served {
		t.Served++
	} else {
		t.Refused++
	}
}

// Traffic tells of all ports, in the order of the table.
func (p *Protocols) Traffic() (list []PortTraffic) {
	p.mu.Lock()
	defer p.mu.Unlock()
	told := map[string]bool{}
	for _, spec := range p.specs {
		t := PortTraffic{Port: spec.name, Protocol: spec.protocol(), Open: p.perProtocol[spec.protocol()]}
		if told[t.Protocol] {
			t.Open = -1
		}
		told[t.Protocol] = true
		if seen := p.traffic[spec.name]; seen != nil {
			t.Served, t.Refused = seen.Served, seen.Refused
		}
		list = append(list, t)
	}
	return list
}

// deliver is Deliver, or what stands for it.
func (p *Protocols) deliver(ctx context.Context, in *Incoming, from string, to []Delivery) error {
	if p.Deliver == nil {
		return p.Store.Deliver(ctx, in, to)
	}
	return p.Deliver(ctx, in, from, to)
}

// Visitor gives when somebody from beyond the LAN connected to the SMTP port by IPv4 last: the way in is open. Zero: nobody
// since the start.
func (p *Protocols) Visitor() time.Time {
	if second := p.visitor.Load(); second != 0 {
		return time.Unix(second, 0)
	}
	return time.Time{}
}

// enter counts a connection, or says in words why it is not admitted.
func (p *Protocols) enter(c *Conn, protocol string) (reason string) {
	source := connSource{protocol, throttlePrefix(c.Remote)}
	limits, near := p.env.limits, isNear(c.Remote)
	perAddr, spare := limits.PerAddr, 0
	if near {
		perAddr, spare = limits.PerLAN, limits.Spare
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case c.Closing():
		return "The server is shutting down"
	case len(p.conns) >= limits.Total+spare || p.perProtocol[protocol] >= limits.PerProtocol+spare:
		return "Too many connections"
	case p.perAddr[source] >= perAddr:
		return "Too many connections from your address"
	case protocol == "smtp" && !near:
		if reason := p.env.strangers.Connect(c.Remote); reason != "" {
			return reason
		}
	}
	p.conns[c] = struct{}{}
	p.perProtocol[protocol]++
	p.perAddr[source]++
	return ""
}

func (p *Protocols) leave(c *Conn, protocol string) {
	source := connSource{protocol, throttlePrefix(c.Remote)}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	p.perProtocol[protocol]--
	if p.perAddr[source]--; p.perAddr[source] == 0 {
		delete(p.perAddr, source)
	}
}

// refuse tells a client why it is not admitted, where it can be told without a
// handshake. The line fits into the empty send buffer, so nothing waits.
func refuse(spec portSpec, reason string, raw net.Conn) {
	if !spec.implicit && raw.SetWriteDeadline(time.Now().Add(time.Second)) == nil {
		_, _ = fmt.Fprintf(raw, "%s%s, try again later\r\n", spec.busy, reason) // it is closed in any case
	}
	_ = raw.Close()
}

// Sessions lists the sessions in which an account is logged in, those of all for "", in no order.
func (p *Protocols) Sessions(account string) []MailSession {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []MailSession
	for c := range p.conns {
		if s := c.Session(); s != nil && (account == "" || s.Account == account) {
			list = append(list, *s)
		}
	}
	return list
}

// EndSession closes the session with this ID, of anybody for account ""; false where there is none.
func (p *Protocols) EndSession(account, id string) (MailSession, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if s := c.Session(); s != nil && s.ID == id && (account == "" || s.Account == account) {
			c.raw.abort()
			return *s, true
		}
	}
	return MailSession{}, false
}

// EndSessions closes the sessions of an account that were logged in with the main password (via "") or one app password; all of
// them where any is true.
func (p *Protocols) EndSessions(account, via string, any bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if s := c.who.Load(); s != nil && s.Account == account && (any || s.Via == via) {
			c.raw.abort()
		}
	}
}

// session runs one session from the handshake to the close.
func (p *Protocols) session(ctx context.Context, spec portSpec, c *Conn) {
	defer p.leave(c, spec.protocol())
	defer c.Close()
	defer recoverSession(c, spec.name)
	if spec.implicit {
		if err := c.StartTLS(); err != nil {
			c.Log.Debug("no session", "protocol", spec.name, "error", err)
			return
		}
	}
	spec.serve(ctx, c, p)
}

// recoverSession makes a panic end this session alone. To be deferred.
func recoverSession(c *Conn, protocol string) {
	if cause := recover(); cause != nil {
		c.Log.Error("panic in a session", "protocol", protocol, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
	}
}
