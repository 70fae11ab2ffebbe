package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The way out and the way in: what the answers from outside mean.

// setRelay is what helps wherever mail cannot go out directly.
const setRelay = "Set a relay, the server of your mail or internet provider that takes mail for others: appliance relay set HOST USER"

// checkNetwork says whether there is an internet.
func (x *examination) checkNetwork(context.Context) []Finding {
	const name = "network"
	switch {
	case x.named && x.reached():
		return single(name, "", StateOK, "The internet can be reached.", "")
	case x.named:
		return single(name, "", x.forInternet(StateWarn), "The names of the internet are known here, but no connection to the outside stands. Mail between the people here works all the same.",
			"See whether the network has a page to sign in, or a firewall that lets this machine out.")
	case x.reached():
		return single(name, "", x.forInternet(StateWarn), "The internet is there, but nobody resolves its names (DNS), so that mail for others waits.",
			"See which DNS server the router tells this machine; most routers take 9.9.9.9 or 1.1.1.1.")
	case len(x.local) == 0:
		return single(name, "", x.forInternet(StateWarn), "This machine has no network: only programs on it reach the mail server.",
			"Plug in the cable, or join the Wi-Fi.")
	}
	return single(name, "", x.forInternet(StateWarn), "The internet cannot be reached. Mail between the people here works all the same.",
		"For mail from and to the internet, see whether the router is connected, and run the doctor again.")
}

// checkHasDomain says what is missing where there is no domain of the internet.
func (x *examination) checkHasDomain(context.Context) []Finding {
	switch {
	case len(x.domains) > 0:
		return nil
	case len(x.facts.Outside) > 0:
		return single("domain", "", StateOK, "There is no domain of the internet here, and none is needed: people send with addresses at a provider. What is written to those comes here if it is collected.", "")
	}
	return single("domain", "", StateNote, "There is no domain of the internet here. Mail between the people here works; mail from and to the internet needs a domain.",
		domainFirst)
}

// domainFirst is how one comes to a domain.
const domainFirst = "Get a domain from any provider of domains, give yourself an address in it (appliance user add NAME@DOMAIN), and publish what `appliance dns DOMAIN` prints. " +
	"Or keep the addresses that people have at a provider: appliance collect add USER imap HOST ADDRESS"

// checkOutside says from which addresses at a provider mail goes out directly.
func (x *examination) checkOutside(context.Context) []Finding {
	var direct []string
	for _, o := range x.facts.Outside {
		if o.Relay == nil && !slices.Contains(direct, o.Address) {
			direct = append(direct, o.Address)
		}
	}
	if len(direct) == 0 {
		return nil
	}
	const most = 5
	shown := direct[:min(len(direct), most)]
	if more := len(direct) - len(shown); more > 0 {
		shown = append(slices.Clone(shown), fmt.Sprintf("%d more", more))
	}
	return single("sender", "", StateWarn, fmt.Sprintf("Mail from %s goes out directly. Others refuse it, as it does not come from the server of its provider.", wordList(shown)),
		fmt.Sprintf("Let the provider's server for outgoing mail send it: appliance relay set HOST %[1]s --for %[1]s", direct[0]))
}

// port25 says whether other servers can be reached, where that can be told: several of them were tried, and the internet is
// there.
func (x *examination) port25() Answer {
	tried := 0
	for _, t := range x.tries {
		switch t.reason {
		case dialOpen:
			return AnswerYes
		case dialUntried:
		default:
			tried++
		}
	}
	if x.reached() && tried >= min(2, len(x.tries)) && tried > 0 {
		return AnswerNo
	}
	return AnswerUnknown
}

// checkOutbound says whether mail can go to other servers.
func (x *examination) checkOutbound(context.Context) []Finding {
	const name = "outbound"
	switch x.port25() {
	case AnswerYes:
		state, sentence, do := x.judgeGreetings()
		return single(name, "", x.forDirect(x.forInternet(state)), sentence, do)
	case AnswerNo:
		return single(name, "", x.forDirect(x.forInternet(StateBad)), x.closedSentence(), x.closedAdvice())
	}
	return single(name, "", StateUnknown, "Whether mail can go out cannot be told at the moment: the servers that were to be tried could not be found.", "")
}

// closedSentence says how port 25 is closed.
func (x *examination) closedSentence() string {
	silent, refused := 0, 0
	for _, t := range x.tries {
		switch t.reason {
		case dialSilent:
			silent++
		case dialRefused:
			refused++
		}
	}
	switch {
	case refused > silent:
		return "Port 25 is closed on the way out: a firewall in this machine, in the router or at the provider refuses connections to other mail servers."
	case silent > 0:
		return "Port 25 is closed on the way out: other mail servers do not answer, as the router or the internet provider drops what goes there. Most providers do so at home."
	}
	return "Port 25 is closed on the way out: the network has no way to other mail servers."
}

// closedAdvice says what helps against that.
func (x *examination) closedAdvice() string {
	if len(x.domains)+len(x.facts.Outside) > 0 && !x.direct() {
		return "" // relays take all mail for others
	}
	return setRelay + ". Some providers also open the port on request."
}

// judgeGreetings looks at what the servers that were reached have said. Somebody on the way may have answered in their place.
func (x *examination) judgeGreetings() (state FindingState, sentence, do string) {
	var refusal *portTry
	other := ""
	for i := range x.tries {
		t := &x.tries[i]
		if t.reason != dialOpen || t.greeting == "" {
			continue
		}
		switch {
		case !strings.HasPrefix(t.greeting, "220"):
			refusal = t
		case strings.Contains(strings.ToLower(t.greeting), organisation(t.host)):
			return StateOK, "Other mail servers can be reached.", ""
		default:
			other = t.greeting
		}
	}
	switch {
	case other != "":
		return StateWarn, fmt.Sprintf("Port 25 is open on the way out, but not those answer who were called, but %q: the router or provider may redirect mail to a server of its own.", cleanText(other)), setRelay + "."
	case refusal != nil:
		return StateWarn, fmt.Sprintf("%s can be reached, but takes no mail from this address: %s", refusal.host, cleanText(refusal.greeting)), setRelay + "."
	}
	return StateWarn, "Connections to port 25 stand, but no mail server says a word: something on the way swallows the mail.", setRelay + "."
}

// checkRelays says of each relay whether it answers.
func (x *examination) checkRelays(ctx context.Context) []Finding {
	var found []Finding
	var seen []RelayFact
	var relays []*RelayFact
	for i := range x.facts.Domains {
		relays = append(relays, x.facts.Domains[i].Relay)
	}
	for i := range x.facts.Outside {
		relays = append(relays, x.facts.Outside[i].Relay)
	}
	for _, relay := range relays {
		if relay == nil || slices.Contains(seen, *relay) {
			continue
		}
		seen = append(seen, *relay)
		found = append(found, x.tryRelay(ctx, relay))
	}
	return found
}

func (x *examination) tryRelay(ctx context.Context, relay *RelayFact) Finding {
	ctx, cancel := context.WithTimeout(ctx, probeConnect)
	defer cancel()
	where := net.JoinHostPort(relay.Host, strconv.Itoa(relay.Port))
	f := Finding{Name: "relay", Subject: where, State: StateOK, Sentence: "Mail for others goes out through " + where + ", which answers."}
	if err := x.greetRelay(ctx, relay, where); err != nil {
		f.State = StateBad
		f.Sentence = fmt.Sprintf("Mail for others goes out through %s, which cannot be reached: %s.", where, netWords(err))
		f.Do = "It may be down for a while. If it stays so, see whether the provider names another server, and set it: appliance relay set HOST USER"
		if !x.reached() {
			f.State = StateUnknown
		}
	}
	return f
}

// greetRelay connects to a relay as far as its greeting, or TLS where that comes first.
func (x *examination) greetRelay(ctx context.Context, relay *RelayFact, where string) error {
	conn, err := x.d.dialEither(ctx, "tcp", where)
	if err != nil {
		return err
	}
	defer conn.Close()
	if relay.Implicit {
		return tls.Client(conn, &tls.Config{ServerName: relay.Host, RootCAs: x.d.Roots, MinVersion: tls.VersionTLS12, Time: x.d.now}).HandshakeContext(ctx)
	}
	if greeting := readGreeting(conn); !strings.HasPrefix(greeting, "220") {
		return fmt.Errorf("it does not greet as a mail server does")
	}
	return nil
}

// publicV4 is our IPv4 address as seen from outside; invalid where it is not known.
func (x *examination) publicV4() netip.Addr {
	if len(x.public) > 0 && x.public[0].Is4() {
		return x.public[0]
	}
	return netip.Addr{}
}

// smtpPort is the port to which others would bring mail, 0 where nothing is open.
func (x *examination) smtpPort() int { return portNamed(x.facts.Ports, "smtp") }

// portNamed gives the number of an open port, 0 for none.
func portNamed(ports []Port, name string) int {
	for _, p := range ports {
		if p.Name == name {
			return p.Number
		}
	}
	return 0
}

// visitorCounts is how long it is believed that the way in is open because somebody came.
const visitorCounts = 30 * 24 * time.Hour

// checkInbound says whether others can bring mail here, as far as that can be told from inside.
func (x *examination) checkInbound(ctx context.Context) []Finding {
	const name = "inbound"
	addr := x.publicV4()
	listen, err := netip.ParseAddr(x.facts.Listen)
	switch {
	case !x.facts.Running:
		return single(name, "", StateUnknown, "The appliance does not run, so that it cannot be told whether others reach its port 25.", "Start it, and run the doctor again.")
	case err == nil && listen.IsLoopback():
		return single(name, "", x.forInternet(StateBad), "The appliance listens on "+x.facts.Listen+" alone: nobody else can bring mail.", "Start it without --listen.")
	case !x.facts.Visitor.IsZero() && x.d.now().Sub(x.facts.Visitor) < visitorCounts:
		return single(name, "", StateOK, fmt.Sprintf("Port 25 can be reached: somebody on the internet connected on %s.", x.facts.Visitor.Local().Format("2 January, 15:04")), "")
	case !addr.IsValid():
		return single(name, "", StateUnknown, "The public IPv4 address is not known, so that it cannot be told whether others reach port 25.", "Write to yourself from an account elsewhere to see.")
	}
	own, _ := x.greetingAt(ctx, net.JoinHostPort(x.ownAddress(), strconv.Itoa(x.smtpPort())))
	theirs, reason := x.greetingAt(ctx, netip.AddrPortFrom(addr, 25).String())
	switch {
	case reason == dialOpen && theirs != "" && theirs != own:
		return single(name, addr.String(), x.forInternet(StateWarn), fmt.Sprintf("At %s another server answers on port 25: %s", addr, cleanText(theirs)), x.forwardAdvice())
	case reason == dialOpen && theirs != "" && !slices.Contains(x.local, addr):
		return single(name, addr.String(), StateOK, "The router passes port 25 on to this machine. Whether the provider lets others in cannot be told from here.", "")
	}
	return single(name, addr.String(), StateUnknown, "Whether others reach port 25 cannot be told from here, and nobody has come so far.", x.forwardAdvice())
}

// forwardAdvice says how port 25 comes to this machine.
func (x *examination) forwardAdvice() string {
	const try = "write to yourself from an account elsewhere to see."
	if slices.Contains(x.local, x.publicV4()) {
		if x.smtpPort() != 25 {
			return fmt.Sprintf("The appliance listens on port %d, and others come to port 25: start it as root or as a service, and %s", x.smtpPort(), try)
		}
		return "Open port 25 in the firewall of this machine and of its provider, and " + try
	}
	return fmt.Sprintf("Forward port 25 in the router to port %d of %s, and %s", max(x.smtpPort(), 1), x.lanAddress(), try)
}

// lanAddress is where the router finds this machine.
func (x *examination) lanAddress() string {
	for _, a := range append([]netip.Addr{x.lan}, x.local...) {
		if a.Is4() && a.IsPrivate() {
			return a.String()
		}
	}
	return "this machine"
}

// ownAddress is where our own ports are.
func (x *examination) ownAddress() string {
	if x.facts.Listen != "" {
		return x.facts.Listen
	}
	return "127.0.0.1"
}

// greetingAt gives what a server says first.
func (x *examination) greetingAt(ctx context.Context, address string) (string, dialReason) {
	ctx, cancel := context.WithTimeout(ctx, probeConnect)
	defer cancel()
	conn, err := x.d.dial(ctx, "tcp", address)
	if err != nil {
		return "", reasonOfDial(err)
	}
	defer conn.Close()
	return readGreeting(conn), dialOpen
}

// checkNAT says what stands between this machine and the internet.
func (x *examination) checkNAT(context.Context) []Finding {
	const name = "nat"
	addr := x.publicV4()
	shared := slices.IndexFunc(x.local, cgnat().Contains)
	switch {
	case shared >= 0:
		return single(name, x.local[shared].String(), x.forInternet(StateWarn), "The internet provider shares one public address among many customers (CGNAT): nobody outside can connect to this machine by IPv4.",
			"Ask the provider for a public IPv4 address of your own, or have a server elsewhere take the domain's mail.")
	case !addr.IsValid():
		return single(name, "", StateUnknown, "The public IPv4 address of this machine could not be found out.", "")
	case slices.Contains(x.local, addr):
		return single(name, addr.String(), StateOK, fmt.Sprintf("This machine has the public address %s itself.", addr), "")
	}
	return single(name, addr.String(), StateNote, fmt.Sprintf("This machine is behind a router, which the internet sees as %s.", addr),
		fmt.Sprintf("Mail from outside comes in once the router forwards port 25 to %s. If the page of the router shows another public address than %s, the provider shares that among customers (CGNAT), and nobody outside can connect.", x.lanAddress(), addr))
}
