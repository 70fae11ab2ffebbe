package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// An account that gets another address takes its mail with it. Until both the mail and the account have the new one, a file tells
// what is under way, so that the next start finishes what a power cut broke off.

const (
	renamingName = ".renaming" // in the folder of all mail
	renamedKeep  = time.Hour   // for which nothing is put under the old address: whoever has asked for it before asks again
)

// renaming is what the file holds.
type renaming struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// errRenamed says that mail was on its way to an address that has just become an alias.
var errRenamed = errors.New("the account has got another address just now")

// Rename moves the mail of an account to the address that it gets, and calls commit, by which it gets it; meanwhile nobody opens
// either. On an error all is as it was. Sessions that are open get errors from then on.
func (s *Store) Rename(account, to string, commit func() error) error {
	dir, index, err := s.accountDir(account)
	if err != nil {
		return err
	}
	newDir, newIndex, err := s.accountDir(to)
	if err != nil {
		return err
	}
	s.renames.Lock()
	defer s.renames.Unlock()
	if _, err := os.Lstat(newDir); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is mail of an earlier %s in %s; move that away first", to, newDir)
	}
	defer s.closeDrop(account)()
	defer s.closeDrop(to)()
	mark := filepath.Join(s.mailDir, renamingName)
	text, err := json.Marshal(renaming{account, to})
	if err == nil {
		err = writeFileAtomic(mark, text)
	}
	if err == nil {
		err = moveMail(dir, newDir)
	}
	if err == nil {
		if err = commit(); err != nil {
			err = errors.Join(err, moveMail(newDir, dir))
		}
	}
	if err != nil {
		return errors.Join(err, removeMark(mark))
	}
	s.access.forget(dir)
	if os.MkdirAll(filepath.Dir(newIndex), 0o700) != nil || renameFile(index, newIndex) != nil {
		removeFile(index) // it grows back
	}
	s.mu.Lock()
	s.renamed[account] = s.now()
	delete(s.renamed, to)
	s.mu.Unlock()
	return removeMark(mark)
}

// closeDrop closes an account's maildrop, and lets nobody open it until done is called.
func (s *Store) closeDrop(account string) (done func()) {
	s.mu.Lock()
	d, before := s.drops[account], s.leaving[account]
	done = s.leave(account)
	delete(s.usages, account)
	s.mu.Unlock()
	if before != nil {
		<-before
	}
	if d != nil {
		if err := d.shut(); err != nil {
			d.log.Warn("closing the maildrop", "error", err)
		}
	}
	return done
}

// moveMail renames the folder of a maildrop, durably. There may be none yet.
func moveMail(from, to string) error {
	if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := os.MkdirAll(filepath.Dir(to), 0o700)
	if err == nil {
		err = renameFile(from, to)
	}
	for _, dir := range []string{filepath.Dir(to), filepath.Dir(from), filepath.Dir(filepath.Dir(to))} {
		if err == nil {
			err = syncDir(dir)
		}
	}
	if err != nil {
		return fmt.Errorf("moving the mail: %w", err)
	}
	return nil
}

func removeMark(mark string) error {
	if err := removeFile(mark); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("moving the mail: %w", err)
	}
	return nil
}

// FinishRename finishes what a power cut broke off: the mail goes to the address that the account has. It is called before anybody
// else uses the store.
func (s *Store) FinishRename(exists func(account string) bool) error {
	mark := filepath.Join(s.mailDir, renamingName)
	text, err := os.ReadFile(mark)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var r renaming
	if err != nil || json.Unmarshal(text, &r) != nil {
		return removeMark(mark)
	}
	if !exists(r.To) {
		r.From, r.To = r.To, r.From
	}
	from, _, err := s.accountDir(r.From)
	if err != nil {
		return removeMark(mark)
	}
	to, _, err := s.accountDir(r.To)
	if err != nil {
		return removeMark(mark)
	}
	if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
		if err := moveMail(from, to); err != nil {
			return err
		}
		s.log.Info("the mail of a renamed account has its new place", "from", r.From, "to", r.To)
	}
	return removeMark(mark)
}

// Admit lets mail be put under an address again that an account had before it was renamed: another one has it now.
func (s *Store) Admit(account string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.renamed, account)
}

// refuses says whether nothing is put under an address because its account has just got another one. The lock is held.
func (s *Store) refuses(account string) bool {
	at, ok := s.renamed[account]
	if ok && s.now().Sub(at) >= renamedKeep {
		delete(s.renamed, account)
		return false
	}
	return ok
}
