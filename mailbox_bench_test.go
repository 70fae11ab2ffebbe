package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// fillMaildir writes n small files as another program would, without UIDs.
func fillMaildir(tb testing.TB, dir string, n, size int) {
	tb.Helper()
	if err := makeMaildir(dir); err != nil {
		tb.Fatal(err)
	}
	body := make([]byte, size)
	for i := range body {
		body[i] = "0123456789abcde\n"[i%16]
	}
	for i := range n {
		text := fmt.Appendf(nil, "From: a@example.org\r\nSubject: %d\r\n\r\n%s", i, body)
		name := fmt.Sprintf("%d.M%06dP1Q%d.bench,S=%d:2,", 1700000000+i, i%1000000, i, len(text))
		if err := os.WriteFile(filepath.Join(dir, "cur", name), text, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
}

// BenchmarkOpen100k opens a folder of 100,000 messages: with no index, and with the index of an earlier run.
func BenchmarkOpen100k(b *testing.B) {
	for _, size := range []int{100, 2000} {
		dir := b.TempDir()
		fillMaildir(b, filepath.Join(dir, "mail/example.org/ann"), 100000, size)
		open := func() {
			s := testStore(b, dir)
			d := testDrop(b, s)
			f := openFolder(b, d, "INBOX")
			if len(f.allUIDs()) != 100000 {
				b.Fatal(len(f.allUIDs()))
			}
			b.StopTimer()
			f.Release()
			d.Release()
			s.Close()
			b.StartTimer()
		}
		b.Run(fmt.Sprintf("cold/body=%d", size), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				os.RemoveAll(filepath.Join(dir, "index"))
				b.StartTimer()
				open()
			}
		})
		b.Run(fmt.Sprintf("warm/body=%d", size), func(b *testing.B) {
			for b.Loop() {
				open()
			}
		})
	}
}

// BenchmarkFolderSize compares the cost of a delivery and a flag change in folders of 100 and of 100,000 messages.
func BenchmarkFolderSize(b *testing.B) {
	for _, n := range []int{100, 100000} {
		dir := b.TempDir()
		fillMaildir(b, filepath.Join(dir, "mail/example.org/ann"), n, 100)
		s := testStore(b, dir)
		d := testDrop(b, s)
		f := openFolder(b, d, "INBOX")
		b.Run(fmt.Sprintf("deliver/%d", n), func(b *testing.B) {
			for b.Loop() {
				deliverText(b, s, "Subject: x\r\n\r\nx\r\n", "ann@example.org")
			}
		})
		b.Run(fmt.Sprintf("flag/%d", n), func(b *testing.B) {
			op := FlagsAdd
			for b.Loop() {
				if _, _, _, err := f.SetFlags([]imap.UID{50}, op, []imap.Flag{imap.FlagSeen}, NoUnchangedSince); err != nil {
					b.Fatal(err)
				}
				op = FlagsAdd + FlagsRemove - op
			}
		})
		f.Release()
		d.Release()
		s.Close()
	}
}
