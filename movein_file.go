package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// What is known of somebody's moving in lies in DATA/movein/ID: job.json, with the password until it is over, and a journal
// for each folder over there (collect_seen.go).

// MoveState is how far a move has come.
type MoveState string

const (
	MoveRunning MoveState = "running" // or it waits for the next try
	MoveDone    MoveState = "done"
	MoveStopped MoveState = "stopped" // by somebody
	MoveFailed  MoveState = "failed"  // only people can mend it
)

// MoveJob is one person's moving in from an account elsewhere.
type MoveJob struct {
	Account  string        `json:"account"`
	Server   OutsideServer `json:"server"`
	Password string        `json:"password,omitempty"` // in the file alone, and until it is over
	State    MoveState     `json:"state"`
	Reason   string        `json:"reason,omitempty"` // why it does not go on, a sentence
	Began    time.Time     `json:"began"`
	Ended    time.Time     `json:"ended,omitzero"`
	Next     time.Time     `json:"next,omitzero"` // of the next try
	Folders  []MoveFolder  `json:"folders,omitempty"`
}

// MoveFolder is a folder over there.
type MoveFolder struct {
	Name     string `json:"name"`  // over there
	Local    string `json:"local"` // here
	All      bool   `json:"all,omitempty"`
	Total    int    `json:"total"`            // messages, as counted at the beginning
	Copied   int    `json:"copied"`           // that are here now
	Here     int    `json:"here,omitempty"`   // that were here before
	Left     int    `json:"left,omitempty"`   // that could not be taken
	Complete bool   `json:"complete"`         // all is dealt with
	Reason   string `json:"reason,omitempty"` // why the folder could not be opened
}

// done is how many messages are dealt with.
func (f *MoveFolder) done() int { return f.Copied + f.Here + f.Left }

// Counts sums the folders up; of is never less than done.
func (j *MoveJob) Counts() (done, of, copied int) {
	for i := range j.Folders {
		f := &j.Folders[i]
		done += f.done()
		of += max(f.Total, f.done())
		copied += f.Copied
	}
	return done, of, copied
}

// Percent is how much is done, 100 only at the end.
func (j *MoveJob) Percent() int {
	done, of, _ := j.Counts()
	switch {
	case j.State == MoveDone:
		return 100
	case of == 0:
		return 0
	}
	return min(99, done*100/of)
}

const moveJobFile = "job.json"

// moveDir is where a person's move is kept.
func (m *Mover) moveDir(account string) string {
	sum := sha256.Sum256([]byte(account))
	return filepath.Join(m.cfg.Dir, hex.EncodeToString(sum[:8]))
}

// journal is where a folder's journal is kept.
func (m *Mover) journal(account, folder string) string {
	sum := sha256.Sum256([]byte(folder))
	return filepath.Join(m.moveDir(account), hex.EncodeToString(sum[:8])+seenSuffix)
}

// load reads a person's move; nil for none.
func (m *Mover) load(account string) (*MoveJob, error) {
	return readMoveJob(filepath.Join(m.moveDir(account), moveJobFile))
}

func readMoveJob(file string) (*MoveJob, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	job := &MoveJob{}
	if err == nil {
		err = json.Unmarshal(text, job)
	}
	if err != nil {
		return nil, fmt.Errorf("reading how far a move has come (%s): %w", file, err)
	}
	job.Server.Password = job.Password
	return job, nil
}

// loadAll reads all moves. One that cannot be read is said in the log.
func (m *Mover) loadAll() (jobs []*MoveJob) {
	dirs, err := os.ReadDir(m.cfg.Dir)
	if err != nil {
		return nil // nobody has moved in
	}
	for _, dir := range dirs {
		job, err := readMoveJob(filepath.Join(m.cfg.Dir, dir.Name(), moveJobFile))
		if err != nil {
			m.cfg.Log.Error("a move cannot go on", "err", err)
		}
		if job != nil {
			jobs = append(jobs, job)
		}
	}
	return jobs
}

// save puts a move on disk. What is over keeps neither password nor journals.
func (m *Mover) save(job *MoveJob) error {
	dir := m.moveDir(job.Account)
	kept := *job
	if kept.Password = job.Server.Password; job.State == MoveDone || job.State == MoveStopped {
		kept.Password, job.Server.Password = "", ""
	}
	err := makeDirs(dir)
	if err == nil {
		err = writeJSON(filepath.Join(dir, moveJobFile), &kept)
	}
	if err == nil && kept.Password == "" {
		err = m.dropJournals(dir)
	}
	if err != nil {
		return diskError(fmt.Errorf("writing how far a move has come: %w", err))
	}
	return nil
}

// dropJournals deletes what told which messages have been copied.
func (m *Mover) dropJournals(dir string) error {
	journals, err := filepath.Glob(filepath.Join(dir, "*"+seenSuffix))
	for _, file := range journals {
		err = errors.Join(err, os.Remove(file))
	}
	return err
}
