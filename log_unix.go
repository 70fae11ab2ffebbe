//go:build !windows

package main

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// isJournal says whether what is written there goes to systemd's journal (systemd.exec(5), $JOURNAL_STREAM).
func isJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	stream := os.Getenv("JOURNAL_STREAM")
	if !ok || stream == "" {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// systemEvents gives what reports to the event log of the system. There is none here.
func systemEvents() (report func(level, text string), done func()) { return nil, func() {} }
