package main

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
)

// The records that a domain publishes so that others bring its mail here and believe what comes from here. The doctor holds
// what the DNS has against them.

// recordTTL is how long others may keep a record, in seconds.
const recordTTL = 3600

// RecordKind is what a record is for.
type RecordKind string

const (
	RecordAddress    RecordKind = "address"
	RecordMX         RecordKind = "mx"
	RecordSPF        RecordKind = "spf"
	RecordDKIM       RecordKind = "dkim"
	RecordDMARC      RecordKind = "dmarc"
	RecordMTASTS     RecordKind = "mta-sts"
	RecordTLSRPT     RecordKind = "tls-rpt"
	RecordAutoconfig RecordKind = "autoconfig"
	RecordSRV        RecordKind = "srv"
)

// PublishedRecord is a record with what a person must know about it. Its Value is empty while it is not known; of MX, SRV
// and CNAME it is written as forms have it, without a dot at the end of a name.
type PublishedRecord struct {
	DNSRecord
	Kind    RecordKind `json:"kind"`
	Purpose string     `json:"purpose"`
	Advice  string     `json:"advice,omitempty"` // what is to be found out or known before
}

// DNSPlan is what the records of a domain are made from.
type DNSPlan struct {
	Domain    string       // in its ASCII form, as Host is
	Host      string       // the name of this machine on the internet
	Addresses []netip.Addr // of this machine on the internet, as far as they are known
	Shifting  bool         // it has several IPv6 addresses, some of which may change daily (RFC 8981)
	DKIM      []DNSRecord
	Relay     string // the server that takes this domain's mail for others, "" for none
}

// Records gives all that the domain publishes, in the order in which a person goes through it.
func (p *DNSPlan) Records() []PublishedRecord {
	list := p.addresses()
	add := func(kind RecordKind, name, typ, value, purpose, advice string) {
		if name != "" {
			name += "."
		}
		list = append(list, PublishedRecord{DNSRecord{name + p.Domain, typ, value}, kind, purpose, advice})
	}
	add(RecordMX, "", "MX", "10 "+p.Host, "Brings the domain's mail to this machine", "")
	spf, advice := "v=spf1 mx -all", ""
	if p.Relay != "" {
		spf = "v=spf1 mx ~all"
		advice = "Mail goes out through " + p.Relay + ": if the help of that provider names an include:…, put it before ~all."
	}
	add(RecordSPF, "", "TXT", spf, "Says which servers send the domain's mail (SPF)", advice)
	for _, r := range p.DKIM {
		list = append(list, PublishedRecord{r, RecordDKIM, "Holds the key of the signatures (DKIM)", ""})
	}
	add(RecordDMARC, "_dmarc", "TXT", "v=DMARC1; p=quarantine", "Says what to do with forged mail (DMARC)", "")
	add(RecordMTASTS, "_mta-sts", "TXT", "v=STSv1; id="+stsPolicyID(p.Host), "Tells others to bring mail under TLS alone (MTA-STS)",
		"It counts once https://mta-sts."+p.Domain+"/.well-known/mta-sts.txt answers.")
	add(RecordMTASTS, "mta-sts", "CNAME", p.Host, "Leads to the rules for that", "")
	add(RecordTLSRPT, "_smtp._tls", "TXT", "v=TLSRPTv1; rua=mailto:postmaster@"+p.Domain, "Asks for reports of failed TLS (TLS-RPT)", "")
	add(RecordAutoconfig, "autoconfig", "CNAME", p.Host, "Lets mail programs find their settings", "")
	for _, s := range mailServices() {
		add(RecordSRV, s.name, "SRV", s.value(p.Host), "Lets mail programs find their settings", "")
	}
	return list
}

// addresses gives the records of the machine's own name, where that lies in the domain.
func (p *DNSPlan) addresses() []PublishedRecord {
	if p.Host != p.Domain && !strings.HasSuffix(p.Host, "."+p.Domain) {
		return nil
	}
	const purpose = "Leads to this machine"
	var list []PublishedRecord
	for _, a := range p.Addresses {
		r := PublishedRecord{DNSRecord{p.Host, "A", a.String()}, RecordAddress, purpose, ""}
		if a.Is6() {
			r.Type = "AAAA"
			if p.Shifting {
				r.Advice = "This machine has several IPv6 addresses: publish one that stays the same, or leave this record out."
			}
		}
		list = append(list, r)
	}
	if len(list) == 0 {
		list = append(list, PublishedRecord{DNSRecord{p.Host, "A", ""}, RecordAddress, purpose,
			"Enter the public IPv4 address of this machine; the page of your router shows it."})
	}
	return list
}

// Reverse gives what the provider of each address has to enter: its name. It stands in no zone of the domain's.
func (p *DNSPlan) Reverse() []ReverseName {
	var list []ReverseName
	for _, a := range p.Addresses {
		list = append(list, ReverseName{a, p.Host})
	}
	return list
}

// ReverseName is the name that an address is to have (PTR).
type ReverseName struct {
	Address netip.Addr `json:"address"`
	Name    string     `json:"name"`
}

// mailService is one service of the domain by which programs find their settings (RFC 6186 §3, RFC 8314 §5.1).
type mailService struct {
	name           string
	priority, port int
}

// mailServices gives them. IMAP stands before POP3, TLS from the start before STARTTLS. By the last one Outlook finds where to
// ask for all others ([MS-OXDISCO] §3.1.5.1).
func mailServices() []mailService {
	return []mailService{{"_submissions._tcp", 0, 465}, {"_imaps._tcp", 0, 993}, {"_pop3s._tcp", 10, 995}, {"_submission._tcp", 10, 587},
		{"_autodiscover._tcp", 0, 443}}
}

func (s mailService) value(host string) string {
	return fmt.Sprintf("%d 1 %d %s", s.priority, s.port, host)
}

// stsPolicyID changes whenever the policy does (RFC 8461 §3.1).
func stsPolicyID(host string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(stsPolicyText(host))))[:16]
}

// Zone gives the records as a piece of a zone file (RFC 1035 §5), and below, as comments, as a table for the forms of
// providers and what does not belong into the zone.
func (p *DNSPlan) Zone() string {
	var b strings.Builder
	fmt.Fprintf(&b, "; The records of %s, to be put into its zone.\n", p.Domain)
	list, purpose := p.Records(), ""
	for i := range list {
		r := &list[i]
		if r.Purpose != purpose {
			purpose = r.Purpose
			fmt.Fprintf(&b, "\n; %s\n", purpose)
		}
		if r.Advice != "" {
			fmt.Fprintf(&b, "; %s\n", r.Advice)
		}
		if r.Value == "" {
			fmt.Fprintf(&b, "; %s. %d IN %s ...\n", r.Name, recordTTL, r.Type)
			continue
		}
		fmt.Fprintf(&b, "%s. %d IN %s %s\n", r.Name, recordTTL, r.Type, r.zoneValue())
	}
	if list[0].Kind != RecordAddress {
		fmt.Fprintf(&b, "\n; The address of %s belongs into the zone of that name.\n", p.Host)
	}
	b.WriteString("\n; The same as a table, for a form where you enter one record after the other:\n;\n" + p.table(list))
	b.WriteString("\n; Not in the zone, but with the provider of your internet address or server:\n")
	for _, r := range p.Reverse() {
		fmt.Fprintf(&b, ";   the reverse name (PTR) of %s is to be %s\n", r.Address, r.Name)
	}
	if len(p.Addresses) == 0 {
		fmt.Fprintf(&b, ";   the reverse name (PTR) of the public address is to be %s\n", p.Host)
	}
	return b.String()
}

// zoneValue gives the value as a zone file has it.
func (r *DNSRecord) zoneValue() string {
	switch r.Type {
	case "TXT":
		return quoteTXT(r.Value)
	case "MX", "SRV", "CNAME":
		return r.Value + "."
	}
	return r.Value
}

// quoteTXT cuts a text into character strings of 255 octets at most (RFC 1035 §3.3.14, §5.1).
func quoteTXT(text string) string {
	const most = 255
	var parts []string
	for piece := range slices.Chunk([]byte(text), most) {
		parts = append(parts, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(string(piece))+`"`)
	}
	return strings.Join(parts, " ")
}

// table gives the records as forms ask for them: names within the domain, a priority of its own.
func (p *DNSPlan) table(list []PublishedRecord) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, ";   Name\tType\tPriority\tValue")
	for i := range list {
		r := &list[i]
		priority, value := "", r.Value
		if r.Type == "MX" || r.Type == "SRV" {
			priority, value, _ = strings.Cut(value, " ")
		}
		if words := strings.Fields(value); r.Type == "SRV" {
			value = fmt.Sprintf("%s (weight %s, port %s)", words[2], words[0], words[1])
		}
		if value == "" {
			value = "..."
		}
		_, _ = fmt.Fprintf(w, ";   %s\t%s\t%s\t%s\n", p.formName(r.Name), r.Type, priority, value)
	}
	_ = w.Flush() // into memory
	return b.String()
}

// formName gives a name as it stands within the domain, "@" for the domain itself.
func (p *DNSPlan) formName(name string) string {
	if name == p.Domain {
		return "@"
	}
	return strings.TrimSuffix(name, "."+p.Domain)
}
