package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// On a full disk a message is refused for now, nothing of it is left, and later ones find room.
func TestOutboundFullDisk(t *testing.T) {
	w := openOutWorld(t)
	w.end()
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", w.dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("this user cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		w.end()
		if err := syscall.Unmount(w.dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w.reopen(w.next.port)
	c := w.login()
	for range 3 {
		c.send("MAIL FROM:<ann@test.lan>\r\nRCPT TO:<friend@friends.test>\r\nDATA\r\n")
		c.expect("250 ", "250 ", "354 ")
		c.send("From: ann@test.lan\r\n\r\n" + strings.Repeat(strings.Repeat("x", 98)+"\r\n", 4000) + ".\r\n")
		c.expect("452 4.3.1 The disk is full")
	}
	if w.Queue.Len() != 0 {
		t.Errorf("%d messages wait", w.Queue.Len())
	}
	w.submit("", "Subject: small\r\n", "<friend@friends.test>")
	if m := w.next.wait(t); !strings.Contains(m.text, "Subject: small") {
		t.Errorf("arrived: %q", m.text)
	}
	w.empty()
}
