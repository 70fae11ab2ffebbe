package main

import (
	"bytes"
	"io"
)

// dataStep is the most that one octet of DATA can become: two CRLF.
const dataStep = 4

// dataDecoder turns what a client sends after DATA into the message, whose lines
// end in CRLF. Only CRLF.CRLF ends it (RFC 5321 §4.1.1.4); a CR or LF alone is
// made a CRLF, and a dot behind it is a dot of the text. The zero value stands at
// the beginning of a message.
type dataDecoder struct{ state dataState }

// dataState is where a dataDecoder stands in what came in.
type dataState int

const (
	dataBegin dataState = iota // after a CRLF
	dataDot                    // after a CRLF and a dot
	dataDotCR                  // after a CRLF, a dot and a CR
	dataText                   // within a line, or after a CR or LF alone
	dataCR                     // after a CR in a line
)

// decode reads src and writes dst, which has room for 2*dataStep at least. It
// stops when either is used up, or with done behind the end of the message.
func (d *dataDecoder) decode(dst, src []byte) (n, used int, done bool) {
	for used < len(src) && n+dataStep <= len(dst) {
		if d.state == dataText {
			run := plainRun(src[used:min(len(src), used+len(dst)-n-dataStep+1)])
			n += copy(dst[n:], src[used:used+run])
			if used += run; used == len(src) || n+dataStep > len(dst) {
				break
			}
		}
		c := src[used]
		used++
		switch d.state {
		case dataBegin:
			if c == '.' {
				d.state = dataDot
				continue
			}
		case dataDot: // the dot was put there by the client's dot-stuffing
			if c == '\r' {
				d.state = dataDotCR
				continue
			}
		case dataDotCR:
			if c == '\n' {
				return n, used, true
			}
			n += copy(dst[n:], "\r\n")
		case dataCR:
			n += copy(dst[n:], "\r\n")
			if c == '\n' {
				d.state = dataBegin
				continue
			}
		}
		n += d.text(dst[n:], c)
	}
	return n, used, false
}

// plainRun gives the number of octets before the first CR or LF.
func plainRun(src []byte) int {
	run := len(src)
	if i := bytes.IndexByte(src, '\r'); i >= 0 {
		run = i
	}
	if i := bytes.IndexByte(src[:run], '\n'); i >= 0 {
		run = i
	}
	return run
}

// text takes an octet that is not part of a CRLF or of the end.
func (d *dataDecoder) text(dst []byte, c byte) int {
	d.state = dataText
	switch c {
	case '\r':
		d.state = dataCR
		return 0
	case '\n':
		return copy(dst, "\r\n")
	}
	dst[0] = c
	return 1
}

// lineEndReader reads a stream with every CR, LF and CRLF made a CRLF.
type lineEndReader struct {
	r   io.Reader
	in  [4 << 10]byte
	out []byte // converted, not read yet
	buf []byte // what out lies in
	cr  bool   // a CR came last, and has not been given out
	err error
}

func newLineEndReader(r io.Reader) *lineEndReader { return &lineEndReader{r: r} }

func (c *lineEndReader) Read(p []byte) (int, error) {
	for len(c.out) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		n, err := c.r.Read(c.in[:])
		c.buf = c.convert(c.buf[:0], c.in[:n])
		if err == io.EOF && c.cr {
			c.cr = false
			c.buf = append(c.buf, '\r', '\n')
		}
		c.out, c.err = c.buf, err
	}
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

func (c *lineEndReader) convert(dst, src []byte) []byte {
	if c.cr && len(src) > 0 {
		c.cr = false
		dst = append(dst, '\r', '\n')
		if src[0] == '\n' {
			src = src[1:]
		}
	}
	for len(src) > 0 {
		i := bytes.IndexAny(src, "\r\n")
		if i < 0 {
			return append(dst, src...)
		}
		dst = append(dst, src[:i]...)
		pair := src[i] == '\r' && i+1 < len(src) && src[i+1] == '\n'
		switch {
		case pair:
			src = src[i+2:]
		case src[i] == '\r' && i+1 == len(src):
			c.cr = true
			return dst
		default:
			src = src[i+1:]
		}
		dst = append(dst, '\r', '\n')
	}
	return dst
}
