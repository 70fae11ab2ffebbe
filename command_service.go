package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

func serviceCommands() []command {
	return []command{
		{name: "install", about: "install the appliance as a service that starts with the machine",
			more: "It copies itself to where the system's programs lie, makes a user of its own, starts, and says how to log in.\n" +
				"Done again, it puts itself in the place of the one that is there, which comes back if the new one does not come up;\n" +
				"the flags of the last time stay.",
			flags: func(fs *flag.FlagSet, o *options) { placeFlags(fs, o); authorityFlags(fs, o) }, run: installService},
		{name: "uninstall", about: "stop the service and remove it; the mail stays", run: uninstallService},
		{name: "start", about: "start the service", run: startService},
		{name: "stop", about: "stop the service until the machine starts again, or somebody starts it", run: stopService},
		{name: "restart", about: "stop the service and start it", run: restartService},
		{name: "status", about: "show how the appliance is: since when, ports, certificates, the last errors", flags: listFlags, run: showStatus},
		{name: "log", about: "show what the service has logged", more: "It is ended with Ctrl-C where it follows.",
			flags: func(fs *flag.FlagSet, o *options) {
				dataFlag(fs, o)
				fs.BoolVar(&o.follow, "f", false, "go on with what is being logged")
				fs.IntVar(&o.lines, "n", 100, "the last `N` lines")
			}, run: showLog},
	}
}

// installation is what this command wants of the service.
func (c *call) installation() (*Installation, error) {
	in, err := NewInstallation(ServicePlan{})
	if err != nil {
		return nil, err
	}
	if state := in.State(); state.Installed {
		c.adopt(state.Options)
	}
	in.Plan.Data = string(c.data)
	in.Plan.Args = append([]string{"run", "--service", "--data", string(c.data)}, c.opt.run.portWords()...)
	in.Plan.Options = c.opt.run.portWords()
	if c.data != systemDataDir(os.Getenv) {
		in.Plan.Options = append([]string{"--data", string(c.data)}, in.Plan.Options...)
	}
	in.Plan.Ports = c.opt.run.ports()
	in.Ready, in.Why = c.waitForService, c.serviceReason
	return in, nil
}

// adopt takes the options of the last installation where this command has none.
func (c *call) adopt(before []string) {
	var old options
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	placeFlags(fs, &old)
	if fs.Parse(before) != nil {
		return // somebody has changed the line; what is not understood is not taken
	}
	system := systemDataDir(os.Getenv)
	_, none := os.Stat(string(c.data)) // of whoever runs one beside the service
	if c.opt.data == "" && os.Getenv("APPLIANCE_DATA") == "" && (c.data == system || none != nil) {
		c.data = cmp.Or(dataDir(old.data), system)
	}
	o := &c.opt.run
	if o.listen == "" {
		o.listen = old.run.listen
	}
	if o.offset == 0 {
		o.offset = old.run.offset
	}
	if o.hostname == "" {
		o.hostname = old.run.hostname
	}
}

// portWords gives the flags for run that say what these options say.
func (o *runOptions) portWords() []string {
	var words []string
	if o.listen != "" {
		words = append(words, "--listen", o.listen)
	}
	if o.offset != 0 {
		words = append(words, "--port-offset", strconv.Itoa(o.offset))
	}
	if o.hostname != "" {
		words = append(words, "--hostname", o.hostname)
	}
	return words
}

// ports gives the numbers of all ports, those too that are taken in the place of others.
func (o *runOptions) ports() []int {
	var numbers []int
	for _, spec := range portTable() {
		numbers = append(numbers, spec.number+o.offset)
	}
	for _, web := range []int{80, 443} {
		numbers = append(numbers, web+o.offset, web+o.offset+webPortShift)
	}
	return slices.DeleteFunc(numbers, func(n int) bool { return n > math.MaxUint16 })
}

// thisCommand is how this program was called, for those who call it again.
func thisCommand(words string) string {
	program := os.Args[0]
	if strings.ContainsAny(program, " \t") {
		program = `"` + program + `"`
	}
	return program + " " + words
}

func installService(ctx context.Context, c *call) error {
	o := &c.opt.run
	o.logFormat, o.logLevel = "text", "info"
	if err := o.check(); err != nil {
		return err
	}
	if err := requireAdministrator(thisCommand("install")); err != nil {
		return err
	}
	in, err := c.installation()
	if err != nil {
		return err
	}
	if err := c.checkFolder(in.State()); err != nil {
		return err
	}
	if err := c.checkPorts(in.State()); err != nil {
		return err
	}
	earlier, err := c.takeOver(in)
	if err != nil {
		return err
	}
	in.Plan.Fill = func() error { return c.data.fillAuthority(o) }
	if err := in.Install(ctx); err != nil {
		if earlier != "" {
			err = c.setAside(earlier, err)
		}
		return err
	}
	a, err := ask(ctx, c.data.control(), order{Do: "first account", Name: ownerName(os.Getenv)})
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	if err != nil {
		return fmt.Errorf("the service runs, but the first account could not be made: %w; make one with: %s", err, elevated("appliance user add NAME"))
	}
	c.say("The appliance is installed as a service of %s: it starts with the machine.\n", in.State().Manager)
	c.say("%s", a.Text)
	c.sayEarlier(earlier)
	c.say("How it is: %s", elevated("appliance status"))
	c.say("What it does: %s", elevated("appliance log -f"))
	return nil
}

// checkFolder refuses a folder that cannot be the service's: one that does not stay, one with other things in it, or of an
// appliance that somebody runs.
func (c *call) checkFolder(state ServiceState) error {
	if emptiedAtStart(string(c.data)) {
		return fmt.Errorf("%s is emptied when the machine starts, and is no place for mail: choose another folder with --data DIR", c.data)
	}
	entries, err := os.ReadDir(string(c.data))
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking into the data folder: %w", err)
	}
	if !slices.ContainsFunc(entries, c.isOurs) {
		return fmt.Errorf("%s holds other things: choose a folder for the mail alone with --data DIR", c.data)
	}
	if state.Running {
		return nil
	}
	lock, err := c.data.tryLock()
	if errors.Is(err, errInUse) {
		return fmt.Errorf("somebody runs an appliance%s with the data folder %s: end it first (Ctrl-C where it runs)", c.data.owner(), c.data)
	}
	if err != nil {
		return err
	}
	lock.release()
	return nil
}

// checkPorts says which other program has a port that mail needs.
func (c *call) checkPorts(state ServiceState) error {
	if state.Running {
		return nil // they are ours
	}
	for _, spec := range portTable() {
		if err := c.portIsFree(spec.number+c.opt.run.offset, spec.name); err != nil {
			return err
		}
	}
	return nil
}

// portIsFree says who has a port, and what ends that. What else may be wrong with it, the service itself says.
func (c *call) portIsFree(number int, name string) error {
	l, err := listenTCP(net.JoinHostPort(c.opt.run.listen, strconv.Itoa(number)))
	if err == nil {
		return l.Close()
	}
	if !isInUse(err) {
		return nil
	}
	program, unit := portHolder(number)
	end := "end it"
	if unit != "" {
		end += " for good with `" + elevated("systemctl disable --now "+unit) + "`"
	}
	return fmt.Errorf("port %d (%s) is in use by %s: %s, or choose other ports with --port-offset", number, name, cmp.Or(program, "another program"), end)
}

// isOurs knows what lies in each data folder, or in a new file system for it.
func (c *call) isOurs(e os.DirEntry) bool {
	path := filepath.Join(string(c.data), e.Name())
	return path == c.data.lock() || path == c.data.accounts() || e.Name() == "lost+found"
}

func uninstallService(ctx context.Context, c *call) error {
	in, err := c.installedService("uninstall")
	if err != nil {
		return err
	}
	if err := in.Uninstall(ctx); err != nil {
		return err
	}
	c.say("The service is removed. The mail, the accounts and the settings stay in %s", c.data)
	c.say("`appliance install` goes on with them. To delete them for good: %s", elevated(deleteWords(string(c.data))))
	return nil
}

// installedService is the service that is installed, for an administrator's command.
func (c *call) installedService(command string) (*Installation, error) {
	if err := requireAdministrator(thisCommand(command)); err != nil {
		return nil, err
	}
	in, err := c.installation()
	if err != nil {
		return nil, err
	}
	if !in.State().Installed {
		return nil, fmt.Errorf("there is no service here; `%s` installs it", elevated("appliance install"))
	}
	return in, nil
}

func startService(ctx context.Context, c *call) error {
	in, err := c.installedService("start")
	if err != nil {
		return err
	}
	if in.State().Running {
		c.say("The service runs already.")
		return nil
	}
	if err := c.checkPorts(ServiceState{}); err != nil {
		return err
	}
	if err := in.Start(ctx); err != nil {
		return err
	}
	c.say("The service runs.")
	return nil
}

func stopService(ctx context.Context, c *call) error {
	in, err := c.installedService("stop")
	if err != nil {
		return err
	}
	if !in.State().Running {
		c.say("The service does not run.")
		return nil
	}
	if err := in.Stop(ctx); err != nil {
		return err
	}
	c.say("The service is stopped.")
	return nil
}

func restartService(ctx context.Context, c *call) error {
	in, err := c.installedService("restart")
	if err != nil {
		return err
	}
	if in.State().Running {
		if err := in.Stop(ctx); err != nil {
			return err
		}
	}
	if err := in.Start(ctx); err != nil {
		return err
	}
	c.say("The service runs.")
	return nil
}

// How long a service may take until it answers, and how often to look.
const (
	servicePatience = 2 * time.Minute
	serviceLook     = 100 * time.Millisecond
)

// waitForService returns when the service answers on all its ports that was started after that time.
func (c *call) waitForService(ctx context.Context, started time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, servicePatience)
	defer cancel()
	for {
		status, err := c.askStatus(ctx)
		if err == nil && !status.Since.Before(started) {
			return answering(ctx, c.opt.run.listen, status.Ports)
		}
		if why := c.serviceReason(started); why != nil {
			return why
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it does not answer after %s; see %s", servicePatience, elevated("appliance log"))
		case <-time.After(serviceLook):
		}
	}
}

// answering connects to each port and waits for its greeting, or its certificate.
func answering(ctx context.Context, listen string, ports []Port) error {
	for _, p := range ports {
		if err := greets(ctx, listen, p); err != nil {
			return fmt.Errorf("port %d (%s) does not answer: %w", p.Number, p.Name, err)
		}
	}
	return nil
}

func greets(ctx context.Context, listen string, p Port) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(listen, strconv.Itoa(p.Number)))
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(answerPatience))
	switch p.TLS {
	case "none":
		return nil // of the web
	case "from the start":
		return tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx) // whose it is does not matter
	}
	_, err = bufio.NewReader(conn).ReadString('\n')
	return err
}
