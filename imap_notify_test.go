package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// notifyPair gives two sessions of one account and the account's Maildir.
func notifyPair(t *testing.T, s *imapServer, account string) (a, b *imapLine, dir string) {
	t.Helper()
	mustAdd(t, s.Accounts, account, imapPassword)
	local, domain, _ := cutLast(account, '@')
	return s.login(t, account), s.login(t, account), filepath.Join(s.store.mailDir, domain, local)
}

// quiet makes sure that nothing is told but the reply to NOOP.
func (c *imapLine) quiet(t *testing.T) {
	t.Helper()
	if got := c.ok(t, "NOOP"); len(got) != 1 {
		t.Errorf("told: %q", got)
	}
}

// What other programs do to a Maildir is told too, with and without a selected mailbox.
func TestIMAPNotifyOtherPrograms(t *testing.T) {
	s := startIMAP(t)
	a, b, dir := notifyPair(t, s, "out@home.lan")
	put := func(folder, name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "tmp", name), []byte("Subject: x\n\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "tmp", name), filepath.Join(dir, folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	a.ok(t, "NOTIFY SET STATUS (personal (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange))")
	b.ok(t, "SELECT INBOX")
	b.ok(t, "NOTIFY SET (selected (MessageNew MessageExpunge FlagChange)) (subscribed (SubscriptionChange))")
	put("new", "1.a.x")
	a.want(t, `* STATUS "INBOX" (MESSAGES 1 UIDNEXT 2 UIDVALIDITY …`)
	b.want(t, "* 1 EXISTS", "* 1 RECENT")
	put(".Junk/cur", "1.b.x:2,S")
	a.want(t, `* STATUS "Junk" (MESSAGES 1 UIDNEXT 2 UIDVALIDITY …`)
	if err := os.Rename(filepath.Join(dir, ".Junk/cur/1.b.x:2,S"), filepath.Join(dir, ".Junk/cur/1.b.x:2,")); err != nil {
		t.Fatal(err)
	}
	if got := a.readLine(t); !strings.HasPrefix(got, `* STATUS "Junk" (`) || !strings.HasSuffix(got, " UNSEEN 1)") {
		t.Error(got)
	}
	if err := os.Remove(filepath.Join(dir, ".Junk/cur/1.b.x:2,")); err != nil {
		t.Fatal(err)
	}
	a.want(t, `* STATUS "Junk" (MESSAGES 0 UIDNEXT 2 UIDVALIDITY …`)
	if err := makeFolderDir(filepath.Join(dir, ".Other")); err != nil {
		t.Fatal(err)
	}
	a.want(t, `* LIST (\HasNoChildren) "/" "Other"`)
	put(".Other/new", "1.c.x")
	a.want(t, `* STATUS "Other" (MESSAGES 1 UIDNEXT 2 UIDVALIDITY …`)
	// As Dovecot deletes: out of the way by one rename. What is deleted bit by bit is seen empty first, and the store makes
	// anew what is missing of a folder that is still there.
	gone := filepath.Join(dir, "tmp", "gone")
	if err := os.Rename(filepath.Join(dir, ".Other"), gone); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(gone); err != nil {
		t.Fatal(err)
	}
	a.want(t, `* LIST (\NonExistent \NoSelect) "/" "Other"`)
	if err := saveSubscriptions(dir, []string{"Archive", "Drafts", "INBOX", "Junk", "Trash"}); err != nil {
		t.Fatal(err)
	}
	a.want(t, `* LIST (\HasNoChildren \Sent) "/" "Sent"`)
	b.want(t, `* LIST (\HasNoChildren \Sent) "/" "Sent"`)
	a.quiet(t)
	b.quiet(t)
}

// Under TLS and compressed as well.
func TestIMAPNotifyCompressed(t *testing.T) {
	s := startIMAP(t)
	mustAdd(t, s.Accounts, "zip@home.lan", imapPassword)
	a, b := s.secureLogin(t, "zip@home.lan").compressed(t), s.login(t, "zip@home.lan")
	a.ok(t, "NOTIFY SET (personal (MessageNew MessageExpunge MailboxName))")
	for i := range 3 {
		b.ok(t, fmt.Sprintf("CREATE box%d", i))
		a.want(t, fmt.Sprintf(`* LIST (\HasNoChildren) "/" "box%d"`, i))
		b.ok(t, fmt.Sprintf("APPEND box%d {5+}\r\nhello", i))
		a.want(t, fmt.Sprintf(`* STATUS "box%d" (MESSAGES 1 UIDNEXT 2 …`, i))
		a.quiet(t)
	}
}

// What happens while a command runs, or while its literal is awaited, is told with it.
func TestIMAPNotifyDuringCommand(t *testing.T) {
	s := startIMAP(t)
	a, b, _ := notifyPair(t, s, "busy@home.lan")
	a.ok(t, "NOTIFY SET (personal (MessageNew MessageExpunge))")
	a.send(t, "a APPEND Archive {5}\r\n")
	a.want(t, "+ OK")
	b.ok(t, "APPEND Junk {5+}\r\nhello")
	b.ok(t, "APPEND Archive {5+}\r\nhello")
	a.send(t, "hello\r\n")
	a.want(t, `* STATUS "Archive" (MESSAGES 2 UIDNEXT 3 …`, `* STATUS "Junk" (MESSAGES 1 UIDNEXT 2 …`, "a OK [APPENDUID …")
	// Replies to pipelined commands are not torn apart.
	for i := range 20 {
		a.send(t, "b NOOP\r\nc STATUS Junk (MESSAGES)\r\n")
		b.ok(t, "APPEND Junk {5+}\r\nhello")
		told, replies := 0, 0
		for replies < 2 || told < 1 {
			switch got := a.readLine(t); {
			case strings.HasPrefix(got, `* STATUS "Junk" (MESSAGES `) && strings.Contains(got, "UIDNEXT"):
				told++
			case strings.HasPrefix(got, "b OK"), strings.HasPrefix(got, "c OK"):
				replies++
			case strings.HasPrefix(got, `* STATUS "Junk" (MESSAGES `):
			default:
				t.Fatalf("round %d: %s", i, got)
			}
		}
	}
	a.quiet(t)
}

// Too many events end the notifications (RFC 5465 §5.8).
func TestIMAPNotifyOverflow(t *testing.T) {
	t.Parallel()
	s := startIMAP(t)
	a, b, dir := notifyPair(t, s, "much@home.lan")
	a.ok(t, "SELECT INBOX")
	a.ok(t, "NOTIFY SET (selected (MessageNew MessageExpunge)) (personal (SubscriptionChange))")
	a.send(t, "a APPEND Archive {5}\r\n")
	a.want(t, "+ OK")
	for i := range watchEvents + 1 {
		b.ok(t, []string{"SUBSCRIBE", "UNSUBSCRIBE"}[i%2]+" x")
	}
	a.send(t, "hello\r\n")
	a.want(t, "* OK [NOTIFICATIONOVERFLOW] Too much has happened, there are no notifications any more", "a OK [APPENDUID …")
	b.ok(t, "SUBSCRIBE y")
	b.ok(t, "APPEND INBOX {5+}\r\nhello")
	a.quiet(t) // as after NOTIFY NONE
	a.ok(t, "NOTIFY SET (selected (MessageNew MessageExpunge)) (personal (SubscriptionChange MessageNew MessageExpunge))")
	b.ok(t, "SUBSCRIBE z")
	a.want(t, `* LIST (\NonExistent \NoSelect \Subscribed) "/" "z"`)

	// So do too many mailboxes, those there are and those that come.
	for i := range notifyMaxMailboxes - 6 { // INBOX and the default ones are there
		if err := makeFolderDir(filepath.Join(dir, fmt.Sprintf(".box%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	a.ok(t, "NOTIFY SET (personal (MessageNew MessageExpunge))")
	b.ok(t, "CREATE onemore")
	a.want(t, "* OK [NOTIFICATIONOVERFLOW] There are too many mailboxes to follow, there are no notifications any more")
	a.quiet(t)
	for command, want := range map[string]string{
		"NOTIFY SET (personal (MessageNew MessageExpunge))":                                            "zz NO [NOTIFICATIONOVERFLOW] There are too many mailboxes to follow",
		"NOTIFY SET" + strings.Repeat(" (personal NONE)", notifyMaxGroups+1):                           "zz NO [NOTIFICATIONOVERFLOW] There are too many groups of events",
		"NOTIFY SET (mailboxes (" + strings.Repeat("x ", filterMaxNames) + "x) (MailboxName))":         "zz NO [LIMIT] 500 mailboxes can be named at once",
		"NOTIFY SET (subtree (box1 box2) (MessageNew MessageExpunge)) (personal (SubscriptionChange))": "zz OK NOTIFY completed",
	} {
		if got := a.do(t, command); got[len(got)-1] != want {
			t.Errorf("%.60s: %q", command, got)
		}
	}
	for i := range maxContexts {
		a.ok(t, "NOOP")
		a.send(t, fmt.Sprintf("c%d SEARCH RETURN (UPDATE) ALL\r\n", i))
		a.want(t, fmt.Sprintf(`* ESEARCH (TAG "c%d")`, i), fmt.Sprintf("c%d OK SEARCH completed", i))
	}
	a.send(t, "more SEARCH RETURN (UPDATE COUNT) ALL\r\n")
	a.want(t, `* ESEARCH (TAG "more") COUNT 1`, `* NO [NOUPDATE "more"] Too many searches are kept up to date`, "more OK SEARCH completed")
	for i := range esearchMaxMailboxes - notifyMaxMailboxes {
		if err := makeFolderDir(filepath.Join(dir, fmt.Sprintf(".sea%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.do(t, "ESEARCH IN (personal) ALL"); got[len(got)-1] != "zz NO [LIMIT] 1000 mailboxes can be searched at once" {
		t.Error(got)
	}
}

// A client that reads nothing holds up nobody, costs little, and is left after a while.
func TestIMAPNotifySlowClient(t *testing.T) {
	const limit = 4 * time.Second
	s := startIMAPWith(t, func(p *Protocols) { p.limits.Write = limit })
	a, b, _ := notifyPair(t, s, "slow@home.lan")
	a.ok(t, "SELECT INBOX")
	a.ok(t, "NOTIFY SET (selected (MessageNew (BODY.PEEK[]) MessageExpunge FlagChange)) (personal (MessageNew MessageExpunge FlagChange MailboxName))")
	before, routines := heapAndStacks(), runtime.NumGoroutine()
	text := "Subject: x\r\n\r\n" + strings.Repeat("all work and no play\r\n", 40_000) // 880 kB
	slowest := time.Duration(0)
	work := func(command string) {
		t.Helper()
		start := time.Now()
		b.ok(t, command)
		slowest = max(slowest, time.Since(start))
	}
	for i := range 40 { // more than the sockets hold
		work(fmt.Sprintf("APPEND INBOX {%d+}\r\n%s", len(text), text))
		work(fmt.Sprintf("CREATE box%d", i))
		work(fmt.Sprintf("APPEND box%d {5+}\r\nhello", i))
	}
	if n := runtime.NumGoroutine(); n > routines+8 {
		t.Errorf("%d goroutines more", n-routines)
	}
	if grown := int64(heapAndStacks()) - int64(before); grown > 16<<20 {
		t.Errorf("%d bytes more are in use", grown)
	}
	t.Logf("the slowest command took %v", slowest)
	if slowest >= limit { // as long as the slow one may take
		t.Errorf("a command took %v: the other session waited for the slow one", slowest)
	}
	// The session ends without a word to read: what was sent is read, then comes the end.
	_ = a.Conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	time.Sleep(limit + time.Second)
	n := 0
	buf := make([]byte, 1<<20)
	for {
		k, err := a.r.Read(buf)
		if n += k; err != nil {
			if strings.Contains(err.Error(), "timeout") {
				t.Error("the session goes on")
			}
			break
		}
	}
	if n > 30*len(text) {
		t.Errorf("%d bytes came: the client was not slow", n)
	}
}

// Sessions under NOTIFY hear at once of the end of the server and of the account.
func TestIMAPNotifyEnds(t *testing.T) {
	s := startIMAP(t)
	a, b, _ := notifyPair(t, s, "end@home.lan")
	for _, c := range []*imapLine{a, b} {
		c.ok(t, "NOTIFY SET (personal (MessageNew MessageExpunge MailboxName))")
	}
	if _, err := s.store.SetAside("end@home.lan"); err != nil {
		t.Fatal(err)
	}
	a.want(t, "* BYE The account is no longer available", "<EOF>")
	b.want(t, "* BYE The account is no longer available", "<EOF>")
	c, d, _ := notifyPair(t, s, "down@home.lan")
	c.ok(t, "NOTIFY SET (personal (MessageNew MessageExpunge))")
	d.ok(t, "SELECT INBOX")
	d.ok(t, "NOTIFY SET (selected (MessageNew MessageExpunge))")
	s.stop()
	c.want(t, "* BYE The server is shutting down", "<EOF>")
	d.want(t, "* BYE The server is shutting down", "<EOF>")
}

// The deletion of the selected mailbox ends the session, as ever; that of another one is told.
func TestIMAPNotifyDeletedMailbox(t *testing.T) {
	s := startIMAP(t)
	a, b, _ := notifyPair(t, s, "del@home.lan")
	c := s.login(t, "del@home.lan")
	for _, one := range []*imapLine{a, c} {
		one.ok(t, "NOTIFY SET (selected (MessageNew MessageExpunge)) (personal (MailboxName MessageNew MessageExpunge))")
	}
	b.ok(t, "CREATE Doomed")
	a.want(t, `* LIST (\HasNoChildren) "/" "Doomed"`)
	c.want(t, `* LIST (\HasNoChildren) "/" "Doomed"`)
	a.ok(t, "SELECT Doomed")
	b.ok(t, "APPEND Doomed {5+}\r\nhello")
	a.want(t, "* 1 EXISTS", "* 1 RECENT")
	c.want(t, `* STATUS "Doomed" (MESSAGES 1 UIDNEXT 2 …`)
	b.ok(t, "DELETE Doomed")
	a.want(t, "* BYE The selected mailbox has been deleted", "<EOF>")
	c.want(t, `* LIST (\NonExistent \NoSelect) "/" "Doomed"`)
	// Another one of its name has another UIDVALIDITY.
	b.ok(t, "CREATE Doomed")
	c.want(t, `* LIST (\HasNoChildren) "/" "Doomed"`)
	b.ok(t, "APPEND Doomed {5+}\r\nhello")
	c.want(t, `* STATUS "Doomed" (MESSAGES 1 UIDNEXT 2 …`)
	c.quiet(t)
}

// A mailbox that is followed is not kept in memory for it, and sessions that go leave nothing behind.
func TestIMAPNotifyCostsNothing(t *testing.T) {
	s := startIMAP(t)
	a, b, _ := notifyPair(t, s, "idle@home.lan")
	a.ok(t, "NOTIFY SET (personal (MessageNew MessageExpunge))")
	b.ok(t, "NOTIFY SET (personal (MessageNew MessageExpunge))")
	d, err := s.store.Maildrop("idle@home.lan")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Release()
	loaded := func() int {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.folders)
	}
	if n := loaded(); n != 0 {
		t.Errorf("%d folders are in memory", n)
	}
	if err := s.store.Deliver(t.Context(), receiveText(t, d, "Subject: x\r\n\r\n"), []Delivery{{Account: "idle@home.lan", Folder: "Junk"}}); err != nil {
		t.Fatal(err)
	}
	a.want(t, `* STATUS "Junk" (MESSAGES 1 UIDNEXT 2 …`)
	b.want(t, `* STATUS "Junk" (MESSAGES 1 UIDNEXT 2 …`)
	if n := loaded(); n != 1 {
		t.Errorf("%d folders are in memory", n)
	}
	a.ok(t, "LOGOUT")
	a.want(t, "<EOF>")
	b.ok(t, "NOTIFY NONE")
	for range 200 {
		d.watches.mu.Lock()
		n, dirs := len(d.watches.list), len(d.watches.dirs)
		d.watches.mu.Unlock()
		if n == 0 && dirs == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("somebody still watches")
}

// Which mailboxes a filter is about.
func TestMailboxFilter(t *testing.T) {
	names := []string{"INBOX", "a", "a/b", "a/b/c", "ab", "b", "other"} // other: somebody else's
	for _, test := range []struct {
		filter mailboxFilter
		want   string
	}{
		{mailboxFilter{kind: filterSelected}, "[]"},
		{mailboxFilter{kind: filterPersonal}, "[INBOX a a/b a/b/c ab b]"},
		{mailboxFilter{kind: filterSubscribed}, "[b]"},
		{mailboxFilter{filterSubtree, []string{"a"}}, "[a a/b a/b/c]"},
		{mailboxFilter{filterSubtree, []string{"a/b", "INBOX"}}, "[INBOX a/b a/b/c]"},
		{mailboxFilter{filterSubtree, []string{""}}, "[INBOX a a/b a/b/c ab b other]"},
		{mailboxFilter{filterSubtreeOne, []string{"a"}}, "[a a/b]"},
		{mailboxFilter{filterSubtreeOne, []string{""}}, "[INBOX a ab b other]"},
		{mailboxFilter{filterSubtreeOne, []string{"x", "a/b"}}, "[a/b a/b/c]"},
		{mailboxFilter{filterMailboxes, []string{"a/b", "x", "ab"}}, "[a/b ab]"},
	} {
		got := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !test.filter.has(name, name == "other", name == "b") })
		if fmt.Sprint(got) != test.want {
			t.Errorf("%v is about %v, want %s", test.filter, got, test.want)
		}
	}
}

// What an own change is told as: nothing, unless others have changed the mailbox as well.
func TestIMAPNotifyOwnChanges(t *testing.T) {
	s := startIMAP(t)
	a, b, _ := notifyPair(t, s, "own@home.lan")
	a.ok(t, "NOTIFY SET STATUS (personal (MessageNew MessageExpunge FlagChange))")
	a.ok(t, "APPEND Archive {5+}\r\nhello {5+}\r\nagain")
	a.ok(t, "SELECT Archive")
	a.ok(t, "COPY 1:2 Junk")
	a.ok(t, "MOVE 1 Trash")
	a.ok(t, "REPLACE 1 Drafts {5+}\r\nhello")
	a.ok(t, "UNSELECT")
	a.quiet(t)
	// In between somebody else: all of it is told.
	a.send(t, "a APPEND Sent {5}\r\n")
	a.want(t, "+ OK")
	b.ok(t, "APPEND Sent {5+}\r\nhello")
	a.send(t, "hello\r\n")
	a.want(t, `* STATUS "Sent" (MESSAGES 2 UIDNEXT 3 …`, "a OK [APPENDUID …")
	a.quiet(t)
}

// BenchmarkIMAPNotify measures from a delivery on until a session that has selected nothing has read of it.
func BenchmarkIMAPNotify(b *testing.B) {
	s := startIMAP(b)
	mustAdd(b, s.Accounts, "fast@home.lan", imapPassword)
	c := s.login(b, "fast@home.lan")
	c.ok(b, "NOTIFY SET (personal (MessageNew MessageExpunge))")
	d, err := s.store.Maildrop("fast@home.lan")
	if err != nil {
		b.Fatal(err)
	}
	defer d.Release()
	var took []time.Duration
	for b.Loop() {
		in := receiveText(b, d, "Subject: x\r\n\r\n")
		if err := in.finish(time.Time{}); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		if err := s.store.Deliver(b.Context(), in, []Delivery{{Account: "fast@home.lan", Folder: "INBOX"}}); err != nil {
			b.Fatal(err)
		}
		c.want(b, `* STATUS "INBOX" …`)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
}

// BenchmarkIMAPContext measures what a change costs in a session that keeps a sort of 10,000 messages up to date.
func BenchmarkIMAPContext(b *testing.B) {
	const messages = 10_000
	s := startIMAP(b)
	mustAdd(b, s.Accounts, "many@home.lan", imapPassword)
	d, err := s.store.Maildrop("many@home.lan")
	if err != nil {
		b.Fatal(err)
	}
	defer d.Release()
	f := openFolder(b, d, "INBOX")
	defer f.Release()
	for i := 0; i < messages; i += 250 {
		var batch []AppendMessage
		for j := range 250 {
			batch = append(batch, AppendMessage{In: receiveText(b, d, fmt.Sprintf("Subject: %d\r\n\r\nhello\r\n", (i+j)*7919%messages)), Flags: []imap.Flag{imap.FlagSeen}})
		}
		if _, err := f.Append(batch); err != nil {
			b.Fatal(err)
		}
	}
	c := s.login(b, "many@home.lan")
	c.ok(b, "SELECT INBOX")
	c.ok(b, "UID SORT RETURN (UPDATE COUNT) (SUBJECT) UTF-8 ALL")
	b.ResetTimer()
	for b.Loop() {
		uid := appendText(b, f, "Subject: 5000\r\n\r\nhello\r\n")
		if got := c.ok(b, "NOOP"); !slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, "ADDTO") }) {
			b.Fatal(got)
		}
		b.StopTimer()
		if _, _, err := f.Expunge([]imap.UID{uid}, false); err != nil {
			b.Fatal(err)
		}
		c.ok(b, "NOOP")
		b.StartTimer()
	}
}
