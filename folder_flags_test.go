package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// changeUnsettled changes flags as SetFlags does up to its answer, without renaming a file after it: what a crash right
// behind the answer leaves.
func changeUnsettled(t *testing.T, f *Folder, uids []imap.UID, op FlagOp, flags ...imap.Flag) {
	t.Helper()
	f.mu.Lock()
	defer f.unlock()
	if err := f.usable(); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := f.setFlags(flagDelta{op: op, may: RightsAll}, uids, flags, NoUnchangedSince); err != nil {
		t.Fatal(err)
	}
	if !f.settling {
		t.Fatal("the change did not go by the journal")
	}
}

// copyData copies a data folder as it lies on disk, as a power cut would leave it.
func copyData(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // a lock file, meanwhile
			return nil
		}
		rel, rerr := filepath.Rel(dir, path)
		if err = errors.Join(err, rerr); err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, os.WriteFile(filepath.Join(to, rel), data, 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// flagsOf gives the flags of all messages, as a list each.
func flagsOf(t *testing.T, f *Folder) []string {
	t.Helper()
	msgs, err := f.Messages(nil, f.allUIDs(), false)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for i := range msgs {
		flags := strings.Fields(string(f.AppendFlags(nil, &msgs[i])))
		slices.Sort(flags)
		lines = append(lines, fmt.Sprint(msgs[i].UID, flags))
	}
	return lines
}

// lettersOf gives the suffixes of the file names in cur/, in the order of their bases.
func lettersOf(t *testing.T, f *Folder) []string {
	t.Helper()
	names, err := listNames(filepath.Join(f.path, "cur"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for i, name := range names {
		_, info := splitName(name)
		names[i] = strings.TrimLeft(info, ":;2,")
	}
	return names
}

// awaitSettled waits until the files have their names.
func awaitSettled(t *testing.T, f *Folder) {
	t.Helper()
	for range 1000 {
		f.mu.Lock()
		settled := !f.settling
		f.mu.Unlock()
		if settled {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the files do not get their names")
}

// TestFlagsAfterCrash opens what a power cut right behind the answers leaves, with and without the index: the flags are
// those that were answered, and their files get their names.
func TestFlagsAfterCrash(t *testing.T) {
	dir := t.TempDir()
	in := openInbox(t, dir)
	defer in.close(t)
	for i := range 6 {
		appendText(t, in.f, fmt.Sprint(i, "\r\n"))
	}
	all := in.f.allUIDs()
	changeUnsettled(t, in.f, all, FlagsAdd, imap.FlagFlagged, "Work")
	changeUnsettled(t, in.f, []imap.UID{2}, FlagsRemove, imap.FlagFlagged)
	changeUnsettled(t, in.f, []imap.UID{3, 4, 5}, FlagsReplace, imap.FlagSeen)
	changeUnsettled(t, in.f, []imap.UID{6}, FlagsAdd, imap.FlagDraft, "$Other")
	want := []string{`1 [Work \Flagged]`, `2 [Work]`, `3 [\Seen]`, `4 [\Seen]`, `5 [\Seen]`, `6 [$Other Work \Draft \Flagged]`}
	wantLines(t, "before the crash", flagsOf(t, in.f), want)
	announced := in.f.highestModSeq()
	if letters := lettersOf(t, in.f); !slices.Equal(letters, make([]string, 6)) {
		t.Fatalf("files were renamed already: %q", letters)
	}
	for _, lost := range []string{"", "index", "index and half of the files renamed"} {
		data := copyData(t, dir)
		if lost != "" {
			os.RemoveAll(filepath.Join(data, "index"))
		}
		if strings.Contains(lost, "half") {
			cur := filepath.Join(data, "mail/example.org/ann/cur")
			names, _ := listNames(cur)
			slices.Sort(names)
			for i, info := range []string{":2,Fa", ":2,a", ":2,S"} {
				base, _ := splitName(names[i])
				os.Rename(filepath.Join(cur, names[i]), filepath.Join(cur, base+info))
			}
		}
		after := openInbox(t, data)
		wantLines(t, "after a crash, lost: "+lost, flagsOf(t, after.f), want)
		if after.f.highestModSeq() <= announced {
			t.Errorf("modseq %d after %d was announced", after.f.highestModSeq(), announced)
		}
		awaitSettled(t, after.f)
		if got := lettersOf(t, after.f); !slices.Equal(got, []string{"Fa", "a", "S", "S", "S", "DFab"}) {
			t.Errorf("files are called %q", got)
		}
		if _, err := os.Stat(filepath.Join(after.f.path, flagJournalName)); !os.IsNotExist(err) {
			t.Errorf("the journal is left: %v", err)
		}
		checkAgainstDisk(t, after.f)
		after.close(t)
		os.RemoveAll(filepath.Join(data, "index"))
		after = openInbox(t, data)
		wantLines(t, "from the names alone", flagsOf(t, after.f), want)
		after.close(t)
	}
}

// TestFlagJournalDamage opens folders whose journal is cut, spoilt or of another UIDVALIDITY: what is whole counts.
func TestFlagJournalDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := openInbox(t, dir)
	defer in.close(t)
	for i := range 4 {
		appendText(t, in.f, fmt.Sprint(i, "\r\n"))
	}
	changeUnsettled(t, in.f, in.f.allUIDs(), FlagsAdd, imap.FlagFlagged)
	changeUnsettled(t, in.f, in.f.allUIDs(), FlagsAdd, imap.FlagSeen)
	path := filepath.Join(in.f.path, flagJournalName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first, second, _ := strings.Cut(string(whole), "\n")
	other := flagEntry{validity: 1, op: FlagsAdd, flags: []imap.Flag{imap.FlagDraft}, uids: uidRuns(in.f.allUIDs())}
	huge := flagEntry{validity: in.f.UIDValidity(), op: FlagsAdd, flags: []imap.Flag{imap.FlagDraft}, uids: imap.UIDSet{{Start: 4, Stop: 1<<32 - 1}, {Start: 4, Stop: 4}}}
	for _, test := range []struct{ text, want string }{
		{first + "\n", `[\Flagged]`},
		{first + "\n" + second[:len(second)-1], `[\Flagged]`},
		{first + "\n" + strings.Replace(second, "Seen", "Been", 1), `[\Flagged]`},
		{"\x00\x00\x00\n\n" + second, `[\Seen]`},
		{string(other.format()) + first + "\n", `[\Flagged]`},
		{"", `[]`},
		{string(huge.format()), `[\Draft]`},
	} {
		data := copyData(t, dir)
		if err := os.WriteFile(filepath.Join(data, "mail/example.org/ann", flagJournalName), []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		after := openInbox(t, data)
		if got := flagsOf(t, after.f)[3]; got != "4 "+test.want {
			t.Errorf("%q gives %s, want %s", test.text, got, test.want)
		}
		awaitSettled(t, after.f)
		after.close(t)
	}
}

// TestPendingFlags does what sessions and other programs do while files still lack the letters of their flags.
func TestPendingFlags(t *testing.T) {
	in := openInbox(t, t.TempDir())
	defer in.close(t)
	for i := range 8 {
		appendText(t, in.f, fmt.Sprint(i, "\r\n"), imap.FlagAnswered)
	}
	changeUnsettled(t, in.f, in.f.allUIDs(), FlagsAdd, imap.FlagFlagged)
	changeUnsettled(t, in.f, []imap.UID{2}, FlagsRemove, imap.FlagAnswered)

	names, _ := listNames(filepath.Join(in.f.path, "cur"))
	slices.Sort(names)
	for i, info := range []string{":2,RS", ":2,R", ":2,"} { // another program: adds, changes nothing, removes
		base, old := splitName(names[i])
		if err := os.Rename(filepath.Join(in.f.path, "cur", base+old), filepath.Join(in.f.path, "cur", base+info)); err != nil {
			t.Fatal(err)
		}
	}
	in.f.poke()
	archive := openFolder(t, in.d, "Archive")
	defer archive.Release()
	if _, err := in.f.Copy([]imap.UID{2, 4}, archive); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := in.f.Move([]imap.UID{5}, archive); err != nil {
		t.Fatal(err)
	}
	if _, _, err := in.f.Expunge([]imap.UID{6}, false); err != nil {
		t.Fatal(err)
	}
	wantLines(t, "copies", flagsOf(t, archive), []string{`1 [\Flagged]`, `2 [\Answered \Flagged]`, `3 [\Answered \Flagged]`})
	want := []string{`1 [\Answered \Flagged \Seen]`, `2 [\Flagged]`, `3 [\Flagged]`, `4 [\Answered \Flagged]`, `7 [\Answered \Flagged]`, `8 [\Answered \Flagged]`}
	wantLines(t, "while pending", flagsOf(t, in.f), want)
	if m, err := in.f.OpenMessage(8); err != nil {
		t.Error(err)
	} else {
		m.Close()
	}
	in.f.startSettling()
	awaitSettled(t, in.f)
	wantLines(t, "settled", flagsOf(t, in.f), want)
	if got := lettersOf(t, in.f); !slices.Equal(got, []string{"FRS", "F", "F", "FR", "FR", "FR"}) {
		t.Errorf("files are called %q", got)
	}
	checkAgainstDisk(t, in.f)
}

// TestPendingFlagsMove renames a mailbox, removes one and puts one away while its files still lack their names.
func TestPendingFlagsMove(t *testing.T) {
	dir := t.TempDir()
	in := openInbox(t, dir)
	for _, name := range []string{"Archive", "Junk"} {
		f := openFolder(t, in.d, name)
		for i := range 3 {
			appendText(t, f, fmt.Sprint(i, "\r\n"))
		}
		changeUnsettled(t, f, f.allUIDs(), FlagsAdd, imap.FlagSeen)
		f.Release()
	}
	if err := in.d.RenameFolder("Archive", "Kept"); err != nil {
		t.Fatal(err)
	}
	if err := in.d.DeleteFolder("Junk"); err != nil {
		t.Fatal(err)
	}
	in.close(t)
	if names, _ := filepath.Glob(filepath.Join(dir, "mail/example.org/ann/.Kept/cur/*S")); len(names) != 3 {
		t.Errorf("put away without their names: %v", names)
	}
	in = openInbox(t, dir)
	defer in.close(t)
	f := openFolder(t, in.d, "Kept")
	defer f.Release()
	wantLines(t, "renamed", flagsOf(t, f), []string{`1 [\Seen]`, `2 [\Seen]`, `3 [\Seen]`})
	if f.settling {
		t.Error("the journal is left")
	}
}

// TestFlagsWithoutJournal changes flags where no journal can be written: the files are renamed at once.
func TestFlagsWithoutJournal(t *testing.T) {
	in := openInbox(t, t.TempDir())
	defer in.close(t)
	for i := range 4 {
		appendText(t, in.f, fmt.Sprint(i, "\r\n"))
	}
	changeUnsettled(t, in.f, in.f.allUIDs(), FlagsAdd, imap.FlagFlagged)
	path := filepath.Join(in.f.path, flagJournalName)
	if err := os.Truncate(path, flagJournalLimit); err != nil { // it is full
		t.Fatal(err)
	}
	changed, _, _, err := in.f.SetFlags(in.f.allUIDs(), FlagsAdd, []imap.Flag{imap.FlagSeen}, NoUnchangedSince)
	if err != nil || len(changed) != 4 {
		t.Fatal(changed, err)
	}
	if got := lettersOf(t, in.f); !slices.Equal(got, []string{"FS", "FS", "FS", "FS"}) {
		t.Errorf("files are called %q", got)
	}
	if in.f.settling {
		t.Error("the journal is said to be there")
	}
}

// FuzzFlagEntry reads lines of a journal, and writes what it has understood.
func FuzzFlagEntry(f *testing.F) {
	e := flagEntry{validity: 1700000000, op: FlagsRemove, flags: []imap.Flag{imap.FlagSeen, "Work"}, uids: uidRuns([]imap.UID{1, 2, 3, 7})}
	f.Add(strings.TrimSuffix(string(e.format()), "\n"))
	f.Add("V1 +() 1 00000000")
	f.Fuzz(func(t *testing.T, line string) {
		e, ok := parseFlagEntry(line)
		if !ok {
			return
		}
		again, ok := parseFlagEntry(strings.TrimSuffix(string(e.format()), "\n"))
		if !ok || fmt.Sprint(again) != fmt.Sprint(e) {
			t.Errorf("%q is %v, and then %v", line, e, again)
		}
	})
}

// BenchmarkSetFlags changes a flag of 10,000 messages, up to the answer.
func BenchmarkSetFlags(b *testing.B) {
	dir := b.TempDir()
	fillMaildir(b, filepath.Join(dir, "mail/example.org/ann"), 10000, 100)
	for _, from := range []int{defaultJournalFrom, 1 << 30} {
		b.Run(map[bool]string{true: "journal", false: "rename"}[from == defaultJournalFrom], func(b *testing.B) {
			s := testStore(b, dir)
			s.journalFrom = from
			d := testDrop(b, s)
			f := openFolder(b, d, "INBOX")
			op := FlagsAdd
			for b.Loop() {
				if _, _, _, err := f.SetFlags(f.allUIDs(), op, []imap.Flag{imap.FlagFlagged}, NoUnchangedSince); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				op = FlagsAdd + FlagsRemove - op
				settleFolder(b, f)
				b.StartTimer()
			}
			f.Release()
			d.Release()
			s.Close()
		})
	}
}

// BenchmarkExpunge removes 1,000 messages of 10,000.
func BenchmarkExpunge(b *testing.B) {
	rnd := rand.New(rand.NewSource(1))
	dir := b.TempDir()
	for b.Loop() {
		b.StopTimer()
		os.RemoveAll(dir)
		fillMaildir(b, filepath.Join(dir, "mail/example.org/ann"), 10000, 100)
		s := testStore(b, dir)
		d := testDrop(b, s)
		f := openFolder(b, d, "INBOX")
		uids := slices.Clone(f.allUIDs())
		rnd.Shuffle(len(uids), func(i, j int) { uids[i], uids[j] = uids[j], uids[i] })
		uids = uids[:1000]
		slices.Sort(uids)
		b.StartTimer()
		if removed, _, err := f.Expunge(uids, false); err != nil || len(removed) != 1000 {
			b.Fatal(len(removed), err)
		}
		b.StopTimer()
		f.Release()
		d.Release()
		s.Close()
		b.StartTimer()
	}
}
