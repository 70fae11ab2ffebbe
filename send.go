package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// Sending to other servers (RFC 5321 §5): who takes a domain's mail, one transaction for each message, connections that are
// used again. send_conn.go opens connections, send_transaction.go says what a message needs, send_policy.go knows when TLS is a
// must, send_text.go writes a message for servers that take ASCII only, send_relay.go tries a relay.

const (
	sendPerConn = 100 // messages over one connection
	sendHosts   = 5   // hosts of a domain that are tried at a time
	sendAddrs   = 6   // addresses of all of them
)

// sendLimits are the times that a try may take.
type sendLimits struct {
	connect time.Duration // to open a connection, and once more for TLS
	command time.Duration // for the greeting and each reply (RFC 5321 §4.5.3.2)
	final   time.Duration // for the reply after the message (§4.5.3.2.6: 10 minutes)
	write   time.Duration // for 16 KiB to be taken (§4.5.3.2.5)
	whole   time.Duration // for a message with all its recipients
	grace   time.Duration // at the end of the appliance, for the reply to a message that is sent whole
	idle    time.Duration // a connection is kept for the next message
}

// defaultSendLimits are those of RFC 5321 where it has any.
func defaultSendLimits() sendLimits {
	return sendLimits{connect: 30 * time.Second, command: 5 * time.Minute, final: 12 * time.Minute, write: 3 * time.Minute,
		whole: 4 * time.Hour, grace: 5 * time.Second, idle: 10 * time.Second}
}

// Outgoing is a message on its way to one destination.
type Outgoing struct {
	Envelope   *Envelope
	Recipients []int       // those of Envelope.Recipients that are meant
	Message    io.ReaderAt // CRLF line ends, without Return-Path
	Size       int64       // octets of Message
}

// SendState is what became of a recipient.
type SendState string

const (
	SendWaiting   SendState = ""          // not tried, or tried in vain and to be tried again
	SendSent      SendState = "sent"      // the next server has taken it over
	SendFailed    SendState = "failed"    // for good
	SendCancelled SendState = "cancelled" // by its sender
)

// Outcome is what a try brought for one recipient.
type Outcome struct {
	State       SendState
	Code        int    // of the remote's reply, 0 where there was none
	Enhanced    string // "5.1.1", also where we say it ourselves
	Text        string // the remote's words, or ours in plain ones
	Remote      string // "mx.example.org [192.0.2.1]", "" where nobody was reached
	Reported    bool   // the next server owes the report of success (RFC 3461 §4.2)
	Delivered   bool   // into a mailbox here, the last station
	Unreachable bool   // nobody at the destination could be talked to: what else waits for it would fail as well
	Unsure      bool   // the message was sent whole and nobody knows whether it was taken: who else gets it now may get it twice
}

// sameOutcome is one outcome for n recipients.
func sameOutcome(n int, o Outcome) []Outcome {
	outcomes := make([]Outcome, n)
	for i := range outcomes {
		outcomes[i] = o
	}
	return outcomes
}

// Sender sends messages. Set its fields before use. Safe for concurrent use.
type Sender struct {
	Resolver *Resolver
	Hostname func() string  // our name in EHLO
	Port     int            // of other servers, 0: 25
	Roots    *x509.CertPool // for certificates that must be right, nil: the system's
	Log      *slog.Logger
	Now      func() time.Time                                                             // nil: time.Now
	Dial     func(ctx context.Context, network, address string) (net.Conn, error)         // nil: net.Dialer
	Fetch    func(ctx context.Context, host, url string) ([]byte, error)                  // an MTA-STS policy, nil: by HTTPS
	NoIPv6   func() bool                                                                  // our IPv6 address is one that others refuse; nil: it is not
	Closed   func() bool                                                                  // port 25 is closed on the way out; nil: it is not
	Relay    func(from string) *Relay                                                     // who takes mail from this sender, nil: nobody
	Spare    func() *Relay                                                                // who takes that of the others while Closed, nil: nobody
	Policies string                                                                       // DATA/mta-sts.json, the MTA-STS policies of other domains; "": a restart forgets them
	Sign     func(w io.Writer, domain string, message io.Reader) (signed bool, err error) // writes DKIM-Signature fields, nil: none

	limits   sendLimits // zero: the defaults
	policies policyCache
	mu       sync.Mutex
	idle     map[string][]*sendConn // by route
	closed   bool
}

// The two ways to TLS, as files about other servers name them. Without it no password is sent.
const (
	tlsImplicit = "implicit" // from the first byte
	tlsStart    = "starttls" // STARTTLS or STLS, which must succeed
)

// Relay is a server that takes our mail for others, after a login.
type Relay struct {
	Host     string
	Port     int
	Implicit bool // TLS from the start; else STARTTLS, which must succeed
	User     string
	Password string
	From     string // envelope sender that it demands, "" for that of the message
}

// key names the relay among destinations. Two logins at one server are two: what is wrong with one is not with the other.
func (r *Relay) key() string {
	return relayPrefix + net.JoinHostPort(r.Host, strconv.Itoa(r.Port)) + " " + r.User
}

// relayPrefix marks a destination that is a relay; no domain has a space.
const relayPrefix = "relay "

// relayServer gives the server of a destination that is a relay, "" for others.
func relayServer(destination string) string {
	rest, ok := strings.CutPrefix(destination, relayPrefix)
	if !ok {
		return ""
	}
	server, _, _ := strings.Cut(rest, " ")
	return server
}

// Destination gives what the queue groups mail by: the relay that takes it, or the domain it goes to.
func (s *Sender) Destination(from, domain string) string {
	if relay := s.RelayOf(from); relay != nil {
		return relay.key()
	}
	return domain
}

// RelayOf gives the relay that takes mail with this reverse-path as things are, nil for none.
func (s *Sender) RelayOf(from string) *Relay {
	if s.Relay != nil {
		if relay := s.Relay(from); relay != nil {
			return relay
		}
	}
	if s.Spare != nil && s.closed25() {
		return s.Spare()
	}
	return nil
}

// closed25 says whether it is known that nothing gets out on port 25.
func (s *Sender) closed25() bool { return s.Closed != nil && s.Closed() }

// closedWords is what mail waits for that only a relay could take.
const closedWords = "Port 25 is closed here, so that no other server can be reached; set a relay, the server of your provider: " +
	"appliance relay set HOST USER"

// limit gives the times that hold.
func (s *Sender) limit() sendLimits {
	if s.limits == (sendLimits{}) {
		return defaultSendLimits()
	}
	return s.limits
}

func (s *Sender) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// route is a way to a destination.
type route struct {
	destination string
	relay       *Relay
	hosts       []sendHost
	policy      *stsPolicy // of the domain, nil without one
	secure      bool       // DNSSEC proves hosts
	unsure      bool       // there may be a policy that could not be had
	verified    bool       // REQUIRETLS: a certificate must be right
}

// sendHost is one server that may be asked.
type sendHost struct {
	name   string
	addrs  []netip.AddrPort // of a domain that is an address literal; else looked up
	secure bool             // DNSSEC proves it and its addresses: DANE counts
}

// Send makes one try to bring a message to its recipients at a destination, and gives an outcome for each of them.
func (s *Sender) Send(ctx context.Context, destination string, m *Outgoing) []Outcome {
	n := len(m.Recipients)
	r, failed := s.route(ctx, destination, m.Envelope)
	if failed != nil {
		return sameOutcome(n, *failed)
	}
	if c := s.takeIdle(r); c != nil {
		outcomes, usable := c.transact(ctx, m)
		if usable || !c.stale(outcomes) {
			s.putIdle(ctx, r, c, usable)
			return outcomes
		}
		c.close() // it was closed while it waited, which tells nothing
	}
	return s.sendFresh(ctx, r, m)
}

// route finds the hosts of a destination, or says why there are none.
func (s *Sender) route(ctx context.Context, destination string, env *Envelope) (*route, *Outcome) {
	r := &route{destination: destination, verified: env.RequireTLS}
	if strings.HasPrefix(destination, relayPrefix) {
		relay := s.RelayOf(env.From)
		if relay == nil || relay.key() != destination { // it was changed this moment: the queue finds the new way
			return nil, &Outcome{Enhanced: "4.3.5", Text: "The relay for this message is no longer set; it goes another way next time"}
		}
		r.relay, r.hosts = relay, []sendHost{{name: relay.Host}}
		return r, nil
	}
	if literal, ok := strings.CutPrefix(destination, "["); ok {
		return literalRoute(r, literal)
	}
	hosts, secure, failed := s.mailHosts(ctx, destination)
	if failed != nil {
		return nil, failed
	}
	r.hosts, r.secure = hosts, secure
	r.policy, r.unsure = s.policyFor(ctx, destination)
	return r, nil
}

// literalRoute is the way to a domain that is an address literal (RFC 5321 §4.1.3).
func literalRoute(r *route, literal string) (*route, *Outcome) {
	text := strings.TrimSuffix(literal, "]")
	if v6, ok := strings.CutPrefix(strings.ToLower(text), "ipv6:"); ok {
		text = v6
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return nil, &Outcome{State: SendFailed, Enhanced: "5.1.2", Text: "[" + literal + " is no address of a server"}
	}
	r.hosts = []sendHost{{name: addr.String(), addrs: []netip.AddrPort{netip.AddrPortFrom(addr, 0)}}}
	return r, nil
}

// mailHosts asks the DNS who takes a domain's mail (RFC 5321 §5.1, RFC 7505).
func (s *Sender) mailHosts(ctx context.Context, domain string) (hosts []sendHost, secure bool, failed *Outcome) {
	mxs, secure, err := s.Resolver.MX(ctx, domain)
	switch {
	case isNotFound(err):
		return s.implicitHost(ctx, domain)
	case err != nil:
		return nil, false, &Outcome{Enhanced: "4.4.3", Text: fmt.Sprintf("The DNS does not tell who takes mail for %s at the moment", domain), Unreachable: true}
	case mxs[0].Host == "" && len(mxs) == 1:
		return nil, false, &Outcome{State: SendFailed, Enhanced: "5.1.10", Text: domain + " takes no mail"}
	}
	ours := normalDomain(s.Hostname())
	us := slices.IndexFunc(mxs, func(mx MX) bool { return normalDomain(mx.Host) == ours })
	for _, mx := range mxs {
		if us >= 0 && mx.Preference >= mxs[us].Preference { // those would send it back to us (RFC 5321 §5.1)
			break
		}
		if mx.Host != "" {
			hosts = append(hosts, sendHost{name: mx.Host})
		}
	}
	if len(hosts) == 0 {
		return nil, false, &Outcome{State: SendFailed, Enhanced: "5.4.6",
			Text: fmt.Sprintf("The DNS says that this server itself takes mail for %s, but that domain is not set up here", domain)}
	}
	return hosts[:min(len(hosts), sendHosts)], secure, nil
}

// implicitHost is the domain itself, where it has no MX but an address.
func (s *Sender) implicitHost(ctx context.Context, domain string) ([]sendHost, bool, *Outcome) {
	_, secure, err := s.Resolver.Addresses(ctx, domain)
	switch {
	case isNotFound(err):
		return nil, false, &Outcome{State: SendFailed, Enhanced: "5.1.2", Text: fmt.Sprintf("There is no mail domain %s; the address may be misspelt", domain)}
	case err != nil:
		return nil, false, &Outcome{Enhanced: "4.4.3", Text: fmt.Sprintf("The DNS does not tell where %s is at the moment", domain), Unreachable: true}
	}
	ascii, err := asciiName(domain)
	if err != nil {
		return nil, false, &Outcome{State: SendFailed, Enhanced: "5.1.2", Text: fmt.Sprintf("There is no mail domain %s; the address may be misspelt", domain)}
	}
	return []sendHost{{name: ascii}}, secure, nil
}

// sendFresh tries one host after the other until one takes or refuses the message.
func (s *Sender) sendFresh(ctx context.Context, r *route, m *Outgoing) []Outcome {
	last := Outcome{Enhanced: "4.4.1", Text: "No server of " + r.destination + " can be reached", Unreachable: true}
	tried := 0
	for _, host := range r.hosts {
		addrs, why := s.addresses(ctx, r, &host)
		if why != nil {
			last = *why
			continue
		}
		for _, addr := range addrs {
			if tried++; tried > sendAddrs || ctx.Err() != nil {
				return s.unsent(r, m, last)
			}
			c, why := s.connect(ctx, r, &host, addr)
			if why != nil {
				last = *why
				continue
			}
			outcomes, usable := c.transact(ctx, m)
			s.putIdle(ctx, r, c, usable)
			if !worthAnother(outcomes) {
				return outcomes
			}
			last = outcomes[0]
		}
	}
	return s.unsent(r, m, last)
}

// unsent is what it means that no host took the message: for the last of them, which stands for all.
func (s *Sender) unsent(r *route, m *Outgoing, last Outcome) []Outcome {
	if last.State != SendFailed {
		last.Unreachable = true
	}
	if r.relay == nil && last.Enhanced == "4.4.1" && last.Code == 0 && s.closed25() {
		last.Text, last.Remote = closedWords, ""
	}
	return sameOutcome(len(m.Recipients), last)
}

// worthAnother says that the next host may do better: this one broke off, or has no time, before it said anything of the
// recipients. One that was silent after the final dot may have taken the message.
func worthAnother(outcomes []Outcome) bool {
	return !slices.ContainsFunc(outcomes, func(o Outcome) bool { return !o.Unreachable || o.Unsure })
}

// addresses gives the addresses of a host in the order to try. Ours in IPv6 may be one that nobody takes mail from, having
// no name: then IPv4 is taken alone, unless there is nothing else.
func (s *Sender) addresses(ctx context.Context, r *route, host *sendHost) ([]netip.AddrPort, *Outcome) {
	port := uint16(25)
	if s.Port != 0 {
		port = uint16(s.Port)
	}
	if r.relay != nil {
		port = uint16(r.relay.Port)
	}
	if host.addrs != nil {
		return []netip.AddrPort{netip.AddrPortFrom(host.addrs[0].Addr(), port)}, nil
	}
	if r.policy.forbids(host.name) {
		return nil, &Outcome{Enhanced: "4.7.5", Text: fmt.Sprintf("%s does not name %s among the servers that take its mail (MTA-STS)", r.destination, host.name), Unreachable: true}
	}
	if why := r.unproven(host.name); why != nil {
		return nil, why
	}
	found, secure, err := s.Resolver.Addresses(ctx, host.name)
	if err != nil {
		return nil, &Outcome{Enhanced: "4.4.3", Text: "The DNS has no address of " + host.name, Remote: host.name, Unreachable: true}
	}
	host.secure = r.secure && secure
	found = inTurns(found, s.NoIPv6 != nil && s.NoIPv6())
	addrs := make([]netip.AddrPort, len(found))
	for i, a := range found {
		addrs[i] = netip.AddrPortFrom(a, port)
	}
	return addrs, nil
}

// unproven says why a host cannot have a message that demands TLS all the way: nothing proves that it is one of its domain's
// (RFC 8689 §4.2.1).
func (r *route) unproven(host string) *Outcome {
	switch {
	case !r.verified || r.relay != nil || r.secure || r.policy.names(host):
		return nil
	case r.unsure:
		return &Outcome{Enhanced: "4.7.5", Text: fmt.Sprintf("It cannot be told at the moment whether %s is a server of %s (MTA-STS), which this message demands", host, r.destination), Unreachable: true}
	}
	return &Outcome{State: SendFailed, Enhanced: "5.7.30",
		Text: fmt.Sprintf("Nothing proves that %s is a server of %s (DNSSEC or MTA-STS), which this message demands", host, r.destination)}
}

// inTurns orders addresses: IPv6 and IPv4 in turns, so that one family without a way out does not use up all tries. noIPv6
// leaves IPv6 out where there is anything else.
func inTurns(found []netip.Addr, noIPv6 bool) []netip.Addr {
	v6 := slices.DeleteFunc(slices.Clone(found), netip.Addr.Is4)
	v4 := slices.DeleteFunc(slices.Clone(found), netip.Addr.Is6)
	if noIPv6 && len(v4) > 0 {
		return v4
	}
	turns := make([]netip.Addr, 0, len(found))
	for i := range max(len(v6), len(v4)) {
		turns = append(append(turns, v6[min(i, len(v6)):min(i+1, len(v6))]...), v4[min(i, len(v4)):min(i+1, len(v4))]...)
	}
	return turns
}

// takeIdle gives a connection that waits for another message, nil if there is none.
func (s *Sender) takeIdle(r *route) *sendConn {
	key := r.poolKey()
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := s.idle[key]
	if len(conns) == 0 {
		return nil
	}
	c := conns[len(conns)-1]
	s.idle[key] = conns[:len(conns)-1]
	if !c.expiry.Stop() { // it is being closed
		return nil
	}
	return c
}

// poolKey says which connections are alike.
func (r *route) poolKey() string {
	if r.verified {
		return r.destination + " verified"
	}
	return r.destination
}

// putIdle keeps a connection for the next message, or closes it.
func (s *Sender) putIdle(ctx context.Context, r *route, c *sendConn, usable bool) {
	s.mu.Lock()
	if !usable || s.closed || ctx.Err() != nil || c.sent >= sendPerConn {
		s.mu.Unlock()
		c.quit()
		return
	}
	defer s.mu.Unlock()
	if s.idle == nil {
		s.idle = map[string][]*sendConn{}
	}
	key := r.poolKey()
	s.idle[key] = append(s.idle[key], c)
	c.expiry = time.AfterFunc(s.limit().idle, func() {
		s.mu.Lock()
		s.idle[key] = slices.DeleteFunc(s.idle[key], func(other *sendConn) bool { return other == c })
		if len(s.idle[key]) == 0 {
			delete(s.idle, key)
		}
		s.mu.Unlock()
		c.quit()
	})
}

// Close ends the connections that wait, and writes what is not on disk yet.
func (s *Sender) Close() {
	s.mu.Lock()
	s.closed = true
	var conns []*sendConn
	for _, list := range s.idle {
		for _, c := range list {
			if c.expiry.Stop() {
				conns = append(conns, c)
			}
		}
	}
	s.idle = nil
	s.mu.Unlock()
	for _, c := range conns {
		c.quit()
	}
	s.writePolicies()
}

// outcome turns an error of the connection into what it means for a message. alive says that the session goes on.
func (c *sendConn) outcome(err error) (o Outcome, alive bool) {
	var reply *smtp.SMTPError
	if errors.Is(err, errUnsayable) {
		return Outcome{State: SendFailed, Enhanced: "5.1.3", Text: upperFirstOf(err)}, true
	}
	if !errors.As(err, &reply) {
		return Outcome{Enhanced: "4.4.2", Text: netWords(err), Remote: c.remote, Unreachable: true, Unsure: c.dotted}, false
	}
	o = Outcome{Code: reply.Code, Text: reply.Message, Enhanced: enhancedOf(reply), Remote: c.remote}
	switch {
	case reply.Code == 421: // RFC 5321 §3.8: it closes the connection
		o.Unreachable = true
		return o, false
	case reply.Code >= 500:
		o.State = SendFailed
	}
	return o, true
}

// enhancedOf gives the enhanced code of a reply, "" where it has none.
func enhancedOf(reply *smtp.SMTPError) string {
	if reply.EnhancedCode == (smtp.EnhancedCode{}) || reply.EnhancedCode == smtp.NoEnhancedCode {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", reply.EnhancedCode[0], reply.EnhancedCode[1], reply.EnhancedCode[2])
}

// stale says that outcomes tell only that a connection which had waited was closed meanwhile.
func (c *sendConn) stale(outcomes []Outcome) bool {
	return c.sent > 1 && worthAnother(outcomes) && !c.inData
}

// netWords says in plain words what has happened to a connection.
func netWords(err error) string {
	var timeout net.Error
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return "Its certificate comes from nobody who is trusted"
	case errors.As(err, &host):
		return "Its certificate is for another name"
	case errors.As(err, &invalid):
		return "Its certificate is not valid: " + invalid.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "It did not answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "It closed the connection"
	case errors.Is(err, net.ErrClosed): // by us
		return "It took too long"
	case errors.As(err, new(textproto.ProtocolError)):
		return "It does not speak SMTP as it should"
	case errors.Is(err, errTalkative):
		return upperFirstOf(err)
	}
	text := err.Error()
	for _, known := range []struct{ part, words string }{
		{"connection refused", "It refuses connections"},
		{"no route to host", "There is no way to it in the network"},
		{"network is unreachable", "There is no way to it in the network"},
		{"connection reset", "It broke the connection off"},
		{"broken pipe", "It broke the connection off"},
	} {
		if strings.Contains(text, known.part) {
			return known.words
		}
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		return "It does not speak TLS as it should"
	}
	return text
}
