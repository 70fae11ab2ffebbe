package main

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"time"
)

// Rules carries out what people have set for mail that arrives for them. It stands between those who receive and the store:
//
//	away.go, away_memory.go  an answer while somebody is away
//
// Mail that is collected from accounts elsewhere comes by none of this: it may be days old, who has sent it is not proven, and
// the account elsewhere has rules of its own, so that a sender would be answered twice. Nor do reports and notices of the
// appliance itself. Safe for concurrent use.
type Rules struct {
	cfg     RulesConfig
	answers *FloodLimit // answers an hour
	jobs    chan awayJob
}

// RulesConfig is what NewRules needs.
type RulesConfig struct {
	Answered *AwayMemory // by out-of-office notes
	Accounts *Accounts
	Store    *Store
	Queue    *Queue
	Hostname string
	Zone     func() *time.Location // of days that are given without one; nil: the machine's
	Log      *slog.Logger
	Now      func() time.Time // nil: time.Now
}

// maxRuledHeader is how many octets of a header are looked at; a message with a longer one is not answered.
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
	r := &Rules{cfg: cfg, jobs: make(chan awayJob, awayWaiting)}
	r.answers = NewFloodLimit(awayPerHour, func(r FloodReport) {
		cfg.Log.Warn("no more out-of-office notes are sent within this hour", "account", r.Sender.Account, "limit", awayPerHour)
	}, cfg.Now)
	return r
}

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

// Deliver is Store.Deliver of a message that has come by SMTP, from this reverse-path ("" for the null one), with what its
// recipients have set. The message has the fields that this server puts in front.
func (r *Rules) Deliver(ctx context.Context, in *Incoming, from string, to []Delivery) error {
	jobs := r.awayJobs(in, from, to)
	if err := r.cfg.Store.Deliver(ctx, in, to); err != nil {
		return err
	}
	for _, job := range jobs {
		select {
		case r.jobs <- job:
		default:
			r.cfg.Log.Warn("no out-of-office note is sent: too many messages come in at once", "account", job.account)
		}
	}
	return nil
}

// awayJobs gives what may be to answer of a message that is about to be delivered. For most there is nothing to do.
func (r *Rules) awayJobs(in *Incoming, from string, to []Delivery) (jobs []awayJob) {
	sender, err := ParseAddress(from)
	if err != nil { // the null one, above all
		return nil
	}
	var header []headerField
	for _, target := range to {
		if target.Folder != inboxName || r.noteFor(target.Account) == nil {
			continue
		}
		if header == nil {
			if header = headerOfIncoming(in); header == nil {
				return nil
			}
		}
		jobs = append(jobs, awayJob{target.Account, sender, header})
	}
	return jobs
}

// headerOfIncoming reads the header of a message, nil for one that is too long.
func headerOfIncoming(in *Incoming) []headerField {
	raw, err := readHeader(bufio.NewReader(io.NewSectionReader(in, 0, in.Size())), maxRuledHeader)
	if err != nil {
		return nil
	}
	return splitHeader(raw)
}
