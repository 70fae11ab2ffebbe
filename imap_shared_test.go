package main

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// sharedClient counts the messages of a mailbox by what it is told.
type sharedClient struct {
	*imapLine
	t       *testing.T
	box     string // what the mailbox is called by the client
	qresync bool
	rnd     *rand.Rand
	count   int
	done    int
}

var (
	sharedExists   = regexp.MustCompile(`^\* (\d+) EXISTS$`)
	sharedExpunge  = regexp.MustCompile(`^\* \d+ EXPUNGE$`)
	sharedVanished = regexp.MustCompile(`^\* VANISHED ([\d,:]+)$`)
)

// run runs a command, keeps the count, and gives the untagged lines.
func (c *sharedClient) run(command string) []string {
	lines := c.do(c.t, command)
	for _, line := range lines {
		if m := sharedExists.FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[1])
			if n < c.count {
				c.t.Errorf("%s: %s, and there were %d", command, line, c.count)
			}
			c.count = n
		} else if m := sharedVanished.FindStringSubmatch(line); m != nil && c.qresync {
			for _, r := range testSet(c.t, m[1]) {
				c.count -= int(r.Stop-r.Start) + 1
			}
		} else if sharedExpunge.MatchString(line) && !c.qresync {
			c.count--
		}
	}
	if reply := last(lines); !strings.HasPrefix(reply, "OK") && !strings.HasPrefix(reply, "NO [EXPUNGEISSUED]") {
		c.t.Errorf("%s with %d messages: %s", command, c.count, reply)
	}
	c.done++
	return lines[:len(lines)-1]
}

// act does something at random.
func (c *sharedClient) act() {
	seq := 1 + c.rnd.IntN(max(c.count, 1))
	flag := []string{`\Seen`, `\Flagged`, "$Label", `\Deleted`, `\Answered`}[c.rnd.IntN(5)]
	op := c.rnd.IntN(8)
	if c.count < 4 {
		op = 0
	}
	switch op {
	case 0, 1:
		c.run(fmt.Sprintf("APPEND %s (%s) {6+}\r\nx: y\r\n", c.box, flag))
	case 2, 3:
		c.run(fmt.Sprintf("STORE %d %sFLAGS (%s)", seq, []string{"+", "-", ""}[c.rnd.IntN(3)], flag))
	case 4:
		c.run(fmt.Sprintf("COPY %d %s", seq, c.box))
	case 5:
		c.run(fmt.Sprintf("MOVE %d %s", seq, []string{c.box, "Archive"}[c.rnd.IntN(2)]))
	case 6:
		c.run("EXPUNGE")
	default:
		c.run(fmt.Sprintf("FETCH %d BODY[]", seq))
	}
}

// TestSharedTogether lets an owner and a guest work on one mailbox, two sessions each, of which one speaks QRESYNC. What they are
// told adds up, and in the end all have the same messages, flags and mod-sequences.
func TestSharedTogether(t *testing.T) {
	t.Parallel()
	s := startPeople(t)
	s.login(t, "bob@home.lan").ok(t, "SETACL INBOX ann lrswited")
	var clients []*sharedClient
	for i := range 4 {
		c := &sharedClient{t: t, box: "INBOX", qresync: i%2 == 1, rnd: rand.New(rand.NewPCG(uint64(i), 9))}
		account := "bob@home.lan"
		if i >= 2 {
			account, c.box = "ann@home.lan", "user/bob/INBOX"
		}
		c.imapLine = s.login(t, account)
		if c.qresync {
			c.ok(t, "ENABLE QRESYNC")
		} else {
			c.ok(t, "ENABLE CONDSTORE")
		}
		c.run("SELECT " + c.box)
		clients = append(clients, c)
	}
	end := time.Now().Add(2 * time.Second)
	var all sync.WaitGroup
	for _, c := range clients {
		all.Go(func() {
			for time.Now().Before(end) && !t.Failed() {
				c.act()
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	clients[0].run("APPEND INBOX {6+}\r\nx: y\r\n") // FETCH of nothing is refused
	var want []string
	total := 0
	for i, c := range clients {
		c.run("NOOP")
		total += c.done
		var got []string
		for _, line := range c.run("FETCH 1:* (UID FLAGS MODSEQ)") {
			if strings.Contains(line, " FETCH (") {
				got = append(got, strings.ReplaceAll(strings.ReplaceAll(line, ` \Recent`, ""), `(\Recent)`, "()"))
			}
		}
		if len(got) != c.count || c.count == 0 {
			t.Errorf("client %d has been told of %d messages, and there are %d", i, c.count, len(got))
		}
		if i == 0 {
			want = got
		} else if !slices.Equal(got, want) {
			t.Errorf("client %d has\n%q, client 0\n%q", i, got, want)
		}
	}
	t.Logf("%d commands, %d messages", total, len(want))
}

// Somebody who has been away is told with QRESYNC what has become of a mailbox of somebody else.
func TestSharedQresync(t *testing.T) {
	s := startPeople(t)
	bob, ann := s.login(t, "bob@home.lan"), s.login(t, "ann@home.lan")
	bob.ok(t, "SETACL INBOX ann lr")
	for range 4 {
		bob.ok(t, "APPEND INBOX {6+}\r\nx: y\r\n")
	}
	ann.ok(t, "ENABLE QRESYNC")
	var validity, modseq string
	for _, line := range ann.ok(t, "SELECT user/bob/INBOX") {
		if m := regexp.MustCompile(`UIDVALIDITY (\d+)`).FindStringSubmatch(line); m != nil {
			validity = m[1]
		}
		if m := regexp.MustCompile(`HIGHESTMODSEQ (\d+)`).FindStringSubmatch(line); m != nil {
			modseq = m[1]
		}
	}
	ann.ok(t, "UNSELECT")
	bob.ok(t, "SELECT INBOX")
	bob.ok(t, `STORE 2 +FLAGS (\Deleted)`)
	bob.ok(t, "EXPUNGE")
	bob.ok(t, `STORE 3 +FLAGS (\Flagged)`)
	lines := strings.Join(ann.ok(t, fmt.Sprintf("SELECT user/bob/INBOX (QRESYNC (%s %s))", validity, modseq)), "\n")
	if !strings.Contains(lines, "* VANISHED (EARLIER) 2\n") || !strings.Contains(lines, `* 3 FETCH (UID 4 FLAGS (\Flagged`) {
		t.Error(lines)
	}
}

// TestSharedEverywhere uses what else knows mailboxes by name: ESEARCH, NOTIFY, METADATA and QUOTA.
func TestSharedEverywhere(t *testing.T) {
	s := startPeople(t)
	bob, ann := s.login(t, "bob@home.lan"), s.login(t, "ann@home.lan")
	for _, command := range []string{"CREATE Work", "CREATE Secret", "APPEND Work {17+}\r\nSubject: plan\r\n\r\n", "APPEND Secret {17+}\r\nSubject: plan\r\n\r\n",
		"SETACL Work ann lr", "SETACL Secret ann l", "SETMETADATA Work (/shared/comment \"all\" /private/comment \"bob's\")"} {
		bob.ok(t, command)
	}
	ann.ok(t, "APPEND INBOX {17+}\r\nSubject: plan\r\n\r\n")
	ann.ok(t, "SUBSCRIBE user/bob/Work")
	search := func(in string, want ...string) {
		t.Helper()
		var got []string
		for _, line := range ann.ok(t, "ESEARCH IN ("+in+") SUBJECT plan") {
			if _, rest, ok := strings.Cut(line, ` MAILBOX "`); ok {
				got = append(got, rest[:strings.IndexByte(rest, '"')])
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("ESEARCH IN (%s) finds something in %q, want %q", in, got, want)
		}
	}
	search("personal", "INBOX")
	search("subscribed", "INBOX", "user/bob/Work")
	search("mailboxes (user/bob/Work user/bob/Secret user/bob/INBOX user/nobody/INBOX)", "user/bob/Work")
	search("subtree user", "user/bob/Work")
	search("personal subtree \"\"", "INBOX", "user/bob/Work")
	ann.ok(t, "SELECT user/bob/Work")
	search("selected personal", "user/bob/Work", "INBOX")
	search("mailboxes user/bob/Work", "user/bob/Work")

	if got := ann.ok(t, "GETMETADATA user/bob/Work (/shared/comment /private/comment)"); !strings.Contains(got[0], "all") || strings.Contains(strings.Join(got, ""), "bob's") {
		t.Errorf("%q", got)
	}
	ann.ok(t, `SETMETADATA user/bob/Work (/private/comment "ann's")`)
	if got := strings.Join(bob.ok(t, "GETMETADATA Work (/private/comment)"), ""); strings.Contains(got, "ann's") {
		t.Error(got)
	}
	for command, want := range map[string]string{
		`SETMETADATA user/bob/Work (/shared/comment "x")`:          "NO [NOPERM]",
		"GETMETADATA user/bob/Secret /shared/comment":              "NO [NOPERM]",
		"GETMETADATA user/bob/INBOX /shared/comment":               "NO [NONEXISTENT]",
		"GETMETADATA user/bob/Nowhere /shared/comment":             "NO [NONEXISTENT]",
		`SETMETADATA user/bob/Work (/private/specialuse "\\Sent")`: "NO [NOPERM]",
		"GETQUOTAROOT user/bob/INBOX":                              "NO [NONEXISTENT]",
		"GETQUOTAROOT user/bob/Nowhere":                            "NO [NONEXISTENT]",
		"GETQUOTAROOT user/bob/Secret":                             "NO [NOPERM]",
		"GETQUOTAROOT user/bob/Work":                               "OK",
	} {
		if got := last(ann.do(t, command)); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", command, got)
		}
	}
	if got := ann.ok(t, "GETQUOTAROOT user/bob/Work")[0]; got != `* QUOTAROOT "user/bob/Work"` {
		t.Error(got)
	}
	if got := ann.ok(t, `LIST "" user/bob/% RETURN (METADATA (/shared/comment) MYRIGHTS)`); len(got) != 6 {
		t.Errorf("%q", got)
	}

	// NOTIFY in the selected mailbox, whoever it belongs to.
	ann.ok(t, "NOTIFY SET (selected (MessageNew (UID FLAGS) MessageExpunge FlagChange)) (personal (MessageNew MessageExpunge MailboxName))")
	bob.ok(t, "APPEND Work (\\Flagged) {17+}\r\nSubject: more\r\n\r\n")
	ann.want(t, "* 2 EXISTS", "* 2 RECENT", "* 2 FETCH (UID 2 FLAGS (\\Flagged \\Recent))")
	bob.ok(t, "SETACL Work ann lrs")
	ann.want(t, `* FLAGS (\Answered \Flagged \Deleted \Seen \Draft)`, `* OK [PERMANENTFLAGS (\Seen)] Flags that are kept`, "* OK [READ-WRITE] The rights have been changed")
	bob.ok(t, "APPEND INBOX {6+}\r\nx: y\r\n") // bob's INBOX is not ann's
	ann.ok(t, "NOOP")
	bob.ok(t, "DELETEACL Work ann")
	ann.want(t, "* BYE You may no longer read the selected mailbox", "<EOF>")
}

// A change with some rights that a crash has interrupted is done as it was meant.
func TestJournalKeepsRights(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	defer s.Close()
	s.journalFrom = 1
	d := testDrop(t, s)
	f := openFolder(t, d, "INBOX")
	uid := appendText(t, f, "a\r\n", imap.FlagFlagged, "Kept")
	f.mu.Lock()
	if _, _, _, err := f.setFlags(flagDelta{op: FlagsReplace, may: RightSeen | RightDeleteMessages}, []imap.UID{uid}, []imap.Flag{imap.FlagSeen, imap.FlagDraft}, NoUnchangedSince); err != nil {
		t.Fatal(err)
	}
	entries, bad, there, err := loadFlagJournal(f.path)
	f.unlock()
	if err != nil || !there || bad != 0 || len(entries) != 1 || entries[0].may != RightSeen|RightDeleteMessages {
		t.Fatalf("the journal has %+v, %d bad lines, %v", entries, bad, err)
	}
	// What a crash leaves is opened by another store.
	again := testStore(t, dir)
	defer again.Close()
	d2 := testDrop(t, again)
	defer d2.Release()
	f2 := openFolder(t, d2, "INBOX")
	defer f2.Release()
	if got := folderLines(t, f2)[0]; !strings.HasPrefix(got, `1 [Kept \Flagged \Seen] `) {
		t.Error(got)
	}
	f.Release()
	d.Release()
}
