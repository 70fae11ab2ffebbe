package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// busy makes the next server refuse all for the moment.
func (n *nextServer) busy(words string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse = nil; words != "" {
		n.refuse = func(string) error {
			return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: words}
		}
	}
}

// imapDo gives a command to a session and its whole answer.
func (w *outWorld) imapDo(c *rawClient, format string, args ...any) string {
	w.t.Helper()
	c.send("a " + fmt.Sprintf(format, args...) + "\r\n")
	var answer strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			w.t.Fatal(err)
		}
		answer.WriteString(line)
		if strings.HasPrefix(line, "a ") {
			if !strings.HasPrefix(line, "a OK") {
				w.t.Fatalf("%s: %s", fmt.Sprintf(format, args...), line)
			}
			return answer.String()
		}
	}
}

// outbox opens ann's Outbox by IMAP when n messages lie there.
func (w *outWorld) outbox(n int) *rawClient {
	w.t.Helper()
	c := w.raw(w.t, "imaps")
	c.expect("* OK")
	w.imapDo(c, "LOGIN ann@test.lan ann-secret")
	w.until(fmt.Sprintf("an Outbox with %d messages", n), func() bool {
		return strings.Contains(w.imapDo(c, "LIST \"\" Outbox"), "* LIST") &&
			strings.Contains(w.imapDo(c, "STATUS Outbox (MESSAGES)"), fmt.Sprintf("(MESSAGES %d)", n))
	})
	w.imapDo(c, "SELECT Outbox")
	return c
}

// messages is how many lie in a mailbox of ann's.
func (w *outWorld) messages(c *rawClient, mailbox string, n int) {
	w.t.Helper()
	w.until(fmt.Sprintf("%d messages in %s", n, mailbox), func() bool {
		return strings.Contains(w.imapDo(c, "STATUS %s (MESSAGES)", mailbox), fmt.Sprintf("(MESSAGES %d)", n))
	})
}

const outboxText = "To: friend@friends.test\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nthe text"

func TestOutboxShowsAndHurries(t *testing.T) {
	w := openOutWorld(t)
	w.next.busy("Come back later")
	w.submit("", outboxText, "<friend@friends.test>")
	c := w.outbox(1)
	got := w.imapDo(c, "FETCH 1 (FLAGS BODYSTRUCTURE BODY.PEEK[])")
	for _, part := range []string{"Subject: =?utf-8?q?Waiting:_Gr=C3=BC=C3=9Fe?=", "  friend@friends.test\r\n  mx.friends.test [127.0.0.1]: Come back later\r\n  Next try: ",
		`"message" "rfc822"`, "the text", "flag this message", `(\Seen`, "To: <ann@test.lan>"} {
		if !strings.Contains(strings.ToLower(got), strings.ToLower(part)) {
			t.Errorf("the message lacks %q:\n%s", part, got)
		}
	}
	w.imapDo(c, `STORE 1 +FLAGS (\Flagged)`)
	w.until("the second try", func() bool { return w.Queue.List()[0].Recipients[0].Tries == 2 })
	w.until("the end of the flag", func() bool { return !strings.Contains(w.imapDo(c, "FETCH 1 FLAGS"), `\Flagged`) })
	w.next.busy("")
	w.imapDo(c, `STORE 1 +FLAGS (\Flagged)`)
	w.next.wait(t)
	w.messages(c, "Outbox", 0)
	w.empty()
}

func TestOutboxCancels(t *testing.T) {
	w := openOutWorld(t)
	w.next.busy("Come back later")
	takeOut := map[string]func(c *rawClient){
		"moved to Trash":    func(c *rawClient) { w.imapDo(c, "MOVE 1 Trash") },
		"expunged":          func(c *rawClient) { w.imapDo(c, `STORE 1 +FLAGS.SILENT (\Deleted)`); w.imapDo(c, "EXPUNGE") },
		"marked as deleted": func(c *rawClient) { w.imapDo(c, `STORE 1 +FLAGS.SILENT (\Deleted)`) },
	}
	for what, take := range takeOut {
		t.Run(what, func(t *testing.T) {
			w.submit("", outboxText, "<friend@friends.test>")
			c := w.outbox(1)
			take(c)
			w.empty()
			w.imapDo(c, `UID STORE 1:* +FLAGS.SILENT (\Deleted)`)
			w.imapDo(c, "EXPUNGE")
		})
	}
	c := w.outbox(0)
	w.messages(c, "Trash", 1)
	w.next.busy("")
	if len(w.next.arrived) != 0 {
		t.Error("something was sent")
	}
}

func TestOutboxBecomesADraft(t *testing.T) {
	w := openOutWorld(t)
	w.next.busy("Come back later")
	for i, move := range []string{"MOVE 1 Drafts", `COPY 1 Drafts`} {
		w.submit("", outboxText, "<friend@friends.test>", "<hidden@friends.test>")
		c := w.outbox(1)
		w.imapDo(c, "%s", move)
		if i == 1 {
			if w.Queue.Len() != 1 {
				t.Error("a copy alone cancels")
			}
			w.imapDo(c, `STORE 1 +FLAGS (\Deleted)`)
			w.imapDo(c, "EXPUNGE")
		}
		w.empty()
		w.messages(c, "Drafts", 1)
		w.imapDo(c, "SELECT Drafts")
		got := w.imapDo(c, "FETCH 1 (FLAGS BODY.PEEK[])")
		if !strings.Contains(got, "{") || !strings.Contains(got, "}\r\nFrom: ann@test.lan\r\nTo: friend@friends.test\r\n") || !strings.Contains(got, `\Draft`) ||
			!strings.Contains(got, "Bcc: hidden@friends.test\r\n\r\nthe text\r\n)") || strings.Contains(got, "Waiting") {
			t.Errorf("the draft:\n%s", got)
		}
		w.imapDo(c, `STORE 1 +FLAGS (\Deleted)`)
		w.imapDo(c, "EXPUNGE")
		c.Close()
	}
}

// A restart neither doubles what is shown nor loses hold of it; what was sent meanwhile is taken out.
func TestOutboxRestart(t *testing.T) {
	w := openOutWorld(t)
	w.next.busy("Come back later")
	w.submit("", "Subject: one\r\n", "<friend@friends.test>")
	w.submit("", "Subject: two\r\n", "<friend@friends.test>")
	w.outbox(2).Close()
	w.end()
	e := w.Queue.List()[0]
	if err := w.Queue.files.remove(e.ID); err != nil { // as if it had been sent just before a crash
		t.Fatal(err)
	}
	w.reopen(w.next.port)
	c := w.outbox(1)
	w.until("the next step", func() bool { return len(w.out.boxes.wake) == 0 })
	if got := w.imapDo(c, "FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT)]"); !strings.Contains(got, "Waiting: two") {
		t.Errorf("shown: %s", got)
	}
	w.imapDo(c, "MOVE 1 Trash")
	w.empty()
}

// What is shown is written anew when the reason changes, but once an hour at most; the mailbox as a whole may go.
func TestOutboxRenewal(t *testing.T) {
	w := openOutWorld(t)
	w.next.busy("Come back later")
	w.submit("", outboxText, "<friend@friends.test>")
	w.outbox(1).Close()
	w.end()
	now := time.Now()
	boxes := w.out.boxes
	boxes.boxes, boxes.now = map[string]*outbox{}, func() time.Time { return now }
	b := boxes.open("ann@test.lan")
	defer b.close()
	if err := b.adopt(); err != nil {
		t.Fatal(err)
	}
	e := w.Queue.List()[0]
	uids := func() []string {
		var list []string
		for _, entry := range b.shown {
			list = append(list, fmt.Sprint(entry.uid))
		}
		slices.Sort(list)
		return list
	}
	for _, step := range []struct {
		reason string
		after  time.Duration
		want   string
	}{
		{"first", 0, "[1]"}, {"first", 59 * time.Minute, "[1]"}, {"second", 2 * time.Minute, "[2]"}, {"third", 0, "[2]"}, {"third", time.Hour, "[3]"}, {"third", 0, "[3]"},
	} {
		now = now.Add(step.after)
		e.Recipients[0].Reason, e.Recipients[0].Next = step.reason, now.Add(time.Hour)
		if err := b.show(&e); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(uids()); got != step.want {
			t.Errorf("%s after %v: %s, want %s", step.reason, step.after, got, step.want)
		}
	}
	if err := b.drop.DeleteFolder(outboxName); err != nil {
		t.Fatal(err)
	}
	if err := b.obey(); err != nil || w.Queue.Len() != 1 {
		t.Errorf("after the end of the mailbox %d wait, %v", w.Queue.Len(), err)
	}
}

// imapRefused gives a command that is to fail, and its reply.
func (w *outWorld) imapRefused(c *rawClient, command string) string {
	w.t.Helper()
	c.send("a " + command + "\r\n")
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			w.t.Fatal(err)
		}
		if strings.HasPrefix(line, "a ") {
			if !strings.HasPrefix(line, "a NO ") {
				w.t.Errorf("%s: %s", command, line)
			}
			return line
		}
	}
}

// Only Drafts and Trash, and what lies below or has their use, take a message out of the Outbox; elsewhere it cannot go.
func TestOutboxMoves(t *testing.T) {
	w := openOutWorld(t)
	w.next.busy("Come back later")
	w.submit("", outboxText, "<friend@friends.test>")
	c := w.outbox(1)
	w.imapDo(c, "CREATE Trash/Old")
	w.imapDo(c, `CREATE Concepts (USE (\Drafts))`)
	w.imapDo(c, "CREATE Concepts/New")
	const why = "a NO [CANNOT] Mail that waits to be sent can be moved to Drafts or Trash alone, and is not sent then\r\n"
	for _, command := range []string{"MOVE 1 Archive", "UID MOVE 1:* INBOX", "COPY 1 Sent", "UID COPY 1:* Junk", "MOVE 1 Outbox"} {
		if got := w.imapRefused(c, command); got != why {
			t.Errorf("%s: %s", command, got)
		}
	}
	w.messages(c, "Outbox", 1)
	for _, folder := range []string{"Archive", "INBOX", "Sent", "Junk"} {
		w.messages(c, folder, 0)
	}
	if w.Queue.Len() != 1 {
		t.Fatal("it is cancelled")
	}
	w.imapDo(c, "MOVE 1 Trash/Old")
	w.empty()
	w.messages(c, "Trash/Old", 1)
	c.Close()

	w.submit("", outboxText, "<friend@friends.test>", "<hidden@friends.test>")
	c = w.outbox(1)
	w.imapDo(c, "MOVE 1 Concepts/New")
	w.empty()
	w.messages(c, "Concepts/New", 1)
	w.imapDo(c, "SELECT Concepts/New")
	if got := w.imapDo(c, "FETCH 1 BODY.PEEK[]"); !strings.Contains(got, "Bcc: hidden@friends.test\r\n\r\nthe text\r\n)") || strings.Contains(got, "Waiting") {
		t.Errorf("the draft: %s", got)
	}
	c.Close()

	// Nothing is put there: it would not be sent.
	w.submit("", outboxText, "<friend@friends.test>")
	c = w.outbox(1)
	const not = "a NO [CANNOT] What is put into the Outbox is not sent: write the message, or open it as a draft, and send it\r\n"
	c.send("a APPEND Outbox {13}\r\n")
	c.expect(not)
	if got := w.imapRefused(c, "APPEND Outbox {13+}\r\nSubject: x\r\n\r\n"); got != not {
		t.Errorf("APPEND: %s", got)
	}
	w.imapDo(c, "SELECT Trash/Old")
	for _, command := range []string{"COPY 1 Outbox", "UID MOVE 1:* Outbox"} {
		if got := w.imapRefused(c, command); got != not {
			t.Errorf("%s: %s", command, got)
		}
	}
	w.messages(c, "Trash/Old", 1)
	w.messages(c, "Outbox", 1)

	// What another program has put there is a message like others.
	dir, _, err := w.Store.accountDir("ann@test.lan")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, ".Outbox", "cur", "1700000000.M1P1.elsewhere:2,S")
	if err := os.WriteFile(name, []byte("Subject: x\r\n\r\n\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.messages(c, "Outbox", 2)
	w.imapDo(c, "SELECT Outbox")
	w.imapDo(c, "MOVE 2 Archive")
	w.messages(c, "Archive", 1)
	w.imapRefused(c, "MOVE 1 Archive")
	w.next.busy("")
	w.imapDo(c, `STORE 1 +FLAGS (\Flagged)`)
	w.next.wait(t)
	w.empty()
}
