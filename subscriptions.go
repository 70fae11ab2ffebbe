package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// The file "subscriptions" of a maildrop, as Dovecot writes it: version 2 is "V\t2", an empty line, then one mailbox a
// line with a tab between levels; version 1 is one name a line. Both are read, version 2 is written. Levels are modified
// UTF-7, and a level's own tabs and the like are escaped by \001.

const subscriptionsName = "subscriptions"

// parseSubscriptions reads either version. Lines that are no mailbox names are left out.
func parseSubscriptions(r io.Reader) []string {
	in := bufio.NewReaderSize(r, 4096)
	var names []string
	v2 := false
	for n := 0; ; n++ {
		line, err := readTextLine(in)
		switch {
		case n == 0 && strings.HasPrefix(line, "V\t"):
			v2 = true
		case line == "":
		case v2:
			levels := strings.Split(line, "\t")
			for i, l := range levels {
				levels[i] = decodeLevel(unescapeTabs.Replace(l))
			}
			names = append(names, canonicalName(strings.Join(levels, "/")))
		default:
			names = append(names, decodeFolder("."+strings.ReplaceAll(line, "/", ".")))
		}
		if err != nil {
			break
		}
	}
	sort.Strings(names)
	kept := names[:0]
	for i, name := range names {
		if i > 0 && names[i-1] == name {
			continue
		}
		if _, err := encodeFolder(name); err == nil {
			kept = append(kept, name)
		}
	}
	return kept
}

var (
	unescapeTabs = strings.NewReplacer("\x010", "\x00", "\x011", "\x01", "\x01t", "\t", "\x01r", "\r", "\x01n", "\n")
)

func formatSubscriptions(names []string) []byte {
	b := []byte("V\t2\n\n")
	for _, name := range names {
		for i, level := range strings.Split(name, "/") {
			if i > 0 {
				b = append(b, '\t')
			}
			b = append(b, encodeLevel(level)...)
		}
		b = append(b, '\n')
	}
	return b
}

func loadSubscriptions(dir string) ([]string, error) {
	f, err := os.Open(filepath.Join(dir, subscriptionsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the subscriptions: %w", err)
	}
	defer f.Close()
	return parseSubscriptions(f), nil
}

func saveSubscriptions(dir string, names []string) error {
	if err := writeFileAtomic(filepath.Join(dir, subscriptionsName), formatSubscriptions(names)); err != nil {
		return fmt.Errorf("writing the subscriptions: %w", err)
	}
	return nil
}
