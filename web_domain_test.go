package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// domainPage is a page whose owner has a domain on the internet, in a world of its own.
func domainPage(t *testing.T) (*page, *doctorWorld) {
	t.Helper()
	w := openDoctorWorld(t)
	w.set(func(s *testDNS) { // nothing is published yet
		for name := range s.records {
			if strings.HasSuffix(name, "example.org.") {
				delete(s.records, name)
			}
		}
	})
	data := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte(mariasPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		dataDir(data).settings(): "hostname = \"mail.example.org\"\n",
		dataDir(data).accounts(): fmt.Sprintf("[[user]]\naddress = \"maria@example.org\"\npassword = %q\n", hash),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hooks := &call{adjustDoctor: func(d *Doctor) {
		facts := d.Facts
		*d = *w.doctor
		d.Facts = facts
	}}
	p := servePage(t, startRunWith(t, data, hooks))
	for _, spec := range portTable() {
		address := fmt.Sprintf("127.0.0.1:%d", spec.number+p.offset)
		w.routes["tcp "+address] = address
	}
	return p, w
}

// lookedAgain has the doctor look, and waits for it.
func lookedAgain(t *testing.T, b *browser) {
	t.Helper()
	b.get("/domain")
	b.post("/domain/look")
	if b.status != 200 {
		t.Fatalf("%d\n%s", b.status, b.body)
	}
	for end := time.Now().Add(time.Minute); strings.Contains(b.body, "The server is looking"); b.get("/domain") {
		if b.answer.Header.Get("Refresh") == "" {
			t.Fatal("the page does not load itself again")
		}
		if time.Now().After(end) {
			t.Fatal("the doctor does not come to an end")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestDomainRecords(t *testing.T) {
	p, w := domainPage(t)
	maria := p.loggedIn(t, "maria@example.org", mariasPassword)
	maria.get("/domain")
	maria.says(200, "The records of example.org", "Nobody has looked yet", "Not looked at", "10", "v=spf1 mx -all", "_autodiscover._tcp", "v=DKIM1; k=rsa")
	lookedAgain(t, maria)
	maria.says(200, "example.org has no MX record", "Wrong", "Looked at on")
	zone := regexp.MustCompile(`(?s)<pre id="zone-example.org"[^>]*>(.*?)</pre>`).FindStringSubmatch(maria.body)
	if zone == nil {
		t.Fatalf("no zone:\n%s", maria.body)
	}
	w.add(t, strings.NewReplacer("&#34;", `"`, "&#43;", "+", "&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(zone[1]))
	lookedAgain(t, maria)
	maria.says(200, "Mail for example.org comes to mail.example.org.", "example.org lets this machine send its mail (SPF).", "Mail programs find the settings of example.org by SRV records.", worldV4)
	if strings.Contains(maria.body, "has no MX record") {
		t.Error("what was found before is still told")
	}
	for _, found := range regexp.MustCompile(`data-copy="([^"]+)"`).FindAllStringSubmatch(maria.body, -1) {
		if n := strings.Count(maria.body, `id="`+found[1]+`"`); n != 1 {
			t.Errorf("%d elements %s to be copied", n, found[1])
		}
	}
	if len(maria.body) > 100<<10 {
		t.Errorf("the page has %d bytes", len(maria.body))
	}
	maria.header.Set("Accept-Language", "de")
	maria.get("/domain")
	maria.says(200, "Die Einträge von example.org", "In Ordnung", "Bringt die Mail der Domain zu diesem Rechner")
}

// Without a domain there is nothing to publish, and certificates all the same.
func TestDomainNone(t *testing.T) {
	p := startPage(t)
	maria := p.loggedIn(t, "maria", mariasPassword)
	maria.get("/domain")
	maria.says(200, "No domain yet", "localhost", "this server&#39;s own authority", "Sending through your provider")
}

// Only one look goes on at a time, whoever asks, and none outlives the appliance.
func TestDomainLooksOnce(t *testing.T) {
	began, looks := make(chan struct{}), 0
	w := &Web{WebConfig: WebConfig{Log: quietLog(testWriter{t})}, look: webLook{wanted: make(chan struct{}, 1)}}
	w.Examine = func(ctx context.Context) error {
		looks++
		close(began)
		<-ctx.Done()
		return ctx.Err()
	}
	end := inBackground(w.Run)
	for range 3 {
		if !w.look.busy.Swap(true) {
			w.look.wanted <- struct{}{}
		}
	}
	<-began
	end()
	if looks != 1 || !w.look.failed.Load() || w.look.busy.Load() {
		t.Errorf("%d looks, failed %v, busy %v", looks, w.look.failed.Load(), w.look.busy.Load())
	}
}

// testWriter is a log that a test shows.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func TestDomainRelay(t *testing.T) {
	const secret = "provider <secret>"
	w, _ := openRelayWorld(t, secret)
	data := pageData(t)
	p := servePage(t, startRunWith(t, data, &call{adjust: w.adjust}))
	maria := p.loggedIn(t, "maria", mariasPassword)
	maria.get("/domain")
	for _, c := range []struct{ server, password, more, want string }{
		{"smtp.isp.test", "wrong", "", "does not take this user and password"},
		{"smtp.isp.test:26", "x", "", "nobody answers at smtp.isp.test on port 26"},
		{"smtp.isp.test:x", "x", "", "That is no server"},
		{"smtp_isp.test", "x", "", "is no name of a server"},
		{"smtp.isp.test\r\nX: y", "x", "", "is no"},
		{"../etc", "x", "", "is no"},
		{"smtp.isp.test", "", "", "Enter the password"},
		{"smtp.isp.test", "x", "other.test", "nobody here has an address at other.test"},
	} {
		maria.post("/domain/relay", "server", c.server, "user", "home", "password", c.password, "for", c.more)
		maria.says(422, c.want, `value="home"`)
	}
	if _, err := os.Stat(dataDir(data).relays()); err == nil {
		t.Error("what does not work was stored")
	}
	maria.post("/domain/relay", "server", "smtp.isp.test", "user", "home", "password", secret)
	maria.says(200, "The login works. Mail goes by smtp.isp.test:465 now", "smtp.isp.test:465")
	maria.get("/domain")
	maria.says(200, "smtp.isp.test:465", "everybody")
	if got := mustRun(t, data, "relay", "list"); !strings.Contains(got, "smtp.isp.test:465") {
		t.Errorf("list: %s", got)
	}
	for name, text := range map[string]string{"page": maria.body, "log": p.stderr.String()} {
		if strings.Contains(text, secret) || strings.Contains(text, "provider &lt;secret") {
			t.Errorf("the password is in the %s", name)
		}
	}
	maria.post("/domain/relay/remove", "for", "")
	maria.says(200, "That relay is not used any more")
	maria.post("/domain/relay/remove", "for", "")
	maria.says(422, "That was not done:", "there is no relay for everybody")
}
