package main

// QUOTA (RFC 9208): GETQUOTA, GETQUOTAROOT and SETQUOTA. A person's mailboxes have one quota root, called "", if the
// person has a quota, and none otherwise. How much may be stored is set by `appliance user quota` alone.

import (
	"errors"
	"fmt"
	"strconv"
)

// getQuota is GETQUOTA (RFC 9208 §4.1.1).
func (s *imapSession) getQuota(cmd *imapCommand) error {
	if err := cmd.sp(); err != nil {
		return err
	}
	root, err := cmd.astring()
	if err != nil {
		return err
	}
	if err := cmd.end(); err != nil {
		return err
	}
	limit := s.drop.Limit()
	if root != "" || limit == (Quota{}) {
		return imapNo("NONEXISTENT", "There is no such quota root")
	}
	return s.quotaResponse(limit)
}

// getQuotaRoot is GETQUOTAROOT (RFC 9208 §4.1.2). The mailbox need not exist. One of somebody else's has a quota root that
// is not told: what all the mailboxes of its owner hold is nobody else's affair (§8).
func (s *imapSession) getQuotaRoot(cmd *imapCommand) error {
	name, err := s.mailboxOnly(cmd)
	if err != nil {
		return err
	}
	folder, err := s.open(name, needQuota)
	_, _, other := s.splitOther(name)
	mine := !other && errors.Is(err, ErrNoFolder) && checkNewName(name) == nil
	switch {
	case err == nil:
		mine = folder.Account() == s.drop.Account()
		folder.Release()
	case !mine:
		return err
	}
	b := append([]byte(nil), "* QUOTAROOT "...)
	b = appendMailbox(b, name, s.utf8)
	limit := s.drop.Limit()
	if mine = mine && limit != (Quota{}); mine {
		b = append(b, ` ""`...)
	}
	s.write(append(b, "\r\n"...))
	if !mine {
		return nil
	}
	return s.quotaResponse(limit)
}

// quotaResponse writes the QUOTA response of the session's own quota root (RFC 9208 §4.2.1). STORAGE counts 1024 octets,
// those that were begun included.
func (s *imapSession) quotaResponse(limit Quota) error {
	held, err := s.drop.Usage()
	if err != nil {
		return err
	}
	b := append([]byte(nil), `* QUOTA "" (`...)
	if limit.Bytes > 0 {
		b = append(b, "STORAGE "...)
		b = strconv.AppendInt(b, (held.Bytes+1023)/1024, 10)
		b = append(b, ' ')
		b = strconv.AppendInt(b, limit.Bytes/1024, 10)
	}
	if limit.Messages > 0 {
		if limit.Bytes > 0 {
			b = append(b, ' ')
		}
		b = fmt.Appendf(b, "MESSAGE %d %d", held.Messages, limit.Messages)
	}
	s.write(append(b, ")\r\n"...))
	return nil
}

// setQuota is SETQUOTA (RFC 9208 §4.1.3). It is not offered as QUOTASET, since nobody may use it: a quota is set by whoever
// runs the appliance.
func (s *imapSession) setQuota(cmd *imapCommand) error {
	if err := cmd.sp(); err != nil {
		return err
	}
	if _, err := cmd.astring(); err != nil {
		return err
	}
	if err := cmd.sp(); err != nil {
		return err
	}
	err := cmd.list(func() error {
		if _, err := cmd.atom(); err != nil {
			return err
		}
		if err := cmd.sp(); err != nil {
			return err
		}
		_, err := cmd.number64()
		return err
	})
	if err != nil {
		return err
	}
	if err := cmd.end(); err != nil {
		return err
	}
	return imapNo("NOPERM", "A quota is set by whoever runs this server")
}

// errOverQuota is the reply to what finds no room (RFC 9208 §4.3.1).
var errOverQuota = imapNo("OVERQUOTA", "The quota leaves no room for this: delete something and expunge it first")

// warnQuota tells a client, in a command that adds messages or selects a mailbox, that its mail has almost used up its
// quota (RFC 9208 §4.3.1, where nine tenths are the soft quota).
func (s *imapSession) warnQuota(folder *Folder) {
	if folder.Account() == s.drop.Account() && s.drop.NearlyFull() {
		s.line("* NO [OVERQUOTA] The quota is nearly used up; when it is full, new mail is refused")
	}
}
