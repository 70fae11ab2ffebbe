package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"
)

func collectCommands() []command {
	return []command{
		{name: "collect add", args: "USER pop3|imap HOST[:PORT] LOGIN", min: 4, max: 4, about: "fetch mail from an account elsewhere, for good",
			more: "The password is asked for. It is tried once before anything is stored. What was fetched is deleted over there\n" +
				"when it is safe here, unless --keep is given. The same command again changes the password, and of\n" +
				"the options those that are given: what is kept over there stays until --keep=false is given.\n" +
				"Where LOGIN is an address, USER can send with it from then on: see `user sender`.",
			flags: func(fs *flag.FlagSet, o *options) {
				passwordFlags(fs, o)
				collectFlags(fs, &o.collect)
			}, run: collectAdd},
		{name: "collect list", args: "[USER]", max: 1, about: "list the accounts elsewhere, and how it goes with them", flags: listFlags, run: collectList},
		{name: "collect remove", args: "USER HOST [LOGIN]", min: 2, max: 3, about: "fetch nothing any more; the mail stays where it is",
			more: "What was fetched is forgotten: added again with --keep, all would come once more.", flags: dataFlag, run: collectRemove},
		{name: "collect now", args: "[USER [HOST [LOGIN]]]", max: 3, about: "look for mail elsewhere now",
			more: "Nobody need do that: it happens by itself. What could not be had several times is tried again.", flags: dataFlag, run: collectNow},
	}
}

// openCollector opens what fetches mail from elsewhere. out delivers what it has to tell people, and spam judges what comes;
// nil where nothing runs.
func (h *house) openCollector(out *Outbound, spam *SpamFilter, adjust func(*outsideDialer)) *Collector {
	cfg := CollectorConfig{File: h.data.collect(), Dir: h.data.collectState(), Accounts: h.accounts, Store: h.store,
		Hostname: h.hostname, MaxSize: h.maxSize(), Log: h.log}
	if spam != nil {
		cfg.Judge = spam.JudgeCollected
	}
	if out != nil {
		cfg.Tell = func(account string, message []byte) error {
			return out.deliver(context.Background(), "", bytes.NewReader(message), []string{account})
		}
	}
	if adjust != nil {
		adjust(&cfg.Dialer)
	}
	return OpenCollector(cfg)
}

// collectAdd has the order checked, logs in from here, which may take longer than an order may, and has the result stored.
func collectAdd(ctx context.Context, c *call) error {
	s := CollectSource{Account: c.args[0], OutsideServer: OutsideServer{Protocol: strings.ToLower(c.args[1]), Login: c.args[3]}}
	var err error
	if s.Host, s.Port, err = splitServer(c.args[2]); err != nil {
		return err
	}
	o := order{Do: "collect check", Source: &s, Change: c.opt.collect}
	a, err := c.order(ctx, o)
	if err != nil {
		return err
	}
	keep := a.Sources[0].Keep
	if a.Deletes {
		c.say("Mail of %s at %s has stayed over there so far. From now on it is deleted there\nwhen it is safe here, also what was fetched before.", s.Login, s.Host)
	}
	if s.Password, err = c.askPassword(fmt.Sprintf("Password of %s at %s: ", s.Login, s.Host)); err != nil {
		return err
	}
	if _, err := s.OutsideServer.check(); err != nil {
		return err
	}
	var dialer outsideDialer
	if c.adjustOutside != nil {
		c.adjustOutside(&dialer)
	}
	if s.OutsideServer, err = dialer.find(ctx, s.OutsideServer); err != nil {
		return fmt.Errorf("nothing was stored: %w", err)
	}
	o.Do, o.Password = "collect add", s.Password
	if a, err = c.order(ctx, o); err != nil {
		return err
	}
	what := "is collected for"
	if a.Changed {
		what = "is collected anew for"
	}
	c.say("Mail of %s at %s %s %s now.", s.Login, s.where(), what, a.Address)
	if keep {
		c.say("It stays over there as well.")
	} else {
		c.say("It is deleted over there when it is safe here.")
	}
	for i := range a.Outside {
		if o := &a.Outside[i]; o.New {
			c.say("%s can send with %s now, too.", o.Account, o.Address)
			c.sayWay(o)
		}
	}
	return nil
}

// collectFlags are the options of a source, of which it is known whether they were given.
func collectFlags(fs *flag.FlagSet, change *CollectChange) {
	fs.BoolFunc("keep", "leave the mail over there as well; --keep=false ends that", func(text string) error {
		keep, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("take true or false")
		}
		change.Keep = &keep
		return nil
	})
	given := func(to **string) func(string) error {
		return func(text string) error { *to = &text; return nil }
	}
	fs.Func("every", "look every `TIME`, from 1m to 24h; 5m unless given", given(&change.Every))
	fs.Func("folder", "put the mail into the folder `NAME` and not the INBOX", given(&change.Folder))
}

// whichSource makes an order about the sources that the arguments name.
func (c *call) whichSource(do string) order {
	args := append(append([]string(nil), c.args...), "", "", "")
	return order{Do: do, Address: args[0], Host: args[1], Login: args[2]}
}

func collectRemove(ctx context.Context, c *call) error {
	a, err := c.order(ctx, c.whichSource("collect remove"))
	if err != nil {
		return err
	}
	s := a.Sources[0]
	c.say("Mail of %s at %s is not collected any more. What was fetched stays here.", s.Login, s.Host)
	return nil
}

func collectNow(ctx context.Context, c *call) error {
	a, err := c.order(ctx, c.whichSource("collect now"))
	switch {
	case err != nil:
		return err
	case !a.Running:
		c.say("The appliance does not run. It looks into %s as soon as it does.", accountsText(a.Count))
	default:
		c.say("It looks into %s now; `%s collect list` tells how that went.", accountsText(a.Count), programName())
	}
	return nil
}

func accountsText(n int) string {
	if n == 1 {
		return "one account"
	}
	return fmt.Sprintf("%d accounts", n)
}

func collectList(ctx context.Context, c *call) error {
	a, err := c.order(ctx, c.whichSource("collect list"))
	if err != nil {
		return err
	}
	if c.opt.json {
		return c.sayJSON(nonNil(a.Sources))
	}
	if len(a.Sources) == 0 {
		c.say("Nothing is collected from elsewhere.")
	}
	now := time.Now()
	for i := range a.Sources {
		s := &a.Sources[i]
		c.say("%s  from %s at %s by %s%s", s.Account, s.Login, s.where(), strings.ToUpper(s.Protocol), sourceWords(&s.CollectSource))
		for _, line := range statusWords(s, now) {
			c.say("  %s", cleanText(line))
		}
	}
	return nil
}

// sourceWords says what is unusual about a source.
func sourceWords(s *CollectSource) string {
	text := ""
	if s.Folder != "" {
		text += ", into " + s.Folder
	}
	if s.Keep {
		text += ", kept there"
	}
	return text
}

// statusWords says how it goes with a source, a line each.
func statusWords(s *CollectReport, now time.Time) (lines []string) {
	first := messagesText(s.Fetched) + " so far"
	switch {
	case s.Waiting:
		first += "; it waits for news"
	case s.Reason == "" && s.Next.After(now):
		first += "; next look " + clockWords(s.Next, now)
	}
	lines = append(lines, first)
	if s.Reason != "" {
		line := "fails since " + clockWords(s.Since, now) + ": " + s.Reason
		if s.Next.After(now) {
			line += "; next try " + clockWords(s.Next, now)
		}
		lines = append(lines, line)
	}
	for _, left := range []struct {
		n   int
		why string
	}{
		{s.Large, "larger than what is taken here (max_message_mb in settings.toml)"},
		{s.Failed, "could not be taken; `collect now` tries again"},
		{s.Stay, "fetched, but the server does not delete it"},
	} {
		if left.n > 0 {
			lines = append(lines, messagesText(int64(left.n))+" over there: "+left.why)
		}
	}
	return lines
}
