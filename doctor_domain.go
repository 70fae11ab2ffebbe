package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/authres"
	"github.com/miekg/dns"
)

// The records of a domain, held against what they should be (dns.go).

// domainChecks gives the checks of one domain.
func (x *examination) domainChecks(d *examinedDomain) []check {
	of := func(f func(ctx context.Context, d *examinedDomain) []Finding) check {
		return func(ctx context.Context) []Finding { return f(ctx, d) }
	}
	return []check{of(x.checkMX), of(x.checkSPF), of(x.checkDKIM), of(x.checkDMARC), of(x.checkMTASTS), of(x.checkTLSRPT), of(x.checkAutoconfig), of(x.checkSRV)}
}

// publish says how a record comes into the DNS.
func (d *examinedDomain) publish(what string) string {
	return fmt.Sprintf("Publish %s; `appliance dns %s` prints it.", what, d.Name)
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// untold is the finding where the DNS did not answer.
func untold(name, subject, what string) []Finding {
	return single(name, subject, StateUnknown, fmt.Sprintf("The DNS does not tell %s of %s at the moment.", what, subject), "")
}

// checkMX says whether others bring the domain's mail here.
func (x *examination) checkMX(ctx context.Context, d *examinedDomain) []Finding {
	const name = "mx"
	mx := x.mx[d.Name]
	switch {
	case isNotFound(mx.err):
		return x.judgeNoMX(ctx, d)
	case mx.err != nil:
		return untold(name, d.Name, "the mail server (MX)")
	case mx.hosts[0].Host == "" && len(mx.hosts) == 1:
		return single(name, d.Name, StateBad, fmt.Sprintf("The DNS says that %s takes no mail at all (null MX).", d.Name), d.publish("the MX record in its place"))
	}
	at := slices.IndexFunc(mx.hosts, func(m MX) bool { return x.isUs(ctx, m.Host) })
	switch {
	case at == 0 || at > 0 && mx.hosts[at].Preference == mx.hosts[0].Preference:
		return single(name, d.Name, StateOK, fmt.Sprintf("Mail for %s comes to %s.", d.Name, mx.hosts[at].Host), "")
	case at > 0:
		return single(name, d.Name, StateNote, fmt.Sprintf("Mail for %s goes to %s first, and to this machine where that does not answer.", d.Name, mx.hosts[0].Host), "")
	}
	return single(name, d.Name, StateWarn, fmt.Sprintf("Mail for %s goes to %s and not to this machine.", d.Name, mx.hosts[0].Host),
		"If it is to come here: "+lowerFirst(d.publish("the MX record in place of that one")))
}

// isUs says whether a host is this machine, by its name or its address.
func (x *examination) isUs(ctx context.Context, host string) bool {
	if host == x.host {
		return true
	}
	addrs, _, err := x.d.Resolver.Addresses(ctx, host)
	return err == nil && sharesAddress(addrs, x.public)
}

// judgeNoMX is for a domain without MX: then mail goes to its address (RFC 5321 §5.1).
func (x *examination) judgeNoMX(ctx context.Context, d *examinedDomain) []Finding {
	const name = "mx"
	addrs, _, err := x.d.Resolver.Addresses(ctx, d.Name)
	switch {
	case err == nil && sharesAddress(addrs, x.public):
		return single(name, d.Name, StateWarn, fmt.Sprintf("%s has no MX record. Its mail comes here because its address is that of this machine, as long as that is so.", d.Name), d.publish("the MX record"))
	case err == nil:
		return single(name, d.Name, StateBad, fmt.Sprintf("%s has no MX record, so that its mail goes to %s and not to this machine.", d.Name, addressWords(addrs)), d.publish("the MX record"))
	case !isNotFound(err):
		return untold(name, d.Name, "the mail server (MX)")
	}
	return single(name, d.Name, StateBad, fmt.Sprintf("%s has no MX record: nobody outside can write to its addresses.", d.Name), d.publish("the MX record"))
}

// The addresses of documentation (RFC 5737), which nobody sends from.
const nobodysAddress = "192.0.2.25"

// checkSPF says whether the domain lets this machine send its mail.
func (x *examination) checkSPF(ctx context.Context, d *examinedDomain) []Finding {
	const name = "spf"
	texts, err := x.d.Resolver.TXT(ctx, d.Name)
	if err != nil && !isNotFound(err) {
		return untold(name, d.Name, "the SPF record")
	}
	texts = slices.DeleteFunc(texts, func(t string) bool {
		version, _, _ := strings.Cut(t, " ")
		return !strings.EqualFold(version, "v=spf1")
	})
	switch {
	case len(texts) == 0:
		return single(name, d.Name, StateWarn, fmt.Sprintf("%s does not say which servers send its mail (SPF): some others refuse it or take it for spam.", d.Name), d.publish("the SPF record"))
	case len(texts) > 1:
		return single(name, d.Name, StateBad, fmt.Sprintf("%s has %d SPF records. There may be one, and so none counts.", d.Name, len(texts)), "Put them together into one; "+lowerFirst(d.publish("that one")))
	case x.spf(ctx, d, netip.MustParseAddr(nobodysAddress)) == authres.ResultPass:
		return single(name, d.Name, StateWarn, fmt.Sprintf("The SPF record of %s lets every server in the world send its mail.", d.Name), d.publish("the right SPF record"))
	case d.Relay != nil:
		return x.judgeRelaySPF(d, texts[0])
	case len(x.public) == 0:
		return single(name, d.Name, StateUnknown, fmt.Sprintf("%s has an SPF record. Whether it lets this machine send cannot be told, as its public address is not known.", d.Name), "")
	}
	return x.judgeSPF(ctx, d)
}

// spf gives what SPF says of mail of the domain from an address.
func (x *examination) spf(ctx context.Context, d *examinedDomain, addr netip.Addr) authres.ResultValue {
	return x.verifier.checkSPF(ctx, &ReceivedMail{Remote: addr, Helo: x.host, From: "postmaster@" + d.ascii}).Result
}

// judgeSPF says what the record means for our addresses.
func (x *examination) judgeSPF(ctx context.Context, d *examinedDomain) []Finding {
	const name = "spf"
	worst, of := authres.ResultValue(authres.ResultPass), x.public[0]
	order := []authres.ResultValue{authres.ResultPass, authres.ResultTempError, authres.ResultNone, authres.ResultNeutral, authres.ResultSoftFail, authres.ResultFail, authres.ResultPermError}
	for _, addr := range x.public {
		if got := x.spf(ctx, d, addr); slices.Index(order, got) > slices.Index(order, worst) {
			worst, of = got, addr
		}
	}
	switch worst {
	case authres.ResultPass:
		return single(name, d.Name, StateOK, fmt.Sprintf("%s lets this machine send its mail (SPF).", d.Name), "")
	case authres.ResultTempError:
		return untold(name, d.Name, "the SPF record")
	case authres.ResultPermError:
		return single(name, d.Name, StateBad, fmt.Sprintf("The SPF record of %s has a mistake, so that it does not count.", d.Name), d.publish("the right SPF record"))
	case authres.ResultFail:
		return single(name, d.Name, StateBad, fmt.Sprintf("The SPF record of %s forbids %s to send its mail: many servers refuse it.", d.Name, of), d.publish("the right SPF record"))
	}
	return single(name, d.Name, StateWarn, fmt.Sprintf("The SPF record of %s does not name %s among those who send its mail.", d.Name, of), d.publish("the right SPF record"))
}

// judgeRelaySPF looks whether the record speaks of others than this machine. By which addresses a relay sends, only its
// provider knows.
func (x *examination) judgeRelaySPF(d *examinedDomain, record string) []Finding {
	const name = "spf"
	if strings.Contains(record, "include:") || strings.Contains(record, "redirect=") {
		return single(name, d.Name, StateOK, fmt.Sprintf("%s says which servers send its mail (SPF), also others than this machine.", d.Name), "")
	}
	return single(name, d.Name, StateNote, fmt.Sprintf("The SPF record of %s does not speak of %s, through which its mail goes out.", d.Name, d.Relay.Host),
		"If the help of that provider names an include:…, put it into the SPF record before its end.")
}

// checkDKIM says whether others can check our signatures.
func (x *examination) checkDKIM(ctx context.Context, d *examinedDomain) []Finding {
	var found []Finding
	for _, record := range d.DKIM {
		found = append(found, x.judgeDKIM(ctx, d, record))
	}
	return found
}

func (x *examination) judgeDKIM(ctx context.Context, d *examinedDomain, record DNSRecord) Finding {
	f := Finding{Name: "dkim", Subject: record.Name, State: StateOK, Sentence: fmt.Sprintf("Others can check the signatures of %s by the key %s.", d.Name, record.Name)}
	wanted, _ := parseTags(record.Value)
	texts, err := x.d.Resolver.TXT(ctx, record.Name)
	if err != nil && !isNotFound(err) {
		return untold("dkim", record.Name, "the key")[0]
	}
	if len(texts) == 0 {
		f.State, f.Sentence = StateWarn, fmt.Sprintf("The key %s is not published, so that others cannot check the signatures of %s (DKIM).", record.Name, d.Name)
		if wanted["k"] == "ed25519" {
			f.State, f.Sentence = StateNote, fmt.Sprintf("The second key, %s, is not published. Few servers use it.", record.Name)
		}
		f.Do = d.publish("the key")
		return f
	}
	got, _ := parseTags(texts[0])
	if len(texts) > 1 || got["p"] != wanted["p"] {
		f.State, f.Do = StateBad, d.publish("the right key in place of what is there")
		f.Sentence = fmt.Sprintf("What is published as %s is not the key of this appliance: others take the mail of %s for forged.", record.Name, d.Name)
	}
	return f
}

// checkDMARC says whether the domain protects itself from forgers.
func (x *examination) checkDMARC(ctx context.Context, d *examinedDomain) []Finding {
	const name = "dmarc"
	p := x.verifier.policyOf(ctx, d.ascii)
	switch {
	case p.failed != nil:
		return untold(name, d.Name, "the DMARC record")
	case p.record == nil:
		return single(name, d.Name, StateWarn, fmt.Sprintf("%s has no valid DMARC record: anybody can forge its mail, and some servers take less of it.", d.Name), d.publish("the DMARC record"))
	case p.record.Policy == "none":
		return single(name, d.Name, StateNote, fmt.Sprintf("The DMARC record of %s asks for nothing against forged mail (p=none).", d.Name), "Once your own mail arrives everywhere: "+lowerFirst(d.publish("the stricter DMARC record")))
	}
	return single(name, d.Name, StateOK, fmt.Sprintf("%s asks others to %s what is forged in its name (DMARC).", d.Name, p.record.Policy), "")
}

// checkMTASTS says whether others are told to bring mail under TLS alone (RFC 8461), and whether the rules name us.
func (x *examination) checkMTASTS(ctx context.Context, d *examinedDomain) []Finding {
	const name = "mta-sts"
	texts, err := x.d.Resolver.TXT(ctx, "_mta-sts."+d.ascii)
	id := stsID(texts)
	switch {
	case err != nil && !isNotFound(err):
		return untold(name, d.Name, "the MTA-STS record")
	case id == "" && len(texts) == 0:
		return single(name, d.Name, StateNote, fmt.Sprintf("%s does not ask others to bring its mail under TLS alone (MTA-STS). It is encrypted without that, too, wherever nobody attacks.", d.Name), "")
	case id == "":
		return single(name, d.Name, StateWarn, fmt.Sprintf("The MTA-STS record of %s has a mistake, so that it does not count.", d.Name), d.publish("the right one"))
	}
	fetch := x.d.Fetch
	if fetch == nil {
		fetch = (&Sender{Dial: x.dialNamed, Roots: x.d.Roots, Now: x.d.Now}).fetchPolicy
	}
	text, err := fetch(ctx, "mta-sts."+d.ascii, "https://mta-sts."+d.ascii+"/.well-known/mta-sts.txt")
	if err != nil {
		return single(name, d.Name, StateWarn, fmt.Sprintf("%s announces rules for mail under TLS (MTA-STS), but its web server does not give them to this machine: %s.", d.Name, netWords(err)),
			"Without them the announcement does not count. See whether https://mta-sts."+d.ascii+"/.well-known/mta-sts.txt shows them elsewhere; else take the record _mta-sts away.")
	}
	policy, _, err := parsePolicy(text)
	switch {
	case err != nil:
		return single(name, d.Name, StateWarn, fmt.Sprintf("The rules of %s for mail under TLS (MTA-STS) do not count: %s.", d.Name, err), "Mend them, or take the record _mta-sts away.")
	case policy.forbids(x.host):
		return single(name, d.Name, StateBad, fmt.Sprintf("The rules of %s for mail under TLS (MTA-STS) do not name %s: others do not bring its mail here.", d.Name, x.host),
			"Add a line mx: "+x.host+" to them, and give the record _mta-sts another id.")
	}
	return single(name, d.Name, StateOK, fmt.Sprintf("%s asks others to bring its mail under TLS (MTA-STS).", d.Name), "")
}

// dialNamed dials a host by its name, as a client of HTTP wants it.
func (x *examination) dialNamed(ctx context.Context, network, hostPort string) (net.Conn, error) {
	return x.d.dialEither(ctx, network, hostPort)
}

// checkTLSRPT says whether others report TLS that failed (RFC 8460 §3).
func (x *examination) checkTLSRPT(ctx context.Context, d *examinedDomain) []Finding {
	const name = "tls-rpt"
	texts, err := x.d.Resolver.TXT(ctx, "_smtp._tls."+d.ascii)
	if err != nil && !isNotFound(err) {
		return untold(name, d.Name, "the TLS-RPT record")
	}
	for _, t := range texts {
		version, rest, _ := strings.Cut(t, ";")
		if strings.TrimSpace(version) == "v=TLSRPTv1" && strings.Contains(rest, "rua=") {
			return single(name, d.Name, StateOK, fmt.Sprintf("Others report to %s when TLS fails (TLS-RPT).", d.Name), "")
		}
	}
	if len(texts) > 0 {
		return single(name, d.Name, StateWarn, fmt.Sprintf("The TLS-RPT record of %s has a mistake, so that it does not count.", d.Name), d.publish("the right one"))
	}
	return single(name, d.Name, StateNote, fmt.Sprintf("%s does not ask for reports when TLS fails (TLS-RPT).", d.Name), "")
}

// checkAutoconfig says whether Thunderbird and its like find their settings.
func (x *examination) checkAutoconfig(ctx context.Context, d *examinedDomain) []Finding {
	const name = "autoconfig"
	host := "autoconfig." + d.ascii
	addrs, _, err := x.d.Resolver.Addresses(ctx, host)
	switch {
	case isNotFound(err):
		return single(name, d.Name, StateNote, fmt.Sprintf("%s does not exist, so that mail programs must be told their settings.", host), d.publish("the autoconfig record"))
	case err != nil:
		return untold(name, d.Name, "the autoconfig address")
	case sharesAddress(addrs, x.public) || x.leadsWhereWeAre(ctx, addrs):
		return single(name, d.Name, StateOK, fmt.Sprintf("%s leads to this machine.", host), "")
	}
	return single(name, d.Name, StateWarn, fmt.Sprintf("%s leads to %s and not to this machine: mail programs may get wrong settings.", host, addressWords(addrs)), d.publish("the right autoconfig record"))
}

// leadsWhereWeAre says whether addresses are those of our name.
func (x *examination) leadsWhereWeAre(ctx context.Context, addrs []netip.Addr) bool {
	ours, _, err := x.d.Resolver.Addresses(ctx, x.host)
	return err == nil && sharesAddress(addrs, ours)
}

// checkSRV says whether mail programs find their settings by SRV records (RFC 6186, RFC 8314 §5.1).
func (x *examination) checkSRV(ctx context.Context, d *examinedDomain) []Finding {
	const name = "srv"
	var missing, wrong []string
	for _, service := range mailServices() {
		records, err := x.d.Resolver.SRV(ctx, service.name+"."+d.ascii)
		switch {
		case isNotFound(err):
			missing = append(missing, service.name)
		case err != nil:
			return untold(name, d.Name, "the SRV records")
		case !slices.ContainsFunc(records, func(r *dns.SRV) bool {
			return plainHost(r.Target) == x.host && int(r.Port) == service.port
		}):
			wrong = append(wrong, service.name)
		}
	}
	switch {
	case len(wrong) > 0:
		return single(name, d.Name, StateWarn, fmt.Sprintf("The SRV records %s of %s lead elsewhere: mail programs may get wrong settings.", wordList(wrong), d.Name), d.publish("the right SRV records"))
	case len(missing) == len(mailServices()):
		return single(name, d.Name, StateNote, fmt.Sprintf("%s has no SRV records, by which some mail programs find their settings.", d.Name), d.publish("them"))
	case len(missing) > 0:
		return single(name, d.Name, StateNote, fmt.Sprintf("%s lacks the SRV records %s, by which some mail programs find their settings.", d.Name, wordList(missing)), d.publish("them"))
	}
	return single(name, d.Name, StateOK, fmt.Sprintf("Mail programs find the settings of %s by SRV records.", d.Name), "")
}
