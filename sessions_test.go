package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// openNow lists who is logged in, by the command.
func openNow(t *testing.T, p *page, args ...string) (list []MailSession) {
	t.Helper()
	if err := json.Unmarshal([]byte(mustRun(t, p.data, append([]string{"sessions", "--json"}, args...)...)), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestSessions(t *testing.T) {
	p := startPage(t)
	if out := mustRun(t, p.data, "sessions"); out != "Nobody is logged in.\n" {
		t.Errorf("%q", out)
	}
	out := mustRun(t, p.data, "user", "app-password", "add", "bob", "phone")
	in, phone, _ := p.imapLogin(t, "bob", strings.TrimSpace(out[strings.LastIndex(out, " "):]))
	imapSay(t, in, phone, "ID (\"name\" \"Mail\x1b[31m\" \"version\" \"1.0\" \"os\" \"x\")")
	imapSay(t, in, phone, "SELECT INBOX")
	maria, laptop, _ := p.imapLogin(t, "maria", mariasPassword)
	b := p.loggedIn(t, "bob", bobsPassword)

	list := openNow(t, p)
	if len(list) != 3 {
		t.Fatalf("%+v", list)
	}
	byProtocol := map[string]MailSession{}
	for _, s := range list {
		byProtocol[s.Account+" "+s.Protocol] = s
	}
	s := byProtocol["bob@home.lan imap"]
	if s.Via != "phone" || s.Command != "SELECT" || !strings.HasPrefix(s.Client, "Mail") || strings.Contains(s.Client, "\x1b") || !strings.HasSuffix(s.Client, " 1.0") || !s.TLS || s.Remote.String() != "127.0.0.1" || s.Since.IsZero() || s.Active.Before(s.Since) {
		t.Errorf("%+v", s)
	}
	if web := byProtocol["bob@home.lan web"]; !strings.HasPrefix(web.ID, "web-") {
		t.Errorf("%+v", web)
	}
	if out := mustRun(t, p.data, "sessions", "bob"); strings.Contains(out, "maria") || !strings.Contains(out, `password "phone", Mail`) || !strings.Contains(out, "SELECT ") {
		t.Error(out)
	}

	// The page shows bob his own, and ends them.
	b.get("/account")
	b.says(200, "(phone)", "1.0")
	b.post("/account/sessions/end", "id", "one", "session", byProtocol["maria@home.lan imap"].ID)
	b.says(200, "That session was over already.")
	if reply := imapSay(t, maria, laptop, "NOOP"); !strings.Contains(reply, "x OK") {
		t.Error("bob has ended a session of maria's")
	}
	b.post("/account/sessions/end", "id", "one", "session", s.ID)
	b.says(200, "The session has ended.")
	endsNow(t, phone)
	b.get("/sessions")
	b.says(403)

	// The owner sees all.
	owner := p.loggedIn(t, "maria", mariasPassword)
	owner.get("/sessions")
	owner.says(200, "<h1>Open sessions</h1>", "bob@home.lan", "maria@home.lan")
	owner.post("/sessions/end", "id", byProtocol["bob@home.lan web"].ID)
	owner.says(200, "The session has ended.")
	b.get("/account")
	b.says(200, "<h1>Log in</h1>")
	if out := mustRun(t, p.data, "sessions", "end", byProtocol["maria@home.lan imap"].ID); !regexp.MustCompile(`^Session \w+ of maria@home.lan has ended.\n$`).MatchString(out) {
		t.Errorf("%q", out)
	}
	endsNow(t, laptop)
	if status, _, errs := runCommand(t, p.data, "", "sessions", "end", "nothing"); status != exitFailed || !strings.Contains(errs, "there is no session nothing") {
		t.Error(status, errs)
	}
	p.stop(t)
	if status, _, errs := runCommand(t, p.data, "", "sessions"); status != exitFailed || !strings.Contains(errs, "does not run") {
		t.Error(status, errs)
	}
}
