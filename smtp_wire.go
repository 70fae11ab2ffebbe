package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

const (
	smtpIdle      = 5 * time.Minute // RFC 5321 §4.5.3.2.7
	smtpLine      = 12 << 10        // octets of a command line, RFC 4954 §4
	smtpMaxErrors = 50              // replies of 5xx until the connection is closed
)

// smtpWire is the network connection that go-smtp's server is given. It lies
// between the server and the client's stream, hands over one command at a time,
// and does what the server does not do, or not well:
//
//   - STARTTLS, after which a new server begins, so that nothing said before
//     counts (RFC 3207 §4.2);
//   - lines that are no commands are answered here, with a limit of their own;
//   - <postmaster> without a domain (RFC 5321 §4.5.1);
//   - the end of DATA is CRLF.CRLF alone, and bare CR and LF become CRLF, so that
//     no second message can be smuggled in one; the session reads the message here;
//   - a chunk of BDAT that breaks off is an error, not the end of the message;
//   - replies are sent together when the client has nothing more in the pipe.
//
// It never closes the client's connection: that is its owner's task.
type smtpWire struct {
	c      *Conn
	p      *Protocols
	s      *smtpSession
	closed chan struct{} // by the server
	once   sync.Once

	mode     smtpMode
	pending  []byte             // of a command, for the server
	reply    []byte             // of the server, not a whole line yet
	data     dataDecoder        // of DATA
	step     [2 * dataStep]byte // of it, for a reader that has little room
	rest     []byte             // of step, not read yet
	received int64              // octets of DATA
	chunk    int64              // octets of BDAT still to come
	quiet    bool               // leave the greeting out: it was said before TLS
	esmtp    bool               // EHLO, not HELO
	greeted  string             // what the client called itself
	errors   int                // replies of 5xx
	ended    bool               // nothing more is read
	secured  bool               // STARTTLS was done: begin again
}

// smtpMode is what the client's next bytes are.
type smtpMode int

const (
	smtpCommands smtpMode = iota
	smtpSASL              // one line of an AUTH exchange
	smtpData              // the message of DATA
	smtpChunk             // a chunk of BDAT
)

// runSMTP serves a connection until it ends.
func runSMTP(ctx context.Context, c *Conn, p *Protocols, submission bool) {
	for quiet := false; ; quiet = true {
		w := &smtpWire{c: c, p: p, closed: make(chan struct{}), quiet: quiet}
		w.s = newSMTPSession(ctx, w, submission)
		w.run()
		if !w.secured {
			return
		}
	}
}

// run lets a server of go-smtp's speak until it is done.
func (w *smtpWire) run() {
	srv := smtp.NewServer(w)
	srv.Domain = w.p.Hostname
	srv.MaxLineLength = 0 // lines of DATA are of any length; commands are limited here
	srv.AllowInsecureAuth = true
	srv.EnableSMTPUTF8 = true
	srv.EnableDSN, srv.EnableREQUIRETLS = w.s.sendsOut(), w.s.sendsOut()
	srv.ErrorLog = smtpLog{w.c.Log}
	_ = srv.Serve(&oneConnListener{w: w}) // it ends with the listener's error
	_ = srv.Shutdown(context.Background())
	w.s.running.Wait()
}

// NewSession gives the server its session: the one that was made beforehand.
func (w *smtpWire) NewSession(*smtp.Conn) (smtp.Session, error) { return w.s, nil }

// oneConnListener is a listener with a single connection.
type oneConnListener struct {
	w    *smtpWire
	done bool
}

func (l *oneConnListener) Accept() (net.Conn, error) {
	if !l.done {
		l.done = true
		return l.w, nil
	}
	<-l.w.closed
	return nil, net.ErrClosed
}

func (l *oneConnListener) Close() error   { return nil }
func (l *oneConnListener) Addr() net.Addr { return l.w.LocalAddr() }

// smtpLog takes what the server reports: panics of a session.
type smtpLog struct{ log *slog.Logger }

func (l smtpLog) Printf(format string, v ...any) {
	l.log.Error("SMTP session", "error", fmt.Sprintf(format, v...))
}
func (l smtpLog) Println(v ...any) { l.log.Error("SMTP session", "error", fmt.Sprint(v...)) }

// The rest of net.Conn. Deadlines are the Conn's own affair.

func (w *smtpWire) LocalAddr() net.Addr              { return w.c.raw.LocalAddr() }
func (w *smtpWire) RemoteAddr() net.Addr             { return w.c.raw.RemoteAddr() }
func (w *smtpWire) SetDeadline(time.Time) error      { return nil }
func (w *smtpWire) SetReadDeadline(time.Time) error  { return nil }
func (w *smtpWire) SetWriteDeadline(time.Time) error { return nil }

// Close says that the server is done. It is called where Read is.
func (w *smtpWire) Close() error {
	w.once.Do(func() {
		w.ended = true
		close(w.closed)
	})
	return nil
}

// Read gives the server the next piece: never more than one command.
func (w *smtpWire) Read(p []byte) (n int, err error) {
	defer func() {
		if cause := recover(); cause != nil { // the server recovers only what its commands do
			w.c.Log.Error("panic in a session", "protocol", "smtp", "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
			w.ended = true
			n, err = 0, io.EOF
		}
	}()
	for len(w.pending) == 0 {
		switch {
		case w.ended:
			return 0, io.EOF
		case w.mode == smtpData:
			if err := w.skipMessage(); err != nil {
				return 0, err
			}
			continue
		case w.mode == smtpChunk:
			return w.readChunk(p)
		}
		w.readLine()
	}
	n = copy(p, w.pending)
	w.pending = w.pending[n:]
	return n, nil
}

// message gives what the client sends as the message, with CRLF line ends; r is
// what the server has of it. The server is spared a message of DATA: it would read
// it octet by octet. It gets the end alone.
func (w *smtpWire) message(r io.Reader) io.Reader {
	if _, chunks := r.(*io.PipeReader); chunks { // of BDAT
		return newLineEndReader(r)
	}
	_ = w.flush() // so that the client sends while a file is made; an error comes again
	return smtpMessage{w}
}

// smtpMessage reads the message of DATA.
type smtpMessage struct{ w *smtpWire }

func (m smtpMessage) Read(p []byte) (n int, err error) {
	w := m.w
	if len(w.rest) == 0 && len(p) >= 2*dataStep {
		return w.readData(p)
	}
	if len(w.rest) == 0 {
		n, err = w.readData(w.step[:])
		w.rest = w.step[:n]
	}
	n = copy(p, w.rest)
	if w.rest = w.rest[n:]; len(w.rest) > 0 {
		err = nil // it comes again
	}
	return n, err
}

// readData reads the message of DATA into p, which has room for 2*dataStep.
func (w *smtpWire) readData(p []byte) (int, error) {
	for w.mode == smtpData && !w.ended {
		raw, err := w.peek()
		if err != nil {
			w.stop(err)
			return 0, io.ErrUnexpectedEOF
		}
		n, used, done := w.data.decode(p, raw)
		_, _ = w.c.Reader().Discard(used) // it was peeked at
		w.received += int64(used)
		switch {
		case done:
			w.mode = smtpCommands
			w.c.Busy(false)
			w.pass(".")
			return n, io.EOF
		case w.received > 4*w.p.MaxSize+1<<20: // it was refused long ago
			w.ended = true
			return 0, io.ErrUnexpectedEOF
		case n > 0:
			return n, nil
		}
	}
	if w.ended {
		return 0, io.ErrUnexpectedEOF
	}
	return 0, io.EOF
}

// skipMessage reads what is left of a message that nobody wants.
func (w *smtpWire) skipMessage() error {
	buf := make([]byte, readerSize)
	for {
		if _, err := w.readData(buf); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// peek gives what is there to read, and waits until something is.
func (w *smtpWire) peek() ([]byte, error) {
	if err := w.flush(); err != nil {
		return nil, err
	}
	r := w.c.Reader()
	if _, err := r.Peek(1); err != nil {
		return nil, err
	}
	return r.Peek(r.Buffered())
}

// flush sends the replies when the client has sent nothing more to answer. Its
// error may be that of an earlier reply.
func (w *smtpWire) flush() error {
	if w.c.Reader().Buffered() > 0 {
		_, err := w.c.Writer().Write(nil)
		return err
	}
	return w.c.Writer().Flush()
}

// readChunk gives the server its chunk. Before the first one it waits until the
// session takes the message, so that a break of the connection finds it there.
func (w *smtpWire) readChunk(p []byte) (int, error) {
	w.s.awaitData()
	err := w.flush()
	n := 0
	if err == nil {
		n, err = w.c.Reader().Read(p[:min(int64(len(p)), w.chunk)])
	}
	if w.chunk -= int64(n); w.chunk == 0 {
		w.mode = smtpCommands
		w.c.Busy(false)
		return n, nil
	}
	if err != nil {
		w.stop(err)
		return n, io.ErrUnexpectedEOF
	}
	return n, nil
}

// stop notes that the client cannot be read any more, and says why if it may
// still be listening.
func (w *smtpWire) stop(err error) {
	w.ended = true
	switch {
	case errors.Is(err, ErrShutdown):
		w.say("421 4.3.2 %s is shutting down", w.p.Hostname)
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.say("421 4.4.2 Nothing came for too long, closing")
	case errors.Is(err, errEndlessLine):
		w.say("421 4.7.0 The line has no end, closing")
	}
}

// say queues a reply of our own.
func (w *smtpWire) say(format string, args ...any) {
	w.answer(fmt.Sprintf(format, args...))
}

// hangUp says a last word; the connection ends with it.
func (w *smtpWire) hangUp(format string, args ...any) {
	w.ended = true
	w.say(format, args...)
}

// readLine reads the client's next line and prepares what the server gets of it,
// if anything.
func (w *smtpWire) readLine() {
	if err := w.ready(); err != nil {
		w.stop(err)
		return
	}
	line, err := w.c.ReadLine(smtpLine + 2)
	sasl := w.mode == smtpSASL
	w.mode = smtpCommands
	switch {
	case err == errLineTooLong && sasl:
		w.pending = []byte("*\r\n") // the exchange is cancelled, RFC 4954 §4
	case err == errLineTooLong:
		w.say("500 5.5.2 The line is longer than %d octets", smtpLine)
	case err != nil:
		w.stop(err)
	case sasl:
		w.pass(string(line))
	default:
		w.command(string(line))
	}
}

// ready waits for a line to begin.
func (w *smtpWire) ready() error {
	if !w.s.submission {
		tarpit(w.s.ctx, w.c, w.p)
	}
	switch {
	case w.c.Closing():
		return ErrShutdown
	case w.s.away:
		w.hangUp("421 4.7.0 Your address has asked for too many people who are not here, try again later")
		return io.EOF
	case w.s.expired():
		w.hangUp("421 4.4.2 This session has taken too long, closing")
		return io.EOF
	case w.errors >= smtpMaxErrors:
		w.hangUp("421 4.7.0 Too many errors, closing")
		return io.EOF
	case w.s.failures >= smtpMaxLogins:
		w.hangUp("421 4.7.0 Too many failed logins, closing")
		return io.EOF
	}
	if err := w.flush(); err != nil || w.c.Reader().Buffered() > 0 {
		return err
	}
	w.c.ReleaseBuffers()
	return w.c.WaitInput()
}

// pass hands a line to the server.
func (w *smtpWire) pass(line string) { w.pending = append([]byte(line), '\r', '\n') }

// command looks at a command line before the server sees it.
func (w *smtpWire) command(line string) {
	line = strings.TrimRight(line, " \t") // RFC 5321 §4.1.1
	verb, arg, _ := strings.Cut(line, " ")
	verb, arg = strings.ToUpper(verb), strings.TrimSpace(arg)
	switch {
	case line == "":
		w.say("500 5.5.2 An empty line is no command")
		return
	case strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		w.say("500 5.5.2 A command holds no control characters")
		return
	}
	switch verb {
	case "STARTTLS":
		w.startTLS(arg)
	case "BDAT":
		w.bdat(arg)
	case "RCPT":
		w.pass("RCPT " + w.addDomain(arg))
	case "HELP":
		w.say("214 2.0.0 RFC 5321 tells how to speak here")
	case "HELO", "EHLO":
		w.esmtp, w.greeted = verb == "EHLO", firstWord(arg)
		fallthrough
	case "MAIL", "DATA", "AUTH", "RSET", "NOOP", "QUIT", "VRFY", "EXPN":
		w.pass(strings.TrimSpace(verb + " " + arg))
	case "GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT":
		// A web page may make a browser speak to us; what it would post comes next.
		w.hangUp("421 4.7.0 This is a mail server, not a web server")
	default:
		w.say("500 5.5.1 Unknown command")
	}
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(s, " ")
	return word
}

// addDomain completes TO:<postmaster> by the domain that it stands for.
func (w *smtpWire) addDomain(arg string) string {
	const prefix, path = "TO:", "<postmaster>"
	rest, ok := cutPrefixFold(arg, prefix)
	rest = strings.TrimLeft(rest, " ")
	if !ok || len(rest) < len(path) || !strings.EqualFold(rest[:len(path)], path) {
		return arg
	}
	return prefix + "<postmaster@" + w.p.Accounts.DefaultDomain() + ">" + rest[len(path):]
}

// cutPrefixFold is strings.CutPrefix without regard to case.
func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// startTLS is RFC 3207 §4.
func (w *smtpWire) startTLS(arg string) {
	switch {
	case w.c.TLS() != nil:
		w.say("503 5.5.1 TLS is active already")
		return
	case arg != "":
		w.say("501 5.5.4 STARTTLS has no arguments")
		return
	case w.c.Reader().Buffered() > 0:
		w.hangUp("503 5.5.1 Nothing may follow STARTTLS before TLS is active")
		return
	}
	w.ended = true
	w.say("220 2.0.0 Begin TLS now")
	if w.c.Writer().Flush() != nil {
		return
	}
	if err := w.c.StartTLS(); err != nil {
		w.c.Log.Debug("no TLS", "protocol", "smtp", "error", err)
		return
	}
	w.secured = true
}

// bdat looks at a BDAT command (RFC 3030 §2): the chunk follows whatever is
// answered, and must never be taken for commands. Where its size cannot be told
// the connection ends.
func (w *smtpWire) bdat(arg string) {
	fields := strings.Fields(arg)
	if len(fields) == 0 {
		w.hangUp("501 5.5.4 BDAT needs a size")
		return
	}
	number, err := strconv.ParseUint(fields[0], 10, 63)
	size := int64(number)
	last := len(fields) == 2 && strings.EqualFold(fields[1], "LAST")
	switch {
	case err != nil:
		w.hangUp("501 5.5.4 The size of BDAT is no number")
	case size > 4*w.p.MaxSize || size > 1<<32-1:
		w.hangUp("552 5.3.4 A message is %d octets at most", w.p.MaxSize)
	case len(fields) > 1 && !last:
		w.say("501 5.5.4 BDAT has a size and may have LAST, no more")
		w.skip(size)
	case size == 0 && !last && w.s.ready():
		w.say("250 2.0.0 Nothing came, go on")
	default:
		if w.chunk = size; size > 0 {
			w.mode = smtpChunk
			w.c.Busy(true)
		}
		w.pass("BDAT " + strings.Join(fields, " "))
	}
}

// skip reads a chunk that nobody wants.
func (w *smtpWire) skip(size int64) {
	if err := w.flush(); err != nil {
		w.stop(err)
		return
	}
	if _, err := io.CopyN(io.Discard, w.c.Reader(), size); err != nil {
		w.stop(err)
	}
}

// Write takes the server's replies, line by line.
func (w *smtpWire) Write(p []byte) (int, error) {
	w.reply = append(w.reply, p...)
	for {
		i := bytes.IndexByte(w.reply, '\n')
		if i < 0 {
			return len(p), nil
		}
		line := strings.TrimRight(string(w.reply[:i]), "\r")
		w.reply = append(w.reply[:0], w.reply[i+1:]...)
		w.edit(line)
	}
}

// edit makes a line of the server's ours, and follows what it means for the
// client's next bytes.
func (w *smtpWire) edit(line string) {
	switch {
	case w.quiet:
		w.quiet = false
		return
	case strings.HasPrefix(line, "354 "):
		w.mode, w.data, w.rest, w.received = smtpData, dataDecoder{}, nil, 0
		w.c.Busy(true)
	case strings.HasPrefix(line, "334 "):
		w.mode = smtpSASL
	case strings.HasPrefix(line, "250-Hello "):
		// RFC 5321 §4.1.1.1: our name comes first.
		line = "250-" + w.p.Hostname + line[3+1+len("Hello"):]
	case strings.HasPrefix(line, "250 2.0.0 Hello "):
		line = "250 " + w.p.Hostname
	case strings.HasPrefix(line, "250 2.0.0 Roger, "):
		line = "250 2.1.0 The sender is accepted" // RFC 3463 §3.2
	case strings.HasPrefix(line, "250 2.0.0 I'll make sure "):
		line = "250 2.1.5 The recipient is accepted"
	case line == "250-CHUNKING" && w.c.TLS() == nil:
		w.answer(line)
		line = "250-STARTTLS"
	case line == "250-SMTPUTF8" && w.c.TLS() != nil && w.s.sendsOut():
		w.answer(line)
		line = "250-REQUIRETLS" // RFC 8689 §2: only under TLS
	case strings.HasPrefix(line, "421 "):
		w.ended = true
	case line == "250 SIZE":
		line = "250 SIZE " + strconv.FormatInt(w.p.MaxSize, 10)
	}
	if better, ok := betterReplies[line]; ok {
		line = better
	}
	w.answer(line)
}

// answer queues a line for the client. Errors are seen when it is flushed.
func (w *smtpWire) answer(line string) {
	if strings.HasPrefix(line, "5") {
		w.errors++
		w.s.mistaken()
	}
	_, _ = w.c.Writer().WriteString(line + "\r\n")
}

// betterReplies has the replies of go-smtp that have another code in the RFCs:
// 502 means a command that is not implemented, 503 one that comes at the wrong
// time (RFC 5321 §4.2.2), 555 an unknown parameter (§4.1.1.11), and what is no
// base64 will not become it later (RFC 4954 §4).
var betterReplies = map[string]string{
	"502 5.5.1 Please introduce yourself first.":          "503 5.5.1 EHLO comes first",
	"502 5.5.1 Missing MAIL FROM command.":                "503 5.5.1 MAIL comes first",
	"502 5.5.1 Missing RCPT TO command.":                  "503 5.5.1 RCPT comes first",
	"502 5.5.1 MAIL not allowed during message transfer":  "503 5.5.1 MAIL cannot come between chunks",
	"502 5.5.1 RCPT not allowed during message transfer":  "503 5.5.1 RCPT cannot come between chunks",
	"502 5.5.1 DATA not allowed during message transfer":  "503 5.5.1 DATA cannot come between chunks",
	"500 5.5.4 Unknown MAIL FROM argument":                "555 5.5.4 Unknown parameter of MAIL",
	"500 5.5.4 Unknown RCPT TO argument":                  "555 5.5.4 Unknown parameter of RCPT",
	"504 5.5.4 NOTIFY is not implemented":                 "555 5.5.4 DSN is not offered",
	"504 5.5.4 ORCPT is not implemented":                  "555 5.5.4 DSN is not offered",
	"504 5.5.4 RET is not implemented":                    "555 5.5.4 DSN is not offered",
	"504 5.5.4 ENVID is not implemented":                  "555 5.5.4 DSN is not offered",
	"504 5.5.4 REQUIRETLS is not implemented":             "555 5.5.4 REQUIRETLS is not offered",
	"454 4.7.0 Invalid base64 data":                       "501 5.5.2 That is not base64",
	"502 5.5.4 Missing parameter":                         "501 5.5.4 AUTH needs a mechanism",
	"250 2.0.0 I have successfully done nothing":          "250 2.0.0 Still here",
	"252 2.5.0 Cannot VRFY user, but will accept message": "252 2.0.0 Send it and see",
}
