//go:build !windows

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// initSystem is a service manager that knows its services from files, and is spoken to by commands.
type initSystem struct {
	name    string
	here    func() bool // whether it runs this machine
	file    string      // where its file lies
	mode    fs.FileMode
	script  func(plan *ServicePlan) string // what is in it
	program string                         // where the service's program lies

	// Commands; each is tried until one is there. None: nothing is to be done.
	reload, enable, disable, start, stop [][]string
	// running and atBoot succeed if it is so.
	running, atBoot [][]string

	left []string // patterns of files that disable leaves behind
	logs []string // prints what the service has logged; nil: it writes a file
}

// initSystems lists those that are known, the most telling first.
func initSystems() []initSystem {
	return []initSystem{systemdInit(), launchdInit(), openrcInit(), procdInit(), sysvInit()}
}

// managerHere gives the service manager of this machine.
func managerHere() (serviceManager, error) {
	list := initSystems()
	for i := range list {
		if list[i].here() {
			return &list[i], nil
		}
	}
	return nil, errors.New("this system has no service manager that is known here (systemd, OpenRC, System V init, procd, launchd): let its own way to start programs at boot run `appliance run --service` as root")
}

// How long a command of a service manager may take.
const commandPatience = 5 * time.Minute

// command runs the first of the commands that is there. What it prints is in the error.
func (s *initSystem) command(ctx context.Context, list [][]string) error {
	ctx, cancel := context.WithTimeout(ctx, commandPatience)
	defer cancel()
	for i, words := range list {
		path, err := exec.LookPath(words[0])
		if err != nil && i < len(list)-1 {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s is not there to speak to %s: %w", words[0], s.name, err)
		}
		cmd := exec.CommandContext(ctx, path, words[1:]...)
		cmd.WaitDelay = time.Second // what it has started may keep its output open
		out, err := cmd.CombinedOutput()
		if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
			if said := strings.Join(strings.Fields(string(out)), " "); said != "" {
				return fmt.Errorf("%s says: %s", strings.Join(words, " "), said)
			}
			return fmt.Errorf("%s: %w", strings.Join(words, " "), err)
		}
		return nil
	}
	return nil
}

// State is serviceManager.
func (s *initSystem) State() ServiceState {
	state := ServiceState{Manager: s.name}
	text, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return state
	}
	state.Installed = true
	state.Options = planOptions(text)
	state.Running = s.command(context.Background(), s.running) == nil
	state.AtBoot = s.command(context.Background(), s.atBoot) == nil
	return state
}

// Write is serviceManager.
func (s *initSystem) Write(plan *ServicePlan) (undo func() error, err error) {
	before, err := os.ReadFile(s.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading what %s knows of the service: %w", s.name, err)
	}
	if err := s.put([]byte(s.script(plan))); err != nil {
		return nil, err
	}
	if err := s.command(context.Background(), s.enable); err != nil {
		return nil, errors.Join(fmt.Errorf("having the service start with the machine: %w", err), s.back(before))
	}
	return func() error { return s.back(before) }, nil
}

// put writes the file, by another name first, and has it read.
func (s *initSystem) put(text []byte) error {
	tmp := filepath.Join(filepath.Dir(s.file), "."+filepath.Base(s.file)+".new") // what begins with a dot is no service
	err := os.WriteFile(tmp, text, s.mode)
	if err == nil {
		err = os.Chmod(tmp, s.mode) // whatever the umask is
	}
	if err == nil {
		err = os.Rename(tmp, s.file)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("telling %s of the service: %w", s.name, err)
	}
	return s.command(context.Background(), s.reload)
}

// back brings back the file that was there before, nil for none.
func (s *initSystem) back(before []byte) error {
	if before == nil {
		return s.Remove()
	}
	return s.put(before)
}

// Remove is serviceManager.
func (s *initSystem) Remove() error {
	err := s.command(context.Background(), s.disable)
	for _, pattern := range append([]string{s.file}, s.left...) {
		files, _ := filepath.Glob(pattern) // the patterns are right
		for _, file := range files {
			err = errors.Join(err, os.Remove(file))
		}
	}
	return errors.Join(err, s.command(context.Background(), s.reload))
}

// Start is serviceManager.
func (s *initSystem) Start(ctx context.Context) error { return s.command(ctx, s.start) }

// How long after the command that stops it a service may go on, for managers that do not wait, such as launchd.
const (
	stopPatience = 40 * time.Second
	stopLook     = 100 * time.Millisecond
)

// Stop is serviceManager.
func (s *initSystem) Stop(ctx context.Context) error {
	said := s.command(ctx, s.stop)
	for end := time.Now().Add(stopPatience); s.command(ctx, s.running) == nil; time.Sleep(stopLook) {
		if time.Now().After(end) {
			return cmp.Or(said, errors.New("it does not end"))
		}
	}
	return ctx.Err() // which also ends the question whether it runs
}

// LogCommand is serviceManager.
func (s *initSystem) LogCommand() []string { return s.logs }

// optionsMark begins the line of a file in which the options stand that a person has asked for, for the next installation.
const optionsMark = "options of `appliance install`: "

// optionsLine is that line, without what makes it a comment.
func (p *ServicePlan) optionsLine() string {
	var text bytes.Buffer
	out := json.NewEncoder(&text)
	if err := out.Encode(append([]string{}, p.Options...)); err != nil { // it escapes <, > and &, which XML needs
		panic(err) // a list of strings is JSON
	}
	return optionsMark + strings.ReplaceAll(strings.TrimSpace(text.String()), "--", `\u002d-`) // XML has no -- in comments
}

// planOptions reads them from a file.
func planOptions(file []byte) (options []string) {
	_, rest, ok := bytes.Cut(file, []byte(optionsMark))
	if !ok {
		return nil
	}
	if json.NewDecoder(bytes.NewReader(rest)).Decode(&options) != nil {
		return nil
	}
	return options
}

// shellQuoted writes words for a shell.
func shellQuoted(words ...string) string {
	var out []string
	for _, w := range words {
		if w == "" || strings.ContainsFunc(w, func(r rune) bool { return !strings.ContainsRune(plainRunes, r) }) {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		out = append(out, w)
	}
	return strings.Join(out, " ")
}

// plainRunes mean nothing to a shell.
const plainRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=@,+"

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
