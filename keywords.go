package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Keywords of a folder: dovecot-keywords holds "<0-25> <name>", the number being the letter a to z in file names. A
// folder may have up to maxKeywords; which messages have those past the 26th, for which there is no letter, is in a file of
// our own (keywords_more.go).

const keywordsName = "dovecot-keywords"

// keywordTable maps keyword names to bits. Bits are never given anew.
type keywordTable struct {
	names []string // index is the bit; "" is free
}

// parseKeywords reads dovecot-keywords; bad lines are left out and counted.
func parseKeywords(r io.Reader) (t keywordTable, bad int) {
	in := bufio.NewReaderSize(r, 4096)
	for {
		line, err := readTextLine(in)
		if line != "" {
			num, name, _ := strings.Cut(line, " ")
			bit, perr := strconv.Atoi(num)
			if perr != nil || bit < 0 || bit >= maxFileKeywords || !validKeyword(name) || t.lookup(name) >= 0 {
				bad++
			} else {
				for len(t.names) <= bit {
					t.names = append(t.names, "")
				}
				t.names[bit] = name
			}
		}
		if err != nil {
			return t, bad
		}
	}
}

// validKeyword is RFC 9051's flag-keyword: an atom.
func validKeyword(name string) bool {
	if name == "" || len(name) > 255 || name[0] == '\\' {
		return false
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`(){%*"\]`, c) >= 0 {
			return false
		}
	}
	return true
}

// lookup gives the bit of a name, in any case, or -1.
func (t *keywordTable) lookup(name string) int {
	for i, n := range t.names {
		if strings.EqualFold(n, name) && n != "" {
			return i
		}
	}
	return -1
}

// add gives the bit of a name, a new one if need be; -1 when the table is full. A new table is made, so that readers of
// the old one are not disturbed.
func (t *keywordTable) add(name string) (bit int, grown bool) {
	if bit = t.lookup(name); bit >= 0 {
		return bit, false
	}
	return t.addFrom(0, name)
}

// addMore is add for a keyword that is to have no letter.
func (t *keywordTable) addMore(name string) (bit int, grown bool) {
	if bit = t.lookup(name); bit >= 0 {
		return bit, false
	}
	return t.addFrom(maxFileKeywords, name)
}

// addFrom gives a new name the first free bit from a certain one on.
func (t *keywordTable) addFrom(first int, name string) (bit int, grown bool) {
	names := append([]string(nil), t.names...)
	for len(names) < first {
		names = append(names, "")
	}
	for bit = first; bit < len(names); bit++ {
		if names[bit] == "" {
			names[bit], t.names = name, names
			return bit, true
		}
	}
	if bit >= maxKeywords {
		return -1, false
	}
	t.names = append(names, name)
	return bit, true
}

// format writes the lines of the keywords that have letters.
func (t *keywordTable) format() []byte {
	var b []byte
	for i, n := range t.names {
		if i < maxFileKeywords && n != "" {
			b = fmt.Appendf(b, "%d %s\n", i, n)
		}
	}
	return b
}

// loadKeywords reads a folder's table; a missing file is an empty table.
func loadKeywords(dir string) (keywordTable, int, error) {
	f, err := os.Open(filepath.Join(dir, keywordsName))
	if errors.Is(err, fs.ErrNotExist) {
		return keywordTable{}, 0, nil
	}
	if err != nil {
		return keywordTable{}, 0, fmt.Errorf("reading the keywords: %w", err)
	}
	defer f.Close()
	t, bad := parseKeywords(f)
	return t, bad, nil
}
