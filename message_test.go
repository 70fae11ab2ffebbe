package main

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
)

// nastyMessages are broken and odd messages by name, with CRLF line ends.
func nastyMessages() map[string]string {
	crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
	mixed := "Content-Type: multipart/mixed; boundary=\"b\"\n\n"
	nest := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=\"b%d.\"\n\n--b%d.\n", i, i)
		}
		return b.String()
	}
	messages := map[string]string{
		"empty":                       "",
		"only a blank line":           "\n",
		"header without body":         "Subject: a\n",
		"header without line end":     "Subject: a",
		"header and blank line":       "Subject: a\n\n",
		"body without header":         "\nbody\n",
		"no header at all":            "just some text\nand more\n",
		"no final line end":           "Subject: a\n\nbody",
		"multipart without boundary":  "Content-Type: multipart/mixed\n\n--b\n\ntext\n--b--\n",
		"multipart with empty one":    "Content-Type: multipart/mixed; boundary=\"\"\n\n--\n\ntext\n----\n",
		"multipart without parts":     mixed + "nothing\n",
		"multipart closed at once":    mixed + "--b--\n",
		"multipart with no body":      "Content-Type: multipart/mixed; boundary=b\n",
		"no closing boundary":         mixed + "--b\n\none\n--b\n\ntwo\n",
		"no closing, no line end":     mixed + "--b\n\none\n--b\n\ntwo",
		"part without header":         mixed + "--b\n\none\n--b--\n",
		"part without blank line":     mixed + "--b\nContent-Type: text/html\n--b\n\ntwo\n--b--\n",
		"part with nothing":           mixed + "--b\n--b\n\n--b--\n",
		"boundary at the very end":    mixed + "--b\n\none\n--b",
		"open boundary at the end":    mixed + "--b\n\none\n--b\n",
		"preamble and epilogue":       mixed + "pre\n--b\n\none\n--b--\nepi\n--b\n\nnot a part\n",
		"boundary with space behind":  mixed + "--b  \n\none\n--b--  \n",
		"boundary with text behind":   mixed + "--b\n\none\n--bcd\n\ntwo\n--b-- x\n",
		"boundaries in header":        "Content-Type: multipart/mixed; boundary=\"b\"\n--b\n\none\n--b--\n",
		"prefix boundary":             "Content-Type: multipart/mixed; boundary=\"a\"\n\n--a\nContent-Type: multipart/alternative; boundary=\"ab\"\n\n--ab\n\none\n--ab\n\ntwo\n--ab--\n--a\n\nthree\n--a--\n",
		"prefix boundary turned":      "Content-Type: multipart/mixed; boundary=\"ab\"\n\n--ab\nContent-Type: multipart/alternative; boundary=\"a\"\n\n--a\n\none\n--a\n\ntwo\n--a--\n--ab\n\nthree\n--ab--\n",
		"same boundary inside":        mixed + "--b\n" + mixed + "--b\n\none\n--b--\n--b\n\ntwo\n--b--\n",
		"boundary with dashes":        "Content-Type: multipart/mixed; boundary=\"b--\"\n\n--b--\n\none\n--b----\n",
		"inner not closed":            mixed + "--b\nContent-Type: multipart/mixed; boundary=\"c\"\n\n--c\n\none\n--b\n\ntwo\n--b--\n",
		"digest":                      "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: inner\n\ntext\n--b\nContent-Type: text/plain\n\ntext\n--b--\n",
		"message inside":              "Content-Type: message/rfc822\n\nSubject: inner\nFrom: a@b\n\ntext\nmore\n",
		"message inside, empty":       "Content-Type: message/rfc822\n\n",
		"message inside, in base64":   "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogeAoK\n",
		"message inside a part":       mixed + "--b\nContent-Type: message/rfc822\n\nSubject: inner\n\ntext\n--b--\n",
		"message inside, header only": mixed + "--b\nContent-Type: message/rfc822\n\nSubject: inner\n--b--\n",
		"message with multipart":      mixed + "--b\nContent-Type: message/rfc822\n\nSubject: inner\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\none\n--c\n\ntwo\n--c--\nepi\n--b--\n",
		"external body":               "Content-Type: message/external-body; access-type=local-file; name=x\n\nContent-Type: image/gif\n\n",
		"partial":                     "Content-Type: message/partial; number=1; total=2; id=x\n\nSubject: a\n\nb\n",
		"8-bit header":                "Subject: gr\xfc\xdfe\nFrom: J\xf6rg <j@b>\n\nx\n",
		"UTF-8 header":                "Subject: grüße\nFrom: Jörg <j@b>\n\nx\n",
		"control bytes":               "Subject: a\x01b\tc\x7f\n\nx\n",
		"content type broken":         "Content-Type: text\n\nx\n",
		"content type broken 2":       "Content-Type: text/\n\nx\n",
		"content type broken 3":       "Content-Type: /plain\n\nx\n",
		"content type empty":          "Content-Type:\n\nx\n",
		"content type with comments":  "Content-Type: (a) text (b) / (c) html (d) ; (e) charset (f) = (g) utf-8 (h); x=y\n\nx\n",
		"content type unquoted":       "Content-Type: multipart/mixed; boundary=--=_a/b?c\n\n----=_a/b?c\n\none\n----=_a/b?c--\n",
		"content type two params":     "Content-Type: text/plain; charset=utf-8; charset=latin1\n\nx\n",
		"content type without ;":      "Content-Type: text/plain charset=utf-8\n\nx\n",
		"content type bad params":     "Content-Type: text/plain; ; x; =y; charset=; name=\"a;b\\\"c\"; z\n\nx\n",
		"content type open quote":     "Content-Type: text/plain; name=\"abc\n\nx\n",
		"content type folded quote":   "Content-Type: text/plain; name=\"abc\n def\"\n\nx\n",
		"content type 8-bit":          "Content-Type: text/plain; name=\"gr\xfc\xdfe\"; x=\xfc\n\nx\n",
		"content type twice":          "Content-Type: text/html\nContent-Type: text/enriched\n\nx\n",
		"text without charset":        "Content-Type: text/html\n\nx\n",
		"text with other param":       "Content-Type: text/html; format=flowed\n\nx\n",
		"disposition":                 "Content-Type: image/png\nContent-Disposition: attachment; filename=\"a b.png\"; size=5\n\nx\n",
		"disposition odd":             "Content-Type: image/png\nContent-Disposition: ; filename=x\n\nx\n",
		"disposition empty":           "Content-Disposition:\n\nx\n",
		"extensions":                  "Content-Type: text/plain\nContent-MD5: abc=\nContent-Language: en, de-AT (x), fr\nContent-Location: http://x/y z\nContent-ID: <a@b>\nContent-Description: some  thing\n\nx\n",
		"extensions empty":            "Content-Type: text/plain\nContent-MD5:\nContent-Language:\nContent-Location:\nContent-ID:\nContent-Description:\nContent-Transfer-Encoding:\n\nx\n",
		"encoding odd":                "Content-Transfer-Encoding: 8BIT (x) y\n\nx\n",
		"encoding folded":             "Content-Transfer-Encoding:\n base64\n\neA==\n",
		"fields twice":                "From: a@b\nFrom: c@d\nSubject: a\nSubject: b\nTo: e@f\nTo: g@h\nDate: x\nDate: y\nMessage-ID: <a>\nMessage-ID: <b>\n\nx\n",
		"fields empty":                "From:\nSubject:\nTo:\nDate:\nMessage-ID:\nIn-Reply-To:\nCc:\nReply-To:\n\nx\n",
		"folded subject":              "Subject: a\n b\n\tc\n   \nFrom: a@b\n\nx\n",
		"space before colon":          "Subject : a\nFrom\t: a@b\n\nx\n",
		"no space after colon":        "Subject:a\nFrom:a@b\n\nx\n",
		"starts folded":               " folded\nSubject: a\n\nx\n",
		"mbox line first":             "From a@b Thu Jan  1 00:00:00 1970\nSubject: a\n\nx\n",
		"mbox line quoted":            ">From a@b Thu Jan  1 00:00:00 1970\nSubject: a\n\nx\n",
		"100 nested":                  nest(99) + "\ntext\n",
		"long subject":                "Subject: " + strings.Repeat("a b ", 5000) + "\n\nx\n",
	}
	for i, list := range nastyAddresses() {
		messages["addresses "+fmt.Sprint(i)] = "From: x@y\nTo: " + list + "\n\nx\n"
	}
	for name, s := range messages {
		messages[name] = crlf(s)
	}
	return messages
}

// nastyAddresses are address lists.
func nastyAddresses() []string {
	return []string{
		"a@b", "<a@b>", "A <a@b>", "A B <a@b>, C <c@d>", "\"A, B\" <a@b>", "\"A \\\"x\\\" B\" <a@b>", "a@b (Real Name)",
		"(first) a@b", "a (x) @ (y) b (z)", "A (c) <a@b>", "A <a@b> (c)", "a@b (x (nested) y)", "a@b (x \\) y)", "a@b (x",
		"undisclosed-recipients:;", "undisclosed-recipients: ;", "g:a@b,C <c@d>;", "g:a@b;, e@f", "\"G H\": a@b;", "g: a@b", "g:", ":;",
		"g:h:a@b;;", "a@b;", "a@b; c@d", "root", "root, a@b", "Joe Bloggs", "<root>", "A <root>", "<>", "A <>", "A <@>", "<@b>", "<a@>", "a@", "@b",
		"<@x,@y:a@b>", "A <@x:a@b>", "<@x>", "\"a b\"@c", "\"a\"@c", "<\"a b\"@c>", "\"a\".b@c", "a.\"b c\"@d", "\"\"@b",
		"a . b @ c . d", "<a . b @ c . d>", "a@[1.2.3.4]", "<a@[1.2.3.4]>", "a@[1.2", "a@b c@d", "a b@c", "a@b <c@d>", "<a@b> <c@d>",
		"<<a@b>>", "A <a@b", "A a@b>", "A <a@b, c@d>", "\"A <a@b>", ",,a@b,,", ",", ";", "a,b,c", "J. Doe <a@b>", "J.Doe <a@b>", "a..b@c", ".a@b", "a.@b", "a@b.",
		"=?utf-8?q?a=2Cb?= <a@b>", "=?utf-8?q?a b?= <a@b>", "\xfc@\xfc", "\xfc <a@b>", "\"\xfc\" <a@b>", "ü <ü@ü>", "a@b\n c@d", "A\n B <a@b>", "\"A\n B\" <a@b>",
		"a@b, (comment only)", "'A' <a@b>", "A@B <a@b>", "A/B [C] <a@b>", "\\A <a@b>", "A <a@b>; B <c@d>", "MAILER-DAEMON <>", "a!b!c", "<a!b@c>", "a%b@c",
		"\"a\\b\" <c@d>", "() <a@b>", "\"\" <a@b>", "\" \" <a@b>", "\"A  B\" <a@b>", "A  B <a@b>", "\"A\" \"B\" <a@b>", "\"A\"\"B\" <a@b>", "A\"B\"C <a@b>",
	}
}

func TestNastyMessages(t *testing.T) {
	for name, text := range nastyMessages() {
		root, err := parseMessage(strings.NewReader(text))
		if err != nil {
			t.Fatal(name, err)
		}
		checkParts(t, name, root, int64(len(text)))
		again, _ := parseMessage(iotestOneByte{strings.NewReader(text)})
		a, b := appendBody(nil, root, true, true), appendBody(nil, again, true, true)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: two looks differ", name)
		}
	}
}

// iotestOneByte gives one byte at a time.
type iotestOneByte struct{ r io.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

// checkParts checks that the parts lie inside one another.
func checkParts(t testing.TB, name string, m *mimePart, end int64) {
	t.Helper()
	if m.HeaderLen < 0 || m.BodyLen < 0 || m.BodyLines < 0 || m.BodyOff < m.HeaderOff+m.HeaderLen || m.BodyOff+m.BodyLen > end {
		t.Fatalf("%s: part lies outside: %+v, end %d", name, m, end)
	}
	at := m.BodyOff
	for _, child := range m.Children {
		if child.HeaderOff < at {
			t.Fatalf("%s: parts overlap", name)
		}
		checkParts(t, name, child, m.BodyOff+m.BodyLen)
		at = child.BodyOff + child.BodyLen
	}
}

func countParts(m *mimePart) (parts, depth int) {
	parts = 1
	for _, child := range m.Children {
		n, d := countParts(child)
		parts += n
		depth = max(depth, d)
	}
	return parts, depth + 1
}

func TestPartLimits(t *testing.T) {
	var b strings.Builder
	for i := range maxParts {
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=\"b%d.\"\r\n\r\n--b%d.\r\n", i, i)
	}
	root, err := parseMessage(strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if parts, depth := countParts(root); parts != maxPartDepth || depth != maxPartDepth {
		t.Errorf("nested: %d parts, %d deep", parts, depth)
	}
	b.Reset()
	b.WriteString("Content-Type: multipart/mixed; boundary=b\r\n\r\n")
	for range 2 * maxParts {
		b.WriteString("--b\r\n\r\n")
	}
	root, err = parseMessage(strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if parts, _ := countParts(root); parts != maxParts {
		t.Errorf("flat: %d parts", parts)
	}
	checkParts(t, "flat", root, int64(b.Len()))
}

// repeatReader gives a text over and over, n bytes in all.
type repeatReader struct {
	text string
	n, i int64
}

func (r *repeatReader) Read(p []byte) (int, error) {
	if r.i >= r.n {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), r.n-r.i)]
	n := copy(p, r.text[r.i%int64(len(r.text)):])
	r.i += int64(n)
	return n, nil
}

func TestParseMemory(t *testing.T) {
	for name, r := range map[string]io.Reader{
		"long header line": io.MultiReader(strings.NewReader("To: "), &repeatReader{text: "abc@def.example,", n: 5 << 20}),
		"many fields":      &repeatReader{text: "To: abc@def.example\r\n", n: 5 << 20},
		"long body":        io.MultiReader(strings.NewReader("Subject: a\r\n\r\n"), &repeatReader{text: "some text\r\n", n: 50 << 20}),
		"long line":        io.MultiReader(strings.NewReader("Subject: a\r\n\r\n"), &repeatReader{text: "text", n: 50 << 20}),
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		root, err := parseMessage(r)
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatal(err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 10<<20 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
		if root.HeaderLen+root.BodyLen < 5<<20 {
			t.Errorf("%s: %d + %d bytes", name, root.HeaderLen, root.BodyLen)
		}
	}
}

// firstDifference cuts a string to the place where it differs from another.
func firstDifference(s, other string) string {
	i := 0
	for i < len(s) && i < len(other) && s[i] == other[i] {
		i++
	}
	return fmt.Sprintf("…%.160q", s[max(0, i-60):])
}
