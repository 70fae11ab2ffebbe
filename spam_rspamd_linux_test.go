package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startRspamd starts the rspamd that is installed, as a milter without a network, and gives its address; or it skips the
// test.
func startRspamd(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("rspamd")
	if err != nil {
		t.Skip("rspamd is not installed")
	}
	dir := t.TempDir()
	address := freeAddress(t)
	config := filepath.Join(dir, "rspamd.conf")
	text := fmt.Sprintf(`
		options { enable_test_patterns = true; disable_hyperscan = true; url_tld = "%[1]s/tld"; pidfile = "%[1]s/pid"; tempdir = "%[1]s"; control_socket = "%[1]s/control"; filters = ""; dns { nameserver = ["127.0.0.1:9"]; timeout = 0.1s; } }
		logging { type = "console"; level = "notice"; }
		actions { reject = 15; rewrite_subject = 10; add_header = 6; subject = "*** %%s"; }
		worker "rspamd_proxy" { bind_socket = "%[2]s"; milter = yes; count = 1; timeout = 10s; upstream "local" { default = yes; self_scan = yes; } }
	`, dir, address)
	for name, text := range map[string]string{config: text, filepath.Join(dir, "tld"): "com\nexample\n"} { // the list that it has takes it long to read
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	said := new(syncBuffer)
	cmd := exec.Command(program, "-f", "-i", "-c", config)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // that it was told to end is no mistake
		if t.Failed() {
			t.Logf("rspamd said:\n%s", said)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			return address
		}
	}
	t.Fatalf("rspamd does not listen:\n%s", said)
	return ""
}

// freeAddress gives an address on which nobody listens.
func freeAddress(t *testing.T) string {
	l := listenOn(t, "tcp", "127.0.0.1:0")
	defer l.Close()
	return l.Addr().String()
}

// TestRspamd asks a real rspamd, by the test messages that it knows for each of its actions.
func TestRspamd(t *testing.T) {
	t.Parallel()
	log := new(syncBuffer)
	f := testSpamFilter(t, SpamConfig{Milter: startRspamd(t), Verifier: testVerifier(startDNS(t, friendZone)), Log: slog.New(slog.NewTextHandler(log, nil))})
	const gtube = "JS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"
	for name, test := range map[string]struct {
		line, refuse, folder, subject string
	}{
		"plain":           {line: "Nothing odd.\r\n"},
		"reject":          {line: "X" + gtube, refuse: "Gtube pattern"},
		"add header":      {line: "Y" + gtube, folder: "Junk"},
		"rewrite subject": {line: "Z" + gtube, subject: "Subject: *** The garden\r\n"},
		"large":           {line: strings.Repeat("Nothing odd at all, but much of it.\r\n", 20_000)},
	} {
		v := judged(t, f, mailTo("192.0.2.1", "carl@friend.example", friendLetter+test.line, "ann@test.lan"))
		if (v.Refuse == "") != (test.refuse == "") || !strings.Contains(v.Refuse, test.refuse) || v.Folder != test.folder {
			t.Errorf("%s: %+v", name, v)
		}
		if test.folder != "" && !strings.Contains(v.Fields, "the milter calls it spam (+6.0)") {
			t.Errorf("%s: %s", name, v.Fields)
		}
		subject := ""
		for _, change := range v.Changes {
			if change.Name == "Subject" {
				subject = change.Field
			}
		}
		if subject != test.subject {
			t.Errorf("%s: the subject becomes %q", name, subject)
		}
	}
	if strings.Contains(log.String(), "taken without it") {
		t.Errorf("log: %s", log)
	}
}
