package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// arcSealer is a program that seals the message on its standard input by dkimpy: SELECTOR DOMAIN KEYFILE HOST.
const arcSealer = `
import sys, dkim
message = sys.stdin.buffer.read()
selector, domain, key, host = sys.argv[1:5]
fields = dkim.arc_sign(message, selector.encode(), domain.encode(), open(key, "rb").read(), host.encode(), linesep=b"\r\n")
assert len(fields) == 3, fields
sys.stdout.buffer.write(b"".join(fields) + message)
`

// dkimpy gives a Python that has dkimpy and what it needs for seals, or skips the test.
func dkimpy(t testing.TB) string {
	t.Helper()
	const python = "/usr/bin/python3" // Debian's
	if _, err := os.Stat(python); err != nil {
		t.Skip(python + " is missing")
	}
	program(t, "dkimsign", "python3-dkim")
	if _, err := os.Stat("/usr/lib/python3/dist-packages/authres"); err != nil {
		t.Skip("dkimpy cannot seal, install Debian's python3-authres")
	}
	return python
}

// sealedBy gives a message as it leaves a server: with its Authentication-Results and its set.
func sealedBy(t testing.TB, key dkimTestKey, domain, chain, message string) string {
	t.Helper()
	host := "mx." + domain
	message = "Authentication-Results: " + host + "; spf=pass smtp.mailfrom=ann@example.org" + chain + "\r\n" + message
	return pipe(t, message, dkimpy(t), "-c", arcSealer, "arc", domain, key.file, host)
}

// arcOf gives what is found about a chain.
func arcOf(t testing.TB, v *Verifier, text string) string {
	t.Helper()
	f := verified(t, v, mailFrom("192.0.2.1", "x@elsewhere.example", text)).ARC
	return strings.TrimSpace(fmt.Sprint(f.Result, " ", f.Sets, " ", f.Sealer, " ", f.Reason))
}

// TestARCOfOthers verifies chains that dkimpy seals, whole and broken in every place.
func TestARCOfOthers(t *testing.T) {
	key, other := newDKIMTestKey(t, 2048), newDKIMTestKey(t, 2048)
	dns := startDNS(t, strings.Join([]string{
		zone("arc._domainkey.one.example.", key.record), zone("arc._domainkey.two.example.", key.record),
		zone("arc._domainkey.three.example.", other.record), zone("arc._domainkey.four.example.", "v=DKIM1; p="),
	}, "\n"))
	dns.set(func(s *testDNS) { s.broken["arc._domainkey.five.example."] = true })
	v := testVerifier(dns)
	if got := arcOf(t, v, plainMessage); got != "none 0" {
		t.Errorf("no chain: %s", got)
	}
	first := sealedBy(t, key, "one.example", "", plainMessage)
	second := sealedBy(t, key, "two.example", "; arc=pass", first)
	third := sealedBy(t, other, "three.example", "; arc=pass", strings.Replace(second, "Subject: Hello", "Subject: [list] Hello", 1))
	failed := sealedBy(t, key, "two.example", "; arc=fail", first)
	change := func(text, from, to string) string {
		if !strings.Contains(text, from) {
			t.Errorf("there is no %q to change", from)
		}
		return strings.Replace(text, from, to, 1)
	}
	for name, test := range map[string][2]string{
		"one":                  {first, "pass 1 one.example"},
		"two":                  {second, "pass 2 two.example"},
		"a list changed it":    {third, "pass 3 three.example"},
		"other fields on top":  {"Received: by x\r\n" + second, "pass 2 two.example"},
		"folded anew":          {change(second, "; cv=", ";\r\n\tcv="), "pass 2 two.example"},
		"body":                 {change(second, "Hello  Bob", "Hello Rob"), "fail 0  message signature: the body was changed"},
		"subject":              {change(second, "Subject: Hello", "Subject: Hallo"), "fail 0  message signature: it does not hold"},
		"author":               {"From: b@example.org\r\n" + second, "fail 0  message signature: it does not hold"},
		"last result":          {change(second, "i=2; mx.two.example; spf=pass", "i=2; mx.two.example; spf=none"), "fail 0  seal 2: it does not hold"},
		"first result":         {change(second, "i=1; mx.one.example; spf=pass", "i=1; mx.one.example; spf=none"), "fail 0  seal 1: it does not hold"},
		"cv":                   {change(first, "cv=none", "cv=pass"), "fail 0  seal 1 says that the chain did not hold"},
		"cv of the second":     {change(second, "cv=pass", "cv=none"), "fail 0  seal 2 says that the chain did not hold"},
		"failed before":        {failed, "fail 0  seal 2 says that the chain did not hold"},
		"number":               {change(first, "ARC-Seal: i=1", "ARC-Seal: i=01"), "fail 0  a field of the chain has no valid number"},
		"no number":            {change(first, "ARC-Seal: i=1", "ARC-Seal: i=x"), "fail 0  a field of the chain has no valid number"},
		"number 51":            {"ARC-Seal: i=51; cv=pass\r\n" + first, "fail 0  a field of the chain has no valid number"},
		"a hole":               {"ARC-Seal: i=3; cv=pass\r\n" + first, "fail 0  set 2 is not whole"},
		"seal alone":           {"ARC-Seal: i=1; cv=none\r\n" + plainMessage, "fail 0  set 1 is not whole"},
		"twice":                {"ARC-Seal: i=1; cv=none\r\n" + first, "fail 0  set 1 has a field twice"},
		"seal with h=":         {change(first, "ARC-Seal: i=1;", "ARC-Seal: i=1; h=from;"), "fail 0  seal 1 has a list of fields"},
		"another's key":        {change(change(first, "d=one.example", "d=three.example"), "d=one.example", "d=three.example"), "fail 0  message signature: it does not hold"},
		"seal of another's":    {change(first, "cv=none; a=rsa-sha256; d=one.example", "cv=none; a=rsa-sha256; d=three.example"), "fail 0  seal 1: it does not hold"},
		"seal without a key":   {change(first, "cv=none; a=rsa-sha256; d=one.example", "cv=none; a=rsa-sha256; d=unknown.example"), "fail 0  seal 1: there is no such key"},
		"seal of a lost key":   {change(first, "cv=none; a=rsa-sha256; d=one.example", "cv=none; a=rsa-sha256; d=four.example"), "fail 0  seal 1: its key was revoked"},
		"seal nobody can tell": {change(first, "cv=none; a=rsa-sha256; d=one.example", "cv=none; a=rsa-sha256; d=five.example"), "fail 0  seal 1: its key cannot be looked up at the moment"},
	} {
		got := arcOf(t, v, test[0])
		if got != test[1] {
			t.Errorf("%s: %s, want %s", name, got, test[1])
		}
	}
	f := verified(t, v, mailFrom("192.0.2.1", "", second))
	if !strings.Contains(f.Field(), ";\r\n\tarc=pass header.d=two.example\r\n") {
		t.Errorf("the field: %s", f.Field())
	}
}
