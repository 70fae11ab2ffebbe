package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// measureLoops writes messages into Maildirs below dir, in the least way that is durable: create, write, fsync, rename, fsync
// of the directory. One loop, and eight at once in one directory.
func measureLoops(out io.Writer, dir string, n int) error {
	for _, loops := range []int{1, 8} {
		rate, err := loopRate(dir, loops, n)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "loop_%d %.6f\n", loops, rate)
	}
	return nil
}

// loopRate gives messages a second.
func loopRate(parent string, loops, n int) (float64, error) {
	dir, err := os.MkdirTemp(parent, "loop")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	for _, sub := range []string{"tmp", "new"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return 0, err
		}
	}
	text := []byte(smallMessage() + traceFields)
	each := max(n/loops, 1)
	ids := make(chan int, loops)
	for i := range loops {
		ids <- i
	}
	start := time.Now()
	err = atOnce(loops, func() error {
		id := <-ids
		for i := range each {
			if err := store(dir, strconv.Itoa(id*each+i), text); err != nil {
				return err
			}
		}
		return nil
	})
	return float64(each*loops) / time.Since(start).Seconds(), err
}

// traceFields are as long as what a server puts in front of a message.
const traceFields = "Return-Path: <bench@example.com>\r\nReceived: from bench.example.com ([127.0.0.1])\r\n\tby mail.example.com with ESMTP id abcdefghijklmnop\r\n\tfor <user@example.org>;\r\n\tMon, 2 Nov 2026 10:00:00 +0000\r\n"

// store is one turn of the loop.
func store(dir, name string, text []byte) error {
	tmp := filepath.Join(dir, "tmp", name)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, "new", name))
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Join(dir, "new"))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
