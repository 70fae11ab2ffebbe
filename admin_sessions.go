package main

import (
	"cmp"
	"errors"
	"fmt"
)

// openSessions is who is logged in at an appliance that runs.
type openSessions interface {
	Sessions(account string) []MailSession             // of all for ""
	EndSession(account, id string) (MailSession, bool) // of anybody for ""; false where there is none
}

// onSessions carries out an order about who is logged in.
func (ad *admin) onSessions(verb string, o order) (a answer, known bool, err error) {
	if verb != "list" && verb != "end" {
		return answer{}, false, nil
	}
	if len(ad.sessions) == 0 {
		return answer{}, true, errors.New("the appliance does not run: nobody is logged in")
	}
	if o.Address != "" {
		user, err := ad.accounts.User(o.Address)
		if err != nil {
			return answer{}, true, err
		}
		o.Address = user.Address
	}
	if verb == "end" {
		for _, open := range ad.sessions {
			if s, ok := open.EndSession(o.Address, o.ID); ok {
				ad.log.Info("session ended", "id", s.ID, "account", s.Account, "protocol", s.Protocol, "remote", s.Remote.String())
				return answer{Address: s.Account, Sessions: []MailSession{s}}, true, nil
			}
		}
		return answer{}, true, fmt.Errorf("there is no session %s; it may be over: see `appliance sessions`", o.ID)
	}
	for _, open := range ad.sessions {
		a.Sessions = append(a.Sessions, open.Sessions(o.Address)...)
	}
	sortFunc(a.Sessions, func(a, b MailSession) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), b.Since.Compare(a.Since))
	})
	return a, true, nil
}
