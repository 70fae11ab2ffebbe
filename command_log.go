package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// showLog prints what the service has logged, wherever that is.
func showLog(ctx context.Context, c *call) error {
	if c.opt.lines < 0 {
		return &usageError{fmt.Sprintf("-n is a number of lines, not %d", c.opt.lines)}
	}
	in, err := c.installation()
	if err == nil && in.State().Installed && in.LogCommand() != nil {
		return c.showJournal(ctx, in.LogCommand())
	}
	file := logFile(c.data.log())
	err = tailFile(ctx, c.stdout, file, c.opt.lines, c.opt.follow)
	switch {
	case errors.Is(err, os.ErrPermission):
		return errClosedLog()
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("there is no log %s: the appliance writes one when it runs as a service, and else to the screen", file)
	}
	return err
}

func errClosedLog() error {
	return fmt.Errorf("only an administrator may read the log of the service: %s", elevated("appliance log"))
}

// showJournal lets the journal print. What it says itself is passed on. To those who may not read it, it shows nothing.
func (c *call) showJournal(ctx context.Context, command []string) error {
	if os.Geteuid() > 0 {
		one := append(slices.Clone(command[1:]), "--output", "cat", "--lines", "1")
		if out, err := exec.CommandContext(ctx, command[0], one...).Output(); err != nil || len(out) == 0 {
			return errClosedLog()
		}
	}
	words := append(command[1:], "--output", "short-iso", "--lines", strconv.Itoa(c.opt.lines))
	if c.opt.follow {
		words = append(words, "--follow")
	}
	cmd := exec.CommandContext(ctx, command[0], words...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stdout, cmd.Stderr = c.stdout, c.stderr
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("reading the journal: %w", err)
	}
	return nil
}

// How often a file is looked at that is followed.
const tailPause = 300 * time.Millisecond

// tailFile prints the last lines of a file, and where that is wanted all that comes, until ctx ends. When another file gets the
// name, it goes on with that one.
func tailFile(ctx context.Context, out io.Writer, path string, lines int, follow bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	missing, err := seekLines(f, lines)
	if err == nil && missing > 0 {
		err = tailBefore(out, path, missing)
	}
	if err != nil {
		return fmt.Errorf("reading the log: %w", err)
	}
	for {
		if _, err := io.Copy(out, f); err != nil {
			return fmt.Errorf("printing the log: %w", err)
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(tailPause):
		}
		if next := successor(f, path); next != nil {
			_, err = io.Copy(out, f) // what came last
			f.Close()
			f = next
			if err != nil {
				return fmt.Errorf("printing the log: %w", err)
			}
		}
	}
}

// tailBefore prints the last lines of the file that was the log before this one, if there is one: a log that has just been begun
// anew tells little.
func tailBefore(out io.Writer, path string, lines int) error {
	ext := filepath.Ext(path)
	full, _ := filepath.Glob(strings.TrimSuffix(path, ext) + "-*" + ext) // with their times, in order; the pattern is right
	if len(full) == 0 {
		return nil
	}
	f, err := os.Open(full[len(full)-1])
	if errors.Is(err, os.ErrNotExist) {
		return nil // it has just been deleted
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := seekLines(f, lines); err != nil {
		return err
	}
	_, err = io.Copy(out, f)
	return err
}

// successor opens the file that has the name now, nil if it is the same one.
func successor(f *os.File, path string) *os.File {
	next, err := os.Open(path)
	if err != nil {
		return nil // in a moment
	}
	a, aerr := f.Stat()
	b, berr := next.Stat()
	if aerr != nil || berr != nil || os.SameFile(a, b) {
		next.Close()
		return nil
	}
	return next
}

// seekLines goes to where the last lines of a file begin, and says how many it does not have.
func seekLines(f *os.File, lines int) (missing int, err error) {
	at, err := f.Seek(0, io.SeekEnd)
	if err != nil || lines == 0 {
		return 0, err
	}
	buf, seen := make([]byte, 64<<10), 0
	for at > 0 {
		n := min(int64(len(buf)), at)
		at -= n
		if _, err := f.ReadAt(buf[:n], at); err != nil {
			return 0, err
		}
		for i := n - 1; i >= 0; i-- {
			if buf[i] != '\n' {
				continue
			}
			if seen++; seen > lines { // the first one ends the last line
				_, err := f.Seek(at+i+1, io.SeekStart)
				return 0, err
			}
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return lines - seen, err
}

// endMessage is what the log says at the end of an appliance that could not go on.
const endMessage = "the appliance ends"

// endLine finds why in a line of the log.
var endLine = regexp.MustCompile(`msg="` + endMessage + `" err=("(?:[^"\\]|\\.)*"|\S+)`)

// serviceReason gives why the service has ended since then, nil where the log does not tell.
func (c *call) serviceReason(since time.Time) error {
	in, err := c.installation()
	if err != nil {
		return nil
	}
	var log io.Reader
	if command := in.LogCommand(); command != nil {
		words := append(command[1:], "--output", "cat", "--since", "@"+strconv.FormatInt(since.Unix(), 10))
		text, err := exec.Command(command[0], words...).Output()
		if err != nil {
			return nil
		}
		log = strings.NewReader(string(text))
	} else {
		f, err := os.Open(logFile(c.data.log()))
		if err != nil {
			return nil
		}
		defer f.Close()
		if _, err := seekLines(f, 100); err != nil {
			return nil
		}
		log = f
	}
	return reasonIn(log, since)
}

// earlyLine finds in the journal why one has ended, or was not begun, before it had a log: its own last words, or systemd's.
var earlyLine = regexp.MustCompile(`^appliance: (.+)$|^\S+: (Failed at step .+)$`)

// reasonIn gives the last reason that a log tells for the end of an appliance, nil for none since then. Lines without a time
// are of that time.
func reasonIn(log io.Reader, since time.Time) (reason error) {
	for lines := bufio.NewScanner(log); lines.Scan(); {
		line := lines.Text()
		found := endLine.FindStringSubmatch(line)
		if early := earlyLine.FindStringSubmatch(line); early != nil {
			reason = errors.New(early[1] + early[2])
		}
		if found == nil {
			continue
		}
		if stamp, ok := strings.CutPrefix(strings.Fields(line)[0], "time="); ok {
			if at, err := time.Parse(time.RFC3339, stamp); err != nil || at.Before(since.Truncate(time.Millisecond)) {
				continue
			}
		}
		text := found[1]
		if plain, err := strconv.Unquote(text); err == nil {
			text = plain
		}
		reason = errors.New(text)
	}
	return reason
}
