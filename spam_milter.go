package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-milter"
)

const (
	milterDial    = 5 * time.Second
	milterStep    = 30 * time.Second // for one answer
	milterTimeout = 2 * time.Minute  // for a whole message: scanners unpack large ones
	milterRest    = 30 * time.Second // how long one that failed is not asked
	milterHeader  = 512 << 10        // octets of a header that it is given as fields; the rest comes as text
	milterAdds    = 64 << 10         // octets of fields that it may add
	milterChanges = 100              // fields that it may change
)

// milterClient asks another program about messages, as Sendmail and Postfix do: rspamd, or ClamAV. It never stands in the way:
// while the program is down or talks nonsense mail is taken without it, and the log says so. Safe for concurrent use.
type milterClient struct {
	network, address string
	hostname         func() string
	log              *slog.Logger
	now              func() time.Time
	step, whole      time.Duration // milterStep and milterTimeout, but in tests

	mu     sync.Mutex
	failed time.Time // when it failed last; zero: it works
}

func newMilterClient(setting string, hostname func() string, log *slog.Logger, now func() time.Time) (*milterClient, error) {
	network, address, err := milterAddress(setting)
	if err != nil {
		return nil, fmt.Errorf("milter: %w", err)
	}
	return &milterClient{network: network, address: address, hostname: hostname, log: log, now: now, step: milterStep, whole: milterTimeout}, nil
}

// ask asks about a message. What the milter wants done goes into verdict, what it thinks into the reasons; a refusal is
// given back.
func (c *milterClient) ask(ctx context.Context, j *spamJudgment, verdict *Verdict) (refusal Verdict) {
	if c.resting() {
		return Verdict{}
	}
	ctx, cancel := context.WithTimeout(ctx, c.whole)
	defer cancel()
	answer, err := c.talk(ctx, j.mail, j.findings)
	c.note(err)
	if err != nil {
		return Verdict{}
	}
	refusal = milterRefusal(answer.action)
	switch {
	case refusal.Refuse == "":
	case !j.findings.Collected:
		return refusal
	case refusal.Later: // it is here, and nobody brings it again
		return Verdict{}
	default:
		verdict.Folder = junkName
		j.add(spamLimit, "the milter refuses it")
	}
	if answer.action.Code == milter.ActDiscard {
		// A message that was taken is not thrown away behind its recipient's back: it is to be found in Junk.
		verdict.Folder = junkName
		j.add(spamLimit, "the milter wants it thrown away")
	}
	j.obeyMilter(answer, verdict)
	return Verdict{}
}

// resting says whether the milter has failed a short while ago.
func (c *milterClient) resting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.failed.IsZero() && c.now().Sub(c.failed).Abs() < milterRest
}

// note notes how a conversation ended.
func (c *milterClient) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.failed
	c.failed = time.Time{}
	switch {
	case err != nil:
		c.failed = c.now()
		c.log.Warn("the milter does not answer as it should; mail is taken without it", "milter", c.address, "error", err)
	case !before.IsZero():
		c.log.Info("the milter answers again", "milter", c.address)
	}
}

// milterDialer dials for one message, and ends the connection when its time is over.
type milterDialer struct {
	ctx  context.Context
	conn net.Conn
}

// Dial is milter.Dialer.
func (d *milterDialer) Dial(network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: milterDial}
	conn, err := dialer.DialContext(d.ctx, network, address)
	d.conn = conn
	return conn, err
}

// milterAnswer is what a milter has said of a message.
type milterAnswer struct {
	changes []milter.ModifyAction
	action  *milter.Action
	fields  []headerField // that it was shown
}

// talk has one conversation.
func (c *milterClient) talk(ctx context.Context, m *ReceivedMail, findings *Findings) (*milterAnswer, error) {
	dialer := &milterDialer{ctx: ctx}
	client := milter.NewClientWithOptions(c.network, c.address, milter.ClientOptions{
		Dialer: dialer, ReadTimeout: c.step, WriteTimeout: c.step,
		ActionMask: milter.OptAddHeader | milter.OptChangeHeader | milter.OptQuarantine,
		// Only what version 2 of the protocol has: with more the library would not talk to old programs.
		ProtocolMask: milter.OptNoConnect | milter.OptNoHelo | milter.OptNoMailFrom | milter.OptNoRcptTo | milter.OptNoBody | milter.OptNoHeaders | milter.OptNoEOH,
	})
	session, err := client.Session()
	if dialer.conn != nil {
		defer dialer.conn.Close()
		defer context.AfterFunc(ctx, func() { _ = dialer.conn.Close() })()
	}
	if err != nil {
		return nil, err
	}
	answer, err := c.present(session, m, findings)
	if err != nil {
		return nil, err
	}
	_ = session.Close() // it is said what there was to say
	return answer, nil
}

// present gives the milter the message, step by step, until it has decided.
func (c *milterClient) present(s *milter.ClientSession, m *ReceivedMail, findings *Findings) (*milterAnswer, error) {
	steps := []func() (*milter.Action, error){func() (*milter.Action, error) { return c.presentClient(s, m, findings) }}
	if m.Helo != "" {
		steps = append(steps, func() (*milter.Action, error) { return s.Helo(m.Helo) })
	}
	steps = append(steps, func() (*milter.Action, error) {
		if err := s.Macros(milter.CodeMail, "i", m.ID, "{mail_addr}", m.From); err != nil {
			return nil, err
		}
		return s.Mail(m.From, nil)
	})
	for _, rcpt := range milterRecipients(m) {
		steps = append(steps, func() (*milter.Action, error) { return s.Rcpt(rcpt, nil) })
	}
	fields, body, err := milterParts(m, findings)
	if err != nil {
		return nil, err
	}
	answer := &milterAnswer{fields: fields}
	for _, h := range fields {
		steps = append(steps, func() (*milter.Action, error) { return s.HeaderField(h.Name, milterValue(h)) })
	}
	steps = append(steps, s.HeaderEnd)
	for _, step := range steps {
		if answer.action, err = step(); err != nil || answer.action.Code != milter.ActContinue {
			return answer, err
		}
	}
	if err = s.Macros(milter.CodeEOB, "i", m.ID); err == nil {
		answer.changes, answer.action, err = s.BodyReadFrom(body)
	}
	return answer, err
}

// milterRecipients gives whom a message is for; of one that was collected, the account.
func milterRecipients(m *ReceivedMail) []string {
	if len(m.Rcpts) == 0 {
		return m.Accounts
	}
	rcpts := make([]string, len(m.Rcpts))
	for i, rcpt := range m.Rcpts {
		rcpts[i] = rcpt.String()
	}
	return rcpts
}

// presentClient says who has brought the message.
func (c *milterClient) presentClient(s *milter.ClientSession, m *ReceivedMail, findings *Findings) (*milter.Action, error) {
	if err := s.Macros(milter.CodeConn, "j", c.hostname(), "{daemon_name}", "appliance", "v", "appliance"); err != nil {
		return nil, err
	}
	addr := m.Remote.Unmap().WithZone("")
	if !addr.IsValid() {
		return s.Conn("unknown", milter.FamilyUnknown, 0, "")
	}
	name, family := findings.IPRev.Name, milter.FamilyInet
	if name == "" {
		name = "[" + addr.String() + "]"
	}
	if addr.Is6() {
		family = milter.FamilyInet6
	}
	return s.Conn(name, family, 0, addr.String())
}

// milterParts gives the fields of a message as it came, without those of this server, and what follows them.
func milterParts(m *ReceivedMail, findings *Findings) (fields []headerField, body io.Reader, err error) {
	header, err := readHeader(bufio.NewReader(io.NewSectionReader(m.Message, 0, m.Size)), milterHeader)
	if err != nil && !errors.Is(err, errHeaderTooLong) {
		return nil, nil, err
	}
	fields = splitHeader(header)
	if !findings.Collected {
		fields = fields[min(len(fields), traceFields):]
	}
	named := fields[:0:0]
	for _, h := range fields {
		if h.Name != "" {
			named = append(named, h)
		}
	}
	return named, io.NewSectionReader(m.Message, int64(len(header)), m.Size-int64(len(header))), nil
}

// milterValue gives the value of a field with its folding, in the line ends that milters expect.
func milterValue(h headerField) string {
	_, value, _ := bytes.Cut(h.Raw, []byte{':'})
	value = bytes.TrimPrefix(bytes.TrimRight(value, "\r\n"), []byte{' '})
	return string(bytes.ReplaceAll(bytes.ReplaceAll(value, []byte("\r\n"), []byte("\n")), []byte{0}, nil))
}

// milterRefusal gives the refusal that an action stands for, if it does.
func milterRefusal(action *milter.Action) Verdict {
	switch action.Code {
	case milter.ActReject:
		return Verdict{Refuse: "The message is refused by the filter of this server"}
	case milter.ActTempFail:
		return Verdict{Refuse: "The filter of this server cannot take the message at the moment, try again later", Later: true}
	case milter.ActReplyCode:
		words := milterWords(action.SMTPText)
		switch action.SMTPCode / 100 {
		case 4:
			return Verdict{Refuse: words, Later: true}
		case 5:
			return Verdict{Refuse: words}
		}
	}
	return Verdict{}
}

// milterWords makes what a milter says fit for a reply: one line of ASCII, without the code that we give ourselves.
func milterWords(text string) string {
	words := strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, text))
	if len(words) > 0 && len(words[0]) >= 5 && strings.Trim(words[0], "0123456789.") == "" && strings.Count(words[0], ".") == 2 {
		words = words[1:]
	}
	if len(words) == 0 {
		return "The message is refused by the filter of this server"
	}
	return clip(strings.Join(words, " "), 200)
}

// obeyMilter does what a milter wants done with a message that is taken.
func (j *spamJudgment) obeyMilter(answer *milterAnswer, verdict *Verdict) {
	room := milterAdds
	for _, a := range answer.changes {
		switch a.Code {
		case milter.ActQuarantine:
			verdict.Folder = junkName
			j.add(spamLimit, "the milter holds it back")
			continue
		case milter.ActAddHeader, milter.ActInsertHeader, milter.ActChangeHeader:
		default: // what it was told that we do not do
			continue
		}
		if milterCallsSpam(a) {
			j.add(6, "the milter calls it spam")
		}
		field := milterField(a.HeaderName, a.HeaderValue)
		if field == "" || !j.mayAdd(a.HeaderName, field) || len(field) > room {
			continue
		}
		room -= len(field)
		switch {
		case a.Code != milter.ActChangeHeader, !answer.has(a.HeaderName, int(a.HeaderIndex)) && a.HeaderValue != "":
			verdict.Fields += field // changing what is not there is adding it
		case len(verdict.Changes) < milterChanges:
			if a.HeaderValue == "" {
				field = ""
			}
			verdict.Changes = append(verdict.Changes, FieldChange{Name: a.HeaderName, Index: int(a.HeaderIndex), Field: field})
		}
	}
}

// has says whether a milter was shown so many fields of a name.
func (a *milterAnswer) has(name string, n int) bool { return countFields(a.fields, name) >= max(n, 1) }

// mayAdd says whether a milter may add a field: not one that only we may write.
func (j *spamJudgment) mayAdd(name, field string) bool {
	return !isOurVerdict(name) && !(strings.EqualFold(name, "Authentication-Results") && claimsResults([]byte(field), j.findings.Host))
}

// milterCallsSpam says whether a field that is added is one of those by which milters mark spam.
func milterCallsSpam(a milter.ModifyAction) bool {
	switch strings.ToLower(a.HeaderName) {
	case "x-spam", "x-spam-flag", "x-spam-status":
		return strings.HasPrefix(strings.ToLower(strings.TrimSpace(a.HeaderValue)), "yes")
	}
	return false
}

// milterField writes a field that a milter wants, "" where it makes none. Its lines are folded where they are not.
func milterField(name, value string) string {
	if name == "" || fieldNameOf([]byte(name+":")) != name || strings.ContainsAny(value, "\x00") {
		return ""
	}
	var lines []string
	for line := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == '\r' || r == '\n' }) {
		line = strings.TrimSpace(line)
		if line != "" {
			lines = append(lines, line)
		}
	}
	return name + ": " + strings.Join(lines, "\r\n\t") + "\r\n"
}
