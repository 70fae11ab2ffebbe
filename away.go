package main

// Out-of-office notes: RFC 3834, Recommendations for Automatic Responses to Electronic Mail. Who gets none is decided by the
// reverse-path and the header alone; away_memory.go knows who has had one.

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"slices"
	"strings"
)

const (
	awayPerHour = 30  // answers for one person within an hour
	awayWaiting = 200 // messages whose answers are still to be written; of more than that some get none
	awayThread  = 900 // octets of the References field of an answer
)

// awayJob is a message that may be answered: it has been delivered.
type awayJob struct {
	account string
	sender  Address // the reverse-path
	header  []headerField
}

// mayAnswer says whether a program may answer a message at all, by where it comes from and what its header says (RFC 3834 §2,
// and what lists and robots of before it say of themselves).
func mayAnswer(sender Address, header []headerField) bool {
	if isRobot(sender.Local) {
		return false
	}
	for _, field := range header {
		if saysRobot(strings.ToLower(field.Name), field) {
			return false
		}
	}
	return true
}

// saysRobot says whether a field, whose name is given in lower case, keeps programs from answering.
func saysRobot(name string, field headerField) bool {
	value := func() string { return strings.ToLower(field.Value()) }
	word := func() string { // the first word: a comment or parameters may follow (RFC 3834 §5)
		word, _, _ := strings.Cut(value(), ";")
		word, _, _ = strings.Cut(strings.TrimSpace(word), " ")
		return word
	}
	switch name {
	case "auto-submitted":
		return word() != "no"
	case "precedence":
		return slices.Contains([]string{"bulk", "list", "junk", "auto_reply"}, word())
	case "x-auto-response-suppress":
		return slices.ContainsFunc(strings.FieldsFunc(value(), func(r rune) bool { return r == ',' || r == ' ' }), func(w string) bool {
			return w == "all" || w == "oof" || w == "autoreply"
		})
	case "x-autoreply", "x-autorespond", "x-loop", "x-mailing-list", "mailing-list", "feedback-id":
		return true
	case "content-type":
		return strings.HasPrefix(value(), "multipart/report")
	}
	return strings.HasPrefix(name, "list-")
}

// isRobot says whether a local part is one of those behind which there is a program (RFC 3834 §2, RFC 2142 §6).
func isRobot(local string) bool {
	local = strings.ToLower(local)
	plain := strings.NewReplacer("-", "", "_", "", ".", "").Replace(local)
	for _, name := range []string{"noreply", "donotreply", "mailerdaemon", "bounce", "autoreply", "autoresponder", "listserv", "majordomo", "mailman"} {
		if strings.HasPrefix(plain, name) {
			return true
		}
	}
	for _, end := range []string{"-request", "-owner", "-bounces", "-bounce", "-noreply", "-no-reply", ".noreply"} {
		if strings.HasSuffix(local, end) {
			return true
		}
	}
	return strings.HasPrefix(local, "owner-")
}

// isRole says whether an address is that of an office, and not of a person.
func isRole(a Address) bool {
	local, _, _ := strings.Cut(strings.ToLower(a.Local), "+")
	return slices.Contains([]string{"postmaster", "abuse", "root", "hostmaster", "webmaster"}, local)
}

// writtenTo gives the address of the person that a message names as one of its recipients (RFC 3834 §2, where others are
// not answered: it may be a list, or a blind copy). One that reaches others, too, is not the person's.
func (r *Rules) writtenTo(account string, header []headerField) (Address, bool) {
	for _, name := range []string{"To", "Cc", "Resent-To", "Resent-Cc"} {
		list, _ := addressesOf(header, name)
		for _, a := range list {
			if !isRole(a) && r.cfg.Accounts.Alone(account, a) {
				return a, true
			}
		}
	}
	return Address{}, false
}

// noteFor gives the note that is sent for a person now, nil for none.
func (r *Rules) noteFor(account string) *AwayNote {
	note := r.cfg.Accounts.Away(account)
	if note == nil || !note.Active(r.cfg.Now(), r.cfg.Zone()) {
		return nil
	}
	return note
}

// answer answers a message, unless it gets none. A failure is logged: the message has been delivered.
func (r *Rules) answer(job awayJob) {
	note := r.noteFor(job.account)
	if note == nil || !mayAnswer(job.sender, job.header) || r.cfg.Accounts.Owns(job.account, job.sender) {
		return
	}
	written, ok := r.writtenTo(job.account, job.header)
	if !ok || !r.answers.Take(senderOf(job.account)) {
		return
	}
	first, err := r.cfg.Answered.take(job.account, job.sender.Key(), r.cfg.Now())
	if first && err == nil {
		err = r.send(queueAddress(job.sender), r.awayMessage(note, &job, written))
	}
	if !first {
		r.answers.GiveBack(Identity{Account: job.account}, 1)
	}
	switch {
	case errors.Is(err, errAwayFull):
		r.cfg.Log.Warn("no out-of-office note was sent", "account", job.account, "reason", err.Error())
	case err != nil:
		r.cfg.Log.Error("an out-of-office note could not be sent", "account", job.account, "error", err)
	case first:
		r.cfg.Log.Info("answered", "account", job.account, "to", job.sender.String())
	}
}

// send puts a message with the null reverse-path into the queue (RFC 3834 §3.3: nobody answers it).
func (r *Rules) send(to string, message []byte) error {
	in, err := r.cfg.Store.Receive(r.cfg.Queue.TmpDir())
	if err != nil {
		return err
	}
	defer in.Discard()
	if _, err := in.Write(message); err != nil {
		return err
	}
	header, _, _ := bytes.Cut(message, []byte("\r\n\r\n"))
	_, err = r.cfg.Queue.Submit(in, &Envelope{Recipients: []Recipient{{Address: to, Notify: NotifyNever}}, UTF8: !isASCII([]byte(to)) || !isASCII(header)})
	return err
}

// awayMessage writes an answer (RFC 3834 §3.1).
func (r *Rules) awayMessage(note *AwayNote, job *awayJob, from Address) []byte {
	var b bytes.Buffer
	field := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	field("From", (&mail.Address{Name: r.cfg.Accounts.Name(job.account), Address: from.String()}).String())
	field("To", "<"+job.sender.String()+">")
	field("Subject", mime.QEncoding.Encode("utf-8", "Auto: "+note.subject(job.header)))
	field("Date", r.cfg.Now().Format(mailDate))
	field("Message-ID", "<"+strings.ToLower(rand.Text())+"@"+from.Domain+">")
	if id, thread := threadOf(job.header); id != "" {
		field("In-Reply-To", id)
		field("References", thread)
	}
	field("Auto-Submitted", "auto-replied")
	field("X-Auto-Response-Suppress", "All") // what Exchange knows in the place of Auto-Submitted
	field("MIME-Version", "1.0")
	field("Content-Type", "text/plain; charset=utf-8")
	field("Content-Transfer-Encoding", "quoted-printable")
	b.WriteString("\r\n")
	text := quotedprintable.NewWriter(&b)
	_, _ = io.WriteString(text, note.Text+"\n") // to memory; it makes CRLF of the line ends
	_ = text.Close()
	return b.Bytes()
}

// subject gives the subject of an answer, behind its "Auto: " (RFC 3834 §3.1.5).
func (n *AwayNote) subject(header []headerField) string {
	if n.Subject != "" {
		return n.Subject
	}
	field, _ := findField(header, "Subject")
	return clip(strings.Join(strings.Fields(decodeHeaderText(field.Value())), " "), maxAwaySubject)
}

// threadOf gives the Message-ID that is answered and the References of the answer (RFC 5322 §3.6.4), "" where there is none
// that can be given back.
func threadOf(header []headerField) (id, references string) {
	ids := func(name string) []string {
		field, _ := findField(header, name)
		return slices.DeleteFunc(strings.Fields(field.Value()), func(id string) bool { return !isMessageID(id) })
	}
	own := ids("Message-ID")
	if len(own) != 1 {
		return "", ""
	}
	before := ids("References")
	if len(before) == 0 {
		before = ids("In-Reply-To")
	}
	thread := append(before, own[0])
	for size := func() int { return len(strings.Join(thread, "\r\n ")) }; len(thread) > 2 && size() > awayThread; {
		thread = slices.Delete(thread, 1, 2) // the first one and the last ones hold a thread together
	}
	if len(thread) == 2 && len(thread[0])+len(thread[1]) > awayThread {
		thread = thread[1:]
	}
	return own[0], strings.Join(thread, "\r\n ")
}

// isMessageID says whether a word is a Message-ID of a length that nothing breaks at.
func isMessageID(s string) bool {
	return len(s) > 2 && len(s) <= 250 && s[0] == '<' && s[len(s)-1] == '>' && isPrintable(s) && !strings.ContainsAny(s[1:len(s)-1], "<>")
}
