package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// layout is the order of the house: each line a family of files, and after the
// colon those further up whose names it may use. What it may use, its users do
// not get thereby. A file belongs to the family with its name, or with its name
// up to the first underscore; other members stand in parentheses. FAMILY.Name
// allows that one name.
//
// News travels the other way by channels and func values, and through methods
// of types that a file was handed.
const layout = `
	address:
	words:
	sorting:
	naming: address
	mutf7:
	message: address
	mailstate:

	maildir: mailstate
	foldername: mailstate mutf7
	uidlist: maildir mailstate
	keywords: maildir mailstate uidlist
	flagjournal: maildir mailstate
	subscriptions: foldername maildir uidlist
	attributes: maildir subscriptions
	acl: mailstate
	index: sorting maildir mailstate uidlist
	mailbox (delivery folder view watch incoming mailfile quota metadata): sorting address maildir mailstate foldername uidlist keywords flagjournal subscriptions acl attributes index

	resolver: sorting message.isASCII
	envelope: address naming.normalDomain mailbox.cutLast
	tomlfile:
	settings: naming tomlfile maildir.writeFileAtomic
	accounts (password scram): settings.checkZone settings.loadZone address naming tomlfile maildir mailstate
	tls: sorting address words maildir naming resolver
	conn (throttle strangers inflate): words accounts
	sasl: accounts conn
	dkim: resolver mailbox.plainName maildir address.ErrBadAddress
	received: address message
	verify: resolver received address naming message mailbox.cutLast
	dns: address dkim.DNSRecord tls
	spam: sorting foldername.junkName words.foreignWords settings.milterAddress outbox.outboxName resolver received verify address naming message mailbox mailstate maildir conn.clip
	send: resolver envelope address words naming message maildir.writeJSON maildir.readJSON mailbox.cutLast conn.writeChunk conn.clip
	relay: sorting send resolver address naming tomlfile maildir.writeFileAtomic
	diary: sorting words maildir
	metrics: maildir
	notice:
	queue: send envelope words mailbox maildir conn.clip message notice
	flood: sorting words accounts.Identity maildir.writeJSON maildir.readJSON
	outbox: accounts address mailbox mailstate message notice queue send
	rules (away forward srs): received.isVerdictField mailbox.cutLast accounts address naming.normalDomain maildir mailbox message envelope queue send.isPrintable conn.clip notice.mailDate flood foldername
	outbound: rules outbox accounts address mailbox mailstate message send queue envelope flood notice foldername

	pop3: accounts conn sasl mailbox mailstate protocols.Protocols
	smtp: diary.smtpFailure accounts address naming envelope flood.FloodSender queue notice.mailDate conn sasl mailbox mailstate message received verify protocols.Protocols
	movein (collect): sorting outbox.outboxName resolver outbox.outboxName accounts address words naming tomlfile maildir foldername mailbox mailstate received.Verdict message notice send resolver.asciiName conn.clip conn.earlier conn.copySize smtp.headerCopier smtp.applyVerdict smtp.messageReader smtp.errTooLarge protocols.DefaultMaxSize

	textindex:
	imap: sorting accounts acl conn sasl mailbox mailstate message mutf7 textindex protocols.Protocols
	protocols: address.Address accounts conn mailbox received queue flood pop3 smtp imap verify.isNear

	doctor: resolver address tls dns dkim.DNSRecord verify received.ReceivedMail send queue.cleanText accounts.roundSize maildir.writeJSON maildir.readJSON protocols.Port protocols.isPermission protocols.isWindowsError

	mdns: sorting address.isDomainLabel tls.addressOf protocols.Port
	webport: tls conn.throttlePrefix conn.sourceCounts conn.remoteAddr verify.isNear protocols.Port protocols.listenTCP protocols.isInUse
	datadir (lock rights):
	log:
	service: maildir.renameFile maildir.removeFile datadir.letIn
	check (carry): accounts acl attributes datadir doctor flagjournal foldername keywords maildir mailbox movein naming queue relay settings uidlist words.tameWords
	admin: metrics.MetricsToken sorting conn.MailSession rules accounts acl address naming mailbox mailstate queue relay send doctor movein spam settings tls protocols.Port log.Trouble
	control: admin datadir maildir
	web: verify.isNear send.trialError send.trialLogin send.trialTLS sorting metrics diary words.foreignWords queue.QueueEntry log.LogLine movein accounts address tls dns relay admin.order admin.answer admin.ServerStatus spam.SpamStatus conn doctor settings naming protocols.Port tomlfile.decodeTOML webport.hostOfRequest
	command (firststart): sorting metrics diary mdns conn.MailSession check rules web conn.NewThrottle conn.Throttle accounts address resolver dkim dns doctor send relay queue flood outbound movein admin control datadir mailbox mailstate naming protocols settings maildir.writeFileAtomic tls verify spam webport words log service queue.cleanText
	main: command service
`

// family is one line of the layout.
type family struct {
	name string
	may  map[string]bool // families and FAMILY.Name
}

// parseLayout reads the table: the families in order, and for each the file
// stems that belong to it.
func parseLayout(t *testing.T) (families map[string]*family, members map[string]string) {
	t.Helper()
	families, members = map[string]*family{}, map[string]string{}
	var order []string
	for line := range strings.Lines(layout) {
		head, may, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		name, others, _ := strings.Cut(head, "(")
		name = strings.TrimSpace(name)
		f := &family{name, map[string]bool{}}
		for _, other := range strings.Fields(may) {
			if !slices.Contains(order, other) && !strings.Contains(other, ".") {
				t.Errorf("layout: %s may use %s, which does not stand above it", name, other)
			}
			f.may[other] = true
		}
		order = append(order, name)
		families[name] = f
		for _, stem := range append(strings.Fields(strings.TrimSuffix(others, ")")), name) {
			members[stem] = name
		}
	}
	return families, members
}

// familyOf gives the family of a file, "" for none.
func familyOf(members map[string]string, path string) string {
	stem := strings.TrimSuffix(filepath.Base(path), ".go")
	if name := members[stem]; name != "" {
		return name
	}
	stem, _, _ = strings.Cut(stem, "_")
	return members[stem]
}

// TestLayout fails for every name that a file uses and may not.
func TestLayout(t *testing.T) {
	families, members := parseLayout(t)
	fset := token.NewFileSet()
	files := map[string]*ast.File{}
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files[path] = file
		if familyOf(members, path) == "" {
			t.Errorf("%s belongs to no family of the layout", path)
		}
	}
	owners := declarations(files)
	for _, path := range paths {
		file := files[path]
		if file == nil {
			continue
		}
		user := families[familyOf(members, path)]
		for _, id := range file.Unresolved { // names from other files of the package, and Go's own
			for _, owner := range owners[id.Name] {
				of := familyOf(members, owner)
				if user != nil && of != user.name && !user.may[of] && !user.may[of+"."+id.Name] {
					t.Errorf("%s: %s of %s: the layout does not let %s use %s", fset.Position(id.Pos()), id.Name, owner, user.name, of)
				}
			}
		}
	}
}

// declarations gives for every name of the package the files that declare it;
// more than one where systems differ.
func declarations(files map[string]*ast.File) map[string][]string {
	owners := map[string][]string{}
	for path, file := range files {
		for name := range file.Scope.Objects {
			owners[name] = append(owners[name], path)
		}
	}
	return owners
}

// TestLayoutNoticesMistakes makes sure that the test above can fail.
func TestLayoutNoticesMistakes(t *testing.T) {
	_, members := parseLayout(t)
	for path, want := range map[string]string{
		"imap.go": "imap", "imap_wire.go": "imap", "lock_windows.go": "datadir", "folder_load.go": "mailbox",
		"mailfile.go": "mailbox", "throttle.go": "conn", "unheard.go": "", "command_run.go": "command", "diary_days.go": "diary",
	} {
		if got := familyOf(members, path); got != want {
			t.Errorf("familyOf(%s) = %q, want %q", path, got, want)
		}
	}
	file, err := parser.ParseFile(token.NewFileSet(), "x.go", "package main\nfunc f() { g(); len(h{}) }\nfunc k() { k() }", 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, id := range file.Unresolved {
		names = append(names, id.Name)
	}
	if fmt.Sprint(names) != "[g len h]" {
		t.Errorf("unresolved: %v", names)
	}
}
