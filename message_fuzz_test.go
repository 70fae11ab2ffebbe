package main

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzMessage parses any bytes as a message: the parts must lie inside one
// another, the wire form must be well-formed, and the cached form must come back.
func FuzzMessage(f *testing.F) {
	for _, text := range nastyMessages() {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		root, err := parseMessage(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if root.HeaderLen+root.BodyLen != int64(len(b)) {
			t.Fatalf("%d + %d bytes of %d", root.HeaderLen, root.BodyLen, len(b))
		}
		checkParts(t, "fuzz", root, int64(len(b)))
		value := renderStructure(root)
		c, ok := parseStructure(value)
		if !ok {
			t.Fatal("the cached value is damaged")
		}
		for _, wire := range [][]byte{c.envelope, c.body, c.structure, c.body2, c.struct2} {
			if len(wire) > 0 {
				checkWire(t, wire)
			}
		}
		tree, ok := parseTree(c.tree)
		if !ok {
			t.Fatal("the tree is damaged")
		}
		compareTree(t, root, &tree)
		again, err := parseMessage(iotestOneByte{bytes.NewReader(b)})
		if err != nil || !bytes.Equal(renderStructure(again), value) {
			t.Fatal("two looks differ")
		}
	})
}

// compareTree checks that a tree says the same as the parts that it was made of.
func compareTree(t *testing.T, m *mimePart, tree *treePart) {
	t.Helper()
	if m.HeaderOff != tree.headerOff || m.HeaderLen != tree.headerLen || m.BodyOff != tree.bodyOff() || m.BodyLen != tree.bodyLen ||
		m.isMultipart() != tree.multipart || len(m.Children) != len(tree.children) || m.holdsMessage() != tree.holdsMessage() {
		t.Fatalf("%+v became %+v", m, tree)
	}
	for i := range m.Children {
		compareTree(t, m.Children[i], &tree.children[i])
	}
}

// checkWire checks that the wire form is one parenthesised list of strings, NIL,
// numbers and lists, single spaces between them, as RFC 9051 §9 wants it.
func checkWire(t *testing.T, b []byte) {
	t.Helper()
	depth := 0
	last := byte(0) // what the last token ended with; 's' for a string
	for i := 0; i < len(b); {
		before := last
		last = b[i]
		switch c := b[i]; {
		case c == '(':
			depth++
			i++
		case c == ')':
			depth--
			i++
			if depth == 0 && i < len(b) || depth < 0 {
				t.Fatalf("text behind the list: %q", b)
			}
		case c == ' ':
			if i+1 == len(b) || b[i+1] == ' ' || b[i+1] == ')' || before == '(' {
				t.Fatalf("stray space at %d: %q", i, b)
			}
			i++
		case c == '"':
			for i++; ; i++ {
				if i >= len(b) || b[i] == 0 || b[i] == '\r' || b[i] == '\n' || b[i] >= 0x80 {
					t.Fatalf("bad quoted string at %d: %q", i, b)
				}
				if b[i] == '"' {
					break
				}
				if b[i] == '\\' {
					i++
				}
			}
			i++
			last = 's'
		case c == '{':
			lit, ok := literalTail(b[i : i+bytes.IndexByte(b[i:], '}')+1])
			i += bytes.IndexByte(b[i:], '\n') + 1
			if !ok || i+int(lit.size) > len(b) || bytes.IndexByte(b[i:i+int(lit.size)], 0) >= 0 {
				t.Fatalf("bad literal: %q", b)
			}
			i += int(lit.size)
			last = 's'
		case isDigit(c):
			i++
		case bytes.HasPrefix(b[i:], []byte("NIL")):
			i += 3
		default:
			t.Fatalf("unexpected byte at %d: %q", i, b)
		}
	}
	if depth != 0 {
		t.Fatalf("open list: %q", b)
	}
}

// FuzzHeader takes any bytes apart as a header block, which must lose nothing.
func FuzzHeader(f *testing.F) {
	for _, text := range nastyMessages() {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(b), 16)
		raw, err := readHeader(r, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(r)
		if !bytes.Equal(append(raw[:len(raw):len(raw)], rest...), b) {
			t.Fatal("bytes were lost")
		}
		var all []byte
		for _, h := range splitHeader(raw) {
			all = append(all, h.Raw...)
			if v := h.Value(); strings.Contains(v, "\n") {
				t.Fatalf("folded value %q", v)
			}
		}
		if blank := raw[len(all):]; !bytes.HasPrefix(raw, all) || len(blank) > 0 && !isBlankLine(blank) {
			t.Fatal("the fields are not the header")
		}
		fromAddresses(splitHeader(raw))
	})
}

// FuzzAddressList reads any text as an address list; what is an address must
// come back from its own text.
func FuzzAddressList(f *testing.F) {
	for _, list := range nastyAddresses() {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, s string) {
		open := false
		for _, m := range parseAddressList(s) {
			if m.Group == groupEnd && !open || m.Group == groupStart && open {
				t.Fatal("groups are not closed in order")
			}
			open = m.Group == groupStart || open && m.Group != groupEnd
			a, ok := m.Address()
			if !ok {
				continue
			}
			again, err := ParseAddress(a.String())
			if err != nil || again != a || again.Key() != a.Key() {
				t.Fatalf("%q became %q, %v", a, again, err)
			}
		}
		if open {
			t.Fatal("a group stays open")
		}
		checkWire(t, append(appendAddresses([]byte("("), s), ')'))
	})
}

// FuzzHeaderText decodes any text: the result must be UTF-8, and what has no
// encoded words and is UTF-8 must stay.
func FuzzHeaderText(f *testing.F) {
	for _, s := range []string{
		"=?utf-8?q?J=C3=B6rg?=", "=?utf-8?b?SsO2cmc=?= =?utf-8?b?SsO2cmc=?=", "=?iso-2022-jp?B?GyRCNEE7ehsoQg==?=", "=?x?y?z?=",
		"a =?utf-8?q?b?= c =?utf-8?q?d", "=?utf-8?q?=C3?= =?utf-8?q?=B6?=", "=?utf-16?b?AAA?=", "=?gb18030?b?hDGVM4QxlTM=?=", "=?hz-gb-2312?q?~{?=", "\xff=?",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text := decodeHeaderText(s)
		if !utf8.ValidString(text) {
			t.Fatalf("%q is not UTF-8", text)
		}
		if !strings.Contains(s, "=?") && utf8.ValidString(s) && text != s {
			t.Fatalf("%q became %q", s, text)
		}
		scanner := fieldScanner{s: s}
		if p := decodeParams(scanner.params()); !utf8.ValidString(p) {
			t.Fatalf("%q is not UTF-8", p)
		}
		finder := newTextFinder(text)
		if !finder.in([]byte("x"+strings.ToLower(text)+"y")) && !strings.ContainsFunc(text, func(r rune) bool { return r >= 0x80 }) {
			t.Fatalf("%q is not found in itself", text)
		}
	})
}

// FuzzTransferEncoding decodes any bytes, all at once and byte by byte.
func FuzzTransferEncoding(f *testing.F) {
	f.Add("base64", []byte("YWJj\r\nZGU=\r\nZg=="))
	f.Add("quoted-printable", []byte("a=3D=\r\nb =20 \t\r\n=C3=B6=\n=x=3"))
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		r, ok := transferReader(name, bytes.NewReader(b))
		if !ok {
			return
		}
		whole, err := io.ReadAll(r)
		if err != nil || len(whole) > len(b) {
			t.Fatalf("%d bytes became %d, %v", len(b), len(whole), err)
		}
		r, _ = transferReader(name, iotestOneByte{bytes.NewReader(b)})
		pieces, err := io.ReadAll(iotestOneByte{r})
		if err != nil || !bytes.Equal(whole, pieces) {
			t.Fatalf("%q and %q, %v", whole, pieces, err)
		}
	})
}

// FuzzSearch parses and runs any SEARCH on a small folder.
func FuzzSearch(f *testing.F) {
	for _, s := range []string{
		"ALL", "RETURN (MIN COUNT) CHARSET utf-8 OR NOT (SEEN 1:*) TEXT \"a\"", "HEADER a b UID 1:* MODSEQ 1", "SENTON 1-Jan-2000 LARGER 1 KEYWORD x $",
		"BODY {3+}\r\nabc", "RETURN (SAVE) 1", "RETURN () (ALL)",
	} {
		f.Add(s)
	}
	c := startFetch(f, "Subject: a\r\n\r\nabc\r\n", twoParts)
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, "}\r\n") || strings.Contains(s, "}\n") || strings.HasSuffix(strings.TrimRight(s, "\r"), "}") {
			return // literals wait for more
		}
		s, _, _ = strings.Cut(s, "\n")
		if len(s) > 60<<10 {
			return
		}
		c.t = t
		if _, tagged := c.send("SEARCH " + s); !strings.HasPrefix(tagged, "OK") && !strings.HasPrefix(tagged, "NO") && !strings.HasPrefix(tagged, "BAD") {
			t.Fatalf("SEARCH %q: %s", s, tagged)
		}
		c.send("NOOP") // many bad commands in a row end a session
	})
}

// FuzzFetch parses and runs any FETCH on a small folder.
func FuzzFetch(f *testing.F) {
	for _, s := range []string{
		"1 FULL", "1:* (UID FLAGS BODY.PEEK[1.2.HEADER.FIELDS (a b)]<1.2>)", "2 BINARY.SIZE[2]", "2 (BINARY.PEEK[2]<1.2> RFC822.TEXT)", "1:2 BODY[1.MIME] (CHANGEDSINCE 1)",
	} {
		f.Add(s)
	}
	c := startFetch(f, "Subject: a\r\n\r\nabc\r\n", twoParts)
	f.Fuzz(func(t *testing.T, s string) {
		s, _, _ = strings.Cut(s, "\n")
		if strings.Contains(s, "{") || len(s) > 60<<10 {
			return
		}
		c.t = t
		if _, tagged := c.send("FETCH " + s); !strings.HasPrefix(tagged, "OK") && !strings.HasPrefix(tagged, "NO") && !strings.HasPrefix(tagged, "BAD") {
			t.Fatalf("FETCH %q: %s", s, tagged)
		}
		c.send("NOOP")
	})
}
