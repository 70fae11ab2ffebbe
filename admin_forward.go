package main

import "strings"

// onForward carries out an order about where the mail of a person goes on to; each answers with the account as it is then.
func (ad *admin) onForward(verb string, o order) (a answer, known bool, err error) {
	var user User
	switch verb {
	case "show":
		user, err = ad.accounts.User(o.Address)
	case "set":
		user, err = ad.accounts.SetForward(o.Address, o.To, o.NoCopy)
	case "off":
		user, err = ad.accounts.SetForward(o.Address, nil, false)
	default:
		return answer{}, false, nil
	}
	if err == nil && verb != "show" {
		ad.log.Info("forwarding changed", "account", user.Address, "to", strings.Join(user.Forward, " "), "copy", !user.ForwardOnly)
	}
	return answer{Address: user.Address, Users: []User{user}}, true, err
}
