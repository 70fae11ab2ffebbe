package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// The index of a maildrop: one bbolt file that remembers what reading the Maildir again would tell, so that folders open
// at once and lists need no parsing. It is a cache. Every record carries a checksum; one that does not fit is as good as
// missing, and a file that cannot be read is set aside and made anew.
//
// names:  directory -> id
// f<id>:  "meta" -> folderMeta, and the buckets
//
//	m: uid -> message record       x: modseq uid -> expunged       c: kind uid -> derived value

const (
	// indexOpenWait is how long another process may hold the file.
	indexOpenWait = time.Second
	// indexTxMessages bounds the records of one transaction, and so its memory.
	indexTxMessages = 5000
	// indexTxBytes bounds the derived values of one transaction, in bytes.
	indexTxBytes = 4 << 20
	// indexPendingLimit bounds derived values that wait for the next transaction, in bytes; more are forgotten.
	indexPendingLimit = 16 << 20
	// indexLogLimit is how many expunged UIDs a folder remembers; then the older half is dropped.
	indexLogLimit = 50000
)

// folderMeta is what the index says of a folder as a whole.
type folderMeta struct {
	Validity  uint32   `json:"validity"`
	Next      uint32   `json:"next"`
	ModSeq    uint64   `json:"modseq"`
	LogFloor  uint64   `json:"logFloor"` // the expunge log is complete for what came after it
	LogCount  int      `json:"logCount"`
	Recent    uint32   `json:"recent"` // UIDs up to it have been \Recent to somebody
	Count     int      `json:"count"`
	Clean     bool     `json:"clean"` // written when the folder was put away
	Cur       int64    `json:"cur"`   // directory times, ns
	New       int64    `json:"new"`
	Saved     int64    `json:"saved"` // when, ns
	ListSize  int64    `json:"listSize"`
	ListMtime int64    `json:"listMtime"`
	ListID    uint64   `json:"listID"`
	Keywords  []string `json:"keywords,omitempty"`

	Crashed  uint64 `json:"crashed,omitempty"` // where ModSeq went on after the last crash
	Reserved uint64 `json:"reserved"`          // the modseqs that the UID list had reserved
}

// folderBatch is what changed in a folder since the last transaction.
type folderBatch struct {
	dir      string
	reset    bool // forget all that was known
	meta     folderMeta
	puts     []Msg
	expunged []expungeRecord
	before   folderMeta // what the index said of the folder until now
}

type expungeRecord struct {
	uid    imap.UID
	modseq uint64
}

type cacheKey struct {
	dir  string
	kind CacheKind
	uid  imap.UID
}

// index is safe for concurrent use. With db nil (the file cannot be had) it remembers nothing and everything still works.
type index struct {
	path string
	log  *slog.Logger
	wake func() // asks for a flush soon

	mu           sync.Mutex
	db           *bbolt.DB
	pending      map[cacheKey][]byte // sealed
	pendingBytes int
	drops        map[cacheKey]struct{} // values that the next transaction removes
	read         atomic.Int64          // bytes read since the last releaseMapped
	resets       int                   // how often all was lost; folders then write everything anew
}

var (
	bucketNames = []byte("names")
	bucketMsgs  = []byte("m")
	bucketLog   = []byte("x")
	bucketCache = []byte("c")
	keyMeta     = []byte("meta")
	crcTable    = crc32.MakeTable(crc32.Castagnoli)
)

// openIndex opens or makes the file; what stands in the way is logged, not returned.
func openIndex(path string, log *slog.Logger, wake func()) *index {
	ix := &index{path: path, log: log, wake: wake, pending: make(map[cacheKey][]byte), drops: make(map[cacheKey]struct{})}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		log.Error("index unavailable, working without", "error", err)
		return ix
	}
	ix.db = ix.open()
	return ix
}

// open tries twice: a damaged file is set aside after the first try.
func (ix *index) open() *bbolt.DB {
	for try := 0; ; try++ {
		var db *bbolt.DB
		err := guardFault(func() (err error) {
			// The free list is kept in the file: without it the library reads all of the file to open it, which for a
			// large mailbox takes seconds from an SD card.
			// A file over which the library panics stays open, and must be set aside all the same.
			db, err = bbolt.Open(ix.path, 0o600, &bbolt.Options{Timeout: indexOpenWait, FreelistType: bbolt.FreelistMapType, PageSize: 4096,
				OpenFile: openSharedFile})
			if err != nil {
				return err
			}
			return makeNames(db)
		})
		if err == nil {
			return db
		}
		if try > 0 || errors.Is(err, bolterrors.ErrTimeout) || isDiskFull(err) || errors.Is(err, fs.ErrPermission) {
			ix.log.Error("index unavailable, working without", "path", ix.path, "error", err)
			return nil
		}
		ix.setAside(err)
	}
}

// makeNames makes the bucket that all else needs; an index that has it is opened without a write.
func makeNames(db *bbolt.DB) error {
	there := false
	err := db.View(func(tx *bbolt.Tx) error {
		there = tx.Bucket(bucketNames) != nil
		return nil
	})
	if err != nil || there {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketNames)
		return err
	})
}

func (ix *index) setAside(why error) {
	ix.log.Warn("index is damaged, set aside and rebuilt", "path", ix.path, "error", why)
	renameFile(ix.path, ix.path+".damaged")
}

// guardFault turns a panic of the library, or a fault on a file cut short beneath its memory map, into an error.
func guardFault(f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errIndexDamaged, r)
		}
	}()
	return f()
}

var errIndexDamaged = errors.New("the index file is damaged")

// view and update run a transaction; damage ends this file's use and starts a new one.
func (ix *index) view(f func(tx *bbolt.Tx) error) error {
	return ix.run(func(db *bbolt.DB) error { return db.View(f) })
}

func (ix *index) update(f func(tx *bbolt.Tx) error) error {
	return ix.run(func(db *bbolt.DB) error { return db.Update(f) })
}

func (ix *index) run(f func(db *bbolt.DB) error) error {
	ix.mu.Lock()
	db := ix.db
	ix.mu.Unlock()
	if db == nil {
		return nil
	}
	err := guardFault(func() error { return f(db) })
	if errors.Is(err, errIndexDamaged) {
		ix.mu.Lock()
		if ix.db == db {
			ix.setAside(err)
			ix.db = ix.open()
			ix.resets++
			go guardFault(db.Close) // waits for those who still read
		}
		ix.mu.Unlock()
	}
	return err
}

// generation grows when everything was lost.
func (ix *index) generation() int {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return ix.resets
}

// remembers says whether all that was written since a generation is there.
func (ix *index) remembers(generation int) bool {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return ix.db != nil && ix.resets == generation
}

func (ix *index) close() error {
	ix.mu.Lock()
	db := ix.db
	ix.db = nil
	ix.mu.Unlock()
	if db == nil {
		return nil
	}
	return guardFault(db.Close)
}

// folderBucket finds the bucket of a directory, or makes it.
func folderBucket(tx *bbolt.Tx, dir string, create bool) (*bbolt.Bucket, error) {
	names := tx.Bucket(bucketNames)
	if names == nil {
		return nil, nil
	}
	id := names.Get([]byte(dir))
	if id == nil {
		if !create {
			return nil, nil
		}
		n, err := names.NextSequence()
		if err != nil {
			return nil, err
		}
		id = binary.BigEndian.AppendUint32([]byte{'f'}, uint32(n))
		if err := names.Put([]byte(dir), id); err != nil {
			return nil, err
		}
	}
	if !create {
		return tx.Bucket(id), nil
	}
	b, err := tx.CreateBucketIfNotExists(id)
	if err != nil {
		return nil, err
	}
	for _, sub := range [][]byte{bucketMsgs, bucketLog, bucketCache} {
		if _, err := b.CreateBucketIfNotExists(sub); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// loadFolder reads a folder's meta and messages, ascending by UID. ok is false when nothing usable is there; records that
// are damaged are left out, and meta.Clean is then false.
func (ix *index) loadFolder(dir string) (meta folderMeta, msgs []Msg, ok bool) {
	err := ix.view(func(tx *bbolt.Tx) error {
		b, err := folderBucket(tx, dir, false)
		if b == nil || err != nil {
			return err
		}
		var good bool
		if meta, good = loadMeta(b); !good || b.Bucket(bucketMsgs) == nil {
			return nil
		}
		msgs = make([]Msg, 0, meta.Count+16)
		intern := make(map[string]string)
		c := b.Bucket(bucketMsgs).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			m, good := decodeRecord(k, v, intern)
			if !good {
				meta.Clean = false
				continue
			}
			msgs = append(msgs, m)
		}
		if len(msgs) != meta.Count {
			meta.Clean = false
		}
		ok = true
		return nil
	})
	if err != nil {
		return folderMeta{}, nil, false
	}
	return meta, msgs, ok
}

// sealBytes is the length of the checksum before a value.
const sealBytes = 4

func sealed(data []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(make([]byte, 0, len(data)+sealBytes), crc32.Checksum(data, crcTable)), data...)
}

func checked(v []byte) ([]byte, bool) {
	if len(v) < 4 || crc32.Checksum(v[4:], crcTable) != binary.LittleEndian.Uint32(v) {
		return nil, false
	}
	return v[4:], true
}

func uidKey(uid imap.UID) []byte { return binary.BigEndian.AppendUint32(nil, uint32(uid)) }

// encodeRecord writes a message's state behind its checksum.
func encodeRecord(m *Msg) []byte {
	b := make([]byte, 4, 64+len(m.base)+len(m.info))
	b = append(b, byte(m.Flags), m.place)
	b = binary.AppendUvarint(b, m.ModSeq)
	b = binary.AppendUvarint(b, m.Keywords)
	b = binary.AppendVarint(b, m.Size)
	b = binary.AppendVarint(b, m.stored)
	b = binary.AppendVarint(b, m.Date)
	b = binary.AppendVarint(b, m.Saved)
	b = binary.AppendUvarint(b, uint64(len(m.info)))
	b = append(append(b, m.info...), m.base...)
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], crcTable))
	return b
}

func decodeRecord(k, v []byte, intern map[string]string) (m Msg, ok bool) {
	v, ok = checked(v)
	if !ok || len(k) != 4 || len(v) < 2 || v[1] > placeNew {
		return m, false
	}
	m.UID = imap.UID(binary.BigEndian.Uint32(k))
	m.Flags, m.place = Flags(v[0]), v[1]
	d := recordDecoder{v[2:], true}
	m.ModSeq, m.Keywords = d.uvarint(), d.uvarint()
	m.Size, m.stored, m.Date, m.Saved = d.varint(), d.varint(), d.varint(), d.varint()
	n := d.uvarint()
	if !d.ok || n > uint64(len(d.b)) {
		return m, false
	}
	info := d.b[:n]
	s, known := intern[string(info)]
	if !known {
		s = string(info)
		intern[s] = s
	}
	m.info, m.base = s, string(d.b[n:])
	return m, m.base != "" && m.UID != 0
}

type recordDecoder struct {
	b  []byte
	ok bool
}

func (d *recordDecoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	d.take(n)
	return v
}

func (d *recordDecoder) varint() int64 {
	v, n := binary.Varint(d.b)
	d.take(n)
	return v
}

func (d *recordDecoder) take(n int) {
	if n <= 0 {
		d.ok, n = false, 0
	}
	d.b = d.b[n:]
}

// save writes what changed, in transactions of bounded size, and the derived values that wait.
func (ix *index) save(batches []folderBatch) error {
	for i := range batches {
		if err := ix.saveFolder(&batches[i]); err != nil {
			return fmt.Errorf("writing the index: %w", err)
		}
	}
	if err := ix.savePending(); err != nil {
		return fmt.Errorf("writing the index: %w", err)
	}
	return nil
}

func (ix *index) saveFolder(batch *folderBatch) error {
	for first := true; first || len(batch.puts) > 0; first = false {
		part := batch.puts[:min(len(batch.puts), indexTxMessages)]
		batch.puts = batch.puts[len(part):]
		last := len(batch.puts) == 0
		err := ix.update(func(tx *bbolt.Tx) error {
			if batch.reset && first {
				if err := dropFolder(tx, batch.dir); err != nil {
					return err
				}
			}
			b, err := folderBucket(tx, batch.dir, true)
			if b == nil || err != nil {
				return err
			}
			if first {
				batch.before, _ = loadMeta(b)
			}
			if err := putMessages(b.Bucket(bucketMsgs), part); err != nil {
				return err
			}
			if !last {
				return b.Delete(keyMeta) // half a folder must not be taken for a whole one
			}
			return finishFolder(b, batch)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func putMessages(b *bbolt.Bucket, msgs []Msg) error {
	b.FillPercent = 0.9
	for i := range msgs {
		if err := b.Put(uidKey(msgs[i].UID), encodeRecord(&msgs[i])); err != nil {
			return err
		}
	}
	return nil
}

// finishFolder writes the removals, the log and the meta.
func finishFolder(b *bbolt.Bucket, batch *folderBatch) error {
	msgs, cache, log := b.Bucket(bucketMsgs), b.Bucket(bucketCache), b.Bucket(bucketLog)
	meta := &batch.meta
	meta.LogCount = batch.before.LogCount + len(batch.expunged)
	meta.LogFloor = max(meta.LogFloor, batch.before.LogFloor) // what trimLog has dropped stays dropped
	for _, e := range batch.expunged {
		if err := msgs.Delete(uidKey(e.uid)); err != nil {
			return err
		}
		for kind := CacheKind(0); kind < cacheKinds; kind++ {
			if err := cache.Delete(cacheDBKey(kind, e.uid)); err != nil {
				return err
			}
		}
		key := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, e.modseq), uint32(e.uid))
		if err := log.Put(key, nil); err != nil {
			return err
		}
	}
	if meta.LogCount > indexLogLimit {
		if err := trimLog(log, meta); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	return b.Put(keyMeta, sealed(raw))
}

// trimLog drops the older half; the floor says from where on the log is complete.
func trimLog(log *bbolt.Bucket, meta *folderMeta) error {
	c := log.Cursor()
	for k, _ := c.First(); k != nil && meta.LogCount > indexLogLimit/2; k, _ = c.First() {
		meta.LogFloor = max(meta.LogFloor, binary.BigEndian.Uint64(k))
		if err := c.Delete(); err != nil {
			return err
		}
		meta.LogCount--
	}
	return nil
}

func dropFolder(tx *bbolt.Tx, dir string) error {
	names := tx.Bucket(bucketNames)
	id := names.Get([]byte(dir))
	if id == nil {
		return nil
	}
	if err := tx.DeleteBucket(id); err != nil && !errors.Is(err, bolterrors.ErrBucketNotFound) {
		return err
	}
	return names.Delete([]byte(dir))
}

// removeFolder forgets a directory.
func (ix *index) removeFolder(dir string) {
	ix.dropPending(dir)
	if err := ix.update(func(tx *bbolt.Tx) error { return dropFolder(tx, dir) }); err != nil {
		ix.log.Warn("index not updated", "error", err)
	}
}

// forget drops what may be left of a directory whose UIDs have begun anew: a value must not be taken for that of another
// message.
func (ix *index) forget(dir string) {
	there := false
	ix.view(func(tx *bbolt.Tx) error {
		names := tx.Bucket(bucketNames)
		there = names != nil && names.Get([]byte(dir)) != nil
		return nil
	})
	if there {
		ix.removeFolder(dir)
	}
}

// renameFolder keeps what is known under the new name.
func (ix *index) renameFolder(from, to string) {
	ix.dropPending(from)
	err := ix.update(func(tx *bbolt.Tx) error {
		names := tx.Bucket(bucketNames)
		id := append([]byte(nil), names.Get([]byte(from))...)
		if err := dropFolder(tx, to); err != nil || len(id) == 0 {
			return err
		}
		if err := names.Delete([]byte(from)); err != nil {
			return err
		}
		return names.Put([]byte(to), id)
	})
	if err != nil {
		ix.log.Warn("index not updated", "error", err)
	}
}

// loadMeta reads what a folder's bucket says of the folder as a whole.
func loadMeta(b *bbolt.Bucket) (meta folderMeta, ok bool) {
	raw, ok := checked(b.Get(keyMeta))
	if !ok || json.Unmarshal(raw, &meta) != nil {
		return folderMeta{}, false
	}
	return meta, true
}

// expungedSince calls f for each remembered removal after modseq. complete says that none of them, as of the last
// transaction, has been forgotten.
func (ix *index) expungedSince(dir string, modseq uint64, f func(uid imap.UID)) (complete bool) {
	err := ix.view(func(tx *bbolt.Tx) error {
		b, err := folderBucket(tx, dir, false)
		if b == nil || err != nil || b.Bucket(bucketLog) == nil {
			return err
		}
		meta, ok := loadMeta(b)
		if !ok || modseq < meta.LogFloor {
			return nil
		}
		complete = true
		c := b.Bucket(bucketLog).Cursor()
		for k, _ := c.Seek(binary.BigEndian.AppendUint64(nil, modseq+1)); len(k) == 12; k, _ = c.Next() {
			f(imap.UID(binary.BigEndian.Uint32(k[8:])))
		}
		return nil
	})
	return complete && err == nil
}

func cacheDBKey(kind CacheKind, uid imap.UID) []byte { return appendCacheKey(nil, kind, uid) }

func appendCacheKey(dst []byte, kind CacheKind, uid imap.UID) []byte {
	return binary.BigEndian.AppendUint32(append(dst, byte(kind)), uint32(uid))
}

// putCached keeps a value for the next transaction; past the limit it is forgotten, and room is false.
func (ix *index) putCached(dir string, kind CacheKind, uid imap.UID, value []byte) (room bool) {
	ix.mu.Lock()
	key := cacheKey{dir, kind, uid}
	room = ix.db != nil && ix.pendingBytes+len(value) <= indexPendingLimit
	if _, there := ix.pending[key]; room && !there {
		v := sealed(value)
		ix.pending[key] = v
		ix.pendingBytes += len(v)
		delete(ix.drops, key)
	}
	ix.mu.Unlock()
	if room {
		ix.wake()
	}
	return room
}

func (ix *index) dropPending(dir string) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	for k, v := range ix.pending {
		if k.dir == dir {
			ix.pendingBytes -= len(v)
			delete(ix.pending, k)
		}
	}
	for k := range ix.drops {
		if k.dir == dir {
			delete(ix.drops, k)
		}
	}
}

// savePending writes the derived values, in transactions of bounded size, and removes those to be dropped. They stay readable
// until their transaction is through. What fails is forgotten.
func (ix *index) savePending() (err error) {
	ix.mu.Lock()
	keys := sortedKeys(ix.pending)
	drops := ix.drops
	ix.drops = make(map[cacheKey]struct{})
	ix.mu.Unlock()
	for err == nil && len(keys)+len(drops) > 0 {
		done := len(keys)
		err = ix.update(func(tx *bbolt.Tx) (err error) {
			if done, err = ix.putPending(tx, keys); err != nil || done < len(keys) {
				return err
			}
			return removeCached(tx, drops)
		})
		if err != nil || done == len(keys) {
			done, drops = len(keys), nil
		}
		ix.forgetPending(keys[:done])
		keys = keys[done:]
	}
	return err
}

// putPending writes values up to the size of a transaction and tells how many.
func (ix *index) putPending(tx *bbolt.Tx, keys []cacheKey) (done int, err error) {
	size := 0
	var cache *bbolt.Bucket // of dir
	dir := ""
	for i, k := range keys {
		v := ix.waiting(k)
		if v == nil { // its folder was deleted or renamed meanwhile
			continue
		}
		if size += len(v); size > indexTxBytes && size > len(v) {
			return i, nil
		}
		ix.noteRead(tx, len(v)) // or nearly so: the pages that change are read
		if cache == nil || k.dir != dir {
			b, err := folderBucket(tx, k.dir, true)
			if b == nil || err != nil {
				return len(keys), err
			}
			dir, cache = k.dir, b.Bucket(bucketCache)
			cache.FillPercent = 0.9 // values come in the order of UIDs, mostly
		}
		if err := cache.Put(cacheDBKey(k.kind, k.uid), v); err != nil {
			return 0, err
		}
	}
	return len(keys), nil
}

// waiting gives a value that waits as it is to be written, nil where it no longer does.
func (ix *index) waiting(k cacheKey) []byte {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return ix.pending[k]
}

// forgetPending takes values out of those that wait.
func (ix *index) forgetPending(keys []cacheKey) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	for _, k := range keys {
		ix.pendingBytes -= len(ix.pending[k])
		delete(ix.pending, k)
	}
}

// cached calls visit for each UID (ascending) with a value, in order. visit must be quick: it runs inside a transaction.
func (ix *index) cached(dir string, kind CacheKind, uids []imap.UID, visit func(uid imap.UID, value []byte)) {
	waiting := ix.pendingOf(dir, kind, uids)
	err := ix.view(func(tx *bbolt.Tx) error {
		b, err := folderBucket(tx, dir, false)
		if err != nil {
			return err
		}
		var c *bbolt.Cursor
		if b != nil && b.Bucket(bucketCache) != nil {
			c = b.Bucket(bucketCache).Cursor()
		}
		var k, v, key []byte
		for _, uid := range uids {
			if value := waiting[uid]; value != nil {
				visit(uid, value)
				continue
			}
			if c == nil {
				continue
			}
			key = appendCacheKey(key[:0], kind, uid)
			if k != nil && string(k) < string(key) {
				k, v = c.Next()
			}
			if k == nil || string(k) != string(key) {
				ix.noteRead(tx, indexSeekBytes)
				if k, v = c.Seek(key); string(k) != string(key) {
					continue
				}
			}
			ix.noteRead(tx, len(v))
			if value, ok := checked(v); ok {
				visit(uid, value)
			}
		}
		return nil
	})
	if err != nil {
		ix.log.Warn("index not read", "error", err)
	}
}

func (ix *index) pendingOf(dir string, kind CacheKind, uids []imap.UID) map[imap.UID][]byte {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if len(ix.pending) == 0 {
		return nil
	}
	found := make(map[imap.UID][]byte)
	for _, uid := range uids {
		if v := ix.pending[cacheKey{dir, kind, uid}]; v != nil {
			found[uid] = v[sealBytes:]
		}
	}
	return found
}
