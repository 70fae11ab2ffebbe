package main

import (
	"context"
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// watchNetworks tells of every change of interfaces and addresses, until ctx ends: the kernel says so (rtnetlink(7)).
func watchNetworks(ctx context.Context, changed func()) {
	events, err := openNetlink()
	if err != nil {
		watchByClock(ctx, changed)
		return
	}
	defer events.Close()
	defer context.AfterFunc(ctx, func() { _ = events.Close() })()
	buf := make([]byte, 16<<10)
	for ctx.Err() == nil {
		_, err := events.Read(buf)
		if err != nil && !errors.Is(err, syscall.ENOBUFS) { // then some were lost
			if ctx.Err() == nil {
				watchByClock(ctx, changed)
			}
			return
		}
		changed()
	}
}

func openNetlink() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR}); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}
