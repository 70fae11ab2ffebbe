package main

// Which mailboxes a command is about, where there may be many: filter-mailboxes of NOTIFY (RFC 5465 §6) and ESEARCH
// (RFC 7377 §2.2).

import (
	"fmt"
	"slices"
	"strings"
)

// filterMaxNames is how many mailboxes one filter may name.
const filterMaxNames = 500

// filterKind is a kind of filter.
type filterKind uint8

const (
	filterSelected   filterKind = iota
	filterDelayed               // as filterSelected, in NOTIFY only
	filterPersonal              // the user's own
	filterSubscribed            // those that are subscribed
	filterSubtree               // some mailboxes and all below them
	filterSubtreeOne            // some mailboxes and their children, in ESEARCH only
	filterMailboxes             // some mailboxes
)

// filterKinds are the filters by name. RFC 5465 §6.3: mail may be delivered into any mailbox, by other programs too, so
// that all are inboxes.
var filterKinds = map[string]filterKind{
	"SELECTED": filterSelected, "SELECTED-DELAYED": filterDelayed, "PERSONAL": filterPersonal, "INBOXES": filterPersonal,
	"SUBSCRIBED": filterSubscribed, "SUBTREE": filterSubtree, "SUBTREE-ONE": filterSubtreeOne, "MAILBOXES": filterMailboxes,
}

// mailboxFilter is one filter.
type mailboxFilter struct {
	kind  filterKind
	names []string // of the last three kinds, as the store has them
}

// selected says whether the filter is about the selected mailbox, whichever that is.
func (f *mailboxFilter) selected() bool { return f.kind <= filterDelayed }

// has says whether the filter is about a mailbox, which may be other people's. None of those is a personal one.
func (f *mailboxFilter) has(name string, other, subscribed bool) bool {
	switch f.kind {
	case filterPersonal:
		return !other
	case filterSubscribed:
		return subscribed
	case filterMailboxes:
		return slices.Contains(f.names, name)
	}
	return slices.ContainsFunc(f.names, func(top string) bool {
		rest, below := name, true
		if top != "" { // "" is above all
			if rest, below = strings.CutPrefix(name, top); rest == "" {
				return below
			}
			if below = below && rest[0] == '/'; below {
				rest = rest[1:]
			}
		}
		return below && (f.kind == filterSubtree || f.kind == filterSubtreeOne && !strings.Contains(rest, "/"))
	})
}

// mailboxFilter takes a filter; other is the kind that the command does not have.
func (s *imapSession) mailboxFilter(cmd *imapCommand, other filterKind) (f mailboxFilter, err error) {
	kind, ok := filterKinds[cmd.keyword()]
	if !ok || kind == other {
		return f, cmd.expected("which mailboxes before this: selected, personal, subscribed, subtree, mailboxes …")
	}
	f.kind = kind
	if kind < filterSubtree {
		return f, nil
	}
	if err := cmd.sp(); err != nil {
		return f, err
	}
	one := func() error {
		if len(f.names) == filterMaxNames {
			return imapNo("LIMIT", fmt.Sprintf("%d mailboxes can be named at once", filterMaxNames))
		}
		raw, err := cmd.astring()
		if err != nil {
			return err
		}
		name, err := s.mailboxName(raw)
		f.names = append(f.names, strings.TrimSuffix(name, "/"))
		return err
	}
	if cmd.peek() != '(' {
		return f, one()
	}
	if err = cmd.list(one); err == nil && len(f.names) == 0 {
		err = imapBad("The list of mailboxes is empty")
	}
	return f, err
}

// filtered gives the mailboxes that the user sees and that one of the filters is about, by name, INBOX first, those of other
// people behind his own.
func (s *imapSession) filtered(filters []mailboxFilter) ([]visibleFolder, error) {
	folders, subs, err := s.folders()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(folders, func(folder visibleFolder) bool {
		_, subscribed := slices.BinarySearch(subs, folder.Name)
		return !slices.ContainsFunc(filters, func(f mailboxFilter) bool { return f.has(folder.Name, folder.other, subscribed) })
	}), nil
}
