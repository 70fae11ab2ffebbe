package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Only what goes to the journal gets priorities.
func TestJournalIsKnown(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, test := range []struct {
		stream string
		want   string
	}{{"", "time="}, {"1:2", "time="}, {streamOf(t, f), "<6>msg=x"}} {
		t.Setenv("JOURNAL_STREAM", test.stream)
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
		log, done, err := OpenLog(LogConfig{Stderr: f})
		if err != nil {
			t.Fatal(err)
		}
		log.Info("x")
		done()
		text, _ := os.ReadFile(f.Name())
		if text = bytes.TrimLeft(text, "\x00"); !strings.HasPrefix(string(text), test.want) {
			t.Errorf("%q: %q", test.stream, text)
		}
	}
}

// streamOf names a file as systemd does.
func streamOf(t *testing.T, f *os.File) string {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
