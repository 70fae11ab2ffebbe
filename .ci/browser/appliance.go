package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// appliance is a running one.
type appliance struct {
	trial   *trial
	host    string
	address string // that it is bound to
	data    string
	base    string // of its page
	code    string // what the first visit's address carries
	roots   *x509.CertPool
	pin     string // of its certificate's key, as Chromium takes it
	cmd     *exec.Cmd
	out     lockedBuffer
}

// lockedBuffer holds what a process says.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startAppliance starts one with an empty data folder. trusts is a file with the authority that it believes about others.
func startAppliance(t *trial, host, address, trusts string) (*appliance, error) {
	a := &appliance{trial: t, host: host, address: address, data: filepath.Join(t.work, host), base: "https://" + host}
	a.cmd = exec.Command(t.binary, "run", "--data", a.data, "--hostname", host, "--listen", address)
	a.cmd.Env = append(os.Environ(), "USER=maria", "SUDO_USER=", "HOME="+t.work)
	if trusts != "" {
		a.cmd.Env = append(a.cmd.Env, "SSL_CERT_FILE="+trusts, "SSL_CERT_DIR=/nonexistent")
	}
	a.cmd.Stdout, a.cmd.Stderr = &a.out, &a.out
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if found := regexp.MustCompile(`\?code=(\S+)`).FindStringSubmatch(a.out.String()); found != nil && a.trust() == nil {
			a.code = found[1]
			return a, nil
		}
	}
	a.stop()
	return nil, fmt.Errorf("%s did not start:\n%s", host, a.out.String())
}

// trust reads the authority of the appliance, and what a browser needs to believe its certificate, which is verified here.
func (a *appliance) trust() error {
	pem, err := os.ReadFile(filepath.Join(a.data, "tls", "ca.pem"))
	if err != nil {
		return err
	}
	a.roots = x509.NewCertPool()
	if !a.roots.AppendCertsFromPEM(pem) {
		return errors.New("the authority cannot be read")
	}
	conn, err := tls.Dial("tcp", net.JoinHostPort(a.address, "443"), &tls.Config{RootCAs: a.roots, ServerName: a.host})
	if err != nil {
		return err
	}
	defer conn.Close()
	sum := sha256.Sum256(conn.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	a.pin = base64.StdEncoding.EncodeToString(sum[:])
	return nil
}

func (a *appliance) stop() {
	_ = a.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	_ = a.cmd.Wait()
}

// command runs a command of the appliance on its data folder.
func (a *appliance) command(args ...string) (string, error) {
	out, err := exec.Command(a.trial.binary, append(args, "--data", a.data)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// imapLogin says whether a mail program gets in.
func (a *appliance) imapLogin(user, password string) error {
	conn, err := tls.Dial("tcp", net.JoinHostPort(a.address, "993"), &tls.Config{RootCAs: a.roots, ServerName: a.host})
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // a connection that is gone fails below
	in := bufio.NewScanner(conn)
	fmt.Fprintf(conn, "a LOGIN %q %q\r\n", user, password)
	for in.Scan() {
		if line := in.Text(); strings.HasPrefix(line, "a ") {
			if !strings.HasPrefix(line, "a OK") {
				return fmt.Errorf("IMAP login of %s: %s", user, line)
			}
			return nil
		}
	}
	return fmt.Errorf("IMAP login of %s: no answer: %w", user, in.Err())
}

// send submits a message as a mail program does.
func (a *appliance) send(from, password, to, subject string) error {
	conn, err := tls.Dial("tcp", net.JoinHostPort(a.address, "465"), &tls.Config{RootCAs: a.roots, ServerName: a.host})
	if err != nil {
		return err
	}
	c, err := smtp.NewClient(conn, a.host)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Auth(smtp.PlainAuth("", from, password, a.host)); err != nil {
		return err
	}
	if err := errors.Join(c.Mail(from), c.Rcpt(to)); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "From: <%s>\r\nTo: <%s>\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <%d@%s>\r\n\r\nHello.\r\n",
		from, to, subject, time.Now().Format(time.RFC1123Z), time.Now().UnixNano(), a.host)
	return errors.Join(w.Close(), c.Quit())
}

// eventually tries until something holds, for half a minute at most.
func eventually(ctx context.Context, do func() error) error {
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(200 * time.Millisecond) {
		if err = do(); err == nil {
			return nil
		}
	}
	return err
}
