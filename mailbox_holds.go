package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Holds says whether one of the maildrop's files, in whatever folder, has exactly this content: size bytes with this
// SHA-256. It reads names, and only files of the size. Another program may rename files meanwhile: it looks twice before it
// says no.
func (d *Maildrop) Holds(size int64, hash [sha256.Size]byte) (bool, error) {
	for range 2 {
		held, err := d.holds(size, hash)
		if held || err != nil {
			return held, err
		}
	}
	return false, nil
}

func (d *Maildrop) holds(size int64, hash [sha256.Size]byte) (bool, error) {
	folders, err := os.ReadDir(d.dir)
	if err != nil {
		return false, fmt.Errorf("looking for a message: %w", err)
	}
	dirs := []string{d.dir}
	for _, e := range folders {
		if e.IsDir() && strings.HasPrefix(e.Name(), ".") {
			dirs = append(dirs, filepath.Join(d.dir, e.Name()))
		}
	}
	for _, dir := range dirs {
		for _, sub := range [...]string{"new", "cur"} {
			held, err := dirHolds(filepath.Join(dir, sub), size, hash)
			if held || err != nil {
				return held, err
			}
		}
	}
	return false, nil
}

// dirHolds looks through one directory.
func dirHolds(dir string, size int64, hash [sha256.Size]byte) (bool, error) {
	names, err := listNames(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("looking for a message: %w", err)
	}
	for _, name := range names {
		base, _ := splitName(name)
		if stored, _ := baseSizes(base); stored != size {
			continue
		}
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) { // renamed just now
			continue
		}
		if err != nil {
			return false, fmt.Errorf("looking for a message: %w", err)
		}
		sum := sha256.New()
		_, err = io.Copy(sum, f)
		f.Close()
		if err == nil && [sha256.Size]byte(sum.Sum(nil)) == hash {
			return true, nil
		}
	}
	return false, nil
}
