package main

// How SEARCH looks at messages: what costs nothing first, then what the cache
// has, and a file only when nothing else can tell.

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io"
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
	uid    bool       // the client is answered in UIDs
	from   correlator // of ESEARCH

	uids    []imap.UID
	seqs    []uint32
	modseqs []uint64
	partly  map[imap.UID]bool // found by the words of a fuzzy text only

	tag   string    // of the command; "": the client is not told of progress
	done  int       // messages looked at
	total int       // of them
	due   time.Time // of the next word on that

	keywords []string // of the folder
	scratch  []byte   // copyBuffer bytes, made at first use

	header *bufio.Reader // for eachField, made at first use
	field  []byte

	// The message in hand.
	msg    *Msg
	known  bool // structure has been looked up
	cached cachedStructure
	file   *Message
}

// newMatcher makes a matcher of a parsed SEARCH; tag is that of the command.
func (s *imapSession) newMatcher(view *View, q *searchRequest, tag string) *matcher {
	q.key.resolve(s, view, true)
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

// run looks at the messages in batches.
func (m *matcher) run() error {
	m.q.key.arrange()
	cheap, dear := splitKeys(m.q.key.keys)
	full := len(cheap) > 0 && cheap[len(cheap)-1].cost == costFile || usesFile(dear)
	var msgs []Msg
	all := m.view.UIDs()
	if m.only != nil {
		all = m.only
	}
	m.total = len(all)
	m.progress()
	for start := 0; start < len(all); start += fetchBatch {
		if err := m.s.ctx.Err(); err != nil || m.s.c.Closing() {
			return imapNo("UNAVAILABLE", "The server is shutting down")
		}
		batch := all[start:min(start+fetchBatch, len(all))]
		var err error
		if msgs, err = m.folder.Messages(msgs, batch, full); err != nil {
			return err
		}
		m.keywords = m.folder.Keywords()
		m.done = start
		m.batch(start, batch, msgs, cheap, dear)
	}
	return nil
}

// splitKeys parts keys that need the cache or the file from those before them.
func splitKeys(keys []*searchKey) (cheap, dear []*searchKey) {
	for i, k := range keys {
		if k.cost > costFile {
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

// batch looks at some hundreds of messages; start is the index in the view of
// the first one of uids.
func (m *matcher) batch(start int, uids []imap.UID, msgs []Msg, cheap, dear []*searchKey) {
	left := msgs[:0]
	seqs := make([]uint32, 0, len(msgs))
	at := 0
	for i := range msgs {
		for uids[at] != msgs[i].UID {
			at++
		}
		m.msg = &msgs[i]
		if m.matchAll(cheap) {
			left = append(left, msgs[i])
			seqs = append(seqs, uint32(start+at+1))
		}
	}
	if len(dear) > 0 {
		left, seqs = m.filterDear(left, seqs, dear)
	}
	for i := range left {
		m.uids = append(m.uids, left[i].UID)
		m.seqs = append(m.seqs, seqs[i])
		m.modseqs = append(m.modseqs, left[i].ModSeq)
	}
}

// filterDear keeps the messages that match keys which need more than their
// state.
func (m *matcher) filterDear(msgs []Msg, seqs []uint32, keys []*searchKey) ([]Msg, []uint32) {
	found := m.lookUp(msgs, keys)
	n := 0
	for i := range msgs {
		m.done = int(seqs[i]) - 1
		m.progress()
		m.msg, m.cached, m.known = &msgs[i], found[i], found[i].tree != nil
		if m.matchAll(keys) {
			msgs[n], seqs[n] = msgs[i], seqs[i]
			n++
		}
		m.close()
	}
	return msgs[:n], seqs[:n]
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
	case opHeader:
		return m.matchField(k.name, k.finder.in)
	case opBody, opText:
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
	if len(m.cached.tree) > 0 {
		if root, ok := parseTree(m.cached.tree); ok && root.size() == m.file.Size() {
			return root, true
		}
	}
	value, err := readStructure(m.folder, m.msg.UID, m.file)
	if err != nil {
		m.note(err)
		return treePart{}, false
	}
	m.cached, m.known = parseStructure(value)
	return parseTree(m.cached.tree)
}

// matchText looks for a text in the body, or in header and body.
func (m *matcher) matchText(k *searchKey) bool {
	if !m.open() {
		return false
	}
	root, ok := m.tree()
	if !ok {
		return false
	}
	if m.scratch == nil {
		m.scratch = make([]byte, copyBuffer)
	}
	found, err := m.searchPart(k.finder, &root, k.op == opText, k.op == opText)
	m.note(err)
	return found
}

// searchPart looks for a text in a part. header says whether its own header
// counts, headers whether those of the parts inside do; the header of a message
// inside always does, for there it is text.
func (m *matcher) searchPart(f *textFinder, part *treePart, header, headers bool) (bool, error) {
	if header {
		found := false
		err := m.eachField(part.headerOff, part.headerLen, func(raw []byte) bool {
			found = f.in(wholeFieldText(raw))
			return !found
		})
		if found || err != nil {
			return found, err
		}
	}
	for i := range part.children {
		found, err := m.searchPart(f, &part.children[i], headers || !part.multipart, headers)
		if found || err != nil {
			return found, err
		}
	}
	if !part.text {
		return len(f.needle) == 0, nil
	}
	r, _ := transferReader(part.encoding, m.file.Section(part.bodyOff(), part.bodyLen))
	return f.inStream(r, part.charset, m.scratch)
}

// eachField calls visit for each field of the header block that begins at off,
// within n bytes, until it returns false. Of a field longer than maxFieldKept
// only the beginning is given. raw is valid during the call.
func (m *matcher) eachField(off, n int64, visit func(raw []byte) bool) error {
	if m.header == nil {
		m.header = bufio.NewReaderSize(nil, 4<<10)
	}
	r := m.header
	r.Reset(m.file.Section(off, n))
	field := m.field[:0]
	defer func() { m.field = field }()
	begins := true
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull && err != io.EOF {
			return err
		}
		blank := begins && isBlankLine(line)
		if begins && len(field) > 0 && (blank || len(line) == 0 || line[0] != ' ' && line[0] != '\t') {
			if !visit(field) {
				return nil
			}
			field = field[:0]
		}
		if blank {
			return nil
		}
		if room := maxFieldKept - len(field); room > 0 {
			field = append(field, line[:min(room, len(line))]...)
		}
		if err == io.EOF {
			if len(field) > 0 {
				visit(field)
			}
			return nil
		}
		begins = err == nil
	}
}

// fieldText gives the text of a field, unfolded and decoded.
func fieldText(raw []byte) []byte {
	return decodedText(unfold(raw[bytes.IndexByte(raw, ':')+1:]))
}

// wholeFieldText is fieldText with the field's name, and with the parameters that
// RFC 2231 encodes once more in plain.
func wholeFieldText(raw []byte) []byte {
	text := unfold(raw)
	if bytes.IndexByte(text, '*') < 0 {
		return decodedText(text)
	}
	s := fieldScanner{s: string(text)}
	return append(append(decodedText(text[:len(text):len(text)]), ' '), decodeParams(s.params())...)
}

// decodedText is decodeHeaderText that gives plain text back as it is.
func decodedText(text []byte) []byte {
	if isASCII(text) && !bytes.Contains(text, []byte("=?")) {
		return text
	}
	return []byte(decodeHeaderText(string(text)))
}

// fieldIs says whether a field is called name.
func fieldIs(raw []byte, name string) bool {
	colon := bytes.IndexByte(raw, ':')
	return colon >= 0 && bytes.EqualFold(bytes.TrimRight(raw[:colon], " \t"), []byte(name))
}

// monthNames are as RFC 5322 §3.3 has them.
const monthNames = "janfebmaraprmayjunjulaugsepoctnovdec"

// parseDay reads the day of a Date field in its own zone, in days since 1970.
// Whatever day, month and year stand there in this order will do.
func parseDay(text string) (day int64, ok bool) {
	var d, month, year int
	isSeparator := func(r rune) bool { return strings.ContainsRune(" ,\t-/.", r) }
	for _, word := range strings.FieldsFunc(text, isSeparator) {
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
