package main

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"blitiri.com.ar/go/spf"
	"github.com/emersion/go-msgauth/authres"
)

// SPFFinding says whether the client may send for the domain of the reverse-path (RFC 7208).
type SPFFinding struct {
	Result authres.ResultValue // none, neutral, pass, fail, softfail, temperror or permerror
	Domain string              // that was asked, in its ASCII form; "" where there is none to ask
	From   string              // the reverse-path, "" for the null one, whose domain is the client's name (RFC 7208 §2.4)
	Helo   string              // the client's name
	Reason string
}

// checkSPF asks for the reverse-path, or for the client's name when that is null.
func (v *Verifier) checkSPF(ctx context.Context, m *ReceivedMail) SPFFinding {
	f := SPFFinding{Result: authres.ResultNone, From: m.From, Helo: m.Helo}
	local, domain := "postmaster", m.Helo
	if m.From != "" {
		if local, domain, _ = cutLast(m.From, '@'); local == "" {
			local = "postmaster" // RFC 7208 §4.3
		}
	}
	domain, ok := asciiDomain(domain)
	if !ok || domain[0] == '[' || !strings.Contains(domain, ".") {
		return f // RFC 7208 §4.3: not a name of more than one label
	}
	f.Domain = domain
	// The library splits at the first @. Only macros see the local part.
	sender := strings.ReplaceAll(local, "@", "_") + "@" + domain
	result, err := spf.CheckHostWithSender(m.Remote.Unmap().AsSlice(), m.Helo, sender, spf.WithContext(ctx), spf.WithResolver(v.Resolver))
	f.Result = authres.ResultValue(result)
	if err != nil && (result == spf.TempError || result == spf.PermError) {
		f.Reason = err.Error()
	}
	return f
}

func (f SPFFinding) result() authres.Result {
	r := &authres.SPFResult{Value: f.Result, Reason: resultText(f.Reason), Helo: resultText(f.Helo)}
	if f.From != "" {
		r.From, r.Helo = resultText(f.From), ""
	}
	return r
}

// IPRevFinding says whether the client's address has a name that leads back to it.
type IPRevFinding struct {
	// Result is pass, fail when no name leads back, permerror when there is no name, or temperror (RFC 8601 §2.7.3).
	Result authres.ResultValue
	Addr   netip.Addr
	Name   string // the name that leads back, or else the first one
}

// maxPointers is how many names of an address are looked at (RFC 7208 §4.6.4 has the same number).
const maxPointers = 10

// checkIPRev looks for a name of an address that leads back to it (RFC 8601 §3).
func (v *Verifier) checkIPRev(ctx context.Context, addr netip.Addr) IPRevFinding {
	addr = addr.Unmap()
	f := IPRevFinding{Result: authres.ResultTempError, Addr: addr}
	names, err := v.Resolver.PTR(ctx, addr)
	if err != nil {
		if isNotFound(err) {
			f.Result = authres.ResultPermError
		}
		return f
	}
	f.Name, f.Result = names[0], authres.ResultFail
	for _, name := range names[:min(len(names), maxPointers)] {
		found, _, err := v.Resolver.Addresses(ctx, name)
		switch {
		case slices.Contains(found, addr):
			f.Name, f.Result = name, authres.ResultPass
			return f
		case err != nil && !isNotFound(err):
			f.Result = authres.ResultTempError
		}
	}
	return f
}

func (f IPRevFinding) result() authres.Result {
	return &authres.IPRevResult{Value: f.Result, Reason: resultText(f.Name), IP: f.Addr.String()}
}
