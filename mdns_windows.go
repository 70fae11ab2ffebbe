package main

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// bindsGroups says that a socket can be bound to a multicast group.
const bindsGroups = false

// shareAddress lets other programs on this machine speak multicast DNS, too.
func shareAddress(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = windows.SetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_REUSEADDR, 1)
	})
	if err == nil {
		err = failed
	}
	return err
}
