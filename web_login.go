package main

import (
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Logging in and out, and the way from HTTP to HTTPS.

func loginRoutes() []webRoute {
	return []webRoute{
		{pattern: "GET /login", do: (*webRequest).loginPage},
		{pattern: "POST /login", do: (*webRequest).login, again: (*webRequest).loginPage, quiet: true},
		{pattern: "POST /logout", do: (*webRequest).logout, quiet: true},
	}
}

// errWebLogin says that somebody has to log in to see a page.
var errWebLogin = errors.New("log in first")

// toLogin leads to the page where people log in, and from there back.
func (q *webRequest) toLogin() {
	where := "/login"
	if first := q.firstVisit(); first != "" {
		where = first
	} else if path := localPath(q.r.URL.Path); path != "/" {
		where += "?next=" + url.QueryEscape(path)
	}
	http.Redirect(q.rw, q.r, where, http.StatusSeeOther)
}

func (q *webRequest) loginPage() error {
	if q.user.Address != "" {
		http.Redirect(q.rw, q.r, "/", http.StatusSeeOther)
		return nil
	}
	return q.show("login", nil)
}

// login takes the main password alone: a device that has an app password shall not be able to change the account.
func (q *webRequest) login() error {
	name := q.field("name")
	id, err := q.tryLogin(name, q.r.PostForm.Get("password"), func() (Identity, error) {
		return q.Accounts.Login(q.r.Context(), name, q.r.PostForm.Get("password"))
	})
	if err != nil {
		return err
	}
	if id.Via != "" {
		return q.wrong("login.app")
	}
	u, err := q.Accounts.User(id.Account)
	if err != nil {
		return q.wrong("login.bad")
	}
	if u.TOTP != "" {
		q.begin(&u, true)
		http.Redirect(q.rw, q.r, "/login/code", http.StatusSeeOther)
		return nil
	}
	return q.finishLogin(&u, "password", localPath(q.field("next")))
}

// finishLogin logs somebody in whose password, and second factor if there is one, was right.
func (q *webRequest) finishLogin(u *User, by, next string) error {
	q.begin(u, false)
	q.Accounts.LoggedIn(Identity{Account: u.Address}, "web")
	q.Log.Info("login", "protocol", "web", "account", u.Address, "by", by, "tls", true, "remote", q.remote.String())
	http.Redirect(q.rw, q.r, next, http.StatusSeeOther)
	return nil
}

// tryLogin is for the page what Conn.tryLogin is for the protocols; both ask one throttle.
func (q *webRequest) tryLogin(name, guess string, check func() (Identity, error)) (Identity, error) {
	most := throttleRemote
	if isNear(q.remote) {
		most = throttleLoopback
	}
	if !q.logins.enter(q.remote, most, math.MaxInt) {
		q.rejectLogin(name, errManyLogins)
		return Identity{}, q.wrong("login.throttled", int(throttleBlock/time.Minute))
	}
	id, wait, err := q.Throttle.Try(q.remote, q.Accounts.LoginName(name), guess, check)
	q.logins.leave(q.remote)
	switch {
	case err == nil:
		return id, nil
	case errors.Is(err, ErrThrottled):
		q.rejectLogin(name, err)
		return Identity{}, q.wrong("login.throttled", int(throttleBlock/time.Minute))
	case errors.Is(err, ErrBadLogin):
		q.rejectLogin(name, err)
		return Identity{}, errors.Join(q.wrong("login.bad"), q.pause(wait))
	}
	return Identity{}, err
}

// errManyLogins says that an address has logins checked already, as many as may fail.
var errManyLogins = errors.New("too many logins at once")

func (q *webRequest) rejectLogin(name string, err error) {
	q.Log.Warn("rejected", "protocol", "web", "user", clip(name, 100), "remote", q.remote.String(), "reason", err.Error())
}

// pause waits, but not longer than the browser does.
func (q *webRequest) pause(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-q.r.Context().Done():
		return context.Cause(q.r.Context())
	}
}

func (q *webRequest) logout() error {
	q.leave()
	setWebCookie(q.rw, webSessionCookie, "")
	http.Redirect(q.rw, q.r, "/login", http.StatusSeeOther)
	return nil
}

// toTLS leads a request without TLS to the same place under TLS, and takes nothing from it.
func (w *Web) toTLS(rw http.ResponseWriter, r *http.Request) {
	host, port := strings.Trim(hostOfRequest(r), "[]"), w.Secure()
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(rw, "Nothing is taken without TLS. Use https in the address.", http.StatusForbidden)
		return
	case port == 0:
		http.Error(rw, "The port for HTTPS is not open on this machine; its log says why.", http.StatusServiceUnavailable)
		return
	case !isHostName(host):
		http.Error(rw, "The name of the host cannot be right.", http.StatusBadRequest)
		return
	}
	if port != 443 || strings.Contains(host, ":") {
		host = net.JoinHostPort(host, strconv.Itoa(port))
	}
	target := url.URL{Scheme: "https", Host: host, Path: r.URL.Path, RawQuery: r.URL.RawQuery}
	http.Redirect(rw, r, target.String(), http.StatusFound)
}

// isHostName says whether a host is a name or an address, and nothing else.
func isHostName(host string) bool {
	return net.ParseIP(host) != nil || checkDomain(host) == nil
}
