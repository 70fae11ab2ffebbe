package main

import "errors"

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
		a.Changed, err = ad.collector.Add(*o.Source, o.Change)
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
