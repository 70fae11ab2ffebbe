package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestQueueOffAtNight sees that mail for a destination that is down comes back from a machine that runs eight hours a day.
func TestQueueOffAtNight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := openQueueWorld(t)
		w.answers(Outcome{Text: "Nobody answers", Unreachable: true})
		for i := range 20 {
			w.submit(envelopeTo("ann@test.lan", fmt.Sprintf("u%d@down.example", i)))
		}
		for day := range 7 {
			if day < 5 && w.queue.Len() != 20 {
				t.Errorf("%d wait on day %d", w.queue.Len(), day)
			}
			w.run()
			time.Sleep(8 * time.Hour)
			w.stop()
			time.Sleep(16 * time.Hour)
			w.reopen()
		}
		failed := 0
		for _, r := range w.reports {
			failed += strings.Count(r, "Action: failed")
		}
		if n := w.queue.Len(); n != 0 || failed != 20 {
			t.Errorf("after a week %d wait and %d have failed", n, failed)
		}
	})
}

// TestQueueDelayRefused sees that a delay which cannot be told is told later, once.
func TestQueueDelayRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := openQueueWorld(t)
		w.refuse = errors.New("disk full")
		w.answers(Outcome{Code: 451, Text: "later"})
		w.run()
		defer func() { w.stop() }()
		w.submit(envelopeTo("ann@test.lan", "a@one.example"))
		time.Sleep(queueDelayTold + 3*queueSweep)
		w.mu.Lock()
		w.refuse = nil
		w.mu.Unlock()
		time.Sleep(5 * queueSweep)
		w.wantReports(1)
	})
}
