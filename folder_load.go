package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// How a folder comes into memory, and how it notices what other programs do to its files.
//
// A directory's modification time tells whether a file in it was made, renamed or removed. The index remembers the times
// that its records correspond to, so a folder whose times are the same is not read at all. A time that lies too close to
// the moment of reading proves nothing (clocks of file systems tick slowly), and the directory is then read again.

// racyTime is the coarsest tick of a directory's time that we know of (FAT).
const racyTime = 2 * time.Second

// load fills the folder from the index, the UID list and the directories.
func (f *Folder) load() error {
	if f.after != nil {
		<-f.after
	}
	f.mu.Lock()
	defer f.unlock()
	watching := make(chan bool, 1)
	go func() { watching <- f.watchBoth() }() // in a large folder this takes the system a while
	meta, msgs, known := f.index.loadFolder(f.dir)
	f.watched = <-watching
	if err := f.loadKeywords(meta.Keywords); err != nil {
		return err
	}
	more, err := f.loadMore()
	if err != nil {
		return err
	}
	// An index that has lost records knows less than the UID list.
	if known && len(msgs) == meta.Count && f.list.loadHeader() && f.list.head.validity == meta.Validity && f.list.stamp == (fileStamp{meta.ListSize, meta.ListMtime, meta.ListID}) {
		f.takeIndexed(meta, msgs)
		f.list.lines = max(len(msgs), int(meta.ListSize/100))
		err = f.loadChanged(meta)
	} else {
		err = f.loadListed(meta, msgs, known)
	}
	if err == nil {
		err = f.takeMore(more)
	}
	if err == nil {
		err = f.replayFlags(meta)
	}
	return err
}

// takeIndexed takes over what the index says.
func (f *Folder) takeIndexed(meta folderMeta, msgs []Msg) {
	f.msgs = msgs
	f.uids = make([]imap.UID, len(msgs))
	for i := range msgs {
		f.uids[i] = msgs[i].UID
		f.count(&msgs[i], 1)
	}
	f.nextUID = imap.UID(meta.Next)
	if n := len(f.uids); n > 0 {
		f.nextUID = max(f.nextUID, f.uids[n-1]+1)
	}
	f.modseq, f.logFloor, f.recent, f.crashed = meta.ModSeq, meta.LogFloor, imap.UID(meta.Recent), meta.Crashed
	f.changesFloor = f.modseq
}

// loadChanged reads the directories whose times are not those of the index.
func (f *Folder) loadChanged(meta folderMeta) error {
	cur, new := f.dirTimes()
	trusted := func(known, now int64) bool { return known == now && meta.Saved-known > int64(racyTime) }
	curSame, newSame := trusted(meta.Cur, cur), trusted(meta.New, new)
	f.curTime, f.newTime = cur, new
	if !meta.Clean || !curSame {
		f.startAbove(meta)
	}
	if curSame && newSame && meta.Clean {
		return nil
	}
	before := f.gen
	if err := f.scan(!curSame || !meta.Clean, true, nil); err != nil {
		return err
	}
	if f.gen != before {
		f.startAbove(meta)
	}
	return nil
}

// startAbove goes on with modseqs above all that may ever have been announced, for the index may lack the last changes,
// and no longer trusts its log of removals.
func (f *Folder) startAbove(meta folderMeta) {
	f.modseq = max(f.modseq, f.list.head.modseq, meta.ModSeq)
	left := meta.Clean && f.list.head.modseq <= meta.Reserved // nothing was changed here since the index was written
	if !left && meta.ModSeq > 0 && meta.ModSeq < f.modseq {
		f.crashed = f.modseq
	}
	f.logFloor, f.changesFloor = f.modseq, f.modseq
	f.metaOld = true
	f.drop.wakeIndex()
}

// loadListed loads a folder that has no usable index, or whose UID list another program has written.
func (f *Folder) loadListed(meta folderMeta, msgs []Msg, known bool) error {
	entries, damage, err := f.list.load()
	if err != nil {
		return err
	}
	if damage.lines > 0 {
		f.drop.log.Warn("UID list is damaged, rebuilding", "path", f.list.path, "lines", damage.lines, "first", damage.first)
	}
	if known && f.list.known && f.list.head.validity != meta.Validity {
		known = false
	}
	if known {
		msgs, f.unlisted = agreeing(msgs, entries)
		f.takeIndexed(meta, msgs)
	} else {
		f.allDirty = true
		f.index.forget(f.dir)
	}
	f.nextUID = max(f.nextUID, 1)
	if n := len(entries); n > 0 {
		f.nextUID = max(f.nextUID, imap.UID(entries[n-1].uid)+1)
	}
	fresh := !f.list.known
	if fresh {
		f.newList(meta, known) // what it reserves is free
	} else {
		f.nextUID = max(f.nextUID, imap.UID(f.list.head.next))
	}
	f.startAbove(meta)
	f.filling = !fresh
	err = f.scan(true, true, entryMap(entries))
	f.filling = false
	if err != nil {
		return err
	}
	if fresh || f.owed { // its UIDs must not be shown before they are safe
		return f.rewriteList()
	}
	if damage.lines > 0 || f.unlisted {
		if err := f.rewriteList(); err != nil {
			f.unlisted = true
			f.drop.log.Warn("UID list not written, trying again later", "folder", f.dir, "error", err)
		}
	}
	return nil
}

// newList starts a UID list: with the UIDVALIDITY that the index remembers, else a new one.
func (f *Folder) newList(meta folderMeta, known bool) {
	validity := f.drop.newValidity()
	if known && meta.Validity != 0 {
		validity = meta.Validity
	}
	head := newUIDHeader(validity)
	head.next = reserveFrom(uint32(f.nextUID))
	head.modseq = meta.ModSeq + modseqReserve
	f.list.head = head
	f.unlisted = true
}

// agreeing keeps the indexed messages that the UID list does not contradict. Those it lacks keep their UIDs too, and must be
// written to it.
func agreeing(msgs []Msg, entries []uidEntry) (kept []Msg, lacking bool) {
	byUID := make(map[uint32]string, len(entries))
	for _, e := range entries {
		byUID[e.uid] = e.base
	}
	kept = msgs[:0]
	for _, m := range msgs {
		base, listed := byUID[uint32(m.UID)]
		if !listed || base == m.base {
			kept = append(kept, m)
			lacking = lacking || !listed
		}
	}
	return kept, lacking
}

// entryMap finds entries by base. A base is listed twice when its file was gone for a while and came back as a new
// message: the later UID is the one that clients have.
func entryMap(entries []uidEntry) map[string]uidEntry {
	byBase := make(map[string]uidEntry, len(entries))
	for _, e := range entries {
		byBase[e.base] = e
	}
	return byBase
}

// rereadList takes over what another program has done to the UID list.
func (f *Folder) rereadList() error {
	entries, damage, err := f.list.load()
	if err != nil {
		return err
	}
	if damage.lines > 0 {
		f.drop.log.Warn("UID list is damaged, rebuilding", "path", f.list.path, "lines", damage.lines, "first", damage.first)
	}
	return f.mergeList(entries)
}

// mergeList goes on above the UIDs that others gave. A list that is gone is written again.
func (f *Folder) mergeList(entries []uidEntry) error {
	if !f.list.known {
		return f.rewriteList()
	}
	last := imap.UID(0)
	if n := len(entries); n > 0 {
		last = imap.UID(entries[n-1].uid)
	}
	if last >= f.nextUID { // somebody gave UIDs: theirs are taken over by scan, ours go on above their reservation
		f.nextUID = max(last+1, imap.UID(f.list.head.next))
	}
	return nil
}

// refreshKeywords reads dovecot-keywords again when another program has written it.
func (f *Folder) refreshKeywords() error {
	if statStamp(filepath.Join(f.path, keywordsName)) == f.kwStamp {
		return nil
	}
	return f.loadKeywords(f.keywords.names)
}

// dirTimes gives the modification times of cur and new.
func (f *Folder) dirTimes() (cur, new int64) {
	if st, err := os.Stat(filepath.Join(f.path, "cur")); err == nil {
		cur = st.ModTime().UnixNano()
	}
	if st, err := os.Stat(filepath.Join(f.path, "new")); err == nil {
		new = st.ModTime().UnixNano()
	}
	return cur, new
}

// stamp notes the directory times after a change of our own. They also cover what another program did since the folder
// was last looked at; where there are no notices of that, the directories are read once more.
func (f *Folder) stamp() {
	f.curTime, f.newTime = f.dirTimes()
	f.racy = f.racy || !f.watched
}

// refresh looks whether other programs have changed the directories, and takes over what they did.
func (f *Folder) refresh() error {
	cur, new := f.dirTimes()
	again := f.racy && time.Now().UnixNano()-max(f.curTime, f.newTime) > int64(racyTime)
	if cur == f.curTime && new == f.newTime && !again {
		return nil
	}
	return f.scan(cur != f.curTime || again, new != f.newTime || again, nil)
}

// poke makes the folder look at its files.
func (f *Folder) poke() {
	f.mu.Lock()
	defer f.unlock()
	if f.gone {
		return
	}
	if err := f.scan(true, true, nil); err != nil {
		f.drop.log.Warn("mailbox not read", "folder", f.dir, "error", err)
	}
}

// found is where a base was seen on disk.
type found struct {
	info  string
	place uint8
}

// readDirs visits the files of the directories asked for, those of cur/ last.
func (f *Folder) readDirs(cur, new bool, visit func(base string, at found)) error {
	for _, d := range [...]struct {
		name  string
		place uint8
		read  bool
	}{{"new", placeNew, new}, {"cur", 0, cur}} {
		if !d.read {
			continue
		}
		names, err := listNames(filepath.Join(f.path, d.name))
		if errors.Is(err, fs.ErrNotExist) {
			if _, serr := os.Stat(f.path); serr != nil {
				return ErrNoFolder
			}
			if err = makeMaildir(f.path); err == nil { // other programs may leave out what is empty
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("reading a mailbox: %w", err)
		}
		for _, n := range names {
			base, info := splitName(n)
			visit(base, found{info, d.place})
		}
	}
	return nil
}

// scan compares the directories with what is in memory: new files become messages, changed letters become flags, gone
// files are expunged. listed are the UIDs that the UID list has for files not in memory; nil means to read it if needed.
func (f *Folder) scan(cur, new bool, listed map[string]uidEntry) error {
	curTime, newTime := f.dirTimes()
	var arrivals []arrival
	var seen map[string]found // nil: there is nothing to compare with
	visit := func(base string, at found) { arrivals = append(arrivals, arrival{base, at}) }
	if len(f.msgs) > 0 {
		seen = make(map[string]found, len(f.msgs)+16)
		visit = func(base string, at found) { seen[base] = at }
	}
	if err := f.readDirs(cur, new, visit); err != nil {
		return err
	}
	if err := f.refreshKeywords(); err != nil { // after the letters that they name were read
		return err
	}
	if seen != nil {
		var err error
		if arrivals, err = f.compare(seen, cur, new); err != nil {
			return err
		}
	}
	if err := f.takeNew(inOrder(arrivals), listed); err != nil {
		return err
	}
	f.curTime, f.newTime = curTime, newTime
	f.racy = time.Now().UnixNano()-max(curTime, newTime) < int64(racyTime) && !f.watched
	return nil
}

// compare takes over what differs between the messages in memory and the files that were seen, and gives the files that
// are no message yet.
func (f *Folder) compare(seen map[string]found, cur, new bool) ([]arrival, error) {
	missing := f.missing(seen, cur, new)
	if len(missing) > 0 {
		// A file that is renamed while its directory is read may not be listed at all: look again before believing it.
		if err := f.readDirs(true, true, func(base string, at found) { seen[base] = at }); err != nil {
			return nil, err
		}
		missing = f.missing(seen, cur, new)
	}
	if err := f.takeFlags(seen); err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		if _, err := f.remove(missing); err != nil {
			return nil, err
		}
	}
	return f.unknown(seen), nil
}

// findRenamed takes over the names that others have given to files, and leaves what is new or gone to the next scan.
func (f *Folder) findRenamed() error {
	seen := make(map[string]found, len(f.msgs))
	if err := f.readDirs(true, true, func(base string, at found) { seen[base] = at }); err != nil {
		return err
	}
	if err := f.refreshKeywords(); err != nil {
		return err
	}
	return f.takeFlags(seen)
}

// missing gives the indexes of messages that should have been seen and were not.
func (f *Folder) missing(seen map[string]found, cur, new bool) []int {
	var idx []int
	for i := range f.msgs {
		m := &f.msgs[i]
		if m.place == placeNew && !new || m.place != placeNew && !cur {
			continue
		}
		if _, ok := seen[m.base]; !ok {
			idx = append(idx, i)
		}
	}
	return idx
}

// takeFlags takes over names that others have changed.
func (f *Folder) takeFlags(seen map[string]found) error {
	if len(f.msgs) == 0 {
		return nil
	}
	var changed []imap.UID
	var modseq uint64
	pending := f.pending
	for i := range f.msgs {
		m := &f.msgs[i]
		for len(pending) > 0 && pending[0] < m.UID {
			pending = pending[1:]
		}
		at, ok := seen[m.base]
		if !ok || at.info == m.info && at.place == m.place {
			continue
		}
		flags, letters, _ := parseInfo(at.info)
		keywords := m.Keywords&^letterKeywords | f.more.of[m.base] | f.namedLetters(letters)
		if len(pending) > 0 && pending[0] == m.UID {
			flags, keywords = f.mergePending(m, flags, keywords)
		}
		same := flags == m.Flags && keywords == m.Keywords
		if !same && modseq == 0 {
			var err error
			if modseq, err = f.nextModSeq(); err != nil {
				return err // the old name stays known, so that the next look finds the change again
			}
		}
		m.info, m.place = at.info, at.place
		f.markDirty(m.UID)
		if same {
			continue
		}
		f.count(m, -1)
		m.Flags, m.Keywords, m.ModSeq = flags, keywords, modseq
		f.count(m, 1)
		changed = append(changed, m.UID)
	}
	f.noteFlags(modseq, changed)
	return nil
}

// namedLetters gives the keyword bits of letters; letters without a name in dovecot-keywords are left out.
func (f *Folder) namedLetters(letters uint32) uint64 {
	var bits uint64
	for i, name := range f.keywords.names {
		if i < maxFileKeywords && name != "" && letters&(1<<i) != 0 {
			bits |= 1 << i
		}
	}
	return bits
}

// takeNew makes messages of the files that are not in memory.
func (f *Folder) takeNew(arrivals []arrival, listed map[string]uidEntry) error {
	if len(arrivals) == 0 {
		return nil
	}
	loading := listed != nil
	if !loading && f.list.changed() {
		entries, _, err := f.list.load()
		if err != nil {
			return err
		}
		listed = entryMap(entries)
		if err := f.mergeList(entries); err != nil {
			return err
		}
	}
	last := imap.UID(0)
	if n := len(f.uids); n > 0 {
		last = f.uids[n-1]
	}
	withUID := make([]Msg, 0, min(len(listed), len(arrivals)))
	without := make([]Msg, 0, len(arrivals)-cap(withUID))
	for _, a := range arrivals {
		m := f.newMsg(a.base, a.found)
		e, ok := listed[a.base]
		if ok && (imap.UID(e.uid) > last || loading && f.find(imap.UID(e.uid), 0) < 0) {
			m.UID = imap.UID(e.uid)
			if m.Size < 0 {
				m.stored, m.Size = e.stored, e.crlf
			}
			withUID = append(withUID, m)
		} else {
			without = append(without, m)
		}
	}
	if err := f.addListed(withUID); err != nil {
		return err
	}
	if len(without) == 0 {
		return nil
	}
	if f.list.known || !loading {
		if err := f.reserveUIDs(len(without)); err != nil {
			return err
		}
	}
	_, err := f.adopt(without)
	return err
}

// arrival is a file that is not in memory.
type arrival struct {
	base string
	found
}

// unknown lists the files that are not in memory.
func (f *Folder) unknown(seen map[string]found) []arrival {
	var files []arrival
	known := f.baseIndex()
	for base, at := range seen {
		if _, ok := known[base]; !ok {
			files = append(files, arrival{base, at})
		}
	}
	return files
}

// inOrder sorts files in the order of their arrival, by the time in the name. One that was found twice, because it was
// moved meanwhile, is in cur/.
func inOrder(files []arrival) []arrival {
	slices.SortFunc(files, func(a, b arrival) int {
		x, y := strings.IndexByte(a.base, '.'), strings.IndexByte(b.base, '.')
		if x != y { // seconds with more digits are later
			return x - y
		}
		if order := strings.Compare(a.base, b.base); order != 0 {
			return order
		}
		return int(b.place) - int(a.place)
	})
	kept := files[:0]
	for i, file := range files {
		if i+1 == len(files) || files[i+1].base != file.base {
			kept = append(kept, file)
		}
	}
	return kept
}

// newMsg makes the message of a file.
func (f *Folder) newMsg(base string, at found) Msg {
	m := Msg{base: base, info: at.info, place: at.place, Date: dateUnknown}
	m.stored, m.Size = baseSizes(base)
	if m.stored < 0 {
		m.Size = -1 // a size without the stored one cannot be checked when the file is opened
	}
	var letters uint32
	m.Flags, letters, _ = parseInfo(at.info)
	m.Keywords = f.namedLetters(letters) | f.more.of[base]
	return m
}

// savedTime gives when a message came into its folder: its name begins with that time, in seconds, so that it is the same
// when the index is lost. A name without one gives now.
func savedTime(base string, now int64) int64 {
	seconds, _, _ := strings.Cut(base, ".")
	if t, err := strconv.ParseInt(seconds, 10, 64); err == nil && t > 0 && t < now {
		return t
	}
	return now
}

// addListed adds messages whose UIDs the list knows. While loading they may lie between others.
func (f *Folder) addListed(msgs []Msg) error {
	if len(msgs) == 0 {
		return nil
	}
	modseq, err := f.nextModSeq()
	if err != nil {
		return err
	}
	slices.SortFunc(msgs, func(a, b Msg) int { return int(int64(a.UID) - int64(b.UID)) })
	for i := range msgs {
		msgs[i].ModSeq, msgs[i].Saved = modseq, savedTime(msgs[i].base, f.store.now().Unix())
	}
	between := len(f.uids) > 0 && msgs[0].UID <= f.uids[len(f.uids)-1]
	f.add(msgs)
	if between {
		slices.SortFunc(f.msgs, func(a, b Msg) int { return int(int64(a.UID) - int64(b.UID)) })
		f.uids = slices.Clone(f.uids)
		slices.Sort(f.uids)
	}
	f.nextUID = max(f.nextUID, f.uids[len(f.uids)-1]+1)
	return nil
}
