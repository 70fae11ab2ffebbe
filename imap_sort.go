package main

// SORT and UID SORT: RFC 5256, with RFC 5267 (ESORT) and RFC 5957 (SORT=DISPLAY). What is found and how it is answered is
// SEARCH's (imap_search.go), keeping it up to date is in imap_context.go; this file has the order. Header fields come from
// the cache.

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const (
	sortMaxKeys = 50
	sortMaxText = 1000 // bytes of a text that are compared
)

// sortBy is what messages are sorted by (RFC 5256 §3, RFC 5957 §3).
type sortBy uint8

const (
	byArrival sortBy = iota
	bySize
	byDate
	bySubject
	byFrom
	byTo
	byCc
	byDisplayFrom
	byDisplayTo
	byRelevancy // RFC 6203 §5
)

// sortNames are the sort criteria by name.
var sortNames = map[string]sortBy{
	"ARRIVAL": byArrival, "SIZE": bySize, "DATE": byDate, "SUBJECT": bySubject, "FROM": byFrom, "TO": byTo, "CC": byCc,
	"DISPLAYFROM": byDisplayFrom, "DISPLAYTO": byDisplayTo, "RELEVANCY": byRelevancy,
}

// sortKey is one criterion.
type sortKey struct {
	by      sortBy
	reverse bool
}

// field is the header field that the criterion looks at, fieldOther for none.
func (k sortKey) field() fieldID {
	switch k.by {
	case byDate:
		return fieldDate
	case bySubject:
		return fieldSubject
	case byFrom, byDisplayFrom:
		return fieldFrom
	case byTo, byDisplayTo:
		return fieldTo
	case byCc:
		return fieldCc
	}
	return fieldOther
}

// parseSort parses everything behind SORT: [RETURN (…)] (criteria) charset keys.
func (s *imapSession) parseSort(cmd *imapCommand, q *searchRequest) error {
	if err := cmd.sp(); err != nil {
		return err
	}
	if cmd.peek() != '(' {
		if cmd.keyword() != "RETURN" {
			return cmd.expected("RETURN or a list of sort criteria before this")
		}
		if err := cmd.parseReturn(q); err != nil {
			return err
		}
	}
	if err := cmd.sortKeys(q); err != nil {
		return err
	}
	if err := cmd.parseCharset(q); err != nil {
		return err
	}
	return s.parseKeys(cmd, q)
}

// sortKeys parses the list of criteria.
func (c *imapCommand) sortKeys(q *searchRequest) error {
	reverse := false
	err := c.list(func() error {
		word := c.keyword()
		if word == "REVERSE" && !reverse {
			reverse = true
			return nil
		}
		by, ok := sortNames[word]
		if !ok {
			return c.expected("a sort criterion before this")
		}
		if len(q.sort) == sortMaxKeys {
			return imapNo("LIMIT", "There are too many sort criteria")
		}
		q.sort = append(q.sort, sortKey{by, reverse})
		reverse = false
		return nil
	})
	if err == nil && (reverse || len(q.sort) == 0) {
		return c.expected("a sort criterion before this")
	}
	return err
}

// sortValue is what is compared: a number or a text.
type sortValue struct {
	n    int64
	text string
}

// sortResults puts the results into the order that is asked for. RFC 5256 §3: what is the same stays in the order of
// sequence numbers.
func (m *matcher) sortResults() error {
	values, err := m.sortValues()
	if err != nil {
		return err
	}
	order := make([]int, len(m.uids))
	for i := range order {
		order[i] = i
	}
	n := len(m.q.sort)
	slices.SortStableFunc(order, func(a, b int) int {
		return compareSorted(m.q.sort, values[a*n:], values[b*n:])
	})
	uids, seqs, modseqs := slices.Clone(m.uids), slices.Clone(m.seqs), slices.Clone(m.modseqs)
	for to, from := range order {
		m.uids[to], m.seqs[to], m.modseqs[to] = uids[from], seqs[from], modseqs[from]
	}
	return nil
}

// sortValues gives what is compared of the results: for each of them, one value for each criterion.
func (m *matcher) sortValues() ([]sortValue, error) {
	keys := m.q.sort
	values := make([]sortValue, len(keys)*len(m.uids))
	var fields fieldSet
	for _, k := range keys {
		fields.need(k.field())
	}
	err := m.eachResult(&fields, func(i int, msg *Msg) {
		for j, k := range keys {
			if values[i*len(keys)+j] = k.value(msg, fields.value(k.field())); k.by == byRelevancy {
				values[i*len(keys)+j] = sortValue{n: -m.relevancy(msg.UID)} // the best first
			}
		}
	})
	return values, err
}

// compareSorted compares the values of two messages.
func compareSorted(keys []sortKey, x, y []sortValue) int {
	for j, k := range keys {
		c := cmp.Compare(x[j].n, y[j].n)
		if c == 0 {
			c = strings.Compare(x[j].text, y[j].text)
		}
		if k.reverse {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

// value gives what is compared of a message; raw is the value of the field, folded as it stands.
func (k sortKey) value(m *Msg, raw []byte) sortValue {
	switch k.by {
	case byArrival:
		return sortValue{n: m.Date}
	case bySize:
		return sortValue{n: m.Size}
	case byDate:
		return sortValue{n: sentDate(m, raw)}
	case bySubject:
		base, _ := baseSubject(decodedSubject(raw))
		return sortValue{text: collated(base)}
	}
	var text string
	scanAddresses(string(unfold(raw)), func(a mailAddress) bool {
		text = a.Local
		switch {
		case a.Group == notGroup && k.by >= byDisplayFrom && a.Name != "": // RFC 5957 §3
			text = a.Name
		case a.Group == notGroup && k.by >= byDisplayFrom:
			text = a.Local + "@" + a.Domain
		}
		return false
	})
	return sortValue{text: collated(decodeHeaderText(text))}
}

// collated gives a text in the form in which i;unicode-casemap compares it (RFC 5051 §2): in title case and taken apart.
func collated(text string) string {
	dst := make([]byte, 0, len(text))
	for _, r := range text {
		if len(dst) > sortMaxText {
			break
		}
		if r < utf8.RuneSelf {
			if 'a' <= r && r <= 'z' {
				r -= 'a' - 'A'
			}
			dst = append(dst, byte(r))
			continue
		}
		dst = norm.NFKD.AppendString(dst, string(unicode.ToTitle(r)))
	}
	return string(dst)
}

// sentDate is the time in the Date field. RFC 5256 §2.2: INTERNALDATE where there is none that can be read; a time of day
// or a zone that cannot be read counts as 0.
func sentDate(m *Msg, raw []byte) int64 {
	text := string(raw[:min(len(raw), 200)])
	day, ok := parseDay(text)
	if !ok {
		return m.Date
	}
	words := strings.Fields(text)
	for i, word := range words {
		clock, ok := secondsOf(word)
		if !ok {
			continue
		}
		if i+1 < len(words) {
			clock -= zoneOffset(words[i+1])
		}
		return day*secondsPerDay + clock
	}
	return day * secondsPerDay
}

// secondsOf reads a time of day, hh:mm or hh:mm:ss.
func secondsOf(word string) (int64, bool) {
	parts := strings.Split(word, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return 0, false
	}
	var n [3]int
	for i, part := range parts {
		v, ok := smallNumber(part)
		if !ok || v > [...]int{23, 59, 60}[i] {
			return 0, false
		}
		n[i] = v
	}
	return int64(n[0]*3600 + n[1]*60 + n[2]), true
}

// zoneHours are the names of zones that RFC 5322 §4.3 knows.
var zoneHours = map[string]int64{"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}

// zoneOffset reads a zone, in seconds east of Greenwich.
func zoneOffset(word string) int64 {
	if len(word) == 5 && (word[0] == '+' || word[0] == '-') {
		n, ok := smallNumber(word[1:])
		if !ok {
			return 0
		}
		offset := int64(n/100*3600 + n%100*60)
		if word[0] == '-' {
			return -offset
		}
		return offset
	}
	return zoneHours[strings.ToUpper(word)] * 3600
}

// decodedSubject gives a subject decoded, with single spaces (RFC 5256 §2.1, step 1).
func decodedSubject(raw []byte) string {
	return strings.Join(strings.Fields(string(decodedText(unfold(raw)))), " ")
}

// baseSubject takes from a subject what replies and mailing lists add to it, and says whether that was a mark of a reply
// or forward (RFC 5256 §2.1, steps 2 to 6, and §5).
func baseSubject(text string) (base string, reply bool) {
	for {
		text, reply = cutTrailers(text, reply)
		for {
			rest, marked := cutLeader(text)
			reply = reply || marked
			if blob := cutBlob(rest); blob != "" {
				rest = blob
			}
			if rest == text {
				break
			}
			text = rest
		}
		if len(text) < 6 || !strings.EqualFold(text[:5], "[fwd:") || text[len(text)-1] != ']' {
			return text, reply
		}
		text, reply = text[5:len(text)-1], true
	}
}

// cutTrailers takes "(fwd)" and spaces from the end.
func cutTrailers(text string, reply bool) (string, bool) {
	for {
		text = strings.TrimRight(text, " \t")
		n := len(text) - len("(fwd)")
		if n < 0 || !strings.EqualFold(text[n:], "(fwd)") {
			return text, reply
		}
		text, reply = text[:n], true
	}
}

// cutLeader takes one mark of a reply or forward, with the blobs before it, or spaces from the beginning.
func cutLeader(text string) (rest string, marked bool) {
	text = strings.TrimLeft(text, " \t")
	at := text
	for {
		blob := cutBlob(at)
		if blob == at || blob == "" {
			break
		}
		at = blob
	}
	switch {
	case hasPrefixFold(at, "fwd"):
		at = at[3:]
	case hasPrefixFold(at, "re"), hasPrefixFold(at, "fw"):
		at = at[2:]
	default:
		return text, false
	}
	at = strings.TrimLeft(at, " \t")
	if strings.HasPrefix(at, "[") {
		at = cutBlob(at)
	}
	if !strings.HasPrefix(at, ":") {
		return text, false
	}
	return strings.TrimLeft(at[1:], " \t"), true
}

// hasPrefixFold is strings.HasPrefix in any case.
func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// cutBlob takes "[text]" and spaces from the beginning.
func cutBlob(text string) string {
	if !strings.HasPrefix(text, "[") {
		return text
	}
	end := strings.IndexAny(text[1:], "[]")
	if end < 0 || text[1+end] != ']' {
		return text
	}
	return strings.TrimLeft(text[end+2:], " \t")
}

// fieldSet is what is wanted of a header: the first field of each kind.
type fieldSet struct {
	wanted uint64 // bit 1<<fieldID
	values [fieldListed + 1][]byte
}

// need wants a field; only those up to fieldListed can be.
func (f *fieldSet) need(id fieldID) {
	if id != fieldOther {
		f.wanted |= 1 << id
	}
}

// value is the value of a field as it stands, nil where there is none.
func (f *fieldSet) value(id fieldID) []byte {
	if id == fieldOther {
		return nil
	}
	return f.values[id]
}

// take takes the wanted fields of a header in the form of mimeEnvelope.Listed.
func (f *fieldSet) take(listed []byte) {
	f.values = [fieldListed + 1][]byte{}
	listedFields(listed, func(id fieldID, raw []byte) {
		if id <= fieldListed && f.wanted&(1<<id) != 0 && f.values[id] == nil {
			f.values[id] = raw[bytes.IndexByte(raw, ':')+1:]
		}
	})
}

// eachResult visits the messages that were found, in order, with their sizes and dates known and their wanted fields in
// fields.
func (m *matcher) eachResult(fields *fieldSet, visit func(i int, msg *Msg)) error {
	var msgs []Msg
	for start := 0; start < len(m.uids); start += fetchBatch {
		uids := m.uids[start:min(start+fetchBatch, len(m.uids))]
		var err error
		if msgs, err = m.folder.Messages(msgs, uids, true); err != nil {
			return fmt.Errorf("sorting: %w", err)
		}
		var found []cachedStructure
		if fields.wanted != 0 {
			found = m.lookUp(msgs, []*searchKey{{cost: costListed}})
		}
		at := 0
		for i, uid := range uids {
			gone := Msg{UID: uid} // it is in the answer all the same, at the beginning
			msg := &gone
			var listed []byte
			if at < len(msgs) && msgs[at].UID == uid {
				if msg = &msgs[at]; found != nil {
					listed = m.listedOf(msg, &found[at], fields)
				}
				at++
			}
			fields.take(listed)
			visit(start+i, msg)
		}
	}
	return nil
}

// listedOf gives the listed fields of a message, from its file where the cache has them not.
func (m *matcher) listedOf(msg *Msg, c *cachedStructure, fields *fieldSet) []byte {
	if c.tree != nil && !c.unlisted {
		return c.listed
	}
	m.msg, m.cached, m.known = msg, cachedStructure{}, false
	if !m.open() {
		return nil
	}
	defer m.close()
	if c.tree == nil {
		if _, ok := m.tree(); ok && !m.cached.unlisted {
			return m.cached.listed
		}
	}
	// The header is too large for the cache.
	var listed []byte
	left := fields.wanted
	m.note(m.eachField(0, m.file.Size(), func(raw []byte) bool {
		if id, _ := lookUpField(raw); id <= fieldListed && left&(1<<id) != 0 {
			listed = append(listed, byte(id))
			listed = binary.AppendUvarint(listed, uint64(len(raw)))
			listed = append(listed, raw...)
			left &^= 1 << id
		}
		return left != 0
	}))
	return listed
}
