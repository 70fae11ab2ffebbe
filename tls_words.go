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

// refusalWords gives the one that helps most: what an authority found out about us says more than that one was not reached.
func refusalWords(name string, refusals []refusal, err error) string {
	for _, r := range refusals {
		if problem := (acme.Problem{}); errors.As(r.err, &problem) {
			return problemWords(name, r.authority, &problem)
		}
	}
	if len(refusals) == 0 {
		return "the certificate for " + name + " could not be got: " + shortReason(err)
	}
	r := refusals[0]
	if isNetworkError(r.err) {
		return fmt.Sprintf("%s cannot be reached: %s", r.authority, shortReason(r.err))
	}
	return fmt.Sprintf("%s gave no certificate for %s: %s", r.authority, name, shortReason(r.err))
}

// problemWords puts an authority's own words (RFC 8555 §6.7) behind what they mean.
func problemWords(name, authority string, p *acme.Problem) string {
	detail := foreignWords(p.Detail, foreignMost)
	if detail != "" {
		detail = " (" + detail + ")"
	}
	switch p.Type {
	case acme.ProblemTypeConnection:
		return fmt.Sprintf("%s could not connect to %s on port 80 or 443: let these ports of the router lead to this machine%s", authority, name, detail)
	case acme.ProblemTypeDNS:
		return fmt.Sprintf("%s does not find %s in the DNS%s", authority, name, detail)
	case acme.ProblemTypeUnauthorized, acme.ProblemTypeTLS, acme.ProblemTypeIncorrectResponse:
		return fmt.Sprintf("%s asked at %s, and another machine or program answered on port 80 or 443%s", authority, name, detail)
	case acme.ProblemTypeCAA:
		return fmt.Sprintf("a CAA record in the DNS does not let %s give a certificate for %s%s", authority, name, detail)
	case acme.ProblemTypeRateLimited:
		return fmt.Sprintf("%s takes no more orders for a while%s", authority, detail)
	}
	return fmt.Sprintf("%s gave no certificate for %s%s", authority, name, detail)
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
