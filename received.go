package main

import (
	"bufio"
	"errors"
	"io"
	"net/netip"
	"strings"
)

// traceFields is how many fields this server has put in front of a message from another: Return-Path and Received.
const traceFields = 2

// ReceivedMail is a message that is complete and not yet delivered.
type ReceivedMail struct {
	ID       string
	Remote   netip.Addr
	Helo     string
	Account  string // who has logged in to send it, "" on port 25
	From     string // reverse-path, "" for the null one
	Rcpts    []Address
	Accounts []string // that it will reach
	TLS      bool
	Message  io.ReaderAt // with the trace fields in front
	Size     int64
}

// The fields in which the filter says what it thinks of a message.
const (
	spamStatusField  = "X-Spam-Status"
	spamReasonsField = "X-Spam-Reasons"
)

// isOurVerdict says whether only this program may write a field of this name.
func isOurVerdict(name string) bool {
	return strings.EqualFold(name, spamStatusField) || strings.EqualFold(name, spamReasonsField)
}

// verdictFields begin the names of fields in which filters tell what they think of a message, and which rules of mail programs
// believe: SpamAssassin, rspamd and SpamPal (X-Spam…), rspamd, bogofilter, DSPAM, CRM114, POPFile and Exchange. Nobody else's are:
// they are taken out of what arrives, before our filter and a milter say theirs.
var verdictFields = [...]string{"x-spam", "x-rspamd-", "x-bogosity", "x-dspam-", "x-crm114-", "x-text-classification",
	"x-ms-exchange-organization-scl"}

// isVerdictField says whether a field of this name tells what a filter thinks of a message, or may be taken for one that does.
func isVerdictField(name string) bool {
	name = strings.ToLower(bareFieldName([]byte(name)))
	for _, prefix := range verdictFields {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// Verdict is what shall become of a message. The zero value delivers it to the
// INBOX.
type Verdict struct {
	Refuse string // the sentence with which it is refused, "" takes it
	Detail int    // last part of the refusal's enhanced code X.7.N (RFC 3463 §3.8, RFC 7372), 0: 1
	Later  bool   // refuse for now: the sender tries again
	Folder string // where it is delivered, "" for the INBOX
	Fields string // header fields to put in front, each with its CRLF

	Folders map[string]string // where it is delivered for some of the accounts in place of Folder, "" for the INBOX
	Changes []FieldChange     // fields of the message, behind the trace fields, that become others; in order
}

// FieldChange replaces a field of a header.
type FieldChange struct {
	Name  string
	Index int    // which of those with the name, from 1 on
	Field string // the whole field with its CRLF; "" removes it
}

// FolderFor gives where a message is delivered for an account.
func (v *Verdict) FolderFor(account string) string {
	if folder, ok := v.Folders[account]; ok {
		return folder
	}
	return v.Folder
}

// Write writes a message as the verdict wants it: with fields in front, and others changed. trace is how many fields this server
// has put in front before, which are not counted as the message's.
func (v *Verdict) Write(w io.Writer, message io.ReaderAt, size int64, trace int) error {
	header, body, err := v.changedHeader(message, size, trace)
	if err == nil {
		_, err = io.WriteString(w, v.Fields+string(header))
	}
	if err == nil {
		_, err = io.Copy(w, io.NewSectionReader(message, body, size-body))
	}
	return err
}

// maxChangedHeader is how many octets a header may have that is changed; a longer one stays as it is.
const maxChangedHeader = 512 << 10

// changedHeader gives the header of a message with its changes, and where the text begins that stays as it is.
func (v *Verdict) changedHeader(message io.ReaderAt, size int64, trace int) (header []byte, body int64, err error) {
	if len(v.Changes) == 0 {
		return nil, 0, nil
	}
	raw, err := readHeader(bufio.NewReader(io.NewSectionReader(message, 0, size)), maxChangedHeader)
	if errors.Is(err, errHeaderTooLong) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	fields := splitHeader(raw)
	for _, h := range fields {
		body += int64(len(h.Raw))
	}
	for _, change := range v.Changes {
		change.apply(fields[min(trace, len(fields)):])
	}
	for _, h := range fields {
		header = append(header, h.Raw...)
	}
	return header, body, nil
}

// apply makes the change; of a field that is not there it makes nothing. The name stays in its place, so that the others keep
// their numbers.
func (c FieldChange) apply(fields []headerField) {
	n := 0
	for i := range fields {
		if !fields[i].Is(c.Name) {
			continue
		}
		if n++; n == max(c.Index, 1) {
			fields[i].Raw = []byte(c.Field)
			return
		}
	}
}
