package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
)

// The files of the diary: a line of JSON an event. There are two kinds, each with a file that grows and the one before it: mail
// that went through, and what was refused. Nothing is fsynced: a power cut may cost the last lines, and no mail.

const (
	diaryFileSize = 2 << 20 // bytes; then a new file is begun, and the one before the last goes
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
