package main

// SEARCH=FUZZY, RFC 6203. A fuzzy text is found where all of its words are, in any order; where it stands as it is, the
// message is more relevant.

import (
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// Relevancies (RFC 6203 §4).
const (
	relevantFully  = 100
	relevantPartly = 50
)

// fuzzy gives FUZZY key. Keys that are not about text know no other meaning.
func fuzzy(key *searchKey) *searchKey {
	switch key.op {
	case opAnd, opOr, opNot:
		for i := range key.keys {
			key.keys[i] = fuzzy(key.keys[i])
		}
		return key
	case opHeader, opBody, opText:
	default:
		return key
	}
	words := &searchKey{op: opAnd}
	for _, word := range strings.Fields(string(key.finder.needle)) {
		one := *key
		one.finder = newTextFinder(word)
		words.keys = append(words.keys, &one)
	}
	if len(words.keys) < 2 {
		return key
	}
	return &searchKey{op: opFuzzy, keys: []*searchKey{key, words}}
}

// matchFuzzy says whether the message in hand has the text or its words.
func (m *matcher) matchFuzzy(k *searchKey) bool {
	if m.match(k.keys[0]) {
		return true
	}
	if !m.match(k.keys[1]) {
		return false
	}
	if m.partly == nil {
		m.partly = make(map[imap.UID]bool)
	}
	m.partly[m.msg.UID] = true
	return true
}

// relevancy gives how relevant a message is.
func (m *matcher) relevancy(uid imap.UID) int64 {
	if m.partly[uid] {
		return relevantPartly
	}
	return relevantFully
}

// appendRelevancy appends RELEVANCY (n n …), one number for each result (RFC 6203 §4).
func appendRelevancy(b []byte, m *matcher) []byte {
	b = append(b, " RELEVANCY ("...)
	for i, uid := range m.uids {
		if i > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendInt(b, m.relevancy(uid), 10)
	}
	return append(b, ')')
}
