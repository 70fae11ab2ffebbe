package main

// Who may do what: ACL (RFC 4314) and LIST-MYRIGHTS (RFC 8440). The store keeps the rights (folder_acl.go); imap_shared.go finds
// the mailboxes of others.

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
)

// What a verb takes of the mailboxes that it is about (RFC 4314 §4). Those it names are checked by open and by the store, the
// selected one by permitted.
const (
	needSelect  = RightRead   // SELECT, EXAMINE; all that only reads the selected mailbox needs no more
	needStatus  = RightRead   // STATUS
	needURL     = RightRead   // CATENATE: the mailbox of a URL
	needSearch  = RightRead   // ESEARCH: mailboxes that are not selected
	needQuota   = RightRead   // GETQUOTAROOT (RFC 9208 §4.1.2)
	needInsert  = RightInsert // APPEND, COPY, MOVE, REPLACE: the mailbox that the message goes to
	needCreate  = RightCreate // CREATE, RENAME: the nearest mailbox above the new name
	needDelete  = RightDelete // DELETE, RENAME: the mailbox itself
	needAdmin   = RightAdmin  // SETACL, DELETEACL, GETACL, LISTRIGHTS
	needExpunge = RightExpunge

	// MOVE, REPLACE: the mailbox that the message leaves. It is as if STORE and EXPUNGE did it (RFC 6851 §4.2, RFC 8508 §3.5).
	needTakeAway = RightDeleteMessages | RightExpunge

	// GETQUOTA, GETQUOTAROOT: the owner's quota root is told as well.
	needQuotaRoot = RightRead | RightInsert

	// GETMETADATA, and SETMETADATA of what only the user sees (RFC 5464 §3.3); NOTIFY (RFC 5465 §8).
	needMetadata = RightLookup | RightRead
	needNotify   = RightLookup | RightRead
	// SETMETADATA of what others see takes this as well.
	needShare = RightWrite

	// LIST shows mailboxes with the first of these. MYRIGHTS needs any of them.
	needList     = RightLookup
	anyForRights = RightLookup | RightRead | RightInsert | RightCreate | RightDelete | RightAdmin

	// Any of these makes a mailbox more than read-only (RFC 4314 §5.2). STORE needs those of its flags (Rights.flags); FETCH sets
	// \Seen, and APPEND, COPY and MOVE keep flags, only with the rights of these.
	anyForWriting = RightInsert | RightExpunge | flagRights
)

// permitted checks what a verb takes of the selected mailbox.
func (s *imapSession) permitted(need Rights) error {
	switch {
	case s.readOnly:
		return errReadOnly
	case s.rights&need != need:
		return ErrNoRight
	}
	return nil
}

// may says whether a right of the selected mailbox can be used.
func (s *imapSession) may(need Rights) bool { return s.permitted(need) == nil }

// writable says whether anything can be changed in the selected mailbox.
func (s *imapSession) writable() bool { return !s.readOnly && s.rights&anyForWriting != 0 }

// refreshRights looks what the user may do in the selected mailbox now, and tells the client when that has changed. Without the
// right to read the session ends (RFC 4314 §5.1.1).
func (s *imapSession) refreshRights() error {
	rights, err := s.view.Folder().Rights(s.who())
	if err != nil || rights == s.rights { // a mailbox that is gone is told with the updates
		return nil
	}
	if rights&needSelect != needSelect {
		s.done, s.bye = true, "You may no longer read the selected mailbox"
		return ErrNoRight
	}
	before := s.writable()
	s.rights = rights
	s.flagNames()
	if s.writable() != before {
		s.line("* OK [" + s.accessCode() + "] The rights have been changed")
	}
	return nil
}

// accessCode is the response code that says whether the selected mailbox can be changed.
func (s *imapSession) accessCode() string {
	if s.writable() {
		return "READ-WRITE"
	}
	return "READ-ONLY"
}

// allowedFlags gives those of the flags that may be changed with certain rights.
func allowedFlags(flags []imap.Flag, may Rights) []imap.Flag {
	if may&flagRights == flagRights {
		return flags
	}
	return slices.DeleteFunc(slices.Clone(flags), func(f imap.Flag) bool {
		if system := systemFlag(f); system != 0 {
			return may.flags()&system == 0
		}
		return may.keywords() == 0
	})
}

// myRights is MYRIGHTS.
func (s *imapSession) myRights(cmd *imapCommand) error {
	name, err := s.mailboxOnly(cmd)
	if err != nil {
		return err
	}
	p, err := s.locate(name)
	if err != nil {
		return err
	}
	defer p.leave()
	rights, err := p.drop.Rights(p.name, s.who())
	if err != nil {
		return p.fail(err)
	}
	if rights&anyForRights == 0 {
		return ErrNoFolder
	}
	s.myRightsLine(name, rights)
	return nil
}

// myRightsLine writes a MYRIGHTS response.
func (s *imapSession) myRightsLine(name string, rights Rights) {
	b := appendMailbox([]byte("* MYRIGHTS "), name, s.utf8)
	s.write(append(appendRights(append(b, ' '), rights), "\r\n"...))
}

// appendRights appends rights with the virtual ones of RFC 4314 §2.1.1, where c is k and x, and d is t and e.
func appendRights(b []byte, rights Rights) []byte {
	if rights == 0 {
		return append(b, `""`...)
	}
	b = append(b, rights.Letters()...)
	if rights&(RightCreate|RightDelete) != 0 {
		b = append(b, 'c')
	}
	if rights&(RightDeleteMessages|RightExpunge) != 0 {
		b = append(b, 'd')
	}
	return b
}

// rightsChange is the third argument of SETACL.
type rightsChange struct {
	how    byte // '+', '-', or 0: replace
	rights Rights
}

// parseRights reads rights to set, to add or to take away. RFC 4314 §3.1: what is not known is BAD.
func parseRights(text string) (change rightsChange, err error) {
	if text != "" && (text[0] == '+' || text[0] == '-') {
		change.how, text = text[0], text[1:]
	}
	for _, letter := range text {
		right, known := rightsOf(string(letter))
		switch {
		case letter == 'c':
			right = RightCreate | RightDelete
		case letter == 'd':
			right = RightDeleteMessages | RightExpunge
		case letter >= 'A' && letter <= 'Z':
			return change, imapBad("Uppercase rights are not allowed")
		case !known:
			return change, imapBad("The %c right is not supported", letter)
		}
		change.rights |= right
	}
	return change, nil
}

// of gives what becomes of rights.
func (c rightsChange) of(old Rights) Rights {
	switch c.how {
	case '+':
		return old | c.rights
	case '-':
		return old &^ c.rights
	}
	return c.rights
}

// subject is whom SETACL, DELETEACL or LISTRIGHTS is about.
type subject struct {
	id       Identifier
	negative bool
	owner    bool
	fits     func(Identifier) bool // the identifiers of a list that mean the same
}

// byDefault are the rights without a line in the list.
func (who subject) byDefault() Rights {
	if who.owner && !who.negative {
		return RightsAll
	}
	return 0
}

// always gives rights as they can be: the owner's to change rights cannot be taken away.
func (who subject) always(rights Rights) Rights {
	switch {
	case who.owner && who.negative:
		return rights &^ RightAdmin
	case who.owner:
		return rights | RightAdmin
	}
	return rights
}

// errIdentifier is the answer to an identifier that is nobody's.
var errIdentifier = imapNo("CANNOT", `The identifier must be an account here, "anyone" or "authenticated"`)

// subject finds out whom an identifier means in the access list of a mailbox of owner: an account by its address or local part,
// anyone, authenticated, or owner as Dovecot has it; a dash before it means the rights that are taken away.
func (s *imapSession) subject(text, owner string) (subject, error) {
	var who subject
	text, who.negative = strings.CutPrefix(text, "-")
	kind := map[string]aclKind{"anyone": aclAnyone, "authenticated": aclAuthenticated, "owner": aclOwner}
	if k, ok := kind[strings.ToLower(text)]; ok && k != aclOwner {
		who.id.kind = k
		who.fits = func(id Identifier) bool { return id.kind == k }
		return who, nil
	} else if ok {
		text = owner
	}
	account := s.p.Accounts.Find(text)
	if account == "" {
		return who, errIdentifier
	}
	names := Grantee{account, s.p.Accounts.ShortName(account)}
	who.id, who.owner = Identifier{aclUser, account}, account == owner
	if who.owner {
		who.id = Identifier{kind: aclOwner}
	}
	who.fits = func(id Identifier) bool { return id.names(names) || who.owner && id.kind == aclOwner }
	return who, nil
}

// identifierName is how an identifier of an access list is told to clients: accounts by their address, groups as Dovecot has
// them.
func (s *imapSession) identifierName(e AccessEntry, owner string) string {
	name := e.ID.String()
	switch e.ID.kind {
	case aclOwner:
		name = owner
	case aclUser:
		if name = e.ID.name; s.p.Accounts.ByShortName(name) != "" {
			name = s.p.Accounts.ByShortName(name)
		}
	case aclGroup:
		name = "$" + e.ID.name
	case aclGroupOverride:
		name = "!$" + e.ID.name
	}
	if e.Negative {
		return "-" + name
	}
	return name
}

// identifierArg parses a space and an identifier.
func (c *imapCommand) identifierArg() (string, error) {
	if err := c.sp(); err != nil {
		return "", err
	}
	id, err := c.astring()
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	if err == nil && (id == "" || id == "-" || !utf8.ValidString(id) || strings.ContainsFunc(id, control)) {
		err = imapBad("An identifier is a name without control characters")
	}
	return id, err
}

// aclArgs parses the mailbox and the identifier of a command.
func (s *imapSession) aclArgs(cmd *imapCommand) (name, id string, err error) {
	raw, err := s.mailboxArg(cmd)
	if err != nil {
		return "", "", err
	}
	if id, err = cmd.identifierArg(); err != nil {
		return "", "", err
	}
	name, err = s.mailboxName(raw)
	return name, id, err
}

// administer finds a mailbox whose access list the user may change.
func (s *imapSession) administer(name string) (place, error) {
	p, err := s.locate(name)
	if err != nil {
		return p, err
	}
	rights, err := p.drop.Rights(p.name, s.who())
	if err == nil {
		err = s.claim(needAdmin).check(rights)
	}
	if err != nil {
		p.leave()
	}
	return p, p.fail(err)
}

// aclTarget parses the arguments of a command that has no more than a mailbox and an identifier, and finds the mailbox.
func (s *imapSession) aclTarget(cmd *imapCommand) (name, id string, p place, err error) {
	if name, id, err = s.aclArgs(cmd); err != nil {
		return "", "", place{}, err
	}
	if err = cmd.end(); err != nil {
		return "", "", place{}, err
	}
	p, err = s.administer(name)
	return name, id, p, err
}

// setACL is SETACL (RFC 4314 §3.1).
func (s *imapSession) setACL(cmd *imapCommand) error {
	name, id, err := s.aclArgs(cmd)
	if err != nil {
		return err
	}
	if err := cmd.sp(); err != nil {
		return err
	}
	text, err := cmd.astring()
	if err != nil {
		return err
	}
	if err := cmd.end(); err != nil {
		return err
	}
	change, err := parseRights(text)
	if err != nil {
		return err
	}
	p, err := s.administer(name)
	if err != nil {
		return err
	}
	defer p.leave()
	who, err := s.subject(id, p.drop.Account())
	if err != nil {
		return err
	}
	var asked, given Rights
	err = p.drop.ChangeACL(s.claim(needAdmin), p.name, func(l *AccessList) (err error) {
		asked, given, err = change.apply(l, who)
		return err
	})
	if err != nil {
		return p.fail(err)
	}
	return s.aclChanged(name, p, given != asked)
}

// apply makes the change in a list, and gives the rights that were asked for and those that were given.
func (c rightsChange) apply(l *AccessList, who subject) (asked, given Rights, err error) {
	e, ok := l.joined(who.fits, who.negative)
	if !ok {
		e.Rights = who.byDefault()
	}
	asked = c.of(e.Rights)
	given = who.always(asked)
	if !ok && c.how != 0 && asked == e.Rights {
		return asked, given, nil // a line without rights would take those away that others give
	}
	return asked, given, l.set(who.id, who.fits, who.negative, given)
}

// aclChanged follows a change: the client is told the list when it is another one than it asked for (RFC 4314 §5.1.1), and its
// rights in the selected mailbox.
func (s *imapSession) aclChanged(name string, p place, tell bool) error {
	if tell {
		if err := s.tellACL(name, p); err != nil {
			return err
		}
	}
	if s.view == nil {
		return nil
	}
	if err := s.refreshRights(); err != nil {
		s.c.Log.Debug("the session has taken its own rights away", "error", err)
	}
	return nil
}

// deleteACL is DELETEACL (RFC 4314 §3.2). Whoever is in the list can be taken out, also one who is no account any more.
func (s *imapSession) deleteACL(cmd *imapCommand) error {
	name, text, p, err := s.aclTarget(cmd)
	if err != nil {
		return err
	}
	defer p.leave()
	owner := p.drop.Account()
	who, unknown := s.subject(text, owner)
	err = p.drop.ChangeACL(s.claim(needAdmin), p.name, func(l *AccessList) error {
		if unknown == nil {
			l.remove(who.fits, who.negative)
			return nil
		}
		_, negative := strings.CutPrefix(text, "-")
		same := func(id Identifier) bool {
			return s.identifierName(AccessEntry{ID: id, Negative: negative}, owner) == text
		}
		if !l.remove(same, negative) {
			return unknown
		}
		return nil
	})
	if err != nil {
		return p.fail(err)
	}
	return s.aclChanged(name, p, false)
}

// getACL is GETACL (RFC 4314 §3.3).
func (s *imapSession) getACL(cmd *imapCommand) error {
	name, err := s.mailboxOnly(cmd)
	if err != nil {
		return err
	}
	p, err := s.locate(name)
	if err != nil {
		return err
	}
	defer p.leave()
	return p.fail(s.tellACL(name, p))
}

// tellACL writes the ACL response of a mailbox. What the owner may do without a line for it is told as well.
func (s *imapSession) tellACL(name string, p place) error {
	list, err := p.drop.ACL(s.claim(needAdmin), p.name)
	if err != nil {
		return err
	}
	owner, entries := p.drop.Account(), list.Entries()
	said := func(e AccessEntry) bool { return !e.Negative && s.identifierName(e, owner) == owner }
	if !slices.ContainsFunc(entries, said) {
		entries = append([]AccessEntry{{ID: Identifier{kind: aclOwner}, Rights: RightsAll}}, entries...)
	}
	b := appendMailbox([]byte("* ACL "), name, s.utf8)
	for _, e := range entries {
		b = appendString(append(b, ' '), s.identifierName(e, owner), s.utf8)
		b = appendRights(append(b, ' '), e.Rights)
	}
	s.write(append(b, "\r\n"...))
	return nil
}

// listRights is LISTRIGHTS (RFC 4314 §3.4): no rights are tied together, and the owner always has the right to change them.
func (s *imapSession) listRights(cmd *imapCommand) error {
	name, text, p, err := s.aclTarget(cmd)
	if err != nil {
		return err
	}
	defer p.leave()
	who, err := s.subject(text, p.drop.Account())
	if err != nil {
		return err
	}
	required, optional := `""`, RightsAll
	if who.owner && !who.negative {
		required, optional = "a", RightsAll&^RightAdmin
	}
	b := appendMailbox([]byte("* LISTRIGHTS "), name, s.utf8)
	b = appendString(append(b, ' '), text, s.utf8)
	b = fmt.Appendf(b, " %s %s c d\r\n", required, strings.Join(strings.Split(optional.Letters(), ""), " "))
	s.write(b)
	return nil
}
