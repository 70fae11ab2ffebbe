package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"
)

// When somebody has logged in last lies in DATA/logins.json. It is written rarely, to spare SD cards, and lost after a power cut as
// far as it is younger.

const (
	loginsEvery   = 10 * time.Minute // between two writes
	maxLoginsFile = 4 << 20          // bytes
)

// LastLogins is when an account has logged in last.
type LastLogins struct {
	Protocols map[string]time.Time `json:"protocols,omitempty"` // by protocol: "imap", "smtp", "pop3", "web"
	Apps      map[string]time.Time `json:"apps,omitempty"`      // by the name of the app password
}

// loginTimes is what the file holds. Safe for concurrent use.
type loginTimes struct {
	file string // "": it is not kept
	log  *slog.Logger

	mu     sync.Mutex
	people map[string]*LastLogins // by account
	timer  *time.Timer            // nil: all is written
}

// openLoginTimes reads the file. One that cannot be read is as none.
func openLoginTimes(file string, log *slog.Logger) *loginTimes {
	l := &loginTimes{file: file, log: log, people: map[string]*LastLogins{}}
	if file == "" {
		return l
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return l
	}
	if err == nil && len(text) > maxLoginsFile {
		err = errors.New("it is too long")
	}
	if err == nil {
		err = json.Unmarshal(text, &l.people)
	}
	if err != nil || l.people == nil {
		log.Warn("when people have logged in last cannot be read, and begins anew", "file", file, "err", err)
		l.people = map[string]*LastLogins{}
	}
	return l
}

// note keeps a login.
func (l *loginTimes) note(id Identity, protocol string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.people[id.Account]
	if p == nil {
		p = &LastLogins{}
		l.people[id.Account] = p
	}
	if p.Protocols == nil {
		p.Protocols = map[string]time.Time{}
	}
	p.Protocols[protocol] = now
	if id.Via != "" {
		if p.Apps == nil {
			p.Apps = map[string]time.Time{}
		}
		p.Apps[id.Via] = now
	}
	l.changed()
}

// changed has the file written in a while. The lock is held.
func (l *loginTimes) changed() {
	if l.file != "" && l.timer == nil {
		l.timer = time.AfterFunc(loginsEvery, l.save)
	}
}

// save writes the file, if it is not as it should be.
func (l *loginTimes) save() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil {
		return
	}
	l.timer.Stop()
	l.timer = nil
	text, err := json.Marshal(l.people)
	if err == nil {
		err = writeFileAtomic(l.file, append(text, '\n'))
	}
	if err != nil {
		l.log.Warn("when people have logged in last could not be written", "err", fmt.Errorf("writing %s: %w", l.file, err))
	}
}

// move keeps what is known of an account under another address, and forgets it under this one; "" forgets it.
func (l *loginTimes) move(account, to string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.people[account]
	if p == nil {
		return
	}
	delete(l.people, account)
	if to != "" {
		l.people[to] = p
	}
	l.changed()
}

// forgetApp forgets when an app password was used: another one may get its name.
func (l *loginTimes) forgetApp(account, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.people[account]; p != nil {
		delete(p.Apps, name)
		l.changed()
	}
}

// of gives what is known of an account.
func (l *loginTimes) of(account string) LastLogins {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.people[account]
	if p == nil {
		return LastLogins{}
	}
	return LastLogins{maps.Clone(p.Protocols), maps.Clone(p.Apps)}
}

// LoggedIn keeps that somebody has logged in just now.
func (a *Accounts) LoggedIn(id Identity, protocol string) {
	a.logins.note(id, protocol, a.today())
}

// LastLogins gives when an account has logged in last.
func (a *Accounts) LastLogins(account string) LastLogins { return a.logins.of(account) }

// Close writes what is only written now and then.
func (a *Accounts) Close() { a.logins.save() }
