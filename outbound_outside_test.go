package main

import (
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
)

// loginAs opens a session of submission.
func (w *outWorld) loginAs(user, password string) *rawClient {
	w.t.Helper()
	c := w.raw(w.t, "submissions")
	c.send("EHLO laptop\r\nAUTH PLAIN " + encodeLine("{plain "+user+" "+password+"}") + "\r\n")
	c.expect("220 ", "250 ", "235 ")
	return c
}

// Who has an address elsewhere sends with it, by an app password, too; others do not. Its mail leaves unsigned, what fails is
// told here and not over there, and what waits is in the sender's Outbox.
func TestOutboundFromOutside(t *testing.T) {
	w := openOutWorld(t)
	signer := &DKIMSigner{Dir: t.TempDir(), IsLocal: w.Accounts.IsLocalDomain}
	w.adjust = func(s *Sender) { s.Sign = signer.Sign }
	w.reopen(w.next.port)
	if _, err := w.Accounts.AddOutside("ann@test.lan", "ann.annson@friends.test"); err != nil {
		t.Fatal(err)
	}
	app, err := w.Accounts.AddAppPassword("ann@test.lan", "phone")
	if err != nil {
		t.Fatal(err)
	}
	send := func(c *rawClient, from, author, subject, reply string) {
		t.Helper()
		c.send("MAIL FROM:<" + from + ">\r\nRCPT TO:<bob@friends.test>\r\nRCPT TO:<bob@test.lan>\r\nDATA\r\n")
		c.expect("250 ", "250 ", "250 ", "354 ")
		c.send("From: Ann <" + author + ">\r\nSubject: " + subject + "\r\n\r\ntext\r\n.\r\n")
		c.expect(reply)
	}
	for _, password := range []string{"ann-secret", app} {
		c := w.loginAs("ann@test.lan", password)
		send(c, "Ann.Annson@Friends.test", "ann.annson@FRIENDS.test", "by "+password, "250 2.0.0 Queued")
		m := w.next.wait(t)
		if m.from != "Ann.Annson@friends.test" || strings.Contains(m.text, "DKIM-Signature") || !strings.Contains(m.text, "From: Ann <ann.annson@FRIENDS.test>\r\n") {
			t.Errorf("sent: %+v", m)
		}
		send(c, "ann@test.lan", "ann@test.lan", "of here", "250 ")
		if m := w.next.wait(t); !strings.Contains(m.text, "DKIM-Signature") {
			t.Error("mail of our own domain is not signed")
		}
		c.send("MAIL FROM:<annson@friends.test>\r\n")
		c.expect("553 5.7.1 annson@friends.test is not an address of ann@test.lan")
		w.empty()
	}
	c := w.loginAs("bob@test.lan", "bob-secret")
	c.send("MAIL FROM:<ann.annson@friends.test>\r\n")
	c.expect("553 5.7.1 ann.annson@friends.test is not an address of bob@test.lan")
	send(c, "bob@test.lan", "ann.annson@friends.test", "forged", "550 5.7.1 The message is from ann.annson@friends.test, which is not an address of bob@test.lan")
	w.submitAs("ann.annson@friends.test", "waits") // while the next server is busy
	box := w.outbox(1)
	if got := w.imapDo(box, "FETCH 1 BODY.PEEK[]"); !strings.Contains(got, "From: ann.annson@friends.test") || !strings.Contains(got, "bob@friends.test") {
		t.Errorf("the Outbox:\n%s", got)
	}
	w.next.mu.Lock()
	w.next.refuse = func(to string) error {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "Nobody called " + to}
	}
	w.next.mu.Unlock()
	w.imapDo(box, `STORE 1 +FLAGS (\Flagged)`)
	w.messages(box, "Outbox", 0)
	got := w.wait("ann@test.lan", 1)
	if len(got) != 1 || !strings.HasPrefix(got[0], "Return-Path: <>\r\n") || !strings.Contains(got[0], "Nobody called bob@friends.test") || !strings.Contains(got[0], "Subject: waits") {
		t.Errorf("the report: %q", got)
	}
	w.empty()
	if n := len(w.next.arrived); n != 0 {
		t.Errorf("%d messages more have left", n)
	}
	// The limit of an hour holds for a person, whatever address she sends with: she has written to five already.
	c = w.loginAs("ann@test.lan", app)
	c.send("MAIL FROM:<ann.annson@friends.test>\r\nRCPT TO:<one@friends.test>\r\n")
	c.expect("250 ", "451 4.7.1 ann@test.lan has written to 5 addresses elsewhere")

	// A report finds the sender under another address, too.
	if err := w.Accounts.Rename("ann@test.lan", "annie@test.lan"); err != nil {
		t.Fatal(err)
	}
	if err := w.out.report(t.Context(), &Envelope{From: "ann.annson@friends.test", Account: "ann@test.lan"}, []byte("Subject: late\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if got := w.inboxOf(t, "annie@test.lan"); len(got) != 1 || !strings.Contains(got[0], "Subject: late") {
		t.Errorf("after another address: %q", got)
	}
}

// submitAs sends a message of ann's from an address while the next server is busy.
func (w *outWorld) submitAs(from, subject string) {
	w.t.Helper()
	w.next.busy("Come back later")
	c := w.login()
	defer c.Close()
	c.send("MAIL FROM:<" + from + ">\r\nRCPT TO:<bob@friends.test>\r\nDATA\r\n")
	c.expect("250 ", "250 ", "354 ")
	c.send("From: " + from + "\r\nSubject: " + subject + "\r\n\r\ntext\r\n.\r\n")
	c.expect("250 ")
}
