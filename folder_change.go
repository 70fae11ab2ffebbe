package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"
)

// The changes that sessions make to a folder: flags, removals, copies, moves, new messages. Each is one batch under the
// folder's lock with one modseq; directory entries are put on disk after the lock is given back, together with those of
// whoever else waits.

// flagBits splits flags into system bits and keyword bits. With create, new keywords are added to the table, on disk
// first; without it unknown ones are left out.
func (f *Folder) flagBits(flags []imap.Flag, create bool) (Flags, uint64, error) {
	var sys Flags
	var keywords uint64
	table, added, grown := f.keywords, false, false
	for _, flag := range flags {
		if s := systemFlag(flag); s != 0 {
			sys |= s
			continue
		}
		if equalFoldASCII(string(flag), `\Recent`) {
			continue
		}
		bit := table.lookup(string(flag))
		if bit < 0 && create {
			if !validKeyword(string(flag)) {
				return 0, 0, ErrKeywords
			}
			var g bool
			if bit, g = table.add(string(flag)); bit < 0 {
				return 0, 0, ErrKeywords
			}
			added, grown = added || g, grown || g && bit < maxFileKeywords
		}
		if bit >= 0 {
			keywords |= 1 << bit
		}
	}
	if grown {
		if err := writeFileAtomic(filepath.Join(f.path, keywordsName), table.format()); err != nil {
			return 0, 0, diskError(fmt.Errorf("writing the keywords: %w", err))
		}
		f.kwStamp = statStamp(filepath.Join(f.path, keywordsName))
	}
	if added {
		f.keywords = table
		f.metaOld = true
		f.told |= viewsChanged
	}
	return sys, keywords, nil
}

// Expunge removes those of the UIDs (ascending; nil: all messages) that have \Deleted when onlyDeleted, else all of them.
// It gives the removed UIDs and the modseq of the removal (0: nothing was removed).
func (f *Folder) Expunge(uids []imap.UID, onlyDeleted bool) (removed []imap.UID, modseq uint64, err error) {
	var changed [2]bool
	f.mu.Lock()
	if err = f.usable(); err == nil {
		removed, modseq, changed, err = f.expunge(uids, onlyDeleted)
	}
	f.unlock()
	if serr := f.syncPlaces(changed); err == nil && serr != nil {
		err = fmt.Errorf("removing messages: %w", serr)
	}
	return removed, modseq, err
}

// syncPlaces puts the entries of cur/ and new/ on disk where they were changed, by Msg.place.
func (f *Folder) syncPlaces(changed [2]bool) error {
	var errs []error
	for place, changed := range changed {
		if changed {
			sub := (&Msg{place: uint8(place)}).subdir()
			errs = append(errs, f.durable(func(path string) error { return f.store.syncs.Sync(filepath.Join(path, sub)) }))
		}
	}
	return errors.Join(errs...)
}

// expunge also says which of cur/ and new/ it has changed, by Msg.place. A file that another program has renamed is looked
// for under its new name.
func (f *Folder) expunge(uids []imap.UID, onlyDeleted bool) (removed []imap.UID, modseq uint64, changed [2]bool, err error) {
	for try := 0; ; try++ {
		idx := f.removable(uids, onlyDeleted)
		gone, failed := f.removeFiles(idx)
		for _, i := range gone {
			removed, changed[f.msgs[i].place] = append(removed, f.msgs[i].UID), true
		}
		if len(gone) > 0 {
			if modseq, err = f.remove(gone); failed == nil {
				failed = err
			}
			f.stamp()
		}
		if failed != nil || len(gone) == len(idx) || try > 2 {
			slices.Sort(removed)
			return removed, modseq, changed, failed
		}
		if err := f.scan(true, true, nil); err != nil {
			return removed, modseq, changed, err
		}
	}
}

// removeFiles removes the files of messages (ascending indexes) and gives those whose files were where they should be.
func (f *Folder) removeFiles(idx []int) (gone []int, err error) {
	if f.hush(len(idx)) {
		defer f.listen()
	}
	dirs := folderDirs{path: f.path}
	defer dirs.close()
	for _, i := range idx {
		err := dirs.remove(&f.msgs[i])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return gone, fmt.Errorf("removing a message: %w", err)
		}
		gone = append(gone, i)
	}
	return gone, nil
}

// removable gives the indexes of those messages that Expunge is to remove.
func (f *Folder) removable(uids []imap.UID, onlyDeleted bool) []int {
	if uids == nil {
		uids = f.uids
	}
	var idx []int
	hint := 0
	for _, uid := range uids {
		i := f.find(uid, hint)
		if i < 0 {
			continue
		}
		hint = i + 1
		if !onlyDeleted || f.msgs[i].Flags&FlagDeleted != 0 {
			idx = append(idx, i)
		}
	}
	return idx
}

// AppendMessage is one message of APPEND.
type AppendMessage struct {
	In    *Incoming
	Flags []imap.Flag
	Date  time.Time // zero: now

	Replaces Quota // what goes from the same maildrop when this message is safe; its room counts as free
}

// Append adds the messages, all or none, durably, and gives their UIDs: ErrOverQuota and ErrAboveQuota when there is no
// room for all. Consumes every In.
func (f *Folder) Append(msgs []AppendMessage) ([]imap.UID, error) {
	defer func() {
		for _, m := range msgs {
			m.In.Discard()
		}
	}()
	var more Quota
	for _, m := range msgs {
		more = more.plus(Quota{m.In.size, 1}).minus(m.Replaces)
	}
	settle, err := f.drop.reserve(more)
	if err != nil {
		return nil, fmt.Errorf("appending: %w", err)
	}
	added := false
	defer func() { settle(added) }()
	uids, err := f.appendSafe(msgs)
	if added = err == nil; added {
		f.tellFiling(nil, uids)
	}
	return uids, err
}

// appendSafe adds messages that there is room for.
func (f *Folder) appendSafe(msgs []AppendMessage) ([]imap.UID, error) {
	for _, m := range msgs {
		if err := m.In.finish(m.Date); err != nil {
			return nil, diskError(err)
		}
	}
	f.mu.Lock()
	uids, placed, err := f.append(msgs)
	f.unlock()
	if err == nil {
		err = f.syncCur()
	}
	if err != nil {
		for _, p := range placed {
			removeFile(p)
		}
		f.poke()
		return nil, diskError(fmt.Errorf("appending: %w", err))
	}
	return uids, nil
}

func (f *Folder) append(msgs []AppendMessage) (uids []imap.UID, placed []string, err error) {
	if err := f.usable(); err != nil {
		return nil, nil, err
	}
	if err := f.reserveUIDs(len(msgs)); err != nil {
		return nil, nil, err
	}
	made := make([]Msg, 0, len(msgs))
	for _, a := range msgs {
		m := Msg{stored: a.In.size, Size: a.In.crlfSize, Date: a.In.date, base: withSizes(f.store.names.unique(), a.In.size, a.In.crlfSize)}
		if m.Flags, m.Keywords, err = f.flagBits(a.Flags, true); err != nil {
			return nil, placed, err
		}
		m.info = formatInfo(m.Flags, uint32(m.Keywords&letterKeywords), "")
		if err := f.saveMoreNew(&m); err != nil {
			return nil, placed, err
		}
		path := filepath.Join(f.path, "cur", m.fileName())
		if err := a.In.place(path, true); err != nil {
			return nil, placed, err
		}
		placed, made = append(placed, path), append(made, m)
	}
	if uids, err = f.adopt(made); err == nil {
		f.stamp()
	}
	return uids, placed, err
}

// adoptDelivery gives a delivered message its name in new/ and makes it a message at once.
func (f *Folder) adoptDelivery(in *Incoming, base string, last bool) error {
	f.mu.Lock()
	defer f.unlock()
	if err := f.usable(); err != nil {
		return err
	}
	if err := f.reserveUIDs(1); err != nil {
		return err
	}
	m := Msg{stored: in.size, Size: in.crlfSize, Date: in.date, base: base, place: placeNew}
	path := filepath.Join(f.path, "new", base)
	if err := in.place(path, last); err != nil {
		return err
	}
	_, err := f.adopt([]Msg{m})
	if err != nil {
		removeFile(path)
		return err
	}
	f.stamp()
	return nil
}

// adoptFlagged delivers into cur/ with flags and gives the file's name.
func (f *Folder) adoptFlagged(in *Incoming, flags []imap.Flag, last bool) (string, error) {
	f.mu.Lock()
	defer f.unlock()
	if err := f.usable(); err != nil {
		return "", err
	}
	if err := f.reserveUIDs(1); err != nil {
		return "", err
	}
	sys, keywords, err := f.flagBits(flags, true)
	if err != nil {
		return "", err
	}
	m := Msg{stored: in.size, Size: in.crlfSize, Date: in.date, Flags: sys, Keywords: keywords, base: withSizes(f.store.names.unique(), in.size, in.crlfSize)}
	m.info = formatInfo(sys, uint32(keywords&letterKeywords), "")
	if err := f.saveMoreNew(&m); err != nil {
		return "", err
	}
	path := filepath.Join(f.path, "cur", m.fileName())
	if err := in.place(path, last); err != nil {
		return "", err
	}
	if _, err = f.adopt([]Msg{m}); err != nil {
		removeFile(path)
		return "", err
	}
	f.stamp()
	return m.fileName(), nil
}

// moveToCur moves files from new/ to cur/; one that cannot be moved stays where it is.
func (f *Folder) moveToCur(uids []imap.UID) {
	if f.hush(len(uids)) {
		defer f.listen()
	}
	r := renamer{f: f, dirs: folderDirs{path: f.path}}
	defer r.dirs.close()
	for _, uid := range uids {
		if err := r.rename(uid, flagDelta{op: FlagsAdd, may: RightsAll}); err == nil {
			f.markDirty(uid)
		}
	}
	f.stamp()
}

// claimRecent gives a session the messages that have been \Recent to nobody yet, and moves their files from new/ to cur/,
// as the Maildir convention has it for mail that was seen in a list.
func (f *Folder) claimRecent() (from, to imap.UID) {
	first := f.search(f.recent + 1)
	if first == len(f.uids) {
		return 0, 0
	}
	from, to = f.uids[first], f.uids[len(f.uids)-1]
	f.recent = to
	f.metaOld = true
	var fresh []imap.UID
	for i := first; i < len(f.msgs); i++ {
		if f.msgs[i].place == placeNew {
			fresh = append(fresh, f.msgs[i].UID)
		}
	}
	if len(fresh) > 0 {
		f.moveToCur(fresh)
	}
	f.drop.wakeIndex()
	return from, to
}
