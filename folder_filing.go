package main

import (
	"strings"

	"github.com/emersion/go-imap/v2"
)

// Filing is that somebody has put messages into a folder: not a delivery, and not what other programs do to the files.
type Filing struct {
	From *Folder // where they have been moved or copied from; nil: they are new here
	To   *Folder
	UIDs []imap.UID // in To
}

// OnFiling has news called for every filing that is done. The locks of the folders are not held. The folders are the caller's:
// whoever needs them later takes them by Retain. It must not block.
func (s *Store) OnFiling(news func(Filing)) { s.filing.Store(&news) }

// tellFiling tells of messages that lie in the folder now.
func (f *Folder) tellFiling(from *Folder, uids []imap.UID) {
	if news := f.store.filing.Load(); news != nil && len(uids) > 0 {
		(*news)(Filing{From: from, To: f, UIDs: uids})
	}
}

// GuardTransfers has allow asked before messages are copied or moved, and, with no from, before somebody adds one; its error is
// that of Copy, Move and MayAdd. The locks of the folders are not held.
func (s *Store) GuardTransfers(allow func(from, to *Folder, uids []imap.UID) error) {
	s.transfers.Store(&allow)
}

// mayTransfer asks whoever guards transfers.
func (f *Folder) mayTransfer(to *Folder, uids []imap.UID) error {
	if allow := f.store.transfers.Load(); allow != nil {
		return (*allow)(f, to, uids)
	}
	return nil
}

// MayAdd says whether people may put messages of their own into the folder: ErrNotSentFrom for the Outbox.
func (f *Folder) MayAdd() error {
	if allow := f.store.transfers.Load(); allow != nil {
		return (*allow)(nil, f, nil)
	}
	return nil
}

// UseOf gives the special use of a folder (RFC 6154), "" for none. Of several it is that which its name tells, or the first.
func (f *Folder) UseOf() imap.MailboxAttr { return useOfDir(f.directory(), f.drop.specialUses()) }

// UseAbove is UseOf for a folder, or the nearest above it that has a use.
func (f *Folder) UseAbove() imap.MailboxAttr {
	return useAboveDir(f.directory(), f.drop.specialUses())
}

// useOfDir is UseOf by the folder's name on disk.
func useOfDir(dir string, uses map[string][]imap.MailboxAttr) imap.MailboxAttr {
	if use := useByName(decodeFolder(dir)); use != "" {
		return use
	}
	if of := uses[dir]; len(of) > 0 {
		return of[0]
	}
	return ""
}

// useAboveDir is UseAbove by the folder's name on disk.
func useAboveDir(dir string, uses map[string][]imap.MailboxAttr) imap.MailboxAttr {
	for {
		if use := useOfDir(dir, uses); use != "" {
			return use
		}
		at := strings.LastIndexByte(dir, '.')
		if at <= 0 {
			return ""
		}
		dir = dir[:at]
	}
}

// FoldersBelow gives the names of the folders that have a special use, and of those below them.
func (d *Maildrop) FoldersBelow(use imap.MailboxAttr) ([]string, error) {
	list, err := d.Folders()
	if err != nil {
		return nil, err
	}
	uses := d.specialUses()
	var names []string
	for _, info := range list {
		if useAboveDir(info.dir, uses) == use {
			names = append(names, info.Name)
		}
	}
	return names, nil
}
