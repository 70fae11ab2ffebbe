package main

import "errors"

// onAway carries out an order about the out-of-office note of a person; each answers with the account as it is then.
func (ad *admin) onAway(verb string, o order) (a answer, known bool, err error) {
	var user User
	switch verb {
	case "show":
		user, err = ad.accounts.User(o.Address)
	case "set":
		if o.Away == nil {
			return answer{}, true, errors.New("the order has no out-of-office note")
		}
		user, err = ad.accounts.SetAway(o.Address, o.Away)
	case "off":
		user, err = ad.accounts.SetAway(o.Address, nil)
	default:
		return answer{}, false, nil
	}
	if err == nil && verb != "show" {
		ad.log.Info("out-of-office note changed", "account", user.Address, "on", user.Away != nil)
	}
	return answer{Address: user.Address, Users: []User{user}}, true, err
}
