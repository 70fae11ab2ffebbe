package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// workBeside does with a folder what other sessions do, and fails when it has to wait.
func workBeside(t *testing.T, beside string, f *Folder) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			uid := appendText(t, f, "Subject: beside\r\n\r\n"+beside+"\r\n")
			deliverText(t, f.drop.store, "Subject: delivered\r\n\r\n"+beside+"\r\n", f.drop.Account())
			if _, _, _, err := f.SetFlags(f.allUIDs(), FlagsAdd, []imap.Flag{imap.FlagFlagged, "Beside"}, NoUnchangedSince); err != nil {
				return err
			}
			view, err := f.NewView(false, nil)
			if err != nil {
				return err
			}
			defer view.Close()
			if _, err := f.Copy([]imap.UID{uid}, f); err != nil {
				return err
			}
			if _, _, err := f.Expunge([]imap.UID{uid}, false); err != nil {
				return err
			}
			if _, err := f.Status(true); err != nil {
				return err
			}
			f.PutCached(cacheStructure, view.UIDs()[0], []byte("value"))
			f.drop.flush() // a transaction of the index
			if _, err := f.drop.Folders(); err != nil {
				return err
			}
			if err := f.drop.CreateFolder("Made/"+strings.Map(func(r rune) rune {
				if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
					return r
				}
				return -1
			}, beside), nil); err != nil {
				return err
			}
			_, err = view.Sync(true)
			return err
		}()
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("beside %s: %v", beside, err)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("others wait while a client does not take the reply to %s", beside)
	}
}

// TestSlowClient has clients that do not take the replies to their commands: nobody else waits for them.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	var texts []string
	for i := range 300 {
		texts = append(texts, fmt.Sprintf("From: a%d@example.org\r\nSubject: %d %s\r\n\r\n%s\r\n", i, i, strings.Repeat("long ", 30), strings.Repeat("text ", 400)))
	}
	for _, command := range []string{
		"FETCH 1:* (FLAGS)", "FETCH 1:* (ENVELOPE)", "FETCH 1:* (BODYSTRUCTURE PREVIEW EMAILID)", "FETCH 1:* (BODY.PEEK[HEADER.FIELDS (Subject)])",
		"FETCH 1:* (BODY[])", "FETCH 1:* (BINARY.PEEK[1])", "STORE 1:* +FLAGS (\\Answered)", "UID SEARCH RETURN (ALL) TEXT long",
		"UID SORT (SUBJECT) UTF-8 ALL", "EXPUNGE", "LIST \"\" *", "NOOP",
	} {
		c := startFetch(t, texts...)
		if command == "EXPUNGE" {
			setFlag(t, c.folder, imap.FlagDeleted, c.folder.allUIDs()[:200]...)
		}
		if _, err := fmt.Fprintf(c.conn, "a %s\r\n", command); err != nil {
			t.Fatal(err)
		}
		var first [1]byte // the reply has begun; what follows is not taken
		if _, err := io.ReadFull(c.conn, first[:]); err != nil {
			t.Fatal(err)
		}
		workBeside(t, command, c.folder)
		go io.Copy(io.Discard, c.conn)
	}
}

// TestSlowPOP3Client does the same with POP3, whose session has the maildrop to itself as far as POP3 goes.
func TestSlowPOP3Client(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	inbox := s.appendTo(t, strings.Repeat(strings.Repeat("x", 70)+"\r\n", 200000)) // more than what lies between can hold
	c := s.pop3Login(t)
	c.send("RETR 1\r\n")
	if _, err := c.r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	workBeside(t, "RETR", inbox)
}
