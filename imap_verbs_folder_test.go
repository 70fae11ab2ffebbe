package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// More of what a model session does: new messages, copies, removals, and mailboxes as a whole.

// stressCrowd is how many messages a folder may have before no more are put into it.
const stressCrowd = 80

// roomIn says whether a folder may have more messages.
func (s *modelSession) roomIn(name string) bool {
	return s.box == nil || s.box.name != name || len(s.box.uids) < stressCrowd
}

// target picks where messages go.
func (s *modelSession) target() string {
	if s.oneIn(8) {
		return s.sideName()
	}
	name := s.pick("INBOX", "INBOX", "Work", "Archive")
	if s.box != nil && s.oneIn(2) {
		name = s.box.name
	}
	return name
}

// sideName picks one of the folders that come and go.
func (s *modelSession) sideName() string { return s.pick("Side", "Side/one", "Side/two", "Other") }

// targetCodes are the response codes that are all right when a folder may be gone.
func targetCodes(name string, more ...string) []string {
	if isShared(name) {
		return more
	}
	return append(more, "TRYCREATE", "NONEXISTENT")
}

// codeOf finds the reply or the untagged OK with a response code.
func codeOf(x *exchange, word string) *wireReply {
	for _, r := range append(x.codes, x.reply) {
		if r.codeWord() == word {
			return r
		}
	}
	return nil
}

// checkGiven takes in the UIDs that APPENDUID or COPYUID give to messages.
func (s *modelSession) checkGiven(x *exchange, name string, r *wireReply, markers []int) error {
	if r == nil || len(r.code) < 3 {
		return errors.New("no UIDs are given")
	}
	validity, _ := r.code[1].number()
	uids, err := parseUIDs(r.code[len(r.code)-1].text)
	if err != nil || len(uids) != len(markers) || !slices.IsSorted(uids) {
		return fmt.Errorf("%d UIDs for %d messages: %w", len(uids), len(markers), err)
	}
	if isShared(name) {
		if err := s.run.facts.opened(name, uint32(validity)); err != nil {
			return err
		}
	}
	return s.run.facts.given(uint32(validity), x.start, uids, markers)
}

// newMessage makes what stands behind APPEND's mailbox for one message.
func (s *modelSession) newMessage(waits bool) (argument string, marker int) {
	marker, text := s.run.facts.newText("")
	flags := ""
	if s.oneIn(2) {
		flags = "(" + s.pick(stressFlags...) + ") "
	}
	if s.oneIn(4) {
		flags += `"01-Feb-2026 12:00:00 +0000" `
	}
	return flags + literal(text.text, waits), marker
}

// append is APPEND, of several messages at times, and of two commands at once at others.
func (s *modelSession) append() []*exchange {
	name := s.target()
	if !s.roomIn(name) {
		return nil
	}
	one := func(waits bool, n int) *exchange {
		x := &exchange{command: "APPEND " + name, may: targetCodes(name)}
		var markers []int
		for range n {
			argument, marker := s.newMessage(waits)
			x.command += " " + argument
			markers = append(markers, marker)
		}
		x.check = func(x *exchange) error {
			if !x.ok() {
				return nil
			}
			return s.checkGiven(x, name, codeOf(x, "APPENDUID"), markers)
		}
		return x
	}
	if s.oneIn(4) {
		return []*exchange{one(false, 1), one(s.oneIn(2), 1)}
	}
	return []*exchange{one(s.oneIn(3), 1+s.rnd.IntN(3))}
}

// catenate is APPEND CATENATE of a new header and the text of a message that is there.
func (s *modelSession) catenate() []*exchange {
	facts, b := s.run.facts, s.box
	uids := s.someUIDs(1, func(uid uint32) bool {
		text := facts.textOf(facts.markerOf(b.validity, uid))
		return text != nil && text.plain
	})
	name := s.target()
	if uids == nil || !s.roomIn(name) {
		return nil
	}
	old := facts.textOf(facts.markerOf(b.validity, uids[0]))
	marker, text := facts.newText(old.first)
	header := strings.TrimSuffix(text.text, old.first)
	url := fmt.Sprintf("/%s;UIDVALIDITY=%d/;UID=%d/;SECTION=TEXT", b.name, b.validity, uids[0])
	x := &exchange{command: fmt.Sprintf("APPEND %s CATENATE (TEXT %s URL %q)", name, literal(header, false), url), may: targetCodes(name, "BADURL")}
	x.check = func(x *exchange) error {
		if !x.ok() {
			if x.reply.codeWord() == "BADURL" && isShared(b.name) {
				b.owed[uids[0]] = "CATENATE has not found it"
			}
			return nil
		}
		return s.checkGiven(x, name, codeOf(x, "APPENDUID"), []int{marker})
	}
	return []*exchange{x}
}

// replace is REPLACE of a message that may go.
func (s *modelSession) replace() []*exchange {
	uids := s.someUIDs(1, s.mayGo)
	if uids == nil || s.box.readOnly {
		return nil
	}
	b, uid, name := s.box, s.oneIn(2), s.target()
	argument, marker := s.newMessage(s.oneIn(2))
	x := &exchange{command: fmt.Sprintf("%sREPLACE %s %s %s", form(uid), s.set(uid, uids), name, argument), may: targetCodes(name)}
	x.check = func(x *exchange) error {
		if !x.ok() {
			return nil
		}
		b.owed[uids[0]] = "REPLACE"
		return s.checkGiven(x, name, codeOf(x, "APPENDUID"), []int{marker})
	}
	return []*exchange{x}
}

// copy is COPY.
func (s *modelSession) copy() []*exchange {
	name := s.target()
	if !s.roomIn(name) {
		return nil
	}
	return s.transfer("COPY", name, s.someUIDs(4, nil))
}

// move is MOVE of messages that may go, at times of all of them.
func (s *modelSession) move() []*exchange {
	if s.box.readOnly {
		return nil
	}
	return s.transfer("MOVE", s.target(), s.someUIDs(s.some(4, 4, stressCrowd), s.mayGo))
}

// some picks a number.
func (s *modelSession) some(of ...int) int { return of[s.rnd.IntN(len(of))] }

// transfer is COPY or MOVE.
func (s *modelSession) transfer(verb, name string, uids []uint32) []*exchange {
	if uids == nil {
		return nil
	}
	b, uid := s.box, s.oneIn(2)
	x := &exchange{command: fmt.Sprintf("%s%s %s %s", form(uid), verb, s.set(uid, uids), name), may: targetCodes(name, "EXPUNGEISSUED")}
	x.check = func(x *exchange) error {
		if !x.ok() {
			return nil
		}
		r := codeOf(x, "COPYUID")
		if r == nil || len(r.code) != 4 {
			return fmt.Errorf("no COPYUID for %v", uids)
		}
		done, err := parseUIDs(r.code[2].text)
		if err != nil || !isPart(done, uids) || verb == "COPY" && len(done) != len(uids) {
			return fmt.Errorf("COPYUID is not that of %v: %v, %w", uids, done, err)
		}
		var markers []int
		for _, u := range done { // what others have taken away meanwhile a MOVE leaves out
			markers = append(markers, s.run.facts.markerOf(b.validity, u))
		}
		if verb == "MOVE" {
			for _, u := range uids {
				b.owed[u] = "MOVE"
			}
		}
		if err := s.checkGiven(x, name, r, markers); err != nil {
			return err
		}
		return s.ownCopies(r, done)
	}
	return []*exchange{x}
}

// isPart says that ascending UIDs are all among others.
func isPart(uids, all []uint32) bool {
	return slices.IsSorted(uids) && !slices.ContainsFunc(uids, func(uid uint32) bool { return !slices.Contains(all, uid) })
}

// ownCopies notes that copies have the session's keyword where the messages had it.
func (s *modelSession) ownCopies(r *wireReply, from []uint32) error {
	validity, _ := r.code[1].number()
	to, err := parseUIDs(r.code[3].text)
	if err != nil {
		return err
	}
	for i, u := range from {
		if own, known := s.owned[messageKey{s.box.validity, u}]; known {
			s.owned[messageKey{uint32(validity), to[i]}] = own
		}
	}
	return nil
}

// expunge is EXPUNGE and UID EXPUNGE.
func (s *modelSession) expunge() []*exchange {
	if s.box.readOnly {
		return nil
	}
	b := s.box
	x := &exchange{command: "EXPUNGE"}
	uids := s.known()
	if s.oneIn(2) {
		if uids = s.someUIDs(30, nil); uids == nil {
			return nil
		}
		x.command = "UID EXPUNGE " + formatUIDs(uids)
	}
	deleted := func(uid uint32) bool {
		m := b.msgs[uid]
		return m != nil && m.known && slices.Contains(strings.Fields(m.flags), `\Deleted`)
	}
	told := map[uint32]bool{}
	for uid, m := range b.msgs {
		told[uid] = m.known
	}
	was := slices.DeleteFunc(uids, func(uid uint32) bool { return !deleted(uid) })
	x.check = func(x *exchange) error {
		for _, uid := range was {
			if !x.flagged[uid] {
				b.owed[uid] = "it was \\Deleted and is not expunged"
			}
		}
		for uid := range x.vanished {
			if s.run.alone && told[uid] && !slices.Contains(was, uid) {
				return fmt.Errorf("%v were \\Deleted, and %v are gone", was, x.vanished)
			}
		}
		return nil
	}
	return []*exchange{x}
}

// status is STATUS of any folder.
func (s *modelSession) status() []*exchange {
	name := s.pick(append([]string{s.sideName()}, stressFolders...)...)
	highest := ""
	if s.knows {
		highest = " HIGHESTMODSEQ"
	}
	x := &exchange{command: fmt.Sprintf("STATUS %s (MESSAGES UIDNEXT UIDVALIDITY UNSEEN DELETED SIZE%s)", name, highest), may: targetCodes(name)}
	x.check = func(x *exchange) error {
		if !x.ok() {
			return nil
		}
		asked := func(r *wireReply) bool { // and not told unasked
			return r.data[0].word() == "STATUS" && r.data[1].text == name && len(r.data[2].list) >= 12
		}
		if !slices.ContainsFunc(x.data, asked) {
			return errors.New("no STATUS")
		}
		return nil
	}
	return []*exchange{x}
}

// checkStatus compares the items of STATUS with each other and with what is known.
func (s *modelSession) checkStatus(x *exchange, name string, list []wireToken) error {
	items := map[string]uint64{}
	for i := 0; i+1 < len(list); i += 2 {
		items[list[i].word()], _ = list[i+1].number()
	}
	size, ok := items["SIZE"]
	if items["UNSEEN"] > items["MESSAGES"] || items["DELETED"] > items["MESSAGES"] || ok && size < items["MESSAGES"] {
		return fmt.Errorf("this cannot be: %v", items)
	}
	validity := uint32(items["UIDVALIDITY"])
	if validity == 0 { // not asked for
		return nil
	}
	if isShared(name) {
		if err := s.run.facts.opened(name, validity); err != nil {
			return err
		}
	}
	return s.run.facts.numbers(validity, x.start, items["UIDNEXT"], items["HIGHESTMODSEQ"])
}

// list is LIST: the folders that nobody deletes are in it.
func (s *modelSession) list() []*exchange {
	x := &exchange{command: `LIST "" *` + s.pick("", " RETURN (SUBSCRIBED CHILDREN)", " RETURN (SPECIAL-USE STATUS (MESSAGES UIDNEXT UIDVALIDITY))")}
	x.check = func(x *exchange) error {
		names := map[string]bool{}
		for _, r := range x.data {
			if r.data[0].word() != "LIST" {
				continue
			}
			name := r.data[3].text
			if names[name] && !s.notifying {
				return fmt.Errorf("%s comes twice", name)
			}
			names[name] = true
		}
		for _, name := range stressFolders {
			if !names[name] {
				return fmt.Errorf("%s is missing", name)
			}
		}
		return nil
	}
	return []*exchange{x}
}

// sideFolder makes, deletes, renames and subscribes folders that come and go.
func (s *modelSession) sideFolder() []*exchange {
	name := s.sideName()
	if s.box != nil && !isShared(s.box.name) { // DELETE of the selected one ends its selection
		return nil
	}
	command, may := "", []string{"NONEXISTENT", "ALREADYEXISTS"}
	switch s.rnd.IntN(6) {
	case 0, 1:
		command = "CREATE " + name
	case 2:
		command = "DELETE " + name
	case 3:
		command = "RENAME " + name + " " + s.sideName()
		may = append(may, "CANNOT") // below itself
	default:
		command = s.pick("SUBSCRIBE ", "UNSUBSCRIBE ") + name
	}
	return []*exchange{{command: command, may: may}}
}

// selectAny is SELECT or EXAMINE.
func (s *modelSession) selectAny() []*exchange {
	name := s.pick("INBOX", "INBOX", "INBOX", "Work", "Work", "Archive")
	if s.oneIn(12) {
		name = s.sideName()
	}
	return s.open(name, s.oneIn(6))
}

// open selects a folder, with what the session remembers of it, and asks for what it does not know.
func (s *modelSession) open(name string, readOnly bool) []*exchange {
	s.run.selections.Add(1)
	box := &modelBox{name: name, readOnly: readOnly, selection: fmt.Sprintf("selection %d of session %d", s.run.selections.Load(), s.n)}
	x := &exchange{command: "SELECT " + name, selects: box, may: targetCodes(name)}
	if readOnly {
		x.command = "EXAMINE " + name
	}
	old := s.remembered[name]
	if s.box != nil && s.box.name == name && s.profile.qresync {
		old = s.box // as it is when the command is sent, for this client sends nothing else with it
	}
	switch {
	case old != nil && old.modseq > 0:
		x.command += s.resyncParameter(old, box)
		if !box.some {
			return []*exchange{x}
		}
	case s.knows && s.oneIn(2), s.n == 8 && s.oneIn(4):
		x.command += " (CONDSTORE)"
		x.uses = true
	}
	all := &exchange{command: "UID FETCH 1:* (FLAGS" + s.modseqItem() + ")"}
	if x.uses && !s.knows {
		all.command = "UID FETCH 1:* (FLAGS MODSEQ)"
	}
	if !isShared(name) { // it may not be there, and then nothing is selected
		return []*exchange{x}
	}
	all.check = func(*exchange) error {
		box.some = false
		for uid := range box.msgs {
			if !slices.Contains(box.uids, uid) {
				return fmt.Errorf("UID %d is not there, and QRESYNC has not told so", uid)
			}
		}
		return nil
	}
	return []*exchange{x, all}
}

// resyncParameter is SELECT's QRESYNC with what is remembered of a mailbox: all of it, a part, or with numbers and UIDs.
func (s *modelSession) resyncParameter(old, box *modelBox) string {
	box.resyncing, box.seen = true, 0
	all := slices.Sorted(func(yield func(uint32) bool) {
		for uid := range old.msgs {
			if !yield(uid) {
				return
			}
		}
	})
	parameter := fmt.Sprintf("%d %d", old.validity, old.modseq)
	if len(all) < 4 || s.oneIn(2) || !isShared(box.name) {
		return " (QRESYNC (" + parameter + "))"
	}
	if s.oneIn(2) {
		box.some, box.asked = true, all[s.rnd.IntN(len(all)):]
		parameter += " " + formatUIDs(box.asked)
	}
	if slices.Equal(all, old.uids) && s.oneIn(2) { // some numbers and their UIDs
		var seqs, uids []uint32
		for i := 0; i < len(all); i += 1 + i {
			seqs, uids = append(seqs, uint32(i+1)), append(uids, all[i])
		}
		parameter += fmt.Sprintf(" (%s %s)", formatUIDs(seqs), formatUIDs(uids))
	}
	return " (QRESYNC (" + parameter + "))"
}

// closeFolder is CLOSE and UNSELECT.
func (s *modelSession) closeFolder() []*exchange {
	b := s.box
	x := &exchange{command: s.pick("CLOSE", "CLOSE", "UNSELECT")}
	if x.command == "CLOSE" && !b.readOnly {
		x.check = func(*exchange) error {
			for uid, m := range b.msgs { // they are gone without a word
				if m.known && slices.Contains(strings.Fields(m.flags), `\Deleted`) {
					delete(b.msgs, uid)
				}
			}
			s.leave()
			return nil
		}
		return []*exchange{x}
	}
	x.check = func(*exchange) error {
		s.leave()
		return nil
	}
	return []*exchange{x}
}

// reconnect ends the connection in one of several ways, and begins anew.
func (s *modelSession) reconnect() []*exchange {
	switch {
	case s.oneIn(3): // rudely
		s.disconnect()
		return nil
	case s.oneIn(2) && !s.profile.compress:
		x := &exchange{command: "UNAUTHENTICATE"}
		x.check = func(*exchange) error {
			s.leave()
			return s.login()
		}
		return []*exchange{x}
	}
	x := &exchange{command: "LOGOUT", bye: true}
	x.check = func(*exchange) error {
		s.disconnect()
		return nil
	}
	return []*exchange{x}
}
