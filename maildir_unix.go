//go:build !windows

package main

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// syncDir puts the entries of a directory on disk. File systems that cannot (some network and FUSE ones answer EINVAL)
// are taken at their word: there is nothing more to ask of them.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}

// renameFile is os.Rename, where no other program can be in the way.
func renameFile(from, to string) error { return os.Rename(from, to) }

// removeFile is os.Remove, where no other program can be in the way.
func removeFile(path string) error { return os.Remove(path) }

// openShared opens a file for reading. Nothing that others do to its name is in the way here.
func openShared(path string) (*os.File, error) { return os.Open(path) }

// openSharedFile is os.OpenFile for the same reason.
func openSharedFile(path string, flag int, mode fs.FileMode) (*os.File, error) {
	return os.OpenFile(path, flag, mode)
}

// isDiskFull knows the errors of a full disk or a used-up quota.
func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// fileID tells files apart that have had the same name one after the other.
func fileID(st fs.FileInfo) uint64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Ino)
	}
	return 0
}

// processAlive says whether a process of this number runs.
func processAlive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
