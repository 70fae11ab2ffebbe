//go:build !windows

package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile takes an exclusive lock that lasts until the file is closed, or
// gives errInUse at once.
func lockFile(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return errInUse
		default:
			return fmt.Errorf("locking the data folder: %w", err)
		}
	}
}

// closeToOthers has nothing to do where the mode of the folder says it all.
func closeToOthers(string) error { return nil }
