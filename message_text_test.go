package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDecodeHeaderText(t *testing.T) {
	for in, want := range map[string]string{
		"":                            "",
		"plain text":                  "plain text",
		"=?utf-8?q?J=C3=B6rg?=":       "Jörg",
		"=?UTF-8?B?SsO2cmc=?= Smith":  "Jörg Smith",
		"=?utf-8?q?a?= =?utf-8?q?b?=": "ab",
		"=?utf-8?q?a?=\t\r\n =?iso-8859-1?q?=E4?=": "aä",
		"=?utf-8?q?a?= x =?utf-8?q?b?=":            "a x b",
		"=?utf-8?q?=C3?= =?utf-8?q?=B6?=":          "ö",       // a character in two words
		"=?utf-8?b?SsO?= =?utf-8?b?2?=":            "J\u00c3", // bits are not put together over words
		"=?iso-2022-jp?B?GyRCNEE7ehsoQg==?=":       "漢字",
		"=?koi8-r?q?=ED=CF=D3=CB=D7=C1?=":          "Москва",
		"=?gb2312?b?1tDOxA==?=":                    "中文",
		"=?windows-1252?q?=80?=":                   "€",
		"=?us-ascii*en?q?hi?=":                     "hi",
		"=?utf-8?q?a_b c?=":                        "a b c", // raw spaces, which RFC 2047 forbids
		"=?utf-8?q?a":                              "=?utf-8?q?a",
		"=?utf-8?x?a?=":                            "=?utf-8?x?a?=",
		"=??q?a?=":                                 "=??q?a?=",
		"=?x-none?q?=E4?=":                         "ä",
		"J\xf6rg":                                  "Jörg",
		"Jörg":                                     "Jörg",
		"=?":                                       "=?",
		"=?utf-8?q??=":                             "",
		"=?utf-8?q?=zz=4?=":                        "=zz=4",
	} {
		if got := decodeHeaderText(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	long := strings.Repeat("=?utf-8?q?x", 100000)
	if got := decodeHeaderText(long); len(got) != len(long) {
		t.Errorf("%d bytes of %d", len(got), len(long))
	}
}

func TestDecodeParams(t *testing.T) {
	for in, want := range map[string]string{
		"a; name=b":                                              "",
		"a; name*=utf-8'en'%E2%82%AC%20b":                        "€ b ",
		"a; name*0*=utf-8''%E2%82; name*1*=%AC; x=y":             "€ ",
		"a; name*0=\"a b\"; name*1=c; filename*=iso-8859-1''%E4": "a bc ä ",
		"a; name*=%zz":                                           "%zz ",
	} {
		s := fieldScanner{s: in}
		if got := decodeParams(s.params()); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestTransferReader(t *testing.T) {
	for _, tc := range []struct{ encoding, in, want string }{
		{"7bit", "a=3D", "a=3D"},
		{"BASE64", "YWJj\r\nZGU=\r\n", "abcde"},
		{"base64", "YW!J*j", "abc"},
		{"base64", "YWI=YWI=", "abab"},
		{"base64", "YWJ", "ab"},
		{"base64", "Y", ""},
		{"quoted-printable", "a=3Db=3d", "a=b="},
		{"quoted-printable", "soft=\r\nbreak=  \r\n=\nend", "softbreakend"},
		{"quoted-printable", "trailing  \t\r\nx  ", "trailing\r\nx"},
		{"quoted-printable", "a  b\tc", "a  b\tc"},
		{"quoted-printable", "=zz=4=4z=", "=zz=4=4z"},
		{"quoted-printable", "= x", "= x"},
		{"quoted-printable", strings.Repeat(" ", 5000) + "x", strings.Repeat(" ", 5000) + "x"},
	} {
		r, ok := transferReader(tc.encoding, strings.NewReader(tc.in))
		if !ok {
			t.Fatal(tc.encoding)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != tc.want {
			t.Errorf("%s %q: got %q, %v", tc.encoding, tc.in, got, err)
		}
	}
	if _, ok := transferReader("x-uuencode", nil); ok {
		t.Error("x-uuencode is not known")
	}
}

func TestTextFinder(t *testing.T) {
	for _, tc := range []struct {
		needle, charset, text string
		want                  bool
	}{
		{"straße", "utf-8", "In der STRASSE", true},
		{"ÅNGSTRÖM", "utf-8", "ångström", true}, // composed and taken apart
		{"ﬁ", "utf-8", "file", true},
		{"σας", "utf-8", "ΣΑΣ", true},
		{"ж", "koi8-r", "\xf6", true},
		{"漢", "iso-2022-jp", "\x1b$B4A;z\x1b(B", true},
		{"é", "utf-16", "\x00\xe9", true},
		{"e", "utf-8", "é", true}, // taken apart, it begins with e
		{"é", "utf-8", "e", false},
		{"", "utf-8", "", true},
		{"ab", "x-none", "\xe4AB", true},
		{"ä", "x-none", "\xe4AB", true},
	} {
		for _, size := range []int{8, 64} { // pieces that end inside of characters
			if got := foundInStream(t, tc.needle, tc.text, tc.charset, size); got != tc.want {
				t.Errorf("%q in %q (%s): %v", tc.needle, tc.text, tc.charset, got)
			}
		}
	}
	text := strings.Repeat("ä", 10000) + "needle" + strings.Repeat("ö", 10000)
	for size := 5; size < 40; size++ {
		if !foundInStream(t, "äneedleö", text, "utf-8", size) {
			t.Errorf("not found in pieces of %d bytes", size)
		}
	}
}

// foundInStream says whether a text has the needle, read in pieces of size bytes.
func foundInStream(t *testing.T, needle, text, charset string, size int) bool {
	t.Helper()
	hit := textHit{finder: newTextFinder(needle)}
	hit.begin(true)
	var folder textFolder
	if err := folder.stream(strings.NewReader(text), charset, make([]byte, size), hit.next); err != nil {
		t.Fatal(err)
	}
	return hit.found
}

// TestAppendFolded compares with folding one character at a time.
func TestAppendFolded(t *testing.T) {
	for _, text := range []string{"", "a", "@AZ[`az{", "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abc", "1234567Ä90ABCDEFGHI", strings.Repeat("xY", 99) + "é"} {
		var want []byte
		for _, r := range text {
			want = appendFolded(want, []byte(string(r)))
		}
		for at := range len(text) + 1 {
			if !utf8.ValidString(text[:at]) {
				continue
			}
			if got := appendFolded(appendFolded(nil, []byte(text[:at])), []byte(text[at:])); !bytes.Equal(got, want) {
				t.Errorf("%q in two at %d: %q, want %q", text, at, got, want)
			}
		}
	}
	for c := range 128 {
		word := bytes.Repeat([]byte{byte(c)}, 8)
		if got := appendFolded(nil, word); !bytes.Equal(got, bytes.Repeat([]byte{lowerByte(byte(c))}, 8)) {
			t.Errorf("%q became %q", word, got)
		}
	}
}

func TestStructureOfRev2(t *testing.T) {
	text := "Content-Type: message/global\r\n\r\nSubject: innen\r\n\r\nx\r\n"
	root, err := parseMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c, ok := parseStructure(renderStructure(root))
	if !ok || !bytes.HasPrefix(c.body, []byte(`("message" "global" NIL NIL NIL "7bit" 21)`)) ||
		!bytes.HasPrefix(c.body2, []byte(`("message" "global" NIL NIL NIL "7bit" 21 (NIL "innen" `)) {
		t.Errorf("%s\n%s", c.body, c.body2)
	}
	for i := range renderStructure(root) { // damaged values are no values, and no crash
		if c, ok := parseStructure(renderStructure(root)[:i]); ok {
			parseTree(c.tree)
		}
	}
}

// renderStructure gives the cached value of one message.
func renderStructure(root *mimePart) []byte { return new(structureRenderer).render(root) }
