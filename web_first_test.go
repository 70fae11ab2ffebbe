package main

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

var printedPage = regexp.MustCompile(`(?m)^  https://127\.0\.0\.1:\d+(/\?code=\S+)$`)

// firstPage starts an appliance for the first time, and gives its page and the path that was printed.
func firstPage(t *testing.T) (p *page, printed string) {
	t.Helper()
	t.Setenv("SUDO_USER", "")
	t.Setenv("USER", "maria")
	p = servePage(t, startRun(t, filepath.Join(t.TempDir(), "data"), "--hostname", "pi.home.lan"))
	found := printedPage.FindStringSubmatch(p.stdout.String())
	if found == nil {
		t.Fatalf("no address is printed:\n%s", p.stdout.String())
	}
	return p, found[1]
}

// elsewhere lets a browser be on another machine than the server, as far as the page can tell.
func (b *browser) elsewhere() *browser {
	b.header.Set("X-Forwarded-For", "192.0.2.1")
	return b
}

func TestWebFirstVisit(t *testing.T) {
	p, printed := firstPage(t)
	b := p.browser(t).elsewhere()
	b.get("/")
	b.says(200, "<h1>Log in</h1>")
	b.get("/welcome")
	b.says(403, "This link does not work any more")
	b.get("/welcome?code=meno-hure-gifa-nebe-fejo")
	b.says(403, "This link does not work any more")
	b.get(printed)
	b.says(200, "<h1>Welcome to your mail server</h1>", `value="maria"`, "@pi.home.lan")
	code := strings.TrimPrefix(printed, "/?code=")
	fields := func(changes ...string) []string {
		all := []string{"code", code, "name", "Mary <b>", "local", "mary", "domain", "example.org", "zone", "Asia/Tokyo", "password", "new password", "again", "new password"}
		for i := 0; i < len(changes); i += 2 {
			for j := 0; j < len(all); j += 2 {
				if all[j] == changes[i] {
					all[j+1] = changes[i+1]
				}
			}
		}
		return all
	}
	before, _ := os.ReadFile(dataDir(p.data).accounts())
	for _, test := range []struct{ field, value, want string }{
		{"password", "short", "The password is too short"},
		{"again", "other", "The two passwords are not the same."},
		{"local", "a/b", "a/b@example.org cannot be an address."},
		{"local", "../x", "cannot be an address."},
		{"domain", "x..y", "cannot be an address."},
		{"zone", "Europe/Atlantis", "There is no time zone called Europe/Atlantis."},
		{"domain", "gmail.com", "gmail.com belongs to a provider"},
	} {
		b.post("/welcome", fields(test.field, test.value)...)
		b.says(422, test.want, `value="Mary &lt;b&gt;"`)
	}
	b.post("/welcome", fields("name", strings.Repeat("x", 300))...)
	b.says(422, "The name is too long.")
	if after, _ := os.ReadFile(dataDir(p.data).accounts()); string(after) != string(before) {
		t.Error("a mistake changed the accounts")
	}
	b.post("/welcome", fields()...)
	b.says(200, "Welcome! You are mary@example.org now.", "Add people", "Connect a phone", "Open to the internet", "Nobody but you has an account yet.")
	if b.where.Path != "/" {
		t.Errorf("led to %s", b.where)
	}
	b.get("/")
	if strings.Contains(b.body, "Welcome!") {
		t.Error("it is said twice")
	}
	for name, password := range map[string]string{"mary@example.org": "new password", "mary": "new password"} {
		if _, _, reply := p.imapLogin(t, name, password); !strings.Contains(reply, "x OK") {
			t.Errorf("%s: %s", name, reply)
		}
	}
	b.get("/")
	b.says(200, "A mail program of yours logged in last on")
	if settings, err := os.ReadFile(dataDir(p.data).settings()); err != nil || !strings.Contains(string(settings), `time_zone = "Asia/Tokyo"`) {
		t.Errorf("settings: %s %v", settings, err)
	}
	// The code has been used, also from the machine itself.
	for _, other := range []*browser{p.browser(t).elsewhere(), p.browser(t)} {
		other.get(printed)
		other.says(403, "This link does not work any more")
		other.post("/welcome", fields()...)
		if other.status != 403 {
			t.Errorf("a used code: %d", other.status)
		}
		other.get("/")
		other.says(200, "<h1>Log in</h1>")
	}
	log := p.stderr.String()
	if strings.Contains(log, code) || strings.Contains(log, "new password") || !strings.Contains(log, `msg=changed page="POST /welcome" by=mary@example.org`) {
		t.Errorf("the log:\n%s", log)
	}
}

// Whoever sits at the machine needs no code; a proxy on it, or a name that leads here, does not count as that.
func TestWebFirstVisitAtTheMachine(t *testing.T) {
	p, printed := firstPage(t)
	file := dataDir(p.data).codes()
	text, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(text), strings.TrimPrefix(printed, "/?code=")) {
		t.Errorf("the code is kept as it is: %s %v", text, err)
	}
	if info, err := os.Stat(file); runtime.GOOS != "windows" && (err != nil || info.Mode().Perm() != 0o600) {
		t.Errorf("mode %v", info.Mode())
	}
	for key, value := range map[string]string{"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1", "Via": "1.1 proxy", "Host": "evil.example"} {
		b := p.browser(t)
		b.header.Set(key, value)
		if key == "Host" {
			b.header = http.Header{}
			b.host = value
		}
		b.get("/")
		b.says(200, "<h1>Log in</h1>")
		b.get("/welcome")
		b.says(403)
	}
	b := p.browser(t)
	b.get("/")
	b.says(200, "<h1>Welcome to your mail server</h1>")
	b.post("/welcome", "local", "maria", "password", "new password", "again", "new password")
	b.says(200, "Welcome! You are maria@pi.home.lan now.")
}

func TestOneTimeCodes(t *testing.T) {
	now := time.Now()
	file := filepath.Join(t.TempDir(), "codes.json")
	open := func() *OneTimeCodes {
		c, err := OpenCodes(file, func() time.Time { return now })
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := open()
	first, err := c.Make(codeReset, "bob@x")
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Make(codeReset, "bob@x")
	if err != nil {
		t.Fatal(err)
	}
	c = open()
	for _, test := range []struct {
		kind       codeKind
		code, want string
	}{{codeReset, first, ""}, {codeReset, second, "bob@x"}, {codeReset, " " + strings.ToUpper(second), "bob@x"}, {codeFirst, second, ""}, {codeReset, "", ""}} {
		if got := c.Account(test.kind, test.code); got != test.want {
			t.Errorf("%s %q: %q", test.kind, test.code, got)
		}
	}
	if err := c.Rename("bob@x", "robert@x"); err != nil || c.Account(codeReset, second) != "robert@x" || c.Waiting(codeReset) != "robert@x" || c.Waiting(codeFirst) != "" {
		t.Errorf("%v %v", err, c.codes)
	}
	now = now.Add(codeReset.keeps())
	if c.Account(codeReset, second) != "" || c.Waiting(codeReset) != "" {
		t.Error("a code works after its time")
	}
	third, err := c.Make(codeReset, "eve@x")
	if err != nil || len(c.codes) != 1 {
		t.Errorf("%v %v", err, c.codes)
	}
	if err := c.Used("", "eve@x"); err != nil || open().Account(codeReset, third) != "" {
		t.Error("a code works twice")
	}
	if err := os.WriteFile(file, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCodes(file, nil); err == nil {
		t.Error("junk is read")
	}
}
