package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// How it goes with the accounts that mail is collected from: when to look again, and what to tell whom. It is kept in
// DATA/collect/ID.json, so that a wrong password is not tried anew with each start. It is written when something changed
// that the next start has to know, not with each look.

const (
	statusSuffix    = ".json"
	maxStatusFile   = 64 << 10       // octets
	collectTellFrom = 24 * time.Hour // of trouble, until its owner is told
	collectGapMost  = time.Hour      // between two tries while the network fails
	collectSetupGap = 4 * time.Hour  // while something is wrong that people have to mend

	collectGapLongest = 24 * time.Hour // between two tries, whatever is wrong
)

// CollectStatus is how it goes with one source.
type CollectStatus struct {
	Fetched int64     `json:"fetched"`           // messages since it was added
	Looked  time.Time `json:"looked,omitzero"`   // the last time that went well, since the start
	Waiting bool      `json:"waiting,omitempty"` // for news, over an open connection (IDLE)

	Reason string    `json:"reason,omitempty"` // a sentence why the last look failed, "" if it went well
	Since  time.Time `json:"since,omitzero"`   // when that began
	Tries  int       `json:"tries,omitempty"`  // since then
	Next   time.Time `json:"next,omitzero"`    // the next look
	Told   bool      `json:"told,omitempty"`   // its owner has been written to

	Large  int `json:"large,omitempty"`  // messages that stay over there: larger than what is taken
	Failed int `json:"failed,omitempty"` // that the server does not give
	Stay   int `json:"stay,omitempty"`   // that it does not delete
}

// mended forgets what went wrong.
func (s *CollectStatus) mended() {
	s.Reason, s.Since, s.Tries, s.Next, s.Told = "", time.Time{}, 0, time.Time{}, false
}

// collectGap is the time until the next try, after so many that failed in a row. Providers lock an account after some
// wrong passwords: that is tried five times in the first two days.
func collectGap(fault outsideFault, tries int, every time.Duration) time.Duration {
	switch fault {
	case faultLogin:
		gaps := [...]time.Duration{30 * time.Minute, 2 * time.Hour, 6 * time.Hour, 16 * time.Hour, 24 * time.Hour}
		return gaps[min(max(tries, 1), len(gaps))-1]
	case faultSetup:
		return min(time.Hour<<min(max(tries, 1)-1, 10), collectSetupGap)
	}
	return max(every, min(every<<min(max(tries, 1)-1, 10), collectGapMost))
}

// settle notes how a look went, and when the next one comes. The lock is held.
func (c *Collector) settle(job *collectJob, source *CollectSource, began time.Time, more bool, err error) {
	now := c.cfg.Now()
	status := &job.status
	if err == nil {
		c.worked(source, status)
		if job.next = now; !more {
			job.next = began.Add(source.every())
		}
		return
	}
	if status.Reason == "" {
		status.Since = now
	}
	status.Reason = collectWords(source, err)
	status.Tries++
	status.Next = now.Add(collectGap(faultOf(err), status.Tries, source.every()))
	job.next = status.Next
	c.cfg.Log.Warn("collecting failed", "account", source.Account, "host", source.Host, "tries", status.Tries, "reason", status.Reason)
	if now.Sub(status.Since) >= collectTellFrom && !status.Told {
		status.Told = c.tell(source, status)
	}
	c.writeStatus(source.id(), status)
}

// worked notes that a look went well. The lock is held.
func (c *Collector) worked(source *CollectSource, status *CollectStatus) {
	failed := status.Reason != ""
	status.mended()
	status.Looked = c.cfg.Now()
	if failed {
		c.writeStatus(source.id(), status)
		c.cfg.Log.Info("collecting goes on", "account", source.Account, "host", source.Host)
	}
}

// tell writes to the person once about trouble that lasts.
func (c *Collector) tell(source *CollectSource, status *CollectStatus) bool {
	if c.cfg.Tell == nil || !c.cfg.Accounts.Exists(source.Account) {
		return false
	}
	text := fmt.Sprintf(`Mail from your account %[1]s at %[2]s has not come here since %[3]s:

  %[4]s.

It is tried again by itself, and nothing is lost: the mail waits over there. If the
password there is a new one, tell it here:

  appliance %[5]s

This message comes once. This shows how it goes:

  appliance collect list
`, source.Login, source.Host, status.Since.Local().Format("2 January, 15:04"), status.Reason, source.command())
	message := noticeMessage(c.cfg.Hostname, source.Account, "No mail comes from "+source.Host, text, c.cfg.Now())
	if err := c.cfg.Tell(source.Account, message); err != nil {
		c.cfg.Log.Error("somebody could not be told that no mail is collected", "account", source.Account, "err", err)
		return false
	}
	return true
}

// readStatus reads how it went; one that cannot be read is none.
func (c *Collector) readStatus(id string) (status CollectStatus) {
	path := filepath.Join(c.cfg.Dir, id+statusSuffix)
	switch err := readJSON(path, maxStatusFile, &status); {
	case errors.Is(err, fs.ErrNotExist):
		return status
	case err != nil:
		c.cfg.Log.Warn("how collecting went is forgotten", "file", path, "err", err)
		return CollectStatus{}
	}
	status.Waiting = false
	return status
}

// writeStatus keeps how it goes. Nothing but the patience with trouble depends on it.
func (c *Collector) writeStatus(id string, status *CollectStatus) {
	err := makeDirs(c.cfg.Dir)
	if err == nil {
		err = writeJSON(filepath.Join(c.cfg.Dir, id+statusSuffix), status)
	}
	if err != nil {
		c.cfg.Log.Warn("how collecting goes cannot be written", "err", err)
	}
}
