package main

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The people, as the owner sees them: who there is, and all that can be done for one of them.

func peopleRoutes() []webRoute {
	people, person := (*webRequest).people, (*webRequest).personPage
	return []webRoute{
		{pattern: "GET /people", who: forOwner, do: people},
		{pattern: "POST /people", who: forOwner, do: (*webRequest).addPerson, again: people},
		{pattern: "GET /people/{address}", who: forOwner, do: person},
		{pattern: "POST /people/{address}/name", who: forOwner, do: (*webRequest).namePerson, again: person},
		{pattern: "POST /people/{address}/rename", who: forOwner, do: (*webRequest).renamePerson, again: person},
		{pattern: "POST /people/{address}/quota", who: forOwner, do: (*webRequest).limitPerson, again: person},
		{pattern: "POST /people/{address}/link", who: forOwner, do: (*webRequest).linkPerson, again: person},
		{pattern: "POST /people/{address}/disable", who: forOwner, do: (*webRequest).disablePerson, again: person},
		{pattern: "POST /people/{address}/enable", who: forOwner, do: (*webRequest).enablePerson, again: person},
		{pattern: "POST /people/{address}/forward/off", who: forOwner, do: (*webRequest).endPersonsForward, again: person},
		{pattern: "POST /people/{address}/app", who: forOwner, do: (*webRequest).addPersonsApp, again: person},
		{pattern: "POST /people/{address}/app/remove", who: forOwner, do: (*webRequest).removePersonsApp, again: person},
		{pattern: "POST /people/{address}/sender", who: forOwner, do: (*webRequest).addSender, again: person},
		{pattern: "POST /people/{address}/sender/remove", who: forOwner, do: (*webRequest).removeSender, again: person},
		{pattern: "GET /people/{address}/remove", who: forOwner, do: (*webRequest).removePage},
		{pattern: "POST /people/{address}/remove", who: forOwner, do: (*webRequest).removePerson, again: (*webRequest).removePage},
	}
}

// webPerson is what the pages show of one person.
type webPerson struct {
	Address, Name   string
	Owner, Disabled bool
	Factor          bool  // the page asks for a second one
	Used, Limit     int64 // bytes; Limit 0: none
	Messages        int64
	Quota           string // as it is typed
	Share           int    // of the bar, in percent
	Full            bool   // nearly all of the limit is used
	Last            time.Time
	Logins          []webLoginTime
	Apps            []webApp
	Aliases         []string // that reach this person, and perhaps others
	Forward         []string // where the mail goes on to
	Senders         []string // addresses elsewhere that this person sends with
	Path            string
}

// webLoginTime is when somebody has logged in last by one protocol.
type webLoginTime struct {
	Protocol string
	At       time.Time
}

// webApp is one app password.
type webApp struct {
	Name          string
	Created, Used time.Time
}

// person gathers what is shown of somebody.
func (q *webRequest) person(u *User) (webPerson, error) {
	p := webPerson{Address: u.Address, Name: u.Name, Owner: u.Address == q.Accounts.Owner(), Disabled: u.Disabled, Factor: u.TOTP != "", Quota: u.Quota, Forward: u.Forward, Senders: u.SendAs, Path: personPath(u.Address)}
	last := q.Accounts.LastLogins(u.Address)
	for protocol, at := range last.Protocols {
		p.Logins = append(p.Logins, webLoginTime{protocol, at})
		if at.After(p.Last) {
			p.Last = at
		}
	}
	sortFunc(p.Logins, func(a, b webLoginTime) int { return cmp.Compare(a.Protocol, b.Protocol) })
	for _, app := range u.Apps {
		p.Apps = append(p.Apps, webApp{app.Name, app.Created, last.Apps[app.Name]})
	}
	for _, alias := range q.Accounts.Aliases() {
		if slices.Contains(alias.To, u.Address) {
			p.Aliases = append(p.Aliases, alias.Address)
		}
	}
	a, err := q.order(order{Do: "user quota", Address: u.Address})
	if err != nil {
		return p, err
	}
	p.Used, p.Messages, p.Limit = a.Used.Bytes, a.Used.Messages, a.Limit.Bytes
	p.Share = share(p.Used, p.Limit)
	p.Full = p.Share >= nearlyFull
	return p, nil
}

// nearlyFull is the share of the limit, in percent, from which on a bar warns.
const nearlyFull = 90

// share gives how much of all something is, in percent; something is at least one, and 0 of all is nothing.
func share(part, all int64) int {
	if all <= 0 || part <= 0 {
		return 0
	}
	return int(max(1, min(100, part*100/all)))
}

// Heading is that of the page about a person.
func (p webPerson) Heading() string { return p.Address }

func personPath(address string) string { return "/people/" + url.PathEscape(address) }

// peopleData is what people.html shows.
type peopleData struct {
	People []webPerson
	Domain string
}

func (q *webRequest) people() error {
	data := peopleData{Domain: q.Accounts.DefaultDomain()}
	users := q.Accounts.Users()
	var most int64
	for i := range users {
		p, err := q.person(&users[i])
		if err != nil {
			return err
		}
		most = max(most, p.Used)
		data.People = append(data.People, p)
	}
	for i := range data.People {
		if p := &data.People[i]; p.Limit == 0 { // without a limit, the bars compare the people
			p.Share = share(p.Used, most)
		}
	}
	return q.show("people", data)
}

// typedAddress gives the address that a field holds, where it can be an account's; a name alone gets the default domain.
func (q *webRequest) typedAddress(field string) (string, error) {
	typed := q.Accounts.Complete(q.field(field))
	address, err := accountAddress(typed)
	if err != nil {
		return "", q.wrong("error.address", typed)
	}
	return address, q.notAProviders(address)
}

// freeAddress is typedAddress of one that nobody has.
func (q *webRequest) freeAddress(field string) (string, error) {
	address, err := q.typedAddress(field)
	if err == nil && q.Accounts.Exists(address) {
		err = q.wrong("error.taken", address)
	}
	return address, err
}

// notAnAlias says that an address reaches others already than this account alone, "" for nobody.
func (q *webRequest) notAnAlias(address, account string) error {
	for _, alias := range q.Accounts.Aliases() {
		if alias.Address == address && !slices.Equal(alias.To, []string{account}) {
			return q.wrong("error.alias", address)
		}
	}
	return nil
}

// notAProviders says in the reader's language that no address of a provider's domain can be had here.
func (q *webRequest) notAProviders(address string) error {
	if domain := domainOf(address); isProvider(domain) && !q.Accounts.IsLocalDomain(domain) {
		return q.wrong("error.provider", domain)
	}
	return nil
}

func (q *webRequest) addPerson() error {
	address, err := q.freeAddress("address")
	if err != nil {
		return err
	}
	if err := q.notAnAlias(address, ""); err != nil {
		return err
	}
	password := q.r.PostForm.Get("password")
	if password != "" && checkNewPassword(password) != nil {
		return q.wrong("error.password", minPassword)
	}
	if checkPersonName(q.field("name")) != nil {
		return q.wrong("error.name")
	}
	a, err := q.order(order{Do: "user add", Address: address, Name: q.field("name"), Password: password})
	if err != nil {
		return err
	}
	q.note("address", address)
	notice := webNotice{Key: "people.added", Args: []any{address}, Secret: a.Password, Domain: a.NewDomain}
	if a.Password != "" {
		notice.Key = "people.added_password"
	}
	return q.doneWith("/people", notice)
}

// chosen gives the person that the address of the page names.
func (q *webRequest) chosen() (User, error) {
	u, err := q.Accounts.User(q.r.PathValue("address"))
	if err != nil {
		return User{}, errWebMissing
	}
	return u, nil
}

func (q *webRequest) personPage() error { return q.showPerson("person") }

// showPerson shows a page about the person that its address names.
func (q *webRequest) showPerson(page string) error {
	u, err := q.chosen()
	if err != nil {
		return err
	}
	p, err := q.person(&u)
	if err != nil {
		return err
	}
	return q.show(page, p)
}

// onPerson carries out an order for the person that the page is about, and tells that on the page.
func (q *webRequest) onPerson(o order, key string) error {
	u, err := q.chosen()
	if err != nil {
		return err
	}
	o.Address = u.Address
	if _, err := q.order(o); err != nil {
		return err
	}
	q.note("address", u.Address)
	return q.done(personPath(u.Address), key, u.Address)
}

func (q *webRequest) namePerson() error {
	if checkPersonName(q.field("name")) != nil {
		return q.wrong("error.name")
	}
	return q.onPerson(order{Do: "user name", Name: q.field("name")}, "person.named")
}

func (q *webRequest) renamePerson() error {
	u, err := q.chosen()
	if err != nil {
		return err
	}
	to, err := q.freeAddress("to")
	if err == nil {
		err = q.notAnAlias(to, u.Address)
	}
	if err != nil {
		return err
	}
	a, err := q.order(order{Do: "user rename", Address: u.Address, To: []string{to}})
	if err != nil {
		return err
	}
	q.note("address", u.Address, "to", to)
	if u.Address == q.user.Address { // the session was one of the old address
		if u, err = q.Accounts.User(to); err != nil {
			return err
		}
		q.begin(&u, false)
	}
	return q.doneWith(personPath(to), webNotice{Key: "person.renamed", Args: []any{to}, Domain: a.NewDomain})
}

func (q *webRequest) limitPerson() error {
	var bytes int64
	if typed := q.field("quota"); typed != "" {
		var err error
		if bytes, err = parseSize(typed); err != nil {
			return q.wrong("person.bad_quota", typed)
		}
	}
	key := "person.limited"
	if bytes == 0 {
		key = "person.unlimited"
	}
	return q.onPerson(order{Do: "user quota", Quota: QuotaChange{Bytes: &bytes}}, key)
}

func (q *webRequest) disablePerson() error {
	return q.onPerson(order{Do: "user disable"}, "person.disabled_now")
}

func (q *webRequest) enablePerson() error {
	return q.onPerson(order{Do: "user enable"}, "person.enabled_now")
}

// endPersonsForward lets the mail of somebody stay here. Whoever has been in their account may have let it go on; to allow no logins
// does not end that.
func (q *webRequest) endPersonsForward() error {
	return q.onPerson(order{Do: "user forward off"}, "person.forward_ended")
}

// linkPerson makes a link by which somebody chooses a new password, once.
func (q *webRequest) linkPerson() error {
	u, err := q.chosen()
	if err != nil {
		return err
	}
	a, err := q.order(order{Do: "user reset-link", Address: u.Address})
	if err != nil {
		return err
	}
	q.note("address", u.Address)
	link := q.here("/reset") + strings.TrimPrefix(resetPath(a.Password), "/reset") // as the owner's browser finds this machine
	return q.doneWith(personPath(u.Address), webNotice{Key: "person.linked", Args: []any{u.Address, int(codeReset.keeps() / time.Hour)}, Secret: link})
}

func (q *webRequest) addPersonsApp() error {
	u, err := q.chosen()
	if err != nil {
		return err
	}
	return q.addApp(&u, personPath(u.Address))
}

// addApp makes an app password and shows it, once.
func (q *webRequest) addApp(u *User, path string) error {
	name := q.field("app")
	switch {
	case checkAppName(name) != nil:
		return q.wrong("apps.bad_name")
	case u.app(name) >= 0:
		return q.wrong("apps.taken", name)
	}
	a, err := q.order(order{Do: "user app-password add", Address: u.Address, Name: name})
	if err != nil {
		return err
	}
	q.note("address", u.Address, "app", name)
	return q.doneWith(path, webNotice{Key: "apps.added", Args: []any{name, u.Address}, Secret: a.Password})
}

func (q *webRequest) removePersonsApp() error {
	u, err := q.chosen()
	if err != nil {
		return err
	}
	return q.removeApp(&u, personPath(u.Address))
}

func (q *webRequest) removeApp(u *User, path string) error {
	name := q.field("app")
	if u.app(name) < 0 {
		return q.wrong("apps.none", name)
	}
	if _, err := q.order(order{Do: "user app-password remove", Address: u.Address, Name: name}); err != nil {
		return err
	}
	q.note("address", u.Address, "app", name)
	return q.done(path, "apps.removed", name)
}

func (q *webRequest) removePage() error { return q.showPerson("remove") }

// removePerson wants the address typed once more: it cannot be taken back with a click.
func (q *webRequest) removePerson() error {
	u, err := q.chosen()
	switch {
	case err != nil:
		return err
	case u.Address == q.Accounts.Owner():
		return q.wrong("remove.owner")
	case q.Accounts.Find(q.field("address")) != u.Address:
		return q.wrong("remove.other", u.Address)
	}
	a, err := q.order(order{Do: "user remove", Address: u.Address})
	if err != nil {
		return err
	}
	q.note("address", u.Address)
	if a.Path == "" {
		return q.done("/people", "remove.done_empty", u.Address)
	}
	return q.done("/people", "remove.done", u.Address, a.Path)
}

// Protocol gives the words for a protocol.
func (v *webView) Protocol(name string) string {
	switch name {
	case "imap":
		return v.T("protocol.imap")
	case "pop3":
		return v.T("protocol.pop3")
	case "smtp", "submission":
		return v.T("protocol.smtp")
	case "web":
		return v.T("protocol.web")
	}
	return name
}

// Size writes a number of bytes as people do.
func (v *webView) Size(bytes int64) string {
	text := roundSize(bytes)
	number, unit := text[:len(text)-1], text[len(text)-1:]
	return fmt.Sprintf("%s %sB", strings.Replace(number, ".", v.T("format.point"), 1), unit)
}
