package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Installation puts the program in its place and has it run as a service.
type Installation struct {
	Plan ServicePlan
	// Ready returns nil when the service answers that was started after a time, or says why it does not come up.
	Ready func(ctx context.Context, started time.Time) error
	// Why gives the reason why it has ended since then, nil where none is known.
	Why func(started time.Time) error

	manager serviceManager
	undo    []func() error // what brings the system back, the last step last
}

// NewInstallation finds the service manager and completes the plan with what is usual on this system.
func NewInstallation(plan ServicePlan) (*Installation, error) {
	manager, err := managerHere()
	if err != nil {
		return nil, err
	}
	plan.Program, plan.User = usualProgram(manager), serviceName
	return &Installation{Plan: plan, manager: manager}, nil
}

// State is what the service manager knows.
func (in *Installation) State() ServiceState { return in.manager.State() }

// LogCommand prints what the service has logged; nil where it writes a file.
func (in *Installation) LogCommand() []string { return in.manager.LogCommand() }

// previous is where the program lies that was there before, while it may be needed again.
func (in *Installation) previous() string { return besides(in.Plan.Program, "previous") }

// besides is the name of another file beside a program, which can be run as well.
func besides(program, what string) string {
	ext := filepath.Ext(program)
	return program[:len(program)-len(ext)] + "." + what + ext
}

// Install installs the service from the file of this process and returns when it answers. Where one is installed already, this
// one takes its place; if it does not come up, the one from before is brought back and runs again.
func (in *Installation) Install(ctx context.Context) error {
	fresh, err := copyProgram(in.Plan.Program)
	if err != nil {
		return err
	}
	if fresh != "" {
		defer os.Remove(fresh) // gone by then, mostly
	}
	before := in.State()
	if err := in.place(ctx, fresh); err != nil {
		return in.takeBack(ctx, before, err)
	}
	if err := in.Start(ctx); err != nil {
		return in.takeBack(ctx, before, err)
	}
	_ = os.Remove(in.previous()) // there may be none
	return nil
}

// place puts everything in its place, the new program first; "" where it lies there. The service does not run afterwards.
func (in *Installation) place(ctx context.Context, fresh string) error {
	if in.State().Running {
		if err := in.manager.Stop(ctx); err != nil {
			return fmt.Errorf("stopping the service that runs: %w", err)
		}
	}
	if fresh != "" {
		if err := in.swap(fresh); err != nil {
			return err
		}
	}
	undo, err := prepareSystem(&in.Plan)
	if err != nil {
		return err
	}
	in.undo = append(in.undo, undo)
	undo, err = in.manager.Write(&in.Plan)
	if err == nil {
		in.undo = append(in.undo, undo)
	}
	return err
}

// swap puts the new program in the place of the one that is there, which is kept until all is well.
func (in *Installation) swap(fresh string) error {
	err := renameFile(in.Plan.Program, in.previous())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("setting the program from before aside: %w", err)
	}
	first := err != nil
	in.undo = append(in.undo, func() error {
		if first {
			return os.Remove(in.Plan.Program)
		}
		return renameFile(in.previous(), in.Plan.Program)
	})
	if err := renameFile(fresh, in.Plan.Program); err != nil {
		return fmt.Errorf("putting the program in its place: %w", err)
	}
	return nil
}

// takeBack brings back what was there before a failed installation, and says what became of it.
func (in *Installation) takeBack(ctx context.Context, before ServiceState, why error) error {
	ctx = context.WithoutCancel(ctx) // also when somebody has pressed Ctrl-C
	trouble := in.manager.Stop(ctx)
	if !in.State().Running {
		trouble = nil // there was nothing to stop
	}
	for i := len(in.undo) - 1; i >= 0; i-- {
		trouble = errors.Join(trouble, in.undo[i]())
	}
	if trouble != nil {
		return fmt.Errorf("%w; and what was there before could not be brought back: %w", why, trouble)
	}
	if !before.Installed {
		return fmt.Errorf("%w; nothing was installed", why)
	}
	if !before.Running {
		return fmt.Errorf("%w; the program from before is in its place again, and does not run, as before", why)
	}
	if err := in.Start(ctx); err != nil {
		return fmt.Errorf("%w; the program from before is in its place again, but does not come up, either: %w", why, err)
	}
	return fmt.Errorf("%w; the program from before is in its place again, and runs", why)
}

// copyProgram copies the file of this process beside the place where it belongs, and gives the copy's name; "" if this process
// comes from there.
func copyProgram(to string) (fresh string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding the file of this program: %w", err)
	}
	if a, err := os.Stat(self); err == nil {
		if b, err := os.Stat(to); err == nil && os.SameFile(a, b) {
			return "", nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return "", fmt.Errorf("making the folder of the program: %w", err)
	}
	fresh = besides(to, "new")
	if err := copyExecutable(self, fresh); err != nil {
		_ = os.Remove(fresh)
		return "", fmt.Errorf("putting the program in its place: %w", err)
	}
	return fresh, nil
}

func copyExecutable(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Chmod(0o755) // whatever the umask is
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// Uninstall stops the service and removes all but its folder, which is its administrator's then.
func (in *Installation) Uninstall(ctx context.Context) error {
	if in.State().Running {
		if err := in.manager.Stop(ctx); err != nil {
			return fmt.Errorf("stopping the service: %w", err)
		}
	}
	if err := in.manager.Remove(); err != nil {
		return fmt.Errorf("removing the service: %w", err)
	}
	err := leaveSystem(&in.Plan)
	for _, file := range []string{in.Plan.Program, in.previous(), besides(in.Plan.Program, "new")} {
		if e := removeProgram(file); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Start starts the service and returns when it answers.
func (in *Installation) Start(ctx context.Context) error {
	started := time.Now()
	if err := in.manager.Start(ctx); err != nil {
		return fmt.Errorf("the service did not come up: %w", cmp.Or(in.Why(started), err))
	}
	if err := in.Ready(ctx, started); err != nil {
		return fmt.Errorf("the service did not come up: %w", err)
	}
	return nil
}

// Stop stops it.
func (in *Installation) Stop(ctx context.Context) error {
	if err := in.manager.Stop(ctx); err != nil {
		return fmt.Errorf("stopping the service: %w", err)
	}
	return nil
}
