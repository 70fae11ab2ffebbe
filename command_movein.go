package main

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

func moveCommands() []command {
	return []command{
		{name: "movein start", args: "USER [HOST[:PORT]] LOGIN", min: 2, max: 3, about: "copy all folders of an account elsewhere to here, once",
			more: "The password is asked for, tried, and forgotten when all is here. Nothing is changed over there. Without HOST the\n" +
				"server is found by the domain of LOGIN. It goes on by itself after a cut or a restart.", flags: passwordFlags, run: moveStart},
		{name: "movein status", args: "[USER]", max: 1, about: "show how far it has come", flags: listFlags, run: moveStatus},
		{name: "movein stop", args: "USER", min: 1, max: 1, about: "copy nothing more; what is here stays", flags: dataFlag, run: moveStop},
	}
}

// openMover opens what moves people in. out delivers what it has to tell them, nil where nothing runs.
func (h *house) openMover(out *Outbound, resolver *Resolver, adjust func(*outsideDialer)) *Mover {
	cfg := MoverConfig{Dir: h.data.moves(), Accounts: h.accounts, Store: h.store, Hostname: h.hostname, MaxSize: h.maxSize(), Resolver: resolver, Log: h.log}
	if out != nil {
		cfg.Tell = func(account string, message []byte) error {
			return out.deliver(context.Background(), "", bytes.NewReader(message), []string{account})
		}
	}
	if adjust != nil {
		adjust(&cfg.Dialer)
	}
	return NewMover(cfg)
}

// moveStart tries the login from here, which may take longer than an order may, and has the move begun.
func moveStart(ctx context.Context, c *call) error {
	server := OutsideServer{Protocol: protocolIMAP, Login: c.args[len(c.args)-1]}
	if len(c.args) == 3 {
		var err error
		if server.Host, server.Port, err = splitServer(c.args[1]); err != nil {
			return err
		}
	}
	if _, err := c.order(ctx, order{Do: "movein status", Address: c.args[0]}); err != nil { // somebody who is here
		return err
	}
	var err error
	if server.Password, err = c.askPassword(fmt.Sprintf("Password of %s: ", server.Login)); err != nil {
		return err
	}
	finder := MoverConfig{Resolver: &Resolver{}}
	if c.adjustOutside != nil {
		c.adjustOutside(&finder.Dialer)
	}
	if server, err = NewMover(finder).Find(ctx, server); err != nil {
		return fmt.Errorf("nothing was begun: %w", err)
	}
	a, err := c.order(ctx, order{Do: "movein start", Address: c.args[0], Source: &CollectSource{OutsideServer: server}, Password: server.Password})
	if err != nil {
		return err
	}
	c.say("%s moves in from %s at %s; `%s movein status %s` tells how far it has come.", a.Address, server.Login, server.where(), programName(), a.Address)
	return nil
}

func moveStop(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "movein stop", Address: c.args[0]})
	if err != nil {
		return err
	}
	_, _, copied := a.Moves[0].Counts()
	c.say("Nothing more is copied for %s. What is here stays: %s.", a.Address, messagesText(int64(copied)))
	return nil
}

func moveStatus(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "movein status", Address: c.optional()})
	if err != nil {
		return err
	}
	if c.opt.json {
		return c.sayJSON(nonNil(a.Moves))
	}
	if len(a.Moves) == 0 {
		c.say("Nobody moves in from anywhere.")
	}
	for i := range a.Moves {
		c.sayMove(&a.Moves[i])
	}
	return nil
}

// sayMove tells how far a move has come.
func (c *call) sayMove(job *MoveJob) {
	done, of, _ := job.Counts()
	words := map[MoveState]string{MoveRunning: "is under way", MoveDone: "is done", MoveStopped: "was stopped", MoveFailed: "does not go on"}[job.State]
	c.say("%s  from %s at %s %s: %d of %d messages", job.Account, job.Server.Login, job.Server.where(), words, done, of)
	if job.Reason != "" {
		c.say("  %s", job.Reason)
	}
	if !job.Next.IsZero() {
		c.say("  next try %s", clockWords(job.Next, time.Now()))
	}
	for i := range job.Folders {
		c.say("  %s", moveWords(&job.Folders[i]))
	}
}
