package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Mail from accounts elsewhere. The Collector looks into them again and again, by POP3 or IMAP, for as long as the appliance
// runs, and brings what is new into the maildrops here:
//
//	collect_file.go        which accounts there are: DATA/collect.toml
//	collect_dial.go        connections, TLS, what goes wrong in words
//	collect_pop3client.go  a session by POP3
//	collect_imapclient.go  a session by IMAP, which reads any mailbox
//	collect_seen.go        what has been fetched: DATA/collect/ID.seen
//	collect_take.go        one message: fetched, judged, delivered
//	collect_round.go       one look into an account
//	collect_status.go      how it went: DATA/collect/ID.json
//
// A message is deleted over there only when it is here with its directory entry and the journal says so. It is kept as it
// came: no field is put in front but those of the spam filter. A Received field would claim that the message came to us by
// SMTP, and would stand where filters look for who had brought it to the provider; Return-Path is the provider's, which was
// the last server to know it. Only an Authentication-Results field that claims to be ours is left out (RFC 8601 §5).

const (
	collectAtOnce = 4  // looks at a time
	collectIdle   = 50 // connections that wait for news (IDLE); further accounts are looked into every few minutes
)

// CollectorConfig is what OpenCollector needs.
type CollectorConfig struct {
	File     string // DATA/collect.toml
	Dir      string // DATA/collect, made when it is needed
	Accounts *Accounts
	Store    *Store
	Hostname string
	MaxSize  int64 // bytes of a message, 0: DefaultMaxSize

	// Judge says what shall become of a message that was collected for an account; nil: it goes where the source says. A
	// verdict that refuses puts it into Junk: there is nobody to refuse it to.
	Judge func(ctx context.Context, account string, message io.ReaderAt, size int64) (Verdict, error)
	// Tell delivers a message of ours to a person here.
	Tell func(account string, message []byte) error

	Dialer outsideDialer
	Log    *slog.Logger
	Now    func() time.Time // nil: time.Now
}

// Collector is safe for concurrent use.
type Collector struct {
	cfg  CollectorConfig
	book collectBook
	wake chan struct{}
	slot chan struct{} // one token for each look

	editing sync.Mutex // held by whoever adds or removes, before mu

	mu      sync.Mutex
	running bool
	jobs    map[string]*collectJob // by id, while it runs
	idling  int
	trouble string // with the file, as last logged
}

// collectJob is one account elsewhere while the collector runs. Covered by Collector.mu.
type collectJob struct {
	source CollectSource
	status CollectStatus
	next   time.Time
	anyway bool               // also what could not be had so often
	cancel context.CancelFunc // of the look that is under way; nil: none is
	done   chan struct{}      // closed at its end
	poke   chan struct{}      // ends an IDLE
	leaves bool               // it is being removed

	unsaved bool // its status has counted more than is on disk
}

// OpenCollector gives a collector that does nothing before Run, but that changes can be made with.
func OpenCollector(cfg CollectorConfig) *Collector {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxSize == 0 {
		cfg.MaxSize = DefaultMaxSize
	}
	return &Collector{cfg: cfg, book: collectBook{file: cfg.File}, wake: make(chan struct{}, 1),
		slot: make(chan struct{}, collectAtOnce), jobs: map[string]*collectJob{}}
}

// Run collects until ctx ends. All connections are closed when it returns.
func (c *Collector) Run(ctx context.Context) {
	c.mu.Lock()
	c.running = true
	c.mu.Unlock()
	var looks sync.WaitGroup
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		if next := c.launch(ctx, &looks); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(0, next.Sub(c.cfg.Now())))
		}
		select {
		case <-ctx.Done():
		case <-c.wake:
		case <-timer.C:
		}
	}
	looks.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = false
	for id, job := range c.jobs {
		if job.unsaved {
			c.writeStatus(id, &job.status)
			job.unsaved = false
		}
	}
}

// hurry makes Run look what there is to do.
func (c *Collector) hurry() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// launch starts the looks that are due, as far as there is room, and gives the time of the next one; zero for none.
func (c *Collector) launch(ctx context.Context, looks *sync.WaitGroup) (next time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refresh()
	var waiting []*collectJob
	for _, job := range c.jobs {
		if job.cancel == nil && !job.leaves {
			waiting = append(waiting, job)
		}
	}
	slices.SortFunc(waiting, func(a, b *collectJob) int {
		return cmp.Or(a.next.Compare(b.next), cmp.Compare(a.source.name(), b.source.name()))
	})
	now := c.cfg.Now()
	for _, job := range waiting {
		if job.next.After(now) {
			return job.next
		}
		select {
		case c.slot <- struct{}{}:
		default:
			return time.Time{} // the end of a look wakes us
		}
		lookCtx, cancel := context.WithCancel(ctx)
		job.cancel, job.done = cancel, make(chan struct{})
		source, anyway := job.source, job.anyway
		job.anyway = false
		looks.Go(func() { c.look(lookCtx, job, source, anyway) })
	}
	return time.Time{}
}

// refresh brings the jobs in step with the file. The lock is held.
func (c *Collector) refresh() {
	sources, err := c.book.list()
	if err != nil {
		if text := err.Error(); text != c.trouble {
			c.cfg.Log.Error("what is collected stays as it was", "err", err)
			c.trouble = text
		}
		return
	}
	c.trouble = ""
	listed := map[string]bool{}
	for _, s := range sources {
		id := s.id()
		listed[id] = true
		job := c.jobs[id]
		if job == nil {
			job = &collectJob{source: s, status: c.readStatus(id), poke: make(chan struct{}, 1)}
			if job.next = job.status.Next; job.next.Sub(c.cfg.Now()) > collectGapLongest { // the clock was wrong then
				job.next = time.Time{}
			}
			c.jobs[id] = job
		}
		if job.source != s {
			job.source = s
			job.status.mended()
			job.next = time.Time{}
			job.stop()
		}
	}
	for id, job := range c.jobs {
		if !listed[id] && !job.leaves {
			job.stop()
			if job.cancel == nil {
				delete(c.jobs, id)
			}
		}
	}
}

// stop ends a look that is under way.
func (j *collectJob) stop() {
	if j.cancel != nil {
		j.cancel()
	}
}

// look is one look into an account, or many over one connection where that waits for news.
func (c *Collector) look(ctx context.Context, job *collectJob, source CollectSource, anyway bool) {
	began := c.cfg.Now()
	r := &collectRound{c: c, job: job, source: source, anyway: anyway, holds: true}
	more, err := r.run(ctx)
	if r.holds {
		<-c.slot
	}
	c.mu.Lock()
	if ctx.Err() == nil { // what a removal or a shutdown has broken off tells nothing
		c.settle(job, &source, began, more, err)
	}
	job.status.Waiting = false
	job.cancel()
	job.cancel = nil
	close(job.done)
	c.mu.Unlock()
	c.hurry()
}

// Check says in one sentence why a source cannot be added; its password may be missing. It gives it the options that it would
// have then, and tells of those that it has now: before has no host where it is not there.
func (c *Collector) Check(s *CollectSource, change CollectChange) (before CollectSource, err error) {
	if s.Password == "" {
		s.Password = "asked for later"
		defer func() { s.Password = "" }()
	}
	if err := c.normalise(s); err != nil {
		return before, err
	}
	sources, err := c.book.list()
	if err != nil {
		return before, err
	}
	at, err := s.renew(sources, change)
	if at >= 0 {
		before = sources[at]
	}
	return before, err
}

// normalise brings a source into its normal form, and says in one sentence why that cannot be.
func (c *Collector) normalise(s *CollectSource) error {
	if _, err := s.check(); err != nil {
		return err
	}
	user, err := c.cfg.Accounts.User(s.Account)
	if err != nil {
		return err
	}
	s.Account = user.Address
	return nil
}

// Add stores a source, whose login was tried; changed says that it was there, and is another one now: it has the options that
// it had, but for those that change names. What was fetched from it before is not fetched again.
func (c *Collector) Add(s CollectSource, change CollectChange) (changed bool, err error) {
	c.editing.Lock()
	defer c.editing.Unlock()
	if err := c.normalise(&s); err != nil {
		return false, err
	}
	err = c.book.change(func(sources []CollectSource) ([]CollectSource, error) {
		at, err := s.renew(sources, change)
		if err != nil {
			return nil, err
		}
		if changed = at >= 0; changed {
			sources[at] = s
			return sources, nil
		}
		if len(sources) >= maxCollectSources {
			return nil, fmt.Errorf("mail is collected from %d accounts already, and more cannot be", maxCollectSources)
		}
		return append(sources, s), nil
	})
	if err != nil {
		return false, err
	}
	c.again(&s)
	return changed, nil
}

// again lets a source be looked into soon, whatever went wrong before.
func (c *Collector) again(s *CollectSource) {
	c.mu.Lock()
	if job := c.jobs[s.id()]; job != nil {
		job.status.mended()
		job.next, job.anyway = time.Time{}, true
		select {
		case job.poke <- struct{}{}:
		default:
		}
	}
	status := c.readStatus(s.id())
	if status.Reason != "" {
		status.mended()
		c.writeStatus(s.id(), &status)
	}
	c.mu.Unlock()
	c.hurry()
}

// choose gives the sources that are meant: those of an account, of a server in it and of a login there; "" for all.
func choose(sources []CollectSource, account, host, login string) []CollectSource {
	host = normalDomain(host)
	return slices.DeleteFunc(sources, func(s CollectSource) bool {
		return account != "" && s.Account != account || host != "" && s.Host != host || login != "" && s.Login != login
	})
}

// errNothingCollected says that no source fits.
func errNothingCollected(account, host, login string) error {
	if account == "" {
		return errors.New("nothing is collected: `appliance collect add` begins that")
	}
	return fmt.Errorf("nothing is collected for %s: see `appliance collect list`", strings.Join(strings.Fields(account+" "+host+" "+login), " "))
}

// Remove takes one source out, with what is known of its messages. The connection is closed when it returns.
func (c *Collector) Remove(account, host, login string) (CollectSource, error) {
	c.editing.Lock()
	defer c.editing.Unlock()
	var s CollectSource
	err := c.book.change(func(sources []CollectSource) ([]CollectSource, error) {
		fit := choose(slices.Clone(sources), account, host, login)
		switch {
		case len(fit) == 0:
			return nil, errNothingCollected(account, host, login)
		case len(fit) > 1:
			return nil, fmt.Errorf("several accounts at %s are collected for %s: add the login", fit[0].Host, account)
		}
		s = fit[0]
		return slices.DeleteFunc(sources, func(other CollectSource) bool { return other == s }), nil
	})
	if err != nil {
		return s, err
	}
	return s, c.leave(&s)
}

// RemoveAccount takes all sources of an account out that exists no more: its passwords shall not stay, and its mail shall
// not be fetched for whoever gets the address next.
func (c *Collector) RemoveAccount(account string) error {
	c.editing.Lock()
	defer c.editing.Unlock()
	sources, err := c.book.list()
	gone := choose(slices.Clone(sources), account, "", "")
	if err != nil || len(gone) == 0 {
		return err
	}
	err = c.book.change(func(sources []CollectSource) ([]CollectSource, error) {
		return slices.DeleteFunc(sources, func(s CollectSource) bool { return s.Account == account }), nil
	})
	for i := range gone {
		err = errors.Join(err, c.leave(&gone[i]))
	}
	return err
}

// RenameAccount lets the sources of an account be those of its new address. What was fetched from them stays known.
func (c *Collector) RenameAccount(account, to string) error {
	c.editing.Lock()
	defer c.editing.Unlock()
	sources, err := c.book.list()
	old := choose(slices.Clone(sources), account, "", "")
	if err != nil || len(old) == 0 {
		return err
	}
	c.mu.Lock()
	for i := 0; i < len(old); i++ { // in the end, none of them is looked into any more as long as the lock is held
		if c.jobs[old[i].id()] != nil {
			c.endJob(old[i].id())
			i = -1
		}
	}
	for i := range old {
		err = errors.Join(err, c.keepSeen(old[i], to))
	}
	err = errors.Join(err, c.book.change(func(sources []CollectSource) ([]CollectSource, error) {
		for i := range sources {
			if sources[i].Account == account {
				sources[i].Account = to
			}
		}
		return sources, nil
	}))
	c.mu.Unlock()
	c.hurry()
	return err
}

// keepSeen lets what is known of a source be known of the one that it is for another account.
func (c *Collector) keepSeen(s CollectSource, to string) error {
	from := s.id()
	s.Account = to
	for _, suffix := range [...]string{seenSuffix, statusSuffix} {
		err := os.Rename(filepath.Join(c.cfg.Dir, from+suffix), filepath.Join(c.cfg.Dir, s.id()+suffix))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("keeping what was collected: %w", err)
		}
	}
	return nil
}

// leave ends the look into a source that was taken out, and deletes what was kept about it.
func (c *Collector) leave(s *CollectSource) error {
	id := s.id()
	c.letGo(id)
	for _, suffix := range [...]string{seenSuffix, statusSuffix} {
		if err := removeFile(filepath.Join(c.cfg.Dir, id+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forgetting what was collected: %w", err)
		}
	}
	return nil
}

// letGo ends the look into a source, and waits for that.
func (c *Collector) letGo(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endJob(id)
}

// endJob is letGo with the lock held, but while it waits.
func (c *Collector) endJob(id string) {
	job := c.jobs[id]
	if job == nil {
		return
	}
	job.leaves = true
	job.stop()
	if job.cancel != nil {
		done := job.done
		c.mu.Unlock()
		<-done
		c.mu.Lock()
	}
	delete(c.jobs, id)
}

// LookNow looks into the sources that are meant at once, also where that failed; running is false when that has to wait for
// the start of the appliance.
func (c *Collector) LookNow(account, host, login string) (n int, running bool, err error) {
	sources, err := c.book.list()
	if err != nil {
		return 0, false, err
	}
	fit := choose(sources, account, host, login)
	if len(fit) == 0 {
		return 0, false, errNothingCollected(account, host, login)
	}
	for i := range fit {
		c.again(&fit[i])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(fit), c.running, nil
}

// CollectReport is a source and how it goes, without its password.
type CollectReport struct {
	CollectSource
	CollectStatus
}

// List gives the sources of an account, "" for all.
func (c *Collector) List(account string) ([]CollectReport, error) {
	sources, err := c.book.list()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []CollectReport
	for _, s := range choose(sources, account, "", "") {
		report := CollectReport{CollectSource: s}
		report.Password = ""
		if job := c.jobs[s.id()]; job != nil {
			report.CollectStatus = job.status
			if report.Next = job.next; job.cancel != nil {
				report.Next = time.Time{}
			}
		} else {
			report.CollectStatus = c.readStatus(s.id())
		}
		list = append(list, report)
	}
	return list, nil
}
