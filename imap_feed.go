package main

// How the text index (textindex.go) is fed. A message that arrives is read in the background. A search that must read a
// message anyway keeps what it saw; what it did not read of its mailbox is read in the background after. So a mailbox that
// nobody searches costs nothing but its new messages.
//
// Entries of single messages lie in the index of the folder under their UIDs; when there are enough, they become a block.

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
)

// The kinds of values of the text index.
const (
	cacheText      CacheKind = 6           // an entry
	cacheTextBlock           = cacheBlocks // a block
)

const (
	// feedBlock is how many entries must be at hand for a block that is not full.
	feedBlock = 64
	// feedQueue is how many arrived messages of a folder wait to be read; more are left for the next search.
	feedQueue = 5000
	// feedMerge is how often it is looked whether entries fill a block: when a UID that it divides has been read.
	feedMerge = 64
	// feedPause is how long the feeder waits before each message while commands run, feedRetry how long until more of its
	// values may be written.
	feedPause = 10 * time.Millisecond
	feedRetry = time.Second
	// feedRetries is how often it waits so for one value.
	feedRetries = 30
)

// textFeeder feeds the text index in the background, with one goroutine while there is something to read. All methods may
// be called at any time and on nil, which does nothing.
type textFeeder struct {
	ctx    context.Context
	cancel context.CancelFunc
	busy   atomic.Int32 // commands that run

	mu      sync.Mutex
	jobs    map[*Folder]*feedJob
	order   []*Folder
	running bool
	closed  bool
	ended   sync.WaitGroup
}

// feedJob is what is to be read of a folder.
type feedJob struct {
	uids []imap.UID // messages that arrived
	all  bool       // whatever the index lacks
}

func newTextFeeder() *textFeeder {
	t := &textFeeder{jobs: make(map[*Folder]*feedJob)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// close ends the goroutine and waits for it.
func (t *textFeeder) close() {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.ended.Wait()
}

// enter and leave stand around commands, for which the feeder makes room.
func (t *textFeeder) enter() {
	if t != nil {
		t.busy.Add(1)
	}
}

func (t *textFeeder) leave() {
	if t != nil {
		t.busy.Add(-1)
	}
}

// arrived takes messages that have come into a folder (see Store.OnArrival).
func (t *textFeeder) arrived(f *Folder, uids []imap.UID) {
	t.want(f, func(job *feedJob) {
		if len(job.uids)+len(uids) <= feedQueue {
			job.uids = append(job.uids, uids...)
		}
	})
}

// fill has all that the index lacks of a folder read.
func (t *textFeeder) fill(f *Folder) {
	t.want(f, func(job *feedJob) { job.all = true })
}

// want changes the job of a folder and sees to it that it is done.
func (t *textFeeder) want(f *Folder, change func(*feedJob)) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	job := t.jobs[f]
	if job == nil {
		job = new(feedJob)
		t.jobs[f] = job
		t.order = append(t.order, f)
	}
	change(job)
	if !t.running {
		t.running = true
		t.ended.Go(t.run)
	}
}

// run does jobs until there is none.
func (t *textFeeder) run() {
	var w feedWork
	w.feeder = t
	for {
		f, job := t.take()
		if f == nil {
			return
		}
		w.do(f, job)
	}
}

// take gives the next job, or says that the goroutine ends.
func (t *textFeeder) take() (*Folder, *feedJob) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.order) == 0 || t.closed {
		t.running = false
		return nil, nil
	}
	f := t.order[0]
	t.order = t.order[1:]
	job := t.jobs[f]
	delete(t.jobs, f)
	return f, job
}

// pause makes room for commands; false ends the work.
func (t *textFeeder) pause() bool {
	if t.busy.Load() > 0 {
		t.sleep(feedPause)
	}
	return t.ctx.Err() == nil
}

// sleep waits, or until the feeder is closed.
func (t *textFeeder) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.ctx.Done():
	}
}

// feedWork is what the goroutine has in hand.
type feedWork struct {
	feeder  *textFeeder
	reader  textReader
	summary textSummary
}

// do does a job.
func (w *feedWork) do(f *Folder, job *feedJob) {
	if !f.Retain() {
		return
	}
	defer f.Release()
	merge := job.all
	for _, uid := range job.uids {
		if !w.feeder.pause() {
			return
		}
		if entry, ok := w.read(f, uid); ok {
			f.PutCached(cacheText, uid, entry)
		}
		merge = merge || uid%feedMerge == 0
	}
	if job.all {
		w.fill(f)
	}
	for merge {
		merge = mergeEntries(f)
	}
}

// read makes the entry of a message. false means that it is gone or cannot be read.
func (w *feedWork) read(f *Folder, uid imap.UID) (entry []byte, ok bool) {
	file, err := f.OpenMessage(uid)
	if err != nil {
		return nil, false
	}
	defer file.Close()
	var known []byte
	f.Cached(cacheStructure, []imap.UID{uid}, func(_ imap.UID, value []byte) {
		if c, ok := parseStructure(value); ok {
			known = slices.Clone(c.tree)
		}
	})
	root, ok := knownTree(known, file)
	if !ok {
		value, err := readStructure(f, uid, file)
		if err != nil {
			return nil, false
		}
		c, _ := parseStructure(value)
		if root, ok = knownTree(c.tree, file); !ok {
			return nil, false
		}
	}
	w.reader.file = file
	if err := w.reader.read(&root, true, &w.summary); err != nil {
		w.summary.drop()
		return nil, false
	}
	return w.summary.entry(file.Size()), true
}

// knownTree gives the parts of an open message from what the cache has. ok is false where it has nothing, or another
// program has changed the file.
func knownTree(tree []byte, file *Message) (root treePart, ok bool) {
	if len(tree) == 0 {
		return root, false
	}
	root, ok = parseTree(tree)
	return root, ok && root.size() == file.Size()
}

// fill reads what the index lacks of a folder.
func (w *feedWork) fill(f *Folder) {
	uids := f.UIDs()
	sizes := indexedSizes(f, uids)
	feed := textFeed{folder: f, feeder: w.feeder}
	defer feed.flush()
	var msgs []Msg
	for start := 0; start < len(uids); start += fetchBatch {
		batch := uids[start:min(start+fetchBatch, len(uids))]
		var err error
		if msgs, err = f.Messages(msgs, batch, false); err != nil {
			return
		}
		at := start
		for i := range msgs {
			for uids[at] != msgs[i].UID {
				at++
			}
			if sizes.is(at, msgs[i].Size) {
				continue
			}
			if !w.feeder.pause() {
				return
			}
			if entry, ok := w.read(f, msgs[i].UID); ok && !feed.add(msgs[i].UID, entry) {
				return
			}
		}
	}
}

// textSizes has for each message of a list which size it had when it was indexed; 0: it is not.
type textSizes []uint32

// is says whether the message at a place was indexed with a size.
func (s textSizes) is(at int, size int64) bool { return s[at] != 0 && s[at] == uint32(size)+1 }

// note notes that the message at a place is indexed.
func (s textSizes) note(at int, size int64) { s[at] = uint32(size) + 1 }

// indexedSizes gives the sizes, and drops blocks most of whose messages are gone: what is left of them is read again.
func indexedSizes(f *Folder, uids []imap.UID) textSizes {
	sizes := make(textSizes, len(uids))
	places := uidPlaces{uids: uids}
	var old []imap.UID
	var block textBlockReader
	f.EachCached(cacheTextBlock, func(uid imap.UID, value []byte) {
		if !block.open(value) {
			old = append(old, uid)
			return
		}
		there := 0
		for _, uid := range block.uids {
			if places.of(uid) >= 0 {
				there++
			}
		}
		if 4*there < len(block.uids) {
			old = append(old, uid)
			return
		}
		for i, uid := range block.uids {
			if at := places.of(uid); at >= 0 {
				sizes.note(at, block.entries[i].size)
			}
		}
	})
	f.EachCached(cacheText, func(uid imap.UID, value []byte) {
		if e, ok := parseTextEntry(value); ok {
			if at := places.of(uid); at >= 0 {
				sizes.note(at, e.size)
			}
		}
	})
	f.DropCached(cacheTextBlock, old)
	return sizes
}

// uidPlaces finds UIDs in an ascending list, fast where they are asked for in order.
type uidPlaces struct {
	uids []imap.UID
	next int
}

// of gives the place of a UID, or -1.
func (p *uidPlaces) of(uid imap.UID) int {
	if p.next < len(p.uids) && p.uids[p.next] == uid {
		p.next++
		return p.next - 1
	}
	at, found := slices.BinarySearch(p.uids, uid)
	p.next = at
	if !found {
		return -1
	}
	p.next++
	return at
}

// textFeed puts entries into the index, ascending by UID: as a block each time that there are enough, the last few one by
// one.
type textFeed struct {
	folder  *Folder
	feeder  *textFeeder // waits for room; nil: what finds no room is forgotten
	summary textSummary // for those who need one
	block   textBlock
	entries [][]byte // the same, while they are few
}

// add adds an entry; false says that the work is to end.
func (t *textFeed) add(uid imap.UID, entry []byte) bool {
	if t.block.full() && !t.flush() {
		return false
	}
	if t.block.add(uid, entry) && len(t.block.uids) <= feedBlock {
		t.entries = append(t.entries, entry)
	}
	return true
}

// flush puts what is in hand into the index.
func (t *textFeed) flush() bool {
	uids, entries := t.block.uids, t.entries
	ok := true
	if len(uids) >= feedBlock {
		ok = t.put(cacheTextBlock, uids[0], t.block.value())
		if ok {
			t.folder.DropCached(cacheText, uids)
		}
	} else {
		for i, uid := range uids {
			ok = ok && t.put(cacheText, uid, entries[i])
		}
	}
	t.block, t.entries = textBlock{}, nil
	return ok
}

// put puts a value into the index, when there is room.
func (t *textFeed) put(kind CacheKind, uid imap.UID, value []byte) bool {
	for range feedRetries {
		if t.folder.PutCached(kind, uid, value) {
			return true
		}
		if t.feeder == nil || t.feeder.ctx.Err() != nil {
			return false
		}
		t.feeder.sleep(feedRetry)
	}
	return false
}

// mergeEntries makes a block of the entries of single messages when there are enough for a full one, and says whether there
// were.
func mergeEntries(f *Folder) bool {
	var block textBlock
	f.EachCached(cacheText, func(uid imap.UID, value []byte) { block.add(uid, value) })
	if !block.full() || !f.PutCached(cacheTextBlock, block.uids[0], block.value()) {
		return false
	}
	f.DropCached(cacheText, block.uids)
	return true
}
