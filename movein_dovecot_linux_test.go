package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMoveInFromDovecot moves in from Debian's Dovecot, whose folders lie in the Maildir of the test.
func TestMoveInFromDovecot(t *testing.T) {
	ports, mail, roots := startDovecotServer(t)
	date := time.Date(2015, 6, 7, 8, 9, 10, 0, time.UTC)
	put := func(folder, flags string, n int) {
		t.Helper()
		dir := filepath.Join(mail, folder)
		for _, sub := range []string{"", "cur", "new", "tmp"} {
			_ = os.Mkdir(filepath.Join(dir, sub), 0o777)
			if err := os.Chmod(filepath.Join(dir, sub), 0o777); err != nil {
				t.Fatal(err)
			}
		}
		file := filepath.Join(dir, "cur", fmt.Sprintf("%d.M%dP1.x:2,%s", 1_400_000_000+n, n, flags))
		text := fmt.Sprintf("Message-ID: <d%d@x.test>\nSubject: number %d\n\ntext\n", n, n)
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, date, date); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 60 {
		put("", []string{"", "S", "FS", "RS"}[n%4], n)
	}
	for n := range 5 {
		put(".Gesendete Objekte", "S", 100+n)
		put(".Reisen.Italien", "", 200+n)
	}
	data := pageData(t)
	p := servePage(t, startRunWith(t, data, &call{adjustOutside: func(d *outsideDialer) { d.Roots = roots }}))
	b := p.loggedIn(t, "maria", mariasPassword)
	b.get("/mine/movein")
	b.post("/mine/movein", "login", "ann", "password", "ann-secret", "host", "localhost:"+strconv.Itoa(ports["imaps"]))
	b.says(200, "It has begun.")
	job := awaitMove(t, data, "maria", over)
	if done, of, copied := job.Counts(); job.State != MoveDone || done != 70 || of != 70 || copied != 70 {
		t.Fatalf("%d of %d, %d copied: %+v", done, of, copied, job)
	}
	for folder, n := range map[string]int{"INBOX": 60, "Sent": 5, "Reisen/Italien": 5} {
		text := contentOf(t, p, "maria", mariasPassword, folder)
		if got := strings.Count(text, `INTERNALDATE "07-Jun-2015 08:09:10 +0000"`); got != n {
			t.Errorf("%s: %d of %d messages with their date:\n%.600s", folder, got, n, text)
		}
	}
	if inbox := contentOf(t, p, "maria", mariasPassword, "INBOX"); strings.Count(inbox, `\Flagged`) != 15 || strings.Count(inbox, `\Answered`) != 15 || strings.Count(inbox, `\Seen`) != 45 {
		t.Errorf("the flags are not kept:\n%.1000s", inbox)
	}
}
