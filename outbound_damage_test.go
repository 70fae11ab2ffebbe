package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The owner is told by mail which messages were lost to a damaged disk, where what is left of them lies, and what to do.
func TestOutboundTellsOfDamage(t *testing.T) {
	w := openOutWorld(t)
	w.next.busy("Come back later")
	w.submit("", "Subject: one\r\n", "<friend@friends.test>")
	w.submit("", "Subject: two\r\n", "<friend@friends.test>")
	w.outbox(2).Close()
	w.end()
	cut, whole := w.Queue.List()[0].ID, w.Queue.List()[1].ID
	if err := os.WriteFile(filepath.Join(w.dir, cut+queueState), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.reopen(w.next.port)
	var told string
	w.until("a mail to the owner", func() bool {
		for _, text := range w.inboxOf(t, "ann@test.lan") {
			if strings.Contains(text, "Subject: Messages that waited to be sent are damaged\r\n") {
				told = text
			}
		}
		return told != ""
	})
	for _, part := range []string{"Return-Path: <>\r\n", "To: <ann@test.lan>\r\n", "\r\n  " + cut + "\r\n", "\r\n  " + w.dir + "\r\n", "with the ending .damaged", "SD card fails"} {
		if !strings.Contains(told, part) {
			t.Errorf("the mail lacks %q:\n%s", part, told)
		}
	}
	if strings.Contains(told, whole) {
		t.Errorf("the mail names a message that is whole:\n%s", told)
	}
	if left, err := os.ReadFile(filepath.Join(w.dir, cut+queueState+".damaged")); err != nil || string(left) != "{" {
		t.Errorf("what is left: %q, %v", left, err)
	}
	if w.Queue.Len() != 1 {
		t.Errorf("%d messages wait", w.Queue.Len())
	}
}
