package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// crashDirVariable makes the test binary a process that changes a maildrop until it is killed.
const crashDirVariable = "APPLIANCE_TEST_CRASH_DIR"

// TestCrashChild is that process: it says on standard output what it has promised, one line after each promise.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashDirVariable)
	if dir == "" {
		t.Skip("only run by TestKill")
	}
	s := testStore(t, dir)
	d := testDrop(t, s)
	f := openFolder(t, d, "INBOX")
	for n := 0; ; n++ {
		text := fmt.Sprintf("Subject: %d-%d\r\n\r\nbody\r\n", os.Getpid(), n)
		if n%2 == 0 {
			deliverText(t, s, text, "ann@example.org")
		} else {
			appendText(t, f, text, imap.FlagFlagged)
		}
		uids := f.allUIDs()
		uid := uids[len(uids)-1]
		fmt.Printf("has %d %d %d\n", f.UIDValidity(), uid, os.Getpid()*1000000+n)
		if n%3 == 0 {
			f.SetFlags([]imap.UID{uid}, FlagsAdd, []imap.Flag{imap.FlagSeen, "Work"}, NoUnchangedSince)
			fmt.Printf("modseq %d\n", f.highestModSeq())
		}
		if n%4 == 3 {
			markMany(f, uids[max(0, len(uids)-10):], n%8 == 3)
		}
		if n%7 == 6 {
			fmt.Printf("removing %d\n", uid)
			f.Expunge([]imap.UID{uid}, false)
			fmt.Printf("gone %d\n", uid)
		}
	}
}

// markMany sets or takes away \Answered of many messages at once, and says it before and after.
func markMany(f *Folder, uids []imap.UID, on bool) {
	op, first, last := FlagsRemove, uids[0], uids[len(uids)-1]
	if on {
		op = FlagsAdd
	}
	fmt.Printf("marking %d %d\n", first, last)
	if _, _, _, err := f.SetFlags(uids, op, []imap.Flag{imap.FlagAnswered}, NoUnchangedSince); err == nil {
		fmt.Printf("marked %d %d %t\n", first, last, on)
	}
}

// markedUIDs is what such lines have promised: a UID that is not in it may be marked or not.
type markedUIDs map[imap.UID]bool

// take takes a line in; false when it is of another kind.
func (m markedUIDs) take(line string) bool {
	var first, last imap.UID
	var on bool
	if n, _ := fmt.Sscanf(line, "marking %d %d", &first, &last); n == 2 {
		for uid := first; uid <= last; uid++ {
			delete(m, uid)
		}
		return true
	}
	if n, _ := fmt.Sscanf(line, "marked %d %d %t", &first, &last, &on); n == 3 {
		for uid := first; uid <= last; uid++ {
			m[uid] = on
		}
		return true
	}
	return false
}

// check compares with a folder; what is gone is gone.
func (m markedUIDs) check(t *testing.T, f *Folder) {
	t.Helper()
	msgs, err := f.Messages(nil, f.allUIDs(), false)
	if err != nil {
		t.Fatal(err)
	}
	for i := range msgs {
		if on, promised := m[msgs[i].UID]; promised && on != (msgs[i].Flags&FlagAnswered != 0) {
			t.Errorf("UID %d: marked as answered should be %v", msgs[i].UID, on)
		}
	}
}

// TestKill kills such a process again and again: nothing that was promised may be missing, no UID may mean another message,
// what was removed stays removed, and modseqs only grow.
func TestKill(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs a process that can be killed at any point")
	}
	dir := t.TempDir()
	promised := map[imap.UID]string{}
	gone := map[imap.UID]bool{}
	marked := markedUIDs{}
	var modseq uint64
	var validity uint32
	for round := range 6 {
		runAndKill(t, dir, time.Duration(60+round*45)*time.Millisecond, func(line string) {
			var n uint64
			var v, uid uint32
			if marked.take(line) {
				return
			}
			if k, _ := fmt.Sscanf(line, "removing %d", &uid); k == 1 {
				delete(promised, imap.UID(uid)) // from here on it may be there or not
			} else if k, _ := fmt.Sscanf(line, "modseq %d", &n); k == 1 {
				modseq = n
			} else if k, _ := fmt.Sscanf(line, "gone %d", &uid); k == 1 {
				gone[imap.UID(uid)] = true
			} else if k, _ := fmt.Sscanf(line, "has %d %d %d", &v, &uid, &n); k == 3 {
				if validity != 0 && v != validity {
					t.Fatalf("UIDVALIDITY %d became %d", validity, v)
				}
				if old := promised[imap.UID(uid)]; old != "" || gone[imap.UID(uid)] {
					t.Fatalf("UID %d given twice", uid)
				}
				validity = v
				promised[imap.UID(uid)] = fmt.Sprintf("Subject: %d-%d\r\n", n/1000000, n%1000000)
			}
		})
		s := testStore(t, dir)
		d := testDrop(t, s)
		f := openFolder(t, d, "INBOX")
		for uid, text := range promised {
			m, err := f.OpenMessage(uid)
			if err != nil {
				t.Fatalf("round %d: UID %d, %q: %v", round, uid, text, err)
			}
			got, _ := io.ReadAll(m.Section(0, int64(len(text))))
			m.Close()
			if string(got) != text {
				t.Fatalf("round %d: UID %d is %q, was %q", round, uid, got, text)
			}
		}
		for uid := range gone {
			if _, err := f.OpenMessage(uid); !errors.Is(err, ErrExpunged) {
				t.Fatalf("round %d: removed UID %d is back: %v", round, uid, err)
			}
		}
		marked.check(t, f)
		if now := f.highestModSeq(); now < modseq {
			t.Fatalf("round %d: modseq went back from %d to %d", round, modseq, now)
		}
		f.Release()
		d.Release()
		s.Close()
	}
	t.Logf("%d messages promised, %d removed, %d flags", len(promised), len(gone), len(marked))
}

func runAndKill(t *testing.T, dir string, after time.Duration, line func(string)) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), crashDirVariable+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(out)
	var once bool
	for {
		text, err := in.ReadString('\n')
		if err != nil { // a line cut by the kill promises nothing
			break
		}
		if !once {
			once = true
			time.AfterFunc(after, func() { cmd.Process.Kill() })
		}
		line(text)
	}
	cmd.Wait()
	if !once {
		t.Fatal("the child did nothing")
	}
}

// TestFullDisk fills a small file system; it needs one in APPLIANCE_TEST_SMALL_DISK (.ci/run mounts it).
func TestFullDisk(t *testing.T) {
	small := os.Getenv("APPLIANCE_TEST_SMALL_DISK")
	if small == "" {
		t.Skip("needs a small file system in APPLIANCE_TEST_SMALL_DISK")
	}
	dir := filepath.Join(small, "t")
	defer os.RemoveAll(dir)
	s := testStore(t, dir)
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	f := openFolder(t, d, "INBOX")
	defer f.Release()
	archive := openFolder(t, d, "Archive") // one that was never opened needs room for its UID list
	defer archive.Release()
	filler := "Subject: x\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 3000)
	kept := 0
	for {
		in, err := d.Receive()
		if err == nil {
			_, err = io.WriteString(in, filler)
			if err == nil {
				err = s.Deliver(t.Context(), in, []Delivery{{Account: "ann@example.org", Folder: "INBOX"}, {Account: "ann@example.org", Folder: "Archive"}})
			}
			in.Discard()
		}
		if errors.Is(err, ErrDiskFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if kept++; kept > 10000 {
			t.Skip("the file system is not small")
		}
	}
	if n := len(f.allUIDs()); n != kept {
		t.Errorf("%d messages delivered, %d there", kept, n)
	}
	if tmp, _ := listNames(filepath.Join(d.dir, "tmp")); len(tmp) > 0 {
		t.Errorf("left in tmp/: %v", tmp)
	}
	if _, _, err := f.Expunge(f.allUIDs()[:2], false); err != nil {
		t.Errorf("removing on a full disk: %v", err)
	}
	if _, _, err := archive.Expunge(nil, false); err != nil {
		t.Errorf("removing on a full disk: %v", err)
	}
	appendText(t, f, filler)
}
