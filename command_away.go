package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

func awayCommands() []command {
	return []command{{
		name: "user away", args: "ADDRESS [off]", min: 1, max: 2, about: "answer those who write while somebody is away",
		more: "With --text-file the note is set, with off it is switched off, and without either it is shown. Each sender gets\n" +
			"it once a week at most; lists, robots and unwanted mail get none.",
		flags: func(fs *flag.FlagSet, o *options) {
			listFlags(fs, o)
			fs.StringVar(&o.textFile, "text-file", "", "take the text from `FILE`, or with - from standard input")
			fs.StringVar(&o.away.Subject, "subject", "", "`SUBJECT` of the answers; that of the message unless given")
			fs.StringVar(&o.away.From, "from", "", "first `DAY`, such as 2026-12-24; at once unless given")
			fs.StringVar(&o.away.Until, "until", "", "last `DAY`")
			fs.StringVar(&o.away.Zone, "zone", "", "time `ZONE` of the days, such as Europe/Berlin; the server's unless given")
		}, run: userAway,
	}}
}

// userAway sets, ends or shows an out-of-office note.
func userAway(ctx context.Context, c *call) error {
	note := c.opt.away
	off := len(c.args) == 2
	switch {
	case off && c.args[1] != "off":
		return &usageError{fmt.Sprintf("user away does not know what to do with %q", c.args[1])}
	case c.opt.textFile == "" && note != AwayNote{}:
		return &usageError{"a note needs --text-file"}
	case off && c.opt.textFile != "":
		return &usageError{"off needs no note"}
	}
	o := order{Do: "user away show", Address: c.args[0]}
	if off {
		o.Do = "user away off"
	}
	if c.opt.textFile != "" {
		text, err := c.readText(c.opt.textFile, maxAwayText)
		if err != nil {
			return err
		}
		note.Text = text
		o.Do, o.Away = "user away set", &note
	}
	a, err := c.order(ctx, o)
	if err != nil {
		return err
	}
	return c.sayAway(&a.Users[0])
}

// readText reads a text of a person's from a file, or from standard input.
func (c *call) readText(file string, limit int) (string, error) {
	in := c.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("reading the text: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, int64(limit)+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("reading the text: %w", err)
	case len(text) > limit:
		return "", fmt.Errorf("the text is longer than %d bytes", limit)
	case !utf8.Valid(text):
		return "", errors.New("the text is not in UTF-8")
	}
	return string(text), nil
}

// sayAway shows a person's note.
func (c *call) sayAway(u *User) error {
	switch {
	case c.opt.json:
		return c.sayJSON(u.Away)
	case u.Away == nil:
		c.say("%s has no out-of-office note.", u.Address)
		return nil
	}
	c.say("%s has an %s.", u.Address, u.Away.words())
	if u.Away.Subject != "" {
		c.say("\n  Subject: Auto: %s", u.Away.Subject)
	}
	c.say("\n  %s", strings.ReplaceAll(u.Away.Text, "\n", "\n  "))
	return nil
}
