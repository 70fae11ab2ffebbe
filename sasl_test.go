package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// saslPhone is an app password of ann's.
const saslPhone = "abcd-efgh-jkmn-pqrs"

// saslAccounts is a file with ann, who has an app password, off, who may not log in, and old, whose password has no keys.
func saslAccounts(t testing.TB) string {
	t.Helper()
	const salt = "the salt of ann."
	return fmt.Sprintf("[[user]]\naddress = 'ann@test.lan'\npassword = '%s'\n[[user.app_password]]\nname = 'phone'\npassword = '%s %s'\n"+
		"[[user]]\naddress = 'off@test.lan'\npassword = '%s'\ndisabled = true\n[[user]]\naddress = 'old@test.lan'\npassword = '%s'\n",
		quickField(t, "ann-secret", salt), hashAppPassword(saslPhone), quickKeys(t, saslPhone, salt), quickField(t, "off-secret", salt), quickField(t, "old-secret", ""))
}

func saslServer(t testing.TB, set func(p *Protocols)) *portServer {
	t.Helper()
	p := &Protocols{Accounts: openTestAccounts(t, saslAccounts(t)), Store: testStore(t, t.TempDir())}
	if set != nil {
		set(p)
	}
	s := startPorts(t, p)
	s.store = p.Store
	return s
}

// saslProtocols are the protocols with SASL: the ports, the command, and how the replies begin.
var saslProtocols = []struct {
	name, port, secure, command, challenge, quit                      string
	ok, wrong, malformed, unbound, other, unoffered, cancel, throttle string
}{
	{"imap", "imap", "imaps", "a AUTHENTICATE ", "+ ", "a LOGOUT", "a OK [CAPABILITY IMAP4rev1", "a NO [AUTHENTICATIONFAILED] Wrong address or password", "a BAD ",
		"a NO [AUTHENTICATIONFAILED] ", "a NO [AUTHORIZATIONFAILED] ", "a NO [CANNOT] ", "a BAD The login was cancelled", "a NO [UNAVAILABLE] "},
	{"pop3", "pop3", "pop3s", "AUTH ", "+ ", "QUIT", "+OK 0 messages", "-ERR [AUTH] wrong address or password", "-ERR ",
		"-ERR [AUTH] ", "-ERR [AUTH] One cannot", "-ERR This mechanism", "-ERR The login was cancelled", "-ERR [LOGIN-DELAY] "},
	{"submission", "submission", "submissions", "AUTH ", "334 ", "QUIT", "235 2.0.0 ", "535 5.7.8 Wrong address or password", "501 5.5.2 ",
		"535 5.7.8 ", "535 5.7.8 One cannot", "504 5.5.4 ", "501 5.0.0 ", "454 4.7.0 "},
}

// saslClient is a client that is about to log in.
type saslClient struct {
	t                        testing.TB
	conn                     net.Conn
	r                        *bufio.Reader
	command, challenge, quit string
	state                    tls.ConnectionState
}

// sasl connects to a protocol; with a config under TLS.
func (s *portServer) sasl(t testing.TB, protocol int, config *tls.Config) *saslClient {
	t.Helper()
	p := saslProtocols[protocol]
	c := &saslClient{t: t, command: p.command, challenge: p.challenge, quit: p.quit}
	if config == nil {
		c.conn = s.dial(t, p.port)
	} else {
		secure := tls.Client(s.dial(t, p.secure), config)
		if err := secure.Handshake(); err != nil {
			t.Fatal(err)
		}
		c.conn, c.state = secure, secure.ConnectionState()
	}
	c.r = bufio.NewReader(c.conn)
	c.line()
	if p.name == "submission" {
		c.send("EHLO laptop")
		for strings.HasPrefix(c.line(), "250-") {
		}
	}
	return c
}

func (c *saslClient) line() string {
	c.t.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("got %q, %v", line, err)
	}
	return strings.TrimRight(line, "\r\n")
}

func (c *saslClient) send(line string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(line + "\r\n")); err != nil {
		c.t.Fatal(err)
	}
}

// end logs out and waits until the server has let the maildrop go.
func (c *saslClient) end() {
	c.t.Helper()
	c.send(c.quit)
	if _, err := io.ReadAll(c.r); err != nil {
		c.t.Fatal(err)
	}
}

// auth speaks an exchange and gives the reply that ends it. next gives the line that answers a challenge; with initial
// the first one goes with the command.
func (c *saslClient) auth(mechanism string, initial bool, next func(challenge string) string) string {
	c.t.Helper()
	command := c.command + mechanism
	if initial {
		command += " " + next("")
	}
	c.send(command)
	for {
		line := c.line()
		text, ok := strings.CutPrefix(line, c.challenge)
		if !ok {
			return line
		}
		challenge, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			c.t.Fatalf("challenge %q: %v", line, err)
		}
		c.send(next(string(challenge)))
	}
}

// lines answers one challenge after the other, encoded where a line does not begin with "!".
func lines(answers ...string) func(string) string {
	return func(string) string {
		if len(answers) == 0 {
			return "*"
		}
		answer := answers[0]
		answers = answers[1:]
		if raw, ok := strings.CutPrefix(answer, "!"); ok {
			return raw
		}
		return encode64(answer)
	}
}

func encode64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// saslProof is a client's side of SCRAM.
type saslProof struct {
	user, password, authz string
	binding               scram.ChannelBinding
	flag                  string              // "y" in the place of "n"
	edit                  func(string) string // of the final message
	conversation          *scram.ClientConversation
}

// scram logs in by SCRAM and gives the reply.
func (c *saslClient) scram(initial bool, p *saslProof) string {
	c.t.Helper()
	client, err := scram.SHA256.NewClient(p.user, p.password, p.authz)
	if err != nil {
		c.t.Fatal(err)
	}
	mechanism := saslScram
	switch {
	case p.binding.IsSupported():
		mechanism, p.conversation = saslScramPlus, client.NewConversationWithChannelBinding(p.binding)
	case p.flag == "y":
		p.conversation = client.NewConversationAdvertisingChannelBinding()
	default:
		p.conversation = client.NewConversation()
	}
	return c.auth(mechanism, initial, func(challenge string) string {
		response, err := p.conversation.Step(challenge)
		if err != nil {
			c.t.Fatalf("challenge %q: %v", challenge, err)
		}
		if p.edit != nil && strings.HasPrefix(response, "c=") {
			response = p.edit(response)
		}
		return encode64(response)
	})
}

// bindings gives the channel bindings that the client knows of the connection, by type.
func (c *saslClient) bindings() map[scram.ChannelBindingType]scram.ChannelBinding {
	c.t.Helper()
	exporter, err := scram.NewTLSExporterBinding(&c.state)
	if err != nil {
		c.t.Fatal(err)
	}
	endPoint, err := scram.NewTLSServerEndpointBinding(&c.state)
	if err != nil {
		c.t.Fatal(err)
	}
	all := map[scram.ChannelBindingType]scram.ChannelBinding{exporter.Type: exporter, endPoint.Type: endPoint}
	if c.state.Version == tls.VersionTLS12 {
		all[scram.ChannelBindingTLSUnique] = scram.NewTLSUniqueBinding(c.state.TLSUnique)
	}
	return all
}

// onlyTLS is the client's settings for one version.
func (s *portServer) onlyTLS(version uint16) *tls.Config {
	config := s.client.Clone()
	config.MinVersion, config.MaxVersion = version, version
	return config
}

// The exchange of RFC 7677 §3.
func TestSCRAMExampleOfRFC7677(t *testing.T) {
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	c := saslConn(openTestAccounts(t, fmt.Sprintf("[[user]]\naddress = 'user@test.lan'\npassword = '%s'\n", quickField(t, "pencil", string(salt)))))
	x, err := c.newSASL(t.Context(), "test", "scram-sha-256")
	if err != nil {
		t.Fatal(err)
	}
	s := newSASLScram(x)
	s.nonce, x.next = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", s.first
	for _, step := range []struct{ client, server string }{
		{"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"},
		{"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
			"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="},
	} {
		reply, done, err := x.Next([]byte(step.client))
		if err != nil || done || string(reply) != step.server {
			t.Fatalf("%s: %s, %v, %v", step.client, reply, done, err)
		}
	}
	if reply, done, err := x.Next([]byte{}); err != nil || !done || len(reply) > 0 || x.id != (Identity{Account: "user@test.lan"}) {
		t.Errorf("at the end: %q, %v, %v, %v", reply, done, err, x.id)
	}
}

// saslConn is a connection on loopback that nobody is at the other end of. Failed logins do not wait.
func saslConn(a *Accounts) *Conn {
	ours, _ := net.Pipe()
	env := newConnEnv(connLimits{}, nil, a, nil)
	close(env.closing)
	c := newConn(env, ours, "test", slog.New(slog.DiscardHandler))
	c.Remote = netip.MustParseAddr("127.0.0.1")
	return c
}

func TestSASLLogins(t *testing.T) {
	s := saslServer(t, nil)
	for i, p := range saslProtocols {
		t.Run(p.name, func(t *testing.T) {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				config := s.onlyTLS(version)
				for kind := range s.sasl(t, i, config).bindings() {
					c := s.sasl(t, i, config)
					proof := &saslProof{user: "ann@test.lan", password: "ann-secret", binding: c.bindings()[kind]}
					if got := c.scram(kind == scram.ChannelBindingTLSExporter, proof); !strings.HasPrefix(got, p.ok) || !proof.conversation.Valid() {
						t.Errorf("%s with %s: %s", tls.VersionName(version), kind, got)
					}
					c.end()
				}
			}
			secure := s.onlyTLS(tls.VersionTLS13)
			for _, proof := range []saslProof{
				{user: "ann@test.lan", password: "ann-secret"},
				{user: "Ann", password: "ann-secret"},
				{user: "ANN@Test.LAN", password: saslPhone},
				{user: "ann", password: "ann-secret", authz: "Ann@test.lan"},
				{user: "ann@test.lan", password: "ann-secret", authz: "ann"},
			} {
				c := s.sasl(t, i, secure)
				if got := c.scram(true, &proof); !strings.HasPrefix(got, p.ok) || !proof.conversation.Valid() {
					t.Errorf("%+v: %s", proof, got)
				}
				c.end()
			}
			// Without TLS, on this machine alone; the client cannot have a channel binding then.
			c := s.sasl(t, i, nil)
			if got := c.scram(false, &saslProof{user: "ann", password: "ann-secret", flag: "y"}); !strings.HasPrefix(got, p.ok) {
				t.Errorf("without TLS: %s", got)
			}
			c.end()
			c = s.sasl(t, i, secure)
			if got := c.auth("login", false, lines("ann", saslPhone)); !strings.HasPrefix(got, p.ok) {
				t.Errorf("LOGIN: %s", got)
			}
			c.end()
			c = s.sasl(t, i, secure)
			if got := c.auth("Plain", true, lines("ann@test.lan\x00ann\x00ann-secret")); !strings.HasPrefix(got, p.ok) {
				t.Errorf("PLAIN: %s", got)
			}
			c.end()
		})
	}
	log := s.log.String()
	for _, want := range []string{"protocol=imap account=ann@test.lan via=\"\" by=SCRAM-SHA-256-PLUS tls=true", "protocol=pop3 account=ann@test.lan via=phone by=SCRAM-SHA-256 tls=true",
		"protocol=submission account=ann@test.lan via=phone by=LOGIN tls=true"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %s", want)
		}
	}
	for _, secret := range []string{"ann-secret", saslPhone, encode64("ann-secret")} {
		if strings.Contains(log, secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}

func TestSASLFailures(t *testing.T) {
	t.Parallel()
	s := saslServer(t, nil)
	secure := s.onlyTLS(tls.VersionTLS13)
	wrongNonce := func(final string) string { return strings.Replace(final, ",r=", ",r=x", 1) }
	wrongProof := func(final string) string { return final[:strings.Index(final, ",p=")] + ",p=" + encode64("short") }
	noProof := func(final string) string { return final[:strings.Index(final, ",p=")] }
	bound := func(c *saslClient, kind scram.ChannelBindingType, data string) scram.ChannelBinding {
		binding := c.bindings()[kind]
		if data != "" {
			binding = scram.ChannelBinding{Type: kind, Data: []byte(data)}
		}
		return binding
	}
	for i, p := range saslProtocols {
		t.Run(p.name, func(t *testing.T) {
			for _, test := range []struct {
				name  string
				proof saslProof
				want  string
			}{
				{"wrong password", saslProof{user: "ann", password: "bob-secret"}, p.wrong},
				{"unknown user", saslProof{user: "nobody@test.lan", password: "ann-secret"}, p.wrong},
				{"disabled", saslProof{user: "off", password: "off-secret"}, p.wrong},
				{"no keys yet", saslProof{user: "old", password: "old-secret"}, p.wrong},
				{"wrong nonce", saslProof{user: "ann", password: "ann-secret", edit: wrongNonce}, p.wrong},
				{"wrong proof", saslProof{user: "ann", password: "ann-secret", edit: wrongProof}, p.wrong},
				{"no proof", saslProof{user: "ann", password: "ann-secret", edit: noProof}, p.malformed},
				{"somebody else", saslProof{user: "ann", password: "ann-secret", authz: "off"}, p.other},
				{"downgrade", saslProof{user: "ann", password: "ann-secret", flag: "y"}, p.unbound + "SCRAM-SHA-256-PLUS is offered here"},
			} {
				if got := s.sasl(t, i, secure).scram(true, &test.proof); !strings.HasPrefix(got, test.want) {
					t.Errorf("%s: got %s, want %s", test.name, got, test.want)
				}
			}
			for _, test := range []struct {
				kind scram.ChannelBindingType
				data string
				want string
			}{
				{scram.ChannelBindingTLSExporter, "another connection's data 123456", "The channel binding is that of another connection"},
				{scram.ChannelBindingTLSServerEndpoint, "another certificate's digest 123", "The channel binding is that of another connection"},
				{scram.ChannelBindingTLSUnique, "Finished", "This connection has no channel binding of this type"}, // TLS 1.3
				{"tls-telepathy", "I know", "This connection has no channel binding of this type"},
			} {
				c := s.sasl(t, i, secure)
				proof := saslProof{user: "ann", password: "ann-secret", binding: bound(c, test.kind, test.data)}
				if got := c.scram(false, &proof); !strings.HasPrefix(got, p.unbound+test.want) {
					t.Errorf("binding %s: %s", test.kind, got)
				}
			}
			for _, test := range []struct {
				mechanism string
				next      func(string) string
				want      string
			}{
				{saslScram, lines("!*"), p.cancel},
				{saslScram, lines("n,,n=ann,r=x", "!*"), p.cancel},
				{saslScram, lines("!n,,n=ann"), p.malformed + "…base64"},
				{saslScram, lines("n,,n=ann,r=x", "!?"), p.malformed + "…base64"},
				{saslScram, lines("n,,n=ann,r=x", "n,,n=ann,r=x"), p.malformed},
				{saslScram, lines("n,,n=a=nn,r=x"), p.malformed},
				{saslScram, lines("n,,n=ann,r=" + strings.Repeat("x", saslMaxResponse)), p.malformed + "…too long"},
				{saslScram, lines("p=tls-exporter,,n=ann,r=x"), p.unbound + "A channel binding needs SCRAM-SHA-256-PLUS"},
				{saslScramPlus, lines("n,,n=ann,r=x"), p.unbound + "SCRAM-SHA-256-PLUS needs a channel binding"},
				{saslScramPlus, lines("y,,n=ann,r=x"), p.unbound + "SCRAM-SHA-256-PLUS needs a channel binding"},
				{saslPlain, lines("ann\x00ann-secret"), p.malformed},
				{saslPlain, lines("\x00\x00ann-secret"), p.malformed},
				{saslPlain, lines("off@test.lan\x00ann\x00ann-secret"), p.other},
				{saslLogin, lines("ann", "!*"), p.cancel},
				{"EXTERNAL", lines(), p.unoffered},
			} {
				c := s.sasl(t, i, secure)
				got := c.auth(test.mechanism, false, test.next)
				begin, middle, _ := strings.Cut(test.want, "…")
				if !strings.HasPrefix(got, begin) && (p.name != "submission" || middle != "base64") || !strings.Contains(got, middle) {
					t.Errorf("%s: got %s, want %s", test.mechanism, got, test.want)
				}
				if got := c.auth(saslPlain, true, lines("\x00ann\x00ann-secret")); !strings.HasPrefix(got, p.ok) { // the session goes on
					t.Errorf("%s: afterwards %s", test.mechanism, got)
				}
				c.end()
			}
			if got := s.sasl(t, i, nil).auth(saslScramPlus, false, lines()); !strings.HasPrefix(got, p.unoffered) {
				t.Errorf("PLUS without TLS: %s", got)
			}
		})
	}
	log := s.log.String()
	if strings.Contains(log, "panic") || strings.Contains(log, "cannot check") || strings.Contains(log, "command failed") {
		t.Errorf("log: %s", log)
	}
	if n := strings.Count(log, "no SCRAM yet"); n != len(saslProtocols) || !strings.Contains(log, "user=old") {
		t.Errorf("%d times said that old has no keys", n)
	}
}

// A client that does not believe the server's proof is not logged in.
func TestSASLClientMayRefuseTheServer(t *testing.T) {
	s := saslServer(t, nil)
	for i, p := range saslProtocols {
		for _, last := range []string{"*", encode64("more")} {
			c := s.sasl(t, i, s.onlyTLS(tls.VersionTLS13))
			client, err := scram.SHA256.NewClient("ann", "ann-secret", "")
			if err != nil {
				t.Fatal(err)
			}
			conversation := client.NewConversation()
			got := c.auth(saslScram, false, func(challenge string) string {
				if strings.HasPrefix(challenge, "v=") {
					return last
				}
				response, err := conversation.Step(challenge)
				if err != nil {
					t.Fatal(err)
				}
				return encode64(response)
			})
			if want := map[bool]string{true: p.cancel, false: p.malformed}[last == "*"]; !strings.HasPrefix(got, want) {
				t.Errorf("%s: got %s, want %s", p.name, got, want)
			}
		}
	}
	if log := s.log.String(); strings.Contains(log, "msg=login") {
		t.Errorf("log: %s", log)
	}
}

// Without TLS nothing is offered to other machines, SCRAM neither.
func TestSASLNeedsTLS(t *testing.T) {
	s := saslServer(t, func(p *Protocols) {
		p.wrapConn = func(c net.Conn) net.Conn {
			return elsewhere{c, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4321}}
		}
	})
	for i, refusal := range []string{"a NO [PRIVACYREQUIRED] ", "-ERR [SYS/PERM] ", "538 5.7.11 "} {
		if got := s.sasl(t, i, nil).auth(saslScram, false, lines("n,,n=ann,r=x")); !strings.HasPrefix(got, refusal) {
			t.Errorf("got %s, want %s", got, refusal)
		}
		if got := s.sasl(t, i, s.onlyTLS(tls.VersionTLS13)).scram(false, &saslProof{user: "ann", password: "ann-secret"}); !strings.HasPrefix(got, saslProtocols[i].ok) {
			t.Errorf("under TLS: %s", got)
		}
	}
}

// Failures by SCRAM count as others do, each of them, and throttle logins by SCRAM as well.
func TestSASLIsThrottled(t *testing.T) {
	a := openTestAccounts(t, saslAccounts(t))
	c := saslConn(a)
	c.Remote = netip.MustParseAddr("192.0.2.7")
	try := func(password string) error {
		t.Helper()
		client, err := scram.SHA256.NewClient("ann", password, "")
		if err != nil {
			t.Fatal(err)
		}
		conversation := client.NewConversation()
		x := &saslExchange{ctx: t.Context(), c: c, protocol: "test", mechanism: saslScram}
		x.next = newSASLScram(x).first
		challenge := ""
		for {
			response, err := conversation.Step(challenge)
			if err != nil {
				t.Fatal(err)
			}
			reply, done, err := x.Next([]byte(response))
			if done || err != nil {
				return err
			}
			challenge = string(reply)
		}
	}
	for i := range throttleRemote {
		if err := try("the same wrong one"); !errors.Is(err, ErrBadLogin) {
			t.Fatalf("attempt %d: %v", i, err)
		}
	}
	if err := try("ann-secret"); !errors.Is(err, ErrThrottled) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Login(t.Context(), "test", "ann", "ann-secret"); !errors.Is(err, ErrThrottled) {
		t.Errorf("by password: %v", err)
	}
}

// The replies of the protocols to a throttled login.
func TestSASLThrottledReplies(t *testing.T) {
	s := saslServer(t, nil)
	for i := range throttleLoopback {
		attempt, err := s.env.throttle.Begin(netip.MustParseAddr("127.0.0.1"), fmt.Sprint("somebody", i), "wrong")
		if err != nil {
			t.Fatal(err)
		}
		attempt.Failed()
		attempt.End()
	}
	for i, p := range saslProtocols {
		if got := s.sasl(t, i, s.onlyTLS(tls.VersionTLS13)).scram(true, &saslProof{user: "ann", password: "ann-secret"}); !strings.HasPrefix(got, p.throttle) {
			t.Errorf("%s: %s", p.name, got)
		}
	}
}

// A password that is revoked or changed between the two messages does not log in.
func TestSCRAMLooksTwice(t *testing.T) {
	a := openTestAccounts(t, saslAccounts(t))
	for _, change := range []func() error{
		func() error { return a.RemoveAppPassword("ann@test.lan", "phone") },
		func() error { _, err := a.Remove("ann@test.lan"); return err },
	} {
		c := saslConn(a)
		client, err := scram.SHA256.NewClient("ann", saslPhone, "")
		if err != nil {
			t.Fatal(err)
		}
		conversation := client.NewConversation()
		x, err := c.newSASL(t.Context(), "test", saslScram)
		if err != nil {
			t.Fatal(err)
		}
		first, err := conversation.Step("")
		if err != nil {
			t.Fatal(err)
		}
		challenge, _, err := x.Next([]byte(first))
		if err != nil {
			t.Fatal(err)
		}
		final, err := conversation.Step(string(challenge))
		if err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := x.Next([]byte(final)); !errors.Is(err, ErrBadLogin) {
			t.Errorf("got %v", err)
		}
		if _, done, err := x.Next([]byte{}); done || err == nil { // it is over
			t.Errorf("afterwards: %v, %v", done, err)
		}
	}
}

// otherCertificate makes a certificate for localhost and lets the client trust it.
func otherCertificate(t *testing.T, client *tls.Config) tls.Certificate {
	t.Helper()
	server, _ := serverTLS(t)
	cert, err := x509.ParseCertificate(server.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	client.RootCAs.AddCert(cert)
	return server.Certificates[0]
}

// tls-server-end-point is of the certificate that the client was shown, in this handshake or in the one whose session it
// resumes. When the certificate is another one by now, there is a full handshake.
func TestEndPointBindingOfResumedSessions(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			s := saslServer(t, nil)
			config := s.onlyTLS(version)
			config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			login := func(resumed bool) {
				t.Helper()
				c := s.sasl(t, 1, config)
				if c.state.DidResume != resumed {
					t.Errorf("resumed: %v", c.state.DidResume)
				}
				proof := &saslProof{user: "ann", password: "ann-secret", binding: c.bindings()[scram.ChannelBindingTLSServerEndpoint]}
				if got := c.scram(false, proof); !strings.HasPrefix(got, "+OK ") {
					t.Error(got)
				}
				c.end()
			}
			login(false)
			login(true)
			login(true)
			before := s.TLS.Certificates[0]
			s.TLS.Certificates[0] = otherCertificate(t, config)
			login(false)
			login(true)
			s.TLS.Certificates[0] = before
			login(false)
		})
	}
}

// FuzzSCRAM plays messages of a client that knows no password, under TLS.
func FuzzSCRAM(f *testing.F) {
	f.Add(false, "n,,n=ann,r=x", "c=biws,r=$,p=", "")
	f.Add(false, "y,a=ann,n=ann,r=x,ext", "c=biws,r=$,e=x,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "")
	f.Add(false, "n,a=a=2Cb=3D,n=ann@test.lan,r=x", "c=bixhPWE9MkNiPTNELA==,r=$,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "")
	f.Add(true, "p=tls-exporter,,n=a=2Cnn,r=x", "c=cD10bHMtZXhwb3J0ZXIsLA==,r=$,p=", "")
	f.Add(true, "p=tls-server-end-point,,n=ann,r=x", "m=", "x")
	f.Add(true, "p=,,", "", "")
	a := openTestAccounts(f, saslAccounts(f))
	like := saslConn(a)
	settings, client := serverTLS(f)
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	like.secure = tls.Server(ours, settings)
	go func() { _ = tls.Client(theirs, client).Handshake() }() // the other side tells how it went
	if err := like.secure.Handshake(); err != nil {
		f.Fatal(err)
	}
	like.raw.certificate = settings.Certificates[0].Certificate[0]
	f.Fuzz(func(t *testing.T, plus bool, first, second, third string) {
		c := saslConn(a) // with a throttle of its own
		c.secure, c.raw.certificate = like.secure, like.raw.certificate
		mechanism := saslScram
		if plus {
			mechanism = saslScramPlus
		}
		x, err := c.newSASL(t.Context(), "test", mechanism)
		if err != nil {
			t.Fatal(err)
		}
		nonce := ""
		for _, message := range []string{first, second, third} {
			challenge, done, err := x.Next([]byte(strings.Replace(message, "$", nonce, 1))) // $ is the nonce of both
			if done || x.id != (Identity{}) {
				t.Fatalf("logged in as %v", x.id)
			}
			if err != nil {
				break
			}
			text, _, _ := strings.Cut(string(challenge), ",")
			if nonce = strings.TrimPrefix(text, "r="); nonce == text {
				t.Fatalf("answers %q", challenge)
			}
		}
	})
}

// BenchmarkSCRAMLogin is the server's work for a login by SCRAM of an account with three passwords.
func BenchmarkSCRAMLogin(b *testing.B) {
	const salt = "the salt of ann."
	text := fmt.Sprintf("[[user]]\naddress = 'ann@test.lan'\npassword = '%s'\n", quickField(b, "ann-secret", salt))
	for i := range 2 {
		text += fmt.Sprintf("[[user.app_password]]\nname = '%d'\npassword = '%s %s'\n", i, hashAppPassword(saslPhone), quickKeys(b, saslPhone, salt))
	}
	c := saslConn(openTestAccounts(b, text))
	client, err := scram.SHA256.NewClient("ann", saslPhone, "")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		conversation := client.NewConversation()
		x, err := c.newSASL(context.Background(), "test", saslScram)
		if err != nil {
			b.Fatal(err)
		}
		challenge := ""
		for !x.done {
			response, err := conversation.Step(challenge)
			if err != nil {
				b.Fatal(err)
			}
			reply, _, err := x.Next([]byte(response))
			if err != nil {
				b.Fatal(err)
			}
			challenge = string(reply)
		}
	}
}
