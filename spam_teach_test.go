package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// schoolHouse is a store whose people teach a filter.
type schoolHouse struct {
	t     *testing.T
	store *Store
	drop  *Maildrop
	f     *SpamFilter
}

func newSchoolHouse(t *testing.T) *schoolHouse {
	s := closedStore(t)
	h := &schoolHouse{t: t, store: s, drop: testDropOf(t, s, "ann@test.lan")}
	t.Cleanup(h.drop.Release)
	h.f = testSpamFilter(t, SpamConfig{Store: s, Verifier: testVerifier(startDNS(t, friendZone)), IsLocalDomain: func(d string) bool { return d == "test.lan" }})
	return h
}

// closedStore is a store that is closed when the test has ended.
func closedStore(t *testing.T) *Store {
	s := testStore(t, t.TempDir())
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// folder opens a folder until the test ends.
func (h *schoolHouse) folder(name string) *Folder {
	h.t.Helper()
	f := openFolder(h.t, h.drop, name)
	h.t.Cleanup(f.Release)
	return f
}

// deliver delivers a message as the filter has judged it.
func (h *schoolHouse) deliver(n int, text string) string {
	h.t.Helper()
	text = strings.Replace(text, "<1@", fmt.Sprintf("<%d@", n), 1)
	v := judged(h.t, h.f, mailTo("192.0.2.1", "carl@friend.example", text, "ann@test.lan"))
	folder := v.FolderFor("ann@test.lan")
	if folder == "" {
		folder = "INBOX"
	}
	err := h.store.Deliver(h.t.Context(), receiveText(h.t, h.drop, v.Fields+text), []Delivery{{Account: "ann@test.lan", Folder: folder}})
	if err != nil {
		h.t.Fatal(err)
	}
	return folder
}

// wantLearned waits until the filter has learned so many messages.
func (h *schoolHouse) wantLearned(unwanted, wanted int) {
	h.t.Helper()
	h.f.teacher.idle(h.t)
	if s := h.f.Status(); s.Unwanted != unwanted || s.Wanted != wanted {
		h.t.Fatalf("%d unwanted and %d wanted messages are learned, not %d and %d", s.Unwanted, s.Wanted, unwanted, wanted)
	}
}

// idle waits until there is nothing to learn.
func (s *spamTeacher) idle(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		s.mu.Lock()
		running := s.running
		s.mu.Unlock()
		if !running {
			return
		}
	}
	t.Fatal("learning takes very long")
}

// move moves all messages of a folder.
func move(t testing.TB, from, to *Folder) {
	t.Helper()
	if _, _, _, err := from.Move(from.UIDs(), to); err != nil {
		t.Fatal(err)
	}
}

func TestTeachByMoving(t *testing.T) {
	h := newSchoolHouse(t)
	inbox, junk, trash, archive, drafts := h.folder("INBOX"), h.folder("Junk"), h.folder("Trash"), h.folder("Archive"), h.folder("Drafts")
	if to := h.deliver(1, friendLetter); to != "INBOX" {
		t.Fatalf("delivered to %s", to)
	}
	move(t, inbox, archive)
	move(t, archive, trash)
	move(t, trash, inbox)
	h.wantLearned(0, 0)
	move(t, inbox, junk)
	h.wantLearned(1, 0)
	if as := h.f.learned.knows("ann@test.lan", mustAddress("carl@friend.example")); as != knownUnwanted {
		t.Errorf("the author is known as %d", as)
	}
	if to := h.deliver(2, friendLetter); to != "Junk" { // at once, without any training
		t.Errorf("the next message of the author is delivered to %s", to)
	}
	h.wantLearned(1, 0) // what the filter has put there teaches nothing
	move(t, junk, trash)
	h.wantLearned(1, 0)
	move(t, trash, junk)
	h.wantLearned(2, 0) // by her own hand, both
	move(t, junk, inbox)
	h.wantLearned(0, 2)
	if as := h.f.learned.knows("ann@test.lan", mustAddress("carl@friend.example")); as != knownWanted {
		t.Errorf("the author is known as %d", as)
	}
	if to := h.deliver(3, friendLetter); to != "INBOX" {
		t.Errorf("then delivered to %s", to)
	}
	move(t, inbox, junk)
	h.wantLearned(3, 0)
	move(t, junk, trash)
	move(t, trash, archive) // thrown away first, and wanted after all
	h.wantLearned(0, 3)
	move(t, archive, junk)
	h.wantLearned(3, 0)
	move(t, junk, drafts)
	h.wantLearned(3, 0)
}

// TestTeachByCopying has clients without MOVE: a copy, and then the flag \Deleted.
func TestTeachByCopying(t *testing.T) {
	h := newSchoolHouse(t)
	inbox, junk := h.folder("INBOX"), h.folder("Junk")
	h.deliver(1, friendLetter)
	for range 3 { // once more is no news
		if _, err := inbox.Copy(inbox.UIDs(), junk); err != nil {
			t.Fatal(err)
		}
		h.wantLearned(1, 0)
	}
	if _, err := junk.Copy(junk.UIDs()[:1], inbox); err != nil {
		t.Fatal(err)
	}
	h.wantLearned(0, 1)
	// From one folder for unwanted mail into another.
	if err := h.drop.CreateFolder("Rubbish", []imap.MailboxAttr{imap.MailboxAttrJunk}); err != nil {
		t.Fatal(err)
	}
	rubbish := h.folder("Rubbish")
	if rubbish.UseOf() != imap.MailboxAttrJunk || junk.UseOf() != imap.MailboxAttrJunk || inbox.UseOf() != "" {
		t.Errorf("uses: %s %s %s", rubbish.UseOf(), junk.UseOf(), inbox.UseOf())
	}
	move(t, junk, rubbish)
	h.wantLearned(0, 1)
	if _, err := junk.Append([]AppendMessage{{In: receiveText(t, h.drop, strings.Replace(friendLetter, "<1@", "<9@", 1))}}); err != nil {
		t.Fatal(err)
	}
	h.wantLearned(1, 1)
}

// TestTeachForged moves a message into Junk that only says that it is from a friend: the friend must not suffer.
func TestTeachForged(t *testing.T) {
	h := newSchoolHouse(t)
	friend := mustAddress("carl@friend.example")
	h.f.learned.note("ann@test.lan", friend, knownWritten, 0)
	forged := judged(t, h.f, mailTo("192.0.2.99", "x@y.example", friendLetter, "ann@test.lan")).Fields
	if err := h.store.Deliver(t.Context(), receiveText(t, h.drop, forged+friendLetter), []Delivery{{Account: "ann@test.lan", Folder: "INBOX"}}); err != nil {
		t.Fatal(err)
	}
	move(t, h.folder("INBOX"), h.folder("Junk"))
	h.wantLearned(1, 0)
	if as := h.f.learned.knows("ann@test.lan", friend); as != knownWritten {
		t.Errorf("the friend is known as %d", as)
	}
}

// TestTeachBySent has a message filed in Sent that another program has sent.
func TestTeachBySent(t *testing.T) {
	h := newSchoolHouse(t)
	text := "From: ann@test.lan\r\nTo: Carl <Carl@friend.example>, bob@test.lan\r\nCc: group: dora@friend.example;\r\nBcc: \"e f\"@friend.example\r\n\r\nHello\r\n"
	sent := h.folder("Sent")
	if _, err := sent.Append([]AppendMessage{{In: receiveText(t, h.drop, text)}}); err != nil {
		t.Fatal(err)
	}
	h.wantLearned(0, 0)
	for address, want := range map[string]knownAs{"carl@friend.example": knownWritten, "dora@friend.example": knownWritten, `"e f"@friend.example`: knownWritten, "bob@test.lan": 0} {
		if as := h.f.learned.knows("ann@test.lan", mustAddress(address)); as != want {
			t.Errorf("%s is known as %d", address, as)
		}
		if as := h.f.learned.knows("bob@test.lan", mustAddress(address)); as != 0 {
			t.Errorf("%s is known to somebody else as %d", address, as)
		}
	}
	// Mail of those she writes to is learned as wanted by itself, and taken back when she moves it into Junk.
	h.deliver(1, friendLetter)
	h.wantLearned(0, 1)
	move(t, h.folder("INBOX"), h.folder("Junk"))
	h.wantLearned(1, 0)
}

// TestTeachMany moves more than is learned at once, and closes the filter while it learns.
func TestTeachMany(t *testing.T) {
	h := newSchoolHouse(t)
	inbox, junk := h.folder("INBOX"), h.folder("Junk")
	var msgs []AppendMessage
	for n := range 120 {
		msgs = append(msgs, AppendMessage{In: receiveText(t, h.drop, strings.Replace(friendLetter, "<1@", fmt.Sprintf("<%d@", n), 1))})
	}
	if _, err := inbox.Append(msgs); err != nil {
		t.Fatal(err)
	}
	move(t, inbox, junk)
	if err := h.f.Close(); err != nil {
		t.Fatal(err)
	}
	if n := h.f.Status().Unwanted; n > 120 {
		t.Errorf("%d are learned", n)
	}
	move(t, junk, inbox) // nobody listens any more
	if h.f.teacher.running || len(h.f.teacher.lessons) > 0 {
		t.Error("it still learns")
	}
}

// TestTeachGone expunges what is to be learned.
func TestTeachGone(t *testing.T) {
	h := newSchoolHouse(t)
	junk := h.folder("Junk")
	h.f.teacher.learn(new(spamReader), lesson{junk, []imap.UID{1, 2, 3}, lessonUnwanted})
	h.wantLearned(0, 0)
}

// TestRetainHoldsMaildrop makes sure that a folder that was retained can be given back without taking the maildrop away from
// those who use it.
func TestRetainHoldsMaildrop(t *testing.T) {
	s := closedStore(t)
	d := testDropOf(t, s, "ann@test.lan")
	defer d.Release()
	f := openFolder(t, d, "INBOX")
	defer f.Release()
	uses := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return d.refs
	}
	before := uses()
	for range 3 {
		if !f.Retain() {
			t.Fatal("the folder has left memory")
		}
		f.Release()
	}
	if after := uses(); after != before {
		t.Errorf("the maildrop is used %d times, not %d", after, before)
	}
}

// TestTeachByIMAP is the whole way: SMTP, the filter, IMAP.
func TestTeachByIMAP(t *testing.T) {
	verifier := testVerifier(startDNS(t, friendZone))
	var f *SpamFilter
	s := transcriptServer(t, &Protocols{Judge: func(ctx context.Context, m *ReceivedMail) (Verdict, error) {
		m.Remote = netip.MustParseAddr("192.0.2.1")
		return f.Judge(ctx, m)
	}})
	f = testSpamFilter(t, SpamConfig{Store: s.Store, Verifier: verifier, IsLocalDomain: s.Accounts.IsLocalDomain, Log: slog.New(slog.NewTextHandler(s.log, nil))})
	smtp := s.raw(t, "smtp")
	smtp.send("EHLO mail.friend.example\r\n")
	smtp.expect("220 ", "250 ")
	send := func(n int, to ...string) {
		t.Helper()
		smtp.send("MAIL FROM:<carl@friend.example>\r\n")
		smtp.expect("250 ")
		for _, one := range to {
			smtp.send("RCPT TO:<" + one + ">\r\n")
			smtp.expect("250 ")
		}
		smtp.send("DATA\r\n" + strings.Replace(friendLetter, "<1@", fmt.Sprintf("<%d@", n), 1) + ".\r\n")
		smtp.expect("354 ", "250 ")
	}
	send(1, "ann@test.lan", "bob@test.lan")
	c := tls.Client(s.dial(t, "imaps"), s.client)
	r := bufio.NewReader(c)
	command := func(line string) (answer string) {
		t.Helper()
		if _, err := c.Write([]byte("a " + line + "\r\n")); err != nil {
			t.Fatal(err)
		}
		for {
			got, err := r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(got, "a ") {
				if !strings.HasPrefix(got, "a OK") {
					t.Fatalf("%s: %s", line, got)
				}
				return answer
			}
			answer += got
		}
	}
	command("LOGIN ann@test.lan ann-secret")
	command("SELECT INBOX")
	command("UID MOVE 1 Junk")
	f.teacher.idle(t)
	if n := f.Status().Unwanted; n != 1 {
		t.Fatalf("%d messages are learned", n)
	}
	send(2, "ann@test.lan", "bob@test.lan")
	if got := command("STATUS Junk (MESSAGES)"); !strings.Contains(got, "MESSAGES 2") {
		t.Errorf("Ann's Junk: %s", got)
	}
	if n := len(s.inboxOf(t, "bob@test.lan")); n != 2 {
		t.Errorf("%d messages in Bob's INBOX", n)
	}
}

// TestTeachNotByOutbox sees that what is moved out of the Outbox, which tells of mail that waits, teaches nothing.
func TestTeachNotByOutbox(t *testing.T) {
	h := newSchoolHouse(t)
	if err := h.drop.CreateFolder(outboxName, nil); err != nil {
		t.Fatal(err)
	}
	outbox, inbox, junk := h.folder(outboxName), h.folder("INBOX"), h.folder("Junk")
	if kind := lessonOf(Filing{From: outbox, To: junk}); kind != lessonNone {
		t.Errorf("out of the Outbox: lesson %d", kind)
	}
	if kind := lessonOf(Filing{From: inbox, To: junk}); kind != lessonUnwanted {
		t.Errorf("out of INBOX: lesson %d", kind)
	}
}
