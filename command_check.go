package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
)

func checkCommands() []command {
	systems := []string{systemLinux, systemMacOS, systemWindows}
	return []command{
		{name: "check", about: "say what stands in the way of running this data folder, here or elsewhere",
			more: "It reads and changes nothing, also while the appliance runs, and of a copy. The exit status is 1 if something\n" +
				"needs doing. What only another system cannot have is a note, unless --for names that system.",
			flags: func(fs *flag.FlagSet, o *options) {
				listFlags(fs, o)
				o.system = thisSystem()
				fs.Func("for", "the `SYSTEM` that the folder is to run on: "+strings.Join(systems, ", ")+" (this one)", func(s string) error {
					if !slices.Contains(systems, s) {
						return fmt.Errorf("it is one of %s", strings.Join(systems, ", "))
					}
					o.system = s
					return nil
				})
			}, run: runCheck},
		{name: "carry", args: carryToWindows + "|" + carryToUnix, min: 1, max: 1, about: "make the names in the data folder ready for another system",
			more: "Stop the appliance first. carry windows comes before the folder is copied to Windows, which cannot hold the names of\n" +
				"mail as they are elsewhere; carry unix gives them back, which only other mail programs need.",
			flags: dataFlag, run: runCarry},
	}
}

func runCheck(ctx context.Context, c *call) error {
	findings, err := (&FolderCheck{Dir: c.data, System: c.opt.system}).Examine(ctx)
	if err != nil {
		return err
	}
	d := &Diagnosis{Findings: findings}
	if c.opt.json {
		err = c.sayJSON(nonNil(findings))
	} else {
		c.sayFindings(d)
	}
	if names := d.names(StateBad, StateWarn); err == nil && len(names) > 0 {
		err = errors.New("something needs doing: " + strings.Join(names, ", "))
	}
	return err
}

func runCarry(ctx context.Context, c *call) error {
	to := c.args[0]
	if to != carryToWindows && to != carryToUnix {
		return &usageError{fmt.Sprintf("carry takes %s or %s, not %q", carryToWindows, carryToUnix, to)}
	}
	if err := c.data.mustBeThere(); err != nil {
		return err
	}
	lock, err := c.data.tryLock()
	if errors.Is(err, errInUse) {
		return fmt.Errorf("an appliance%s runs with this folder: stop it first", c.data.owner())
	}
	if err != nil {
		return err
	}
	defer lock.release()
	work := &carrier{dir: c.data, to: to}
	if err := work.run(ctx); err != nil {
		return err
	}
	c.say("%d names were changed.", work.done)
	if work.failed.count > 0 {
		return errors.New("not all names could be changed: " + work.failed.words("name", "names"))
	}
	return nil
}
