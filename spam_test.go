package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/authres"
)

// testSpamFilter opens a filter that learns nothing but what it is told, and whose DNS knows nothing, unless cfg says otherwise.
func testSpamFilter(t testing.TB, cfg SpamConfig) *SpamFilter {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Verifier == nil {
		cfg.Verifier = testVerifier(startDNS(t, ""))
	}
	f, err := OpenSpamFilter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// judged is Judge without an error.
func judged(t testing.TB, f *SpamFilter, m *ReceivedMail) Verdict {
	t.Helper()
	verdict, err := f.Judge(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	return verdict
}

// mailTo is mailFrom for some accounts.
func mailTo(remote, from, text string, accounts ...string) *ReceivedMail {
	m := mailFrom(remote, from, text)
	m.ID, m.Accounts = "1", accounts
	for _, account := range accounts {
		m.Rcpts = append(m.Rcpts, mustAddress(account))
	}
	return m
}

func mustAddress(s string) Address {
	a, err := ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

// friendLetter is a message without anything odd.
const friendLetter = "From: Carl <carl@friend.example>\r\nTo: ann@test.lan\r\nSubject: The garden\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\n" +
	"Message-ID: <1@friend.example>\r\n\r\nShall we meet at the shed on Monday?\r\n"

// friendZone makes friendLetter one that is shown to be from there, when it comes from 192.0.2.1.
const friendZone = `
	friend.example. TXT "v=spf1 ip4:192.0.2.1 -all"
	mail.friend.example. A 192.0.2.1
	1.2.0.192.in-addr.arpa. PTR mail.friend.example.
`

func TestSpamUntaught(t *testing.T) {
	f := testSpamFilter(t, SpamConfig{Verifier: testVerifier(startDNS(t, friendZone))})
	v := judged(t, f, mailTo("192.0.2.1", "carl@friend.example", friendLetter, "ann@test.lan"))
	want := "X-Spam-Status: No, score=-0.5 required=5.0 sender=proven\r\nX-Spam-Reasons: it is shown to be from its author's domain (-0.5);\r\n" +
		"\twords are not judged yet (0 of 20 unwanted and 0 of 20 wanted messages are learned)\r\n"
	if !strings.HasSuffix(v.Fields, want) || !strings.HasPrefix(v.Fields, "Authentication-Results: ") || v.Folder != "" || v.Refuse != "" {
		t.Errorf("got %+v", v)
	}
	for _, near := range []string{"127.0.0.1", "192.168.1.7"} {
		if v := judged(t, f, mailTo(near, "carl@friend.example", friendLetter, "ann@test.lan")); v.Fields != "" || v.Folder != "" {
			t.Errorf("%s: %+v", near, v)
		}
	}
}

// TestSpamRules shows each rule at work, and that none alone makes a message spam.
func TestSpamRules(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	dns := startDNS(t, friendZone+`
		soft.example. TXT "v=spf1 ~all"
		hard.example. TXT "v=spf1 -all"
		policy.example. TXT "v=spf1 -all"
		_dmarc.policy.example. TXT "v=DMARC1; p=none"
		9.2.0.192.in-addr.arpa. PTR other.example.
		other.example. A 192.0.2.8
	`)
	f := testSpamFilter(t, SpamConfig{Verifier: testVerifier(dns), IsLocalDomain: func(d string) bool { return d == "test.lan" }, Now: func() time.Time { return now }})
	change := func(old, new string) string { return strings.Replace(friendLetter, old, new, 1) }
	body := func(fields, text string) string {
		return change("\r\n\r\nShall we meet at the shed on Monday?", "\r\n"+fields+"\r\n\r\n"+text)
	}
	html := "Content-Type: text/html; charset=utf-8"
	long := strings.Repeat("many words about the garden ", 20)
	for _, test := range []struct{ remote, from, helo, text, reason string }{
		{"192.0.2.9", "x@hard.example", "", friendLetter, "says that it does not send from there (SPF) (+2.0)"},
		{"192.0.2.9", "x@soft.example", "", friendLetter, "hardly sends from there (SPF) (+1.0)"},
		{"192.0.2.9", "x@other.example", "", change("carl@friend.example", "carl@policy.example"), "(DMARC) (+1.5)"},
		{"192.0.2.77", "carl@friend.example", "", friendLetter, "has no name (+1.0)"},
		{"192.0.2.9", "carl@friend.example", "", friendLetter, "is not its own (+0.7)"},
		{"192.0.2.1", "carl@friend.example", "mail.test", friendLetter, "with the name of this server (+2.0)"},
		{"192.0.2.1", "carl@friend.example", "pc", friendLetter, "without a name of the internet (+0.5)"},
		{"192.0.2.1", "carl@friend.example", "", change("carl@friend.example>", "bob@test.lan>"), "says that it is from here, and comes from outside (+2.5)"},
		{"192.0.2.1", "carl@friend.example", "", change("Carl <", `"service@bank.example" <`), "shows another address than the author's (+2.0)"},
		{"192.0.2.1", "carl@friend.example", "", change("Message-ID:", "X-ID:"), "it has no Message-ID (+0.7)"},
		{"192.0.2.1", "carl@friend.example", "", change("Date:", "X-Date:"), "it has no date (+0.7)"},
		{"192.0.2.1", "carl@friend.example", "", change("24 Nov 2026", "24 Nov 2031"), "its date is in the future (+1.0)"},
		{"192.0.2.1", "carl@friend.example", "", change("To:", "X-To:"), "does not say whom it is for (+0.5)"},
		{"192.0.2.1", "carl@friend.example", "", change("The garden", "THE GARDEN IS CHEAP"), "its subject is in capitals (+1.0)"},
		{"192.0.2.1", "carl@friend.example", "", change("The garden", "Re: The garden"), "calls itself an answer and names no message (+0.5)"},
		{"192.0.2.1", "carl@friend.example", "", body("Content-Disposition: attachment; filename*=utf-8''photo%2Escr", "MZ"), "(.scr) (+4.0)"},
		{"192.0.2.1", "carl@friend.example", "", body("Content-Disposition: attachment; filename=login.html", "x"), "an attachment is a web page (+1.5)"},
		{"192.0.2.1", "carl@friend.example", "", body("X: y", "see http://198.51.100.7/x\r\n"), "without a name (+1.5)"},
		{"192.0.2.1", "carl@friend.example", "", body(html, long+`<a href="http://evil.example/x">https://www.bank.example/login</a>`), "a link leads elsewhere than it says (+1.0)"},
		{"192.0.2.1", "carl@friend.example", "", body(html, long+`<form action="http://evil.example/x"><input></form>`), "it has a form to fill in (+1.0)"},
		{"192.0.2.1", "carl@friend.example", "", body(html, long), "it is HTML only (+0.3)"},
		{"192.0.2.1", "carl@friend.example", "", body(html, "<img src=http://evil.example/a.png>"), "hardly more than pictures (+1.0)"},
		{"192.0.2.1", "carl@friend.example", "", body("Content-Type: text/plain; charset=utf-8", "via\u200bgra cia\u200blis lev\u200bitra"), "invisible characters hide its words (+1.5)"},
	} {
		m := mailTo(test.remote, test.from, test.text, "ann@test.lan")
		if test.helo != "" {
			m.Helo = test.helo
		}
		v := judged(t, f, m)
		if !strings.Contains(v.Fields, test.reason) {
			t.Errorf("%q is not among:\n%s", test.reason, v.Fields)
		}
		if v.Folder != "" || v.Refuse != "" {
			t.Errorf("%q alone makes: %+v", test.reason, v)
		}
	}
}

func TestSpamQuietLetter(t *testing.T) {
	// What many wanted messages have is no reason: links that track, a newsletter's hidden beginning, pictures with text.
	f := testSpamFilter(t, SpamConfig{Verifier: testVerifier(startDNS(t, friendZone))})
	text := strings.Replace(friendLetter, "\r\n\r\n", "\r\nList-Unsubscribe: <https://friend.example/u>\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\n", 1) +
		"--b\r\nContent-Type: text/html\r\n\r\n<div style=\"display:none\">&zwnj;&nbsp;&zwnj;&nbsp;&zwnj;&nbsp;</div><p>Shall we meet?</p><img src=https://friend.example/1.png>" +
		"<a href=https://click.friend.example/1>www.friend.example</a>\r\n--b--\r\n"
	v := judged(t, f, mailTo("192.0.2.1", "carl@friend.example", text, "ann@test.lan"))
	if !strings.Contains(v.Fields, "score=-0.5 ") {
		t.Errorf("got %s", v.Fields)
	}
}

// TestSpamAcquaintance has people write to somebody, and forgers use the name.
func TestSpamAcquaintance(t *testing.T) {
	f := testSpamFilter(t, SpamConfig{Verifier: testVerifier(startDNS(t, friendZone)), IsLocalDomain: func(d string) bool { return d == "test.lan" }})
	sent := mailTo("192.168.1.5", "ann@test.lan", friendLetter, "carl@friend.example", "bob@test.lan")
	sent.Account, sent.Accounts = "ann@test.lan", nil
	if v := judged(t, f, sent); v.Fields != "" || v.Folder != "" {
		t.Errorf("submission: %+v", v)
	}
	if n := f.Status().Senders; n != 1 { // Bob is no stranger
		t.Errorf("%d senders are known", n)
	}
	score := func(remote, from string, accounts ...string) string {
		v := judged(t, f, mailTo(remote, from, friendLetter, accounts...))
		_, fields, _ := strings.Cut(v.Fields, spamStatusField)
		return fields
	}
	if got := score("192.0.2.1", "carl@friend.example", "ann@test.lan"); !strings.Contains(got, "the recipient has written to its author (-8.0)") {
		t.Errorf("proven: %s", got)
	}
	if got := score("192.0.2.1", "carl@friend.example", "bob@test.lan"); strings.Contains(got, "written") {
		t.Errorf("to somebody else: %s", got)
	}
	if got := score("192.0.2.9", "x@elsewhere.example", "ann@test.lan"); !strings.Contains(got, "its author seems to be known (-2.0)") {
		t.Errorf("unproven: %s", got)
	}
	if got := score("192.0.2.9", "carl@friend.example", "ann@test.lan"); strings.Contains(got, "known") || strings.Contains(got, "written") {
		t.Errorf("forged: %s", got)
	}
	// What the fields say of a message to several people does not tell whom one of them writes to.
	if got := score("192.0.2.1", "carl@friend.example", "ann@test.lan", "bob@test.lan"); strings.Contains(got, "written") {
		t.Errorf("to both: %s", got)
	}
}

// TestSpamEachRecipient has one of two people hold a sender for unwanted.
func TestSpamEachRecipient(t *testing.T) {
	f := testSpamFilter(t, SpamConfig{Verifier: testVerifier(startDNS(t, friendZone))})
	f.learned.note("bob@test.lan", mustAddress("carl@friend.example"), knownUnwanted, 0)
	v := judged(t, f, mailTo("192.0.2.1", "carl@friend.example", friendLetter, "ann@test.lan", "bob@test.lan"))
	if v.FolderFor("ann@test.lan") != "" || v.FolderFor("bob@test.lan") != "Junk" || strings.Contains(v.Fields, "moved into Junk") {
		t.Errorf("got %+v", v)
	}
	v = judged(t, f, mailTo("192.0.2.1", "carl@friend.example", friendLetter, "bob@test.lan"))
	if v.Folder != "Junk" || !strings.Contains(v.Fields, "mail of its author has been moved into Junk (+6.0)") || !strings.Contains(v.Fields, "X-Spam-Status: Yes") {
		t.Errorf("alone: %+v", v)
	}
}

// TestSpamDMARC keeps what the author's domain demands, whatever the score.
func TestSpamDMARC(t *testing.T) {
	dns := startDNS(t, `
		_dmarc.strict.example. TXT "v=DMARC1; p=reject"
		_dmarc.friend.example. TXT "v=DMARC1; p=quarantine"
	`)
	f := testSpamFilter(t, SpamConfig{Verifier: testVerifier(dns)})
	if v := judged(t, f, mailTo("192.0.2.9", "x@x.example", strings.Replace(friendLetter, "friend", "strict", 1), "ann@test.lan")); v.Refuse == "" {
		t.Errorf("reject: %+v", v)
	}
	f.learned.note("ann@test.lan", mustAddress("carl@friend.example"), knownWritten, 0)
	v := judged(t, f, mailTo("192.0.2.9", "x@x.example", friendLetter, "ann@test.lan"))
	if v.Folder != "Junk" || !strings.Contains(v.Fields, "X-Spam-Status: Yes") || !strings.Contains(v.Fields, "suspicious (DMARC)") {
		t.Errorf("quarantine: %+v", v)
	}
	// Of a message that was collected nobody knows whether SPF would pass.
	v, err := f.JudgeCollected(context.Background(), "ann@test.lan", strings.NewReader(friendLetter), int64(len(friendLetter)))
	if err != nil || v.Folder != "" || v.Refuse != "" || strings.Contains(v.Fields, "spf=") || !strings.Contains(v.Fields, "dmarc=none") {
		t.Errorf("collected: %+v %v", v, err)
	}
}

// TestSpamUnfitFrom puts into Junk what does not say clearly whom it is from, whoever vouches for it, and says why.
func TestSpamUnfitFrom(t *testing.T) {
	f := testSpamFilter(t, SpamConfig{Verifier: testVerifier(startDNS(t, friendZone))})
	f.learned.note("ann@test.lan", mustAddress("carl@friend.example"), knownWritten, 0)
	for from, reason := range map[string]string{
		"X-From: <carl@friend.example>":                             "there is no From field",
		"From: <carl@friend.example>\r\nFrom: <ann@friend.example>": "there is more than one From field",
		"From: <carl@friend.example> <ann@bank.example>":            "the From field is not a list of mail addresses",
	} {
		text := strings.Replace(friendLetter, "From: Carl <carl@friend.example>", from, 1)
		v := judged(t, f, mailTo("192.0.2.1", "carl@friend.example", text, "ann@test.lan"))
		if v.Folder != "Junk" || v.Refuse != "" || !strings.Contains(v.Fields, "who wrote it cannot be told: "+reason+" (+5.0)") {
			t.Errorf("%q: %+v", from, v)
		}
		v, err := f.JudgeCollected(context.Background(), "ann@test.lan", strings.NewReader(text), int64(len(text)))
		if err != nil || v.Folder != "Junk" || v.Refuse != "" || !strings.Contains(v.Fields, "who wrote it cannot be told: "+reason+" (+5.0)") ||
			!strings.Contains(v.Fields, "X-Spam-Status: Yes") || !strings.Contains(v.Fields, "dmarc=permerror") {
			t.Errorf("collected, %q: %+v, %v", from, v, err)
		}
	}
}

// TestSpamHuge judges messages that are much larger than what is looked at, and nasty ones.
func TestSpamHuge(t *testing.T) {
	t.Parallel()
	f := testSpamFilter(t, SpamConfig{})
	for name, text := range map[string]string{
		"one line":  friendLetter + strings.Repeat("word", 5<<20),
		"words":     friendLetter + strings.Repeat("word number words\r\n", 1<<18),
		"header":    "From: x@y.example\r\n" + strings.Repeat("X-Field: y\r\n", 1<<18),
		"tags":      strings.Replace(friendLetter, "\r\n\r\n", "\r\nContent-Type: text/html\r\n\r\n", 1) + strings.Repeat("<a href=http://h.example/>", 1<<17),
		"open tag":  strings.Replace(friendLetter, "\r\n\r\n", "\r\nContent-Type: text/html\r\n\r\n<a href=", 1) + strings.Repeat("x", 1<<20),
		"no header": strings.Repeat("\x00\xff", 1<<20),
		"empty":     "",
	} {
		var reader spamReader
		m, err := reader.read(1, strings.NewReader(text), int64(len(text)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := len(m.tokens.list); n > spamTokens || cap(reader.text) > 2*spamPartText || cap(reader.visible) > 4*spamPartText {
			t.Errorf("%s: %d tokens, %d and %d octets are held", name, n, cap(reader.text), cap(reader.visible))
		}
		if v := judged(t, f, mailTo("192.0.2.1", "x@y.example", text, "ann@test.lan")); !strings.Contains(v.Fields, spamStatusField) {
			t.Errorf("%s: %+v", name, v)
		}
	}
	for name, text := range nastyMessages() {
		if v := judged(t, f, mailTo("192.0.2.1", "x@y.example", text, "ann@test.lan")); !fieldsAreWhole(v.Fields) {
			t.Errorf("%s: %q", name, v.Fields)
		}
	}
}

// fieldsAreWhole says whether a text is nothing but header fields in ASCII.
func fieldsAreWhole(text string) bool {
	fields := splitHeader([]byte(text))
	for _, h := range fields {
		if h.Name == "" || !bytes.HasSuffix(h.Raw, []byte("\r\n")) {
			return false
		}
	}
	return len(fields) > 0 && isASCII([]byte(text)) && strings.Count(text, "\r") == strings.Count(text, "\n") && strings.Count(text, "\r\n") == strings.Count(text, "\n")
}

// TestSpamAtOnce judges from many sessions, while others teach.
func TestSpamAtOnce(t *testing.T) {
	f := testSpamFilter(t, SpamConfig{Greylist: true})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 10 {
				text := strings.Replace(friendLetter, "<1@", fmt.Sprintf("<%d.%d@", i, n), 1)
				if _, err := f.Judge(context.Background(), mailTo("192.0.2.1", "carl@friend.example", text, "ann@test.lan")); err != nil {
					t.Error(err)
				}
				var reader spamReader
				m, err := reader.read(f.learned.seedOf(), strings.NewReader(text), int64(len(text)))
				if err != nil {
					t.Error(err)
					continue
				}
				f.correct("ann@test.lan", lessonUnwanted, m)
				if n%4 == 0 {
					f.Status()
				}
			}
		})
	}
	all.Wait()
	if n := f.Status().Unwanted; n != 80 {
		t.Errorf("%d messages are learned", n)
	}
}

func TestSpamEndedContext(t *testing.T) {
	f := testSpamFilter(t, SpamConfig{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.Judge(ctx, mailTo("192.0.2.1", "carl@friend.example", friendLetter, "ann@test.lan")); err == nil {
		t.Error("a verdict, though nobody waits")
	}
}

// TestSpamLists asks lists with all kinds of answers.
func TestSpamLists(t *testing.T) {
	log := new(syncBuffer)
	dns := startDNS(t, `
		5.2.0.192.good.example. A 127.0.0.4
		6.2.0.192.good.example. A 127.0.0.1
		5.2.0.192.closed.example. A 127.255.255.254
		5.2.0.192.sold.example. A 203.0.113.1
		1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.good.example. A 127.0.0.2
	`)
	dns.set(func(s *testDNS) { s.broken["5.2.0.192.down.example."] = true })
	verifier := testVerifier(dns)
	f := testSpamFilter(t, SpamConfig{Verifier: verifier, Lists: []string{"good.example", "closed.example", "sold.example", "down.example"}, Log: slog.New(slog.NewTextHandler(log, nil))})
	for remote, listed := range map[string]bool{
		"192.0.2.5": true, "192.0.2.6": false, "192.0.2.7": false, "2001:db8::1": true, "2001:db8::2": false, "::ffff:192.0.2.5": true,
	} {
		v := judged(t, f, mailTo(remote, "x@y.example", friendLetter, "ann@test.lan"))
		if got := strings.Contains(v.Fields, "the address it comes from is on the list good.example (+4.0)"); got != listed || strings.Count(v.Fields, "on the list") > 1 {
			t.Errorf("%s: %s", remote, v.Fields)
		}
	}
	if n := strings.Count(log.String(), "a DNS list gives no answer"); n != 3 { // good.example with 127.0.0.1, closed and sold
		t.Errorf("%d warnings: %s", n, log)
	}
	// Nobody answers at all: the message is judged by the rest.
	dns.set(func(s *testDNS) { s.silent = true })
	if v := judged(t, f, mailTo("192.0.2.5", "x@y.example", friendLetter, "ann@test.lan")); strings.Contains(v.Fields, "on the list") || v.Refuse != "" {
		t.Errorf("silent: %+v", v)
	}
}

func TestListName(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1":     "1.2.0.192.zen.example",
		"2001:db8::f%1": "f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.zen.example",
	} {
		if got, err := listName(netip.MustParseAddr(addr), "zen.example"); got != want || err != nil {
			t.Errorf("%s: %s %v", addr, got, err)
		}
	}
}

// TestVouches tells who stands for a domain.
func TestVouches(t *testing.T) {
	f := &Findings{SPF: SPFFinding{Result: authres.ResultPass, Domain: "bounce.shop.example"},
		DKIM: []DKIMFinding{{Result: authres.ResultFail, Domain: "bank.example"}, {Result: authres.ResultPass, Domain: "list.example"}}}
	for domain, want := range map[string]bool{"shop.example": true, "list.example": true, "a.list.example": true, "bank.example": false, "other.example": false, "": false} {
		if got := f.Vouches(domain); got != want {
			t.Errorf("%q: %v", domain, got)
		}
	}
}

func TestWordPoints(t *testing.T) {
	last := -10.0
	for i := range 101 {
		p := wordPoints(float64(i) / 100)
		if p < last || p < -3 || p > 7 {
			t.Errorf("%d: %f after %f", i, p, last)
		}
		last = p
	}
	if wordPoints(0.5) != 0 || wordPoints(0) != -3 || wordPoints(1) != 7 {
		t.Error("the ends are wrong")
	}
}

func TestSpamDirUnusable(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSpamFilter(SpamConfig{Dir: file + "/spam", Verifier: testVerifier(startDNS(t, ""))}); err == nil || !strings.Contains(err.Error(), "spam filter") {
		t.Errorf("got %v", err)
	}
}

// TestSpamCollectedForged has a message in an account elsewhere that says of itself what only we may say.
func TestSpamCollectedForged(t *testing.T) {
	f := testSpamFilter(t, SpamConfig{})
	text := "X-Spam-Status: No, score=-9.0 required=5.0 sender=proven\r\nAuthentication-Results: other.test; dkim=pass\r\nAuthentication-Results: mail.test;\r\n\tdkim=pass\r\n" +
		"x-spam-status: No\r\nX-SPAM-REASONS: a\r\n b\r\n" + friendLetter
	v, err := f.JudgeCollected(context.Background(), "ann@test.lan", strings.NewReader(text), int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := v.Write(&b, strings.NewReader(text), int64(len(text)), 0); err != nil {
		t.Fatal(err)
	}
	if want := v.Fields + "Authentication-Results: other.test; dkim=pass\r\n" + friendLetter; b.String() != want {
		t.Errorf("got %s", b.String())
	}
	long := strings.Repeat("X-Long: x\r\n", maxChangedHeader/10) + text
	v, err = f.JudgeCollected(context.Background(), "ann@test.lan", strings.NewReader(long), int64(len(long)))
	b.Reset()
	if err == nil {
		err = v.Write(&b, strings.NewReader(long), int64(len(long)), 0)
	}
	if err != nil || b.String() != v.Fields+long {
		t.Errorf("a long header: %d octets, %v", b.Len(), err)
	}
}
