package main

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var shownSecret = regexp.MustCompile(`<code id="secret">([^<]+)</code>`)

// secret gives what the page shows once.
func (b *browser) secret() string {
	b.t.Helper()
	found := shownSecret.FindStringSubmatch(b.body)
	if found == nil {
		b.t.Fatalf("%s shows no secret:\n%s", b.where, b.body)
	}
	return found[1]
}

func TestWebPeople(t *testing.T) {
	p := startPage(t)
	b := p.loggedIn(t, "maria", mariasPassword)
	b.get("/people")
	b.says(200, "bob@home.lan", "Looks after this server", "never yet")
	for _, test := range []struct{ address, name, password, want string }{
		{"bob", "", "", "bob@home.lan has an account already."},
		{"a/b", "", "", "a/b@home.lan cannot be an address."},
		{"../../x", "", "", "cannot be an address."},
		{"eve\r\nBcc: x", "", "", "cannot be an address."},
		{"eve", "", "short", "The password is too short"},
		{"eve", strings.Repeat("x", 300), "", "The name is too long."},
	} {
		b.post("/people", "address", test.address, "name", test.name, "password", test.password)
		b.says(422, test.want)
	}
	b.post("/people", "address", "Eve", "name", "Eve <script>alert(1)</script>")
	b.says(200, "eve@home.lan has an account now, with this password:", "Eve &lt;script&gt;")
	if strings.Contains(b.body, "<script>alert") {
		t.Error("a name becomes part of the page")
	}
	if _, _, reply := p.imapLogin(t, "eve", b.secret()); !strings.Contains(reply, "x OK") {
		t.Error(reply)
	}
	b.get("/people")
	if shownSecret.MatchString(b.body) {
		t.Error("the password is shown twice")
	}
	b.post("/people", "address", "ann@example.org", "password", "new password")
	b.says(200, "ann@example.org has an account now.")
	b.get("/people/nobody@home.lan")
	b.says(404)
	if log := p.stderr.String(); !strings.Contains(log, `msg=changed page="POST /people" by=maria@home.lan remote=127.0.0.1 address=eve@home.lan`) || strings.Contains(log, "new password") {
		t.Errorf("the log:\n%s", log)
	}
}

func TestWebPerson(t *testing.T) {
	p := startPage(t)
	b := p.loggedIn(t, "maria", mariasPassword)
	in, conn, _ := p.imapLogin(t, "bob", bobsPassword)
	imapSay(t, in, conn, "APPEND INBOX {2000+}\r\n"+strings.Repeat("x", 2000))
	b.get("/people/bob@home.lan")
	b.says(200, "bob@home.lan", "1 message", "2 KB", "Last by a mail program (IMAP)")
	b.post("/people/bob@home.lan/name", "name", "Robert")
	b.says(200, "bob@home.lan has another name now.", `value="Robert"`)
	b.post("/people/bob@home.lan/quota", "quota", "lots")
	b.says(422, "lots is no amount of storage.", `value="lots"`)
	b.post("/people/bob@home.lan/quota", "quota", "4k")
	b.says(200, "The limit for bob@home.lan is set.", "2 KB of 4 KB", `width="48"`)
	b.post("/people/bob@home.lan/quota", "quota", "")
	b.says(200, "bob@home.lan has no limit now.")
	b.post("/people/bob@home.lan/app", "app", "phone")
	b.says(200, "This is the password for phone, to be used with the user name bob@home.lan:")
	if _, _, reply := p.imapLogin(t, "bob", b.secret()); !strings.Contains(reply, "x OK") {
		t.Error(reply)
	}
	b.post("/people/bob@home.lan/app", "app", "phone")
	b.says(422, "There is a password for phone already.")
	b.post("/people/bob@home.lan/app", "app", "")
	b.says(422, "A device needs a name")
	b.post("/people/bob@home.lan/app/remove", "app", "phone")
	b.says(200, "The password for phone works no more.")
	b.post("/people/bob@home.lan/app/remove", "app", "phone")
	b.says(422, "There is no password for phone any more.")
	b.post("/people/bob@home.lan/disable")
	b.says(200, "bob@home.lan can log in no more.", "May not log in")
	if _, _, reply := p.imapLogin(t, "bob", bobsPassword); !strings.Contains(reply, "x NO") {
		t.Error(reply)
	}
	b.post("/people/bob@home.lan/enable")
	b.says(200, "bob@home.lan can log in again.")
	b.post("/people/maria@home.lan/disable")
	b.says(422, "That was not done:", "maria@home.lan is the owner")
	b.post("/people/bob@home.lan/rename", "to", "maria")
	b.says(422, "maria@home.lan has an account already.")
	b.post("/people/bob@home.lan/rename", "to", "robert")
	b.says(200, "The address is robert@home.lan now.", "Also reached by", "bob@home.lan")
	b.post("/people/maria@home.lan/rename", "to", "mary@example.org") // of one's own: the session goes on
	b.says(200, "The address is mary@example.org now.", "Looks after this server")
	b.get("/people")
	b.says(200, "mary@example.org")
}

func TestWebRemovePerson(t *testing.T) {
	p := startPage(t)
	b := p.loggedIn(t, "maria", mariasPassword)
	b.get("/people/bob@home.lan/remove")
	b.says(200, "bob@home.lan will have no account any more", "is not deleted")
	b.post("/people/bob@home.lan/remove", "address", "maria")
	b.says(422, "Type the address bob@home.lan to remove this person.")
	b.post("/people/bob@home.lan/remove", "address", "bob")
	b.says(200, "bob@home.lan has no account any more. The mail lies in "+filepath.Join(p.data, "mail", "home.lan", "bob.removed-"))
	b.get("/people/maria@home.lan/remove")
	b.post("/people/maria@home.lan/remove", "address", "maria")
	b.says(422, "The owner looks after this server and cannot be removed.")
	if entries, err := os.ReadDir(filepath.Join(p.data, "mail", "home.lan")); err != nil || len(entries) == 0 {
		t.Errorf("%v %v", entries, err)
	}
}

// A link lets somebody choose a password, once.
func TestWebResetLink(t *testing.T) {
	p := startPage(t)
	owner := p.loggedIn(t, "maria", mariasPassword)
	bob := p.loggedIn(t, "bob", bobsPassword)
	owner.get("/people/bob@home.lan")
	owner.post("/people/bob@home.lan/link")
	owner.says(200, "With this link bob@home.lan chooses a new password, once, within 24 hours:")
	link, err := url.Parse(owner.secret())
	if err != nil || link.Path != "/reset" {
		t.Fatalf("%v %v", link, err)
	}
	b := p.browser(t)
	b.get("/reset?code=meno-hure-gifa-nebe-fejo")
	b.says(403, "This link does not work any more")
	b.get(link.RequestURI())
	b.says(200, "Choose a new password for", "bob@home.lan")
	code := link.Query().Get("code")
	b.post("/reset", "code", code, "password", "new password", "again", "other")
	b.says(422, "The two passwords are not the same.", "bob@home.lan")
	b.post("/reset", "code", code, "password", "new password", "again", "new password")
	b.says(200, "The new password of bob@home.lan works from now on")
	b.login("bob", "new password")
	b.says(200, "Log out")
	bob.get("/")
	bob.says(200, "<h1>Log in</h1>")
	b = p.browser(t)
	b.get(link.RequestURI())
	b.says(403, "This link does not work any more")
	b.get("/login")
	b.post("/reset", "code", code, "password", "third password", "again", "third password")
	b.says(403, "This link does not work any more")
	out := mustRun(t, p.data, "user", "reset-link", "bob")
	printed := regexp.MustCompile(`https://\S+(/reset\?code=\S+)`).FindStringSubmatch(out)
	if printed == nil {
		t.Fatal(out)
	}
	b.get(printed[1])
	b.says(200, "Choose a new password for")
	if log := p.stderr.String(); strings.Contains(log, code) || strings.Contains(log, "new password") {
		t.Errorf("the log:\n%s", log)
	}
}

func TestWebAddresses(t *testing.T) {
	p := startPage(t)
	b := p.loggedIn(t, "maria", mariasPassword)
	b.get("/addresses")
	b.says(200, "There are none yet.", "Mail to all other addresses at home.lan")
	for _, test := range []struct{ address, to, want string }{
		{"bob", "maria@home.lan", "bob@home.lan has an account already."},
		{"a/b", "maria@home.lan", "cannot be an address."},
		{"family", "", "Choose at least one person"},
	} {
		fields := []string{"address", test.address}
		if test.to != "" {
			fields = append(fields, "to", test.to)
		}
		b.post("/addresses", fields...)
		b.says(422, test.want)
	}
	b.post("/addresses", "address", "family", "to", "somebody@example.net")
	b.says(403)
	b.get("/addresses")
	b.post("/addresses", "address", "family", "to", "maria@home.lan", "to", "bob@home.lan")
	b.says(200, "family@home.lan reaches maria@home.lan, bob@home.lan now.")
	b.post("/addresses/remove", "address", "family@home.lan", "to", "bob@home.lan")
	b.says(200, "family@home.lan does not reach bob@home.lan any more.")
	b.post("/addresses/remove", "address", "family@home.lan", "to", "bob@home.lan")
	b.says(403)
	b.get("/addresses")
	b.post("/addresses/remove", "address", "family@home.lan")
	b.says(200, "family@home.lan is no address any more.", "There are none yet.")
	b.post("/addresses/rest", "domain", "home.lan", "to", "bob@home.lan")
	b.says(200, "Mail to all other addresses at home.lan goes to bob@home.lan now.", "<option selected>bob@home.lan")
	if out := mustRun(t, p.data, "alias", "list"); out != "@home.lan  bob@home.lan\n" {
		t.Error(out)
	}
	b.post("/addresses/rest", "domain", "home.lan", "to", "maria@home.lan")
	b.says(200, "goes to maria@home.lan now.")
	b.post("/addresses/rest", "domain", "home.lan", "to", "")
	b.says(200, "Mail to all other addresses at home.lan is refused now.")
	b.post("/addresses/rest", "domain", "example.net", "to", "bob@home.lan")
	b.says(403)
	if out := mustRun(t, p.data, "alias", "list"); out != "" {
		t.Error(out)
	}
}
