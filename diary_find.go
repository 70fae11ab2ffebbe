package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// Searching in the diary. All its files are read for a name that stands in few lines, and mail comes in at the same time, so
// they are read from the end, a piece at a time, and what is not looked for is not decoded.

const (
	diaryMost  = 500      // events that a search gives at most
	diaryPiece = 64 << 10 // bytes that are read at once
)

// DiarySearch says which events are looked for.
type DiarySearch struct {
	Text    string                   // that stands in an event, in any case of letters; "": anything
	Names   []string                 // of ASCII, of which one stands in each event that Keep keeps; empty: any. Spares it the others.
	Keep    func(e *DiaryEvent) bool // nil: all
	Most    int                      // events, at most diaryMost
	Mail    bool                     // of mail that went through
	Refused bool                     // of what was refused
}

// Find gives the events that are looked for, the last first. more says that there are others.
func (d *Diary) Find(s DiarySearch) (found []DiaryEvent, more bool, err error) {
	d.disk.Lock()
	d.flushLocked()
	d.disk.Unlock()
	d.disk.RLock()
	defer d.disk.RUnlock()
	s.Most = min(s.Most, diaryMost)
	seek := newDiarySeeker(&s)
	for i, file := range []string{d.mailFile(), d.refusedFile()} {
		if i == 0 && !s.Mail || i == 1 && !s.Refused {
			continue
		}
		var list []DiaryEvent
		for _, file := range []string{file, before(file)} {
			if list, err = seek.in(file, list); err != nil {
				return nil, false, err
			}
		}
		found = append(found, list...)
	}
	slices.SortStableFunc(found, func(a, b DiaryEvent) int { return b.Time.Compare(a.Time) })
	if more = len(found) > s.Most; more {
		found = found[:s.Most]
	}
	return found, more, nil
}

// diarySeeker is a search under way.
type diarySeeker struct {
	*DiarySearch
	text  []byte   // as it stands in a line, in small letters; nil where lines do not tell, for it is not ASCII
	names [][]byte // the same
	small []byte   // a piece in small letters
}

func newDiarySeeker(s *DiarySearch) *diarySeeker {
	seek := &diarySeeker{DiarySearch: s}
	if !strings.ContainsFunc(s.Text, func(r rune) bool { return r >= utf8.RuneSelf }) {
		seek.text = needleOf(s.Text)
	}
	for _, name := range s.Names {
		seek.names = append(seek.names, needleOf(name))
	}
	return seek
}

// needleOf is what stands in the line of each event that has a text.
func needleOf(text string) []byte {
	var out bytes.Buffer
	line := json.NewEncoder(&out)
	line.SetEscapeHTML(false)
	_ = line.Encode(strings.ToLower(text))
	return bytes.Trim(out.Bytes(), "\"\n")
}

// in adds what a file has, the last first, up to one more than is wanted.
func (s *diarySeeker) in(file string, found []DiaryEvent) ([]DiaryEvent, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return found, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var text []byte // its first line is not whole while there is something before it
	for end := st.Size(); end > 0 && len(found) <= s.Most; {
		n := min(end, diaryPiece)
		end -= n
		text = slices.Grow(text, int(n))[:len(text)+int(n)]
		copy(text[n:], text)
		if _, err := f.ReadAt(text[:n], end); err != nil {
			return nil, err
		}
		whole := 0
		if end > 0 {
			whole = bytes.IndexByte(text, '\n') + 1
		}
		if end == 0 || whole > 0 {
			found = s.among(text[whole:], found)
			text = text[:whole]
		}
	}
	return found, nil
}

// among adds what whole lines have, as in does.
func (s *diarySeeker) among(lines []byte, found []DiaryEvent) []DiaryEvent {
	s.small = appendSmall(s.small[:0], lines)
	if !s.mayBeIn(s.small) {
		return found
	}
	for len(lines) > 0 && len(found) <= s.Most {
		at := bytes.LastIndexByte(lines[:len(lines)-1], '\n') + 1
		if s.mayBeIn(s.small[at:len(lines)]) {
			var e DiaryEvent
			if json.Unmarshal(lines[at:], &e) == nil && e.says(s.Text) && (s.Keep == nil || s.Keep(&e)) {
				found = append(found, e)
			}
		}
		lines = lines[:at]
	}
	return found
}

// mayBeIn says whether lines in small letters can have what is looked for.
func (s *diarySeeker) mayBeIn(small []byte) bool {
	return bytes.Contains(small, s.text) &&
		(len(s.names) == 0 || slices.ContainsFunc(s.names, func(name []byte) bool { return bytes.Contains(small, name) }))
}

// appendSmall appends text, with small letters for the capital ones of ASCII: eight bytes at once, for it is done with all of the
// diary.
func appendSmall(out, text []byte) []byte {
	const each = 0x0101010101010101 // in each byte of a word
	out = append(out, text...)
	rest := out[len(out)-len(text):]
	for ; len(rest) >= 8; rest = rest[8:] {
		word := binary.LittleEndian.Uint64(rest)
		low := word & (0x7f * each)
		atLeastA := low + (0x80-'A')*each // the highest bit says it
		aboveZ := low + (0x7f-'Z')*each
		capital := (atLeastA ^ aboveZ) & ^word & (0x80 * each)
		binary.LittleEndian.PutUint64(rest, word|capital>>2) // 'a' is 'A' and 0x20
	}
	for i, c := range rest {
		if 'A' <= c && c <= 'Z' {
			rest[i] = c | 0x20
		}
	}
	return out
}

// says tells whether a text stands in what people see of an event.
func (e *DiaryEvent) says(text string) bool {
	if text == "" {
		return true
	}
	text = strings.ToLower(text)
	for _, field := range append([]string{e.ID, e.From, e.Account, e.Remote, e.Reason}, e.To...) {
		if strings.Contains(strings.ToLower(field), text) {
			return true
		}
	}
	return false
}
