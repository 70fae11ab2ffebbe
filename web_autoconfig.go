package main

import (
	"encoding/xml"
	"strings"
)

// How Thunderbird, Evolution and K-9 find their settings by themselves: a file in the format that Mozilla documents
// (https://wiki.mozilla.org/Thunderbird:Autoconfiguration:ConfigFileFormat), under TLS and without.

func autoconfigRoutes() []webRoute {
	return []webRoute{
		{pattern: "GET /mail/config-v1.1.xml", do: (*webRequest).autoconfig, raw: true, plain: true},
		{pattern: "GET /.well-known/autoconfig/mail/config-v1.1.xml", do: (*webRequest).autoconfig, raw: true, plain: true},
	}
}

type (
	clientConfig struct {
		XMLName  xml.Name      `xml:"clientConfig"`
		Version  string        `xml:"version,attr"`
		Provider emailProvider `xml:"emailProvider"`
	}

	emailProvider struct {
		ID        string         `xml:"id,attr"`
		Domain    string         `xml:"domain"`
		Name      string         `xml:"displayName"`
		ShortName string         `xml:"displayShortName"`
		Incoming  []configServer `xml:"incomingServer"`
		Outgoing  []configServer `xml:"outgoingServer"`
	}

	configServer struct {
		Type           string `xml:"type,attr"`
		Hostname       string `xml:"hostname"`
		Port           int    `xml:"port"`
		SocketType     string `xml:"socketType"`
		Username       string `xml:"username"`
		Authentication string `xml:"authentication"`
	}
)

// autoconfig answers for the domain of an address, the same for all its addresses: the program puts in which one it is.
func (q *webRequest) autoconfig() error {
	domain := q.domainAsked(q.r.URL.Query().Get("emailaddress"), "autoconfig.")
	if domain == "" {
		return errWebMissing
	}
	host := q.mailHost(domain)
	config := clientConfig{Version: "1.1", Provider: emailProvider{ID: domain, Domain: domain, Name: domain, ShortName: domain,
		Incoming: q.configServers(host, "imap", "imaps", "imap", "pop3s", "pop3"),
		Outgoing: q.configServers(host, "smtp", "submissions", "submission"),
	}}
	return q.sendXML("application/xml; charset=utf-8", config)
}

// configServers gives the servers behind our ports of these names, TLS from the start first (RFC 8314 §3).
func (q *webRequest) configServers(host, kind string, names ...string) []configServer {
	var list []configServer
	for _, name := range names {
		s := configServer{kind, host, q.port(name), "STARTTLS", "%EMAILADDRESS%", "password-cleartext"}
		if strings.HasSuffix(name, "s") {
			s.SocketType = "SSL"
		}
		if strings.HasPrefix(name, "pop3") {
			s.Type = "pop3"
		}
		if s.Port != 0 {
			list = append(list, s)
		}
	}
	return list
}

// domainAsked gives the domain of ours that a program asks about, by an address or else by the name of the host, "" for none.
// Whether there is such an address makes no difference.
func (q *webRequest) domainAsked(address, prefix string) string {
	domain, ok := strings.CutPrefix(hostOfRequest(q.r), prefix)
	if address != "" {
		a, err := ParseAddress(address)
		if err != nil {
			return ""
		}
		domain, ok = a.Domain, true
	}
	if !ok {
		domain = q.Accounts.DefaultDomain()
	}
	if domain = normalDomain(domain); !q.Accounts.IsLocalDomain(domain) {
		return ""
	}
	if ascii, ok := asciiDomain(domain); ok {
		return ascii
	}
	return ""
}

// sendXML answers with a document.
func (q *webRequest) sendXML(kind string, document any) error {
	text, err := xml.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	q.send(kind, append(append([]byte(xml.Header), text...), '\n'))
	return nil
}
