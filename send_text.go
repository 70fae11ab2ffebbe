package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/quotedprintable"
	"strings"
)

// What a message's text asks of the server that is to take it, and the form of a message with octets above 127 for servers
// that take ASCII alone (RFC 6152 §3).

// maxDowngrade is how large a message may be that is converted, in octets: it is held in memory.
const maxDowngrade = 16 << 20

// textKind says where a message has octets above 127.
type textKind struct {
	header bool // in its own header, and its sender says that it is UTF-8
	eight  bool // anywhere
}

// scanText looks for octets above 127.
func scanText(m *Outgoing) (textKind, error) {
	var kind textKind
	r := bufio.NewReaderSize(io.NewSectionReader(m.Message, 0, m.Size), writeChunk)
	inHeader, lineStart := true, true
	for {
		piece, err := r.ReadSlice('\n')
		if lineStart && isBlankLine(piece) {
			inHeader = false
		}
		if !isASCII(piece) {
			kind.eight = true
			kind.header = kind.header || inHeader && m.Envelope.UTF8
		}
		if kind.eight && !inHeader {
			return kind, nil
		}
		switch err {
		case nil, bufio.ErrBufferFull:
			lineStart = err == nil
		case io.EOF:
			return kind, nil
		default:
			return kind, err
		}
	}
}

// asciiEnvelope says whether all local parts are ASCII; domains always can be (RFC 5891).
func asciiEnvelope(m *Outgoing) bool {
	local := func(address string) bool {
		l, _, _ := cutLast(address, '@')
		return isASCII([]byte(l))
	}
	for _, i := range m.Recipients {
		if !local(m.Envelope.Recipients[i].Address) {
			return false
		}
	}
	return local(m.Envelope.From)
}

var (
	errDowngradeSize   = errors.New("it is too large for that")
	errDowngradeSigned = errors.New("that would break its signature")
)

// downgrade gives a message in ASCII: parts with octets above 127 become quoted-printable, or base64 where they are no text.
func downgrade(message io.ReaderAt, size int64) ([]byte, error) {
	if size > maxDowngrade {
		return nil, errDowngradeSize
	}
	root, err := parseMessage(io.NewSectionReader(message, 0, size))
	if err != nil {
		return nil, err
	}
	d := downgrader{text: make([]byte, size)}
	if _, err := message.ReadAt(d.text, 0); err != nil && err != io.EOF {
		return nil, err
	}
	if err := d.part(root); err != nil {
		return nil, err
	}
	return d.out.Bytes(), nil
}

type downgrader struct {
	text []byte
	out  bytes.Buffer
}

// part writes one part with its header.
func (d *downgrader) part(p *mimePart) error {
	header := d.text[p.HeaderOff : p.HeaderOff+p.HeaderLen]
	body := d.text[p.BodyOff : p.BodyOff+p.BodyLen]
	if p.is("multipart", "signed") && !isASCII(body) {
		return errDowngradeSigned
	}
	switch {
	case len(p.Children) > 0:
		d.header(header, "7bit")
		return d.children(p)
	case isASCII(body):
		d.header(header, "")
		d.out.Write(body)
		return nil
	case !isIdentity(strings.ToLower(p.Encoding)): // what is called encoded, and is not quite
		d.header(header, "")
		d.ascii(body)
		return nil
	case strings.EqualFold(p.Type, "text"):
		d.header(header, "quoted-printable")
		w := quotedprintable.NewWriter(&d.out)
		_, err := w.Write(body)
		return errors.Join(err, w.Close())
	}
	d.header(header, "base64")
	return d.base64(body)
}

// children writes what a part with parts has: they, and the boundaries between them.
func (d *downgrader) children(p *mimePart) error {
	at := p.BodyOff
	for _, child := range p.Children {
		d.ascii(d.text[at:child.HeaderOff])
		if err := d.part(child); err != nil {
			return err
		}
		at = child.BodyOff + child.BodyLen
	}
	d.ascii(d.text[at : p.BodyOff+p.BodyLen])
	return nil
}

// ascii writes text that no program looks at, without octets above 127.
func (d *downgrader) ascii(text []byte) {
	for _, c := range text {
		if c >= 0x80 {
			c = '?'
		}
		d.out.WriteByte(c)
	}
}

// base64 writes a body in lines of 76 characters.
func (d *downgrader) base64(body []byte) error {
	const octets = 57
	for len(body) > 0 {
		n := min(octets, len(body))
		d.out.WriteString(base64.StdEncoding.EncodeToString(body[:n]))
		if body = body[n:]; len(body) > 0 {
			d.out.WriteString("\r\n")
		}
	}
	return nil
}

// header writes a header block with its blank line, in ASCII; encoding, unless "", is what Content-Transfer-Encoding says.
func (d *downgrader) header(raw []byte, encoding string) {
	said := encoding == "" || encoding == "7bit"
	for _, f := range splitHeader(raw) {
		if encoding != "" && f.Is("Content-Transfer-Encoding") {
			if !said || encoding == "7bit" {
				d.out.WriteString("Content-Transfer-Encoding: " + encoding + "\r\n")
			}
			said = true
			continue
		}
		d.field(f.Raw)
	}
	if !said {
		d.out.WriteString("Content-Transfer-Encoding: " + encoding + "\r\n")
	}
	if bytes.HasSuffix(raw, []byte("\r\n\r\n")) || string(raw) == "\r\n" {
		d.out.WriteString("\r\n")
	}
}

// field writes a field; words with octets above 127 become encoded words (RFC 2047), in UTF-8 if they are that. The white
// space between two encoded words means nothing, so the second one has it once more.
func (d *downgrader) field(raw []byte) {
	if isASCII(raw) {
		d.out.Write(raw)
		return
	}
	colon := bytes.IndexByte(raw, ':') + 1
	d.ascii(raw[:colon])
	raw = raw[colon:]
	encoded, space := false, ""
	for len(raw) > 0 {
		n := bytes.IndexAny(raw, " \t\r\n")
		switch {
		case n == 0:
			d.out.WriteByte(raw[0])
			space, n = " ", 1
		default:
			if n < 0 {
				n = len(raw)
			}
			word := raw[:n]
			if isASCII(word) {
				d.out.Write(word)
				encoded = false
				break
			}
			text := strings.ToValidUTF8(string(word), "?")
			if encoded {
				text = space + text
			}
			d.out.WriteString(mime.QEncoding.Encode("utf-8", text))
			encoded = true
		}
		raw = raw[n:]
	}
}
