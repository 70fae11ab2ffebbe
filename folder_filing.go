package main

import "github.com/emersion/go-imap/v2"

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

// UseOf gives the special use of a folder (RFC 6154), "" for none. Of several it is that which its name tells, or the first.
func (f *Folder) UseOf() imap.MailboxAttr {
	dir := f.directory()
	if use := useByName(decodeFolder(dir)); use != "" {
		return use
	}
	if uses := f.drop.specialUses()[dir]; len(uses) > 0 {
		return uses[0]
	}
	return ""
}
