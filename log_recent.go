package main

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// How many kinds of trouble are remembered.
const maxTroubles = 8

// Trouble is something that was logged as a warning or an error.
type Trouble struct {
	Time  time.Time `json:"time"`  // of the last one
	Level string    `json:"level"` // "WARN" or "ERROR"
	Text  string    `json:"text"`  // one line, of the last one
	Count int       `json:"count"` // how often since the start

	message string
}

// RecentTroubles remembers the last warnings and errors of a log, for status; those with the same message together. What
// happens every day to a mail server on the internet is none. It is safe for concurrent use.
type RecentTroubles struct {
	mu   sync.Mutex
	list []Trouble // the last one first
}

// Watch gives a log that writes to the same place and is remembered here.
func (t *RecentTroubles) Watch(log *slog.Logger) *slog.Logger {
	return slog.New(slog.NewMultiHandler(log.Handler(), &troubleHandler{tell: t.add}))
}

// Last gives what is remembered, the last one first.
func (t *RecentTroubles) Last() []Trouble {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.list)
}

func (t *RecentTroubles) add(trouble Trouble) {
	t.mu.Lock()
	defer t.mu.Unlock()
	same := func(old Trouble) bool { return old.message == trouble.message && old.Level == trouble.Level }
	if i := slices.IndexFunc(t.list, same); i >= 0 {
		trouble.Count += t.list[i].Count
		t.list = slices.Delete(t.list, i, i+1)
	}
	t.list = slices.Insert(t.list, 0, trouble)
	if len(t.list) > maxTroubles {
		t.list = slices.Delete(t.list, t.least(), t.least()+1)
	}
}

// least gives the oldest warning, or the oldest where all are errors.
func (t *RecentTroubles) least() int {
	for i := len(t.list) - 1; i > 0; i-- {
		if t.list[i].Level == slog.LevelWarn.String() {
			return i
		}
	}
	return len(t.list) - 1
}

// troubleHandler tells of warnings and errors, but of what happens every day.
type troubleHandler struct {
	attrs string
	tell  func(Trouble)
}

// Enabled is slog.Handler.
func (h *troubleHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn
}

// Handle is slog.Handler.
func (h *troubleHandler) Handle(_ context.Context, r slog.Record) error {
	if !isEveryday(r.Message) {
		h.tell(Trouble{Time: r.Time, Level: r.Level.String(), Text: recordText(h.attrs, r), Count: 1, message: r.Message})
	}
	return nil
}

// WithAttrs is slog.Handler.
func (h *troubleHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &troubleHandler{h.attrs + attrsText(attrs), h.tell}
}

// WithGroup is slog.Handler. The log of the appliance has no groups.
func (h *troubleHandler) WithGroup(string) slog.Handler { return h }
