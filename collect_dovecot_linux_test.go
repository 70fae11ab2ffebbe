package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startDovecotServer starts Debian's Dovecot with POP3 and IMAP on ports of its own for the login ann, and gives the
// ports by pop3, pop3s, imap, imaps and the folder of the mail. It skips where that cannot be.
func startDovecotServer(t *testing.T) (ports map[string]int, mail string, roots *x509.CertPool) {
	t.Helper()
	const binary = "/usr/sbin/dovecot"
	for _, file := range []string{binary, "/usr/lib/dovecot/pop3", "/usr/lib/dovecot/imap"} {
		if _, err := os.Stat(file); err != nil {
			t.Skip("Dovecot with POP3 and IMAP is not installed here")
		}
	}
	if os.Getuid() != 0 {
		t.Skip("Dovecot's server needs root")
	}
	dir, err := os.MkdirTemp("", "dovecot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mail = filepath.Join(dir, "mail")
	for _, sub := range []string{"", "cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(mail, sub), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(mail, sub), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	server, client := serverTLS(t)
	der, err := x509.MarshalPKCS8PrivateKey(server.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	pems := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificates[0].Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	if err := os.WriteFile(filepath.Join(dir, "server.pem"), pems, 0o600); err != nil {
		t.Fatal(err)
	}
	ports = map[string]int{}
	listeners := ""
	for _, protocol := range []string{"pop3", "imap"} {
		listeners += "service " + protocol + "-login {\n"
		for _, suffix := range []string{"", "s"} {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ports[protocol+suffix] = l.Addr().(*net.TCPAddr).Port
			l.Close()
			ssl := map[string]string{"": "no", "s": "yes"}[suffix]
			listeners += fmt.Sprintf("inet_listener %s%s {\naddress = 127.0.0.1\nport = %d\nssl = %s\n}\n", protocol, suffix, ports[protocol+suffix], ssl)
		}
		listeners += "}\n"
	}
	config := fmt.Sprintf(`protocols = pop3 imap
base_dir = %[1]s/run
log_path = %[1]s/log
ssl = required
ssl_cert = <%[1]s/server.pem
ssl_key = <%[1]s/server.pem
mail_location = maildir:%[1]s/mail
first_valid_uid = 1
auth_failure_delay = 0
passdb {
driver = static
args = password=ann-secret
}
userdb {
driver = static
args = uid=nobody gid=nogroup home=%[1]s/mail
}
%[2]s`, dir, listeners)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-F", "-c", filepath.Join(dir, "conf"))
	if err := cmd.Start(); err != nil {
		t.Skip("Dovecot does not start here: ", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	for range 200 {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports["pop3s"]))
		if err == nil {
			conn.Close()
			return ports, mail, client.RootCAs
		}
		time.Sleep(20 * time.Millisecond)
	}
	log, _ := os.ReadFile(filepath.Join(dir, "log"))
	t.Skipf("Dovecot does not start here: %s", log)
	return nil, "", nil
}

// Both protocols, both ways to TLS, with and without --keep, against Dovecot.
func TestCollectFromDovecot(t *testing.T) {
	t.Parallel()
	ports, mail, roots := startDovecotServer(t)
	number := 0
	bring := func(n int) (text string) {
		number++
		text = mailNo(n)
		path := filepath.Join(mail, "new", fmt.Sprintf("%d.M%dP1.h", 1700000000+number, number))
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
		return text
	}
	left := func() (n int) {
		for _, sub := range []string{"new", "cur"} {
			names, err := listNames(filepath.Join(mail, sub))
			if err != nil {
				t.Fatal(err)
			}
			n += len(names)
		}
		return n
	}
	for _, port := range []string{"pop3s", "pop3", "imaps", "imap"} {
		for _, keep := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s keep=%v", port, keep), func(t *testing.T) {
				for _, sub := range []string{"new", "cur"} {
					names, _ := listNames(filepath.Join(mail, sub))
					for _, name := range names {
						os.Remove(filepath.Join(mail, sub, name))
					}
				}
				for n := 1; n <= 3; n++ {
					bring(n)
				}
				w := openCollectWorld(t)
				w.c.cfg.Dialer.Roots = roots
				server := OutsideServer{Protocol: strings.TrimSuffix(port, "s"), Host: "localhost", Port: ports[port], Login: "ann", Password: "wrong"}
				if keep && strings.HasSuffix(port, "s") { // it lets one wait who is wrong
					if _, err := w.c.cfg.Dialer.find(context.Background(), server); faultOf(err) != faultLogin {
						t.Errorf("a wrong password: %v", err)
					}
				}
				server.Password = "ann-secret"
				found, err := w.c.cfg.Dialer.find(context.Background(), server)
				if err != nil {
					t.Fatal(err)
				}
				w.from(&found, keep)
				w.mustLook()
				w.mustLook()
				w.expect(inboxName, textsNo(1, 2, 3)...)
				if n := left(); n != map[bool]int{true: 3}[keep] {
					t.Errorf("%d messages are left over there", n)
				}
				bring(4)
				w.reopen(nil)
				w.mustLook()
				w.expect(inboxName, textsNo(1, 2, 3, 4)...)
			})
		}
	}
	t.Run("idle", func(t *testing.T) {
		w := openCollectWorld(t)
		w.c.cfg.Dialer.Roots = roots
		defer w.run()()
		w.from(&OutsideServer{Protocol: protocolIMAP, Host: "localhost", Port: ports["imaps"], TLS: tlsImplicit, Login: "ann", Password: "ann-secret"}, false)
		w.until("the wait", func() bool { list, _ := w.c.List(""); return len(list) == 1 && list[0].Waiting })
		before := len(w.here(inboxName))
		bring(5)
		w.until("the message", func() bool { return len(w.here(inboxName)) == before+1 })
	})
}

// UIDVALIDITY changes when Dovecot loses its list: nothing is fetched twice, nothing is lost.
func TestCollectFromRenumberedDovecot(t *testing.T) {
	t.Parallel()
	ports, mail, roots := startDovecotServer(t)
	for n := 1; n <= 3; n++ {
		path := filepath.Join(mail, "new", fmt.Sprintf("%d.M1P1.h", 1700000000+n))
		if err := os.WriteFile(path, []byte(mailNo(n)), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	w := openCollectWorld(t)
	w.c.cfg.Dialer.Roots = roots
	w.from(&OutsideServer{Protocol: protocolIMAP, Host: "localhost", Port: ports["imaps"], TLS: tlsImplicit, Login: "ann", Password: "ann-secret"}, true)
	w.mustLook()
	for _, name := range []string{"dovecot-uidlist", "dovecot-uidvalidity", "dovecot.index", "dovecot.index.log", "dovecot.index.cache"} {
		os.Remove(filepath.Join(mail, name))
	}
	list := fmt.Sprintf("3 V%d N1 G0123456789abcdef0123456789abcdef\n", time.Now().Unix()+1000)
	if err := os.WriteFile(filepath.Join(mail, "dovecot-uidlist"), []byte(list), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(mail, "dovecot-uidlist"), 0o666); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(mail, "new", "1700000009.M1P1.h")
	if err := os.WriteFile(path, []byte(mailNo(4)), 0o666); err != nil {
		t.Fatal(err)
	}
	w.mustLook()
	w.mustLook()
	w.expect(inboxName, textsNo(1, 2, 3, 4)...)
	if strings.Count(w.log.String(), "msg=delivered") != 4 {
		t.Errorf("delivered:\n%s", w.log)
	}
}
