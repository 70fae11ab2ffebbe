package main

// NOTIFY, RFC 5465: the client says of what it wants to be told, in the selected mailbox and in others, and is told while
// no command runs as well. imap_idle.go pushes; imap_notice.go tells.

import (
	"errors"
	"maps"
	"slices"
	"strings"
)

const (
	notifyMaxGroups    = 100 // of one NOTIFY
	notifyMaxMailboxes = 500 // whose messages one session follows
)

// notifyEvents is a set of events (RFC 5465 §5).
type notifyEvents uint8

const (
	eventMessageNew notifyEvents = 1 << iota
	eventMessageExpunge
	eventFlagChange
	eventMailboxName
	eventSubscription
	eventMailboxMetadata
	eventServerMetadata

	messageEvents = eventMessageNew | eventMessageExpunge | eventFlagChange
)

// notifyNames are the events that are known, in the order in which BADEVENT lists them.
var notifyNames = [...]struct {
	name  string
	event notifyEvents
}{
	{"MessageNew", eventMessageNew}, {"MessageExpunge", eventMessageExpunge}, {"FlagChange", eventFlagChange},
	{"MailboxName", eventMailboxName}, {"SubscriptionChange", eventSubscription},
	{"MailboxMetadataChange", eventMailboxMetadata}, {"ServerMetadataChange", eventServerMetadata},
}

// errBadEvent is the reply to an event that is not known (RFC 5465 §3.1).
func errBadEvent() error {
	var names []string
	for _, known := range notifyNames {
		names = append(names, known.name)
	}
	return imapNo("BADEVENT ("+strings.Join(names, " ")+")", "Only these events are known")
}

// eventGroup is what a client wants to know of some mailboxes.
type eventGroup struct {
	filter mailboxFilter
	events notifyEvents
}

// notifier is what NOTIFY has set. Without any events it is NOTIFY NONE.
type notifier struct {
	selected  notifyEvents  // of the selected mailbox
	immediate bool          // SELECTED and not SELECTED-DELAYED: expunges are told at any time
	fetch     *fetchRequest // what is told of new messages in it; nil: only that there are some

	groups  []eventGroup    // of other mailboxes
	watches []*notifyWatch  // the user's own maildrop's first; none without groups
	grants  *grantsNotice   // nil without groups
	stale   bool            // the list of mailboxes may be another one since it was followed
	known   map[string]bool // the mailboxes that exist for the client
	boxes   map[string]notifyEvents
	told    map[string]Status // the last state that the client was told of a mailbox, where it was
}

// setNotify is NOTIFY. RFC 5465 §3.1: what has happened up to now is told, as NOOP would; what was not asked for until now
// comes with the updates that follow the command.
func (s *imapSession) setNotify(cmd *imapCommand) error {
	n, status, err := s.parseNotify(cmd)
	if err != nil {
		return err
	}
	if len(n.groups) > 0 {
		if err := s.watchAll(n); err != nil {
			return err
		}
	}
	s.update(s.wantsMessages())
	if s.notify != nil {
		n.inherit(s.notify.told)
	}
	s.endNotify()
	s.notify = n
	s.holdView()
	if status {
		s.tellAll()
	}
	return nil
}

// inherit takes over what the client was told before.
func (n *notifier) inherit(told map[string]Status) {
	for name := range n.boxes {
		if st, ok := told[name]; ok {
			n.told[name] = st
		}
	}
}

// endNotify goes back to what is without NOTIFY.
func (s *imapSession) endNotify() {
	if s.notify != nil {
		s.notify.close()
	}
	s.notify, s.appendedUIDs, s.lateNotices = nil, nil, nil
	s.holdView()
}

// holdView lets the view of the selected mailbox hold back what the client does not want to know.
func (s *imapSession) holdView() {
	if s.view != nil {
		s.view.Hold(!s.wantsMessages(), !s.wantsFlags())
	}
}

// wantsMessages says whether the client wants to know of messages that come to the selected mailbox and leave it.
func (s *imapSession) wantsMessages() bool {
	return s.notify == nil || s.notify.selected&eventMessageNew != 0
}

// wantsFlags says whether it wants to know of flags that others change.
func (s *imapSession) wantsFlags() bool {
	return s.notify == nil || s.notify.selected&eventFlagChange != 0
}

// pushes says whether the client is told of changes between commands, and whether of expunged messages (RFC 5465 §6.1).
func (s *imapSession) pushes() (push, expunge bool) {
	n := s.notify
	if n == nil {
		return false, false
	}
	return n.selected != 0 || len(n.watches) > 0, n.immediate && n.selected&eventMessageExpunge != 0
}

// parseNotify parses the arguments (RFC 5465 §8).
func (s *imapSession) parseNotify(cmd *imapCommand) (n *notifier, status bool, err error) {
	if err := cmd.sp(); err != nil {
		return nil, false, err
	}
	n = &notifier{boxes: map[string]notifyEvents{}, told: map[string]Status{}}
	switch cmd.keyword() {
	case "NONE":
		return n, false, cmd.end()
	case "SET":
	default:
		return nil, false, cmd.expected("SET or NONE before this")
	}
	if err := cmd.sp(); err != nil {
		return nil, false, err
	}
	if cmd.peek() != '(' {
		if status = cmd.keyword() == "STATUS"; !status {
			return nil, false, cmd.expected("STATUS or a list before this")
		}
		if err := cmd.sp(); err != nil {
			return nil, false, err
		}
	}
	err = s.parseGroups(cmd, n)
	return n, status, err
}

// parseGroups parses the event groups. Of what is wrong with them, an event that is not known is said last, for the rest
// is for the client to mend first.
func (s *imapSession) parseGroups(cmd *imapCommand, n *notifier) error {
	var unknown error
	for selected, groups := false, 0; ; {
		if groups++; groups > notifyMaxGroups {
			return imapNo("NOTIFICATIONOVERFLOW", "There are too many groups of events")
		}
		g, fetch, err := s.parseGroup(cmd)
		switch {
		case errors.Is(err, errEvent):
			unknown = errBadEvent()
		case err != nil:
			return err
		case g.filter.selected() && selected:
			return imapBad("There may be one group for the selected mailbox")
		case g.filter.selected():
			selected = true
			n.selected, n.immediate, n.fetch = g.events, g.filter.kind == filterSelected, fetch
		case g.events != 0:
			n.groups = append(n.groups, g)
		}
		if cmd.atEnd() {
			return unknown
		}
		if err := cmd.sp(); err != nil {
			return err
		}
	}
}

// errEvent says that a group is all right but for an event that is not known.
var errEvent = errors.New("unknown event")

// parseGroup parses one group: which mailboxes, and which events.
func (s *imapSession) parseGroup(cmd *imapCommand) (g eventGroup, fetch *fetchRequest, err error) {
	if err = cmd.expect('('); err != nil {
		return g, nil, err
	}
	if g.filter, err = s.mailboxFilter(cmd, filterSubtreeOne); err != nil {
		return g, nil, err
	}
	if err = cmd.sp(); err != nil {
		return g, nil, err
	}
	known := true
	if cmd.peek() == '(' {
		g.events, fetch, known, err = cmd.notifyEvents()
	} else if cmd.keyword() != "NONE" {
		err = cmd.expected("a list of events or NONE before this")
	}
	if err == nil {
		err = cmd.expect(')')
	}
	switch both := eventMessageNew | eventMessageExpunge; {
	case err != nil:
	case g.filter.selected() && g.events&^messageEvents != 0:
		err = imapBad("Of the selected mailbox itself there are only events of messages")
	case !g.filter.selected() && fetch != nil:
		err = imapBad("Items of new messages are for the selected mailbox")
	case !known:
		err = errEvent
	case g.events&messageEvents != 0 && g.events&both != both: // RFC 5465 §5
		err = imapBad("MessageNew and MessageExpunge go together, and FlagChange with both")
	}
	return g, fetch, err
}

// notifyEvents takes a list of events; known is false when it has some that are not.
func (c *imapCommand) notifyEvents() (events notifyEvents, fetch *fetchRequest, known bool, err error) {
	known = true
	some := false
	err = c.list(func() error {
		some = true
		name, err := c.atom()
		if err != nil {
			return err
		}
		event := notifyEvents(0)
		for _, n := range notifyNames {
			if strings.EqualFold(name, n.name) {
				event = n.event
			}
		}
		events, known = events|event, known && event != 0
		if event == eventMessageNew {
			fetch, err = c.noticeItems()
		}
		return err
	})
	if err == nil && !some {
		err = imapBad("The list of events is empty")
	}
	return events, fetch, known, err
}

// follow finds the mailboxes that the groups are about and follows those whose messages count. It gives the ones that
// were not among them before.
func (s *imapSession) follow(n *notifier) (entered []string, err error) {
	var folders []visibleFolder
	var subs []string
	for added := true; added; { // what comes to a maildrop before it is watched is not missed
		if folders, subs, err = s.folders(); err != nil {
			return nil, err
		}
		if added, err = s.watchOwners(n, folders); err != nil {
			return nil, err
		}
	}
	boxes, followed := map[string]notifyEvents{}, map[string][]FolderInfo{}
	for i := range folders {
		f := &folders[i]
		_, subscribed := slices.BinarySearch(subs, f.Name)
		events := n.eventsOf(f.Name, f.other, subscribed) & messageEvents
		if events == 0 || f.rights&needNotify != needNotify {
			continue
		}
		boxes[f.Name] = events
		followed[f.account] = append(followed[f.account], f.FolderInfo)
		if _, before := n.boxes[f.Name]; !before {
			entered = append(entered, f.Name)
		}
	}
	if len(boxes) > notifyMaxMailboxes {
		return nil, errNotifyOverflow
	}
	if n.known == nil {
		n.known = make(map[string]bool, len(folders))
		for i := range folders {
			n.known[folders[i].Name] = true
		}
	}
	maps.DeleteFunc(n.told, func(name string, _ Status) bool { return boxes[name] == 0 })
	n.boxes, n.stale = boxes, false
	for _, w := range n.watches {
		w.Follow(followed[w.drop.Account()])
	}
	return entered, nil
}

// eventsOf gives the events of a mailbox that are asked for.
func (n *notifier) eventsOf(name string, other, subscribed bool) (events notifyEvents) {
	for i := range n.groups {
		if g := &n.groups[i]; g.filter.has(name, other, subscribed) {
			events |= g.events
		}
	}
	return events
}
