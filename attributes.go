package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The file "dovecot-attributes" of a maildrop: the annotations of its mailboxes, as Dovecot writes them where it is told
// mail_attribute_dict = file:…/dovecot-attributes. A key and its value are a line each, special characters escaped by
// \001. A key is "shared/GUID/NAME", or "priv/GUID/NAME" for an annotation that only its owner sees; the GUID is that of
// dovecot-uidlist, so that an annotation follows its mailbox through all renames, and the private ones that somebody has
// put on the mailbox of another person lie in their own maildrop. Keys that are of another form are kept.
//
// What Dovecot cannot hold it loses when it writes the file: values with NUL bytes, which it cuts there.

const (
	attributesName = "dovecot-attributes"

	// maxAttributesFile is the size at which the file is not read any more, in bytes: escaped, all that we would ever
	// write (maxMetadataTotal) is less.
	maxAttributesFile = 4 << 20
)

// attributes are the values by key. One that others can see is never changed: edits work on a clone.
type attributes map[string]string

var escapeTabs = strings.NewReplacer("\x00", "\x010", "\x01", "\x011", "\t", "\x01t", "\r", "\x01r", "\n", "\x01n")

// parseAttributes reads the file. bad counts lines that make no pair, which are left out.
func parseAttributes(text []byte) (a attributes, bad int) {
	a = make(attributes)
	for len(text) > 0 {
		var key, value []byte
		var ok bool
		if key, text, ok = bytes.Cut(text, []byte{'\n'}); !ok || len(key) == 0 {
			bad++
			continue
		}
		if value, text, ok = bytes.Cut(text, []byte{'\n'}); !ok { // the file was cut off: half a value is none
			bad++
			continue
		}
		a[attributeText(key)] = attributeText(value)
	}
	return a, bad
}

// attributeText reads a line. A CR at its end is of a program that gave the file other line ends: one of the value is escaped.
func attributeText(line []byte) string {
	return unescapeTabs.Replace(string(bytes.TrimSuffix(line, []byte{'\r'})))
}

// format writes the file, sorted by key.
func (a attributes) format() []byte {
	keys := make([]string, 0, len(a))
	for key := range a {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	var b []byte
	for _, key := range keys {
		b = append(append(b, escapeTabs.Replace(key)...), '\n')
		b = append(append(b, escapeTabs.Replace(a[key])...), '\n')
	}
	return b
}

// size is the length of all keys and values in bytes.
func (a attributes) size() int {
	n := 0
	for key, value := range a {
		n += len(key) + len(value)
	}
	return n
}

// loadAttributes reads a maildrop's file; there need not be one.
func loadAttributes(dir string) (a attributes, bad int, err error) {
	file, err := os.Open(filepath.Join(dir, attributesName))
	if errors.Is(err, fs.ErrNotExist) {
		return attributes{}, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("reading the annotations: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxAttributesFile+1))
	if err == nil && len(text) > maxAttributesFile {
		err = fmt.Errorf("%s is larger than %d bytes", attributesName, maxAttributesFile)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("reading the annotations: %w", err)
	}
	a, bad = parseAttributes(text)
	return a, bad, nil
}

// saveAttributes replaces the file. One without annotations is removed.
func saveAttributes(dir string, a attributes) error {
	path := filepath.Join(dir, attributesName)
	var err error
	if len(a) > 0 {
		err = writeFileAtomic(path, a.format())
	} else if err = removeFile(path); err == nil {
		err = syncDir(dir)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("writing the annotations: %w", err)
	}
	return nil
}
