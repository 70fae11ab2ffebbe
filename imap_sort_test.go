package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// RFC 5256 §2.1
func TestBaseSubject(t *testing.T) {
	for subject, want := range map[string]string{
		"plan":                          "plan",
		"Re: plan":                      "plan +",
		"RE : re: Fwd: FW:plan":         "plan +",
		"re[2]: plan":                   "plan +",
		"[list] plan":                   "plan",
		"[a] [b] plan":                  "plan",
		"Re: [list] re: plan (fwd)":     "plan +",
		"[list] Re: plan":               "plan +",
		"[only]":                        "[only]",
		"[a] [only]":                    "[only]",
		"Re: [only]":                    "[only] +",
		"[fwd: plan]":                   "plan +",
		"[Fwd: Re: [x] plan (fwd)] ":    "plan +",
		"plan (fwd) (FWD) ":             "plan +",
		"re plan":                       "re plan",
		"[unclosed plan":                "[unclosed plan",
		"[[nested] plan":                "[[nested] plan",
		"Re:":                           " +",
		"":                              "",
		"=?utf-8?q?Re=3A?=\r\n\t  plan": "plan +",
		"two   spaces\tand tab":         "two spaces and tab",
		"[fwd:]":                        " +",
		"Aw: plan":                      "Aw: plan",
	} {
		base, reply := baseSubject(decodedSubject([]byte(" " + subject)))
		if reply {
			base += " +"
		}
		if base != want {
			t.Errorf("%q: %q, want %q", subject, base, want)
		}
	}
}

func FuzzBaseSubject(f *testing.F) {
	f.Add("Re: [x] [fwd: re: y (fwd)]")
	f.Fuzz(func(t *testing.T, subject string) {
		base, _ := baseSubject(subject)
		if again, _ := baseSubject(base); again != base {
			t.Errorf("%q: %q, and again %q", subject, base, again)
		}
	})
}

func TestSentDate(t *testing.T) {
	received := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	for text, want := range map[string]string{
		"Thu, 22 Aug 2002 23:30:00 -0700":      "2002-08-23T06:30:00Z",
		"22 Aug 2002 23:30 +0130":              "2002-08-22T22:00:00Z",
		"Thu, 22 Aug 02 23:30:00 EST (winter)": "2002-08-23T04:30:00Z",
		"22 Aug 2002 23:30:00":                 "2002-08-22T23:30:00Z",
		"22 Aug 2002 23:30:00 nowhere":         "2002-08-22T23:30:00Z",
		"22 Aug 2002 24:30:00 +0100":           "2002-08-22T00:00:00Z",
		"22 Aug 2002":                          "2002-08-22T00:00:00Z",
		"yesterday":                            "2001-02-03T04:05:06Z",
		"":                                     "2001-02-03T04:05:06Z",
	} {
		got := time.Unix(sentDate(&Msg{Date: received.Unix()}, []byte(text)), 0).UTC().Format(time.RFC3339)
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// RFC 5051, i;unicode-casemap
func TestCollated(t *testing.T) {
	for _, same := range [][2]string{{"abc", "ABC"}, {"été", "E\u0301TE\u0301"}, {"ﬁ", "FI"}, {"Ａ", "a"}, {"ǆ", "D\u017e"}, {"ж", "Ж"}} {
		if a, b := collated(same[0]), collated(same[1]); !strings.EqualFold(a, b) {
			t.Errorf("%q and %q differ: %q, %q", same[0], same[1], a, b)
		}
	}
	if collated("a") > collated("_") {
		t.Error("letters come behind the underscore")
	}
}

// threadedText gives a message that threads.
func threadedText(n int, subject, references string) string {
	s := fmt.Sprintf("Message-ID: <%d@x>\r\nDate: 1 Jan 2020 00:%02d:%02d +0000\r\n", n, n/60%60, n%60)
	if subject != "" {
		s += "Subject: " + subject + "\r\n"
	}
	if references != "" {
		s += "References: " + references + "\r\n"
	}
	return s + "\r\nx\r\n"
}

// The steps of RFC 5256 §3, REFERENCES.
func TestThreadReferences(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		messages   []string
		want, refs string
	}{
		"missing message promotes its only child": {
			[]string{threadedText(1, "a", "<0@x>")}, "(1)", "(1)"},
		"missing message holds several together": {
			[]string{threadedText(1, "a", "<0@x>"), threadedText(2, "b", "<0@x>")}, "((1)(2))", "((1)(2))"},
		"missing in the middle": {
			[]string{threadedText(1, "a", ""), threadedText(2, "a", "<1@x> <9@x>"), threadedText(3, "a", "<1@x> <9@x>")}, "(1 (2)(3))", "(1 (2)(3))"},
		"chain out of order": {
			[]string{threadedText(1, "a", "<3@x> <2@x>"), threadedText(2, "a", "<3@x>"), threadedText(3, "a", "")}, "(3 2 1)", "(3 2 1)"},
		"loop": {
			[]string{threadedText(1, "a", "<2@x>"), threadedText(2, "b", "<1@x>")}, "(2 1)", "(2 1)"},
		"itself": {
			[]string{threadedText(1, "a", "<1@x>")}, "(1)", "(1)"},
		"own word about the parent wins": {
			[]string{threadedText(1, "a", ""), threadedText(3, "c", "<1@x> <2@x>"), threadedText(2, "b", "")}, "(1)(3 2)", "(1)(3 2)"},
		"the second of one id is another message": {
			[]string{threadedText(1, "a", ""), threadedText(2, "c", "<1@x>"), threadedText(1, "b", "")}, "(1 2)(3)", "(1 2)(3)"},
		"subjects merge": {
			[]string{threadedText(1, "Re: a", ""), threadedText(2, "a", ""), threadedText(3, "re: a", "")}, "(2 (1)(3))", "(1)(2)(3)"},
		"equals become siblings": {
			[]string{threadedText(1, "a", ""), threadedText(2, "a", ""), threadedText(3, "Re: a", "")}, "((1)(2)(3))", "(1)(2)(3)"},
		"no subjects stay apart": {
			[]string{threadedText(1, "", ""), threadedText(2, "", "")}, "(1)(2)", "(1)(2)"},
		"two dummies": {
			[]string{threadedText(1, "a", "<8@x>"), threadedText(2, "b", "<8@x>"), threadedText(3, "a", "<9@x>"), threadedText(4, "c", "<9@x>")},
			"((1)(2)(3)(4))", "((1)(2))((3)(4))"},
		"quoted and folded ids": {
			[]string{"Message-ID: <\"1\"@x>\r\nDate: 1 Jan 2020 00:00:01 +0000\r\nSubject: a\r\n\r\nx\r\n", threadedText(2, "b", "<none@x>\r\n <1@\r\n x>")}, "(1 2)", "(1 2)"},
		"siblings by date": {
			[]string{threadedText(5, "a", ""), threadedText(9, "a", "<5@x>"), threadedText(7, "a", "<5@x>"), threadedText(8, "a", "<5@x> <7@x>")},
			"(1 (3 4)(2))", "(1 (3 4)(2))"},
	} {
		t.Run(name, func(t *testing.T) {
			c := startFetch(t, test.messages...)
			for range 2 { // from the files, then from the cache
				for algorithm, want := range map[string]string{"REFERENCES": test.want, "REFS": test.refs} {
					if lines, tagged := c.send("THREAD " + algorithm + " UTF-8 ALL"); len(lines) != 1 || lines[0] != "* THREAD "+want {
						t.Errorf("%s: %q %s, want %s", algorithm, lines, tagged, want)
					}
				}
			}
		})
	}
}

// A header that the cache does not hold is read from the file.
func TestSortLargeHeaders(t *testing.T) {
	long := "To: " + strings.Repeat("somebody@example.org, ", 2000) + "x@example.org\r\n"
	c := startFetch(t, long+"Subject: b\r\n\r\n", long+"Subject: a\r\n\r\n", "Subject: aa\r\n\r\n")
	for range 2 {
		if lines, _ := c.send("SORT (SUBJECT) UTF-8 ALL"); len(lines) != 1 || lines[0] != "* SORT 2 3 1" {
			t.Errorf("%q", lines)
		}
	}
}

// BenchmarkSort is SORT and THREAD on 10,000 messages whose fields are cached.
func BenchmarkSort(b *testing.B) {
	var messages []string
	for i := range 10000 {
		references := ""
		if i%5 > 0 {
			references = fmt.Sprintf("<%d@x>", i-1)
		}
		messages = append(messages, fmt.Sprintf("From: p%d@example.org\r\n", i*7919%1000)+threadedText(i, fmt.Sprintf("Re: subject %d", i*7907%3000), references))
	}
	c := startFetch(b, messages...)
	for _, command := range []string{"SORT (SUBJECT DATE) UTF-8 ALL", "SORT (REVERSE DATE) UTF-8 ALL", "SORT (FROM) UTF-8 ALL",
		"THREAD REFERENCES UTF-8 ALL", "THREAD REFS UTF-8 ALL"} {
		c.send(command)
		c.folder.drop.flush()
		b.Run(strings.ReplaceAll(command, " ", "_"), func(b *testing.B) {
			for range b.N {
				if lines, tagged := c.send(command); len(lines) != 1 || len(lines[0]) < 40000 {
					b.Fatal(tagged)
				}
			}
		})
	}
}
