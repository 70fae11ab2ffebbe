package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// writeOwn writes a certificate and its key as a person brings them.
func (w *acmeTest) writeOwn(template *x509.Certificate) OwnFiles {
	w.t.Helper()
	certs, key := w.authority.pair(w.t, template)
	dir := w.t.TempDir()
	files := OwnFiles{filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem")}
	writeFiles(w.t, files, certs, key)
	return files
}

func writeFiles(t testing.TB, files OwnFiles, certs, key []byte) {
	t.Helper()
	for file, text := range map[string][]byte{files.Cert: certs, files.Key: key} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// pair gives a certificate with its chain, and its key, in PEM.
func (a *testIssuer) pair(t testing.TB, template *x509.Certificate) (certs, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if certs, err = a.sign(&private.PublicKey, template); err == nil {
		key, err = keyPEM(private)
	}
	if err != nil {
		t.Fatal(err)
	}
	return certs, key
}

func TestOwnFilesThatAreNotGood(t *testing.T) {
	a, now := newTestIssuer(t), time.Now()
	names := []string{"mail.example.org"}
	good, key := a.pair(t, &x509.Certificate{DNSNames: names})
	other, otherKey := a.pair(t, &x509.Certificate{DNSNames: names})
	leaf, chain := splitPEM(good)
	_, strangers := splitPEM(certsOf(newTestIssuer(t).pair(t, &x509.Certificate{DNSNames: names})))
	old, oldKey := a.pair(t, &x509.Certificate{DNSNames: names, NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-24 * time.Hour)})
	early, earlyKey := a.pair(t, &x509.Certificate{DNSNames: names, NotBefore: now.Add(24 * time.Hour), NotAfter: now.Add(48 * time.Hour)})
	person, personKey := a.pair(t, &x509.Certificate{DNSNames: names, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}})
	nobody, nobodyKey := a.pair(t, &x509.Certificate{})
	locked := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})
	broken := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})
	files := OwnFiles{filepath.Join(t.TempDir(), "cert"), filepath.Join(t.TempDir(), "key")}
	for _, test := range []struct {
		certs, key []byte
		want       string // CERT and KEY stand for the files
	}{
		{good, key, ""},
		{leaf, key, ""}, // what leads to its authority is somewhere else
		{[]byte("comment\n" + string(good)), append([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), key...), ""},
		{good, otherKey, "the key in KEY does not belong to the certificate in CERT"},
		{append(chain, leaf...), key, "the certificates in CERT are in the wrong order: this server's own comes first, then the one that signed it, and so on"},
		{append(leaf, strangers...), key, "the certificates in CERT do not follow each other: number 1 was not signed by number 2"},
		{append(good, other...), key, "the certificates in CERT do not follow each other: number 2 was not signed by number 3"},
		{old, oldKey, "the certificate in CERT has run out on " + now.Add(-24*time.Hour).UTC().Format(time.DateOnly)},
		{early, earlyKey, "the certificate in CERT begins on " + now.Add(24*time.Hour).UTC().Format(time.DateOnly) + " only"},
		{person, personKey, "the certificate in CERT is not for servers"},
		{nobody, nobodyKey, "the certificate in CERT is for no name"},
		{good, locked, "the key in KEY is locked with a passphrase: save it without one (openssl pkey -in key -out NEW)"},
		{good, good, "there is no private key in KEY: it is to be a file in PEM, with a line BEGIN PRIVATE KEY"},
		{key, key, "there is no certificate in CERT: it is to be a file in PEM, with a line BEGIN CERTIFICATE"},
		{nil, nil, "there is no certificate in CERT: it is to be a file in PEM, with a line BEGIN CERTIFICATE"},
		{broken, key, "a certificate in CERT is damaged: x509: malformed certificate"},
		{make([]byte, maxOwnFile+1), key, "CERT is larger than 256 KiB: it holds something else than a certificate or its key"},
	} {
		writeFiles(t, files, test.certs, test.key)
		text, pair, err := files.read(now)
		got := ""
		if err != nil {
			got = strings.NewReplacer(files.Cert, "CERT", files.Key, "KEY").Replace(err.Error())
		}
		if got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
		if err == nil {
			if again, err := tls.X509KeyPair(text, text); err != nil || len(again.Certificate) != len(pair.Certificate) {
				t.Errorf("its copy: %v", err)
			}
		}
	}
	if err := os.Remove(files.Key); err != nil {
		t.Fatal(err)
	}
	if _, _, err := files.read(now); err == nil {
		t.Error("a file that is not there: no error")
	}
}

func certsOf(certs, _ []byte) []byte { return certs }

// splitPEM cuts the first block off, and gives copies.
func splitPEM(text []byte) (first, rest []byte) {
	block, rest := pem.Decode(text)
	return pem.EncodeToMemory(block), append([]byte{}, rest...)
}

// The files are watched; bad ones change nothing; their last good state is kept.
func TestOwnCertificateIsWatched(t *testing.T) {
	w := newACMETest(t)
	w.own = w.writeOwn(&x509.Certificate{DNSNames: []string{"mail.example.org"}})
	w.Close()
	w.open()
	serial := func() string {
		t.Helper()
		cert, err := w.certificate(&tls.ClientHelloInfo{ServerName: "mail.example.org"})
		if err != nil {
			t.Fatal(err)
		}
		return cert.Leaf.SerialNumber.String()
	}
	first := serial()
	if got := w.served(&tls.ClientHelloInfo{ServerName: "mail.example.org"}); got != CertificateOwn {
		t.Fatalf("served: %s", got)
	}
	change := func(certs, key []byte) {
		t.Helper()
		writeFiles(t, w.own, certs, key)
		w.now = w.now.Add(ownRecheck)
		for _, file := range []string{w.own.Cert, w.own.Key} { // two writes may fall into one tick of a file system's clock
			if err := os.Chtimes(file, w.now, w.now); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, strange := w.authority.pair(t, &x509.Certificate{DNSNames: []string{"mail.example.org"}})
	renewed, key := w.authority.pair(t, &x509.Certificate{DNSNames: []string{"mail.example.org"}})
	change(renewed, strange)
	for range 5 {
		if serial() != first {
			t.Error("a bad file is used")
		}
		w.now = w.now.Add(ownRecheck)
	}
	if n := strings.Count(w.log.String(), "cannot be used; the one before stays"); n != 1 {
		t.Errorf("said %d times:\n%s", n, w.log.String())
	}
	if s := w.state("mail.example.org"); s.Kind != CertificateOwn || !strings.Contains(s.Error, "does not belong to the certificate") {
		t.Errorf("state %+v", s)
	}
	change(renewed, key)
	second := serial()
	if second == first || !strings.Contains(w.log.String(), "the certificate that was set has changed") {
		t.Errorf("the new one is not used:\n%s", w.log.String())
	}
	if s := w.state("mail.example.org"); s.Error != "" {
		t.Errorf("state %+v", s)
	}
	copied := filepath.Join(w.dir, "own.pem")
	if info, err := os.Stat(copied); err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("copy: %v, %v", info, err)
	}
	// The next start finds the copy, when the files are bad or not to be read.
	change([]byte("junk"), key)
	w.Close()
	w.open()
	if serial() != second {
		t.Error("the copy is not used")
	}
	if err := os.Remove(w.own.Cert); err != nil {
		t.Fatal(err)
	}
	w.Close()
	w.open()
	if serial() != second {
		t.Error("the copy is not used where the file is gone")
	}
	w.now = w.now.Add(91 * 24 * time.Hour)
	if got := w.served(&tls.ClientHelloInfo{ServerName: "mail.example.org"}); got != CertificateLocal {
		t.Errorf("run out: %s", got)
	}
	if s := w.state("mail.example.org"); s.Kind != CertificateLocal || s.Error == "" {
		t.Errorf("run out: %+v", s)
	}
	if err := os.Remove(copied); err != nil {
		t.Fatal(err)
	}
	w.Close()
	w.open() // neither is there, and mail goes on
	if got := w.served(&tls.ClientHelloInfo{ServerName: "mail.example.org"}); got != CertificateLocal {
		t.Errorf("nothing is there: %s", got)
	}
}

func TestTLSCommands(t *testing.T) {
	a := newTestIssuer(t)
	certs, key := a.pair(t, &x509.Certificate{DNSNames: []string{"mail.example.org"}})
	dir := t.TempDir()
	files := OwnFiles{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	writeFiles(t, files, certs, key)
	stranger := OwnFiles{filepath.Join(dir, "other.pem"), filepath.Join(dir, "other.key")}
	otherCerts, otherKey := a.pair(t, &x509.Certificate{DNSNames: []string{"mail.example.net"}})
	writeFiles(t, stranger, otherCerts, otherKey)

	data := filepath.Join(t.TempDir(), "data")
	if status, _, errs := runCommand(t, data, "", "tls", "status"); status != exitFailed || !strings.Contains(errs, "start the appliance once") {
		t.Errorf("before the first start: %d %s", status, errs)
	}
	settings := filepath.Join(data, "settings.toml")
	r := startRun(t, data, "--hostname", "mail.example.org")
	_, session, _ := r.imapLogin(t, "nobody", "x")
	for _, test := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"tls", "set"}, exitUsage, "tls set needs --cert FILE and --key FILE"},
		{[]string{"tls", "set", "--cert", files.Cert, "--key", stranger.Key}, exitFailed, "does not belong to the certificate"},
		{[]string{"tls", "set", "--cert", stranger.Cert, "--key", stranger.Key}, exitFailed, "the certificate is for mail.example.net, and this machine is called mail.example.org"},
		{[]string{"tls", "unset"}, exitFailed, "no certificate was set"},
	} {
		status, _, errs := runCommand(t, data, "", test.args...)
		if status != test.status || !strings.Contains(errs, test.want) {
			t.Errorf("%v: %d %s", test.args, status, errs)
		}
	}
	if _, err := os.Stat(settings); !isMissing(err) {
		t.Error("bad input changed the settings")
	}
	shown := func(port int) string {
		t.Helper()
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port+r.offset), &tls.Config{ServerName: "mail.example.org", InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Issuer.CommonName
	}
	kinds := func() string {
		t.Helper()
		var list []CertificateState
		if err := json.Unmarshal([]byte(mustRun(t, data, "tls", "status", "--json")), &list); err != nil {
			t.Fatal(err)
		}
		return list[0].Name + " " + string(list[0].Kind)
	}
	policy := func() int {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
		request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d%s", 443+r.offset, policyPath), nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = "mta-sts.mail.example.org"
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode
	}
	if got := kinds(); got != "mail.example.org local" {
		t.Errorf("at first: %s", got)
	}
	if got := policy(); got != http.StatusNotFound {
		t.Errorf("rules that promise a certificate which is not there: %d", got)
	}
	mustRun(t, data, "tls", "set", "--cert", files.Cert, "--key", files.Key)
	for _, port := range []int{993, 995, 465, 443} {
		if got := shown(port); got != "Appliance local CA (elsewhere.test)" {
			t.Errorf("port %d: %s", port, got)
		}
	}
	if _, err := session.Write([]byte("y LOGOUT\r\n")); err != nil { // the open session goes on
		t.Error(err)
	}
	if got := kinds(); got != "mail.example.org own" {
		t.Errorf("set: %s", got)
	}
	if got := policy(); got != http.StatusOK {
		t.Errorf("rules with the certificate: %d", got)
	}
	if out := mustRun(t, data, "tls", "status"); !regexp.MustCompile(`(?m)^mail\.example\.org +Appliance local CA \(elsewhere\.test\) +until \d{4}-\d\d-\d\d$`).MatchString(out) {
		t.Errorf("status: %s", out)
	}
	r.stop(t)
	if got := kinds(); got != "mail.example.org own" {
		t.Errorf("stopped: %s", got)
	}
	before, err := os.ReadFile(filepath.Join(data, "tls", "server.pem"))
	if err != nil {
		t.Fatal(err)
	}
	r = startRun(t, data, "--hostname", "mail.example.org")
	if got := shown(993); got != "Appliance local CA (elsewhere.test)" {
		t.Errorf("after a restart: %s", got)
	}
	if after, _ := os.ReadFile(filepath.Join(data, "tls", "server.pem")); string(after) != string(before) {
		t.Error("looking at the certificates of a stopped appliance changed them")
	}
	mustRun(t, data, "tls", "unset")
	if got := shown(993); got != "Appliance local CA (mail.example.org)" {
		t.Errorf("unset: %s", got)
	}
	if text, _ := os.ReadFile(settings); strings.TrimSpace(string(text)) != "" {
		t.Errorf("settings: %s", text)
	}
	if _, err := os.Stat(filepath.Join(data, "tls", "own.pem")); !isMissing(err) {
		t.Errorf("the copy is still there: %v", err)
	}
}

func TestAuthorityFlags(t *testing.T) {
	data := t.TempDir()
	for _, args := range [][]string{
		{"--acme-directory", "http://ca.example.org/"}, {"--acme-directory", "ca.example.org"}, {"--acme-directory", "https://"},
		{"--acme-root", "x"}, {"--acme-root", "x", "--acme-directory", "default"},
	} {
		if status, _, errs := runCommand(t, data, "", append([]string{"run"}, args...)...); status != exitUsage || !strings.Contains(errs, "--acme-") {
			t.Errorf("%v: %d %s", args, status, errs)
		}
	}
	if status, _, errs := runCommand(t, data, "", "run", "--acme-directory", "https://ca.example.org/", "--acme-root", filepath.Join(data, "none")); status != exitFailed || strings.Count(errs, "\n") != 1 {
		t.Errorf("no such file: %d %s", status, errs)
	}
	h := &house{data: dataDir(data)}
	for _, test := range []struct{ directory, want string }{
		{"https://ca.example.org/d", "acme_directory = \"https://ca.example.org/d\"\n"}, {"", "acme_directory = \"https://ca.example.org/d\"\n"}, {"default", ""},
	} {
		if err := h.takeAuthority(&runOptions{acmeDirectory: test.directory}); err != nil {
			t.Fatal(err)
		}
		if text, _ := os.ReadFile(h.data.settings()); string(text) != test.want {
			t.Errorf("%q: %s", test.directory, text)
		}
	}
}

// Whoever installs a service names the authority there. The service finds a copy of who vouches for it.
func TestAuthorityOfService(t *testing.T) {
	data, given := dataDir(filepath.Join(t.TempDir(), "data")), filepath.Join(t.TempDir(), "ca.pem")
	certs, _ := newTestIssuer(t).pair(t, &x509.Certificate{DNSNames: []string{"x"}})
	if err := os.WriteFile(given, certs, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(string(data), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ directory, root, want string }{
		{"", "", ""},
		{"https://ca.home.lan/d", given, "acme_directory = \"https://ca.home.lan/d\"\nacme_root = \"" + filepath.ToSlash(filepath.Join(data.tls(), "acme-root.pem")) + "\"\n"},
		{"https://ca.home.lan/d", "", "acme_directory = \"https://ca.home.lan/d\"\n"},
		{"default", "", ""},
	} {
		plan := ServicePlan{Fill: func() error {
			return data.fillAuthority(&runOptions{acmeDirectory: test.directory, acmeRoot: test.root})
		}}
		if err := plan.fill(); err != nil {
			t.Fatal(err)
		}
		text, _ := os.ReadFile(data.settings())
		if got := strings.ReplaceAll(string(text), `\\`, "/"); got != test.want {
			t.Errorf("%+v:\n%s", test, got)
		}
		if settings, err := readSettings(data.settings()); err != nil || test.root != "" && settings.ACMERoot == given {
			t.Errorf("%+v %v", settings, err)
		} else if _, err := readRoots(settings.ACMERoot); err != nil {
			t.Error(err)
		}
	}
	if err := data.fillAuthority(&runOptions{acmeDirectory: "https://ca.home.lan/d", acmeRoot: filepath.Join(string(data), "none")}); err == nil {
		t.Error("no such file: no error")
	}
	if status, out, _ := runCommand(t, string(data), "", "install", "--help"); status != exitDone || !strings.Contains(out, "--acme-directory URL") {
		t.Error(out)
	}
}

func TestChangeSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "settings.toml")
	for _, test := range []struct {
		before  string
		changes []settingChange
		after   string
	}{
		{"", []settingChange{{"tls_cert", `C:\a "b"\c`}, {"tls_key", "k"}}, "tls_cert = \"C:\\\\a \\\"b\\\"\\\\c\"\ntls_key = \"k\"\n"},
		{"# mine\ndomain = 'example.org' # ours\n", []settingChange{{"tls_cert", "c"}}, "# mine\ndomain = 'example.org' # ours\ntls_cert = \"c\"\n"},
		{"tls_cert = 'old'\n\n# end", []settingChange{{"tls_cert", "new"}}, "tls_cert = \"new\"\n\n# end\n"},
		{"tls_cert = 'old'\ntls_key = 'old'\n", []settingChange{{key: "tls_cert"}, {key: "tls_key"}}, ""},
		{"domain = 'x.org'\n", []settingChange{{key: "tls_cert"}}, "domain = 'x.org'\n"},
	} {
		if err := os.WriteFile(file, []byte(test.before), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := changeSettings(file, test.changes...); err != nil {
			t.Errorf("%q: %v", test.before, err)
		}
		text, err := os.ReadFile(file)
		if err != nil || string(text) != test.after {
			t.Errorf("%q:\ngot  %q, %v\nwant %q", test.before, text, err, test.after)
		}
		for _, c := range test.changes {
			if s, _ := readSettings(file); c.key == "tls_cert" && c.value != "" && s.TLSCert != c.value && s.TLSKey != "" {
				t.Errorf("%q is read as %q", c.value, s.TLSCert)
			}
		}
	}
	const damaged = "what = is this\n"
	if err := os.WriteFile(file, []byte(damaged), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := changeSettings(file, settingChange{"tls_cert", "c"}); err == nil {
		t.Error("a damaged file: no error")
	}
	if text, _ := os.ReadFile(file); string(text) != damaged {
		t.Errorf("a damaged file was changed: %s", text)
	}
}
