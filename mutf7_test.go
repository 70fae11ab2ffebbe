package main

import (
	"testing"
	"unicode/utf8"
)

func TestMUTF7(t *testing.T) {
	for utf, wire := range map[string]string{
		"":                 "",
		"INBOX":            "INBOX",
		"Entwürfe":         "Entw&APw-rfe",
		"A&B":              "A&-B",
		"&":                "&-",
		"台北/日本語":           "&U,BTFw-/&ZeVnLIqe-",
		"~peter/mail/台北":   "~peter/mail/&U,BTFw-",
		"😀":                "&2D3eAA-",
		"a\tb":             "a&AAk-b",
		"Отправленные 100": "&BB4EQgQ,BEAEMAQyBDsENQQ9BD0ESwQ1- 100",
	} {
		if got := encodeMUTF7(utf); got != wire {
			t.Errorf("encodeMUTF7(%q) = %q, want %q", utf, got, wire)
		}
		if got, err := decodeMUTF7(wire); err != nil || got != utf {
			t.Errorf("decodeMUTF7(%q) = %q, %v, want %q", wire, got, err, utf)
		}
	}
}

func TestMUTF7Refused(t *testing.T) {
	for _, wire := range []string{
		"&",            // never closed
		"a&U,BTFw",     // never closed
		"&U,BTF-",      // half a character
		"&U/BTFw-",     // the base64 of MIME
		"&U,BTFx-",     // bits left over
		"&AGE-",        // "a" needs no encoding
		"&ACY-",        // nor does "&"
		"&U,A-&UxdT-",  // two runs that should be one
		"&2D0-",        // half a surrogate pair
		"&3gDYPQ-",     // a pair the wrong way round
		"Entw\xc3\xbc", // 8-bit
		"a\x00",        // control characters
		"&!!!!-",       // not base64
	} {
		if got, err := decodeMUTF7(wire); err == nil {
			t.Errorf("decodeMUTF7(%q) = %q, want an error", wire, got)
		}
	}
}

func FuzzMUTF7(f *testing.F) {
	for _, s := range []string{"Entw&APw-rfe", "&-", "&U,BTFw-/&ZeVnLIqe-", "&2D3eAA-", "&", "Entwürfe & mehr"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if utf, err := decodeMUTF7(s); err == nil {
			if again := encodeMUTF7(utf); again != s {
				t.Errorf("%q decodes to %q, which encodes to %q", s, utf, again)
			}
		}
		if utf8.ValidString(s) {
			if again, err := decodeMUTF7(encodeMUTF7(s)); err != nil || again != s {
				t.Errorf("%q comes back as %q, %v", s, again, err)
			}
		}
	})
}
