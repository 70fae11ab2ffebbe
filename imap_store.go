package main

// Commands that change messages: STORE (RFC 9051 §6.4.6, RFC 7162 §3.1.3), COPY and MOVE (§6.4.7, §6.4.8), EXPUNGE and
// UID EXPUNGE (§6.4.3, §6.4.9). Each is one batch for the store, however many messages it means.

import (
	"fmt"

	"github.com/emersion/go-imap/v2"
)

// storeRequest is a parsed STORE.
type storeRequest struct {
	set            imap.NumSet
	op             FlagOp
	silent         bool
	flags          []imap.Flag
	unchangedSince uint64
	conditional    bool // UNCHANGEDSINCE was given
}

// storeAnswers is how often a STORE looks for the state of its messages when others change them at the same time. What is
// left after that comes with a later update.
const storeAnswers = 10

// errReadOnly is the reply to a change in a mailbox opened with EXAMINE.
var errReadOnly = imapNo("READ-ONLY", "The mailbox was opened read-only")

// store is STORE.
func (s *imapSession) store(cmd *imapCommand) error {
	req, err := parseStore(cmd)
	if err != nil {
		return err
	}
	if err := s.limitFlags(req); err != nil {
		return err
	}
	if req.conditional {
		s.enableCondstore()
	}
	uids, err := s.resolve(req.set)
	if err != nil {
		return err
	}
	if len(uids) == 0 {
		return nil
	}
	_, modified, modseq, err := s.view.Folder().SetFlagsAs(s.rights, uids, req.op, req.flags, req.unchangedSince)
	if err != nil {
		return fmt.Errorf("changing flags: %w", err)
	}
	if req.silent && modseq != 0 {
		s.view.Own(modseq)
	}
	gone, err := s.answerStore(cmd, req, uids, modified)
	switch {
	case err != nil:
		return err
	case len(modified) > 0:
		return imapOK("MODIFIED "+s.numbers(cmd.uid, modified), "Conditional STORE failed for some")
	case gone && !cmd.uid:
		return imapNo("EXPUNGEISSUED", "Some of the messages are no longer there")
	}
	return nil
}

// limitFlags leaves out the flags that the user may not change. RFC 4314 §4: STORE fails only where nothing is left.
func (s *imapSession) limitFlags(req *storeRequest) error {
	if err := s.permitted(0); err != nil {
		return err
	}
	flags := allowedFlags(req.flags, s.rights)
	if len(flags) == 0 && (len(req.flags) > 0 || s.rights&flagRights == 0) {
		return ErrNoRight
	}
	req.flags = flags
	return nil
}

// parseStore parses the arguments of STORE.
func parseStore(cmd *imapCommand) (*storeRequest, error) {
	req := &storeRequest{unchangedSince: NoUnchangedSince}
	var err error
	if err = cmd.sp(); err != nil {
		return nil, err
	}
	if req.set, err = cmd.numSet(cmd.uid); err != nil {
		return nil, err
	}
	if err = cmd.sp(); err != nil {
		return nil, err
	}
	if cmd.peek() == '(' {
		if err = req.parseModifiers(cmd); err != nil {
			return nil, err
		}
	}
	switch {
	case cmd.accept('+'):
		req.op = FlagsAdd
	case cmd.accept('-'):
		req.op = FlagsRemove
	}
	switch cmd.keyword() {
	case "FLAGS":
	case "FLAGS.SILENT":
		req.silent = true
	default:
		return nil, cmd.expected("FLAGS")
	}
	if err = cmd.sp(); err != nil {
		return nil, err
	}
	if req.flags, err = cmd.storeFlags(); err != nil {
		return nil, err
	}
	return req, cmd.end()
}

// parseModifiers parses (UNCHANGEDSINCE n) and the space behind it.
func (req *storeRequest) parseModifiers(cmd *imapCommand) error {
	err := cmd.list(func() error {
		if cmd.keyword() != "UNCHANGEDSINCE" {
			return imapBad("STORE has no such modifier")
		}
		if err := cmd.sp(); err != nil {
			return err
		}
		n, err := cmd.number64()
		req.unchangedSince, req.conditional = n, true
		return err
	})
	if err != nil {
		return err
	}
	return cmd.sp()
}

// storeFlags takes flags in parentheses or without.
func (c *imapCommand) storeFlags() ([]imap.Flag, error) {
	if c.peek() == '(' {
		return c.flagList()
	}
	var flags []imap.Flag
	for {
		f, err := c.flag()
		if err != nil {
			return nil, err
		}
		if flags = append(flags, f); !c.accept(' ') {
			return flags, nil
		}
	}
}

// answerStore tells the client the flags after a STORE: those of all messages it was about unless it was silent, changed
// or not. gone says that some of them are no longer there.
func (s *imapSession) answerStore(cmd *imapCommand, req *storeRequest, uids, modified []imap.UID) (gone bool, err error) {
	var told []imap.UID
	if !req.silent {
		told = withoutUIDs(uids, modified)
	}
	for try := 0; try < storeAnswers; try++ {
		changes, err := s.view.Sync(cmd.uid)
		if err != nil {
			return false, fmt.Errorf("bringing the view in step: %w", err)
		}
		if told = s.announce(&changes, told); len(told) == 0 {
			break
		}
	}
	var msgs []Msg
	for from := 0; from < len(uids) && !cmd.uid && !gone; from += imapBatch {
		some := uids[from:min(from+imapBatch, len(uids))]
		if msgs, err = s.view.Folder().Messages(msgs, some, false); err != nil {
			return false, fmt.Errorf("reading flags: %w", err)
		}
		gone = len(msgs) < len(some)
	}
	return gone, nil
}

// withoutUIDs gives the UIDs of an ascending list that are not in another one.
func withoutUIDs(uids, without []imap.UID) []imap.UID {
	if len(without) == 0 {
		return uids
	}
	var kept []imap.UID
	for _, uid := range uids {
		for len(without) > 0 && without[0] < uid {
			without = without[1:]
		}
		if len(without) == 0 || without[0] != uid {
			kept = append(kept, uid)
		}
	}
	return kept
}

// numbers gives UIDs as a set of UIDs or of sequence numbers.
func (s *imapSession) numbers(uid bool, uids []imap.UID) string {
	if uid {
		return string(appendUIDs(nil, uids))
	}
	var seqs []uint32
	for _, u := range uids {
		if n := s.seq(u); n != 0 {
			seqs = append(seqs, n)
		}
	}
	return string(appendSeqs(nil, seqs))
}

// parseTransfer parses the arguments of COPY and MOVE and opens the mailbox they go to, with the rights in it.
func (s *imapSession) parseTransfer(cmd *imapCommand) ([]imap.UID, *Folder, Rights, error) {
	if err := cmd.sp(); err != nil {
		return nil, nil, 0, err
	}
	set, err := cmd.numSet(cmd.uid)
	if err != nil {
		return nil, nil, 0, err
	}
	raw, err := s.mailboxArg(cmd)
	if err != nil {
		return nil, nil, 0, err
	}
	if err := cmd.end(); err != nil {
		return nil, nil, 0, err
	}
	uids, err := s.resolve(set)
	if err != nil {
		return nil, nil, 0, err
	}
	to, may, err := s.target(raw)
	return uids, to, may, err
}

// copy is COPY.
func (s *imapSession) copy(cmd *imapCommand) error {
	uids, to, may, err := s.parseTransfer(cmd)
	if err != nil {
		return err
	}
	defer to.Release()
	if len(uids) == 0 {
		return imapOK("", "There was nothing to copy")
	}
	stop := s.whileWorking(cmd.tag)
	dst, err := s.view.Folder().CopyAs(may, uids, to)
	stop()
	if err != nil {
		return fmt.Errorf("copying: %w", err)
	}
	s.warnQuota(to)
	s.appended(to, dst)
	return imapOK(copyUID(to, uids, dst), "COPY completed")
}

// move is MOVE: COPYUID is told before the EXPUNGEs (RFC 6851 §3.3), which follow with the other updates. It is about the
// messages that were there to be moved, for others may have taken some away meanwhile.
func (s *imapSession) move(cmd *imapCommand) error {
	uids, to, may, err := s.parseTransfer(cmd)
	if err != nil {
		return err
	}
	defer to.Release()
	if err := s.permitted(needTakeAway); err != nil {
		return err
	}
	if len(uids) == 0 {
		return imapOK("", "There was nothing to move")
	}
	stop := s.whileWorking(cmd.tag)
	moved, dst, _, err := s.view.Folder().MoveAs(may, uids, to)
	stop()
	if err != nil {
		return fmt.Errorf("moving: %w", err)
	}
	s.appended(to, dst)
	s.line("* OK [" + copyUID(to, moved, dst) + "] Moved")
	return nil
}

// copyUID is the COPYUID response code (RFC 9051 §7.1).
func copyUID(to *Folder, src, dst []imap.UID) string {
	b := fmt.Appendf(nil, "COPYUID %d ", to.UIDValidity())
	b = append(appendUIDs(b, src), ' ')
	return string(appendUIDs(b, dst))
}

// expunge is EXPUNGE and UID EXPUNGE. Only messages that the client knows of are removed.
func (s *imapSession) expunge(cmd *imapCommand) error {
	uids := s.view.UIDs()
	if cmd.uid {
		if err := cmd.sp(); err != nil {
			return err
		}
		set, err := cmd.numSet(true)
		if err != nil {
			return err
		}
		if uids, err = s.resolve(set); err != nil {
			return err
		}
	}
	if err := cmd.end(); err != nil {
		return err
	}
	if err := s.permitted(needExpunge); err != nil {
		return err
	}
	if len(uids) == 0 {
		return nil
	}
	removed, modseq, err := s.view.Folder().Expunge(uids, true)
	if err != nil {
		return fmt.Errorf("expunging: %w", err)
	}
	return s.expungedReply(cmd, len(removed), modseq)
}
