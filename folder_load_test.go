package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// TestForeignListKept opens a folder whose UID list another program has written, or one that has given it other line ends. The
// list has to be written anew before numbers can be given, and by then it must name all messages: a crash, and the loss of the
// index, may come at any time.
func TestForeignListKept(t *testing.T) {
	const list = "3 V1234 N50 G00000000000000000000000000000001\n7 :1700000001.a\n9 S20 W20 :1700000002.b\n41 :1700000003.c\n"
	for name, text := range map[string]string{
		"Dovecot's":            list,
		"with CRLF":            string(bytes.ReplaceAll([]byte(list), []byte("\n"), []byte("\r\n"))),
		"one file is new":      list[:len(list)-len("41 :1700000003.c\n")],
		"of an older version":  "1 1234 50\n7 1700000001.a\n9 1700000002.b\n41 1700000003.c\n",
		"without the last end": list[:len(list)-1],
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			inbox := filepath.Join(dir, "mail", "example.org", "ann")
			if err := makeMaildir(inbox); err != nil {
				t.Fatal(err)
			}
			for _, base := range []string{"1700000001.a", "1700000002.b", "1700000003.c"} {
				if err := os.WriteFile(filepath.Join(inbox, "cur", base+":2,S"), []byte("Subject: x\r\n\r\nx\r\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(inbox, uidlistName), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			want := []imap.UID{7, 9, 41}
			if name == "one file is new" {
				want[2] = 50
			}
			for range 2 {
				s := testStore(t, dir)
				d := testDrop(t, s)
				f := openFolder(t, d, "INBOX")
				if len(f.uids) != 3 || f.uids[0] != want[0] || f.uids[1] != want[1] || f.uids[2] != want[2] || f.list.head.validity != 1234 {
					t.Errorf("UIDs %v of %d, want %v of 1234", f.uids, f.list.head.validity, want)
				}
				onDisk := uidlist{path: f.list.path}
				if entries, damage, err := onDisk.load(); err != nil || damage.lines > 0 || len(entries) != 3 || imap.UID(entries[2].uid) != want[2] {
					t.Errorf("on disk: %+v, %+v, %v", entries, damage, err)
				}
				f.Release()
				d.Release()
				s.Close()
				if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
