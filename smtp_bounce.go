package main

// Bounces of forwarded mail. Their recipient is an address of ours that stands for a sender elsewhere (srs.go). That is no
// relaying: only who has had the mail knows such an address, it leads to its sender alone, and for some weeks; and it takes
// nothing but what programs send back, under the null reverse-path (RFC 5321 §4.5.5), in a transaction of its own.

import "github.com/emersion/go-smtp"

// bounce takes a recipient that stands for a sender elsewhere; known is false for all other recipients.
func (s *smtpSession) bounce(to string) (known bool, err error) {
	if s.submission || s.p.Returns == nil || s.p.Queue == nil {
		return false, nil
	}
	sender, known, err := s.p.Returns.ReturnTo(to)
	switch {
	case !known:
		return false, nil
	case err != nil:
		s.harvested()
		return true, s.refuse(550, smtp.EnhancedCode{5, 1, 1}, "That address stands for no sender here, or does not any more")
	case !s.mail.null:
		return true, s.refuse(550, smtp.EnhancedCode{5, 7, 1}, "That address takes reports on mail that was forwarded, and nothing else")
	case len(s.mail.rcpts) > 0:
		return true, s.oneBounce()
	}
	if err := s.tooMany(); err != nil {
		return true, err
	}
	if !s.p.Returns.TakeBounce(sender) {
		return true, s.refuse(451, smtp.EnhancedCode{4, 7, 1}, "Too many reports to this sender within an hour, try again later")
	}
	s.mail.add(sender, nil, &smtp.RcptOptions{Notify: []smtp.DSNNotify{smtp.DSNNotifyNever}})
	s.mail.queued, s.mail.bounce = true, true
	return true, nil
}

// oneBounce refuses what does not fit into the transaction of a bounce.
func (s *smtpSession) oneBounce() error {
	return s.refuse(452, smtp.EnhancedCode{4, 5, 3}, "A report on forwarded mail has one recipient, send to the others separately")
}
