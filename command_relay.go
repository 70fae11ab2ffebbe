package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"

	"golang.org/x/term"
)

func relayCommands() []command {
	return []command{
		{name: "relay set", args: "HOST[:PORT] USER", min: 2, max: 2, about: "send all mail to other servers by the provider's server, after a login",
			more: "HOST is the server that your provider names for outgoing mail (SMTP). Port and TLS are found,\n" +
				"and the login is tried before anything is changed. The password is asked for.\n" +
				"--for is for the mail of one address or of all addresses at a domain. People with accounts at\n" +
				"the same provider have a relay each: --for ADDRESS.\n" +
				"Where a provider takes only your address with it as envelope sender, --from gives that;\n" +
				"other servers then report failures to that address. Your own in the message stays.",
			flags: func(fs *flag.FlagSet, o *options) {
				passwordFlags(fs, o)
				relayScopeFlag(fs, o)
				fs.StringVar(&o.from, "from", "", "envelope sender `ADDRESS` in place of each person's own")
			}, run: relaySet},
		{name: "relay remove", about: "send mail directly to the servers of its recipients again", flags: func(fs *flag.FlagSet, o *options) {
			dataFlag(fs, o)
			relayScopeFlag(fs, o)
		}, run: relayRemove},
		{name: "relay list", about: "list the servers that take mail for others", flags: listFlags, run: relayList},
	}
}

func relayScopeFlag(fs *flag.FlagSet, o *options) {
	fs.StringVar(&o.scope, "for", "", "only for mail from the address or domain `SENDER`")
}

func relaySet(ctx context.Context, c *call) error {
	host, port, err := splitServer(c.args[0])
	if err != nil {
		return &usageError{err.Error()}
	}
	o := order{Do: "relay check", Relay: &RelaySetting{Host: host, Port: port, User: c.args[1], For: c.opt.scope, From: c.opt.from}}
	if _, err := c.order(ctx, o); err != nil {
		return err
	}
	o.Do = "relay set"
	if o.Password, err = c.askPassword(fmt.Sprintf("Password of %s at %s: ", c.args[1], host)); err != nil {
		return err
	}
	a, err := c.order(ctx, o)
	if err != nil {
		return err
	}
	r := &a.Relays[0]
	c.say("The login works. %s to other servers goes by %s (%s) now.", mailOf(r.For), r.where(), relayTLSWords(r.TLS))
	c.sayShared(a.Outside)
	if r.From != "" {
		c.say("Its envelope sender is %s: what other servers report comes to that mailbox at the provider.", r.From)
	}
	c.sayRetried(a.Count)
	return nil
}

// askPassword reads the password that --password-stdin promises, or asks for one at the terminal.
func (c *call) askPassword(prompt string) (string, error) {
	if c.opt.passwordStdin {
		return c.readPassword()
	}
	file, ok := c.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return "", &usageError{"there is no terminal to ask for the password: give it with --password-stdin"}
	}
	_, _ = fmt.Fprint(c.stderr, prompt)
	password, err := term.ReadPassword(int(file.Fd()))
	_, _ = fmt.Fprintln(c.stderr)
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	if len(password) == 0 {
		return "", errors.New("no password was given")
	}
	return string(password), nil
}

func mailOf(scope string) string {
	if scope == "" {
		return "Mail"
	}
	return "Mail from " + scope
}

// sayShared says whose mail goes by one login at a provider, where it is more than one address.
func (c *call) sayShared(outside []OutsideReport) {
	var addresses []string
	for _, o := range outside {
		if !slices.Contains(addresses, o.Address) {
			addresses = append(addresses, o.Address)
		}
	}
	if len(addresses) > 1 {
		c.say("That is the mail of %s. Where each has a login of its own, set a relay for each: --for ADDRESS.", wordList(addresses))
	}
}

func relayTLSWords(kind string) string {
	if kind == tlsImplicit {
		return "TLS from the start"
	}
	return "STARTTLS"
}

func (c *call) sayRetried(n int) {
	switch n {
	case 0:
	case 1:
		c.say("The message that waits is tried now.")
	default:
		c.say("The %s that wait are tried now.", messagesText(int64(n)))
	}
}

func relayRemove(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "relay remove", Relay: &RelaySetting{For: c.opt.scope}})
	if err != nil {
		return err
	}
	if c.opt.scope == "" {
		c.say("Mail to other servers goes there directly now.")
	} else {
		c.say("%s has no relay of its own any more.", c.opt.scope)
	}
	c.sayRetried(a.Count)
	return nil
}

func relayList(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "relay list"})
	if err != nil {
		return err
	}
	if c.opt.json {
		return c.sayJSON(nonNil(a.Relays))
	}
	if len(a.Relays) == 0 {
		c.say("There is no relay. Mail goes directly to other servers.")
		return nil
	}
	w := tabwriter.NewWriter(c.stdout, 0, 8, 2, ' ', 0)
	for i := range a.Relays {
		r := &a.Relays[i]
		from := ""
		if r.From != "" {
			from = "as " + r.From
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", mailOf(r.For), r.where(), relayTLSWords(r.TLS), r.User, from)
	}
	return w.Flush()
}
