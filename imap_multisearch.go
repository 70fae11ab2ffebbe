package main

// ESEARCH, RFC 7377: a SEARCH of several mailboxes, whichever is selected. Each mailbox with results has a response of its
// own, in UIDs.

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// esearchMaxMailboxes is how many mailboxes one ESEARCH may search (RFC 7377 §2.4).
const esearchMaxMailboxes = 1000

// correlator says which mailbox an ESEARCH response is about. The zero value is for the commands that know only the
// selected one.
type correlator struct {
	mailbox  []byte // in wire form
	validity uint32
}

// append appends an ESEARCH response up to its correlators (RFC 9051 §7.3.4, RFC 7377 §2.1).
func (c correlator) append(b []byte, tag string, uid bool) []byte {
	b = appendString(append(b, "* ESEARCH (TAG "...), tag, false)
	if c.mailbox != nil {
		b = append(append(b, " MAILBOX "...), c.mailbox...)
		b = strconv.AppendUint(append(b, " UIDVALIDITY "...), uint64(c.validity), 10)
	}
	b = append(b, ')')
	if uid {
		b = append(b, " UID"...)
	}
	return b
}

// esearch is ESEARCH.
func (s *imapSession) esearch(cmd *imapCommand) error {
	q := &searchRequest{returns: returnAll, extended: true}
	sources, err := s.parseSources(cmd)
	if err != nil {
		return err
	}
	if err := s.parseSearch(cmd, q); err != nil {
		return err
	}
	onlySelected := !slices.ContainsFunc(sources, func(f mailboxFilter) bool { return !f.selected() })
	switch {
	case s.view == nil && slices.ContainsFunc(sources, func(f mailboxFilter) bool { return f.selected() }):
		return imapBad("Select a mailbox first, or search other ones")
	case s.view == nil && q.returns&returnUpdate != 0:
		return imapBad("UPDATE needs a selected mailbox")
	case q.returns&returnSave != 0 && !onlySelected:
		return imapBad("Only a search of the selected mailbox alone can be saved")
	case q.returns&returnUpdate != 0 && s.contextOf(cmd.tag) != nil:
		return imapBad("This tag is that of a search that is kept up to date")
	}
	if q.modseq {
		s.enableCondstore()
	}
	return s.searchAll(cmd, q, sources)
}

// parseSources parses IN and what is in its parentheses; without it, the selected mailbox is meant.
func (s *imapSession) parseSources(cmd *imapCommand) ([]mailboxFilter, error) {
	start := cmd.pos
	if !cmd.accept(' ') || cmd.keyword() != "IN" {
		cmd.pos = start
		return []mailboxFilter{{kind: filterSelected}}, nil
	}
	if err := cmd.sp(); err != nil {
		return nil, err
	}
	var sources []mailboxFilter
	err := cmd.list(func() error {
		if cmd.peek() == '(' {
			return imapBad("No scope options are known")
		}
		f, err := s.mailboxFilter(cmd, filterDelayed)
		sources = append(sources, f)
		return err
	})
	if err == nil && len(sources) == 0 {
		err = imapBad("The list of mailboxes to search is empty")
	}
	return sources, err
}

// searchAll searches the mailboxes that the sources are about: the selected one first, the others by name, each once.
func (s *imapSession) searchAll(cmd *imapCommand, q *searchRequest, sources []mailboxFilter) error {
	boxes, err := s.filtered(sources)
	if err != nil {
		return err
	}
	if len(boxes) > esearchMaxMailboxes {
		return imapNo("LIMIT", fmt.Sprintf("%d mailboxes can be searched at once", esearchMaxMailboxes))
	}
	selected := s.selectedName()
	has := func(f visibleFolder) bool { return f.Name == selected }
	named := slices.ContainsFunc(boxes, has) && s.view != nil
	if named || slices.ContainsFunc(sources, func(f mailboxFilter) bool { return f.selected() }) {
		if err := s.searchSelected(cmd, q, selected); err != nil {
			return err
		}
		boxes = slices.DeleteFunc(boxes, has)
	} else if q.returns&returnUpdate != 0 {
		s.refuseContext(cmd.tag, "Only a search of the selected mailbox is kept up to date")
	}
	for _, box := range boxes {
		if err := s.searchOther(cmd, q, box.Name); err != nil {
			return err
		}
	}
	return nil
}

// searchSelected searches the selected mailbox as the client knows it.
func (s *imapSession) searchSelected(cmd *imapCommand, q *searchRequest, name string) error {
	m, err := s.searchView(cmd, q, s.view, name)
	if q.returns&returnSave != 0 {
		s.saved = nil // RFC 5182 §2.1: a search that fails leaves nothing
		if err == nil {
			s.saved = q.toSave(m.uids)
			slices.Sort(s.saved)
		}
	}
	if err == nil && q.returns&returnUpdate != 0 {
		s.keepContext(m)
	}
	return err
}

// searchOther searches another mailbox. RFC 7377 §2.2: one that has gone, or is not for the client, is passed over.
func (s *imapSession) searchOther(cmd *imapCommand, q *searchRequest, name string) error {
	folder, err := s.open(name, needSearch)
	if errors.Is(err, ErrNoFolder) || errors.Is(err, ErrNoRight) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("searching a mailbox: %w", err)
	}
	defer folder.Release()
	view, err := folder.NewView(true, nil)
	if errors.Is(err, ErrNoFolder) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("searching a mailbox: %w", err)
	}
	defer view.Close()
	_, err = s.searchView(cmd, q, view, name)
	return err
}

// searchView searches one mailbox and answers, unless there is nothing to tell (RFC 7377 §2.1).
func (s *imapSession) searchView(cmd *imapCommand, q *searchRequest, view *View, name string) (*matcher, error) {
	m := s.newMatcher(view, q, cmd.tag)
	m.uid = true
	m.from = correlator{appendMailbox(nil, name, s.utf8), view.Folder().UIDValidity()}
	if err := m.run(); err != nil {
		return nil, err
	}
	if len(m.uids) > 0 && q.returns&^returnContext != returnSave {
		s.write(appendESearch(nil, q, m))
	}
	return m, nil
}
