package main

import (
	"strings"
	"testing"
)

func TestWebAway(t *testing.T) {
	p := startPage(t)
	b := p.loggedIn(t, "bob", bobsPassword)
	b.get("/")
	b.says(200, `href="/mine/away"`)
	b.get("/mine/away")
	b.says(200, "<h1>Out of office</h1>", "No answers are sent.")
	for _, c := range []struct{ field, value, says string }{
		{"text", " ", "The answer needs a text."},
		{"text", strings.Repeat("x", maxAwayText+1), "The text is too long"},
		{"subject", strings.Repeat("x", maxAwaySubject+1), "The subject is too long"},
		{"from", "soon", "The first day is no date."},
		{"until", "later", "The last day is no date."},
		{"until", "2026-12-01", "The last day is before the first."},
		{"zone", "Mars/Base", "There is no time zone called Mars/Base."},
	} {
		fields := []string{"text", "kept", "from", "2026-12-24"}
		b.post("/mine/away", append([]string{c.field, c.value}, fields...)...)
		b.says(422, c.says)
	}
	b.says(422, ">kept</textarea>", `value="2026-12-24"`)
	b.post("/mine/away", "text", "I am <away>.\r\nBob", "subject", "Gone", "until", "2099-12-31", "zone", "Europe/Berlin")
	b.says(200, "The note is saved.", "Answers are being sent.", "I am &lt;away&gt;.\nBob</textarea>", `value="2099-12-31"`, "Switch it off")
	if out := mustRun(t, p.data, "user", "away", "bob"); !strings.Contains(out, "until 2099-12-31") || !strings.Contains(out, "  I am <away>.\n  Bob\n") {
		t.Error(out)
	}
	if out := mustRun(t, p.data, "user", "away", "maria"); !strings.Contains(out, "no out-of-office note") {
		t.Error(out)
	}
	if !strings.Contains(p.stderr.String(), `msg=changed page="POST /mine/away" by=bob@home.lan`) {
		t.Error("the log does not tell of the change")
	}
	b.post("/mine/away", "text", "x", "from", "2000-01-01", "until", "2000-01-02")
	b.says(200, "The last day is over")
	b.post("/mine/away", "text", "x", "from", "2099-01-01")
	b.says(200, "Answers will be sent from the first day on.")
	b.post("/mine/away/off")
	b.says(200, "The note is switched off", "No answers are sent.")
	if strings.Contains(b.body, "Switch it off") {
		t.Error("what is off can be switched off")
	}
}
