package main

import (
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
)

// What waits because port 25 is closed says so, and what helps, in the queue and in the sender's Outbox; with a spare relay
// it does not wait.
func TestSendWithPort25Closed(t *testing.T) {
	w := openOutWorld(t)
	w.adjust = func(s *Sender) { s.Closed = func() bool { return true } }
	w.reopen(1) // nobody listens there
	w.submit("", "Subject: waits\r\n", "<friend@friends.test>")
	reason := func() string { return w.Queue.List()[0].Recipients[0].Reason }
	w.until("the first try", func() bool { return w.Queue.List()[0].Recipients[0].Tries == 1 })
	if got := reason(); got != closedWords || !strings.Contains(got, "appliance relay set HOST USER") {
		t.Errorf("it waits for %q", got)
	}

	// One that is reached and refuses is not taken for that.
	w.next.mu.Lock()
	w.next.refuse = func(string) error { return &smtp.SMTPError{Code: 450, Message: "Come back later"} }
	w.next.mu.Unlock()
	w.reopen(w.next.port)
	if err := w.Queue.Retry(""); err != nil {
		t.Fatal(err)
	}
	w.until("the second try", func() bool { return w.Queue.List()[0].Recipients[0].Tries == 2 })
	if got := reason(); !strings.Contains(got, "Come back later") {
		t.Errorf("it waits for %q", got)
	}
}

func TestSpareRelay(t *testing.T) {
	closed := false
	own, spare := &Relay{Host: "own.example", Port: 465, User: "a"}, &Relay{Host: "spare.example", Port: 465, User: "b"}
	s := &Sender{Closed: func() bool { return closed }, Spare: func() *Relay { return spare }, Relay: func(from string) *Relay {
		if strings.HasSuffix(from, "@own.test") {
			return own
		}
		return nil
	}}
	check := func(from string, want string) {
		t.Helper()
		if got := s.Destination(from, "friends.test"); got != want {
			t.Errorf("%s, closed %v: %q, want %q", from, closed, got, want)
		}
	}
	check("ann@own.test", own.key())
	check("ann@other.test", "friends.test")
	closed = true
	check("ann@own.test", own.key())
	check("ann@other.test", spare.key())
	check("", spare.key())
	s.Relay = nil
	check("ann@own.test", spare.key())
	s.Spare = nil
	check("ann@own.test", "friends.test")
}
