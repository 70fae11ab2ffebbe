package main

// The reader of IMAP commands (RFC 9051 §9, RFC 3501 §9, RFC 7888): lines, literals and the tokens in them. What is read
// here is data and never a command: after each command imapInput.drain discards what the verb left unread, literals
// included.

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

const (
	imapMaxLine      = 64 << 10  // bytes of a command without its literals
	imapMaxLiterals  = 512 << 10 // bytes of a command's literals in all, APPEND's messages apart
	imapMaxAnonymous = 64 << 10  // the same before login
	imapMaxDrain     = 256 << 20 // bytes discarded behind a refused command before the session is ended
	imapMaxSetRanges = 32 << 10  // cannot be reached within imapMaxLine; bounds the work on sets
)

// errCommandTooLong says that a command's lines are longer than imapMaxLine.
var errCommandTooLong = errors.New("command line is too long")

// errStreamEnded says that the client must be left: what follows on the stream cannot be told from commands.
var errStreamEnded = errors.New("more data than can be skipped")

// imapInput reads lines and literals. Whatever has been written is flushed before it waits for input.
type imapInput struct {
	reader      func() *bufio.Reader // asked each time: STARTTLS replaces it
	writer      func() *bufio.Writer
	maxLiterals int64 // imapMaxLiterals or imapMaxAnonymous
	maxDrain    int64

	line     []byte // the current line without its line end
	before   int    // bytes of the command's lines before this one
	literals int64  // bytes of literals kept in memory for this command
	left     int64  // bytes left of the literal that is being read
	open     bool   // a literal is being read
	err      error  // why nothing can be read any more
}

// next starts a command: it reads its first line.
func (in *imapInput) next() error {
	in.before, in.literals, in.open = 0, 0, false
	return in.readLine()
}

// readLine reads the next line of the command. With errCommandTooLong the line holds its first and last bytes.
func (in *imapInput) readLine() error {
	in.line = in.line[:0]
	long := false
	r := in.reader()
	for {
		in.flushBeforeLine(r)
		chunk, err := r.ReadSlice('\n')
		in.line = append(in.line, chunk...)
		if in.before+len(in.line) > imapMaxLine+2 {
			long = true
			in.cutMiddle()
		}
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			in.err = err
			return err
		}
	}
	in.line = in.line[:len(in.line)-1]
	if n := len(in.line); n > 0 && in.line[n-1] == '\r' {
		in.line = in.line[:n-1]
	}
	if long {
		return errCommandTooLong
	}
	return nil
}

// cutMiddle keeps the ends of a line that is too long: the tag is in the first bytes, a literal's size in the last.
func (in *imapInput) cutMiddle() {
	const end = 256
	if n := len(in.line); n > 2*end {
		in.line = append(in.line[:end], in.line[n-end:]...)
	}
}

// flushBeforeLine flushes what is written unless a whole line lies in the buffer: replies to pipelined commands go out
// together.
func (in *imapInput) flushBeforeLine(r *bufio.Reader) {
	if n := r.Buffered(); n > 0 {
		if b, _ := r.Peek(n); bytes.IndexByte(b, '\n') >= 0 {
			return
		}
	}
	in.writer().Flush()
}

// begin starts to read a literal: the client is told to send it when it waits for that.
func (in *imapInput) begin(lit imapLiteral) {
	if lit.sync {
		w := in.writer()
		w.WriteString("+ OK\r\n")
		w.Flush()
	}
	in.before += len(in.line)
	in.left, in.open = lit.size, true
}

// Read reads from the literal that is open; io.EOF at its end. An error of the connection also stays in in.err.
func (in *imapInput) Read(p []byte) (int, error) {
	if in.left == 0 {
		return 0, io.EOF
	}
	if in.err != nil {
		return 0, in.err
	}
	r := in.reader()
	if r.Buffered() == 0 {
		in.writer().Flush()
	}
	n, err := r.Read(p[:min(int64(len(p)), in.left)])
	in.left -= int64(n)
	if err != nil {
		in.err = err
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return n, err
	}
	return n, nil
}

// finish discards what is left of the literal and reads the line that follows it.
func (in *imapInput) finish() error {
	if err := in.discard(); err != nil {
		return err
	}
	in.open = false
	return in.readLine()
}

// discard skips the rest of the open literal.
func (in *imapInput) discard() error {
	r := in.reader()
	for in.left > 0 {
		if in.err != nil {
			return in.err
		}
		if r.Buffered() == 0 {
			in.writer().Flush()
		}
		n, err := r.Discard(int(min(in.left, 32<<10)))
		in.left -= int64(n)
		if err != nil {
			in.err = err
		}
	}
	return in.err
}

// drain ends a command: what belongs to it and has not been read is discarded. errStreamEnded when that is more than
// maxDrain, or when a client sent the literal that it had to hold back: the session must end then, lest the literal be
// run as commands.
func (in *imapInput) drain() error {
	budget := in.maxDrain
	for in.err == nil {
		if !in.open {
			lit, ok := literalTail(in.line)
			if !ok {
				return nil
			}
			if lit.sync {
				// RFC 9051 §4.3: refused, the client does not send it. One that did not wait has it in the buffer.
				if in.reader().Buffered() > 0 {
					return errStreamEnded
				}
				return nil
			}
			in.left, in.open = lit.size, true
		}
		if in.left > budget {
			return errStreamEnded
		}
		budget -= in.left + 1
		if err := in.finish(); err != nil && !errors.Is(err, errCommandTooLong) {
			return err
		}
	}
	return in.err
}

// imapLiteral is the announcement of a literal (RFC 9051 §4.3).
type imapLiteral struct {
	size   int64
	sync   bool // the client waits for "+" before it sends
	binary bool // ~{n}: may have NUL bytes
}

// literalTail finds the announcement of a literal at the end of a line.
func literalTail(line []byte) (imapLiteral, bool) {
	i := bytes.LastIndexByte(line, '{')
	if i < 0 {
		return imapLiteral{}, false
	}
	lit, ok := parseLiteralHeader(line[i:])
	lit.binary = ok && i > 0 && line[i-1] == '~'
	return lit, ok
}

// parseLiteralHeader reads {n} or {n+}, which must be all there is. A number that is too large stands for the largest.
func parseLiteralHeader(b []byte) (imapLiteral, bool) {
	if len(b) < 3 || b[0] != '{' || b[len(b)-1] != '}' {
		return imapLiteral{}, false
	}
	lit := imapLiteral{sync: true}
	digits := b[1 : len(b)-1]
	if digits[len(digits)-1] == '+' {
		lit.sync = false
		digits = digits[:len(digits)-1]
	}
	if len(digits) == 0 {
		return imapLiteral{}, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return imapLiteral{}, false
		}
		lit.size = min(lit.size, (math.MaxInt64-9)/10)*10 + int64(c-'0')
	}
	return lit, true
}

// imapCommand is a command that is being read: a parser of its arguments.
type imapCommand struct {
	tag  string
	name string // the verb in capitals, without UID
	uid  bool   // it came behind UID
	in   *imapInput
	pos  int // in in.line
}

// expected is the reply to something else than what the grammar wants here.
func (c *imapCommand) expected(what string) error {
	at := c.in.before + c.pos + 1
	switch {
	case c.pos >= len(c.in.line):
		return imapBad("Expected %s at byte %d, where the command ends", what, at)
	case c.in.line[c.pos] > 0x20 && c.in.line[c.pos] < 0x7f:
		return imapBad("Expected %s at byte %d, not %q", what, at, c.in.line[c.pos:c.pos+1])
	}
	return imapBad("Expected %s at byte %d", what, at)
}

// atEnd says whether the line ends here.
func (c *imapCommand) atEnd() bool { return c.pos >= len(c.in.line) }

// peek gives the next byte, 0 at the end of the line.
func (c *imapCommand) peek() byte {
	if c.atEnd() {
		return 0
	}
	return c.in.line[c.pos]
}

// accept takes the byte if it comes next.
func (c *imapCommand) accept(b byte) bool {
	if c.atEnd() || c.in.line[c.pos] != b {
		return false
	}
	c.pos++
	return true
}

// expect takes the byte, which must come next.
func (c *imapCommand) expect(b byte) error {
	if !c.accept(b) {
		return c.expected(fmt.Sprintf("%q", string(b)))
	}
	return nil
}

// sp takes the one space between arguments.
func (c *imapCommand) sp() error {
	if !c.accept(' ') {
		return c.expected("a space")
	}
	return nil
}

// end is the end of the command.
func (c *imapCommand) end() error {
	if !c.atEnd() {
		return c.expected("the end of the command")
	}
	return nil
}

// takeWhile takes the bytes of a class.
func (c *imapCommand) takeWhile(class func(byte) bool) string {
	start := c.pos
	for !c.atEnd() && class(c.in.line[c.pos]) {
		c.pos++
	}
	return string(c.in.line[start:c.pos])
}

// isAtomChar is ATOM-CHAR (RFC 9051 §9).
func isAtomChar(b byte) bool {
	return b > 0x20 && b < 0x7f && !strings.ContainsRune(`(){%*"\]`, rune(b))
}

// isAStringChar is ASTRING-CHAR (RFC 9051 §9).
func isAStringChar(b byte) bool { return b == ']' || isAtomChar(b) }

// isListChar is list-char (RFC 9051 §9).
func isListChar(b byte) bool { return b == '%' || b == '*' || isAStringChar(b) }

// isKeywordChar is what names of verbs, items and options are made of.
func isKeywordChar(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || isDigit(b) || strings.IndexByte(".-=_", b) >= 0
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

// keyword takes the name of a verb, item or option and gives it in capitals; "" when there is none. It ends before
// brackets, parentheses and spaces: BODY.PEEK of BODY.PEEK[1].
func (c *imapCommand) keyword() string { return strings.ToUpper(c.takeWhile(isKeywordChar)) }

// atom takes an atom.
func (c *imapCommand) atom() (string, error) {
	s := c.takeWhile(isAtomChar)
	if s == "" {
		return "", c.expected("an atom")
	}
	return s, nil
}

// astring takes an atom, a quoted string or a literal. NIL is an atom like any other here.
func (c *imapCommand) astring() (string, error) {
	switch c.peek() {
	case '"', '{':
		return c.str()
	}
	s := c.takeWhile(isAStringChar)
	if s == "" {
		return "", c.expected("a string or an atom")
	}
	return s, nil
}

// listMailbox takes a mailbox name that may have the wildcards % and *.
func (c *imapCommand) listMailbox() (string, error) {
	switch c.peek() {
	case '"', '{':
		return c.str()
	}
	s := c.takeWhile(isListChar)
	if s == "" {
		return "", c.expected("a mailbox name or pattern")
	}
	return s, nil
}

// nstring takes a string or NIL; ok is false for NIL.
func (c *imapCommand) nstring() (s string, ok bool, err error) {
	if b := c.peek(); b == '"' || b == '{' {
		s, err = c.str()
		return s, err == nil, err
	}
	start := c.pos
	if strings.EqualFold(c.takeWhile(isAtomChar), "NIL") {
		return "", false, nil
	}
	c.pos = start
	return "", false, c.expected("a string or NIL")
}

// str takes a quoted string or a literal.
func (c *imapCommand) str() (string, error) {
	switch c.peek() {
	case '"':
		return c.quoted()
	case '{':
		return c.literal()
	}
	return "", c.expected("a string")
}

// quoted takes a quoted string. 8-bit bytes are taken as they are; what they may mean, the verb decides.
func (c *imapCommand) quoted() (string, error) {
	start := c.pos
	c.pos++
	var b []byte
	for !c.atEnd() {
		ch := c.in.line[c.pos]
		switch ch {
		case '"':
			c.pos++
			return string(b), nil
		case 0, '\r':
			return "", c.expected("a character that a quoted string may have")
		case '\\':
			c.pos++
			if c.atEnd() {
				return "", c.expected(`'"' or '\'`)
			}
			if ch = c.in.line[c.pos]; ch != '"' && ch != '\\' {
				return "", c.expected(`'"' or '\'`)
			}
		}
		b = append(b, ch)
		c.pos++
	}
	return "", imapBad("The quoted string at byte %d is not closed", c.in.before+start+1)
}

// literalHeader takes the announcement of a literal or literal8, which ends the line. The literal itself is read with
// literal, or streamed with in.begin, in.Read and endLiteral.
func (c *imapCommand) literalHeader() (imapLiteral, error) {
	start := c.pos
	binary := c.accept('~')
	lit, ok := parseLiteralHeader(c.in.line[c.pos:])
	if !ok {
		c.pos = start
		return lit, c.expected("a literal")
	}
	lit.binary = binary
	c.pos = len(c.in.line)
	return lit, nil
}

// literal takes a literal into memory. Too large a one is refused before the client is told to send it.
func (c *imapCommand) literal() (string, error) {
	lit, err := c.literalHeader()
	if err != nil {
		return "", err
	}
	s, err := c.literalText(lit)
	if err == nil && strings.IndexByte(s, 0) >= 0 {
		err = imapBad("A literal must not have NUL bytes")
	}
	if err != nil {
		return "", err
	}
	return s, nil
}

// literalText takes the literal that was announced into memory, whatever bytes it has.
func (c *imapCommand) literalText(lit imapLiteral) (string, error) {
	if lit.size > c.in.maxLiterals-c.in.literals {
		return "", imapNo("LIMIT", fmt.Sprintf("The literals of a command may have %d bytes in all", c.in.maxLiterals))
	}
	c.in.literals += lit.size
	c.in.begin(lit)
	b := make([]byte, lit.size)
	if _, err := io.ReadFull(c.in, b); err != nil {
		return "", fmt.Errorf("reading a literal: %w", err)
	}
	if err := c.endLiteral(); err != nil {
		return "", err
	}
	return string(b), nil
}

// endLiteral skips what is left of the literal and goes on with the line behind it.
func (c *imapCommand) endLiteral() error {
	err := c.in.finish()
	c.pos = 0
	if errors.Is(err, errCommandTooLong) {
		return imapBad("A command line may have %d bytes", imapMaxLine)
	}
	return err
}

// number64 takes a number below 2^63, such as a mod-sequence (RFC 7162 §7).
func (c *imapCommand) number64() (uint64, error) {
	start := c.pos
	var n uint64
	for !c.atEnd() && isDigit(c.in.line[c.pos]) {
		if n = n*10 + uint64(c.in.line[c.pos]-'0'); n > math.MaxInt64 {
			c.pos = start
			return 0, c.expected("a number below 2^63")
		}
		c.pos++
	}
	if c.pos == start {
		return 0, c.expected("a number")
	}
	return n, nil
}

// number takes a number of 32 bits.
func (c *imapCommand) number() (uint32, error) {
	start := c.pos
	n, err := c.number64()
	if err != nil {
		return 0, err
	}
	if n > math.MaxUint32 {
		c.pos = start
		return 0, c.expected("a number below 2^32")
	}
	return uint32(n), nil
}

// nzNumber takes a number of 32 bits that is not 0.
func (c *imapCommand) nzNumber() (uint32, error) {
	start := c.pos
	n, err := c.number()
	if err == nil && n == 0 {
		c.pos = start
		return 0, c.expected("a number above 0")
	}
	return n, err
}

// list takes a parenthesised list, calling item for each of its elements. It may be empty.
func (c *imapCommand) list(item func() error) error {
	if err := c.expect('('); err != nil {
		return err
	}
	if c.accept(')') {
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		if c.accept(')') {
			return nil
		}
		if !c.accept(' ') {
			return c.expected(`" " or ")"`)
		}
	}
}

// numSet takes a sequence set, a UID set when uid is true (RFC 9051 §9 sequence-set). "$" gives imap.SearchRes() for
// both, since it means the same messages. The ranges are sorted and apart; 0 stands for "*".
func (c *imapCommand) numSet(uid bool) (imap.NumSet, error) {
	if c.accept('$') {
		return imap.SearchRes(), nil
	}
	var set imap.SeqSet
	for {
		r, err := c.numRange()
		if err != nil {
			return nil, err
		}
		if set = append(set, r); len(set) > imapMaxSetRanges {
			return nil, imapNo("LIMIT", "The set has too many ranges")
		}
		if !c.accept(',') {
			break
		}
	}
	set = tidySet(set)
	if !uid {
		return set, nil
	}
	uids := make(imap.UIDSet, len(set))
	for i, r := range set {
		uids[i] = imap.UIDRange{Start: imap.UID(r.Start), Stop: imap.UID(r.Stop)}
	}
	return uids, nil
}

// numRange takes n, *, n:m, n:* or *:n.
func (c *imapCommand) numRange() (imap.SeqRange, error) {
	lo, err := c.setNumber()
	if err != nil {
		return imap.SeqRange{}, err
	}
	hi := lo
	if c.accept(':') {
		if hi, err = c.setNumber(); err != nil {
			return imap.SeqRange{}, err
		}
	}
	// RFC 9051 §9: the order of the two does not matter. * is the larger one, and last here.
	if lo == 0 || hi != 0 && hi < lo {
		lo, hi = hi, lo
	}
	return imap.SeqRange{Start: lo, Stop: hi}, nil
}

// setNumber takes a number of a set, 0 for "*".
func (c *imapCommand) setNumber() (uint32, error) {
	if c.accept('*') {
		return 0, nil
	}
	n, err := c.nzNumber()
	if err != nil {
		return 0, c.expected(`a number above 0 or "*"`)
	}
	return n, nil
}

// tidySet sorts the ranges and joins those that overlap, so that go-imap's methods may be used on the set. "*" alone
// is the last range.
func tidySet(set imap.SeqSet) imap.SeqSet {
	sortFunc(set, func(a, b imap.SeqRange) int { return cmp.Compare(a.Start-1, b.Start-1) }) // 0 wraps to the end
	tidy := set[:0]
	for _, r := range set {
		if n := len(tidy); n > 0 {
			last := &tidy[n-1]
			switch {
			case last.Stop == 0: // n:* has all that begins behind n, and *
				continue
			case r.Start != 0 && r.Start <= last.Stop:
				if r.Stop == 0 || r.Stop > last.Stop {
					last.Stop = r.Stop
				}
				continue
			}
		}
		tidy = append(tidy, r)
	}
	return tidy
}

// systemFlags are the flags that a client may set, by their names in small letters (RFC 9051 §2.3.2).
var systemFlags = map[string]imap.Flag{
	`\seen`: imap.FlagSeen, `\answered`: imap.FlagAnswered, `\flagged`: imap.FlagFlagged,
	`\deleted`: imap.FlagDeleted, `\draft`: imap.FlagDraft,
}

// flag takes a flag or keyword as STORE and APPEND may set it; \Recent and unknown system flags are BAD.
func (c *imapCommand) flag() (imap.Flag, error) {
	const maxKeyword = 255
	start := c.pos
	if c.accept('\\') {
		name := `\` + c.takeWhile(isAtomChar)
		if f, ok := systemFlags[strings.ToLower(name)]; ok {
			return f, nil
		}
		c.pos = start
		return "", imapBad("%s at byte %d is not a flag that can be set", name, c.in.before+start+1)
	}
	s := c.takeWhile(isAtomChar)
	if s == "" {
		return "", c.expected("a flag")
	}
	if len(s) > maxKeyword {
		return "", imapNo("LIMIT", fmt.Sprintf("A keyword may have %d bytes", maxKeyword))
	}
	return imap.Flag(s), nil
}

// flagList takes a list of flags in parentheses. It may be empty.
func (c *imapCommand) flagList() ([]imap.Flag, error) {
	var flags []imap.Flag
	err := c.list(func() error {
		f, err := c.flag()
		flags = append(flags, f)
		return err
	})
	return flags, err
}

// imapDateTimes are the forms of date-time that are taken: that of RFC 9051 §9, and what clients send instead.
var imapDateTimes = []string{
	"_2-Jan-2006 15:04:05 -0700", "2-Jan-2006 15:04:05 -0700", "_2-Jan-2006 15:04:05 MST",
	"Mon, _2 Jan 2006 15:04:05 -0700", "_2 Jan 2006 15:04:05 -0700", "_2-Jan-2006 15:04:05", time.RFC3339,
}

// dateTime takes a quoted date-time: APPEND's INTERNALDATE.
func (c *imapCommand) dateTime() (time.Time, error) {
	start := c.pos
	if c.peek() != '"' {
		return time.Time{}, c.expected("a date in quotes")
	}
	s, err := c.quoted()
	if err != nil {
		return time.Time{}, err
	}
	for _, layout := range imapDateTimes {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	c.pos = start
	return time.Time{}, imapBad(`The date at byte %d is not of the form " 1-Feb-2026 12:30:00 +0100"`, c.in.before+start+1)
}

// date takes SEARCH's date, quoted or not (RFC 9051 §9 date), and gives its midnight in UTC.
func (c *imapCommand) date() (time.Time, error) {
	start := c.pos
	s, err := c.astring()
	if err != nil {
		return time.Time{}, err
	}
	for _, layout := range []string{"_2-Jan-2006", "2-Jan-2006"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, imapBad("The date at byte %d is not of the form 1-Feb-2026", c.in.before+start+1)
}
