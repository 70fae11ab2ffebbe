package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestFetchMissing lists messages that the cache does not have yet: the answer is the one that the cache gives later, and
// messages that are gone or changed by another program do no harm to the others.
func TestFetchMissing(t *testing.T) {
	t.Parallel()
	var texts []string
	for i := range 600 {
		text := benchText(i)
		if i%50 == 49 { // more than is read at once
			text += strings.Repeat("x", fetchWhole) + "\r\n"
		}
		texts = append(texts, text)
	}
	c := startFetch(t, texts...)
	msgs, err := c.folder.Messages(nil, c.folder.allUIDs(), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(msgs[6].pathIn(c.folder.path)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(msgs[8].pathIn(c.folder.path), []byte("Subject: other\n\nby another program\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command := "FETCH 1:* (UID ENVELOPE BODYSTRUCTURE)"
	first, tagged := c.send(command)
	if !strings.HasPrefix(tagged, "OK") {
		t.Fatal(tagged)
	}
	lists := func(lines []string) []string {
		return slices.DeleteFunc(lines, func(line string) bool { return !strings.Contains(line, "ENVELOPE") })
	}
	if first = lists(first); len(first) != 599 {
		t.Fatalf("%d of 599 messages", len(first))
	}
	if i := slices.IndexFunc(first, func(line string) bool { return strings.Contains(line, `"other"`) }); i < 0 || !strings.Contains(first[i], "UID 9 ") {
		t.Errorf("the changed message is not listed as it is now")
	}
	c.folder.drop.flush() // from here on the index has it all
	for i := range first {
		_, first[i], _ = strings.Cut(first[i], " FETCH ")
	}
	c.send("NOOP")
	again, _ := c.send(command)
	for i, line := range lists(again) {
		if _, line, _ = strings.Cut(line, " FETCH "); i >= len(first) || line != first[i] {
			t.Fatalf("listed as\n%s\nand then as\n%s", first[min(i, len(first)-1)], line)
		}
	}
}

// BenchmarkFetchMissing lists 1,000 messages that the cache does not have.
func BenchmarkFetchMissing(b *testing.B) {
	c := startBench(b, 1000)
	for b.Loop() {
		b.StopTimer()
		c.folder.index.dropPending(c.folder.dir)
		c.folder.index.removeFolder(c.folder.dir)
		b.StartTimer()
		c.t = b
		c.drain(fmt.Sprintf("FETCH 1:* (%s)", "ENVELOPE"))
	}
}
