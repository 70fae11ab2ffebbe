package main

// SEARCH and UID SEARCH: RFC 9051 §6.4.4, RFC 3501 §6.4.4, RFC 4731 (ESEARCH),
// RFC 5182 (SEARCHRES), RFC 7162 §3.1.5 (MODSEQ), RFC 5032 (WITHIN), RFC 8514
// (SAVEDATE). imap_match.go looks at the messages, imap_fuzzy.go has FUZZY,
// imap_partial.go PARTIAL, imap_context.go UPDATE and imap_multisearch.go ESEARCH.

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
)

const (
	searchMaxDepth = 100   // NOT, OR and parentheses inside one another
	searchMaxKeys  = 10000 // keys of one SEARCH
)

// searchReturn is a set of RETURN options (RFC 9051 §6.4.4).
type searchReturn uint16

const (
	returnMin searchReturn = 1 << iota
	returnMax
	returnAll
	returnCount
	returnSave
	returnPartial
	returnRelevancy
	returnContext // RFC 5267 §4.2: a hint that we have no use for
	returnUpdate
)

// searchReturns are the options by name.
var searchReturns = map[string]searchReturn{
	"MIN": returnMin, "MAX": returnMax, "ALL": returnAll, "COUNT": returnCount, "SAVE": returnSave,
	"PARTIAL": returnPartial, "RELEVANCY": returnRelevancy, "CONTEXT": returnContext, "UPDATE": returnUpdate,
}

// searchOp is what a key asks of a message.
type searchOp uint8

const (
	opAll        searchOp = iota
	opAnd                 // all of keys
	opOr                  // one of keys
	opNot                 // not keys[0]
	opSet                 // UID is in uids
	opFlags               // has flags
	opKeyword             // has the keyword
	opRecent              // \Recent
	opLarger              // more than n bytes
	opSmaller             // less than n bytes
	opBefore              // INTERNALDATE before day n
	opOn                  // on day n
	opSince               // on day n or later
	opSentBefore          // the same of the Date field
	opSentOn
	opSentSince
	opModSeq // modseq is n or more
	opHeader // a field called name has text
	opBody   // the body has text
	opText   // header or body has text
	opOlder  // INTERNALDATE is n or before
	opYounger
	opSavedBefore // as opBefore, of the day it came into the mailbox
	opSavedOn
	opSavedSince
	opFuzzy // keys[0] as it is, or keys[1]
	opEmail // EMAILID is name
)

// searchKey is one key, those inside it included.
type searchKey struct {
	op     searchOp
	keys   []*searchKey
	uids   []imap.UID
	set    imap.NumSet // as the client wrote it; resolve makes uids of it
	flags  Flags
	name   string // of a keyword or field
	n      int64
	ago    int64 // seconds before now that n is, in OLDER and YOUNGER
	finder *textFinder
	cost   searchCost // see arrange
}

// searchRequest is a SEARCH that has been parsed.
type searchRequest struct {
	key      *searchKey
	returns  searchReturn
	extended bool // RETURN was given: the answer is ESEARCH
	modseq   bool // a MODSEQ key was given: the answer has MODSEQ
	count    int  // of keys so far
	charset  string
	sort     []sortKey // of SORT
	partial  *partialRange
	fuzzy    bool          // a FUZZY key was given
	fetch    *fetchRequest // of UPDATE: what is told of new messages
}

// search is SEARCH and UID SEARCH.
func (s *imapSession) search(cmd *imapCommand) error {
	q := new(searchRequest)
	err := s.runSearch(cmd, q)
	var reply *imapReply
	if err != nil && q.returns&returnSave != 0 && !(errors.As(err, &reply) && reply.status == "BAD") {
		s.saved = nil // RFC 5182 §2.1: a SEARCH that fails with NO leaves nothing
	}
	return err
}

// runSearch parses a SEARCH, runs it and writes the answer.
func (s *imapSession) runSearch(cmd *imapCommand, q *searchRequest) error {
	parse := s.parseSearch
	if cmd.name == "SORT" {
		parse = s.parseSort
	}
	if err := parse(cmd, q); err != nil {
		return err
	}
	if q.modseq {
		s.enableCondstore()
	}
	if q.returns&returnUpdate != 0 && s.contextOf(cmd.tag) != nil { // RFC 5267 §4.3
		return imapBad("This tag is that of a search that is kept up to date")
	}
	m := s.newMatcher(s.view, q, cmd.tag)
	m.uid = cmd.uid
	if err := m.run(); err != nil {
		return err
	}
	if q.sort != nil {
		if err := m.sortResults(); err != nil {
			return err
		}
	}
	if q.returns&returnSave != 0 {
		s.saved = q.toSave(m.uids)
		if q.sort != nil || q.partial != nil {
			s.saved = slices.Sorted(slices.Values(s.saved))
		}
	}
	s.answerSearch(cmd, q, m)
	if q.returns&returnUpdate != 0 {
		s.keepContext(m)
	}
	return nil
}

// toSave picks what "$" is to mean (RFC 5182 §2.4): with MIN or MAX alone only
// those.
func (q *searchRequest) toSave(uids []imap.UID) []imap.UID {
	if len(uids) == 0 || q.returns&(returnAll|returnCount) != 0 || q.returns&(returnMin|returnMax|returnPartial) == 0 {
		return uids
	}
	var saved []imap.UID
	if q.partial != nil { // RFC 9394 §3.1
		saved = slices.Clone(partialUIDs(q.partial, uids))
	}
	if q.returns&returnMin != 0 && !slices.Contains(saved, uids[0]) {
		saved = append(saved, uids[0])
	}
	if last := uids[len(uids)-1]; q.returns&returnMax != 0 && !slices.Contains(saved, last) {
		saved = append(saved, last)
	}
	return saved
}

// answerSearch writes SEARCH or ESEARCH. RFC 9051 §7.3.4: an IMAP4rev2 client
// always gets ESEARCH.
func (s *imapSession) answerSearch(cmd *imapCommand, q *searchRequest, m *matcher) {
	if !q.extended && (!s.rev2 || q.sort != nil) {
		s.write(appendSearch(nil, cmd, q, m))
		return
	}
	if !q.extended {
		q.returns = returnAll
	}
	if q.returns&^returnContext == returnSave { // RFC 5182 §2.1: nothing is asked for but to remember
		return
	}
	s.write(appendESearch(nil, q, m))
}

// appendSearch appends the SEARCH response, or SORT (RFC 5256 §4), which is of the same form.
func appendSearch(b []byte, cmd *imapCommand, q *searchRequest, m *matcher) []byte {
	b = append(append(b, "* "...), cmd.name...)
	for i := range m.uids {
		b = append(b, ' ')
		b = strconv.AppendUint(b, uint64(m.number(i)), 10)
	}
	if q.modseq && len(m.uids) > 0 {
		b = append(b, " (MODSEQ "...)
		b = strconv.AppendUint(b, m.highest(returnAll), 10)
		b = append(b, ')')
	}
	return append(b, "\r\n"...)
}

// appendESearch appends the ESEARCH response.
func appendESearch(b []byte, q *searchRequest, m *matcher) []byte {
	b = m.from.append(b, m.tag, m.uid)
	if n := len(m.uids); n > 0 {
		if q.returns&returnMin != 0 {
			b = strconv.AppendUint(append(b, " MIN "...), uint64(m.number(0)), 10)
		}
		if q.returns&returnMax != 0 {
			b = strconv.AppendUint(append(b, " MAX "...), uint64(m.number(n-1)), 10)
		}
		if q.returns&returnAll != 0 {
			b = m.appendNumbers(append(b, " ALL "...), 0, n)
		}
		if q.returns&returnRelevancy != 0 {
			b = appendRelevancy(b, m)
		}
		if q.modseq && q.returns&(returnMin|returnMax|returnAll|returnCount|returnPartial) != 0 {
			b = strconv.AppendUint(append(b, " MODSEQ "...), m.highest(q.returns), 10)
		}
	}
	if q.partial != nil {
		b = appendPartial(b, q.partial, m)
	}
	if q.returns&returnCount != 0 {
		b = strconv.AppendInt(append(b, " COUNT "...), int64(len(m.uids)), 10)
	}
	return append(b, "\r\n"...)
}

// parseSearch parses everything behind SEARCH.
func (s *imapSession) parseSearch(cmd *imapCommand, q *searchRequest) error {
	if err := cmd.sp(); err != nil {
		return err
	}
	start := cmd.pos
	word := cmd.keyword()
	if word == "RETURN" {
		if err := cmd.parseReturn(q); err != nil {
			return err
		}
		start = cmd.pos
		word = cmd.keyword()
	}
	if word == "CHARSET" {
		if err := cmd.parseCharset(q); err != nil {
			return err
		}
		start = cmd.pos
	}
	cmd.pos = start
	return s.parseKeys(cmd, q)
}

// parseKeys parses the keys, which end the command.
func (s *imapSession) parseKeys(cmd *imapCommand, q *searchRequest) error {
	q.key = &searchKey{op: opAnd}
	for {
		key, err := s.parseKey(cmd, q, 0)
		if err != nil {
			return err
		}
		q.key.keys = append(q.key.keys, key)
		if cmd.accept(' ') {
			continue
		}
		if q.returns&returnRelevancy != 0 && !q.fuzzy { // RFC 6203 §4
			return imapBad("RELEVANCY needs a FUZZY key")
		}
		return cmd.end()
	}
}

// parseReturn reads RETURN's options. None at all mean ALL (RFC 9051 §6.4.4).
func (c *imapCommand) parseReturn(q *searchRequest) error {
	if err := c.sp(); err != nil {
		return err
	}
	q.extended = true
	returns := searchReturn(0)
	err := c.list(func() (err error) {
		option, ok := searchReturns[c.keyword()]
		if !ok {
			return c.expected("MIN, MAX, ALL, COUNT, SAVE, PARTIAL, RELEVANCY, CONTEXT or UPDATE before this")
		}
		switch option {
		case returnPartial:
			if err := c.sp(); err != nil {
				return err
			}
			if q.partial != nil {
				return imapBad("There may be one PARTIAL")
			}
			q.partial, err = c.partialRange()
		case returnUpdate:
			q.fetch, err = c.noticeItems() // RFC 5465 §7
		}
		returns |= option
		return err
	})
	if err != nil {
		return err
	}
	if returns&returnPartial != 0 && returns&returnAll != 0 { // RFC 9394 §3.1
		return imapBad("PARTIAL and ALL exclude each other")
	}
	if returns&^returnContext == 0 {
		returns |= returnAll
	}
	q.returns = returns
	return c.sp()
}

// parseCharset reads CHARSET's argument and the space behind it.
func (c *imapCommand) parseCharset(q *searchRequest) error {
	if err := c.sp(); err != nil {
		return err
	}
	name, err := c.astring()
	if err != nil {
		return err
	}
	if _, ok := lookUpCharset(name); !ok || name == "" {
		return imapNo("BADCHARSET (US-ASCII UTF-8 ISO-8859-1 ISO-8859-15 WINDOWS-1252 ISO-2022-JP GB18030 BIG5 EUC-KR KOI8-R)",
			"This charset is not known")
	}
	q.charset = name
	return c.sp()
}

// searchFlags are the keys that ask for a flag, or for its absence.
var searchFlags = map[string]struct {
	flag Flags
	not  bool
}{
	"SEEN": {FlagSeen, false}, "UNSEEN": {FlagSeen, true}, "ANSWERED": {FlagAnswered, false}, "UNANSWERED": {FlagAnswered, true},
	"FLAGGED": {FlagFlagged, false}, "UNFLAGGED": {FlagFlagged, true}, "DELETED": {FlagDeleted, false},
	"UNDELETED": {FlagDeleted, true}, "DRAFT": {FlagDraft, false}, "UNDRAFT": {FlagDraft, true},
}

// searchTexts are the keys that have one string.
var searchTexts = map[string]searchOp{
	"FROM": opHeader, "TO": opHeader, "CC": opHeader, "BCC": opHeader, "SUBJECT": opHeader, "BODY": opBody, "TEXT": opText,
}

// searchDates are the keys that have a date.
var searchDates = map[string]searchOp{
	"BEFORE": opBefore, "ON": opOn, "SINCE": opSince, "SENTBEFORE": opSentBefore, "SENTON": opSentOn, "SENTSINCE": opSentSince,
	"SAVEDBEFORE": opSavedBefore, "SAVEDON": opSavedOn, "SAVEDSINCE": opSavedSince,
}

// parseKey parses one key.
func (s *imapSession) parseKey(c *imapCommand, q *searchRequest, depth int) (*searchKey, error) {
	if q.count++; depth > searchMaxDepth || q.count > searchMaxKeys {
		return nil, imapNo("LIMIT", "The search has too many keys")
	}
	switch b := c.peek(); {
	case b == '(':
		key := &searchKey{op: opAnd}
		err := c.list(func() error {
			child, err := s.parseKey(c, q, depth+1)
			key.keys = append(key.keys, child)
			return err
		})
		if err == nil && len(key.keys) == 0 {
			return nil, imapBad("The parentheses of a search are empty")
		}
		return key, err
	case isDigit(b) || b == '*' || b == '$':
		return s.parseSetKey(c, false)
	}
	start := c.pos
	word := c.keyword()
	if f, ok := searchFlags[word]; ok {
		return negate(&searchKey{op: opFlags, flags: f.flag}, f.not), nil
	}
	if op, ok := searchTexts[word]; ok {
		return s.parseTextKey(c, q, op, word)
	}
	if op, ok := searchDates[word]; ok {
		if err := c.sp(); err != nil {
			return nil, err
		}
		day, err := c.date()
		return &searchKey{op: op, n: day.Unix() / secondsPerDay}, err
	}
	switch word {
	case "ALL", "SAVEDATESUPPORTED": // RFC 8514 §4.3: all mailboxes have it
		return &searchKey{op: opAll}, nil
	case "RECENT":
		return &searchKey{op: opRecent}, nil
	case "OLD":
		return negate(&searchKey{op: opRecent}, true), nil
	case "NEW":
		unseen := negate(&searchKey{op: opFlags, flags: FlagSeen}, true)
		return &searchKey{op: opAnd, keys: []*searchKey{{op: opRecent}, unseen}}, nil
	}
	if !c.accept(' ') {
		c.pos = start
		return nil, c.expected("a search key")
	}
	switch word {
	case "UID":
		return s.parseSetKey(c, true)
	case "KEYWORD", "UNKEYWORD":
		name, err := c.atom()
		return negate(&searchKey{op: opKeyword, name: name}, word == "UNKEYWORD"), err
	case "LARGER", "SMALLER":
		n, err := c.number64() // RFC 9051 §9: number64
		op := opLarger
		if word == "SMALLER" {
			op = opSmaller
		}
		return &searchKey{op: op, n: int64(n)}, err
	case "OLDER", "YOUNGER": // RFC 5032
		n, err := c.nzNumber()
		op := opOlder
		if word == "YOUNGER" {
			op = opYounger
		}
		return &searchKey{op: op, ago: int64(n)}, err
	case "FUZZY":
		q.fuzzy = true
		key, err := s.parseKey(c, q, depth+1)
		if err != nil {
			return nil, err
		}
		return fuzzy(key), nil
	case "HEADER":
		name, err := c.astring()
		if err != nil {
			return nil, err
		}
		return s.parseTextKey(c, q, opHeader, name)
	case "MODSEQ":
		return parseModSeqKey(c, q)
	case "EMAILID":
		id, err := c.objectID()
		return &searchKey{op: opEmail, name: id}, err
	case "THREADID": // RFC 8474 §5.2: no message has one
		_, err := c.objectID()
		return &searchKey{op: opSet}, err
	case "NOT":
		key, err := s.parseKey(c, q, depth+1)
		return negate(key, true), err
	case "OR":
		return s.parseOr(c, q, depth)
	}
	c.pos = start
	return nil, c.expected("a search key")
}

// negate gives NOT key where not is true.
func negate(key *searchKey, not bool) *searchKey {
	if !not {
		return key
	}
	return &searchKey{op: opNot, keys: []*searchKey{key}}
}

// parseOr parses what OR has.
func (s *imapSession) parseOr(c *imapCommand, q *searchRequest, depth int) (*searchKey, error) {
	a, err := s.parseKey(c, q, depth+1)
	if err != nil {
		return nil, err
	}
	if err := c.sp(); err != nil {
		return nil, err
	}
	b, err := s.parseKey(c, q, depth+1)
	return &searchKey{op: opOr, keys: []*searchKey{a, b}}, err
}

// parseSetKey parses a set of numbers.
func (s *imapSession) parseSetKey(c *imapCommand, uid bool) (*searchKey, error) {
	set, err := c.numSet(uid)
	return &searchKey{op: opSet, set: set}, err
}

// resolve finds what sets mean in a view. RFC 7377 §2: numbers
// beyond the end of a mailbox mean nothing, and that is no error. What message
// numbers and "$" mean is fixed the first time (RFC 5267 §4.3); "$" are messages
// of the selected mailbox.
func (k *searchKey) resolve(s *imapSession, view *View, first bool) {
	for _, key := range k.keys {
		key.resolve(s, view, first)
	}
	switch set := k.set.(type) {
	case imap.SeqSet:
		if first {
			k.uids = seqsWithin(view.UIDs(), set)
		}
	case imap.UIDSet:
		switch {
		case !imap.IsSearchRes(set):
			k.uids = resolveUIDs(view.UIDs(), set)
		case first && view == s.view:
			k.uids = intersectUIDs(s.saved, view.UIDs())
		case first:
			k.uids = nil
		}
	}
}

// timed gives the keys inside that depend on the time: OLDER and YOUNGER.
func (k *searchKey) timed(keys []*searchKey) []*searchKey {
	if k.op == opOlder || k.op == opYounger {
		keys = append(keys, k)
	}
	for _, key := range k.keys {
		keys = key.timed(keys)
	}
	return keys
}

// parseTextKey parses the string of a key.
func (s *imapSession) parseTextKey(c *imapCommand, q *searchRequest, op searchOp, name string) (*searchKey, error) {
	if err := c.sp(); err != nil {
		return nil, err
	}
	text, err := c.astring()
	if err != nil {
		return nil, err
	}
	if q.charset != "" || !utf8.ValidString(text) {
		text = decodeCharset(q.charset, []byte(text))
	}
	return &searchKey{op: op, name: name, finder: newTextFinder(text)}, nil
}

// parseModSeqKey parses MODSEQ [entry type] n (RFC 7162 §3.1.5). All entries have
// one modseq here, so that which one is asked for makes no difference.
func parseModSeqKey(c *imapCommand, q *searchRequest) (*searchKey, error) {
	if c.peek() == '"' {
		entry, err := c.quoted()
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(strings.ToLower(entry), "/flags/") {
			return nil, imapBad("MODSEQ knows only entries that begin with /flags/")
		}
		if err := c.sp(); err != nil {
			return nil, err
		}
		switch c.keyword() {
		case "ALL", "PRIV", "SHARED":
		default:
			return nil, c.expected("all, priv or shared before this")
		}
		if err := c.sp(); err != nil {
			return nil, err
		}
	}
	n, err := c.number64()
	q.modseq = true
	return &searchKey{op: opModSeq, n: int64(n)}, err
}

const secondsPerDay = 24 * 60 * 60

// localDay gives the day of a time in this machine's time zone, in days since
// 1970, as INTERNALDATE shows it.
func localDay(unix int64) int64 {
	_, offset := time.Unix(unix, 0).Zone()
	return floorDay(unix + int64(offset))
}

// floorDay gives the day of a time, in days since 1970.
func floorDay(unix int64) int64 {
	day := unix / secondsPerDay
	if unix%secondsPerDay < 0 {
		day--
	}
	return day
}
