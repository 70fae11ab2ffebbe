package main

// APPEND (RFC 9051 §6.3.12) with MULTIAPPEND (RFC 3502), literal8 (RFC 3516), CATENATE (RFC 4469), UTF8 (RFC 6855 §4) and APPENDLIMIT (RFC 7889).

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

const imapMaxAppend = 256 // messages of one APPEND

// append is APPEND. What a client need not send, because the mailbox is missing or full or the message too large, it is not
// asked for.
func (s *imapSession) append(cmd *imapCommand) error {
	raw, err := s.mailboxArg(cmd)
	if err != nil {
		return err
	}
	folder, may, err := s.target(raw)
	if err != nil {
		return err
	}
	defer folder.Release()
	if err := folder.MayAdd(); err != nil {
		return fmt.Errorf("appending: %w", err)
	}
	var msgs []AppendMessage
	var more Quota
	room := func(size int64) error {
		more = more.plus(Quota{size, 1})
		return folder.Room(more)
	}
	defer func() {
		for _, m := range msgs {
			m.In.Discard() // harmless once appended
		}
	}()
	for len(msgs) == 0 || !cmd.atEnd() {
		m, err := s.receive(cmd, room)
		m.Flags = allowedFlags(m.Flags, may)
		if m.In != nil {
			msgs = append(msgs, m)
		}
		if err != nil {
			return err
		}
		if len(msgs) > imapMaxAppend {
			return imapNo("LIMIT", fmt.Sprintf("One APPEND may have %d messages", imapMaxAppend))
		}
	}
	uids, err := folder.Append(msgs)
	if err != nil {
		return fmt.Errorf("appending: %w", err)
	}
	s.warnQuota(folder)
	s.appended(folder, uids)
	return imapOK(string(appendUIDs(fmt.Appendf(nil, "APPENDUID %d ", folder.UIDValidity()), uids)), "APPEND completed")
}

// target opens the mailbox that APPEND, COPY or MOVE goes to, and gives the rights in it. TRYCREATE says that creating it would
// help.
func (s *imapSession) target(raw string) (*Folder, Rights, error) {
	name, err := s.mailboxName(raw)
	if err != nil {
		return nil, 0, err
	}
	folder, err := s.open(name, needInsert)
	if errors.Is(err, ErrNoFolder) && checkNewName(name) == nil {
		if account, inner, other := s.splitOther(name); !other || account != "" && s.mayCreate(account, inner) {
			return nil, 0, imapNo("TRYCREATE", "There is no such mailbox")
		}
	}
	if err != nil {
		return nil, 0, fmt.Errorf("opening a mailbox: %w", err)
	}
	may, err := folder.Rights(s.who())
	if err != nil {
		folder.Release()
		return nil, 0, fmt.Errorf("opening a mailbox: %w", err)
	}
	return folder, may, nil
}

// receive takes one message: [SP flag-list] [SP date-time] SP append-data. In the message that it gives, In is nil until
// there is something to discard. room refuses a literal of so many bytes.
func (s *imapSession) receive(cmd *imapCommand, room func(size int64) error) (m AppendMessage, err error) {
	if err = cmd.sp(); err != nil {
		return m, err
	}
	if cmd.peek() == '(' {
		if m.Flags, err = cmd.flagList(); err != nil {
			return m, err
		}
		if err = cmd.sp(); err != nil {
			return m, err
		}
	}
	if cmd.peek() == '"' {
		if m.Date, err = cmd.dateTime(); err != nil {
			return m, err
		}
		if err = cmd.sp(); err != nil {
			return m, err
		}
	}
	wrapped, pieces, err := appendWrapper(cmd)
	if err != nil {
		return m, err
	}
	if pieces {
		if m.In, err = s.drop.Receive(); err != nil {
			return m, fmt.Errorf("receiving a message: %w", err)
		}
		return m, s.catenate(cmd, m.In)
	}
	lit, err := cmd.literalHeader()
	if err != nil {
		return m, err
	}
	switch {
	case wrapped && !lit.binary:
		return m, imapBad("UTF8 needs a literal8: ~{%d}", lit.size)
	case lit.size > s.p.MaxSize:
		return m, s.tooBig()
	case lit.size == 0: // RFC 3502 §4: so a client takes an APPEND back
		return m, imapNo("CANNOT", "A message cannot be empty")
	}
	if err = room(lit.size); err != nil {
		return m, fmt.Errorf("appending: %w", err)
	}
	if m.In, err = s.drop.Receive(); err != nil {
		return m, fmt.Errorf("receiving a message: %w", err)
	}
	if err = s.receiveBody(cmd, lit, m.In); err != nil {
		return m, err
	}
	if wrapped {
		err = cmd.expect(')')
	}
	return m, err
}

// appendWrapper takes the "UTF8 (" before a literal8 (RFC 6855 §4), or the "CATENATE " before a list of pieces.
func appendWrapper(cmd *imapCommand) (wrapped, pieces bool, err error) {
	if b := cmd.peek(); b == '{' || b == '~' {
		return false, false, nil
	}
	switch cmd.keyword() {
	case "CATENATE":
		return false, true, cmd.sp()
	case "UTF8":
	default:
		return false, false, cmd.expected("a literal")
	}
	if err := cmd.sp(); err != nil {
		return false, false, err
	}
	return true, false, cmd.expect('(')
}

// receiveBody streams the literal into the message. When storing fails the rest is skipped and the session lives on.
func (s *imapSession) receiveBody(cmd *imapCommand, lit imapLiteral, in *Incoming) error {
	return s.receiveInto(cmd, lit, &lineEnds{w: in, noNUL: !lit.binary})
}

// receiveInto streams the literal.
func (s *imapSession) receiveInto(cmd *imapCommand, lit imapLiteral, w io.Writer) error {
	s.c.Busy(true)
	defer s.c.Busy(false)
	s.in.begin(lit)
	_, err := s.c.env.copy(w, &s.in)
	if s.in.err != nil {
		return s.in.err
	}
	if endErr := cmd.endLiteral(); err == nil {
		return endErr
	}
	if errors.Is(err, errNUL) {
		return imapNo("CANNOT", "A message with NUL bytes needs a literal8: ~{n}")
	}
	return fmt.Errorf("receiving a message: %w", err)
}

// errNUL says that a plain literal has a NUL byte (RFC 9051 §4.3).
var errNUL = errors.New("NUL in a literal")

// lineEnds writes what it is given, with CRLF for each lone LF: so what is stored is what is read back, and
// RFC822.SIZE is its size. A lone CR stays.
type lineEnds struct {
	w     io.Writer
	noNUL bool // refuse NUL bytes
	cr    bool // the last byte was CR
}

// Write writes p; n counts the bytes of p.
func (l *lineEnds) Write(p []byte) (int, error) {
	if l.noNUL && bytes.IndexByte(p, 0) >= 0 {
		return 0, errNUL
	}
	for rest := p; len(rest) > 0; {
		i := nextLoneLF(rest, l.cr)
		if i < 0 {
			l.cr = rest[len(rest)-1] == '\r'
			if _, err := l.w.Write(rest); err != nil {
				return 0, err
			}
			break
		}
		if i > 0 {
			if _, err := l.w.Write(rest[:i]); err != nil {
				return 0, err
			}
		}
		if _, err := l.w.Write([]byte("\r\n")); err != nil {
			return 0, err
		}
		l.cr, rest = false, rest[i+1:]
	}
	return len(p), nil
}

// nextLoneLF finds the first LF without CR before it, -1 if there is none. cr says that a CR came before p.
func nextLoneLF(p []byte, cr bool) int {
	for from := 0; ; {
		i := bytes.IndexByte(p[from:], '\n')
		if i < 0 {
			return -1
		}
		i += from
		if i == 0 && !cr || i > 0 && p[i-1] != '\r' {
			return i
		}
		from = i + 1
	}
}
