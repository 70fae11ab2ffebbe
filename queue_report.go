package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// What senders are told of their mail: delivery status notifications, RFC 3464, as RFC 3461 lets them ask for, and in the
// form of RFC 6533 where an address or the message is in UTF-8. The first part is for people.

const (
	// reportFullLimit is how large a message may be that comes back whole, in octets; of a larger one the header does.
	reportFullLimit = 1 << 20
	// reportHeaderLimit is how much of a header comes back, in octets.
	reportHeaderLimit = 64 << 10
)

// reportAction is the Action field (RFC 3464 §2.3.3).
type reportAction string

const (
	actionFailed  reportAction = "failed"
	actionDelayed reportAction = "delayed"
	actionRelayed reportAction = "relayed"

	actionDelivered reportAction = "delivered" // into a mailbox here
)

// kind is what a sender has to want for being told.
func (a reportAction) kind() NotifySet {
	switch a {
	case actionFailed:
		return NotifyFailure
	case actionDelayed:
		return NotifyDelay
	}
	return NotifySuccess
}

// reportedRecipient is a recipient of whom a sender is told.
type reportedRecipient struct {
	index   int
	action  reportAction
	expired bool
	state   recipientState
}

// report tells the sender what has become of recipients, one report for each action. There is none about a report (RFC
// 5321 §4.5.5: the null reverse-path), nor where the sender wants none. Where a failure cannot be told, the recipients wait
// and fail once more; a delay is told at the next sweep.
func (q *Queue) report(ctx context.Context, item *queueItem, news []reportedRecipient, now time.Time) {
	switch {
	case item.Envelope.Forward != "":
		q.reportForward(ctx, item, news, now)
		return
	case item.Envelope.From == "":
		return
	}
	for _, action := range [...]reportAction{actionFailed, actionDelayed, actionRelayed, actionDelivered} {
		var about []reportedRecipient
		for _, r := range news {
			if r.action == action && item.Envelope.Recipients[r.index].Notify.Wants(action.kind()) {
				about = append(about, r)
			}
		}
		if len(about) == 0 {
			continue
		}
		message, err := q.compose(item, about, now)
		if err == nil {
			err = q.cfg.Report(context.WithoutCancel(ctx), &item.Envelope, message)
		}
		if err != nil {
			q.cfg.Log.Error("a sender could not be told", "id", item.id, "action", string(action), "error", err)
			q.untold(item, about, now)
		}
	}
}

// untold lets recipients wait whose failure could not be told, and a delay be told again, but not for ever: a mailbox may stay
// full.
func (q *Queue) untold(item *queueItem, about []reportedRecipient, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now.Sub(item.Queued) >= 2*queueLifetime {
		return
	}
	for _, r := range about {
		if r.action == actionDelayed {
			item.Told = false
		}
		if st := &item.States[r.index]; st.State == SendFailed {
			st.State, st.Next = SendWaiting, now.Add(queueGaps[2])
		}
	}
}

// compose writes a report.
func (q *Queue) compose(item *queueItem, about []reportedRecipient, now time.Time) ([]byte, error) {
	message, err := q.files.open(item.id)
	if err != nil {
		return nil, err
	}
	defer message.Close()
	r := reportWriter{q: q, item: item, about: about, now: now, global: item.Envelope.UTF8}
	for _, a := range about {
		r.global = r.global || !isASCII([]byte(item.Envelope.Recipients[a.index].Address))
	}
	return r.write(message)
}

// reportWriter writes one report.
type reportWriter struct {
	q      *Queue
	item   *queueItem
	about  []reportedRecipient // of the same action
	now    time.Time
	global bool // RFC 6533
	parts  *multipart.Writer
}

func (r *reportWriter) action() reportAction { return r.about[0].action }

// write writes all of it.
func (r *reportWriter) write(message QueueMessage) ([]byte, error) {
	header, err := headerOf(message)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	r.parts = multipart.NewWriter(&out)
	r.head(&out, subjectOf(header))
	var full io.Reader
	if r.action() == actionFailed && r.item.Envelope.Return != "HDRS" && message.Size <= reportFullLimit {
		full = io.NewSectionReader(message, 0, message.Size)
	}
	err = errors.Join(r.words(), r.status(), r.original(header, full), r.parts.Close())
	return out.Bytes(), err
}

// headerOf reads the header of a message, as far as it is given back, without the blank line that ends it.
func headerOf(message QueueMessage) ([]byte, error) {
	raw, err := readHeader(bufio.NewReader(io.NewSectionReader(message, 0, message.Size)), reportHeaderLimit)
	if errors.Is(err, errHeaderTooLong) {
		return raw[:bytes.LastIndexByte(raw[:reportHeaderLimit], '\n')+1], nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading a queued message: %w", err)
	}
	if n := len(raw) - len("\r\n"); n == 0 || bytes.HasSuffix(raw, []byte("\r\n\r\n")) {
		raw = raw[:n]
	}
	return raw, nil
}

// subjectOf gives the decoded Subject of a header, "" without one.
func subjectOf(header []byte) string {
	field, ok := findField(splitHeader(header), "Subject")
	if !ok {
		return ""
	}
	return clip(decodeHeaderText(field.Value()), 200)
}

// head writes the report's own header.
func (r *reportWriter) head(out *bytes.Buffer, subject string) {
	title := map[reportAction]string{actionFailed: "Not delivered", actionDelayed: "Still waiting", actionRelayed: "Passed on", actionDelivered: "Delivered"}[r.action()]
	if subject != "" {
		title += ": " + subject
	}
	noticeHeader(out, r.q.cfg.Hostname(), r.item.Envelope.ReportTo(), title, "auto-replied", r.now)
	fmt.Fprintf(out, "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=%q\r\n\r\n", r.parts.Boundary())
}

// part begins a part.
func (r *reportWriter) part(kind, encoding string) (io.Writer, error) {
	h := textproto.MIMEHeader{"Content-Type": {kind}}
	if encoding != "" {
		h.Set("Content-Transfer-Encoding", encoding)
	}
	return r.parts.CreatePart(h)
}

// words writes the part for people.
func (r *reportWriter) words() error {
	w, err := r.part("text/plain; charset=utf-8", "8bit")
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "This is the mail server %s.\n\n", r.q.cfg.Hostname())
	sent := r.item.Queued.Local().Format("2 January 2006, 15:04")
	forward := r.item.Envelope.Forward != ""
	switch action := r.action(); {
	case forward && r.item.Envelope.Moved:
		fmt.Fprintf(&b, "A message of %s for you is in your INBOX, as it could not be forwarded to:\n", sent)
	case forward:
		fmt.Fprintf(&b, "A message of %s for you could not be forwarded to:\n", sent)
	case action == actionFailed:
		fmt.Fprintf(&b, "Your message of %s could not be delivered to:\n", sent)
	case action == actionDelayed:
		fmt.Fprintf(&b, "Your message of %s still waits. You need not do anything: the server tries\nagain, for %d days in all. It waits for:\n", sent, int(queueLifetime/(24*time.Hour)))
	case action == actionRelayed:
		fmt.Fprintf(&b, "Your message of %s was passed on to a server that tells no more about:\n", sent)
	case action == actionDelivered:
		fmt.Fprintf(&b, "Your message of %s was delivered to:\n", sent)
	}
	for _, a := range r.about {
		fmt.Fprintf(&b, "\n  %s\n", r.item.Envelope.Recipients[a.index].Address)
		r.why(&b, &a)
	}
	_, err = io.WriteString(w, strings.ReplaceAll(b.String(), "\n", "\r\n"))
	return err
}

// why says in words what has happened to one recipient.
func (r *reportWriter) why(b *strings.Builder, a *reportedRecipient) {
	switch {
	case a.expired && r.now.Sub(r.item.Queued) < queueLifetime:
		b.WriteString("  Whoever looks after this server has given it up.\n")
	case a.expired:
		fmt.Fprintf(b, "  It was tried for %d days.\n", int(queueLifetime/(24*time.Hour)))
	}
	switch {
	case a.state.Text == "":
	case a.state.Code != 0:
		fmt.Fprintf(b, "  The server %s said:\n    %s\n", a.state.Remote, indentWords(a.state.reply(), "\n    "))
	default:
		fmt.Fprintf(b, "  %s\n", indentWords(a.state.reason(), "\n  "))
	}
}

// indentWords keeps the lines of what another server has said, each as it may stand in a text of ours.
func indentWords(text, newLine string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = tameWords(lines[i])
	}
	return strings.Join(lines, newLine)
}

// reply is the remote's reply as it was.
func (s *recipientState) reply() string {
	words := s.Text
	if s.Enhanced != "" && !strings.HasPrefix(words, s.Enhanced) {
		words = s.Enhanced + " " + words
	}
	return strconv.Itoa(s.Code) + " " + words
}

// status writes the part for programs (RFC 3464 §2).
func (r *reportWriter) status() error {
	kind := "message/delivery-status"
	encoding := "7bit"
	if r.global {
		kind, encoding = "message/global-delivery-status", "8bit"
	}
	w, err := r.part(kind, encoding)
	if err != nil {
		return err
	}
	var b strings.Builder
	field := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, r.clean(value)) }
	field("Reporting-MTA", "dns; "+r.q.cfg.Hostname())
	if id := r.item.Envelope.EnvelopeID; id != "" {
		field("Original-Envelope-Id", xtext(id))
	}
	field("Arrival-Date", r.item.Queued.Format(mailDate))
	for i := range r.about {
		b.WriteString("\r\n")
		r.recipient(&r.about[i], field)
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// recipient writes the fields of one recipient (RFC 3464 §2.3).
func (r *reportWriter) recipient(a *reportedRecipient, field func(name, value string)) {
	to, st := &r.item.Envelope.Recipients[a.index], &a.state
	if kind, address, ok := strings.Cut(to.Original, ";"); ok {
		field("Original-Recipient", kind+"; "+xtext(address))
	}
	kind := "rfc822"
	if !isASCII([]byte(to.Address)) {
		kind = "utf-8"
	}
	field("Final-Recipient", kind+"; "+to.Address)
	field("Action", string(a.action))
	field("Status", a.status())
	if st.Remote != "" {
		host, _, _ := strings.Cut(st.Remote, " ")
		field("Remote-MTA", "dns; "+host)
	}
	if st.Code != 0 {
		field("Diagnostic-Code", "smtp; "+st.reply())
	}
	if !st.Last.IsZero() {
		field("Last-Attempt-Date", st.Last.Format(mailDate))
	}
	if a.action == actionDelayed {
		field("Will-Retry-Until", r.item.Queued.Add(queueLifetime).Format(mailDate))
	}
}

// status is the Status field: the remote's, if it fits to what has happened (RFC 3463 §2).
func (a *reportedRecipient) status() string {
	class, fallback := "5", "5.0.0"
	switch a.action {
	case actionDelayed:
		class, fallback = "4", "4.4.0"
	case actionRelayed, actionDelivered:
		class, fallback = "2", "2.0.0"
	}
	code := a.state.Enhanced
	if a.expired || code == "" {
		if a.expired {
			return "5.4.7"
		}
		return fallback
	}
	return class + code[1:]
}

// clean makes a value fit for a field: one line, ASCII unless the report is a global one.
func (r *reportWriter) clean(value string) string {
	return clip(strings.Map(func(c rune) rune {
		switch {
		case c < ' ' || c == 0x7f:
			return ' '
		case c > 0x7e && !r.global:
			return '?'
		}
		return c
	}, value), 900)
}

// xtext encodes as RFC 3461 §4 has it.
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < '!' || c > '~' || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// original writes the message that the report is about, or its header.
func (r *reportWriter) original(header []byte, full io.Reader) error {
	kind, body := "text/rfc822-headers", io.Reader(bytes.NewReader(header))
	switch {
	case full != nil && r.global:
		kind, body = "message/global", full
	case full != nil:
		kind, body = "message/rfc822", full
	case r.global:
		kind = "message/global-headers"
	}
	w, err := r.part(kind, "8bit")
	if err != nil {
		return err
	}
	_, err = io.Copy(w, body)
	return err
}
