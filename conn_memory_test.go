package main

import (
	"context"
	"crypto/tls"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkIdleTLSConn measures what a silent session under TLS costs the server:
// its connection, its goroutine and what TLS keeps. The client's side of TLS is in
// the same process; it is measured alone and taken off.
func BenchmarkIdleTLSConn(b *testing.B) {
	const n = 150
	var waiting atomic.Int64
	idle := func(_ context.Context, c *Conn, _ *Protocols) {
		_, _ = c.Writer().WriteString("hello\n")
		if c.Writer().Flush() != nil {
			return
		}
		c.SetIdle(time.Hour)
		c.ReleaseBuffers()
		waiting.Add(1)
		_ = c.WaitInput() // until the end
	}
	s := startPorts(b, &Protocols{specs: []portSpec{{1, "line", true, idle, ""}}})
	before := memoryInUse()
	clients := make([]*tls.Conn, n)
	for i := range clients {
		clients[i] = tls.Client(s.dial(b, "line"), s.client)
		if _, err := clients[i].Read(make([]byte, 6)); err != nil {
			b.Fatal(err)
		}
	}
	for waiting.Load() < n {
		time.Sleep(time.Millisecond)
	}
	both := memoryInUse()
	s.stop() // the server's side is gone, the clients' stays
	clientsOnly := memoryInUse()
	for b.Loop() { // it is measured once
	}
	b.ReportMetric(float64(both-before)/n, "B/pair")
	b.ReportMetric(float64(both-clientsOnly)/n, "B/session")
	runtime.KeepAlive(clients)
}

// memoryInUse gives the bytes of heap and stacks after a collection.
func memoryInUse() int64 {
	for range 3 { // stacks shrink by half at each
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
