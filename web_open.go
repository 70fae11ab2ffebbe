package main

import (
	"encoding/hex"
	"strings"
)

// The owner's page of all who are logged in. Everybody's own sessions are on the page of the account.

func openRoutes() []webRoute {
	return []webRoute{
		{pattern: "GET /sessions", who: forOwner, do: (*webRequest).openPage},
		{pattern: "POST /sessions/end", who: forOwner, do: (*webRequest).endOpen, again: (*webRequest).openPage},
	}
}

func (q *webRequest) openPage() error {
	a, err := q.order(order{Do: "sessions list"})
	if err != nil {
		return err
	}
	return q.show("open", a.Sessions)
}

func (q *webRequest) endOpen() error {
	return q.endOne("", q.field("id"), "/sessions")
}

// endOne ends one session of a person's, of anybody's for "". One that is over already is as good.
func (q *webRequest) endOne(account, id, path string) error {
	a, err := q.order(order{Do: "sessions end", Address: account, ID: id})
	if mistakeOf(err) != nil {
		return q.done(path, "open.over")
	}
	if err != nil {
		return err
	}
	q.note("account", a.Address, "session", id)
	return q.done(path, "open.ended")
}

// webSessionPrefix tells the sessions of browsers from those of mail programs.
const webSessionPrefix = "web-"

func (s *webSession) name() string { return webSessionPrefix + hex.EncodeToString(s.id[:6]) }

// describe gives a session as it is listed beside those of mail programs.
func (s *webSession) describe() MailSession {
	return MailSession{ID: s.name(), Identity: Identity{Account: s.account}, Protocol: "web", Client: browserName(s.agent),
		Remote: s.remote, TLS: true, Since: s.created, Active: s.seen}
}

// Sessions lists the browsers in which an account is logged in, those of all for "".
func (w *Web) Sessions(account string) (list []MailSession) {
	accounts := []string{account}
	if account == "" {
		accounts = w.Accounts.Addresses()
	}
	for _, account := range accounts {
		for _, s := range w.sessions.of(account) {
			list = append(list, s.describe())
		}
	}
	return list
}

// EndSession ends the session with this name, of anybody for account "".
func (w *Web) EndSession(account, id string) (ended MailSession, ok bool) {
	if !strings.HasPrefix(id, webSessionPrefix) {
		return MailSession{}, false
	}
	w.sessions.end(func(s *webSession) bool {
		meant := s.name() == id && (account == "" || s.account == account)
		if meant {
			ended, ok = s.describe(), true
		}
		return meant
	})
	return ended, ok
}
