package main

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// mdnsNet is a network of its own: the loopback interface, with a port that nobody else uses.
type mdnsNet struct {
	t    testing.TB
	lo   net.Interface
	port int
}

func newMDNSNet(t testing.TB) *mdnsNet {
	t.Helper()
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(list, func(i net.Interface) bool { return i.Flags&net.FlagLoopback != 0 && i.Flags&net.FlagUp != 0 })
	if at < 0 {
		t.Skip("there is no loopback interface")
	}
	taken, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	return &mdnsNet{t, list[at], taken.LocalAddr().(*net.UDPAddr).Port}
}

// at gives the loopback interface as that of a machine with this address. By what address packets go there, the system decides:
// all are near.
func (n *mdnsNet) at(address string) lanInterface {
	return lanInterface{n.lo, []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(address), 0)}}
}

// machine starts a machine there, with a log of its own. own says which addresses are its own.
func (n *mdnsNet) machine(name, address string, own func(netip.Addr) bool, renamed func(string)) (m *MDNS, log *lockedBuffer, end func()) {
	n.t.Helper()
	log = &lockedBuffer{}
	m = NewMDNS(MDNSConfig{Host: name, Ports: mdnsPorts, Renamed: renamed, Log: slog.New(slog.NewTextHandler(log, nil))})
	m.port, m.own = n.port, own
	m.lan = func() []lanInterface { return []lanInterface{n.at(address)} }
	return m, log, sync.OnceFunc(inBackground(m.Run))
}

// device is another machine on the network, which listens and asks.
type mdnsDevice struct {
	*mdnsNet
	link  *mdnsLink
	heard chan *dns.Msg
}

func (n *mdnsNet) device() *mdnsDevice {
	n.t.Helper()
	links, err := openLinks(n.at("127.0.0.1"), n.port)
	if err != nil {
		n.t.Skipf("no multicast on the loopback interface: %v", err)
	}
	d := &mdnsDevice{n, links[0], make(chan *dns.Msg, 1000)}
	n.t.Cleanup(func() { _ = d.link.conn.Close() })
	go func() {
		buf := make([]byte, mdnsMost)
		for {
			count, _, _, err := d.link.read(buf)
			if err != nil {
				return
			}
			if msg := new(dns.Msg); msg.Unpack(buf[:count]) == nil {
				d.heard <- msg
			}
		}
	}()
	return d
}

// ask sends a question, with what is known already.
func (d *mdnsDevice) ask(name string, kind uint16, known ...dns.RR) {
	d.t.Helper()
	d.tell(&dns.Msg{Question: []dns.Question{{Name: name, Qtype: kind, Qclass: dns.ClassINET}}, Answer: known})
}

func (d *mdnsDevice) tell(msg *dns.Msg) {
	d.t.Helper()
	text, err := msg.Pack()
	if err == nil {
		_, err = d.link.write(text, d.link.group)
	}
	if err != nil {
		d.t.Skipf("no multicast on the loopback interface: %v", err)
	}
}

// hears waits for a response with a record that fits, and gives it.
func (d *mdnsDevice) hears(what string, fits func(rr dns.RR) bool) *dns.Msg {
	d.t.Helper()
	for end := time.After(20 * time.Second); ; {
		select {
		case msg := <-d.heard:
			if msg.Response && slices.ContainsFunc(slices.Concat(msg.Answer, msg.Extra), fits) {
				return msg
			}
		case <-end:
			d.t.Fatalf("nobody says %s", what)
		}
	}
}

// record gives a function that looks for a record by its beginning, as it is written.
func record(name, kind, value string) func(rr dns.RR) bool {
	return func(rr dns.RR) bool {
		h := rr.Header()
		return h.Ttl > 0 && h.Name == name && dns.TypeToString[h.Rrtype] == kind && strings.HasSuffix(rr.String(), "\t"+value)
	}
}

func nobody(netip.Addr) bool { return false }

var mdnsPorts = []Port{{"smtp", 25, ""}, {"imaps", 1993, ""}, {"submissions", 1465, ""}, {"https", 1443, ""}}

func TestMDNSAnswers(t *testing.T) {
	n := newMDNSNet(t)
	d := n.device()
	_, _, end := n.machine("pi.home.lan", "127.0.0.1", nobody, nil)
	defer end()
	d.hears("where the host is", record("pi.local.", "A", "127.0.0.1"))
	d.ask("_imaps._tcp.local.", dns.TypePTR)
	msg := d.hears("which services there are", record("_imaps._tcp.local.", "PTR", "pi._imaps._tcp.local."))
	for what, fits := range map[string]func(dns.RR) bool{
		"SRV": record("pi._imaps._tcp.local.", "SRV", "0 0 1993 pi.local."), "A": record("pi.local.", "A", "127.0.0.1"), "TXT": record("pi._imaps._tcp.local.", "TXT", `""`),
	} {
		if !slices.ContainsFunc(slices.Concat(msg.Answer, msg.Extra), fits) {
			t.Errorf("%s is missing in\n%s", what, msg)
		}
	}
	time.Sleep(mdnsSecond) // what was just said is not said again
	for _, test := range []struct {
		name  string
		kind  uint16
		found func(dns.RR) bool
	}{
		{"PI.Local.", dns.TypeA, record("pi.local.", "A", "127.0.0.1")},
		{"pi._submissions._tcp.local.", dns.TypeSRV, record("pi._submissions._tcp.local.", "SRV", "0 0 1465 pi.local.")},
		{"_https._tcp.local.", dns.TypePTR, record("_https._tcp.local.", "PTR", "pi._https._tcp.local.")},
		{"pi._https._tcp.local.", dns.TypeTXT, record("pi._https._tcp.local.", "TXT", `"path=/"`)},
		{"_services._dns-sd._udp.local.", dns.TypePTR, record("_services._dns-sd._udp.local.", "PTR", "_imaps._tcp.local.")},
		{"pi.local.", dns.TypeAAAA, func(rr dns.RR) bool {
			nsec, ok := rr.(*dns.NSEC)
			return ok && slices.Equal(nsec.TypeBitMap, []uint16{dns.TypeA})
		}},
	} {
		d.ask(test.name, test.kind)
		d.hears(test.name, test.found)
	}
	end()
	d.hears("goodbye", func(rr dns.RR) bool { return rr.Header().Name == "pi.local." && rr.Header().Ttl == 0 })
}

// A program that is no device of multicast DNS asks from another port, and is answered as a name server does.
func TestMDNSLegacy(t *testing.T) {
	n := newMDNSNet(t)
	d := n.device()
	_, _, end := n.machine("pi", "127.0.0.1", nobody, nil)
	defer end()
	for range mdnsAnnounces {
		d.hears("where the host is", record("pi.local.", "A", "127.0.0.1"))
	}
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := new(dns.Msg).SetQuestion("pi.local.", dns.TypeA)
	text, _ := ask.Pack()
	if _, err := (conn.(*net.UDPConn)).WriteTo(text, &net.UDPAddr{IP: d.link.group.IP, Port: n.port}); err != nil {
		t.Skipf("no way to the group: %v", err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, mdnsMost)
	count, _, err := conn.ReadFrom(buf)
	if err != nil {
		t.Skipf("the group is not reached by the loopback interface from here: %v", err)
	}
	answer := new(dns.Msg)
	if err := answer.Unpack(buf[:count]); err != nil || answer.Id != ask.Id || len(answer.Question) != 1 || len(answer.Answer) != 1 {
		t.Fatalf("%v\n%s", err, answer)
	}
	if h := answer.Answer[0].Header(); h.Class != dns.ClassINET || h.Ttl > mdnsLegacyTTL {
		t.Errorf("%s", answer)
	}
}

// Two machines of one name do not fight: the second is another one.
func TestMDNSConflict(t *testing.T) {
	n := newMDNSNet(t)
	d := n.device()
	_, _, end := n.machine("pi", "127.0.0.1", nobody, nil)
	defer end()
	for range mdnsAnnounces {
		d.hears("the first host", record("pi.local.", "A", "127.0.0.1"))
	}
	renamed := make(chan string, 1)
	_, log, end2 := n.machine("pi", "127.0.0.2", nobody, func(name string) { renamed <- name })
	defer end2()
	d.hears("the second host", record("pi-2.local.", "A", "127.0.0.2"))
	d.hears("the second service", record("_imaps._tcp.local.", "PTR", "pi-2._imaps._tcp.local."))
	if got := <-renamed; got != "pi-2.local" || !strings.Contains(log.String(), "taken=pi.local name=pi-2.local") {
		t.Errorf("renamed to %s\n%s", got, log.String())
	}
}

// Where another program of this machine answers for its name, the name is left to it.
func TestMDNSBesideAnother(t *testing.T) {
	n := newMDNSNet(t)
	d := n.device()
	m, log, end := n.machine("pi", "127.0.0.1", func(netip.Addr) bool { return true }, nil)
	defer end()
	for msg := range d.heard {
		if !msg.Response && len(msg.Ns) > 0 { // it probes
			break
		}
	}
	theirs, err := dns.NewRR("pi.local. 120 IN A 127.0.0.7")
	if err != nil {
		t.Fatal(err)
	}
	d.tell(mdnsAnswer([]dns.RR{theirs}, nil))
	msg := d.hears("the services", record("pi._imaps._tcp.local.", "SRV", "0 0 1993 pi.local."))
	if slices.ContainsFunc(slices.Concat(msg.Answer, msg.Extra), func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeA }) {
		t.Errorf("the host is told, too:\n%s", msg)
	}
	end()
	if m.host != "pi" || !strings.Contains(log.String(), "host_by_another_program=true") {
		t.Errorf("%s\n%s", m.host, log.String())
	}
}

// When the networks change, what was said is taken back, and the new state told.
func TestMDNSChanges(t *testing.T) {
	n := newMDNSNet(t)
	d := n.device()
	var mu sync.Mutex
	var networks []lanInterface
	become := func(list ...lanInterface) { mu.Lock(); networks = list; mu.Unlock() }
	change := make(chan struct{})
	m := NewMDNS(MDNSConfig{Host: "pi", Ports: mdnsPorts, Log: slog.New(slog.DiscardHandler)})
	m.port, m.own = n.port, nobody
	m.lan = func() []lanInterface { mu.Lock(); defer mu.Unlock(); return networks }
	m.watch = func(ctx context.Context, changed func()) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-change:
				changed()
			}
		}
	}
	defer inBackground(m.Run)()
	become(n.at("127.0.0.1"))
	change <- struct{}{}
	d.hears("the first address", record("pi.local.", "A", "127.0.0.1"))
	become(n.at("127.0.0.3"))
	change <- struct{}{}
	d.hears("goodbye", func(rr dns.RR) bool { return rr.Header().Name == "pi.local." && rr.Header().Ttl == 0 })
	d.hears("the second address", record("pi.local.", "A", "127.0.0.3"))
}

func mdnsTestBook() *mdnsBook {
	return &mdnsBook{host: "pi", instance: "pi", services: mdnsServices(mdnsPorts), addrs: []netip.Prefix{netip.MustParsePrefix("192.168.1.20/24"), netip.MustParsePrefix("fe80::1/64")}}
}

func TestMDNSKnownAnswers(t *testing.T) {
	b := mdnsTestBook()
	answers, _ := b.answer(dns.Question{Name: "_imaps._tcp.local.", Qtype: dns.TypePTR, Qclass: dns.ClassINET})
	if len(answers) != 1 {
		t.Fatalf("%v", answers)
	}
	known := dns.Copy(answers[0])
	known.Header().Name = "_IMAPS._tcp.local."
	for ttl, want := range map[uint32]bool{mdnsTTL: true, mdnsTTL / 2: true, mdnsTTL/2 - 1: false, 0: false} {
		known.Header().Ttl = ttl
		if isKnown([]dns.RR{known}, answers[0]) != want {
			t.Errorf("known for %d s: %v", ttl, !want)
		}
	}
	for _, q := range []dns.Question{{Name: "other.local.", Qtype: dns.TypeA, Qclass: dns.ClassINET}, {Name: "pi.local.", Qtype: dns.TypeA, Qclass: dns.ClassCHAOS}, {Name: "_ipp._tcp.local.", Qtype: dns.TypePTR, Qclass: dns.ClassINET},
		{Name: "_imaps._tcp.local.", Qtype: dns.TypeSRV, Qclass: dns.ClassINET}} {
		if answers, _ := b.answer(q); len(answers) > 0 {
			t.Errorf("%v: %v", q, answers)
		}
	}
	b.silent = true
	if answers, _ := b.answer(dns.Question{Name: "pi.local.", Qtype: dns.TypeA, Qclass: dns.ClassINET}); len(answers) > 0 {
		t.Errorf("what is another program's is answered: %v", answers)
	}
}

// The example of RFC 6762 §8.2: the later address wins.
func TestMDNSGivesWay(t *testing.T) {
	rr := func(text string) dns.RR {
		r, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	a99, a200 := rr("x.local. 120 IN A 169.254.99.200"), rr("x.local. 120 IN A 169.254.200.50")
	if !givesWay([]dns.RR{a99}, []dns.RR{a200}) || givesWay([]dns.RR{a200}, []dns.RR{a99}) || givesWay([]dns.RR{a99}, []dns.RR{a99}) {
		t.Error("addresses")
	}
	six := rr("x.local. 120 IN AAAA fe80::1")
	if !givesWay([]dns.RR{a200}, []dns.RR{six}) || !givesWay([]dns.RR{a99}, []dns.RR{a99, six}) || givesWay([]dns.RR{six, a99}, []dns.RR{a99}) {
		t.Error("several records")
	}
}

func TestMDNSLabels(t *testing.T) {
	for label, want := range map[string]string{"pi": "pi-2", "pi-2": "pi-3", "pi-9": "pi-10", "pi-1": "pi-1-2", "a-b": "a-b-2", strings.Repeat("x", 63): strings.Repeat("x", 61) + "-2"} {
		if got := nextLabel(label); got != want {
			t.Errorf("%s: %s", label, got)
		}
	}
}

func TestLANAddresses(t *testing.T) {
	addrs := func(list ...string) (found []net.Addr) {
		for _, a := range list {
			ip, network, err := net.ParseCIDR(a)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, &net.IPNet{IP: ip, Mask: network.Mask})
		}
		return found
	}
	for _, test := range []struct {
		have []string
		only string
		want string
	}{
		{[]string{"192.168.1.20/24", "2001:db8::1/64", "fe80::1/64"}, "", "[192.168.1.20/24 fe80::1/64]"},
		{[]string{"fd00::5/64", "fe80::1/64"}, "", "[fd00::5/64 fe80::1/64]"},
		{[]string{"198.51.100.7/24", "fe80::1/64"}, "", "[]"},
		{[]string{"fe80::1/64"}, "", "[]"},
		{[]string{"169.254.3.4/16"}, "", "[169.254.3.4/16]"},
		{[]string{"10.0.0.1/8", "10.0.0.2/8"}, "10.0.0.2", "[10.0.0.2/8]"},
		{[]string{"10.0.0.1/8"}, "198.51.100.7", "[]"},
	} {
		only, _ := netip.ParseAddr(test.only)
		if got := slog.AnyValue(lanAddresses(addrs(test.have...), only)).String(); got != test.want {
			t.Errorf("%v: %s", test.have, got)
		}
	}
	for name, want := range map[string]bool{"eth0": false, "enp3s0": false, "wlan0": false, "Wi-Fi": false, "en0": false, "br0": false, "docker0": true, "br-1a2b": true, "veth12": true, "vEthernet (WSL)": true, "wg0": true, "utun3": true} {
		if isInnerInterface(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

// FuzzMDNS answers whatever comes.
func FuzzMDNS(f *testing.F) {
	for _, name := range []string{"pi.local.", "_imaps._tcp.local.", "pi._imaps._tcp.local."} {
		text, _ := new(dns.Msg).SetQuestion(name, dns.TypeANY).Pack()
		f.Add(text)
		text, _ = mdnsAnswer(mdnsTestBook().unique(), mdnsTestBook().shared()).Pack()
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		msg := new(dns.Msg)
		if msg.Unpack(text) != nil {
			return
		}
		sent := 0
		link := &mdnsLink{group: &net.UDPAddr{}, lanInterface: lanInterface{addrs: mdnsTestBook().addrs}, write: func(b []byte, _ net.Addr) (int, error) {
			sent++
			return len(b), nil
		}}
		for _, steps := range []int{0, mdnsProbes + mdnsAnnounces} {
			m := NewMDNS(MDNSConfig{Host: "pi", Ports: mdnsPorts, Log: slog.New(slog.DiscardHandler)})
			m.open = func(lanInterface, int) ([]*mdnsLink, error) { return nil, nil }
			s := m.openSession(nil)
			s.links, s.steps = []*mdnsLink{link}, steps
			p := mdnsPacket{link, netip.MustParseAddrPort("192.168.1.9:5353"), msg}
			s.hear(p)
			s.asked(p)
			s.sayWaiting()
			s.next.Stop()
			s.flush.Stop()
		}
		if sent > 2 {
			t.Errorf("%d answers", sent)
		}
	})
}
