package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/emersion/go-msgauth/authres"
)

// What the DNS says of this machine: its name, the names of its addresses, the lists that hold them.

// checkName says whether the name of this machine is one that the internet knows, and leads here.
func (x *examination) checkName(ctx context.Context) []Finding {
	const name = "name"
	if len(x.domains) == 0 {
		return nil
	}
	var found []Finding
	if !isPublicName(x.facts.Hostname) {
		found = single(name, x.facts.Hostname, StateWarn, fmt.Sprintf("The appliance calls itself %s, a name that the internet does not know; some servers refuse mail for that.", x.facts.Hostname),
			fmt.Sprintf("Write hostname = %q into settings.toml in %s, and start the appliance again.", x.host, x.facts.Data))
	}
	addrs, _, err := x.d.Resolver.Addresses(ctx, x.host)
	publish := "Publish its address; `appliance dns` prints the record."
	f := Finding{Name: name, Subject: x.host, State: StateOK, Sentence: fmt.Sprintf("%s leads to this machine.", x.host)}
	switch {
	case isNotFound(err):
		f.State, f.Sentence, f.Do = StateBad, fmt.Sprintf("%s has no address in the DNS, so that others cannot find this machine.", x.host), publish
	case err != nil:
		f.State, f.Sentence = StateUnknown, fmt.Sprintf("The DNS does not tell the address of %s at the moment.", x.host)
	case len(x.public) == 0:
		f.State, f.Sentence = StateUnknown, fmt.Sprintf("%s leads to %s. Whether that is this machine cannot be told.", x.host, addressWords(addrs))
	case !sharesAddress(addrs, x.public):
		f.State, f.Sentence = StateWarn, fmt.Sprintf("%s leads to %s, but the internet sees this machine as %s.", x.host, addressWords(addrs), addressWords(x.public))
		f.Do = publish + " If the address changes from day to day, let the router keep the name up to date (dynamic DNS)."
	}
	return append(found, f)
}

func addressWords(addrs []netip.Addr) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return wordList(words)
}

func sharesAddress(a, b []netip.Addr) bool {
	return slices.ContainsFunc(a, func(addr netip.Addr) bool { return slices.Contains(b, addr) })
}

// checkPTR says whether our addresses have a name that leads back, without which many take no mail (RFC 1912 §2.1). It finds
// out whether IPv6 is of use for sending.
func (x *examination) checkPTR(ctx context.Context) []Finding {
	var found []Finding
	for _, addr := range x.public {
		rev := x.verifier.checkIPRev(ctx, addr)
		if addr.Is6() {
			x.ipv6 = map[authres.ResultValue]Answer{authres.ResultPass: AnswerYes, authres.ResultFail: AnswerNo, authres.ResultPermError: AnswerNo}[rev.Result]
		}
		if len(x.domains) > 0 {
			found = append(found, x.judgePTR(rev))
		}
	}
	return found
}

func (x *examination) judgePTR(rev IPRevFinding) Finding {
	f := Finding{Name: "ptr", Subject: rev.Addr.String(), State: StateBad}
	f.Do = fmt.Sprintf("Ask the provider of your server or internet line to set the reverse name (PTR) of %s to %s. Where it does not do that, a relay helps: appliance relay set HOST USER", rev.Addr, x.host)
	switch {
	case rev.Result == authres.ResultTempError:
		f.State, f.Do, f.Sentence = StateUnknown, "", fmt.Sprintf("The DNS does not tell the reverse name of %s at the moment.", rev.Addr)
		return f
	case rev.Result == authres.ResultPass && rev.Name == x.host:
		f.State, f.Do, f.Sentence = StateOK, "", fmt.Sprintf("%s is called %s, and that leads back to it.", rev.Addr, rev.Name)
		return f
	case rev.Result == authres.ResultPass:
		f.State, f.Sentence = StateWarn, fmt.Sprintf("%s is called %s and not %s: some servers take it for a machine at home and refuse its mail.", rev.Addr, cleanText(rev.Name), x.host)
	case rev.Result == authres.ResultFail && rev.Name == x.host:
		f.Sentence = fmt.Sprintf("%s is called %s, but that name leads elsewhere: many servers refuse its mail.", rev.Addr, rev.Name)
		f.Do = fmt.Sprintf("Publish %s as an address of %s; `appliance dns` prints the record.", rev.Addr, x.host)
	case rev.Result == authres.ResultFail:
		f.Sentence = fmt.Sprintf("%s is called %s, but that name does not lead back to it: many servers refuse its mail.", rev.Addr, cleanText(rev.Name))
	default:
		f.Sentence = fmt.Sprintf("%s has no name (PTR): many servers refuse its mail.", rev.Addr)
	}
	if rev.Addr.Is6() && f.State == StateBad && x.publicV4().IsValid() {
		f.State = StateNote
		f.Sentence += " So mail is sent by IPv4 alone."
		f.Do = "Nothing need be done. For IPv6 to be of use: " + lowerFirst(f.Do)
	}
	f.State = x.forDirect(f.State)
	return f
}

// blockList is a list of addresses in the DNS (RFC 5782).
type blockList struct {
	zone string
	page string // where a person looks an address up and has it removed
}

// listAnswer is what a list says of an address.
type listAnswer int

const (
	listUnknown listAnswer = iota
	listClean
	listHome // among the addresses of people at home, which send no mail directly
	listed
)

// checkLists says which lists hold our addresses.
func (x *examination) checkLists(ctx context.Context) []Finding {
	if len(x.domains) == 0 {
		return nil
	}
	var found []Finding
	for _, addr := range x.public {
		answers := make([]listAnswer, len(x.places.lists))
		var running sync.WaitGroup
		for i, list := range x.places.lists {
			running.Go(func() { answers[i] = x.askList(ctx, list, addr) })
		}
		running.Wait()
		found = append(found, x.judgeLists(addr, answers)...)
	}
	return found
}

// askList asks one list. Whoever is asked through a large public resolver may refuse to answer, with an address that says so,
// or know of none. So a list is believed only if it holds what each list that is alive does, and does not hold what none may
// (RFC 5782 §5).
func (x *examination) askList(ctx context.Context, list blockList, addr netip.Addr) listAnswer {
	answer := x.listSays(ctx, list, addr)
	switch {
	case answer == listClean && x.listSays(ctx, list, netip.AddrFrom4([4]byte{127, 0, 0, 2})) <= listClean,
		answer > listClean && x.listSays(ctx, list, netip.AddrFrom4([4]byte{127, 0, 0, 1})) != listClean:
		return listUnknown
	}
	return answer
}

// listSays gives the plain answer of a list.
func (x *examination) listSays(ctx context.Context, list blockList, addr netip.Addr) listAnswer {
	name, err := listName(addr, list.zone)
	if err != nil {
		return listUnknown
	}
	said, _, err := x.d.Resolver.Addresses(ctx, name)
	if isNotFound(err) {
		return listClean
	}
	answer := listUnknown
	for _, a := range said { // none, if nobody could tell
		if !a.Is4() {
			continue
		}
		code := a.As4()
		switch {
		case code[0] != 127 || code[1] == 255: // no list's answer, or its refusal
		case list.zone == "zen.spamhaus.org" && (code[3] == 10 || code[3] == 11): // its Policy Block List
			answer = max(answer, listHome)
		default:
			answer = listed
		}
	}
	return answer
}

// judgeLists puts the answers about one address into words.
func (x *examination) judgeLists(addr netip.Addr, answers []listAnswer) []Finding {
	const name = "lists"
	var on, clean, home []string
	page := ""
	for i, list := range x.places.lists {
		switch answers[i] {
		case listed:
			on, page = append(on, list.zone), list.page
		case listHome:
			home, page = append(home, list.zone), list.page
		case listClean:
			clean = append(clean, list.zone)
		}
	}
	switch {
	case len(on) > 0:
		return single(name, addr.String(), x.forDirect(StateBad), fmt.Sprintf("%s is on the block list %s: many servers refuse its mail.", addr, wordList(on)),
			fmt.Sprintf("See %s for the reason, and how to be taken off. If somebody here sends spam, or somebody had the address before you, that page tells. A relay helps meanwhile: appliance relay set HOST USER", page))
	case len(home) > 0:
		return single(name, addr.String(), x.forDirect(StateWarn), fmt.Sprintf("%s is listed by %s among the addresses of internet lines at home, from which many servers take no mail.", addr, wordList(home)),
			setRelay+". With a fixed address of your own you can have it taken off: "+page)
	case len(clean) == 0:
		return single(name, addr.String(), StateUnknown, fmt.Sprintf("Whether %s is on a block list cannot be told: the lists do not answer through the DNS server that is used here.", addr), "")
	}
	return single(name, addr.String(), StateOK, fmt.Sprintf("%s is not on the block lists %s.", addr, wordList(clean)), "")
}
