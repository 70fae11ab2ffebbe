package main

import (
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// openKept opens a folder that is made if need be.
func openKept(t testing.TB, d *Maildrop, name string) *Folder {
	t.Helper()
	if err := d.CreateFolder(name, nil); err != nil {
		t.Fatal(err)
	}
	return openFolder(t, d, name)
}

// TestMoveTakesNewestFlags changes flags while a MOVE waits for its target: with files that are still to get their names, and
// with others. What was answered is there in the target, and what was not is nowhere.
func TestMoveTakesNewestFlags(t *testing.T) {
	for _, pending := range []bool{true, false} {
		in := openInbox(t, t.TempDir())
		kept := openKept(t, in.d, "Kept")
		for i := range 8 {
			appendText(t, in.f, fmt.Sprint(i, "\r\n"))
		}
		all := in.f.allUIDs()
		if pending {
			changeUnsettled(t, in.f, all, FlagsAdd, imap.FlagSeen)
		}
		var wg sync.WaitGroup
		stored := make(chan []imap.UID, 1)
		kept.mu.Lock()
		wg.Go(func() {
			if moved, dst, _, err := in.f.Move(all, kept); err != nil || len(moved) != 8 || len(dst) != 8 {
				t.Error(moved, dst, err)
			}
		})
		time.Sleep(20 * time.Millisecond)
		wg.Go(func() {
			changed, _, _, err := in.f.SetFlags([]imap.UID{7, 8}, FlagsAdd, []imap.Flag{imap.FlagFlagged, "Work"}, NoUnchangedSince)
			if err != nil {
				t.Error(err)
			}
			stored <- changed
		})
		time.Sleep(20 * time.Millisecond)
		kept.mu.Unlock()
		wg.Wait()
		changed := <-stored
		flagged := 0
		for _, line := range flagsOf(t, kept) {
			if strings.Contains(line, `Work \Flagged`) {
				flagged++
			}
		}
		if flagged != len(changed) {
			t.Errorf("pending %t: %d messages were flagged, and %d are", pending, len(changed), flagged)
		}
		checkAgainstDisk(t, kept)
		checkAgainstDisk(t, in.f)
		kept.Release()
		in.close(t)
	}
}

// crossing is a test in which messages are moved between three folders in all directions at once.
type crossing struct {
	t       *testing.T
	folders [3]*Folder

	mu   sync.Mutex
	went map[placeOf]placeOf         // where a message of a folder was moved to
	told map[placeOf]map[string]bool // flags that were answered with OK there
}

// placeOf is a message in a folder.
type placeOf struct {
	folder *Folder
	uid    imap.UID
}

// move moves all messages of a folder to another one or the same.
func (c *crossing) move(rnd *rand.Rand) {
	from, to := c.folders[rnd.Intn(3)], c.folders[rnd.Intn(3)]
	uids := from.allUIDs()
	if rnd.Intn(3) == 0 {
		uids = uids[len(uids)/2:]
	}
	if len(uids) == 0 {
		return
	}
	moved, dst, _, err := from.Move(uids, to)
	if err != nil && !errors.Is(err, ErrExpunged) {
		c.t.Errorf("MOVE of %d: %v", len(uids), err)
	}
	if !slices.IsSorted(moved) || !slices.IsSorted(dst) || len(moved) != len(dst) {
		c.t.Errorf("moved %v to %v", moved, dst)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range moved {
		c.went[placeOf{from, moved[i]}] = placeOf{to, dst[i]}
	}
}

// store gives some messages of a folder a flag, few or so many that it goes by the journal.
func (c *crossing) store(rnd *rand.Rand, flag string) {
	f := c.folders[rnd.Intn(3)]
	uids := f.allUIDs()
	if len(uids) == 0 {
		return
	}
	first := rnd.Intn(len(uids))
	changed, _, _, err := f.SetFlags(uids[first:min(first+1+rnd.Intn(50), len(uids))], FlagsAdd, []imap.Flag{imap.Flag(flag)}, NoUnchangedSince)
	if err != nil {
		c.t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, uid := range changed {
		at := placeOf{f, uid}
		if c.told[at] == nil {
			c.told[at] = map[string]bool{}
		}
		c.told[at][flag] = true
	}
}

// rename adds a flag as other programs do.
func (c *crossing) rename(rnd *rand.Rand) {
	cur := filepath.Join(c.folders[rnd.Intn(3)].path, "cur")
	names, _ := listNames(cur)
	for range min(len(names), 3) {
		name := names[rnd.Intn(len(names))]
		if base, info := splitName(name); !strings.Contains(info, "D") && info != "" {
			os.Rename(filepath.Join(cur, name), filepath.Join(cur, base+":2,D"+info[3:]))
		}
	}
}

// TestMoveCrossing moves whole folders of some hundred messages between three folders at once, while others change flags and
// another program renames files. No message is lost, doubled or given a UID but by a move, and every flag that was answered
// with OK is on its message, wherever that went.
func TestMoveCrossing(t *testing.T) {
	t.Parallel()
	const each = 150
	dir := t.TempDir()
	for _, name := range []string{"", ".A", ".B"} {
		fillMaildir(t, filepath.Join(dir, "mail/example.org/ann", name), each, 10)
	}
	in := openInbox(t, dir)
	defer in.close(t)
	in.s.journalFrom = 20
	c := &crossing{t: t, folders: [3]*Folder{in.f, openFolder(t, in.d, "A"), openFolder(t, in.d, "B")},
		went: map[placeOf]placeOf{}, told: map[placeOf]map[string]bool{}}
	// In one of them the keywords have no letters.
	if _, _, _, err := c.folders[2].SetFlags([]imap.UID{1}, FlagsAdd, manyKeywords(30), NoUnchangedSince); err != nil {
		t.Fatal(err)
	}
	var wg, outside sync.WaitGroup
	for n := range 6 {
		wg.Go(func() {
			rnd := rand.New(rand.NewSource(int64(n)))
			for range 12 {
				if n < 3 {
					c.move(rnd)
					continue
				}
				for range 4 {
					c.store(rnd, []string{`\Flagged`, "Work", "$Later"}[n-3])
				}
			}
		})
	}
	over := make(chan struct{})
	outside.Go(func() {
		for rnd := rand.New(rand.NewSource(99)); ; {
			select {
			case <-over:
				return
			case <-time.After(time.Millisecond):
				c.rename(rnd)
			}
		}
	})
	wg.Wait()
	close(over)
	outside.Wait()
	c.check(each)
	data := copyData(t, dir)
	os.RemoveAll(filepath.Join(data, "index"))
	after := openInbox(t, data)
	defer after.close(t)
	for i, name := range []string{"INBOX", "A", "B"} {
		f := openFolder(t, after.d, name)
		wantLines(t, name+" from the files alone", flagsOf(t, f), flagsOf(t, c.folders[i]))
		f.Release()
		if i > 0 {
			c.folders[i].Release()
		}
	}
}

// check compares what is there with what was told.
func (c *crossing) check(each int) {
	c.t.Helper()
	flags, arrived, there := map[placeOf]string{}, map[*Folder]int{}, 0
	for _, to := range c.went {
		arrived[to.folder]++
	}
	for _, f := range c.folders {
		f.poke()
		checkAgainstDisk(c.t, f)
		st, err := f.Status(false)
		if err != nil || int(st.UIDNext) != each+arrived[f]+1 {
			c.t.Errorf("UIDNEXT %d after %d messages and %d moved there: %v", st.UIDNext, each, arrived[f], err)
		}
		there += int(st.Messages)
		for _, line := range flagsOf(c.t, f) {
			uid, rest, _ := strings.Cut(line, " ")
			var n imap.UID
			fmt.Sscan(uid, &n)
			flags[placeOf{f, n}] = rest
		}
	}
	if there != 3*each {
		c.t.Errorf("%d messages, want %d", there, 3*each)
	}
	for at, told := range c.told {
		for next, ok := c.went[at]; ok; next, ok = c.went[at] {
			at = next
		}
		for flag := range told {
			if got, ok := flags[at]; !ok || !strings.Contains(got, flag) {
				c.t.Errorf("UID %d has %q, and %s was answered with OK", at.uid, got, flag)
			}
		}
	}
}

// TestMoveDisk moves and copies messages between maildrops in different file systems, where no file can have a second name.
func TestMoveDisk(t *testing.T) {
	other, err := os.MkdirTemp("/dev/shm", "appliance-test")
	if err != nil {
		t.Skip("there is no other file system to write to")
	}
	defer os.RemoveAll(other)
	in := openInbox(t, t.TempDir())
	defer in.close(t)
	far := filepath.Join(in.dir, "mail/example.org/far")
	if err := os.Symlink(other, far); err != nil {
		t.Skip(err)
	}
	appendText(t, in.f, "one\r\n", imap.FlagSeen)
	appendText(t, in.f, "two\r\n", "Work")
	if err := os.Link(filepath.Join(in.f.path, uidlistName), filepath.Join(far, "x")); err == nil {
		t.Skip("it is the same file system")
	}
	d := testDropOf(t, in.s, "far@example.org")
	defer d.Release()
	to := openFolder(t, d, "INBOX")
	defer to.Release()
	if dst, err := in.f.Copy([]imap.UID{1, 2}, to); err != nil || len(dst) != 2 {
		t.Fatal(dst, err)
	}
	if moved, dst, _, err := in.f.Move([]imap.UID{2}, to); err != nil || len(moved) != 1 || dst[0] != 3 {
		t.Fatal(moved, dst, err)
	}
	wantLines(t, "here", folderLines(t, in.f), []string{`1 [\Seen] "one\r\n" 5`})
	wantLines(t, "there", folderLines(t, to), []string{`1 [\Seen] "one\r\n" 5`, `2 [Work] "two\r\n" 5`, `3 [Work] "two\r\n" 5`})
	for _, f := range []*Folder{in.f, to} {
		checkAgainstDisk(t, f)
		if names, _ := listNames(filepath.Join(f.path, "tmp")); len(names) > 0 {
			t.Errorf("left in tmp/: %v", names)
		}
	}
}

// BenchmarkTransfer copies and moves 1,000 messages of 10,000 into another folder, up to the answer.
func BenchmarkTransfer(b *testing.B) {
	for _, name := range []string{"copy", "move"} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			fillMaildir(b, filepath.Join(dir, "mail/example.org/ann"), 10000, 100)
			in := openInbox(b, dir)
			defer in.close(b)
			archive := openKept(b, in.d, "Kept")
			defer archive.Release()
			if _, err := in.f.Status(true); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				var err error
				uids := slices.Clone(in.f.allUIDs()[:1000])
				if name == "copy" {
					_, err = in.f.Copy(uids, archive)
				} else {
					_, _, _, err = in.f.Move(uids, archive)
				}
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if name == "move" { // back again, so that there is always as much
					_, _, _, err = archive.Move(archive.allUIDs(), in.f)
				} else {
					_, _, err = archive.Expunge(nil, false)
				}
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "µs/message")
		})
	}
}
