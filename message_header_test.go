package main

import (
	"bufio"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestReadHeader(t *testing.T) {
	long := "X: " + strings.Repeat("a", 10000) + "\r\n"
	for _, tc := range []struct{ in, raw, rest string }{
		{"A: b\r\n\r\nbody", "A: b\r\n\r\n", "body"},
		{"A: b\n\nbody", "A: b\n\n", "body"},
		{"A: b", "A: b", ""},
		{"", "", ""},
		{"\r\nbody", "\r\n", "body"},
		{long + "\r\nx", long + "\r\n", "x"},
	} {
		r := bufio.NewReaderSize(strings.NewReader(tc.in), 16)
		raw, err := readHeader(r, 1<<20)
		if err != nil || string(raw) != tc.raw {
			t.Errorf("readHeader(%.20q) = %.20q, %v", tc.in, raw, err)
		}
		rest := make([]byte, 100)
		n, _ := r.Read(rest)
		if string(rest[:n]) != tc.rest {
			t.Errorf("readHeader(%.20q) left %q", tc.in, rest[:n])
		}
	}
	_, err := readHeader(bufio.NewReader(strings.NewReader(long)), 100)
	if !errors.Is(err, errHeaderTooLong) {
		t.Errorf("long header: %v", err)
	}
}

func TestSplitHeader(t *testing.T) {
	raw := "From: a@b\r\nSubject : folded\r\n  text\r\nno colon\r\nbcc: x@y,\r\n z@y\r\nEmpty:\r\n\r\n"
	fields := splitHeader([]byte(raw))
	var got []string
	for _, h := range fields {
		got = append(got, h.Name+"="+h.Value())
	}
	want := []string{"From=a@b", "Subject=folded  text", "=no colon", "bcc=x@y, z@y", "Empty="}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
	if !hasField(fields, "FROM") || hasField(fields, "Date") || countFields(fields, "from") != 1 {
		t.Error("looking names up")
	}
}

func TestFromAddresses(t *testing.T) {
	for _, tc := range []struct {
		raw  string
		want []Address
		ok   bool
	}{
		{"From: Ann <ann@a.example>\r\n\r\n", []Address{{"ann", "a.example"}}, true},
		{"FROM: a@b, g: c@d;\r\n", []Address{{"a", "b"}, {"c", "d"}}, true},
		{"To: a@b\r\n", nil, false},
		{"From: nobody\r\n", nil, false},
		{"From: <a@b> <c@d>\r\n", []Address{{"a", "b"}}, false},
		{"From: \"a b\"@c\r\n", []Address{{"a b", "c"}}, true},
	} {
		got, ok := fromAddresses(splitHeader([]byte(tc.raw)))
		if !reflect.DeepEqual(got, tc.want) || ok != tc.ok {
			t.Errorf("%q: %v %v", tc.raw, got, ok)
		}
	}
}

func TestParseAddressList(t *testing.T) {
	m := func(name, local, domain string) mailAddress {
		return mailAddress{Name: name, Local: local, Domain: domain}
	}
	start := func(name string) mailAddress { return mailAddress{Local: name, Group: groupStart} }
	end := mailAddress{Group: groupEnd}
	for in, want := range map[string][]mailAddress{
		"":                           nil,
		",, ,":                       nil,
		"a@b":                        {m("", "a", "b")},
		"a@b (Real (nested) Name)":   {m("Real (nested) Name", "a", "b")},
		"Ann B. <a@b>":               {m("Ann B.", "a", "b")},
		`"B, \"Ann\"" <a@b>, c@d`:    {m(`B, "Ann"`, "a", "b"), m("", "c", "d")},
		`"a b"@c`:                    {m("", "a b", "c")},
		"a . b @ c . d":              {m("", "a.b", "c.d")},
		"undisclosed-recipients:;":   {start("undisclosed-recipients"), end},
		"My Team: a@b, C <c@d>; e@f": {start("My Team"), m("", "a", "b"), m("C", "c", "d"), end, m("", "e", "f")},
		"g: a@b":                     {start("g"), m("", "a", "b"), end},
		"<@x,@y:a@b>":                {{Route: "@x,@y", Local: "a", Domain: "b"}},
		"a@b <a@b>":                  {m("a@b", "a", "b")},
		"root":                       {m("", "root", "")},
		"<>":                         {m("", "", "")},
		"a@[192.0.2.1]":              {m("", "a", "[192.0.2.1]")},
		"=?utf-8?q?J=C3=B6?= <j@b>":  {m("=?utf-8?q?J=C3=B6?=", "j", "b")},
		"J\xf6rg <j@b>":              {m("J\xf6rg", "j", "b")},
		"Ann\r\n\tB <a@b>":           {m("Ann B", "a", "b")},
		"(c) a@b":                    {m("c", "a", "b")},
		"Ann <a@b":                   {{Name: "Ann", Local: "a", Domain: "b", Broken: true}},
		"Ann <a@b, c@d":              {{Name: "Ann", Local: "a", Domain: "b", Broken: true}, m("", "c", "d")},
		"Ann <a@b> <c@d>":            {{Name: "Ann", Local: "a", Domain: "b", Broken: true}},
		"<root>":                     {m("", "root", "")},
		"A <root> b, c@d":            {{Name: "A", Local: "root", Broken: true}, m("", "c", "d")},
		"<a@b >":                     {m("", "a", "b")},
	} {
		if got := parseAddressList(in); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v", in, got)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for in, key := range map[string]string{
		"Ann@Example.ORG":         "ann@example.org",
		`"Ann"@x`:                 "ann@x",
		`"a b"@x`:                 `"a b"@x`,
		`"a\"b"@x`:                `"a\"b"@x`,
		"a@[192.0.2.1]":           "a@[192.0.2.1]",
		"a@[IPv6:2001:DB8::0:1]":  "a@[ipv6:2001:db8::1]",
		"a@BÜCHER.example":        "a@xn--bcher-kva.example",
		"a@xn--bcher-kva.Example": "a@xn--bcher-kva.example",
		"JO\u0308@x":              "jö@x",
		"a@my_pc.local":           "a@my_pc.local",
	} {
		a, err := ParseAddress(in)
		if err != nil || a.Key() != key {
			t.Errorf("%q: %q, %v", in, a.Key(), err)
		}
		again, err := ParseAddress(a.String())
		if err != nil || again != a {
			t.Errorf("%q does not come back: %q, %v", in, again, err)
		}
	}
	for _, in := range []string{
		"", "@", "a@", "@b", "a", "a b@c", "a@b c", "a\x00@b", "\"a\nb\"@c", "a@-b", "a@b..c", "a@b.", "a@[1.2.3]",
		"a@[nonsense]", `"a@b`, `"a\"@b`, `""@b`, "a\xff@b", strings.Repeat("a", 253) + "@b", "a@" + strings.Repeat("b", 64),
		"a@" + strings.Repeat("bb.", 90) + "c", "a,b@c", "<a@b>",
	} {
		if a, err := ParseAddress(in); !errors.Is(err, ErrBadAddress) {
			t.Errorf("%q: %v, %v", in, a, err)
		}
	}
}
