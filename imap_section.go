package main

// Sections of a message: BODY[…], BINARY[…] and the RFC822 items, RFC 9051
// §6.4.5, RFC 3501 §6.4.5, RFC 3516.

import (
	"bufio"
	"bytes"
	"io"
	"strconv"
	"strings"
)

const (
	maxSectionDepth = 200      // numbers of a part specifier
	maxFieldNames   = 1000     // names of HEADER.FIELDS
	maxFieldsHeld   = 64 << 10 // bytes of HEADER.FIELDS held in memory; more is read twice
	copyBuffer      = 32 << 10 // bytes read from a file at a time
)

// sectionKind is what of a part is asked for.
type sectionKind uint8

const (
	sectionBody      sectionKind = iota // the part, or the whole message
	sectionHeader                       // HEADER
	sectionFields                       // HEADER.FIELDS
	sectionFieldsNot                    // HEADER.FIELDS.NOT
	sectionText                         // TEXT
	sectionMIME                         // MIME
)

// bodySection is one item of a FETCH that gives text of the message.
type bodySection struct {
	label  []byte // what the answer is called, up to the partial: `BODY[1.TEXT]`
	path   []int  // numbers of the parts, from 1
	kind   sectionKind
	names  []string // of the fields
	listed uint64   // the fields as a set of 1<<fieldID, 0 where not all have one
	peek   bool     // does not set \Seen

	binary bool // BINARY: decoded
	size   bool // BINARY.SIZE

	partial  bool
	from, to int64 // bytes of the partial
}

// span is a place in a message.
type span struct{ off, len int64 }

// locate finds the section in a message; ok is false where there is no such
// part.
func (b *bodySection) locate(root *treePart, size int64) (at span, part *treePart, ok bool) {
	if len(b.path) == 0 {
		switch b.kind {
		case sectionBody:
			return span{0, size}, root, true
		case sectionText:
			return span{root.bodyOff(), root.bodyLen}, root, true
		}
		return span{root.headerOff, root.headerLen}, root, true
	}
	part, ok = findPart(root, b.path)
	if !ok {
		return span{}, nil, false
	}
	switch b.kind {
	case sectionBody:
		return span{part.bodyOff(), part.bodyLen}, part, true
	case sectionMIME:
		return span{part.headerOff, part.headerLen}, part, true
	}
	if !part.holdsMessage() {
		return span{}, nil, false
	}
	part = &part.children[0]
	if b.kind == sectionText {
		return span{part.bodyOff(), part.bodyLen}, part, true
	}
	return span{part.headerOff, part.headerLen}, part, true
}

// findPart follows part numbers. RFC 9051 §6.4.5.1: a message that is no
// multipart is its own part 1, and so is one inside a message/rfc822 part.
func findPart(message *treePart, path []int) (*treePart, bool) {
	part, isMessage := message, true
	for _, n := range path {
		if !isMessage && part.holdsMessage() {
			part, isMessage = &part.children[0], true
		}
		switch {
		case part.multipart:
			if n > len(part.children) {
				return nil, false
			}
			part = &part.children[n-1]
		case !isMessage || n != 1:
			return nil, false
		}
		isMessage = false
	}
	return part, true
}

// cut gives what a partial leaves of n bytes.
func (b *bodySection) cut(at span) span {
	if !b.partial {
		return at
	}
	from := min(b.from, at.len)
	to := min(b.to, at.len)
	return span{at.off + from, to - from}
}

// appendLabel appends what the answer is called. RFC 9051 §7.5.2: a partial is
// answered with its origin.
func (b *bodySection) appendLabel(dst []byte) []byte {
	dst = append(dst, b.label...)
	if b.partial {
		dst = append(dst, '<')
		dst = strconv.AppendInt(dst, b.from, 10)
		dst = append(dst, '>')
	}
	return append(dst, ' ')
}

// parseSection reads the brackets of BODY[…] or BINARY[…] and the partial behind
// them. name is the item's name without PEEK.
func (c *imapCommand) parseSection(name string) (*bodySection, error) {
	b := &bodySection{binary: name != "BODY", size: name == "BINARY.SIZE"}
	if err := c.expect('['); err != nil {
		return nil, err
	}
	if err := c.parseSectionPath(b); err != nil {
		return nil, err
	}
	if err := c.expect(']'); err != nil {
		return nil, err
	}
	b.label = b.appendSpec(append([]byte(name), '['))
	b.label = append(b.label, ']')
	if b.size || !c.accept('<') {
		return b, nil
	}
	from, err := c.number64()
	if err != nil {
		return nil, err
	}
	if err := c.expect('.'); err != nil {
		return nil, err
	}
	count, err := c.nzNumber()
	if err != nil {
		return nil, err
	}
	b.partial, b.from = true, int64(min(from, 1<<62))
	b.to = b.from + int64(count)
	return b, c.expect('>')
}

// parseSectionPath reads what is between the brackets.
func (c *imapCommand) parseSectionPath(b *bodySection) error {
	for isDigit(c.peek()) {
		n, err := c.nzNumber()
		if err != nil {
			return err
		}
		if b.path = append(b.path, int(n)); len(b.path) > maxSectionDepth {
			return imapNo("LIMIT", "The part number has too many levels")
		}
		if !c.accept('.') {
			return nil
		}
	}
	if b.binary {
		if len(b.path) > 0 {
			return c.expected("a part number")
		}
		return nil
	}
	word := c.keyword()
	switch word {
	case "":
		if len(b.path) > 0 {
			return c.expected("a part number or the name of a section")
		}
	case "HEADER":
		b.kind = sectionHeader
	case "TEXT":
		b.kind = sectionText
	case "MIME":
		if len(b.path) == 0 {
			return imapBad("MIME needs a part number")
		}
		b.kind = sectionMIME
	case "HEADER.FIELDS", "HEADER.FIELDS.NOT":
		b.kind = sectionFields
		if word == "HEADER.FIELDS.NOT" {
			b.kind = sectionFieldsNot
		}
		return c.parseFieldNames(b)
	default:
		return c.expected("the name of a section before this")
	}
	return nil
}

// parseFieldNames reads the names of HEADER.FIELDS.
func (c *imapCommand) parseFieldNames(b *bodySection) error {
	if err := c.sp(); err != nil {
		return err
	}
	b.listed = 1
	err := c.list(func() error {
		name, err := c.astring()
		if err != nil {
			return err
		}
		if len(b.names) >= maxFieldNames {
			return imapNo("LIMIT", "Too many header fields are asked for")
		}
		b.names = append(b.names, strings.ToUpper(name))
		if id := fieldNamed([]byte(name)); id != fieldOther && b.listed != 0 {
			b.listed |= 1 << id
		} else {
			b.listed = 0
		}
		return nil
	})
	if err == nil && len(b.names) == 0 {
		return imapBad("The list of header fields is empty")
	}
	if len(b.path) > 0 || b.kind == sectionFieldsNot {
		b.listed = 0
	}
	return err
}

// appendSpec appends what is between the brackets in its one spelling.
func (b *bodySection) appendSpec(dst []byte) []byte {
	for i, n := range b.path {
		if i > 0 {
			dst = append(dst, '.')
		}
		dst = strconv.AppendInt(dst, int64(n), 10)
	}
	if b.kind == sectionBody {
		return dst
	}
	if len(b.path) > 0 {
		dst = append(dst, '.')
	}
	switch b.kind {
	case sectionHeader:
		return append(dst, "HEADER"...)
	case sectionText:
		return append(dst, "TEXT"...)
	case sectionMIME:
		return append(dst, "MIME"...)
	case sectionFields:
		dst = append(dst, "HEADER.FIELDS ("...)
	case sectionFieldsNot:
		dst = append(dst, "HEADER.FIELDS.NOT ("...)
	}
	for i, name := range b.names {
		if i > 0 {
			dst = append(dst, ' ')
		}
		if strings.IndexFunc(name, func(r rune) bool { return r >= 0x80 || !isAtomChar(byte(r)) }) < 0 && name != "" {
			dst = append(dst, name...)
		} else {
			dst = appendString(dst, name, false)
		}
	}
	return append(dst, ')')
}

// hasField says whether HEADER.FIELDS has the name.
func (b *bodySection) hasField(name []byte) bool {
	for _, n := range b.names {
		if len(n) == len(name) && strings.EqualFold(n, string(name)) {
			return true
		}
	}
	return false
}

// appendListed appends HEADER.FIELDS out of the fields that the cache has.
func (b *bodySection) appendListed(dst, listed []byte) []byte {
	n := 2
	open := false // a header that ends without a line end gets one
	listedFields(listed, func(id fieldID, raw []byte) {
		if b.listed&(1<<id) != 0 {
			n += len(raw)
			open = len(raw) == 0 || raw[len(raw)-1] != '\n'
		}
	})
	if open {
		n += 2
	}
	at := b.cut(span{0, int64(n)})
	dst = appendLiteralHeader(b.appendLabel(dst), at.len, false)
	start := len(dst)
	listedFields(listed, func(id fieldID, raw []byte) {
		if b.listed&(1<<id) != 0 {
			dst = append(dst, raw...)
		}
	})
	if open {
		dst = append(dst, '\r', '\n')
	}
	dst = append(dst, '\r', '\n')
	copy(dst[start:], dst[start+int(at.off):start+int(at.off+at.len)])
	dst = dst[:start+int(at.len)]
	replaceNUL(dst[start:])
	return dst
}

// replaceNUL makes a text fit for a literal, which may have any byte but NUL
// (RFC 9051 §4.3); 0x80 is what Dovecot makes of it.
func replaceNUL(b []byte) {
	for i := bytes.IndexByte(b, 0); i >= 0; {
		b[i] = 0x80
		next := bytes.IndexByte(b[i+1:], 0)
		if next < 0 {
			return
		}
		i += 1 + next
	}
}

// filterHeader copies the fields that HEADER.FIELDS asks for, and the blank line.
func (b *bodySection) filterHeader(w io.Writer, header io.Reader) error {
	r := bufio.NewReaderSize(header, 4<<10)
	keep, begins := b.kind == sectionFieldsNot, true
	for {
		line, err := r.ReadSlice('\n')
		if len(line) > 0 {
			if begins && isBlankLine(line) {
				break
			}
			if begins && line[0] != ' ' && line[0] != '\t' {
				keep = b.wants(line)
			}
			if keep {
				if _, err := w.Write(line); err != nil {
					return err
				}
			}
			begins = line[len(line)-1] == '\n'
		}
		if err == io.EOF {
			break
		}
		if err != nil && err != bufio.ErrBufferFull {
			return err
		}
	}
	if keep && !begins { // a header that ends without a line end gets one
		if _, err := w.Write([]byte("\r\n")); err != nil {
			return err
		}
	}
	_, err := w.Write([]byte("\r\n"))
	return err
}

// wants says whether the field that a line begins is asked for.
func (b *bodySection) wants(line []byte) bool {
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		return b.kind == sectionFieldsNot
	}
	return b.hasField(bytes.TrimRight(line[:colon], " \t")) == (b.kind == sectionFields)
}

// window is a writer that passes some of the bytes that come by and counts all.
type window struct {
	w        io.Writer // nil: only count
	from, to int64
	n        int64 // bytes that came by
	nul      bool  // there was a NUL among them, inside of the window
}

// Write is io.Writer.
func (w *window) Write(p []byte) (int, error) {
	lo := min(max(w.from-w.n, 0), int64(len(p)))
	hi := min(max(w.to-w.n, 0), int64(len(p)))
	w.n += int64(len(p))
	if lo >= hi {
		return len(p), nil
	}
	if w.w == nil {
		w.nul = w.nul || bytes.IndexByte(p[lo:hi], 0) >= 0
		return len(p), nil
	}
	if _, err := w.w.Write(p[lo:hi]); err != nil {
		return 0, err
	}
	return len(p), nil
}
