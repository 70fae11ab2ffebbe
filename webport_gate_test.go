package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// One address from outside takes its share, all of them take theirs, and the house still gets in.
func TestWebGateCaps(t *testing.T) {
	var log bytes.Buffer
	g := newWebGate(nil, "https", false, slog.New(slog.NewTextHandler(&log, nil)))
	enter := func(address string, times int) (let int) {
		for range times {
			if g.enter(netip.MustParseAddr(address)) {
				let++
			}
		}
		return let
	}
	if n := enter("203.0.113.1", 1000); n != webPerAddr {
		t.Errorf("one address: %d", n)
	}
	if n := enter("2001:db8:1:2::1", 30) + enter("2001:db8:1:2::2", 1000); n != webPerAddr {
		t.Errorf("one network of IPv6: %d", n)
	}
	for i := range 200 {
		enter(fmt.Sprintf("198.51.100.%d", i), 10)
	}
	if g.counts.all != webConns {
		t.Errorf("all: %d", g.counts.all)
	}
	if n := enter("192.168.1.7", 1000); n != webSpare {
		t.Errorf("the house: %d", n)
	}
	if n := strings.Count(log.String(), "too many connections"); n != 1 {
		t.Errorf("%d lines in the log:\n%s", n, log.String())
	}
	far := netip.MustParseAddr("203.0.113.1")
	for range webPerAddr {
		g.counts.leave(far)
	}
	if _, there := g.counts.of[far]; there {
		t.Error("who has left is still counted")
	}
	if n := enter("203.0.113.1", 1); n != 0 { // the house fills what is beyond the cap
		t.Errorf("beyond all: %d", n)
	}
}

// Connections that are closed make room, and the port without TLS says what is wrong.
func TestWebGateOnThePort(t *testing.T) {
	w := &WebPorts{}
	get := startWeb(t, w)
	plain, secure := w.Numbers()
	for _, port := range []int{plain, secure} {
		var held []net.Conn
		for range webPerLAN {
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, conn)
		}
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		text, _ := io.ReadAll(conn) // a reset is an end, too
		if port == plain && !strings.Contains(string(text), "503 Service Unavailable") || port == secure && len(text) > 0 {
			t.Errorf("port %d: %q", port, text)
		}
		_ = conn.Close()
		for _, conn := range held {
			_ = conn.Close()
		}
	}
	var err error
	for range 100 { // until the server has seen that they are closed
		conn, dialErr := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", secure), &tls.Config{InsecureSkipVerify: true})
		if err = dialErr; err == nil {
			_ = conn.Close()
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Fatalf("no room was made: %v", err)
	}
	if status, _ := get("GET", "https", "example.org", "/"); status != 404 {
		t.Errorf("status %d", status)
	}
}

// A connection that is closed twice, or by two at once, has left once.
func TestWebGatedClose(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	left := 0
	conn := &webGated{Conn: here, leave: func() { left++ }}
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() { _ = conn.Close() })
	}
	both.Wait()
	if left != 1 {
		t.Errorf("left %d times", left)
	}
}
