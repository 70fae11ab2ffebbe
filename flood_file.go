package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"time"
)

// floodSave is how long what was sent may be on its way into the file: a crash forgets no more.
const floodSave = time.Minute

// floodFileSize is how many octets the file has at most that is read.
const floodFileSize = 4 << 20

// floodFile is where a FloodLimit keeps its counts, so that a restart does not begin a new hour.
type floodFile struct {
	path  string
	log   *slog.Logger
	timer *time.Timer // the next writing; nil: nothing has changed
}

// floodRecord is what the file holds of one person.
type floodRecord struct {
	By   map[string][floodSlots]int `json:"by,omitempty"` // recipients with each password, a slot being five minutes
	Last int64                      `json:"last"`         // number of the newest slot, counted from the epoch
	Told time.Time                  `json:"told"`         // when the owner was told
}

// Remember takes over what the file at path tells, and keeps it up to date: a minute after something was sent, when somebody
// reaches the limit, and at Close. Without a file, or with one that is damaged, nobody has sent anything. To be called before
// the first use.
func (l *FloodLimit) Remember(path string, log *slog.Logger) {
	l.file = &floodFile{path: path, log: log}
	people := map[string]floodRecord{}
	if err := readJSON(path, floodFileSize, &people); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("how much mail people have sent this hour is forgotten: the file cannot be read", "path", path, "error", err)
		return
	}
	now := l.now()
	for account, r := range people {
		c := &floodCount{by: map[string]*[floodSlots]int{}, last: r.Last, told: r.Told}
		for via, slots := range r.By {
			c.by[via] = &slots
		}
		c.notAfter(now)
		l.people[account] = c
	}
}

// notAfter makes a count that a wrong clock has put into the future one of this moment, so that it ends within the hour.
func (c *floodCount) notAfter(now time.Time) {
	if slot := floodSlotOf(now); c.last > slot {
		c.last = slot
		for _, slots := range c.by {
			sum := floodSum(slots)
			*slots = [floodSlots]int{}
			slots[slot%floodSlots] = sum
		}
	}
	if c.told.After(now) {
		c.told = now
	}
}

// changed has the file written after a while; the lock is held.
func (l *FloodLimit) changed() {
	if l.file != nil && l.file.timer == nil {
		l.file.timer = time.AfterFunc(floodSave, l.write)
	}
}

// write writes the file, of those who have sent something within the hour or of whom the owner was told within the day.
func (l *FloodLimit) write() {
	l.writing.Lock() // the newest last
	defer l.writing.Unlock()
	l.mu.Lock()
	if l.file == nil {
		l.mu.Unlock()
		return
	}
	if l.file.timer != nil {
		l.file.timer.Stop()
		l.file.timer = nil
	}
	now := l.now()
	people := map[string]floodRecord{}
	for account, c := range l.people {
		if c.advance(now) > 0 || now.Sub(c.told) < floodTellGap {
			record := floodRecord{Last: c.last, Told: c.told, By: map[string][floodSlots]int{}}
			for via, slots := range c.by {
				record.By[via] = *slots
			}
			people[account] = record
		} else {
			delete(l.people, account)
		}
	}
	l.mu.Unlock()
	if err := writeJSON(l.file.path, people); err != nil {
		l.file.log.Warn("how much mail people have sent this hour cannot be written", "path", l.file.path, "error", err)
	}
}

// Close writes what has changed.
func (l *FloodLimit) Close() {
	l.mu.Lock()
	pending := l.file != nil && l.file.timer != nil
	l.mu.Unlock()
	if pending {
		l.write()
	}
}
