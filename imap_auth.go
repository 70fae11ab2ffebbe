package main

// How a client logs in: STARTTLS, LOGIN and AUTHENTICATE (RFC 9051 §6.2, RFC 4959). sasl.go has the mechanisms.

import (
	"errors"
	"fmt"
	"strings"
)

// startTLS is STARTTLS. Plaintext that came behind it might be run under TLS (CVE-2011-0411): that ends the session.
func (s *imapSession) startTLS(cmd *imapCommand) error {
	if err := cmd.end(); err != nil {
		return err
	}
	switch {
	case s.c.TLS() != nil:
		return imapBad("TLS is active already")
	case s.p.TLS == nil:
		return imapBad("TLS is not available")
	case s.c.Reader().Buffered() > 0:
		s.done, s.bye = true, "Nothing may follow STARTTLS"
		return imapBad("Nothing may follow STARTTLS")
	}
	s.line(cmd.tag + " OK Begin TLS now")
	s.c.Writer().Flush()
	s.in.line = s.in.line[:0]
	if err := s.c.StartTLS(); err != nil {
		s.c.Log.Debug("no session", "protocol", "imap", "error", err)
		s.in.err = err
		return err
	}
	return errReplied
}

// compress is COMPRESS DEFLATE (RFC 4978 §3).
func (s *imapSession) compress(cmd *imapCommand) error {
	if err := cmd.sp(); err != nil {
		return err
	}
	mechanism, err := cmd.atom()
	if err != nil {
		return err
	}
	if err := cmd.end(); err != nil {
		return err
	}
	switch {
	case !strings.EqualFold(mechanism, "DEFLATE"):
		return imapBad("The only compression here is DEFLATE")
	case s.c.Compressed():
		return imapNo("COMPRESSIONACTIVE", "DEFLATE is active already")
	case s.c.Reader().Buffered() > 0:
		// RFC 4978 §3: the client waits for the reply. What it sent is neither plain nor compressed for sure.
		s.done, s.bye = true, "Nothing may follow COMPRESS"
		return imapBad("Nothing may follow COMPRESS")
	}
	s.update(s.wantsMessages())
	s.line(cmd.tag + " OK DEFLATE active")
	s.c.Writer().Flush()
	s.in.line = s.in.line[:0]
	if err := s.c.Compress(); err != nil {
		return fmt.Errorf("beginning to compress: %w", err)
	}
	return errReplied
}

// login is LOGIN (RFC 9051 §6.2.3).
func (s *imapSession) login(cmd *imapCommand) error {
	if err := s.privacy(); err != nil {
		return err
	}
	if err := cmd.sp(); err != nil {
		return err
	}
	user, err := cmd.astring()
	if err != nil {
		return err
	}
	if err := cmd.sp(); err != nil {
		return err
	}
	password, err := cmd.astring()
	if err != nil {
		return err
	}
	if err := cmd.end(); err != nil {
		return err
	}
	id, err := s.c.Login(s.ctx, "imap", user, password)
	if err != nil {
		return loginReply(err)
	}
	return s.enter(id)
}

// unauthenticate is UNAUTHENTICATE (RFC 8437 §3): all but TLS is as it was before login. It is not offered under
// COMPRESS, whose window would hold the text of one user while another is logged in.
func (s *imapSession) unauthenticate(cmd *imapCommand) error {
	if err := cmd.end(); err != nil {
		return err
	}
	if s.c.Compressed() {
		return imapBad("UNAUTHENTICATE is not available under COMPRESS")
	}
	s.endNotify()
	s.closeView()
	s.drop.Release()
	s.drop = nil
	s.rev2, s.utf8, s.utf8Accept, s.condstore, s.qresync = false, false, false, false, false
	s.keywords = 0
	s.in.maxLiterals, s.in.maxDrain = imapMaxAnonymous, imapMaxAnonDrain
	s.c.Logout()
	return imapOK("CAPABILITY "+s.capabilities(), "Nobody is logged in")
}

// privacy refuses passwords that would go over the network in the clear.
func (s *imapSession) privacy() error {
	if s.c.MayLogin() {
		return nil
	}
	return imapNo("PRIVACYREQUIRED", "Logging in needs TLS: use STARTTLS, or the port for TLS")
}

// authenticate is AUTHENTICATE, with or without an initial response (RFC 9051 §6.2.2).
func (s *imapSession) authenticate(cmd *imapCommand) error {
	if err := cmd.sp(); err != nil {
		return err
	}
	mechanism, err := cmd.atom()
	if err != nil {
		return err
	}
	initial := ""
	if cmd.accept(' ') {
		initial = cmd.takeWhile(func(b byte) bool { return b > ' ' && b < 0x7f })
		if initial == "" {
			return cmd.expected("an initial response")
		}
	}
	if err := cmd.end(); err != nil {
		return err
	}
	if err := s.privacy(); err != nil {
		return err
	}
	x, err := s.c.newSASL(s.ctx, "imap", mechanism)
	if err != nil {
		return loginReply(err)
	}
	id, err := x.converse(initial, s.challenge)
	if err != nil {
		return loginReply(err)
	}
	return s.enter(id)
}

// challenge sends a challenge and reads the client's response to it.
func (s *imapSession) challenge(text string) (string, error) {
	s.line("+ " + text)
	s.in.before += len(s.in.line)
	err := s.in.readLine()
	response := string(s.in.line)
	s.in.line = s.in.line[:0] // nothing in it is a literal
	switch {
	case errors.Is(err, errCommandTooLong):
		return "", imapBad("The response is too long")
	case err != nil:
		return "", err
	}
	return response, nil
}

// loginReply makes the reply to a login that failed (RFC 5530 §3).
func loginReply(err error) error {
	var fault *saslError
	switch {
	case errors.Is(err, ErrBadLogin):
		return imapNo("AUTHENTICATIONFAILED", "Wrong address or password")
	case errors.Is(err, ErrThrottled):
		return imapNo("UNAVAILABLE", "Too many failed logins, try again later")
	case !errors.As(err, &fault):
		return fmt.Errorf("logging in: %w", err)
	}
	switch fault.fault {
	case saslUnoffered:
		return imapNo("CANNOT", fault.text)
	case saslUnbound:
		return imapNo("AUTHENTICATIONFAILED", fault.text)
	case saslUnauthorized:
		return imapNo("AUTHORIZATIONFAILED", fault.text)
	}
	return imapBad("%s", fault.text)
}

// enter opens the maildrop of who has logged in.
func (s *imapSession) enter(id Identity) (err error) {
	if s.drop, err = s.p.Store.Maildrop(id.Account); err != nil {
		return fmt.Errorf("opening the maildrop: %w", err)
	}
	s.c.SetIdle(imapIdleTime)
	s.in.maxLiterals, s.in.maxDrain = imapMaxLiterals, max(imapMaxDrain, 2*s.p.MaxSize)
	return imapOK("CAPABILITY "+s.capabilities(), "Logged in as "+imapText(id.Account))
}
