package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Incoming is a message that is being received into tmp/. Not safe for concurrent use.
type Incoming struct {
	store    *Store
	path     string
	file     *os.File
	buf      []byte // what is not in the file yet; nil once finished or discarded
	size     int64  // bytes written
	crlfSize int64  // bytes with CRLF line ends
	date     int64  // Unix seconds, once finished
	lastCR   bool
	finished bool
	moved    bool // the file has left tmp/
}

// incomingBuffer is what a message that is being received holds in memory, in bytes. One that is shorter is written at once,
// when it is finished.
const incomingBuffer = 32 << 10

// Receive starts a message in the maildrop's tmp/. Write to it, then give it to Store.Deliver or Folder.Append, or
// Discard it. The store keeps the bytes as given; with CRLF line ends they are served without conversion.
func (d *Maildrop) Receive() (*Incoming, error) { return d.store.Receive(filepath.Join(d.dir, "tmp")) }

// Receive starts a message in a folder for what is not whole yet.
func (s *Store) Receive(tmp string) (*Incoming, error) {
	path := filepath.Join(tmp, s.names.unique())
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, diskError(fmt.Errorf("receiving a message: %w", err))
	}
	buf := s.buffers.Get().(*[incomingBuffer]byte)
	return &Incoming{store: s, path: path, file: f, buf: buf[:0]}, nil
}

// giveBack lets another message have the buffer.
func (in *Incoming) giveBack() {
	if in.buf != nil {
		in.store.buffers.Put((*[incomingBuffer]byte)(in.buf[:incomingBuffer]))
		in.buf = nil
	}
}

// flush writes what is in memory.
func (in *Incoming) flush() error {
	_, err := in.file.Write(in.buf)
	in.buf = in.buf[:0]
	return err
}

// Write adds to the message.
func (in *Incoming) Write(p []byte) (int, error) {
	n, err := len(p), error(nil)
	switch {
	case len(in.buf)+len(p) <= incomingBuffer:
		in.buf = append(in.buf, p...)
	default:
		if err = in.flush(); err == nil && len(p) < incomingBuffer {
			in.buf = append(in.buf, p...)
		} else if err == nil {
			n, err = in.file.Write(p)
		} else {
			n = 0
		}
	}
	in.count(p[:n])
	if err != nil {
		return n, diskError(fmt.Errorf("receiving a message: %w", err))
	}
	return n, nil
}

// Prepend puts something in front of the message, if all of that is in memory still; it ends with a line end, and so does
// not change how the message is counted. false means that nothing was done.
func (in *Incoming) Prepend(front []byte) bool {
	if int64(len(in.buf)) != in.size || len(in.buf)+len(front) > incomingBuffer {
		return false
	}
	in.buf = slices.Insert(in.buf, 0, front...)
	lastCR := in.lastCR
	in.lastCR = false
	in.count(front)
	in.lastCR = lastCR
	return true
}

// count keeps the sizes: a LF without CR will be two bytes when it is served.
func (in *Incoming) count(p []byte) {
	in.size += int64(len(p))
	in.crlfSize += int64(len(p))
	for rest := p; ; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			break
		}
		if i > 0 && rest[i-1] != '\r' || i == 0 && !in.lastCR {
			in.crlfSize++
		}
		rest, in.lastCR = rest[i+1:], false
	}
	if len(p) > 0 {
		in.lastCR = p[len(p)-1] == '\r'
	}
}

// Size is the number of bytes written so far.
func (in *Incoming) Size() int64 { return in.size }

// ReadAt reads back what was written. Several may do so at once, while nothing is written.
func (in *Incoming) ReadAt(p []byte, off int64) (n int, err error) {
	inFile := in.size - int64(len(in.buf))
	if off < inFile {
		n, err = in.file.ReadAt(p[:min(int64(len(p)), inFile-off)], off)
		if err != nil {
			return n, err
		}
	}
	if at := off + int64(n) - inFile; n < len(p) && at < int64(len(in.buf)) {
		n += copy(p[n:], in.buf[at:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Discard removes it; harmless after Deliver or Append.
func (in *Incoming) Discard() {
	in.giveBack()
	if in.file != nil {
		in.file.Close()
		in.file = nil
	}
	if !in.moved {
		removeFile(in.path)
		in.moved = true
	}
}

// finish puts the bytes on disk with the date that becomes INTERNALDATE (zero: now).
func (in *Incoming) finish(date time.Time) error {
	if in.finished {
		return nil
	}
	err := in.flush()
	in.giveBack()
	if err == nil && !date.IsZero() {
		err = os.Chtimes(in.path, time.Time{}, date)
	}
	if err == nil {
		err = in.file.Sync()
	}
	if err == nil {
		var st os.FileInfo
		if st, err = in.file.Stat(); err == nil {
			in.date = st.ModTime().Unix()
		}
	}
	if cerr := in.file.Close(); err == nil {
		err = cerr
	}
	in.file = nil
	if err != nil {
		return fmt.Errorf("receiving a message: %w", err)
	}
	in.finished = true
	return nil
}

// place gives the finished message a name in a folder; last moves it there, else it stays for others.
func (in *Incoming) place(path string, last bool) error {
	if last {
		// A message has been in one file system until here; another folder may be on another.
		if err := renameFile(in.path, path); err == nil {
			in.moved = true
			return nil
		}
	}
	return linkOrCopy(in.path, path, filepath.Join(filepath.Dir(filepath.Dir(path)), "tmp", filepath.Base(path)))
}
