package main

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

const (
	// spamTokens is how many tokens are taken of one message; what comes after is not looked at.
	spamTokens = 3000
	// Lengths of words in octets. What is longer counts by its length alone.
	shortestWord, longestWord = 3, 24
)

// tokenKind tells the same word in different places apart.
type tokenKind byte

const (
	tokenWord     tokenKind = iota + 1 // in the text
	tokenPair                          // two words of the text
	tokenSubject                       // in the subject
	tokenAuthor                        // of From
	tokenReply                         // of Reply-To and Sender
	tokenEnvelope                      // of the reverse-path
	tokenPeer                          // who gave it to us
	tokenField                         // names of fields, and words of some
	tokenType                          // media type of the message
	tokenCharset
	tokenHost // of links
	tokenMark // elements of HTML
	tokenFile // words of attachments' names
	tokenEnding
	tokenLong // a word that is too long to be one
)

// tokenSet is the tokens of one message, as hashes: what they were cannot be read from what is learned.
type tokenSet struct {
	seed uint64
	list []uint32
	seen map[uint32]struct{}
	buf  []byte
}

func (t *tokenSet) clear(seed uint64) {
	t.seed = seed
	if t.seen == nil {
		t.seen = make(map[uint32]struct{}, 1024)
	}
	clear(t.seen)
	t.list = t.list[:0]
}

// add adds a token.
func (t *tokenSet) add(kind tokenKind, text []byte) {
	hash := mix64(t.seed + uint64(kind))
	for _, c := range text { // FNV-1a, from a place that no sender knows
		hash = (hash ^ uint64(c)) * 1099511628211
	}
	token := uint32(mix64(hash))
	if _, ok := t.seen[token]; ok || len(t.list) >= spamTokens {
		return
	}
	t.seen[token] = struct{}{}
	t.list = append(t.list, token)
}

func (t *tokenSet) named(kind tokenKind, text string) {
	t.buf = append(t.buf[:0], text...)
	t.add(kind, t.buf)
}

// full says that no more is taken.
func (t *tokenSet) full() bool { return len(t.list) >= spamTokens }

// mix64 spreads the bits of a hash (the finisher of SplitMix64).
func mix64(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// isWordByte says whether a byte of folded text is part of a word, isInnerByte whether it may be inside one.
func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= utf8.RuneSelf || c == '$' || c == '%'
}

func isInnerByte(c byte) bool { return c == '\'' || c == '-' || c == '.' || c == '_' || c == '@' }

// words makes tokens of a folded text: of its words, and of pairs of them where it is running text.
func (m *spamMessage) words(kind tokenKind, text []byte) {
	text = m.mend(text)
	var pair [2*longestWord + 1]byte
	before := 0 // length of the word before in pair
	for i := 0; i < len(text) && !m.tokens.full(); {
		if !isWordByte(text[i]) {
			if text[i] == '.' || text[i] == '!' || text[i] == '?' {
				before = 0
			}
			i++
			continue
		}
		start := i
		for i < len(text) && (isWordByte(text[i]) || isInnerByte(text[i]) && i+1 < len(text) && isWordByte(text[i+1])) {
			i++
		}
		word := text[start:i]
		m.facts.letters += len(word)
		switch {
		case len(word) > longestWord:
			m.longWord(kind, word)
			before = 0
			continue
		case len(word) >= shortestWord:
			m.tokens.add(kind, word)
		}
		if kind != tokenWord && kind != tokenSubject {
			continue
		}
		if before > 0 {
			pair[before] = ' '
			n := before + 1 + copy(pair[before+1:], word)
			m.tokens.add(tokenPair, pair[:n])
		}
		before = copy(pair[:], word)
	}
}

// longWord makes tokens of what is no word: of scripts without spaces every two characters, of the rest the length.
func (m *spamMessage) longWord(kind tokenKind, word []byte) {
	if bytes.IndexByte(word, '@') > 0 { // an address
		_, domain, _ := bytes.Cut(word, []byte{'@'})
		m.tokens.add(kind, domain)
		return
	}
	if runes := utf8.RuneCount(word); 2*runes > len(word) {
		m.tokens.add(tokenLong, []byte{byte(kind), word[0], byte(min(len(word)/16, 255))})
		return
	}
	for len(word) > 0 && !m.tokens.full() {
		_, first := utf8.DecodeRune(word)
		_, second := utf8.DecodeRune(word[first:])
		m.tokens.add(kind, word[:first+second])
		word = word[first:]
	}
}

// mend takes invisible characters out of a text, which hide words from filters, and counts those inside words.
func (m *spamMessage) mend(text []byte) []byte {
	at := invisibleAt(text)
	if at < 0 {
		return text
	}
	out := make([]byte, 0, len(text))
	for ; at >= 0; at = invisibleAt(text) {
		out = append(out, text[:at]...)
		_, n := utf8.DecodeRune(text[at:])
		text = text[at+n:]
		if len(out) > 0 && len(text) > 0 && isASCIILetter(out[len(out)-1]) && isASCIILetter(text[0]) {
			m.facts.torn++
		}
	}
	return append(out, text...)
}

func isASCIILetter(c byte) bool { return c >= 'a' && c <= 'z' }

// invisibleAt finds the first invisible character: U+00AD, U+200B to U+200F, U+2060 to U+2064, U+FEFF.
func invisibleAt(text []byte) int {
	for i := 0; i+1 < len(text); i++ {
		switch text[i] {
		case 0xc2:
			if text[i+1] == 0xad {
				return i
			}
		case 0xe2, 0xef:
			if i+2 >= len(text) {
				return -1
			}
			switch c := binary.BigEndian.Uint16(text[i+1:]); {
			case text[i] == 0xef && c == 0xbbbf, text[i] == 0xe2 && c >= 0x808b && c <= 0x808f, text[i] == 0xe2 && c >= 0x81a0 && c <= 0x81a4:
				return i
			}
		}
	}
	return -1
}
