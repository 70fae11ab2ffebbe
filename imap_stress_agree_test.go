package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// What must hold while nobody does anything: all sessions, new ones, and the files say the same.

// stressQuiet is how long the server may take to notice what another program has done.
const stressQuiet = 10 * time.Second

// compareAll makes everybody keep still, and compares.
func (r *stress) compareAll() {
	r.calm.Lock()
	defer r.calm.Unlock()
	if r.stopped.Load() {
		return
	}
	for _, s := range r.sessions {
		if s.conn == nil {
			if err := s.connect(); err != nil {
				r.fail(s, err)
				return
			}
		}
	}
	observer := &modelSession{run: r, n: 99, profile: modelProfile{condstore: true}, rnd: rand.New(rand.NewPCG(1, 1)), own: "$Own99",
		owned: map[messageKey]bool{}, remembered: map[string]*modelBox{}}
	defer observer.disconnect()
	if err := observer.connect(); err != nil {
		r.fail(observer, err)
		return
	}
	truth := map[string]*modelBox{}
	for _, name := range stressFolders {
		box, err := r.observe(observer, name)
		if err != nil {
			r.fail(observer, fmt.Errorf("comparing %s with the disk: %w", name, err))
			return
		}
		truth[name] = box
		if err := r.nothingLost(box); err != nil {
			r.fail(observer, fmt.Errorf("in %s: %w", name, err))
			return
		}
	}
	if err := observer.sameQuota(); err != nil {
		r.fail(observer, err)
		return
	}
	if err := r.allDelivered(truth["INBOX"]); err != nil {
		r.fail(observer, err)
		return
	}
	for _, s := range r.sessions {
		err := s.agree(truth)
		if err != nil && s.expected(err) { // it had a folder that somebody has deleted
			if err = s.connect(); err == nil {
				err = s.agree(truth)
			}
		}
		if err != nil {
			r.fail(s, fmt.Errorf("when all is quiet: %w", err))
			return
		}
	}
	r.oneAlone()
}

// oneAlone lets one session do things while nobody else does: then there is only one right answer to most of them.
func (r *stress) oneAlone() {
	r.alone = true
	defer func() { r.alone = false }()
	s := r.sessions[r.rnd.IntN(len(r.sessions))]
	err := s.do(s.open(s.pick("INBOX", "Work"), false)...)
	for range 60 {
		if err == nil {
			err = s.once()
		}
	}
	if err != nil && !s.expected(err) {
		r.fail(s, fmt.Errorf("while it is alone: %w", err))
	}
}

// observe reads a folder in a new selection until it is as the disk has it.
func (r *stress) observe(s *modelSession, name string) (*modelBox, error) {
	for end := time.Now().Add(stressQuiet); ; time.Sleep(20 * time.Millisecond) {
		if err := s.do(s.open(name, true)...); err != nil {
			return nil, err
		}
		if len(s.box.uids) > 0 {
			if err := s.do(&exchange{command: "FETCH 1:* (UID FLAGS MODSEQ RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])", quiet: true}); err != nil {
				return nil, err
			}
		}
		disk, err := r.outside.onDisk(r.folderPath(name))
		if err != nil {
			return nil, err
		}
		if err = s.sameAsDisk(disk); err == nil {
			return s.box, nil
		}
		if time.Now().After(end) {
			return nil, err
		}
	}
}

// sameAsDisk compares the selected mailbox, all of which was fetched, with its files.
func (s *modelSession) sameAsDisk(disk []diskMessage) error {
	b := s.box
	if len(b.uids) != len(disk) {
		return fmt.Errorf("%d messages, and %d files", len(b.uids), len(disk))
	}
	for i, uid := range b.uids {
		m := b.msgs[uid]
		if m == nil {
			return fmt.Errorf("nothing is told of UID %d", uid)
		}
		have := diskMessage{uid, s.run.facts.markerOf(b.validity, uid), m.flags}
		if have != disk[i] {
			return fmt.Errorf("message %d is %+v, and %+v on disk", i+1, have, disk[i])
		}
	}
	return nil
}

// sameQuota compares how many messages the account has by its quota with those of all mailboxes.
func (s *modelSession) sameQuota() error {
	for end := time.Now().Add(stressQuiet); ; time.Sleep(20 * time.Millisecond) {
		list := &exchange{command: `LIST "" * RETURN (STATUS (MESSAGES))`}
		quota := &exchange{command: `GETQUOTA ""`}
		if err := s.do(list, quota); err != nil {
			return err
		}
		held, err := heldMessages(quota)
		if err != nil {
			return err
		}
		sum := uint64(0)
		for _, r := range list.data {
			if r.data[0].word() == "STATUS" {
				n, _ := r.data[2].list[1].number()
				sum += n
			}
		}
		if held == sum {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d messages by the quota, and %d in all mailboxes", held, sum)
		}
	}
}

// nothingLost looks for the messages that nobody was to delete, and for those that were told to be gone.
func (r *stress) nothingLost(box *modelBox) error {
	r.facts.mu.Lock()
	defer r.facts.mu.Unlock()
	for uid, m := range r.facts.folder(box.validity).msgs {
		there := slices.Contains(box.uids, uid)
		switch {
		case m.marker != 0 && kept(m.marker) && !there:
			return fmt.Errorf("UID %d, message %d, is lost", uid, m.marker)
		case m.goneAt != 0 && there:
			return fmt.Errorf("UID %d is there, and was told to be gone", uid)
		}
	}
	return nil
}

// allDelivered looks for the messages that SMTP has taken and that nobody was to delete.
func (r *stress) allDelivered(inbox *modelBox) error {
	there := map[int]bool{}
	for _, uid := range inbox.uids {
		there[r.facts.markerOf(inbox.validity, uid)] = true
	}
	for _, marker := range r.mail.promised {
		if kept(marker) && !there[marker] {
			return fmt.Errorf("message %d was taken by SMTP and is not there", marker)
		}
	}
	return nil
}

// agree compares what a session knows of its mailbox with the truth, after a NOOP; and what it learns of another one.
func (s *modelSession) agree(truth map[string]*modelBox) error {
	if s.box != nil && isShared(s.box.name) {
		if err := s.do(&exchange{command: "NOOP"}); err != nil {
			return err
		}
		if err := s.sameAs(truth[s.box.name]); err != nil {
			return fmt.Errorf("%s by what was told: %w", s.box.name, err)
		}
	}
	name := s.pick(stressFolders...)
	if err := s.do(s.open(name, s.oneIn(2))...); err != nil {
		return err
	}
	if err := s.sameAs(truth[name]); err != nil {
		return fmt.Errorf("%s, just selected: %w", name, err)
	}
	return nil
}

// sameAs compares the selected mailbox with the truth.
func (s *modelSession) sameAs(truth *modelBox) error {
	b := s.box
	if len(b.uids) != len(truth.uids) {
		return fmt.Errorf("%d messages, and there are %d", len(b.uids), len(truth.uids))
	}
	for i, uid := range truth.uids {
		want, have := truth.msgs[uid], b.msgs[uid]
		switch {
		case b.uids[i] != 0 && b.uids[i] != uid:
			return fmt.Errorf("message %d is UID %d, and should be %d", i+1, b.uids[i], uid)
		case have == nil:
		case have.known && have.flags != want.flags:
			return fmt.Errorf("UID %d has the flags (%s), and should have (%s)", uid, have.flags, want.flags)
		case have.modseq != 0 && have.modseq != want.modseq:
			return fmt.Errorf("UID %d has MODSEQ %d, and should have %d", uid, have.modseq, want.modseq)
		}
	}
	for uid := range b.msgs {
		if !slices.Contains(b.uids, uid) && !slices.Contains(b.uids, 0) {
			return fmt.Errorf("UID %d is known and not in the view", uid)
		}
	}
	return nil
}
