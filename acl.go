package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The file dovecot-acl in a mailbox's directory says who else may do what in it. It has the form of Dovecot's vfile backend, and
// means what it means there:
//
//	# a remark
//	user=bob@example.org lrs
//	-user=eve@example.org w
//	anyone l :some-named-right
//	"user=somebody with blanks" lr
//
// A line is an identifier, the letters of RFC 4314 §2.1, and behind a colon rights by name. A dash before the identifier takes
// rights away. Of the lines that fit somebody, those of the most special kind of identifier count alone (aclKind); what lines
// with a dash take away, which is found in the same manner, goes off. Without the file, and without a line for the owner, the
// owner may do everything and nobody else anything.

const (
	aclName     = "dovecot-acl"
	aclLockName = "dovecot-acl.lock"
	aclListName = "dovecot-acl-list" // in the maildrop: Dovecot's own cache of the folders that have a file

	maxACLBytes   = 64 << 10 // a longer file is not read
	maxACLEntries = 500      // lines that may be added to
)

// aclKind is the kind of an identifier. A later one counts instead of an earlier one.
type aclKind uint8

const (
	aclAnyone aclKind = iota
	aclAuthenticated
	aclGroup // groups are kept for Dovecot; nobody is in one here
	aclOwner
	aclUser
	aclGroupOverride

	aclRemark // a line without meaning
)

// aclWords are the kinds as they are written. Those that end in "=" are followed by a name.
var aclWords = [...]struct {
	kind aclKind
	word string
}{
	{aclAnyone, "anyone"}, {aclAnyone, "anonymous"}, {aclAuthenticated, "authenticated"}, {aclOwner, "owner"},
	{aclGroup, "group="}, {aclUser, "user="}, {aclGroupOverride, "group-override="},
}

// aclNames are the rights by Dovecot's names.
var aclNames = map[string]Rights{
	"lookup": RightLookup, "read": RightRead, "write": RightWrite, "write-seen": RightSeen, "write-deleted": RightDeleteMessages,
	"insert": RightInsert, "post": RightPost, "expunge": RightExpunge, "create": RightCreate, "delete": RightDelete,
	"admin": RightAdmin,
}

// Grantee is somebody who may be granted rights: an account by its address, and the short name by which it may be called as
// well, "" for none. The zero Grantee is the appliance itself.
type Grantee struct{ Account, Short string }

// Identifier says whom a line of an access list is about.
type Identifier struct {
	kind aclKind
	name string // of a user or group
}

// names says whether the identifier is a user's by one of the grantee's names.
func (id Identifier) names(g Grantee) bool {
	return id.kind == aclUser && id.name != "" && (id.name == g.Account || id.name == g.Short)
}

// AccessEntry is what an access list says of one identifier.
type AccessEntry struct {
	ID       Identifier
	Negative bool // the rights are taken away
	Rights   Rights
	named    []string // rights by name that have no letter
}

// AccessList is a parsed dovecot-acl. It is not changed once others can see it.
type AccessList struct {
	lines  []aclLine
	broken error // the file cannot be read: nobody but the owner is granted anything
}

// aclLine is one line: as it stands, and what it says.
type aclLine struct {
	text string
	AccessEntry
}

// errACLLong: the file is longer than any that is meant.
var errACLLong = fmt.Errorf("it is longer than %d bytes", maxACLBytes)

// parseACL reads a file. One line that cannot be read makes all of it void, as for Dovecot: it may be one that takes rights
// away.
func parseACL(text string) *AccessList {
	l := new(AccessList)
	if len(text) > maxACLBytes {
		l.broken = errACLLong
		return l
	}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		entry, err := parseACLLine(line)
		if err != nil {
			return &AccessList{broken: fmt.Errorf("line %d: %w", n, err)}
		}
		l.lines = append(l.lines, aclLine{line, entry})
	}
	return l
}

// parseACLLine reads one line without its end.
func parseACLLine(line string) (AccessEntry, error) {
	if line == "" || line[0] == '#' {
		return AccessEntry{ID: Identifier{kind: aclRemark}}, nil
	}
	if strings.ContainsAny(line, "\x00\r") {
		return AccessEntry{}, errors.New("it has a NUL or CR in it")
	}
	word, rights, err := cutIdentifier(line)
	if err != nil {
		return AccessEntry{}, err
	}
	var e AccessEntry
	word, e.Negative = strings.CutPrefix(word, "-")
	if e.ID, err = parseIdentifier(word); err != nil {
		return AccessEntry{}, err
	}
	e.Rights, e.named, err = parseACLRights(rights)
	return e, err
}

// cutIdentifier takes the identifier, which may be quoted, off a line.
func cutIdentifier(line string) (word, rest string, err error) {
	if line[0] != '"' {
		word, rest, _ = strings.Cut(line, " ")
		return word, rest, nil
	}
	var b strings.Builder
	for i := 1; i < len(line); i++ {
		switch line[i] {
		case '\\':
			if i++; i == len(line) {
				return "", "", errors.New("its quoted identifier does not end")
			}
			b.WriteByte(line[i])
		case '"':
			rest, blank := strings.CutPrefix(line[i+1:], " ")
			if !blank && rest != "" {
				return "", "", errors.New("there is no blank behind its quoted identifier")
			}
			return b.String(), rest, nil
		default:
			b.WriteByte(line[i])
		}
	}
	return "", "", errors.New("its quoted identifier does not end")
}

// parseIdentifier reads user=NAME and the like.
func parseIdentifier(word string) (Identifier, error) {
	for _, w := range aclWords {
		if !strings.HasSuffix(w.word, "=") {
			if word == w.word {
				return Identifier{kind: w.kind}, nil
			}
		} else if name, ok := strings.CutPrefix(word, w.word); ok {
			return Identifier{w.kind, name}, nil
		}
	}
	return Identifier{}, fmt.Errorf("there is no identifier %q", word)
}

// parseACLRights reads letters and, behind a colon, names.
func parseACLRights(text string) (rights Rights, named []string, err error) {
	const blanks = " \t"
	text = strings.TrimLeft(text, blanks)
	end := strings.IndexAny(text, blanks+":")
	if end < 0 {
		end = len(text)
	}
	rights, ok := rightsOf(text[:end])
	if !ok {
		return 0, nil, fmt.Errorf("there are not all of the rights %q", text[:end])
	}
	text = strings.TrimLeft(text[end:], blanks)
	if text == "" {
		return rights, nil, nil
	}
	names, colon := strings.CutPrefix(text, ":")
	if !colon {
		return 0, nil, errors.New("rights by name begin with a colon")
	}
	for _, name := range strings.FieldsFunc(names, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		if right, ok := aclNames[name]; ok {
			rights |= right
		} else {
			named = append(named, name)
		}
	}
	return rights, named, nil
}

// String gives an identifier as the file has it.
func (id Identifier) String() string {
	for _, w := range aclWords {
		if w.kind == id.kind {
			return w.word + id.name
		}
	}
	return ""
}

// line gives an entry as the file has it.
func (e *AccessEntry) line() string {
	word := e.ID.String()
	if e.Negative {
		word = "-" + word
	}
	if strings.Contains(word, " ") {
		word = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `'`, `\'`).Replace(word) + `"`
	}
	line := word + " " + e.Rights.Letters()
	if len(e.named) > 0 {
		line += " :" + strings.Join(e.named, " ")
	}
	return line
}

// format gives the whole file.
func (l *AccessList) format() []byte {
	var b []byte
	for i := range l.lines {
		b = append(append(b, l.lines[i].text...), '\n')
	}
	return b
}

// Rights gives what somebody may do. The owner may always change the list, so that nobody locks himself out.
func (l *AccessList) Rights(g Grantee, owner bool) Rights {
	granted, taken := Rights(0), Rights(0)
	if owner {
		granted = RightsAll
	}
	if l == nil || l.broken != nil {
		return granted
	}
	fits := func(id Identifier) bool {
		switch id.kind {
		case aclAnyone, aclAuthenticated:
			return !owner
		case aclOwner:
			return owner
		}
		return id.names(g)
	}
	if e, ok := l.joined(fits, false); ok {
		granted = e.Rights
	}
	if e, ok := l.joined(fits, true); ok {
		taken = e.Rights
	}
	granted &^= taken
	if owner {
		granted |= RightAdmin
	}
	return granted
}

// joined puts together the lines of the most special kind whose identifier fits, those that grant or those that take away.
func (l *AccessList) joined(fits func(Identifier) bool, negative bool) (e AccessEntry, ok bool) {
	for i := range l.lines {
		line := &l.lines[i]
		if line.Negative != negative || !fits(line.ID) || ok && line.ID.kind < e.ID.kind {
			continue
		}
		if !ok || line.ID.kind > e.ID.kind {
			e, ok = AccessEntry{ID: line.ID, Negative: negative}, true
		}
		e.Rights |= line.Rights
		e.named = append(e.named[:len(e.named):len(e.named)], line.named...)
	}
	return e, ok
}

// Entries gives what the list says, each identifier once and once with a dash, in the order of the file.
func (l *AccessList) Entries() []AccessEntry {
	var all []AccessEntry
	if l == nil {
		return nil
	}
	for i := range l.lines {
		e := l.lines[i].AccessEntry
		same := func(have AccessEntry) bool { return have.ID == e.ID && have.Negative == e.Negative }
		if at := slices.IndexFunc(all, same); at >= 0 {
			all[at].Rights |= e.Rights
		} else if e.ID.kind != aclRemark {
			all = append(all, e)
		}
	}
	return all
}

// errACLFull: the list has as many lines as a list may have.
var errACLFull = errors.New("the access list is full")

// set gives an identifier rights, by one line in the place of those that fit; rights that have no letter stay.
func (l *AccessList) set(id Identifier, fits func(Identifier) bool, negative bool, rights Rights) error {
	e, _ := l.joined(fits, negative)
	e = AccessEntry{ID: id, Negative: negative, Rights: rights, named: e.named}
	at := slices.IndexFunc(l.lines, func(line aclLine) bool { return line.Negative == negative && fits(line.ID) })
	if at < 0 {
		if len(l.lines) >= maxACLEntries {
			return errACLFull
		}
		l.lines = append(l.lines, aclLine{e.line(), e})
		return nil
	}
	if line := &l.lines[at]; line.ID != e.ID || line.Rights != e.Rights || len(line.named) != len(e.named) {
		*line = aclLine{e.line(), e}
	}
	head := l.lines[: at+1 : at+1]
	l.lines = append(head, withoutLines(l.lines[at+1:], fits, negative)...)
	return nil
}

// remove takes out the lines that fit, and says whether there were any.
func (l *AccessList) remove(fits func(Identifier) bool, negative bool) bool {
	before := len(l.lines)
	l.lines = withoutLines(l.lines, fits, negative)
	return len(l.lines) < before
}

// Revoke takes out all that is said of a user.
func (l *AccessList) Revoke(who Grantee) {
	names := func(id Identifier) bool { return id.names(who) }
	l.remove(names, false)
	l.remove(names, true)
}

// Rename calls a user by another name.
func (l *AccessList) Rename(who Grantee, to string) {
	lines := slices.Clone(l.lines)
	for i := range lines {
		if e := &lines[i]; e.ID.names(who) {
			e.ID.name = to
			e.text = e.line()
		}
	}
	l.lines = lines
}

// withoutLines gives the lines but those that fit.
func withoutLines(lines []aclLine, fits func(Identifier) bool, negative bool) []aclLine {
	return slices.DeleteFunc(slices.Clone(lines), func(line aclLine) bool {
		return line.Negative == negative && fits(line.ID)
	})
}
