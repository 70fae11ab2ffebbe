package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// relayPatience is how long the trial of a relay may take; the command that waits has controlTimeout.
const relayPatience = 25 * time.Second

// onRelay carries out an order about the relays.
func (ad *admin) onRelay(verb string, o order) (a answer, known bool, err error) {
	switch verb {
	case "set":
		a, err = ad.setRelay(o)
	case "remove":
		if o.Relay == nil {
			return answer{}, false, nil
		}
		if err = ad.relays.Remove(o.Relay.Domain); err == nil {
			ad.log.Info("relay removed", "domain", o.Relay.Domain)
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
	if o.Relay == nil {
		return answer{}, errors.New("an order to set a relay names none")
	}
	want := *o.Relay
	want.Password = o.Password
	if err := ad.checkRelay(want); err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), relayPatience)
	defer cancel()
	found, err := ad.sender.FindRelay(ctx, Relay{Host: want.Host, Port: want.Port, User: want.User, Password: want.Password, From: want.From}, ad.sampleSender(want.Domain))
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
	ad.log.Info("relay set", "domain", want.Domain, "server", want.where(), "tls", want.TLS, "user", want.User, "from", want.From)
	waiting, err := ad.retryAll()
	return answer{Relays: []RelaySetting{want}, Count: waiting}, err
}

// checkRelay says what is wrong with a relay before anybody is asked.
func (ad *admin) checkRelay(want RelaySetting) error {
	if want.Port == 0 {
		want.Port = 465
	}
	want.TLS = tlsImplicit
	if _, err := want.check(); err != nil {
		return err
	}
	if want.Domain != "" && !ad.accounts.IsLocalDomain(want.Domain) {
		return fmt.Errorf("nobody here has an address at %s: a relay of its own is for the senders of a domain of this appliance", want.Domain)
	}
	return nil
}

// sampleSender gives an address that mail goes out from.
func (ad *admin) sampleSender(domain string) string {
	if owner := ad.accounts.Owner(); domain == "" && owner != "" {
		return owner
	}
	if domain == "" {
		domain = ad.accounts.DefaultDomain()
	}
	return "postmaster@" + normalDomain(domain)
}

// retryAll lets all that waits be tried by the way that is right now, and says how many messages that are.
func (ad *admin) retryAll() (int, error) {
	q, err := ad.queue()
	if err != nil {
		return 0, err
	}
	return q.Len(), q.Retry("")
}
