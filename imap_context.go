package main

// CONTEXT=SEARCH and CONTEXT=SORT, RFC 5267 §4: searches and sorts of the selected mailbox whose results are kept up to
// date. What has changed is looked at when the client is told of it, and only that.

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/emersion/go-imap/v2"
)

const (
	maxContexts       = 20      // of a session
	maxContextResults = 1 << 18 // of all contexts of a session together, as far as there is more than one

	// contextPeriod is how often results that change with time are looked at, at most (RFC 5032 §2).
	contextPeriod = 10 * time.Second
)

// searchContext is a search that is kept up to date.
type searchContext struct {
	tag  string
	uid  bool // the client is told UIDs
	from correlator
	q    *searchRequest

	uids  []imap.UID // the results that the client has, ascending
	order []imap.UID // of SORT: the same in their order

	// Results may change without any change of their messages.
	star  bool         // some set ends with "*", which is
	last  imap.UID     // this message
	timed []*searchKey // OLDER and YOUNGER, as of
	as    time.Time
}

// contextChange is what is new in the results of a context.
type contextChange struct {
	removed, added []imap.UID // ascending
}

// contextOf gives the context with a tag, nil for none.
func (s *imapSession) contextOf(tag string) *searchContext {
	for _, ctx := range s.contexts {
		if ctx.tag == tag {
			return ctx
		}
	}
	return nil
}

// keepContext keeps the search that m has run up to date, or says that it is not done (RFC 5267 §4.3.1).
func (s *imapSession) keepContext(m *matcher) {
	kept := len(m.uids)
	for _, ctx := range s.contexts {
		kept += len(ctx.uids)
	}
	refused := ""
	switch {
	case len(s.contexts) >= maxContexts:
		refused = "Too many searches are kept up to date"
	case len(s.contexts) > 0 && kept > maxContextResults:
		refused = "The searches that are kept up to date find too many messages"
	case slices.ContainsFunc(m.q.sort, func(k sortKey) bool { return k.by == byRelevancy }):
		refused = "An order by relevancy is not kept up to date"
	}
	if refused != "" {
		s.refuseContext(m.tag, refused)
		return
	}
	ctx := &searchContext{tag: m.tag, uid: m.uid, from: m.from, q: m.q, star: m.q.key.hasStar(), last: s.lastUID()}
	ctx.timed, ctx.as = m.q.key.timed(nil), time.Now()
	ctx.uids = slices.Clone(m.uids)
	if m.q.sort != nil {
		ctx.order = slices.Clone(m.uids)
		slices.Sort(ctx.uids)
	}
	s.contexts = append(s.contexts, ctx)
}

// refuseContext says that a search is not kept up to date.
func (s *imapSession) refuseContext(tag, why string) {
	b := appendQuoted([]byte("* NO [NOUPDATE "), tag)
	s.write(append(b, "] "+why+"\r\n"...))
}

// hasStar says whether some set of UIDs inside ends with "*".
func (k *searchKey) hasStar() bool {
	if set, ok := k.set.(imap.UIDSet); ok && !imap.IsSearchRes(set) && set[len(set)-1].Stop == 0 {
		return true
	}
	return slices.ContainsFunc(k.keys, (*searchKey).hasStar)
}

// lastUID is the message that "*" stands for in the selected mailbox, 0 for none.
func (s *imapSession) lastUID() imap.UID {
	if uids := s.view.UIDs(); len(uids) > 0 {
		return uids[len(uids)-1]
	}
	return 0
}

// cancelUpdate is CANCELUPDATE (RFC 5267 §4.3.5).
func (s *imapSession) cancelUpdate(cmd *imapCommand) error {
	var tags []string
	for len(tags) == 0 || !cmd.atEnd() {
		if err := cmd.sp(); err != nil {
			return err
		}
		if cmd.peek() != '"' {
			return cmd.expected("a tag in quotes")
		}
		tag, err := cmd.quoted()
		if err != nil {
			return err
		}
		if s.contextOf(tag) == nil {
			return imapNo("", "There is no search with the tag "+imapText(tag)+" that is kept up to date")
		}
		tags = append(tags, tag)
	}
	s.contexts = slices.DeleteFunc(s.contexts, func(ctx *searchContext) bool { return slices.Contains(tags, ctx.tag) })
	return nil
}

// dropGone takes messages that are no longer there out of the results. RFC 5267 §4.3.4: it comes before EXPUNGE, so that
// message numbers are still what they were; and it need not wait for it.
func (s *imapSession) dropGone(changes *Changes) {
	if len(s.contexts) == 0 {
		return
	}
	gone, number := changes.ExpungedUIDs, s.seq
	if len(gone) > 0 {
		number = func(uid imap.UID) uint32 { // as it was
			i, _ := slices.BinarySearch(gone, uid)
			return changes.Expunged[len(gone)-1-i]
		}
	} else if gone = s.view.Gone(); len(gone) == 0 {
		return
	}
	for _, ctx := range s.contexts {
		change := contextChange{removed: intersectUIDs(gone, ctx.uids)}
		s.tellContext(ctx, change, number)
	}
}

// updateContexts finds what changes mean for the contexts.
func (s *imapSession) updateContexts(changes *Changes) []contextChange {
	if len(s.contexts) == 0 {
		return nil
	}
	looked := mergeUIDs(mergeUIDs(changes.Flags, changes.SilentFlags), changes.New)
	found := make([]contextChange, len(s.contexts))
	for i, ctx := range s.contexts {
		only, err := s.unsettled(ctx, looked)
		if err == nil && len(only) > 0 {
			found[i], err = s.lookAgain(ctx, only)
		}
		if err != nil {
			s.c.Log.Warn("a search is not up to date", "error", err)
		}
	}
	return found
}

// unsettled gives the messages that may match a context now and did not, or the other way round: those that have changed,
// those that "*" has meant or means, and those that have come of an age.
func (s *imapSession) unsettled(ctx *searchContext, changed []imap.UID) ([]imap.UID, error) {
	if last := s.lastUID(); ctx.star && last != ctx.last {
		changed = mergeUIDs(changed, []imap.UID{min(last, ctx.last), max(last, ctx.last)})
		ctx.last = last
	}
	now := time.Now()
	if len(ctx.timed) == 0 || now.Sub(ctx.as) < cmp.Or(s.p.aging, contextPeriod) {
		return changed, nil
	}
	var msgs []Msg
	var aged []imap.UID
	uids := s.view.UIDs()
	for from := 0; from < len(uids); from += fetchBatch {
		var err error
		if msgs, err = s.view.Folder().Messages(msgs, uids[from:min(from+fetchBatch, len(uids))], true); err != nil {
			return changed, err
		}
		for i := range msgs {
			if slices.ContainsFunc(ctx.timed, func(k *searchKey) bool { return msgs[i].Date >= k.n && msgs[i].Date <= now.Unix()-k.ago }) {
				aged = append(aged, msgs[i].UID)
			}
		}
	}
	ctx.as = now
	for _, k := range ctx.timed {
		k.n = now.Unix() - k.ago
	}
	return mergeUIDs(changed, aged), nil
}

// lookAgain finds which of the messages match now and did not, or the other way round.
func (s *imapSession) lookAgain(ctx *searchContext, only []imap.UID) (contextChange, error) {
	ctx.q.key.resolve(s, s.view, false)
	m := &matcher{s: s, view: s.view, folder: s.view.Folder(), q: ctx.q, only: only}
	if err := m.run(); err != nil {
		return contextChange{}, err
	}
	had := intersectUIDs(only, ctx.uids)
	return contextChange{removed: withoutUIDs(had, m.uids), added: withoutUIDs(m.uids, ctx.uids)}, nil
}

// tellContexts tells of changes.
func (s *imapSession) tellContexts(changes []contextChange) {
	for i, change := range changes {
		s.tellContext(s.contexts[i], change, s.seq)
	}
}

// tellContext brings the results in step and tells the client how: REMOVEFROM, then ADDTO (RFC 5267 §4.3.2). number gives
// the number of a message.
func (s *imapSession) tellContext(ctx *searchContext, change contextChange, number func(imap.UID) uint32) {
	if len(change.removed)+len(change.added) == 0 {
		return
	}
	b := ctx.from.append(nil, ctx.tag, ctx.uid)
	numbers := func(b []byte, uids []imap.UID) []byte {
		if ctx.uid {
			return appendUIDs(b, uids)
		}
		seqs := make([]uint32, len(uids))
		for i, uid := range uids {
			seqs[i] = number(uid)
		}
		return appendSeqs(b, seqs)
	}
	if len(change.removed) > 0 {
		b = append(b, " REMOVEFROM ("...)
		b = append(ctx.remove(b, change.removed, numbers), ')')
	}
	if len(change.added) > 0 {
		b = append(b, " ADDTO ("...)
		b = append(s.addTo(ctx, b, change.added, numbers), ')')
	}
	s.write(append(b, "\r\n"...))
}

// remove takes results out and appends where they were: the last ones first, so that the positions of the others hold.
// Those of a SEARCH, in the order of the mailbox, need no positions.
func (ctx *searchContext) remove(b []byte, uids []imap.UID, numbers func([]byte, []imap.UID) []byte) []byte {
	ctx.uids = withoutUIDs(ctx.uids, uids)
	if ctx.q.sort == nil {
		return numbers(append(b, "0 "...), uids)
	}
	left := len(ctx.order)
	isGone := func(i int) bool {
		_, gone := slices.BinarySearch(uids, ctx.order[i])
		return gone
	}
	first := true
	for end := len(ctx.order); end > 0; {
		start := end - 1
		if !isGone(start) {
			end, left = start, left-1
			ctx.order[left] = ctx.order[start]
			continue
		}
		for start > 0 && isGone(start-1) {
			start--
		}
		b = numbers(appendPosition(b, start, first), ctx.order[start:end])
		end, first = start, false
	}
	ctx.order = slices.Delete(ctx.order, 0, left)
	return b
}

// addTo puts results in and appends where they are: the first ones first, so that each is there when it is its turn.
func (s *imapSession) addTo(ctx *searchContext, b []byte, uids []imap.UID, numbers func([]byte, []imap.UID) []byte) []byte {
	had := ctx.uids
	ctx.uids = mergeUIDs(ctx.uids, uids)
	if ctx.q.sort == nil {
		return numbers(append(b, "0 "...), uids)
	}
	places := s.places(ctx, uids)
	order := make([]imap.UID, 0, len(had)+len(uids))
	first, from := true, 0
	for i := 0; i < len(places); {
		at := places[i].at
		order = append(order, ctx.order[from:at]...)
		start := len(order)
		for ; i < len(places) && places[i].at == at; i++ {
			order = append(order, places[i].uid)
		}
		b = numbers(appendPosition(b, start, first), order[start:])
		from, first = at, false
	}
	ctx.order = append(order, ctx.order[from:]...)
	return b
}

// appendPosition appends a position, counted from 1, and the space before the results.
func appendPosition(b []byte, i int, first bool) []byte {
	if !first {
		b = append(b, ' ')
	}
	return append(strconv.AppendInt(b, int64(i)+1, 10), ' ')
}

// contextPlace is where a new result goes: before the result at, an index.
type contextPlace struct {
	uid    imap.UID
	values []sortValue
	at     int
}

// places finds where new results go, in order. Few of the old ones are looked at, however many there are.
func (s *imapSession) places(ctx *searchContext, uids []imap.UID) []contextPlace {
	known := map[imap.UID][]sortValue{}
	valuesOf := func(uid imap.UID) []sortValue {
		if values, ok := known[uid]; ok {
			return values
		}
		known[uid] = s.valuesOf(ctx, uid)
		return known[uid]
	}
	places := make([]contextPlace, len(uids))
	for i, uid := range uids {
		places[i] = contextPlace{uid: uid, values: s.valuesOf(ctx, uid)}
		if places[i].values == nil { // it has just gone: at the end, until that is told
			places[i].at = len(ctx.order)
			continue
		}
		places[i].at = ctx.place(uid, places[i].values, valuesOf)
	}
	sortStableFunc(places, func(a, b contextPlace) int {
		switch c := cmp.Compare(a.at, b.at); {
		case c != 0:
			return c
		case a.values == nil || b.values == nil:
			return len(b.values) - len(a.values)
		}
		return compareSorted(ctx.q.sort, a.values, b.values)
	})
	return places
}

// place finds the place of a new result among the old ones. Those that have just gone, and have no values any more, are
// passed over.
func (ctx *searchContext) place(uid imap.UID, values []sortValue, valuesOf func(imap.UID) []sortValue) int {
	lo, hi := 0, len(ctx.order)
	for lo < hi {
		mid := lo + (hi-lo)/2
		probe := mid
		for probe < hi && valuesOf(ctx.order[probe]) == nil {
			probe++
		}
		if probe == hi {
			hi = mid
			continue
		}
		c := compareSorted(ctx.q.sort, valuesOf(ctx.order[probe]), values)
		if c == 0 {
			c = cmp.Compare(ctx.order[probe], uid)
		}
		if c < 0 {
			lo = probe + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// valuesOf gives what is compared of a message, nil when it is no longer there.
func (s *imapSession) valuesOf(ctx *searchContext, uid imap.UID) []sortValue {
	m := &matcher{s: s, view: s.view, folder: s.view.Folder(), q: ctx.q, uids: []imap.UID{uid}}
	if msgs, err := m.folder.Messages(nil, m.uids, false); err != nil || len(msgs) == 0 {
		return nil
	}
	values, err := m.sortValues()
	if err != nil {
		return nil
	}
	return values
}
