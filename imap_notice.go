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
	if n == nil || n.watch == nil {
		return
	}
	var selected *Folder
	if s.view != nil {
		selected = s.view.Folder()
	}
	news := n.watch.Take(selected)
	switch {
	case news.Closed:
		s.done, s.bye = true, "The account is no longer available"
		return
	case news.Lost:
		s.overflow("Too much has happened")
		return
	case len(news.Events) > 0 || n.stale:
		if !s.tellEvents(news.Events) {
			return
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(news.Changed), compareFolders) {
		s.tellStatus(name, news.Changed[name], false)
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
	for _, e := range events {
		n.apply(e)
	}
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
	entered, err := s.follow(n)
	if err != nil {
		s.overflow("There are too many mailboxes to follow")
		return false
	}
	for _, name := range entered { // what came to them before they were followed
		if name != s.selectedName() {
			s.tellStatus(name, anyChange, false)
		}
	}
	return true
}

// apply brings what the client was told in step with an event: it goes with a mailbox, and follows one to its new name
// with those below it.
func (n *notifier) apply(e MailboxEvent) {
	switch e.Kind {
	case MailboxDeleted:
		delete(n.told, e.Name)
		return
	case MailboxRenamed:
	default:
		return
	}
	for _, name := range slices.Collect(maps.Keys(n.told)) {
		if rest, ok := strings.CutPrefix(name, e.OldName); ok && (rest == "" || rest[0] == '/') {
			n.told[e.Name+rest] = n.told[name]
			delete(n.told, name)
		}
	}
}

// tellEvent writes the LIST responses of an event, each once (RFC 5465 §5.4, §5.5), or METADATA (§5.6). A mailbox that comes or goes concerns
// its parent as well.
func (s *imapSession) tellEvent(e MailboxEvent, nodes map[string]*treeNode, written map[[2]string]bool) {
	switch e.Kind {
	case SubscriptionChanged:
		if s.notify.wants(eventSubscription, nodeOf(nodes, e.Name), true) {
			s.writeNode(nodeOf(nodes, e.Name), "", written)
		}
	case MailboxRenamed:
		node, old := nodeOf(nodes, e.Name), nodeOf(nodes, e.OldName)
		if s.notify.wants(eventMailboxName, node, false) || s.notify.wants(eventMailboxName, old, false) {
			s.writeNode(node, e.OldName, written)
		}
	case MetadataChanged:
		if s.notify.wantsMetadata(nodeOf(nodes, e.Name)) {
			s.write(append(append(appendMailbox([]byte("* METADATA "), e.Name, s.utf8), ' '), e.Entries+"\r\n"...))
		}
	default:
		names := []string{e.Name}
		if i := strings.LastIndexByte(e.Name, '/'); i > 0 {
			names = append(names, e.Name[:i])
		}
		for _, name := range names {
			if node := nodeOf(nodes, name); s.notify.wants(eventMailboxName, node, false) {
				s.writeNode(node, "", written)
			}
		}
	}
}

// nodeOf gives the mailbox of a name, one that does not exist where there is none.
func nodeOf(nodes map[string]*treeNode, name string) *treeNode {
	if node := nodes[name]; node != nil {
		return node
	}
	return &treeNode{name: name}
}

// wants says whether an event of a mailbox is asked for. Whoever is interested in what is subscribed hears of what no
// longer is.
func (n *notifier) wants(event notifyEvents, node *treeNode, subscription bool) bool {
	return slices.ContainsFunc(n.groups, func(g eventGroup) bool {
		return g.events&event != 0 && g.filter.has(node.name, node.subscribed || subscription)
	})
}

// wantsMetadata says whether changes of annotations are asked for; a node without a name is the server (RFC 5465 §5.6, §5.7),
// whatever mailboxes are named beside it.
func (n *notifier) wantsMetadata(node *treeNode) bool {
	if node.name != "" {
		return n.wants(eventMailboxMetadata, node, false)
	}
	return slices.ContainsFunc(n.groups, func(g eventGroup) bool { return g.events&eventServerMetadata != 0 })
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

// caused says that the session has made an event itself: it is not told of it (RFC 5465 §5).
func (s *imapSession) caused(e MailboxEvent) {
	n := s.notify
	if n == nil || n.watch == nil {
		return
	}
	n.watch.TakeBack(e)
	n.apply(e)
	n.stale = true
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
	if s.notify == nil || s.notify.watch == nil {
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

// tellNew tells of new messages what NOTIFY asks for, and of those that a context has got what its UPDATE asks for.
func (s *imapSession) tellNew(uids []imap.UID, found []contextChange) {
	own := s.appendedUIDs
	s.appendedUIDs = nil
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
		s.fetchNotice(asked, uids[:n])
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

// fetchNotice writes one FETCH response for each of the messages, with all that is asked for (RFC 5465 §5.2).
func (s *imapSession) fetchNotice(asked uint32, uids []imap.UID) {
	if asked == 0 {
		return
	}
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
	f := fetcher{s: s, q: q, folder: s.view.Folder(), w: s.c.Writer()}
	defer f.close()
	if err := f.run(uids); err != nil {
		s.c.Log.Warn("cannot tell of new messages", "error", err)
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
