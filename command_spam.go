package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func spamCommands() []command {
	return []command{
		{name: "spam status", about: "tell what the spam filter has learned, and whom else it asks", flags: listFlags, run: spamStatus},
		{name: "spam train", about: "let the spam filter learn from a folder of messages (a file each, or mbox files)",
			more: "Nobody need do that: it learns from what people move into and out of Junk. What was learned before is not learned again.",
			flags: func(fs *flag.FlagSet, o *options) {
				dataFlag(fs, o)
				fs.StringVar(&o.spam, "spam", "", "the folder or mbox file `DIR` holds unwanted mail")
				fs.StringVar(&o.ham, "ham", "", "the folder or mbox file `DIR` holds wanted mail")
			}, run: spamTrain},
		{name: "spam forget", about: "let the spam filter forget all that it has learned", flags: dataFlag, run: spamForget},
	}
}

func spamStatus(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "spam status"})
	if err != nil {
		return err
	}
	s := a.Spam
	if c.opt.json {
		return c.sayJSON(s)
	}
	c.say("Learned   %d unwanted and %d wanted messages", s.Unwanted, s.Wanted)
	if s.Unwanted < s.Needed || s.Wanted < s.Needed {
		c.say("          Words are judged from %d of each kind on. Until then only rules are.", s.Needed)
	}
	c.say("Senders   %d are known to somebody here", s.Senders)
	c.say("DNS lists %s", orNone(strings.Join(s.Lists, " ")))
	greylist := "off"
	if s.Greylist {
		greylist = "on"
	}
	c.say("Greylist  %s", greylist)
	c.say("Milter    %s", orNone(s.Milter))
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func spamTrain(ctx context.Context, c *call) error {
	if (c.opt.ham == "") == (c.opt.spam == "") {
		return &usageError{"spam train takes either --spam DIR or --ham DIR"}
	}
	dir, err := filepath.Abs(c.opt.ham + c.opt.spam)
	if err != nil {
		return fmt.Errorf("finding the folder: %w", err)
	}
	before := os.Geteuid()
	all, err := trainFrom(ctx, dir, func(mails []TrainMail) (*TrainReport, error) {
		a, err := c.orderRunning(ctx, order{Do: "spam train", Mails: mails, Spam: c.opt.spam != ""})
		return a.Train, err
	})
	if err != nil {
		return err
	}
	a, err := c.orderRunning(ctx, order{Do: "spam status"})
	if err != nil {
		return err
	}
	c.say("%s learned; in all %d unwanted and %d wanted.", messagesText(int64(all.Learned)), a.Spam.Unwanted, a.Spam.Wanted)
	c.sayTrained(all)
	if all.skipped(skipUnreadable) && before != os.Geteuid() {
		return fmt.Errorf("while the service does not run, only what its user may read can be learned: start it, and do this again (%s)", elevated("appliance start"))
	}
	return nil
}

// orderRunning gives an order to the appliance that runs, and stays root for that: the next files may be in a folder that its user may
// not read. Where none runs, it is order.
func (c *call) orderRunning(ctx context.Context, o order) (answer, error) {
	if c.data.inUse() {
		a, err := ask(ctx, c.data.control(), o)
		if err == nil && a.Error != "" {
			err = errors.New(a.Error)
		}
		if err == nil || a.Error != "" || errors.Is(err, errNoAnswer) {
			return a, err
		}
	}
	return c.order(ctx, o)
}

// sayTrained tells what was not learned, and why.
func (c *call) sayTrained(r *TrainReport) {
	if r.Known > 0 {
		c.say("%s known from before.", messagesText(int64(r.Known)))
	}
	for _, s := range r.Skipped {
		more := ""
		if s.Count > len(s.Names) {
			more = fmt.Sprintf(" and %d more", s.Count-len(s.Names))
		}
		c.say("Left out, as they %s: %s%s.", s.Why, strings.Join(s.Names, ", "), more)
	}
}

func spamForget(ctx context.Context, c *call) error {
	if _, err := c.order(ctx, order{Do: "spam forget"}); err != nil {
		return err
	}
	c.say("The spam filter has forgotten what it had learned.")
	return nil
}
