package main

// SMTP and message submission: RFC 5321 and RFC 6409, with STARTTLS (RFC 3207),
// AUTH (RFC 4954), PIPELINING (RFC 2920), SIZE (RFC 1870), 8BITMIME (RFC 6152),
// CHUNKING (RFC 3030), SMTPUTF8 (RFC 6531) and ENHANCEDSTATUSCODES (RFC 2034);
// submission also DSN (RFC 3461) and REQUIRETLS (RFC 8689).
//
// The protocol is spoken by go-smtp's server; smtp_wire.go lies beneath it, and
// what is here decides.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"
)

// smtpMaxRecipients is how many RCPT commands a message may have; RFC 5321
// §4.5.3.1.8 demands 100 at least.
const smtpMaxRecipients = 500

// serveSMTP serves a session on port 25: mail for local recipients from anyone.
func serveSMTP(ctx context.Context, c *Conn, p *Protocols) {
	c.SetIdle(smtpIdle)
	c.raw.setEnd(time.Time{}) // nobody logs in here; smtpSession.expired sees to it
	tarpit(ctx, c, p)         // before the greeting
	runSMTP(ctx, c, p, false)
}

// serveSubmission serves a session on port 465 or 587: mail from the people of
// the appliance.
func serveSubmission(ctx context.Context, c *Conn, p *Protocols) {
	runSMTP(ctx, c, p, true)
}

// smtpSession decides about one SMTP session, from EHLO to the end or to STARTTLS.
type smtpSession struct {
	ctx        context.Context
	w          *smtpWire
	c          *Conn
	p          *Protocols
	submission bool

	account  string // who has logged in, "" for nobody
	via      string // with which password, as in Identity
	failures int    // logins that failed
	since    time.Time
	away     bool // a stranger who has to go
	asked    atomic.Pointer[smtpAsked]

	running sync.WaitGroup // Data
	mu      sync.Mutex     // of what follows; Data may run beside the commands
	mail    smtpMail
	begun   chan struct{} // closed when Data has taken the mail over
}

// smtpAsked is what a client asks for at the moment, for the log.
type smtpAsked struct {
	from, to string
	mail     *smtpMail // with DATA, in place of both
}

// whom gives the addresses that the log names with a refusal.
func (s *smtpSession) whom() (from, to string) {
	asked := s.asked.Load()
	switch {
	case asked == nil:
		return "", ""
	case asked.mail == nil:
		return asked.from, asked.to
	}
	var list []string
	for _, addr := range asked.mail.rcpts {
		list = append(list, addr.String())
	}
	return asked.mail.reversePath(), strings.Join(list, " ")
}

// smtpMail is a message's envelope.
type smtpMail struct {
	given    bool // MAIL was accepted
	from     Address
	null     bool // the null reverse-path
	utf8     bool
	size     int64     // as announced (RFC 1870), 0: it was not
	helo     string    // what the client calls itself
	with     string    // the protocol's name in Received
	rcpts    []Address // each once, as given
	env      Envelope  // of the same recipients, for the queue
	outside  int       // recipients whose mail is not kept here
	queued   bool      // it goes by the queue
	bounce   bool      // of forwarded mail, to its sender elsewhere
	accounts []string  // that they reach, each once
	commands int       // RCPTs that were accepted, repetitions included
}

func newSMTPSession(ctx context.Context, w *smtpWire, submission bool) *smtpSession {
	return &smtpSession{
		ctx: ctx, w: w, c: w.c, p: w.p, submission: submission,
		since: time.Now(), begun: make(chan struct{}),
	}
}

// smtpReply makes a reply that is no error of ours.
func smtpReply(code int, enhanced smtp.EnhancedCode, format string, args ...any) *smtp.SMTPError {
	return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: fmt.Sprintf(format, args...)}
}

// refuse logs and makes a reply that refuses.
func (s *smtpSession) refuse(code int, enhanced smtp.EnhancedCode, format string, args ...any) *smtp.SMTPError {
	reply := smtpReply(code, enhanced, format, args...)
	from, to := s.whom()
	s.c.Log.Info("rejected", "protocol", "smtp", "account", s.account, "from", from, "to", to,
		"code", code, "status", fmt.Sprintf("%d.%d.%d", enhanced[0], enhanced[1], enhanced[2]), "reason", reply.Message)
	return reply
}

// failed logs an error of ours and makes the reply, which does not tell it.
func (s *smtpSession) failed(doing string, err error) *smtp.SMTPError {
	from, to := s.whom()
	s.c.Log.Error(smtpFailure, "doing", doing, "error", err, "from", from, "to", to)
	if errors.Is(err, ErrDiskFull) {
		return smtpReply(452, smtp.EnhancedCode{4, 3, 1}, "The disk is full, try again later")
	}
	return smtpReply(451, smtp.EnhancedCode{4, 3, 0}, "That cannot be done at the moment, try again later")
}

// expired says that a client has been here for long without a login or a message.
func (s *smtpSession) expired() bool {
	return s.account == "" && time.Since(s.since) > s.c.env.limits.Session
}

// Reset forgets the message; go-smtp calls it for RSET, EHLO and after a message.
func (s *smtpSession) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.p.Flood.GiveBack(Identity{s.account, s.via}, s.mail.outside)
	s.mail = smtpMail{}
	s.begun = make(chan struct{})
}

// Logout ends the session. What it holds is given back by Data.
func (s *smtpSession) Logout() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.p.Flood.GiveBack(Identity{s.account, s.via}, s.mail.outside)
	s.mail.outside = 0
	return nil
}

// ready says that a message has its envelope.
func (s *smtpSession) ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mail.given && len(s.mail.rcpts) > 0
}

// awaitData waits until Data has taken the mail over, if it is going to.
func (s *smtpSession) awaitData() {
	s.mu.Lock()
	ready, begun := s.mail.given && len(s.mail.rcpts) > 0, s.begun
	s.mu.Unlock()
	if ready {
		<-begun
	}
}

// Mail takes the reverse-path of a message.
func (s *smtpSession) Mail(from string, opts *smtp.MailOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c.Begins("MAIL")
	s.asked.Store(&smtpAsked{from: from})
	switch {
	case s.mail.given:
		return smtpReply(503, smtp.EnhancedCode{5, 5, 1}, "A sender was given already, say RSET first")
	case s.submission && s.account == "":
		return s.refuse(530, smtp.EnhancedCode{5, 7, 0}, "Log in first")
	case opts.Size > s.p.MaxSize:
		return s.refuse(552, smtp.EnhancedCode{5, 3, 4}, "A message is %d octets at most", s.p.MaxSize)
	}
	if err := s.tooFast(); err != nil {
		return err
	}
	env, err := s.envelope(opts)
	if err != nil {
		return err
	}
	mail := smtpMail{given: true, env: env, null: from == "", utf8: opts.UTF8, size: opts.Size, helo: s.w.helo(), with: s.with(opts.UTF8)}
	if mail.null {
		s.mail = mail
		return nil
	}
	addr, err := envelopeAddress(from, opts.UTF8)
	if err != nil {
		return s.badAddress(err, 7)
	}
	if s.submission && !s.p.Accounts.Owns(s.account, addr) {
		return s.refuse(553, smtp.EnhancedCode{5, 7, 1}, "%s is not an address of %s%s", addr, s.account, s.wayToSend(addr))
	}
	mail.from = addr
	mail.env.From = queueAddress(addr)
	s.mail = mail
	return nil
}

// wayToSend tells, where an address is elsewhere, how somebody comes to send with it.
func (s *smtpSession) wayToSend(addr Address) string {
	if s.p.Accounts.IsLocalDomain(addr.Domain) {
		return ""
	}
	return "; `appliance user sender add` lets somebody send with an address elsewhere"
}

// errNeedUTF8 says that an address needs SMTPUTF8 (RFC 6531 §3.5).
var errNeedUTF8 = errors.New("address is not ASCII")

// envelopeAddress reads an address as go-smtp gives it: without its quotes.
func envelopeAddress(s string, utf8 bool) (Address, error) {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return Address{}, ErrBadAddress
	}
	a := Address{Local: s[:i], Domain: s[i+1:]}
	if !a.valid() {
		return Address{}, ErrBadAddress
	}
	if !utf8 && strings.ContainsFunc(s, func(r rune) bool { return r > 0x7e }) {
		return Address{}, errNeedUTF8
	}
	return a, nil
}

// badAddress refuses an address; detail is the last part of the enhanced code of
// a malformed one (RFC 3463 §3.2: 3 for a recipient, 7 for a sender).
func (s *smtpSession) badAddress(err error, detail int) error {
	if err == errNeedUTF8 {
		return s.refuse(553, smtp.EnhancedCode{5, 6, 7}, "An address that is not ASCII needs SMTPUTF8")
	}
	return s.refuse(501, smtp.EnhancedCode{5, 1, detail}, "That is no mail address")
}

// Rcpt takes a recipient, if its mail is kept here or may go out.
func (s *smtpSession) Rcpt(to string, opts *smtp.RcptOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c.Begins("RCPT")
	s.asked.Store(&smtpAsked{from: s.mail.env.From, to: to})
	if s.mail.commands >= smtpMaxRecipients {
		return s.refuse(452, smtp.EnhancedCode{4, 5, 3}, "A message has %d recipients at most, send it to the others separately", smtpMaxRecipients)
	}
	if known, err := s.bounce(to); known {
		return err
	}
	if s.mail.bounce {
		return s.oneBounce()
	}
	addr, err := envelopeAddress(to, s.mail.utf8)
	if err != nil {
		return s.badAddress(err, 3)
	}
	accounts, err := s.p.Accounts.Resolve(addr)
	switch {
	case errors.Is(err, ErrNotLocal):
		return s.outside(addr, opts)
	case errors.Is(err, ErrNoUser):
		return s.unknown(addr)
	case err != nil:
		return s.failed("resolving a recipient", err)
	}
	if err := s.room(addr, accounts); err != nil {
		return err
	}
	if err := s.tooMany(); err != nil {
		return err
	}
	s.mail.add(addr, accounts, opts)
	return nil
}

// someDomains names the domains in one short line of a reply.
func someDomains(domains []string) string {
	const most = 5
	if len(domains) > most {
		return strings.Join(domains[:most], ", ") + " and others"
	}
	return strings.Join(domains, ", ")
}

// notLocal refuses a recipient on another domain.
func (s *smtpSession) notLocal(addr Address) error {
	if s.submission {
		return s.refuse(550, smtp.EnhancedCode{5, 7, 1}, "%s: this appliance sends to no other domains, only to addresses at %s",
			addr, someDomains(s.p.Accounts.Domains()))
	}
	s.harvested()
	return s.refuse(550, smtp.EnhancedCode{5, 7, 1}, "%s: relaying denied, mail for %s is not kept here", addr, addr.Domain)
}

// add notes a recipient and whom it reaches, each once.
func (m *smtpMail) add(addr Address, accounts []string, opts *smtp.RcptOptions) {
	m.commands++
	if !m.has(addr) {
		m.rcpts = append(m.rcpts, addr)
		to := recipientOf(addr, opts)
		m.env.Recipients = append(m.env.Recipients, to)
		m.queued = m.queued || m.env.Account != "" && to.Notify.Wants(NotifySuccess) // the queue writes the report
	}
	for _, a := range accounts {
		if !slices.Contains(m.accounts, a) {
			m.accounts = append(m.accounts, a)
		}
	}
}

// has says whether a recipient was given already.
func (m *smtpMail) has(addr Address) bool {
	return slices.ContainsFunc(m.rcpts, func(other Address) bool { return other.Key() == addr.Key() })
}

// Data takes the message, and says 250 only when it is safe on disk.
func (s *smtpSession) Data(r io.Reader) error {
	s.running.Add(1)
	defer s.running.Done()
	s.c.Begins("DATA")
	s.mu.Lock()
	mail := s.mail
	mail.rcpts, mail.accounts = slices.Clone(mail.rcpts), slices.Clone(mail.accounts)
	mail.env.Recipients = slices.Clone(mail.env.Recipients)
	s.asked.Store(&smtpAsked{mail: &mail})
	select {
	case <-s.begun:
	default:
		close(s.begun)
	}
	s.mu.Unlock()
	if len(mail.rcpts) == 0 {
		return smtpReply(554, smtp.EnhancedCode{5, 5, 1}, "There are no recipients")
	}
	receive, done := s.receive, "Stored"
	if mail.queued {
		receive, done = s.enqueue, "Queued"
	}
	id, err := receive(mail, s.w.message(r))
	var reply *smtp.SMTPError
	switch {
	case errors.As(err, &reply):
		return reply
	case err != nil:
		return s.failed("receiving a message", err)
	}
	s.since = time.Now()
	return smtpReply(250, smtp.EnhancedCode{2, 0, 0}, "%s as %s", done, id)
}
