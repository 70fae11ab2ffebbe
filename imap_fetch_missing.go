package main

import (
	"bufio"
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
			r := structureReader{text: make([]byte, fetchWhole)}
			for k := next.Add(1) - 1; k < int64(len(missing)) && read.Load() < fetchArena; k = next.Add(1) - 1 {
				value, err := r.open(f.folder, f.msgs[missing[k]].UID)
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

// structureReader reads messages through, one after the other in the same memory.
type structureReader struct {
	text     []byte // room for the text of a small message
	in       *bufio.Reader
	renderer structureRenderer
}

// open opens a message and reads it through.
func (r *structureReader) open(folder *Folder, uid imap.UID) (value []byte, err error) {
	file, err := folder.OpenMessageIn(uid, r.text)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errParserFailed, p)
		}
	}()
	return r.read(folder, uid, file)
}

// read reads a message through, and keeps what it has learnt.
func (r *structureReader) read(folder *Folder, uid imap.UID, file *Message) ([]byte, error) {
	text := file.Section(0, file.Size())
	if r.in == nil {
		r.in = bufio.NewReaderSize(text, mimeReadAhead)
	} else {
		r.in.Reset(text)
	}
	root, err := parseMessage(r.in)
	if err != nil {
		return nil, fmt.Errorf("reading a message: %w", err)
	}
	value := r.renderer.render(root)
	if len(value) <= maxCached {
		folder.PutCached(cacheStructure, uid, value)
	}
	return value, nil
}
