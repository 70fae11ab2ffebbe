package main

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/emersion/go-smtp"
)

const (
	maxReceivedFields = 100      // RFC 5321 §6.3: a message with more goes in a circle
	maxFromField      = 64 << 10 // octets of the From field on submission
)

// receive stores a message: it streams into the first recipient's maildrop with
// the trace fields in front, is judged, and is delivered to all. Nothing is left
// behind when it fails.
func (s *smtpSession) receive(mail smtpMail, r io.Reader) (id string, err error) {
	if mail.accounts, err = s.remaining(mail.accounts); err != nil {
		return "", err
	}
	drop, err := s.p.Store.Maildrop(mail.accounts[0])
	if err != nil {
		return "", fmt.Errorf("opening a maildrop: %w", err)
	}
	defer drop.Release()
	id = newQueueID()
	in, verdict, err := s.take(mail, id, r, drop.Receive)
	if err != nil {
		return "", err
	}
	defer in.Discard()
	if mail.accounts, err = s.remaining(mail.accounts); err != nil { // a message can take minutes
		return "", err
	}
	size := in.Size()
	to := make([]Delivery, len(mail.accounts))
	for i, account := range mail.accounts {
		to[i] = Delivery{Account: account, Folder: cmp.Or(verdict.FolderFor(account), "INBOX")}
	}
	s.p.text.enter()
	defer s.p.text.leave()
	switch err := s.p.deliver(s.ctx, in, mail.reversePath(), to); {
	case errors.Is(err, ErrOverQuota):
		return "", s.refuse(452, smtp.EnhancedCode{4, 2, 2}, "A mailbox that this message is for is full, try again later")
	case errors.Is(err, ErrAboveQuota):
		return "", s.refuse(552, smtp.EnhancedCode{5, 2, 3}, "A mailbox that this message is for cannot hold a message of this size")
	case err != nil:
		return "", fmt.Errorf("delivering a message: %w", err)
	}
	s.c.Log.Info("delivered", "id", id, "account", s.account, "from", mail.reversePath(), "to", strings.Join(mail.accounts, " "), "junk", junkOf(to), "size", size)
	return id, nil
}

// take writes a message into a file that open makes, and has it judged. On an error nothing is left behind.
func (s *smtpSession) take(mail smtpMail, id string, r io.Reader, open func() (*Incoming, error)) (in *Incoming, verdict Verdict, err error) {
	if in, err = open(); err != nil {
		return nil, verdict, fmt.Errorf("starting a message: %w", err)
	}
	taken := false
	defer func() {
		if !taken { // also when a judge panics
			in.Discard()
		}
	}()
	if err = s.write(in, mail, id, r); err != nil {
		return in, verdict, err
	}
	if verdict, err = s.judge(mail, id, in); err == nil {
		in, err = applyVerdict(open, in, &verdict, traceFields)
	}
	taken = err == nil
	return in, verdict, err
}

// remaining gives those of the accounts that still exist: one that was removed
// after RCPT gets no mail any more, lest the next person with its address finds it.
func (s *smtpSession) remaining(accounts []string) ([]string, error) {
	var left []string
	for _, account := range accounts {
		if s.p.Accounts.Exists(account) {
			left = append(left, account)
		}
	}
	if len(left) == 0 {
		return nil, s.refuse(550, smtp.EnhancedCode{5, 1, 1}, "The account has just been removed")
	}
	return left, nil
}

// reversePath gives the sender as it stands in Return-Path, without brackets.
func (m *smtpMail) reversePath() string {
	if m.null {
		return ""
	}
	return m.from.String()
}

// judge asks for a verdict, if there is somebody to ask.
func (s *smtpSession) judge(mail smtpMail, id string, in *Incoming) (Verdict, error) {
	verdict := Verdict{}
	if s.p.Judge != nil {
		var err error
		verdict, err = s.p.Judge(s.ctx, &ReceivedMail{
			ID: id, Remote: s.c.Remote, Helo: mail.helo, Account: s.account, From: mail.reversePath(), Rcpts: mail.rcpts,
			Accounts: mail.accounts, TLS: s.c.TLS() != nil, Message: in, Size: in.Size(),
		})
		if err != nil {
			return verdict, fmt.Errorf("judging a message: %w", err)
		}
	}
	detail := max(verdict.Detail, 1)
	switch {
	case verdict.Refuse != "" && verdict.Later:
		return verdict, s.refuse(451, smtp.EnhancedCode{4, 7, detail}, "%s", verdict.Refuse)
	case verdict.Refuse != "":
		return verdict, s.refuse(550, smtp.EnhancedCode{5, 7, detail}, "%s", verdict.Refuse)
	}
	return verdict, nil
}

// applyVerdict gives a message as a verdict wants it, in place of in. One that is short is still in memory, and is not written
// twice; for a longer one open makes another file. trace is how many fields this server has put in front of it before. On an
// error in is still the message.
func applyVerdict(open func() (*Incoming, error), in *Incoming, v *Verdict, trace int) (*Incoming, error) {
	if len(v.Changes) == 0 && (v.Fields == "" || in.Prepend([]byte(v.Fields))) {
		return in, nil
	}
	other, err := open()
	if err == nil {
		err = v.Write(other, in, in.Size(), trace)
	}
	if err != nil {
		if other != nil {
			other.Discard()
		}
		return in, fmt.Errorf("writing a message: %w", err)
	}
	in.Discard()
	return other, nil
}

// errTooLarge says that a message has more octets than are taken.
var errTooLarge = errors.New("message is too large")

// messageReader reads what the client sends as the message, up to a limit, and
// keeps the error of the client's side apart from those of the disk.
type messageReader struct {
	r    io.Reader
	left int64
	err  error
}

func (m *messageReader) Read(p []byte) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	n, err := m.r.Read(p)
	if m.left -= int64(n); m.left < 0 {
		err = errTooLarge
	}
	m.err = err
	return n, err
}

// write writes the message as it will be stored.
func (s *smtpSession) write(in *Incoming, mail smtpMail, id string, r io.Reader) error {
	source := &messageReader{r: r, left: s.p.MaxSize}
	_, err := io.WriteString(in, s.trace(mail, id))
	if err == nil {
		buffered := s.c.env.takeReader(source)
		err = s.copy(in, buffered, mail)
		s.c.env.giveReader(buffered)
	}
	var reply *smtp.SMTPError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &reply):
		return reply
	case errors.Is(source.err, errTooLarge):
		return s.refuse(552, smtp.EnhancedCode{5, 3, 4}, "A message is %d octets at most", s.p.MaxSize)
	case source.err != nil && source.err != io.EOF:
		s.c.Log.Info("rejected", "protocol", "smtp", "id", id, "reason", "the message broke off")
		return smtpReply(451, smtp.EnhancedCode{4, 4, 2}, "The message broke off")
	}
	return fmt.Errorf("writing a message: %w", err)
}

// copy copies the message, its header with what has to be changed.
func (s *smtpSession) copy(out io.Writer, r *bufio.Reader, mail smtpMail) error {
	h := &headerCopier{submission: s.submission, host: s.p.Hostname}
	if err := h.run(out, r); err != nil {
		return err
	}
	if h.received > maxReceivedFields {
		return s.refuse(554, smtp.EnhancedCode{5, 4, 6}, "The message has come through more than %d servers, it goes in a circle", maxReceivedFields)
	}
	if s.submission {
		author, err := s.author(h)
		if err != nil {
			return err
		}
		if err := s.complete(out, h, author); err != nil {
			return err
		}
	}
	if err := h.runOn(out, r); err != nil {
		return err
	}
	_, err := io.Copy(out, r)
	return err
}

// author checks that a submitted message is from the person who sends it, and
// gives the first address of its From field.
func (s *smtpSession) author(h *headerCopier) (Address, error) {
	none := smtp.EnhancedCode{5, 6, 0}
	switch {
	case h.froms == 0:
		return Address{}, s.refuse(554, none, "The message has no From field")
	case h.froms > 1:
		return Address{}, s.refuse(554, none, "The message has more than one From field")
	case len(h.from) > maxFromField:
		return Address{}, s.refuse(554, none, "The From field is too long")
	}
	list, ok := fromAddresses([]headerField{{Name: "From", Raw: h.from}})
	if !ok {
		return Address{}, s.refuse(554, none, "The From field is not a list of mail addresses")
	}
	for _, a := range list {
		if !s.p.Accounts.Owns(s.account, a) {
			return Address{}, s.refuse(550, smtp.EnhancedCode{5, 7, 1}, "The message is from %s, which is not an address of %s%s", a, s.account, s.wayToSend(a))
		}
	}
	return list[0], nil
}

// complete adds the fields that a submitted message lacks (RFC 6409 §8.2, §8.3).
func (s *smtpSession) complete(out io.Writer, h *headerCopier, author Address) error {
	added := ""
	if !h.date {
		added += "Date: " + s.now() + "\r\n"
	}
	if !h.messageID {
		added += "Message-ID: <" + strings.ToLower(rand.Text()) + "@" + author.Domain + ">\r\n"
	}
	switch {
	case added == "":
	case h.torn:
		added = "\r\n" + added
	case len(h.rest) > 0 && !isBlankLine(h.rest):
		added += "\r\n" // no blank line ended the header
	}
	_, err := io.WriteString(out, added)
	return err
}

// now gives the time as header fields have it (RFC 5322 §3.3).
func (s *smtpSession) now() string { return s.p.Now().Format(mailDate) }

// trace gives the fields that tell how the message came here (RFC 5321 §4.4). Return-Path is the last server's to write.
func (s *smtpSession) trace(mail smtpMail, id string) string {
	var b strings.Builder
	if !mail.queued {
		b.WriteString(returnPath(mail.reversePath()))
	}
	fmt.Fprintf(&b, "Received: from %s (%s)\r\n", mail.helo, addressTag(s.c.Remote))
	fmt.Fprintf(&b, "\tby %s with %s id %s", s.p.Hostname, mail.with, id)
	if len(mail.rcpts) == 1 { // with more it would tell of blind copies
		fmt.Fprintf(&b, "\r\n\tfor <%s>", mail.rcpts[0])
	}
	if state := s.c.TLS(); state != nil { // RFC 8314 §4.3
		fmt.Fprintf(&b, "\r\n\ttls %s (%s)", tls.CipherSuiteName(state.CipherSuite), tls.VersionName(state.Version))
	}
	fmt.Fprintf(&b, ";\r\n\t%s\r\n", s.now())
	return b.String()
}

// addressTag gives an address as an address literal (RFC 5321 §4.1.3).
func addressTag(a netip.Addr) string {
	if a.Is4() {
		return "[" + a.String() + "]"
	}
	return "[IPv6:" + a.String() + "]"
}

// with names the protocol: RFC 3848 and RFC 6531 §4.3.
func (s *smtpSession) with(utf8 bool) string {
	if !s.w.esmtp {
		return "SMTP"
	}
	name := "ESMTP"
	if utf8 {
		name = "UTF8SMTP"
	}
	if s.c.TLS() != nil {
		name += "S"
	}
	if s.account != "" {
		name += "A"
	}
	return name
}

// headerCopier copies a header, however long, and notes what is asked of it. On
// submission it leaves out Bcc and Resent-Bcc (RFC 5322 §3.6.3) and Return-Path,
// which only the last server writes (RFC 5321 §4.4). What comes from other servers
// is kept byte for byte: ours is the first Return-Path, and the one that counts.
// Only an Authentication-Results field that claims to be ours (RFC 8601 §5), and what
// filters say (see isVerdictField), is left out of all mail.
type headerCopier struct {
	submission bool
	host       string // whose Authentication-Results nobody else may write

	received  int    // Received fields
	froms     int    // From fields
	from      []byte // the first of them, as far as it is taken
	date      bool
	messageID bool
	torn      bool   // the message ended within a field, without a line end
	rest      []byte // what ended the header: a blank line, a line that is no field, or nothing
	held      []byte // an Authentication-Results field before it is known whose it is
	holding   bool
}

// maxHeldField is how many octets of an Authentication-Results field may stand
// before it is known who says it.
const maxHeldField = 16 << 10

// run copies up to the end of the header.
func (h *headerCopier) run(w io.Writer, r *bufio.Reader) error {
	field, keep, collect, lineStart := false, true, false, true
	for {
		piece, err := r.ReadSlice('\n')
		if lineStart && len(piece) > 0 {
			folded := field && (piece[0] == ' ' || piece[0] == '\t')
			if !folded {
				if err := h.release(w); err != nil {
					return err
				}
				name := fieldNameOf(piece)
				if name == "" && isDisguised(piece) {
					name = spamStatusField // to be left out like that
				}
				if name == "" {
					h.rest = bytes.Clone(piece)
					return endOfRead(err)
				}
				field = true
				keep, collect = h.begin(name)
			}
		}
		if collect && len(h.from) <= maxFromField {
			h.from = append(h.from, piece...)
		}
		switch {
		case h.holding && len(h.held) <= maxHeldField:
			h.held = append(h.held, piece...)
		case keep && !h.holding:
			if _, err := w.Write(piece); err != nil {
				return err
			}
		}
		lineStart = err == nil
		h.torn = err == io.EOF && len(piece) > 0
		if err != nil && err != bufio.ErrBufferFull {
			if werr := h.release(w); werr != nil {
				return werr
			}
			return endOfRead(err)
		}
	}
}

// isDisguised says whether a line that is no field may be taken for one that only we may write, by programs that do not see odd
// octets in its name, or do not mind that white space before the colon is longer than what was read of it so far.
func isDisguised(piece []byte) bool {
	if bytes.IndexByte(piece, ':') < 0 && piece[len(piece)-1] == '\n' {
		return false
	}
	name := bareFieldName(piece)
	return isVerdictField(name) || strings.EqualFold(name, "Authentication-Results")
}

// release ends the field that is held: it is copied if somebody else says it.
func (h *headerCopier) release(w io.Writer) error {
	held := h.held
	holding := h.holding
	h.held, h.holding = held[:0], false
	if !holding || len(held) > maxHeldField || claimsResults(held, h.host) {
		return nil
	}
	_, err := w.Write(held)
	return err
}

// runOn copies what ended the header and, where that was no blank line, what
// other programs may still take for the header behind it.
func (h *headerCopier) runOn(w io.Writer, r *bufio.Reader) error {
	for {
		if _, err := w.Write(h.rest); err != nil {
			return err
		}
		if len(h.rest) == 0 || isBlankLine(h.rest) {
			return nil
		}
		for line := h.rest; line[len(line)-1] != '\n'; {
			var err error
			line, err = r.ReadSlice('\n')
			if _, werr := w.Write(line); werr != nil {
				return werr
			}
			if err != nil && err != bufio.ErrBufferFull || len(line) == 0 {
				return endOfRead(err)
			}
		}
		further := &headerCopier{host: h.host}
		if err := further.run(w, r); err != nil {
			return err
		}
		h.rest = further.rest
	}
}

// endOfRead gives an error that is not the end of the message or of a piece.
func endOfRead(err error) error {
	if err == io.EOF || err == bufio.ErrBufferFull {
		return nil
	}
	return err
}

// begin notes a field and says what to do with it.
func (h *headerCopier) begin(name string) (keep, collect bool) {
	if isVerdictField(name) {
		return false, false
	}
	switch strings.ToLower(name) {
	case "return-path", "bcc", "resent-bcc":
		return !h.submission, false
	case "authentication-results":
		h.holding = true
	case "received":
		h.received++
	case "from":
		h.froms++
		return true, h.froms == 1
	case "date":
		h.date = true
	case "message-id":
		h.messageID = true
	}
	return true, false
}

// helo gives the client's name for the trace field. Only what a domain name or
// an address literal may hold is kept of it.
func (w *smtpWire) helo() string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r > 0x7e, r <= ' ', strings.ContainsRune(`()<>@,;\"`, r):
			return '?'
		}
		return r
	}, clip(w.greeted, 255))
	if clean == "" {
		return "unknown"
	}
	return clean
}
