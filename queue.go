package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// The queue of mail for other servers. Each message that waits is a pair of plain files, ID.eml and ID.json, both on disk
// before the sender is told that it is taken. queue_file.go knows the files, queue_run.go decides what is tried when, and
// queue_report.go tells senders what became of their mail.

const (
	queueLifetime  = 5 * 24 * time.Hour // RFC 5321 §4.5.4.1: at least 4 to 5 days
	queueDelayTold = 4 * time.Hour      // then the sender is told that the message waits
	queueMinTries  = 10                 // a message is not given up before, whatever the clock says
	queueFewTries  = 3                  // the same for one that an earlier run has left, in tries of its destination
	queueSweep     = 5 * time.Minute    // how often what is late is looked for, while something waits
	queueAtOnce    = 60                 // messages that are being sent at once, in all
	queueUnproven  = 45                 // of them to destinations that are not known to answer, so that those which do are not held up
	queueSuspects  = 30                 // of those to destinations that did not answer last time
	queueKnown     = 1000               // destinations of which it is remembered that they answer
	queuePerHost   = 3                  // of them to one destination
	queueMaxItems  = 200_000            // messages that wait
)

// queueGaps are the times between tries; the last one repeats.
var queueGaps = [...]time.Duration{time.Minute, 3 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 4 * time.Hour}

var (
	// ErrQueueFull: more than queueMaxItems messages wait.
	ErrQueueFull = errors.New("too many messages wait to be sent")
	// ErrNotQueued: no message with this ID waits.
	ErrNotQueued = errors.New("no such message waits")
	// ErrBeingTried: a message is being sent at this moment.
	ErrBeingTried = errors.New("the message is being tried at this moment")
)

// QueueConfig is what OpenQueue needs.
type QueueConfig struct {
	Dir string // DATA/queue
	// Send makes one try; it gives an outcome for each of m.Recipients, and ends soon after ctx does.
	Send func(ctx context.Context, destination string, m *Outgoing) []Outcome
	// Destination groups what shares connections: a domain, or the relay that takes its mail.
	Destination func(from, domain string) string
	// Report delivers a report to the sender of a message with this envelope: to a local mailbox, or back into the queue.
	Report func(ctx context.Context, about *Envelope, message []byte) error
	// GiveBack delivers a message here that could not be forwarded, to the person for whom it should have been.
	GiveBack func(ctx context.Context, env *Envelope, text io.Reader) error
	// Changed is told, if it is not nil, of each message whose state has changed; gone says that it waits no more.
	Changed  func(e QueueEntry, gone bool)
	Damaged  func(ids []string) // is told, if it is not nil, which messages were set aside as they cannot be read
	Hostname func() string
	Log      *slog.Logger
	Now      func() time.Time // nil: time.Now
}

// Queue is safe for concurrent use.
type Queue struct {
	cfg   QueueConfig
	files queueFiles

	mu       sync.Mutex
	items    map[string]*queueItem
	dests    map[string]*queueDest
	ready    [destStandings]destHeap // destinations with something to do and room to do it
	running  [destStandings]int
	answered map[string]bool // destinations that have answered last time, at most queueKnown
	started  bool            // Run was called
	wake     chan struct{}   // has a token when the plan has changed
	work     sync.WaitGroup
}

// queueItem is one message that waits.
type queueItem struct {
	queueRecord
	id      string
	since   int64           // Queued when it was taken, Unix nanoseconds: never changes
	busy    map[string]bool // destinations that are being tried; nil for most: very many may wait
	trying  map[int]bool    // recipients that are being tried, nil for most: their destination may have changed since
	removed bool
	loaded  bool       // an earlier run has taken it
	saving  sync.Mutex // held while its files are changed; taken before Queue.mu
}

// OpenQueue reads what waits. Nothing is tried before Run.
func OpenQueue(cfg QueueConfig) (*Queue, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	q := &Queue{cfg: cfg, files: queueFiles{dir: cfg.Dir, log: cfg.Log}, items: map[string]*queueItem{}, dests: map[string]*queueDest{}, answered: map[string]bool{}, wake: make(chan struct{}, 1)}
	records, err := q.files.load()
	if err != nil {
		return nil, fmt.Errorf("reading the queue: %w", err)
	}
	for id, record := range records {
		q.take(&queueItem{queueRecord: *record, id: id, loaded: true})
	}
	return q, nil
}

// TmpDir is where a message for the queue is received: on the file system of the queue.
func (q *Queue) TmpDir() string { return filepath.Join(q.cfg.Dir, queueTmp) }

// Submit takes over a message: when it returns nil, the message and its envelope are on disk with their entries. The text
// has no Return-Path, which the last server writes. Consumes in.
func (q *Queue) Submit(in *Incoming, env *Envelope) (id string, err error) {
	defer in.Discard()
	q.mu.Lock()
	full := len(q.items) >= queueMaxItems
	q.mu.Unlock()
	if full {
		return "", ErrQueueFull
	}
	if id = env.ID; id == "" {
		id = newQueueID()
	}
	record := queueRecord{Envelope: *env, Queued: q.cfg.Now().UTC(), Size: in.Size(), States: make([]recipientState, len(env.Recipients))}
	if err := q.files.create(id, &record, in); err != nil {
		return "", diskError(fmt.Errorf("queueing a message: %w", err))
	}
	q.cfg.Log.Info("queued", "id", id, "from", env.From, "recipients", len(env.Recipients), "size", record.Size)
	q.mu.Lock()
	q.take(&queueItem{queueRecord: record, id: id})
	q.mu.Unlock()
	q.nudge()
	return id, nil
}

// newQueueID makes a name for a message.
func newQueueID() string { return strings.ToLower(rand.Text()[:16]) }

// take puts a message into the plan. The lock is held, or nobody knows q yet.
func (q *Queue) take(item *queueItem) {
	item.since = item.Queued.UnixNano()
	q.items[item.id] = item
	q.plan(item)
}

// QueueEntry is what people are told of a message that waits.
type QueueEntry struct {
	ID         string           `json:"id"`
	From       string           `json:"from"`
	Account    string           `json:"account,omitempty"`
	Forward    string           `json:"forward,omitempty"` // the account here whose mail goes on
	Queued     time.Time        `json:"queued"`
	Size       int64            `json:"size"` // octets
	Recipients []QueueRecipient `json:"recipients"`
}

// QueueRecipient is one recipient of it.
type QueueRecipient struct {
	Address string    `json:"address"`
	State   SendState `json:"state"` // "" waits
	Tries   int       `json:"tries"`
	Next    time.Time `json:"next,omitzero"` // when it is tried again
	Reason  string    `json:"reason,omitempty"`
	Relay   string    `json:"relay,omitempty"` // HOST:PORT that takes it for the server of its domain
}

// List gives all that waits, the oldest first.
func (q *Queue) List() (list []QueueEntry) {
	q.Each(func(e *QueueEntry) { list = append(list, *e) })
	return list
}

// queueAtATime is how many messages are described while nobody else has the queue.
const queueAtATime = 256

// Each visits all that waits, the oldest first, without describing all at once. What ends meanwhile is left out.
func (q *Queue) Each(visit func(e *QueueEntry)) {
	q.mu.Lock()
	items := slices.Collect(maps.Values(q.items))
	q.mu.Unlock()
	slices.SortFunc(items, func(a, b *queueItem) int {
		if c := cmp.Compare(a.since, b.since); c != 0 {
			return c
		}
		return strings.Compare(a.id, b.id)
	})
	entries := make([]QueueEntry, 0, min(queueAtATime, len(items)))
	for part := range slices.Chunk(items, queueAtATime) {
		entries = entries[:0]
		q.mu.Lock()
		for _, item := range part {
			if !item.removed {
				entries = append(entries, q.entry(item))
			}
		}
		q.mu.Unlock()
		for i := range entries {
			visit(&entries[i])
		}
	}
}

// entry describes an item. The lock is held.
func (q *Queue) entry(item *queueItem) QueueEntry {
	e := QueueEntry{ID: item.id, From: item.Envelope.From, Account: item.Envelope.Account, Forward: item.Envelope.Forward, Queued: item.Queued, Size: item.Size}
	e.Recipients = make([]QueueRecipient, len(item.States))
	for i := range item.States {
		st, to := &item.States[i], &item.Envelope.Recipients[i]
		r := QueueRecipient{Address: to.Address, State: st.State, Tries: st.Tries, Next: st.Next, Reason: st.reason()}
		if st.State == SendWaiting {
			name := q.cfg.Destination(item.Envelope.From, to.Domain())
			if d := q.dests[name]; d != nil && d.retryAt.After(r.Next) {
				r.Next, r.Reason = d.retryAt, d.reason
			}
			r.Relay = relayServer(name)
		}
		e.Recipients[i] = r
	}
	return e
}

// Entry gives one message that waits: ErrNotQueued.
func (q *Queue) Entry(id string) (QueueEntry, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	item := q.items[id]
	if item == nil {
		return QueueEntry{}, ErrNotQueued
	}
	return q.entry(item), nil
}

// Oldest gives what has waited longest, at most most messages, and how many there are. With a text only those that have it in
// their ID or one of their addresses, in any case of letters, are meant.
func (q *Queue) Oldest(text string, most int) (list []QueueEntry, all int) {
	text = strings.ToLower(text)
	q.Each(func(e *QueueEntry) {
		if !e.names(text) {
			return
		}
		if all++; all <= most {
			list = append(list, *e)
		}
	})
	return list, all
}

// names says whether a text stands in the ID or one of the addresses of a message.
func (e *QueueEntry) names(text string) bool {
	return strings.Contains(e.ID, text) || strings.Contains(strings.ToLower(e.From), text) || strings.Contains(strings.ToLower(e.Account+" "+e.Forward), text) ||
		slices.ContainsFunc(e.Recipients, func(r QueueRecipient) bool { return strings.Contains(strings.ToLower(r.Address), text) })
}

// Open opens the text of a message that waits: ErrNotQueued. Close it.
func (q *Queue) Open(id string) (QueueMessage, error) {
	q.mu.Lock()
	item := q.items[id]
	q.mu.Unlock()
	if item == nil {
		return QueueMessage{}, ErrNotQueued
	}
	return q.files.open(id)
}

// Retry tries a message now, whatever was planned; "" means all: ErrNotQueued. Before Run it is noted on disk for whoever
// runs the queue next.
func (q *Queue) Retry(id string) error {
	items, started, err := q.hasten(id)
	if err != nil {
		return err
	}
	if !started {
		for _, item := range items {
			q.store(item)
		}
	}
	q.nudge()
	return nil
}

// hasten plans a message, or all, for now.
func (q *Queue) hasten(id string) (items []*queueItem, started bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	items = []*queueItem{q.items[id]}
	if id == "" {
		items = slices.Collect(maps.Values(q.items))
	} else if items[0] == nil {
		return nil, false, ErrNotQueued
	}
	now := q.cfg.Now()
	for _, item := range items {
		for i := range item.States {
			if item.States[i].State == SendWaiting {
				item.States[i].Next = now
				q.open(q.destination(item, i))
			}
		}
		q.plan(item)
	}
	return items, q.started, nil
}

// Cancel takes a message out; what is being sent at the moment may still arrive: ErrNotQueued.
func (q *Queue) Cancel(id string) error {
	q.mu.Lock()
	item := q.items[id]
	if item == nil {
		q.mu.Unlock()
		return ErrNotQueued
	}
	for i := range item.States {
		if item.States[i].State == SendWaiting {
			item.States[i].State = SendCancelled
		}
	}
	entry := q.forget(item)
	q.mu.Unlock()
	q.cfg.Log.Info("cancelled", "id", id, "from", item.Envelope.From, "to", item.Envelope.addresses())
	item.saving.Lock()
	err := q.files.remove(id)
	item.saving.Unlock()
	q.tell(entry, true)
	if err != nil {
		return fmt.Errorf("cancelling a message: %w", err)
	}
	return nil
}

// GiveUp ends a message as if its time were over: its sender is told that it could not be delivered, with why it waited.
// ErrNotQueued; ErrBeingTried.
func (q *Queue) GiveUp(ctx context.Context, id string) error {
	now := q.cfg.Now()
	q.mu.Lock()
	item := q.items[id]
	if item == nil || len(item.busy) > 0 {
		q.mu.Unlock()
		if item != nil {
			return ErrBeingTried
		}
		return ErrNotQueued
	}
	var news []reportedRecipient
	for i := range item.States {
		if item.States[i].State == SendWaiting {
			news = append(news, q.fail(item, i, "given up: "))
		}
	}
	q.mu.Unlock()
	q.report(ctx, item, news, now)
	q.store(item)
	q.conclude(item)
	return nil
}

// forget takes an item out of memory. The lock is held.
func (q *Queue) forget(item *queueItem) QueueEntry {
	entry := q.entry(item)
	item.removed = true
	delete(q.items, item.id)
	return entry
}

// tell passes a change on.
func (q *Queue) tell(e QueueEntry, gone bool) {
	if q.cfg.Changed != nil {
		q.cfg.Changed(e, gone)
	}
}

// Len is how many messages wait.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// QueueLoad is how much waits.
type QueueLoad struct {
	Messages int
	Bytes    int64
	Oldest   time.Time // since when the oldest waits
}

// Load tells how much waits.
func (q *Queue) Load() (load QueueLoad) {
	q.mu.Lock()
	defer q.mu.Unlock()
	load.Messages = len(q.items)
	for _, item := range q.items {
		load.Bytes += item.Size
		if load.Oldest.IsZero() || item.Queued.Before(load.Oldest) {
			load.Oldest = item.Queued
		}
	}
	return load
}

// nudge makes Run look at the plan.
func (q *Queue) nudge() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
