package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

var pipelining = []string{"PIPELINING", "8BITMIME"}

// recipients gives n addresses.
func recipients(n int) (to []string) {
	for i := range n {
		to = append(to, fmt.Sprintf("r%d@x.test", i))
	}
	return to
}

// What comes before the text is there before the server has said a word, DATA last (RFC 2920 §3.1).
func TestSendTogether(t *testing.T) {
	w := openSendWorld(t, "x.test. A 192.0.2.1")
	var groups []string
	s := w.at("192.0.2.1:25", &remoteServer{extensions: pipelining, answer: func(c *remoteConn, line string) string {
		if !strings.HasPrefix(line, "MAIL") {
			return ""
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		group := ""
		for n := 1; !strings.HasSuffix(group, "DATA\r\n"); n++ {
			text, err := c.r.Peek(n)
			if err != nil {
				return "421 4.4.2 where is the rest"
			}
			group = string(text)
		}
		_ = c.SetReadDeadline(time.Time{})
		groups = append(groups, group)
		return ""
	}})
	for range 2 {
		for i, o := range w.all(context.Background(), outgoing(sendTestText, "a@x.test", "b@x.test", "c@x.test")) {
			w.expect(fmt.Sprint("recipient ", i), o, SendSent)
		}
	}
	want := "RCPT TO:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nRCPT TO:<c@x.test>\r\nDATA\r\n"
	if !slices.Equal(groups, []string{want, want}) || len(s.got()) != 2 || s.conns != 1 || s.got()[1].text != sendTestText {
		t.Errorf("%q, %+v", groups, s.got())
	}
}

// More recipients than are named at a time.
func TestSendTogetherMany(t *testing.T) {
	w := openSendWorld(t, "x.test. A 192.0.2.1")
	refused := false
	s := w.at("192.0.2.1:25", &remoteServer{extensions: pipelining, answer: func(_ *remoteConn, line string) string {
		if refused && strings.HasPrefix(line, "MAIL") {
			return "550 5.7.1 not from you"
		}
		return ""
	}})
	for i, o := range w.all(context.Background(), outgoing(sendTestText, recipients(3*pipelineMost+1)...)) {
		w.expect(fmt.Sprint("recipient ", i), o, SendSent)
	}
	if got := s.got(); len(got) != 1 || len(got[0].rcpts) != 3*pipelineMost+1 || got[0].text != sendTestText {
		t.Errorf("%d messages: %+v", len(got), got)
	}
	refused = true
	for i, o := range w.all(context.Background(), outgoing(sendTestText, recipients(3*pipelineMost)...)) {
		w.expect(fmt.Sprint("refused ", i), o, SendFailed, "not from you")
	}
	if n := s.said("RCPT"); n != 4*pipelineMost+1 {
		t.Errorf("%d recipients were named", n)
	}
}

// A server that waits for the text although it took nobody gets a dot alone, and the session goes on.
func TestSendTextForNobody(t *testing.T) {
	for name, last := range map[string]string{"refused": "554 5.5.1 no valid recipients", "taken": "250 2.0.0 fine"} {
		t.Run(name, func(t *testing.T) {
			w := openSendWorld(t, "x.test. A 192.0.2.1")
			refusing := true
			s := w.at("192.0.2.1:25", &remoteServer{extensions: pipelining, answer: func(_ *remoteConn, line string) string {
				switch {
				case refusing && strings.HasPrefix(line, "RCPT"):
					return "550 5.1.1 nobody here"
				case refusing && line == ".":
					return last
				}
				return ""
			}})
			for _, o := range w.all(context.Background(), outgoing(sendTestText, "a@x.test", "b@x.test")) {
				w.expect(name, o, SendFailed, "550 5.1.1", "nobody here")
			}
			refusing = false
			w.expect("the next one", w.one(outgoing(sendTestText, "a@x.test")), SendSent, "taken as 4711")
			got := s.got()
			if name == "taken" { // a message of nothing, for nobody
				if len(got) != 2 || got[0].text != "" {
					t.Fatalf("%+v", got)
				}
				got = got[1:]
			}
			if len(got) != 1 || got[0].text != sendTestText || s.conns != 1 {
				t.Errorf("%d connections, %+v", s.conns, got)
			}
		})
	}
}

// Recipients beyond what a server takes at a time come in the next transaction, whichever code it has for that; a mailbox that is
// full is another matter (RFC 5321 §4.5.3.1.10).
func TestSendTooManyRecipients(t *testing.T) { bothWays(t, testSendTooManyRecipients) }

func testSendTooManyRecipients(t *testing.T, extensions []string) {
	for reply, want := range map[string]struct {
		states string // of the recipients
		mails  int
	}{
		"452 4.5.3 too many":       {"sent sent sent sent sent sent sent sent", 3},
		"552 5.5.3 too many":       {"sent sent sent sent sent sent sent sent", 3},
		"452 too many":             {"sent sent sent sent sent sent sent sent", 3},
		"552 too many":             {"sent sent sent sent sent sent sent sent", 3},
		"552 5.2.2 mailbox full":   {"sent sent sent failed failed failed failed failed", 1},
		"452 4.2.2 mailbox full":   {"sent sent sent     ", 1},
		"452 4.3.1 no room":        {"sent sent sent     ", 1},
		"550 5.5.3 too many, ever": {"sent sent sent failed failed failed failed failed", 1},
	} {
		t.Run(reply, func(t *testing.T) {
			w := openSendWorld(t, "x.test. A 192.0.2.1")
			n := 0
			s := w.at("192.0.2.1:25", &remoteServer{extensions: extensions, answer: func(c *remoteConn, line string) string {
				if strings.HasPrefix(line, "MAIL") {
					n = 0
				}
				if strings.HasPrefix(line, "RCPT") {
					if n++; n > 3 {
						c.mail.rcpts = c.mail.rcpts[:3]
						return reply
					}
				}
				return ""
			}})
			var states []string
			for _, o := range w.all(context.Background(), outgoing(sendTestText, recipients(8)...)) {
				states = append(states, string(o.State))
			}
			got := s.got()
			if strings.Join(states, " ") != want.states || len(got) != want.mails || s.conns != 1 {
				t.Errorf("%q, %d messages over %d connections", states, len(got), s.conns)
			}
			var named []string
			for _, m := range got {
				named = append(named, m.rcpts...)
			}
			slices.Sort(named)
			if len(slices.Compact(named)) != min(3*want.mails, 8) {
				t.Errorf("recipients: %q", named)
			}
		})
	}
	t.Run("the first", func(t *testing.T) { // cannot be one too many
		w := openSendWorld(t, "x.test. A 192.0.2.1")
		w.at("192.0.2.1:25", &remoteServer{extensions: extensions, answer: at("RCPT", "552 storage exceeded")})
		w.expect("552", w.one(outgoing(sendTestText, "a@x.test")), SendFailed, "storage exceeded")
	})
	t.Run("and then it goes down", func(t *testing.T) {
		w := openSendWorld(t, "x.test. A 192.0.2.1")
		w.at("192.0.2.1:25", &remoteServer{extensions: extensions, answer: func(_ *remoteConn, line string) string {
			switch {
			case strings.HasPrefix(line, "RCPT TO:<r1@"):
				return "552 5.5.3 too many"
			case strings.HasPrefix(line, "RCPT TO:<r2@"):
				return "421 4.3.2 going down"
			}
			return ""
		}})
		for i, o := range w.all(context.Background(), outgoing(sendTestText, recipients(3)...)) {
			w.expect(fmt.Sprint("recipient ", i), o, SendWaiting)
		}
	})
}

// farConn makes what goes through a connection come later, as over a long way.
func farConn(near net.Conn, later time.Duration) net.Conn {
	ours, theirs := net.Pipe()
	carry := func(to, from net.Conn) {
		type piece struct {
			text []byte
			due  time.Time
		}
		way := make(chan piece, 1000)
		go func() {
			defer to.Close()
			for p := range way {
				time.Sleep(time.Until(p.due))
				if _, err := to.Write(p.text); err != nil {
					return
				}
			}
		}()
		defer close(way)
		for {
			text := make([]byte, 32<<10)
			n, err := from.Read(text)
			way <- piece{text[:n], time.Now().Add(later)}
			if err != nil {
				return
			}
		}
	}
	go carry(near, theirs)
	go carry(theirs, near)
	return ours
}

// BenchmarkSend sends messages to five people over a way that takes 10 ms there and back, as within a country.
func BenchmarkSend(b *testing.B) {
	for name, extensions := range map[string][]string{"one-by-one": nil, "together": pipelining} {
		b.Run(name, func(b *testing.B) {
			w := openSendWorld(b, "x.test. A 192.0.2.1")
			w.at("192.0.2.1:25", &remoteServer{extensions: extensions, took: func(remoteMail) {}})
			w.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := w.dialTest(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return farConn(conn, 5*time.Millisecond), nil
			}
			for b.Loop() {
				w.expect("", w.all(context.Background(), outgoing(sendTestText, recipients(5)...))[4], SendSent)
			}
		})
	}
}

// A connection that gathers says nothing and hears nothing, and sends all at once.
func TestPipeConn(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	p := &pipeConn{Conn: ours, mode: pipeGather}
	for range 3 {
		reply := make([]byte, 100)
		if _, err := io.WriteString(p, "NOOP\r\n"); err != nil {
			t.Fatal(err)
		}
		if n, err := p.Read(reply); err != nil || string(reply[:n]) != "250 ok\r\n" {
			t.Errorf("%q %v", reply[:n], err)
		}
	}
	heard := make(chan string)
	go func() {
		text := make([]byte, 100)
		n, _ := theirs.Read(text)
		heard <- string(text[:n])
		_, _ = io.WriteString(theirs, "220 real\r\n")
	}()
	if err := p.send(); err != nil {
		t.Fatal(err)
	}
	if got := <-heard; got != strings.Repeat("NOOP\r\n", 3) {
		t.Errorf("heard %q", got)
	}
	if _, err := io.WriteString(p, "NOOP\r\n"); err != nil { // would block if it went through
		t.Fatal(err)
	}
	reply := make([]byte, 100)
	if n, err := p.Read(reply); err != nil || string(reply[:n]) != "220 real\r\n" {
		t.Errorf("%q %v", reply[:n], err)
	}
}
