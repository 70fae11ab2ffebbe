package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// One connection to another server, from the dial to QUIT; send_transaction.go is what is said in between.

// sendConn is used by one transaction at a time.
type sendConn struct {
	client *smtp.Client
	pipe   *pipeConn // what client speaks through
	raw    net.Conn
	sender *Sender
	relay  *Relay
	remote string      // "mx.example.org [192.0.2.1]"
	secure bool        // TLS
	sent   int         // transactions begun
	inData bool        // the last one came as far as DATA
	dotted bool        // and to its final dot
	whole  atomic.Bool // it is sent, and the reply to it is awaited
	expiry *time.Timer
}

// paceConn bounds what go-smtp's client does not: the time of each write after DATA, and how much a server says at a time.
type paceConn struct {
	net.Conn
	patience time.Duration // for writeChunk octets
	said     int           // octets read since the last write
}

// maxReply is how many octets a server may say before we do, its certificates included.
const maxReply = 256 << 10

var errTalkative = errors.New("it says more than a mail server has to say")

// Read is io.Reader.
func (p *paceConn) Read(b []byte) (int, error) {
	if p.said >= maxReply {
		return 0, errTalkative
	}
	n, err := p.Conn.Read(b)
	p.said += n
	return n, err
}

// Write is io.Writer.
func (p *paceConn) Write(b []byte) (int, error) {
	p.said = 0
	written := 0
	for written < len(b) {
		if err := p.SetWriteDeadline(time.Now().Add(p.patience)); err != nil {
			return written, err
		}
		n, err := p.Conn.Write(b[written:min(len(b), written+writeChunk)])
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// connect opens a connection to a host, greets and begins TLS. TLS that fails where nothing demands it is left out the
// next time: mail in the clear is better than none (RFC 7435).
func (s *Sender) connect(ctx context.Context, r *route, host *sendHost, addr netip.AddrPort) (*sendConn, *Outcome) {
	demand, why := s.demandFor(ctx, r, host, addr.Port())
	if why != nil {
		return nil, why
	}
	c, err := s.open(ctx, r, host.name, addr, demand, true)
	if err != nil && demand == nil && errors.Is(err, errHandshake) {
		s.log().Info("no TLS", "remote", host.name, "reason", err.Error())
		c, err = s.open(ctx, r, host.name, addr, nil, false)
	}
	if err == nil {
		return c, nil
	}
	o := Outcome{Enhanced: "4.4.1", Text: netWords(err), Remote: remoteName(host.name, addr), Unreachable: true}
	var reply *smtp.SMTPError
	var login *loginError
	switch {
	case errors.As(err, &login):
		o.Code, o.Text, o.Enhanced = login.reply.Code, upperFirstOf(err), "4.7.0"
	case errors.As(err, &reply):
		o.Code, o.Text, o.Enhanced = reply.Code, reply.Message, enhancedOf(reply)
	case errors.Is(err, errDANE):
		o.Text, o.Enhanced = upperFirstOf(errDANE), "4.7.5"
	case errors.Is(err, errHandshake):
		o.Enhanced = "4.7.0"
	case errors.Is(err, errNoTLS), errors.Is(err, errNoLogin):
		o.Text, o.Enhanced = upperFirstOf(err), "4.7.0"
	}
	return nil, &o
}

// upperFirstOf gives an error of ours as a sentence.
func upperFirstOf(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

func (s *Sender) log() interface{ Info(string, ...any) } {
	if s.Log == nil {
		return discardLog{}
	}
	return s.Log
}

type discardLog struct{}

func (discardLog) Info(string, ...any) {}

func remoteName(host string, addr netip.AddrPort) string {
	if host == addr.Addr().String() {
		return "[" + host + "]"
	}
	return host + " [" + addr.Addr().String() + "]"
}

var (
	errHandshake = errors.New("TLS failed")
	errNoTLS     = errors.New("it offers no TLS, which this message or its destination demands")
	errUnsayable = errors.New("the address has characters that no server can be told")
	errNoLogin   = errors.New("the relay offers no login by user and password")
)

// open dials, greets, begins TLS as demanded (nil: as it likes, if wanted at all) and logs in to a relay.
func (s *Sender) open(ctx context.Context, r *route, host string, addr netip.AddrPort, demand *tls.Config, wanted bool) (c *sendConn, err error) {
	raw, err := s.dial(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer func() {
		if stop(); err != nil {
			raw.Close()
		}
	}()
	limits := s.limit()
	c = &sendConn{raw: raw, sender: s, relay: r.relay, remote: remoteName(host, addr)}
	stream, err := c.begin(ctx, &paceConn{Conn: raw, patience: limits.write}, host, demand, wanted)
	if err != nil {
		return nil, err
	}
	_ = raw.SetDeadline(time.Time{})
	c.pipe = &pipeConn{Conn: stream}
	c.client = smtp.NewClient(c.pipe)
	c.client.CommandTimeout, c.client.SubmissionTimeout = limits.command, limits.final
	if err := c.client.Hello(asciiHost(s.Hostname())); err != nil {
		var reply *smtp.SMTPError
		if c.secure && demand == nil && !errors.As(err, &reply) { // TLS 1.3: the server may break it off only now
			err = fmt.Errorf("%w: %w", errHandshake, err)
		}
		return nil, err
	}
	if r.relay != nil && r.relay.User != "" {
		if err := c.login(r.relay); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// dial opens a connection.
func (s *Sender) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.limit().connect)
	defer cancel()
	if s.Dial != nil {
		return s.Dial(ctx, network, address)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// asciiHost gives our name as EHLO may have it.
func asciiHost(name string) string {
	if ascii, err := asciiName(name); err == nil {
		return ascii
	}
	return "localhost"
}

// begin brings a connection to where go-smtp's client can take it over: it can neither say EHLO under our name before
// STARTTLS nor be told of a greeting that was read. So the greeting is played to it again.
func (c *sendConn) begin(ctx context.Context, stream net.Conn, host string, demand *tls.Config, wanted bool) (net.Conn, error) {
	config := demand
	if config == nil { // by opportunity: whatever certificate there is, it keeps those out who only listen
		config = &tls.Config{InsecureSkipVerify: true, ServerName: host, MinVersion: tls.VersionTLS12}
	}
	if c.relay != nil && c.relay.Implicit {
		return c.handshake(ctx, stream, config)
	}
	r := bufio.NewReader(stream)
	text := textproto.NewReader(r)
	greeting, err := c.readReply(text, 220)
	if err != nil {
		return nil, err
	}
	greeting, _, _ = strings.Cut(greeting, "\n")
	offered, err := c.offersTLS(stream, text)
	switch {
	case err != nil:
		return nil, err
	case demand != nil && !offered:
		return nil, errNoTLS
	case !offered || !wanted:
		return &replayed{Conn: stream, r: io.MultiReader(strings.NewReader("220 "+greeting+"\r\n"), r)}, nil
	}
	if _, err := io.WriteString(stream, "STARTTLS\r\n"); err != nil {
		return nil, err
	}
	if _, err := c.readReply(text, 220); err != nil {
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	if r.Buffered() > 0 { // somebody has put plaintext behind the reply (CVE-2021-38371)
		return nil, fmt.Errorf("%w: text follows the reply to STARTTLS", errHandshake)
	}
	secure, err := c.handshake(ctx, stream, config)
	if err != nil {
		return nil, err
	}
	return &replayed{Conn: secure, r: io.MultiReader(strings.NewReader("220 "+greeting+"\r\n"), secure)}, nil
}

// handshake begins TLS.
func (c *sendConn) handshake(ctx context.Context, stream net.Conn, config *tls.Config) (net.Conn, error) {
	_ = c.raw.SetDeadline(time.Now().Add(c.sender.limit().connect))
	secure := tls.Client(stream, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	c.secure = true
	return secure, nil
}

// readReply reads a reply for which a server has its time. Another code is an *smtp.SMTPError.
func (c *sendConn) readReply(text *textproto.Reader, code int) (string, error) {
	_ = c.raw.SetReadDeadline(time.Now().Add(c.sender.limit().command))
	_, reply, err := text.ReadResponse(code)
	var other *textproto.Error
	if errors.As(err, &other) {
		return "", &smtp.SMTPError{Code: other.Code, Message: other.Msg}
	}
	return reply, err
}

// offersTLS says EHLO and looks for STARTTLS.
func (c *sendConn) offersTLS(w io.Writer, text *textproto.Reader) (bool, error) {
	if _, err := fmt.Fprintf(w, "EHLO %s\r\n", asciiHost(c.sender.Hostname())); err != nil {
		return false, err
	}
	reply, err := c.readReply(text, 250)
	var refused *smtp.SMTPError
	if errors.As(err, &refused) && (refused.Code == 500 || refused.Code == 502) { // it knows HELO alone
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(reply) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.EqualFold(word, "STARTTLS") {
			return true, nil
		}
	}
	return false, nil
}

// replayed is a connection of which something that was read is read once more.
type replayed struct {
	net.Conn
	r io.Reader
}

// Read is io.Reader.
func (r *replayed) Read(p []byte) (int, error) { return r.r.Read(p) }

// login logs in to a relay.
func (c *sendConn) login(relay *Relay) error {
	_, offered := c.client.Extension("AUTH")
	mechanisms := strings.Fields(strings.ToUpper(offered))
	var auth sasl.Client
	switch {
	case slices.Contains(mechanisms, sasl.Plain):
		auth = sasl.NewPlainClient("", relay.User, relay.Password)
	case slices.Contains(mechanisms, sasl.Login):
		auth = sasl.NewLoginClient(relay.User, relay.Password)
	default:
		return errNoLogin
	}
	err := c.client.Auth(auth)
	var reply *smtp.SMTPError
	if errors.As(err, &reply) && reply.Code >= 500 {
		return &loginError{reply}
	}
	return err
}

// loginError says that a relay does not take a login, for good.
type loginError struct{ reply *smtp.SMTPError }

func (e *loginError) Error() string {
	return fmt.Sprintf("the relay does not take the login; set it anew with `appliance relay set` (it says: %d %s)", e.reply.Code, e.reply.Message)
}

// sendText is a message as it goes over one connection.
type sendText struct {
	message io.ReaderAt
	size    int64
	eight   bool // has octets above 127 in its text
	utf8    bool // SMTPUTF8 is said
	signed  []byte
}

// prepare makes a message fit for what the server knows: SMTPUTF8 (RFC 6531 §3.6), 8BITMIME (RFC 6152 §3), REQUIRETLS (RFC
// 8689 §4.2.1), SIZE (RFC 1870 §6).
func (c *sendConn) prepare(m *Outgoing) (*sendText, *Outcome) {
	refuse := func(enhanced, format string, args ...any) (*sendText, *Outcome) {
		return nil, &Outcome{State: SendFailed, Enhanced: enhanced, Text: fmt.Sprintf(format, args...), Remote: c.remote}
	}
	if m.Envelope.RequireTLS {
		if knows, _ := c.client.Extension("REQUIRETLS"); !knows {
			return refuse("5.7.30", "It cannot promise to pass the message on under TLS alone, which the sender demands")
		}
	}
	if limit, ok := c.client.MaxMessageSize(); ok && limit > 0 && m.Size > int64(limit) {
		return refuse("5.3.4", "It takes messages of %d octets at most, and this one has %d", limit, m.Size)
	}
	kind, err := scanText(m)
	if err != nil {
		return nil, &Outcome{Enhanced: "4.3.0", Text: "The message cannot be read from the disk at the moment"}
	}
	t := &sendText{message: m.Message, size: m.Size, eight: kind.eight}
	if kind.header || !asciiEnvelope(m) { // RFC 6531 §3.6
		if t.utf8, _ = c.client.Extension("SMTPUTF8"); !t.utf8 {
			return refuse("5.6.7", "It does not know addresses or header fields that are not ASCII (SMTPUTF8)")
		}
	}
	if eight, _ := c.client.Extension("8BITMIME"); kind.eight && !eight && !t.utf8 {
		low, err := downgrade(m.Message, m.Size)
		if err != nil {
			return refuse("5.6.3", "It takes ASCII only, and the message cannot be converted: %s", err)
		}
		t.message, t.size, t.eight = bytes.NewReader(low), int64(len(low)), false
	}
	if err := c.sign(m, t); err != nil {
		return nil, &Outcome{Enhanced: "4.3.0", Text: "The message cannot be signed at the moment"}
	}
	return t, nil
}

// sign makes the DKIM signatures, over the text as it is sent.
func (c *sendConn) sign(m *Outgoing, t *sendText) error {
	s := c.sender
	if s.Sign == nil {
		return nil
	}
	domain, err := authorDomain(t.message, t.size)
	if err != nil || domain == "" {
		return err
	}
	var fields bytes.Buffer
	if _, err := s.Sign(&fields, domain, io.NewSectionReader(t.message, 0, t.size)); err != nil {
		if s.Log != nil {
			s.Log.Error("a message cannot be signed", "domain", domain, "error", err)
		}
		return err
	}
	t.signed = fields.Bytes()
	return nil
}

// authorHeaderLimit is how far into a message its author is looked for, in octets.
const authorHeaderLimit = 256 << 10

// authorDomain gives the domain of a message's From field, which is who signs for it; "" where it has none that can be read.
func authorDomain(message io.ReaderAt, size int64) (string, error) {
	raw, err := readHeader(bufio.NewReader(io.NewSectionReader(message, 0, size)), authorHeaderLimit)
	if err != nil && !errors.Is(err, errHeaderTooLong) {
		return "", err
	}
	list, ok := fromAddresses(splitHeader(raw))
	if !ok {
		return "", nil
	}
	return normalDomain(list[0].Domain), nil
}

// mail begins a transaction.
func (c *sendConn) mail(m *Outgoing, t *sendText) error {
	from := m.Envelope.From
	if c.rewrites(m) {
		from = c.relay.From
	}
	opts := &smtp.MailOptions{Size: t.size + int64(len(t.signed)), UTF8: t.utf8, RequireTLS: m.Envelope.RequireTLS,
		Return: smtp.DSNReturn(m.Envelope.Return)}
	if isPrintable(m.Envelope.EnvelopeID) { // what the client would not say must not look as if the server were to blame
		opts.EnvelopeID = m.Envelope.EnvelopeID
	}
	path := wireAddress(from, t.utf8)
	if !isSayable(path) {
		return errUnsayable
	}
	return c.client.Mail(path, opts)
}

// rewrites says whether the message goes out under the envelope sender that the relay demands. A report keeps its null one.
func (c *sendConn) rewrites(m *Outgoing) bool {
	return c.relay != nil && c.relay.From != "" && m.Envelope.From != ""
}

// passesReports says whether the next server owes the report of success to the sender of the message. One to the sender that
// a relay demands would not reach the person.
func (c *sendConn) passesReports(m *Outgoing) bool {
	dsn, _ := c.client.Extension("DSN")
	return dsn && !c.rewrites(m)
}

// rcpt names a recipient. The original one goes along, so that a report names whom the sender knows (RFC 3461 §5.2.1).
func (c *sendConn) rcpt(m *Outgoing, to *Recipient, t *sendText) error {
	notify := to.Notify
	if c.rewrites(m) && notify != 0 {
		if notify &^= NotifySuccess; notify == 0 {
			notify = NotifyNever
		}
	}
	opts := &smtp.RcptOptions{Notify: notify.words()}
	if kind, address, ok := strings.Cut(to.Original, ";"); ok {
		switch {
		case strings.EqualFold(kind, "rfc822") && isPrintable(address):
			opts.OriginalRecipientType, opts.OriginalRecipient = smtp.DSNAddressTypeRFC822, address
		case strings.EqualFold(kind, "utf-8"):
			opts.OriginalRecipientType, opts.OriginalRecipient = smtp.DSNAddressTypeUTF8, address
		}
	}
	path := wireAddress(to.Address, t.utf8)
	if !isSayable(path) {
		return errUnsayable
	}
	return c.client.Rcpt(path, opts)
}

// isPrintable says whether a text is printable ASCII, as parameters are (RFC 3461 §4.2, §4.4).
func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// isSayable says whether an address can stand in a command.
func isSayable(path string) bool {
	return !strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// words gives a set as RCPT has it.
func (n NotifySet) words() []smtp.DSNNotify {
	var words []smtp.DSNNotify
	for _, w := range [...]struct {
		set  NotifySet
		word smtp.DSNNotify
	}{{NotifyNever, smtp.DSNNotifyNever}, {NotifySuccess, smtp.DSNNotifySuccess}, {NotifyFailure, smtp.DSNNotifyFailure}, {NotifyDelay, smtp.DSNNotifyDelayed}} {
		if n&w.set != 0 {
			words = append(words, w.word)
		}
	}
	return words
}

// wireAddress gives an address as MAIL and RCPT have it: its domain as xn-- unless SMTPUTF8 is said.
func wireAddress(address string, utf8 bool) string {
	local, domain, ok := cutLast(address, '@')
	if !ok || utf8 || strings.HasPrefix(domain, "[") {
		return address
	}
	if ascii, err := asciiName(domain); err == nil {
		domain = ascii
	}
	return local + "@" + domain
}

// reset ends a transaction that did not come to its end.
func (c *sendConn) reset() bool { return c.client.Reset() == nil }

// quit ends the session politely, without waiting long.
func (c *sendConn) quit() {
	c.client.CommandTimeout = time.Second
	if c.client.Quit() != nil {
		c.close()
	}
}

// hangUp ends a transaction that may not go on. The reply to a message that is sent whole is awaited for a moment: it
// spares the recipients a second copy.
func (c *sendConn) hangUp() {
	if c.whole.Load() {
		time.AfterFunc(c.sender.limit().grace, c.close)
		return
	}
	c.close()
}

func (c *sendConn) close() { _ = c.raw.Close() }
