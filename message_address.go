package main

// Address lists of header fields: RFC 5322 §3.4 with the obsolete forms of §4.4,
// UTF-8 (RFC 6532), and the shapes that real mail has besides.

import "strings"

// groupMark says whether an entry of an address list is a mailbox or one end of
// a group (RFC 5322 §3.4).
type groupMark uint8

const (
	notGroup   groupMark = iota
	groupStart           // Local is the group's name
	groupEnd             // all else is empty
)

// mailAddress is one entry of an address list. Text is unquoted; encoded words
// and 8-bit bytes are as the field has them.
type mailAddress struct {
	Name   string // display name or, without one, the comment behind the address
	Route  string // source route, "@a,@b"
	Local  string // "" where it is missing
	Domain string // "" where it is missing
	Group  groupMark
	Broken bool // there is text beside it that makes no sense
}

// Address gives the mailbox as an envelope would have it; ok is false where it
// is none.
func (a mailAddress) Address() (Address, bool) {
	out := Address{Local: a.Local, Domain: a.Domain}
	if a.Group != notGroup || !out.valid() {
		return Address{}, false
	}
	return out, true
}

// parseAddressList reads the value of a field such as From or To, folded or not.
// It gives the best reading of whatever is there and takes linear time.
func parseAddressList(value string) []mailAddress {
	var list []mailAddress
	scanAddresses(value, func(a mailAddress) bool {
		list = append(list, a)
		return true
	})
	return list
}

// scanAddresses is parseAddressList without a list: visit is called for each
// entry until it returns false.
func scanAddresses(value string, visit func(mailAddress) bool) {
	p := addressScanner{s: value}
	for {
		a, ok := p.next()
		if !ok || !visit(a) {
			return
		}
	}
}

// addressScanner walks once over a field's value.
type addressScanner struct {
	s       string
	i       int
	comment string // the last one seen, unescaped
	inGroup bool
	inAngle bool
	broken  bool // text of the entry was skipped
	buf     []byte
}

// peek gives the byte at the position, 0 at the end.
func (p *addressScanner) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

// next gives the next entry.
func (p *addressScanner) next() (mailAddress, bool) {
	p.comment = ""
	for {
		p.skipSpace()
		if p.i >= len(p.s) {
			return p.endGroup()
		}
		switch p.s[p.i] {
		case ',':
			p.i++
		case ';':
			p.i++
			if p.inGroup {
				return p.endGroup()
			}
		default:
			return p.entry(), true
		}
	}
}

// endGroup gives the marker that closes an open group, whether ";" did or the
// end of the field.
func (p *addressScanner) endGroup() (mailAddress, bool) {
	open := p.inGroup
	p.inGroup = false
	return mailAddress{Group: groupEnd}, open
}

// entry reads a mailbox or the head of a group, and what follows it up to the
// next separator.
func (p *addressScanner) entry() mailAddress {
	p.broken = false
	phrase, compact, spaced := p.words()
	var a mailAddress
	switch p.peek() {
	case ':':
		p.i++
		if p.inGroup { // groups do not nest: read on as if it were one
			return mailAddress{Local: phrase, Group: notGroup}
		}
		p.inGroup = true
		return mailAddress{Local: phrase, Group: groupStart}
	case '<':
		a = p.angle()
		a.Name = phrase
	case '@':
		p.i++
		a.Local, a.Domain = compact, p.domain()
		if spaced { // Ann ann@host: the brackets are missing
			i := strings.LastIndexByte(compact, ' ')
			a.Name, a.Local = compact[:i], compact[i+1:]
		}
		if p.peek() == '<' { // user@host <user@host>: an address as the name
			name := compact + "@" + a.Domain
			a = p.angle()
			a.Name = name
		}
	default:
		a.Local = compact
		if spaced { // several words without an address are a name
			a.Name, a.Local = phrase, ""
		}
	}
	p.skipRest()
	if a.Name == "" {
		a.Name = p.comment
	}
	a.Broken = p.broken
	return a
}

// words reads atoms, dots and quoted strings. phrase has one space where there
// was white space, compact has none around dots; spaced says that it still has
// some outside of quotes.
func (p *addressScanner) words() (phrase, compact string, spaced bool) {
	p.buf = p.buf[:0]
	spaces := false
	for p.i < len(p.s) {
		before := p.i
		p.skipSpace()
		gap := p.i > before && len(p.buf) > 0
		c := p.peek()
		if p.i >= len(p.s) || c == ',' || c == ';' || c == ':' || c == '<' || c == '@' || c == '>' && p.inAngle {
			break
		}
		if gap {
			p.buf = append(p.buf, ' ')
			spaces = true
		}
		if c == '"' {
			p.quoted()
			continue
		}
		p.atom()
	}
	phrase = string(p.buf)
	if !spaces {
		return phrase, phrase, false
	}
	compact = joinDots(phrase)
	return phrase, compact, strings.IndexByte(compact, ' ') >= 0
}

// joinDots removes the white space around dots: "a . b" is "a.b" (RFC 5322
// §4.4, obs-local-part). Other space stays: it was no address.
func joinDots(s string) string {
	if strings.IndexByte(s, '.') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == ' ' && (i+1 < len(s) && s[i+1] == '.' || len(out) > 0 && out[len(out)-1] == '.') {
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

// atom appends bytes up to white space, a comment, a quote or a separator.
// Specials that have no business here count as text.
func (p *addressScanner) atom() {
	start := p.i
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\r', '\n', '(', '"', ',', ';', ':', '<', '@':
			p.buf = append(p.buf, p.s[start:p.i]...)
			return
		case '>':
			if p.inAngle {
				p.buf = append(p.buf, p.s[start:p.i]...)
				return
			}
		}
		p.i++
	}
	p.buf = append(p.buf, p.s[start:]...)
}

// quoted appends the text of a quoted string, without its backslashes and line
// ends.
func (p *addressScanner) quoted() {
	for p.i++; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; c {
		case '"':
			p.i++
			return
		case '\r', '\n':
		case '\\':
			if p.i+1 < len(p.s) {
				p.i++
			}
			p.buf = append(p.buf, p.s[p.i])
		default:
			p.buf = append(p.buf, c)
		}
	}
}

// skipSpace skips white space and comments (RFC 5322 §3.2.2), keeping the text
// of the last comment.
func (p *addressScanner) skipSpace() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\r', '\n':
			p.i++
		case '(':
			p.skipComment()
		default:
			return
		}
	}
}

// skipComment reads a comment, those inside it included.
func (p *addressScanner) skipComment() {
	var text []byte
	depth := 0
	for ; p.i < len(p.s); p.i++ {
		c := p.s[p.i]
		switch c {
		case '(':
			depth++
			if depth == 1 {
				continue
			}
		case ')':
			depth--
			if depth == 0 {
				p.i++
				p.comment = strings.TrimSpace(string(text))
				return
			}
		case '\\':
			if p.i+1 < len(p.s) {
				p.i++
				c = p.s[p.i]
			}
		case '\r', '\n':
			continue
		}
		text = append(text, c)
	}
	p.comment, p.broken = strings.TrimSpace(string(text)), true // it is not closed
}

// angle reads <route:local@domain>.
func (p *addressScanner) angle() mailAddress {
	var a mailAddress
	p.i++
	p.skipSpace()
	if p.peek() == '@' {
		a.Route = p.route()
	}
	p.inAngle = true
	_, a.Local, _ = p.words()
	p.inAngle = false
	if p.peek() == '@' {
		p.i++
		a.Domain = p.domain()
	}
	p.skipSpace()
	for p.i < len(p.s) && p.s[p.i] != '>' && p.s[p.i] != ',' { // <undisclosed-recipients:;>
		p.broken = true
		p.i++
	}
	if p.peek() == '>' {
		p.i++
	} else {
		p.broken = true
	}
	return a
}

// route reads the obsolete "@a,@b:" (RFC 5322 §4.4). Where no colon ends it, it
// was no route and the position stays.
func (p *addressScanner) route() string {
	end := strings.IndexAny(p.s[p.i:], ":>;\"")
	if end < 0 || p.s[p.i+end] != ':' {
		return ""
	}
	route := strings.Join(strings.Fields(p.s[p.i:p.i+end]), "")
	p.i += end + 1
	return route
}

// domain reads a dot-atom or a domain literal, white space and comments around
// its dots allowed (RFC 5322 §4.4, obs-domain).
func (p *addressScanner) domain() string {
	p.buf = p.buf[:0]
	for {
		before := p.i
		p.skipSpace()
		gap := p.i > before
		c := p.peek()
		dotted := len(p.buf) > 0 && p.buf[len(p.buf)-1] == '.'
		if gap && len(p.buf) > 0 && c != '.' && !dotted {
			return string(p.buf)
		}
		start := p.i
		if c == '[' {
			p.literal()
		} else {
			for p.i < len(p.s) && isDomainByte(p.s[p.i]) {
				p.i++
			}
		}
		if p.i == start {
			return string(p.buf)
		}
		p.buf = append(p.buf, p.s[start:p.i]...)
	}
}

// isDomainByte is what goes on with a domain: atoms, dots and bytes beyond ASCII.
func isDomainByte(c byte) bool { return c == '.' || c >= 0x80 || isAtomByte(c) }

// literal moves behind a domain literal "[…]".
func (p *addressScanner) literal() {
	for p.i++; p.i < len(p.s); p.i++ {
		switch p.s[p.i] {
		case ']':
			p.i++
			return
		case ',', ';', '<', '>', '[':
			return
		}
	}
}

// skipRest moves to the separator that ends an entry, over what makes no sense
// behind an address; comments are kept, for they may be the name.
func (p *addressScanner) skipRest() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ',', ';':
			return
		case ' ', '\t', '\r', '\n':
			p.i++
		case '(':
			p.skipComment()
		case '"':
			p.broken = true
			p.quoted()
		default:
			p.broken = true
			p.i++
		}
	}
}
