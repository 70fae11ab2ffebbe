package main

// The text index: what is kept of messages so that a search for a text need not read them all.
//
// Of the texts of a message, folded as SEARCH compares them, it keeps the words: runs of letters, and of few digits, each
// once, and whether it is in the body or in another header. Other runs of letters and digits, which are mostly the names of
// something for machines and seldom the same twice, are kept as a signature: a Bloom filter of their trigrams, three bytes
// in a row. So
//
//   - a message that has no word and no trigrams for some part of the needle surely has not the needle;
//   - a message with a word in which the needle lies surely has it.
//
// What the two do not decide, the message itself decides, so that a search finds exactly what it would find without them.
//
// This family holds the forms: an entry for one message (this file), and a block for some hundreds, in which a word is kept
// once for all (textindex_block.go). Both are values of the disposable index.

import (
	"bytes"
	"encoding/binary"
)

const (
	// textVersion is the first byte of all values; others are as good as none.
	textVersion = 1
	// textMinWord and textMaxWord are the lengths of words in bytes, textMaxDigits that of a word of digits. Shorter runs
	// are left out: needles do not look for them.
	textMinWord, textMaxWord, textMaxDigits = 3, 24, 6
	// textMaxWords is how many words are kept of one message; the others go into its signatures.
	textMaxWords = 4000
	// textTable is the size of the table of the words of a message, twice as many or more.
	textTable = 8192
	// textSpaceBits is the logarithm of how many trigrams a signature can tell apart at most.
	textSpaceBits = 17
	textSpace     = 1 << textSpaceBits
	// textMaxPieces and textMaxGrams bound what is looked at of a needle: parts, and trigrams of each.
	textMaxPieces = 16
	textMaxGrams  = 32
)

// textPlaces is a set of the places of a message where a text can be.
type textPlaces uint8

const (
	inHead textPlaces = 1 << iota // in a header that BODY does not look at
	inBody                        // in what BODY looks at
)

// textWordEnd is above the bytes that end a word, of which none is in a word.
const textWordEnd = 4

// letterKind is what a byte of folded text is to words, or a set of that.
type letterKind uint8

const (
	letter letterKind = 1 << iota
	digit

	noLetter letterKind = 0
)

// letterKinds says what each byte is. Bytes beyond ASCII are letters.
var letterKinds = func() (kinds [256]letterKind) {
	for c := range kinds {
		switch {
		case c >= 'a' && c <= 'z', c >= 0x80:
			kinds[c] = letter
		case c >= '0' && c <= '9':
			kinds[c] = digit
		}
	}
	return kinds
}()

// isWord says whether a text is a word.
func isWord(text []byte) bool {
	kinds := noLetter
	for _, c := range text {
		if letterKinds[c] == noLetter {
			return false
		}
		kinds |= letterKinds[c]
	}
	return isWordOf(kinds, len(text))
}

// isWordOf says whether a run with these kinds of bytes and of this length is a word.
func isWordOf(kinds letterKind, length int) bool {
	return length >= textMinWord && (kinds == letter && length <= textMaxWord || kinds == digit && length <= textMaxDigits)
}

// textSign gathers trigrams, by their hashes.
type textSign struct {
	bits   [textSpace / 64]uint64
	hashes []uint32 // of the bits that are set
}

// gramHash gives the place of the trigram that b begins with in a signature of full size.
func gramHash(b []byte) uint32 {
	return (uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])) * 0x9e3779b1 >> (32 - textSpaceBits)
}

// add adds the trigrams of a run.
func (s *textSign) add(run []byte) {
	for ; len(run) >= 3; run = run[1:] {
		h := gramHash(run)
		if bit := uint64(1) << (h % 64); s.bits[h/64]&bit == 0 {
			s.bits[h/64] |= bit
			s.hashes = append(s.hashes, h)
		}
	}
}

// append appends the signature. It has four bits for a trigram, so that some two in nine bits are set: of the messages that
// have not a run of five letters, one in a hundred seems to have it.
func (s *textSign) append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, min((len(s.hashes)+1)/2, textSpace/8))...)
	sign := dst[start:]
	for _, h := range s.hashes {
		at := signPlace(h, len(sign))
		sign[at/8] |= 1 << (at % 8)
	}
	return dst
}

// clear forgets the trigrams.
func (s *textSign) clear() {
	for _, h := range s.hashes {
		s.bits[h/64] = 0
	}
	s.hashes = s.hashes[:0]
}

// signPlace gives the bit for a hash in a signature of size bytes.
func signPlace(hash uint32, size int) uint32 {
	return uint32(uint64(hash) * uint64(size*8) >> textSpaceBits)
}

// signHas says whether a signature may have all of the trigrams, of which there is one at least.
func signHas(sign []byte, hashes []uint32) bool {
	for _, h := range hashes {
		at := signPlace(h, len(sign))
		if len(sign) == 0 || sign[at/8]&(1<<(at%8)) == 0 {
			return false
		}
	}
	return true
}

// textSummary makes the entries of messages, one after another. It takes their texts as a textVisitor; memory is bounded.
// Not safe for concurrent use.
type textSummary struct {
	head, body textSign
	place      textPlaces        // of the text in hand
	run        [textMaxWord]byte // the run in hand; of one that is longer its last three bytes
	runLen     int
	kinds      letterKind        // of its bytes
	words      []byte            // each with a byte behind it for its places
	ends       []int             // where that byte is
	table      [textTable]uint16 // finds words: their numbers from 1, at the place of their hash or behind it
}

// begin starts a text. body says that BODY looks at it.
func (s *textSummary) begin(body bool) {
	s.endRun()
	s.place = inHead
	if body {
		s.place = inBody
	}
}

// next takes a piece of a text, folded. It wants all of them.
func (s *textSummary) next(folded []byte) (more bool) {
	if s.runLen > 0 {
		folded = s.goOn(folded)
	}
	for i := 0; i < len(folded); i++ {
		start, kinds := i, noLetter
		for i < len(folded) && letterKinds[folded[i]] != noLetter {
			kinds |= letterKinds[folded[i]]
			i++
		}
		switch {
		case i == len(folded): // it may go on in the next piece
			s.goOn(folded[start:])
		case i-start >= textMinWord:
			s.take(folded[start:i], kinds)
		}
	}
	return true
}

// goOn adds what text begins with to the run in hand and gives the rest.
func (s *textSummary) goOn(text []byte) (rest []byte) {
	for i, c := range text {
		if letterKinds[c] == noLetter {
			s.endRun()
			return text[i:]
		}
		s.kinds |= letterKinds[c]
		if s.runLen < textMaxWord {
			s.run[s.runLen] = c
			s.runLen++
			continue
		}
		s.growRun(c)
	}
	return nil
}

// sign is the signature for the text in hand.
func (s *textSummary) sign() *textSign {
	if s.place == inBody {
		return &s.body
	}
	return &s.head
}

// growRun adds a byte to a run that is no word, being too long.
func (s *textSummary) growRun(c byte) {
	if s.runLen == textMaxWord {
		s.sign().add(s.run[:])
		copy(s.run[:], s.run[textMaxWord-3:])
		s.runLen++
	}
	s.run[0], s.run[1], s.run[2] = s.run[1], s.run[2], c
	s.sign().add(s.run[:3])
}

// endRun ends the run in hand.
func (s *textSummary) endRun() {
	if s.runLen >= textMinWord && s.runLen <= textMaxWord {
		s.take(s.run[:s.runLen], s.kinds)
	}
	s.runLen, s.kinds = 0, noLetter
}

// take keeps a run, which has these kinds of bytes.
func (s *textSummary) take(run []byte, kinds letterKind) {
	if !isWordOf(kinds, len(run)) {
		s.sign().add(run)
		return
	}
	switch slot := s.slot(run); {
	case *slot > 0:
		s.words[s.ends[*slot-1]] |= byte(s.place)
	case len(s.ends) == textMaxWords:
		s.sign().add(run)
	default:
		s.words = append(append(s.words, run...), byte(s.place))
		s.ends = append(s.ends, len(s.words)-1)
		*slot = uint16(len(s.ends))
	}
}

// slot gives where the number of a word is in the table, or would be.
func (s *textSummary) slot(word []byte) *uint16 {
	for hash := wordHash(word); ; hash++ {
		slot := &s.table[hash%textTable]
		if *slot == 0 {
			return slot
		}
		start := 0
		if *slot > 1 {
			start = s.ends[*slot-2] + 1
		}
		if bytes.Equal(s.words[start:s.ends[*slot-1]], word) {
			return slot
		}
	}
}

// wordHash is a hash of a word, from its length, its first and its last bytes.
func wordHash(word []byte) uint64 {
	n := len(word)
	var first, last uint64
	switch {
	case n >= 8:
		first, last = binary.LittleEndian.Uint64(word), binary.LittleEndian.Uint64(word[n-8:])
	case n >= 4:
		first, last = uint64(binary.LittleEndian.Uint32(word)), uint64(binary.LittleEndian.Uint32(word[n-4:]))
	default:
		first, last = uint64(word[0])<<8|uint64(word[1]), uint64(word[2])
	}
	hash := (first ^ uint64(n)) * 0x9e3779b97f4a7c15
	hash = (hash ^ hash>>32 ^ last) * 0x9e3779b97f4a7c15
	return hash >> 32
}

// entry gives the entry of a message of size bytes whose texts have all been taken, and is ready for the next.
func (s *textSummary) entry(size int64) []byte {
	s.endRun()
	head := s.head.append(nil)
	body := s.body.append(nil)
	b := append(make([]byte, 0, 24+len(head)+len(body)+len(s.words)), textVersion)
	b = binary.AppendUvarint(b, uint64(size))
	b = binary.AppendUvarint(b, uint64(len(head)))
	b = binary.AppendUvarint(b, uint64(len(body)))
	b = append(append(append(b, head...), body...), s.words...)
	s.drop()
	return b
}

// drop forgets the texts that were taken, where a message could not be read to its end.
func (s *textSummary) drop() {
	s.runLen, s.kinds = 0, noLetter
	s.head.clear()
	s.body.clear()
	s.words, s.ends, s.table = s.words[:0], s.ends[:0], [textTable]uint16{}
}

// textEntry is an entry taken apart: version; size of the message, lengths of its two signatures; the signatures; the words,
// each with a byte behind it for its places.
type textEntry struct {
	size       int64 // of the message; one of another size is another message
	head, body []byte
	words      []byte
}

// parseTextEntry takes an entry apart. ok is false when it is of another version or damaged.
func parseTextEntry(value []byte) (e textEntry, ok bool) {
	d := newTextDecoder(value)
	e.size = int64(d.number())
	head, body := d.number(), d.number()
	e.head, e.body = d.take(head), d.take(body)
	e.words = d.b
	return e, !d.bad
}

// textDecoder reads values of the text index; bad says that one makes no sense.
type textDecoder struct {
	b   []byte
	bad bool
}

// newTextDecoder reads a value's version.
func newTextDecoder(value []byte) textDecoder {
	d := textDecoder{b: value}
	if v := d.take(1); len(v) == 0 || v[0] != textVersion {
		d.bad, d.b = true, nil
	}
	return d
}

// number reads a number.
func (d *textDecoder) number() uint64 {
	n, size := binary.Uvarint(d.b)
	if size <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[size:]
	return n
}

// take reads n bytes.
func (d *textDecoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	piece := d.b[:n]
	d.b = d.b[n:]
	return piece
}

// textPiece is a run of letters and digits of a needle. It lies in a run of the text.
type textPiece struct {
	run    []byte
	begins bool // the run of the text begins with it
	ends   bool // and ends with it
	grams  []uint32
	places textPlaces // where it is looked for
}

// textNeedle is a text that is looked for, as the index knows it.
type textNeedle struct {
	places textPlaces
	pieces []textPiece
	word   bool // it is a word: a message with a word in which it lies has it
}

// newTextNeedle makes the needle of a folded text that is looked for in places; the head alone means some of its fields. ok
// is false where the index can say nothing of it, for it has no three letters or digits in a row.
func newTextNeedle(places textPlaces, folded []byte) (n textNeedle, ok bool) {
	n.places = places
	n.addPieces(folded, false, places)
	n.word = places&inBody != 0 && isWord(folded)
	return n, len(n.pieces) > 0
}

// nameField says that the needle is looked for in the fields of a name only.
func (n *textNeedle) nameField(name []byte) { n.addPieces(name, true, inHead) }

// addPieces adds the runs of a text. whole says that what is beside the text in the message is no part of its runs.
func (n *textNeedle) addPieces(text []byte, whole bool, places textPlaces) {
	for at := 0; at < len(text) && len(n.pieces) < textMaxPieces; {
		end := at
		for end < len(text) && letterKinds[text[end]] != noLetter {
			end++
		}
		if end-at >= textMinWord {
			p := textPiece{run: text[at:end], begins: whole || at > 0, ends: whole || end < len(text), places: places}
			for i := 0; i+3 <= len(p.run) && len(p.grams) < textMaxGrams; i++ {
				p.grams = append(p.grams, gramHash(p.run[i:]))
			}
			n.pieces = append(n.pieces, p)
		}
		at = end + 1
	}
}

// find gives the first word from a place on in which the piece lies: where the byte behind it is. -1: there is none.
func (p *textPiece) find(words []byte, from int) (end int) {
	for {
		i := bytes.Index(words[from:], p.run)
		if i < 0 {
			return -1
		}
		start := from + i
		end = wordEnd(words, start+len(p.run))
		if end == len(words) {
			return -1
		}
		begins := start == 0 || words[start-1] < textWordEnd
		if (begins || !p.begins) && (end == start+len(p.run) || !p.ends) {
			return end
		}
		from = start + 1
	}
}

// wordEnd gives where the word ends that a place is in: there is the byte behind it, or the end of the words.
func wordEnd(words []byte, at int) int {
	for at < len(words) && words[at] >= textWordEnd {
		at++
	}
	return at
}

// textVerdict is what the index says of a message and a needle.
type textVerdict uint8

const (
	textUnknown textVerdict = iota // the message itself decides
	textMissing                    // the message has not the needle
	textFound                      // it has
)

// verdict says of a needle where a message may have it, in may, and where words have it whole, in words.
func (n *textNeedle) verdict(may, words textPlaces) textVerdict {
	switch {
	case may&n.places == 0:
		return textMissing
	case n.word && words&n.places != 0:
		return textFound
	}
	return textUnknown
}

// judge says what an entry tells of a needle.
func (e *textEntry) judge(n *textNeedle) textVerdict {
	may, words := n.places, textPlaces(0)
	for i := range n.pieces {
		p := &n.pieces[i]
		words = e.holding(p)
		may &= words | e.seeming(p) | ^p.places
	}
	return n.verdict(may, words)
}

// holding says where the entry has words in which a piece lies.
func (e *textEntry) holding(p *textPiece) (places textPlaces) {
	for at := 0; places != inHead|inBody; at++ {
		if at = p.find(e.words, at); at < 0 {
			break
		}
		places |= textPlaces(e.words[at])
	}
	return places
}

// seeming says where the signatures may have a piece.
func (e *textEntry) seeming(p *textPiece) (places textPlaces) {
	if signHas(e.head, p.grams) {
		places |= inHead
	}
	if signHas(e.body, p.grams) {
		places |= inBody
	}
	return places
}
