package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// startPeople serves IMAP for ann, bob and eve at home.lan, and for ann at other.lan.
func startPeople(t testing.TB) *imapServer {
	t.Helper()
	s := startIMAP(t)
	for _, account := range []string{"bob@home.lan", "ann@home.lan", "eve@home.lan", "ann@other.lan"} {
		mustAdd(t, s.Accounts, account, imapPassword)
	}
	return s
}

// last is the tagged reply of a command, without its tag.
func last(lines []string) string { return strings.TrimPrefix(lines[len(lines)-1], "zz ") }

// aclModel is what access lists are meant to be, in the simplest way: who has which letters.
type aclModel struct {
	grant, deny map[string]string // by "MAILBOX of OWNER WHO"
	answers     map[string]int    // how often what was due
}

const modelLetters = "lrwstipekxa"

// rights gives the letters that somebody has, in order.
func (m *aclModel) rights(owner, mailbox, who string) string {
	pick := func(all map[string]string, letters string) string {
		ids := []string{"anyone", "authenticated", who}
		if who == owner {
			ids = []string{owner}
		}
		for _, id := range ids {
			if have, ok := all[mailbox+" of "+owner+" "+id]; ok {
				letters = have
			}
		}
		return letters
	}
	granted, denied := "", pick(m.deny, "")
	if who == owner {
		granted = modelLetters
	}
	granted = pick(m.grant, granted)
	have := ""
	for _, letter := range modelLetters {
		if strings.ContainsRune(granted, letter) && !strings.ContainsRune(denied, letter) || who == owner && letter == 'a' {
			have += string(letter)
		}
	}
	return have
}

// set is SETACL, or DELETEACL with how 'D'.
func (m *aclModel) set(owner, mailbox, id string, negative bool, how byte, letters string) {
	all, key := m.grant, mailbox+" of "+owner+" "+id
	if negative {
		all = m.deny
	}
	if how == 'D' {
		delete(all, key)
		return
	}
	old, ok := all[key]
	if !ok && id == owner && !negative {
		old = modelLetters
	}
	letters = strings.NewReplacer("c", "kx", "d", "te").Replace(letters)
	have := ""
	for _, letter := range modelLetters {
		was, named := strings.ContainsRune(old, letter), strings.ContainsRune(letters, letter)
		if how == '+' && (was || named) || how == '-' && was && !named || how == '=' && named || id == owner && letter == 'a' && !negative {
			if id != owner || letter != 'a' || !negative {
				have += string(letter)
			}
		}
	}
	if !ok && how != '=' && (id == owner && !negative && have == modelLetters || have == "") {
		return
	}
	all[key] = have
}

// list is GETACL's answer, sorted.
func (m *aclModel) list(owner, mailbox string) []string {
	pairs := []string{}
	prefix := mailbox + " of " + owner + " "
	if _, ok := m.grant[prefix+owner]; !ok {
		pairs = append(pairs, owner+" "+modelWire(modelLetters))
	}
	for key, letters := range m.grant {
		if id, ok := strings.CutPrefix(key, prefix); ok {
			pairs = append(pairs, id+" "+modelWire(letters))
		}
	}
	for key, letters := range m.deny {
		if id, ok := strings.CutPrefix(key, prefix); ok {
			pairs = append(pairs, "-"+id+" "+modelWire(letters))
		}
	}
	slices.Sort(pairs)
	return pairs
}

// modelWire adds the virtual rights.
func modelWire(letters string) string {
	wire := letters
	if strings.ContainsAny(letters, "kx") {
		wire += "c"
	}
	if strings.ContainsAny(letters, "te") {
		wire += "d"
	}
	if wire == "" {
		return `""`
	}
	return wire
}

// aclActor is a person in the model test.
type aclActor struct {
	*imapLine
	t    *testing.T
	who  string
	rnd  *rand.Rand
	m    *aclModel
	s    *imapServer
	note string // the command at hand
}

// name is what the actor calls a mailbox.
func (a *aclActor) name(owner, mailbox string) string {
	if owner == a.who {
		return mailbox
	}
	return "user/" + strings.TrimSuffix(owner, "@home.lan") + "/" + mailbox
}

// expect runs a command that takes rights, and says whether the actor had them; the answer must be the one that is due.
func (a *aclActor) expect(owner, mailbox, need, format string, args ...any) (lines []string, ok bool) {
	a.t.Helper()
	have := a.m.rights(owner, mailbox, a.who)
	want := "OK "
	for _, letter := range need {
		if !strings.ContainsRune(have, letter) {
			if want = "NO [NOPERM]"; !strings.Contains(have, "l") {
				want = "NO [NONEXISTENT]"
				if need == "i" && (owner == a.who || mailbox == "M/N" && strings.Contains(a.m.rights(owner, "M", a.who), "k")) {
					want = "NO [TRYCREATE]" // for all that the client may know
				}
			}
		}
	}
	a.note = fmt.Sprintf(format, args...)
	lines = a.do(a.t, a.note)
	if !strings.HasPrefix(last(lines), want) {
		a.t.Fatalf("%s with %q on %s of %s: %s\n%q, want %s", a.who, have, mailbox, owner, a.note, lines, want)
	}
	a.m.answers[want]++
	return lines, want == "OK "
}

// step does something at random and compares what comes of it.
func (a *aclActor) step(owner, mailbox string) {
	a.t.Helper()
	rnd, name := a.rnd, a.name(owner, mailbox)
	have := a.m.rights(owner, mailbox, a.who)
	switch op := rnd.IntN(9); op {
	case 0, 1, 2:
		a.changeACL(owner, mailbox, name)
	case 3:
		if lines, ok := a.expect(owner, mailbox, "a", "GETACL %s", name); ok {
			fields := strings.Fields(strings.TrimPrefix(lines[0], fmt.Sprintf("* ACL %q ", name)))
			got := []string{}
			for i := 0; i+1 < len(fields); i += 2 {
				got = append(got, strings.Trim(fields[i], `"`)+" "+fields[i+1])
			}
			slices.Sort(got)
			if want := a.m.list(owner, mailbox); !slices.Equal(got, want) {
				a.t.Fatalf("%s of %s has %q, want %q", mailbox, owner, got, want)
			}
		}
	case 4:
		want := fmt.Sprintf("* MYRIGHTS %q %s", name, modelWire(have))
		lines := a.do(a.t, "MYRIGHTS "+name)
		if strings.ContainsAny(have, "lrikxa") != (lines[0] == want) || lines[0] != want && !strings.HasPrefix(last(lines), "NO [NONEXISTENT]") {
			a.t.Fatalf("%s: MYRIGHTS %s: %q, want %q", a.who, name, lines, want)
		}
	case 5:
		a.expect(owner, mailbox, "r", "STATUS %s (MESSAGES)", name)
		a.list()
	case 6, 7:
		a.append(owner, mailbox, name, have)
	case 8:
		a.useSelected(owner, mailbox, name, have)
	}
}

// changeACL is SETACL or DELETEACL.
func (a *aclActor) changeACL(owner, mailbox, name string) {
	id := []string{"ann@home.lan", "bob@home.lan", "eve@home.lan", "ann@other.lan", "anyone", "authenticated"}[a.rnd.IntN(6)]
	negative := a.rnd.IntN(4) == 0
	dash := ""
	if negative {
		dash = "-"
	}
	how := "+-=D"[a.rnd.IntN(4)]
	if how == 'D' {
		if _, ok := a.expect(owner, mailbox, "a", "DELETEACL %s %s%s", name, dash, id); ok {
			a.m.set(owner, mailbox, id, negative, how, "")
		}
		return
	}
	letters := ""
	for _, letter := range "lllrrrwstipekxacd" {
		if a.rnd.IntN(3) == 0 {
			letters += string(letter)
		}
	}
	sign := strings.Trim(string(how), "=")
	if _, ok := a.expect(owner, mailbox, "a", "SETACL %s %s%s %q", name, dash, id, sign+letters); ok {
		a.m.set(owner, mailbox, id, negative, how, letters)
	}
}

// list compares LIST, with the rights in it.
func (a *aclActor) list() {
	a.t.Helper()
	want := []string{}
	for _, place := range modelPlaces {
		if have := a.m.rights(place[0], place[1], a.who); strings.Contains(have, "l") {
			want = append(want, fmt.Sprintf("* MYRIGHTS %q %s", a.name(place[0], place[1]), modelWire(have)))
		}
	}
	got := []string{}
	for _, line := range a.do(a.t, `LIST "" (M* user/*) RETURN (MYRIGHTS)`) {
		if strings.HasPrefix(line, "* MYRIGHTS") {
			got = append(got, line)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		a.t.Fatalf("%s lists %q, want %q", a.who, got, want)
	}
}

// flagsOf gives the flags of the last message of a mailbox, sorted.
func (a *aclActor) flagsOf(owner, mailbox string) string {
	a.t.Helper()
	drop, err := a.s.Store.Maildrop(owner)
	if err != nil {
		a.t.Fatal(err)
	}
	defer drop.Release()
	folder := openFolder(a.t, drop, mailbox)
	defer folder.Release()
	uids := folder.allUIDs()
	msgs, err := folder.Messages(nil, uids[len(uids)-1:], false)
	if err != nil || len(msgs) == 0 {
		a.t.Fatal(err, len(msgs))
	}
	flags := strings.Fields(string(folder.AppendFlags(nil, &msgs[0])))
	slices.Sort(flags)
	return strings.Join(flags, " ")
}

// keptFlags gives those of the flags that somebody may set.
func keptFlags(flags []string, have string) string {
	kept := []string{}
	for _, flag := range flags {
		need := map[string]string{`\Seen`: "s", `\Deleted`: "t"}[flag]
		if need == "" {
			need = "w"
		}
		if strings.Contains(have, need) {
			kept = append(kept, flag)
		}
	}
	slices.Sort(kept)
	return strings.Join(kept, " ")
}

// append adds a message, whose flags must be those that the rights allow.
func (a *aclActor) append(owner, mailbox, name, have string) {
	a.t.Helper()
	flags := []string{`\Seen`, `\Deleted`, `\Flagged`, "$Label", `\Draft`}[a.rnd.IntN(3):]
	if _, ok := a.expect(owner, mailbox, "i", "APPEND %s (%s) {4+}\r\nx: y", name, strings.Join(flags, " ")); ok {
		if got, want := a.flagsOf(owner, mailbox), keptFlags(flags, have); got != want {
			a.t.Fatalf("%s with %q: %s leaves (%s), want (%s)", a.who, have, a.note, got, want)
		}
	}
}

// useSelected opens a mailbox and changes the last message.
func (a *aclActor) useSelected(owner, mailbox, name, have string) {
	a.t.Helper()
	lines, ok := a.expect(owner, mailbox, "r", "SELECT %s", name)
	if !ok {
		return
	}
	defer a.ok(a.t, "UNSELECT")
	if writable := strings.ContainsAny(have, "ieswt"); strings.Contains(last(lines), "[READ-WRITE]") != writable {
		a.t.Fatalf("%s with %q: %s", a.who, have, last(lines))
	}
	before := a.flagsOf(owner, mailbox)
	flags := []string{`\Seen`, `\Deleted`, `\Flagged`, "$Label"}[a.rnd.IntN(4):]
	change := a.do(a.t, "STORE * FLAGS ("+strings.Join(flags, " ")+")")
	kept := strings.Fields(keptFlags(flags, have))
	after := before
	if len(kept) > 0 {
		stay := slices.DeleteFunc(strings.Fields(before), func(f string) bool { return keptFlags([]string{f}, have) != "" })
		all := append(stay, kept...)
		slices.Sort(all)
		after = strings.Join(all, " ")
	}
	if ok := strings.HasPrefix(last(change), "OK"); ok != (len(kept) > 0) || a.flagsOf(owner, mailbox) != after {
		a.t.Fatalf("%s with %q: STORE (%s) on (%s): %q leaves (%s), want (%s)", a.who, have, flags, before, change, a.flagsOf(owner, mailbox), after)
	}
	seen := strings.Contains(after, `\Seen`) || strings.Contains(have, "s")
	a.ok(a.t, "FETCH * BODY[]")
	if got := strings.Contains(a.flagsOf(owner, mailbox), `\Seen`); got != seen {
		a.t.Fatalf("%s with %q: \\Seen after FETCH: %v", a.who, have, got)
	}
}

// modelPlaces are the mailboxes of the model test: owner and name.
var modelPlaces = [][2]string{{"bob@home.lan", "M"}, {"bob@home.lan", "M/N"}, {"ann@home.lan", "M"}, {"ann@other.lan", "M"}}

// TestACLModel lets four people change rights and use them at random. Each answer must be the one that a simple model of the rights
// gives.
func TestACLModel(t *testing.T) {
	t.Parallel()
	s := startPeople(t)
	m := &aclModel{map[string]string{}, map[string]string{}, map[string]int{}}
	actors := []*aclActor{}
	for i, who := range []string{"bob@home.lan", "ann@home.lan", "eve@home.lan", "ann@other.lan"} {
		actors = append(actors, &aclActor{imapLine: s.login(t, who), t: t, who: who, rnd: rand.New(rand.NewPCG(uint64(i), 3)), m: m, s: s})
	}
	for _, place := range modelPlaces {
		for _, a := range actors {
			if a.who == place[0] {
				a.ok(t, "CREATE "+place[1])
				a.ok(t, "APPEND "+place[1]+" {4+}\r\nx: y")
			}
		}
	}
	rnd := rand.New(rand.NewPCG(11, 12))
	for range 2500 {
		place := modelPlaces[rnd.IntN(len(modelPlaces))]
		actors[rnd.IntN(len(actors))].step(place[0], place[1])
	}
	if m.answers["OK "] < 200 || m.answers["NO [NOPERM]"] < 200 || m.answers["NO [NONEXISTENT]"] < 200 {
		t.Errorf("the answers are too one-sided: %v", m.answers)
	}
	t.Logf("%d grants and %d denials in the end, answers: %v", len(m.grant), len(m.deny), m.answers)
}

// aclProbes are all commands that name a mailbox; %s is the name. What somebody is not let into must be answered as if it were
// not there.
func aclProbes() []string {
	return []string{
		"SELECT %s", "EXAMINE %s", "STATUS %s (MESSAGES UIDNEXT SIZE MAILBOXID)", "DELETE %s", "RENAME %s %sx", "RENAME %s Elsewhere",
		"RENAME Sent %s", "CREATE %s", "CREATE %s/below", "APPEND %s {4+}\r\nx: y", "APPEND INBOX CATENATE (URL \"/%s/;UID=1\")",
		"APPEND INBOX CATENATE (URL \"imap://eve@home.lan@h/%s/;UID=1\")", "APPEND %s CATENATE (TEXT {4+}\r\nx: y)",
		"COPY 1 %s", "UID COPY 1 %s", "MOVE 1 %s", "UID MOVE 1 %s", "REPLACE 1 %s {4+}\r\nx: y", "UID REPLACE 1 %s {4+}\r\nx: y",
		"MYRIGHTS %s", "GETACL %s", "SETACL %s eve lr", "SETACL %s anyone +lr", "DELETEACL %s bob", "LISTRIGHTS %s eve",
		"LIST \"\" %s", "LIST \"\" %s RETURN (STATUS (MESSAGES) MYRIGHTS)", "LIST %s *", "LIST \"\" (%s %s/*)",
		"LIST (SUBSCRIBED) \"\" %s", "LIST (SPECIAL-USE) \"\" %s", "LSUB \"\" %s",
		"LIST \"\" (%s %s/*) RETURN (METADATA (/shared/comment /private/comment))", "GETMETADATA %s (/shared/comment /private/comment)",
		"GETMETADATA (DEPTH infinity) %s (/shared /private)", "SETMETADATA %s (/private/comment \"x\")", "SETMETADATA %s (/shared/comment NIL)",
		"SETMETADATA %s (/private/specialuse \"\\\\Sent\")", "GETQUOTAROOT %s", "GETQUOTA %s", "SETQUOTA %s (STORAGE 1)",
		"ESEARCH IN (mailboxes %s) ALL", "ESEARCH IN (mailboxes (%s %s/x) selected) RETURN (COUNT) TEXT secret",
		"ESEARCH IN (subtree %s) RETURN (ALL COUNT) SUBJECT secret", "ESEARCH IN (subtree-one (%s)) ALL",
	}
}

// TestACLHides tries every command on every way to somebody's mailbox. The answers are those to names that nobody has, and nothing
// of the mail comes out.
func TestACLHides(t *testing.T) {
	t.Parallel()
	s := startPeople(t)
	if _, err := s.Accounts.AddAlias("team@home.lan", []string{"bob@home.lan"}); err != nil {
		t.Fatal(err)
	}
	bob, eve := s.login(t, "bob@home.lan"), s.login(t, "eve@home.lan")
	const secret = "Subject: secret\r\n\r\nthe secret\r\n"
	for _, name := range []string{"INBOX", "Work", "Work/Plans", "W&APw-rfel", "Open", "user/bob/INBOX"} {
		bob.do(t, "CREATE "+name)
		bob.do(t, fmt.Sprintf("APPEND %s (\\Seen) {%d+}\r\n%s", name, len(secret), secret))
	}
	bob.ok(t, `SETMETADATA Work (/shared/comment "secret" /private/comment "secret")`)
	setQuota(t, s.Accounts, "bob@home.lan", "10M")
	bob.ok(t, "SETACL Work ann lrswipkxtea") // somebody else's rights are nobody else's
	bob.ok(t, "SETACL Work/Plans -eve lr")
	bob.ok(t, "SETACL W&APw-rfel eve p") // posting shows nothing
	eve.ok(t, "APPEND INBOX {5+}\r\nx: y2")
	eve.ok(t, "SELECT INBOX")
	exist := []string{"user/bob/INBOX", "user/bob/inbox", "user/bob/Work", "user/bob/Work/Plans", "user/bob/W&APw-rfel", "user/bob/Open",
		"user/bob/Sent", "user/bob/Trash"}
	none := []string{"user/bob/Nothing", "user/bob/W&APw-", "user/nobody/INBOX", "user/bob@home.lan/INBOX", "user/BOB/INBOX", "user/Bob/Work",
		"user/bob+tag/INBOX", "user/team/INBOX", "user/team@home.lan/INBOX", "user/postmaster/INBOX", "user/bob.removed-1/INBOX",
		"user/eve/INBOX", "user/eve@home.lan/INBOX", "user/bob/.Work", "user/bob/../eve/INBOX", "user/../bob/INBOX", "user/ann/../bob/INBOX",
		"user/bob/user/bob/INBOX", "user/bob&AC8-INBOX", "&AHUAcwBlAHI-/bob/INBOX", "user&AC8-bob&AC8-INBOX", "user/bob/&AFc-ork", "user/bob/INBOX/",
		"user/bob/dovecot-acl", "user/bob/cur", "user/ bob/INBOX", "\"user/bob /INBOX\"", "user/bob/", "user/bob", "user/", "\"user/bob/Work \"",
		"user/bob@home.lan@home.lan/INBOX", "user/\"\"/INBOX", "user//INBOX", "user/home.lan/bob", "USER/bob/INBOX", "User/bob/INBOX", "../bob/INBOX",
		"..&AC8-bob", "./user/bob/INBOX", "/user/bob/INBOX", "bob/INBOX", "~bob/INBOX", "#user/bob/INBOX", "user.bob.INBOX", "shared/bob/INBOX"}
	answers := map[string]string{} // to a name that nobody has
	clean := func(name string, lines []string) string {
		text := strings.Join(lines, "\n")
		text = strings.ReplaceAll(text, strings.Trim(name, `"`), "NAME")
		return strings.ReplaceAll(text, strings.TrimSuffix(strings.Trim(name, `"`), "/"), "NAME")
	}
	probe := func(name, command string) (answer string) {
		quoted := name
		if !strings.Contains(name, `"`) && strings.ContainsAny(name, " #~") {
			quoted = `"` + name + `"`
		}
		if strings.Contains(command, "URL") {
			quoted = strings.ReplaceAll(strings.Trim(name, `"`), " ", "%20")
			quoted = strings.ReplaceAll(quoted, `"`, "%22")
		}
		lines := eve.do(t, strings.ReplaceAll(command, "%s", quoted))
		if strings.Contains(strings.Join(lines, "\n"), "secret") {
			t.Errorf("%s %s: the secret is out: %q", command, name, lines)
		}
		if strings.Contains(last(lines), "BAD") { // too many in a row would end the session
			eve.ok(t, "NOOP")
		}
		if strings.HasPrefix(command, "SELECT") || strings.HasPrefix(command, "EXAMINE") {
			if strings.HasPrefix(last(lines), "OK") {
				t.Errorf("%s %s: %q", command, name, lines)
			}
			eve.ok(t, "SELECT INBOX") // a failed SELECT closes what was open
		}
		return clean(quoted, lines)
	}
	for _, command := range aclProbes() {
		answers[command] = probe("user/bob/Nowhere", command)
		if strings.HasPrefix(answers[command], "zz OK") && !strings.HasPrefix(command, "L") && !strings.HasPrefix(command, "ESEARCH") {
			t.Errorf("%s on what does not exist: %q", command, answers[command])
		}
	}
	for _, name := range exist {
		for _, command := range aclProbes() {
			if got := probe(name, command); got != answers[command] {
				t.Errorf("%s on %s: %q, want %q", command, name, got, answers[command])
			}
		}
	}
	for _, name := range none {
		for _, command := range aclProbes() {
			if strings.HasPrefix(command, "CREATE") || strings.HasPrefix(command, "RENAME Sent") {
				continue // one's own mailboxes may have odd names
			}
			probe(name, command)
		}
	}
	// Nothing has come of all that.
	lists := strings.Join(eve.ok(t, `LIST "" *`), "\n")
	if strings.Contains(lists, "bob") || strings.Contains(lists, "user") {
		t.Error(lists)
	}
	for _, name := range []string{"INBOX", "Work", "Work/Plans", "W&APw-rfel", "Open"} {
		if got := bob.ok(t, "STATUS "+name+" (MESSAGES UNSEEN)")[0]; !strings.HasSuffix(got, "(MESSAGES 1 UNSEEN 0)") {
			t.Error(got)
		}
	}
	if got := bob.ok(t, "GETACL Open")[0]; got != `* ACL "Open" "bob@home.lan" lrwstipekxacd` {
		t.Error(got)
	}
	if names, _ := os.ReadDir(filepath.Join(s.Store.mailDir, "home.lan")); len(names) != 2 {
		t.Errorf("maildrops were made: %v", names)
	}
}

// TestACLHidesNotify lets somebody ask for all events of mailboxes that he is not let into, while all of them happen. Nothing is
// told.
func TestACLHidesNotify(t *testing.T) {
	t.Parallel()
	s := startPeople(t)
	bob, ann, eve := s.login(t, "bob@home.lan"), s.login(t, "ann@home.lan"), s.login(t, "eve@home.lan")
	bob.ok(t, "CREATE Work")
	bob.ok(t, "CREATE Look")
	bob.ok(t, "SETACL Work ann lrswipkxtea")
	bob.ok(t, "SETACL Look eve l") // its name is all he sees
	ann.ok(t, "SUBSCRIBE user/bob/Work")
	eve.ok(t, "SUBSCRIBE user/bob/Work")
	const all = "(MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange MailboxMetadataChange ServerMetadataChange)"
	for _, filter := range []string{"mailboxes (user/bob/Work user/bob/INBOX user/bob/Other user/bob)", "subtree (user/bob/Work user/bob/INBOX user/bob/Other)",
		"subtree (user user/bob \"\")", "personal", "subscribed", "inboxes"} {
		if got := eve.ok(t, "NOTIFY SET STATUS ("+filter+" "+all+")"); strings.Contains(strings.Join(got, ""), "bob") {
			t.Errorf("%s: %q", filter, got)
		}
		for _, command := range []string{"APPEND Work {9+}\r\nx: secret", "APPEND INBOX {9+}\r\nx: secret", "APPEND Look {9+}\r\nx: secret", "SELECT Work",
			"STORE 1:* +FLAGS (\\Deleted)", "EXPUNGE", "UNSELECT", "CREATE Other", "CREATE Work/Below", "SETMETADATA Work (/shared/comment \"secret\" /private/comment \"secret\")",
			"SETMETADATA Look (/shared/comment \"secret\")", "SETMETADATA \"\" (/private/comment \"secret\")", "SUBSCRIBE Work/Below", "SETACL Work/Below ann lr", "RENAME Work/Below Work/Under",
			"SETACL Other anyone p", "DELETEACL Other anyone", "DELETE Work/Under", "DELETE Other", "UNSUBSCRIBE Work/Below",
			"SETMETADATA Work (/shared/comment NIL /private/comment NIL)", "SETMETADATA Look (/shared/comment NIL)", "SETMETADATA \"\" (/private/comment NIL)"} {
			bob.ok(t, command)
		}
		eve.quiet(t)
		// What others are told, told apart.
		ann.ok(t, "NOTIFY SET (mailboxes user/bob/Work "+all+")")
		bob.ok(t, "APPEND Work {9+}\r\nx: secret")
		ann.want(t, `* STATUS "user/bob/Work" (MESSAGES 1 …`)
		ann.ok(t, "NOTIFY NONE")
		bob.ok(t, "SELECT Work")
		bob.ok(t, "STORE 1:* +FLAGS (\\Deleted)")
		bob.ok(t, "CLOSE")
		eve.quiet(t)
	}
}

// The maildrops of others are let go when nobody watches them, and what an owner takes away, an account that goes, and rights that
// another program changes are noticed.
func TestNotifyOthersEnd(t *testing.T) {
	s := startPeople(t)
	bob, ann := s.login(t, "bob@home.lan"), s.login(t, "ann@home.lan")
	bob.ok(t, "SETACL INBOX ann lr")
	watched := func(want int) {
		t.Helper()
		drop, err := s.Store.Maildrop("bob@home.lan")
		if err != nil {
			t.Fatal(err)
		}
		defer drop.Release()
		drop.watches.mu.Lock()
		defer drop.watches.mu.Unlock()
		if got := len(drop.watches.list); got != want {
			t.Errorf("%d watch the maildrop, want %d", got, want)
		}
	}
	const ask = "NOTIFY SET (subtree user (MessageNew MessageExpunge MailboxName))"
	ann.ok(t, ask)
	watched(1)
	ann.ok(t, ask)
	watched(1)
	bob.ok(t, "DELETEACL INBOX ann")
	ann.want(t, `* LIST (\NoAccess \NoSelect) "/" "user/bob/INBOX"`)
	ann.quiet(t)
	watched(0)
	bob.ok(t, "SETACL INBOX ann lr")
	ann.want(t, `* LIST (\HasNoChildren) "/" "user/bob/INBOX"`)
	ann.quiet(t)
	watched(1)
	// Another program changes the list: with the next message it is noticed.
	file := filepath.Join(s.Store.mailDir, "home.lan", "bob", aclName)
	if err := os.WriteFile(file, []byte("user=eve@home.lan lr\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bob.ok(t, "APPEND INBOX {4+}\r\nx: y")
	ann.want(t, `* LIST (\NoAccess \NoSelect) "/" "user/bob/INBOX"`)
	bob.ok(t, "SETACL INBOX ann lr")
	ann.want(t, `* LIST (\HasNoChildren) "/" "user/bob/INBOX"`, `* STATUS "user/bob/INBOX" (MESSAGES 1 …`)
	if _, err := s.Accounts.Remove("bob@home.lan"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Store.SetAside("bob@home.lan"); err != nil {
		t.Fatal(err)
	}
	ann.want(t, `* LIST (\NonExistent \NoSelect) "/" "user/bob/INBOX"`)
	ann.quiet(t)
	ann.ok(t, "NOTIFY NONE")
	watched(0)
}

// More people than one session may watch are too many.
func TestNotifyOthersOverflow(t *testing.T) {
	t.Parallel()
	s := startPeople(t)
	ann := s.login(t, "ann@home.lan")
	for i := range notifyMaxOwners + 1 {
		account := fmt.Sprintf("many%d@home.lan", i)
		mustAdd(t, s.Accounts, account, imapPassword)
		drop, err := s.Store.Maildrop(account)
		if err != nil {
			t.Fatal(err)
		}
		err = drop.ChangeACL(Claim{}, inboxName, func(l *AccessList) error {
			*l = *parseACL("user=ann@home.lan lr\n")
			return nil
		})
		drop.Release()
		if err != nil {
			t.Fatal(err)
		}
	}
	const ask = "NOTIFY SET (subtree user (MessageNew MessageExpunge))"
	if got := last(ann.do(t, ask)); !strings.HasPrefix(got, "NO [NOTIFICATIONOVERFLOW]") {
		t.Error(got)
	}
	ann.ok(t, "NOTIFY SET (personal (MessageNew MessageExpunge))")
	if _, err := s.Accounts.Remove("many0@home.lan"); err != nil {
		t.Fatal(err)
	}
	ann.ok(t, ask)
}

// A mailbox of one's own that has had such a name before stays one's own.
func TestOwnMailboxBelowUser(t *testing.T) {
	s := startPeople(t)
	bob, ann := s.login(t, "bob@home.lan"), s.login(t, "ann@home.lan")
	bob.ok(t, "SETACL INBOX ann lr")
	for _, dir := range []string{".user.notes", ".user.bob.INBOX"} {
		if err := makeFolderDir(filepath.Join(s.Store.mailDir, "home.lan", "ann", dir)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"user/notes", "user/bob/INBOX"} {
		ann.ok(t, "APPEND "+name+" {4+}\r\nx: y")
		ann.ok(t, "SELECT "+name)
		if got := ann.ok(t, "FETCH 1 BODY[]"); !strings.Contains(strings.Join(got, ""), "x: y") {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := ann.ok(t, `LIST "" user/*`); !reflect.DeepEqual(got[:len(got)-1], []string{
		`* LIST (\NonExistent \NoSelect \HasChildren) "/" "user/bob"`, `* LIST (\HasNoChildren) "/" "user/bob/INBOX"`, `* LIST (\HasNoChildren) "/" "user/notes"`}) {
		t.Errorf("%q", got)
	}
	ann.ok(t, "DELETE user/bob/INBOX")
	if got := ann.ok(t, "MYRIGHTS user/bob/INBOX")[0]; got != `* MYRIGHTS "user/bob/INBOX" lr` {
		t.Error(got)
	}
	if got := last(ann.do(t, "CREATE user/more")); !strings.HasPrefix(got, "NO [NOPERM]") {
		t.Error(got)
	}
}

// When an account is removed, who has its mailbox open hears it, nobody finds it any more, and it is in no list of others.
func TestSharedOwnerRemoved(t *testing.T) {
	s := startPeople(t)
	bob, ann, idle := s.login(t, "bob@home.lan"), s.login(t, "ann@home.lan"), s.login(t, "ann@home.lan")
	bob.ok(t, "SETACL INBOX ann lrswipkxte")
	ann.ok(t, "SETACL INBOX bob lr")
	ann.ok(t, "SUBSCRIBE user/bob/INBOX")
	idle.ok(t, "SELECT user/bob/INBOX")
	idle.send(t, "a IDLE\r\n")
	idle.want(t, "+ idling")
	other := s.login(t, "ann@home.lan")
	other.ok(t, "SELECT user/bob/INBOX")
	ad := testAdmin(t, s.Accounts, s.Store)
	if a := ad.do(order{Do: "user remove", Address: "bob"}); a.Error != "" {
		t.Fatal(a.Error)
	}
	idle.want(t, "* BYE The selected mailbox has been deleted", "<EOF>")
	other.send(t, "a NOOP\r\n")
	other.want(t, "a OK NOOP completed", "* BYE The selected mailbox has been deleted", "<EOF>")
	for _, command := range []string{"SELECT user/bob/INBOX", "STATUS user/bob/INBOX (MESSAGES)", "GETACL user/bob/INBOX", "MYRIGHTS user/bob/INBOX"} {
		if got := last(ann.do(t, command)); got != "NO [NONEXISTENT] There is no such mailbox" {
			t.Errorf("%s: %s", command, got)
		}
	}
	if got := ann.ok(t, `LIST "" *`); strings.Contains(strings.Join(got, ""), "user") {
		t.Errorf("%q", got)
	}
	if got := ann.ok(t, "GETACL INBOX")[0]; got != `* ACL "INBOX" "ann@home.lan" lrwstipekxacd` {
		t.Error(got)
	}
	// The next person with the address finds nothing that was bob's.
	mustAdd(t, s.Accounts, "bob@home.lan", imapPassword)
	bob = s.login(t, "bob@home.lan")
	if got := last(bob.do(t, "SELECT user/ann/INBOX")); !strings.HasPrefix(got, "NO [NONEXISTENT]") {
		t.Error(got)
	}
	if got := last(ann.do(t, "SELECT user/bob/INBOX")); !strings.HasPrefix(got, "NO [NONEXISTENT]") {
		t.Error(got)
	}
}

// Accounts of another domain have their whole address in names; identifiers may be either.
func TestSharedOtherDomain(t *testing.T) {
	s := startPeople(t)
	bob, other := s.login(t, "bob@home.lan"), s.login(t, "ann@other.lan")
	ann := s.login(t, "ann@home.lan")
	other.ok(t, "SETACL INBOX bob lr")
	bob.ok(t, "SETACL INBOX ann@other.lan lr")
	if got := bob.ok(t, `LIST "" user/%/%`); got[0] != `* LIST (\HasNoChildren) "/" "user/ann@other.lan/INBOX"` {
		t.Errorf("%q", got)
	}
	bob.ok(t, "SELECT user/ann@other.lan/INBOX")
	other.ok(t, "SELECT user/bob/INBOX")
	for c, name := range map[*imapLine]string{bob: "user/ann/INBOX", ann: "user/bob/INBOX", other: "user/bob@home.lan/INBOX"} {
		if got := last(c.do(t, "SELECT "+name)); !strings.HasPrefix(got, "NO [NONEXISTENT]") {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := bob.ok(t, "GETACL INBOX")[0]; got != `* ACL "INBOX" "bob@home.lan" lrwstipekxacd "ann@other.lan" lr` {
		t.Error(got)
	}
}

// Names beyond ASCII are as people write them, in each session's spelling.
func TestSharedUmlauts(t *testing.T) {
	s := startPeople(t)
	mustAdd(t, s.Accounts, "jürgen@home.lan", imapPassword)
	ann := s.login(t, "ann@home.lan")
	jürgen := s.connect(t)
	jürgen.readLine(t)
	jürgen.ok(t, fmt.Sprintf("LOGIN {16+}\r\njürgen@home.lan %q", imapPassword))
	jürgen.ok(t, "CREATE Entw&APw-rfe")
	jürgen.ok(t, "SETACL Entw&APw-rfe ann lr")
	ann.ok(t, "SETACL INBOX {7+}\r\nJürgen lr")
	if got := ann.ok(t, `LIST "" user/%/*`); got[0] != `* LIST (\HasNoChildren) "/" "user/j&APw-rgen/Entw&APw-rfe"` {
		t.Errorf("%q", got)
	}
	ann.ok(t, "SELECT user/j&APw-rgen/Entw&APw-rfe")
	ann.ok(t, "SUBSCRIBE user/j&APw-rgen/Entw&APw-rfe")
	if got := ann.ok(t, `LSUB "" user/*`); got[0] != `* LSUB () "/" "user/j&APw-rgen/Entw&APw-rfe"` {
		t.Errorf("%q", got)
	}
	if got := ann.ok(t, "GETACL INBOX"); got[0] != `* ACL "INBOX" "ann@home.lan" lrwstipekxacd {16}` || got[1] != "jürgen@home.lan lr" {
		t.Errorf("%q", got)
	}
	ann.ok(t, "ENABLE IMAP4rev2")
	if got := ann.ok(t, "GETACL INBOX"); got[0] != `* ACL "INBOX" "ann@home.lan" lrwstipekxacd "jürgen@home.lan" lr` {
		t.Errorf("%q", got)
	}
	if got := ann.ok(t, `LIST "" "user/jürgen/*"`); got[0] != `* LIST (\HasNoChildren) "/" "user/jürgen/Entwürfe"` {
		t.Errorf("%q", got)
	}
}

// While names change hands nobody reads what he is not let into.
func TestACLWhileRenaming(t *testing.T) {
	t.Parallel()
	s := startPeople(t)
	bob, ann := s.login(t, "bob@home.lan"), s.login(t, "ann@home.lan")
	for name, text := range map[string]string{"Public": "x: public", "Private": "x: secret"} {
		bob.ok(t, "CREATE "+name)
		bob.ok(t, fmt.Sprintf("APPEND %s {%d+}\r\n%s", name, len(text), text))
	}
	bob.ok(t, "SETACL Public ann lrx")
	end := time.Now().Add(time.Second)
	var both sync.WaitGroup
	both.Go(func() {
		for time.Now().Before(end) {
			for _, names := range []string{"Public Other", "Private Public", "Public Private", "Other Public"} {
				bob.do(t, "RENAME "+names)
			}
		}
	})
	read := 0
	for time.Now().Before(end) {
		if strings.HasPrefix(last(ann.do(t, "SELECT user/bob/Public")), "OK") {
			text := strings.Join(ann.do(t, "FETCH 1 BODY.PEEK[]"), "")
			if strings.Contains(text, "secret") {
				t.Fatal("ann has read what is private")
			}
			read++
		}
		if got := last(ann.do(t, "RENAME user/bob/Public user/bob/Stolen")); strings.HasPrefix(got, "OK") {
			t.Fatal("ann has renamed at the top")
		}
	}
	both.Wait()
	if read == 0 {
		t.Error("ann has read nothing at all")
	}
	t.Logf("read %d times", read)
}

// TestACLClient lets go-imap's client use what it knows of ACL.
func TestACLClient(t *testing.T) {
	t.Parallel()
	s := startPeople(t)
	connect := func(account string) *imapclient.Client {
		c := imapclient.New(s.dial(t, "imap"), nil)
		t.Cleanup(func() { c.Close() })
		if err := c.Login(account, imapPassword).Wait(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	bob, ann := connect("bob@home.lan"), connect("ann@home.lan")
	if !bob.Caps().Has(imap.CapACL) {
		t.Error("ACL is not announced")
	}
	if err := bob.SetACL("INBOX", "ann", imap.RightModificationReplace, imap.RightSet("lrsd")).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := bob.SetACL("INBOX", "ann", imap.RightModificationRemove, imap.RightSet("e")).Wait(); err != nil {
		t.Fatal(err)
	}
	list, err := bob.GetACL("INBOX").Wait()
	if err != nil {
		t.Fatal(err)
	}
	want := map[imap.RightsIdentifier]imap.RightSet{"bob@home.lan": imap.RightSet("lrwstipekxacd"), "ann@home.lan": imap.RightSet("lrstd")}
	if !reflect.DeepEqual(list.Rights, want) {
		t.Errorf("%v", list.Rights)
	}
	namespace, err := ann.Namespace().Wait()
	if err != nil || len(namespace.Other) != 1 {
		t.Fatal(err, namespace)
	}
	folders, err := ann.List("", namespace.Other[0].Prefix+"*", nil).Collect()
	if err != nil {
		t.Fatal(err)
	}
	shared := folders[len(folders)-1].Mailbox
	mine, err := ann.MyRights(shared).Wait()
	if err != nil || shared != "user/bob/INBOX" || string(mine.Rights) != "lrstd" {
		t.Error(shared, mine, err)
	}
	if selected, err := ann.Select(shared, nil).Wait(); err != nil || !slices.Equal(selected.PermanentFlags, []imap.Flag{imap.FlagDeleted, imap.FlagSeen}) {
		t.Error(selected, err)
	}
}

// BenchmarkListShared is LIST in a house of 300 accounts with nine mailboxes each, where each has let one person into one.
func BenchmarkListShared(b *testing.B) {
	s := startIMAP(b)
	mustAdd(b, s.Accounts, "first@home.lan", imapPassword)
	var book strings.Builder
	text, err := os.ReadFile(s.Accounts.cfg.File)
	if err != nil {
		b.Fatal(err)
	}
	book.Write(text)
	for i := range 300 {
		account := fmt.Sprintf("user%d@home.lan", i)
		fmt.Fprintf(&book, "[[user]]\naddress = %q\n", account)
		drop, err := s.Store.Maildrop(account)
		if err != nil {
			b.Fatal(err)
		}
		for j := range 3 {
			if err := drop.CreateFolder(fmt.Sprint("More", j), nil); err != nil {
				b.Fatal(err)
			}
		}
		who := Grantee{Account: fmt.Sprintf("user%d@home.lan", i+1)}
		if i%10 == 0 {
			who = Grantee{Account: "first@home.lan"}
		}
		grant(b, drop, "Sent", who, RightLookup|RightRead)
		drop.Release()
	}
	if err := os.WriteFile(s.Accounts.cfg.File, []byte(book.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	time.Sleep(accountsRecheck) // as long as an edited file may go unseen
	c := s.login(b, "first@home.lan")
	list := func() {
		if n := len(c.ok(b, `LIST "" *`)); n != 6+1+30*2+1 {
			b.Fatalf("%d lines", n)
		}
	}
	start := time.Now()
	list()
	first := time.Since(start)
	for b.Loop() {
		list()
	}
	b.ReportMetric(float64(first.Microseconds())/1000, "ms-first")
}
