package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// lockFile takes an exclusive lock that lasts until the file is closed, or
// gives errInUse at once. It covers one byte far behind the content, which
// others may so still read.
func lockFile(f *os.File) error {
	at := &windows.Overlapped{OffsetHigh: 1}
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, windows.ERROR_LOCK_VIOLATION), errors.Is(err, windows.ERROR_IO_PENDING):
		return errInUse
	}
	return fmt.Errorf("locking the data folder: %w", err)
}

// closeToOthers leaves the folder and what will be in it to its owner, the
// system and the administrators. File modes say nothing here, and below
// %ProgramData% everybody may read.
func closeToOthers(path string) error { return letIn(path, "") }
