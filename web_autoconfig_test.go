package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// element is an element of XML with what is in it.
type element struct {
	XMLName xml.Name
	Attrs   []xml.Attr `xml:",any,attr"`
	Text    string     `xml:",chardata"`
	Inner   []element  `xml:",any"`
}

func readElement(t testing.TB, text string) element {
	t.Helper()
	var e element
	if err := xml.Unmarshal([]byte(text), &e); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return e
}

// all gives the elements of a name.
func (e *element) all(name string) (list []element) {
	for _, inner := range e.Inner {
		if inner.XMLName.Local == name {
			list = append(list, inner)
		}
	}
	return list
}

// text gives what is in the one element of a name.
func (e *element) text(t testing.TB, name string) string {
	t.Helper()
	list := e.all(name)
	if len(list) != 1 || len(list[0].Inner) > 0 {
		t.Fatalf("%d elements %s in %s", len(list), name, e.XMLName.Local)
	}
	return strings.TrimSpace(list[0].Text)
}

func (e *element) attr(name string) string {
	for _, a := range e.Attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// checkClientConfig holds a file against Mozilla's documentation of the format, as far as it speaks of mail.
func checkClientConfig(t testing.TB, text string) (provider element) {
	t.Helper()
	root := readElement(t, text)
	if root.XMLName.Local != "clientConfig" || root.attr("version") != "1.1" || len(root.all("emailProvider")) != 1 {
		t.Fatalf("not the format:\n%s", text)
	}
	provider = root.all("emailProvider")[0]
	if provider.attr("id") == "" || len(provider.all("domain")) == 0 || len(provider.all("incomingServer")) == 0 || len(provider.all("outgoingServer")) == 0 {
		t.Fatalf("something is missing:\n%s", text)
	}
	provider.text(t, "displayName")
	provider.text(t, "displayShortName")
	for _, e := range provider.Inner {
		kinds := map[string][]string{"incomingServer": {"imap", "pop3"}, "outgoingServer": {"smtp"}}[e.XMLName.Local]
		if kinds == nil {
			if !slices.Contains([]string{"domain", "displayName", "displayShortName"}, e.XMLName.Local) {
				t.Errorf("the format has no %s", e.XMLName.Local)
			}
			continue
		}
		if !slices.Contains(kinds, e.attr("type")) {
			t.Errorf("%s of the type %q", e.XMLName.Local, e.attr("type"))
		}
		if port, err := strconv.Atoi(e.text(t, "port")); err != nil || port < 1 || port > 65535 {
			t.Errorf("port %q", e.text(t, "port"))
		}
		if !slices.Contains([]string{"plain", "SSL", "STARTTLS"}, e.text(t, "socketType")) || e.text(t, "socketType") == "plain" {
			t.Errorf("socketType %q", e.text(t, "socketType"))
		}
		if !slices.Contains([]string{"password-cleartext", "password-encrypted", "NTLM", "GSSAPI", "client-IP-address", "TLS-client-cert", "OAuth2", "none"}, e.text(t, "authentication")) {
			t.Errorf("authentication %q", e.text(t, "authentication"))
		}
		if e.text(t, "hostname") == "" || e.text(t, "username") != "%EMAILADDRESS%" {
			t.Errorf("hostname %q, username %q", e.text(t, "hostname"), e.text(t, "username"))
		}
	}
	return provider
}

// fetch asks the page's port for HTTP or HTTPS under the name of a host.
func (p *page) fetch(t testing.TB, method, scheme, host, path, body string) (*http.Response, string) {
	t.Helper()
	port := 443
	if scheme == "http" {
		port = 80
	}
	r, err := http.NewRequest(method, fmt.Sprintf("%s://127.0.0.1:%d%s", scheme, port+p.offset, path), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	r.Header.Set("Content-Type", "text/xml")
	answer, err := p.browser(t).stay().client.Transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(text)
}

const wellKnownConfig = "/.well-known/autoconfig/mail/config-v1.1.xml"

func TestAutoconfig(t *testing.T) {
	p := startPage(t)
	var first string
	for _, scheme := range []string{"http", "https"} {
		for _, ask := range []struct{ host, path string }{
			{"autoconfig.home.lan", "/mail/config-v1.1.xml?emailaddress=bob%40home.lan"}, {"autoconfig.home.lan", "/mail/config-v1.1.xml"},
			{"home.lan", wellKnownConfig + "?emailaddress=nobody@home.lan"}, {"home.lan", wellKnownConfig}, {"192.0.2.1", wellKnownConfig},
			{"AUTOCONFIG.HOME.LAN.:80", "/mail/config-v1.1.xml?emailaddress=BOB@HOME.LAN"},
		} {
			answer, text := p.fetch(t, "GET", scheme, ask.host, ask.path, "")
			if answer.StatusCode != 200 || !strings.HasPrefix(answer.Header.Get("Content-Type"), "application/xml") {
				t.Errorf("%s %v: %d %s", scheme, ask, answer.StatusCode, text)
				continue
			}
			if first == "" {
				first = text
			}
			if text != first { // also for whom there is no account
				t.Errorf("%s %v is told something else:\n%s", scheme, ask, text)
			}
		}
	}
	provider := checkClientConfig(t, first)
	if provider.attr("id") != "home.lan" || provider.text(t, "domain") != "home.lan" {
		t.Errorf("for %s", provider.attr("id"))
	}
	var got []string
	for _, s := range append(provider.all("incomingServer"), provider.all("outgoingServer")...) {
		port, _ := strconv.Atoi(s.text(t, "port"))
		got = append(got, fmt.Sprint(s.attr("type"), " ", port-p.offset, " ", s.text(t, "socketType")))
	}
	want := []string{"imap 993 SSL", "imap 143 STARTTLS", "pop3 995 SSL", "pop3 110 STARTTLS", "smtp 465 SSL", "smtp 587 STARTTLS"}
	if !slices.Equal(got, want) {
		t.Errorf("servers %v", got)
	}
}

func TestAutoconfigRefuses(t *testing.T) {
	p := startPage(t)
	for _, address := range []string{"bob@elsewhere.example", "bob", "@home.lan", "bob@home.lan@x", "bob@home.lan\r\nX-Evil: 1", "bob@<x>", "bob@../../etc", strings.Repeat("x", 400) + "@home.lan"} {
		for _, scheme := range []string{"http", "https"} {
			answer, text := p.fetch(t, "GET", scheme, "autoconfig.home.lan", "/mail/config-v1.1.xml?emailaddress="+url.QueryEscape(address), "")
			if answer.StatusCode != 404 || answer.Header.Get("X-Evil") != "" || strings.Contains(text, "clientConfig") {
				t.Errorf("%s %q: %d", scheme, address, answer.StatusCode)
			}
		}
	}
	for _, path := range []string{"/mail/..%2f..%2fetc%2fpasswd", "/mail/config-v1.1.xml/..%2f..%2fx", "/.well-known/autoconfig/mail/..%2fx"} {
		if answer, _ := p.fetch(t, "GET", "https", "autoconfig.home.lan", path, ""); answer.StatusCode != 404 {
			t.Errorf("%s: %d", path, answer.StatusCode)
		}
	}
}

// discoverAsk is the request of Microsoft's documentation, with another address.
func discoverAsk(address, schema string) string {
	return `<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006">
  <Request>
    <EMailAddress>` + address + `</EMailAddress>
    <AcceptableResponseSchema>` + schema + `</AcceptableResponseSchema>
  </Request>
</Autodiscover>`
}

// checkDiscover holds an answer with settings against Microsoft's documentation: the elements and their values.
func checkDiscover(t testing.TB, text string) (account element) {
	t.Helper()
	root := readElement(t, text)
	responses := root.all("Response")
	if (root.XMLName != xml.Name{Space: "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006", Local: "Autodiscover"}) || len(responses) != 1 {
		t.Fatalf("not an answer:\n%s", text)
	}
	if responses[0].XMLName.Space != discoverOutlook || len(responses[0].all("Account")) != 1 {
		t.Fatalf("no settings:\n%s", text)
	}
	account = responses[0].all("Account")[0]
	if account.text(t, "AccountType") != "email" || account.text(t, "Action") != "settings" || len(account.all("Protocol")) == 0 {
		t.Fatalf("no settings of mail:\n%s", text)
	}
	onOff := []string{"on", "off"}
	values := map[string][]string{"Type": {"IMAP", "POP3", "SMTP"}, "Server": nil, "Port": nil, "LoginName": nil, "DomainRequired": onOff, "SPA": onOff, "SSL": onOff,
		"AuthRequired": onOff, "Encryption": {"None", "SSL", "TLS", "Auto"}, "UsePOPAuth": onOff, "SMTPLast": onOff}
	for _, protocol := range account.all("Protocol") {
		for _, e := range protocol.Inner {
			allowed, ok := values[e.XMLName.Local]
			if !ok || allowed != nil && !slices.Contains(allowed, e.Text) || e.Text == "" {
				t.Errorf("%s: %q", e.XMLName.Local, e.Text)
			}
		}
		if smtp := protocol.text(t, "Type") == "SMTP"; !smtp && len(protocol.all("UsePOPAuth"))+len(protocol.all("SMTPLast")) > 0 {
			t.Errorf("what is of SMTP alone stands with %s", protocol.text(t, "Type"))
		}
	}
	return account
}

func TestAutodiscover(t *testing.T) {
	p := startPage(t)
	var first string
	for _, ask := range []struct{ path, address, schema string }{
		{"/autodiscover/autodiscover.xml", "bob@home.lan", discoverOutlook}, {"/Autodiscover/Autodiscover.xml", "bob@home.lan", ""},
		{"/AutoDiscover/AutoDiscover.xml", "nobody@home.lan", discoverOutlook},
	} {
		answer, text := p.fetch(t, "POST", "https", "autodiscover.home.lan", ask.path, discoverAsk(ask.address, ask.schema))
		if answer.StatusCode != 200 || !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/xml") {
			t.Fatalf("%s: %d\n%s", ask.path, answer.StatusCode, text)
		}
		if text = strings.ReplaceAll(text, ask.address, "bob@home.lan"); first == "" {
			first = text
		}
		if text != first {
			t.Errorf("%s is told something else:\n%s", ask.address, text)
		}
	}
	account := checkDiscover(t, first)
	var got []string
	for _, s := range account.all("Protocol") {
		port, _ := strconv.Atoi(s.text(t, "Port"))
		got = append(got, fmt.Sprint(s.text(t, "Type"), " ", port-p.offset, " ", s.text(t, "LoginName"), " ", s.text(t, "SSL")))
	}
	if want := []string{"IMAP 993 bob@home.lan on", "POP3 995 bob@home.lan on", "SMTP 465 bob@home.lan on"}; !slices.Equal(got, want) {
		t.Errorf("servers %v", got)
	}
	// Outlook looks without TLS for where to go, and goes nowhere without it.
	answer, _ := p.fetch(t, "GET", "http", "autodiscover.home.lan", autodiscoverPath, "")
	if want := fmt.Sprintf("https://autodiscover.home.lan:%d%s", 443+p.offset, autodiscoverPath); answer.StatusCode != 302 || answer.Header.Get("Location") != want {
		t.Errorf("without TLS: %d %s", answer.StatusCode, answer.Header.Get("Location"))
	}
	if answer, _ = p.fetch(t, "POST", "http", "autodiscover.home.lan", autodiscoverPath, discoverAsk("bob@home.lan", "")); answer.StatusCode != 403 {
		t.Errorf("POST without TLS: %d", answer.StatusCode)
	}
}

func TestAutodiscoverRefuses(t *testing.T) {
	p := startPage(t)
	usual := discoverAsk("bob@home.lan", discoverOutlook)
	for name, test := range map[string]struct {
		body string
		code string
	}{
		"foreign domain":  {discoverAsk("bob@elsewhere.example", discoverOutlook), "500"},
		"ActiveSync":      {discoverAsk("bob@home.lan", "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/responseschema/2006"), "601"},
		"nothing":         {"", "600"},
		"no XML":          {"hello", "600"},
		"cut off":         {usual[:len(usual)-10], "600"},
		"no address":      {discoverAsk("", discoverOutlook), "600"},
		"no such address": {discoverAsk("bob", discoverOutlook), "600"},
		"lines":           {discoverAsk("bob@home.lan\r\nX: y", discoverOutlook), "600"},
		"two requests":    {strings.Replace(usual, "</Autodiscover>", "<Request><EMailAddress>bob@home.lan</EMailAddress></Request></Autodiscover>", 1), "600"},
		"entities": {strings.Replace(strings.Replace(usual, "<Autodiscover", "<!DOCTYPE x [<!ENTITY a \"bob@home.lan\"><!ENTITY b SYSTEM \"file:///etc/passwd\">]>\n<Autodiscover", 1),
			"bob@home.lan</E", "&b;</E", 1), "600"},
		"unknown entity": {strings.Replace(usual, "bob@home.lan", "&bob;@home.lan", 1), "600"},
		"too deep":       {strings.Repeat("<a>", 9) + strings.Repeat("</a>", 9), "600"},
		"too long":       {strings.Replace(usual, "bob@", strings.Repeat("b", autodiscoverMost)+"@", 1), "600"},
		"elsewhere":      {"<Autodiscover><Other><EMailAddress>bob@home.lan</EMailAddress></Other></Autodiscover>", "600"},
	} {
		answer, text := p.fetch(t, "POST", "https", "home.lan", autodiscoverPath, test.body)
		root := readElement(t, text)
		if answer.StatusCode != 200 || len(root.all("Response")) != 1 || len(root.Inner[0].all("Error")) != 1 {
			t.Errorf("%s: %d\n%s", name, answer.StatusCode, text)
			continue
		}
		refusal := root.Inner[0].Inner[0]
		if got := refusal.text(t, "ErrorCode"); got != test.code || refusal.text(t, "Message") == "" || refusal.attr("Time") == "" || refusal.attr("Id") == "" {
			t.Errorf("%s: code %s in\n%s", name, got, text)
		}
		if strings.Contains(text, "root:") {
			t.Errorf("%s: a file is in the answer", name)
		}
	}
}

func TestAutodiscoverJSON(t *testing.T) {
	p := startPage(t)
	for _, test := range []struct {
		path   string
		status int
		key    string
		value  string
	}{
		{"?Email=bob@home.lan&Protocol=AutodiscoverV1", 200, "Url", fmt.Sprintf("https://%s:%d/autodiscover/autodiscover.xml", p.hostname(t), 443+p.offset)},
		{"/v1.0/nobody@home.lan?protocol=autodiscoverv1", 200, "Protocol", "AutodiscoverV1"},
		{"?Email=bob@home.lan&Protocol=ActiveSync", 400, "ErrorCode", "InvalidProtocol"},
		{"?Protocol=" + url.QueryEscape("\r\nX-Evil: 1\"}"), 400, "ErrorCode", "InvalidProtocol"},
		{"/v1.0/bob@home.lan", 400, "ErrorCode", "MandatoryParameterMissing"},
	} {
		answer, text := p.fetch(t, "GET", "https", "autodiscover.home.lan", "/autodiscover/autodiscover.json"+test.path, "")
		got := map[string]string{}
		if err := json.NewDecoder(bytes.NewReader([]byte(text))).Decode(&got); err != nil || answer.StatusCode != test.status || got[test.key] != test.value || len(got) != 2 {
			t.Errorf("%s: %d %s %v", test.path, answer.StatusCode, text, err)
		}
		if answer.Header.Get("X-Evil") != "" {
			t.Errorf("%s: a line more in the header", test.path)
		}
	}
}
