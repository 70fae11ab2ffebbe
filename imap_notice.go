package main

// What a client is told under NOTIFY: STATUS and LIST responses of mailboxes that it has not selected (RFC 5465 §5), and
// FETCH responses of new messages in the selected one, there under the UPDATE of a search as well (§5.2, §7).

import (
	"maps"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// tellAll tells the state of all mailboxes that are followed, but for the selected one (RFC 5465 §3.1).
func (s *imapSession) tellAll() {
	selected := s.selectedName()
	for _, name := range slices.SortedFunc(maps.Keys(s.notify.boxes), compareFolders) {
		if name != selected {
			s.tellStatus(name, 0, true)
		}
	}
}

// selectedName is the name of the selected mailbox, "" without one.
func (s *imapSession) selectedName() string {
	if s.view == nil {
		return ""
	}
	return s.nameOf(s.view.Folder())
}

// tellNotices tells what has happened outside the selected mailbox.
func (s *imapSession) tellNotices() {
	n := s.notify
	if n == nil || len(n.watches) == 0 {
		return
	}
	n.stale = n.grants.changed.Swap(false) || n.stale
	news := s.takeNews(n)
	switch {
	case news.Closed:
		s.done, s.bye = true, "The account is no longer available"
		return
	case news.Lost:
		s.overflow("Too much has happened")
		return
	case (len(news.Events) > 0 || n.stale) && !s.tellEvents(news.Events):
		return
	}
	for _, name := range slices.SortedFunc(maps.Keys(news.Changed), compareFolders) {
		s.tellStatus(name, news.Changed[name], false)
	}
	if n.stale { // a mailbox that is followed is not for the client any more
		s.tellEvents(nil)
	}
}

// overflow ends all notifications (RFC 5465 §5.8).
func (s *imapSession) overflow(why string) {
	s.line("* OK [NOTIFICATIONOVERFLOW] " + why + ", there are no notifications any more")
	s.endNotify()
	s.notify = &notifier{}
	s.holdView()
}

// tellStatus tells the state of a mailbox, if the client wants to know of what has changed and does not know it. Without
// anything changed it is told in any case.
func (s *imapSession) tellStatus(name string, changed MailboxChange, first bool) {
	n := s.notify
	events := n.boxes[name]
	if !first && !events.covers(changed) {
		return
	}
	folder, err := s.open(name, needNotify)
	if err != nil { // it has gone, or is not for the client
		n.stale = true
		return
	}
	defer folder.Release()
	st, err := folder.Status(false)
	if err != nil {
		return
	}
	told, known := n.told[name]
	n.told[name] = st
	empty := !known && st.UIDNext == 1 // nothing has ever been in it
	if !first && (empty || known && !s.isNews(&told, &st, events)) {
		return
	}
	items := statusItems{"MESSAGES", "UIDNEXT", "UIDVALIDITY", "UNSEEN"}
	if s.condstore || first && events&eventFlagChange != 0 {
		items = append(items, "HIGHESTMODSEQ")
	}
	if err := s.writeStatus(folder, name, &st, items); err != nil {
		s.c.Log.Error("cannot tell the status of a mailbox", "error", err)
	}
}

// covers says whether a client that wants to know of the events may want to know of a change.
func (e notifyEvents) covers(c MailboxChange) bool {
	return e&eventMessageNew != 0 && c&(MessagesNew|MessagesGone) != 0 || e&eventFlagChange != 0 && c&FlagsChanged != 0
}

// isNews says whether the state of a mailbox is another one for the client.
func (s *imapSession) isNews(told, now *Status, events notifyEvents) bool {
	switch {
	case told.Messages != now.Messages, told.UIDNext != now.UIDNext, told.UIDValidity != now.UIDValidity:
		return true
	case events&eventFlagChange == 0:
		return false
	}
	return told.Unseen != now.Unseen || s.condstore && told.HighestModSeq != now.HighestModSeq
}

// tellEvents tells what has happened to mailboxes as a whole, as they are now, and follows those that are there now; false
// when that are too many.
func (s *imapSession) tellEvents(events []MailboxEvent) bool {
	n := s.notify
	tree, err := s.folderTree()
	if err != nil {
		s.c.Log.Error("cannot list the mailboxes", "error", err)
		return true
	}
	nodes := make(map[string]*treeNode, len(tree))
	for _, node := range tree {
		nodes[node.name] = node
	}
	written := map[[2]string]bool{}
	for _, e := range events {
		s.tellEvent(e, nodes, written)
	}
	more, noAccess := s.unseenEvents(n, nodes)
	sortFunc(more, func(a, b MailboxEvent) int { return compareFolders(a.Name, b.Name) })
	for _, e := range more {
		s.tellEvent(e, nodes, written)
	}
	before := n.boxes
	entered, err := s.follow(n)
	if err != nil {
		s.overflow("There are too many mailboxes to follow")
		return false
	}
	s.tellNoAccess(noAccess, before, nodes)
	for _, name := range entered { // what came to them before they were followed
		if name != s.selectedName() {
			s.tellStatus(name, anyChange, false)
		}
	}
	return true
}

// tellNoAccess says of mailboxes that the user may no longer look up, and of those that were followed and that he may no longer
// read, that nothing more is told of them (RFC 5465 §5.9).
func (s *imapSession) tellNoAccess(hidden []string, before map[string]notifyEvents, nodes map[string]*treeNode) {
	n := s.notify
	lost := map[string]bool{}
	for _, name := range hidden {
		delete(n.known, name)
		lost[name] = before[name] != 0 || n.wants(eventMailboxName, nodeOf(nodes, name), false)
	}
	for name := range before {
		if node := nodes[name]; node != nil && node.exists && node.rights&needNotify != needNotify {
			lost[name] = true
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(lost), compareFolders) {
		if lost[name] {
			s.writeList([]string{`\NoAccess`, `\NoSelect`}, name, "")
		}
	}
}

// tellEvent writes the responses of an event, each LIST response once (RFC 5465 §5.4 to §5.7), if it is about what the user sees.
func (s *imapSession) tellEvent(e MailboxEvent, nodes map[string]*treeNode, written map[[2]string]bool) {
	n, node := s.notify, nodeOf(nodes, e.Name)
	known := n.known[e.Name]
	if e.Kind == MailboxRenamed {
		known = n.known[e.OldName]
	}
	switch {
	case e.Kind == SubscriptionChanged:
		if n.wants(eventSubscription, node, true) {
			s.writeNode(node, "", written)
		}
	case e.Kind == MetadataChanged:
		s.tellMetadata(e, node)
	case e.Kind == MailboxCreated && (known || !node.exists), e.Kind == MailboxDeleted && !known:
	case e.Kind == MailboxRenamed && !(known && node.exists):
	default:
		n.apply(e)
		s.tellName(e, nodes, written)
	}
}

// tellName tells of a mailbox that has come, gone or got another name. One that comes or goes concerns its parent as well.
func (s *imapSession) tellName(e MailboxEvent, nodes map[string]*treeNode, written map[[2]string]bool) {
	node := nodeOf(nodes, e.Name)
	wanted := s.notify.wants(eventMailboxName, node, false)
	if e.Kind == MailboxRenamed {
		if wanted || s.notify.wants(eventMailboxName, nodeOf(nodes, e.OldName), false) {
			s.writeNode(node, e.OldName, written)
		}
		return
	}
	if wanted {
		s.writeNode(node, "", written)
	}
	for parent := range parents(e.Name) {
		above := nodeOf(nodes, parent)
		if !isOwnersRoot(parent) && s.notify.wants(eventMailboxName, above, false) {
			s.writeNode(above, "", written)
		}
		return
	}
}

// isOwnersRoot says whether a name is a level above all mailboxes of somebody else.
func isOwnersRoot(name string) bool {
	rest, ok := strings.CutPrefix(name, othersRoot)
	return ok && (rest == "" || rest[0] == '/' && !strings.Contains(rest[1:], "/"))
}

// tellMetadata tells which annotations of a mailbox, or of the server, have changed, without their values.
func (s *imapSession) tellMetadata(e MailboxEvent, node *treeNode) {
	if e.Name == "" {
		asked := func(g eventGroup) bool { return g.events&eventServerMetadata != 0 }
		if !slices.ContainsFunc(s.notify.groups, asked) {
			return
		}
	} else if !node.exists || node.rights&needMetadata != needMetadata || !s.notify.wants(eventMailboxMetadata, node, false) {
		return
	}
	b := appendMailbox([]byte("* METADATA "), e.Name, s.utf8)
	for name := range strings.SplitSeq(e.Entries, "\n") {
		b = appendAString(append(b, ' '), name)
	}
	s.write(append(b, "\r\n"...))
}

// nodeOf gives the mailbox of a name, one that does not exist where there is none.
func nodeOf(nodes map[string]*treeNode, name string) *treeNode {
	if node := nodes[name]; node != nil {
		return node
	}
	return &treeNode{name: name, other: strings.HasPrefix(name, othersPrefix)}
}

// wants says whether an event of a mailbox is asked for. Whoever is interested in what is subscribed hears of what no
// longer is.
func (n *notifier) wants(event notifyEvents, node *treeNode, subscription bool) bool {
	return slices.ContainsFunc(n.groups, func(g eventGroup) bool {
		return g.events&event != 0 && g.filter.has(node.name, node.other, node.subscribed || subscription)
	})
}

// writeNode writes the LIST response of a mailbox, with its old name if it has just got another.
func (s *imapSession) writeNode(node *treeNode, oldName string, written map[[2]string]bool) {
	key := [2]string{node.name, oldName}
	if written[key] {
		return
	}
	written[key] = true
	extended := ""
	if oldName != "" {
		extended = ` ("OLDNAME" (` + string(appendMailbox(nil, oldName, s.utf8)) + "))"
	}
	attributes := (&listRequest{showSubscribed: true}).attributes(node)
	s.writeList(attributes, node.name, extended)
}

// appended says that the session has put messages into a folder itself: it is not told of them as of others' (RFC 5465
// §5, §5.2).
func (s *imapSession) appended(folder *Folder, uids []imap.UID) {
	if s.view != nil && folder == s.view.Folder() {
		if s.notify != nil || len(s.contexts) > 0 {
			s.appendedUIDs = append(s.appendedUIDs, uids...)
		}
		return
	}
	if s.notify == nil || len(s.notify.watches) == 0 {
		return
	}
	name := s.nameOf(folder)
	told, known := s.notify.told[name]
	if !known {
		return
	}
	// What the session did is one batch. Only if that is all that has happened, it is nothing new.
	if st, err := folder.Status(false); err == nil && st.HighestModSeq == told.HighestModSeq+1 {
		s.notify.told[name] = st
	}
}

// noticeItems takes the items that may be told of new messages, in parentheses; nil without them. Nothing that is told
// unasked marks a message as seen.
func (c *imapCommand) noticeItems() (*fetchRequest, error) {
	if rest := c.in.line[c.pos:]; len(rest) > 1 && rest[0] == ' ' && rest[1] == '(' {
		c.pos++
	}
	if c.peek() != '(' {
		return nil, nil
	}
	q := new(fetchRequest)
	q.add(fetchUID, nil)
	some := false
	err := c.list(func() error {
		some = true
		return c.parseFetchItem(q, c.keyword())
	})
	if err == nil && !some {
		err = imapBad("The list of items is empty")
	}
	q.seen = false
	for _, item := range q.items {
		if item.section != nil {
			item.section.peek = true
		}
	}
	return q, err
}

// lateNotice is what is to be told of new messages that were changed before they could be told of: their mod-sequences
// would say that all below has been told, so they come with the next update.
type lateNotice struct {
	q    *fetchRequest
	uids []imap.UID
}

// tellNew tells of new messages what NOTIFY asks for, and of those that a context has got what its UPDATE asks for.
func (s *imapSession) tellNew(changes *Changes, found []contextChange) {
	late, own, uids := s.lateNotices, s.appendedUIDs, changes.New
	s.lateNotices, s.appendedUIDs = nil, nil
	for _, n := range late {
		s.fetchNotice(n.q, n.uids, changes.ModSeq)
	}
	for len(uids) > 0 {
		if slices.Contains(own, uids[0]) {
			uids = uids[1:]
			continue
		}
		asked := s.askedOf(uids[0], found)
		n := 1
		for n < len(uids) && asked == s.askedOf(uids[n], found) && !slices.Contains(own, uids[n]) {
			n++
		}
		if asked != 0 {
			s.fetchNotice(s.noticeOf(asked), uids[:n], changes.ModSeq)
		}
		uids = uids[n:]
	}
}

// askedOf gives who asks for something about a new message: bit i is context i, bit maxContexts is NOTIFY.
func (s *imapSession) askedOf(uid imap.UID, found []contextChange) (asked uint32) {
	if s.notify != nil && s.notify.fetch != nil {
		asked = 1 << maxContexts
	}
	for i := range found {
		if s.contexts[i].q.fetch == nil {
			continue
		}
		if _, ok := slices.BinarySearch(found[i].added, uid); ok {
			asked |= 1 << i
		}
	}
	return asked
}

// noticeOf gives all that is asked for, as askedOf says it.
func (s *imapSession) noticeOf(asked uint32) *fetchRequest {
	q := new(fetchRequest)
	if asked&(1<<maxContexts) != 0 {
		q.merge(s.notify.fetch)
	}
	for i, ctx := range s.contexts {
		if asked&(1<<i) != 0 {
			q.merge(ctx.q.fetch)
		}
	}
	if s.condstore && !q.modseq { // RFC 7162 §3.2
		q.add(fetchModSeq, nil)
	}
	return q
}

// fetchNotice writes one FETCH response for each of the messages, with all that is asked for (RFC 5465 §5.2). Those that
// were changed after upto come later, if the client is told of changes.
func (s *imapSession) fetchNotice(q *fetchRequest, uids []imap.UID, upto uint64) {
	f := fetcher{s: s, q: q, folder: s.view.Folder(), w: s.c.Writer()}
	if s.condstore && s.wantsFlags() {
		f.upto = upto
	}
	defer f.close()
	if err := f.run(uids); err != nil {
		s.c.Log.Warn("cannot tell of new messages", "error", err)
	}
	if len(f.later) > 0 {
		s.lateNotices = append(s.lateNotices, lateNotice{q, f.later})
	}
}

// merge adds the items of another request that are not there yet.
func (q *fetchRequest) merge(other *fetchRequest) {
	for _, item := range other.items {
		if slices.ContainsFunc(q.items, item.same) {
			continue
		}
		q.add(item.kind, item.section)
		q.items[len(q.items)-1].lazy = item.lazy
	}
}

// same says whether two items are answered alike.
func (item fetchItem) same(other fetchItem) bool {
	a, b := item.section, other.section
	if item.kind != other.kind || a == nil || b == nil {
		return item.kind == other.kind
	}
	return string(a.label) == string(b.label) && a.partial == b.partial && a.from == b.from && a.to == b.to
}
