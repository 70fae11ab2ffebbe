package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
)

// The mailbox Outbox shows each sender what of their mail waits, and why: outbox_message.go writes the messages that lie in
// it. A message that is moved to Drafts or Trash (or a folder below, or one with that special use), or deleted, is not sent; one
// that is flagged is tried now. Moving or copying it anywhere else is refused: whoever clears up would not know whether it still
// goes out, and a client without MOVE copies and deletes. Nor does anybody put messages into it, which would look as if they went
// out. A file that another program takes away is as good as deleted.

const (
	outboxName   = "Outbox"
	outboxField  = "X-Queue-ID"
	outboxRenew  = time.Hour // between two forms of the same message
	outboxMost   = 200       // messages that are shown to one person
	outboxHeader = 8 << 10   // octets in which outboxField is looked for
)

// outboxes keeps the Outbox of each sender in step with the queue. One goroutine does it all; it sleeps until the queue or
// a mailbox changes.
type outboxes struct {
	queue    *Queue
	accounts *Accounts
	store    *Store
	hostname string
	log      *slog.Logger
	now      func() time.Time

	wake  chan struct{}
	boxes map[string]*outbox // by account, those with something to show

	mu      sync.Mutex
	changes map[string]QueueEntry // by ID; without recipients: it waits no more
	looks   map[string]bool       // accounts whose mailboxes have changed
}

// outbox is one sender's.
type outbox struct {
	all     *outboxes
	account string
	drop    *Maildrop
	watch   *MailboxWatch
	shown   map[string]*outboxEntry // by ID
	drafts  map[string]imap.UID     // by folder for drafts: what came there before is not looked at
}

// outboxEntry is a message that is shown.
type outboxEntry struct {
	uid     imap.UID
	words   string // of the text, with the reasons and times
	written time.Time
}

// changed is QueueConfig.Changed.
func (o *outboxes) changed(e QueueEntry, gone bool) {
	if e.Account == "" {
		return
	}
	if gone {
		e.Recipients = nil
	}
	o.mu.Lock()
	o.changes[e.ID] = e
	o.mu.Unlock()
	o.nudge()
}

// look asks for a look at the mailboxes of an account.
func (o *outboxes) look(account string) {
	o.mu.Lock()
	o.looks[account] = true
	o.mu.Unlock()
	o.nudge()
}

func (o *outboxes) nudge() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// run keeps the mailboxes in step until ctx ends.
func (o *outboxes) run(ctx context.Context) {
	o.begin()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-o.wake:
			o.step()
		}
	}
	for _, b := range o.boxes {
		b.close()
	}
}

// begin takes over what the last run has left in the mailboxes, and shows what waits.
func (o *outboxes) begin() {
	for _, user := range o.accounts.Users() {
		dir, _, err := o.store.accountDir(user.Address)
		if err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "."+outboxName)); err != nil {
			continue
		}
		if b := o.open(user.Address); b != nil {
			b.inStep(b.adopt())
		}
	}
	some := map[string]int{}
	o.queue.Each(func(e *QueueEntry) {
		if some[e.Account]++; some[e.Account] <= outboxMost {
			o.changed(*e, false)
		}
	})
}

// step does what has come up.
func (o *outboxes) step() {
	o.mu.Lock()
	changes, looks := o.changes, o.looks
	o.changes, o.looks = map[string]QueueEntry{}, map[string]bool{}
	o.mu.Unlock()
	for account := range looks { // what people want comes before what is shown anew
		if b := o.boxes[account]; b != nil {
			b.inStep(b.obey())
		}
	}
	for _, id := range slices.Sorted(maps.Keys(changes)) {
		e := changes[id]
		if b := o.open(e.Account); b != nil {
			b.inStep(b.show(&e))
		}
	}
	for account, b := range o.boxes {
		if len(b.shown) == 0 {
			b.close()
			delete(o.boxes, account)
		}
	}
}

// open gives the outbox of an account, nil when there is no such account or no way to its mail.
func (o *outboxes) open(account string) *outbox {
	if b := o.boxes[account]; b != nil {
		return b
	}
	if !o.accounts.Exists(account) {
		return nil
	}
	drop, err := o.store.Maildrop(account)
	if err != nil {
		o.log.Warn("an Outbox cannot be opened", "account", account, "error", err)
		return nil
	}
	b := &outbox{all: o, account: account, drop: drop, shown: map[string]*outboxEntry{}}
	o.boxes[account] = b
	return b
}

func (b *outbox) close() {
	if b.watch != nil {
		b.watch.Close()
	}
	b.drop.Release()
}

// inStep says what went wrong. Mail is sent whether it is shown or not.
func (b *outbox) inStep(err error) {
	switch {
	case err == nil:
	case errors.Is(err, ErrClosed): // the account was removed
		b.shown = map[string]*outboxEntry{}
	default:
		b.all.log.Warn("an Outbox is not in step with the queue", "account", b.account, "error", err)
	}
}

// folder opens the mailbox, made if make says so, and listens for what happens in it.
func (b *outbox) folder(make bool) (*Folder, error) {
	f, err := b.drop.Open(outboxName)
	if errors.Is(err, ErrNoFolder) && make {
		if err := b.drop.CreateFolder(outboxName, nil); err != nil && !errors.Is(err, ErrExists) {
			return nil, err
		}
		if err := b.drop.Subscribe(outboxName, true); err != nil {
			return nil, err
		}
		f, err = b.drop.Open(outboxName)
	}
	if err != nil {
		return nil, err
	}
	if err := b.listen(); err != nil {
		f.Release()
		return nil, err
	}
	return f, nil
}

// listen begins to watch the mailbox, once.
func (b *outbox) listen() error {
	if b.watch == nil {
		watch, err := b.drop.Watch(func() { b.all.look(b.account) })
		if err != nil {
			return err
		}
		b.watch = watch
		if b.drafts, err = b.nextDrafts(); err != nil {
			return err
		}
	}
	boxes, err := b.drop.Folders()
	if err != nil {
		return err
	}
	b.watch.Follow(slices.DeleteFunc(boxes, func(info FolderInfo) bool { return info.Name != outboxName }))
	return nil
}

// eachDrafts opens the folders for drafts, one after the other.
func (b *outbox) eachDrafts(do func(name string, drafts *Folder, st Status)) error {
	names, err := b.drop.FoldersBelow(imap.MailboxAttrDrafts)
	if err != nil {
		return err
	}
	for _, name := range names {
		drafts, err := b.drop.Open(name)
		if errors.Is(err, ErrNoFolder) { // deleted this moment
			continue
		}
		if err != nil {
			return err
		}
		st, err := drafts.Status(false)
		if err == nil {
			do(name, drafts, st)
		}
		drafts.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// nextDrafts gives the UIDs that the next messages in the folders for drafts will have.
func (b *outbox) nextDrafts() (map[string]imap.UID, error) {
	next := map[string]imap.UID{}
	err := b.eachDrafts(func(name string, _ *Folder, st Status) { next[name] = st.UIDNext })
	return next, err
}

// mayTransfer is asked by the store before messages are copied or moved, or, with no from, added.
func (o *outboxes) mayTransfer(from, to *Folder, uids []imap.UID) error {
	if from == nil || from.Name() != outboxName {
		if to.Name() == outboxName {
			return ErrNotSentFrom
		}
		return nil
	}
	if use := to.UseAbove(); from.Account() == to.Account() && (use == imap.MailboxAttrDrafts || use == imap.MailboxAttrTrash) {
		return nil
	}
	for _, uid := range uids {
		if id := queueIDOf(from, uid); id != "" {
			if e, err := o.queue.Entry(id); err == nil && e.Account == from.Account() {
				return ErrWaiting
			}
		}
	}
	return nil
}

// adopt finds the messages that the last run has left, and removes those about mail that waits no more.
func (b *outbox) adopt() error {
	f, err := b.folder(false)
	if err != nil {
		return err
	}
	defer f.Release()
	if _, err := f.Status(false); err != nil {
		return err
	}
	var stale []imap.UID
	for _, uid := range f.allUIDs() {
		id := queueIDOf(f, uid)
		if id == "" {
			continue
		}
		if _, err := b.all.queue.Entry(id); err != nil || b.shown[id] != nil {
			stale = append(stale, uid)
			continue
		}
		msgs, err := f.Messages(nil, []imap.UID{uid}, true)
		if err != nil {
			return err
		}
		if len(msgs) == 1 {
			b.shown[id] = &outboxEntry{uid: uid, written: time.Unix(msgs[0].Date, 0)}
		}
	}
	return expungeSome(f, stale)
}

// expungeSome removes messages, if there are any.
func expungeSome(f *Folder, uids []imap.UID) error {
	if len(uids) == 0 {
		return nil
	}
	_, _, err := f.Expunge(uids, false)
	return err
}

// show brings one message of the mailbox in step with the queue.
func (b *outbox) show(e *QueueEntry) error {
	old := b.shown[e.ID]
	words := waitingWords(e, b.all.now())
	switch {
	case words == "": // it waits no more, or was not tried yet
		if old == nil || len(e.Recipients) > 0 {
			return nil
		}
		delete(b.shown, e.ID)
		return b.remove(old.uid)
	case old == nil && len(b.shown) >= outboxMost:
		return nil
	case old != nil && (old.words == words || b.all.now().Sub(old.written) < outboxRenew):
		return nil
	}
	f, err := b.folder(true)
	if err != nil {
		return err
	}
	defer f.Release()
	if old != nil && !f.Has(old.uid) { // its sender has just taken it out: see obey
		return nil
	}
	uid, err := b.write(f, e, words)
	if errors.Is(err, ErrNotQueued) || errors.Is(err, ErrOverQuota) || errors.Is(err, ErrAboveQuota) {
		return nil // it was sent just now, or there is no room to show it
	}
	if err != nil {
		return err
	}
	b.shown[e.ID] = &outboxEntry{uid: uid, words: words, written: b.all.now()}
	if old != nil {
		return expungeSome(f, []imap.UID{old.uid})
	}
	return nil
}

// remove takes a message out of the mailbox.
func (b *outbox) remove(uid imap.UID) error {
	f, err := b.folder(false)
	if errors.Is(err, ErrNoFolder) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Release()
	return expungeSome(f, []imap.UID{uid})
}

// write puts a message into the mailbox.
func (b *outbox) write(f *Folder, e *QueueEntry, words string) (imap.UID, error) {
	message, err := b.all.queue.Open(e.ID)
	if err != nil {
		return 0, err
	}
	defer message.Close()
	in, err := b.drop.Receive()
	if err != nil {
		return 0, err
	}
	defer in.Discard()
	if err := writeWaiting(in, b.all.hostname, e, words, message, b.all.now()); err != nil {
		return 0, err
	}
	uids, err := f.Append([]AppendMessage{{In: in, Flags: []imap.Flag{imap.FlagSeen}}})
	if err != nil {
		return 0, err
	}
	return uids[0], nil
}

// obey does what the sender has asked for by what was done to the messages.
func (b *outbox) obey() error {
	if b.watch.Take(nil).Closed {
		return ErrClosed
	}
	f, err := b.drop.Open(outboxName)
	if errors.Is(err, ErrNoFolder) {
		b.shown = map[string]*outboxEntry{} // renamed or deleted as a whole: that says nothing of a message
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Release()
	if _, err := f.Status(false); err != nil {
		return err
	}
	var gone []string
	for id, entry := range b.shown {
		msgs, err := f.Messages(nil, []imap.UID{entry.uid}, false)
		switch {
		case err != nil:
			return err
		case len(msgs) == 0 || msgs[0].Flags&FlagDeleted != 0:
			gone = append(gone, id)
		case msgs[0].Flags&FlagFlagged != 0:
			if err := b.hurry(f, id, entry.uid); err != nil {
				return err
			}
		}
	}
	return b.takeBack(gone)
}

// hurry tries a message now, and clears the flag that has asked for it.
func (b *outbox) hurry(f *Folder, id string, uid imap.UID) error {
	if err := b.all.queue.Retry(id); err != nil && !errors.Is(err, ErrNotQueued) {
		return err
	}
	_, _, _, err := f.SetFlags([]imap.UID{uid}, FlagsRemove, []imap.Flag{imap.FlagFlagged}, NoUnchangedSince)
	return err
}

// takeBack cancels what was taken out of the mailbox. What lies in Drafts now becomes a draft again, before the queue
// forgets it.
func (b *outbox) takeBack(ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	moved, err := b.movedToDrafts()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if at, draft := moved[id]; draft {
			if err := b.makeDraft(id, at); err != nil {
				return err
			}
		}
		delete(b.shown, id)
		if err := b.all.queue.Cancel(id); err != nil && !errors.Is(err, ErrNotQueued) {
			return err
		}
	}
	return nil
}

// draftPlace is where a message lies that was moved to a folder for drafts.
type draftPlace struct {
	folder string
	uid    imap.UID
}

// movedToDrafts gives the messages of the Outbox that came into folders for drafts since the first look, by their IDs in the queue.
func (b *outbox) movedToDrafts() (map[string]draftPlace, error) {
	moved := map[string]draftPlace{}
	err := b.eachDrafts(func(name string, drafts *Folder, _ Status) {
		for _, uid := range drafts.allUIDs() {
			if uid < b.drafts[name] {
				continue
			}
			if id := queueIDOf(drafts, uid); b.shown[id] != nil {
				moved[id] = draftPlace{name, uid}
			}
		}
	})
	return moved, err
}

// makeDraft puts the message itself where it was moved to, in place of the one that told of it.
func (b *outbox) makeDraft(id string, at draftPlace) error {
	e, err := b.all.queue.Entry(id)
	if errors.Is(err, ErrNotQueued) { // too late: it was sent
		return nil
	}
	message, err := b.all.queue.Open(id)
	if errors.Is(err, ErrNotQueued) {
		return nil
	}
	if err != nil {
		return err
	}
	defer message.Close()
	drafts, err := b.drop.Open(at.folder)
	if err != nil {
		return err
	}
	defer drafts.Release()
	in, err := b.drop.Receive()
	if err != nil {
		return err
	}
	defer in.Discard()
	if err := writeDraft(in, &e, message); err != nil {
		return err
	}
	add := AppendMessage{In: in, Flags: []imap.Flag{imap.FlagDraft, imap.FlagSeen}, Replaces: Quota{message.Size, 1}}
	if _, err := drafts.Append([]AppendMessage{add}); err != nil {
		return err
	}
	return expungeSome(drafts, []imap.UID{at.uid})
}
