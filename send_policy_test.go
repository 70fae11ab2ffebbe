package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Without a policy TLS is taken as it comes, and left out where it does not work.
func TestSendOpportunisticTLS(t *testing.T) {
	garbage := func(c *remoteConn, line string) string {
		if line == "STARTTLS" {
			_, _ = io.WriteString(c, "220 go ahead\r\n")
			_, _ = c.r.Discard(1)
			_, _ = io.WriteString(c, "220 this is no TLS\r\n")
			c.Close()
		}
		return ""
	}
	for name, c := range map[string]struct {
		tls    string // name in the certificate, "": none is offered
		answer func(c *remoteConn, line string) string
		secure bool
	}{
		"none":                  {"", nil, false},
		"a certificate of ours": {"x.test", nil, true},
		"for another name":      {"other.test", nil, true},
		"refused":               {"x.test", at("STARTTLS", "454 4.7.0 no TLS today"), false},
		"refused for good":      {"x.test", at("STARTTLS", "554 5.7.0 no TLS ever"), false},
		"no TLS behind it":      {"x.test", garbage, false},
		"closed":                {"x.test", hangUpAt("STARTTLS"), false},
		"text behind the reply": {"x.test", at("STARTTLS", "220 go\r\n250 ok"), false},
		"ended after it": {"x.test", func(c *remoteConn, line string) string {
			if c.secure {
				c.Close()
			}
			return ""
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := openSendWorld(t, "x.test. A 192.0.2.1")
			s := &remoteServer{answer: c.answer}
			if c.tls != "" {
				s.tls = w.authority.serve(c.tls)
			}
			w.Roots = x509.NewCertPool() // nobody is trusted
			w.at("192.0.2.1:25", s)
			w.expect(name, w.one(outgoing(sendTestText, "x@x.test")), SendSent)
			if got := s.got(); len(got) != 1 || got[0].secure != c.secure {
				t.Errorf("arrived: %+v", got)
			}
		})
	}
}

// policyWorld is a domain with an MTA-STS policy, and two servers of which the policy names the first.
type policyWorld struct {
	*sendWorld
	policy  atomic.Pointer[string] // "": the web server is broken
	fetched atomic.Int32
	first   *remoteServer
	second  *remoteServer
}

func openPolicyWorld(t *testing.T, policy string) *policyWorld {
	t.Helper()
	w := &policyWorld{sendWorld: openSendWorld(t, `
		x.test.          MX 1 other.test.
		x.test.          MX 2 mx.x.test.
		mx.x.test.       A 192.0.2.1
		other.test.      A 192.0.2.2
		mta-sts.x.test.  A 192.0.2.3
		_mta-sts.x.test. TXT "v=STSv1; id=1;"
	`)}
	w.policy.Store(&policy)
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		w.fetched.Add(1)
		text := *w.policy.Load()
		switch {
		case text == "" || r.Host != "mta-sts.x.test" || r.URL.Path != "/.well-known/mta-sts.txt":
			http.Error(out, "broken", http.StatusInternalServerError)
		case text == "elsewhere":
			http.Redirect(out, r, "https://mta-sts.x.test/other", http.StatusFound)
		default:
			_, _ = io.WriteString(out, text)
		}
	}))
	web.TLS = w.authority.serve("mta-sts.x.test")
	web.StartTLS()
	t.Cleanup(web.Close)
	w.place("192.0.2.3:443", web.Listener.Addr().String())
	w.first = w.at("192.0.2.1:25", &remoteServer{tls: w.authority.serve("mx.x.test")})
	w.second = w.at("192.0.2.2:25", &remoteServer{tls: w.authority.serve("other.test")})
	return w
}

func (w *policyWorld) try(what string, state SendState, parts ...string) {
	w.t.Helper()
	w.Close() // a connection that waits would prove nothing
	w.Sender.mu.Lock()
	w.closed = false
	w.Sender.mu.Unlock()
	w.expect(what, w.one(outgoing(sendTestText, "x@x.test")), state, parts...)
}

const stsTestPolicy = "version: STSv1\r\nmode: enforce\r\nmx: mx.x.test\r\nmax_age: 86400\r\n"

func TestSendMTASTS(t *testing.T) {
	w := openPolicyWorld(t, stsTestPolicy)
	w.try("enforced", SendSent, "mx.x.test [192.0.2.1]")
	if got := w.first.got(); len(got) != 1 || !got[0].secure {
		t.Errorf("arrived: %+v", got)
	}
	w.place("192.0.2.1:25", w.second.listener.Addr().String()) // the wrong certificate
	w.try("wrong name", SendWaiting, "for another name", "4.7.0")
	w.place("192.0.2.1:25", new(remoteServer).start(t).listener.Addr().String())
	w.try("no TLS", SendWaiting, "offers no TLS", "4.7.0")
	w.place("192.0.2.1:25", w.first.listener.Addr().String())
	w.Roots, w.authority.Roots = x509.NewCertPool(), w.Roots
	w.try("nobody trusted", SendWaiting, "nobody who is trusted")
	w.Roots = w.authority.Roots
	if n := w.fetched.Load(); n != 1 {
		t.Errorf("the policy was fetched %d times", n)
	}
	if n := len(w.second.got()); n != 0 {
		t.Errorf("the server that is not named has %d messages", n)
	}
	// It cannot be had any more, and holds until its end.
	broken := ""
	w.policy.Store(&broken)
	w.pass(23 * time.Hour)
	w.dns.set(func(s *testDNS) { s.records["_mta-sts.x.test."] = nil })
	w.try("after the record is gone", SendSent, "mx.x.test")
	w.dns.add(t, `_mta-sts.x.test. TXT "v=STSv1; id=2;"`)
	w.pass(50 * time.Minute)
	w.try("while the policy host is broken", SendSent, "mx.x.test")
	w.pass(70 * time.Minute)
	w.try("expired", SendSent, "other.test")
	w.pass(stsNegative)
	none := "version: STSv1\nmode: none\nmax_age: 86400\n"
	w.policy.Store(&none)
	w.try("mode none", SendSent, "other.test")
}

// The queue has domains in Unicode: their policies hold as well.
func TestSendMTASTSInternational(t *testing.T) {
	w := openSendWorld(t, `
		xn--bcher-kva.test.          MX 1 other.test.
		xn--bcher-kva.test.          MX 2 mx.xn--bcher-kva.test.
		mx.xn--bcher-kva.test.       A 192.0.2.1
		other.test.                  A 192.0.2.2
		_mta-sts.xn--bcher-kva.test. TXT "v=STSv1; id=1;"
	`)
	w.Fetch = func(_ context.Context, host, _ string) ([]byte, error) {
		if host != "mta-sts.xn--bcher-kva.test" {
			return nil, errors.New("no such host")
		}
		return []byte(strings.ReplaceAll(stsTestPolicy, "mx.x.test", "mx.xn--bcher-kva.test")), nil
	}
	w.at("192.0.2.2:25", &remoteServer{})
	named := w.at("192.0.2.1:25", &remoteServer{tls: w.authority.serve("mx.xn--bcher-kva.test")})
	w.expect("enforced", w.one(outgoing(sendTestText, "x@bücher.test")), SendSent, "mx.xn--bcher-kva.test [192.0.2.1]")
	if got := named.got(); len(got) != 1 || !got[0].secure {
		t.Errorf("arrived: %+v", got)
	}
}

// A policy is looked at anew before it expires, and a new id makes it count at once.
func TestSendMTASTSRefresh(t *testing.T) {
	w := openPolicyWorld(t, strings.Replace(stsTestPolicy, "86400", "1000000", 1))
	w.try("first", SendSent, "mx.x.test")
	w.pass(2 * time.Hour)
	w.try("same id", SendSent, "mx.x.test")
	if n := w.fetched.Load(); n != 1 {
		t.Errorf("within a day it was fetched %d times", n)
	}
	w.pass(stsRefresh)
	w.try("a day later", SendSent, "mx.x.test")
	if n := w.fetched.Load(); n != 2 {
		t.Errorf("after a day it was fetched %d times", n)
	}
	testing := "version: STSv1\nmode: testing\nmx: mx.x.test\nmax_age: 1000000\n"
	w.policy.Store(&testing)
	w.dns.set(func(s *testDNS) { s.records["_mta-sts.x.test."] = nil })
	w.dns.add(t, `_mta-sts.x.test. TXT "v=STSv1; id=2;"`)
	w.pass(stsRecheck)
	w.try("testing", SendSent, "other.test")
}

func TestSendMTASTSMistakes(t *testing.T) {
	for name, policy := range map[string]string{
		"redirect": "elsewhere", "no version": "mode: enforce\nmx: mx.x.test\nmax_age: 1\n", "no host": "version: STSv1\nmode: enforce\nmax_age: 100\n",
		"mode": "version: STSv1\nmode: strict\nmx: mx.x.test\nmax_age: 100\n", "age": "version: STSv1\nmode: enforce\nmx: mx.x.test\nmax_age: -1\n",
		"size": stsTestPolicy + strings.Repeat("# more\n", 10_000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := openPolicyWorld(t, policy)
			w.try(name, SendSent, "other.test")
		})
	}
	two := openPolicyWorld(t, stsTestPolicy)
	two.dns.add(t, `_mta-sts.x.test. TXT "v=STSv1; id=2;"`)
	two.try("two records", SendSent, "other.test")
	web := openPolicyWorld(t, stsTestPolicy)
	web.Roots = x509.NewCertPool()
	web.try("a policy host that nobody trusts", SendSent, "other.test")
	wild := &stsPolicy{enforce: true, mx: []string{"*.x.test"}}
	for host, want := range map[string]bool{"a.x.test": false, "A.X.test": false, "a.b.x.test": true, "x.test": true} {
		if wild.forbids(host) != want {
			t.Errorf("%s: %v", host, !want)
		}
	}
}

func TestSendDANE(t *testing.T) {
	const zone = "x.test. MX 1 mx.x.test.\nmx.x.test. A 192.0.2.1\n"
	w0 := newTestAuthority(t)
	leaf := w0.serve("mx.x.test")
	other := newTestAuthority(t).serve("mx.x.test")
	domain := w0.serve("x.test")
	wrong := w0.serve("other.test")
	hash := func(cert []byte) string { return fmt.Sprintf("%x", sha256.Sum256(cert)) }
	spki := func(c *tls.Config, i int) []byte {
		cert, err := x509.ParseCertificate(c.Certificates[0].Certificate[i])
		if err != nil {
			t.Fatal(err)
		}
		return cert.RawSubjectPublicKeyInfo
	}
	record := func(usage, selector, kind int, data string) string {
		return fmt.Sprintf("_25._tcp.mx.x.test. TLSA %d %d %d %s", usage, selector, kind, data)
	}
	own := record(3, 1, 1, hash(spki(leaf, 0)))
	for name, c := range map[string]struct {
		tlsa     string
		serve    *tls.Config
		unsigned bool
		state    SendState
		secure   bool
		text     string
	}{
		"own key":                      {own, leaf, false, SendSent, true, ""},
		"own certificate":              {record(3, 0, 2, fmt.Sprintf("%x", sha512.Sum512(leaf.Certificates[0].Certificate[0]))), leaf, false, SendSent, true, ""},
		"own key in full":              {record(3, 1, 0, fmt.Sprintf("%x", spki(leaf, 0))), leaf, false, SendSent, true, ""},
		"own, whatever its name":       {record(3, 1, 1, hash(spki(wrong, 0))), wrong, false, SendSent, true, ""},
		"another key":                  {own, other, false, SendWaiting, false, "4.7.5"},
		"one of two":                   {record(3, 1, 1, hash([]byte("x"))) + "\n" + own, leaf, false, SendSent, true, ""},
		"authority":                    {record(2, 0, 1, hash(w0.ca.Raw)), leaf, false, SendSent, true, ""},
		"authority, the domain":        {record(2, 1, 1, hash(spki(leaf, 1))), domain, false, SendSent, true, ""},
		"authority, wrong name":        {record(2, 0, 1, hash(w0.ca.Raw)), wrong, false, SendWaiting, false, "not the one that the DNS tells"},
		"another authority":            {record(2, 0, 1, hash(w0.ca.Raw)), other, false, SendWaiting, false, "DANE"},
		"authority named as own":       {record(3, 0, 1, hash(w0.ca.Raw)), leaf, false, SendWaiting, false, "DANE"},
		"no TLS":                       {own, nil, false, SendWaiting, false, "offers no TLS"},
		"unusable, any certificate":    {record(1, 0, 1, hash([]byte("x"))) + "\n" + record(3, 9, 1, hash([]byte("x"))), other, false, SendSent, true, ""},
		"unusable, no TLS":             {record(0, 0, 1, hash([]byte("x"))), nil, false, SendWaiting, false, "offers no TLS"},
		"not signed: it means nothing": {record(3, 1, 1, hash([]byte("x"))), nil, true, SendSent, false, ""},
		"none":                         {"", nil, false, SendSent, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := openSendWorld(t, zone+c.tlsa)
			w.dns.set(func(s *testDNS) { s.signed = !c.unsigned })
			s := w.at("192.0.2.1:25", &remoteServer{tls: c.serve})
			w.expect(name, w.one(outgoing(sendTestText, "x@x.test")), c.state, c.text)
			if got := s.got(); len(got) > 0 != (c.state == SendSent) || len(got) > 0 && got[0].secure != c.secure {
				t.Errorf("arrived: %+v", got)
			}
		})
	}
	w := openSendWorld(t, zone)
	w.dns.set(func(s *testDNS) { s.signed = true; s.broken["_25._tcp.mx.x.test."] = true })
	w.at("192.0.2.1:25", &remoteServer{tls: leaf})
	w.expect("no word on TLSA", w.one(outgoing(sendTestText, "x@x.test")), SendWaiting, "4.7.5", "does not tell which certificate")
}

func TestSendRequireTLS(t *testing.T) {
	for name, c := range map[string]struct {
		zone   string
		signed bool
		tls    string
		knows  bool
		state  SendState
		text   string
	}{
		"proven":          {"", true, "x.test", true, SendSent, ""},
		"not proven":      {"", false, "x.test", true, SendFailed, "5.7.30"},
		"does not know":   {"", true, "x.test", false, SendFailed, "cannot promise"},
		"wrong name":      {"", true, "other.test", true, SendWaiting, "for another name"},
		"no TLS":          {"", true, "", true, SendWaiting, "offers no TLS"},
		"policy not told": {`_mta-sts.x.test. TXT "v=STSv1; id=1"`, false, "x.test", true, SendWaiting, "cannot be told at the moment"},
		"DANE unusable":   {"_25._tcp.x.test. TLSA 0 0 1 00", true, "other.test", true, SendWaiting, "for another name"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := openSendWorld(t, "x.test. A 192.0.2.1\n"+c.zone)
			w.dns.set(func(s *testDNS) { s.signed = c.signed })
			s := &remoteServer{}
			if c.tls != "" {
				s.tls = w.authority.serve(c.tls)
			}
			if c.knows {
				s.extensions = []string{"REQUIRETLS"}
			}
			w.at("192.0.2.1:25", s)
			m := outgoing(sendTestText, "x@x.test")
			m.Envelope.RequireTLS = true
			w.expect(name, w.one(m), c.state, c.text)
			if got := s.got(); len(got) > 0 != (c.state == SendSent) || len(got) > 0 && !strings.Contains(got[0].mail, " REQUIRETLS") {
				t.Errorf("arrived: %+v", got)
			}
		})
	}
}

// What is not ASCII goes to those who know it, in another form to those who do not, or comes back.
func TestSendBeyondASCII(t *testing.T) {
	const body = "From: ann@home.test\r\nSubject: Grüße aus Köln\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSchöne Grüße = von hier\r\n"
	signer := &DKIMSigner{Dir: t.TempDir(), IsLocal: func(d string) bool { return d == "home.test" }}
	for _, c := range []struct {
		name, from, to string
		utf8           bool
		knows          []string
		state          SendState
		mail, rcpt     string // as they are said
		contains       string
	}{
		{"8 bits", "ann@home.test", "x@x.test", false, []string{"8BITMIME"}, SendSent, "MAIL FROM:<ann@home.test> BODY=8BITMIME", "RCPT TO:<x@x.test>", "Schöne Grüße = von hier"},
		{"7 bits", "ann@home.test", "x@x.test", false, nil, SendSent, "MAIL FROM:<ann@home.test>", "RCPT TO:<x@x.test>", "Sch=C3=B6ne Gr=C3=BC=C3=9Fe =3D von hier"},
		{"a domain in letters", "ann@home.test", "x@bücher.test", false, []string{"8BITMIME"}, SendSent, "", "RCPT TO:<x@xn--bcher-kva.test>", "Grüße"},
		{"a name in letters", "ann@home.test", "jürgen@x.test", true, []string{"8BITMIME", "SMTPUTF8"}, SendSent, "MAIL FROM:<ann@home.test> BODY=8BITMIME SMTPUTF8", "RCPT TO:<jürgen@x.test>", "Grüße"},
		{"a name that is not known", "ann@home.test", "jürgen@x.test", true, []string{"8BITMIME"}, SendFailed, "", "", "SMTPUTF8"},
		{"a sender that is not known", "änn@home.test", "x@x.test", true, []string{"8BITMIME"}, SendFailed, "", "", "5.6.7"},
		{"a header that is not known", "ann@home.test", "x@x.test", true, []string{"8BITMIME"}, SendFailed, "", "", "not ASCII"},
	} {
		w := openSendWorld(t, "x.test. A 192.0.2.1\nxn--bcher-kva.test. A 192.0.2.1")
		w.Sign = signer.Sign
		s := w.at("192.0.2.1:25", &remoteServer{extensions: c.knows})
		m := outgoing(body, c.to)
		m.Envelope.From, m.Envelope.UTF8 = c.from, c.utf8
		o := w.one(m)
		if c.state == SendFailed {
			w.expect(c.name, o, c.state, c.contains)
			continue
		}
		w.expect(c.name, o, c.state)
		got := s.got()
		if len(got) != 1 || c.mail != "" && got[0].mail != c.mail || got[0].rcpts[0] != c.rcpt || !strings.Contains(got[0].text, c.contains) {
			t.Fatalf("%s: arrived %+v", c.name, got)
		}
		if len(c.knows) == 0 && !isASCII([]byte(got[0].text)) {
			t.Errorf("%s: %s", c.name, got[0].text)
		}
		verifySignatures(t, signer, "home.test", got[0].text)
	}
	if low, err := downgrade(strings.NewReader(body), int64(len(body))); err != nil || !bytes.Contains(low, []byte("Content-Transfer-Encoding: quoted-printable\r\n")) {
		t.Errorf("%s %v", low, err)
	}
}

// Reports are left to servers that know them.
func TestSendReports(t *testing.T) {
	for _, knows := range []bool{false, true} {
		w := openSendWorld(t, "x.test. A 192.0.2.1")
		s := &remoteServer{}
		if knows {
			s.extensions = []string{"DSN"}
		}
		w.at("192.0.2.1:25", s)
		m := outgoing(sendTestText, "x@x.test")
		m.Envelope.Return, m.Envelope.EnvelopeID = "HDRS", "a+b=c"
		m.Envelope.Recipients[0].Notify, m.Envelope.Recipients[0].Original = NotifySuccess|NotifyFailure, "rfc822;old@x.test"
		o := w.one(m)
		w.expect("sent", o, SendSent)
		mail, rcpt := "MAIL FROM:<ann@home.test>", "RCPT TO:<x@x.test>"
		if knows {
			mail, rcpt = mail+" RET=HDRS ENVID=a+2Bb+3Dc", rcpt+" NOTIFY=SUCCESS,FAILURE ORCPT=RFC822;old@x.test"
		}
		if got := s.got()[0]; got.mail != mail || got.rcpts[0] != rcpt || o.Reported != knows {
			t.Errorf("knows %v: %+v, reported %v", knows, got, o.Reported)
		}
	}
}
