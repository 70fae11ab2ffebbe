package main

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
)

func FuzzUIDList(f *testing.F) {
	f.Add("3 V1700000000 N12 Gabc\n1 S10 W12 :1700000000.M1P2.host,S=10,W=12\n2 :b:2,S\n")
	f.Add("1 1700000000 3\n1 name\n2 other\n")
	f.Add("3 V1 N4294967295 Gx M99999999999999999999 Zq\n4294967295 :x\n0 :y\n5 :../x\n")
	f.Fuzz(func(t *testing.T, text string) {
		h, entries, _, err := parseUIDList(strings.NewReader(text))
		for i, e := range entries {
			if e.uid == 0 || e.base == "" || strings.ContainsAny(e.base, "/\x00") || i > 0 && entries[i-1].uid >= e.uid {
				t.Fatalf("entry %d: %+v", i, e)
			}
		}
		if err != nil {
			return
		}
		again := append([]byte(nil), h.format()...)
		for _, e := range entries {
			again = appendUIDLine(again, e)
		}
		h2, entries2, damage, err := parseUIDList(bytes.NewReader(again))
		if err != nil || damage.lines != 0 || !slices.Equal(entries, entries2) || h2.validity != h.validity || h2.next != h.next {
			t.Fatalf("written and read again: %+v %+v %v %v", h2, entries2, damage, err)
		}
	})
}

func FuzzFolderName(f *testing.F) {
	for _, s := range []string{"INBOX", "inbox/x", "a.b/c", "Größe & mehr", "a:b*?", "~", "&", "x ", "\U0001f4e7/日本"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		dir, err := encodeFolder(name)
		decodeFolder("." + name) // must not panic
		if err != nil {
			return
		}
		if strings.ContainsAny(dir, "/\\:*?\"<>|\x00") || strings.HasPrefix(dir, "..") || len(dir) > maxDirName || dir != "." && dir[0] != '.' {
			t.Fatalf("%q became the directory %q", name, dir)
		}
		if back := decodeFolder(dir); back != canonicalName(name) {
			t.Fatalf("%q became %q and that %q", name, dir, back)
		}
	})
}

func FuzzStoreFiles(f *testing.F) {
	f.Add("V\t2\n\nINBOX\na\tb\n")
	f.Add("INBOX\nSent\na.b\n")
	f.Add("0 Work\n1 $Forwarded\n25 z\n26 no\n")
	f.Add("1700000000.M1P2Q3.host,S=10,W=12:2,FSab")
	f.Add("kw26 kw27 :1700000000.M1P2Q3.host,S=10,W=12")
	f.Fuzz(func(t *testing.T, text string) {
		names := parseSubscriptions(strings.NewReader(text))
		if again := parseSubscriptions(bytes.NewReader(formatSubscriptions(names))); !slices.Equal(again, names) {
			t.Fatalf("subscriptions %q became %q", names, again)
		}
		table, _ := parseKeywords(strings.NewReader(text))
		if again, bad := parseKeywords(bytes.NewReader(table.format())); bad != 0 || !slices.Equal(trimEmpty(again.names), trimEmpty(table.names)) {
			t.Fatalf("keywords %q became %q", table.names, again.names)
		}
		if of, words, ok := parseMoreLine(text); ok && !strings.Contains(of, "\n") {
			line := appendMoreLine(nil, of, 1<<min(len(words), 60)-1, words[:min(len(words), 60)])
			again, words2, ok := parseMoreLine(strings.TrimSuffix(string(line), "\n"))
			if !ok || again != of || !slices.Equal(words2, words[:min(len(words), 60)]) {
				t.Fatalf("keywords %q became %q", text, line)
			}
		}
		base, info := splitName(text)
		baseSizes(base)
		flags, letters, other := parseInfo(info)
		flags2, letters2, _ := parseInfo(formatInfo(flags, letters, other))
		if flags != flags2 || letters != letters2 {
			t.Fatalf("letters %q became %v %v", info, flags2, letters2)
		}
		io.Copy(io.Discard, newCRLFReader(strings.NewReader(text)))
	})
}

func trimEmpty(names []string) []string {
	for len(names) > 0 && names[len(names)-1] == "" {
		names = names[:len(names)-1]
	}
	return names
}
