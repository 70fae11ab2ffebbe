package main

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestStrangersRates(t *testing.T) {
	clock := &testClock{time.Unix(1e9, 0)}
	s := NewStrangers(clock.now)
	a, sameNet, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("192.0.2.1")
	for _, test := range []struct {
		what  string
		limit int
		take  func(netip.Addr) bool
	}{
		{"connections", strangerConnections, func(a netip.Addr) bool { return s.Connect(a) == "" }},
		{"messages", strangerMessages, s.Message},
		{"recipients", strangerRecipients, s.Recipient},
	} {
		count := func(a netip.Addr) (n int) {
			for test.take(a) {
				n++
			}
			return n
		}
		if n := count(a); n != test.limit {
			t.Errorf("%s: %d", test.what, n)
		}
		if n := count(sameNet); n != 0 {
			t.Errorf("%s of the same /64: %d", test.what, n)
		}
		if n := count(other); n != test.limit {
			t.Errorf("%s of another address: %d", test.what, n)
		}
		clock.t = clock.t.Add(30 * time.Second)
		if n := count(a); n != test.limit/2 {
			t.Errorf("%s after half a minute: %d", test.what, n)
		}
		clock.t = clock.t.Add(-time.Hour) // set back
		if n := count(a); n != 0 {
			t.Errorf("%s with a clock set back: %d", test.what, n)
		}
		clock.t = clock.t.Add(time.Minute)
		if n := count(a); n != test.limit {
			t.Errorf("%s after a minute: %d", test.what, n)
		}
	}
}

func TestStrangersMistakes(t *testing.T) {
	clock := &testClock{time.Unix(1e9, 0)}
	s := NewStrangers(clock.now)
	a := netip.MustParseAddr("192.0.2.1")
	last := time.Duration(0)
	for i := range 3 * tarpitDepth {
		delay := s.Delay(a)
		if delay < last || delay > tarpitMost || (delay == 0) != (i <= tarpitFree) {
			t.Fatalf("after %d mistakes: %v after %v", i, delay, last)
		}
		last = delay
		s.Mistake(a)
	}
	if last != tarpitMost {
		t.Errorf("the longest delay is %v", last)
	}
	if d := s.Delay(netip.MustParseAddr("192.0.2.2")); d != 0 {
		t.Errorf("another address waits %v", d)
	}
	clock.t = clock.t.Add((tarpitDepth - tarpitFree) * time.Minute)
	if d := s.Delay(a); d != 0 {
		t.Errorf("after all is forgiven: %v", d)
	}
}

func TestStrangersBlock(t *testing.T) {
	clock := &testClock{time.Unix(1e9, 0)}
	s := NewStrangers(clock.now)
	a := netip.MustParseAddr("192.0.2.1")
	until := func() (n int) {
		for n = 1; !s.Unknown(a); n++ {
			if s.Connect(a) != "" {
				t.Fatalf("blocked after %d", n)
			}
		}
		return n
	}
	if n := until(); n != strangerUnknown {
		t.Errorf("blocked after %d", n)
	}
	clock.t = clock.t.Add(strangerBlock - time.Second)
	if s.Connect(a) == "" || !s.Unknown(a) {
		t.Error("it may come again too early")
	}
	clock.t = clock.t.Add(time.Second)
	if reason := s.Connect(a); reason != "" {
		t.Errorf("it may not come again: %s", reason)
	}
	if n := until(); n >= strangerUnknown || n < 2 {
		t.Errorf("blocked again after %d", n)
	}
	clock.t = clock.t.Add(time.Hour)
	for range 100 { // one a minute is forgiven
		if s.Unknown(a) {
			t.Fatal("blocked for one in a minute")
		}
		clock.t = clock.t.Add(time.Minute)
	}
}

// A spell is told once, and what is remembered is bounded.
func TestStrangersBounds(t *testing.T) {
	clock := &testClock{time.Unix(1e9, 0)}
	s := NewStrangers(clock.now)
	a := netip.MustParseAddr("192.0.2.1")
	for i := range 100 {
		if got := s.Tell(a); got != (i == 0) {
			t.Fatalf("refusal %d is told: %v", i, got)
		}
		clock.t = clock.t.Add(strangerSpell - time.Second)
	}
	clock.t = clock.t.Add(time.Second)
	if !s.Tell(a) {
		t.Error("the next spell is not told")
	}
	clock.t = clock.t.Add(time.Minute)
	told := 0
	for i := range 2 * strangerEntries {
		if s.Tell(netip.MustParseAddr(fmt.Sprintf("10.0.%d.%d", i>>8, i&255))) {
			told++
		}
	}
	if told != strangerLines || len(s.seen) != strangerEntries {
		t.Errorf("%d lines, %d addresses", told, len(s.seen))
	}
}
