package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestSMTPVerdict has fields put in front and changed, in messages that are short and that are long, and gives each of two
// people a folder of their own.
func TestSMTPVerdict(t *testing.T) {
	verdict := Verdict{Fields: "X-Front: 1\r\n", Folders: map[string]string{"bob@test.lan": "Junk"}}
	s := transcriptServer(t, &Protocols{Judge: func(_ context.Context, m *ReceivedMail) (Verdict, error) {
		if _, err := io.Copy(io.Discard, io.NewSectionReader(m.Message, 0, m.Size)); err != nil { // as a judge does
			return Verdict{}, err
		}
		return verdict, nil
	}})
	c := s.raw(t, "smtp")
	c.send("EHLO a\r\n")
	c.expect("220 ", "250 ")
	drop := testDropOf(t, s.Store, "bob@test.lan")
	defer drop.Release()
	junk := openFolder(t, drop, "Junk")
	defer junk.Release()
	n := 0
	deliver := func(text string) string {
		t.Helper()
		c.send("MAIL FROM:<x@example.org>\r\nRCPT TO:<ann@test.lan>\r\nRCPT TO:<bob@test.lan>\r\nDATA\r\n")
		c.expect("250 ", "250 ", "250 ", "354 ")
		c.send(text + ".\r\n")
		c.expect("250 ")
		anns := s.inboxOf(t, "ann@test.lan")
		uids := junk.UIDs()
		if n++; len(anns) != n || len(uids) != n {
			t.Fatalf("%d and %d messages, not %d", len(anns), len(uids), n)
		}
		m, err := junk.OpenMessage(uids[n-1])
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if bobs, _ := io.ReadAll(m.Section(0, m.Size())); string(bobs) != string(anns[n-1]) {
			t.Fatalf("%q is not %q", bobs, anns[n-1])
		}
		return string(anns[n-1])
	}
	for _, size := range []int{0, 1000, incomingBuffer - 400, incomingBuffer - 100, incomingBuffer, 3 * incomingBuffer} {
		head, body := "From: x@example.org\r\nSubject: a\r\nX-Old: 1\r\nX-Old: 2\r\n", "\r\n"+strings.Repeat("x", size/2)+"\r\n"+strings.Repeat("y", size/2)+"\r\n"
		verdict.Changes = nil
		got := deliver(head + body)
		if !strings.HasPrefix(got, "X-Front: 1\r\nReturn-Path: <x@example.org>\r\n") || !strings.HasSuffix(got, "\r\n"+head+body) {
			t.Fatalf("%d octets: %.500q", size, got)
		}
		verdict.Changes = []FieldChange{{"X-OLD", 2, ""}, {"Subject", 0, "Subject: b\r\n\tc\r\n"}, {"Return-Path", 1, ""}, {"X-Old", 1, "X-Old: one\r\n"}, {"X-Old", 7, "X-Old: 7\r\n"}}
		got = deliver(head + body)
		if !strings.HasPrefix(got, "X-Front: 1\r\nReturn-Path: <x@example.org>\r\n") || !strings.HasSuffix(got, "\r\nFrom: x@example.org\r\nSubject: b\r\n\tc\r\nX-Old: one\r\n"+body) {
			t.Fatalf("%d octets, changed: %.500q", size, got)
		}
	}
	s.noTemporaryFiles(t)
}

// TestIncoming writes messages in all kinds of pieces, and compares what is read with what was written, before and after
// something is put in front.
func TestIncoming(t *testing.T) {
	s := closedStore(t)
	d := testDropOf(t, s, "ann@test.lan")
	defer d.Release()
	random := rand.New(rand.NewPCG(3, 4))
	for round := range 60 {
		in, err := d.Receive()
		if err != nil {
			t.Fatal(err)
		}
		var want []byte
		for range random.IntN(8) {
			piece := make([]byte, random.IntN([]int{10, 5000, incomingBuffer, 3 * incomingBuffer}[random.IntN(4)]))
			for i := range piece {
				piece[i] = "a\r\nb"[random.IntN(4)]
			}
			if n, err := in.Write(piece); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
			want = append(want, piece...)
		}
		front := []byte(strings.Repeat("X-Front: yes\r\n", random.IntN(40)))
		if in.Prepend(front) {
			want = append(front, want...)
		} else if len(want)+len(front) <= incomingBuffer {
			t.Fatalf("round %d: %d octets are not in memory", round, len(want))
		}
		for range 20 {
			off := random.IntN(len(want) + 2)
			got := make([]byte, random.IntN(len(want)+2))
			n, err := in.ReadAt(got, int64(off))
			if wanted := want[min(off, len(want)):min(off+len(got), len(want))]; !bytes.Equal(got[:n], wanted) || (err != nil) != (n < len(got)) || err != nil && err != io.EOF {
				t.Fatalf("round %d: %d octets at %d of %d: %d, %v", round, len(got), off, len(want), n, err)
			}
		}
		crlf := int64(len(want) + bytes.Count(want, []byte{'\n'}) - bytes.Count(want, []byte("\r\n")))
		if in.Size() != int64(len(want)) || in.crlfSize != crlf {
			t.Fatalf("round %d: %d and %d, want %d and %d", round, in.Size(), in.crlfSize, len(want), crlf)
		}
		if err := s.Deliver(t.Context(), in, []Delivery{{Account: "ann@test.lan", Folder: "INBOX"}}); err != nil {
			t.Fatal(err)
		}
		inbox := openFolder(t, d, "INBOX")
		uids := inbox.UIDs()
		m, err := inbox.OpenMessage(uids[len(uids)-1])
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(m.Section(0, m.Size())); err != nil || int64(len(got)) != crlf || m.Size() != crlf {
			t.Fatalf("round %d: %d octets are delivered, %v", round, len(got), err)
		}
		m.Close()
		inbox.Release()
	}
}

// BenchmarkSMTPJudged is BenchmarkSMTPAccept of one connection with a judge that puts a header in front, for messages of some
// sizes.
func BenchmarkSMTPJudged(b *testing.B) {
	front := strings.Repeat("X-Front: yes\r\n", 40)
	for _, size := range []int{2 << 10, 20 << 10, 200 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			s := transcriptServer(b, &Protocols{Judge: func(_ context.Context, m *ReceivedMail) (Verdict, error) {
				_, err := io.Copy(io.Discard, io.NewSectionReader(m.Message, 0, m.Size))
				return Verdict{Fields: front}, err
			}})
			c := s.raw(b, "smtp")
			c.send("EHLO client\r\n")
			c.expect("220 ", "250 ")
			text := strings.Repeat(strings.Repeat("x", 78)+"\r\n", size/80) + ".\r\n"
			b.SetBytes(int64(len(text)))
			b.ResetTimer()
			for range b.N {
				c.send("MAIL FROM:<x@example.org>\r\nRCPT TO:<ann@test.lan>\r\nDATA\r\n")
				c.expect("250 ", "250 ", "354 ")
				c.send("Subject: x\r\n\r\n" + text)
				c.expect("250 ")
			}
		})
	}
}
