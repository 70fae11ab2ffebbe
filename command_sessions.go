package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"
)

func sessionCommands() []command {
	return []command{
		{name: "sessions", args: "[ADDRESS]", max: 1, about: "list who is logged in at the moment, with which program and from where",
			more: "A program logs in again by itself as long as its password counts.", flags: listFlags, run: sessionsList},
		{name: "sessions end", args: "ID", min: 1, max: 1, about: "end a session that the list shows", flags: dataFlag, run: sessionsEnd},
	}
}

func sessionsList(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "sessions list", Address: c.optional()})
	if err != nil {
		return err
	}
	if c.opt.json {
		return c.sayJSON(nonNil(a.Sessions))
	}
	if len(a.Sessions) == 0 {
		c.say("Nobody is logged in.")
		return nil
	}
	now := time.Now()
	w := tabwriter.NewWriter(c.stdout, 0, 8, 2, ' ', 0)
	for i := range a.Sessions {
		s := &a.Sessions[i]
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\tsince %s\t%s\n", s.ID, s.Account, s.Protocol, s.Remote, clockWords(s.Since, now), sessionWords(s, now))
	}
	return w.Flush()
}

// sessionWords says what else is known of a session.
func sessionWords(s *MailSession, now time.Time) string {
	text := ""
	add := func(format string, args ...any) {
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf(format, args...)
	}
	if s.Via != "" {
		add("password %q", s.Via)
	}
	if s.Client != "" {
		add("%s", s.Client)
	}
	if s.Command != "" {
		add("%s %s", s.Command, clockWords(s.Active, now))
	}
	return text
}

func sessionsEnd(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "sessions end", ID: c.args[0]})
	if err != nil {
		return err
	}
	c.say("Session %s of %s has ended.", c.args[0], a.Address)
	return nil
}
