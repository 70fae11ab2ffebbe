package main

import (
	"regexp"
	"strings"
	"testing"
)

// commandStep is a command, and what it says.
type commandStep struct {
	args   string
	status int
	want   string // pattern of all that it prints
}

func runSteps(t *testing.T, data string, steps []commandStep) {
	t.Helper()
	for _, step := range steps {
		status, out, errs := runCommand(t, data, "", strings.Fields(step.args)...)
		if status != step.status || !regexp.MustCompile(`\A(?:`+step.want+`)\z`).MatchString(out+errs) {
			t.Errorf("%s: %d %s%s, want %d %s", step.args, status, out, errs, step.status, step.want)
		}
	}
}

// A domain of the internet that comes here is told of; one of a provider does not come here.
func TestNewDomains(t *testing.T) {
	lost := "appliance: (gmail\\.com|gmx\\.de) is a provider's domain, and mail from here to everybody else there would be lost; to send with that address, take an account of this appliance, " +
		"such as `appliance user add (ann|info)`, then `appliance user sender add (ann ann@gmail\\.com|info info@gmx\\.de)`\n"
	told := func(domain, remove, add string) string {
		return "Mail for " + domain + " ends on this appliance now: what people here write to anybody there stays here\\.\n" +
			"If that domain is yours, `.* dns " + domain + "` prints the records to publish\\. If it is a provider's, remove " + remove + "\n" +
			"again, and let a person send with the address: `.* user sender add USER \"?" + add + "\"?`\n"
	}
	data := homeData(t)
	runSteps(t, data, []commandStep{
		{"user add Ann@GMail.com", 1, lost},
		{"alias add info@gmx.de maria", 1, lost},
		{"alias add @gmx.de maria", 1, "appliance: gmx.de is a provider's domain, .*; to send with an address there: `appliance user sender add USER ADDRESS`\n"},
		{"user add ann@xn--mller-kva.de", 0, "ann@müller.de has an account now\\.\nPassword: .*\n" + told("müller.de", "ann@müller.de", "ann@müller.de")},
		{"user add bob@MÜLLER.de", 0, "bob@müller.de has an account now\\.\nPassword: .*\n"},
		{"user add eve@pi.fritz.box", 0, "eve@pi.fritz.box has an account now\\.\nPassword: .*\n"},
		{"user add fred@example.org --json", 0, `\{\n  "address": "fred@example.org",\n  "password": "[a-z-]+",\n  "new_domain": "example.org"\n\}\n`},
		{"user add max@example.org --json", 0, `\{\n  "address": "max@example.org",\n  "password": "[a-z-]+"\n\}\n`},
		{"user rename bob@müller.de bob@gmail.com", 1, "appliance: gmail.com is a provider's domain, .*\n"},
		{"user rename eve@pi.fritz.box eve@example.info", 0, "The account is eve@example.info now\\. .*\n(?s:Mail for example.info ends .* give the account\nits old address again, .*)\n"},
		{"alias add @example.com maria", 0, "@example.com goes to maria@home.lan now\\.\n" + told("example.com", "@example.com", "ADDRESS")},
		{"alias add info@example.net maria --json", 0, `\{\n  "address": "info@example.net",\n  "to": \[\n    "maria@home.lan"\n  \],\n  "new_domain": "example.net"\n\}\n`},
		{"alias add info@example.net bob@müller.de --json", 0, `(?s)\{\n  "address": "info@example.net",\n.*"bob@müller.de"\n  \]\n\}\n`},
	})
}

// The commands about addresses elsewhere, and what a relay for them needs before a password is asked for.
func TestOutsideCommands(t *testing.T) {
	data := homeData(t)
	way := "Let the provider's server for outgoing mail \\(SMTP\\) send it, or others will refuse it:\n  .* relay set HOST maria@gmail.com --for maria@gmail.com\n"
	runSteps(t, data, []commandStep{
		{"user sender list", 0, `Nobody sends with an address elsewhere\.\n`},
		{"user sender list --json", 0, `\[\]\n`},
		{"user sender add maria", 2, `(?s)appliance: user sender add needs USER ADDRESS\n.*`},
		{"user sender add maria maria", 1, `appliance: "maria" is not an address: write it as name@domain\n`},
		{"user sender add nobody maria@gmail.com", 1, "appliance: nobody@home.lan has no account here; .*\n"},
		{"user sender add maria info@home.lan", 1, "appliance: home.lan is a domain of this appliance; .*\n"},
		{"user sender add maria Maria@GMAIL.com", 0, "maria@home.lan can send with maria@gmail.com now\\.\n" + way},
		{"user sender add maria maria@gmail.com", 1, "appliance: maria@home.lan can send with maria@gmail.com already\n"},
		{"user sender list", 0, `maria@home.lan  maria@gmail.com  no relay\n`},
		{"user sender list --json", 0, `\[\n  \{\n    "account": "maria@home.lan",\n    "address": "maria@gmail.com"\n  \}\n\]\n`},
		{"user list", 0, `maria@home.lan +owner, sends with maria@gmail.com\n`},
		{"user list --json", 0, `(?s)\[.*"send_as": \[\n +"maria@gmail.com"\n +\].*`},
		{"relay set smtp.gmail.com maria@gmail.com --for gmx.de", 1, "appliance: nobody here has an address at gmx.de: `appliance user sender add USER ADDRESS` lets somebody send with one elsewhere\n"},
		{"relay set smtp.gmail.com maria@gmail.com --for bob@gmail.com", 1, "appliance: nobody here can send with bob@gmail.com: `appliance user sender add USER bob@gmail.com` lets somebody\n"},
		{"relay set smtp.gmail.com maria@gmail.com --for bob@home.lan", 1, "appliance: nobody here has the address bob@home.lan\n"},
		{"relay set smtp.gmail.com maria@gmail.com --for @gmail.com", 1, `appliance: "@gmail.com" is not an address: write it as name@domain\n`},
		{"relay set smtp.gmail.com maria@gmail.com --for gmail_com", 1, `appliance: "gmail_com" is neither an address nor a domain: only letters.*\n`},
		{"relay set smtp.gmail.com maria@gmail.com --from maria", 1, `appliance: "maria" is not an address: write it as name@domain\n`},
		{"relay set smtp_gmail.com maria@gmail.com", 1, `appliance: "smtp_gmail.com" is no name of a server: .*\n`},
		{"relay set smtp.gmail.com:x maria@gmail.com", 2, `(?s)appliance: "smtp.gmail.com:x" is no server: .*`},
		{"relay set smtp.gmail.com maria@gmail.com --for maria@gmail.com", 2, `(?s)appliance: there is no terminal to ask for the password: .*`},
		{"relay remove --for maria@gmail.com", 1, "appliance: maria@gmail.com has no relay of its own; .*\n"},
		{"user sender remove maria bob@gmail.com", 1, "appliance: maria@home.lan does not send with bob@gmail.com; .*\n"},
		{"user sender remove maria MARIA@gmail.com", 0, `maria@home.lan does not send with maria@gmail.com any more\.\n`},
		{"user sender list", 0, `Nobody sends with an address elsewhere\.\n`},
	})
}
