package main

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"mime/quotedprintable"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
)

// narrowWords are what the texts of random messages are made of.
var narrowWords = []string{
	"invoice", "Invoice", "INVOICES", "straße", "STRASSE", "Grüße", "über", "ﬁnal", "final", "Москва", "москвы", "漢字", "日本語のとても長い文章です",
	"2026", "20261122", "4711", "a1b2c3", "x", "of", "the", "e-mail", "ann@example.com", "http://a.example/path?q=1&r=2", "café", "cafe\u0301",
	"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9w", "don't", "naïve", "Ωμέγα", "under_score", "ΣΑΣ", "σας", "--", "=?", "?=", "50%", "…",
	"pneumonoultramicroscopicsilicovolcanoconiosis", "Kelvin", "\u212aelvin", "ſhort", "Ｆｕｌｌ", "日本",
}

// narrowCharsets are the charsets of random messages, with what can be written in them.
var narrowCharsets = []string{"utf-8", "iso-8859-1", "koi8-r", "iso-2022-jp", "utf-16", "windows-1252", "us-ascii", "x-none"}

// narrowText gives some words with random separators.
func narrowText(rnd *rand.Rand, words int) string {
	var b strings.Builder
	for range words {
		b.WriteString(narrowWords[rnd.IntN(len(narrowWords))])
		b.WriteString([]string{" ", " ", " ", "", ", ", "\n", ".\n\n", "-", "\t"}[rnd.IntN(9)])
	}
	return b.String()
}

// encodedIn gives a text in a charset, as far as it can be written there.
func encodedIn(charset, text string) []byte {
	e, ok := lookUpCharset(charset)
	if !ok || e == nil {
		return []byte(text)
	}
	var out []byte
	encoder := e.NewEncoder()
	for _, r := range text { // one by one: what cannot be written is left out
		if b, err := encoder.Bytes([]byte(string(r))); err == nil {
			out = append(out, b...)
		}
	}
	return out
}

// randomPart gives a part with its header.
func randomPart(rnd *rand.Rand, depth int) string {
	if depth < 3 && rnd.IntN(4) == 0 {
		boundary := fmt.Sprintf("b%d.%d", depth, rnd.IntN(1000))
		var b strings.Builder
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=\"%s\"\n\npreamble %s\n", boundary, narrowText(rnd, 2))
		for range 1 + rnd.IntN(3) {
			fmt.Fprintf(&b, "--%s\n%s\n", boundary, randomPart(rnd, depth+1))
		}
		fmt.Fprintf(&b, "--%s--\nepilogue\n", boundary)
		return b.String()
	}
	if depth < 3 && rnd.IntN(8) == 0 {
		return "Content-Type: message/rfc822\n\n" + narrowMessage(rnd, depth+1)
	}
	charset := narrowCharsets[rnd.IntN(len(narrowCharsets))]
	text := encodedIn(charset, narrowText(rnd, rnd.IntN(60)))
	kind := []string{"text/plain", "text/plain", "text/html", "application/octet-stream"}[rnd.IntN(4)]
	head := fmt.Sprintf("Content-Type: %s; charset=%s; name*=utf-8''%%E2%%82%%AC%s.txt\n", kind, charset, narrowWords[0])
	switch rnd.IntN(3) {
	case 0:
		var lines strings.Builder
		for chunk := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(text)), 60+rnd.IntN(17)) {
			lines.Write(append(chunk, '\n'))
		}
		return head + "Content-Transfer-Encoding: base64\n\n" + lines.String()
	case 1:
		var b strings.Builder
		w := quotedprintable.NewWriter(&b)
		w.Write(text)
		w.Close()
		return head + "Content-Transfer-Encoding: quoted-printable\n\n" + strings.ReplaceAll(b.String(), "\r\n", "\n")
	}
	return head + "\n" + string(text)
}

// randomField gives a header field, encoded in one way or another, folded now and then.
func randomField(rnd *rand.Rand, name string) string {
	text := strings.ReplaceAll(narrowText(rnd, 1+rnd.IntN(6)), "\n", " ")
	switch rnd.IntN(4) {
	case 0:
		text = "=?utf-8?b?" + base64.StdEncoding.EncodeToString([]byte(text)) + "?= =?iso-8859-1?q?=E4_x?="
	case 1:
		text = strings.Replace(text, " ", "\n ", 1)
	case 2:
		text = "=?koi8-r?B?" + base64.StdEncoding.EncodeToString(encodedIn("koi8-r", text)) + "?=\n\t" + text
	}
	return name + ": " + text + "\n"
}

// narrowMessage gives a message.
func narrowMessage(rnd *rand.Rand, depth int) string {
	var b strings.Builder
	for _, name := range []string{"From", "To", "Subject", "X-Odd", "Message-ID", "x-=?utf-8?q?odd", "List-Id"} {
		if rnd.IntN(3) > 0 {
			b.WriteString(randomField(rnd, name))
		}
	}
	if rnd.IntN(20) == 0 { // too much for the cache
		b.WriteString("To: " + strings.Repeat("someone@example.com,\n ", 400) + "last@example.com\n")
	}
	if rnd.IntN(20) == 0 {
		return b.String() // no body
	}
	return b.String() + randomPart(rnd, depth)
}

// randomNeedle cuts a needle from a text that messages are made of.
func randomNeedle(rnd *rand.Rand) string {
	text := []rune(strings.ReplaceAll(narrowText(rnd, 1+rnd.IntN(4)), "\n", []string{" ", "\r\n"}[rnd.IntN(2)]))
	start := rnd.IntN(len(text))
	needle := string(text[start:min(len(text), start+1+rnd.IntN(25))])
	switch rnd.IntN(6) {
	case 0:
		needle = strings.ToUpper(needle)
	case 1:
		needle = strings.ToLower(needle)
	case 2:
		needle = strings.TrimSpace(needle)
	}
	return needle
}

// randomKey gives a search key about texts.
func randomKey(rnd *rand.Rand, depth int) string {
	if depth < 3 {
		switch rnd.IntN(8) {
		case 0:
			return "NOT " + randomKey(rnd, depth+1)
		case 1:
			return "OR " + randomKey(rnd, depth+1) + " " + randomKey(rnd, depth+1)
		case 2:
			return "(" + randomKey(rnd, depth+1) + " " + randomKey(rnd, depth+1) + ")"
		case 3:
			return "FUZZY " + randomKey(rnd, depth+1)
		}
	}
	needle := randomNeedle(rnd)
	literal := fmt.Sprintf("{%d+}\r\n%s", len(needle), needle)
	name := []string{"BODY", "BODY", "TEXT", "TEXT", "FROM", "SUBJECT", "HEADER X-Odd", "HEADER Content-Type", "HEADER Message-ID", "HEADER =?utf-8?q?x", "UNSEEN BODY"}[rnd.IntN(11)]
	if depth > 0 {
		name = strings.TrimPrefix(name, "UNSEEN ")
	}
	return name + " " + literal
}

// searchNumbers gives the results of a search.
func searchNumbers(c *fetchClient, query string) []string {
	c.t.Helper()
	lines, tagged := c.send("SEARCH " + query)
	if !strings.HasPrefix(tagged, "OK") || len(lines) != 1 {
		c.t.Fatalf("%q: %q %s", query, lines, tagged)
	}
	return strings.Fields(lines[0])[2:]
}

// searchUnindexed gives the results of a search that asks the index for nothing: it looks at few messages at a time.
func searchUnindexed(c *fetchClient, total int, query string) (found []string) {
	c.t.Helper()
	for start := 1; start <= total; start += narrowLeast - 1 {
		found = append(found, searchNumbers(c, fmt.Sprintf("%d:%d %s", start, min(start+narrowLeast-2, total), query))...)
	}
	return found
}

// fillIndex has all of a folder indexed.
func fillIndex(f *Folder) {
	w := feedWork{feeder: newTextFeeder()}
	w.do(f, &feedJob{all: true})
}

// countIndexed gives how many messages of a folder are indexed.
func countIndexed(f *Folder) (n int) {
	uids := f.UIDs()
	for at, size := range indexedSizes(f, uids) {
		msgs, err := f.Messages(nil, uids[at:at+1], true)
		if err == nil && size != 0 && size == uint32(msgs[0].Size)+1 {
			n++
		}
	}
	return n
}

// TestTextIndexModel compares searches with the text index with searches without, in random messages: while it is filled by
// searches, when it is full, after messages came and went, and when it has been written and read back.
func TestTextIndexModel(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s := strings.TrimSpace(narrowSeed); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	store := testStore(t, dir)
	drop := testDrop(t, store)
	folder := openFolder(t, drop, "INBOX")
	closed := false
	end := func() {
		if closed {
			return
		}
		closed = true
		folder.Release()
		drop.Release()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { end() })
	add := func(n int) {
		for range n {
			text := narrowMessage(rnd, 0)
			if rnd.IntN(3) > 0 {
				text = strings.ReplaceAll(text, "\n", "\r\n")
			}
			appendText(t, folder, text)
		}
	}
	add(330)
	feeder := newTextFeeder()
	defer feeder.close()
	compare := func(when string, queries int) {
		t.Helper()
		t.Run(when, func(t *testing.T) {
			c := fetchOnWith(t, folder, &Protocols{text: feeder})
			total := len(folder.UIDs())
			hits := 0
			for range queries {
				query := randomKey(rnd, 0)
				want := searchUnindexed(c, total, query)
				got := searchNumbers(c, query)
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d: SEARCH %q: with the index %v, without %v", seed, query, got, want)
				}
				hits += len(got)
			}
			if hits == 0 {
				t.Error("nothing was ever found")
			}
		})
	}
	compare("filling", 5)
	fillIndex(folder)
	if n := countIndexed(folder); n != 330 {
		t.Fatalf("%d of 330 messages are indexed", n)
	}
	compare("full", 60)
	var gone []imap.UID
	for _, uid := range folder.UIDs() {
		if rnd.IntN(3) == 0 {
			gone = append(gone, uid)
		}
	}
	if _, _, err := folder.Expunge(gone, false); err != nil {
		t.Fatal(err)
	}
	add(40)
	compare("after changes", 30)
	end()
	store = testStore(t, dir)
	drop = testDrop(t, store)
	folder = openFolder(t, drop, "INBOX")
	closed = false
	fillIndex(folder)
	if n := countIndexed(folder); n != len(folder.UIDs()) {
		t.Fatalf("%d of %d messages are indexed", n, len(folder.UIDs()))
	}
	compare("after a restart", 30)
}

// narrowSeed makes the test above repeat what it did with a seed.
const narrowSeed = ""

// TestTextWordsAreLetters keeps what the index counts on: a folded text is UTF-8, and no letter beyond ASCII has a byte that
// ends words.
func TestTextWordsAreLetters(t *testing.T) {
	for r := range rune(0x30000) {
		folded := appendFolded(nil, []byte(string(r)))
		if !utf8.Valid(folded) {
			t.Fatalf("%U is folded to %q", r, folded)
		}
	}
}

// TestTextIndexElsewhere searches indexed folders that are not selected, and looks again at some messages of one for the sake
// of a context: the index is asked about these.
func TestTextIndexElsewhere(t *testing.T) {
	t.Parallel()
	s := startIMAP(t)
	mustAdd(t, s.Accounts, "ann@home.lan", imapPassword)
	c := s.login(t, "ann@home.lan")
	c.ok(t, "CREATE Lists")
	for i := range 3 * narrowLeast {
		for _, folder := range []string{"INBOX", "Lists"} {
			text := fmt.Sprintf("Subject: %d\r\n\r\n%s%c\r\n", i, folder, 'a'+i%2)
			c.ok(t, fmt.Sprintf("APPEND %s {%d+}\r\n%s", folder, len(text), text))
		}
	}
	c.ok(t, "ESEARCH IN (mailboxes Lists) RETURN (COUNT) BODY none") // now it is indexed, whatever was before
	find := func() {
		t.Helper()
		lines := c.ok(t, "ESEARCH IN (mailboxes (INBOX Lists)) RETURN (MIN MAX COUNT) BODY listsb")
		if len(lines) != 2 || !strings.HasSuffix(lines[0], fmt.Sprintf(" UID MIN 2 MAX %d COUNT %d", 3*narrowLeast, 3*narrowLeast/2)) {
			t.Errorf("%q", lines)
		}
	}
	find()
	c.ok(t, "SELECT INBOX")
	find()
	c.ok(t, "SELECT Lists")
	find()
	c.ok(t, "SEARCH RETURN (UPDATE COUNT) UNFLAGGED BODY listsa")
	other := s.login(t, "ann@home.lan")
	other.ok(t, "SELECT Lists")
	other.ok(t, fmt.Sprintf("STORE 2:%d +FLAGS.SILENT (\\Answered)", 2*narrowLeast))
	for _, line := range c.ok(t, "NOOP") {
		if strings.Contains(line, "REMOVEFROM") || strings.Contains(line, "ADDTO") {
			t.Errorf("nothing was to change: %q", line)
		}
	}
	other.ok(t, fmt.Sprintf("STORE 2:%d +FLAGS.SILENT (\\Flagged)", 2*narrowLeast))
	c.ok(t, "NOOP")
	other.ok(t, fmt.Sprintf("STORE 2:%d -FLAGS.SILENT (\\Flagged)", 2*narrowLeast))
	var odd []string
	for i := 3; i <= 2*narrowLeast; i += 2 {
		odd = append(odd, strconv.Itoa(i))
	}
	lines := strings.Join(c.ok(t, "NOOP"), "\n")
	if !strings.Contains(lines, "ADDTO (0 "+strings.Join(odd, ",")+")") {
		t.Errorf("%s", lines)
	}
}
