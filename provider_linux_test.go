package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// providerWorld is a family whose people have their addresses at a big provider, big.test: another appliance, which lets
// nobody send as somebody else either. The family's own domain is home.lan.
type providerWorld struct {
	*sendWorld
	t        *testing.T
	provider *running
	home     *worldHost
	hooks    *call

	held  sync.Mutex
	conns []net.Conn // to the provider's server for outgoing mail
}

const providerZone = "mail.big.test. A 192.0.2.1\nbig.test. MX 10 mail.big.test.\n"

func openProviderWorld(t *testing.T) *providerWorld {
	t.Helper()
	w := &providerWorld{sendWorld: openSendWorld(t, providerZone), t: t}
	data := t.TempDir()
	for _, name := range []string{"maria", "bob", "eve"} {
		w.run(data, name+"-over-there", 0, "user add "+name+"@big.test --password-stdin")
	}
	w.provider = startRunWith(t, data, &call{adjust: w.adjust}, "--hostname", "mail.big.test")
	w.open(true)
	w.home = &worldHost{}
	w.hooks = &call{adjust: w.trust, adjustOutside: w.outside, adjustOutbound: func(cfg *OutboundConfig) { cfg.Now = w.home.now }}
	data = homeData(t)
	mustRun(t, data, "user", "add", "bob")
	for _, name := range []string{"maria", "bob"} {
		w.run(data, "submit-secret", 0, "user passwd "+name+" --password-stdin")
	}
	w.home.running = w.start(data)
	return w
}

// start starts the family's appliance.
func (w *providerWorld) start(data string) *running {
	hooks := *w.hooks
	return startRunWith(w.t, data, &hooks, "--hostname", "raspberrypi.local")
}

// open lets the provider's server for outgoing mail answer, or not; connections that stand go down with it.
func (w *providerWorld) open(yes bool) {
	w.held.Lock()
	defer w.held.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
	w.place("192.0.2.1:465", map[bool]string{true: w.provider.at(465)}[yes])
}

// at is where a port of an appliance is.
func (r *running) at(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port+r.offset))
}

// roots are what vouches for the provider.
func (w *providerWorld) roots() *x509.CertPool {
	text, err := os.ReadFile(filepath.Join(w.provider.data, "tls", "ca.pem"))
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(text) {
		w.t.Errorf("the provider's authority: %v", err)
	}
	return pool
}

func (w *providerWorld) trust(s *Sender) {
	w.adjust(s)
	s.Roots = w.roots()
	s.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		w.held.Lock()
		defer w.held.Unlock()
		conn, err := w.dialTest(ctx, network, address)
		if err == nil {
			w.conns = append(w.conns, conn)
		}
		return conn, err
	}
}

// outside leads those who fetch mail to the provider.
func (w *providerWorld) outside(d *outsideDialer) {
	d.Roots = w.roots()
	d.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != "mail.big.test:993" {
			return nil, fmt.Errorf("nobody is at %s", address)
		}
		return new(net.Dialer).DialContext(ctx, network, w.provider.at(993))
	}
}

// run runs a command that may ask for a password, and gives what it prints.
func (w *providerWorld) run(data, password string, want int, args string) string {
	w.t.Helper()
	var out, errs bytes.Buffer
	c := call{stdin: strings.NewReader(password + "\n"), stdout: &out, stderr: &errs}
	if w.hooks != nil {
		c.adjust, c.adjustOutside = w.hooks.adjust, w.hooks.adjustOutside
	}
	if status := c.do(context.Background(), append(strings.Fields(args), "--data", data)); status != want {
		w.t.Fatalf("%s: %d %s", args, status, errs.String())
	}
	return out.String() + errs.String()
}

// atHome is run on the family's appliance.
func (w *providerWorld) atHome(password string, want int, args string) string {
	w.t.Helper()
	return w.run(w.home.data, password, want, args)
}

// submit sends a message of somebody's and expects a reply at its end.
func (w *providerWorld) submit(who, from, to, subject string) {
	w.t.Helper()
	c := w.login(who)
	c.send("MAIL FROM:<" + from + ">\r\nRCPT TO:<" + to + ">\r\nDATA\r\n")
	c.expect("250 ", "250 ", "354 ")
	c.send("From: " + from + "\r\nTo: " + to + "\r\nSubject: " + subject + "\r\n\r\ntext\r\n.\r\n")
	c.expect("250 2.0.0 Queued")
}

func (w *providerWorld) login(who string) *rawClient {
	w.t.Helper()
	c := w.home.open(w.t, 587)
	c.send("EHLO laptop\r\nAUTH PLAIN " + encodeLine("{plain "+who+"@home.lan submit-secret}") + "\r\n")
	c.expect("220 ", "250 ", "235 ")
	return c
}

// mailOver gives how many messages somebody has at the provider.
func (w *providerWorld) mailOver(name string) int {
	n := 0
	for _, sub := range []string{"new", "cur"} {
		n += len(filesIn(w.t, filepath.Join(dataDir(w.provider.data).mail(), "big.test", name, sub)))
	}
	return n
}

// The whole way of a family without a domain of its own, as the README has it.
func TestNoDomainOfOnesOwn(t *testing.T) {
	w := openProviderWorld(t)
	for _, name := range []string{"maria", "bob"} {
		got := w.atHome(name+"-over-there", exitDone, fmt.Sprintf("collect add %s imap mail.big.test %s@big.test --password-stdin", name, name))
		if !strings.Contains(got, fmt.Sprintf("%[1]s@home.lan can send with %[1]s@big.test now, too.\nLet the provider's server for outgoing mail (SMTP) send it, or others will refuse it:\n  ", name)) ||
			!strings.HasSuffix(got, fmt.Sprintf(" relay set HOST %[1]s@big.test --for %[1]s@big.test\n", name)) {
			t.Errorf("collect add: %s", got)
		}
		got = w.atHome(name+"-over-there", exitDone, fmt.Sprintf("relay set mail.big.test %[1]s@big.test --for %[1]s@big.test --password-stdin", name))
		if got != fmt.Sprintf("The login works. Mail from %s@big.test to other servers goes by mail.big.test:465 (TLS from the start) now.\n", name) {
			t.Errorf("relay set: %s", got)
		}
	}
	list := "maria@home.lan  maria@big.test  by mail.big.test:465\nbob@home.lan    bob@big.test    by mail.big.test:465\n"
	if got := w.atHome("", exitDone, "user sender list"); got != list {
		t.Errorf("user sender list: %s", got)
	}
	got := w.atHome("bob-over-there", exitDone, "relay set mail.big.test bob@big.test --for BIG.test --password-stdin")
	if got != "The login works. Mail from big.test to other servers goes by mail.big.test:465 (TLS from the start) now.\n"+
		"That is the mail of maria@big.test and bob@big.test. Where each has a login of its own, set a relay for each: --for ADDRESS.\n" {
		t.Errorf("relay set for all: %s", got)
	}
	w.atHome("", exitDone, "relay remove --for big.test")

	// Between the two mail goes by the provider, each by their own login, and comes back once.
	w.submit("maria", "maria@big.test", "bob@big.test", "to bob")
	w.submit("bob", "bob@big.test", "Maria@BIG.test", "to maria")
	text := w.home.arrival(t, "bob@home.lan", "Subject: to bob")
	w.home.arrival(t, "maria@home.lan", "Subject: to maria")
	for _, part := range []string{"Return-Path: <maria@big.test>\r\n", "From: maria@big.test\r\n", "by mail.big.test with ESMTPSA", "by raspberrypi.local with ESMTPA"} {
		if !strings.Contains(text, part) {
			t.Errorf("what comes back lacks %q:\n%s", part, text)
		}
	}
	if strings.Contains(text, "DKIM-Signature") {
		t.Errorf("it is signed for a domain that is not ours:\n%s", text)
	}

	// Nobody sends as the other, nor as somebody else over there.
	c := w.login("bob")
	for _, from := range []string{"maria@big.test", "eve@big.test"} {
		c.send("MAIL FROM:<" + from + ">\r\n")
		c.expect("553 5.7.1 " + from + " is not an address of bob@home.lan; `appliance user sender add` lets somebody send with an address elsewhere")
	}
	c.send("MAIL FROM:<bob@big.test>\r\nRCPT TO:<eve@big.test>\r\nDATA\r\n")
	c.expect("250 ", "250 ", "354 ")
	c.send("From: maria@big.test\r\n\r\ntext\r\n.\r\n")
	c.expect("550 5.7.1 The message is from maria@big.test, which is not an address of bob@home.lan; `appliance user sender add` lets")

	// What the provider refuses, and what waits for it, is told at home.
	w.submit("maria", "maria@big.test", "nobody@big.test", "to nobody")
	w.home.arrival(t, "maria@home.lan", "report-type=delivery-status", "Action: failed", "There is no nobody@big.test here", "Subject: to nobody", "To: <maria@big.test>")
	w.open(false)
	w.submit("maria", "maria@big.test", "eve@big.test", "patience")
	for end := time.Now().Add(20 * time.Second); !strings.Contains(mustRun(t, w.home.data, "queue", "list"), "by the relay mail.big.test:465: "); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it is not tried: %s", mustRun(t, w.home.data, "queue", "list"))
		}
	}
	w.home.delayed(t, "maria@home.lan", "Subject: patience")

	// A restart keeps all of it.
	w.home.stop(t)
	w.open(true)
	w.home.running = w.start(w.home.data)
	mustRun(t, w.home.data, "queue", "retry", "--all")
	w.provider.inbox(t, "eve@big.test", 1)
	if got := w.atHome("", exitDone, "user sender list"); got != list {
		t.Errorf("user sender list after a restart: %s", got)
	}
	w.submit("bob", "bob@big.test", "maria@big.test", "after the restart")
	w.home.arrival(t, "maria@home.lan", "Subject: after the restart")
	for end := time.Now().Add(20 * time.Second); w.mailOver("maria")+w.mailOver("bob") > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what was collected stays over there")
		}
	}
	// Maria has bob's two, a bounce and a notice of a delay; Bob has hers.
	for account, want := range map[string]int{"maria@home.lan": 4, "bob@home.lan": 1} {
		if got := w.home.inbox(t, account, want); len(got) != want {
			t.Errorf("%s has %d messages, want %d: %q", account, len(got), want, got)
		}
	}
	if n := w.mailOver("eve"); n != 1 {
		t.Errorf("eve has %d messages", n)
	}

	// Who goes leaves no password behind.
	if got := w.atHome("", exitDone, "user remove bob"); !strings.HasSuffix(got, "The relay for bob@big.test is removed, with the password for it.\n") {
		t.Errorf("user remove: %s", got)
	}
	if got := w.atHome("", exitDone, "relay list"); strings.Contains(got, "bob") || !strings.HasPrefix(got, "Mail from maria@big.test  mail.big.test:465") {
		t.Errorf("relay list: %s", got)
	}
	if text, err := os.ReadFile(dataDir(w.home.data).relays()); err != nil || strings.Contains(string(text), "bob") {
		t.Errorf("relays.toml: %s %v", text, err)
	}
	if got := w.atHome("", exitDone, "user sender remove maria MARIA@big.test"); got != "maria@home.lan does not send with maria@big.test any more.\nThe relay for maria@big.test is removed, with the password for it.\n" {
		t.Errorf("user sender remove: %s", got)
	}
	c = w.login("maria")
	c.send("MAIL FROM:<maria@big.test>\r\n")
	c.expect("553 5.7.1 ")
	if log := w.home.stderr.String(); strings.Contains(log, "-over-there") {
		t.Error("the log has a password")
	}
}
