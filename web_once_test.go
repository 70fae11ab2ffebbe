package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Whoever knows a password and tries the same few codes for ever is stopped: each of them is right now and then.
func TestCodesAreNotGuessedForEver(t *testing.T) {
	now := time.Now()
	throttle := NewThrottle(func() time.Time { return now })
	remote := netip.MustParseAddr("203.0.113.1")
	for tries := range 2 * throttleRemote {
		_, _, err := throttle.Try(remote, "bob@home.lan code", codeGuess("123456", now), func() (Identity, error) { return Identity{}, ErrBadLogin })
		switch {
		case errors.Is(err, ErrThrottled) && tries == throttleRemote:
			return
		case !errors.Is(err, ErrBadLogin):
			t.Fatalf("after %d tries: %v", tries, err)
		}
		now = now.Add(factorPeriod * time.Second)
	}
	t.Error("nobody stops it")
}

// A page that was opened before there was a second factor does not put another one in its place.
func TestWebFactorIsNotReplaced(t *testing.T) {
	p := startPage(t)
	found := func(b *browser) string {
		b.get("/account/second")
		return strings.ReplaceAll(regexp.MustCompile(`<code>([A-Z2-7 ]+)</code>`).FindStringSubmatch(b.body)[1], " ", "")
	}
	left, own := p.loggedIn(t, "bob", bobsPassword), p.loggedIn(t, "bob", bobsPassword)
	other := found(left)
	secret := found(own)
	own.post("/account/second", "code", codeAt(t, secret, -1))
	own.says(200, "From now on the login here asks for a code.")
	left.post("/account/second", "code", codeAt(t, other, 1))
	left.says(403)
	if text, err := os.ReadFile(dataDir(p.data).accounts()); err != nil || !strings.Contains(string(text), secret) {
		t.Errorf("the factor is another one (%v):\n%s", err, text)
	}
}

// Of several who come with one link at once, one chooses the password.
func TestWebResetLinkAtOnce(t *testing.T) {
	p := startPage(t)
	owner := p.loggedIn(t, "maria", mariasPassword)
	owner.get("/people/bob@home.lan")
	owner.post("/people/bob@home.lan/link")
	link, err := url.Parse(owner.secret())
	if err != nil {
		t.Fatal(err)
	}
	var chosen atomic.Int32
	var all sync.WaitGroup
	start := make(chan struct{})
	for range 6 {
		b := p.browser(t)
		b.get(link.RequestURI())
		b.says(200, "Choose a new password for")
		all.Go(func() {
			<-start
			b.post("/reset", "code", link.Query().Get("code"), "password", "new password", "again", "new password")
			switch {
			case b.status == 200:
				chosen.Add(1)
			case b.status != 403:
				t.Errorf("status %d", b.status)
			}
		})
	}
	close(start)
	all.Wait()
	if n := chosen.Load(); n != 1 {
		t.Errorf("%d have chosen", n)
	}
}

// While the mail that is for nobody gets another reader, there is one at all times.
func TestWebRestHasNoGap(t *testing.T) {
	accounts := openTestAccounts(t, `
[[user]]
address = "maria@home.lan"

[[user]]
address = "bob@home.lan"

[[alias]]
address = "@home.lan"
to = ["bob@home.lan"]
`)
	ad := &admin{accounts: accounts}
	orders := 0
	w := &Web{WebConfig: WebConfig{Accounts: accounts, Do: func(o order) (a answer, err error) {
		orders++
		if o.Do == "alias add" {
			a, err = ad.addAlias(o)
		} else {
			a, err = ad.removeAlias(o)
		}
		if reached, err := accounts.Resolve(Address{"stranger", "home.lan"}); err != nil || len(reached) == 0 {
			t.Errorf("after %q mail is refused: %v", o.Do, err)
		}
		return a, err
	}}}
	for _, to := range []string{"maria@home.lan", "maria@home.lan", "bob@home.lan"} {
		form := url.Values{"domain": {"home.lan"}, "to": {to}}
		answer := httptest.NewRecorder()
		q := &webRequest{Web: w, rw: answer, r: &http.Request{Method: http.MethodPost, URL: &url.URL{Path: "/addresses/rest"}, PostForm: form}}
		if err := q.setRest(); err != nil || answer.Code != http.StatusSeeOther {
			t.Fatalf("%s: %d %v", to, answer.Code, err)
		}
		if reached, err := accounts.Resolve(Address{"stranger", "home.lan"}); err != nil || len(reached) != 1 || reached[0] != to {
			t.Errorf("it reaches %q, not %s (%v)", reached, to, err)
		}
	}
	if orders == 0 {
		t.Error("nothing was done")
	}
}

// A domain that was typed wrong would swallow mail: the page says which one is new, as the commands do.
func TestWebNewDomainIsTold(t *testing.T) {
	p := startPage(t)
	b := p.loggedIn(t, "maria", mariasPassword)
	const told = "Mail for example.net ends here from now on"
	b.get("/people")
	b.post("/people", "address", "eve@example.net", "password", "new password")
	b.says(200, "eve@example.net has an account now. "+told)
	b.post("/people", "address", "ivy@example.net", "password", "new password")
	b.says(200, "ivy@example.net has an account now.")
	if strings.Contains(b.body, told) {
		t.Error("a domain is new twice")
	}
	b.get("/people/bob@home.lan")
	b.post("/people/bob@home.lan/rename", "to", "bob@example.com")
	b.says(200, "The address is bob@example.com now.", "Mail for example.com ends here from now on")
	b.get("/addresses")
	b.post("/addresses", "address", "info@example.edu", "to", "maria@home.lan")
	b.says(200, "info@example.edu reaches maria@home.lan now. Mail for example.edu ends here from now on")
	b.header.Set("Accept-Language", "de")
	b.get("/people")
	b.post("/people", "address", "eva@gmx.de")
	b.says(422, "gmx.de gehört einem Anbieter")
	b.get("/mine/movein")
	b.post("/mine/movein", "login", "old", "password", "old password")
	b.says(422, "Zu dieser Adresse wurde kein Server gefunden.", `<span lang="en">no server for the mail`)
}

// What goes wrong with a server elsewhere is told in the reader's language first.
func TestToldKey(t *testing.T) {
	certificate := &tls.CertificateVerificationError{Err: errors.New("unknown authority")}
	for want, err := range map[string]error{
		"error.told":             errors.New("something"),
		"error.told_find":        fmt.Errorf("moving in: %w", errNoMoveServer),
		"error.told_login":       loginTrouble(&OutsideServer{Host: "imap.example.org", Login: "old"}, "no"),
		"error.told_name":        &outsideError{faultPassing, "there is no server", &net.DNSError{IsNotFound: true}},
		"error.told_certificate": fmt.Errorf("nothing is changed: %w", &trialError{trialTLS, "the certificate is not right"}),
		"error.told_server":      fmt.Errorf("nothing is changed: %w", &trialError{trialConnect, "nobody answers"}),
	} {
		if key := toldKey(err); key != want {
			t.Errorf("%v: %s, not %s", err, key, want)
		}
	}
	for err, want := range map[error]string{
		&trialError{trialLogin, "wrong password"}:                 "error.told_login",
		&outsideError{faultSetup, "its certificate", certificate}: "error.told_certificate",
		&outsideError{faultPassing, "it is busy", nil}:            "error.told_server",
	} {
		if key := toldKey(err); key != want {
			t.Errorf("%v: %s, not %s", err, key, want)
		}
	}
}

// far is somebody on the internet who sends a form and does not wait for the answer.
func far(w *Web, address string) *webRequest {
	ctx, leave := context.WithCancel(context.Background())
	leave()
	return &webRequest{Web: w, remote: netip.MustParseAddr(address), r: (&http.Request{}).WithContext(ctx)}
}

// However a name is written, the wrong passwords for an account count together.
func TestLoginNamesCountTogether(t *testing.T) {
	accounts := openTestAccounts(t, "[[user]]\naddress = \"bob@home.lan\"\n")
	for name, want := range map[string]string{"bob": "bob@home.lan", " BOB@Home.LAN  ": "bob@home.lan", "\tbob": "bob@home.lan", " Nobody ": "nobody"} {
		if got := accounts.LoginName(name); got != want {
			t.Errorf("%q: %q", name, got)
		}
	}
	w := &Web{WebConfig: WebConfig{Accounts: accounts, Throttle: NewThrottle(nil), Log: slog.New(slog.DiscardHandler)}}
	checked := 0
	for n := range 2 * throttleAccount {
		q := far(w, fmt.Sprintf("203.0.113.%d", n))
		_, _ = q.tryLogin("bob"+strings.Repeat(" ", n), fmt.Sprint("guess ", n), func() (Identity, error) {
			checked++
			return Identity{}, ErrBadLogin
		})
	}
	if checked != throttleAccount {
		t.Errorf("%d guesses were looked at, %d may be", checked, throttleAccount)
	}
}

// Who brings many guesses at once does not have more of them looked at than one by one.
func TestWebLoginsAtOnce(t *testing.T) {
	w := &Web{WebConfig: WebConfig{Accounts: openTestAccounts(t, ""), Throttle: NewThrottle(nil), Log: slog.New(slog.DiscardHandler)}}
	release, checks := make(chan struct{}), make(chan struct{}, 1000)
	var all sync.WaitGroup
	var refused atomic.Int32
	for n := range 5 * throttleRemote {
		all.Go(func() {
			_, err := far(w, "203.0.113.1").tryLogin("bob", fmt.Sprint("guess ", n), func() (Identity, error) {
				checks <- struct{}{}
				<-release
				return Identity{}, ErrBadLogin
			})
			if m := mistakeOf(err); m != nil && m.key == "login.throttled" {
				refused.Add(1)
			}
		})
	}
	for range throttleRemote {
		<-checks
	}
	for refused.Load() < 4*throttleRemote && len(checks) == 0 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	all.Wait()
	if len(checks) > 0 || refused.Load() != 4*throttleRemote {
		t.Errorf("%d more were looked at, %d refused", len(checks), refused.Load())
	}
	if len(w.logins.of) != 0 {
		t.Error("they are still counted")
	}
}

// A page that loads at the same moment does not take away what another one has to show once.
func TestWebNoticeIsForItsPage(t *testing.T) {
	p := startPage(t)
	b := p.loggedIn(t, "bob", bobsPassword)
	b.get("/account")
	b.stay()
	b.post("/account/app", "app", "phone")
	if b.status != http.StatusSeeOther {
		t.Fatalf("status %d", b.status)
	}
	b.get("/mine/movein") // it is loaded again and again while somebody moves in
	if strings.Contains(b.body, "This is the password for") {
		t.Error("another page tells it")
	}
	b.get("/account")
	b.says(200, "This is the password for phone")
	if b.secret() == "" {
		t.Error("the password is lost")
	}
	b.get("/account")
	if strings.Contains(b.body, "This is the password for phone") {
		t.Error("it is told twice")
	}
}

// Whoever looks after the server sees where the mail of somebody goes on to, and ends that: to allow no logins does not.
func TestWebForwardOfOthers(t *testing.T) {
	p := startPage(t)
	bob, owner := p.loggedIn(t, "bob", bobsPassword), p.loggedIn(t, "maria", mariasPassword)
	owner.get("/people/bob@home.lan")
	if strings.Contains(owner.body, "Mail goes on to") {
		t.Error("it goes on to nobody")
	}
	bob.get("/mine/forward")
	bob.post("/mine/forward", "to", "thief@example.net")
	bob.says(200, "Your mail goes on to these addresses from now on.")
	owner.get("/people/bob@home.lan")
	owner.post("/people/bob@home.lan/disable")
	owner.says(200, "Mail goes on to", "thief@example.net")
	owner.post("/people/bob@home.lan/forward/off")
	owner.says(200, "The mail of bob@home.lan stays here from now on.")
	if strings.Contains(owner.body, "thief@example.net") {
		t.Error("it still goes on")
	}
	if text, err := os.ReadFile(dataDir(p.data).accounts()); err != nil || strings.Contains(string(text), "thief@example.net") {
		t.Errorf("the file (%v):\n%s", err, text)
	}
}

// A person can get an address that reaches them alone, and none that reaches others.
func TestWebRenameToAnAlias(t *testing.T) {
	p := startPage(t)
	mustRun(t, p.data, "alias", "add", "own", "bob")
	mustRun(t, p.data, "alias", "add", "family", "bob", "maria")
	b := p.loggedIn(t, "maria", mariasPassword)
	b.header.Set("Accept-Language", "de")
	b.get("/people/bob@home.lan")
	b.post("/people/bob@home.lan/rename", "to", "family")
	b.says(422, "family@home.lan ist schon ein Alias.")
	b.post("/people/bob@home.lan/rename", "to", "own")
	b.says(200, "Die Adresse ist jetzt own@home.lan.")
}
