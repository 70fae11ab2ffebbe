package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a model session does at random, and how it checks the replies.

// stressFolders are the folders that all sessions share and nobody deletes.
var stressFolders = []string{"INBOX", "Work", "Archive"}

// replaceable is the remainder, by keepEvery, of the markers of messages whose flags are set as a whole. They have no keyword that
// is a session's own.
const replaceable = 1

func isShared(name string) bool { return slices.Contains(stressFolders, name) }

// stressFlags are the flags that all sessions set and clear.
var stressFlags = []string{`\Seen`, `\Flagged`, `\Answered`, `\Draft`, "$Label", "$Forwarded"}

// modelVerb is something that a session may do. It gives the commands, which go out together, or none when there is
// nothing to do.
type modelVerb struct {
	weight   int
	selected bool // needs a mailbox
	make     func(s *modelSession) []*exchange
}

var modelVerbs = []modelVerb{
	{8, true, (*modelSession).fetchFlags}, {8, true, (*modelSession).fetchText}, {8, true, (*modelSession).catchUp},
	{4, true, (*modelSession).fetchChanged}, {14, true, (*modelSession).storeFlags}, {3, true, (*modelSession).storeAll}, {8, true, (*modelSession).storeOwn},
	{6, true, (*modelSession).storeDeleted}, {8, true, (*modelSession).searchFlags}, {4, true, (*modelSession).searchText},
	{4, true, (*modelSession).sort}, {3, true, (*modelSession).searchSaved}, {6, true, (*modelSession).copy},
	{4, true, (*modelSession).move}, {10, false, (*modelSession).append}, {3, true, (*modelSession).catenate},
	{4, true, (*modelSession).replace}, {4, true, (*modelSession).expunge}, {6, true, (*modelSession).noop},
	{5, true, (*modelSession).idle}, {4, false, (*modelSession).status}, {3, false, (*modelSession).list},
	{3, false, (*modelSession).sideFolder}, {4, false, (*modelSession).selectAny}, {2, true, (*modelSession).closeFolder},
	{2, false, (*modelSession).reconnect}, {3, false, (*modelSession).ask}, {3, false, (*modelSession).searchAll}, {2, false, (*modelSession).annotate},
	{3, false, (*modelSession).grant}, {4, true, (*modelSession).keepSearch}, {2, false, (*modelSession).notify},
}

// act does one thing.
func (s *modelSession) act() error {
	total := 0
	for _, v := range modelVerbs {
		total += v.weight
	}
	n := s.rnd.IntN(total)
	verb := modelVerbs[0]
	for _, verb = range modelVerbs {
		if n -= verb.weight; n < 0 {
			break
		}
	}
	if verb.selected && s.box == nil {
		verb.make = (*modelSession).selectAny
	}
	xs := verb.make(s)
	if len(xs) == 0 {
		return nil
	}
	return s.do(xs...)
}

// oneIn is true once in n times.
func (s *modelSession) oneIn(n int) bool { return s.rnd.IntN(n) == 0 }

// pick gives one of the words.
func (s *modelSession) pick(words ...string) string { return words[s.rnd.IntN(len(words))] }

// known gives the UIDs of the view that have been told.
func (s *modelSession) known() []uint32 {
	return slices.DeleteFunc(slices.Clone(s.box.uids), func(uid uint32) bool { return uid == 0 })
}

// someUIDs picks up to n known messages that are so.
func (s *modelSession) someUIDs(n int, want func(uid uint32) bool) []uint32 {
	uids := slices.DeleteFunc(s.known(), func(uid uint32) bool { return want != nil && !want(uid) })
	if len(uids) == 0 {
		return nil
	}
	from := s.rnd.IntN(len(uids))
	picked := slices.Clone(uids[from:min(len(uids), from+1+s.rnd.IntN(n))])
	if len(picked) > 2 && s.oneIn(3) {
		picked = slices.Delete(picked, 1, 2)
	}
	return picked
}

// mayGo says whether a message may be deleted.
func (s *modelSession) mayGo(uid uint32) bool {
	marker := s.run.facts.markerOf(s.box.validity, uid)
	return marker != 0 && !kept(marker)
}

// set writes messages as a set of UIDs behind "UID VERB", or of message numbers behind "VERB".
func (s *modelSession) set(uid bool, uids []uint32) string {
	if uid {
		return formatUIDs(uids)
	}
	var seqs []uint32
	for _, u := range uids {
		seqs = append(seqs, uint32(slices.Index(s.box.uids, u)+1))
	}
	return formatUIDs(seqs)
}

// form gives "UID " or "".
func form(uid bool) string {
	if uid {
		return "UID "
	}
	return ""
}

// literal writes a string as a literal; waits says whether the client waits for the continuation.
func literal(text string, waits bool) string {
	if waits {
		return fmt.Sprintf("{%d}\r\n\x00%s", len(text), text)
	}
	return fmt.Sprintf("{%d+}\r\n%s", len(text), text)
}

// modseqItem asks for MODSEQ where the session speaks of it.
func (s *modelSession) modseqItem() string {
	if s.knows {
		return " MODSEQ"
	}
	return ""
}

// answered gives the check of a FETCH: all messages were answered for, with all items, or are gone.
func (s *modelSession) answered(uids []uint32, items ...string) func(x *exchange) error {
	return func(x *exchange) error {
		for _, uid := range uids {
			got := x.fetched[uid]
			if got == nil {
				s.box.owed[uid] = "FETCH left it out"
				continue
			}
			for _, item := range items {
				_, ok := got[item]
				if !ok && s.notifying { // something else of it was told before the command, and now it is gone
					s.box.owed[uid] = "FETCH left it out"
				} else if !ok {
					return fmt.Errorf("UID %d comes without %s", uid, item)
				}
			}
		}
		return nil
	}
}

// fetchFlags is FETCH of what lists need.
func (s *modelSession) fetchFlags() []*exchange {
	uids := s.someUIDs(20, nil)
	if uids == nil {
		return nil
	}
	uid := s.oneIn(2)
	macro := s.pick("FAST", "ALL", "FULL", "", "", "", "")
	x := &exchange{quiet: !uid, bare: macro != ""}
	items := "(UID FLAGS" + s.modseqItem() + ")"
	wanted := []string{"FLAGS"}
	if macro != "" {
		items = macro
		wanted = append(wanted, "INTERNALDATE", "RFC822.SIZE")
	}
	x.command = fmt.Sprintf("%sFETCH %s %s", form(uid), s.set(uid, uids), items)
	x.check = s.answered(uids, wanted...)
	return []*exchange{x}
}

// fetchText is FETCH of what messages hold.
func (s *modelSession) fetchText() []*exchange {
	uids := s.someUIDs(8, nil)
	if uids == nil {
		return nil
	}
	uid := s.oneIn(2)
	items := [...]string{"BODY[]", "BODY.PEEK[]", "RFC822", "RFC822.HEADER", "BODY.PEEK[TEXT]", "BODY.PEEK[HEADER]", "ENVELOPE",
		"BODY.PEEK[]<10.50>", "BINARY.PEEK[1]", "BINARY.SIZE[1]", "BODYSTRUCTURE", "PREVIEW", "EMAILID", "SAVEDATE", "RFC822.SIZE",
		"INTERNALDATE", "BODY.PEEK[HEADER.FIELDS (MESSAGE-ID SUBJECT)]"}
	item := items[s.rnd.IntN(len(items))]
	wanted := strings.Replace(strings.Replace(item, ".PEEK", "", 1), ".50>", ">", 1)
	x := &exchange{command: fmt.Sprintf("%sFETCH %s (UID %s)", form(uid), s.set(uid, uids), item), quiet: !uid}
	x.check = s.answered(uids, wanted)
	return []*exchange{x}
}

// catchUp is FETCH of what the session has not been told of its messages, or of everything.
func (s *modelSession) catchUp() []*exchange {
	b := s.box
	first := slices.IndexFunc(b.uids, func(uid uint32) bool { return b.msgs[uid] == nil || !b.msgs[uid].known })
	if first < 0 {
		if len(b.uids) == 0 || !s.oneIn(6) {
			return nil
		}
		first = 0
	}
	items := "(UID FLAGS" + s.modseqItem() + " BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])"
	x := &exchange{command: fmt.Sprintf("FETCH %d:%d %s", first+1, len(b.uids), items), quiet: true}
	x.check = func(x *exchange) error {
		for seq := first + 1; seq <= len(x.before); seq++ {
			if uid := b.uids[seq-1]; !x.seqs[uint32(seq)] && uid != 0 {
				b.owed[uid] = "FETCH left it out"
			}
		}
		return nil
	}
	return []*exchange{x}
}

// fetchChanged is FETCH with CHANGEDSINCE, and VANISHED.
func (s *modelSession) fetchChanged() []*exchange {
	if !s.knows || len(s.box.uids) == 0 || s.box.modseq == 0 {
		return nil
	}
	b := s.box
	since := max(b.modseq-min(b.modseq-1, uint64(s.rnd.IntN(100))), 1)
	vanished := ""
	if s.profile.qresync && s.oneIn(2) {
		vanished = " VANISHED"
	}
	x := &exchange{command: fmt.Sprintf("UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d%s)", since, vanished)}
	due := map[uint32]bool{}
	for uid, m := range b.msgs {
		if m.modseq > since {
			due[uid] = true
		}
	}
	x.check = func(x *exchange) error {
		for uid := range due {
			if x.fetched[uid] == nil {
				b.owed[uid] = "CHANGEDSINCE left it out"
			}
		}
		return nil
	}
	return []*exchange{x}
}

// storeFlags is STORE of flags that all change.
func (s *modelSession) storeFlags() []*exchange {
	uids := s.someUIDs(12, nil)
	if uids == nil {
		return nil
	}
	flags := []string{s.pick(stressFlags...)}
	if s.oneIn(3) {
		flags = append(flags, s.pick(stressFlags...))
	}
	return s.store(uids, s.pick("+", "-"), flags)
}

// storeAll is STORE that replaces all flags.
func (s *modelSession) storeAll() []*exchange {
	uids := s.someUIDs(12, func(uid uint32) bool { return s.run.facts.markerOf(s.box.validity, uid)%keepEvery == replaceable })
	if uids == nil {
		return nil
	}
	return s.store(uids, "", []string{s.pick(stressFlags...), s.pick(stressFlags...)})
}

// storeOwn changes the session's own keyword: no one else's change may undo it.
func (s *modelSession) storeOwn() []*exchange {
	uids := s.someUIDs(12, func(uid uint32) bool {
		marker := s.run.facts.markerOf(s.box.validity, uid)
		return marker != 0 && marker%keepEvery != replaceable
	})
	if uids == nil {
		return nil
	}
	return s.store(uids, s.pick("+", "-"), []string{s.own})
}

// storeDeleted changes \Deleted of messages that may go.
func (s *modelSession) storeDeleted() []*exchange {
	if len(s.box.uids) < 30 {
		return nil
	}
	uids := s.someUIDs(6, s.mayGo)
	if uids == nil {
		return nil
	}
	return s.store(uids, s.pick("+", "+", "-"), []string{`\Deleted`})
}

// modelStore is a STORE that was sent.
type modelStore struct {
	s      *modelSession
	uids   []uint32
	op     string
	flags  []string
	silent bool
	since  uint64 // UNCHANGEDSINCE; 0: not given
	was    map[uint32]modelMessage
}

// store is STORE.
func (s *modelSession) store(uids []uint32, op string, flags []string) []*exchange {
	if s.box.readOnly {
		return []*exchange{s.refused(fmt.Sprintf("UID STORE %s +FLAGS (%s)", formatUIDs(uids), flags[0]))}
	}
	st := &modelStore{s: s, uids: uids, op: op, flags: flags, silent: s.oneIn(2), was: map[uint32]modelMessage{}}
	uid := s.oneIn(2)
	x := &exchange{quiet: !uid, may: []string{"EXPUNGEISSUED"}, owned: map[uint32]bool{}}
	modifier, silent := "", ""
	if (s.knows || s.n == 9) && s.box.modseq > 0 && s.oneIn(3) {
		st.since = max(1, s.box.modseq-min(s.box.modseq-1, uint64(s.rnd.IntN(60))))
		modifier, x.uses = fmt.Sprintf("(UNCHANGEDSINCE %d) ", st.since), true
	}
	if st.silent {
		silent = ".SILENT"
	}
	for _, u := range uids {
		if m := s.box.msgs[u]; m != nil {
			st.was[u] = *m
		}
		if slices.Contains(flags, s.own) {
			delete(s.owned, messageKey{s.box.validity, u}) // until the reply
			x.owned[u] = false
		}
	}
	list := strings.Join(flags, " ")
	if len(flags) > 1 || s.oneIn(2) {
		list = "(" + list + ")"
	}
	x.command = fmt.Sprintf("%sSTORE %s %s%sFLAGS%s %s", form(uid), s.set(uid, uids), modifier, op, silent, list)
	x.check = func(x *exchange) error { return st.check(x, uid) }
	return []*exchange{x}
}

// refused is a command that a mailbox opened with EXAMINE must refuse.
func (s *modelSession) refused(command string) *exchange {
	return &exchange{command: command, may: []string{"READ-ONLY"}, check: func(x *exchange) error {
		if x.ok() {
			return errors.New("a read-only mailbox was changed")
		}
		return nil
	}}
}

// modified gives the UIDs of MODIFIED.
func (st *modelStore) modified(x *exchange, uid bool) ([]uint32, error) {
	if x.reply.codeWord() != "MODIFIED" {
		return nil, nil
	}
	list, err := parseUIDs(x.reply.code[1].text)
	if err != nil || st.since == 0 {
		return nil, fmt.Errorf("MODIFIED %v: %w", x.reply.code, err)
	}
	if uid {
		return list, nil
	}
	for i, seq := range list {
		if int(seq) > len(x.before) {
			return nil, fmt.Errorf("MODIFIED has %d", seq)
		}
		list[i] = x.before[seq-1]
	}
	return list, nil
}

// check looks whether the messages are as they should be now.
func (st *modelStore) check(x *exchange, uid bool) error {
	modified, err := st.modified(x, uid)
	if err != nil {
		return err
	}
	b := st.s.box
	for _, u := range modified {
		if !slices.Contains(st.uids, u) {
			return fmt.Errorf("MODIFIED has UID %d, which was not asked for", u)
		}
	}
	for _, u := range st.uids {
		m := b.msgs[u]
		was, had := st.was[u]
		if x.vanished[u] || m == nil {
			continue
		}
		if slices.Contains(modified, u) {
			if had && was.modseq != 0 && was.modseq <= st.since && (x.fetched[u] == nil || st.s.run.alone) {
				return fmt.Errorf("UID %d is MODIFIED, its MODSEQ was %d and no other was told", u, was.modseq)
			}
			continue
		}
		if st.since != 0 && had && was.modseq > st.since && !x.flagged[u] {
			// It may be gone and that not be told yet.
			b.owed[u] = "STORE has changed what was MODIFIED"
			continue
		}
		if slices.Contains(st.flags, st.s.own) {
			st.s.owned[messageKey{b.validity, u}] = st.op == "+"
		}
		if !st.silent && (!x.flagged[u] || slices.Contains(st.flags, st.s.own) && x.owned[u] != (st.op == "+")) {
			b.owed[u] = "STORE has not told the flags"
			continue
		}
		told := m.flags
		if had {
			m.flags = was.flags
		}
		switch st.compute(m); {
		case !x.flagged[u]:
		case st.silent && st.s.notifying: // they may have been told before the change
			m.known = false
		case st.s.run.alone && had && was.known && m.flags != told:
			return fmt.Errorf("UID %d has the flags (%s), and should have (%s)", u, told, m.flags)
		default:
			m.flags = told
		}
	}
	return nil
}

// compute does to the known flags what a silent STORE did.
func (st *modelStore) compute(m *modelMessage) {
	if !m.known {
		return
	}
	have := strings.Fields(m.flags)
	have = slices.DeleteFunc(have, func(f string) bool { return st.op == "" || slices.Contains(st.flags, f) })
	if st.op != "-" {
		have = append(have, st.flags...)
	}
	slices.Sort(have)
	m.flags = strings.Join(slices.Compact(have), " ")
}

// modelSearch is a search whose results can be told from what is known.
type modelSearch struct {
	key     string
	matches func(uid uint32, m *modelMessage) (match, sure bool)
	modseq  bool
}

// flagSearch makes a search by flags.
func (s *modelSession) flagSearch() modelSearch {
	names := map[string]string{`\Seen`: "SEEN", `\Flagged`: "FLAGGED", `\Answered`: "ANSWERED", `\Draft`: "DRAFT", `\Deleted`: "DELETED"}
	flag := s.pick(append([]string{`\Deleted`, s.own}, stressFlags...)...)
	name, system := names[flag]
	not := s.oneIn(2)
	key := name
	switch {
	case !system && not:
		key = "UNKEYWORD " + flag
	case !system:
		key = "KEYWORD " + flag
	case not && s.oneIn(2):
		key = "NOT " + name
	case not:
		key = "UN" + name
	}
	return modelSearch{key: key, matches: func(_ uint32, m *modelMessage) (bool, bool) {
		return slices.Contains(strings.Fields(m.flags), flag) != not, m.known
	}}
}

// someSearch makes a search.
func (s *modelSession) someSearch() modelSearch {
	switch s.rnd.IntN(7) {
	case 0:
		return modelSearch{key: "ALL", matches: func(uint32, *modelMessage) (bool, bool) { return true, true }}
	case 1:
		if uids := s.someUIDs(20, nil); uids != nil {
			return modelSearch{key: "UID " + formatUIDs(uids), matches: func(uid uint32, _ *modelMessage) (bool, bool) {
				return slices.Contains(uids, uid), true
			}}
		}
	case 2:
		if s.knows && s.box.modseq > 0 {
			since := max(1, s.box.modseq-min(s.box.modseq-1, uint64(s.rnd.IntN(60))))
			return modelSearch{key: fmt.Sprintf("MODSEQ %d", since), modseq: true, matches: func(_ uint32, m *modelMessage) (bool, bool) {
				return m.modseq >= since, m.modseq != 0
			}}
		}
	case 3:
		a, b := s.flagSearch(), s.flagSearch()
		return modelSearch{key: "OR " + a.key + " (" + b.key + ")", matches: func(uid uint32, m *modelMessage) (bool, bool) {
			x, sure := a.matches(uid, m)
			y, _ := b.matches(uid, m)
			return x || y, sure
		}}
	}
	return s.flagSearch()
}

// searchFlags is SEARCH for what the model knows.
func (s *modelSession) searchFlags() []*exchange { return []*exchange{s.search(s.someSearch())} }

// searchText is SEARCH for the text of one message and its copies.
func (s *modelSession) searchText() []*exchange {
	uids := s.someUIDs(1, func(uid uint32) bool { return s.run.facts.markerOf(s.box.validity, uid) != 0 })
	if uids == nil {
		return nil
	}
	marker := s.run.facts.markerOf(s.box.validity, uids[0])
	keys := []string{fmt.Sprintf("SUBJECT %q", fmt.Sprintf("number %06d", marker)), fmt.Sprintf("HEADER Message-ID <m%d@stress.test>", marker),
		fmt.Sprintf("TEXT %q", fmt.Sprintf("Message-ID: <m%d@stress", marker))}
	validity := s.box.validity
	return []*exchange{s.search(modelSearch{key: s.pick(keys...), matches: func(uid uint32, _ *modelMessage) (bool, bool) {
		have := s.run.facts.markerOf(validity, uid)
		return have == marker, have != 0
	}})}
}

// search makes a SEARCH of one of its forms.
func (s *modelSession) search(q modelSearch) *exchange {
	uid := s.oneIn(2)
	returns := s.pick("", "", "RETURN () ", "RETURN (ALL COUNT) ", "RETURN (MIN MAX ALL) ", "RETURN (ALL MIN COUNT) ", "RETURN (COUNT PARTIAL 1:1000) ")
	x := &exchange{command: form(uid) + "SEARCH " + returns + q.key, quiet: !uid, uses: q.modseq}
	x.check = func(x *exchange) error {
		extended := returns != "" || s.profile.rev2
		found, err := searchResult(x, extended, "SEARCH")
		if err != nil {
			return err
		}
		return s.checkFound(x, uid, found, q)
	}
	return x
}

// searchResult gives the numbers of SEARCH, SORT or ESEARCH, ascending but for SORT.
func searchResult(x *exchange, extended bool, name string) ([]uint32, error) {
	if extended {
		name = "ESEARCH"
	}
	i := slices.IndexFunc(x.data, func(r *wireReply) bool { return r.data[0].word() == name })
	if i < 0 {
		return nil, fmt.Errorf("no %s", name)
	}
	if extended {
		return extendedResult(x.data[i].data)
	}
	var found []uint32
	for _, t := range x.data[i].data[1:] {
		if t.kind == 'l' { // (MODSEQ n)
			break
		}
		n, ok := t.number()
		if !ok || n == 0 {
			return nil, fmt.Errorf("%q is not a number", t.text)
		}
		found = append(found, uint32(n))
	}
	return found, nil
}

// extendedResult gives the numbers of ESEARCH, whose parts must fit together.
func extendedResult(data []wireToken) (found []uint32, err error) {
	parts := map[string]wireToken{}
	for i := 1; i < len(data); i++ {
		switch name := data[i].word(); name {
		case "UID":
		case "MIN", "MAX", "COUNT", "ALL", "PARTIAL", "MODSEQ":
			if i+1 == len(data) {
				return nil, fmt.Errorf("%s without a value", name)
			}
			parts[name] = data[i+1]
			i++
		default:
			if data[i].kind != 'l' {
				return nil, fmt.Errorf("an unknown part %v", data[i])
			}
		}
	}
	list := parts["ALL"].text
	if p, ok := parts["PARTIAL"]; ok && len(p.list) == 2 && p.list[1].word() != "NIL" {
		list = p.list[1].text
	}
	if list != "" {
		if found, err = parseUIDs(list); err != nil {
			return nil, err
		}
	}
	if n, ok := parts["COUNT"]; ok && n.text != strconv.Itoa(len(found)) {
		return nil, fmt.Errorf("COUNT is %s of %d", n.text, len(found))
	}
	if _, ok := parts["MIN"]; ok && len(found) == 0 {
		return nil, errors.New("MIN of nothing")
	}
	if n, ok := parts["MIN"]; ok && n.text != fmt.Sprint(slices.Min(found)) {
		return nil, fmt.Errorf("MIN is %s of %v", n.text, found)
	}
	if n, ok := parts["MAX"]; ok && n.text != fmt.Sprint(slices.Max(found)) {
		return nil, fmt.Errorf("MAX is %s of %v", n.text, found)
	}
	return found, nil
}

// foundUIDs turns the result of a search into UIDs of the view as it was; those not told yet are left out.
func foundUIDs(x *exchange, uid bool, found []uint32) ([]uint32, error) {
	var uids []uint32
	for _, n := range found {
		if !uid {
			if int(n) > len(x.before) {
				return nil, fmt.Errorf("%d of %d messages is found", n, len(x.before))
			}
			n = x.before[n-1]
		} else if !slices.Contains(x.before, n) && !slices.Contains(x.before, 0) {
			return nil, fmt.Errorf("UID %d is found and not in the view", n)
		}
		if n != 0 {
			uids = append(uids, n)
		}
	}
	return uids, nil
}

// checkFound compares the result with the model: with what was known before, but for messages of which something was told
// since.
func (s *modelSession) checkFound(x *exchange, uid bool, found []uint32, q modelSearch) error {
	uids, err := foundUIDs(x, uid, found)
	if err != nil {
		return err
	}
	for _, u := range x.before {
		m := s.box.msgs[u]
		if u == 0 || m == nil || x.flagged[u] || x.fetched[u] != nil {
			continue
		}
		// Its flags may have been changed, and it removed, before that could be told.
		if match, sure := q.matches(u, m); sure && match != slices.Contains(uids, u) {
			s.box.owed[u] = fmt.Sprintf("%s finds it: %v, with the flags (%s) and MODSEQ %d", q.key, !match, m.flags, m.modseq)
		}
	}
	return nil
}

// sort is SORT and THREAD, which find what SEARCH finds and give it an order.
func (s *modelSession) sort() []*exchange {
	q, uid := s.someSearch(), s.oneIn(2)
	if q.modseq {
		return nil
	}
	if s.oneIn(3) {
		x := &exchange{command: form(uid) + "THREAD " + s.pick("REFERENCES", "ORDEREDSUBJECT", "REFS") + " UTF-8 " + q.key, quiet: !uid}
		x.check = func(x *exchange) error {
			found, err := threadResult(x)
			if err != nil {
				return err
			}
			return s.checkFound(x, uid, found, q)
		}
		return []*exchange{x}
	}
	criterion := s.pick("SUBJECT", "ARRIVAL", "SIZE", "REVERSE SUBJECT", "DATE SUBJECT")
	x := &exchange{command: fmt.Sprintf("%sSORT (%s) UTF-8 %s", form(uid), criterion, q.key), quiet: !uid}
	x.check = func(x *exchange) error {
		found, err := searchResult(x, false, "SORT")
		if err != nil {
			return err
		}
		if uid && strings.HasSuffix(criterion, "SUBJECT") && criterion != "DATE SUBJECT" {
			if err := s.checkOrder(x, found, criterion == "REVERSE SUBJECT"); err != nil {
				return err
			}
		}
		slices.Sort(found)
		return s.checkFound(x, uid, found, q)
	}
	return []*exchange{x}
}

// checkOrder looks whether messages come in the order of their subjects, which is that of their markers, and of their
// numbers where those are the same. One that is gone by the time it is sorted may come anywhere.
func (s *modelSession) checkOrder(x *exchange, uids []uint32, reverse bool) error {
	lastMarker, lastUID := 0, uint32(0)
	for _, u := range uids {
		marker := s.run.facts.markerOf(s.box.validity, u)
		if marker == 0 || x.vanished[u] || !slices.Contains(x.before, u) {
			continue
		}
		order := cmp.Compare(marker, lastMarker)
		if reverse {
			order = -order
		}
		if lastMarker != 0 && (order < 0 || order == 0 && u < lastUID) {
			return fmt.Errorf("UID %d (message %d) comes behind UID %d (message %d)", u, marker, lastUID, lastMarker)
		}
		lastMarker, lastUID = marker, u
	}
	return nil
}

// threadResult gives the numbers of THREAD, sorted; none comes twice.
func threadResult(x *exchange) ([]uint32, error) {
	i := slices.IndexFunc(x.data, func(r *wireReply) bool { return r.data[0].word() == "THREAD" })
	if i < 0 {
		return nil, errors.New("no THREAD")
	}
	var found []uint32
	var walk func(tokens []wireToken) error
	walk = func(tokens []wireToken) error {
		for _, t := range tokens {
			if t.kind == 'l' {
				if err := walk(t.list); err != nil {
					return err
				}
				continue
			}
			n, ok := t.number()
			if !ok || n == 0 {
				return fmt.Errorf("%q is not a number", t.text)
			}
			found = append(found, uint32(n))
		}
		return nil
	}
	if err := walk(x.data[i].data[1:]); err != nil {
		return nil, err
	}
	slices.Sort(found)
	if len(slices.Compact(slices.Clone(found))) != len(found) {
		return nil, fmt.Errorf("a message comes twice in %v", found)
	}
	return found, nil
}

// searchSaved is SEARCH RETURN (SAVE) and something with what it has saved, sent together.
func (s *modelSession) searchSaved() []*exchange {
	q := s.flagSearch()
	save := &exchange{command: "UID SEARCH RETURN (SAVE ALL) " + q.key}
	var saved []uint32
	save.check = func(x *exchange) error {
		found, err := searchResult(x, true, "")
		if err != nil {
			return err
		}
		saved = found
		return s.checkFound(x, true, found, q)
	}
	use := &exchange{command: "UID FETCH $ (FLAGS" + s.modseqItem() + ")"}
	use.check = func(x *exchange) error {
		for _, uid := range saved {
			if x.fetched[uid] == nil {
				s.box.owed[uid] = "FETCH $ left it out"
			}
		}
		return nil
	}
	return []*exchange{save, use}
}

// noop is NOOP and CHECK.
func (s *modelSession) noop() []*exchange {
	return []*exchange{{command: s.pick("NOOP", "NOOP", "CHECK")}}
}

// idle is IDLE for a moment.
func (s *modelSession) idle() []*exchange {
	return []*exchange{{command: "IDLE\r\n\x00DONE", pause: time.Duration(s.rnd.IntN(60)) * time.Millisecond}}
}
