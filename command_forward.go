package main

import (
	"context"
	"flag"
	"strings"
)

func forwardCommands() []command {
	return []command{{
		name: "user forward", args: "ADDRESS [TO… | off]", min: 1, max: -1, about: "let somebody's mail go on to addresses elsewhere",
		more: "Without TO it is shown where the mail goes. A copy stays here, unless --no-copy is given. What the filter calls\n" +
			"unwanted stays in Junk. For addresses of this appliance there is `alias`.",
		flags: func(fs *flag.FlagSet, o *options) {
			listFlags(fs, o)
			fs.BoolVar(&o.noCopy, "no-copy", false, "keep no copy here")
		}, run: userForward,
	}}
}

// userForward sets, ends or shows where somebody's mail goes on to.
func userForward(ctx context.Context, c *call) error {
	o := order{Do: "user forward show", Address: c.args[0], To: c.args[1:], NoCopy: c.opt.noCopy}
	switch {
	case len(o.To) == 1 && o.To[0] == "off":
		o.Do, o.To = "user forward off", nil
	case len(o.To) > 0:
		o.Do = "user forward set"
	}
	if o.Do != "user forward set" && o.NoCopy {
		return &usageError{"--no-copy needs an address that the mail goes on to"}
	}
	a, err := c.order(ctx, o)
	if err != nil {
		return err
	}
	u := &a.Users[0]
	switch {
	case c.opt.json:
		return c.sayJSON(forwardJSON{nonNil(u.Forward), !u.ForwardOnly})
	case len(u.Forward) == 0:
		c.say("Mail of %s stays here.", u.Address)
		return nil
	}
	c.say("Mail of %s %s.", u.Address, u.forwardWords())
	return nil
}

// forwardJSON is where mail goes, for scripts.
type forwardJSON struct {
	To   []string `json:"to"`
	Copy bool     `json:"copy"` // stays here
}

// forwardWords says where a person's mail goes.
func (u *User) forwardWords() string {
	text := "goes on to " + strings.Join(u.Forward, " ")
	if u.ForwardOnly {
		return text + ", and no copy stays here"
	}
	return text + ", and a copy stays here"
}
