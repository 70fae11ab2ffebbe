package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRelays(t *testing.T) {
	file := filepath.Join(t.TempDir(), "relays.toml")
	book, err := OpenRelays(file)
	if err != nil || book.For("ann@home.test") != nil || len(book.List()) != 0 {
		t.Fatalf("an empty book: %v", err)
	}
	general := RelaySetting{Host: "smtp.isp.test", Port: 465, TLS: tlsImplicit, User: "home", Password: "pass \"word\" ü"}
	own := RelaySetting{For: "BÜCHER.test", Host: "smtp.BÜCHER.test", Port: 587, TLS: tlsStart, User: "x@isp.test", Password: "p", From: "x@isp.test"}
	ann := RelaySetting{For: "Ann@bücher.test", Host: "smtp.bücher.test", Port: 587, TLS: tlsStart, User: "ann", Password: "p"}
	for _, r := range []RelaySetting{own, ann, general} {
		if err := book.Set(r); err != nil {
			t.Fatal(err)
		}
	}
	again, err := OpenRelays(file)
	if err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]Relay{
		"ann@home.test":            {"smtp.isp.test", 465, true, "home", "pass \"word\" ü", ""},
		"":                         {"smtp.isp.test", 465, true, "home", "pass \"word\" ü", ""},
		"bob@bücher.test":          {"smtp.xn--bcher-kva.test", 587, false, "x@isp.test", "p", "x@isp.test"},
		"Bob@XN--BCHER-KVA.test":   {"smtp.xn--bcher-kva.test", 587, false, "x@isp.test", "p", "x@isp.test"},
		"ann@bücher.test":          {"smtp.xn--bcher-kva.test", 587, false, "ann", "p", ""},
		"ANN@XN--BCHER-KVA.test":   {"smtp.xn--bcher-kva.test", 587, false, "ann", "p", ""},
		"ann+tag@bücher.test":      {"smtp.xn--bcher-kva.test", 587, false, "x@isp.test", "p", "x@isp.test"},
		"ann@sub.bücher.test":      {"smtp.isp.test", 465, true, "home", "pass \"word\" ü", ""},
		`"ann@bücher.test"@x.test`: {"smtp.isp.test", 465, true, "home", "pass \"word\" ü", ""},
	} {
		for _, b := range []*Relays{book, again} {
			if got := b.For(from); got == nil || *got != want {
				t.Errorf("%s: %+v, want %+v", from, got, want)
			}
		}
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v %v", st.Mode(), err)
	}
	if text, err := json.Marshal(book.List()); err != nil || strings.Contains(string(text), "pass") {
		t.Errorf("a list tells passwords: %s %v", text, err)
	}
	spare := func(local string) string {
		if r := book.Any(func(domain string) bool { return domain == local }); r != nil {
			return r.User
		}
		return ""
	}
	if got := spare("home.test"); got != "home" {
		t.Errorf("the spare relay is that of %q", got)
	}
	if err := book.Remove("other.test"); err == nil || !strings.Contains(err.Error(), "other.test has no relay of its own") {
		t.Errorf("removing none: %v", err)
	}
	if err := book.Remove(""); err != nil || book.For("ann@home.test") != nil || book.For("bob@bücher.test") == nil {
		t.Errorf("removing the general one: %v", err)
	}
	if foreign, ours := spare("home.test"), spare("bücher.test"); foreign != "" || ours != "x@isp.test" {
		t.Errorf("without a general one the spare is that of %q, and where the domain is ours that of %q", foreign, ours)
	}
	gone, err := book.Keep(func(scope string) bool { return !isAddress(scope) })
	if err != nil || len(gone) != 1 || gone[0].For != "ann@bücher.test" || book.For("ann@bücher.test").User != "x@isp.test" {
		t.Errorf("taking out those of addresses: %v %v", gone, err)
	}
	if gone, err := book.Keep(isAddress); err != nil || len(gone) != 1 || len(book.List()) != 0 {
		t.Errorf("taking out the rest: %v %v", gone, err)
	}
	for _, c := range []struct{ text, want string }{
		{"[[relay]]\nhost = 'a b'\nport = 1\ntls = 'implicit'\nuser = 'x'\npassword = 'y'\n", "relays.toml line 2: host: "},
		{"[[relay]]\nhost = 'a'\nport = 0\ntls = 'implicit'\nuser = 'x'\npassword = 'y'\n", "relays.toml line 3: port: 0 is not between"},
		{"[[relay]]\nhost = 'a'\nport = 1\ntls = 'none'\nuser = 'x'\npassword = 'y'\n", "line 4: tls: "},
		{"[[relay]]\nhost = 'a'\nport = 1\ntls = 'implicit'\nuser = ''\npassword = 'y'\n", "line 5: user: "},
		{"[[relay]]\nhost = 'a'\nport = 1\ntls = 'implicit'\nuser = 'x'\npassword = \"a\\nb\"\n", "line 6: password: "},
		{"[[relay]]\nhost = 'a'\nport = 1\ntls = 'implicit'\nuser = 'x'\npassword = 'y'\nfrom = 'x'\n", "line 7: from: "},
		{"[[relay]]\nfor = 'a b'\nhost = 'a'\nport = 1\ntls = 'implicit'\nuser = 'x'\npassword = 'y'\n", "line 2: for: \"a b\" is neither an address nor a domain"},
		{"[[relay]]\nfor = '@a'\nhost = 'a'\nport = 1\ntls = 'implicit'\nuser = 'x'\npassword = 'y'\n", "line 2: for: \"@a\" is not an address"},
		{"[[relay]]\nhots = 'a'\n", `line 2: there is no setting "relay.hots"`},
		{strings.Repeat("[[relay]]\nhost = 'a'\nport = 1\ntls = 'implicit'\nuser = 'x'\npassword = 'y'\n", 2), "there is a relay for these senders already"},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenRelays(file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
}

// A relay's port and TLS are found, and what is in the way is said in a sentence.
func TestFindRelay(t *testing.T) {
	auth := []string{"AUTH PLAIN LOGIN"}
	refused := func(c *remoteConn, line string) string {
		if strings.HasPrefix(line, "AUTH") {
			return "535 5.7.8 Bad\x1b[2J credentials"
		}
		return ""
	}
	onlyUser := func(c *remoteConn, line string) string {
		if strings.HasPrefix(line, "MAIL") && !strings.HasPrefix(line, "MAIL FROM:<user@isp.test>") {
			return "553 5.7.1 Sender address rejected: not owned by user"
		}
		return ""
	}
	for name, c := range map[string]struct {
		servers map[int]*remoteServer // by port
		cert    string                // name in the certificates, "": smtp.isp.test
		want    Relay
		sender  string
		ok      string // "PORT implicit FROM" of what is found
		fails   string
	}{
		"465":                    {servers: map[int]*remoteServer{465: {implicit: true, extensions: auth}, 587: {extensions: auth}}, ok: "465 true "},
		"587":                    {servers: map[int]*remoteServer{587: {extensions: auth}}, ok: "587 false "},
		"587 named":              {servers: map[int]*remoteServer{465: {implicit: true, extensions: auth}, 587: {extensions: auth}}, want: Relay{Port: 587}, ok: "587 false "},
		"25 named":               {servers: map[int]*remoteServer{25: {extensions: auth}}, want: Relay{Port: 25}, ok: "25 false "},
		"2465 from the start":    {servers: map[int]*remoteServer{2465: {implicit: true, extensions: auth}}, want: Relay{Port: 2465}, ok: "2465 true "},
		"26 STARTTLS":            {servers: map[int]*remoteServer{26: {extensions: auth}}, want: Relay{Port: 26}, ok: "26 false "},
		"LOGIN alone":            {servers: map[int]*remoteServer{587: {extensions: []string{"AUTH LOGIN"}, answer: loginDialogue}}, ok: "587 false "},
		"its user alone":         {servers: map[int]*remoteServer{465: {implicit: true, extensions: auth, answer: onlyUser}}, ok: "465 true user@isp.test"},
		"its user, and --from":   {servers: map[int]*remoteServer{465: {implicit: true, extensions: auth, answer: onlyUser}}, want: Relay{From: "user@isp.test"}, ok: "465 true user@isp.test"},
		"another --from":         {servers: map[int]*remoteServer{465: {implicit: true, extensions: auth, answer: onlyUser}}, want: Relay{From: "other@isp.test"}, fails: "the login works, but smtp.isp.test takes no mail from other@isp.test (it says: 553 Sender address rejected: not owned by user)"},
		"no name":                {want: Relay{Host: "nowhere.test"}, fails: "there is no server nowhere.test: check how"},
		"nothing open":           {fails: "nobody answers at smtp.isp.test on port 465 or 587 (it refuses connections): check the name and the port"},
		"a closed port":          {servers: map[int]*remoteServer{465: {implicit: true, extensions: auth}}, want: Relay{Port: 2525}, fails: "nobody answers at smtp.isp.test on port 2525"},
		"wrong password":         {servers: map[int]*remoteServer{465: {implicit: true, extensions: auth, answer: refused}, 587: {extensions: auth, answer: refused}}, fails: "smtp.isp.test on port 465 does not take this user and password (it says: 535 Bad?[2J credentials)"},
		"no login offered":       {servers: map[int]*remoteServer{587: {}}, fails: "smtp.isp.test on port 587 offers no login by user and password"},
		"no TLS offered":         {servers: map[int]*remoteServer{587: {extensions: auth}}, cert: "none", fails: "offers no TLS, and a password is not sent without"},
		"wrong certificate":      {servers: map[int]*remoteServer{465: {implicit: true, extensions: auth}}, cert: "other.test", fails: "the certificate of smtp.isp.test on port 465 is not right (its certificate is for another name)"},
		"not welcome":            {servers: map[int]*remoteServer{587: {extensions: auth, answer: at("", "554 5.7.1 listed")}}, fails: "smtp.isp.test on port 587 does not want to talk to us (it says: 554 5.7.1 listed)"},
		"no mail server at all":  {servers: map[int]*remoteServer{587: {answer: at("", "SSH-2.0-OpenSSH_9.2")}}, fails: "nobody answers"},
		"no TLS behind the port": {servers: map[int]*remoteServer{465: {extensions: auth}}, want: Relay{Port: 465}, fails: "TLS with smtp.isp.test on port 465 fails"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := openSendWorld(t, "smtp.isp.test. A 192.0.2.1")
			for port, s := range c.servers {
				switch c.cert {
				case "":
					s.tls = w.authority.serve("smtp.isp.test")
				case "none":
				default:
					s.tls = w.authority.serve(c.cert)
				}
				w.at(fmt.Sprintf("192.0.2.1:%d", port), s)
			}
			want := c.want
			want.User, want.Password = "user@isp.test", "secret"
			if want.Host == "" {
				want.Host = "SMTP.isp.test"
			}
			got, err := w.FindRelay(context.Background(), want, "ann@home.test")
			switch {
			case c.fails != "":
				if err == nil || !strings.Contains(err.Error(), c.fails) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v, want %q", err, c.fails)
				}
			case err != nil:
				t.Error(err)
			case fmt.Sprint(got.Port, got.Implicit, " ", got.From) != c.ok:
				t.Errorf("%+v, want %s", got, c.ok)
			}
			tries := 0
			for _, s := range c.servers {
				tries += s.said("AUTH")
				s.mu.Lock()
				for _, line := range s.lines {
					if s.tls == nil && strings.HasPrefix(line, "AUTH") {
						t.Errorf("a login in the clear: %s", line)
					}
				}
				s.mu.Unlock()
			}
			if tries > 1 {
				t.Errorf("%d logins", tries)
			}
		})
	}
	w := openSendWorld(t, "")
	w.dns.set(func(s *testDNS) { s.broken["smtp.isp.test."] = true })
	if _, err := w.FindRelay(context.Background(), Relay{Host: "smtp.isp.test"}, ""); err == nil || !strings.Contains(err.Error(), "connection to the internet") {
		t.Errorf("no DNS: %v", err)
	}
	w.at("192.0.2.1:465", &remoteServer{implicit: true, tls: w.authority.serve("192.0.2.1"), extensions: auth})
	w.Roots = x509.NewCertPool()
	if _, err := w.FindRelay(context.Background(), Relay{Host: "192.0.2.1", User: "x", Password: "y"}, ""); err == nil || !strings.Contains(err.Error(), "the certificate of 192.0.2.1 on port 465 is not right") {
		t.Errorf("by address: %v", err)
	}
}

// loginDialogue is AUTH LOGIN.
func loginDialogue(c *remoteConn, line string) string {
	switch line {
	case "AUTH LOGIN":
		return "334 VXNlcm5hbWU6"
	case base64.StdEncoding.EncodeToString([]byte("user@isp.test")):
		return "334 UGFzc3dvcmQ6"
	case base64.StdEncoding.EncodeToString([]byte("secret")):
		return "235 2.7.0 welcome"
	}
	return ""
}

// Mail by a relay: under TLS, after the login, under the envelope sender that it demands; the report of success is then ours.
func TestSendByRelay(t *testing.T) {
	w := openSendWorld(t, "smtp.isp.test. A 192.0.2.1\nx.test. A 192.0.2.2")
	s := w.at("192.0.2.1:587", &remoteServer{tls: w.authority.serve("smtp.isp.test"), extensions: []string{"AUTH PLAIN", "DSN"}})
	relay := &Relay{Host: "smtp.isp.test", Port: 587, User: "user", Password: "secret"}
	w.Relay = func(from string) *Relay { return relay }
	m := outgoing(sendTestText, "a@x.test", "b@y.test")
	m.Envelope.Recipients[0].Notify, m.Envelope.Recipients[1].Notify = NotifySuccess|NotifyFailure, NotifySuccess
	got := w.all(context.Background(), m)
	if len(got) != 2 || got[0].State != SendSent || !got[0].Reported || s.got()[0].mail != "MAIL FROM:<ann@home.test>" || !s.got()[0].secure {
		t.Errorf("plain: %+v %+v", got, s.got())
	}
	relay = &Relay{Host: "smtp.isp.test", Port: 587, User: "user2", Password: "secret", From: "home@isp.test"}
	got = w.all(context.Background(), m)
	last := s.got()[1]
	if got[0].State != SendSent || got[0].Reported || last.mail != "MAIL FROM:<home@isp.test>" || !strings.Contains(last.text, "From: ann@home.test\r\n") ||
		last.rcpts[0] != "RCPT TO:<a@x.test> NOTIFY=FAILURE" || last.rcpts[1] != "RCPT TO:<b@y.test> NOTIFY=NEVER" {
		t.Errorf("rewritten: %+v %+v", got, last)
	}
	m.Envelope.From = ""
	w.all(context.Background(), m)
	if last := s.got()[2]; last.mail != "MAIL FROM:<>" {
		t.Errorf("a report: %+v", last)
	}
	if n := s.said("AUTH PLAIN"); n != 2 { // the last one went over the second connection
		t.Errorf("%d logins", n)
	}
	other := w.Destination("ann@home.test", "x.test")
	relay = &Relay{Host: "smtp.isp.test", Port: 465, User: "user"}
	if o := w.Send(context.Background(), other, m)[0]; o.State != SendWaiting || o.Enhanced != "4.3.5" {
		t.Errorf("by a relay that is no longer set: %+v", o)
	}
	relay = &Relay{Host: "smtp.isp.test", Port: 587, User: "user3", Password: "old"}
	s.become(at("AUTH", "535 5.7.8 expired"))
	w.expect("a password that counts no more", w.all(context.Background(), m)[0], SendWaiting, "535 4.7.0 smtp.isp.test [192.0.2.1]", "set it anew with `appliance relay set` (it says: 535 expired)")
}

// openRelayWorld is a world with a provider's server, which takes mail of the user home with this password.
func openRelayWorld(t *testing.T, password string) (*sendWorld, *remoteServer) {
	t.Helper()
	w := openSendWorld(t, "smtp.isp.test. A 192.0.2.1\nfriends.test. A 192.0.2.2")
	return w, w.at("192.0.2.1:465", &remoteServer{implicit: true, tls: w.authority.serve("smtp.isp.test"), extensions: []string{"AUTH PLAIN"}, answer: func(c *remoteConn, line string) string {
		if strings.HasPrefix(line, "AUTH PLAIN ") && line != "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00home\x00"+password)) {
			return "535 5.7.8 wrong"
		}
		return ""
	}})
}

// The commands, with port 25 closed: what waits goes out by the relay at once, without a restart.
func TestRelayCommands(t *testing.T) {
	w, s := openRelayWorld(t, "provider secret")
	data := homeData(t)
	fillQueue(t, data, 1)
	r := startRunWith(t, data, &call{adjust: w.adjust}, "--hostname", "mail.home.test")
	list := mustRun(t, data, "relay", "list")
	if list != "There is no relay. Mail goes directly to other servers.\n" || mustRun(t, data, "relay", "list", "--json") != "[]\n" {
		t.Errorf("list: %s", list)
	}
	for _, c := range []struct{ password, args, want string }{
		{"wrong\n", "smtp.isp.test home --password-stdin", "appliance: nothing is changed: smtp.isp.test on port 465 does not take this user and password (it says: 535 wrong)"},
		{"x\n", "smtp.isp.test:26 home --password-stdin", "appliance: nothing is changed: nobody answers at smtp.isp.test on port 26"},
		{"x\n", "smtp.isp.test home --password-stdin --for other.test", "nobody here has an address at other.test"},
		{"x\n", "smtp.isp.test home --password-stdin --from nobody", "is not an address"},
		{"x\n", "smtp_isp.test home --password-stdin", "is no name of a server"},
		{"x\n", "smtp.isp.test:99999 home --password-stdin", "is no server: write it as HOST or HOST:PORT"},
		{"", "smtp.isp.test home --password-stdin", "there is no password on standard input"},
		{"", "smtp.isp.test home", "there is no terminal to ask for the password: give it with --password-stdin"},
	} {
		status, out, errs := runCommand(t, data, c.password, append([]string{"relay", "set"}, strings.Fields(c.args)...)...)
		if status == exitDone || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%s: %d %s %s", c.args, status, out, errs)
		}
	}
	if _, err := os.Stat(dataDir(data).relays()); err == nil {
		t.Error("what does not work was stored")
	}
	status, out, errs := runCommand(t, data, "provider secret\n", "relay", "set", "smtp.isp.test", "home", "--password-stdin", "--from", "home@isp.test")
	if want := "The login works. Mail to other servers goes by smtp.isp.test:465 (TLS from the start) now.\n" +
		"Its envelope sender is home@isp.test: what other servers report comes to that mailbox at the provider.\nThe message that waits is tried now.\n"; status != exitDone || out != want {
		t.Errorf("set: %d %q %s", status, out, errs)
	}
	select {
	case <-s.arrived:
	case <-time.After(20 * time.Second):
		t.Fatal("it does not go by the relay")
	}
	if got := s.got()[0]; got.mail != "MAIL FROM:<home@isp.test>" || got.rcpts[0] != "RCPT TO:<friend0@friends.test>" {
		t.Errorf("arrived: %+v", got)
	}
	if got := mustRun(t, data, "relay", "list"); !strings.Contains(got, "Mail  smtp.isp.test:465  TLS from the start  home  as home@isp.test\n") {
		t.Errorf("list: %s", got)
	}
	// A report has what the relay says, and `queue show` the relay.
	s.become(at("MAIL", "451 4.7.1 too much for today"))
	r.submit(t, "maria@home.lan", "friend@friends.test")
	id := ""
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text := mustRun(t, data, "queue", "list")
		if id, _, _ = strings.Cut(text, " "); strings.Contains(text, "for friend@friends.test by the relay smtp.isp.test:465: smtp.isp.test [192.0.2.1]: too much for today; next try") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("queue list: %s", text)
		}
	}
	if got := mustRun(t, data, "queue", "show", id); !strings.Contains(got, "by the relay smtp.isp.test:465") {
		t.Errorf("queue show: %s", got)
	}
	friends := w.at("192.0.2.2:25", &remoteServer{})
	if got := mustRun(t, data, "relay", "remove"); got != "Mail to other servers goes there directly now.\nThe message that waits is tried now.\n" {
		t.Errorf("remove: %s", got)
	}
	select {
	case <-friends.arrived:
	case <-time.After(20 * time.Second):
		t.Fatal("it does not go directly")
	}
	if status, _, errs := runCommand(t, data, "", "relay", "remove"); status != exitFailed || !strings.Contains(errs, "there is no relay for everybody") {
		t.Errorf("remove again: %d %s", status, errs)
	}
	if log := r.stderr.String(); strings.Contains(log, "provider secret") || !strings.Contains(log, "relay set") {
		t.Error("the log has the password, or nothing")
	}
}

// submit sends a message of somebody's by submission; the password is set for it.
func (r *running) submit(t testing.TB, from, to string) {
	t.Helper()
	if status, _, errs := runCommand(t, r.data, "submit-secret\n", "user", "passwd", from, "--password-stdin"); status != exitDone {
		t.Fatal(errs)
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", 587+r.offset))
	if err != nil {
		t.Fatal(err)
	}
	submitOver(t, conn, from, to, "hi")
}

// submitOver sends a message over a connection to the submission port.
func submitOver(t testing.TB, conn net.Conn, from, to, subject string) {
	t.Helper()
	c := &rawClient{t, conn, bufio.NewReader(conn)}
	defer c.Close()
	c.send("EHLO laptop\r\nAUTH PLAIN " + encodeLine("{plain "+from+" submit-secret}") + "\r\n")
	c.expect("220 ", "250 ", "235 ")
	c.send("MAIL FROM:<" + from + ">\r\nRCPT TO:<" + to + ">\r\nDATA\r\n")
	c.expect("250 ", "250 ", "354 ")
	c.send("From: " + from + "\r\nTo: " + to + "\r\nSubject: " + subject + "\r\n\r\ntext\r\n.\r\n")
	c.expect("250 ")
}
