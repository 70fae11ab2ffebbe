package main

// INPROGRESS (RFC 9585): a client that waits for a slow command is told that the server is at work.

import (
	"cmp"
	"time"
)

// imapProgressTime is how long a client waits before it is told how far a command is (RFC 9585 §3.1).
const imapProgressTime = 10 * time.Second

// progress tells a client that waits how far the search is: INPROGRESS (RFC 9585 §4).
func (m *matcher) progress() {
	if m.tag == "" {
		return
	}
	now := time.Now()
	if m.due.IsZero() || now.After(m.due) {
		if !m.due.IsZero() {
			m.s.write(appendString([]byte("* OK [INPROGRESS ("), m.tag, false))
			m.s.linef(" %d %d)] Searched %d%% of the mailbox", m.done, m.total, 100*m.done/m.total)
			m.s.c.Writer().Flush()
		}
		m.due = now.Add(cmp.Or(m.s.p.progress, imapProgressTime))
	}
}

// whileWorking tells the same of a command that says nothing of its progress, until stop is called. The session writes
// nothing meanwhile.
func (s *imapSession) whileWorking(tag string) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(cmp.Or(s.p.progress, imapProgressTime))
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				s.write(appendString([]byte("* OK [INPROGRESS ("), tag, false))
				s.line(" NIL NIL)] Still at work")
				s.c.Writer().Flush()
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}
