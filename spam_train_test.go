package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// letterNo is one of many messages.
func letterNo(n int) string { return strings.Replace(friendLetter, "<1@", fmt.Sprintf("<%d@", n), 1) }

// trainFiles writes files into a new folder.
func trainFiles(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const mboxLine = "From carl@friend.example Thu Nov 26 10:32:07 2026\r\n"

// TestTrain learns from folders, twice, and tells what it has left out and why.
func TestTrain(t *testing.T) {
	f := testSpamFilter(t, SpamConfig{})
	files := map[string]string{
		"dovecot-uidlist": friendLetter, "maildirfolder": "", "notes": "nothing\nat all\n", "cur/empty": "", "cur/mail.gz": "\x1f\x8b\x08\x00and so on",
		"photo.jpg": "\xff\xd8\xff\xe0", "more.txt": "none", "still.txt": "none", "box": mboxLine + letterNo(100) + "\r\n" + mboxLine + "\r\nno header\r\n\r\n" + mboxLine + letterNo(101),
	}
	for i := range 10 {
		files[fmt.Sprint("cur/", i)] = letterNo(i)
	}
	dir := trainFiles(t, files)
	if err := os.Symlink("0", filepath.Join(dir, "cur/link")); err != nil {
		t.Fatal(err)
	}
	skipped := []TrainSkipped{
		{skipNoMail, 5, []string{"box message 2", "more.txt", "notes"}}, {skipEmpty, 1, []string{"cur/empty"}},
		{skipNoFile, 1, []string{"cur/link"}}, {skipCompressed, 1, []string{"cur/mail.gz"}},
	}
	for _, learned := range []int{12, 0} {
		r, err := f.Train(context.Background(), dir, classSpam, 0)
		if want := (&TrainReport{Learned: learned, Known: 12 - learned, Skipped: skipped, Next: 20}); err != nil || !reflect.DeepEqual(r, want) {
			t.Errorf("%+v, %v", r, err)
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	all := TrainReport{More: true}
	for calls := 1; all.More; calls++ { // each call goes on where the last ended
		r, err := f.Train(ended, dir, classHam, all.Next)
		if err != nil || r.Next != min(calls, 20) {
			t.Fatalf("%+v, %v, after %d calls", r, err, calls)
		}
		all.Add(r)
	}
	if want := (TrainReport{Learned: 12, Skipped: skipped, Next: 20}); !reflect.DeepEqual(all, want) {
		t.Errorf("bit by bit: %+v", all)
	}
	if s := f.Status(); s.Wanted != 12 || s.Unwanted != 0 {
		t.Errorf("%+v", s)
	}
	if r, err := f.Train(context.Background(), filepath.Join(dir, "box"), classSpam, 0); err != nil || r.Learned != 2 || r.Skipped[0].Names[0] != "box message 2" {
		t.Errorf("one file: %+v, %v", r, err)
	}
	if _, err := f.Train(context.Background(), filepath.Join(dir, "none"), classSpam, 0); err == nil || !strings.Contains(err.Error(), "learning from") {
		t.Errorf("got %v", err)
	}
}

// TestTrainUnreadable goes on behind what cannot be read.
func TestTrainUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	f := testSpamFilter(t, SpamConfig{})
	dir := trainFiles(t, map[string]string{"a": letterNo(1), "b": letterNo(2), "c/d": letterNo(3)})
	for _, path := range []string{"a", "c"} {
		if err := os.Chmod(filepath.Join(dir, path), 0); err != nil {
			t.Fatal(err)
		}
	}
	defer os.Chmod(filepath.Join(dir, "c"), 0o700)
	r, err := f.Train(context.Background(), dir, classSpam, 0)
	if err != nil || r.Learned != 1 || len(r.Skipped) != 1 || r.Skipped[0].Count != 2 || r.Skipped[0].Why != skipUnreadable {
		t.Errorf("%+v %v", r, err)
	}
}

// TestMbox takes mbox files apart.
func TestMbox(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"one":              {mboxLine + "A: b\r\n\r\ntext\r\n", []string{"A: b\r\n\r\ntext\r\n"}},
		"LF":               {"From x Thu Nov 26 10:32:07 2026\nA: b\n\ntext\n\nFrom - Fri Nov 27 1:02 2026\nC: d\n", []string{"A: b\n\ntext\n\n", "C: d\n"}},
		"with zones":       {"From a b@c Thu Nov  6 10:32:07 +0100 2026\nA: b\n\n\nFrom x@y Fri Nov 27 01:02:03 CET 2026\n", []string{"A: b\n\n\n", ""}},
		"text, not a line": {"From x Thu Nov 26 10:32:07 2026\nA: b\n\nFrom here on it rains.\n\n>From x Thu Nov 26 10:32:07 2026\n", []string{"A: b\n\nFrom here on it rains.\n\n>From x Thu Nov 26 10:32:07 2026\n"}},
		"no blank before":  {"From x Thu Nov 26 10:32:07 2026\nA: b\n\ntext\nFrom x Thu Nov 26 10:32:07 2026\nC: d\n", []string{"A: b\n\ntext\nFrom x Thu Nov 26 10:32:07 2026\nC: d\n"}},
		"long lines":       {mboxLine + "A: " + long + "\n\n" + long + "\n\n" + mboxLine + "C: d", []string{"A: " + long + "\n\n" + long + "\n\n", "C: d"}},
		"no mbox":          {"A: b\n\n" + "text\n", nil},
		"nothing":          {"", nil},
	} {
		var got []string
		err := mboxMessages(strings.NewReader(c.text), func(from, size int64) error {
			got = append(got, c.text[from:from+size])
			return nil
		})
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %.200q, %v", name, got, err)
		}
	}
}
