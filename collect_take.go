package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// collectMessage is a message over there.
type collectMessage struct {
	key   string // in the journal
	base  string // of the keys that may be the same message, "": key
	size  int64  // as the server tells it, -1: it does not
	date  time.Time
	flags []imap.Flag
}

// collectHeader is how many bytes of a header are read for the date in it.
const collectHeader = 64 << 10

var (
	// errReconnect says that a message broke off on our side: the session is of no use any more, and nothing is wrong.
	errReconnect = errors.New("the session ends within a message")
	// errAccountGone says that the account here was removed meanwhile.
	errAccountGone = errors.New("the account here is removed")
)

// take fetches one message and delivers it; here says that it is safe, now or since an earlier look. Trouble with the
// message alone is noted and no error. When the error is not nil the session cannot go on.
func (r *collectRound) take(ctx context.Context, m collectMessage, open func() (io.Reader, error)) (here bool, err error) {
	body, err := open()
	switch {
	case errors.Is(err, errNoMessage):
		return false, r.failed(m)
	case errors.Is(err, errTooLarge):
		return false, r.tooLarge(m)
	case err != nil:
		return false, err
	}
	drop, err := r.c.cfg.Store.Maildrop(r.source.Account)
	if err != nil {
		return false, err
	}
	defer drop.Release()
	in, err := drop.Receive()
	if err != nil {
		return false, err
	}
	defer func() { in.Discard() }()
	raw := sha256.New()
	source := &messageReader{r: io.TeeReader(body, raw), left: r.c.cfg.MaxSize}
	err = r.copy(in, source)
	switch {
	case errors.Is(source.err, errTooLarge):
		return false, r.tooLarge(m)
	case errors.Is(source.err, errNoMessage):
		return false, r.failed(m)
	case source.err != nil && source.err != io.EOF:
		if ctx.Err() == nil {
			err = r.failed(m)
		}
		return false, errors.Join(netTrouble(&r.source.OutsideServer, source.err), err)
	case err != nil:
		return false, err
	case in.Size() == 0 && m.size > 0:
		return false, r.failed(m)
	}
	sum := sumOf(raw.Sum(nil))
	if r.known(m, sum) {
		return true, r.seen.set(m.key, seenMessage{state: seenDone, size: m.size, sum: sum})
	}
	target := Delivery{Account: r.source.Account, Folder: r.source.folder(), Flags: m.flags}
	if in, err = r.judge(ctx, drop, in, &target); err != nil {
		return false, err
	}
	return r.deliver(ctx, m, sum, in, target)
}

// copy writes a message as it is kept: as it came, but for the claim that we have verified it.
func (r *collectRound) copy(in *Incoming, source io.Reader) error {
	buffered := bufio.NewReaderSize(source, copySize)
	h := &headerCopier{host: r.c.cfg.Hostname}
	if err := h.run(in, buffered); err != nil {
		return err
	}
	if err := h.runOn(in, buffered); err != nil {
		return err
	}
	_, err := io.Copy(in, buffered)
	return err
}

// known says whether a message was fetched before: under the same number, or under one of another UIDVALIDITY.
func (r *collectRound) known(m collectMessage, sum seenSum) bool {
	base := m.base
	if base == "" {
		base = m.key
	}
	for n := 1; ; n++ {
		key := base
		if n > 1 {
			key = fmt.Sprintf("%s#%d", base, n)
		}
		seen, ok := r.seen.messages[key]
		if !ok && n > 1 {
			break
		}
		if ok && seen.sum == sum && (seen.state == seenDone || seen.state == seenAgain) {
			return true
		}
	}
	return r.seen.takeFormer(sum)
}

// failed notes that a message could not be had.
func (r *collectRound) failed(m collectMessage) error {
	seen := r.seen.messages[m.key]
	if seen.state == seenDone || seen.state == seenAgain {
		return nil // it is here; it was only looked at again
	}
	return r.seen.set(m.key, seenMessage{state: seenFailed, size: m.size, tries: seen.tries + 1})
}

// tooLarge notes that a message is larger than it was said to be. What is left of it is not waited for.
func (r *collectRound) tooLarge(m collectMessage) error {
	err := r.seen.set(m.key, seenMessage{state: seenLarge, size: max(m.size, r.c.cfg.MaxSize+1)})
	return errors.Join(err, errReconnect)
}

// judge has a message judged, and gives it with what the judge puts in front. A judge that fails holds nothing up.
func (r *collectRound) judge(ctx context.Context, drop *Maildrop, in *Incoming, target *Delivery) (*Incoming, error) {
	if r.c.cfg.Judge == nil {
		return in, nil
	}
	verdict, err := r.c.cfg.Judge(ctx, r.source.Account, in, in.Size())
	if err != nil {
		r.c.cfg.Log.Error("a collected message could not be judged", "account", r.source.Account, "err", err)
		return in, nil
	}
	switch folder := verdict.FolderFor(r.source.Account); {
	case folder != "":
		target.Folder = folder
	case verdict.Refuse != "" && !verdict.Later:
		target.Folder = junkName
	}
	return applyVerdict(drop.Receive, in, &verdict, 0)
}

// deliver puts a message into the maildrop, with the journal before and after it.
func (r *collectRound) deliver(ctx context.Context, m collectMessage, sum seenSum, in *Incoming, target Delivery) (here bool, err error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(in, 0, in.Size())); err != nil {
		return false, err
	}
	date := m.date
	if date.IsZero() {
		date = receivedDate(in)
	}
	if now := r.c.cfg.Now(); date.IsZero() || date.After(now) || date.Year() < 1980 {
		date = now
	}
	if err := in.finish(date); err != nil {
		return false, diskError(err)
	}
	if !r.c.cfg.Accounts.Exists(target.Account) {
		return false, errAccountGone
	}
	if err := r.seen.begin(pendingDelivery{key: m.key, size: m.size, sum: sum, stored: in.Size(), hash: [32]byte(hash.Sum(nil))}); err != nil {
		return false, err
	}
	size := in.Size()
	if err := r.c.cfg.Store.Deliver(ctx, in, []Delivery{target}); err != nil {
		err = errors.Join(err, r.seen.drop())
		if errors.Is(err, ErrAboveQuota) { // it would fail each time, after all of it was fetched
			return false, r.seen.set(m.key, seenMessage{state: seenFailed, size: m.size, tries: maxSeenTries})
		}
		return false, err
	}
	r.fetched++
	r.c.cfg.Log.Info("delivered", "collected", r.source.Host, "to", target.Account, "folder", target.Folder, "junk", junkOf([]Delivery{target}), "size", size)
	return true, r.seen.set(m.key, seenMessage{state: seenDone, size: m.size, sum: sum})
}

// receivedDate is when a message came to the provider, as its topmost Received field has it; zero if that does not tell.
// POP3 has no other date of it, and an old account that is collected shall not look as if all its mail had come today.
func receivedDate(in *Incoming) time.Time {
	header, err := readHeader(bufio.NewReader(io.NewSectionReader(in, 0, in.Size())), collectHeader)
	if err != nil && !errors.Is(err, errHeaderTooLong) {
		return time.Time{}
	}
	for _, f := range splitHeader(header) {
		if !strings.EqualFold(f.Name, "Received") {
			continue
		}
		text := string(unfold(f.Raw))
		date, err := mail.ParseDate(strings.TrimSpace(text[strings.LastIndexByte(text, ';')+1:]))
		if err != nil {
			return time.Time{}
		}
		return date
	}
	return time.Time{}
}

// collectWordsMost is how many characters such a sentence has at most.
const collectWordsMost = 1000

// collectWords is an error as one sentence for the person whose mail it is.
func collectWords(s *CollectSource, err error) string {
	switch {
	case errors.Is(err, ErrOverQuota):
		return fmt.Sprintf("the mailbox of %s is full: delete something there, or raise its quota", s.Account)
	case errors.Is(err, ErrDiskFull):
		return "the disk of this server is full: make room on it"
	case errors.Is(err, errAccountGone):
		return fmt.Sprintf("%s has no account here any more: take it out with `appliance collect remove`", s.Account)
	}
	return strings.TrimSuffix(foreignWords(err.Error(), collectWordsMost), ".")
}
