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
	"sync"
	"time"
)

const (
	awayGap     = 7 * 24 * time.Hour // between two answers to the same sender (RFC 3834 §2)
	awaySenders = 1000               // that one person answers within awayGap
	awayMaxFile = 1 << 20            // bytes
)

// errAwayFull says that a person has answered awaySenders within the week.
var errAwayFull = fmt.Errorf("%d senders were answered within a week already", awaySenders)

// AwayMemory is who was answered for whom, and when: DATA/away/ID.json, a file a person, written before the answer goes out, so
// that nobody is answered twice after a crash. Safe for concurrent use.
type AwayMemory struct {
	dir string

	mu     sync.Mutex
	people map[string]map[string]time.Time // by account, the senders as Address.Key has them
}

// NewAwayMemory gives the memory in a folder, which is made when it is needed.
func NewAwayMemory(dir string) *AwayMemory {
	return &AwayMemory{dir: dir, people: map[string]map[string]time.Time{}}
}

func (m *AwayMemory) path(account string) string {
	sum := sha256.Sum256([]byte(account))
	return filepath.Join(m.dir, hex.EncodeToString(sum[:8])+".json")
}

// take says whether a sender is to be answered now, and then remembers it. errAwayFull where there are too many.
func (m *AwayMemory) take(account, sender string, now time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	senders, err := m.of(account)
	if err != nil {
		return false, err
	}
	for key, at := range senders {
		switch {
		case at.After(now): // the clock was wrong
			senders[key] = now
		case now.Sub(at) >= awayGap:
			delete(senders, key)
		}
	}
	if _, told := senders[sender]; told {
		return false, nil
	}
	if len(senders) >= awaySenders {
		return false, errAwayFull
	}
	senders[sender] = now.UTC().Truncate(time.Second)
	if err := m.write(account, senders); err != nil {
		delete(senders, sender)
		return false, err
	}
	return true, nil
}

// of gives the senders that were answered for a person. The lock is held.
func (m *AwayMemory) of(account string) (map[string]time.Time, error) {
	if senders := m.people[account]; senders != nil {
		return senders, nil
	}
	senders := map[string]time.Time{}
	text, err := os.ReadFile(m.path(account))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err == nil && len(text) > awayMaxFile:
		err = errors.New("it is too long")
	case err == nil:
		err = json.Unmarshal(text, &senders)
	}
	if err != nil {
		return nil, fmt.Errorf("reading who was answered (delete %s, and they may be answered again): %w", m.path(account), err)
	}
	if senders == nil {
		senders = map[string]time.Time{}
	}
	m.people[account] = senders
	return senders, nil
}

func (m *AwayMemory) write(account string, senders map[string]time.Time) error {
	text, err := json.Marshal(senders)
	if err == nil {
		err = makeDirs(m.dir)
	}
	if err == nil {
		err = writeFileAtomic(m.path(account), append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("noting who was answered: %w", err)
	}
	return nil
}

// Rename lets a person, who has another address from now on, not answer everybody again.
func (m *AwayMemory) Rename(account, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.people, account)
	delete(m.people, to)
	if err := os.Rename(m.path(account), m.path(to)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keeping who was answered: %w", err)
	}
	return nil
}

// Forget forgets who was answered for a person who has no account any more.
func (m *AwayMemory) Forget(account string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.people, account)
	if err := os.Remove(m.path(account)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting who was answered: %w", err)
	}
	return nil
}
