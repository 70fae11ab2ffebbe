package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
)

// manyDomains is an appliance for two domains, one of them in letters that DNS does not have.
func manyDomains(t *testing.T, w *sendWorld) *running {
	t.Helper()
	data := t.TempDir()
	for _, args := range []string{"user add ann@home.test --password-stdin", "user add bob@xn--bcher-kva.test --password-stdin", "alias add info@BÜCHER.test bob@bücher.test"} {
		if status, _, errs := runCommand(t, data, "submit-secret\n", strings.Fields(args)...); status != exitDone {
			t.Fatal(errs)
		}
	}
	return startRunWith(t, data, &call{adjust: w.adjust}, "--hostname", "mail.bücher.test")
}

// open opens a session at a port.
func (r *running) open(t testing.TB, port int) *rawClient {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port+r.offset))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &rawClient{t, conn, bufio.NewReader(conn)}
}

// inbox waits for n messages of somebody's and gives them by their files.
func (r *running) inbox(t testing.TB, account string, n int) []string {
	t.Helper()
	local, domain, _ := strings.Cut(account, "@")
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var texts []string
		for _, sub := range []string{"new", "cur"} {
			texts = append(texts, filesIn(t, dataDir(r.data).mail()+"/"+domain+"/"+local+"/"+sub)...)
		}
		if len(texts) >= n {
			return texts
		}
		if time.Now().After(end) {
			t.Fatalf("%s has %d messages, want %d\n%s", account, len(texts), n, r.stderr.String())
		}
	}
}

// Both spellings of an international domain are one domain, wherever they come in; mail to a domain of ours never leaves the
// machine, even where all goes by a relay.
func TestDomains(t *testing.T) {
	w := openSendWorld(t, "smtp.isp.test. A 192.0.2.1\nxn--bcher-kva.test. MX 1 smtp.isp.test.\nhome.test. MX 1 smtp.isp.test.")
	relay := w.at("192.0.2.1:465", &remoteServer{implicit: true, tls: w.authority.serve("smtp.isp.test"), extensions: []string{"AUTH PLAIN", "8BITMIME", "SMTPUTF8"}})
	r := manyDomains(t, w)
	if status, _, errs := runCommand(t, r.data, "secret\n", "relay", "set", "smtp.isp.test", "us", "--password-stdin"); status != exitDone {
		t.Fatal(errs)
	}
	w.tries()
	c := r.open(t, 587)
	line, err := c.r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "220 mail.xn--bcher-kva.test ") {
		t.Errorf("greeting: %q %v", line, err)
	}
	c.send("EHLO laptop\r\nAUTH PLAIN " + encodeLine("{plain bob@BÜCHER.test submit-secret}") + "\r\n")
	c.expect("250 ", "235 ")
	for _, m := range []struct{ mail, rcpt, from string }{
		{"<bob@XN--BCHER-KVA.test>", "<ANN@home.test>", "bob@xn--bcher-kva.test"},
		{"<bob@bücher.test> SMTPUTF8", "<ann@home.test>", "bob@bücher.test"},
		{"<info@xn--bcher-kva.test>", "<info@xn--bcher-kva.test>", "info@xn--bcher-kva.test"},
	} {
		c.send("MAIL FROM:" + m.mail + "\r\nRCPT TO:" + m.rcpt + "\r\nDATA\r\n")
		c.expect("250 ", "250 ", "354 ")
		c.send("From: " + m.from + "\r\nSubject: local\r\n\r\ntext\r\n.\r\n")
		c.expect("250 2.0.0 Stored")
	}
	c.send("MAIL FROM:<ann@home.test>\r\n")
	c.expect("553 5.7.1 ann@home.test is not an address of bob@bücher.test")
	r.inbox(t, "ann@home.test", 2)
	r.inbox(t, "bob@bücher.test", 1)

	// With somebody elsewhere among the recipients it goes by the queue, and only to them by the relay.
	c.send("RSET\r\nMAIL FROM:<bob@bücher.test> SMTPUTF8\r\nRCPT TO:<ann@home.test>\r\nRCPT TO:<info@xn--bcher-kva.test>\r\nRCPT TO:<friend@friends.test>\r\nRCPT TO:<x@straße.test>\r\nDATA\r\n")
	c.expect("250 ", "250 ", "250 ", "250 ", "250 ", "250 ", "354 ")
	c.send("From: bob@xn--bcher-kva.test\r\nSubject: all\r\n\r\ntext\r\n.\r\n")
	c.expect("250 2.0.0 Queued")
	r.inbox(t, "ann@home.test", 3)
	r.inbox(t, "bob@bücher.test", 2)
	<-relay.arrived
	got := relay.got()
	var rcpts []string
	for _, m := range got {
		rcpts = append(rcpts, m.rcpts...)
		if !strings.HasPrefix(m.mail, "MAIL FROM:<bob@xn--bcher-kva.test>") {
			t.Errorf("sent: %s", m.mail)
		}
	}
	if len(got) != 1 || !slices.Equal(rcpts, []string{"RCPT TO:<friend@friends.test>", "RCPT TO:<x@xn--strae-oqa.test>"}) {
		t.Errorf("the relay has %d messages for %q", len(got), rcpts)
	}
	if tries := w.tries(); tries != "192.0.2.1:465" {
		t.Errorf("dialled: %s", tries)
	}
	r.submit(t, "ann@home.test", "friend@friends.test")
	<-relay.arrived
	for i, domain := range []string{"xn--bcher-kva.test", "home.test"} {
		if found := regexp.MustCompile(`DKIM-Signature:[^:]*? d=([^;]*);`).FindAllStringSubmatch(relay.got()[i].text, -1); len(found) != 2 || found[0][1] != domain || found[1][1] != domain {
			t.Errorf("signatures of %s: %q", domain, found)
		}
		verifySignatures(t, &DKIMSigner{Dir: dataDir(r.data).dkim()}, domain, relay.got()[i].text)
	}
	// From outside, too.
	c = r.open(t, 25)
	c.send("EHLO mx.test\r\nMAIL FROM:<friend@friends.test> SMTPUTF8\r\nRCPT TO:<info@Bücher.test>\r\nRCPT TO:<bob@xn--bcher-kva.test>\r\nRCPT TO:<nobody@xn--bcher-kva.test>\r\nRCPT TO:<x@xn--strae-oqa.test>\r\nDATA\r\n")
	c.expect("220 ", "250 ", "250 ", "250 ", "250 ", "550 5.1.1 ", "550 5.7.1 ", "354 ")
	c.send("From: friend@friends.test\r\n\r\ntext\r\n.\r\n")
	c.expect("250 ")
	r.inbox(t, "bob@bücher.test", 3)
	if got := mustRun(t, r.data, "user", "list"); !strings.Contains(got, "ann@home.test") || !strings.Contains(got, "bob@bücher.test") {
		t.Errorf("users: %s", got)
	}
}

// verifySignatures checks that both signatures of a domain hold.
func verifySignatures(t *testing.T, signer *DKIMSigner, domain, text string) {
	t.Helper()
	records, err := signer.Records(domain)
	if err != nil {
		t.Fatal(err)
	}
	found, err := dkim.VerifyWithOptions(strings.NewReader(text), &dkim.VerifyOptions{LookupTXT: func(name string) (texts []string, _ error) {
		for _, r := range records {
			if r.Name == name {
				texts = append(texts, r.Value)
			}
		}
		return texts, nil
	}})
	if err != nil || len(found) != 2 || found[0].Err != nil || found[1].Err != nil {
		t.Errorf("signatures of %s: %+v %v\n%s", domain, found, err, text)
	}
}

// filesIn gives the contents of the files of a folder, none where it is missing.
func filesIn(t testing.TB, dir string) (texts []string) {
	t.Helper()
	names, err := listNames(dir)
	if err != nil {
		return nil
	}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			continue // it was moved this moment; the next look finds it
		}
		texts = append(texts, string(text))
	}
	return texts
}
