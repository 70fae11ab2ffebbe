package main

// What keeps those who flood port 25, or try out which addresses there are, from doing much of it. Nothing here holds for
// this machine, the LAN, or the ports on which people log in.

import (
	"context"

	"github.com/emersion/go-smtp"
)

// stranger says whether the session is from beyond the LAN, on port 25.
func (s *smtpSession) stranger() bool { return !s.submission && !isNear(s.c.Remote) }

// tarpit makes whoever has made mistakes wait, the longer the more there were. What was said before is sent first: each reply
// comes in time for a client that waits for it. Meanwhile there is nothing but the connection.
func tarpit(ctx context.Context, c *Conn, p *Protocols) {
	if isNear(c.Remote) {
		return
	}
	delay := c.env.strangers.Delay(c.Remote)
	if delay == 0 {
		return
	}
	if c.w != nil {
		_ = c.Writer().Flush() // the error comes again at the next flush
	}
	c.ReleaseBuffers()
	p.wait(c, ctx, delay)
}

// mistaken counts a reply of 5xx.
func (s *smtpSession) mistaken() {
	if s.stranger() {
		s.c.env.strangers.Mistake(s.c.Remote)
	}
}

// unknown refuses a recipient that is not here. The session ends after too many of them.
func (s *smtpSession) unknown(addr Address) error {
	s.harvested()
	return s.refuse(550, smtp.EnhancedCode{5, 1, 1}, "There is no %s here", addr)
}

// harvested counts a recipient for whom a stranger has asked in vain.
func (s *smtpSession) harvested() {
	if s.stranger() && s.c.env.strangers.Unknown(s.c.Remote) {
		s.away = true
		s.tell("asked for too many people who are not here")
	}
}

// tooFast refuses the next message of a stranger who sends too many. The session ends with it.
func (s *smtpSession) tooFast() error {
	if !s.stranger() || s.c.env.strangers.Message(s.c.Remote) {
		return nil
	}
	s.tell("too many messages within a minute")
	return smtpReply(421, smtp.EnhancedCode{4, 7, 0}, "Too many messages from your address within a minute, try again later")
}

// tooMany refuses the next recipient of a stranger who sends to too many.
func (s *smtpSession) tooMany() error {
	if !s.stranger() || s.c.env.strangers.Recipient(s.c.Remote) {
		return nil
	}
	s.tell("too many recipients within a minute")
	return smtpReply(451, smtp.EnhancedCode{4, 7, 0}, "Too many recipients from your address within a minute, try again later")
}

// tell logs a refusal, the first of a spell alone.
func (s *smtpSession) tell(reason string) {
	if s.c.env.strangers.Tell(s.c.Remote) {
		from, to := s.whom()
		s.c.Log.Warn("rejected", "protocol", "smtp", "reason", reason, "from", from, "to", to)
	}
}
