package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Who is logged in on the page. Sessions live in memory alone, by the hash of their id; a restart ends them.

const (
	webIdleTime   = time.Hour       // without a request
	webFullTime   = 12 * time.Hour  // in all
	webHalfTime   = 5 * time.Minute // between the password and the second factor
	webSessionCap = 1000            // sessions in all
	webAccountCap = 20              // of one person

	webSessionCookie = "__Host-session" // RFC 6265bis §4.1.3.2: of this host alone, under TLS
	webVisitorCookie = "__Host-visitor" // of somebody who is not logged in: what their forms are known by
	webTokenField    = "token"
)

// webSession is one browser in which somebody is logged in. Its fields do not change but for those that webSessions guards.
type webSession struct {
	id      [sha256.Size]byte // of the cookie, hashed
	account string
	half    bool // the second factor is missing: nobody is logged in
	proof   [sha256.Size]byte
	created time.Time
	remote  netip.Addr
	agent   string // what the browser calls itself
	next    string // of half a session: where to go then

	seen   time.Time
	notice *webNotice // to be told on the next page
	secret string     // of a second factor that does not count yet
	link   string     // with it, for a phone
}

// webNotice is what the next page says about a change that was made.
type webNotice struct {
	Key    string
	Args   []any
	Secret string // shown once, to be copied
	Domain string // of the internet, whose mail stays here from now on

	path string // of the page that tells it, as it stands in an address
}

// webSessions is all sessions. Safe for concurrent use.
type webSessions struct {
	now func() time.Time
	mu  sync.Mutex
	all map[[sha256.Size]byte]*webSession
}

func newWebSessions(now func() time.Time) *webSessions {
	return &webSessions{now: now, all: map[[sha256.Size]byte]*webSession{}}
}

// newWebKey makes a key that nobody else knows.
func newWebKey() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	return key
}

// over says whether a session has ended by its age.
func (s *webSession) over(now time.Time) bool {
	full, idle := webFullTime, webIdleTime
	if s.half {
		full, idle = webHalfTime, webHalfTime
	}
	return now.Sub(s.created) >= full || now.Sub(s.seen) >= idle
}

// add begins a session and gives what its cookie holds. Too many make the oldest ones end.
func (all *webSessions) add(s *webSession) (cookie string) {
	cookie = rand.Text()
	s.id = sha256.Sum256([]byte(cookie))
	s.created = all.now()
	s.seen = s.created
	all.mu.Lock()
	defer all.mu.Unlock()
	for id, other := range all.all {
		if other.over(s.created) {
			delete(all.all, id)
		}
	}
	all.makeRoom(webAccountCap, func(other *webSession) bool { return other.account == s.account })
	all.makeRoom(webSessionCap, func(*webSession) bool { return true })
	all.all[s.id] = s
	return cookie
}

// makeRoom ends the session that was used longest ago of those that count, where there are as many as may be. The lock is held.
func (all *webSessions) makeRoom(limit int, counts func(*webSession) bool) {
	var oldest *webSession
	n := 0
	for _, s := range all.all {
		if !counts(s) {
			continue
		}
		n++
		if oldest == nil || s.seen.Before(oldest.seen) {
			oldest = s
		}
	}
	if n >= limit {
		delete(all.all, oldest.id)
	}
}

// find gives the session of a cookie, nil for none. It counts as used.
func (all *webSessions) find(cookie string) *webSession {
	id := sha256.Sum256([]byte(cookie))
	all.mu.Lock()
	defer all.mu.Unlock()
	s := all.all[id]
	if s == nil {
		return nil
	}
	now := all.now()
	if s.over(now) {
		delete(all.all, id)
		return nil
	}
	s.seen = now
	return s
}

// end ends the sessions that are meant, and says how many.
func (all *webSessions) end(means func(*webSession) bool) (n int) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for id, s := range all.all {
		if means(s) {
			delete(all.all, id)
			n++
		}
	}
	return n
}

// of lists the sessions in which an account is logged in, the one used last first.
func (all *webSessions) of(account string) []webSession {
	all.mu.Lock()
	defer all.mu.Unlock()
	var list []webSession
	now := all.now()
	for _, s := range all.all {
		if s.account == account && !s.half && !s.over(now) {
			list = append(list, *s)
		}
	}
	sortFunc(list, func(a, b webSession) int { return b.seen.Compare(a.seen) })
	return list
}

// tell keeps a notice for the next page.
func (all *webSessions) tell(s *webSession, n webNotice) {
	all.mu.Lock()
	defer all.mu.Unlock()
	s.notice = &n
}

// told gives the notice that waits for a page, once. Another page, which the browser may load at the same time, does not take it
// away: there may be a password in it.
func (all *webSessions) told(s *webSession, page *url.URL) *webNotice {
	all.mu.Lock()
	defer all.mu.Unlock()
	n := s.notice
	if n == nil {
		return nil
	}
	if where, err := url.Parse(n.path); err == nil && where.Path != page.Path {
		return nil
	}
	s.notice = nil
	return n
}

// factor gives the secret that a session has made for a phone, and its link; a new one the first time.
func (all *webSessions) factor(s *webSession, fresh func() (secret, link string, err error)) (secret, link string, err error) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if s.secret == "" {
		if s.secret, s.link, err = fresh(); err != nil {
			return "", "", err
		}
	}
	return s.secret, s.link, nil
}

// forgetFactor ends that: it counts now.
func (all *webSessions) forgetFactor(s *webSession) {
	all.mu.Lock()
	defer all.mu.Unlock()
	s.secret, s.link = "", ""
}

// passwordProof tells whether a person's main password is still the one of a login: it is of the hash alone, for the SCRAM keys
// behind it may come later.
func passwordProof(u *User) [sha256.Size]byte {
	hash, _ := splitPassword(u.Password)
	return sha256.Sum256([]byte(hash))
}

// current gives the session of a request and the person as the account book has them now. A session ends with its account, and
// with the password that it began with.
func (q *webRequest) current() (*webSession, User, bool) {
	s := q.cookieSession()
	if s == nil || s.half {
		return nil, User{}, false
	}
	u, err := q.Accounts.User(s.account)
	if err != nil || u.Disabled || passwordProof(&u) != s.proof {
		q.sessions.end(func(other *webSession) bool { return other == s })
		return nil, User{}, false
	}
	return s, u, true
}

// cookieSession gives the session of a request's cookie, complete or half; nil for none.
func (q *webRequest) cookieSession() *webSession {
	cookie, err := q.r.Cookie(webSessionCookie)
	if err != nil {
		return nil
	}
	return q.sessions.find(cookie.Value)
}

// begin logs somebody in: the browser gets a new id, and the old one ends, so that nobody can have handed it one (session
// fixation). half waits for the second factor.
func (q *webRequest) begin(u *User, half bool) {
	q.leave()
	s := &webSession{account: u.Address, half: half, next: localPath(q.r.PostForm.Get("next")), proof: passwordProof(u), remote: q.remote, agent: clip(q.r.UserAgent(), 200)}
	setWebCookie(q.rw, webSessionCookie, q.sessions.add(s))
	if !half {
		q.session, q.user = s, *u
	}
}

// leave ends the session of the request's cookie.
func (q *webRequest) leave() {
	if s := q.cookieSession(); s != nil {
		q.sessions.end(func(other *webSession) bool { return other == s })
	}
}

func setWebCookie(rw http.ResponseWriter, name, value string) {
	cookie := &http.Cookie{Name: name, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode}
	if value == "" {
		cookie.MaxAge = -1
	}
	http.SetCookie(rw, cookie)
}

// token gives what forms on this browser's pages carry, so that no other page can send them. Somebody who is not logged in gets
// a cookie for it.
func (q *webRequest) token() string {
	if q.session != nil {
		return q.tokenOf("session", hex.EncodeToString(q.session.id[:]))
	}
	if s := q.cookieSession(); s != nil {
		return q.tokenOf("session", hex.EncodeToString(s.id[:]))
	}
	cookie, err := q.r.Cookie(webVisitorCookie)
	if err != nil || len(cookie.Value) < len(rand.Text()) {
		cookie = &http.Cookie{Name: webVisitorCookie, Value: rand.Text()}
		q.r.AddCookie(cookie)
		setWebCookie(q.rw, cookie.Name, cookie.Value)
	}
	return q.tokenOf("visitor", cookie.Value)
}

func (w *Web) tokenOf(kind, value string) string {
	mac := hmac.New(sha256.New, w.key)
	_, _ = mac.Write([]byte(kind + ":" + value))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// rightToken says whether a form has the token of this browser. One without a cookie has none.
func (q *webRequest) rightToken(token string) bool {
	if q.cookieSession() == nil {
		if _, err := q.r.Cookie(webVisitorCookie); err != nil {
			return false
		}
	}
	return hmac.Equal([]byte(token), []byte(q.token()))
}

// remoteOfRequest gives the address that a request comes from, IPv4 never in its IPv6 form.
func remoteOfRequest(r *http.Request) netip.Addr { return addrOf(r.RemoteAddr) }

// localPath gives a path of ours that a browser may be led to, "/" where it is none: no other host can be named by it.
func localPath(path string) string {
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n\t?#") {
		return "/"
	}
	return path
}
