package main

import (
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAccountsRename(t *testing.T) {
	file := filepath.Join(t.TempDir(), "accounts.toml")
	text := `# The people.
[[user]]
address = "maria@home.lan"
quota = "1G"

# Our son.
[[user]]
address = "bob@home.lan"

[[alias]]
address = "family@home.lan"
to = ["maria@home.lan", "bob@home.lan"]
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := OpenAccounts(AccountsConfig{File: file, Domain: "home.lan"})
	if err != nil {
		t.Fatal(err)
	}
	a.LoggedIn(Identity{Account: "maria@home.lan", Via: "phone"}, "imap")
	if err := a.Rename("maria@home.lan", "Mary@example.org"); err != nil {
		t.Fatal(err)
	}
	if a.Owner() != "mary@example.org" || a.DefaultDomain() != "example.org" || a.Quota("mary@example.org").Bytes != 1<<30 {
		t.Errorf("owner %s", a.Owner())
	}
	for _, to := range []string{"maria@home.lan", "maria+x@home.lan", "postmaster@home.lan"} {
		if got, err := a.Resolve(mustAddress(to)); err != nil || !slices.Equal(got, []string{"mary@example.org"}) {
			t.Errorf("%s reaches %v, %v", to, got, err)
		}
	}
	if got, _ := a.Resolve(mustAddress("family@home.lan")); !slices.Equal(got, []string{"bob@home.lan", "mary@example.org"}) {
		t.Errorf("family reaches %v", got)
	}
	if last := a.LastLogins("mary@example.org"); last.Apps["phone"].IsZero() || len(a.LastLogins("maria@home.lan").Protocols) > 0 {
		t.Errorf("%v", last)
	}
	after, _ := os.ReadFile(file)
	for _, want := range []string{"# The people.\n[[user]]\naddress = \"mary@example.org\"\nquota = \"1G\"\n", "# Our son.\n[[user]]\naddress = \"bob@home.lan\"\n"} {
		if !strings.Contains(string(after), want) {
			t.Errorf("%q is not in\n%s", want, after)
		}
	}
	if err := a.Rename("bob@home.lan", "family@home.lan"); err == nil {
		t.Error("a group became an account")
	}
	if err := a.Rename("mary@example.org", "maria@home.lan"); err != nil {
		t.Error(err)
	}
	if got, _ := a.Resolve(mustAddress("mary@example.org")); !slices.Equal(got, []string{"maria@home.lan"}) {
		t.Errorf("the way back: %v", got)
	}
}

func TestLastLoginsAreKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "logins.json")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	open := func() *Accounts {
		a, err := OpenAccounts(AccountsConfig{Domain: "home.lan", Logins: file, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := open()
	a.LoggedIn(Identity{Account: "bob@home.lan"}, "imap")
	a.LoggedIn(Identity{Account: "bob@home.lan", Via: "phone"}, "smtp")
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Error("each login is written at once")
	}
	a.Close()
	a = open()
	if last := a.LastLogins("bob@home.lan"); !last.Protocols["imap"].Equal(now) || !last.Apps["phone"].Equal(now) || len(last.Apps) != 1 {
		t.Errorf("%v", last)
	}
	a.Close()
	if err := os.WriteFile(file, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if last := open().LastLogins("bob@home.lan"); len(last.Protocols) != 0 {
		t.Errorf("%v", last)
	}
}

// TestRenameTakesTheMail renames an account while it is logged in, whose folder somebody else shares.
func TestRenameTakesTheMail(t *testing.T) {
	p := startPage(t)
	_, conn, _ := p.imapLogin(t, "bob", bobsPassword)
	in, _, _ := p.imapLogin(t, "bob", bobsPassword)
	bob, sender, _ := p.imapLogin(t, "bob", bobsPassword)
	for _, command := range []string{"APPEND INBOX {7+}\r\nA: b\r\n\r", "CREATE Work", "SETACL Work maria lrs"} {
		if reply := imapSay(t, bob, sender, command); !strings.Contains(reply, "x OK") {
			t.Fatal(reply)
		}
	}
	maria, mariasConn, _ := p.imapLogin(t, "maria", mariasPassword)
	if reply := imapSay(t, maria, mariasConn, "SETACL INBOX bob lr"); !strings.Contains(reply, "x OK") {
		t.Fatal(reply)
	}
	mustRun(t, p.data, "user", "rename", "bob", "robert@example.org")
	if _, err := in.ReadByte(); err == nil {
		t.Error("an open session of the old address goes on")
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("read %d, %v", n, err)
	}
	robert, roberts, reply := p.imapLogin(t, "robert@example.org", bobsPassword)
	if !strings.Contains(reply, "x OK") {
		t.Fatal(reply)
	}
	if reply := imapSay(t, robert, roberts, "STATUS INBOX (MESSAGES)"); !strings.Contains(reply, "MESSAGES 1") {
		t.Error(reply)
	}
	if reply := imapSay(t, robert, roberts, "EXAMINE user/maria/INBOX"); !strings.Contains(reply, "x OK") {
		t.Error(reply)
	}
	if reply := imapSay(t, maria, mariasConn, "EXAMINE user/robert@example.org/Work"); !strings.Contains(reply, "x OK") {
		t.Error(reply)
	}
	if _, _, reply := p.imapLogin(t, "bob@home.lan", bobsPassword); !strings.Contains(reply, "x NO") {
		t.Error(reply)
	}
	mustRun(t, p.data, "alias", "remove", "bob")
	mustRun(t, p.data, "user", "add", "bob")
}

// A power cut may come at any moment of a rename.
func TestRenameIsFinished(t *testing.T) {
	for _, committed := range []bool{false, true} {
		for _, moved := range []bool{false, true} {
			dir := t.TempDir()
			s, err := OpenStore(StoreConfig{MailDir: filepath.Join(dir, "mail"), IndexDir: filepath.Join(dir, "index"), Host: "x"})
			if err != nil {
				t.Fatal(err)
			}
			at := "bob@home.lan"
			if moved {
				at = "robert@home.lan"
			}
			drop, err := s.Maildrop(at)
			if err != nil {
				t.Fatal(err)
			}
			drop.Release()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			mark := filepath.Join(dir, "mail", renamingName)
			if err := os.WriteFile(mark, []byte(`{"from":"bob@home.lan","to":"robert@home.lan"}`), 0o600); err != nil {
				t.Fatal(err)
			}
			if s, err = OpenStore(StoreConfig{MailDir: filepath.Join(dir, "mail"), IndexDir: filepath.Join(dir, "index"), Host: "x"}); err != nil {
				t.Fatal(err)
			}
			want := map[bool]string{false: "bob", true: "robert"}[committed]
			if err := s.FinishRename(func(account string) bool { return account == want+"@home.lan" }); err != nil {
				t.Error(err)
			}
			entries, err := os.ReadDir(filepath.Join(dir, "mail", "home.lan"))
			if err != nil || len(entries) != 1 || entries[0].Name() != want {
				t.Errorf("committed %t, moved %t: %v %v", committed, moved, entries, err)
			}
			if _, err := os.Stat(mark); err == nil {
				t.Error("the mark stays")
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestDisableEndsSessions: a person who is disabled is out at once, everywhere.
func TestDisableEndsSessions(t *testing.T) {
	p := startPage(t)
	b := p.loggedIn(t, "bob", bobsPassword)
	_, conn, reply := p.imapLogin(t, "bob", bobsPassword)
	if !strings.Contains(reply, "x OK") {
		t.Fatal(reply)
	}
	mustRun(t, p.data, "user", "disable", "bob")
	endsNow(t, conn)
	b.get("/")
	b.says(200, "<h1>Log in</h1>")
	b.post("/login", "name", "bob", "password", bobsPassword)
	b.says(422, "The address or the password is not right.")
	mustRun(t, p.data, "user", "enable", "bob")
	b.login("bob", bobsPassword)
	b.says(200, "Log out")
	out := mustRun(t, p.data, "user", "app-password", "add", "bob", "phone")
	_, phone, _ := p.imapLogin(t, "bob", strings.TrimSpace(out[strings.LastIndex(out, " "):]))
	in, other, _ := p.imapLogin(t, "bob", bobsPassword)
	mustRun(t, p.data, "user", "app-password", "remove", "bob", "phone")
	endsNow(t, phone)
	if reply := imapSay(t, in, other, "NOOP"); !strings.Contains(reply, "x OK") {
		t.Error(reply)
	}
	mustRun(t, p.data, "user", "passwd", "bob")
	endsNow(t, other)
}

// endsNow fails the test unless the server has closed a connection.
func endsNow(t *testing.T, conn *tls.Conn) {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) || err == nil {
		t.Errorf("the session goes on: %d bytes, %v", n, err)
	}
}
