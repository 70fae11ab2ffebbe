package main

import (
	"errors"
	"fmt"
	"slices"
)

// onCollect carries out an order about accounts elsewhere.
func (ad *admin) onCollect(verb string, o order) (a answer, known bool, err error) {
	if ad.collector == nil {
		return answer{}, false, nil
	}
	if o.Source != nil {
		o.Source.Account, o.Source.Password = ad.accounts.Complete(o.Source.Account), o.Password
	} else if verb == "check" || verb == "add" {
		return answer{}, true, errors.New("the order names no account to collect from")
	}
	switch verb {
	case "check":
		var before CollectSource
		if before, err = ad.collector.Check(o.Source, o.Change); err == nil {
			a.Address = o.Source.Account
			a.Sources = []CollectReport{{CollectSource: *o.Source}}
			a.Deletes = before.Keep && !o.Source.Keep
		}
	case "add":
		a.Address = o.Source.Account
		if a.Changed, err = ad.collector.Add(*o.Source, o.Change); err == nil && !a.Changed {
			a.Outside, err = ad.sendToo(o.Source)
		}
	case "remove":
		var s CollectSource
		s, err = ad.collector.Remove(o.Address, o.Host, o.Login)
		a.Sources = []CollectReport{{CollectSource: s}}
	case "now":
		a.Count, a.Running, err = ad.collector.LookNow(o.Address, o.Host, o.Login)
	case "list":
		a.Sources, err = ad.collector.List(o.Address)
	default:
		return answer{}, false, nil
	}
	return a, true, err
}

// sendToo lets a person send with the address elsewhere that their mail is collected from, if the login is one: a password
// that has worked shows that the mailbox is theirs, and whoever reads mail wants to answer it. The order comes from the owner
// of the data folder, who may give anybody any address: which server a login was tried at does not matter.
func (ad *admin) sendToo(s *CollectSource) ([]OutsideReport, error) {
	address, err := outsideAddress(s.Login)
	if err != nil || ad.accounts.IsLocalDomain(domainOf(address)) {
		return nil, nil // a login need not be an address
	}
	user, err := ad.accounts.User(s.Account)
	if err != nil {
		return nil, err
	}
	report := ad.outsideReport(OutsideAddress{user.Address, address})
	if report.New = !slices.Contains(user.SendAs, address); report.New {
		if _, err := ad.accounts.AddOutside(user.Address, address); err != nil {
			return nil, fmt.Errorf("the mail is collected, but nobody can send with %s: %w", address, err)
		}
	}
	return []OutsideReport{report}, nil
}
