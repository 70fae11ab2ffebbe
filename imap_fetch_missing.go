package main

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/emersion/go-imap/v2"
)

// The first list of a mailbox that came from elsewhere has to read every message. That is done for several messages at
// once: one waits for the disk while another is parsed.

const (
	missingReaders = 4 // messages read at once, and no more than there are processors
	missingFew     = 4 // messages that are not worth it
)

// readMissing reads the structures that the cache did not have, of the batch's messages from start on that lookUp has
// looked up. What it leaves out, for an error or because it is too much, is read when its turn comes.
func (f *fetcher) readMissing(start int) {
	if f.q.file { // the files are opened one by one in any case
		return
	}
	var missing []int
	for i := start; i < f.looked; i++ {
		if f.copies[i].envelope == nil {
			missing = append(missing, i)
		}
	}
	if len(missing) < missingFew {
		return
	}
	values := make([][]byte, len(missing))
	var next, read atomic.Int64
	var readers sync.WaitGroup
	for range min(missingReaders, runtime.GOMAXPROCS(0)) {
		readers.Go(func() {
			buf := make([]byte, fetchWhole)
			for k := next.Add(1) - 1; k < int64(len(missing)) && read.Load() < fetchArena; k = next.Add(1) - 1 {
				value, err := structureOf(f.folder, f.msgs[missing[k]].UID, buf)
				if err == nil {
					values[k] = value
					read.Add(int64(len(value)))
				}
			}
		})
	}
	readers.Wait()
	for k, value := range values {
		if value != nil {
			f.take(value, &f.copies[missing[k]])
		}
	}
}

// errParserFailed says that a message made the parser panic; it does so again in the session, which ends with it.
var errParserFailed = errors.New("a message made the parser panic")

// structureOf opens a message and reads it through; buf is room for its text.
func structureOf(folder *Folder, uid imap.UID, buf []byte) (value []byte, err error) {
	file, err := folder.OpenMessageIn(uid, buf)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errParserFailed, r)
		}
	}()
	return readStructure(folder, uid, file)
}
