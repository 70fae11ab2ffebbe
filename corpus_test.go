package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// corpusDir holds real mail, one message a file; it is not part of the project.
const corpusDir = "../shared/corpus"

// corpusFiles gives the paths of the real mail, or skips the test.
func corpusFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(corpusDir, "*", "*.eml"))
	if err != nil || len(files) == 0 {
		t.Skip("no real mail in " + corpusDir)
	}
	return files
}

// withCRLF makes every line end CRLF, as the store does for its readers.
func withCRLF(b []byte) []byte {
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
}

// asReceived is what SMTP makes of a message's line ends: bare CR and bare LF become CRLF.
func asReceived(msg []byte) []byte {
	var out []byte
	for i := 0; i < len(msg); i++ {
		switch c := msg[i]; {
		case c == '\r':
			out = append(out, '\r', '\n')
			if i+1 < len(msg) && msg[i+1] == '\n' {
				i++
			}
		case c == '\n':
			out = append(out, '\r', '\n')
		default:
			out = append(out, c)
		}
	}
	if !bytes.HasSuffix(out, []byte("\r\n")) {
		out = append(out, '\r', '\n')
	}
	return out
}

// corpusHouse is an appliance that runs as its user would run it.
type corpusHouse struct {
	t      testing.TB
	data   string
	offset int
	stop   context.CancelFunc
	exit   chan int
	out    bytes.Buffer
}

func startCorpusHouse(t testing.TB, data string, offset int) *corpusHouse {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h := &corpusHouse{t: t, data: data, offset: offset, stop: cancel, exit: make(chan int, 1)}
	go func() {
		h.exit <- run(ctx, []string{"run", "--data", data, "--listen", "127.0.0.1", "--port-offset", fmt.Sprint(offset), "--hostname", "mail.test.lan"}, strings.NewReader(""), &h.out, io.Discard)
	}()
	deadline := time.Now().Add(20 * time.Second)
	for {
		c, err := net.Dial("tcp", h.addr(143))
		if err == nil {
			c.Close()
			return h
		}
		select {
		case code := <-h.exit:
			t.Fatalf("the appliance ended with %d:\n%s", code, h.out.String())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("the appliance does not answer")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (h *corpusHouse) addr(port int) string { return fmt.Sprintf("127.0.0.1:%d", port+h.offset) }

func (h *corpusHouse) close() {
	h.t.Helper()
	h.stop()
	select {
	case code := <-h.exit:
		if code != 0 {
			h.t.Errorf("the appliance ended with %d:\n%s", code, h.out.String())
		}
	case <-time.After(20 * time.Second):
		h.t.Fatal("the appliance does not end")
	}
}

// corpusUser makes an account by the command line.
func corpusUser(t testing.TB, data, address, password string) {
	t.Helper()
	var errs bytes.Buffer
	if code := run(t.Context(), []string{"user", "add", address, "--password-stdin", "--data", data}, strings.NewReader(password+"\n"), io.Discard, &errs); code != 0 {
		t.Fatalf("user add: %d %s", code, errs.String())
	}
}

// lineConn is a plain client of a line protocol.
type lineConn struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func (c *lineConn) line() string {
	c.t.Helper()
	s, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("reading a reply: %v", err)
	}
	return strings.TrimRight(s, "\r\n")
}

func (c *lineConn) want(prefix string) string {
	c.t.Helper()
	s := c.line()
	for len(s) > 3 && s[3] == '-' && prefix != "+OK" {
		s = c.line()
	}
	if !strings.HasPrefix(s, prefix) {
		c.t.Fatalf("reply %q, want %s", s, prefix)
	}
	return s
}

func (c *lineConn) send(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c, line+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
}

func (h *corpusHouse) dial(port int, encrypted bool) *lineConn {
	h.t.Helper()
	var c net.Conn
	var err error
	if encrypted {
		c, err = tls.Dial("tcp", h.addr(port), &tls.Config{InsecureSkipVerify: true})
	} else {
		c, err = net.Dial("tcp", h.addr(port))
	}
	if err != nil {
		h.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	return &lineConn{h.t, c, bufio.NewReader(c)}
}

// sendAll gives the messages to port 25 on one connection.
func (h *corpusHouse) sendAll(msgs [][]byte) {
	h.t.Helper()
	c := h.dial(25, false)
	defer c.Close()
	c.want("220")
	c.send("EHLO client.test.lan")
	c.want("250 ")
	for _, msg := range msgs {
		c.send("MAIL FROM:<ann@test.lan>")
		c.send("RCPT TO:<bob@test.lan>")
		c.send("DATA")
		c.want("250")
		c.want("250")
		c.want("354")
		stuffed := bytes.ReplaceAll(append([]byte("\r\n"), msg...), []byte("\r\n."), []byte("\r\n.."))[2:]
		c.Write(stuffed)
		c.send(".")
		c.want("250")
	}
	c.send("QUIT")
	c.want("221")
}

func (h *corpusHouse) imap(user, password string) *imapclient.Client {
	h.t.Helper()
	c, err := imapclient.DialTLS(h.addr(993), &imapclient.Options{TLSConfig: &tls.Config{InsecureSkipVerify: true}})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := c.Login(user, password).Wait(); err != nil {
		h.t.Fatal(err)
	}
	return c
}

// isTraced takes the added trace fields off and checks that they are only those.
func isTraced(t testing.TB, got, want []byte) bool {
	head, ok := bytes.CutSuffix(got, want)
	return ok && bytes.HasPrefix(head, []byte("Return-Path: <ann@test.lan>\r\nReceived: from ")) && bytes.HasSuffix(head, []byte("\r\n"))
}

// folderStates describes all folders: name, UIDVALIDITY, and UID and flags of every message.
func folderStates(t testing.TB, c *imapclient.Client) string {
	t.Helper()
	list, err := c.List("", "*", nil).Collect()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, l := range list {
		if slices.Contains(l.Attrs, imap.MailboxAttrNonExistent) {
			continue
		}
		sel, err := c.Select(l.Mailbox, &imap.SelectOptions{ReadOnly: true}).Wait()
		if err != nil {
			t.Fatal(l.Mailbox, err)
		}
		fmt.Fprintf(&out, "%s %d\n", l.Mailbox, sel.UIDValidity)
		if sel.NumMessages == 0 {
			continue
		}
		msgs, err := c.Fetch(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{UID: true, Flags: true, RFC822Size: true, InternalDate: true}).Collect()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range msgs {
			flags := slices.DeleteFunc(m.Flags, func(f imap.Flag) bool { return f == `\Recent` })
			slices.Sort(flags)
			fmt.Fprintf(&out, "%d %v %d %s\n", m.UID, flags, m.RFC822Size, m.InternalDate)
		}
	}
	return out.String()
}

func (h *corpusHouse) pop3() *lineConn {
	h.t.Helper()
	c := h.dial(995, true)
	c.want("+OK")
	c.send("USER bob")
	c.want("+OK")
	c.send("PASS bob-secret-9")
	c.want("+OK")
	return c
}

func (c *lineConn) multiline() []byte {
	c.t.Helper()
	var out bytes.Buffer
	for {
		line, err := c.r.ReadBytes('\n')
		if err != nil {
			c.t.Fatal(err)
		}
		if string(line) == ".\r\n" {
			return out.Bytes()
		}
		if line[0] == '.' {
			line = line[1:]
		}
		out.Write(line)
	}
}

func (h *corpusHouse) uidl() string {
	c := h.pop3()
	defer c.Close()
	c.send("UIDL")
	c.want("+OK")
	list := string(c.multiline())
	c.send("QUIT")
	c.want("+OK")
	return list
}

// TestCorpus sends real mail through the whole appliance and reads it by IMAP and POP3; then flags, copies, moves and
// removals must survive a restart and the loss of the index.
func TestCorpus(t *testing.T) {
	var msgs [][]byte
	for _, file := range corpusFiles(t) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		msgs = append(msgs, asReceived(data))
	}
	data := t.TempDir()
	offset := freeOffset(t)
	corpusUser(t, data, "ann@test.lan", "ann-secret-9")
	corpusUser(t, data, "bob@test.lan", "bob-secret-9")
	h := startCorpusHouse(t, data, offset)
	h.sendAll(msgs)

	c := h.imap("bob@test.lan", "bob-secret-9")
	sel, err := c.Select("INBOX", nil).Wait()
	if err != nil || int(sel.NumMessages) != len(msgs) {
		t.Fatalf("%d messages sent, INBOX has %+v %v", len(msgs), sel, err)
	}
	section := &imap.FetchItemBodySection{Peek: true}
	fetched, err := c.Fetch(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{UID: true, RFC822Size: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	stored := make([][]byte, len(msgs))
	for i, m := range fetched {
		stored[i] = m.FindBodySection(section)
		if !isTraced(t, stored[i], msgs[i]) || int64(len(stored[i])) != m.RFC822Size {
			t.Fatalf("message %d by IMAP is not what was sent: %d bytes sent, %d came, size %d", i, len(msgs[i]), len(stored[i]), m.RFC822Size)
		}
	}
	c.Logout().Wait()
	p := h.pop3()
	for i := range msgs {
		p.send(fmt.Sprintf("RETR %d", i+1))
		p.want("+OK")
		if got := p.multiline(); !bytes.Equal(got, stored[i]) {
			t.Fatalf("message %d by POP3 is not what IMAP gave", i)
		}
	}
	p.send("RSET")
	p.want("+OK")
	p.send("QUIT")
	p.want("+OK")
	p.Close()

	c = h.imap("bob", "bob-secret-9")
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Store(imap.SeqSet{{Start: 1, Stop: 200}}, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagFlagged, "$Work"}}, nil).Close())
	must(c.Store(imap.SeqSet{{Start: 100, Stop: 150}}, &imap.StoreFlags{Op: imap.StoreFlagsDel, Flags: []imap.Flag{imap.FlagSeen}}, nil).Close())
	must(c.Create("Projects/2026", nil).Wait())
	_, err = c.Copy(imap.SeqSet{{Start: 1, Stop: 300}}, "Projects/2026").Wait()
	must(err)
	_, err = c.Move(imap.SeqSet{{Start: 301, Stop: 320}}, "Archive").Wait()
	must(err)
	must(c.Store(imap.SeqSet{{Start: 5, Stop: 9}}, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close())
	must(c.Expunge().Close())
	must(c.Rename("Projects/2026", "Projects/Old", nil).Wait())
	before := folderStates(t, c)
	c.Logout().Wait()
	uidl := h.uidl()
	h.close()

	check := func(when string) {
		t.Helper()
		h = startCorpusHouse(t, data, offset)
		defer h.close()
		c := h.imap("bob@test.lan", "bob-secret-9")
		if after := folderStates(t, c); after != before {
			t.Errorf("%s: folders, UIDs or flags differ: %s", when, differingLine(before, after))
		}
		c.Logout().Wait()
		if after := h.uidl(); after != uidl {
			t.Errorf("%s: UIDLs differ: %s", when, differingLine(uidl, after))
		}
	}
	check("after a restart")
	must(os.RemoveAll(filepath.Join(data, "index")))
	check("with the index deleted")
	check("after another restart")
}

func differingLine(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("line %d: %q became %q", i+1, x[i], y[i])
		}
	}
	return fmt.Sprintf("%d lines became %d", len(x), len(y))
}
