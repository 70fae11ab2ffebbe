package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"time"
)

// Rules carries out what people have set for mail that arrives for them. It stands between those who receive and the store:
//
//	away.go, away_memory.go  an answer while somebody is away
//	forward.go, srs.go       mail that goes on to addresses elsewhere
//
// Mail that is collected from accounts elsewhere comes by none of this: it may be days old, who has sent it is not proven, and
// the account elsewhere has rules of its own, so that a sender would be answered twice. Nor do reports and notices of the
// appliance itself. Safe for concurrent use.
type Rules struct {
	cfg      RulesConfig
	answers  *FloodLimit // answers an hour, by account
	forwards *FloodLimit // addresses forwarded to, by account
	bounces  *FloodLimit // bounces that come back, by sender
	jobs     chan awayJob
}

// RulesConfig is what NewRules needs.
type RulesConfig struct {
	Answered *AwayMemory // by out-of-office notes
	SRS      *SRS        // nil: nothing is forwarded
	Accounts *Accounts
	Store    *Store
	Queue    *Queue
	Zone     func() *time.Location // of days that are given without one; nil: the machine's
	Log      *slog.Logger
	Now      func() time.Time // nil: time.Now

	step func(name string) // is told how far a message has come; nil: nobody
}

// maxRuledHeader is how many octets of a header are looked at; a message with a longer one is neither answered nor forwarded.
const maxRuledHeader = 128 << 10

// NewRules makes the rules. Nobody is answered before Run.
func NewRules(cfg RulesConfig) *Rules {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Zone == nil {
		cfg.Zone = func() *time.Location { return time.Local }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.step == nil {
		cfg.step = func(string) {}
	}
	r := &Rules{cfg: cfg, jobs: make(chan awayJob, awayWaiting)}
	limit := func(perHour int, what string) *FloodLimit {
		return NewFloodLimit(perHour, func(report FloodReport) {
			cfg.Log.Warn("the limit of an hour is reached", "of", what, "who", report.Sender.Account, "limit", perHour)
		}, cfg.Now)
	}
	r.answers = limit(awayPerHour, "out-of-office notes")
	r.forwards = limit(forwardsPerHour, "forwarded mail")
	r.bounces = limit(bouncesPerHour, "bounces of forwarded mail")
	return r
}

// senderOf gives whom a limit counts.
func senderOf(account string) FloodSender { return FloodSender{Identity: Identity{Account: account}} }

// Run answers until ctx ends, and then what has come before.
func (r *Rules) Run(ctx context.Context) {
	for {
		select {
		case job := <-r.jobs:
			r.answer(job)
		case <-ctx.Done():
			for {
				select {
				case job := <-r.jobs:
					r.answer(job)
				default:
					return
				}
			}
		}
	}
}

// ruledMessage is a message that is about to be delivered.
type ruledMessage struct {
	in   *Incoming
	from string // reverse-path, "" for the null one

	fields []headerField
	err    error
	read   bool
}

// errHeaderRuled says that a header is too long for what is to be done with it.
var errHeaderRuled = errors.New("its header is too long")

// header reads the header, once.
func (m *ruledMessage) header() ([]headerField, error) {
	if m.read {
		return m.fields, m.err
	}
	m.read = true
	raw, err := readHeader(bufio.NewReader(io.NewSectionReader(m.in, 0, m.in.Size())), maxRuledHeader)
	switch {
	case errors.Is(err, errHeaderTooLong):
		m.err = errHeaderRuled
	case err != nil:
		m.err = err
	default:
		m.fields = splitHeader(raw)
	}
	return m.fields, m.err
}

// Deliver is Store.Deliver of a message that has come by SMTP, from this reverse-path ("" for the null one), with what its
// recipients have set. The message has the fields that this server puts in front. Consumes in.
func (r *Rules) Deliver(ctx context.Context, in *Incoming, from string, to []Delivery) error {
	defer in.Discard()
	m := &ruledMessage{in: in, from: from}
	jobs := r.awayJobs(m, to)
	copies := r.forwardCopies(m, to)
	defer func() {
		for _, c := range copies {
			c.discard()
		}
	}()
	stay := r.moveOn(copies, to)
	r.cfg.step("moved")
	if len(stay) > 0 {
		if err := r.cfg.Store.Deliver(ctx, in, stay); err != nil {
			r.takeBack(copies)
			return err
		}
	}
	r.cfg.step("delivered")
	r.copyOn(copies)
	r.cfg.step("forwarded")
	for _, job := range jobs {
		select {
		case r.jobs <- job:
		default:
			r.cfg.Log.Warn("no out-of-office note is sent: too many messages come in at once", "account", job.account)
		}
	}
	return nil
}

// awayJobs gives what may be to answer of a message. For most there is nothing to do.
func (r *Rules) awayJobs(m *ruledMessage, to []Delivery) (jobs []awayJob) {
	for _, target := range to {
		if target.Folder != inboxName || r.noteFor(target.Account) == nil {
			continue
		}
		sender, err := ParseAddress(m.from)
		header, headerErr := m.header()
		if err != nil || headerErr != nil { // the null reverse-path, above all
			return nil
		}
		jobs = append(jobs, awayJob{target.Account, sender, header})
	}
	return jobs
}
