package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// writeACL writes an access list as another program would.
func writeACL(t testing.TB, d *Maildrop, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, dir, aclName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// grant gives somebody rights in a mailbox.
func grant(t testing.TB, d *Maildrop, name string, who Grantee, rights Rights) {
	t.Helper()
	err := d.ChangeACL(Claim{}, name, func(l *AccessList) error {
		return l.set(Identifier{aclUser, who.Account}, func(id Identifier) bool { return id.names(who) }, false, rights)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What other programs write counts at once where somebody asks for a mailbox, and within a minute where he asks for a list.
func TestAccessFollowsFiles(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	s, err := OpenStore(StoreConfig{MailDir: filepath.Join(dir, "mail"), IndexDir: filepath.Join(dir, "index"), Host: "test", Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d, err := s.Maildrop(bobGrantee.Account)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Release()
	in := openFolder(t, d, "INBOX")
	defer in.Release()
	ask := func(want string) {
		t.Helper()
		var listed Rights
		for _, m := range s.Access(bobGrantee.Account, annGrantee) {
			if m.Name == "INBOX" {
				listed = m.Rights
			}
		}
		folder, err := in.Rights(annGrantee)
		if err != nil {
			t.Fatal(err)
		}
		drop, err := d.Rights("INBOX", annGrantee)
		if err != nil {
			t.Fatal(err)
		}
		store := s.RightsIn(bobGrantee.Account, "inbox", annGrantee)
		if got := fmt.Sprintf("%s %s %s %s", folder.Letters(), drop.Letters(), store.Letters(), listed.Letters()); got != want {
			t.Errorf("ann has %q, want %q", got, want)
		}
	}
	ask("   ")
	writeACL(t, d, ".", "user=ann lr\n")
	ask("lr lr lr ")
	now = now.Add(accessRecheck)
	ask("lr lr lr lr")
	writeACL(t, d, ".", "user=ann l\n")
	ask("l l l l")
	if err := os.Remove(filepath.Join(d.dir, aclName)); err != nil {
		t.Fatal(err)
	}
	ask("   ")
	writeACL(t, d, ".", "user=ann lr\nwhat is this\n")
	ask("   ")
	if err := os.Remove(filepath.Join(d.dir, aclName)); err != nil {
		t.Fatal(err)
	}
	grant(t, d, "INBOX", annGrantee, RightLookup|RightRead)
	ask("lr lr lr lr")
	writeACL(t, d, ".", strings.Repeat("# long\n", 10_000)+"user=ann lr\n")
	ask("   ")
	// A directory in the place of the file grants nothing either.
	if err := os.Remove(filepath.Join(d.dir, aclName)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(d.dir, aclName), 0o700); err != nil {
		t.Fatal(err)
	}
	ask("   ")
}

// A list that cannot be read is not written over.
func TestBrokenACLStays(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	const text = "user=bob lr\nuser=eve lrz\n"
	writeACL(t, d, ".Sent", text)
	err := d.ChangeACL(Claim{}, "Sent", func(l *AccessList) error { l.Revoke(bobGrantee); return nil })
	if !errors.Is(err, ErrAccessList) || !strings.Contains(err.Error(), "line 2") {
		t.Error(err)
	}
	if _, err := d.ACL(Claim{}, "Sent"); !errors.Is(err, ErrAccessList) {
		t.Error(err)
	}
	if got, _ := os.ReadFile(filepath.Join(d.dir, ".Sent", aclName)); string(got) != text {
		t.Errorf("the file is now %q", got)
	}
}

// A file that says nothing any more goes; a remark stays. A change that fails leaves the file alone.
func TestACLFile(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	path := filepath.Join(d.dir, ".Sent", aclName)
	grant(t, d, "Sent", bobGrantee, RightRead)
	if got, _ := os.ReadFile(path); string(got) != "user=bob@home.lan r\n" {
		t.Errorf("the file is %q", got)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		t.Error("others of this machine may read the list:", st.Mode(), err)
	}
	odd := errors.New("odd")
	if err := d.ChangeACL(Claim{}, "Sent", func(l *AccessList) error { l.Revoke(bobGrantee); return odd }); !errors.Is(err, odd) {
		t.Error(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "user=bob@home.lan r\n" {
		t.Errorf("the file is %q", got)
	}
	revoke := func(l *AccessList) error { l.Revoke(bobGrantee); return nil }
	if err := d.ChangeACL(Claim{}, "Sent", revoke); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("the file is still there:", err)
	}
	if err := d.ChangeACL(Claim{}, "Sent", revoke); err != nil {
		t.Error(err)
	}
	if err := d.ChangeACL(Claim{}, "Nowhere", revoke); !errors.Is(err, ErrNoFolder) {
		t.Error(err)
	}
	// The lock of a program that has died is no obstacle.
	writeACL(t, d, ".Sent", "# a remark\nuser=bob lr\n")
	if err := os.WriteFile(filepath.Join(d.dir, ".Sent", aclLockName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(d.dir, ".Sent", aclLockName), old, old); err != nil {
		t.Fatal(err)
	}
	if err := d.ChangeACL(Claim{}, "Sent", revoke); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "# a remark\n" {
		t.Errorf("the file is %q", got)
	}
	if names, _ := filepath.Glob(filepath.Join(d.dir, ".Sent", aclName+".*")); names != nil {
		t.Errorf("left behind: %q", names)
	}
}

// Many who change a list at once lose nothing of each other.
func TestACLConcurrently(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 5 {
				grant(t, d, "Sent", Grantee{Account: fmt.Sprintf("u%d-%d@home.lan", i, j)}, RightRead)
				s.RightsIn(d.Account(), "Sent", annGrantee)
				s.Access(d.Account(), annGrantee)
			}
		})
	}
	all.Wait()
	if l, err := d.ACL(Claim{}, "Sent"); err != nil || len(l.Entries()) != 40 {
		t.Errorf("%d entries, %v", len(l.Entries()), err)
	}
}

// The lists of folders follow what becomes of the folders.
func TestAccessFollowsFolders(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	names := func() []string {
		var all []string
		for _, m := range s.Access(d.Account(), bobGrantee) {
			all = append(all, m.Name+" "+m.Rights.Letters())
		}
		return all
	}
	expect := func(want ...string) {
		t.Helper()
		if got := names(); !reflect.DeepEqual(got, want) {
			t.Errorf("lists %q, want %q", got, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	expect()
	must(d.CreateFolder("A", nil))
	grant(t, d, "A", bobGrantee, RightLookup)
	expect("A l")
	must(d.CreateFolder("A/B", nil))
	must(d.CreateFolder("A/C/D", nil))
	must(d.CreateFolder("Z", nil))
	expect("A l", "A/B l", "A/C/D l")
	must(d.RenameFolder("A", "Q"))
	expect("Q l", "Q/B l", "Q/C/D l")
	must(d.RenameFolder("Z", "A"))
	if s.RightsIn(d.Account(), "A", bobGrantee) != 0 {
		t.Error("a folder has the rights of another one that had its name")
	}
	must(d.DeleteFolder("Q/B"))
	must(d.CreateFolder("Q/B/E", nil))
	expect("Q l", "Q/B/E l", "Q/C/D l")
	must(d.DeleteFolder("Q"))
	must(d.CreateFolder("Q", nil))
	expect("Q/B/E l", "Q/C/D l")
	// What comes in may make a folder, which is nobody else's.
	in := receiveText(t, d, "x\r\n")
	must(s.Deliver(t.Context(), in, []Delivery{{Account: d.Account(), Folder: "Q/C/D/New"}}))
	expect("Q/B/E l", "Q/C/D l")
	if _, err := s.SetAside(d.Account()); err != nil {
		t.Fatal(err)
	}
	expect()
}

// A removed account is taken out of all lists, by each of its names.
func TestRevokeGrants(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	var drops []*Maildrop
	for _, account := range []string{"ann@home.lan", "eve@other.lan"} {
		d, err := s.Maildrop(account)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Release()
		drops = append(drops, d)
		writeACL(t, d, ".", "user=bob@home.lan lr\nuser=bob@other.lan lr\n")
		writeACL(t, d, ".Sent", "# kept\n-user=bob x\nanyone lrx\n")
		writeACL(t, d, ".Trash", "user=ann lr\n")
	}
	gone, err := s.Maildrop("old@home.lan")
	if err != nil {
		t.Fatal(err)
	}
	writeACL(t, gone, ".", "user=bob@home.lan lr\n")
	gone.Release()
	aside, err := s.SetAside("old@home.lan")
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadDir(filepath.Join(s.mailDir, "home.lan"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RevokeGrants(bobGrantee); err != nil {
		t.Fatal(err)
	}
	for _, d := range drops {
		for dir, want := range map[string]string{".": "user=bob@other.lan lr\n", ".Sent": "# kept\nanyone lrx\n", ".Trash": "user=ann lr\n"} {
			if got, _ := os.ReadFile(filepath.Join(d.dir, dir, aclName)); string(got) != want {
				t.Errorf("%s of %s is %q", dir, d.Account(), got)
			}
		}
	}
	if got, _ := os.ReadFile(filepath.Join(aside, aclName)); string(got) != "user=bob@home.lan lr\n" {
		t.Errorf("the mail set aside has %q", got)
	}
	if after, _ := os.ReadDir(filepath.Join(s.mailDir, "home.lan")); len(after) != len(before) {
		t.Errorf("there are %d maildrops, and there were %d", len(after), len(before))
	}
}

// Flags that take other rights stay, and do not go along.
func TestFlagsByRights(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	in, to := openFolder(t, d, "INBOX"), openFolder(t, d, "Archive")
	defer in.Release()
	defer to.Release()
	uid := appendText(t, in, "a\r\n", imap.FlagFlagged, imap.FlagDeleted, "Kept")
	for _, c := range []struct {
		may  Rights
		op   FlagOp
		set  []imap.Flag
		want string
	}{
		{RightSeen, FlagsReplace, []imap.Flag{imap.FlagSeen, imap.FlagDraft}, "1 [Kept \\Deleted \\Flagged \\Seen]"},
		{RightDeleteMessages, FlagsReplace, nil, "1 [Kept \\Flagged \\Seen]"},
		{RightRead, FlagsReplace, nil, "1 [Kept \\Flagged \\Seen]"},
		{RightWrite, FlagsAdd, []imap.Flag{"New", imap.FlagDeleted}, "1 [Kept New \\Flagged \\Seen]"},
		{RightWrite, FlagsRemove, []imap.Flag{"Kept", imap.FlagSeen}, "1 [New \\Flagged \\Seen]"},
		{RightsAll, FlagsReplace, []imap.Flag{imap.FlagDeleted, imap.FlagSeen, "New"}, "1 [New \\Deleted \\Seen]"},
	} {
		if _, _, _, err := in.SetFlagsAs(c.may, []imap.UID{uid}, c.op, c.set, NoUnchangedSince); err != nil {
			t.Fatal(err)
		}
		if got := folderLines(t, in)[0]; !strings.HasPrefix(got, c.want+" ") {
			t.Errorf("%s %v: %s, want %s", c.may.Letters(), c.set, got, c.want)
		}
	}
	for _, may := range []Rights{0, RightSeen, RightDeleteMessages, RightWrite, RightsAll} {
		if _, err := in.CopyAs(may, []imap.UID{uid}, to); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, _, err := in.MoveAs(RightSeen|RightWrite, []imap.UID{uid}, to); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, line := range folderLines(t, to) {
		flags, _, _ := strings.Cut(line, "]")
		got = append(got, flags)
	}
	if want := `1 [|2 [\Seen|3 [\Deleted|4 [New|5 [New \Deleted \Seen|6 [New \Seen`; strings.Join(got, "|") != want {
		t.Errorf("copies have %q, want %q", strings.Join(got, "|"), want)
	}
}
