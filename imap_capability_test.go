package main

import (
	"bufio"
	"crypto/tls"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// capabilityProofs says for each capability what a line of a transcript is like that exercises it, as a regular expression.
// What no transcript can show is tried by the Go test that is named instead.
var capabilityProofs = map[string]string{
	"IMAP4REV1": `^C\d?: \w+ LSUB `, "IMAP4REV2": `^C\d?: \w+ ENABLE IMAP4REV2`, "LITERAL+": `^C\d?: .*<LIT\+ `,
	"SASL-IR": `^C\d?: \w+ AUTHENTICATE PLAIN <B64 `, "ENABLE": `^C\d?: \w+ ENABLE `, "ID": `^C\d?: \w+ ID `, "IDLE": `^C\d?: \w+ IDLE`,
	"NAMESPACE": `^C\d?: \w+ NAMESPACE`, "UIDPLUS": `^C\d?: \w+ UID EXPUNGE `, "ESEARCH": `^C\d?: \w+ (UID )?SEARCH RETURN `,
	"SEARCHRES": `RETURN \(SAVE\)`, "LIST-EXTENDED": `^C\d?: \w+ LIST \(SUBSCRIBED`, "LIST-STATUS": `^C\d?: \w+ LIST .*RETURN \(.*STATUS \(`,
	"SPECIAL-USE": `^C\d?: \w+ LIST \(SPECIAL-USE`, "CREATE-SPECIAL-USE": `^C\d?: \w+ CREATE .* \(USE \(`, "MOVE": `^C\d?: \w+ (UID )?MOVE `,
	"STATUS=SIZE": `^S\d?: \* STATUS .*[( ]SIZE \d+`, "BINARY": `BINARY\.SIZE\[`, "UNSELECT": `^C\d?: \w+ UNSELECT`,
	"CHILDREN": `^C\d?: \w+ LIST .*RETURN \(.*CHILDREN`, "MULTIAPPEND": `^C\d?: \w+ APPEND \w+ [^{]*<LIT\+? [^>]*> .*<LIT`,
	"UTF8=ACCEPT": `^C\d?: \w+ ENABLE UTF8=ACCEPT`, "CONDSTORE": `UNCHANGEDSINCE \d+`, "OBJECTID": `^C\d?: \w+ (UID )?FETCH .*EMAILID`,
	"PREVIEW": `^C\d?: \w+ (UID )?FETCH .*PREVIEW`, "REPLACE": `^C\d?: \w+ (UID )?REPLACE `, "INPROGRESS": "TestIMAPProgress",
	"CATENATE": `^C\d?: \w+ APPEND .*CATENATE \(`, "QRESYNC": `\(QRESYNC \(`, "SORT": `^C\d?: \w+ (UID )?SORT \(`, "SORT=DISPLAY": `SORT \(DISPLAY`,
	"ESORT": `SORT RETURN `, "THREAD=ORDEREDSUBJECT": `THREAD ORDEREDSUBJECT`, "THREAD=REFERENCES": `THREAD REFERENCES`, "THREAD=REFS": `THREAD REFS`,
	"I18NLEVEL=1": `^C\d?: \w+ (SEARCH CHARSET UTF-8|SORT \(SUBJECT\) UTF-8) SUBJECT <LIT\+ ÉTÉ>`, "WITHIN": `(YOUNGER|OLDER) \d+`,
	"SEARCH=FUZZY": `SEARCH .*FUZZY `, "PARTIAL": `PARTIAL -?\d+:`, "SAVEDATE": `SAVED(ATE|BEFORE|ON|SINCE)`, "CONTEXT=SEARCH": `SEARCH RETURN \(.*UPDATE`,
	"CONTEXT=SORT": `SORT RETURN \(.*UPDATE`, "MULTISEARCH": `^C\d?: \w+ ESEARCH IN`, "NOTIFY": `^C\d?: \w+ NOTIFY SET`,
	"QUOTA": `^C\d?: \w+ GETQUOTAROOT`, "QUOTA=RES-STORAGE": `^S\d?: \* QUOTA .*STORAGE \d`, "QUOTA=RES-MESSAGE": `^S\d?: \* QUOTA .*MESSAGE \d`,
	"METADATA": `^C\d?: \w+ SETMETADATA`, "LIST-METADATA": `^C\d?: \w+ LIST .*RETURN \(.*METADATA \(`, "ACL": `^C\d?: \w+ SETACL`,
	"RIGHTS=TEXK": `^S\d?: \* LISTRIGHTS .* T E X K|^S\d?: \* MYRIGHTS .*T`, "LIST-MYRIGHTS": `^C\d?: \w+ LIST .*RETURN \(.*MYRIGHTS`,
	"COMPRESS=DEFLATE": `^C\d?: \w+ COMPRESS DEFLATE`, "UNAUTHENTICATE": `^C\d?: \w+ UNAUTHENTICATE`, "APPENDLIMIT": `^S\d?: \w+ NO \[TOOBIG\]`,
	"STARTTLS": "TestIMAPStartTLS", "LOGINDISABLED": "TestIMAPStartTLS", "AUTH=PLAIN": `^C\d?: \w+ AUTHENTICATE PLAIN`,
	"AUTH=LOGIN": "TestSASLLogins", "AUTH=SCRAM-SHA-256": "TestSASLLogins", "AUTH=SCRAM-SHA-256-PLUS": "TestSASLLogins",
}

// TestIMAPCapabilitiesAreTried fails for a capability that a session offers at any time and that nothing exercises.
func TestIMAPCapabilitiesAreTried(t *testing.T) {
	transcripts, tests := linesOf(t, "testdata/imap/*.txt"), linesOf(t, "*_test.go")
	for name := range offeredCapabilities(t) {
		proof, known := capabilityProofs[name]
		lines := transcripts
		if strings.HasPrefix(proof, "Test") {
			lines, proof = tests, "^FUNC "+strings.ToUpper(proof)+`\(`
		}
		switch {
		case !known:
			t.Errorf("%s is offered, and nothing says what tries it", name)
		case !anyMatches(lines, proof):
			t.Errorf("%s is offered, and no line is like %s", name, proof)
		}
	}
}

// linesOf gives all lines of files, in upper case.
func linesOf(t *testing.T, pattern string) (lines []string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.Split(strings.ToUpper(string(text)), "\n")...)
	}
	return lines
}

func anyMatches(lines []string, pattern string) bool {
	proof := regexp.MustCompile(pattern)
	for _, line := range lines {
		if proof.MatchString(line) {
			return true
		}
	}
	return false
}

// offeredCapabilities gives, in upper case, what sessions offer: on loopback, from elsewhere without TLS, under TLS, after
// login.
func offeredCapabilities(t *testing.T) map[string]bool {
	t.Helper()
	offered := map[string]bool{}
	see := func(line string) {
		_, list, found := strings.Cut(line, "[CAPABILITY ")
		list, _, whole := strings.Cut(list, "]")
		if !found || !whole {
			t.Fatalf("%q has no capabilities", line)
		}
		for _, name := range strings.Fields(strings.ToUpper(list)) {
			if strings.HasPrefix(name, "APPENDLIMIT=") {
				name = "APPENDLIMIT"
			}
			offered[name] = true
		}
	}
	far := startIMAPWith(t, fromAfar)
	see(far.connect(t).readLine(t))
	near := startIMAP(t)
	mustAdd(t, near.Accounts, "ann@home.lan", imapPassword)
	c := near.connect(t)
	see(c.readLine(t))
	c.send(t, "a STARTTLS\r\n")
	c.want(t, "a OK Begin TLS now")
	secure := tls.Client(c.Conn, near.client)
	c = &imapLine{secure, bufio.NewReader(secure)}
	c.send(t, "b CAPABILITY\r\n")
	see(strings.Replace(c.readLine(t), "* CAPABILITY", "[CAPABILITY", 1) + "]")
	c.want(t, "b OK CAPABILITY completed")
	c.send(t, "c LOGIN ann@home.lan \""+imapPassword+"\"\r\n")
	see(c.readLine(t))
	return offered
}
