package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// What mailboxes a maildrop has: their directories, making, deleting and renaming them, subscriptions and special uses.

// FolderInfo describes a folder that exists on disk.
type FolderInfo struct {
	Name       string             // UTF-8, "/" between levels
	SpecialUse []imap.MailboxAttr // \Sent … or none
	dir        string
}

// Folders lists the folders that exist, by name, INBOX first. Parents that exist only by their children are not in it.
func (d *Maildrop) Folders() ([]FolderInfo, error) {
	if err := d.lockList(); err != nil {
		return nil, err
	}
	defer d.listMu.Unlock()
	return d.list()
}

func (d *Maildrop) list() ([]FolderInfo, error) {
	dirs, err := listFolderDirs(d.dir)
	if err != nil {
		return nil, err
	}
	uses := d.specialUses()
	list := []FolderInfo{{Name: inboxName, dir: "."}}
	for _, name := range dirs {
		info := FolderInfo{Name: decodeFolder(name), dir: name}
		if use := useByName(info.Name); use != "" {
			info.SpecialUse = append(info.SpecialUse, use)
		}
		for _, use := range uses[name] {
			if len(info.SpecialUse) == 0 || info.SpecialUse[0] != use {
				info.SpecialUse = append(info.SpecialUse, use)
			}
		}
		list = append(list, info)
	}
	sort.Slice(list[1:], func(i, j int) bool { return list[1+i].Name < list[1+j].Name })
	return list, nil
}

// listFolderDirs gives the directories of a maildrop's folders besides INBOX.
func listFolderDirs(drop string) ([]string, error) {
	entries, err := os.ReadDir(drop)
	if err != nil {
		return nil, fmt.Errorf("listing mailboxes: %w", err)
	}
	var dirs []string
	for _, e := range entries {
		name := e.Name()
		if len(name) < 2 || name[0] != '.' || name[1] == '.' || !e.IsDir() || decodeFolder(name) == inboxName {
			continue
		}
		dirs = append(dirs, name)
	}
	return dirs, nil
}

// findDir gives the directory of a mailbox as it is on disk, or where it would be.
func (d *Maildrop) findDir(name string) (dir string, exists bool, err error) {
	dir, err = encodeFolder(name)
	if err != nil {
		return "", false, err
	}
	if st, err := os.Stat(filepath.Join(d.dir, dir)); err == nil && st.IsDir() {
		if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
			dir, err = d.spelled(dir)
		}
		return dir, err == nil, err
	}
	// Another program may have encoded the same name in another way.
	list, err := d.list()
	if err != nil {
		return "", false, err
	}
	for _, f := range list {
		if f.Name == canonicalName(name) {
			return f.dir, true, nil
		}
	}
	return dir, false, nil
}

// spelled gives a directory's name as it is on disk. Where the file system does not tell "sent" from "Sent" both are one
// folder, and must be one in memory.
func (d *Maildrop) spelled(dir string) (string, error) {
	if dir == "." {
		return dir, nil
	}
	list, err := d.list()
	if err != nil {
		return "", err
	}
	found := dir
	for _, f := range list {
		if f.dir == dir {
			return dir, nil
		}
		if strings.EqualFold(f.dir, dir) {
			found = f.dir
		}
	}
	return found, nil
}

// CreateFolder makes a mailbox: ErrExists, ErrBadName.
func (d *Maildrop) CreateFolder(name string, use []imap.MailboxAttr) error {
	return d.CreateFolderAs(Claim{}, name, use)
}

// CreateFolderAs makes a mailbox for somebody who needs rights in the nearest mailbox above it, and so with the access list of
// that one: ErrNoRight.
func (d *Maildrop) CreateFolderAs(c Claim, name string, use []imap.MailboxAttr) error {
	if err := d.lockList(); err != nil {
		return err
	}
	defer d.listMu.Unlock()
	dir, exists, err := d.findDir(name)
	if err != nil {
		return err
	}
	acl, err := d.permitBelow(c, name)
	if err != nil {
		return err
	}
	if exists {
		return ErrExists
	}
	if err := d.makeFolder(dir, acl); err != nil {
		return diskError(err)
	}
	if len(use) > 0 {
		return diskError(d.setSpecialUse(dir, use))
	}
	return nil
}

// makeFolder makes the folder whole or not at all: under a name that no one lists, then renamed. acl is the text of its access
// list, nil for none.
func (d *Maildrop) makeFolder(dir string, acl []byte) error {
	tmp := filepath.Join(d.dir, "tmp", d.store.names.unique())
	err := makeFolderDir(tmp)
	if err == nil { // the UIDVALIDITY at once: an index may remember another folder of this name
		list := uidlist{path: filepath.Join(tmp, uidlistName), owner: d.store.lockOwner}
		head := newUIDHeader(d.newValidity())
		head.next = 1
		err = list.rewrite(head, func(func(uidEntry) bool) {})
	}
	if err == nil && acl != nil {
		err = writeFileAtomic(filepath.Join(tmp, aclName), acl)
	}
	if err == nil {
		err = renameFile(tmp, filepath.Join(d.dir, dir))
	}
	if err != nil {
		os.RemoveAll(tmp)
		return fmt.Errorf("making a mailbox: %w", err)
	}
	d.watches.created(decodeFolder(dir))
	d.accessChanged()
	return syncDir(d.dir)
}

// DeleteFolder deletes the folder and its mail, not its children: ErrNoFolder, ErrInboxFixed.
func (d *Maildrop) DeleteFolder(name string) error { return d.DeleteFolderAs(Claim{}, name) }

// DeleteFolderAs deletes a folder for somebody who needs rights in it: ErrNoRight.
func (d *Maildrop) DeleteFolderAs(c Claim, name string) error {
	if err := d.lockList(); err != nil {
		return err
	}
	defer d.listMu.Unlock()
	dir, exists, err := d.findDir(name)
	if err != nil {
		return err
	}
	if !exists {
		return ErrNoFolder
	}
	if err := d.permit(c, dir); err != nil {
		return err
	}
	if dir == "." {
		return ErrInboxFixed
	}
	// One rename takes it out of sight, so that a crash leaves either all of it or none.
	gone := filepath.Join(d.dir, "tmp", d.store.names.unique())
	if err := d.takeOut(dir, gone); err != nil {
		return fmt.Errorf("deleting a mailbox: %w", err)
	}
	d.dropMetadata(gone)
	d.watches.deleted(decodeFolder(dir))
	os.RemoveAll(gone)
	return d.setSpecialUse(dir, nil)
}

// takeOut ends a folder's life in memory, on disk by giving it the path gone, and in the index.
func (d *Maildrop) takeOut(dir, gone string) error {
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	d.mu.Lock()
	f := d.folders[dir]
	delete(d.folders, dir)
	d.mu.Unlock()
	if f != nil {
		f.markGone()
	}
	d.watches.let(dir)
	if err := renameFile(filepath.Join(d.dir, dir), gone); err != nil {
		d.watches.retake(dir)
		return err
	}
	d.usage.disturb()
	d.accessChanged()
	if ix := d.openedIndex(); ix != nil {
		ix.removeFolder(dir)
	}
	return syncDir(d.dir)
}

// RenameFolder renames a folder and its children. Renaming INBOX moves its messages to a new folder and leaves INBOX
// empty (RFC 9051 §6.3.6). Sessions that have it open keep it.
func (d *Maildrop) RenameFolder(from, to string) error {
	return d.RenameFolderAs(Claim{}, Claim{}, from, to)
}

// RenameFolderAs renames a folder for somebody who needs rights of in it, and rights below in the mailbox above its new name:
// ErrNoRight. Access lists stay with their folders.
func (d *Maildrop) RenameFolderAs(of, below Claim, from, to string) error {
	from, to = canonicalName(from), canonicalName(to)
	if from == inboxName {
		return d.renameInbox(of, below, to)
	}
	if err := d.lockList(); err != nil {
		return err
	}
	defer d.listMu.Unlock()
	if err := d.permitRename(of, below, from, to); err != nil {
		return err
	}
	if _, exists, err := d.findDir(to); err != nil {
		return err
	} else if exists {
		return ErrExists
	}
	if strings.HasPrefix(to, from+"/") {
		return ErrBadName
	}
	list, err := d.list()
	if err != nil {
		return err
	}
	type step struct{ from, to string }
	var steps []step
	for _, f := range list {
		rest, below := strings.CutPrefix(f.Name, from+"/")
		if f.Name != from && !below {
			continue
		}
		name := to
		if below {
			name = to + "/" + rest
		}
		dir, exists, err := d.findDir(name)
		if err != nil {
			return err
		}
		if exists {
			return ErrExists
		}
		steps = append(steps, step{f.dir, dir})
	}
	if len(steps) == 0 {
		return ErrNoFolder
	}
	for i, s := range steps {
		if err := d.renameDir(s.from, s.to); err != nil {
			for _, undo := range steps[:i] {
				d.renameDir(undo.to, undo.from)
				d.watches.retake(undo.from)
			}
			return diskError(fmt.Errorf("renaming a mailbox: %w", err))
		}
	}
	d.watches.renamed(from, to)
	return syncDir(d.dir)
}

// renameDir renames one directory with what is loaded and known of it, or changes nothing.
func (d *Maildrop) renameDir(from, to string) error {
	uses := d.specialUses()[from]
	if len(uses) > 0 { // said of both for a moment: a use must not get lost
		if err := d.setSpecialUse(to, uses); err != nil {
			return err
		}
	}
	if err := d.moveDir(from, to); err != nil {
		d.setSpecialUse(to, nil)
		return err
	}
	if err := d.setSpecialUse(from, nil); err != nil {
		d.log.Warn("special use of a renamed mailbox is left behind", "folder", from, "error", err)
	}
	return nil
}

// moveDir is the rename itself.
func (d *Maildrop) moveDir(from, to string) error {
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.folders[from]
	if f != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.list.endBurst() // its lock has the old path
		f.unwatch()
	}
	d.watches.let(from)
	if err := renameFile(filepath.Join(d.dir, from), filepath.Join(d.dir, to)); err != nil {
		if f != nil {
			f.watchDirs()
		}
		d.watches.retake(from)
		return err
	}
	d.usage.disturb()
	if f != nil {
		delete(d.folders, from)
		d.folders[to] = f
		f.moveTo(to)
	}
	d.accessChanged()
	if d.index != nil {
		d.index.renameFolder(from, to)
	}
	return nil
}

// renameInbox is RENAME of INBOX. That of somebody else cannot be renamed: it takes what comes in.
func (d *Maildrop) renameInbox(of, below Claim, to string) error {
	if err := d.permit(of, "."); err != nil {
		return err
	}
	if of.Who.Account != "" && !d.isOwner(of.Who) {
		return ErrInboxFixed
	}
	if err := d.CreateFolderAs(below, to, nil); err != nil {
		return err
	}
	inbox, err := d.Open(inboxName)
	if err != nil {
		return err
	}
	defer inbox.Release()
	target, err := d.Open(to)
	if err != nil {
		return err
	}
	defer target.Release()
	if err := d.copyMetadata(inbox, target); err != nil { // the mail matters more
		d.log.Warn("annotations not copied", "to", to, "error", err)
	}
	uids := inbox.allUIDs()
	if len(uids) == 0 {
		return nil
	}
	_, _, _, err = inbox.Move(uids, target)
	if errors.Is(err, ErrExpunged) { // it is empty as it is
		err = nil
	}
	return err
}

// Subscribe adds a name to the subscriptions or takes it out; the mailbox need not exist.
func (d *Maildrop) Subscribe(name string, on bool) error {
	name = canonicalName(name)
	if _, err := encodeFolder(name); err != nil {
		return err
	}
	if err := d.lockList(); err != nil {
		return err
	}
	defer d.listMu.Unlock()
	names, err := loadSubscriptions(d.dir)
	if err != nil {
		return err
	}
	i := sort.SearchStrings(names, name)
	there := i < len(names) && names[i] == name
	switch {
	case there == on:
		return nil
	case on:
		names = append(names, name)
		sort.Strings(names)
	default:
		names = append(names[:i], names[i+1:]...)
	}
	if err := saveSubscriptions(d.dir, names); err != nil {
		return diskError(err)
	}
	d.watches.subscribed(name, on)
	return nil
}

// Subscribed lists the subscriptions, sorted, those of folders that do not exist included.
func (d *Maildrop) Subscribed() ([]string, error) {
	if err := d.lockList(); err != nil {
		return nil, err
	}
	defer d.listMu.Unlock()
	return loadSubscriptions(d.dir)
}

// specialUseName is the file that holds the special uses of folders that were created with one (RFC 6154 §3): a line
// "\Use DIRECTORY" each.
const specialUseName = "special-use"

func (d *Maildrop) specialUses() map[string][]imap.MailboxAttr {
	data, err := os.ReadFile(filepath.Join(d.dir, specialUseName))
	if err != nil {
		return nil
	}
	uses := make(map[string][]imap.MailboxAttr)
	for line := range strings.Lines(string(data)) {
		use, dir, ok := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		if ok && strings.HasPrefix(use, `\`) && strings.HasPrefix(dir, ".") {
			uses[dir] = append(uses[dir], imap.MailboxAttr(use))
		}
	}
	return uses
}

func (d *Maildrop) setSpecialUse(dir string, use []imap.MailboxAttr) error {
	uses := d.specialUses()
	if len(use) == 0 && len(uses[dir]) == 0 {
		return nil
	}
	if uses == nil {
		uses = make(map[string][]imap.MailboxAttr)
	}
	uses[dir] = use
	var lines []string
	for dir, list := range uses {
		for _, u := range list {
			lines = append(lines, string(u)+" "+dir+"\n")
		}
	}
	sort.Strings(lines)
	if err := writeFileAtomic(filepath.Join(d.dir, specialUseName), []byte(strings.Join(lines, ""))); err != nil {
		return fmt.Errorf("writing the special uses: %w", err)
	}
	return nil
}
