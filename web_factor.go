package main

import (
	"errors"
	"net/http"
	"strings"
)

// The second factor: switching it on and off, and being asked for it.

func factorRoutes() []webRoute {
	page, code := (*webRequest).factorPage, (*webRequest).codePage
	return []webRoute{
		{pattern: "GET /account/second", who: forPerson, do: page},
		{pattern: "POST /account/second", who: forPerson, do: (*webRequest).setFactor, again: page},
		{pattern: "POST /account/second/remove", who: forPerson, do: (*webRequest).removeFactor, again: page},
		{pattern: "POST /people/{address}/second", who: forOwner, do: (*webRequest).removePersonsFactor, again: (*webRequest).personPage},
		{pattern: "GET /login/code", do: code},
		{pattern: "POST /login/code", do: (*webRequest).loginCode, again: code, quiet: true},
	}
}

// factorData is what second.html shows.
type factorData struct {
	On     bool
	Secret string // in groups of four
	Code   webCode
}

// factorPage shows the secret that this session has made until it counts.
func (q *webRequest) factorPage() error {
	if q.user.TOTP != "" {
		return q.show("second", factorData{On: true})
	}
	secret, link, err := q.sessions.factor(q.session, func() (string, string, error) { return NewFactor(q.Host, q.user.Address) })
	if err != nil {
		return err
	}
	data := factorData{Secret: grouped(secret)}
	if data.Code, err = drawCode(link); err != nil {
		return err
	}
	return q.show("second", data)
}

// grouped puts a blank behind each four characters, for who types them.
func grouped(s string) string {
	var out strings.Builder
	for i, r := range s {
		if i > 0 && i%4 == 0 {
			out.WriteByte(' ')
		}
		out.WriteRune(r)
	}
	return out.String()
}

func (q *webRequest) setFactor() error {
	secret, _, err := q.sessions.factor(q.session, func() (string, string, error) { return "", "", errWebStale })
	if err != nil {
		return err
	}
	var recovery []string
	_, err = q.tryLogin(q.user.Address+" code", q.field("code"), func() (id Identity, err error) {
		recovery, err = q.Accounts.SetFactor(q.user.Address, secret, q.field("code"))
		return id, err
	})
	if err != nil {
		return factorMistake(q, err)
	}
	q.sessions.forgetFactor(q.session)
	return q.doneWith(accountPath, webNotice{Key: "second.set", Secret: strings.Join(recovery, "\n")})
}

// factorMistake says that a code is wrong, where tryLogin says that of a password.
func factorMistake(q *webRequest, err error) error {
	if mistake := mistakeOf(err); mistake != nil && mistake.key == "login.bad" {
		return q.wrong("second.bad")
	}
	return err
}

// removeFactor wants the password: whoever finds a browser that is logged in shall not switch it off.
func (q *webRequest) removeFactor() error {
	if err := q.knowsPassword("old"); err != nil {
		return err
	}
	if _, err := q.order(order{Do: "user two-factor remove", Address: q.user.Address}); err != nil {
		return err
	}
	return q.done(accountPath, "second.removed")
}

func (q *webRequest) removePersonsFactor() error {
	return q.onPerson(order{Do: "user two-factor remove"}, "person.factor_removed")
}

// halfIn gives the session of somebody whose password was right and who still has to give a code; nil for nobody.
func (q *webRequest) halfIn() (*webSession, *User) {
	s := q.cookieSession()
	if s == nil || !s.half {
		return nil, nil
	}
	u, err := q.Accounts.User(s.account)
	if err != nil || u.Disabled || passwordProof(&u) != s.proof {
		return nil, nil
	}
	return s, &u
}

func (q *webRequest) codePage() error {
	if s, _ := q.halfIn(); s == nil {
		http.Redirect(q.rw, q.r, "/login", http.StatusSeeOther)
		return nil
	}
	return q.show("code", nil)
}

func (q *webRequest) loginCode() error {
	s, u := q.halfIn()
	if s == nil {
		http.Redirect(q.rw, q.r, "/login", http.StatusSeeOther)
		return nil
	}
	_, err := q.tryLogin(u.Address+" code", q.field("code"), func() (Identity, error) {
		err := q.Accounts.CheckFactor(u.Address, q.field("code"))
		return Identity{}, err
	})
	if err != nil {
		return factorMistake(q, err)
	}
	return q.finishLogin(u, "password and code", s.next)
}

// mistakeOf gives the mistake in an error, nil for none.
func mistakeOf(err error) *webMistake {
	var mistake *webMistake
	if errors.As(err, &mistake) {
		return mistake
	}
	return nil
}
