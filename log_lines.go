package main

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// How many lines of the log are remembered, some 100 KB.
const recentLines = 300

// LogLine is one line of the log.
type LogLine struct {
	Time  time.Time
	Level slog.Level
	Text  string // one line
}

// RecentLog remembers the last lines of a log, wherever that is written. They are made into text when somebody reads them. It is
// safe for concurrent use.
type RecentLog struct {
	mu   sync.Mutex
	ring []recentRecord
	next int // where the oldest stands in a full ring
}

// recentRecord is a line that nobody has read yet.
type recentRecord struct {
	attrs  string
	record slog.Record
}

// Watch gives a log that writes to the same place and is remembered here.
func (l *RecentLog) Watch(log *slog.Logger) *slog.Logger {
	return slog.New(slog.NewMultiHandler(log.Handler(), &recentHandler{all: l, level: log}))
}

// Last gives the lines in which a text stands, in any case of letters, the last first; "" is in all.
func (l *RecentLog) Last(text string) []LogLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	text = strings.ToLower(text)
	var lines []LogLine
	for i := range l.ring {
		r := &l.ring[(l.next+len(l.ring)-1-i)%len(l.ring)]
		line := LogLine{r.record.Time, r.record.Level, recordText(r.attrs, r.record)}
		if strings.Contains(strings.ToLower(line.Level.String()+" "+line.Text), text) {
			lines = append(lines, line)
		}
	}
	return lines
}

func (l *RecentLog) add(r recentRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ring) < recentLines {
		l.ring = append(l.ring, r)
		return
	}
	l.ring[l.next] = r
	l.next = (l.next + 1) % recentLines
}

// recentHandler remembers what the log writes, and nothing below its level.
type recentHandler struct {
	attrs string
	all   *RecentLog
	level *slog.Logger
}

// Enabled is slog.Handler.
func (h *recentHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.level.Enabled(ctx, level)
}

// Handle is slog.Handler.
func (h *recentHandler) Handle(_ context.Context, r slog.Record) error {
	h.all.add(recentRecord{h.attrs, r.Clone()})
	return nil
}

// WithAttrs is slog.Handler.
func (h *recentHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &recentHandler{h.attrs + attrsText(attrs), h.all, h.level}
}

// WithGroup is slog.Handler. The log of the appliance has no groups.
func (h *recentHandler) WithGroup(string) slog.Handler { return h }
