package main

import "github.com/emersion/go-imap/v2"

// What those need that keep values of many messages in the index, besides Cached and PutCached.

// EachCached calls visit for every value of a kind, ascending by UID. It is to visit as Cached says.
func (f *Folder) EachCached(kind CacheKind, visit func(uid imap.UID, value []byte)) {
	f.index.eachCached(f.directory(), kind, visit)
}

// DropCached forgets the values of a kind that are kept under the UIDs.
func (f *Folder) DropCached(kind CacheKind, uids []imap.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.gone && len(uids) > 0 {
		f.index.dropCached(f.dir, kind, uids)
	}
}

// UIDs gives the UIDs of all messages, ascending; read only.
func (f *Folder) UIDs() []imap.UID { return f.allUIDs() }

// Retain takes the folder once more, for somebody who was not given it by Open. false says that it has left memory.
func (f *Folder) Retain() bool {
	d := f.drop
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.folders[f.dir] != f {
		return false
	}
	d.hold(f)
	return true
}

// OnArrival has news called with the messages that come into folders of the store while it is open, by whatever way, but
// not for very many at a time. It is called with the folder's lock held and must neither block nor use the folder.
func (s *Store) OnArrival(news func(f *Folder, uids []imap.UID)) { s.arrival.Store(&news) }

// arrivalLimit is how many messages may come at a time that OnArrival tells of: more are a mailbox brought from elsewhere.
const arrivalLimit = 500

// tellArrival tells of new messages. The folder's lock is held.
func (f *Folder) tellArrival(msgs []Msg) {
	news := f.store.arrival.Load()
	if news == nil || len(msgs) > arrivalLimit {
		return
	}
	uids := make([]imap.UID, len(msgs))
	for i := range msgs {
		uids[i] = msgs[i].UID
	}
	(*news)(f, uids)
}
