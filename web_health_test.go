package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// startHealth starts a page whose people write to friends.test: gone@ is refused there, and slow@ has to wait.
func startHealth(t *testing.T, data string) *page {
	t.Helper()
	next := startNextServer(t)
	next.refuse = func(to string) error {
		switch to {
		case "gone@friends.test":
			return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such person"}
		case "slow@friends.test", "slower@friends.test":
			return &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "mailbox full"}
		}
		return nil
	}
	dns := startDNS(t, "friends.test. MX 1 mx.friends.test.\nmx.friends.test. A 127.0.0.1")
	return servePage(t, startRunWith(t, data, &call{adjust: func(s *Sender) {
		s.Resolver, s.Port = dns.Resolver, next.port
	}}))
}

// until gets a page until it says something.
func (b *browser) until(path, words string) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		b.get(path)
		if strings.Contains(b.body, words) {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("%s does not say %q:\n%s", path, words, b.body)
		}
	}
}

// receive brings a message in at port 25.
func (p *page) receive(t *testing.T, from, to string, reply string) {
	t.Helper()
	c := p.open(t, 25)
	c.send("EHLO far.test\r\nMAIL FROM:<" + from + ">\r\nRCPT TO:<" + to + ">\r\n")
	c.expect("220 ", "250 ", "250 ", reply)
	if reply == "250 " {
		c.send("DATA\r\n")
		c.expect("354 ")
		c.send("From: <" + from + ">\r\nSubject: the secret subject\r\n\r\nthe secret text\r\n.\r\n")
		c.expect("250 ")
	}
	c.send("QUIT\r\n")
}

func TestWebHealth(t *testing.T) {
	data := pageData(t)
	p := startHealth(t, data)
	p.receive(t, "ann@far.test", "bob@home.lan", "250 ")
	p.receive(t, "ann@far.test", "maria@home.lan", "250 ")
	p.receive(t, "b&c@far.test", "nobody@home.lan", "550 ")
	for _, to := range []string{"friend", "gone", "slow", "slower"} {
		p.submit(t, "bob@home.lan", to+"@friends.test")
	}
	p.imapLogin(t, "bob", "guessed")
	p.imapLogin(t, "maria", "guessed")
	maria, bob := p.loggedIn(t, "maria", mariasPassword), p.loggedIn(t, "bob", "submit-secret")

	maria.get("/")
	maria.says(200, `href="/health"`)
	bob.get("/")
	bob.says(200, `href="/mine/mail"`)
	if strings.Contains(bob.body, `href="/health"`) {
		t.Error("Health is offered to who may not")
	}
	for _, to := range []string{"friend", "gone", "slow", "slower"} {
		maria.until("/health/mail", to+"@friends.test")
	}
	maria.until("/health/mail", "no such person")
	maria.says(200, "<h1>Where is my mail?</h1>", "ann@far.test → bob@home.lan", "Put into the mailbox.", "b&amp;c@far.test → nobody@home.lan", "Refused.", "Nobody has that address there.",
		"There is no nobody@home.lan here", "It could not be delivered. The sender was told.", "Taken by the other server, mx.friends.test [127.0.0.1].", "It waits; the server tries again by itself.", "The mailbox is full.",
		"A login failed: a mail program (IMAP).")
	maria.get("/health/mail?q=ANN%40far&show=refused")
	maria.says(200, "Nothing was found.", `value="ANN@far"`)
	maria.get("/health/mail?q=ANN%40far&show=mail")
	maria.says(200, "bob@home.lan", "maria@home.lan")
	if strings.Contains(maria.body, "friends.test") {
		t.Error("a search finds what it is not for")
	}

	// Everybody sees what is theirs.
	bob.get("/mine/mail")
	bob.says(200, "ann@far.test → bob@home.lan", "bob@home.lan → slow@friends.test", "A login failed")
	for _, other := range []string{"→ maria@home.lan", "nobody@home.lan"} {
		if strings.Contains(bob.body, other) {
			t.Errorf("bob sees %q:\n%s", other, bob.body)
		}
	}
	if n := strings.Count(bob.body, "A login failed"); n != 1 {
		t.Errorf("bob sees %d logins that failed", n)
	}

	maria.get("/health")
	maria.says(200, "<h1>Health</h1>", `<svg class="chart"`, "messages received", "are free of", "Runs since", "bob@home.lan", "The filter has learned from 0 unwanted", "Show the numbers")
	maria.get("/health/log?q=submission")
	maria.says(200, "login conn=", "protocol=submission account=bob@home.lan")
	if strings.Contains(maria.body, "protocol=imaps") {
		t.Error("the log is not filtered")
	}

	// The queue.
	maria.until("/health/queue", "mailbox full")
	maria.says(200, "<h1>Waiting mail</h1>", "slow@friends.test", "slower@friends.test", "Try all now", "next try on")
	maria.get("/health/queue?q=slower")
	if strings.Contains(maria.body, "slow@") {
		t.Error("a search finds what it is not for")
	}
	give := regexp.MustCompile(`/health/queue/([a-z0-9]+)/bounce`).FindStringSubmatch(maria.body)
	maria.post("/health/queue/retry", "id", give[1])
	maria.says(200, "The message "+give[1]+" is being tried now.")
	maria.post("/health/queue/retry", "id", "")
	maria.says(200, "All that waits is being tried now.")
	maria.post("/health/queue/retry", "id", "none")
	maria.says(200, "That message does not wait any more.")
	maria.get(give[0])
	maria.says(200, "<h1>Give up this message</h1>", "slower@friends.test", "Give up, and tell the sender")
	token := maria.body
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) { // it is being tried, perhaps
		maria.body = token
		if maria.post(give[0]); maria.status == 200 {
			break
		}
		maria.says(422, "is being sent at this moment")
		if time.Now().After(end) {
			t.Fatal("it cannot be given up")
		}
	}
	maria.says(200, "The message "+give[1]+" is given up, and its sender is told.")
	maria.get("/health/queue?q=slower")
	maria.says(200, "Nothing that waits has that in its addresses.")
	maria.get(give[0])
	maria.says(404)
	told := 0
	for _, text := range p.inbox(t, "bob@home.lan", 3) {
		if strings.Contains(text, "slower@friends.test") && strings.Contains(text, "Whoever looks after this server has given it up.") && strings.Contains(text, "Status: 5.4.7") {
			told++
		}
	}
	if told != 1 {
		t.Errorf("the sender was told %d times:\n%s", told, strings.Join(p.inbox(t, "bob@home.lan", 3), "\n-----\n"))
	}
	if !strings.Contains(p.stderr.String(), `msg=changed page="POST /health/queue/{id}/bounce" by=maria@home.lan`) {
		t.Error("the log does not tell of the change")
	}

	// All of that is there after a restart, and no more than that.
	p.stop(t)
	p = startHealth(t, data)
	maria = p.loggedIn(t, "maria", mariasPassword)
	maria.get("/health/mail?q=nobody")
	maria.says(200, "nobody@home.lan")
	for _, file := range []string{"mail.log", "refused.log", "days.json"} {
		text, err := os.ReadFile(dataDir(data).diary() + "/" + file)
		if err != nil || strings.Contains(string(text), "secret") {
			t.Errorf("%s: %v\n%s", file, err, text)
		}
	}
}

// Whoever finds a message by an alias does not see who else got it.
func TestWebMailKeepsSecrets(t *testing.T) {
	q := &webRequest{Web: &Web{}, user: User{Address: "bob@home.lan"}}
	mine := map[string]bool{"bob@home.lan": true, "family@home.lan": true}
	e := DiaryEvent{Kind: DiaryDelivered, From: "ann@far.test", To: []string{"bob@home.lan", "maria@home.lan"}, Junk: []string{"maria@home.lan"}, More: 3}
	if !q.seesEvent(&e, mine) || fmt.Sprint(e.To, e.Junk, e.More) != "[bob@home.lan] [] 0" {
		t.Errorf("%+v", e)
	}
	for _, e := range []DiaryEvent{
		{Kind: DiaryDelivered, From: "bob@home.lan", To: []string{"maria@home.lan"}}, // a stranger says so
		{Kind: DiarySent, Account: "maria@home.lan", From: "maria@home.lan", To: []string{"friend@far.test"}},
	} {
		if q.seesEvent(&e, mine) {
			t.Errorf("%+v is shown", e)
		}
	}
	sent := DiaryEvent{Kind: DiarySent, Account: "bob@home.lan", From: "bob@home.lan", To: []string{"friend@far.test"}}
	family := DiaryEvent{Kind: DiaryRefused, From: "x@far.test", To: []string{"Family@home.lan"}}
	if !q.seesEvent(&sent, mine) || len(sent.To) != 1 || !q.seesEvent(&family, mine) || len(family.To) != 1 {
		t.Errorf("%+v %+v", sent, family)
	}
}

func TestChart(t *testing.T) {
	for n, want := range map[int]int{0: 1, 1: 1, 2: 2, 3: 5, 6: 10, 11: 20, 21: 50, 51: 100, 100: 100, 101: 200} {
		if got := roundUp(n); got != want {
			t.Errorf("%d: %d", n, got)
		}
	}
	c := newChart(1, webSeries{"in", []int{0, 4}}, webSeries{"out", []int{1, 0}})
	if c.Most != 5 || len(c.Bars) != 2 || c.Bars[0] != (webBar{"in", 345, 24, 105, 96}) || c.Bars[1] != (webBar{"out", 150, 96, 105, 24}) {
		t.Errorf("%+v", c)
	}
}
