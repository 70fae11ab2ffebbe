package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Real mail goes in by SMTP, by DATA and by BDAT, and comes out by POP3 as it was
// but for line ends and trace fields.
func TestRealMailBySMTPAndPOP3(t *testing.T) {
	files, err := filepath.Glob("../shared/corpus/*/*.eml")
	if err != nil || len(files) == 0 {
		t.Skip("no real mail in ../shared/corpus")
	}
	if testing.Short() {
		files = files[:min(len(files), 100)]
	}
	want := make([]string, len(files))
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want[i] = strings.NewReplacer("\r\n", "\r\n", "\r", "\r\n", "\n", "\r\n").Replace(string(text))
	}
	s := transcriptServer(t, &Protocols{})
	var senders sync.WaitGroup
	for part := range slices.Chunk(want, (len(want)+3)/4) {
		senders.Go(func() { sendAll(t, s, part) })
	}
	senders.Wait()
	if t.Failed() {
		t.FailNow()
	}
	sent := map[string]int{}
	for _, text := range want {
		if !strings.HasSuffix(text, "\r\n") {
			text += "\r\n"
		}
		sent[text]++
	}
	c := s.pop3Login(t)
	for i := range want {
		fmt.Fprintf(c, "RETR %d\r\n", i+1)
		_, text := c.multi()
		sent[withoutTrace(t, text)]--
	}
	wrong := 0
	for text, n := range sent {
		if n != 0 {
			if wrong++; wrong < 5 {
				t.Errorf("%+d of %.300q", n, text)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d differ", wrong)
	}
}

// sendAll sends messages over one connection, in turn by DATA and in chunks.
func sendAll(t *testing.T, s *portServer, messages []string) {
	c := s.raw(t, "smtp")
	say := func(text, want string) bool {
		if _, err := io.WriteString(c, text); err != nil {
			t.Error(err)
			return false
		}
		line, err := c.r.ReadString('\n')
		for err == nil && strings.HasPrefix(line, "250-") {
			line, err = c.r.ReadString('\n')
		}
		if err != nil || !strings.HasPrefix(line, want) {
			t.Errorf("got %q, %v", line, err)
			return false
		}
		return true
	}
	if !say("", "220 ") || !say("EHLO a\r\n", "250 ") {
		return
	}
	for i, text := range messages {
		if !strings.HasSuffix(text, "\r\n") {
			text += "\r\n"
		}
		ok := say("MAIL FROM:<x@example.org>\r\n", "250 ") && say("RCPT TO:<ann@test.lan>\r\n", "250 ")
		if i%2 == 0 {
			stuffed := strings.ReplaceAll("\r\n"+text, "\r\n.", "\r\n..")[2:]
			ok = ok && say("DATA\r\n", "354 ") && say(stuffed+".\r\n", "250 ")
		} else {
			half := len(text) / 2
			ok = ok && say(fmt.Sprintf("BDAT %d\r\n%s", half, text[:half]), "250 ")
			ok = ok && say(fmt.Sprintf("BDAT %d LAST\r\n%s", len(text)-half, text[half:]), "250 ")
		}
		if !ok {
			return
		}
	}
}
