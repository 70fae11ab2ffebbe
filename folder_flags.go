package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// Flags of messages and the names of their files, which carry them.
//
// A change to a few messages renames their files and then answers. One to Store.journalFrom or more is written to the folder's
// flag journal (flagjournal.go), answered, and the files are renamed behind the answer, some at a time so that nobody waits
// long for the folder: f.pending lists those that are still to be. Other programs see the new flags that much later, a
// second for some hundred thousand messages. As long as there is a journal every further change of flags goes into it too,
// for what it says is done again after a crash, in its order.

const (
	// settleChunk is how many files are renamed without giving the folder's lock back.
	settleChunk = 64
	// settleDelay is how long the renaming waits for what comes next: a client that marks messages as deleted removes them
	// right after, and then their files need no other name.
	settleDelay = 500 * time.Millisecond
	// settleRetry is the time between two tries when files cannot be renamed.
	settleRetry = 2 * time.Second
)

// flagDelta is what a change of flags does to each message.
type flagDelta struct {
	op       FlagOp
	flags    Flags
	keywords uint64
	may      Rights // flags that take other rights stay as they are (RFC 4314 §4)
	fixed    uint64 // keywords that stay as they are
}

// of gives the flags that a message has afterwards.
func (d flagDelta) of(m *Msg) (Flags, uint64) {
	flags, keywords := d.flags, d.keywords
	switch d.op {
	case FlagsAdd:
		flags, keywords = m.Flags|flags, m.Keywords|keywords
	case FlagsRemove:
		flags, keywords = m.Flags&^flags, m.Keywords&^keywords
	}
	may, mayKeywords := d.may.flags(), d.may.keywords()&^d.fixed
	return m.Flags&^may | flags&may, m.Keywords&^mayKeywords | keywords&mayKeywords
}

// changes says whether it does anything to a message.
func (d flagDelta) changes(m *Msg) bool {
	flags, keywords := d.of(m)
	return flags != m.Flags || keywords != m.Keywords
}

// SetFlags changes the flags of the UIDs (ascending) as one batch, durably: all changed messages get one new modseq, every
// session is told. Messages whose modseq is above unchangedSince are left alone and given back in modified (RFC 7162
// §3.1.3). Those that are gone are skipped; a message whose flags were so already keeps its modseq and is not in changed.
// ErrKeywords when a new keyword finds no room.
func (f *Folder) SetFlags(uids []imap.UID, op FlagOp, flags []imap.Flag, unchangedSince uint64) (changed, modified []imap.UID, modseq uint64, err error) {
	return f.SetFlagsAs(RightsAll, uids, op, flags, unchangedSince)
}

// SetFlagsAs is SetFlags with certain rights: flags that take others stay as they are (RFC 4314 §4).
func (f *Folder) SetFlagsAs(may Rights, uids []imap.UID, op FlagOp, flags []imap.Flag, unchangedSince uint64) (changed, modified []imap.UID, modseq uint64, err error) {
	f.mu.Lock()
	if err = f.usable(); err == nil {
		changed, modified, modseq, err = f.setFlags(flagDelta{op: op, may: may}, uids, flags, unchangedSince)
	}
	journaled := f.settling
	f.unlock()
	if len(changed) > 0 {
		serr := f.syncFlags(journaled)
		if err == nil && serr != nil {
			err = fmt.Errorf("changing flags: %w", serr)
		}
	}
	return changed, modified, modseq, diskError(err)
}

// syncFlags puts a change on disk: the journal, with the UIDs that it speaks of, or the names of the files.
func (f *Folder) syncFlags(journaled bool) error {
	if !journaled {
		return f.syncCur()
	}
	defer f.startSettling()
	if err := f.syncList(); err != nil {
		return err
	}
	return f.durable(func(path string) error {
		err := syncFile(filepath.Join(path, flagJournalName))
		if errors.Is(err, fs.ErrNotExist) && f.location() == path {
			return nil // it was done already, and its files are on disk
		}
		if err == nil {
			err = f.store.syncs.Sync(path)
		}
		return err
	})
}

// syncCur puts the entries of cur/ on disk.
func (f *Folder) syncCur() error {
	return f.durable(func(path string) error { return f.store.syncs.Sync(filepath.Join(path, "cur")) })
}

// durable calls sync with the folder's path, without its lock, and again when the folder was renamed meanwhile;
// ErrNoFolder when it was deleted.
func (f *Folder) durable(sync func(path string) error) error {
	for {
		path := f.location()
		err := sync(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		f.mu.Lock()
		now, gone := f.path, f.gone
		f.mu.Unlock()
		switch {
		case gone:
			return ErrNoFolder
		case now == path:
			return err
		}
	}
}

// setFlags is SetFlagsAs with the lock held, where delta has no flags yet. Where f.settling is set afterwards the change is in
// the journal.
func (f *Folder) setFlags(delta flagDelta, uids []imap.UID, flags []imap.Flag, unchangedSince uint64) (changed, modified []imap.UID, modseq uint64, err error) {
	if delta.flags, delta.keywords, err = f.flagBits(flags, delta.op != FlagsRemove); err != nil {
		return nil, nil, 0, err
	}
	changed, modified = f.flagTargets(uids, delta, unchangedSince)
	if len(changed) == 0 {
		return nil, modified, 0, nil
	}
	if modseq, err = f.nextModSeq(); err != nil {
		return nil, modified, 0, err
	}
	if err = f.saveMore(len(changed), func(i int) (string, uint64) {
		m := &f.msgs[f.find(changed[i], 0)]
		_, keywords := delta.of(m)
		return m.base, keywords
	}); err != nil {
		return nil, modified, 0, err
	}
	journaled := false
	if f.settling || len(changed) >= f.store.journalFrom {
		if journaled, err = f.journalFlags(delta, changed); err != nil {
			return nil, modified, 0, err
		}
	}
	if journaled {
		f.takeDelta(delta, changed, modseq)
	} else {
		changed, err = f.renameAll(delta, changed, modseq)
	}
	f.noteFlags(modseq, changed)
	return changed, modified, modseq, err
}

// flagTargets finds the messages that a change is for.
func (f *Folder) flagTargets(uids []imap.UID, delta flagDelta, unchangedSince uint64) (targets, modified []imap.UID) {
	hint := 0
	for _, uid := range uids {
		i := f.find(uid, hint)
		if i < 0 {
			continue
		}
		hint = i + 1
		switch m := &f.msgs[i]; {
		case m.ModSeq > unchangedSince:
			modified = append(modified, uid)
		case delta.changes(m):
			targets = append(targets, uid)
		}
	}
	return targets, modified
}

// renameAll renames the files of messages one after the other and gives those that it has changed.
func (f *Folder) renameAll(delta flagDelta, uids []imap.UID, modseq uint64) (changed []imap.UID, err error) {
	r := renamer{f: f, dirs: folderDirs{path: f.path}}
	defer r.dirs.close()
	for _, uid := range uids {
		if err = r.rename(uid, delta); errors.Is(err, ErrExpunged) {
			err = nil
			continue
		}
		if err != nil {
			break
		}
		if i := f.find(uid, 0); i >= 0 {
			f.msgs[i].ModSeq = modseq
			changed = append(changed, uid)
		}
	}
	if len(changed) > 0 {
		f.stamp()
	}
	return changed, err
}

// takeDelta changes the flags in memory; the files are pending.
func (f *Folder) takeDelta(delta flagDelta, uids []imap.UID, modseq uint64) {
	hint := 0
	for _, uid := range uids {
		i := f.find(uid, hint)
		if i < 0 {
			continue
		}
		hint = i + 1
		m := &f.msgs[i]
		f.count(m, -1)
		m.Flags, m.Keywords = delta.of(m)
		m.ModSeq = modseq
		f.count(m, 1)
	}
	f.pending = mergeUIDs(f.pending, uids)
}

// mergeUIDs gives the ascending union of two ascending lists.
func mergeUIDs(a, b []imap.UID) []imap.UID {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	all := make([]imap.UID, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] < b[0]:
			all, a = append(all, a[0]), a[1:]
		case a[0] > b[0]:
			all, b = append(all, b[0]), b[1:]
		default:
			all, a, b = append(all, a[0]), a[1:], b[1:]
		}
	}
	return append(append(all, a...), b...)
}

// renamer renames files of a folder for one batch of changes. The folder's lock is held as long as it is used.
type renamer struct {
	f    *Folder
	dirs folderDirs
	last struct { // the suffix that was made last, for a batch needs few different ones
		from, to string
		flags    Flags
		letters  uint32
	}
}

// rename gives the file of a message the letters of its new flags. When another program has renamed it meanwhile, the
// directory is read and it is tried again; ErrExpunged when it is gone.
func (r *renamer) rename(uid imap.UID, delta flagDelta) error {
	f := r.f
	for try := 0; ; try++ {
		i := f.find(uid, 0)
		if i < 0 {
			return ErrExpunged
		}
		m := &f.msgs[i]
		flags, keywords := delta.of(m)
		info := r.suffix(m.info, flags, uint32(keywords&letterKeywords))
		if info != m.info || m.place == placeNew {
			err := r.dirs.rename(m, m.base+info)
			if errors.Is(err, fs.ErrNotExist) && try < 3 {
				r.dirs.close()
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

// suffix gives the end of a file's name that has the flags, and those letters of the old one that have no meaning here.
func (r *renamer) suffix(old string, flags Flags, letters uint32) string {
	l := &r.last
	if l.to == "" || l.from != old || l.flags != flags || l.letters != letters {
		_, had, other := parseInfo(old)
		l.from, l.flags, l.letters = old, flags, letters
		l.to = formatInfo(flags, letters|had&^r.f.nameMask(), other)
	}
	return l.to
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

// folderDirs are the directories of a folder, opened when they are first needed in a batch of changes.
type folderDirs struct {
	path string
	open [2]*dirHandle // by Msg.place
}

// of gives the directory that a message's file is in.
func (d *folderDirs) of(m *Msg) (*dirHandle, error) {
	if d.open[m.place] == nil {
		h, err := openDirHandle(filepath.Join(d.path, m.subdir()))
		if err != nil {
			return nil, err
		}
		d.open[m.place] = h
	}
	return d.open[m.place], nil
}

// rename gives a message's file a name in cur/.
func (d *folderDirs) rename(m *Msg, name string) error {
	from, err := d.of(m)
	if err != nil {
		return err
	}
	to, err := d.of(&Msg{})
	if err != nil {
		return err
	}
	return from.rename(m.fileName(), to, name)
}

// remove removes a message's file.
func (d *folderDirs) remove(m *Msg) error {
	dir, err := d.of(m)
	if err != nil {
		return err
	}
	return dir.remove(m.fileName())
}

// close closes what is open; it is opened again when it is needed.
func (d *folderDirs) close() {
	for place, h := range d.open {
		if h != nil {
			h.close()
			d.open[place] = nil
		}
	}
}

// journalFlags writes a change to the journal; syncFlags puts it on disk. false means that the files are to be renamed at
// once, for the change could not be written, and that there is no journal any more that would undo it after a crash.
func (f *Folder) journalFlags(delta flagDelta, uids []imap.UID) (bool, error) {
	names := appendFlagNames(nil, &Msg{Flags: delta.flags, Keywords: delta.keywords}, f.keywords.names)
	entry := flagEntry{validity: f.list.head.validity, op: delta.op, may: delta.may, uids: uidRuns(uids)}
	for _, name := range strings.Fields(string(names)) {
		entry.flags = append(entry.flags, imap.Flag(name))
	}
	err := appendFlagEntry(f.path, &entry)
	if err == nil {
		f.settling = true
		return true, nil
	}
	f.drop.log.Warn("pending flags not written", "folder", f.dir, "error", err)
	if err := f.settleAll(); err != nil {
		return false, fmt.Errorf("naming the files of earlier changes: %w", err)
	}
	return false, nil
}

// replayFlags takes up what a crash has left in the journal.
func (f *Folder) replayFlags(meta folderMeta) error {
	entries, bad, there, err := loadFlagJournal(f.path)
	if err != nil || !there {
		return err
	}
	f.startAbove(meta)
	f.settling = true
	for _, e := range entries {
		if e.validity != f.list.head.validity { // the UIDs have begun anew
			bad++
			continue
		}
		if err := f.replayEntry(&e); err != nil {
			return err
		}
	}
	f.drop.log.Info("taking up changes of flags", "folder", f.dir, "changes", len(entries), "unusable", bad, "messages", len(f.pending))
	f.startSettlingLocked()
	return nil
}

// replayEntry does one change again.
func (f *Folder) replayEntry(e *flagEntry) error {
	delta := flagDelta{op: e.op, may: e.may, fixed: ^uint64(letterKeywords)} // what has no letters was on disk before
	for _, flag := range e.flags {
		flags, keywords, err := f.flagBits([]imap.Flag{flag}, e.op != FlagsRemove)
		if err != nil && !errors.Is(err, ErrKeywords) {
			return err
		}
		delta.flags, delta.keywords = delta.flags|flags, delta.keywords|keywords
	}
	var uids []imap.UID
	for _, r := range e.uids {
		for i := f.search(r.Start); i < len(f.uids) && f.uids[i] <= r.Stop; i++ {
			uids = append(uids, f.uids[i])
		}
	}
	slices.Sort(uids)
	uids, _ = f.flagTargets(slices.Compact(uids), delta, NoUnchangedSince)
	if len(uids) == 0 {
		return nil
	}
	modseq, err := f.nextModSeq()
	if err != nil {
		return err
	}
	f.takeDelta(delta, uids, modseq)
	f.noteFlags(modseq, uids)
	return nil
}

// startSettling starts the renaming of the pending files unless it runs.
func (f *Folder) startSettling() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.startSettlingLocked()
}

func (f *Folder) startSettlingLocked() {
	if f.settling && !f.settler && !f.gone {
		f.settler = true
		time.AfterFunc(settleDelay, f.settle)
	}
}

// settle renames the pending files and removes the journal, however often it takes.
func (f *Folder) settle() {
	f.mu.Lock()
	f.hush(len(f.pending))
	f.mu.Unlock()
	failed := false
	for {
		done, err := f.settlePart()
		switch {
		case done:
			return
		case err != nil:
			if !failed {
				f.drop.log.Warn("files not renamed, trying again", "folder", f.directory(), "error", err)
			}
			failed = true
			time.Sleep(settleRetry)
		}
	}
}

// settlePart renames some files. done says that there is nothing more to do.
func (f *Folder) settlePart() (done bool, err error) {
	f.mu.Lock()
	if done = f.settled(); !done {
		err = f.settleSome(settleChunk)
	}
	left := len(f.pending)
	f.unlock()
	if done || err != nil || left > 0 {
		return done, err
	}
	if err := f.syncCur(); err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.unlock()
	if len(f.pending) == 0 && !f.settled() {
		err = f.endJournal()
	}
	return f.settled(), err
}

// settled says that the renaming may end, and notes that it does.
func (f *Folder) settled() bool {
	if f.settling && !f.gone {
		return false
	}
	f.settler = false
	f.listen()
	return true
}

// settleSome renames up to n of the pending files.
func (f *Folder) settleSome(n int) error {
	if len(f.pending) == 0 {
		return nil
	}
	r := renamer{f: f, dirs: folderDirs{path: f.path}}
	defer r.dirs.close()
	for ; n > 0 && len(f.pending) > 0; n-- {
		if err := r.rename(f.pending[0], flagDelta{op: FlagsAdd}); err != nil && !errors.Is(err, ErrExpunged) {
			return err
		}
		f.pending = f.pending[1:]
	}
	f.stamp()
	return nil
}

// settleAll renames all pending files and removes the journal.
func (f *Folder) settleAll() error {
	if err := f.settleSome(len(f.pending)); err != nil {
		return err
	}
	if err := f.store.syncs.Sync(filepath.Join(f.path, "cur")); err != nil {
		return err
	}
	return f.endJournal()
}

// endJournal removes the journal, whose files all have their names on disk.
func (f *Folder) endJournal() error {
	if err := removeFlagJournal(f.path); err != nil {
		return fmt.Errorf("removing the pending flags: %w", err)
	}
	f.settling, f.pending = false, nil
	f.drop.wakeIndex()
	return nil
}

// mergePending gives the flags of a message whose file another program has renamed before we could: theirs, with our
// change on top.
func (f *Folder) mergePending(m *Msg, flags Flags, keywords uint64) (Flags, uint64) {
	had, letters, _ := parseInfo(m.info)
	hadKeywords := m.Keywords&^letterKeywords | f.namedLetters(letters)
	flags = flags&^(had&^m.Flags) | m.Flags&^had
	keywords = keywords&^(hadKeywords&^m.Keywords) | m.Keywords&^hadKeywords
	return flags, keywords
}
