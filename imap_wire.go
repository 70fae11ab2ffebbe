package main

// The wire of IMAP: replies and what is written to the client. imap_parse.go reads what the client sends.
//
// How a verb looks. The table imapVerbs (imap.go) names a method of the form
//
//	func (s *imapSession) fetch(cmd *imapCommand) error
//
// cmd is the parser, positioned behind the verb: a verb with arguments begins with cmd.sp() and ends its parsing with
// cmd.end(). cmd.uid says that the verb came behind UID. The parser's errors are ready replies (BAD, saying what was
// expected and where); a verb returns them as they are. A verb returns
//
//	nil            tag OK VERB completed
//	*imapReply     tag OK/NO/BAD with the reply's code and text: imapOK, imapNo, imapBad
//	another error  logged, and tag NO [SERVERBUG]; store errors are translated (ErrNoFolder, ErrDiskFull …)
//
// Arguments are strings of Go: they stay valid; nothing of the line is referred to.
//
// What a verb on messages uses:
//
//	cmd.numSet(cmd.uid)      parses a sequence set, UID set or "$"
//	s.resolve(set)           its UIDs in the session's view, ascending; BAD for numbers beyond the end
//	s.seq(uid)               sequence number in the view, 0 when it is not there
//	s.view, s.view.Folder()  never nil in the selected state
//	s.appendFlags(dst, m)    `(\Seen \Recent)`: with \Recent where the session speaks rev1
//	s.saved                  the result of SEARCH RETURN (SAVE), ascending
//	s.rev2, s.utf8, s.condstore, s.enableCondstore()
//	s.permitted(need), s.may(need)  rights in the selected mailbox (imap_acl.go)
//
// A verb on a mailbox by its name opens it with s.open(name, need), or finds its maildrop with s.locate(name).
//
// Writing: append-style functions (appendString, appendNString, appendQuoted, appendLiteral, appendMailbox) build wire form
// in a byte slice, which s.write puts into the connection's buffer; a body is streamed with s.c.Writer() behind
// s.write(appendLiteralHeader(…)). Nothing is flushed by a verb: that happens before the session waits for input, so that
// the replies to pipelined commands leave together. The buffered writer keeps its first error, so writes are not checked
// one by one.

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
)

// imapReply is a tagged status response (RFC 9051 §7.1). As an error it carries what the client is told.
type imapReply struct {
	status string // "OK", "NO" or "BAD"
	code   string // response code without brackets, "" for none
	text   string // one plain sentence; may go to the user
}

// Error gives the reply as it goes behind the tag.
func (r *imapReply) Error() string {
	if r.code == "" {
		return r.status + " " + r.text
	}
	return r.status + " [" + r.code + "] " + r.text
}

// imapOK is a success that has a response code or a text of its own.
func imapOK(code, text string) *imapReply { return &imapReply{"OK", code, text} }

// imapNo is a failure; code may be "".
func imapNo(code, text string) *imapReply { return &imapReply{"NO", code, text} }

// imapBad is a protocol error of the client. The text is made plain ASCII, whatever the arguments hold.
func imapBad(format string, args ...any) *imapReply {
	return &imapReply{"BAD", "", imapText(fmt.Sprintf(format, args...))}
}

// imapText makes a string fit for resp-text: printable ASCII on one line.
func imapText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, s)
}

// appendQuoted appends a quoted string (RFC 9051 §4.3). The caller knows that s has neither CR, LF nor NUL.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, s[i])
	}
	return append(dst, '"')
}

// appendString appends a string: quoted where that is clean, else a literal. With utf8Quoted, which only sessions in
// IMAP4rev2 or UTF8=ACCEPT may have, UTF-8 counts as clean (RFC 9051 §4.3, RFC 6855 §3). NUL bytes, which no string may
// have, become "?".
func appendString(dst []byte, s string, utf8Quoted bool) []byte {
	if quotable(s, utf8Quoted) {
		return appendQuoted(dst, s)
	}
	return appendLiteral(dst, s)
}

// appendNString appends NIL for the empty string, else the string.
func appendNString(dst []byte, s string, utf8Quoted bool) []byte {
	if s == "" {
		return append(dst, "NIL"...)
	}
	return appendString(dst, s, utf8Quoted)
}

// quotable says whether a string may be sent as a quoted string; long ones are better off as literals.
func quotable(s string, utf8Quoted bool) bool {
	if len(s) > 1000 {
		return false
	}
	ascii := true
	for i := range len(s) {
		switch {
		case s[i] == 0 || s[i] == '\r' || s[i] == '\n':
			return false
		case s[i] >= 0x80:
			ascii = false
		}
	}
	return ascii || utf8Quoted && utf8.ValidString(s)
}

// appendLiteral appends a literal.
func appendLiteral(dst []byte, s string) []byte {
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "?")
	}
	dst = appendLiteralHeader(dst, int64(len(s)), false)
	return append(dst, s...)
}

// appendLiteralHeader appends {n} CRLF, or ~{n} CRLF for a literal8 (RFC 9051 §4.3), which may have NUL bytes. The n
// bytes must follow.
func appendLiteralHeader(dst []byte, n int64, binary bool) []byte {
	if binary {
		dst = append(dst, '~')
	}
	dst = append(dst, '{')
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, "}\r\n"...)
}

// appendMailbox appends a mailbox name as the session speaks it: UTF-8, or modified UTF-7 (RFC 3501 §5.1.3). It is quoted
// always, so that no name is taken for NIL.
func appendMailbox(dst []byte, name string, utf8Names bool) []byte {
	if !utf8Names {
		name = encodeMUTF7(name)
	}
	return appendString(dst, name, utf8Names)
}

// appendUIDs appends UIDs as a set that keeps their order, as COPYUID wants it (RFC 9051 §7.1): 1:4,7. Only what ascends
// without a gap becomes a range.
func appendUIDs(dst []byte, uids []imap.UID) []byte {
	for i := 0; i < len(uids); {
		j := i
		for j+1 < len(uids) && uids[j+1] == uids[j]+1 {
			j++
		}
		dst = appendRange(dst, i > 0, uint32(uids[i]), uint32(uids[j]))
		i = j + 1
	}
	return dst
}

// appendSeqs is appendUIDs for sequence numbers.
func appendSeqs(dst []byte, seqs []uint32) []byte {
	for i := 0; i < len(seqs); {
		j := i
		for j+1 < len(seqs) && seqs[j+1] == seqs[j]+1 {
			j++
		}
		dst = appendRange(dst, i > 0, seqs[i], seqs[j])
		i = j + 1
	}
	return dst
}

// appendRange appends one range of a set.
func appendRange(dst []byte, comma bool, lo, hi uint32) []byte {
	if comma {
		dst = append(dst, ',')
	}
	dst = strconv.AppendUint(dst, uint64(lo), 10)
	if hi != lo {
		dst = append(dst, ':')
		dst = strconv.AppendUint(dst, uint64(hi), 10)
	}
	return dst
}
