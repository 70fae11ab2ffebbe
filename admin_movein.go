package main

import (
	"context"
	"errors"
	"time"
)

// moveFindTime is how long the server of an account elsewhere is looked for while somebody waits on the page.
const moveFindTime = 25 * time.Second

// onMove carries out an order about moving in from an account elsewhere.
func (ad *admin) onMove(verb string, o order) (a answer, known bool, err error) {
	if ad.mover == nil || verb != "start" && verb != "status" && verb != "stop" {
		return answer{}, false, nil
	}
	if o.Address != "" {
		user, err := ad.accounts.User(o.Address)
		if err != nil {
			return answer{}, true, err
		}
		o.Address = user.Address
	}
	switch verb {
	case "start":
		var job MoveJob
		if job, err = ad.startMove(o); err == nil {
			a.Moves = []MoveJob{job}
		}
	case "stop":
		var job MoveJob
		job, err = ad.mover.Stop(o.Address)
		a.Moves = []MoveJob{job}
	case "status":
		a.Moves = ad.mover.Status(o.Address)
	}
	a.Address = o.Address
	return a, true, err
}

// startMove begins a move; a server whose kind of TLS is not known yet is found first.
func (ad *admin) startMove(o order) (MoveJob, error) {
	if o.Source == nil {
		return MoveJob{}, errors.New("the order names no account to move in from")
	}
	server := o.Source.OutsideServer
	server.Password = o.Password
	if server.TLS == "" {
		ctx, cancel := context.WithTimeout(context.Background(), moveFindTime)
		defer cancel()
		var err error
		if server, err = ad.mover.Find(ctx, server); err != nil {
			return MoveJob{}, err
		}
	}
	return ad.mover.Start(o.Address, server)
}
