package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/authres"
)

// TestDMARC holds messages to policies: the cases of RFC 7489 §3.1.1, §6.6 and appendix B.1, and what people publish.
func TestDMARC(t *testing.T) {
	dns := startDNS(t, `
		_dmarc.none.example. TXT "v=DMARC1; p=none; rua=mailto:r@none.example"
		_dmarc.quarantine.example. TXT "v=DMARC1; p=quarantine"
		_dmarc.reject.example. TXT "v=DMARC1; p=reject"
		_dmarc.strict.example. TXT "v=DMARC1; p=reject; adkim=s; aspf=s"
		_dmarc.sub.example. TXT "v=DMARC1; p=reject; sp=none"
		_dmarc.own.sub.example. TXT "v=DMARC1; p=quarantine; sp=reject"
		_dmarc.some.example. TXT "v=DMARC1; p=reject; pct=50"
		_dmarc.most.example. TXT "v=DMARC1; p=reject; pct=51"
		_dmarc.few.example. TXT "v=DMARC1; p=quarantine; pct=0"
		_dmarc.twice.example. TXT "v=DMARC1; p=reject"
		_dmarc.twice.example. TXT "v=DMARC1; p=none"
		_dmarc.beside.example. TXT "google-site-verification=1"
		_dmarc.beside.example. TXT "V=DMARC1; p=none"
		_dmarc.beside.example. TXT "v = DMARC1 ;P=Reject ; fo=x; ri=never; new=thing; pct=200;"
		_dmarc.nopolicy.example. TXT "v=DMARC1; rua=mailto:r@x.example"
		_dmarc.nothing.example. TXT "v=DMARC1; adkim=s"
		_dmarc.badpolicy.example. TXT "v=DMARC1; p=destroy; rua=mailto:r@x.example; sp=reject"
		_dmarc.badsub.example. TXT "v=DMARC1; p=reject; sp=destroy"
		_dmarc.co.uk. TXT "v=DMARC1; p=reject"
		_dmarc.alias.example. CNAME _dmarc.reject.example.
		_dmarc.xn--bcher-kva.example. TXT "v=DMARC1; p=reject"
	`)
	v := testVerifier(dns) // draws 50
	for _, test := range []struct{ from, spf, dkim, want string }{
		{"a@none.example", "", "", "fail none none"},
		{"a@quarantine.example", "", "", "fail quarantine quarantine"},
		{"a@reject.example", "", "", "fail reject reject"},
		{"a@REJECT.Example", "", "", "fail reject reject"},
		{"a@unknown.example", "", "", "none  none"},
		{"a@deep.er.reject.example", "", "", "fail reject reject"},
		{"a@alias.example", "", "", "fail reject reject"},
		{"a@bücher.example", "", "", "fail reject reject"},
		{"a@xn--bcher-kva.example", "pass xn--bcher-kva.example", "", "pass reject none"},

		// Alignment, RFC 7489 §3.1 and appendix B.1.
		{"a@reject.example", "pass reject.example", "", "pass reject none"},
		{"a@reject.example", "pass child.reject.example", "", "pass reject none"},
		{"a@child.reject.example", "pass reject.example", "", "pass reject none"},
		{"a@child.reject.example", "pass other.reject.example", "", "pass reject none"},
		{"a@reject.example", "pass xreject.example", "", "fail reject reject"},
		{"a@reject.example", "pass reject.example.net", "", "fail reject reject"},
		{"a@reject.example", "fail reject.example", "", "fail reject reject"},
		{"a@reject.example", "softfail reject.example", "", "fail reject reject"},
		{"a@reject.example", "neutral reject.example", "", "fail reject reject"},
		{"a@reject.example", "none reject.example", "", "fail reject reject"},
		{"a@reject.example", "permerror reject.example", "", "fail reject reject"},
		{"a@reject.example", "pass ", "", "fail reject reject"},
		{"a@reject.example", "", "pass reject.example", "pass reject none"},
		{"a@reject.example", "", "pass mail.reject.example", "pass reject none"},
		{"a@reject.example", "", "pass other.example", "fail reject reject"},
		{"a@reject.example", "", "pass example", "fail reject reject"},
		{"a@reject.example", "", "pass other.example,fail reject.example,pass REJECT.example", "pass reject none"},
		{"a@reject.example", "fail reject.example", "fail reject.example,permerror reject.example", "fail reject reject"},
		{"a@strict.example", "pass strict.example", "", "pass reject none"},
		{"a@strict.example", "pass child.strict.example", "pass child.strict.example", "fail reject reject"},
		{"a@child.strict.example", "pass strict.example", "pass strict.example", "fail reject reject"},
		{"a@child.strict.example", "", "pass child.strict.example", "pass reject none"},
		{"a@x.co.uk", "pass y.co.uk", "", "none  none"}, // a public suffix is nobody's
		{"a@co.uk", "", "", "fail reject reject"},

		// Subdomains: sp, and a record of their own.
		{"a@sub.example", "", "", "fail reject reject"},
		{"a@child.sub.example", "", "", "fail none none"},
		{"a@own.sub.example", "", "", "fail quarantine quarantine"},
		{"a@x.own.sub.example", "", "", "fail none none"}, // from sub.example

		// A share of the mail, RFC 7489 §6.6.4.
		{"a@some.example", "", "", "fail reject quarantine"},
		{"a@most.example", "", "", "fail reject reject"},
		{"a@few.example", "", "", "fail quarantine none"},

		// Records with mistakes, RFC 7489 §6.3 and §6.6.3.
		{"a@twice.example", "", "", "none  none"},
		{"a@beside.example", "", "", "fail reject reject"},
		{"a@nopolicy.example", "", "", "fail none none"},
		{"a@nothing.example", "", "", "none  none"},
		{"a@badpolicy.example", "", "", "fail none none"},
		{"a@x.badpolicy.example", "", "", "fail none none"},
		{"a@badsub.example", "", "", "none  none"},

		// Nobody can tell.
		{"a@reject.example", "temperror reject.example", "", "temperror reject none"},
		{"a@reject.example", "temperror other.example", "", "fail reject reject"},
		{"a@reject.example", "", "temperror reject.example", "temperror reject none"},
		{"a@reject.example", "pass reject.example", "temperror reject.example", "pass reject none"},

		// Several authors, RFC 7489 §6.6.1.
		{"a@none.example, b@reject.example", "pass none.example", "", "fail reject reject"},
		{"b@reject.example, a@none.example", "pass reject.example", "", "fail none none"},
		{"a@quarantine.example, b@quarantine.example", "", "", "fail quarantine quarantine"},
		{"a@reject.example\r\nFrom: b@unknown.example", "", "", "fail reject reject"},
		{"b@unknown.example\r\nFrom: a@reject.example", "", "", "fail reject reject"},
		{"group: a@reject.example;", "", "", "fail reject reject"},
		{"\"x@unknown.example\" <a@reject.example>", "", "", "fail reject reject"},
		{"a@a.test, a@b.test, a@c.test, a@d.test, a@e.test, a@reject.example", "", "", "permerror  quarantine"},
		{"a@none.example\r\nFrom: a@none.example", "pass none.example", "", "permerror none quarantine"},
		{"nobody", "", "", "permerror  quarantine"},
		{"", "", "", "permerror  quarantine"},
		{"group:;", "", "", "permerror  quarantine"},

		// What is no list of mailboxes: every domain in it counts.
		{"Bank <<a@reject.example>>", "", "", "fail reject reject"},
		{"\"Bank <a@reject.example>", "", "", "fail reject reject"},
		{"a@reject.example.", "", "", "fail reject reject"},
		{"<a@unknown.example> <a@reject.example>", "pass unknown.example", "", "fail reject reject"},
		{"a@unknown.example (<a@reject.example>", "pass unknown.example", "", "fail reject reject"},
		{"(<a@reject.example>", "", "", "fail reject reject"},
		{"Bank <<a@reject.example>>", "pass reject.example", "", "permerror reject quarantine"},
		{"<a@unknown.example> <a@none.example>", "", "", "permerror none quarantine"},
		{"Ann <a@unknown.example", "", "", "permerror  quarantine"},
		{"\"a@reject.example\" <a@unknown.example>", "", "", "none  none"},
		{"a@unknown.example (not a@reject.example)", "", "", "none  none"},
		{"a@[192.0.2.1]", "", "", "none  none"},
	} {
		m := mailFrom("192.0.2.1", "", "From: "+test.from+"\r\n\r\n")
		header := make([]byte, m.Size)
		if _, err := m.Message.ReadAt(header, 0); err != nil {
			t.Fatal(err)
		}
		opened := &openedMail{ReceivedMail: m, header: header, fields: splitHeader(header)}
		f := &Findings{}
		if result, domain, ok := strings.Cut(test.spf, " "); ok {
			f.SPF = SPFFinding{Result: authres.ResultValue(result), Domain: domain}
		}
		for one := range strings.SplitSeq(test.dkim, ",") {
			if result, domain, ok := strings.Cut(one, " "); ok {
				f.DKIM = append(f.DKIM, DKIMFinding{Result: authres.ResultValue(result), Domain: domain})
			}
		}
		d := v.decideDMARC(v.authorPolicies(t.Context(), opened), opened, f)
		if got := fmt.Sprint(d.Result, " ", d.Policy, " ", d.Disposition); got != test.want {
			t.Errorf("From: %s (SPF %q, DKIM %q): %s (%s), want %s", test.from, test.spf, test.dkim, got, d.Reason, test.want)
		}
	}
}

func TestDMARCOfEndlessHeader(t *testing.T) {
	dns := startDNS(t, `_dmarc.reject.example. TXT "v=DMARC1; p=reject"`)
	padding := strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", maxVerifyHeader/1000)
	signature := "DKIM-Signature: v=1; a=rsa-sha256; d=reject.example; s=k; h=from; bh=AA==; b=AA==\r\n"
	f := verified(t, testVerifier(dns), mailFrom("192.0.2.1", "", signature+padding+"From: a@reject.example\r\n\r\n"))
	if f.DMARC.Result != authres.ResultPermError || f.Verdict().Folder != "Junk" || f.DKIM[0].Result != authres.ResultPermError {
		t.Errorf("%+v", f)
	}
}
