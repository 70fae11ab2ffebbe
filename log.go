package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/natefinch/lumberjack.v2"
)

// Where the log goes: to the journal where systemd runs the appliance; where another service manager does, to a file that is
// rotated, and on Windows warnings to the event log as well; else to the standard error.

const (
	logFileSize  = 10 // MiB; then a new file is begun
	logFilesKept = 4  // of those that are full
)

// LogConfig says what is logged, and how.
type LogConfig struct {
	Level   slog.Level
	JSON    bool
	Service bool      // a service manager has started the process
	Dir     string    // folder of the log file, made when it is needed
	Stderr  io.Writer // nil: discard
}

// OpenLog opens the log. close is called when nothing is logged any more.
func OpenLog(cfg LogConfig) (log *slog.Logger, close func(), err error) {
	switch {
	case isJournal(cfg.Stderr):
		return slog.New(newPriorityHandler(cfg)), func() {}, nil
	case cfg.Service:
		return openServiceLog(cfg)
	}
	return slog.New(cfg.handler(cfg.Stderr, nil)), func() {}, nil
}

// openServiceLog opens the log file, and what the system has beside it.
func openServiceLog(cfg LogConfig) (log *slog.Logger, close func(), err error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("making the folder of the log: %w", err)
	}
	file := &lumberjack.Logger{Filename: logFile(cfg.Dir), MaxSize: logFileSize, MaxBackups: logFilesKept}
	handler := cfg.handler(file, nil)
	events, done := systemEvents()
	if events != nil {
		handler = slog.NewMultiHandler(handler, &troubleHandler{tell: func(t Trouble) { events(t.Level, t.Text) }})
	}
	return slog.New(handler), func() { done(); _ = file.Close() }, nil
}

// logFile is where the log lies in its folder.
func logFile(dir string) string { return filepath.Join(dir, "appliance.log") }

// handler writes records in the form that is wanted; replace may change or drop what they hold.
func (cfg *LogConfig) handler(w io.Writer, replace func([]string, slog.Attr) slog.Attr) slog.Handler {
	if w == nil {
		w = io.Discard
	}
	options := &slog.HandlerOptions{Level: cfg.Level, ReplaceAttr: replace}
	if cfg.JSON {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

// isEveryday knows the messages of warnings that every mail server has many times a day.
func isEveryday(message string) bool {
	return message == "rejected" || message == "bounced"
}

// maxRecordText bounds what is kept of a record, in bytes.
const maxRecordText = 500

// recordText is a record in one line: its message, and its attributes after those that the log has.
func recordText(attrs string, r slog.Record) string {
	var text strings.Builder
	text.WriteString(r.Message)
	text.WriteString(attrs)
	r.Attrs(func(a slog.Attr) bool {
		text.WriteString(attrsText([]slog.Attr{a}))
		return text.Len() < maxRecordText
	})
	line := strings.ToValidUTF8(strings.Join(strings.Fields(text.String()), " "), "?")
	if len(line) > maxRecordText {
		line = strings.ToValidUTF8(line[:maxRecordText], "") + "…"
	}
	return line
}

func attrsText(attrs []slog.Attr) string {
	var text strings.Builder
	for _, a := range attrs {
		if a.Key != "stack" {
			_, _ = fmt.Fprintf(&text, " %s=%v", a.Key, a.Value)
		}
	}
	return text.String()
}
