package main

// The mailboxes of other people (RFC 2342 §5, other users' namespace). What somebody calls Work is user/bob/Work for those whom
// he lets in, and his INBOX is user/bob/INBOX: so each of his names has one place there, and INBOX/Work is not Work.
//
// Bob is the account's short name: the local part in the default domain, else the whole address, in small letters and nothing
// else. What is not somebody's name or grants nothing is answered like a mailbox that does not exist.

import (
	"errors"
	"strings"
)

// othersRoot is the level above the mailboxes of other people, othersPrefix the prefix of their namespace.
const (
	othersRoot   = "user"
	othersPrefix = othersRoot + "/"
)

// place is where a mailbox name leads.
type place struct {
	drop  *Maildrop // to be released by leave
	name  string    // within the maildrop
	other bool      // it is somebody else's
}

// leave gives a place back.
func (p place) leave() {
	if p.other {
		p.drop.Release()
	}
}

// fail translates what the store says: a maildrop of somebody else that is gone was never there, while that of the session ends
// the session.
func (p place) fail(err error) error {
	if p.other && errors.Is(err, ErrClosed) {
		return ErrNoFolder
	}
	return err
}

// who is the session's user as access lists know him.
func (s *imapSession) who() Grantee {
	account := s.drop.Account()
	return Grantee{Account: account, Short: s.p.Accounts.ShortName(account)}
}

// claim is what the session's user wants.
func (s *imapSession) claim(need Rights) Claim { return Claim{s.who(), need} }

// splitOther takes a name below othersPrefix apart; account is "" when it is nobody's. A mailbox of one's own that has such a name
// from before stays one's own.
func (s *imapSession) splitOther(name string) (account, inner string, other bool) {
	rest, other := strings.CutPrefix(name, othersPrefix)
	if !other {
		return "", name, false
	}
	if _, err := s.drop.Rights(name, s.who()); err == nil {
		return "", name, false
	}
	short, inner, _ := strings.Cut(rest, "/")
	account = s.p.Accounts.ByShortName(short)
	if account == s.drop.Account() || inner == "" {
		account = ""
	}
	return account, inner, true
}

// locate finds a mailbox that exists, as far as its owner lets the user know.
func (s *imapSession) locate(name string) (place, error) {
	account, inner, other := s.splitOther(name)
	switch {
	case !other:
		return place{s.drop, name, false}, nil
	case account == "" || s.p.Store.RightsIn(account, inner, s.who()) == 0:
		return place{}, ErrNoFolder
	}
	return s.enterOther(account, inner)
}

// locateNew finds where a mailbox is to be made. The store decides; here only those are sent away who may make nothing there, all
// with the same answer.
func (s *imapSession) locateNew(name string) (place, error) {
	account, inner, other := s.splitOther(name)
	switch {
	case !other && name == othersRoot:
		return place{}, imapNo("CANNOT", "This name is the root of other people's mailboxes")
	case !other:
		return place{s.drop, name, false}, nil
	case account == "" || !s.mayCreate(account, inner):
		return place{}, ErrNoRight
	}
	return s.enterOther(account, inner)
}

// enterOther opens the maildrop of somebody else.
func (s *imapSession) enterOther(account, inner string) (place, error) {
	drop, err := s.p.Store.Maildrop(account)
	if err != nil {
		return place{}, place{other: true}.fail(err)
	}
	return place{drop, inner, true}, nil
}

// mayCreate says whether a mailbox above a name in somebody else's maildrop lets the user make others: the nearest of those that
// let him do anything.
func (s *imapSession) mayCreate(account, inner string) bool {
	who := s.who()
	for parent := range parents(inner) {
		if rights := s.p.Store.RightsIn(account, parent, who); rights != 0 {
			return rights&needCreate == needCreate
		}
	}
	return false
}

// open opens a mailbox by the store's name, for what takes the rights need in it. Every verb that is about a mailbox it has not
// selected comes through here.
func (s *imapSession) open(name string, need Rights) (*Folder, error) {
	p, err := s.locate(name)
	if err != nil {
		return nil, err
	}
	defer p.leave()
	claim := s.claim(need)
	if p.other { // before it costs anything
		if err := claim.check(s.p.Store.RightsIn(p.drop.Account(), p.name, claim.Who)); err != nil {
			return nil, err
		}
	}
	folder, err := p.drop.Open(p.name)
	if err != nil {
		return nil, p.fail(err)
	}
	// Only now it is sure that it is this folder which the rights are of.
	rights, err := folder.Rights(claim.Who)
	if err == nil {
		err = claim.check(rights)
	}
	if err != nil {
		folder.Release()
		return nil, err
	}
	return folder, nil
}

// nameOf is what the session's user calls a folder, which may have got another name since it was opened.
func (s *imapSession) nameOf(f *Folder) string {
	return s.prefixOf(f.Account()) + f.Name()
}

// prefixOf is what the names of an account's mailboxes begin with for the session's user.
func (s *imapSession) prefixOf(account string) string {
	if account == s.drop.Account() {
		return ""
	}
	return othersPrefix + s.p.Accounts.ShortName(account) + "/"
}

// folderTree gives all names, sorted, INBOX first: of the mailboxes that the user sees, and those that are subscribed. Parents
// that do not exist are among them.
func (s *imapSession) folderTree() ([]*treeNode, error) {
	folders, subs, err := s.folders()
	if err != nil {
		return nil, err
	}
	return buildTree(folders, subs), nil
}

// visibleFolder is a mailbox that the session's user sees, by the name that it has for him.
type visibleFolder struct {
	FolderInfo
	account string // its owner
	other   bool   // it is somebody else's
	rights  Rights
}

// folders gives the mailboxes that exist and that the user may look up, his own and then those of others, and the names that are
// subscribed, sorted.
func (s *imapSession) folders() (visible []visibleFolder, subs []string, err error) {
	own, err := s.drop.Folders()
	if err != nil {
		return nil, nil, err
	}
	if subs, err = s.drop.Subscribed(); err != nil {
		return nil, nil, err
	}
	who := s.who()
	limited := make(map[string]Rights)
	for _, m := range s.p.Store.Access(who.Account, who) {
		limited[m.Name] = m.Rights
	}
	taken := make(map[string]bool)
	for _, f := range own {
		rights, ok := limited[f.Name]
		if !ok {
			rights = RightsAll
		}
		if rights&needList != 0 {
			visible = append(visible, visibleFolder{f, who.Account, false, rights})
		}
		taken[f.Name] = true
	}
	return append(visible, s.otherFolders(who, taken)...), subs, nil
}

// otherFolders gives what others let the user see, but for names that are taken by his own.
func (s *imapSession) otherFolders(who Grantee, taken map[string]bool) (visible []visibleFolder) {
	for _, account := range s.p.Accounts.Addresses() {
		if account == who.Account {
			continue
		}
		prefix := s.prefixOf(account)
		for _, m := range s.p.Store.Access(account, who) {
			if m.Name = prefix + m.Name; m.Rights&needList != 0 && !taken[m.Name] {
				visible = append(visible, visibleFolder{m.FolderInfo, account, true, m.Rights})
			}
		}
	}
	sortFunc(visible, func(a, b visibleFolder) int { return compareFolders(a.Name, b.Name) })
	return visible
}
