package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"
)

// This file reads and writes dovecot-uidlist (version 3), the file beside the mail that says which message has which UID,
// in the form that Dovecot also reads and writes:
//
//	3 V<uidvalidity> N<next uid> G<guid> M<modseq>
//	<uid> [S<size>] [W<crlf size>] :<base>
//
// N and M are reservations: they stand higher than what was ever given out, are on disk before a number below them is
// shown to a client, and so make it impossible that a crash gives a number twice. M is ours (Dovecot keeps header
// extensions it does not know): the modseq below which everything may have been announced. Both are written with a fixed
// width, so that a reservation is one small write in place.

const (
	uidlistName     = "dovecot-uidlist"
	uidlistLockName = "dovecot-uidlist.lock"

	// uidReserve and modseqReserve are how far ahead a reservation goes.
	uidReserve    = 1000
	modseqReserve = 1 << 20

	// uidlistStaleLock is the age at which a lock was left by a crash (Dovecot's own number), uidlistLockWait how long
	// another program may hold it before we go on without.
	uidlistStaleLock = 2 * time.Minute
	uidlistEmptyLock = time.Second
	uidlistLockWait  = 10 * time.Second

	// uidlistBurst is how long the lock of an append is kept for those that follow at once. Making and removing a file for
	// each of many messages costs more than all else that is not waiting for the disk; other programs can wait as long.
	uidlistBurst = 100 * time.Millisecond
)

// maxUID leaves a number for UIDNEXT.
const maxUID = 1<<32 - 2

// reserveFrom is how far to reserve when next is the next UID.
func reserveFrom(next uint32) uint32 { return uint32(min(uint64(next)+uidReserve, maxUID+1)) }

// uidHeader is the first line.
type uidHeader struct {
	validity uint32
	next     uint32 // reserved: UIDs below it may have been given
	modseq   uint64 // reserved: modseqs up to it may have been announced
	guid     string
	other    string // extensions of others, kept: " X123"
}

// uidEntry is one line.
type uidEntry struct {
	uid          uint32
	stored, crlf int64 // -1: not said
	base         string
}

// uidlist is a folder's file and what was last known of it. Not safe for concurrent use: its folder's lock covers it.
type uidlist struct {
	path    string
	owner   string // "PID:HOST", written into the lock
	head    uidHeader
	known   bool // head is what the file says
	width   bool // the header has our fixed widths and can be changed in place
	stamp   fileStamp
	lines   int        // entries in the file, dead ones too
	unsaved bool       // lines were appended since the last fsync
	burst   *listBurst // while the lock is kept for more appends
}

// listBurst is what is kept open between appends: the locked list.
type listBurst struct {
	file   *os.File
	size   int64
	unlock func()
}

// fileStamp tells whether a file has changed since it was looked at.
type fileStamp struct {
	size, mtime int64
	id          uint64
}

func stampOf(st fs.FileInfo) fileStamp {
	return fileStamp{size: st.Size(), mtime: st.ModTime().UnixNano(), id: fileID(st)}
}

func statStamp(path string) fileStamp {
	st, err := os.Stat(path)
	if err != nil {
		return fileStamp{}
	}
	return stampOf(st)
}

// formatHeader writes the header line with fixed widths.
func (h uidHeader) format() []byte {
	return fmt.Appendf(nil, "3 V%d N%010d G%s M%019d%s\n", h.validity, h.next, h.guid, h.modseq, h.other)
}

// parseUIDHeader reads the first line, of version 3 or 1.
func parseUIDHeader(line string) (uidHeader, error) {
	fields := strings.Fields(line)
	if len(fields) < 2 || fields[0] != "3" && fields[0] != "1" {
		return uidHeader{}, errors.New("first line is not a uidlist header")
	}
	var h uidHeader
	if fields[0] == "1" {
		if len(fields) < 3 {
			return uidHeader{}, errors.New("first line is not a uidlist header")
		}
		fields = []string{"3", "V" + fields[1], "N" + fields[2]}
	}
	for _, f := range fields[1:] {
		n, err := strconv.ParseUint(f[1:], 10, 63)
		switch f[0] {
		case 'V', 'N':
			if err != nil || n > 1<<32-1 {
				return uidHeader{}, fmt.Errorf("field %q is no 32-bit number", f)
			}
			if f[0] == 'V' {
				h.validity = uint32(n)
			} else {
				h.next = uint32(n)
			}
		case 'G':
			h.guid = f[1:]
		case 'M':
			if err == nil {
				h.modseq = n
			}
		default:
			h.other += " " + f
		}
	}
	if h.validity == 0 {
		return uidHeader{}, errors.New("first line has no UIDVALIDITY")
	}
	return h, nil
}

// parseUIDLine reads one entry of version 3 ("UID [S…] [W…] :BASE") or 1 ("UID NAME").
func parseUIDLine(line string) (uidEntry, error) {
	e := uidEntry{stored: -1, crlf: -1}
	num, rest, ok := strings.Cut(line, " ")
	uid, err := strconv.ParseUint(num, 10, 32)
	if !ok || err != nil || uid == 0 || uid > maxUID {
		return e, errors.New("no UID at its start")
	}
	e.uid = uint32(uid)
	for !strings.HasPrefix(rest, ":") {
		var field string
		field, rest, ok = strings.Cut(rest, " ")
		if !ok { // version 1, or the end of the line
			rest = ":" + field
			break
		}
		if v, ok := sizeField(field, "S"); ok {
			e.stored = v
		} else if v, ok := sizeField(field, "W"); ok {
			e.crlf = v
		}
	}
	e.base, _ = splitName(rest[1:])
	if e.base == "" || e.base[0] == '.' || strings.ContainsAny(e.base, "/\x00\\") {
		return e, errors.New("no file name")
	}
	return e, nil
}

func appendUIDLine(buf []byte, e uidEntry) []byte {
	buf = strconv.AppendUint(buf, uint64(e.uid), 10)
	if e.stored >= 0 {
		buf = strconv.AppendInt(append(buf, " S"...), e.stored, 10)
	}
	if e.crlf >= 0 {
		buf = strconv.AppendInt(append(buf, " W"...), e.crlf, 10)
	}
	buf = append(append(buf, " :"...), e.base...)
	return append(buf, '\n')
}

// uidlistDamage is what read found wrong, for one line in the log.
type uidlistDamage struct {
	lines int
	first string
}

// parseUIDList reads a whole list. Lines that make no sense are left out and counted; entries come back in ascending
// order, each UID and each base once (the first wins). An error means that not even the header could be read; the
// entries are still given, for their UIDs are worth keeping.
func parseUIDList(r io.Reader) (h uidHeader, entries []uidEntry, damage uidlistDamage, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	line, rerr := readTextLine(in)
	h, err = parseUIDHeader(line)
	sorted := true
	for n := 2; rerr == nil; n++ {
		line, rerr = readTextLine(in)
		if line == "" {
			continue
		}
		e, perr := parseUIDLine(line)
		if perr != nil {
			if damage.lines++; damage.lines == 1 {
				damage.first = fmt.Sprintf("line %d: %v", n, perr)
			}
			continue
		}
		if k := len(entries); k > 0 && entries[k-1].uid >= e.uid {
			sorted = false
		}
		entries = append(entries, e)
	}
	if !sorted {
		sort.SliceStable(entries, func(i, j int) bool { return entries[i].uid < entries[j].uid })
		kept := entries[:0]
		for _, e := range entries {
			if k := len(kept); k > 0 && kept[k-1].uid == e.uid {
				if kept[k-1].base != e.base {
					if damage.lines++; damage.lines == 1 {
						damage.first = fmt.Sprintf("UID %d twice", e.uid)
					}
				}
				continue
			}
			kept = append(kept, e)
		}
		entries = kept
	}
	return h, entries, damage, err
}

// readTextLine reads a line of any length without its end; a line longer than 64 KiB comes back cut.
func readTextLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		kept := string(line)
		for err == bufio.ErrBufferFull {
			_, err = r.ReadSlice('\n')
		}
		return kept, err
	}
	return string(bytes.TrimRight(line, "\r\n")), err
}

// loadHeader reads the first line only: enough when the index knows the rest.
func (u *uidlist) loadHeader() bool {
	f, err := os.Open(u.path)
	if err != nil {
		return false
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return false
	}
	line, _ := readTextLine(bufio.NewReaderSize(f, 512))
	h, err := parseUIDHeader(line)
	if err != nil {
		return false
	}
	u.head, u.known, u.stamp = h, true, stampOf(st)
	u.width = startsWith(f, h.format())
	return true
}

// load reads the file. A missing file gives no entries and known stays false.
func (u *uidlist) load() ([]uidEntry, uidlistDamage, error) {
	u.endBurst() // another program may have put another file in the place of the one that is open
	f, err := os.Open(u.path)
	if errors.Is(err, fs.ErrNotExist) {
		u.known = false
		return nil, uidlistDamage{}, nil
	}
	if err != nil {
		return nil, uidlistDamage{}, fmt.Errorf("reading the UID list: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, uidlistDamage{}, fmt.Errorf("reading the UID list: %w", err)
	}
	h, entries, damage, herr := parseUIDList(f)
	u.stamp, u.lines = stampOf(st), len(entries)
	if herr != nil {
		damage.lines++
		damage.first = herr.Error()
		u.known = false
		return entries, damage, nil
	}
	u.head, u.known = h, true
	u.width = startsWith(f, h.format())
	return entries, damage, nil
}

// startsWith says whether a file begins with these bytes; one with other line ends does not.
func startsWith(f *os.File, first []byte) bool {
	buf := make([]byte, len(first))
	_, err := f.ReadAt(buf, 0)
	return err == nil && bytes.Equal(buf, first)
}

// changed says whether another program has written the file since.
func (u *uidlist) changed() bool { return statStamp(u.path) != u.stamp }

// create gives the header of a folder that has none.
func newUIDHeader(validity uint32) uidHeader {
	var id [16]byte
	rand.Read(id[:])
	return uidHeader{validity: validity, next: 1 + uidReserve, modseq: modseqReserve, guid: hex.EncodeToString(id[:])}
}

// lock takes dovecot-uidlist.lock, as Dovecot does, so that both can work on one Maildir.
func (u *uidlist) lock() (unlock func(), err error) {
	u.endBurst()
	return dotLock(filepath.Join(filepath.Dir(u.path), uidlistLockName), u.owner)
}

// dotLock makes a lock file and waits for that of another program. As Dovecot does, it writes "PID:HOST" (owner) into it,
// by which a lock that a crash has left on this host is known at once.
func dotLock(path, owner string) (unlock func(), err error) {
	for deadline := time.Now().Add(uidlistLockWait); ; time.Sleep(10 * time.Millisecond) {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			_, err = f.WriteString(owner)
			if cerr := f.Close(); err == nil {
				err = cerr
			}
			if err != nil && !isDiskFull(err) { // a full disk still has room for the name, which is the lock
				removeFile(path)
				return nil, err
			}
			return func() { removeFile(path) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if lockIsStale(path, owner) && removeFile(path) == nil {
			continue
		}
		if time.Now().After(deadline) {
			return nil, errors.New("another program holds " + filepath.Base(path))
		}
	}
}

// lockIsStale says that nobody can be holding the lock: its process is gone from this host, or was killed before it could
// write its number, or it is too old.
func lockIsStale(path, owner string) bool {
	st, err := os.Stat(path)
	if err != nil {
		return false
	}
	age := time.Since(st.ModTime())
	data, _ := os.ReadFile(path)
	if age > uidlistStaleLock || len(data) == 0 && age > uidlistEmptyLock {
		return true
	}
	pid, host, _ := strings.Cut(strings.TrimSpace(string(data)), ":")
	_, here, _ := strings.Cut(owner, ":")
	n, err := strconv.Atoi(pid)
	return err == nil && n > 0 && host == here && (n == os.Getpid() || !processAlive(n))
}

// reserve puts higher reservations on disk; nothing happens when they are high enough already.
func (u *uidlist) reserve(next uint32, modseq uint64) error {
	if next <= u.head.next && modseq <= u.head.modseq {
		return nil
	}
	h := u.head
	h.next, h.modseq = max(h.next, next), max(h.modseq, modseq)
	if !u.width {
		u.head = h
		return errNeedsRewrite
	}
	unlock, err := u.lock()
	if err != nil {
		return err
	}
	defer unlock()
	f, err := os.OpenFile(u.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(h.format(), 0)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		f.WriteAt(u.head.format(), 0) // what is not safe must not be read back as reserved
		return err
	}
	u.head = h
	return u.restamp(f)
}

// errNeedsRewrite says that the file was written by another program and must be written whole.
var errNeedsRewrite = errors.New("the UID list must be rewritten")

// append adds entries at the end, not yet synced: flush does that. It begins a burst, which its owner ends after
// uidlistBurst, if none is on.
func (u *uidlist) append(entries []uidEntry) (began bool, err error) {
	began = u.burst == nil
	if began {
		if err := u.beginBurst(); err != nil {
			return false, err
		}
	}
	buf := make([]byte, 0, 100*len(entries))
	for _, e := range entries {
		buf = appendUIDLine(buf, e)
	}
	n, err := u.burst.file.Write(buf)
	if err == nil {
		u.burst.size += int64(n)
		u.lines += len(entries)
		u.unsaved = true
		err = u.restamp(u.burst.file)
	} else if n > 0 { // half a line would damage the next one
		u.burst.file.Truncate(u.burst.size)
	}
	if err != nil {
		u.endBurst()
		return false, err
	}
	return began, nil
}

// beginBurst locks and opens the list.
func (u *uidlist) beginBurst() error {
	unlock, err := u.lock()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(u.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		unlock()
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		unlock()
		return err
	}
	u.burst = &listBurst{f, st.Size(), unlock}
	return nil
}

// endBurst lets other programs have the list; harmless when there is no burst.
func (u *uidlist) endBurst() {
	if u.burst != nil {
		u.burst.file.Close()
		u.burst.unlock()
		u.burst = nil
	}
}

// rewrite replaces the file.
func (u *uidlist) rewrite(h uidHeader, entries func(yield func(uidEntry) bool)) error {
	unlock, err := u.lock()
	if err != nil {
		return err
	}
	defer unlock()
	var buf bytes.Buffer
	buf.Write(h.format())
	lines := 0
	line := make([]byte, 0, 128)
	for e := range entries {
		line = appendUIDLine(line[:0], e)
		buf.Write(line)
		lines++
	}
	if err := writeFileAtomic(u.path, buf.Bytes()); err != nil {
		return err
	}
	u.head, u.known, u.width, u.lines, u.unsaved = h, true, true, lines, false
	u.stamp = statStamp(u.path)
	return nil
}

func (u *uidlist) restamp(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	u.stamp = stampOf(st)
	return nil
}
