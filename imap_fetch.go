package main

// FETCH and UID FETCH: RFC 9051 §6.4.5, RFC 3501 §6.4.5, RFC 3516 (BINARY), RFC
// 7162 §3.1.4 (CHANGEDSINCE and MODSEQ) and §3.2.6 (VANISHED). What lists of messages need comes from
// the cache; text comes straight from the file.

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/emersion/go-imap/v2"
)

const (
	fetchBatch    = 256       // messages looked up at a time
	fetchArena    = 512 << 10 // bytes of cached values copied at a time, and one value more
	fetchMaxItems = 1000      // items of one FETCH
	fetchFlush    = 16 << 10  // bytes gathered before they go to the connection's buffer
	fetchWhole    = 64 << 10  // bytes of a message that is read at once where all of it is needed
	fetchSmall    = 12 << 10  // bytes of a message that is read at once whatever is needed of it
)

// fetchKind is one kind of FETCH data item.
type fetchKind uint8

const (
	fetchUID fetchKind = iota
	fetchFlags
	fetchDate
	fetchSize
	fetchModSeq
	fetchSaved // RFC 8514
	fetchEnvelope
	fetchBody
	fetchStructure
	fetchSection
	fetchEmailID
	fetchThreadID
	fetchPreview
)

// fetchItem is one item that is asked for.
type fetchItem struct {
	kind    fetchKind
	section *bodySection // of fetchSection
	lazy    bool         // of fetchPreview
}

// fetchRequest is what a FETCH asks of each message.
type fetchRequest struct {
	items []fetchItem
	since uint64 // CHANGEDSINCE; 0: all messages

	vanished bool          // VANISHED: tell of those that are gone as well
	partial  *partialRange // PARTIAL (RFC 9394 §3.2)

	flags, modseq bool // FLAGS and MODSEQ are among the items
	full          bool // sizes or dates are needed
	cached        bool // something of cachedStructure is needed
	tree          bool // the tree is needed
	seen          bool // \Seen is set
	file          bool // some section comes from the file
	whole         bool // some section is all of the text
	derived       bool // something of fetchDerived is needed
}

// add adds an item.
func (q *fetchRequest) add(kind fetchKind, section *bodySection) {
	q.items = append(q.items, fetchItem{kind: kind, section: section})
	switch kind {
	case fetchFlags:
		q.flags = true
	case fetchModSeq:
		q.modseq = true
	case fetchDate, fetchSize:
		q.full = true
	case fetchEnvelope, fetchBody, fetchStructure:
		q.cached = true
	case fetchSection:
		q.addSection(section)
	case fetchEmailID, fetchPreview:
		q.derived = true
	}
}

// addSection notes what a section needs.
func (q *fetchRequest) addSection(b *bodySection) {
	q.seen = q.seen || !b.peek
	if b.listed != 0 {
		q.cached = true
		return
	}
	q.file = true
	q.whole = q.whole || len(b.path) == 0 && (b.kind == sectionBody || b.kind == sectionText)
	if len(b.path) > 0 || b.kind != sectionBody {
		q.cached, q.tree = true, true
	}
}

// has says whether an item of the kind is asked for already.
func (q *fetchRequest) has(kind fetchKind) bool {
	for _, item := range q.items {
		if item.kind == kind {
			return true
		}
	}
	return false
}

// fetch is FETCH and UID FETCH.
func (s *imapSession) fetch(cmd *imapCommand) error {
	if err := cmd.sp(); err != nil {
		return err
	}
	set, err := cmd.numSet(cmd.uid)
	if err != nil {
		return err
	}
	if err := cmd.sp(); err != nil {
		return err
	}
	q, err := cmd.parseFetch()
	if err != nil {
		return err
	}
	if err := cmd.end(); err != nil {
		return err
	}
	if q.vanished && (!s.qresync || !cmd.uid || q.since == 0) { // RFC 7162 §3.2.6
		return imapBad("VANISHED needs QRESYNC enabled, UID FETCH and CHANGEDSINCE")
	}
	uids, err := s.resolve(set)
	if err != nil {
		return err
	}
	uids = partialUIDs(q.partial, uids)
	if q.modseq || q.since > 0 {
		s.enableCondstore()
		if !q.modseq { // RFC 7162 §3.1.4.1
			q.add(fetchModSeq, nil)
		}
	}
	if q.vanished {
		if err := s.fetchVanished(q, set); err != nil {
			return err
		}
	}
	if q.since > 0 {
		q.since = s.view.Folder().KnownSince(q.since)
	}
	f := fetcher{s: s, q: q, folder: s.view.Folder(), w: s.c.Writer()}
	defer f.close()
	return f.run(uids)
}

// parseFetch reads the items and the modifiers of a FETCH.
func (c *imapCommand) parseFetch() (*fetchRequest, error) {
	q := new(fetchRequest)
	if c.uid {
		q.add(fetchUID, nil)
	}
	if err := c.parseFetchItems(q); err != nil {
		return nil, err
	}
	if !c.accept(' ') {
		return q, nil
	}
	err := c.list(func() error {
		switch c.keyword() {
		case "CHANGEDSINCE":
		case "VANISHED":
			q.vanished = true
			return nil
		case "PARTIAL":
			if !c.uid || q.partial != nil {
				return imapBad("There may be one PARTIAL, and only with UID FETCH")
			}
			err := c.sp()
			if err == nil {
				q.partial, err = c.partialRange()
			}
			return err
		default:
			return c.expected("CHANGEDSINCE, VANISHED or PARTIAL before this")
		}
		if err := c.sp(); err != nil {
			return err
		}
		n, err := c.number64()
		q.since = n
		if err == nil && n == 0 {
			return c.expected("a number above 0")
		}
		return err
	})
	return q, err
}

// parseFetchItems reads one item, a macro, or a list of items.
func (c *imapCommand) parseFetchItems(q *fetchRequest) error {
	if c.peek() == '(' {
		before := len(q.items)
		err := c.list(func() error { return c.parseFetchItem(q, c.keyword()) })
		if err == nil && len(q.items) == before && !c.uid {
			return imapBad("The list of items is empty")
		}
		return err
	}
	word := c.keyword()
	switch word { // RFC 9051 §6.4.5: macros stand alone
	case "ALL", "FAST", "FULL":
		for _, kind := range [...]fetchKind{fetchFlags, fetchDate, fetchSize} {
			q.add(kind, nil)
		}
		if word != "FAST" {
			q.add(fetchEnvelope, nil)
		}
		if word == "FULL" {
			q.add(fetchBody, nil)
		}
		return nil
	}
	return c.parseFetchItem(q, word)
}

// fetchNames are the items that are a name alone.
var fetchNames = map[string]fetchKind{
	"UID": fetchUID, "FLAGS": fetchFlags, "INTERNALDATE": fetchDate, "RFC822.SIZE": fetchSize, "MODSEQ": fetchModSeq, "SAVEDATE": fetchSaved,
	"ENVELOPE": fetchEnvelope, "BODYSTRUCTURE": fetchStructure, "EMAILID": fetchEmailID, "THREADID": fetchThreadID,
}

// parseFetchItem reads the item whose name is word.
func (c *imapCommand) parseFetchItem(q *fetchRequest, word string) error {
	if len(q.items) >= fetchMaxItems {
		return imapNo("LIMIT", "Too many items are asked for")
	}
	if kind, ok := fetchNames[word]; ok {
		if !q.has(kind) {
			q.add(kind, nil)
		}
		return nil
	}
	switch word {
	case "BODY":
		if c.peek() != '[' {
			q.add(fetchBody, nil)
			return nil
		}
		return c.addSection(q, "BODY", false)
	case "PREVIEW":
		return c.parsePreview(q)
	case "BODY.PEEK":
		return c.addSection(q, "BODY", true)
	case "BINARY":
		return c.addSection(q, "BINARY", false)
	case "BINARY.PEEK":
		return c.addSection(q, "BINARY", true)
	case "BINARY.SIZE":
		return c.addSection(q, "BINARY.SIZE", true)
	case "RFC822":
		q.add(fetchSection, &bodySection{label: []byte(word)})
	case "RFC822.HEADER":
		q.add(fetchSection, &bodySection{label: []byte(word), kind: sectionHeader, peek: true})
	case "RFC822.TEXT":
		q.add(fetchSection, &bodySection{label: []byte(word), kind: sectionText})
	default:
		return c.expected("the name of an item before this")
	}
	return nil
}

// addSection reads the section of an item and adds it.
func (c *imapCommand) addSection(q *fetchRequest, name string, peek bool) error {
	b, err := c.parseSection(name)
	if err != nil {
		return err
	}
	b.peek = peek
	q.add(fetchSection, b)
	return nil
}

// fetcher answers one FETCH.
type fetcher struct {
	s      *imapSession
	q      *fetchRequest
	folder *Folder
	w      io.Writer

	buf     []byte // what is to be written next
	msgs    []Msg  // of the batch
	uids    []imap.UID
	copies  []cachedStructure // of the batch, aligned with msgs; envelope is nil where there is none
	arena   []byte            // what copies refer to
	changed []imap.UID        // of the batch: \Seen was set
	looked  int               // of msgs that copies has
	seq     int               // sequence number of the last message found in the view
	scratch []byte            // copyBuffer bytes, made at first use
	text    []byte            // for the message in hand, up to fetchWhole bytes

	derived map[CacheKind]map[imap.UID]string // of the batch, if q.derived

	structures structureReader

	file *Message // of the message in hand
	tree treePart // of the message in hand, if q.tree

	upto  uint64     // messages that were changed after it are left out; 0: none
	later []imap.UID // which they are

	gone       bool  // some messages are no longer there
	unknownCTE bool  // some encoding is unknown
	failed     error // some message could not be read
}

// run answers for the UIDs in batches. RFC 2180 §4.1.2: those that are gone are
// left out and the reply says so.
func (f *fetcher) run(uids []imap.UID) error {
	for len(uids) > 0 {
		n := min(len(uids), fetchBatch)
		if err := f.batch(uids[:n]); err != nil {
			return err
		}
		uids = uids[n:]
		f.flush()
		if _, err := f.w.Write(nil); err != nil { // the client has gone
			break
		}
	}
	switch {
	case f.failed != nil:
		return f.failed
	case f.unknownCTE:
		return imapNo("UNKNOWN-CTE", "The encoding of some part is not known")
	case f.gone:
		return imapOK("EXPUNGEISSUED", "Some of the messages are no longer there")
	}
	return nil
}

// close closes the message that is open.
func (f *fetcher) close() {
	if f.file != nil {
		f.file.Close()
		f.file = nil
	}
}

// flush gives what was gathered to the connection's buffer.
func (f *fetcher) flush() {
	if len(f.buf) > 0 {
		f.s.write(f.buf)
		f.buf = f.buf[:0]
	}
}

// batch answers for some hundreds of messages.
func (f *fetcher) batch(uids []imap.UID) error {
	var err error
	f.msgs, err = f.folder.Messages(f.msgs, uids, f.q.full)
	if err != nil {
		return err
	}
	f.gone = f.gone || len(f.msgs) < len(uids)
	if f.q.since > 0 {
		f.keepChanged()
	}
	if f.upto > 0 {
		f.leaveLater()
	}
	f.changed = f.changed[:0]
	if f.q.seen && f.s.may(RightSeen) {
		f.setSeen()
	}
	f.looked = 0
	if f.q.derived {
		f.lookUpDerived()
	}
	for i := range f.msgs {
		if f.q.cached && i >= f.looked {
			f.lookUp(i)
			f.readMissing(i)
		}
		f.message(&f.msgs[i], i)
		f.close()
		if len(f.buf) >= fetchFlush {
			f.flush()
		}
	}
	return nil
}

// keepChanged leaves the messages out that have not changed since CHANGEDSINCE.
func (f *fetcher) keepChanged() {
	kept := f.msgs[:0]
	for i := range f.msgs {
		if f.msgs[i].ModSeq > f.q.since {
			kept = append(kept, f.msgs[i])
		}
	}
	f.msgs = kept
}

// leaveLater leaves out the messages that were changed after upto.
func (f *fetcher) leaveLater() {
	kept := f.msgs[:0]
	for i := range f.msgs {
		if f.msgs[i].ModSeq > f.upto {
			f.later = append(f.later, f.msgs[i].UID)
		} else {
			kept = append(kept, f.msgs[i])
		}
	}
	f.msgs = kept
}

// setSeen sets \Seen on the batch as one change. Where it cannot, the text is
// given all the same.
func (f *fetcher) setSeen() {
	f.uids = f.uids[:0]
	for i := range f.msgs {
		if f.msgs[i].Flags&FlagSeen == 0 {
			f.uids = append(f.uids, f.msgs[i].UID)
		}
	}
	if len(f.uids) == 0 {
		return
	}
	changed, _, modseq, err := f.folder.SetFlags(f.uids, FlagsAdd, []imap.Flag{imap.FlagSeen}, NoUnchangedSince)
	if err != nil {
		f.s.c.Log.Error("marking messages as seen", "error", err)
	}
	if len(changed) == 0 {
		return
	}
	f.s.view.Own(modseq)
	f.changed = append(f.changed, changed...)
	now, err := f.folder.Messages(nil, changed, false) // others may have changed more
	if err != nil {
		f.s.c.Log.Error("reading the flags of messages marked as seen", "error", err)
	}
	for i := range f.msgs {
		if m := &f.msgs[i]; len(now) > 0 && m.UID == now[0].UID {
			m.Flags, m.Keywords, m.ModSeq = now[0].Flags, now[0].Keywords, now[0].ModSeq
			now = now[1:]
		}
	}
}

// lookUp copies what is needed of the cached values of the batch, from the
// message at start on, as far as fetchArena goes.
func (f *fetcher) lookUp(start int) {
	f.uids, f.arena = f.uids[:0], f.arena[:0]
	f.copies = append(f.copies[:0], make([]cachedStructure, len(f.msgs))...)
	for i := range f.msgs {
		f.uids = append(f.uids, f.msgs[i].UID)
	}
	f.looked = len(f.msgs)
	i := start
	f.folder.Cached(cacheStructure, f.uids[start:], func(uid imap.UID, value []byte) {
		for i < f.looked && f.uids[i] < uid {
			i++
		}
		if i == f.looked || f.uids[i] != uid {
			return
		}
		if len(f.arena) > fetchArena {
			f.looked = i
			return
		}
		if c, ok := parseStructure(value); ok {
			f.copies[i] = f.copyNeeded(&c)
		}
	})
}

// copyNeeded copies the pieces of a cached value that the request needs.
func (f *fetcher) copyNeeded(c *cachedStructure) cachedStructure {
	out := cachedStructure{unlisted: c.unlisted}
	body, structure := &c.body, &c.structure
	if f.s.rev2 && len(c.body2) > 0 {
		body, structure = &c.body2, &c.struct2
	}
	out.envelope = c.envelope[:0:0] // not nil: there is a value
	for _, item := range f.q.items {
		switch item.kind {
		case fetchEnvelope:
			out.envelope = f.keep(c.envelope)
		case fetchBody:
			out.body = f.keep(*body)
		case fetchStructure:
			out.structure = f.keep(*structure)
		case fetchSection:
			if item.section.listed == 0 {
				continue
			}
			if out.listed == nil {
				out.listed = f.keep(c.listed)
			}
			if c.unlisted && out.tree == nil {
				out.tree = f.keep(c.tree)
			}
		}
	}
	if f.q.tree && out.tree == nil {
		out.tree = f.keep(c.tree)
	}
	return out
}

// keep copies a piece into the arena. Pieces copied before stay where they are
// when the arena grows.
func (f *fetcher) keep(piece []byte) []byte {
	start := len(f.arena)
	f.arena = append(f.arena, piece...)
	return f.arena[start:len(f.arena):len(f.arena)]
}

// message answers for one message.
func (f *fetcher) message(m *Msg, i int) {
	seen := len(f.changed) > 0 && f.changed[0] == m.UID
	if seen {
		f.changed = f.changed[1:]
	}
	seq := f.seqOf(m.UID)
	if seq == 0 {
		return
	}
	var c cachedStructure
	if f.q.cached {
		c = f.copies[i]
	}
	if !f.prepare(m, &c) {
		return
	}
	start := len(f.buf)
	f.buf = append(f.buf, "* "...)
	f.buf = strconv.AppendUint(f.buf, uint64(seq), 10)
	f.buf = append(f.buf, " FETCH ("...)
	first := true
	for _, item := range f.q.items {
		if item.kind == fetchSection && f.unreadable(item.section) {
			continue
		}
		if !first {
			f.buf = append(f.buf, ' ')
		}
		first = false
		if item.kind == fetchSection {
			f.section(item.section, &c)
		} else {
			f.item(item.kind, m, &c)
		}
	}
	if seen {
		f.reportSeen(m, &first)
	}
	if first { // nothing could be given
		f.buf = f.buf[:start]
		return
	}
	f.buf = append(f.buf, ")\r\n"...)
}

// seqOf gives a message's sequence number, 0 when the view has it not. Messages
// come in ascending order.
func (f *fetcher) seqOf(uid imap.UID) uint32 {
	view := f.s.view.UIDs()
	if f.seq < len(view) && view[f.seq] == uid {
		f.seq++
		return uint32(f.seq)
	}
	seq := f.s.seq(uid)
	if seq > 0 {
		f.seq = int(seq)
	}
	return seq
}

// prepare opens the file and reads the structure where that is needed. false
// means that nothing can be said of the message.
func (f *fetcher) prepare(m *Msg, c *cachedStructure) bool {
	uid := m.UID
	if f.q.derived {
		if err := f.deriveMissing(uid); err != nil {
			f.fail(err)
			return false
		}
	}
	missing := f.q.cached && c.envelope == nil
	if !missing && !f.q.file && !(c.unlisted && c.tree != nil) {
		return true
	}
	var err error
	if f.file == nil {
		if f.file, err = f.open(m, missing); err != nil {
			f.file = nil
			f.fail(err)
			return false
		}
	}
	file := f.file
	if missing {
		err = f.read(uid, c)
	}
	if err == nil && (f.q.tree || c.unlisted && len(c.tree) > 0) {
		var ok bool
		f.tree, ok = parseTree(c.tree)
		if !ok || f.tree.size() != file.Size() { // another program has changed the file
			err = f.read(uid, c)
			f.tree, _ = parseTree(c.tree)
		}
	}
	if err != nil {
		f.fail(err)
		f.close()
		return false
	}
	return true
}

// open opens a message, and reads it at once where all of it will be needed or that costs no more than looking at its size.
func (f *fetcher) open(m *Msg, whole bool) (*Message, error) {
	need := m.Size + 1
	if !whole && !f.q.whole && need > fetchSmall || need > fetchWhole {
		return f.folder.OpenMessage(m.UID)
	}
	if int64(len(f.text)) < need {
		f.text = make([]byte, min(need+4<<10, fetchWhole))
	}
	return f.folder.OpenMessageIn(m.UID, f.text)
}

// read reads the structure of the message in hand from its file.
func (f *fetcher) read(uid imap.UID, c *cachedStructure) error {
	value, err := f.structures.read(f.folder, uid, f.file)
	if err != nil {
		return err
	}
	f.take(value, c)
	return nil
}

// take takes over a value that was just made.
func (f *fetcher) take(value []byte, c *cachedStructure) {
	*c, _ = parseStructure(value)
	if f.s.rev2 && len(c.body2) > 0 {
		c.body, c.structure = c.body2, c.struct2
	}
}

// readStructure reads a message through, and keeps what it has learnt.
func readStructure(folder *Folder, uid imap.UID, file *Message) ([]byte, error) {
	return new(structureReader).read(folder, uid, file)
}

// fail notes why a message is left out.
func (f *fetcher) fail(err error) {
	if errors.Is(err, ErrExpunged) {
		f.gone = true
		return
	}
	f.failed = err
}

// item appends an item that needs no file.
func (f *fetcher) item(kind fetchKind, m *Msg, c *cachedStructure) {
	b := f.buf
	switch kind {
	case fetchUID:
		b = append(b, "UID "...)
		b = strconv.AppendUint(b, uint64(m.UID), 10)
	case fetchFlags:
		b = append(b, "FLAGS "...)
		b = f.s.appendFlags(b, m)
	case fetchDate:
		b = append(b, "INTERNALDATE "...)
		b = time.Unix(m.Date, 0).AppendFormat(b, `"02-Jan-2006 15:04:05 -0700"`)
	case fetchSize:
		b = append(b, "RFC822.SIZE "...)
		b = strconv.AppendInt(b, m.Size, 10)
	case fetchModSeq:
		b = append(b, "MODSEQ ("...)
		b = strconv.AppendUint(b, m.ModSeq, 10)
		b = append(b, ')')
	case fetchSaved:
		b = append(b, "SAVEDATE "...)
		if m.Saved <= 0 {
			b = append(b, "NIL"...)
			break
		}
		b = time.Unix(m.Saved, 0).AppendFormat(b, `"02-Jan-2006 15:04:05 -0700"`)
	case fetchEnvelope:
		b = append(b, "ENVELOPE "...)
		b = append(b, c.envelope...)
	case fetchBody:
		b = append(b, "BODY "...)
		b = append(b, c.body...)
	case fetchStructure:
		b = append(b, "BODYSTRUCTURE "...)
		b = append(b, c.structure...)
	case fetchEmailID, fetchThreadID, fetchPreview:
		b = f.objectItem(b, kind, m.UID)
	}
	f.buf = b
}

// reportSeen adds the new flags to the answer that made them, unless it has them.
func (f *fetcher) reportSeen(m *Msg, first *bool) {
	if !f.q.flags {
		if !*first {
			f.buf = append(f.buf, ' ')
		}
		*first = false
		f.item(fetchFlags, m, nil)
	}
	if f.s.condstore && !f.q.modseq {
		f.buf = append(f.buf, ' ')
		f.item(fetchModSeq, m, nil)
	}
}

// unreadable says that a part must be decoded and cannot be.
func (f *fetcher) unreadable(b *bodySection) bool {
	if !b.binary || len(b.path) == 0 {
		return false
	}
	_, part, ok := b.locate(&f.tree, 0)
	if !ok || part.isOpen() {
		return false
	}
	if _, known := transferReader(part.encoding, nil); known {
		return false
	}
	f.unknownCTE = true
	return true
}

// isOpen says whether the part's text stands as it is, because it has parts of
// its own (RFC 2045 §6.4).
func (t *treePart) isOpen() bool { return t.multipart || t.holdsMessage() }

// section answers for a section.
func (f *fetcher) section(b *bodySection, c *cachedStructure) {
	if b.listed != 0 && !c.unlisted {
		f.buf = b.appendListed(f.buf, c.listed)
		return
	}
	size := f.file.Size()
	at, part, ok := b.locate(&f.tree, size)
	switch {
	case !ok && b.size:
		f.buf = append(append(f.buf, b.label...), " 0"...)
	case !ok:
		f.buf = append(b.appendLabel(f.buf), "NIL"...)
	case b.binary:
		f.binary(b, at, part)
	case b.kind == sectionFields || b.kind == sectionFieldsNot:
		f.fields(b, at)
	default:
		at = b.cut(at)
		f.buf = appendLiteralHeader(b.appendLabel(f.buf), at.len, false)
		f.copyBody(at)
	}
}

// buffer gives the buffer for reading.
func (f *fetcher) buffer() []byte {
	if f.scratch == nil {
		f.scratch = make([]byte, copyBuffer)
	}
	return f.scratch
}

// copyBody writes a piece of the message. Its length has been promised: should
// the file fail, blanks follow and the reply is NO.
func (f *fetcher) copyBody(at span) {
	f.flush()
	if text, ok := f.file.Text(at.off, at.len); ok && bytes.IndexByte(text, 0) < 0 {
		f.s.write(text)
		return
	}
	buf := f.buffer()
	r := f.file.Section(at.off, at.len)
	for left := at.len; left > 0; {
		n, err := r.Read(buf[:min(left, int64(len(buf)))])
		replaceNUL(buf[:n])
		if _, werr := f.w.Write(buf[:n]); werr != nil {
			return
		}
		left -= int64(n)
		if err != nil && left > 0 {
			f.pad(left, err)
			return
		}
	}
}

// pad writes blanks for n bytes that could not be read.
func (f *fetcher) pad(n int64, err error) {
	f.failed = errors.Join(errors.New("a message could not be read to its end"), err)
	blanks := f.buffer()
	for i := range blanks {
		blanks[i] = ' '
	}
	for n > 0 {
		piece := min(n, int64(len(blanks)))
		if _, err := f.w.Write(blanks[:piece]); err != nil {
			return
		}
		n -= piece
	}
}

// fields answers HEADER.FIELDS from the file.
func (f *fetcher) fields(b *bodySection, at span) {
	held := heldText{limit: maxFieldsHeld}
	if err := b.filterHeader(&held, f.file.Section(at.off, at.len)); err != nil {
		f.failed = err
	}
	part := b.cut(span{0, held.n})
	f.buf = appendLiteralHeader(b.appendLabel(f.buf), part.len, false)
	if held.n <= int64(len(held.text)) {
		replaceNUL(held.text)
		f.buf = append(f.buf, held.text[part.off:part.off+part.len]...)
		return
	}
	f.flush()
	out := window{w: nulWriter{f.w}, from: part.off, to: part.off + part.len}
	err := b.filterHeader(&out, f.file.Section(at.off, at.len))
	if short := part.off + part.len - out.n; short > 0 {
		f.pad(min(short, part.len), err)
	}
}

// heldText keeps what is written up to a limit, and counts all.
type heldText struct {
	text  []byte
	n     int64
	limit int
}

// Write is io.Writer.
func (h *heldText) Write(p []byte) (int, error) {
	h.n += int64(len(p))
	if room := h.limit - len(h.text); room > 0 {
		h.text = append(h.text, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

// nulWriter writes text without NUL; it may change what it is given.
type nulWriter struct{ w io.Writer }

// Write is io.Writer.
func (n nulWriter) Write(p []byte) (int, error) {
	replaceNUL(p)
	return n.w.Write(p)
}

// binary answers BINARY and BINARY.SIZE. The decoded length is known only when
// the part has been decoded once.
func (f *fetcher) binary(b *bodySection, at span, part *treePart) {
	plain := len(b.path) == 0 || part.isOpen() || isIdentity(part.encoding)
	if b.size && plain {
		f.buf = append(append(f.buf, b.label...), ' ')
		f.buf = strconv.AppendInt(f.buf, at.len, 10)
		return
	}
	decode := func(w *window) error {
		r := f.file.Section(at.off, at.len)
		if !plain {
			r, _ = transferReader(part.encoding, r)
		}
		_, err := io.CopyBuffer(w, plainReader{r}, f.buffer())
		return err
	}
	count := window{to: 1 << 62}
	if b.partial {
		count.from, count.to = b.from, b.to
	}
	if err := decode(&count); err != nil {
		f.failed = err
	}
	if b.size {
		f.buf = append(append(f.buf, b.label...), ' ')
		f.buf = strconv.AppendInt(f.buf, count.n, 10)
		return
	}
	out := b.cut(span{0, count.n})
	f.buf = appendLiteralHeader(b.appendLabel(f.buf), out.len, count.nul)
	f.flush()
	w := window{w: f.w, from: out.off, to: out.off + out.len}
	err := decode(&w)
	if short := out.off + out.len - w.n; short > 0 {
		f.pad(min(short, out.len), err)
	}
}

// plainReader hides what else a reader can do, so that copying uses the buffer it
// is given.
type plainReader struct{ io.Reader }
