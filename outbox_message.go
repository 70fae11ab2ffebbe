package main

import (
	"bufio"
	"fmt"
	"io"
	"mime/multipart"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// queueIDOf gives the ID of the queue that a message of an Outbox tells of, "" for other messages.
func queueIDOf(f *Folder, uid imap.UID) string {
	m, err := f.OpenMessage(uid)
	if err != nil {
		return ""
	}
	defer m.Close()
	header, err := readHeader(bufio.NewReader(m.Section(0, min(m.Size(), outboxHeader))), outboxHeader)
	if err != nil {
		return ""
	}
	field, _ := findField(splitHeader(header), outboxField)
	return strings.TrimSpace(field.Value())
}

// waitingWords says for whom a message waits, why, and when it is tried next; "" for one that does not wait, or was not tried
// in vain yet.
func waitingWords(e *QueueEntry, now time.Time) string {
	var b strings.Builder
	for i := range e.Recipients {
		r := &e.Recipients[i]
		if r.State != SendWaiting || r.Reason == "" {
			continue
		}
		fmt.Fprintf(&b, "\n  %s\n", r.Address)
		fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(strings.TrimSpace(cleanText(r.Reason)), "\n", "\n  "))
		if r.Next.After(now) {
			fmt.Fprintf(&b, "  Next try: %s\n", clockWords(r.Next, now))
		}
	}
	return b.String()
}

// writeWaiting writes the message that tells of one that waits, with that one attached.
func writeWaiting(w io.Writer, hostname string, e *QueueEntry, words string, message QueueMessage, now time.Time) error {
	header, err := headerOf(message)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	parts := multipart.NewWriter(out)
	noticeHeader(out, hostname, e.Account, "Waiting: "+subjectOf(header), "auto-generated", now)
	fmt.Fprintf(out, "%s: %s\r\n", outboxField, e.ID)
	fmt.Fprintf(out, "Content-Type: multipart/mixed; boundary=%q\r\n\r\n", parts.Boundary())
	text, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"text/plain; charset=utf-8"}, "Content-Transfer-Encoding": {"8bit"}})
	if err != nil {
		return err
	}
	about := fmt.Sprintf(`This message waits to be sent since %s. You need not do anything:
the server tries again by itself, for %d days in all. It waits for:
%s
To try it now, flag this message (many programs call that a star).
To change it, move this message to Drafts: it is not sent then, and lies there.
Not to send it, delete this message or move it to Trash. It cannot be moved elsewhere.
`, clockWords(e.Queued, now), int(queueLifetime/(24*time.Hour)), words)
	if _, err := io.WriteString(text, strings.ReplaceAll(about, "\n", "\r\n")); err != nil {
		return err
	}
	kind := "message/rfc822"
	if !isASCII(header) {
		kind = "message/global" // RFC 6532 §3.7
	}
	attached, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {kind}, "Content-Transfer-Encoding": {"8bit"}, "Content-Disposition": {"attachment"}})
	if err != nil {
		return err
	}
	if _, err := io.Copy(attached, io.NewSectionReader(message, 0, message.Size)); err != nil {
		return err
	}
	if err := parts.Close(); err != nil {
		return err
	}
	return out.Flush()
}

// writeDraft writes a message as it was before it was sent: without our Received, and with Bcc for those recipients that its
// header does not name.
func writeDraft(w io.Writer, e *QueueEntry, message QueueMessage) error {
	text := bufio.NewReader(io.NewSectionReader(message, 0, message.Size))
	header, err := readHeader(text, reportHeaderLimit)
	if err != nil { // a header of this length is a strange one: it stays as it is
		_, err := io.Copy(w, io.NewSectionReader(message, 0, message.Size))
		return err
	}
	fields := splitHeader(header)
	var out []byte
	at := 0
	for i, field := range fields {
		if at += len(field.Raw); i > 0 || !field.Is("Received") {
			out = append(out, field.Raw...)
		}
	}
	if hidden := hiddenRecipients(e, fields); len(hidden) > 0 {
		out = append(out, "Bcc: "+strings.Join(hidden, ",\r\n ")+"\r\n"...)
	}
	if _, err := w.Write(append(out, header[at:]...)); err != nil {
		return err
	}
	_, err = io.Copy(w, text)
	return err
}

// hiddenRecipients gives the recipients that wait and that no field names.
func hiddenRecipients(e *QueueEntry, fields []headerField) []string {
	var named []Address
	for _, name := range [...]string{"To", "Cc"} {
		list, _ := addressesOf(fields, name)
		named = append(named, list...)
	}
	var hidden []string
	for i := range e.Recipients {
		addr, err := ParseAddress(e.Recipients[i].Address)
		same := func(other Address) bool { return other.Key() == addr.Key() }
		if err == nil && e.Recipients[i].State == SendWaiting && !slices.ContainsFunc(named, same) {
			hidden = append(hidden, addr.String())
		}
	}
	return hidden
}
