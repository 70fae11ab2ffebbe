package main

// What NOTIFY watches: the user's own maildrop, and those of the people who let him see some mailbox, as far as a filter may be
// about them. RFC 5465 §8: nothing is told of a mailbox that the user has no right to look up, and nothing of what is in it
// without the right to read.

import (
	"errors"
	"strings"
	"sync/atomic"
)

// notifyMaxOwners is how many other people's maildrops one session watches.
const notifyMaxOwners = 100

// notifyWatch watches one maildrop.
type notifyWatch struct {
	*MailboxWatch
	drop   *Maildrop
	other  bool   // it is somebody else's, and held
	prefix string // before its own names in those that the client knows
}

// close ends the watch.
func (w *notifyWatch) close() {
	w.Close()
	if w.other {
		w.drop.Release()
	}
}

// toClient gives an event with the maildrop's own names as the client knows them; false when it is not for the client: others'
// subscriptions, and what others annotate for themselves.
func (w *notifyWatch) toClient(s *imapSession, e MailboxEvent) (MailboxEvent, bool) {
	if e.Owner != "" {
		e.Name = s.prefixOf(e.Owner) + e.Name
	}
	if !w.other {
		return e, true
	}
	if e.Kind == SubscriptionChanged || e.Kind == MetadataChanged && !strings.HasPrefix(e.Entries, sharedPrefix) {
		return e, false
	}
	e.Name = w.prefix + e.Name
	if e.OldName != "" {
		e.OldName = w.prefix + e.OldName
	}
	return e, true
}

// grantsNotice notes that access lists have changed.
type grantsNotice struct {
	changed atomic.Bool
	stop    func()
}

// watchAll begins to watch what the groups are about.
func (s *imapSession) watchAll(n *notifier) error {
	own, err := s.drop.Watch(s.idle.changed)
	if err != nil {
		return err
	}
	n.watches = []*notifyWatch{{MailboxWatch: own, drop: s.drop}}
	n.grants = new(grantsNotice)
	n.grants.stop = s.p.Store.WatchGrants(func() {
		n.grants.changed.Store(true)
		s.idle.changed()
	})
	if _, err = s.follow(n); err != nil {
		n.close()
	}
	return err
}

// close ends all watches.
func (n *notifier) close() {
	if n.grants != nil {
		n.grants.stop()
	}
	for _, w := range n.watches {
		w.close()
	}
	n.watches, n.grants = nil, nil
}

// watchOf gives the watch of an account's maildrop, nil for none.
func (n *notifier) watchOf(account string) *notifyWatch {
	if n != nil {
		for _, w := range n.watches {
			if w.drop.Account() == account {
				return w
			}
		}
	}
	return nil
}

// errNotifyOverflow is the reply to a wish for too much (RFC 5465 §5.8).
var errNotifyOverflow = imapNo("NOTIFICATIONOVERFLOW", "There are too many mailboxes to follow")

// watchOwners watches the maildrops of those whose mailboxes the user sees, and no others. It says whether one was added.
func (s *imapSession) watchOwners(n *notifier, folders []visibleFolder) (added bool, err error) {
	wanted := map[string]bool{s.drop.Account(): true}
	for i := range folders {
		if folders[i].other && n.beyondOwn() {
			wanted[folders[i].account] = true
		}
	}
	if len(wanted)-1 > notifyMaxOwners {
		return false, errNotifyOverflow
	}
	kept := n.watches[:0:0]
	for _, w := range n.watches {
		if account := w.drop.Account(); wanted[account] {
			kept = append(kept, w)
			delete(wanted, account)
		} else {
			w.close()
		}
	}
	n.watches = kept
	for account := range wanted {
		w, err := s.watchOther(account)
		switch {
		case errors.Is(err, ErrClosed): // the account has just gone
		case err != nil:
			return false, err
		default:
			n.watches, added = append(n.watches, w), true
		}
	}
	return added, nil
}

// watchOther watches somebody else's maildrop.
func (s *imapSession) watchOther(account string) (*notifyWatch, error) {
	drop, err := s.p.Store.Maildrop(account)
	if err != nil {
		return nil, err
	}
	watch, err := drop.Watch(s.idle.changed)
	if err != nil {
		drop.Release()
		return nil, err
	}
	return &notifyWatch{watch, drop, true, s.prefixOf(account)}, nil
}

// beyondOwn says whether some group may be about other people's mailboxes.
func (n *notifier) beyondOwn() bool {
	for i := range n.groups {
		if n.groups[i].filter.kind != filterPersonal {
			return true
		}
	}
	return false
}

// takeNews collects what the watches have, by the names that the client knows. Closed is about the user's own maildrop; that of
// somebody else is no longer watched.
func (s *imapSession) takeNews(n *notifier) (all MailboxNews) {
	all.Changed = map[string]MailboxChange{}
	kept := n.watches[:0:0]
	for _, w := range n.watches {
		var selected *Folder
		if s.view != nil && s.view.Folder().drop == w.drop {
			selected = s.view.Folder()
		}
		news := w.Take(selected)
		if news.Closed && w.other {
			w.close()
			n.stale = true
			continue
		}
		kept = append(kept, w)
		all.Lost, all.Closed = all.Lost || news.Lost, all.Closed || news.Closed
		for name, change := range news.Changed { // they are followed by the client's names
			all.Changed[name] = change
		}
		for _, e := range news.Events {
			if e, ok := w.toClient(s, e); ok {
				all.Events = append(all.Events, e)
			}
		}
	}
	n.watches = kept
	return all
}

// caused says that the session has made an event itself, where p leads: it is not told of it (RFC 5465 §5).
func (s *imapSession) caused(p place, e MailboxEvent) { s.causedIn(p.drop.Account(), e) }

// causedIn is caused for the maildrop of an account.
func (s *imapSession) causedIn(account string, e MailboxEvent) {
	n := s.notify
	w := n.watchOf(account)
	if w == nil {
		return
	}
	w.TakeBack(e)
	if e, ok := w.toClient(s, e); ok {
		n.apply(e)
		n.stale = true
	}
}

// apply brings what the client knows in step with an event: it goes with a mailbox, and follows one to its new name with those
// below it.
func (n *notifier) apply(e MailboxEvent) {
	switch e.Kind {
	case MailboxCreated:
		n.known[e.Name] = true
	case MailboxDeleted:
		delete(n.told, e.Name)
		delete(n.known, e.Name)
	case MailboxRenamed:
		renameKeys(n.told, e.OldName, e.Name)
		renameKeys(n.known, e.OldName, e.Name)
	}
}

// renameKeys gives what is kept of a mailbox, and of those below it, its new name.
func renameKeys[V any](m map[string]V, from, to string) {
	moved := map[string]V{}
	for name, value := range m {
		if rest, ok := strings.CutPrefix(name, from); ok && (rest == "" || rest[0] == '/') {
			moved[to+rest] = value
			delete(m, name)
		}
	}
	for name, value := range moved {
		m[name] = value
	}
}

// unseenEvents gives events for what has come into the user's sight and gone out of it without one: rights were given or taken
// away. noAccess are the names of mailboxes that are still there.
func (s *imapSession) unseenEvents(n *notifier, nodes map[string]*treeNode) (events []MailboxEvent, noAccess []string) {
	for name, node := range nodes {
		if node.exists && !n.known[name] {
			events = append(events, MailboxEvent{Kind: MailboxCreated, Name: name})
		}
	}
	for name := range n.known {
		if node := nodes[name]; node != nil && node.exists {
			continue
		}
		if s.isThere(name) {
			noAccess = append(noAccess, name)
		} else {
			events = append(events, MailboxEvent{Kind: MailboxDeleted, Name: name})
		}
	}
	return events, noAccess
}

// isThere says whether a mailbox exists that the user has seen and sees no longer.
func (s *imapSession) isThere(name string) bool {
	account, inner, other := s.splitOther(name)
	drop := s.drop
	if other {
		w := s.notify.watchOf(account)
		if w == nil {
			return false
		}
		drop = w.drop
	}
	_, err := drop.Rights(inner, s.who())
	return err == nil
}
