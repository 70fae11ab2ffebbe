package main

import (
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Sessions that want to hear of mailboxes they have not opened watch the maildrop: what sessions and deliveries do is noted
// where it is done, whether the mailbox is in memory or not, and what other programs do is noticed by file notices, or by
// a look every pollEvery where there are none. A mailbox that is followed is not kept in memory for it.

const (
	// watchDelay collects notices. It is longer than eventDelay, so that a folder in memory has looked for itself by then.
	watchDelay = 50 * time.Millisecond
	// watchEvents is how many events are kept for a session that does not take them; what comes after is lost.
	watchEvents = 256
)

// MailboxChange is a set of what may have happened to a mailbox's messages.
type MailboxChange uint8

// The changes.
const (
	MessagesNew MailboxChange = 1 << iota
	MessagesGone
	FlagsChanged
	viewsChanged // something that only concerns who has it open

	anyChange = MessagesNew | MessagesGone | FlagsChanged
)

// MailboxEventKind is what has happened to a mailbox as a whole.
type MailboxEventKind uint8

// The events.
const (
	MailboxCreated MailboxEventKind = iota
	MailboxDeleted
	MailboxRenamed
	SubscriptionChanged // the mailbox need not exist
	MetadataChanged
)

// MailboxEvent is an event with the names it is about. Children that were renamed with their parent have none.
type MailboxEvent struct {
	Kind    MailboxEventKind
	Name    string // after the event; "" of MetadataChanged: the server
	OldName string // of MailboxRenamed
	Entries string // of MetadataChanged: the names of the annotations, all private or all shared, a newline between them
	Owner   string // of MetadataChanged: the account whose mailbox it is, where that is not the maildrop's
}

// MailboxNews is what a watch has collected.
type MailboxNews struct {
	Changed map[string]MailboxChange // by name
	Events  []MailboxEvent           // in order
	Lost    bool                     // there were too many events
	Closed  bool                     // the maildrop was put aside
}

// MailboxWatch collects for one session what happens in a maildrop. Close it before the maildrop is released.
type MailboxWatch struct {
	drop     *Maildrop
	onChange func()

	// Covered by the maildrop's watches.mu.
	followed map[string]string // names by directory
	changed  map[string]MailboxChange
	events   []MailboxEvent
	lost     bool
	closed   bool
}

// mailboxWatches is a maildrop's side of its watches. Without any it does nothing.
type mailboxWatches struct {
	mu    sync.Mutex
	list  []*MailboxWatch
	dirs  map[string]*dirWatch // followed by some watch; "" is the maildrop itself
	poll  *time.Timer          // nil: all directories have notices
	names map[string]bool      // the mailboxes that are known to exist
	subs  map[string]bool      // the subscriptions that are known
}

// Watch begins to collect: first the events; changes of messages when Follow says of which mailboxes. onChange is called
// without locks held when there may be something to Take; it must not block. ErrClosed.
func (d *Maildrop) Watch(onChange func()) (*MailboxWatch, error) {
	if err := d.lockList(); err != nil {
		return nil, err
	}
	defer d.listMu.Unlock()
	names, subs, err := d.listed()
	if err != nil {
		return nil, err
	}
	w := &MailboxWatch{drop: d, onChange: onChange, followed: map[string]string{}, changed: map[string]MailboxChange{}}
	ws := &d.watches
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if len(ws.list) == 0 {
		ws.names, ws.subs, ws.dirs = names, subs, map[string]*dirWatch{}
		ws.follow(d, "")
	}
	ws.list = append(ws.list, w)
	return w, nil
}

// listed gives the mailboxes that exist and the subscriptions; listMu is held.
func (d *Maildrop) listed() (names, subs map[string]bool, err error) {
	list, err := d.list()
	if err != nil {
		return nil, nil, err
	}
	subscribed, err := loadSubscriptions(d.dir)
	if err != nil {
		return nil, nil, err
	}
	names, subs = make(map[string]bool, len(list)), make(map[string]bool, len(subscribed))
	for _, f := range list {
		names[f.Name] = true
	}
	for _, name := range subscribed {
		subs[name] = true
	}
	return names, subs, nil
}

// Close ends the watch.
func (w *MailboxWatch) Close() {
	w.Follow(nil)
	ws := &w.drop.watches
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.list = slices.DeleteFunc(slices.Clone(ws.list), func(other *MailboxWatch) bool { return other == w })
	if len(ws.list) == 0 {
		ws.end()
	}
}

// Follow says of which mailboxes, as Maildrop.Folders gave them, changes of messages are collected from now on. What is
// collected of others is forgotten.
func (w *MailboxWatch) Follow(boxes []FolderInfo) {
	ws := &w.drop.watches
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w.closed {
		return
	}
	before := w.followed
	w.followed = make(map[string]string, len(boxes))
	for _, box := range boxes {
		if _, twice := w.followed[box.dir]; twice {
			continue
		}
		w.followed[box.dir] = box.Name
		ws.follow(w.drop, box.dir) // also one that is followed already: it may have been made anew
	}
	for dir := range before {
		ws.unfollow(dir)
		if _, still := w.followed[dir]; !still {
			delete(w.changed, dir)
		}
	}
}

// Take gives what has been collected. What has happened to the messages of the folder except (nil: none), which the
// session has open, stays until Seen.
func (w *MailboxWatch) Take(except *Folder) MailboxNews {
	own := "-" // no directory
	if except != nil {
		own = except.directory()
	}
	ws := &w.drop.watches
	ws.mu.Lock()
	defer ws.mu.Unlock()
	news := MailboxNews{Events: w.events, Lost: w.lost, Closed: w.closed}
	w.events, w.lost = nil, false
	for dir, change := range w.changed {
		if dir == own {
			continue
		}
		if news.Changed == nil {
			news.Changed = make(map[string]MailboxChange)
		}
		news.Changed[w.followed[dir]] = change
		delete(w.changed, dir)
	}
	return news
}

// Seen forgets what has happened to the messages of a folder up to now.
func (w *MailboxWatch) Seen(f *Folder) {
	dir := f.directory()
	ws := &w.drop.watches
	ws.mu.Lock()
	delete(w.changed, dir)
	ws.mu.Unlock()
}

// TakeBack forgets an event that the session has caused itself.
func (w *MailboxWatch) TakeBack(e MailboxEvent) {
	if e.Name != "" {
		e.Name = canonicalName(e.Name)
	}
	if e.OldName != "" {
		e.OldName = canonicalName(e.OldName)
	}
	ws := &w.drop.watches
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if i := slices.Index(w.events, e); i >= 0 {
		w.events = slices.Delete(w.events, i, i+1)
	}
}

// note notes a change of messages for those who follow the directory.
func (ws *mailboxWatches) note(dir string, change MailboxChange) {
	if change &= anyChange; change == 0 {
		return
	}
	var calls []func()
	ws.mu.Lock()
	for _, w := range ws.list {
		if _, ok := w.followed[dir]; ok {
			w.changed[dir] |= change
			calls = append(calls, w.onChange)
		}
	}
	ws.mu.Unlock()
	for _, call := range calls {
		call()
	}
}

// created, deleted, renamed and subscribed note what is done through this store, under listMu.
func (ws *mailboxWatches) created(name string) {
	ws.event(MailboxEvent{Kind: MailboxCreated, Name: name}, func() { ws.names[name] = true })
}

func (ws *mailboxWatches) deleted(name string) {
	ws.event(MailboxEvent{Kind: MailboxDeleted, Name: name}, func() { delete(ws.names, name) })
}

func (ws *mailboxWatches) renamed(from, to string) {
	ws.event(MailboxEvent{Kind: MailboxRenamed, Name: to, OldName: from}, func() {
		for name := range ws.names {
			if rest, ok := strings.CutPrefix(name, from); ok && (rest == "" || rest[0] == '/') {
				delete(ws.names, name)
				ws.names[to+rest] = true
			}
		}
	})
}

func (ws *mailboxWatches) subscribed(name string, on bool) {
	ws.event(MailboxEvent{Kind: SubscriptionChanged, Name: name}, func() {
		if delete(ws.subs, name); on {
			ws.subs[name] = true
		}
	})
}

// event gives the watches an event; update brings what is known in step with it.
func (ws *mailboxWatches) event(e MailboxEvent, update func()) {
	ws.mu.Lock()
	if len(ws.list) > 0 {
		update()
	}
	calls := ws.tell(e)
	ws.mu.Unlock()
	for _, call := range calls {
		call()
	}
}

// tell gives the watches events, and the functions to call when the lock is given back.
func (ws *mailboxWatches) tell(events ...MailboxEvent) (calls []func()) {
	if len(events) == 0 {
		return nil
	}
	for _, w := range ws.list {
		room := min(watchEvents-len(w.events), len(events))
		w.events = append(w.events, events[:room]...)
		w.lost = w.lost || room < len(events)
		calls = append(calls, w.onChange)
	}
	return calls
}

// compare finds what other programs have done to the list of mailboxes and the subscriptions. What one of them has renamed
// is one mailbox less and another more.
func (ws *mailboxWatches) compare(d *Maildrop) {
	if d.lockList() != nil {
		return
	}
	defer d.listMu.Unlock()
	names, subs, err := d.listed()
	if err != nil {
		d.log.Warn("mailboxes not listed", "error", err)
		return
	}
	ws.mu.Lock()
	if len(ws.list) == 0 {
		ws.mu.Unlock()
		return
	}
	events := missingFrom(names, ws.names, MailboxDeleted)
	events = append(events, missingFrom(ws.names, names, MailboxCreated)...)
	events = append(events, missingFrom(subs, ws.subs, SubscriptionChanged)...)
	events = append(events, missingFrom(ws.subs, subs, SubscriptionChanged)...)
	ws.names, ws.subs = names, subs
	calls := ws.tell(events...)
	ws.mu.Unlock()
	for _, call := range calls {
		call()
	}
}

// missingFrom makes events of the names that have lacks, in order.
func missingFrom(have, names map[string]bool, kind MailboxEventKind) (events []MailboxEvent) {
	for name := range names {
		if !have[name] {
			events = append(events, MailboxEvent{Kind: kind, Name: name})
		}
	}
	sortFunc(events, func(a, b MailboxEvent) int { return strings.Compare(a.Name, b.Name) })
	return events
}

// close ends all watches when the maildrop is put aside.
func (ws *mailboxWatches) close() {
	ws.mu.Lock()
	var calls []func()
	for _, w := range ws.list {
		w.closed, w.followed, w.changed = true, nil, nil
		calls = append(calls, w.onChange)
	}
	ws.list = nil
	ws.end()
	ws.mu.Unlock()
	for _, call := range calls {
		call()
	}
}

// end lets go of everything; the lock is held.
func (ws *mailboxWatches) end() {
	for _, dw := range ws.dirs {
		dw.let()
	}
	ws.dirs, ws.names, ws.subs = nil, nil, nil
	if ws.poll != nil {
		ws.poll.Stop()
		ws.poll = nil
	}
}

// follow adds one who follows a directory; the lock is held.
func (ws *mailboxWatches) follow(d *Maildrop, dir string) {
	dw := ws.dirs[dir]
	if dw == nil {
		dw = &dirWatch{drop: d, dir: dir}
		ws.dirs[dir] = dw
	}
	dw.refs++
	ws.take(dw)
}

// unfollow is the opposite.
func (ws *mailboxWatches) unfollow(dir string) {
	dw := ws.dirs[dir]
	if dw.refs--; dw.refs == 0 {
		dw.let()
		delete(ws.dirs, dir)
	}
}

// take begins to notice what happens in a directory, unless that is so already.
func (ws *mailboxWatches) take(dw *dirWatch) {
	if dw.taken {
		return
	}
	dw.take()
	if !dw.noticed && ws.poll == nil {
		ws.poll = time.AfterFunc(pollEvery, func() { ws.look(dw.drop) })
	}
}

// let ends it before the directory is moved, which some systems do not allow while it is watched.
func (ws *mailboxWatches) let(dir string) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if dw := ws.dirs[dir]; dw != nil {
		dw.let()
	}
}

// retake takes the directory again when it was not moved. After a move those who follow it do that.
func (ws *mailboxWatches) retake(dir string) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if dw := ws.dirs[dir]; dw != nil {
		ws.take(dw)
	}
}

// look is the slow look at directories without notices.
func (ws *mailboxWatches) look(d *Maildrop) {
	var dirs []*dirWatch
	ws.mu.Lock()
	for _, dw := range ws.dirs {
		if dw.taken && !dw.noticed {
			dirs = append(dirs, dw)
		}
	}
	if ws.poll = nil; len(dirs) > 0 {
		ws.poll = time.AfterFunc(pollEvery, func() { ws.look(d) })
	}
	ws.mu.Unlock()
	for _, dw := range dirs {
		times := dw.times()
		ws.mu.Lock()
		changed := !slices.Equal(times, dw.seen)
		dw.seen = times
		ws.mu.Unlock()
		if changed {
			dw.settle()
		}
	}
}

// dirWatch notices what other programs do in a directory of a maildrop: that of a mailbox, or ("") the maildrop itself,
// which has the list of them and the subscriptions.
type dirWatch struct {
	drop *Maildrop
	dir  string

	// Covered by watches.mu.
	refs    int
	taken   bool
	noticed bool    // by file notices
	seen    []int64 // else: the directories' times

	mu    sync.Mutex
	timer *time.Timer
}

// paths are the directories on disk.
func (dw *dirWatch) paths() []string {
	if dw.dir == "" {
		return []string{dw.drop.dir}
	}
	return []string{filepath.Join(dw.drop.dir, dw.dir, "cur"), filepath.Join(dw.drop.dir, dw.dir, "new")}
}

// times are their modification times.
func (dw *dirWatch) times() []int64 {
	var times []int64
	for _, path := range dw.paths() {
		times = append(times, statStamp(path).mtime)
	}
	return times
}

// take asks for notices. Where a notice costs an open file for each message, as on BSD and macOS, the slow look must do.
func (dw *dirWatch) take() {
	dw.taken = true
	dw.noticed = runtime.GOOS == "linux" || runtime.GOOS == "windows"
	for _, path := range dw.paths() {
		dw.noticed = dw.noticed && dw.drop.store.watch.add(path, dw)
	}
	if !dw.noticed {
		dw.unlisten()
		dw.seen = dw.times()
	}
}

// let ends it.
func (dw *dirWatch) let() {
	dw.taken, dw.noticed = false, false
	dw.unlisten()
}

func (dw *dirWatch) unlisten() {
	for _, path := range dw.paths() {
		dw.drop.store.watch.remove(path, dw)
	}
}

// noteEvent is called by the watcher.
func (dw *dirWatch) noteEvent(path string, _ bool) {
	if name := filepath.Base(path); dw.dir == "" && name[0] != '.' && name != subscriptionsName {
		return
	}
	dw.noteLostEvents(watchDelay)
}

// noteLostEvents is called by the watcher, too.
func (dw *dirWatch) noteLostEvents(after time.Duration) {
	dw.mu.Lock()
	defer dw.mu.Unlock()
	if dw.timer == nil {
		dw.timer = time.AfterFunc(max(after, watchDelay), dw.settle)
	}
}

// settle tells what was noticed. A folder in memory tells of itself, more precisely.
func (dw *dirWatch) settle() {
	dw.mu.Lock()
	dw.timer = nil
	dw.mu.Unlock()
	ws := &dw.drop.watches
	if dw.dir == "" {
		ws.compare(dw.drop)
		return
	}
	dw.drop.mu.Lock()
	loaded := dw.drop.folders[dw.dir] != nil
	dw.drop.mu.Unlock()
	if !loaded {
		ws.note(dw.dir, anyChange)
	}
}
