package main

// The header of a part while it streams by, and the fields that tell its
// structure: RFC 2045 §5 to §8, RFC 2183, RFC 3282, RFC 2557, RFC 1864.

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// fieldID names a field that the structure of a message needs, or one that
// clients ask for in lists of messages.
type fieldID uint8

const (
	fieldOther fieldID = iota
	fieldContentType
	fieldEncoding
	fieldContentID
	fieldDescription
	fieldMD5
	fieldDisposition
	fieldLanguage
	fieldLocation
	fieldDate // this and those below: only of messages
	fieldSubject
	fieldFrom
	fieldSender
	fieldReplyTo
	fieldTo
	fieldCc
	fieldBcc
	fieldInReplyTo
	fieldMessageID
	fieldListed // this and those below: only kept as they are
)

// knownFields are the names of the fields in small letters.
var knownFields = map[string]fieldID{
	"content-type": fieldContentType, "content-transfer-encoding": fieldEncoding, "content-id": fieldContentID,
	"content-description": fieldDescription, "content-md5": fieldMD5, "content-disposition": fieldDisposition,
	"content-language": fieldLanguage, "content-location": fieldLocation, "date": fieldDate, "subject": fieldSubject,
	"from": fieldFrom, "sender": fieldSender, "reply-to": fieldReplyTo, "to": fieldTo, "cc": fieldCc, "bcc": fieldBcc,
	"in-reply-to": fieldInReplyTo, "message-id": fieldMessageID,

	"references": fieldListed, "newsgroups": fieldListed + 1, "priority": fieldListed + 2, "x-priority": fieldListed + 3,
	"importance": fieldListed + 4, "mime-version": fieldListed + 5, "list-id": fieldListed + 6, "list-post": fieldListed + 7,
	"list-subscribe": fieldListed + 8, "list-unsubscribe": fieldListed + 9, "x-label": fieldListed + 10,
	"x-original-to": fieldListed + 11, "delivered-to": fieldListed + 12, "lines": fieldListed + 13,
	"x-k9mail-identity": fieldListed + 14, "autocrypt": fieldListed + 15, "x-mailer": fieldListed + 16,
	"user-agent": fieldListed + 17, "x-spam-flag": fieldListed + 18, "x-uniform-type-identifier": fieldListed + 19,
	"x-universally-unique-identifier": fieldListed + 20, "followup-to": fieldListed + 21, "precedence": fieldListed + 22,
	"disposition-notification-to": fieldListed + 23, "x-draft-info": fieldListed + 24, "return-path": fieldListed + 25,
	"x-forwarded-message-id": fieldListed + 26, "x-spam-status": fieldListed + 27, "mail-followup-to": fieldListed + 28,
	"x-mozilla-keys": fieldListed + 29, "list-help": fieldListed + 30, "list-archive": fieldListed + 31,
}

// lookUpField knows the field that a line begins, or fieldOther, and where its
// value starts.
func lookUpField(line []byte) (id fieldID, value int) {
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		return fieldOther, len(line)
	}
	return fieldNamed(bytes.TrimRight(line[:colon], " \t")), colon + 1
}

// fieldNamed gives the id of a name in any case.
func fieldNamed(name []byte) fieldID {
	var lower [40]byte
	if len(name) > len(lower) {
		return fieldOther
	}
	for i, c := range name {
		lower[i] = lowerByte(c)
	}
	return knownFields[string(lower[:len(name)])]
}

// lowerByte maps A–Z to a–z.
func lowerByte(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// header reads a part's header into m, its blank line included. It is false
// when the part ends inside its header, by a boundary or the end of the message.
func (p *mimeParser) header(m *mimePart) (blank bool) {
	p.lastEnd = 0
	id := fieldOther
	seen := uint64(0)
	for p.err == nil {
		start, lines, lastEnd := p.off, p.lines, p.lastEnd
		line, more := p.head()
		if level, closing := p.match(line); level >= 0 {
			p.finish(line, more)
			p.endAt(level, closing, start, lines, lastEnd)
			p.endField(m, id, &seen)
			return false
		}
		if isBlankLine(line) {
			p.finish(line, more)
			p.endField(m, id, &seen)
			return true
		}
		if len(line) > 0 && line[0] != ' ' && line[0] != '\t' {
			p.endField(m, id, &seen)
			id, p.valueAt = lookUpField(line)
			if id >= fieldDate && m.Envelope == nil {
				id = fieldOther
			}
		}
		p.keep(id, line)
		for id != fieldOther && more {
			line, more = p.head()
			p.keep(id, line)
		}
		p.finish(line, more)
	}
	p.endAt(-1, true, p.off, p.lines, 0)
	p.endField(m, id, &seen)
	return false
}

// keep adds a piece of a line to the field as far as the limits go.
func (p *mimeParser) keep(id fieldID, line []byte) {
	if id == fieldOther {
		return
	}
	room := min(maxFieldKept, maxTextKept-p.kept) - len(p.field)
	if len(line) > room {
		line = line[:max(0, room)]
		p.cut = true
	}
	p.field = append(p.field, line...)
}

// endField gives the field that was read to the part.
func (p *mimeParser) endField(m *mimePart, id fieldID, seen *uint64) {
	if id == fieldOther {
		return
	}
	if p.depth == 1 {
		p.list(m.Envelope, id)
	}
	value := string(unfold(p.field[min(p.valueAt, len(p.field)):]))
	first := *seen&(1<<id) == 0
	*seen |= 1 << id
	p.kept += len(value)
	p.field, p.cut = p.field[:0], false
	switch {
	case id >= fieldListed:
	case id >= fieldDate:
		m.Envelope.set(id, value, first)
	case first:
		m.set(id, value)
	}
}

// list keeps a field of the message itself as it is, for lists of messages.
func (p *mimeParser) list(e *mimeEnvelope, id fieldID) {
	if e.Unlisted = e.Unlisted || p.cut || len(e.Listed)+len(p.field) > maxListed; e.Unlisted {
		e.Listed = nil
		return
	}
	e.Listed = append(e.Listed, byte(id))
	e.Listed = binary.AppendUvarint(e.Listed, uint64(len(p.field)))
	e.Listed = append(e.Listed, p.field...)
}

// set takes a Content- field over.
func (m *mimePart) set(id fieldID, value string) {
	switch id {
	case fieldContentType:
		if mediaType, subtype, params, ok := parseContentType(value); ok {
			m.Type, m.Subtype, m.Params = mediaType, subtype, params
		}
	case fieldEncoding:
		s := fieldScanner{s: value}
		m.Encoding = s.token()
	case fieldContentID:
		m.ID = value
	case fieldDescription:
		m.Description = value
	case fieldMD5:
		m.MD5 = value
	case fieldLocation:
		m.Location = value
	case fieldDisposition:
		s := fieldScanner{s: value}
		m.Disposition = s.token()
		m.DispParams = s.params()
	case fieldLanguage:
		m.Language = parseLanguages(value)
	}
}

// set takes a field of a message over.
func (e *mimeEnvelope) set(id fieldID, value string, first bool) {
	var at *string
	addresses := true
	e.Present |= 1 << id
	switch id {
	case fieldFrom:
		at = &e.From
	case fieldSender:
		at = &e.Sender
	case fieldReplyTo:
		at = &e.ReplyTo
	case fieldTo:
		at = &e.To
	case fieldCc:
		at = &e.Cc
	case fieldBcc:
		at = &e.Bcc
	default:
		at, addresses = e.text(id), false
	}
	switch {
	case first:
		*at = value
	case addresses && len(*at)+len(value) < maxFieldJoined:
		*at += ", " + value
	}
}

// text gives the place of a field that has no addresses.
func (e *mimeEnvelope) text(id fieldID) *string {
	switch id {
	case fieldDate:
		return &e.Date
	case fieldSubject:
		return &e.Subject
	case fieldInReplyTo:
		return &e.InReplyTo
	default:
		return &e.MessageID
	}
}

// parseContentType reads the value of Content-Type. ok is false where there is
// no type and subtype.
func parseContentType(value string) (mediaType, subtype string, params []mimeParam, ok bool) {
	s := fieldScanner{s: value}
	mediaType = s.token()
	s.skipSpace()
	if mediaType == "" || s.peek() != '/' {
		return "", "", nil, false
	}
	s.i++
	subtype = s.token()
	if subtype == "" {
		return "", "", nil, false
	}
	return mediaType, subtype, s.params(), true
}

// parseLanguages reads the value of Content-Language (RFC 3282).
func parseLanguages(value string) []string {
	var list []string
	s := fieldScanner{s: value}
	for len(list) < maxParams {
		if tag := s.token(); tag != "" {
			list = append(list, tag)
		}
		s.skipSpace()
		if s.i >= len(s.s) {
			break
		}
		s.i++ // the comma, or what should be one
	}
	return list
}

// fieldScanner reads the structured fields of RFC 2045.
type fieldScanner struct {
	s string
	i int
}

// peek gives the next byte, 0 at the end.
func (s *fieldScanner) peek() byte {
	if s.i < len(s.s) {
		return s.s[s.i]
	}
	return 0
}

// skipSpace skips white space and comments.
func (s *fieldScanner) skipSpace() {
	depth := 0
	for ; s.i < len(s.s); s.i++ {
		switch c := s.s[s.i]; {
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == '\\' && depth > 0:
			s.i = min(s.i+1, len(s.s)-1)
		case depth == 0 && c != ' ' && c != '\t' && c != '\r' && c != '\n':
			return
		}
	}
}

// token reads a token (RFC 2045 §5.1), bytes beyond ASCII let in.
func (s *fieldScanner) token() string {
	s.skipSpace()
	start := s.i
	for s.i < len(s.s) && isTokenByte(s.s[s.i]) {
		s.i++
	}
	return s.s[start:s.i]
}

// isTokenByte is what a token may have.
func isTokenByte(c byte) bool {
	return c > ' ' && c != 0x7f && strings.IndexByte(`()<>@,;:\"/[]?=`, c) < 0
}

// params reads "; name=value" to the end. What is not of that form is skipped.
func (s *fieldScanner) params() []mimeParam {
	var list []mimeParam
	for len(list) < maxParams {
		semicolon := strings.IndexByte(s.s[s.i:], ';')
		if semicolon < 0 {
			break
		}
		s.i += semicolon + 1
		name := s.token()
		s.skipSpace()
		if name == "" || s.peek() != '=' {
			continue
		}
		s.i++
		list = append(list, mimeParam{Name: name, Value: s.value()})
	}
	return list
}

// value reads a parameter's value: a quoted string, or text up to white space
// or a semicolon, for unquoted values hold all sorts of bytes in real mail.
func (s *fieldScanner) value() string {
	s.skipSpace()
	if s.peek() == '"' {
		return s.quoted()
	}
	start := s.i
	for s.i < len(s.s) && strings.IndexByte(" \t\r\n;", s.s[s.i]) < 0 {
		s.i++
	}
	return s.s[start:s.i]
}

// quoted reads a quoted string without its quotes and backslashes.
func (s *fieldScanner) quoted() string {
	var b strings.Builder
	for s.i++; s.i < len(s.s); s.i++ {
		c := s.s[s.i]
		if c == '"' {
			s.i++
			break
		}
		if c == '\\' && s.i+1 < len(s.s) {
			s.i++
			c = s.s[s.i]
		}
		b.WriteByte(c)
	}
	return b.String()
}

// listedFields calls visit for each field of mimeEnvelope.Listed.
func listedFields(listed []byte, visit func(id fieldID, raw []byte)) {
	for len(listed) > 1 {
		id := fieldID(listed[0])
		n, size := binary.Uvarint(listed[1:])
		if size <= 0 || n > uint64(len(listed)-1-size) {
			return
		}
		listed = listed[1+size:]
		visit(id, listed[:n])
		listed = listed[n:]
	}
}
