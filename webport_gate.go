package main

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// The caps of the ports 80 and 443. They are those of the mail ports (connLimits), for the same reason: no one address takes all
// connections, and a flood from outside locks nobody in the house out.

const (
	webPerAddr  = 50          // connections to a port from one address (IPv6: one /64)
	webPerLAN   = 200         // the same from a loopback or private address, behind which a proxy may be
	webConns    = 200         // connections to a port in all
	webSpare    = 200         // beyond that for loopback and private addresses
	webFullGap  = time.Minute // between two lines in the log about connections that were closed
	webTooMany  = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nRetry-After: 60\r\n\r\nToo many connections. Try again in a minute.\r\n"
	webTellTime = time.Second // for webTooMany to be taken
)

// webGate is a listener that closes at once what is one connection too many. Under TLS there is no way to say why; without it the
// answer is webTooMany.
type webGate struct {
	net.Listener
	name  string // of the protocol, for the log
	plain bool
	log   *slog.Logger

	mu     sync.Mutex
	all    int
	counts map[netip.Addr]int // by throttlePrefix
	told   time.Time
}

func newWebGate(l net.Listener, name string, plain bool, log *slog.Logger) *webGate {
	return &webGate{Listener: l, name: name, plain: plain, log: log, counts: map[netip.Addr]int{}}
}

// Accept gives the next connection that the caps allow.
func (g *webGate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		remote := webSource(conn)
		if g.enter(remote) {
			return &webGated{Conn: conn, leave: func() { g.leave(remote) }}, nil
		}
		if g.plain {
			_ = conn.SetWriteDeadline(time.Now().Add(webTellTime))
			_, _ = conn.Write([]byte(webTooMany)) // into an empty buffer: it does not wait
		}
		_ = conn.Close()
	}
}

// webSource is what connections are counted by.
func webSource(conn net.Conn) netip.Addr {
	ap, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	return throttlePrefix(ap.Addr())
}

// enter counts a connection, unless it is one too many.
func (g *webGate) enter(remote netip.Addr) bool {
	most, all := webPerAddr, webConns
	if isNear(remote) {
		most, all = webPerLAN, webConns+webSpare
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.counts[remote] < most && g.all < all {
		g.counts[remote]++
		g.all++
		return true
	}
	if now := time.Now(); now.Sub(g.told) >= webFullGap {
		g.told = now
		g.log.Warn("rejected", "protocol", g.name, "remote", remote.String(), "reason", "too many connections", "from_there", g.counts[remote], "in_all", g.all)
	}
	return false
}

func (g *webGate) leave(remote netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	if g.counts[remote]--; g.counts[remote] == 0 {
		delete(g.counts, remote)
	}
}

// webGated is a connection that is counted until it is closed.
type webGated struct {
	net.Conn
	once  sync.Once
	leave func()
}

// Close closes the connection, which counts no more.
func (c *webGated) Close() error {
	defer c.once.Do(c.leave)
	return c.Conn.Close()
}
