package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// summarised makes the entry of a message with texts in its head and in its body, given in pieces of some bytes.
func summarised(s *textSummary, pieces int, head, body string) []byte {
	for i, text := range []string{head, body} {
		s.begin(i == 1)
		for len(text) > 0 {
			n := min(pieces, len(text))
			s.next([]byte(text[:n]))
			text = text[n:]
		}
	}
	return s.entry(int64(len(head) + len(body)))
}

func TestTextEntry(t *testing.T) {
	const head = "subject: hello world\x00from: ann@example.com"
	const body = "the invoice no. 4711 of 20261122 is a1b2c3, straßen über москва; über\r\nheading " +
		"pneumonoultramicroscopicsilicovolcanoconiosis"
	verdicts := map[string][3]textVerdict{ // in the head, in the body, in both
		"hello":       {textUnknown, textMissing, textFound},
		"ell":         {textUnknown, textMissing, textFound},
		"invoice":     {textMissing, textFound, textFound},
		"nvoic":       {textMissing, textFound, textFound},
		"invoices":    {textMissing, textMissing, textMissing},
		"4711":        {textMissing, textFound, textFound},
		"471":         {textMissing, textFound, textFound},
		"4712":        {textMissing, textMissing, textMissing},
		"20261122":    {textMissing, textUnknown, textUnknown},
		"a1b2":        {textMissing, textUnknown, textUnknown},
		"a1b2c4":      {textMissing, textMissing, textMissing},
		"москв":       {textMissing, textFound, textFound},
		"microscopic": {textMissing, textUnknown, textUnknown},
		"invoice no":  {textMissing, textUnknown, textUnknown},
		"nvoice no":   {textMissing, textUnknown, textUnknown},
		"invoic no":   {textMissing, textMissing, textMissing}, // no word ends so
		"no. 711":     {textMissing, textMissing, textMissing}, // no word begins so
		"no. 47":      {textUnknown, textUnknown, textUnknown}, // too short to tell
		"heading pneumonoultramicroscopicsilicovolcanoconiosis": {textMissing, textUnknown, textUnknown},
		"ann@example": {textUnknown, textMissing, textUnknown},
		"hello the":   {textMissing, textMissing, textMissing}, // one in each
	}
	for pieces := 1; pieces < 50; pieces += 7 {
		var s textSummary
		e, ok := parseTextEntry(summarised(&s, pieces, head, body))
		if !ok || e.size != int64(len(head)+len(body)) {
			t.Fatal(ok, e.size)
		}
		for needle, want := range verdicts {
			for i, places := range [...]textPlaces{inHead, inBody, inHead | inBody} {
				got := textUnknown
				if n, ok := newTextNeedle(places, []byte(needle)); ok {
					got = e.judge(&n)
				}
				if got != want[i] {
					t.Errorf("%q in places %d, pieces of %d: %d, want %d", needle, places, pieces, got, want[i])
				}
			}
		}
	}
	var s textSummary
	e, _ := parseTextEntry(summarised(&s, 99, "x-odd: value", ""))
	for name, want := range map[string]textVerdict{"x-odd": textUnknown, "x-none": textMissing, "dd": textUnknown} {
		n, _ := newTextNeedle(inHead, []byte("value"))
		n.nameField([]byte(name))
		if got := e.judge(&n); got != want {
			t.Errorf("field %s: %d, want %d", name, got, want)
		}
	}
}

// TestTextEntryLimits has more words than are kept: those beyond are no longer found, but never missing.
func TestTextEntryLimits(t *testing.T) {
	var body strings.Builder
	word := func(i int) string {
		return "w" + strings.Map(func(r rune) rune { return r - '0' + 'a' }, fmt.Sprintf("%05d", i))
	}
	for i := range textMaxWords + 500 {
		body.WriteString(word(i) + " ")
	}
	var s textSummary
	e, _ := parseTextEntry(summarised(&s, 1000, "", body.String()))
	for i, want := range map[int]textVerdict{0: textFound, textMaxWords - 1: textFound, textMaxWords: textUnknown, textMaxWords + 499: textUnknown} {
		n, _ := newTextNeedle(inBody, []byte(word(i)))
		if got := e.judge(&n); got != want {
			t.Errorf("word %d: %d, want %d", i, got, want)
		}
	}
	s.begin(true)
	s.next([]byte("left behind"))
	s.drop()
	if e, _ := parseTextEntry(s.entry(1)); len(e.words)+len(e.body)+len(e.head) != 0 {
		t.Errorf("%q is left of a message that was dropped", e.words)
	}
	needle := strings.Repeat("abc,", 1000)
	if n, _ := newTextNeedle(inBody, []byte(needle)); len(n.pieces) != textMaxPieces {
		t.Errorf("%d pieces", len(n.pieces))
	}
}

// randomEntries makes entries of texts from few words, so that there are words in one message, in some and in all.
func randomEntries(rnd *rand.Rand, n int) (entries [][]byte, words []string) {
	for i := range 400 {
		words = append(words, strings.Repeat(string(rune('a'+i%26)), 1+i%5)+string(rune('a'+i/26))+[]string{"", "x", "1", "é"}[i%4])
	}
	var s textSummary
	text := func() string {
		var b strings.Builder
		b.WriteString("common ")
		for range rnd.IntN(30) {
			b.WriteString(words[rnd.IntN(1+rnd.IntN(len(words)))] + " ")
		}
		return b.String()
	}
	for range n {
		entries = append(entries, summarised(&s, 100, text(), text()))
	}
	return entries, append(words, "common", "omm", "none")
}

// TestTextBlock compares what blocks tell with what the entries in them tell.
func TestTextBlock(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	for _, size := range []int{1, 2, 31, 33, textBlockMessages} {
		entries, words := randomEntries(rnd, size)
		var block textBlock
		for i, entry := range entries {
			if !block.add(imap.UID(3*i+5), entry) {
				t.Fatalf("entry %d of %d finds no room", i, size)
			}
		}
		if block.full() != (size == textBlockMessages) {
			t.Errorf("a block of %d: full %v", size, block.full())
		}
		value := block.value()
		var r textBlockReader
		if !r.open(value) || len(r.uids) != size {
			t.Fatalf("a block of %d cannot be read", size)
		}
		seen := map[textVerdict]int{}
		for _, word := range words {
			for places := inHead; places <= inHead|inBody; places++ {
				for _, needle := range []string{word, word + " common", "x " + word} {
					n, ok := newTextNeedle(places, []byte(needle))
					if !ok {
						continue
					}
					r.judge(&n, func(at int, got textVerdict) {
						e, _ := parseTextEntry(entries[at])
						seen[got]++
						if want := e.judge(&n); got != want || r.uids[at] != imap.UID(3*at+5) || r.entries[at].size != e.size {
							t.Fatalf("%d messages, number %d, %q in places %d: block %d, entry %d", size, at, needle, places, got, want)
						}
					})
				}
			}
		}
		if size > 2 && len(seen) != 3 {
			t.Errorf("verdicts %v", seen)
		}
		for n := range len(value) { // what is cut short is no block, and no crash
			if r.open(value[:n]) {
				t.Errorf("%d bytes of %d are a block", n, len(value))
			}
		}
	}
	entries, _ := randomEntries(rnd, textBlockMessages+1)
	var block textBlock
	if block.add(1, entries[0][1:]) || !block.add(2, entries[0]) || block.add(2, entries[1]) || block.add(1, entries[1]) {
		t.Error("a block takes what it should not")
	}
	for i, entry := range entries {
		if block.add(imap.UID(i+3), entry) != (i < textBlockMessages-1) {
			t.Fatalf("entry %d of a full block", i)
		}
	}
}

// FuzzTextValues reads any bytes as values of the text index.
func FuzzTextValues(f *testing.F) {
	entries, _ := randomEntries(rand.New(rand.NewPCG(1, 1)), 40)
	var block textBlock
	for i, entry := range entries {
		block.add(imap.UID(i+1), entry)
	}
	f.Add(entries[0], "common")
	f.Add(block.value(), "omm x")
	f.Fuzz(func(t *testing.T, value []byte, text string) {
		n, _ := newTextNeedle(inHead|inBody, []byte(text))
		if e, ok := parseTextEntry(value); ok {
			e.judge(&n)
			var b textBlock
			b.add(1, value)
			b.value()
		}
		var r textBlockReader
		if r.open(value) {
			visited := 0
			r.judge(&n, func(int, textVerdict) { visited++ })
			if visited != len(r.uids) {
				t.Errorf("%d of %d messages", visited, len(r.uids))
			}
		}
	})
}

// FuzzTextNeedle cuts a needle out of any text: the text's entry must not say that it is missing, and if it says that it
// is found, it is.
func FuzzTextNeedle(f *testing.F) {
	f.Add("The Invoice 4711 of a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6", 4, 20, 5)
	f.Add("日本語のとても長い文章です straße 𝒳", 3, 9, 1)
	f.Fuzz(func(t *testing.T, text string, from, to, pieces int) {
		folded := appendFolded(nil, []byte(text))
		if len(folded) == 0 || pieces < 1 {
			return
		}
		from, to = max(from, 0)%(len(folded)+1), max(to, 0)%(len(folded)+1)
		var s textSummary
		e, ok := parseTextEntry(summarised(&s, pieces, "", string(folded)))
		if !ok {
			t.Fatal("no entry")
		}
		for _, needle := range [][]byte{folded[min(from, to):max(from, to)], []byte("abc")} {
			n, ok := newTextNeedle(inBody, needle)
			if !ok {
				continue
			}
			if v, has := e.judge(&n), bytes.Contains(folded, needle); v == textMissing && has || v == textFound && !has {
				t.Fatalf("%q in %q: %d", needle, folded, v)
			}
		}
	})
}

// BenchmarkTextSummary makes entries and blocks of real mail: the time for a message, and what is kept of it.
func BenchmarkTextSummary(b *testing.B) {
	var texts [][2]string
	var g textGatherer
	for _, m := range corpusMessages(b) {
		g = textGatherer{}
		if err := m.read(true, &g); err != nil {
			b.Fatal(err)
		}
		texts = append(texts, [2]string{g.texts[0].String(), g.texts[1].String()})
	}
	var s textSummary
	b.ReportAllocs()
	n, entries, blocks := 0, 0, 0
	var block textBlock
	for b.Loop() {
		for i, text := range texts {
			entry := summarised(&s, 8<<10, text[0], text[1])
			entries += len(entry)
			block.add(imap.UID(i+1), entry)
			if block.full() || i == len(texts)-1 {
				blocks += len(block.value())
				block = textBlock{}
			}
		}
		n += len(texts)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/message")
	b.ReportMetric(float64(entries)/float64(n), "B/entry")
	b.ReportMetric(float64(blocks)/float64(n), "B/message")
}
