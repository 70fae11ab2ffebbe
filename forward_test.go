package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

func (w *outWorld) setForward(account string, only bool, to ...string) {
	w.t.Helper()
	if _, err := w.Accounts.SetForward(account, to, only); err != nil {
		w.t.Fatal(err)
	}
}

// forwardedText is a message with all that must stay as it is.
const forwardedText = "DKIM-Signature: v=1; a=b\r\nFrom: friend@friends.test\r\nTo: bob@test.lan\r\nReturn-Path: <forged@x.test>\r\nSubject:  two  spaces\r\n\tfolded\r\n\r\n.dot\r\nGr\xc3\xbc\xc3\x9fe\r\n"

func TestForwardKeepsACopy(t *testing.T) {
	w, _ := openRulesWorld(t)
	w.setForward("bob@test.lan", false, "Far@friends.test", "far2@friends.test")
	w.arrives("friend@elsewhere.test", forwardedText, "bob@test.lan", "ann@test.lan")
	m := w.next.wait(t)
	if !slices.Equal(m.to, []string{"far@friends.test", "far2@friends.test"}) && !slices.Equal(m.to, []string{"Far@friends.test", "far2@friends.test"}) {
		t.Errorf("to %v", m.to)
	}
	if back, err := w.srs.Reverse(localOf(m.from)); err != nil || back.String() != "friend@elsewhere.test" || !strings.HasSuffix(m.from, "@test.lan") {
		t.Errorf("from %s, which is %s, %v", m.from, back, err)
	}
	if !strings.HasPrefix(m.text, "Delivered-To: bob@test.lan\r\nReceived: from mx.friends.test") || !strings.HasSuffix(m.text, forwardedText+"\r\n") || strings.Count(m.text, "Return-Path") != 1 {
		t.Errorf("text:\n%s", m.text)
	}
	for _, account := range []string{"bob@test.lan", "ann@test.lan"} {
		if got := w.inboxOf(t, account); len(got) != 1 || !strings.HasSuffix(got[0], forwardedText+"\r\n") || strings.Contains(got[0], "Delivered-To") {
			t.Errorf("%s has %q", account, got)
		}
	}
	w.empty()
	if len(w.next.arrived) != 0 {
		t.Error("it went on twice")
	}
}

func TestForwardKeepsNoCopy(t *testing.T) {
	w, _ := openRulesWorld(t)
	w.setForward("bob@test.lan", true, "far@friends.test")
	w.setAway("bob@test.lan", AwayNote{Text: "Away"})
	for i, from := range []string{"", "ann@test.lan", "friend@friends.test"} {
		w.arrives(from, fmt.Sprintf("To: bob@test.lan\r\nSubject: m%d\r\n\r\nhi", i), "bob@test.lan")
		m := w.next.wait(t)
		if m.to[0] == "friend@friends.test" { // the answer
			m = w.next.wait(t)
		}
		want := from
		if i == 2 {
			want = m.from
			if back, err := w.srs.Reverse(localOf(m.from)); err != nil || back.String() != from {
				t.Errorf("from %s, %v", m.from, err)
			}
		}
		if m.from != want || !strings.Contains(m.text, fmt.Sprintf("Subject: m%d", i)) {
			t.Errorf("%q: from %s\n%s", from, m.from, m.text)
		}
	}
	w.submit("", "To: bob@test.lan\r\nSubject: direct\r\n\r\nhi", "<bob@test.lan>")
	w.submit("", "To: bob@test.lan, x@friends.test\r\nSubject: queued\r\n\r\nhi", "<bob@test.lan>", "<x@friends.test>")
	w.until("all to go on", func() bool { return len(w.answered()) == 7 })
	if got := w.answered(); !slices.Equal(got, []string{"far@friends.test", "far@friends.test", "far@friends.test", "far@friends.test", "far@friends.test", "friend@friends.test", "x@friends.test"}) {
		t.Errorf("went to %v", got)
	}
	if got := w.inboxOf(t, "bob@test.lan"); len(got) != 0 {
		t.Errorf("bob has %q", got)
	}
}

// TestForwardStays has messages come that do not go on, and none of them is lost.
func TestForwardStays(t *testing.T) {
	w, clock := openRulesWorld(t)
	w.setForward("bob@test.lan", true, "far@friends.test")
	w.arrives("a@friends.test", "Subject: unwanted\r\n\r\n", "bob@test.lan")
	w.arrives("b@friends.test", "Delivered-To: bob@test.lan\r\nSubject: loop\r\n\r\n", "bob@test.lan")
	w.arrives("c@friends.test", strings.Repeat("X: "+strings.Repeat("y", 900)+"\r\n", maxRuledHeader/900)+"Subject: huge\r\n\r\n", "bob@test.lan")
	for range forwardsPerHour {
		w.out.Rules.forwards.Take(senderOf("bob@test.lan"))
	}
	w.arrives("d@friends.test", "Subject: flood\r\n\r\n", "bob@test.lan")
	clock.add(time.Hour)
	tmp := w.Queue.TmpDir()
	if err := os.Rename(tmp, tmp+".away"); err != nil {
		t.Fatal(err)
	}
	w.arrives("e@friends.test", "Subject: no queue\r\n\r\n", "bob@test.lan")
	if err := os.Rename(tmp+".away", tmp); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(w.inboxOf(t, "bob@test.lan"), "\n")
	for _, subject := range []string{"loop", "huge", "flood", "no queue"} {
		if strings.Count(got, "Subject: "+subject) != 1 {
			t.Errorf("%q is not in the INBOX once", subject)
		}
	}
	if gone := w.answered(); len(gone) != 0 {
		t.Errorf("went on to %v", gone)
	}
	w.arrives("f@friends.test", "Subject: on again\r\n\r\n", "bob@test.lan")
	if m := w.next.wait(t); !strings.Contains(m.text, "mark") && !strings.Contains(m.text, "on again") {
		t.Error(m.text)
	}
	w.until("the last one to go on", func() bool { return slices.Contains(w.answered(), "far@friends.test") })
}

// TestForwardRefused brings what the other server does not take into the INBOX, with a word why.
func TestForwardRefused(t *testing.T) {
	for _, only := range []bool{true, false} {
		w, _ := openRulesWorld(t)
		w.setForward("bob@test.lan", only, "far@friends.test")
		w.next.mu.Lock()
		w.next.refuse = func(to string) error {
			return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "not from you"}
		}
		w.next.mu.Unlock()
		w.arrives("friend@friends.test", forwardedText, "bob@test.lan")
		got := w.wait("bob@test.lan", 2)
		message := slices.IndexFunc(got, func(text string) bool {
			return strings.HasPrefix(text, "Return-Path: <friend@friends.test>\r\n") && strings.HasSuffix(text, forwardedText+"\r\n")
		})
		report := slices.IndexFunc(got, func(text string) bool {
			return strings.Contains(text, "not from you") && strings.Contains(text, "To: <bob@test.lan>")
		})
		words := map[bool]string{true: "is in your INBOX, as it could not be forwarded to:", false: "could not be forwarded to:"}[only]
		if message < 0 || report < 0 || !strings.Contains(got[max(report, 0)], words) || strings.Contains(got[max(report, 0)], "Your message") {
			t.Errorf("only %t: %q", only, got)
		}
		w.empty()
		if len(w.inboxOf(t, "bob@test.lan")) != 2 || len(w.inboxOf(t, "ann@test.lan")) != 0 {
			t.Error("more came")
		}
		w.next.mu.Lock()
		if len(w.next.got) != 0 {
			t.Errorf("the sender was told: %v", w.next.got)
		}
		w.next.mu.Unlock()
	}
}

// TestForwardGiveBackWaits keeps a message in the queue for as long as it can go nowhere, and over a restart.
func TestForwardGiveBackWaits(t *testing.T) {
	w, _ := openRulesWorld(t)
	w.setForward("bob@test.lan", true, "far@friends.test")
	limit := func(n int64) {
		t.Helper()
		if _, err := w.Accounts.SetQuota("bob@test.lan", QuotaChange{Messages: &n}); err != nil {
			t.Fatal(err)
		}
	}
	refuse := func(code int) {
		w.next.mu.Lock()
		defer w.next.mu.Unlock()
		w.next.refuse = func(string) error { return &smtp.SMTPError{Code: code, Message: "no"} }
	}
	limit(1)
	refuse(450)
	w.arrives("friend@friends.test", "Subject: kept\r\n\r\nhi", "bob@test.lan")
	w.until("a first try", func() bool { e := w.Queue.List(); return len(e) == 1 && e[0].Recipients[0].Tries == 1 })
	if err := w.out.deliver(t.Context(), "", strings.NewReader("Subject: full\r\n\r\n"), []string{"bob@test.lan"}); err != nil {
		t.Fatal(err)
	}
	refuse(550)
	if err := w.Queue.Retry(""); err != nil {
		t.Fatal(err)
	}
	w.until("a second try", func() bool {
		return w.Queue.List()[0].Recipients[0].Tries == 2 && strings.Contains(w.log.String(), "not in the INBOX yet")
	})
	w.quiet()
	w.reopen(w.next.port)
	if got := w.inboxOf(t, "bob@test.lan"); w.Queue.Len() != 1 || len(got) != 1 {
		t.Fatalf("%d wait, bob has %q", w.Queue.Len(), got)
	}
	limit(0)
	if err := w.Queue.Retry(""); err != nil {
		t.Fatal(err)
	}
	got := w.wait("bob@test.lan", 3)
	if !slices.ContainsFunc(got, func(text string) bool {
		return strings.HasPrefix(text, "Return-Path: <friend@friends.test>\r\n") && strings.HasSuffix(text, "\r\n\r\nhi\r\n")
	}) {
		t.Errorf("bob has %q", got)
	}
	w.empty()
}

// TestForwardOfForward leads from one person here to another and back: it ends.
func TestForwardOfForward(t *testing.T) {
	w, _ := openRulesWorld(t)
	if _, err := w.Accounts.SetForward("bob@test.lan", []string{"ann@test.lan"}, true); err == nil {
		t.Error("an address here")
	}
	w.setForward("bob@test.lan", true, "ann@later.test")
	w.setForward("ann@test.lan", true, "bob@later.test")
	for alias, to := range map[string]string{"ann@later.test": "ann@test.lan", "bob@later.test": "bob@test.lan"} {
		if _, err := w.Accounts.AddAlias(alias, []string{to}); err != nil {
			t.Fatal(err)
		}
	}
	w.arrives("friend@friends.test", "Subject: round\r\n\r\n", "bob@test.lan")
	got := w.wait("bob@test.lan", 1)
	if strings.Count(got[0], "Delivered-To:") != 2 {
		t.Errorf("%q", got)
	}
	w.empty()
	if n := len(w.inboxOf(t, "bob@test.lan")) + len(w.inboxOf(t, "ann@test.lan")); n != 1 {
		t.Errorf("%d copies", n)
	}
}

// TestForwardBounces brings bounces back to the sender, and nothing else to anybody.
func TestForwardBounces(t *testing.T) {
	w, clock := openRulesWorld(t)
	address, _ := w.srs.Forward(mustAddress("friend.with-a.very-long.name+and=signs@friends.test"), "test.lan")
	other, _ := w.srs.Forward(mustAddress("other@friends.test"), "test.lan")
	w.arrives("", "Subject: a bounce\r\nContent-Type: multipart/report\r\n\r\nhi", strings.ToUpper(localOf(address))+"@test.lan")
	m := w.next.wait(t)
	if m.from != "" || !strings.EqualFold(m.to[0], "friend.with-a.very-long.name+and=signs@friends.test") || !strings.Contains(m.text, "Subject: a bounce") {
		t.Errorf("%q to %v:\n%s", m.from, m.to, m.text)
	}
	c := w.raw(t, "smtp")
	defer c.Close()
	c.send("EHLO x\r\n")
	c.expect("220 ", "250 ")
	forged := "SRS0=abcdefgh" + address[strings.Index(address[5:], "=")+5:]
	foreign, _ := testSRS(t, "", nil).Forward(mustAddress("victim@friends.test"), "test.lan")
	for _, try := range []struct{ from, to, code string }{
		{"<>", forged, "550 5.1.1"}, {"<>", foreign, "550 5.1.1"}, {"<>", "SRS0=x@test.lan", "550 5.1.1"}, {"<>", "SRS1=x=friends.test==y@test.lan", "550 5.1.1"},
		{"<x@friends.test>", address, "550 5.7.1"}, {"<ann@test.lan>", address, "550 5.7.1"},
		{"<>", localOf(address) + "@friends.test", "550 5.7.1"}, // not ours: no relaying
		{"<>", strings.Replace(address, "friends.test=", "friends.tesu=", 1), "550 5.1.1"},
	} {
		c.send("MAIL FROM:" + try.from + "\r\nRCPT TO:<" + try.to + ">\r\nRSET\r\n")
		c.expect("250 ", try.code, "250 ")
	}
	c.send("MAIL FROM:<>\r\nRCPT TO:<" + other + ">\r\nRCPT TO:<ann@test.lan>\r\nRCPT TO:<" + address + ">\r\nRSET\r\n")
	c.expect("250 ", "250 ", "452 4.5.3", "452 4.5.3", "250 ")
	c.send("MAIL FROM:<>\r\nRCPT TO:<ann@test.lan>\r\nRCPT TO:<" + other + ">\r\nRSET\r\n")
	c.expect("250 ", "250 ", "452 4.5.3", "250 ")
	c.send("MAIL FROM:<>\r\nRCPT TO:<" + other + ">\r\nDATA\r\nSubject: unwanted\r\n\r\n.\r\n")
	c.expect("250 ", "250 ", "354 ", "550 5.7.1")
	for range bouncesPerHour - 3 {
		c.send("MAIL FROM:<>\r\nRCPT TO:<" + other + ">\r\nRSET\r\n")
		c.expect("250 ", "250 ", "250 ")
	}
	c.send("MAIL FROM:<>\r\nRCPT TO:<" + other + ">\r\nRCPT TO:<" + other + ">\r\nRSET\r\n")
	c.expect("250 ", "250 ", "452 ", "250 ")
	c.send("MAIL FROM:<>\r\nRCPT TO:<" + other + ">\r\nRSET\r\n")
	c.expect("250 ", "451 4.7.1", "250 ")
	clock.add((srsDays + 1) * 24 * time.Hour)
	c.send("MAIL FROM:<>\r\nRCPT TO:<" + address + ">\r\nRSET\r\n")
	c.expect("250 ", "550 5.1.1", "250 ")
	w.empty()
	if len(w.next.arrived) != 0 {
		t.Error("something else went out")
	}
	login := w.login()
	defer login.Close()
	login.send("MAIL FROM:<ann@test.lan>\r\nRCPT TO:<" + address + ">\r\n")
	login.expect("250 ", "550 ")
}

// TestForwardCommand sets, shows and ends forwarding.
func TestForwardCommand(t *testing.T) {
	data := pageData(t)
	check := func() {
		t.Helper()
		if out := mustRun(t, data, "user", "forward", "bob", "Bob@Example.org", "b@example.net"); out != "Mail of bob@home.lan goes on to bob@example.org b@example.net, and a copy stays here.\n" {
			t.Errorf("%q", out)
		}
		if out := mustRun(t, data, "user", "forward", "bob", "bob@example.org", "--no-copy"); out != "Mail of bob@home.lan goes on to bob@example.org, and no copy stays here.\n" {
			t.Errorf("%q", out)
		}
		if out := mustRun(t, data, "user", "forward", "bob", "--json"); out != "{\n  \"to\": [\n    \"bob@example.org\"\n  ],\n  \"copy\": false\n}\n" {
			t.Errorf("%q", out)
		}
		if out := mustRun(t, data, "user", "list"); !strings.Contains(out, "mail goes on to bob@example.org, and no copy stays here") {
			t.Error(out)
		}
		if out := mustRun(t, data, "user", "forward", "bob", "off"); out != "Mail of bob@home.lan stays here.\n" {
			t.Errorf("%q", out)
		}
	}
	check()
	startRun(t, data)
	check()
	for _, bad := range []struct {
		status int
		words  string
		args   []string
	}{
		{exitFailed, "is an address of this appliance", []string{"maria@home.lan"}},
		{exitFailed, "is not an address", []string{"bob"}},
		{exitFailed, "is there twice", []string{"a@example.org", "A@example.org"}},
		{exitFailed, "to 10 addresses at most", strings.Fields("1@x.test 2@x.test 3@x.test 4@x.test 5@x.test 6@x.test 7@x.test 8@x.test 9@x.test 10@x.test 11@x.test")},
		{exitUsage, "--no-copy needs an address", []string{"--no-copy"}},
	} {
		if status, _, errs := runCommand(t, data, "", append([]string{"user", "forward", "bob"}, bad.args...)...); status != bad.status || !strings.Contains(errs, bad.words) {
			t.Errorf("%v: %d %s", bad.args, status, errs)
		}
	}
}

func TestWebForward(t *testing.T) {
	p := startPage(t)
	b := p.loggedIn(t, "bob", bobsPassword)
	b.get("/mine/forward")
	b.says(200, "<h1>Forwarding</h1>", "Your mail stays here.")
	for to, says := range map[string]string{
		"":                  "Type an address that your mail goes on to.",
		"a@b.test nobody":   "nobody is no address.",
		"maria@home.lan":    "maria@home.lan is an address of this server.",
		"a@b.test,A@b.test": "a@b.test is there twice.",
		strings.Repeat("x@y.test\n", maxForwards+1): "These are too many addresses: 10 at most.",
	} {
		b.post("/mine/forward", "to", to, "copy", "yes")
		b.says(422, says, "checked")
	}
	b.post("/mine/forward", "to", "Bob@Example.org\r\nb@example.net", "copy", "yes")
	b.says(200, "Your mail goes on to these addresses from now on.", "Your mail goes on, and a copy stays here.", ">bob@example.org\nb@example.net</textarea>")
	b.post("/mine/forward", "to", "bob@example.org")
	b.says(200, "and no copy stays here.")
	if out := mustRun(t, p.data, "user", "forward", "bob"); !strings.Contains(out, "goes on to bob@example.org, and no copy") {
		t.Error(out)
	}
	if log := p.stderr.String(); !strings.Contains(log, `msg=changed page="POST /mine/forward" by=bob@home.lan`) || !strings.Contains(log, `msg="forwarding changed" account=bob@home.lan to=bob@example.org copy=false`) {
		t.Error("the log does not tell of the change")
	}
	b.post("/mine/forward/off")
	b.says(200, "Your mail stays here from now on.", "Your mail stays here.")
}
