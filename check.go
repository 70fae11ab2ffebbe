package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// The check reads a data folder, of an appliance that runs or not or a copy somewhere, and says what stands in the way of
// running it, here or on another system. It changes nothing.
//
// check_names.go knows which names which system can hold, check_mail.go reads maildrops, check_files.go the files of text and
// the queue, check_owner_*.go who may read what. carry.go gives the names that another system can hold.

// The systems that a data folder can be made ready for.
const (
	systemLinux   = "linux" // and all others that are like it
	systemMacOS   = "macos"
	systemWindows = "windows"
)

// thisSystem is the one that this program was built for.
func thisSystem() string {
	switch runtime.GOOS {
	case "windows":
		return systemWindows
	case "darwin":
		return systemMacOS
	}
	return systemLinux
}

// FolderCheck looks at one data folder.
type FolderCheck struct {
	Dir    dataDir
	System string // the folder is to run there, one of the three above; things of other systems are only noted
}

// Examine looks at everything and gives what was found, always in the same order. It takes about as long as listing all files,
// and fails only where there is no folder, or where ctx ends.
func (c *FolderCheck) Examine(ctx context.Context) ([]Finding, error) {
	if err := c.Dir.mustBeThere(); err != nil {
		return nil, err
	}
	look := newFolderLook(c)
	if err := filepath.WalkDir(string(c.Dir), func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return look.at(path, d, err)
	}); err != nil {
		return nil, err
	}
	return slices.Concat(look.ownFindings(), look.readableFindings(), look.ownerFindings(), look.textFindings(), look.mailFindings(), look.nameFindings(), look.queueFindings(), look.lockFindings()), nil
}

// elsewhere makes the state of what another system cannot have a note, unless the folder is to go there.
func (c *FolderCheck) elsewhere(state FindingState, systems ...string) FindingState {
	if slices.Contains(systems, c.System) {
		return state
	}
	return StateNote
}

// trouble counts things of one kind and remembers the first.
type trouble struct {
	count int
	first string // which, below the data folder, and where need be what is wrong with it
}

func (t *trouble) add(which string) {
	if t.count++; t.count == 1 {
		t.first = which
	}
}

// words gives "1 message has" or "3 messages have", and which.
func (t *trouble) words(one, many string) string {
	if t.count == 1 {
		return fmt.Sprintf("1 %s (%s)", one, t.first)
	}
	return fmt.Sprintf("%d %s (the first is %s)", t.count, many, t.first)
}

// folderLook gathers what there is in a data folder.
type folderLook struct {
	check *FolderCheck

	unreadable, links trouble
	owners            ownerLook
	names             nameLook
	mail              mailLook
	locks             []string // paths of lock files in the mail
}

func newFolderLook(c *FolderCheck) *folderLook { return &folderLook{check: c} }

// at takes one entry of the folder in. The cache is left out: it can be deleted.
func (l *folderLook) at(path string, d fs.DirEntry, err error) error {
	below := l.below(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) { // a running appliance renames and removes
			l.unreadable.add(below + ": " + cause(err))
		}
		if d != nil && d.IsDir() {
			return fs.SkipDir
		}
		return nil
	}
	if path == l.check.Dir.index() {
		return fs.SkipDir
	}
	info, err := d.Info()
	if err != nil {
		return nil // gone
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		l.links.add(below)
		return nil
	}
	l.owners.at(l.check.Dir, path, below, info)
	if path != string(l.check.Dir) {
		l.names.at(path, below, d.Name())
	}
	if inMail, ok := strings.CutPrefix(path, l.check.Dir.mail()+string(filepath.Separator)); ok {
		return l.inMail(path, inMail, d)
	}
	if info.Mode().IsRegular() && info.Size() > 0 {
		l.open(path, below)
	}
	return nil
}

// open says whether a file can be read.
func (l *folderLook) open(path, below string) {
	file, err := os.Open(path)
	if err == nil {
		_ = file.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		l.unreadable.add(below + ": " + cause(err))
	}
}

// below names a path as people find it in the folder.
func (l *folderLook) below(path string) string {
	if rel, err := filepath.Rel(string(l.check.Dir), path); err == nil && rel != "." {
		return tameWords(filepath.ToSlash(rel))
	}
	return "the folder itself"
}

// cause is an error of the system without the path, which is said already.
func cause(err error) string {
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	return oneLineText(err.Error())
}

func oneLineText(s string) string { return strings.Join(strings.Fields(s), " ") }

// ownFindings says whose folder it is at the moment.
func (l *folderLook) ownFindings() []Finding {
	if l.check.Dir.inUse() {
		return single("running", "", StateNote, "An appliance"+l.check.Dir.owner()+" runs with this folder: what it is just doing may look odd.", "Before the folder is copied, stop it.")
	}
	return single("running", "", StateOK, "No appliance runs with this folder.", "")
}

// readableFindings says whether all can be read, and what is not a file of its own.
func (l *folderLook) readableFindings() []Finding {
	found := single("readable", "", StateOK, "All files can be read.", "")
	if l.unreadable.count > 0 {
		found = single("readable", "", StateBad, "Not all can be read: "+l.unreadable.words("file or folder cannot", "files and folders cannot")+".", unreadableDo(string(l.check.Dir)))
	}
	if l.links.count > 0 {
		found = append(found, Finding{Name: "links", State: StateWarn, Sentence: "Some of the folder lies elsewhere: " + l.links.words("symbolic link leads out of it", "symbolic links lead out of it") + ".",
			Do: "Copy what they lead to as well, and put it in their place."})
	}
	return found
}

// lockFindings tells of locks that somebody has left.
func (l *folderLook) lockFindings() []Finding {
	var stale trouble
	here, _ := os.Hostname()
	for _, path := range l.locks {
		text, err := os.ReadFile(path)
		_, host, known := strings.Cut(strings.TrimSpace(string(text)), ":")
		if err == nil && known && host != here || lockIsStale(path, "0:"+here) { // made on the machine that the folder comes from, or left
			stale.add(l.below(path))
		}
	}
	if stale.count == 0 {
		return single("locks", "", StateOK, "No lock has been left over.", "")
	}
	return single("locks", "", StateWarn, "Locks of programs that are gone are left: "+stale.words("file", "files")+".", "Delete them while no mail program works on the folder.")
}

// keysInOrder gives the keys of a map in order.
func keysInOrder[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
