package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The files of the diary: a line of JSON an event. There are two kinds, each with a file that grows and the one before it: mail
// that went through, and what was refused. Nothing is fsynced: a power cut may cost the last lines, and no mail.

const (
	diaryFileSize = 2 << 20 // bytes; then a new file is begun, and the one before the last goes
	diaryMost     = 500     // events that a search gives at most
)

func (d *Diary) daysFile() string { return filepath.Join(d.dir, "days.json") }

func (d *Diary) mailFile() string { return filepath.Join(d.dir, "mail.log") }

func (d *Diary) refusedFile() string { return filepath.Join(d.dir, "refused.log") }

// before is the file that was full before this one.
func before(file string) string { return file + ".old" }

func makeDiaryDir(dir string) error { return os.MkdirAll(dir, 0o700) }

// flush writes what waits.
func (d *Diary) flush() {
	d.disk.Lock()
	defer d.disk.Unlock()
	d.flushLocked()
	if err := d.saveDaysSometimes(); err != nil {
		d.complain(err)
	}
}

// flushLocked is flush of events, with the disk's lock held.
func (d *Diary) flushLocked() {
	d.mu.Lock()
	events, lost := d.waiting, d.lost
	d.waiting, d.lost, d.timer = nil, 0, nil
	d.mu.Unlock()
	if len(events) == 0 {
		return
	}
	if lost > 0 {
		events = append(events, DiaryEvent{Time: d.now().UTC(), Kind: DiaryRefused, More: lost})
	}
	var mail, refused bytes.Buffer
	for i := range events {
		out := &mail
		if events[i].isRefusal() {
			out = &refused
		}
		line := json.NewEncoder(out)
		line.SetEscapeHTML(false) // a search looks for what people type
		_ = line.Encode(&events[i])
	}
	err := makeDiaryDir(d.dir)
	if err == nil {
		err = errors.Join(appendDiary(d.mailFile(), mail.Bytes()), appendDiary(d.refusedFile(), refused.Bytes()))
	}
	if err != nil {
		d.complain(err)
		return
	}
	d.failed = false
}

// complain says in the log, once, that the disk takes nothing. The disk's lock is held.
func (d *Diary) complain(err error) {
	if !d.failed {
		d.failed = true
		d.fail(err)
	}
}

// appendDiary adds lines to a file, and begins a new one where it is full.
func appendDiary(file string, lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil {
		if last := make([]byte, 1); st.Size() > 0 {
			if _, err := f.ReadAt(last, st.Size()-1); err == nil && last[0] != '\n' { // a power cut has torn the last line
				lines = append([]byte{'\n'}, lines...)
			}
		}
		_, err = f.Write(lines)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && st.Size()+int64(len(lines)) >= diaryFileSize {
		err = renameFile(file, before(file))
	}
	return err
}

// DiarySearch says which events are looked for.
type DiarySearch struct {
	Text    string                   // that stands in an event, in any case of letters; "": anything
	Names   []string                 // of which one stands in each event that Keep keeps; empty: any. Spares it the others.
	Keep    func(e *DiaryEvent) bool // nil: all
	Most    int                      // events, at most diaryMost
	Mail    bool                     // of mail that went through
	Refused bool                     // of what was refused
}

// Find gives the events that are looked for, the last first. more says that there are others.
func (d *Diary) Find(s DiarySearch) (found []DiaryEvent, more bool, err error) {
	d.disk.Lock()
	defer d.disk.Unlock()
	d.flushLocked()
	s.Most = min(s.Most, diaryMost)
	var lists [2][]DiaryEvent
	for i, file := range []string{d.mailFile(), d.refusedFile()} {
		if i == 0 && !s.Mail || i == 1 && !s.Refused {
			continue
		}
		for _, file := range []string{file, before(file)} {
			if lists[i], err = s.in(file, lists[i]); err != nil {
				return nil, false, err
			}
		}
	}
	found = slices.Concat(lists[0], lists[1])
	slices.SortStableFunc(found, func(a, b DiaryEvent) int { return b.Time.Compare(a.Time) })
	if more = len(found) > s.Most; more {
		found = found[:s.Most]
	}
	return found, more, nil
}

// in adds what a file has, the last first, up to one more than is wanted.
func (s *DiarySearch) in(file string, found []DiaryEvent) ([]DiaryEvent, error) {
	if len(found) > s.Most {
		return found, nil
	}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	needle, names := needleOf(s.Text), [][]byte{}
	for _, name := range s.Names {
		names = append(names, needleOf(name))
	}
	for len(text) > 0 && len(found) <= s.Most {
		at := bytes.LastIndexByte(text[:len(text)-1], '\n') + 1
		line := text[at:]
		text = text[:at]
		if !hasNeedles(line, needle, names) {
			continue
		}
		var e DiaryEvent
		if json.Unmarshal(line, &e) != nil || !e.says(s.Text) || s.Keep != nil && !s.Keep(&e) {
			continue
		}
		found = append(found, e)
	}
	return found, nil
}

// hasNeedles says whether a line has a text, and one of the names where there are any, in any case of letters.
func hasNeedles(line, text []byte, names [][]byte) bool {
	if len(text) == 0 && len(names) == 0 {
		return true
	}
	line = bytes.ToLower(line)
	return bytes.Contains(line, text) &&
		(len(names) == 0 || slices.ContainsFunc(names, func(name []byte) bool { return bytes.Contains(line, name) }))
}

// needleOf is what stands in the line of each event that has a text.
func needleOf(text string) []byte {
	var out bytes.Buffer
	line := json.NewEncoder(&out)
	line.SetEscapeHTML(false)
	_ = line.Encode(strings.ToLower(text))
	return bytes.Trim(out.Bytes(), "\"\n")
}

// says tells whether a text stands in what people see of an event.
func (e *DiaryEvent) says(text string) bool {
	if text == "" {
		return true
	}
	text = strings.ToLower(text)
	for _, field := range append([]string{e.ID, e.From, e.Account, e.Remote, e.Reason}, e.To...) {
		if strings.Contains(strings.ToLower(field), text) {
			return true
		}
	}
	return false
}
