package main

import (
	"bufio"
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
		{name: "queue cancel", args: "ID", min: 1, max: 1, about: "do not send a message that waits; it is deleted",
			more: "What is being sent at this moment may still arrive. Its sender is not told.", flags: dataFlag, run: queueCancel},
	}
}

func queueList(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "queue list"})
	if err != nil {
		return err
	}
	if c.opt.json {
		return c.sayJSON(nonNil(a.Queue))
	}
	if len(a.Queue) == 0 {
		c.say("Nothing waits.")
		return nil
	}
	now := time.Now()
	out := bufio.NewWriter(c.stdout)
	for i := range a.Queue {
		e := &a.Queue[i]
		_, _ = fmt.Fprintf(out, "%s  from %s, %s\n", e.ID, senderWords(e), roundSize(e.Size)) // its error comes with Flush
		for _, r := range e.Recipients {
			_, _ = fmt.Fprintf(out, "  %s\n", recipientWords(e, &r, now))
		}
	}
	return out.Flush()
}

func senderWords(e *QueueEntry) string {
	if e.From == "" {
		return "the mail server"
	}
	return e.From
}

// recipientWords says in one line what a recipient waits for: "waits since 10:32 for ann@example.org: nobody answers; next
// try 11:02".
func recipientWords(e *QueueEntry, r *QueueRecipient, now time.Time) string {
	reason := cleanText(oneLine(r.Reason))
	switch r.State {
	case SendSent:
		return "sent to " + r.Address
	case SendFailed:
		return "failed for " + r.Address + ": " + reason
	case SendCancelled:
		return "cancelled for " + r.Address
	}
	words := fmt.Sprintf("waits since %s for %s", clockWords(e.Queued, now), r.Address)
	if reason != "" {
		words += ": " + strings.TrimSuffix(reason, ".")
	}
	if !r.Next.After(now) {
		return words + "; its turn comes next"
	}
	return words + "; next try " + clockWords(r.Next, now)
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

func queueCancel(ctx context.Context, c *call) error {
	if _, err := c.order(ctx, order{Do: "queue cancel", ID: c.args[0]}); err != nil {
		return err
	}
	c.say("%s is not sent.", c.args[0])
	return nil
}
