package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"io"
	"strings"
	"sync"

	"github.com/emersion/go-imap/v2"
)

// What people teach the filter: a message that they move or copy into Junk is unwanted, one that they take out of it (not to
// Trash) is wanted, and whom they write to is no stranger. What the filter itself has put into Junk teaches nothing.

const (
	taughtAtOnce  = 1000   // messages of one move that are learned, the newest
	taughtWaiting = 20_000 // messages that wait to be learned
)

// spamTeacher learns from what is moved, in the background, with one goroutine while there is something to learn.
type spamTeacher struct {
	filter *SpamFilter

	mu      sync.Mutex
	lessons []lesson
	waiting int // messages in lessons
	running bool
	closed  bool
	ended   sync.WaitGroup
}

// lesson is what a move says of messages.
type lesson struct {
	folder *Folder // where they are now; retained
	uids   []imap.UID
	kind   lessonKind
}

type lessonKind uint8

const (
	lessonNone     lessonKind = iota
	lessonUnwanted            // into Junk
	lessonWanted              // out of Junk
	lessonRestored            // out of Trash: wanted if it was held for unwanted
	lessonSent                // into Sent
)

func newSpamTeacher(f *SpamFilter) *spamTeacher { return &spamTeacher{filter: f} }

// close waits for the message in hand; the others are not learned.
func (t *spamTeacher) close() {
	t.mu.Lock()
	t.closed = true
	for _, l := range t.lessons {
		l.folder.Release()
	}
	t.lessons = nil
	t.mu.Unlock()
	t.ended.Wait()
}

// filed takes what somebody has filed (see Store.OnFiling).
func (t *spamTeacher) filed(filing Filing) {
	kind := lessonOf(filing)
	if kind == lessonNone || len(filing.UIDs) == 0 || !filing.To.Retain() {
		return
	}
	uids := filing.UIDs[max(0, len(filing.UIDs)-taughtAtOnce):]
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.waiting+len(uids) > taughtWaiting {
		filing.To.Release()
		return
	}
	t.lessons = append(t.lessons, lesson{filing.To, uids, kind})
	t.waiting += len(uids)
	if !t.running {
		t.running = true
		t.ended.Go(t.run)
	}
}

// lessonOf says what filing messages means.
func lessonOf(filing Filing) lessonKind {
	to, from := filing.To.UseOf(), imap.MailboxAttr("")
	if filing.From != nil {
		from = filing.From.UseOf()
	}
	switch {
	case filing.From != nil && filing.From.Name() == outboxName: // our own words about mail that waits
		return lessonNone
	case to == imap.MailboxAttrJunk && from != imap.MailboxAttrJunk:
		return lessonUnwanted
	case to == imap.MailboxAttrSent:
		return lessonSent
	case to == imap.MailboxAttrJunk, to == imap.MailboxAttrTrash, to == imap.MailboxAttrDrafts:
		return lessonNone
	case from == imap.MailboxAttrJunk:
		return lessonWanted
	case from == imap.MailboxAttrTrash:
		return lessonRestored
	}
	return lessonNone
}

// run learns until there is nothing to learn.
func (t *spamTeacher) run() {
	var reader spamReader
	synced := true
	for {
		t.mu.Lock()
		if len(t.lessons) == 0 && !synced && !t.closed { // once for many, as when a mailbox is brought here
			t.mu.Unlock()
			t.filter.learned.sync()
			synced = true
			continue
		}
		if len(t.lessons) == 0 || t.closed {
			t.running = false
			t.mu.Unlock()
			return
		}
		synced = false
		l := t.lessons[0]
		t.lessons = t.lessons[1:]
		t.waiting -= len(l.uids)
		t.mu.Unlock()
		t.learn(&reader, l)
		l.folder.Release()
	}
}

// learn learns from the messages of a lesson.
func (t *spamTeacher) learn(reader *spamReader, l lesson) {
	f, account := t.filter, l.folder.Account()
	learned := 0
	for _, uid := range l.uids {
		if t.ending() {
			break
		}
		text, err := firstOctets(l.folder, uid)
		if err != nil { // gone, most likely
			continue
		}
		if l.kind == lessonSent {
			f.noteRecipients(account, text)
			continue
		}
		m, err := reader.read(f.learned.seedOf(), bytes.NewReader(text), int64(len(text)))
		if err == nil && f.correct(account, l.kind, m) {
			learned++
		}
	}
	if learned > 0 {
		f.cfg.Log.Info("learned", "account", account, "messages", learned, "unwanted", l.kind == lessonUnwanted)
	}
}

func (t *spamTeacher) ending() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

// firstOctets reads a message as far as the filter looks at it.
func firstOctets(f *Folder, uid imap.UID) ([]byte, error) {
	m, err := f.OpenMessage(uid)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return io.ReadAll(m.Section(0, spamReads))
}

// correct learns one message as a person has filed it, and says whether that was news.
func (f *SpamFilter) correct(account string, kind lessonKind, m *spamMessage) bool {
	l := f.learned
	key := l.messageKey(account, messageName(m.fields))
	called, proven := judgedBefore(m.fields)
	class := classHam
	switch kind {
	case lessonUnwanted:
		class = classSpam
	case lessonRestored:
		if before := l.learnedAs(key); before != classSpam && (before == classHam || !called) {
			return false
		}
	}
	if list, _ := fromAddresses(m.fields); len(list) > 0 && !f.cfg.IsLocalDomain(list[0].Domain) {
		switch {
		case class == classHam:
			l.note(account, list[0], knownWanted, knownUnwanted)
		case proven: // who is only named as the author of spam has not deserved that
			l.note(account, list[0], knownUnwanted, knownWanted|knownWritten)
		}
	}
	return l.learn(key, l.personKey(account), class, m.tokens.list)
}

// judgedBefore reads in the field of the filter what it thought of a message, and whether it was shown to be the author's.
func judgedBefore(fields []headerField) (unwanted, proven bool) {
	status, _ := findField(fields, spamStatusField)
	value := status.Value()
	return strings.HasPrefix(value, "Yes"), strings.HasSuffix(value, "sender=proven")
}

// noteRecipients notes to whom a message in Sent went.
func (f *SpamFilter) noteRecipients(account string, text []byte) {
	header, err := readHeader(bufio.NewReader(bytes.NewReader(text)), spamHeader)
	if err != nil {
		return
	}
	fields := splitHeader(header)
	for _, name := range []string{"To", "Cc", "Bcc"} {
		list, _ := addressesOf(fields, name)
		for _, a := range list {
			if !f.cfg.IsLocalDomain(a.Domain) {
				f.learned.note(account, a, knownWritten, knownUnwanted)
			}
		}
	}
}

// messageName names a message by what its copies have in common.
func messageName(fields []headerField) string {
	sum := sha256.New()
	for _, name := range []string{"Message-ID", "Date", "From", "Subject"} {
		h, _ := findField(fields, name)
		_, _ = io.WriteString(sum, h.Value()+"\n") // a hash never fails
	}
	return string(sum.Sum(nil))
}

// messageKey gives the hash of a message that somebody has filed; "" is the owner's training.
func (l *spamLearned) messageKey(account, name string) uint64 {
	return l.hash("message", account, name)
}

// personKey gives the hash of a person.
func (l *spamLearned) personKey(account string) uint64 { return max(l.hash("person", account), 1) }

// SpamStatus is what there is to tell of the filter.
type SpamStatus struct {
	Unwanted int      `json:"unwanted"` // messages that were learned
	Wanted   int      `json:"wanted"`
	Needed   int      `json:"needed"`  // of each kind before words are judged
	Tokens   int      `json:"tokens"`  // that are remembered
	Senders  int      `json:"senders"` // of whom it is known what people think
	Lists    []string `json:"lists,omitempty"`
	Greylist bool     `json:"greylist,omitempty"`
	Milter   string   `json:"milter,omitempty"`
}

// Status tells how much was learned, and who else is asked.
func (f *SpamFilter) Status() SpamStatus {
	l := f.learned
	l.mu.RLock()
	defer l.mu.RUnlock()
	return SpamStatus{
		Unwanted: l.totals[0].spam, Wanted: l.totals[0].ham, Needed: minLearned, Tokens: l.words.used, Senders: len(l.known.memos),
		Lists: f.cfg.Lists, Greylist: f.grey != nil, Milter: f.cfg.Milter,
	}
}

// Forget forgets all that was learned: words, and what people think of senders.
func (f *SpamFilter) Forget() error { return f.learned.forgetAll() }
