package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
)

// TestQueueUnreadForNow sees that a record which cannot be read for the moment is sent later, and that a damaged one is told.
func TestQueueUnreadForNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := openQueueWorld(t)
		id := w.submit(envelopeTo("ann@test.lan", "a@one.example"))
		cut := w.submit(envelopeTo("ann@test.lan", "b@one.example"))
		state, hidden := filepath.Join(w.dir, id+queueState), filepath.Join(t.TempDir(), "hidden")
		if err := errors.Join(os.Rename(state, hidden), os.Mkdir(state, 0o700), // reading a folder fails, and not for its text
			os.WriteFile(filepath.Join(w.dir, cut+queueState), []byte("{"), 0o600)); err != nil {
			t.Fatal(err)
		}
		w.reopen()
		var told []string
		w.queue.cfg.Damaged = func(ids []string) { told = append(told, ids...) }
		if err := errors.Join(os.Remove(state), os.Rename(hidden, state)); err != nil {
			t.Fatalf("it was set aside: %v", err)
		}
		w.queue.sweep(t.Context())
		w.run()
		synctest.Wait()
		w.stop()
		if w.sentTimes("a@one.example") != 1 {
			t.Error("not sent when it can be read")
		}
		if len(told) != 1 || told[0] != cut {
			t.Errorf("told of %q, want %q", told, cut)
		}
	})
}
