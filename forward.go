package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// Forwarding: mail of a person goes on to addresses elsewhere, unchanged behind the trace fields, so that the signatures of its
// author stay right. The reverse-path becomes one of ours (srs.go). What the filter calls unwanted does not go on.
//
// Where a copy stays, it is delivered first, and the message waits in the queue before its sender is told that it is taken: a
// crash in between makes the sender try again, and the person has it twice. Where none stays, what waits in the queue is
// the message; if it cannot be queued, or is refused in the end, it goes into the INBOX.

const (
	forwardsPerHour = 500 // addresses that the mail of one person goes on to within an hour; of more than that it stays here
	bouncesPerHour  = 20  // that come back to one sender
)

// deliveredField names the accounts that have forwarded a message.
const deliveredField = "Delivered-To"

// errForwardLoop says that a message was forwarded by the account before.
var errForwardLoop = errors.New("it has been forwarded for this account before")

// errForwardFlood says that too much was forwarded for a person within the hour.
var errForwardFlood = fmt.Errorf("more than %d addresses within an hour", forwardsPerHour)

// forwardCopy is a message that is about to go on for one person.
type forwardCopy struct {
	account string
	moved   bool // no copy stays
	in      *Incoming
	env     *Envelope
	id      string // once it is queued
}

// discard removes a copy that was not queued.
func (c *forwardCopy) discard() {
	if c.in != nil {
		c.in.Discard()
	}
}

// forwardCopies makes the copies of a message that go on. Where that fails, the message stays here, and the log says why.
func (r *Rules) forwardCopies(m *ruledMessage, to []Delivery) (copies []*forwardCopy) {
	for _, target := range to {
		addresses, only := r.cfg.Accounts.Forward(target.Account)
		if r.cfg.SRS == nil || len(addresses) == 0 || target.Folder != inboxName {
			continue
		}
		c := &forwardCopy{account: target.Account, moved: only}
		if err := r.fill(c, m, addresses); err != nil {
			c.discard()
			r.cfg.Log.Warn("a message is not forwarded and stays here", "account", target.Account, "reason", err.Error())
			continue
		}
		copies = append(copies, c)
	}
	return copies
}

// fill writes a copy for these addresses.
func (r *Rules) fill(c *forwardCopy, m *ruledMessage, addresses []string) error {
	header, err := m.header()
	if err != nil {
		return err
	}
	for _, field := range header {
		if field.Is(deliveredField) && field.Value() == c.account {
			return errForwardLoop
		}
	}
	for n := range addresses {
		if !r.forwards.Take(senderOf(c.account)) {
			r.forwards.GiveBack(Identity{Account: c.account}, n)
			return errForwardFlood
		}
	}
	c.env = &Envelope{From: r.senderFor(m.from, c.account), Forward: c.account, Moved: c.moved, EightBit: true}
	for _, address := range addresses {
		c.env.Recipients = append(c.env.Recipients, Recipient{Address: address, Notify: NotifyFailure})
		c.env.UTF8 = c.env.UTF8 || !isASCII([]byte(address))
	}
	if c.in, err = r.cfg.Store.Receive(r.cfg.Queue.TmpDir()); err == nil {
		err = c.write(m, header)
	}
	if err != nil {
		r.forwards.GiveBack(Identity{Account: c.account}, len(addresses))
	}
	return err
}

// senderFor gives the reverse-path under which a message goes on. That of people here stays, and so does the null one: what
// nobody is to be told of stays so. Where an address is too long or too strange to be rewritten, bounces go to the person.
func (r *Rules) senderFor(from, account string) string {
	sender, err := ParseAddress(from)
	switch {
	case from == "":
		return ""
	case err != nil:
		return account
	case r.cfg.Accounts.IsLocalDomain(sender.Domain):
		return queueAddress(sender)
	}
	if address, ok := r.cfg.SRS.Forward(sender, domainOf(account)); ok {
		return address
	}
	return account
}

// write writes the copy: without Return-Path, which the last server writes, and without what our filter has said for our people.
func (c *forwardCopy) write(m *ruledMessage, header []headerField) error {
	if _, err := io.WriteString(c.in, deliveredField+": "+c.account+"\r\n"); err != nil {
		return err
	}
	at, ours := int64(0), true
	for _, field := range header {
		at += int64(len(field.Raw))
		if isVerdictField(field.Name) {
			continue
		}
		if ours && field.Is("Return-Path") { // those behind it came with the message
			ours = false
			continue
		}
		if _, err := c.in.Write(field.Raw); err != nil {
			return err
		}
	}
	_, err := io.Copy(c.in, io.NewSectionReader(m.in, at, m.in.Size()-at))
	return err
}

// submit puts a copy into the queue: on disk when it returns nil.
func (r *Rules) submit(c *forwardCopy) (err error) {
	c.id, err = r.cfg.Queue.Submit(c.in, c.env)
	if err != nil {
		r.forwards.GiveBack(Identity{Account: c.account}, len(c.env.Recipients))
		r.cfg.Log.Error("a message is not forwarded and stays here", "account", c.account, "error", err)
		return err
	}
	r.cfg.Log.Info("forwarded", "account", c.account, "id", c.id, "from", c.env.From, "to", c.env.addresses(), "kept", !c.moved)
	return nil
}

// moveOn queues the copies of those who keep none, and gives where the message is still to be delivered.
func (r *Rules) moveOn(copies []*forwardCopy, to []Delivery) []Delivery {
	stay := slices.Clone(to)
	for _, c := range copies {
		if c.moved && r.submit(c) == nil {
			stay = slices.DeleteFunc(stay, func(target Delivery) bool { return target.Account == c.account })
		}
	}
	return stay
}

// copyOn queues the copies of those who keep one. The message itself is delivered: a failure is for the log alone.
func (r *Rules) copyOn(copies []*forwardCopy) {
	for _, c := range copies {
		if !c.moved {
			_ = r.submit(c)
		}
	}
}

// takeBack takes what was queued out again: the sender is told that the message was not taken, and tries again.
func (r *Rules) takeBack(copies []*forwardCopy) {
	for _, c := range copies {
		if c.id == "" {
			continue
		}
		if err := r.cfg.Queue.Cancel(c.id); err != nil && !errors.Is(err, ErrNotQueued) {
			r.cfg.Log.Error("a message is forwarded that its sender will send again", "id", c.id, "error", err)
		}
	}
}

// ReturnTo gives the sender elsewhere that a bounce to an address of ours is for. known is false where the address is none that
// stands for a sender; with errNotSRS it was not made here, or too long ago.
func (r *Rules) ReturnTo(address string) (to Address, known bool, err error) {
	local, domain, ok := cutLast(address, '@')
	if kind, _ := srsKind(local); !ok || kind == "" || r.cfg.SRS == nil || len(address) > maxAddress || !r.cfg.Accounts.IsLocalDomain(domain) {
		return Address{}, false, nil
	}
	to, err = r.cfg.SRS.Reverse(local)
	return to, true, err
}

// TakeBounce counts a bounce to a sender, or says that it is one too many within the hour.
func (r *Rules) TakeBounce(to Address) bool { return r.bounces.Take(senderOf(to.Key())) }
