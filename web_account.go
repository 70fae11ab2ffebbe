package main

import (
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
)

// What everybody does for the own account: name, language, password, passwords for devices, and what is logged in.

func accountRoutes() []webRoute {
	page := (*webRequest).accountPage
	return []webRoute{
		{pattern: "GET /account", who: forPerson, do: page},
		{pattern: "POST /account/name", who: forPerson, do: (*webRequest).nameMe, again: page},
		{pattern: "POST /account/language", who: forPerson, do: (*webRequest).chooseLanguage, again: page},
		{pattern: "POST /account/password", who: forPerson, do: (*webRequest).changePassword, again: page},
		{pattern: "POST /account/app", who: forPerson, do: (*webRequest).addMyApp, again: page},
		{pattern: "POST /account/app/remove", who: forPerson, do: (*webRequest).removeMyApp, again: page},
		{pattern: "POST /account/sessions/end", who: forPerson, do: (*webRequest).endMySession, again: page},
	}
}

const accountPath = "/account"

// accountData is what account.html shows.
type accountData struct {
	Me        webPerson
	Language  string
	Languages []webLanguage
	Factor    bool
	Recovery  int // codes that are left
	Sessions  []webOpen
	Mail      []MailSession
}

// webLanguage is a language that can be chosen.
type webLanguage struct{ Tag, Name string }

// webOpen is a browser in which this person is logged in.
type webOpen struct {
	ID, Browser, Remote string
	Since, Seen         time.Time
	Current             bool
}

func (q *webRequest) accountPage() error {
	me, err := q.person(&q.user)
	if err != nil {
		return err
	}
	data := accountData{Me: me, Language: q.user.Language, Factor: q.user.TOTP != "", Recovery: len(q.user.Recovery), Mail: q.MailSessions(q.user.Address)}
	for _, words := range q.Web.words {
		data.Languages = append(data.Languages, webLanguage{words.tag.String(), words.text("format.language")})
	}
	for _, s := range q.sessions.of(q.user.Address) {
		data.Sessions = append(data.Sessions, webOpen{hex.EncodeToString(s.id[:]), browserName(s.agent), s.remote.String(), s.created, s.seen, s.id == q.session.id})
	}
	sortFunc(data.Mail, func(a, b MailSession) int { return b.Since.Compare(a.Since) })
	return q.show("account", data)
}

// browserName makes the words that a browser says of itself short: "Firefox, Linux".
func browserName(agent string) string {
	find := func(names ...string) string {
		for i := 0; i < len(names); i += 2 {
			if strings.Contains(agent, names[i]) {
				return names[i+1]
			}
		}
		return ""
	}
	program := find("Edg", "Edge", "OPR/", "Opera", "Firefox", "Firefox", "FxiOS", "Firefox", "Chrome", "Chrome", "CriOS", "Chrome", "Safari", "Safari")
	system := find("iPhone", "iPhone", "iPad", "iPad", "Android", "Android", "Windows", "Windows", "Mac OS", "Mac", "CrOS", "ChromeOS", "Linux", "Linux")
	switch {
	case program == "" && system == "":
		return clip(agent, 40)
	case program == "" || system == "":
		return program + system
	}
	return program + ", " + system
}

func (q *webRequest) nameMe() error {
	if checkPersonName(q.field("name")) != nil {
		return q.wrong("error.name")
	}
	if _, err := q.order(order{Do: "user name", Address: q.user.Address, Name: q.field("name")}); err != nil {
		return err
	}
	return q.done(accountPath, "account.named")
}

func (q *webRequest) chooseLanguage() error {
	chosen := q.field("language")
	known := slices.ContainsFunc(q.Web.words, func(words *webWords) bool { return words.tag.String() == chosen })
	if chosen != "" && !known {
		return errWebStale
	}
	if err := q.Accounts.SetLanguage(q.user.Address, chosen); err != nil {
		return err
	}
	return q.done(accountPath, "account.language_set")
}

// knowsPassword asks for the password that counts, where more than a session is wanted. It is throttled as logins are.
func (q *webRequest) knowsPassword(field string) error {
	password := q.r.PostForm.Get(field)
	id, err := q.tryLogin(q.user.Address, password, func() (Identity, error) {
		return q.Accounts.Login(q.r.Context(), q.user.Address, password)
	})
	if err == nil && id.Via != "" {
		return q.wrong("login.app")
	}
	if mistake := mistakeOf(err); mistake != nil && mistake.key == "login.bad" {
		return q.wrong("account.bad_password")
	}
	return err
}

// changePassword ends all else that is logged in with the old password.
func (q *webRequest) changePassword() error {
	if err := q.knowsPassword("old"); err != nil {
		return err
	}
	password, err := q.newPassword()
	if err != nil {
		return err
	}
	if _, err := q.order(order{Do: "user passwd", Address: q.user.Address, Password: password}); err != nil {
		return err
	}
	u, err := q.Accounts.User(q.user.Address)
	if err != nil {
		return err
	}
	q.begin(&u, false)
	return q.done(accountPath, "account.password_set")
}

func (q *webRequest) addMyApp() error    { return q.addApp(&q.user, accountPath) }
func (q *webRequest) removeMyApp() error { return q.removeApp(&q.user, accountPath) }

// endMySession ends one browser's session, all but this one's, or those of the mail programs.
func (q *webRequest) endMySession() error {
	mine := func(s *webSession) bool { return s.account == q.user.Address }
	switch id := q.field("id"); id {
	case "one":
		return q.endOne(q.user.Address, q.field("session"), accountPath)
	case "mail":
		q.EndMail(q.user.Address, "", true)
		return q.done(accountPath, "account.mail_ended")
	case "others":
		q.sessions.end(func(s *webSession) bool { return mine(s) && s.id != q.session.id })
		return q.done(accountPath, "account.others_ended")
	default:
		q.sessions.end(func(s *webSession) bool { return mine(s) && hex.EncodeToString(s.id[:]) == id })
		if id == hex.EncodeToString(q.session.id[:]) {
			http.Redirect(q.rw, q.r, "/login", http.StatusSeeOther)
			return nil
		}
		return q.done(accountPath, "account.ended")
	}
}
