package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// Addresses elsewhere: whose they are, in which forms they are the same, what is refused in which words, and that they are
// on disk.
func TestOutsideAddresses(t *testing.T) {
	a := openTestAccounts(t, "# ours\n\n[[user]]\naddress = 'maria@home.lan' # the boss\n[[user]]\naddress = 'bob@home.lan'\n[[alias]]\naddress = 'all@club.test'\nto = ['bob@home.lan']\n")
	add := func(account, address, want string) {
		t.Helper()
		got, err := a.AddOutside(account, address)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s, %s: %s, want %s", account, address, got, want)
		}
	}
	add("MARIA@home.lan", " Maria.Meier@GMAIL.example", "maria.meier@gmail.example")
	add("maria@home.lan", "maria@xn--bcher-kva.example", "maria@bücher.example")
	add("maria@home.lan", "o'neil&co@gmail.example", "o'neil&co@gmail.example")
	add("bob@home.lan", "maria.meier@gmail.example", "maria.meier@gmail.example") // they share it
	add("bob@home.lan", "bob@gmail.example", "bob@gmail.example")
	before, _ := os.ReadFile(a.cfg.File)
	add("bob@home.lan", "BOB@gmail.example", "bob@home.lan can send with bob@gmail.example already")
	add("bob@home.lan", "bob", `"bob" is not an address: write it as name@domain`)
	add("bob@home.lan", "@gmail.example", `"@gmail.example" is not an address: write it as name@domain`)
	add("bob@home.lan", `"b b"@gmail.example`, `"\"b b\"@gmail.example" has a part before the @ that needs quotes, which no program here can send with`)
	add("bob@home.lan", "bob@[192.0.2.1]", `the domain of "bob@[192.0.2.1]" is not usable: only letters, digits, hyphens and dots can be in it, not '['`)
	add("bob@home.lan", "eve@HOME.lan", "home.lan is a domain of this appliance; `appliance alias add eve@home.lan bob@home.lan` makes it an address of bob@home.lan")
	add("bob@home.lan", "eve@club.test", "club.test is a domain of this appliance; `appliance alias add eve@club.test bob@home.lan` makes it an address of bob@home.lan")
	add("eve@home.lan", "eve@gmail.example", "eve@home.lan has no account here; `appliance user list` shows all")
	refused := func(err error, want string) {
		t.Helper()
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	elsewhere := "gmail.example cannot be a domain of this appliance while maria@home.lan sends with maria.meier@gmail.example, a mailbox elsewhere; `appliance user sender remove` ends that"
	_, err := a.Add("eve@gmail.example", "", "correct horse")
	refused(err, elsewhere)
	_, err = a.AddAlias("@gmail.example", []string{"bob@home.lan"})
	refused(err, elsewhere)
	_, err = a.RemoveOutside("bob@home.lan", "eve@gmail.example")
	refused(err, "bob@home.lan does not send with eve@gmail.example; `appliance user sender list` shows all")
	if after, _ := os.ReadFile(a.cfg.File); string(after) != string(before) {
		t.Errorf("what was refused has changed the file:\n%s", after)
	}
	again, err := OpenAccounts(a.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []*Accounts{a, again} {
		for address, want := range map[string]string{
			"Maria.Meier@gmail.example": "maria bob", "bob@GMAIL.example": "bob", "maria.meier+x@gmail.example": "", "meier@gmail.example": "",
			"maria@bücher.example": "maria", "MARIA@XN--BCHER-KVA.example": "maria", "maria@sub.gmail.example": "",
		} {
			addr, err := ParseAddress(address)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, who := range []string{"maria", "bob", "eve"} {
				if a.Owns(who+"@home.lan", addr) {
					got = append(got, who)
				}
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s belongs to %q, want %q", address, got, want)
			}
		}
		if a.IsLocalDomain("gmail.example") || len(a.Domains()) != 2 {
			t.Errorf("local: %v", a.Domains())
		}
		if got := fmt.Sprint(a.OutsideOf("gmail.example"), a.OutsideOf("bob@gmail.example"), a.OutsideOf("")); got !=
			"[{maria@home.lan maria.meier@gmail.example} {maria@home.lan o'neil&co@gmail.example} {bob@home.lan maria.meier@gmail.example} {bob@home.lan bob@gmail.example}] [{bob@home.lan bob@gmail.example}] []" {
			t.Errorf("lists: %s", got)
		}
	}
	for n := len(a.Users()[1].SendAs); n < maxOutside; n++ {
		add("bob@home.lan", fmt.Sprintf("bob%d@gmail.example", n), fmt.Sprintf("bob%d@gmail.example", n))
	}
	add("bob@home.lan", "more@gmail.example", "bob@home.lan can send with 20 addresses elsewhere already, and there can be no more")
	for _, address := range slices.Clone(a.Users()[1].SendAs) {
		if _, err := a.RemoveOutside("bob@home.lan", address); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Remove("maria@home.lan"); err != nil || len(a.Outside()) != 0 {
		t.Errorf("after the removal of all: %v %v", a.Outside(), err)
	}
	if text, _ := os.ReadFile(a.cfg.File); strings.Contains(string(text), "send_as") || !strings.HasPrefix(string(text), "# ours\n") {
		t.Errorf("the file:\n%s", text)
	}
}
