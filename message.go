package main

// The structure of a message: RFC 5322 header and body, RFC 2045 and RFC 2046
// (MIME), read in one pass over a stream. Broken mail gets the best structure
// that can be given; RFC 2046 §5.1.1 is kept where it says how lenient to be.

import (
	"bufio"
	"bytes"
	"io"
	"strings"
)

// Limits of what is kept of one message. What is beyond them is still counted
// in the sizes but has no structure of its own.
const (
	maxPartDepth   = 100       // nested parts
	maxParts       = 10000     // parts in all
	maxFieldKept   = 128 << 10 // bytes of one header field
	maxTextKept    = 384 << 10 // bytes of all header fields together
	maxFieldJoined = 16 << 10  // bytes up to which several fields of one name are joined
	maxListed      = 6 << 10   // bytes of the fields of a message that are kept as they are
	maxBoundary    = 1000      // bytes of a boundary; RFC 2046 allows 70
	maxParams      = 200       // parameters of one field
	mimeReadAhead  = 16 << 10  // bytes of the read buffer
)

// mimeParam is one parameter of Content-Type or Content-Disposition, as the
// field has it: RFC 2231 continuations and charsets are not put together.
type mimeParam struct {
	Name, Value string
}

// mimePart is one part of a message, the message itself included. Offsets and
// lengths are in bytes from the start of the message.
type mimePart struct {
	HeaderOff, HeaderLen int64 // the blank line is the header's
	BodyOff, BodyLen     int64 // without the line end before the next boundary
	BodyLines            int64 // line ends in the body

	Type, Subtype string // as written; "text" and "plain" where the field is missing or broken
	Params        []mimeParam
	Encoding      string // Content-Transfer-Encoding as written, "" where missing
	ID            string
	Description   string
	MD5           string
	Location      string
	Disposition   string // "" where missing
	DispParams    []mimeParam
	Language      []string

	// Envelope is set where the part is a message: the root, and the one child
	// of a message/rfc822 part.
	Envelope *mimeEnvelope
	// Children are the parts of a multipart, or the one message inside.
	Children []*mimePart
}

// mimeEnvelope is the fields of a message that ENVELOPE reports, unfolded and
// otherwise raw. Of several address fields of a name, all are kept, joined by
// a comma; of other fields the first. Present tells an empty field from none.
type mimeEnvelope struct {
	Date, Subject, From, Sender, ReplyTo, To, Cc, Bcc, InReplyTo, MessageID string

	Present uint32 // bit 1<<fieldID

	// Listed are the known fields as they are, in order, each behind its fieldID
	// and its length as a uvarint. Only the message itself has them, and not where
	// Unlisted says that they are too long.
	Listed   []byte
	Unlisted bool
}

// is compares the part's type without regard to case.
func (m *mimePart) is(mediaType, subtype string) bool {
	return strings.EqualFold(m.Type, mediaType) && strings.EqualFold(m.Subtype, subtype)
}

// isMultipart says whether the part has parts of its own to show.
func (m *mimePart) isMultipart() bool { return strings.EqualFold(m.Type, "multipart") }

// holdsMessage says whether the part's one child is a message.
func (m *mimePart) holdsMessage() bool { return len(m.Children) == 1 && !m.isMultipart() }

// mayHoldMessage says whether the part is a message. One in base64, which RFC
// 2046 §5.2.1 forbids, is looked into as it stands: its structure must not lack
// an envelope.
func (m *mimePart) mayHoldMessage() bool {
	return m.is("message", "rfc822") || m.is("message", "global")
}

// hasParam says whether Content-Type has the parameter.
func (m *mimePart) hasParam(name string) bool {
	for _, p := range m.Params {
		if strings.EqualFold(p.Name, name) {
			return true
		}
	}
	return false
}

// param gives a Content-Type parameter's value as written.
func (m *mimePart) param(name string) string {
	for _, p := range m.Params {
		if strings.EqualFold(p.Name, name) {
			return p.Value
		}
	}
	return ""
}

// parseMessage reads a message to its end and gives its structure. Memory is
// bounded by the limits above, time is linear. The only errors are r's. A r that
// is a bufio.Reader of mimeReadAhead bytes is used as it is.
func parseMessage(r io.Reader) (*mimePart, error) {
	p := mimeParser{r: bufio.NewReaderSize(r, mimeReadAhead)}
	root := p.part(true, false)
	if p.err != nil && p.err != io.EOF {
		return nil, p.err
	}
	return root, nil
}

// mimeParser holds the state of one pass.
type mimeParser struct {
	r   *bufio.Reader
	err error // io.EOF at the end

	off     int64 // of the next unread byte
	lines   int64 // line ends read
	lastEnd int   // length of the last line's end: 0, 1 or 2

	open  []string // boundaries of the multiparts that are open, outermost first
	depth int
	parts int

	// What ended the last body: the boundary open[level], or the end of the
	// message (level -1). end and endLines are where bodies end that it ends.
	level    int
	closing  bool
	end      int64
	endLines int64

	field   []byte // the header field being read, its name included
	valueAt int    // where its value begins
	cut     bool   // it is longer than the limits
	kept    int    // bytes of header fields kept so far
}

// head gives a line, or the beginning of one that is longer than the buffer;
// finish must be called before the next. Empty at the end of the message.
func (p *mimeParser) head() (line []byte, more bool) {
	line, err := p.r.ReadSlice('\n')
	p.off += int64(len(line))
	if err == bufio.ErrBufferFull {
		return line, true
	}
	if err != nil {
		p.err = err
		return line, false
	}
	p.lines++
	return line, false
}

// finish reads the rest of a line and notes how it ended.
func (p *mimeParser) finish(line []byte, more bool) {
	for more {
		splitEnd := line[len(line)-1] == '\r'
		line, more = p.head()
		if splitEnd && len(line) == 1 && line[0] == '\n' {
			p.lastEnd = 2
			return
		}
	}
	p.lastEnd = lineEnd(line)
}

// lineEnd gives the length of a line's end.
func lineEnd(line []byte) int {
	n := len(line)
	if n == 0 || line[n-1] != '\n' {
		return 0
	}
	if n > 1 && line[n-2] == '\r' {
		return 2
	}
	return 1
}

// part reads a part up to and including the boundary that ends it, or to the
// end of the message.
func (p *mimeParser) part(isMessage, inDigest bool) *mimePart {
	p.parts++
	p.depth++
	m := &mimePart{HeaderOff: p.off, Type: "text", Subtype: "plain"}
	if inDigest { // RFC 2046 §5.1.5
		m.Type, m.Subtype = "message", "rfc822"
	}
	if isMessage {
		m.Envelope = new(mimeEnvelope)
	}
	startLines := int64(0)
	if p.header(m) {
		m.HeaderLen = p.off - m.HeaderOff
		m.BodyOff, startLines = p.off, p.lines
		p.body(m)
	} else {
		m.HeaderLen = p.end - m.HeaderOff
		m.BodyOff, startLines = p.end, p.endLines
	}
	m.BodyLen = max(0, p.end-m.BodyOff)
	m.BodyLines = max(0, p.endLines-startLines)
	p.depth--
	return m
}

// body reads what is behind a part's header.
func (p *mimeParser) body(m *mimePart) {
	p.lastEnd = 0 // the blank line is the header's, also where a boundary follows
	boundary := m.param("boundary")
	switch {
	case m.isMultipart() && boundary != "" && len(boundary) <= maxBoundary && !p.full():
		p.multipart(m, boundary)
	case m.isMultipart() && !p.full(): // no boundary: let the text be read at least
		m.Type, m.Subtype, m.Params = "text", "plain", nil
		p.skip()
	case m.isMultipart():
		m.makeOpaque()
		p.skip()
	case m.mayHoldMessage() && !p.full():
		m.Children = []*mimePart{p.part(true, false)}
	case m.mayHoldMessage():
		m.makeOpaque()
		p.skip()
	default:
		p.skip()
	}
}

// full says whether the limits leave no room for parts inside this one.
func (p *mimeParser) full() bool { return p.depth >= maxPartDepth || p.parts >= maxParts }

// makeOpaque makes a leaf of a part that cannot be looked into.
func (m *mimePart) makeOpaque() {
	m.Type, m.Subtype, m.Params = "application", "octet-stream", nil
}

// multipart reads the parts of a multipart, its preamble and its epilogue.
func (p *mimeParser) multipart(m *mimePart, boundary string) {
	level := len(p.open)
	p.open = append(p.open, boundary)
	digest := strings.EqualFold(m.Subtype, "digest")
	p.skip()
	for p.level == level && !p.closing {
		if p.parts >= maxParts {
			p.skip()
			continue
		}
		m.Children = append(m.Children, p.part(false, digest))
	}
	p.open = p.open[:level]
	if p.level == level {
		p.skip()
	}
}

// skip reads up to and including the next boundary of an open multipart, or to
// the end of the message.
func (p *mimeParser) skip() {
	for p.err == nil {
		start, lines, lastEnd := p.off, p.lines, p.lastEnd
		line, more := p.head()
		level, closing := p.match(line)
		p.finish(line, more)
		if level >= 0 {
			p.endAt(level, closing, start, lines, lastEnd)
			return
		}
	}
	p.endAt(-1, true, p.off, p.lines, 0)
}

// endAt notes the boundary that ends a body: a line that starts at off, after
// lines lines, the last of which has an end of lastEnd bytes. That line end is
// the boundary's (RFC 2046 §5.1.1).
func (p *mimeParser) endAt(level int, closing bool, off, lines int64, lastEnd int) {
	p.level, p.closing = level, closing
	p.end, p.endLines = off-int64(lastEnd), lines
	if lastEnd > 0 {
		p.endLines--
	}
}

// match finds the open multipart that a line delimits. The boundary need only
// begin the line (RFC 2046 §5.1.1), so where several fit, an exact one wins,
// else the longest, else the innermost. -1: none.
func (p *mimeParser) match(line []byte) (level int, closing bool) {
	if len(p.open) == 0 || len(line) < 3 || line[0] != '-' || line[1] != '-' {
		return -1, false
	}
	text := bytes.TrimRight(line[2:], " \t\r\n")
	level = -1
	for i := len(p.open) - 1; i >= 0; i-- {
		b := p.open[i]
		if len(b) > len(text) || string(text[:len(b)]) != b {
			continue
		}
		rest := text[len(b):]
		if len(rest) == 0 || string(rest) == "--" {
			return i, len(rest) != 0
		}
		if level < 0 || len(b) > len(p.open[level]) {
			level, closing = i, bytes.HasPrefix(rest, []byte("--"))
		}
	}
	return level, closing
}
