package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xdg-go/scram"
	"golang.org/x/crypto/bcrypt"
)

// quickField is a password field that costs little to check: bcrypt and 4,096 iterations, or with no keys.
func quickField(t testing.TB, password, salt string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if salt == "" {
		return string(hash)
	}
	return string(hash) + " " + quickKeys(t, password, salt)
}

func quickKeys(t testing.TB, password, salt string) string {
	t.Helper()
	keys, err := newSCRAMKeys(password, scram.KeyFactors{Salt: salt, Iters: minSCRAMIterations})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// fits says by which of its passwords an account knows a password.
func fits(t testing.TB, a *Accounts, name, password string) []Identity {
	t.Helper()
	var found []Identity
	for _, c := range a.SCRAMCredentials(name) {
		text, err := newSCRAMKeys(password, c.Keys.KeyFactors)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := parseSCRAMKeys(text)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(keys.StoredKey, c.Keys.StoredKey) && bytes.Equal(keys.ServerKey, c.Keys.ServerKey) {
			found = append(found, c.Identity)
		}
	}
	return found
}

func TestSCRAMKeysFollowPasswords(t *testing.T) {
	a := openTestAccounts(t, "")
	mustAdd(t, a, "maria@home.lan", "correct horse")
	phone, err := a.AddAppPassword("maria@home.lan", "phone")
	if err != nil {
		t.Fatal(err)
	}
	main, app := Identity{Account: "maria@home.lan"}, Identity{"maria@home.lan", "phone"}
	check := func(password string, want ...Identity) {
		t.Helper()
		if got := fits(t, a, "Maria", password); !slices.Equal(got, want) {
			t.Errorf("%q fits %v, want %v", password, got, want)
		}
	}
	check("correct horse", main)
	check(phone, app)
	check(strings.ToUpper(phone))
	before := a.SCRAMCredentials("maria")[0].Keys.KeyFactors
	if err := a.SetPassword("maria@home.lan", "a new password"); err != nil {
		t.Fatal(err)
	}
	check("correct horse")
	check("a new password", main)
	check(phone, app)
	if err := a.RemoveAppPassword("maria@home.lan", "phone"); err != nil {
		t.Fatal(err)
	}
	check(phone)
	if after := a.SCRAMCredentials("maria")[0].Keys.KeyFactors; after != before {
		t.Errorf("the salt has changed: %v, %v", before, after)
	}
	if _, err := a.Remove("maria@home.lan"); err != nil {
		t.Fatal(err)
	}
	check("a new password")
}

// Nobody can tell by the salt whether a name has an account.
func TestSCRAMSaltTellsNothing(t *testing.T) {
	a := openTestAccounts(t, fmt.Sprintf("[[user]]\naddress = 'old@home.lan'\npassword = '%s'\n"+
		"[[user]]\naddress = 'off@home.lan'\npassword = '%s'\ndisabled = true\n[[user]]\naddress = 'none@home.lan'\n"+
		"[[user]]\naddress = 'none@other.lan'\n", quickField(t, "secret", ""), quickField(t, "secret", "")))
	seen := map[string]string{}
	factors := func(name string) scram.KeyFactors {
		t.Helper()
		credentials := a.SCRAMCredentials(name)
		if len(credentials) != 1 || len(credentials[0].Keys.StoredKey) != 32 {
			t.Fatalf("%s: %v", name, credentials)
		}
		return credentials[0].Keys.KeyFactors
	}
	for _, spellings := range [][]string{
		{"old", "OLD@home.lan", " old@Home.LAN ", `"old"@home.lan`, "old@elsewhere.example"},
		{"jos\u00e9", "jose\u0301@home.lan", "JOSE\u0301"},
		{"off", "off@home.lan"}, {"none", "none@other.lan", "NONE@home.lan"}, {"nobody", "Nobody@home.lan"}, {"", " "}, {"@home.lan"},
		{"a@b@c"}, {strings.Repeat("x", 10_000)}, {"\xff"},
	} {
		want := factors(spellings[0])
		if len(want.Salt) != saltLength || want.Iters != scramIterations || seen[want.Salt] != "" {
			t.Errorf("%q: %v, as %q", spellings[0], want, seen[want.Salt])
		}
		seen[want.Salt] = spellings[0]
		for _, name := range spellings {
			if got := factors(name); got != want {
				t.Errorf("%q has another salt than %q", name, spellings[0])
			}
			if c := a.SCRAMCredentials(name)[0]; c.Account != "" {
				t.Errorf("%q is let in as %v", name, c.Identity)
			}
		}
	}
	// With keys the account has the salt that it had before.
	before := factors("old")
	if _, err := a.Login(t.Context(), "old", "secret"); err != nil {
		t.Fatal(err)
	}
	if after := factors("old"); after != before || a.SCRAMCredentials("old")[0].Account != "old@home.lan" {
		t.Errorf("%v before, %v after, %v", before, after, a.SCRAMCredentials("old"))
	}
}

func TestSCRAMOfDisabledAccounts(t *testing.T) {
	field := quickField(t, "secret", "salt of ann ....")
	a := openTestAccounts(t, fmt.Sprintf("[[user]]\naddress = 'ann@home.lan'\npassword = '%s'\ndisabled = true\n", field))
	c := a.SCRAMCredentials("ann")
	if len(c) != 1 || c[0].Account != "" || c[0].Keys.Salt != "salt of ann ...." || len(fits(t, a, "ann", "secret")) > 0 {
		t.Errorf("got %v", c)
	}
}

// SASLprep (RFC 4013 §3) makes of a password what the clients make of it.
func TestSCRAMPreparesPasswords(t *testing.T) {
	same := func(a, b string) bool {
		return quickKeys(t, a, "12345678") == quickKeys(t, b, "12345678")
	}
	for _, pair := range [][2]string{{"I\u00adX", "IX"}, {"\u2168", "IX"}, {"\u00aa", "a"}, {"Gru\u0308\u00dfe", "Gr\u00fc\u00dfe"},
		{"e\u0301 \U0001F600", "\u00e9 \U0001F600"}} { // Unicode 3.2 has no emoji
		if !same(pair[0], pair[1]) {
			t.Errorf("%q and %q have different keys", pair[0], pair[1])
		}
	}
	if same("User", "user") {
		t.Error("case does not matter")
	}
}

// A password without keys gets them at its first good login, in one write that keeps what people have written.
func TestLoginMakesSCRAMKeys(t *testing.T) {
	app := hashAppPassword("abcd-efgh-jkmn-pqrs")
	text := fmt.Sprintf("# mine\n[[user]]\naddress = 'ann@home.lan' # hers\npassword = '%s'\n\n  [[user.app_password]]\n  name = 'phone'\n  password = '%s'\n"+
		"\n# his\n[[user]]\naddress = 'bob@home.lan'   # aligned\n", quickField(t, "secret", ""), app)
	a := openTestAccounts(t, text)
	log := &syncBuffer{}
	a.cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	login := func(password string, good bool) bookStamp {
		t.Helper()
		if _, err := a.Login(t.Context(), "ann", password); (err == nil) != good {
			t.Fatal(err)
		}
		return bookStampOf(a.cfg.File)
	}
	first := login("wrong", false)
	if login("secret", true) == first {
		t.Fatal("no keys were made")
	}
	written := bookStampOf(a.cfg.File)
	if login("secret", true) != written {
		t.Error("a second login writes too")
	}
	if got := fits(t, a, "ann", "secret"); len(got) != 1 {
		t.Errorf("the keys do not fit: %v", got)
	}
	if login("ABCDEFGH jkmnpqrs", true) == written {
		t.Error("an app password gets no keys")
	}
	if got := fits(t, a, "ann", "abcd-efgh-jkmn-pqrs"); len(got) != 1 || got[0].Via != "phone" {
		t.Errorf("the app password's keys do not fit it as it was shown: %v", got)
	}
	now, err := os.ReadFile(a.cfg.File)
	if err != nil || !strings.Contains(string(now), "# his\n[[user]]\naddress = 'bob@home.lan'   # aligned\n") || !strings.HasPrefix(string(now), "# mine\n") {
		t.Errorf("%v\n%s", err, now)
	}
	if strings.Count(log.String(), "SCRAM keys made") != 2 || strings.Contains(log.String(), "WARN") {
		t.Errorf("log: %s", log)
	}
}

// That the file cannot be written fails no login, and is not tried at every one.
func TestLoginWithoutRoomForSCRAMKeys(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("directories are not closed like that")
	}
	clock := &testClock{time.Unix(1e9, 0)}
	a := openTestAccounts(t, fmt.Sprintf("[[user]]\naddress = 'ann@home.lan'\npassword = '%s'\n", quickField(t, "secret", "")))
	log := &syncBuffer{}
	a.cfg.Log, a.cfg.Now = slog.New(slog.NewTextHandler(log, nil)), clock.now
	dir := filepath.Dir(a.cfg.File)
	aside := dir + ".aside"
	login := func() {
		t.Helper()
		if _, err := a.Login(t.Context(), "ann", "secret"); err != nil {
			t.Error(err)
		}
	}
	// The folder is gone for a while, for root may write to one that is closed.
	if err := os.Rename(dir, aside); err != nil {
		t.Fatal(err)
	}
	a.checked, a.seen = clock.t, bookStamp{} // as it was when last looked at
	login()
	login()
	if n := strings.Count(log.String(), "SCRAM keys not kept"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log)
	}
	if err := os.Rename(aside, dir); err != nil {
		t.Fatal(err)
	}
	clock.t = clock.t.Add(scramRetry - time.Second)
	login()
	if len(fits(t, a, "ann", "secret")) > 0 {
		t.Error("tried again too early")
	}
	clock.t = clock.t.Add(2 * time.Second)
	login()
	if len(fits(t, a, "ann", "secret")) != 1 {
		t.Errorf("not tried again:\n%s", log)
	}
}

// Several connections of one phone log in at once.
func TestLoginsMakeSCRAMKeysOnce(t *testing.T) {
	a := openTestAccounts(t, fmt.Sprintf("[[user]]\naddress = 'ann@home.lan'\npassword = '%s'\n", quickField(t, "secret", "")))
	log := &syncBuffer{}
	a.cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	var logins sync.WaitGroup
	for range 8 {
		logins.Go(func() {
			if _, err := a.Login(t.Context(), "ann", "secret"); err != nil {
				t.Error(err)
			}
		})
	}
	logins.Wait()
	if n := strings.Count(log.String(), "SCRAM keys made"); n != 1 {
		t.Errorf("made %d times:\n%s", n, log)
	}
}

// Keys are not put behind another password's hash.
func TestSCRAMKeysOfAChangedPassword(t *testing.T) {
	a := openTestAccounts(t, fmt.Sprintf("[[user]]\naddress = 'ann@home.lan'\npassword = '%s'\n", quickField(t, "secret", "")))
	u, err := a.User("ann@home.lan")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SetPassword("ann@home.lan", "another one"); err != nil {
		t.Fatal(err)
	}
	a.keepKeys(t.Context(), &u, "", "secret") // by a login that was still going on
	if len(fits(t, a, "ann", "secret")) > 0 || len(fits(t, a, "ann", "another one")) != 1 {
		t.Errorf("got %v", a.SCRAMCredentials("ann"))
	}
}

// A block copied from another account has keys with another salt. They are left alone until a login makes new ones.
func TestSCRAMKeysWithAnotherSalt(t *testing.T) {
	a := openTestAccounts(t, fmt.Sprintf(`
[[user]]
address = "ann@home.lan"
password = '%s'
[[user.app_password]]
name = "phone"
password = '%s %s'
`, quickField(t, "secret", "hers 8901234567"), hashAppPassword("abcd-efgh-jkmn-pqrs"), quickKeys(t, "abcd-efgh-jkmn-pqrs", "not hers 1234567")))
	if c := a.SCRAMCredentials("ann"); len(c) != 1 || c[0].Via != "" {
		t.Errorf("got %v", c)
	}
	if _, err := a.Login(t.Context(), "ann", "abcd-efgh-jkmn-pqrs"); err != nil {
		t.Fatal(err)
	}
	c := a.SCRAMCredentials("ann")
	if len(c) != 2 || c[1].Keys.KeyFactors != c[0].Keys.KeyFactors || len(fits(t, a, "ann", "abcd-efgh-jkmn-pqrs")) != 1 {
		t.Errorf("got %v", c)
	}
}

func TestBadSCRAMKeys(t *testing.T) {
	good := quickKeys(t, "secret", "12345678")
	for _, keys := range []string{"x", " " + good, good + "$", strings.Replace(good, "i=4096", "i=4095", 1), strings.Replace(good, "i=4096", "i=99999999", 1),
		strings.Replace(good, "i=4096", "4096", 1), strings.Replace(good, "i=4096", "i=x", 1), strings.Replace(good, "sha-256", "sha-1", 1),
		good[:len(good)-3], good + "!", quickKeys(t, "secret", "1234567"), quickKeys(t, "secret", strings.Repeat("1", 65))} {
		text := fmt.Sprintf("[[user]]\naddress = 'ann@home.lan'\npassword = '%s %s'\n", quickField(t, "secret", ""), keys)
		_, err := parseAccounts(text, "accounts.toml")
		if err == nil || !strings.HasPrefix(err.Error(), "accounts.toml line 3: password: ") {
			t.Errorf("%q: %v", keys, err)
		}
	}
	if _, err := parseSCRAMKeys(good); err != nil {
		t.Error(err)
	}
}

func TestSCRAMSecret(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "scram.key")
	open := func() (*Accounts, error) {
		return OpenAccounts(AccountsConfig{File: filepath.Join(dir, "accounts.toml"), Secret: secret, Domain: "home.lan", Log: slog.New(slog.DiscardHandler)})
	}
	salt := func() string {
		t.Helper()
		a, err := open()
		if err != nil {
			t.Fatal(err)
		}
		return a.SCRAMCredentials("nobody")[0].Keys.Salt
	}
	first := salt()
	if again := salt(); again != first {
		t.Error("another start makes another salt")
	}
	if info, err := os.Stat(secret); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	for _, text := range []string{"", "zz", "00ff\n"} {
		if err := os.WriteFile(secret, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if other := salt(); other == first || salt() != other {
			t.Errorf("%q is not made anew", text)
		}
	}
	if err := os.Remove(secret); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(secret, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "reading the secret of SCRAM salts") {
		t.Errorf("got %v", err)
	}
}

func BenchmarkSCRAMKeys(b *testing.B) {
	factors := scram.KeyFactors{Salt: "0123456789abcdef", Iters: scramIterations}
	for b.Loop() {
		if _, err := newSCRAMKeys("correct horse", factors); err != nil {
			b.Fatal(err)
		}
	}
}
