package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// mailWorld is an internet on loopback: the host 192.0.2.N listens on 127.0.0.N, at ports of its own, and is seen by others
// under its public address.
type mailWorld struct {
	t         *testing.T
	dns       *testDNS
	authority *testAuthority // of the provider

	mu     sync.Mutex
	doors  map[string]string // public address and port to those on loopback
	closed map[string]bool   // public addresses whose network keeps port 25 of others closed
}

func openMailWorld(t *testing.T) *mailWorld {
	return &mailWorld{t: t, dns: startDNS(t, ""), authority: newTestAuthority(t), doors: map[string]string{}, closed: map[string]bool{}}
}

func publicAddress(n int) string   { return fmt.Sprintf("192.0.2.%d", n) }
func loopbackAddress(n int) string { return fmt.Sprintf("127.0.0.%d", n) }

// domain publishes what a domain has in the DNS.
func (w *mailWorld) domain(name string, host int) {
	w.dns.add(w.t, fmt.Sprintf(`
		%[1]s.        MX 10 mx.%[1]s.
		mx.%[1]s.     A %[2]s
		%[1]s.        TXT "v=spf1 mx -all"
		_dmarc.%[1]s. TXT "v=DMARC1; p=reject"
		%[3]d.2.0.192.in-addr.arpa. PTR mx.%[1]s.
	`, name, publicAddress(host), host))
}

func (w *mailWorld) key(record DNSRecord) {
	var parts []string // a text of the DNS has 255 octets at most
	for text := record.Value; text != ""; {
		n := min(200, len(text))
		parts = append(parts, strconv.Quote(text[:n]))
		text = text[n:]
	}
	w.dns.add(w.t, record.Name+". TXT "+strings.Join(parts, " "))
}

// door opens a port of a host.
func (w *mailWorld) door(host, port, number int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.doors[net.JoinHostPort(publicAddress(host), strconv.Itoa(port))] = net.JoinHostPort(loopbackAddress(host), strconv.Itoa(number))
}

// dialFrom is how a host reaches others.
func (w *mailWorld) dialFrom(host int) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		w.mu.Lock()
		there, closed := w.doors[address], w.closed[publicAddress(host)] && strings.HasSuffix(address, ":25")
		w.mu.Unlock()
		if there == "" || closed {
			return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
		}
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(loopbackAddress(host))}}
		return dialer.DialContext(ctx, network, there)
	}
}

// seen gives a connection from a host of this world its public address.
func (w *mailWorld) seen(c net.Conn) net.Conn {
	addr := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	if n := addr.Addr().As4()[3]; n > 1 {
		return elsewhere{c, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(publicAddress(int(n))), addr.Port()))}
	}
	return c
}

// worldHost is an appliance there.
type worldHost struct {
	*running
	clock sync.Mutex
	ahead time.Duration // of its queue's clock
}

func (h *worldHost) now() time.Time {
	h.clock.Lock()
	defer h.clock.Unlock()
	return time.Now().Add(h.ahead)
}

// appliance starts an appliance with one person.
func (w *mailWorld) appliance(host int, domain, person string) *worldHost {
	t := w.t
	t.Helper()
	w.domain(domain, host)
	data := t.TempDir()
	if status, _, errs := runCommand(t, data, "submit-secret\n", "user", "add", person+"@"+domain, "--password-stdin"); status != exitDone {
		t.Fatal(errs)
	}
	records, err := (&DKIMSigner{Dir: dataDir(data).dkim()}).Records(domain)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		w.key(r)
	}
	h := &worldHost{}
	hooks := &call{
		adjust:         func(s *Sender) { s.Resolver, s.Dial, s.Roots = w.dns.Resolver, w.dialFrom(host), w.authority.Roots },
		adjustOutbound: func(cfg *OutboundConfig) { cfg.Now = h.now },
		adjustPorts:    func(p *Protocols) { p.wrapConn = w.seen },
	}
	h.running = startRunWith(t, data, hooks, "--listen", loopbackAddress(host), "--hostname", "mx."+domain)
	w.door(host, 25, 25+h.offset)
	return h
}

// submit sends a message of the person's; its subject is what it is known by.
func (h *worldHost) submit(t *testing.T, host int, from, to, subject string) {
	t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort(loopbackAddress(host), strconv.Itoa(587+h.offset)))
	if err != nil {
		t.Fatal(err)
	}
	submitOver(t, conn, from, to, subject)
}

// messageWith gives a message of a maildir whose text has all of these parts, "" for none.
func messageWith(t *testing.T, dir string, parts ...string) string {
	t.Helper()
	for _, sub := range []string{"new", "cur"} {
		for _, text := range filesIn(t, filepath.Join(dir, sub)) {
			if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) }) {
				return text
			}
		}
	}
	return ""
}

// arrivalIn waits for such a message.
func arrivalIn(t *testing.T, dir string, log func() string, parts ...string) string {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if text := messageWith(t, dir, parts...); text != "" {
			return text
		}
		if time.Now().After(end) {
			t.Fatalf("nothing with %q arrives in %s:\n%s", parts, dir, log())
		}
	}
}

func (h *worldHost) arrival(t *testing.T, account string, parts ...string) string {
	t.Helper()
	local, domain, _ := strings.Cut(account, "@")
	return arrivalIn(t, filepath.Join(dataDir(h.data).mail(), domain, local), h.stderr.String, parts...)
}

// delayed lets hours go by until the notice of a delay arrives: it is left for the next look while a try is under way.
func (h *worldHost) delayed(t *testing.T, account string, parts ...string) {
	t.Helper()
	local, domain, _ := strings.Cut(account, "@")
	dir := filepath.Join(dataDir(h.data).mail(), domain, local)
	parts = append(parts, "Action: delayed")
	h.pass(queueDelayTold)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		h.pass(2 * queueSweep)
		mustRun(t, h.data, "queue", "retry", "--all")
		if messageWith(t, dir, parts...) != "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no notice of a delay arrives: %s", h.stderr.String())
		}
	}
}

func (h *worldHost) pass(d time.Duration) {
	h.clock.Lock()
	defer h.clock.Unlock()
	h.ahead += d
}

// passed checks what the receiver says of a message's origin.
func passed(t *testing.T, text, domain string) {
	t.Helper()
	field := regexp.MustCompile(`(?s)Authentication-Results:.*?\n[^\t ]`).FindString(text)
	for _, part := range []string{"spf=pass", "dkim=pass", "header.d=" + domain, "dmarc=pass", "iprev=pass"} {
		if !strings.Contains(field, part) {
			t.Errorf("%s: the results lack %s: %s", domain, part, field)
		}
	}
	if strings.Contains(field, "dkim=fail") {
		t.Errorf("%s: a signature fails: %s", domain, field)
	}
}

// Two appliances: mail both ways is signed and verified; bounces and delay notices come back.
func TestWorld(t *testing.T) {
	w := openMailWorld(t)
	one, two := w.appliance(2, "one.test", "ann"), w.appliance(3, "two.test", "bob")
	one.submit(t, 2, "ann@one.test", "bob@two.test", "from one")
	passed(t, two.arrival(t, "bob@two.test", "Subject: from one"), "one.test")
	two.submit(t, 3, "bob@two.test", "ann@one.test", "from two")
	passed(t, one.arrival(t, "ann@one.test", "Subject: from two"), "two.test")
	one.submit(t, 2, "ann@one.test", "nobody@two.test", "to nobody")
	one.arrival(t, "ann@one.test", "report-type=delivery-status", "Action: failed", "Status: 5.1.1", "There is no nobody@two.test here", "Subject: to nobody")

	w.dns.add(t, "shut.test. MX 10 mx.shut.test.\nmx.shut.test. A 192.0.2.99")
	one.submit(t, 2, "ann@one.test", "x@shut.test", "to a closed door")
	for end := time.Now().Add(20 * time.Second); !strings.Contains(mustRun(t, one.data, "queue", "list"), "refuses connections"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not tried")
		}
	}
	one.delayed(t, "ann@one.test", "Subject: to a closed door", "x@shut.test")

	// A domain that forges another's has its mail refused.
	forger := &Sender{Resolver: w.dns.Resolver, Hostname: func() string { return "mx.forger.test" }, Dial: w.dialFrom(9)}
	defer forger.Close()
	m := &Outgoing{Envelope: envelopeTo("ann@one.test", "bob@two.test"), Recipients: []int{0}, Message: strings.NewReader(forgedText), Size: int64(len(forgedText))}
	if o := forger.Send(context.Background(), "two.test", m)[0]; o.State != SendFailed || o.Enhanced != "5.7.26" {
		t.Errorf("forged mail: %+v", o)
	}
}

const forgedText = "From: ann@one.test\r\nTo: bob@two.test\r\nSubject: forged\r\n\r\ntext\r\n"

// postfixHost is Debian's Postfix with OpenDKIM, for third.test; its person is carl.
type postfixHost struct {
	dir  string
	port int
}

func (p *postfixHost) mailbox() string { return filepath.Join(p.dir, "mail", "carl") }

func (p *postfixHost) log() string {
	text, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// freePort finds a port of an address.
func freePort(t *testing.T, address string) int {
	t.Helper()
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// startPostfix starts both. Postfix asks no DNS of a test's, so it is told where the appliances are.
func (w *mailWorld) startPostfix(host int, keys []DNSRecord, ways map[string]int) *postfixHost {
	t := w.t
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("Postfix starts as root only")
	}
	const master, opendkim = "/usr/lib/postfix/sbin/master", "/usr/sbin/opendkim"
	for _, program := range []string{master, opendkim} {
		if _, err := os.Stat(program); err != nil {
			t.Skipf("%s is missing, install Debian's postfix and opendkim", program)
		}
	}
	p := &postfixHost{dir: t.TempDir(), port: freePort(t, loopbackAddress(host))}
	for dir := p.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	milter := freePort(t, "127.0.0.1")
	public := w.opendkimKeys(p.dir, keys)
	w.key(public)
	w.domain("third.test", host)
	w.door(host, 25, p.port)
	p.writeConfig(t, host, milter, ways)
	start := func(name string, args ...string) {
		cmd := exec.Command(name, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil { // its children, too
				t.Error(err)
			}
			_ = cmd.Wait() // it tells of the signal
		})
	}
	start(opendkim, "-f", "-x", filepath.Join(p.dir, "opendkim.conf"))
	start(master, "-c", filepath.Join(p.dir, "etc"), "-d")
	for _, address := range []string{net.JoinHostPort(loopbackAddress(host), strconv.Itoa(p.port)), fmt.Sprintf("127.0.0.1:%d", milter)} {
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				conn.Close()
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s does not listen: %s", address, p.log())
			}
		}
	}
	return p
}

// opendkimKeys writes the key that signs for third.test, and the file of all public keys.
func (w *mailWorld) opendkimKeys(dir string, others []DNSRecord) DNSRecord {
	t := w.t
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	own := DNSRecord{"s1._domainkey.third.test", "TXT", "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)}
	var public strings.Builder
	for _, r := range append(others, own) {
		fmt.Fprintf(&public, "%s %s\n", r.Name, r.Value)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	for name, text := range map[string][]byte{"third.key": private, "public": []byte(public.String())} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return own
}

// makeFolders makes what Postfix finds at home after its installation.
func (p *postfixHost) makeFolders(t *testing.T, postfix, postdrop int) {
	t.Helper()
	for _, f := range []struct {
		names    string
		uid, gid int
		mode     os.FileMode
	}{
		{"etc spool spool/pid", 0, 0, 0o755},
		{"data mail", postfix, 0, 0o755},
		{"spool/active spool/bounce spool/corrupt spool/defer spool/deferred spool/flush spool/hold spool/incoming spool/private spool/saved spool/trace", postfix, 0, 0o700},
		{"spool/maildrop", postfix, postdrop, 0o730 | os.ModeSticky},
		{"spool/public", postfix, postdrop, 0o710 | os.ModeSetgid},
	} {
		for _, name := range strings.Fields(f.names) {
			dir := filepath.Join(p.dir, name)
			if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, f.uid, f.gid), os.Chmod(dir, f.mode)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (p *postfixHost) writeConfig(t *testing.T, host, milter int, ways map[string]int) {
	t.Helper()
	var transport strings.Builder
	for domain, door := range ways {
		n := map[string]int{"one.test": 2, "two.test": 3}[domain]
		fmt.Fprintf(&transport, " { %s = smtp:[%s]:%d }", domain, loopbackAddress(n), door)
	}
	owner, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroup("postdrop")
	if err != nil {
		t.Fatal(err)
	}
	p.makeFolders(t, number(t, owner.Uid), number(t, group.Gid))
	main := strings.NewReplacer("DIR", p.dir, "HOST", loopbackAddress(host), "MILTER", strconv.Itoa(milter), "WAYS", transport.String(),
		"UID", owner.Uid).Replace(`compatibility_level = 3.6
queue_directory = DIR/spool
maillog_file_prefixes = DIR
maillog_file = DIR/log
data_directory = DIR/data
myhostname = mx.third.test
mydomain = third.test
myorigin = third.test
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtp_bind_address = HOST
alias_maps =
alias_database =
virtual_mailbox_domains = third.test, fourth.test
virtual_mailbox_base = DIR/mail
virtual_mailbox_maps = inline:{ { carl@third.test = carl/ }, { carl@fourth.test = carl/ } }
virtual_minimum_uid = 1
virtual_uid_maps = static:UID
virtual_gid_maps = static:UID
transport_maps = inline:{WAYS }
smtp_tls_security_level = may
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
smtpd_recipient_restrictions = reject_unauth_destination
smtpd_milters = inet:127.0.0.1:MILTER
non_smtpd_milters = inet:127.0.0.1:MILTER
milter_default_action = tempfail
`)
	services := fmt.Sprintf("%s:%d inet n - n - - smtpd\n", loopbackAddress(host), p.port) +
		"pickup unix n - n 1 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 1 1 qmgr\ntlsmgr unix - - n 1000? 1 tlsmgr\nrewrite unix - - n - - trivial-rewrite\n" +
		"bounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nverify unix - - n - 1 verify\nflush unix n - n 1000? 0 flush\n" +
		"proxymap unix - - n - - proxymap\nsmtp unix - - n - - smtp\nrelay unix - - n - - smtp\nshowq unix n - n - - showq\nerror unix - - n - - error\nretry unix - - n - - error\n" +
		"discard unix - - n - - discard\nlocal unix - n n - - local\nvirtual unix - n n - - virtual\nanvil unix - - n - 1 anvil\nscache unix - - n - 1 scache\npostlog unix-dgram n - n - 1 postlogd\n"
	filter := fmt.Sprintf("Socket inet:%d@127.0.0.1\nMode sv\nDomain third.test\nSelector s1\nKeyFile %[2]s/third.key\nTestPublicKeys %[2]s/public\n"+
		"AuthservID mx.third.test\nAlwaysAddARHeader yes\nSyslog no\nRequireSafeKeys no\nLogWhy yes\nOversignHeaders From\n", milter, p.dir)
	for name, text := range map[string]string{"etc/main.cf": main, "etc/master.cf": services, "opendkim.conf": filter} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// send hands a message of carl's to Postfix.
func (p *postfixHost) send(t *testing.T, to, subject string) {
	t.Helper()
	cmd := exec.Command("/usr/sbin/sendmail", "-C", filepath.Join(p.dir, "etc"), "-f", "carl@third.test", to)
	cmd.Stdin = strings.NewReader("From: carl@third.test\nTo: " + to + "\nSubject: " + subject + "\nMessage-ID: <" + subject[:4] + "@third.test>\nDate: " + time.Now().Format(mailDate) + "\n\ntext\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sendmail: %v %s", err, out)
	}
}

// Two appliances and Postfix, three domains: mail from each to each; what each signs the others verify; bounces and delay
// notices; a provider's server when port 25 is closed.
func TestWorldWithPostfix(t *testing.T) {
	w := openMailWorld(t)
	one, two := w.appliance(2, "one.test", "ann"), w.appliance(3, "two.test", "bob")
	var keys []DNSRecord
	for _, h := range []*worldHost{one, two} {
		for _, domain := range []string{"one.test", "two.test"} {
			signer := &DKIMSigner{Dir: dataDir(h.data).dkim()}
			if _, err := os.Stat(filepath.Join(signer.Dir, domain)); err != nil {
				continue
			}
			records, err := signer.Records(domain)
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, records...)
		}
	}
	third := w.startPostfix(4, keys, map[string]int{"one.test": 25 + one.offset, "two.test": 25 + two.offset})

	one.submit(t, 2, "ann@one.test", "carl@third.test", "one to third")
	two.submit(t, 3, "bob@two.test", "carl@third.test", "two to third")
	for _, domain := range []string{"one.test", "two.test"} {
		text := arrivalIn(t, third.mailbox(), third.log, "Subject: "+strings.TrimSuffix(domain, ".test")+" to third")
		field := regexp.MustCompile(`(?s)Authentication-Results: mx\.third\.test.*?\n[^\t ]`).FindString(text)
		if !regexp.MustCompile(`dkim=pass [^;]*header\.d=`+regexp.QuoteMeta(domain)).MatchString(field) || strings.Contains(field, "dkim=fail") {
			t.Errorf("OpenDKIM says of %s: %s", domain, field)
		}
	}
	third.send(t, "ann@one.test", "third to one")
	third.send(t, "bob@two.test", "thrd to two")
	passed(t, one.arrival(t, "ann@one.test", "Subject: third to one"), "third.test")
	passed(t, two.arrival(t, "bob@two.test", "Subject: thrd to two"), "third.test")

	// Bounces: ours of what Postfix refuses, and Postfix's of what we refuse.
	one.submit(t, 2, "ann@one.test", "nobody@third.test", "to nobody")
	one.arrival(t, "ann@one.test", "Action: failed", "Status: 5.1.1", "Final-Recipient: rfc822; nobody@third.test", "mx.third.test", "Subject: to nobody")
	third.send(t, "nobody@two.test", "lost")
	arrivalIn(t, third.mailbox(), third.log, "Action: failed", "There is no nobody@two.test here", "Subject: lost")

	// The network of the first closes port 25: mail waits, its sender is told, and the provider's server takes it.
	w.mu.Lock()
	w.closed[publicAddress(2)] = true
	w.mu.Unlock()
	w.dns.add(t, "fourth.test. MX 10 mx.third.test.") // of third.test a connection may still be open
	one.submit(t, 2, "ann@one.test", "carl@fourth.test", "by the provider")
	for end := time.Now().Add(20 * time.Second); !strings.Contains(mustRun(t, one.data, "queue", "list"), "refuses connections"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not tried")
		}
	}
	one.delayed(t, "ann@one.test", "Subject: by the provider")
	w.provider(one)
	text := arrivalIn(t, third.mailbox(), third.log, "Subject: by the provider")
	if !regexp.MustCompile(`(?s)Authentication-Results: mx\.third\.test;[^;]*dkim=pass[^;]*header\.d=one\.test`).MatchString(text) || !strings.Contains(text, "From: ann@one.test") ||
		!strings.HasPrefix(strings.TrimPrefix(text, "Return-Path: <"), "home@isp.test>") {
		t.Errorf("by the provider: %s", text)
	}
}

// provider opens smtp.isp.test, sets it as the relay of an appliance, and passes on what it gets.
func (w *mailWorld) provider(h *worldHost) {
	t := w.t
	t.Helper()
	w.dns.add(t, "smtp.isp.test. A "+publicAddress(5))
	s := (&remoteServer{implicit: true, tls: w.authority.serve("smtp.isp.test"), extensions: []string{"AUTH PLAIN", "8BITMIME"}, answer: func(_ *remoteConn, line string) string {
		if strings.HasPrefix(line, "MAIL") && !strings.HasPrefix(line, "MAIL FROM:<home@isp.test>") {
			return "553 5.7.1 you are home@isp.test"
		}
		return ""
	}}).start(t)
	w.mu.Lock()
	w.doors[publicAddress(5)+":465"] = s.listener.Addr().String()
	w.mu.Unlock()
	status, out, errs := runCommand(t, h.data, "provider-secret\n", "relay", "set", "smtp.isp.test", "home@isp.test", "--password-stdin")
	if status != exitDone || !strings.Contains(out, "The message that waits is tried now.") {
		t.Fatal(out, errs)
	}
	select {
	case <-s.arrived:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing comes to the provider")
	}
	sender := &Sender{Resolver: w.dns.Resolver, Hostname: func() string { return "smtp.isp.test" }, Dial: w.dialFrom(5)}
	defer sender.Close()
	text := s.got()[0].text
	m := &Outgoing{Envelope: envelopeTo("home@isp.test", "carl@fourth.test"), Recipients: []int{0}, Message: strings.NewReader(text), Size: int64(len(text))}
	if o := sender.Send(context.Background(), "fourth.test", m)[0]; o.State != SendSent {
		t.Fatalf("the provider: %+v", o)
	}
}
