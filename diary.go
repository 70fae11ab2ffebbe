package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// What has become of mail: who wrote to whom, when, and what was done with it. It is for the question "where is my mail?", and
// holds neither subjects nor texts. It is fed by the log, so that both tell the same; diary_file.go keeps it on disk, within
// bounds, and diary_days.go counts.

const (
	diaryDelay    = 2 * time.Second // until an event is on disk; a crash loses what is younger
	diaryHurry    = 256             // events that wait are written at once
	diaryWaiting  = 2000            // more than that are not kept while the disk does not keep up
	diaryRefusals = 600             // refusals a minute that are kept; beyond, they are counted alone
	diaryPeople   = 500             // recipients of one event that are named
	diaryAddress  = 320             // octets of an address that are kept
	diaryReason   = 400             // characters of a reason that are kept
)

// DiaryKind is what has become of a message.
type DiaryKind string

const (
	DiaryDelivered DiaryKind = "delivered" // into mailboxes here; into Junk for those in Junk
	DiaryCollected DiaryKind = "collected" // from an account elsewhere, into a mailbox here
	DiarySent      DiaryKind = "sent"      // another server has taken it
	DiaryDeferred  DiaryKind = "deferred"  // it waits for another try
	DiaryBounced   DiaryKind = "bounced"   // it was given up
	DiaryCancelled DiaryKind = "cancelled" // it was deleted from the queue
	DiaryForwarded DiaryKind = "forwarded" // it is on its way to addresses elsewhere
	DiaryRefused   DiaryKind = "refused"   // it was not taken
	DiaryLogin     DiaryKind = "login"     // somebody could not log in
)

// DiaryEvent is one line of the diary.
type DiaryEvent struct {
	Time     time.Time `json:"time"`
	Kind     DiaryKind `json:"kind"`
	ID       string    `json:"id,omitempty"`
	From     string    `json:"from,omitempty"`
	To       []string  `json:"to,omitempty"`      // whom it was for; accounts where it was delivered
	Junk     []string  `json:"junk,omitempty"`    // those of To who find it in Junk
	Account  string    `json:"account,omitempty"` // who has sent it, or has tried to log in
	Protocol string    `json:"protocol,omitempty"`
	Remote   string    `json:"remote,omitempty"` // the other machine
	Code     int       `json:"code,omitempty"`   // of the reply that refused it
	Status   string    `json:"status,omitempty"` // the same as RFC 3463 has it: "5.1.1"
	Reason   string    `json:"reason,omitempty"` // one line
	Size     int64     `json:"size,omitempty"`   // octets
	More     int       `json:"more,omitempty"`   // recipients that are not named; refusals that were not kept
}

// Diary keeps events. Safe for concurrent use; nil keeps nothing.
type Diary struct {
	dir  string
	zone func() *time.Location
	now  func() time.Time
	fail func(err error) // is told once that the disk takes nothing

	mu      sync.Mutex
	waiting []DiaryEvent
	timer   *time.Timer // runs while something waits
	lost    int         // events that found no room
	minute  int64       // that of the refusals that are counted next
	refused int         // refusals within it
	totals  map[DiaryCount]uint64
	days    diaryDays

	disk   sync.RWMutex // held while files are read or written; before mu
	failed bool
}

// DiaryCount is what is counted since the start.
type DiaryCount struct {
	What     string // a DiaryKind, "junk", "login" or "learned"
	Protocol string // of logins; of refusals
	Failed   bool   // of logins
	Code     int    // of refusals: 4 or 5
}

// OpenDiary opens the diary in a folder, which is made when there is something to keep. zone is where its days begin. What is
// damaged there begins anew.
func OpenDiary(dir string, zone func() *time.Location, now func() time.Time) *Diary {
	if now == nil {
		now = time.Now
	}
	d := &Diary{dir: dir, zone: zone, now: now, fail: func(error) {}, totals: map[DiaryCount]uint64{}}
	d.days.read(d.daysFile())
	return d
}

// Watch gives a log that writes to the same place and feeds the diary, whatever its level is.
func (d *Diary) Watch(log *slog.Logger) *slog.Logger {
	d.fail = func(err error) { log.Warn("what has become of mail cannot be written", "err", err) }
	return slog.New(slog.NewMultiHandler(log.Handler(), &diaryHandler{diary: d}))
}

// diaryHandler reads the log.
type diaryHandler struct {
	attrs []slog.Attr
	diary *Diary
}

// Enabled is slog.Handler.
func (h *diaryHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

// WithAttrs is slog.Handler.
func (h *diaryHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &diaryHandler{slices.Concat(h.attrs, attrs), h.diary}
}

// WithGroup is slog.Handler. The log of the appliance has no groups.
func (h *diaryHandler) WithGroup(string) slog.Handler { return h }

// Handle is slog.Handler. It takes what is about mail and logins, and lets the rest go by.
func (h *diaryHandler) Handle(_ context.Context, r slog.Record) error {
	switch r.Message {
	case "delivered", "sent", "deferred", "bounced", "cancelled", "forwarded", "rejected", "login", "learned", smtpFailure:
	default:
		return nil
	}
	e := diaryRecord{DiaryEvent: DiaryEvent{Time: r.Time.UTC(), Kind: DiaryKind(r.Message)}}
	for _, a := range h.attrs {
		e.take(a)
	}
	r.Attrs(func(a slog.Attr) bool { e.take(a); return true })
	h.diary.record(&e)
	return nil
}

// smtpFailure is what the log says of a command of SMTP that failed by our own fault. The client was told to come again.
const smtpFailure = "SMTP command failed"

// diaryRecord is a record of the log on its way to be an event.
type diaryRecord struct {
	DiaryEvent
	messages int64
	login    bool // somebody has tried to log in
	page     bool // it is about the page
	here     bool // the mailboxes here have told of it already
}

// take takes over an attribute.
func (e *diaryRecord) take(a slog.Attr) {
	switch a.Key {
	case "id":
		e.ID = a.Value.String()
	case "from":
		e.From = diaryName(a.Value.String())
	case "to":
		e.To, e.More = diaryNames(a.Value.String())
	case "junk":
		e.Junk, _ = diaryNames(a.Value.String())
	case "account":
		e.Account = diaryName(a.Value.String())
	case "user":
		e.Account, e.login = diaryName(a.Value.String()), true
	case "protocol":
		e.Protocol = a.Value.String()
	case "remote":
		if text := a.Value.String(); text != "" {
			e.Remote = foreignWords(text, diaryReason)
		}
	case "collected":
		e.Kind, e.Remote = DiaryCollected, a.Value.String()
	case "code":
		e.Code = int(a.Value.Int64())
	case "status":
		e.Status = a.Value.String()
	case "reason", "reply":
		e.Reason = foreignWords(a.Value.String(), diaryReason)
	case "size":
		e.Size = a.Value.Int64()
	case "messages":
		e.messages = a.Value.Int64()
	case "page":
		e.page = true
	case "here":
		e.here = a.Value.Bool()
	}
}

// diaryName bounds an address.
func diaryName(text string) string {
	if text = clipOctets(text, diaryAddress); plainWord(text) {
		return text
	}
	return tameWords(text)
}

func clipOctets(text string, most int) string {
	if len(text) > most {
		return text[:most]
	}
	return text
}

// diaryNames bounds a list of addresses.
func diaryNames(list string) (names []string, more int) {
	for name := range strings.FieldsSeq(list) {
		if len(names) == diaryPeople {
			more++
			continue
		}
		names = append(names, diaryName(name))
	}
	return names, more
}

// record counts what has happened, and keeps it where it is about mail or a login that failed.
func (d *Diary) record(e *diaryRecord) {
	switch e.Kind {
	case "login":
		d.count(DiaryCount{What: "login", Protocol: e.Protocol}, 1)
		return
	case "learned":
		d.count(DiaryCount{What: "learned"}, uint64(max(e.messages, 0)))
		return
	case smtpFailure:
		e.Kind, e.Protocol, e.Code, e.Status, e.Reason = DiaryRefused, "smtp", 451, "4.3.0", ""
	case DiarySent:
		if e.here {
			return
		}
	case "rejected":
		if e.page {
			return
		}
		if e.Kind = DiaryRefused; e.login {
			e.Kind = DiaryLogin
		}
	}
	d.add(&e.DiaryEvent)
}

// count adds to what has happened since the start.
func (d *Diary) count(c DiaryCount, n uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.totals[c] += n
}

// Totals gives what has happened since the start.
func (d *Diary) Totals() map[DiaryCount]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.totals)
}

// add counts and keeps an event. It takes no time: the file is written later.
func (d *Diary) add(e *DiaryEvent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tally(e)
	if e.isRefusal() && !d.roomForRefusal(e.Time) {
		return
	}
	if len(d.waiting) >= diaryWaiting {
		d.lost++
		return
	}
	d.waiting = append(d.waiting, *e)
	switch {
	case d.timer == nil:
		d.timer = time.AfterFunc(diaryDelay, d.flush)
	case len(d.waiting) == diaryHurry:
		d.timer.Reset(0)
	}
}

// isRefusal says whether an event is one that strangers can make at will. Those have files of their own, so that no flood of
// them pushes the others out.
func (e *DiaryEvent) isRefusal() bool { return e.Kind == DiaryRefused || e.Kind == DiaryLogin }

// roomForRefusal says whether one more refusal is kept in this minute. The lock is held.
func (d *Diary) roomForRefusal(at time.Time) bool {
	if minute := at.Unix() / 60; minute != d.minute {
		if left := d.refused - diaryRefusals; left > 0 {
			d.waiting = append(d.waiting, DiaryEvent{Time: time.Unix(d.minute*60+59, 0).UTC(), Kind: DiaryRefused, More: left})
		}
		d.minute, d.refused = minute, 0
	}
	d.refused++
	return d.refused <= diaryRefusals
}

// tally counts an event, since the start and in its day. The lock is held.
func (d *Diary) tally(e *DiaryEvent) {
	day := d.days.of(e.Time.In(d.zone()))
	switch people := max(1, len(e.To)+e.More); e.Kind {
	case DiaryLogin:
		d.totals[DiaryCount{What: "login", Protocol: e.Protocol, Failed: true}]++
		return
	case DiaryRefused:
		d.totals[DiaryCount{What: string(e.Kind), Protocol: e.Protocol, Code: e.Code / 100}]++
		day.Refused++
	case DiaryDelivered, DiaryCollected:
		d.totals[DiaryCount{What: string(e.Kind)}] += uint64(people - len(e.Junk))
		d.totals[DiaryCount{What: "junk"}] += uint64(len(e.Junk))
		day.In += people
		day.Junk += len(e.Junk)
	default:
		d.totals[DiaryCount{What: string(e.Kind)}]++
		switch e.Kind {
		case DiarySent:
			day.Out++
		case DiaryBounced:
			day.Bounced++
		}
	}
	d.days.changed = true
}

// Close writes what waits.
func (d *Diary) Close() error {
	d.flush()
	d.mu.Lock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.mu.Unlock()
	d.disk.Lock()
	defer d.disk.Unlock()
	if err := d.saveDays(); err != nil {
		return fmt.Errorf("writing how much mail there was: %w", err)
	}
	return nil
}
