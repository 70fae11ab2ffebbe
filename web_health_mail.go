package main

import (
	"slices"
	"strings"
	"unicode"
)

// What has become of mail: all of it for the owner, one's own for everybody.

// healthEvents is how many events a page shows.
const healthEvents = 100

func healthMailRoutes() []webRoute {
	return []webRoute{
		{pattern: "GET /health/mail", who: forOwner, do: (*webRequest).allMail},
		{pattern: "GET /mine/mail", who: forPerson, do: (*webRequest).myMail},
	}
}

// webMail is what mail.html shows.
type webMail struct {
	Own    bool // one's own mail alone
	Show   string
	Events []DiaryEvent
	More   bool // there are others
}

func (q *webRequest) allMail() error { return q.showMail("mail", nil, nil) }

// myMail shows what somebody has sent and what was meant for them, and who tried to log in with their name.
func (q *webRequest) myMail() error {
	mine := q.myAddresses()
	return q.showMail("mymail", sightedNames(mine), func(e *DiaryEvent) bool { return q.seesEvent(e, mine) })
}

// sightedNames gives what stands in each event of one of these addresses: the part before the @, for a login may name that alone.
// Letters beyond ASCII can be written in several ways, and then it is nothing.
func sightedNames(addresses map[string]bool) (names []string) {
	for address := range addresses {
		name, _, _ := strings.Cut(address, "@")
		if strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) {
			return nil
		}
		if name != "" { // it gets all mail of a domain, and is in no event
			names = append(names, name)
		}
	}
	return names
}

// showMail shows the events that are searched for, of those to be kept, in which one of the names stands.
func (q *webRequest) showMail(page string, names []string, keep func(*DiaryEvent) bool) error {
	search := DiarySearch{Text: q.search(), Names: names, Keep: keep, Most: healthEvents, Mail: true, Refused: true}
	data := webMail{Own: keep != nil, Show: q.r.URL.Query().Get("show")}
	switch data.Show {
	case "mail":
		search.Refused = false
	case "refused":
		search.Mail = false
	}
	var err error
	if data.Events, data.More, err = q.Diary.Find(search); err != nil {
		return err
	}
	return q.show(page, data)
}

// myAddresses gives the addresses whose mail reaches whoever is logged in.
func (q *webRequest) myAddresses() map[string]bool {
	mine := map[string]bool{q.user.Address: true}
	for _, alias := range q.Accounts.Aliases() {
		if slices.Contains(alias.To, q.user.Address) {
			mine[strings.ToLower(alias.Address)] = true
		}
	}
	return mine
}

// seesEvent says whether an event is one of this person's, and takes out of it what is not for them: to whom else a message of
// somebody else went.
func (q *webRequest) seesEvent(e *DiaryEvent, mine map[string]bool) bool {
	if e.Kind == DiaryLogin {
		return q.Accounts.Means(e.Account, q.user.Address)
	}
	if e.Account == q.user.Address {
		return true
	}
	others := func(address string) bool { return !mine[strings.ToLower(address)] }
	e.To = slices.DeleteFunc(e.To, others)
	e.Junk = slices.DeleteFunc(e.Junk, others)
	e.More = 0
	return len(e.To) > 0
}

// SenderOf says who has sent a message, by its reverse-path.
func (v *webView) SenderOf(from string) string {
	if from == "" {
		return v.T("mail.server")
	}
	return from
}

// WhatOf says what has become of a message.
func (v *webView) WhatOf(e *DiaryEvent) string {
	switch e.Kind {
	case DiaryDelivered:
		switch {
		case len(e.Junk) == 0:
			return v.T("mail.delivered")
		case len(e.Junk) < len(e.To):
			return v.T("mail.junk_for", strings.Join(e.Junk, ", "))
		}
		return v.T("mail.junk")
	case DiaryCollected:
		if len(e.Junk) > 0 {
			return v.T("mail.collected_junk", e.Remote)
		}
		return v.T("mail.collected", e.Remote)
	case DiarySent:
		return v.T("mail.sent", e.Remote)
	case DiaryDeferred:
		return v.T("mail.deferred")
	case DiaryBounced:
		return v.T("mail.bounced")
	case DiaryCancelled:
		return v.T("mail.cancelled")
	case DiaryForwarded:
		return v.T("mail.forwarded", e.Account)
	case DiaryLogin:
		return v.T("mail.login", v.Protocol(e.Protocol))
	}
	switch {
	case e.More > 0 && len(e.To) == 0:
		return v.T("mail.uncounted", e.More)
	case e.Code/100 == 4:
		return v.T("mail.refused_now")
	}
	return v.T("mail.refused")
}

// ClassOf is what the style sheet knows an event by.
func (v *webView) ClassOf(e *DiaryEvent) string {
	switch e.Kind {
	case DiaryDelivered, DiaryCollected, DiarySent, DiaryForwarded:
		if len(e.Junk) == 0 {
			return "good"
		}
		return "todo"
	case DiaryBounced:
		return "bad"
	case DiaryRefused, DiaryLogin:
		if e.Code/100 == 5 {
			return "bad"
		}
	}
	return "todo"
}

// WhyOf says in plain words why a message was not taken, by what RFC 3463 §3 has for it; "" where the words of the other side
// have to do.
func (v *webView) WhyOf(status string) string {
	class, detail, ok := strings.Cut(status, ".")
	if !ok || class == "2" {
		return ""
	}
	switch detail {
	case "1.1", "1.6", "1.10":
		return v.T("mail.why_nobody")
	case "1.2", "1.8", "4.4":
		return v.T("mail.why_domain")
	case "2.2":
		return v.T("mail.why_full")
	case "2.3", "3.4":
		return v.T("mail.why_large")
	case "3.1":
		return v.T("mail.why_disk")
	case "4.1", "4.2":
		return v.T("mail.why_silent")
	case "4.7":
		return v.T("mail.why_late")
	}
	switch {
	case !strings.HasPrefix(detail, "7."):
		return ""
	case class == "4":
		return v.T("mail.why_wait")
	}
	return v.T("mail.why_policy")
}
