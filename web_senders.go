package main

import "slices"

// The addresses elsewhere that a person sends with, such as one at a provider.

// addSender lets the person that the page is about send with an address elsewhere.
func (q *webRequest) addSender() error {
	u, err := q.chosen()
	if err != nil {
		return err
	}
	typed := q.field("sender")
	address, err := outsideAddress(typed)
	switch {
	case err != nil:
		return q.wrong("senders.bad", typed)
	case q.Accounts.IsLocalDomain(domainOf(address)):
		return q.wrong("senders.local", address)
	case slices.Contains(u.SendAs, address):
		return q.wrong("senders.twice", address)
	}
	a, err := q.order(order{Do: "user sender add", Address: u.Address, Outside: address})
	if err != nil {
		return err
	}
	q.note("address", u.Address, "sender", address)
	if relay := a.Outside[0].Relay; relay != "" {
		return q.done(personPath(u.Address), "senders.added", u.Address, address, relay)
	}
	return q.done(personPath(u.Address), "senders.added_alone", u.Address, address)
}

// removeSender ends that. A relay that was for this address alone goes with it.
func (q *webRequest) removeSender() error {
	u, err := q.chosen()
	if err != nil {
		return err
	}
	address := q.field("sender")
	if !slices.Contains(u.SendAs, address) {
		return q.wrong("senders.none", address)
	}
	a, err := q.order(order{Do: "user sender remove", Address: u.Address, Outside: address})
	if err != nil {
		return err
	}
	q.note("address", u.Address, "sender", address)
	if len(a.Relays) > 0 {
		return q.done(personPath(u.Address), "senders.removed_relay", u.Address, address)
	}
	return q.done(personPath(u.Address), "senders.removed", u.Address, address)
}
