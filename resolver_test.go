package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// testDNS is a DNS server of a test's own on loopback, over UDP and TCP.
type testDNS struct {
	*Resolver
	mu      sync.Mutex
	records map[string][]dns.RR // by name
	broken  map[string]bool     // names that get SERVFAIL
	asked   []string            // "NAME TYPE" of all questions
	signed  bool                // answers have the AD bit
	silent  bool                // no answers at all
}

// startDNS serves a zone file's records. Names with only other types get an empty answer, unknown ones NXDOMAIN, unless
// a name below them exists.
func startDNS(t testing.TB, zone string) *testDNS {
	t.Helper()
	s := &testDNS{records: map[string][]dns.RR{}, broken: map[string]bool{}}
	s.add(t, zone)
	for try := 0; ; try++ {
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		streams, err := net.Listen("tcp", packets.LocalAddr().String())
		if err != nil { // the port is taken for TCP
			packets.Close()
			if try > 20 {
				t.Fatal(err)
			}
			continue
		}
		for _, server := range []*dns.Server{{PacketConn: packets, Handler: s}, {Listener: streams, Handler: s}} {
			started, ended := make(chan struct{}), make(chan struct{})
			server.NotifyStartedFunc = func() { close(started) }
			go func() {
				defer close(ended)
				_ = server.ActivateAndServe() // ends with Shutdown
			}()
			<-started
			t.Cleanup(func() {
				if err := server.Shutdown(); err != nil {
					t.Error(err)
				}
				<-ended
			})
		}
		s.Resolver = &Resolver{Servers: []string{packets.LocalAddr().String()}, Timeout: time.Second}
		return s
	}
}

// add adds records in the form of a zone file.
func (s *testDNS) add(t testing.TB, zone string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for line := range strings.Lines(zone) { // an indented line would belong to the name before
		lines = append(lines, strings.TrimSpace(line))
	}
	parser := dns.NewZoneParser(strings.NewReader(strings.Join(lines, "\n")), ".", "")
	parser.SetDefaultTTL(60)
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		name := strings.ToLower(rr.Header().Name)
		s.records[name] = append(s.records[name], rr)
	}
	if err := parser.Err(); err != nil {
		t.Fatal(err)
	}
}

// set changes how the server behaves.
func (s *testDNS) set(change func(s *testDNS)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// ServeDNS is dns.Handler.
func (s *testDNS) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	s.mu.Lock()
	answer := s.answer(question)
	s.mu.Unlock()
	if answer == nil {
		return
	}
	if _, udp := w.LocalAddr().(*net.UDPAddr); udp {
		answer.Truncate(dnsPayload)
	}
	_ = w.WriteMsg(answer) // the client may be gone
}

func (s *testDNS) answer(question *dns.Msg) *dns.Msg {
	q := question.Question[0]
	s.asked = append(s.asked, q.Name+" "+dns.TypeToString[q.Qtype])
	if s.silent {
		return nil
	}
	answer := new(dns.Msg)
	answer.SetReply(question)
	answer.AuthenticatedData = s.signed && question.AuthenticatedData
	name := strings.ToLower(q.Name)
	if s.broken[name] {
		answer.Rcode = dns.RcodeServerFailure
		return answer
	}
	for range 8 { // follow aliases
		next := ""
		for _, rr := range s.records[name] {
			if rr.Header().Rrtype == q.Qtype {
				answer.Answer = append(answer.Answer, rr)
			} else if alias, ok := rr.(*dns.CNAME); ok {
				answer.Answer = append(answer.Answer, rr)
				next = strings.ToLower(alias.Target)
			}
		}
		if next == "" {
			break
		}
		name = next
	}
	if len(answer.Answer) == 0 && !s.exists(name) {
		answer.Rcode = dns.RcodeNameError
	}
	return answer
}

func (s *testDNS) exists(name string) bool {
	for other := range s.records {
		if other == name || strings.HasSuffix(other, "."+name) {
			return true
		}
	}
	return false
}

func TestResolver(t *testing.T) {
	long := strings.Repeat(`"`+strings.Repeat("x", 250)+`" `, 12)
	s := startDNS(t, `
		example.org.           MX   20 Backup.example.org.
		example.org.           MX   10 mail.example.org.
		example.org.           TXT  "v=spf1 " "-all"
		alias.example.org.     CNAME mail.example.org.
		mail.example.org.      A    192.0.2.1
		mail.example.org.      AAAA 2001:db8::1
		v4.example.org.        A    192.0.2.2
		none.example.org.      MX   0 .
		xn--bcher-kva.example. MX   10 mail.example.org.
		_mta-sts.xn--bcher-kva.example. TXT "v=STSv1; id=1"
		_dmarc.xn--bcher-kva.example. TXT "v=DMARC1; p=none"
		s1._domainkey.xn--bcher-kva.example. TXT "v=DKIM1"
		xn--schlssel-95a._domainkey.xn--bcher-kva.example. TXT "v=DKIM1; t=s"
		_smtp._tls.xn--bcher-kva.example. TXT "v=TLSRPTv1"
		_25._tcp.xn--bcher-kva.example. TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
		_imaps._tcp.xn--bcher-kva.example. SRV 0 1 993 mail.example.org.
		long.example.org.      TXT  `+long+`
		1.2.0.192.in-addr.arpa. PTR mail.example.org.
		_25._tcp.mail.example.org. TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
		_imaps._tcp.example.org. SRV 0 1 993 mail.example.org.
	`)
	ctx := context.Background()
	show := func(v any, err error) string {
		if isNotFound(err) {
			return "not found"
		}
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(v)
	}
	mx := func(domain string) string {
		hosts, _, err := s.MX(ctx, domain)
		return show(hosts, err)
	}
	addresses := func(host string) string {
		found, _, err := s.Addresses(ctx, host)
		return show(found, err)
	}
	txt, err := s.TXT(ctx, "long.example.org")
	if err != nil || len(txt) != 1 || len(txt[0]) != 3000 {
		t.Errorf("a text too long for UDP: %d texts, %v", len(txt), err)
	}
	for _, c := range []struct{ got, want string }{
		{mx("example.org"), "[{mail.example.org 10} {backup.example.org 20}]"},
		{mx("EXAMPLE.ORG."), "[{mail.example.org 10} {backup.example.org 20}]"},
		{mx("none.example.org"), "[{ 0}]"},
		{mx("bücher.example"), "[{mail.example.org 10}]"},
		{mx("bü_cher.example"), "not found"},
		{show(s.TXT(ctx, "_mta-sts.bücher.example")), "[v=STSv1; id=1]"},
		{show(s.TXT(ctx, "_dmarc.BÜCHER.example.")), "[v=DMARC1; p=none]"},
		{show(s.TXT(ctx, "s1._domainkey.bücher.example")), "[v=DKIM1]"},
		{show(s.TXT(ctx, "schlüssel._domainkey.bücher.example")), "[v=DKIM1; t=s]"},
		{show(s.TXT(ctx, "_smtp._tls.bücher.example")), "[v=TLSRPTv1]"},
		{show(s.TXT(ctx, "_dmarc.ü")), "not found"},
		{show(s.TXT(ctx, "ü._dmarc")), "not found"},
		{show(s.TXT(ctx, "_dmarc.bü cher.example")), "not found"},
		{mx("mail.example.org"), "not found"},
		{mx("missing.example.org"), "not found"},
		{mx(""), "not found"},
		{mx(strings.Repeat("a.", 200)), "not found"},
		{addresses("mail.example.org"), "[192.0.2.1 2001:db8::1]"},
		{addresses("alias.example.org"), "[192.0.2.1 2001:db8::1]"},
		{addresses("v4.example.org"), "[192.0.2.2]"},
		{addresses("192.0.2.7"), "[192.0.2.7]"},
		{addresses("example.org"), "not found"},
		{show(s.TXT(ctx, "example.org")), "[v=spf1 -all]"},
		{show(s.TXT(ctx, "mail.example.org")), "not found"},
		{show(s.PTR(ctx, netip.MustParseAddr("192.0.2.1"))), "[mail.example.org]"},
		{show(s.PTR(ctx, netip.MustParseAddr("::ffff:192.0.2.1"))), "[mail.example.org]"},
		{show(s.PTR(ctx, netip.MustParseAddr("2001:db8::1"))), "not found"},
		{show(s.LookupAddr(ctx, "192.0.2.1")), "[mail.example.org]"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	if records, authentic, err := s.TLSA(ctx, "mail.example.org", 25); err != nil || len(records) != 1 || authentic {
		t.Errorf("TLSA: %v %v %v", records, authentic, err)
	}
	if records, _, err := s.TLSA(ctx, "bücher.example", 25); err != nil || len(records) != 1 {
		t.Errorf("TLSA of a domain in Unicode: %v %v", records, err)
	}
	if services, err := s.SRV(ctx, "_imaps._tcp.bücher.example"); err != nil || len(services) != 1 {
		t.Errorf("SRV of a domain in Unicode: %v %v", services, err)
	}
	s.set(func(s *testDNS) { s.signed = true })
	if _, authentic, err := s.TLSA(ctx, "mail.example.org", 25); err != nil || !authentic {
		t.Errorf("signed TLSA: %v %v", authentic, err)
	}
	if services, err := s.SRV(ctx, "_imaps._tcp.example.org"); err != nil || len(services) != 1 || services[0].Port != 993 {
		t.Errorf("SRV: %v %v", services, err)
	}
}

func TestResolverFailures(t *testing.T) {
	s := startDNS(t, "mail.example.org. A 192.0.2.1\n")
	ctx := context.Background()
	s.set(func(s *testDNS) { s.broken["mail.example.org."] = true })
	temporary := func(err error) bool {
		var e *net.DNSError
		return errors.As(err, &e) && e.IsTemporary && !e.IsNotFound
	}
	if _, _, err := s.Addresses(ctx, "mail.example.org"); !temporary(err) {
		t.Errorf("SERVFAIL: %v", err)
	}
	s.set(func(s *testDNS) { s.broken = map[string]bool{}; s.silent = true })
	s.Timeout = 50 * time.Millisecond
	if _, err := s.TXT(ctx, "mail.example.org"); !temporary(err) {
		t.Errorf("silence: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.TXT(ended, "mail.example.org"); !temporary(err) {
		t.Errorf("ended: %v", err)
	}
	none := &Resolver{Servers: []string{}}
	if _, err := none.TXT(ctx, "mail.example.org"); !temporary(err) {
		t.Errorf("no resolver: %v", err)
	}
	// One that is dead does not stand in the way of one that answers.
	s.set(func(s *testDNS) { s.silent = false })
	dead := &Resolver{Servers: append([]string{"127.0.0.1:1"}, s.Servers...), Timeout: time.Second}
	if addrs, _, err := dead.Addresses(ctx, "mail.example.org"); err != nil || !slices.Equal(addrs, []netip.Addr{netip.MustParseAddr("192.0.2.1")}) {
		t.Errorf("second server: %v %v", addrs, err)
	}
}
