package main

import "testing"

func TestWholeFieldText(t *testing.T) {
	for raw, want := range map[string][2]string{
		"Subject: plain\r\n":                                {"Subject: plain", "plain"},
		"Subject :  folded\r\n\ttext \r\n":                  {"Subject :  folded\ttext", "folded\ttext"},
		"Subject: =?utf-8?q?J=C3=B6rg?=\r\n":                {"Subject: Jörg", "Jörg"},
		"x-=?utf-8?q?odd: a?= =?utf-8?q?J=C3=B6rg?=\r\n":    {"x-=?utf-8?q?odd: a?= Jörg", "a?= Jörg"}, // a name is never encoded
		"Content-Type: a/b; name*=utf-8''%E2%82%AC.txt\r\n": {"Content-Type: a/b; name*=utf-8''%E2%82%AC.txt €.txt ", "a/b; name*=utf-8''%E2%82%AC.txt"},
		"no colon\r\n":         {"no colon", "no colon"},
		"Subject: J\xf6rg\r\n": {"Subject: Jörg", "Jörg"},
		"Subject:\r\n":         {"Subject:", ""},
	} {
		if got := [2]string{string(wholeFieldText([]byte(raw))), string(fieldText([]byte(raw)))}; got != want {
			t.Errorf("%q: got %q, want %q", raw, got, want)
		}
	}
}
