package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// What the filter has learned lies in DATA/spam: "learned" is all of it at some time, "learned.log" what has changed since.
// The log is one append for each change, so that an SD card has little to write; when it is long it is made part of the
// other. A power cut loses what is not whole at its end. Words cannot be read from either: tokens, people and addresses are
// hashes with a secret of the appliance.

const (
	learnedName, learnedLogName = "learned", "learned.log"

	learnedMagic    = "appliance spam 1\n"
	learnedLogLimit = 1 << 20 // octets at which the log is made part of the file
	learnedLimit    = 8 << 20 // octets of a file that could be ours
	logHeader       = 4 + 4   // length and checksum in front of each change
	maxTrained      = 20_000  // messages of which it is known how they were learned
	maxKnown        = 50_000  // addresses of which it is known what people think of them
	maxPeople       = 5_000   // people whose corrections are counted
)

// The kinds of changes in the log.
const (
	changeLearn  = 'l' // class, message, person, tokens
	changeForget = 'u' // the same, taken back
	changeKnown  = 'k' // a memo of an address
)

// spamLearned is what the filter has learned. Safe for concurrent use.
type spamLearned struct {
	dir string
	log *slog.Logger
	now func() time.Time

	mu         sync.RWMutex
	seed       uint64
	generation uint64 // of the file; the log has that of the file it belongs to
	words      wordTable
	totals     map[uint64]classCount // by person; 0 is the appliance
	trained    *memory               // messages by person: what is a spamClass, with byNobody
	known      *memory               // addresses by person: what is a set of knownAs

	journal *os.File // nil: nothing can be kept, which has been logged
	length  int64    // of the journal
}

// openLearned reads what has been learned. Files that are damaged are set aside, and learning begins anew: mail is judged
// all the same.
func openLearned(dir string, log *slog.Logger, now func() time.Time) (*spamLearned, error) {
	if err := makeDirs(dir); err != nil {
		return nil, fmt.Errorf("opening what the spam filter has learned: %w", err)
	}
	l := &spamLearned{dir: dir, log: log, now: now}
	l.reset()
	text, err := readBounded(filepath.Join(dir, learnedName), learnedLimit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil && !errors.Is(err, errLearnedDamaged):
		return nil, fmt.Errorf("opening what the spam filter has learned: %w", err)
	case err != nil || !l.parse(text):
		l.setAside(learnedName)
		l.reset()
	}
	if l.replay() {
		return l, l.compact()
	}
	return l, l.openJournal()
}

var errLearnedDamaged = errors.New("the file is damaged")

// readBounded reads a file that is not longer than limit octets.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = errLearnedDamaged
	}
	return text, err
}

// reset forgets everything in memory.
func (l *spamLearned) reset() {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // it never fails
	l.seed = binary.LittleEndian.Uint64(seed[:])
	l.words = wordTable{}
	l.totals = map[uint64]classCount{}
	l.trained, l.known = newMemory(maxTrained), newMemory(maxKnown)
}

func (l *spamLearned) setAside(name string) {
	path := filepath.Join(l.dir, name)
	l.log.Warn("what the spam filter has learned is damaged; it is set aside, and learning begins anew", "path", path+".damaged")
	if err := renameFile(path, path+".damaged"); err != nil {
		l.log.Error("a damaged file cannot be set aside", "path", path, "error", err)
	}
}

// format gives the file.
func (l *spamLearned) format() []byte {
	b := append(make([]byte, 0, 1<<16), learnedMagic...)
	b = binary.LittleEndian.AppendUint64(b, l.seed)
	b = binary.LittleEndian.AppendUint64(b, l.generation)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(l.totals)))
	for person, n := range l.totals {
		b = binary.LittleEndian.AppendUint64(b, person)
		b = binary.LittleEndian.AppendUint32(b, uint32(n.spam))
		b = binary.LittleEndian.AppendUint32(b, uint32(n.ham))
	}
	b = l.known.append(l.trained.append(b))
	for _, s := range l.words.slots {
		if s.key != 0 {
			b = binary.LittleEndian.AppendUint32(b, s.key)
			b = binary.LittleEndian.AppendUint16(b, s.spam)
			b = binary.LittleEndian.AppendUint16(b, s.ham)
		}
	}
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// parse reads it.
func (l *spamLearned) parse(text []byte) bool {
	const head = len(learnedMagic) + 8 + 8 + 4
	if len(text) < head+4 || !bytes.HasPrefix(text, []byte(learnedMagic)) {
		return false
	}
	text, sum := text[:len(text)-4], binary.LittleEndian.Uint32(text[len(text)-4:])
	if crc32.ChecksumIEEE(text) != sum {
		return false
	}
	text = text[len(learnedMagic):]
	l.seed, l.generation = binary.LittleEndian.Uint64(text), binary.LittleEndian.Uint64(text[8:])
	people := int64(binary.LittleEndian.Uint32(text[16:]))
	if text = text[20:]; people*16 > int64(len(text)) {
		return false
	}
	for range people {
		l.totals[binary.LittleEndian.Uint64(text)] = classCount{int(binary.LittleEndian.Uint32(text[8:])), int(binary.LittleEndian.Uint32(text[12:]))}
		text = text[16:]
	}
	text, ok := l.trained.parse(text)
	if ok {
		text, ok = l.known.parse(text)
	}
	if !ok || len(text)%8 != 0 || len(text)/8 > maxWordSlots {
		return false
	}
	for ; len(text) > 0; text = text[8:] {
		s := wordSlot{binary.LittleEndian.Uint32(text), binary.LittleEndian.Uint16(text[4:]), binary.LittleEndian.Uint16(text[6:])}
		l.words.add(max(s.key, 1), classSpam, int(s.spam))
		l.words.add(max(s.key, 1), classHam, int(s.ham))
	}
	return true
}

// replay reads the changes that came after the file, as far as they are whole. worthwhile says that the log is so long, or
// so broken, that all is best written anew.
func (l *spamLearned) replay() (worthwhile bool) {
	text, err := readBounded(filepath.Join(l.dir, learnedLogName), 2*learnedLogLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil && !errors.Is(err, errLearnedDamaged) {
		l.log.Warn("what the spam filter has learned last cannot be read", "error", err)
		return true
	}
	if len(text) < 8 || binary.LittleEndian.Uint64(text) != l.generation {
		return true // of a file before
	}
	for text = text[8:]; len(text) >= logHeader; {
		n := int64(binary.LittleEndian.Uint32(text))
		if n > int64(len(text)-logHeader) {
			break
		}
		change := text[logHeader : logHeader+n]
		if crc32.ChecksumIEEE(change) != binary.LittleEndian.Uint32(text[4:]) || !l.apply(change) {
			break
		}
		text = text[logHeader+n:]
	}
	return len(text) > 0
}

// openJournal begins or goes on with the log.
func (l *spamLearned) openJournal() error {
	path := filepath.Join(l.dir, learnedLogName)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err == nil {
		var st os.FileInfo
		if st, err = f.Stat(); err == nil {
			l.journal, l.length = f, st.Size()
			return nil
		}
		_ = f.Close()
	}
	return fmt.Errorf("opening what the spam filter has learned: %w", err)
}

// compact writes everything into a new file, and begins a new log. A crash between the two leaves a log of a generation that
// is not the file's, and is not read.
func (l *spamLearned) compact() error {
	l.generation++
	err := writeFileAtomic(filepath.Join(l.dir, learnedName), l.format())
	if err == nil {
		if l.journal != nil {
			_ = l.journal.Close() // all of it is in the file
			l.journal = nil
		}
		err = writeFileAtomic(filepath.Join(l.dir, learnedLogName), binary.LittleEndian.AppendUint64(nil, l.generation))
	}
	if err != nil {
		return fmt.Errorf("writing what the spam filter has learned: %w", err)
	}
	return l.openJournal()
}

// Close ends the writing.
func (l *spamLearned) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.journal == nil {
		return nil
	}
	err := errors.Join(l.journal.Sync(), l.journal.Close())
	l.journal = nil
	return err
}

// forgetAll forgets everything that was learned.
func (l *spamLearned) forgetAll() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	seed := l.seed // others have hashes with it, too
	l.reset()
	l.seed = seed
	return l.compact()
}

// change makes a change and keeps it; the lock is held.
func (l *spamLearned) change(change []byte) {
	if !l.apply(change) || l.journal == nil {
		return
	}
	record := binary.LittleEndian.AppendUint32(make([]byte, 0, logHeader+len(change)), uint32(len(change)))
	record = binary.LittleEndian.AppendUint32(record, crc32.ChecksumIEEE(change))
	n, err := l.journal.Write(append(record, change...))
	if l.length += int64(n); err == nil && l.length > learnedLogLimit {
		err = l.compact()
	}
	if err != nil {
		// What follows half a record would not be read. All of it is written anew at the next start, if it can be.
		l.log.Error("what the spam filter learns cannot be kept", "error", err)
		if l.journal != nil {
			_ = l.journal.Close()
			l.journal = nil
		}
	}
}

// sync puts on disk what has been learned.
func (l *spamLearned) sync() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.journal == nil {
		return
	}
	if err := l.journal.Sync(); err != nil {
		l.log.Warn("what the spam filter has learned is not safe on disk", "error", err)
	}
}

// byNobody marks a message that was learned by nobody's word: it counts for the appliance, and not as a correction of the person
// who has it.
const byNobody = 1 << 4

// classOf gives as what a message was learned, and whether by somebody's word.
func (m memo) classOf() (class spamClass, bySomebody bool) {
	class = spamClass(m.what &^ byNobody)
	return class, class != classNone && m.what&byNobody == 0
}

// learnHead is the length of a change before its tokens.
const learnHead = 1 + 1 + 8 + 8 + 4

// apply makes a change; false means that it is none.
func (l *spamLearned) apply(change []byte) bool {
	if len(change) == 1+memoSize && change[0] == changeKnown {
		key, one := parseMemo(change[1:])
		l.known.set(key, one)
		return true
	}
	if len(change) < learnHead || (len(change)-learnHead)%4 != 0 || change[0] != changeLearn && change[0] != changeForget {
		return false
	}
	class := spamClass(change[1])
	if class != classHam && class != classSpam {
		return false
	}
	message, person, when := binary.LittleEndian.Uint64(change[2:]), binary.LittleEndian.Uint64(change[10:]), binary.LittleEndian.Uint32(change[18:])
	n, what := 1, uint8(class)
	if person == 0 {
		what |= byNobody
	}
	if change[0] == changeForget {
		n = -1
		delete(l.trained.memos, message)
	} else {
		l.trained.set(message, memo{when, what})
	}
	l.addTotal(0, class, n)
	if person != 0 && !l.addTotal(person, class, n) {
		person = 0 // what is not counted has no words either
	}
	for tokens := change[learnHead:]; len(tokens) > 0; tokens = tokens[4:] {
		token := binary.LittleEndian.Uint32(tokens)
		l.words.add(wordKey(token, 0), class, n)
		if person != 0 {
			l.words.add(wordKey(token, person), class, n)
		}
	}
	return true
}

// addTotal counts a message more or less, and says whether it does: one less of nothing is nothing, and people beyond maxPeople
// are not counted.
func (l *spamLearned) addTotal(person uint64, class spamClass, n int) bool {
	total, there := l.totals[person]
	if !there && (n < 0 || len(l.totals) > maxPeople) {
		return false
	}
	if class == classSpam {
		total.spam = max(0, total.spam+n)
	} else {
		total.ham = max(0, total.ham+n)
	}
	l.totals[person] = total
	return true
}

// learn takes a message for one of a class by the word of the person who has it, or (0) nobody's, which never stands against
// theirs. One that was learned as the other, or by nobody's word, is taken back first, from the counts it was added to; one that
// was learned as this is not learned again. It says whether something has changed.
func (l *spamLearned) learn(message, person uint64, class spamClass, tokens []uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, bySomebody := l.trained.memos[message].classOf()
	if bySomebody && (before == class || person == 0) || before == class && person == 0 {
		return false
	}
	switch {
	case bySomebody:
		l.change(l.learning(changeForget, before, message, person, tokens))
	case before != classNone:
		l.change(l.learning(changeForget, before, message, 0, tokens))
	}
	l.change(l.learning(changeLearn, class, message, person, tokens))
	return true
}

func (l *spamLearned) learning(kind byte, class spamClass, message, person uint64, tokens []uint32) []byte {
	b := append(make([]byte, 0, learnHead+4*len(tokens)), kind, byte(class))
	b = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, message), person)
	b = binary.LittleEndian.AppendUint32(b, minutes(l.now()))
	for _, token := range tokens {
		b = binary.LittleEndian.AppendUint32(b, token)
	}
	return b
}

// learnedAs says as what a message was learned.
func (l *spamLearned) learnedAs(message uint64) spamClass {
	l.mu.RLock()
	defer l.mu.RUnlock()
	class, _ := l.trained.memos[message].classOf()
	return class
}

// total gives how many messages were learned in all.
func (l *spamLearned) total() classCount {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.totals[0]
}

// hash gives the hash of some texts, which nobody else can make.
func (l *spamLearned) hash(texts ...string) uint64 {
	sum := sha256.New()
	_ = binary.Write(sum, binary.LittleEndian, l.seedOf())
	for _, text := range texts {
		_, _ = io.WriteString(sum, text)
		_, _ = sum.Write([]byte{0}) // a hash never fails
	}
	return binary.LittleEndian.Uint64(sum.Sum(nil))
}

func (l *spamLearned) seedOf() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.seed
}

// knownAs is a set of what a person thinks of an address.
type knownAs uint8

const (
	knownWritten  knownAs = 1 << iota // has written to it
	knownWanted                       // has moved its mail out of Junk
	knownUnwanted                     // has moved its mail into Junk

	// knownRefresh is after how many minutes it is noted again, so that it is not forgotten.
	knownRefresh = 30 * 24 * 60
)

// addressKey gives the hash of an address for a person.
func (l *spamLearned) addressKey(account string, a Address) uint64 {
	return l.hash("address", account, keyOf(normalAddress(a)))
}

// knows gives what a person thinks of an address.
func (l *spamLearned) knows(account string, a Address) knownAs {
	key := l.addressKey(account, a)
	l.mu.RLock()
	defer l.mu.RUnlock()
	return knownAs(l.known.memos[key].what)
}

// note notes what a person thinks of an address now.
func (l *spamLearned) note(account string, a Address, add, remove knownAs) {
	key := l.addressKey(account, a)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := minutes(l.now())
	old, there := l.known.memos[key]
	is := knownAs(old.what)&^remove | add
	if is == knownAs(old.what) && (!there || now-old.when < knownRefresh) {
		return
	}
	l.change(appendMemo([]byte{changeKnown}, key, memo{now, uint8(is)}))
}
