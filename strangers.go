package main

import (
	"net/netip"
	"sync"
	"time"
)

// What one address may do on port 25 (IPv6: one /64). A server that has mail for us stays far below; one that does not is asked
// to come again later, and never refused for good.
const (
	strangerConnections = 120 // new connections a minute
	strangerMessages    = 300 // messages a minute
	strangerRecipients  = 1000
	strangerUnknown     = 20               // recipients that are not here, until the address has to stay away
	strangerForgives    = 1                // recipients that are not here, and other mistakes, that are forgotten a minute
	strangerBlock       = 10 * time.Minute // how long it has to stay away

	tarpitFree  = 2                      // mistakes that cost nothing
	tarpitFirst = 250 * time.Millisecond // what each reply waits after one more, doubled with each
	tarpitMost  = 5 * time.Second        // and not more than this; clients wait minutes (RFC 5321 §4.5.3.2)
	tarpitDepth = 30                     // mistakes that are remembered

	strangerSpell   = 10 * time.Minute // refusals with shorter gaps than this are one spell, and one line in the log
	strangerLines   = 60               // of such lines a minute, in all
	strangerEntries = 4096             // addresses that are remembered
)

// bucket counts what happens, and forgets as many of it a minute as it may be told.
type bucket struct {
	level float64
	at    time.Time // when level was right
}

// drain gives what is left now. A clock that was set back forgets nothing.
func (b *bucket) drain(now time.Time, perMinute int) float64 {
	if gone := now.Sub(b.at); gone > 0 {
		b.level = max(0, b.level-gone.Minutes()*float64(perMinute))
	}
	b.at = now
	return b.level
}

// take counts one, unless a minute's worth has just been taken.
func (b *bucket) take(now time.Time, perMinute int) bool {
	if b.drain(now, perMinute)+1 > float64(perMinute) {
		return false
	}
	b.level++
	return true
}

// Strangers remembers what addresses on port 25 have done of late, and says what they may still do. Safe for concurrent use;
// its memory is bounded: of very many addresses those are forgotten that were quiet longest.
type Strangers struct {
	now func() time.Time

	mu    sync.Mutex
	seen  map[netip.Addr]*stranger // by throttlePrefix
	lines bucket
}

// stranger is one address.
type stranger struct {
	last                              time.Time // it did something
	connections, messages, recipients bucket
	mistakes, unknown                 bucket    // replies of 5xx; those of them to recipients that are not here
	blocked                           time.Time // until then it has to stay away
	refused                           time.Time // the last refusal of its spell
}

// NewStrangers gives an empty memory.
func NewStrangers(now func() time.Time) *Strangers {
	return &Strangers{now: now, seen: map[netip.Addr]*stranger{}}
}

// with lets f look at an address, a new one if need be.
func (s *Strangers) with(a netip.Addr, f func(one *stranger, now time.Time)) {
	key := throttlePrefix(a)
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.seen[key]
	if one == nil {
		if len(s.seen) >= strangerEntries {
			evict(s.seen, func(one *stranger) time.Time { return one.last })
		}
		one = new(stranger)
		s.seen[key] = one
	}
	one.last = now
	f(one, now)
}

// Connect counts a connection, or says in words why there may be none now.
func (s *Strangers) Connect(a netip.Addr) (reason string) {
	s.with(a, func(one *stranger, now time.Time) {
		switch {
		case now.Before(one.blocked):
			reason = "Your address has asked for too many people who are not here"
		case !one.connections.take(now, strangerConnections):
			reason = "Too many connections from your address within a minute"
		}
	})
	return reason
}

// Message counts a message, or says that it is one too many.
func (s *Strangers) Message(a netip.Addr) (ok bool) {
	s.with(a, func(one *stranger, now time.Time) { ok = one.messages.take(now, strangerMessages) })
	return ok
}

// Recipient counts a recipient, or says that it is one too many.
func (s *Strangers) Recipient(a netip.Addr) (ok bool) {
	s.with(a, func(one *stranger, now time.Time) { ok = one.recipients.take(now, strangerRecipients) })
	return ok
}

// Mistake counts a reply of 5xx.
func (s *Strangers) Mistake(a netip.Addr) {
	s.with(a, func(one *stranger, now time.Time) {
		one.mistakes.level = min(one.mistakes.drain(now, strangerForgives)+1, tarpitDepth)
	})
}

// Unknown counts a recipient that is not here, and says whether the address has to stay away now.
func (s *Strangers) Unknown(a netip.Addr) (blocked bool) {
	s.with(a, func(one *stranger, now time.Time) {
		if one.unknown.drain(now, strangerForgives); one.unknown.level < strangerUnknown {
			one.unknown.level++
		}
		if one.unknown.level > strangerUnknown-1 && !now.Before(one.blocked) {
			one.blocked = now.Add(strangerBlock)
		}
		blocked = now.Before(one.blocked)
	})
	return blocked
}

// Delay gives how long an address has to wait for each reply.
func (s *Strangers) Delay(a netip.Addr) (delay time.Duration) {
	s.with(a, func(one *stranger, now time.Time) {
		if n := int(one.mistakes.drain(now, strangerForgives)) - tarpitFree; n > 0 {
			delay = min(tarpitMost, tarpitFirst<<min(n-1, 10))
		}
	})
	return delay
}

// Tell says whether a refusal begins a spell, and is to be logged: a flood is not to fill the disk. It may be of any address.
func (s *Strangers) Tell(a netip.Addr) (tell bool) {
	s.with(a, func(one *stranger, now time.Time) {
		begins := one.refused.IsZero() || now.Sub(one.refused) >= strangerSpell
		one.refused = now
		tell = begins && s.lines.take(now, strangerLines)
	})
	return tell
}
