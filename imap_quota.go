package main

// QUOTA (RFC 9208): GETQUOTA, GETQUOTAROOT and SETQUOTA. A person's mailboxes have one quota root, called "", if the
// person has a quota, and none otherwise; for others it is called user/NAME. How much may be stored is set by `appliance user quota` alone.

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	p, err := s.quotaRoot(root)
	if err != nil {
		return err
	}
	defer p.leave()
	limit := p.drop.Limit()
	if limit == (Quota{}) {
		return errNoQuotaRoot
	}
	return p.fail(s.quotaResponse(root, p.drop, limit))
}

// errNoQuotaRoot is the reply to a quota root that there is not, or that is not for the user.
var errNoQuotaRoot = imapNo("NONEXISTENT", "There is no such quota root")

// quotaRoot finds whose quota root has a name.
func (s *imapSession) quotaRoot(root string) (place, error) {
	if root == "" {
		return place{drop: s.drop}, nil
	}
	short, other := strings.CutPrefix(root, othersPrefix)
	account := s.p.Accounts.ByShortName(short)
	if !other || account == "" || account == s.drop.Account() {
		return place{}, errNoQuotaRoot
	}
	shown := func(m MailboxAccess) bool { return m.Rights&needQuotaRoot == needQuotaRoot }
	if !slices.ContainsFunc(s.p.Store.Access(account, s.who()), shown) {
		return place{}, errNoQuotaRoot
	}
	p, err := s.enterOther(account, "")
	if errors.Is(err, ErrNoFolder) {
		err = errNoQuotaRoot
	}
	return p, err
}

// getQuotaRoot is GETQUOTAROOT (RFC 9208 §4.1.2). A mailbox of one's own need not exist. One of somebody else's has its owner's
// quota root, which is told to those who may put messages there: what all the mailboxes of the owner hold is nobody else's affair
// (§8).
func (s *imapSession) getQuotaRoot(cmd *imapCommand) error {
	name, err := s.mailboxOnly(cmd)
	if err != nil {
		return err
	}
	drop, root, shown := s.drop, "", true
	folder, err := s.open(name, needQuota)
	switch _, _, other := s.splitOther(name); {
	case err == nil:
		defer folder.Release()
		if drop = folder.drop; drop != s.drop {
			rights, err := folder.Rights(s.who())
			if err != nil {
				return err
			}
			root, shown = strings.TrimSuffix(s.prefixOf(drop.Account()), "/"), rights&needQuotaRoot == needQuotaRoot
		}
	case other || !errors.Is(err, ErrNoFolder) || checkNewName(name) != nil:
		return err
	}
	limit := drop.Limit()
	shown = shown && limit != (Quota{})
	b := appendMailbox([]byte("* QUOTAROOT "), name, s.utf8)
	if shown {
		b = appendString(append(b, ' '), root, s.utf8)
	}
	s.write(append(b, "\r\n"...))
	if !shown {
		return nil
	}
	return place{other: drop != s.drop}.fail(s.quotaResponse(root, drop, limit))
}

// quotaResponse writes the QUOTA response of a maildrop's quota root (RFC 9208 §4.2.1). STORAGE counts 1024 octets, those that
// were begun included.
func (s *imapSession) quotaResponse(root string, drop *Maildrop, limit Quota) error {
	held, err := drop.Usage()
	if err != nil {
		return err
	}
	b := append(appendString([]byte("* QUOTA "), root, s.utf8), " ("...)
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
