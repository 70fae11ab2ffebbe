package main

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// stressFacts is what all sessions of a stress test have learnt together. Much of what a server says must be the same whoever
// asks and whenever: which message a UID is, what flags a message had at a mod-sequence, which numbers only grow.
//
// Replies of sessions that run at once have no order. A clock of our own gives them one where there is one: what was told
// before a command was sent holds in the replies to it.
type stressFacts struct {
	mu       sync.Mutex
	clock    uint64
	texts    []*stressText        // by marker; the first is marker 1
	validity map[string]uint32    // of the folders that nobody deletes
	folders  map[uint32]*boxFacts // by UIDVALIDITY
	kills    int                  // how often the server was killed
	verbs    map[string]bool      // commands that were answered, those with UID apart
}

// boxFacts is what is known of a folder.
type boxFacts struct {
	next, nextAt       uint64 // UIDNEXT, and when it was told
	highest, highestAt uint64 // HIGHESTMODSEQ
	msgs               map[uint32]*messageFacts
}

// messageFacts is what is known of a message in a folder.
type messageFacts struct {
	marker           int // 0: not known yet
	modseq, modseqAt uint64
	modseqKills      int
	flags            map[uint64]string // by modseq, when both were told
	fixed            map[string]string // what never changes: INTERNALDATE, EMAILID …
	goneAt           uint64            // 0: not told to be gone
	recent           string            // whose \Recent it is
	recentKills      int               // how often the server had been killed then
}

// stressText is a message as it was made. Its marker is in its Message-ID, and every copy of it has it too.
type stressText struct {
	text  string // with CRLF
	first string // the decoded text of its first part
	plain bool   // it has no parts

	delivered bool // it came by SMTP, which puts fields before it
}

// keepEvery marks the messages that no one deletes: those whose marker it divides. All that were ever promised are there
// in the end.
const keepEvery = 4

func kept(marker int) bool { return marker%keepEvery == 0 }

var stressMarker = regexp.MustCompile(`(?i)<m(\d+)@stress\.test>`)

// markerIn finds the marker in a header, 0 for none.
func markerIn(text string) int {
	m := stressMarker.FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

func newStressFacts() *stressFacts {
	return &stressFacts{validity: map[string]uint32{}, folders: map[uint32]*boxFacts{}, verbs: map[string]bool{}}
}

// used notes that a command was answered.
func (f *stressFacts) used(command string) {
	words := strings.Fields(command)
	if words[0] == "UID" {
		words[0] += " " + words[1]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.verbs[words[0]] = true
}

// unused gives the commands of the server's table that nobody has used.
func (f *stressFacts) unused() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name, verb := range imapVerbs {
		if !f.verbs[name] {
			names = append(names, name)
		}
		if verb.uid && !f.verbs["UID "+name] {
			names = append(names, "UID "+name)
		}
	}
	slices.Sort(names)
	return names
}

// now moves the clock on.
func (f *stressFacts) now() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clock++
	return f.clock
}

// newText makes a message that is not like any other. body, if it is not "", is used as it is.
func (f *stressFacts) newText(body string) (marker int, text *stressText) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.texts = append(f.texts, nil)
	marker = len(f.texts)
	header := fmt.Sprintf("From: Writer %d <w%d@stress.test>\r\nTo: reader@stress.test\r\nSubject: number %06d of the test\r\n"+
		"Date: Thu, 1 Jan 2026 %02d:%02d:%02d +0000\r\nMessage-ID: <m%d@stress.test>\r\n", marker%7, marker%7, marker, marker/3600%24,
		marker/60%60, marker%60, marker)
	if marker > 1 {
		header += fmt.Sprintf("In-Reply-To: <m%d@stress.test>\r\n", marker/2)
	}
	first := fmt.Sprintf("hello from number%dend\r\n%s", marker, strings.Repeat("all work and no play\r\n", marker%40))
	switch {
	case body != "":
		text = &stressText{text: header + "\r\n" + body, first: body, plain: true}
	case marker%3 == 0:
		coded := base64.StdEncoding.EncodeToString([]byte(first))
		text = &stressText{text: header + "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=xx\r\n\r\npreamble\r\n--xx\r\n" +
			"Content-Transfer-Encoding: base64\r\n\r\n" + coded + "\r\n--xx\r\nContent-Type: text/html\r\n\r\n<p>hi</p>\r\n--xx--\r\n",
			first: first}
	default:
		text = &stressText{text: header + "\r\n" + first, first: first, plain: true}
	}
	f.texts[marker-1] = text
	return marker, text
}

// textOf gives the message with a marker, nil for none.
func (f *stressFacts) textOf(marker int) *stressText {
	f.mu.Lock()
	defer f.mu.Unlock()
	if marker < 1 || marker > len(f.texts) {
		return nil
	}
	return f.texts[marker-1]
}

// folder gives what is known of a folder; the lock is held.
func (f *stressFacts) folder(validity uint32) *boxFacts {
	b := f.folders[validity]
	if b == nil {
		b = &boxFacts{msgs: map[uint32]*messageFacts{}}
		f.folders[validity] = b
	}
	return b
}

// message gives what is known of a message; the lock is held.
func (f *stressFacts) message(validity, uid uint32) *messageFacts {
	b := f.folder(validity)
	m := b.msgs[uid]
	if m == nil {
		m = &messageFacts{flags: map[uint64]string{}, fixed: map[string]string{}}
		b.msgs[uid] = m
	}
	return m
}

// opened notes the UIDVALIDITY of a folder that nobody deletes: it is one for ever.
func (f *stressFacts) opened(name string, validity uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if have := f.validity[name]; have != 0 && have != validity {
		return fmt.Errorf("UIDVALIDITY of %s went from %d to %d", name, have, validity)
	}
	f.validity[name] = validity
	return nil
}

// numbers notes UIDNEXT and HIGHESTMODSEQ (0: not told) in the reply to a command sent at start. Both only grow, and are
// above all UIDs and not below any modseq told before.
func (f *stressFacts) numbers(validity uint32, start, next, highest uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.folder(validity)
	f.clock++
	if next != 0 {
		if next < b.next && b.nextAt <= start {
			return fmt.Errorf("UIDNEXT went from %d to %d", b.next, next)
		}
		if next > b.next {
			b.next, b.nextAt = next, f.clock
		}
	}
	if highest != 0 {
		if highest < b.highest && b.highestAt <= start {
			return fmt.Errorf("HIGHESTMODSEQ went from %d to %d", b.highest, highest)
		}
		if highest > b.highest {
			b.highest, b.highestAt = highest, f.clock
		}
	}
	return nil
}

// isMarked notes which message a UID is.
func (f *stressFacts) isMarked(validity, uid uint32, marker int) error {
	if marker == 0 {
		return fmt.Errorf("UID %d is a message that nobody has made", uid)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.message(validity, uid)
	if m.marker != 0 && m.marker != marker {
		return fmt.Errorf("UID %d was message %d and now is %d", uid, m.marker, marker)
	}
	m.marker = marker
	return nil
}

// given notes UIDs that the reply to a command sent at start says were given: none of them is an old one.
func (f *stressFacts) given(validity uint32, start uint64, uids []uint32, markers []int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.folder(validity)
	for i, uid := range uids {
		if uint64(uid) < b.next && b.nextAt <= start {
			return fmt.Errorf("UID %d was given while UIDNEXT was %d", uid, b.next)
		}
		m := f.message(validity, uid)
		if m.goneAt != 0 && m.goneAt <= start {
			return fmt.Errorf("UID %d was given again", uid)
		}
		if markers[i] == 0 {
			continue
		}
		if m.marker != 0 && m.marker != markers[i] {
			return fmt.Errorf("UID %d should be message %d and is %d", uid, markers[i], m.marker)
		}
		m.marker = markers[i]
	}
	return nil
}

// markerOf gives which message a UID is, 0 when that is not known.
func (f *stressFacts) markerOf(validity, uid uint32) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.folder(validity).msgs[uid]; m != nil {
		return m.marker
	}
	return 0
}

// gone notes that a UID was told to be gone.
func (f *stressFacts) gone(validity, uid uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.message(validity, uid); m.goneAt == 0 {
		f.clock++
		m.goneAt = f.clock
	}
}

// told takes a FETCH response in to a command sent at start to a server that had been killed so often: modseq 0 and hasFlags
// false for what it has not.
func (f *stressFacts) told(validity, uid uint32, start uint64, kills int, modseq uint64, flags string, hasFlags bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clock++
	m := f.message(validity, uid)
	if m.goneAt != 0 && m.goneAt <= start {
		return fmt.Errorf("UID %d is there again", uid)
	}
	b := f.folder(validity)
	if uint64(uid) >= b.next {
		b.next, b.nextAt = uint64(uid)+1, f.clock
	}
	if modseq > b.highest {
		b.highest, b.highestAt = modseq, f.clock
	}
	if modseq == 0 {
		return nil
	}
	// A crash may lose a change that was undone since: the message is as it was, and has the old MODSEQ again.
	if modseq < m.modseq && m.modseqAt <= start && m.modseqKills == kills {
		return fmt.Errorf("MODSEQ of UID %d went from %d to %d", uid, m.modseq, modseq)
	}
	if kills > m.modseqKills || kills == m.modseqKills && modseq > m.modseq {
		m.modseq, m.modseqAt, m.modseqKills = modseq, f.clock, kills
	}
	if have, ok := m.flags[modseq]; hasFlags && ok && have != flags {
		return fmt.Errorf("UID %d at MODSEQ %d had the flags (%s) and now has (%s)", uid, modseq, have, flags)
	}
	if hasFlags {
		m.flags[modseq] = flags
	}
	return nil
}

// isFixed notes something of a message that never changes.
func (f *stressFacts) isFixed(validity, uid uint32, what, value string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.message(validity, uid)
	if have, ok := m.fixed[what]; ok && have != value {
		return fmt.Errorf("%s of UID %d was %s and is %s", what, uid, have, value)
	}
	m.fixed[what] = value
	return nil
}

// isRecent notes whose \Recent a message is: that of one selection only, unless a crash has made the server forget it.
func (f *stressFacts) isRecent(validity, uid uint32, kills int, selection string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.message(validity, uid)
	if m.recent != "" && m.recent != selection && m.recentKills == kills {
		return fmt.Errorf("UID %d is \\Recent in %s and was in %s", uid, selection, m.recent)
	}
	m.recent, m.recentKills = selection, kills
	return nil
}

// killed gives how often the server was killed.
func (f *stressFacts) killed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kills
}
