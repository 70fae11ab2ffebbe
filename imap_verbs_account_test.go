package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// More of what a model session does: what concerns the account as a whole, and what is told unasked.

// stressFriend is somebody to whom rights are given. Nobody logs in with it.
const stressFriend = "friend@home.lan"

// ask is a question that changes nothing.
func (s *modelSession) ask() []*exchange {
	ask := func(command, answer string) []*exchange {
		return []*exchange{{command: command, check: func(x *exchange) error {
			if !slices.ContainsFunc(x.data, func(r *wireReply) bool { return r.data[0].word() == answer }) {
				return fmt.Errorf("no %s", answer)
			}
			return nil
		}}}
	}
	switch s.rnd.IntN(7) {
	case 0:
		return ask("CAPABILITY", "CAPABILITY")
	case 1:
		return ask("NAMESPACE", "NAMESPACE")
	case 2:
		return ask(`ID ("name" "stress")`, "ID")
	case 3:
		return ask(`LSUB "" "*"`, "LSUB")
	case 4:
		return ask("LISTRIGHTS INBOX "+stressFriend, "LISTRIGHTS")
	}
	return s.quota()
}

// quota is what concerns the account's quota, which nobody reaches.
func (s *modelSession) quota() []*exchange {
	if s.oneIn(2) {
		return []*exchange{{command: `SETQUOTA "" (MESSAGE 1)`, may: []string{"NOPERM"}, check: func(x *exchange) error {
			if x.ok() {
				return errors.New("a client has changed its quota")
			}
			return nil
		}}}
	}
	return []*exchange{{command: s.pick(`GETQUOTA ""`, "GETQUOTAROOT "+s.pick(stressFolders...)), check: func(x *exchange) error {
		_, err := heldMessages(x)
		return err
	}}}
}

// heldMessages gives how many messages the account has by a QUOTA response.
func heldMessages(x *exchange) (uint64, error) {
	for _, r := range x.data {
		if r.data[0].word() != "QUOTA" {
			continue
		}
		if len(r.data) != 3 || len(r.data[2].list) != 6 {
			return 0, fmt.Errorf("%q", r.raw)
		}
		kib, _ := r.data[2].list[1].number()
		held, ok := r.data[2].list[4].number()
		limit, _ := r.data[2].list[5].number()
		if !ok || kib > held*8 || kib*16 < held || limit != uint64(stressQuota.Messages) {
			return 0, fmt.Errorf("this cannot be: %q", r.raw)
		}
		return held, nil
	}
	return 0, errors.New("no QUOTA")
}

// searchAll is ESEARCH of several mailboxes for one message: those found are that message, and in the selected mailbox they
// are all of it.
func (s *modelSession) searchAll() []*exchange {
	facts := s.run.facts
	marker := 1 + s.rnd.IntN(200)
	if s.box != nil {
		if uids := s.someUIDs(1, func(uid uint32) bool { return facts.markerOf(s.box.validity, uid) != 0 }); uids != nil {
			marker = facts.markerOf(s.box.validity, uids[0])
		}
	}
	sources := map[string][]string{"personal": nil, "inboxes": nil, "mailboxes (INBOX Work)": {"INBOX", "Work"}, "subtree Archive": {"Archive"}}
	where := s.pick("personal", "inboxes", "mailboxes (INBOX Work)", "subtree Archive")
	in := " IN (" + where + ")"
	names := sources[where]
	if s.box != nil && s.oneIn(3) {
		if in, names = s.pick("", " IN (selected)"), nil; isShared(s.box.name) { // another one may have a new name
			names = []string{s.box.name}
		}
	}
	x := &exchange{command: fmt.Sprintf("ESEARCH%s RETURN (%s) SUBJECT %q", in, s.pick("ALL", "ALL COUNT", "MIN ALL"), fmt.Sprintf("number %06d", marker))}
	x.check = func(x *exchange) error {
		found, err := s.foundEverywhere(x, names, marker)
		if err != nil || s.box == nil || names != nil && !slices.Contains(names, s.box.name) {
			return err
		}
		validity := s.box.validity
		return s.checkFound(x, true, found[validity], modelSearch{key: x.command, matches: func(uid uint32, _ *modelMessage) (bool, bool) {
			have := facts.markerOf(validity, uid)
			return have == marker, have != 0
		}})
	}
	return []*exchange{x}
}

// foundEverywhere gives the UIDs that ESEARCH has found, by UIDVALIDITY. names are the mailboxes that were asked for, nil for all.
func (s *modelSession) foundEverywhere(x *exchange, names []string, marker int) (map[uint32][]uint32, error) {
	found := map[uint32][]uint32{}
	for _, r := range x.data {
		if r.data[0].word() != "ESEARCH" {
			continue
		}
		if len(r.data) < 3 || len(r.data[1].list) != 6 || r.data[1].list[2].word() != "MAILBOX" || r.data[2].word() != "UID" {
			return nil, fmt.Errorf("%q", r.raw)
		}
		name := r.data[1].list[3].text
		n, _ := r.data[1].list[5].number()
		validity := uint32(n)
		if _, twice := found[validity]; twice || names != nil && !slices.Contains(names, name) {
			return nil, fmt.Errorf("%s comes twice or was not asked for", name)
		}
		if isShared(name) {
			if err := s.run.facts.opened(name, validity); err != nil {
				return nil, err
			}
		}
		uids, err := extendedResult(r.data)
		if err != nil {
			return nil, err
		}
		if len(uids) == 0 {
			return nil, fmt.Errorf("%s has no results and is told", name)
		}
		for _, uid := range uids {
			if err := s.run.facts.isMarked(validity, uid, marker); err != nil {
				return nil, err
			}
		}
		found[validity] = uids
	}
	return found, nil
}

// annotate sets an entry of the session's own on a mailbox, or looks whether it is as the session has left it.
func (s *modelSession) annotate() []*exchange {
	name := s.pick(stressFolders...)
	entry := fmt.Sprintf("/private/vendor/stress/s%d", s.n)
	if s.oneIn(2) {
		value, text := fmt.Sprintf("note %d", s.rnd.IntN(1000)), "NIL"
		if s.oneIn(4) {
			value = ""
		} else {
			text = fmt.Sprintf("%q", value)
		}
		return []*exchange{s.setOwn(s.notes, name, value, fmt.Sprintf("SETMETADATA %s (%s %s)", name, entry, text))}
	}
	was, known := s.notes[name]
	x := &exchange{command: fmt.Sprintf("GETMETADATA %s %s", name, entry)}
	x.check = func(x *exchange) error {
		value := ""
		for _, r := range x.data {
			if r.data[0].word() == "METADATA" && len(r.data) == 3 && len(r.data[2].list) == 2 && r.data[2].list[1].kind == 's' {
				value = r.data[2].list[1].text
			}
		}
		if known && value != was {
			return fmt.Errorf("the entry is %q and was set to %q", value, was)
		}
		return nil
	}
	return []*exchange{x}
}

// setOwn is a command that sets what only this session sets. Until it is answered nobody knows which value it has.
func (s *modelSession) setOwn(values map[string]string, name, value, command string) *exchange {
	delete(values, name)
	return &exchange{command: command, check: func(*exchange) error {
		values[name] = value
		return nil
	}}
}

// grant changes the rights of one identifier on one mailbox, which are this session's business alone, or looks what they
// are. Those of the account itself are never less than what it needs.
func (s *modelSession) grant() []*exchange {
	kinds := [...]string{stressFriend, "anyone", "authenticated", "-" + stressFriend, "-anyone", "-authenticated"}
	id, name := kinds[s.n%len(kinds)], stressFolders[s.n/len(kinds)%len(stressFolders)]
	rights := s.pick("lr", "lrs", "lrswi", "lrswite")
	if strings.HasPrefix(id, "-") {
		rights = "p" // for posting, which means nothing here
	}
	switch s.rnd.IntN(4) {
	case 0:
		return []*exchange{s.setOwn(s.grants, name, sortedLetters(rights), fmt.Sprintf("SETACL %s %s %s", name, id, rights))}
	case 1:
		return []*exchange{s.setOwn(s.grants, name, "", fmt.Sprintf("DELETEACL %s %s", name, id))}
	case 2:
		return []*exchange{{command: "MYRIGHTS " + name, check: func(x *exchange) error {
			i := slices.IndexFunc(x.data, func(r *wireReply) bool { return r.data[0].word() == "MYRIGHTS" })
			if i < 0 || !strings.HasPrefix(strings.ReplaceAll(x.data[i].data[2].text, "p", ""), "lrwstiekxa") {
				return errors.New("the owner may not do everything")
			}
			return nil
		}}}
	}
	was, known := s.grants[name]
	return []*exchange{{command: "GETACL " + name, check: func(x *exchange) error {
		i := slices.IndexFunc(x.data, func(r *wireReply) bool { return r.data[0].word() == "ACL" })
		if i < 0 || len(x.data[i].data)%2 != 0 {
			return errors.New("no ACL")
		}
		have, list := "", x.data[i].data[2:]
		for j := 0; j < len(list); j += 2 {
			if list[j].text == id {
				have = sortedLetters(strings.Trim(list[j+1].text, "cd"))
			}
		}
		if known && have != was {
			return fmt.Errorf("%s may %q and was given %q", id, have, was)
		}
		return nil
	}}}
}

// sortedLetters sorts rights.
func sortedLetters(rights string) string {
	letters := []byte(rights)
	slices.Sort(letters)
	return string(letters)
}

// keptSearch is a search of the selected mailbox that the server keeps up to date (RFC 5267).
type keptSearch struct {
	q     modelSearch
	uids  map[uint32]bool
	doubt map[uint32]string // messages that were wrong at the last update, and what was known of them
}

// keepSearch is SEARCH with UPDATE, and CANCELUPDATE.
func (s *modelSession) keepSearch() []*exchange {
	const most = 3
	b := s.box
	if len(b.kept) == most || len(b.kept) > 0 && s.oneIn(2) {
		for tag := range b.kept {
			x := &exchange{command: fmt.Sprintf("CANCELUPDATE %q", tag)}
			x.check = func(*exchange) error {
				delete(b.kept, tag)
				return nil
			}
			return []*exchange{x}
		}
	}
	q := s.someSearch()
	x := &exchange{command: "UID SEARCH RETURN (UPDATE ALL) " + q.key, uses: q.modseq}
	x.check = func(x *exchange) error {
		found, err := searchResult(x, true, "")
		if err != nil {
			return err
		}
		kept := &keptSearch{q: q, uids: map[uint32]bool{}}
		for _, uid := range found {
			kept.uids[uid] = true
		}
		if codeOf(x, "NOUPDATE") != nil {
			return errors.New("NOUPDATE")
		}
		for _, r := range x.updates {
			if err := kept.update(r); err != nil {
				return err
			}
		}
		if b.kept == nil {
			b.kept = map[string]*keptSearch{}
		}
		b.kept[x.tag] = kept
		return s.checkFound(x, true, found, q)
	}
	return []*exchange{x}
}

// takeESearch takes an ESEARCH response in: results, or what is new in those of a search that is kept up to date.
func (s *modelSession) takeESearch(x *exchange, r *wireReply) error {
	if len(r.data) < 2 || len(r.data[1].list) < 2 || r.data[1].list[0].word() != "TAG" {
		return errors.New("no correlator")
	}
	tag := r.data[1].list[1].text
	isUpdate := slices.ContainsFunc(r.data, func(t wireToken) bool { return t.word() == "ADDTO" || t.word() == "REMOVEFROM" })
	switch {
	case tag == x.tag && !isUpdate:
		x.data = append(x.data, r)
	case tag == x.tag:
		x.updates = append(x.updates, r)
	case s.box == nil || s.box.kept[tag] == nil || !isUpdate:
		return errors.New("there is no such search")
	default:
		return s.box.kept[tag].update(r)
	}
	return nil
}

// update takes ADDTO and REMOVEFROM in.
func (k *keptSearch) update(r *wireReply) error {
	for i := 2; i < len(r.data); i++ {
		what := r.data[i].word()
		if what == "UID" {
			continue
		}
		if what != "ADDTO" && what != "REMOVEFROM" || i+1 == len(r.data) || len(r.data[i+1].list)%2 != 0 {
			return fmt.Errorf("an update is %q", r.raw)
		}
		list := r.data[i+1].list
		for j := 1; j < len(list); j += 2 {
			uids, err := parseUIDs(list[j].text)
			if err != nil {
				return err
			}
			for _, uid := range uids {
				if k.uids[uid] == (what == "ADDTO") {
					return fmt.Errorf("%s of UID %d, which is a result: %v", what, uid, k.uids[uid])
				}
				k.uids[uid] = what == "ADDTO"
			}
		}
		i++
	}
	return nil
}

// keptInStep compares the searches that are kept up to date with what is known, when all that has happened must have been
// told. One that is wrong twice without any news is wrong.
func (b *modelBox) keptInStep() error {
	for tag, k := range b.kept {
		doubt := map[uint32]string{}
		for _, uid := range b.uids {
			m := b.msgs[uid]
			if uid == 0 || m == nil {
				continue
			}
			if match, sure := k.q.matches(uid, m); sure && match != k.uids[uid] {
				doubt[uid] = fmt.Sprintf("(%s) MODSEQ %d", m.flags, m.modseq)
				if k.doubt[uid] == doubt[uid] {
					return fmt.Errorf("UID %d with %s is a result of %s, %s: %v", uid, doubt[uid], tag, k.q.key, !match)
				}
			}
		}
		k.doubt = doubt
	}
	return nil
}

// notify is NOTIFY, after which responses come between commands. Expunges do not: message numbers must hold.
func (s *modelSession) notify() []*exchange {
	if s.notifying || !s.profile.rev2 && !s.profile.qresync { // who is not told CLOSED cannot tell of which mailbox a response is
		return nil
	}
	x := &exchange{command: "NOTIFY SET " + s.pick("", "STATUS ") + "(selected-delayed (MessageNew (UID FLAGS) MessageExpunge FlagChange)) " +
		"(personal (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange MailboxMetadataChange))"}
	x.check = func(*exchange) error {
		s.notifying = true
		return nil
	}
	return []*exchange{x}
}

// takeFlagNames takes FLAGS in. It comes with SELECT and whenever the set has grown, during any command (RFC 9051 §7).
func (s *modelSession) takeFlagNames(r *wireReply) error {
	if s.box == nil {
		return errors.New("no mailbox is selected")
	}
	if len(r.data) != 2 || r.data[1].kind != 'l' {
		return errors.New("FLAGS is a list")
	}
	names := strings.Fields(sortedWords(r.data[1].list, ""))
	for _, name := range [...]string{`\Seen`, `\Answered`, `\Flagged`, `\Deleted`, `\Draft`} {
		if !slices.Contains(names, name) {
			return fmt.Errorf("without %s", name)
		}
	}
	s.box.names = names
	return nil
}
