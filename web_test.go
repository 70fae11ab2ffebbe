package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	mariasPassword = "correct horse" // the owner's
	bobsPassword   = "battery staple"
)

// page is an appliance with maria, who owns it, and bob, both at home.lan.
type page struct {
	*running
	roots *x509.CertPool
}

// startPage starts one.
func startPage(t testing.TB, args ...string) *page {
	t.Helper()
	return servePage(t, startRun(t, pageData(t), args...))
}

// pageData makes its data folder. The hashes of the passwords are cheap ones.
func pageData(t testing.TB) string {
	t.Helper()
	data := t.TempDir()
	var text strings.Builder
	for _, u := range []struct{ address, name, password string }{{"maria@home.lan", "Maria", mariasPassword}, {"bob@home.lan", "Bob", bobsPassword}} {
		hash, err := bcrypt.GenerateFromPassword([]byte(u.password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "[[user]]\naddress = %q\nname = %q\npassword = %q\n\n", u.address, u.name, hash)
	}
	if err := os.WriteFile(dataDir(data).accounts(), []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return data
}

// servePage looks at an appliance's page.
func servePage(t testing.TB, r *running) *page {
	t.Helper()
	p := &page{running: r, roots: x509.NewCertPool()}
	ca, err := os.ReadFile(filepath.Join(r.data, "tls", "ca.pem"))
	if err != nil || !p.roots.AppendCertsFromPEM(ca) {
		t.Fatalf("authority: %v", err)
	}
	return p
}

// browser is one person's browser. What it got last is in status, where and body.
type browser struct {
	t      testing.TB
	client *http.Client
	base   string
	header http.Header // of all requests
	host   string      // that they name, "": that of base
	status int
	where  *url.URL
	body   string
	answer *http.Response
}

func (p *page) browser(t testing.TB) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return &browser{t: t, base: fmt.Sprintf("https://127.0.0.1:%d", 443+p.offset), header: http.Header{},
		client: &http.Client{Transport: transport, Jar: jar}}
}

// loggedIn gives the browser of somebody who has logged in.
func (p *page) loggedIn(t testing.TB, name, password string) *browser {
	t.Helper()
	b := p.browser(t)
	b.login(name, password)
	if b.status != 200 || b.where.Path == "/login" {
		t.Fatalf("login: %d %s\n%s", b.status, b.where, b.body)
	}
	return b
}

func (b *browser) login(name, password string) {
	b.t.Helper()
	b.get("/login")
	b.post("/login", "name", name, "password", password)
}

func (b *browser) do(r *http.Request, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	for key, values := range b.header {
		r.Header[key] = values
	}
	r.Host = b.host
	answer, err := b.client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	b.status, b.where, b.body, b.answer = answer.StatusCode, answer.Request.URL, string(body), answer
}

func (b *browser) get(path string) {
	b.t.Helper()
	b.do(http.NewRequest("GET", b.base+path, nil))
}

var tokenPattern = regexp.MustCompile(`name="token" value="([0-9a-f]+)"`)

// post sends a form with the token of the page that was shown last.
func (b *browser) post(path string, fields ...string) {
	b.t.Helper()
	form := url.Values{}
	if found := tokenPattern.FindStringSubmatch(b.body); found != nil {
		form.Set(webTokenField, found[1])
	}
	for i := 0; i < len(fields); i += 2 {
		form.Add(fields[i], fields[i+1])
	}
	r, err := http.NewRequest("POST", b.base+path, strings.NewReader(form.Encode()))
	if err == nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	b.do(r, err)
}

// says fails the test unless the page was answered with this status and holds the words.
func (b *browser) says(status int, words ...string) {
	b.t.Helper()
	if b.status != status {
		b.t.Errorf("%s: status %d, want %d", b.where, b.status, status)
	}
	for _, w := range words {
		if !strings.Contains(b.body, w) {
			b.t.Errorf("%s does not say %q:\n%s", b.where, w, b.body)
		}
	}
}

// cookie gives the value of one of the browser's cookies.
func (b *browser) cookie(name string) string {
	at, _ := url.Parse(b.base)
	for _, c := range b.client.Jar.Cookies(at) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

func (b *browser) setCookie(name, value string) {
	at, _ := url.Parse(b.base)
	b.client.Jar.SetCookies(at, []*http.Cookie{{Name: name, Value: value, Path: "/", Secure: true}})
}

// stay keeps the browser from following redirections.
func (b *browser) stay() *browser {
	b.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return b
}

func TestWebLogin(t *testing.T) {
	p := startPage(t)
	b := p.browser(t)
	b.get("/")
	b.says(200, "<h1>Log in</h1>", `name="token"`)
	if b.where.Path != "/login" {
		t.Errorf("led to %s", b.where)
	}
	b.login("bob@home.lan", "wrong")
	b.says(422, "The address or the password is not right.", `value="bob@home.lan"`)
	b.login("nobody", "wrong")
	b.says(422, "The address or the password is not right.")
	b.login("bob", bobsPassword)
	b.says(200, "bob@home.lan", "Log out", fmt.Sprint(993+p.offset))
	for _, secret := range []string{bobsPassword, b.cookie(webSessionCookie)} {
		if strings.Contains(p.stderr.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
	b.post("/logout")
	b.says(200, "<h1>Log in</h1>")
	b.get("/")
	b.says(200, "<h1>Log in</h1>")
}

// An app password is for one device; who finds that shall not be able to change the account.
func TestWebLoginWantsTheMainPassword(t *testing.T) {
	p := startPage(t)
	out := mustRun(t, p.data, "user", "app-password", "add", "bob", "phone")
	b := p.browser(t)
	b.login("bob", strings.TrimSpace(out[strings.LastIndex(out, " "):]))
	b.says(422, "This is the password of one device.")
	b.get("/")
	b.says(200, "<h1>Log in</h1>")
}

// The page and the mail protocols count failures together.
func TestWebThrottleIsShared(t *testing.T) {
	throttle := NewThrottle(nil)
	remote := netip.MustParseAddr("127.0.0.1")
	for i := range throttleLoopback {
		a, err := throttle.Begin(remote, fmt.Sprint("user", i), "wrong")
		if err != nil {
			t.Fatal(err)
		}
		a.Failed()
		a.End()
	}
	data := pageData(t)
	hooks := &call{adjustPorts: func(p *Protocols) { p.Throttle = throttle }}
	p := servePage(t, startRunWith(t, data, hooks))
	b := p.browser(t)
	b.login("maria", "whatever")
	b.says(422, "There were too many logins that failed.")
	if _, _, answer := p.imapLogin(t, "maria", "whatever"); !strings.Contains(answer, "x NO") || !strings.Contains(p.stderr.String(), "protocol=imap user=maria reason=\"too many failed logins") {
		t.Errorf("IMAP: %s\n%s", answer, p.stderr.String())
	}
}

func TestWebSessionFixation(t *testing.T) {
	p := startPage(t)
	b := p.browser(t)
	b.setCookie(webSessionCookie, "CHOSENBYANATTACKER0000000X")
	b.login("bob", bobsPassword)
	b.says(200, "Log out")
	first := b.cookie(webSessionCookie)
	if first == "" || first == "CHOSENBYANATTACKER0000000X" {
		t.Errorf("the session is %q", first)
	}
	// Whoever logs in again has another session, and the first has ended.
	b.get("/login")
	again := p.browser(t)
	again.setCookie(webSessionCookie, first)
	again.get("/")
	again.says(200, "Log out")
	token := tokenPattern.FindStringSubmatch(again.body)[1]
	again.post("/login", "name", "bob", "password", bobsPassword, webTokenField, token)
	if now := again.cookie(webSessionCookie); now == first {
		t.Error("the session is the same after a login")
	}
	b.get("/")
	b.says(200, "<h1>Log in</h1>")
}

func TestWebCookies(t *testing.T) {
	p := startPage(t)
	b := p.browser(t).stay()
	b.get("/login")
	b.post("/login", "name", "bob", "password", bobsPassword)
	if b.status != 303 || len(b.answer.Cookies()) != 1 {
		t.Fatalf("%d %v", b.status, b.answer.Header)
	}
	c := b.answer.Cookies()[0]
	if c.Name != "__Host-session" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" {
		t.Errorf("%+v", c)
	}
}

// After the login the browser goes on to where it wanted to, on this server alone.
func TestWebLoginLeadsNowhereElse(t *testing.T) {
	p := startPage(t)
	for next, want := range map[string]string{
		"": "/", "/": "/", "/login": "/login", "//evil.example/x": "/", "https://evil.example": "/", `/\evil.example`: "/",
		"/x\r\nSet-Cookie: a=b": "/", "javascript:alert(1)": "/", "/a?b": "/",
	} {
		b := p.browser(t).stay()
		b.get("/login")
		b.post("/login", "name", "bob", "password", bobsPassword, "next", next)
		if got := b.answer.Header.Get("Location"); b.status != 303 || got != want {
			t.Errorf("next %q: %d %q", next, b.status, got)
		}
	}
}

func TestWebSessionEndsWithPasswordAndAccount(t *testing.T) {
	p := startPage(t)
	b := p.loggedIn(t, "bob", bobsPassword)
	b.get("/")
	b.says(200, "Log out")
	mustRun(t, p.data, "user", "passwd", "bob")
	b.get("/")
	b.says(200, "<h1>Log in</h1>")
	owner := p.loggedIn(t, "maria", mariasPassword)
	mustRun(t, p.data, "user", "remove", "bob")
	owner.get("/")
	owner.says(200, "Log out")
}

func TestWebSessionTimes(t *testing.T) {
	now := time.Now()
	all := newWebSessions(func() time.Time { return now })
	cookie := all.add(&webSession{account: "a"})
	half := all.add(&webSession{account: "a", half: true})
	now = now.Add(webHalfTime)
	if all.find(half) != nil {
		t.Error("half a session lives on")
	}
	for now.Add(webIdleTime-time.Second).Sub(all.find(cookie).created) < webFullTime {
		now = now.Add(webIdleTime - time.Second)
		if all.find(cookie) == nil {
			t.Fatal("a session ended while it was used")
		}
	}
	now = now.Add(webIdleTime - time.Second)
	if all.find(cookie) != nil {
		t.Error("a session lives on after its time")
	}
	cookie = all.add(&webSession{account: "a"})
	now = now.Add(webIdleTime)
	if all.find(cookie) != nil || all.find("") != nil {
		t.Error("an idle session lives on")
	}
}

func TestWebSessionsAreBounded(t *testing.T) {
	now := time.Now()
	all := newWebSessions(func() time.Time { now = now.Add(time.Millisecond); return now })
	first := all.add(&webSession{account: "somebody"})
	for range webAccountCap + 5 {
		all.add(&webSession{account: "a"})
	}
	if n := len(all.of("a")); n != webAccountCap || all.find(first) == nil {
		t.Errorf("%d sessions of one person", n)
	}
	for i := range webSessionCap + 5 {
		all.add(&webSession{account: fmt.Sprint(i)})
	}
	if len(all.all) != webSessionCap || all.find(first) != nil {
		t.Errorf("%d sessions in all", len(all.all))
	}
}

func TestWebHeaders(t *testing.T) {
	p := startPage(t)
	b := p.browser(t)
	for _, path := range []string{"/login", "/static/style.css", "/static/../web.go", "/nothing", "/static/%2e%2e%2fen.toml"} {
		b.get(path)
		csp := b.answer.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: %q is not in %q", path, want, csp)
			}
		}
		if strings.Contains(csp, "unsafe") {
			t.Errorf("%s: %q", path, csp)
		}
		for key, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"} {
			if got := b.answer.Header.Get(key); got != want {
				t.Errorf("%s: %s is %q", path, key, got)
			}
		}
	}
	b.get("/login")
	style := regexp.MustCompile(`/static/style\.css\?[0-9a-f]+`).FindString(b.body)
	b.get(style)
	b.says(200, "prefers-color-scheme")
	if got := b.answer.Header.Get("Cache-Control"); !strings.Contains(got, "immutable") {
		t.Errorf("the style sheet is kept: %q", got)
	}
}

func TestWebFindsNothingElse(t *testing.T) {
	p := startPage(t)
	b := p.browser(t)
	for _, path := range []string{"/nothing", "/static/", "/static/en.toml", "/static/frame.html", "/static/../../etc/passwd", "/static/..%2f..%2fetc%2fpasswd", "/static/%00", "/..%5c..%5cwindows"} {
		b.get(path)
		b.says(404, "This page does not exist")
	}
	b.header.Set("Accept-Language", "de-AT,de;q=0.9,en;q=0.5")
	b.get("/nothing")
	b.says(404, `<html lang="de">`, "Diese Seite gibt es nicht")
}

func TestWebForms(t *testing.T) {
	p := startPage(t)
	b := p.loggedIn(t, "bob", bobsPassword)
	body := b.body
	b.body = ""
	b.post("/logout")
	b.says(403, "The form is too old")
	b.body = ""
	b.post("/logout", webTokenField, strings.Repeat("0", 32))
	b.says(403, "The form is too old")
	other := p.loggedIn(t, "maria", mariasPassword) // another person's token
	b.body = other.body
	b.post("/logout")
	b.says(403, "The form is too old")
	b.body = body
	for key, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"} {
		b.header = http.Header{key: {value}}
		b.post("/logout")
		b.says(403, "The form is too old")
		b.body = body
	}
	b.header = http.Header{}
	b.post("/logout", "x", strings.Repeat("x", webMaxForm))
	b.says(413, "That is too much")
	b.body = body
	b.post("/logout", "x", strings.Repeat("x", webMaxField+1))
	b.says(413, "That is too much")
	b.get("/")
	b.says(200, "Log out")
	// A form before the login needs the cookie that its page came with.
	login := p.browser(t)
	login.get("/login")
	token := tokenPattern.FindStringSubmatch(login.body)[1]
	fresh := p.browser(t)
	fresh.post("/login", "name", "bob", "password", bobsPassword, webTokenField, token)
	fresh.says(403, "The form is too old")
}

func TestWebPlain(t *testing.T) {
	p := startPage(t)
	get := func(method, host, path string) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequest(method, fmt.Sprintf("http://127.0.0.1:%d%s", 80+p.offset, path), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		return answer, string(body)
	}
	for _, test := range []struct {
		method, host, path string
		status             int
		location           string
	}{
		{"GET", "pi.home.lan", "/people?x=1", 302, fmt.Sprintf("https://pi.home.lan:%d/people?x=1", 443+p.offset)},
		{"GET", "192.168.1.20:8080", "/", 302, fmt.Sprintf("https://192.168.1.20:%d/", 443+p.offset)},
		{"GET", "[fd00::1]", "/", 302, fmt.Sprintf("https://[fd00::1]:%d/", 443+p.offset)},
		{"GET", "evil.example@x", "/", 400, ""},
		{"GET", "a_b", "/", 400, ""},
		{"POST", "pi.home.lan", "/login", 403, ""},
	} {
		answer, body := get(test.method, test.host, test.path)
		if got := answer.Header.Get("Location"); answer.StatusCode != test.status || got != test.location {
			t.Errorf("%s %s%s: %d %q %s", test.method, test.host, test.path, answer.StatusCode, got, body)
		}
	}
}

// concrete fills in the parts of a pattern.
func concrete(pattern string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	path = strings.TrimSuffix(path, "{$}")
	path = regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllString(path, "bob@home.lan")
	return method, path
}

// TestWebRights walks the table of all routes: nobody who may not gets anything, and no form is taken without its token.
func TestWebRights(t *testing.T) {
	p := startPage(t)
	nobody := p.browser(t).stay()
	bob := p.loggedIn(t, "bob", bobsPassword).stay()
	maria := p.loggedIn(t, "maria", mariasPassword).stay()
	for _, route := range webRoutes() {
		method, path := concrete(route.pattern)
		if method != "GET" && method != "POST" {
			t.Errorf("%q has another method", route.pattern)
		}
		if !route.raw && method == "POST" {
			for name, b := range map[string]*browser{"nobody": nobody, "bob": bob, "maria": maria} {
				b.body = ""
				if b.post(path); b.status != 403 {
					t.Errorf("%s: %s without a token gets %d", route.pattern, name, b.status)
				}
			}
		}
		if route.who == forAnyone {
			continue
		}
		nobody.get("/login")
		if request(nobody, method, path); method == "GET" && (nobody.status != 303 || !strings.HasPrefix(nobody.answer.Header.Get("Location"), "/login")) || method == "POST" && nobody.status != 403 {
			t.Errorf("%s: nobody gets %d", route.pattern, nobody.status)
		}
		if route.who == forOwner {
			bob.get("/")
			request(bob, method, path)
			bob.says(403)
		}
		if method == "GET" {
			b := bob
			if route.who == forOwner {
				b = maria
			}
			if b.get(path); b.status != 200 && b.status != 404 && b.status != 303 {
				t.Errorf("%s: %d for whoever may", route.pattern, b.status)
			}
		}
	}
	for _, b := range []*browser{bob, maria} {
		if b.get("/"); b.status != 200 {
			t.Errorf("somebody is not logged in any more: %d", b.status)
		}
	}
}

func request(b *browser, method, path string) {
	b.t.Helper()
	if method == "GET" {
		b.get(path)
		return
	}
	b.post(path)
}

// TestWebRoutesTable holds the table to its rules.
func TestWebRoutesTable(t *testing.T) {
	for _, route := range webRoutes() {
		post := strings.HasPrefix(route.pattern, "POST ")
		if route.plain && !route.raw || route.raw && route.again != nil || !post && route.again != nil {
			t.Errorf("%s: this cannot be", route.pattern)
		}
		if route.raw && route.who != forAnyone && post {
			t.Errorf("%s changes something without a token", route.pattern)
		}
	}
}

// TestWebReachesNoMail holds that the page has no way to what lies in mailboxes: it holds neither the store nor the queue, and
// may give no order that answers with a message.
func TestWebReachesNoMail(t *testing.T) {
	kind := reflect.TypeFor[Web]()
	for _, field := range reflect.VisibleFields(kind) {
		for _, banned := range []reflect.Type{reflect.TypeFor[*Store](), reflect.TypeFor[*Queue](), reflect.TypeFor[*Maildrop](), reflect.TypeFor[*admin](), reflect.TypeFor[*house]()} {
			if field.Type == banned {
				t.Errorf("Web.%s is a %v", field.Name, banned)
			}
		}
	}
	for _, do := range webOrders() {
		if strings.HasPrefix(do, "queue show") {
			t.Errorf("the page may order %q", do)
		}
	}
	for family := range strings.Lines(layout) {
		if name, may, _ := strings.Cut(strings.TrimSpace(family), ":"); name == "web" {
			for _, banned := range []string{"mailbox", "message", "maildir", "folder", "queue", "imap"} {
				if slices.Contains(strings.Fields(may), banned) {
					t.Errorf("the layout lets the page use %s", banned)
				}
			}
		}
	}
	w := &webRequest{Web: &Web{WebConfig: WebConfig{Do: func(o order) (answer, error) { t.Errorf("ordered %q", o.Do); return answer{}, nil }}}}
	if _, err := w.order(order{Do: "queue show"}); err == nil {
		t.Error("the page may see what waits")
	}
}

var (
	textVerb = regexp.MustCompile(`%[a-z]`)
	textKey  = regexp.MustCompile(`^[a-z]+\.[a-z0-9_]+$`)
	usedKey  = regexp.MustCompile(`"([a-z]+\.[a-z0-9_]+)"`)
	counted  = regexp.MustCompile(`\.N "([a-z]+\.[a-z0-9_]+)"`)
)

// usedTexts gives the keys of all texts that templates and code name.
func usedTexts(t *testing.T) map[string]bool {
	t.Helper()
	used := map[string]bool{}
	files, _ := filepath.Glob("web*.go")
	pages, _ := fs.Glob(webFiles, "web/*.html")
	for _, file := range append(files, pages...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, found := range counted.FindAllSubmatch(text, -1) {
			used[string(found[1])+"_one"], used[string(found[1])+"_many"] = true, true
			text = bytes.ReplaceAll(text, found[0], nil)
		}
		for _, found := range usedKey.FindAllSubmatch(text, -1) {
			used[string(found[1])] = true
		}
	}
	for _, page := range pages {
		if name := strings.TrimSuffix(filepath.Base(page), ".html"); name != "frame" && name != "refusal" && name != "person" {
			used[name+".title"] = true
		}
	}
	for _, refusal := range []*webRefusal{errWebMissing, errWebForbidden, errWebStale, errWebTooLarge, errWebFailed, errWebCode, errWebGone} {
		used[refusal.name+".title"], used[refusal.name+".text"] = true, true
	}
	return used
}

// TestWebTexts holds that all languages have the same texts, with the same gaps to fill, and that those are the ones in use.
func TestWebTexts(t *testing.T) {
	all, err := readWebWords()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 2 || all[0].tag.String() != "en" {
		t.Fatalf("%d languages", len(all))
	}
	used := usedTexts(t)
	for key, text := range all[0].texts {
		if !textKey.MatchString(key) || !used[key] {
			t.Errorf("%s is not used", key)
		}
		for _, other := range all[1:] {
			translated, ok := other.texts[key]
			if !ok {
				t.Errorf("%s: %s is missing", other.tag, key)
			}
			if a, b := textVerb.FindAllString(text, -1), textVerb.FindAllString(translated, -1); !slices.Equal(a, b) {
				t.Errorf("%s: %s has %v in place of %v", other.tag, key, b, a)
			}
			if len(other.texts) != len(all[0].texts) {
				for key := range other.texts {
					if _, ok := all[0].texts[key]; !ok {
						t.Errorf("%s alone has %s", other.tag, key)
					}
				}
			}
		}
	}
	sections := map[string]bool{}
	for key := range all[0].texts {
		section, _, _ := strings.Cut(key, ".")
		sections[section] = true
	}
	for key := range used {
		section, _, _ := strings.Cut(key, ".")
		if _, ok := all[0].texts[key]; !ok && sections[section] {
			t.Errorf("there is no text %s", key)
		}
	}
}
