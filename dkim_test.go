package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
)

const dkimTestMessage = "From: Ann <ann@bücher.example>\r\nTo: bob@other.example\r\nSubject: Hello\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\n\r\nHello  Bob.\r\n\r\n\r\n"

func TestDKIMSigner(t *testing.T) {
	dir := t.TempDir()
	s := &DKIMSigner{Dir: dir, IsLocal: func(d string) bool { return d == "bücher.example" }}
	var fields bytes.Buffer
	if signed, err := s.Sign(&fields, "other.example", strings.NewReader(dkimTestMessage)); signed || err != nil || fields.Len() > 0 {
		t.Errorf("another's domain: %v %v %q", signed, err, fields.String())
	}
	signed, err := s.Sign(&fields, "bücher.example", strings.NewReader(dkimTestMessage))
	if !signed || err != nil {
		t.Fatal(signed, err)
	}
	records, err := s.Records("bücher.example")
	if err != nil || len(records) != 2 {
		t.Fatal(records, err)
	}
	lookUp := func(name string) ([]string, error) {
		for _, r := range records {
			if r.Name == name {
				return []string{r.Value}, nil
			}
		}
		t.Errorf("asked for %s", name)
		return nil, nil
	}
	verify := func(message string) []*dkim.Verification {
		t.Helper()
		found, err := dkim.VerifyWithOptions(strings.NewReader(message), &dkim.VerifyOptions{LookupTXT: lookUp})
		if err != nil || len(found) != 2 {
			t.Fatal(found, err)
		}
		return found
	}
	for _, v := range verify(fields.String() + dkimTestMessage) {
		if v.Err != nil || v.Domain != "xn--bcher-kva.example" {
			t.Errorf("%s: %v", v.Domain, v.Err)
		}
	}
	for name, other := range map[string]string{
		"body":           strings.Replace(dkimTestMessage, "Bob.", "Bob!", 1),
		"subject":        strings.Replace(dkimTestMessage, "Hello\r\n", "Hallo\r\n", 1),
		"another author": "From: mallory@evil.example\r\n" + dkimTestMessage,
	} {
		for _, v := range verify(fields.String() + other) {
			if v.Err == nil {
				t.Errorf("%s was changed and %s still holds", name, v.Domain)
			}
		}
	}
	for _, name := range []string{"rsa1.pem", "ed1.pem"} {
		if st, err := os.Stat(filepath.Join(dir, "xn--bcher-kva.example", name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, st, err)
		}
	}
	again := &DKIMSigner{Dir: dir, IsLocal: s.IsLocal}
	same, err := again.Records("BÜCHER.example")
	if err != nil || same[0] != records[0] || same[1] != records[1] {
		t.Errorf("after a restart: %v %v", same, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "xn--bcher-kva.example", "ed1.pem"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	again = &DKIMSigner{Dir: dir, IsLocal: s.IsLocal}
	if _, err := again.Sign(&fields, "bücher.example", strings.NewReader(dkimTestMessage)); err == nil || !strings.Contains(err.Error(), "ed1") {
		t.Errorf("a damaged key: %v", err)
	}
	for _, domain := range []string{"..", "a/b", "", "../../etc"} {
		if _, err := again.Records(domain); err == nil {
			t.Errorf("%q has keys", domain)
		}
	}
}

func BenchmarkDKIMSign(b *testing.B) {
	s := &DKIMSigner{Dir: b.TempDir(), IsLocal: func(string) bool { return true }}
	message := dkimTestMessage + strings.Repeat("A line of text that is signed.\r\n", 64)
	for b.Loop() {
		if _, err := s.Sign(new(bytes.Buffer), "example.org", strings.NewReader(message)); err != nil {
			b.Fatal(err)
		}
	}
}
