package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xdg-go/scram"
)

// pebbleVariable names the program of .ci/acme, an authority to get certificates from. Without it these tests skip:
//
//	(cd .ci/acme && go build -o /tmp/pebble .) && APPLIANCE_TEST_PEBBLE=/tmp/pebble go test -run Pebble .
const pebbleVariable = "APPLIANCE_TEST_PEBBLE"

// pebbleWorld is an appliance, an authority, and a DNS in which names can begin to exist.
type pebbleWorld struct {
	*running
	t         *testing.T
	dns       *testDNS
	directory string
	root      string         // file
	issuer    *x509.CertPool // of the certificates that it gives
	password  string
	later     atomic.Int64 // how far the appliance's clock is ahead, in ns
}

// startPebble starts the authority. Its certificates are good for some seconds; it comes to the ports 80 and 443 of the offset.
func startPebble(t *testing.T, offset, seconds int) *pebbleWorld {
	program := os.Getenv(pebbleVariable)
	if program == "" {
		t.Skip("there is no Pebble: " + pebbleVariable + " is not set")
	}
	w := &pebbleWorld{t: t, dns: startDNS(t, ""), issuer: x509.NewCertPool()}
	dir := t.TempDir()
	cmd := exec.Command(program, "-dns", w.dns.Servers[0], "-http", strconv.Itoa(80+offset), "-tls", strconv.Itoa(443+offset),
		"-valid", strconv.Itoa(seconds), "-dir", dir)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1") // else it waits up to 15 s before it looks
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // it ends with its input
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	w.directory, w.root = strings.TrimSpace(line), filepath.Join(dir, "root.pem")
	issuer, err := os.ReadFile(filepath.Join(dir, "issuer.pem"))
	if err != nil || !w.issuer.AppendCertsFromPEM(issuer) {
		t.Fatalf("issuer: %v", err)
	}
	return w
}

// start starts the appliance.
func (w *pebbleWorld) start(data string, offset int, args ...string) {
	w.t.Helper()
	w.running = startAdjusted(w.t, data, offset, &call{adjustCertificates: func(cfg *CertificatesConfig) {
		cfg.Public.Resolver, cfg.Now = w.dns.Resolver, func() time.Time { return time.Now().Add(time.Duration(w.later.Load())) }
	}}, args...)
	if found := regexp.MustCompile(`(?m)^  Password +(\S+)$`).FindStringSubmatch(w.stdout.String()); found != nil {
		w.password = found[1]
	}
}

// flags are those that name the authority and the host.
func (w *pebbleWorld) flags() []string {
	return []string{"--hostname", "mail.example.test", "--acme-directory", w.directory, "--acme-root", w.root}
}

// served does a handshake under a name and gives what is served there, and whether the authority has given it. The connection
// ends with the test.
func (w *pebbleWorld) served(port int, name string) (*tls.Conn, bool) {
	w.t.Helper()
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port+w.offset), &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	return conn, w.given(conn, name)
}

// given says whether the certificate that was shown is one of the authority's for a name, and good.
func (w *pebbleWorld) given(conn *tls.Conn, name string) bool {
	chain := conn.ConnectionState().PeerCertificates
	others := x509.NewCertPool()
	for _, cert := range chain[1:] {
		others.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: w.issuer, Intermediates: others, DNSName: name})
	return err == nil
}

// await looks until something holds, and says how long that took.
func (w *pebbleWorld) await(what string, within time.Duration, holds func() bool) time.Duration {
	w.t.Helper()
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if holds() {
			took := time.Since(begin)
			w.t.Logf("%s after %.1f s", what, took.Seconds())
			return took
		}
		if time.Since(begin) > within {
			w.t.Fatalf("not within %s: %s\n%s", within, what, w.stderr.String())
		}
	}
}

func (w *pebbleWorld) awaitServed(name string, within time.Duration) {
	w.t.Helper()
	w.await("the certificate of "+name+" is served", within, func() bool {
		conn, given := w.served(993, name)
		_ = conn.Close() // one address has so many
		return given
	})
}

// openSession is a session that is to live through everything.
type openSession struct {
	name, ask, want string
	in              *bufio.Reader
	out             io.Writer
}

func (s *openSession) lives(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(s.out, s.ask+"\r\n"); err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	if line, err := s.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, s.want) {
		t.Fatalf("%s: %q, %v", s.name, line, err)
	}
}

// openSessions opens one of each protocol, with TLS in each way.
func (w *pebbleWorld) openSessions() []*openSession {
	in, conn, answer := w.imapLogin(w.t, w.owner(), w.password)
	if !strings.Contains(answer, "x OK") {
		w.t.Fatal(answer)
	}
	sessions := []*openSession{{"imap", "x NOOP", "x OK", in, conn}}
	for _, s := range []struct {
		port           int
		name, ask, yes string
	}{{995, "pop3", "CAPA", "+OK"}, {465, "submission", "NOOP", "250"}} {
		conn, _ := w.served(s.port, "")
		in := bufio.NewReader(conn)
		if _, err := in.ReadString('\n'); err != nil {
			w.t.Fatal(err)
		}
		if s.name == "pop3" {
			s.ask, s.yes = "USER "+w.owner(), "+OK"
		}
		sessions = append(sessions, &openSession{s.name, s.ask, s.yes, in, conn})
	}
	plain, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", 25+w.offset))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { plain.Close() })
	in = bufio.NewReader(plain)
	smtpStart(w.t, in, plain)
	secure := tls.Client(plain, &tls.Config{InsecureSkipVerify: true})
	if err := secure.Handshake(); err != nil {
		w.t.Fatal(err)
	}
	return append(sessions, &openSession{"smtp with STARTTLS", "NOOP", "250", bufio.NewReader(secure), secure})
}

// smtpStart brings a connection to where TLS begins.
func smtpStart(t *testing.T, in *bufio.Reader, out io.Writer) {
	t.Helper()
	for _, step := range []struct{ say, last string }{{"", "220 "}, {"EHLO client.test\r\n", "250 "}, {"STARTTLS\r\n", "220 "}} {
		if _, err := io.WriteString(out, step.say); err != nil {
			t.Fatal(err)
		}
		for line := ""; !strings.HasPrefix(line, step.last); {
			var err error
			if line, err = in.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (w *pebbleWorld) owner() string {
	found := regexp.MustCompile(`(?m)^  Address +(\S+)$`).FindStringSubmatch(w.stdout.String())
	if found == nil {
		w.t.Fatal("no address")
	}
	return found[1]
}

// status is `tls status --json`.
func (w *pebbleWorld) status() map[string]CertificateState {
	w.t.Helper()
	var list []CertificateState
	if err := json.Unmarshal([]byte(mustRun(w.t, w.data, "tls", "status", "--json")), &list); err != nil {
		w.t.Fatal(err)
	}
	byName := map[string]CertificateState{}
	for _, s := range list {
		byName[s.Name] = s
	}
	return byName
}

// TestPebbleNameBeginsToLeadHere is the life of a name: the machine's own certificate from the first second, an authority's soon
// after the name leads here, and nobody's session is cut.
func TestPebbleNameBeginsToLeadHere(t *testing.T) {
	offset := freeOffset(t)
	w := startPebble(t, offset, 3600)
	data := filepath.Join(t.TempDir(), "data")
	w.start(data, offset, w.flags()...)
	if _, given := w.served(993, "mail.example.test"); given {
		t.Fatal("an authority's certificate before the name leads here")
	}
	sessions := w.openSessions()
	w.await("the name is known not to be there", 15*time.Second, func() bool {
		s := w.status()["mail.example.test"]
		return s.Kind == CertificateLocal && s.Error == "mail.example.test is not in the DNS"
	})
	w.dns.add(t, "mail.example.test. A 127.0.0.1\nmta-sts.mail.example.test. A 127.0.0.1\nautoconfig.mail.example.test. A 192.0.2.9")
	w.awaitServed("mail.example.test", 15*time.Second)
	for _, s := range sessions {
		s.lives(t)
	}
	w.awaitServed("mta-sts.mail.example.test", 15*time.Second)

	conn, given := w.served(995, "mail.example.test")
	if !given {
		t.Error("the ports serve different certificates")
	}
	_ = conn.Close()
	plain, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", 25+offset))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	smtpStart(t, bufio.NewReader(plain), plain)
	server := tls.Client(plain, &tls.Config{InsecureSkipVerify: true})
	if err := server.Handshake(); err != nil || !w.given(server, "mail.example.test") {
		t.Errorf("a server that names nobody does not get the certificate of our name: %v", err)
	}
	if _, given := w.served(993, "localhost"); given {
		t.Error("localhost got an authority's certificate")
	}
	w.checkBinding()
	w.checkPolicy()

	status := w.status()
	if s := status["mail.example.test"]; s.Kind != CertificatePublic || s.Error != "" || !strings.Contains(s.Issuer, "Pebble") {
		t.Errorf("after: %+v", s)
	}
	// The names are looked up one after the other, and this one may be the last.
	elsewhere := "autoconfig.mail.example.test leads to 192.0.2.9, which is not known to be this machine"
	w.await("the name that leads elsewhere is said to", 15*time.Second, func() bool {
		s := w.status()["autoconfig.mail.example.test"]
		return s.Kind == CertificateLocal && s.Error == elsewhere
	})
	w.checkFiles()

	// The next start has it from the first handshake on, and the flags are in the settings.
	for _, s := range sessions {
		s.lives(t)
	}
	w.stop(t)
	w.dns.set(func(s *testDNS) { s.silent = true })
	w.start(data, offset, "--hostname", "mail.example.test")
	if _, given := w.served(993, "mail.example.test"); !given {
		t.Error("not served after a restart")
	}
	// One more name: the account with the authority is there, and has no address that one could write to.
	w.dns.set(func(s *testDNS) { clear(s.records); s.silent = false })
	w.dns.add(t, "autoconfig.mail.example.test. A 127.0.0.1")
	w.status()
	w.awaitServed("autoconfig.mail.example.test", 30*time.Second)
}

// checkBinding logs in by SCRAM with the digest of the certificate that this connection got.
func (w *pebbleWorld) checkBinding() {
	w.t.Helper()
	conn, given := w.served(993, "mail.example.test")
	if !given {
		w.t.Fatal("not served")
	}
	in := bufio.NewReader(conn)
	state := conn.ConnectionState()
	binding, err := scram.NewTLSServerEndpointBinding(&state)
	if err != nil {
		w.t.Fatal(err)
	}
	client, err := scram.SHA256.NewClient(w.owner(), w.password, "")
	if err != nil {
		w.t.Fatal(err)
	}
	talk := client.NewConversationWithChannelBinding(binding)
	if _, err := in.ReadString('\n'); err != nil {
		w.t.Fatal(err)
	}
	fmt.Fprint(conn, "x AUTHENTICATE SCRAM-SHA-256-PLUS\r\n")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			w.t.Fatal(err)
		}
		challenge, more := strings.CutPrefix(strings.TrimSpace(line), "+")
		if !more {
			if !strings.HasPrefix(line, "x OK") || !talk.Valid() {
				w.t.Errorf("SCRAM-SHA-256-PLUS with the digest of the certificate: %s", line)
			}
			return
		}
		text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(challenge))
		if err != nil {
			w.t.Fatal(err)
		}
		response := ""
		if !talk.Done() {
			if response, err = talk.Step(string(text)); err != nil {
				w.t.Fatal(err)
			}
		}
		fmt.Fprintf(conn, "%s\r\n", encode64(response))
	}
}

// checkPolicy reads the rules for mail under TLS as another server does.
func (w *pebbleWorld) checkPolicy() {
	w.t.Helper()
	get := func(host string) (int, string, string) {
		dial := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.issuer, ServerName: "mta-sts.mail.example.test"}, DisableKeepAlives: true}
		request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/.well-known/mta-sts.txt", 443+w.offset), nil)
		if err != nil {
			w.t.Fatal(err)
		}
		request.Host = host
		response, err := (&http.Client{Transport: dial}).Do(request)
		if err != nil {
			w.t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode, response.Header.Get("Content-Type"), string(body)
	}
	const want = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.test\r\nmax_age: 604800\r\n"
	if status, kind, body := get("mta-sts.mail.example.test"); status != 200 || kind != "text/plain" || body != want {
		w.t.Errorf("policy: %d %q %q", status, kind, body)
	}
	if status, _, body := get("mta-sts.other.test"); status != 404 {
		w.t.Errorf("policy of a stranger: %d %q", status, body)
	}
}

// checkFiles looks at what was written.
func (w *pebbleWorld) checkFiles() {
	w.t.Helper()
	files := 0
	err := filepath.Walk(filepath.Join(w.data, "tls", "acme"), func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		want := os.FileMode(0o600)
		if info.IsDir() {
			want = os.ModeDir | 0o700
		} else {
			files++
		}
		if info.Mode() != want {
			w.t.Errorf("%s: %v", path, info.Mode())
		}
		if strings.ContainsAny(filepath.Base(path), `:*<>|?"\`) {
			w.t.Errorf("%s is no name on Windows", path)
		}
		return nil
	})
	if err != nil || files < 6 { // two certificates, keys, metadata; the account
		w.t.Errorf("%d files, %v", files, err)
	}
	settings, err := os.ReadFile(filepath.Join(w.data, "settings.toml"))
	if err != nil || !strings.Contains(string(settings), "acme_directory = \""+w.directory+"\"\n") {
		w.t.Errorf("settings: %q, %v", settings, err)
	}
}

// TestPebbleRenewal gets certificates that are good for seconds: they are renewed in listeners that stay open, a name that does
// not lead here any more falls back to the machine's own certificate, and one that does again gets a new one.
func TestPebbleRenewal(t *testing.T) {
	const seconds = 18
	offset := freeOffset(t)
	w := startPebble(t, offset, seconds)
	w.dns.add(t, "mail.example.test. A 127.0.0.1")
	w.start(filepath.Join(t.TempDir(), "data"), offset, w.flags()...)
	w.awaitServed("mail.example.test", 30*time.Second)
	serial := func() string {
		conn, given := w.served(993, "mail.example.test")
		defer conn.Close() // one address has so many
		if !given {
			return ""
		}
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first, sessions, gaps := serial(), w.openSessions(), 0
	w.await("the certificate is renewed", 2*seconds*time.Second, func() bool {
		now := serial()
		if now == "" {
			gaps++
		}
		return now != "" && now != first
	})
	if gaps > 0 {
		t.Errorf("there was none %d times before that", gaps)
	}
	for _, s := range sessions {
		s.lives(t)
	}
	w.dns.set(func(s *testDNS) { clear(s.records) })
	w.await("the machine's own certificate is served again", 2*seconds*time.Second, func() bool { return serial() == "" })
	if s := w.status()["mail.example.test"]; s.Kind != CertificateLocal || s.Error != "mail.example.test is not in the DNS" {
		t.Errorf("status: %+v", s)
	}
	w.dns.add(t, "mail.example.test. A 127.0.0.1")
	w.await("it is there again", 30*time.Second, func() bool { return serial() != "" })
	for _, s := range sessions {
		s.lives(t)
	}
}

// pebbleDoor stands before the authority and can be shut: then connections end before a word is said.
type pebbleDoor struct {
	open atomic.Bool
	shut atomic.Int64 // connections that it was shut for
}

// throughDoor has the authority reached through a door, which is shut at first.
func (w *pebbleWorld) throughDoor() *pebbleDoor {
	w.t.Helper()
	directory, err := url.Parse(w.directory)
	if err != nil {
		w.t.Fatal(err)
	}
	behind := directory.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	d := new(pebbleDoor)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if !d.open.Load() {
				d.shut.Add(1)
				conn.Close()
				continue
			}
			go passOn(conn, behind)
		}
	}()
	directory.Host = l.Addr().String()
	w.directory = directory.String()
	return d
}

// passOn copies between a connection and a new one, both ways, until one of them ends.
func passOn(conn net.Conn, address string) {
	defer conn.Close()
	other, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer other.Close()
	go func() {
		defer other.Close()
		_, _ = io.Copy(other, conn)
	}()
	_, _ = io.Copy(conn, other)
}

// TestPebbleDownForAnHour has the authority down for an hour of the appliance's clock while the name leads here: it is asked ever
// less often, sessions stay open under the machine's own certificate, and the certificate comes with the first try after that.
func TestPebbleDownForAnHour(t *testing.T) {
	offset := freeOffset(t)
	w := startPebble(t, offset, 24*3600)
	door := w.throughDoor()
	w.dns.add(t, "mail.example.test. A 127.0.0.1")
	w.start(filepath.Join(t.TempDir(), "data"), offset, w.flags()...)
	sessions := w.openSessions()

	begin, tries := time.Now(), 0
	var next time.Time // when the appliance wants to try again
	for next.Before(begin.Add(time.Hour)) {
		before := next
		w.await("a try fails", time.Minute, func() bool {
			s := w.status()["mail.example.test"]
			next = s.Retry
			return s.Error != "" && next.After(before)
		})
		if tries++; tries > 5 {
			t.Fatal("the authority is asked more than five times in an hour")
		}
		if s := w.status()["mail.example.test"]; s.Kind != CertificateLocal || !strings.Contains(s.Error, "cannot be reached") {
			t.Errorf("after try %d: %+v", tries, s)
		}
		if _, given := w.served(993, "mail.example.test"); given {
			t.Error("an authority's certificate while there is none")
		}
		w.later.Store(int64(time.Until(next) + time.Second))
	}
	if tries < 3 || door.shut.Load() < int64(tries) {
		t.Errorf("%d tries and %d connections in an hour", tries, door.shut.Load())
	}
	door.open.Store(true)
	w.status() // it looks at the clock
	w.awaitServed("mail.example.test", 30*time.Second)
	for _, s := range sessions {
		s.lives(t)
	}
	w.await("the status says so", 30*time.Second, func() bool {
		s := w.status()["mail.example.test"]
		return s.Kind == CertificatePublic && s.Error == ""
	})
	t.Logf("%d tries in the hour", tries)
}

// TestPebbleOnePort gets a certificate although another program has one of the ports. One after the other: certmagic keeps the
// challenges of a process in one table by name, in which two appliances of one name would answer with each other's.
func TestPebbleOnePort(t *testing.T) {
	for _, taken := range []int{80, 443} {
		t.Run(strconv.Itoa(taken), func(t *testing.T) {
			offset := freeOffset(t)
			w := startPebble(t, offset, 3600)
			l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(taken+offset))))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			w.dns.add(t, "mail.example.test. A 127.0.0.1")
			w.start(filepath.Join(t.TempDir(), "data"), offset, w.flags()...)
			w.awaitServed("mail.example.test", 30*time.Second)
			if n := strings.Count(w.stderr.String(), "another program has the port"); n != 1 {
				t.Errorf("%d lines about the port:\n%s", n, w.stderr.String())
			}
		})
	}
}

// A full disk costs no order: authorities give few of them in a week. It is said, mail goes on, and with room again the certificate
// comes.
func TestPebbleFullDisk(t *testing.T) {
	small := os.Getenv("APPLIANCE_TEST_SMALL_DISK")
	if small == "" {
		t.Skip("needs a small file system in APPLIANCE_TEST_SMALL_DISK")
	}
	offset := freeOffset(t)
	w := startPebble(t, offset, 3600)
	door := w.throughDoor()
	dir, filler := filepath.Join(small, "tls"), filepath.Join(small, "filler")
	t.Cleanup(func() { _, _ = os.RemoveAll(dir), os.Remove(filler) })
	w.running = startAdjusted(t, filepath.Join(t.TempDir(), "data"), offset, &call{adjustCertificates: func(cfg *CertificatesConfig) {
		cfg.Dir, cfg.Public.Resolver, cfg.Now = dir, w.dns.Resolver, func() time.Time { return time.Now().Add(time.Duration(w.later.Load())) }
	}}, w.flags()...)
	fill(t, filler)
	w.dns.add(t, "mail.example.test. A 127.0.0.1")
	w.await("the disk is said to be full", 15*time.Second, func() bool {
		s := w.status()["mail.example.test"]
		return s.Kind == CertificateLocal && strings.HasPrefix(s.Error, "the certificate for mail.example.test could not be got: it could not be kept: ") && strings.HasSuffix(s.Error, "no space left on device")
	})
	if conn, _ := w.served(993, "mail.example.test"); conn == nil {
		t.Error("mail does not run")
	}
	if n := door.shut.Load(); n != 0 {
		t.Errorf("the authority was asked %d times", n)
	}
	door.open.Store(true)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	w.later.Add(int64(obtainBackOff(1)))
	w.status() // whoever asks has it looked at
	w.awaitServed("mail.example.test", 30*time.Second)
}

// fill writes a file until the disk is full.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 512); ; {
		if _, err := f.Write(block); err != nil {
			return
		}
	}
}
