package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// testCerts is a Certificates with a clock and addresses of its own.
type testCerts struct {
	cfg       CertificatesConfig
	now       time.Time
	addresses []netip.Addr
	log       bytes.Buffer
}

func newTestCerts(t *testing.T) *testCerts {
	c := &testCerts{now: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC), addresses: []netip.Addr{netip.MustParseAddr("192.168.1.5")}}
	c.cfg = CertificatesConfig{
		Dir: filepath.Join(t.TempDir(), "tls"), Names: []string{"pi.home.lan"},
		Addresses: func() []netip.Addr { return c.addresses }, Now: func() time.Time { return c.now },
		Log: slog.New(slog.NewTextHandler(&c.log, nil)),
	}
	return c
}

func (c *testCerts) open(t *testing.T) *Certificates {
	t.Helper()
	certs, err := OpenCertificates(c.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return certs
}

// serves does a handshake under a name and gives the certificate's serial.
func (c *testCerts) serves(t *testing.T, certs *Certificates, name string) string {
	t.Helper()
	roots := x509.NewCertPool()
	text, err := readAuthorityPEM(c.cfg.Dir)
	if err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatalf("authority: %v", err)
	}
	near, far := net.Pipe()
	defer near.Close()
	server := tls.Server(far, certs.Config())
	done := make(chan error, 1)
	go func() { done <- errors.Join(server.Handshake(), far.Close()) }()
	client := tls.Client(near, &tls.Config{RootCAs: roots, ServerName: name, Time: func() time.Time { return c.now }})
	err = client.Handshake()
	_, _ = io.Copy(io.Discard, client)
	if serverErr := <-done; err != nil || serverErr != nil {
		t.Fatalf("handshake with %s: %v, %v", name, err, serverErr)
	}
	return client.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func TestCertificates(t *testing.T) {
	c := newTestCerts(t)
	certs := c.open(t)
	first := c.serves(t, certs, "pi.home.lan")
	for _, name := range []string{"pi.local", "pi", "localhost", "127.0.0.1", "::1", "192.168.1.5"} {
		if got := c.serves(t, certs, name); got != first {
			t.Errorf("%s got another certificate", name)
		}
	}
	ca, err := os.ReadFile(certs.AuthorityFile())
	if err != nil {
		t.Fatal(err)
	}
	if c.serves(t, c.open(t), "pi") != first {
		t.Error("a restart made another certificate")
	}
	c.addresses = append(c.addresses, netip.MustParseAddr("192.168.1.77"))
	c.now = c.now.Add(certRecheck)
	second := c.serves(t, certs, "192.168.1.77")
	if second == first {
		t.Error("a new address, but the same certificate")
	}
	c.now = c.now.Add(leafLife - leafReserve + time.Hour)
	third := c.serves(t, certs, "pi")
	if third == second {
		t.Error("not renewed before its end")
	}
	c.cfg.Names = []string{"other.lan"}
	if c.serves(t, c.open(t), "other.lan") == third {
		t.Error("a new name, but the same certificate")
	}
	if now, _ := os.ReadFile(certs.AuthorityFile()); !bytes.Equal(now, ca) {
		t.Error("the authority changed")
	}
	if runtime.GOOS != "windows" {
		for _, name := range []string{"ca.key", "ca.pem", "server.pem"} {
			if info, err := os.Stat(filepath.Join(c.cfg.Dir, name)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", name, info.Mode(), err)
			}
		}
	}
}

func TestClockWithoutBattery(t *testing.T) {
	c := newTestCerts(t)
	right := c.now
	c.now = time.Unix(100, 0)
	certs := c.open(t)
	authority, _ := os.ReadFile(certs.AuthorityFile())
	c.now = right
	c.serves(t, certs, "pi")
	if now, _ := os.ReadFile(c.open(t).AuthorityFile()); !bytes.Equal(now, authority) {
		t.Error("setting the clock changed the authority")
	}
}

func TestAuthorityIsRenewedFromItsKey(t *testing.T) {
	c := newTestCerts(t)
	before := c.open(t)
	c.now = c.now.Add(authorityLife - leafLife + time.Hour)
	after := c.open(t)
	if !before.caKey.Equal(after.caKey) || !bytes.Equal(before.ca.SubjectKeyId, after.ca.SubjectKeyId) {
		t.Error("another key")
	}
	if !after.ca.NotAfter.After(before.ca.NotAfter) {
		t.Error("not renewed")
	}
	c.serves(t, after, "pi")
}

func TestDamagedCertificateFiles(t *testing.T) {
	c := newTestCerts(t)
	c.open(t)
	path := func(name string) string { return filepath.Join(c.cfg.Dir, name) }
	good := map[string][]byte{}
	for _, name := range []string{"ca.key", "ca.pem", "server.pem"} {
		good[name], _ = os.ReadFile(path(name))
	}
	write := func(name string, text []byte) {
		t.Helper()
		if err := os.WriteFile(path(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"ca.pem", "server.pem"} {
		for _, text := range [][]byte{nil, []byte("junk"), good[name][:len(good[name])/2]} {
			write(name, text)
			c.log.Reset()
			c.serves(t, c.open(t), "pi")
			if strings.Count(c.log.String(), "level=WARN") != 1 {
				t.Errorf("%s: said %s", name, c.log.String())
			}
		}
		if err := os.Remove(path(name)); err != nil {
			t.Fatal(err)
		}
		c.serves(t, c.open(t), "pi")
	}
	for _, text := range [][]byte{nil, []byte("junk"), good["ca.key"][:50]} {
		write("ca.key", text)
		_, err := OpenCertificates(c.cfg)
		if err == nil || !strings.Contains(err.Error(), "is damaged") {
			t.Errorf("damaged key: %v", err)
		}
		if now, _ := os.ReadFile(path("ca.key")); !bytes.Equal(now, text) {
			t.Error("the damaged key was replaced")
		}
	}
	if err := os.Remove(path("ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCertificates(c.cfg); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("missing key: %v", err)
	}
}

func TestSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "settings.toml")
	if s, err := readSettings(file); err != nil || !reflect.DeepEqual(s, Settings{}) {
		t.Errorf("no file: %v, %v", s, err)
	}
	for text, want := range map[string]string{
		"":                         "",
		"hostname = 'Pi.Home.LAN'": "",
		"domain = 'example.org'\nmax_message_mb = 100":  "",
		"daily_check = false":                           "",
		"daily_check = 'no'":                            "settings.toml line 1: daily_check: the value is of the type string where boolean is wanted",
		"\nhostnmae = 'x'":                              `settings.toml line 2: there is no setting "hostnmae"`,
		"# x\ndomain = 'a b'":                           "settings.toml line 2: domain: only letters, digits, hyphens and dots can be in it, not ' '",
		"max_message_mb = 5000":                         "settings.toml line 1: max_message_mb: 5000 is not between 1 and 1024",
		"max_message_mb = 'large'":                      "settings.toml line 1: max_message_mb: the value is of the type string where integer is wanted",
		"hostname = 'x'\nhostname = 'y'":                "settings.toml line 2: ",
		"hostname = ":                                   "settings.toml line 1: ",
		"domain = 'x'\n" + strings.Repeat("#", maxTOML): "settings.toml: the file is larger than 1024 KiB",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readSettings(file)
		switch {
		case want == "" && err != nil, want != "" && err == nil:
			t.Errorf("%.80q: %v", text, err)
		case err != nil && !strings.HasPrefix(err.Error(), want):
			t.Errorf("%.80q:\ngot  %v\nwant %s", text, err, want)
		}
	}
}

func TestMachineName(t *testing.T) {
	for in, want := range map[string]string{
		"raspberrypi": "raspberrypi.local", "PI.Example.ORG": "pi.example.org", "Maria's PC": "marias-pc.local",
		"": "appliance.local", "localhost": "appliance.local", "localhost.localdomain": "appliance.local",
		"DESKTOP_1": "desktop-1.local", "...": "appliance.local", "рабочий": "appliance.local", "a..b": "appliance.local",
	} {
		if got := machineName(in); got != want {
			t.Errorf("machineName(%q) = %q, want %q", in, got, want)
		}
	}
}
