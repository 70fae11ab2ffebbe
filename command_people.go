package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"
	"time"
)

func userRename(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "user rename", Address: c.args[0], To: c.args[1:]})
	if err != nil {
		return err
	}
	c.say("The account is %s now. Mail to the old address still arrives.", a.Address)
	c.sayNewDomain(a, "give the account\nits old address again")
	return nil
}

func userName(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "user name", Address: c.args[0], Name: c.args[1]})
	if err != nil {
		return err
	}
	c.say("%s has another name now.", a.Address)
	return nil
}

func userDisable(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "user disable", Address: c.args[0]})
	if err != nil {
		return err
	}
	c.say("%s cannot log in any more. Mail still comes.", a.Address)
	return nil
}

func userEnable(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "user enable", Address: c.args[0]})
	if err != nil {
		return err
	}
	c.say("%s can log in again.", a.Address)
	return nil
}

func userFactorRemove(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "user two-factor remove", Address: c.args[0]})
	if err != nil {
		return err
	}
	c.say("%s logs in with the password alone now.", a.Address)
	return nil
}

func userResetLink(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "user reset-link", Address: c.args[0]})
	if err != nil {
		return err
	}
	c.say("With this link %s chooses a new password, once, within %d hours:\n%s", a.Address, codeReset.keeps()/time.Hour, a.Path)
	return nil
}

// userLogins shows when somebody has logged in last, by protocol and by app password.
func userLogins(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "user logins", Address: c.args[0]})
	if err != nil {
		return err
	}
	if c.opt.json {
		return c.sayJSON(a.Logins)
	}
	if len(a.Logins.Protocols) == 0 {
		c.say("%s has not logged in yet.", a.Address)
		return nil
	}
	w := tabwriter.NewWriter(c.stdout, 0, 8, 2, ' ', 0)
	for _, list := range []struct {
		kind  string
		times map[string]time.Time
	}{{"", a.Logins.Protocols}, {"app password ", a.Logins.Apps}} {
		for _, name := range slices.Sorted(maps.Keys(list.times)) {
			_, _ = fmt.Fprintf(w, "%s%s\t%s\n", list.kind, name, list.times[name].Local().Format(time.DateTime)) // Flush tells
		}
	}
	return w.Flush()
}
