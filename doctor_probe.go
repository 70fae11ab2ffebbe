package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// What is asked outside before anything can be judged: whether there is an internet, what our addresses look like from there,
// whether other mail servers can be reached. None of it says who we are, beyond the address that any connection shows.

const (
	probeConnect  = 7 * time.Second // for a connection to stand
	probeGreeting = 2 * time.Second // more for a server's first line
	maxGreeting   = 512             // octets of that (RFC 5321 §4.5.3.1.5)
)

// outsidePlaces are whom the doctor asks.
type outsidePlaces struct {
	providers []string    // domains whose mail servers are always there
	port      int         // of mail servers
	web       []string    // ADDRESS:PORT that need no DNS
	stun      []string    // HOST:PORT (RFC 8489)
	clocks    []string    // HOST:PORT (RFC 4330)
	lists     []blockList // of addresses that send spam
}

// usualPlaces are well known, meant to be asked by anybody, and run by different people.
func usualPlaces() *outsidePlaces {
	return &outsidePlaces{
		providers: []string{"gmail.com", "outlook.com", "yahoo.com"},
		port:      25,
		web:       []string{"1.1.1.1:443", "8.8.8.8:443", "[2606:4700:4700::1111]:443"},
		stun:      []string{"stun.cloudflare.com:3478", "stun.l.google.com:19302"},
		clocks:    []string{"time.cloudflare.com:123", "time.google.com:123"},
		lists: []blockList{
			{"zen.spamhaus.org", "https://check.spamhaus.org/"},
			{"bl.spamcop.net", "https://www.spamcop.net/bl.shtml"},
			{"psbl.surriel.com", "https://psbl.org/"},
		},
	}
}

// probed is what was found outside.
type probed struct {
	stun   atomic.Bool         // somebody has told us our address
	local  []netip.Addr        // of the interfaces, without loopback and link-local ones
	public []netip.Addr        // as seen from outside, IPv4 first
	named  bool                // the DNS knows the internet
	web    bool                // a connection to the outside stood
	lan    netip.Addr          // which of our addresses it came from
	tries  []portTry           // of other mail servers
	mx     map[string]mxAnswer // of our domains that can be public
	timed  bool                // clock is known
	clock  time.Duration       // how far ours is ahead
}

// mxAnswer is what the DNS says of who takes a domain's mail.
type mxAnswer struct {
	hosts []MX
	err   error
}

// reached says that something outside has answered us directly.
func (p *probed) reached() bool {
	return p.web || p.timed || p.stun.Load() || slices.ContainsFunc(p.tries, func(t portTry) bool { return t.reason == dialOpen })
}

// probe asks all that needs nothing else to be known, at once.
func (x *examination) probe(ctx context.Context) {
	x.local = x.d.localAddresses()
	x.tries = make([]portTry, len(x.places.providers))
	x.mx = map[string]mxAnswer{}
	var (
		running sync.WaitGroup
		mu      sync.Mutex
	)
	for i, provider := range x.places.providers {
		running.Go(func() { x.tries[i] = x.tryProvider(ctx, provider) })
	}
	running.Go(func() { x.public = x.seenAddresses(ctx) })
	running.Go(func() { x.web, x.lan = x.reachWeb(ctx) })
	running.Go(func() { x.clock, x.timed = x.clockOffset(ctx) })
	asked := 0
	for i := range x.facts.Domains {
		name := x.facts.Domains[i].Name
		if asked > doctorDomains || !isPublicName(name) { // one more: that of the machine may not count
			continue
		}
		asked++
		running.Go(func() {
			hosts, _, err := x.d.Resolver.MX(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			x.mx[name] = mxAnswer{hosts, err}
		})
	}
	running.Wait()
	x.named = slices.ContainsFunc(x.tries, func(t portTry) bool { return t.host != "" })
}

// Addresses gives the addresses of this machine as others see them, and whether it has several public ones of IPv6, some of
// which may change from day to day.
func (d *Doctor) Addresses(ctx context.Context) (seen []netip.Addr, several bool) {
	x := &examination{d: d, places: d.outside()}
	x.local = d.localAddresses()
	return x.seenAddresses(ctx), len(x.ownPublic(true)) > 1
}

// outside gives whom to ask.
func (d *Doctor) outside() *outsidePlaces {
	if d.places != nil {
		return d.places
	}
	return usualPlaces()
}

// seenAddresses asks for both families at once; IPv4 comes first.
func (x *examination) seenAddresses(ctx context.Context) []netip.Addr {
	var v4, v6 netip.Addr
	var running sync.WaitGroup
	running.Go(func() { v4 = x.seenAddress(ctx, false) })
	running.Go(func() { v6 = x.seenAddress(ctx, true) })
	running.Wait()
	return slices.DeleteFunc([]netip.Addr{v4, v6}, func(a netip.Addr) bool { return !a.IsValid() })
}

// seenAddress gives our address as others see it; invalid where it cannot be told. Where nobody tells, one that an interface
// has and that is public is taken, unless there are several.
func (x *examination) seenAddress(ctx context.Context, v6 bool) netip.Addr {
	if a := x.askSTUN(ctx, v6); a.IsValid() {
		x.stun.Store(true)
		return a
	}
	if own := x.ownPublic(v6); len(own) == 1 {
		return own[0]
	}
	return netip.Addr{}
}

// ownPublic gives the public addresses of the interfaces in one family.
func (x *examination) ownPublic(v6 bool) (own []netip.Addr) {
	for _, a := range x.local {
		if a.Is6() == v6 && isInternetAddress(a) {
			own = append(own, a)
		}
	}
	return own
}

// cgnat are the addresses that providers give to customers who share a public one (RFC 6598).
func cgnat() netip.Prefix { return netip.MustParsePrefix("100.64.0.0/10") }

// isInternetAddress says whether an address can be reached from the whole internet.
func isInternetAddress(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !cgnat().Contains(a)
}

// localAddresses gives the addresses of the network interfaces.
func (d *Doctor) localAddresses() []netip.Addr {
	if d.Local != nil {
		return d.Local()
	}
	return interfaceAddresses()
}

// reachWeb says whether one of some web servers takes a connection, and from which of our addresses.
func (x *examination) reachWeb(ctx context.Context) (reached bool, from netip.Addr) {
	ctx, cancel := context.WithTimeout(ctx, probeConnect)
	defer cancel()
	conns := make(chan net.Conn, len(x.places.web))
	for _, address := range x.places.web {
		go func() {
			conn, err := x.d.dial(ctx, "tcp", address)
			if err != nil {
				conn = nil
			} else {
				_ = conn.Close()
			}
			conns <- conn
		}()
	}
	for range x.places.web {
		if conn := <-conns; conn != nil {
			local, _ := netip.ParseAddrPort(conn.LocalAddr().String()) // a TCP address is one
			return true, local.Addr().Unmap()
		}
	}
	return false, netip.Addr{}
}

func (d *Doctor) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if d.Dial != nil {
		return d.Dial(ctx, network, address)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// dialHost opens a connection to HOST:PORT, by the first address of one family.
func (d *Doctor) dialHost(ctx context.Context, network, hostPort string, v6 bool) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, err
	}
	found, _, err := d.Resolver.Addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(found, func(a netip.Addr) bool { return a.Is6() == v6 })
	if at < 0 {
		return nil, notFound(host)
	}
	return d.dial(ctx, network, net.JoinHostPort(found[at].String(), port))
}

// dialEither is dialHost by IPv4, or by IPv6 where only that leads there.
func (d *Doctor) dialEither(ctx context.Context, network, hostPort string) (net.Conn, error) {
	conn, err := d.dialHost(ctx, network, hostPort, false)
	if isNotFound(err) || reasonOfDial(err) == dialNoWay {
		if other, second := d.dialHost(ctx, network, hostPort, true); !isNotFound(second) {
			return other, second
		}
	}
	return conn, err
}

// dialReason is how a connection came out.
type dialReason string

const (
	dialUntried dialReason = ""       // the DNS did not tell where
	dialOpen    dialReason = "open"   // it stands
	dialSilent  dialReason = "silent" // no answer came: somebody on the way drops it
	dialRefused dialReason = "refused"
	dialNoWay   dialReason = "no way" // the network has no way there, or is not there
	dialOther   dialReason = "other"
)

// The numbers that Windows has for what can go wrong.
const (
	windowsRefused   = syscall.Errno(10061) // WSAECONNREFUSED
	windowsNoNetwork = syscall.Errno(10051) // WSAENETUNREACH
	windowsNoHost    = syscall.Errno(10065) // WSAEHOSTUNREACH
)

// reasonOfDial says what an error of a dial means.
func reasonOfDial(err error) dialReason {
	var timeout net.Error
	switch {
	case err == nil:
		return dialOpen
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return dialSilent
	case errors.Is(err, syscall.ECONNREFUSED), isWindowsError(err, windowsRefused), isPermission(err): // the latter by a firewall here
		return dialRefused
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), isWindowsError(err, windowsNoNetwork), isWindowsError(err, windowsNoHost):
		return dialNoWay
	}
	return dialOther
}

// portTry is one try to reach another mail server.
type portTry struct {
	provider string
	host     string // its mail server, "" where the DNS does not tell
	reason   dialReason
	greeting string // its first line, "" where none came
}

// tryProvider connects to a provider's mail server, reads what it says, and leaves.
func (x *examination) tryProvider(ctx context.Context, provider string) portTry {
	t := portTry{provider: provider}
	hosts, _, err := x.d.Resolver.MX(ctx, provider)
	if err != nil {
		return t
	}
	t.host = hosts[0].Host
	dial, cancel := context.WithTimeout(ctx, probeConnect)
	defer cancel()
	address := net.JoinHostPort(t.host, strconv.Itoa(x.places.port))
	conn, err := x.d.dialEither(dial, "tcp", address)
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return t
	}
	if t.reason = reasonOfDial(err); err != nil {
		return t
	}
	t.greeting = readGreeting(conn)
	_, _ = io.WriteString(conn, "QUIT\r\n") // out of politeness
	_ = conn.Close()
	return t
}

// readGreeting reads a server's first line without its end, "" where none comes in time.
func readGreeting(conn net.Conn) string {
	_ = conn.SetDeadline(time.Now().Add(probeGreeting))
	line, err := bufio.NewReader(io.LimitReader(conn, maxGreeting)).ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.TrimRight(line, "\r\n")
}
