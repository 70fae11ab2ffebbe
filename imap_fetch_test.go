package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// fetchClient is the client's side of a session that has a folder open.
type fetchClient struct {
	t      testing.TB
	conn   net.Conn
	r      *bufio.Reader
	n      int
	folder *Folder
}

// startFetch starts a session on an INBOX with the messages, selected.
func startFetch(t testing.TB, messages ...string) *fetchClient {
	t.Helper()
	store := testStore(t, t.TempDir())
	drop := testDrop(t, store)
	folder := openFolder(t, drop, "INBOX")
	t.Cleanup(func() {
		folder.Release()
		drop.Release()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	var batch []AppendMessage
	for _, m := range messages {
		batch = append(batch, AppendMessage{In: receiveText(t, drop, m)})
	}
	if len(batch) > 0 {
		if _, err := folder.Append(batch); err != nil {
			t.Fatal(err)
		}
	}
	return fetchOn(t, folder)
}

// fetchOn starts a session on a folder.
func fetchOn(t testing.TB, folder *Folder) *fetchClient {
	t.Helper()
	return fetchOnWith(t, folder, &Protocols{})
}

// fetchOnWith starts a session of p on a folder.
func fetchOnWith(t testing.TB, folder *Folder, p *Protocols) *fetchClient {
	t.Helper()
	if p.Accounts == nil {
		p.Accounts = openTestAccounts(t, "")
	}
	if p.Store == nil {
		p.Store = folder.store
	}
	view, err := folder.NewView(false, nil)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	c := newConn(newConnEnv(connLimits{}, nil, nil, nil), theirs, "test", log)
	s := &imapSession{ctx: context.Background(), c: c, p: p, drop: folder.drop, view: view, rights: RightsAll}
	s.in = imapInput{reader: c.Reader, writer: c.Writer, maxLiterals: imapMaxLiterals, maxDrain: imapMaxDrain}
	s.idle.init(s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !s.done {
			s.command()
		}
		c.Writer().Flush()
		s.closeView()
		c.Close()
	}()
	t.Cleanup(func() { ours.Close(); <-done })
	return &fetchClient{t: t, conn: ours, r: bufio.NewReaderSize(ours, 64<<10), folder: folder}
}

// send sends a command and gives its untagged responses and the tagged one
// without its tag.
func (c *fetchClient) send(text string) (untagged []string, tagged string) {
	c.t.Helper()
	tagged = c.each(text, func(line string) { untagged = append(untagged, line) })
	return untagged, tagged
}

// each sends a command and visits its untagged responses.
func (c *fetchClient) each(text string, visit func(string)) string {
	c.t.Helper()
	c.n++
	tag := "t" + strconv.Itoa(c.n) + " "
	if _, err := io.WriteString(c.conn, tag+text+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
	for {
		line, err := readResponse(c.r)
		if err != nil {
			c.t.Fatal(text, ": ", err)
		}
		if rest, ok := strings.CutPrefix(line, tag); ok {
			return rest
		}
		visit(line)
	}
}

// readResponse reads one response with its literals.
func readResponse(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return b.String(), err
		}
		open := strings.LastIndexByte(line, '{')
		if open < 0 || !strings.HasSuffix(line, "}\r\n") {
			return strings.TrimSuffix(b.String(), "\r\n"), nil
		}
		n, err := strconv.Atoi(line[open+1 : len(line)-3])
		if err != nil {
			return strings.TrimSuffix(b.String(), "\r\n"), nil
		}
		if _, err := io.CopyN(&b, r, int64(n)); err != nil {
			return b.String(), err
		}
	}
}

// want checks the untagged responses to a command; its tagged one must be OK.
func (c *fetchClient) want(command string, want ...string) {
	c.t.Helper()
	got, tagged := c.send(command)
	if !strings.HasPrefix(tagged, "OK") {
		c.t.Errorf("%s: %s", command, tagged)
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		c.t.Errorf("%s\n got %q\nwant %q", command, got, want)
	}
}

const twoParts = "From: Ann <ann@a.example>\r\nSubject: two\r\nX-Odd: a\r\n b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" +
	"--b\r\n\r\none\r\n--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\nAGEA\r\n--b--\r\n"

func TestFetchItems(t *testing.T) {
	c := startFetch(t, twoParts)
	size := strconv.Itoa(len(twoParts))
	c.want("FETCH 1 (UID RFC822.SIZE)", "* 1 FETCH (UID 1 RFC822.SIZE "+size+")")
	c.want("UID FETCH 1:* RFC822.SIZE", "* 1 FETCH (UID 1 RFC822.SIZE "+size+")")
	c.want("FETCH 1 BODY.PEEK[1]", "* 1 FETCH (BODY[1] {3}\r\none)")
	c.want("FETCH 1 BODY.PEEK[1]<1.1>", "* 1 FETCH (BODY[1]<1> {1}\r\nn)")
	c.want("FETCH 1 BODY.PEEK[1]<9.1>", "* 1 FETCH (BODY[1]<9> {0}\r\n)")
	c.want("FETCH 1 BODY.PEEK[3]", "* 1 FETCH (BODY[3] NIL)")
	c.want("FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT x-odd)]",
		"* 1 FETCH (BODY[HEADER.FIELDS (SUBJECT X-ODD)] {30}\r\nSubject: two\r\nX-Odd: a\r\n b\r\n\r\n)")
	c.want("FETCH 1 BODY.PEEK[HEADER.FIELDS (from subject)]",
		"* 1 FETCH (BODY[HEADER.FIELDS (FROM SUBJECT)] {43}\r\nFrom: Ann <ann@a.example>\r\nSubject: two\r\n\r\n)")
	c.want("FETCH 1 BODY.PEEK[HEADER.FIELDS (from subject)]<2.7>",
		"* 1 FETCH (BODY[HEADER.FIELDS (FROM SUBJECT)]<2> {7}\r\nom: Ann)")
	c.want("FETCH 1 BODY.PEEK[HEADER.FIELDS.NOT (from content-type x-odd)]",
		"* 1 FETCH (BODY[HEADER.FIELDS.NOT (FROM CONTENT-TYPE X-ODD)] {16}\r\nSubject: two\r\n\r\n)")
	c.want("FETCH 1 BODY.PEEK[2.MIME]", "* 1 FETCH (BODY[2.MIME] {77}\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n)")
	c.want("FETCH 1 BINARY.SIZE[2]", "* 1 FETCH (BINARY.SIZE[2] 3)")
	c.want("FETCH 1 BINARY.PEEK[2]", "* 1 FETCH (BINARY[2] ~{3}\r\n\x00a\x00)")
	c.want("FETCH 1 BINARY.PEEK[2]<1.1>", "* 1 FETCH (BINARY[2]<1> {1}\r\na)")
	c.want("FETCH 1 BINARY.PEEK[1]", "* 1 FETCH (BINARY[1] {3}\r\none)")
	c.want("FETCH 1 (FLAGS)", `* 1 FETCH (FLAGS (\Recent))`)
	c.want("FETCH 1 BODY[2]", `* 1 FETCH (BODY[2] {4}`+"\r\n"+`AGEA FLAGS (\Seen \Recent))`)
	c.want("FETCH 1 (FLAGS)", `* 1 FETCH (FLAGS (\Seen \Recent))`)
	if got, _ := c.send("FETCH 1 FULL"); len(got) != 1 || !strings.Contains(got[0], " INTERNALDATE \"") || !strings.Contains(got[0], ` BODY (("text" "plain"`) {
		t.Errorf("FULL: %q", got)
	}
	for command, want := range map[string]string{
		"FETCH 2 FLAGS":                  "BAD",
		"FETCH 1 ()":                     "BAD",
		"FETCH 1 NONSENSE":               "BAD",
		"FETCH 1 (ALL)":                  "BAD",
		"FETCH 1 BODY[":                  "BAD",
		"FETCH 1 BODY[MIME]":             "BAD",
		"FETCH 1 BODY[0]":                "BAD",
		"FETCH 1 BODY[1.]":               "BAD",
		"FETCH 1 BODY[HEADER.FIELDS ()]": "BAD",
		"FETCH 1 BODY[]<0.0>":            "BAD",
		"FETCH 1 BINARY[TEXT]":           "BAD",
		"FETCH 1 FLAGS (CHANGEDSINCE 0)": "BAD",
		"FETCH 1 FLAGS extra":            "BAD",
		"FETCH 1 BODY[" + strings.Repeat("1.", 300) + "1]": "NO [LIMIT]",
		"UID FETCH 77 FLAGS": "OK",
	} {
		if got, tagged := c.send(command); !strings.HasPrefix(tagged, want) || len(got) != 0 {
			t.Errorf("%s: %q %s", command, got, tagged)
		}
	}
}

func TestFetchChangedSince(t *testing.T) {
	c := startFetch(t, twoParts, twoParts)
	_, _, modseq, err := c.folder.SetFlags([]imap.UID{2}, FlagsAdd, []imap.Flag{imap.FlagFlagged}, NoUnchangedSince)
	if err != nil {
		t.Fatal(err)
	}
	c.send("NOOP")
	c.want(fmt.Sprintf("FETCH 1:2 FLAGS (CHANGEDSINCE %d)", modseq-1),
		fmt.Sprintf("* OK [HIGHESTMODSEQ %d] The highest mod-sequence", modseq), fmt.Sprintf(`* 2 FETCH (FLAGS (\Flagged \Recent) MODSEQ (%d))`, modseq))
	c.want(fmt.Sprintf("FETCH 1:2 FLAGS (CHANGEDSINCE %d)", modseq))
}

func TestFetchGone(t *testing.T) {
	c := startFetch(t, twoParts, twoParts)
	if _, _, err := c.folder.Expunge([]imap.UID{1}, false); err != nil {
		t.Fatal(err)
	}
	got, tagged := c.send("FETCH 1:2 (UID BODY.PEEK[1])")
	if len(got) != 1 || got[0] != "* 2 FETCH (UID 2 BODY[1] {3}\r\none)" || !strings.HasPrefix(tagged, "OK [EXPUNGEISSUED]") {
		t.Errorf("%q %s", got, tagged)
	}
}

func TestFetchUnknownEncoding(t *testing.T) {
	c := startFetch(t, "Content-Transfer-Encoding: x-rot13\r\n\r\nuryyb\r\n")
	got, tagged := c.send("FETCH 1 (UID BINARY.PEEK[1])")
	if len(got) != 1 || got[0] != "* 1 FETCH (UID 1)" || !strings.HasPrefix(tagged, "NO [UNKNOWN-CTE]") {
		t.Errorf("%q %s", got, tagged)
	}
	got, _ = c.send("FETCH 1 BINARY.SIZE[1]")
	if len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestFetchHugeHeader(t *testing.T) {
	huge := "Subject: a\r\nX-Huge: " + strings.Repeat("0123456789", 500<<10/10) + "\r\nTo: " + strings.Repeat("a@b.example,\r\n ", 20000) + "\r\n\r\nx\r\n"
	c := startFetch(t, huge)
	got, tagged := c.send("FETCH 1 BODY.PEEK[HEADER.FIELDS (X-HUGE TO)]<100.200000>")
	if len(got) != 1 || !strings.HasPrefix(tagged, "OK") {
		t.Fatal(len(got), tagged)
	}
	whole := huge[len("Subject: a\r\n"):]
	if want := fmt.Sprintf("* 1 FETCH (BODY[HEADER.FIELDS (X-HUGE TO)]<100> {200000}\r\n%s)", whole[100:200100]); got[0] != want {
		t.Errorf("got %.100q, want %.100q", got[0], want)
	}
	for _, item := range []string{"ENVELOPE", "BODY.PEEK[HEADER.FIELDS (To)]", "BODY.PEEK[HEADER.FIELDS (Subject)]", "BODY.PEEK[]", "BODYSTRUCTURE"} {
		for range 2 {
			if got, tagged := c.send("FETCH 1 " + item); len(got) != 1 || !strings.HasPrefix(tagged, "OK") {
				t.Error(item, tagged)
			}
		}
	}
}

// TestFetchManyParts lists messages whose structures are larger than what is
// copied out of the cache at a time, some too large for the cache.
func TestFetchManyParts(t *testing.T) {
	many := func(n int) string {
		return "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nx\r\n", n) + "--b--\r\n"
	}
	var messages []string
	for i := range 14 {
		messages = append(messages, many(600+i))
	}
	messages = append(messages, many(5000), twoParts)
	c := startFetch(t, messages...)
	first, tagged := c.send("FETCH 1:* (ENVELOPE BODYSTRUCTURE)")
	if len(first) != len(messages) || !strings.HasPrefix(tagged, "OK") {
		t.Fatal(len(first), tagged)
	}
	for i, line := range first {
		root, err := parseMessage(strings.NewReader(messages[i]))
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("* %d FETCH (ENVELOPE %s BODYSTRUCTURE %s)", i+1, appendEnvelope(nil, root.Envelope), appendBody(nil, root, true, false))
		if line != want {
			t.Errorf("message %d: %s", i+1, firstDifference(line, want))
		}
	}
	for range 2 {
		if again, _ := c.send("FETCH 1:* (ENVELOPE BODYSTRUCTURE)"); !slices.Equal(again, first) {
			t.Error("two looks differ")
		}
	}
	c.want("FETCH 14:15 (BODY.PEEK[600] BINARY.SIZE[601])", "* 14 FETCH (BODY[600] {1}\r\nx BINARY.SIZE[601] 1)", "* 15 FETCH (BODY[600] {1}\r\nx BINARY.SIZE[601] 1)")
	c.want("SEARCH BODY one", "* SEARCH 16")
}

// TestFetchChangedFile fetches from a file that another program has rewritten.
func TestFetchChangedFile(t *testing.T) {
	c := startFetch(t, twoParts)
	c.want("FETCH 1 BODY.PEEK[1]", "* 1 FETCH (BODY[1] {3}\r\none)")
	files, err := filepath.Glob(filepath.Join(c.folder.location(), "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil && strings.Contains(string(b), "Subject: two") {
			changed++
			if err := os.WriteFile(file, []byte(strings.Replace(string(b), "Subject: two", "Subject: rather longer", 1)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if changed != 1 {
		t.Fatal(changed, files)
	}
	c.want("FETCH 1 BODY.PEEK[1]", "* 1 FETCH (BODY[1] {3}\r\none)")
	c.want("SEARCH BODY one", "* SEARCH 1")
}

// What FETCH BODY[] tells of the flags is what they are after \Seen was set, with what others have changed since the batch was
// looked at; and a message that is gone by the time its text is read takes nothing away from those behind it.
func TestFetchSetsSeenAmongOthers(t *testing.T) {
	folder := startFetch(t, "one\r\n", "two\r\n", "three\r\n").folder
	s, written := bareSession(t, folder)
	b := &bodySection{label: []byte("BODY[]")}
	q := new(fetchRequest)
	q.add(fetchSection, b)
	f := fetcher{s: s, q: q, folder: folder, w: s.c.Writer()}
	defer f.close()
	var err error
	if f.msgs, err = folder.Messages(nil, folder.allUIDs(), false); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := folder.SetFlags([]imap.UID{2}, FlagsAdd, []imap.Flag{imap.FlagFlagged}, NoUnchangedSince); err != nil {
		t.Fatal(err)
	}
	f.setSeen()
	modseq := folder.highestModSeq()
	if _, _, err := folder.Expunge([]imap.UID{1}, false); err != nil {
		t.Fatal(err)
	}
	for i := range f.msgs {
		f.message(&f.msgs[i], i)
		f.close()
	}
	f.flush()
	want := fmt.Sprintf("* 2 FETCH (BODY[] {5}\r\ntwo\r\n FLAGS (\\Flagged \\Seen) MODSEQ (%d))\r\n* 3 FETCH (BODY[] {7}\r\nthree\r\n FLAGS (\\Seen) MODSEQ (%d))\r\n", modseq, modseq)
	if got := written(); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
