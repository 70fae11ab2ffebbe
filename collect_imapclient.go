package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// outsideIMAP reads the mailboxes of an account on another server (RFC 3501, 9051), on go-imap's client: one command at a
// time, each with its end in time and in bytes, messages streamed. Collecting reads INBOX with it; it reads any mailbox.
// Used by one goroutine.
type outsideIMAP struct {
	d      *outsideDialer
	server *OutsideServer
	conn   *outsideConn
	client *imapclient.Client
	caps   imap.CapSet
	news   chan struct{} // one when the server has told of more messages
	max    int64         // bytes of a message
	body   *imapBody     // that is being read
}

const (
	imapSearchBytes = 16 << 20 // of the numbers of all messages of a mailbox
	imapFactsAtOnce = 200      // messages that are asked about with one command
	imapFactBytes   = 16 << 10 // of what is said about one
	imapIdleRenew   = 25 * time.Minute
)

// imapFacts is what is known of a message before it is fetched.
type imapFacts struct {
	UID   imap.UID
	Size  int64 // as the server tells it, which need not be true
	Flags []imap.Flag
	Date  time.Time // INTERNALDATE
}

// openIMAP connects and logs in.
func (d *outsideDialer) openIMAP(ctx context.Context, server *OutsideServer) (*outsideIMAP, error) {
	conn, err := d.connect(ctx, server)
	if err != nil {
		return nil, err
	}
	s := &outsideIMAP{d: d, server: server, conn: conn, news: make(chan struct{}, 1), max: DefaultMaxSize}
	s.allow(outsideReply)
	stream, err := s.greeting()
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	s.client = imapclient.New(stream, &imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Mailbox: func(data *imapclient.UnilateralDataMailbox) {
			if data.NumMessages != nil {
				s.tell()
			}
		},
	}})
	if err := s.login(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// greeting reads the greeting, and plays it to go-imap's client, which waits for one after STARTTLS as well, and now and then
// does not tell what a BYE said. What came before TLS is not repeated.
func (s *outsideIMAP) greeting() (net.Conn, error) {
	r, line := bufio.NewReader(s.conn), "* OK"
	if !s.conn.greeted {
		var err error
		if line, err = readOutsideLine(r); err != nil {
			return nil, netTrouble(s.server, err)
		}
	}
	switch {
	case hasWord(line, "* BYE"):
		return nil, busyTrouble(s.server, strings.TrimSpace(line[len("* BYE"):]))
	case !hasWord(line, "* OK"):
		return nil, s.noIMAP(errors.New(clip(line, 100)))
	}
	return &replayed{Conn: s.conn.Conn, r: io.MultiReader(strings.NewReader(line+"\r\n"), r)}, nil
}

// noIMAP is an answer that cannot be read.
func (s *outsideIMAP) noIMAP(err error) error {
	return &outsideError{faultPassing, fmt.Sprintf("%s answers in a way that is no IMAP: it is tried again by itself", s.conn.where), err}
}

// tell notes that there may be more messages.
func (s *outsideIMAP) tell() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

func (s *outsideIMAP) allow(bytes int64) { s.conn.command(s.d, bytes) }

// trouble puts an error into words. What a server refuses is said by it.
func (s *outsideIMAP) trouble(what string, err error) error {
	var reply *imap.Error
	if errors.As(err, &reply) {
		return &outsideError{faultPassing, fmt.Sprintf("%s refuses %s (it says: %s): it is tried again by itself", s.server.Host, what, foreignWords(reply.Text, 300)), err}
	}
	var known *outsideError
	if errors.As(err, &known) {
		return err
	}
	if failure := s.conn.patient.failure(); failure != nil {
		return netTrouble(s.server, failure)
	}
	return s.noIMAP(err)
}

// login logs in: by AUTHENTICATE PLAIN where it is offered, which takes any letters, else by LOGIN.
func (s *outsideIMAP) login() error {
	if err := s.client.WaitGreeting(); err != nil {
		return s.trouble("the connection", err)
	}
	caps := s.client.Caps()
	if caps == nil {
		return &outsideError{faultPassing, fmt.Sprintf("%s does not tell what it knows (CAPABILITY): it is tried again by itself", s.conn.where), nil}
	}
	s.allow(outsideReply)
	var err error
	switch {
	case caps.Has(imap.AuthCap("PLAIN")):
		err = s.client.Authenticate(plainLogin(s.server))
	case caps.Has(imap.CapLoginDisabled):
		return loginTrouble(s.server, "logging in with a password is switched off")
	default:
		err = s.client.Login(s.server.Login, s.server.Password).Wait()
	}
	var reply *imap.Error
	if errors.As(err, &reply) {
		switch reply.Code {
		case imap.ResponseCodeUnavailable, imap.ResponseCodeInUse, imap.ResponseCodeLimit, imap.ResponseCodeServerBug:
			return busyTrouble(s.server, reply.Text)
		}
		return loginTrouble(s.server, reply.Text)
	}
	if err != nil {
		return s.trouble("the login", err)
	}
	s.allow(outsideReply)
	if s.caps = s.client.Caps(); s.caps == nil {
		return &outsideError{faultPassing, fmt.Sprintf("%s does not tell what it knows (CAPABILITY): it is tried again by itself", s.conn.where), nil}
	}
	return nil
}

// enter opens a mailbox and gives its UIDVALIDITY. readOnly changes nothing in it, not even what is \Recent.
func (s *outsideIMAP) enter(mailbox string, readOnly bool) (validity uint32, err error) {
	s.allow(outsideReply)
	data, err := s.client.Select(mailbox, &imap.SelectOptions{ReadOnly: readOnly}).Wait()
	if err != nil {
		return 0, s.trouble("to open "+mailbox, err)
	}
	if data.UIDValidity == 0 { // RFC 3501 §2.3.1.1: such UIDs mean nothing tomorrow
		return 0, &outsideError{faultSetup, fmt.Sprintf("%s gives its messages no lasting numbers (UIDVALIDITY), so mail cannot be collected from it: try pop3", s.server.Host), nil}
	}
	return data.UIDValidity, nil
}

// above gives the UIDs above last, ascending, at most maxSeen of them.
func (s *outsideIMAP) above(last uint32) ([]imap.UID, error) {
	if last == 1<<32-1 {
		return nil, nil
	}
	var set imap.UIDSet
	set.AddRange(imap.UID(last+1), 0)
	uids, err := s.search(&imap.SearchCriteria{UID: []imap.UIDSet{set}})
	// n:* has the highest one in it, whatever n is (RFC 9051 §6.4.8).
	uids = slices.DeleteFunc(uids, func(uid imap.UID) bool { return uid <= imap.UID(last) })
	return uids[:min(len(uids), maxSeen)], err
}

// search gives the UIDs that fit.
func (s *outsideIMAP) search(criteria *imap.SearchCriteria) ([]imap.UID, error) {
	s.allow(imapSearchBytes)
	data, err := s.client.UIDSearch(criteria, nil).Wait()
	if err != nil {
		return nil, s.trouble("to list messages", err)
	}
	set, _ := data.All.(imap.UIDSet)
	n := uint64(0)
	for _, r := range set { // a server may answer with ranges that have no end
		if r.Stop < r.Start || r.Start == 0 {
			n = imapSearchBytes
		}
		n += uint64(r.Stop) - uint64(r.Start) + 1
	}
	if n >= imapSearchBytes {
		return nil, netTrouble(s.server, errTooMuch)
	}
	uids, _ := set.Nums()
	return uids, nil
}

// facts asks about at most imapFactsAtOnce messages. Those that are gone are missing in the answer.
func (s *outsideIMAP) facts(uids []imap.UID) ([]imapFacts, error) {
	s.allow(outsideReply + int64(len(uids))*imapFactBytes)
	cmd := s.client.Fetch(imap.UIDSetNum(uids...), &imap.FetchOptions{UID: true, RFC822Size: true, Flags: true, InternalDate: true})
	var list []imapFacts
	for m := cmd.Next(); m != nil; m = cmd.Next() {
		f := imapFacts{Size: -1}
		for item := m.Next(); item != nil; item = m.Next() {
			switch item := item.(type) {
			case imapclient.FetchItemDataUID:
				f.UID = item.UID
			case imapclient.FetchItemDataRFC822Size:
				f.Size = item.Size
			case imapclient.FetchItemDataFlags:
				f.Flags = item.Flags
			case imapclient.FetchItemDataInternalDate:
				f.Date = item.Time
			}
		}
		list = append(list, f)
	}
	if err := cmd.Close(); err != nil {
		return nil, s.trouble("to tell of messages", err)
	}
	sortFunc(list, func(a, b imapFacts) int { return int(int64(a.UID) - int64(b.UID)) })
	return list, nil
}

// fetch begins to read a message without marking it as read. The caller reads it to its end, or closes the session.
// errNoMessage if the server has a reason not to give it; errTooLarge, which ends the session, if there is more than max.
func (s *outsideIMAP) fetch(uid imap.UID) (io.Reader, error) {
	s.conn.message(s.d, s.max)
	cmd := s.client.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{{Peek: true}}})
	for m := cmd.Next(); m != nil; m = cmd.Next() {
		for item := m.Next(); item != nil; item = m.Next() {
			if body, ok := item.(imapclient.FetchItemDataBodySection); ok && body.Literal != nil {
				s.body = &imapBody{s: s, cmd: cmd, literal: body.Literal, left: body.Literal.Size()}
				if s.body.left > s.max {
					return nil, errTooLarge
				}
				return s.body, nil
			}
		}
	}
	return nil, s.noMessage(cmd.Close())
}

// noMessage is the error for a message that was not given.
func (s *outsideIMAP) noMessage(err error) error {
	var reply *imap.Error
	switch {
	case errors.As(err, &reply):
		return fmt.Errorf("%w: %s", errNoMessage, reply.Text)
	case err != nil:
		return s.trouble("to give a message", err)
	}
	return errNoMessage
}

// imapBody is a message that is being fetched. It ends with io.EOF when it is whole and the server has said so.
type imapBody struct {
	s       *outsideIMAP
	cmd     *imapclient.FetchCommand
	literal io.Reader
	left    int64
	err     error
}

// Read is io.Reader.
func (b *imapBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.literal.Read(p)
	if b.left -= int64(n); err == nil {
		return n, nil
	}
	b.s.body = nil
	if b.left != 0 { // the connection ended within it, which a literal does not tell
		_ = b.s.conn.Close() // the goroutine that reads goes on by now: nothing of the message may be touched
		b.err = b.s.trouble("to give a message", io.ErrUnexpectedEOF)
		return n, b.err
	}
	if b.err = io.EOF; err != io.EOF {
		b.err = b.s.trouble("to give a message", err)
	} else if closed := b.cmd.Close(); closed != nil {
		b.err = b.s.noMessage(closed)
	}
	return n, b.err
}

// remove deletes messages for good, and no others (RFC 4315). Where the server cannot do that, they are deleted as soon as
// nothing else is marked as deleted there; gone is false until then.
func (s *outsideIMAP) remove(uids []imap.UID) (gone bool, err error) {
	set := imap.UIDSetNum(uids...)
	s.allow(outsideReply + int64(len(uids))*imapFactBytes)
	store := s.client.Store(set, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}, nil)
	if err := store.Close(); err != nil {
		return false, s.trouble("to delete what was fetched", err)
	}
	var expunge *imapclient.ExpungeCommand
	s.allow(imapSearchBytes)
	if s.caps.Has(imap.CapUIDPlus) {
		expunge = s.client.UIDExpunge(set)
	} else {
		marked, err := s.search(&imap.SearchCriteria{Flag: []imap.Flag{imap.FlagDeleted}})
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(marked, func(uid imap.UID) bool { return !set.Contains(uid) }) {
			return false, nil
		}
		s.allow(imapSearchBytes)
		expunge = s.client.Expunge()
	}
	if err := expunge.Close(); err != nil {
		return false, s.trouble("to delete what was fetched", err)
	}
	return true, nil
}

// idles says whether the server tells of new messages by itself (RFC 2177).
func (s *outsideIMAP) idles() bool { return s.caps.Has(imap.CapIdle) }

// wait returns when there may be new messages, when renew is over, or when poke is sent to; with an error when the
// connection is lost. A server may end a session that idles for 30 minutes, so IDLE is ended before.
func (s *outsideIMAP) wait(ctx context.Context, poke <-chan struct{}, renew time.Duration) error {
	select {
	case <-s.news:
		return nil
	default:
	}
	s.allow(outsideReply)
	idle, err := s.client.Idle()
	if err != nil {
		return s.trouble("to wait for messages", err)
	}
	s.conn.patient.allow(renew+outsideCommand, renew+outsideCommand, imapSearchBytes)
	timer := time.NewTimer(renew)
	defer timer.Stop()
	select {
	case <-s.news:
	case <-poke:
	case <-timer.C:
	case <-ctx.Done():
	case <-s.client.Closed():
	}
	s.allow(imapSearchBytes)
	err = idle.Close()
	if err == nil {
		err = idle.Wait()
	}
	if err != nil {
		return s.trouble("to wait for messages", err)
	}
	return ctx.Err()
}

// close ends the session: politely, if that takes no time.
func (s *outsideIMAP) close() {
	if s.body != nil { // the goroutine that reads waits until somebody takes the rest
		_ = s.conn.Close()
		_ = s.body.cmd.Close()
	}
	s.conn.patient.allow(time.Second, time.Second, outsideReply)
	if s.client.State() != imap.ConnStateLogout {
		_ = s.client.Logout().Wait() // it is over in any case
	}
	_ = s.conn.Close()
	_ = s.client.Close() // waits for the goroutine that reads
}
