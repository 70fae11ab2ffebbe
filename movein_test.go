package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// cutDialer ends the first connections after so many bytes have come.
type cutDialer struct {
	mu   sync.Mutex
	cuts []int
}

func (d *cutDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.cuts) == 0 {
		return conn, nil
	}
	left := d.cuts[0]
	d.cuts = d.cuts[1:]
	return &cutConn{conn, left}, nil
}

type cutConn struct {
	net.Conn
	left int
}

func (c *cutConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		_ = c.Conn.Close()
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// fillMailbox puts messages of all kinds into the folders of bob.
func fillMailbox(t *testing.T, p *page) {
	t.Helper()
	in, conn, _ := p.imapLogin(t, "bob", bobsPassword)
	say := func(command string) {
		t.Helper()
		if reply := imapSay(t, in, conn, command); !strings.Contains(reply, "x OK") {
			t.Fatalf("%.80q: %s", command, reply)
		}
	}
	for _, folder := range []string{"Work", "Work/Old &AOQ-", "Gesendet", "Empty", "Outboxes"} {
		say(`CREATE "` + folder + `"`)
	}
	n := 0
	for folder, count := range map[string]int{"INBOX": 130, `"Work/Old &AOQ-"`: 25, "Gesendet": 4, "Drafts": 2, "Junk": 3} {
		for i := range count {
			n++
			flags := []string{"", `\Seen`, `\Flagged \Answered`, `\Seen $Label1 Receipt`, `\Draft`}[i%5]
			text := fmt.Sprintf("From: a@b.test\r\nMessage-ID: <m%d@b.test>\r\nSubject: s%d\r\n\r\n%s\r\n", n, n, strings.Repeat("0123456789\r\n", 20+i%7*30))
			say(fmt.Sprintf("APPEND %s (%s) \"%02d-Mar-2019 12:%02d:00 +0100\" {%d+}\r\n%s", folder, flags, i%28+1, i%60, len(text), text))
		}
	}
	say(`APPEND INBOX (\Seen) {5+}` + "\r\nA: b\r") // one without a Message-ID
}

var (
	fetchedRecent = regexp.MustCompile(`\\Recent ?`)
	fetchedTail   = regexp.MustCompile(`(?m)^(\* OK|x ).*\n`)
)

// contentOf gives all messages of a folder with what is to be kept of them.
func contentOf(t *testing.T, p *page, user, password, folder string) string {
	t.Helper()
	in, conn, _ := p.imapLogin(t, user, password)
	defer conn.Close()
	if reply := imapSay(t, in, conn, `EXAMINE "`+folder+`"`); !strings.Contains(reply, "x OK") {
		t.Fatalf("%s: %s", folder, reply)
	}
	text := imapSay(t, in, conn, "FETCH 1:* (FLAGS INTERNALDATE BODY.PEEK[])")
	return fetchedTail.ReplaceAllString(fetchedRecent.ReplaceAllString(text, ""), "")
}

// moveOf gives how somebody's move goes.
func moveOf(t *testing.T, data, account string) (job MoveJob) {
	t.Helper()
	var jobs []MoveJob
	if err := json.Unmarshal([]byte(mustRun(t, data, "movein", "status", account, "--json")), &jobs); err != nil || len(jobs) != 1 {
		t.Fatalf("%v, %v", jobs, err)
	}
	return jobs[0]
}

// awaitMove waits until a move is so.
func awaitMove(t *testing.T, data, account string, ok func(job *MoveJob) bool) MoveJob {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		job := moveOf(t, data, account)
		if ok(&job) {
			return job
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", job)
		}
	}
}

func over(job *MoveJob) bool { return job.State != MoveRunning }

// TestMoveIn moves bob of one appliance in with maria of another, through cuts and a restart, and once more: nothing is lost,
// and nothing is there twice.
func TestMoveIn(t *testing.T) {
	old := startPage(t)
	fillMailbox(t, old)
	data := pageData(t)
	cuts := &cutDialer{cuts: []int{1 << 20, 60_000, 50_000, 70_000}} // the first is the trial of the login
	hooks := func() *call {
		return &call{adjustOutside: func(d *outsideDialer) { d.Roots, d.Dial = old.roots, cuts.dial }}
	}
	r := startRunWith(t, data, hooks())
	where := "127.0.0.1:" + strconv.Itoa(993+old.offset)
	start := func() (string, string) {
		t.Helper()
		t.Setenv("APPLIANCE_DATA", data)
		c := hooks()
		var out, errs lockedBuffer
		c.stdin, c.stdout, c.stderr = strings.NewReader(bobsPassword+"\n"), &out, &errs
		c.do(context.Background(), []string{"movein", "start", "maria", where, "bob@home.lan", "--password-stdin"})
		return out.String(), errs.String()
	}
	if out, errs := start(); !strings.Contains(out, "maria@home.lan moves in from bob@home.lan at "+where) {
		t.Fatal(out, errs)
	}
	awaitMove(t, data, "maria", func(job *MoveJob) bool { done, _, _ := job.Counts(); return job.Reason != "" && done > 0 })
	files, err := filepath.Glob(filepath.Join(dataDir(data).moves(), "*", "*"))
	if err != nil || len(files) < 2 {
		t.Errorf("%v %v", files, err)
	}
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v %v", file, info, err)
		}
	}
	if _, errs := start(); !strings.Contains(errs, "moves in from bob@home.lan at 127.0.0.1 already") {
		t.Error(errs)
	}
	r.stop(t)
	r = startRunWith(t, data, hooks())
	p := servePage(t, r)
	job := awaitMove(t, data, "maria", over)
	if done, of, copied := job.Counts(); job.State != MoveDone || done != 165 || of != 165 || copied != 165 || job.Percent() != 100 {
		t.Fatalf("%d of %d, %d copied: %+v", done, of, copied, job)
	}
	compare := func() {
		t.Helper()
		for there, here := range map[string]string{"Work/Old &AOQ-": "Work/Old &AOQ-", "Gesendet": "Sent", "Drafts": "Drafts", "Junk": "Junk", "Work": "Work", "Empty": "Empty", "Outboxes": "Outboxes"} {
			if want, got := contentOf(t, old, "bob", bobsPassword, there), contentOf(t, p, "maria", mariasPassword, here); got != want {
				t.Errorf("%s differs:\n%.2000s\n---\n%.2000s", there, want, got)
			}
		}
	}
	compare()
	want, got := contentOf(t, old, "bob", bobsPassword, "INBOX"), contentOf(t, p, "maria", mariasPassword, "INBOX")
	if i := strings.Index(got, "* 132 FETCH"); i < 0 || got[:i] != want || !strings.Contains(got[i:], "Your mail has moved in") || !strings.Contains(got[i:], "INBOX: 131 of 131 copied") {
		t.Errorf("INBOX differs: %d and %d bytes", len(want), len(got))
	}
	files, _ = filepath.Glob(filepath.Join(dataDir(data).moves(), "*", "*"))
	if len(files) != 1 {
		t.Errorf("%v is left", files)
	} else if text, _ := os.ReadFile(files[0]); strings.Contains(string(text), bobsPassword) {
		t.Error("the password is not forgotten")
	}
	if strings.Contains(r.stderr.String(), bobsPassword) {
		t.Error("the log tells the password")
	}

	// Once more, a new message among them.
	in, conn, _ := old.imapLogin(t, "bob", bobsPassword)
	text := "Message-ID: <new@b.test>\r\n\r\nnew\r\n"
	imapSay(t, in, conn, fmt.Sprintf("APPEND Gesendet {%d+}\r\n%s", len(text), text))
	if out, errs := start(); errs != "" {
		t.Fatal(out, errs)
	}
	job = awaitMove(t, data, "maria", over)
	at := slices.IndexFunc(job.Folders, func(f MoveFolder) bool { return f.Name == "Gesendet" })
	if f := job.Folders[at]; f.Copied != 1 || f.Here != 4 {
		t.Errorf("%+v", f)
	}
	if _, _, copied := job.Counts(); copied != 2 { // and the one that has no Message-ID
		t.Errorf("%d copied once more: %+v", copied, job)
	}
	compare()
}

// TestMoveInStops looks at what goes wrong, and at the end that somebody puts to it.
func TestMoveInStops(t *testing.T) {
	old := startPage(t)
	fillMailbox(t, old)
	cuts := &cutDialer{}
	data := pageData(t)
	r := startRunWith(t, data, &call{adjustOutside: func(d *outsideDialer) { d.Roots, d.Dial = old.roots, cuts.dial }})
	p := servePage(t, r)
	where := "127.0.0.1:" + strconv.Itoa(993+old.offset)
	b := p.loggedIn(t, "maria", mariasPassword)
	b.get("/mine/movein")
	b.says(200, "<h1>Move in</h1>", "Copy everything")
	for _, c := range []struct{ login, password, host, says string }{
		{"", "x", where, "Type the address of the old account."},
		{"bob@home.lan", "", where, "Type the password of the old account."},
		{"bob@home.lan", "x", "a b", "a b cannot be a server."},
		{"bob@home.lan", "wrong", where, "That was not done:"},
		{"bob", "wrong", "", "no server for the mail of this address was found"},
	} {
		b.post("/mine/movein", "login", c.login, "password", c.password, "host", c.host)
		b.says(422, c.says)
	}
	if strings.Contains(b.body, `value="wrong"`) {
		t.Error("the password is shown again")
	}
	cuts.cuts = []int{1 << 20, 60_000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000}
	b.post("/mine/movein", "login", "bob@home.lan", "password", bobsPassword, "host", where)
	b.says(200, "It has begun.", `http-equiv="refresh"`, "<progress ")
	awaitMove(t, data, "maria", func(job *MoveJob) bool { done, _, _ := job.Counts(); return job.Reason != "" && done > 0 })
	b.get("/mine/movein")
	b.says(200, "It waits for the next try.", "INBOX", "Stop it")
	bob := p.loggedIn(t, "bob", bobsPassword)
	bob.get("/mine/movein")
	if bob.says(200, "Copy everything"); strings.Contains(bob.body, "home.lan at") || strings.Contains(bob.body, "<progress") {
		t.Error("bob sees the move of maria")
	}
	b.post("/mine/movein/stop")
	b.says(200, "Nothing more is copied.", "It was stopped.", "Copy everything")
	if job := moveOf(t, data, "maria"); job.State != MoveStopped {
		t.Errorf("%+v", job)
	}
	files, _ := filepath.Glob(filepath.Join(dataDir(data).moves(), "*", "*"))
	if len(files) != 1 {
		t.Errorf("%v is left", files)
	}
	if status, _, errs := runCommand(t, data, "", "movein", "stop", "maria"); status != exitFailed || !strings.Contains(errs, "does not move in from anywhere") {
		t.Error(errs)
	}
	cuts.mu.Lock()
	cuts.cuts = nil
	cuts.mu.Unlock()
	b.post("/mine/movein", "login", "bob@home.lan", "password", bobsPassword, "host", where)
	job := awaitMove(t, data, "maria", over)
	if done, _, copied := job.Counts(); job.State != MoveDone || done != 165 || copied == 165 || copied < 100 {
		t.Errorf("%d done, %d copied: %+v", done, copied, job)
	}
	b.get("/mine/movein")
	b.says(200, "All is here.", "165 of 165 messages")
	mustRun(t, data, "user", "remove", "maria")
	if files, _ := filepath.Glob(filepath.Join(dataDir(data).moves(), "*")); len(files) != 0 {
		t.Errorf("%v is left", files)
	}
}

// TestMoveNames gives folders of many servers their names here.
func TestMoveNames(t *testing.T) {
	uses := map[string]string{"Sent Items": "Sent", "INBOX.Sent": "Sent", "INBOX.Work.Old": "Work/Old", "inbox": "INBOX", "[Gmail].Spam": "Junk", "Papierkorb": "Trash",
		"A/B": "A-B", "INBOX.": "-", "Entwürfe": "Drafts", "Archiv": "Archive", "a.b": "a/b"}
	names, err := folderUses(testDropOf(t, closedStore(t), "ann@test.lan"))
	if err != nil {
		t.Fatal(err)
	}
	for there, want := range uses {
		f := &outsideFolder{name: there, delim: '.'}
		if got := f.local(names); got != want {
			t.Errorf("%s is %q here, want %q", there, got, want)
		}
	}
	for _, strange := range []string{"Outbox", "outbox.x", "\x01", strings.Repeat("x.", 300)} {
		f := &outsideFolder{name: strange, delim: '.'}
		if got := f.local(names); !strings.HasPrefix(got, "Moved in ") {
			t.Errorf("%q is %q here", strange, got)
		}
	}
	all := &outsideFolder{name: "[Gmail]/Alle Nachrichten", delim: '/', attrs: []imap.MailboxAttr{"\\All"}}
	if got := all.local(names); got != "Archive" {
		t.Errorf("all messages are in %q", got)
	}
}

// TestMoveHosts looks for the servers of a domain.
func TestMoveHosts(t *testing.T) {
	dns := startDNS(t, "_imaps._tcp.friends.test. SRV 0 1 993 post.friends.test.\n_imaps._tcp.evil.test. SRV 0 1 993 imap.elsewhere.test.")
	m := NewMover(MoverConfig{Resolver: dns.Resolver})
	for domain, want := range map[string]string{"friends.test": "post.friends.test imap.friends.test mail.friends.test", "evil.test": "imap.evil.test mail.evil.test", "gmx.de": "imap.gmx.net"} {
		if got := strings.Join(m.hosts(t.Context(), domain), " "); got != want {
			t.Errorf("%s: %s", domain, got)
		}
	}
}
