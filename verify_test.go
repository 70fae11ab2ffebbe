package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/authres"
)

// testVerifier judges by a DNS of the test's own.
func testVerifier(dns *testDNS) *Verifier {
	return &Verifier{Resolver: dns.Resolver, Hostname: func() string { return "mail.test" }, draw: func() int { return 50 }}
}

// mailFrom is a message as it stands when it is judged.
func mailFrom(remote, from, text string) *ReceivedMail {
	text = "Return-Path: <" + from + ">\r\nReceived: from x\r\n\tby mail.test\r\n" + text
	return &ReceivedMail{Remote: netip.MustParseAddr(remote), Helo: "client.example.net", From: from, Message: strings.NewReader(text), Size: int64(len(text))}
}

// verified is Verify without an error.
func verified(t testing.TB, v *Verifier, m *ReceivedMail) *Findings {
	t.Helper()
	f, err := v.Verify(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Judge gives the verdict that a message's origin alone demands.
func (v *Verifier) Judge(ctx context.Context, m *ReceivedMail) (Verdict, error) {
	f, err := v.Verify(ctx, m)
	if err != nil {
		return Verdict{}, err
	}
	return f.Verdict(), nil
}

const plainMessage = "From: ann@example.org\r\nTo: bob@test.lan\r\nSubject: Hello\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\n\r\nHello  Bob.\r\n\r\n"

func TestVerifyWhoIsJudged(t *testing.T) {
	dns := startDNS(t, `_dmarc.example.org. TXT "v=DMARC1; p=reject"`)
	v := testVerifier(dns)
	for remote, judged := range map[string]bool{
		"127.0.0.1": false, "::1": false, "192.168.1.2": false, "10.1.2.3": false, "172.16.5.5": false, "fd00::1": false,
		"fe80::1": false, "169.254.1.1": false, "0.0.0.0": false, "::ffff:192.168.1.2": false,
		"192.0.2.1": true, "2001:db8::1": true, "172.32.0.1": true, "::ffff:192.0.2.1": true,
	} {
		m := mailFrom(remote, "ann@example.org", plainMessage)
		verdict, err := v.Judge(context.Background(), m)
		if err != nil || (verdict.Refuse != "") != judged || (verdict.Fields != "") != judged {
			t.Errorf("%s: %+v %v", remote, verdict, err)
		}
		m.Account = "ann@test.lan"
		if verdict, err := v.Judge(context.Background(), m); err != nil || !reflect.DeepEqual(verdict, Verdict{}) {
			t.Errorf("logged in from %s: %+v %v", remote, verdict, err)
		}
	}
	if f := verified(t, v, mailFrom("127.0.0.1", "", plainMessage)); f.Judged {
		t.Errorf("loopback: %+v", f)
	}
}

func TestVerifyWithoutDNS(t *testing.T) {
	t.Parallel()
	silent := startDNS(t, `_dmarc.example.org. TXT "v=DMARC1; p=reject"`)
	silent.set(func(s *testDNS) { s.silent = true })
	silent.Resolver.Timeout = 10 * time.Second
	broken := startDNS(t, "")
	broken.set(func(s *testDNS) {
		for _, name := range []string{"localhost.", "_dmarc.example.org.", "example.org.", "1.2.0.192.in-addr.arpa.", "k._domainkey.example.org."} {
			s.broken[name] = true
		}
	})
	signed := "DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=k; h=from; bh=AA==; b=AA==\r\n" + plainMessage
	for name, r := range map[string]*Resolver{"silent": silent.Resolver, "broken": broken.Resolver, "none": {Servers: []string{}}} {
		v := &Verifier{Resolver: r, Hostname: func() string { return "mail.test" }}
		start := time.Now()
		for i := range 20 {
			f := verified(t, v, mailFrom("192.0.2.1", "ann@example.org", signed))
			results := []authres.ResultValue{f.SPF.Result, f.IPRev.Result, f.DKIM[0].Result, f.DMARC.Result}
			if want := slices.Repeat([]authres.ResultValue{authres.ResultTempError}, 4); !slices.Equal(results, want) || !f.Offline {
				t.Fatalf("%s, message %d: %v, offline %v", name, i, results, f.Offline)
			}
			if verdict := f.Verdict(); verdict.Refuse != "" || verdict.Folder != "" {
				t.Errorf("%s: %+v", name, verdict)
			}
		}
		if took := time.Since(start); took > probeTimeout+time.Second {
			t.Errorf("%s: 20 messages took %s", name, took)
		}
	}
}

// TestVerifyTemporary has servers that cannot tell about one name: the message is taken, and it is noted.
func TestVerifyTemporary(t *testing.T) {
	dns := startDNS(t, `
		_dmarc.example.org. TXT "v=DMARC1; p=reject"
		example.org. TXT "v=spf1 include:broken.example.org -all"
	`)
	dns.set(func(s *testDNS) { s.broken["broken.example.org."] = true })
	v := testVerifier(dns)
	f := verified(t, v, mailFrom("192.0.2.1", "ann@example.org", plainMessage))
	if f.SPF.Result != authres.ResultTempError || f.DMARC.Result != authres.ResultTempError || f.Verdict().Refuse != "" {
		t.Errorf("SPF cannot be told: %+v", f)
	}
	dns.set(func(s *testDNS) { s.broken["_dmarc.example.org."] = true })
	if f := verified(t, v, mailFrom("192.0.2.1", "x@other.example", plainMessage)); f.DMARC.Result != authres.ResultTempError || f.Verdict().Refuse != "" {
		t.Errorf("the policy cannot be told: %+v", f)
	}
	// What the sender himself breaks does not save him.
	dns.set(func(s *testDNS) { delete(s.broken, "_dmarc.example.org."); s.broken["slow.example."] = true })
	for _, text := range []string{
		"DKIM-Signature: v=1; a=rsa-sha256; d=slow.example; s=k; h=from; bh=AA==; b=AA==\r\n",
		"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=a..b; h=from; bh=AA==; b=AA==\r\n",
		"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=" + strings.Repeat("x", 70) + "; h=from; bh=AA==; b=AA==\r\n",
		"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=a\\; h=from; bh=AA==; b=AA==\r\n",
		"",
	} {
		f := verified(t, v, mailFrom("192.0.2.1", "x@slow.example", text+plainMessage))
		if f.SPF.Result != authres.ResultTempError || f.DMARC.Result != authres.ResultFail || f.Verdict().Refuse == "" {
			t.Errorf("%q: %+v", text, f)
		}
	}
}

func TestIPRev(t *testing.T) {
	dns := startDNS(t, `
		1.2.0.192.in-addr.arpa. PTR wrong.example.org.
		1.2.0.192.in-addr.arpa. PTR mail.example.org.
		2.2.0.192.in-addr.arpa. PTR wrong.example.org.
		4.2.0.192.in-addr.arpa. PTR broken.example.org.
		wrong.example.org. A 192.0.2.99
		mail.example.org. A 192.0.2.1
	`)
	dns.set(func(s *testDNS) { s.broken["broken.example.org."], s.broken["5.2.0.192.in-addr.arpa."] = true, true })
	for addr, want := range map[string]string{
		"192.0.2.1": "pass mail.example.org", "::ffff:192.0.2.1": "pass mail.example.org", "192.0.2.2": "fail wrong.example.org",
		"192.0.2.3": "permerror ", "192.0.2.4": "temperror broken.example.org", "192.0.2.5": "temperror ",
	} {
		f := testVerifier(dns).checkIPRev(context.Background(), netip.MustParseAddr(addr))
		if got := fmt.Sprint(f.Result, " ", f.Name); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

func TestClaimsResults(t *testing.T) {
	for value, claims := range map[string]bool{
		" mail.test; none":                               true,
		"mail.test;none":                                 true,
		" MAIL.Test 1; spf=pass":                         true,
		"\r\n mail.test\r\n\t;\r\n dkim=pass":            true,
		" (by us) mail.test (yes (really)) 1 (v) ; none": true,
		" (\\) ;) mail.test; none":                       true,
		" \"mail.test\"; none":                           true,
		" \"ma\\il.test\"; none":                         true,
		" mail.test.; none":                              true,
		" mail.\r\n test; none":                          true,
		" ma(x)il.test; none":                            true,
		" mail.test":                                     true,
		" mail.test/1; none":                             true,
		" ; none":                                        true,
		"":                                               true,
		" (unclosed mail.test; none":                     true,
		" =; mail.test":                                  true,
		" mx.example.org; dkim=pass header.d=mail.test":     false,
		" mx.example.org (mail.test); none":                 false,
		" mail.test.example.org; none":                      false,
		" xmail.test; none":                                 false,
		" spf=pass (sender IP is 192.0.2.1); dkim=none":     false,
		" mx.example.org\r\n\t1; spf=pass smtp.helo=a.test": false,
	} {
		if got := claimsResults([]byte("Authentication-Results:"+value+"\r\n"), "mail.test"); got != claims {
			t.Errorf("%q: %v", value, got)
		}
	}
	if !claimsResults([]byte("Authentication-Results: xn--bcher-kva.example; none\r\n"), "bücher.example") {
		t.Error("the other spelling of an international name is not known")
	}
}

// TestHeaderCopierRemovesForgedResults copies headers: what claims to be ours is gone, and not an octet else.
func TestHeaderCopierRemovesForgedResults(t *testing.T) {
	long := strings.Repeat("x", maxHeldField+10)
	for _, forged := range []string{
		"Authentication-Results: mail.test; dmarc=pass\r\n",
		"AUTHENTICATION-results :\r\n (c)\r\n mail.test;\r\n\tdmarc=pass;\r\n dkim=pass\r\n",
		"Authentication-Results: (" + long + ") mail.test; none\r\n",
		"Authentication-Results: (" + long + "\r\n " + long + ") mail.test; none\r\n",
	} {
		for _, format := range []string{
			"%sFrom: a@example.org\r\n\r\nAuthentication-Results: mail.test; in the body\r\n",
			"From: a@example.org\r\n folded\r\n%sAuthentication-Results: other.example; spf=fail\r\n\r\nbody\r\n",
			"From: a@example.org\r\n%s",
			"From: a@example.org\r\nno field here\r\n%sTo: b\r\n\r\nbody\r\n\r\n",
			"no field here " + long + "\r\n%sTo: b\r\nno field\r\n%[1]s\r\nbody",
			"Subject: " + long + "\r\n%s%[1]s\r\n",
			"Authentication-Results: other.example; spf=fail\r\n%s\r\n",
		} {
			text, want := fmt.Sprintf(format, forged), strings.ReplaceAll(strings.ReplaceAll(format, "%s", ""), "%[1]s", "")
			if got := copiedHeader(t, text); got != want {
				t.Errorf("%.200q\ngave %.300q", text, got)
			}
		}
	}
}

// copiedHeader gives what headerCopier makes of a message.
func copiedHeader(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	h, r := &headerCopier{host: "mail.test"}, bufio.NewReader(strings.NewReader(text))
	err := h.run(&out, r)
	if err == nil {
		err = h.runOn(&out, r)
	}
	if _, cerr := out.ReadFrom(r); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	return out.String()
}

// TestHeaderCopierRemovesVerdicts copies headers: what a stranger says that a filter has said is gone, however it is written.
func TestHeaderCopierRemovesVerdicts(t *testing.T) {
	for _, forged := range []string{
		"X-Spam: No", "X-Spam-Flag: NO", "x-spam-status:No, score=-9", "X-SPAM-LEVEL:", "X-Spam-Checker-Version: SpamAssassin", "X-Spamd-Result: default: False",
		"X-SpamPal: PASS", "X-Rspamd-Action: no action", "X-Bogosity: Ham, tests=bogofilter", "X-DSPAM-Result: Innocent", "X-Text-Classification: inbox",
		"X-CRM114-Status: GOOD", "X-MS-Exchange-Organization-SCL: -1", "X-Spam-Status: No,\r\n\tscore=-9\r\n tests=NONE",
		"X-Spam-Flag : NO", "X-Spam-Flag\t \t: NO", "X-Spam\x00-Flag: NO", "\x00X-Spam-Flag: NO", "X-Spam-Flag\x00: NO", "X-Spam-Flag\x0b: NO",
		"X-Spam\x7f-Flag: NO", "X-Spam\u00a0-Flag: NO", "X-Spam\xff-Status: No", "X-Spam\x00-Status: No,\r\n\tscore=-9", "X-Spam-Flag" + strings.Repeat(" ", 10_000) + ": NO",
		"X-Spam-Flag" + strings.Repeat("\x00", 10_000) + ": NO", "Authentication-Results\x00: mail.test; dmarc=pass", "X-Spam -Status: No",
	} {
		for _, format := range []string{
			"%sFrom: a@example.org\r\n\r\nX-Spam-Flag: NO, in the body\r\n",
			"From: a@example.org\r\n folded\r\n%sX-Sp: kept\r\nSpam: kept\r\n\r\nbody\r\n",
			"From: a@example.org\r\n%s",
			"From: a@example.org\r\nno field here\r\n%sTo: b\r\n\r\nbody\r\n",
			"From: a@example.org\r\nodd\x00name: kept\r\n%[1]s%[1]sTo: b\r\n\r\nbody\r\n",
		} {
			text, want := fmt.Sprintf(format, forged+"\r\n"), strings.ReplaceAll(strings.ReplaceAll(format, "%s", ""), "%[1]s", "")
			if got := copiedHeader(t, text); got != want {
				t.Errorf("%.200q\ngave %.300q", text, got)
			}
		}
	}
	kept := "From: a@example.org\r\nX-Mailer: x-spam\r\nX-Scam: y\r\nAuthentication-Results: other.example; spf=fail\r\nX Spam is no field\r\n\r\nX-Spam: y\r\n"
	if got := copiedHeader(t, kept); got != kept {
		t.Errorf("%q became %q", kept, got)
	}
}

func TestResultsFieldHoldsNoInjection(t *testing.T) {
	evil := "a\r\nX: y\"; dkim=pass \\ (\x00) ü"
	f := Findings{Host: "mail.test", Judged: true, SPF: SPFFinding{Result: "fail", From: evil + "@x", Reason: evil},
		DKIM: []DKIMFinding{{Result: "fail", Domain: evil, Selector: evil, Mark: evil, Reason: strings.Repeat("ü", 400)}}, DMARC: DMARCFinding{Domain: evil}}
	fields := splitHeader([]byte(f.Field()))
	if len(fields) != 1 {
		t.Fatalf("%d fields: %q", len(fields), f.Field())
	}
	_, results, err := authres.Parse(fields[0].Value())
	if err != nil || len(results) != 5 {
		t.Errorf("%d results, %v: %s", len(results), err, f.Field())
	}
}

// TestVerifyCorpus judges real mail while the DNS knows nothing, and while there is none.
func TestVerifyCorpus(t *testing.T) {
	files := corpusFiles(t)
	if testing.Short() {
		files = files[:min(len(files), 200)]
	}
	dns := startDNS(t, "example. A 192.0.2.1")
	for name, v := range map[string]*Verifier{
		"empty": testVerifier(dns), "none": {Resolver: &Resolver{Servers: []string{}}, Hostname: func() string { return "mail.test" }},
	} {
		slowest := time.Duration(0)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			f := verified(t, v, mailFrom("192.0.2.1", "x@example.net", string(asReceived(text))))
			slowest = max(slowest, time.Since(start))
			if v := f.Verdict(); v.Refuse != "" || len(splitHeader([]byte(v.Fields))) != 1 {
				t.Errorf("%s: %+v", file, v)
			}
		}
		if slowest > 5*time.Second {
			t.Errorf("%s: the slowest of %d took %s", name, len(files), slowest)
		}
		t.Logf("%s: %d messages, the slowest took %s", name, len(files), slowest)
	}
}

// FuzzVerify judges any bytes: no error, one field.
func FuzzVerify(f *testing.F) {
	for _, text := range nastyMessages() {
		f.Add([]byte(text), "x@example.org")
	}
	f.Add([]byte("DKIM-Signature: v=1; a=rsa-sha256; d=a.b; s=c; h=from:from; bh=AA==; b=BB==\r\nFrom: a@b.c, d@e.f\r\n\r\nx"), "")
	f.Add([]byte("ARC-Seal: i=1; cv=none; d=a.b; s=c; b=AA==\r\nARC-Message-Signature: i=1; h=from; d=a.b; s=c\r\nARC-Authentication-Results: i=1; x\r\n\r\n"), "@")
	f.Add([]byte("Authentication-Results: (a) mail.test; none\r\n"), "")
	v := &Verifier{Resolver: &Resolver{Servers: []string{}}, Hostname: func() string { return "mail.test" }}
	f.Fuzz(func(t *testing.T, text []byte, from string) {
		found := verified(t, v, &ReceivedMail{Remote: netip.MustParseAddr("192.0.2.1"), From: from, Message: bytes.NewReader(text), Size: int64(len(text))})
		if field := found.Field(); len(splitHeader([]byte(field))) != 1 {
			t.Fatalf("%q", field)
		}
		claimsResults(text, "mail.test")
		withoutSignature(text)
		parseDMARC(string(text))
		if _, err := parseDKIMKey(string(text)); err == nil && len(text) < 32 {
			t.Fatalf("%q is a key", text)
		}
	})
}
