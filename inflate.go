package main

// The reader of DEFLATE streams (RFC 1951) that come in pieces. compress/flate, and github.com/klauspost/compress with
// it, hold back what they have decoded until a block is full or an empty stored block comes, and so wait for ever at a
// Z_PARTIAL_FLUSH, which ends in an empty block of fixed codes. This one gives what it has before it waits for input.

import (
	"errors"
	"io"
	"math/bits"
	"sync"
)

const (
	inflateWindow = 32 << 10 // how far back a match may reach (RFC 1951 §2)
	inflateInput  = 512      // bytes taken from the stream at once
	inflateIdle   = 64 << 10 // bytes of input that may go by without a byte of output
)

// errDeflate says that the stream is not one of DEFLATE.
var errDeflate = errors.New("the compressed data is damaged")

// errShortInput says that the input has to be waited for; nothing was taken.
var errShortInput = errors.New("more input is needed")

// inflater reads a raw DEFLATE stream. Its window grows with what comes out: a client that sends little costs little.
type inflater struct {
	src io.Reader
	err error // of src or the stream, for good

	in    [inflateInput]byte
	inPos int
	inEnd int
	bits  uint64 // taken from in and not used, the next one lowest
	have  uint   // how many
	empty int    // bytes of input since the last output

	window []byte // a ring with a power of two of bytes
	out    int    // bytes put into the window, in all
	given  int    // bytes of them that were read

	step   inflateStep
	final  bool // the block is the last
	left   int  // bytes of the stored block, or of the match, that are to come
	dist   int  // of the match
	codes  *inflateCodes
	header *inflateHeader // of a block with codes of its own, while it is read
}

// inflateStep is what comes next in the stream.
type inflateStep uint8

const (
	inflateBlock   inflateStep = iota // a block's header
	inflateStored                     // bytes of a stored block
	inflateLengths                    // the code lengths of a block with codes of its own
	inflateSymbols                    // symbols
	inflateCopy                       // bytes of a match
)

func newInflater(src io.Reader) *inflater {
	return &inflater{src: src, window: make([]byte, 512)}
}

// Read gives at least one byte, and waits for input only when there is none to give.
func (f *inflater) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		// The window must not lose what was not read yet.
		for f.err == nil && f.out-f.given < min(len(p), inflateWindow/2) {
			if err := f.decode(inflateWindow/2 - (f.out - f.given)); err == errShortInput {
				break
			} else if err != nil {
				f.err = err
			}
		}
		if n := f.give(p); n > 0 {
			f.empty = 0
			return n, nil
		}
		if f.err == nil {
			f.refill()
		}
		if f.err != nil && f.out == f.given {
			return 0, f.err
		}
	}
}

// give copies what is in the window and was not read.
func (f *inflater) give(p []byte) (n int) {
	for n < len(p) && f.given < f.out {
		at := f.given & (len(f.window) - 1)
		m := copy(p[n:], f.window[at:min(len(f.window), at+f.out-f.given)])
		n, f.given = n+m, f.given+m
	}
	if f.out >= 1<<30 { // an int may have 32 bits
		f.out, f.given = f.out-inflateWindow<<14, f.given-inflateWindow<<14
	}
	return n
}

// refill waits for input. An end of the stream between blocks is no error: the other side has gone.
func (f *inflater) refill() {
	n, err := f.src.Read(f.in[:]) // what was in it is in f.bits
	f.inPos, f.inEnd = 0, n
	if f.empty += n; f.empty > inflateIdle {
		f.err = errDeflate
	} else if n == 0 {
		f.err = err
	}
}

// put appends a byte to the window, which grows up to its full size.
func (f *inflater) put(b byte) {
	if f.out == len(f.window) && f.out < inflateWindow {
		f.window = append(f.window, make([]byte, f.out)...)
	}
	f.window[f.out&(len(f.window)-1)] = b
	f.out++
}

// decode goes one step on: a header, or up to room bytes of output. errShortInput when that takes more input.
func (f *inflater) decode(room int) error {
	switch f.step {
	case inflateBlock:
		return f.block()
	case inflateLengths:
		return f.lengths()
	case inflateStored:
		return f.stored(room)
	case inflateSymbols:
		return f.symbol()
	}
	for ; f.left > 0 && room > 0; f.left, room = f.left-1, room-1 {
		f.put(f.window[(f.out-f.dist)&(len(f.window)-1)])
	}
	if f.left == 0 {
		f.step = inflateSymbols
	}
	return nil
}

// need sees that n bits are there, 48 at most.
func (f *inflater) need(n uint) bool {
	for f.have < n && f.inPos < f.inEnd {
		f.bits |= uint64(f.in[f.inPos]) << f.have
		f.inPos++
		f.have += 8
	}
	return f.have >= n
}

// take takes n bits, which are there.
func (f *inflater) take(n uint) int {
	v := int(f.bits & (1<<n - 1))
	f.bits >>= n
	f.have -= n
	return v
}

// block reads a block's header (RFC 1951 §3.2.3).
func (f *inflater) block() error {
	if f.final {
		return io.EOF
	}
	if !f.need(3) {
		return errShortInput
	}
	switch kind := f.bits >> 1 & 3; kind {
	case 0:
		skip := (f.have - 3) & 7 // to the end of the byte
		if !f.need(3 + skip + 32) {
			return errShortInput
		}
		f.final = f.take(1) == 1
		f.take(2 + skip)
		if f.left = f.take(16); f.left != ^f.take(16)&0xffff {
			return errDeflate
		}
		f.step = inflateStored
	case 1:
		f.final = f.take(1) == 1
		f.take(2)
		f.step, f.codes = inflateSymbols, inflateFixed()
	case 2:
		if !f.need(17) {
			return errShortInput
		}
		f.final = f.take(1) == 1
		f.take(2)
		f.header = &inflateHeader{literals: f.take(5) + 257, distances: f.take(5) + 1, orders: f.take(4) + 4}
		if f.header.literals > 286 || f.header.distances > 30 {
			return errDeflate
		}
		f.step = inflateLengths
	default:
		return errDeflate
	}
	return nil
}

// stored copies bytes of a stored block (RFC 1951 §3.2.4).
func (f *inflater) stored(room int) error {
	for ; f.left > 0 && room > 0; f.left, room = f.left-1, room-1 {
		if !f.need(8) {
			return errShortInput
		}
		f.put(byte(f.take(8)))
	}
	if f.left == 0 {
		f.step = inflateBlock
	}
	return nil
}

// inflateHeader is the code lengths of a block, as far as they have been read (RFC 1951 §3.2.7).
type inflateHeader struct {
	literals, distances, orders int

	seen  int // of the lengths of the code for lengths
	order [19]uint8
	code  *inflateCode // for lengths, once those have been read
	n     int          // of lengths
	len   [286 + 30]uint8
}

// inflateOrder is the order of the lengths of the code for lengths (RFC 1951 §3.2.7).
var inflateOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// lengths reads one code length, or a run of them.
func (f *inflater) lengths() error {
	h := f.header
	if h.code == nil {
		for ; h.seen < h.orders; h.seen++ {
			if !f.need(3) {
				return errShortInput
			}
			h.order[inflateOrder[h.seen]] = uint8(f.take(3))
		}
		var err error
		if h.code, err = newInflateCode(h.order[:], false); err != nil {
			return err
		}
	}
	f.need(15 + 7)
	sym, used, err := h.code.decode(f.bits, f.have)
	if err != nil {
		return err
	}
	run, extra, value := 1, uint(0), uint8(sym)
	switch sym {
	case 16:
		if h.n == 0 {
			return errDeflate
		}
		run, extra, value = 3, 2, h.len[h.n-1]
	case 17:
		run, extra, value = 3, 3, 0
	case 18:
		run, extra, value = 11, 7, 0
	}
	if f.have < used+extra {
		return errShortInput
	}
	f.take(used)
	run += f.take(extra)
	all := h.literals + h.distances
	if h.n+run > all {
		return errDeflate
	}
	for range run {
		h.len[h.n] = value
		h.n++
	}
	if h.n < all {
		return nil
	}
	return f.ownCodes()
}

// ownCodes begins the symbols of a block with codes of its own.
func (f *inflater) ownCodes() error {
	h := f.header
	if h.len[256] == 0 { // the block could not end
		return errDeflate
	}
	literals, err := newInflateCode(h.len[:h.literals], true)
	if err != nil {
		return err
	}
	distances, err := newInflateCode(h.len[h.literals:h.n], true)
	if err != nil {
		return err
	}
	f.codes, f.header, f.step = &inflateCodes{literals, distances}, nil, inflateSymbols
	return nil
}

// The lengths and distances that symbols stand for, and their extra bits (RFC 1951 §3.2.5).
var (
	inflateLength = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
		163, 195, 227, 258}
	inflateLengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	inflateDistance    = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537,
		2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	inflateDistanceExtra = [30]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// symbol reads a literal or a match. A match takes up to 15+5+15+13 bits, and is taken whole or not at all.
func (f *inflater) symbol() error {
	f.need(48)
	sym, used, err := f.codes.literals.decode(f.bits, f.have)
	switch {
	case err != nil:
		return err
	case sym < 256:
		f.take(used)
		f.put(byte(sym))
		return nil
	case sym == 256:
		f.take(used)
		f.step, f.codes = inflateBlock, nil // an idle session has no use for them
		return nil
	case sym > 285:
		return errDeflate
	}
	extra := uint(inflateLengthExtra[sym-257])
	if f.have < used+extra {
		return errShortInput
	}
	length := int(inflateLength[sym-257]) + int(f.bits>>used&(1<<extra-1))
	used += extra
	sym, more, err := f.codes.distances.decode(f.bits>>used, f.have-used)
	if err != nil {
		return err
	}
	if sym > 29 {
		return errDeflate
	}
	used += more
	extra = uint(inflateDistanceExtra[sym])
	if f.have < used+extra {
		return errShortInput
	}
	dist := int(inflateDistance[sym]) + int(f.bits>>used&(1<<extra-1))
	if dist > f.out {
		return errDeflate
	}
	f.take(used + extra)
	f.left, f.dist, f.step = length, dist, inflateCopy
	return nil
}

// inflateCodes is the two codes of a block.
type inflateCodes struct{ literals, distances *inflateCode }

// inflateFixed gives the codes that need no description, which are made when they are first asked for.
var inflateFixed = sync.OnceValue(fixedCodes)

// fixedCodes makes the codes that need no description (RFC 1951 §3.2.6).
func fixedCodes() *inflateCodes {
	var lengths [288]uint8
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	var distances [30]uint8
	for i := range distances {
		distances[i] = 5
	}
	literals, _ := newInflateCode(lengths[:], true)
	codes, _ := newInflateCode(distances[:], true)
	return &inflateCodes{literals, codes}
}

// inflateCode is a canonical Huffman code (RFC 1951 §3.2.2): how many codes there are of each length, and the symbols in
// the order of their codes. The short codes are also in a table.
type inflateCode struct {
	count   [16]uint16
	symbols []uint16
	quick   [1 << inflateQuick]uint16 // symbol<<4 | length by the next bits; 0 for longer codes
}

const inflateQuick = 8 // bits

// newInflateCode makes a code from its lengths. One with too many codes is refused, one with too few only where loose is
// false: a single distance has a code of one bit (RFC 1951 §3.2.7). What such a code does not have is an error when read.
func newInflateCode(lengths []uint8, loose bool) (*inflateCode, error) {
	c := &inflateCode{symbols: make([]uint16, len(lengths))}
	for _, n := range lengths {
		c.count[n]++
	}
	c.count[0] = 0
	left := 1
	var start, next [17]int // by length: the place of its first symbol, and its first code
	for n := 1; n < 16; n++ {
		if left = left<<1 - int(c.count[n]); left < 0 {
			return nil, errDeflate
		}
		start[n+1] = start[n] + int(c.count[n])
		next[n+1] = (next[n] + int(c.count[n])) << 1
	}
	if left > 0 && !loose {
		return nil, errDeflate
	}
	for sym, n := range lengths {
		if n == 0 {
			continue
		}
		c.symbols[start[n]] = uint16(sym)
		start[n]++
		code := next[n]
		next[n]++
		if n <= inflateQuick {
			for i := int(bits.Reverse16(uint16(code)) >> (16 - n)); i < len(c.quick); i += 1 << n {
				c.quick[i] = uint16(sym)<<4 | uint16(n)
			}
		}
	}
	return c, nil
}

// decode finds the symbol that the bits begin with, and its length.
func (c *inflateCode) decode(stream uint64, have uint) (symbol int, length uint, err error) {
	if q := c.quick[stream&(1<<inflateQuick-1)]; q != 0 {
		if n := uint(q & 15); n <= have {
			return int(q >> 4), n, nil
		}
		return 0, 0, errShortInput
	}
	code, first, index := 0, 0, 0
	for n := uint(1); n < 16; n++ {
		if n > have {
			return 0, 0, errShortInput
		}
		code |= int(stream & 1)
		stream >>= 1
		count := int(c.count[n])
		if code-count < first {
			return int(c.symbols[index+code-first]), n, nil
		}
		index += count
		first = (first + count) << 1
		code <<= 1
	}
	return 0, 0, errDeflate
}
