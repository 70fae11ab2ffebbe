package main

// AUTH of submission: RFC 4954. sasl.go has the mechanisms.

import (
	"errors"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// smtpMaxLogins is how many logins may fail until the connection is closed.
const smtpMaxLogins = 5

// AuthMechanisms lists what EHLO offers.
func (s *smtpSession) AuthMechanisms() []string {
	if !s.submission || s.account != "" {
		return nil
	}
	return s.c.SASLMechanisms()
}

// Auth starts a login.
func (s *smtpSession) Auth(mech string) (sasl.Server, error) {
	s.mu.Lock()
	given := s.mail.given
	s.mu.Unlock()
	switch {
	case !s.submission:
		return nil, smtpReply(503, smtp.EnhancedCode{5, 5, 1}, "Nobody logs in on this port, submission is on 465 and 587")
	case !s.c.MayLogin():
		return nil, smtpReply(538, smtp.EnhancedCode{5, 7, 11}, "Passwords are taken only under TLS, say STARTTLS first")
	case given:
		return nil, smtpReply(503, smtp.EnhancedCode{5, 5, 1}, "Log in before MAIL")
	}
	x, err := s.c.newSASL(s.ctx, "submission", mech)
	if err != nil {
		return nil, s.authReply(err)
	}
	return &smtpAuth{s, x}, nil
}

// smtpAuth is an exchange that logs an SMTP session in.
type smtpAuth struct {
	s *smtpSession
	x *saslExchange
}

// Next is the server's step, with SMTP's replies as errors.
func (a *smtpAuth) Next(response []byte) (challenge []byte, done bool, err error) {
	challenge, done, err = a.x.Next(response)
	if err != nil {
		return nil, false, a.s.authReply(err)
	}
	if done {
		a.s.account, a.s.via = a.x.id.Account, a.x.id.Via
		a.s.c.SetIdle(smtpIdle)
	}
	return challenge, done, nil
}

// authReply makes the reply to an error of an exchange (RFC 4954 §6), and counts failed logins.
func (s *smtpSession) authReply(err error) *smtp.SMTPError {
	var fault *saslError
	switch {
	case errors.Is(err, ErrBadLogin):
		s.failures++
		return smtpReply(535, smtp.EnhancedCode{5, 7, 8}, "Wrong address or password")
	case errors.Is(err, ErrThrottled):
		s.failures++
		return smtpReply(454, smtp.EnhancedCode{4, 7, 0}, "Too many failed logins, try again later")
	case !errors.As(err, &fault):
		s.c.Log.Error("cannot check a login", "error", err)
		return smtpReply(454, smtp.EnhancedCode{4, 7, 0}, "That cannot be checked at the moment, try again later")
	}
	switch fault.fault {
	case saslUnoffered:
		return smtpReply(504, smtp.EnhancedCode{5, 5, 4}, "%s", fault.text)
	case saslUnbound, saslUnauthorized:
		return smtpReply(535, smtp.EnhancedCode{5, 7, 8}, "%s", fault.text)
	}
	return smtpReply(501, smtp.EnhancedCode{5, 5, 2}, "%s", fault.text)
}
