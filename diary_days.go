package main

import (
	"slices"
	"strings"
	"time"
)

// How much mail there was each day.

const (
	diaryDaysKept  = 400             // days
	diaryDaysSize  = 1 << 20         // octets of their file at most
	diaryDaysEvery = 5 * time.Minute // so often they are written while mail comes; a crash loses what was counted since
)

// DayCount is what happened on one day.
type DayCount struct {
	Day     string `json:"day"` // "2026-11-29"
	In      int    `json:"in,omitempty"`
	Junk    int    `json:"junk,omitempty"` // of In
	Out     int    `json:"out,omitempty"`
	Refused int    `json:"refused,omitempty"`
	Bounced int    `json:"bounced,omitempty"`
}

// diaryDays is the days on which there was something, the earliest first.
type diaryDays struct {
	list    []DayCount
	changed bool
	written time.Time
}

// read reads them from a file. What cannot be read begins anew.
func (days *diaryDays) read(file string) {
	if readJSON(file, diaryDaysSize, &days.list) != nil {
		days.list = nil
	}
	days.list = slices.DeleteFunc(days.list, func(c DayCount) bool {
		_, err := time.Parse(time.DateOnly, c.Day)
		return err != nil
	})
	sortFunc(days.list, func(a, b DayCount) int { return strings.Compare(a.Day, b.Day) })
	days.list = slices.CompactFunc(days.list, func(a, b DayCount) bool { return a.Day == b.Day })
}

// of gives the counts of a day, to be changed.
func (days *diaryDays) of(t time.Time) *DayCount {
	day := t.Format(time.DateOnly)
	i, found := slices.BinarySearchFunc(days.list, day, func(c DayCount, day string) int { return strings.Compare(c.Day, day) })
	if found {
		return &days.list[i]
	}
	days.list = slices.Insert(days.list, i, DayCount{Day: day})
	if over := len(days.list) - diaryDaysKept; over > 0 && i >= over {
		days.list = slices.Delete(days.list, 0, over)
		i -= over
	}
	return &days.list[i]
}

// Days gives the last n days up to today, also those without mail, the earliest first.
func (d *Diary) Days(n int) []DayCount {
	today := d.now().In(d.zone())
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]DayCount, n)
	for i := range list {
		day := time.Date(today.Year(), today.Month(), today.Day()-n+1+i, 12, 0, 0, 0, time.UTC).Format(time.DateOnly)
		list[i].Day = day
		if at, found := slices.BinarySearchFunc(d.days.list, day, func(c DayCount, day string) int { return strings.Compare(c.Day, day) }); found {
			list[i] = d.days.list[at]
		}
	}
	return list
}

// saveDays writes the counts, if there is something new. The disk's lock is held.
func (d *Diary) saveDays() error {
	d.mu.Lock()
	if !d.days.changed {
		d.mu.Unlock()
		return nil
	}
	list := slices.Clone(d.days.list)
	d.days.changed, d.days.written = false, d.now()
	d.mu.Unlock()
	err := makeDiaryDir(d.dir)
	if err == nil {
		err = writeJSON(d.daysFile(), list)
	}
	if err != nil {
		d.mu.Lock()
		d.days.changed = true
		d.mu.Unlock()
	}
	return err
}

// saveDaysSometimes is saveDays, not more often than diaryDaysEvery.
func (d *Diary) saveDaysSometimes() error {
	d.mu.Lock()
	due := d.now().Sub(d.days.written).Abs() >= diaryDaysEvery
	d.mu.Unlock()
	if !due {
		return nil
	}
	return d.saveDays()
}
