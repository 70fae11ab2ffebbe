package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
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

// testStore opens a store below dir. Changes of flags go by the journal much sooner than they do elsewhere.
func testStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := OpenStore(StoreConfig{MailDir: filepath.Join(dir, "mail"), IndexDir: filepath.Join(dir, "index"), Host: "test", Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.journalFrom = 3
	return s
}

func testDrop(t testing.TB, s *Store) *Maildrop {
	t.Helper()
	d, err := s.Maildrop("ann@example.org")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func openFolder(t testing.TB, d *Maildrop, name string) *Folder {
	t.Helper()
	f, err := d.Open(name)
	if err != nil {
		t.Fatalf("opening %s: %v", name, err)
	}
	return f
}

func receiveText(t testing.TB, d *Maildrop, text string) *Incoming {
	t.Helper()
	in, err := d.Receive()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, text); err != nil {
		t.Fatal(err)
	}
	return in
}

func deliverText(t testing.TB, s *Store, text string, accounts ...string) {
	t.Helper()
	d, err := s.Maildrop(accounts[0])
	if err != nil {
		t.Fatal(err)
	}
	defer d.Release()
	var to []Delivery
	for _, a := range accounts {
		to = append(to, Delivery{Account: a, Folder: "INBOX"})
	}
	if err := s.Deliver(context.Background(), receiveText(t, d, text), to); err != nil {
		t.Fatal(err)
	}
}

func appendText(t testing.TB, f *Folder, text string, flags ...imap.Flag) imap.UID {
	t.Helper()
	uids, err := f.Append([]AppendMessage{{In: receiveText(t, f.drop, text), Flags: flags}})
	if err != nil {
		t.Fatal(err)
	}
	return uids[0]
}

// folderLines describes every message of a folder: uid, flags, text.
func folderLines(t testing.TB, f *Folder) []string {
	t.Helper()
	msgs, err := f.Messages(nil, f.allUIDs(), true)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for i := range msgs {
		m, err := f.OpenMessage(msgs[i].UID)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(m.Section(0, m.Size()))
		m.Close()
		if err != nil {
			t.Fatal(err)
		}
		flags := strings.Fields(string(f.AppendFlags(nil, &msgs[i])))
		slices.Sort(flags)
		lines = append(lines, fmt.Sprintf("%d %v %q %d", msgs[i].UID, flags, text, msgs[i].Size))
	}
	return lines
}

func wantLines(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s:\n got %s\nwant %s", what, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

func TestDefaultFolders(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	list, err := d.Folders()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range list {
		got = append(got, fmt.Sprint(f.Name, f.SpecialUse))
	}
	wantLines(t, "folders", got, []string{"INBOX[]", `Archive[\Archive]`, `Drafts[\Drafts]`, `Junk[\Junk]`, `Sent[\Sent]`, `Trash[\Trash]`})
	if subs, _ := d.Subscribed(); !slices.Equal(subs, []string{"Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash"}) {
		t.Errorf("subscriptions %v", subs)
	}
}

func TestDeliveryIsSeenAtOnce(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	deliverText(t, s, "a\r\n", "ann@example.org", "bob@example.org")
	f := openFolder(t, d, "INBOX")
	defer f.Release()
	told := make(chan struct{}, 10)
	v, err := f.NewView(false, func() { told <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if len(v.UIDs()) != 1 || v.RecentCount() != 1 {
		t.Fatalf("view has %v, %d recent", v.UIDs(), v.RecentCount())
	}
	deliverText(t, s, "b\r\n", "ann@example.org")
	select {
	case <-told:
	case <-time.After(5 * time.Second):
		t.Fatal("view was not told")
	}
	c, err := v.Sync(true)
	if err != nil || !c.Exists || len(v.UIDs()) != 2 || v.RecentCount() != 2 {
		t.Fatalf("after delivery: %+v %v %v", c, v.UIDs(), err)
	}
	names, _ := os.ReadDir(filepath.Join(d.dir, "new"))
	if len(names) != 0 {
		t.Errorf("claimed messages are still in new/: %v", names)
	}
}

// TestRestarts takes a folder through changes, restarts, the loss of the index and of the UID list.
func TestRestarts(t *testing.T) {
	dir, err := os.MkdirTemp("", "restarts") // on Windows a damaged index that was set aside stays mapped
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var want []string
	var validity uint32
	var modseq uint64
	step := func(name string, change func(d *Maildrop, f *Folder)) {
		t.Helper()
		s := testStore(t, dir)
		d := testDrop(t, s)
		f := openFolder(t, d, "INBOX")
		if want != nil {
			wantLines(t, "before "+name, folderLines(t, f), want)
			if f.UIDValidity() != validity {
				t.Fatalf("%s: UIDVALIDITY %d, was %d", name, f.UIDValidity(), validity)
			}
			if now := f.highestModSeq(); now < modseq {
				t.Fatalf("%s: modseq went back from %d to %d", name, modseq, now)
			}
		}
		if change != nil {
			change(d, f)
		}
		want, validity, modseq = folderLines(t, f), f.UIDValidity(), f.highestModSeq()
		f.Release()
		d.Release()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	step("filling", func(d *Maildrop, f *Folder) {
		for i := range 20 {
			deliverText(t, d.store, fmt.Sprintf("Subject: %d\r\n\r\nx\r\n", i), "ann@example.org")
		}
		if _, _, _, err := f.SetFlags([]imap.UID{2, 3, 5}, FlagsAdd, []imap.Flag{imap.FlagSeen, "$Forwarded", "Work"}, NoUnchangedSince); err != nil {
			t.Fatal(err)
		}
		if removed, _, err := f.Expunge([]imap.UID{4, 20}, false); err != nil || len(removed) != 2 {
			t.Fatal(removed, err)
		}
	})
	step("plain restart", func(d *Maildrop, f *Folder) { appendText(t, f, "new\r\n", imap.FlagDraft) })
	os.RemoveAll(filepath.Join(dir, "index"))
	step("index deleted", nil)
	os.WriteFile(filepath.Join(dir, "index/example.org/ann.db"), []byte(strings.Repeat("junk", 9999)), 0o600)
	step("index damaged", nil)
	damagePages(t, filepath.Join(dir, "index/example.org/ann.db"))
	step("index damaged behind its first pages", nil)
	os.Remove(filepath.Join(dir, "mail/example.org/ann", uidlistName))
	step("UID list deleted", func(d *Maildrop, f *Folder) { deliverText(t, d.store, "q\r\n", "ann@example.org") })
	path := filepath.Join(dir, "mail/example.org/ann", uidlistName)
	data, _ := os.ReadFile(path)
	os.WriteFile(path, append(data, "garbage here\n17\nx :\n"...), 0o600)
	step("UID list with bad lines", nil)
	step("the end", nil)
}

// TestOthersTouchTheMaildir plays mutt and mbsync: files made, renamed and removed while a view is open.
func TestOthersTouchTheMaildir(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	f := openFolder(t, d, "INBOX")
	defer f.Release()
	a, b := appendText(t, f, "a\r\n"), appendText(t, f, "b\r\n")
	told := make(chan struct{}, 100)
	v, err := f.NewView(false, func() {
		select {
		case told <- struct{}{}:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	await := func(what string, done func(c Changes) bool) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for {
			select {
			case <-told:
			case <-deadline:
				t.Fatal("not noticed: " + what)
			}
			c, err := v.Sync(true)
			if err != nil {
				t.Fatal(err)
			}
			if done(c) {
				return
			}
		}
	}
	cur := filepath.Join(d.dir, "cur")
	os.WriteFile(filepath.Join(d.dir, "new", "1700000000.other.host"), []byte("x\ny\n"), 0o600)
	await("a new file", func(c Changes) bool { return c.Exists })
	uids := v.UIDs()
	msgs, _ := f.Messages(nil, uids[2:], true)
	if len(msgs) != 1 || msgs[0].Size != 6 {
		t.Fatalf("new file became %+v", msgs)
	}
	msgs, _ = f.Messages(nil, []imap.UID{a}, false)
	os.Rename(filepath.Join(cur, msgs[0].fileName()), filepath.Join(cur, msgs[0].base+":2,FS"))
	await("changed letters", func(c Changes) bool { return slices.Equal(c.Flags, []imap.UID{a}) })
	msgs, _ = f.Messages(nil, []imap.UID{a, b}, false)
	if msgs[0].Flags != FlagSeen|FlagFlagged {
		t.Fatalf("flags %v", msgs[0].Flags)
	}
	os.Remove(filepath.Join(cur, msgs[1].fileName()))
	await("a removed file", func(c Changes) bool { return slices.Equal(c.ExpungedUIDs, []imap.UID{b}) })
}

func TestCopyAndMove(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	inbox, other := openFolder(t, d, "INBOX"), openFolder(t, d, "Archive")
	defer inbox.Release()
	defer other.Release()
	a := appendText(t, inbox, "a\r\n", imap.FlagSeen, "Work")
	b := appendText(t, inbox, "b\r\n")
	if _, err := inbox.Copy([]imap.UID{a, b}, other); err != nil {
		t.Fatal(err)
	}
	wantLines(t, "copies", folderLines(t, other), []string{`1 [Work \Seen] "a\r\n" 3`, `2 [] "b\r\n" 3`})
	if _, dst, _, err := inbox.Move([]imap.UID{a}, other); err != nil || dst[0] != 3 {
		t.Fatal(dst, err)
	}
	if _, dst, _, err := inbox.Move([]imap.UID{b}, inbox); err != nil || dst[0] != b+1 {
		t.Fatal(dst, err)
	}
	if dst, err := inbox.Copy([]imap.UID{b + 1}, inbox); err != nil || dst[0] != b+2 {
		t.Fatal(dst, err)
	}
	wantLines(t, "inbox", folderLines(t, inbox), []string{`3 [] "b\r\n" 3`, `4 [] "b\r\n" 3`})
	if _, err := inbox.Copy([]imap.UID{a}, other); !errors.Is(err, ErrExpunged) {
		t.Errorf("copying what is gone: %v", err)
	}
}

func TestRenameAndDeleteFolders(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	for _, name := range []string{"a", "a/b", "a/b/c.d", "Größe/x:y"} {
		if err := d.CreateFolder(name, nil); err != nil {
			t.Fatal(name, err)
		}
	}
	if err := d.CreateFolder("a", nil); !errors.Is(err, ErrExists) {
		t.Errorf("creating twice: %v", err)
	}
	for _, bad := range []string{"", "/", "a//b", "a\x00", "\xff", strings.Repeat("x", 300)} {
		if err := d.CreateFolder(bad, nil); !errors.Is(err, ErrBadName) {
			t.Errorf("creating %q: %v", bad, err)
		}
	}
	f := openFolder(t, d, "a/b/c.d")
	defer f.Release()
	uid := appendText(t, f, "kept\r\n")
	if err := d.RenameFolder("a", "z/y"); err != nil {
		t.Fatal(err)
	}
	if f.Name() != "z/y/b/c.d" {
		t.Errorf("open folder is now %q", f.Name())
	}
	if _, _, _, err := f.SetFlags([]imap.UID{uid}, FlagsAdd, []imap.Flag{imap.FlagSeen}, NoUnchangedSince); err != nil {
		t.Error(err)
	}
	if err := d.DeleteFolder("z/y/b"); err != nil {
		t.Fatal(err)
	}
	var names []string
	list, _ := d.Folders()
	for _, i := range list {
		names = append(names, i.Name)
	}
	wantLines(t, "folders", names, []string{"INBOX", "Archive", "Drafts", "Größe/x:y", "Junk", "Sent", "Trash", "z/y", "z/y/b/c.d"})
	inbox := openFolder(t, d, "INBOX")
	defer inbox.Release()
	appendText(t, inbox, "in\r\n")
	if err := d.RenameFolder("inbox", "old"); err != nil {
		t.Fatal(err)
	}
	old := openFolder(t, d, "old")
	defer old.Release()
	if len(inbox.allUIDs()) != 0 || len(old.allUIDs()) != 1 {
		t.Error("renaming INBOX did not move its mail")
	}
	if err := d.DeleteFolder("z/y/b/c.d"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Expunge(nil, false); !errors.Is(err, ErrNoFolder) {
		t.Errorf("using a deleted folder: %v", err)
	}
}

func TestSetAside(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	deliverText(t, s, "a\r\n", "ann@example.org")
	path, err := s.SetAside("ann@example.org")
	if err != nil || !strings.Contains(path, "ann.removed-") {
		t.Fatal(path, err)
	}
	if names, _ := os.ReadDir(filepath.Join(path, "new")); len(names) != 1 {
		t.Error("the mail is not in the folder set aside")
	}
	d := testDrop(t, s)
	defer d.Release()
	f := openFolder(t, d, "INBOX")
	defer f.Release()
	if len(f.allUIDs()) != 0 {
		t.Error("the account made anew does not start empty")
	}
}

// Who still holds the maildrop of a removed account can neither see nor touch that of the next person with the address.
func TestSetAsideEndsOldMaildrop(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	old := testDrop(t, s)
	defer old.Release()
	if _, err := s.SetAside(old.Account()); err != nil {
		t.Fatal(err)
	}
	next := testDrop(t, s)
	defer next.Release()
	if err := next.CreateFolder("private", nil); err != nil {
		t.Fatal(err)
	}
	_, listErr := old.Folders()
	_, subsErr := old.Subscribed()
	_, openErr := old.Open("private")
	for name, err := range map[string]error{
		"list": listErr, "lsub": subsErr, "open": openErr,
		"create": old.CreateFolder("mine", nil), "delete": old.DeleteFolder("private"),
		"rename": old.RenameFolder("private", "mine"), "subscribe": old.Subscribe("private", true),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s by the old maildrop: %v", name, err)
		}
	}
	openFolder(t, next, "private").Release()
}

// What a session looks at stays in memory however long it is silent, and leaves it when nobody looks any more.
func TestViewKeepsFolder(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	f := openFolder(t, d, "INBOX")
	v, err := f.NewView(false, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Release()
	d.Release()
	d.unload(f) // what the timers do after idleKeep
	d.expire()
	deliverText(t, s, "a\r\n", "ann@example.org")
	if c, err := v.Sync(true); err != nil || !c.Exists {
		t.Fatalf("the view sees %+v, %v", c, err)
	}
	v.Close()
	d.unload(f)
	d.expire()
	if _, err := f.Status(false); !errors.Is(err, ErrNoFolder) {
		t.Error("the folder is still in memory:", err)
	}
	if _, err := d.Folders(); !errors.Is(err, ErrClosed) {
		t.Error("the maildrop is still in memory:", err)
	}
}

func TestHostileAccounts(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	for _, a := range []string{"", "a", "@b", "a@", "../x@b", "a/b@c", "a@..", ".@b", "a@b/../c", "a\x00@b", `a\b@c`, "a@b\n"} {
		if _, err := s.Maildrop(a); !errors.Is(err, ErrBadAddress) {
			t.Errorf("account %q: %v", a, err)
		}
	}
}

// damagePages overwrites all of an index but the two pages that opening it reads in any case.
func damagePages(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 2 * 4096; i < len(data); i++ {
		data[i] = byte(i * 7)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// An index is opened without a write and keeps its free list, so that opening a large one does not read all of it.
func TestIndexOpensWithoutWork(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ann.db")
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if err := openIndex(path, log, func() {}).close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := openIndex(path, log, func() {}).close(); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Error("opening has written", err)
	}
	for page := range 2 { // the two meta pages: where the free list is, or all ones for nowhere
		if at := page*4096 + 48; bytes.Equal(after[at:at+8], bytes.Repeat([]byte{0xff}, 8)) {
			t.Error("the free list is not in the file")
		}
	}
}

// TestFolderModel does random operations and compares with a simple model, through restarts and losses of the index.
func TestFolderModel(t *testing.T) {
	t.Parallel()
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewSource(seed))
	dir := t.TempDir()
	type message struct {
		text  string
		flags map[string]bool
	}
	model := map[imap.UID]*message{}
	var last imap.UID
	s := testStore(t, dir)
	d := testDrop(t, s)
	f := openFolder(t, d, "INBOX")
	v, _ := f.NewView(false, nil)
	view := []imap.UID{}
	names := []imap.Flag{imap.FlagSeen, imap.FlagFlagged, imap.FlagDeleted, imap.FlagDraft, imap.FlagAnswered, "Work", "$Label1"}
	reopen := func(loseIndex bool) {
		v.Close()
		f.Release()
		d.Release()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if loseIndex {
			os.RemoveAll(filepath.Join(dir, "index"))
		}
		s = testStore(t, dir)
		d = testDrop(t, s)
		f = openFolder(t, d, "INBOX")
		v, _ = f.NewView(false, nil)
		view = slices.Clone(v.UIDs())
	}
	pick := func() []imap.UID {
		var uids []imap.UID
		for uid := range model {
			if rnd.Intn(4) == 0 {
				uids = append(uids, uid)
			}
		}
		slices.Sort(uids)
		return uids
	}
	for n := range 400 {
		switch rnd.Intn(9) {
		case 0, 1:
			text := fmt.Sprintf("Subject: %d\r\n\r\n%d\r\n", n, n)
			deliverText(t, s, text, "ann@example.org")
			uids := f.allUIDs()
			uid := uids[len(uids)-1]
			if uid <= last {
				t.Fatalf("UID %d given after %d", uid, last)
			}
			last, model[uid] = uid, &message{text, map[string]bool{}}
		case 2:
			text, flag := fmt.Sprintf("%d\r\n", n), names[rnd.Intn(len(names))]
			uid := appendText(t, f, text, flag)
			if uid <= last {
				t.Fatalf("UID %d given after %d", uid, last)
			}
			last, model[uid] = uid, &message{text, map[string]bool{string(flag): true}}
		case 3, 4:
			uids, flag, op := pick(), names[rnd.Intn(len(names))], FlagOp(rnd.Intn(3))
			if _, _, _, err := f.SetFlags(uids, op, []imap.Flag{flag}, NoUnchangedSince); err != nil {
				t.Fatal(err)
			}
			for _, uid := range uids {
				switch op {
				case FlagsReplace:
					model[uid].flags = map[string]bool{string(flag): true}
				case FlagsAdd:
					model[uid].flags[string(flag)] = true
				case FlagsRemove:
					delete(model[uid].flags, string(flag))
				}
			}
		case 5:
			removed, _, err := f.Expunge(nil, true)
			if err != nil {
				t.Fatal(err)
			}
			for _, uid := range removed {
				if !model[uid].flags[`\Deleted`] {
					t.Fatalf("UID %d removed without \\Deleted", uid)
				}
				delete(model, uid)
			}
		case 6:
			uids := pick()
			dst, err := f.Copy(uids, f)
			if err != nil {
				t.Fatal(err)
			}
			for i, uid := range dst {
				m := model[uids[i]]
				flags := map[string]bool{}
				for k := range m.flags {
					flags[k] = true
				}
				last, model[uid] = uid, &message{m.text, flags}
			}
			for _, uid := range uids[:len(uids)/2] { // keep it small
				f.Expunge([]imap.UID{uid}, false)
				delete(model, uid)
			}
		case 7:
			if rnd.Intn(4) == 0 {
				reopen(rnd.Intn(2) == 0)
			}
		case 8:
			c, err := v.Sync(rnd.Intn(2) == 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, seq := range c.Expunged {
				view = slices.Delete(view, int(seq-1), int(seq))
			}
			if n := len(view); c.Exists {
				view = append(view, v.UIDs()[n:]...)
			}
			if !slices.Equal(view, v.UIDs()) {
				t.Fatalf("view %v, told %v", v.UIDs(), view)
			}
		}
		var want []string
		for uid, m := range model {
			flags := []string{}
			for k := range m.flags {
				flags = append(flags, k)
			}
			slices.Sort(flags)
			want = append(want, fmt.Sprintf("%08d|%d %v %q %d", uid, uid, flags, m.text, len(m.text)))
		}
		slices.Sort(want)
		for i := range want {
			_, want[i], _ = strings.Cut(want[i], "|")
		}
		if n%5 == 0 {
			wantLines(t, fmt.Sprintf("after step %d", n), folderLines(t, f), want)
		}
	}
	v.Close()
	f.Release()
	d.Release()
	s.Close()
}

// TestManySessionsOneFolder has eight views whose owners change the folder at once; in the end all see the same.
func TestManySessionsOneFolder(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	f := openFolder(t, d, "INBOX")
	defer f.Release()
	var views []*View
	var wg sync.WaitGroup
	for i := range 8 {
		v, err := f.NewView(false, nil)
		if err != nil {
			t.Fatal(err)
		}
		views = append(views, v)
		wg.Go(func() {
			rnd := rand.New(rand.NewSource(int64(i)))
			for n := range 60 {
				uids := v.UIDs()
				var some []imap.UID
				if len(uids) > 0 {
					k := rnd.Intn(len(uids))
					some = uids[k:min(k+5, len(uids))]
				}
				switch rnd.Intn(5) {
				case 0:
					appendText(t, f, fmt.Sprintf("%d %d\r\n", i, n))
				case 1:
					deliverText(t, s, "d\r\n", "ann@example.org")
				case 2:
					f.SetFlags(some, FlagOp(rnd.Intn(3)), []imap.Flag{imap.FlagSeen, "K"}, NoUnchangedSince)
				case 3:
					f.Expunge(some, false)
				case 4:
					f.Move(some, f)
				}
				v.Sync(rnd.Intn(2) == 0)
			}
		})
	}
	wg.Go(func() { // another program works on the same files
		rnd := rand.New(rand.NewSource(99))
		cur := filepath.Join(d.dir, "cur")
		for n := range 150 {
			names, _ := listNames(cur)
			if len(names) == 0 {
				continue
			}
			base, info := splitName(names[rnd.Intn(len(names))])
			switch rnd.Intn(4) {
			case 0:
				os.Remove(filepath.Join(cur, base+info))
			case 1:
				os.WriteFile(filepath.Join(d.dir, "new", fmt.Sprintf("17000%05d.other", n)), []byte("o\n"), 0o600)
			default:
				os.Rename(filepath.Join(cur, base+info), filepath.Join(cur, base+[]string{":2,", ":2,S", ":2,FR"}[rnd.Intn(3)]))
			}
			time.Sleep(time.Millisecond)
		}
	})
	wg.Wait()
	f.poke()
	checkAgainstDisk(t, f)
	for _, v := range views {
		v.Sync(true)
		if !slices.Equal(v.UIDs(), f.allUIDs()) {
			t.Errorf("a view ended with %v, the folder has %v", v.UIDs(), f.allUIDs())
		}
		v.Close()
	}
}

// settleFolder gives all files the names that they are to have.
func settleFolder(t testing.TB, f *Folder) {
	t.Helper()
	f.mu.Lock()
	defer f.unlock()
	if f.settling {
		if err := f.settleAll(); err != nil {
			t.Fatal(err)
		}
	}
}

// checkAgainstDisk compares a quiet folder with its directories.
func checkAgainstDisk(t *testing.T, f *Folder) {
	t.Helper()
	if _, err := f.Status(false); err != nil {
		t.Fatal(err)
	}
	settleFolder(t, f)
	onDisk := map[string]bool{}
	for _, sub := range []string{"cur", "new"} {
		names, _ := listNames(filepath.Join(f.path, sub))
		for _, n := range names {
			onDisk[sub+"/"+n] = true
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	unseen := 0
	for i := range f.msgs {
		m := &f.msgs[i]
		if m.UID != f.uids[i] || i > 0 && f.uids[i-1] >= m.UID {
			t.Fatalf("UIDs out of order at %d: %v", i, f.uids)
		}
		if name := m.subdir() + "/" + m.fileName(); !onDisk[name] {
			t.Errorf("UID %d should be %s", m.UID, name)
		}
		if m.Flags&FlagSeen == 0 {
			unseen++
		}
	}
	if len(onDisk) != len(f.msgs) || unseen != f.unseen {
		t.Errorf("%d files, %d messages; %d unseen, counted %d", len(onDisk), len(f.msgs), unseen, f.unseen)
	}
}

func TestCRLFReader(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	for range 2000 {
		var in []byte
		for range rnd.Intn(60) {
			in = append(in, "\r\n\nab"[rnd.Intn(5)])
		}
		var want []byte
		for i, c := range in {
			if c == '\n' && (i == 0 || in[i-1] != '\r') {
				want = append(want, '\r')
			}
			want = append(want, c)
		}
		r := newCRLFReader(bytes.NewReader(in))
		var got []byte
		buf := make([]byte, 1+rnd.Intn(5))
		for {
			n, err := r.Read(buf)
			got = append(got, buf[:n]...)
			if err != nil {
				break
			}
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%q became %q, want %q", in, got, want)
		}
	}
}

// A mailbox that is made anew gets a higher UIDVALIDITY, after a restart with the clock gone back as well.
func TestUIDValidityOnlyGrows(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	last := uint32(0)
	for range 3 {
		s, err := OpenStore(StoreConfig{MailDir: filepath.Join(dir, "mail"), IndexDir: filepath.Join(dir, "index"), Host: "test", Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		d := testDrop(t, s)
		for range 3 {
			if err := d.CreateFolder("again", nil); err != nil {
				t.Fatal(err)
			}
			f := openFolder(t, d, "again")
			if validity := f.UIDValidity(); validity <= last {
				t.Errorf("%d comes after %d", validity, last)
			} else {
				last = validity
			}
			f.Release()
			if err := d.DeleteFolder("again"); err != nil {
				t.Fatal(err)
			}
		}
		d.Release()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		now = now.Add(-time.Hour)
	}
}

// A crash may leave the index with a folder that was deleted or renamed. One that is made under the name has nothing of it.
func TestNewFolderHasNothingOfTheOld(t *testing.T) {
	dir := t.TempDir()
	index := filepath.Join(dir, "index/example.org/ann.db")
	s := testStore(t, dir)
	d := testDrop(t, s)
	if err := d.CreateFolder("again", nil); err != nil {
		t.Fatal(err)
	}
	f := openFolder(t, d, "again")
	appendText(t, f, "old\r\n")
	validity := f.UIDValidity()
	d.flush()
	old, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	appendText(t, f, "older than the index\r\n")
	f.Release()
	if err := d.RenameFolder("again", "away"); err != nil {
		t.Fatal(err)
	}
	d.Release()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(index, old, 0o600); err != nil {
		t.Fatal(err)
	}
	s = testStore(t, dir)
	defer s.Close()
	d = testDrop(t, s)
	defer d.Release()
	if err := d.CreateFolder("again", nil); err != nil {
		t.Fatal(err)
	}
	f = openFolder(t, d, "again")
	defer f.Release()
	if uids := f.allUIDs(); f.UIDValidity() <= validity || len(uids) != 0 {
		t.Errorf("UIDVALIDITY was %d and is %d, with the messages %v", validity, f.UIDValidity(), uids)
	}
	away := openFolder(t, d, "away")
	defer away.Release()
	if uids := away.allUIDs(); away.UIDValidity() != validity || len(uids) != 2 {
		t.Errorf("the other one has %d, with the messages %v", away.UIDValidity(), uids)
	}
}
