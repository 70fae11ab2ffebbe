package main

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/emersion/go-imap/v2"
	"go.etcd.io/bbolt"
)

// Derived values by their kinds, besides what index.go has for those of single messages.

// indexReadBytes is how much is read in one transaction, roughly. A long one keeps the file from shrinking and, when it must
// grow, all others from reading.
const indexReadBytes = 1 << 20

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
			waiting = append(waiting, pendingValue{k.uid, v})
		}
	}
	ix.mu.Unlock()
	slices.SortFunc(waiting, func(a, b pendingValue) int { return cmp.Compare(a.uid, b.uid) })
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
