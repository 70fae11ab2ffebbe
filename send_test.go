package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSendHosts(t *testing.T) {
	w := openSendWorld(t, `
		order.test.   MX 20 second.order.test.
		order.test.   MX 10 first.order.test.
		order.test.   MX 30 third.order.test.
		first.order.test.  A 192.0.2.1
		second.order.test. A 192.0.2.2
		second.order.test. A 192.0.2.2
		third.order.test.  A 192.0.2.3
		plain.test.   A 192.0.2.4
		plain6.test.  AAAA 2001:db8::4
		null.test.    MX 0 .
		ours.test.    MX 10 mail.home.test.
		ours.test.    MX 20 first.order.test.
		backup.test.  MX 10 first.order.test.
		backup.test.  MX 20 mail.home.test.
		backup.test.  MX 20 third.order.test.
		text.test.    TXT "no mail here"
		lame.test.    MX 10 nowhere.test.
		xn--bcher-kva.test. A 192.0.2.2
	`)
	second := w.at("192.0.2.2:25", &remoteServer{})
	w.at("192.0.2.4:25", second)
	w.at("[2001:db8::4]:25", second)
	for _, c := range []struct {
		to, tries string
		state     SendState
		parts     []string
	}{
		{"x@order.test", "192.0.2.1:25 192.0.2.2:25", SendSent, []string{"second.order.test [192.0.2.2]", "250 ", "taken as 4711"}},
		{"x@plain.test", "192.0.2.4:25", SendSent, nil},
		{"x@plain6.test", "[2001:db8::4]:25", SendSent, []string{"plain6.test [2001:db8::4]"}},
		{"x@bücher.test", "192.0.2.2:25", SendSent, nil},
		{"x@[192.0.2.4]", "192.0.2.4:25", SendSent, []string{"[192.0.2.4]"}},
		{"x@[IPv6:2001:db8::4]", "[2001:db8::4]:25", SendSent, nil},
		{"x@null.test", "", SendFailed, []string{"5.1.10", "null.test takes no mail"}},
		{"x@ours.test", "", SendFailed, []string{"5.4.6", "not set up here"}},
		{"x@backup.test", "192.0.2.1:25", SendWaiting, []string{"refuses connections"}},
		{"x@text.test", "", SendFailed, []string{"5.1.2", "There is no mail domain text.test"}},
		{"x@missing.test", "", SendFailed, []string{"5.1.2", "misspelt"}},
		{"x@lame.test", "", SendWaiting, []string{"4.4.3", "no address of nowhere.test"}},
	} {
		o := w.one(outgoing(sendTestText, c.to))
		w.expect(c.to, o, c.state, c.parts...)
		if got := w.tries(); got != c.tries {
			t.Errorf("%s: tried %q, want %q", c.to, got, c.tries)
		}
		if o.Unreachable != (c.state == SendWaiting) {
			t.Errorf("%s: unreachable: %v", c.to, o.Unreachable)
		}
	}
	w.dns.set(func(s *testDNS) { s.broken["order.test."] = true })
	w.expect("a broken DNS", w.one(outgoing(sendTestText, "x@order.test")), SendWaiting, "4.4.3", "does not tell")
}

// A server that says 421 or breaks off sends us to the next one; one that refuses does not.
func TestSendNextHost(t *testing.T) { bothWays(t, testSendNextHost) }

func testSendNextHost(t *testing.T, extensions []string) {
	for name, c := range map[string]struct {
		answer func(c *remoteConn, line string) string
		next   bool
		state  SendState
		text   string
	}{
		"421 greeting":      {at("", "421 4.3.2 not now"), true, SendSent, ""},
		"554 greeting":      {at("", "554 5.7.1 not you"), true, SendSent, ""},
		"broken greeting":   {hangUpAt(""), true, SendSent, ""},
		"421 at MAIL":       {at("MAIL", "421 4.3.2 closing"), true, SendSent, ""},
		"broken at RCPT":    {hangUpAt("RCPT"), true, SendSent, ""},
		"421 in the end":    {at(".", "421 4.3.2 closing"), true, SendSent, ""},
		"broken in the end": {hangUpAt("."), false, SendWaiting, "4.4.2"},
		"broken in DATA":    {hangUpAt("DATA"), true, SendSent, ""},
		"later at MAIL":     {at("MAIL", "451 4.7.1 greylisted"), false, SendWaiting, "451 4.7.1 first.test [192.0.2.1]: greylisted"},
		"refused at MAIL":   {at("MAIL", "550 5.7.1 not from you"), false, SendFailed, "not from you"},
		"refused at RCPT":   {at("RCPT", "550 5.1.1 nobody\r\n"), false, SendFailed, "550 5.1.1"},
		"refused DATA":      {at("DATA", "554 5.6.0 no"), false, SendFailed, "554 5.6.0"},
		"refused in full":   {at(".", "550-5.7.1 spam\r\n550 5.7.1 see http://x.test/"), false, SendFailed, "spam\nsee http://x.test/"},
		"no sense at EHLO":  {at("EHLO", "999 what"), true, SendSent, ""},
		"HELO alone":        {at("EHLO", "502 5.5.1 what"), false, SendSent, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := openSendWorld(t, "x.test. MX 1 first.test.\nx.test. MX 2 second.test.\nfirst.test. A 192.0.2.1\nsecond.test. A 192.0.2.2")
			first, second := w.at("192.0.2.1:25", &remoteServer{extensions: extensions, answer: c.answer}), w.at("192.0.2.2:25", &remoteServer{extensions: extensions})
			o := w.one(outgoing(sendTestText, "x@x.test"))
			w.expect(name, o, c.state, c.text)
			if got := strings.Contains(o.Remote, "second"); got != c.next {
				t.Errorf("outcome of %s", o.Remote)
			}
			if n := len(second.got()); n != 0 && !c.next || n != 1 && c.next {
				t.Errorf("the second server has %d messages", n)
			}
			if c.state != SendSent && o.Unreachable && !o.Unsure {
				t.Error("what was answered is no reason to leave the others alone")
			}
			_ = first
		})
	}
}

// at gives an answer to commands that begin so.
func at(prefix, text string) func(*remoteConn, string) string {
	return func(_ *remoteConn, line string) string {
		if line == prefix || prefix != "" && strings.HasPrefix(line, prefix) {
			return text
		}
		return ""
	}
}

// hangUpAt closes the connection there.
func hangUpAt(prefix string) func(*remoteConn, string) string {
	return func(c *remoteConn, line string) string {
		if line == prefix || prefix != "" && strings.HasPrefix(line, prefix) {
			c.Close()
		}
		return ""
	}
}

func TestSendFamilies(t *testing.T) {
	w := openSendWorld(t, `
		x.test.    MX 1 mx.test.
		mx.test.   A 192.0.2.1
		mx.test.   A 192.0.2.2
		mx.test.   AAAA 2001:db8::1
		mx.test.   AAAA 2001:db8::2
		mx.test.   AAAA 2001:db8::3
		six.test.  AAAA 2001:db8::9
	`)
	w.at("[2001:db8::9]:25", &remoteServer{})
	w.one(outgoing(sendTestText, "x@x.test"))
	if got := w.tries(); got != "[2001:db8::1]:25 192.0.2.1:25 [2001:db8::2]:25 192.0.2.2:25 [2001:db8::3]:25" {
		t.Errorf("both families: %s", got)
	}
	w.NoIPv6 = func() bool { return true }
	w.one(outgoing(sendTestText, "x@x.test"))
	if got := w.tries(); got != "192.0.2.1:25 192.0.2.2:25" {
		t.Errorf("without IPv6: %s", got)
	}
	w.expect("nothing but IPv6", w.one(outgoing(sendTestText, "x@six.test")), SendSent)
}

// One recipient refused of many, one put off, one that cannot be said; and then the next message over the same connection.
func TestSendRecipients(t *testing.T) { bothWays(t, testSendRecipients) }

// bothWays runs a test with servers that want one command at a time, and with servers that take several together.
func bothWays(t *testing.T, test func(t *testing.T, extensions []string)) {
	t.Run("one by one", func(t *testing.T) { test(t, nil) })
	t.Run("together", func(t *testing.T) { test(t, []string{"PIPELINING", "ENHANCEDSTATUSCODES"}) })
}

func testSendRecipients(t *testing.T, extensions []string) {
	w := openSendWorld(t, "x.test. A 192.0.2.1")
	s := w.at("192.0.2.1:25", &remoteServer{extensions: extensions, answer: func(_ *remoteConn, line string) string {
		switch {
		case strings.HasPrefix(line, "RCPT TO:<b@"):
			return "550 5.1.1 nobody called b"
		case strings.HasPrefix(line, "RCPT TO:<c@"):
			return "452 4.2.2 c is full"
		}
		return ""
	}})
	got := w.all(context.Background(), outgoing(sendTestText, "a@x.test", "b@x.test", "c@x.test", "d\r\n@x.test", "e@x.test"))
	for i, want := range []SendState{SendSent, SendFailed, SendWaiting, SendFailed, SendSent} {
		w.expect(fmt.Sprint("recipient ", i), got[i], want)
	}
	w.expect("refused", got[1], SendFailed, "550 5.1.1 x.test [192.0.2.1]: nobody called b")
	w.expect("put off", got[2], SendWaiting, "452 4.2.2", "c is full")
	odd := outgoing(sendTestText, "a@x.test") // what cannot be said is left out, and nobody else is to blame
	odd.Envelope.EnvelopeID, odd.Envelope.Recipients[0].Original = "a\x01b", "rfc822;a\x01@x.test"
	w.expect("next", w.one(odd), SendSent)
	w.expect("all refused", w.one(outgoing(sendTestText, "b@x.test")), SendFailed, "nobody called b")
	w.expect("and one more", w.one(outgoing(sendTestText, "a@x.test")), SendSent)
	s.mu.Lock()
	conns, lines := s.conns, strings.Join(s.lines, "\n")
	s.mu.Unlock()
	mails := slices.DeleteFunc(s.got(), func(m remoteMail) bool { return m.text == "" }) // a lone dot, for nobody
	if n := strings.Count(lines, "RSET"); conns != 1 || n != 1 || len(mails) != 3 {
		t.Errorf("%d connections, %d RSET, %d messages:\n%s", conns, n, len(mails), lines)
	}
	if rcpts := mails[0].rcpts; len(rcpts) != 4 || rcpts[3] != "RCPT TO:<e@x.test>" {
		t.Errorf("recipients: %q", rcpts)
	}
}

// 421 in the middle of the recipients: what was refused before stays so, the others wait.
func TestSendClosedAmongRecipients(t *testing.T) { bothWays(t, testSendClosedAmongRecipients) }

func testSendClosedAmongRecipients(t *testing.T, extensions []string) {
	w := openSendWorld(t, "x.test. A 192.0.2.1")
	w.at("192.0.2.1:25", &remoteServer{extensions: extensions, answer: func(_ *remoteConn, line string) string {
		switch {
		case strings.HasPrefix(line, "RCPT TO:<a@"):
			return "550 5.1.1 nobody"
		case strings.HasPrefix(line, "RCPT TO:<c@"):
			return "421 4.3.2 going down"
		}
		return ""
	}})
	got := w.all(context.Background(), outgoing(sendTestText, "a@x.test", "b@x.test", "c@x.test"))
	w.expect("refused before", got[0], SendFailed, "550")
	w.expect("taken before", got[1], SendWaiting, "421 4.3.2", "going down")
	w.expect("at the end", got[2], SendWaiting, "421")
}

// Connections are used again, for 100 messages; one that the other side has closed meanwhile is no failure.
func TestSendReuse(t *testing.T) { bothWays(t, testSendReuse) }

func testSendReuse(t *testing.T, extensions []string) {
	w := openSendWorld(t, "x.test. A 192.0.2.1")
	s := w.at("192.0.2.1:25", &remoteServer{extensions: extensions})
	for range sendPerConn + 1 {
		w.expect("message", w.one(outgoing(sendTestText, "a@x.test")), SendSent)
	}
	s.mu.Lock()
	if s.conns != 2 {
		t.Errorf("%d connections", s.conns)
	}
	s.mu.Unlock()
	closing := w.at("192.0.2.1:25", &remoteServer{extensions: extensions, answer: func(c *remoteConn, line string) string {
		if line == "." {
			time.AfterFunc(time.Millisecond, func() { c.Close() })
		}
		return ""
	}})
	w.Close()
	w.closed, w.idle = false, nil
	for range 20 {
		w.expect("after a close", w.one(outgoing(sendTestText, "a@x.test")), SendSent)
		time.Sleep(2 * time.Millisecond) // either may come first
	}
	if n := len(closing.got()); n != 20 {
		t.Errorf("%d messages arrived", n)
	}
}

// Every way to keep us waiting ends.
func TestSendPatience(t *testing.T) { bothWays(t, testSendPatience) }

func testSendPatience(t *testing.T, extensions []string) {
	drip := func(c *remoteConn) string { // one reply that never ends
		for {
			if _, err := c.Write([]byte("2")); err != nil {
				return remoteSilence
			}
			time.Sleep(time.Millisecond)
		}
	}
	chatter := func(c *remoteConn) string {
		line := []byte(strings.Repeat("250-more and more\r\n", 100))
		for {
			if _, err := c.Write(line); err != nil {
				return remoteSilence
			}
		}
	}
	large := sendTestText + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 200_000)
	for name, c := range map[string]struct {
		answer func(c *remoteConn, line string) string
		text   string
		why    string
	}{
		"silent greeting": {at("", remoteSilence), sendTestText, "did not answer in time"},
		"silent EHLO":     {at("EHLO", remoteSilence), sendTestText, "did not answer in time"},
		"silent MAIL":     {at("MAIL", remoteSilence), sendTestText, "did not answer in time"},
		"silent RCPT":     {at("RCPT", remoteSilence), sendTestText, "did not answer in time"},
		"silent DATA":     {at("DATA", remoteSilence), sendTestText, "did not answer in time"},
		"silent end":      {at(".", remoteSilence), sendTestText, "did not answer in time"},
		"a reply in drops": {func(c *remoteConn, line string) string {
			if strings.HasPrefix(line, "MAIL") {
				return drip(c)
			}
			return ""
		}, sendTestText, "does not speak SMTP as it should"},
		"an endless reply": {func(c *remoteConn, line string) string {
			if strings.HasPrefix(line, "EHLO") {
				return chatter(c)
			}
			return ""
		}, sendTestText, "more than a mail server has to say"},
		"a slow reader": {func(c *remoteConn, line string) string {
			if line == "DATA" {
				_, _ = io.WriteString(c, "354 go ahead\r\n")
				one := make([]byte, 1)
				for {
					if _, err := c.Read(one); err != nil {
						return remoteSilence
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
			return ""
		}, large, "did not answer in time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := openSendWorld(t, "x.test. A 192.0.2.1")
			w.limits = sendLimits{connect: time.Second, command: 200 * time.Millisecond, final: 200 * time.Millisecond, write: 300 * time.Millisecond,
				whole: 20 * time.Second, grace: time.Second, idle: time.Second}
			if strings.Contains(c.why, "more than") {
				w.limits.command = 20 * time.Second
			}
			w.at("192.0.2.1:25", &remoteServer{extensions: extensions, answer: c.answer})
			o := w.one(outgoing(c.text, "x@x.test"))
			w.expect(name, o, SendWaiting, "x.test [192.0.2.1]", c.why)
			if !o.Unreachable {
				t.Error("others for it would fare no better")
			}
		})
	}
}

// A server that answers each command just in time does not hold a connection for ever.
func TestSendWholeLimit(t *testing.T) {
	w := openSendWorld(t, "x.test. A 192.0.2.1")
	w.limits.whole = 200 * time.Millisecond
	s := w.at("192.0.2.1:25", &remoteServer{answer: func(_ *remoteConn, line string) string {
		if strings.HasPrefix(line, "RCPT") {
			time.Sleep(50 * time.Millisecond)
		}
		return ""
	}})
	var to []string
	for i := range 100 {
		to = append(to, fmt.Sprintf("r%d@x.test", i))
	}
	o := w.all(context.Background(), outgoing(sendTestText, to...))
	w.expect("last", o[99], SendWaiting, "took too long")
	if n := s.said("RCPT"); n > 20 {
		t.Errorf("%d recipients were named", n)
	}
}

// The end of the appliance breaks tries off, but for the reply to a message that is sent whole.
func TestSendShutdown(t *testing.T) {
	w := openSendWorld(t, "x.test. A 192.0.2.1\ny.test. A 192.0.2.2")
	ctx, cancel := context.WithCancel(context.Background())
	w.at("192.0.2.1:25", &remoteServer{answer: func(_ *remoteConn, line string) string {
		if strings.HasPrefix(line, "RCPT TO:<r1@") {
			cancel()
			return remoteSilence
		}
		return ""
	}})
	got := w.all(ctx, outgoing(sendTestText, "r0@x.test", "r1@x.test", "r2@x.test"))
	w.expect("broken off", got[0], SendWaiting)
	ctx, cancel = context.WithCancel(context.Background())
	s := w.at("192.0.2.2:25", &remoteServer{answer: func(_ *remoteConn, line string) string {
		if line == "." {
			cancel()
			time.Sleep(20 * time.Millisecond)
		}
		return ""
	}})
	got = w.all(ctx, outgoing(sendTestText, "r@y.test"))
	w.expect("sent whole", got[0], SendSent)
	if len(s.got()) != 1 {
		t.Error("it has not arrived")
	}
}

func TestInTurns(t *testing.T) {
	addrs := func(s string) (list []netip.Addr) {
		for _, a := range strings.Fields(s) {
			list = append(list, netip.MustParseAddr(a))
		}
		return list
	}
	for _, c := range []struct{ in, both, noIPv6 string }{
		{"", "", ""},
		{"1.1.1.1 1.1.1.2", "1.1.1.1 1.1.1.2", "1.1.1.1 1.1.1.2"},
		{"::1 ::2", "::1 ::2", "::1 ::2"},
		{"1.1.1.1 1.1.1.2 ::1", "::1 1.1.1.1 1.1.1.2", "1.1.1.1 1.1.1.2"},
	} {
		for noIPv6, want := range map[bool]string{false: c.both, true: c.noIPv6} {
			if got := inTurns(addrs(c.in), noIPv6); fmt.Sprint(got) != fmt.Sprint(addrs(want)) {
				t.Errorf("%s, %v: %v", c.in, noIPv6, got)
			}
		}
	}
}
