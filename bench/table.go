package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// results are the values that were measured, by name.
type results map[string][]float64

// readResults reads what run and loop have printed.
func readResults(path string) (results, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := results{}
	in := bufio.NewScanner(f)
	for in.Scan() {
		name, value, _ := strings.Cut(in.Text(), " ")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is no result", path, in.Text())
		}
		r[name] = append(r[name], v)
	}
	return r, in.Err()
}

// median gives the median of a name's values; ok is false when there is none.
func (r results) median(name string) (m float64, ok bool) {
	values := slices.Sorted(slices.Values(r[name]))
	if len(values) == 0 {
		return 0, false
	}
	return values[len(values)/2], true
}

// unit is how values are shown.
type unit int

const (
	milliseconds unit = iota // of values in seconds
	perSecond
	kibibytes // of values in bytes
)

func (u unit) show(v float64) string {
	switch u {
	case perSecond:
		return fmt.Sprintf("%.0f/s", v)
	case kibibytes:
		return fmt.Sprintf("%.0f KiB", v/1024)
	}
	switch ms := v * 1000; {
	case ms < 1:
		return fmt.Sprintf("%.3f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.2f ms", ms)
	default:
		return fmt.Sprintf("%.0f ms", ms)
	}
}

// row is a line of the table.
type row struct {
	work  string
	name  string
	other string // what it is set against, where that is no result of the other server: one of our own
	unit  unit

	// The goal, zero for none: bounds of ours divided by theirs, or of ours alone.
	atMost, atLeast, ours float64
}

// mark says whether a bound is kept.
func mark(ok bool) string {
	if ok {
		return "ok"
	}
	return "missed"
}

// judge gives the goal in words and whether it is reached.
func (r row) judge(ours, ratio float64) (goal, verdict string) {
	switch {
	case r.ours > 0:
		return "< " + r.unit.show(r.ours), mark(ours < r.ours)
	case r.atMost > 0:
		return fmt.Sprintf("≤ %.4g", r.atMost), mark(ratio <= r.atMost)
	case r.atLeast > 0:
		return fmt.Sprintf("≥ %.4g", r.atLeast), mark(ratio >= r.atLeast)
	}
	return "", ""
}

// rows are the goals, each with its work, in the order of the table.
func rows() []row {
	return []row{
		{work: "first open of the large mailbox, no index, no UIDs", name: "open_bare", atMost: 1},
		{work: "first open, UIDs but no index", name: "open_no_index", atMost: 1},
		{work: "first open after a restart, with the index", name: "open_restart", ours: 0.080},
		{work: "any later open", name: "reopen", ours: 0.003},
		{work: "FETCH 1:* (UID FLAGS)", name: "fetch_flags", atMost: 0.7},
		{work: "FETCH 1:* (… ENVELOPE)", name: "fetch_envelope", atMost: 0.7},
		{work: "FETCH 1:* header fields as Thunderbird", name: "fetch_headers", atMost: 0.7},
		{work: "FETCH 1:* BODYSTRUCTURE", name: "fetch_bodystructure", atMost: 0.7},
		{work: "FETCH 1:* BODY.PEEK[]", name: "fetch_body", atMost: 1},
		{work: "SEARCH FROM", name: "search_from", atMost: 0.5},
		{work: "SEARCH SUBJECT", name: "search_subject", atMost: 0.5},
		{work: "SEARCH BODY, a frequent word", name: "search_body", atMost: 0.1},
		{work: "SEARCH TEXT, no hit", name: "search_text_miss", atMost: 0.1},
		{work: "the first time: FETCH ENVELOPE", name: "first_fetch_envelope"},
		{work: "the first time after it: header fields", name: "first_fetch_headers"},
		{work: "the first time after it: BODYSTRUCTURE", name: "first_fetch_bodystructure"},
		{work: "the first time after it: SEARCH BODY", name: "first_search_body"},
		{work: "STORE 1:* +FLAGS.SILENT", name: "store", atMost: 0.7},
		{work: "COPY 1:1000", name: "copy", atMost: 0.7},
		{work: "EXPUNGE of 1,000", name: "expunge", atMost: 0.7},
		{work: "APPEND, one connection", name: "append_1", atMost: 1},
		{work: "APPEND, four connections, one folder", name: "append_4", atMost: 0.5},
		{work: "connect, TLS, log in, select", name: "login", atMost: 0.3},
		{work: "POP3 RETR of everything", name: "pop3", atMost: 0.2},
		{work: "POP3 RETR of everything, pipelined", name: "pop3_pipelined", atMost: 0.2},
		{work: "SMTP accept, 1 connection", name: "smtp_1", unit: perSecond, atLeast: 3},
		{work: "SMTP accept, 8 connections", name: "smtp_8", unit: perSecond, atLeast: 2},
		{work: "SMTP until all is in the mailbox, 1 connection", name: "smtp_arrived_1", unit: perSecond},
		{work: "SMTP until all is in the mailbox, 8 connections", name: "smtp_arrived_8", unit: perSecond},
		{work: "SMTP, 1 connection, to a bare loop", name: "smtp_1", other: "loop_1", unit: perSecond, atLeast: 0.7},
		{work: "SMTP, 8 connections, to a bare loop", name: "smtp_8", other: "loop_1", unit: perSecond, atLeast: 1},
		{work: "SMTP, 8 connections, to eight loops at once", name: "smtp_8", other: "loop_8", unit: perSecond},
		{work: "delivery: large mailbox to one of 100", name: "deliver_many", other: "deliver_few", atMost: 1.2},
		{work: "login: large mailbox to one of 100", name: "login_many", other: "login_few", atMost: 1.2},
		{work: "flag change: large mailbox to one of 100", name: "flag_many", other: "flag_few", atMost: 1.2},
		{work: "news of a delivery: large mailbox to one of 100", name: "noop_many", other: "noop_few", atMost: 1.2},
		{work: "memory of an idle session", name: "memory_session", unit: kibibytes, atMost: 1.0 / 40},
		{work: "memory of the server with all of them", name: "memory", unit: kibibytes},
		{work: "delivery seen by an idling session, from the last dot", name: "notice_from_dot", ours: 0.005},
		{work: "delivery seen by an idling session, from the 250", name: "notice_from_reply"},
	}
}

// printTable prints the medians side by side. What only one of the servers has measured is left out.
func printTable(out io.Writer, oursPath, theirsPath string) error {
	ours, err := readResults(oursPath)
	if err != nil {
		return err
	}
	theirs, err := readResults(theirsPath)
	if err != nil {
		return err
	}
	fmt.Fprint(out, "| work | appliance | other | ratio | goal | |\n|---|---:|---:|---:|---:|---|\n")
	for _, r := range rows() {
		side, other := theirs, r.name
		if r.other != "" {
			side, other = ours, r.other
		}
		a, have := ours.median(r.name)
		b, haveOther := side.median(other)
		if !have || !haveOther {
			continue
		}
		goal, verdict := r.judge(a, a/b)
		ratio := fmt.Sprintf("%.2f", a/b)
		if a/b < 0.1 {
			ratio = fmt.Sprintf("%.4f", a/b)
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s |\n", r.work, r.unit.show(a), r.unit.show(b), ratio, goal, verdict)
	}
	return nil
}
