package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A client of POP3 (RFC 1939, 2449, 2595, 5034), as small as collecting needs it. It stands behind outsideMaildrop, so that
// another one can take its place; github.com/knadh/go-pop3 cannot be had from the module proxy, and keeps messages in memory.

// outsideMaildrop is a session with a maildrop on another server.
type outsideMaildrop interface {
	// List gives the messages, the first maxSeen of them.
	List() ([]pop3Entry, error)
	// Retrieve reads one message, with CRLF line ends as they came. errNoMessage if the server has a reason not to give it.
	Retrieve(number int) (io.Reader, error)
	// Delete marks messages; they are gone when Quit has said so.
	Delete(numbers []int) error
	// Quit ends the session and deletes what was marked (RFC 1939 §6). On an error nobody knows whether it did.
	Quit() error
	// Close ends the session without anything being deleted.
	Close()
}

// pop3Entry is a message in a list.
type pop3Entry struct {
	Number int
	UIDL   string
	Size   int64 // as the server tells it, which need not be true
}

// errNoMessage says that a server does not give one message; it gives others.
var errNoMessage = errors.New("the server does not give it")

// pop3Reader implements outsideMaildrop.
type pop3Reader struct {
	d      *outsideDialer
	server *OutsideServer
	conn   *outsideConn
	r      *bufio.Reader
	max    int64 // bytes of a message
	body   *dotReader
}

// pop3Pipeline is how many DELE are sent before their replies are read.
const pop3Pipeline = 50

// openPOP3 connects and logs in.
func (d *outsideDialer) openPOP3(ctx context.Context, server *OutsideServer) (*pop3Reader, error) {
	conn, err := d.connect(ctx, server)
	if err != nil {
		return nil, err
	}
	s := &pop3Reader{d: d, server: server, conn: conn, r: bufio.NewReader(conn), max: DefaultMaxSize}
	if err := s.login(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// pop3Refusal is a -ERR.
type pop3Refusal struct{ code, text string }

func (e *pop3Refusal) Error() string { return strings.TrimSpace(e.code + " " + e.text) }

// reply reads a status line; a -ERR is an error of the type *pop3Refusal.
func (s *pop3Reader) reply() (string, error) {
	line, err := readOutsideLine(s.r)
	if err != nil {
		return "", netTrouble(s.server, err)
	}
	switch {
	case hasWord(line, "+OK"):
		return strings.TrimSpace(line[3:]), nil
	case hasWord(line, "-ERR"):
		refusal := &pop3Refusal{text: strings.TrimSpace(line[4:])}
		if rest, ok := strings.CutPrefix(refusal.text, "["); ok { // RFC 2449 §8
			refusal.code, refusal.text, _ = strings.Cut(rest, "]")
			refusal.code, refusal.text = strings.ToUpper(refusal.code), strings.TrimSpace(refusal.text)
		}
		return "", refusal
	case strings.HasPrefix(line, "+ "), line == "+":
		return strings.TrimSpace(line[1:]), nil
	}
	return "", s.strange(line)
}

func (s *pop3Reader) strange(line string) error {
	return &outsideError{faultPassing, fmt.Sprintf("%s does not speak POP3: %q", s.conn.where, clip(line, 100)), nil}
}

// say sends a command and reads the status line.
func (s *pop3Reader) say(bytes int64, format string, args ...any) (string, error) {
	s.conn.command(s.d, bytes)
	if _, err := fmt.Fprintf(s.conn, format+"\r\n", args...); err != nil {
		return "", netTrouble(s.server, err)
	}
	return s.reply()
}

// login reads the greeting and logs in: by SASL PLAIN where it is offered, which takes any letters, else by USER and PASS.
func (s *pop3Reader) login() error {
	if !s.conn.greeted {
		if _, err := s.reply(); err != nil {
			return s.busyOr(err)
		}
	}
	plain, err := s.offersPlain()
	if err != nil {
		return err
	}
	if plain {
		_, err := s.say(outsideReply, "AUTH PLAIN")
		if err == nil {
			_, answer, _ := plainLogin(s.server).Start()
			_, err = s.say(outsideReply, "%s", base64.StdEncoding.EncodeToString(answer))
			return s.loginAnswer(err)
		}
		var refusal *pop3Refusal
		if !errors.As(err, &refusal) {
			return err
		}
	}
	if _, err := s.say(outsideReply, "USER %s", s.server.Login); err != nil {
		return s.loginAnswer(err)
	}
	_, err = s.say(outsideReply, "PASS %s", s.server.Password)
	return s.loginAnswer(err)
}

// offersPlain asks for what the server knows (RFC 2449 §5); a server that does not answer that knows USER and PASS.
func (s *pop3Reader) offersPlain() (bool, error) {
	_, err := s.say(outsideReply, "CAPA")
	var refusal *pop3Refusal
	if errors.As(err, &refusal) {
		return false, nil
	}
	plain := false
	if err == nil {
		err = s.lines(func(line string) bool {
			words := strings.Fields(strings.ToUpper(line))
			plain = plain || len(words) > 1 && words[0] == "SASL" && slices.ContainsFunc(words[1:], func(w string) bool { return strings.EqualFold(w, "PLAIN") })
			return true
		})
	}
	return plain, err
}

// loginAnswer puts the answer to a login into words. Only what the server marks as passing is tried again soon.
func (s *pop3Reader) loginAnswer(err error) error {
	var refusal *pop3Refusal
	if !errors.As(err, &refusal) {
		return err
	}
	if s.passing(refusal) {
		return busyTrouble(s.server, refusal.text)
	}
	return loginTrouble(s.server, refusal.text)
}

// passing says whether a refusal is one for now (RFC 2449 §8.1.1, RFC 3206).
func (s *pop3Reader) passing(refusal *pop3Refusal) bool {
	return refusal.code == "IN-USE" || refusal.code == "LOGIN-DELAY" || strings.HasPrefix(refusal.code, "SYS/")
}

func (s *pop3Reader) busyOr(err error) error {
	var refusal *pop3Refusal
	if errors.As(err, &refusal) {
		return busyTrouble(s.server, refusal.Error())
	}
	return err
}

// lines reads a list up to its dot; take says whether it wants more. What it does not want is read all the same.
func (s *pop3Reader) lines(take func(line string) bool) error {
	more := true
	for {
		line, err := readOutsideLine(s.r)
		if err != nil {
			return netTrouble(s.server, err)
		}
		if line == "." {
			return nil
		}
		more = more && take(strings.TrimPrefix(line, "."))
	}
}

// pop3ListBytes is how much a list of all messages may be.
const pop3ListBytes = 32 << 20

// List is of outsideMaildrop.
func (s *pop3Reader) List() ([]pop3Entry, error) {
	_, err := s.say(pop3ListBytes, "UIDL")
	var refusal *pop3Refusal
	if errors.As(err, &refusal) {
		return nil, &outsideError{faultSetup, fmt.Sprintf("%s does not tell one message from another (UIDL), so mail cannot be collected from it by POP3: try imap", s.server.Host), refusal}
	}
	if err != nil {
		return nil, err
	}
	var list []pop3Entry
	at := map[int]int{}
	bad := ""
	err = s.lines(func(line string) bool {
		number, uidl, _ := strings.Cut(line, " ")
		n, err := strconv.Atoi(number)
		uidl = strings.TrimSpace(uidl)
		if _, twice := at[n]; err != nil || n < 1 || uidl == "" || twice {
			bad = line
			return true
		}
		at[n] = len(list)
		list = append(list, pop3Entry{Number: n, UIDL: uidl, Size: -1})
		return len(list) < maxSeen
	})
	if err == nil && bad != "" {
		err = s.strange(bad)
	}
	if err != nil {
		return nil, err
	}
	if _, err := s.say(pop3ListBytes, "LIST"); err != nil {
		return nil, s.busyOr(err)
	}
	err = s.lines(func(line string) bool {
		words := strings.Fields(line)
		if len(words) >= 2 {
			n, err := strconv.Atoi(words[0])
			size, err2 := strconv.ParseInt(words[1], 10, 64)
			if i, ok := at[n]; ok && err == nil && err2 == nil && size >= 0 {
				list[i].Size = size
			}
		}
		return true
	})
	return list, err
}

// Retrieve is of outsideMaildrop.
func (s *pop3Reader) Retrieve(number int) (io.Reader, error) {
	s.conn.message(s.d, s.max)
	if _, err := fmt.Fprintf(s.conn, "RETR %d\r\n", number); err != nil {
		return nil, netTrouble(s.server, err)
	}
	_, err := s.reply()
	var refusal *pop3Refusal
	switch {
	case errors.As(err, &refusal):
		return nil, fmt.Errorf("%w: %s", errNoMessage, refusal.text)
	case err != nil:
		return nil, err
	}
	s.body = &dotReader{r: s.r, start: true}
	return s.body, nil
}

// Delete is of outsideMaildrop.
func (s *pop3Reader) Delete(numbers []int) error {
	for len(numbers) > 0 {
		some := numbers[:min(len(numbers), pop3Pipeline)]
		numbers = numbers[len(some):]
		var all bytes.Buffer
		for _, n := range some {
			fmt.Fprintf(&all, "DELE %d\r\n", n)
		}
		s.conn.command(s.d, outsideReply)
		if _, err := s.conn.Write(all.Bytes()); err != nil {
			return netTrouble(s.server, err)
		}
		for range some {
			_, err := s.reply()
			var refusal *pop3Refusal
			if err != nil && !errors.As(err, &refusal) { // one that is refused stays, and is met again
				return err
			}
		}
	}
	return nil
}

// Quit is of outsideMaildrop.
func (s *pop3Reader) Quit() error {
	_, err := s.say(outsideReply, "QUIT")
	return s.busyOr(err)
}

// Close is of outsideMaildrop.
func (s *pop3Reader) Close() { _ = s.conn.Close() }

// dotReader reads a message up to the line with a dot alone, and takes away the dot that was put before others (RFC 1939
// §3). Lines may have any length and any content. io.ErrUnexpectedEOF if the connection ends first.
type dotReader struct {
	r     *bufio.Reader
	start bool   // at the start of a line
	rest  []byte // of the buffer of r, to be given yet
	done  bool
	err   error
}

// Read is io.Reader.
func (d *dotReader) Read(p []byte) (int, error) {
	for len(d.rest) == 0 {
		if d.done {
			return 0, io.EOF
		}
		if d.err != nil {
			return 0, d.err
		}
		d.fill()
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// fill takes the next line, or as much of it as the buffer holds.
func (d *dotReader) fill() {
	piece, err := d.r.ReadSlice('\n')
	whole := err == nil
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && err != bufio.ErrBufferFull {
		d.err = err
	}
	if d.start && len(piece) > 0 && piece[0] == '.' {
		if whole && (string(piece) == ".\r\n" || string(piece) == ".\n") {
			d.done = true
			return
		}
		piece = piece[1:]
	}
	d.start = whole
	d.rest = piece
}
