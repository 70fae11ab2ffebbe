package main

import (
	"maps"
	"slices"
	"time"
)

// The first page after the login, and the files that all pages need.

func homeRoutes() []webRoute {
	return []webRoute{
		{pattern: "GET /{$}", who: forPerson, do: (*webRequest).home},
		{pattern: "GET /static/{name}", do: (*webRequest).asset, raw: true},
	}
}

// webHome is what home.html shows.
type webHome struct {
	mailAccess
	Steps   bool // the owner sees what comes next
	People  int  // besides the owner
	Phone   time.Time
	Checked *Diagnosis
	Trouble []Finding // that keep mail from the internet away, or from it
}

// webServerLine is one thing that a mail program asks for.
type webServerLine struct {
	Key         string // of its text
	Port, Other int    // with TLS from the start, and with STARTTLS
}

func (q *webRequest) home() error {
	data := webHome{mailAccess: q.access(q.user.Address)}
	if q.owns() {
		data.Steps, data.People, data.Phone = true, len(q.Accounts.Addresses())-1, q.lastMailLogin()
		data.Checked = q.Checked()
		if data.Checked != nil {
			data.Trouble = slices.DeleteFunc(slices.Clone(data.Checked.Findings), func(f Finding) bool {
				return f.State != StateBad && f.State != StateWarn
			})
		}
	}
	return q.show("home", data)
}

// servers tells under which ports mail is received and sent.
func (w *Web) servers() []webServerLine {
	return []webServerLine{
		{"home.imap", w.port("imaps"), w.port("imap")},
		{"home.submission", w.port("submissions"), w.port("submission")},
		{"home.pop3", w.port("pop3s"), w.port("pop3")},
	}
}

// lastMailLogin is when a mail program has logged in for this person last, zero for never.
func (q *webRequest) lastMailLogin() (last time.Time) {
	times := q.Accounts.LastLogins(q.user.Address).Protocols
	delete(times, "web")
	for _, at := range slices.Collect(maps.Values(times)) {
		if at.After(last) {
			last = at
		}
	}
	return last
}

// port gives the number of a port by its name, 0 where it is not open.
func (w *Web) port(name string) int {
	for _, p := range w.Ports {
		if p.Name == name {
			return p.Number
		}
	}
	return 0
}
