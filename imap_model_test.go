package main

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// modelSession is a client that believes nothing but what it is told, and checks that it fits together.
type modelSession struct {
	*imapLine
	t    *testing.T
	n    int
	rnd  *rand.Rand
	uids []uint32 // by sequence number; 0: not told yet
	flag map[uint32]string
	tag  int

	qresync bool // VANISHED comes instead of EXPUNGE
}

var (
	modelFetch = regexp.MustCompile(`^\* (\d+) FETCH \(UID (\d+) FLAGS \(([^)]*)\)( MODSEQ \(\d+\))?\)$`)
	modelGone  = regexp.MustCompile(`^\* VANISHED ([\d,:]+)$`)
	modelCount = regexp.MustCompile(`^\* (\d+) (EXISTS|EXPUNGE|RECENT)$`)
)

// run sends a command and takes the responses to it in.
func (m *modelSession) run(command string) (reply string, ok bool) {
	m.tag++
	tag := fmt.Sprintf("s%d.%d", m.n, m.tag)
	if _, err := fmt.Fprintf(m, "%s %s\r\n", tag, command); err != nil {
		m.t.Errorf("%s: %v", command, err)
		return "", false
	}
	mayExpunge := !strings.HasPrefix(command, "STORE") && !strings.HasPrefix(command, "FETCH")
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
func (m *modelSession) take(line string, mayExpunge bool) bool {
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
		}
		return true
	}
	if gone := modelGone.FindStringSubmatch(line); gone != nil {
		return mayExpunge && m.qresync && m.vanish(gone[1])
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
func (m *modelSession) vanish(set string) bool {
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
		}
	}
	return true
}

// change does something at random.
func (m *modelSession) change() bool {
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
	reply, ok := m.run(command)
	if ok && !strings.HasPrefix(reply, "OK") && !strings.HasPrefix(reply, "NO [EXPUNGEISSUED]") {
		m.t.Errorf("session %d, %s with %d messages: %s", m.n, command, n, reply)
		return false
	}
	return ok
}

// TestIMAPManySessions lets eight sessions change one folder at once. Each checks what it is told against its own model;
// in the end all have the same view.
func TestIMAPManySessions(t *testing.T) {
	s := startIMAP(t)
	mustAdd(t, s.Accounts, "eight@home.lan", imapPassword)
	sessions := make([]*modelSession, 8)
	for n := range sessions {
		c := s.login(t, "eight@home.lan")
		sessions[n] = &modelSession{imapLine: c, t: t, n: n, rnd: rand.New(rand.NewPCG(uint64(n), 7)), flag: map[uint32]string{}}
		if n%2 == 1 {
			c.ok(t, "ENABLE QRESYNC")
			sessions[n].qresync = true
		}
		if reply, ok := sessions[n].run("SELECT INBOX"); !ok || !strings.HasPrefix(reply, "OK") {
			t.Fatal(reply)
		}
	}
	var wg sync.WaitGroup
	end := time.Now().Add(2 * time.Second)
	for _, m := range sessions {
		wg.Go(func() {
			for time.Now().Before(end) && m.change() {
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	// The folder may have ended empty, and FETCH of nothing is refused.
	if reply, ok := sessions[0].run("APPEND INBOX (\\Seen) {4+}\r\nlast"); !ok || !strings.HasPrefix(reply, "OK") {
		t.Fatal(reply)
	}
	for _, m := range sessions {
		for _, command := range []string{"NOOP", "FETCH 1:* (UID FLAGS)", "NOOP"} {
			if reply, ok := m.run(command); !ok || !strings.HasPrefix(reply, "OK") {
				t.Fatalf("session %d, %s: %s", m.n, command, reply)
			}
		}
	}
	want := sessions[0]
	if len(want.uids) == 0 {
		t.Error("nothing is left")
	}
	for _, m := range sessions {
		if !slices.Equal(m.uids, want.uids) {
			t.Errorf("session %d has\n%v, session 0\n%v", m.n, m.uids, want.uids)
		}
		for uid, flags := range want.flag {
			if slices.Contains(m.uids, uid) && m.flag[uid] != flags {
				t.Errorf("session %d has UID %d with (%s), session 0 with (%s)", m.n, uid, m.flag[uid], flags)
			}
		}
	}
	total := 0
	for _, m := range sessions {
		total += m.tag
	}
	t.Logf("%d commands, %d messages", total, len(want.uids))
}
