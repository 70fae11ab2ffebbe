package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/idna"
)

// Resolver asks the DNS what mail needs to know: who takes a domain's mail, what stands in its TXT records, whose name an
// address has. It asks the resolvers of the system and does no recursion of its own. The zero value works. Safe for
// concurrent use.
//
// All errors are *net.DNSError: IsNotFound where there is no such name or no record of the kind, IsTemporary where nobody
// could tell.
type Resolver struct {
	// Servers are asked in turn, each ADDRESS:PORT. Nil: those of the system.
	Servers []string
	// Timeout is what one server has for one answer; 0: 4 s.
	Timeout time.Duration
	// TrustAD says that the path to Servers is trusted, so that their word on DNSSEC counts (RFC 4035 §4.9.3). It is
	// trusted on loopback in any case.
	TrustAD bool
}

const (
	dnsTimeout = 4 * time.Second
	dnsRounds  = 2    // how often all servers are tried
	dnsPayload = 1232 // octets of an answer over UDP that no network has to break up
)

// MX is one host that takes mail for a domain (RFC 5321 §5.1).
type MX struct {
	Host       string // lower case, without the dot at its end; "" is null MX (RFC 7505)
	Preference uint16
}

// MX gives the hosts that take a domain's mail, the preferred ones first, those of the same preference in any order.
// authentic says that DNSSEC proves the answer.
func (r *Resolver) MX(ctx context.Context, domain string) (hosts []MX, authentic bool, err error) {
	answer, err := r.ask(ctx, domain, dns.TypeMX)
	if err != nil {
		return nil, false, err
	}
	for _, rr := range answer.Answer {
		if mx, ok := rr.(*dns.MX); ok {
			hosts = append(hosts, MX{plainHost(mx.Mx), mx.Preference})
		}
	}
	if len(hosts) == 0 {
		return nil, answer.AuthenticatedData, notFound(domain)
	}
	rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	sortStableFunc(hosts, func(a, b MX) int { return int(a.Preference) - int(b.Preference) })
	return hosts, answer.AuthenticatedData, nil
}

// Addresses gives the IPv4 and IPv6 addresses of a host. It fails only when neither kind is to be had.
func (r *Resolver) Addresses(ctx context.Context, host string) (found []netip.Addr, authentic bool, err error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, false, nil
	}
	authentic = true
	var failed error
	for _, kind := range [...]uint16{dns.TypeA, dns.TypeAAAA} {
		answer, err := r.ask(ctx, host, kind)
		if err != nil {
			if failed == nil || isNotFound(failed) { // "nobody can tell" weighs more than "there is none"
				failed = err
			}
			continue
		}
		authentic = authentic && answer.AuthenticatedData
		for _, rr := range answer.Answer {
			var ip net.IP
			switch rr := rr.(type) {
			case *dns.A:
				ip = rr.A
			case *dns.AAAA:
				ip = rr.AAAA
			}
			if addr, ok := netip.AddrFromSlice(ip); ok {
				found = append(found, addr.Unmap())
			}
		}
	}
	if len(found) > 0 {
		return found, authentic, nil
	}
	if failed == nil {
		failed = notFound(host)
	}
	return nil, false, failed
}

// IPv4 gives the IPv4 addresses of a name alone.
func (r *Resolver) IPv4(ctx context.Context, name string) ([]netip.Addr, error) {
	answer, err := r.ask(ctx, name, dns.TypeA)
	if err != nil {
		return nil, err
	}
	var found []netip.Addr
	for _, rr := range answer.Answer {
		if a, ok := rr.(*dns.A); ok {
			if addr, ok := netip.AddrFromSlice(a.A); ok {
				found = append(found, addr.Unmap())
			}
		}
	}
	if len(found) == 0 {
		return nil, notFound(name)
	}
	return found, nil
}

// TXT gives the texts of a name, the pieces of each joined (RFC 7208 §3.3).
func (r *Resolver) TXT(ctx context.Context, name string) ([]string, error) {
	answer, err := r.ask(ctx, name, dns.TypeTXT)
	if err != nil {
		return nil, err
	}
	var texts []string
	for _, rr := range answer.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			texts = append(texts, strings.Join(txt.Txt, ""))
		}
	}
	if len(texts) == 0 {
		return nil, notFound(name)
	}
	return texts, nil
}

// PTR gives the names of an address, without the dot at their ends.
func (r *Resolver) PTR(ctx context.Context, addr netip.Addr) ([]string, error) {
	name, err := dns.ReverseAddr(addr.Unmap().String())
	if err != nil {
		return nil, notFound(addr.String())
	}
	answer, err := r.ask(ctx, name, dns.TypePTR)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, rr := range answer.Answer {
		if ptr, ok := rr.(*dns.PTR); ok {
			names = append(names, plainHost(ptr.Ptr))
		}
	}
	if len(names) == 0 {
		return nil, notFound(name)
	}
	return names, nil
}

// TLSA gives what DANE says of a port's certificate (RFC 7672). Unless authentic it means nothing.
func (r *Resolver) TLSA(ctx context.Context, host string, port int) (records []*dns.TLSA, authentic bool, err error) {
	name := "_" + strconv.Itoa(port) + "._tcp." + host
	answer, err := r.ask(ctx, name, dns.TypeTLSA)
	if err != nil {
		return nil, false, err
	}
	for _, rr := range answer.Answer {
		if tlsa, ok := rr.(*dns.TLSA); ok {
			records = append(records, tlsa)
		}
	}
	if len(records) == 0 {
		return nil, answer.AuthenticatedData, notFound(name)
	}
	return records, answer.AuthenticatedData, nil
}

// SRV gives the services of a name such as _imaps._tcp.example.org (RFC 6186).
func (r *Resolver) SRV(ctx context.Context, name string) ([]*dns.SRV, error) {
	answer, err := r.ask(ctx, name, dns.TypeSRV)
	if err != nil {
		return nil, err
	}
	var services []*dns.SRV
	for _, rr := range answer.Answer {
		if srv, ok := rr.(*dns.SRV); ok {
			services = append(services, srv)
		}
	}
	if len(services) == 0 {
		return nil, notFound(name)
	}
	return services, nil
}

// The methods by which the SPF library asks.

// LookupTXT is TXT.
func (r *Resolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return r.TXT(ctx, name)
}

// LookupMX is MX in the types of package net.
func (r *Resolver) LookupMX(ctx context.Context, domain string) ([]*net.MX, error) {
	hosts, _, err := r.MX(ctx, domain)
	found := make([]*net.MX, len(hosts))
	for i, h := range hosts {
		found[i] = &net.MX{Host: h.Host, Pref: h.Preference}
	}
	return found, err
}

// LookupIPAddr is Addresses in the types of package net.
func (r *Resolver) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	addrs, _, err := r.Addresses(ctx, host)
	found := make([]net.IPAddr, len(addrs))
	for i, a := range addrs {
		found[i] = net.IPAddr{IP: a.AsSlice()}
	}
	return found, err
}

// LookupAddr is PTR for an address as text.
func (r *Resolver) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, notFound(addr)
	}
	return r.PTR(ctx, ip)
}

// ask asks one question. The answer has no error code.
func (r *Resolver) ask(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	ascii, err := asciiName(name)
	if err != nil {
		return nil, notFound(name)
	}
	servers, trusted := r.servers()
	if len(servers) == 0 {
		return nil, noAnswer(name, errors.New("no resolver is known"))
	}
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(ascii), kind)
	question.SetEdns0(dnsPayload, false)
	question.AuthenticatedData = true // RFC 6840 §5.7: we want to know
	var last error
	for range dnsRounds {
		for _, server := range servers {
			answer, err := r.exchange(ctx, question, server)
			if ctx.Err() != nil {
				return nil, noAnswer(name, context.Cause(ctx))
			}
			if err != nil {
				last = err
				continue
			}
			answer.AuthenticatedData = answer.AuthenticatedData && (trusted || onLoopback(server))
			switch answer.Rcode {
			case dns.RcodeSuccess:
				return answer, nil
			case dns.RcodeNameError:
				return nil, notFound(name)
			}
			last = fmt.Errorf("%s answers %s", server, dns.RcodeToString[answer.Rcode])
		}
	}
	return nil, noAnswer(name, last)
}

// exchange asks one server, by TCP what is too long for UDP.
func (r *Resolver) exchange(ctx context.Context, question *dns.Msg, server string) (*dns.Msg, error) {
	timeout := r.Timeout
	if timeout == 0 {
		timeout = dnsTimeout
	}
	client := dns.Client{Timeout: timeout, UDPSize: dnsPayload}
	answer, _, err := client.ExchangeContext(ctx, question, server)
	if err == nil && answer.Truncated {
		client.Net = "tcp"
		answer, _, err = client.ExchangeContext(ctx, question, server)
	}
	return answer, err
}

// servers gives whom to ask, and whether their word on DNSSEC counts.
func (r *Resolver) servers() (servers []string, trusted bool) {
	if r.Servers != nil {
		return r.Servers, r.TrustAD
	}
	return systemResolvers()
}

// onLoopback says whether a server runs on this machine.
func onLoopback(server string) bool {
	ap, err := netip.ParseAddrPort(server)
	return err == nil && ap.Addr().IsLoopback()
}

// asciiName gives the form of a name that the DNS has (RFC 5891). Names with underscores are left as they are, and so are the
// labels down to _tcp, _domainkey and the like in front of a domain that is in Unicode.
func asciiName(name string) (string, error) {
	name = strings.TrimSuffix(name, ".")
	if !isASCII([]byte(name)) {
		var err error
		if name, err = internationalName(name); err != nil {
			return "", err
		}
	}
	// A name that the DNS cannot hold does not exist. It must not look as if nobody could tell, for senders choose names.
	if labels, ok := dns.IsDomainName(name); !ok || labels == 0 || strings.Contains(name, `\`) {
		return "", errors.New("no domain name")
	}
	return name, nil
}

// internationalName is asciiName for a name in Unicode. IDNA knows host names alone, in which no underscore may be (RFC 5891
// §4.2.3.1, RFC 8552 §1.1): the domain is translated for itself, and a selector in Unicode (RFC 8616 §4) too.
func internationalName(name string) (string, error) {
	labels := strings.Split(name, ".")
	domain := 0
	for i, label := range labels {
		if strings.HasPrefix(label, "_") {
			domain = i + 1
		}
	}
	for i, label := range labels[:domain] {
		if !isASCII([]byte(label)) {
			ascii, err := idna.Lookup.ToASCII(label)
			if err != nil {
				return "", err
			}
			labels[i] = ascii
		}
	}
	ascii, err := idna.Lookup.ToASCII(strings.Join(labels[domain:], "."))
	if err != nil {
		return "", err
	}
	return strings.Join(append(labels[:domain], ascii), "."), nil
}

// plainHost gives a host name of an answer as we write names.
func plainHost(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func notFound(name string) error {
	return &net.DNSError{Err: "no such record", Name: name, IsNotFound: true}
}

func noAnswer(name string, why error) error {
	timeout, is := why.(net.Error)
	return &net.DNSError{Err: why.Error(), Name: name, IsTemporary: true, IsTimeout: is && timeout.Timeout()}
}

// isNotFound says whether an error means that the DNS has no such name or record.
func isNotFound(err error) bool {
	var e *net.DNSError
	return errors.As(err, &e) && e.IsNotFound
}

// listName gives the name under which a list has an address (RFC 5782 §2.1, §2.4).
func listName(addr netip.Addr, zone string) (string, error) {
	name, err := dns.ReverseAddr(addr.Unmap().WithZone("").String())
	if err != nil {
		return "", err
	}
	name = strings.TrimSuffix(strings.TrimSuffix(name, "in-addr.arpa."), "ip6.arpa.")
	return name + zone, nil
}
