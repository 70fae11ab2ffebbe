package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// textGatherer gathers the texts of a message: those of the head, and those of the body, with a zero byte behind each.
type textGatherer struct {
	texts [2]strings.Builder
	at    int
}

func (g *textGatherer) begin(body bool) {
	g.texts[g.at].WriteByte(0)
	g.at = 0
	if body {
		g.at = 1
	}
}

func (g *textGatherer) next(folded []byte) bool {
	g.texts[g.at].Write(folded)
	return true
}

// corpusMessage is a message of the real mail, open.
type corpusMessage struct {
	reader textReader
	root   treePart
}

func (m *corpusMessage) read(headers bool, v textVisitor) error {
	return m.reader.read(&m.root, headers, v)
}

// corpusMessages opens the real mail, or skips the test.
func corpusMessages(t testing.TB) (messages []*corpusMessage) {
	t.Helper()
	for _, path := range corpusFiles(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text = withCRLF(text)
		m := &corpusMessage{reader: textReader{file: &Message{text: text, size: int64(len(text))}}}
		root, err := parseMessage(m.reader.file.Section(0, m.reader.file.Size()))
		if err != nil {
			t.Fatal(err)
		}
		m.root, _ = parseTree(appendTree(nil, root, 0))
		messages = append(messages, m)
	}
	return messages
}

// feedHouse is a store with an INBOX whose text index is fed.
type feedHouse struct {
	t      *testing.T
	store  *Store
	drop   *Maildrop
	folder *Folder
	p      *Protocols
}

func startFeed(t *testing.T) *feedHouse {
	t.Helper()
	h := &feedHouse{t: t, store: testStore(t, t.TempDir())}
	h.p = &Protocols{text: newTextFeeder()}
	h.store.OnArrival(h.p.text.arrived)
	h.drop = testDrop(t, h.store)
	h.folder = openFolder(t, h.drop, "INBOX")
	t.Cleanup(func() {
		h.p.text.close()
		h.folder.Release()
		h.drop.Release()
		if err := h.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// await waits until a condition holds.
func (h *feedHouse) await(what string, done func() bool) {
	h.t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("%s: it does not happen", what)
		}
	}
}

// valuesOf counts the values of a kind.
func valuesOf(f *Folder, kind CacheKind) (n int) {
	f.EachCached(kind, func(imap.UID, []byte) { n++ })
	return n
}

// TestTextArrivals delivers, appends and copies messages: they are indexed without a search, and their structures are known.
// When there are enough of them, a block takes the place of their entries.
func TestTextArrivals(t *testing.T) {
	t.Parallel()
	h := startFeed(t)
	deliverText(t, h.store, "Subject: a\r\n\r\nfirst text\r\n", "ann@example.org")
	h.await("a delivery is indexed", func() bool { return countIndexed(h.folder) == 1 })
	uid := appendText(t, h.folder, "Subject: b\r\n\r\nsecond text\r\n")
	if _, err := h.folder.Copy([]imap.UID{uid}, h.folder); err != nil {
		t.Fatal(err)
	}
	h.await("an appended message and a copy are indexed", func() bool { return countIndexed(h.folder) == 3 })
	structures := 0
	h.folder.Cached(cacheStructure, h.folder.UIDs(), func(imap.UID, []byte) { structures++ })
	if structures != 3 {
		t.Errorf("%d structures are known", structures)
	}
	if n := valuesOf(h.folder, cacheText); n != 3 {
		t.Errorf("%d entries", n)
	}
	for i := range textBlockMessages + feedMerge {
		appendText(t, h.folder, fmt.Sprintf("Subject: %d\r\n\r\nmore text\r\n", i))
	}
	total := len(h.folder.UIDs())
	h.await("many messages are indexed", func() bool { return countIndexed(h.folder) == total && valuesOf(h.folder, cacheTextBlock) == 1 })
	h.await("their entries are gone", func() bool { return valuesOf(h.folder, cacheText) == total-textBlockMessages })
	h.drop.flush()
	if n := valuesOf(h.folder, cacheText); n != total-textBlockMessages || countIndexed(h.folder) != total {
		t.Errorf("written, there are %d entries, and %d messages are indexed", n, countIndexed(h.folder))
	}
}

// TestTextSearchFeeds searches a folder that is not indexed: what it reads is indexed then, in blocks, and the rest after.
// That the next search asks the index shows by a file that was changed behind its back.
func TestTextSearchFeeds(t *testing.T) {
	t.Parallel()
	h := startFeed(t)
	h.store.OnArrival(func(*Folder, []imap.UID) {})
	for i := range 2*textBlockMessages + 10 {
		appendText(t, h.folder, fmt.Sprintf("Subject: %d\r\n\r\nthe word%d\r\n", i, i%2))
	}
	total := len(h.folder.UIDs())
	c := fetchOnWith(t, h.folder, h.p)
	c.want("SEARCH RETURN (COUNT) BODY word0 BODY the", fmt.Sprintf(`* ESEARCH (TAG "t1") COUNT %d`, total/2))
	if n := countIndexed(h.folder); n != total {
		t.Fatalf("%d of %d messages are indexed", n, total)
	}
	if blocks, entries := valuesOf(h.folder, cacheTextBlock), valuesOf(h.folder, cacheText); blocks != 2 || entries != 10 {
		t.Errorf("%d blocks, %d entries", blocks, entries)
	}
	rewriteMessage(t, h.folder, 1, "the word0", "one word9")
	c.want("SEARCH RETURN (MIN) BODY the", `* ESEARCH (TAG "t2") MIN 1`)
	c.want("SEARCH 1:20 BODY word9", "* SEARCH 1") // few are read
	rewriteMessage(t, h.folder, 1, "one word9", "something longer")
	c.send("FETCH 1 BODY.PEEK[]") // it is noticed here
	c.want("SEARCH BODY longer", "* SEARCH 1")
	c.want("SEARCH RETURN (MIN) BODY the", `* ESEARCH (TAG "t6") MIN 2`)
	c.want("SEARCH BODY longer", "* SEARCH 1")

	for i := range 40 {
		appendText(t, h.folder, fmt.Sprintf("Subject: %d\r\n\r\nthe last%d\r\n", i, i))
	}
	c.send("NOOP")
	c.send(fmt.Sprintf("SEARCH %d:* SUBJECT last", total+39)) // reads two
	c.send(fmt.Sprintf("SEARCH %d:* BODY last7", total+1-narrowLeast))
	h.await("the rest is indexed", func() bool { return countIndexed(h.folder) == total+40 })
}

// rewriteMessage changes a message's text behind the store's back.
func rewriteMessage(t *testing.T, f *Folder, uid imap.UID, from, to string) {
	t.Helper()
	msgs, err := f.Messages(nil, []imap.UID{uid}, true)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(f.path, msgs[0].subdir(), msgs[0].fileName())
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), from, to, 1)
	if changed == string(text) {
		t.Fatalf("%q is not in the message", from)
	}
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTextIndexOfFolders renames and deletes indexed folders, and empties one.
func TestTextIndexOfFolders(t *testing.T) {
	t.Parallel()
	h := startFeed(t)
	if err := h.drop.CreateFolder("Old", nil); err != nil {
		t.Fatal(err)
	}
	f := openFolder(t, h.drop, "Old")
	for i := range textBlockMessages + 50 {
		appendText(t, f, fmt.Sprintf("Subject: %d\r\n\r\ntext\r\n", i))
	}
	fillIndex(f)
	total := len(f.UIDs())
	h.drop.flush()
	if err := h.drop.RenameFolder("Old", "New"); err != nil {
		t.Fatal(err)
	}
	if n := countIndexed(f); n != total {
		t.Errorf("renamed, %d of %d messages are indexed", n, total)
	}
	if _, _, err := f.Expunge(f.UIDs()[:textBlockMessages-10], false); err != nil {
		t.Fatal(err)
	}
	h.drop.flush()
	blocks := valuesOf(f, cacheTextBlock)
	fillIndex(f)
	h.drop.flush()
	if n := valuesOf(f, cacheTextBlock); n >= blocks || countIndexed(f) != 60 {
		t.Errorf("%d blocks of %d are left of a folder that was emptied, %d messages are indexed", n, blocks, countIndexed(f))
	}
	f.Release()
	if err := h.drop.DeleteFolder("New"); err != nil {
		t.Fatal(err)
	}
	if f.Retain() {
		t.Error("a folder that was deleted can be retained")
	}
	fillIndex(f) // finds nothing to do
	if err := h.drop.CreateFolder("New", nil); err != nil {
		t.Fatal(err)
	}
	f = openFolder(t, h.drop, "New")
	defer f.Release()
	if valuesOf(f, cacheTextBlock)+valuesOf(f, cacheText) != 0 {
		t.Error("a folder has the index of another that had its name")
	}
}

// TestTextFeederEnds closes the feeder in the midst of its work: it ends at once, and takes no more.
func TestTextFeederEnds(t *testing.T) {
	h := startFeed(t)
	h.store.OnArrival(func(*Folder, []imap.UID) {})
	for i := range 300 {
		appendText(t, h.folder, fmt.Sprintf("Subject: %d\r\n\r\ntext\r\n", i))
	}
	before := runtime.NumGoroutine()
	h.p.text.enter() // makes it slow
	h.p.text.fill(h.folder)
	h.p.text.fill(h.folder)
	time.Sleep(3 * feedPause)
	start := time.Now()
	h.p.text.close()
	if took := time.Since(start); took > time.Second {
		t.Errorf("it took %v to end", took)
	}
	if n := countIndexed(h.folder); n == 0 || n > 250 {
		t.Errorf("%d messages were indexed", n)
	}
	h.p.text.fill(h.folder)
	h.p.text.arrived(h.folder, []imap.UID{1})
	h.await("the goroutine is gone", func() bool { return runtime.NumGoroutine() <= before })
	var none *textFeeder // nothing of it is needed
	none.enter()
	none.leave()
	none.fill(h.folder)
	none.arrived(h.folder, nil)
	none.close()
}

// TestTextFeederIdles sees the goroutine end when there is nothing to read, and start again.
func TestTextFeederIdles(t *testing.T) {
	h := startFeed(t)
	for range 3 {
		appendText(t, h.folder, "Subject: x\r\n\r\ntext\r\n")
		h.await("the work is done", func() bool {
			h.p.text.mu.Lock()
			defer h.p.text.mu.Unlock()
			return !h.p.text.running && len(h.p.text.jobs) == 0
		})
	}
	if n := countIndexed(h.folder); n != 3 {
		t.Errorf("%d messages are indexed", n)
	}
}

// TestTextIndexLost loses the index under a folder in use: it grows back with the next searches.
func TestTextIndexLost(t *testing.T) {
	h := startFeed(t)
	for i := range 100 {
		appendText(t, h.folder, fmt.Sprintf("Subject: %d\r\n\r\nnumber%d\r\n", i, i))
	}
	c := fetchOnWith(t, h.folder, h.p)
	h.await("it is full", func() bool { return countIndexed(h.folder) == 100 })
	h.drop.index.removeFolder(h.folder.directory())
	if n := countIndexed(h.folder); n != 0 {
		t.Fatalf("%d messages are indexed", n)
	}
	c.want("SEARCH TEXT number17", "* SEARCH 18")
	if n := countIndexed(h.folder); n != 100 {
		t.Errorf("%d messages are indexed", n)
	}
}
