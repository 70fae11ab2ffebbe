package main

import (
	"context"
	"crypto/x509"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// The doctor finds out whether mail comes in and goes out, and says it in sentences for people who have never run a mail
// server. What is on this machine is looked at; what lies outside is asked, never guessed: what cannot be told is unknown.
//
// doctor_probe.go contacts others, doctor_udp.go speaks STUN and SNTP, doctor_way.go judges the way in and out,
// doctor_domain.go the records of the domains, doctor_machine.go the machine; doctor_daily.go looks once a day and tells the
// owner what has changed.

const (
	doctorProbes  = 10 * time.Second // for all that asks whether there is an internet, and what we look like from there
	doctorChecks  = 12 * time.Second // for all checks after that
	doctorAtOnce  = 24               // checks that run at once
	doctorDomains = 20               // domains that are looked at
)

// FindingState is how a check came out.
type FindingState string

const (
	StateOK      FindingState = "ok"
	StateNote    FindingState = "note"    // not as it could be, and nothing need be done
	StateWarn    FindingState = "warn"    // some mail may not arrive
	StateBad     FindingState = "bad"     // mail does not arrive
	StateUnknown FindingState = "unknown" // it cannot be told
)

// Finding is what one check found.
type Finding struct {
	Name     string       `json:"name"`              // of the check: "mx"
	Subject  string       `json:"subject,omitempty"` // what it looked at: a domain, an address
	State    FindingState `json:"state"`
	Sentence string       `json:"sentence"`
	Do       string       `json:"do,omitempty"` // what helps, "" where nothing need be done
}

// Answer is what is known about a question.
type Answer string

const (
	AnswerYes     Answer = "yes"
	AnswerNo      Answer = "no"
	AnswerUnknown Answer = ""
)

// Diagnosis is all that was found at one time.
type Diagnosis struct {
	When      time.Time    `json:"when"`
	Findings  []Finding    `json:"findings"`
	Addresses []netip.Addr `json:"addresses,omitempty"` // of this machine as the internet sees it
	Port25    Answer       `json:"port_25,omitempty"`   // whether other servers can be reached
	IPv6      Answer       `json:"ipv6,omitempty"`      // whether others take mail from our IPv6 address: it has a name
	Visitor   time.Time    `json:"visitor,omitzero"`    // DoctorFacts.Visitor
}

// count gives how many findings are of a state.
func (d *Diagnosis) count(state FindingState) (n int) {
	for i := range d.Findings {
		if d.Findings[i].State == state {
			n++
		}
	}
	return n
}

// DoctorFacts is what the checks start from. It holds nothing secret: commands get it from the appliance that runs.
type DoctorFacts struct {
	Running  bool          `json:"running"`
	Hostname string        `json:"hostname"`
	Domains  []DomainFact  `json:"domains"` // that mail is kept for, the default one first
	Outside  []OutsideFact `json:"outside,omitempty"`
	Listen   string        `json:"listen,omitempty"` // the one address that is bound, "" for all
	Ports    []Port        `json:"ports,omitempty"`  // as bound; none where it does not run
	Data     string        `json:"data"`             // the data folder
	Visitor  time.Time     `json:"visitor,omitzero"` // when somebody from outside the LAN connected to the SMTP port last
	Last     *Diagnosis    `json:"last,omitempty"`   // what was found last, nil before the first time
}

// DomainFact is what is known of a domain here.
type DomainFact struct {
	Name  string      `json:"name"`
	DKIM  []DNSRecord `json:"dkim,omitempty"`  // of domains that can be on the internet
	Relay *RelayFact  `json:"relay,omitempty"` // who takes its mail for others, nil: nobody
}

// OutsideFact is an address elsewhere that somebody here sends with.
type OutsideFact struct {
	Address string     `json:"address"`
	Relay   *RelayFact `json:"relay,omitempty"` // who takes its mail, nil: it goes out directly
}

// RelayFact is a relay without its login.
type RelayFact struct {
	Host     string `json:"host"`
	Port     int    `json:"port"`
	Implicit bool   `json:"implicit"` // TLS from the start
}

// Doctor does the checks. Its exported fields are set before use and not changed after. Safe for concurrent use.
type Doctor struct {
	Facts    func() (*DoctorFacts, error)
	Resolver *Resolver
	// Dial opens all connections, to addresses that the Resolver gave and to ports of our own; nil: net.Dialer.
	Dial  func(ctx context.Context, network, address string) (net.Conn, error)
	Local func() []netip.Addr                                         // addresses of the network interfaces, nil: those of the system
	Space func(dir string) (diskSpace, error)                         // nil: as the system says
	Fetch func(ctx context.Context, host, url string) ([]byte, error) // an MTA-STS policy, nil: by HTTPS
	Roots *x509.CertPool                                              // that strangers trust, nil: the system's
	Now   func() time.Time                                            // nil: time.Now

	places *outsidePlaces // nil: the usual ones
}

func (d *Doctor) now() time.Time {
	if d.Now != nil {
		return d.Now()
	}
	return time.Now()
}

// Examine does all checks and gives what was found, always in the same order, with all that follows from it. It takes some
// 20 s at most, and fails only where the facts cannot be had.
func (d *Doctor) Examine(ctx context.Context) (*Diagnosis, error) {
	facts, err := d.Facts()
	if err != nil {
		return nil, err
	}
	x := &examination{d: d, facts: facts, places: d.outside(), verifier: &Verifier{Resolver: d.Resolver}}
	probes, cancel := context.WithTimeout(ctx, doctorProbes)
	x.probe(probes)
	cancel()
	x.chooseDomains()
	result := &Diagnosis{When: d.now().UTC().Truncate(time.Second), Addresses: x.public, Port25: x.port25(), Visitor: facts.Visitor}
	checks, cancel := context.WithTimeout(ctx, doctorChecks)
	defer cancel()
	result.Findings = x.runChecks(checks)
	result.IPv6 = x.ipv6
	return result, nil
}

// examination is one time that all is looked at.
type examination struct {
	d        *Doctor
	facts    *DoctorFacts
	places   *outsidePlaces
	verifier *Verifier
	probed
	domains []examinedDomain // those that are on the internet, or are meant to be
	host    string           // the name of this machine there, "" without a domain
	ipv6    Answer           // of Diagnosis, once the checks are done
}

// examinedDomain is a domain whose records are looked at.
type examinedDomain struct {
	DomainFact
	ascii string
	plan  DNSPlan
}

// chooseDomains leaves out the names that only the network here knows. A router may give machines a name that could be on the
// internet; it is nobody's domain for mail unless an MX says so.
func (x *examination) chooseDomains() {
	for i := range x.facts.Domains {
		fact := &x.facts.Domains[i]
		mx, asked := x.mx[fact.Name]
		ascii, ok := asciiDomain(fact.Name)
		if !asked || !ok || fact.Name == x.facts.Hostname && isNotFound(mx.err) || len(x.domains) == doctorDomains {
			continue
		}
		if x.host == "" {
			x.host = publicHost(x.facts.Hostname, fact.Name)
		}
		x.domains = append(x.domains, examinedDomain{DomainFact: *fact, ascii: ascii, plan: fact.plan(x.host, ascii, x.public)})
	}
}

// plan gives what the records of a domain are made from.
func (f *DomainFact) plan(host, ascii string, addresses []netip.Addr) DNSPlan {
	p := DNSPlan{Domain: ascii, Host: host, Addresses: addresses, DKIM: f.DKIM}
	if f.Relay != nil {
		p.Relay = f.Relay.Host
	}
	return p
}

// PublicDomains gives the domains that can be published.
func (f *DoctorFacts) PublicDomains() []DomainFact {
	public := slices.DeleteFunc(slices.Clone(f.Domains), func(d DomainFact) bool { return !isPublicName(d.Name) })
	if len(public) > 1 { // the machine's own name is hardly anybody's address then
		public = slices.DeleteFunc(public, func(d DomainFact) bool { return d.Name == f.Hostname })
	}
	return public
}

// Plans gives what the records of domains are made from, for a machine with these addresses on the internet.
func (f *DoctorFacts) Plans(domains []DomainFact, addresses []netip.Addr) []DNSPlan {
	host := ""
	var plans []DNSPlan
	for i := range domains {
		ascii, ok := asciiDomain(domains[i].Name)
		if !ok {
			continue
		}
		if host == "" {
			host = publicHost(f.Hostname, strings.ToLower(domains[i].Name))
		}
		plans = append(plans, domains[i].plan(host, ascii, addresses))
	}
	return plans
}

// check is one check; it gives no finding where there is nothing to look at.
type check func(ctx context.Context) []Finding

// checks lists all checks in the order of their findings. Without the DNS there is little to ask.
func (x *examination) checks() []check {
	checks := []check{x.checkNetwork}
	if x.named {
		checks = append(checks, x.checkHasDomain, x.checkOutside, x.checkOutbound, x.checkRelays, x.checkInbound, x.checkNAT, x.checkName, x.checkPTR, x.checkLists)
		for i := range x.domains {
			checks = append(checks, x.domainChecks(&x.domains[i])...)
		}
	}
	return append(checks, x.checkCertificate, x.checkClock, x.checkDisk)
}

// runChecks runs all checks at once and gives what they found in the order of the list.
func (x *examination) runChecks(ctx context.Context) []Finding {
	checks := x.checks()
	found := make([][]Finding, len(checks))
	slots := make(chan struct{}, doctorAtOnce)
	var running sync.WaitGroup
	for i, check := range checks {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			found[i] = check(ctx)
		})
	}
	running.Wait()
	return slices.Concat(found...)
}

// single is the usual result of a check.
func single(name, subject string, state FindingState, sentence, do string) []Finding {
	return []Finding{{Name: name, Subject: subject, State: state, Sentence: sentence, Do: do}}
}

// forInternet makes a state milder where nobody wants the internet's mail yet: without a domain nothing is wrong.
func (x *examination) forInternet(state FindingState) FindingState {
	if len(x.domains) == 0 && (state == StateWarn || state == StateBad) {
		return StateNote
	}
	return state
}

// direct says whether mail of some domain, or from an address elsewhere, goes to other servers without a relay.
func (x *examination) direct() bool {
	return slices.ContainsFunc(x.domains, func(d examinedDomain) bool { return d.Relay == nil }) ||
		slices.ContainsFunc(x.facts.Outside, func(o OutsideFact) bool { return o.Relay == nil })
}

// forDirect makes a state milder where relays take all mail for others.
func (x *examination) forDirect(state FindingState) FindingState {
	if !x.direct() && (state == StateWarn || state == StateBad) {
		return StateNote
	}
	return state
}

// wordList joins names as a sentence has them: "a, b and c".
func wordList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}
