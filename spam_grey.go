package main

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/emersion/go-msgauth/authres"
)

// Greylisting: whoever is a stranger is asked to come again in some minutes, as every mail server does by itself and most
// senders of spam do not.
const (
	greyName = "greylist"

	greyWait   = 5 * time.Minute     // from the first try until it is taken
	greyWindow = 2 * 24 * time.Hour  // until when it must be tried again
	greyKeep   = 60 * 24 * time.Hour // how long whoever came again is no stranger
	greySave   = 10 * time.Minute    // how often it is written
	maxGrey    = 30_000              // of what is remembered
	greyLimit  = 1 << 20             // octets of a file that could be ours

	greylistWords = "This server does not know you yet. Please try again in five minutes; mail servers do that by themselves"
)

// What is remembered of a key.
const (
	greyTried  = 1 // it was asked to come again then
	greyPassed = 2 // it came again, or never had to
)

// greylist remembers who has tried. Safe for concurrent use. Losing some of it delays some mail, and no more: it is written
// now and then, without waiting for the disk.
type greylist struct {
	path string
	log  *slog.Logger
	now  func() time.Time

	mu    sync.Mutex
	seen  *memory
	timer *time.Timer // the next writing; nil: nothing has changed
}

// openGreylist reads what is remembered. A damaged file is none.
func openGreylist(dir string, log *slog.Logger, now func() time.Time) *greylist {
	g := &greylist{path: filepath.Join(dir, greyName), log: log, now: now, seen: newMemory(maxGrey)}
	text, err := readBounded(g.path, greyLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return g
	}
	if err == nil && !g.parse(text) {
		err = errLearnedDamaged
	}
	if err != nil {
		log.Warn("who has sent mail before is forgotten: the greylist cannot be read", "path", g.path, "error", err)
		g.seen = newMemory(maxGrey)
	}
	return g
}

func (g *greylist) parse(text []byte) bool {
	if len(text) < 4 {
		return false
	}
	text, sum := text[:len(text)-4], binary.LittleEndian.Uint32(text[len(text)-4:])
	if crc32.ChecksumIEEE(text) != sum {
		return false
	}
	rest, ok := g.seen.parse(text)
	return ok && len(rest) == 0
}

// refuses says whether a message is from a stranger who is to come again. A stranger is whose network has not sent for that
// sender before, whom no recipient knows, and whose domain, if it is shown to be from there, has not sent before.
func (g *greylist) refuses(j *spamJudgment) bool {
	l := j.filter.learned
	network := greyNetwork(j.mail.Remote).String()
	sender := l.hash("grey sender", network, j.mail.From)
	domain := uint64(0)
	if j.vouched && j.findings.DMARC.Result == authres.ResultPass {
		domain = l.hash("grey domain", organisation(normalDomain(j.author.Domain)))
	}
	triplets := make([]uint64, len(j.mail.Rcpts))
	for i, rcpt := range j.mail.Rcpts {
		triplets[i] = l.hash("grey triplet", network, j.mail.From, keyOf(normalAddress(rcpt)))
	}
	known := false
	for _, account := range j.mail.Accounts {
		known = known || j.authored && l.knows(account, j.author)&(knownWritten|knownWanted) != 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := minutes(g.now())
	known = known || g.passed(sender, now) || domain != 0 && g.passed(domain, now)
	if !known && !g.waited(triplets, now) {
		g.save()
		return true
	}
	g.seen.set(sender, memo{now, greyPassed})
	if domain != 0 {
		g.seen.set(domain, memo{now, greyPassed})
	}
	g.save()
	return false
}

// passed says whether a key has come through lately.
func (g *greylist) passed(key uint64, now uint32) bool {
	one := g.seen.memos[key]
	return one.what == greyPassed && since(one, now) < uint32(greyKeep/time.Minute)
}

// waited says whether one of the triplets has been tried long enough ago, and not too long. Those that are new are noted.
func (g *greylist) waited(triplets []uint64, now uint32) (waited bool) {
	for _, key := range triplets {
		one := g.seen.memos[key]
		age := since(one, now)
		switch {
		case one.what != greyTried || age > uint32(greyWindow/time.Minute):
			g.seen.set(key, memo{now, greyTried})
		case age >= uint32(greyWait/time.Minute):
			waited = true
		}
	}
	return waited
}

// since gives how many minutes ago a memo was made. A clock that was set back makes it very old.
func since(one memo, now uint32) uint32 { return now - one.when }

// greyNetwork gives what counts as one client: who has many machines sends the second time from another.
func greyNetwork(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 24
	}
	return netip.PrefixFrom(addr, bits).Masked()
}

// save writes after a while; the lock is held.
func (g *greylist) save() {
	if g.timer == nil {
		g.timer = time.AfterFunc(greySave, g.write)
	}
}

func (g *greylist) write() {
	g.mu.Lock()
	g.timer = nil
	text := g.seen.append(nil)
	g.mu.Unlock()
	text = binary.LittleEndian.AppendUint32(text, crc32.ChecksumIEEE(text))
	err := os.WriteFile(g.path+".tmp", text, 0o600)
	if err == nil {
		err = renameFile(g.path+".tmp", g.path)
	}
	if err != nil {
		g.log.Warn("the greylist cannot be written", "error", err)
	}
}

// close writes what has changed.
func (g *greylist) close() {
	g.mu.Lock()
	pending := g.timer != nil && g.timer.Stop()
	g.mu.Unlock()
	if pending {
		g.write()
	}
}
