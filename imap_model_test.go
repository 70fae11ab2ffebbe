package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A client that believes nothing but what it is told, and checks that it fits together: the message numbers, UIDs, flags
// and mod-sequences of the selected mailbox, and what it remembers of those that it has left.

// modelProfile is the kind of client that a session is.
type modelProfile struct {
	secure, compress, rev2, utf8, condstore, qresync bool
	startTLS, sasl                                   bool // STARTTLS; AUTHENTICATE instead of LOGIN
}

// modelSession is such a client.
type modelSession struct {
	run     *stress
	n       int
	profile modelProfile
	rnd     *rand.Rand
	own     string              // a keyword that no other session changes
	owned   map[messageKey]bool // whether messages have it, where that is known

	notes  map[string]string // its METADATA entries, by mailbox
	grants map[string]string // the rights that it has given, by mailbox

	conn  *modelConn // nil: not connected
	life  int        // of the server when the connection was made
	kills int        // how often it had been killed then
	tags  int
	done  int  // commands that were answered
	knows bool // CONDSTORE has been used: MODSEQ comes with FLAGS
	aside bool // a folder that may be deleted was selected on this connection

	notifying bool   // responses come between commands as well
	sent      uint64 // the clock when the last command was sent

	box        *modelBox            // nil: none is selected
	remembered map[string]*modelBox // by name, of a QRESYNC client
	trace      modelTrace
}

// modelBox is a mailbox as the client knows it.
type modelBox struct {
	name      string
	selection string // unlike that of any other SELECT
	validity  uint32
	readOnly  bool
	uids      []uint32 // by message number; 0: not told yet
	msgs      map[uint32]*modelMessage
	modseq    uint64            // everything up to it has been told
	seen      uint64            // the highest MODSEQ told
	owed      map[uint32]string // messages that must be gone, and why; they may have been removed after the last update
	overdue   map[uint32]string // those that the next update must tell
	recent    int               // as last told
	kills     int               // how often the server had been killed
	counted   bool              // EXISTS has come
	resyncing bool              // what QRESYNC tells is being told
	some      bool              // QRESYNC was asked for some of the messages only
	asked     []uint32          // for which

	names []string               // the flags that there are
	kept  map[string]*keptSearch // by tag
}

// modelMessage is what is known of a message.
type modelMessage struct {
	flags  string // sorted, without \Recent
	known  bool   // flags are known
	modseq uint64 // 0: not told
}

// messageKey names a message of an account.
type messageKey struct{ validity, uid uint32 }

// exchange is a command and what is said up to its tagged reply.
type exchange struct {
	command string          // without tag and CRLF; at each NUL the client waits for a continuation
	pause   time.Duration   // before the client goes on behind the first NUL
	quiet   bool            // EXPUNGE must not come (RFC 9051 §7.5.1)
	selects *modelBox       // of SELECT and EXAMINE
	may     []string        // response codes of a NO that is all right
	bye     bool            // BYE comes
	uses    bool            // it makes the server tell MODSEQ from now on
	owned   map[uint32]bool // messages whose keyword of the session's own it changes, and whether they had it when last told
	bare    bool            // FLAGS were asked for without MODSEQ
	check   func(x *exchange) error

	tag      string
	start    uint64   // the clock before any of its replies; when it was sent, unless they come between commands
	before   []uint32 // the view when its replies began
	data     []*wireReply
	updates  []*wireReply // of its own results, before the tagged reply
	codes    []*wireReply
	seqs     map[uint32]bool                 // message numbers that had a FETCH
	fetched  map[uint32]map[string]wireToken // by UID
	flagged  map[uint32]bool                 // UIDs whose flags were told
	vanished map[uint32]bool                 // UIDs told to be gone
	reply    *wireReply
}

var (
	errLost       = errors.New("the connection is lost")
	errRefused    = errors.New("the command is refused")
	errDeleted    = errors.New("the selected mailbox is deleted")
	errNoMoreNews = errors.New("there are no notifications any more")
)

// ok says whether the command succeeded.
func (x *exchange) ok() bool { return x.reply.status == "OK" }

// connect connects and logs in, as the profile wants it.
func (s *modelSession) connect() error {
	s.disconnect()
	port := "imap"
	if s.profile.secure {
		port = "imaps"
	}
	address, settings := s.run.server.address(port)
	s.life, s.kills = s.run.server.lives(), s.run.facts.killed()
	if !s.profile.secure {
		settings = nil
	}
	conn, err := dialModel(address, settings)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	s.conn, s.aside = conn, false
	if s.profile.startTLS {
		if err := s.do(&exchange{command: "STARTTLS"}); err != nil {
			return err
		}
		_, settings = s.run.server.address("imaps")
		s.conn.secure(settings)
	}
	return s.login()
}

// credentials makes the command that logs in.
func (s *modelSession) credentials() string {
	if !s.profile.sasl {
		return fmt.Sprintf("LOGIN %s %q", stressAccount, imapPassword)
	}
	response := base64.StdEncoding.EncodeToString([]byte("\x00" + stressAccount + "\x00" + imapPassword))
	return "AUTHENTICATE PLAIN" + s.pick(" ", "\r\n\x00") + response // at once, or when the server asks for it
}

// login logs in on an open connection.
func (s *modelSession) login() error {
	s.knows, s.notifying = false, false
	if err := s.do(&exchange{command: s.credentials()}); err != nil {
		return err
	}
	p := s.profile
	if p.compress {
		if err := s.do(&exchange{command: "COMPRESS DEFLATE"}); err != nil {
			return err
		}
		if err := s.conn.compress(); err != nil {
			return err
		}
	}
	names := ""
	for name, on := range map[string]bool{" IMAP4rev2": p.rev2, " UTF8=ACCEPT": p.utf8, " QRESYNC": p.qresync, " CONDSTORE": p.condstore} {
		if on {
			names += name
		}
	}
	if names == "" {
		return nil
	}
	x := &exchange{command: "ENABLE" + names}
	if err := s.do(x); err != nil {
		return err
	}
	if len(x.data) != 1 || len(x.data[0].data) != 1+len(strings.Fields(names)) {
		return fmt.Errorf("ENABLE%s is answered with %v", names, x.data)
	}
	s.knows = p.qresync || p.condstore
	return nil
}

// disconnect drops the connection. What was selected is remembered.
func (s *modelSession) disconnect() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
	s.leave()
}

// leave ends the selected state.
func (s *modelSession) leave() {
	if s.box != nil && s.profile.qresync {
		s.remembered[s.box.name] = s.box
	}
	s.box = nil
}

// do sends commands together and takes in what is said to them.
func (s *modelSession) do(xs ...*exchange) error {
	var b strings.Builder
	var rest []string
	tags := make([]string, len(xs))
	for i, x := range xs {
		s.tags++
		tags[i] = fmt.Sprintf("s%d.%d", s.n, s.tags)
		pieces := strings.Split(tags[i]+" "+x.command+"\r\n", "\x00")
		b.WriteString(pieces[0])
		rest = pieces[1:]
	}
	now := s.run.facts.now()
	start := now
	if s.notifying {
		start = s.sent
	}
	s.sent = now
	s.trace.note("C", b.String())
	if err := s.send(b.String()); err != nil {
		return err
	}
	for i, x := range xs {
		x.tag, x.start = tags[i], start
		if err := s.await(x, tags[i], rest); err != nil {
			return fmt.Errorf("%.300q: %w", x.command, err)
		}
		s.done++
		s.run.facts.used(x.command)
	}
	return nil
}

func (s *modelSession) send(text string) error {
	if _, err := io.WriteString(s.conn.w, text); err != nil {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return nil
}

// await reads up to the tagged reply. rest is what is to be sent at continuations.
func (s *modelSession) await(x *exchange, tag string, rest []string) error {
	x.seqs, x.fetched, x.flagged, x.vanished = map[uint32]bool{}, map[uint32]map[string]wireToken{}, map[uint32]bool{}, map[uint32]bool{}
	s.knows = s.knows || x.uses
	closed := x.selects != nil && s.box != nil && (s.profile.rev2 || s.profile.qresync)
	if x.selects != nil && !closed { // otherwise at CLOSED
		s.enter(x)
	}
	if s.box != nil {
		x.before = slices.Clone(s.box.uids)
	}
	for {
		_ = s.conn.SetReadDeadline(time.Now().Add(time.Minute))
		r, err := readReply(s.conn.r)
		if err != nil {
			return fmt.Errorf("%w: %w", errLost, err)
		}
		s.trace.note("S", r.raw)
		switch r.tag {
		case tag:
			x.reply = r
			return s.finish(x, closed)
		case "+":
			if len(rest) == 0 {
				return fmt.Errorf("an unexpected continuation %q", r.raw)
			}
			time.Sleep(x.pause)
			s.trace.note("C", rest[0])
			if err := s.send(rest[0]); err != nil {
				return err
			}
			rest = rest[1:]
		case "*":
			if err := s.take(x, r); err != nil {
				return fmt.Errorf("at %.300q: %w", r.raw, err)
			}
		default:
			return fmt.Errorf("an unexpected tag in %q", r.raw)
		}
	}
}

// enter begins the selected state that a SELECT asks for.
func (s *modelSession) enter(x *exchange) {
	s.leave()
	s.box = x.selects
	s.aside = s.aside || !isShared(s.box.name)
	s.box.resume(s)
	x.before = slices.Clone(s.box.uids)
}

// finish looks at the tagged reply, and at what must have been said by now.
func (s *modelSession) finish(x *exchange, closed bool) error {
	r := x.reply
	if s.box != nil && !isShared(s.box.name) && r.codeWord() == "NONEXISTENT" {
		return errDeleted
	}
	if r.status != "OK" && !(r.status == "NO" && slices.Contains(x.may, r.codeWord())) {
		return fmt.Errorf("%w: %s", errRefused, r.raw)
	}
	if closed && !slices.ContainsFunc(x.codes, func(r *wireReply) bool { return r.codeWord() == "CLOSED" }) {
		return errors.New("no CLOSED")
	}
	if x.selects != nil {
		if !x.ok() {
			s.box = nil
			return nil
		}
		if err := s.box.resynced(); err != nil {
			return err
		}
		if x.reply.codeWord() != map[bool]string{true: "READ-ONLY", false: "READ-WRITE"}[s.box.readOnly] {
			return fmt.Errorf("%q", r.raw)
		}
	}
	if s.box != nil {
		if err := s.takeCode(x, r); err != nil {
			return err
		}
	}
	if x.check != nil {
		if err := x.check(x); err != nil {
			return err
		}
	}
	if s.box == nil {
		return nil
	}
	if err := s.box.named(x.flagged); err != nil {
		return err
	}
	if !x.quiet {
		return s.box.inStep()
	}
	return nil
}

// named looks whether FLAGS has told all the flags of messages by the end of the command.
func (b *modelBox) named(uids map[uint32]bool) error {
	for uid := range uids {
		if m := b.msgs[uid]; m != nil {
			for flag := range strings.FieldsSeq(m.flags) {
				if !slices.Contains(b.names, flag) {
					return fmt.Errorf("UID %d has %s, which FLAGS has not", uid, flag)
				}
			}
		}
	}
	return nil
}

// inStep is called when all that has happened must have been told.
func (b *modelBox) inStep() error {
	for uid, why := range b.overdue {
		if slices.Contains(b.uids, uid) && !isShared(b.name) {
			return errDeleted // while the command ran, and BYE comes next
		}
		if slices.Contains(b.uids, uid) {
			return fmt.Errorf("UID %d is still there: %s", uid, why)
		}
	}
	b.owed, b.overdue = map[uint32]string{}, b.owed
	b.reached(b.seen)
	return b.keptInStep()
}

// reached notes that everything up to modseq has been told, if it has.
func (b *modelBox) reached(modseq uint64) {
	for _, uid := range b.uids {
		if m := b.msgs[uid]; m == nil || !m.known {
			return
		}
	}
	b.modseq = max(b.modseq, modseq)
}

// resume begins a SELECT with what the client remembers.
func (b *modelBox) resume(s *modelSession) {
	b.msgs, b.owed, b.kills = map[uint32]*modelMessage{}, map[uint32]string{}, s.kills
	if !b.resyncing {
		return
	}
	old := s.remembered[b.name]
	for uid, m := range old.msgs {
		if old.kills != b.kills { // MODSEQ may be what it was before a change that was lost
			m.modseq = 0
		}
		if !b.some || slices.Contains(b.asked, uid) {
			b.msgs[uid] = m
		}
	}
}

// resynced is called when QRESYNC has told all: the messages remembered, without those that have vanished and with those
// that were told, are all there are.
func (b *modelBox) resynced() error {
	if !b.resyncing {
		return nil
	}
	b.resyncing = false
	if b.some {
		return nil
	}
	all := slices.Sorted(maps.Keys(b.msgs))
	if len(all) != len(b.uids) {
		return fmt.Errorf("%d messages after QRESYNC, not %d: %v", len(b.uids), len(all), all)
	}
	for i, uid := range all {
		if b.uids[i] != 0 && b.uids[i] != uid {
			return fmt.Errorf("message %d after QRESYNC is UID %d, not %d", i+1, b.uids[i], uid)
		}
	}
	b.uids = all
	return nil
}

// take takes an untagged response in.
func (s *modelSession) take(x *exchange, r *wireReply) error {
	if r.status != "" {
		if r.status == "BYE" {
			if strings.Contains(r.text, "mailbox has been deleted") {
				return errDeleted
			}
			if x.bye {
				return nil
			}
			return fmt.Errorf("%w: %s", errLost, r.raw)
		}
		x.codes = append(x.codes, r)
		switch {
		case r.codeWord() == "NOTIFICATIONOVERFLOW":
			return errNoMoreNews
		case r.codeWord() == "CLOSED" && x.selects != nil:
			s.enter(x)
		}
		return s.takeCode(x, r)
	}
	if len(r.data) == 0 {
		return errors.New("an empty response")
	}
	if n, ok := r.data[0].number(); ok && len(r.data) > 1 {
		if s.box == nil {
			return errors.New("no mailbox is selected")
		}
		return s.takeNumbered(x, uint32(n), r.data)
	}
	if r.data[0].word() == "VANISHED" {
		if s.box == nil {
			return errors.New("no mailbox is selected")
		}
		return s.takeVanished(x, r.data[1:])
	}
	switch r.data[0].word() {
	case "FLAGS":
		return s.takeFlagNames(r)
	case "ESEARCH":
		return s.takeESearch(x, r)
	case "STATUS":
		if len(r.data) != 3 {
			return errors.New("STATUS has a name and a list")
		}
		if err := s.checkStatus(x, r.data[1].text, r.data[2].list); err != nil {
			return err
		}
	}
	x.data = append(x.data, r)
	return nil
}

// takeCode looks at a response code.
func (s *modelSession) takeCode(x *exchange, r *wireReply) error {
	if len(r.code) < 2 || s.box == nil {
		return nil
	}
	n, _ := r.code[1].number()
	switch r.codeWord() {
	case "UIDVALIDITY":
		s.box.validity = uint32(n)
		if old := s.remembered[s.box.name]; s.box.resyncing && old.validity != s.box.validity {
			s.box.resyncing = false
			clear(s.box.msgs)
		}
		if isShared(s.box.name) {
			return s.run.facts.opened(s.box.name, s.box.validity)
		}
	case "UIDNEXT":
		return s.run.facts.numbers(s.box.validity, x.start, n, 0)
	case "HIGHESTMODSEQ":
		if x.selects != nil {
			s.box.seen = max(s.box.seen, n)
			if s.box.resyncing { // what was remembered is brought up to it
				s.box.modseq = n
			}
			if s.box.resyncing && n < s.remembered[s.box.name].modseq {
				return errors.New("HIGHESTMODSEQ is lower than it was")
			}
			return s.run.facts.numbers(s.box.validity, x.start, 0, n)
		}
		if r.tag != "*" { // of EXPUNGE and CLOSE: those that are gone have been told
			s.box.reached(n)
		}
	}
	return nil
}

// takeNumbered takes EXISTS, RECENT, EXPUNGE and FETCH in.
func (s *modelSession) takeNumbered(x *exchange, n uint32, data []wireToken) error {
	b := s.box
	switch data[1].word() {
	case "EXISTS":
		if b.counted {
			if err := b.resynced(); err != nil {
				return err
			}
		}
		b.counted = true
		if int(n) < len(b.uids) {
			return fmt.Errorf("there were %d", len(b.uids))
		}
		more := make([]uint32, int(n)-len(b.uids))
		b.uids = append(b.uids, more...)
		if s.notifying { // it may have come before the command was read
			x.before = append(x.before, more...)
		}
		return nil
	case "RECENT":
		if s.profile.rev2 {
			return errors.New("RECENT in IMAP4rev2")
		}
		if int(n) > len(b.uids) {
			return fmt.Errorf("there are %d", len(b.uids))
		}
		b.recent = int(n)
		return nil
	}
	if n < 1 || int(n) > len(b.uids) {
		return fmt.Errorf("there are %d messages", len(b.uids))
	}
	switch data[1].word() {
	case "EXPUNGE":
		if x.quiet || s.profile.qresync {
			return errors.New("EXPUNGE must not come now")
		}
		s.remove(x, int(n)-1, b.uids[n-1])
		return nil
	case "FETCH":
		if len(data) != 3 || data[2].kind != 'l' || len(data[2].list)%2 != 0 {
			return errors.New("not a list of items")
		}
		return s.takeFetch(x, n, data[2].list)
	}
	return errors.New("an unknown response")
}

// remove takes a message out of the model.
func (s *modelSession) remove(x *exchange, at int, uid uint32) {
	s.box.uids = slices.Delete(s.box.uids, at, at+1)
	if uid == 0 {
		return
	}
	x.vanished[uid] = true
	delete(s.box.msgs, uid)
	s.run.facts.gone(s.box.validity, uid)
}

// takeVanished takes VANISHED in.
func (s *modelSession) takeVanished(x *exchange, data []wireToken) error {
	if !s.profile.qresync {
		return errors.New("QRESYNC is not enabled")
	}
	earlier := len(data) == 2 && len(data[0].list) == 1 && data[0].list[0].word() == "EARLIER"
	uids, err := parseUIDs(data[len(data)-1].text)
	if err != nil {
		return err
	}
	if !earlier {
		if x.quiet {
			return errors.New("VANISHED must not come now")
		}
		for _, uid := range uids { // one may have come and gone before it could be told
			if s.box.resyncing && s.box.msgs[uid] == nil {
				s.box.msgs[uid] = &modelMessage{}
			}
		}
		if err := s.box.resynced(); err != nil {
			return err
		}
	}
	for _, uid := range uids {
		switch {
		case !earlier:
			at := s.box.place(uid)
			if at < 0 {
				return fmt.Errorf("UID %d cannot be among %v", uid, s.box.uids)
			}
			s.remove(x, at, uid)
		case slices.Contains(s.box.uids, uid):
			return fmt.Errorf("UID %d is in the view", uid)
		default:
			x.vanished[uid] = true
			delete(s.box.msgs, uid)
			s.run.facts.gone(s.box.validity, uid)
		}
	}
	return nil
}

// place finds a message's index: where it is known to stand, or must stand among the others if it has not been told.
func (b *modelBox) place(uid uint32) int {
	after := 0 // behind the last one that is lower
	for i, have := range b.uids {
		switch {
		case have == uid:
			return i
		case have != 0 && have < uid:
			after = i + 1
		case have > uid:
			if after < i {
				return after
			}
			return -1
		}
	}
	if after < len(b.uids) {
		return after
	}
	return -1
}

// takeFetch takes a FETCH response in.
func (s *modelSession) takeFetch(x *exchange, seq uint32, list []wireToken) error {
	b := s.box
	items := map[string]wireToken{}
	for i := 0; i < len(list); i += 2 {
		name := strings.ToUpper(list[i].text)
		if _, twice := items[name]; twice && name != "FLAGS" {
			return fmt.Errorf("%s comes twice", name)
		}
		items[name] = list[i+1]
	}
	x.seqs[seq] = true
	uid := b.uids[seq-1]
	if item, ok := items["UID"]; ok {
		n, _ := item.number()
		if err := b.setUID(seq, uint32(n)); err != nil {
			return err
		}
		uid = uint32(n)
	}
	if uid == 0 {
		return nil
	}
	if x.fetched[uid] == nil {
		x.fetched[uid] = map[string]wireToken{}
	}
	maps.Copy(x.fetched[uid], items)
	if err := s.takeFlags(x, uid, items); err != nil {
		return err
	}
	return s.takeText(uid, items)
}

// setUID notes the UID of a message number. UIDs ascend.
func (b *modelBox) setUID(seq, uid uint32) error {
	at := int(seq) - 1
	if uid == 0 || b.uids[at] != 0 && b.uids[at] != uid {
		return fmt.Errorf("message %d is UID %d, not %d", seq, b.uids[at], uid)
	}
	for i, have := range b.uids {
		if have != 0 && (i < at && have >= uid || i > at && have <= uid) {
			return fmt.Errorf("message %d is UID %d, so %d cannot be UID %d", i+1, have, seq, uid)
		}
	}
	b.uids[at] = uid
	return nil
}

// takeFlags takes FLAGS and MODSEQ in.
func (s *modelSession) takeFlags(x *exchange, uid uint32, items map[string]wireToken) error {
	b := s.box
	flags, hasFlags := items["FLAGS"]
	modseq := uint64(0)
	if item, ok := items["MODSEQ"]; ok {
		if len(item.list) != 1 {
			return errors.New("MODSEQ is not one number")
		}
		if modseq, _ = item.list[0].number(); modseq == 0 {
			return errors.New("MODSEQ is 0")
		}
	} else if hasFlags && s.knows && !x.bare {
		return errors.New("FLAGS without MODSEQ")
	}
	names := sortedWords(flags.list, `\Recent`)
	if err := s.run.facts.told(b.validity, uid, x.start, s.kills, modseq, names, hasFlags); err != nil {
		return err
	}
	m := b.msgs[uid]
	if m == nil {
		m = &modelMessage{}
		b.msgs[uid] = m
	}
	if modseq != 0 {
		if modseq < m.modseq {
			return fmt.Errorf("MODSEQ was %d", m.modseq)
		}
		if m.modseq != 0 && modseq > m.modseq && modseq <= b.modseq && !b.resyncing && !b.some {
			return fmt.Errorf("the change from MODSEQ %d was not told while that up to %d was", m.modseq, b.modseq)
		}
		if hasFlags && m.known && modseq == m.modseq && m.flags != names {
			return fmt.Errorf("the flags were (%s) at this MODSEQ", m.flags)
		}
		b.seen = max(b.seen, modseq)
	}
	if hasFlags {
		if err := s.takeOwn(x, uid, flags.list); err != nil {
			return err
		}
		m.flags, m.known = names, true
		x.flagged[uid] = true
		m.modseq = 0
	}
	if modseq != 0 {
		m.modseq = modseq
	}
	return nil
}

// takeOwn looks at the flags that are the session's own business. Nobody else changes its keyword, not even a crash.
func (s *modelSession) takeOwn(x *exchange, uid uint32, flags []wireToken) error {
	key := messageKey{s.box.validity, uid}
	own := slices.ContainsFunc(flags, func(t wireToken) bool { return t.text == s.own })
	if was, known := s.owned[key]; known && was != own {
		return fmt.Errorf("%s is %v and should be %v", s.own, own, was)
	}
	if _, changing := x.owned[uid]; changing {
		x.owned[uid] = own
	} else {
		s.owned[key] = own
	}
	if !slices.ContainsFunc(flags, func(t wireToken) bool { return t.text == `\Recent` }) {
		return nil
	}
	if s.profile.rev2 {
		return errors.New(`\Recent in IMAP4rev2`)
	}
	if s.box.readOnly {
		return nil
	}
	return s.run.facts.isRecent(s.box.validity, uid, s.kills, s.box.selection)
}

// takeText compares what is told of a message's text with the text.
func (s *modelSession) takeText(uid uint32, items map[string]wireToken) error {
	facts, validity := s.run.facts, s.box.validity
	for name, value := range items {
		switch {
		case name == "INTERNALDATE" || name == "EMAILID" || name == "SAVEDATE" || name == "PREVIEW":
			if err := facts.isFixed(validity, uid, name, fmt.Sprint(value)); err != nil {
				return err
			}
		case name == "ENVELOPE":
			if len(value.list) != 10 {
				return errors.New("an ENVELOPE has ten fields")
			}
			if err := facts.isMarked(validity, uid, markerIn(value.list[9].text)); err != nil {
				return err
			}
		case name == "BODY[]" || name == "RFC822" || name == "BODY[HEADER]" || name == "RFC822.HEADER" || strings.HasPrefix(name, "BODY[HEADER.FIELDS"):
			if err := facts.isMarked(validity, uid, markerIn(value.text)); err != nil {
				return err
			}
		}
	}
	text := facts.textOf(facts.markerOf(validity, uid))
	if text == nil {
		return nil
	}
	for name, value := range items {
		if err := text.compare(name, value); err != nil {
			return err
		}
	}
	return nil
}

// compare compares an item of FETCH with what it should be.
func (t *stressText) compare(name string, got wireToken) error {
	if t.delivered { // fields stand before it
		switch name {
		case "BODY[]", "RFC822":
			if !strings.HasSuffix(got.text, t.text) {
				return fmt.Errorf("%s is %q and should end in %q", name, got.text, t.text)
			}
			return nil
		case "RFC822.SIZE", "BODY[HEADER]", "RFC822.HEADER", "BODY[]<10>":
			return nil
		}
	}
	header, body, _ := strings.Cut(t.text, "\r\n\r\n")
	header += "\r\n\r\n"
	want := ""
	switch name {
	case "RFC822.SIZE":
		want = fmt.Sprint(len(t.text))
	case "BODY[]", "RFC822":
		want = t.text
	case "BODY[HEADER]", "RFC822.HEADER":
		want = header
	case "BODY[TEXT]", "RFC822.TEXT":
		want = body
	case "BODY[]<10>":
		want = t.text[10 : 10+len(got.text)]
		if len(got.text) != min(50, len(t.text)-10) {
			return fmt.Errorf("%s has %d bytes", name, len(got.text))
		}
	case "BINARY[1]":
		want = t.first
	case "BINARY.SIZE[1]":
		want = fmt.Sprint(len(t.first))
	default:
		return nil
	}
	if got.text != want {
		return fmt.Errorf("%s is %q and should be %q", name, got.text, want)
	}
	return nil
}

// modelTrace keeps what was said: the last lines, or everything if it is to be written to a file.
type modelTrace struct {
	all   bool
	lines []string
}

// note adds what one side (C or S) said.
func (t *modelTrace) note(side, text string) {
	const kept = 400
	if len(t.lines) >= 2*kept && !t.all {
		t.lines = append(t.lines[:0], t.lines[kept:]...)
	}
	t.lines = append(t.lines, fmt.Sprintf("%s %s: %.600q", time.Now().Format("05.000000"), side, text))
}

// last gives the last n lines.
func (t *modelTrace) last(n int) string { return strings.Join(t.lines[max(0, len(t.lines)-n):], "\n") }

// save writes everything to a file if the run has failed and that is wanted.
func (t *modelTrace) save(r *stress, name string) {
	if dir := os.Getenv("APPLIANCE_TEST_TRACE"); dir != "" && r.t.Failed() {
		if err := os.WriteFile(filepath.Join(dir, name+".txt"), []byte(t.last(len(t.lines))), 0o600); err != nil {
			r.t.Error(err)
		}
	}
}
