package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The ports 80 and 443: what authorities look at before they give a certificate (RFC 8555 §8.3, RFC 8737), the rules for mail
// under TLS (RFC 8461 §3.3), and Handler, for all that is to come. Mail does not depend on them: one that another program has, as
// on most NAS, becomes 8080 or 8443, to which a router can let the usual one lead; one that is not to be had is said in the log.

const (
	webHeader      = 16 << 10         // bytes of a request's header
	webReadHeader  = 10 * time.Second // until a request's header is there
	webRead        = 30 * time.Second // until a request is there
	webWrite       = time.Minute      // until an answer is taken
	webIdle        = time.Minute      // between two requests
	webShutdown    = 3 * time.Second  // for requests that run when all ends
	webPortShift   = 8000             // added to a port that another program has
	policyPath     = "/.well-known/mta-sts.txt"
	policyHostPart = "mta-sts."
)

// WebPorts serves HTTP and HTTPS. The exported fields are set before Open and not changed after; Listen and
// Offset before Bind.
type WebPorts struct {
	Certificates *Certificates
	// Policy gives the rules for mail to a domain under TLS; "": it has none, or is not ours.
	Policy func(domain string) string
	// Handler answers all else; a request over HTTP alone has no TLS field. Nil: nothing is found.
	Handler http.Handler
	Listen  string // "" all addresses, else one address
	Offset  int    // added to each port
	Log     *slog.Logger

	plain, secure *webServer // nil before Bind
	running       sync.WaitGroup
}

// webServer is one of the ports that is wanted.
type webServer struct {
	http.Server
	name, address string
	listener      net.Listener // nil: it is not to be had
	problem       error        // why not, or why it is another than the usual one
}

// Bind binds the ports as far as they are to be had. It comes before Open where the process gives up the right to bind them in
// between, and needs no fields but Listen and Offset.
func (w *WebPorts) Bind() {
	w.plain, w.secure = w.bind(80, "http"), w.bind(443, "https")
}

func (w *WebPorts) bind(number int, name string) *webServer {
	at := func(n int) string { return net.JoinHostPort(w.Listen, strconv.Itoa(n+w.Offset)) }
	s := &webServer{name: name, address: at(number)}
	s.listener, s.problem = listenTCP(s.address)
	if number += webPortShift; isInUse(s.problem) && number+w.Offset <= math.MaxUint16 {
		s.listener, _ = listenTCP(at(number)) // nil where that is taken, too
	}
	return s
}

// Open makes the ports ready that Bind has bound, or binds them, and reports those that are to be had.
func (w *WebPorts) Open() (ports []Port) {
	if w.plain == nil {
		w.Bind()
	}
	if w.open(w.plain, nil) {
		ports = append(ports, Port{Name: w.plain.name, Number: w.plain.number(), TLS: "none"})
	}
	if w.open(w.secure, w.Certificates.WebConfig()) {
		ports = append(ports, Port{Name: w.secure.name, Number: w.secure.number(), TLS: "from the start"})
	}
	return ports
}

// open makes one port ready, and says whether it is to be had.
func (w *WebPorts) open(s *webServer, config *tls.Config) bool {
	if s.listener == nil {
		w.Log.Warn("the port cannot be opened; mail does not need it, a certificate from an authority needs port 80 or 443", "protocol", s.name, "address", s.address, "err", s.problem)
		return false
	}
	if s.problem != nil {
		w.Log.Warn("another program has the port, so that ours is another one; a certificate from an authority needs the router to let port 80 or 443 lead to it",
			"protocol", s.name, "address", s.address, "port", s.number())
	}
	w.Log.Info("listening", "protocol", s.name, "address", s.listener.Addr().String())
	var protocols http.Protocols
	protocols.SetHTTP1(true) // pages of so few files are none the slower for it, and a release has no HTTP/2 (scripts/release)
	s.Server = http.Server{
		Protocols: &protocols,
		Handler:   w, TLSConfig: config, MaxHeaderBytes: webHeader,
		ReadHeaderTimeout: webReadHeader, ReadTimeout: webRead, WriteTimeout: webWrite, IdleTimeout: webIdle,
		ErrorLog: slog.NewLogLogger(w.Log.Handler(), slog.LevelDebug),
	}
	return true
}

func (s *webServer) number() int {
	if s == nil || s.listener == nil {
		return 0
	}
	return s.listener.Addr().(*net.TCPAddr).Port
}

// Numbers gives the ports as bound, 0 for one that is not open.
func (w *WebPorts) Numbers() (plain, secure int) { return w.plain.number(), w.secure.number() }

// Serve serves the ports that Open bound until ctx ends.
func (w *WebPorts) Serve(ctx context.Context) {
	if s := w.plain; s.number() != 0 {
		w.running.Go(func() { w.ended(s.name, s.Serve(newWebGate(s.listener, s.name, true, w.Log))) })
	}
	if s := w.secure; s.number() != 0 {
		w.running.Go(func() { w.ended(s.name, s.ServeTLS(newWebGate(s.listener, s.name, false, w.Log), "", "")) })
	}
	<-ctx.Done()
	w.Close()
	w.running.Wait()
}

func (w *WebPorts) ended(name string, err error) {
	if !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		w.Log.Error("a port is not served any more", "protocol", name, "err", err)
	}
}

// Close closes the ports and ends what is served, at once what has only been opened.
func (w *WebPorts) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), webShutdown)
	defer cancel()
	for _, s := range []*webServer{w.plain, w.secure} {
		if s.number() == 0 {
			continue
		}
		_ = s.listener.Close() // it may not be served yet
		if s.Shutdown(ctx) != nil {
			_ = s.Server.Close()
		}
	}
}

// ServeHTTP answers a request to one of the ports.
func (w *WebPorts) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	host := hostOfRequest(r)
	if r.TLS == nil {
		w.Certificates.Visited(host)
		if w.Certificates.AnswerChallenge(rw, r) {
			return
		}
	} else if domain, ok := strings.CutPrefix(host, policyHostPart); ok && r.URL.Path == policyPath {
		w.servePolicy(rw, r, domain)
		return
	}
	if w.Handler != nil {
		w.Handler.ServeHTTP(rw, r)
		return
	}
	http.Error(rw, "This is a mail server. There is no page here.", http.StatusNotFound)
}

func (w *WebPorts) servePolicy(rw http.ResponseWriter, r *http.Request, domain string) {
	text := ""
	if w.Policy != nil {
		text = w.Policy(domain)
	}
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		rw.Header().Set("Allow", "GET, HEAD")
		http.Error(rw, "The rules can only be read.", http.StatusMethodNotAllowed)
	case text == "":
		http.Error(rw, "There are no rules for mail under TLS for this domain here.", http.StatusNotFound)
	default:
		rw.Header().Set("Content-Type", "text/plain") // RFC 8461 §3.2
		_, _ = rw.Write([]byte(text))                 // the client's loss
	}
}

// hostOfRequest gives the host that a request is for, without a port and in lower case.
func hostOfRequest(r *http.Request) string {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
