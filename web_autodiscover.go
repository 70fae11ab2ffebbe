package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strings"
)

// How Outlook finds its settings: Autodiscover, as [MS-OXDSCLI] and [MS-OXDISCO] have it, the older protocol in XML and the one
// in JSON that leads to it.

const (
	autodiscoverPath  = "/autodiscover/autodiscover.xml"
	autodiscoverMost  = 16 << 10 // bytes of a request
	autodiscoverDepth = 8        // elements in each other; a request has three

	discoverOutlook = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"
)

// autodiscoverRoutes has the path in the spellings that programs use.
func autodiscoverRoutes() []webRoute {
	var list []webRoute
	for _, path := range []string{autodiscoverPath, "/Autodiscover/Autodiscover.xml", "/AutoDiscover/AutoDiscover.xml"} {
		list = append(list, webRoute{pattern: "POST " + path, do: (*webRequest).autodiscover, raw: true})
	}
	for _, path := range []string{"/autodiscover/autodiscover.json", "/autodiscover/autodiscover.json/v1.0/{address}"} {
		list = append(list, webRoute{pattern: "GET " + path, do: (*webRequest).autodiscoverJSON, raw: true})
	}
	return list
}

// discoverRequest is what a program asks: [MS-OXDSCLI] §2.2.3.1.1.
type discoverRequest struct {
	Address string // EMailAddress
	Schema  string // AcceptableResponseSchema: the form of the answer, "" for the usual one
}

type (
	discoverAnswer struct {
		XMLName  xml.Name `xml:"http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006 Autodiscover"`
		Response any
	}

	discoverSettings struct {
		XMLName xml.Name        `xml:"http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a Response"`
		Account discoverAccount `xml:"Account"`
	}

	discoverAccount struct {
		AccountType string
		Action      string
		Protocol    []discoverServer
	}

	discoverServer struct {
		Type           string
		Server         string
		Port           int
		DomainRequired string
		LoginName      string
		SPA            string
		SSL            string
		Encryption     string
		AuthRequired   string
		UsePOPAuth     string `xml:",omitempty"`
		SMTPLast       string `xml:",omitempty"`
	}

	discoverRefusal struct {
		XMLName xml.Name      `xml:"Response"`
		Error   discoverError `xml:"Error"`
	}

	discoverError struct {
		Time      string `xml:",attr"`
		ID        string `xml:"Id,attr"`
		ErrorCode int
		Message   string
		DebugData struct{}
	}
)

// autodiscover answers with the settings for any address of our domains, whether there is such an account or not.
func (q *webRequest) autodiscover() error {
	ask, err := readDiscover(http.MaxBytesReader(q.rw, q.r.Body, autodiscoverMost))
	switch {
	case err != nil:
		return q.refuseDiscover(600, "Invalid Request")
	case ask.Schema != "" && ask.Schema != discoverOutlook:
		return q.refuseDiscover(601, "Requested schema version not supported")
	}
	address, err := ParseAddress(ask.Address)
	if err != nil || address.Domain == "" {
		return q.refuseDiscover(600, "Invalid Request")
	}
	domain := q.domainAsked(ask.Address, "")
	if domain == "" {
		return q.refuseDiscover(500, "The email address cannot be found.")
	}
	account := discoverAccount{AccountType: "email", Action: "settings"}
	for _, kind := range []struct{ name, port string }{{"IMAP", "imaps"}, {"POP3", "pop3s"}, {"SMTP", "submissions"}} {
		s := discoverServer{Type: kind.name, Server: q.mailHost(domain), Port: q.port(kind.port), DomainRequired: "off",
			LoginName: address.String(), SPA: "off", SSL: "on", Encryption: "SSL", AuthRequired: "on"}
		if kind.name == "SMTP" {
			s.UsePOPAuth, s.SMTPLast = "on", "off"
		}
		if s.Port != 0 {
			account.Protocol = append(account.Protocol, s)
		}
	}
	return q.sendXML("text/xml; charset=utf-8", discoverAnswer{Response: discoverSettings{Account: account}})
}

// refuseDiscover answers with an error of the protocol.
func (q *webRequest) refuseDiscover(code int, message string) error {
	refusal := discoverRefusal{Error: discoverError{Time: q.Now().UTC().Format("15:04:05.0000000"),
		ID: fmt.Sprint(crc32.ChecksumIEEE([]byte(q.Host))), ErrorCode: code, Message: message}}
	return q.sendXML("text/xml; charset=utf-8", discoverAnswer{Response: refusal})
}

var errDiscover = errors.New("no request of Autodiscover")

// readDiscover reads a request: three elements in each other and nothing fancy. A document with a DOCTYPE, and so with entities
// of its own, is refused.
func readDiscover(r io.Reader) (discoverRequest, error) {
	var ask discoverRequest
	var path []string
	requests := 0
	decoder := xml.NewDecoder(r)
	for {
		token, err := decoder.Token()
		if err == io.EOF && requests == 1 && ask.Address != "" {
			return ask, nil
		}
		if err != nil {
			return ask, errDiscover
		}
		switch t := token.(type) {
		case xml.Directive:
			return ask, errDiscover
		case xml.StartElement:
			if path = append(path, t.Name.Local); len(path) > autodiscoverDepth {
				return ask, errDiscover
			}
			if len(path) == 2 && t.Name.Local == "Request" {
				requests++
			}
		case xml.EndElement:
			path = path[:len(path)-1]
		case xml.CharData:
			switch strings.Join(path, "/") {
			case "Autodiscover/Request/EMailAddress":
				ask.Address += strings.TrimSpace(string(t))
			case "Autodiscover/Request/AcceptableResponseSchema":
				ask.Schema += strings.TrimSpace(string(t))
			}
		}
	}
}

// autodiscoverJSON leads to the protocol that we speak.
func (q *webRequest) autodiscoverJSON() error {
	ask := ""
	for key, values := range q.r.URL.Query() {
		if strings.EqualFold(key, "Protocol") {
			ask = values[0]
		}
	}
	const speaks = "AutodiscoverV1"
	answer := map[string]string{}
	switch {
	case strings.EqualFold(ask, speaks):
		answer["Protocol"] = speaks
		answer["Url"] = secureURL(q.mailHost(q.Accounts.DefaultDomain()), q.Secure(), autodiscoverPath)
	case ask == "":
		q.status = http.StatusBadRequest
		answer["ErrorCode"], answer["ErrorMessage"] = "MandatoryParameterMissing", "A valid value must be provided for the query parameter 'Protocol'"
	default:
		q.status = http.StatusBadRequest
		answer["ErrorCode"], answer["ErrorMessage"] = "InvalidProtocol", "The given protocol value is invalid. Supported values are '"+speaks+"'"
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	q.send("application/json; charset=utf-8", text)
	return nil
}
