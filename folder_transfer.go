package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/emersion/go-imap/v2"
)

// COPY and MOVE.
//
// Both folders' locks are held from the first file to the last, so that no change of another session comes in between: what
// was answered before has its effect on the messages that arrive, and what comes later finds them where they are then. Nothing
// that waits for a client or reads texts is done meanwhile: files get names only. Where a file can get no second name, or no
// name in another file system, a copy of it is made in the target's tmp/ before, without a lock.
//
// Other programs may rename and remove files at any time. A file that is not where it should be is looked for under another
// name; only what is found nowhere is gone.

// transferTries is how often messages are looked for whose files others rename meanwhile.
const transferTries = 4

// errNeedsCopy says that a file cannot get a name in the target.
var errNeedsCopy = errors.New("the file cannot be in both places")

// transfer is one COPY or MOVE.
type transfer struct {
	from, to *Folder
	may      Rights // in the target
	move     bool

	staged map[imap.UID]string // copies of texts: names in the target's tmp/

	// What follows is covered by the locks of both folders.
	dirs, into folderDirs
	mapped     map[uint64]uint64 // keywords of the source -> those of the target
	placed     []placedFile
}

// placedFile is a message whose file has its name in the target.
type placedFile struct {
	source Msg
	path   string // where the file was
	msg    Msg    // as it is to be in the target
}

// Copy copies messages with flags and dates into another folder or the same, all or none; the result runs parallel to
// uids (ascending). ErrExpunged when one of them is gone, ErrOverQuota and ErrAboveQuota when there is no room for all.
func (f *Folder) Copy(uids []imap.UID, to *Folder) ([]imap.UID, error) {
	return f.CopyAs(RightsAll, uids, to)
}

// CopyAs is Copy with certain rights in the other folder: flags that take others are not copied.
func (f *Folder) CopyAs(may Rights, uids []imap.UID, to *Folder) ([]imap.UID, error) {
	if err := f.mayTransfer(to, uids); err != nil {
		return nil, fmt.Errorf("copying: %w", err)
	}
	t := transfer{from: f, to: to, may: may}
	_, dst, _, err := t.run(uids)
	if err != nil {
		return nil, diskError(fmt.Errorf("copying: %w", err))
	}
	to.tellFiling(f, dst)
	return dst, nil
}

// Move is Copy and Expunge in one: each file is renamed, so that a crash leaves every message in exactly one place.
// Within one folder the messages get new UIDs. modseq is that of the removal. Only from another maildrop it needs room
// there. Messages that are gone are left out, as RFC 6851 allows: moved are those that were there, dst runs parallel to it;
// ErrExpunged when all are gone. On an error nothing is moved, but for one of the disk after all was done.
func (f *Folder) Move(uids []imap.UID, to *Folder) (moved, dst []imap.UID, modseq uint64, err error) {
	return f.MoveAs(RightsAll, uids, to)
}

// MoveAs is Move with certain rights in the other folder: flags that take others are lost.
func (f *Folder) MoveAs(may Rights, uids []imap.UID, to *Folder) (moved, dst []imap.UID, modseq uint64, err error) {
	if err := f.mayTransfer(to, uids); err != nil {
		return nil, nil, 0, fmt.Errorf("moving: %w", err)
	}
	t := transfer{from: f, to: to, may: may, move: true}
	moved, dst, modseq, err = t.run(uids)
	if err != nil {
		return nil, nil, 0, diskError(fmt.Errorf("moving: %w", err))
	}
	to.tellFiling(f, dst)
	return moved, dst, modseq, nil
}

// run does it, with the room that it needs.
func (t *transfer) run(uids []imap.UID) (src, dst []imap.UID, modseq uint64, err error) {
	if err := t.from.learn(uids); err != nil {
		return nil, nil, 0, err
	}
	var need Quota
	if !t.move || t.from.drop != t.to.drop {
		msgs, err := t.from.states(nil, uids)
		if err != nil {
			return nil, nil, 0, err
		}
		need = sizeOf(msgs)
	}
	settle, err := t.to.drop.reserve(need)
	if err != nil {
		return nil, nil, 0, err
	}
	added := false
	defer func() { settle(added) }()
	defer t.unstage()
	for try := 1; ; try++ {
		src, dst, modseq, err = t.commit(uids)
		if !errors.Is(err, errNeedsCopy) || try == transferTries {
			break
		}
		if err = t.stage(uids); err != nil {
			break
		}
	}
	if err != nil {
		return nil, nil, 0, err
	}
	added = true
	return src, dst, modseq, t.sync()
}

// sync puts on disk what was done: first where the messages are now.
func (t *transfer) sync() error {
	if err := t.to.syncCur(); err != nil || !t.move {
		return err
	}
	var changed [2]bool
	for i := range t.placed {
		changed[t.placed[i].source.place] = true
	}
	if err := t.from.syncPlaces(changed); !errors.Is(err, ErrNoFolder) { // else deleted since, with what else was in it
		return err
	}
	return nil
}

// lockBoth takes the locks of two folders, which may be one, in the same order for everybody.
func lockBoth(a, b *Folder) (unlock func()) {
	if a == b {
		a.mu.Lock()
		return a.unlock
	}
	if a.serial > b.serial {
		a, b = b, a
	}
	a.mu.Lock()
	b.mu.Lock()
	return func() {
		of, other := a.takeNews(), b.takeNews()
		b.mu.Unlock()
		a.mu.Unlock()
		of.tell()
		other.tell()
	}
}

// commit does all of it or nothing. src are the messages, as they were then, that are in the target under dst.
func (t *transfer) commit(uids []imap.UID) (src, dst []imap.UID, modseq uint64, err error) {
	defer lockBoth(t.from, t.to)()
	if err := errors.Join(t.from.usable(), t.to.usable()); err != nil {
		return nil, nil, 0, err
	}
	if err := t.to.reserveUIDs(len(uids)); err != nil {
		return nil, nil, 0, err
	}
	if t.move {
		if _, err := t.from.nextModSeq(); err != nil { // nor would there be one for the removal
			return nil, nil, 0, err
		}
	}
	lost, err := t.place(uids)
	if err == nil {
		dst, err = t.to.adopt(t.arrivals())
	}
	if err != nil {
		t.undo()
		return nil, nil, 0, err
	}
	t.to.stamp()
	src = make([]imap.UID, len(t.placed))
	for i := range t.placed {
		src[i] = t.placed[i].source.UID
	}
	if !t.move {
		return src, dst, 0, nil
	}
	if modseq, err = t.from.forget(src); err != nil {
		t.from.drop.log.Warn("number of a removal not reserved", "folder", t.from.dir, "error", err)
	}
	if lost { // the next look at the directory finds them gone
		t.from.curTime, t.from.newTime = 0, 0
	}
	return src, dst, modseq, nil
}

// arrivals gives the new messages.
func (t *transfer) arrivals() []Msg {
	msgs := make([]Msg, len(t.placed))
	for i := range t.placed {
		msgs[i] = t.placed[i].msg
	}
	return msgs
}

// place gives the files of the messages names in the target. lost says that some of a MOVE were found nowhere.
func (t *transfer) place(uids []imap.UID) (lost bool, err error) {
	for _, f := range []*Folder{t.from, t.to} {
		if (f == t.to || t.move) && f.hush(len(uids)) {
			defer f.listen()
		}
	}
	t.dirs, t.into = folderDirs{path: t.from.path}, folderDirs{path: t.to.path}
	defer t.dirs.close()
	defer t.into.close()
	t.placed, t.mapped = make([]placedFile, 0, len(uids)), make(map[uint64]uint64)
	missing, err := t.placeSome(uids)
	for try := 1; err == nil && len(missing) > 0 && try < transferTries; try++ {
		if err = t.from.findRenamed(); err == nil {
			clear(t.mapped)
			missing, err = t.placeSome(missing)
		}
	}
	if err == nil && len(t.placed) < len(uids) && (!t.move || len(t.placed) == 0) {
		err = ErrExpunged
	}
	sortFunc(t.placed, func(a, b placedFile) int { return int(int64(a.source.UID) - int64(b.source.UID)) })
	return len(missing) > 0, err
}

// placeSome is place for those whose files are where they should be; missing are the others.
func (t *transfer) placeSome(uids []imap.UID) (missing []imap.UID, err error) {
	files := make([]placedFile, 0, len(uids))
	hint := 0
	for _, uid := range uids {
		i := t.from.find(uid, hint)
		if i < 0 {
			continue
		}
		hint = i + 1
		file, err := t.prepare(t.from.msgs[i])
		if errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, uid)
		} else if err != nil {
			return nil, err
		} else {
			files = append(files, file)
		}
	}
	if err := t.to.saveMore(len(files), func(i int) (string, uint64) { return files[i].msg.base, files[i].msg.Keywords }); err != nil {
		return nil, err
	}
	for i := range files {
		err := t.put(&files[i])
		if errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, files[i].source.UID)
		} else if err != nil {
			return nil, err
		} else {
			t.placed = append(t.placed, files[i])
		}
	}
	slices.Sort(missing)
	return missing, nil
}

// prepare says what a message is to be in the target, with the flags that may be set there.
func (t *transfer) prepare(source Msg) (file placedFile, err error) {
	m := source
	if m.unlearned() {
		if m.lookUp(t.from.path); m.unlearned() {
			return file, fs.ErrNotExist
		}
	}
	m.Flags &= t.may.flags()
	if m.Keywords, err = t.to.mapKeywords(m.Keywords&t.may.keywords(), t.from.keywords.names, t.mapped); err != nil {
		return file, err
	}
	m.base = withSizes(t.to.store.names.unique(), m.stored, m.Size)
	m.info, m.place = formatInfo(m.Flags, uint32(m.Keywords&letterKeywords), ""), 0
	return placedFile{source, source.pathIn(t.from.path), m}, nil
}

// put gives a file its name in the target: errNeedsCopy when it needs a copy for that.
func (t *transfer) put(file *placedFile) error {
	name := file.msg.pathIn(t.to.path)
	if staged, ok := t.staged[file.source.UID]; ok {
		return t.putStaged(filepath.Join(t.to.path, "tmp", staged), file.path, name)
	}
	var err error
	if t.move {
		err = t.rename(&file.source, &file.msg)
	} else {
		err = os.Link(file.path, name)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || isDiskFull(err) {
		return err
	}
	return fmt.Errorf("%w: %w", errNeedsCopy, err)
}

// rename moves a file.
func (t *transfer) rename(source, m *Msg) error {
	from, err := t.dirs.of(source)
	if err != nil {
		return err
	}
	to, err := t.into.of(m)
	if err != nil {
		return err
	}
	return from.rename(source.fileName(), to, m.fileName())
}

// putStaged gives a copy its name, and a MOVE then removes the file that it was made from.
func (t *transfer) putStaged(staged, path, name string) error {
	err := renameFile(staged, name)
	if err != nil || !t.move {
		return err
	}
	if err = removeFile(path); err != nil { // or it would be in both
		return errors.Join(err, renameFile(name, staged))
	}
	return nil
}

// undo takes all files back. What cannot be taken back the next look at the directory finds.
func (t *transfer) undo() {
	for i := range t.placed {
		p := &t.placed[i]
		name := p.msg.pathIn(t.to.path)
		if !t.move {
			removeFile(name)
		} else if err := moveFile(name, p.path, filepath.Join(t.from.path, "tmp", p.source.base)); err != nil {
			t.from.drop.log.Warn("message not moved back", "folder", t.from.dir, "error", err)
		}
	}
	t.placed = nil
}

// stage copies the texts of messages into the target's tmp/, synced. It holds no lock: they may be large.
func (t *transfer) stage(uids []imap.UID) error {
	if t.staged == nil {
		t.staged = make(map[imap.UID]string)
	}
	for _, uid := range uids {
		if t.staged[uid] != "" {
			continue
		}
		name := t.to.store.names.unique()
		err := t.from.withFile(uid, func(path string) error { return copyText(path, filepath.Join(t.to.location(), "tmp", name)) })
		if errors.Is(err, ErrExpunged) {
			continue // as commit will find
		}
		if err != nil {
			return err
		}
		t.staged[uid] = name
	}
	return nil
}

// unstage removes the copies that were not needed.
func (t *transfer) unstage() {
	for _, name := range t.staged {
		removeFile(filepath.Join(t.to.location(), "tmp", name))
	}
}

// location is the folder's path.
func (f *Folder) location() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.path
}

// forget takes messages out of memory whose files have been moved away.
func (f *Folder) forget(uids []imap.UID) (uint64, error) {
	var idx []int
	hint := 0
	for _, uid := range uids {
		if i := f.find(uid, hint); i >= 0 {
			idx, hint = append(idx, i), i+1
		}
	}
	modseq, err := f.remove(idx)
	f.stamp()
	return modseq, err
}

// sizeOf sums up what messages take of a quota.
func sizeOf(msgs []Msg) Quota {
	sum := Quota{Messages: int64(len(msgs))}
	for i := range msgs {
		sum.Bytes += max(0, msgs[i].stored)
	}
	return sum
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
