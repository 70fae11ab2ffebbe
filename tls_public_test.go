package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// testIssuer gives certificates without a network. It is a certmagic.Issuer.
type testIssuer struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate

	mu    sync.Mutex
	err   error    // in the place of a certificate
	asked []string // names
}

func newTestIssuer(t testing.TB) *testIssuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := signAuthority(key, "elsewhere.test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &testIssuer{key: key, cert: cert}
}

func (a *testIssuer) IssuerKey() string { return "test" }

// Issue gives a certificate for 90 days, or says what err is.
func (a *testIssuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, csr.DNSNames...)
	if a.err != nil {
		if list, ok := ctx.Value(refusalsKey{}).(*[]refusal); ok {
			*list = append(*list, refusal{"Test CA", a.err})
		}
		return nil, a.err
	}
	text, err := a.sign(csr.PublicKey, &x509.Certificate{DNSNames: csr.DNSNames})
	return &certmagic.IssuedCertificate{Certificate: text}, err
}

// sign gives a certificate with its chain in PEM; what the template leaves open is filled in.
func (a *testIssuer) sign(public any, template *x509.Certificate) ([]byte, error) {
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: "test"}
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(90*24*time.Hour)
	}
	if template.ExtKeyUsage == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})...), nil
}

func (a *testIssuer) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

func (a *testIssuer) tries() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.asked)
}

// acmeTest is a Certificates with a clock, a DNS and an authority of the test's.
type acmeTest struct {
	*Certificates
	t         *testing.T
	dir       string
	dns       *testDNS
	authority *testIssuer
	wanted    []string
	outside   []netip.Addr
	ask       func(context.Context) []netip.Addr
	own       OwnFiles
	now       time.Time
	log       *lockedBuffer
}

// newACMETest opens one that wants names of mail.example.org, whose address as others see it is 192.0.2.1.
func newACMETest(t *testing.T) *acmeTest {
	w := &acmeTest{t: t, dir: filepath.Join(t.TempDir(), "tls"), dns: startDNS(t, ""), authority: newTestIssuer(t), log: &lockedBuffer{},
		wanted: []string{"mail.example.org", "autoconfig.example.org"}, outside: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, now: time.Now()}
	w.open()
	return w
}

func (w *acmeTest) open() {
	w.t.Helper()
	certs, err := OpenCertificates(CertificatesConfig{
		Dir: w.dir, Names: []string{"pi.home.lan"}, Now: func() time.Time { return w.now }, Own: w.own,
		Addresses: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.168.1.5")} },
		Log:       slog.New(slog.NewTextHandler(w.log, nil)),
		Public: PublicConfig{
			Wanted: func() []string { return slices.Clone(w.wanted) }, Resolver: w.dns.Resolver, Outside: func() []netip.Addr { return w.outside }, Ask: w.ask,
			issuers: func(*certmagic.Config) []certmagic.Issuer { return []certmagic.Issuer{w.authority} },
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Certificates = certs
	w.UsePorts(2525, 8080, 8443)
	w.t.Cleanup(certs.Close)
}

// step does what is due, and lets the clock go on to what comes next. It gives how long that was.
func (w *acmeTest) step() time.Duration {
	w.public.look(w.t.Context())
	w.public.jobs.Wait()
	pause := w.public.look(w.t.Context())
	w.public.jobs.Wait()
	w.now = w.now.Add(pause)
	return pause
}

// served gives whose certificate somebody gets who asks for a name.
func (w *acmeTest) served(hello *tls.ClientHelloInfo) CertificateKind {
	w.t.Helper()
	cert, err := w.certificate(hello)
	if err != nil {
		w.t.Fatal(err)
	}
	own := w.Certificates.own.current()
	switch {
	case cert == w.local():
		return CertificateLocal
	case own != nil && bytes.Equal(cert.Certificate[0], own.Certificate[0]):
		return CertificateOwn
	}
	return CertificatePublic
}

func (w *acmeTest) state(name string) CertificateState {
	for _, s := range w.State() {
		if s.Name == name {
			return s
		}
	}
	w.t.Fatalf("no state of %s", name)
	return CertificateState{}
}

func TestWantedNames(t *testing.T) {
	for _, test := range []struct {
		host            string
		chosen, exposed bool
		private         bool
		domains         string
		want            string
		firstHost       string
	}{
		{host: "raspberrypi.local", domains: "raspberrypi.local"},
		{host: "pi.home.lan", chosen: true, domains: "home.lan"},
		{host: "pi", chosen: true, domains: "pi"},
		{host: "pi.home.arpa", chosen: true, domains: "home.arpa nas.internal x.test localhost onion a.onion"},
		{host: "pi.fritz.box", domains: "pi.fritz.box", exposed: true},
		// Nobody has chosen this name; at home nobody is asked about it.
		{host: "pc7.example.org", domains: "pc7.example.org"},
		{host: "vps.example.org", domains: "vps.example.org", exposed: true,
			want: "vps.example.org mail.vps.example.org mta-sts.vps.example.org autoconfig.vps.example.org"},
		{host: "mail.example.org", chosen: true, domains: "example.org",
			want: "mail.example.org mta-sts.example.org autoconfig.example.org"},
		{host: "pi.local", domains: "example.org pi.local",
			want: "mail.example.org mta-sts.example.org autoconfig.example.org"},
		{host: "mx.example.org", chosen: true, domains: "example.org bücher.example",
			want: "mx.example.org mail.example.org mta-sts.example.org autoconfig.example.org mail.xn--bcher-kva.example mta-sts.xn--bcher-kva.example autoconfig.xn--bcher-kva.example", private: true},
		{host: "ca.home.lan", chosen: true, private: true, domains: "home.lan x.local",
			want: "ca.home.lan mail.home.lan mta-sts.home.lan autoconfig.home.lan"},
		{host: "a_b.example.org", chosen: true, domains: "x"},
	} {
		n := &HostNames{Host: test.host, Chosen: test.chosen, Exposed: test.exposed, Private: test.private, Domains: func() []string { return strings.Fields(test.domains) }}
		if got := strings.Join(n.Wanted(), " "); got != test.want {
			t.Errorf("%s with %s:\ngot  %s\nwant %s", test.host, test.domains, got, test.want)
		}
	}
	many := &HostNames{Host: "mail.example.org", Chosen: true, Domains: func() (all []string) {
		for i := range 100 {
			all = append(all, "d"+string(rune('a'+i%26))+string(rune('a'+i/26))+".example.org")
		}
		return all
	}}
	if got := many.Wanted(); len(got) != maxPublicNames || got[0] != "mail.example.org" {
		t.Errorf("of many domains: %d names", len(got))
	}
}

// At home nothing is asked of any network, and nothing runs.
func TestNoNameNoQuestion(t *testing.T) {
	w := newACMETest(t)
	w.wanted = nil
	before := runtime.NumGoroutine()
	if pause := w.step(); pause != lookRarely {
		t.Errorf("looks again after %s", pause)
	}
	if now := runtime.NumGoroutine(); now > before || w.public.magic != nil {
		t.Errorf("%d goroutines, before %d", now, before)
	}
	if len(w.dns.asked) > 0 || w.authority.tries() > 0 {
		t.Errorf("asked: %q, %d tries", w.dns.asked, w.authority.tries())
	}
	if _, err := os.Stat(filepath.Join(w.dir, "acme")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("there is a folder for what was never got")
	}
}

func TestNameBeginsToLeadHere(t *testing.T) {
	w := newACMETest(t)
	var asked int
	for begin := w.now; w.now.Sub(begin) < 4*24*time.Hour; asked++ {
		pause, waited := w.step(), w.now.Sub(begin)
		if want := w.public.names["mail.example.org"]; pause > lookRarely || waited < 9*time.Minute && pause > lookSoon {
			t.Fatalf("after %s the next look is in %s: %+v", waited, pause, want)
		}
	}
	if asked > 450 || w.authority.tries() > 0 || w.public.magic != nil {
		t.Errorf("in four days %d looks, %d tries", asked, w.authority.tries())
	}
	if n := strings.Count(w.log.String(), "as soon as the name leads here"); n != 1 {
		t.Errorf("said %d times:\n%s", n, w.log.String())
	}
	w.dns.add(t, "mail.example.org. A 203.0.113.7")
	w.step()
	if s := w.state("mail.example.org"); s.Kind != CertificateLocal || !strings.Contains(s.Error, "leads to 203.0.113.7, which is not known to be this machine") || s.Retry.IsZero() {
		t.Errorf("leads elsewhere: %+v", s)
	}
	// What a visitor asks for may have begun to lead here.
	w.dns.set(func(s *testDNS) { clear(s.records) })
	w.dns.add(t, "mail.example.org. A 192.0.2.1")
	w.now = w.now.Add(-30 * time.Minute) // half the pause
	hello := &tls.ClientHelloInfo{ServerName: "Mail.Example.ORG."}
	if got := w.served(hello); got != CertificateLocal {
		t.Errorf("before: %s", got)
	}
	w.public.look(t.Context()) // the clock stands still
	w.public.jobs.Wait()
	if got := w.served(hello); got != CertificatePublic {
		t.Errorf("after: %s\n%s", got, w.log.String())
	}
	if s := w.state("mail.example.org"); s.Kind != CertificatePublic || s.Error != "" || s.Issuer != "Appliance local CA (elsewhere.test)" {
		t.Errorf("after: %+v", s)
	}
	// It is read again at the next start, and deleted and got anew where it is damaged.
	w.dns.set(func(s *testDNS) { s.silent = true })
	w.Close()
	w.open()
	if got := w.served(hello); got != CertificatePublic {
		t.Errorf("after a restart: %s", got)
	}
	w.dns.set(func(s *testDNS) { s.silent = false })
	w.Close()
	stored := filepath.Join(w.dir, "acme", "certificates", "test", "mail.example.org", "mail.example.org.crt")
	if err := os.WriteFile(stored, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.open()
	if got := w.served(hello); got != CertificateLocal {
		t.Errorf("damaged: %s", got)
	}
	w.step()
	if got := w.served(hello); got != CertificatePublic || w.authority.tries() != 2 {
		t.Errorf("damaged and got anew: %s, %d tries", got, w.authority.tries())
	}
	// A name that is not wanted any more is not served.
	w.wanted = []string{"autoconfig.example.org"}
	w.step()
	if got := w.served(hello); got != CertificateLocal {
		t.Errorf("not wanted: %s", got)
	}
	// Where it has run out, ours is served.
	w.wanted = []string{"mail.example.org"}
	w.step()
	w.now = w.now.Add(91 * 24 * time.Hour)
	if got := w.served(hello); got != CertificateLocal {
		t.Errorf("run out: %s", got)
	}
}

// At home a name leads to the router, whose address changes. Others are asked how they see this machine as soon as a name leads to
// an address on the internet, and rarely.
func TestNameLeadsToTheRouter(t *testing.T) {
	w := newACMETest(t)
	w.Close()
	var asked int
	seen := []netip.Addr{netip.MustParseAddr("203.0.113.1")}
	w.ask = func(context.Context) []netip.Addr { asked++; return seen }
	w.open()
	w.dns.add(t, "autoconfig.example.org. A 192.168.1.77")
	w.step()
	if asked != 0 {
		t.Errorf("asked %d times for a name that leads nowhere, or into a network at home", asked)
	}
	w.dns.add(t, "mail.example.org. A 203.0.113.2")
	for begin := w.now; w.now.Sub(begin) < 3*time.Minute; {
		w.step()
	}
	if s := w.state("mail.example.org"); s.Kind != CertificateLocal || !strings.Contains(s.Error, "not known to be this machine") || asked < 2 || asked > 4 {
		t.Errorf("another router's: asked %d times, %+v", asked, s)
	}
	seen = []netip.Addr{netip.MustParseAddr("203.0.113.2")}
	begin := w.now
	for w.state("mail.example.org").Kind != CertificatePublic {
		if w.step(); w.now.Sub(begin) > 2*askPause {
			t.Fatalf("the router has the address, and there is no certificate: %+v", w.state("mail.example.org"))
		}
	}
}

// An authority that is down for an hour, and one that refuses, are asked ever less often; each reason is said once.
func TestAuthorityIsDown(t *testing.T) {
	w := newACMETest(t)
	w.wanted = w.wanted[:1]
	w.dns.add(t, "mail.example.org. A 192.0.2.1")
	w.authority.fail(&net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")})
	begin := w.now
	var pauses []time.Duration
	for w.now.Sub(begin) < time.Hour {
		pauses = append(pauses, w.step())
	}
	if want := []time.Duration{2 * time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour}; !slices.Equal(pauses, want) {
		t.Errorf("pauses %v", pauses)
	}
	const down = "Test CA cannot be reached: dial tcp: connection refused"
	if s := w.state("mail.example.org"); s.Error != down || !s.Retry.Equal(w.now) {
		t.Errorf("state %+v", s)
	}
	if n := strings.Count(w.log.String(), down); n != 1 {
		t.Errorf("said %d times:\n%s", n, w.log.String())
	}
	w.authority.fail(acme.Problem{Type: acme.ProblemTypeConnection, Detail: "192.0.2.1: Timeout during\n connect"})
	w.step()
	if s := w.state("mail.example.org"); s.Error != "Test CA could not connect to mail.example.org on port 80 or 443: let the ports 80 and 443 of the router lead to the ports 8080 and 8443 of this machine (192.0.2.1: Timeout during connect)" {
		t.Errorf("state %+v", s)
	}
	for range 5 {
		w.step()
	}
	if pause := w.step(); pause != lookRarely && w.public.names["mail.example.org"].next.Sub(w.now) > 6*time.Hour {
		t.Errorf("at last the pause is %s", pause)
	}
	for range 20 {
		w.Visited("mail.example.org") // an authority that has refused is not asked because of visitors
	}
	tries := w.authority.tries()
	w.public.look(t.Context())
	w.public.jobs.Wait()
	if w.authority.tries() > tries+1 {
		t.Error("visitors make us ask an authority that has refused")
	}
	// Whoever asks may have mended it, and need not wait for hours; nor is it tried at once.
	n := w.public.names["mail.example.org"]
	if wait := n.next.Sub(n.tried); wait != 6*time.Hour {
		t.Errorf("the pause is %s", wait)
	}
	w.Look()
	if wait := n.next.Sub(n.tried); wait != refusedPause {
		t.Errorf("when somebody has asked it is %s", wait)
	}
	w.authority.fail(nil)
	w.now = n.tried.Add(refusedPause)
	w.step()
	if got := w.served(&tls.ClientHelloInfo{ServerName: "mail.example.org"}); got != CertificatePublic {
		t.Errorf("after all: %s\n%s", got, w.log.String())
	}
}

// Without a port that authorities look at they are not asked.
func TestNoPortNoOrder(t *testing.T) {
	w := newACMETest(t)
	w.dns.add(t, "mail.example.org. A 192.0.2.1")
	w.UsePorts(25, 0, 0)
	w.step()
	if s := w.state("mail.example.org"); !strings.HasPrefix(s.Error, "neither port 80 nor port 443 is open here") || w.authority.tries() > 0 {
		t.Errorf("state %+v, %d tries", s, w.authority.tries())
	}
}

// helloFrom is a client that names nobody.
type helloFrom struct {
	net.Conn
	here, there string
}

func (c helloFrom) LocalAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.here))
}
func (c helloFrom) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.there))
}

func TestWhichCertificateIsServed(t *testing.T) {
	w := newACMETest(t)
	w.dns.add(t, "mail.example.org. A 192.0.2.1\nautoconfig.example.org. A 192.0.2.1")
	check := func(when string, want map[string]CertificateKind) {
		t.Helper()
		for client, kind := range want {
			hello := &tls.ClientHelloInfo{ServerName: client}
			if here, there, ok := strings.Cut(client, " "); ok {
				hello = &tls.ClientHelloInfo{Conn: helloFrom{nil, here, there}}
			}
			if got := w.served(hello); got != kind {
				t.Errorf("%s: %q gets %s, not %s", when, client, got, kind)
			}
		}
	}
	const (
		server = "192.168.1.5:2525 203.0.113.9:4000"
		router = "192.168.1.5:2525 192.168.1.1:4000" // which hides where others come from
		phone  = "[::ffff:192.168.1.5]:993 192.168.1.20:4000"
		far    = "192.168.1.5:993 203.0.113.9:4000"
	)
	check("at first", map[string]CertificateKind{"mail.example.org": CertificateLocal, "pi": CertificateLocal, "": CertificateLocal, server: CertificateLocal, phone: CertificateLocal})
	w.step()
	check("with an authority's", map[string]CertificateKind{
		"mail.example.org": CertificatePublic, "AUTOCONFIG.example.org": CertificatePublic, "pi.home.lan": CertificateLocal, "pi": CertificateLocal, "localhost": CertificateLocal,
		"elsewhere.example.net": CertificatePublic, "": CertificatePublic, server: CertificatePublic, router: CertificatePublic, phone: CertificateLocal, far: CertificatePublic,
	})
	if cert, _ := w.certificate(&tls.ClientHelloInfo{Conn: helloFrom{nil, "192.168.1.5:2525", "203.0.113.9:4000"}}); cert.Leaf.DNSNames[0] != "mail.example.org" {
		t.Errorf("a server that names nobody gets the certificate of %s", cert.Leaf.DNSNames)
	}
	files := w.writeOwn(&x509.Certificate{DNSNames: []string{"*.example.org"}})
	text, _, err := files.read(w.now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.SetOwn(files, text); err != nil {
		t.Fatal(err)
	}
	check("with a person's", map[string]CertificateKind{
		"mail.example.org": CertificateOwn, "x.example.org": CertificateOwn, "pi": CertificateLocal, "": CertificateOwn, server: CertificateOwn, phone: CertificateLocal,
	})
	w.wanted = append(w.wanted, "mail.example.net")
	w.step()
	if names := w.public.order; !slices.Equal(names, []string{"mail.example.net"}) {
		t.Errorf("wanted besides a person's: %q", names)
	}
	if err := w.UnsetOwn(); err != nil {
		t.Fatal(err)
	}
	w.step()
	check("again with an authority's", map[string]CertificateKind{"mail.example.org": CertificatePublic, "": CertificatePublic})
	if w.authority.tries() != 2 {
		t.Errorf("%d orders: what is stored is good", w.authority.tries())
	}
}

// What works in the background ends with Close.
func TestCertificatesLeaveNothingBehind(t *testing.T) {
	w := newACMETest(t)
	w.dns.add(t, "mail.example.org. A 192.0.2.1")
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	for w.authority.tries() == 0 || w.public.certificate("mail.example.org") == nil {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	w.Close()
	for range 200 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<20)
	t.Errorf("goroutines are left over:\n%s", buf[:runtime.Stack(buf, true)])
}

func TestRefusalWords(t *testing.T) {
	problem := func(kind string) error { return acme.Problem{Type: kind, Detail: "say"} }
	for _, test := range []struct {
		errs []error
		want string
	}{
		{[]error{problem(acme.ProblemTypeDNS)}, "A does not find x.org in the DNS (say)"},
		{[]error{problem(acme.ProblemTypeUnauthorized)}, "A asked at x.org, and another machine or program answered on port 80 or 443 (say)"},
		{[]error{problem(acme.ProblemTypeCAA)}, "a CAA record in the DNS does not let A give a certificate for x.org (say)"},
		{[]error{problem(acme.ProblemTypeRateLimited)}, "A takes no more orders for a while (say)"},
		{[]error{problem(acme.ProblemTypeRejectedIdentifier)}, "A gave no certificate for x.org (say)"},
		{[]error{context.DeadlineExceeded, problem(acme.ProblemTypeDNS)}, "B does not find x.org in the DNS (say)"},
		{[]error{context.DeadlineExceeded, errors.New("two")}, "A cannot be reached: context deadline exceeded"},
		{[]error{errors.New("one\r\n line")}, "A gave no certificate for x.org: one line"},
		{nil, "the certificate for x.org could not be got: disk full"},
	} {
		var refusals []refusal
		for i, err := range test.errs {
			refusals = append(refusals, refusal{string(rune('A' + i)), err})
		}
		if got := refusalWords("x.org", refusals, errors.New("disk full"), acmePorts{80, 443}); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

// Whoever has to set up a router is told to which ports.
func TestRouterWords(t *testing.T) {
	connection := []refusal{{"A", acme.Problem{Type: acme.ProblemTypeConnection}}}
	stranger := []refusal{{"A", acme.Problem{Type: acme.ProblemTypeUnauthorized, Detail: "say"}}}
	for _, test := range []struct {
		refusals []refusal
		ports    acmePorts
		want     string
	}{
		{connection, acmePorts{80, 443}, "A could not connect to x.org on port 80 or 443: let these ports of the router lead to this machine"},
		{connection, acmePorts{8080, 8443}, "A could not connect to x.org on port 80 or 443: let the ports 80 and 443 of the router lead to the ports 8080 and 8443 of this machine"},
		{connection, acmePorts{80, 8443}, "A could not connect to x.org on port 80 or 443: let the ports 80 and 443 of the router lead to the ports 80 and 8443 of this machine"},
		{stranger, acmePorts{1080, 0}, "A asked at x.org, and another machine or program answered on port 80 or 443: let port 80 of the router lead to port 1080 of this machine (say)"},
		{stranger, acmePorts{0, 8443}, "A asked at x.org, and another machine or program answered on port 80 or 443: let port 443 of the router lead to port 8443 of this machine (say)"},
	} {
		if got := refusalWords("x.org", test.refusals, nil, test.ports); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
	full := errors.New("failed storage check: write /x: no space left on device - storage is probably misconfigured")
	if got := refusalWords("x.org", nil, full, acmePorts{80, 443}); got != "the certificate for x.org could not be got: it could not be kept: write /x: no space left on device" {
		t.Error(got)
	}
}

// ZeroSSL gives keys for an account to whoever tells an address.
func TestZeroSSLAccount(t *testing.T) {
	answer, asked := `{"success":true,"eab_kid":"kid","eab_hmac_key":"key"}`, 0
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if asked++; r.Method != http.MethodPost || r.FormValue("email") != "maria@example.org" {
			t.Errorf("%s %q", r.Method, r.Form)
		}
		_, _ = rw.Write([]byte(answer))
	}))
	defer server.Close()
	get := zeroSSLAccount(server.URL)
	issuer := &certmagic.ACMEIssuer{Email: "maria@example.org"}
	for range 2 { // the second time they are there
		if _, err := get(t.Context(), issuer, acme.Account{}); err != nil || issuer.ExternalAccount == nil || *issuer.ExternalAccount != (acme.EAB{KeyID: "kid", MACKey: "key"}) {
			t.Fatalf("%+v, %v", issuer.ExternalAccount, err)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	for _, answer = range []string{`{"success":false}`, `{"success":true}`, `<html>`, `{"success":true,"eab_kid":"` + strings.Repeat("x", maxEABAnswer)} {
		if _, err := get(t.Context(), &certmagic.ACMEIssuer{Email: "maria@example.org"}, acme.Account{}); err == nil {
			t.Errorf("%.40s: no error", answer)
		}
	}
}

// The authorities are asked in their order, on our ports, under an address that they can write to.
func TestAuthorities(t *testing.T) {
	setup := func(cfg PublicConfig, contact string) *acmeMagic {
		t.Helper()
		m, err := newACMEMagic(cfg, t.TempDir(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.cache.Stop)
		m.use(acmePorts{8080, 0}, contact)
		return m
	}
	m := setup(PublicConfig{Listen: "127.0.0.1"}, "maria@example.org")
	if len(m.issuers) != 2 || m.issuers[0].CA != certmagic.LetsEncryptProductionCA || m.issuers[1].CA != certmagic.ZeroSSLProductionCA {
		t.Fatalf("%d authorities", len(m.issuers))
	}
	for _, a := range m.issuers {
		if a.AltHTTPPort != 8080 || a.DisableHTTPChallenge || !a.DisableTLSALPNChallenge || a.ListenHost != "127.0.0.1" || a.Email != "maria@example.org" || !a.Agreed {
			t.Errorf("%s: %+v", a.name, a.ACMEIssuer)
		}
		if err := a.PreCheck(t.Context(), []string{"mail.example.org"}, true); err != nil {
			t.Errorf("%s: %v", a.name, err)
		}
	}
	for _, contact := range []string{"", "maria@pi.local", "maría@example.org"} {
		m = setup(PublicConfig{}, contact)
		if m.issuers[0].Email != "" || m.issuers[1].PreCheck(t.Context(), []string{"mail.example.org"}, true) == nil {
			t.Errorf("%q is told to authorities", contact)
		}
	}
	m = setup(PublicConfig{Directory: "https://ca.home.lan:9000/acme/directory"}, "")
	if len(m.issuers) != 1 || m.issuers[0].name != "ca.home.lan:9000" || m.issuers[0].TestCA != "" {
		t.Errorf("one that was named: %+v", m.issuers[0])
	}
	if strings.ContainsAny(certmagic.StorageKeys.CertsSitePrefix(m.issuers[0].IssuerKey(), "mail.home.lan"), ":*") {
		t.Error("its files have names that Windows refuses")
	}
	junk := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{junk, junk + ".none"} {
		if _, err := newACMEMagic(PublicConfig{Directory: "https://ca.home.lan/", Root: root}, t.TempDir(), slog.Default()); err == nil {
			t.Errorf("%s: no error", root)
		}
	}
}
