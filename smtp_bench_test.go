package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// benchMail is a message of 2 KB as other servers send it, with the end of DATA.
var benchMail = "From: <x@example.org>\r\nTo: <ann@test.lan>\r\nSubject: A small message\r\n\r\n" +
	strings.Repeat("The meeting about the budget of the garden is on Monday, bring the letters.\r\n", 25) + ".\r\n"

// BenchmarkSMTPAccept delivers messages over some connections at once, and writes files of the same size in the least way
// that is durable, as often. The metric loop-ratio is messages a second of the first divided by those of the second.
func BenchmarkSMTPAccept(b *testing.B) {
	for _, connections := range []int{1, 8} {
		b.Run(fmt.Sprintf("connections=%d", connections), func(b *testing.B) {
			s := transcriptServer(b, &Protocols{})
			drop := testDropOf(b, s.Store, "ann@test.lan")
			inbox := openFolder(b, drop, "INBOX")
			clients := make([]*rawClient, connections)
			for i := range clients {
				clients[i] = s.raw(b, "smtp")
				clients[i].send("EHLO client\r\n")
				clients[i].expect("220 ", "250 ")
				clients[i].deliverBenchMail() // what is loaded at first is loaded
			}
			b.ReportAllocs()
			b.ResetTimer()
			atOnce(b.N, connections, func(i int) { clients[i].deliverBenchMail() })
			b.StopTimer()
			perSecond := float64(b.N) / b.Elapsed().Seconds()
			loop := newDurableLoop(b)
			b.StartTimer()
			before := b.Elapsed()
			atOnce(b.N, connections, func(int) { loop.store(b) })
			looped := b.Elapsed() - before
			b.StopTimer()
			b.ReportMetric(perSecond, "messages/s")
			b.ReportMetric(perSecond*looped.Seconds()/float64(b.N), "loop-ratio")
			inbox.Release()
			drop.Release()
		})
	}
}

func (c *rawClient) deliverBenchMail() {
	c.send("MAIL FROM:<x@example.org>\r\nRCPT TO:<ann@test.lan>\r\nDATA\r\n")
	c.expect("250 ", "250 ", "354 ")
	c.send(benchMail)
	c.expect("250 ")
}

// testDropOf opens the maildrop of an account.
func testDropOf(t testing.TB, s *Store, account string) *Maildrop {
	t.Helper()
	d, err := s.Maildrop(account)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// atOnce calls f n times in all from some goroutines, each of which has a number.
func atOnce(n, goroutines int, f func(goroutine int)) {
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for i := range goroutines {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				f(i)
			}
		})
	}
	wg.Wait()
}

// durableLoop is a bare loop of create, write, fsync, rename and fsync of the directory.
type durableLoop struct {
	dir  string
	text []byte
	n    atomic.Int64
}

func newDurableLoop(t testing.TB) *durableLoop {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{"tmp", "new"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return &durableLoop{dir: dir, text: []byte(benchMail + strings.Repeat("trace", 40))}
}

func (l *durableLoop) store(t testing.TB) {
	name := fmt.Sprint(l.n.Add(1))
	f, err := os.OpenFile(filepath.Join(l.dir, "tmp", name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = f.Write(l.text)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(l.dir, "new", name))
	}
	if err == nil {
		err = syncDir(filepath.Join(l.dir, "new"))
	}
	if err != nil {
		t.Error(err)
	}
}
