package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Who may do what in which mailbox: the access lists (acl.go) of the folders on disk, looked at anew whenever somebody asks, and
// read anew when their files have changed.

// Claim is who wants something, and the rights in a mailbox that it takes. The zero Claim, the appliance's own, is never refused.
type Claim struct {
	Who  Grantee
	Need Rights
}

// check says whether rights are enough: ErrNoRight, or ErrNoFolder for those who must not know that there is such a mailbox
// (RFC 4314 §6).
func (c Claim) check(rights Rights) error {
	switch {
	case c.Who.Account == "" || rights&c.Need == c.Need:
		return nil
	case rights&RightLookup == 0:
		return ErrNoFolder
	}
	return ErrNoRight
}

// accessRecheck is how long it may take until a list shows that another program has put an access list into a folder that had
// none. Rights themselves follow their file at once.
const accessRecheck = time.Minute

// accessTable keeps the access lists of all maildrops in memory. Safe for concurrent use.
type accessTable struct {
	mu      sync.Mutex
	lists   map[string]accessFile    // by the folder's path
	folders map[string]accessFolders // by the maildrop's path
	changes int                      // counts what was forgotten

	watches map[*grantsWatch]struct{}
}

// grantsWatch is one who wants to know when access lists change.
type grantsWatch struct{ changed func() }

// WatchGrants calls changed, which must not block, without locks held whenever an access list is changed through the store, until
// stop is called.
func (s *Store) WatchGrants(changed func()) (stop func()) {
	t, w := &s.access, &grantsWatch{changed}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.watches == nil {
		t.watches = make(map[*grantsWatch]struct{})
	}
	t.watches[w] = struct{}{}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.watches, w)
	}
}

// tell tells those who watch that a list has changed.
func (t *accessTable) tell() {
	t.mu.Lock()
	watches := slices.Collect(maps.Keys(t.watches))
	t.mu.Unlock()
	for _, w := range watches {
		w.changed()
	}
}

// accessFile is a file that was read.
type accessFile struct {
	stamp fileStamp
	list  *AccessList
}

// accessFolders are the folders of a maildrop that have a list.
type accessFolders struct {
	at   time.Time // when it was looked
	dirs []string
}

// of gives the access list of a folder, nil where it has none. One that cannot be read grants nothing.
func (t *accessTable) of(path string) *AccessList {
	st, err := os.Stat(filepath.Join(path, aclName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &AccessList{broken: err}
	}
	stamp := stampOf(st)
	t.mu.Lock()
	have := t.lists[path]
	t.mu.Unlock()
	if have.list != nil && have.stamp == stamp {
		return have.list
	}
	list := readACL(path)
	t.mu.Lock()
	if t.lists == nil {
		t.lists = make(map[string]accessFile)
	}
	t.lists[path] = accessFile{stamp, list}
	t.mu.Unlock()
	return list
}

// readACL reads a folder's file. Without one the list is empty.
func readACL(path string) *AccessList {
	f, err := os.Open(filepath.Join(path, aclName))
	if errors.Is(err, fs.ErrNotExist) {
		return new(AccessList)
	}
	if err != nil {
		return &AccessList{broken: err}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxACLBytes+1))
	if err != nil {
		return &AccessList{broken: err}
	}
	return parseACL(string(text))
}

// in gives the folders of a maildrop that have an access list, as directories below its path.
func (t *accessTable) in(drop string, now time.Time) []string {
	t.mu.Lock()
	have, ok := t.folders[drop]
	changes := t.changes
	t.mu.Unlock()
	if age := now.Sub(have.at); ok && age >= 0 && age < accessRecheck {
		return have.dirs
	}
	dirs := foldersWithACL(drop)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changes == changes { // else it may be old already
		if t.folders == nil {
			t.folders = make(map[string]accessFolders)
		}
		t.folders[drop] = accessFolders{now, dirs}
	}
	return dirs
}

// foldersWithACL looks at the folders on disk.
func foldersWithACL(drop string) []string {
	dirs, err := listFolderDirs(drop)
	if err != nil { // an account whose maildrop is not made yet
		return nil
	}
	return slices.DeleteFunc(append(dirs, "."), func(dir string) bool {
		_, err := os.Stat(filepath.Join(drop, dir, aclName))
		return err != nil
	})
}

// forget is called when folders of a maildrop come, go or get an access list.
func (t *accessTable) forget(drop string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changes++
	delete(t.folders, drop)
	for path := range t.lists {
		if path == drop || strings.HasPrefix(path, drop+string(filepath.Separator)) {
			delete(t.lists, path)
		}
	}
}

// RightsIn gives somebody's rights in a mailbox of another account, none where there is no such mailbox. It does not open the
// maildrop: a mailbox that grants nothing is to cost no more than one that does not exist.
func (s *Store) RightsIn(account, name string, who Grantee) Rights {
	drop, _, err := s.accountDir(account)
	if err != nil {
		return 0
	}
	dir, err := encodeFolder(name)
	if err != nil {
		return 0
	}
	list := s.access.of(filepath.Join(drop, dir))
	if list == nil { // another program may have encoded the name in another way
		for _, dir := range s.access.in(drop, s.now()) {
			if decodeFolder(dir) == canonicalName(name) {
				list = s.access.of(filepath.Join(drop, dir))
			}
		}
	}
	return list.Rights(who, account == who.Account)
}

// MailboxAccess is what somebody may do in a mailbox.
type MailboxAccess struct {
	FolderInfo // named as in its own maildrop, without its special uses
	Rights     Rights
}

// Access gives the mailboxes of an account that have an access list, and what somebody may do in each. It does not open the
// maildrop.
func (s *Store) Access(account string, who Grantee) []MailboxAccess {
	drop, _, err := s.accountDir(account)
	if err != nil {
		return nil
	}
	var all []MailboxAccess
	for _, dir := range s.access.in(drop, s.now()) {
		if list := s.access.of(filepath.Join(drop, dir)); list != nil {
			all = append(all, MailboxAccess{FolderInfo{Name: decodeFolder(dir), dir: dir}, list.Rights(who, account == who.Account)})
		}
	}
	return all
}

// RevokeGrants takes a removed account out of all access lists: who gets the address next is somebody else.
func (s *Store) RevokeGrants(who Grantee) error {
	return s.changeGrants(who, func(l *AccessList) { l.Revoke(who) })
}

// RenameGrants calls an account by another address in all access lists.
func (s *Store) RenameGrants(who Grantee, to string) error {
	return s.changeGrants(who, func(l *AccessList) { l.Rename(who, to) })
}

// changeGrants changes all access lists that name an account.
func (s *Store) changeGrants(who Grantee, edit func(*AccessList)) error {
	domains, err := os.ReadDir(s.mailDir)
	if err != nil {
		return fmt.Errorf("changing access lists: %w", err)
	}
	var errs []error
	for _, domain := range domains {
		users, err := os.ReadDir(filepath.Join(s.mailDir, domain.Name()))
		if err != nil { // a file
			continue
		}
		for _, user := range users {
			errs = append(errs, s.changeGrantsIn(user.Name()+"@"+domain.Name(), who, edit))
		}
	}
	return errors.Join(errs...)
}

// changeGrantsIn is changeGrants for the access lists of one account.
func (s *Store) changeGrantsIn(account string, who Grantee, edit func(*AccessList)) error {
	path, _, err := s.accountDir(account)
	if err != nil || strings.Contains(filepath.Base(path), asideMark) {
		return nil
	}
	for _, dir := range foldersWithACL(path) {
		names := func(e AccessEntry) bool { return e.ID.names(who) }
		if !slices.ContainsFunc(s.access.of(filepath.Join(path, dir)).Entries(), names) {
			continue
		}
		drop, err := s.Maildrop(account)
		if err != nil {
			return err
		}
		err = drop.ChangeACL(Claim{}, decodeFolder(dir), func(l *AccessList) error {
			edit(l)
			return nil
		})
		drop.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// accessChanged is called when folders come, go or get another access list. Dovecot makes its cache anew where it is missing.
func (d *Maildrop) accessChanged() {
	d.store.access.forget(d.dir)
	if err := removeFile(filepath.Join(d.dir, aclListName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("Dovecot's list of access lists is left as it was", "error", err)
	}
}

// isOwner says whether the maildrop is somebody's own.
func (d *Maildrop) isOwner(who Grantee) bool { return who.Account == d.account }

// rightsAt gives somebody's rights in a folder by its directory.
func (d *Maildrop) rightsAt(dir string, who Grantee) Rights {
	return d.store.access.of(filepath.Join(d.dir, dir)).Rights(who, d.isOwner(who))
}

// permit checks a claim on a folder.
func (d *Maildrop) permit(c Claim, dir string) error {
	if c.Who.Account == "" {
		return nil
	}
	return c.check(d.rightsAt(dir, c.Who))
}

// permitBelow checks a claim on the mailbox above a name, the nearest that exists (RFC 4314 §4, CREATE), and gives the text of
// its access list, which a new mailbox inherits; nil: none. Where nothing is above, the owner alone may do something. listMu is
// held.
func (d *Maildrop) permitBelow(c Claim, name string) (inherited []byte, err error) {
	name = canonicalName(name)
	for {
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			break
		}
		name = name[:i]
		dir, exists, err := d.findDir(name)
		if err != nil {
			return nil, err
		}
		if !exists {
			continue
		}
		if d.permit(c, dir) != nil {
			return nil, ErrNoRight
		}
		list := d.store.access.of(filepath.Join(d.dir, dir))
		if list == nil || list.broken != nil {
			return nil, nil
		}
		return list.format(), nil
	}
	if c.Who.Account != "" && !d.isOwner(c.Who) {
		return nil, ErrNoRight
	}
	return nil, nil
}

// permitRename checks the claims of a rename. listMu is held.
func (d *Maildrop) permitRename(of, below Claim, from, to string) error {
	dir, exists, err := d.findDir(from)
	if err != nil {
		return err
	}
	if exists {
		err = d.permit(of, dir)
	} else if of.Who.Account != "" && !d.isOwner(of.Who) { // a parent that has only children is the owner's to rename
		err = ErrNoFolder
	}
	if err != nil {
		return err
	}
	_, err = d.permitBelow(below, to)
	return err
}

// Rights gives somebody's rights in a mailbox: ErrNoFolder.
func (d *Maildrop) Rights(name string, who Grantee) (Rights, error) {
	if err := d.lockList(); err != nil {
		return 0, err
	}
	defer d.listMu.Unlock()
	dir, exists, err := d.findDir(name)
	if err != nil {
		return 0, err
	}
	if !exists {
		return 0, ErrNoFolder
	}
	return d.rightsAt(dir, who), nil
}

// Rights gives somebody's rights in the folder, as they are now: ErrNoFolder when it is gone.
func (f *Folder) Rights(who Grantee) (Rights, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return 0, ErrNoFolder
	}
	return f.drop.rightsAt(f.dir, who), nil
}

// tell makes the views look whether something has changed.
func (f *Folder) tell() {
	f.mu.Lock()
	f.told |= viewsChanged
	f.unlock()
}

// aclFolder finds the folder of a mailbox whose access list somebody wants. listMu is held.
func (d *Maildrop) aclFolder(c Claim, name string) (dir string, err error) {
	dir, exists, err := d.findDir(name)
	if err != nil {
		return "", err
	}
	if !exists {
		return "", ErrNoFolder
	}
	return dir, d.permit(c, dir)
}

// ACL gives the access list of a mailbox, nil where it has none.
func (d *Maildrop) ACL(c Claim, name string) (*AccessList, error) {
	if err := d.lockList(); err != nil {
		return nil, err
	}
	defer d.listMu.Unlock()
	dir, err := d.aclFolder(c, name)
	if err != nil {
		return nil, err
	}
	list := d.store.access.of(filepath.Join(d.dir, dir))
	if list != nil && list.broken != nil {
		return nil, d.brokenACL(dir, list)
	}
	return list, nil
}

// brokenACL is the error for a list that cannot be read.
func (d *Maildrop) brokenACL(dir string, list *AccessList) error {
	return fmt.Errorf("%w: %s: %w", ErrAccessList, filepath.Join(d.dir, dir, aclName), list.broken)
}

// ChangeACL changes the access list of a mailbox by edit, durably, and at once for the sessions that have it open. An error of
// edit changes nothing.
func (d *Maildrop) ChangeACL(c Claim, name string, edit func(*AccessList) error) error {
	if err := d.lockList(); err != nil {
		return err
	}
	dir, err := d.aclFolder(c, name)
	if err == nil {
		err = d.editACL(dir, edit)
	}
	d.mu.Lock()
	f := d.folders[dir]
	d.mu.Unlock()
	d.listMu.Unlock()
	if err == nil {
		if f != nil {
			f.tell()
		}
		d.store.access.tell()
	}
	return diskError(err)
}

// editACL reads, changes and writes a folder's file under Dovecot's lock.
func (d *Maildrop) editACL(dir string, edit func(*AccessList) error) error {
	path := filepath.Join(d.dir, dir)
	unlock, err := dotLock(filepath.Join(path, aclLockName), d.store.lockOwner)
	if err != nil {
		return fmt.Errorf("locking the access list: %w", err)
	}
	defer unlock()
	list := readACL(path)
	if list.broken != nil {
		return d.brokenACL(dir, list)
	}
	if err := edit(list); err != nil {
		return err
	}
	defer d.accessChanged()
	file := filepath.Join(path, aclName)
	if len(list.lines) > 0 {
		err = writeFileAtomic(file, list.format())
	} else if err = removeFile(file); err == nil {
		err = syncDir(path)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("writing the access list: %w", err)
	}
	return nil
}
