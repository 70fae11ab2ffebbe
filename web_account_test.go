package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
)

func TestWebAccount(t *testing.T) {
	p := startPage(t)
	b := p.loggedIn(t, "bob", bobsPassword)
	other := p.loggedIn(t, "bob", bobsPassword)
	b.header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
	b.get("/account")
	b.says(200, "None at the moment.", "End all other browsers", `value="Bob"`)
	b.post("/account/name", "name", "Robert")
	b.says(200, "Your name is saved.", `value="Robert"`)
	b.post("/account/language", "language", "de")
	b.says(200, `<html lang="de">`, "Die Sprache ist gespeichert.", "Mein Konto")
	b.post("/account/language", "language", "xx")
	b.says(403)
	b.get("/account")
	b.post("/account/language", "language", "")
	b.says(200, `<html lang="en">`)
	b.post("/account/app", "app", "phone")
	b.says(200, "This is the password for phone")
	app := b.secret()
	_, phone, reply := p.imapLogin(t, "bob", app)
	if !strings.Contains(reply, "x OK") {
		t.Fatal(reply)
	}
	b.get("/account")
	b.says(200, "(phone)", "End all mail programs")
	if strings.Count(b.body, "never yet") != 0 {
		t.Errorf("the use of an app password is not shown:\n%s", b.body)
	}
	b.post("/account/sessions/end", "id", "mail")
	b.says(200, "All mail programs were logged out.")
	endsNow(t, phone)
	in, phone, _ := p.imapLogin(t, "bob", app)
	for _, test := range []struct{ old, password, again, want string }{
		{"wrong", "new password", "new password", "Your password so far is not right."},
		{app, "new password", "new password", "This is the password of one device."},
		{bobsPassword, "short", "short", "The password is too short"},
		{bobsPassword, "new password", "new passwort", "The two passwords are not the same."},
	} {
		b.post("/account/password", "old", test.old, "password", test.password, "again", test.again)
		b.says(422, test.want)
	}
	before := b.cookie(webSessionCookie)
	b.post("/account/password", "old", bobsPassword, "password", "new password", "again", "new password")
	b.says(200, "Your new password counts from now on.")
	if b.cookie(webSessionCookie) == before {
		t.Error("the session is the same after a new password")
	}
	other.get("/account")
	other.says(200, "<h1>Log in</h1>")
	if reply := imapSay(t, in, phone, "NOOP"); !strings.Contains(reply, "x OK") {
		t.Errorf("an app password's session ended with the main password: %s", reply)
	}
	other.login("bob", "new password")
	other.says(200, "Log out")
	b.get("/account")
	b.post("/account/sessions/end", "id", "others")
	b.says(200, "All other browsers were logged out.")
	other.get("/account")
	other.says(200, "<h1>Log in</h1>")
	other.login("bob", "new password")
	b.get("/account")
	id := regexp.MustCompile(`name="id" value="([0-9a-f]{64})"`).FindStringSubmatch(b.body)
	maria := p.loggedIn(t, "maria", mariasPassword)
	maria.get("/account")
	maria.post("/account/sessions/end", "id", id[1]) // of somebody else
	other.get("/account")
	other.says(200, "Log out")
	b.post("/account/sessions/end", "id", id[1])
	b.says(200, "That browser was logged out.")
	other.get("/account")
	other.says(200, "<h1>Log in</h1>")
	b.post("/account/app/remove", "app", "phone")
	b.says(200, "The password for phone works no more.")
	endsNow(t, phone)
}

func TestBrowserName(t *testing.T) {
	for agent, want := range map[string]string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0":                                                                  "Firefox, Linux",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0":               "Edge, Windows",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1": "Safari, iPhone",
		"Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36":                   "Chrome, Android",
		"curl/8.0": "curl/8.0", "": "",
	} {
		if got := browserName(agent); got != want {
			t.Errorf("%q: %q", agent, got)
		}
	}
}

// codeAt gives the code of a secret, some periods from now.
func codeAt(t *testing.T, secret string, periods int) string {
	t.Helper()
	code, err := totp.GenerateCode(secret, time.Now().Add(time.Duration(periods)*factorPeriod*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func TestWebSecondFactor(t *testing.T) {
	p := startPage(t)
	b := p.loggedIn(t, "bob", bobsPassword)
	b.get("/account/second")
	b.says(200, "<svg class=\"code\"", "Or type this into the app:")
	secret := strings.ReplaceAll(regexp.MustCompile(`<code>([A-Z2-7 ]+)</code>`).FindStringSubmatch(b.body)[1], " ", "")
	b.post("/account/second", "code", "000000")
	b.says(422, "This code is not right any more", secret[:4])
	b.post("/account/second", "code", codeAt(t, secret, 0))
	b.says(200, "From now on the login here asks for a code.", "10 codes for a lost phone are left.")
	recovery := strings.Fields(b.secret())
	if len(recovery) != recoveryCodes {
		t.Fatalf("%q", recovery)
	}
	b.get("/account/second")
	if strings.Contains(b.body, secret[:4]) {
		t.Error("the secret is shown again")
	}
	text, err := os.ReadFile(dataDir(p.data).accounts())
	if err != nil || !strings.Contains(string(text), "totp = ") || strings.Contains(string(text), recovery[0]) {
		t.Errorf("%v\n%s", err, text)
	}

	fresh := p.browser(t)
	fresh.get("/account")
	fresh.post("/login", "name", "bob", "password", bobsPassword, "next", "/account")
	fresh.says(200, "<h1>The second step</h1>")
	half := fresh.cookie(webSessionCookie)
	fresh.get("/account")
	fresh.says(200, "<h1>Log in</h1>")
	fresh.get("/login/code")
	fresh.post("/account/name", "name", "x")
	fresh.says(403)
	fresh.get("/login/code")
	fresh.post("/login/code", "code", codeAt(t, secret, -1)) // older than the one that was used
	fresh.says(422, "This code is not right any more")
	fresh.post("/login/code", "code", codeAt(t, secret, 1))
	fresh.says(200, "<h1>My account</h1>")
	if fresh.cookie(webSessionCookie) == half {
		t.Error("the session is the one from before the code")
	}
	again := p.browser(t)
	again.login("bob", bobsPassword)
	again.post("/login/code", "code", codeAt(t, secret, 1))
	again.says(422, "This code is not right any more")
	again.post("/login/code", "code", strings.ToUpper(recovery[3]))
	again.says(200, "Log out")
	again.get("/account")
	again.says(200, "9 codes for a lost phone are left.")
	third := p.browser(t)
	third.login("bob", bobsPassword)
	third.post("/login/code", "code", recovery[3])
	third.says(422, "This code is not right any more")
	if _, _, reply := p.imapLogin(t, "bob", bobsPassword); !strings.Contains(reply, "x OK") {
		t.Errorf("mail programs are asked, too: %s", reply)
	}

	b.get("/account/second")
	b.post("/account/second/remove", "old", "wrong")
	b.says(422, "Your password so far is not right.")
	b.post("/account/second/remove", "old", bobsPassword)
	b.says(200, "The login here asks for your password alone now.")
	b.get("/account/second")
	second := strings.ReplaceAll(regexp.MustCompile(`<code>([A-Z2-7 ]+)</code>`).FindStringSubmatch(b.body)[1], " ", "")
	if second == secret {
		t.Error("the secret is the old one")
	}
	mustRunFails(t, p.data, "bob@home.lan has no second factor", "user", "two-factor", "remove", "bob")

	// The owner, or a command, helps who has lost everything.
	owner := p.loggedIn(t, "maria", mariasPassword)
	for _, remove := range []func(){
		func() { mustRun(t, p.data, "user", "two-factor", "remove", "bob") },
		func() {
			owner.get("/people/bob@home.lan")
			owner.post("/people/bob@home.lan/second")
			owner.says(200, "bob@home.lan logs in here with the password alone now.")
		},
	} {
		giveFactor(t, p, "bob@home.lan")
		lost := p.browser(t)
		lost.login("bob", bobsPassword)
		lost.says(200, "<h1>The second step</h1>")
		remove()
		lost.login("bob", bobsPassword)
		lost.says(200, "Log out")
	}
	if log := p.stderr.String(); strings.Contains(log, secret) || strings.Contains(log, recovery[3]) {
		t.Errorf("the log:\n%s", log)
	}
}

// giveFactor gives somebody a second factor by the file, as a person who edits it does.
func giveFactor(t *testing.T, p *page, account string) {
	t.Helper()
	text, err := os.ReadFile(dataDir(p.data).accounts())
	if err != nil {
		t.Fatal(err)
	}
	line := `address = "` + account + `"`
	changed := strings.Replace(string(text), line, line+"\ntotp = \"JBSWY3DPEHPK3PXP\"", 1)
	if err := os.WriteFile(dataDir(p.data).accounts(), []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(accountsRecheck + 10*time.Millisecond)
}

// mustRunFails runs a command that has to say why it cannot be.
func mustRunFails(t *testing.T, data, want string, args ...string) {
	t.Helper()
	if status, _, errs := runCommand(t, data, "", args...); status != exitFailed || !strings.Contains(errs, want) {
		t.Errorf("%v: %d %s", args, status, errs)
	}
}

func TestFactorInTheFile(t *testing.T) {
	for field, want := range map[string]string{
		`totp = "not base32!"`: "accounts.toml line 3: totp: it is no secret of a second factor; the page makes one",
		`recovery = ["plain"]`: "accounts.toml line 3: recovery: one of them is no hash; the page makes them",
	} {
		_, err := parseAccounts("[[user]]\naddress = \"a@b.c\"\n"+field+"\n", "accounts.toml")
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v", field, err)
		}
	}
}
