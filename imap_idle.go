package main

// IDLE (RFC 2177, RFC 9051 §6.3.13): the session's goroutine waits for DONE while changes are pushed by a goroutine that
// lives only as long as there is something to push. Under NOTIFY the same goes for the time between commands. A session
// that waits holds no buffers.

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
)

// idleState is what the session's goroutine and a push share while the session waits.
type idleState struct {
	s       *imapSession
	changed func() // given to the store's views and watches

	mu      sync.Mutex
	active  bool // the session waits: pushes may use it
	expunge bool // the client may be told of removed messages meanwhile
	pushing bool // a push is running
	again   bool // there may be more for it to do
	broken  bool // a push has panicked: the view cannot be trusted
	ended   *sync.Cond
}

func (i *idleState) init(s *imapSession) {
	i.s = s
	i.changed = i.onChange
	i.ended = sync.NewCond(&i.mu)
}

// onChange is called by the store when there may be something new. It does not block.
func (i *idleState) onChange() {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case !i.active:
	case i.pushing:
		i.again = true
	default:
		i.pushing = true
		go i.push()
	}
}

// push tells the client what is new until nothing is.
func (i *idleState) push() {
	defer func() {
		if cause := recover(); cause != nil {
			i.s.c.Log.Error("panic in a session", "protocol", "imap", "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
			i.mu.Lock()
			i.broken, i.active, i.pushing = true, false, false
			i.ended.Broadcast()
			i.mu.Unlock()
		}
	}()
	for {
		if i.s.view == nil || i.s.refreshRights() == nil {
			i.s.update(i.expunge)
		}
		i.s.sayBye()
		err := i.s.c.Writer().Flush()
		i.s.c.ReleaseWriter()
		if i.s.done = i.s.done || err != nil; i.s.done { // RFC 9051 §7.1.5: after BYE the server closes, and does not wait for the client
			i.s.c.StopReading()
		}
		i.mu.Lock()
		if !i.again || !i.active || i.s.done {
			i.pushing = false
			i.active = i.active && !i.s.done // a later change would be told behind BYE
			i.ended.Broadcast()
			i.mu.Unlock()
			return
		}
		i.again = false
		i.mu.Unlock()
	}
}

// start lets pushes run, beginning with one for what has changed up to now.
func (i *idleState) start(expunge bool) {
	i.mu.Lock()
	i.active, i.again, i.expunge = true, false, expunge
	i.mu.Unlock()
	i.onChange()
}

// wait ends the pushing; when it returns none is running.
func (i *idleState) wait() (broken bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.active = false
	for i.pushing {
		i.ended.Wait()
	}
	return i.broken
}

// idleCommand is IDLE. When the session ends during it, BYE has been said or is said by farewell.
func (s *imapSession) idleCommand(cmd *imapCommand) error {
	if err := cmd.end(); err != nil {
		return err
	}
	s.line("+ idling")
	s.c.Writer().Flush()
	line, err := s.readDone()
	switch {
	case errors.Is(err, errCommandTooLong):
		return imapBad("A line may have %d bytes", imapMaxLine)
	case err != nil:
		return err
	case !strings.EqualFold(line, "DONE"):
		return imapBad("IDLE is ended with DONE")
	}
	return nil
}

// readDone waits for the line that ends IDLE, while changes are pushed.
func (s *imapSession) readDone() (string, error) {
	if err := s.await(true, s.wantsMessages()); err != nil {
		return "", err
	}
	err := s.in.readLine()
	return string(s.in.line), err
}

// await flushes what is written and blocks until the client has sent something. With push, changes are pushed meanwhile,
// with expunge removed messages as well.
func (s *imapSession) await(push, expunge bool) error {
	if s.c.Reader().Buffered() > 0 {
		return nil
	}
	s.c.Writer().Flush()
	s.in.line = nil
	s.c.ReleaseBuffers()
	if push {
		s.idle.start(expunge)
	}
	s.in.err = s.c.WaitInput()
	if push && s.idle.wait() {
		s.done, s.bye = true, "The server has failed"
	}
	return s.in.err
}
