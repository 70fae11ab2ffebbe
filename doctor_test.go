package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// doctorWorld is an internet on loopback, in which all is well: the tests break one thing after the other. Whoever is asked
// and is not in routes makes the test fail.
type doctorWorld struct {
	*testDNS
	t      *testing.T
	facts  *DoctorFacts
	doctor *Doctor
	local  []netip.Addr
	space  diskSpace
	ahead  time.Duration // of the time server
	policy string        // of MTA-STS
	ca     *x509.Certificate

	mu     sync.Mutex
	seen   map[bool]netip.Addr // what STUN tells, by whether IPv6
	routes map[string]string   // "tcp 192.0.2.1:25": the address on loopback, or one of the words below
}

// What a route may be in place of an address.
const (
	routeSilent  = "silent"
	routeRefused = "refused"
	routeNoWay   = "no way"
)

const (
	worldV4 = "198.51.100.7"
	worldV6 = "2001:db8:7::7"
)

// worldZone is the DNS of that world. The records of example.org are the ones that are to be published.
const worldZone = `
	provider.example.      MX 10 mx.provider.example.
	provider.example.      TXT "v=spf1 -all"
	mx.provider.example.   A 192.0.2.11
	second.example.        MX 10 in.mx.second.example.
	in.mx.second.example.  A 192.0.2.12
	stun.example.          A 192.0.2.21
	stun.example.          AAAA 2001:db8:21::1
	time.example.          A 192.0.2.22
	relay.example.         A 192.0.2.31
	elsewhere.example.     A 192.0.2.99
	7.100.51.198.in-addr.arpa. PTR mail.example.org.
	7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR mail.example.org.
	2.0.0.127.list.example. A 127.0.0.2
	2.0.0.127.zen.spamhaus.org. A 127.0.0.2
`

func openDoctorWorld(t *testing.T) *doctorWorld {
	t.Helper()
	v4, v6 := netip.MustParseAddr(worldV4), netip.MustParseAddr(worldV6)
	w := &doctorWorld{t: t, testDNS: startDNS(t, worldZone), local: []netip.Addr{v4, v6}, space: diskSpace{free: 50 << 30, files: 1e6, counts: true},
		seen: map[bool]netip.Addr{false: v4, true: v6}, routes: map[string]string{}}
	w.Timeout = 200 * time.Millisecond
	keys := []DNSRecord{
		{"rsa1._domainkey.example.org", "TXT", "v=DKIM1; k=rsa; p=" + strings.Repeat("MIIBIjAN", 49)},
		{"ed1._domainkey.example.org", "TXT", "v=DKIM1; k=ed25519; p=vZdjKDuEsLMlrk1BSZcnzVAmWi7X39Atqx6z"},
	}
	w.facts = &DoctorFacts{Running: true, Hostname: "mail.example.org", Domains: []DomainFact{{Name: "example.org", DKIM: keys}}, Data: t.TempDir(),
		Ports: []Port{{"smtp", 25, "STARTTLS"}, {"submissions", 465, "from the start"}, {"imaps", 993, "from the start"}}, Visitor: time.Now().Add(-time.Hour)}
	plan := w.facts.Domains[0].plan("mail.example.org", "example.org", w.local)
	w.add(t, plan.Zone())
	w.policy = stsPolicyText("mail.example.org")
	roots := x509.NewCertPool()
	w.doctor = &Doctor{Facts: func() (*DoctorFacts, error) { return w.facts, nil }, Resolver: w.Resolver, Dial: w.dial,
		Local: func() []netip.Addr { return w.local }, Space: func(string) (diskSpace, error) { return w.space, nil }, Roots: roots,
		Fetch: func(context.Context, string, string) ([]byte, error) {
			if w.policy == "" {
				return nil, errors.New("the web server answers 404 Not Found")
			}
			return []byte(w.policy), nil
		},
		places: &outsidePlaces{providers: []string{"provider.example", "second.example"}, port: 25, web: []string{"192.0.2.41:443"},
			stun: []string{"stun.example:3478"}, clocks: []string{"time.example:123"},
			lists: []blockList{{"list.example", "https://list.example/"}, {"zen.spamhaus.org", "https://check.spamhaus.org/"}}}}
	w.routes["tcp 192.0.2.11:25"] = startGreeter(t, "220 mx.provider.example ESMTP")
	w.routes["tcp 192.0.2.12:25"] = startGreeter(t, "220 host7.second.example ready")
	w.routes["tcp 192.0.2.41:443"] = startGreeter(t, "")
	w.routes["tcp 127.0.0.1:25"] = startGreeter(t, "220 mail.example.org ESMTP ours")
	w.routes["tcp "+worldV4+":25"] = w.routes["tcp 127.0.0.1:25"]
	w.routes["udp 192.0.2.21:3478"] = startUDP(t, w.answerSTUN(false))
	w.routes["udp [2001:db8:21::1]:3478"] = startUDP(t, w.answerSTUN(true))
	w.routes["udp 192.0.2.22:123"] = startUDP(t, w.answerTime)
	w.serveTLS(roots)
	return w
}

// serveTLS opens our ports with a certificate that strangers trust.
func (w *doctorWorld) serveTLS(roots *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	der, err := signAuthority(key, "authority", time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	if w.ca, err = x509.ParseCertificate(der); err != nil {
		w.t.Fatal(err)
	}
	pair, _, err := signLeaf(w.ca, key, time.Now(), []string{"mail.example.org"}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	roots.AddCert(w.ca)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*pair}})
	if err != nil {
		w.t.Fatal(err)
	}
	serveConns(w.t, l, func(c net.Conn) { _ = c.(*tls.Conn).Handshake() })
	w.routes["tcp 127.0.0.1:465"], w.routes["tcp 127.0.0.1:993"] = l.Addr().String(), l.Addr().String()
}

// dial is the only way out of that world.
func (w *doctorWorld) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	to, known := w.routes[network+" "+address]
	w.mu.Unlock()
	fails := func(err error) (net.Conn, error) { return nil, &net.OpError{Op: "dial", Net: network, Err: err} }
	switch {
	case !known:
		w.t.Errorf("%s %s is asked", network, address)
		return fails(syscall.ENETUNREACH)
	case to == routeSilent:
		return fails(os.ErrDeadlineExceeded)
	case to == routeNoWay:
		return fails(syscall.ENETUNREACH)
	case to == routeRefused:
		return fails(syscall.ECONNREFUSED)
	}
	return new(net.Dialer).DialContext(ctx, network, to)
}

// route changes where connections lead; what begins like key is meant.
func (w *doctorWorld) route(key, to string) {
	for k := range w.routes {
		if strings.HasPrefix(k, key) {
			w.routes[k] = to
		}
	}
}

// setAhead sets the time server's clock.
func (w *doctorWorld) setAhead(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead = d
}

// unseen keeps STUN from telling an address.
func (w *doctorWorld) unseen(v6 bool) {
	key := "udp 192.0.2.21"
	if v6 {
		key = "udp [2001"
	}
	w.route(key, routeNoWay)
}

// replace takes a name's records out of the DNS and puts others in.
func (w *doctorWorld) replace(name, zone string) {
	w.set(func(s *testDNS) { delete(s.records, name+".") })
	w.add(w.t, zone)
}

func (w *doctorWorld) breakNames(names ...string) {
	w.set(func(s *testDNS) {
		for _, n := range names {
			s.broken[n+"."] = true
		}
	})
}

// serveConns gives each connection to serve, and closes it then.
func serveConns(t testing.TB, l net.Listener, serve func(net.Conn)) {
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
}

// startGreeter is a server that says one line, or nothing, and hangs up when the client does.
func startGreeter(t testing.TB, line string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveConns(t, l, func(c net.Conn) {
		if line == "" {
			return
		}
		if _, err := io.WriteString(c, line+"\r\n"); err == nil {
			_, _ = io.Copy(io.Discard, c)
		}
	})
	return l.Addr().String()
}

// startUDP is a server that answers each packet, unless the answer is nil.
func startUDP(t testing.TB, answer func(q []byte) []byte) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		q := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(q)
			if err != nil {
				return
			}
			if a := answer(q[:n]); a != nil {
				_, _ = conn.WriteTo(a, from)
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	return conn.LocalAddr().String()
}

// examine does all checks.
func (w *doctorWorld) examine() *Diagnosis {
	w.t.Helper()
	d, err := w.doctor.Examine(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func showFindings(list []Finding) string {
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "%-8s %s %s: %s\n           > %s\n", f.State, f.Name, f.Subject, f.Sentence, f.Do)
	}
	return b.String()
}

// Where all is as it should be, the doctor finds nothing and asks nobody else than it says.
func TestDoctorFindsNothing(t *testing.T) {
	w := openDoctorWorld(t)
	d := w.examine()
	var names []string
	for _, f := range d.Findings {
		if f.State != StateOK || f.Do != "" {
			t.Errorf("%+v", f)
		}
		names = append(names, f.Name)
	}
	want := "network outbound inbound nat name ptr ptr lists lists mx spf dkim dkim dmarc mta-sts tls-rpt autoconfig srv certificate clock disk"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("the order is\n%s, not\n%s", got, want)
	}
	if d.Port25 != AnswerYes || d.IPv6 != AnswerYes || !slices.Equal(d.Addresses, w.local) {
		t.Errorf("%+v", d)
	}
	if t.Failed() {
		t.Log(showFindings(d.Findings))
	}
}

// Each check in each state. A case changes the world that is well, and names what is found then.
func TestDoctorChecks(t *testing.T) {
	const (
		silent25  = "tcp 192.0.2.1"
		noDomain  = "there is no domain"
		shortTime = 20 * time.Millisecond
	)
	home := func(w *doctorWorld) { // on a home network, behind a router
		w.facts.Hostname, w.facts.Domains = "raspberrypi.local", []DomainFact{{Name: "raspberrypi.local"}}
		w.local = []netip.Addr{netip.MustParseAddr("192.168.1.20")}
		w.unseen(true)
		w.facts.Visitor = time.Time{}
		w.route("tcp "+worldV4, routeRefused)
	}
	relayed := func(w *doctorWorld) {
		w.facts.Domains[0].Relay = &RelayFact{Host: "relay.example", Port: 587}
		w.routes["tcp 192.0.2.31:587"] = startGreeter(w.t, "220 relay.example ready")
	}
	outside := func(w *doctorWorld) {
		w.facts.Outside = []OutsideFact{{"maria@big.example", &RelayFact{Host: "relay.example", Port: 587}}}
		w.routes["tcp 192.0.2.31:587"] = startGreeter(w.t, "220 relay.example ready")
	}
	unplugged := func(w *doctorWorld) {
		w.Timeout = shortTime
		w.set(func(s *testDNS) { s.silent = true })
		w.route("tcp 192", routeNoWay)
		w.route("udp", routeNoWay)
	}
	txt := func(name, text string) func(w *doctorWorld) {
		return func(w *doctorWorld) { w.replace(name, name+`. TXT "`+text+`"`) }
	}
	without := func(names ...string) func(w *doctorWorld) {
		return func(w *doctorWorld) {
			for _, n := range names {
				w.replace(n, "")
			}
		}
	}
	silentDNS := func(names ...string) func(w *doctorWorld) {
		return func(w *doctorWorld) { w.breakNames(names...) }
	}
	with := func(changes ...func(w *doctorWorld)) func(w *doctorWorld) {
		return func(w *doctorWorld) {
			for _, change := range changes {
				change(w)
			}
		}
	}
	closed := func(how string) func(w *doctorWorld) { return func(w *doctorWorld) { w.route(silent25, how) } }
	greets := func(line string) func(w *doctorWorld) {
		return func(w *doctorWorld) { w.route(silent25, startGreeter(w.t, line)) }
	}
	for _, c := range []struct {
		change  func(w *doctorWorld)
		name    string // of the finding
		state   FindingState
		says    string // a part of sentence and advice
		port25  Answer
		allFine bool // nothing is bad
	}{
		{unplugged, "network", StateWarn, "cannot be reached. Mail between the people here works", AnswerUnknown, true},
		{with(home, unplugged), "network", StateNote, "cannot be reached. Mail between the people here works", AnswerUnknown, true},
		{with(unplugged, func(w *doctorWorld) { w.local = nil }), "network", StateWarn, "no network", AnswerUnknown, true},
		{with(func(w *doctorWorld) { w.route("tcp 192", routeSilent); w.route("udp", routeNoWay) }), "network", StateWarn, "no connection to the outside stands", AnswerUnknown, true},
		{func(w *doctorWorld) {
			w.Timeout = shortTime
			w.set(func(s *testDNS) { s.silent = true })
		}, "network", StateWarn, "nobody resolves its names (DNS)", AnswerUnknown, true},
		{home, "domain", StateNote, "appliance user add NAME@DOMAIN", AnswerYes, true},
		{func(w *doctorWorld) { // a router that gives names of a provider
			w.facts.Hostname, w.facts.Domains = "pi.customer.example.net", []DomainFact{{Name: "pi.customer.example.net"}}
		}, "domain", StateNote, "needs a domain", AnswerYes, true},

		{closed(routeSilent), "outbound", StateBad, "do not answer, as the router or the internet provider drops", AnswerNo, false},
		{closed(routeRefused), "outbound", StateBad, "refuses connections", AnswerNo, false},
		{closed(routeNoWay), "outbound", StateBad, "no way to other mail servers", AnswerNo, false},
		{with(home, closed(routeSilent)), "outbound", StateNote, "appliance relay set HOST USER", AnswerNo, true},
		{with(relayed, closed(routeSilent)), "outbound", StateNote, "drops what goes there", AnswerNo, true},
		{silentDNS("mx.provider.example", "in.mx.second.example"), "outbound", StateUnknown, "could not be found", AnswerUnknown, true},
		{greets("220 smtp.middle.example ready"), "outbound", StateWarn, `but "220 smtp.middle.example ready"`, AnswerYes, true},
		{greets("554 no mail from you"), "outbound", StateWarn, "takes no mail from this address: 554 no mail from you", AnswerYes, true},
		{greets(""), "outbound", StateWarn, "no mail server says a word", AnswerYes, true},
		{func(w *doctorWorld) { w.routes["tcp 192.0.2.11:25"] = routeSilent }, "outbound", StateOK, "can be reached", AnswerYes, true},

		{with(home, outside), "domain", StateOK, "none is needed: people send with addresses at a provider", AnswerYes, true},
		{with(home, outside), "relay", StateOK, "goes out through relay.example:587, which answers", AnswerYes, true},
		{with(home, outside, func(w *doctorWorld) { w.routes["tcp 192.0.2.31:587"] = routeRefused }), "relay", StateBad, "refuses connections", AnswerYes, false},
		{with(home, outside, closed(routeSilent)), "outbound", StateNote, "drops what goes there", AnswerNo, true},
		{with(home, outside, func(w *doctorWorld) {
			w.facts.Outside = append(w.facts.Outside, OutsideFact{Address: "bob@big.example"}, OutsideFact{Address: "bob@big.example"})
		}), "sender", StateWarn, "Mail from bob@big.example goes out directly. Others refuse it, as it does not come from the server of its provider. " +
			"Let the provider's server for outgoing mail send it: appliance relay set HOST bob@big.example --for bob@big.example", AnswerYes, true},
		{func(w *doctorWorld) {
			for i := range 7 {
				w.facts.Outside = append(w.facts.Outside, OutsideFact{Address: fmt.Sprintf("bob%d@big.example", i)})
			}
		}, "sender", StateWarn, "bob4@big.example and 2 more goes out", AnswerYes, true},
		{relayed, "relay", StateOK, "goes out through relay.example:587, which answers", AnswerYes, true},
		{with(relayed, func(w *doctorWorld) { w.routes["tcp 192.0.2.31:587"] = routeRefused }), "relay", StateBad, "refuses connections", AnswerYes, false},
		{with(relayed, func(w *doctorWorld) { w.routes["tcp 192.0.2.31:587"] = startGreeter(w.t, "") }), "relay", StateBad, "does not greet", AnswerYes, false},
		{func(w *doctorWorld) {
			w.facts.Domains[0].Relay = &RelayFact{Host: "relay.example", Port: 465, Implicit: true}
			w.routes["tcp 192.0.2.31:465"] = w.routes["tcp 127.0.0.1:465"]
		}, "relay", StateBad, "certificate is for another name", AnswerYes, false},
		{with(relayed, func(w *doctorWorld) {
			w.route("tcp 192", routeSilent)
			w.route("udp", routeNoWay)
		}), "relay", StateUnknown, "did not answer in time", AnswerUnknown, true},

		{func(w *doctorWorld) { w.facts.Running = false }, "inbound", StateUnknown, "does not run", AnswerYes, true},
		{func(w *doctorWorld) { w.facts.Listen = "127.0.0.1" }, "inbound", StateBad, "listens on 127.0.0.1 alone", AnswerYes, false},
		{func(w *doctorWorld) { w.facts.Visitor = time.Time{} }, "inbound", StateUnknown, "Open port 25 in the firewall", AnswerYes, true},
		{func(w *doctorWorld) {
			w.facts.Visitor, w.facts.Ports[0].Number = time.Time{}, 1025
			w.routes["tcp 127.0.0.1:1025"] = w.routes["tcp 127.0.0.1:25"]
		}, "inbound", StateUnknown, "listens on port 1025, and others come to port 25", AnswerYes, true},
		{home, "inbound", StateUnknown, "Forward port 25 in the router to port 25 of 192.168.1.20", AnswerYes, true},
		{with(home, func(w *doctorWorld) { w.routes["tcp "+worldV4+":25"] = w.routes["tcp 127.0.0.1:25"] }), "inbound", StateOK, "The router passes port 25 on", AnswerYes, true},
		{func(w *doctorWorld) {
			w.facts.Visitor = time.Time{}
			w.routes["tcp "+worldV4+":25"] = startGreeter(w.t, "220 other ready")
		}, "inbound", StateWarn, "another server answers on port 25: 220 other ready", AnswerYes, true},
		{func(w *doctorWorld) {
			w.unseen(false)
			w.facts.Visitor, w.local = time.Time{}, w.local[1:]
		}, "inbound", StateUnknown, "public IPv4 address is not known", AnswerYes, true},

		{home, "nat", StateNote, "behind a router, which the internet sees as " + worldV4, AnswerYes, true},
		{func(w *doctorWorld) { w.local = []netip.Addr{netip.MustParseAddr("100.72.3.4")} }, "nat", StateWarn, "CGNAT", AnswerYes, true},
		{with(home, func(w *doctorWorld) { w.local = []netip.Addr{netip.MustParseAddr("100.72.3.4")} }), "nat", StateNote, "CGNAT", AnswerYes, true},
		{func(w *doctorWorld) { w.unseen(false); w.local = w.local[1:] }, "nat", StateUnknown, "could not be found out", AnswerYes, true},

		{func(w *doctorWorld) { w.facts.Hostname = "raspberrypi.local" }, "name raspberrypi.local", StateWarn, `hostname = "mail.example.org"`, AnswerYes, true},
		{without("mail.example.org"), "name", StateBad, "has no address", AnswerYes, false},
		{with(without("mail.example.org"), func(w *doctorWorld) { w.add(w.t, "mail.example.org. A 192.0.2.99") }), "name", StateWarn, "dynamic DNS", AnswerYes, false},
		{with(without("mail.example.org"), func(w *doctorWorld) { w.add(w.t, "mail.example.org. A 192.0.2.99") }), "ptr " + worldV4, StateBad, "Publish " + worldV4 + " as an address of mail.example.org", AnswerYes, false},
		{without("7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"), "ptr " + worldV6, StateNote, "mail is sent by IPv4 alone", AnswerYes, true},
		{silentDNS("mail.example.org"), "name", StateUnknown, "does not tell the address", AnswerYes, true},
		{func(w *doctorWorld) {
			w.unseen(false)
			w.unseen(true)
			w.local = []netip.Addr{netip.MustParseAddr("192.168.1.20")}
		}, "name", StateUnknown, "Whether that is this machine cannot be told", AnswerYes, true},

		{without("7.100.51.198.in-addr.arpa"), "ptr " + worldV4, StateBad, "has no name (PTR)", AnswerYes, false},
		{with(relayed, without("7.100.51.198.in-addr.arpa")), "ptr " + worldV4, StateNote, "has no name (PTR)", AnswerYes, true},
		{with(without("7.100.51.198.in-addr.arpa"), func(w *doctorWorld) { w.add(w.t, "7.100.51.198.in-addr.arpa. PTR elsewhere.example.") }), "ptr " + worldV4, StateBad, "does not lead back", AnswerYes, false},
		{with(without("7.100.51.198.in-addr.arpa"), func(w *doctorWorld) {
			w.add(w.t, "7.100.51.198.in-addr.arpa. PTR line7.provider.example.\nline7.provider.example. A "+worldV4)
		}), "ptr " + worldV4, StateWarn, "is called line7.provider.example and not mail.example.org", AnswerYes, true},
		{silentDNS("7.100.51.198.in-addr.arpa"), "ptr " + worldV4, StateUnknown, "does not tell the reverse name", AnswerYes, true},

		{func(w *doctorWorld) { w.add(w.t, "7.100.51.198.list.example. A 127.0.0.2") }, "lists " + worldV4, StateBad, "on the block list list.example", AnswerYes, false},
		{with(relayed, func(w *doctorWorld) { w.add(w.t, "7.100.51.198.list.example. A 127.0.0.2") }), "lists " + worldV4, StateNote, "https://list.example/", AnswerYes, true},
		{func(w *doctorWorld) { w.add(w.t, "7.100.51.198.zen.spamhaus.org. A 127.0.0.10") }, "lists " + worldV4, StateWarn, "lines at home", AnswerYes, true},
		{func(w *doctorWorld) {
			w.add(w.t, "7.100.51.198.list.example. A 127.0.0.2\n1.0.0.127.list.example. A 127.0.0.2") // dead: holds all
		}, "lists " + worldV4, StateOK, "not on the block lists zen.spamhaus.org", AnswerYes, true},
		{with(without("2.0.0.127.list.example"), func(w *doctorWorld) { w.add(w.t, "7.100.51.198.zen.spamhaus.org. A 127.255.255.254") }), "lists " + worldV4, StateUnknown, "the lists do not answer", AnswerYes, true},

		{without("example.org"), "mx", StateBad, "nobody outside can write", AnswerYes, false},
		{func(w *doctorWorld) { w.replace("example.org", "example.org. A "+worldV4) }, "mx", StateWarn, "because its address is that of this machine", AnswerYes, true},
		{func(w *doctorWorld) { w.replace("example.org", "example.org. A 192.0.2.99") }, "mx", StateBad, "goes to 192.0.2.99", AnswerYes, false},
		{func(w *doctorWorld) { w.replace("example.org", "example.org. MX 0 .") }, "mx", StateBad, "null MX", AnswerYes, false},
		{func(w *doctorWorld) { w.replace("example.org", "example.org. MX 5 elsewhere.example.") }, "mx", StateWarn, "goes to elsewhere.example and not", AnswerYes, true},
		{func(w *doctorWorld) { w.add(w.t, "example.org. MX 5 elsewhere.example.") }, "mx", StateNote, "goes to elsewhere.example first", AnswerYes, true},
		{func(w *doctorWorld) {
			w.replace("example.org", "example.org. MX 5 other.example.org.\nother.example.org. A "+worldV4)
		}, "mx", StateOK, "comes to other.example.org", AnswerYes, true},
		{silentDNS("example.org"), "mx", StateUnknown, "does not tell", AnswerYes, true},

		{without("example.org"), "spf", StateWarn, "does not say which servers send its mail", AnswerYes, false},
		{txt("example.org", "v=spf1 -all"), "spf", StateBad, "forbids " + worldV4, AnswerYes, false},
		{txt("example.org", "v=spf1 ip4:"+worldV4+" -all"), "spf", StateBad, "forbids " + worldV6, AnswerYes, false},
		{txt("example.org", "v=spf1 ~all"), "spf", StateWarn, "does not name " + worldV4, AnswerYes, false},
		{txt("example.org", "v=spf1 ?all"), "spf", StateWarn, "does not name " + worldV4, AnswerYes, false},
		{txt("example.org", "v=spf1 +all"), "spf", StateWarn, "every server in the world", AnswerYes, false},
		{txt("example.org", "v=spf1 frob -all"), "spf", StateBad, "has a mistake", AnswerYes, false},
		{func(w *doctorWorld) { w.add(w.t, `example.org. TXT "v=spf1 -all"`) }, "spf", StateBad, "has 2 SPF records", AnswerYes, false},
		{silentDNS("example.org"), "spf", StateUnknown, "does not tell", AnswerYes, true},
		{txt("example.org", "v=spf1 include:broken.example -all"), "spf", StateBad, "has a mistake", AnswerYes, false},
		{with(txt("example.org", "v=spf1 include:broken.example -all"), silentDNS("broken.example")), "spf", StateUnknown, "does not tell", AnswerYes, false},
		{relayed, "spf", StateNote, "does not speak of relay.example", AnswerYes, true},
		{with(relayed, txt("example.org", "v=spf1 include:provider.example ~all")), "spf", StateOK, "also others than this machine", AnswerYes, false},
		{func(w *doctorWorld) {
			w.unseen(false)
			w.unseen(true)
			w.local = nil
		}, "spf", StateUnknown, "public address is not known", AnswerYes, true},

		{without("rsa1._domainkey.example.org"), "dkim rsa1._domainkey.example.org", StateWarn, "is not published", AnswerYes, true},
		{without("ed1._domainkey.example.org"), "dkim ed1._domainkey.example.org", StateNote, "Few servers use it", AnswerYes, true},
		{txt("rsa1._domainkey.example.org", "v=DKIM1; k=rsa; p=AAAA"), "dkim rsa1._domainkey.example.org", StateBad, "not the key of this appliance", AnswerYes, false},
		{txt("ed1._domainkey.example.org", "v=DKIM1; p="), "dkim ed1._domainkey.example.org", StateBad, "not the key of this appliance", AnswerYes, false},
		{silentDNS("rsa1._domainkey.example.org"), "dkim rsa1._domainkey.example.org", StateUnknown, "does not tell", AnswerYes, true},

		{without("_dmarc.example.org"), "dmarc", StateWarn, "no valid DMARC record", AnswerYes, true},
		{txt("_dmarc.example.org", "v=DMARC1; p=none"), "dmarc", StateNote, "p=none", AnswerYes, true},
		{txt("_dmarc.example.org", "v=DMARC1; p=reject"), "dmarc", StateOK, "asks others to reject", AnswerYes, true},
		{txt("_dmarc.example.org", "v=DMARC1"), "dmarc", StateWarn, "no valid DMARC record", AnswerYes, true},
		{silentDNS("_dmarc.example.org"), "dmarc", StateUnknown, "does not tell", AnswerYes, true},

		{without("_mta-sts.example.org"), "mta-sts", StateNote, "does not ask others to bring its mail under TLS alone", AnswerYes, true},
		{txt("_mta-sts.example.org", "v=STSv1"), "mta-sts", StateWarn, "has a mistake", AnswerYes, true},
		{func(w *doctorWorld) { w.policy = "" }, "mta-sts", StateWarn, "404 Not Found", AnswerYes, true},
		{func(w *doctorWorld) { w.policy = "hello" }, "mta-sts", StateWarn, "do not count", AnswerYes, true},
		{func(w *doctorWorld) { w.policy = stsPolicyText("mx.elsewhere.example") }, "mta-sts", StateBad, "Add a line mx: mail.example.org", AnswerYes, false},
		{silentDNS("_mta-sts.example.org"), "mta-sts", StateUnknown, "does not tell", AnswerYes, true},

		{without("_smtp._tls.example.org"), "tls-rpt", StateNote, "does not ask for reports", AnswerYes, true},
		{txt("_smtp._tls.example.org", "v=TLSRPTv1"), "tls-rpt", StateWarn, "has a mistake", AnswerYes, true},
		{silentDNS("_smtp._tls.example.org"), "tls-rpt", StateUnknown, "does not tell", AnswerYes, true},

		{without("autoconfig.example.org"), "autoconfig", StateNote, "does not exist", AnswerYes, true},
		{func(w *doctorWorld) {
			w.replace("autoconfig.example.org", "autoconfig.example.org. A 192.0.2.99")
		}, "autoconfig", StateWarn, "leads to 192.0.2.99", AnswerYes, true},
		{silentDNS("autoconfig.example.org"), "autoconfig", StateUnknown, "does not tell", AnswerYes, true},

		{without("_imaps._tcp.example.org"), "srv", StateNote, "lacks the SRV records _imaps._tcp,", AnswerYes, true},
		{without("_imaps._tcp.example.org", "_submissions._tcp.example.org", "_submission._tcp.example.org", "_pop3s._tcp.example.org", "_autodiscover._tcp.example.org"), "srv", StateNote, "has no SRV records", AnswerYes, true},
		{func(w *doctorWorld) {
			w.replace("_imaps._tcp.example.org", "_imaps._tcp.example.org. SRV 0 1 993 elsewhere.example.")
			w.replace("_pop3s._tcp.example.org", "_pop3s._tcp.example.org. SRV 0 1 110 mail.example.org.")
		}, "srv", StateWarn, "_imaps._tcp and _pop3s._tcp of example.org lead elsewhere", AnswerYes, true},
		{silentDNS("_imaps._tcp.example.org"), "srv", StateUnknown, "does not tell", AnswerYes, true},

		{func(w *doctorWorld) { w.facts.Running = false }, "certificate", StateUnknown, "does not run", AnswerYes, true},
		{func(w *doctorWorld) { w.routes["tcp 127.0.0.1:993"] = routeRefused }, "certificate", StateBad, "Port 993 (imaps) of this machine shows no certificate", AnswerYes, false},
		{func(w *doctorWorld) { w.doctor.Roots = x509.NewCertPool() }, "certificate", StateNote, "this machine's own authority", AnswerYes, true},
		{func(w *doctorWorld) { w.doctor.Now = after(leafLife + time.Hour) }, "certificate", StateBad, "has run out", AnswerYes, false},
		{func(w *doctorWorld) { w.doctor.Now = after(leafLife - 24*time.Hour) }, "certificate", StateWarn, "has not been renewed", AnswerYes, false},
		{func(w *doctorWorld) { w.doctor.Now = after(-3 * 24 * time.Hour) }, "certificate", StateBad, "begins on", AnswerYes, false},
		{func(w *doctorWorld) { w.facts.Hostname = "pi.example.org" }, "certificate", StateWarn, "not for the name pi.example.org", AnswerYes, false},

		{func(w *doctorWorld) { w.setAhead(5 * time.Minute) }, "clock", StateWarn, "is 5 minutes behind", AnswerYes, true},
		{func(w *doctorWorld) { w.setAhead(-50 * time.Hour) }, "clock", StateBad, "is 2 days ahead", AnswerYes, false},
		{func(w *doctorWorld) { w.routes["udp 192.0.2.22:123"] = routeNoWay }, "clock", StateUnknown, "no time server answers", AnswerYes, true},

		{func(w *doctorWorld) { w.space.free = 500 << 20 }, "disk", StateWarn, "nearly full", AnswerYes, true},
		{func(w *doctorWorld) { w.space.free = 50 << 20 }, "disk", StateBad, "mail is refused", AnswerYes, false},
		{func(w *doctorWorld) { w.space.files = 5000 }, "disk", StateWarn, "only 5000 more files", AnswerYes, true},
		{func(w *doctorWorld) { w.space.files = 5 }, "disk", StateBad, "hardly any more files", AnswerYes, false},
		{func(w *doctorWorld) { w.space = diskSpace{free: 9 << 30} }, "disk", StateOK, "room for mail: 9G", AnswerYes, true},
		{func(w *doctorWorld) {
			w.doctor.Space = func(string) (diskSpace, error) { return diskSpace{}, errors.New("no such thing") }
		}, "disk", StateUnknown, "cannot be told: no such thing", AnswerYes, true},
	} {
		t.Run(c.name+" "+string(c.state)+" "+c.says, func(t *testing.T) {
			t.Parallel()
			w := openDoctorWorld(t)
			c.change(w)
			d := w.examine()
			name, subject, _ := strings.Cut(c.name, " ")
			at := slices.IndexFunc(d.Findings, func(f Finding) bool { return f.Name == name && (subject == "" || f.Subject == subject) })
			if at < 0 {
				t.Fatalf("no finding:\n%s", showFindings(d.Findings))
			}
			f := d.Findings[at]
			if f.State != c.state || !strings.Contains(f.Sentence+" "+f.Do, c.says) {
				t.Errorf("found %+v", f)
			}
			if d.Port25 != c.port25 {
				t.Errorf("port 25: %q", d.Port25)
			}
			if fine := d.count(StateBad) == 0; fine != c.allFine {
				t.Errorf("fine is %v:\n%s", fine, showFindings(d.Findings))
			}
		})
	}
}

// after is a clock that is ahead.
func after(d time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(d) }
}

// Only who comes from the internet to the port of other servers shows that the way in is open.
func TestVisitor(t *testing.T) {
	var from atomic.Value
	p := &Protocols{wrapConn: func(c net.Conn) net.Conn {
		return elsewhere{c, &net.TCPAddr{IP: net.ParseIP(from.Load().(string)), Port: 4321}}
	}}
	s := transcriptServer(t, p)
	for _, visit := range []struct {
		from, port string
		counts     bool
	}{
		{"127.0.0.1", "smtp", false}, {"192.168.1.9", "smtp", false}, {"2001:db8::1", "smtp", false}, {"198.51.100.9", "submission", false},
		{"198.51.100.9", "smtp", true},
	} {
		from.Store(visit.from)
		c := s.raw(t, visit.port)
		c.expect("220 ")
		c.Close()
		if got := !p.Visitor().IsZero(); got != visit.counts {
			t.Errorf("%+v: %v", visit, p.Visitor())
		}
	}
}

// The system tells what is free; the figures of each file system are its own.
func TestFreeSpace(t *testing.T) {
	s, err := freeSpace(t.TempDir())
	if err != nil || s.free <= 0 || s.counts && s.files <= 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := freeSpace(t.TempDir() + "/none"); err == nil {
		t.Error("a folder that is not there has room")
	}
}

// Without facts there is nothing to look at, and nothing is made up.
func TestDoctorWithoutFacts(t *testing.T) {
	w := openDoctorWorld(t)
	w.doctor.Facts = func() (*DoctorFacts, error) { return nil, errors.New("no accounts") }
	if found, err := w.doctor.Examine(context.Background()); err == nil || found != nil {
		t.Errorf("%v, %v", found, err)
	}
}

// Very many domains take no more time than some do.
func TestDoctorManyDomains(t *testing.T) {
	w := openDoctorWorld(t)
	for i := range 100 {
		w.facts.Domains = append([]DomainFact{{Name: fmt.Sprintf("d%d.lan", i)}}, w.facts.Domains...)
	}
	for i := range 200 {
		w.facts.Domains = append(w.facts.Domains, DomainFact{Name: fmt.Sprintf("d%d.example.org", i)})
	}
	diagnosis, err := w.doctor.Examine(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	domains := map[string]bool{}
	for _, f := range diagnosis.Findings {
		if f.Name == "mx" {
			domains[f.Subject] = true
		}
	}
	if len(domains) != doctorDomains || !domains["example.org"] {
		t.Errorf("%d domains", len(domains))
	}
}
