package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// faultDirVariable makes the test binary a process that changes a maildrop whatever fails, under a tracer that lets calls
// of the system fail.
const faultDirVariable = "APPLIANCE_TEST_FAULT_DIR"

// faultChild is that process's state.
type faultChild struct {
	t     *testing.T
	rnd   *rand.Rand
	s     *Store
	d     *Maildrop
	in, a *Folder
}

// TestFaultChild says on standard output what it has promised, one line after each promise.
func TestFaultChild(t *testing.T) {
	dir := os.Getenv(faultDirVariable)
	if dir == "" {
		t.Skip("only run by TestFaults")
	}
	c := &faultChild{t: t, rnd: rand.New(rand.NewSource(time.Now().UnixNano())), s: testStore(t, dir)}
	for n := range 150 {
		if n%50 == 0 {
			c.reopen(dir)
		}
		if c.in == nil || c.a == nil {
			c.reopen(dir)
			continue
		}
		c.step(n)
	}
	c.s.Close()
	fmt.Println("end")
}

// reopen restarts the store, which may fail.
func (c *faultChild) reopen(dir string) {
	c.s.Close()
	c.in, c.a = nil, nil
	s, err := OpenStore(StoreConfig{MailDir: filepath.Join(dir, "mail"), IndexDir: filepath.Join(dir, "index"), Host: "test"})
	if err != nil {
		return
	}
	c.s = s
	if c.d, err = s.Maildrop("ann@example.org"); err == nil {
		c.in, _ = c.d.Open("INBOX")
		c.a, _ = c.d.Open("Archive")
	}
}

// step is one change; what it says is a promise. The text of a message names it.
func (c *faultChild) step(n int) {
	text := fmt.Sprintf("%d-%d", os.Getpid(), n)
	uids := c.in.allUIDs()
	var uid imap.UID
	if len(uids) > 0 {
		uid = uids[c.rnd.Intn(len(uids))]
	}
	switch c.rnd.Intn(9) {
	case 0, 1, 2:
		if in := c.receive(text); in != nil {
			to := []Delivery{{Account: "ann@example.org", Folder: "INBOX"}, {Account: "ann@example.org", Folder: "Archive"}}
			if c.s.Deliver(c.t.Context(), in, to) == nil {
				fmt.Println("has", text)
			}
		}
	case 3:
		if in := c.receive(text); in != nil {
			if uids, err := c.in.Append([]AppendMessage{{In: in, Flags: []imap.Flag{imap.FlagFlagged, "Work"}}}); err == nil {
				fmt.Println("has", text)
				fmt.Println("uid INBOX", uids[0], text)
			}
		}
	case 4:
		c.in.SetFlags([]imap.UID{uid}, FlagsAdd, []imap.Flag{imap.FlagSeen, "Work"}, NoUnchangedSince)
		c.in.NewView(false, nil)
	case 8:
		if len(uids) > 0 {
			markMany(c.in, uids[max(0, len(uids)-8):], c.rnd.Intn(2) == 0)
		}
	case 5:
		c.in.Copy([]imap.UID{uid}, c.a)
	case 6:
		c.in.Move(uids[len(uids)-min(len(uids), 1+c.rnd.Intn(6)):], c.a)
	case 7:
		c.tellUIDs("INBOX", c.in)
		c.tellUIDs("Archive", c.a)
	}
}

func (c *faultChild) receive(text string) *Incoming {
	in, err := c.d.Receive()
	if err != nil {
		return nil
	}
	if _, err := io.WriteString(in, faultText(text)); err != nil {
		in.Discard()
		return nil
	}
	return in
}

func faultText(name string) string {
	return "Subject: " + name + "\r\n\r\n" + strings.Repeat("0123456789\r\n", 50) + "end\r\n"
}

// tellUIDs says what clients may have seen.
func (c *faultChild) tellUIDs(name string, f *Folder) {
	for _, uid := range f.allUIDs() {
		if text, err := faultName(f, uid); err == nil {
			fmt.Println("uid", name, uid, text)
		}
	}
}

// faultName reads a message whole and gives its name.
func faultName(f *Folder, uid imap.UID) (string, error) {
	m, err := f.OpenMessage(uid)
	if err != nil {
		return "", err
	}
	defer m.Close()
	data, err := io.ReadAll(m.Section(0, m.Size()))
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(data), "\r\n")
	name := strings.TrimPrefix(line, "Subject: ")
	if string(data) != faultText(name) {
		return "", fmt.Errorf("UID %d is not whole: %q", uid, data)
	}
	return name, nil
}

// TestFaults lets calls of the system fail again and again while a maildrop is changed. What was promised is there
// afterwards, whole, and under the UIDs that were told.
func TestFaults(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs strace")
	}
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace")
	}
	faults := []string{
		"fsync:error=EIO:when=15+13", "renameat:error=ENOSPC:when=10+7", "linkat:error=ENOSPC:when=3+4", "unlinkat:error=EIO:when=10+9",
		"pwrite64:error=EIO:when=5+6", "fdatasync:error=EIO:when=4+3", "getdents64:error=EIO:when=9+11", "newfstatat:error=EIO:when=40+31",
		"openat:error=EMFILE:when=60+41", "write:error=ENOSPC:when=30+17", "fsync:signal=KILL:when=21", "renameat:signal=KILL:when=12",
		"linkat:signal=KILL:when=6", "unlinkat:signal=KILL:when=16", "pwrite64:signal=KILL:when=9",
	}
	for _, fault := range faults {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			testFault(t, fault)
		})
	}
}

func testFault(t *testing.T, fault string) {
	dir := t.TempDir()
	has := map[string]bool{}
	uids := map[string]string{}
	marked := markedUIDs{}
	testStore(t, dir).Close()
	for range 2 {
		end := false
		call, _, _ := strings.Cut(fault, ":")
		args := []string{"-f", "-o", filepath.Join(dir, "trace"), "-e", "trace=" + call, "-e", "inject=" + fault, os.Args[0], "-test.run=^TestFaultChild$"}
		if !strings.Contains(fault, "signal") { // faster, but strace then sends no signals
			args = append([]string{"--seccomp-bpf"}, args...)
		}
		cmd := exec.Command("strace", args...)
		cmd.Env = append(os.Environ(), faultDirVariable+"="+dir)
		out, _ := cmd.Output()
		lines := bufio.NewScanner(strings.NewReader(string(out)))
		for lines.Scan() {
			end = end || lines.Text() == "end"
			if marked.take(lines.Text()) {
				continue
			}
			var folder, uid, text string
			if n, _ := fmt.Sscanf(lines.Text(), "has %s", &text); n == 1 {
				has[text] = true
			} else if n, _ := fmt.Sscanf(lines.Text(), "uid %s %s %s", &folder, &uid, &text); n == 3 {
				if old := uids[folder+uid]; old != "" && old != text {
					t.Errorf("%s UID %s was %s and is %s", folder, uid, old, text)
				}
				uids[folder+uid] = text
			}
		}
		t.Logf("%d promised, %d UIDs told, ran to its end: %v", len(has), len(uids), end)
		checkFaults(t, dir, has, uids, marked)
	}
	if len(has) == 0 {
		t.Skip("nothing could be promised")
	}
	told := len(uids)
	os.RemoveAll(filepath.Join(dir, "index"))
	checkFaults(t, dir, has, uids, marked)
	if len(uids) != told {
		t.Errorf("%d messages have other UIDs without the index", len(uids)-told)
	}
}

// checkFaults looks at the maildrop without faults.
func checkFaults(t *testing.T, dir string, has map[string]bool, uids map[string]string, marked markedUIDs) {
	t.Helper()
	s := testStore(t, dir)
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	there := map[string]bool{}
	for _, name := range []string{"INBOX", "Archive"} {
		f := openFolder(t, d, name)
		defer f.Release()
		checkAgainstDisk(t, f)
		if name == "INBOX" {
			marked.check(t, f)
		}
		for _, uid := range f.allUIDs() {
			text, err := faultName(f, uid)
			if err != nil {
				t.Error(err)
			}
			there[text] = true
			key := fmt.Sprint(name, uid)
			if old := uids[key]; old != "" && old != text {
				t.Errorf("%s UID %d was %s and is %s", name, uid, old, text)
			}
			uids[key] = text
		}
	}
	for text := range has {
		if !there[text] {
			t.Errorf("%s was promised and is not there", text)
		}
	}
}
