package main

// The selected mailbox: SELECT, EXAMINE, CLOSE, UNSELECT (RFC 9051 §6.3.2, §6.3.3, §6.4.1, §6.4.2) and the untagged
// updates that tell a client what has changed in it (§7.5).

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// batch is how many messages are asked of the store at once.
const imapBatch = 500

// selectFolder is SELECT and EXAMINE. When it fails no mailbox is selected (RFC 9051 §6.3.2).
func (s *imapSession) selectFolder(cmd *imapCommand) error {
	name, condstore, known, err := s.parseSelect(cmd)
	if err != nil {
		return err
	}
	hadView := s.view != nil
	s.closeView()
	if hadView && (s.rev2 || s.qresync) { // RFC 9051 §7.1, RFC 7162 §3.2.11
		s.line("* OK [CLOSED] The mailbox that was open is closed")
	}
	if name, err = s.mailboxName(name); err != nil {
		return err
	}
	if condstore {
		s.enableCondstore()
	}
	folder, err := s.open(name, needSelect)
	if err != nil {
		return err
	}
	defer folder.Release()
	st, err := folder.Status(false)
	if err != nil {
		return fmt.Errorf("selecting a mailbox: %w", err)
	}
	if s.rights, err = folder.Rights(s.who()); err != nil {
		return fmt.Errorf("selecting a mailbox: %w", err)
	}
	s.readOnly = cmd.name == "EXAMINE"
	if s.view, err = folder.NewView(!s.writable(), s.idle.changed); err != nil {
		s.view = nil
		return fmt.Errorf("selecting a mailbox: %w", err)
	}
	s.holdView()
	s.describe(name, &st)
	if known != nil {
		if err := s.resync(known); err != nil {
			s.closeView()
			return fmt.Errorf("selecting a mailbox: %w", err)
		}
	}
	s.warnQuota(folder)
	return imapOK(s.accessCode(), cmd.name+" completed")
}

// parseSelect parses the arguments of SELECT (RFC 7162 §3.1.8, §3.2.5 select-param). known is what QRESYNC has, nil
// without it.
func (s *imapSession) parseSelect(cmd *imapCommand) (name string, condstore bool, known *knownMailbox, err error) {
	if err := cmd.sp(); err != nil {
		return "", false, nil, err
	}
	if name, err = cmd.astring(); err != nil {
		return "", false, nil, err
	}
	if cmd.accept(' ') {
		err = cmd.list(func() (err error) {
			switch cmd.keyword() {
			case "CONDSTORE":
				condstore = true
			case "QRESYNC":
				known, err = s.parseKnown(cmd)
			default:
				err = imapBad("SELECT has no such parameter")
			}
			return err
		})
		if err != nil {
			return "", false, nil, err
		}
	}
	return name, condstore, known, cmd.end()
}

// describe tells what SELECT has opened (RFC 9051 §6.3.2, RFC 3501 §6.3.1).
func (s *imapSession) describe(name string, st *Status) {
	folder, uids := s.view.Folder(), s.view.UIDs()
	s.flagNames()
	s.count()
	if !s.rev2 {
		if unseen := s.view.FirstUnseen(); unseen > 0 {
			s.linef("* OK [UNSEEN %d] The first unseen message", unseen)
		}
	}
	next := st.UIDNext
	if n := len(uids); n > 0 { // one may have come since the status
		next = max(next, uids[n-1]+1)
	}
	s.linef("* OK [UIDVALIDITY %d] UIDs are valid", folder.UIDValidity())
	s.linef("* OK [UIDNEXT %d] The next UID", next)
	s.linef("* OK [HIGHESTMODSEQ %d] The highest mod-sequence", s.view.ModSeq())
	if id, err := mailboxID(folder); err == nil { // RFC 8474 §4.2
		s.linef("* OK [MAILBOXID (%s)] The mailbox's id", id)
	}
	if s.rev2 {
		b := append([]byte(nil), "* LIST () \"/\" "...)
		s.write(append(appendMailbox(b, name, s.utf8), "\r\n"...))
	}
}

// flagNames tells the flags that messages may have, and what of them can be changed.
func (s *imapSession) flagNames() {
	flags := []imap.Flag{imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagSeen, imap.FlagDraft}
	keywords := s.view.Folder().Keywords()
	for _, k := range keywords {
		if k != "" {
			flags = append(flags, imap.Flag(k))
		}
	}
	s.keywords = keywordsIn(keywords)
	s.line("* FLAGS (" + joinFlags(flags) + ")")
	if s.keywords < maxKeywords {
		flags = append(flags, imap.FlagWildcard)
	}
	permanent := allowedFlags(flags, s.rights) // RFC 4314 §5.1.1
	if s.readOnly || len(permanent) == 0 {
		s.line("* OK [PERMANENTFLAGS ()] No flags can be changed")
	} else {
		s.line("* OK [PERMANENTFLAGS (" + joinFlags(permanent) + ")] Flags that are kept")
	}
}

// joinFlags puts blanks between flags.
func joinFlags(flags []imap.Flag) string {
	var b strings.Builder
	for i, f := range flags {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(string(f))
	}
	return b.String()
}

// count tells how many messages there are, and in a rev1 session how many are recent.
func (s *imapSession) count() {
	s.linef("* %d EXISTS", len(s.view.UIDs()))
	if !s.rev2 {
		s.linef("* %d RECENT", s.view.RecentCount())
	}
}

// closeFolder is CLOSE, which expunges without telling, and UNSELECT, which does not.
func (s *imapSession) closeFolder(cmd *imapCommand) error {
	if err := cmd.end(); err != nil {
		return err
	}
	if cmd.name == "UNSELECT" || !s.may(needExpunge) { // RFC 4314 §4: CLOSE is OK without the right
		s.closeView()
		return nil
	}
	if s.condstore {
		s.update(s.wantsMessages())
	}
	if s.done {
		return nil
	}
	before := s.view.ModSeq()
	removed, modseq, err := s.view.Folder().Expunge(s.view.UIDs(), true)
	if err != nil {
		return fmt.Errorf("expunging: %w", err)
	}
	s.closeView()
	// What others have changed meanwhile has not been told, so that the client must ask from before it.
	if modseq != before+1 {
		modseq = before
	}
	return s.expungedReply(cmd, len(removed), modseq)
}

// closeView leaves the selected state.
func (s *imapSession) closeView() {
	if s.view != nil {
		s.view.Close()
	}
	s.view, s.saved, s.readOnly, s.rights = nil, nil, false, 0
	s.contexts, s.appendedUIDs, s.lateNotices = nil, nil, nil
}

// update tells what has changed: in the selected mailbox and, under NOTIFY, elsewhere. Without expunge, removed messages
// stay in the view.
func (s *imapSession) update(expunge bool) {
	s.updateSelected(expunge)
	if !s.done {
		s.tellNotices()
	}
}

// updateSelected tells what has changed in the selected mailbox.
func (s *imapSession) updateSelected(expunge bool) {
	if s.view == nil {
		return
	}
	if w := s.notify.watchOf(s.view.Folder().Account()); w != nil && s.wantsMessages() {
		w.Seen(s.view.Folder())
	}
	changes, err := s.view.Sync(expunge)
	if err != nil && !changes.Deleted {
		if errors.Is(err, ErrClosed) {
			s.done, s.bye = true, "The mailbox is no longer available"
			return
		}
		s.c.Log.Error("cannot bring the view in step", "error", err)
		return
	}
	s.announce(&changes, nil)
}

// announce writes the untagged responses for changes. also are UIDs, ascending, whose flags the client is owed besides.
// Messages that were changed since are left to the next update and given back: a client that hears of one mod-sequence
// takes all below it for told. RFC 5465 §5.2 and §7 disagree on what comes first of FETCH and ADDTO; here it is FETCH, as
// for flags (§5.1).
func (s *imapSession) announce(changes *Changes, also []imap.UID) (since []imap.UID) {
	if changes.Deleted {
		s.done, s.bye = true, "The selected mailbox has been deleted"
		return nil
	}
	if keywordsIn(s.view.Folder().Keywords()) != s.keywords && s.wantsMessages() {
		s.flagNames()
	}
	s.dropGone(changes)
	s.tellExpunged(changes)
	if changes.Exists {
		s.count()
	}
	flags := also
	if s.wantsFlags() {
		flags = mergeUIDs(changes.Flags, also)
	}
	since = s.fetchFlags(flags, changes.ModSeq, true)
	if s.condstore {
		since = mergeUIDs(since, s.fetchFlags(changes.SilentFlags, changes.ModSeq, false))
	}
	found := s.updateContexts(changes)
	s.tellNew(changes, found)
	s.tellContexts(found)
	return since
}

// tellExpunged tells of messages that are gone from the view.
func (s *imapSession) tellExpunged(changes *Changes) {
	if s.qresync {
		s.vanished(" ", imap.UIDSetNum(changes.ExpungedUIDs...))
		return
	}
	for _, seq := range changes.Expunged {
		b := append(s.c.Writer().AvailableBuffer(), "* "...)
		b = strconv.AppendUint(b, uint64(seq), 10)
		s.write(append(b, " EXPUNGE\r\n"...))
	}
}

// fetchFlags writes a FETCH response for each of the messages that were not changed after upto, and gives the others: its
// UID, its flags unless the client has asked not to be told, and its mod-sequence if it knows them (RFC 7162 §3.2).
func (s *imapSession) fetchFlags(uids []imap.UID, upto uint64, flags bool) (since []imap.UID) {
	var msgs []Msg
	var err error
	for from := 0; from < len(uids); from += imapBatch {
		msgs, err = s.view.Folder().Messages(msgs, uids[from:min(from+imapBatch, len(uids))], false)
		if err != nil {
			s.c.Log.Error("cannot read flags", "error", err)
			return since
		}
		for i := range msgs {
			if msgs[i].ModSeq > upto {
				since = append(since, msgs[i].UID)
				continue
			}
			if seq := s.seq(msgs[i].UID); seq != 0 {
				s.write(s.appendFetchFlags(s.c.Writer().AvailableBuffer(), seq, &msgs[i], flags))
			}
		}
	}
	return since
}

// appendFetchFlags appends one such response.
func (s *imapSession) appendFetchFlags(b []byte, seq uint32, m *Msg, flags bool) []byte {
	b = append(b, "* "...)
	b = strconv.AppendUint(b, uint64(seq), 10)
	b = append(b, " FETCH (UID "...)
	b = strconv.AppendUint(b, uint64(m.UID), 10)
	if flags {
		b = append(b, " FLAGS "...)
		b = s.appendFlags(b, m)
	}
	if s.condstore {
		b = append(b, " MODSEQ ("...)
		b = strconv.AppendUint(b, m.ModSeq, 10)
		b = append(b, ')')
	}
	return append(b, ")\r\n"...)
}
