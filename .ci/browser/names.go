package main

import (
	"net"
	"strings"

	"github.com/miekg/dns"
)

// names are those that the small world knows; all others do not exist.
func names() map[string]string {
	return map[string]string{
		"kitchen.home.lan.":   "192.168.77.1",
		"mail.example.org.":   "192.168.77.1",
		"provider.example.":   "192.168.77.2",
		"mx.outside.example.": "192.168.77.3", // nobody listens there
	}
}

// serveNames answers questions about them on 127.0.0.1, which /etc/resolv.conf names. What the doctor knows the internet by is
// there, too: a provider's name, and a server at 1.1.1.1, which is this machine here.
func serveNames() error {
	web, err := net.Listen("tcp", "1.1.1.1:443")
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := web.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	conn, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		return err
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(answerName)}
	go func() { _ = server.ActivateAndServe() }() // it ends with the process
	return nil
}

func answerName(w dns.ResponseWriter, q *dns.Msg) {
	a := new(dns.Msg)
	a.SetReply(q)
	a.RecursionAvailable = true
	name := strings.ToLower(q.Question[0].Name)
	address, mx := names()[name], map[string]string{"outside.example.": "mx.outside.example.", "example.org.": "mail.example.org.", "gmail.com.": "mx.outside.example."}[name]
	switch kind := q.Question[0].Qtype; {
	case mx != "" && kind == dns.TypeMX:
		a.Answer = append(a.Answer, &dns.MX{Hdr: dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: 60}, Preference: 10, Mx: mx})
	case address != "" && kind == dns.TypeA:
		a.Answer = append(a.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(address)})
	case address == "" && mx == "":
		a.Rcode = dns.RcodeNameError
	}
	_ = w.WriteMsg(a) // who asked asks again
}
