package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// relayPatience is how long the trial of a relay may take; the command that waits has controlTimeout.
const relayPatience = 25 * time.Second

// onRelay carries out an order about the relays.
func (ad *admin) onRelay(verb string, o order) (a answer, known bool, err error) {
	switch verb {
	case "check": // before a password is asked for
		o.Password = "asked for later"
		_, err = ad.checkRelay(o)
	case "set":
		a, err = ad.setRelay(o)
	case "remove":
		if o.Relay == nil {
			return answer{}, false, nil
		}
		if err = ad.relays.Remove(o.Relay.For); err == nil {
			ad.log.Info("relay removed", "for", o.Relay.For)
			a.Count, err = ad.retryAll()
		}
	case "list":
		a.Relays = ad.relays.List()
	default:
		return answer{}, false, nil
	}
	return a, true, err
}

// setRelay tries a relay, stores it, and lets what waits go by it.
func (ad *admin) setRelay(o order) (answer, error) {
	want, err := ad.checkRelay(o)
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), relayPatience)
	defer cancel()
	found, err := ad.sender.FindRelay(ctx, Relay{Host: want.Host, Port: want.Port, User: want.User, Password: want.Password, From: want.From}, ad.sampleSender(&want))
	if err != nil {
		return answer{}, fmt.Errorf("nothing is changed: %w", err)
	}
	want.Port, want.From, want.TLS = found.Port, found.From, tlsStart
	if found.Implicit {
		want.TLS = tlsImplicit
	}
	if err := ad.relays.Set(want); err != nil {
		return answer{}, err
	}
	ad.log.Info("relay set", "for", want.For, "server", want.where(), "tls", want.TLS, "user", want.User, "from", want.From)
	waiting, err := ad.retryAll()
	a := answer{Relays: []RelaySetting{want}, Count: waiting}
	for _, outside := range ad.accounts.OutsideOf(want.For) {
		a.Outside = append(a.Outside, OutsideReport{OutsideAddress: outside})
	}
	return a, err
}

// checkRelay gives the relay that an order means, in its normal form, or says what is wrong before anybody is asked. Port and
// TLS may still have to be found.
func (ad *admin) checkRelay(o order) (RelaySetting, error) {
	if o.Relay == nil {
		return RelaySetting{}, errors.New("an order to set a relay names none")
	}
	want := *o.Relay
	want.Password, want.TLS, want.Port = o.Password, tlsImplicit, cmp.Or(want.Port, 465)
	_, err := want.check()
	want.TLS, want.Port = "", o.Relay.Port
	switch {
	case err != nil || want.For == "" || ad.sampleSender(&want) != "":
		return want, err
	case !isAddress(want.For):
		err = fmt.Errorf("nobody here has an address at %s: `appliance user sender add USER ADDRESS` lets somebody send with one elsewhere", want.For)
	case ad.accounts.IsLocalDomain(domainOf(want.For)):
		err = fmt.Errorf("nobody here has the address %s", want.For)
	default:
		err = fmt.Errorf("nobody here can send with %s: `appliance user sender add USER %s` lets somebody", want.For, want.For)
	}
	return want, err
}

// sampleSender gives an address that mail goes out from by a relay, "" where there is none.
func (ad *admin) sampleSender(r *RelaySetting) string {
	switch scope := r.For; {
	case scope == "":
		if owner := ad.accounts.Owner(); owner != "" {
			return owner
		}
		return "postmaster@" + ad.accounts.DefaultDomain()
	case isAddress(scope):
		if ad.sends(scope) {
			return scope
		}
		return ""
	case ad.accounts.IsLocalDomain(scope):
		return "postmaster@" + scope
	default:
		return ad.sampleOutside(scope, r.User)
	}
}

// sampleOutside gives an address elsewhere at a domain that somebody sends with; rather the user of the relay than another,
// since a provider may take the others by their own logins alone.
func (ad *admin) sampleOutside(domain, user string) string {
	list := ad.accounts.OutsideOf(domain)
	if len(list) == 0 {
		return ""
	}
	own, _ := outsideAddress(user) // a user may be no address
	if at := slices.IndexFunc(list, func(o OutsideAddress) bool { return o.Address == own }); at >= 0 {
		return own
	}
	return list[0].Address
}

// retryAll lets all that waits be tried by the way that is right now, and says how many messages that are.
func (ad *admin) retryAll() (int, error) {
	q, err := ad.queue()
	if err != nil {
		return 0, err
	}
	return q.Len(), q.Retry("")
}
