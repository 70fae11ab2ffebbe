package main

// Quick resynchronisation: QRESYNC, RFC 7162 §3.2. A client that has been here before says what it knows and is told what
// has changed and vanished since, in the answer to SELECT.

import (
	"math"
	"sort"
	"strconv"

	"github.com/emersion/go-imap/v2"
)

// vanishedLine is how long a VANISHED response may get, in bytes; what follows goes into the next one.
const vanishedLine = 8 << 10

// knownMailbox is what a client remembers of a mailbox (RFC 7162 §3.2.5).
type knownMailbox struct {
	validity uint32
	modseq   uint64
	uids     imap.UIDSet // nil: all

	// Message numbers and the UIDs that they had.
	matchSeqs imap.SeqSet
	matchUIDs imap.UIDSet
}

// parseKnown parses what stands behind QRESYNC: (uidvalidity modseq [known-uids] [(seqs uids)]).
func (s *imapSession) parseKnown(cmd *imapCommand) (*knownMailbox, error) {
	if !s.qresync { // RFC 7162 §3.2.5
		return nil, imapBad("QRESYNC must be enabled first")
	}
	if err := cmd.sp(); err != nil {
		return nil, err
	}
	known := new(knownMailbox)
	part := 0
	err := cmd.list(func() (err error) {
		part++
		switch {
		case part == 1:
			known.validity, err = cmd.nzNumber()
		case part == 2:
			known.modseq, err = cmd.number64()
		case cmd.peek() == '(' && known.matchSeqs == nil:
			err = known.parseMatch(cmd)
		case part == 3:
			known.uids, err = cmd.knownUIDs()
		default:
			err = cmd.expected(`")"`)
		}
		return err
	})
	if err == nil && part < 2 {
		err = cmd.expected("UIDVALIDITY and mod-sequence before this")
	}
	return known, err
}

// parseMatch parses the numbers and UIDs that the client has in step: (seqs uids).
func (k *knownMailbox) parseMatch(cmd *imapCommand) error {
	if err := cmd.expect('('); err != nil {
		return err
	}
	seqs, err := cmd.knownUIDs() // of the same form
	if err != nil {
		return err
	}
	if err := cmd.sp(); err != nil {
		return err
	}
	if k.matchUIDs, err = cmd.knownUIDs(); err != nil {
		return err
	}
	for _, r := range seqs {
		k.matchSeqs = append(k.matchSeqs, imap.SeqRange{Start: uint32(r.Start), Stop: uint32(r.Stop)})
	}
	if count(seqs) != count(k.matchUIDs) {
		return imapBad("There are not as many message numbers as UIDs")
	}
	return cmd.expect(')')
}

// knownUIDs takes a set without "*", which a client that knows the UIDs has no use for (RFC 7162 §7 known-uids).
func (c *imapCommand) knownUIDs() (imap.UIDSet, error) {
	set, err := c.numSet(true)
	if err != nil {
		return nil, err
	}
	uids, _ := set.(imap.UIDSet)
	if imap.IsSearchRes(set) || len(uids) == 0 || uids[len(uids)-1].Stop == 0 {
		return nil, imapBad(`A set of known messages must not have "*" or "$"`)
	}
	return uids, nil
}

// count gives the size of a set without "*".
func count(set imap.UIDSet) uint64 {
	n := uint64(0)
	for _, r := range set {
		n += uint64(r.Stop-r.Start) + 1
	}
	return n
}

// resync tells what has vanished and changed since the client was last here. RFC 7162 §3.2.5: with another UIDVALIDITY all
// that it knows is void.
func (s *imapSession) resync(known *knownMailbox) error {
	if known.validity != s.view.Folder().UIDValidity() {
		return nil
	}
	from := known.inStep(s.view.UIDs()) + 1
	if from != 0 { // no UID lies above the highest one
		if err := s.vanishedEarlier(known.modseq, uidsFrom(known.uids, from)); err != nil {
			return err
		}
	}
	since := s.view.Folder().KnownSince(known.modseq)
	uids := s.view.UIDs()
	if known.uids != nil {
		uids = resolveUIDs(uids, known.uids)
	}
	return s.changedSince(since, uids)
}

// inStep gives the highest UID that has the message number that the client knows, 0 for none. As many messages are below
// it as ever, so that none of them is gone (RFC 7162 §3.2.5.2).
func (k *knownMailbox) inStep(view []imap.UID) imap.UID {
	best := imap.UID(0)
	i, j := 0, 0
	var seqs, uids imap.UIDRange // what is left of the ranges in hand
	for {
		if seqs.Start > seqs.Stop || seqs.Start == 0 {
			if i == len(k.matchSeqs) {
				return best
			}
			seqs = imap.UIDRange{Start: imap.UID(k.matchSeqs[i].Start), Stop: imap.UID(k.matchSeqs[i].Stop)}
			i++
		}
		if uids.Start > uids.Stop || uids.Start == 0 {
			if j == len(k.matchUIDs) {
				return best
			}
			uids = k.matchUIDs[j]
			j++
		}
		if uint64(seqs.Start) > uint64(len(view)) {
			return best
		}
		n := min(uint64(seqs.Stop-seqs.Start), uint64(uids.Stop-uids.Start)) + 1
		// The distance from number to UID only grows, so that those that agree stand together.
		at := view[seqs.Start-1 : min(uint64(len(view)), uint64(seqs.Start)-1+n)]
		past := sort.Search(len(at), func(i int) bool { return uint64(at[i]) > uint64(uids.Start)+uint64(i) })
		if past > 0 && uint64(at[past-1]) == uint64(uids.Start)+uint64(past-1) {
			best = at[past-1]
		}
		if n > math.MaxUint32-uint64(max(seqs.Start, uids.Start)) {
			return best
		}
		seqs.Start += imap.UID(n)
		uids.Start += imap.UID(n)
	}
}

// uidsFrom gives what of a set (nil: everything) is not below a UID.
func uidsFrom(set imap.UIDSet, from imap.UID) imap.UIDSet {
	if set == nil {
		return imap.UIDSet{{Start: from, Stop: math.MaxUint32}}
	}
	left := imap.UIDSet{}
	for _, r := range set {
		if r.Stop >= from {
			left = append(left, imap.UIDRange{Start: max(r.Start, from), Stop: r.Stop})
		}
	}
	return left
}

// fetchVanished tells which messages of a set of UIDs are gone since CHANGEDSINCE (RFC 7162 §3.2.6).
func (s *imapSession) fetchVanished(q *fetchRequest, set imap.NumSet) error {
	uids, ok := set.(imap.UIDSet)
	if imap.IsSearchRes(set) || !ok {
		uids = imap.UIDSetNum(s.saved...)
	}
	known := imap.UIDSet{}
	for _, r := range uids {
		if r.Start == 0 { // the last message is there
			continue
		}
		if r.Stop == 0 {
			r.Stop = math.MaxUint32
		}
		known = append(known, r)
	}
	return s.vanishedEarlier(q.since, known)
}

// vanishedEarlier tells which of the known messages were removed after modseq. Those that the view still has are told
// with the updates, since they change message numbers (RFC 7162 §3.2.10).
func (s *imapSession) vanishedEarlier(modseq uint64, known imap.UIDSet) error {
	gone, err := s.view.Folder().ExpungedSince(modseq, known)
	if err != nil {
		return err
	}
	s.vanished(" (EARLIER) ", outsideView(gone, s.view.UIDs()))
	return nil
}

// outsideView gives the UIDs of a set that are not in the view.
func outsideView(set imap.UIDSet, view []imap.UID) imap.UIDSet {
	var left imap.UIDSet
	for _, r := range set {
		start := uint64(r.Start)
		for i := searchUID(view, r.Start); i < len(view) && view[i] <= r.Stop; i++ {
			if uid := view[i]; start < uint64(uid) {
				left = append(left, imap.UIDRange{Start: imap.UID(start), Stop: uid - 1})
			}
			start = uint64(view[i]) + 1
		}
		if start <= uint64(r.Stop) {
			left = append(left, imap.UIDRange{Start: imap.UID(start), Stop: r.Stop})
		}
	}
	return left
}

// vanished writes VANISHED responses for a set, if it has anything (RFC 7162 §3.2.10).
func (s *imapSession) vanished(kind string, set imap.UIDSet) {
	for len(set) > 0 {
		b := append(s.c.Writer().AvailableBuffer(), "* VANISHED"...)
		b = append(b, kind...)
		start := len(b)
		for len(set) > 0 && len(b)-start < vanishedLine {
			b = appendRange(b, len(b) > start, uint32(set[0].Start), uint32(set[0].Stop))
			set = set[1:]
		}
		s.write(append(b, "\r\n"...))
	}
}

// changedSince tells the flags of those of the messages that were changed after modseq.
func (s *imapSession) changedSince(modseq uint64, uids []imap.UID) error {
	var msgs []Msg
	var err error
	for from := 0; from < len(uids); from += imapBatch {
		msgs, err = s.view.Folder().Messages(msgs, uids[from:min(from+imapBatch, len(uids))], false)
		if err != nil {
			return err
		}
		for i := range msgs {
			if msgs[i].ModSeq > modseq {
				s.write(s.appendFetchFlags(s.c.Writer().AvailableBuffer(), s.seq(msgs[i].UID), &msgs[i], true))
			}
		}
	}
	return nil
}

// expungedReply is the reply to a command that has removed n messages. RFC 7162 §3.2.7 to §3.2.9: it tells the
// mod-sequence that the client is in step with.
func (s *imapSession) expungedReply(cmd *imapCommand, n int, modseq uint64) error {
	if !s.condstore || n == 0 {
		return nil
	}
	name := cmd.name
	if cmd.uid {
		name = "UID " + name
	}
	return imapOK("HIGHESTMODSEQ "+strconv.FormatUint(modseq, 10), name+" completed")
}
