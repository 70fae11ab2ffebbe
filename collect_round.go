package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/emersion/go-imap/v2"
)

// How much one session takes before it lets others go on. What was fetched by POP3 is deleted over there at the end of a
// session only; if that breaks, so much is read again to be sure that it is the same.
const (
	popSessionMessages  = 100
	popSessionBytes     = 64 << 20
	imapSessionMessages = 200
	imapDeleteAtOnce    = 50
)

// collectRound is one look into one account.
type collectRound struct {
	c       *Collector
	job     *collectJob
	source  CollectSource
	seen    *seenList
	anyway  bool // also what could not be had so often
	holds   bool // a slot
	fetched int
}

// run looks into the account; more says that there is more to fetch.
func (r *collectRound) run(ctx context.Context) (more bool, err error) {
	if !r.c.cfg.Accounts.Exists(r.source.Account) {
		return false, errAccountGone
	}
	if r.source.Protocol == protocolPOP3 {
		return r.open(ctx, func() (bool, error) { return r.pop3(ctx) })
	}
	return r.imap(ctx)
}

// open opens the journal for one look, mends what a crash has cut off, and notes what came of it.
func (r *collectRound) open(ctx context.Context, look func() (more bool, err error)) (more bool, err error) {
	if err := makeDirs(r.c.cfg.Dir); err != nil {
		return false, diskError(err)
	}
	if r.seen, err = openSeen(filepath.Join(r.c.cfg.Dir, r.source.id()+seenSuffix)); err != nil {
		return false, err
	}
	defer func() {
		r.seen.close()
		r.seen = nil
	}()
	r.fetched = 0
	if err = r.recover(); err == nil {
		more, err = look()
	}
	if errors.Is(err, errReconnect) {
		more, err = true, nil
	}
	err = errors.Join(err, r.seen.sync())
	if err == nil {
		err = r.seen.tidy()
	}
	if ctx.Err() == nil {
		r.count()
	}
	return more, err
}

// recover finds out what became of a delivery that a crash has cut off.
func (r *collectRound) recover() error {
	p := r.seen.pending
	if p == nil {
		return nil
	}
	drop, err := r.c.cfg.Store.Maildrop(r.source.Account)
	if err != nil {
		return err
	}
	defer drop.Release()
	held, err := drop.Holds(p.stored, p.hash)
	switch {
	case err != nil:
		return err
	case held:
		return r.seen.set(p.key, seenMessage{state: seenDone, size: p.size, sum: p.sum})
	}
	return r.seen.drop()
}

// count notes what was fetched and what stays over there.
func (r *collectRound) count() {
	large, failed, stay := 0, 0, 0
	for _, m := range r.seen.messages {
		switch {
		case m.state == seenLarge:
			large++
		case m.state == seenFailed:
			failed++
		case m.state == seenAgain:
			stay++
		}
	}
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	status := &r.job.status
	status.Fetched += int64(r.fetched)
	r.job.unsaved = r.job.unsaved || r.fetched > 0 // that is not worth two fsyncs a message
	if status.Large != large || status.Failed != failed || status.Stay != stay {
		status.Large, status.Failed, status.Stay = large, failed, stay
		r.c.writeStatus(r.source.id(), status)
	}
}

// wanted says whether a message that is known is to be fetched all the same.
func (r *collectRound) wanted(m seenMessage, size int64) bool {
	switch m.state {
	case seenLarge:
		return max(size, m.size) <= r.c.cfg.MaxSize // more is allowed now
	case seenFailed:
		return r.anyway || m.tries < maxSeenTries
	case seenAgain:
		return size != m.size
	}
	// By POP3 another message may have the number of one that is gone. Its size tells; and before anything is deleted over
	// there, all of it is compared.
	return !r.source.Keep || size != m.size
}

// popMessage is a message of a POP3 session.
type popMessage struct {
	collectMessage
	number int
	known  bool // done in an earlier session
	before seenSum
	late   bool // it failed before: the others come first
}

// pop3 is one session by POP3.
func (r *collectRound) pop3(ctx context.Context) (more bool, err error) {
	session, err := r.c.cfg.Dialer.openPOP3(ctx, &r.source.OutsideServer)
	if err != nil {
		return false, err
	}
	session.max = r.c.cfg.MaxSize
	defer session.Close()
	return r.popSession(ctx, session)
}

func (r *collectRound) popSession(ctx context.Context, session outsideMaildrop) (more bool, err error) {
	list, err := session.List()
	if err != nil {
		return false, err
	}
	if r.source.Keep && len(list) >= maxSeen {
		return false, &outsideError{faultSetup, fmt.Sprintf("the mailbox at %s holds %d messages or more: by POP3 it cannot be collected with --keep; take imap, or leave --keep away", r.source.Host, maxSeen), nil}
	}
	wanted, err := r.popPlan(list)
	if err != nil {
		return false, err
	}
	var here []popMessage
	bytes := int64(0)
	for i, m := range wanted {
		if i > 0 && (i >= popSessionMessages || bytes+m.size > popSessionBytes) {
			more = true
			break
		}
		bytes += max(m.size, 0)
		safe, err := r.take(ctx, m.collectMessage, func() (io.Reader, error) { return session.Retrieve(m.number) })
		if err != nil {
			return false, err
		}
		if safe {
			here = append(here, m)
		}
	}
	if !more {
		if err := r.seen.dropFormer(); err != nil {
			return false, err
		}
	}
	return more || len(list) >= maxSeen && len(here) > 0, r.popEnd(session, here)
}

// popPlan gives the messages to fetch, and forgets those that are not over there any more.
func (r *collectRound) popPlan(list []pop3Entry) (wanted []popMessage, err error) {
	listed, times := map[string]bool{}, map[string]int{}
	messages := make([]popMessage, len(list))
	known := 0
	for i, entry := range list {
		times[entry.UIDL]++
		m := popMessage{number: entry.Number}
		m.key, m.base, m.size = keyOfUIDL(entry.UIDL, times[entry.UIDL]), keyOfUIDL(entry.UIDL, 1), entry.Size
		messages[i] = m
		listed[m.key] = true
		if _, ok := r.seen.messages[m.key]; ok {
			known++
		}
	}
	if r.source.Keep && known == 0 && len(list) > 0 && len(r.seen.messages) > 0 {
		// Nothing of what was there is there, but other messages are: the provider has numbered them anew.
		if err := r.seen.renumber(0); err != nil {
			return nil, err
		}
	}
	if len(list) < maxSeen {
		for key := range r.seen.messages {
			if !listed[key] {
				if err := r.seen.forget(key); err != nil {
					return nil, err
				}
			}
		}
	}
	for _, m := range messages {
		seen, ok := r.seen.messages[m.key]
		switch {
		case !ok && m.size > r.c.cfg.MaxSize:
			err = r.seen.set(m.key, seenMessage{state: seenLarge, size: m.size})
		case !ok || r.wanted(seen, m.size):
			m.known, m.before, m.late = ok && seen.state == seenDone, seen.sum, ok && seen.state == seenFailed
			wanted = append(wanted, m)
		}
		if err != nil {
			return nil, err
		}
	}
	sortStableFunc(wanted, func(a, b popMessage) int {
		switch {
		case a.late == b.late:
			return 0
		case a.late:
			return 1
		}
		return -1
	})
	return wanted, nil
}

// popEnd deletes over there what is here, and ends the session.
func (r *collectRound) popEnd(session outsideMaildrop, here []popMessage) error {
	if err := r.seen.sync(); err != nil {
		return err
	}
	if r.source.Keep {
		_ = session.Quit() // nothing depends on it
		return nil
	}
	var numbers []int
	for _, m := range here {
		numbers = append(numbers, m.number)
	}
	if err := session.Delete(numbers); err != nil {
		return err
	}
	if err := session.Quit(); err != nil {
		return err
	}
	for _, m := range here {
		seen := r.seen.messages[m.key]
		if m.known && m.before == seen.sum { // it was deleted before, and came again
			seen.state = seenAgain
			if err := r.seen.set(m.key, seen); err != nil {
				return err
			}
		}
	}
	return nil
}

// imap is one session by IMAP. It goes on for as long as the server tells of news by itself and there is room to wait.
func (r *collectRound) imap(ctx context.Context) (more bool, err error) {
	s, err := r.c.cfg.Dialer.openIMAP(ctx, &r.source.OutsideServer)
	if err != nil {
		return false, err
	}
	defer s.close()
	s.max = r.c.cfg.MaxSize
	validity, err := s.enter(inboxName, r.source.Keep)
	if err != nil {
		return false, err
	}
	for {
		more, err := r.open(ctx, func() (bool, error) { return r.imapLook(ctx, s, validity) })
		if err != nil || more || !s.idles() || ctx.Err() != nil || !r.waits() {
			return more, err
		}
		err = s.wait(ctx, r.job.poke, imapIdleRenew)
		if !r.goOn(ctx) || err != nil {
			return false, nil // connections end: the next look tells whether something is wrong
		}
	}
}

// waits gives the slot back for as long as the session waits for news, if it may.
func (r *collectRound) waits() bool {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idling >= collectIdle {
		return false
	}
	c.idling++
	c.worked(&r.source, &r.job.status)
	r.job.status.Waiting = true
	<-c.slot
	r.holds = false
	c.hurry()
	return true
}

// goOn takes a slot again; false when there is no time for that any more.
func (r *collectRound) goOn(ctx context.Context) bool {
	c := r.c
	c.mu.Lock()
	c.idling--
	r.job.status.Waiting = false
	r.anyway, r.job.anyway = r.job.anyway, false
	c.mu.Unlock()
	select {
	case c.slot <- struct{}{}:
		r.holds = true
		return true
	case <-ctx.Done():
		return false
	}
}

// imapLook fetches what is new in a mailbox that is open.
func (r *collectRound) imapLook(ctx context.Context, s *outsideIMAP, validity uint32) (more bool, err error) {
	if r.seen.validity != validity {
		if err := r.seen.renumber(validity); err != nil {
			return false, err
		}
	}
	if err := r.imapDelete(s); err != nil { // what a crash has left
		return false, err
	}
	again := r.imapAgain()
	uids, err := s.above(r.seen.last)
	if err != nil {
		return false, err
	}
	more = len(uids) > imapSessionMessages
	uids = append(uids[:min(len(uids), imapSessionMessages)], again...) // what failed before comes last
	for some := range slices.Chunk(uids, imapDeleteAtOnce) {
		if err := r.imapSome(ctx, s, some); err != nil {
			return false, err
		}
	}
	if !more {
		err = r.seen.dropFormer()
	}
	return more, errors.Join(err, r.seen.trim())
}

// imapAgain gives the messages that are to be tried again.
func (r *collectRound) imapAgain() (uids []imap.UID) {
	for key, m := range r.seen.messages {
		uid, err := strconv.ParseUint(key, 10, 32)
		if err == nil && m.state != seenDone && r.wanted(m, m.size) {
			uids = append(uids, imap.UID(uid))
		}
	}
	slices.Sort(uids)
	return uids
}

// imapSome fetches some messages and deletes them over there.
func (r *collectRound) imapSome(ctx context.Context, s *outsideIMAP, uids []imap.UID) error {
	facts, err := s.facts(uids)
	if err != nil {
		return err
	}
	at := map[imap.UID]imapFacts{}
	for _, f := range facts {
		at[f.UID] = f
	}
	for _, uid := range uids {
		if err := r.imapOne(ctx, s, uid, at); err != nil {
			return err
		}
	}
	return r.imapDelete(s)
}

// imapOne fetches one message. What its owner has marked as deleted is not fetched, and left for its owner to expunge.
func (r *collectRound) imapOne(ctx context.Context, s *outsideIMAP, uid imap.UID, at map[imap.UID]imapFacts) error {
	f, there := at[uid]
	key := strconv.FormatUint(uint64(uid), 10)
	if !there || slices.Contains(f.Flags, imap.FlagDeleted) {
		if _, known := r.seen.messages[key]; known {
			return r.seen.forget(key)
		}
		return r.seen.setLast(uint32(uid))
	}
	if f.Size > r.c.cfg.MaxSize {
		return r.seen.set(key, seenMessage{state: seenLarge, size: f.Size})
	}
	m := collectMessage{key: key, size: f.Size, date: f.Date}
	for _, flag := range f.Flags { // what was read over there is read
		switch flag {
		case imap.FlagSeen, imap.FlagAnswered, imap.FlagFlagged:
			m.flags = append(m.flags, flag)
		}
	}
	_, err := r.take(ctx, m, func() (io.Reader, error) { return s.fetch(uid) })
	return err
}

// imapDelete deletes over there what is here, unless it is to be kept.
func (r *collectRound) imapDelete(s *outsideIMAP) error {
	if r.source.Keep {
		return nil
	}
	var uids []imap.UID
	for key, m := range r.seen.messages {
		if uid, err := strconv.ParseUint(key, 10, 32); err == nil && m.state == seenDone {
			uids = append(uids, imap.UID(uid))
		}
	}
	if len(uids) == 0 {
		return nil
	}
	if err := r.seen.sync(); err != nil {
		return err
	}
	slices.Sort(uids)
	for some := range slices.Chunk(uids, imapFactsAtOnce) {
		gone, err := s.remove(some)
		if err != nil {
			return err
		}
		if !gone {
			continue
		}
		for _, uid := range some {
			if err := r.seen.forget(strconv.FormatUint(uint64(uid), 10)); err != nil {
				return err
			}
		}
	}
	return nil
}
