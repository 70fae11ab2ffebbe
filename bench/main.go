// Command bench gives any IMAP, POP3 and SMTP server at an address the same work and prints how long each piece took, one
// "NAME SECONDS" a line. compare.sh sets the appliance beside Debian's Dovecot with it.
//
//	bench fill DIR N          write N messages into the Maildir DIR
//	bench run -imap ADDR …    do the work
//	bench table OURS THEIRS   print two results of run side by side, with the ratio
package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func command(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "fill":
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return fmt.Errorf("%q is no number of messages", args[2])
		}
		return fill(args[1], n)
	case len(args) > 1 && args[0] == "run":
		return runWork(args[1:])
	case len(args) == 3 && args[0] == "table":
		return table(args[1], args[2])
	}
	return fmt.Errorf("usage: bench fill DIR N | bench run -imap ADDR -user U -password P [-pop3 ADDR] [-smtp ADDR -to RCPT] | bench table OURS THEIRS")
}

// fill writes messages that look like real ones: some thirty header fields' worth of bytes, a third with parts.
func fill(dir string, n int) error {
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	for i := range n {
		text := sample(i)
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

// table prints two results side by side.
func table(ours, theirs string) error {
	a, order, err := results(ours)
	if err != nil {
		return err
	}
	b, _, err := results(theirs)
	if err != nil {
		return err
	}
	fmt.Printf("| work | appliance | other | ratio |\n|---|---|---|---|\n")
	for _, name := range order {
		if other, ok := b[name]; ok && other > 0 {
			fmt.Printf("| %s | %.4g | %.4g | %.2f |\n", strings.ReplaceAll(name, "_", " "), a[name], other, a[name]/other)
		}
	}
	return nil
}

func results(path string) (map[string]float64, []string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	values := map[string]float64{}
	var order []string
	for in := bufio.NewScanner(f); in.Scan(); {
		name, value, ok := strings.Cut(in.Text(), " ")
		v, err := strconv.ParseFloat(value, 64)
		if !ok || err != nil {
			continue
		}
		values[name] = v
		order = append(order, name)
	}
	return values, order, nil
}
