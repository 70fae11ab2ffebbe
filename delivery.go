package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// How a received message comes into the folders of its recipients.

// Delivery says where a message goes.
type Delivery struct {
	Account string      // lower case
	Folder  string      // "INBOX" …; made if missing
	Flags   []imap.Flag // usually none
}

// junkOf names those who find a message in Junk, for the log.
func junkOf(to []Delivery) string {
	var accounts []string
	for _, target := range to {
		if target.Folder == junkName {
			accounts = append(accounts, target.Account)
		}
	}
	return strings.Join(accounts, " ")
}

// Deliver puts one received message into all the folders named, by hard link where it can. When it returns nil the
// message and its directory entries are on disk everywhere; on an error nothing is left anywhere. ErrOverQuota and
// ErrAboveQuota when one of the recipients has no room for it. Consumes in.
func (s *Store) Deliver(ctx context.Context, in *Incoming, to []Delivery) error {
	defer in.Discard()
	if err := ctx.Err(); err != nil {
		return err
	}
	settle, err := s.reserve(to, in.size)
	if err != nil {
		return err
	}
	added := false
	defer func() { settle(added) }()
	err = s.deliverAll(in, to)
	added = err == nil
	return err
}

// deliverAll delivers a message that there is room for.
func (s *Store) deliverAll(in *Incoming, to []Delivery) error {
	if err := in.finish(time.Time{}); err != nil {
		return diskError(err)
	}
	var done []delivered
	for i, target := range to {
		one, err := s.deliverOne(in, target, i == len(to)-1)
		if err != nil {
			undoDeliveries(done)
			return diskError(fmt.Errorf("delivering to %s: %w", target.Account, err))
		}
		done = append(done, one)
	}
	for _, one := range done {
		if err := s.syncDelivered(one.path); err != nil {
			undoDeliveries(done)
			return diskError(fmt.Errorf("delivering: %w", err))
		}
	}
	return nil
}

// reserve promises a message room in the maildrops of all its recipients, or in none.
func (s *Store) reserve(to []Delivery, size int64) (settle func(added bool), err error) {
	var promises []func(added bool)
	settle = func(added bool) {
		for _, done := range promises {
			done(added)
		}
	}
	for _, target := range to {
		if s.quota == nil || s.quota(target.Account) == (Quota{}) {
			continue
		}
		d, err := s.Maildrop(target.Account)
		if err == nil {
			var done func(added bool)
			done, err = d.reserve(Quota{size, 1})
			promises = append(promises, done)
			d.Release()
		}
		if err != nil {
			settle(false)
			return nil, fmt.Errorf("delivering to %s: %w", target.Account, err)
		}
	}
	return settle, nil
}

// syncDelivered puts the entry of a delivered message on disk. A session that has seen the message has moved it from new/
// to cur/, where its entry is to be found then.
func (s *Store) syncDelivered(path string) error {
	dir := filepath.Dir(path)
	if err := s.syncs.Sync(dir); err != nil {
		return err
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) || filepath.Base(dir) != "new" {
		return nil
	}
	return s.syncs.Sync(filepath.Join(filepath.Dir(dir), "cur"))
}

// delivered is one copy that has its name already.
type delivered struct {
	path   string
	folder *Maildrop
	dir    string
}

func undoDeliveries(done []delivered) {
	for _, one := range done {
		removeFile(one.path)
		if f := one.folder.loaded(one.dir); f != nil {
			f.poke()
			f.Release()
		}
		one.folder.watches.note(one.dir, MessagesGone)
	}
}

// deliverOne gives the message its name in one folder. The last target takes the file itself.
func (s *Store) deliverOne(in *Incoming, target Delivery, last bool) (delivered, error) {
	d, err := s.Maildrop(target.Account)
	if err != nil {
		return delivered{}, err
	}
	defer d.Release()
	if err := d.lockList(); err != nil {
		return delivered{}, err
	}
	dir, exists, err := d.findDir(target.Folder)
	if err == nil && !exists {
		err = d.makeFolder(dir, nil)
	}
	d.listMu.Unlock()
	if err != nil {
		return delivered{}, err
	}
	if len(target.Flags) > 0 {
		return d.deliverFlagged(in, target, dir, last)
	}
	base := withSizes(s.names.unique(), in.size, in.crlfSize)
	one := delivered{path: filepath.Join(d.dir, dir, "new", base), folder: d, dir: dir}
	if f := d.loaded(dir); f != nil {
		defer f.Release()
		return one, f.adoptDelivery(in, base, last)
	}
	if err := in.place(one.path, last); err != nil {
		return delivered{}, err
	}
	if f := d.loaded(dir); f != nil { // loaded meanwhile, perhaps without this file
		f.poke()
		f.Release()
	}
	d.watches.note(dir, MessagesNew)
	return one, nil
}

// deliverFlagged delivers with flags, for which the folder's keywords are needed.
func (d *Maildrop) deliverFlagged(in *Incoming, target Delivery, dir string, last bool) (delivered, error) {
	f, err := d.Open(target.Folder)
	if err != nil {
		return delivered{}, err
	}
	defer f.Release()
	name, err := f.adoptFlagged(in, target.Flags, last)
	if err != nil {
		return delivered{}, err
	}
	return delivered{path: filepath.Join(d.dir, dir, "cur", name), folder: d, dir: dir}, nil
}
