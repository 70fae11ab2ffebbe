package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// The doctor's daily look, while the appliance runs: what it finds decides how mail goes out, lies on disk, and is told to
// the owner by mail where it has changed.

const (
	dailyFirst   = 90 * time.Second // after the start: whoever starts has other things to do
	dailySpread  = time.Minute      // and up to this much more
	dailyEvery   = 24 * time.Hour
	dailyJitter  = time.Hour      // so that not all appliances ask at the same time
	dailyConfirm = time.Hour      // a change is looked at again before anybody is told
	dailyMailGap = 23 * time.Hour // between two mails
	dailyMaxFile = 1 << 20        // octets of doctor.json
)

// DailyCheck looks once a day. Its exported fields are set before Run. Safe for concurrent use.
type DailyCheck struct {
	Doctor   *Doctor
	Tell     func(subject, text string) error // writes to the owner
	Reopened func()                           // other servers can be reached again; nil: nobody waits for that
	Log      *slog.Logger

	first  time.Duration // from the start to the first look, 0: dailyFirst and some more
	file   string        // DATA/doctor.json
	mu     sync.Mutex
	record checkRecord
}

// checkRecord is what doctor.json holds. The states are StateOK, StateWarn and StateBad, by Finding.key; what is not there is
// StateOK.
type checkRecord struct {
	Last   *Diagnosis              `json:"last,omitempty"`
	Port25 Answer                  `json:"port_25,omitempty"` // what was known last
	IPv6   Answer                  `json:"ipv6,omitempty"`
	Seen   map[string]FindingState `json:"seen,omitempty"` // at the last look that could tell
	Told   map[string]FindingState `json:"told,omitempty"` // that the owner knows of
	Mailed time.Time               `json:"mailed,omitzero"`
}

// OpenDailyCheck reads what was found last. A file that cannot be read is as none: it is written again tomorrow.
func OpenDailyCheck(file string, log *slog.Logger) *DailyCheck {
	c := &DailyCheck{file: file, Log: log}
	if err := readJSON(file, dailyMaxFile, &c.record); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.record = checkRecord{}
		log.Warn("what the doctor found last cannot be read; it looks again", "file", file, "error", err)
	}
	return c
}

// Last gives what was found last, nil before the first time.
func (c *DailyCheck) Last() *Diagnosis {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record.Last
}

// NoIPv6 says whether others refuse mail from our IPv6 address, which has no name that leads back to it.
func (c *DailyCheck) NoIPv6() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record.IPv6 == AnswerNo
}

// Closed says whether port 25 is known to be closed on the way out.
func (c *DailyCheck) Closed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record.Port25 == AnswerNo
}

// Run looks soon after the start and then once a day, until ctx ends. It sleeps in between. A change is looked at once more
// after an hour.
func (c *DailyCheck) Run(ctx context.Context) {
	wait, confirming := c.first, false
	if wait == 0 {
		wait = dailyFirst + rand.N(dailySpread)
	}
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		confirming = c.look(ctx) && !confirming
		if wait = dailyEvery + rand.N(dailyJitter); confirming {
			wait = dailyConfirm
		}
	}
}

// look examines all, and tells what has changed. open says that something is to be confirmed.
func (c *DailyCheck) look(ctx context.Context) (open bool) {
	d, err := c.Doctor.Examine(ctx)
	if ctx.Err() != nil { // a shutdown makes everything unknown
		return false
	}
	if err != nil {
		c.Log.Error("the daily check could not be done", "error", err)
		return false
	}
	c.Log.Info("checked", "bad", d.count(StateBad), "warn", d.count(StateWarn), "port25", d.Port25)
	news, open := c.learn(d, true)
	if len(news) > 0 && d.When.Sub(c.mailed()).Abs() >= dailyMailGap {
		c.tell(news, d.When)
	}
	c.save()
	return open
}

func (c *DailyCheck) mailed() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record.Mailed
}

// Learn takes over what a command has found: the way out may be another one now. Nobody is told by mail of what somebody has
// just seen.
func (c *DailyCheck) Learn(d *Diagnosis) {
	c.learn(d, false)
	c.save()
}

// Examine looks at once, for somebody who waits to see it.
func (c *DailyCheck) Examine(ctx context.Context) error {
	d, err := c.Doctor.Examine(ctx)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		c.Learn(d)
	}
	return err
}

// change is a finding that is not what the owner knows.
type change struct {
	Finding
	better bool
}

// learn takes over what was found, and gives what has changed for the owner: that two looks agree about. open says that
// something more has changed by one look alone. Unless compare, nothing is compared.
func (c *DailyCheck) learn(d *Diagnosis, compare bool) (news []change, open bool) {
	c.mu.Lock()
	r := &c.record
	reopened := r.Port25 == AnswerNo && d.Port25 == AnswerYes
	r.Last = d
	if d.Port25 != AnswerUnknown {
		r.Port25 = d.Port25
	}
	if d.IPv6 != AnswerUnknown {
		r.IPv6 = d.IPv6
	}
	if compare {
		news, open = r.compare(d)
	}
	c.mu.Unlock()
	if reopened && c.Reopened != nil {
		c.Reopened()
	}
	return news, open
}

// compare holds findings against the last ones and what the owner knows.
func (r *checkRecord) compare(d *Diagnosis) (news []change, open bool) {
	seen := map[string]FindingState{}
	told := map[string]FindingState{}
	for i := range d.Findings {
		f := &d.Findings[i]
		key, weight := f.key(), f.State.weight()
		if _, twice := seen[key]; twice {
			continue
		}
		told[key] = stateOr(r.Told, key, StateOK)
		if weight == StateUnknown { // the last one that could tell stands
			seen[key] = stateOr(r.Seen, key, told[key])
			continue
		}
		seen[key] = weight
		switch {
		case weight == told[key]:
		case r.Seen[key] == weight:
			news = append(news, change{*f, weight == StateOK || weight == StateWarn && told[key] == StateBad})
		default:
			open = true
		}
	}
	if d.reachesDNS() { // else much was not looked at
		r.Seen, r.Told = seen, told
		return news, open
	}
	for key := range seen {
		r.Seen, r.Told = withState(r.Seen, key, seen[key]), withState(r.Told, key, told[key])
	}
	return news, open
}

func stateOr(states map[string]FindingState, key string, or FindingState) FindingState {
	if s, ok := states[key]; ok {
		return s
	}
	return or
}

func withState(states map[string]FindingState, key string, s FindingState) map[string]FindingState {
	if states == nil {
		states = map[string]FindingState{}
	}
	states[key] = s
	return states
}

// reachesDNS says whether the checks that need the DNS were done.
func (d *Diagnosis) reachesDNS() bool {
	return slices.ContainsFunc(d.Findings, func(f Finding) bool { return f.Name == "outbound" })
}

// key tells findings apart from one day to the next. At home the addresses change.
func (f *Finding) key() string {
	if a, err := netip.ParseAddr(f.Subject); err == nil {
		if a.Is4() {
			return f.Name + " IPv4"
		}
		return f.Name + " IPv6"
	}
	return strings.TrimSpace(f.Name + " " + f.Subject)
}

// weight is what a change of state is measured by: a note is nobody's trouble.
func (s FindingState) weight() FindingState {
	if s == StateNote {
		return StateOK
	}
	return s
}

// tell writes to the owner. What could not be told is told another time.
func (c *DailyCheck) tell(news []change, now time.Time) {
	subject, text := changeWords(news)
	if err := c.Tell(subject, text); err != nil {
		c.Log.Error("the owner could not be told what the daily check found", "error", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range news {
		c.record.Told = withState(c.record.Told, news[i].key(), news[i].State.weight())
	}
	c.record.Mailed = now
}

// changeWords makes the mail.
func changeWords(news []change) (subject, text string) {
	var b strings.Builder
	subject = "The mail server: in order again"
	b.WriteString("The daily check has found that something has changed.\n")
	for _, part := range []struct {
		title  string
		better bool
	}{{"This is not as it should be:", false}, {"This is better now:", true}} {
		title := part.title
		for i := range news {
			if news[i].better != part.better {
				continue
			}
			if !part.better {
				subject = "The mail server: something needs a look"
			}
			if title != "" {
				b.WriteString("\n" + title + "\n")
				title = ""
			}
			b.WriteString("\n" + wrapWords("  * ", "    ", news[i].Sentence) + "\n")
			if news[i].Do != "" && !part.better {
				b.WriteString("\n" + wrapWords("    ", "    ", news[i].Do) + "\n")
			}
		}
	}
	b.WriteString("\nThis shows all that is checked:\n\n  appliance doctor\n")
	return subject, b.String()
}

// textWidth is how long the lines of texts for people are.
const textWidth = 78

// wrapWords breaks a text into lines: the first begins with first, the others with rest. Words that are longer stay whole.
func wrapWords(first, rest, text string) string {
	var lines []string
	line, empty := first, true
	for _, word := range strings.Fields(text) {
		if !empty && len([]rune(line))+1+len([]rune(word)) > textWidth {
			lines = append(lines, line)
			line, empty = rest, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	return strings.Join(append(lines, line), "\n")
}

// save puts the record on disk, once a day.
func (c *DailyCheck) save() {
	c.mu.Lock()
	record := c.record
	record.Seen, record.Told = maps.Clone(record.Seen), maps.Clone(record.Told)
	c.mu.Unlock()
	if err := writeJSON(c.file, &record); err != nil {
		c.Log.Error("what the doctor found cannot be written down", "error", fmt.Errorf("writing %s: %w", c.file, err))
	}
}
