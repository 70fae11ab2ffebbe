package main

// What a recipient's quota means for a message. It is decided at RCPT, where each recipient has an answer of its own: at
// the end of DATA one answer stands for all, and a message that only some of them have room for could but be refused to
// all or be doubled at the next try.

import (
	"errors"

	"github.com/emersion/go-smtp"
)

// traceRoom is the room for the fields that are put in front of a message, in octets.
const traceRoom = 1 << 10

// room refuses a recipient one of whose mailboxes has no room for the message. A full mailbox is a temporary failure:
// its owner may make room within the days in which other servers try again, and then nothing is lost. What is larger
// than the quota itself will never fit, and is refused for good.
//
// A client that does not announce a size finds out at the end of DATA. Lest that takes the message from others, it must
// send to somebody whose room is less than the largest message alone. An address that reaches several people is
// one recipient: it has room when all of them have.
func (s *smtpSession) room(addr Address, accounts []string) error {
	for _, account := range accounts {
		if err := s.p.Store.Room(account, s.mail.size+traceRoom); err != nil {
			return s.noRoom(addr, account, err)
		}
	}
	if s.mail.size > 0 || len(s.mail.rcpts) == 0 {
		return nil
	}
	for _, list := range [][]string{accounts, s.mail.accounts} {
		for _, account := range list {
			if err := s.p.Store.Room(account, s.p.MaxSize); errors.Is(err, ErrOverQuota) || errors.Is(err, ErrAboveQuota) {
				return s.refuse(452, smtp.EnhancedCode{4, 5, 3}, "A mailbox has little room: announce the SIZE, or send to %s separately", addr)
			}
		}
	}
	return nil
}

// noRoom is the answer to Store.Room's error. addr is whom the client knows of.
func (s *smtpSession) noRoom(addr Address, account string, err error) error {
	switch {
	case errors.Is(err, ErrOverQuota):
		s.c.Log.Info("no room", "account", account)
		return s.refuse(452, smtp.EnhancedCode{4, 2, 2}, "The mailbox of %s is full, try again later", addr)
	case errors.Is(err, ErrAboveQuota):
		return s.refuse(552, smtp.EnhancedCode{5, 2, 3}, "The mailbox of %s cannot hold a message of this size", addr)
	}
	return s.failed("asking for room", err)
}
