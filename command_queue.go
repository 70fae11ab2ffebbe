package main

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"time"
)

func queueCommands() []command {
	return []command{
		{name: "queue list", about: "list the mail that waits to be sent to other servers, and why", flags: listFlags, run: queueList},
		{name: "queue show", args: "ID", min: 1, max: 1, about: "show one message that waits: its recipients and its header", flags: listFlags, run: queueShow},
		{name: "queue retry", args: "[ID|--all]", max: 1, about: "try one message, or all, now",
			more: "Nobody need do that: each message is tried again by itself, for five days.",
			flags: func(fs *flag.FlagSet, o *options) {
				dataFlag(fs, o)
				fs.BoolVar(&o.all, "all", false, "try all that wait")
			}, run: queueRetry},
		{name: "queue bounce", args: "ID", min: 1, max: 1, about: "give up a message that waits, and tell its sender",
			more: "The sender gets the report that the mail could not be delivered, as after five days.", flags: dataFlag, run: queueBounce},
		{name: "queue cancel", args: "ID", min: 1, max: 1, about: "do not send a message that waits; it is deleted",
			more: "What is being sent at this moment may still arrive. Its sender is not told.", flags: dataFlag, run: queueCancel},
	}
}

func queueList(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "queue list", JSON: c.opt.json})
	if err != nil {
		return err
	}
	_, err = c.stdout.Write(a.text)
	return err
}

func queueShow(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "queue show", ID: c.args[0]})
	if err != nil {
		return err
	}
	e := &a.Queue[0]
	if c.opt.json {
		return c.sayJSON(queuedMessage{e, a.Header})
	}
	now := time.Now()
	c.say("Message    %s", e.ID)
	c.say("From       %s", senderWords(e))
	if e.Account != "" && e.Account != e.From {
		c.say("Account    %s", e.Account)
	}
	c.say("Size       %s", roundSize(e.Size))
	for i := range e.Recipients {
		r := &e.Recipients[i]
		c.say("Recipient  %s", recipientWords(e, r, now))
		if r.Tries > 0 && r.State == SendWaiting {
			c.say("           tried %s", timesWords(r.Tries))
		}
	}
	c.say("\n%s", strings.TrimRight(cleanText(a.Header), "\n"))
	return nil
}

// queuedMessage is what queue show --json prints.
type queuedMessage struct {
	*QueueEntry
	Header string `json:"header"`
}

func timesWords(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func queueRetry(ctx context.Context, c *call) error {
	if (len(c.args) == 1) == c.opt.all {
		return &usageError{"queue retry takes the ID of a message, or --all"}
	}
	o := order{Do: "queue retry"}
	if !c.opt.all {
		o.ID = c.args[0]
		if o.ID == "" {
			return &usageError{"queue retry takes the ID of a message, or --all"}
		}
	}
	a, err := c.order(ctx, o)
	if err != nil {
		return err
	}
	if a.Count == 1 {
		c.say("One message is tried now.")
	} else {
		c.say("%s are tried now.", messagesText(int64(a.Count)))
	}
	return nil
}

func queueBounce(ctx context.Context, c *call) error {
	if _, err := c.order(ctx, order{Do: "queue bounce", ID: c.args[0]}); err != nil {
		return err
	}
	c.say("%s is given up, and its sender is told.", c.args[0])
	return nil
}

func queueCancel(ctx context.Context, c *call) error {
	if _, err := c.order(ctx, order{Do: "queue cancel", ID: c.args[0]}); err != nil {
		return err
	}
	c.say("%s is not sent.", c.args[0])
	return nil
}
