package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/emersion/go-imap/v2"
)

// Message is an open message, seen with CRLF line ends whatever its file has. Not safe for concurrent use.
type Message struct {
	file *plainFile // nil when all of the text is in memory
	text []byte
	size int64
	lf   bool // the file has lone LF, which become CRLF while it is read
}

// OpenMessage opens a message for reading: ErrExpunged when it is gone. Close it.
func (f *Folder) OpenMessage(uid imap.UID) (*Message, error) { return f.OpenMessageIn(uid, nil) }

// OpenMessageIn is OpenMessage for somebody who wants all of the text: where it is shorter than buf it is read into it at
// once, and buf belongs to the message until that is closed.
func (f *Folder) OpenMessageIn(uid imap.UID, buf []byte) (*Message, error) {
	for try := 0; ; try++ {
		m, path, err := f.messagePath(uid)
		if err != nil {
			return nil, err
		}
		file, err := openPlain(path)
		if err == nil {
			return f.opened(file, path, &m, buf)
		}
		if !errors.Is(err, fs.ErrNotExist) || try >= 3 {
			return nil, fmt.Errorf("opening a message: %w", err)
		}
		if err := f.lookAgain(&m); err != nil {
			return nil, err
		}
	}
}

// withFile calls use with the path of a message's file, and again when that was renamed meanwhile: ErrExpunged when the
// message is gone.
func (f *Folder) withFile(uid imap.UID, use func(path string) error) error {
	for try := 0; ; try++ {
		m, path, err := f.messagePath(uid)
		if err != nil {
			return err
		}
		if err = use(path); !errors.Is(err, fs.ErrNotExist) || try >= 3 {
			return err
		}
		if err := f.lookAgain(&m); err != nil {
			return err
		}
	}
}

// lookAgain is for a file that was not there: it was renamed since, by a session (then the next look has the new name) or by
// another program.
func (f *Folder) lookAgain(m *Msg) error {
	f.mu.Lock()
	defer f.unlock()
	if i := f.find(m.UID, 0); i < 0 || f.msgs[i].fileName() != m.fileName() || f.msgs[i].place != m.place {
		return nil
	}
	if err := f.scan(true, true, nil); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// messagePath gives the present state of a message and where its file is.
func (f *Folder) messagePath(uid imap.UID) (Msg, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return Msg{}, "", ErrNoFolder
	}
	i := f.find(uid, 0)
	if i < 0 {
		return Msg{}, "", ErrExpunged
	}
	return f.msgs[i], f.msgs[i].pathIn(f.path), nil
}

// pathIn is the path of the message's file in its folder.
func (m *Msg) pathIn(folder string) string {
	const slash = string(filepath.Separator)
	return folder + slash + m.subdir() + slash + m.base + m.info
}

// opened checks the sizes that were known against the file and learns them if they do not fit.
func (f *Folder) opened(file *plainFile, path string, m *Msg, buf []byte) (*Message, error) {
	if m.Size >= 0 && m.Size == m.stored && m.stored < int64(len(buf)) {
		// One byte more is asked for: getting it, or less, shows that the file is not what it was.
		if n, err := file.readOnce(buf[:m.stored+1], 0); err == nil && int64(n) == m.stored {
			file.Close()
			return &Message{text: buf[:n], size: m.Size}, nil
		}
	}
	stored, err := file.size()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("opening a message: %w", err)
	}
	size := m.Size
	if size < 0 || m.stored != stored {
		if size, err = crlfLength(file); err != nil {
			file.Close()
			return nil, fmt.Errorf("opening a message: %w", err)
		}
		f.mu.Lock()
		if i := f.find(m.UID, 0); i >= 0 {
			f.msgs[i].stored, f.msgs[i].Size = stored, size
			f.markDirty(m.UID)
		}
		f.mu.Unlock()
	}
	return &Message{file: file, size: size, lf: size != stored}, nil
}

// crlfLength reads a file from its beginning to know its length with CRLF line ends. It takes the open file, for the name
// may be another one by now.
func crlfLength(file io.ReaderAt) (int64, error) {
	return io.Copy(io.Discard, newCRLFReader(io.NewSectionReader(file, 0, 1<<62)))
}

// Size is RFC822.SIZE: the length with CRLF line ends.
func (m *Message) Size() int64 { return m.size }

// Close closes the file.
func (m *Message) Close() error {
	if m.file == nil {
		return nil
	}
	return m.file.Close()
}

// Text gives the text from off on, n bytes, if it is in memory and all there; it may be changed. The arguments are those
// of Section.
func (m *Message) Text(off, n int64) (text []byte, ok bool) {
	if m.text == nil || off < 0 || n < 0 || off+n > m.size {
		return nil, false
	}
	return m.text[off : off+n], true
}

// Section reads n bytes from off, both counted with CRLF line ends and cut to the message. Nothing is held whole.
func (m *Message) Section(off, n int64) io.Reader {
	off = min(max(off, 0), m.size)
	n = min(max(n, 0), m.size-off)
	if m.text != nil {
		return bytes.NewReader(m.text[off : off+n])
	}
	if !m.lf {
		return io.NewSectionReader(m.file, off, n)
	}
	r := newCRLFReader(io.NewSectionReader(m.file, 0, 1<<62))
	if _, err := io.CopyN(io.Discard, r, off); err != nil {
		return bytes.NewReader(nil)
	}
	return io.LimitReader(r, n)
}

// crlfReader gives every line a CRLF end.
type crlfReader struct {
	in     *bufio.Reader
	lastCR bool
	owedLF bool // CR of a pair was given, its LF not yet
}

func newCRLFReader(r io.Reader) *crlfReader { return &crlfReader{in: bufio.NewReaderSize(r, 16<<10)} }

func (c *crlfReader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if c.owedLF {
			p[n] = '\n'
			n++
			c.owedLF, c.lastCR = false, false
			continue
		}
		buf, perr := c.in.Peek(1)
		if len(buf) == 0 {
			if n > 0 {
				return n, nil
			}
			return 0, perr
		}
		buf, _ = c.in.Peek(min(c.in.Buffered(), len(p)-n))
		end := bytes.IndexByte(buf, '\n')
		if end < 0 {
			n += copy(p[n:], buf)
			c.lastCR = buf[len(buf)-1] == '\r'
			c.in.Discard(len(buf))
			continue
		}
		n += copy(p[n:], buf[:end])
		paired := end > 0 && buf[end-1] == '\r' || end == 0 && c.lastCR
		c.in.Discard(end + 1)
		c.lastCR = false
		if paired {
			c.owedLF = true
			continue
		}
		// There is room: the LF itself was within len(p)-n.
		p[n] = '\r'
		n++
		c.owedLF = true
	}
	return n, nil
}
