package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/windows"
)

// syncDir does nothing: Windows has no fsync of a directory, NTFS journals its entries itself.
func syncDir(string) error { return nil }

// Virus scanners, indexers and backups open files for a moment, and nobody can rename or remove them meanwhile.
const (
	busyPatience   = 2 * time.Second
	busyFirstPause = 5 * time.Millisecond
	busyMaxPause   = 200 * time.Millisecond
)

// whileBusy tries again for a while what another program is in the way of.
func whileBusy(try func() error) error {
	end, pause := time.Now().Add(busyPatience), busyFirstPause
	for {
		err := try()
		if !isBusy(err) || time.Now().After(end) {
			return err
		}
		time.Sleep(pause)
		pause = min(2*pause, busyMaxPause)
	}
}

// isBusy knows the errors of files that another program has open. A denied access is among them: that is what Windows says of a
// file that is to be replaced, or that is on its way out.
func isBusy(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_LOCK_VIOLATION) ||
		errors.Is(err, windows.ERROR_USER_MAPPED_FILE) || errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_DELETE_PENDING)
}

// renameFile is os.Rename, which waits for a program that has one of the files open.
func renameFile(from, to string) error { return whileBusy(func() error { return os.Rename(from, to) }) }

// removeFile is os.Remove, which waits for a program that has the file open.
func removeFile(path string) error { return whileBusy(func() error { return os.Remove(path) }) }

// openShared opens a file for reading, and lets it be renamed and removed meanwhile, which os.Open does not: a message gets
// another name while somebody reads it.
func openShared(path string) (*os.File, error) { return openSharedFile(path, os.O_RDONLY, 0) }

// openSharedFile is the same with os.O_RDWR and os.O_CREATE. Who may do what with a new file is said by its folder.
func openSharedFile(path string, flag int, _ fs.FileMode) (*os.File, error) {
	access, way := uint32(windows.GENERIC_READ), uint32(windows.OPEN_EXISTING)
	if flag&os.O_RDWR != 0 {
		access |= windows.GENERIC_WRITE
	}
	if flag&os.O_CREATE != 0 {
		way = windows.OPEN_ALWAYS
	}
	name, err := windows.UTF16PtrFromString(longPath(path))
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	h, err := windows.CreateFile(name, access, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE,
		nil, way, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(h), path), nil
}

// longPath gives the form of a path that may be longer than Windows has long allowed (MAX_PATH). Go's own functions do that
// themselves.
func longPath(path string) string {
	const short = 248
	if len(path) < short || !filepath.IsAbs(path) || strings.HasPrefix(path, `\\`) {
		return path
	}
	return `\\?\` + filepath.Clean(path)
}

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
