package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1 // one line on stderr
	exitUsage  = 2 // the usage on stderr
)

// options holds the values of all flags; each command offers some of them.
type options struct {
	data          string
	json          bool
	system        string // of check
	passwordStdin bool
	name          string
	messages      string
	all           bool
	scope         string // of a relay
	from          string
	collect       CollectChange
	away          AwayNote
	textFile      string
	noCopy        bool
	ham, spam     string
	own           OwnFiles
	follow        bool
	lines         int
	run           runOptions
}

// command is one thing the program does.
type command struct {
	name     string // its words: "user add"
	args     string // as shown in the usage: "ADDRESS"
	min, max int    // number of arguments; max < 0: any
	about    string // one line
	more     string // for its own help, may be empty
	flags    func(fs *flag.FlagSet, o *options)
	run      func(ctx context.Context, c *call) error
}

// call is one run of a command.
type call struct {
	args               []string
	opt                options
	data               dataDir
	stdin              io.Reader
	stdout, stderr     io.Writer
	adjust             func(*Sender)             // changes how mail goes out; nil: nothing
	adjustOutbound     func(*OutboundConfig)     // changes how it waits
	adjustOutside      func(*outsideDialer)      // changes how mail elsewhere is fetched
	adjustPorts        func(*Protocols)          // changes how it comes in
	adjustDoctor       func(*Doctor)             // changes whom the doctor asks
	adjustCertificates func(*CertificatesConfig) // changes who gives certificates
}

// usageError is a mistake on the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// commands lists all commands in the order of the help text.
func commands() []command {
	return slices.Concat(runCommands(), serviceCommands(), userCommands(), awayCommands(), forwardCommands(), sessionCommands(), outsideCommands(), aliasCommands(), queueCommands(), relayCommands(), collectCommands(), moveCommands(), spamCommands(), doctorCommands(), dnsCommands(), tlsCommands(), metricsCommands(), caCommands(), versionCommands())
}

// run does what the arguments (without the program's name) say and gives the
// exit status. It ends soon after ctx does.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return (&call{stdin: stdin, stdout: stdout, stderr: stderr}).do(ctx, args)
}

func (c *call) do(ctx context.Context, args []string) int {
	all, stdout, stderr := commands(), c.stdout, c.stderr
	if topic, ok := helpWanted(all, args); ok {
		return help(all, topic, stdout, stderr)
	}
	cmd, rest := findCommand(all, args)
	if cmd == nil {
		return usageFailure(stderr, usageOf(all, args), fmt.Sprintf("there is no command %q", strings.Join(args, " ")))
	}
	err := c.parse(cmd, rest)
	if err == nil {
		c.data, err = chooseDataDir(c.opt.data, os.Getenv)
	}
	if err == nil {
		err = cmd.run(ctx, c)
	}
	var usage *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage):
		return usageFailure(stderr, cmd.usage(), usage.text)
	}
	_, _ = fmt.Fprintf(stderr, "appliance: %s\n", oneLine(err.Error()))
	return exitFailed
}

// oneLine keeps what scripts rely on, whatever an error of the system says.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func usageFailure(stderr io.Writer, usage, text string) int {
	_, _ = fmt.Fprintf(stderr, "appliance: %s\n\n%s", text, usage)
	return exitUsage
}

// findCommand gives the command with the longest name that the arguments
// begin with, and the rest of them. No argument, or a flag first, means run.
func findCommand(all []command, args []string) (*command, []string) {
	var found *command
	words := 0
	for i := range all {
		name := strings.Fields(all[i].name)
		if len(name) > words && len(name) <= len(args) && slices.Equal(name, args[:len(name)]) {
			found, words = &all[i], len(name)
		}
	}
	if found == nil && (len(args) == 0 || strings.HasPrefix(args[0], "-")) {
		return findCommand(all, append([]string{"run"}, args...))
	}
	return found, args[words:]
}

// optional gives the argument of a command that takes one or none, "" for none.
func (c *call) optional() string { return strings.Join(c.args, "") }

// parse reads flags and arguments, which may stand in any order; after -- all
// are arguments.
func (c *call) parse(cmd *command, args []string) error {
	fs := cmd.flagSet(&c.opt)
	for len(args) > 0 {
		if err := fs.Parse(args); err != nil {
			return &usageError{err.Error()}
		}
		rest := fs.Args()
		if read := len(args) - len(rest); read > 0 && args[read-1] == "--" {
			c.args = append(c.args, rest...)
			break
		}
		if len(rest) == 0 {
			break
		}
		c.args, args = append(c.args, rest[0]), rest[1:]
	}
	if len(c.args) < cmd.min {
		return &usageError{fmt.Sprintf("%s needs %s", cmd.name, cmd.args)}
	}
	if cmd.max >= 0 && len(c.args) > cmd.max {
		return &usageError{fmt.Sprintf("%s does not know what to do with %q", cmd.name, c.args[cmd.max])}
	}
	return nil
}

// flagSet makes the flags of a command. It prints nothing by itself.
func (cmd *command) flagSet(o *options) *flag.FlagSet {
	fs := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	if cmd.flags != nil {
		cmd.flags(fs, o)
	}
	return fs
}

func dataFlag(fs *flag.FlagSet, o *options) {
	fs.StringVar(&o.data, "data", "", "keep everything in `DIR`; APPLIANCE_DATA does the same")
}

func listFlags(fs *flag.FlagSet, o *options) {
	dataFlag(fs, o)
	jsonFlag(fs, o)
}

func jsonFlag(fs *flag.FlagSet, o *options) {
	fs.BoolVar(&o.json, "json", false, "print JSON")
}

func passwordFlags(fs *flag.FlagSet, o *options) {
	dataFlag(fs, o)
	fs.BoolVar(&o.passwordStdin, "password-stdin", false, "read the password from a line of standard input")
}
