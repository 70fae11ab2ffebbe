package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// manyKeywords are so many that half of them have no letters.
func manyKeywords(n int) []imap.Flag {
	flags := make([]imap.Flag, n)
	for i := range flags {
		flags[i] = imap.Flag(fmt.Sprintf("kw%02d", i))
	}
	return flags
}

// TestManyKeywords gives messages more keywords than there are letters. What was answered is there after a crash at once, with
// the index and without, in copies, in moved messages, in renamed mailboxes, after other programs have renamed the files, and
// under new UIDs.
func TestManyKeywords(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := openInbox(t, dir)
	defer in.close(t)
	kept := openKept(t, in.d, "Kept")
	defer kept.Release()
	all := manyKeywords(40)
	for i := range 6 {
		appendText(t, in.f, fmt.Sprint(i, "\r\n"))
	}
	for _, flag := range all {
		setFlag(t, in.f, flag, 1)
	}
	setFlag(t, in.f, "kw30", 2, 3, 4, 5, 6) // by the journal
	set := func(op FlagOp, uid imap.UID, flags ...imap.Flag) {
		t.Helper()
		if _, _, _, err := in.f.SetFlags([]imap.UID{uid}, op, flags, NoUnchangedSince); err != nil {
			t.Fatal(err)
		}
	}
	set(FlagsRemove, 2, "kw30")
	set(FlagsReplace, 3, imap.FlagSeen, "kw31", "kw02")
	appendText(t, in.f, "6\r\n", "kw39", "kw03")
	if _, err := in.f.Copy([]imap.UID{1, 3}, kept); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := in.f.Move([]imap.UID{4}, kept); err != nil {
		t.Fatal(err)
	}
	if _, _, err := in.f.Expunge([]imap.UID{5}, false); err != nil {
		t.Fatal(err)
	}
	every := fmt.Sprint(all)
	want := []string{"1 " + every, "2 []", `3 [\Seen kw02 kw31]`, "6 [kw30]", "7 [kw03 kw39]"}
	wantKept := []string{"1 " + every, `2 [\Seen kw02 kw31]`, "3 [kw30]"}
	wantLines(t, "at once", flagsOf(t, in.f), want)
	wantLines(t, "copies", flagsOf(t, kept), wantKept)
	for _, lost := range []string{"", "index", "UID list"} {
		data := copyData(t, dir)
		maildir := filepath.Join(data, "mail/example.org/ann")
		if lost != "" {
			os.RemoveAll(filepath.Join(data, "index"))
		}
		if lost == "UID list" { // all get new UIDs, and another program has marked them
			os.Remove(filepath.Join(maildir, uidlistName))
			names, _ := listNames(filepath.Join(maildir, "cur"))
			for _, name := range names {
				if base, info := splitName(name); !strings.Contains(info, "S") {
					os.Rename(filepath.Join(maildir, "cur", name), filepath.Join(maildir, "cur", base+":2,S"+strings.TrimPrefix(info, ":2,")))
				}
			}
			for i, uid := range []string{"1", "2", "3", "4", "5"} {
				_, rest, _ := strings.Cut(want[i], "[")
				if rest = strings.Trim(strings.Replace(rest, `\Seen `, "", 1), " "); rest == "]" {
					want[i] = uid + ` [\Seen]`
				} else {
					want[i] = uid + ` [\Seen ` + rest
				}
			}
		}
		after := openInbox(t, data)
		wantLines(t, "after a crash, lost: "+lost, flagsOf(t, after.f), want)
		if err := after.d.RenameFolder("Kept", "Else"); err != nil {
			t.Fatal(err)
		}
		other := openFolder(t, after.d, "Else")
		wantLines(t, "copies after a crash, lost: "+lost, flagsOf(t, other), wantKept)
		setFlag(t, other, "kw35", 3)
		other.Release()
		awaitSettled(t, after.f)
		after.close(t)
		os.RemoveAll(filepath.Join(data, "index"))
		after = openInbox(t, data)
		wantLines(t, "from the files alone", flagsOf(t, after.f), want)
		other = openFolder(t, after.d, "Else")
		wantLines(t, "renamed, from the files alone", flagsOf(t, other)[2:], []string{"3 [kw30 kw35]"})
		other.Release()
		after.close(t)
	}
}

// TestKeywordLimit fills a mailbox with keywords: the first that finds no room is refused, and the client was told.
func TestKeywordLimit(t *testing.T) {
	c := startFetch(t, "one\r\n")
	if got, _ := c.send("SELECT INBOX"); !strings.Contains(fmt.Sprint(got), `\*`) {
		t.Errorf("new keywords are not announced: %q", got)
	}
	for _, flag := range manyKeywords(maxKeywords) {
		setFlag(t, c.folder, flag, 1)
	}
	_, _, _, err := c.folder.SetFlags([]imap.UID{1}, FlagsAdd, []imap.Flag{"more"}, NoUnchangedSince)
	if !errors.Is(err, ErrKeywords) {
		t.Errorf("one keyword more: %v", err)
	}
	lines, _ := c.send("NOOP")
	if got := fmt.Sprint(lines); strings.Contains(got, `\*`) || !strings.Contains(got, "PERMANENTFLAGS") || !strings.Contains(got, "kw63") {
		t.Errorf("new keywords are announced still: %q", got)
	}
}

// TestMoreKeywordsFile opens folders whose file is cut, spoilt, too long or gone, and folders in which another program has given
// one of the keywords a letter.
func TestMoreKeywordsFile(t *testing.T) {
	dir := t.TempDir()
	in := openInbox(t, dir)
	for i := range 3 {
		appendText(t, in.f, fmt.Sprint(i, "\r\n"))
	}
	for _, flag := range manyKeywords(28) {
		setFlag(t, in.f, flag, 1)
	}
	setFlag(t, in.f, "kw26", 2)
	setFlag(t, in.f, "kw27", 3)
	bases := []string{in.f.msgs[0].base, in.f.msgs[1].base, in.f.msgs[2].base}
	in.close(t)
	for name, test := range map[string]struct {
		change func(text string) string
		want   []string
	}{
		"whole":  {func(text string) string { return text }, []string{"2 [kw26]", "3 [kw27]"}},
		"cut":    {func(text string) string { return text + "kw27 :" + bases[1][:9] }, []string{"2 [kw26]", "3 [kw27]"}},
		"spoilt": {func(text string) string { return text + "\x00\x00\nkw27 kw(:" + bases[1] + "\nkw27 :\nkw26\n" }, []string{"2 [kw26]", "3 [kw27]"}},
		"later":  {func(text string) string { return text + "kw27 :" + bases[1] + "\n:" + bases[2] + "\n" }, []string{"2 [kw27]", "3 []"}},
		"long": {func(text string) string { return text + strings.Repeat("kw26 :1.gone\n:1.gone\n", 1000) },
			[]string{"2 [kw26]", "3 [kw27]"}},
	} {
		data := copyData(t, dir)
		path := filepath.Join(data, "mail/example.org/ann", moreKeywordsName)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(test.change(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, lost := range []bool{false, true} {
			if lost {
				os.RemoveAll(filepath.Join(data, "index"))
			}
			after := openInbox(t, data)
			wantLines(t, name, flagsOf(t, after.f)[1:], test.want)
			setFlag(t, after.f, "kw27", 1) // changes nothing
			setFlag(t, after.f, "kw99", 1)
			after.close(t)
			after = openInbox(t, data)
			wantLines(t, name+", and written", flagsOf(t, after.f)[1:], test.want)
			if got := flagsOf(t, after.f)[0]; !strings.Contains(got, "kw27 kw99") {
				t.Errorf("%s: %s", name, got)
			}
			after.close(t)
		}
		if text, err := os.ReadFile(path); err != nil || len(text) > 20000 {
			t.Errorf("%s: the file has %d bytes: %v", name, len(text), err)
		}
	}

	// Another program has a keyword list of its own.
	data := copyData(t, dir)
	list := filepath.Join(data, "mail/example.org/ann", keywordsName)
	after := openInbox(t, data)
	defer func() { after.close(t) }()
	if err := os.WriteFile(list, []byte("0 kw00\n1 kw26\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	after.f.poke()
	wantLines(t, "with a letter", flagsOf(t, after.f)[1:], []string{"2 [kw26]", "3 [kw27]"})
	setFlag(t, after.f, imap.FlagSeen, 2)
	if got := lettersOf(t, after.f); !slices.Contains(got, "Sb") {
		t.Errorf("files are called %q", got)
	}
	if _, _, _, err := after.f.SetFlags([]imap.UID{2}, FlagsRemove, []imap.Flag{"kw26"}, NoUnchangedSince); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantLines(t, "without it", flagsOf(t, after.f)[1:], []string{`2 [\Seen]`, "3 [kw27]"})
		after.close(t)
		os.RemoveAll(filepath.Join(data, "index"))
		after = openInbox(t, data)
	}
}
