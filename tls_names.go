package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/publicsuffix"
)

// The names that a certificate is asked for, and whether they lead to this machine.

// At most this many names get certificates of their own; authorities give some 50 a week for one domain.
const maxPublicNames = 40

// HostNames is what the names of this machine are made from.
type HostNames struct {
	Host    string // the name in greetings
	Chosen  bool   // a person has chosen Host; else the system has said so
	Exposed bool   // the machine has a public address of IPv4 itself: it is a server, not a machine at home
	Private bool   // names count that only the network here knows, for an authority that somebody has named

	Domains func() []string // that mail is kept for, the default one first
}

// Wanted gives the names that may point at this machine from outside, in their ASCII form: the machine's own, and of each
// domain mail., autoconfig. and mta-sts. There are none where nobody has chosen a name or a domain: a machine at home asks
// nobody. The name that its system gives to an exposed machine counts as chosen.
func (n *HostNames) Wanted() []string {
	var names []string
	add := func(name string) {
		if ascii, ok := n.certifiable(name); ok && !slices.Contains(names, ascii) && len(names) < maxPublicNames {
			names = append(names, ascii)
		}
	}
	chosen := n.Chosen || n.Exposed
	if chosen {
		add(n.Host)
	}
	for _, domain := range n.Domains() {
		if domain == n.Host && !chosen {
			continue
		}
		add(n.hostOf(domain))
		for _, label := range []string{"mail.", "mta-sts.", "autoconfig."} {
			add(label + domain)
		}
	}
	return names
}

// All gives every name by which the machine may be known, in ASCII.
func (n *HostNames) All() []string {
	short, _, _ := strings.Cut(n.Host, ".")
	names := []string{n.Host, short, short + ".local"}
	for _, domain := range n.Domains() {
		for _, label := range []string{"", "mail.", "mta-sts.", "autoconfig.", "imap.", "pop3.", "pop.", "smtp."} {
			names = append(names, label+domain)
		}
	}
	for i, name := range names {
		names[i], _ = asciiDomain(name) // "" covers nothing
	}
	return names
}

// hostOf gives the name of this machine for the mail of a domain.
func (n *HostNames) hostOf(domain string) string {
	if ascii, ok := n.certifiable(n.Host); ok {
		return ascii
	}
	return publicHost(n.Host, domain)
}

// certifiable gives a name's ASCII form, and whether an authority could know it.
func (n *HostNames) certifiable(name string) (ascii string, ok bool) {
	if ascii, ok = asciiDomain(name); !ok || ascii[0] == '[' || strings.Contains(ascii, "_") {
		return "", false
	}
	if !n.Private {
		return ascii, isPublicName(ascii)
	}
	last := ascii[strings.LastIndexByte(ascii, '.')+1:]
	return ascii, last != ascii && last != "local" && last != "localhost"
}

// isPublicName says whether a name can exist in the public DNS: it lies below a suffix under which names are given out. Those
// that routers give to the machines at home do not.
func isPublicName(name string) bool {
	ascii, ok := asciiDomain(name)
	if !ok || ascii[0] == '[' {
		return false
	}
	for _, home := range []string{"fritz.box", "home.arpa", "onion"} { // known to the list of suffixes for other reasons
		if ascii == home || strings.HasSuffix(ascii, "."+home) {
			return false
		}
	}
	suffix, icann := publicsuffix.PublicSuffix(ascii)
	return ascii != suffix && (icann || strings.Contains(suffix, "."))
}

// publicHost is the name of this machine on the internet: its own, where that can exist there, else mail.DOMAIN.
func publicHost(hostname, domain string) string {
	if !isPublicName(hostname) {
		hostname = "mail." + domain
	}
	ascii, _ := asciiDomain(hostname) // what was checked before is one
	return ascii
}

// stsPolicyText is the policy that a domain has whose mail this host alone takes (RFC 8461 §3.2).
func stsPolicyText(host string) string {
	return "version: STSv1\r\nmode: enforce\r\nmx: " + host + "\r\nmax_age: 604800\r\n"
}

// interfaceAddresses gives the addresses of the network interfaces, without loopback and link-local ones.
func interfaceAddresses() (found []netip.Addr) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range list {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap().IsGlobalUnicast() {
			found = append(found, prefix.Addr().Unmap().WithZone(""))
		}
	}
	return found
}

// hasPublicIPv4 says that the machine stands on the internet itself. At home only addresses of IPv6 are public.
func hasPublicIPv4() bool {
	cgnat := netip.MustParsePrefix("100.64.0.0/10") // shared by many customers (RFC 6598)
	return slices.ContainsFunc(interfaceAddresses(), func(a netip.Addr) bool {
		return a.Is4() && !a.IsPrivate() && !cgnat.Contains(a)
	})
}

// elsewhere says in a sentence why a name does not lead to this machine, "" where it does.
func (p *publicCertificates) elsewhere(ctx context.Context, name string) string {
	found, _, err := p.cfg.Resolver.Addresses(ctx, name)
	switch {
	case isNotFound(err):
		return name + " is not in the DNS"
	case err != nil:
		return "the DNS does not tell where " + name + " leads"
	}
	ours := interfaceAddresses()
	if p.cfg.Outside != nil {
		ours = append(ours, p.cfg.Outside()...)
	}
	// An authority on this machine or its network may look where a public one never could.
	if leadsTo(found, ours) || p.cfg.Directory != "" && slices.ContainsFunc(found, netip.Addr.IsLoopback) {
		return ""
	}
	if slices.ContainsFunc(found, isOutside) && leadsTo(found, p.seen.get(ctx, p.cfg.Ask, p.now)) {
		return ""
	}
	var words []string
	for _, a := range found {
		words = append(words, a.String())
	}
	return fmt.Sprintf("%s leads to %s, which is not known to be this machine", name, strings.Join(words, " and "))
}

// leadsTo says whether one of the addresses of a name is one of ours.
func leadsTo(found, ours []netip.Addr) bool {
	return slices.ContainsFunc(found, func(a netip.Addr) bool { return slices.Contains(ours, a) })
}

// isOutside says whether an address may be that of a router as the internet sees it.
func isOutside(a netip.Addr) bool { return a.IsGlobalUnicast() && !a.IsPrivate() }

// seenAddresses is how others see this machine, as they said last. The zero value is ready to use. Safe for concurrent use.
type seenAddresses struct {
	mu    sync.Mutex
	asked time.Time
	list  []netip.Addr
}

// get asks, once in askPause at most. Others wait meanwhile for the same answer.
func (s *seenAddresses) get(ctx context.Context, ask func(context.Context) []netip.Addr, now func() time.Time) []netip.Addr {
	if ask == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if since := now().Sub(s.asked); since < 0 || since >= askPause {
		s.list, s.asked = ask(ctx), now()
	}
	return s.list
}
