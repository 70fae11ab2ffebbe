package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// modelContext is a client's copy of results that the server keeps up to date.
type modelContext struct {
	uid    bool
	sorted bool
	ending bool   // CANCELUPDATE is under way
	again  string // the same search without UPDATE
	list   []uint32
}

// shift takes message n out of what is told in message numbers; false when it is still among them.
func (m *contextClient) shift(n int) bool {
	for _, c := range m.contexts {
		for i := range c.list {
			switch {
			case c.uid, c.ending:
			case c.list[i] == uint32(n):
				return false
			case c.list[i] > uint32(n):
				c.list[i]--
			}
		}
	}
	return true
}

var (
	modelESearch = regexp.MustCompile(`^\* ESEARCH \(TAG "([^"]+)"\)( UID)?(.*)$`)
	modelUpdate  = regexp.MustCompile(`^ (?:(ALL) ([\d,:]+)|MODSEQ \d+|(REMOVEFROM|ADDTO) \(([\d,: ]+)\))`)
)

// takeResults takes an ESEARCH response.
func (m *contextClient) takeResults(line string) bool {
	f := modelESearch.FindStringSubmatch(line)
	if f == nil {
		return false
	}
	c := m.contexts[f[1]]
	if c == nil {
		c = &modelContext{uid: f[2] != ""}
		defer func() { m.found = c.list }()
	}
	if c.uid != (f[2] != "") {
		return false
	}
	for rest := f[3]; rest != ""; {
		u := modelUpdate.FindStringSubmatch(rest)
		if u == nil {
			return false
		}
		rest = rest[len(u[0]):]
		if u[1] != "" {
			c.list = expand(u[2])
		}
		words := strings.Fields(u[4])
		for i := 0; i+1 < len(words); i += 2 {
			at, _ := strconv.Atoi(words[i])
			if !c.change(u[3], at, expand(words[i+1])) && !c.ending {
				return false
			}
		}
	}
	return !slices.ContainsFunc(c.list, func(n uint32) bool { return !c.uid && !c.ending && n > uint32(len(m.uids)) })
}

// change does what REMOVEFROM or ADDTO says; false when it cannot be (RFC 5267 §4.3.3, §4.3.4).
func (c *modelContext) change(what string, at int, numbers []uint32) bool {
	if (at == 0) == c.sorted || at > len(c.list)+1 {
		return false
	}
	switch {
	case what == "REMOVEFROM" && at > 0:
		end := at - 1 + len(numbers)
		if end > len(c.list) || !slices.Equal(c.list[at-1:end], numbers) {
			return false
		}
		c.list = slices.Delete(c.list, at-1, end)
	case what == "REMOVEFROM":
		for _, n := range numbers {
			i := slices.Index(c.list, n)
			if i < 0 {
				return false
			}
			c.list = slices.Delete(c.list, i, i+1)
		}
	default:
		for _, n := range numbers {
			if slices.Contains(c.list, n) {
				return false
			}
		}
		if at > 0 {
			c.list = slices.Insert(c.list, at-1, numbers...)
		} else {
			c.list = slices.Sorted(slices.Values(append(c.list, numbers...)))
		}
	}
	return true
}

// expand gives the numbers of a set in its order.
func expand(set string) (numbers []uint32) {
	for part := range strings.SplitSeq(set, ",") {
		lo, hi, isRange := strings.Cut(part, ":")
		a, _ := strconv.ParseUint(lo, 10, 32)
		b := a
		if isRange {
			b, _ = strconv.ParseUint(hi, 10, 32)
		}
		for n := a; n <= b; n++ {
			numbers = append(numbers, uint32(n))
		}
	}
	return numbers
}

// begin starts a search that is kept up to date.
func (m *contextClient) begin() bool {
	keys := []string{"ALL", "UNSEEN", "FLAGGED KEYWORD $Label", "SUBJECT b", "NOT DELETED", "OR SEEN TEXT boss", "UID 3:*", "UNSEEN UID 40:*",
		"UID 1:30", "LARGER 75", "YOUNGER 3600 UNFLAGGED", "NOT (SEEN ANSWERED)", "RECENT", "OLD FLAGGED", "*", "1:3 UNSEEN"}
	orders := []string{"SUBJECT", "REVERSE SUBJECT", "ARRIVAL", "REVERSE SIZE SUBJECT", "FROM REVERSE ARRIVAL", "DATE"}
	key := keys[m.rnd.IntN(len(keys))]
	// VANISHED does not tell the message numbers of messages whose UIDs the client does not know.
	c := &modelContext{uid: m.qresync || m.rnd.IntN(2) == 0, sorted: m.rnd.IntN(2) == 0}
	verb, criteria := "SEARCH", ""
	if c.sorted {
		verb, criteria = "SORT", "("+orders[m.rnd.IntN(len(orders))]+") UTF-8 "
	}
	if c.uid {
		verb = "UID " + verb
	}
	if c.again = fmt.Sprintf("%s RETURN (ALL) %s%s", verb, criteria, key); key == "*" || key == "1:3 UNSEEN" {
		c.again = "" // message numbers mean what they meant at first
	}
	m.contexts[fmt.Sprintf("s%d.%d", m.n, m.tag+1)] = c
	reply, ok := m.run(fmt.Sprintf("%s RETURN (UPDATE ALL) %s%s", verb, criteria, key))
	return ok && strings.HasPrefix(reply, "OK")
}

// changeByUID does something at random, without message numbers.
func (m *contextClient) changeByUID() bool {
	uid := 1 + m.rnd.IntN(60)
	if n := len(m.uids); n > 0 {
		uid = max(uid, int(m.uids[m.rnd.IntN(n)]))
	}
	flag := []string{`\Seen`, `\Flagged`, `\Answered`, "$Label", `\Deleted`}[m.rnd.IntN(5)]
	op := m.rnd.IntN(9)
	if len(m.uids) < 8 {
		op = 0
	}
	var command string
	switch op {
	case 0:
		text := fmt.Sprintf("Subject: %c\r\nFrom: %c@example.org\r\n\r\nhello %s\r\n", 'a'+m.rnd.IntN(4), 'a'+m.rnd.IntN(3), []string{"boss", "you"}[m.rnd.IntN(2)])
		command = fmt.Sprintf("APPEND INBOX (%s) {%d+}\r\n%s", flag, len(text), text)
	case 1, 2, 3:
		command = fmt.Sprintf("UID STORE %d:%d %sFLAGS%s (%s)", uid, uid+m.rnd.IntN(5), []string{"+", "-", ""}[m.rnd.IntN(3)], []string{"", ".SILENT"}[m.rnd.IntN(2)], flag)
	case 4:
		command = fmt.Sprintf("UID COPY %d INBOX", uid)
	case 5:
		command = fmt.Sprintf("UID MOVE %d %s", uid, []string{"INBOX", "Archive"}[m.rnd.IntN(2)])
	case 6:
		command = "EXPUNGE"
	case 7:
		command = "NOOP"
	case 8:
		command = fmt.Sprintf("UID FETCH %d:* (UID FLAGS)", uid)
	}
	return m.works(command)
}

// step begins, ends or changes something.
func (m *contextClient) step() bool {
	switch {
	case m.rnd.IntN(10) > 0 && len(m.contexts) > 3:
	case len(m.contexts) < 6:
		return m.begin()
	default:
		for tag, c := range m.contexts {
			c.ending = true
			reply, ok := m.run(fmt.Sprintf("CANCELUPDATE %q", tag))
			delete(m.contexts, tag)
			return ok && strings.HasPrefix(reply, "OK")
		}
	}
	if m.eager {
		return m.changeByUID()
	}
	return m.change()
}

// compare compares each copy with a new search, while nothing happens.
func (m *contextClient) compare() {
	if reply, ok := m.run("NOOP"); !ok || !strings.HasPrefix(reply, "OK") {
		m.t.Fatal(reply)
	}
	for tag, c := range m.contexts {
		if c.again == "" {
			continue
		}
		m.found = nil
		if reply, ok := m.run(c.again); !ok || !strings.HasPrefix(reply, "OK") {
			m.t.Fatal(reply)
		}
		if !slices.Equal(m.found, c.list) {
			m.t.Errorf("session %d, %s, %s finds\n%v, the copy has\n%v", m.n, tag, c.again, m.found, c.list)
		}
	}
}

// contextOutsider changes a Maildir as other programs do.
func contextOutsider(t *testing.T, dir string, rnd *rand.Rand, n int) {
	text := fmt.Sprintf("Subject: %c\n\nfrom outside\n", 'a'+rnd.IntN(4))
	name := fmt.Sprintf("%d.outside%d.x", time.Now().Unix(), n)
	err := os.WriteFile(filepath.Join(dir, "tmp", name), []byte(text), 0o600)
	if err == nil {
		err = os.Rename(filepath.Join(dir, "tmp", name), filepath.Join(dir, "new", name))
	}
	if err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "cur"))
	if err != nil || len(entries) == 0 {
		return
	}
	// The file may have another name by now, which is no concern.
	name = entries[rnd.IntN(len(entries))].Name()
	info := string(infoSeparator()) + "2,"
	base, _, _ := strings.Cut(name, info)
	if rnd.IntN(3) == 0 {
		os.Remove(filepath.Join(dir, "cur", name))
	} else {
		os.Rename(filepath.Join(dir, "cur", name), filepath.Join(dir, "cur", base+info+[]string{"", "S", "FS", "RS", "T"}[rnd.IntN(5)]))
	}
}

// TestIMAPContexts lets sessions change one folder at once, an outside program too, while all keep the results of searches.
// What each has been told, applied to its copy, is what a new search finds.
func TestIMAPContexts(t *testing.T) {
	t.Parallel()
	s := startIMAP(t)
	mustAdd(t, s.Accounts, "live@home.lan", imapPassword)
	sessions := make([]*contextClient, 6)
	for n := range sessions {
		c := s.login(t, "live@home.lan")
		m := &contextClient{imapLine: c, t: t, n: n, rnd: rand.New(rand.NewPCG(uint64(n), 11)), flag: map[uint32]string{}, contexts: map[string]*modelContext{}}
		sessions[n] = m
		if n%2 == 1 {
			c.ok(t, "ENABLE QRESYNC")
			m.qresync = true
		}
		if reply, ok := m.run("SELECT INBOX"); !ok || !strings.HasPrefix(reply, "OK") {
			t.Fatal(reply)
		}
		switch n / 2 {
		case 1:
			m.eager = true
			c.ok(t, "NOTIFY SET (selected (MessageNew MessageExpunge FlagChange)) (personal (MailboxName))")
		case 2: // results are kept up to date whatever else is told
			m.eager = true
			c.ok(t, "NOTIFY SET (selected-delayed (MessageNew MessageExpunge))")
		}
	}
	dir := filepath.Join(s.store.mailDir, "home.lan", "live")
	rnd := rand.New(rand.NewPCG(5, 5))
	for round := range 12 {
		var wg sync.WaitGroup
		for _, m := range sessions {
			wg.Go(func() {
				for i := 0; i < 12 && m.step() && !t.Failed(); i++ {
				}
			})
		}
		for i := range 4 {
			contextOutsider(t, dir, rnd, round*100+i)
		}
		wg.Wait()
		settled(t, s, "live@home.lan")
		for _, m := range sessions {
			if !t.Failed() {
				m.compare()
			}
		}
		if t.Failed() {
			t.Log(s.log.String())
			return
		}
	}
	steps, results := 0, 0
	for _, m := range sessions {
		steps += m.tag
		for _, c := range m.contexts {
			results += len(c.list)
		}
	}
	t.Logf("%d commands, %d messages, %d results", steps, len(sessions[0].uids), results)
	if results == 0 {
		t.Error("nothing was found")
	}
}

// Results change with time as well (RFC 5032 §2), and with what "*" means.
func TestIMAPContextAges(t *testing.T) {
	t.Parallel()
	s := startIMAPWith(t, func(p *Protocols) { p.aging = time.Nanosecond })
	mustAdd(t, s.Accounts, "age@home.lan", imapPassword)
	c := s.login(t, "age@home.lan")
	const day = "02-Jan-2006 15:04:05 -0700"
	for _, ago := range []time.Duration{time.Hour, 58 * time.Second, time.Second} {
		c.ok(t, fmt.Sprintf("APPEND INBOX %q {7+}\r\n\r\nhello", time.Now().Add(-ago).Format(day)))
	}
	c.ok(t, "SELECT INBOX")
	c.send(t, "y UID SORT RETURN (UPDATE ALL) (REVERSE ARRIVAL) UTF-8 YOUNGER 59 BODY hello\r\no UID SEARCH RETURN (UPDATE ALL) NOT YOUNGER 59\r\n")
	c.want(t, `* ESEARCH (TAG "y") UID ALL 3,2`, "y OK UID SORT completed", `* ESEARCH (TAG "o") UID ALL 1`, "o OK UID SEARCH completed")
	end := time.Now().Add(10 * time.Second)
	var got []string
	for len(got) < 2 && time.Now().Before(end) {
		got = c.ok(t, "NOOP")
		time.Sleep(100 * time.Millisecond)
	}
	if len(got) != 3 || got[0] != `* ESEARCH (TAG "y") UID REMOVEFROM (2 2)` || got[1] != `* ESEARCH (TAG "o") UID ADDTO (0 2)` {
		t.Errorf("%q", got)
	}
	c.send(t, "s UID SEARCH RETURN (UPDATE ALL) UID 9:* TEXT hello\r\n")
	c.want(t, `* ESEARCH (TAG "s") UID ALL 3`, "s OK UID SEARCH completed")
	c.ok(t, "CANCELUPDATE \"o\" \"y\"")
	for _, step := range []struct{ command, told string }{
		{"APPEND INBOX {7+}\r\n\r\nhello", `* ESEARCH (TAG "s") UID REMOVEFROM (0 3) ADDTO (0 4)`},
		{"STORE 4 +FLAGS.SILENT (\\Deleted)", ""},
		{"EXPUNGE", `* ESEARCH (TAG "s") UID REMOVEFROM (0 4)|* 4 EXPUNGE|* ESEARCH (TAG "s") UID ADDTO (0 3)`},
		{"STORE 1:3 +FLAGS.SILENT (\\Deleted)", ""},
		{"EXPUNGE", `* ESEARCH (TAG "s") UID REMOVEFROM (0 3)|* 3 EXPUNGE|* 2 EXPUNGE|* 1 EXPUNGE`},
		{"APPEND INBOX {7+}\r\n\r\nother", ""},
		{"APPEND INBOX {7+}\r\n\r\nhello", `* ESEARCH (TAG "s") UID ADDTO (0 6)`},
	} {
		got := slices.DeleteFunc(c.ok(t, step.command), func(line string) bool {
			return strings.HasPrefix(line, "zz ") || strings.HasSuffix(line, "EXISTS") || strings.HasSuffix(line, "RECENT")
		})
		if strings.Join(got, "|") != step.told {
			t.Errorf("%s: %q, want %s", step.command, got, step.told)
		}
	}
}

// settled waits until INBOX has taken over what other programs did.
func settled(t *testing.T, s *imapServer, account string) {
	t.Helper()
	d, err := s.store.Maildrop(account)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Release()
	f := openFolder(t, d, "INBOX")
	defer f.Release()
	f.poke()
}
