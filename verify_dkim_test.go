package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
)

// dkimTestKey is a key with what to publish for it.
type dkimTestKey struct {
	signer crypto.Signer
	file   string // in the form that other programs read
	record string
}

// newDKIMTestKey makes a key: RSA of so many bits, or Ed25519 for 0.
func newDKIMTestKey(t testing.TB, bits int) dkimTestKey {
	t.Helper()
	k := dkimTestKey{file: filepath.Join(t.TempDir(), "key")}
	var text []byte
	if bits == 0 {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		k.signer, text = private, []byte(base64.StdEncoding.EncodeToString(private.Seed()))
	} else {
		private, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		k.signer = private
		text = pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)})
	}
	if err := os.WriteFile(k.file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	public, err := publicKey(k.signer)
	if err != nil {
		t.Fatal(err)
	}
	k.record = "v=DKIM1; p=" + public
	if bits == 0 {
		k.record += "; k=ed25519"
	}
	return k
}

// zone gives a TXT record with a long text.
func zone(name, text string) string {
	line := name + " TXT"
	for len(text) > 200 {
		line, text = line+` "`+text[:200]+`"`, text[200:]
	}
	return line + ` "` + text + `"`
}

// program gives the path of a program of Debian's, or skips the test.
func program(t testing.TB, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(name + " is missing, install Debian's " + pkg)
	}
	return path
}

// pipe gives what a program makes of a message.
func pipe(t testing.TB, message string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(message)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v %s", name, err, errs.String())
	}
	return string(asReceived(out))
}

// dkimOf gives the results of a message's signatures in one line.
func dkimOf(t testing.TB, v *Verifier, text string) string {
	t.Helper()
	got := ""
	for _, d := range verified(t, v, mailFrom("192.0.2.1", "x@elsewhere.example", text)).DKIM {
		got += fmt.Sprintf("%s %s/%s; ", d.Result, d.Domain, d.Selector)
	}
	return strings.TrimSuffix(got, "; ")
}

// TestDKIMOfOthers verifies what dkimpy and OpenDKIM sign.
func TestDKIMOfOthers(t *testing.T) {
	rsaKey, edKey := newDKIMTestKey(t, 2048), newDKIMTestKey(t, 0)
	v := testVerifier(startDNS(t, zone("rsa._domainkey.example.org.", rsaKey.record)+"\n"+zone("ed._domainkey.example.org.", edKey.record)))
	signers := map[string]func(t *testing.T) string{}
	for _, way := range []string{"simple", "relaxed"} {
		signers["dkimpy RSA "+way] = func(t *testing.T) string {
			return pipe(t, plainMessage, program(t, "dkimsign", "python3-dkim"), "--hcanon", way, "--bcanon", way, "rsa", "example.org", rsaKey.file)
		}
		signers["dkimpy Ed25519 "+way] = func(t *testing.T) string {
			return pipe(t, plainMessage, program(t, "dkimsign", "python3-dkim"), "--hcanon", way, "--bcanon", way, "--signalg", "ed25519-sha256", "ed", "example.org", edKey.file)
		}
	}
	for name, sign := range signers {
		t.Run(name, func(t *testing.T) {
			text, selector := sign(t), "rsa"
			if strings.Contains(name, "Ed25519") {
				selector = "ed"
			}
			if got := dkimOf(t, v, text); got != "pass example.org/"+selector {
				t.Errorf("%s\n%s", got, text)
			}
			for _, change := range [][2]string{{"Hello  Bob", "Hello Rob"}, {"Subject: Hello", "Subject: Hallo"}} {
				if got := dkimOf(t, v, strings.Replace(text, change[0], change[1], 1)); got != "fail example.org/"+selector {
					t.Errorf("changed to %s: %s", change[1], got)
				}
			}
		})
	}
	// SHA-1 is nothing any more (RFC 8301 §3.1); OpenDKIM's program for tests can do no other.
	for name, sign := range map[string]func(t *testing.T) string{
		"dkimpy SHA-1": func(t *testing.T) string {
			return pipe(t, plainMessage, program(t, "dkimsign", "python3-dkim"), "--signalg", "rsa-sha1", "rsa", "example.org", rsaKey.file)
		},
		"OpenDKIM SHA-1": func(t *testing.T) string {
			return pipe(t, plainMessage, program(t, "opendkim-testmsg", "opendkim-tools"), "-C", "-d", "example.org", "-s", "rsa", "-k", rsaKey.file)
		},
	} {
		t.Run(name, func(t *testing.T) {
			text := sign(t)
			if got := dkimOf(t, v, text); got != "permerror example.org/rsa" || !strings.Contains(text, "a=rsa-sha1") {
				t.Errorf("%s\n%s", got, text)
			}
		})
	}
}

// dkimSigned signs a message as we do.
func dkimSigned(t testing.TB, k dkimTestKey, selector, agent, message string) string {
	t.Helper()
	var out bytes.Buffer
	err := dkim.Sign(&out, strings.NewReader(message), &dkim.SignOptions{Domain: "example.org", Selector: selector, Identifier: agent, Signer: k.signer,
		HeaderKeys: []string{"From", "Subject"}, BodyCanonicalization: dkim.CanonicalizationRelaxed})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestDKIMKeys(t *testing.T) {
	t.Parallel()
	good, small, large, huge := newDKIMTestKey(t, 1024), newDKIMTestKey(t, 2048), newDKIMTestKey(t, 4096), newDKIMTestKey(t, 5120)
	strict := strings.Replace(good.record, "p=", "t=y:s; p=", 1)
	dns := startDNS(t, strings.Join([]string{
		zone("good._domainkey.example.org.", good.record), zone("large._domainkey.example.org.", large.record),
		zone("huge._domainkey.example.org.", huge.record), zone("strict._domainkey.example.org.", strict),
		zone("other._domainkey.example.org.", small.record), zone("revoked._domainkey.example.org.", "v=DKIM1; p="),
		zone("twice._domainkey.example.org.", good.record), zone("twice._domainkey.example.org.", small.record),
	}, "\n"))
	dns.set(func(s *testDNS) { s.broken["broken._domainkey.example.org."] = true })
	v := testVerifier(dns)
	for _, test := range []struct {
		key             dkimTestKey
		selector, agent string
		want            string
	}{
		{good, "good", "", "pass"}, {large, "large", "", "pass"}, {huge, "huge", "", "permerror"}, {good, "other", "", "fail"},
		{good, "revoked", "", "permerror"}, {good, "twice", "", "permerror"}, {good, "missing", "", "permerror"}, {good, "broken", "", "temperror"},
		{good, "good", "ann@sub.example.org", "pass"}, {good, "strict", "ann@example.org", "pass"}, {good, "strict", "ann@sub.example.org", "permerror"},
	} {
		text := dkimSigned(t, test.key, test.selector, test.agent, plainMessage)
		if got := dkimOf(t, v, text); got != test.want+" example.org/"+test.selector {
			t.Errorf("%s %s: %s, want %s", test.selector, test.agent, got, test.want)
		}
	}
	text := plainMessage
	for range maxDKIMSignatures + 5 {
		text = dkimSigned(t, good, "good", "", text)
	}
	if got := strings.Count(dkimOf(t, v, text), "pass"); got != maxDKIMSignatures {
		t.Errorf("%d signatures of %d pass", got, maxDKIMSignatures+5)
	}
	headerOnly := strings.TrimSuffix(dkimSigned(t, good, "good", "", "From: a@example.org\r\nSubject: x\r\n\r\n"), "\r\n")
	if got := dkimOf(t, v, headerOnly); got != "pass example.org/good" {
		t.Errorf("a message that is all header: %s", got)
	}
}

// filler is a body of many lines that takes no memory.
type filler struct{ left int }

func (f *filler) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), f.left)], bytes.Repeat([]byte("0123456789 a line of a large message \r\n"), 100))
	f.left -= n
	return n, nil
}

// TestVerifyLargeMessage verifies 50 MB under ten signatures and a header that is made to cost time.
func TestVerifyLargeMessage(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	key := newDKIMTestKey(t, 1024)
	v := testVerifier(startDNS(t, zone("good._domainkey.example.org.", key.record)))
	one := "DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=good; h=from; bh=AAAA; b=AAAA\r\n"
	path := filepath.Join(t.TempDir(), "large")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, io.MultiReader(strings.NewReader(strings.Repeat(one, 10)+"From: a@example.org\r\n\r\n"), &filler{50 << 20})); err != nil {
		t.Fatal(err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m := mailFrom("192.0.2.1", "", "")
	m.Message, m.Size = f, size
	found := verified(t, v, m)
	runtime.ReadMemStats(&after)
	if len(found.DKIM) != 10 || found.DKIM[9].Result != "fail" {
		t.Errorf("%+v", found.DKIM)
	}
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 32<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	for _, costly := range []string{
		strings.Repeat("DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=good; h="+strings.Repeat("a:", 20_000)+"from; bh=A; b=A\r\n", 10) +
			strings.Repeat("a:\r\n", 10_000),
		one + "To: x" + strings.Repeat("\r\n x", 120_000) + "\r\n",
	} {
		found := verified(t, v, mailFrom("192.0.2.1", "", costly+"From: a@example.org\r\n\r\n"))
		if found.DKIM[0].Result != "permerror" {
			t.Errorf("%.80s: %+v", costly, found.DKIM[0])
		}
	}
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	v := testVerifier(startDNS(t, ""))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := v.Verify(ctx, mailFrom("192.0.2.1", "", plainMessage)); err == nil {
		t.Error("no error")
	}
}
