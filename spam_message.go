package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// What the filter looks at of a message is bounded, whatever its size. All are octets.
const (
	spamReads      = 512 << 10 // from the beginning of the message; attachments beyond are not seen
	spamHeader     = 64 << 10  // of the header
	spamPartText   = 64 << 10  // of one text part, decoded
	spamAllText    = 192 << 10 // of all text parts, decoded
	spamSubject    = 1 << 10   // of the subject, decoded
	spamFieldWords = 512       // of one of the other fields
)

// spamMessage is what the filter knows of a message: its header, what stands out in it, and its tokens.
type spamMessage struct {
	fields []headerField
	facts  spamFacts
	tokens tokenSet
}

// spamFacts is what rules ask of the parts of a message.
type spamFacts struct {
	plain, html bool   // there is a text of the kind
	letters     int    // octets of words in all texts
	images      int    // that the HTML shows
	numberLinks int    // links to an address of the internet instead of a name
	liars       int    // links whose text names another organisation's host
	forms       int    // forms to fill in
	torn        int    // words with invisible characters inside
	program     string // the name of an attachment that Windows would run
	page        string // the name of an attachment that is a web page
}

// spamReader reads messages, one after another. Its buffers are made at first use. Not safe for concurrent use.
type spamReader struct {
	folding textFolder
	scratch []byte
	text    []byte // of one part, folded
	visible []byte // what is to be seen of HTML
	message *spamMessage
	left    int // of spamAllText
}

// read reads a message; seed is that of its tokens. It is valid until the next. An error is one of the source.
func (r *spamReader) read(seed uint64, source io.ReaderAt, size int64) (*spamMessage, error) {
	size = min(size, spamReads)
	header, err := readHeader(bufio.NewReader(io.NewSectionReader(source, 0, size)), spamHeader)
	if err != nil && !errors.Is(err, errHeaderTooLong) {
		return nil, fmt.Errorf("reading a message's header: %w", err)
	}
	root, err := parseMessage(io.NewSectionReader(source, 0, size))
	if err != nil {
		return nil, fmt.Errorf("reading a message: %w", err)
	}
	if r.message == nil {
		r.message, r.scratch = &spamMessage{}, make([]byte, decodeBuffer)
	}
	m := r.message
	m.fields, m.facts = splitHeader(header), spamFacts{}
	m.tokens.clear(seed)
	r.left = spamAllText
	m.headerTokens()
	m.tokens.add(tokenType, []byte(strings.ToLower(root.Type+"/"+root.Subtype)))
	if err := r.part(root, source); err != nil {
		return nil, fmt.Errorf("reading a message: %w", err)
	}
	return m, nil
}

// part looks at a part and those inside it.
func (r *spamReader) part(part *mimePart, source io.ReaderAt) error {
	if name := attachmentName(part); name != "" {
		r.message.attachment(name)
	}
	for _, child := range part.Children {
		if err := r.part(child, source); err != nil {
			return err
		}
	}
	if len(part.Children) > 0 || !strings.EqualFold(part.Type, "text") || r.left <= 0 {
		return nil
	}
	body, _ := transferReader(part.Encoding, io.NewSectionReader(source, part.BodyOff, part.BodyLen))
	r.text = r.text[:0]
	room := min(spamPartText, r.left)
	err := r.folding.stream(body, part.param("charset"), r.scratch, func(folded []byte) bool {
		r.text = append(r.text, folded[:min(len(folded), room-len(r.text))]...)
		return len(r.text) < room
	})
	r.left -= len(r.text)
	if charset := part.param("charset"); charset != "" {
		r.message.tokens.add(tokenCharset, []byte(strings.ToLower(charset)))
	}
	if part.is("text", "html") || bytes.HasPrefix(bytes.TrimLeft(r.text, " \r\n\t"), []byte("<html")) {
		r.message.facts.html = true
		r.visible = r.message.readHTML(r.text, r.visible[:0])
	} else {
		r.message.facts.plain = true
		r.message.textLinks(r.text)
		r.message.words(tokenWord, r.text)
	}
	return err
}

// attachmentName gives the name that a part has as a file, "" for none.
func attachmentName(part *mimePart) string {
	for _, params := range [][]mimeParam{part.DispParams, part.Params} {
		for _, p := range params {
			if strings.EqualFold(p.Name, "filename") || strings.EqualFold(p.Name, "name") {
				return decodeHeaderText(p.Value)
			}
		}
		if name := decodeParams(params); name != "" && len(params) > 0 {
			return strings.TrimSpace(name)
		}
	}
	return ""
}

// programEndings are the names' ends of files that Windows runs when they are opened, or that hold such files as a disk.
var programEndings = map[string]bool{
	"ade": true, "adp": true, "apk": true, "appx": true, "bat": true, "chm": true, "cmd": true, "com": true, "cpl": true, "dll": true,
	"exe": true, "hta": true, "img": true, "ins": true, "iso": true, "jar": true, "js": true, "jse": true, "lnk": true, "mde": true,
	"msc": true, "msi": true, "msp": true, "mst": true, "nsh": true, "pif": true, "ps1": true, "reg": true, "scr": true, "sct": true,
	"shb": true, "sys": true, "vb": true, "vbe": true, "vbs": true, "vhd": true, "vhdx": true, "vxd": true, "wsc": true, "wsf": true,
	"wsh": true, "xll": true,
}

// attachment notes the name of an attachment.
func (m *spamMessage) attachment(name string) {
	name = clip(strings.ToLower(name), 255)
	m.words(tokenFile, []byte(name))
	_, ending, ok := cutLast(strings.TrimRight(name, " ."), '.')
	if !ok {
		return
	}
	m.tokens.add(tokenEnding, []byte(ending))
	switch {
	case programEndings[ending]:
		m.facts.program = name
	case ending == "htm" || ending == "html" || ending == "shtml" || ending == "svg":
		m.facts.page = name
	}
}

// headerTokens makes tokens of the header. Fields that servers here have put in front tell nothing but who sent the message;
// what the filter or a milter said of it is left out, so that a message has the same tokens when it is judged and when
// it is learned.
func (m *spamMessage) headerTokens() {
	received := false
	for _, h := range m.fields {
		name := strings.ToLower(h.Name)
		value := clip(h.Value(), 4*spamFieldWords)
		switch name {
		case "", "authentication-results", "dkim-signature", "date", "message-id", "to", "cc", "references", "in-reply-to", "delivered-to":
		case "received":
			if !received {
				received = true
				m.receivedTokens(value)
			}
		case "subject":
			text := clip(decodeHeaderText(value), spamSubject)
			m.words(tokenSubject, appendFolded(nil, []byte(text)))
		case "from", "reply-to", "sender", "return-path":
			m.addressTokens(name, value)
		case "x-mailer", "user-agent", "list-id", "x-originating-ip", "organization":
			m.tokens.named(tokenField, name)
			m.words(tokenField, appendFolded(nil, []byte(clip(decodeHeaderText(value), spamFieldWords))))
		default:
			if !isVerdictField(name) && !strings.HasPrefix(name, "arc-") {
				m.tokens.named(tokenField, name)
			}
		}
	}
}

// receivedTokens takes from the first Received field who gave us the message: a name and an address, and its network.
func (m *spamMessage) receivedTokens(value string) {
	from, _, _ := strings.Cut(value, " by ")
	for word := range strings.FieldsFuncSeq(clip(from, spamFieldWords), func(r rune) bool { return strings.ContainsRune(" \t()[]", r) }) {
		word = strings.ToLower(word)
		m.tokens.named(tokenPeer, word)
		if network, _, ok := cutLast(word, '.'); ok && strings.Count(word, ".") == 3 {
			m.tokens.named(tokenPeer, network)
		}
	}
}

// addressTokens takes the addresses of a field.
func (m *spamMessage) addressTokens(field, value string) {
	kind := tokenAuthor
	switch field {
	case "return-path":
		kind = tokenEnvelope
	case "reply-to", "sender":
		kind = tokenReply
	}
	n := 0
	scanAddresses(value, func(a mailAddress) bool {
		if kind != tokenEnvelope {
			m.words(kind, appendFolded(nil, []byte(clip(decodeHeaderText(a.Name), spamFieldWords))))
			m.tokens.named(kind, strings.ToLower(a.Local+"@"+a.Domain))
		}
		m.tokens.named(kind, strings.ToLower(a.Domain))
		n++
		return n < 5
	})
}
