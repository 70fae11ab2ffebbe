package main

// REPLACE and UID REPLACE (RFC 8508): a new version of a message in the place of the old one, as programs save drafts.

import (
	"fmt"

	"github.com/emersion/go-imap/v2"
)

// replace is REPLACE. The old message goes only when the new one is safe (RFC 8508 §3.3).
func (s *imapSession) replace(cmd *imapCommand) error {
	if err := cmd.sp(); err != nil {
		return err
	}
	old, err := s.replaced(cmd)
	if err != nil {
		return err
	}
	raw, err := s.mailboxArg(cmd)
	if err != nil {
		return err
	}
	if err := s.permitted(needTakeAway); err != nil {
		return err
	}
	folder, may, err := s.target(raw)
	if err != nil {
		return err
	}
	defer folder.Release()
	if err := folder.MayAdd(); err != nil {
		return fmt.Errorf("appending: %w", err)
	}
	freed, err := s.freed(old, folder)
	if err != nil {
		return err
	}
	m, err := s.receive(cmd, func(size int64) error { return folder.Room(Quota{size, 1}.minus(freed)) })
	m.Flags = allowedFlags(m.Flags, may)
	if m.In != nil {
		defer m.In.Discard() // harmless once appended
	}
	if err != nil {
		return err
	}
	if err := cmd.end(); err != nil {
		return err
	}
	m.Replaces = freed
	uids, err := folder.Append([]AppendMessage{m})
	if err != nil {
		return fmt.Errorf("appending: %w", err)
	}
	s.appended(folder, uids)
	s.linef("* OK [APPENDUID %d %d] The replacement is stored", folder.UIDValidity(), uids[0]) // RFC 8508 §3.4: before EXPUNGE
	if _, _, err := s.view.Folder().Expunge([]imap.UID{old}, false); err != nil {
		return fmt.Errorf("expunging: %w", err)
	}
	return nil
}

// freed is what a message that is to be replaced gives back to the quota that its replacement takes from: who has no room
// left may still save a draft that does not grow.
func (s *imapSession) freed(old imap.UID, to *Folder) (Quota, error) {
	from := s.view.Folder()
	if from.Account() != to.Account() || to.drop.Limit() == (Quota{}) {
		return Quota{}, nil
	}
	msgs, err := from.Messages(nil, []imap.UID{old}, true)
	if err != nil {
		return Quota{}, fmt.Errorf("reading the size of a message: %w", err)
	}
	return sizeOf(msgs), nil
}

// replaced takes the number of the message that is to go.
func (s *imapSession) replaced(cmd *imapCommand) (imap.UID, error) {
	n, err := cmd.setNumber()
	if err != nil {
		return 0, err
	}
	var set imap.NumSet = imap.SeqSet{{Start: n, Stop: n}}
	if cmd.uid {
		set = imap.UIDSet{{Start: imap.UID(n), Stop: imap.UID(n)}}
	}
	uids, err := s.resolve(set)
	if err == nil && len(uids) == 0 {
		err = imapNo("NONEXISTENT", "There is no such message")
	}
	if err != nil {
		return 0, err
	}
	return uids[0], nil
}
