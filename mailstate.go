package main

import (
	"errors"

	"github.com/emersion/go-imap/v2"
)

// What the files of the store speak of: the state of a message, its flags, and the errors of the store.

var (
	// ErrNoFolder: the mailbox does not exist (any more).
	ErrNoFolder = errors.New("no such mailbox")
	// ErrExists: a mailbox of this name exists.
	ErrExists = errors.New("mailbox exists")
	// ErrBadName: no mailbox can have this name.
	ErrBadName = errors.New("bad mailbox name")
	// ErrExpunged: the message is gone.
	ErrExpunged = errors.New("message is expunged")
	// ErrDiskFull: the disk is used up.
	ErrDiskFull = errors.New("disk is full")
	// ErrOverQuota: the maildrop has no room for it as long as nothing is deleted.
	ErrOverQuota = errors.New("over quota")
	// ErrAboveQuota: it is larger than all that the maildrop may hold.
	ErrAboveQuota = errors.New("larger than the quota")
	// ErrWaiting: the message tells of mail that waits to be sent, and stays where it is.
	ErrWaiting = errors.New("the message waits to be sent")
	// ErrNotSentFrom: what lies in the folder waits to be sent, and what people put there would not be.
	ErrNotSentFrom = errors.New("nothing that is put into the folder is sent")
	// ErrKeywords: the folder has maxKeywords different keywords already, or the name is no keyword.
	ErrKeywords = errors.New("too many or bad keywords")
	// ErrInboxFixed: INBOX cannot be deleted.
	ErrInboxFixed = errors.New("INBOX cannot be deleted")
	// ErrNoRight: the access list does not allow it.
	ErrNoRight = errors.New("the right for this is missing")
	// ErrAccessList: the mailbox's access list cannot be read and so not be changed.
	ErrAccessList = errors.New("the access list cannot be read")
	// ErrClosed: the maildrop was put aside or the store is closed.
	ErrClosed = errors.New("maildrop is closed")
)

// Flags is a set of system flags.
type Flags uint8

// The system flags of RFC 9051 §2.3.2 but \Recent, which belongs to sessions.
const (
	FlagSeen Flags = 1 << iota
	FlagAnswered
	FlagFlagged
	FlagDeleted
	FlagDraft
)

// Msg is the state of one message at the moment it was asked for, a copy.
type Msg struct {
	UID      imap.UID
	Flags    Flags
	place    uint8  // placeNew or 0: in new/ or cur/
	ModSeq   uint64 // of the last change
	Keywords uint64 // bit i: Folder.Keywords()[i]
	Size     int64  // RFC822.SIZE: bytes with CRLF line ends; -1: not known yet
	stored   int64  // bytes on disk; -1: not known yet
	Date     int64  // INTERNALDATE, Unix seconds; dateUnknown: not known yet
	Saved    int64  // when it came into this folder, Unix seconds (RFC 8514)
	base     string // file name up to the flags
	info     string // the rest of the file name
}

const (
	placeNew    = 1
	dateUnknown = -1 << 62
)

// fileName is the message's name within its directory.
func (m *Msg) fileName() string { return m.base + m.info }

// subdir is the directory within the Maildir.
func (m *Msg) subdir() string {
	if m.place == placeNew {
		return "new"
	}
	return "cur"
}

// maxKeywords is how many keywords a folder may have: the bits of Msg.Keywords.
const maxKeywords = 64

// keywordsIn counts the names in use.
func keywordsIn(names []string) int {
	n := 0
	for _, name := range names {
		if name != "" {
			n++
		}
	}
	return n
}

// Quota is what a maildrop holds, or may hold: bytes as they lie on disk, and messages. As a limit, 0 is none.
type Quota struct {
	Bytes    int64
	Messages int64
}

// plus adds two.
func (q Quota) plus(other Quota) Quota {
	return Quota{q.Bytes + other.Bytes, q.Messages + other.Messages}
}

// minus takes one from another.
func (q Quota) minus(other Quota) Quota {
	return Quota{q.Bytes - other.Bytes, q.Messages - other.Messages}
}

// Rights is a set of the rights of RFC 4314 §2.1.
type Rights uint16

// The rights, each with its letter.
const (
	RightLookup         Rights = 1 << iota // l: the mailbox is seen in lists
	RightRead                              // r: SELECT, FETCH, STATUS
	RightSeen                              // s: change \Seen
	RightWrite                             // w: change other flags
	RightInsert                            // i: APPEND, COPY into it
	RightPost                              // p: no command here needs it
	RightCreate                            // k: make mailboxes below it
	RightDelete                            // x: delete or rename it
	RightDeleteMessages                    // t: change \Deleted
	RightExpunge                           // e: EXPUNGE
	RightAdmin                             // a: change rights

	RightsAll Rights = 1<<iota - 1 // all of them
)

// flagRights are the rights that change flags.
const flagRights = RightSeen | RightWrite | RightDeleteMessages

// rightLetters are the rights by their letters, in the order in which they are written, which is Dovecot's as well.
var rightLetters = [...]struct {
	right  Rights
	letter rune
}{
	{RightLookup, 'l'}, {RightRead, 'r'}, {RightWrite, 'w'}, {RightSeen, 's'}, {RightDeleteMessages, 't'}, {RightInsert, 'i'},
	{RightPost, 'p'}, {RightExpunge, 'e'}, {RightCreate, 'k'}, {RightDelete, 'x'}, {RightAdmin, 'a'},
}

// Letters gives the rights by their letters.
func (r Rights) Letters() string {
	var b []byte
	for _, one := range rightLetters {
		if r&one.right != 0 {
			b = append(b, byte(one.letter))
		}
	}
	return string(b)
}

// rightsOf gives the rights of letters; ok is false when one has no meaning.
func rightsOf(letters string) (rights Rights, ok bool) {
	for _, letter := range letters {
		right := Rights(0)
		for _, one := range rightLetters {
			if one.letter == letter {
				right = one.right
			}
		}
		if right == 0 {
			return 0, false
		}
		rights |= right
	}
	return rights, true
}

// flags gives the system flags that may be changed with the rights (RFC 4314 §4).
func (r Rights) flags() Flags {
	var may Flags
	if r&RightSeen != 0 {
		may |= FlagSeen
	}
	if r&RightDeleteMessages != 0 {
		may |= FlagDeleted
	}
	if r&RightWrite != 0 {
		may |= FlagAnswered | FlagFlagged | FlagDraft
	}
	return may
}

// keywords gives the keywords, by bit, that may be changed with the rights: all or none.
func (r Rights) keywords() uint64 {
	if r&RightWrite != 0 {
		return ^uint64(0)
	}
	return 0
}

// CacheKind names a disposable derived value of a message; those that use it number the kinds from 0 to cacheKinds-1.
// Kinds from cacheBlocks on are values of several messages, kept under the UID of the first one; they stay when it goes.
type CacheKind byte

const (
	cacheKinds            = 7
	cacheBlocks CacheKind = 64
)

// FlagOp is how Folder.SetFlags combines.
type FlagOp int

const (
	FlagsReplace FlagOp = iota
	FlagsAdd
	FlagsRemove
)

// NoUnchangedSince lets Folder.SetFlags change everything.
const NoUnchangedSince = ^uint64(0)

// systemFlag gives the bit of a system flag; 0 for keywords and \Recent.
func systemFlag(f imap.Flag) Flags {
	for _, s := range systemFlagNames {
		if equalFoldASCII(string(f), s.name) {
			return s.flag
		}
	}
	return 0
}

var systemFlagNames = [...]struct {
	flag Flags
	name string
}{
	{FlagAnswered, `\Answered`},
	{FlagFlagged, `\Flagged`},
	{FlagDeleted, `\Deleted`},
	{FlagSeen, `\Seen`},
	{FlagDraft, `\Draft`},
}

func equalFoldASCII(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		x, y := a[i], b[i]
		if x >= 'A' && x <= 'Z' {
			x += 'a' - 'A'
		}
		if y >= 'A' && y <= 'Z' {
			y += 'a' - 'A'
		}
		if x != y {
			return false
		}
	}
	return true
}
