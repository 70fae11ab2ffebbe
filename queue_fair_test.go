package main

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// deadAre makes tries for all destinations but one take ten minutes and bring nothing.
func (w *queueWorld) deadAre(allBut string, healthy Outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.send = func(dest string, m *Outgoing) []Outcome {
		if dest == allBut {
			return sameOutcome(len(m.Recipients), healthy)
		}
		time.Sleep(10 * time.Minute)
		return sameOutcome(len(m.Recipients), Outcome{Text: "Nobody answers", Unreachable: true})
	}
}

// submitDead queues a message to each of n destinations that do not answer.
func (w *queueWorld) submitDead(n int) {
	for i := range n {
		w.submit(envelopeTo("ann@test.lan", fmt.Sprintf("u@down%d.example", i)))
	}
}

// TestQueueSuspectsHoldNobodyUp sees that very many destinations which do not answer again leave a retry for another one its time.
func TestQueueSuspectsHoldNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := openQueueWorld(t)
		w.deadAre("up.example", Outcome{Code: 451, Text: "later"})
		w.run()
		defer func() { w.stop() }()
		w.submitDead(3 * queueSuspects)
		time.Sleep(time.Hour)
		w.submit(envelopeTo("ann@test.lan", "a@up.example"))
		synctest.Wait()
		w.deadAre("up.example", Outcome{State: SendSent})
		time.Sleep(2 * queueGaps[0])
		if n := w.sentTimes("a@up.example"); n != 1 {
			t.Errorf("sent %d times after the first gap: %v", n, w.queue.List()[w.queue.Len()-1])
		}
	})
}

// TestQueueKnownKeepSlots sees that new destinations which do not answer leave slots to those that have answered.
func TestQueueKnownKeepSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := openQueueWorld(t)
		w.deadAre("up.example", Outcome{State: SendSent})
		w.run()
		defer func() { w.stop() }()
		w.submit(envelopeTo("ann@test.lan", "a@up.example"))
		synctest.Wait()
		w.submitDead(2 * queueAtOnce)
		synctest.Wait()
		if n := len(w.tried()) - 1; n != queueUnproven {
			t.Errorf("%d tries for new destinations, want %d", n, queueUnproven)
		}
		w.submit(envelopeTo("ann@test.lan", "b@up.example"))
		synctest.Wait()
		if w.sentTimes("b@up.example") != 1 {
			t.Error("not sent while new destinations do not answer")
		}
		time.Sleep(2 * time.Hour)
		if tries := w.tried(); len(tries) < 2*queueAtOnce+2 {
			t.Errorf("%d tries in all: not every destination was asked", len(tries))
		}
	})
}

// TestQueueKnownIsBounded sees that what is known of destinations takes no more room than is set.
func TestQueueKnownIsBounded(t *testing.T) {
	w := openQueueWorld(t)
	answer := []Outcome{{State: SendSent}}
	for i := range queueKnown + 10 {
		w.queue.noteReached(w.queue.dest(fmt.Sprintf("d%d.example", i)), answer, time.Now(), false)
	}
	if n := len(w.queue.answered); n != queueKnown {
		t.Errorf("%d are known, want %d", n, queueKnown)
	}
}
