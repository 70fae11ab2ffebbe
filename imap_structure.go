package main

// ENVELOPE, BODY and BODYSTRUCTURE in wire form: RFC 3501 §7.4.2, RFC 9051
// §7.5.2.

import (
	"encoding/binary"
	"strconv"
	"strings"
)

// maxEnvelopeAddresses is how many addresses one field of an ENVELOPE shows.
const maxEnvelopeAddresses = 5000

// appendEnvelope appends the ENVELOPE of a message.
func appendEnvelope(dst []byte, e *mimeEnvelope) []byte {
	from := appendAddresses(nil, e.From)
	dst = append(dst, '(')
	dst = appendField(dst, e, fieldDate, e.Date)
	dst = append(dst, ' ')
	dst = appendField(dst, e, fieldSubject, e.Subject)
	dst = append(dst, ' ')
	dst = append(dst, from...)
	// RFC 3501 §7.4.2: Sender and Reply-To that are absent or empty are From.
	dst = append(dst, ' ')
	dst = appendAddressesOr(dst, e.Sender, from)
	dst = append(dst, ' ')
	dst = appendAddressesOr(dst, e.ReplyTo, from)
	for _, list := range [...]string{e.To, e.Cc, e.Bcc} {
		dst = append(dst, ' ')
		dst = appendAddresses(dst, list)
	}
	dst = append(dst, ' ')
	dst = appendField(dst, e, fieldInReplyTo, e.InReplyTo)
	dst = append(dst, ' ')
	dst = appendField(dst, e, fieldMessageID, e.MessageID)
	return append(dst, ')')
}

// appendField appends the text of a field, NIL only where there is no such field.
func appendField(dst []byte, e *mimeEnvelope, id fieldID, text string) []byte {
	if e.Present&(1<<id) == 0 {
		return append(dst, "NIL"...)
	}
	return appendString(dst, text, false)
}

// appendAddressesOr appends an address list, or other where there is none.
func appendAddressesOr(dst []byte, value string, other []byte) []byte {
	start := len(dst)
	dst = appendAddresses(dst, value)
	if string(dst[start:]) == "NIL" {
		dst = append(dst[:start], other...)
	}
	return dst
}

// appendAddresses appends an address list, or NIL where the field has none.
func appendAddresses(dst []byte, value string) []byte {
	start := len(dst)
	left := maxEnvelopeAddresses
	inGroup := false
	scanAddresses(value, func(a mailAddress) bool {
		if len(dst) == start {
			dst = append(dst, '(')
		}
		inGroup = a.Group == groupStart || inGroup && a.Group != groupEnd
		dst = appendAddress(dst, a)
		left--
		return left > 0
	})
	if len(dst) == start {
		return append(dst, "NIL"...)
	}
	if inGroup {
		dst = appendAddress(dst, mailAddress{Group: groupEnd})
	}
	return append(dst, ')')
}

// appendAddress appends one address. A group has NIL for its host, and its end
// has NIL for all (RFC 9051 §7.5.2), so parts that are missing elsewhere need
// text of their own; it is the one that Dovecot has made known.
func appendAddress(dst []byte, a mailAddress) []byte {
	switch a.Group {
	case groupStart:
		dst = append(dst, "(NIL NIL "...)
		dst = appendString(dst, a.Local, false)
		return append(dst, " NIL)"...)
	case groupEnd:
		return append(dst, "(NIL NIL NIL NIL)"...)
	}
	dst = append(dst, '(')
	dst = appendNString(dst, a.Name, false)
	dst = append(dst, ' ')
	dst = appendNString(dst, a.Route, false)
	dst = append(dst, ' ')
	dst = appendString(dst, orText(a.Local, "MISSING_MAILBOX"), false)
	dst = append(dst, ' ')
	dst = appendString(dst, orText(a.Domain, "MISSING_DOMAIN"), false)
	return append(dst, ')')
}

// orText gives s, or other where it is empty.
func orText(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// appendBody appends BODY, or BODYSTRUCTURE with its extension data where
// extended. global shows message/global as a message, which only IMAP4rev2 does
// (RFC 9051 §9, media-message).
func appendBody(dst []byte, m *mimePart, extended, global bool) []byte {
	dst = append(dst, '(')
	if m.isMultipart() {
		dst = appendMultipart(dst, m, extended, global)
	} else {
		dst = appendSinglePart(dst, m, extended, global)
	}
	return append(dst, ')')
}

// appendMultipart appends the inside of a multipart's structure.
func appendMultipart(dst []byte, m *mimePart, extended, global bool) []byte {
	for _, child := range m.Children {
		dst = appendBody(dst, child, extended, global)
	}
	if len(m.Children) == 0 { // the grammar wants one at least
		dst = append(dst, `("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0`...)
		if extended {
			dst = append(dst, ` NIL NIL NIL NIL`...)
		}
		dst = append(dst, ')')
	}
	dst = append(dst, ' ')
	dst = appendString(dst, m.Subtype, false)
	if !extended {
		return dst
	}
	dst = append(dst, ' ')
	dst = appendParams(dst, m.Params)
	return appendExtension(dst, m)
}

// appendSinglePart appends the inside of the structure of a part that is no
// multipart.
func appendSinglePart(dst []byte, m *mimePart, extended, global bool) []byte {
	dst = appendString(dst, m.Type, false)
	dst = append(dst, ' ')
	dst = appendString(dst, m.Subtype, false)
	dst = append(dst, ' ')
	text := strings.EqualFold(m.Type, "text")
	if text && !m.hasParam("charset") { // RFC 2046 §4.1.2: its default
		dst = appendParams(dst, append(m.Params[:len(m.Params):len(m.Params)], mimeParam{"charset", "us-ascii"}))
	} else {
		dst = appendParams(dst, m.Params)
	}
	dst = append(dst, ' ')
	dst = appendNString(dst, m.ID, false)
	dst = append(dst, ' ')
	dst = appendNString(dst, m.Description, false)
	dst = append(dst, ' ')
	dst = appendString(dst, orText(m.Encoding, "7bit"), false)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, m.BodyLen, 10)
	if m.holdsMessage() && (global || !strings.EqualFold(m.Subtype, "global")) {
		dst = append(dst, ' ')
		dst = appendEnvelope(dst, m.Children[0].Envelope)
		dst = append(dst, ' ')
		dst = appendBody(dst, m.Children[0], extended, global)
		text = true
	}
	if text {
		dst = append(dst, ' ')
		dst = strconv.AppendInt(dst, m.BodyLines, 10)
	}
	if !extended {
		return dst
	}
	dst = append(dst, ' ')
	dst = appendNString(dst, m.MD5, false)
	return appendExtension(dst, m)
}

// appendExtension appends disposition, language and location.
func appendExtension(dst []byte, m *mimePart) []byte {
	if m.Disposition == "" {
		dst = append(dst, " NIL"...)
	} else {
		dst = append(dst, " ("...)
		dst = appendString(dst, m.Disposition, false)
		dst = append(dst, ' ')
		dst = appendParams(dst, m.DispParams)
		dst = append(dst, ')')
	}
	if len(m.Language) == 0 {
		dst = append(dst, " NIL"...)
	} else {
		dst = append(dst, ' ')
		dst = appendList(dst, m.Language)
	}
	dst = append(dst, ' ')
	return appendNString(dst, m.Location, false)
}

// appendParams appends parameters as a list, or NIL.
func appendParams(dst []byte, params []mimeParam) []byte {
	if len(params) == 0 {
		return append(dst, "NIL"...)
	}
	dst = append(dst, '(')
	for i, p := range params {
		if i > 0 {
			dst = append(dst, ' ')
		}
		dst = appendString(dst, p.Name, false)
		dst = append(dst, ' ')
		dst = appendString(dst, p.Value, false)
	}
	return append(dst, ')')
}

// appendList appends strings as a list.
func appendList(dst []byte, list []string) []byte {
	dst = append(dst, '(')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ' ')
		}
		dst = appendString(dst, s, false)
	}
	return append(dst, ')')
}

// cacheStructure is the CacheKind of cachedStructure.
const cacheStructure CacheKind = 1

// maxCached is how large a value may be that is kept, in bytes. A larger one,
// which takes thousands of parts, is made anew each time.
const maxCached = 128 << 10

// structureVersion is the first byte of a cached value; another one is as good
// as none.
const structureVersion = 1

// cachedStructure is what is kept of a message so that its file need not be read
// for lists of messages. The slices are parts of one value.
type cachedStructure struct {
	envelope  []byte // ENVELOPE
	body      []byte // BODY
	structure []byte // BODYSTRUCTURE
	body2     []byte // BODY and BODYSTRUCTURE for IMAP4rev2, empty where they are the same
	struct2   []byte
	listed    []byte // mimeEnvelope.Listed
	tree      []byte // see appendTree

	unlisted bool // mimeEnvelope.Unlisted
}

// pieces lists the slices in the order in which they are stored.
func (c *cachedStructure) pieces() [7]*[]byte {
	return [7]*[]byte{&c.envelope, &c.body, &c.structure, &c.body2, &c.struct2, &c.listed, &c.tree}
}

// structureRenderer renders one message after the other in the same memory.
type structureRenderer struct{ text []byte }

// render gives the cached value of a message: version, flags, and each piece behind its length.
func (r *structureRenderer) render(root *mimePart) []byte {
	b := r.text[:0]
	var ends [7]int // of the pieces in b, in their order; the sixth lies elsewhere
	b = appendEnvelope(b, root.Envelope)
	ends[0] = len(b)
	b = appendBody(b, root, false, false)
	ends[1] = len(b)
	b = appendBody(b, root, true, false)
	ends[2], ends[3], ends[4] = len(b), len(b), len(b)
	if root.holdsGlobal() {
		b = appendBody(b, root, false, true)
		ends[3] = len(b)
		b = appendBody(b, root, true, true)
		ends[4] = len(b)
	}
	ends[5] = ends[4]
	b = appendTree(b, root, 0)
	ends[6] = len(b)
	r.text = b

	listed := root.Envelope.Listed
	value := make([]byte, 2, 2+len(ends)*binary.MaxVarintLen32+len(b)+len(listed))
	value[0] = structureVersion
	if root.Envelope.Unlisted {
		value[1] = 1
	}
	start := 0
	for i, end := range ends {
		piece := b[start:end]
		if i == 5 {
			piece = listed
		}
		value = binary.AppendUvarint(value, uint64(len(piece)))
		value = append(value, piece...)
		start = end
	}
	return value
}

// holdsGlobal says whether there is a message/global inside.
func (m *mimePart) holdsGlobal() bool {
	if m.holdsMessage() && strings.EqualFold(m.Subtype, "global") {
		return true
	}
	for _, child := range m.Children {
		if child.holdsGlobal() {
			return true
		}
	}
	return false
}

// parseStructure takes a cached value apart. ok is false when it is of another
// version or damaged.
func parseStructure(value []byte) (c cachedStructure, ok bool) {
	if len(value) < 2 || value[0] != structureVersion {
		return c, false
	}
	c.unlisted = value[1] == 1
	value = value[2:]
	for _, piece := range c.pieces() {
		n, size := binary.Uvarint(value)
		if size <= 0 || n > uint64(len(value)-size) {
			return c, false
		}
		*piece = value[size : size+int(n)]
		value = value[size+int(n):]
	}
	return c, true
}

// treePart is a part as the tree of a cached value has it: where it lies and
// what is needed to read it.
type treePart struct {
	headerOff, headerLen, bodyLen int64

	multipart bool
	text      bool   // text/…
	encoding  string // Content-Transfer-Encoding in small letters, "" where missing
	charset   string // of text
	children  []treePart
}

// bodyOff is where the body begins.
func (t *treePart) bodyOff() int64 { return t.headerOff + t.headerLen }

// size is the length of a message.
func (t *treePart) size() int64 { return t.headerLen + t.bodyLen }

// holdsMessage says whether the part's one child is a message.
func (t *treePart) holdsMessage() bool { return !t.multipart && len(t.children) == 1 }

// Bits of a part in the tree.
const (
	treeMultipart = 1 << iota
	treeText
)

// appendTree appends a part and its children: bits, the distance from "from" to
// the header, the lengths of header and body, encoding, charset, and the number
// of children.
func appendTree(dst []byte, m *mimePart, from int64) []byte {
	bits := byte(0)
	charset := ""
	if m.isMultipart() {
		bits |= treeMultipart
	}
	if strings.EqualFold(m.Type, "text") {
		bits |= treeText
		charset = m.param("charset")
	}
	dst = append(dst, bits)
	dst = binary.AppendUvarint(dst, uint64(m.HeaderOff-from))
	dst = binary.AppendUvarint(dst, uint64(m.HeaderLen))
	dst = binary.AppendUvarint(dst, uint64(m.BodyLen))
	for _, s := range [...]string{strings.ToLower(m.Encoding), charset} {
		s = s[:min(len(s), maxTreeText)]
		dst = binary.AppendUvarint(dst, uint64(len(s)))
		dst = append(dst, s...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(m.Children)))
	from = m.BodyOff
	for _, child := range m.Children {
		dst = appendTree(dst, child, from)
		from = child.BodyOff + child.BodyLen
	}
	return dst
}

// maxTreeText is how much is kept of the name of an encoding or charset.
const maxTreeText = 60

// parseTree reads the tree of a cached value; ok is false when it is damaged.
func parseTree(tree []byte) (root treePart, ok bool) {
	r := treeReader{b: tree}
	root = r.part(0, 0)
	return root, !r.bad
}

// treeReader reads a tree; bad says that it makes no sense.
type treeReader struct {
	b   []byte
	bad bool
}

// number reads a number.
func (r *treeReader) number() int64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > 1<<50 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return int64(n)
}

// text reads a text.
func (r *treeReader) text() string {
	n := r.number()
	if n > int64(len(r.b)) {
		r.bad, r.b = true, nil
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// part reads a part and its children.
func (r *treeReader) part(from int64, depth int) treePart {
	var t treePart
	if len(r.b) == 0 || depth > maxPartDepth {
		r.bad, r.b = true, nil
		return t
	}
	bits := r.b[0]
	r.b = r.b[1:]
	t.multipart, t.text = bits&treeMultipart != 0, bits&treeText != 0
	t.headerOff = from + r.number()
	t.headerLen, t.bodyLen = r.number(), r.number()
	t.encoding, t.charset = r.text(), r.text()
	n := r.number()
	if n > int64(len(r.b)) {
		r.bad, r.b = true, nil
		return t
	}
	if n > 0 {
		t.children = make([]treePart, 0, n)
	}
	from = t.bodyOff()
	for range n {
		child := r.part(from, depth+1)
		if r.bad {
			return t
		}
		from = child.bodyOff() + child.bodyLen
		t.children = append(t.children, child)
	}
	return t
}
