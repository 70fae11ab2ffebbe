package main

// Mailboxes as a whole: their names, NAMESPACE (RFC 2342), CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE and STATUS
// (RFC 9051 §6.3.4 to §6.3.11).

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
)

// mailboxName turns a name as it came from the client into the store's: INBOX in any case, modified UTF-7 or UTF-8 by
// session. What is neither cannot be a mailbox's name.
func (s *imapSession) mailboxName(raw string) (string, error) {
	name := raw
	if !s.utf8 && !isASCII([]byte(raw)) {
		// Clients that take IMAP4rev2 for enabled when it is only offered send UTF-8, with "&-" for "&" all the same.
		name = strings.ReplaceAll(raw, "&-", "&")
	} else if !s.utf8 {
		var err error
		if name, err = decodeMUTF7(raw); err != nil {
			return "", imapNo("CANNOT", "The mailbox name is not modified UTF-7")
		}
	}
	if !utf8.ValidString(name) {
		return "", imapNo("CANNOT", "The mailbox name is not UTF-8")
	}
	if len(name) == 5 || len(name) > 5 && name[5] == '/' {
		if strings.EqualFold(name[:5], "INBOX") {
			name = "INBOX" + name[5:]
		}
	}
	return name, nil
}

// mailboxArg parses a space and a mailbox name.
func (s *imapSession) mailboxArg(cmd *imapCommand) (string, error) {
	if err := cmd.sp(); err != nil {
		return "", err
	}
	return cmd.astring()
}

// mailboxOnly parses a mailbox name that is the command's only argument.
func (s *imapSession) mailboxOnly(cmd *imapCommand) (string, error) {
	raw, err := s.mailboxArg(cmd)
	if err != nil {
		return "", err
	}
	if err := cmd.end(); err != nil {
		return "", err
	}
	return s.mailboxName(raw)
}

// checkNewName refuses names that no mailbox should have.
func checkNewName(name string) error {
	const maxName = 240 // bytes, as modified UTF-7: a file name may have 255
	switch {
	case name == "":
		return imapNo("CANNOT", "A mailbox needs a name")
	case strings.HasPrefix(name, "/") || strings.Contains(name, "//"):
		return imapNo("CANNOT", "A level of the mailbox name is empty")
	case len(encodeMUTF7(name)) > maxName:
		return imapNo("CANNOT", fmt.Sprintf("A mailbox name may have %d bytes", maxName))
	}
	for _, r := range name {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' { // RFC 9051 §5.1
			return imapNo("CANNOT", "A mailbox name must not have control characters")
		}
	}
	return nil
}

// namespace is NAMESPACE: the personal namespace has no prefix.
func (s *imapSession) namespace(cmd *imapCommand) error {
	if err := cmd.end(); err != nil {
		return err
	}
	s.line(`* NAMESPACE (("" "/")) (("` + othersPrefix + `" "/")) NIL`)
	return nil
}

// create is CREATE (RFC 9051 §6.3.4) with USE (RFC 6154 §3).
func (s *imapSession) create(cmd *imapCommand) error {
	raw, err := s.mailboxArg(cmd)
	if err != nil {
		return err
	}
	var use []imap.MailboxAttr
	if cmd.accept(' ') {
		if use, err = parseCreateParams(cmd); err != nil {
			return err
		}
	}
	if err := cmd.end(); err != nil {
		return err
	}
	name, err := s.mailboxName(raw)
	if err != nil {
		return err
	}
	name = strings.TrimSuffix(name, "/") // RFC 9051 §6.3.4: it only says that children are to follow
	if err := checkNewName(name); err != nil {
		return err
	}
	p, err := s.locateNew(name)
	if err != nil {
		return err
	}
	defer p.leave()
	if err := p.drop.CreateFolderAs(s.claim(needCreate), p.name, use); err != nil {
		return p.fail(err)
	}
	s.caused(p, MailboxEvent{Kind: MailboxCreated, Name: p.name})
	folder, err := p.drop.Open(p.name)
	if err != nil {
		return p.fail(err)
	}
	defer folder.Release()
	id, err := mailboxID(folder) // RFC 8474 §4.1
	if err != nil {
		return err
	}
	return imapOK("MAILBOXID ("+id+")", "CREATE completed")
}

// specialUses are the special uses a folder may be given, by their names in small letters.
var specialUses = map[string]imap.MailboxAttr{
	`\archive`: imap.MailboxAttrArchive, `\drafts`: imap.MailboxAttrDrafts, `\junk`: imap.MailboxAttrJunk,
	`\sent`: imap.MailboxAttrSent, `\trash`: imap.MailboxAttrTrash,
}

// parseCreateParams parses (USE (\Sent)).
func parseCreateParams(cmd *imapCommand) ([]imap.MailboxAttr, error) {
	var use []imap.MailboxAttr
	var unknown error
	attr := func() error {
		if !cmd.accept('\\') {
			return cmd.expected("a special use")
		}
		name := cmd.takeWhile(isAtomChar)
		if a, ok := specialUses[`\`+strings.ToLower(name)]; ok {
			use = append(use, a)
		} else {
			unknown = imapNo("USEATTR", "A mailbox cannot have this special use here")
		}
		return nil
	}
	err := cmd.list(func() error {
		if cmd.keyword() != "USE" {
			return imapBad("CREATE has no such parameter")
		}
		if err := cmd.sp(); err != nil {
			return err
		}
		return cmd.list(attr)
	})
	if err == nil {
		err = unknown
	}
	return use, err
}

// delete is DELETE (RFC 9051 §6.3.5). The mailbox that the session has open is closed first.
func (s *imapSession) delete(cmd *imapCommand) error {
	name, err := s.mailboxOnly(cmd)
	if err != nil {
		return err
	}
	if name == "INBOX" {
		return ErrInboxFixed
	}
	p, err := s.locate(name)
	if err != nil {
		return err
	}
	defer p.leave()
	selected := s.view != nil && s.nameOf(s.view.Folder()) == name
	if err := p.drop.DeleteFolderAs(s.claim(needDelete), p.name); err != nil {
		return p.fail(err)
	}
	s.caused(p, MailboxEvent{Kind: MailboxDeleted, Name: p.name})
	if selected {
		s.closeView()
	}
	return nil
}

// rename is RENAME (RFC 9051 §6.3.6).
func (s *imapSession) rename(cmd *imapCommand) error {
	rawFrom, err := s.mailboxArg(cmd)
	if err != nil {
		return err
	}
	rawTo, err := s.mailboxArg(cmd)
	if err != nil {
		return err
	}
	if err := cmd.end(); err != nil {
		return err
	}
	from, err := s.mailboxName(rawFrom)
	if err != nil {
		return err
	}
	to, err := s.mailboxName(rawTo)
	if err != nil {
		return err
	}
	to = strings.TrimSuffix(to, "/")
	if err := checkNewName(to); err != nil {
		return err
	}
	if strings.HasPrefix(to, from+"/") && from != "INBOX" {
		return imapNo("CANNOT", "A mailbox cannot be moved below itself")
	}
	return s.renameFolder(from, to)
}

// renameFolder renames within one person's mail. What belongs to somebody else stays there: its messages can be copied.
func (s *imapSession) renameFolder(from, to string) error {
	ownerFrom, _, otherFrom := s.splitOther(from)
	ownerTo, inner, otherTo := s.splitOther(to)
	if otherFrom != otherTo || ownerFrom != ownerTo {
		return imapNo("CANNOT", "A mailbox cannot be moved to somebody else; copy its messages")
	}
	p, err := s.locate(from)
	if err != nil {
		return err
	}
	defer p.leave()
	if !otherTo && to == othersRoot {
		_, err = s.locateNew(to)
		return err
	}
	err = p.drop.RenameFolderAs(s.claim(needDelete), s.claim(needCreate), p.name, inner)
	if errors.Is(err, ErrInboxFixed) {
		return imapNo("CANNOT", "The INBOX of somebody else cannot be renamed")
	}
	if err != nil {
		return p.fail(err)
	}
	e := MailboxEvent{Kind: MailboxRenamed, Name: inner, OldName: p.name}
	if p.name == "INBOX" { // RFC 9051 §6.3.6: it stays, and its messages are in a new mailbox
		e = MailboxEvent{Kind: MailboxCreated, Name: inner}
	}
	s.caused(p, e)
	return nil
}

// subscribe is SUBSCRIBE (RFC 9051 §6.3.7). A name without a mailbox may be subscribed: RFC 3501 §6.3.6 lets the server
// check, and one that was deleted stays subscribed as well.
func (s *imapSession) subscribe(cmd *imapCommand) error {
	name, err := s.mailboxOnly(cmd)
	if err != nil {
		return err
	}
	if name = strings.TrimSuffix(name, "/"); name == "" {
		return imapNo("CANNOT", "A mailbox needs a name")
	}
	if err := checkNewName(name); err != nil {
		return err
	}
	return s.setSubscribed(name, true)
}

// setSubscribed changes the subscription of a mailbox.
func (s *imapSession) setSubscribed(name string, on bool) error {
	err := s.drop.Subscribe(name, on)
	if err == nil {
		s.causedIn(s.drop.Account(), MailboxEvent{Kind: SubscriptionChanged, Name: name})
	}
	return err
}

// unsubscribe is UNSUBSCRIBE (RFC 9051 §6.3.8).
func (s *imapSession) unsubscribe(cmd *imapCommand) error {
	name, err := s.mailboxOnly(cmd)
	if err != nil {
		return err
	}
	return s.setSubscribed(strings.TrimSuffix(name, "/"), false)
}

// statusItems are the items of STATUS in the order asked for, by name in capitals.
type statusItems []string

// statusItems takes the list of STATUS items.
func (c *imapCommand) statusItems() (statusItems, error) {
	var items statusItems
	err := c.list(func() error {
		name := c.keyword()
		switch name {
		case "MESSAGES", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "DELETED", "DELETED-STORAGE", "SIZE", "RECENT", "HIGHESTMODSEQ", "APPENDLIMIT", "MAILBOXID":
			for _, have := range items {
				if have == name {
					return nil
				}
			}
			items = append(items, name)
			return nil
		}
		return imapBad("STATUS has no such item")
	})
	if err == nil && len(items) == 0 {
		return nil, imapBad("STATUS needs an item")
	}
	return items, err
}

// status is STATUS (RFC 9051 §6.3.11).
func (s *imapSession) status(cmd *imapCommand) error {
	raw, err := s.mailboxArg(cmd)
	if err != nil {
		return err
	}
	if err := cmd.sp(); err != nil {
		return err
	}
	items, err := cmd.statusItems()
	if err != nil {
		return err
	}
	if err := cmd.end(); err != nil {
		return err
	}
	name, err := s.mailboxName(raw)
	if err != nil {
		return err
	}
	return s.statusOf(name, items)
}

// statusOf writes the STATUS response of a mailbox.
func (s *imapSession) statusOf(name string, items statusItems) error {
	size := false
	for _, item := range items {
		switch item {
		case "SIZE", "DELETED-STORAGE":
			size = true
		case "HIGHESTMODSEQ": // RFC 7162 §3.1: the client knows mod-sequences
			s.enableCondstore()
		}
	}
	folder, err := s.open(name, needStatus)
	if err != nil {
		return err
	}
	defer folder.Release()
	st, err := folder.Status(size)
	if err != nil {
		return fmt.Errorf("reading the status of a mailbox: %w", err)
	}
	return s.writeStatus(folder, name, &st, items)
}

// writeStatus writes a STATUS response.
func (s *imapSession) writeStatus(folder *Folder, name string, st *Status, items statusItems) error {
	b := append([]byte(nil), "* STATUS "...)
	b = appendMailbox(b, name, s.utf8)
	for i, item := range items {
		b = append(b, ' ')
		if i == 0 {
			b = append(b, '(')
		}
		b = append(append(b, item...), ' ')
		if item == "MAILBOXID" { // RFC 8474 §4.3
			id, err := mailboxID(folder)
			if err != nil {
				return err
			}
			b = append(append(append(b, '('), id...), ')')
			continue
		}
		b = strconv.AppendInt(b, st.item(item, s.p.MaxSize), 10)
	}
	s.write(append(b, ")\r\n"...))
	return nil
}

// item gives the number that a STATUS item stands for.
func (st *Status) item(name string, limit int64) int64 {
	switch name {
	case "MESSAGES":
		return int64(st.Messages)
	case "UIDNEXT":
		return int64(st.UIDNext)
	case "UIDVALIDITY":
		return int64(st.UIDValidity)
	case "UNSEEN":
		return int64(st.Unseen)
	case "DELETED":
		return int64(st.Deleted)
	case "DELETED-STORAGE": // RFC 9208 §4.1.4
		return st.DeletedSize
	case "RECENT":
		return int64(st.Recent)
	case "HIGHESTMODSEQ":
		return int64(st.HighestModSeq)
	case "APPENDLIMIT":
		return limit
	}
	return st.Size
}
