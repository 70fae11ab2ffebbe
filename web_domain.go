package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// The domain, as the owner sees it: the records to publish and how each is found, the relays, the certificates.

const (
	webLookTime  = time.Minute // for a look of the doctor's; it takes some 20 s
	webLookAgain = "5"         // seconds after which a browser loads the page again that waits for one
)

func domainRoutes() []webRoute {
	domain := (*webRequest).domain
	return []webRoute{
		{pattern: "GET /domain", who: forOwner, do: domain},
		{pattern: "POST /domain/look", who: forOwner, do: (*webRequest).lookAgain, again: domain},
		{pattern: "POST /domain/relay", who: forOwner, do: (*webRequest).setRelay, again: domain},
		{pattern: "POST /domain/relay/remove", who: forOwner, do: (*webRequest).removeRelay, again: domain},
	}
}

// webLook is a look of the doctor's that somebody has asked for.
type webLook struct {
	wanted chan struct{}
	busy   atomic.Bool
	failed atomic.Bool // the last one
}

// Run does what requests do not wait for, until ctx ends.
func (w *Web) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.look.wanted:
			w.examine(ctx)
		}
	}
}

func (w *Web) examine(ctx context.Context) {
	defer w.look.busy.Store(false)
	ctx, cancel := context.WithTimeout(ctx, webLookTime)
	defer cancel()
	err := w.Examine(ctx)
	w.look.failed.Store(err != nil)
	if err != nil {
		w.Log.Warn("the domain could not be looked at", "err", err)
	}
}

// lookAgain has the doctor look. While he does, nothing more is asked of him.
func (q *webRequest) lookAgain() error {
	if !q.look.busy.Swap(true) {
		q.look.wanted <- struct{}{}
	}
	return q.done("/domain", "domain.look_begun")
}

// webDomains is what domain.html shows.
type webDomains struct {
	Domains      []webDomain
	Checked      *Diagnosis // nil: nobody has looked yet
	Looking      bool
	Failed       bool
	Others       []Finding // that belong to no record
	Relays       []RelaySetting
	Certificates []webCertificate
}

// webDomain is one domain.
type webDomain struct {
	Name    string
	Records []webRecord
	Zone    string // the same for a zone file
}

// webRecord is one record, with what was found about it.
type webRecord struct {
	PublishedRecord
	ID       string // within the page
	Short    string // the name within the domain
	Priority string
	Rest     string // of the value
	Found    []Finding
}

// webCertificate is a certificate with whether its end is near.
type webCertificate struct {
	CertificateState
	Late bool
}

func (q *webRequest) domain() error {
	a, err := q.order(order{Do: "doctor facts"})
	if err != nil {
		return err
	}
	data := webDomains{Checked: a.Facts.Last, Looking: q.look.busy.Load(), Failed: q.look.failed.Load(), Relays: q.relays()}
	last := a.Facts.Last
	if last == nil {
		last = &Diagnosis{}
	}
	data.Others = slices.Clone(last.Findings)
	for i, plan := range a.Facts.Plans(a.Facts.PublicDomains(), last.Addresses) {
		d := webDomain{Name: a.Facts.nameOf(plan.Domain), Zone: plan.Zone()}
		for n, r := range plan.Records() {
			found := last.about(&r, d.Name)
			d.Records = append(d.Records, newWebRecord(&plan, r, fmt.Sprintf("r%d-%d", i, n), found))
			data.Others = slices.DeleteFunc(data.Others, func(f Finding) bool { return slices.Contains(found, f) })
		}
		data.Domains = append(data.Domains, d)
	}
	now := q.Now()
	for _, c := range q.Certificates.State() {
		data.Certificates = append(data.Certificates, webCertificate{c, now.After(c.Until.Add(-c.Until.Sub(c.From) / 10))})
	}
	if data.Looking {
		q.rw.Header().Set("Refresh", webLookAgain)
	}
	return q.show("domain", data)
}

// nameOf gives the name of a domain as its people write it.
func (f *DoctorFacts) nameOf(ascii string) string {
	for i := range f.Domains {
		if got, ok := asciiDomain(f.Domains[i].Name); ok && got == ascii {
			return f.Domains[i].Name
		}
	}
	return ascii
}

// about gives what was found about a record of a domain.
func (d *Diagnosis) about(r *PublishedRecord, domain string) (found []Finding) {
	for _, f := range d.Findings {
		switch {
		case r.Kind == RecordAddress && f.Name == "name",
			r.Kind == RecordDKIM && f.Name == "dkim" && f.Subject == r.Name,
			r.Kind != RecordDKIM && f.Name == string(r.Kind) && f.Subject == domain:
			found = append(found, f)
		}
	}
	return found
}

func newWebRecord(plan *DNSPlan, r PublishedRecord, id string, found []Finding) webRecord {
	w := webRecord{PublishedRecord: r, ID: id, Short: plan.formName(r.Name), Rest: r.Value, Found: found}
	if r.Type == "MX" || r.Type == "SRV" {
		w.Priority, w.Rest, _ = strings.Cut(r.Value, " ")
	}
	return w
}

// PurposeOf says what a record is for.
func (v *webView) PurposeOf(kind RecordKind) string {
	return v.T(map[RecordKind]string{
		RecordAddress: "domain.for_address", RecordMX: "domain.for_mx", RecordSPF: "domain.for_spf", RecordDKIM: "domain.for_dkim", RecordDMARC: "domain.for_dmarc",
		RecordMTASTS: "domain.for_sts", RecordTLSRPT: "domain.for_rpt", RecordAutoconfig: "domain.for_config", RecordSRV: "domain.for_config",
	}[kind])
}

// StateOf says how a finding came out.
func (v *webView) StateOf(state FindingState) string {
	return v.T(map[FindingState]string{
		StateOK: "domain.state_ok", StateNote: "domain.state_note", StateWarn: "domain.state_warn", StateBad: "domain.state_bad", StateUnknown: "domain.state_unknown",
	}[state])
}

// StateClass is what the style sheet knows a state by.
func (v *webView) StateClass(state FindingState) string {
	return map[FindingState]string{StateOK: "good", StateWarn: "todo", StateBad: "bad"}[state]
}

// KindOf says where a certificate comes from.
func (v *webView) KindOf(kind CertificateKind) string {
	return v.T(map[CertificateKind]string{
		CertificateOwn: "domain.cert_own", CertificatePublic: "domain.cert_public", CertificateLocal: "domain.cert_local",
	}[kind])
}

// relays gives the relays without their passwords.
func (q *webRequest) relays() []RelaySetting {
	a, err := q.order(order{Do: "relay list"})
	if err != nil {
		q.Log.Error("the relays could not be listed", "err", err)
		return nil
	}
	for i := range a.Relays {
		a.Relays[i].Password = ""
	}
	return a.Relays
}

// setRelay tries a relay and keeps it.
func (q *webRequest) setRelay() error {
	host, port, err := splitServer(q.field("server"))
	if err != nil {
		return q.wrong("domain.bad_server")
	}
	password := q.r.PostForm.Get("password")
	if password == "" {
		return q.wrong("domain.no_password")
	}
	relay := RelaySetting{Host: host, Port: port, User: q.field("user"), For: q.field("for"), From: q.field("from")}
	a, err := q.order(order{Do: "relay set", Relay: &relay, Password: password})
	if err != nil {
		return err
	}
	set := &a.Relays[0]
	q.note("server", set.Host, "for", set.For)
	return q.done("/domain", "domain.relay_set", net.JoinHostPort(set.Host, strconv.Itoa(set.Port)))
}

func (q *webRequest) removeRelay() error {
	scope := q.field("for")
	if _, err := q.order(order{Do: "relay remove", Relay: &RelaySetting{For: scope}}); err != nil {
		return err
	}
	q.note("for", scope)
	return q.done("/domain", "domain.relay_removed")
}
