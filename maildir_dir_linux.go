package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"
)

// A batch of changes names its files relative to the open directory, so that the system does not walk the whole path twice
// for each of thousands; and a message's file is read without what os.File does for pipes and terminals, which costs five
// calls of the system for each. maildir_dir_other.go has the same in the plain form.

// dirHandle is an open directory. It goes on to mean the same directory when that is renamed, so it is opened for one batch
// and not kept. Not safe for concurrent use with close.
type dirHandle struct {
	fd   int
	path string // for errors
}

// openDirHandle opens a directory.
func openDirHandle(path string) (*dirHandle, error) {
	fd, err := retryEINTR(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &dirHandle{fd, path}, nil
}

// rename gives a file in the directory a name in another or the same one.
func (d *dirHandle) rename(from string, to *dirHandle, name string) error {
	_, err := retryEINTR(func() (int, error) { return 0, unix.Renameat(d.fd, from, to.fd, name) })
	if err != nil {
		return fmt.Errorf("rename %s/%s to %s/%s: %w", d.path, from, to.path, name, err)
	}
	return nil
}

// remove removes a file in the directory.
func (d *dirHandle) remove(name string) error {
	_, err := retryEINTR(func() (int, error) { return 0, unix.Unlinkat(d.fd, name, 0) })
	if err != nil {
		return fmt.Errorf("remove %s/%s: %w", d.path, name, err)
	}
	return nil
}

// close closes the handle.
func (d *dirHandle) close() { unix.Close(d.fd) }

// plainFile is an open file that is only read. A second Close does nothing. Not safe for concurrent use.
type plainFile struct{ fd int }

// openPlain opens a file for reading.
func openPlain(path string) (*plainFile, error) {
	fd, err := retryEINTR(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &plainFile{fd}, nil
}

// ReadAt is io.ReaderAt.
func (f *plainFile) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := retryEINTR(func() (int, error) { return unix.Pread(f.fd, p[done:], off+int64(done)) })
		if err != nil {
			return done, fmt.Errorf("reading a file: %w", err)
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

// readOnce reads what one call of the system gives: all that is asked for, or what there is.
func (f *plainFile) readOnce(p []byte, off int64) (int, error) {
	return retryEINTR(func() (int, error) { return unix.Pread(f.fd, p, off) })
}

// size gives the length in bytes.
func (f *plainFile) size() (int64, error) {
	var st unix.Stat_t
	if _, err := retryEINTR(func() (int, error) { return 0, unix.Fstat(f.fd, &st) }); err != nil {
		return 0, fmt.Errorf("looking at a file: %w", err)
	}
	return st.Size, nil
}

// Close closes the file.
func (f *plainFile) Close() error {
	if f.fd < 0 {
		return nil
	}
	fd := f.fd
	f.fd = -1
	return unix.Close(fd)
}

// retryEINTR calls again what a signal has interrupted.
func retryEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
