package main

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/emersion/go-imap/v2"
)

// A block of the text index has the entries of up to textBlockMessages messages:
//
//	version, the numbers of messages and of words, the length of the words
//	for each message its UID (the distance to the one before), its size, and the lengths of its two signatures
//	the words, each with a zero byte behind it
//	for each word two bytes: in how many messages it is in the head, and in the body; 255 means that or more
//	for each word the messages with it in the head, then those with it in the body
//	the signatures
//
// The messages of a word are a list of bytes, or a bit for each message of a full block where that is shorter.

const (
	// textBlockMessages is how many messages are in a block. Their numbers fit into a byte.
	textBlockMessages = 256
	// textBlockBytes is the size at which a block is full, roughly.
	textBlockBytes = 1 << 20
	// textBitmapBytes is the length of the list of a word that is in many messages.
	textBitmapBytes = textBlockMessages / 8
)

// textBlock gathers entries for a block. The zero value is empty.
type textBlock struct {
	uids    []imap.UID
	heads   []byte // UID, size and lengths of the messages
	signs   []byte
	numbers map[string]int // of the words
	words   []byte
	lists   [][2][]byte // of each word: messages with it in the head, in the body
	bytes   int
}

// add adds the entry of a message. UIDs ascend. false says that there is no room, or that the entry makes no sense.
func (b *textBlock) add(uid imap.UID, entry []byte) bool {
	e, ok := parseTextEntry(entry)
	last := imap.UID(0)
	if n := len(b.uids); n > 0 {
		last = b.uids[n-1]
	}
	if !ok || uid <= last || b.full() {
		return false
	}
	at := byte(len(b.uids))
	b.uids = append(b.uids, uid)
	for _, n := range [...]uint64{uint64(uid - last), uint64(e.size), uint64(len(e.head)), uint64(len(e.body))} {
		b.heads = binary.AppendUvarint(b.heads, n)
	}
	b.signs = append(append(b.signs, e.head...), e.body...)
	b.bytes += len(e.head) + len(e.body)
	for words := e.words; len(words) > 0; {
		end := wordEnd(words, 0)
		if end == len(words) {
			break
		}
		b.addWord(words[:end], textPlaces(words[end]), at)
		words = words[end+1:]
	}
	return true
}

// addWord adds a word of a message.
func (b *textBlock) addWord(word []byte, places textPlaces, at byte) {
	number, known := b.numbers[string(word)]
	if !known {
		if b.numbers == nil {
			b.numbers = make(map[string]int)
		}
		number = len(b.lists)
		b.numbers[string(word)] = number
		b.words = append(append(b.words, word...), 0)
		b.lists = append(b.lists, [2][]byte{})
		b.bytes += len(word) + 3
	}
	for i, place := range [...]textPlaces{inHead, inBody} {
		if places&place != 0 {
			b.lists[number][i] = append(b.lists[number][i], at)
			b.bytes++
		}
	}
}

// full says whether there is no room for more.
func (b *textBlock) full() bool {
	return len(b.uids) == textBlockMessages || b.bytes >= textBlockBytes
}

// value gives the block as it is kept.
func (b *textBlock) value() []byte {
	v := append(make([]byte, 0, 32+len(b.heads)+b.bytes), textVersion)
	for _, n := range [...]int{len(b.uids), len(b.lists), len(b.words)} {
		v = binary.AppendUvarint(v, uint64(n))
	}
	v = append(append(v, b.heads...), b.words...)
	for _, lists := range b.lists {
		v = append(v, byte(min(len(lists[0]), 255)), byte(min(len(lists[1]), 255)))
	}
	for _, lists := range b.lists {
		v = appendTextList(appendTextList(v, lists[0]), lists[1])
	}
	return append(v, b.signs...)
}

// appendTextList appends the messages that have a word.
func appendTextList(dst, list []byte) []byte {
	if len(list) <= textBitmapBytes {
		return append(dst, list...)
	}
	var bitmap [textBitmapBytes]byte
	for _, at := range list {
		bitmap[at/8] |= 1 << (at % 8)
	}
	return append(dst, bitmap[:]...)
}

// textListSize is the length of a list by its count.
func textListSize(count byte) int { return min(int(count), textBitmapBytes) }

// textBlockReader looks into blocks, one after another. Not safe for concurrent use.
type textBlockReader struct {
	uids    []imap.UID
	entries []textEntry // without words
	words   []byte
	counts  []byte
	lists   []byte

	may, held [textBlockMessages]textPlaces // of the needle in hand
}

// open takes a block apart. It refers to the value. false says that it is of another version or damaged.
func (r *textBlockReader) open(value []byte) bool {
	d := newTextDecoder(value)
	messages, words, size := d.number(), d.number(), d.number()
	if d.bad || messages > textBlockMessages || words > size {
		return false
	}
	r.uids, r.entries = r.uids[:0], r.entries[:0]
	uid := imap.UID(0)
	var lengths [2 * textBlockMessages]uint64
	for i := range messages {
		uid += imap.UID(d.number())
		r.uids = append(r.uids, uid)
		r.entries = append(r.entries, textEntry{size: int64(d.number())})
		lengths[2*i], lengths[2*i+1] = d.number(), d.number()
	}
	r.words, r.counts = d.take(size), d.take(2*words)
	total := 0
	for _, count := range r.counts {
		total += textListSize(count)
	}
	r.lists = d.take(uint64(total))
	for i := range r.entries {
		r.entries[i].head, r.entries[i].body = d.take(lengths[2*i]), d.take(lengths[2*i+1])
	}
	return !d.bad
}

// judge visits the messages of the block with what it tells of a needle.
func (r *textBlockReader) judge(n *textNeedle, visit func(at int, v textVerdict)) {
	for i := range r.entries {
		r.may[i] = n.places
	}
	for i := range n.pieces {
		p := &n.pieces[i]
		r.hold(p)
		for at := range r.entries {
			if r.may[at] != 0 {
				r.may[at] &= r.held[at] | r.entries[at].seeming(p) | ^p.places
			}
		}
	}
	for at := range r.entries {
		visit(at, n.verdict(r.may[at], r.held[at]))
	}
}

// hold notes in held where messages have words in which a piece lies.
func (r *textBlockReader) hold(p *textPiece) {
	r.held = [textBlockMessages]textPlaces{}
	from, number, list := 0, 0, 0 // where a word begins, its number, its first list
	for {
		end := p.find(r.words, from)
		if end < 0 {
			return
		}
		passed := bytes.Count(r.words[from:end], []byte{0})
		if 2*(number+passed)+1 >= len(r.counts) {
			return // damaged
		}
		for _, count := range r.counts[2*number : 2*(number+passed)] {
			list += textListSize(count)
		}
		number += passed
		for i, place := range [...]textPlaces{inHead, inBody} {
			count := r.counts[2*number+i]
			r.note(r.lists[list:list+textListSize(count)], count, place)
			list += textListSize(count)
		}
		number++
		from = end + 1
	}
}

// note notes the messages of a list.
func (r *textBlockReader) note(list []byte, count byte, place textPlaces) {
	if count <= textBitmapBytes {
		for _, at := range list {
			r.held[at] |= place
		}
		return
	}
	for i, b := range list {
		for ; b != 0; b &= b - 1 {
			r.held[i*8+bits.TrailingZeros8(b)] |= place
		}
	}
}
