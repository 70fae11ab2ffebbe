package main

import (
	"bytes"
	"context"
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
}

// TrainSkipped are files that teach nothing, and why.
type TrainSkipped struct {
	Why   string   `json:"why"` // "are empty"
	Count int      `json:"count"`
	Names []string `json:"names"` // of the first few
}

// Add adds what came of the next part.
func (r *TrainReport) Add(next *TrainReport) {
	r.Learned, r.Known = r.Learned+next.Learned, r.Known+next.Known
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

// skipped says whether there is something that teaches nothing for this reason.
func (r *TrainReport) skipped(why string) bool {
	return slices.ContainsFunc(r.Skipped, func(s TrainSkipped) bool { return s.Why == why })
}

// The reasons for which a file teaches nothing.
const (
	skipNoMail     = "are no mail"
	skipEmpty      = "are empty"
	skipCompressed = "are compressed: unpack them first"
	skipUnreadable = "cannot be read"
	skipNoFile     = "are links or devices"
)

// TrainMail is one message to learn.
type TrainMail struct {
	Name string `json:"name"` // of its file, as a person is told of it
	Text []byte `json:"text"` // its beginning, as much as the filter looks at
}

// Train learns messages. What was learned before is not learned again.
func (f *SpamFilter) Train(mails []TrainMail, class spamClass) *TrainReport {
	var report TrainReport
	var reader spamReader
	l := f.learned
	for i := range mails {
		m, err := reader.read(l.seedOf(), bytes.NewReader(mails[i].Text), int64(len(mails[i].Text)))
		switch {
		case err != nil:
			report.skip(skipUnreadable, 1, mails[i].Name)
		case !hasField(m.fields, "From") && !hasField(m.fields, "Subject"):
			report.skip(skipNoMail, 1, mails[i].Name)
		case l.learn(l.messageKey("", messageName(m.fields)), 0, class, m.tokens.list):
			report.Learned++
		default:
			report.Known++
		}
	}
	l.sync()
	return &report
}

// trainOctets is how much of messages goes with one order to learn them: with its base64 it is shorter than an order may be.
const trainOctets = 640 << 10

// trainReader reads the messages of a folder and hands them on, many at a time.
type trainReader struct {
	ctx    context.Context
	dir    string
	send   func([]TrainMail) (*TrainReport, error)
	report TrainReport

	mails []TrainMail
	held  int // octets of them
}

// trainFrom hands the messages in a folder and the folders below to send, one a file or many in an mbox file; dir may also be one file.
// Whoever calls has to be let into the folder: the service lives apart from the folders of people, and sees none of them. The report is
// of all that send has said, and of the files that are no messages. An error is one of the folder as a whole, or of send.
func trainFrom(ctx context.Context, dir string, send func([]TrainMail) (*TrainReport, error)) (*TrainReport, error) {
	t := &trainReader{ctx: ctx, dir: dir, send: send}
	err := filepath.WalkDir(dir, t.visit)
	if err == nil {
		err = t.flush()
	}
	return &t.report, err
}

// flush hands on what is held.
func (t *trainReader) flush() error {
	if len(t.mails) == 0 {
		return nil
	}
	r, err := t.send(t.mails)
	if err != nil {
		return err
	}
	t.report.Add(r)
	t.mails, t.held = nil, 0
	return t.ctx.Err()
}

// nameOf is what a person is told of a file, or of a part of one.
func (t *trainReader) nameOf(path, part string) string {
	name, err := filepath.Rel(t.dir, path)
	if err != nil || name == "." {
		name = filepath.Base(path)
	}
	return foreignWords(name+part, 100)
}

func (t *trainReader) skip(path, why string) { t.report.skip(why, 1, t.nameOf(path, "")) }

// visit is fs.WalkDirFunc.
func (t *trainReader) visit(path string, entry fs.DirEntry, err error) error {
	switch {
	case err != nil && path == t.dir:
		return fmt.Errorf("learning from %s: %w", t.dir, err)
	case err != nil:
		t.skip(path, skipUnreadable)
	case entry.IsDir() || isBesideMail(entry.Name()):
	case entry.Type().IsRegular():
		return t.file(path)
	default:
		t.skip(path, skipNoFile)
	}
	return nil
}

// isBesideMail says whether a file is one of those that programs keep beside the mail of a Maildir.
func isBesideMail(name string) bool {
	return strings.HasPrefix(name, "dovecot") || name == "maildirfolder" || name == "maildirsize" || name == "subscriptions"
}

// file reads one file.
func (t *trainReader) file(path string) error {
	file, err := os.Open(path)
	if err != nil {
		t.skip(path, skipUnreadable)
		return nil
	}
	defer file.Close()
	head := make([]byte, 512)
	n, err := file.ReadAt(head, 0)
	if head = head[:n]; err != nil && err != io.EOF {
		t.skip(path, skipUnreadable)
		return nil
	}
	switch {
	case len(head) == 0:
		t.skip(path, skipEmpty)
	case isMboxLine(firstLine(head)):
		return t.mbox(path, file)
	case isCompressed(head):
		t.skip(path, skipCompressed)
	default:
		return t.message(path, "", file, spamReads)
	}
	return nil
}

// mbox reads a file of many messages.
func (t *trainReader) mbox(path string, file *os.File) error {
	number := 0
	var stopped error
	err := mboxMessages(io.NewSectionReader(file, 0, 1<<62), func(from, size int64) error {
		number++
		stopped = t.message(path, fmt.Sprintf(" message %d", number), io.NewSectionReader(file, from, size), size)
		return stopped
	})
	if err != nil && stopped == nil {
		t.skip(path, skipUnreadable)
	}
	return stopped
}

// message holds one message, of which size octets are there at most.
func (t *trainReader) message(path, part string, source io.ReaderAt, size int64) error {
	text, err := io.ReadAll(io.NewSectionReader(source, 0, min(size, spamReads)))
	if err != nil {
		t.report.skip(skipUnreadable, 1, t.nameOf(path, part))
		return nil
	}
	mail := TrainMail{t.nameOf(path, part), text}
	size = int64(len(mail.Text) + len(mail.Name) + len(`{"name":"","text":""},`))
	if t.held+int(size) > trainOctets {
		if err := t.flush(); err != nil {
			return err
		}
	}
	t.mails, t.held = append(t.mails, mail), t.held+int(size)
	return nil
}

// isCompressed says whether a file begins as gzip, bzip2, xz, zstd, lz4 or ZIP have it.
func isCompressed(head []byte) bool {
	return slices.ContainsFunc([]string{"\x1f\x8b", "BZh", "\xfd7zXZ", "\x28\xb5\x2f\xfd", "\x04\x22\x4d\x18", "PK\x03\x04"},
		func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) })
}
