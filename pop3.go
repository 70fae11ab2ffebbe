package main

// POP3: RFC 1939, with CAPA and response codes (RFC 2449), STLS (RFC 2595),
// [AUTH] and [SYS/…] (RFC 3206), AUTH (RFC 5034; sasl.go has the mechanisms) and UTF8 (RFC 6856).

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

const (
	pop3Idle      = 10 * time.Minute // RFC 1939 §3: at least that
	pop3Line      = 255              // octets of a command line with its CRLF, RFC 2449 §4
	pop3AuthLine  = 12 << 10         // octets of a line of AUTH, RFC 5034 §4
	pop3MaxLogins = 5                // failed logins until the connection is closed
	pop3Batch     = 500              // messages asked of the store at a time
)

// errHangUp ends a session without a further word.
var errHangUp = errors.New("the session is over")

// pop3Session is one POP3 connection. Until somebody has logged in, drop is nil.
type pop3Session struct {
	ctx context.Context
	c   *Conn
	p   *Protocols

	user     string // of USER, "" without one
	failures int    // logins that failed

	drop   *Maildrop
	unlock func() // gives the one POP3 session of the maildrop back
	inbox  *Folder
	msgs   []pop3Message // message number = index+1, as at the login (RFC 1939 §3)
	ahead  pop3Ahead
}

// pop3Message is a message of the session's maildrop.
type pop3Message struct {
	number  int
	uid     imap.UID
	size    int64 // octets with CRLF line ends
	deleted bool
	seen    bool // \Seen is set in the store
	fetched bool // RETR has sent it
}

// pop3Error is a reply that begins with -ERR. Code is a response code or "".
type pop3Error struct{ Code, Text string }

func (e *pop3Error) Error() string {
	if e.Code == "" {
		return e.Text
	}
	return "[" + e.Code + "] " + e.Text
}

// servePOP3 serves one session from the greeting on.
func servePOP3(ctx context.Context, c *Conn, p *Protocols) {
	s := &pop3Session{ctx: ctx, c: c, p: p}
	defer s.close()
	s.ok("%s POP3 server ready", p.Hostname)
	for {
		verb, arg, err := s.command()
		if err == nil {
			err = s.do(verb, arg)
		}
		if err = s.fail(err); err != nil {
			return
		}
	}
}

// close leaves the maildrop. What was fetched is marked \Seen even when the
// connection broke; nothing is deleted here.
func (s *pop3Session) close() {
	if s.drop == nil {
		return
	}
	if err := s.markSeen(); err != nil {
		s.c.Log.Error("cannot mark fetched messages as seen", "error", err)
	}
	s.inbox.Release()
	s.unlock()
	s.drop.Release()
	s.drop = nil
}

// command reads the next command. Replies are sent when no further command is
// waiting (RFC 2449 §6.6, PIPELINING).
func (s *pop3Session) command() (verb, arg string, err error) {
	if s.c.Closing() {
		return "", "", ErrShutdown
	}
	line, err := s.line(pop3Line)
	if err != nil {
		return "", "", err
	}
	verb, arg = parsePOP3(line)
	if len(line) > pop3Line && verb != "AUTH" {
		return "", "", &pop3Error{"", "the line is longer than 255 octets"}
	}
	return verb, arg, nil
}

// line reads a line. AUTH with its initial response may be longer than the limit
// of commands, so the caller has to look.
func (s *pop3Session) line(limit int) ([]byte, error) {
	if s.c.Reader().Buffered() == 0 {
		if err := s.c.Writer().Flush(); err != nil {
			return nil, err
		}
		s.c.ReleaseBuffers()
		s.readAhead()
		if err := s.c.WaitInput(); err != nil {
			return nil, err
		}
	}
	line, err := s.c.ReadLine(max(limit, pop3AuthLine))
	if err == errLineTooLong {
		return nil, &pop3Error{"", "the line is too long"}
	}
	return line, err
}

// parsePOP3 splits a command line into the verb, in capitals, and the rest.
func parsePOP3(line []byte) (verb, arg string) {
	v, a, _ := bytes.Cut(line, []byte{' '})
	return strings.ToUpper(string(v)), string(a)
}

// fail says what went wrong. An error from it ends the session.
func (s *pop3Session) fail(err error) error {
	var reply *pop3Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &reply):
		return s.say("-ERR %s", reply)
	case errors.Is(err, ErrShutdown):
		_ = s.say("-ERR [SYS/TEMP] the appliance is shutting down") // it ends in any case
		return err
	case errors.Is(err, errHangUp), isClientGone(err):
		return err
	}
	s.c.Log.Error("POP3 command failed", "error", err)
	return s.say("-ERR [SYS/TEMP] the mailbox cannot be read at the moment")
}

func (s *pop3Session) say(format string, args ...any) error {
	_, err := fmt.Fprintf(s.c.Writer(), format+"\r\n", args...)
	return err
}

func (s *pop3Session) ok(format string, args ...any) error { return s.say("+OK "+format, args...) }

// do runs one command.
func (s *pop3Session) do(verb, arg string) error {
	switch verb {
	case "CAPA":
		return s.capa()
	case "QUIT":
		return s.quit()
	case "":
		return &pop3Error{"", "empty command"}
	}
	if s.drop == nil {
		return s.authorization(verb, arg)
	}
	s.c.Begins(verb)
	return s.transaction(verb, arg)
}

// authorization runs a command of the state before login (RFC 1939 §4).
func (s *pop3Session) authorization(verb, arg string) error {
	switch verb {
	case "USER":
		return s.userName(arg)
	case "PASS":
		return s.pass(arg)
	case "AUTH":
		return s.auth(arg)
	case "STLS":
		return s.stls(arg)
	case "UTF8":
		return s.utf8()
	case "STAT", "LIST", "RETR", "TOP", "DELE", "RSET", "NOOP", "UIDL":
		return &pop3Error{"", "log in first"}
	}
	return &pop3Error{"", "unknown command"}
}

// transaction runs a command of the state after login (RFC 1939 §5).
func (s *pop3Session) transaction(verb, arg string) error {
	if verb != "RETR" && verb != "DELE" { // some delete each message that they have
		s.ahead = pop3Ahead{}
	}
	switch verb {
	case "STAT":
		return s.stat()
	case "LIST":
		return s.list(arg)
	case "UIDL":
		return s.uidl(arg)
	case "RETR":
		return s.retr(arg)
	case "TOP":
		return s.top(arg)
	case "DELE":
		return s.dele(arg)
	case "RSET":
		return s.rset()
	case "NOOP":
		return s.ok("still here")
	case "USER", "PASS", "AUTH", "STLS", "UTF8":
		return &pop3Error{"", "you are logged in already"}
	}
	return &pop3Error{"", "unknown command"}
}

// capa lists what can be used in the present state (RFC 2449 §5).
func (s *pop3Session) capa() error {
	list := []string{"TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER", "UTF8 USER"}
	if mechanisms := s.c.SASLMechanisms(); len(mechanisms) > 0 {
		list = append(list, "USER", "SASL "+strings.Join(mechanisms, " "))
	}
	if s.c.TLS() == nil && s.drop == nil {
		list = append(list, "STLS")
	}
	list = append(list, "IMPLEMENTATION appliance", ".")
	if err := s.ok("what can be used"); err != nil {
		return err
	}
	return s.say("%s", strings.Join(list, "\r\n"))
}

// needTLS refuses a password on a line that others can read.
func (s *pop3Session) needTLS() error {
	if s.c.MayLogin() {
		return nil
	}
	return &pop3Error{"SYS/PERM", "passwords are taken only under TLS: say STLS first, or connect to the port for TLS"}
}

func (s *pop3Session) userName(arg string) error {
	if err := s.needTLS(); err != nil {
		return err
	}
	if arg == "" {
		return &pop3Error{"", "USER needs a name"}
	}
	s.user = arg
	return s.ok("now the password")
}

// pass takes all of the line as the password, spaces included (RFC 1939 §7).
func (s *pop3Session) pass(arg string) error {
	if err := s.needTLS(); err != nil {
		return err
	}
	user := s.user
	s.user = ""
	if user == "" {
		return &pop3Error{"", "USER comes before PASS"}
	}
	return s.login(user, arg)
}

// auth is RFC 5034; without an argument it lists the mechanisms.
func (s *pop3Session) auth(arg string) error {
	if err := s.needTLS(); err != nil {
		return err
	}
	fields := strings.Fields(arg)
	switch {
	case len(fields) == 0:
		return s.ok("mechanisms follow\r\n%s\r\n.", strings.Join(s.c.SASLMechanisms(), "\r\n"))
	case len(fields) > 2:
		return &pop3Error{"", "too many arguments"}
	}
	x, err := s.c.newSASL(s.ctx, "pop3", fields[0])
	if err != nil {
		return s.loginFailed(err)
	}
	initial := ""
	if len(fields) == 2 {
		initial = fields[1]
	}
	id, err := x.converse(initial, s.challenge)
	if err != nil {
		return s.loginFailed(err)
	}
	return s.enter(id)
}

// challenge sends a challenge and reads the client's response to it.
func (s *pop3Session) challenge(text string) (string, error) {
	if err := s.say("+ %s", text); err != nil {
		return "", err
	}
	line, err := s.line(pop3AuthLine)
	return string(line), err
}

// login checks the password of USER and PASS.
func (s *pop3Session) login(user, password string) error {
	id, err := s.c.Login(s.ctx, "pop3", user, password)
	if err != nil {
		return s.loginFailed(err)
	}
	return s.enter(id)
}

// loginFailed makes the reply to a login that failed.
func (s *pop3Session) loginFailed(err error) error {
	var fault *saslError
	switch {
	case errors.Is(err, ErrBadLogin):
		return s.badLogin(&pop3Error{"AUTH", "wrong address or password"})
	case errors.Is(err, ErrThrottled):
		return s.badLogin(&pop3Error{"LOGIN-DELAY", "too many failed logins, try again later"})
	case !errors.As(err, &fault):
		return err
	}
	switch fault.fault {
	case saslUnbound, saslUnauthorized:
		return &pop3Error{"AUTH", fault.text}
	}
	return &pop3Error{"", fault.text}
}

// enter opens the maildrop of who has logged in.
func (s *pop3Session) enter(id Identity) error {
	if err := s.open(id.Account); err != nil {
		return err
	}
	s.c.SetIdle(pop3Idle)
	return s.ok("%d messages", len(s.msgs))
}

// badLogin answers, and closes the connection when there were too many.
func (s *pop3Session) badLogin(reply *pop3Error) error {
	if s.failures++; s.failures < pop3MaxLogins {
		return reply
	}
	if err := s.say("-ERR %s", reply); err != nil {
		return err
	}
	return errHangUp
}

// open locks the maildrop and takes the messages of its INBOX in.
func (s *pop3Session) open(account string) (err error) {
	drop, err := s.p.Store.Maildrop(account)
	if err != nil {
		return fmt.Errorf("opening a maildrop: %w", err)
	}
	unlock, ok := drop.LockPOP3()
	if !ok {
		drop.Release()
		return &pop3Error{"IN-USE", "another POP3 session has this maildrop open"}
	}
	inbox, err := drop.Open("INBOX")
	if err == nil {
		s.inbox = inbox
		if err = s.load(); err != nil {
			inbox.Release()
		}
	}
	if err != nil {
		unlock()
		drop.Release()
		return fmt.Errorf("opening a maildrop: %w", err)
	}
	s.drop, s.unlock = drop, unlock
	return nil
}

// load lists the messages of the INBOX.
func (s *pop3Session) load() error {
	if _, err := s.inbox.Status(false); err != nil { // it notices what others did to the files
		return err
	}
	view, err := s.inbox.NewView(true, nil)
	if err != nil {
		return err
	}
	uids := slices.Clone(view.UIDs())
	view.Close()
	s.msgs = make([]pop3Message, 0, len(uids))
	var batch []Msg
	for part := range slices.Chunk(uids, pop3Batch) {
		if batch, err = s.inbox.Messages(batch, part, true); err != nil {
			return err
		}
		for _, m := range batch {
			s.msgs = append(s.msgs, pop3Message{number: len(s.msgs) + 1, uid: m.UID, size: m.Size, seen: m.Flags&FlagSeen != 0})
		}
	}
	return nil
}

// stls is RFC 2595 §4.
func (s *pop3Session) stls(arg string) error {
	if arg != "" {
		return &pop3Error{"", "STLS has no arguments"}
	}
	if s.c.TLS() != nil {
		return &pop3Error{"", "TLS is active already"}
	}
	if s.c.Reader().Buffered() > 0 {
		_ = s.say("-ERR nothing may follow STLS before TLS is active") // it ends in any case
		return errHangUp
	}
	if err := s.ok("begin TLS now"); err != nil {
		return err
	}
	if err := s.c.Writer().Flush(); err != nil {
		return err
	}
	s.user = "" // what was said before TLS does not count
	if err := s.c.StartTLS(); err != nil {
		s.c.Log.Debug("no TLS", "protocol", "pop3", "error", err)
		return errHangUp
	}
	return nil
}

// utf8 is RFC 6856 §2.1. Messages are sent as they are in both modes: what they
// hold cannot be said in ASCII without changing it.
func (s *pop3Session) utf8() error { return s.ok("UTF-8 it is") }

func (s *pop3Session) stat() error {
	n, size := 0, int64(0)
	for _, m := range s.msgs {
		if !m.deleted {
			n, size = n+1, size+m.size
		}
	}
	return s.ok("%d %d", n, size)
}

func (s *pop3Session) list(arg string) error {
	return s.listing(arg, func(dst []byte, m *pop3Message) []byte { return strconv.AppendInt(dst, m.size, 10) })
}

// uidl gives Dovecot's default form of unique ids, so that clients of a maildrop
// that comes from there do not fetch all again.
func (s *pop3Session) uidl(arg string) error {
	validity := s.inbox.UIDValidity()
	return s.listing(arg, func(dst []byte, m *pop3Message) []byte { return fmt.Appendf(dst, "%08x%08x", uint32(m.uid), validity) })
}

// listing answers LIST and UIDL, with and without a message number.
func (s *pop3Session) listing(arg string, appendValue func(dst []byte, m *pop3Message) []byte) error {
	if strings.TrimSpace(arg) != "" {
		m, err := s.message(arg)
		if err != nil {
			return err
		}
		return s.ok("%s %s", strings.TrimSpace(arg), appendValue(nil, m))
	}
	if err := s.ok("the messages follow"); err != nil {
		return err
	}
	var line []byte
	for i := range s.msgs {
		if m := &s.msgs[i]; !m.deleted {
			line = append(strconv.AppendInt(line[:0], int64(i+1), 10), ' ')
			line = append(appendValue(line, m), "\r\n"...)
			if _, err := s.c.Writer().Write(line); err != nil {
				return err
			}
		}
	}
	return s.say(".")
}

// message looks a message number up.
func (s *pop3Session) message(arg string) (*pop3Message, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(arg), 10, 31)
	switch {
	case err != nil:
		return nil, &pop3Error{"", "that is no message number"}
	case n == 0 || n > uint64(len(s.msgs)):
		return nil, &pop3Error{"", "no such message"}
	case s.msgs[n-1].deleted:
		return nil, &pop3Error{"", "the message is marked as deleted"}
	}
	return &s.msgs[n-1], nil
}

func (s *pop3Session) retr(arg string) error {
	m, err := s.message(arg)
	if err != nil {
		return err
	}
	sent, err := s.sendAtOnce(m)
	if err == nil && !sent {
		err = s.send(m, -1)
	}
	if err != nil {
		return err
	}
	m.fetched = true
	if s.ahead.next != m.number {
		s.ahead.run = 0
	}
	s.ahead.run++
	s.ahead.next = m.number + 1
	return nil
}

// sendAtOnce sends a message that fits the connection's output buffer, reading its file right into it unless that was done
// ahead. false: it must be streamed, and nothing was sent.
func (s *pop3Session) sendAtOnce(m *pop3Message) (bool, error) {
	w := s.c.Writer()
	if s.ahead.number == m.number && s.inbox.Has(m.uid) {
		_, err := w.Write(s.ahead.reply)
		return true, err
	}
	if m.replySize() > w.Size() {
		return false, nil
	}
	if m.replySize() > w.Available() {
		if err := w.Flush(); err != nil {
			return false, err
		}
	}
	reply, err := s.wholeReply(w.AvailableBuffer(), m)
	if len(reply) > 0 {
		_, err = w.Write(reply)
	}
	return len(reply) > 0, err
}

// replySize is no less than the whole reply to RETR takes, dots apart.
func (m *pop3Message) replySize() int {
	return int(min(m.size, 1<<30)) + 64
}

// wholeReply makes the reply to RETR in dst, which has room for replySize bytes. It gives nothing for a message that must
// be streamed: one that was changed meanwhile, or has lines that begin with a dot.
func (s *pop3Session) wholeReply(dst []byte, m *pop3Message) ([]byte, error) {
	dst = append(dst, "+OK "...)
	dst = append(strconv.AppendInt(dst, m.size, 10), " octets\r\n"...)
	msg, err := s.openMessage(m, dst[len(dst):cap(dst)])
	if err != nil {
		return nil, err
	}
	defer msg.Close()
	text, ok := msg.Text(0, m.size)
	if !ok || len(text) == 0 || text[0] == '.' || bytes.Contains(text, []byte("\n.")) {
		return nil, nil
	}
	dst = dst[:len(dst)+len(text)]
	if text[len(text)-1] != '\n' {
		dst = append(dst, "\r\n"...)
	}
	return append(dst, ".\r\n"...), nil
}

// pop3Ahead is the reply to the next RETR of a client that fetches one message after the other, made while the client
// takes the last one.
type pop3Ahead struct {
	run, next int // RETRs one after the other, and the number that would go on
	number    int // of the message that reply is for, 0 without one
	reply     []byte
}

// readAhead makes the reply to the next RETR.
func (s *pop3Session) readAhead() {
	a := &s.ahead
	a.number = 0
	if a.run < 2 || a.next > len(s.msgs) {
		return
	}
	m := &s.msgs[a.next-1]
	if m.deleted || m.replySize() > writerSize {
		return
	}
	if cap(a.reply) < m.replySize() {
		a.reply = make([]byte, 0, writerSize)
	}
	if reply, err := s.wholeReply(a.reply[:0], m); err == nil && len(reply) > 0 { // an error is told when it is asked for
		a.number, a.reply = m.number, reply
	}
}

// openMessage opens a message for reading, as Folder.OpenMessageIn does.
func (s *pop3Session) openMessage(m *pop3Message, buf []byte) (*Message, error) {
	msg, err := s.inbox.OpenMessageIn(m.uid, buf)
	if errors.Is(err, ErrExpunged) {
		return nil, &pop3Error{"", "the message has been removed meanwhile"}
	}
	if err != nil {
		return nil, fmt.Errorf("opening a message: %w", err)
	}
	return msg, nil
}

func (s *pop3Session) top(arg string) error {
	number, lines, _ := strings.Cut(strings.TrimSpace(arg), " ")
	n, err := strconv.ParseUint(strings.TrimSpace(lines), 10, 31)
	if err != nil {
		return &pop3Error{"", "TOP needs a message number and a number of lines"}
	}
	m, err := s.message(number)
	if err != nil {
		return err
	}
	return s.send(m, int(n))
}

// send streams a message: all of it, or its header and that many lines of its
// body. After the +OK an error ends the connection: half a message must not look
// like a whole one.
func (s *pop3Session) send(m *pop3Message, lines int) error {
	msg, err := s.openMessage(m, nil)
	if err != nil {
		return err
	}
	defer msg.Close()
	text := msg.Section(0, msg.Size())
	if lines < 0 {
		err = s.ok("%d octets", msg.Size())
	} else {
		err = s.ok("the top follows")
		text = &topReader{r: text, lines: lines}
	}
	if err != nil {
		return err
	}
	out := &dotWriter{w: s.c.Writer(), lineStart: true}
	if _, err := io.CopyBuffer(out, text, make([]byte, 16<<10)); err != nil {
		if !isClientGone(err) {
			s.c.Log.Error("sending a message broke off", "uid", uint32(m.uid), "error", err)
		}
		return errHangUp
	}
	return out.end()
}

func (s *pop3Session) dele(arg string) error {
	m, err := s.message(arg)
	if err != nil {
		return err
	}
	m.deleted = true
	return s.ok("marked as deleted")
}

func (s *pop3Session) rset() error {
	for i := range s.msgs {
		s.msgs[i].deleted = false
	}
	return s.ok("nothing is marked as deleted")
}

// quit removes what is marked, and only then says goodbye (RFC 1939 §6).
func (s *pop3Session) quit() error {
	removed := s.uids(func(m *pop3Message) bool { return m.deleted })
	if len(removed) > 0 {
		if _, _, err := s.inbox.Expunge(removed, false); err != nil {
			s.c.Log.Error("cannot delete messages", "error", err)
			_ = s.say("-ERR [SYS/TEMP] some messages could not be deleted") // it ends in any case
			return errHangUp
		}
	}
	_ = s.ok("goodbye") // it ends in any case
	return errHangUp
}

// markSeen sets \Seen on what RETR has sent and QUIT has not removed.
func (s *pop3Session) markSeen() error {
	seen := s.uids(func(m *pop3Message) bool { return m.fetched && !m.seen })
	if len(seen) == 0 {
		return nil
	}
	_, _, _, err := s.inbox.SetFlags(seen, FlagsAdd, []imap.Flag{imap.FlagSeen}, NoUnchangedSince)
	return err
}

// uids lists the messages that pass, ascending.
func (s *pop3Session) uids(pass func(m *pop3Message) bool) []imap.UID {
	var uids []imap.UID
	for i := range s.msgs {
		if pass(&s.msgs[i]) {
			uids = append(uids, s.msgs[i].uid)
		}
	}
	return uids
}

// dotWriter writes a multi-line response: a line that begins with a dot gets one
// more (RFC 1939 §3).
type dotWriter struct {
	w         io.Writer
	lineStart bool
}

// Write is io.Writer.
func (d *dotWriter) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		piece := p[written:]
		if d.lineStart && piece[0] == '.' {
			if _, err := d.w.Write([]byte{'.'}); err != nil {
				return written, err
			}
		}
		if i := bytes.Index(piece, []byte("\n.")); i >= 0 {
			piece = piece[:i+1]
		}
		n, err := d.w.Write(piece)
		written += n
		if err != nil {
			return written, err
		}
		d.lineStart = piece[len(piece)-1] == '\n'
	}
	return written, nil
}

// end ends the response. A message without a line end at its end gets one.
func (d *dotWriter) end() error {
	end := ".\r\n"
	if !d.lineStart {
		end = "\r\n.\r\n"
	}
	_, err := io.WriteString(d.w, end)
	return err
}

// topReader reads a message up to the end of its header and some lines more.
type topReader struct {
	r     io.Reader
	lines int // of the body, still to come
	body  bool
	blank bool // the line so far is empty
	begun bool
}

func (t *topReader) Read(p []byte) (int, error) {
	if t.body && t.lines == 0 {
		return 0, io.EOF
	}
	if !t.begun {
		t.begun, t.blank = true, true
	}
	n, err := t.r.Read(p)
	for i, c := range p[:n] {
		if c != '\n' {
			t.blank = t.blank && c == '\r'
			continue
		}
		switch {
		case t.body:
			t.lines--
		case t.blank:
			t.body = true
		}
		t.blank = true
		if t.body && t.lines == 0 {
			return i + 1, nil
		}
	}
	return n, err
}
