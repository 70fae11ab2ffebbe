package main

import (
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A name of this server that the browser sends, and nobody has, must not become part of what people are given.
func TestWebHostileHosts(t *testing.T) {
	p := startPage(t)
	owner := p.loggedIn(t, "maria", mariasPassword)
	owner.header.Set("Cookie", webSessionCookie+"="+owner.cookie(webSessionCookie)) // the jar goes by the host
	for _, host := range []string{"home.lan:1@evil.example", "home.lan@evil.example", "evil.example/x", "evil.example:99999", `evil.example"><b>`, "[::1]evil.example"} {
		owner.get("/people/bob@home.lan")
		owner.host = host
		owner.post("/people/bob@home.lan/link")
		owner.host = ""
		if owner.status == http.StatusBadRequest { // net/http lets nothing of it in
			owner.get("/")
			continue
		}
		link, err := url.Parse(owner.secret())
		if err != nil || strings.Contains(link.String(), "evil") || link.User != nil || link.Path != "/reset" || link.Query().Get("code") == "" {
			t.Errorf("%q: the link is %q (%v)", host, link, err)
		}
		owner.get("/connect")
		owner.host = host
		owner.post("/connect", "device", "phone")
		owner.host = ""
		if strings.Contains(owner.body, "evil") {
			t.Errorf("%q is on the page of the device", host)
		}
	}
}

// Line ends in a field end up in no header of an answer and in no file; what is no path leads to none.
func TestWebInjection(t *testing.T) {
	p := startPage(t)
	maria := p.loggedIn(t, "maria", mariasPassword).stay()
	maria.get("/people")
	form := maria.body
	taken, refused := 0, 0
	before := filesOf(t, p.data)
	for _, evil := range []string{"x\r\nX-Evil: 1", "../../evil", `..\..\evil`, "x\x00evil"} {
		for _, route := range webRoutes() {
			method, path := concrete(route.pattern)
			if method != "POST" || route.raw || route.who == forAnyone || strings.HasSuffix(path, "/end") { // those want a password or a code first
				continue
			}
			maria.body = form
			maria.post(path, "address", evil, "name", evil, "to", evil, "app", evil, "device", evil, "text", "x", "subject", evil, "from", evil, "until", evil,
				"zone", evil, "server", evil, "user", evil, "for", evil, "host", evil, "login", evil, "password", "short", "again", "short", "domain", evil,
				"local", evil, "quota", evil, "language", evil, "id", evil, "session", evil, "old", mariasPassword, "q", evil)
			if maria.status == http.StatusForbidden && strings.Contains(maria.body, "too old") {
				refused++
			} else {
				taken++
			}
			if maria.answer.Header.Get("X-Evil") != "" || maria.status >= http.StatusInternalServerError {
				t.Errorf("%s with %q: %d %v", path, evil, maria.status, maria.answer.Header)
			}
			if at := maria.answer.Header.Get("Location"); at != "" && !strings.HasPrefix(at, "/") || strings.HasPrefix(at, "//") || strings.ContainsAny(at, "\r\n\\") {
				t.Errorf("%s with %q leads to %q", path, evil, at)
			}
		}
	}
	if taken < 3*refused { // a form that names what nobody has is too old
		t.Errorf("of all forms %d were taken, %d not", taken, refused)
	}
	for _, file := range filesOf(t, p.data) {
		if strings.Contains(file, "evil") {
			t.Errorf("there is a file %q", file)
		}
		if !slices.Contains(before, file) && filepath.Ext(file) == ".toml" {
			if text, err := os.ReadFile(filepath.Join(p.data, file)); err != nil || strings.Contains(string(text), "\nX-Evil") {
				t.Errorf("%s: %v\n%s", file, err, text)
			}
		}
	}
	if text, err := os.ReadFile(dataDir(p.data).accounts()); err != nil || strings.Contains(string(text), "\nX-Evil") {
		t.Errorf("the accounts: %v\n%s", err, text)
	}
	if strings.Contains(p.stderr.String(), "\nX-Evil") {
		t.Error("a line of the log is forged")
	}
	if out, err := os.ReadDir(filepath.Dir(p.data)); err != nil || len(out) != 1 {
		t.Errorf("beside the data folder: %v %v", out, err)
	}
}

// filesOf lists the files below a folder.
func filesOf(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, _ fs.DirEntry, err error) error {
		files = append(files, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestWebCannotBeFramed holds that no answer may be shown within another page: also one that is an error, and one of a form.
func TestWebCannotBeFramed(t *testing.T) {
	p := startPage(t)
	bob := p.loggedIn(t, "bob", bobsPassword)
	for _, route := range webRoutes() {
		method, path := concrete(route.pattern)
		bob.get("/")
		request(bob, method, path)
		h := bob.answer.Header
		if !strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") || h.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s (%d): %v", route.pattern, bob.status, h)
		}
		if bob.where.Path == "/login" { // that was the way out
			bob = p.loggedIn(t, "bob", bobsPassword)
		}
	}
}
