package main

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// acmeLogger lets certmagic, which speaks to zap alone, write into our log, at the level debug whatever it thinks of it:
// what people need to know is said in one sentence elsewhere.
func acmeLogger(log *slog.Logger) *zap.Logger { return zap.New(acmeLog{log}) }

// acmeLog is a core of zap's on top of slog. It keeps no state.
type acmeLog struct{ log *slog.Logger }

func (l acmeLog) Enabled(zapcore.Level) bool {
	return l.log.Enabled(context.Background(), slog.LevelDebug)
}

func (l acmeLog) With(fields []zapcore.Field) zapcore.Core {
	return acmeLog{l.log.With(zapFields(fields)...)}
}

func (l acmeLog) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if l.Enabled(e.Level) {
		return checked.AddCore(e, l)
	}
	return checked
}

func (l acmeLog) Write(e zapcore.Entry, fields []zapcore.Field) error {
	l.log.Debug("acme: "+e.Message, append(zapFields(fields), "by", e.LoggerName, "level", e.Level.String())...)
	return nil
}

func (acmeLog) Sync() error { return nil }

// zapFields gives fields as slog takes them.
func zapFields(fields []zapcore.Field) []any {
	out := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(out)
	}
	var args []any
	for key, value := range out.Fields {
		args = append(args, slog.Any(key, value))
	}
	return args
}
