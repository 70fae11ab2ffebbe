// Command bench gives a mail server at an address a piece of work and prints how long it took. It knows nothing of the
// server but its protocols, so every server gets the same work. compare.sh sets the appliance beside Debian's Dovecot and
// Postfix with it.
//
//	bench fill DIR N [BYTES]          write N messages into the Maildir DIR, as another program would, on average of so many bytes
//	bench offset                      print a number that, added to the usual mail ports, gives free ones
//	bench run -imap ADDR … PART …     do these parts of the work
//	bench web -page URL …             deliver alone, and while people use the page; web.sh does it all
//	bench loop [-n N] DIR             write N messages below DIR durably, with nothing around it
//	bench settle PID …                wait until these processes and their children do nothing
//	bench calm SECONDS                wait as long at most until the machine does nothing, and print what share of it is used
//	bench table OURS THEIRS           print what the runs of two servers have printed side by side, with goals
//
// run and loop print lines of the form "NAME VALUE", one for each time that something was measured: seconds, or messages a
// second, or bytes. A name that stands there several times was measured several times; table takes the median.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"
)

const usage = `usage:
  bench fill DIR N [BYTES]
  bench offset
  bench run -imap ADDR -user USER -password PASSWORD [flags] PART …
  bench web -page URL -smtp ADDR -post USER -crowd USERS -password PASSWORD [flags]
  bench loop [-n N] DIR
  bench settle PID …
  bench calm SECONDS
  bench table OURS THEIRS`

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func command(args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	name, args := args[0], args[1:]
	switch {
	case name == "fill" && (len(args) == 2 || len(args) == 3):
		n, err := numbers(args[1:])
		if err != nil {
			return err
		}
		message := sample
		if len(n) == 2 {
			message = newAuthor(n[1]).message
		}
		return fill(args[0], n[0], message)
	case name == "offset" && len(args) == 0:
		return printOffset(os.Stdout)
	case name == "run":
		return runParts(args)
	case name == "web":
		return measurePage(args)
	case name == "loop":
		flags := flag.NewFlagSet("loop", flag.ContinueOnError)
		n := flags.Int("n", 800, "messages of each measurement")
		if err := flags.Parse(args); err != nil {
			return err
		}
		if flags.NArg() == 1 {
			return measureLoops(os.Stdout, flags.Arg(0), *n)
		}
	case name == "settle" && len(args) > 0:
		pids, err := numbers(args)
		if err != nil {
			return err
		}
		return settle(pids)
	case name == "calm" && len(args) == 1:
		seconds, err := strconv.Atoi(args[0])
		if err != nil {
			return fmt.Errorf("%q is no number of seconds", args[0])
		}
		share, err := awaitCalm(time.Duration(seconds) * time.Second)
		if err == nil {
			fmt.Printf("%.0f %%\n", 100*share)
		}
		return err
	case name == "table" && len(args) == 2:
		return printTable(os.Stdout, args[0], args[1])
	}
	return errors.New(usage)
}

func numbers(args []string) ([]int, error) {
	var list []int
	for _, arg := range args {
		n, err := strconv.Atoi(arg)
		if err != nil || n <= 0 {
			return nil, fmt.Errorf("%q is no process id", arg)
		}
		list = append(list, n)
	}
	return list, nil
}
