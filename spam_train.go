package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Training by hand: whole folders of messages, one a file, and mbox files.

// trainNames is how many of the files that teach nothing are named for each reason.
const trainNames = 3

// TrainReport is what came of training.
type TrainReport struct {
	Learned int            `json:"learned"` // messages that were news
	Known   int            `json:"known"`   // that were learned as the same before
	Skipped []TrainSkipped `json:"skipped,omitempty"`
	Next    int            `json:"next"` // how many messages and files were looked at in all
	More    bool           `json:"more"` // there are others behind
}

// TrainSkipped are files that teach nothing, and why.
type TrainSkipped struct {
	Why   string   `json:"why"` // "are empty"
	Count int      `json:"count"`
	Names []string `json:"names"` // of the first few
}

// Add adds what came of the next part.
func (r *TrainReport) Add(next *TrainReport) {
	r.Learned, r.Known, r.Next, r.More = r.Learned+next.Learned, r.Known+next.Known, next.Next, next.More
	for _, s := range next.Skipped {
		r.skip(s.Why, s.Count, s.Names...)
	}
}

// skip counts n files that teach nothing, of which the first few are named.
func (r *TrainReport) skip(why string, n int, names ...string) {
	at := slices.IndexFunc(r.Skipped, func(s TrainSkipped) bool { return s.Why == why })
	if at < 0 {
		at = len(r.Skipped)
		r.Skipped = append(r.Skipped, TrainSkipped{Why: why})
	}
	s := &r.Skipped[at]
	s.Count += n
	s.Names = append(s.Names, names[:min(len(names), trainNames-len(s.Names))]...)
}

// The reasons for which a file teaches nothing.
const (
	skipNoMail     = "are no mail"
	skipEmpty      = "are empty"
	skipCompressed = "are compressed: unpack them first"
	skipUnreadable = "cannot be read"
	skipNoFile     = "are links or devices"
)

// trainer learns from a folder.
type trainer struct {
	filter *SpamFilter
	ctx    context.Context
	reader spamReader
	dir    string
	class  spamClass
	from   int // messages and files that were looked at before
	report TrainReport
}

// Train learns the messages in a folder and the folders below, one a file or many in an mbox file; dir may also be one file. When ctx
// ends it stops behind the first that it has looked at and says that there is more: the next call goes on from there if from is Next
// of its report, 0 for the first. What was learned before is not learned again. An error is one of the folder as a whole.
func (f *SpamFilter) Train(ctx context.Context, dir string, class spamClass, from int) (*TrainReport, error) {
	t := &trainer{filter: f, ctx: ctx, dir: dir, class: class, from: from}
	err := filepath.WalkDir(dir, t.visit)
	f.learned.sync()
	if err != nil && !errors.Is(err, fs.SkipAll) {
		return nil, fmt.Errorf("learning from %s: %w", dir, err)
	}
	return &t.report, nil
}

// turn counts one more message or file, and says whether it is to be looked at now; fs.SkipAll ends the call.
func (t *trainer) turn() (now bool, err error) {
	if t.report.Next < t.from {
		t.report.Next++
		return false, nil
	}
	if t.report.Next > t.from && t.ctx.Err() != nil { // at least one is looked at, or calling again would not help
		t.report.More = true
		return false, fs.SkipAll
	}
	t.report.Next++
	return true, nil
}

// skip notes that a file, or a part of one, teaches nothing.
func (t *trainer) skip(path, part, why string) {
	name, err := filepath.Rel(t.dir, path)
	if err != nil || name == "." {
		name = filepath.Base(path)
	}
	t.report.skip(why, 1, foreignWords(name+part, 100))
}

// visit is fs.WalkDirFunc.
func (t *trainer) visit(path string, entry fs.DirEntry, err error) error {
	switch {
	case err != nil && path == t.dir:
		return err
	case err == nil && (entry.IsDir() || isBesideMail(entry.Name())):
		return nil
	case err == nil && entry.Type().IsRegular():
		return t.file(path)
	}
	now, ended := t.turn()
	switch {
	case ended != nil || !now:
		return ended
	case err != nil:
		t.skip(path, "", skipUnreadable)
	default:
		t.skip(path, "", skipNoFile)
	}
	return nil
}

// isBesideMail says whether a file is one of those that programs keep beside the mail of a Maildir.
func isBesideMail(name string) bool {
	return strings.HasPrefix(name, "dovecot") || name == "maildirfolder" || name == "maildirsize" || name == "subscriptions"
}

// file learns one file.
func (t *trainer) file(path string) error {
	file, err := os.Open(path)
	if err == nil {
		defer file.Close()
		head := make([]byte, 512)
		var n int
		if n, err = file.ReadAt(head, 0); err == io.EOF {
			err = nil
		}
		if head = head[:n]; err == nil && isMboxLine(firstLine(head)) {
			return t.mbox(path, file)
		}
		if now, ended := t.turn(); ended != nil || !now {
			return ended
		}
		if err == nil {
			return t.plain(path, file, head)
		}
	} else if now, ended := t.turn(); ended != nil || !now {
		return ended
	}
	t.skip(path, "", skipUnreadable)
	return nil
}

// plain learns a file that is one message.
func (t *trainer) plain(path string, file *os.File, head []byte) error {
	st, err := file.Stat()
	switch {
	case err != nil:
		t.skip(path, "", skipUnreadable)
	case st.Size() == 0:
		t.skip(path, "", skipEmpty)
	case isCompressed(head):
		t.skip(path, "", skipCompressed)
	default:
		t.learn(path, "", file, st.Size())
	}
	return nil
}

// mbox learns a file of many messages.
func (t *trainer) mbox(path string, file *os.File) error {
	number := 0
	err := mboxMessages(io.NewSectionReader(file, 0, 1<<62), func(from, size int64) error {
		number++
		now, ended := t.turn()
		if now {
			t.learn(path, fmt.Sprintf(" message %d", number), io.NewSectionReader(file, from, size), size)
		}
		return ended
	})
	if err != nil && !errors.Is(err, fs.SkipAll) {
		t.skip(path, "", skipUnreadable)
		return nil
	}
	return err
}

// learn learns one message. One that has no header is none.
func (t *trainer) learn(path, part string, source io.ReaderAt, size int64) {
	l := t.filter.learned
	m, err := t.reader.read(l.seedOf(), source, size)
	switch {
	case err != nil:
		t.skip(path, part, skipUnreadable)
	case !hasField(m.fields, "From") && !hasField(m.fields, "Subject"):
		t.skip(path, part, skipNoMail)
	case l.learn(l.messageKey("", messageName(m.fields)), 0, t.class, m.tokens.list):
		t.report.Learned++
	default:
		t.report.Known++
	}
}

// isCompressed says whether a file begins as gzip, bzip2, xz, zstd, lz4 or ZIP have it.
func isCompressed(head []byte) bool {
	return slices.ContainsFunc([]string{"\x1f\x8b", "BZh", "\xfd7zXZ", "\x28\xb5\x2f\xfd", "\x04\x22\x4d\x18", "PK\x03\x04"},
		func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) })
}
