package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// testWatch is a watch whose news are awaited.
type testWatch struct {
	*MailboxWatch
	t    *testing.T
	some chan struct{}
}

// watchAll follows all mailboxes of a maildrop.
func watchAll(t *testing.T, d *Maildrop) *testWatch {
	t.Helper()
	w := &testWatch{t: t, some: make(chan struct{}, 1)}
	var err error
	w.MailboxWatch, err = d.Watch(func() {
		select {
		case w.some <- struct{}{}:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	w.follow()
	return w
}

func (w *testWatch) follow() {
	w.t.Helper()
	list, err := w.drop.Folders()
	if err != nil {
		w.t.Fatal(err)
	}
	w.Follow(list)
}

// describe gives news in one line.
func (n MailboxNews) describe() string {
	var words []string
	for name, change := range n.Changed {
		words = append(words, fmt.Sprintf("%s:%d", name, change))
	}
	slices.Sort(words)
	for _, e := range n.Events {
		words = append(words, fmt.Sprintf("%d(%s%s)", e.Kind, e.Name, e.OldName))
	}
	if n.Lost {
		words = append(words, "lost")
	}
	if n.Closed {
		words = append(words, "closed")
	}
	return fmt.Sprint(words)
}

// expect waits for news, which may come in pieces.
func (w *testWatch) expect(want string) {
	w.t.Helper()
	var all MailboxNews
	end := time.After(10 * time.Second)
	for {
		select {
		case <-w.some:
		case <-end:
			w.t.Fatalf("got %s, want %s", all.describe(), want)
		}
		n := w.Take(nil)
		for name, change := range n.Changed {
			if all.Changed == nil {
				all.Changed = map[string]MailboxChange{}
			}
			all.Changed[name] |= change
		}
		all.Events = append(all.Events, n.Events...)
		all.Lost, all.Closed = n.Lost, n.Closed
		if all.describe() == want {
			return
		}
	}
}

// silent makes sure that nothing comes.
func (w *testWatch) silent() {
	w.t.Helper()
	time.Sleep(3 * watchDelay)
	if n := w.Take(nil); n.describe() != "[]" {
		w.t.Fatalf("got %s, want nothing", n.describe())
	}
	select {
	case <-w.some:
	default:
	}
}

func TestWatchMailboxes(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	w := watchAll(t, d)

	// A mailbox that is in memory tells what has happened.
	archive := openFolder(t, d, "Archive")
	uid := appendText(t, archive, "Subject: x\r\n\r\n")
	w.expect(fmt.Sprintf("[Archive:%d]", MessagesNew))
	if _, _, _, err := archive.SetFlags([]imap.UID{uid}, FlagsAdd, []imap.Flag{imap.FlagSeen}, NoUnchangedSince); err != nil {
		t.Fatal(err)
	}
	w.expect(fmt.Sprintf("[Archive:%d]", FlagsChanged))
	if _, _, err := archive.Expunge(nil, false); err != nil {
		t.Fatal(err)
	}
	w.expect(fmt.Sprintf("[Archive:%d]", MessagesGone))
	appendText(t, archive, "Subject: x\r\n\r\n")
	if n := w.Take(archive); n.describe() != "[]" {
		t.Errorf("got %s of the folder that was left out", n.describe())
	}
	w.Seen(archive)
	w.silent()
	archive.Release()

	// A delivery into one that is not.
	deliver := func(folder string) {
		t.Helper()
		if err := s.Deliver(context.Background(), receiveText(t, d, "Subject: x\r\n\r\n"), []Delivery{{Account: "ann@example.org", Folder: folder}}); err != nil {
			t.Fatal(err)
		}
	}
	if d.loaded(".Junk") != nil {
		t.Fatal("Junk is in memory")
	}
	deliver("Junk")
	w.expect(fmt.Sprintf("[Junk:%d]", anyChange)) // the file is noticed besides

	// Other programs.
	path := filepath.Join(dir, "mail", "example.org", "ann")
	if err := os.WriteFile(filepath.Join(path, ".Trash", "new", "1.x.y"), []byte("Subject: x\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.expect(fmt.Sprintf("[Trash:%d]", anyChange))
	if err := os.Remove(filepath.Join(path, ".Trash", "new", "1.x.y")); err != nil {
		t.Fatal(err)
	}
	w.expect(fmt.Sprintf("[Trash:%d]", anyChange))

	// INBOX is in the maildrop's own directory.
	deliverText(t, s, "Subject: x\r\n\r\n", "ann@example.org")
	w.expect(fmt.Sprintf("[INBOX:%d]", anyChange))
	w.silent()

	// A mailbox that is not followed.
	w.Follow(nil)
	deliver("Junk")
	w.silent()
}

// What happens to mailboxes as a whole, here and by other programs, each once.
func TestWatchNames(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	w := watchAll(t, d)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.CreateFolder("Lists/One", nil))
	w.expect("[0(Lists/One)]")
	must(d.Subscribe("Lists/One", true))
	w.expect("[3(Lists/One)]")
	must(d.Subscribe("Lists/One", true)) // as it is
	must(d.RenameFolder("Lists/One", "Lists/Two"))
	w.expect("[2(Lists/TwoLists/One)]")
	w.follow()
	must(s.Deliver(context.Background(), receiveText(t, d, "Subject: x\r\n\r\n"), []Delivery{{Account: "ann@example.org", Folder: "Lists/Two"}}))
	w.expect(fmt.Sprintf("[Lists/Two:%d]", anyChange))
	must(d.DeleteFolder("Lists/Two"))
	w.expect("[1(Lists/Two)]")
	must(s.Deliver(context.Background(), receiveText(t, d, "Subject: x\r\n\r\n"), []Delivery{{Account: "ann@example.org", Folder: "Made"}}))
	w.expect("[0(Made)]")
	w.silent()

	path := filepath.Join(dir, "mail", "example.org", "ann")
	must(makeFolderDir(filepath.Join(path, ".Foreign")))
	w.expect("[0(Foreign)]")
	must(os.Rename(filepath.Join(path, ".Foreign"), filepath.Join(path, ".Moved")))
	w.expect("[1(Foreign) 0(Moved)]")
	must(os.RemoveAll(filepath.Join(path, ".Moved")))
	w.expect("[1(Moved)]")
	must(saveSubscriptions(path, []string{"INBOX", "Odd"}))
	w.expect("[3(Archive) 3(Drafts) 3(Junk) 3(Lists/One) 3(Sent) 3(Trash) 3(Odd)]")
	w.silent()

	must(d.Subscribe("Odd", false))
	must(d.Subscribe("Even", true))
	w.TakeBack(MailboxEvent{Kind: SubscriptionChanged, Name: "Even"})
	w.expect("[3(Odd)]")
	for i := range watchEvents + 1 {
		must(d.Subscribe("Even", i%2 == 1))
	}
	<-w.some
	if n := w.Take(nil); len(n.Events) != watchEvents || !n.Lost {
		t.Errorf("%d events, lost: %t", len(n.Events), n.Lost)
	}
	if _, err := s.SetAside("ann@example.org"); err != nil {
		t.Fatal(err)
	}
	w.expect("[closed]")
	w.staysClosed(t)
}

// staysClosed makes sure that a closed watch can still be used.
func (w *testWatch) staysClosed(t *testing.T) {
	w.Follow([]FolderInfo{{Name: "INBOX", dir: "."}})
	if n := w.Take(nil); !n.Closed || len(n.Changed) > 0 {
		t.Errorf("after the end: %s", n.describe())
	}
	if _, err := w.drop.Watch(func() {}); err == nil {
		t.Error("a closed maildrop can be watched")
	}
}

// Two sessions follow the same mailboxes; the first one leaves.
func TestWatchShared(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	a, b := watchAll(t, d), watchAll(t, d)
	deliverText(t, s, "Subject: x\r\n\r\n", "ann@example.org")
	a.expect(fmt.Sprintf("[INBOX:%d]", anyChange))
	b.expect(fmt.Sprintf("[INBOX:%d]", anyChange))
	a.Close()
	if n := len(s.watch.listeners); n == 0 {
		t.Error("nothing is watched any more")
	}
	deliverText(t, s, "Subject: x\r\n\r\n", "ann@example.org")
	b.expect(fmt.Sprintf("[INBOX:%d]", anyChange))
	b.Close()
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	if n := len(s.watch.listeners); n != 0 {
		t.Errorf("%d directories are still watched", n)
	}
}

// Without file notices the directories are looked at.
func TestWatchPoll(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	defer s.Close()
	s.watch.tried = true // there are none
	d := testDrop(t, s)
	defer d.Release()
	w := watchAll(t, d)
	ws := &d.watches
	if ws.poll == nil {
		t.Fatal("nobody looks")
	}
	path := filepath.Join(dir, "mail", "example.org", "ann")
	ws.look(d)
	w.silent()
	if err := os.WriteFile(filepath.Join(path, ".Trash", "new", "1.x.y"), []byte("Subject: x\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := makeFolderDir(filepath.Join(path, ".Foreign")); err != nil {
		t.Fatal(err)
	}
	ws.look(d)
	w.expect(fmt.Sprintf("[Trash:%d 0(Foreign)]", anyChange))
	w.Close()
	if ws.poll != nil {
		t.Error("somebody still looks")
	}
}

// A view that holds changes back has them when it no longer does.
func TestViewHolds(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	f := openFolder(t, d, "INBOX")
	defer f.Release()
	for range 3 {
		appendText(t, f, "Subject: x\r\n\r\n")
	}
	v, err := f.NewView(false, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	start := v.ModSeq()
	sync := func(expunge bool, want string) {
		t.Helper()
		c, err := v.Sync(expunge)
		if got := fmt.Sprint(c.Expunged, c.Flags, c.SilentFlags, c.New, v.UIDs(), v.Gone()); err != nil || got != want {
			t.Errorf("got %s %v, want %s", got, err, want)
		}
	}
	set := func(uids ...imap.UID) uint64 {
		t.Helper()
		_, _, modseq, err := f.SetFlags(uids, FlagsAdd, []imap.Flag{imap.Flag(fmt.Sprintf("$%d", f.highestModSeq()))}, NoUnchangedSince)
		if err != nil {
			t.Fatal(err)
		}
		return modseq
	}
	v.Hold(true, true)
	appendText(t, f, "Subject: x\r\n\r\n")
	set(2)
	v.Own(set(3))
	sync(false, "[] [2] [3] [] [1 2 3] []")
	sync(true, "[] [] [] [] [1 2 3] []")
	if v.ModSeq() != start {
		t.Errorf("the view is in step with %d", v.ModSeq())
	}
	if _, _, err := f.Expunge([]imap.UID{2}, false); err != nil {
		t.Fatal(err)
	}
	sync(false, "[] [] [] [] [1 2 3] [2]")
	sync(true, "[2] [] [] [] [1 3] []")
	appendText(t, f, "Subject: x\r\n\r\n")
	sync(true, "[] [] [] [] [1 3] []")
	v.Hold(false, true)
	sync(false, "[] [] [] [4 5] [1 3 4 5] []")
	if v.RecentCount() != 4 {
		t.Errorf("%d are recent", v.RecentCount())
	}
	set(4)
	sync(false, "[] [4] [] [] [1 3 4 5] []")
	v.Hold(false, false)
	sync(false, "[] [3 4 5] [] [] [1 3 4 5] []")
	sync(false, "[] [] [] [] [1 3 4 5] []")
	if v.ModSeq() != f.highestModSeq() {
		t.Errorf("the view is in step with %d of %d", v.ModSeq(), f.highestModSeq())
	}
}
