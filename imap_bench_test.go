package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// benchText is a message as lists of messages have them by the thousand.
func benchText(i int) string {
	return fmt.Sprintf("Return-Path: <ann%[1]d@a.example>\r\nReceived: from mail.a.example by mail.b.example; Thu, 22 Aug 2002 18:26:25 +0700\r\n"+
		"Date: Thu, 22 Aug 2002 18:26:25 +0700\r\nFrom: Ann Example <ann%[1]d@a.example>\r\nTo: Bob Example <bob@b.example>, \"Carol, C.\" <carol@c.example>\r\n"+
		"Subject: Message number %[1]d of many\r\nMessage-ID: <%[1]d.1234567890@a.example>\r\nReferences: <1@a.example> <2@a.example>\r\n"+
		"MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=\"=_bound\"\r\n\r\n"+
		"--=_bound\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello\r\n\r\n--=_bound\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>Hello\r\n\r\n--=_bound--\r\n", i)
}

// startBench starts a session on an INBOX with n messages.
func startBench(b *testing.B, n int) *fetchClient {
	b.Helper()
	c := startFetch(b)
	for i := 0; i < n; i += 500 {
		var batch []AppendMessage
		for j := i; j < min(i+500, n); j++ {
			batch = append(batch, AppendMessage{In: receiveText(b, c.folder.drop, benchText(j))})
		}
		if _, err := c.folder.Append(batch); err != nil {
			b.Fatal(err)
		}
	}
	c.send("NOOP")
	return c
}

// BenchmarkFetch lists 10,000 messages with a warm cache.
func BenchmarkFetch(b *testing.B) {
	c := startBench(b, 10000)
	c.send("UID FETCH 1:* (ENVELOPE)")
	for _, items := range []string{
		"(UID FLAGS)", "(UID FLAGS RFC822.SIZE INTERNALDATE)", "(ENVELOPE)", "(BODYSTRUCTURE)",
		"(UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (From To Cc Bcc Subject Date Message-ID Priority X-Priority References Newsgroups In-Reply-To Content-Type Reply-To)])",
		"(BODY.PEEK[HEADER])", "(BODY.PEEK[])",
	} {
		b.Run(items[:min(len(items), 40)], func(b *testing.B) {
			c.t = b
			b.ReportAllocs()
			for b.Loop() {
				c.drain("FETCH 1:* " + items)
			}
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/10000")
		})
	}
}

// BenchmarkSearch searches 10,000 messages with a warm cache: reading them, and with the text index. What fills it comes
// between.
func BenchmarkSearch(b *testing.B) {
	c := startBench(b, 10000)
	c.send("UID FETCH 1:* (ENVELOPE)")
	search := func(b *testing.B) {
		for _, query := range []string{
			"UNSEEN", "KEYWORD $Work", "SINCE 1-Jan-2020", "SENTSINCE 1-Jan-2003", "SUBJECT 9999", "FROM ann77", "HEADER X-None a",
			"BODY hello", "BODY xyzzy", "TEXT xyzzy", `TEXT "number 77"`,
		} {
			b.Run(query, func(b *testing.B) {
				c.t = b
				b.ReportAllocs()
				for b.Loop() {
					c.drain("SEARCH " + query)
				}
			})
		}
	}
	b.Run("read", search)
	b.Run("fill", func(b *testing.B) {
		for b.Loop() {
			c.folder.index.removeFolder(c.folder.directory())
			fillIndex(c.folder)
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/10000, "µs/message")
	})
	b.Run("indexed", search)
}

// BenchmarkAppend adds messages of 2 KB to one mailbox over some connections at once.
func BenchmarkAppend(b *testing.B) {
	message := strings.TrimSuffix(benchMail, ".\r\n")
	command := fmt.Sprintf("a APPEND INBOX {%d+}\r\n%s\r\n", len(message), message)
	for _, connections := range []int{1, 4} {
		b.Run(fmt.Sprintf("connections=%d", connections), func(b *testing.B) {
			s := transcriptServer(b, &Protocols{})
			clients := make([]*rawClient, connections)
			for i := range clients {
				clients[i] = s.raw(b, "imap")
				clients[i].send("a LOGIN ann@test.lan ann-secret\r\n")
				clients[i].expect("* OK", "a OK")
				clients[i].send(command)
				clients[i].expect("a OK")
			}
			b.ReportAllocs()
			b.ResetTimer()
			atOnce(b.N, connections, func(i int) {
				clients[i].send(command)
				clients[i].expect("a OK")
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// drain sends a command and reads all answers without looking at them.
func (c *fetchClient) drain(text string) {
	c.n++
	tag := fmt.Appendf(nil, "t%d ", c.n)
	if _, err := fmt.Fprintf(c.conn, "%s%s\r\n", tag, text); err != nil {
		c.t.Fatal(err)
	}
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			c.t.Fatal(err)
		}
		if bytes.HasPrefix(line, tag) {
			return
		}
	}
}

// BenchmarkParseMessage reads real mail where there is some, else one message.
func BenchmarkParseMessage(b *testing.B) {
	var texts []string
	for _, file := range corpusFiles(b) {
		text, err := os.ReadFile(file)
		if err != nil {
			b.Fatal(err)
		}
		texts = append(texts, string(withCRLF(text)))
	}
	size := 0
	for _, text := range texts {
		size += len(text)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		for _, text := range texts {
			root, err := parseMessage(strings.NewReader(text))
			if err != nil {
				b.Fatal(err)
			}
			renderStructure(root)
		}
	}
}

// TestFetchMemory fetches and searches a message of 50 MB: that must not take
// more than 2 MiB at any time.
func TestFetchMemory(t *testing.T) {
	const size = 50 << 20
	c := startFetch(t)
	in, err := c.folder.drop.Receive()
	if err != nil {
		t.Fatal(err)
	}
	body := &repeatReader{text: strings.Repeat("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=", 2) + "\r\n", n: size}
	head := "Subject: big\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
	if _, err := io.Copy(in, io.MultiReader(strings.NewReader(head), body)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.folder.Append([]AppendMessage{{In: in}}); err != nil {
		t.Fatal(err)
	}
	c.send("NOOP")
	c.drain("FETCH 1 UID")
	for _, command := range []string{
		"FETCH 1 BODYSTRUCTURE", "FETCH 1 BODY.PEEK[]", "FETCH 1 BODY.PEEK[1]", "FETCH 1 BINARY.PEEK[1]", "FETCH 1 BINARY.SIZE[1]",
		"SEARCH BODY xyzzy", "SEARCH TEXT xyzzy",
	} {
		runtime.GC()
		var before, peak runtime.MemStats
		runtime.ReadMemStats(&before)
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for {
				var now runtime.MemStats
				runtime.ReadMemStats(&now)
				if now.HeapAlloc > peak.HeapAlloc {
					peak = now
				}
				select {
				case <-stop:
					return
				case <-tick.C:
				}
			}
		}()
		c.drain(command)
		close(stop)
		<-done
		if grown := int64(peak.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
			t.Errorf("%s: the heap grew by %d bytes", command, grown)
		}
	}
}
