package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// openTestAccounts opens a file with this text ("": none) in a fresh folder.
func openTestAccounts(t testing.TB, text string) *Accounts {
	t.Helper()
	file := filepath.Join(t.TempDir(), "accounts.toml")
	if text != "" {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, err := OpenAccounts(AccountsConfig{File: file, Domain: "Home.LAN", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func mustAdd(t testing.TB, a *Accounts, address, password string) {
	t.Helper()
	if _, err := a.Add(address, "", password); err != nil {
		t.Fatal(err)
	}
}

func TestLogin(t *testing.T) {
	a := openTestAccounts(t, "")
	mustAdd(t, a, "Maria@home.lan", "correct horse")
	mustAdd(t, a, "bob@home.lan", "battery staple")
	mustAdd(t, a, "bob@other.lan", "battery staple")
	app, err := a.AddAppPassword("MARIA@home.lan", "phone")
	if err != nil {
		t.Fatal(err)
	}
	maria, phone := Identity{Account: "maria@home.lan"}, Identity{"maria@home.lan", "phone"}
	tests := []struct {
		user, password string
		want           Identity
	}{
		{"maria@home.lan", "correct horse", maria},
		{"MARIA@Home.Lan", "correct horse", maria},
		{"Maria", "correct horse", maria},
		{"maria", "correct horse", maria}, // remembered
		{"maria", "Correct horse", Identity{}},
		{"maria", "", Identity{}},
		{"maria", strings.Repeat("x", maxPassword+1), Identity{}},
		{"maria@home.lan", app, phone},
		{"maria", strings.ToUpper(strings.ReplaceAll(app, "-", " ")), phone},
		{"maria+tag@home.lan", "correct horse", Identity{}},
		{"bob", "battery staple", Identity{}}, // two of them
		{"bob@other.lan", "battery staple", Identity{Account: "bob@other.lan"}},
		{"bob@home.lan", app, Identity{}},
		{"nobody", "battery staple", Identity{}},
		{"", "battery staple", Identity{}},
		{"@home.lan", "battery staple", Identity{}},
		{"postmaster@home.lan", "correct horse", Identity{}},
	}
	for _, test := range tests {
		got, err := a.Login(t.Context(), test.user, test.password)
		if got != test.want || (err == nil) != (test.want.Account != "") || err != nil && !errors.Is(err, ErrBadLogin) {
			t.Errorf("Login(%q, %q) = %v, %v; want %v", test.user, test.password, got, err, test.want)
		}
	}
}

func TestLoginForgets(t *testing.T) {
	a := openTestAccounts(t, "")
	mustAdd(t, a, "maria@home.lan", "correct horse")
	app, err := a.AddAppPassword("maria@home.lan", "phone")
	if err != nil {
		t.Fatal(err)
	}
	login := func(password string) bool {
		_, err := a.Login(t.Context(), "maria", password)
		return err == nil
	}
	if !login("correct horse") || !login(app) {
		t.Fatal("good passwords refused")
	}
	if err := a.SetPassword("maria@home.lan", "a new password"); err != nil {
		t.Fatal(err)
	}
	if login("correct horse") || !login("a new password") || !login(app) {
		t.Error("a changed password is not the one that counts")
	}
	if err := a.RemoveAppPassword("maria@home.lan", "phone"); err != nil {
		t.Fatal(err)
	}
	if login(app) {
		t.Error("a revoked app password still works")
	}
	if _, err := a.Remove("maria@home.lan"); err != nil {
		t.Fatal(err)
	}
	if login("a new password") {
		t.Error("a removed account still works")
	}
}

func TestLoginOfOtherHashes(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("from elsewhere"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	a := openTestAccounts(t, fmt.Sprintf(`
[[user]]
address = "old@home.lan"
password = '%s'
[[user]]
address = "off@home.lan"
password = '%s'
disabled = true
[[user]]
address = "none@home.lan"
`, hash, hash))
	for user, good := range map[string]bool{"old": true, "off": false, "none": false} {
		if _, err := a.Login(t.Context(), user, "from elsewhere"); (err == nil) != good {
			t.Errorf("%s: %v", user, err)
		}
	}
	if got, err := a.Resolve(Address{"off", "home.lan"}); err != nil || len(got) != 1 {
		t.Errorf("a disabled account gets no mail: %v %v", got, err)
	}
}

func TestLoginStopsWithItsContext(t *testing.T) {
	a := openTestAccounts(t, "")
	mustAdd(t, a, "maria@home.lan", "correct horse")
	for range cap(a.hasher.slots) {
		a.hasher.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, user := range []string{"maria", "nobody"} {
		if _, err := a.Login(ctx, user, "correct horse"); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", user, err)
		}
	}
}

func TestResolve(t *testing.T) {
	a := openTestAccounts(t, "")
	for _, address := range []string{"maria@home.lan", "bob@home.lan", "eve@other.lan"} {
		mustAdd(t, a, address, "correct horse")
	}
	for _, alias := range []Alias{
		{"all@home.lan", []string{"bob@home.lan", "maria@home.lan", "Eve@Other.lan"}},
		{"boss@home.lan", []string{"all@home.lan", "maria@home.lan"}},
		{"@third.lan", []string{"bob@home.lan"}},
		{"abuse@other.lan", []string{"eve@other.lan"}},
		{"team+x@home.lan", []string{"eve@other.lan"}},
		{"@bücher.lan", []string{"eve@other.lan"}},
	} {
		if _, err := a.AddAlias(alias.Address, alias.To); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		to   string
		want string // joined by spaces, or the error
	}{
		{"maria@home.lan", "maria@home.lan"},
		{"MARIA@HOME.LAN", "maria@home.lan"},
		{"maria+x+y@home.lan", "maria@home.lan"},
		{"all@home.lan", "bob@home.lan eve@other.lan maria@home.lan"},
		{"all+news@home.lan", "bob@home.lan eve@other.lan maria@home.lan"},
		{"boss@home.lan", "bob@home.lan eve@other.lan maria@home.lan"},
		{"team+x@home.lan", "eve@other.lan"},
		{"team@home.lan", ErrNoUser.Error()},
		{"+x@home.lan", ErrNoUser.Error()},
		{"anyone@third.lan", "bob@home.lan"},
		{"postmaster@third.lan", "maria@home.lan"},
		{"Postmaster@home.lan", "maria@home.lan"},
		{"root+cron@other.lan", "maria@home.lan"},
		{"abuse@other.lan", "eve@other.lan"},
		{"x@xn--bcher-kva.lan", "eve@other.lan"},
		{"x@BÜCHER.lan", "eve@other.lan"},
		{"maria@other.lan", ErrNoUser.Error()},
		{"maria@example.org", ErrNotLocal.Error()},
		{"maria@", "maria@home.lan"}, // bare
		{"postmaster@", "maria@home.lan"},
	}
	for _, test := range tests {
		local, domain, _ := strings.Cut(test.to, "@")
		list, err := a.Resolve(Address{local, domain})
		got := strings.Join(list, " ")
		if err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("Resolve(%s) = %s; want %s", test.to, got, test.want)
		}
	}
	owns := map[string]bool{
		"bob@home.lan": true, "Bob+list@HOME.lan": true, "all@home.lan": true, "any@third.lan": true,
		"maria@home.lan": false, "postmaster@home.lan": false, "bob@example.org": false, "bob@": false, "@third.lan": false,
	}
	for from, want := range owns {
		local, domain, _ := strings.Cut(from, "@")
		if got := a.Owns("bob@home.lan", Address{local, domain}); got != want {
			t.Errorf("Owns(%s) = %v", from, got)
		}
	}
	for domain, want := range map[string]bool{"home.lan": true, "OTHER.lan": true, "third.lan.": true, "example.org": false, "": false} {
		if got := a.IsLocalDomain(domain); got != want {
			t.Errorf("IsLocalDomain(%q) = %v", domain, got)
		}
	}
	if got := strings.Join(a.Domains(), " "); got != "home.lan bücher.lan other.lan third.lan" {
		t.Errorf("domains %s", got)
	}
	if a.DefaultDomain() != "home.lan" || a.Owner() != "maria@home.lan" {
		t.Errorf("default domain %s, owner %s", a.DefaultDomain(), a.Owner())
	}
}

func TestDefaultDomain(t *testing.T) {
	a := openTestAccounts(t, "")
	if got := a.DefaultDomain(); got != "home.lan" {
		t.Errorf("without people: %s", got)
	}
	if _, err := a.Resolve(Address{"postmaster", "home.lan"}); !errors.Is(err, ErrNoUser) {
		t.Errorf("postmaster of nobody: %v", err)
	}
	mustAdd(t, a, "maria@elsewhere.lan", "correct horse")
	if got := a.DefaultDomain(); got != "elsewhere.lan" {
		t.Errorf("with an owner: %s", got)
	}
	if a.IsLocalDomain("home.lan") {
		t.Error("the machine's domain is still local")
	}
	a.cfg.Fixed = true
	if got := a.DefaultDomain(); got != "home.lan" {
		t.Errorf("with a setting: %s", got)
	}
}

func TestAccountAddresses(t *testing.T) {
	good := map[string]string{
		"a@b": "a@b", " A.b-c_d@Host.LAN ": "a.b-c_d@host.lan", "José@x.lan": "josé@x.lan",
		"Jose\u0301@x.lan": "josé@x.lan", "comet@x": "comet@x", "user.con@x": "user.con@x",
		"u@XN--BCHER-KVA.lan": "u@bücher.lan", "com@x": "com@x",
	}
	for in, want := range good {
		if got, err := accountAddress(in); got != want || err != nil {
			t.Errorf("accountAddress(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", "a", "@", "a@", "@b", ".a@b", "a.@b", "a..b@c", "-a@b", "a b@c", "a/b@c", `a\b@c`, "a:b@c", "a;b@c", "a*b@c",
		"a+b@c", "con@b", "CON.x@b", "lpt1@b", "com0@b", "a@con", "a@nul.lan", "a@b..c", "a@-b", "a@b_c", "a@[127.0.0.1]",
		"a@b/../c", "../x@b", "a\x00@b", "a@b\n", "a\r@b\nc", strings.Repeat("a", 65) + "@b", "a@" + strings.Repeat("b", 64),
		"a@" + strings.Repeat("b.", 130) + "c", "x.removed-2026@b", "a\xff@b", "~a@b", "a@b@c", `"a b"@c`, "a%b@c",
	} {
		if in == "a@b\n" {
			continue // surrounding space is cut
		}
		if got, err := accountAddress(in); err == nil {
			t.Errorf("accountAddress(%q) = %q, want an error", in, got)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("accountAddress(%q): more than one line: %v", in, err)
		}
	}
}

func TestAccountsFileErrors(t *testing.T) {
	const hash = nobodysHash
	tests := []struct{ text, want string }{
		{"[[user]]\naddress = 'a@b'\nadress = 'x'\n", `accounts.toml line 3: there is no setting "user.adress"`},
		{"[[user]]\naddress = \"a@b\n", "accounts.toml line 2: "},
		{"[[user]]\naddress = 7\n", "accounts.toml line 2: user.address: the value is of the type int64 where string is wanted"},
		{"[[user]]\nname = 'x'\n", `accounts.toml line 1: address: "" is not an address: write it as name@domain`},
		{"[[user]]\naddress = 'a@b'\n\n[[user]]\n# the second\naddress = 'A@B'\n", "accounts.toml line 6: address: a@b is there twice"},
		{"[[user]]\naddress = 'a@b'\npassword = 'plain'\n", "accounts.toml line 3: password: it is not a password hash; `appliance user passwd ADDRESS` sets one"},
		{"[[user]]\naddress = 'a@b'\npassword = '$argon2id$v=19$m=9999999,t=3,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAA'\n", "accounts.toml line 3: password: its cost is out of bounds: m up to 65536, t up to 16, p up to 8"},
		{"[[user]]\naddress = 'a@b'\n[[user.app_password]]\nname='x'\npassword='" + hash + "'\n", "accounts.toml line 5: password: it is not an app password's hash; `appliance user app-password add ADDRESS NAME` makes one"},
		{"[[user]]\naddress = 'a@b'\n[[user.app_password]]\nname=''\n", `accounts.toml line 4: name: "" cannot name an app password: take 1 to 64 characters, such as phone`},
		{"[[user]]\naddress='a@b'\n[[alias]]\naddress='x@b'\n", "accounts.toml line 3: to: x@b goes to nobody"},
		{"[[user]]\naddress='a@b'\n[[alias]]\naddress='x@b'\nto=['y@b']\n", "accounts.toml line 5: to: y@b is nobody here; an alias goes to the accounts and aliases of this appliance"},
		{"[[user]]\naddress='a@b'\n[[alias]]\naddress='a@b'\nto=['a@b']\n", "accounts.toml line 4: address: a@b is there already"},
		{"[[user]]\naddress='a@b'\n[[alias]]\naddress='x@b'\nto=['x@b']\n", "accounts.toml line 5: to: the alias goes in a circle: x@b to x@b"},
		{"[[user]]\naddress='a@b'\n[[alias]]\naddress='x@b'\nto=['y@b']\n[[alias]]\naddress='y@b'\nto=['a@b','z@b']\n[[alias]]\naddress='z@b'\nto=['x+q@b']\n",
			"accounts.toml line 5: to: the alias goes in a circle: x@b to y@b to z@b to x@b"},
		{"[[user]]\naddress='a@b'\ncreated = 'yesterday'\n", "accounts.toml line 3: "},
		{"stray = 1\n", `accounts.toml line 1: there is no setting "stray"`},
		{"[[users]]\naddress='a@b'\n", `accounts.toml line 1: there is no setting "users"`},
		{"[user]\naddress='a@b'\n", "accounts.toml"},
		{"[[user]]\naddress='a@b'\n\x00", "accounts.toml line 3: there is a NUL byte in the file"},
		{"[[user]]\naddress='a@b'\nname=\"x\\ny\"", "accounts.toml line 3: name: a name is one line"},
	}
	for _, test := range tests {
		file := filepath.Join(t.TempDir(), "accounts.toml")
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := OpenAccounts(AccountsConfig{File: file, Domain: "b"})
		if err == nil {
			t.Errorf("no error for:\n%s", test.text)
			continue
		}
		if !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got  %s\nwant %s\nfor:\n%s", err, test.want, test.text)
		}
		if after, _ := os.ReadFile(file); string(after) != test.text {
			t.Errorf("the file was changed:\n%s", after)
		}
	}
}

func TestAliasDiamondsEnd(t *testing.T) {
	text := "[[user]]\naddress='a@b'\n"
	for i := range 40 {
		next := fmt.Sprintf("['l%d@b','r%d@b']", i+1, i+1)
		if i == 39 {
			next = "['a@b']"
		}
		text += fmt.Sprintf("[[alias]]\naddress='l%d@b'\nto=%s\n[[alias]]\naddress='r%d@b'\nto=%s\n", i, next, i, next)
	}
	a := openTestAccounts(t, text)
	if got, err := a.Resolve(Address{"l0", "b"}); err != nil || !slices.Equal(got, []string{"a@b"}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestEditsKeepTheHandwriting(t *testing.T) {
	const text = `# Our family. Ask Maria before you change anything.

# the boss
[[user]]
address = "Maria@home.lan" # capital on purpose
name    = "Maria"

# her son
[[user]]
address = 'bob@home.lan'

# for everybody
[[alias]]
address = "all@home.lan"
to = [
  "maria@home.lan",
  "bob@home.lan", # him too
]
`
	a := openTestAccounts(t, text)
	if err := a.SetPassword("bob@home.lan", "correct horse"); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, a, "eve@home.lan", "correct horse")
	got, err := os.ReadFile(a.cfg.File)
	if err != nil {
		t.Fatal(err)
	}
	before, after, _ := strings.Cut(text, "address = 'bob@home.lan'\n")
	if !strings.HasPrefix(string(got), before) || !strings.Contains(string(got), after) {
		t.Errorf("the file is now:\n%s", got)
	}
	if _, err := a.Remove("bob@home.lan"); err != nil {
		t.Fatal(err)
	}
	got, _ = os.ReadFile(a.cfg.File)
	if strings.Contains(string(got), "bob") || strings.Contains(string(got), "her son") {
		t.Errorf("bob is still there:\n%s", got)
	}
	if runtime.GOOS != "windows" {
		if info, err := os.Stat(a.cfg.File); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	}
}

func TestEditsOfAFileWrittenOtherwise(t *testing.T) {
	a := openTestAccounts(t, "user = [{address = 'maria@home.lan'}, {address = 'bob@home.lan'}]\n")
	if _, err := a.AddAppPassword("maria@home.lan", "phone"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.AddAlias("x@home.lan", []string{"bob@home.lan"}); err != nil {
		t.Fatal(err)
	}
	b, err := OpenAccounts(a.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !a.book.same(b.book) || len(b.Users()) != 2 || len(b.Aliases()) != 1 || len(b.Users()[0].Apps) != 1 {
		t.Errorf("read back: %v %v", b.Users(), b.Aliases())
	}
}

func TestEditByHandIsTakenOver(t *testing.T) {
	a := openTestAccounts(t, "")
	now := time.Now()
	a.cfg.Now = func() time.Time { return now }
	mustAdd(t, a, "maria@home.lan", "correct horse")
	text, _ := os.ReadFile(a.cfg.File)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(a.cfg.File, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		now = now.Add(accountsRecheck)
	}
	write(string(text) + "[[user]]\naddress = 'bob@home.lan'\n")
	if len(a.Users()) != 2 {
		t.Fatal("an edit was not seen")
	}
	write(string(text) + "[[user]]\naddress = 'bob@home.lan'\nnonsense\n")
	if len(a.Users()) != 2 {
		t.Error("a broken edit was taken over")
	}
	if _, err := a.Add("eve@home.lan", "", "correct horse"); err == nil || !strings.Contains(err.Error(), "line") {
		t.Errorf("a change on top of a broken file: %v", err)
	}
	if after, _ := os.ReadFile(a.cfg.File); !strings.Contains(string(after), "nonsense") {
		t.Error("the broken file was written over")
	}
	write(string(text))
	if len(a.Users()) != 1 {
		t.Error("the repaired file was not taken over")
	}
	// A change sees an edit that is younger than the last look.
	if err := os.WriteFile(a.cfg.File, []byte(string(text)+"[[user]]\naddress = 'bob@home.lan'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, a, "eve@home.lan", "correct horse")
	if len(a.Users()) != 3 {
		t.Errorf("an edit was lost: %v", a.Users())
	}
}

func TestRefusedChangesChangeNothing(t *testing.T) {
	a := openTestAccounts(t, "")
	mustAdd(t, a, "maria@home.lan", "correct horse")
	mustAdd(t, a, "bob@home.lan", "correct horse")
	if _, err := a.AddAlias("x@home.lan", []string{"bob@home.lan"}); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(a.cfg.File)
	only := func(_ any, err error) error { return err }
	for name, err := range map[string]error{
		"same address":     only(a.Add("MARIA@home.lan", "", "correct horse")),
		"alias's address":  only(a.Add("x@home.lan", "", "correct horse")),
		"short password":   only(a.Add("new@home.lan", "", "short")),
		"bad address":      only(a.Add("a b@home.lan", "", "correct horse")),
		"bad name":         only(a.Add("new@home.lan", "a\nb", "correct horse")),
		"nobody":           a.SetPassword("nobody@home.lan", "correct horse"),
		"nobody removed":   only(a.Remove("nobody@home.lan")),
		"circle":           only(a.AddAlias("x@home.lan", []string{"x@home.lan"})),
		"alias to nobody":  only(a.AddAlias("y@home.lan", []string{"nobody@home.lan"})),
		"alias outside":    only(a.AddAlias("y@home.lan", []string{"a@example.org"})),
		"alias of account": only(a.AddAlias("bob@home.lan", []string{"maria@home.lan"})),
		"alias of none":    only(a.AddAlias("y@home.lan", nil)),
		"no such alias":    a.RemoveAlias("y@home.lan"),
		"no such app":      a.RemoveAppPassword("bob@home.lan", "phone"),
		"bad app name":     only(a.AddAppPassword("bob@home.lan", " phone")),
		"line end":         a.SetPassword("bob@home.lan", "correct\nhorse"),
		"too long":         a.SetPassword("bob@home.lan", strings.Repeat("x", maxPassword+1)),
	} {
		if err == nil {
			t.Errorf("%s: done", name)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than a line: %v", name, err)
		}
	}
	if after, _ := os.ReadFile(a.cfg.File); string(after) != string(before) {
		t.Errorf("the file was changed to:\n%s", after)
	}
	// A folder in the way of the temporary file.
	if err := os.Rename(filepath.Dir(a.cfg.File), filepath.Dir(a.cfg.File)+"-gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Add("new@home.lan", "", "correct horse"); err == nil {
		t.Error("written to nowhere")
	}
}

// TestAccountsModel makes random changes, keeps its own simple picture of the
// outcome, and compares the two, also after reading the file anew.
func TestAccountsModel(t *testing.T) {
	t.Parallel()
	a := openTestAccounts(t, "# ours\n")
	rng := rand.New(rand.NewPCG(1, 2))
	names := []string{"a@x", "b@x", "c@y", "d@y", "e@z"}
	users, aliases := map[string]bool{}, map[string][]string{}
	apps := map[string]bool{}
	pick := func() string { return names[rng.IntN(len(names))] }
	for step := range 300 {
		switch name := pick(); rng.IntN(6) {
		case 0:
			if len(users) < 4 {
				if _, err := a.Add(name, "", "correct horse"); err == nil {
					users[name] = true
				}
			}
		case 1:
			if got, err := a.Remove(name); err == nil {
				delete(users, got)
				maps.DeleteFunc(apps, func(key string, _ bool) bool { return strings.HasPrefix(key, name+" ") })
				modelDrop(users, aliases)
			}
		case 2:
			to := []string{pick(), pick()}
			if got, err := a.AddAlias(name, to); err == nil {
				aliases[name] = got.To
			}
		case 3:
			if a.RemoveAlias(name) == nil {
				delete(aliases, name)
				modelDrop(users, aliases)
			}
		case 4:
			if _, err := a.AddAppPassword(name, "p"); err == nil {
				apps[name+" p"] = true
			}
		case 5:
			if a.RemoveAppPassword(name, "p") == nil {
				delete(apps, name+" p")
			}
		}
		fresh, err := OpenAccounts(a.cfg)
		if err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		for _, have := range []*Accounts{a, fresh} {
			compareModel(t, have, users, aliases, apps)
		}
		if t.Failed() {
			text, _ := os.ReadFile(a.cfg.File)
			t.Fatalf("step %d:\n%s", step, text)
		}
	}
}

// modelDrop takes aliases that lead nowhere out of the picture.
func modelDrop(users map[string]bool, aliases map[string][]string) {
	for again := true; again; {
		again = false
		for name, to := range aliases {
			left := slices.DeleteFunc(slices.Clone(to), func(t string) bool { return !users[t] && aliases[t] == nil })
			if len(left) == len(to) {
				continue
			}
			again = true
			if aliases[name] = left; len(left) == 0 {
				delete(aliases, name)
			}
		}
	}
}

func compareModel(t *testing.T, a *Accounts, users map[string]bool, aliases map[string][]string, apps map[string]bool) {
	t.Helper()
	gotUsers, gotApps, gotAliases := map[string]bool{}, map[string]bool{}, map[string][]string{}
	for _, u := range a.Users() {
		gotUsers[u.Address] = true
		for _, app := range u.Apps {
			gotApps[u.Address+" "+app.Name] = true
		}
	}
	for _, alias := range a.Aliases() {
		gotAliases[alias.Address] = alias.To
	}
	if !maps.Equal(gotUsers, users) || !maps.Equal(gotApps, apps) || !maps.EqualFunc(gotAliases, aliases, slices.Equal[[]string]) {
		t.Errorf("have  %v %v %v\nmodel %v %v %v", gotUsers, gotApps, gotAliases, users, apps, aliases)
	}
}

func TestAccountsTogether(t *testing.T) {
	a := openTestAccounts(t, "")
	mustAdd(t, a, "maria@home.lan", "correct horse")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			name := fmt.Sprint("phone", i)
			if _, err := a.AddAppPassword("maria@home.lan", name); err != nil {
				t.Error(err)
			}
			if _, err := a.Login(t.Context(), "maria", "correct horse"); err != nil {
				t.Error(err)
			}
			a.Owns("maria@home.lan", Address{"postmaster", "home.lan"})
			if err := a.RemoveAppPassword("maria@home.lan", name); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(a.Users()[0].Apps); n != 0 {
		t.Errorf("%d app passwords are left", n)
	}
}

func TestGeneratedPasswords(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		for _, password := range []string{generatePassword(), generateAppPassword()} {
			if seen[password] || checkNewPassword(password) != nil {
				t.Fatalf("%q", password)
			}
			seen[password] = true
		}
	}
}

func TestGoodLoginsAreBounded(t *testing.T) {
	h := newPasswordHasher()
	for i := range maxGoodLogins {
		h.good[[32]byte{byte(i), byte(i >> 8), 1}] = struct{}{}
	}
	if err := h.verify(t.Context(), hashPassword("correct horse"), "correct horse"); err != nil {
		t.Fatal(err)
	}
	if len(h.good) > maxGoodLogins {
		t.Errorf("%d remembered", len(h.good))
	}
}

func FuzzAccountsFile(f *testing.F) {
	f.Add("# x\n[[user]]\naddress='a@b'\n# y\n[[alias]]\naddress='c@b'\nto=['a@b']\n", "new@b")
	f.Add("user = [{address='a@b'}]", "b@c")
	f.Add("[[user]]\naddress='a@b'\nname='''\n[[user]]\n'''\n[[user.app_password]]\nname='x'", "b@c")
	f.Fuzz(func(t *testing.T, text, address string) {
		if len(text) > 4<<10 {
			return // the library's parser is slow on long nonsense
		}
		book, err := parseAccounts(text, "f")
		if err != nil {
			return
		}
		next := book.clone()
		next.Users = append(next.Users, User{Address: address, Name: "N"})
		if len(next.Aliases) > 0 {
			next.Aliases = next.Aliases[1:]
		}
		if next.check() != nil {
			return
		}
		again, err := parseAccounts(next.render(book), "f")
		if err != nil || !next.same(again) {
			t.Fatalf("%v\n%q", err, next.render(book))
		}
	})
}

func BenchmarkPasswordHash(b *testing.B) {
	for b.Loop() {
		hashPassword("correct horse")
	}
}

func BenchmarkRepeatedLogin(b *testing.B) {
	a := openTestAccounts(b, "")
	mustAdd(b, a, "maria@home.lan", "correct horse")
	for b.Loop() {
		if _, err := a.Login(b.Context(), "maria@home.lan", "correct horse"); err != nil {
			b.Fatal(err)
		}
	}
}

// A short name is one account's and no other's, whoever joins.
func TestShortNames(t *testing.T) {
	a := openTestAccounts(t, "user = [{address = 'maria@home.lan'}, {address = 'bob@home.lan'}, {address = 'bob@other.lan'}, {address = 'eve@other.lan'}]\n"+
		"alias = [{address = 'team@home.lan', to = ['bob@home.lan']}]\n")
	for account, short := range map[string]string{"maria@home.lan": "maria", "bob@home.lan": "bob", "bob@other.lan": "bob@other.lan", "eve@other.lan": "eve@other.lan"} {
		if got := a.ShortName(account); got != short {
			t.Errorf("%s is called %q", account, got)
		}
		if got := a.ByShortName(short); got != account {
			t.Errorf("%s is %q", short, got)
		}
	}
	for _, name := range []string{"", "nobody", "eve", "bob@home.lan", "Bob", "bob+x", "team", "postmaster", "@home.lan", "home.lan", " bob", "bob@", "bob@@other.lan"} {
		if got := a.ByShortName(name); got != "" {
			t.Errorf("%q is %s", name, got)
		}
	}
	for name, want := range map[string]string{"bob": "bob@home.lan", "BOB@Home.LAN": "bob@home.lan", "eve": "eve@other.lan", "bob@other.lan": "bob@other.lan",
		"": "", "team": "", "team@home.lan": "", "bob+x@home.lan": "", "postmaster": "", "nobody@home.lan": "", "@": "", "bob@": ""} {
		if got := a.Find(name); got != want {
			t.Errorf("Find(%q) = %q, want %q", name, got, want)
		}
	}
	if got := fmt.Sprint(a.Addresses()); got != "[maria@home.lan bob@home.lan bob@other.lan eve@other.lan]" {
		t.Error(got)
	}
}
