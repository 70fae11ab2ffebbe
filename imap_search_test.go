package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// searchMessages are the messages that the tests search, from sequence number 1.
func searchMessages() []string {
	crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
	return []string{
		crlf("From: Ann <ann@a.example>\nTo: bob@b.example\nSubject: Hello World\nDate: Thu, 22 Aug 2002 23:30:00 -0700\n\nplain text body\n"),
		crlf("From: =?utf-8?q?J=C3=B6rg_Gr=C3=BC=C3=9Fe?= <jg@b.example>\nSubject: =?iso-8859-1?q?Gr=FC=DFe?= =?iso-8859-1?q?_aus_K=F6ln?=\nDate: 1 Jan 99 00:00:00 GMT\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n=C4pfel und B=\nirnen\n"),
		crlf("Subject: with parts\nX-Odd: Value\nContent-Type: multipart/mixed; boundary=b\n\npreamble\n--b\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: base64\n\n0JzQvtGB0LrQstCw\n--b\nContent-Type: application/octet-stream; name*=utf-8''%E2%82%AC.txt\nContent-Transfer-Encoding: base64\n\nc2VjcmV0\n--b\nContent-Type: message/rfc822\n\nSubject: inner subject\nContent-Type: text/plain; charset=iso-2022-jp\n\n\x1b$B4A;z\x1b(B\n--b--\n"),
		crlf("Subject: no date\nList-Id: <list.example>\n\n" + strings.Repeat("filler ", 20000) + "needle\n"),
	}
}

func TestSearch(t *testing.T) {
	c := startFetch(t, searchMessages()...)
	// The first UIDs are gone, so that sequence numbers and UIDs differ.
	if _, _, err := c.folder.Expunge(nil, false); err != nil {
		t.Fatal(err)
	}
	for _, m := range searchMessages() {
		appendText(t, c.folder, m)
	}
	c.send("NOOP")
	if _, _, _, err := c.folder.SetFlags([]imap.UID{6, 7}, FlagsAdd, []imap.Flag{imap.FlagSeen, "$Work"}, NoUnchangedSince); err != nil {
		t.Fatal(err)
	}
	c.send("NOOP")
	today := time.Now().Format("2-Jan-2006")
	for range 2 { // without the cache, and with it
		for query, want := range map[string]string{
			"ALL":                         " 1 2 3 4",
			"1:2":                         " 1 2",
			"UID 6:*":                     " 2 3 4",
			"NOT 1:2":                     " 3 4",
			"OR 1 4":                      " 1 4",
			"(1:3 2:4) NOT 3":             " 2",
			"SEEN":                        " 2 3",
			"UNSEEN":                      " 1 4",
			"KEYWORD $work":               " 2 3",
			"UNKEYWORD $Work":             " 1 4",
			"KEYWORD $None":               "",
			"RECENT":                      " 1 2 3 4",
			"NEW":                         " 1 4",
			"OLD":                         "",
			"LARGER 1000":                 " 4",
			"SMALLER 1000":                " 1 2 3",
			"SINCE " + today:              " 1 2 3 4",
			"BEFORE " + today:             "",
			"ON \"" + today + "\"":        " 1 2 3 4",
			"SENTON 22-Aug-2002":          " 1",
			"SENTSINCE 1-Jan-2000":        " 1",
			"SENTBEFORE 2-Jan-1999":       " 2",
			"FROM ANN@":                   " 1",
			"FROM \"jörg grüsse\"":        " 2",
			"SUBJECT \"hello world\"":     " 1",
			"SUBJECT \"GRÜSSE AUS KÖLN\"": " 2",
			"HEADER Subject \"\"":         " 1 2 3 4",
			"HEADER X-Odd \"\"":           " 3",
			"HEADER X-ODD value":          " 3",
			"HEADER List-Id list.example": " 4",
			"HEADER X-None \"\"":          "",
			"TO bob CC bob":               "",
			"BODY \"plain text\"":         " 1",
			"BODY hello":                  "",
			"TEXT hello":                  " 1",
			"TEXT Subject:":               " 1 2 3 4",
			"BODY \"äpfel und birnen\"":   " 2",
			"BODY \"МОСКВА\"":             " 3",
			"BODY \"漢字\"":                 " 3",
			"BODY secret":                 "",
			"BODY preamble":               "",
			"BODY \"inner subject\"":      " 3",
			"TEXT \"€.txt\"":              " 3",
			"BODY needle":                 " 4",
			"BODY \"filler needle\"":      " 4",
			"BODY \"\"":                   " 1 2 3 4",
			"CHARSET iso-8859-1 BODY {5+}\r\n\xc4pfel":             " 2",
			"CHARSET UTF-8 BODY {6+}\r\nÄpfel":                     " 2",
			"CHARSET koi8-r BODY {6+}\r\n\xed\xef\xf3\xeb\xf7\xe1": " 3",
			"NOT NOT (OR BODY \"plain text\" OR BODY needle 2)":    " 1 2 4",
		} {
			got, tagged := c.send("SEARCH " + query)
			if len(got) != 1 || got[0] != "* SEARCH"+want || !strings.HasPrefix(tagged, "OK") {
				t.Errorf("SEARCH %s: %q %s", query, got, tagged)
			}
		}
	}
	c.want("UID SEARCH SEEN", "* SEARCH 6 7")
}

func TestSearchReplies(t *testing.T) {
	c := startFetch(t, searchMessages()...)
	if _, _, _, err := c.folder.SetFlags([]imap.UID{2}, FlagsAdd, []imap.Flag{imap.FlagSeen}, NoUnchangedSince); err != nil {
		t.Fatal(err)
	}
	c.send("NOOP")
	for command, want := range map[string]string{
		"SEARCH RETURN () ALL":                 ` ALL 1:4`,
		"SEARCH RETURN (MIN MAX COUNT) 2:4":    ` MIN 2 MAX 4 COUNT 3`,
		"UID SEARCH RETURN (ALL) NOT 2":        ` UID ALL 1,3:4`,
		"SEARCH RETURN (COUNT MIN) BODY xyzzy": ` COUNT 0`,
	} {
		got, tagged := c.send(command)
		if len(got) != 1 || got[0] != fmt.Sprintf(`* ESEARCH (TAG "t%d")%s`, c.n, want) || !strings.HasPrefix(tagged, "OK") {
			t.Errorf("%s: %q %s", command, got, tagged)
		}
	}
	c.want("SEARCH RETURN (SAVE) 2:3")
	c.want("SEARCH $", "* SEARCH 2 3")
	c.want("FETCH $ UID", "* 2 FETCH (UID 2)", "* 3 FETCH (UID 3)")
	c.send("SEARCH RETURN (SAVE MIN) 2:4")
	c.want("UID SEARCH UID $", "* SEARCH 2")
	if _, tagged := c.send("SEARCH RETURN (SAVE) NONSENSE"); !strings.HasPrefix(tagged, "BAD") {
		t.Error(tagged)
	}
	c.want("SEARCH $", "* SEARCH 2")
	if _, tagged := c.send("SEARCH RETURN (SAVE) CHARSET x-none ALL"); !strings.HasPrefix(tagged, "NO [BADCHARSET (") {
		t.Error(tagged)
	}
	c.want("SEARCH $", "* SEARCH")
	msgs, err := c.folder.Messages(nil, []imap.UID{2}, false)
	if err != nil {
		t.Fatal(err)
	}
	modseq := msgs[0].ModSeq
	c.want(fmt.Sprintf("SEARCH MODSEQ %d", modseq),
		fmt.Sprintf("* OK [HIGHESTMODSEQ %d] The highest mod-sequence", modseq), fmt.Sprintf("* SEARCH 2 (MODSEQ %d)", modseq))
	c.want(fmt.Sprintf(`SEARCH MODSEQ "/flags/\\seen" all %d`, modseq), fmt.Sprintf("* SEARCH 2 (MODSEQ %d)", modseq))
	c.want(fmt.Sprintf("SEARCH MODSEQ %d", modseq+1), "* SEARCH")
	for _, command := range []string{
		"SEARCH", "SEARCH ", "SEARCH ()", "SEARCH (ALL", "SEARCH NOT", "SEARCH OR ALL", "SEARCH RETURN (X) ALL",
		"SEARCH CHARSET", "SEARCH SINCE today", "SEARCH BODY", "SEARCH KEYWORD \\Seen", "SEARCH MODSEQ x", "SEARCH UID", "SEARCH LARGER -1",
	} {
		if got, tagged := c.send(command); !strings.HasPrefix(tagged, "BAD") || len(got) > 0 {
			t.Errorf("%s: %q %s", command, got, tagged)
		}
	}
	if _, tagged := c.send("SEARCH " + strings.Repeat("NOT ", 500) + "ALL"); !strings.HasPrefix(tagged, "NO [LIMIT]") {
		t.Error(tagged)
	}
	c.want("SEARCH 9", "* SEARCH") // RFC 7377 §2: no error
	c.want("SEARCH 3:9", "* SEARCH 3 4")
	c.want("SEARCH "+strings.Repeat("OR ALL ", 90)+"ALL", "* SEARCH 1 2 3 4")
}

// TestIMAPProgress tells how far a slow search is, with the response of RFC 9585 §4; and that COPY and MOVE are at work, which
// wait here for another program.
func TestIMAPProgress(t *testing.T) {
	s := startIMAPWith(t, func(p *Protocols) { p.progress = time.Nanosecond })
	mustAdd(t, s.Accounts, "ann@home.lan", imapPassword)
	c := s.login(t, "ann@home.lan")
	for range 4 {
		c.ok(t, "APPEND INBOX {9+}\r\nA: b\r\n\r\nx")
	}
	c.ok(t, "SELECT INBOX")
	lines := c.ok(t, "SEARCH BODY x")
	if lines[0] != `* OK [INPROGRESS ("zz" 0 4)] Searched 0% of the mailbox` ||
		lines[2] != `* OK [INPROGRESS ("zz" 2 4)] Searched 50% of the mailbox` || lines[4] != "* SEARCH 1 2 3 4" {
		t.Error(lines)
	}
	for _, one := range [][2]string{{"COPY", "Trash"}, {"MOVE", "Archive"}} {
		command, folder := one[0], one[1]
		s.login(t, "ann@home.lan").ok(t, "SELECT "+folder) // so that it is open
		lock := filepath.Join(s.store.mailDir, "home.lan", "ann", "."+folder, uidlistLockName)
		if err := os.WriteFile(lock, []byte("1:elsewhere"), 0o600); err != nil {
			t.Fatal(err)
		}
		c.send(t, "a "+command+" 1:* "+folder+"\r\n")
		c.want(t, `* OK [INPROGRESS ("a" NIL NIL)] Still at work`)
		if err := os.Remove(lock); err != nil {
			t.Fatal(err)
		}
		for line := ""; !strings.HasPrefix(line, "a OK"); {
			if line = c.readLine(t); !strings.HasPrefix(line, "*") && !strings.HasPrefix(line, "a OK") {
				t.Fatalf("%s: %s", command, line)
			}
		}
	}
}
