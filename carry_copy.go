package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// takingName is where the copy lies in the new folder until it is whole.
const takingName = "taking-over"

// notTaken is what belongs to a process that has the folder, and not to the folder.
func notTaken(path string) bool {
	return path == "lock" || path == "control.json" || path == takingName
}

// copyDataDir copies a data folder into another that has no accounts yet. The accounts come last: a folder that has them is whole.
func copyDataDir(from, to dataDir) error {
	if err := to.make(); err != nil {
		return err
	}
	lock, err := to.tryLock()
	if err != nil {
		return err
	}
	defer lock.release()
	staging := to.in(takingName)
	if err := os.RemoveAll(staging); err != nil { // of a copy that was interrupted
		return err
	}
	if err := copyTree(string(from), staging, to); err != nil {
		return errors.Join(err, os.RemoveAll(staging))
	}
	entries, err := os.ReadDir(staging)
	if err != nil {
		return err
	}
	accounts := filepath.Base(to.accounts())
	for _, e := range entries {
		if e.Name() == accounts {
			continue
		}
		if _, err := os.Lstat(to.in(e.Name())); err == nil {
			return fmt.Errorf("%s is there already: choose another folder with --data DIR, or set it aside", to.in(e.Name()))
		}
		if err := os.Rename(filepath.Join(staging, e.Name()), to.in(e.Name())); err != nil {
			return err
		}
	}
	if err := syncDir(string(to)); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(staging, accounts), to.accounts()); err != nil {
		return err
	}
	return errors.Join(os.Remove(staging), syncDir(string(to)))
}

// copyTree copies files and folders with their modes and dates, and no links: what somebody has put into their own folder shall not
// bring files of others into the service's. Each folder is on disk when it returns.
func copyTree(from, to string, disk dataDir) error {
	root, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := enoughFor(root.FS(), string(disk)); err != nil {
		return err
	}
	var folders []string
	err = fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case notTaken(path):
			return skipped(entry)
		case entry.IsDir():
			folders = append(folders, filepath.Join(to, path))
			return os.Mkdir(filepath.Join(to, path), 0o700)
		case !entry.Type().IsRegular():
			return nil
		}
		return copyOut(root, path, filepath.Join(to, path))
	})
	for _, dir := range folders {
		err = errors.Join(err, syncDir(dir))
	}
	return err
}

// skipped goes on behind an entry.
func skipped(entry fs.DirEntry) error {
	if entry.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// enoughFor says whether the files of a folder fit where another one lies.
func enoughFor(files fs.FS, disk string) error {
	var need int64
	err := fs.WalkDir(files, ".", func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := entry.Info(); err == nil && entry.Type().IsRegular() {
			const block = 4096 // octets; small files take one
			need += (info.Size() + block - 1) / block * block
		}
		return nil
	})
	if err != nil {
		return err
	}
	const reserve = 64 << 20 // octets, for what comes in
	if space, err := freeSpace(disk); err == nil && space.free < need+reserve {
		return fmt.Errorf("the disk has %s free, and %s are needed", roundSize(space.free), roundSize(need+reserve))
	}
	return nil
}

// copyOut copies one file. It is on disk when it returns.
func copyOut(root *os.Root, path, to string) error {
	src, err := root.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	if err := copyOpen(src, to); err != nil {
		return err
	}
	return os.Chmod(to, info.Mode().Perm())
}
