package main

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"rsc.io/qr"
)

// Connecting a device: a link and its QR code for who is logged in, and what the device finds under it. It gets a password of
// its own, which is listed and revoked with the others.

func connectRoutes() []webRoute {
	return []webRoute{
		{pattern: "GET /connect", who: forPerson, do: (*webRequest).connectPage},
		{pattern: "POST /connect", who: forPerson, do: (*webRequest).connect, again: (*webRequest).connectPage},
		{pattern: "GET /device/{token}", do: (*webRequest).devicePage},
		{pattern: "POST /device/{token}", do: (*webRequest).device, again: (*webRequest).devicePage},
		{pattern: "GET /device/{token}/mail.mobileconfig", do: (*webRequest).profile, raw: true},
		{pattern: "GET /connect/authority.crt", do: (*webRequest).authority, raw: true},
	}
}

// errWebGone says that a link leads nowhere any more.
var errWebGone = &webRefusal{http.StatusGone, "gone"}

// mailAccess is what a mail program asks for.
type mailAccess struct {
	Address   string          // of the account, and the user name
	Host      string          // of all servers
	Local     bool            // only who trusts our authority believes Host
	Addresses string          // of this machine on its network, for what does not find Host; "": everything finds it
	Servers   []webServerLine // with their ports
}

// access tells what mail programs ask for.
func (w *Web) access(address string) mailAccess {
	a := mailAccess{Address: address, Host: w.mailHost(domainOf(address)), Servers: w.servers()}
	if a.Local = !w.Certificates.Trusted(a.Host); a.Local {
		var list []string
		for _, addr := range machineAddresses() {
			if addr.Is4() && addr.IsPrivate() {
				list = append(list, addr.String())
			}
		}
		a.Addresses = strings.Join(list[:min(len(list), 3)], ", ")
	}
	return a
}

// mailHost is the name under which mail programs find this machine: one that everybody trusts, where there is such a one.
func (w *Web) mailHost(domain string) string {
	for _, host := range []string{w.name(), publicHost(w.Host, domain)} {
		if w.Certificates.Trusted(host) {
			return host
		}
	}
	return w.name()
}

// webConnect is what connect.html shows.
type webConnect struct {
	mailAccess
	Device  string
	Link    string // "" before it is made
	Code    webCode
	Minutes int
}

func (q *webRequest) connectPage() error {
	return q.show("connect", webConnect{mailAccess: q.access(q.user.Address)})
}

// connect makes a link. The page with it is the answer: who loads it again gets another one.
func (q *webRequest) connect() error {
	device := q.field("device")
	if checkAppName(device) != nil || strings.ContainsFunc(device, unicode.IsControl) {
		return q.wrong("connect.bad_name")
	}
	token := q.links.add(deviceLink{account: q.user.Address, device: device, proof: passwordProof(&q.user)}, deviceLinkTime)
	data := webConnect{mailAccess: q.access(q.user.Address), Device: device, Link: q.here("/device/" + token), Minutes: int(deviceLinkTime / time.Minute)}
	var err error
	if data.Code, err = drawCode(data.Link); err != nil {
		return err
	}
	q.note("device", device)
	return q.show("connect", data)
}

// here gives the address of a path of ours as another device finds it: under the name by which this browser has found us,
// unless that means the browser's own machine.
func (q *webRequest) here(path string) string {
	host, port := strings.Trim(hostOfRequest(q.r), "[]"), 443
	if _, text, err := net.SplitHostPort(q.r.Host); err == nil {
		port, _ = strconv.Atoi(text) // 0 for what is none
	}
	if ip, err := netip.ParseAddr(host); !isHostName(host) || host == "localhost" || err == nil && ip.IsLoopback() || port < 1 || port > 65535 {
		host, port = q.mailHost(domainOf(q.user.Address)), q.Secure()
	}
	return secureURL(host, port, path)
}

// secureURL puts an address together.
func secureURL(host string, port int, path string) string {
	if port != 443 || strings.Contains(host, ":") {
		host = net.JoinHostPort(host, strconv.Itoa(port))
	}
	return (&url.URL{Scheme: "https", Host: host, Path: path}).String()
}

// webCode is a QR code as a picture: dark modules as one path in a square of Size.
type webCode struct {
	Size int
	Path string
}

// codeMargin is the light border that readers need, in modules (ISO/IEC 18004 §6.3.8).
const codeMargin = 4

// drawCode draws a text as a QR code.
func drawCode(text string) (webCode, error) {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return webCode{}, fmt.Errorf("drawing a QR code: %w", err)
	}
	var path strings.Builder
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			from := x
			for code.Black(x, y) { // outside nothing is
				x++
			}
			if x > from {
				fmt.Fprintf(&path, "M%d %dh%dv1h-%dz", from+codeMargin, y+codeMargin, x-from, x-from)
			}
		}
	}
	return webCode{code.Size + 2*codeMargin, path.String()}, nil
}

// webDevice is what device.html shows.
type webDevice struct {
	mailAccess
	Device   string
	Password string // "" before it is made
}

// deviceLink gives the link of the request, if it still leads to somebody.
func (q *webRequest) deviceLink() (deviceLink, User, error) {
	link, ok := q.links.find(q.r.PathValue("token"))
	if !ok {
		return link, User{}, errWebGone
	}
	u, err := q.Accounts.User(link.account)
	if err != nil || u.Disabled || passwordProof(&u) != link.proof {
		return link, u, errWebGone
	}
	return link, u, nil
}

// devicePage is what the device shows first. Nothing is used up by that: programs look at links before people do.
func (q *webRequest) devicePage() error {
	link, u, err := q.deviceLink()
	if err != nil {
		return err
	}
	return q.show("device", webDevice{mailAccess: q.access(u.Address), Device: link.device})
}

// device gives the device its password: in a profile, or to be typed.
func (q *webRequest) device() error {
	link, u, err := q.deviceLink()
	if err != nil {
		return err
	}
	token := q.r.PathValue("token")
	if _, ok := q.links.take(token); !ok {
		return errWebGone
	}
	name := freeAppName(&u, link.device)
	a, err := q.order(order{Do: "user app-password add", Address: u.Address, Name: name})
	if err != nil {
		q.links.giveBack(token, link)
		return err
	}
	q.note("account", u.Address, "app_password", name)
	access := q.access(u.Address)
	if q.field("kind") != "apple" {
		return q.show("device", webDevice{access, name, a.Password})
	}
	if link.profile, err = q.signedProfile(&u, name, a.Password, &access); err != nil {
		return err
	}
	link.gets = deviceProfileGets
	http.Redirect(q.rw, q.r, "/device/"+q.links.add(link, deviceProfileTime)+"/mail.mobileconfig", http.StatusSeeOther)
	return nil
}

// freeAppName gives a name that no password of the account has yet: that of the device, or with a number.
func freeAppName(u *User, device string) string {
	name := device
	for n := 2; u.app(name) >= 0; n++ {
		number := " " + strconv.Itoa(n)
		name = strings.TrimSpace(strings.ToValidUTF8(device[:min(len(device), maxAppName-len(number))], "")) + number
	}
	return name
}

// signedProfile makes the profile of a device.
func (q *webRequest) signedProfile(u *User, device, password string, access *mailAccess) ([]byte, error) {
	p := mailProfile{
		Address: u.Address, Name: u.Name, Device: device, Password: password, Host: access.Host,
		IMAPS: q.port("imaps"), SMTPS: q.port("submissions"),
		Title: q.words.text("device.profile", u.Address), About: q.words.text("device.profile_about", access.Host, device),
	}
	if access.Local {
		p.Authority = q.Certificates.Authority()
	}
	text, err := p.plist()
	if err != nil {
		return nil, fmt.Errorf("making a profile: %w", err)
	}
	return q.Certificates.SignFor(access.Host, text)
}

// profile gives a profile that was made.
func (q *webRequest) profile() error {
	text, ok := q.links.fetch(q.r.PathValue("token"))
	if !ok {
		return errWebGone
	}
	q.send(profileKind, text)
	return nil
}

// authority gives the certificate that devices are to trust. It is no secret.
func (q *webRequest) authority() error {
	q.send("application/x-x509-ca-cert", q.Certificates.Authority())
	return nil
}

// send answers with a file.
func (q *webRequest) send(kind string, text []byte) {
	q.rw.Header().Set("Content-Type", kind)
	q.rw.WriteHeader(q.status)
	_, _ = q.rw.Write(text) // the client's loss
}
