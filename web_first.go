package main

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The first visit: whoever has the code that the first start printed, or sits at the machine itself, is the owner, and chooses
// name, address and password.

func firstRoutes() []webRoute {
	return []webRoute{
		{pattern: "GET /welcome", do: (*webRequest).welcomePage},
		{pattern: "POST /welcome", do: (*webRequest).welcome, again: (*webRequest).welcomeForm},
	}
}

// errWebCode says that a code does not work.
var errWebCode = &webRefusal{http.StatusForbidden, "used"}

// firstVisit gives where somebody who is not logged in goes for the first visit; "" where it is not one.
func (q *webRequest) firstVisit() string {
	code := q.r.URL.Query().Get("code")
	switch {
	case q.r.URL.Path != "/":
		return ""
	case code != "":
		return "/welcome?code=" + url.QueryEscape(code)
	case q.atMachine() && q.Codes.Waiting(codeFirst) != "":
		return "/welcome"
	}
	return ""
}

// atMachine says whether the browser runs on this machine: not behind a proxy here, and by a name that leads nowhere else.
func (q *webRequest) atMachine() bool {
	for _, header := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if q.r.Header.Get(header) != "" {
			return false
		}
	}
	host := strings.Trim(hostOfRequest(q.r), "[]")
	address, err := netip.ParseAddr(host)
	named := host == "localhost" || host == q.name() || err == nil && address.IsLoopback()
	return q.remote.IsLoopback() && named
}

// newOwner gives the account of the owner whose first visit this is. A wrong code counts as a failed login.
func (q *webRequest) newOwner(code string) (User, error) {
	if account := q.firstAccount(""); code == "" && account != "" {
		return q.Accounts.User(account)
	}
	return q.userOfCode(codeFirst, code)
}

// firstAccount gives the account that waits for its owner's first visit, for who has the code or needs none; "" for nobody else.
func (q *webRequest) firstAccount(code string) string {
	switch {
	case code != "":
		return q.Codes.Account(codeFirst, code)
	case q.atMachine():
		return q.Codes.Waiting(codeFirst)
	}
	return ""
}

// userOfCode gives the account that a code lets in.
func (q *webRequest) userOfCode(kind codeKind, code string) (User, error) {
	id, err := q.tryLogin(string(kind)+" "+q.remote.String(), code, func() (Identity, error) {
		if account := q.Codes.Account(kind, code); account != "" {
			return Identity{Account: account}, nil
		}
		return Identity{}, ErrBadLogin
	})
	if err != nil {
		return User{}, errWebCode
	}
	u, err := q.Accounts.User(id.Account)
	if err != nil {
		return User{}, errWebCode
	}
	return u, nil
}

// firstData is what welcome.html shows.
type firstData struct {
	Code, Name, Local, Domain, Current, Zone string
	Zones                                    []string
}

func (q *webRequest) welcomePage() error {
	if q.user.Address != "" {
		http.Redirect(q.rw, q.r, "/", http.StatusSeeOther)
		return nil
	}
	code := q.r.URL.Query().Get("code")
	u, err := q.newOwner(code)
	if err != nil {
		return err
	}
	local, domain, _ := strings.Cut(u.Address, "@")
	return q.show("welcome", firstData{Code: code, Name: u.Name, Local: local, Current: domain, Zone: q.zoneName(), Zones: commonZones()})
}

// welcomeForm shows the form again as it was filled in.
func (q *webRequest) welcomeForm() error {
	return q.show("welcome", firstData{Code: q.field("code"), Name: q.field("name"), Local: q.field("local"), Domain: q.field("domain"),
		Current: q.Accounts.DefaultDomain(), Zone: q.field("zone"), Zones: commonZones()})
}

// welcome takes what the owner has chosen. All of it is looked at before anything is changed.
func (q *webRequest) welcome() error {
	u, err := q.newOwner(q.field("code"))
	if err != nil {
		return err
	}
	password, err := q.newPassword()
	if err != nil {
		return err
	}
	domain := q.field("domain")
	if domain == "" {
		_, domain, _ = strings.Cut(u.Address, "@")
	}
	address, err := accountAddress(q.field("local") + "@" + domain)
	if err != nil {
		return q.wrong("error.address", q.field("local")+"@"+domain)
	}
	if err := q.notAProviders(address); err != nil {
		return err
	}
	if checkPersonName(q.field("name")) != nil {
		return q.wrong("error.name")
	}
	if zone := q.field("zone"); zone != "" && checkZone(zone) != nil {
		return q.wrong("welcome.bad_zone", zone)
	}
	q.oneTime.Lock()
	defer q.oneTime.Unlock()
	if q.firstAccount(q.field("code")) != u.Address {
		return errWebCode
	}
	return q.setOwner(u.Address, address, password)
}

// setOwner makes the changes, and logs the owner in.
func (q *webRequest) setOwner(account, address, password string) error {
	if address != account {
		if _, err := q.order(order{Do: "user rename", Address: account, To: []string{address}}); err != nil {
			return err
		}
	}
	if _, err := q.order(order{Do: "user name", Address: address, Name: q.field("name")}); err != nil {
		return err
	}
	if _, err := q.order(order{Do: "user passwd", Address: address, Password: password}); err != nil {
		return err
	}
	if zone := q.field("zone"); zone != "" {
		if err := q.Zone.Set(zone); err != nil {
			return err
		}
	}
	if err := q.Codes.Used(codeFirst, address); err != nil {
		return err
	}
	u, err := q.Accounts.User(address)
	if err != nil {
		return err
	}
	q.begin(&u, false)
	q.note("address", address)
	return q.done("/", "welcome.done", address)
}

// newPassword gives a new password that was typed twice.
func (q *webRequest) newPassword() (string, error) {
	password := q.r.PostForm.Get("password")
	switch {
	case checkNewPassword(password) != nil:
		return "", q.wrong("error.password", minPassword)
	case password != q.r.PostForm.Get("again"):
		return "", q.wrong("error.again")
	}
	return password, nil
}

// zoneName is the name of the zone in which times are told, "" for one that the machine has without a name.
func (w *Web) zoneName() string {
	if name := w.Zone.Location().String(); name != time.Local.String() {
		return name
	}
	return ""
}

// commonZones lists the time zones that are offered. Any other one that exists may be typed.
func commonZones() []string {
	return []string{
		"Africa/Cairo", "Africa/Johannesburg", "Africa/Lagos", "Africa/Nairobi",
		"America/Anchorage", "America/Argentina/Buenos_Aires", "America/Bogota", "America/Chicago", "America/Denver", "America/Halifax",
		"America/Los_Angeles", "America/Mexico_City", "America/New_York", "America/Phoenix", "America/Santiago", "America/Sao_Paulo",
		"America/St_Johns", "America/Toronto", "America/Vancouver",
		"Asia/Bangkok", "Asia/Dhaka", "Asia/Dubai", "Asia/Hong_Kong", "Asia/Jakarta", "Asia/Jerusalem", "Asia/Karachi", "Asia/Kolkata",
		"Asia/Manila", "Asia/Seoul", "Asia/Shanghai", "Asia/Singapore", "Asia/Taipei", "Asia/Tehran", "Asia/Tokyo",
		"Atlantic/Azores", "Atlantic/Canary", "Atlantic/Reykjavik", "Australia/Adelaide", "Australia/Brisbane", "Australia/Perth",
		"Australia/Sydney",
		"Europe/Amsterdam", "Europe/Athens", "Europe/Berlin", "Europe/Brussels", "Europe/Bucharest", "Europe/Budapest",
		"Europe/Copenhagen", "Europe/Dublin", "Europe/Helsinki", "Europe/Istanbul", "Europe/Kyiv", "Europe/Lisbon", "Europe/London",
		"Europe/Luxembourg", "Europe/Madrid", "Europe/Oslo", "Europe/Paris", "Europe/Prague", "Europe/Rome", "Europe/Sofia",
		"Europe/Stockholm", "Europe/Vienna", "Europe/Vilnius", "Europe/Warsaw", "Europe/Zurich",
		"Pacific/Auckland", "Pacific/Honolulu", "UTC",
	}
}

// pageURL gives the address of the page of this machine, "" where the port is not open.
func pageURL(host string, secure int) string {
	switch secure {
	case 0:
		return ""
	case 443:
		return "https://" + host + "/"
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(secure)) + "/"
}
