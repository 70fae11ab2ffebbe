package main

// THREAD and UID THREAD: RFC 5256 §3 and §5, with ORDEREDSUBJECT and REFERENCES, and REFS of draft-ietf-morg-inthread,
// which is REFERENCES without a look at subjects, the thread with the newest message last.

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// threadMaxReferences is how many message ids of one message count, the last ones.
const threadMaxReferences = 500

// threadMessage is what threading knows of a message.
type threadMessage struct {
	sent, received int64
	subject        string // base subject, as it is compared
	reply          bool   // the subject is that of a reply or forward
	id             string // "" where there is none
	references     []string
}

// threadNode is a message in a thread, or a dummy in the place of one that is not there.
type threadNode struct {
	at   int // among the results; -1: a dummy
	kids []*threadNode
}

// thread is THREAD.
func (s *imapSession) thread(cmd *imapCommand) error {
	q := new(searchRequest)
	algorithm, err := s.parseThread(cmd, q)
	if err != nil {
		return err
	}
	if q.modseq {
		s.enableCondstore()
	}
	m := s.newMatcher(s.view, q, cmd.tag)
	m.uid = cmd.uid
	if err := m.run(); err != nil {
		return err
	}
	t := threader{bySubject: algorithm != "REFS", byID: algorithm != "ORDEREDSUBJECT"}
	if t.msgs, err = m.threadMessages(&t); err != nil {
		return err
	}
	var roots []*threadNode
	if t.byID {
		roots = t.references()
	} else {
		roots = t.orderedSubject()
	}
	b := []byte("* THREAD")
	if len(roots) > 0 {
		b = append(b, ' ')
	}
	for _, root := range roots {
		b = appendThread(b, root, m.number)
	}
	s.write(append(b, "\r\n"...))
	return nil
}

// parseThread parses everything behind THREAD: algorithm charset keys.
func (s *imapSession) parseThread(cmd *imapCommand, q *searchRequest) (algorithm string, err error) {
	if err := cmd.sp(); err != nil {
		return "", err
	}
	algorithm = cmd.keyword()
	switch algorithm {
	case "ORDEREDSUBJECT", "REFERENCES", "REFS":
	default:
		return "", cmd.expected("ORDEREDSUBJECT, REFERENCES or REFS before this")
	}
	if err := cmd.parseCharset(q); err != nil {
		return "", err
	}
	return algorithm, s.parseKeys(cmd, q)
}

// appendThread appends one thread (RFC 5256 §5 thread-list): a chain without parentheses, branches in them.
func appendThread(b []byte, n *threadNode, number func(at int) uint32) []byte {
	b = append(b, '(')
	for n.at >= 0 {
		b = strconv.AppendUint(b, uint64(number(n.at)), 10)
		if len(n.kids) == 0 {
			return append(b, ')')
		}
		b = append(b, ' ')
		if len(n.kids) > 1 {
			break
		}
		n = n.kids[0]
	}
	for _, kid := range n.kids {
		b = appendThread(b, kid, number)
	}
	return append(b, ')')
}

// threader makes threads of messages.
type threader struct {
	msgs            []threadMessage
	bySubject, byID bool
}

// threadMessages learns what threading needs of the results.
func (m *matcher) threadMessages(t *threader) ([]threadMessage, error) {
	var fields fieldSet
	fields.need(fieldDate)
	if t.bySubject {
		fields.need(fieldSubject)
	}
	if t.byID {
		fields.need(fieldMessageID)
		fields.need(fieldListed) // References
		fields.need(fieldInReplyTo)
	}
	msgs := make([]threadMessage, len(m.uids))
	err := m.eachResult(&fields, func(i int, msg *Msg) {
		at := &msgs[i]
		at.received, at.sent = msg.Date, sentDate(msg, fields.value(fieldDate))
		if t.bySubject {
			var base string
			base, at.reply = baseSubject(decodedSubject(fields.value(fieldSubject)))
			at.subject = collated(base)
		}
		if !t.byID {
			return
		}
		if ids := messageIDs(fields.value(fieldMessageID)); len(ids) > 0 {
			at.id = ids[0]
		}
		at.references = messageIDs(fields.value(fieldListed))
		if len(at.references) == 0 { // RFC 5256 §3: then the first id of In-Reply-To
			if ids := messageIDs(fields.value(fieldInReplyTo)); len(ids) > 0 {
				at.references = ids[:1]
			}
		}
	})
	return msgs, err
}

// messageIDs gives the message ids of a field. Quotes are taken away, so that the two ways to write an id are one (RFC
// 5256 §3).
func messageIDs(raw []byte) []string {
	var ids []string
	text := string(raw)
	for {
		open := strings.IndexByte(text, '<')
		if open < 0 {
			break
		}
		text = text[open+1:]
		end := strings.IndexByte(text, '>')
		if end < 0 {
			break
		}
		id := text[:end]
		if again := strings.LastIndexByte(id, '<'); again >= 0 {
			id = id[again+1:]
		}
		text = text[end+1:]
		id = strings.Join(strings.Fields(id), "")
		if strings.HasPrefix(id, `"`) {
			id = strings.NewReplacer(`"`, "", `\\`, `\`, `\`, "").Replace(id)
		}
		if id != "" {
			ids = append(ids, id)
		}
	}
	return ids[max(0, len(ids)-threadMaxReferences):]
}

// orderedSubject is ORDEREDSUBJECT: the first message of a subject, the others beside each other below it.
func (t *threader) orderedSubject() []*threadNode {
	order := make([]int, len(t.msgs))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(strings.Compare(t.msgs[a].subject, t.msgs[b].subject), cmp.Compare(t.msgs[a].sent, t.msgs[b].sent))
	})
	var roots []*threadNode
	for i, at := range order {
		node := &threadNode{at: at}
		if i > 0 && t.msgs[order[i-1]].subject == t.msgs[at].subject {
			first := roots[len(roots)-1]
			first.kids = append(first.kids, node)
		} else {
			roots = append(roots, node)
		}
	}
	t.sortNodes(roots)
	return roots
}

// date is what a node is sorted by: its message's, or that of its first child.
func (t *threader) date(n *threadNode) (sent int64, at int) {
	for n.at < 0 {
		n = n.kids[0]
	}
	return t.msgs[n.at].sent, n.at
}

// sortNodes sorts siblings by date, then by message number.
func (t *threader) sortNodes(nodes []*threadNode) {
	slices.SortFunc(nodes, func(a, b *threadNode) int {
		sentA, atA := t.date(a)
		sentB, atB := t.date(b)
		return cmp.Or(cmp.Compare(sentA, sentB), cmp.Compare(atA, atB))
	})
}

// references is REFERENCES, and REFS where subjects do not count. The numbers are those of RFC 5256 §3.
func (t *threader) references() []*threadNode {
	roots := t.prune(t.link())
	if !t.bySubject {
		t.sortAll(roots)
		t.sortByNewest(roots)
		return roots
	}
	t.sortNodes(roots) // (4)
	roots = t.gather(roots)
	t.sortAll(roots) // (6)
	return roots
}

// link is step (1): the messages are the first of the nodes, those that are only referred to come behind. It gives the
// parent of each, -1 for none.
func (t *threader) link() (parents []int32) {
	byID := make(map[string]int32, len(t.msgs))
	for i := range t.msgs {
		id := t.msgs[i].id
		if _, twice := byID[id]; id != "" && !twice { // the later one counts as one of another id
			byID[id] = int32(i)
		}
		parents = append(parents, -1)
	}
	kids := make([]int32, len(t.msgs)) // how many each has
	setParent := func(node, parent int32) {
		if old := parents[node]; old >= 0 {
			kids[old]--
		}
		if parents[node] = parent; parent >= 0 {
			kids[parent]++
		}
	}
	below := func(node, above int32) bool { // node is above, or below it
		if node == above {
			return true
		}
		if kids[above] == 0 {
			return false
		}
		for node >= 0 && node != above {
			node = parents[node]
		}
		return node >= 0
	}
	for i := range t.msgs {
		last := int32(-1)
		for _, id := range t.msgs[i].references {
			node, known := byID[id]
			if !known {
				node = int32(len(parents))
				byID[id] = node
				parents, kids = append(parents, -1), append(kids, 0)
			}
			if last >= 0 && parents[node] < 0 && !below(last, node) { // (A)
				setParent(node, last)
			}
			last = node
		}
		// (B): what the message itself says of its parent is worth more than what others said
		if node := int32(i); last < 0 || !below(last, node) {
			setParent(node, last)
		}
	}
	return parents
}

// prune is steps (2) and (3): it makes trees and takes out dummies.
func (t *threader) prune(parents []int32) []*threadNode {
	nodes := make([]threadNode, len(parents))
	var roots []*threadNode
	for i := range nodes {
		if nodes[i].at = i; i >= len(t.msgs) {
			nodes[i].at = -1
		}
	}
	for i, parent := range parents {
		if parent < 0 {
			roots = append(roots, &nodes[i])
		} else {
			nodes[parent].kids = append(nodes[parent].kids, &nodes[i])
		}
	}
	var kept []*threadNode
	for _, root := range roots {
		found := root.withoutDummies()
		if root.at < 0 && len(found) > 1 { // their dummy keeps them together
			root.kids = found
			found = []*threadNode{root}
		}
		kept = append(kept, found...)
	}
	return kept
}

// withoutDummies takes the dummies out of a tree and gives what takes its place.
func (n *threadNode) withoutDummies() []*threadNode {
	var kids []*threadNode
	for _, kid := range n.kids {
		kids = append(kids, kid.withoutDummies()...)
	}
	if n.at < 0 {
		return kids
	}
	n.kids = kids
	return []*threadNode{n}
}

// sortAll is step (6): siblings are sorted on all levels, the lowest first.
func (t *threader) sortAll(nodes []*threadNode) {
	for _, n := range nodes {
		t.sortAll(n.kids)
	}
	t.sortNodes(nodes)
}

// sortByNewest sorts threads by the message that came last.
func (t *threader) sortByNewest(roots []*threadNode) {
	newest := make(map[*threadNode]int64, len(roots))
	for _, root := range roots {
		newest[root] = t.newest(root)
	}
	slices.SortStableFunc(roots, func(a, b *threadNode) int { return cmp.Compare(newest[a], newest[b]) })
}

// newest gives when the last message of a thread came.
func (t *threader) newest(n *threadNode) int64 {
	last := int64(-1 << 63)
	if n.at >= 0 {
		last = t.msgs[n.at].received
	}
	for _, kid := range n.kids {
		last = max(last, t.newest(kid))
	}
	return last
}

// message gives the message that a thread's subject is taken from.
func (t *threader) message(n *threadNode) *threadMessage {
	_, at := t.date(n)
	return &t.msgs[at]
}

// gather is step (5): threads with one subject become one.
func (t *threader) gather(roots []*threadNode) []*threadNode {
	for _, root := range roots {
		if root.at < 0 { // its first child speaks for it
			t.sortNodes(root.kids)
		}
	}
	table := t.subjects(roots)
	merged := make(map[*threadNode]bool) // those that are below others now
	place := make(map[*threadNode]*threadNode)
	for _, root := range roots {
		subject := t.message(root).subject
		first := table[subject]
		if subject == "" || first == root {
			continue
		}
		merged[root] = true
		switch {
		case first.at < 0 && root.at < 0:
			first.kids = append(first.kids, root.kids...)
		case first.at < 0 || t.message(root).reply && !t.message(first).reply:
			first.kids = append(first.kids, root)
		default:
			both := &threadNode{at: -1, kids: []*threadNode{first, root}}
			place[first], table[subject] = both, both
		}
	}
	var kept []*threadNode
	for _, root := range roots {
		if merged[root] {
			continue
		}
		if both := place[root]; both != nil {
			root = both
		}
		kept = append(kept, root)
	}
	return kept
}

// subjects is step (5)(B): which of the threads with a subject the others are added to.
func (t *threader) subjects(roots []*threadNode) map[string]*threadNode {
	table := make(map[string]*threadNode)
	for _, root := range roots {
		msg := t.message(root)
		if msg.subject == "" {
			continue
		}
		first := table[msg.subject]
		if first == nil || first.at >= 0 && (root.at < 0 || t.message(first).reply && !msg.reply) {
			table[msg.subject] = root
		}
	}
	return table
}
