package main

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// contextClient is a client that believes nothing but what it is told, and checks that it fits together.
type contextClient struct {
	*imapLine
	t    *testing.T
	n    int
	rnd  *rand.Rand
	uids []uint32 // by sequence number; 0: not told yet
	flag map[uint32]string
	tag  int

	qresync bool // VANISHED comes instead of EXPUNGE
	eager   bool // EXPUNGE comes at any time: NOTIFY

	contexts map[string]*modelContext // by tag
	found    []uint32                 // by the last ESEARCH without a context
}

var (
	modelFetch  = regexp.MustCompile(`^\* (\d+) FETCH \(UID (\d+) FLAGS \(([^)]*)\)( MODSEQ \(\d+\))?\)$`)
	modelSilent = regexp.MustCompile(`^\* \d+ FETCH \(UID \d+ MODSEQ \(\d+\)\)$`) // of one's own STORE .SILENT
	modelGone   = regexp.MustCompile(`^\* VANISHED ([\d,:]+)$`)
	modelCount  = regexp.MustCompile(`^\* (\d+) (EXISTS|EXPUNGE|RECENT)$`)
)

// run sends a command and takes the responses to it in.
func (m *contextClient) run(command string) (reply string, ok bool) {
	m.tag++
	tag := fmt.Sprintf("s%d.%d", m.n, m.tag)
	if _, err := fmt.Fprintf(m, "%s %s\r\n", tag, command); err != nil {
		m.t.Errorf("%s: %v", command, err)
		return "", false
	}
	mayExpunge := m.eager || !strings.HasPrefix(command, "STORE") && !strings.HasPrefix(command, "FETCH")
	for {
		line, err := m.r.ReadString('\n')
		if err != nil {
			m.t.Errorf("session %d, %s: %v", m.n, command, err)
			return "", false
		}
		line = strings.TrimRight(line, "\r\n")
		if rest, done := strings.CutPrefix(line, tag+" "); done {
			return rest, true
		}
		if strings.HasPrefix(line, "+ ") {
			time.Sleep(time.Duration(m.rnd.IntN(30)) * time.Millisecond)
			fmt.Fprintf(m, "DONE\r\n")
			continue
		}
		if !m.take(line, mayExpunge) {
			m.t.Errorf("session %d, %s: unexpected %q with %d messages", m.n, command, line, len(m.uids))
			return "", false
		}
	}
}

// take updates the model by an untagged response; false when it does not fit.
func (m *contextClient) take(line string, mayExpunge bool) bool {
	if c := modelCount.FindStringSubmatch(line); c != nil {
		n, _ := strconv.Atoi(c[1])
		switch c[2] {
		case "EXISTS":
			if n < len(m.uids) {
				return false
			}
			m.uids = append(m.uids, make([]uint32, n-len(m.uids))...)
		case "EXPUNGE":
			if !mayExpunge || m.qresync || n < 1 || n > len(m.uids) {
				return false
			}
			delete(m.flag, m.uids[n-1])
			m.uids = slices.Delete(m.uids, n-1, n)
			return m.shift(n)
		}
		return true
	}
	if strings.HasPrefix(line, "* ESEARCH ") {
		return m.takeResults(line)
	}
	if gone := modelGone.FindStringSubmatch(line); gone != nil {
		return mayExpunge && m.qresync && m.vanish(gone[1])
	}
	if modelSilent.MatchString(line) {
		return true
	}
	f := modelFetch.FindStringSubmatch(line)
	if f == nil {
		return strings.HasPrefix(line, "* OK [") || strings.HasPrefix(line, "* FLAGS ")
	}
	seq, _ := strconv.Atoi(f[1])
	uid, _ := strconv.ParseUint(f[2], 10, 32)
	if seq < 1 || seq > len(m.uids) || m.uids[seq-1] != 0 && m.uids[seq-1] != uint32(uid) {
		return false
	}
	for i, have := range m.uids { // known UIDs ascend
		if have != 0 && (i < seq-1 && have >= uint32(uid) || i > seq-1 && have <= uint32(uid)) {
			return false
		}
	}
	m.uids[seq-1] = uint32(uid)
	flags := strings.Fields(f[3])
	flags = slices.DeleteFunc(flags, func(f string) bool { return f == `\Recent` })
	slices.Sort(flags)
	m.flag[uint32(uid)] = strings.Join(flags, " ")
	return true
}

// vanish takes a set of UIDs out of the model. One that it was not told stands where it has its place among the others.
func (m *contextClient) vanish(set string) bool {
	for _, r := range testSet(m.t, set) {
		for uid := uint32(r.Start); uid <= uint32(r.Stop); uid++ {
			at := slices.Index(m.uids, uid)
			for i := 0; at < 0 && i < len(m.uids) && m.uids[i] < uid; i++ {
				if m.uids[i] == 0 && !slices.ContainsFunc(m.uids[i:], func(u uint32) bool { return u != 0 && u < uid }) {
					at = i
				}
			}
			if at < 0 {
				return false
			}
			delete(m.flag, uid)
			m.uids = slices.Delete(m.uids, at, at+1)
			if !m.shift(at + 1) {
				return false
			}
		}
	}
	return true
}

// change does something at random.
func (m *contextClient) change() bool {
	n := len(m.uids)
	seq := 1 + m.rnd.IntN(max(n, 1))
	set := fmt.Sprint(seq)
	if n > 3 && m.rnd.IntN(3) == 0 {
		set = fmt.Sprintf("%d:%d", seq, min(n, seq+m.rnd.IntN(4)))
	}
	flags := []string{`\Seen`, `\Flagged`, `\Answered`, "$Label", `\Deleted`}[m.rnd.IntN(5)]
	op := m.rnd.IntN(10)
	if n < 5 || n == 0 {
		op = 0
	}
	var command string
	switch op {
	case 0:
		text := fmt.Sprintf("Subject: %d of session %d\r\n\r\nhello\r\n", m.tag, m.n)
		command = fmt.Sprintf("APPEND INBOX (%s) {%d+}\r\n%s", flags, len(text), text)
	case 1, 2:
		command = fmt.Sprintf("STORE %s %sFLAGS (%s)", set, []string{"+", "-", ""}[m.rnd.IntN(3)], flags)
	case 3:
		command = fmt.Sprintf("UID STORE %d:* +FLAGS (%s)", 1+m.rnd.IntN(100), flags)
	case 4:
		command = fmt.Sprintf("COPY %d INBOX", seq)
	case 5:
		command = fmt.Sprintf("MOVE %d %s", seq, []string{"INBOX", "Archive"}[m.rnd.IntN(2)])
	case 6:
		command = "EXPUNGE"
	case 7:
		command = "IDLE"
	case 8:
		command = "NOOP"
	case 9:
		command = fmt.Sprintf("FETCH %s (UID FLAGS)", set)
	}
	return m.works(command)
}

// works runs a command that must succeed, but for messages that are gone.
func (m *contextClient) works(command string) bool {
	n := len(m.uids)
	reply, ok := m.run(command)
	if ok && !strings.HasPrefix(reply, "OK") && !strings.HasPrefix(reply, "NO [EXPUNGEISSUED]") {
		m.t.Errorf("session %d, %s with %d messages: %s", m.n, command, n, reply)
		return false
	}
	return ok
}
