package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// movedMessages is how many messages a whole mailbox has in the tests of MOVE: as many as take the server some time.
const movedMessages = 1000

// moveClients are two sessions that have the mailbox MV1 selected.
type moveClients struct {
	server *portServer
	a, b   *rawClient
	next   string // UIDNEXT of MV1
}

// startMove fills MV1, as another program would, and opens it twice.
func startMove(t *testing.T) *moveClients {
	t.Helper()
	s := transcriptServer(t, &Protocols{})
	s.store.journalFrom = defaultJournalFrom
	m := &moveClients{server: s, a: s.raw(t, "imap"), b: s.raw(t, "imap")}
	m.a.send("a LOGIN ann@test.lan ann-secret\r\n")
	m.a.until("a OK")
	for _, name := range []string{"MV1", "MV2", "MV3"} {
		m.a.send("a CREATE " + name + "\r\n")
		m.a.until("a OK")
	}
	fillMaildir(t, m.folder("MV1"), movedMessages, 30)
	m.b.send("b LOGIN ann@test.lan ann-secret\r\n")
	m.b.until("b OK")
	m.a.send("a SELECT MV1\r\n")
	m.a.until("a OK")
	m.b.send("b SELECT MV1\r\n")
	m.next = uidNext(t, m.b.until("b OK"))
	return m
}

// folder is the directory of a mailbox of ann's.
func (m *moveClients) folder(name string) string {
	return filepath.Join(m.server.mail, "test.lan", "ann", "."+name)
}

// until reads lines up to the one with this beginning, and gives them all.
func (c *rawClient) until(prefix string) []string {
	c.t.Helper()
	var lines []string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("after %q: %v; want %s", lastLines(lines, 5), err, prefix)
		}
		lines = append(lines, strings.TrimRight(line, "\r\n"))
		if strings.HasPrefix(line, prefix) {
			return lines
		}
		if tag, _, _ := strings.Cut(prefix, " "); strings.HasPrefix(line, tag+" ") {
			c.t.Fatalf("got %q, want %s", line, prefix)
		}
	}
}

// lastLines gives the end of a list.
func lastLines(lines []string, n int) []string { return lines[max(0, len(lines)-n):] }

var uidNextCode = regexp.MustCompile(`\[?UIDNEXT (\d+)`)

func uidNext(t *testing.T, lines []string) string {
	t.Helper()
	found := uidNextCode.FindStringSubmatch(strings.Join(lines, "\n"))
	if found == nil {
		t.Fatalf("no UIDNEXT in %q", lines)
	}
	return found[1]
}

// count asks with STATUS for a number of a mailbox.
func (m *moveClients) count(t *testing.T, name, item string) (n int) {
	t.Helper()
	m.a.send("s STATUS " + name + " (" + item + ")\r\n")
	lines := m.a.until("s OK")
	for _, line := range lines {
		if _, rest, ok := strings.Cut(line, "("+item+" "); ok && strings.HasPrefix(line, "* STATUS") {
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatal(line, err)
			}
			return n
		}
	}
	t.Fatalf("no STATUS in %q", lines)
	return 0
}

// flagged counts the messages of a mailbox that have \Flagged, and those with \Seen.
func (m *moveClients) flagged(t *testing.T, name string) (flagged, seen int) {
	t.Helper()
	c := m.server.raw(t, "imap")
	defer c.Close()
	c.send("c LOGIN ann@test.lan ann-secret\r\n")
	c.until("c OK")
	c.send("c EXAMINE " + name + "\r\n")
	c.until("c OK")
	c.send("d FETCH 1:* (FLAGS)\r\n")
	for _, line := range c.until("d ") {
		if strings.Contains(line, `\Flagged`) {
			flagged++
		}
		if strings.Contains(line, `\Seen`) {
			seen++
		}
	}
	return flagged, seen
}

// TestMoveBesideStore changes flags while a whole mailbox is moved. A change that was answered with OK and its FETCH is
// there afterwards, in whichever mailbox the message is, and the move succeeds and gives no message of its source a new UID.
// Before the move the flags of all messages are changed, so that the files are still to get their names, or not.
func TestMoveBesideStore(t *testing.T) {
	for _, pending := range []bool{true, false} {
		for _, wait := range []time.Duration{4 * time.Millisecond, 12 * time.Millisecond} {
			t.Run(fmt.Sprintf("pending=%t after %v", pending, wait), func(t *testing.T) {
				t.Parallel()
				m := startMove(t)
				if pending {
					m.a.send("a STORE 1:* +FLAGS.SILENT (\\Seen)\r\n")
					m.a.until("a OK")
					m.b.send("b NOOP\r\n")
					m.b.until("b OK")
				}
				m.a.send("a MOVE 1:* MV2\r\n")
				time.Sleep(wait)
				m.b.send(fmt.Sprintf("b UID STORE %d:%d +FLAGS (\\Flagged)\r\n", movedMessages-5, movedMessages))
				told := 0
				for _, line := range m.b.until("b OK") {
					if strings.Contains(line, "FETCH") && strings.Contains(line, `\Flagged`) {
						told++
					}
				}
				m.moved(t, movedMessages)
				flagged, seen := m.flagged(t, "MV2")
				if flagged < told || flagged%6 != 0 || pending && seen != movedMessages {
					t.Errorf("%d messages were told to be flagged, and %d are; %d are seen", told, flagged, seen)
				}
			})
		}
	}
}

// moved waits for the end of A's MOVE: n messages are in MV2, and MV1 has given no UID.
func (m *moveClients) moved(t *testing.T, n int) {
	t.Helper()
	lines := m.a.until("a OK")
	if !strings.Contains(strings.Join(lines, "\n"), "[COPYUID ") {
		t.Errorf("no COPYUID: %q", lastLines(lines, 3))
	}
	if got := m.count(t, "MV2", "MESSAGES"); got != n {
		t.Errorf("%d messages in the target, want %d", got, n)
	}
	if got := fmt.Sprint(m.count(t, "MV1", "UIDNEXT")); got != m.next {
		t.Errorf("UIDNEXT of the source was %s and is %s", m.next, got)
	}
	if got := m.count(t, "MV1", "MESSAGES"); got != 0 {
		t.Errorf("%d messages are left in the source", got)
	}
}

// TestMoveDisturbed lets something else take messages away, or rename their files, while a whole mailbox is moved. The move
// takes what there is; what another session has moved or removed is left out.
func TestMoveDisturbed(t *testing.T) {
	for name, disturb := range map[string]func(t *testing.T, m *moveClients) (elsewhere int){
		"renamed by another program": func(t *testing.T, m *moveClients) int {
			cur := filepath.Join(m.folder("MV1"), "cur")
			names, err := listNames(cur)
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(names)
			for _, name := range names[max(0, len(names)-3):] {
				base, _ := splitName(name)
				os.Rename(filepath.Join(cur, name), filepath.Join(cur, base+":2,S")) // it may have been moved
			}
			return 0
		},
		"expunged by a session": func(t *testing.T, m *moveClients) int {
			m.b.send(fmt.Sprintf("x UID EXPUNGE %d:%d\r\n", movedMessages-10, movedMessages))
			gone := 0
			for _, line := range m.b.until("x OK") {
				if strings.HasSuffix(line, " EXPUNGE") {
					gone++
				}
			}
			return min(gone, 11)
		},
		"moved elsewhere by a session": func(t *testing.T, m *moveClients) int {
			m.b.send(fmt.Sprintf("x UID MOVE %d:* MV3\r\n", movedMessages-499))
			m.b.until("x ")
			names, err := listNames(filepath.Join(m.folder("MV3"), "cur"))
			if err != nil {
				t.Fatal(err)
			}
			return len(names)
		},
	} {
		for _, wait := range []time.Duration{0, 6 * time.Millisecond} {
			t.Run(fmt.Sprint(name, " after ", wait), func(t *testing.T) {
				t.Parallel()
				m := startMove(t)
				if strings.HasPrefix(name, "expunged") {
					m.a.send(fmt.Sprintf("a UID STORE %d:%d +FLAGS.SILENT (\\Deleted)\r\n", movedMessages-10, movedMessages))
					m.a.until("a OK")
				}
				m.a.send("a MOVE 1:* MV2\r\n")
				time.Sleep(wait)
				gone := disturb(t, m)
				lines := m.a.until("a OK")
				if !strings.Contains(strings.Join(lines, "\n"), "[COPYUID ") {
					t.Errorf("no COPYUID: %q", lastLines(lines, 3))
				}
				in2, left := m.count(t, "MV2", "MESSAGES"), m.count(t, "MV1", "MESSAGES")
				if strings.HasPrefix(name, "expunged") { // all were told to be gone, in either way
					gone = movedMessages - in2
				}
				if in2+gone != movedMessages || left != 0 || gone > 500 {
					t.Errorf("%d messages in the target, %d gone elsewhere, %d left", in2, gone, left)
				}
				if got := fmt.Sprint(m.count(t, "MV1", "UIDNEXT")); got != m.next {
					t.Errorf("UIDNEXT of the source was %s and is %s", m.next, got)
				}
			})
		}
	}
}
