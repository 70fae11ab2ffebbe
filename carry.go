package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Carry gives what lies in a data folder the names that another system can hold, before the folder is copied there, or those
// that other mail programs here know, after it has come. The appliance reads both anywhere, so a run that was broken off does
// no harm. UIDs, flags and keywords are kept under the part of a name that stays.

// What carry can be told to make a folder ready for.
const (
	carryToWindows = "windows" // semicolons; no folder has a character that Windows refuses
	carryToUnix    = "unix"    // colons, as all programs but ours want them
)

// carrier is one run. The data folder is locked by its owner.
type carrier struct {
	dir    dataDir
	to     string
	done   int     // names that were changed
	failed trouble // names that could not be, or not enough
}

// run changes all names. It ends early only where ctx ends or a folder cannot be read.
func (c *carrier) run(ctx context.Context) error {
	drops, err := filepath.Glob(filepath.Join(globEscape(c.dir.mail()), "*", "*"))
	if err != nil {
		return err
	}
	for _, drop := range drops {
		if st, err := os.Stat(drop); err != nil || !st.IsDir() {
			continue
		}
		dirs, err := listFolderDirs(drop)
		if err != nil {
			return err
		}
		for _, dir := range append([]string{"."}, dirs...) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := c.folder(filepath.Join(drop, dir)); err != nil {
				return err
			}
			if c.to == carryToWindows && dir != "." {
				c.rename(drop, dir, windowsFolder(dir))
			}
		}
		if err := syncDir(drop); err != nil {
			return err
		}
	}
	return nil
}

// globEscape keeps a path from being read as a pattern.
func globEscape(path string) string {
	var b []byte
	for i := 0; i < len(path); i++ {
		switch c := path[i]; c {
		case '*', '?', '[':
			b = append(b, '[', c, ']')
		default:
			b = append(b, c)
		}
	}
	return string(b)
}

// folder changes the names of one folder's messages.
func (c *carrier) folder(dir string) error {
	for _, sub := range [...]string{"cur", "new"} {
		path, before := filepath.Join(dir, sub), c.done
		names, err := listNames(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading a folder of mail: %w", err)
		}
		for _, name := range names {
			c.rename(path, name, c.messageName(name))
		}
		if c.done == before {
			continue
		}
		if err := syncDir(path); err != nil {
			return fmt.Errorf("renaming mail: %w", err)
		}
	}
	return nil
}

// messageName gives the name that a message is to have.
func (c *carrier) messageName(name string) string {
	base, info := splitName(name)
	if info == "" {
		var ok bool
		if base, info, ok = unmangled(name); !ok {
			return name
		}
	}
	if len(info) < 3 || info[1:3] != "2," {
		return name
	}
	if c.to == carryToWindows {
		return base + ";" + info[1:]
	}
	return base + ":" + info[1:]
}

// windowsFolder gives the directory of a folder a name that Windows can hold, where another program has given it one that
// Windows cannot.
func windowsFolder(dir string) string {
	if windowsNameTrouble(dir) == "" {
		return dir
	}
	if other, err := encodeFolder(decodeFolder(dir)); err == nil {
		return other
	}
	return dir
}

// rename changes one name, never onto another file, and notes what Windows cannot hold even so.
func (c *carrier) rename(dir, from, to string) {
	if why := windowsNameTrouble(to); why != "" && c.to == carryToWindows {
		c.failed.add(filepath.Join(dir, to) + ": " + why)
	}
	if from == to {
		return
	}
	target := filepath.Join(dir, to)
	_, err := os.Lstat(target)
	if err == nil {
		c.failed.add(target + " is there already")
		return
	}
	if err := renameFile(filepath.Join(dir, from), target); err != nil {
		c.failed.add(filepath.Join(dir, from) + ": " + cause(err))
		return
	}
	c.done++
}
