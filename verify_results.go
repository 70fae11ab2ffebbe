package main

import (
	"bytes"
	"strings"

	"github.com/emersion/go-msgauth/authres"
)

// resultsField writes an Authentication-Results field, a line for each result (RFC 8601 §2.2).
func resultsField(host string, results []authres.Result) string {
	var b strings.Builder
	b.WriteString("Authentication-Results: " + host)
	for _, r := range results {
		// The library gives "HOST; METHOD=RESULT …"; what it does not do is to fold.
		b.WriteString(";\r\n\t" + strings.TrimSpace(strings.TrimPrefix(authres.Format("", []authres.Result{r}), ";")))
	}
	return b.String() + "\r\n"
}

// maxResultText is how many octets of what a sender wrote are repeated in a field.
const maxResultText = 255

// resultText makes text of a message or the DNS fit for a field: one line without quotes and backslashes, and without the
// semicolons at which simple readers split even quoted text.
func resultText(s string) string {
	s = strings.ToValidUTF8(strings.TrimSpace(s), "?")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '"' || r == '\\' || r == ';' {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxResultText {
		return strings.ToValidUTF8(s[:maxResultText], "")
	}
	return s
}

// claimsResults says whether an Authentication-Results field, whole with its name, claims to be written by host: its
// authserv-id is host in any case, quoted or not, behind comments or not, or broken up by white space (RFC 8601 §2.2, §5).
// A field in which no id can be read claims it too, as who knows what others read in it.
func claimsResults(field []byte, host string) bool {
	_, value, _ := bytes.Cut(field, []byte{':'})
	scan := fieldScanner{s: string(unfold(value))}
	scan.skipSpace()
	first := scan.word()
	whole := first
	for scan.skipSpace(); scan.peek() != 0 && scan.peek() != ';'; scan.skipSpace() {
		word := scan.word()
		if word == "" { // a special that has no business here
			whole += string(scan.peek())
			scan.i++
		}
		whole += word
	}
	host = normalDomain(host)
	rest, ours := strings.CutPrefix(normalDomain(whole), host)
	version := strings.Trim(rest, "0123456789") == "" // the version behind the id
	return first == "" || normalDomain(strings.TrimSpace(first)) == host || ours && version
}

// word reads a token or a quoted string.
func (s *fieldScanner) word() string {
	if s.peek() == '"' {
		return s.quoted()
	}
	return s.token()
}
