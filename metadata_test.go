package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// FuzzAttributes reads any file: what is written of it is read back as the same.
func FuzzAttributes(f *testing.F) {
	f.Add([]byte("priv/080756136daa056b7168000083ecc375/comment\na\x01tb\x01r\x01nc\x011d\n"))
	f.Add([]byte("shared/x/y\n\n\nz\n\nlost"))
	f.Add([]byte("\x01\n\x01\x01\nkey"))
	f.Add([]byte("key\x010\nvalue\x00\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, bad := parseAttributes(text)
		if lines := bytes.Count(text, []byte{'\n'}) + 1; len(a) > lines || bad > lines {
			t.Errorf("%d pairs and %d bad of %d lines", len(a), bad, lines)
		}
		again, bad := parseAttributes(a.format())
		if _, empty := a[""]; empty || bad > 0 || !maps.Equal(a, again) {
			t.Errorf("%q became %q", a, again)
		}
	})
}

// TestAttributesFile looks at what Dovecot writes, and at damage.
func TestAttributesFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, attributesName)
	values := attributes{"priv/1/a": "a\tb\r\nc\x01d\x00e\x01t", "shared/1/empty": "", "of/others": "x"}
	if err := saveAttributes(dir, values); err != nil {
		t.Fatal(err)
	}
	if got, bad, err := loadAttributes(dir); err != nil || bad != 0 || !maps.Equal(got, values) {
		t.Errorf("%q, %d, %v", got, bad, err)
	}
	text, _ := os.ReadFile(path)
	for cut := range text { // a file that was cut off has no half values
		got, _ := parseAttributes(text[:cut])
		for key, value := range got {
			if values[key] != value {
				t.Errorf("cut at %d: %q is %q", cut, key, value)
			}
		}
	}
	if err := os.WriteFile(path, make([]byte, maxAttributesFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := loadAttributes(dir); err == nil {
		t.Error("a file of any size is read")
	}
	if err := saveAttributes(dir, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("an empty file is left")
	}
	if err := saveAttributes(dir, nil); err != nil {
		t.Error(err)
	}
}

// TestMetadataLimits fills a mailbox, then the maildrop, with annotations.
func TestMetadataLimits(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	f := openFolder(t, d, "Archive")
	defer f.Release()
	set := func(f *Folder, n, size int) error {
		return d.SetMetadata(f, []MetadataChange{{Name: fmt.Sprintf("/%s/n%d", []string{"private", "shared"}[n%2], n), Value: strings.Repeat("x", size)}})
	}
	for n := range maxMetadataEntries {
		if err := set(f, n, 1); err != nil {
			t.Fatal(n, err)
		}
	}
	if err := set(f, 1000, 1); !errors.Is(err, ErrMetadataFull) {
		t.Errorf("one too many: %v", err)
	}
	if err := set(f, 0, 2); err != nil {
		t.Errorf("another value: %v", err)
	}
	two := []MetadataChange{{Name: "/private/n0", Remove: true}, {Name: "/private/other", Value: "x"}}
	if err := d.SetMetadata(f, two); err != nil {
		t.Errorf("one for another: %v", err)
	}
	if all, err := d.Metadata(f); err != nil || len(all) != maxMetadataEntries || all["/private/other"] != "x" || all["/shared/n1"] != "x" {
		t.Errorf("%d, %v", len(all), err)
	}
	inbox := openFolder(t, d, "INBOX")
	defer inbox.Release()
	var err error
	n := 0
	for ; err == nil; n++ {
		err = set(inbox, n, MaxMetadataValue)
	}
	if !errors.Is(err, ErrMetadataFull) || n < maxMetadataTotal/MaxMetadataValue-1 || n > maxMetadataTotal/MaxMetadataValue {
		t.Errorf("after %d: %v", n, err)
	}
	if err := d.SetMetadata(nil, []MetadataChange{{Name: "/private/x", Value: strings.Repeat("x", MaxMetadataValue)}}); !errors.Is(err, ErrMetadataFull) {
		t.Errorf("the server's: %v", err)
	}
	if err := set(inbox, 0, 10); err != nil {
		t.Errorf("a shorter one: %v", err)
	}
	if st, err := os.Stat(filepath.Join(d.dir, attributesName)); err != nil || st.Size() > maxAttributesFile || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
}

// TestMetadataOfOthers annotates the mailbox of somebody else: the shared ones lie with the mailbox, the private ones with
// whoever wrote them.
func TestMetadataOfOthers(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	defer func() { s.Close() }()
	ann := testDrop(t, s)
	bob, err := s.Maildrop("bob@example.org")
	if err != nil {
		t.Fatal(err)
	}
	f := openFolder(t, ann, "Archive")
	for _, who := range []*Maildrop{ann, bob} {
		err := who.SetMetadata(f, []MetadataChange{{Name: "/private/comment", Value: who.account}, {Name: "/shared/comment", Value: "by " + who.account}})
		if err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for i, who := range []*Maildrop{ann, bob} { // two who write both files at once
		for n := range 20 {
			wg.Go(func() {
				changes := []MetadataChange{{Name: fmt.Sprintf("/private/n%d", n), Value: "x"}, {Name: fmt.Sprintf("/shared/n%d.%d", i, n), Value: "x"}}
				if err := who.SetMetadata(f, changes); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for _, who := range []*Maildrop{ann, bob} {
		all, err := who.Metadata(f)
		if err != nil || all["/private/comment"] != who.account || all["/shared/comment"] != "by bob@example.org" || len(all) != 2+20+40 {
			t.Errorf("%s: %q, %v", who.account, all, err)
		}
	}
	if text, _ := os.ReadFile(filepath.Join(ann.dir, attributesName)); strings.Contains(string(text), "\nbob@example.org\n") {
		t.Errorf("ann has bob's: %s", text)
	}
	// Annotations live through a restart without an index, and follow the mailbox.
	f.Release()
	ann.Release()
	bob.Release()
	s.Close()
	os.RemoveAll(filepath.Join(dir, "index"))
	s = testStore(t, dir)
	ann = testDrop(t, s)
	defer ann.Release()
	if bob, err = s.Maildrop("bob@example.org"); err != nil {
		t.Fatal(err)
	}
	defer bob.Release()
	if err := ann.RenameFolder("Archive", "Old/Archive"); err != nil {
		t.Fatal(err)
	}
	f = openFolder(t, ann, "Old/Archive")
	all, err := bob.Metadata(f)
	if err != nil || all["/private/comment"] != "bob@example.org" || all["/shared/comment"] != "by bob@example.org" {
		t.Errorf("%q, %v", all, err)
	}
	f.Release()
	if err := ann.DeleteFolder("Old/Archive"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(ann.dir, attributesName)); err == nil {
		t.Error("the annotations of a deleted mailbox are left")
	}
}

// TestIMAPMetadataMany is SETMETADATA beyond the number of annotations: nothing of the command is done.
func TestIMAPMetadataMany(t *testing.T) {
	s := startIMAP(t)
	mustAdd(t, s.Accounts, "ann@home.lan", imapPassword)
	c := s.login(t, "ann@home.lan")
	list := ""
	for n := range maxMetadataEntries {
		list += fmt.Sprintf(` /private/n%d "x"`, n)
	}
	c.ok(t, "SETMETADATA Archive ("+list[1:]+")")
	c.send(t, `a SETMETADATA Archive (/private/n1 "y" /private/comment "My new comment")`+"\r\n")
	c.want(t, "a NO [METADATA TOOMANY] …")
	c.ok(t, "CREATE Work")
	c.ok(t, "SETMETADATA Work ("+list[1:]+")")
	c.send(t, `b SETMETADATA Work (/private/specialuse "\\Sent" /private/comment "x")`+"\r\n")
	c.want(t, "b NO [METADATA TOOMANY] …")
	c.send(t, "c GETMETADATA Work (/private/n1 /private/specialuse)\r\n")
	c.want(t, `* METADATA "Work" (/private/n1 "x" /private/specialuse NIL)`, "c OK …")
	c.send(t, "d GETMETADATA Archive /private/n1\r\n")
	c.want(t, `* METADATA "Archive" (/private/n1 "x")`, "d OK …")
}
