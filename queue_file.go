package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

const (
	queueTmp     = "tmp"
	queueMessage = ".eml"
	queueState   = ".json"
)

// queueRecord is what ID.json holds.
type queueRecord struct {
	Envelope Envelope         `json:"envelope"`
	Queued   time.Time        `json:"queued"`
	Size     int64            `json:"size"`               // octets of the text
	Told     bool             `json:"told,omitempty"`     // the sender knows that it waits
	Returned bool             `json:"returned,omitempty"` // it was to be forwarded, and is in the INBOX
	States   []recipientState `json:"states"`             // parallel to Envelope.Recipients
}

// recipientState is how far a recipient has come.
type recipientState struct {
	State    SendState `json:"state,omitempty"`
	Tries    int       `json:"tries,omitempty"`
	Next     time.Time `json:"next,omitzero"` // zero: at once
	Last     time.Time `json:"last,omitzero"` // of the last try
	Code     int       `json:"code,omitempty"`
	Enhanced string    `json:"enhanced,omitempty"`
	Text     string    `json:"text,omitempty"`
	Remote   string    `json:"remote,omitempty"`
}

// reason says in one line why a recipient waits or has failed, "" before the first try.
func (s *recipientState) reason() string {
	if s.Remote == "" || s.Text == "" {
		return s.Text
	}
	return s.Remote + ": " + s.Text
}

// queueFiles is the folder of the queue. A message exists once its ID.json does: that is written last and removed first.
type queueFiles struct {
	dir   string
	log   *slog.Logger
	syncs dirSyncer

	mu      sync.Mutex
	unread  []string // IDs of records that the system did not let us read: they are tried again
	damaged []string // IDs of what was set aside
}

// errDamaged says that a record was read and makes no sense; other errors may pass.
var errDamaged = errors.New("the record is damaged")

func (f *queueFiles) path(id, kind string) string { return filepath.Join(f.dir, id+kind) }

// create puts a new pair on disk.
func (f *queueFiles) create(id string, record *queueRecord, in *Incoming) error {
	if err := in.finish(time.Time{}); err != nil {
		return err
	}
	message := f.path(id, queueMessage)
	if err := in.place(message, true); err != nil {
		return err
	}
	err := f.write(id, record, true)
	if err == nil {
		err = f.syncs.Sync(f.dir)
	}
	if err != nil {
		removeFile(f.path(id, queueState))
		removeFile(message)
	}
	return err
}

// write replaces ID.json. With safe it is on disk before it gets its name; the name is the caller's to sync. Without, a
// power cut may bring the state before back, never half a file: the message is then tried once more than planned.
func (f *queueFiles) write(id string, record *queueRecord, safe bool) error {
	text, err := json.Marshal(record)
	if err != nil {
		return err
	}
	tmp := filepath.Join(f.dir, queueTmp, id+queueState)
	file, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(append(text, '\n'))
	if err == nil && safe {
		err = file.Sync()
	}
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = renameFile(tmp, f.path(id, queueState))
	}
	if err != nil {
		removeFile(tmp)
	}
	return err
}

// save puts a changed record on disk with its entry.
func (f *queueFiles) save(id string, record *queueRecord) error {
	if err := f.write(id, record, true); err != nil {
		return err
	}
	return f.syncs.Sync(f.dir)
}

// remove takes a pair away.
func (f *queueFiles) remove(id string) error {
	err := removeFile(f.path(id, queueState))
	if merr := removeFile(f.path(id, queueMessage)); err == nil {
		err = merr
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return f.syncs.Sync(f.dir)
}

// QueueMessage is the text of a message that waits.
type QueueMessage struct {
	io.ReaderAt
	Size int64 // octets
	file *os.File
}

// Close closes the file.
func (m QueueMessage) Close() error { return m.file.Close() }

// open opens a message.
func (f *queueFiles) open(id string) (QueueMessage, error) {
	file, err := openShared(f.path(id, queueMessage))
	if err != nil {
		return QueueMessage{}, fmt.Errorf("opening a queued message: %w", err)
	}
	st, err := file.Stat()
	if err != nil {
		file.Close()
		return QueueMessage{}, fmt.Errorf("opening a queued message: %w", err)
	}
	return QueueMessage{file, st.Size(), file}, nil
}

// load reads all records. What a crash has left of messages that nobody was promised is removed; a record that is damaged is
// set aside with its message and said in the log. One that cannot be read at the moment stays where it is.
func (f *queueFiles) load() (map[string]*queueRecord, error) {
	if err := makeDirs(filepath.Join(f.dir, queueTmp)); err != nil {
		return nil, err
	}
	if leftovers, err := listNames(filepath.Join(f.dir, queueTmp)); err == nil {
		for _, name := range leftovers {
			removeFile(filepath.Join(f.dir, queueTmp, name))
		}
	}
	names, err := listNames(f.dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	messages := map[string]bool{}
	for _, name := range names {
		if id, ok := strings.CutSuffix(name, queueState); ok {
			ids = append(ids, id)
		} else if id, ok := strings.CutSuffix(name, queueMessage); ok {
			messages[id] = true
		}
	}
	records := f.loadAll(ids)
	for _, id := range ids {
		switch {
		case records[id] == nil: // see loadAll
		case !messages[id]:
			f.log.Error("a queued message has no text any more", "id", id)
			f.setAside(id)
			delete(records, id)
		}
		delete(messages, id)
	}
	for id := range messages {
		removeFile(f.path(id, queueMessage))
	}
	return records, nil
}

// loadAll reads records, several at once: after a night without a network there may be very many.
func (f *queueFiles) loadAll(ids []string) map[string]*queueRecord {
	records := make(map[string]*queueRecord, len(ids))
	shared := map[string]string{}
	var mu sync.Mutex
	var work sync.WaitGroup
	parts := max(1, min(2*runtime.GOMAXPROCS(0), len(ids)/100))
	for part := range parts {
		work.Go(func() {
			for i := part; i < len(ids); i += parts {
				record, err := f.loadOne(ids[i])
				if err != nil {
					f.unreadable(ids[i], err)
					continue
				}
				mu.Lock()
				record.share(shared)
				records[ids[i]] = record
				mu.Unlock()
			}
		})
	}
	work.Wait()
	return records
}

// share keeps one copy of what many messages have in common: who sends, and why they wait.
func (r *queueRecord) share(seen map[string]string) {
	same := func(s *string) {
		if known, ok := seen[*s]; ok {
			*s = known
		} else {
			seen[*s] = *s
		}
	}
	same(&r.Envelope.From)
	same(&r.Envelope.Account)
	for i := range r.States {
		st := &r.States[i]
		same(&st.Enhanced)
		same(&st.Text)
		same(&st.Remote)
	}
}

func (f *queueFiles) loadOne(id string) (*queueRecord, error) {
	text, err := os.ReadFile(f.path(id, queueState))
	if err != nil {
		return nil, err
	}
	record := new(queueRecord)
	if err := json.Unmarshal(text, record); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if len(record.States) != len(record.Envelope.Recipients) || len(record.States) == 0 {
		return nil, fmt.Errorf("%w: its recipients and their states do not fit", errDamaged)
	}
	return record, nil
}

// unreadable sets a damaged record aside and notes any other one for later, unless it is gone.
func (f *queueFiles) unreadable(id string, err error) {
	f.log.Error("a queued message cannot be read", "id", id, "error", err)
	switch {
	case errors.Is(err, errDamaged):
		f.setAside(id)
	case !errors.Is(err, fs.ErrNotExist):
		f.mu.Lock()
		f.unread = append(f.unread, id)
		f.mu.Unlock()
	}
}

// reload reads what could not be read before.
func (f *queueFiles) reload() map[string]*queueRecord {
	f.mu.Lock()
	ids := f.unread
	f.unread = nil
	f.mu.Unlock()
	return f.loadAll(ids)
}

// toRead says whether there is something that could not be read.
func (f *queueFiles) toRead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.unread) > 0
}

// takeDamaged gives the IDs of what was set aside, once.
func (f *queueFiles) takeDamaged() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids := f.damaged
	f.damaged = nil
	return ids
}

// setAside keeps what cannot be read under a name that is not looked at.
func (f *queueFiles) setAside(id string) {
	f.mu.Lock()
	f.damaged = append(f.damaged, id)
	f.mu.Unlock()
	renameFile(f.path(id, queueState), f.path(id, queueState+".damaged"))
	renameFile(f.path(id, queueMessage), f.path(id, queueMessage+".damaged"))
}
