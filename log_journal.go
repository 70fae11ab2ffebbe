package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"
)

// The journal of systemd takes lines of standard error with their priority before them (sd-daemon(3)), and knows the time
// itself.

// priorityHandler writes records as the journal wants them.
type priorityHandler struct {
	slog.Handler
	out *priorityWriter
}

// priorityWriter puts the priority of the record that is being written before its line.
type priorityWriter struct {
	mu       sync.Mutex
	w        io.Writer
	priority byte
}

func newPriorityHandler(cfg LogConfig) *priorityHandler {
	out := &priorityWriter{w: cfg.Stderr}
	return &priorityHandler{cfg.handler(out, withoutTime), out}
}

// withoutTime drops what the journal adds by itself.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

// Handle is slog.Handler.
func (h *priorityHandler) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.priority = journalPriority(r.Level)
	return h.Handler.Handle(ctx, r)
}

// WithAttrs is slog.Handler.
func (h *priorityHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &priorityHandler{h.Handler.WithAttrs(attrs), h.out}
}

// WithGroup is slog.Handler.
func (h *priorityHandler) WithGroup(name string) slog.Handler {
	return &priorityHandler{h.Handler.WithGroup(name), h.out}
}

// journalPriority is a level as syslog numbers it.
func journalPriority(level slog.Level) byte {
	switch {
	case level >= slog.LevelError:
		return '3'
	case level >= slog.LevelWarn:
		return '4'
	case level >= slog.LevelInfo:
		return '6'
	}
	return '7'
}

// Write writes a record. The handler holds mu.
func (w *priorityWriter) Write(line []byte) (int, error) {
	if _, err := w.w.Write(bytes.Join([][]byte{{'<', w.priority, '>'}, line}, nil)); err != nil {
		return 0, err
	}
	return len(line), nil
}
