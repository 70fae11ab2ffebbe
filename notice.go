package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"mime"
	"strings"
	"time"
)

// noticeMessage makes a message of the appliance to one of its people: plain text, with CRLF line ends.
func noticeMessage(hostname, to, subject, text string, now time.Time) []byte {
	var b strings.Builder
	noticeHeader(&b, hostname, to, subject, "auto-generated", now)
	b.WriteString("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n")
	b.WriteString(strings.ReplaceAll(text, "\n", "\r\n"))
	return []byte(b.String())
}

// mailDate is the form of dates in header fields (RFC 5322 §3.3).
const mailDate = "Mon, 2 Jan 2006 15:04:05 -0700"

// noticeHeader writes the fields of such a message up to those of its content. auto is why a program writes (RFC 3834 §5).
func noticeHeader(b io.Writer, hostname, to, subject, auto string, now time.Time) {
	fmt.Fprintf(b, "From: Mail server <postmaster@%s>\r\n", hostname)
	fmt.Fprintf(b, "To: <%s>\r\n", to)
	fmt.Fprintf(b, "Subject: %s\r\n", mime.QEncoding.Encode("utf-8", subject))
	fmt.Fprintf(b, "Date: %s\r\n", now.Format(mailDate))
	fmt.Fprintf(b, "Message-ID: <%s@%s>\r\n", strings.ToLower(rand.Text()), hostname)
	fmt.Fprintf(b, "Auto-Submitted: %s\r\nMIME-Version: 1.0\r\n", auto)
}
