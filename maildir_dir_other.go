//go:build !linux

package main

import (
	"io"
	"os"
	"path/filepath"
)

// maildir_dir_linux.go says what this is for; here everything goes by the whole path.

// dirHandle is a directory.
type dirHandle struct{ path string }

// openDirHandle says that the directory is there.
func openDirHandle(path string) (*dirHandle, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	return &dirHandle{path}, nil
}

// rename gives a file in the directory a name in another or the same one.
func (d *dirHandle) rename(from string, to *dirHandle, name string) error {
	return renameFile(filepath.Join(d.path, from), filepath.Join(to.path, name))
}

// remove removes a file in the directory.
func (d *dirHandle) remove(name string) error { return removeFile(filepath.Join(d.path, name)) }

// close ends its use.
func (d *dirHandle) close() {}

// plainFile is an open file that is only read. Not safe for concurrent use.
type plainFile struct{ file *os.File }

// openPlain opens a file for reading.
func openPlain(path string) (*plainFile, error) {
	file, err := openShared(path)
	if err != nil {
		return nil, err
	}
	return &plainFile{file}, nil
}

// ReadAt is io.ReaderAt.
func (f *plainFile) ReadAt(p []byte, off int64) (int, error) { return f.file.ReadAt(p, off) }

// readOnce reads all that is asked for, or what there is.
func (f *plainFile) readOnce(p []byte, off int64) (int, error) {
	n, err := f.file.ReadAt(p, off)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// size gives the length in bytes.
func (f *plainFile) size() (int64, error) {
	st, err := f.file.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// Close closes the file.
func (f *plainFile) Close() error { return f.file.Close() }
