package main

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Multicast DNS (RFC 6762): on a home network, where nobody runs a name server, this machine answers to its name under .local,
// and tells which services it has (RFC 6763). A name that another machine has is not fought over: we take another. Where
// another program of this machine, such as Avahi, answers for its name already, only the services are ours.

const (
	mdnsPort       = 5353
	mdnsProbes     = 3
	mdnsProbeGap   = 250 * time.Millisecond // RFC 6762 §8.1
	mdnsAnnounces  = 2
	mdnsSecond     = time.Second            // between announcements, and for a record to be said again (RFC 6762 §6, §8.3)
	mdnsSettle     = 2 * time.Second        // until a change of the networks is looked at: they come in swarms
	mdnsDelay      = 20 * time.Millisecond  // before what others may answer, too, and up to mdnsSpread more (RFC 6762 §6)
	mdnsSpread     = 100 * time.Millisecond //
	mdnsQuestions  = 32                     // of a packet that are answered
	mdnsNames      = 20                     // that are tried
	mdnsRemembered = 1000                   // records of which is known when they were said
)

// MDNSConfig is what OpenMDNS needs.
type MDNSConfig struct {
	Host    string       // the name of this machine; its first label counts
	Ports   []Port       // that are open
	Listen  string       // the one address that is served, "": all
	Renamed func(string) // is told the name that we go by, if it is not the usual one
	Log     *slog.Logger
}

// MDNS answers and announces.
type MDNS struct {
	MDNSConfig
	services []mdnsService
	host     string // labels that we go by
	instance string
	troubled bool // it was said in the log that it does not work

	port  int                                          // 0: mdnsPort
	lan   func() []lanInterface                        // nil: those of the machine
	own   func(netip.Addr) bool                        // whether an address is of this machine, nil: as the system says
	watch func(ctx context.Context, changed func())    // nil: watchNetworks
	open  func(lanInterface, int) ([]*mdnsLink, error) // nil: openLinks
}

// NewMDNS makes what Run runs. Nil: the machine has no name that can be used so.
func NewMDNS(cfg MDNSConfig) *MDNS {
	label, _, _ := strings.Cut(cfg.Host, ".")
	if !isDomainLabel(label) {
		return nil
	}
	only, _ := netip.ParseAddr(cfg.Listen)
	return &MDNS{MDNSConfig: cfg, services: mdnsServices(cfg.Ports), host: label, instance: label, port: mdnsPort,
		lan: func() []lanInterface { return lanInterfaces(only) }, own: isOwnAddress, watch: watchNetworks, open: openLinks}
}

// isOwnAddress says whether an address is one of this machine.
func isOwnAddress(a netip.Addr) bool {
	list, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(list, func(own net.Addr) bool {
		p, err := netip.ParsePrefix(own.String())
		return err == nil && p.Addr().Unmap() == a.Unmap().WithZone("")
	})
}

// Run answers on all home networks, those that come and go too, until ctx ends; then it says goodbye.
func (m *MDNS) Run(ctx context.Context) {
	changed := make(chan struct{}, 1)
	watching, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		m.watch(watching, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	})
	defer watcher.Wait()
	defer stop()
	for ctx.Err() == nil {
		networks := m.lan()
		s := m.openSession(networks)
		s.run(ctx, changed, lanKey(networks))
		s.close()
	}
}

// trouble says once in the log what does not work.
func (m *MDNS) trouble(err error) {
	if !m.troubled {
		m.troubled = true
		m.Log.Warn("devices on the network may not find this machine by its name: multicast DNS does not work", "err", err)
	}
}

// mdnsPacket is a message that came in.
type mdnsPacket struct {
	link *mdnsLink
	from netip.AddrPort
	msg  *dns.Msg
}

// mdnsSession is a time in which the networks are the same. Its fields belong to run.
type mdnsSession struct {
	*MDNS
	links   []*mdnsLink
	packets chan mdnsPacket
	readers sync.WaitGroup
	ended   chan struct{}

	silent  bool // another program on this machine answers for the host
	steps   int  // probes and announcements that are done
	renamed int
	next    *time.Timer // for the next step
	said    map[string]time.Time
	waiting map[*mdnsLink][]dns.RR // answers that are said in a moment
	flush   *time.Timer
}

func (m *MDNS) openSession(networks []lanInterface) *mdnsSession {
	s := &mdnsSession{MDNS: m, packets: make(chan mdnsPacket), ended: make(chan struct{}), said: map[string]time.Time{}, waiting: map[*mdnsLink][]dns.RR{},
		next: time.NewTimer(rand.N(mdnsProbeGap)), flush: time.NewTimer(time.Hour)}
	s.flush.Stop()
	for _, network := range networks {
		links, err := m.open(network, m.port)
		if err != nil {
			m.trouble(err)
		}
		s.links = append(s.links, links...)
	}
	for _, link := range s.links {
		s.readers.Go(func() { s.listen(link) })
	}
	if len(s.links) == 0 {
		s.next.Stop()
	}
	return s
}

// close ends all readers.
func (s *mdnsSession) close() {
	close(s.ended)
	for _, link := range s.links {
		_ = link.conn.Close()
	}
	s.readers.Wait()
}

// listen hands over what a link gets. What is no message is nobody's concern.
func (s *mdnsSession) listen(link *mdnsLink) {
	buf := make([]byte, mdnsMost)
	for {
		n, index, from, err := link.read(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !s.pause(mdnsSecond) {
				return
			}
			continue
		}
		source := addressOf(from)
		msg := new(dns.Msg)
		if index != 0 && index != link.Index || !link.near(source.Addr()) || msg.Unpack(buf[:n]) != nil || msg.Opcode != dns.OpcodeQuery {
			continue
		}
		select {
		case s.packets <- mdnsPacket{link, source, msg}:
		case <-s.ended:
			return
		}
	}
}

// pause waits; false: the session has ended.
func (s *mdnsSession) pause(d time.Duration) bool {
	select {
	case <-s.ended:
		return false
	case <-time.After(d):
		return true
	}
}

// run speaks until ctx ends or the networks are not those of key any more.
func (s *mdnsSession) run(ctx context.Context, changed <-chan struct{}, key string) {
	defer s.goodbye()
	defer s.next.Stop()
	defer s.flush.Stop()
	settle := time.NewTimer(time.Hour)
	defer settle.Stop()
	settle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			settle.Reset(mdnsSettle)
		case <-settle.C:
			if lanKey(s.lan()) != key {
				return
			}
		case <-s.next.C:
			s.step()
		case <-s.flush.C:
			s.sayWaiting()
		case p := <-s.packets:
			if p.msg.Response {
				s.hear(p)
			} else {
				s.asked(p)
			}
		}
	}
}

// book gives what we say on a link.
func (s *mdnsSession) book(link *mdnsLink) *mdnsBook {
	return &mdnsBook{host: s.host, instance: s.instance, silent: s.silent, services: s.services, addrs: link.addrs}
}

// won says whether the names are ours.
func (s *mdnsSession) won() bool { return s.steps > mdnsProbes }

// step probes or announces.
func (s *mdnsSession) step() {
	if s.steps < mdnsProbes {
		s.probe()
		s.steps++
		s.next.Reset(mdnsProbeGap)
		return
	}
	if s.steps == mdnsProbes {
		s.named()
	}
	s.steps++
	for _, link := range s.links {
		book := s.book(link)
		s.say(link, append(book.shared(), book.unique()...), nil, true)
	}
	if s.steps < mdnsProbes+mdnsAnnounces {
		s.next.Reset(mdnsSecond)
	}
}

// named says by which name we go.
func (s *mdnsSession) named() {
	var names []string
	for _, link := range s.links {
		if !slices.Contains(names, link.Name) {
			names = append(names, link.Name)
		}
	}
	s.Log.Info("listening", "protocol", "mdns", "name", s.host+".local", "services", s.instance, "networks", strings.Join(names, " "), "host_by_another_program", s.silent)
	if usual, _, _ := strings.Cut(s.Host, "."); s.host != usual {
		s.Log.Warn("another machine on the network has the name of this one: devices find this one by another name", "taken", usual+".local", "name", s.host+".local")
		if s.Renamed != nil {
			s.Renamed(s.host + ".local")
		}
	}
}

// probe asks whether somebody has the names that we want (RFC 6762 §8.1).
func (s *mdnsSession) probe() {
	for _, link := range s.links {
		book := s.book(link)
		msg := new(dns.Msg)
		for _, rr := range book.unique() {
			q := dns.Question{Name: rr.Header().Name, Qtype: dns.TypeANY, Qclass: dns.ClassINET}
			if s.steps == 0 {
				q.Qclass |= mdnsUnicast
			}
			if !slices.Contains(msg.Question, q) {
				msg.Question = append(msg.Question, q)
			}
			msg.Ns = append(msg.Ns, rr)
		}
		if len(msg.Question) > 0 {
			s.send(link, msg, link.group)
		}
	}
}

// again begins to probe anew.
func (s *mdnsSession) again(wait time.Duration) {
	s.steps = 0
	s.next.Reset(wait)
}

// hear looks whether an answer of somebody speaks of names that are ours, or are to be.
func (s *mdnsSession) hear(p mdnsPacket) {
	book := s.book(p.link)
	for _, rr := range slices.Concat(p.msg.Answer, p.msg.Extra) {
		h := rr.Header()
		switch {
		case h.Ttl == 0: // a goodbye
		case h.Rrtype == dns.TypeA || h.Rrtype == dns.TypeAAAA:
			if strings.EqualFold(h.Name, book.hostName()) && !s.silent && s.hearsHost(p, rr) {
				return
			}
		case h.Rrtype == dns.TypeSRV:
			if ours := ofName(book.places(), h.Name); len(ours) > 0 && !slices.ContainsFunc(ours, func(own dns.RR) bool { return sameRecord(own, rr) }) {
				s.clash(&s.instance)
				return
			}
		}
	}
}

// hearsHost deals with an address of the host that somebody tells; true: there is nothing more to be heard.
func (s *mdnsSession) hearsHost(p mdnsPacket, rr dns.RR) bool {
	switch {
	case s.own(p.from.Addr()):
		// Before we have told anything it is another program of this machine.
		s.silent = !s.won() && !s.toldBefore()
		return false
	case slices.ContainsFunc(s.links, func(l *mdnsLink) bool {
		return slices.ContainsFunc(s.book(l).hosts(), func(own dns.RR) bool { return sameRecord(own, rr) })
	}):
		return false
	}
	s.clash(&s.host)
	return true
}

// toldBefore says whether we have told our address in this session: a name is probed anew.
func (s *mdnsSession) toldBefore() bool { return len(s.said) > 0 }

// clash deals with a name that another machine has, too: once we had it, we look who has it; else we take another.
func (s *mdnsSession) clash(label *string) {
	if s.won() {
		s.again(mdnsProbeGap)
		return
	}
	if s.renamed++; s.renamed > mdnsNames {
		s.trouble(errors.New("all names that were tried are those of other machines"))
		s.next.Stop()
		return
	}
	*label = nextLabel(*label)
	wait := mdnsProbeGap
	if s.renamed > mdnsNames/2 { // RFC 6762 §8.1: slower, where there is so much against us
		wait = 5 * mdnsSecond
	}
	s.again(wait)
}

// asked answers questions, or gives way to who wants the same name at the same time (RFC 6762 §8.2).
func (s *mdnsSession) asked(p mdnsPacket) {
	book := s.book(p.link)
	if !s.won() {
		if s.own(p.from.Addr()) {
			return
		}
		for _, rr := range p.msg.Ns {
			name := rr.Header().Name
			if ours := ofName(book.unique(), name); len(ours) > 0 && givesWay(ours, ofName(p.msg.Ns, name)) {
				s.again(mdnsSecond)
				return
			}
		}
		return
	}
	if n := len(p.msg.Question); n == 0 || n > mdnsQuestions {
		return
	}
	var answers, more []dns.RR
	unicast := true
	for _, q := range p.msg.Question {
		a, m := book.answer(q)
		answers, more = append(answers, a...), append(more, m...)
		unicast = unicast && q.Qclass&mdnsUnicast != 0
	}
	answers = withoutRepeats(answers)
	if legacy := int(p.from.Port()) != s.port; legacy {
		s.answerLegacy(p, answers)
		return
	}
	answers = slices.DeleteFunc(answers, func(rr dns.RR) bool { return isKnown(p.msg.Answer, rr) })
	switch probed := len(p.msg.Ns) > 0; {
	case len(answers) == 0:
	case unicast:
		s.send(p.link, mdnsAnswer(answers, withoutRepeats(more)), net.UDPAddrFromAddrPort(s.zoned(p)))
	case probed || !slices.ContainsFunc(answers, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypePTR }):
		s.say(p.link, answers, withoutRepeats(more), probed)
	default: // others answer, too
		if len(s.waiting) == 0 {
			s.flush.Reset(mdnsDelay + rand.N(mdnsSpread))
		}
		s.waiting[p.link] = withoutRepeats(append(s.waiting[p.link], answers...))
	}
}

// zoned gives whence a packet came, with the interface for a link-local address.
func (s *mdnsSession) zoned(p mdnsPacket) netip.AddrPort {
	if a := p.from.Addr(); a.Is6() && a.IsLinkLocalUnicast() {
		return netip.AddrPortFrom(a.WithZone(p.link.Name), p.from.Port())
	}
	return p.from
}

// withoutRepeats gives each record once.
func withoutRepeats(list []dns.RR) (once []dns.RR) {
	for _, rr := range list {
		if !slices.ContainsFunc(once, func(o dns.RR) bool { return sameRecord(o, rr) }) {
			once = append(once, rr)
		}
	}
	return once
}

// isKnown says whether an asker knows an answer already, and for a while yet (RFC 6762 §7.1).
func isKnown(known []dns.RR, rr dns.RR) bool {
	return slices.ContainsFunc(known, func(k dns.RR) bool { return k.Header().Ttl >= rr.Header().Ttl/2 && sameRecord(k, rr) })
}

// answerLegacy answers a program that asks as it would any name server (RFC 6762 §6.7).
func (s *mdnsSession) answerLegacy(p mdnsPacket, answers []dns.RR) {
	if len(answers) == 0 {
		return
	}
	msg := mdnsAnswer(answers, nil)
	msg.Id, msg.Question = p.msg.Id, p.msg.Question
	for _, rr := range msg.Answer {
		rr.Header().Class &^= mdnsFlush
		rr.Header().Ttl = min(rr.Header().Ttl, mdnsLegacyTTL)
	}
	s.send(p.link, msg, net.UDPAddrFromAddrPort(s.zoned(p)))
}

// mdnsAnswer makes the message; its records are copies.
func mdnsAnswer(answers, more []dns.RR) *dns.Msg {
	msg := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Authoritative: true}, Compress: true}
	for _, part := range []struct {
		from []dns.RR
		to   *[]dns.RR
	}{{answers, &msg.Answer}, {more, &msg.Extra}} {
		for _, rr := range part.from {
			if rr = dns.Copy(rr); rr.Header().Rrtype != dns.TypePTR {
				rr.Header().Class |= mdnsFlush
			}
			*part.to = append(*part.to, rr)
		}
	}
	return msg
}

// sayWaiting says what waited for others to speak.
func (s *mdnsSession) sayWaiting() {
	for link, answers := range s.waiting {
		var more []dns.RR
		for _, rr := range answers {
			more = append(more, s.book(link).next(rr)...)
		}
		s.say(link, answers, withoutRepeats(more), false)
	}
	clear(s.waiting)
}

// say tells everybody. What was said within the last second is not said again, unless it must be.
func (s *mdnsSession) say(link *mdnsLink, answers, more []dns.RR, must bool) {
	now := time.Now()
	if len(s.said) > mdnsRemembered {
		clear(s.said)
	}
	var fresh []dns.RR
	for _, rr := range answers {
		key := link.group.String() + link.Name + rr.String()
		if must || now.Sub(s.said[key]) >= mdnsSecond {
			s.said[key] = now
			fresh = append(fresh, rr)
		}
	}
	if len(fresh) > 0 {
		s.send(link, mdnsAnswer(fresh, more), link.group)
	}
}

func (s *mdnsSession) send(link *mdnsLink, msg *dns.Msg, to net.Addr) {
	text, err := msg.Pack()
	if err == nil {
		_, err = link.write(text, to)
	}
	if err != nil {
		s.trouble(err)
	}
}

// goodbye takes back what was said (RFC 6762 §10.1).
func (s *mdnsSession) goodbye() {
	if !s.toldBefore() {
		return
	}
	for _, link := range s.links {
		book := s.book(link)
		msg := mdnsAnswer(append(book.shared(), book.unique()...), nil)
		for _, rr := range msg.Answer {
			rr.Header().Ttl = 0
		}
		s.send(link, msg, link.group)
	}
}
