package main

import (
	"slices"
	"strings"
)

// Other addresses: aliases, groups, and what becomes of mail to addresses that nobody has.

func addressRoutes() []webRoute {
	page := (*webRequest).addresses
	return []webRoute{
		{pattern: "GET /addresses", who: forOwner, do: page},
		{pattern: "POST /addresses", who: forOwner, do: (*webRequest).addAddress, again: page},
		{pattern: "POST /addresses/remove", who: forOwner, do: (*webRequest).removeAddress, again: page},
		{pattern: "POST /addresses/rest", who: forOwner, do: (*webRequest).setRest, again: page},
	}
}

// addressData is what addresses.html shows.
type addressData struct {
	Aliases []Alias
	People  []string
	Rests   []webRest
	Domain  string
}

// webRest is who gets the mail of a domain that is for nobody else.
type webRest struct{ Domain, To string }

func (q *webRequest) addresses() error {
	data := addressData{People: q.Accounts.Addresses(), Domain: q.Accounts.DefaultDomain()}
	rests := map[string]string{}
	for _, alias := range q.Accounts.Aliases() {
		if domain, rest := strings.CutPrefix(alias.Address, "@"); rest {
			rests[domain] = strings.Join(alias.To, " ")
		} else {
			data.Aliases = append(data.Aliases, alias)
		}
	}
	for _, domain := range q.Accounts.Domains() {
		data.Rests = append(data.Rests, webRest{domain, rests[domain]})
	}
	return q.show("addresses", data)
}

// addAddress makes an alias or a group, or lets one reach more people.
func (q *webRequest) addAddress() error {
	address, err := q.typedAddress("address")
	to := q.r.PostForm["to"]
	switch {
	case err != nil:
		return err
	case q.Accounts.Exists(address):
		return q.wrong("error.taken", address)
	case len(to) == 0:
		return q.wrong("addresses.nobody")
	case !q.arePeople(to):
		return errWebStale
	}
	a, err := q.order(order{Do: "alias add", Address: address, To: to})
	if err != nil {
		return err
	}
	q.note("alias", a.Address, "to", strings.Join(to, " "))
	return q.doneWith("/addresses", webNotice{Key: "addresses.added", Args: []any{a.Address, strings.Join(a.Aliases[0].To, ", ")}, Domain: a.NewDomain})
}

// arePeople says whether all of these have an account.
func (q *webRequest) arePeople(addresses []string) bool {
	return !slices.ContainsFunc(addresses, func(address string) bool { return !q.Accounts.Exists(address) })
}

// removeAddress takes one out of an alias, or removes all of it.
func (q *webRequest) removeAddress() error {
	address, to := q.field("address"), q.field("to")
	i := slices.IndexFunc(q.Accounts.Aliases(), func(a Alias) bool { return a.Address == address && (to == "" || slices.Contains(a.To, to)) })
	if i < 0 {
		return errWebStale
	}
	o := order{Do: "alias remove", Address: address}
	if to != "" {
		o.To = []string{to}
	}
	if _, err := q.order(o); err != nil {
		return err
	}
	q.note("alias", address, "to", to)
	if to != "" {
		return q.done("/addresses", "addresses.left", address, to)
	}
	return q.done("/addresses", "addresses.removed", address)
}

// setRest says who gets the mail of a domain that is for nobody else.
func (q *webRequest) setRest() error {
	domain, to := q.field("domain"), q.field("to")
	if !q.Accounts.IsLocalDomain(domain) || to != "" && !q.Accounts.Exists(to) {
		return errWebStale
	}
	address := "@" + domain
	if to != "" { // first, so that no mail is refused in between
		if _, err := q.order(order{Do: "alias add", Address: address, To: []string{to}}); err != nil {
			return err
		}
	}
	for _, alias := range q.Accounts.Aliases() {
		before := slices.DeleteFunc(slices.Clone(alias.To), func(t string) bool { return t == to })
		if alias.Address != address || len(before) == 0 {
			continue
		}
		if _, err := q.order(order{Do: "alias remove", Address: address, To: before}); err != nil {
			return err
		}
	}
	q.note("alias", address, "to", to)
	if to == "" {
		return q.done("/addresses", "addresses.no_rest", domain)
	}
	return q.done("/addresses", "addresses.rest_set", domain, to)
}
