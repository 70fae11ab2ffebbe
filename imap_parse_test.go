package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// commandOf gives a parser of what a client sends. What it is told goes nowhere.
func commandOf(text string) *imapCommand {
	r, w := bufio.NewReader(strings.NewReader(text)), bufio.NewWriter(io.Discard)
	in := &imapInput{reader: func() *bufio.Reader { return r }, writer: func() *bufio.Writer { return w }, maxLiterals: 1000, maxDrain: 1 << 20}
	_ = in.next() // an error shows in what follows
	return &imapCommand{in: in}
}

func TestIMAPStrings(t *testing.T) {
	for text, want := range map[string]string{
		"atom":                   "atom",
		"a]b+c.d/e&f~":           "a]b+c.d/e&f~",
		"NIL":                    "NIL",
		`""`:                     "",
		`"a b (c)"`:              "a b (c)",
		`"a \"q\" \\"`:           `a "q" \`,
		"{3}\r\na b":             "a b",
		"{3+}\r\n\r\n\"":         "\r\n\"",
		"{0}\r\n":                "",
		"\"\xc3\xbc\"":           "ü",
		"(":                      "BAD Expected a string or an atom at byte 1, not \"(\"",
		"{3":                     "BAD Expected a literal at byte 1, not \"{\"",
		"{3}x":                   "BAD Expected a literal at byte 1, not \"{\"",
		"{}":                     "BAD Expected a literal at byte 1, not \"{\"",
		"{+}":                    "BAD Expected a literal at byte 1, not \"{\"",
		"{-1}":                   "BAD Expected a literal at byte 1, not \"{\"",
		"{1001}":                 "NO [LIMIT] The literals of a command may have 1000 bytes in all",
		"~{3}":                   "~",
		`"a`:                     "BAD The quoted string at byte 1 is not closed",
		`"a\`:                    `BAD Expected '"' or '\' at byte 4, where the command ends`,
		"\xc3\xbc":               "BAD Expected a string or an atom at byte 1",
		"{99999999999999999999}": "NO [LIMIT] The literals of a command may have 1000 bytes in all",
	} {
		got, err := commandOf(text + "\r\n").astring()
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestIMAPSets(t *testing.T) {
	uids := []imap.UID{3, 5, 6, 9, 20}
	for text, want := range map[string][2]string{
		"1":             {"[3]", "[]"},
		"1:3":           {"[3 5 6]", "[3]"},
		"3:1":           {"[3 5 6]", "[3]"},
		"*":             {"[20]", "[20]"},
		"5,1,3:4,4":     {"[3 6 9 20]", "[3 5]"},
		"2:*":           {"[5 6 9 20]", "[3 5 6 9 20]"},
		"*:2":           {"[5 6 9 20]", "[3 5 6 9 20]"},
		"4:*,1,*":       {"[3 9 20]", "[5 6 9 20]"},
		"6":             {"BAD", "[6]"},
		"5:100":         {"BAD", "[5 6 9 20]"},
		"100:*":         {"BAD", "[20]"},
		"*:*":           {"[20]", "[20]"},
		"4294967295":    {"BAD", "[]"},
		"4294967296":    {"BAD", "BAD"},
		"0":             {"BAD", "BAD"},
		"1:":            {"BAD", "BAD"},
		"1,,2":          {"BAD", "BAD"},
		"":              {"BAD", "BAD"},
		"10:19,7:8,1:2": {"BAD", "[]"},
		"1:2,2:3,3:4":   {"[3 5 6 9]", "[3]"},
		"1:5,2:3":       {"[3 5 6 9 20]", "[3 5]"},
	} {
		for i, uid := range []bool{false, true} {
			set, err := commandOf(text + "\r\n").numSet(uid)
			got := "BAD"
			if err == nil && uid {
				got = fmt.Sprint(resolveUIDs(uids, set.(imap.UIDSet)))
			} else if err == nil {
				var found []imap.UID
				if found, err = resolveSeqs(uids, set.(imap.SeqSet)); err == nil {
					got = fmt.Sprint(found)
				}
			}
			if got != want[i] {
				t.Errorf("%q (uid %v) is %s, want %s", text, uid, got, want[i])
			}
		}
	}
	if found := resolveUIDs(nil, imap.UIDSet{{Start: 1, Stop: 0}}); found != nil {
		t.Errorf("an empty mailbox has %v", found)
	}
	if found, err := resolveSeqs(nil, imap.SeqSet{{Start: 1, Stop: 0}}); err == nil {
		t.Errorf("an empty mailbox has %v", found)
	}
}

func TestIMAPDates(t *testing.T) {
	want := time.Date(2026, 2, 1, 11, 30, 0, 0, time.UTC)
	for _, text := range []string{`" 1-Feb-2026 12:30:00 +0100"`, `"1-Feb-2026 12:30:00 +0100"`, `"01-Feb-2026 12:30:00 +0100"`,
		`"01-feb-2026 12:30:00 +0100"`, `"2026-02-01T12:30:00+01:00"`, `"Sun, 1 Feb 2026 12:30:00 +0100"`} {
		if got, err := commandOf(text + "\r\n").dateTime(); err != nil || !got.Equal(want) {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{`"31-Feb-2026 12:30:00 +0100"`, `""`, "1-Feb-2026", `"1-Feb-2026`} {
		if got, err := commandOf(text + "\r\n").dateTime(); err == nil {
			t.Errorf("%s is %v", text, got)
		}
	}
	for _, text := range []string{"1-Feb-2026", `"01-FEB-2026"`} {
		if got, err := commandOf(text + "\r\n").date(); err != nil || !got.Equal(time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
}

func TestIMAPMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "a/b/c", true}, {"%", "a/b", false}, {"%", "a", true}, {"%/%", "a/b", true}, {"%/%", "a/b/c", false},
		{"a*c", "a/b/c", true}, {"a%c", "a/b/c", false}, {"", "", true}, {"", "a", false}, {"a", "A", false},
		{"inbox", "INBOX", true}, {"InBox/sub", "INBOX/sub", true}, {"inbox/SUB", "INBOX/sub", false}, {"i*", "INBOX", true},
		{"inbox", "INBOXES", false}, {"*%*%x", "a/b/x", true}, {"%*%", "a/b/x", true}, {"**", "", true}, {"a%", "a", true},
		{"*" + strings.Repeat("a*", 5000), strings.Repeat("a", 200), false}, {strings.Repeat("*", 60000), "x", true},
		{strings.Repeat("*a", 100) + "b", strings.Repeat("a", 200), false},
	} {
		if got := matchMailbox(tt.pattern, tt.name); got != tt.want {
			t.Errorf("matchMailbox(%.20q, %.20q) = %v", tt.pattern, tt.name, got)
		}
	}
}

func TestIMAPWriter(t *testing.T) {
	for s, want := range map[string][2]string{
		"":        {`""`, `""`},
		`a "q" \`: {`"a \"q\" \\"`, `"a \"q\" \\"`},
		"ü":       {"{2}\r\nü", `"ü"`},
		"a\r\nb":  {"{4}\r\na\r\nb", "{4}\r\na\r\nb"},
		"a\x00b":  {"{3}\r\na?b", "{3}\r\na?b"},
		"\xff":    {"{1}\r\n\xff", "{1}\r\n\xff"},
	} {
		if got := string(appendString(nil, s, false)); got != want[0] {
			t.Errorf("%q is %q", s, got)
		}
		if got := string(appendString(nil, s, true)); got != want[1] {
			t.Errorf("%q is %q in UTF-8", s, got)
		}
	}
	if got := string(appendUIDs(nil, []imap.UID{1, 2, 3, 5, 9, 8, 10})); got != "1:3,5,9,8,10" {
		t.Errorf("UIDs are %s", got)
	}
	if got := string(appendMailbox(nil, "Entwürfe & mehr", false)); got != `"Entw&APw-rfe &- mehr"` {
		t.Errorf("the mailbox is %s", got)
	}
}

func TestIMAPLineEnds(t *testing.T) {
	const text, want = "a\r\nb\nc\rd\n\n\r\n\r\r\n", "a\r\nb\r\nc\rd\r\n\r\n\r\n\r\r\n"
	for size := 1; size <= len(text); size++ {
		var b bytes.Buffer
		w := &lineEnds{w: &b}
		for from := 0; from < len(text); from += size {
			if _, err := w.Write([]byte(text[from:min(from+size, len(text))])); err != nil {
				t.Fatal(err)
			}
		}
		if b.String() != want {
			t.Errorf("in pieces of %d: %q", size, b.String())
		}
	}
	if _, err := (&lineEnds{w: io.Discard, noNUL: true}).Write([]byte("a\x00")); !errors.Is(err, errNUL) {
		t.Errorf("NUL: %v", err)
	}
}

// parseCommand parses the command as its verb does.
func parseCommand(c *imapCommand) error {
	s := &imapSession{}
	if err := c.head(); err != nil {
		return err
	}
	var err error
	switch c.name {
	case "LIST":
		_, err = s.parseList(c)
	case "SELECT":
		_, _, _, err = s.parseSelect(c)
	case "STORE":
		_, err = parseStore(c)
	case "FETCH":
		_, err = c.parseFetch()
	case "CREATE":
		if _, err = s.mailboxArg(c); err == nil && c.accept(' ') {
			_, err = parseCreateParams(c)
		}
	case "STATUS":
		if _, err = s.mailboxOnly(c); err == nil {
			_, err = c.statusItems()
		}
	case "ID":
		err = c.list(func() error { _, _, err := c.nstring(); return err })
	default:
		for err == nil && c.accept(' ') {
			_, err = c.astring()
		}
	}
	return err
}

// FuzzIMAPCommand parses what a client may send: a line, a literal behind it, and the rest of the command. Whatever they
// are, the next command is the one that follows them, and no part of the literal.
func FuzzIMAPCommand(f *testing.F) {
	for _, line := range []string{"a LOGIN x ", `a LIST (SUBSCRIBED) "" (a b*) RETURN (STATUS (MESSAGES))`, "a STORE 1:*,4 (UNCHANGEDSINCE 5) +FLAGS.SILENT (\\Seen x) ",
		"a UID FETCH 1 (FLAGS BODY.PEEK[1.2.HEADER.FIELDS (A B)]<0.10>) (CHANGEDSINCE 4)", "a CREATE x (USE (\\Sent)) ", "a STATUS x (SIZE) ", "a ID (\"x\" NIL ", "a SELECT \"x", "", "+", "a UID "} {
		f.Add(line, "b NOOP\r\n", " x")
	}
	f.Fuzz(func(t *testing.T, line, literal, rest string) {
		clean := strings.NewReplacer("\n", "", "\r", "", "{", "(", "}", ")")
		line, rest = clean.Replace(line), clean.Replace(rest)
		c := commandOf(fmt.Sprintf("%s{%d+}\r\n%s%s\r\nsync NOOP\r\n", line, len(literal), literal, rest))
		_ = parseCommand(c)
		if err := c.in.drain(); err != nil {
			if len(literal) < 1<<19 {
				t.Fatalf("draining: %v", err)
			}
			return
		}
		if err := c.in.next(); err != nil || string(c.in.line) != "sync NOOP" {
			t.Errorf("the next command is %q, %v", c.in.line, err)
		}
	})
}
