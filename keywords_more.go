package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Keywords past the 26th have no letter in file names. Which messages have them is in a file beside the mail, a line for
// each change:
//
//	kw27 kw28 :1700000000.M1P2Q3.host,S=10,W=10
//
// The last line with a file's base says all such keywords of its message, none where nothing stands before the colon. The
// line is on disk before the change is answered. A folder that never had so many keywords has no such file.

const (
	moreKeywordsName = "more-keywords"
	// moreKeywordsSpare is how many lines may be in the file that say nothing any more, besides one for each that does.
	moreKeywordsSpare = 1000
)

// letterKeywords are the bits of the keywords that have letters.
const letterKeywords = 1<<maxFileKeywords - 1

// moreKeywords is what a folder's file says.
type moreKeywords struct {
	of    map[string]uint64 // by base: keywords by bit
	lines int               // in the file
	whole bool              // a line may be added: the file is there and ends with its last line
}

// appendMoreLine writes a line.
func appendMoreLine(b []byte, base string, keywords uint64, names []string) []byte {
	for i, name := range names {
		if keywords&(1<<i) != 0 && name != "" {
			b = append(append(b, name...), ' ')
		}
	}
	return append(append(append(b, ':'), base...), '\n')
}

// parseMoreLine reads a line without its end. A base has no colon, and a keyword no blank.
func parseMoreLine(line string) (base string, keywords []string, ok bool) {
	at := strings.LastIndexByte(line, ':')
	if at < 0 || at+1 == len(line) || at > 0 && line[at-1] != ' ' {
		return "", nil, false
	}
	keywords = strings.Fields(line[:at])
	for _, name := range keywords {
		if !validKeyword(name) {
			return "", nil, false
		}
	}
	return line[at+1:], keywords, true
}

// loadMoreKeywords reads a folder's file, and gives the keywords that are new to the table bits. there is false when there is
// none; bad counts lines that make no sense or name keywords that find no room.
func loadMoreKeywords(dir string, t *keywordTable) (more moreKeywords, bad int, there bool, err error) {
	file, err := os.Open(filepath.Join(dir, moreKeywordsName))
	if errors.Is(err, fs.ErrNotExist) {
		return more, 0, false, nil
	}
	if err != nil {
		return more, 0, false, fmt.Errorf("reading the keywords: %w", err)
	}
	defer file.Close()
	more.of = make(map[string]uint64)
	in := bufio.NewReaderSize(file, 64<<10)
	for {
		line, err := readTextLine(in)
		if err != nil && err != io.EOF {
			return more, bad, true, fmt.Errorf("reading the keywords: %w", err)
		}
		if err == io.EOF { // what has no end was not promised
			more.whole = line == "" && bad == 0
			return more, bad, true, nil
		}
		more.lines++
		base, names, ok := parseMoreLine(line)
		var keywords uint64
		for _, name := range names {
			bit, _ := t.addMore(name)
			if ok = ok && bit >= 0; bit >= 0 {
				keywords |= 1 << bit
			}
		}
		if !ok {
			bad++
		}
		if base != "" {
			more.set(base, keywords)
		}
	}
}

// set notes what a message has.
func (m *moreKeywords) set(base string, keywords uint64) {
	if keywords == 0 {
		delete(m.of, base)
		return
	}
	if m.of == nil {
		m.of = make(map[string]uint64)
	}
	m.of[base] = keywords
}

// moreChange says what keywords without letters a message is to have.
type moreChange struct {
	base     string
	keywords uint64
}

// save puts changes on disk and takes them over, or does neither.
func (m *moreKeywords) save(dir string, names []string, changes []moreChange) error {
	var b []byte
	for _, c := range changes {
		b = appendMoreLine(b, c.base, c.keywords, names)
	}
	err := fs.ErrNotExist
	if m.whole && m.lines+len(changes) <= 2*len(m.of)+moreKeywordsSpare {
		err = addSynced(filepath.Join(dir, moreKeywordsName), b)
		m.whole = err == nil
	}
	lines := m.lines + len(changes)
	if err != nil { // all anew
		var all []byte
		for base, keywords := range m.of {
			all = appendMoreLine(all, base, keywords, names)
		}
		if err := writeFileAtomic(filepath.Join(dir, moreKeywordsName), append(all, b...)); err != nil {
			return fmt.Errorf("writing the keywords: %w", err)
		}
		lines = len(m.of) + len(changes)
	}
	m.lines, m.whole = lines, true
	for _, c := range changes {
		m.set(c.base, c.keywords)
	}
	return nil
}

// addSynced adds to the end of a file that is there, on disk when it returns.
func addSynced(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err = file.Write(data); err == nil {
		err = file.Sync()
	}
	return err
}
