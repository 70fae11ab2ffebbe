package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
)

// Folder is one mailbox, in memory once and shared by all its sessions. folder_load.go fills it from disk and notices what
// other programs do to the files; folder_change.go holds the changes that sessions make.
type Folder struct {
	drop  *Maildrop
	store *Store
	index *index

	after   <-chan struct{} // closed when the same folder's former life in memory is written; nil: there was none
	loading sync.Once
	loadErr error

	refs int         // covered by drop.mu
	idle *time.Timer // covered by drop.mu

	serial uint64 // in which order the locks of two folders are taken

	mu   sync.Mutex
	dir  string // directory below the maildrop; also covered by drop.mu
	path string
	gone bool // deleted, or put away with the maildrop

	list     uidlist
	keywords keywordTable
	kwStamp  fileStamp
	more     moreKeywords

	// uids and msgs run in parallel, ascending. Views hold slices of uids: it only ever grows at its end, and an expunge
	// makes a new one.
	uids   []imap.UID
	msgs   []Msg
	byBase map[string]imap.UID // made when first needed

	nextUID  imap.UID
	modseq   uint64   // the highest given
	logFloor uint64   // the expunge log is complete for what came after
	crashed  uint64   // where modseq went on after the last crash; 0: there was none
	reserved bool     // a modseq was given in this life
	gen      uint64   // grows with every expunge
	recent   imap.UID // UIDs up to it have been \Recent to some session
	unseen   int
	deleted  int

	curTime, newTime int64 // directory times that the messages in memory correspond to, ns
	racy             bool  // a directory had been changed so shortly before it was read that its time proves nothing

	changes      []flagChange // recent flag changes, ascending by modseq
	changedUIDs  int
	changesFloor uint64 // changes is complete for what came after

	views map[*View]struct{}
	told  MailboxChange // what the views and watches are to be told when the lock is given back

	dirty    []imap.UID // not in the index yet; some perhaps twice, in any order
	allDirty bool
	metaOld  bool
	expunged []expungeRecord
	saving   []expungeRecord // taken by a batch that is not written yet
	unlisted bool            // the UID list lacks some of the messages
	filling  bool            // messages of the UID list are being taken in: it is not to be written from what is in memory
	owed     bool            // a reservation waits for the end of that
	indexGen int

	settling bool       // there is a flag journal, or is about to be
	settler  bool       // a goroutine renames the pending files
	pending  []imap.UID // ascending: their files lack the flags that the journal has given them

	watched bool
	hushed  bool // notices of cur/ are off during a large change of our own
	events  folderEvents
}

// flagChange is one batch of changed messages.
type flagChange struct {
	modseq uint64
	uids   []imap.UID
}

// changesKept bounds the log of flag changes, in UIDs; a view that is further behind looks at all messages.
const changesKept = 50000

func newFolder(d *Maildrop, dir string, ix *index) *Folder {
	f := &Folder{drop: d, store: d.store, index: ix, dir: dir, serial: d.store.serials.Add(1), views: make(map[*View]struct{})}
	f.path = filepath.Join(d.dir, dir)
	f.list.path, f.list.owner = filepath.Join(f.path, uidlistName), d.store.lockOwner
	f.indexGen = ix.generation()
	return f
}

// Release gives the folder back; unused, it leaves memory after idleKeep.
func (f *Folder) Release() { f.drop.release(f) }

// Name is the mailbox's name; it follows renames.
func (f *Folder) Name() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return decodeFolder(f.dir)
}

// Account is the lower-case address of the person whose folder it is.
func (f *Folder) Account() string { return f.drop.account }

// UIDValidity is constant for the folder's life (RFC 9051 §2.3.1.1).
func (f *Folder) UIDValidity() uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.list.head.validity
}

// GUID names the folder for as long as it lives, whatever it is called. One that another program has left without gets one.
func (f *Folder) GUID() (string, error) {
	f.mu.Lock()
	defer f.unlock()
	if err := f.usable(); err != nil {
		return "", err
	}
	if f.list.head.guid == "" {
		f.list.head.guid = newUIDHeader(0).guid
		if err := f.rewriteList(); err != nil {
			f.list.head.guid = ""
			return "", err
		}
	}
	return f.list.head.guid, nil
}

// unlock gives the lock back and then tells the views that they have to Sync, and the maildrop's watches.
func (f *Folder) unlock() {
	news := f.takeNews()
	f.mu.Unlock()
	news.tell()
}

// folderNews is what is to be told when the lock is given back.
type folderNews struct {
	folder *Folder
	dir    string
	told   MailboxChange
	calls  []func()
}

// takeNews must be called with the lock held, and tell without any folder's.
func (f *Folder) takeNews() folderNews {
	news := folderNews{folder: f, dir: f.dir, told: f.told}
	if news.told != 0 {
		f.told = 0
		for v := range f.views {
			if v.onChange != nil {
				news.calls = append(news.calls, v.onChange)
			}
		}
	}
	return news
}

func (n *folderNews) tell() {
	for _, call := range n.calls {
		call()
	}
	n.folder.drop.watches.note(n.dir, n.told)
}

// usable brings the folder in step with its files, or says why it cannot be used.
func (f *Folder) usable() error {
	if f.gone {
		return ErrNoFolder
	}
	return f.refresh()
}

// Status is what STATUS and SELECT report.
type Status struct {
	Messages, Recent, Unseen, Deleted uint32
	UIDNext                           imap.UID
	UIDValidity                       uint32
	HighestModSeq                     uint64
	Size                              int64 // sum of RFC822.SIZE; only when asked for
	DeletedSize                       int64 // bytes on disk of what has \Deleted; only when asked for
}

// Status gives the folder's numbers; size asks for Size and DeletedSize too, for which it may have to look at files.
func (f *Folder) Status(size bool) (Status, error) {
	st, unlearned, err := f.status(size)
	for try := 0; err == nil && unlearned && try < 3; try++ { // also what the last look at the directory has found
		if err = f.learn(f.allUIDs()); err == nil {
			st, unlearned, err = f.status(size)
		}
	}
	return st, err
}

// status is Status without looking at files. unlearned says that Size lacks messages whose size is not known yet.
func (f *Folder) status(size bool) (st Status, unlearned bool, err error) {
	f.mu.Lock()
	defer f.unlock()
	if err := f.usable(); err != nil {
		return Status{}, false, err
	}
	st = Status{Messages: uint32(len(f.msgs)), Unseen: uint32(f.unseen), Deleted: uint32(f.deleted), UIDNext: f.nextUID,
		UIDValidity: f.list.head.validity, HighestModSeq: f.modseq}
	st.Recent = uint32(len(f.uids) - f.search(f.recent+1))
	for i := range f.msgs {
		if !size {
			break
		}
		m := &f.msgs[i]
		unlearned = unlearned || m.Size < 0
		st.Size += max(0, m.Size)
		if m.Flags&FlagDeleted != 0 {
			st.DeletedSize += max(0, m.stored)
		}
	}
	return st, unlearned, nil
}

// Keywords lists the folder's keywords by bit; "" is a bit not in use.
func (f *Folder) Keywords() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.keywords.names
}

// AppendFlags appends the wire form of a message's flags without parentheses: `\Seen $Forwarded`.
func (f *Folder) AppendFlags(dst []byte, m *Msg) []byte {
	if m.Keywords == 0 {
		return appendFlagNames(dst, m, nil)
	}
	return appendFlagNames(dst, m, f.Keywords())
}

func appendFlagNames(dst []byte, m *Msg, keywords []string) []byte {
	start := len(dst)
	for _, s := range systemFlagNames {
		if m.Flags&s.flag != 0 {
			dst = append(append(dst, s.name...), ' ')
		}
	}
	for k := m.Keywords; k != 0; k &= k - 1 {
		if bit := bits.TrailingZeros64(k); bit < len(keywords) && keywords[bit] != "" {
			dst = append(append(dst, keywords[bit]...), ' ')
		}
	}
	if len(dst) > start {
		dst = dst[:len(dst)-1]
	}
	return dst
}

// search gives the index of the first message with this UID or a higher one.
func (f *Folder) search(uid imap.UID) int {
	i, _ := slices.BinarySearch(f.uids, uid)
	return i
}

// find gives a message's index or -1. hint is tried first: lists of UIDs are mostly walked in order.
func (f *Folder) find(uid imap.UID, hint int) int {
	if hint < len(f.uids) && f.uids[hint] == uid {
		return hint
	}
	if i, ok := slices.BinarySearch(f.uids, uid); ok {
		return i
	}
	return -1
}

func (f *Folder) allUIDs() []imap.UID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.uids
}

// Has says whether a message is there.
func (f *Folder) Has(uid imap.UID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.gone && f.find(uid, 0) >= 0
}

// Messages copies the present state of those of the UIDs (ascending) that exist into dst[:0]. Ask for some hundreds at a
// time. full makes Size and Date known, for which it may have to look at files; without it they may be unset.
func (f *Folder) Messages(dst []Msg, uids []imap.UID, full bool) ([]Msg, error) {
	dst, err := f.states(dst[:0], uids)
	if err != nil || !full || !slices.ContainsFunc(dst, func(m Msg) bool { return m.unlearned() }) {
		return dst, err
	}
	if err := f.learn(uids); err != nil {
		return dst[:0], err
	}
	dst, err = f.states(dst[:0], uids)
	for i := range dst {
		if m := &dst[i]; m.unlearned() { // its file is gone, as the next look at the directory will tell
			m.Size, m.Date = max(m.Size, 0), max(m.Date, 0)
		}
	}
	return dst, err
}

func (f *Folder) states(dst []Msg, uids []imap.UID) ([]Msg, error) {
	f.mu.Lock()
	defer f.unlock()
	if f.gone {
		return dst, ErrNoFolder
	}
	hint := 0
	for _, uid := range uids {
		i := f.find(uid, hint)
		if i < 0 {
			continue
		}
		hint = i + 1
		dst = append(dst, f.msgs[i])
	}
	return dst, nil
}

// learn makes sizes and dates known that no file name and no index tells. Files are looked at without the lock: there may
// be very many, and those without a size must be read. One that was renamed meanwhile is looked at again.
func (f *Folder) learn(uids []imap.UID) error {
	for try := range 3 {
		unknown, path, err := f.unlearned(uids)
		if err != nil || len(unknown) == 0 {
			return err
		}
		if try > 0 { // another program has renamed or removed them
			f.poke()
			if unknown, path, err = f.unlearned(uids); err != nil {
				return err
			}
		}
		for part := range slices.Chunk(unknown, 256) {
			for i := range part {
				part[i].lookUp(path)
			}
			f.takeLearned(part)
		}
	}
	return nil
}

// unlearned gives the messages whose date or size is not known yet.
func (f *Folder) unlearned(uids []imap.UID) (unknown []Msg, path string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return nil, "", ErrNoFolder
	}
	hint := 0
	for _, uid := range uids {
		if i := f.find(uid, hint); i >= 0 {
			if hint = i + 1; f.msgs[i].unlearned() {
				unknown = append(unknown, f.msgs[i])
			}
		}
	}
	return unknown, f.path, nil
}

func (f *Folder) takeLearned(msgs []Msg) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range msgs {
		if at := f.find(msgs[i].UID, 0); at >= 0 && !msgs[i].unlearned() {
			m := &f.msgs[at]
			m.Date, m.stored, m.Size = msgs[i].Date, msgs[i].stored, msgs[i].Size
			f.markDirty(m.UID)
		}
	}
}

func (m *Msg) unlearned() bool { return m.Size < 0 || m.Date == dateUnknown }

// lookUp learns date and sizes from the file, if it is there.
func (m *Msg) lookUp(folder string) {
	path := m.pathIn(folder)
	st, err := os.Stat(path)
	if err != nil {
		return
	}
	m.Date = st.ModTime().Unix()
	if m.stored == st.Size() && m.Size >= 0 {
		return
	}
	file, err := openShared(path)
	if err != nil {
		return
	}
	defer file.Close()
	if size, err := crlfLength(file); err == nil {
		m.stored, m.Size = st.Size(), size
	}
}

// nextModSeq gives a new modseq, one that no crash can give again. The first of the folder's life in memory raises the
// reservation in any case: an index that was left clean and knows a lower one has missed this life.
func (f *Folder) nextModSeq() (uint64, error) {
	next := f.modseq + 1
	if next > f.list.head.modseq || !f.reserved {
		if err := f.reserve(0, next+modseqReserve); err != nil {
			return 0, err
		}
		f.reserved = true
	}
	f.modseq = next
	return next, nil
}

// reserveUIDs makes sure that n UIDs from nextUID on can be given.
func (f *Folder) reserveUIDs(n int) error {
	if f.list.changed() {
		if err := f.rereadList(); err != nil {
			return err
		}
	}
	if uint64(f.nextUID)+uint64(n) > 1<<32-1 {
		return errors.New("the mailbox has used up its UIDs")
	}
	if end := uint32(f.nextUID) + uint32(n); end > f.list.head.next {
		return f.reserve(reserveFrom(end), 0)
	}
	return nil
}

// reserve raises the reservations on disk.
func (f *Folder) reserve(next uint32, modseq uint64) error {
	if f.list.changed() { // its header may have other widths now
		if err := f.rereadList(); err != nil {
			return err
		}
	}
	err := f.list.reserve(next, modseq)
	if errors.Is(err, errNeedsRewrite) && f.filling {
		f.owed = true
		return nil
	}
	if errors.Is(err, errNeedsRewrite) || errors.Is(err, fs.ErrNotExist) {
		return f.rewriteList()
	}
	if err != nil {
		return fmt.Errorf("reserving numbers: %w", err)
	}
	return nil
}

// rewriteList writes the UID list anew from what is in memory.
func (f *Folder) rewriteList() error {
	head := f.list.head
	head.next = max(head.next, reserveFrom(uint32(f.nextUID)))
	head.modseq = max(head.modseq, f.modseq+1)
	err := f.list.rewrite(head, func(yield func(uidEntry) bool) {
		for i := range f.msgs {
			if !yield(listEntry(&f.msgs[i])) {
				return
			}
		}
	})
	if err != nil {
		return fmt.Errorf("writing the UID list: %w", err)
	}
	f.unlisted, f.owed = false, false
	return nil
}

func listEntry(m *Msg) uidEntry {
	return uidEntry{uid: uint32(m.UID), stored: m.stored, crlf: m.Size, base: m.base}
}

// appendList adds messages to the UID list. A list that cannot be written now is written later: the UIDs are reserved.
func (f *Folder) appendList(msgs []Msg) {
	entries := make([]uidEntry, len(msgs))
	for i := range msgs {
		entries[i] = listEntry(&msgs[i])
	}
	if !f.unlisted {
		began, err := f.list.append(entries)
		if began {
			time.AfterFunc(uidlistBurst, f.endListBurst)
		}
		if err == nil {
			return
		}
		f.drop.log.Warn("UID list not written, trying again later", "folder", f.dir, "error", err)
	}
	f.unlisted = true
}

// endListBurst lets other programs have the UID list again.
func (f *Folder) endListBurst() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list.endBurst()
}

// syncList puts appended lines of the UID list on disk.
func (f *Folder) syncList() error {
	f.mu.Lock()
	path, due, synced := f.list.path, f.list.unsaved && !f.gone, f.list.stamp
	f.mu.Unlock()
	if !due {
		return nil
	}
	err := syncFile(path)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil { // what a failed fsync has dropped only a new file brings back
		f.unlisted, f.metaOld = true, true
	}
	if err != nil || f.list.stamp == synced { // else lines have come since
		f.list.unsaved = false
	}
	return err
}

func syncFile(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Sync()
}

// markDirty notes that the index lacks the message's present state.
func (f *Folder) markDirty(uid imap.UID) { f.markAllDirty([]imap.UID{uid}) }

// markAllDirty is markDirty of many.
func (f *Folder) markAllDirty(uids []imap.UID) {
	if !f.allDirty {
		if f.dirty = append(f.dirty, uids...); len(f.dirty) > 2*len(f.msgs)+1000 {
			slices.Sort(f.dirty)
			f.dirty = slices.Compact(f.dirty)
		}
	}
	f.metaOld = true
	f.drop.wakeIndex()
}

// noteFlags records a batch of changed messages for the views and the index.
func (f *Folder) noteFlags(modseq uint64, uids []imap.UID) {
	if len(uids) == 0 {
		return
	}
	f.markAllDirty(uids)
	f.changes = append(f.changes, flagChange{modseq, uids})
	f.changedUIDs += len(uids)
	for f.changedUIDs > changesKept && len(f.changes) > 0 {
		f.changedUIDs -= len(f.changes[0].uids)
		f.changesFloor = f.changes[0].modseq
		f.changes = f.changes[1:]
	}
	f.told |= FlagsChanged
}

// count adds a message to the counters or takes it out (sign -1).
func (f *Folder) count(m *Msg, sign int) {
	if m.Flags&FlagSeen == 0 {
		f.unseen += sign
	}
	if m.Flags&FlagDeleted != 0 {
		f.deleted += sign
	}
}

// add puts new messages, whose UIDs ascend above all others, into memory.
func (f *Folder) add(msgs []Msg) {
	before := len(f.uids)
	f.uids = slices.Grow(f.uids, len(msgs))
	for i := range msgs {
		m := &msgs[i]
		f.count(m, 1)
		f.uids = append(f.uids, m.UID)
		if f.byBase != nil {
			f.byBase[m.base] = m.UID
		}
	}
	f.markAllDirty(f.uids[before:])
	if len(f.msgs) == 0 {
		f.msgs = slices.Clip(msgs)
	} else {
		f.msgs = append(f.msgs, msgs...)
	}
	f.told |= MessagesNew
	f.tellArrival(msgs)
}

// adopt gives new messages UIDs and one modseq and lists them. reserveUIDs must have succeeded for as many.
func (f *Folder) adopt(msgs []Msg) ([]imap.UID, error) {
	modseq, err := f.nextModSeq()
	if err != nil {
		return nil, err
	}
	if uint64(f.nextUID)+uint64(len(msgs)) > uint64(f.list.head.next) { // another program gave UIDs meanwhile
		if err := f.reserveUIDs(len(msgs)); err != nil {
			return nil, err
		}
	}
	uids := make([]imap.UID, len(msgs))
	now := f.store.now().Unix()
	for i := range msgs {
		msgs[i].UID, msgs[i].ModSeq, msgs[i].Saved = f.nextUID, modseq, savedTime(msgs[i].base, now)
		uids[i] = f.nextUID
		f.nextUID++
	}
	f.appendList(msgs)
	f.add(msgs)
	return uids, nil
}

// drop takes messages (ascending indexes) out of memory, their files being gone.
func (f *Folder) remove(idx []int) (uint64, error) {
	modseq, err := f.nextModSeq()
	if err != nil { // the files are gone whatever the list says
		f.modseq++
		modseq = f.modseq
	}
	uids := make([]imap.UID, 0, len(f.uids)-len(idx))
	msgs := make([]Msg, 0, len(f.msgs)-len(idx))
	for i, next := 0, 0; i < len(f.msgs); i++ {
		if next == len(idx) || idx[next] != i {
			uids = append(uids, f.uids[i])
			msgs = append(msgs, f.msgs[i])
			continue
		}
		next++
		m := &f.msgs[i]
		f.count(m, -1)
		if f.byBase != nil {
			delete(f.byBase, m.base)
		}
		delete(f.more.of, m.base)
		f.expunged = append(f.expunged, expungeRecord{m.UID, modseq})
	}
	f.uids, f.msgs = uids, msgs
	f.gen++
	f.metaOld = true
	f.told |= MessagesGone
	f.drop.wakeIndex()
	return modseq, err
}

// baseIndex makes byBase.
func (f *Folder) baseIndex() map[string]imap.UID {
	if f.byBase == nil {
		f.byBase = make(map[string]imap.UID, len(f.msgs))
		for i := range f.msgs {
			f.byBase[f.msgs[i].base] = f.msgs[i].UID
		}
	}
	return f.byBase
}

// ExpungedSince gives the UIDs removed after modseq that are within known (nil: all), ascending. When the log does not
// reach back so far, every UID below UIDNEXT that does not exist is given: too much, never too little (RFC 7162 §3.2.5).
func (f *Folder) ExpungedSince(modseq uint64, known imap.UIDSet) (imap.UIDSet, error) {
	f.mu.Lock()
	defer f.unlock()
	if err := f.usable(); err != nil {
		return nil, err
	}
	wanted := func(uid imap.UID) bool { return known == nil || known.Contains(uid) }
	var gone []imap.UID
	complete := modseq >= f.logFloor && f.index.remembers(f.indexGen) && f.index.expungedSince(f.dir, modseq, func(uid imap.UID) {
		if wanted(uid) && f.find(uid, 0) < 0 {
			gone = append(gone, uid)
		}
	})
	if !complete {
		return f.missingUIDs(known), nil
	}
	for _, e := range append(f.saving[:len(f.saving):len(f.saving)], f.expunged...) {
		if e.modseq > modseq && wanted(e.uid) {
			gone = append(gone, e.uid)
		}
	}
	slices.Sort(gone)
	return imap.UIDSetNum(slices.Compact(gone)...), nil
}

// KnownSince gives the modseq after which changes must be told to a client that says that it is in step with modseq: 0,
// everything, if it was here before the last crash. What it saw last may have been lost and undone since, without a trace,
// and what it saw may be later than what it says, for many clients remember the HIGHESTMODSEQ of SELECT and no later one.
func (f *Folder) KnownSince(modseq uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if modseq < f.crashed {
		return 0
	}
	return modseq
}

// missingUIDs are the gaps between the UIDs, as ranges, within known.
func (f *Folder) missingUIDs(known imap.UIDSet) imap.UIDSet {
	if known == nil {
		known = imap.UIDSet{{Start: 1, Stop: f.nextUID - 1}}
	}
	var gaps imap.UIDSet
	for _, r := range known {
		start, stop := r.Start, r.Stop
		if stop == 0 || stop >= f.nextUID {
			stop = f.nextUID - 1
		}
		for i := f.search(start); start <= stop && start != 0; i++ {
			end := stop
			if i < len(f.uids) && f.uids[i] <= stop {
				end = f.uids[i] - 1
			}
			if start <= end {
				gaps.AddRange(start, end)
			}
			start = end + 2
			if end == stop {
				break
			}
		}
	}
	return gaps
}

// Cached calls visit for each UID (ascending) that has a cached value of the kind, in order. value is valid only during
// the call, and visit must not block: copy out, write to the client after. Ask for some hundreds at a time.
func (f *Folder) Cached(kind CacheKind, uids []imap.UID, visit func(uid imap.UID, value []byte)) {
	f.index.cached(f.directory(), kind, uids, visit)
}

// PutCached keeps a derived value. It is written to the index in the background and may be forgotten at any time.
// One for a message that is gone is not kept: another folder may have the name by now. false says that too many wait to be
// written and this one is forgotten.
func (f *Folder) PutCached(kind CacheKind, uid imap.UID, value []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone || kind < cacheBlocks && f.find(uid, 0) < 0 {
		return true
	}
	return f.index.putCached(f.dir, kind, uid, value)
}

func (f *Folder) directory() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dir
}

// takeBatch gives what the index lacks and counts on its being written.
func (f *Folder) takeBatch(indexGen int) (folderBatch, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if indexGen != f.indexGen { // the index was lost meanwhile
		f.indexGen, f.allDirty = indexGen, true
	}
	if f.gone || !f.metaOld && !f.allDirty || f.settling { // the index has flags that file names have; endJournal asks anew
		return folderBatch{}, false
	}
	return f.batch(false), true
}

// batch must be called with the lock held.
func (f *Folder) batch(clean bool) folderBatch {
	if f.unlisted {
		if err := f.rewriteList(); err != nil {
			f.drop.log.Warn("UID list not written", "folder", f.dir, "error", err)
		}
	}
	b := folderBatch{dir: f.dir, reset: f.allDirty, expunged: f.expunged}
	if f.allDirty {
		b.puts = append([]Msg(nil), f.msgs...)
	} else {
		slices.Sort(f.dirty)
		hint := 0
		for _, uid := range slices.Compact(f.dirty) {
			if i := f.find(uid, hint); i >= 0 {
				b.puts = append(b.puts, f.msgs[i])
				hint = i + 1
			}
		}
	}
	b.meta = folderMeta{Validity: f.list.head.validity, Next: uint32(f.nextUID), ModSeq: f.modseq, LogFloor: f.logFloor,
		Recent: uint32(f.recent), Count: len(f.msgs), Clean: clean, Cur: f.curTime, New: f.newTime, Saved: time.Now().UnixNano(),
		ListSize: f.list.stamp.size, ListMtime: f.list.stamp.mtime, ListID: f.list.stamp.id, Keywords: f.keywords.names,
		Crashed: f.crashed, Reserved: f.list.head.modseq}
	if f.unlisted {
		b.meta.ListSize = -1 // the UID list is to be read, and written, when the folder is loaded
	}
	if f.allDirty {
		b.meta.LogFloor = f.modseq
		f.logFloor = f.modseq
	}
	f.dirty, f.allDirty, f.metaOld, f.expunged, f.saving = nil, false, false, nil, f.expunged
	return b
}

// batchWritten is called after a write. When it failed the index gets everything anew next time, and its log of removals
// is worth nothing until then.
func (f *Folder) batchWritten(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.saving = nil
	if err != nil {
		f.allDirty, f.logFloor = true, f.modseq
	}
}

// putAway ends the folder's life in memory and gives the last batch for the index.
func (f *Folder) putAway() (folderBatch, bool) {
	if f.loading.Do(func() { f.loadErr = ErrClosed }); f.loadErr != nil {
		return folderBatch{}, false
	}
	f.mu.Lock()
	defer f.unlock()
	if f.gone {
		return folderBatch{}, false
	}
	if f.settling {
		if err := f.settleAll(); err != nil { // the journal says it all when the folder is loaded again
			f.drop.log.Warn("files not renamed", "folder", f.dir, "error", err)
			f.leave()
			return folderBatch{}, false
		}
	}
	if f.list.lines > len(f.msgs)+len(f.msgs)/4+100 && !f.list.changed() {
		if err := f.rewriteList(); err != nil {
			f.drop.log.Warn("UID list not compacted", "folder", f.dir, "error", err)
		}
	}
	b := f.batch(true)
	if f.list.unsaved {
		if err := syncFile(f.list.path); err != nil {
			f.drop.log.Warn("UID list not synced", "folder", f.dir, "error", err)
		}
	}
	f.leave()
	return b, true
}

// markGone is called when the folder is deleted.
func (f *Folder) markGone() {
	f.loading.Do(func() { f.loadErr = ErrNoFolder })
	f.mu.Lock()
	defer f.unlock()
	f.leave()
}

// leave ends all that a folder in memory has of its files.
func (f *Folder) leave() {
	f.list.endBurst()
	f.unwatch()
	f.gone = true
	f.told |= viewsChanged
}

// moveTo follows a rename of the directory; drop.mu and f.mu are held.
func (f *Folder) moveTo(dir string) {
	f.dir = dir
	f.path = filepath.Join(f.drop.dir, dir)
	f.list.path = filepath.Join(f.path, uidlistName)
	f.watchDirs()
}
