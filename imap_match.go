package main

// How SEARCH looks at messages: what costs nothing first, then what the cache
// has, and a file only when nothing else can tell.

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// maxTreeCopied is how large a tree may be that is copied out of the cache; with
// a larger one the message is read again.
const maxTreeCopied = 4 << 10

// searchCost is what a key needs to be decided, cheapest first.
type searchCost uint8

const (
	costState  searchCost = iota // flags, numbers
	costFile                     // size or date, which may need a look at the file
	costListed                   // fields that the cache has
	costHeader                   // other fields
	costText                     // the text
)

// arrange notes the costs of a key and of those inside it, which it puts in the
// order of their costs.
func (k *searchKey) arrange() {
	for _, key := range k.keys {
		key.arrange()
	}
	if len(k.keys) > 0 {
		slices.SortStableFunc(k.keys, func(a, b *searchKey) int { return cmp.Compare(a.cost, b.cost) })
		k.cost = k.keys[len(k.keys)-1].cost
		return
	}
	switch k.op {
	case opLarger, opSmaller, opBefore, opOn, opSince, opOlder, opYounger:
		k.cost = costFile
	case opSentBefore, opSentOn, opSentSince:
		k.cost = costListed
	case opHeader:
		k.cost = costHeader
		if fieldNamed([]byte(k.name)) != fieldOther {
			k.cost = costListed
		}
	case opBody, opText, opEmail:
		k.cost = costText
	default:
		k.cost = costState
	}
}

// matcher runs one SEARCH over a view, which need not be the session's. Its
// results are uids, seqs and modseqs, which belong together, ascending.
type matcher struct {
	s      *imapSession
	view   *View
	folder *Folder // of the view
	q      *searchRequest
	only   []imap.UID // those of the view to look at; nil: all. seqs means nothing then
	all    []imap.UID // those that are looked at
	uid    bool       // the client is answered in UIDs
	from   correlator // of ESEARCH

	uids    []imap.UID
	seqs    []uint32
	modseqs []uint64
	numbers []uint32          // sequence numbers of the batch in hand
	partly  map[imap.UID]bool // found by the words of a fuzzy text only

	tag   string    // of the command; "": the client is not told of progress
	done  int       // messages looked at
	total int       // of them
	due   time.Time // of the next word on that

	keywords []string // of the folder

	index *textAnswers // what the text index says; nil: it was not asked
	feed  *textFeed    // takes what is read of messages that it lacks; nil: nobody does

	// The message in hand.
	msg        *Msg
	at         int  // its place in all
	known      bool // structure has been looked up
	cached     cachedStructure
	textReader // its texts; file is nil until they are needed
}

// newMatcher makes a matcher of a parsed SEARCH; tag is that of the command.
func (s *imapSession) newMatcher(view *View, q *searchRequest, tag string) *matcher {
	q.key.resolve(s, view, true)
	now := time.Now().Unix()
	for _, k := range q.key.timed(nil) {
		k.n = now - k.ago
	}
	return &matcher{s: s, view: view, folder: view.Folder(), q: q, tag: tag}
}

// number gives result i as the UID or sequence number that the client wants.
func (m *matcher) number(i int) uint32 {
	if m.uid {
		return uint32(m.uids[i])
	}
	return m.seqs[i]
}

// appendNumbers appends some of the results as a set, in their order.
func (m *matcher) appendNumbers(b []byte, from, to int) []byte {
	if m.uid {
		return appendUIDs(b, m.uids[from:to])
	}
	return appendSeqs(b, m.seqs[from:to])
}

// highest gives the highest modseq among the messages that the answer names
// (RFC 7162 §3.1.10).
func (m *matcher) highest(returns searchReturn) uint64 {
	if returns&(returnAll|returnCount) != 0 {
		return slices.Max(m.modseqs)
	}
	n := uint64(0)
	if from, to := m.q.window(len(m.uids)); from < to {
		n = slices.Max(m.modseqs[from:to])
	}
	if returns&returnMin != 0 {
		n = max(n, m.modseqs[0])
	}
	if returns&returnMax != 0 {
		n = max(n, m.modseqs[len(m.modseqs)-1])
	}
	return n
}

// run looks at the messages in batches: at their states first, and what these leave over at their texts.
func (m *matcher) run() error {
	m.q.key.arrange()
	state, more := splitKeys(m.q.key.keys, costFile)
	m.all = m.view.UIDs()
	if m.only != nil {
		m.all = m.only
	}
	m.total = len(m.all)
	m.progress()
	m.uids, m.seqs = m.all, make([]uint32, len(m.all))
	for i := range m.seqs {
		m.seqs[i] = uint32(i + 1)
	}
	if len(state) > 0 || len(more) == 0 {
		full := len(state) > 0 && state[len(state)-1].cost == costFile
		if err := m.filter(full, func(msgs []Msg, match []bool) { m.matchState(msgs, match, state) }); err != nil {
			return err
		}
	}
	if len(more) == 0 {
		return nil
	}
	m.askIndex(more)
	defer m.feedIndex()
	return m.filter(usesFile(more), func(msgs []Msg, match []bool) { m.matchMore(msgs, match, more) })
}

// filter keeps those of the results that test says are some. It is given some hundreds at a time and sets match, which
// runs parallel to them. full makes sizes and dates known. What is gone is left out.
func (m *matcher) filter(full bool, test func(msgs []Msg, match []bool)) error {
	uids, seqs := m.uids, m.seqs
	m.uids, m.seqs, m.modseqs = nil, seqs[:0], m.modseqs[:0]
	var msgs []Msg
	for start := 0; start < len(uids); start += fetchBatch {
		if err := m.s.ctx.Err(); err != nil || m.s.c.Closing() {
			return imapNo("UNAVAILABLE", "The server is shutting down")
		}
		batch := uids[start:min(start+fetchBatch, len(uids))]
		var err error
		if msgs, err = m.folder.Messages(msgs, batch, full); err != nil {
			return err
		}
		m.keywords = m.folder.Keywords()
		m.numbers = seqs[start:]
		if len(msgs) < len(batch) {
			m.numbers = numbersOf(msgs, batch, seqs[start:])
		}
		var match [fetchBatch]bool
		test(msgs, match[:len(msgs)])
		for i := range msgs {
			if match[i] {
				m.uids = append(m.uids, msgs[i].UID)
				m.seqs = append(m.seqs, m.numbers[i])
				m.modseqs = append(m.modseqs, msgs[i].ModSeq)
			}
		}
	}
	return nil
}

// numbersOf gives the sequence numbers of those messages of a batch that are still there.
func numbersOf(msgs []Msg, batch []imap.UID, seqs []uint32) []uint32 {
	numbers := make([]uint32, 0, len(msgs))
	at := 0
	for i := range msgs {
		for batch[at] != msgs[i].UID {
			at++
		}
		numbers = append(numbers, seqs[at])
	}
	return numbers
}

// splitKeys parts keys of at most a cost from the others, which come behind them.
func splitKeys(keys []*searchKey, most searchCost) (cheap, dear []*searchKey) {
	for i, k := range keys {
		if k.cost > most {
			return keys[:i], keys[i:]
		}
	}
	return keys, nil
}

// usesFile says whether sizes or dates are asked for somewhere inside keys.
func usesFile(keys []*searchKey) bool {
	for _, k := range keys {
		if usesFile(k.keys) || len(k.keys) == 0 && k.cost == costFile {
			return true
		}
	}
	return false
}

// matchState matches keys that the state of a message decides.
func (m *matcher) matchState(msgs []Msg, match []bool, keys []*searchKey) {
	for i := range msgs {
		m.takeUp(&msgs[i], m.numbers[i])
		match[i] = m.matchAll(keys)
	}
}

// matchMore matches keys that need more than the state of a message: with what the text index says and the fields that the
// cache has where these decide, else with a copy of what the cache has, and the file.
func (m *matcher) matchMore(msgs []Msg, match []bool, keys []*searchKey) {
	left := m.matchIndexed(msgs, match, keys) // indexes of messages that are not decided yet
	if listed, rest := splitKeys(keys, costListed); len(listed) > 0 {
		left = m.matchListed(msgs, match, left, listed, len(rest) == 0)
	}
	if len(left) == 0 {
		return
	}
	undecided := make([]Msg, len(left))
	for i, at := range left {
		undecided[i] = msgs[at]
	}
	found := m.lookUp(undecided, keys)
	for i, at := range left {
		m.takeUp(&undecided[i], m.numbers[at])
		m.done = m.at
		m.progress()
		m.cached, m.known = found[i], found[i].tree != nil
		match[at] = m.matchAll(keys)
		m.close()
	}
}

// takeUp takes a message in hand, by its number among all.
func (m *matcher) takeUp(msg *Msg, number uint32) { m.msg, m.at = msg, int(number)-1 }

// matchListed matches keys that the fields in the cache decide, where they lie. left has the indexes of the messages to
// look at. It gives those that remain: what the cache does not know, and unless these keys are all there are, what matches.
func (m *matcher) matchListed(msgs []Msg, match []bool, left []int, keys []*searchKey, last bool) (remain []int) {
	uids := make([]imap.UID, len(left))
	for i, at := range left {
		uids[i] = msgs[at].UID
	}
	next := 0
	m.folder.Cached(cacheStructure, uids, func(uid imap.UID, value []byte) {
		c, ok := parseStructure(value)
		if !ok || c.unlisted {
			return
		}
		for uids[next] != uid {
			remain = append(remain, left[next])
			next++
		}
		at := left[next]
		next++
		m.takeUp(&msgs[at], m.numbers[at])
		m.cached, m.known = c, true
		switch {
		case !m.matchAll(keys):
		case last:
			match[at] = true
		default:
			remain = append(remain, at)
		}
	})
	m.cached, m.known = cachedStructure{}, false // it was valid for so long
	return append(remain, left[next:]...)
}

// lookUp copies what the cache has of the messages.
func (m *matcher) lookUp(msgs []Msg, keys []*searchKey) []cachedStructure {
	found := make([]cachedStructure, len(msgs))
	uids := make([]imap.UID, len(msgs))
	for i := range msgs {
		uids[i] = msgs[i].UID
	}
	tree := keys[len(keys)-1].cost == costText
	var arena []byte
	keep := func(b []byte) []byte {
		start := len(arena)
		arena = append(arena, b...)
		return arena[start:len(arena):len(arena)]
	}
	i := 0
	m.folder.Cached(cacheStructure, uids, func(uid imap.UID, value []byte) {
		for i < len(uids) && uids[i] < uid {
			i++
		}
		c, ok := parseStructure(value)
		if !ok || i == len(uids) || uids[i] != uid {
			return
		}
		found[i].unlisted = c.unlisted
		found[i].listed = keep(c.listed)
		found[i].tree = c.tree[:0:0] // not nil: it is known
		if tree && len(c.tree) <= maxTreeCopied {
			found[i].tree = keep(c.tree)
		}
	})
	return found
}

// close closes the message in hand.
func (m *matcher) close() {
	if m.file != nil {
		m.file.Close()
		m.file = nil
	}
}

// matchAll says whether the message in hand has all of the keys.
func (m *matcher) matchAll(keys []*searchKey) bool {
	for _, k := range keys {
		if !m.match(k) {
			return false
		}
	}
	return true
}

// match says whether the message in hand has the key.
func (m *matcher) match(k *searchKey) bool {
	switch k.op {
	case opAnd:
		return m.matchAll(k.keys)
	case opOr:
		return slices.ContainsFunc(k.keys, m.match)
	case opNot:
		return !m.match(k.keys[0])
	case opSet:
		_, ok := slices.BinarySearch(k.uids, m.msg.UID)
		return ok
	case opFlags:
		return m.msg.Flags&k.flags != 0
	case opKeyword:
		return m.hasKeyword(k.name)
	case opRecent:
		return m.view.Recent(m.msg.UID)
	case opLarger:
		return m.msg.Size > k.n
	case opSmaller:
		return m.msg.Size < k.n
	case opBefore:
		return localDay(m.msg.Date) < k.n
	case opOn:
		return localDay(m.msg.Date) == k.n
	case opSince:
		return localDay(m.msg.Date) >= k.n
	case opOlder:
		return m.msg.Date <= k.n
	case opYounger:
		return m.msg.Date >= k.n
	case opSavedBefore:
		return localDay(m.msg.Saved) < k.n
	case opSavedOn:
		return localDay(m.msg.Saved) == k.n
	case opSavedSince:
		return localDay(m.msg.Saved) >= k.n
	case opFuzzy:
		return m.matchFuzzy(k)
	case opModSeq:
		return m.msg.ModSeq >= uint64(k.n)
	case opSentBefore, opSentOn, opSentSince:
		return m.matchSent(k)
	case opHeader, opBody, opText:
		return m.matchText(k)
	case opEmail:
		return m.matchEmailID(k.name)
	}
	return true
}

// hasKeyword says whether the message has a keyword; their case does not matter
// (RFC 9051 §2.3.2).
func (m *matcher) hasKeyword(name string) bool {
	for i, keyword := range m.keywords {
		if keyword != "" && strings.EqualFold(keyword, name) {
			return m.msg.Keywords&(1<<i) != 0
		}
	}
	return false
}

// matchSent compares the day in the Date field, disregarding time and zone (RFC
// 9051 §6.4.4). A message without one that can be read matches nothing.
func (m *matcher) matchSent(k *searchKey) bool {
	return m.matchField("Date", func(text []byte) bool {
		day, ok := parseDay(string(text[:min(len(text), 200)]))
		switch {
		case !ok:
			return false
		case k.op == opSentBefore:
			return day < k.n
		case k.op == opSentOn:
			return day == k.n
		}
		return day >= k.n
	})
}

// matchField says whether the test holds for one of the fields of a name, whose
// text it is given unfolded and decoded.
func (m *matcher) matchField(name string, test func(text []byte) bool) bool {
	found := false
	id := fieldNamed([]byte(name))
	if id != fieldOther && m.known && !m.cached.unlisted {
		listedFields(m.cached.listed, func(fid fieldID, raw []byte) {
			if fid == id && !found {
				found = test(fieldText(raw))
			}
		})
		return found
	}
	if !m.open() {
		return false
	}
	name = strings.TrimSpace(name)
	err := m.eachField(0, m.file.Size(), func(raw []byte) bool {
		found = fieldIs(raw, name) && test(fieldText(raw))
		return !found
	})
	m.note(err)
	return found
}

// open opens the message in hand, unless it is open. A message that is gone or
// cannot be read matches no key that asks for its text.
func (m *matcher) open() bool {
	if m.file != nil {
		return true
	}
	file, err := m.folder.OpenMessage(m.msg.UID)
	if err != nil {
		m.note(err)
		return false
	}
	m.file = file
	return true
}

// note logs why a message cannot be read.
func (m *matcher) note(err error) {
	if err != nil && !errors.Is(err, ErrExpunged) {
		m.s.c.Log.Error("searching a message", "uid", m.msg.UID, "error", err)
	}
}

// tree gives the parts of the message in hand, which is open.
func (m *matcher) tree() (treePart, bool) {
	if root, ok := knownTree(m.cached.tree, m.file); ok {
		return root, true
	}
	value, err := readStructure(m.folder, m.msg.UID, m.file)
	if err != nil {
		m.note(err)
		return treePart{}, false
	}
	m.cached, m.known = parseStructure(value)
	return parseTree(m.cached.tree)
}

// matchText looks for a text in fields, in the body, or in header and body.
func (m *matcher) matchText(k *searchKey) bool {
	if v := m.verdict(k); v != textUnknown {
		return v == textFound
	}
	if k.op == opHeader {
		return m.matchField(k.name, k.finder.in)
	}
	if !m.open() {
		return false
	}
	root, ok := m.tree()
	if !ok {
		return false
	}
	if len(k.finder.needle) == 0 {
		return true
	}
	hit := textHit{finder: k.finder}
	if m.feed != nil && !m.indexed() {
		m.readAll(&root, &hit, k.op == opBody)
	} else {
		m.note(m.read(&root, k.op == opText, &hit))
	}
	return hit.found
}

// textHit looks for a text in those of a message.
type textHit struct {
	finder *textFinder
	found  bool
}

// begin is textVisitor.
func (h *textHit) begin(bool) { h.finder.begin() }

// next is textVisitor.
func (h *textHit) next(folded []byte) (more bool) {
	h.found = h.finder.next(folded)
	return !h.found
}

// monthNames are as RFC 5322 §3.3 has them.
const monthNames = "janfebmaraprmayjunjulaugsepoctnovdec"

// parseDay reads the day of a Date field in its own zone, in days since 1970.
// Whatever day, month and year stand there in this order will do.
func parseDay(text string) (day int64, ok bool) {
	var d, month, year int
	isSeparator := func(r rune) bool { return r == ' ' || r == ',' || r == '\t' || r == '-' || r == '/' || r == '.' }
	for word := range strings.FieldsFuncSeq(text, isSeparator) {
		n, isNumber := smallNumber(word)
		switch {
		case month == 0 && isNumber && d == 0:
			d = n
		case d > 0 && month == 0 && len(word) >= 3:
			i := strings.Index(monthNames, strings.ToLower(word[:3]))
			if i < 0 || i%3 != 0 {
				return 0, false
			}
			month = i/3 + 1
		case month > 0 && isNumber:
			year = fullYear(n, len(word))
			if d < 1 || d > 31 || year < 1900 {
				return 0, false
			}
			return floorDay(time.Date(year, time.Month(month), d, 0, 0, 0, 0, time.UTC).Unix()), true
		}
	}
	return 0, false
}

// smallNumber reads a number of up to four digits.
func smallNumber(word string) (n int, ok bool) {
	if len(word) > 4 {
		return 0, false
	}
	for i := range len(word) {
		if !isDigit(word[i]) {
			return 0, false
		}
		n = n*10 + int(word[i]-'0')
	}
	return n, word != ""
}

// fullYear reads a year of old mail (RFC 5322 §4.3). 0102 is what some programs
// wrote in 2002.
func fullYear(n, digits int) int {
	switch {
	case digits == 2 && n < 50:
		return n + 2000
	case digits <= 3 || n < 200:
		return n + 1900
	}
	return n
}
