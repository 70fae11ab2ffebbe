//go:build !windows

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// becomeOwner gives up root for the user whose folder it is, for good. Root that works in the folder of somebody else would
// leave files there that this one cannot read. Where the folder is root's own or not there, and for anybody but root, nothing
// changes.
func becomeOwner(folder string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking whose folder it is: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 {
		return nil
	}
	return becomeUser(int(st.Uid), int(st.Gid))
}

// becomeUser changes user, group and the groups beside it in all threads.
func becomeUser(uid, gid int) error {
	err := syscall.Setgroups(groupsOf(uid, gid))
	if err == nil {
		err = syscall.Setgid(gid)
	}
	if err == nil {
		err = syscall.Setuid(uid)
	}
	if err != nil {
		return fmt.Errorf("giving up the rights of root: %w", err)
	}
	if syscall.Setuid(0) == nil {
		return errors.New("the rights of root could not be given up")
	}
	return nil
}

// groupsOf gives the groups that the user is a member of, as far as they are known.
func groupsOf(uid, gid int) []int {
	groups := []int{gid}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return groups
	}
	ids, err := u.GroupIds()
	if err != nil {
		return groups
	}
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err == nil && n != gid && n != 0 {
			groups = append(groups, n)
		}
	}
	return groups
}
