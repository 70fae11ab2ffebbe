package main

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
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

// setFactor switches it on. Where there is one, the password has to switch that off first: a page that was opened before does not.
func (q *webRequest) setFactor() error {
	if q.user.TOTP != "" {
		return errWebStale
	}
	secret, _, err := q.sessions.factor(q.session, func() (string, string, error) { return "", "", errWebStale })
	if err != nil {
		return err
	}
	var recovery []string
	err = q.tryCode(q.user.Address, func() (err error) {
		recovery, err = q.Accounts.SetFactor(q.user.Address, secret, q.field("code"))
		return err
	})
	if err != nil {
		return err
	}
	q.sessions.forgetFactor(q.session)
	return q.doneWith(accountPath, webNotice{Key: "second.set", Secret: strings.Join(recovery, "\n")})
}

// tryCode lets check decide about the code that was typed, as tryLogin does about a password.
func (q *webRequest) tryCode(account string, check func() error) error {
	_, err := q.tryLogin(account+" code", codeGuess(q.field("code"), q.Now()), func() (Identity, error) { return Identity{}, check() })
	if mistake := mistakeOf(err); mistake != nil && mistake.key == "login.bad" {
		return q.wrong("second.bad")
	}
	return err
}

// codeGuess is what the throttle knows a code by. A password that is wrong stays so, and counts once; a code that is wrong now may
// be right in the next period: whoever tries the same few for ever has to be stopped, too.
func codeGuess(code string, now time.Time) string {
	return strconv.FormatInt(now.Unix()/factorPeriod, 10) + " " + code
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
	if err := q.tryCode(u.Address, func() error { return q.Accounts.CheckFactor(u.Address, q.field("code")) }); err != nil {
		return err
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
