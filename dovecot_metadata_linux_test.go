package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestMetadataLikeDovecot gives the same commands to Dovecot and to us, and compares the answers; then each reads what the
// other has written.
func TestMetadataLikeDovecot(t *testing.T) {
	t.Parallel()
	d := startDovecot(t, nil, "protocol imap {\nimap_metadata = yes\n}", "mail_attribute_dict = file:MAIL/dovecot-attributes",
		"namespace inbox {\ninbox = yes\nseparator = /\nmailbox Drafts {\nspecial_use = \\Drafts\nauto = create\n}\n}")
	ours := startIMAP(t)
	mustAdd(t, ours.Accounts, "ann@home.lan", imapPassword)
	c := ours.login(t, "ann@home.lan")
	for _, command := range []string{
		`SETMETADATA INBOX (/private/comment "My own comment" /shared/comment "Shared \"comment\"")`,
		`GETMETADATA INBOX (/shared/comment /private/comment /private/none)`,
		"SETMETADATA INBOX (/private/Vendor/ABC/x {9+}\r\na\tb\r\nc\x01d\\)", `GETMETADATA INBOX /private/vendor/abc/X`,
		`GETMETADATA (MAXSIZE 5) INBOX (/private/comment /private/none)`, `GETMETADATA (MAXSIZE 14 DEPTH infinity) INBOX (/private /shared)`,
		`GETMETADATA (DEPTH infinity) INBOX (/private /shared)`, `GETMETADATA (DEPTH 1) INBOX /private/vendor`,
		`GETMETADATA (DEPTH 1) INBOX /private/vendor/abc`, `GETMETADATA (DEPTH 2) INBOX /private`,
		`SETMETADATA "" (/private/comment "server")`, `GETMETADATA "" (/private/comment /private/none)`, `SETMETADATA "" (/shared/comment "server")`,
		`SETMETADATA "" (/shared/admin "x")`, `GETMETADATA INBOX /privat/comment`, `GETMETADATA INBOX "/private/com*"`, `GETMETADATA INBOX "/private/com%"`,
		`GETMETADATA INBOX /private/`, `GETMETADATA INBOX private/x`, `GETMETADATA INBOX /private//x`, `GETMETADATA nowhere /private/x`,
		`SETMETADATA INBOX (/private/a "1" /bad/x "2")`, `GETMETADATA INBOX /private/a`, `SETMETADATA INBOX (/private/a/b/ "1")`,
		`SETMETADATA INBOX (/private/comment NIL)`, `GETMETADATA INBOX /private/comment`, `SETMETADATA INBOX (/private/empty "")`,
		`GETMETADATA INBOX /private/empty`, `CREATE foo`, `SETMETADATA foo (/private/comment "x" /shared/comment "y")`, `RENAME foo bar`,
		`GETMETADATA (DEPTH infinity) bar (/private /shared)`, `DELETE bar`, `CREATE bar`, `GETMETADATA bar (/private/comment /shared/comment)`,
		`GETMETADATA Drafts /private/specialuse`,
	} {
		var theirs []string
		theirTag := d.command(command, func(line string) {
			if strings.HasPrefix(line, "* METADATA") {
				theirs = append(theirs, metadataForm(line))
			}
		})
		c.send(t, "zz "+command+"\r\n")
		var mine []string
		myTag := ""
		for myTag == "" {
			line, err := readResponse(c.r)
			if err != nil {
				t.Fatal(command, err)
			}
			if rest, ok := strings.CutPrefix(line, "zz "); ok {
				myTag = rest
			} else if strings.HasPrefix(line, "* METADATA") {
				mine = append(mine, metadataForm(line))
			}
		}
		word := func(reply string) string {
			status, _, _ := strings.Cut(reply, " ")
			if i := strings.Index(reply, "[METADATA "); i >= 0 {
				status += reply[i : strings.Index(reply, "]")+1]
			}
			return status
		}
		if fmt.Sprint(mine) != fmt.Sprint(theirs) || word(myTag) != word(theirTag) {
			t.Errorf("%s\nours    %s %s\nDovecot %s %s", command, mine, myTag, theirs, theirTag)
		}
	}
	// We read theirs, and they ours.
	dir := t.TempDir()
	adoptMaildir(t, dir, d.mail, "ann@example.org")
	s := testStore(t, dir)
	defer s.Close()
	drop := testDrop(t, s)
	defer drop.Release()
	inbox := openFolder(t, drop, "INBOX")
	defer inbox.Release()
	got, err := drop.Metadata(inbox)
	if err != nil || got["/private/vendor/abc/x"] != "a\tb\r\nc\x01d\\" || got["/shared/comment"] != `Shared "comment"` || len(got) != 3 {
		t.Errorf("of Dovecot's: %q, %v", got, err)
	}
	if got, err := drop.Metadata(nil); err != nil || got["/private/comment"] != "server" || len(got) != 1 {
		t.Errorf("of Dovecot's server: %q, %v", got, err)
	}
	const value = "ours\tand\r\nmore\x01"
	if err := drop.SetMetadata(inbox, []MetadataChange{{Name: "/private/ours", Value: value}, {Name: "/private/empty", Remove: true}}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(drop.dir, attributesName))
	theirs := filepath.Join(d.mail, attributesName)
	if err == nil {
		err = os.WriteFile(theirs+".ours", text, 0o644)
	}
	if err == nil { // Dovecot looks for a new file, as each of us writes it
		err = os.Rename(theirs+".ours", theirs)
	}
	if err != nil {
		t.Fatal(err)
	}
	var all string
	d.command("GETMETADATA INBOX (/private/ours /private/empty /shared/comment)", func(line string) { all += metadataForm(line) })
	if want := metadataForm(fmt.Sprintf("* METADATA \"INBOX\" (/private/ours {%d}\r\n%s /private/empty NIL /shared/comment \"Shared \\\"comment\\\"\")", len(value), value)); all != want {
		t.Errorf("Dovecot reads of ours %s\nwant %s", all, want)
	}
}

// metadataForm makes METADATA responses comparable: the strings in one form, the entries in order.
func metadataForm(line string) string {
	head, rest, _ := strings.Cut(line, "(")
	var words []string
	for i := 0; i < len(rest); i++ {
		var text string
		switch rest[i] {
		case '{', '~':
			open, end := i+strings.IndexByte(rest[i:], '{'), i+strings.IndexByte(rest[i:], '}')
			n, _ := strconv.Atoi(rest[open+1 : end])
			text = strconv.Quote(rest[end+3 : end+3+n])
			i = end + 2 + n
		case '"':
			b, j := []byte{}, i+1
			for ; rest[j] != '"'; j++ {
				if rest[j] == '\\' {
					j++
				}
				b = append(b, rest[j])
			}
			text, i = strconv.Quote(string(b)), j
		case ' ', ')', '\r', '\n':
			continue
		default:
			end := i + strings.IndexAny(rest[i:], " )")
			text, i = rest[i:end], end-1
		}
		words = append(words, text)
	}
	var pairs []string
	for i := 0; i+1 < len(words); i += 2 {
		pairs = append(pairs, strings.ToLower(words[i])+" "+words[i+1])
	}
	slices.Sort(pairs)
	return strings.ReplaceAll(head, `"`, "") + strings.Join(pairs, " ")
}
