//go:build !windows

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// usualProgram is where the service's program lies.
func usualProgram(manager serviceManager) string { return manager.(*initSystem).program }

// elevated is a command as an administrator gives it, whoever this process is: those who have sudo mostly use it.
func elevated(command string) string {
	if _, err := exec.LookPath("sudo"); err != nil {
		return command
	}
	return "sudo " + command
}

// requireAdministrator says what to do, unless this is root.
func requireAdministrator(command string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	return fmt.Errorf("only root can do this; run it with sudo: sudo %s", command)
}

// prepareSystem makes the user of the service and gives it the folder.
func prepareSystem(plan *ServicePlan) (undo func() error, err error) {
	made, err := makeUser(plan.User, plan.Data)
	if err != nil {
		return nil, err
	}
	undo = func() error {
		if made {
			return leaveSystem(plan)
		}
		return nil
	}
	uid, gid, err := idsOf(plan.User)
	if err == nil && uid == 0 {
		err = fmt.Errorf("the user %s is root under another name: the service cannot run as it", plan.User)
	}
	if err == nil {
		err = os.MkdirAll(plan.Data, 0o700)
	}
	if err == nil {
		err = giveFolder(plan.Data, uid, gid)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("giving the folder %s to the user %s: %w", plan.Data, plan.User, err), undo())
	}
	return undo, nil
}

// leaveSystem gives the folder to root and removes the user: whoever gets its number next shall not read the mail.
func leaveSystem(plan *ServicePlan) error {
	u, err := user.Lookup(plan.User)
	if err != nil {
		return nil // somebody has removed it
	}
	if err := giveFolder(plan.Data, 0, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("giving the folder %s to root: %w", plan.Data, err)
	}
	if u.Name != serviceTitle {
		return nil // it was there before
	}
	return removeUser(plan.User)
}

// giveFolder makes a folder with all that is in it somebody's. It follows no links out of it.
func giveFolder(dir string, uid, gid int) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != "." {
			return nil
		}
		if err != nil {
			return err
		}
		if info, err := entry.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == uid && int(st.Gid) == gid {
				return nil
			}
		}
		if err := root.Lchown(path, uid, gid); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

func idsOf(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, err
	}
	uid, err = strconv.Atoi(u.Uid)
	if err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	return uid, gid, err
}

// removeProgram removes a program, which may be that of this process.
func removeProgram(file string) error { return os.Remove(file) }

// deleteWords is the command that deletes a folder.
func deleteWords(dir string) string { return "rm -r " + shellQuoted(dir) }
