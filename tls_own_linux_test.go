package main

import (
	"crypto/x509"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asNobody lets this thread go to the files as a user without rights until the test ends, as the service does beside root.
func asNobody(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return // this user has no right to a file of mode 0, either
	}
	const nobody = 65534
	runtime.LockOSThread()
	t.Cleanup(func() {
		if err := syscall.Setfsuid(0); err == nil { // else the thread ends with the test
			runtime.UnlockOSThread()
		}
	})
	if err := syscall.Setfsuid(nobody); err != nil {
		t.Skip("this process cannot go to files as somebody else: ", err)
	}
}

// The service is not root, and certbot keeps keys for root alone. Whoever sets such a certificate is told at once that a renewal
// will not be seen, and not when it has run out.
func TestOwnFilesForRootAlone(t *testing.T) {
	a, dir := newTestIssuer(t), t.TempDir()
	for above := dir; above != "/"; above = filepath.Dir(above) { // the folders of tests are closed to others
		if info, err := os.Stat(above); err == nil && strings.Contains(above, t.Name()) {
			_ = os.Chmod(above, info.Mode().Perm()|0o055)
		}
	}
	files := OwnFiles{filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem")}
	certs, key := a.pair(t, &x509.Certificate{DNSNames: []string{"mail.example.org"}})
	writeFiles(t, files, certs, key)
	text, first, err := files.read(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(files.Cert, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(files.Key, 0); err != nil {
		t.Fatal(err)
	}
	copies := t.TempDir()
	if err := os.Chmod(copies, 0o777); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	own := openOwnCertificate(OwnFiles{}, filepath.Join(copies, "own.pem"), func() time.Time { return now }, slog.New(slog.DiscardHandler))
	asNobody(t)
	if err := own.set(files, text); err != nil {
		t.Fatal(err)
	}
	want := "the appliance may not read " + files.Key + ", and does not see when it is renewed: run `appliance tls set` again after each renewal"
	if got := own.trouble(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := own.current(); got == nil || !got.Leaf.Equal(first.Leaf) {
		t.Error("it is not used")
	}
	// A right that is given later shows in no size and no time of the file.
	if err := chmodAsRoot(files.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	now = now.Add(ownRecheck)
	if own.current(); own.trouble() != "" {
		t.Errorf("it may be read now: %s", own.trouble())
	}
}

// chmodAsRoot changes a mode with the rights that the test has had.
func chmodAsRoot(file string, mode os.FileMode) error {
	if os.Geteuid() == 0 {
		if err := syscall.Setfsuid(0); err != nil {
			return err
		}
		defer func() { _ = syscall.Setfsuid(65534) }()
	}
	return os.Chmod(file, mode)
}

// What is said then can be pasted, and keeps certbot's certificate new.
func TestOwnSetWords(t *testing.T) {
	files := OwnFiles{"/etc/letsencrypt/live/mail.example.org/fullchain.pem", "/etc/letsencrypt/live/mail.example.org/privkey.pem"}
	if got := ownSetWords(files, "", ""); got != "The certificate is used from now on. When its files change, the new ones are." {
		t.Error(got)
	}
	command := "appliance tls set --cert " + files.Cert + " --key " + files.Key + ` --data "/srv/our mail"`
	got := ownSetWords(files, "TROUBLE", ` --data "/srv/our mail"`)
	_, paste, ok := strings.Cut(got, "enter these two lines:\n\n")
	if !ok || !strings.Contains(got, "But TROUBLE:\n\n  "+elevated(command)+"\n") {
		t.Fatal(got)
	}
	hook := filepath.Join(t.TempDir(), "hook")
	paste = strings.NewReplacer("sudo ", "", "/etc/letsencrypt/renewal-hooks/deploy/appliance", hook).Replace(paste)
	if out, err := exec.Command("sh", "-ec", paste).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, paste)
	}
	if text, err := os.ReadFile(hook); err != nil || string(text) != "#!/bin/sh\n"+command+"\n" {
		t.Errorf("%q %v", text, err)
	}
	if info, err := os.Stat(hook); err != nil || info.Mode()&0o100 == 0 {
		t.Errorf("%v %v", info, err)
	}
}
