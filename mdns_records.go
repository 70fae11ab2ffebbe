package main

import (
	"bytes"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// What we say by multicast DNS: the records of a host and of its services (RFC 6763), and what answers a question.

const (
	mdnsHostTTL   = 120     // seconds, of what names the host (RFC 6762 §10)
	mdnsTTL       = 75 * 60 // of all else
	mdnsLegacyTTL = 10      // for programs that know nothing of multicast (RFC 6762 §6.7)

	mdnsFlush   = 1 << 15 // in the class of a record: it is all there is (RFC 6762 §10.2)
	mdnsUnicast = 1 << 15 // in the class of a question: to the asker alone (RFC 6762 §5.4)
)

// mdnsBook is what we say on one network.
type mdnsBook struct {
	host     string // label
	instance string // label of the services
	silent   bool   // another program on this machine speaks for the host
	services []mdnsService
	addrs    []netip.Prefix
}

// mdnsService is one service: "_imaps._tcp" and its port.
type mdnsService struct {
	kind string
	port int
}

// mdnsServices gives those of our ports that are announced. All have TLS from the start.
func mdnsServices(ports []Port) (list []mdnsService) {
	for _, p := range ports {
		switch p.Name {
		case "imaps", "submissions", "https":
			list = append(list, mdnsService{"_" + p.Name + "._tcp", p.Number})
		}
	}
	return list
}

func (b *mdnsBook) hostName() string { return b.host + ".local." }

func (b *mdnsBook) instanceName(s mdnsService) string { return b.instance + "." + s.kind + ".local." }

// hosts gives the addresses of the host.
func (b *mdnsBook) hosts() (list []dns.RR) {
	if b.silent {
		return nil
	}
	for _, p := range b.addrs {
		if h := mdnsHeader(b.hostName(), dns.TypeA, mdnsHostTTL); p.Addr().Is4() {
			list = append(list, &dns.A{Hdr: h, A: p.Addr().AsSlice()})
		} else {
			h.Rrtype = dns.TypeAAAA
			list = append(list, &dns.AAAA{Hdr: h, AAAA: p.Addr().WithZone("").AsSlice()})
		}
	}
	return list
}

// places gives where the services are.
func (b *mdnsBook) places() (list []dns.RR) {
	for _, s := range b.services {
		text := ""
		if s.kind == "_https._tcp" {
			text = "path=/"
		}
		list = append(list, &dns.SRV{Hdr: mdnsHeader(b.instanceName(s), dns.TypeSRV, mdnsHostTTL), Port: uint16(s.port), Target: b.hostName()},
			&dns.TXT{Hdr: mdnsHeader(b.instanceName(s), dns.TypeTXT, mdnsTTL), Txt: []string{text}})
	}
	return list
}

// unique gives what nobody else on the network may say otherwise.
func (b *mdnsBook) unique() []dns.RR { return append(b.hosts(), b.places()...) }

// shared gives the lists in which others stand, too (RFC 6763 §4.1, §9).
func (b *mdnsBook) shared() (list []dns.RR) {
	for _, s := range b.services {
		list = append(list, &dns.PTR{Hdr: mdnsHeader(s.kind+".local.", dns.TypePTR, mdnsTTL), Ptr: b.instanceName(s)},
			&dns.PTR{Hdr: mdnsHeader("_services._dns-sd._udp.local.", dns.TypePTR, mdnsTTL), Ptr: s.kind + ".local."})
	}
	return list
}

func mdnsHeader(name string, kind uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

// answer gives what answers a question, and what the asker will want to know next.
func (b *mdnsBook) answer(q dns.Question) (answers, more []dns.RR) {
	if class := q.Qclass &^ mdnsUnicast; class != dns.ClassINET && class != dns.ClassANY {
		return nil, nil
	}
	unique := b.unique()
	known := false // a name of ours
	for _, rr := range append(b.shared(), unique...) {
		h := rr.Header()
		if !strings.EqualFold(h.Name, q.Name) {
			continue
		}
		known = true
		if q.Qtype == dns.TypeANY || q.Qtype == h.Rrtype {
			answers = append(answers, rr)
		}
	}
	if len(answers) == 0 && known {
		return b.absent(q.Name, unique), nil
	}
	for _, rr := range answers {
		more = append(more, b.next(rr)...)
	}
	more = slices.DeleteFunc(more, func(rr dns.RR) bool {
		return slices.ContainsFunc(answers, func(a dns.RR) bool { return sameRecord(a, rr) })
	})
	return answers, more
}

// next gives what belongs to a record (RFC 6763 §12).
func (b *mdnsBook) next(rr dns.RR) (more []dns.RR) {
	switch rr := rr.(type) {
	case *dns.PTR:
		for _, place := range b.places() {
			if place.Header().Name == rr.Ptr {
				more = append(more, place)
			}
		}
		if len(more) > 0 {
			more = append(more, b.hosts()...)
		}
	case *dns.SRV, *dns.A, *dns.AAAA:
		more = b.hosts()
	}
	return more
}

// absent says that a name of ours has no records but these kinds (RFC 6762 §6.1).
func (b *mdnsBook) absent(name string, unique []dns.RR) []dns.RR {
	var kinds []uint16
	for _, rr := range unique {
		if h := rr.Header(); strings.EqualFold(h.Name, name) && !slices.Contains(kinds, h.Rrtype) {
			kinds = append(kinds, h.Rrtype)
		}
	}
	if kinds == nil {
		return nil // a list, of which nobody knows what else is in it
	}
	slices.Sort(kinds)
	return []dns.RR{&dns.NSEC{Hdr: mdnsHeader(name, dns.TypeNSEC, mdnsHostTTL), NextDomain: name, TypeBitMap: kinds}}
}

// sameRecord says whether two records say the same, for however long.
func sameRecord(a, b dns.RR) bool {
	return strings.EqualFold(a.Header().Name, b.Header().Name) && a.Header().Rrtype == b.Header().Rrtype && bytes.Equal(rdata(a), rdata(b))
}

// rdata gives what a record says, as it is compared (RFC 6762 §8.2): without compression.
func rdata(rr dns.RR) []byte {
	buf := make([]byte, dns.Len(rr)+64)
	name, err := dns.PackDomainName(rr.Header().Name, buf, 0, nil, false)
	if err != nil {
		return nil
	}
	const fixed = 10 // type, class, TTL, length
	n, err := dns.PackRR(rr, buf, 0, nil, false)
	if err != nil {
		return nil
	}
	return buf[name+fixed : n]
}

// givesWay says whether our records of a name give way to those of somebody who wants it at the same time (RFC 6762 §8.2.1).
func givesWay(ours, theirs []dns.RR) bool {
	return slices.CompareFunc(sortedRecords(ours), sortedRecords(theirs), compareRecords) < 0
}

func sortedRecords(list []dns.RR) []dns.RR {
	return slices.SortedFunc(slices.Values(list), compareRecords)
}

func compareRecords(a, b dns.RR) int {
	if d := int(a.Header().Rrtype) - int(b.Header().Rrtype); d != 0 {
		return d
	}
	return bytes.Compare(rdata(a), rdata(b))
}

// ofName gives the records of a name.
func ofName(list []dns.RR, name string) (found []dns.RR) {
	for _, rr := range list {
		if strings.EqualFold(rr.Header().Name, name) {
			found = append(found, rr)
		}
	}
	return found
}

// nextLabel gives the label to try when one is somebody else's: "pi", "pi-2", "pi-3".
func nextLabel(label string) string {
	base, number := label, 1
	if at := strings.LastIndexByte(label, '-'); at > 0 {
		if n, err := strconv.Atoi(label[at+1:]); err == nil && n > 1 {
			base, number = label[:at], n
		}
	}
	end := "-" + strconv.Itoa(number+1)
	const most = 63 // octets of a label (RFC 1035 §2.3.4)
	return base[:min(len(base), most-len(end))] + end
}
