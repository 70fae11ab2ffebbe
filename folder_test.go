package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"go.etcd.io/bbolt"
)

// testInbox is an INBOX that can be restarted.
type testInbox struct {
	dir string
	s   *Store
	d   *Maildrop
	f   *Folder
}

func openInbox(t testing.TB, dir string) *testInbox {
	t.Helper()
	s := testStore(t, dir)
	d := testDrop(t, s)
	return &testInbox{dir, s, d, openFolder(t, d, "INBOX")}
}

func (in *testInbox) close(t testing.TB) {
	t.Helper()
	in.f.Release()
	in.d.Release()
	if err := in.s.Close(); err != nil {
		t.Error(err)
	}
}

func setFlag(t testing.TB, f *Folder, flag imap.Flag, uids ...imap.UID) {
	t.Helper()
	if _, _, _, err := f.SetFlags(uids, FlagsAdd, []imap.Flag{flag}, NoUnchangedSince); err != nil {
		t.Fatal(err)
	}
}

// TestShutWaitsForFlush closes a maildrop while a flush is under way: what that flush took must be in the index before the
// index is said to be whole.
func TestShutWaitsForFlush(t *testing.T) {
	in := openInbox(t, t.TempDir())
	for i := range 5 {
		appendText(t, in.f, fmt.Sprintf("%d\r\n", i))
	}
	in.d.flush()
	setFlag(t, in.f, imap.FlagSeen, 2, 3)
	long := time.Now().Add(-time.Minute) // directory times so old that they are trusted
	for _, sub := range []string{"cur", "new"} {
		os.Chtimes(filepath.Join(in.f.path, sub), long, long)
	}
	in.f.mu.Lock()
	in.f.stamp()
	in.f.mu.Unlock()
	want := folderLines(t, in.f)
	in.d.saveMu.Lock() // as flush does
	batch, _ := in.f.takeBatch(in.f.index.generation())
	closed := make(chan struct{})
	go func() { in.close(t); close(closed) }()
	time.Sleep(50 * time.Millisecond)
	if err := in.f.index.save([]folderBatch{batch}); err != nil {
		t.Fatal(err)
	}
	in.d.saveMu.Unlock()
	<-closed
	in = openInbox(t, in.dir)
	defer in.close(t)
	wantLines(t, "after the restart", folderLines(t, in.f), want)
}

// TestIndexLostRecords takes records out of an index that goes on calling itself whole: the UID list still has the UIDs.
func TestIndexLostRecords(t *testing.T) {
	in := openInbox(t, t.TempDir())
	for i := range 5 {
		appendText(t, in.f, fmt.Sprintf("%d\r\n", i), imap.FlagFlagged)
	}
	want := folderLines(t, in.f)
	path := in.d.indexPath
	in.close(t)
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := folderBucket(tx, ".", false)
		if err == nil {
			err = b.Bucket(bucketMsgs).Delete(uidKey(2))
		}
		if err == nil {
			err = b.Bucket(bucketMsgs).Put(uidKey(4), []byte("damage"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	in = openInbox(t, in.dir)
	defer in.close(t)
	wantLines(t, "after the loss", folderLines(t, in.f), want)
}

// TestFileComesBack has a file gone long enough to be expunged: back again it is a new message, and stays that one.
func TestFileComesBack(t *testing.T) {
	in := openInbox(t, t.TempDir())
	appendText(t, in.f, "a\r\n")
	msgs, _ := in.f.Messages(nil, []imap.UID{1}, false)
	path := filepath.Join(in.f.path, "cur", msgs[0].fileName())
	away := filepath.Join(in.dir, "away")
	for _, move := range [][2]string{{path, away}, {away, path}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
		if _, err := in.f.Status(false); err != nil {
			t.Fatal(err)
		}
	}
	want := folderLines(t, in.f)
	if len(want) != 1 || !strings.HasPrefix(want[0], "2 ") {
		t.Fatalf("the file came back as %q", want)
	}
	in.close(t)
	os.RemoveAll(filepath.Join(in.dir, "index"))
	in = openInbox(t, in.dir)
	defer in.close(t)
	wantLines(t, "after the loss of the index", folderLines(t, in.f), want)
}

func cachedValue(f *Folder, uid imap.UID) (value string) {
	f.Cached(0, []imap.UID{uid}, func(_ imap.UID, v []byte) { value = string(v) })
	return value
}

// TestCachedValueOfDeletedFolder has a session that still works on a folder which was deleted and made anew.
func TestCachedValueOfDeletedFolder(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	d.CreateFolder("x", nil)
	old := openFolder(t, d, "x")
	appendText(t, old, "old\r\n")
	old.PutCached(0, 1, []byte("old"))
	d.DeleteFolder("x")
	d.CreateFolder("x", nil)
	old.PutCached(0, 1, []byte("old"))
	f := openFolder(t, d, "x")
	defer f.Release()
	if uid := appendText(t, f, "new\r\n"); uid != 1 {
		t.Fatalf("UID %d", uid)
	}
	for range 2 {
		if v := cachedValue(f, 1); v != "" {
			t.Fatalf("the new message has the value %q of the old one", v)
		}
		d.flush()
	}
}

// TestCachedValueOfOtherValidity has another program start the UIDs anew.
func TestCachedValueOfOtherValidity(t *testing.T) {
	in := openInbox(t, t.TempDir())
	appendText(t, in.f, "a\r\n")
	appendText(t, in.f, "b\r\n")
	in.f.Expunge([]imap.UID{1}, false)
	in.f.PutCached(0, 2, []byte("b"))
	appendText(t, in.f, "c\r\n")
	if v := cachedValue(in.f, 2); v != "b" {
		t.Fatalf("cached %q", v)
	}
	msgs, _ := in.f.Messages(nil, []imap.UID{2, 3}, false)
	list := in.f.list.path
	in.close(t)
	os.WriteFile(list, fmt.Appendf(nil, "3 V77 N3\n1 :%s\n2 :%s\n", msgs[0].base, msgs[1].base), 0o600)
	in = openInbox(t, in.dir)
	defer in.close(t)
	if v := cachedValue(in.f, 2); v != "" || in.f.UIDValidity() != 77 {
		t.Fatalf("UID 2 of UIDVALIDITY %d has the value %q", in.f.UIDValidity(), v)
	}
}

// TestExpungedWithoutIndex asks for removals that no index can remember.
func TestExpungedWithoutIndex(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "index"), nil, 0o600) // in the way
	in := openInbox(t, dir)
	defer in.close(t)
	for range 3 {
		appendText(t, in.f, "a\r\n")
	}
	in.d.flush()
	before := in.f.highestModSeq()
	in.f.Expunge([]imap.UID{2}, false)
	in.d.flush()
	gone, err := in.f.ExpungedSince(before, nil)
	if err != nil || !gone.Contains(2) || gone.Contains(1) || gone.Contains(3) {
		t.Fatal(gone, err)
	}
}

// TestExpungedDuringFlush asks for removals that are on their way into the index.
func TestExpungedDuringFlush(t *testing.T) {
	in := openInbox(t, t.TempDir())
	defer in.close(t)
	for range 3 {
		appendText(t, in.f, "a\r\n")
	}
	in.d.flush()
	before := in.f.highestModSeq()
	in.f.Expunge([]imap.UID{2}, false)
	batch, ok := in.f.takeBatch(in.f.index.generation())
	for _, when := range []string{"before", "after"} {
		gone, err := in.f.ExpungedSince(before, nil)
		if !ok || err != nil || !gone.Contains(2) {
			t.Fatal(when, gone, err)
		}
		in.f.batchWritten(in.f.index.save([]folderBatch{batch}))
	}
}

// TestFlagsAfterFault has a flag change of another program seen while no number can be had for it.
func TestFlagsAfterFault(t *testing.T) {
	in := openInbox(t, t.TempDir())
	defer in.close(t)
	appendText(t, in.f, "a\r\n")
	msgs, _ := in.f.Messages(nil, []imap.UID{1}, false)
	list, away := in.f.list.path, filepath.Join(in.dir, "away")
	in.f.mu.Lock()
	in.f.list.head.modseq = in.f.modseq // the next one must be reserved
	in.f.mu.Unlock()
	os.Rename(list, away)
	os.MkdirAll(filepath.Join(list, "x"), 0o700)
	cur := filepath.Join(in.f.path, "cur")
	os.Rename(filepath.Join(cur, msgs[0].fileName()), filepath.Join(cur, msgs[0].base+formatInfo(FlagFlagged, 0, "")))
	if _, err := in.f.Status(false); err == nil {
		t.Fatal("a flag was taken over without a modseq")
	}
	os.RemoveAll(list)
	os.Rename(away, list)
	if _, err := in.f.Status(false); err != nil {
		t.Fatal(err)
	}
	if msgs, _ = in.f.Messages(nil, []imap.UID{1}, false); msgs[0].Flags != FlagFlagged {
		t.Errorf("flags %v", msgs[0].Flags)
	}
}

// TestOpenDuringUnload opens folders while they are put away for disuse, and maildrops likewise.
func TestOpenDuringUnload(t *testing.T) {
	in := openInbox(t, t.TempDir())
	in.f.Release()
	in.d.Release()
	var last imap.UID
	for n := range 30 {
		away, d, f := make(chan struct{}), in.d, in.f
		go func() {
			if n%3 == 0 {
				d.expire()
			} else {
				d.unload(f)
			}
			close(away)
		}()
		in.d = testDrop(t, in.s)
		in.f = openFolder(t, in.d, "INBOX")
		uids, err := in.f.Append([]AppendMessage{{In: receiveText(t, in.d, fmt.Sprintf("%d\r\n", n))}})
		if err != nil || uids[0] <= last {
			t.Fatalf("UID %v after %d: %v", uids, last, err)
		}
		last = uids[0]
		<-away
		in.f.Release()
		in.d.Release()
	}
	in.d = testDrop(t, in.s)
	in.f = openFolder(t, in.d, "INBOX")
	want := folderLines(t, in.f)
	if len(want) != 30 {
		t.Fatalf("%d messages", len(want))
	}
	in.close(t)
	for _, lose := range []string{"nothing", "index"} {
		os.RemoveAll(filepath.Join(in.dir, lose))
		in = openInbox(t, in.dir)
		if got := folderLines(t, in.f); !slices.Equal(got, want) {
			t.Errorf("without the %s: %q", lose, got)
		}
		in.close(t)
	}
}

// TestUIDListLostLines has a power cut take the end of the UID list, which the index still knows: it is written again, so
// that the index can be lost later.
func TestUIDListLostLines(t *testing.T) {
	in := openInbox(t, t.TempDir())
	for i := range 5 {
		appendText(t, in.f, fmt.Sprintf("%d\r\n", i))
	}
	in.f.Expunge([]imap.UID{3}, false)
	want, list := folderLines(t, in.f), in.f.list.path
	in.close(t)
	data, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(data), "\n")
	os.WriteFile(list, []byte(strings.Join(lines[:3], "")), 0o600)
	for _, lose := range []string{"nothing", "index"} {
		os.RemoveAll(filepath.Join(in.dir, lose))
		in = openInbox(t, in.dir)
		wantLines(t, "without the "+lose, folderLines(t, in.f), want)
		in.close(t)
	}
}

// TestUIDsEnd has a damaged line claim the highest UIDs there are.
func TestUIDsEnd(t *testing.T) {
	in := openInbox(t, t.TempDir())
	appendText(t, in.f, "a\r\n")
	msgs, _ := in.f.Messages(nil, []imap.UID{1}, false)
	list := in.f.list.path
	in.close(t)
	os.RemoveAll(filepath.Join(in.dir, "index"))
	for _, c := range []struct {
		uid  uint64
		room bool
	}{{1<<32 - 1, true}, {1<<32 - 2, false}, {1<<32 - 500, true}} {
		os.WriteFile(list, fmt.Appendf(nil, "3 V77 N3\n%d :%s\n", c.uid, msgs[0].base), 0o600)
		in = openInbox(t, in.dir)
		last := in.f.allUIDs()[0]
		uids, err := in.f.Append([]AppendMessage{{In: receiveText(t, in.d, "b\r\n")}})
		if c.room != (err == nil) || err == nil && uids[0] <= last {
			t.Errorf("UID %v after %d: %v", uids, last, err)
		}
		if err == nil {
			in.f.Expunge(uids, false)
		}
		in.close(t)
		os.RemoveAll(filepath.Join(in.dir, "index"))
	}
}

func TestSpelling(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	for dir, want := range map[string]string{".": ".", ".sent": ".Sent", ".Sent": ".Sent", ".other": ".other"} {
		if got, err := d.spelled(dir); got != want || err != nil {
			t.Errorf("%s is spelled %s: %v", dir, got, err)
		}
	}
}

// The size of a message that another program has just put there, and whose name does not tell it, is in Status at once.
func TestStatusOfNewFile(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	f := openFolder(t, d, "INBOX")
	defer f.Release()
	want := int64(0)
	for n := range 20 {
		text := fmt.Sprintf("Subject: %d\n\nhello\n", n)
		if err := os.WriteFile(filepath.Join(dir, "mail/example.org/ann/new", fmt.Sprintf("17000000%02d.M1P1.other", n)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		want += int64(len(text) + 3) // its line ends are CRLF
		if st, err := f.Status(true); err != nil || int(st.Messages) != n+1 || st.Size != want {
			t.Fatalf("%d messages of %d bytes, %v; want %d of %d", st.Messages, st.Size, err, n+1, want)
		}
	}
}

// A message whose size and date are not known yet is found under the name that another program has just given it.
func TestRenamedBeforeItIsLearnt(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	f := openFolder(t, d, "INBOX")
	defer f.Release()
	const text = "Subject: x\r\n\r\nhello\r\n"
	inbox := filepath.Join(dir, "mail/example.org/ann")
	for n := range 20 {
		base := fmt.Sprintf("17000000%02d.M1P1.other", n)
		if err := os.WriteFile(filepath.Join(inbox, "new", base), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Status(false); err != nil { // it has a UID now, and nobody has asked for its size
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(inbox, "new", base), filepath.Join(inbox, "cur", base+":2,S")); err != nil {
			t.Fatal(err)
		}
		msgs, err := f.Messages(nil, f.allUIDs(), true)
		if err != nil || len(msgs) != n+1 || msgs[n].Size != int64(len(text)) || time.Since(time.Unix(msgs[n].Date, 0)) > time.Hour {
			t.Fatalf("%v %+v", err, msgs)
		}
	}
}

// A message that another program renames just then is expunged all the same.
func TestExpungeOfRenamed(t *testing.T) {
	in := openInbox(t, t.TempDir())
	defer in.close(t)
	for i := range 6 {
		appendText(t, in.f, fmt.Sprintf("%d\r\n", i))
	}
	setFlag(t, in.f, imap.FlagDeleted, 2, 4)
	in.d.flush()
	for _, all := range []bool{false, true} {
		in.f.mu.Lock()
		for i := range in.f.msgs {
			m := &in.f.msgs[i]
			from := m.pathIn(in.f.path)
			if err := os.Rename(from, from+"F"); err != nil {
				t.Error(err)
			}
		}
		removed, modseq, changed, err := in.f.expunge([]imap.UID{2, 3, 4, 5}, !all)
		in.f.unlock()
		want := "[2 4]"
		if all {
			want = "[3 5]"
		}
		if fmt.Sprint(removed) != want || modseq == 0 || !changed[0] || err != nil {
			t.Errorf("%v removed, %d, %v, %v; want %s", removed, modseq, changed, err, want)
		}
	}
	if got := fmt.Sprint(in.f.allUIDs()); got != "[1 6]" {
		t.Errorf("%s are left", got)
	}
}

// What a session has begun in a folder goes on where the folder is now, or says that it is gone.
func TestDurableFollowsFolder(t *testing.T) {
	in := openInbox(t, t.TempDir())
	defer in.close(t)
	if err := in.d.CreateFolder("one", nil); err != nil {
		t.Fatal(err)
	}
	f := openFolder(t, in.d, "one")
	defer f.Release()
	var paths []string
	err := f.durable(func(path string) error {
		if paths = append(paths, filepath.Base(path)); len(paths) == 1 {
			if err := in.d.RenameFolder("one", "two"); err != nil {
				t.Error(err)
			}
		}
		_, err := os.Stat(path)
		return err
	})
	if err != nil || fmt.Sprint(paths) != "[.one .two]" {
		t.Errorf("%v, %v", paths, err)
	}
	if err := in.d.DeleteFolder("two"); err != nil {
		t.Fatal(err)
	}
	if err := f.syncCur(); !errors.Is(err, ErrNoFolder) {
		t.Errorf("a deleted folder: %v", err)
	}
}

// highestModSeq is that of the last change.
func (f *Folder) highestModSeq() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.modseq
}
