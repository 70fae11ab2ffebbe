package main

// Content-Transfer-Encoding, RFC 2045 §6: streaming decoders that make the best
// of broken input and never fail by themselves.

import (
	"io"
	"strings"
)

// transferReader decodes the body of a part. ok is false when the encoding is
// not known, and then r is given back.
func transferReader(encodingName string, r io.Reader) (decoded io.Reader, ok bool) {
	switch strings.ToLower(encodingName) {
	case "", "7bit", "8bit", "binary":
		return r, true
	case "base64":
		return &base64Reader{r: r}, true
	case "quoted-printable":
		return &quotedPrintableReader{r: r}, true
	}
	return r, false
}

// base64Reader decodes base64. Bytes that are not of its alphabet are skipped
// (RFC 2045 §6.8), padding starts afresh, bits left over at the end are dropped.
type base64Reader struct {
	r       io.Reader
	in      [3 << 10]byte
	pending []byte // of in
	bits    uint32
	count   uint // of bits
	err     error
}

// Read is io.Reader.
func (b *base64Reader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if len(b.pending) == 0 {
			if n > 0 || b.err != nil {
				break
			}
			var got int
			got, b.err = b.r.Read(b.in[:])
			b.pending = b.in[:got]
			continue
		}
		c := b.pending[0]
		b.pending = b.pending[1:]
		if c == '=' {
			b.bits, b.count = 0, 0
			continue
		}
		v := base64Value(c)
		if v < 0 {
			continue
		}
		b.bits = b.bits<<6 | uint32(v)
		b.count += 6
		if b.count >= 8 {
			b.count -= 8
			p[n] = byte(b.bits >> b.count)
			n++
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, b.err
	}
	return n, nil
}

// base64Value gives the value of a base64 digit, -1 for another byte.
func base64Value(c byte) int {
	switch {
	case c >= 'A' && c <= 'Z':
		return int(c - 'A')
	case c >= 'a' && c <= 'z':
		return int(c-'a') + 26
	case c >= '0' && c <= '9':
		return int(c-'0') + 52
	case c == '+':
		return 62
	case c == '/':
		return 63
	}
	return -1
}

// quotedPrintableReader decodes quoted-printable (RFC 2045 §6.7). A "=" that
// starts nothing stays; white space at the end of a line goes.
type quotedPrintableReader struct {
	r    io.Reader
	in   [3 << 10]byte
	buf  []byte // decoded
	out  []byte // what is left of it to give
	held []byte // white space, or "=" and what follows it, not yet understood
	err  error
}

// maxHeld is how much white space is held back at most until a line's end.
const maxHeld = 1000

// Read is io.Reader.
func (q *quotedPrintableReader) Read(p []byte) (int, error) {
	for len(q.out) == 0 && q.err == nil {
		var n int
		n, q.err = q.r.Read(q.in[:])
		q.buf = q.buf[:0]
		for _, c := range q.in[:n] {
			q.put(c)
		}
		if q.err != nil {
			q.end()
		}
		q.out = q.buf
	}
	if len(q.out) == 0 {
		return 0, q.err
	}
	n := copy(p, q.out)
	q.out = q.out[n:]
	return n, nil
}

// put takes the next byte.
func (q *quotedPrintableReader) put(c byte) {
	if len(q.held) > 0 && q.held[0] == '=' {
		q.putEscaped(c)
		return
	}
	switch c {
	case ' ', '\t':
		if len(q.held) >= maxHeld {
			q.release()
		}
		q.held = append(q.held, c)
		return
	case '\r', '\n':
		q.held = q.held[:0]
	case '=':
		q.release()
		q.held = append(q.held, c)
		return
	default:
		q.release()
	}
	q.buf = append(q.buf, c)
}

// putEscaped takes a byte behind "=".
func (q *quotedPrintableReader) putEscaped(c byte) {
	last := q.held[len(q.held)-1]
	switch {
	case len(q.held) == 2 && hexValue(last) >= 0 && hexValue(c) >= 0:
		q.buf = append(q.buf, byte(hexValue(last)<<4|hexValue(c)))
		q.held = q.held[:0]
	case len(q.held) == 1 && hexValue(c) >= 0:
		q.held = append(q.held, c)
	case c == '\n' && (len(q.held) == 1 || hexValue(last) < 0): // a soft line break
		q.held = q.held[:0]
	case (c == ' ' || c == '\t' || c == '\r') && (len(q.held) == 1 || hexValue(last) < 0) && last != '\r' && len(q.held) < maxHeld:
		q.held = append(q.held, c)
	default:
		q.release()
		q.put(c)
	}
}

// release gives out what was held back.
func (q *quotedPrintableReader) release() {
	q.buf = append(q.buf, q.held...)
	q.held = q.held[:0]
}

// end treats the end of the text: a "=" there is a soft line break.
func (q *quotedPrintableReader) end() {
	if len(q.held) > 0 && (q.held[0] != '=' || len(q.held) == 1) {
		q.held = q.held[:0]
	}
	q.release()
}

// isIdentity says whether an encoding leaves the text as it is.
func isIdentity(encoding string) bool {
	switch encoding {
	case "", "7bit", "8bit", "binary":
		return true
	}
	return false
}
