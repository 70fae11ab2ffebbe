package main

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// The examples that the RFCs themselves have: these tests need nothing that may be missing.

const rfc6376Key = "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYt" +
	"IxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhi" +
	"tdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"

const rfc8463Key = "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb" +
	"3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB"

// rfcDKIMMail is the message of RFC 6376 appendix A.2 and of RFC 8463 appendix A.3, which differ in two spaces.
const rfcDKIMMail = `From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.@Are you hungry yet?

Joe.
`

const rfc6376Signature = `DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
`

const rfc8463Signatures = `DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
`

// TestDKIMOfRFCs verifies the signed messages of RFC 6376 and RFC 8463, by RSA and Ed25519, and changed ones.
func TestDKIMOfRFCs(t *testing.T) {
	v := testVerifier(startDNS(t, strings.Join([]string{
		zone("brisbane._domainkey.example.com.", rfc6376Key), zone("test._domainkey.football.example.com.", rfc8463Key),
		zone("brisbane._domainkey.football.example.com.", "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="),
	}, "\n")))
	for _, signed := range []struct{ signature, space, who string }{
		{rfc6376Signature, " ", "pass example.com/brisbane"},
		{rfc8463Signatures, "  ", "pass football.example.com/brisbane; pass football.example.com/test"},
	} {
		text := asCRLF(signed.signature + strings.Replace(rfcDKIMMail, "@Are", signed.space+"Are", 1))
		if got := dkimOf(t, v, text); got != signed.who {
			t.Errorf("%s, want %s", got, signed.who)
		}
		for _, change := range [][2]string{{"We lost", "We won"}, {"dinner ready", "dinner over"}, {"Suzie Q", "Suzie R"}, {"b=AuUo", "b=BuUo"}, {"Joe SixPack", "Moe SixPack"}} {
			if !strings.Contains(text, change[0]) {
				continue
			}
			if got, want := dkimOf(t, v, strings.Replace(text, change[0], change[1], 1)), strings.ReplaceAll(signed.who, "pass", "fail"); got != want {
				t.Errorf("changed to %q: %s, want %s", change[1], got, want)
			}
		}
	}
}

// asCRLF gives a text with the line ends of mail.
func asCRLF(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }

// TestSPFOfRFC checks the examples of RFC 7208 appendix A.1 and A.2.
func TestSPFOfRFC(t *testing.T) {
	const hosts = `
		example.com.   MX 10 mail-a.example.com.
		example.com.   MX 20 mail-b.example.com.
		example.com.   A 192.0.2.10
		example.com.   A 192.0.2.11
		amy.example.com.    A 192.0.2.65
		bob.example.com.    A 192.0.2.66
		mail-a.example.com. A 192.0.2.129
		mail-b.example.com. A 192.0.2.130
		www.example.com.    CNAME example.com.
		example.org.   MX 10 mail-c.example.org.
		mail-c.example.org. A 192.0.2.140
		10.2.0.192.in-addr.arpa.  PTR example.com.
		11.2.0.192.in-addr.arpa.  PTR example.com.
		65.2.0.192.in-addr.arpa.  PTR amy.example.com.
		66.2.0.192.in-addr.arpa.  PTR bob.example.com.
		129.2.0.192.in-addr.arpa. PTR mail-a.example.com.
		130.2.0.192.in-addr.arpa. PTR mail-b.example.com.
		140.2.0.192.in-addr.arpa. PTR mail-c.example.org.
		4.0.0.10.in-addr.arpa.    PTR bob.example.com.
	`
	clients := strings.Fields("192.0.2.10 192.0.2.11 192.0.2.65 192.0.2.66 192.0.2.129 192.0.2.130 192.0.2.131 192.0.2.140 192.0.2.143 10.0.0.4 2001:db8::1")
	for record, pass := range map[string]string{
		"v=spf1 +all":                           strings.Join(clients, " "),
		"v=spf1 a -all":                         "192.0.2.10 192.0.2.11",
		"v=spf1 a:example.org -all":             "",
		"v=spf1 mx -all":                        "192.0.2.129 192.0.2.130",
		"v=spf1 mx:example.org -all":            "192.0.2.140",
		"v=spf1 mx mx:example.org -all":         "192.0.2.129 192.0.2.130 192.0.2.140",
		"v=spf1 mx/30 mx:example.org/30 -all":   "192.0.2.129 192.0.2.130 192.0.2.131 192.0.2.140 192.0.2.143",
		"v=spf1 ptr -all":                       "192.0.2.10 192.0.2.11 192.0.2.65 192.0.2.66 192.0.2.129 192.0.2.130",
		"v=spf1 ip4:192.0.2.128/28 -all":        "192.0.2.129 192.0.2.130 192.0.2.131 192.0.2.140 192.0.2.143",
		"v=spf1 include:elsewhere.example -all": "192.0.2.66", // A.2
	} {
		v := &Verifier{Resolver: startDNS(t, hosts+`
			example.com. TXT "`+record+`"
			elsewhere.example. TXT "v=spf1 ip4:192.0.2.66 -all"`).Resolver}
		for _, client := range clients {
			got := v.checkSPF(context.Background(), &ReceivedMail{Remote: netip.MustParseAddr(client), Helo: "client.example", From: "a@example.com"})
			want := "fail"
			if slices.Contains(strings.Fields(pass), client) {
				want = "pass"
			}
			if string(got.Result) != want {
				t.Errorf("%s, from %s: %s (%s), want %s", record, client, got.Result, got.Reason, want)
			}
		}
	}
}

// TestDMARCOfRFC judges the messages of RFC 7489 appendix B.1 by the records of appendix B.2, from the envelope on.
func TestDMARCOfRFC(t *testing.T) {
	const records = `
		example.com.       TXT "v=spf1 ip4:192.0.2.1 -all"
		child.example.com. TXT "v=spf1 ip4:192.0.2.1 -all"
		example.net.       TXT "v=spf1 ip4:192.0.2.1 -all"
	`
	key := newDKIMTestKey(t, 1024)
	keys := zone("s._domainkey.example.org.", key.record) + "\n"
	for name, c := range map[string]struct{ sender, author, want string }{
		"B.1.1 example 1": {"sender@example.com", "sender@example.com", "pass"},
		"B.1.1 example 2": {"sender@child.example.com", "sender@example.com", "pass"},
		"B.1.1 example 3": {"sender@example.net", "sender@child.example.com", "fail"},
	} {
		for record, disposition := range map[string]string{
			"v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com":                                                          "none",
			"v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com; ruf=mailto:auth-reports@example.com":                     "none",
			"v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com; ruf=mailto:auth-reports@thirdparty.example.net":          "none",
			"v=DMARC1; p=quarantine; rua=mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net!10m; pct=25": "none", // 50 is drawn
			"v=DMARC1; p=quarantine; rua=mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net!10m; pct=75": "quarantine",
			"v=DMARC1; p=reject; rua=mailto:dmarc-feedback@example.com; aspf=r; adkim=r":                                       "reject",
		} {
			v := testVerifier(startDNS(t, records+keys+zone("_dmarc.example.com.", record)))
			f := verified(t, v, mailFrom("192.0.2.1", c.sender, "From: "+c.author+"\r\nSubject: x\r\n\r\nbody\r\n"))
			want := disposition
			if c.want == "pass" {
				want = "none"
			}
			if string(f.DMARC.Result) != c.want || f.DMARC.Disposition != want {
				t.Errorf("%s by %s: %+v", name, record, f.DMARC)
			}
		}
	}
	// B.1.2: DKIM alignment, the signer being example.org here.
	for author, want := range map[string]string{"sender@example.org": "pass", "sender@child.example.org": "pass", "sender@sample.net": "fail"} {
		v := testVerifier(startDNS(t, keys+`
			_dmarc.example.org. TXT "v=DMARC1; p=reject"
			_dmarc.sample.net. TXT "v=DMARC1; p=reject"`))
		f := verified(t, v, mailFrom("192.0.2.1", "", dkimSigned(t, key, "s", "", "From: "+author+"\r\nSubject: x\r\n\r\nbody\r\n")))
		if string(f.DMARC.Result) != want || (f.Verdict().Refuse != "") != (want == "fail") {
			t.Errorf("B.1.2, %s: %+v", author, f.DMARC)
		}
	}
}
