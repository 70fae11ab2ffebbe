package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// parsedZone reads a zone fragment as a name server does, and gives "NAME TYPE VALUE" of each record, the texts joined.
func parsedZone(t *testing.T, text string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	parser := dns.NewZoneParser(strings.NewReader(text), "", "")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		h := rr.Header()
		if h.Ttl != recordTTL {
			t.Errorf("the TTL of %v", rr)
		}
		value := strings.TrimPrefix(rr.String(), h.String())
		if txt, ok := rr.(*dns.TXT); ok {
			for _, piece := range txt.Txt {
				if len(piece) > 255 {
					t.Errorf("%d octets in one string of %s", len(piece), h.Name)
				}
			}
			value = strings.Join(txt.Txt, "")
		}
		found[strings.TrimSuffix(h.Name, ".")+" "+dns.TypeToString[h.Rrtype]+" "+strings.TrimSuffix(value, ".")] = true
	}
	if err := parser.Err(); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return found
}

func TestDNSPlan(t *testing.T) {
	key := strings.Repeat("abcdefgh", 49)
	plan := DNSPlan{Domain: "xn--bcher-kva.example.org", Host: "mail.xn--bcher-kva.example.org",
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		DKIM:      []DNSRecord{{"rsa1._domainkey.xn--bcher-kva.example.org", "TXT", "v=DKIM1; k=rsa; p=" + key}}}
	text := plan.Zone()
	got := parsedZone(t, text)
	const d = "xn--bcher-kva.example.org"
	want := []string{
		"mail." + d + " A 192.0.2.1", "mail." + d + " AAAA 2001:db8::1", d + " MX 10 mail." + d, d + " TXT v=spf1 mx -all",
		"rsa1._domainkey." + d + " TXT v=DKIM1; k=rsa; p=" + key, "_dmarc." + d + " TXT v=DMARC1; p=quarantine",
		"_mta-sts." + d + " TXT v=STSv1; id=" + stsPolicyID("mail."+d), "mta-sts." + d + " CNAME mail." + d,
		"_smtp._tls." + d + " TXT v=TLSRPTv1; rua=mailto:postmaster@" + d, "autoconfig." + d + " CNAME mail." + d,
		"_submissions._tcp." + d + " SRV 0 1 465 mail." + d, "_imaps._tcp." + d + " SRV 0 1 993 mail." + d,
		"_pop3s._tcp." + d + " SRV 10 1 995 mail." + d, "_submission._tcp." + d + " SRV 10 1 587 mail." + d,
		"_autodiscover._tcp." + d + " SRV 0 1 443 mail." + d,
	}
	for _, w := range want {
		if !got[w] {
			t.Errorf("%s is missing", w)
		}
	}
	if len(got) != len(want) || len(plan.Records()) != len(want) {
		t.Errorf("%d records in\n%s", len(got), text)
	}
	for _, line := range []string{
		"\n;   @                   MX     10        mail." + d + "\n", "\n;   mail                A                192.0.2.1\n",
		"\n;   rsa1._domainkey     TXT              v=DKIM1; k=rsa; p=" + key + "\n", "\n;   _pop3s._tcp         SRV    10        mail." + d + " (weight 1, port 995)\n",
		"\n;   the reverse name (PTR) of 192.0.2.1 is to be mail." + d + "\n", "\n;   the reverse name (PTR) of 2001:db8::1 is to be mail." + d + "\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("%q is not in\n%s", line, text)
		}
	}
}

func TestDNSPlanUnknownAddress(t *testing.T) {
	plan := DNSPlan{Domain: "example.org", Host: "mail.example.org", Relay: "relay.example.net"}
	text := plan.Zone()
	got := parsedZone(t, text)
	for record := range got {
		if strings.Contains(record, " A ") {
			t.Errorf("an address is made up: %s", record)
		}
	}
	for _, want := range []string{
		"\n; Enter the public IPv4 address of this machine; the page of your router shows it.\n; mail.example.org. 3600 IN A ...\n",
		"\n;   mail                A                ...\n", "of the public address is to be mail.example.org\n",
		"Mail goes out through relay.example.net: if the help",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if !got["example.org TXT v=spf1 mx ~all"] {
		t.Errorf("SPF with a relay:\n%s", text)
	}
}

// The name of the machine may be in a domain of its own, or be the domain.
func TestDNSPlanHosts(t *testing.T) {
	addr := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	other := (&DNSPlan{Domain: "example.org", Host: "mx.example.net", Addresses: addr}).Zone()
	if got := parsedZone(t, other); got["mx.example.net A 192.0.2.1"] || !got["example.org MX 10 mx.example.net"] || !strings.Contains(other, "The address of mx.example.net belongs into the zone of that name.") {
		t.Error(other)
	}
	same := (&DNSPlan{Domain: "example.org", Host: "example.org", Addresses: addr, Shifting: true}).Zone()
	if got := parsedZone(t, same); !got["example.org A 192.0.2.1"] || !got["example.org MX 10 example.org"] || !strings.Contains(same, "several IPv6 addresses") {
		t.Error(same)
	}
	if near := (&DNSPlan{Domain: "example.org", Host: "notexample.org", Addresses: addr}).Zone(); parsedZone(t, near)["notexample.org A 192.0.2.1"] {
		t.Error(near)
	}
}

func TestQuoteTXT(t *testing.T) {
	for text, want := range map[string]string{
		`a"b\c`:                  `"a\"b\\c"`,
		strings.Repeat("x", 255): `"` + strings.Repeat("x", 255) + `"`,
		strings.Repeat("x", 256): `"` + strings.Repeat("x", 255) + `" "x"`,
	} {
		if got := quoteTXT(text); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}

func TestPublicNames(t *testing.T) {
	for name, want := range map[string]bool{
		"example.org": true, "mail.example.org": true, "bücher.de": true, "xn--bcher-kva.de": true, "me.duckdns.org": true, "example.co.uk": true,
		"": false, "org": false, "co.uk": false, "duckdns.org": false, "raspberrypi": false, "raspberrypi.local": false, "home.lan": false, "pi.fritz.box": false,
		"fritz.box": false, "box.home.arpa": false, "test.internal": false, "x.onion": false, "[192.0.2.1]": false, "a b.org": false,
	} {
		if got := isPublicName(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	for _, c := range [][3]string{
		{"mail.example.org", "example.net", "mail.example.org"}, {"raspberrypi.local", "example.net", "mail.example.net"}, {"pi", "bücher.de", "mail.xn--bcher-kva.de"},
	} {
		if got := publicHost(c[0], c[1]); got != c[2] {
			t.Errorf("%v: %s", c, got)
		}
	}
}

// A policy that others hold us to names us, and has another id when it changes.
func TestSTSPolicyText(t *testing.T) {
	policy, age, err := parsePolicy([]byte(stsPolicyText("mail.example.org")))
	if err != nil || !policy.enforce || age == 0 || policy.forbids("mail.example.org") || !policy.forbids("mail.example.net") {
		t.Errorf("%+v %v %v", policy, age, err)
	}
	if id := stsPolicyID("a.example.org"); id == stsPolicyID("b.example.org") || len(id) > 32 {
		t.Error(id)
	}
}
