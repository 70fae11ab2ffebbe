package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

const (
	maxMoveFolders  = 2000
	maxMoveKeywords = 30 // of one message
)

// outsideFolder is a folder over there.
type outsideFolder struct {
	name  string
	delim rune // between levels, 0: there are none
	attrs []imap.MailboxAttr
	total int
}

func (f *outsideFolder) has(attr imap.MailboxAttr) bool {
	return slices.ContainsFunc(f.attrs, func(a imap.MailboxAttr) bool { return strings.EqualFold(string(a), string(attr)) })
}

// folders lists the folders that hold messages, INBOX first and one of all messages last. Those that only show messages of others
// are left out.
func (s *outsideIMAP) folders() ([]outsideFolder, error) {
	var options *imap.ListOptions
	if s.caps.Has(imap.CapSpecialUse) {
		options = &imap.ListOptions{ReturnSpecialUse: true}
	}
	s.allow(imapSearchBytes)
	list, err := s.client.List("", "*", options).Collect()
	if err != nil {
		return nil, s.trouble("to list folders", err)
	}
	var folders []outsideFolder
	for _, data := range list {
		f := outsideFolder{name: data.Mailbox, delim: data.Delim, attrs: data.Attrs}
		switch {
		case f.has(imap.MailboxAttrNoSelect), f.has(imap.MailboxAttrNonExistent), f.has(imap.MailboxAttrFlagged), f.has("\\Important"):
			continue
		case len(folders) >= maxMoveFolders:
			return nil, &outsideError{faultSetup, fmt.Sprintf("the account has more than %d folders", maxMoveFolders), nil}
		}
		s.allow(outsideReply)
		status, err := s.client.Status(f.name, &imap.StatusOptions{NumMessages: true}).Wait()
		var reply *imap.Error
		if err != nil && !errors.As(err, &reply) {
			return nil, s.trouble("to count messages", err)
		}
		if err == nil && status.NumMessages != nil {
			f.total = int(*status.NumMessages)
		}
		folders = append(folders, f)
	}
	rank := func(f outsideFolder) int {
		switch {
		case strings.EqualFold(f.name, inboxName):
			return 0
		case f.has(imap.MailboxAttrAll):
			return 2
		}
		return 1
	}
	sortStableFunc(folders, func(a, b outsideFolder) int { return rank(a) - rank(b) })
	return folders, nil
}

// messageIDs asks for the Message-IDs of at most imapFactsAtOnce messages.
func (s *outsideIMAP) messageIDs(uids []imap.UID) (map[imap.UID]seenSum, error) {
	s.allow(outsideReply + int64(len(uids))*imapFactBytes)
	cmd := s.client.Fetch(imap.UIDSetNum(uids...), &imap.FetchOptions{UID: true, Envelope: true})
	ids := map[imap.UID]seenSum{}
	for m := cmd.Next(); m != nil; m = cmd.Next() {
		uid, id := imap.UID(0), ""
		for item := m.Next(); item != nil; item = m.Next() {
			switch item := item.(type) {
			case imapclient.FetchItemDataUID:
				uid = item.UID
			case imapclient.FetchItemDataEnvelope:
				id = item.Envelope.MessageID
			}
		}
		if id = plainMessageID(id); id != "" {
			ids[uid] = sumOfText(id)
		}
	}
	if err := cmd.Close(); err != nil {
		return nil, s.trouble("to tell of messages", err)
	}
	return ids, nil
}

// plainMessageID is a Message-ID without the brackets, which some programs leave away.
func plainMessageID(id string) string { return strings.Trim(strings.TrimSpace(id), "<>") }

func sumOfText(text string) seenSum {
	sum := sha256.Sum256([]byte(text))
	return sumOf(sum[:])
}

// moveNames are what folders for some uses are called where a server does not tell the use.
var moveNames = map[string]imap.MailboxAttr{
	"sent": imap.MailboxAttrSent, "sent items": imap.MailboxAttrSent, "sent messages": imap.MailboxAttrSent, "sent mail": imap.MailboxAttrSent,
	"gesendet": imap.MailboxAttrSent, "gesendete objekte": imap.MailboxAttrSent, "gesendete elemente": imap.MailboxAttrSent,
	"drafts": imap.MailboxAttrDrafts, "entwürfe": imap.MailboxAttrDrafts, "entwurf": imap.MailboxAttrDrafts,
	"trash": imap.MailboxAttrTrash, "deleted items": imap.MailboxAttrTrash, "deleted messages": imap.MailboxAttrTrash, "papierkorb": imap.MailboxAttrTrash,
	"gelöschte objekte": imap.MailboxAttrTrash, "gelöschte elemente": imap.MailboxAttrTrash, "gelöscht": imap.MailboxAttrTrash,
	"junk": imap.MailboxAttrJunk, "spam": imap.MailboxAttrJunk, "junk e-mail": imap.MailboxAttrJunk, "spamverdacht": imap.MailboxAttrJunk,
	"archive": imap.MailboxAttrArchive, "archiv": imap.MailboxAttrArchive,
}

// use gives what a folder is for, "" for nothing special.
func (f *outsideFolder) use(name string) imap.MailboxAttr {
	for _, use := range []imap.MailboxAttr{imap.MailboxAttrSent, imap.MailboxAttrDrafts, imap.MailboxAttrTrash, imap.MailboxAttrJunk, imap.MailboxAttrArchive} {
		if f.has(use) {
			return use
		}
	}
	if f.has(imap.MailboxAttrAll) {
		return imap.MailboxAttrArchive
	}
	return moveNames[strings.ToLower(name)]
}

// local gives the name of a folder here. uses names those that have a use.
func (f *outsideFolder) local(uses map[imap.MailboxAttr]string) string {
	if strings.EqualFold(f.name, inboxName) {
		return inboxName
	}
	levels := []string{f.name}
	if f.delim != 0 {
		levels = strings.Split(f.name, string(f.delim))
	}
	if len(levels) > 1 && (strings.EqualFold(levels[0], inboxName) || strings.HasPrefix(levels[0], "[")) { // the namespace of some servers
		levels = levels[1:]
	}
	for i, level := range levels {
		if levels[i] = strings.TrimSpace(strings.ReplaceAll(level, "/", "-")); levels[i] == "" {
			levels[i] = "-"
		}
	}
	name := strings.Join(levels, "/")
	if local := uses[f.use(name)]; local != "" {
		return local
	}
	if _, err := encodeFolder(name); err != nil || strings.EqualFold(levels[0], outboxName) || strings.EqualFold(levels[0], inboxName) {
		return fmt.Sprintf("Moved in %x", sumOfText(f.name))[:17]
	}
	return name
}

// session copies all that is still to be copied, over one connection.
func (m *Mover) session(ctx context.Context, w *moveWork) error {
	if !m.cfg.Accounts.Exists(w.job.Account) {
		return errAccountGone
	}
	server := w.job.Server
	s, err := m.cfg.Dialer.openIMAP(ctx, &server)
	if err != nil {
		return err
	}
	defer s.close()
	s.max = m.cfg.MaxSize
	folders, err := s.folders()
	if err != nil {
		return err
	}
	if err := m.plan(w, folders); err != nil {
		return err
	}
	for i := range w.job.Folders {
		if w.job.Folders[i].Complete {
			continue
		}
		if err := m.copyFolder(ctx, s, w, i); err != nil {
			return err
		}
		m.checkpoint(w, false)
	}
	return nil
}

// plan notes which folders there are, and makes them here.
func (m *Mover) plan(w *moveWork, folders []outsideFolder) error {
	drop, err := m.cfg.Store.Maildrop(w.job.Account)
	if err != nil {
		return err
	}
	defer drop.Release()
	uses, err := folderUses(drop)
	if err != nil {
		return err
	}
	for i := range folders {
		f := &folders[i]
		local := f.local(uses)
		m.mu.Lock()
		at := slices.IndexFunc(w.job.Folders, func(known MoveFolder) bool { return known.Name == f.name })
		if at < 0 {
			w.job.Folders = append(w.job.Folders, MoveFolder{Name: f.name, Local: local, All: f.has(imap.MailboxAttrAll)})
			at = len(w.job.Folders) - 1
		}
		folder := &w.job.Folders[at]
		folder.Total = f.total
		w.job.Reason = ""
		local = folder.Local
		m.mu.Unlock()
		if err := drop.CreateFolder(local, nil); err != nil && !errors.Is(err, ErrExists) {
			return err
		}
		if err := drop.Subscribe(local, true); err != nil {
			return err
		}
	}
	m.checkpoint(w, true)
	return nil
}

// folderUses gives the folder here for each use; one that has none is made by its usual name.
func folderUses(drop *Maildrop) (map[imap.MailboxAttr]string, error) {
	uses := map[imap.MailboxAttr]string{imap.MailboxAttrSent: "Sent", imap.MailboxAttrDrafts: "Drafts", imap.MailboxAttrTrash: "Trash",
		imap.MailboxAttrJunk: junkName, imap.MailboxAttrArchive: "Archive"}
	list, err := drop.Folders()
	for _, info := range list {
		for _, use := range info.SpecialUse {
			if _, ok := uses[use]; ok {
				uses[use] = info.Name
			}
		}
	}
	return uses, err
}

// copyFolder copies what is new in one folder.
func (m *Mover) copyFolder(ctx context.Context, s *outsideIMAP, w *moveWork, i int) (err error) {
	folder := w.job.Folders[i]
	r := &collectRound{c: m.collector, job: &collectJob{}, source: CollectSource{Account: w.job.Account, OutsideServer: w.job.Server, Keep: true, Folder: folder.Local}}
	if r.seen, err = openSeen(m.journal(w.job.Account, folder.Name)); err != nil {
		return err
	}
	defer r.seen.close()
	if err := r.recover(); err != nil {
		return err
	}
	validity, err := s.enter(folder.Name, true)
	var reply *imap.Error
	if errors.As(err, &reply) { // it is no folder for messages, or gone
		m.mark(w, i, func(f *MoveFolder) { f.Complete, f.Reason = true, foreignWords(err.Error(), 300) })
		return nil
	}
	if err != nil {
		return err
	}
	if r.seen.validity != validity {
		if err := r.seen.renumber(validity); err != nil {
			return err
		}
	}
	m.recount(w, i, r.seen)
	here, err := m.idsHere(w.job.Account, &folder)
	if err != nil {
		return err
	}
	for {
		uids, err := s.above(r.seen.last)
		if err != nil {
			return err
		}
		if len(uids) == 0 {
			break
		}
		for some := range slices.Chunk(uids, imapDeleteAtOnce) {
			if err := m.copySome(ctx, s, w, i, r, some, here); err != nil {
				return errors.Join(err, r.seen.sync())
			}
		}
		if err := errors.Join(r.seen.sync(), r.seen.trim()); err != nil {
			return err
		}
	}
	m.mark(w, i, func(f *MoveFolder) { f.Complete = true })
	return r.seen.sync()
}

// mark changes what is known of a folder.
func (m *Mover) mark(w *moveWork, i int, change func(f *MoveFolder)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&w.job.Folders[i])
}

// recount takes over what the journal knows and the job does not, after a crash.
func (m *Mover) recount(w *moveWork, i int, seen *seenList) {
	copied, here, left := 0, 0, 0
	for _, message := range seen.messages {
		switch {
		case message.state != seenDone && message.state != seenAgain:
			left++
		case message.sum == seenSum{}:
			here++
		default:
			copied++
		}
	}
	m.mark(w, i, func(f *MoveFolder) {
		f.Copied, f.Here, f.Left = max(f.Copied, copied), max(f.Here, here), max(f.Left, left)
	})
}

// idsHere gives the Message-IDs in the folder here, or in all where one over there shows the messages of all; nil for none.
func (m *Mover) idsHere(account string, folder *MoveFolder) (map[seenSum]bool, error) {
	drop, err := m.cfg.Store.Maildrop(account)
	if err != nil {
		return nil, err
	}
	defer drop.Release()
	names := []string{folder.Local}
	if folder.All {
		list, err := drop.Folders()
		if err != nil {
			return nil, err
		}
		names = nil
		for _, info := range list {
			names = append(names, info.Name)
		}
	}
	ids := map[seenSum]bool{}
	for _, name := range names {
		if err := addIDs(drop, name, ids); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// addIDs adds the Message-IDs of a folder.
func addIDs(drop *Maildrop, name string, ids map[seenSum]bool) error {
	f, err := drop.Open(name)
	if err != nil {
		return err
	}
	defer f.Release()
	if _, err := f.Status(false); err != nil {
		return err
	}
	for _, uid := range f.UIDs() {
		message, err := f.OpenMessage(uid)
		if err != nil {
			continue // it has just gone
		}
		raw, err := readHeader(bufio.NewReader(message.Section(0, min(message.Size(), collectHeader))), collectHeader)
		message.Close()
		if err != nil && !errors.Is(err, errHeaderTooLong) {
			continue
		}
		field, _ := findField(splitHeader(raw), "Message-ID")
		if id := plainMessageID(field.Value()); id != "" {
			ids[sumOfText(id)] = true
		}
	}
	return nil
}

// copySome copies some messages of a folder.
func (m *Mover) copySome(ctx context.Context, s *outsideIMAP, w *moveWork, i int, r *collectRound, uids []imap.UID, here map[seenSum]bool) error {
	facts, err := s.facts(uids)
	if err != nil {
		return err
	}
	ids := map[imap.UID]seenSum{}
	if len(here) > 0 {
		if ids, err = s.messageIDs(uids); err != nil {
			return err
		}
	}
	at := map[imap.UID]imapFacts{}
	for _, f := range facts {
		at[f.UID] = f
	}
	for _, uid := range uids {
		f, there := at[uid]
		if !there {
			err = r.seen.setLast(uint32(uid))
		} else if id, known := ids[uid]; known && here[id] {
			m.mark(w, i, func(f *MoveFolder) { f.Here++ })
			err = r.seen.set(strconv.FormatUint(uint64(uid), 10), seenMessage{state: seenDone, size: f.Size})
		} else {
			err = m.copyOne(ctx, s, w, i, r, &f)
		}
		if err != nil {
			return err
		}
		m.checkpoint(w, false)
	}
	return r.seen.sync()
}

// copyOne copies one message.
func (m *Mover) copyOne(ctx context.Context, s *outsideIMAP, w *moveWork, i int, r *collectRound, f *imapFacts) error {
	key := strconv.FormatUint(uint64(f.UID), 10)
	if f.Size > m.cfg.MaxSize {
		m.mark(w, i, func(f *MoveFolder) { f.Left++ })
		return r.seen.set(key, seenMessage{state: seenLarge, size: f.Size})
	}
	before := r.fetched
	here, err := r.take(ctx, collectMessage{key: key, size: f.Size, date: f.Date, flags: movedFlags(f.Flags)}, func() (io.Reader, error) { return s.fetch(f.UID) })
	_, dealt := r.seen.messages[key]
	m.mark(w, i, func(f *MoveFolder) {
		switch {
		case r.fetched > before:
			f.Copied++
		case here:
			f.Here++
		case dealt:
			f.Left++
		}
	})
	return err
}

// movedFlags are the flags that a message keeps: those that a client can set, and its keywords.
func movedFlags(flags []imap.Flag) (kept []imap.Flag) {
	keywords := 0
	for _, flag := range flags {
		switch {
		case strings.EqualFold(string(flag), "\\Recent"):
		case strings.HasPrefix(string(flag), "\\"):
			for _, known := range []imap.Flag{imap.FlagSeen, imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagDraft} {
				if strings.EqualFold(string(flag), string(known)) {
					kept = append(kept, known)
				}
			}
		case keywords < maxMoveKeywords && len(flag) <= 64:
			keywords++
			kept = append(kept, flag)
		}
	}
	return kept
}
