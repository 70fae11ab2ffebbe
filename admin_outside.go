package main

import (
	"net"
	"strconv"
)

// OutsideReport is an address elsewhere that somebody sends with, and by which relay that mail goes.
type OutsideReport struct {
	OutsideAddress
	Relay string `json:"relay,omitempty"` // HOST:PORT, "": none takes it
	New   bool   `json:"new,omitempty"`   // the order has given it to the person, who has not asked for that
}

// onOutside carries out an order about addresses elsewhere.
func (ad *admin) onOutside(verb string, o order) (a answer, known bool, err error) {
	change := ad.accounts.AddOutside
	switch verb {
	case "add":
	case "remove":
		change = ad.accounts.RemoveOutside
	case "list":
		for _, outside := range ad.accounts.Outside() {
			a.Outside = append(a.Outside, ad.outsideReport(outside))
		}
		return a, true, nil
	default:
		return answer{}, false, nil
	}
	user, err := ad.accounts.User(o.Address)
	if err != nil {
		return answer{}, true, err
	}
	address, err := change(user.Address, o.Outside)
	if err != nil {
		return answer{}, true, err
	}
	a.Outside = []OutsideReport{ad.outsideReport(OutsideAddress{user.Address, address})}
	if verb == "remove" {
		a.Relays, err = ad.forgetRelays()
	}
	return a, true, err
}

func (ad *admin) outsideReport(outside OutsideAddress) OutsideReport {
	report := OutsideReport{OutsideAddress: outside}
	if relay := ad.relays.For(outside.Address); relay != nil {
		report.Relay = net.JoinHostPort(relay.Host, strconv.Itoa(relay.Port))
	}
	return report
}

// forgetRelays takes out the relays of addresses that nobody sends with any more: their passwords shall not stay.
func (ad *admin) forgetRelays() ([]RelaySetting, error) {
	if ad.relays == nil {
		return nil, nil
	}
	gone, err := ad.relays.Keep(func(scope string) bool { return !isAddress(scope) || ad.sends(scope) })
	for i := range gone {
		ad.log.Info("relay removed", "for", gone[i].For, "server", gone[i].where())
	}
	return gone, err
}

// sends says whether somebody here can send with an address.
func (ad *admin) sends(address string) bool {
	addr, err := ParseAddress(address)
	if err != nil {
		return false
	}
	if ad.accounts.IsLocalDomain(addr.Domain) {
		_, err = ad.accounts.Resolve(addr)
		return err == nil
	}
	return len(ad.accounts.OutsideOf(address)) > 0
}
