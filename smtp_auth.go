package main

// AUTH of submission: RFC 4954, with PLAIN (RFC 4616) and LOGIN, which some
// clients know alone.

import (
	"errors"
	"strings"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// smtpMaxLogins is how many logins may fail until the connection is closed.
const smtpMaxLogins = 5

// AuthMechanisms lists what EHLO offers.
func (s *smtpSession) AuthMechanisms() []string {
	if !s.submission || !s.c.MayLogin() || s.account != "" {
		return nil
	}
	return []string{sasl.Plain, sasl.Login}
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
	switch strings.ToUpper(mech) {
	case sasl.Plain:
		return &saslPlain{s}, nil
	case sasl.Login:
		return &saslLogin{s: s}, nil
	}
	return nil, smtpReply(504, smtp.EnhancedCode{5, 5, 4}, "This mechanism is not offered, PLAIN and LOGIN are")
}

// login checks a password.
func (s *smtpSession) login(user, password string) error {
	id, err := s.c.Login(s.ctx, "submission", user, password)
	switch {
	case errors.Is(err, ErrBadLogin):
		s.failures++
		return smtpReply(535, smtp.EnhancedCode{5, 7, 8}, "Wrong address or password")
	case errors.Is(err, ErrThrottled):
		s.failures++
		return smtpReply(454, smtp.EnhancedCode{4, 7, 0}, "Too many failed logins, try again later")
	case err != nil:
		s.c.Log.Error("cannot check a login", "error", err)
		return smtpReply(454, smtp.EnhancedCode{4, 7, 0}, "That cannot be checked at the moment, try again later")
	}
	s.account = id.Account
	s.c.SetIdle(smtpIdle)
	return nil
}

// saslPlain is the server's side of PLAIN.
type saslPlain struct{ s *smtpSession }

func (a *saslPlain) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil {
		return nil, false, nil
	}
	user, password, err := splitPlain(response)
	switch {
	case errors.Is(err, errProxy):
		return nil, false, smtpReply(535, smtp.EnhancedCode{5, 7, 8}, "Logging in for somebody else is not allowed")
	case err != nil:
		return nil, false, smtpReply(501, smtp.EnhancedCode{5, 5, 2}, "That is not what PLAIN asks for")
	}
	return nil, true, a.s.login(user, password)
}

// saslLogin is the server's side of LOGIN: it asks for the name, then for the
// password.
type saslLogin struct {
	s     *smtpSession
	named bool
	user  string
}

func (a *saslLogin) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case response == nil && !a.named:
		return []byte("Username:"), false, nil
	case !a.named:
		a.named, a.user = true, string(response)
		return []byte("Password:"), false, nil
	}
	return nil, true, a.s.login(a.user, string(response))
}
