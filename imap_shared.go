package main

// The mailboxes of other people (RFC 2342 §5, other users' namespace). What somebody calls Work is user/bob/Work for those whom
// he lets in, and his INBOX is user/bob/INBOX: so each of his names has one place there, and INBOX/Work is not Work.
//
// Bob is the account's short name: the local part in the default domain, else the whole address, in small letters and nothing
// else. What is not somebody's name or grants nothing is answered like a mailbox that does not exist.

import (
	"errors"
	"slices"
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
	if f.Account() == s.drop.Account() {
		return f.Name()
	}
	return othersPrefix + s.p.Accounts.ShortName(f.Account()) + "/" + f.Name()
}

// folderTree gives all names, sorted, INBOX first: the user's own, those that others let him see, those that are subscribed.
// Parents that do not exist are among them.
func (s *imapSession) folderTree() ([]*treeNode, error) {
	own, subs, err := s.folders()
	if err != nil {
		return nil, err
	}
	limited := s.access(s.drop.Account())
	others, rights := s.otherFolders()
	tree := buildTree(append(own, others...), subs)
	for _, n := range tree {
		n.rights = RightsAll
		if r, ok := rights[n.name]; ok {
			n.rights = r
		} else if r, ok := limited[n.name]; ok {
			n.rights = r
		}
	}
	return tree, nil
}

// folders gives the user's own mailboxes, as far as he lets himself see them, and the names that are subscribed, both sorted.
func (s *imapSession) folders() ([]FolderInfo, []string, error) {
	folders, err := s.drop.Folders()
	if err != nil {
		return nil, nil, err
	}
	limited := s.access(s.drop.Account())
	folders = slices.DeleteFunc(folders, func(f FolderInfo) bool {
		rights, ok := limited[f.Name]
		return ok && rights&needList == 0
	})
	subs, err := s.drop.Subscribed()
	return folders, subs, err
}

// access gives the user's rights in those mailboxes of an account that have an access list.
func (s *imapSession) access(account string) map[string]Rights {
	rights := make(map[string]Rights)
	for _, m := range s.p.Store.Access(account, s.who()) {
		rights[m.Name] = m.Rights
	}
	return rights
}

// otherFolders gives what others let the user see, and his rights there. A name that is taken by one of his own is left out.
func (s *imapSession) otherFolders() (folders []FolderInfo, rights map[string]Rights) {
	rights = make(map[string]Rights)
	for _, account := range s.p.Accounts.Addresses() {
		if account == s.drop.Account() {
			continue
		}
		prefix := othersPrefix + s.p.Accounts.ShortName(account) + "/"
		for _, m := range s.p.Store.Access(account, s.who()) {
			if m.Rights&needList == 0 {
				continue
			}
			if _, _, other := s.splitOther(prefix + m.Name); other {
				folders = append(folders, FolderInfo{Name: prefix + m.Name})
				rights[prefix+m.Name] = m.Rights
			}
		}
	}
	return folders, rights
}
