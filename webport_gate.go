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

	counts sourceCounts
	told   time.Time // of Accept alone, which one goroutine calls
}

func newWebGate(l net.Listener, name string, plain bool, log *slog.Logger) *webGate {
	return &webGate{Listener: l, name: name, plain: plain, log: log}
}

// Accept gives the next connection that the caps allow.
func (g *webGate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		remote := remoteAddr(conn)
		if g.enter(remote) {
			return &webGated{Conn: conn, leave: func() { g.counts.leave(remote) }}, nil
		}
		if g.plain {
			_ = conn.SetWriteDeadline(time.Now().Add(webTellTime))
			_, _ = conn.Write([]byte(webTooMany)) // into an empty buffer: it does not wait
		}
		_ = conn.Close()
	}
}

// enter counts a connection, unless it is one too many.
func (g *webGate) enter(remote netip.Addr) bool {
	most, all := webPerAddr, webConns
	if isNear(remote) {
		most, all = webPerLAN, webConns+webSpare
	}
	if g.counts.enter(remote, most, all) {
		return true
	}
	if now := time.Now(); now.Sub(g.told) >= webFullGap {
		g.told = now
		there, inAll := g.counts.now(remote)
		g.log.Warn("rejected", "protocol", g.name, "remote", throttlePrefix(remote).String(), "reason", "too many connections", "from_there", there, "in_all", inAll)
	}
	return false
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
