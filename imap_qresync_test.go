package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// resyncClient is a client that remembers UIDs and flags, and comes back with QRESYNC.
type resyncClient struct {
	validity, modseq uint64
	flags            map[imap.UID]string
}

var (
	resyncCode     = regexp.MustCompile(`^\* OK \[(UIDVALIDITY|HIGHESTMODSEQ) (\d+)\]`)
	resyncVanished = regexp.MustCompile(`^\* VANISHED \(EARLIER\) (\S+)$`)
	resyncFetch    = regexp.MustCompile(`^\* \d+ FETCH \(UID (\d+) FLAGS \(([^)]*)\)`)
)

// open selects INBOX in a new session and takes in what is told.
func (r *resyncClient) open(t *testing.T, s *fetchClient) {
	t.Helper()
	for _, command := range []string{"UNSELECT", "ENABLE IMAP4rev2 QRESYNC"} {
		if _, tagged := s.send(command); !strings.HasPrefix(tagged, "OK") {
			t.Fatal(command, ": ", tagged)
		}
	}
	command := "SELECT INBOX"
	if r.flags != nil {
		command = fmt.Sprintf("SELECT INBOX (QRESYNC (%d %d))", r.validity, r.modseq)
	} else {
		r.flags = map[imap.UID]string{}
	}
	lines, tagged := s.send(command)
	if !strings.HasPrefix(tagged, "OK") {
		t.Fatal(tagged)
	}
	if r.validity == 0 {
		more, _ := s.send("UID FETCH 1:* (FLAGS)")
		lines = append(lines, more...)
	}
	for _, line := range lines {
		if m := resyncCode.FindStringSubmatch(line); m != nil {
			n, _ := strconv.ParseUint(m[2], 10, 64)
			switch {
			case m[1] == "HIGHESTMODSEQ" && n < r.modseq:
				t.Errorf("HIGHESTMODSEQ went from %d to %d", r.modseq, n)
			case m[1] == "HIGHESTMODSEQ":
				r.modseq = n
			case r.validity != 0 && r.validity != n:
				t.Errorf("UIDVALIDITY went from %d to %d", r.validity, n)
			default:
				r.validity = n
			}
		}
		if m := resyncVanished.FindStringSubmatch(line); m != nil {
			in := testSet(t, m[1])
			for uid := range r.flags {
				if in.Contains(uid) {
					delete(r.flags, uid)
				}
			}
		}
		if m := resyncFetch.FindStringSubmatch(line); m != nil {
			uid, _ := strconv.ParseUint(m[1], 10, 32)
			r.flags[imap.UID(uid)] = m[2]
		}
	}
}

// testSet reads a set of UIDs.
func testSet(t testing.TB, text string) imap.UIDSet {
	t.Helper()
	c := &imapCommand{in: &imapInput{line: []byte(text)}}
	set, err := c.numSet(true)
	if err != nil {
		t.Fatal(text, ": ", err)
	}
	return set.(imap.UIDSet)
}

// check compares with what the folder has.
func (r *resyncClient) check(t *testing.T, when string, f *Folder) {
	t.Helper()
	msgs, err := f.Messages(nil, f.allUIDs(), false)
	if err != nil {
		t.Fatal(err)
	}
	if len(msgs) != len(r.flags) {
		t.Errorf("%s: the client has %d messages, the folder %d", when, len(r.flags), len(msgs))
	}
	for i := range msgs {
		flags, ok := r.flags[msgs[i].UID]
		if want := string(f.AppendFlags(nil, &msgs[i])); !ok || flags != want {
			t.Errorf("%s: message %d has %q, the client knows %q %v", when, msgs[i].UID, want, flags, ok)
		}
	}
}

// TestResync takes a client that comes back now and then through restarts, the loss of the index and of its log, a crash,
// and changes that others make to the files while the server is down.
func TestResync(t *testing.T) {
	dir := t.TempDir()
	client, late := &resyncClient{}, &resyncClient{}
	step := 0
	visit := func(name string, returns bool, change func(d *Maildrop, f *Folder)) {
		t.Helper()
		step++
		t.Run(name, func(t *testing.T) {
			s := testStore(t, dir)
			defer s.Close()
			d := testDrop(t, s)
			defer d.Release()
			f := openFolder(t, d, "INBOX")
			defer f.Release()
			clients := []*resyncClient{client}
			if returns {
				clients = append(clients, late)
			}
			for _, c := range clients {
				c.open(t, fetchOn(t, f))
				c.check(t, "on coming", f)
			}
			if change == nil {
				return
			}
			change(d, f)
			// again in the same run, before the index has it, and after
			client.open(t, fetchOn(t, f))
			client.check(t, "after a change", f)
			d.flush()
			for _, c := range clients {
				c.open(t, fetchOn(t, f))
				c.check(t, "after the index has it", f)
			}
		})
	}
	mix := func(d *Maildrop, f *Folder) {
		t.Helper()
		uids := slices.Clone(f.allUIDs())
		for range 5 {
			appendText(t, f, "new\r\n", imap.FlagDraft)
		}
		if len(uids) < 8 {
			return
		}
		for _, change := range []struct {
			uid imap.UID
			op  FlagOp
		}{{uids[0], FlagsReplace}, {uids[3], FlagsAdd}, {uids[len(uids)-1], FlagsAdd}} {
			if _, _, _, err := f.SetFlags([]imap.UID{change.uid}, change.op, []imap.Flag{imap.FlagSeen, imap.Flag(fmt.Sprintf("$k%d", step))}, NoUnchangedSince); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := f.Expunge([]imap.UID{uids[1], uids[2], uids[5]}, false); err != nil {
			t.Fatal(err)
		}
	}
	inbox := filepath.Join(dir, "mail/example.org/ann")
	touch := func() { // as another program does
		files, _ := filepath.Glob(filepath.Join(inbox, "cur", "*"))
		slices.Sort(files)
		os.Remove(files[1])
		os.Rename(files[2], strings.SplitN(files[2], ":2,", 2)[0]+":2,F")
	}
	visit("fill", true, func(d *Maildrop, f *Folder) {
		for range 30 {
			appendText(t, f, "x\r\n")
		}
	})
	visit("change", true, mix)
	visit("restart", false, mix)
	visit("another restart", true, mix)
	touch()
	visit("others while down", false, mix)
	os.RemoveAll(filepath.Join(dir, "index"))
	visit("index deleted", false, mix)
	os.WriteFile(filepath.Join(dir, "index/example.org/ann.db"), []byte(strings.Repeat("junk", 9999)), 0o600)
	visit("index damaged", true, mix)
	old, err := os.ReadFile(filepath.Join(dir, "index/example.org/ann.db"))
	if err != nil {
		t.Fatal(err)
	}
	visit("before an old index", false, mix)
	os.WriteFile(filepath.Join(dir, "index/example.org/ann.db"), old, 0o600)
	visit("old index", false, mix)
	touch()
	os.Remove(filepath.Join(inbox, uidlistName))
	visit("UID list deleted", true, mix)
	visit("the end", true, nil)
}

// TestResyncCutLog expunges more than the log keeps: what is told has all that is gone nevertheless, in this run and in
// the next.
func TestResyncCutLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, dir)
	d := testDrop(t, s)
	f := openFolder(t, d, "INBOX")
	for range 4 {
		appendText(t, f, "x\r\n")
	}
	d.flush()
	before := f.highestModSeq()
	if _, _, err := f.Expunge([]imap.UID{2}, false); err != nil {
		t.Fatal(err)
	}
	between := f.highestModSeq()
	// As many more as the log takes, as if they had been there.
	f.mu.Lock()
	for i := range imap.UID(indexLogLimit + 1000) {
		f.modseq++
		f.expunged = append(f.expunged, expungeRecord{1000 + i, f.modseq})
	}
	f.nextUID = 1000 + indexLogLimit + 1000
	f.metaOld = true
	now := f.modseq
	f.mu.Unlock()
	check := func(when string, f *Folder) {
		t.Helper()
		for _, since := range []uint64{before, between} {
			gone, err := f.ExpungedSince(since, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, uid := range []imap.UID{1000, 1000 + indexLogLimit + 999} {
				if !gone.Contains(uid) {
					t.Errorf("%s: message %d is not told as gone since %d", when, uid, since)
				}
			}
			if since == before && !gone.Contains(2) {
				t.Errorf("%s: message 2 is not told as gone", when)
			}
			for _, uid := range []imap.UID{1, 3, 4} {
				if gone.Contains(uid) {
					t.Errorf("%s: message %d is told as gone", when, uid)
				}
			}
		}
		gone, err := f.ExpungedSince(now-3, nil)
		if want := fmt.Sprintf("%d:%d", 1000+indexLogLimit+997, 1000+indexLogLimit+999); err != nil || gone.String() != want {
			t.Errorf("%s: lately gone are %v, %v, not %s", when, gone, err, want)
		}
	}
	check("in memory", f)
	d.flush()
	check("written", f)
	appendText(t, f, "y\r\n") // the next batch must not forget that the log was cut
	d.flush()
	check("written again", f)
	f.Release()
	d.Release()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// A restart trusts the index only if the directories were not changed just before.
	past := time.Now().Add(-time.Hour)
	for _, sub := range []string{"cur", "new"} {
		if err := os.Chtimes(filepath.Join(dir, "mail/example.org/ann", sub), past, past); err != nil {
			t.Fatal(err)
		}
	}
	s = testStore(t, dir)
	defer s.Close()
	d = testDrop(t, s)
	defer d.Release()
	f = openFolder(t, d, "INBOX")
	defer f.Release()
	for _, since := range []uint64{before, between} {
		if gone, err := f.ExpungedSince(since, nil); err != nil || !gone.Contains(1000) || gone.Contains(1) || since == before && !gone.Contains(2) {
			t.Errorf("after a restart, gone since %d: %v %v", since, gone, err)
		}
	}
}

// Without an index nothing is forgotten either.
func TestResyncWithoutIndex(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index"), nil, 0o600); err != nil { // in the way of the directory
		t.Fatal(err)
	}
	s := testStore(t, dir)
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	f := openFolder(t, d, "INBOX")
	defer f.Release()
	for range 3 {
		appendText(t, f, "x\r\n")
	}
	before := f.highestModSeq()
	if _, _, err := f.Expunge([]imap.UID{2}, false); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"before", "after"} {
		if gone, err := f.ExpungedSince(before, imap.UIDSet{{Start: 1, Stop: math.MaxUint32}}); err != nil || gone.String() != "2" {
			t.Errorf("%s writing: %v %v", when, gone, err)
		}
		d.flush()
	}
}

func TestInStep(t *testing.T) {
	view := []imap.UID{1, 2, 3, 10, 11, 20}
	for _, c := range []struct {
		seqs, uids string
		want       imap.UID
	}{
		{"1", "1", 1}, {"1:3", "1:3", 3}, {"1:6", "1:6", 3}, {"4:5", "10:11", 11}, {"6", "20", 20}, {"6", "21", 0},
		{"1,4", "1,11", 1}, {"2,5,6", "2,11,20", 20}, {"7", "30", 0}, {"1:4294967295", "1:4294967295", 3},
		{"3:4", "3,10", 10}, {"1,3,5", "1:3", 1}, {"1:2,6:7", "5:6,20:21", 20}, {"5:9", "11:15", 11},
	} {
		k := knownMailbox{matchUIDs: testSet(t, c.uids)}
		for _, r := range testSet(t, c.seqs) {
			k.matchSeqs = append(k.matchSeqs, imap.SeqRange{Start: uint32(r.Start), Stop: uint32(r.Stop)})
		}
		if got := k.inStep(view); got != c.want {
			t.Errorf("%s are %s: %d, want %d", c.seqs, c.uids, got, c.want)
		}
	}
}

func TestOutsideView(t *testing.T) {
	view := []imap.UID{2, 5, 6}
	for set, want := range map[string]string{"1:7": "1,3:4,7", "2": "", "5:6": "", "4:5": "4", "8:9": "8:9", "1,3": "1,3"} {
		if got := outsideView(testSet(t, set), view); got.String() != want {
			t.Errorf("%s: %s, want %s", set, got, want)
		}
	}
}

// Long sets come in several lines.
func TestVanishedIsSplit(t *testing.T) {
	c := startFetch(t)
	f := c.folder
	f.mu.Lock()
	f.nextUID = 20001
	for uid := imap.UID(1); uid < 20000; uid += 2 {
		f.msgs = append(f.msgs, Msg{UID: uid})
		f.uids = append(f.uids, uid)
	}
	f.modseq += 2
	f.mu.Unlock()
	c.send("ENABLE QRESYNC")
	c.send("NOOP")
	lines, tagged := c.send("UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)")
	if !strings.HasPrefix(tagged, "OK") {
		t.Fatal(tagged)
	}
	n := 0
	for _, line := range lines {
		if m := resyncVanished.FindStringSubmatch(line); m != nil {
			n += len(strings.Split(m[1], ","))
			if len(line) > vanishedLine+100 {
				t.Errorf("a line has %d bytes", len(line))
			}
		}
	}
	if n != 10000 {
		t.Errorf("%d are told as gone", n)
	}
}

// A change that a client has seen, and that was undone before the crash in which the index lost both, is told: also to a
// client that remembers the HIGHESTMODSEQ from before the change.
func TestResyncAfterCrash(t *testing.T) {
	t.Run("of an index at work", func(t *testing.T) { resyncAfterCrash(t, false) })
	t.Run("of one left clean", func(t *testing.T) { resyncAfterCrash(t, true) })
}

func resyncAfterCrash(t *testing.T, clean bool) {
	dir := t.TempDir()
	path := filepath.Join(dir, "index/example.org/ann.db")
	client := &resyncClient{}
	s := testStore(t, dir)
	d := testDrop(t, s)
	f := openFolder(t, d, "INBOX")
	for range 3 {
		appendText(t, f, "x\r\n")
	}
	d.flush()
	before := f.highestModSeq()
	if clean { // the folder is put away and comes back
		f.Release()
		d.Release()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = testStore(t, dir)
		d = testDrop(t, s)
		f = openFolder(t, d, "INBOX")
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range []FlagOp{FlagsAdd, FlagsRemove} {
		if _, _, _, err := f.SetFlags([]imap.UID{2}, op, []imap.Flag{imap.FlagFlagged}, NoUnchangedSince); err != nil {
			t.Fatal(err)
		}
		if op == FlagsAdd {
			c := fetchOn(t, f)
			client.open(t, c)
			client.check(t, "before the crash", f)
			c.send("LOGOUT")
		}
	}
	f.Release()
	d.Release()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	for when, since := range map[string]uint64{"after the crash": client.modseq, "later": client.modseq, "from before": before} {
		late := &resyncClient{validity: client.validity, modseq: since, flags: map[imap.UID]string{}}
		for uid, flags := range client.flags {
			late.flags[uid] = flags
		}
		s := testStore(t, dir)
		d := testDrop(t, s)
		f := openFolder(t, d, "INBOX")
		c := fetchOn(t, f)
		late.open(t, c)
		late.check(t, when, f)
		if lines, _ := c.send("UID FETCH 1:* (FLAGS) (CHANGEDSINCE " + strconv.FormatUint(late.modseq, 10) + ")"); len(lines) > 0 {
			t.Errorf("%s: who is in step is told %q", when, lines)
		}
		c.send("LOGOUT")
		f.Release()
		d.Release()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// SAVEDATE (RFC 8514) outlives the index, and is that of the copy in a copy. What another program has put there has that of
// its name.
func TestSaveDateWithoutIndex(t *testing.T) {
	dir := t.TempDir()
	long := time.Date(2020, 1, 1, 12, 0, 0, 0, time.UTC)
	now := long
	cfg := StoreConfig{MailDir: filepath.Join(dir, "mail"), IndexDir: filepath.Join(dir, "index"), Host: "test", Now: func() time.Time { return now }}
	open := func() (*Store, *Maildrop, *Folder) {
		t.Helper()
		s, err := OpenStore(cfg)
		if err != nil {
			t.Fatal(err)
		}
		d := testDrop(t, s)
		return s, d, openFolder(t, d, "INBOX")
	}
	s, d, f := open()
	uid := appendText(t, f, "x\r\n")
	now = long.Add(time.Hour)
	if _, err := f.Copy([]imap.UID{uid}, f); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.path, "cur", "1500000000.M1P1.other:2,S"), []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Status(false); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"at first", "without the index"} {
		msgs, err := f.Messages(nil, f.allUIDs(), false)
		if err != nil || len(msgs) != 3 || msgs[2].Saved != 1500000000 || msgs[0].Saved != long.Unix() || msgs[1].Saved != long.Add(time.Hour).Unix() {
			t.Errorf("%s: %+v, %v", when, msgs, err)
		}
		f.Release()
		d.Release()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		os.RemoveAll(cfg.IndexDir)
		now = long.Add(1000 * time.Hour)
		s, d, f = open()
	}
	f.Release()
	d.Release()
	s.Close()
}

// BenchmarkResync is SELECT of a mailbox with 50,000 messages, 100 of which have changed and 100 of which are gone.
func BenchmarkResync(b *testing.B) {
	c := startFetch(b)
	f := c.folder
	f.mu.Lock()
	modseq := f.modseq
	for uid := imap.UID(1); uid <= 50100; uid++ {
		if uid%501 == 0 {
			f.expunged = append(f.expunged, expungeRecord{uid, modseq + 2})
			continue
		}
		m := Msg{UID: uid, ModSeq: modseq, base: fmt.Sprint(uid)}
		if uid%500 == 0 {
			m.ModSeq = modseq + 1
		}
		f.msgs, f.uids = append(f.msgs, m), append(f.uids, uid)
		f.markDirty(uid)
	}
	f.nextUID, f.modseq = 50101, modseq+2
	f.mu.Unlock()
	f.drop.flush()
	c.send("UNSELECT")
	c.send("ENABLE QRESYNC")
	command := fmt.Sprintf("SELECT INBOX (QRESYNC (%d %d))", f.UIDValidity(), modseq)
	for b.Loop() {
		lines, tagged := c.send(command)
		if len(lines) < 100 || !strings.HasPrefix(tagged, "OK") {
			b.Fatal(lines, tagged)
		}
	}
}
