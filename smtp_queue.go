package main

// Mail of the people here for other servers (RFC 6409): it goes into the queue, and 250 is said when it is on disk there. A
// message with any recipient elsewhere goes by the queue as a whole, so that one reply stands for one commit.

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/emersion/go-smtp"
)

// sendsOut says whether the session takes mail for other domains, and offers what only the queue can keep.
func (s *smtpSession) sendsOut() bool { return s.submission && s.p.Queue != nil }

// envelope begins the envelope of a message by what MAIL says beside the reverse-path.
func (s *smtpSession) envelope(opts *smtp.MailOptions) (Envelope, error) {
	if opts.RequireTLS && s.c.TLS() == nil { // RFC 8689 §2
		return Envelope{}, s.refuse(555, smtp.EnhancedCode{5, 5, 4}, "REQUIRETLS is offered under TLS only")
	}
	return Envelope{
		Account: s.account, EnvelopeID: opts.EnvelopeID, Return: string(opts.Return),
		UTF8: opts.UTF8, EightBit: opts.Body == smtp.Body8BitMIME, RequireTLS: opts.RequireTLS,
	}, nil
}

// recipientOf gives a recipient with what RCPT says of it (RFC 3461 §4.1, §4.2).
func recipientOf(addr Address, opts *smtp.RcptOptions) Recipient {
	to := Recipient{Address: queueAddress(addr)}
	if opts.OriginalRecipient != "" {
		to.Original = strings.ToLower(string(opts.OriginalRecipientType)) + ";" + opts.OriginalRecipient
	}
	for _, word := range opts.Notify {
		switch word {
		case smtp.DSNNotifyNever:
			to.Notify |= NotifyNever
		case smtp.DSNNotifySuccess:
			to.Notify |= NotifySuccess
		case smtp.DSNNotifyFailure:
			to.Notify |= NotifyFailure
		case smtp.DSNNotifyDelayed:
			to.Notify |= NotifyDelay
		}
	}
	return to
}

// outside takes a recipient on another domain, where that is possible and the sender has not sent too much.
func (s *smtpSession) outside(addr Address, opts *smtp.RcptOptions) error {
	if !s.sendsOut() {
		return s.notLocal(addr)
	}
	if !s.mail.has(addr) {
		if !s.p.Flood.Take(FloodSender{Identity{s.account, s.via}, s.c.Remote}) {
			return s.refuse(451, smtp.EnhancedCode{4, 7, 1}, "%s has written to %d addresses elsewhere within an hour, which is the most that is allowed; try again later",
				s.account, s.p.Flood.PerHour())
		}
		s.mail.outside++
	}
	s.mail.add(addr, nil, opts)
	s.mail.queued = true
	return nil
}

// enqueue is receive for a message that goes by the queue.
func (s *smtpSession) enqueue(mail smtpMail, r io.Reader) (id string, err error) {
	q := s.p.Queue
	mail.env.ID = newQueueID()
	in, verdict, err := s.take(mail, mail.env.ID, r, func() (*Incoming, error) { return s.p.Store.Receive(q.TmpDir()) })
	if err != nil {
		return "", err
	}
	if mail.bounce && verdict.Folder != "" {
		in.Discard()
		return "", s.refuse(550, smtp.EnhancedCode{5, 7, 1}, "What looks unwanted is not sent on")
	}
	id, err = q.Submit(in, &mail.env)
	switch {
	case errors.Is(err, ErrQueueFull):
		return "", s.refuse(452, smtp.EnhancedCode{4, 3, 1}, "Too many messages wait to be sent, try again later")
	case err != nil:
		return "", fmt.Errorf("queueing a message: %w", err)
	}
	s.sent()
	return id, nil
}

// sent keeps what a message took from its sender's hourly allowance.
func (s *smtpSession) sent() {
	s.mu.Lock()
	s.mail.outside = 0
	s.mu.Unlock()
}
