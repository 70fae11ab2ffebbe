package main

import (
	"sync"
	"time"
)

// FloodLimit bounds to how many addresses elsewhere one person may write within an hour: more than a family needs and less
// than a spammer with a stolen password does. Safe for concurrent use; nil bounds nothing.
type FloodLimit struct {
	perHour int
	// exceeded is told, without locks held and at most once a day, of somebody who has reached the limit.
	exceeded func(account string)
	now      func() time.Time

	writing sync.Mutex // held while the file is written; taken before mu
	mu      sync.Mutex
	file    *floodFile             // nil: nothing is kept
	people  map[string]*floodCount // by account
}

const (
	floodSlots   = 12 // of an hour: what was sent longer ago is forgotten slot by slot
	floodSlot    = time.Hour / floodSlots
	floodTellGap = 24 * time.Hour
)

// floodCount is what one person has sent.
type floodCount struct {
	slots [floodSlots]int
	last  int64     // number of the newest slot, counted from the epoch
	told  time.Time // when exceeded was told
}

// NewFloodLimit makes a limit of perHour recipients.
func NewFloodLimit(perHour int, exceeded func(account string), now func() time.Time) *FloodLimit {
	return &FloodLimit{perHour: perHour, exceeded: exceeded, now: now, people: map[string]*floodCount{}}
}

// PerHour is the limit.
func (l *FloodLimit) PerHour() int { return l.perHour }

// Take counts one recipient, or says that it is one too many.
func (l *FloodLimit) Take(account string) bool {
	if l == nil {
		return true
	}
	now := l.now()
	l.mu.Lock()
	c := l.people[account]
	if c == nil {
		c = new(floodCount)
		l.people[account] = c
	}
	sum := c.advance(now)
	ok := sum < l.perHour
	if ok {
		c.slots[c.last%floodSlots]++
		l.changed()
	}
	tell := !ok && (c.told.IsZero() || now.Sub(c.told) >= floodTellGap)
	if tell {
		c.told = now
	}
	l.mu.Unlock()
	if tell {
		l.write()
		l.exceeded(account)
	}
	return ok
}

// GiveBack takes back n recipients of a message that was not sent after all.
func (l *FloodLimit) GiveBack(account string, n int) {
	if l == nil || n == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.people[account]
	if c == nil {
		return
	}
	c.advance(l.now())
	l.changed()
	for i := range c.slots { // the newest first
		slot := &c.slots[(c.last+floodSlots-int64(i))%floodSlots]
		taken := min(n, *slot)
		*slot -= taken
		n -= taken
	}
}

// advance forgets what is older than an hour, and gives the sum of the rest. A clock that was set back forgets nothing.
func (c *floodCount) advance(now time.Time) (sum int) {
	slot := floodSlotOf(now)
	if slot-c.last >= floodSlots {
		c.slots = [floodSlots]int{}
		c.last = slot
	}
	for ; c.last < slot; c.last++ {
		c.slots[(c.last+1)%floodSlots] = 0
	}
	return c.sum()
}

func (c *floodCount) sum() (sum int) {
	for _, n := range c.slots {
		sum += n
	}
	return sum
}

// floodSlotOf gives the number of the slot of a time.
func floodSlotOf(t time.Time) int64 { return t.UnixNano() / int64(floodSlot) }
