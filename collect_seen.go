package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// What has been fetched from one account elsewhere, so that nothing is fetched twice and nothing is deleted there that is
// not here. The file DATA/collect/ID.seen is a journal of lines, each written before the step that relies on it:
//
//	validity N                        the UIDVALIDITY that the keys are of (IMAP)
//	last N                            all UIDs up to N are dealt with (IMAP)
//	pending KEY SIZE SUM STORED SUM   the message is whole in tmp/ and is now delivered
//	dropped                           it was not
//	done KEY SIZE SUM                 it is on disk in the maildrop
//	again KEY SIZE SUM                it was deleted over there twice and is there still
//	large KEY SIZE                    it is larger than what is taken
//	failed KEY SIZE TRIES             it could not be had
//	gone KEY                          it is not over there any more
//	former SUM                        a message of another UIDVALIDITY that is here
//
// A last line without its end was being written when the power went, and counts for nothing. A pending line without what
// became of it is a delivery that a crash may have cut off on either side: then the maildrop is searched for exactly that
// file. So a message can come twice only if it was in the maildrop, the crash fell between those two lines, and its owner
// has deleted it before the next look.

const (
	seenSuffix    = ".seen"
	maxSeen       = 50_000 // messages of one account elsewhere that are remembered
	maxSeenFile   = 64 << 20
	maxSeenTries  = 5    // a message that cannot be had is left there after so many looks
	seenSlack     = 1000 // lines that are written before the journal is made anew
	seenSumLength = 16   // bytes
)

// seenSum is the start of a message's SHA-256.
type seenSum [seenSumLength]byte

// The states of a message.
const (
	seenDone   = "done"
	seenAgain  = "again"
	seenLarge  = "large"
	seenFailed = "failed"
)

// seenMessage is one message over there.
type seenMessage struct {
	state string
	size  int64 // as the other server tells it
	sum   seenSum
	tries int
}

// pendingDelivery is what is delivered at the moment.
type pendingDelivery struct {
	key    string
	size   int64
	sum    seenSum
	stored int64    // bytes of the file
	hash   [32]byte // SHA-256 of the file
}

// seenList is the journal of one account elsewhere. It is used by one look at a time. Close it.
type seenList struct {
	path     string
	file     *os.File
	validity uint32
	last     uint32
	messages map[string]seenMessage
	former   map[seenSum]int
	pending  *pendingDelivery
	lines    int
	dirty    bool  // something is not on disk yet
	broken   error // a line may be torn: nothing may follow it
}

// openSeen reads a journal, or begins one.
func openSeen(path string) (*seenList, error) {
	l := &seenList{path: path, messages: map[string]seenMessage{}, former: map[seenSum]int{}}
	text, err := readJournal(path)
	if err != nil {
		return nil, fmt.Errorf("reading what was collected: %w", err)
	}
	whole := bytes.LastIndexByte(text, '\n') + 1
	for line := range bytes.Lines(text[:whole]) {
		if !l.apply(strings.Fields(string(line))) {
			return nil, fmt.Errorf("%s is damaged in line %d: put it back from a backup; deleting it makes all that is still over there come again",
				filepath.Base(path), l.lines+1)
		}
		l.lines++
	}
	if whole < len(text) || l.worthAnew() {
		return l, l.writeAnew()
	}
	return l, l.open()
}

func readJournal(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Size() > maxSeenFile {
		err = fmt.Errorf("%s is larger than %d MiB", filepath.Base(path), maxSeenFile>>20)
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// open opens the file for what comes next.
func (l *seenList) open() (err error) {
	_, missing := os.Lstat(l.path)
	if l.file, err = os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err == nil && missing != nil {
		err = syncDir(filepath.Dir(l.path))
	}
	if err != nil {
		return diskError(fmt.Errorf("opening what was collected: %w", err))
	}
	return nil
}

// close gives the file back.
func (l *seenList) close() {
	if l.file != nil {
		_ = l.file.Close() // what counts has been synced
		l.file = nil
	}
}

// apply takes one line in; false means that there is no such line.
func (l *seenList) apply(f []string) bool {
	if len(f) == 0 {
		return false
	}
	switch {
	case f[0] == "validity" && len(f) == 2:
		return l.number(f[1], &l.validity)
	case f[0] == "last" && len(f) == 2:
		return l.number(f[1], &l.last)
	case f[0] == "former" && len(f) == 2:
		sum, ok := parseSum(f[1])
		l.former[sum]++
		return ok
	case f[0] == "gone" && len(f) == 2:
		delete(l.messages, f[1])
		return true
	case f[0] == "dropped" && len(f) == 1:
		l.pending = nil
		return true
	case f[0] == "pending" && len(f) == 6:
		return l.applyPending(f)
	}
	return l.applyMessage(f)
}

func (l *seenList) number(text string, to *uint32) bool {
	n, err := strconv.ParseUint(text, 10, 32)
	*to = uint32(n)
	return err == nil
}

func (l *seenList) applyPending(f []string) bool {
	p := &pendingDelivery{key: f[1]}
	var err, err2 error
	var ok bool
	p.size, err = strconv.ParseInt(f[2], 10, 64)
	p.sum, ok = parseSum(f[3])
	p.stored, err2 = strconv.ParseInt(f[4], 10, 64)
	hash, err3 := hex.DecodeString(f[5])
	l.pending = p
	return err == nil && err2 == nil && err3 == nil && ok && copy(p.hash[:], hash) == len(p.hash)
}

// applyMessage takes in what became of a message.
func (l *seenList) applyMessage(f []string) bool {
	if len(f) < 3 {
		return false
	}
	m := seenMessage{state: f[0]}
	var err error
	m.size, err = strconv.ParseInt(f[2], 10, 64)
	ok := err == nil
	switch {
	case (m.state == seenDone || m.state == seenAgain) && len(f) == 4:
		var sumOK bool
		m.sum, sumOK = parseSum(f[3])
		ok = ok && sumOK
		l.pending = nil
	case m.state == seenFailed && len(f) == 4:
		m.tries, err = strconv.Atoi(f[3])
		ok = ok && err == nil
	case m.state != seenLarge || len(f) != 3:
		return false
	}
	l.put(f[1], m)
	return ok
}

// put keeps a message. Up to its UID, all is dealt with then.
func (l *seenList) put(key string, m seenMessage) {
	l.messages[key] = m
	if uid, err := strconv.ParseUint(key, 10, 32); err == nil && l.validity != 0 {
		l.last = max(l.last, uint32(uid))
	}
}

func parseSum(text string) (sum seenSum, ok bool) {
	b, err := hex.DecodeString(text)
	return sum, err == nil && copy(sum[:], b) == len(sum) && len(b) == len(sum)
}

// line is a message as the journal has it.
func (m *seenMessage) line(key string) string {
	switch m.state {
	case seenLarge:
		return fmt.Sprintf("%s %s %d", m.state, key, m.size)
	case seenFailed:
		return fmt.Sprintf("%s %s %d %d", m.state, key, m.size, m.tries)
	}
	return fmt.Sprintf("%s %s %d %x", m.state, key, m.size, m.sum)
}

// note adds a line. It is on disk after the next sync; until then a crash may lose it.
func (l *seenList) note(format string, args ...any) error {
	if l.broken != nil {
		return l.broken
	}
	if _, err := l.file.WriteString(fmt.Sprintf(format, args...) + "\n"); err != nil {
		l.broken = diskError(fmt.Errorf("writing what was collected: %w", err))
		return l.broken
	}
	l.lines++
	l.dirty = true
	return nil
}

// sync puts on disk what was noted.
func (l *seenList) sync() error {
	if l.broken != nil || !l.dirty {
		return l.broken
	}
	if err := l.file.Sync(); err != nil {
		l.broken = diskError(fmt.Errorf("writing what was collected: %w", err))
		return l.broken
	}
	l.dirty = false
	return nil
}

// begin says, durably, that a delivery comes now.
func (l *seenList) begin(p pendingDelivery) error {
	if err := l.note("pending %s %d %x %d %x", p.key, p.size, p.sum, p.stored, p.hash); err != nil {
		return err
	}
	l.pending = &p
	return l.sync()
}

// drop says that the delivery that was begun has left nothing.
func (l *seenList) drop() error {
	l.pending = nil
	return l.note("dropped")
}

// set says what became of a message.
func (l *seenList) set(key string, m seenMessage) error {
	if err := l.note("%s", m.line(key)); err != nil {
		return err
	}
	l.put(key, m)
	if m.state == seenDone || m.state == seenAgain {
		l.pending = nil
	}
	return nil
}

// forget takes messages out that are not over there any more.
func (l *seenList) forget(keys ...string) error {
	for _, key := range keys {
		if err := l.note("gone %s", key); err != nil {
			return err
		}
		delete(l.messages, key)
	}
	return nil
}

// setLast says up to which UID all is dealt with.
func (l *seenList) setLast(uid uint32) error {
	if uid <= l.last {
		return nil
	}
	l.last = uid
	return l.note("last %d", uid)
}

// renumber begins anew with another UIDVALIDITY: what is here is known by its content alone.
func (l *seenList) renumber(validity uint32) error {
	for _, m := range l.messages {
		if m.state == seenDone || m.state == seenAgain {
			l.former[m.sum]++
		}
	}
	clear(l.messages)
	l.validity, l.last = validity, 0
	return l.writeAnew()
}

// takeFormer says whether a message was fetched under another UIDVALIDITY, once for each time.
func (l *seenList) takeFormer(sum seenSum) bool {
	if l.former[sum] == 0 {
		return false
	}
	if l.former[sum]--; l.former[sum] == 0 {
		delete(l.former, sum)
	}
	return true
}

// dropFormer forgets the messages of another UIDVALIDITY: all that were still there have been met.
func (l *seenList) dropFormer() error {
	if len(l.former) == 0 {
		return nil
	}
	clear(l.former)
	return l.writeAnew()
}

// worthAnew says that most lines say nothing any more.
func (l *seenList) worthAnew() bool { return l.lines > 2*(len(l.messages)+len(l.former))+seenSlack }

// tidy makes the journal anew when that is worth it.
func (l *seenList) tidy() error {
	if !l.worthAnew() {
		return nil
	}
	return l.writeAnew()
}

// writeAnew replaces the journal by the shortest one that says the same.
func (l *seenList) writeAnew() error {
	l.close()
	var text bytes.Buffer
	w := bufio.NewWriter(&text)
	lines := 0
	add := func(format string, args ...any) {
		fmt.Fprintf(w, format+"\n", args...)
		lines++
	}
	if l.validity != 0 || l.last != 0 {
		add("validity %d", l.validity)
		add("last %d", l.last)
	}
	for sum, n := range l.former {
		for range n {
			add("former %x", sum)
		}
	}
	for key, m := range l.messages {
		add("%s", m.line(key))
	}
	if p := l.pending; p != nil {
		add("pending %s %d %x %d %x", p.key, p.size, p.sum, p.stored, p.hash)
	}
	_ = w.Flush() // a buffer takes all
	if err := writeFileAtomic(l.path, text.Bytes()); err != nil {
		return diskError(fmt.Errorf("writing what was collected: %w", err))
	}
	l.lines, l.dirty = lines, false
	return l.open()
}

// trim forgets the lowest UIDs when there are too many: a UID up to last is never fetched again anyway.
func (l *seenList) trim() error {
	if len(l.messages) <= maxSeen {
		return nil
	}
	var uids []int
	for key, m := range l.messages {
		if uid, err := strconv.Atoi(key); err == nil && m.state == seenDone {
			uids = append(uids, uid)
		}
	}
	slices.Sort(uids)
	for _, uid := range uids[:max(0, min(len(uids), len(l.messages)-maxSeen*9/10))] {
		delete(l.messages, strconv.Itoa(uid))
	}
	return l.writeAnew()
}

// sumOf is the part of a SHA-256 that is kept.
func sumOf(hash []byte) (sum seenSum) {
	copy(sum[:], hash)
	return sum
}

// keyOfUIDL makes the key of a message of POP3. What servers give as UIDL may be anything.
func keyOfUIDL(uidl string, nth int) string {
	sum := sha256.Sum256([]byte(uidl))
	key := hex.EncodeToString(sum[:seenSumLength])
	if nth > 1 { // the same UIDL once more in one list (RFC 1939 §7 allows it for equal messages)
		key += "#" + strconv.Itoa(nth)
	}
	return key
}
