package main

import (
	"context"
	"encoding/json"
	"errors"
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
		{skipEmpty, 1, []string{"cur/empty"}}, {skipNoFile, 1, []string{"cur/link"}}, {skipCompressed, 1, []string{"cur/mail.gz"}},
		{skipNoMail, 5, []string{"box message 2", "more.txt", "notes"}},
	}
	for _, learned := range []int{12, 0} {
		r, err := trainDir(f, dir, classSpam)
		if want := (&TrainReport{Learned: learned, Known: 12 - learned, Skipped: skipped}); err != nil || !reflect.DeepEqual(r, want) {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if r, err := trainDir(f, filepath.Join(dir, "box"), classSpam); err != nil || r.Known != 2 || r.Skipped[0].Names[0] != "box message 2" {
		t.Errorf("one file: %+v, %v", r, err)
	}
	if _, err := trainDir(f, filepath.Join(dir, "none"), classSpam); err == nil || !strings.Contains(err.Error(), "learning from") {
		t.Errorf("got %v", err)
	}
}

// TestTrainMany hands on as many messages at a time as fit into an order, of large ones the beginning.
func TestTrainMany(t *testing.T) {
	files := map[string]string{"large": friendLetter + strings.Repeat("and so on\r\n", 200_000)}
	for i := range 900 {
		files[fmt.Sprintf("%03d-%s", i, strings.Repeat("n", 90))] = letterNo(i) + strings.Repeat("x", 1000)
	}
	calls, mails := 0, 0
	_, err := trainFrom(context.Background(), trainFiles(t, files), func(list []TrainMail) (*TrainReport, error) {
		line, err := json.Marshal(controlOrder{"a secret of some length, as there is", order{Do: "spam train", Mails: list}})
		if err != nil || len(line) >= maxControlLine {
			t.Errorf("an order of %d octets, %v", len(line), err)
		}
		calls, mails = calls+1, mails+len(list)
		return &TrainReport{}, nil
	})
	if err != nil || mails != 901 || calls < 3 || calls > 6 {
		t.Errorf("%d messages in %d orders, %v", mails, calls, err)
	}
	refused := errors.New("refused")
	_, err = trainFrom(context.Background(), trainFiles(t, files), func([]TrainMail) (*TrainReport, error) { return nil, refused })
	if !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
}

// trainDir lets the filter learn from a folder.
func trainDir(f *SpamFilter, dir string, class spamClass) (*TrainReport, error) {
	return trainFrom(context.Background(), dir, func(mails []TrainMail) (*TrainReport, error) { return f.Train(mails, class), nil })
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
	r, err := trainDir(f, dir, classSpam)
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
