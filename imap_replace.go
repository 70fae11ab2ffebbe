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
	if s.readOnly {
		return errReadOnly
	}
	folder, err := s.target(raw)
	if err != nil {
		return err
	}
	defer folder.Release()
	m, err := s.receive(cmd)
	if m.In != nil {
		defer m.In.Discard() // harmless once appended
	}
	if err != nil {
		return err
	}
	if err := cmd.end(); err != nil {
		return err
	}
	uids, err := folder.Append([]AppendMessage{m})
	if err != nil {
		return fmt.Errorf("appending: %w", err)
	}
	s.linef("* OK [APPENDUID %d %d] The replacement is stored", folder.UIDValidity(), uids[0]) // RFC 8508 §3.4: before EXPUNGE
	if _, _, err := s.view.Folder().Expunge([]imap.UID{old}, false); err != nil {
		return fmt.Errorf("expunging: %w", err)
	}
	return nil
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
