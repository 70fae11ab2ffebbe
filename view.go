package main

import (
	"slices"

	"github.com/emersion/go-imap/v2"
)

// View is a session's view of a folder: the UIDs in the order of the session's sequence numbers, which change only when
// the session says so. Views that are in step share one list of UIDs. Not safe for concurrent use (onChange apart).
type View struct {
	folder   *Folder
	readOnly bool
	onChange func()

	uids    []imap.UID // sequence number = index + 1
	gen     uint64     // the folder's gen that uids correspond to
	private bool       // uids is our own copy, with messages in it that are gone
	modseq  uint64     // flag changes up to it have been reported
	looked  uint64     // and those up to it found: more where they are held back
	recent  []imap.UIDRange
	own     []uint64 // modseqs of the session's own changes

	holdMessages, holdFlags bool
}

// NewView opens a view. A writable one takes the messages that nobody has had as \Recent. onChange (may be nil) is called
// without locks held, possibly often, when there may be something to Sync; it must not block. The folder stays in memory
// until the view is closed.
func (f *Folder) NewView(readOnly bool, onChange func()) (*View, error) {
	v := &View{folder: f, readOnly: readOnly, onChange: onChange}
	f.drop.mu.Lock()
	f.drop.hold(f)
	f.drop.mu.Unlock()
	if err := v.open(); err != nil {
		f.Release()
		return nil, err
	}
	return v, nil
}

// open begins to look at the folder.
func (v *View) open() error {
	f := v.folder
	f.mu.Lock()
	defer f.unlock()
	if err := f.usable(); err != nil {
		return err
	}
	v.claim()
	v.uids, v.gen, v.modseq, v.looked = f.uids, f.gen, f.modseq, f.modseq
	f.views[v] = struct{}{}
	f.watchPoll()
	return nil
}

// Close ends the view, once.
func (v *View) Close() {
	v.folder.mu.Lock()
	delete(v.folder.views, v)
	v.folder.mu.Unlock()
	v.folder.Release()
}

// Folder is what the view looks at.
func (v *View) Folder() *Folder { return v.folder }

// UIDs are the messages in the order of sequence numbers; read only, the same until the next Sync.
func (v *View) UIDs() []imap.UID { return v.uids }

// ModSeq is the modseq up to which the view is in step.
func (v *View) ModSeq() uint64 { return v.modseq }

// Recent says whether the message is \Recent in this session. A read-only view has those that nobody has claimed.
func (v *View) Recent(uid imap.UID) bool {
	for _, r := range v.recent {
		if uid >= r.Start && uid <= r.Stop {
			return true
		}
	}
	return false
}

// RecentCount is the number of \Recent messages in the view.
func (v *View) RecentCount() uint32 {
	n := 0
	for _, r := range v.recent {
		lo, _ := slices.BinarySearch(v.uids, r.Start)
		hi, found := slices.BinarySearch(v.uids, r.Stop)
		if found {
			hi++
		}
		n += hi - lo
	}
	return uint32(n)
}

// claim takes what is \Recent. EXAMINE must not make anybody lose it (RFC 3501 §6.3.2), so it only looks.
func (v *View) claim() {
	f := v.folder
	var from, to imap.UID
	if !v.readOnly {
		from, to = f.claimRecent()
	} else if i := f.search(f.recent + 1); i < len(f.uids) {
		from, to = f.uids[i], f.uids[len(f.uids)-1]
	}
	if from == 0 {
		return
	}
	if n := len(v.recent); n > 0 && v.recent[n-1].Stop >= from-1 {
		v.recent[n-1].Stop = max(v.recent[n-1].Stop, to)
		return
	}
	v.recent = append(v.recent, imap.UIDRange{Start: from, Stop: to})
}

// FirstUnseen is the sequence number of the first message without \Seen, 0 if there is none (RFC 3501 §7.1 UNSEEN).
func (v *View) FirstUnseen() uint32 {
	f := v.folder
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unseen == 0 {
		return 0
	}
	hint := 0
	for seq, uid := range v.uids {
		if i := f.find(uid, hint); i >= 0 {
			if hint = i + 1; f.msgs[i].Flags&FlagSeen == 0 {
				return uint32(seq + 1)
			}
		}
	}
	return 0
}

// Changes is what a Sync brought.
type Changes struct {
	Expunged     []uint32   // sequence numbers in the order to announce: descending, so each holds when it is told
	ExpungedUIDs []imap.UID // ascending
	Flags        []imap.UID // ascending: messages whose flags were changed by others
	SilentFlags  []imap.UID // ascending: changed by the session itself, see Own
	Exists       bool       // messages came: announce EXISTS (and RECENT)
	New          []imap.UID // ascending: those messages
	Deleted      bool       // the folder itself is gone
	ModSeq       uint64     // all that has happened up to it is in here or was in an earlier one
}

// Own tells the view that the session made the change with this modseq itself and the client is to be spared the untagged
// FETCH (STORE .SILENT, or a reply already given): the next Sync has it in SilentFlags.
func (v *View) Own(modseq uint64) {
	if modseq != 0 {
		v.own = append(v.own, modseq)
	}
}

// Hold holds back what a session does not want to tell: messages that come, and flag changes. Flag changes that are held
// are in Changes all the same, when they happen, and once more in the first Sync after that.
func (v *View) Hold(messages, flags bool) { v.holdMessages, v.holdFlags = messages, flags }

// Gone gives the messages in the view that are no longer in the folder, ascending: those that a Sync had to leave.
func (v *View) Gone() []imap.UID {
	f := v.folder
	f.mu.Lock()
	defer f.mu.Unlock()
	if !v.private && v.gen == f.gen {
		return nil
	}
	var c Changes
	v.removals(&c)
	return c.ExpungedUIDs
}

// Sync brings the view in step. With expunge false, removals stay in the view (RFC 9051 §7.5.1: not during FETCH, STORE and
// SEARCH); new messages and flags come all the same.
func (v *View) Sync(expunge bool) (Changes, error) {
	f := v.folder
	f.mu.Lock()
	defer f.unlock()
	if err := f.usable(); err != nil {
		return Changes{Deleted: f.gone}, err
	}
	held := v.holdMessages || v.holdFlags
	nothing := f.modseq == v.modseq || held && f.modseq == v.looked && (v.holdMessages || len(v.uids) == len(f.uids))
	if f.gen == v.gen && !v.private && nothing {
		return Changes{ModSeq: f.modseq}, nil
	}
	c := Changes{ModSeq: f.modseq}
	if !v.holdMessages {
		v.claim()
	}
	lastKnown := imap.UID(0)
	if n := len(v.uids); n > 0 {
		lastKnown = v.uids[n-1]
	}
	if expunge && (v.private || f.gen != v.gen) {
		v.removals(&c)
	}
	first, upto := f.search(lastKnown+1), len(f.uids)
	if v.holdMessages {
		upto = first
	}
	c.New = f.uids[first:upto:upto]
	c.Exists = len(c.New) > 0
	if expunge || !v.private && f.gen == v.gen {
		v.uids, v.gen, v.private = f.uids[:upto:upto], f.gen, false
	} else if c.Exists || !v.private {
		v.uids, v.private = append(slices.Clone(v.uids), c.New...), true
	}
	v.flagChanges(&c, lastKnown)
	if v.looked = f.modseq; !held {
		v.modseq = f.modseq
	}
	v.own = nil
	return c, nil
}

// removals finds what is in the view and no longer in the folder.
func (v *View) removals(c *Changes) {
	now := v.folder.uids
	j := 0
	for i, uid := range v.uids {
		for j < len(now) && now[j] < uid {
			j++
		}
		if j == len(now) || now[j] != uid {
			c.Expunged = append(c.Expunged, uint32(i+1))
			c.ExpungedUIDs = append(c.ExpungedUIDs, uid)
		}
	}
	slices.Reverse(c.Expunged)
}

// flagChanges finds what was changed since the view was last in step, among messages that it had.
func (v *View) flagChanges(c *Changes, lastKnown imap.UID) {
	f := v.folder
	since, held := v.looked, false
	if !v.holdMessages && !v.holdFlags && v.modseq < v.looked {
		since, held = v.modseq, true
	}
	if held || since < f.changesFloor {
		for i := range f.msgs {
			if m := &f.msgs[i]; m.ModSeq > since && m.UID <= lastKnown {
				c.Flags = append(c.Flags, m.UID)
			}
		}
		return
	}
	first, _ := slices.BinarySearchFunc(f.changes, since+1, func(c flagChange, m uint64) int {
		if c.modseq < m {
			return -1
		}
		return 1
	})
	var others, own []imap.UID
	for _, change := range f.changes[first:] {
		list := &others
		if slices.Contains(v.own, change.modseq) {
			list = &own
		}
		*list = append(*list, change.uids...)
	}
	c.Flags = v.present(others, lastKnown, nil)
	c.SilentFlags = v.present(own, lastKnown, c.Flags)
}

// present sorts UIDs and leaves out those that are gone, new to the view, or in besides.
func (v *View) present(uids []imap.UID, lastKnown imap.UID, besides []imap.UID) []imap.UID {
	if len(uids) == 0 {
		return nil
	}
	if !slices.IsSorted(uids) {
		slices.Sort(uids)
	}
	kept := uids[:0:0]
	hint := 0
	for i, uid := range uids {
		if uid > lastKnown || i > 0 && uids[i-1] == uid {
			continue
		}
		at := v.folder.find(uid, hint)
		if at < 0 {
			continue
		}
		hint = at + 1
		if _, also := slices.BinarySearch(besides, uid); !also {
			kept = append(kept, uid)
		}
	}
	return kept
}
