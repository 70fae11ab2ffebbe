package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What is read of the servers' processes is Linux's: /proc.

// mailPorts are what a server adds its offset to.
var mailPorts = []int{25, 110, 143, 465, 587, 993, 995}

// printOffset finds an offset at random, so that two who look at once do not find the same one. Ports above 32,000 are
// left to connections.
func printOffset(out io.Writer) error {
	for range 1000 {
		offset := 10000 + rand.IntN(22000-mailPorts[len(mailPorts)-1])
		if free(offset) {
			_, err := fmt.Fprintln(out, offset)
			return err
		}
	}
	return errors.New("no free ports are found")
}

func free(offset int) bool {
	for _, port := range mailPorts {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+offset)))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

// process is what is asked of one.
type process struct {
	parent int
	ticks  int64 // of processor time used
}

// processes gives all that run.
func processes() (map[int]process, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(files) == 0 {
		return nil, errors.New("there is no /proc to look at processes with")
	}
	all := make(map[int]process, len(files))
	for _, file := range files {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// The name, in parentheses, may hold anything; behind it stand state, parent, …, utime (14th) and stime.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) < 13 {
			return nil, fmt.Errorf("%s is not understood", file)
		}
		parent, _ := strconv.Atoi(fields[1])
		user, _ := strconv.ParseInt(fields[11], 10, 64)
		system, _ := strconv.ParseInt(fields[12], 10, 64)
		all[pid] = process{parent: parent, ticks: user + system}
	}
	return all, nil
}

// family gives processes and all that descend from them.
func family(roots []int) (map[int]process, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	found := make(map[int]process)
	for pid := range all {
		for up := pid; up != 0; up = all[up].parent {
			if slices.Contains(roots, up) {
				found[pid] = all[pid]
				break
			}
		}
	}
	for _, pid := range roots {
		if _, ok := found[pid]; !ok {
			return nil, fmt.Errorf("process %d does not run", pid)
		}
	}
	return found, nil
}

// settle waits until processes use hardly any processor time, so that what one of them does in the background is not
// counted to what comes next.
func settle(pids []int) error {
	const look, quiet, most = 250 * time.Millisecond, 4, 2 * time.Minute
	before, still := int64(-1), 0
	for end := time.Now().Add(most); time.Now().Before(end); time.Sleep(look) {
		all, err := family(pids)
		if err != nil {
			return err
		}
		now := int64(0)
		for _, p := range all {
			now += p.ticks
		}
		if now-before > 1 { // a hundredth of a second
			still = 0
		} else if still++; still == quiet {
			return nil
		}
		before = now
	}
	return fmt.Errorf("the server has not come to rest in %v", most)
}

// calmShare is how much of the machine's processor time may be in use when something is measured.
const calmShare = 0.08

// awaitCalm waits until the whole machine has done next to nothing for a second, or until patience is over: what else runs
// on it would be counted to the server. It gives the share of processor time in use at the end.
func awaitCalm(patience time.Duration) (float64, error) {
	end := time.Now().Add(patience)
	for {
		share, err := busyShare(time.Second)
		if err != nil || share <= calmShare || time.Now().After(end) {
			return share, err
		}
	}
}

// busyShare gives the share of all processor time that is in use during a while.
func busyShare(while time.Duration) (float64, error) {
	busyBefore, allBefore, err := processorTime()
	if err != nil {
		return 0, err
	}
	time.Sleep(while)
	busy, all, err := processorTime()
	if err != nil || all == allBefore {
		return 0, err
	}
	return float64(busy-busyBefore) / float64(all-allBefore), nil
}

// processorTime reads what the processors have done since the machine was started, in ticks.
func processorTime() (busy, all int64, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	// cpu user nice system idle iowait irq softirq steal …
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, 0, errors.New("/proc/stat is not understood")
	}
	for i, field := range fields[1:9] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
		all += ticks
		if i != 3 && i != 4 {
			busy += ticks
		}
	}
	return busy, all, nil
}

// memory gives the bytes that processes and their children take, what several share being counted once in all (PSS).
func memory(pids []int) (int64, error) {
	all, err := family(pids)
	if err != nil {
		return 0, err
	}
	sum := int64(0)
	for pid := range all {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if errors.Is(err, os.ErrNotExist) {
			continue // it has ended
		}
		if err != nil {
			return 0, err
		}
		n, err := pss(string(text))
		if err != nil {
			return 0, fmt.Errorf("process %d: %w", pid, err)
		}
		sum += n
	}
	return sum, nil
}

// pss reads the line "Pss:  123 kB" of smaps_rollup, in bytes.
func pss(text string) (int64, error) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("smaps_rollup has no Pss")
}

// crowdSize is over how many accounts idle sessions are spread, perHost how many come from one address.
const (
	crowdSize = 25
	perHost   = 100
)

// idling measures the memory of sessions that idle: of all of the server with them, and what it grew by for each of the
// last four fifths. The first ones bring with them what the server needs whatever their number.
func (t *target) idling() error {
	first := t.sessions / 5
	some, err := t.idleSessions(0, first)
	if err != nil {
		return err
	}
	more, err := t.idleSessions(first, t.sessions)
	if err != nil {
		return err
	}
	t.print("memory", float64(more))
	t.print("memory_session", float64(more-some)/float64(t.sessions-first))
	return nil
}

// idleSessions opens sessions, which stay open until the program ends, and gives the server's memory after.
func (t *target) idleSessions(from, to int) (int64, error) {
	for i := from; i < to; i++ {
		host := fmt.Sprintf("127.0.0.%d", 2+i/perHost)
		c, err := t.loginFrom(fmt.Sprintf(t.crowd, i%crowdSize), host, 4<<10)
		if err != nil {
			return 0, err
		}
		t.idlers = append(t.idlers, c)
		if _, err := c.do("SELECT INBOX"); err != nil {
			return 0, err
		}
		if err := c.idle(); err != nil {
			return 0, err
		}
	}
	if err := settle(t.pids); err != nil {
		return 0, err
	}
	return memory(t.pids)
}
