package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// sender is an SMTP connection. It sends MAIL, RCPT and DATA together, as other servers do (RFC 2920).
type sender struct {
	net.Conn
	r        *bufio.Reader
	envelope string
	text     string // with dots doubled and the end
}

func (t *target) sender(to string) (*sender, error) {
	raw, err := net.Dial("tcp", t.smtp)
	if err != nil {
		return nil, err
	}
	s := &sender{Conn: raw, r: bufio.NewReader(raw), text: smallMessage() + ".\r\n"}
	s.envelope = "MAIL FROM:<bench@example.com>\r\nRCPT TO:<" + to + ">\r\nDATA\r\n"
	if err = s.expect("220"); err == nil {
		err = s.say("EHLO bench.example.com\r\n", "250")
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return s, nil
}

// expect reads replies that must begin so.
func (s *sender) expect(codes ...string) error {
	for _, code := range codes {
		for more := true; more; {
			line, err := s.r.ReadSlice('\n')
			if err != nil {
				return err
			}
			if len(line) < 4 || string(line[:3]) != code {
				return fmt.Errorf("SMTP: %s is wanted, not %s", code, strings.TrimSpace(string(line)))
			}
			more = line[3] == '-'
		}
	}
	return nil
}

func (s *sender) say(text string, codes ...string) error {
	if _, err := io.WriteString(s, text); err != nil {
		return err
	}
	return s.expect(codes...)
}

// send delivers one message.
func (s *sender) send() error {
	if err := s.say(s.envelope, "250", "250", "354"); err != nil {
		return err
	}
	return s.say(s.text, "250")
}

func (s *sender) quit() {
	_ = s.say("QUIT\r\n", "221") // all that was measured is done
	s.Close()
}

// deliver sends n messages over each of some connections at once.
func (t *target) deliver(connections, n int) error {
	return atOnce(connections, func() error {
		s, err := t.sender(t.post)
		if err != nil {
			return err
		}
		defer s.quit()
		for range n {
			if err := s.send(); err != nil {
				return err
			}
		}
		return nil
	})
}

// accepting measures how many messages a second are accepted, and how many have come to the mailbox.
func (t *target) accepting() error {
	c, err := t.selected(t.post, "INBOX")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := t.deliver(1, 20); err != nil { // so that all is loaded
		return err
	}
	for _, connections := range []int{1, 8} {
		n := t.deliveries
		if connections > 1 {
			n = 2 * n / connections
		}
		before, err := t.arrived(c, 0)
		if err != nil {
			return err
		}
		start := time.Now()
		if err := t.deliver(connections, n); err != nil {
			return err
		}
		t.print(fmt.Sprintf("smtp_%d", connections), float64(n*connections)/time.Since(start).Seconds())
		if _, err := t.arrived(c, before+n*connections); err != nil {
			return err
		}
		t.print(fmt.Sprintf("smtp_arrived_%d", connections), float64(n*connections)/time.Since(start).Seconds())
	}
	return nil
}

// arrivalWait is how long a server may take to bring what it has accepted into the mailbox.
const arrivalWait = 5 * time.Minute

// arrived waits until the mailbox has as many messages, or, for none, until their number stands still for a second.
func (t *target) arrived(c *client, want int) (int, error) {
	const pause = 20 * time.Millisecond
	last, same := -1, time.Now()
	for end := time.Now().Add(arrivalWait); time.Now().Before(end); time.Sleep(pause) {
		if _, err := c.do("NOOP"); err != nil {
			return 0, err
		}
		n, err := c.messages("INBOX")
		if err != nil || want > 0 && n >= want {
			return n, err
		}
		if n != last {
			last, same = n, time.Now()
		}
		if want == 0 && time.Since(same) > time.Second {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%d of %d messages have arrived in %v", last, want, arrivalWait)
}

// noticing measures how long a session that idles waits for the news of a message: from before the last line of DATA is
// sent, and from the 250 on, which may come after it.
func (t *target) noticing() error {
	c, err := t.selected(t.post, "INBOX")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.idle(); err != nil {
		return err
	}
	s, err := t.sender(t.post)
	if err != nil {
		return err
	}
	defer s.quit()
	for range t.notices {
		if err := t.notice(c, s); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return c.done()
}

func (t *target) notice(c *client, s *sender) error {
	seen, failed := make(chan time.Time, 1), make(chan error, 1)
	go func() {
		for {
			line, err := c.line()
			if err != nil {
				failed <- err
				return
			}
			if strings.HasSuffix(line, " EXISTS") {
				seen <- time.Now()
				return
			}
		}
	}()
	if err := s.say(s.envelope, "250", "250", "354"); err != nil {
		return err
	}
	if _, err := io.WriteString(s, strings.TrimSuffix(s.text, ".\r\n")); err != nil {
		return err
	}
	sent := time.Now()
	if err := s.say(".\r\n", "250"); err != nil {
		return err
	}
	accepted := time.Now()
	select {
	case at := <-seen:
		t.print("notice_from_dot", at.Sub(sent).Seconds())
		t.print("notice_from_reply", at.Sub(accepted).Seconds())
		return nil
	case err := <-failed:
		return err
	case <-time.After(arrivalWait):
		return fmt.Errorf("no EXISTS in %v", arrivalWait)
	}
}
