package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// dovecotSession is a session of the Dovecot that is installed, on a Maildir
// that holds some messages: what it answers is compared with ours.
type dovecotSession struct {
	t  *testing.T
	in io.WriteCloser
	r  *bufio.Reader
	n  int

	mail string // the Maildir
}

// startDovecot starts one, without a network, or skips the test. settings are
// further lines of its configuration, in which MAIL stands for the Maildir.
func startDovecot(t *testing.T, messages [][]byte, settings ...string) *dovecotSession {
	t.Helper()
	dir, err := os.MkdirTemp("", "dovecot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, sub := range []string{"mail", "mail/cur", "mail/new", "mail/tmp", "base"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for i, b := range messages {
		name := fmt.Sprintf("mail/cur/%d.M%d.h:2,", 1000000000+i, i)
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mail := filepath.Join(dir, "mail")
	config := fmt.Sprintf("mail_location = maildir:%s\n", mail) + strings.ReplaceAll(strings.Join(settings, "\n")+"\n", "MAIL", mail)
	d := launchDovecot(t, dir, "nobody", config)
	d.mail = mail
	d.command("SELECT INBOX", func(string) {})
	return d
}

// launchDovecot starts a session of a user with what is to be configured besides, on mail below dir, or skips the test.
func launchDovecot(t *testing.T, dir, username, config string) *dovecotSession {
	t.Helper()
	const binary = "/usr/lib/dovecot/imap"
	if _, err := os.Stat(binary); err != nil {
		t.Skip("Dovecot is not installed here")
	}
	config = fmt.Sprintf("base_dir = %s/base\nlog_path = %s/log\nssl = no\nfirst_valid_uid = 1\nprotocols = imap\n%s", dir, dir, config)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-c", filepath.Join(dir, "conf"))
	cmd.Env = []string{"USER=" + username, "HOME=" + dir}
	if os.Getuid() == 0 { // it refuses to open mail as root
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Skip(err)
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		gid, _ := strconv.Atoi(nobody.Gid)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		err = filepath.Walk(dir, func(path string, _ os.FileInfo, _ error) error { return os.Lchown(path, uid, gid) })
		if err != nil {
			t.Fatal(err)
		}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip("Dovecot does not start here: ", err)
	}
	t.Cleanup(func() { in.Close(); io.Copy(io.Discard, out); cmd.Wait() })
	d := &dovecotSession{t: t, in: in, r: bufio.NewReader(out)}
	if greeting := d.response(); !strings.HasPrefix(greeting, "* PREAUTH") {
		t.Skip("Dovecot does not start here: ", greeting)
	}
	return d
}

// response reads one response with its literals.
func (d *dovecotSession) response() string {
	line, _ := readResponse(d.r)
	return line
}

// command runs a command and gives its untagged responses to visit; it returns
// the tagged one without the tag.
func (d *dovecotSession) command(text string, visit func(string)) string {
	d.t.Helper()
	d.n++
	tag := "t" + strconv.Itoa(d.n) + " "
	if _, err := io.WriteString(d.in, tag+text+"\r\n"); err != nil {
		d.t.Fatal(err)
	}
	for {
		line := d.response()
		if line == "" {
			d.t.Fatal("Dovecot has gone at ", text)
		}
		if rest, ok := strings.CutPrefix(line, tag); ok {
			return rest
		}
		visit(line)
	}
}

// TestStructureLikeDovecot compares ENVELOPE, BODY and BODYSTRUCTURE of real
// mail and of broken mail.
func TestStructureLikeDovecot(t *testing.T) {
	var names []string
	var messages [][]byte
	for _, file := range corpusFiles(t) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, file)
		messages = append(messages, b)
	}
	compareStructures(t, names, messages)
}

// knownDifferences are the messages that we read in another way than Dovecot 2.3
// does, and why.
func knownDifferences() map[string]string {
	known := map[string]string{
		"boundary at the very end":       "a boundary without a line end starts a part all the same",
		"content type bad params":        "a parameter without a name is dropped",
		"content type broken":            "RFC 2045 §5.2: what cannot be read is text/plain",
		"content type broken 2":          "as before",
		"content type broken 3":          "as before",
		"content type empty":             "as before",
		"content type open quote":        "the value is taken to the end",
		"content type unquoted":          "an unquoted boundary may hold ? and /",
		"content type without ;":         "the type is taken, what follows is not",
		"disposition odd":                "a disposition without a name is none",
		"empty":                          "HEADER.FIELDS always ends with a blank line",
		"encoding folded":                "folding is white space",
		"encoding odd":                   "comments and what follows them are no part of the name",
		"extensions empty":               "empty fields are as good as none",
		"fields twice":                   "the first Subject and Date count, as clients show them",
		"header without body":            "HEADER.FIELDS always ends with a blank line",
		"header without line end":        "as before",
		"message inside, empty":          "as before",
		"message inside, header only":    "the line end before a boundary is the boundary's, in headers too",
		"message inside, in base64":      "BINARY leaves it as it is",
		"multipart with empty one":       "no boundary: text/plain shows the text at least",
		"multipart without boundary":     "as before",
		"../shared/corpus/spam/0239.eml": "the line end between two boundaries is the second one's",
		"../shared/corpus/spam/0252.eml": "as before",
		"../shared/corpus/spam/0293.eml": "as before",
		"prefix boundary":                "as before",
		"prefix boundary turned":         "as before",
		"same boundary inside":           "as before",
		"../shared/corpus/spam/0341.eml": "BINARY leaves the parts of a multipart as they are",
		"multipart with no body":         "HEADER.FIELDS always ends with a blank line",
		"no header at all":               "as before",
		"part with nothing":              "a blank line is a header, also before a boundary",
	}
	for i, why := range map[string]string{
		"a@b (x": "an open comment is a comment", "g:h:a@b;;": "groups do not nest", "a@b; c@d": "; separates, as in Outlook",
		"A <a@b>; B <c@d>": "as before", "A <@>": "no route", "<@b>": "no route", "<@x>": "no route",
		`"a".b@c`: "obs-local-part", `a."b c"@d`: "obs-local-part", "a . b @ c . d": "obs-local-part", "<a . b @ c . d>": "obs-local-part",
		`""@b`: "an empty local part is missing", "a@[1.2": "the domain is kept", "a@b.": "the domain is kept", "A <a@b": "the domain is kept",
		"A <a@b, c@d>": "the domain is kept", "a b@c": "the address is found", "A a@b>": "the address is found", "a@b <c@d>": "an unquoted @ in the name",
		"A@B <a@b>": "as before", "\"A <a@b>": "an open quote is a quote", ",,a@b,,": "empty entries are none", ",": "as before", ";": "as before",
		"(first) a@b": "a comment before the address counts", "A/B [C] <a@b>": "brackets may be in a name", "\\A <a@b>": "a backslash may be in a name",
		`"A""B" <a@b>`: "no space between", `A"B"C <a@b>`: "no space between",
	} {
		known["addresses "+fmt.Sprint(slices.Index(nastyAddresses(), i))] = why
	}
	return known
}

func compareStructures(t *testing.T, names []string, messages [][]byte) {
	d := startDovecot(t, messages)
	known := knownDifferences()
	i := 0
	bad := 0
	d.command("FETCH 1:* (ENVELOPE BODY BODYSTRUCTURE)", func(got string) {
		if !strings.Contains(got, " FETCH (ENVELOPE") {
			return
		}
		root, err := parseMessage(bytes.NewReader(withCRLF(messages[i])))
		if err != nil {
			t.Fatal(err)
		}
		b := []byte(fmt.Sprintf("* %d FETCH (ENVELOPE ", i+1))
		b = appendEnvelope(b, root.Envelope)
		b = append(b, " BODY "...)
		b = appendBody(b, root, false, false)
		b = append(b, " BODYSTRUCTURE "...)
		b = appendBody(b, root, true, false)
		b = append(b, ')')
		ours, got := plainForm(string(b)), plainForm(got)
		if ours != got && known[names[i]] == "" {
			bad++
			if bad <= 160 {
				t.Errorf("%s\nours    %s\nDovecot %s", names[i], firstDifference(ours, got), firstDifference(got, ours))
			}
		}
		i++
	})
	t.Logf("%d messages, %d differ", i, bad)
}

// plainForm makes two answers comparable: literals become quoted strings, and
// what Dovecot does differently by design is levelled. It makes one space of
// several in ENVELOPE, and a part that is but "text/plain; charset=us-ascii" in
// 7bloses its spelling once Dovecot has cached it.
func plainForm(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var text []byte
		switch s[i] {
		default:
			b.WriteByte(s[i])
			continue
		case '"':
			for i++; s[i] != '"'; i++ {
				if s[i] == '\\' {
					i++
				}
				text = append(text, s[i])
			}
		case '{':
			end := i + strings.IndexByte(s[i:], '}')
			n, _ := strconv.Atoi(s[i+1 : end])
			text = []byte(s[end+3 : end+3+n])
			i = end + 2 + n
		}
		fmt.Fprintf(&b, "%q", strings.Join(strings.Fields(string(text)), " "))
	}
	out := b.String()
	for _, word := range []string{"text", "plain", "charset", "us-ascii", "7bit"} {
		for _, other := range []string{strings.ToUpper(word), strings.ToUpper(word[:1]) + word[1:]} {
			out = strings.ReplaceAll(out, strconv.Quote(other), strconv.Quote(word))
		}
	}
	return strings.ReplaceAll(out, `"SYNTAX_ERROR"`, `"MISSING_DOMAIN"`)
}

func TestNastyStructureLikeDovecot(t *testing.T) {
	var names []string
	var messages [][]byte
	all := nastyMessages()
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		messages = append(messages, []byte(all[name]))
	}
	compareStructures(t, names, messages)
}

// partNames gives the section specifiers of a message's parts, and some of parts
// that are not there.
func partNames(m *mimePart, prefix string, names []string, isMessage bool) []string {
	switch {
	case m.isMultipart():
		for i, child := range m.Children {
			name := prefix + strconv.Itoa(i+1)
			names = append(names, name)
			names = partNames(child, name+".", names, false)
		}
		names = append(names, prefix+strconv.Itoa(len(m.Children)+1))
	case isMessage:
		names = append(names, prefix+"1", prefix+"2", prefix+"1.1")
		if m.holdsMessage() {
			names = partNames(m, prefix+"1.", names, false)
		}
	case m.holdsMessage():
		names = partNames(m.Children[0], prefix, names, true)
	default:
		names = append(names, prefix+"2") // Dovecot takes 1 for the part itself, but not everywhere
	}
	return names
}

// compareSections compares what BODY[…] and BINARY[…] give for all parts.
func compareSections(t *testing.T, names []string, messages [][]byte) {
	var texts []string
	for _, m := range messages {
		texts = append(texts, string(withCRLF(m)))
	}
	ours := startFetch(t, texts...)
	dovecot := startDovecot(t, messages)
	known := knownDifferences()
	bad := 0
	for i, text := range texts {
		root, err := parseMessage(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		items := []string{"RFC822.SIZE BODY.PEEK[] BODY.PEEK[HEADER] BODY.PEEK[TEXT] BODY.PEEK[]<5.100> BODY.PEEK[HEADER.FIELDS (SUBJECT)] BODY.PEEK[HEADER.FIELDS (SUBJECT X-ODD RECEIVED)] BODY.PEEK[HEADER.FIELDS.NOT (SUBJECT RECEIVED)]"}
		for _, p := range partNames(root, "", nil, true) {
			items = append(items, fmt.Sprintf("BODY.PEEK[%[1]s] BODY.PEEK[%[1]s.MIME] BODY.PEEK[%[1]s.HEADER] BODY.PEEK[%[1]s.TEXT] BODY.PEEK[%[1]s.HEADER.FIELDS (FROM SUBJECT)] BINARY.PEEK[%[1]s] BODY.PEEK[%[1]s]<2.3>", p))
		}
		if len(items) > 40 {
			items = items[:40]
		}
		for _, item := range items {
			for _, one := range strings.Split(strings.ReplaceAll(strings.ReplaceAll(item, " BI", "\nBI"), " BODY", "\nBODY"), "\n") {
				command := fmt.Sprintf("FETCH %d (%s)", i+1, one)
				a, aTag := ours.send(command)
				var b []string
				bTag := dovecot.command(command, func(line string) { b = append(b, line) })
				for j := range a { // a part that is not there is NIL, and "" for Dovecot
					a[j] = strings.Replace(strings.Replace(a[j], "] NIL)", "] {0}\r\n)", 1), "> NIL)", "> {0}\r\n)", 1)
				}
				for j := range b { // it has a literal8 for any byte beyond ASCII
					b[j] = strings.Replace(b[j], "] ~{", "] {", 1)
				}
				for j := range a {
					a[j] = strings.Replace(a[j], "] ~{", "] {", 1)
				}
				if slices.Equal(a, b) || strings.Contains(bTag, "[PARSE]") || known[names[i]] != "" {
					continue
				}
				if bad++; bad <= 60 {
					x, y := strings.Join(a, ""), strings.Join(b, "")
					t.Errorf("%s %s\nours    %s %s\nDovecot %s %s", names[i], command, firstDifference(x, y), aTag, firstDifference(y, x), bTag)
				}
			}
		}
	}
	t.Logf("%d messages, %d differences", len(texts), bad)
}

func TestSectionsLikeDovecot(t *testing.T) {
	var names []string
	var messages [][]byte
	files := corpusFiles(t)
	for i := 0; i < len(files); i += 8 {
		b, err := os.ReadFile(files[i])
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, files[i])
		messages = append(messages, b)
	}
	compareSections(t, names, messages)
}

func TestNastySectionsLikeDovecot(t *testing.T) {
	t.Parallel()
	var names []string
	var messages [][]byte
	all := nastyMessages()
	for name := range all {
		if !strings.HasPrefix(name, "addresses ") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		messages = append(messages, []byte(all[name]))
	}
	compareSections(t, names, messages)
}

func TestSearchLikeDovecot(t *testing.T) {
	files := corpusFiles(t)
	var messages [][]byte
	var texts []string
	for i := 0; i < len(files); i += 4 {
		b, err := os.ReadFile(files[i])
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, b)
		texts = append(texts, string(withCRLF(b)))
	}
	ours := startFetch(t, texts...)
	dovecot := startDovecot(t, messages)
	for _, query := range []string{
		"SUBJECT re", "FROM com", "TO spamassassin", "BODY the", "BODY free", "TEXT free", "TEXT \"content-type: text/html\"", "BODY \"<html\"",
		"SENTSINCE 1-Sep-2002", "SENTBEFORE 1-Sep-2002", "SENTON 22-Aug-2002", "LARGER 10000", "HEADER X-Mailer outlook", "HEADER received uunet",
		"CC \"\"", "BODY é", "NOT BODY a", "OR BODY linux SUBJECT linux",
	} {
		a, _ := ours.send("SEARCH " + query)
		var b []string
		dovecot.command("SEARCH "+query, func(line string) { b = append(b, line) })
		if strings.Join(a, "") != strings.Join(b, "") {
			t.Errorf("%s\nours    %s\nDovecot %s", query, a, b)
		}
	}
}
