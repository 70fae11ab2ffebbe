package main

// What is derived of messages and mailboxes and stays the same: OBJECTID (RFC 8474) and PREVIEW (RFC 8970).

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/text/transform"
)

const (
	cacheEmailID CacheKind = 4
	cachePreview CacheKind = 5

	derivedVersion = '1' // the first byte of a cached value; another one is as good as none

	previewRunes = 200       // RFC 8970 §3.1: at most 200 characters
	previewRead  = 128 << 10 // bytes of a message in which its text is looked for
	previewText  = 16 << 10  // bytes of the text that are read, markup included
)

// fetchDerived are the items that are kept in a cache of their own.
var fetchDerived = map[fetchKind]CacheKind{fetchEmailID: cacheEmailID, fetchPreview: cachePreview}

// mailboxID is MAILBOXID of a folder (RFC 8474 §4.1). It follows the folder's GUID, which stands beside the mail and so
// stays over renames and without the index.
func mailboxID(f *Folder) (string, error) {
	guid, err := f.GUID()
	if err != nil {
		return "", fmt.Errorf("giving a mailbox its id: %w", err)
	}
	// RFC 8474 §7: letters, digits, "_" and "-", 255 of them. What others have written may be anything.
	if strings.IndexFunc(guid, func(r rune) bool { return !isObjectIDByte(r) }) >= 0 || len(guid) > 64 {
		sum := sha256.Sum256([]byte(guid))
		guid = hex.EncodeToString(sum[:16])
	}
	return "F" + guid, nil
}

func isObjectIDByte(r rune) bool {
	return r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// objectID parses the argument of a search key.
func (c *imapCommand) objectID() (string, error) {
	id := c.takeWhile(func(b byte) bool { return isObjectIDByte(rune(b)) })
	if id == "" || len(id) > 255 {
		return "", c.expected("an object id")
	}
	return id, nil
}

// emailID is EMAILID of a message (RFC 8474 §5.1): a digest of its text. So it is the same in every folder and needs
// nothing on disk besides the message.
func emailID(m *Message) (string, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, m.Section(0, m.Size())); err != nil {
		return "", fmt.Errorf("reading a message: %w", err)
	}
	return "M" + hex.EncodeToString(sum.Sum(nil)[:16]), nil
}

// derive reads a value from the message.
func derive(kind CacheKind, m *Message) (string, error) {
	if kind == cacheEmailID {
		return emailID(m)
	}
	return preview(m)
}

// lookUpDerived takes from the cache what a FETCH needs for a batch.
func (f *fetcher) lookUpDerived() {
	f.derived = map[CacheKind]map[imap.UID]string{}
	f.uids = f.uids[:0]
	for i := range f.msgs {
		f.uids = append(f.uids, f.msgs[i].UID)
	}
	for _, item := range f.q.items {
		if kind, ok := fetchDerived[item.kind]; ok {
			f.derived[kind] = cachedValues(f.folder, kind, f.uids)
		}
	}
}

// cachedValues copies values from the cache.
func cachedValues(folder *Folder, kind CacheKind, uids []imap.UID) map[imap.UID]string {
	values := make(map[imap.UID]string)
	folder.Cached(kind, uids, func(uid imap.UID, value []byte) {
		if len(value) > 0 && value[0] == derivedVersion {
			values[uid] = string(value[1:])
		}
	})
	return values
}

// deriveMissing reads what the cache did not have from the message in hand. What is asked for LAZY may stay unknown
// (RFC 8970 §4.1).
func (f *fetcher) deriveMissing(uid imap.UID) error {
	for _, item := range f.q.items {
		kind, ok := fetchDerived[item.kind]
		if _, known := f.derived[kind][uid]; !ok || known || item.lazy {
			continue
		}
		if f.file == nil {
			file, err := f.folder.OpenMessage(uid)
			if err != nil {
				return err
			}
			f.file = file
		}
		value, err := derive(kind, f.file)
		if err != nil {
			return err
		}
		f.derived[kind][uid] = value
		f.folder.PutCached(kind, uid, append([]byte{derivedVersion}, value...))
	}
	return nil
}

// objectItem appends an item of OBJECTID or PREVIEW.
func (f *fetcher) objectItem(b []byte, kind fetchKind, uid imap.UID) []byte {
	value, known := f.derived[fetchDerived[kind]][uid]
	switch {
	case kind == fetchEmailID:
		return append(append(append(b, "EMAILID ("...), value...), ')')
	case kind == fetchThreadID: // RFC 8474 §5.2: no threads are kept
		return append(b, "THREADID NIL"...)
	case !known:
		return append(b, "PREVIEW NIL"...)
	}
	return appendString(append(b, "PREVIEW "...), value, f.s.utf8)
}

// parsePreview reads PREVIEW's modifier, (LAZY).
func (c *imapCommand) parsePreview(q *fetchRequest) error {
	if q.has(fetchPreview) {
		return imapBad("PREVIEW is asked for twice")
	}
	q.add(fetchPreview, nil)
	start := c.pos
	if !c.accept(' ') || c.peek() != '(' {
		c.pos = start
		return nil
	}
	return c.list(func() error {
		if c.keyword() != "LAZY" {
			return c.expected("LAZY before this")
		}
		q.items[len(q.items)-1].lazy = true
		return nil
	})
}

// matchEmailID says whether the message in hand has the EMAILID.
func (m *matcher) matchEmailID(id string) bool {
	if have, ok := cachedValues(m.folder, cacheEmailID, []imap.UID{m.msg.UID})[m.msg.UID]; ok {
		return have == id
	}
	if !m.open() {
		return false
	}
	have, err := emailID(m.file)
	m.note(err)
	if err == nil {
		m.folder.PutCached(cacheEmailID, m.msg.UID, append([]byte{derivedVersion}, have...))
	}
	return err == nil && have == id
}

// preview gives the beginning of what a person reads in a message, on one line; "" where there is no text.
func preview(m *Message) (string, error) {
	root, err := parseMessage(m.Section(0, min(m.Size(), previewRead)))
	if err != nil {
		return "", fmt.Errorf("reading a message: %w", err)
	}
	part := findText(root, "plain")
	if part == nil {
		part = findText(root, "html")
	}
	if part == nil {
		return "", nil
	}
	body, ok := transferReader(strings.ToLower(part.Encoding), m.Section(part.BodyOff, part.BodyLen))
	if !ok {
		return "", nil
	}
	text, err := io.ReadAll(io.LimitReader(transform.NewReader(body, newDecoder(part.param("charset"))), previewText))
	if err != nil {
		return "", fmt.Errorf("decoding a message: %w", err)
	}
	if part.is("text", "html") {
		return previewLine(htmlText(string(text))), nil
	}
	return previewLine(withoutQuotes(string(text))), nil
}

// findText finds the first part of a type that is no attachment.
func findText(p *mimePart, subtype string) *mimePart {
	if p.is("text", subtype) && !strings.EqualFold(p.Disposition, "attachment") {
		return p
	}
	if !p.isMultipart() {
		return nil
	}
	for _, child := range p.Children {
		if found := findText(child, subtype); found != nil {
			return found
		}
	}
	return nil
}

// withoutQuotes leaves out what others have written before, unless that is all.
func withoutQuotes(text string) string {
	lines := strings.Split(text, "\n")
	own := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return strings.HasPrefix(line, ">") })
	if strings.TrimSpace(strings.Join(own, "")) == "" {
		return text
	}
	return strings.Join(own, "\n")
}

// htmlText leaves the markup of HTML out, and what of it is not shown.
func htmlText(text string) string {
	var out strings.Builder
	for text != "" {
		before, rest, found := strings.Cut(text, "<")
		out.WriteString(before)
		if !found {
			break
		}
		text = cutMarkup(rest)
		out.WriteByte(' ')
	}
	return html.UnescapeString(out.String())
}

// cutMarkup gives what follows a tag or comment, whose text begins behind "<".
func cutMarkup(text string) string {
	if strings.HasPrefix(text, "!--") {
		_, rest, _ := strings.Cut(text, "-->")
		return rest
	}
	for _, name := range []string{"style", "script", "title", "head"} {
		if len(text) < len(name) || !strings.EqualFold(text[:len(name)], name) {
			continue
		}
		if len(text) > len(name) && (text[len(name)] == '>' || text[len(name)] == ' ') {
			i := strings.Index(strings.ToLower(text), "</"+name)
			if i < 0 {
				return ""
			}
			text = text[i:]
		}
	}
	_, rest, _ := strings.Cut(text, ">")
	return rest
}

// previewLine makes one line of a text, its white space single blanks, as long as a preview may be.
func previewLine(text string) string {
	var out strings.Builder
	n, blank := 0, false
	for _, r := range text {
		switch {
		case unicode.IsSpace(r):
			blank = n > 0
			continue
		case !unicode.IsPrint(r): // what cannot be seen: zero width, controls, directions
			continue
		}
		if blank {
			out.WriteByte(' ')
			n, blank = n+1, false
		}
		if n >= previewRunes {
			break
		}
		out.WriteRune(r)
		n++
	}
	return strings.TrimSpace(out.String())
}
