package main

// How SEARCH uses the text index (textindex.go), and feeds it with what it must read.

import (
	"strings"

	"github.com/emersion/go-imap/v2"
)

const (
	// narrowLeast is how many messages there must be to look at before the index is asked: few are read faster.
	narrowLeast = 32
	// narrowMost bounds the answers of the index to one search, keys times messages. Further keys do without.
	narrowMost = 4 << 20
)

// textAnswers is what the text index says of the messages that a search looks at and of its keys.
type textAnswers struct {
	needles  []textNeedle
	numbers  map[*searchKey]int // of the keys that have a needle
	verdicts [][]textVerdict    // of each needle, by the place of the message
	sizes    textSizes
	reading  bool // some keys need the texts of messages
	there    int  // messages that are indexed
	others   int  // messages that are indexed and not looked at
}

// askIndex asks the text index about the keys.
func (m *matcher) askIndex(keys []*searchKey) {
	if len(m.uids) < narrowLeast || keys[len(keys)-1].cost < costListed {
		return
	}
	a := &textAnswers{numbers: make(map[*searchKey]int)}
	a.addKeys(keys, narrowMost/len(m.all))
	if len(a.needles) == 0 && !a.reading {
		return
	}
	a.sizes = make(textSizes, len(m.all))
	for range a.needles {
		a.verdicts = append(a.verdicts, make([]textVerdict, len(m.all)))
	}
	a.read(m.folder, m.all)
	m.index = a
	if a.reading && m.s.p.text != nil {
		m.feed = &textFeed{folder: m.folder}
	}
}

// addKeys makes needles of the keys that look for texts, and of those inside them, up to a number of needles.
func (a *textAnswers) addKeys(keys []*searchKey, most int) {
	for _, k := range keys {
		a.addKeys(k.keys, most)
		places := inHead
		switch k.op {
		case opText:
			places = inHead | inBody
		case opBody:
			places = inBody
		case opHeader:
		default:
			continue
		}
		a.reading = a.reading || k.cost > costListed
		n, ok := newTextNeedle(places, k.finder.needle)
		if name := strings.TrimSpace(k.name); k.op == opHeader && isASCII([]byte(name)) {
			n.nameField([]byte(strings.ToLower(name)))
			ok = len(n.pieces) > 0
		}
		if ok && len(a.needles) < most {
			a.numbers[k] = len(a.needles)
			a.needles = append(a.needles, n)
		}
	}
}

// read reads the index. Entries of single messages come last: they may be newer than those in blocks.
func (a *textAnswers) read(f *Folder, uids []imap.UID) {
	places := uidPlaces{uids: uids}
	var block textBlockReader
	var at [textBlockMessages]int
	f.EachCached(cacheTextBlock, func(_ imap.UID, value []byte) {
		if !block.open(value) {
			return
		}
		for i, uid := range block.uids {
			at[i] = places.of(uid)
			a.note(at[i], block.entries[i].size)
		}
		for n := range a.needles {
			block.judge(&a.needles[n], func(i int, v textVerdict) {
				if at[i] >= 0 {
					a.verdicts[n][at[i]] = v
				}
			})
		}
	})
	f.EachCached(cacheText, func(uid imap.UID, value []byte) {
		e, ok := parseTextEntry(value)
		place := places.of(uid)
		if !ok || place < 0 {
			return
		}
		a.note(place, e.size)
		for n := range a.needles {
			a.verdicts[n][place] = e.judge(&a.needles[n])
		}
	})
}

// note notes that the message at a place is indexed; -1: one that is not looked at.
func (a *textAnswers) note(place int, size int64) {
	if place < 0 {
		a.others++
		return
	}
	if a.sizes[place] == 0 {
		a.there++
	}
	a.sizes.note(place, size)
}

// indexed says whether the index has the message in hand, as it is.
func (m *matcher) indexed() bool { return m.index != nil && m.index.sizes.is(m.at, m.msg.Size) }

// verdict is what the index says of the message in hand and a key.
func (m *matcher) verdict(k *searchKey) textVerdict {
	if !m.indexed() {
		return textUnknown
	}
	n, ok := m.index.numbers[k]
	if !ok {
		return textUnknown
	}
	return m.index.verdicts[n][m.at]
}

// matchIndexed matches the messages that their states and the text index decide, and gives the indexes of the others.
func (m *matcher) matchIndexed(msgs []Msg, match []bool, keys []*searchKey) (left []int) {
	for i := range msgs {
		m.takeUp(&msgs[i], m.numbers[i])
		v := textUnknown
		if m.index != nil {
			v = m.decideAll(keys)
		}
		match[i] = v == textFound
		if v == textUnknown {
			left = append(left, i)
		}
	}
	return left
}

// decideAll says whether the message in hand has all of the keys, as far as the index knows.
func (m *matcher) decideAll(keys []*searchKey) textVerdict {
	all := textFound
	for _, k := range keys {
		switch m.decide(k) {
		case textMissing:
			return textMissing
		case textUnknown:
			all = textUnknown
		}
	}
	return all
}

// decide says whether the message in hand has the key, as far as its state and the index know.
func (m *matcher) decide(k *searchKey) textVerdict {
	switch k.op {
	case opAnd:
		return m.decideAll(k.keys)
	case opOr, opFuzzy:
		// Of a fuzzy text that is found, match tells how well.
		missing := true
		for _, key := range k.keys {
			v := m.decide(key)
			if v == textFound && k.op == opOr {
				return v
			}
			missing = missing && v == textMissing
		}
		if missing {
			return textMissing
		}
		return textUnknown
	case opNot:
		switch m.decide(k.keys[0]) {
		case textFound:
			return textMissing
		case textMissing:
			return textFound
		}
		return textUnknown
	case opHeader, opBody, opText:
		return m.verdict(k)
	}
	if k.cost > costFile {
		return textUnknown
	}
	if m.match(k) {
		return textFound
	}
	return textMissing
}

// readAll reads all texts of the message in hand, which the index lacks, and keeps what it needs of them; body looks for a
// text in those of the body only.
func (m *matcher) readAll(root *treePart, hit *textHit, body bool) {
	pair := textPair{hit: hit, summary: &m.feed.summary, bodyOnly: body}
	if err := m.read(root, true, &pair); err != nil {
		pair.summary.drop()
		m.note(err)
		return
	}
	m.index.note(m.at, m.file.Size())
	for n := range m.index.verdicts {
		m.index.verdicts[n][m.at] = textUnknown
	}
	m.msg.Size = m.file.Size()
	m.feed.add(m.msg.UID, pair.summary.entry(m.file.Size()))
}

// feedIndex puts what the search has read into the index, and has the rest of the folder read. Where all messages were looked
// at and the index has many others, they are gone: they leave the index then.
func (m *matcher) feedIndex() {
	if m.feed == nil {
		return
	}
	m.feed.flush()
	if n := len(m.all); m.index.there < n || m.only == nil && m.index.others > n {
		m.s.p.text.fill(m.folder)
	}
}

// textPair looks for a text and summarises all of them.
type textPair struct {
	hit      *textHit
	summary  *textSummary
	bodyOnly bool // the text is looked for in the body
	passed   bool // the text in hand is not of the body
}

// begin is textVisitor.
func (p *textPair) begin(body bool) {
	p.passed = p.bodyOnly && !body
	p.hit.begin(body)
	p.summary.begin(body)
}

// next is textVisitor.
func (p *textPair) next(folded []byte) (more bool) {
	if !p.passed && !p.hit.found {
		p.hit.next(folded)
	}
	return p.summary.next(folded)
}
