package main

import (
	"cmp"
	"net/netip"
	"sync"
	"time"
)

// FloodLimit bounds to how many addresses elsewhere one person may write within an hour: more than a family needs and less
// than a spammer with a stolen password does. Safe for concurrent use; nil bounds nothing.
type FloodLimit struct {
	perHour int
	// exceeded is told, without locks held and at most once a day, of somebody who has reached the limit.
	exceeded func(FloodReport)
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
	floodPeople  = 1000 // of whom it is kept that they have sent nothing
)

// FloodSender is who sends, and from where.
type FloodSender struct {
	Identity
	Remote netip.Addr // not valid: unknown
}

// FloodReport tells of somebody who has reached the limit.
type FloodReport struct {
	Sender  FloodSender // of the recipient that was one too many
	PerHour int
	Shares  []FloodShare // the largest first
}

// FloodShare is how many recipients one password has had within the hour.
type FloodShare struct {
	Via        string // as in Identity
	Recipients int
}

// floodCount is what one person has sent.
type floodCount struct {
	by   map[string]*[floodSlots]int // with each password, as in Identity.Via
	last int64                       // number of the newest slot, counted from the epoch
	told time.Time                   // when exceeded was told
}

// NewFloodLimit makes a limit of perHour recipients.
func NewFloodLimit(perHour int, exceeded func(FloodReport), now func() time.Time) *FloodLimit {
	return &FloodLimit{perHour: perHour, exceeded: exceeded, now: now, people: map[string]*floodCount{}}
}

// PerHour is the limit.
func (l *FloodLimit) PerHour() int { return l.perHour }

// Take counts one recipient, or says that it is one too many.
func (l *FloodLimit) Take(from FloodSender) bool {
	if l == nil {
		return true
	}
	now := l.now()
	l.mu.Lock()
	c := l.people[from.Account]
	if c == nil {
		l.makeRoom(now)
		c = &floodCount{by: map[string]*[floodSlots]int{}}
		l.people[from.Account] = c
	}
	sum := c.advance(now)
	ok := sum < l.perHour
	if ok {
		c.slots(from.Via)[c.last%floodSlots]++
		l.changed()
	}
	tell := !ok && (c.told.IsZero() || now.Sub(c.told) >= floodTellGap)
	if tell {
		c.told = now
	}
	report := FloodReport{Sender: from, PerHour: l.perHour, Shares: c.shares()}
	l.mu.Unlock()
	if tell {
		l.write()
		l.exceeded(report)
	}
	return ok
}

// makeRoom forgets those who have sent nothing within the hour, where there are very many. The lock is held.
func (l *FloodLimit) makeRoom(now time.Time) {
	if len(l.people) < floodPeople {
		return
	}
	for account, c := range l.people {
		if c.advance(now) == 0 && now.Sub(c.told) >= floodTellGap {
			delete(l.people, account)
		}
	}
}

// GiveBack takes back n recipients of a message that was not sent after all.
func (l *FloodLimit) GiveBack(who Identity, n int) {
	if l == nil || n == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.people[who.Account]
	if c == nil || c.by[who.Via] == nil {
		return
	}
	c.advance(l.now())
	l.changed()
	slots := c.slots(who.Via)
	for i := range slots { // the newest first
		slot := &slots[(c.last+floodSlots-int64(i))%floodSlots]
		taken := min(n, *slot)
		*slot -= taken
		n -= taken
	}
}

// advance forgets what is older than an hour, and gives the sum of the rest. A clock that was set back forgets nothing.
func (c *floodCount) advance(now time.Time) (sum int) {
	slot := floodSlotOf(now)
	if slot-c.last >= floodSlots {
		clear(c.by)
		c.last = slot
	}
	for ; c.last < slot; c.last++ {
		for _, slots := range c.by {
			slots[(c.last+1)%floodSlots] = 0
		}
	}
	for via, slots := range c.by {
		n := floodSum(slots)
		if n == 0 {
			delete(c.by, via)
		}
		sum += n
	}
	return sum
}

// slots gives the counts of one password.
func (c *floodCount) slots(via string) *[floodSlots]int {
	slots := c.by[via]
	if slots == nil {
		slots = new([floodSlots]int)
		c.by[via] = slots
	}
	return slots
}

// shares gives what each password has had, the largest first.
func (c *floodCount) shares() []FloodShare {
	var shares []FloodShare
	for via, slots := range c.by {
		if n := floodSum(slots); n > 0 {
			shares = append(shares, FloodShare{via, n})
		}
	}
	sortFunc(shares, func(a, b FloodShare) int {
		return cmp.Or(cmp.Compare(b.Recipients, a.Recipients), cmp.Compare(a.Via, b.Via))
	})
	return shares
}

// floodSum is how many recipients there are within the hour.
func floodSum(slots *[floodSlots]int) (sum int) {
	for _, n := range slots {
		sum += n
	}
	return sum
}

// floodSlotOf gives the number of the slot of a time.
func floodSlotOf(t time.Time) int64 { return t.UnixNano() / int64(floodSlot) }
