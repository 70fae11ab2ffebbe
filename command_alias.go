package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
)

func aliasCommands() []command {
	return []command{
		{name: "alias add", args: "ADDRESS TO...", min: 2, max: -1, about: "let an address stand for one or more others",
			more:  "An alias that is there already reaches the new ones as well.\n@DOMAIN as the ADDRESS gets all mail of the domain that is for nobody else.",
			flags: listFlags, run: aliasAdd},
		{name: "alias remove", args: "ADDRESS [TO...]", min: 1, max: -1, about: "remove an alias, or take somebody out of it",
			more: "With TO the alias goes to all others still; one that goes to nobody else is removed.", flags: dataFlag, run: aliasRemove},
		{name: "alias list", about: "list the aliases", flags: listFlags, run: aliasList},
	}
}

func aliasAdd(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "alias add", Address: c.args[0], To: c.args[1:]})
	if err != nil {
		return err
	}
	if c.opt.json {
		return c.sayJSON(struct {
			Alias
			NewDomain string `json:"new_domain,omitempty"`
		}{a.Aliases[0], a.NewDomain})
	}
	c.say("%s goes to %s now.", a.Address, strings.Join(a.Aliases[0].To, " "))
	c.sayNewDomain(a, "remove "+a.Address+"\nagain")
	return nil
}

func aliasRemove(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "alias remove", Address: c.args[0], To: c.args[1:]})
	if err != nil {
		return err
	}
	if len(a.Aliases) > 0 && len(a.Aliases[0].To) > 0 {
		c.say("%s goes to %s now.", a.Address, strings.Join(a.Aliases[0].To, " "))
		return nil
	}
	c.say("%s is no alias any more.", a.Address)
	return nil
}

func aliasList(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "alias list"})
	if err != nil {
		return err
	}
	if c.opt.json {
		return c.sayJSON(nonNil(a.Aliases))
	}
	w := tabwriter.NewWriter(c.stdout, 0, 8, 2, ' ', 0)
	for _, alias := range a.Aliases {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", alias.Address, strings.Join(alias.To, " "))
	}
	return w.Flush()
}
