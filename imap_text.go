package main

// The texts of a message, as SEARCH sees them: the fields of its headers, unfolded and decoded, and its text parts,
// decoded. Each is a text of its own: nothing is found across two of them.

import (
	"bufio"
	"bytes"
	"io"
)

// textVisitor takes the texts of a message one after another.
type textVisitor interface {
	// begin starts a text. body says whether BODY looks at it; TEXT looks at all.
	begin(body bool)
	// next takes a piece of it, folded, and says whether more is wanted of the message.
	next(folded []byte) (more bool)
}

// textReader reads the texts of messages, one message after another. Its buffers are made at first use; memory is
// bounded. Not safe for concurrent use.
type textReader struct {
	file    *Message // the message in hand
	header  *bufio.Reader
	field   []byte
	scratch []byte // copyBuffer bytes
	folding textFolder
	folded  []byte
}

// read gives the texts of the message in hand to v until it has enough; without headers only those that BODY looks at.
// The only errors are those of the file.
func (t *textReader) read(root *treePart, headers bool, v textVisitor) error {
	if t.scratch == nil {
		t.scratch = make([]byte, copyBuffer)
	}
	_, err := t.part(root, false, headers, v)
	return err
}

// part reads a part. body says whether its own header is text of the body, as that of a message inside is; other headers
// count only where headers are wanted.
func (t *textReader) part(part *treePart, body, headers bool, v textVisitor) (more bool, err error) {
	more = true
	if body || headers {
		err = t.eachField(part.headerOff, part.headerLen, func(raw []byte) bool {
			t.folded = appendFolded(t.folded[:0], wholeFieldText(raw))
			v.begin(body)
			more = v.next(t.folded)
			return more
		})
	}
	for i := range part.children {
		if !more || err != nil {
			return false, err
		}
		more, err = t.part(&part.children[i], !part.multipart, headers, v)
	}
	if !more || err != nil || !part.text {
		return more, err
	}
	v.begin(true)
	r, _ := transferReader(part.encoding, t.file.Section(part.bodyOff(), part.bodyLen))
	err = t.folding.stream(r, part.charset, t.scratch, func(folded []byte) bool {
		more = v.next(folded)
		return more
	})
	return more, err
}

// eachField calls visit for each field of the header block that begins at off,
// within n bytes, until it returns false. Of a field longer than maxFieldKept
// only the beginning is given. raw is valid during the call.
func (t *textReader) eachField(off, n int64, visit func(raw []byte) bool) error {
	if t.header == nil {
		t.header = bufio.NewReaderSize(nil, 4<<10)
	}
	r := t.header
	r.Reset(t.file.Section(off, n))
	field := t.field[:0]
	defer func() { t.field = field }()
	begins := true
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull && err != io.EOF {
			return err
		}
		blank := begins && isBlankLine(line)
		if begins && len(field) > 0 && (blank || len(line) == 0 || line[0] != ' ' && line[0] != '\t') {
			if !visit(field) {
				return nil
			}
			field = field[:0]
		}
		if blank {
			return nil
		}
		if room := maxFieldKept - len(field); room > 0 {
			field = append(field, line[:min(room, len(line))]...)
		}
		if err == io.EOF {
			if len(field) > 0 {
				visit(field)
			}
			return nil
		}
		begins = err == nil
	}
}

// fieldText gives the text of a field, unfolded and decoded.
func fieldText(raw []byte) []byte {
	return decodedText(unfold(raw[bytes.IndexByte(raw, ':')+1:]))
}

// wholeFieldText is fieldText with the field's name, which is never encoded, and
// with the parameters that RFC 2231 encodes once more in plain.
func wholeFieldText(raw []byte) []byte {
	text := unfold(raw)
	text = text[:len(text):len(text)]
	var whole []byte
	if name := text[:bytes.IndexByte(text, ':')+1]; bytes.Contains(name, []byte("=?")) {
		whole = append([]byte(decodeCharset("", name)), decodedText(text[len(name):])...)
	} else {
		whole = decodedText(text)
	}
	if bytes.IndexByte(text, '*') < 0 {
		return whole
	}
	s := fieldScanner{s: string(text)}
	return append(append(whole, ' '), decodeParams(s.params())...)
}

// decodedText is decodeHeaderText that gives plain text back as it is.
func decodedText(text []byte) []byte {
	if isASCII(text) && !bytes.Contains(text, []byte("=?")) {
		return text
	}
	return []byte(decodeHeaderText(string(text)))
}

// fieldIs says whether a field is called name.
func fieldIs(raw []byte, name string) bool {
	colon := bytes.IndexByte(raw, ':')
	return colon >= 0 && bytes.EqualFold(bytes.TrimRight(raw[:colon], " \t"), []byte(name))
}
