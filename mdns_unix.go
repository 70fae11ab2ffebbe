//go:build unix

package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// bindsGroups says that a socket can be bound to a multicast group.
const bindsGroups = true

// shareAddress lets other programs on this machine speak multicast DNS, too.
func shareAddress(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		if failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); failed == nil {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
	})
	if err == nil {
		err = failed
	}
	return err
}
