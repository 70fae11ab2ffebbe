package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// fill writes messages that look like real ones: some thirty lines of header, a third with parts. The Maildir gets no index
// of any server and no UIDs. message gives the text of the i-th.
func fill(dir string, n int, message func(i int) string) error {
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	for i := range n {
		text := message(i)
		name := fmt.Sprintf("%d.M%06dP1Q%d.bench,S=%d,W=%d:2,", 1600000000+i*60, i%1000000, i, len(text), len(text))
		if err := os.WriteFile(filepath.Join(dir, "cur", name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// sample is the i-th message, with CRLF line ends, some 2 to 6 KB.
func sample(i int) string {
	var b strings.Builder
	for hop := range 4 {
		fmt.Fprintf(&b, "Received: from mx%d.example.net (mx%d.example.net [192.0.2.%d])\n\tby relay%d.example.org with ESMTPS id %08x\n\tfor <user@example.org>; Mon, 2 Nov 2026 10:%02d:%02d +0000\n", hop, hop, i%250, hop, i*7+hop, i%60, hop)
	}
	fmt.Fprintf(&b, "Date: Mon, 2 Nov 2026 10:%02d:00 +0000\nFrom: \"Person %d\" <person%d@example.com>\nTo: User <user@example.org>, \"Second, One\" <second@example.org>\nCc: list%d@lists.example.net\n", i%60, i%500, i%500, i%20)
	fmt.Fprintf(&b, "Subject: Message %d about the budget of project %d\nMessage-ID: <%d.bench@example.com>\nReferences: <%d.bench@example.com> <%d.bench@example.com>\nMIME-Version: 1.0\nX-Mailer: Bench 1.0\nList-Id: <list%d.lists.example.net>\n", i, i%37, i, i-1, i-2, i%20)
	words := []string{"meeting", "invoice", "garden", "holiday", "server", "budget", "letter", "report", "window", "picture"}
	var body strings.Builder
	for line := range 20 + i%40 {
		for w := range 10 {
			body.WriteString(words[(i*3+line*7+w*w)%len(words)] + " ")
		}
		body.WriteByte('\n')
	}
	if i%3 != 0 {
		b.WriteString("Content-Type: text/plain; charset=utf-8\n\n" + body.String())
	} else {
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=\"b%d\"\n\n--b%d\nContent-Type: multipart/alternative; boundary=a\n\n--a\nContent-Type: text/plain\n\n%s\n--a\nContent-Type: text/html\n\n<p>%s</p>\n--a--\n--b%d\nContent-Type: application/pdf; name=\"f%d.pdf\"\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment; filename=\"f%d.pdf\"\n\n%s--b%d--\n",
			i, i, body.String(), body.String(), i, i, i, strings.Repeat("JVBERi0xLjQKJcOkw7zDtsOfCjIgMCBvYmoKPDwvTGVuZ3RoIDMgMCBSL0ZpbHRlci9GbGF0ZURl\n", 10), i)
	}
	return strings.ReplaceAll(b.String(), "\n", "\r\n")
}

// smallMessage is the message that is delivered by SMTP: 2 KB (2,048 bytes).
func smallMessage() string {
	head := "From: <bench@example.com>\r\nTo: <user@example.org>\r\nDate: Mon, 2 Nov 2026 10:00:00 +0000\r\nMessage-ID: <small.bench@example.com>\r\nSubject: A small message\r\n\r\n"
	line := "The meeting about the budget of the garden is on Monday, bring the letters.\r\n"
	lines := (2048 - len(head)) / len(line)
	rest := 2048 - len(head) - lines*len(line)
	return head + strings.Repeat(line, lines) + strings.Repeat("x", rest-2) + "\r\n"
}
