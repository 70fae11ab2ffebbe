package main

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The page: what people do in a browser, on the ports of webport.go, under TLS alone. Everything works without JavaScript,
// nothing is fetched from another host, and nothing here can read a mail: what changes goes through Web.Do, as the orders in
// webOrders, which are those of the command line.
//
// To add a page or an action:
//
//  1. A line in a table of routes (homeRoutes and the like; webRoutes joins them): the pattern, who may, and what does it. Nothing
//     else decides who may: TestWebRights walks the table. What changes something is a POST and has in its line also the page
//     that is shown again, with the mistake, when the function gives one (webRequest.wrong); when it is done it calls
//     webRequest.done with a sentence.
//  2. A template web/NAME.html, which defines "content" and is rendered by q.show("NAME", data). It has the methods of webView:
//     {{$.T "key"}} is a text, {{template "token" $}} stands in every form, {{$.Value "field"}} is what was typed.
//  3. The texts, in web/en.toml and web/de.toml, at least NAME.title (or data with the method Heading); TestWebTexts holds that both have the same keys, with the
//     same verbs, and that each is used. Where the page belongs into the navigation, a line in webNav.
//  4. A test in web_NAME_test.go, with startPage and browser of web_test.go.
//
// What is no page of ours (files for programs) is a route that is raw; one that is also answered without TLS is plain.

const (
	webMaxForm  = 64 << 10 // bytes of a form
	webMaxField = 4 << 10  // bytes of one of its fields
)

// WebConfig is what the page needs to know, and to be able to do.
type WebConfig struct {
	Accounts *Accounts
	// Certificates tells which names are trusted, and signs what devices are given.
	Certificates *Certificates

	Throttle *Throttle                   // of the mail protocols, too
	Do       func(order) (answer, error) // carries out an order
	Codes    *OneTimeCodes               // of links that work once
	Zone     *HouseZone                  // in which times are told
	Checked  func() *Diagnosis           // what the daily check found last, nil: nothing yet
	Examine  func(context.Context) error // looks again; Checked tells what it found
	Host     string                      // the name of this machine
	Ports    []Port                      // that are open
	Secure   func() int                  // the port for HTTPS, 0: none
	Log      *slog.Logger
	// Sessions of mail programs: those of an account, and ending them as Protocols.EndSessions does.
	MailSessions func(account string) []MailSession
	EndMail      func(account, via string, any bool)
	Diary        *Diary                      // what has become of mail
	Token        *MetricsToken               // for metrics, asked for from elsewhere
	Metrics      func() []*Metric            // the numbers of all parts of the server
	Recent       func(text string) []LogLine // the last lines of the log in which a text stands
	Now          func() time.Time            // nil: time.Now
}

// Web is the handler of the page. Safe for concurrent use.
type Web struct {
	WebConfig
	mux      *http.ServeMux
	plain    *http.ServeMux // what is answered without TLS
	origins  *http.CrossOriginProtection
	pages    map[string]*template.Template
	assets   map[string]webAsset
	words    []*webWords
	key      []byte // of tokens; of this process alone
	sessions *webSessions
	links    *deviceLinks
	look     webLook
	answered webAnswered
	called   atomic.Pointer[string] // our name on the network at home, where that is not Host; nil: it is

	logins  sourceCounts // that are checked now: the throttle counts those that have failed, and many may come at once
	oneTime sync.Mutex   // held while a code is used: of two who come with it at once, one is late
}

// webAccess is who may use a route.
type webAccess int

const (
	forAnyone webAccess = iota
	forPerson           // whoever is logged in
	forOwner            // the first account of the book
)

// webRoute is one line of the table of all that can be asked for.
type webRoute struct {
	pattern string // of http.ServeMux: "GET /people"
	who     webAccess
	do      func(q *webRequest) error
	again   func(q *webRequest) error // shows a mistake of a POST on the page that it came from
	raw     bool                      // no page and no form of ours: it changes nothing, and no token is asked for
	plain   bool                      // answered without TLS, too
	quiet   bool                      // a POST that is no change, or says in the log itself what it was
}

// webRoutes is the table of all routes.
func webRoutes() []webRoute {
	return slices.Concat(homeRoutes(), loginRoutes(), firstRoutes(), peopleRoutes(), addressRoutes(), resetRoutes(),
		accountRoutes(), factorRoutes(), mineRoutes(),
		connectRoutes(), autoconfigRoutes(), autodiscoverRoutes(), domainRoutes(), healthRoutes(), metricsRoutes())
}

// webOrders lists the orders that the page may give. None of them answers with a mail, or a part of one.
func webOrders() []string {
	return append(append(mineOrders(), healthOrders()...),
		"user add", "user remove", "user rename", "user name", "user passwd", "user disable", "user enable", "user quota", "user reset-link",
		"user app-password add", "user app-password remove", "user two-factor remove", "user sender add", "user sender remove", "alias add", "alias remove",
		"doctor facts", "relay set", "relay remove", "relay list",
	)
}

// NewWeb makes the page.
func NewWeb(cfg WebConfig) (*Web, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	w := &Web{WebConfig: cfg, mux: http.NewServeMux(), plain: http.NewServeMux(), origins: http.NewCrossOriginProtection(),
		key: newWebKey(), sessions: newWebSessions(cfg.Now), links: newDeviceLinks(cfg.Now),
		look: webLook{wanted: make(chan struct{}, 1)}}
	var err error
	if w.words, err = readWebWords(); err != nil {
		return nil, err
	}
	if w.assets, err = readWebAssets(); err != nil {
		return nil, err
	}
	if w.pages, err = readWebPages(); err != nil {
		return nil, err
	}
	for _, route := range webRoutes() {
		w.mux.HandleFunc(route.pattern, func(rw http.ResponseWriter, r *http.Request) { w.serve(&route, rw, r) })
		if route.plain {
			w.plain.HandleFunc(route.pattern, func(rw http.ResponseWriter, r *http.Request) { w.serve(&route, rw, r) })
		}
	}
	missing := webRoute{pattern: "/", do: func(*webRequest) error { return errWebMissing }, raw: true}
	w.mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) { w.serve(&missing, rw, r) })
	w.plain.HandleFunc("/", w.toTLS)
	return w, nil
}

// Called is told the name under which devices on the network at home find this machine, where another one has Host.
func (w *Web) Called(name string) { w.called.Store(&name) }

// name is how devices on the network at home find this machine.
func (w *Web) name() string {
	if called := w.called.Load(); called != nil && strings.HasSuffix(w.Host, ".local") {
		return *called
	}
	return w.Host
}

// ServeHTTP answers a request of either port.
func (w *Web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	setWebHeaders(rw.Header())
	if r.TLS == nil {
		w.plain.ServeHTTP(rw, r)
		return
	}
	status := &webStatus{ResponseWriter: rw, code: http.StatusOK}
	w.mux.ServeHTTP(status, r)
	w.answered.count(status.code)
}

// setWebHeaders sets what keeps other pages out of ours, and ours in no cache. There is no Strict-Transport-Security: with it a
// browser that does not know our authority yet would let nobody in.
func setWebHeaders(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "+
		"frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY") // for what does not know frame-ancestors
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
	h.Set("Cache-Control", "no-store")
}

// webRequest is one request, on its way through a route.
type webRequest struct {
	*Web
	rw      http.ResponseWriter
	r       *http.Request
	route   *webRoute
	remote  netip.Addr
	session *webSession // nil: nobody is logged in
	user    User        // who is; zero: nobody
	words   *webWords
	status  int
	mistake *webMistake // shown on the page
	audit   []any       // what the log says about a change
}

// webMistake is what a person has to put right, as a text with its arguments.
type webMistake struct {
	key  string
	args []any
	told string // in English, what an order says
}

func (m *webMistake) Error() string { return m.key }

// wrong gives a mistake: the form is shown again with this text.
func (q *webRequest) wrong(key string, args ...any) error { return &webMistake{key: key, args: args} }

// The pages that show why something was not done. Each has texts NAME.title and NAME.text.
var (
	errWebMissing   = &webRefusal{http.StatusNotFound, "missing"}
	errWebForbidden = &webRefusal{http.StatusForbidden, "forbidden"}
	errWebStale     = &webRefusal{http.StatusForbidden, "stale"}
	errWebTooLarge  = &webRefusal{http.StatusRequestEntityTooLarge, "large"}
	errWebFailed    = &webRefusal{http.StatusInternalServerError, "failed"}
)

// webRefusal ends a request with a page of its own.
type webRefusal struct {
	status int
	name   string
}

func (e *webRefusal) Error() string { return e.name }

// serve leads a request through its route: who is it, may they, does the form come from our own page, do it.
func (w *Web) serve(route *webRoute, rw http.ResponseWriter, r *http.Request) {
	q := &webRequest{Web: w, rw: rw, r: r, route: route, remote: remoteOfRequest(r), status: http.StatusOK}
	defer q.recover()
	q.recognize()
	err := q.admit()
	if err == nil {
		err = route.do(q)
	}
	if mistake := mistakeOf(err); mistake != nil && route.again != nil {
		q.mistake, q.status = mistake, http.StatusUnprocessableEntity
		err = route.again(q)
	}
	if err == nil && q.mistake == nil && q.changes() && !route.quiet {
		q.logChange()
	}
	if err != nil {
		q.refuse(err)
	}
}

// recover makes a panic end this request alone.
func (q *webRequest) recover() {
	cause := recover()
	if cause == nil {
		return
	}
	q.Log.Error("panic on the page", "page", q.route.pattern, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
	q.refuse(errWebFailed)
}

// recognize finds out who it is, and in which language they read.
func (q *webRequest) recognize() {
	if session, user, ok := q.current(); ok {
		q.session, q.user = session, user
	}
	q.words = q.chooseWords(q.user.Language, q.r.Header.Get("Accept-Language"))
}

// owns says whether the owner is logged in.
func (q *webRequest) owns() bool { return q.user.Address != "" && q.user.Address == q.Accounts.Owner() }

// changes says whether the request is one that may change something.
func (q *webRequest) changes() bool {
	return !q.route.raw && q.r.Method != http.MethodGet && q.r.Method != http.MethodHead
}

// admit is the one place that decides whether a request may go on: whether its form is one of ours, of today and of this
// browser, and whether whoever is logged in may do it.
func (q *webRequest) admit() error {
	if q.changes() {
		if err := q.readForm(); err != nil {
			return err
		}
	}
	switch {
	case q.route.who == forAnyone:
	case q.user.Address == "" && !q.changes():
		return errWebLogin
	case q.user.Address == "", q.route.who == forOwner && !q.owns():
		return errWebForbidden
	}
	if q.changes() && !q.rightToken(q.r.PostForm.Get(webTokenField)) {
		return errWebStale
	}
	return nil
}

// readForm reads a form of bounded size, from our own pages alone.
func (q *webRequest) readForm() error {
	if q.origins.Check(q.r) != nil {
		return errWebStale
	}
	q.r.Body = http.MaxBytesReader(q.rw, q.r.Body, webMaxForm)
	if err := q.r.ParseForm(); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return errWebTooLarge
		}
		return errWebStale
	}
	for _, values := range q.r.PostForm {
		if slices.ContainsFunc(values, func(v string) bool { return len(v) > webMaxField }) {
			return errWebTooLarge
		}
	}
	return nil
}

// note adds to what the log says about the change that is being made.
func (q *webRequest) note(args ...any) { q.audit = append(q.audit, args...) }

// logChange says in the log who has changed what.
func (q *webRequest) logChange() {
	q.Log.Info("changed", append([]any{"page", q.route.pattern, "by", q.user.Address, "remote", q.remote.String()}, q.audit...)...)
}

// refuse ends a request that came to nothing.
func (q *webRequest) refuse(err error) {
	var refusal *webRefusal
	switch {
	case err == errWebLogin:
		q.toLogin()
		return
	case !errors.As(err, &refusal):
		q.Log.Error("a page could not be shown", "page", q.route.pattern, "err", err)
		refusal = errWebFailed
	case refusal.status == http.StatusForbidden:
		q.Log.Warn("rejected", "protocol", "web", "page", q.route.pattern, "account", q.user.Address, "remote", q.remote.String(), "reason", refusal.name)
	}
	q.status = refusal.status
	if err := q.show("refusal", refusal.name); err != nil {
		q.Log.Error("a page could not be shown", "page", "refusal", "err", err)
	}
}

// done ends a change: the browser is led to a page, which says what has been done.
func (q *webRequest) done(path, key string, args ...any) error {
	return q.doneWith(path, webNotice{Key: key, Args: args})
}

// doneWith is done with more than a sentence.
func (q *webRequest) doneWith(path string, notice webNotice) error {
	if q.session != nil {
		notice.path = path
		q.sessions.tell(q.session, notice)
	}
	http.Redirect(q.rw, q.r, path, http.StatusSeeOther)
	return nil
}

// order has an order carried out that the page may give; what it lacks is a mistake of the form.
func (q *webRequest) order(o order) (answer, error) {
	if !slices.Contains(webOrders(), o.Do) {
		return answer{}, fmt.Errorf("the page may not order %q", o.Do)
	}
	a, err := q.Do(o)
	if err != nil {
		return answer{}, &webMistake{key: toldKey(err), told: err.Error()}
	}
	return a, nil
}
