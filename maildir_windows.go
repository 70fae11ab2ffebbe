package main

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/windows"
)

// syncDir does nothing: Windows has no fsync of a directory, NTFS journals its entries itself.
func syncDir(string) error { return nil }

// isDiskFull knows the errors of a full disk or a used-up quota.
func isDiskFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) || errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}

// fileID is 0: a rename on NTFS changes size or time as well, which is enough here.
func fileID(fs.FileInfo) uint64 { return 0 }

// processAlive says whether a process of this number runs.
func processAlive(pid int) bool {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return errors.Is(err, windows.ERROR_ACCESS_DENIED)
	}
	defer windows.CloseHandle(h)
	var code uint32
	return windows.GetExitCodeProcess(h, &code) == nil && code == 259 // STILL_ACTIVE
}
