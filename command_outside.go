package main

import (
	"context"
	"fmt"
	"text/tabwriter"
)

func outsideCommands() []command {
	return []command{
		{name: "user sender add", args: "USER ADDRESS", min: 2, max: 2, about: "let somebody send with an address elsewhere, such as one at a provider",
			more:  "The domain of ADDRESS stays where it is: mail to it leaves. `relay set` says who takes the mail.\n`collect add` with an address as LOGIN does the same by itself.",
			flags: dataFlag, run: outsideAdd},
		{name: "user sender remove", args: "USER ADDRESS", min: 2, max: 2, about: "end that somebody sends with an address elsewhere", flags: dataFlag, run: outsideRemove},
		{name: "user sender list", about: "list the addresses elsewhere, who sends with them, and by which relay", flags: listFlags, run: outsideList},
	}
}

// orderOutside gives an order about the address elsewhere that the arguments name.
func (c *call) orderOutside(ctx context.Context, do string) (answer, error) {
	return c.order(ctx, order{Do: do, Address: c.args[0], Outside: c.args[1]})
}

func outsideAdd(ctx context.Context, c *call) error {
	a, err := c.orderOutside(ctx, "user sender add")
	if err != nil {
		return err
	}
	c.say("%s can send with %s now.", a.Outside[0].Account, a.Outside[0].Address)
	c.sayWay(&a.Outside[0])
	return nil
}

// sayWay says who takes mail from an address elsewhere, or how somebody comes to.
func (c *call) sayWay(o *OutsideReport) {
	if o.Relay != "" {
		c.say("Its mail goes by the relay %s.", o.Relay)
		return
	}
	c.say("Let the provider's server for outgoing mail (SMTP) send it, or others will refuse it:")
	c.say("  %s relay set HOST %s --for %s", programName(), quoteWord(o.Address), quoteWord(o.Address))
}

func outsideRemove(ctx context.Context, c *call) error {
	a, err := c.orderOutside(ctx, "user sender remove")
	if err != nil {
		return err
	}
	c.say("%s does not send with %s any more.", a.Outside[0].Account, a.Outside[0].Address)
	c.sayForgotten(a.Relays)
	return nil
}

// sayForgotten tells of relays that went with the addresses they were for.
func (c *call) sayForgotten(relays []RelaySetting) {
	for i := range relays {
		c.say("The relay for %s is removed, with the password for it.", relays[i].For)
	}
}

func outsideList(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "user sender list"})
	if err != nil {
		return err
	}
	if c.opt.json {
		return c.sayJSON(nonNil(a.Outside))
	}
	if len(a.Outside) == 0 {
		c.say("Nobody sends with an address elsewhere.")
		return nil
	}
	w := tabwriter.NewWriter(c.stdout, 0, 8, 2, ' ', 0)
	for _, o := range a.Outside {
		way := "no relay"
		if o.Relay != "" {
			way = "by " + o.Relay
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", o.Account, o.Address, way)
	}
	return w.Flush()
}
