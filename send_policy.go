package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// When a connection must have TLS with a certificate that is right: MTA-STS (RFC 8461), DANE (RFC 7672), a message that
// demands it (RFC 8689), and every relay that we log in to.

const (
	stsFetch    = 30 * time.Second
	stsMaxSize  = 64 << 10         // octets of a policy (RFC 8461 §3.2)
	stsMaxAge   = 31_557_600       // seconds (RFC 8461 §3.2)
	stsRecheck  = time.Hour        // how often the DNS is asked for the id of a policy that is known
	stsRefresh  = 24 * time.Hour   // how old a policy gets before it is asked for once more
	stsNegative = 10 * time.Minute // how long "there is none" is believed
)

// demandFor gives the TLS that a connection must have; nil: any, or none.
func (s *Sender) demandFor(ctx context.Context, r *route, host *sendHost, port uint16) (*tls.Config, *Outcome) {
	config := &tls.Config{ServerName: host.name, RootCAs: s.Roots, MinVersion: tls.VersionTLS12, Time: s.now}
	if r.relay != nil {
		return config, nil
	}
	if host.secure {
		dane, why := s.dane(ctx, r, host.name, port)
		if dane != nil || why != nil { // RFC 7672 §2.2: it stands above MTA-STS
			return dane, why
		}
	}
	if r.verified || r.policy != nil && r.policy.enforce {
		return config, nil
	}
	return nil, nil
}

// dane gives the configuration that a host's TLSA records demand, nil where there are none.
func (s *Sender) dane(ctx context.Context, r *route, host string, port uint16) (*tls.Config, *Outcome) {
	records, authentic, err := s.Resolver.TLSA(ctx, host, int(port))
	if err != nil && !isNotFound(err) { // RFC 7672 §2.1.2: not to know is not to be free
		return nil, &Outcome{Enhanced: "4.7.5", Text: "The DNS does not tell which certificate " + host + " has (DANE)", Remote: host, Unreachable: true}
	}
	if err != nil || !authentic || len(records) == 0 {
		return nil, nil
	}
	var usable []*dns.TLSA
	for _, t := range records { // RFC 7672 §3.1.3: the usages for the web are not usable
		if (t.Usage == 2 || t.Usage == 3) && t.Selector <= 1 && t.MatchingType <= 2 {
			usable = append(usable, t)
		}
	}
	if len(usable) == 0 && r.verified { // RFC 8689 §4.2.1: then the certificate must be right in another way
		return nil, nil
	}
	config := &tls.Config{ServerName: host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
	if len(usable) > 0 { // RFC 7672 §2.2: with none that is usable, TLS is a must and the certificate is not looked at
		names := []string{host, r.destination} // RFC 7672 §3.2.2
		config.VerifyConnection = func(state tls.ConnectionState) error { return s.matchDANE(usable, names, state.PeerCertificates) }
	}
	return config, nil
}

var errDANE = errors.New("its certificate is not the one that the DNS tells (DANE)")

// matchDANE checks the certificates that a server showed (RFC 7671 §5, RFC 7672 §3.2).
func (s *Sender) matchDANE(records []*dns.TLSA, names []string, chain []*x509.Certificate) error {
	for _, t := range records {
		for i, cert := range chain {
			if !tlsaMatches(t, cert) {
				continue
			}
			if t.Usage == 3 && i == 0 { // the server's own: neither its name nor its time counts
				return nil
			}
			if t.Usage == 2 && slices.ContainsFunc(names, func(name string) bool { return s.verifyBelow(cert, name, chain) == nil }) {
				return nil
			}
		}
	}
	return errDANE
}

// verifyBelow checks that the server's certificate is for a name and comes from an authority that the DNS names.
func (s *Sender) verifyBelow(authority *x509.Certificate, name string, chain []*x509.Certificate) error {
	ascii, err := asciiName(name)
	if err != nil {
		return err
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(authority)
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: ascii, CurrentTime: s.now()})
	return err
}

// tlsaMatches compares a certificate with a TLSA record (RFC 6698 §2.1).
func tlsaMatches(t *dns.TLSA, cert *x509.Certificate) bool {
	data := cert.Raw
	if t.Selector == 1 {
		data = cert.RawSubjectPublicKeyInfo
	}
	switch t.MatchingType {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return strings.EqualFold(fmt.Sprintf("%x", data), t.Certificate)
}

// stsPolicy is what a domain demands of those who send to it.
type stsPolicy struct {
	enforce bool
	mx      []string
}

// forbids says whether a host may not be used. A nil policy forbids none.
func (p *stsPolicy) forbids(host string) bool { return p != nil && p.enforce && !p.names(host) }

// names says whether a host is among those that a policy names. A nil policy names none.
func (p *stsPolicy) names(host string) bool {
	if p == nil {
		return false
	}
	for _, pattern := range p.mx {
		if suffix, wild := strings.CutPrefix(pattern, "*."); wild { // RFC 8461 §4.1: one label
			if _, rest, ok := strings.Cut(host, "."); ok && strings.EqualFold(rest, suffix) {
				return true
			}
		} else if strings.EqualFold(pattern, host) {
			return true
		}
	}
	return false
}

// policyFor gives the policy of a domain, nil where it has none that is known; unsure says that it may have one.
func (s *Sender) policyFor(ctx context.Context, domain string) (policy *stsPolicy, unsure bool) {
	now := s.now()
	known := s.known(domain, now)
	if known == nil || !now.Before(known.recheck) {
		known = s.keepPolicy(domain, s.lookUpPolicy(ctx, domain, known, now), now)
	}
	return known.policy, known.unsure
}

// lookUpPolicy asks the DNS for a policy's id, and the domain's web server for the policy where it is a new one, or has not
// been looked at for a day: so it is known for long when it cannot be had for once (RFC 8461 §10.2).
func (s *Sender) lookUpPolicy(ctx context.Context, domain string, known *cachedPolicy, now time.Time) *cachedPolicy {
	keep := func(unsure bool) *cachedPolicy {
		if known == nil || known.policy == nil {
			return &cachedPolicy{unsure: unsure, expires: now.Add(stsNegative), recheck: now.Add(stsNegative)}
		}
		again := *known
		again.recheck = now.Add(stsRecheck)
		return &again
	}
	texts, err := s.Resolver.TXT(ctx, "_mta-sts."+domain)
	if err != nil {
		return keep(!isNotFound(err))
	}
	id := stsID(texts)
	if id == "" || known != nil && known.id == id && now.Sub(known.fetched) < stsRefresh {
		return keep(false)
	}
	policy, age, err := s.newPolicy(ctx, domain)
	if err != nil {
		s.log().Info("no MTA-STS policy", "domain", domain, "reason", err.Error())
		return keep(true)
	}
	return &cachedPolicy{policy: policy, id: id, fetched: now, expires: now.Add(age), recheck: now.Add(stsRecheck)}
}

// newPolicy gets the policy of a domain from its web server.
func (s *Sender) newPolicy(ctx context.Context, domain string) (policy *stsPolicy, age time.Duration, err error) {
	ascii, err := asciiName(domain)
	if err != nil {
		return nil, 0, err
	}
	fetch := s.Fetch
	if fetch == nil {
		fetch = s.fetchPolicy
	}
	text, err := fetch(ctx, "mta-sts."+ascii, "https://mta-sts."+ascii+"/.well-known/mta-sts.txt")
	if err != nil {
		return nil, 0, err
	}
	return parsePolicy(text)
}

// stsID gives the id of the one record that there may be (RFC 8461 §3.1).
func stsID(texts []string) string {
	id, records := "", 0
	for _, t := range texts {
		fields := strings.Split(t, ";")
		if strings.TrimSpace(fields[0]) != "v=STSv1" {
			continue
		}
		records++
		for _, f := range fields[1:] {
			if v, ok := strings.CutPrefix(strings.TrimSpace(f), "id="); ok {
				id = v
			}
		}
	}
	if records != 1 {
		return ""
	}
	return id
}

// fetchPolicy gets a policy by HTTPS; redirects are not followed (RFC 8461 §3.3).
func (s *Sender) fetchPolicy(ctx context.Context, host, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, stsFetch)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: s.dialHost,
		TLSClientConfig: &tls.Config{ServerName: host, RootCAs: s.Roots, MinVersion: tls.VersionTLS12, Time: s.now}}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the web server answers %s", answer.Status)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, stsMaxSize+1))
	if err == nil && len(text) > stsMaxSize {
		err = fmt.Errorf("it is larger than %d KiB", stsMaxSize>>10)
	}
	return text, err
}

// dialHost opens a connection to a host by its name, as our resolver finds it.
func (s *Sender) dialHost(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	found, _, err := s.Resolver.Addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	for _, addr := range inTurns(found, s.NoIPv6 != nil && s.NoIPv6()) {
		var conn net.Conn
		if conn, err = s.dial(ctx, network, net.JoinHostPort(addr.String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// parsePolicy reads a policy (RFC 8461 §3.2).
func parsePolicy(text []byte) (policy *stsPolicy, age time.Duration, err error) {
	policy = &stsPolicy{}
	version, mode := "", ""
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		key, value, ok := strings.Cut(lines.Text(), ":")
		if value = strings.TrimSpace(value); !ok {
			continue
		}
		switch strings.TrimSpace(key) {
		case "version":
			version = value
		case "mode":
			mode = value
		case "mx":
			policy.mx = append(policy.mx, value)
		case "max_age":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 0 {
				return nil, 0, fmt.Errorf("its max_age is %q", clip(value, 40))
			}
			age = time.Duration(min(n, stsMaxAge)) * time.Second
		}
	}
	switch {
	case version != "STSv1":
		return nil, 0, fmt.Errorf("its version is %q", clip(version, 40))
	case mode == "none":
		return &stsPolicy{}, age, nil
	case mode != "enforce" && mode != "testing":
		return nil, 0, fmt.Errorf("its mode is %q", clip(mode, 40))
	case len(policy.mx) == 0:
		return nil, 0, errors.New("it names no server")
	}
	policy.enforce = mode == "enforce"
	return policy, age, nil
}
