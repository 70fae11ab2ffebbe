package main

import "golang.org/x/sys/windows"

// freeSpace tells what is free where a folder lies.
func freeSpace(dir string) (diskSpace, error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return diskSpace{}, err
	}
	var free, all uint64
	if err := windows.GetDiskFreeSpaceEx(path, &free, &all, nil); err != nil {
		return diskSpace{}, err
	}
	return diskSpace{free: int64(free), all: int64(all)}, nil
}
