package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dovecotACL is what Dovecot is to be told so that it keeps rights as we do: each person a Maildir of our layout below dir/mail, the
// mailboxes of others below user/ADDRESS/.
const dovecotACL = `mail_location = maildir:%[1]s/mail/%%d/%%n
mail_plugins = acl
namespace inbox {
  inbox = yes
  separator = /
}
namespace {
  type = shared
  separator = /
  prefix = user/%%%%u/
  location = maildir:%[1]s/mail/%%%%d/%%%%n
  subscriptions = no
  list = children
}
protocol imap {
  mail_plugins = acl imap_acl
}
plugin {
  acl = vfile:cache_secs=0
  acl_anyone = allow
}
`

// aclPeople are the people of the comparison; the first is the owner.
var aclPeople = []Grantee{{"bob@home.lan", ""}, {"ann@home.lan", ""}, {"eve@home.lan", ""}}

// startDovecotACL starts a session of each of the people on the mail below dir.
func startDovecotACL(t *testing.T, dir string) map[string]*dovecotSession {
	t.Helper()
	sessions := map[string]*dovecotSession{}
	for _, who := range aclPeople {
		sessions[who.Account] = launchDovecot(t, dir, who.Account, fmt.Sprintf(dovecotACL, dir))
	}
	return sessions
}

// randomACL makes a file of lines as people and Dovecot write them, some of which cannot be read. None comes twice: where Dovecot 2.3
// joins two lines for one identifier, what lines of the other sign give by other identifiers is void for it.
func randomACL(rnd *rand.Rand) string {
	var b strings.Builder
	ids := []string{"user=ann@home.lan", "user=eve@home.lan", "user=bob@home.lan", "anyone", "authenticated", "owner", "group=team",
		"group-override=team", "user=ann", "user=", "anonymous", `"user=ann@home.lan"`, `"user=a b"`}
	had := map[string]bool{}
	for range rnd.IntN(6) {
		if rnd.IntN(8) == 0 {
			b.WriteString([]string{"# a remark\n", "\n", "users=ann lr\n", "user=ann@home.lan lrz\n", "\"user=ann\n"}[rnd.IntN(5)])
			continue
		}
		id := ids[rnd.IntN(len(ids))]
		if rnd.IntN(4) == 0 {
			if rest, quoted := strings.CutPrefix(id, `"`); quoted {
				id = `"-` + rest
			} else {
				id = "-" + id
			}
		}
		sign := strings.NewReplacer(`"`, "", "anonymous", "anyone").Replace(id)
		if had[sign] {
			continue
		}
		had[sign] = true
		letters := ""
		for _, letter := range "lrwstipekxa" {
			if rnd.IntN(2) == 0 {
				letters += string(letter)
			}
		}
		named := []string{"", "", "", " :lookup", ":read, post", " :some-other", "\t: write-seen\twrite", " :"}[rnd.IntN(8)]
		end := []string{"\n", "\n", "\n", "\r\n"}[rnd.IntN(4)]
		b.WriteString(id + " " + letters + named + end)
	}
	return b.String()
}

// rightsByDovecot asks Dovecot what somebody may do in a mailbox of bob's; "" is nothing.
func rightsByDovecot(t *testing.T, sessions map[string]*dovecotSession, who Grantee, mailbox string) string {
	t.Helper()
	name := mailbox
	if who != aclPeople[0] {
		name = "user/" + aclPeople[0].Account + "/" + mailbox
	}
	rights := ""
	sessions[who.Account].command("MYRIGHTS "+name, func(line string) {
		rights, _ = strings.CutPrefix(line, "* MYRIGHTS "+name+" ")
	})
	return rights
}

// rightsByUs is the same by the store. Dovecot answers MYRIGHTS to whoever has more than the right to post.
func rightsByUs(s *Store, who Grantee, mailbox string) string {
	rights := s.RightsIn(aclPeople[0].Account, mailbox, who)
	if rights&^RightPost == 0 {
		return ""
	}
	return string(appendRights(nil, rights))
}

// TestACLLikeDovecot gives both the same files and asks who may do what, lets both make the same changes, and asks again.
func TestACLLikeDovecot(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "dovecot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "base"), 0o777); err != nil {
		t.Fatal(err)
	}
	s := testStore(t, dir)
	defer s.Close()
	drops := map[string]*Maildrop{}
	for _, who := range aclPeople {
		d, err := s.Maildrop(who.Account)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Release()
		drops[who.Account] = d
	}
	bob := drops[aclPeople[0].Account]
	rnd := rand.New(rand.NewPCG(4, 314))
	const files = 150
	texts := make([]string, files)
	for i := range texts {
		if err := bob.CreateFolder(fmt.Sprint("F", i), nil); err != nil {
			t.Fatal(err)
		}
		if texts[i] = randomACL(rnd); i > 0 { // the first has none
			writeACL(t, bob, fmt.Sprint(".F", i), texts[i])
		}
	}
	sessions := startDovecotACL(t, dir)
	compareACL(t, s, sessions, bob, files)

	// The same changes by both, Dovecot in the folder itself and we in a twin of it.
	compared := 0
	for i := range files {
		list := parseACL(texts[i])
		if list.broken != nil { // Dovecot makes no list of the folders while there is one
			if err := os.Remove(filepath.Join(bob.dir, fmt.Sprint(".F", i), aclName)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if !strings.Contains(rightsByDovecot(t, sessions, aclPeople[0], fmt.Sprint("F", i)), "a") {
			continue
		}
		twin := fmt.Sprint("Twin", i)
		if err := bob.CreateFolder(twin, nil); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			writeACL(t, bob, "."+twin, texts[i])
		}
		for range 3 {
			changeBoth(t, rnd, sessions[aclPeople[0].Account], bob, fmt.Sprint("F", i), twin)
		}
		for _, who := range aclPeople {
			ours, theirs := rightsByUs(s, who, twin), rightsByUs(s, who, fmt.Sprint("F", i))
			if ours != theirs {
				a, _ := os.ReadFile(filepath.Join(bob.dir, "."+twin, aclName))
				b, _ := os.ReadFile(filepath.Join(bob.dir, fmt.Sprint(".F", i), aclName))
				t.Errorf("%q: after our changes %s has %q, after Dovecot's %q\nours    %q\nDovecot %q", texts[i], who.Account, ours, theirs, a, b)
			}
		}
		compared++
	}
	// What we have written is read by a Dovecot that has not seen it before, also what is shared since it made its list.
	rightsByDovecot(t, startDovecotACL(t, dir), aclPeople[0], "F1")
	if _, err := os.Stat(filepath.Join(bob.dir, aclListName)); err != nil {
		t.Error("Dovecot has made no list:", err)
	}
	grant(t, bob, "Sent", aclPeople[1], RightLookup)
	sessions = startDovecotACL(t, dir)
	rightsByDovecot(t, sessions, aclPeople[0], "F1")
	known, err := os.ReadFile(filepath.Join(bob.dir, aclListName))
	if err != nil {
		t.Error("Dovecot has not made its list anew:", err)
	}
	if !strings.Contains(string(known), " Sent\n") {
		t.Error("Dovecot does not know that Sent is shared")
	}
	for i := range files {
		twin := fmt.Sprint("Twin", i)
		if _, err := os.Stat(filepath.Join(bob.dir, "."+twin)); err != nil {
			continue
		}
		for _, who := range aclPeople {
			if ours, theirs := rightsByUs(s, who, twin), rightsByDovecot(t, sessions, who, twin); ours != theirs && who != aclPeople[0] {
				t.Errorf("%s has %q in %s, by Dovecot %q", who.Account, ours, twin, theirs)
			}
			if s.RightsIn(aclPeople[0].Account, twin, who)&RightLookup != 0 && who != aclPeople[0] && !strings.Contains(string(known), " "+twin+"\n") {
				t.Errorf("Dovecot does not know that %s is shared", twin)
			}
		}
	}
	if compared < files/2 {
		t.Errorf("only %d lists could be compared", compared)
	}
	if log, _ := os.ReadFile(filepath.Join(dir, "log")); strings.Contains(string(log), "Panic") {
		t.Errorf("%s", log)
	}
}

// compareACL asks both for the rights of all people in all folders.
func compareACL(t *testing.T, s *Store, sessions map[string]*dovecotSession, bob *Maildrop, files int) {
	t.Helper()
	different, some := 0, 0
	for i := range files {
		mailbox := fmt.Sprint("F", i)
		text, _ := os.ReadFile(filepath.Join(bob.dir, "."+mailbox, aclName))
		for _, who := range aclPeople {
			ours, theirs := rightsByUs(s, who, mailbox), rightsByDovecot(t, sessions, who, mailbox)
			if ours != "" && who != aclPeople[0] {
				some++
			}
			if who == aclPeople[0] && (parseACL(string(text)).broken != nil || ours == strings.Replace(withAdmin(theirs), `""`, "", 1)) {
				continue // Dovecot lets the owner lock himself out, and lets nobody in by a file that it cannot read
			}
			if ours != theirs {
				if different++; different < 10 {
					t.Errorf("%q: %s has %q, by Dovecot %q", text, who.Account, ours, theirs)
				}
			}
		}
	}
	if some < files/4 {
		t.Errorf("the files grant others something only %d times", some)
	}
	t.Logf("%d files, %d grants to others, %d differences", files, some, different)
}

// withAdmin puts the right that the owner always has here among those that he has by Dovecot.
func withAdmin(rights string) string {
	r, _ := rightsOf(strings.TrimRight(strings.Trim(rights, `"`), "cd"))
	return string(appendRights(nil, r|RightAdmin))
}

// changeBoth makes one change with SETACL or DELETEACL by Dovecot, and the same by us in the twin.
func changeBoth(t *testing.T, rnd *rand.Rand, dovecot *dovecotSession, bob *Maildrop, mailbox, twin string) {
	t.Helper()
	id := []string{"ann@home.lan", "eve@home.lan", "anyone", "authenticated"}[rnd.IntN(4)]
	kind := map[string]aclKind{"anyone": aclAnyone, "authenticated": aclAuthenticated}
	who := Identifier{kind: kind[id]}
	if kind[id] == 0 && id != "anyone" {
		who = Identifier{aclUser, id}
	}
	negative := rnd.IntN(3) == 0
	dash := ""
	if negative {
		dash = "-"
	}
	fits := func(have Identifier) bool { return have == who }
	if rnd.IntN(4) == 0 {
		dovecot.command(fmt.Sprintf("DELETEACL %s %s%s", mailbox, dash, id), func(string) {})
		if err := bob.ChangeACL(Claim{}, twin, func(l *AccessList) error { l.remove(fits, negative); return nil }); err != nil {
			t.Fatal(err)
		}
		return
	}
	letters := []string{"", "+", "-"}[rnd.IntN(3)]
	for _, letter := range "lrwstipekxacd" {
		if rnd.IntN(3) == 0 {
			letters += string(letter)
		}
	}
	if letters == "+" || letters == "-" || letters == "" {
		letters += "r"
	}
	if tag := dovecot.command(fmt.Sprintf("SETACL %s %s%s %s", mailbox, dash, id, letters), func(string) {}); !strings.HasPrefix(tag, "OK") {
		t.Fatalf("SETACL %s: %s", letters, tag)
	}
	change, err := parseRights(letters)
	if err != nil {
		t.Fatal(err)
	}
	err = bob.ChangeACL(Claim{}, twin, func(l *AccessList) error {
		_, _, err := change.apply(l, subject{id: who, negative: negative, fits: fits})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
