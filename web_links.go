package main

import (
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"sync"
	"time"
)

// Links that set up a device. They live in memory alone, by the hash of their token; a restart ends them.

const (
	deviceLinkTime    = 30 * time.Minute // from its making to its use
	deviceProfileTime = 5 * time.Minute  // for a profile to be fetched, once it is made
	deviceProfileGets = 3                // systems fetch it once more to look what it is
	deviceLinkCap     = 1000             // in all
	deviceAccountCap  = 10               // of one person
)

// deviceLink is a link: a fresh one, with which a device may get a password; or one that was used, with its profile.
type deviceLink struct {
	account string
	device  string
	proof   [sha256.Size]byte // of the password of the account: a link ends with it
	until   time.Time
	profile []byte // nil: a fresh one
	gets    int    // how often the profile may still be fetched
}

// deviceLinks is all links. Safe for concurrent use.
type deviceLinks struct {
	now func() time.Time
	mu  sync.Mutex
	all map[[sha256.Size]byte]deviceLink
}

func newDeviceLinks(now func() time.Time) *deviceLinks {
	return &deviceLinks{now: now, all: map[[sha256.Size]byte]deviceLink{}}
}

// add keeps a link for a time and gives its token. Where there are too many, the oldest ends.
func (l *deviceLinks) add(link deviceLink, life time.Duration) (token string) {
	token = rand.Text()
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for id, other := range l.all {
		if !now.Before(other.until) {
			delete(l.all, id)
		}
	}
	l.makeRoom(deviceAccountCap, func(other *deviceLink) bool { return other.account == link.account })
	l.makeRoom(deviceLinkCap, func(*deviceLink) bool { return true })
	link.until = now.Add(life)
	l.all[sha256.Sum256([]byte(token))] = link
	return token
}

// makeRoom ends the link that ends first of those that count, where there are as many as may be. The lock is held.
func (l *deviceLinks) makeRoom(limit int, counts func(*deviceLink) bool) {
	var ids [][sha256.Size]byte
	for id, link := range l.all {
		if counts(&link) {
			ids = append(ids, id)
		}
	}
	if len(ids) >= limit {
		delete(l.all, slices.MinFunc(ids, func(a, b [sha256.Size]byte) int { return l.all[a].until.Compare(l.all[b].until) }))
	}
}

// find gives a fresh link.
func (l *deviceLinks) find(token string) (deviceLink, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	link, ok := l.all[sha256.Sum256([]byte(token))]
	return link, ok && link.profile == nil && l.now().Before(link.until)
}

// take gives a fresh link, and nobody else gets it again.
func (l *deviceLinks) take(token string) (deviceLink, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := sha256.Sum256([]byte(token))
	link, ok := l.all[id]
	if !ok || link.profile != nil || !l.now().Before(link.until) {
		return deviceLink{}, false
	}
	delete(l.all, id)
	return link, true
}

// giveBack makes a link that was taken in vain a fresh one again.
func (l *deviceLinks) giveBack(token string, link deviceLink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all[sha256.Sum256([]byte(token))] = link
}

// fetch gives the profile of a link that was used, as often as that may be.
func (l *deviceLinks) fetch(token string) ([]byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := sha256.Sum256([]byte(token))
	link, ok := l.all[id]
	if !ok || link.profile == nil || !l.now().Before(link.until) {
		return nil, false
	}
	if link.gets--; link.gets <= 0 {
		delete(l.all, id)
	} else {
		l.all[id] = link
	}
	return link.profile, true
}
