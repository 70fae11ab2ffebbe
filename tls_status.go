package main

import (
	"crypto/tls"
	"slices"
	"time"
)

// CertificateKind says where a certificate comes from.
type CertificateKind string

const (
	CertificateOwn    CertificateKind = "own"    // a person has brought it
	CertificatePublic CertificateKind = "public" // an authority has given it
	CertificateLocal  CertificateKind = "local"  // of the authority of this machine
)

// CertificateState is what is known of one name.
type CertificateState struct {
	Name   string          `json:"name"`
	Kind   CertificateKind `json:"kind"` // of the certificate that clients get who ask for the name
	Issuer string          `json:"issuer"`
	From   time.Time       `json:"from"`
	Until  time.Time       `json:"until"`

	// For names that are wanted from an authority, and for a certificate that a person has brought:
	Error string    `json:"error,omitempty"` // why there is no certificate, or no new one; a sentence without a full stop
	Retry time.Time `json:"retry,omitzero"`  // when that is tried again
}

// State gives all names of certificates: those that people outside use first, those that only the network here knows last.
func (c *Certificates) State() []CertificateState {
	own, local := c.own.current(), c.local()
	var list []CertificateState
	add := func(name string, kind CertificateKind, cert *tls.Certificate) *CertificateState {
		if slices.ContainsFunc(list, func(s CertificateState) bool { return s.Name == name }) {
			return new(CertificateState)
		}
		list = append(list, CertificateState{Name: name, Kind: kind, Issuer: issuerWords(cert.Leaf), From: cert.Leaf.NotBefore, Until: cert.Leaf.NotAfter})
		return &list[len(list)-1]
	}
	if own != nil {
		for _, name := range certNames(own.Leaf) {
			add(name, CertificateOwn, own).Error = c.own.trouble()
		}
	}
	for _, n := range c.public.state() {
		kind, cert := CertificatePublic, n.cert
		if cert == nil {
			kind, cert = CertificateLocal, local
		}
		s := add(n.name, kind, cert)
		s.Error, s.Retry = n.problem, n.retry
	}
	for _, name := range local.Leaf.DNSNames {
		add(name, CertificateLocal, local)
	}
	if trouble := c.own.trouble(); own == nil && trouble != "" && len(list) > 0 {
		list[0].Error = trouble
	}
	return list
}

// trouble says what is wrong with the files of a certificate that was set, "" for nothing.
func (o *ownCertificate) trouble() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.problem == "" && o.pair != nil && o.now().After(o.pair.Leaf.NotAfter) {
		return "the certificate that was set has run out"
	}
	return o.problem
}

// publicState is what is known of one wanted name.
type publicState struct {
	name    string
	cert    *tls.Certificate // nil: none that is good
	problem string
	retry   time.Time // zero: not planned
}

// state gives the wanted names in their order.
func (p *publicCertificates) state() []publicState {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.learnNames()
	var list []publicState
	for _, name := range p.order {
		n := p.names[name]
		s := publicState{name: name, cert: p.magic.certificate(name, p.now()), problem: n.problem}
		if s.problem != "" {
			s.retry = n.next
		}
		list = append(list, s)
	}
	return list
}

// main gives the certificate of the most important name that has one, nil for none.
func (p *publicCertificates) main() *tls.Certificate {
	p.mu.Lock()
	magic, order := p.magic, p.order
	p.mu.Unlock()
	for _, name := range order {
		if cert := magic.certificate(name, p.now()); cert != nil {
			return cert
		}
	}
	return nil
}
