package main

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
	"go.etcd.io/bbolt"
)

// Derived values by their kinds, besides what index.go has for those of single messages.

// indexReadBytes is how much is read in one transaction, roughly. A long one keeps the file from shrinking and, when it must
// grow, all others from reading.
const indexReadBytes = 1 << 20

// indexMapped is how much of a file of more than twice that stays mapped into memory after it was read, in bytes. The
// system takes back what lies in its cache when it must; but what is mapped counts as ours, and a small machine should not
// look full for a search in a large mailbox.
const indexMapped = 16 << 20

// indexSeekBytes is what a look at one place of a file maps: as much as Linux maps around a page.
const indexSeekBytes = 64 << 10

// sortedKeys gives the keys of values in the order in which they lie in the file.
func sortedKeys(values map[cacheKey][]byte) []cacheKey {
	return slices.SortedFunc(maps.Keys(values), func(a, b cacheKey) int {
		return cmp.Or(strings.Compare(a.dir, b.dir), cmp.Compare(a.kind, b.kind), cmp.Compare(a.uid, b.uid))
	})
}

// removeCached removes values.
func removeCached(tx *bbolt.Tx, keys map[cacheKey]struct{}) error {
	for k := range keys {
		b, err := folderBucket(tx, k.dir, false)
		if err != nil {
			return err
		}
		if b == nil || b.Bucket(bucketCache) == nil {
			continue
		}
		if err := b.Bucket(bucketCache).Delete(cacheDBKey(k.kind, k.uid)); err != nil {
			return err
		}
	}
	return nil
}

// dropCached forgets values with the next transaction.
func (ix *index) dropCached(dir string, kind CacheKind, uids []imap.UID) {
	ix.mu.Lock()
	for _, uid := range uids {
		key := cacheKey{dir, kind, uid}
		if v, waits := ix.pending[key]; waits {
			ix.pendingBytes -= len(v)
			delete(ix.pending, key)
		}
		ix.drops[key] = struct{}{}
	}
	ix.mu.Unlock()
	ix.wake()
}

// eachCached calls visit for every value of a kind, ascending by UID, in transactions of bounded length. visit must be
// quick: it runs inside them.
func (ix *index) eachCached(dir string, kind CacheKind, visit func(uid imap.UID, value []byte)) {
	waiting, dropped := ix.pendingKind(dir, kind)
	for from, more := imap.UID(0), true; more; {
		more = false
		err := ix.view(func(tx *bbolt.Tx) error {
			b, err := folderBucket(tx, dir, false)
			if b == nil || err != nil || b.Bucket(bucketCache) == nil {
				return err
			}
			c := b.Bucket(bucketCache).Cursor()
			read := 0
			for k, v := c.Seek(cacheDBKey(kind, from)); len(k) == 5 && k[0] == byte(kind); k, v = c.Next() {
				uid := imap.UID(binary.BigEndian.Uint32(k[1:]))
				ix.noteRead(tx, len(v))
				if read += len(v); read > indexReadBytes && read > len(v) {
					from, more = uid, true
					return nil
				}
				waiting = visitUpTo(waiting, uid, visit)
				if _, gone := dropped[uid]; gone || len(waiting) > 0 && waiting[0].uid == uid { // one that waits replaces it
					continue
				}
				if value, ok := checked(v); ok {
					visit(uid, value)
				}
			}
			return nil
		})
		if err != nil {
			ix.log.Warn("index not read", "error", err)
			return
		}
	}
	visitUpTo(waiting, 1<<32-1, visit)
}

// noteRead counts what is read of the file, for releaseRead.
func (ix *index) noteRead(tx *bbolt.Tx, n int) {
	if tx.Size() <= 2*indexMapped {
		return
	}
	if ix.read.Add(int64(n)) > indexMapped {
		ix.read.Store(0)
		releaseMapped(tx)
	}
}

// pendingValue is a value that waits to be written.
type pendingValue struct {
	uid   imap.UID
	value []byte
}

// pendingKind gives the values of a kind that wait, ascending by UID, and those that are to be removed.
func (ix *index) pendingKind(dir string, kind CacheKind) (waiting []pendingValue, dropped map[imap.UID]struct{}) {
	ix.mu.Lock()
	dropped = make(map[imap.UID]struct{})
	for k := range ix.drops {
		if k.kind == kind && k.dir == dir {
			dropped[k.uid] = struct{}{}
		}
	}
	for k, v := range ix.pending {
		if k.kind == kind && k.dir == dir {
			waiting = append(waiting, pendingValue{k.uid, v[sealBytes:]})
		}
	}
	ix.mu.Unlock()
	sortFunc(waiting, func(a, b pendingValue) int { return cmp.Compare(a.uid, b.uid) })
	return waiting, dropped
}

// visitUpTo visits the values below a UID and gives the others.
func visitUpTo(waiting []pendingValue, uid imap.UID, visit func(uid imap.UID, value []byte)) []pendingValue {
	for len(waiting) > 0 && waiting[0].uid < uid {
		visit(waiting[0].uid, waiting[0].value)
		waiting = waiting[1:]
	}
	return waiting
}
