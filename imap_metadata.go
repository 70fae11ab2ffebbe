package main

// METADATA (RFC 5464): GETMETADATA and SETMETADATA, annotations of mailboxes and of the server, and LIST-METADATA
// (RFC 9590). Private ones belong to the person who looks. Everybody's server annotations are read-only but for the
// private ones. Names that have no mailbox, though they have children, have no annotations.

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// imapMaxEntryName is how long the name of an annotation may be, in bytes.
const imapMaxEntryName = 255

// depthInfinity is DEPTH infinity.
const depthInfinity = -1

// metadataRequest is what GETMETADATA and LIST ask for.
type metadataRequest struct {
	entries []string // as the client spells them
	depth   int      // levels below them that are wanted too
	maxSize int64    // of values, in bytes; < 0: any
	longest int64    // value that was longer than maxSize, 0: none
}

// getMetadata is GETMETADATA (RFC 5464 §4.2).
func (s *imapSession) getMetadata(cmd *imapCommand) error {
	raw, req, err := s.parseGetMetadata(cmd)
	if err != nil {
		return err
	}
	name, err := s.mailboxName(raw)
	if err != nil {
		return err
	}
	if err := s.metadataResponse(name, req); err != nil {
		return err
	}
	if req.longest > 0 {
		return imapOK(fmt.Sprintf("METADATA LONGENTRIES %d", req.longest), "GETMETADATA completed")
	}
	return nil
}

// parseGetMetadata parses [options] mailbox entries. The options stand before the mailbox in the syntax of RFC 5464 §5, and
// behind it in its examples, where also several entries come without parentheses (§4.4.1): both are taken.
func (s *imapSession) parseGetMetadata(cmd *imapCommand) (mailbox string, req *metadataRequest, err error) {
	req = &metadataRequest{maxSize: -1}
	if err = cmd.sp(); err != nil {
		return "", nil, err
	}
	if cmd.peek() == '(' {
		if err = req.parseOptions(cmd); err != nil {
			return "", nil, err
		}
		if err = cmd.sp(); err != nil {
			return "", nil, err
		}
	}
	if mailbox, err = cmd.astring(); err != nil {
		return "", nil, err
	}
	if err = cmd.sp(); err != nil {
		return "", nil, err
	}
	if cmd.beginsOptions() {
		if err = req.parseOptions(cmd); err != nil {
			return "", nil, err
		}
		if err = cmd.sp(); err != nil {
			return "", nil, err
		}
	}
	if err = req.parseEntries(cmd); err != nil {
		return "", nil, err
	}
	for cmd.accept(' ') {
		if err = req.parseEntry(cmd); err != nil {
			return "", nil, err
		}
	}
	return mailbox, req, cmd.end()
}

// beginsOptions says whether a list of options is next, not one of entries, whose names begin with a slash.
func (c *imapCommand) beginsOptions() bool {
	line := c.in.line[c.pos:]
	return len(line) > 1 && line[0] == '(' && isKeywordChar(line[1])
}

// parseOptions parses (MAXSIZE n DEPTH x).
func (req *metadataRequest) parseOptions(cmd *imapCommand) error {
	return cmd.list(func() error {
		option := cmd.keyword()
		if option != "MAXSIZE" && option != "DEPTH" {
			return imapBad("GETMETADATA has no such option")
		}
		if err := cmd.sp(); err != nil {
			return err
		}
		if option == "MAXSIZE" {
			n, err := cmd.number()
			req.maxSize = int64(n)
			return err
		}
		switch cmd.keyword() {
		case "0":
			req.depth = 0
		case "1":
			req.depth = 1
		case "INFINITY":
			req.depth = depthInfinity
		default:
			return imapBad("DEPTH is 0, 1 or infinity")
		}
		return nil
	})
}

// parseEntries parses an entry or a list of them.
func (req *metadataRequest) parseEntries(cmd *imapCommand) error {
	if cmd.peek() != '(' {
		return req.parseEntry(cmd)
	}
	err := cmd.list(func() error { return req.parseEntry(cmd) })
	if err == nil && len(req.entries) == 0 {
		err = imapBad("The list of entries is empty")
	}
	return err
}

// parseEntry parses the name of an entry, or of what entries lie below.
func (req *metadataRequest) parseEntry(cmd *imapCommand) error {
	name, err := cmd.entryName()
	if err == nil && !slices.ContainsFunc(req.entries, func(have string) bool { return strings.EqualFold(have, name) }) {
		req.entries = append(req.entries, name)
	}
	return err
}

// entryName takes the name of an annotation. RFC 5464 §3.2: what cannot be one is BAD.
func (c *imapCommand) entryName() (string, error) {
	name, err := c.astring()
	if err != nil {
		return "", err
	}
	scope, _, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	switch {
	case !strings.HasPrefix(name, "/") || !strings.EqualFold(scope, "private") && !strings.EqualFold(scope, "shared"):
		return "", imapBad("The name of an annotation begins with /private/ or /shared/")
	case strings.HasSuffix(name, "/") || strings.Contains(name, "//"):
		return "", imapBad("A part of the annotation's name is empty")
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' || r == '*' || r == '%' }):
		return "", imapBad("The annotation's name has a character that it may not have")
	case len(name) > imapMaxEntryName:
		return "", imapNo("LIMIT", fmt.Sprintf("The name of an annotation may have %d bytes", imapMaxEntryName))
	}
	return name, nil
}

// metadataResponse writes the METADATA response of a mailbox, or of the server, whose name is "". There is none when there
// is nothing to tell.
func (s *imapSession) metadataResponse(name string, req *metadataRequest) error {
	all, err := s.annotations(name, req.mayWant(specialUseEntry))
	if err != nil {
		return err
	}
	b := appendMailbox([]byte("* METADATA "), name, s.utf8)
	b = append(b, " ("...)
	start := len(b)
	told := map[string]bool{}
	for _, entry := range req.entries {
		b = s.appendEntry(b, req, entry, all, told)
	}
	if len(b) > start {
		s.write(append(b[:len(b)-1], ")\r\n"...))
	}
	return nil
}

// appendEntry appends an entry and those below it that are wanted, each with its value and a space behind it. One that was
// asked for by its name alone and is not there is NIL.
func (s *imapSession) appendEntry(b []byte, req *metadataRequest, entry string, all map[string]string, told map[string]bool) []byte {
	name := strings.ToLower(entry)
	if value, ok := all[name]; ok {
		b = s.appendEntryValue(b, req, entry, value, told)
	} else if req.depth == 0 {
		b = append(appendAString(b, entry), " NIL "...)
	}
	if req.depth == 0 {
		return b
	}
	var below []string
	for other := range all {
		rest, ok := strings.CutPrefix(other, name+"/")
		if ok && (req.depth == depthInfinity || !strings.Contains(rest, "/")) {
			below = append(below, other)
		}
	}
	slices.Sort(below)
	for _, other := range below {
		b = s.appendEntryValue(b, req, other, all[other], told)
	}
	return b
}

// appendEntryValue appends an entry that is there, once, unless it is too long.
func (s *imapSession) appendEntryValue(b []byte, req *metadataRequest, entry, value string, told map[string]bool) []byte {
	name := strings.ToLower(entry)
	if told[name] {
		return b
	}
	told[name] = true
	if n := int64(len(value)); req.maxSize >= 0 && n > req.maxSize {
		req.longest = max(req.longest, n)
		return b
	}
	b = append(appendAString(b, entry), ' ')
	if strings.IndexByte(value, 0) >= 0 { // RFC 5464 §5: value = nstring / literal8
		b = append(appendLiteralHeader(b, int64(len(value)), true), value...)
	} else {
		b = appendString(b, value, s.utf8)
	}
	return append(b, ' ')
}

// appendAString appends the name of an entry, as an atom where it can be one.
func appendAString(b []byte, name string) []byte {
	for i := range len(name) {
		if !isAStringChar(name[i]) {
			return appendQuoted(b, name)
		}
	}
	return append(b, name...)
}

// mayWant says whether an entry may be asked for.
func (req *metadataRequest) mayWant(name string) bool {
	return req.depth != 0 || slices.ContainsFunc(req.entries, func(entry string) bool { return strings.EqualFold(entry, name) })
}

// annotations gives what a mailbox is annotated with, or the server, whose name is "". The special use takes a look at
// other files, if it is wanted.
func (s *imapSession) annotations(name string, withUse bool) (map[string]string, error) {
	if name == "" {
		return s.serverAnnotations()
	}
	folder, err := s.open(name, needMetadata)
	if err != nil {
		return nil, err
	}
	defer folder.Release()
	all, err := s.drop.Metadata(folder)
	if err != nil {
		return nil, err
	}
	delete(all, specialUseEntry)
	if withUse && folder.Account() == s.drop.Account() {
		use, err := s.specialUseOf(folder)
		if err != nil {
			return nil, err
		}
		if use != "" {
			all[specialUseEntry] = use
		}
	}
	return all, nil
}

// serverAnnotations gives the session's own annotations of the server, and how to reach whoever runs it (RFC 5464
// §3.2.1.1).
func (s *imapSession) serverAnnotations() (map[string]string, error) {
	all, err := s.drop.Metadata(nil)
	if owner := s.p.Accounts.Owner(); err == nil && owner != "" {
		all["/shared/admin"] = "mailto:" + url.PathEscape(owner)
	}
	return all, err
}

// specialUseOf gives the special uses of a mailbox of the session's own, "" for none.
func (s *imapSession) specialUseOf(folder *Folder) (string, error) {
	folders, err := s.drop.Folders()
	if err != nil {
		return "", err
	}
	name := folder.Name()
	for _, f := range folders {
		if f.Name == name {
			var uses []string
			for _, use := range f.SpecialUse {
				uses = append(uses, string(use))
			}
			return strings.Join(uses, " "), nil
		}
	}
	return "", nil
}

// setMetadata is SETMETADATA (RFC 5464 §4.3): all of it is done, or nothing.
func (s *imapSession) setMetadata(cmd *imapCommand) error {
	raw, err := s.mailboxArg(cmd)
	if err != nil {
		return err
	}
	if err := cmd.sp(); err != nil {
		return err
	}
	changes, err := cmd.metadataChanges()
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
	if name == "" {
		return s.setServerMetadata(changes)
	}
	return s.setMailboxMetadata(name, changes)
}

// metadataChanges takes the list of entries and values. Of an entry that comes twice, the second value counts.
func (c *imapCommand) metadataChanges() ([]MetadataChange, error) {
	var changes []MetadataChange
	err := c.list(func() error {
		name, err := c.entryName()
		if err != nil {
			return err
		}
		// RFC 5464 §3.2: an entry has two components at least, four where the first two are a scope and "vendor".
		name = strings.ToLower(name)
		parts := strings.Split(name[1:], "/")
		if len(parts) < 2 || parts[1] == "vendor" && len(parts) < 4 {
			return imapBad("The name of the annotation is only the beginning of one")
		}
		if err := c.sp(); err != nil {
			return err
		}
		change := MetadataChange{Name: name}
		change.Value, change.Remove, err = c.metadataValue()
		changes = append(changes, change)
		return err
	})
	if err == nil && len(changes) == 0 {
		err = imapBad("SETMETADATA needs an entry")
	}
	return changes, err
}

// metadataValue takes a value: a string, a literal8 or NIL. Too long a literal is refused before the client sends it.
func (c *imapCommand) metadataValue() (value string, remove bool, err error) {
	if b := c.peek(); b != '{' && b != '~' {
		s, ok, err := c.nstring()
		if err == nil && len(s) > MaxMetadataValue {
			err = errMetadataLong
		}
		return s, !ok, err
	}
	lit, err := c.literalHeader()
	if err != nil {
		return "", false, err
	}
	if lit.size > MaxMetadataValue {
		return "", false, errMetadataLong
	}
	value, err = c.literalText(lit)
	if err == nil && !lit.binary && strings.IndexByte(value, 0) >= 0 {
		err = imapBad("A value with NUL bytes needs a literal8: ~{%d}", lit.size)
	}
	return value, false, err
}

// The replies to annotations that cannot be set.
var (
	errMetadataLong = imapNo(fmt.Sprintf("METADATA MAXSIZE %d", MaxMetadataValue), fmt.Sprintf("An annotation may have %d bytes", MaxMetadataValue))
	errMetadataMany = imapNo("METADATA TOOMANY", "There are as many annotations as there may be")
)

// setServerMetadata changes the session's own annotations of the server.
func (s *imapSession) setServerMetadata(changes []MetadataChange) error {
	for _, c := range changes {
		if !strings.HasPrefix(c.Name, privatePrefix) {
			return imapNo("NOPERM", "The server's shared annotations are those of whoever runs it")
		}
	}
	return s.annotate(nil, changes)
}

// setMailboxMetadata changes the annotations of a mailbox. RFC 5464 §3.3 asks for the right to see it and one more; here,
// changing what others see takes the right to write.
func (s *imapSession) setMailboxMetadata(name string, changes []MetadataChange) error {
	need := needMetadata
	for _, c := range changes {
		if strings.HasPrefix(c.Name, sharedPrefix) {
			need |= needShare
		}
	}
	folder, err := s.open(name, need)
	if err != nil {
		return err
	}
	defer folder.Release()
	var use *MetadataChange
	var others []MetadataChange
	for i := range changes {
		if changes[i].Name == specialUseEntry {
			use = &changes[i]
		} else {
			others = append(others, changes[i])
		}
	}
	if use == nil {
		return s.annotate(folder, others)
	}
	// Both files cannot change at once: the use goes first, and back if the rest fails.
	before, err := s.specialUseOf(folder)
	if err != nil {
		return err
	}
	if err := s.setSpecialUse(folder, use.Value); err != nil {
		return err
	}
	if err := s.annotate(folder, others); err != nil {
		if undo := s.setSpecialUse(folder, before); undo != nil {
			s.c.Log.Warn("special use not set back", "error", undo)
		}
		return err
	}
	return nil
}

// annotate changes annotations of a folder, nil for the server.
func (s *imapSession) annotate(folder *Folder, changes []MetadataChange) error {
	if err := s.drop.SetMetadata(folder, changes); err != nil {
		return s.metadataReply(err)
	}
	for _, n := range s.drop.metadataNotices(folder, changes) {
		s.causedIn(n.drop.Account(), n.event)
	}
	return nil
}

// setSpecialUse gives a mailbox of the session's own its special uses, by a list of them with spaces between (RFC 6154 §4).
func (s *imapSession) setSpecialUse(folder *Folder, value string) error {
	if folder.Account() != s.drop.Account() {
		return imapNo("NOPERM", "The special use of a mailbox is its owner's to set")
	}
	var uses []imap.MailboxAttr
	for _, word := range strings.Fields(value) {
		use, ok := specialUses[strings.ToLower(word)]
		if !ok {
			return imapNo("USEATTR", "A mailbox cannot have this special use here")
		}
		uses = append(uses, use)
	}
	name := folder.Name()
	err := s.drop.SetSpecialUse(name, uses)
	if errors.Is(err, ErrUseByName) {
		return imapNo("USEATTR", "The mailbox has its use by its name")
	}
	if err == nil {
		s.causedIn(s.drop.Account(), MailboxEvent{Kind: MetadataChanged, Name: name, Entries: specialUseEntry})
	}
	return err
}

// metadataReply gives the replies to the store's errors about annotations.
func (s *imapSession) metadataReply(err error) error {
	switch {
	case errors.Is(err, ErrMetadataFull):
		return errMetadataMany
	case errors.Is(err, ErrMetadataName):
		return imapNo("CANNOT", "An annotation of this name cannot be set")
	}
	return err
}

// listMetadata is the METADATA response that follows a LIST response (RFC 9590 §3): none when the mailbox has just gone, or
// may not be read.
func (s *imapSession) listMetadata(name string, req *metadataRequest) {
	if err := s.metadataResponse(name, req); err != nil {
		s.c.Log.Debug("no metadata for LIST", "error", err)
	}
}
