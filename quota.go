package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// What a maildrop holds, and the room that its quota leaves.
//
// Nothing of it is written anywhere. The directories tell it all: a file's name carries its size, and a directory's time
// says whether what was read from it is still so. Maildir++'s maildirsize would be one more write for each message, which
// wears an SD card, and is wrong as soon as a program that does not know it has touched the Maildir. So a look at the
// maildrop reads every directory once after a start, and later only those that have changed; of folders in memory it
// reads none. Between two looks the messages that we add ourselves are added up.
//
// Room is promised to a message before it gets its place, so messages that come at once cannot share the same room: our
// own additions never go beyond the quota. What other programs put into the Maildir counts from the next look on, at most
// lookEvery or lookShare times the duration of a look later. A refusal is always preceded by a look of its own; it may
// still come too early by the messages that are on their way at that moment, since a look may find those that have
// their place already and were promised it.

const (
	// lookEvery is the least time between two looks that no refusal asks for.
	lookEvery = time.Second
	// lookShare keeps such looks, however long they take, at one part in so many of the time.
	lookShare = 100
	// lookTries is how often a look begins anew because folders were renamed or deleted meanwhile.
	lookTries = 3
	// lookNames is how many names are read from a directory at once.
	lookNames = 1000
)

// usage is what is known of what a maildrop holds. It outlives the maildrop's time in memory.
type usage struct {
	looking sync.Mutex          // held during a look
	dirs    map[string]dirUsage // by path below the maildrop: "./cur"; covered by looking

	mu       sync.Mutex
	known    bool
	held     Quota // what the last look found, and what was added since it began
	added    Quota // since the last look began
	promised Quota // to messages on their way
	looked   time.Time
	took     time.Duration
	moves    int // folders renamed or deleted
}

// dirUsage is what a cur or new held when it was read.
type dirUsage struct {
	held   Quota
	time   int64 // the directory's modification time then, ns
	listed int64 // when, ns
}

// usageOf gives what is known of an account's maildrop. The lock is held.
func (s *Store) usageOf(account string) *usage {
	u := s.usages[account]
	if u == nil {
		u = &usage{dirs: make(map[string]dirUsage)}
		s.usages[account] = u
	}
	return u
}

// Limit is what the maildrop may hold; the zero value: anything.
func (d *Maildrop) Limit() Quota {
	if d.store.quota == nil {
		return Quota{}
	}
	return d.store.quota(d.account)
}

// Usage gives what the maildrop holds now.
func (d *Maildrop) Usage() (Quota, error) {
	d.usage.looking.Lock()
	defer d.usage.looking.Unlock()
	return d.look()
}

// NearlyFull says that less than a tenth of one of the limits is left.
func (d *Maildrop) NearlyFull() bool {
	limit := d.Limit()
	if limit == (Quota{}) || d.lookIfDue() != nil {
		return false
	}
	d.usage.mu.Lock()
	defer d.usage.mu.Unlock()
	held := d.usage.held
	return limit.Bytes > 0 && held.Bytes >= limit.Bytes-limit.Bytes/10 ||
		limit.Messages > 0 && held.Messages >= limit.Messages-limit.Messages/10
}

// Room says whether the maildrop of an account has room for a message of so many bytes: ErrOverQuota, or ErrAboveQuota
// when it will not have it however much is deleted. Nothing is promised.
func (s *Store) Room(account string, size int64) error {
	if s.quota == nil || s.quota(account) == (Quota{}) { // without a quota the maildrop need not be opened
		return nil
	}
	d, err := s.Maildrop(account)
	if err != nil {
		return err
	}
	defer d.Release()
	return d.room(Quota{size, 1}, (*usage).fits)
}

// Room is Store.Room for what is to come into this folder.
func (f *Folder) Room(more Quota) error { return f.drop.room(more, (*usage).fits) }

// reserve promises room: ErrOverQuota, ErrAboveQuota. done must be called when what it was for is in its place or has
// failed.
func (d *Maildrop) reserve(more Quota) (done func(added bool), err error) {
	promised := false
	err = d.room(more, func(u *usage, more, limit Quota) bool {
		if promised = u.fits(more, limit); promised {
			u.promised = u.promised.plus(more)
		}
		return promised
	})
	return func(added bool) {
		if promised {
			d.usage.settle(more, added)
		}
	}, err
}

// room asks take, under the usage's lock, whether there is room, and once more after a look when there is none.
func (d *Maildrop) room(more Quota, take func(u *usage, more, limit Quota) bool) error {
	limit := d.Limit()
	switch {
	case limit == (Quota{}):
		return nil
	case limit.Bytes > 0 && more.Bytes > limit.Bytes, limit.Messages > 0 && more.Messages > limit.Messages:
		return ErrAboveQuota
	}
	if err := d.lookIfDue(); err != nil {
		return err
	}
	ask := func() bool {
		d.usage.mu.Lock()
		defer d.usage.mu.Unlock()
		return take(d.usage, more, limit)
	}
	if ask() {
		return nil
	}
	if _, err := d.Usage(); err != nil {
		return err
	}
	if ask() {
		return nil
	}
	return ErrOverQuota
}

// fits says whether more finds room below the limit. What does not grow always does: a mailbox that is full may be put
// in order. mu is held.
func (u *usage) fits(more, limit Quota) bool {
	then := u.held.plus(u.promised).plus(more)
	return (more.Bytes <= 0 || limit.Bytes == 0 || then.Bytes <= limit.Bytes) &&
		(more.Messages <= 0 || limit.Messages == 0 || then.Messages <= limit.Messages)
}

// settle ends a promise.
func (u *usage) settle(more Quota, added bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.promised = u.promised.minus(more)
	if added {
		u.held, u.added = u.held.plus(more), u.added.plus(more)
	}
}

// disturb notes that folders were renamed or deleted: a look that is under way may have missed one or seen it twice.
func (u *usage) disturb() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.moves++
}

// lookIfDue looks when the last look is too long ago. Only the first look after a start is waited for.
func (d *Maildrop) lookIfDue() error {
	u := d.usage
	if known, due := u.due(); !due {
		return nil
	} else if !known {
		u.looking.Lock()
	} else if !u.looking.TryLock() {
		return nil
	}
	defer u.looking.Unlock()
	known, due := u.due() // somebody may have looked while we waited
	if !due {
		return nil
	}
	_, err := d.look()
	if err != nil && known {
		d.log.Warn("what the maildrop holds is not known anew", "error", err)
		return nil
	}
	return err
}

// due says whether anything is known, and whether it is time for a look.
func (u *usage) due() (known, due bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.known, !u.known || time.Since(u.looked) > max(lookEvery, lookShare*u.took)
}

// look counts what the maildrop holds. looking is held.
func (d *Maildrop) look() (found Quota, err error) {
	u := d.usage
	start := time.Now()
	for try := 1; ; try++ {
		u.mu.Lock()
		moves := u.moves
		u.added = Quota{}
		u.mu.Unlock()
		if found, err = d.countAll(); err != nil {
			err = fmt.Errorf("counting the mail: %w", err)
		}
		u.mu.Lock()
		if moves != u.moves && try < lookTries {
			u.mu.Unlock()
			continue
		}
		if err == nil {
			u.known, u.held = true, found.plus(u.added)
		}
		u.looked, u.took = time.Now(), time.Since(start)
		u.mu.Unlock()
		return found, err
	}
}

// countAll sums up the folders, and remembers what each directory holds.
func (d *Maildrop) countAll() (Quota, error) {
	folders, err := listFolderDirs(d.dir)
	if err != nil {
		return Quota{}, err
	}
	var sum Quota
	seen := make(map[string]dirUsage, 2*len(folders)+2)
	for _, dir := range append([]string{"."}, folders...) {
		if d.countLoaded(dir, seen) {
			continue
		}
		for _, sub := range [...]string{"cur", "new"} {
			key := dir + "/" + sub
			if seen[key], err = d.usage.dirs[key].now(filepath.Join(d.dir, dir, sub)); err != nil {
				return Quota{}, err
			}
		}
	}
	for _, one := range seen {
		sum = sum.plus(one.held)
	}
	d.usage.dirs = seen
	return sum, nil
}

// countLoaded puts what a folder in memory holds into seen; false when its directories must be read all the same. The
// folder does not stay in memory for it.
func (d *Maildrop) countLoaded(dir string, seen map[string]dirUsage) bool {
	d.mu.Lock()
	f := d.folders[dir]
	d.mu.Unlock()
	if f == nil {
		return false
	}
	if f.loading.Do(func() { f.loadErr = f.load() }); f.loadErr != nil {
		return false
	}
	f.mu.Lock()
	defer f.unlock()
	return f.usable() == nil && f.holds(dir, seen)
}

// holds puts what the folder's directories hold into seen; false when the size of a message is not known. The lock is
// held.
func (f *Folder) holds(dir string, seen map[string]dirUsage) bool {
	now := time.Now().UnixNano()
	cur, new := dirUsage{time: f.curTime, listed: now}, dirUsage{time: f.newTime, listed: now}
	for i := range f.msgs {
		m, in := &f.msgs[i], &cur
		if m.place == placeNew {
			in = &new
		}
		if m.stored < 0 {
			return false
		}
		in.held = in.held.plus(Quota{m.stored, 1})
	}
	seen[dir+"/cur"], seen[dir+"/new"] = cur, new
	return true
}

// keep remembers what a folder held that leaves memory, so that the next look need not read it. A look that is under way
// has nothing to learn from it.
func (u *usage) keep(f *Folder) {
	if known, _ := u.due(); !known || !u.looking.TryLock() {
		return
	}
	defer u.looking.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holds(f.dir, u.dirs)
}

// now gives what the directory holds now. It is read if it was changed since, or so shortly before it was read that its
// time proves nothing.
func (u dirUsage) now(path string) (dirUsage, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return dirUsage{}, nil
	}
	if err != nil {
		return dirUsage{}, err
	}
	changed := st.ModTime().UnixNano()
	if u.time == changed && u.listed-changed > int64(racyTime) {
		return u, nil
	}
	listed := time.Now().UnixNano()
	held, err := sumNames(path)
	return dirUsage{held, changed, listed}, err
}

// sumNames adds up the sizes in the names of a directory's files; a file whose name has none is looked at.
func sumNames(path string) (sum Quota, err error) {
	dir, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Quota{}, nil
	}
	if err != nil {
		return Quota{}, err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(lookNames)
		for _, name := range names {
			if name[0] == '.' {
				continue
			}
			base, _ := splitName(name)
			size, _ := baseSizes(base)
			if size < 0 {
				st, err := os.Lstat(filepath.Join(path, name))
				if err != nil { // gone meanwhile
					continue
				}
				size = st.Size()
			}
			sum = sum.plus(Quota{size, 1})
		}
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return Quota{}, err
		}
	}
}
