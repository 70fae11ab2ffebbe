package main

import (
	"fmt"
	"net/mail"
	"strings"
	"time"
	"unicode"

	"github.com/emersion/go-msgauth/authres"
)

// The rules that need no teaching. Each adds points for what is seldom in wanted mail, or takes some for what is seldom in
// unwanted mail. None of them alone makes a message spam but what a person has said themselves.

// listPoints is what a DNS list counts.
const listPoints = 4.0

// originRules judges where the message comes from.
func (j *spamJudgment) originRules() {
	f := j.findings
	if f.Collected || !f.Judged {
		j.vouchedRule()
		return
	}
	forwarded := f.ARC.Result == authres.ResultPass // SPF fails behind every forwarder
	switch {
	case f.SPF.Result == authres.ResultFail && !forwarded:
		j.add(2, "its sender's domain says that it does not send from there (SPF)")
	case f.SPF.Result == authres.ResultSoftFail && !forwarded:
		j.add(1, "its sender's domain says that it hardly sends from there (SPF)")
	}
	switch {
	case f.DMARC.Result == authres.ResultFail && f.DMARC.Disposition == "none" && !forwarded:
		j.add(1.5, "nothing shows that it is from its author's domain (DMARC)")
	case f.DMARC.Result == authres.ResultPermError:
		j.add(1, "it has no author whom one could ask (DMARC)")
	}
	switch f.IPRev.Result {
	case authres.ResultPermError:
		j.add(1, "the machine it comes from has no name")
	case authres.ResultFail:
		j.add(0.7, "the name of the machine it comes from is not its own")
	}
	j.heloRule()
	j.vouchedRule()
}

// heloRule judges the name with which the client greets (RFC 5321 §4.1.1.1).
func (j *spamJudgment) heloRule() {
	helo := strings.ToLower(j.mail.Helo)
	switch {
	case helo == strings.ToLower(j.findings.Host):
		j.add(2, "the machine it comes from greets with the name of this server")
	case !strings.HasPrefix(helo, "[") && !strings.Contains(helo, "."):
		j.add(0.5, "the machine it comes from greets without a name of the internet")
	}
}

func (j *spamJudgment) vouchedRule() {
	if j.vouched {
		j.add(-0.5, "it is shown to be from its author's domain")
	}
}

// headerRules judges the fields.
func (j *spamJudgment) headerRules(fields []headerField) {
	list := hasField(fields, "List-Id") || hasField(fields, "List-Unsubscribe") || hasField(fields, "Mailing-List")
	if !j.authored {
		j.add(2, "it does not say whom it is from")
	} else {
		j.authorRules(fields, list)
	}
	if !hasField(fields, "Message-ID") {
		j.add(0.7, "it has no Message-ID")
	}
	if date, ok := findField(fields, "Date"); !ok {
		j.add(0.7, "it has no date")
	} else if when, err := mail.ParseDate(date.Value()); err == nil && when.Sub(j.filter.cfg.Now()) > 24*time.Hour {
		j.add(1, "its date is in the future")
	}
	if !hasField(fields, "To") && !hasField(fields, "Cc") {
		j.add(0.5, "it does not say whom it is for")
	}
	subject, _ := findField(fields, "Subject")
	text := decodeHeaderText(clip(subject.Value(), spamSubject))
	if isShouted(text) {
		j.add(1, "its subject is in capitals")
	}
	reply := len(text) > 3 && strings.EqualFold(text[:3], "re:")
	if reply && !list && !hasField(fields, "In-Reply-To") && !hasField(fields, "References") {
		j.add(0.5, "it calls itself an answer and names no message")
	}
}

// authorRules judges who wrote it.
func (j *spamJudgment) authorRules(fields []headerField, list bool) {
	if !j.vouched && !list && j.findings.Judged && j.filter.cfg.IsLocalDomain(j.author.Domain) {
		j.add(2.5, "it says that it is from here, and comes from outside")
	}
	from, _ := findField(fields, "From")
	for _, a := range parseAddressList(from.Value()) {
		name := decodeHeaderText(a.Name)
		for word := range strings.FieldsFuncSeq(clip(name, spamFieldWords), func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("<>()[]\"',;", r) }) {
			shown, err := ParseAddress(word)
			if err == nil && strings.Contains(shown.Domain, ".") && organisation(strings.ToLower(shown.Domain)) != organisation(strings.ToLower(a.Domain)) {
				j.add(2, "the name of its author shows another address than the author's")
				return
			}
		}
	}
}

// isShouted says whether a text is all in capitals.
func isShouted(text string) bool {
	capitals := 0
	for _, r := range text {
		if unicode.IsLower(r) {
			return false
		}
		if unicode.IsUpper(r) {
			capitals++
		}
	}
	return capitals >= 10
}

// fewLetters is how little text makes pictures the message.
const fewLetters = 200

// contentRules judges the parts.
func (j *spamJudgment) contentRules(f *spamFacts) {
	if f.program != "" {
		_, ending, _ := cutLast(f.program, '.')
		j.add(4, fmt.Sprintf("an attachment is a program for Windows (.%s)", ending))
	}
	if f.page != "" {
		j.add(1.5, "an attachment is a web page")
	}
	if f.numberLinks > 0 {
		j.add(1.5, "it links to an address of the internet without a name")
	}
	if f.liars > 0 {
		j.add(1, "a link leads elsewhere than it says")
	}
	if f.forms > 0 {
		j.add(1, "it has a form to fill in")
	}
	if f.torn >= 3 {
		j.add(1.5, "invisible characters hide its words")
	}
	if f.html && !f.plain {
		if f.images > 0 && f.letters < fewLetters {
			j.add(1, "it is hardly more than pictures")
		} else {
			j.add(0.3, "it is HTML only")
		}
	}
}

// acquaintance judges by what a person thinks of the author. Whoever wrote to somebody, or took their mail out of Junk, wants
// it; that is only fully believed where the message is shown to be theirs.
func (j *spamJudgment) acquaintance(account string) (spamReason, bool) {
	if !j.authored {
		return spamReason{}, false
	}
	as := j.filter.learned.knows(account, j.author)
	failed := j.findings.DMARC.Result == authres.ResultFail || j.findings.SPF.Result == authres.ResultFail
	switch {
	case as&knownUnwanted != 0 && j.vouched:
		return spamReason{6, "mail of its author has been moved into Junk"}, true
	case as&(knownWritten|knownWanted) == 0, failed && !j.vouched:
		return spamReason{}, false
	case !j.vouched:
		return spamReason{-2, "its author seems to be known"}, true
	case as&knownWritten != 0:
		return spamReason{-8, "the recipient has written to its author"}, true
	}
	return spamReason{-6, "mail of its author has been moved out of Junk"}, true
}
