//go:build linux || darwin || freebsd

package main

import "golang.org/x/sys/unix"

// freeSpace tells what is free where a folder lies.
func freeSpace(dir string) (diskSpace, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return diskSpace{}, err
	}
	return diskSpace{
		free:   int64(s.Bavail) * int64(s.Bsize),
		all:    int64(s.Blocks) * int64(s.Bsize),
		files:  int64(s.Ffree),
		counts: s.Files > 0, // btrfs and others make them as they are needed
	}, nil
}
