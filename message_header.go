package main

// Header blocks: reading one, taking it apart, and what submission asks of it.
// RFC 5322 §2.2 and §3.6, RFC 6532 (UTF-8 in header fields).

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// errHeaderTooLong says that a header block is longer than its reader allows.
var errHeaderTooLong = errors.New("message header is too long")

// readHeader reads a header block up to and including the blank line that ends
// it. A message that ends before a blank line has only a header: that is no
// error. Beyond limit bytes the error is errHeaderTooLong, and raw holds what
// was read so far.
func readHeader(r *bufio.Reader, limit int) (raw []byte, err error) {
	lineStart := 0
	for {
		piece, err := r.ReadSlice('\n')
		raw = append(raw, piece...)
		if len(raw) > limit {
			return raw, errHeaderTooLong
		}
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF:
			return raw, nil
		case err != nil:
			return raw, err
		}
		if isBlankLine(raw[lineStart:]) {
			return raw, nil
		}
		lineStart = len(raw)
	}
}

// isBlankLine says whether a line is nothing but its end.
func isBlankLine(line []byte) bool {
	return len(line) == 1 && line[0] == '\n' || len(line) == 2 && line[0] == '\r' && line[1] == '\n'
}

// headerField is one field of a header block.
type headerField struct {
	Name string // as written, "" for a line that has no colon
	Raw  []byte // the whole field with its folding and line ends
}

// splitHeader takes a header block apart, in order. The blank line at its end is
// left out; the Raw of all fields together is the block without it.
func splitHeader(raw []byte) []headerField {
	var fields []headerField
	for len(raw) > 0 && !isBlankLine(firstLine(raw)) {
		n := fieldLength(raw)
		fields = append(fields, headerField{Name: fieldName(raw[:n]), Raw: raw[:n:n]})
		raw = raw[n:]
	}
	return fields
}

// firstLine gives a block's first line with its end.
func firstLine(raw []byte) []byte {
	if i := bytes.IndexByte(raw, '\n'); i >= 0 {
		return raw[:i+1]
	}
	return raw
}

// fieldLength gives the length of the field that raw begins with: its line and
// the lines that begin with white space.
func fieldLength(raw []byte) int {
	n := len(firstLine(raw))
	for n < len(raw) && (raw[n] == ' ' || raw[n] == '\t') {
		n += len(firstLine(raw[n:]))
	}
	return n
}

// fieldName gives the text before a field's colon, without the white space that
// old mail has before it (RFC 5322 §4.5.8); "" where there is no colon.
func fieldName(raw []byte) string {
	i := bytes.IndexByte(firstLine(raw), ':')
	if i < 0 {
		return ""
	}
	return string(bytes.TrimRight(raw[:i], " \t"))
}

// fieldNameOf gives the name of the field that a line begins, "" if it begins
// none (RFC 5322 §2.2, and the space before the colon of §4.5).
func fieldNameOf(line []byte) string {
	name, _, ok := bytes.Cut(line, []byte{':'})
	name = bytes.TrimRight(name, " \t")
	notName := func(r rune) bool { return r <= ' ' || r >= 0x7f }
	if !ok || len(name) == 0 || bytes.ContainsFunc(name, notName) {
		return ""
	}
	return string(name)
}

// bareFieldName gives what precedes the colon of a line, or all of a line without one, without octets that no name of a field has
// and some program may not see: NUL, white space, anything beyond ASCII.
func bareFieldName(line []byte) string {
	name, _, _ := bytes.Cut(line, []byte{':'})
	return string(bytes.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f {
			return -1
		}
		return r
	}, name))
}

// Value gives the field's text after the colon: unfolded, trimmed, encoded words
// left as they are.
func (h headerField) Value() string {
	i := bytes.IndexByte(h.Raw, ':')
	if h.Name == "" {
		i = -1
	}
	return string(unfold(h.Raw[i+1:]))
}

// Is compares the field's name without regard to case.
func (h headerField) Is(name string) bool { return strings.EqualFold(h.Name, name) }

// unfold removes line ends and trims white space (RFC 5322 §2.2.3). The result
// may share memory with value.
func unfold(value []byte) []byte {
	value = bytes.Trim(value, " \t\r\n")
	if bytes.IndexByte(value, '\n') < 0 && bytes.IndexByte(value, '\r') < 0 {
		return value
	}
	out := make([]byte, 0, len(value))
	for i, c := range value {
		if c == '\n' || c == '\r' && i+1 < len(value) && value[i+1] == '\n' {
			continue
		}
		out = append(out, c)
	}
	return out
}

// findField gives the first field of a name.
func findField(fields []headerField, name string) (headerField, bool) {
	for _, h := range fields {
		if h.Is(name) {
			return h, true
		}
	}
	return headerField{}, false
}

// hasField says whether a header block has a field of the name, such as Date or
// Message-ID.
func hasField(fields []headerField, name string) bool {
	_, ok := findField(fields, name)
	return ok
}

// countFields counts the fields of a name; the Received fields tell of loops.
func countFields(fields []headerField, name string) int {
	n := 0
	for _, h := range fields {
		if h.Is(name) {
			n++
		}
	}
	return n
}

// addressesOf gives all addresses of all fields of a name, groups opened. ok is
// false when one of them is no address that an envelope could have, or has text
// beside it that other programs might take for the address.
func addressesOf(fields []headerField, name string) (list []Address, ok bool) {
	ok = true
	for _, h := range fields {
		if !h.Is(name) {
			continue
		}
		for _, m := range parseAddressList(h.Value()) {
			if m.Group != notGroup {
				continue
			}
			a, good := m.Address()
			ok = ok && !m.Broken
			if !good {
				ok = false
				continue
			}
			list = append(list, a)
		}
	}
	return list, ok
}

// fromAddresses gives the authors of a message. ok is false when there is none
// or one cannot be read (RFC 5322 §3.6.2 demands one at least).
func fromAddresses(fields []headerField) (list []Address, ok bool) {
	list, ok = addressesOf(fields, "From")
	return list, ok && len(list) > 0
}
