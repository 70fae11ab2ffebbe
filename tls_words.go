package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/mholt/acmez/v3/acme"
)

// What authorities answer, in a sentence for people.

// foreignMost is how many characters of their own words stand in it.
const foreignMost = 200

// refusalWords gives the one that helps most: what an authority found out about us says more than that one was not reached. ports
// are ours.
func refusalWords(name string, refusals []refusal, err error, ports acmePorts) string {
	for _, r := range refusals {
		if problem := (acme.Problem{}); errors.As(r.err, &problem) {
			return problemWords(name, r.authority, &problem, ports)
		}
	}
	if len(refusals) == 0 {
		reason := shortReason(err)
		if disk, ok := strings.CutPrefix(reason, "failed storage check: "); ok { // certmagic's words, before it asks anybody
			reason = "it could not be kept: " + strings.TrimSuffix(disk, " - storage is probably misconfigured")
		}
		return "the certificate for " + name + " could not be got: " + reason
	}
	r := refusals[0]
	if isNetworkError(r.err) {
		return fmt.Sprintf("%s cannot be reached: %s", r.authority, shortReason(r.err))
	}
	return fmt.Sprintf("%s gave no certificate for %s: %s", r.authority, name, shortReason(r.err))
}

// problemWords puts an authority's own words (RFC 8555 §6.7) behind what they mean.
func problemWords(name, authority string, p *acme.Problem, ports acmePorts) string {
	detail := foreignWords(p.Detail, foreignMost)
	if detail != "" {
		detail = " (" + detail + ")"
	}
	switch p.Type {
	case acme.ProblemTypeConnection:
		return fmt.Sprintf("%s could not connect to %s on port 80 or 443: %s%s", authority, name, ports.routerWords(), detail)
	case acme.ProblemTypeDNS:
		return fmt.Sprintf("%s does not find %s in the DNS%s", authority, name, detail)
	case acme.ProblemTypeUnauthorized, acme.ProblemTypeTLS, acme.ProblemTypeIncorrectResponse:
		do := ""
		if !ports.usual() {
			do = ": " + ports.routerWords()
		}
		return fmt.Sprintf("%s asked at %s, and another machine or program answered on port 80 or 443%s%s", authority, name, do, detail)
	case acme.ProblemTypeCAA:
		return fmt.Sprintf("a CAA record in the DNS does not let %s give a certificate for %s%s", authority, name, detail)
	case acme.ProblemTypeRateLimited:
		return fmt.Sprintf("%s takes no more orders for a while%s", authority, detail)
	}
	return fmt.Sprintf("%s gave no certificate for %s%s", authority, name, detail)
}

// usual says whether they are those that authorities ask at.
func (p acmePorts) usual() bool { return p == acmePorts{80, 443} }

// routerWords says what lets an authority reach our ports.
func (p acmePorts) routerWords() string {
	switch {
	case p.usual():
		return "let these ports of the router lead to this machine"
	case p.secure == 0:
		return fmt.Sprintf("let port 80 of the router lead to port %d of this machine", p.plain)
	case p.plain == 0:
		return fmt.Sprintf("let port 443 of the router lead to port %d of this machine", p.secure)
	}
	return fmt.Sprintf("let the ports 80 and 443 of the router lead to the ports %d and %d of this machine", p.plain, p.secure)
}

func isNetworkError(err error) bool {
	var n net.Error
	return errors.As(err, &n) || errors.Is(err, context.DeadlineExceeded)
}

// shortReason gives the innermost of an error that came over the network, else all of it.
func shortReason(err error) string {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op
	}
	if err == nil {
		return "unknown"
	}
	return foreignWords(err.Error(), foreignMost)
}

// issuerWords names who has signed a certificate.
func issuerWords(leaf *x509.Certificate) string {
	cn, org := foreignWords(leaf.Issuer.CommonName, foreignMost), ""
	if len(leaf.Issuer.Organization) > 0 {
		org = foreignWords(leaf.Issuer.Organization[0], foreignMost)
	}
	if strings.HasPrefix(cn, org) {
		return cn
	}
	return strings.TrimSpace(org + " " + cn)
}
