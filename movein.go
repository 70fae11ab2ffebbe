package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// Moving in: all folders of an account elsewhere are copied here once, with flags, dates and keywords, and stay over there. It
// goes on after a cut or a restart where it was: each folder has a journal as collecting has, and what lies here already, by its
// Message-ID, is not copied again. movein_file.go keeps it, movein_copy.go copies, movein_find.go finds the server.

const (
	movesAtOnce = 2
	moveSave    = 2 * time.Second // between two writes of how far it has come
)

// moveGaps are the times between tries; the last one repeats.
var moveGaps = [...]time.Duration{time.Second, 10 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}

// MoverConfig is what NewMover needs.
type MoverConfig struct {
	Dir      string // DATA/movein, made when it is needed
	Accounts *Accounts
	Store    *Store
	Hostname string
	MaxSize  int64 // bytes of a message, 0: DefaultMaxSize

	Tell     func(account string, message []byte) error // delivers a message of ours; nil: nobody is told
	Dialer   outsideDialer
	Resolver *Resolver // nil: no SRV records are asked for
	Log      *slog.Logger
	Now      func() time.Time // nil: time.Now
}

// Mover moves people in, one account elsewhere a person. Safe for concurrent use.
type Mover struct {
	cfg       MoverConfig
	collector *Collector // fetches and delivers, and is never run
	slot      chan struct{}

	mu    sync.Mutex
	ctx   context.Context // of Run; nil: it does not run
	works map[string]*moveWork
	group sync.WaitGroup
}

// moveWork is a move that runs. Its job is covered by Mover.mu.
type moveWork struct {
	job    MoveJob
	cancel context.CancelFunc
	done   chan struct{}
	saved  time.Time
}

// NewMover gives a mover that does nothing before Run, but that moves can be begun with.
func NewMover(cfg MoverConfig) *Mover {
	collector := OpenCollector(CollectorConfig{Accounts: cfg.Accounts, Store: cfg.Store, Hostname: cfg.Hostname, MaxSize: cfg.MaxSize,
		Dialer: cfg.Dialer, Log: cfg.Log, Now: cfg.Now})
	cfg.MaxSize, cfg.Log, cfg.Now = collector.cfg.MaxSize, collector.cfg.Log, collector.cfg.Now // with what stands for nothing
	return &Mover{cfg: cfg, collector: collector, slot: make(chan struct{}, movesAtOnce), works: map[string]*moveWork{}}
}

// Run goes on with all moves until ctx ends.
func (m *Mover) Run(ctx context.Context) {
	m.mu.Lock()
	m.ctx = ctx
	for _, job := range m.loadAll() {
		if job.State == MoveRunning {
			m.launch(*job)
		}
	}
	m.mu.Unlock()
	<-ctx.Done()
	m.group.Wait()
	m.mu.Lock()
	m.ctx = nil
	m.mu.Unlock()
}

// launch begins to work. The lock is held, and Run runs.
func (m *Mover) launch(job MoveJob) {
	ctx, cancel := context.WithCancel(m.ctx)
	w := &moveWork{job: job, cancel: cancel, done: make(chan struct{})}
	m.works[job.Account] = w
	m.group.Go(func() {
		m.work(ctx, w)
		cancel()
		m.mu.Lock()
		if m.works[job.Account] == w {
			delete(m.works, job.Account)
		}
		m.mu.Unlock()
		close(w.done)
	})
}

// errMoveRuns says that somebody has a move that is not over.
func errMoveRuns(job *MoveJob) error {
	return fmt.Errorf("%s moves in from %s at %s already; `appliance movein stop %s` ends that", job.Account, job.Server.Login, job.Server.Host, job.Account)
}

// Start begins to move somebody in from an account, whose login was tried. One that has failed goes on with the password that is
// right, where it was; another one begins anew.
func (m *Mover) Start(account string, server OutsideServer) (MoveJob, error) {
	user, err := m.cfg.Accounts.User(account)
	if err != nil {
		return MoveJob{}, err
	}
	if _, err := server.check(); err != nil {
		return MoveJob{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before, err := m.load(user.Address)
	if err != nil {
		return MoveJob{}, err
	}
	job := MoveJob{Account: user.Address, Server: server, State: MoveRunning, Began: m.cfg.Now().UTC().Truncate(time.Second)}
	if w := m.works[user.Address]; w != nil || before != nil && before.State == MoveRunning {
		return MoveJob{}, errMoveRuns(before)
	}
	if before != nil && before.State == MoveFailed {
		if before.Server.Host == server.Host && before.Server.Login == server.Login {
			job.Folders, job.Began = before.Folders, before.Began
		} else if err := m.dropJournals(m.moveDir(user.Address)); err != nil {
			return MoveJob{}, err
		}
	}
	if err := m.save(&job); err != nil {
		return MoveJob{}, err
	}
	m.cfg.Log.Info("moving in", "account", job.Account, "host", server.Host)
	if m.ctx != nil {
		m.launch(job)
	}
	return job.public(), nil
}

// public is a job without its password.
func (j *MoveJob) public() MoveJob {
	p := *j
	p.Folders = slices.Clone(j.Folders)
	p.Password, p.Server.Password = "", ""
	return p
}

// Stop ends somebody's move: what is here stays, and the password is forgotten.
func (m *Mover) Stop(account string) (MoveJob, error) {
	m.halt(account)
	m.mu.Lock()
	defer m.mu.Unlock()
	job, err := m.load(account)
	switch {
	case err != nil:
		return MoveJob{}, err
	case job == nil || job.State != MoveRunning && job.State != MoveFailed:
		return MoveJob{}, fmt.Errorf("%s does not move in from anywhere", account)
	}
	job.State, job.Reason, job.Ended, job.Next = MoveStopped, "", m.cfg.Now().UTC().Truncate(time.Second), time.Time{}
	return job.public(), m.save(job)
}

// halt waits until nothing works on somebody's move.
func (m *Mover) halt(account string) {
	m.mu.Lock()
	w := m.works[account]
	m.mu.Unlock()
	if w != nil {
		w.cancel()
		<-w.done
	}
}

// Status gives how the moves go: somebody's, or all for "".
func (m *Mover) Status(account string) (list []MoveJob) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, job := range m.loadAll() {
		if account != "" && job.Account != account {
			continue
		}
		if w := m.works[job.Account]; w != nil {
			job = &w.job
		}
		list = append(list, job.public())
	}
	sortFunc(list, func(a, b MoveJob) int { return cmp.Compare(a.Account, b.Account) })
	return list
}

// RemoveAccount forgets the move of an account that exists no more, with its password.
func (m *Mover) RemoveAccount(account string) error {
	m.halt(account)
	if err := os.RemoveAll(m.moveDir(account)); err != nil {
		return fmt.Errorf("forgetting a move: %w", err)
	}
	return nil
}

// RenameAccount lets a move be that of an account's new address.
func (m *Mover) RenameAccount(account, to string) error {
	m.halt(account)
	m.mu.Lock()
	defer m.mu.Unlock()
	job, err := m.load(account)
	if err != nil || job == nil {
		return err
	}
	if err := os.RemoveAll(m.moveDir(to)); err != nil {
		return fmt.Errorf("keeping a move: %w", err)
	}
	if err := os.Rename(m.moveDir(account), m.moveDir(to)); err != nil {
		return fmt.Errorf("keeping a move: %w", err)
	}
	job.Account = to
	if err := m.save(job); err != nil {
		return err
	}
	if m.ctx != nil && m.ctx.Err() == nil && job.State == MoveRunning {
		m.launch(*job)
	}
	return nil
}

// work works on a move until it is over, or ctx ends.
func (m *Mover) work(ctx context.Context, w *moveWork) {
	for tries := 0; ; tries++ {
		before := w.progress(m)
		err := m.trySession(ctx, w)
		if ctx.Err() != nil {
			m.checkpoint(w, true)
			return
		}
		if w.progress(m) > before {
			tries = 0
		}
		switch {
		case err == nil:
			m.end(w, MoveDone, "")
			m.tell(&w.job)
			return
		case errors.Is(err, errAccountGone):
			return
		case faultOf(err) != faultPassing:
			m.end(w, MoveFailed, m.words(w, err))
			return
		case errors.Is(err, errReconnect):
			continue
		}
		gap := moveGaps[min(tries, len(moveGaps)-1)]
		m.mu.Lock()
		w.job.Reason, w.job.Next = m.words(w, err), m.cfg.Now().Add(gap).UTC().Truncate(time.Second)
		m.mu.Unlock()
		m.checkpoint(w, true)
		select {
		case <-time.After(gap):
		case <-ctx.Done():
			return
		}
	}
}

// progress is how many messages a move has dealt with.
func (w *moveWork) progress(m *Mover) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	done, _, _ := w.job.Counts()
	return done
}

// words is an error as a sentence for whoever moves in.
func (m *Mover) words(w *moveWork, err error) string {
	return collectWords(&CollectSource{Account: w.job.Account, OutsideServer: w.job.Server}, err)
}

// trySession is one session, when there is room for one.
func (m *Mover) trySession(ctx context.Context, w *moveWork) error {
	select {
	case m.slot <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-m.slot }()
	return m.session(ctx, w)
}

// end notes that a move is over.
func (m *Mover) end(w *moveWork, state MoveState, reason string) {
	m.mu.Lock()
	w.job.State, w.job.Reason, w.job.Next = state, reason, time.Time{}
	w.job.Ended = m.cfg.Now().UTC().Truncate(time.Second)
	_, _, copied := w.job.Counts()
	m.mu.Unlock()
	m.checkpoint(w, true)
	m.cfg.Log.Info("moved in", "account", w.job.Account, "host", w.job.Server.Host, "state", string(state), "messages", copied, "reason", reason)
}

// checkpoint writes how far a move has come, now and then, or now.
func (m *Mover) checkpoint(w *moveWork, now bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !now && time.Since(w.saved) < moveSave {
		return
	}
	w.saved = time.Now()
	if err := m.save(&w.job); err != nil {
		m.cfg.Log.Error("how far a move has come is not on disk", "account", w.job.Account, "err", err)
	}
}

// tell writes to whoever has moved in how many messages each folder has brought.
func (m *Mover) tell(job *MoveJob) {
	if m.cfg.Tell == nil {
		return
	}
	_, _, copied := job.Counts()
	text := fmt.Sprintf("All folders of %s at %s are copied: %s.\nNothing was changed over there. The password for it is forgotten here.\n\n", job.Server.Login, job.Server.Host, messagesText(int64(copied)))
	for i := range job.Folders {
		text += "  " + moveWords(&job.Folders[i]) + "\n"
	}
	if err := m.cfg.Tell(job.Account, noticeMessage(m.cfg.Hostname, job.Account, "Your mail has moved in", text, m.cfg.Now())); err != nil {
		m.cfg.Log.Error("somebody could not be told that all mail is here", "account", job.Account, "err", err)
	}
}

// moveWords is how it goes with a folder, in one line.
func moveWords(f *MoveFolder) string {
	text := fmt.Sprintf("%s: %d of %d copied", f.Local, f.Copied, max(f.Total, f.done()))
	if f.Here > 0 {
		text += fmt.Sprintf(", %d were here already", f.Here)
	}
	if f.Left > 0 {
		text += fmt.Sprintf(", %d could not be taken", f.Left)
	}
	if f.Reason != "" {
		text += "; " + f.Reason
	}
	return text
}
