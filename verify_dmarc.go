package main

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/emersion/go-msgauth/authres"
	"github.com/emersion/go-msgauth/dmarc"
	"golang.org/x/net/publicsuffix"
)

// maxAuthorDomains is how many domains of From fields are looked at. A message with more is for Junk.
const maxAuthorDomains = 5

// DMARCFinding says what the author's domain wants done with a message that cannot be shown to be from there (RFC 7489).
type DMARCFinding struct {
	// Result is pass, fail, none (no policy), temperror, or permerror when there is no author whom one could ask.
	Result authres.ResultValue
	// Domain is the author's, in its ASCII form; of several the one whose policy is the strictest among those that fail.
	Domain string
	// Policy is what is published for it: none, quarantine, reject, or "".
	Policy string
	// Disposition is what it comes to for this message: none, quarantine or reject.
	Disposition string
	Reason      string
}

// refusal is the sentence with which a message is refused.
func (f DMARCFinding) refusal() string {
	return "The message says that it is from " + f.Domain + ", whose DMARC policy is to reject what neither SPF nor DKIM shows to be from there"
}

func (f DMARCFinding) result() authres.Result {
	return &authres.DMARCResult{Value: f.Result, Reason: resultText(f.Reason), From: resultText(f.Domain)}
}

// authorPolicy is what the DNS says for one domain of the From field.
type authorPolicy struct {
	domain    string
	record    *dmarc.Record // nil: none
	inherited bool          // it stands at the organisational domain
	failed    error         // nobody could tell
}

// authorDomains gives the domains of all From fields, each once. Of fields that are no lists of mailboxes it gives whatever
// some program might take for an author's domain.
func authorDomains(fields []headerField) []string {
	var domains []string
	add := func(domain string) {
		if domain, ok := asciiDomain(strings.TrimRight(domain, ".")); ok && !slices.Contains(domains, domain) {
			domains = append(domains, domain)
		}
	}
	list, ok := fromAddresses(fields)
	for _, a := range list {
		add(a.Domain)
	}
	for _, h := range fields {
		if ok || !h.Is("From") {
			continue
		}
		for _, after := range strings.Split(h.Value(), "@")[1:] {
			end := 0
			for end < len(after) && isDomainByte(after[end]) {
				end++
			}
			add(after[:end])
		}
	}
	return domains
}

// unfitAuthors says why the authors of a message cannot be told, "" where they can: there must be one From field, and it must be a
// list of mailboxes (RFC 5322 §3.6.2), for else programs do not agree on who the author is (RFC 7489 §6.6.1).
func unfitAuthors(m *openedMail) string {
	froms := countFields(m.fields, "From")
	_, ok := fromAddresses(m.fields)
	switch {
	case m.tooLong:
		return "the header is too long to be checked"
	case len(authorDomains(m.fields)) > maxAuthorDomains:
		return "there are too many authors to be checked"
	case froms == 0:
		return "there is no From field"
	case froms > 1:
		return "there is more than one From field"
	case !ok:
		return "the From field is not a list of mail addresses"
	}
	return ""
}

// authorPolicies looks up the policies of all authors' domains at once.
func (v *Verifier) authorPolicies(ctx context.Context, m *openedMail) []authorPolicy {
	domains := authorDomains(m.fields)
	policies := make([]authorPolicy, min(len(domains), maxAuthorDomains))
	var lookups sync.WaitGroup
	for i := range policies {
		lookups.Go(func() { policies[i] = v.policyOf(ctx, domains[i]) })
	}
	lookups.Wait()
	return policies
}

// policyOf discovers a domain's policy (RFC 7489 §6.6.3).
func (v *Verifier) policyOf(ctx context.Context, domain string) authorPolicy {
	p := authorPolicy{domain: domain}
	for name := domain; ; name = organisation(domain) {
		p.inherited = name != domain
		texts, err := v.Resolver.TXT(ctx, "_dmarc."+name)
		if err != nil && !isNotFound(err) {
			p.failed = err
			return p
		}
		texts = slices.DeleteFunc(texts, func(s string) bool { return !isDMARCRecord(s) })
		if len(texts) == 1 {
			p.record = parseDMARC(texts[0])
		}
		if len(texts) > 0 || name == organisation(domain) { // several are none (step 5)
			return p
		}
	}
}

// organisation gives the organisational domain (RFC 7489 §3.2), by the list of public suffixes.
func organisation(domain string) string {
	if org, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return org
	}
	return domain // a public suffix itself
}

// isDMARCRecord says whether a text begins with the version (RFC 7489 §6.4: white space and case do not matter to it).
func isDMARCRecord(text string) bool {
	version, _, _ := strings.Cut(text, ";")
	name, value, _ := strings.Cut(version, "=")
	return strings.TrimRight(name, " \t") == "v" && strings.TrimSpace(value) == "DMARC1"
}

// parseDMARC reads a record; nil is none. The library takes no record with a mistake in it, but a tag that it does not take
// by itself is only to be left out (RFC 7489 §6.3). Without a valid policy the record is none, or "none" of a domain that
// asks for reports (§6.6.3, step 6).
func parseDMARC(text string) *dmarc.Record {
	const version = "v=DMARC1"
	tags, policy, broken, reports := "", false, false, false
	_, text, _ = strings.Cut(text, ";")
	for one := range strings.SplitSeq(text, ";") {
		name, value, _ := strings.Cut(strings.ToLower(one), "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		tag := "; " + name + "=" + value
		if _, err := dmarc.Parse(version + "; p=none" + tag); err != nil {
			broken = broken || name == "p" || name == "sp"
			continue
		}
		policy = policy || name == "p"
		reports = reports || name == "rua" && value != ""
		tags += tag
	}
	if broken || !policy {
		if !reports {
			return nil
		}
		tags += "; p=none; sp=none"
	}
	record, err := dmarc.Parse(version + tags)
	if err != nil {
		return nil
	}
	return record
}

// decideDMARC holds the policies of the authors' domains against what SPF and DKIM found. With several authors each domain
// is tried, and the strictest policy among those that fail counts (RFC 7489 §6.6.1). Who cannot be read is for Junk at least.
func (v *Verifier) decideDMARC(policies []authorPolicy, m *openedMail, f *Findings) DMARCFinding {
	unfit := unfitAuthors(m)
	if m.tooLong || len(authorDomains(m.fields)) > maxAuthorDomains { // not all of them were asked
		return unfitFinding(unfit)
	}
	drawn, worst := v.chance(), DMARCFinding{}
	for i, p := range policies {
		if one := p.decide(f, drawn); i == 0 || one.weight() > worst.weight() {
			worst = one
		}
	}
	if unfit != "" && worst.Disposition != "reject" {
		worst.Result, worst.Disposition, worst.Reason = authres.ResultPermError, "quarantine", unfit
	}
	return worst
}

// unfitFinding is what is found of a message whose authors cannot be told.
func unfitFinding(why string) DMARCFinding {
	return DMARCFinding{Result: authres.ResultPermError, Disposition: "quarantine", Reason: why}
}

// weight orders what is found for several authors.
func (f DMARCFinding) weight() int {
	order := []authres.ResultValue{authres.ResultPass, authres.ResultNone, authres.ResultTempError, authres.ResultFail}
	return slices.Index(order, f.Result) + 10*slices.Index([]string{"none", "quarantine", "reject"}, f.Disposition)
}

// decide says what one author's domain demands. drawn is 0 to 99.
func (p authorPolicy) decide(f *Findings, drawn int) DMARCFinding {
	d := DMARCFinding{Result: authres.ResultNone, Domain: p.domain, Disposition: "none"}
	switch {
	case p.failed != nil:
		d.Result, d.Reason = authres.ResultTempError, "the policy cannot be looked up at the moment"
		return d
	case p.record == nil:
		return d
	}
	d.Policy = string(p.record.Policy)
	if p.inherited && p.record.SubdomainPolicy != "" {
		d.Policy = string(p.record.SubdomainPolicy)
	}
	d.Result = p.authenticate(f)
	switch d.Result {
	case authres.ResultTempError:
		d.Reason = "SPF or DKIM cannot be looked up at the moment"
	case authres.ResultFail:
		d.Disposition = d.Policy
		if p.record.Percent != nil && drawn >= *p.record.Percent {
			d.Disposition = milder(d.Policy)
		}
		d.Reason = "the policy is " + d.Policy
		if d.Disposition != d.Policy {
			d.Reason += ", not for all mail"
		}
	}
	return d
}

// authenticate says whether the domain is the author: pass, fail, or temperror while that cannot be told.
func (p authorPolicy) authenticate(f *Findings) authres.ResultValue {
	var results []authres.ResultValue
	if aligned(p.domain, f.SPF.Domain, p.record.SPFAlignment) {
		results = append(results, f.SPF.Result)
	}
	for _, d := range f.DKIM {
		if signer, ok := asciiDomain(d.Domain); ok && aligned(p.domain, signer, p.record.DKIMAlignment) {
			results = append(results, d.Result)
		}
	}
	for _, r := range []authres.ResultValue{authres.ResultPass, authres.ResultTempError} {
		if slices.Contains(results, r) {
			return r
		}
	}
	return authres.ResultFail
}

// aligned says whether a domain that was authenticated stands for the author's (RFC 7489 §3.1).
func aligned(author, other string, mode dmarc.AlignmentMode) bool {
	if other == "" || author == other {
		return author == other
	}
	return mode != dmarc.AlignmentStrict && organisation(author) == organisation(other)
}

// Vouches says whether SPF or DKIM shows that a message is from a domain, in the relaxed way of DMARC, whatever the domain's
// policy.
func (f *Findings) Vouches(domain string) bool {
	domain, ok := asciiDomain(domain)
	if !ok {
		return false
	}
	if f.SPF.Result == authres.ResultPass && aligned(domain, f.SPF.Domain, dmarc.AlignmentRelaxed) {
		return true
	}
	return slices.ContainsFunc(f.DKIM, func(d DKIMFinding) bool {
		signer, ok := asciiDomain(d.Domain)
		return ok && d.Result == authres.ResultPass && aligned(domain, signer, dmarc.AlignmentRelaxed)
	})
}

// milder is the policy for the mail that pct leaves out (RFC 7489 §6.6.4).
func milder(policy string) string {
	if policy == "reject" {
		return "quarantine"
	}
	return "none"
}
