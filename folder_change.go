package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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
	table, grown := f.keywords, false
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
			grown = grown || g && bit < maxFileKeywords
			if bit >= maxFileKeywords && g {
				f.drop.log.Warn("more keywords than file names have letters for, the rest is kept in the index only", "folder", f.dir, "keyword", string(flag))
			}
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
	if len(table.names) != len(f.keywords.names) || grown {
		f.keywords = table
		f.metaOld, f.told = true, true
	}
	return sys, keywords, nil
}

// SetFlags changes the flags of the UIDs (ascending) as one batch: the files are renamed, all changed messages get one new
// modseq, every session is told. Messages whose modseq is above unchangedSince are left alone and given back in modified
// (RFC 7162 §3.1.3). Those that are gone are skipped; a message whose flags were so already keeps its modseq and is not in
// changed. ErrKeywords when a new keyword finds no room.
func (f *Folder) SetFlags(uids []imap.UID, op FlagOp, flags []imap.Flag, unchangedSince uint64) (changed, modified []imap.UID, modseq uint64, err error) {
	f.mu.Lock()
	if err = f.usable(); err == nil {
		changed, modified, modseq, err = f.setFlags(uids, op, flags, unchangedSince)
	}
	path := f.path
	f.unlock()
	if len(changed) > 0 {
		if serr := f.store.syncs.Sync(filepath.Join(path, "cur")); err == nil && serr != nil {
			err = fmt.Errorf("changing flags: %w", serr)
		}
	}
	return changed, modified, modseq, diskError(err)
}

func (f *Folder) setFlags(uids []imap.UID, op FlagOp, flags []imap.Flag, unchangedSince uint64) (changed, modified []imap.UID, modseq uint64, err error) {
	sys, keywords, err := f.flagBits(flags, op != FlagsRemove)
	if err != nil {
		return nil, nil, 0, err
	}
	hint := 0
	for _, uid := range uids {
		i := f.find(uid, hint)
		if i < 0 {
			continue
		}
		hint = i + 1
		m := &f.msgs[i]
		if m.ModSeq > unchangedSince {
			modified = append(modified, uid)
			continue
		}
		nf, nk := combine(m, op, sys, keywords)
		if nf == m.Flags && nk == m.Keywords {
			continue
		}
		if modseq == 0 {
			if modseq, err = f.nextModSeq(); err != nil {
				break
			}
		}
		if err = f.rename(uid, nf, nk); errors.Is(err, ErrExpunged) {
			err = nil
			continue
		}
		if err != nil {
			break
		}
		if i = f.find(uid, i); i >= 0 {
			f.msgs[i].ModSeq = modseq
			changed = append(changed, uid)
		}
	}
	if len(changed) > 0 {
		f.stamp()
		f.noteFlags(modseq, changed)
	}
	return changed, modified, modseq, err
}

func combine(m *Msg, op FlagOp, sys Flags, keywords uint64) (Flags, uint64) {
	switch op {
	case FlagsAdd:
		return m.Flags | sys, m.Keywords | keywords
	case FlagsRemove:
		return m.Flags &^ sys, m.Keywords &^ keywords
	default:
		return sys, keywords
	}
}

// rename gives the file of a message the letters of its new flags. When another program has renamed it meanwhile, the
// directory is read and it is tried again; ErrExpunged when it is gone.
func (f *Folder) rename(uid imap.UID, flags Flags, keywords uint64) error {
	for try := 0; ; try++ {
		i := f.find(uid, 0)
		if i < 0 {
			return ErrExpunged
		}
		m := &f.msgs[i]
		_, letters, other := parseInfo(m.info)
		letters &^= f.nameMask()
		info := formatInfo(flags, letters|uint32(keywords&(1<<maxFileKeywords-1)), other)
		from := filepath.Join(f.path, m.subdir(), m.fileName())
		if info != m.info || m.place == placeNew {
			err := os.Rename(from, filepath.Join(f.path, "cur", m.base+info))
			if errors.Is(err, fs.ErrNotExist) && try < 3 {
				if err := f.scan(true, true, nil); err != nil {
					return err
				}
				continue
			}
			if err != nil {
				return fmt.Errorf("renaming a message: %w", err)
			}
		}
		f.count(m, -1)
		m.Flags, m.Keywords, m.info, m.place = flags, keywords, info, 0
		f.count(m, 1)
		return nil
	}
}

// nameMask has the letters that dovecot-keywords names; other letters in file names are kept as they are.
func (f *Folder) nameMask() uint32 {
	var mask uint32
	for i, name := range f.keywords.names {
		if i < maxFileKeywords && name != "" {
			mask |= 1 << i
		}
	}
	return mask
}

// Expunge removes those of the UIDs (ascending; nil: all messages) that have \Deleted when onlyDeleted, else all of them.
// It gives the removed UIDs and the modseq of the removal (0: nothing was removed).
func (f *Folder) Expunge(uids []imap.UID, onlyDeleted bool) (removed []imap.UID, modseq uint64, err error) {
	f.mu.Lock()
	if err = f.usable(); err == nil {
		removed, modseq, err = f.expunge(uids, onlyDeleted)
	}
	path := f.path
	f.unlock()
	if len(removed) > 0 {
		for _, sub := range [...]string{"cur", "new"} {
			if serr := f.store.syncs.Sync(filepath.Join(path, sub)); err == nil && serr != nil {
				err = fmt.Errorf("removing messages: %w", serr)
			}
		}
	}
	return removed, modseq, err
}

func (f *Folder) expunge(uids []imap.UID, onlyDeleted bool) ([]imap.UID, uint64, error) {
	if uids == nil {
		uids = f.uids
	}
	var idx []int
	var removed []imap.UID
	var failed error
	hint, rescan := 0, false
	for _, uid := range uids {
		i := f.find(uid, hint)
		if i < 0 {
			continue
		}
		hint = i + 1
		m := &f.msgs[i]
		if onlyDeleted && m.Flags&FlagDeleted == 0 {
			continue
		}
		err := os.Remove(filepath.Join(f.path, m.subdir(), m.fileName()))
		if errors.Is(err, fs.ErrNotExist) {
			rescan = true // renamed or removed by another program
			continue
		}
		if err != nil {
			failed = fmt.Errorf("removing a message: %w", err)
			break
		}
		idx = append(idx, i)
		removed = append(removed, uid)
	}
	var modseq uint64
	if len(idx) > 0 {
		var err error
		if modseq, err = f.remove(idx); err != nil && failed == nil {
			failed = err
		}
		f.stamp()
	}
	if rescan && failed == nil {
		failed = f.scan(true, true, nil)
	}
	return removed, modseq, failed
}

// snapshot copies the state of all the UIDs, sizes known: ErrExpunged when one is missing.
func (f *Folder) snapshot(uids []imap.UID) ([]Msg, []string, error) {
	if err := f.learn(uids); err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	defer f.unlock()
	if err := f.usable(); err != nil {
		return nil, nil, err
	}
	msgs := make([]Msg, 0, len(uids))
	hint := 0
	for _, uid := range uids {
		i := f.find(uid, hint)
		if i < 0 {
			return nil, nil, ErrExpunged
		}
		hint = i + 1
		msgs = append(msgs, f.msgs[i])
	}
	return msgs, f.keywords.names, nil
}

// Copy copies messages with flags and dates into another folder or the same, all or none; the result runs parallel to
// uids (ascending). ErrExpunged when one of them is gone.
func (f *Folder) Copy(uids []imap.UID, to *Folder) ([]imap.UID, error) {
	dst, err := f.transfer(uids, to, func(from, name, tmp string) error { return linkOrCopy(from, name, tmp) }, func(from, name string) error { return os.Remove(name) })
	if err != nil {
		return nil, diskError(fmt.Errorf("copying: %w", err))
	}
	return dst, nil
}

// Move is Copy and Expunge in one: each file is renamed, so that a crash leaves every message in exactly one place.
// Within one folder the messages get new UIDs. modseq is that of the removal.
func (f *Folder) Move(uids []imap.UID, to *Folder) (dst []imap.UID, modseq uint64, err error) {
	move := func(from, name, tmp string) error {
		err := os.Rename(from, name)
		if err == nil || errors.Is(err, fs.ErrNotExist) || isDiskFull(err) {
			return err
		}
		if err := linkOrCopy(from, name, tmp); err != nil { // another file system
			return err
		}
		if err := os.Remove(from); err != nil {
			os.Remove(name) // or it would be in both
			return err
		}
		return nil
	}
	dst, err = f.transfer(uids, to, move, func(from, name string) error { return os.Rename(name, from) })
	if err != nil {
		return nil, 0, diskError(fmt.Errorf("moving: %w", err))
	}
	f.mu.Lock()
	modseq, err = f.forget(uids)
	path := f.path
	f.unlock()
	if err == nil {
		err = f.store.syncs.Sync(filepath.Join(path, "cur"))
	}
	return dst, modseq, diskError(err)
}

// forget takes messages out of memory whose files have been moved away.
func (f *Folder) forget(uids []imap.UID) (uint64, error) {
	var idx []int
	for _, uid := range uids {
		if i := f.find(uid, 0); i >= 0 {
			idx = append(idx, i)
		}
	}
	if len(idx) == 0 { // noticed meanwhile by another session
		return f.modseq, nil
	}
	modseq, err := f.remove(idx)
	f.stamp()
	return modseq, err
}

// transfer gives the files of messages new names in to, by put, and makes messages of them; undo takes one back.
func (f *Folder) transfer(uids []imap.UID, to *Folder, put func(from, name, tmp string) error, undo func(from, name string) error) ([]imap.UID, error) {
	for try := 0; ; try++ {
		msgs, keywords, err := f.snapshot(uids)
		if err != nil {
			return nil, err
		}
		dst, err := to.receive(f, msgs, keywords, put, undo)
		if errors.Is(err, fs.ErrNotExist) && try < 3 {
			// Another program has renamed one since: look at the directory and try again.
			f.mu.Lock()
			err = f.scan(true, true, nil)
			f.unlock()
			if err != nil {
				return nil, err
			}
			continue
		}
		return dst, err
	}
}

// receive is the side of transfer that works on the target.
func (f *Folder) receive(from *Folder, msgs []Msg, keywords []string, put func(from, name, tmp string) error, undo func(from, name string) error) ([]imap.UID, error) {
	source := from.location()
	f.mu.Lock()
	uids, err := f.receiveLocked(source, msgs, keywords, put, undo)
	path := f.path
	f.unlock()
	if err != nil || len(uids) == 0 {
		return uids, err
	}
	return uids, f.store.syncs.Sync(filepath.Join(path, "cur"))
}

func (f *Folder) location() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.path
}

func (f *Folder) receiveLocked(source string, msgs []Msg, keywords []string, put func(from, name, tmp string) error, undo func(from, name string) error) ([]imap.UID, error) {
	if err := f.usable(); err != nil {
		return nil, err
	}
	if err := f.reserveUIDs(len(msgs)); err != nil {
		return nil, err
	}
	mapped := make(map[uint64]uint64)
	placed := make([]Msg, 0, len(msgs))
	sources := make([]string, 0, len(msgs))
	var err error
	for i := range msgs {
		m := msgs[i]
		from := filepath.Join(source, m.subdir(), m.fileName())
		if m.Keywords, err = f.mapKeywords(m.Keywords, keywords, mapped); err != nil {
			break
		}
		m.base = withSizes(f.store.names.unique(), max(m.stored, 0), max(m.Size, 0))
		m.info, m.place = formatInfo(m.Flags, uint32(m.Keywords&(1<<maxFileKeywords-1)), ""), 0
		if err = put(from, filepath.Join(f.path, "cur", m.fileName()), filepath.Join(f.path, "tmp", m.base)); err != nil {
			break
		}
		placed, sources = append(placed, m), append(sources, from)
	}
	var uids []imap.UID
	if err == nil {
		uids, err = f.adopt(placed)
	}
	if err != nil {
		for i := range placed {
			undo(sources[i], filepath.Join(f.path, "cur", placed[i].fileName()))
		}
		return nil, err // the next look at the directory finds what could not be undone
	}
	f.stamp()
	return uids, nil
}

// mapKeywords gives the bits that another folder's keywords have here. Keywords that find no room are left out: a copy
// without a label is better than none.
func (f *Folder) mapKeywords(mask uint64, names []string, mapped map[uint64]uint64) (uint64, error) {
	if mask == 0 {
		return 0, nil
	}
	if bits, ok := mapped[mask]; ok {
		return bits, nil
	}
	var here uint64
	for i, name := range names {
		if mask&(1<<i) == 0 || name == "" {
			continue
		}
		_, bit, err := f.flagBits([]imap.Flag{imap.Flag(name)}, true)
		if err != nil && !errors.Is(err, ErrKeywords) {
			return 0, err
		}
		here |= bit
	}
	mapped[mask] = here
	return here, nil
}

// AppendMessage is one message of APPEND.
type AppendMessage struct {
	In    *Incoming
	Flags []imap.Flag
	Date  time.Time // zero: now
}

// Append adds the messages, all or none, durably, and gives their UIDs. Consumes every In.
func (f *Folder) Append(msgs []AppendMessage) ([]imap.UID, error) {
	defer func() {
		for _, m := range msgs {
			m.In.Discard()
		}
	}()
	for _, m := range msgs {
		if err := m.In.finish(m.Date); err != nil {
			return nil, diskError(err)
		}
	}
	f.mu.Lock()
	uids, placed, err := f.append(msgs)
	path := f.path
	f.unlock()
	if err == nil {
		err = f.store.syncs.Sync(filepath.Join(path, "cur"))
	}
	if err != nil {
		for _, p := range placed {
			os.Remove(p)
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
		m.info = formatInfo(m.Flags, uint32(m.Keywords&(1<<maxFileKeywords-1)), "")
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
		os.Remove(path)
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
	m.info = formatInfo(sys, uint32(keywords&(1<<maxFileKeywords-1)), "")
	path := filepath.Join(f.path, "cur", m.fileName())
	if err := in.place(path, last); err != nil {
		return "", err
	}
	if _, err = f.adopt([]Msg{m}); err != nil {
		os.Remove(path)
		return "", err
	}
	f.stamp()
	return m.fileName(), nil
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
	moved := false
	for _, uid := range slices.Clone(f.uids[first:]) {
		i := f.find(uid, first)
		if i < 0 || f.msgs[i].place != placeNew {
			continue
		}
		if err := f.rename(uid, f.msgs[i].Flags, f.msgs[i].Keywords); err == nil {
			f.markDirty(uid)
			moved = true
		}
	}
	if moved {
		f.stamp()
	}
	f.drop.wakeIndex()
	return from, to
}
