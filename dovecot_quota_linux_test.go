package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// adoptMaildir makes a copy of a Maildir the mail of an account of ours.
func adoptMaildir(t *testing.T, dir, maildir, account string) {
	t.Helper()
	local, domain, _ := strings.Cut(account, "@")
	if err := os.CopyFS(filepath.Join(dir, "mail", domain, local), os.DirFS(maildir)); err != nil {
		t.Fatal(err)
	}
}

// TestQuotaLikeDovecot counts what a Maildir holds, in several folders and with and without sizes in the names, and
// compares it with what Dovecot's quota counts in the same one.
func TestQuotaLikeDovecot(t *testing.T) {
	var messages [][]byte
	for n := range 20 {
		messages = append(messages, []byte("Subject: x\r\n\r\n"+strings.Repeat("x", 1+n*777)+"\r\n"))
	}
	d := startDovecot(t, messages, "mail_plugins = quota", "protocol imap {\nmail_plugins = quota imap_quota\n}",
		"plugin {\nquota = maildir:User quota\nquota_rule = *:storage=1M:messages=1000\n}", "namespace inbox {\ninbox = yes\nseparator = /\n}")
	for _, command := range []string{
		"CREATE Work", "CREATE Work/Old", "COPY 1:7 Work", "COPY 3,5 Work/Old", "APPEND Work {11+}\r\nSubject: y\n",
		"STORE 4,6 +FLAGS.SILENT (\\Deleted)", "EXPUNGE",
	} {
		if reply := d.command(command, func(string) {}); !strings.HasPrefix(reply, "OK") {
			t.Fatal(command, reply)
		}
	}
	var theirs string
	d.command("GETQUOTAROOT INBOX", func(line string) {
		if rest, ok := strings.CutPrefix(line, `* QUOTA "User quota" `); ok {
			theirs = strings.TrimSpace(rest)
		}
	})
	dir := t.TempDir()
	const account = "ann@example.org"
	adoptMaildir(t, dir, d.mail, account)
	s := testStore(t, dir)
	defer s.Close()
	drop := testDrop(t, s)
	defer drop.Release()
	held, err := drop.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if ours := fmt.Sprintf("(STORAGE %d 1024 MESSAGE %d 1000)", (held.Bytes+1023)/1024, held.Messages); ours != theirs {
		t.Errorf("ours %s, Dovecot's %s", ours, theirs)
	}
	if want := onDisk(t, d.mail); held != want {
		t.Errorf("%v, on disk %v", held, want)
	}
}
