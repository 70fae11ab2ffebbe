package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

var (
	annGrantee = Grantee{"ann@home.lan", "ann"}
	bobGrantee = Grantee{"bob@home.lan", "bob"}
)

func TestParseACL(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "",
		"# a remark\n\n":                       "",
		"user=bob lrs\n":                       "user=bob lrs",
		"user=bob lrs":                         "user=bob lrs",
		"user=bob srl\r\nowner a\r\n":          "user=bob lrs|owner a",
		"-user=bob w\nanyone l\n":              "-user=bob w|anyone l",
		"anonymous l\nauthenticated r\n":       "anyone l|authenticated r",
		"user=bob\n":                           "user=bob ",
		"user=bob   \t lr  \n":                 "user=bob lr",
		"group=a b\n":                          "", // b is no right
		"group=ab lr\ngroup-override=x y\n":    "",
		"group=ab lr\ngroup-override=x w\n":    "group=ab lr|group-override=x w",
		"\"user=two words\" lr\n":              "\"user=two words\" lr",
		"\"user=a\\\"b \\\\c\" lr":             "\"user=a\\\"b \\\\c\" lr",
		"\"-user=x y\" lr":                     "\"-user=x y\" lr",
		"\"user=bob\"":                         "user=bob ",
		"\"user=bob\"lr":                       "",
		"\"user=bob":                           "",
		"\"user=bob\\":                         "",
		"user=bob :lookup,read write-seen\n":   "user=bob lrs",
		"user=bob l:read other, \tthird\n":     "user=bob lr :other third",
		"user=bob l read\n":                    "",
		"user=bob lrz\n":                       "",
		"user=bob LR\n":                        "",
		"users=bob lr\n":                       "",
		"User=bob lr\n":                        "",
		" user=bob lr\n":                       "",
		"user=a\x00b lr\n":                     "",
		"user=ann l\nuser=bob r\nuser=ann w":   "user=ann lw|user=bob r",
		"user= lr\n":                           "user= lr",
		strings.Repeat("# long\n", 10_000):     "",
		"user=bob lr\nnonsense\nuser=ann lr\n": "",
	} {
		l := parseACL(text)
		var got []string
		for _, e := range l.Entries() {
			got = append(got, e.line())
		}
		if joined := strings.Join(got, "|"); joined != want {
			t.Errorf("%.40q is %q, want %q (%v)", text, joined, want, l.broken)
		}
		if blank := strings.Trim(text, "# aremk\n") == ""; want == "" && (l.broken == nil) != blank {
			t.Errorf("%.40q: broken: %v", text, l.broken)
		}
	}
}

func TestACLRights(t *testing.T) {
	const all = "lrwstipekxa"
	for _, c := range []struct{ text, owner, ann string }{
		{"", all, ""},
		{"user=ann@home.lan lr\n", all, "lr"},
		{"user=ann lr\n", all, "lr"},
		{"user=ANN lr\nuser=ann@home lr\nuser= lr\n", all, ""},
		{"owner lr\n", "lra", ""},
		{"owner\n", "a", ""},
		{"-owner xa\n", "lrwstipeka", ""},
		{"user=bob lrs\n", "lrsa", ""},
		{"owner l\nuser=bob@home.lan r\n", "ra", ""},
		{"anyone lr\n", all, "lr"},
		{"anyone lr\nauthenticated w\n", all, "w"},
		{"authenticated w\nanyone lr\n", all, "w"},
		{"anyone lr\nuser=ann\n", all, ""},
		{"anyone lr\n-user=ann l\n", all, "r"},
		{"user=ann lr\n-anyone r\n", all, "l"},
		{"user=ann lrs\n-anyone r\n-user=ann s\n", all, "lr"},
		{"user=ann lr\nuser=ann@home.lan ws\n", all, "lrws"},
		{"group=ann lr\ngroup-override=ann lr\n", all, ""},
		{"user=eve lr\n", all, ""},
		{"user=ann lr\nnonsense\n", all, ""},
		{"owner l\nnonsense\n", all, ""},
	} {
		l := parseACL(c.text)
		if got := l.Rights(bobGrantee, true).Letters(); got != c.owner {
			t.Errorf("%q gives the owner %q, want %q", c.text, got, c.owner)
		}
		if got := l.Rights(annGrantee, false).Letters(); got != c.ann {
			t.Errorf("%q gives ann %q, want %q", c.text, got, c.ann)
		}
	}
	var none *AccessList
	if none.Rights(bobGrantee, true) != RightsAll || none.Rights(annGrantee, false) != 0 || none.Entries() != nil {
		t.Error("without a list the owner may do everything and nobody else anything")
	}
}

// A change keeps what it is not about.
func TestACLSet(t *testing.T) {
	const text = "# who\nuser=ann l :special\n\ngroup=team lr :lookup named\nuser=eve r\nuser=ann@home.lan w\n-user=ann x"
	isAnn := func(id Identifier) bool { return id.names(annGrantee) }
	l := parseACL(text)
	if err := l.set(Identifier{aclUser, annGrantee.Account}, isAnn, false, RightRead); err != nil {
		t.Fatal(err)
	}
	if got, want := string(l.format()), "# who\nuser=ann@home.lan r :special\n\ngroup=team lr :lookup named\nuser=eve r\n-user=ann x\n"; got != want {
		t.Errorf("set makes\n%s\nwant\n%s", got, want)
	}
	if !l.remove(isAnn, true) || l.remove(isAnn, true) {
		t.Error("removing twice")
	}
	l.Revoke(annGrantee)
	if got, want := string(l.format()), "# who\n\ngroup=team lr :lookup named\nuser=eve r\n"; got != want {
		t.Errorf("revoking leaves\n%s\nwant\n%s", got, want)
	}
	for i := len(l.lines); i < maxACLEntries; i++ {
		id := Identifier{aclUser, fmt.Sprint("u", i)}
		if err := l.set(id, func(have Identifier) bool { return have == id }, false, 0); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := l.set(Identifier{aclUser, annGrantee.Account}, isAnn, false, RightRead); err == nil {
		t.Error("the list has no end")
	}
}

func FuzzACL(f *testing.F) {
	f.Add("user=ann lr\n-anyone x\n# y\nowner lrs :a b\n")
	f.Add("\"user=a b\\\"\" lr\ngroup=x :lookup\r\n")
	f.Add("user=ann@home.lan\nauthenticated lr\nuser=ann w\n")
	f.Fuzz(func(t *testing.T, text string) {
		l := parseACL(text)
		if l.broken != nil {
			if l.Rights(annGrantee, false) != 0 || l.Rights(bobGrantee, true) != RightsAll {
				t.Fatal("a list that cannot be read grants something")
			}
			return
		}
		again := parseACL(string(l.format()))
		if again.broken != nil {
			t.Fatalf("%q does not stay readable: %v", l.format(), again.broken)
		}
		isAnn := func(id Identifier) bool { return id.names(annGrantee) }
		var others []string
		for _, line := range l.lines {
			if !isAnn(line.ID) || line.Negative {
				others = append(others, strings.TrimRight(line.text, "\r"))
			}
		}
		before := l.Rights(Grantee{"eve@home.lan", "eve"}, false)
		if again.Rights(annGrantee, false) != l.Rights(annGrantee, false) || again.Rights(bobGrantee, true) != l.Rights(bobGrantee, true) {
			t.Fatalf("%q means something else than %q", l.format(), text)
		}
		if err := again.set(Identifier{aclUser, annGrantee.Account}, isAnn, false, RightRead|RightSeen); err != nil {
			return
		}
		again = parseACL(string(again.format()))
		if got := again.Rights(annGrantee, false); got&^(RightRead|RightSeen) != 0 {
			t.Fatalf("ann is given %s", got.Letters())
		}
		if again.Rights(Grantee{"eve@home.lan", "eve"}, false) != before {
			t.Fatal("eve's rights have changed")
		}
		var kept []string
		for _, line := range again.lines {
			if !isAnn(line.ID) || line.Negative {
				kept = append(kept, strings.TrimRight(line.text, "\r"))
			}
		}
		if !slices.Equal(kept, others) {
			t.Fatalf("kept %q of %q", kept, others)
		}
	})
}
