package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// This file knows what a Maildir looks like on disk: its three directories, the names of its files, and how a name
// comes safely onto the disk. It knows nothing of UIDs.
//
// A file name is BASE or BASE:2,LETTERS. BASE is unique for ever and carries the sizes, ",S=" as stored and ",W=" with
// CRLF line ends, so that neither must be counted again. Where ':' cannot stand in a file name, ';' is written; both
// are read anywhere, so a data folder can be carried between systems.

// Letters of the system flags in a file name, in the order of the alphabet as the Maildir convention asks.
const (
	letterDraft    = 'D'
	letterFlagged  = 'F'
	letterAnswered = 'R'
	letterSeen     = 'S'
	letterDeleted  = 'T'
)

// maxFileKeywords is how many keywords fit a file name: the letters a to z.
const maxFileKeywords = 26

// infoSeparator stands between BASE and "2,".
func infoSeparator() byte {
	if runtime.GOOS == "windows" {
		return ';'
	}
	return ':'
}

// splitName cuts a file name into its unique base and the rest ("" or ":2,LETTERS").
func splitName(name string) (base, info string) {
	if i := strings.IndexByte(name, ':'); i >= 0 {
		return name[:i], name[i:]
	}
	if i := strings.LastIndex(name, ";2,"); i >= 0 {
		return name[:i], name[i:]
	}
	return name, ""
}

// baseSizes reads ",S=" and ",W=" of a base; -1 where one is missing or no number.
func baseSizes(base string) (stored, crlf int64) {
	stored, crlf = -1, -1
	for i := strings.IndexByte(base, ','); i >= 0; {
		field := base[i+1:]
		next := strings.IndexByte(field, ',')
		if next >= 0 {
			field = field[:next]
		}
		if v, ok := sizeField(field, "S="); ok {
			stored = v
		} else if v, ok := sizeField(field, "W="); ok {
			crlf = v
		}
		if next < 0 {
			break
		}
		i += 1 + next
	}
	return stored, crlf
}

func sizeField(field, key string) (int64, bool) {
	rest, ok := strings.CutPrefix(field, key)
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseInt(rest, 10, 64)
	return v, err == nil && v >= 0
}

// parseInfo reads the letters: system flags, keyword letters as bits, and the letters that we give no meaning and keep.
func parseInfo(info string) (flags Flags, letters uint32, other string) {
	if len(info) < 3 || info[1] != '2' || info[2] != ',' {
		return 0, 0, ""
	}
	for i := 3; i < len(info); i++ {
		switch c := info[i]; {
		case c == letterDraft:
			flags |= FlagDraft
		case c == letterFlagged:
			flags |= FlagFlagged
		case c == letterAnswered:
			flags |= FlagAnswered
		case c == letterSeen:
			flags |= FlagSeen
		case c == letterDeleted:
			flags |= FlagDeleted
		case c >= 'a' && c <= 'z':
			letters |= 1 << (c - 'a')
		case c > ' ' && c < 0x7f && c != '/' && strings.IndexByte(other, c) < 0:
			other += string(c)
		}
	}
	return flags, letters, other
}

// formatInfo writes ":2,LETTERS", sorted; other are letters kept from the name before.
func formatInfo(flags Flags, letters uint32, other string) string {
	buf := make([]byte, 0, 40)
	buf = append(buf, infoSeparator(), '2', ',')
	start := len(buf)
	for _, m := range [...]struct {
		flag   Flags
		letter byte
	}{{FlagDraft, letterDraft}, {FlagFlagged, letterFlagged}, {FlagAnswered, letterAnswered}, {FlagSeen, letterSeen}, {FlagDeleted, letterDeleted}} {
		if flags&m.flag != 0 {
			buf = append(buf, m.letter)
		}
	}
	for i := 0; i < len(other); i++ {
		buf = insertSorted(buf, start, other[i])
	}
	for i := byte(0); i < maxFileKeywords; i++ {
		if letters&(1<<i) != 0 {
			buf = append(buf, 'a'+i)
		}
	}
	return string(buf)
}

func insertSorted(buf []byte, start int, c byte) []byte {
	i := start
	for i < len(buf) && buf[i] < c {
		i++
	}
	if i < len(buf) && buf[i] == c {
		return buf
	}
	buf = append(buf, 0)
	copy(buf[i+1:], buf[i:])
	buf[i] = c
	return buf
}

// namer makes file names that are unique on every host and in every process (the Maildir convention: time, process,
// counter, host).
type namer struct {
	host string
	now  func() time.Time
	n    atomic.Uint64
}

// unique gives the start of a base, without sizes.
func (n *namer) unique() string {
	t := n.now()
	return fmt.Sprintf("%d.M%06dP%dQ%d.%s", t.Unix(), t.Nanosecond()/1000, os.Getpid(), n.n.Add(1), n.host)
}

// withSizes finishes a base.
func withSizes(unique string, stored, crlf int64) string {
	return unique + ",S=" + strconv.FormatInt(stored, 10) + ",W=" + strconv.FormatInt(crlf, 10)
}

// safeHost makes a host name fit for a file name, as the Maildir convention asks: '/' and ':' written as octal, and what
// else would be taken for a field or is refused by some file system left out.
func safeHost(host string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return -1
	}, host)
	if len(clean) > 64 {
		clean = clean[:64]
	}
	if clean = strings.Trim(clean, ".-"); clean == "" {
		return "localhost"
	}
	return clean
}

// makeMaildir makes cur, new and tmp and their parents (0700) and puts their entries on disk.
func makeMaildir(dir string) error {
	if err := makeDirs(dir); err != nil {
		return err
	}
	for _, sub := range [...]string{"cur", "new", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making a Maildir: %w", err)
		}
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("making a Maildir: %w", err)
	}
	return nil
}

// makeDirs is os.MkdirAll whose new entries are on disk when it returns.
func makeDirs(dir string) error {
	if st, err := os.Stat(dir); err == nil && st.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDirs(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making a folder: %w", err)
	}
	return syncDir(parent)
}

// listNames reads the names of the files in a directory, leaving out what starts with a dot.
func listNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	kept := names[:0]
	for _, n := range names {
		if n != "" && n[0] != '.' {
			kept = append(kept, n)
		}
	}
	return kept, nil
}

// writeJSON replaces a small file of ours by v in JSON, as writeFileAtomic does.
func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return writeFileAtomic(path, append(text, '\n'))
}

// readJSON reads such a file, of limit octets at most. fs.ErrNotExist where there is none.
func readJSON(path string, limit int64, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s is longer than %d octets", path, limit)
	}
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	return err
}

// writeFileAtomic replaces a small file so that a power cut leaves the old or the new one: temporary file, fsync,
// rename, fsync of the directory.
func writeFileAtomic(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*")
	if err != nil {
		return err
	}
	tmp := f.Name()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = renameFile(tmp, path)
	}
	if err != nil {
		removeFile(tmp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

// dirSyncer puts directory entries on disk and lets those who ask at once share one fsync: whoever comes while one is
// running waits for the next, which covers all that came.
type dirSyncer struct {
	mu   sync.Mutex
	dirs map[string]*dirSync
}

type dirSync struct {
	running, next *syncRound
}

type syncRound struct {
	done chan struct{}
	err  error
}

// Sync returns when every entry made in dir before the call is on disk.
func (s *dirSyncer) Sync(dir string) error {
	s.mu.Lock()
	if s.dirs == nil {
		s.dirs = make(map[string]*dirSync)
	}
	d := s.dirs[dir]
	if d == nil {
		d = &dirSync{running: &syncRound{done: make(chan struct{})}}
		s.dirs[dir] = d
		s.mu.Unlock()
		return s.lead(dir, d)
	}
	if d.next == nil {
		d.next = &syncRound{done: make(chan struct{})}
	}
	round := d.next
	s.mu.Unlock()
	<-round.done
	return round.err
}

// lead runs rounds until nobody waits; the first is the caller's own, later ones go on in the background so that the
// caller need not serve the others.
func (s *dirSyncer) lead(dir string, d *dirSync) error {
	first := d.running
	s.run(dir, d)
	return first.err
}

func (s *dirSyncer) run(dir string, d *dirSync) {
	round := d.running
	round.err = syncDir(dir)
	s.mu.Lock()
	d.running, d.next = d.next, nil
	if d.running == nil {
		delete(s.dirs, dir)
	} else {
		go s.run(dir, d)
	}
	s.mu.Unlock()
	close(round.done)
}

// linkOrCopy gives an existing, synced file a second name, by hard link or, where the file system has none, by a copy
// that is synced before it gets the name.
func linkOrCopy(from, to, tmp string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) || isDiskFull(err) {
		return err
	}
	return copyFile(from, to, tmp)
}

// copyFile copies by way of tmp, keeping the modification time, which is the message's INTERNALDATE.
func copyFile(from, to, tmp string) error {
	if err := copyText(from, tmp); err != nil {
		return err
	}
	err := renameFile(tmp, to)
	if err != nil {
		removeFile(tmp)
	}
	return err
}

// copyText makes a synced copy with the modification time of the file, or nothing.
func copyText(from, to string) error {
	src, err := openShared(from)
	if err != nil {
		return err
	}
	defer src.Close()
	return copyOpen(src, to)
}

// copyOpen is copyText of an open file.
func copyOpen(src *os.File, to string) error {
	st, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = dst.ReadFrom(src)
	if err == nil {
		err = dst.Sync()
	}
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chtimes(to, time.Time{}, st.ModTime())
	}
	if err != nil {
		removeFile(to)
	}
	return err
}

// moveFile moves a file, to another file system by way of a copy at tmp.
func moveFile(from, to, tmp string) error {
	err := renameFile(from, to)
	if err == nil || errors.Is(err, fs.ErrNotExist) || isDiskFull(err) {
		return err
	}
	if err := copyFile(from, to, tmp); err != nil {
		return err
	}
	return removeFile(from)
}
