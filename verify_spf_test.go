package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"gopkg.in/yaml.v3"
)

// spfSuite is one scenario of the SPF test suite of openspf.org.
type spfSuite struct {
	Description string
	Tests       map[string]struct {
		Helo, Host string
		MailFrom   string `yaml:"mailfrom"`
		Result     yamlStrings
		Skip       string
	}
	Zone map[string][]yaml.Node `yaml:"zonedata"`
}

// yamlStrings is one string or a list of them.
type yamlStrings []string

func (l *yamlStrings) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*l = []string{n.Value}
		return nil
	}
	return n.Decode((*[]string)(l))
}

// serve gives a DNS server what the suite's zone says.
func (s *spfSuite) serve(t *testing.T, server *testDNS) {
	t.Helper()
	for name, entries := range s.Zone {
		fqdn := wireName(t, name)
		hasTXT := slices.ContainsFunc(entries, func(n yaml.Node) bool { return n.Kind == yaml.MappingNode && n.Content[0].Value == "TXT" })
		for _, entry := range entries {
			if entry.Kind != yaml.MappingNode { // the word TIMEOUT
				server.set(func(d *testDNS) { d.broken[fqdn] = true })
				continue
			}
			kind, value := entry.Content[0].Value, entry.Content[1]
			if kind == "SPF" && !hasTXT { // records of type SPF stand for TXT: the drivers double them
				kind = "TXT"
			}
			if rr := spfRecord(t, fqdn, kind, value); rr != nil {
				server.set(func(d *testDNS) { d.records[fqdn] = append(d.records[fqdn], rr) })
			} else if kind == "TIMEOUT" || kind == "SERVFAIL" || kind == "CNAMELOOP" {
				server.set(func(d *testDNS) { d.broken[fqdn] = true })
			}
		}
	}
}

// wireName gives a name as it comes out of a question, odd octets escaped.
func wireName(t *testing.T, name string) string {
	t.Helper()
	wire := make([]byte, 256)
	if _, err := dns.PackDomainName(strings.ToLower(dns.Fqdn(name)), wire, 0, nil, false); err != nil {
		return strings.ToLower(dns.Fqdn(name)) // nobody can ask for it
	}
	back, _, err := dns.UnpackDomainName(wire, 0)
	if err != nil {
		t.Fatal(err)
	}
	return back
}

// spfRecord makes one record, nil for what is none.
func spfRecord(t *testing.T, name, kind string, value *yaml.Node) dns.RR {
	t.Helper()
	header := dns.RR_Header{Name: name, Class: dns.ClassINET, Ttl: 60}
	var texts yamlStrings
	if err := value.Decode(&texts); err != nil {
		t.Fatal(err)
	}
	if len(texts) == 0 || texts[0] == "NONE" {
		return nil
	}
	switch kind {
	case "TXT":
		header.Rrtype = dns.TypeTXT
		var pieces []string
		for _, text := range texts {
			for len(text) > 255 {
				pieces, text = append(pieces, text[:255]), text[255:]
			}
			pieces = append(pieces, text)
		}
		for i, p := range pieces { // miekg/dns keeps texts in the form of zone files
			pieces[i] = spfText(p)
		}
		return &dns.TXT{Hdr: header, Txt: pieces}
	case "A":
		header.Rrtype = dns.TypeA
		return &dns.A{Hdr: header, A: net.ParseIP(texts[0])}
	case "AAAA":
		header.Rrtype = dns.TypeAAAA
		return &dns.AAAA{Hdr: header, AAAA: net.ParseIP(texts[0])}
	case "MX":
		header.Rrtype = dns.TypeMX
		var preference uint16
		if _, err := fmt.Sscan(texts[0], &preference); err != nil {
			t.Fatal(err)
		}
		return &dns.MX{Hdr: header, Preference: preference, Mx: dns.Fqdn(texts[1])}
	case "PTR":
		header.Rrtype = dns.TypePTR
		return &dns.PTR{Hdr: header, Ptr: dns.Fqdn(texts[0])}
	case "CNAME":
		header.Rrtype = dns.TypeCNAME
		return &dns.CNAME{Hdr: header, Target: dns.Fqdn(texts[0])}
	}
	return nil
}

// spfText writes a text with what is special in zone files escaped.
func spfText(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c == '\\' || c == '"' || c < ' ' || c > 0x7e {
			fmt.Fprintf(&b, `\%03d`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// TestSPFSuite runs the published test suites, which the library's module has with it, through our resolver.
func TestSPFSuite(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "blitiri.com.ar/go/spf").Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Skip("the SPF library's module is not in the module cache")
	}
	for _, name := range []string{"rfc7208-tests.yml", "rfc4408-tests.yml"} {
		f, err := os.Open(filepath.Join(dir, "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		scenarios := 0
		for decoder := yaml.NewDecoder(f); ; scenarios++ {
			var suite spfSuite
			if err := decoder.Decode(&suite); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(name, err)
			}
			t.Run(name+"/"+suite.Description, suite.run)
		}
		if scenarios < 10 {
			t.Errorf("%s has %d scenarios", name, scenarios)
		}
	}
}

// run runs the tests of a scenario.
func (s *spfSuite) run(t *testing.T) {
	t.Parallel()
	server := startDNS(t, "")
	s.serve(t, server)
	v := &Verifier{Resolver: server.Resolver}
	for name, test := range s.Tests {
		if test.Skip != "" {
			continue
		}
		addr, err := netip.ParseAddr(test.Host)
		if err != nil {
			continue // a test of the library's own, with no address that a connection could have
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		got := v.checkSPF(ctx, &ReceivedMail{Remote: addr, Helo: test.Helo, From: test.MailFrom})
		cancel()
		if !slices.Contains(test.Result, string(got.Result)) {
			t.Errorf("%s: %s from %s: %s (%s), want %v", name, test.MailFrom, test.Host, got.Result, got.Reason, test.Result)
		}
	}
}
