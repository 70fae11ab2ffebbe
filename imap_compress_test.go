package main

import (
	"bufio"
	"compress/flate"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

// flateConn is a client's end of a compressed connection.
type flateConn struct {
	net.Conn
	r io.Reader
	w *flate.Writer
}

func (c *flateConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func (c *flateConn) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	if err == nil {
		err = c.w.Flush()
	}
	return n, err
}

// compressed begins COMPRESS on a connection that is logged in.
func (c *imapLine) compressed(t testing.TB) *imapLine {
	t.Helper()
	c.ok(t, "COMPRESS DEFLATE")
	w, err := flate.NewWriter(c.Conn, 9)
	if err != nil {
		t.Fatal(err)
	}
	packed := &flateConn{c.Conn, flate.NewReader(c.r), w}
	return &imapLine{packed, bufio.NewReader(packed)}
}

// secureLogin logs in under TLS.
func (s *imapServer) secureLogin(t testing.TB, account string) *imapLine {
	t.Helper()
	conn := tls.Client(s.dial(t, "imaps"), s.client)
	c := &imapLine{conn, bufio.NewReader(conn)}
	c.readLine(t)
	c.ok(t, fmt.Sprintf("LOGIN %s %q", account, imapPassword))
	return c
}

func TestIMAPCompress(t *testing.T) {
	s := startIMAP(t)
	mustAdd(t, s.Accounts, "ann@home.lan", imapPassword)
	for name, login := range map[string]func(testing.TB, string) *imapLine{"plain": s.login, "TLS": s.secureLogin} {
		t.Run(name, func(t *testing.T) {
			c := login(t, "ann@home.lan").compressed(t)
			if got := c.do(t, "COMPRESS DEFLATE"); got[0] != "zz NO [COMPRESSIONACTIVE] DEFLATE is active already" {
				t.Error(got)
			}
			if got := c.ok(t, "CAPABILITY"); strings.Contains(got[0], "COMPRESS") {
				t.Error(got)
			}
			text := "Subject: large\r\n\r\n" + strings.Repeat("all work and no play\r\n", 30_000)
			c.ok(t, "CREATE "+name)
			c.send(t, fmt.Sprintf("a APPEND %s {%d}\r\n", name, len(text)))
			if got := c.readLine(t); got != "+ OK" {
				t.Fatal(got)
			}
			c.send(t, text+"\r\n")
			if got := c.readLine(t); !strings.HasPrefix(got, "a OK") {
				t.Fatal(got)
			}
			c.ok(t, "SELECT "+name)
			c.send(t, "b FETCH 1 BODY[]\r\n")
			c.readLine(t)
			got := make([]byte, len(text))
			if _, err := io.ReadFull(c.r, got); err != nil || string(got) != text {
				t.Fatal("another text", err)
			}
			for !strings.HasPrefix(c.readLine(t), "b OK") {
			}
			idleTold(t, s, c, name)
			c.send(t, strings.Repeat("x NOOP\r\n", 500))
			for range 500 {
				if got := c.readLine(t); got != "x OK NOOP completed" {
					t.Fatal(got)
				}
			}
			c.send(t, "e LOGOUT\r\n")
			for _, want := range []string{"* BYE Until next time", "e OK LOGOUT completed"} {
				if got := c.readLine(t); got != want {
					t.Error(got)
				}
			}
		})
	}
}

// idleTold idles and is told of a message.
func idleTold(t *testing.T, s *imapServer, c *imapLine, folder string) {
	t.Helper()
	c.send(t, "i IDLE\r\n")
	if got := c.readLine(t); got != "+ idling" {
		t.Fatal(got)
	}
	s.login(t, "ann@home.lan").ok(t, "APPEND "+folder+" {5+}\r\na: b\n")
	if got := c.readLine(t); got != "* 2 EXISTS" {
		t.Error(got)
	}
	c.send(t, "DONE\r\n")
	for !strings.HasPrefix(c.readLine(t), "i OK") {
	}
}

// TestIMAPCompressDamaged ends a session whose data is not DEFLATE, and one that sends a long line in few bytes goes on.
func TestIMAPCompressDamaged(t *testing.T) {
	s := startIMAP(t)
	mustAdd(t, s.Accounts, "ann@home.lan", imapPassword)
	c := s.login(t, "ann@home.lan").compressed(t)
	c.send(t, "a NOOP"+strings.Repeat(" ", 1<<20)+"\r\nb NOOP\r\n")
	for _, want := range []string{"a BAD A command line may have 65536 bytes", "b OK NOOP completed"} {
		if got := c.readLine(t); got != want {
			t.Fatal(got)
		}
	}
	if _, err := io.WriteString(c.Conn.(*flateConn).Conn, "\xff\xff\xff\xff"); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(c.r); len(rest) > 0 || err != io.ErrUnexpectedEOF { // the server's stream has no end
		t.Errorf("%q, %v", rest, err)
	}
}

// TestIMAPCompressTrickle ends a session whose client sends blocks with nothing in them, one by one: what counts for the
// deadlines is what comes over the wire.
func TestIMAPCompressTrickle(t *testing.T) {
	s := startIMAPWith(t, func(p *Protocols) { p.limits = connLimits{Slack: 500 * time.Millisecond, MinRate: 1 << 20} })
	mustAdd(t, s.Accounts, "ann@home.lan", imapPassword)
	c := s.login(t, "ann@home.lan").compressed(t)
	raw := c.Conn.(*flateConn).Conn
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if _, err := io.WriteString(raw, "\x00\x00\x00\xff\xff"); err != nil {
			return
		}
		if time.Since(start) > 30*time.Second {
			t.Fatal("the session goes on")
		}
	}
}

// BenchmarkIMAPCompressIdle measures what compression adds to a session that idles.
func BenchmarkIMAPCompressIdle(b *testing.B) {
	const n = 100
	s := startIMAP(b)
	mustAdd(b, s.Accounts, "ann@home.lan", imapPassword)
	plain := make([]*imapLine, n)
	for i := range plain {
		plain[i] = s.login(b, "ann@home.lan")
		plain[i].ok(b, "SELECT INBOX")
	}
	before := memoryInUse()
	clients := make([]*imapLine, n)
	for i, c := range plain {
		c.ok(b, "COMPRESS DEFLATE")
		clients[i] = c
	}
	time.Sleep(100 * time.Millisecond)
	after := memoryInUse()
	for b.Loop() { // it is measured once
	}
	b.ReportMetric(float64(after-before)/n, "B/session")
	runtime.KeepAlive(clients)
}

// BenchmarkCompress compresses full buffers of text, as the writing side does, and tells what is left of them.
func BenchmarkCompress(b *testing.B) {
	env := newConnEnv(connLimits{}, nil, nil, nil)
	var text strings.Builder
	for i := 0; text.Len() < writerSize; i++ {
		text.WriteString(benchText(i))
	}
	piece := []byte(text.String())[:writerSize]
	b.SetBytes(writerSize)
	b.ReportAllocs()
	left := 0
	for b.Loop() {
		left = len(env.compress(piece))
	}
	b.ReportMetric(100*float64(left)/writerSize, "%left")
}
