package main

// The IMAP session: RFC 3501 (IMAP4rev1) and RFC 9051 (IMAP4rev2), with IDLE (2177), NAMESPACE (2342), UIDPLUS (4315),
// ESEARCH (4731), SEARCHRES (5182), ENABLE (5161), SASL-IR (4959), LIST-EXTENDED (5258), LIST-STATUS (5819), SPECIAL-USE
// and CREATE-SPECIAL-USE (6154), MOVE (6851), LITERAL+ (7888), STATUS=SIZE (8438), BINARY (3516), UNSELECT (3691),
// CHILDREN (3348), APPENDLIMIT (7889), MULTIAPPEND (3502), ID (2971), UTF8=ACCEPT (6855), CONDSTORE and QRESYNC (7162), COMPRESS=DEFLATE
// (4978), OBJECTID (8474), PREVIEW (8970), REPLACE (8508), INPROGRESS (9585), UNAUTHENTICATE (8437), CATENATE (4469),
// SORT and THREAD (5256, 5957), ESORT, CONTEXT=SEARCH and CONTEXT=SORT (5267), I18NLEVEL=1 (5255), WITHIN (5032),
// SEARCH=FUZZY (6203), PARTIAL (9394), SAVEDATE (8514), MULTISEARCH (7377), NOTIFY (5465), QUOTA (9208), METADATA (5464),
// LIST-METADATA (9590), ACL (4314) and LIST-MYRIGHTS (8440).
//
// This file holds the session, its states and the table of verbs. imap_wire.go tells how a verb is written.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

const (
	imapIdleTime     = 30 * time.Minute // RFC 9051 §5.4: at least 30 minutes
	imapMaxBad       = 20               // bad commands in a row before the session is ended
	imapMaxAnonDrain = 1 << 20          // bytes skipped behind a refused command before login
)

// imapState is the state of a session (RFC 9051 §3), as a set where a verb may be used in several.
type imapState uint8

const (
	imapAnonymous imapState = 1 << iota // not authenticated
	imapLoggedIn                        // authenticated
	imapSelected

	imapAny  = imapAnonymous | imapLoggedIn | imapSelected
	imapAuth = imapLoggedIn | imapSelected
)

// imapVerb is a line of the table of verbs.
type imapVerb struct {
	run     func(*imapSession, *imapCommand) error
	states  imapState
	uid     bool // has a UID form as well
	quiet   bool // no EXPUNGE responses without UID (RFC 9051 §7.5.1)
	leaves  bool // has nothing to do with the mailbox that is selected but leave it
	removes bool // it removes messages, of which the client is told whatever NOTIFY says
}

// imapVerbs is the table of verbs.
var imapVerbs = map[string]imapVerb{
	"CAPABILITY":     {run: (*imapSession).capability, states: imapAny},
	"NOOP":           {run: (*imapSession).noop, states: imapAny},
	"LOGOUT":         {run: (*imapSession).logout, states: imapAny, leaves: true},
	"ID":             {run: (*imapSession).identify, states: imapAny},
	"STARTTLS":       {run: (*imapSession).startTLS, states: imapAnonymous},
	"COMPRESS":       {run: (*imapSession).compress, states: imapAuth},
	"LOGIN":          {run: (*imapSession).login, states: imapAnonymous},
	"AUTHENTICATE":   {run: (*imapSession).authenticate, states: imapAnonymous},
	"UNAUTHENTICATE": {run: (*imapSession).unauthenticate, states: imapAuth, leaves: true},
	"ENABLE":         {run: (*imapSession).enable, states: imapAuth},
	"NAMESPACE":      {run: (*imapSession).namespace, states: imapAuth},
	"LIST":           {run: (*imapSession).list, states: imapAuth},
	"LSUB":           {run: (*imapSession).lsub, states: imapAuth},
	"CREATE":         {run: (*imapSession).create, states: imapAuth},
	"DELETE":         {run: (*imapSession).delete, states: imapAuth},
	"RENAME":         {run: (*imapSession).rename, states: imapAuth},
	"SUBSCRIBE":      {run: (*imapSession).subscribe, states: imapAuth},
	"UNSUBSCRIBE":    {run: (*imapSession).unsubscribe, states: imapAuth},
	"GETQUOTA":       {run: (*imapSession).getQuota, states: imapAuth},
	"GETQUOTAROOT":   {run: (*imapSession).getQuotaRoot, states: imapAuth},
	"SETQUOTA":       {run: (*imapSession).setQuota, states: imapAuth},
	"GETMETADATA":    {run: (*imapSession).getMetadata, states: imapAuth},
	"SETMETADATA":    {run: (*imapSession).setMetadata, states: imapAuth},
	"STATUS":         {run: (*imapSession).status, states: imapAuth},
	"SETACL":         {run: (*imapSession).setACL, states: imapAuth},
	"DELETEACL":      {run: (*imapSession).deleteACL, states: imapAuth},
	"GETACL":         {run: (*imapSession).getACL, states: imapAuth},
	"LISTRIGHTS":     {run: (*imapSession).listRights, states: imapAuth},
	"MYRIGHTS":       {run: (*imapSession).myRights, states: imapAuth},
	"APPEND":         {run: (*imapSession).append, states: imapAuth},
	"SELECT":         {run: (*imapSession).selectFolder, states: imapAuth, leaves: true},
	"EXAMINE":        {run: (*imapSession).selectFolder, states: imapAuth, leaves: true},
	"IDLE":           {run: (*imapSession).idleCommand, states: imapAuth},
	"CHECK":          {run: (*imapSession).noop, states: imapSelected},
	"CANCELUPDATE":   {run: (*imapSession).cancelUpdate, states: imapSelected},
	"ESEARCH":        {run: (*imapSession).esearch, states: imapAuth},
	"NOTIFY":         {run: (*imapSession).setNotify, states: imapAuth},
	"CLOSE":          {run: (*imapSession).closeFolder, states: imapSelected},
	"UNSELECT":       {run: (*imapSession).closeFolder, states: imapSelected, leaves: true},
	"EXPUNGE":        {run: (*imapSession).expunge, states: imapSelected, uid: true, removes: true},
	"STORE":          {run: (*imapSession).store, states: imapSelected, uid: true, quiet: true},
	"COPY":           {run: (*imapSession).copy, states: imapSelected, uid: true},
	"MOVE":           {run: (*imapSession).move, states: imapSelected, uid: true, removes: true},
	"REPLACE":        {run: (*imapSession).replace, states: imapSelected, uid: true, removes: true},
	"FETCH":          {run: (*imapSession).fetch, states: imapSelected, uid: true, quiet: true},
	"SEARCH":         {run: (*imapSession).search, states: imapSelected, uid: true, quiet: true},
	"SORT":           {run: (*imapSession).search, states: imapSelected, uid: true, quiet: true},
	"THREAD":         {run: (*imapSession).thread, states: imapSelected, uid: true, quiet: true},
}

// What the session announces before and after login, besides what depends on TLS and limits.
var (
	imapCapsBefore = []string{"IMAP4rev1", "IMAP4rev2", "LITERAL+", "SASL-IR", "ENABLE", "ID"}
	imapCapsAfter  = []string{"IMAP4rev1", "IMAP4rev2", "LITERAL+", "SASL-IR", "ENABLE", "ID", "IDLE", "NAMESPACE", "UIDPLUS",
		"ESEARCH", "SEARCHRES", "LIST-EXTENDED", "LIST-STATUS", "SPECIAL-USE", "CREATE-SPECIAL-USE", "MOVE", "STATUS=SIZE",
		"BINARY", "UNSELECT", "CHILDREN", "MULTIAPPEND", "UTF8=ACCEPT", "CONDSTORE", "OBJECTID", "PREVIEW",
		"REPLACE", "INPROGRESS", "CATENATE",
		"QRESYNC", "SORT", "SORT=DISPLAY", "ESORT", "THREAD=ORDEREDSUBJECT", "THREAD=REFERENCES", "THREAD=REFS", "I18NLEVEL=1",
		"WITHIN", "SEARCH=FUZZY", "PARTIAL", "SAVEDATE", "CONTEXT=SEARCH", "CONTEXT=SORT", "MULTISEARCH", "NOTIFY",
		"QUOTA", "QUOTA=RES-STORAGE", "QUOTA=RES-MESSAGE", "METADATA", "LIST-METADATA", "ACL", "RIGHTS=texk", "LIST-MYRIGHTS"}
)

// errReplied says that a verb has written its tagged reply itself.
var errReplied = errors.New("replied already")

// imapSession is one client's session. Only its own goroutine uses it, but while it waits in IDLE or under NOTIFY, when
// push may.
type imapSession struct {
	ctx  context.Context
	c    *Conn
	p    *Protocols
	in   imapInput
	idle idleState

	drop     *Maildrop // from login on
	view     *View     // in the selected state
	readOnly bool      // EXAMINE
	rights   Rights    // in the selected mailbox, as last looked up
	saved    []imap.UID
	contexts []*searchContext // of the selected mailbox

	notify       *notifier    // nil until NOTIFY is used
	appendedUIDs []imap.UID   // messages that the session has put into the selected mailbox since it was last told
	lateNotices  []lateNotice // what is still to be told of new messages in it

	rev2      bool // ENABLE IMAP4rev2
	utf8      bool // names and quoted strings are UTF-8: rev2 or UTF8=ACCEPT
	condstore bool // the client has used CONDSTORE: MODSEQ goes with FLAGS
	qresync   bool // ENABLE QRESYNC: VANISHED instead of EXPUNGE

	utf8Accept bool // ENABLE UTF8=ACCEPT

	keywords int // how many the client knows of

	bad  int    // bad commands in a row
	bye  string // the session ends after the command; what BYE says, "" when it has been said
	done bool
}

// serveIMAP speaks IMAP until the client logs out, the connection ends or the appliance shuts down.
func serveIMAP(ctx context.Context, c *Conn, p *Protocols) {
	s := &imapSession{ctx: ctx, c: c, p: p}
	s.in = imapInput{reader: c.Reader, writer: c.Writer, maxLiterals: imapMaxAnonymous, maxDrain: imapMaxAnonDrain}
	s.idle.init(s)
	defer s.release()
	s.line("* OK [CAPABILITY " + s.capabilities() + "] " + imapText(p.Hostname) + " IMAP ready")
	for !s.done {
		s.command()
	}
	s.farewell()
	c.Writer().Flush()
}

// release gives back what the session holds of the store.
func (s *imapSession) release() {
	s.idle.wait()
	s.endNotify()
	s.closeView()
	if s.drop != nil {
		s.drop.Release()
		s.drop = nil
	}
}

// farewell says BYE where that is due: not after LOGOUT, nor to a client that has gone.
func (s *imapSession) farewell() {
	var timeout net.Error
	switch {
	case s.bye != "":
		s.sayBye()
	case s.in.err == nil:
	case s.c.Closing():
		s.line("* BYE The server is shutting down")
	case errors.As(s.in.err, &timeout) && timeout.Timeout():
		s.line("* BYE Nothing was heard for too long")
	}
}

// sayBye says BYE with s.bye, once.
func (s *imapSession) sayBye() {
	if s.bye != "" {
		s.line("* BYE " + s.bye)
		s.bye = ""
	}
}

// command reads and runs one command.
func (s *imapSession) command() {
	if err := s.await(s.pushes()); err != nil || s.done {
		s.done = true
		return
	}
	s.runLine(s.in.next())
}

// runLine runs the command that begins with the line just read, and writes its reply.
func (s *imapSession) runLine(err error) {
	cmd := &imapCommand{in: &s.in}
	if err == nil || errors.Is(err, errCommandTooLong) {
		parseErr := cmd.head()
		if err != nil {
			err = imapBad("A command line may have %d bytes", imapMaxLine)
		} else if err = parseErr; err == nil {
			err = s.run(cmd)
		}
	}
	if drainErr := s.in.drain(); drainErr != nil {
		if s.done = true; s.in.err == nil {
			s.bye = "More data follows than can be skipped"
		}
	}
	if s.in.err != nil {
		s.done = true
		return
	}
	s.reply(cmd, err)
}

// head parses the tag, UID and the verb.
func (c *imapCommand) head() error {
	tag := c.takeWhile(func(b byte) bool { return b != '+' && isAStringChar(b) })
	if tag == "" {
		return c.expected("a tag")
	}
	if !c.atEnd() && c.peek() != ' ' {
		return c.expected("a space behind the tag")
	}
	c.tag = tag
	if err := c.sp(); err != nil {
		return err
	}
	c.name = c.keyword()
	if c.name == "UID" && c.accept(' ') {
		c.uid, c.name = true, c.keyword()
	}
	if c.name == "" || !c.atEnd() && c.peek() != ' ' {
		return c.expected("a command")
	}
	return nil
}

// run finds the verb and runs it, then tells what has changed in the folder.
func (s *imapSession) run(cmd *imapCommand) error {
	verb, ok := imapVerbs[cmd.name]
	if !ok || cmd.uid && !verb.uid {
		return imapBad("There is no such command")
	}
	if state := s.state(); verb.states&state == 0 {
		return imapBad("%s", wrongState(verb.states, state))
	}
	s.c.Begins(cmd.name)
	if cmd.name != "IDLE" {
		s.p.text.enter()
		defer s.p.text.leave()
	}
	var err error
	if s.view != nil && !verb.leaves {
		err = s.refreshRights()
	}
	if err == nil {
		err = verb.run(s, cmd)
	}
	if errors.Is(err, ErrClosed) {
		s.done, s.bye = true, "The account is no longer available"
	}
	if s.in.err != nil || s.done {
		return err
	}
	s.update(verb.removes || s.wantsMessages() && (!verb.quiet || cmd.uid))
	return err
}

// state gives the state that the session is in.
func (s *imapSession) state() imapState {
	switch {
	case s.drop == nil:
		return imapAnonymous
	case s.view == nil:
		return imapLoggedIn
	}
	return imapSelected
}

// wrongState says why a verb cannot be used now.
func wrongState(want, have imapState) string {
	switch {
	case have == imapAnonymous:
		return "Log in first"
	case want == imapAnonymous:
		return "You are logged in already"
	}
	return "Select a mailbox first"
}

// reply writes the tagged reply for what a verb has returned, and counts bad commands.
func (s *imapSession) reply(cmd *imapCommand, err error) {
	if errors.Is(err, errReplied) {
		return
	}
	r := s.replyOf(cmd, err)
	tag := cmd.tag
	if tag == "" {
		tag = "*"
	}
	s.line(tag + " " + r.Error())
	if r.status != "BAD" {
		s.bad = 0
		return
	}
	if s.bad++; s.bad >= imapMaxBad && !s.done {
		s.done, s.bye = true, "Too many bad commands"
	}
}

// replyOf turns what a verb has returned into a reply. The text of an unknown error never reaches the client.
func (s *imapSession) replyOf(cmd *imapCommand, err error) *imapReply {
	var r *imapReply
	switch {
	case err == nil:
		name := cmd.name
		if cmd.uid {
			name = "UID " + name
		}
		return imapOK("", name+" completed")
	case errors.As(err, &r):
		return r
	case errors.Is(err, ErrDiskFull):
		s.c.Log.Error("disk is full", "command", cmd.name, "error", err)
		return imapNo("OVERQUOTA", "The disk is full")
	case errors.Is(err, ErrOverQuota), errors.Is(err, ErrAboveQuota):
		return errOverQuota
	case errors.Is(err, ErrClosed):
		return imapNo("UNAVAILABLE", "The account is no longer available")
	case errors.Is(err, ErrNoFolder):
		return imapNo("NONEXISTENT", "There is no such mailbox")
	case errors.Is(err, ErrNoRight):
		return imapNo("NOPERM", "You do not have the right to do this")
	case errors.Is(err, errACLFull):
		return imapNo("LIMIT", fmt.Sprintf("An access list may have %d lines", maxACLEntries))
	case errors.Is(err, ErrAccessList):
		s.c.Log.Error("access list not read", "command", cmd.name, "error", err)
		return imapNo("CANNOT", "The access list of the mailbox cannot be read; the server's log tells where")
	case errors.Is(err, ErrExists):
		return imapNo("ALREADYEXISTS", "There is such a mailbox already")
	case errors.Is(err, ErrBadName):
		return imapNo("CANNOT", "A mailbox cannot have this name")
	case errors.Is(err, ErrInboxFixed):
		return imapNo("CANNOT", "INBOX cannot be deleted")
	case errors.Is(err, ErrExpunged):
		return imapNo("EXPUNGEISSUED", "Some of the messages are no longer there")
	case errors.Is(err, ErrWaiting):
		return imapNo("CANNOT", "Mail that waits to be sent can be moved to Drafts or Trash alone, and is not sent then")
	case errors.Is(err, ErrNotSentFrom):
		return imapNo("CANNOT", "What is put into the Outbox is not sent: write the message, or open it as a draft, and send it")
	case errors.Is(err, ErrKeywords):
		return imapNo("LIMIT", "The mailbox has no room for more keywords")
	}
	s.c.Log.Error("command failed", "command", cmd.name, "error", err)
	return imapNo("SERVERBUG", "The server could not do this; its log tells why")
}

// write puts wire form into the connection's buffer.
func (s *imapSession) write(b []byte) { s.c.Writer().Write(b) }

// line writes one line.
func (s *imapSession) line(text string) {
	w := s.c.Writer()
	w.WriteString(text)
	w.WriteString("\r\n")
}

// linef writes one line from a format.
func (s *imapSession) linef(format string, args ...any) {
	fmt.Fprintf(s.c.Writer(), format+"\r\n", args...)
}

// resolve gives the UIDs of the view that a set means, ascending. UIDs that are not there are left out; a sequence number
// beyond the end is BAD (RFC 9051 §9 seq-number).
func (s *imapSession) resolve(set imap.NumSet) ([]imap.UID, error) {
	uids := s.view.UIDs()
	switch set := set.(type) {
	case imap.SeqSet:
		return resolveSeqs(uids, set)
	case imap.UIDSet:
		if imap.IsSearchRes(set) {
			return intersectUIDs(s.saved, uids), nil
		}
		return resolveUIDs(uids, set), nil
	}
	return nil, fmt.Errorf("resolving a set of type %T", set)
}

// resolveSeqs finds sequence numbers in a view. The set is tidy (tidySet).
func resolveSeqs(uids []imap.UID, set imap.SeqSet) ([]imap.UID, error) {
	last := uint32(len(uids))
	for _, r := range set {
		if n := max(r.Start, r.Stop, 1); n > last {
			return nil, imapBad("The mailbox has %d messages, so there is no message %d", last, n)
		}
	}
	return seqsWithin(uids, set), nil
}

// seqsWithin is resolveSeqs that leaves out what is beyond the end.
func seqsWithin(uids []imap.UID, set imap.SeqSet) []imap.UID {
	last := uint32(len(uids))
	var found []imap.UID
	var upto uint32 // taken so far
	for _, r := range set {
		lo, hi := r.Start, r.Stop
		if lo == 0 {
			lo = last
		}
		if hi == 0 {
			hi = last
		}
		lo, hi = min(lo, hi), min(max(lo, hi), last)
		if lo = max(lo, upto+1); lo <= hi {
			found = append(found, uids[lo-1:hi]...)
			upto = hi
		}
	}
	return found
}

// resolveUIDs finds UIDs in a view. The set is tidy (tidySet).
func resolveUIDs(uids []imap.UID, set imap.UIDSet) []imap.UID {
	if len(uids) == 0 {
		return nil
	}
	last := uids[len(uids)-1]
	var found []imap.UID
	from := 0 // taken so far
	for _, r := range set {
		lo, hi := r.Start, r.Stop
		if lo == 0 {
			lo = last
		}
		if hi == 0 { // RFC 9051 §9: n:* has the last message even when n is beyond it
			lo, hi = min(lo, last), max(lo, last)
		}
		i := max(from, searchUID(uids, lo))
		j := searchUID(uids, hi)
		if j < len(uids) && uids[j] == hi {
			j++
		}
		if i < j {
			found = append(found, uids[i:j]...)
			from = j
		}
	}
	return found
}

// intersectUIDs gives what both of two ascending lists have.
func intersectUIDs(a, b []imap.UID) []imap.UID {
	var both []imap.UID
	for _, uid := range a {
		if _, ok := slices.BinarySearch(b, uid); ok {
			both = append(both, uid)
		}
	}
	return both
}

// searchUID finds the first place of uid or a greater one.
func searchUID(uids []imap.UID, uid imap.UID) int {
	return sort.Search(len(uids), func(i int) bool { return uids[i] >= uid })
}

// seq gives the sequence number of a message in the view, 0 when it is not there.
func (s *imapSession) seq(uid imap.UID) uint32 {
	uids := s.view.UIDs()
	if i := searchUID(uids, uid); i < len(uids) && uids[i] == uid {
		return uint32(i + 1)
	}
	return 0
}

// appendFlags appends a message's flags in parentheses, with \Recent for those who still speak of it: RFC 9051 has it no
// more.
func (s *imapSession) appendFlags(dst []byte, m *Msg) []byte {
	dst = append(dst, '(')
	start := len(dst)
	dst = s.view.Folder().AppendFlags(dst, m)
	if !s.rev2 && s.view.Recent(m.UID) {
		if len(dst) > start {
			dst = append(dst, ' ')
		}
		dst = append(dst, `\Recent`...)
	}
	return append(dst, ')')
}

// enableCondstore notes that the client knows mod-sequences. The first time, it is told that of the selected mailbox, as
// of now (RFC 7162 §3.1): what it was told at SELECT may be long past.
func (s *imapSession) enableCondstore() {
	if !s.condstore && s.view != nil {
		s.linef("* OK [HIGHESTMODSEQ %d] The highest mod-sequence", s.view.ModSeq())
	}
	s.condstore = true
}

// capability is CAPABILITY (RFC 9051 §6.1.1).
func (s *imapSession) capability(cmd *imapCommand) error {
	if err := cmd.end(); err != nil {
		return err
	}
	s.line("* CAPABILITY " + s.capabilities())
	return nil
}

// capabilities lists what the session offers now.
func (s *imapSession) capabilities() string {
	caps := imapCapsBefore
	if s.drop != nil {
		caps = imapCapsAfter
	}
	var b []byte
	for i, name := range caps {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, name...)
	}
	if s.drop != nil {
		if !s.c.Compressed() {
			b = append(b, " COMPRESS=DEFLATE UNAUTHENTICATE"...)
		}
		b = append(b, " APPENDLIMIT="...)
		return string(strconv.AppendInt(b, s.p.MaxSize, 10))
	}
	if s.p.TLS != nil && s.c.TLS() == nil {
		b = append(b, " STARTTLS"...)
	}
	mechanisms := s.c.SASLMechanisms()
	if len(mechanisms) == 0 {
		return string(append(b, " LOGINDISABLED"...))
	}
	for _, name := range mechanisms {
		b = append(append(b, " AUTH="...), name...)
	}
	return string(b)
}

// noop is NOOP and CHECK: the updates that follow every command are all there is to them.
func (s *imapSession) noop(cmd *imapCommand) error { return cmd.end() }

// logout is LOGOUT (RFC 9051 §6.1.3).
func (s *imapSession) logout(cmd *imapCommand) error {
	if err := cmd.end(); err != nil {
		return err
	}
	s.closeView()
	s.line("* BYE Until next time")
	s.done = true
	return nil
}

// identify is ID (RFC 2971). What the client tells is parsed and not used.
func (s *imapSession) identify(cmd *imapCommand) error {
	if err := cmd.sp(); err != nil {
		return err
	}
	var words []string // names and values in turns (RFC 2971 §3.1)
	if cmd.peek() == '(' {
		err := cmd.list(func() error {
			word, _, err := cmd.nstring()
			words = append(words, word)
			return err
		})
		if err != nil {
			return err
		}
	} else if _, ok, err := cmd.nstring(); err != nil || ok {
		return cmd.expected("a list or NIL")
	}
	if err := cmd.end(); err != nil {
		return err
	}
	s.c.CallsItself(clientName(words))
	s.line(`* ID ("name" "appliance")`)
	return nil
}

// clientName makes one name of what a program says of itself.
func clientName(words []string) string {
	said := map[string]string{}
	for i := 0; i+1 < len(words); i += 2 {
		said[strings.ToLower(words[i])] = words[i+1]
	}
	return said["name"] + " " + said["version"]
}

// enable is ENABLE (RFC 9051 §6.3.1): what is unknown is left out of the answer.
func (s *imapSession) enable(cmd *imapCommand) error {
	var names []string
	for len(names) == 0 || !cmd.atEnd() {
		if err := cmd.sp(); err != nil {
			return err
		}
		name, err := cmd.atom()
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	answer := "* ENABLED"
	for _, name := range names {
		if on := s.enableOne(name); on != "" {
			answer += " " + on
		}
	}
	s.line(answer)
	return nil
}

// enableOne enables one extension and gives its name, "" when it is unknown or on already.
func (s *imapSession) enableOne(name string) string {
	switch strings.ToUpper(name) {
	case "IMAP4REV2":
		if !s.rev2 {
			s.rev2, s.utf8 = true, true
			return "IMAP4rev2"
		}
	case "UTF8=ACCEPT":
		if !s.utf8Accept {
			s.utf8Accept, s.utf8 = true, true
			return "UTF8=ACCEPT"
		}
	case "CONDSTORE":
		if !s.condstore {
			s.enableCondstore()
			return "CONDSTORE"
		}
	case "QRESYNC":
		if !s.qresync {
			s.enableCondstore()
			s.qresync = true
			return "QRESYNC"
		}
	}
	return ""
}
