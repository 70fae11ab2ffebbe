package main

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// Annotations of mailboxes and of the server (RFC 5464), kept in the maildrop's file dovecot-attributes.

// The limits of annotations. RFC 5464 §4.1 demands 1,024 bytes and 10 entries at least.
const (
	// MaxMetadataValue is how long a value may be, in bytes.
	MaxMetadataValue = 64 << 10
	// maxMetadataEntries is how many annotations a mailbox, or the server, may have in one maildrop's file.
	maxMetadataEntries = 64
	// maxMetadataTotal is how long all keys and values of a maildrop's file may be, in bytes: it is written whole.
	maxMetadataTotal = 1 << 20
)

var (
	// ErrMetadataFull: there are as many annotations as there may be.
	ErrMetadataFull = errors.New("too many annotations")
	// ErrMetadataName: no annotation of this name can be set here.
	ErrMetadataName = errors.New("annotation cannot be set")
	// ErrUseByName: the mailbox has a special use by its name, which cannot be taken away.
	ErrUseByName = errors.New("special use cannot be changed")
)

const (
	privatePrefix = "/private/"
	sharedPrefix  = "/shared/"

	// dovecotPrivate is where Dovecot keeps what is no annotation of the mailbox, serverInside where it keeps the server's
	// own: as annotations of INBOX.
	dovecotPrivate = "vendor/vendor.dovecot/pvt/"
	serverInside   = dovecotPrivate + "server/"

	// specialUseEntry is the annotation that is a mailbox's special use (RFC 6154 §4). It is not kept with the others.
	specialUseEntry = "/private/specialuse"
)

// MetadataChange sets an annotation, or removes it.
type MetadataChange struct {
	Name   string // in small letters, "/private/…" or "/shared/…"
	Value  string
	Remove bool
}

// metadataPlace is where the annotations of a mailbox, or of the server, lie.
type metadataPlace struct {
	guid   string
	inside string    // what goes before each name there
	owner  *Maildrop // has the shared ones; nil: there are none
}

// metadataOf finds the place for a folder, nil for the server.
func (d *Maildrop) metadataOf(f *Folder) (metadataPlace, error) {
	if f != nil {
		guid, err := f.GUID()
		return metadataPlace{guid: guid, owner: f.drop}, err
	}
	inbox, err := d.Open(inboxName)
	if err != nil {
		return metadataPlace{}, err
	}
	defer inbox.Release()
	guid, err := inbox.GUID()
	return metadataPlace{guid: guid, inside: serverInside}, err
}

// prefix is what the keys of the place begin with.
func (p metadataPlace) prefix(scope string) string { return scope + "/" + p.guid + "/" + p.inside }

// key gives the key of an annotation's name.
func (p metadataPlace) key(name string) string {
	if rest, ok := strings.CutPrefix(name, privatePrefix); ok {
		return p.prefix("priv") + rest
	}
	return p.prefix("shared") + strings.TrimPrefix(name, sharedPrefix)
}

// owns says whether a key is of an annotation of the place.
func (p metadataPlace) owns(key string) bool {
	for _, scope := range [...]string{"priv", "shared"} {
		if name, ok := strings.CutPrefix(key, p.prefix(scope)); ok {
			return p.inside != "" || !strings.HasPrefix(name, dovecotPrivate)
		}
	}
	return false
}

// collect puts the annotations of a scope into found, by name.
func (p metadataPlace) collect(found map[string]string, a attributes, scope, as string) {
	prefix := p.prefix(scope)
	for key, value := range a {
		if p.owns(key) && strings.HasPrefix(key, prefix) {
			found[as+key[len(prefix):]] = value
		}
	}
}

// Metadata gives the annotations of a folder, nil for the server, as the owner of the maildrop sees them, by name: the
// shared ones, which belong to the folder, and the private ones of that person.
func (d *Maildrop) Metadata(f *Folder) (map[string]string, error) {
	place, err := d.metadataOf(f)
	if err != nil {
		return nil, err
	}
	found := make(map[string]string)
	mine, err := d.attributes()
	if err != nil {
		return nil, err
	}
	place.collect(found, mine, "priv", privatePrefix)
	if place.owner == nil {
		return found, nil
	}
	shared := mine
	if place.owner != d {
		if shared, err = place.owner.attributes(); err != nil {
			return nil, err
		}
	}
	place.collect(found, shared, "shared", sharedPrefix)
	return found, nil
}

// attributes gives what the maildrop's file holds.
func (d *Maildrop) attributes() (attributes, error) {
	if err := d.lockList(); err != nil {
		return nil, err
	}
	defer d.listMu.Unlock()
	return d.attributesLocked()
}

// attributesLocked reads the file unless it is as it was. listMu is held.
func (d *Maildrop) attributesLocked() (attributes, error) {
	stamp := statStamp(filepath.Join(d.dir, attributesName))
	if d.attrs != nil && stamp == d.attrStamp {
		return d.attrs, nil
	}
	a, bad, err := loadAttributes(d.dir)
	if err != nil {
		return nil, err
	}
	if bad > 0 {
		d.log.Warn("lines of the annotations left out", "lines", bad)
	}
	d.attrs, d.attrStamp = a, stamp
	return a, nil
}

// SetMetadata changes annotations of a folder, nil for the server's private ones, all or none: ErrMetadataFull,
// ErrMetadataName. Removing one that is not there is no error.
func (d *Maildrop) SetMetadata(f *Folder, changes []MetadataChange) error {
	notices, err := d.setMetadata(f, changes)
	for _, n := range notices {
		n.drop.watches.event(n.event, func() {})
	}
	return err
}

// setMetadata is SetMetadata without telling those who watch, which the caller may do.
func (d *Maildrop) setMetadata(f *Folder, changes []MetadataChange) ([]metadataNotice, error) {
	place, err := d.metadataOf(f)
	if err != nil {
		return nil, err
	}
	byDrop := map[*Maildrop][]MetadataChange{}
	for _, c := range changes {
		drop := d
		if strings.HasPrefix(c.Name, sharedPrefix) {
			drop = place.owner
		}
		if drop == nil || !place.owns(place.key(c.Name)) {
			return nil, ErrMetadataName
		}
		byDrop[drop] = append(byDrop[drop], c)
	}
	// Always in the same order, lest two wait for each other.
	drops := slices.SortedFunc(maps.Keys(byDrop), func(a, b *Maildrop) int { return strings.Compare(a.account, b.account) })
	edited := make([]attributes, len(drops))
	for i, drop := range drops {
		unlock, err := drop.lockAttributes()
		if err != nil {
			return nil, err
		}
		defer unlock()
		if edited[i], err = drop.editAttributes(place, byDrop[drop]); err != nil {
			return nil, err
		}
	}
	changed := map[*Maildrop]bool{}
	for i, drop := range drops {
		changed[drop] = !maps.Equal(edited[i], drop.attrs)
		if err := drop.writeAttributes(edited[i]); err != nil {
			return nil, err
		}
	}
	unchanged := func(n metadataNotice) bool { return !changed[n.drop] }
	return slices.DeleteFunc(d.metadataNotices(f, changes), unchanged), nil
}

// metadataNotice is an event for those who watch a maildrop.
type metadataNotice struct {
	drop  *Maildrop
	event MailboxEvent
}

// metadataNotices gives the events of a change of annotations: private ones are for the sessions of the person who has made it,
// shared ones for all who watch the folder's maildrop.
func (d *Maildrop) metadataNotices(f *Folder, changes []MetadataChange) (notices []metadataNotice) {
	name, owner := "", d
	if f != nil {
		name, owner = f.Name(), f.drop
	}
	for _, scope := range [...]string{privatePrefix, sharedPrefix} {
		var names []string
		for _, c := range changes {
			if strings.HasPrefix(c.Name, scope) && !slices.Contains(names, c.Name) {
				names = append(names, c.Name)
			}
		}
		if len(names) == 0 {
			continue
		}
		n := metadataNotice{d, MailboxEvent{Kind: MetadataChanged, Name: name, Entries: strings.Join(names, "\n")}}
		if scope == sharedPrefix {
			n.drop = owner
		} else if owner != d {
			n.event.Owner = owner.account
		}
		notices = append(notices, n)
	}
	return notices
}

// lockAttributes keeps others, in this process and in Dovecot, from writing the file.
func (d *Maildrop) lockAttributes() (unlock func(), err error) {
	if err := d.lockList(); err != nil {
		return nil, err
	}
	release, err := dotLock(filepath.Join(d.dir, attributesName+".lock"), d.store.lockOwner)
	if err != nil {
		d.listMu.Unlock()
		return nil, diskError(err)
	}
	return func() {
		release()
		d.listMu.Unlock()
	}, nil
}

// editAttributes makes changes in a copy, within the limits. What does not add anything is always within them.
func (d *Maildrop) editAttributes(place metadataPlace, changes []MetadataChange) (attributes, error) {
	before, err := d.attributesLocked()
	if err != nil {
		return nil, err
	}
	after := maps.Clone(before)
	for _, c := range changes {
		if key := place.key(c.Name); c.Remove {
			delete(after, key)
		} else {
			after[key] = c.Value
		}
	}
	count := func(a attributes) (n int) {
		for key := range a {
			if place.owns(key) {
				n++
			}
		}
		return n
	}
	if n := count(after); n > maxMetadataEntries && n > count(before) {
		return nil, ErrMetadataFull
	}
	if n := after.size(); n > maxMetadataTotal && n > before.size() {
		return nil, ErrMetadataFull
	}
	return after, nil
}

// writeAttributes writes the file. Its lock is held.
func (d *Maildrop) writeAttributes(a attributes) error {
	if maps.Equal(a, d.attrs) {
		return nil
	}
	d.attrs = nil // until it is known again what the file holds
	return diskError(saveAttributes(d.dir, a))
}

// copyMetadata gives a new folder the annotations of another one in the same maildrop: RENAME of INBOX leaves them in both
// (RFC 5464 §4.1).
func (d *Maildrop) copyMetadata(from, to *Folder) error {
	all, err := d.Metadata(from)
	if err != nil || len(all) == 0 {
		return err
	}
	var changes []MetadataChange
	for name, value := range all {
		changes = append(changes, MetadataChange{Name: name, Value: value})
	}
	_, err = d.setMetadata(to, changes)
	return err
}

// dropMetadata forgets the annotations of a folder that was deleted, so that another one never has them (RFC 5464 §4.1). Those
// that other people have put on it for themselves stay in their maildrops, where nobody sees them again. listMu is held.
func (d *Maildrop) dropMetadata(path string) {
	list := uidlist{path: filepath.Join(path, uidlistName)}
	if !list.loadHeader() || list.head.guid == "" || statStamp(filepath.Join(d.dir, attributesName)) == (fileStamp{}) {
		return
	}
	unlock, err := dotLock(filepath.Join(d.dir, attributesName+".lock"), d.store.lockOwner)
	if err == nil {
		defer unlock()
		var before attributes
		if before, err = d.attributesLocked(); err == nil {
			after, place := maps.Clone(before), metadataPlace{guid: list.head.guid}
			maps.DeleteFunc(after, func(key, _ string) bool {
				return strings.HasPrefix(key, place.prefix("priv")) || strings.HasPrefix(key, place.prefix("shared"))
			})
			err = d.writeAttributes(after)
		}
	}
	if err != nil {
		d.log.Warn("annotations of a deleted mailbox are left behind", "error", err)
	}
}

// SetSpecialUse makes use all the special uses of a folder (RFC 6154 §4): ErrUseByName where the folder has one by its name
// that is not among them, ErrNoFolder.
func (d *Maildrop) SetSpecialUse(name string, use []imap.MailboxAttr) error {
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
	if dir == "." {
		return ErrUseByName
	}
	var explicit []imap.MailboxAttr
	for _, u := range use {
		if u != useByName(name) && !slices.Contains(explicit, u) {
			explicit = append(explicit, u)
		}
	}
	if byName := useByName(name); byName != "" && !slices.Contains(use, byName) {
		return ErrUseByName
	}
	if slices.Equal(explicit, d.specialUses()[dir]) {
		return nil
	}
	if err := d.setSpecialUse(dir, explicit); err != nil {
		return diskError(err)
	}
	d.watches.event(MailboxEvent{Kind: MetadataChanged, Name: canonicalName(name), Entries: specialUseEntry}, func() {})
	return nil
}

// useByName is the special use that a folder's name tells, "" for none.
func useByName(name string) imap.MailboxAttr {
	for _, def := range defaultFolders {
		if def.name == name {
			return def.use
		}
	}
	return ""
}
