package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestStorageNames(t *testing.T) {
	for part, want := range map[string]string{
		"mail.example.org": "mail.example.org", "maria@example.org": "maria@example.org", "a_b+c-d": "a_b+c-d",
		"127.0.0.1:14000-dir": "127.0.0.1_14000-dir", "*.example.org": "_.example.org", "a/b\\c": "a_b_c",
		"..": "__", "../x": "__x_", "con.example.org": "_con.example.org", "NUL": "_NUL", "x.": "_x_", "": "",
	} {
		got := storageName(part)
		if got != want {
			t.Errorf("storageName(%q) = %q, want %q", part, got, want)
		}
		if again := storageName(got); again != got {
			t.Errorf("storageName(%q) = %q: it is one already", got, again)
		}
	}
}

func TestStorage(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "acme")
	s := newACMEStorage(dir)
	if _, err := s.Load(ctx, "a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	if _, err := s.List(ctx, "a", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	for _, key := range []string{"a/b/c.crt", "a/b/c.key", "a/con.x/n", "../../outside/x"} {
		if err := s.Store(ctx, key, []byte(key)); err != nil {
			t.Fatal(err)
		}
		if text, err := s.Load(ctx, key); err != nil || string(text) != key {
			t.Errorf("%s: %q, %v", key, text, err)
		}
		if !s.Exists(ctx, key) {
			t.Errorf("%s is not there", key)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "..", "..", "outside")); err == nil {
		t.Error("a key leads out of the folder")
	}
	for _, test := range []struct {
		recursive bool
		want      string
	}{{true, "a/_con.x a/_con.x/n a/b a/b/c.crt a/b/c.key"}, {false, "a/_con.x a/b"}} {
		keys, err := s.List(ctx, "a", test.recursive)
		if slices.Sort(keys); err != nil || strings.Join(keys, " ") != test.want {
			t.Errorf("list: %q, %v", keys, err)
		}
	}
	if info, err := s.Stat(ctx, "a/b"); err != nil || info.IsTerminal || info.Key != "a/b" {
		t.Errorf("stat: %+v, %v", info, err)
	}
	if info, err := s.Stat(ctx, "a/b/c.crt"); err != nil || !info.IsTerminal || info.Size != 9 {
		t.Errorf("stat: %+v, %v", info, err)
	}
	for range 2 {
		if err := s.Delete(ctx, "a/b"); err != nil || s.Exists(ctx, "a/b/c.crt") {
			t.Errorf("delete: %v", err)
		}
	}
}

func TestStorageLocks(t *testing.T) {
	s := newACMEStorage(t.TempDir())
	if err := s.Lock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if err := s.Lock(t.Context(), "y"); err != nil {
		t.Error("another lock waits")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Lock(ended, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits any more: %v", err)
	}
	const waiting = 10
	held, done := 0, make(chan error, waiting) // held is guarded by the lock itself
	for range waiting {
		go func() {
			err := s.Lock(context.WithoutCancel(ended), "x")
			held++
			if held != 1 {
				err = errors.New("two have it")
			}
			held--
			done <- errors.Join(err, s.Unlock(ended, "x"))
		}()
	}
	if err := s.Unlock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	for range waiting {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := s.Unlock(t.Context(), "x"); err == nil {
		t.Error("what nobody has was unlocked")
	}
}

// What certmagic thinks is an error is for those who look for one.
func TestACMELog(t *testing.T) {
	for level, want := range map[slog.Level]string{
		slog.LevelDebug: "level=DEBUG msg=\"acme: it went wrong\" name=x try=3 by=obtain level=error\n", slog.LevelInfo: "",
	} {
		var out lockedBuffer
		log := acmeLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})))
		log.Named("obtain").With(zap.String("name", "x")).Error("it went wrong", zap.Int("try", 3))
		if got := out.String(); got != want {
			t.Errorf("at %s: %q", level, got)
		}
	}
}
