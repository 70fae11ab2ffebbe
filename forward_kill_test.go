package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// arrive brings a message for bob, and says whether it was taken.
func (w *killWorld) arrive(subject string) bool {
	w.t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", 25+w.offset))
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	in := bufio.NewReader(conn)
	for _, say := range []string{"", "HELO x", "MAIL FROM:<friend@friends.test>", "RCPT TO:<bob@home.lan>", "DATA", "Subject: " + subject + "\r\n\r\ntext\r\n."} {
		if say != "" {
			if _, err := fmt.Fprintf(conn, "%s\r\n", say); err != nil {
				w.t.Fatal(err)
			}
		}
		line, err := in.ReadString('\n')
		switch {
		case err != nil && say != "" && strings.HasPrefix(say, "Subject"):
			return false
		case err != nil || line[0] != '2' && line[0] != '3':
			w.t.Fatalf("%q: %q, %v", say, line, err)
		}
	}
	return true
}

// inbox counts the messages of bob's.
func (w *killWorld) inbox() (n int) {
	for _, sub := range []string{"new", "cur"} {
		files, _ := os.ReadDir(filepath.Join(dataDir(w.data).mail(), "home.lan", "bob", sub))
		n += len(files)
	}
	return n
}

// TestForwardKill ends the appliance between the steps of a forwarded message's delivery. Its sender was not told that it is
// taken and sends it again: it may come twice, and is never lost.
func TestForwardKill(t *testing.T) {
	for _, c := range []struct {
		step       string
		copy       bool
		first      [2]int // in the INBOX and on its way after the kill
		afterwards [2]int // when it was sent again
	}{
		{"moved", false, [2]int{0, 1}, [2]int{0, 2}},
		{"delivered", true, [2]int{1, 0}, [2]int{2, 1}},
		{"forwarded", true, [2]int{1, 1}, [2]int{2, 2}},
	} {
		next := startNextServer(t)
		dns := startDNS(t, "friends.test. MX 10 mx.friends.test.\nmx.friends.test. A 127.0.0.1")
		w := &killWorld{t: t, data: t.TempDir(), offset: freeOffset(t), next: dns.Servers[0] + " " + strconv.Itoa(next.port), step: c.step}
		mustRun(t, w.data, "user", "add", "maria@home.lan")
		mustRun(t, w.data, "user", "add", "bob@home.lan")
		forward := []string{"user", "forward", "bob", "far@friends.test"}
		if !c.copy {
			forward = append(forward, "--no-copy")
		}
		mustRun(t, w.data, forward...)
		w.start()
		w.up()
		if w.arrive("again") {
			t.Errorf("%s: taken", c.step)
		}
		_ = w.process.Wait() // it tells of the kill
		queued, err := filepath.Glob(filepath.Join(dataDir(w.data).queue(), "*"+queueState))
		if got := [2]int{w.inbox(), len(queued)}; err != nil || got != c.first {
			next.mu.Lock()
			gone := len(next.got)
			next.mu.Unlock()
			if got[1] += gone; got != c.first { // it may have gone on already
				t.Errorf("%s: %v after the kill, want %v", c.step, got, c.first)
			}
		}
		w.step = ""
		w.start()
		w.up()
		if !w.arrive("again") {
			t.Errorf("%s: not taken", c.step)
		}
		for range c.afterwards[1] {
			next.wait(t)
		}
		w.kill()
		next.mu.Lock()
		if got := [2]int{w.inbox(), len(next.got)}; got != c.afterwards {
			t.Errorf("%s: %v in the end, want %v", c.step, got, c.afterwards)
		}
		next.mu.Unlock()
	}
}
