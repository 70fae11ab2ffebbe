//go:build !windows

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
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
	owner, group, old := ownerOf(plan.Data)
	undo = func() (err error) {
		if made {
			err = leaveSystem(plan)
		}
		if old {
			return errors.Join(err, giveFolder(plan.Data, owner, group))
		}
		_ = os.Remove(plan.Data) // if nothing is in it
		return err
	}
	if err := moveIn(plan); err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}

// moveIn makes the folder, if it is not there, and gives it to the user.
func moveIn(plan *ServicePlan) error {
	uid, gid, err := idsOf(plan.User)
	if err != nil {
		return fmt.Errorf("looking for the user %s: %w", plan.User, err)
	}
	if uid == 0 {
		return fmt.Errorf("the user %s is root under another name: the service cannot run as it", plan.User)
	}
	above := filepath.Dir(plan.Data)
	if err = os.MkdirAll(above, 0o755); err == nil && !reaches(uid, gid, above) {
		return fmt.Errorf("the user %s, as whom the service runs, does not get into %s: it, or a folder above it, is closed to others; choose another place with --data DIR, such as /srv/mail",
			plan.User, above)
	}
	if err == nil {
		err = os.MkdirAll(plan.Data, 0o700)
	}
	if err == nil {
		err = plan.fill()
	}
	if err == nil {
		err = giveFolder(plan.Data, uid, gid)
	}
	if err != nil {
		return fmt.Errorf("giving the folder %s to the user %s: %w", plan.Data, plan.User, err)
	}
	return nil
}

// reaches says whether a user gets into a folder. The system is asked, which knows more than modes.
func reaches(uid, gid int, dir string) bool {
	cmd := exec.Command("sh", "-c", `cd "$0"`, dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return cmd.Run() == nil
}

// ownerOf gives whose a folder is; !ok: it is not there.
func ownerOf(dir string) (uid, gid int, ok bool) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return int(st.Uid), int(st.Gid), true
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
