package main

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// testClock is a time that stands still until it is told to move.
type testClock struct{ t time.Time }

func (c *testClock) now() time.Time { return c.t }

func tryLogin(t *testing.T, th *Throttle, remote, user, password string, good bool) (time.Duration, error) {
	t.Helper()
	a, err := th.Begin(netip.MustParseAddr(remote), user, password)
	if err != nil {
		return 0, err
	}
	defer a.End()
	if good {
		a.Succeeded()
		return 0, nil
	}
	return a.Failed(), nil
}

func TestThrottleBlocksAnAddress(t *testing.T) {
	clock := &testClock{time.Unix(1e9, 0)}
	th := NewThrottle(clock.now)
	var last time.Duration
	for i := range throttleRemote {
		d, err := tryLogin(t, th, "192.0.2.1", "ann", fmt.Sprint("wrong", i), false)
		if err != nil || d < last {
			t.Fatalf("attempt %d: delay %v after %v, %v", i, d, last, err)
		}
		last = d
	}
	if _, err := tryLogin(t, th, "192.0.2.1", "bob", "right", true); err != ErrThrottled {
		t.Errorf("the address is not blocked: %v", err)
	}
	if _, err := tryLogin(t, th, "192.0.2.2", "ann", "right", true); err != nil {
		t.Errorf("another address is blocked: %v", err)
	}
	clock.t = clock.t.Add(throttleBlock)
	if _, err := tryLogin(t, th, "192.0.2.1", "ann", "right", true); err != nil {
		t.Errorf("still blocked: %v", err)
	}
}

func TestThrottleCountsTheSamePasswordOnce(t *testing.T) {
	th := NewThrottle((&testClock{time.Unix(1e9, 0)}).now)
	for range 10 * throttleRemote {
		if d, err := tryLogin(t, th, "192.0.2.1", "Ann", "old password", false); err != nil || d != throttleDelay {
			t.Fatalf("delay %v, %v", d, err)
		}
	}
}

func TestThrottleIPv6ByPrefix(t *testing.T) {
	th := NewThrottle((&testClock{time.Unix(1e9, 0)}).now)
	for i := range throttleRemote {
		_, _ = tryLogin(t, th, fmt.Sprintf("2001:db8::%x", i), "ann", fmt.Sprint(i), false)
	}
	if _, err := tryLogin(t, th, "2001:db8::ffff:1", "ann", "x", true); err != ErrThrottled {
		t.Errorf("the /64 is not blocked: %v", err)
	}
	if _, err := tryLogin(t, th, "2001:db8:0:1::1", "bob", "x", true); err != nil {
		t.Errorf("another /64 is blocked: %v", err)
	}
}

func TestThrottleBlocksAnAccountButNotItsOwner(t *testing.T) {
	th := NewThrottle((&testClock{time.Unix(1e9, 0)}).now)
	if _, err := tryLogin(t, th, "198.51.100.7", "ann", "right", true); err != nil {
		t.Fatal(err)
	}
	for i := range throttleAccount {
		if _, err := tryLogin(t, th, fmt.Sprintf("192.0.2.%d", i), "ann", fmt.Sprint(i), false); err != nil {
			t.Fatalf("attempt %d: %v", i, err)
		}
	}
	if _, err := tryLogin(t, th, "192.0.2.200", "ann", "right", true); err != ErrThrottled {
		t.Errorf("the account is not blocked: %v", err)
	}
	if _, err := tryLogin(t, th, "198.51.100.7", "ann", "right", true); err != nil {
		t.Errorf("the owner's own address is blocked: %v", err)
	}
}

func TestThrottleIsGentlerOnLoopback(t *testing.T) {
	th := NewThrottle((&testClock{time.Unix(1e9, 0)}).now)
	for i := range throttleAccount - 1 {
		if _, err := tryLogin(t, th, "127.0.0.1", "ann", fmt.Sprint(i), false); err != nil {
			t.Fatalf("attempt %d: %v", i, err)
		}
	}
	if d, _ := tryLogin(t, th, "127.0.0.1", "bob", "y", false); d > throttleMaxDelay {
		t.Errorf("delay %v", d)
	}
}

func TestThrottleParallelGuesses(t *testing.T) {
	th := NewThrottle((&testClock{time.Unix(1e9, 0)}).now)
	_, _ = tryLogin(t, th, "192.0.2.1", "ann", "first", false)
	begun := 0
	for i := range 3 * throttleRemote {
		if _, err := th.Begin(netip.MustParseAddr("192.0.2.1"), "ann", fmt.Sprint(i)); err == nil {
			begun++
		}
	}
	if begun >= throttleRemote {
		t.Errorf("%d guesses at once", begun)
	}
}

func TestThrottleMemoryIsBounded(t *testing.T) {
	clock := &testClock{time.Unix(1e9, 0)}
	th := NewThrottle(clock.now)
	for i := range throttleEntries + 500 {
		clock.t = clock.t.Add(time.Second)
		remote := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		_, _ = tryLogin(t, th, remote.String(), fmt.Sprint("user", i), "x", false)
		_, _ = tryLogin(t, th, remote.String(), fmt.Sprint("user", i), "y", true)
	}
	if len(th.remotes) > throttleEntries || len(th.accounts) > throttleEntries || len(th.trusted) > throttleEntries {
		t.Errorf("%d addresses, %d accounts, %d pairs", len(th.remotes), len(th.accounts), len(th.trusted))
	}
}
