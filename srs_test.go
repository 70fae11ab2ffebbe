package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func testSRS(t *testing.T, file string, now func() time.Time) *SRS {
	t.Helper()
	s, err := OpenSRS(file, slog.New(slog.DiscardHandler), now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// localOf gives the part of an address before the @.
func localOf(address string) string {
	local, _, _ := cutLast(address, '@')
	return local
}

// TestSRS takes senders there and back, with what servers on the way may do to the case.
func TestSRS(t *testing.T) {
	clock := &movedClock{at: time.Date(2026, 3, 1, 23, 0, 0, 0, time.UTC)}
	file := filepath.Join(t.TempDir(), "srs.key")
	s := testSRS(t, file, clock.now)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("%v %v", info, err)
	}
	for _, sender := range []string{"ann@example.org", "a+b=c-d.e@x.example.org", "=@a.test", "srs@a.test", "SRS@a.test", "SRS0x@a.test", "very.long.name.of.a.list-bounces-0123456789@mail.example.org", "x@bücher.test"} {
		from := mustAddress(sender)
		address, ok := s.Forward(from, "home.lan")
		if !ok || !strings.HasPrefix(address, "SRS0=") || !strings.HasSuffix(address, "@home.lan") {
			t.Errorf("%s became %q", sender, address)
			continue
		}
		s = testSRS(t, file, clock.now) // a restart
		for _, local := range []string{localOf(address), strings.ToLower(localOf(address)), strings.ToUpper(localOf(address))} {
			back, err := s.Reverse(local)
			if err != nil || back.Key() != from.Key() {
				t.Errorf("%s became %s and then %s, %v", sender, local, back, err)
			}
		}
	}
	for _, sender := range []string{`"a b"@example.org`, "ä@example.org", "x@[192.0.2.1]"} {
		if address, ok := s.Forward(mustAddress(sender), "home.lan"); ok {
			t.Errorf("%s became %s", sender, address)
		}
	}
	if _, ok := s.Forward(Address{Local: strings.Repeat("x", 64), Domain: strings.Repeat("y.", 90) + "test"}, "home.lan"); ok {
		t.Error("an address of more than 254 octets")
	}
}

// TestSRSTwice takes a sender through two and three forwarders and all the way back.
func TestSRSTwice(t *testing.T) {
	one, two, three := testSRS(t, "", nil), testSRS(t, "", nil), testSRS(t, "", nil)
	first, _ := one.Forward(mustAddress("ann@example.org"), "one.test")
	second, _ := two.Forward(mustAddress(first), "two.test")
	third, _ := three.Forward(mustAddress(second), "three.test")
	if !strings.HasPrefix(second, "SRS1=") || !strings.HasPrefix(third, "SRS1=") || !strings.Contains(third, "=one.test==") || strings.Contains(third, "two.test") {
		t.Errorf("%s, %s, %s", first, second, third)
	}
	for _, hop := range []struct {
		s       *SRS
		address string
	}{{two, second}, {three, third}} {
		back, err := hop.s.Reverse(strings.ToLower(localOf(hop.address)))
		if err != nil || !strings.EqualFold(back.Local+"@"+back.Domain, first) {
			t.Errorf("%s goes back to %s, %v", hop.address, back, err)
		}
	}
	if back, err := one.Reverse(localOf(first)); err != nil || back.String() != "ann@example.org" {
		t.Errorf("%s, %v", back, err)
	}
	for _, separator := range []string{"+", "-"} {
		from := Address{Local: "SRS0" + separator + "abcd=xy=example.org=ann", Domain: "old.test"}
		address, _ := two.Forward(from, "two.test")
		if back, err := two.Reverse(localOf(address)); err != nil || back != from {
			t.Errorf("%s goes back to %s, %v", address, back, err)
		}
	}
}

// TestSRSTakesNoOther changes each letter of an address, lets it get old, and tries what was made elsewhere.
func TestSRSTakesNoOther(t *testing.T) {
	clock := &movedClock{at: time.Now()}
	s := testSRS(t, "", clock.now)
	address, _ := s.Forward(mustAddress("ann@example.org"), "home.lan")
	local := localOf(address)
	for i := range local {
		for _, c := range "=aZ9@.+" {
			changed := local[:i] + string(c) + local[i+1:]
			if back, err := s.Reverse(changed); err == nil && !strings.EqualFold(changed, local) && !(i == 4) {
				t.Errorf("%s leads to %s", changed, back)
			}
		}
		if back, err := s.Reverse(local[:i]); err == nil {
			t.Errorf("%s leads to %s", local[:i], back)
		}
	}
	if back, err := testSRS(t, "", nil).Reverse(local); err == nil {
		t.Errorf("another secret leads to %s", back)
	}
	for days, want := range map[int]bool{0: true, srsDays: true, srsDays + 1: false, srsDays + 300: false} {
		clock.at = time.Now().AddDate(0, 0, days)
		if _, err := s.Reverse(local); (err == nil) != want {
			t.Errorf("after %d days: %v", days, err)
		}
	}
}

func FuzzSRS(f *testing.F) {
	s := &SRS{make([]byte, 32), func() time.Time { return time.Unix(1_800_000_000, 0) }}
	good, _ := s.Forward(Address{"ann", "example.org"}, "home.lan")
	for _, seed := range []string{localOf(good), "SRS1=a=b==c", "SRS0==", "SRS0=a", "srs1-", "SRS1=x=y=z"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, local string) {
		back, err := s.Reverse(local)
		if err == nil && (back.Local == "" || back.Domain == "") {
			t.Errorf("%q leads to %v", local, back)
		}
		if address, ok := s.Forward(Address{local, "a.test"}, "home.lan"); ok {
			again, err := s.Reverse(localOf(address))
			kind, _ := srsKind(local)
			if err != nil || kind == "" && !strings.EqualFold(again.Local, local) {
				t.Errorf("%q became %q and then %v, %v", local, address, again, err)
			}
		}
	})
}
