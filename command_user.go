package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

func userCommands() []command {
	return []command{
		{name: "user add", args: "ADDRESS", min: 1, max: 1, about: "create an account, with a generated password unless one is given",
			more: "ADDRESS may be a name alone: it gets the appliance's domain.", flags: func(fs *flag.FlagSet, o *options) {
				passwordFlags(fs, o)
				jsonFlag(fs, o)
				fs.StringVar(&o.name, "name", "", "`NAME` of the person")
			}, run: userAdd},
		{name: "user passwd", args: "ADDRESS", min: 1, max: 1, about: "set a new password, a generated one unless one is given",
			flags: passwordFlags, run: userPasswd},
		{name: "user remove", args: "ADDRESS", min: 1, max: 1, about: "remove an account; its mail is set aside, not deleted",
			flags: dataFlag, run: userRemove},
		{name: "user rename", args: "ADDRESS NEW", min: 2, max: 2, about: "give an account another address; mail to the old one still arrives",
			more: "The mail goes with it, and so do app passwords and what others have shared. The old address becomes an alias.\n" +
				"Mail programs have to log in with the new address.",
			flags: dataFlag, run: userRename},
		{name: "user name", args: "ADDRESS NAME", min: 2, max: 2, about: "set the name of a person", flags: dataFlag, run: userName},
		{name: "user disable", args: "ADDRESS", min: 1, max: 1, about: "let somebody log in no more; mail still comes", flags: dataFlag, run: userDisable},
		{name: "user enable", args: "ADDRESS", min: 1, max: 1, about: "let somebody log in again", flags: dataFlag, run: userEnable},
		{name: "user two-factor remove", args: "ADDRESS", min: 1, max: 1, about: "ask somebody for no second factor on the page any more",
			more: "For who has lost the phone, and the codes for that, too.", flags: dataFlag, run: userFactorRemove},
		{name: "user reset-link", args: "ADDRESS", min: 1, max: 1, about: "make a link by which somebody chooses a new password",
			more: "It works once, within a day, while the appliance runs. Whoever has it can take over the account.", flags: dataFlag, run: userResetLink},
		{name: "user logins", args: "ADDRESS", min: 1, max: 1, about: "show when somebody has logged in last", flags: listFlags, run: userLogins},
		{name: "user list", about: "list the accounts; the first one is the owner", flags: listFlags, run: userList},
		{name: "user quota", args: "ADDRESS [SIZE|none]", min: 1, max: 2, about: "show or limit how much mail somebody may keep",
			more: "SIZE is a number and K, M, G or T, such as 500M. What finds no room is refused, and nothing is deleted.",
			flags: func(fs *flag.FlagSet, o *options) {
				listFlags(fs, o)
				fs.StringVar(&o.messages, "messages", "", "limit the number of messages to `N`, or none")
			}, run: userQuota},
		{name: "user app-password add", args: "ADDRESS NAME", min: 2, max: 2, about: "make a password for one program or device",
			more: "It is shown once, and can be removed by its NAME without a change for other devices.", flags: dataFlag, run: appPasswordAdd},
		{name: "user app-password remove", args: "ADDRESS NAME", min: 2, max: 2, about: "revoke an app password", flags: dataFlag, run: appPasswordRemove},
		{name: "user app-password list", args: "ADDRESS", min: 1, max: 1, about: "list a person's app passwords", flags: listFlags, run: appPasswordList},
	}
}

// order gives an order to the owner of the data folder, and what came back.
func (c *call) order(ctx context.Context, o order) (answer, error) {
	if o.Do == "user add" {
		if err := c.data.make(); err != nil {
			return answer{}, err
		}
	} else if _, err := os.Stat(string(c.data)); errors.Is(err, os.ErrNotExist) {
		return answer{}, c.noDataFolder()
	}
	if err := becomeOwner(string(c.data)); err != nil {
		return answer{}, err
	}
	a, err := carryOut(ctx, c.data, o, func() (*admin, func(), error) {
		h, err := openHouse(c.data, "", quietLog(c.stderr))
		if err != nil {
			return nil, nil, err
		}
		sender := h.newSender(c.adjust)
		queue := func() (*Queue, error) {
			out, err := h.openOutbound(sender, nil)
			if err != nil {
				return nil, err
			}
			return out.Queue, nil
		}
		facts := func() (*DoctorFacts, error) { return h.facts(sender) }
		var spam *SpamFilter
		openSpam := func() (_ *SpamFilter, err error) {
			spam, err = h.openSpam(sender.Resolver)
			return spam, err
		}
		closeAll := func() {
			if spam != nil {
				h.closeSpam(spam)
			}
			h.close()
		}
		return &admin{accounts: h.accounts, store: h.store, queue: queue, relays: h.relays, sender: sender, facts: facts, check: h.check,
			collector: h.openCollector(nil, nil, nil), mover: h.openMover(nil, nil, nil), spam: openSpam, tls: h.stoppedTLS(), log: h.log, codes: h.codes, answered: h.answered, metrics: h.metrics}, closeAll, nil
	})
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	return a, err
}

// noDataFolder says that there is none, and where one may be that this user cannot see.
func (c *call) noDataFolder() error {
	if system := systemDataDir(os.Getenv); os.Geteuid() > 0 && c.data != system {
		if _, err := os.Stat(string(system)); err == nil {
			return fmt.Errorf("there is no data folder %s; that of the service is %s: for it, run this as root, with sudo", c.data, system)
		}
	}
	return fmt.Errorf("there is no data folder %s yet: start the appliance once, or tell with --data DIR where it is", c.data)
}

// say prints a line to standard output.
func (c *call) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.stdout, format+"\n", args...)
}

// readPassword reads the password that --password-stdin promises, "" without
// that flag.
func (c *call) readPassword() (string, error) {
	if !c.opt.passwordStdin {
		return "", nil
	}
	line, err := bufio.NewReader(io.LimitReader(c.stdin, 4*maxPassword)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if line == "" {
		return "", errors.New("there is no password on standard input")
	}
	return line, nil
}

func userAdd(ctx context.Context, c *call) error {
	password, err := c.readPassword()
	if err != nil {
		return err
	}
	a, err := c.order(ctx, order{Do: "user add", Address: c.args[0], Name: c.opt.name, Password: password})
	if err != nil {
		return err
	}
	if c.opt.json {
		return c.sayJSON(struct {
			Address   string `json:"address"`
			Password  string `json:"password,omitempty"` // one that was generated
			NewDomain string `json:"new_domain,omitempty"`
		}{a.Address, a.Password, a.NewDomain})
	}
	c.say("%s has an account now.", a.Address)
	c.sayPassword(a)
	c.sayNewDomain(a, "remove "+a.Address+"\nagain")
	return nil
}

// sayNewDomain tells what it means that a domain of the internet is kept here from now on, and what takes that back.
func (c *call) sayNewDomain(a answer, back string) {
	if a.NewDomain == "" {
		return
	}
	program, address := programName(), a.Address
	if strings.HasPrefix(address, "@") {
		address = "ADDRESS"
	}
	c.say("Mail for %s ends on this appliance now: what people here write to anybody there stays here.", a.NewDomain)
	c.say("If that domain is yours, `%s dns %s` prints the records to publish. If it is a provider's, %s, and let a person send with the address: `%s user sender add USER %s`",
		program, a.NewDomain, back, program, quoteWord(address))
}

func userPasswd(ctx context.Context, c *call) error {
	password, err := c.readPassword()
	if err != nil {
		return err
	}
	a, err := c.order(ctx, order{Do: "user passwd", Address: c.args[0], Password: password})
	if err != nil {
		return err
	}
	c.say("%s has a new password now.", a.Address)
	c.sayPassword(a)
	return nil
}

func (c *call) sayPassword(a answer) {
	if a.Password != "" {
		c.say("Password: %s", a.Password)
	}
}

func userRemove(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "user remove", Address: c.args[0]})
	if err != nil {
		return err
	}
	c.say("%s has no account any more.", a.Address)
	if a.Path != "" {
		c.say("The mail lies in %s", a.Path)
	}
	c.sayForgotten(a.Relays)
	return nil
}

func userList(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "user list"})
	if err != nil {
		return err
	}
	if c.opt.json {
		return c.sayJSON(nonNil(a.Users))
	}
	w := tabwriter.NewWriter(c.stdout, 0, 8, 2, ' ', 0)
	for i, u := range a.Users {
		var notes []string
		if i == 0 {
			notes = append(notes, "owner")
		}
		if u.Disabled {
			notes = append(notes, "may not log in")
		}
		if u.Quota != "" {
			notes = append(notes, "quota "+u.Quota)
		}
		if u.QuotaMessages > 0 {
			notes = append(notes, "quota "+messagesText(u.QuotaMessages))
		}
		if len(u.SendAs) > 0 {
			notes = append(notes, "sends with "+strings.Join(u.SendAs, " "))
		}
		if len(u.Forward) > 0 {
			notes = append(notes, "mail "+u.forwardWords())
		}
		if u.Away != nil {
			notes = append(notes, u.Away.words())
		}
		if n := len(u.Apps); n > 0 {
			notes = append(notes, fmt.Sprintf("app passwords: %d", n))
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", u.Address, u.Name, strings.Join(notes, ", "))
	}
	return w.Flush()
}

// sayJSON prints a value for scripts.
func (c *call) sayJSON(v any) error {
	out := json.NewEncoder(c.stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(v)
}

// nonNil makes an empty list JSON's [] and not its null.
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func appPasswordAdd(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "user app-password add", Address: c.args[0], Name: c.args[1]})
	if err != nil {
		return err
	}
	c.say("App password %q of %s: %s", c.args[1], a.Address, a.Password)
	return nil
}

func appPasswordRemove(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "user app-password remove", Address: c.args[0], Name: c.args[1]})
	if err != nil {
		return err
	}
	c.say("App password %q of %s is revoked.", c.args[1], a.Address)
	return nil
}

func appPasswordList(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "user app-password list", Address: c.args[0]})
	if err != nil {
		return err
	}
	apps := a.Users[0].Apps
	if c.opt.json {
		return c.sayJSON(nonNil(apps))
	}
	w := tabwriter.NewWriter(c.stdout, 0, 8, 2, ' ', 0)
	for _, app := range apps {
		created := ""
		if !app.Created.IsZero() {
			created = app.Created.Format(time.DateOnly)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\n", app.Name, created)
	}
	return w.Flush()
}
