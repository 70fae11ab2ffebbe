package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// ErrThrottled says that logins are refused for a while, after too many that
// failed. The password was not looked at.
var ErrThrottled = errors.New("too many failed logins, try again later")

// The numbers of the throttle.
const (
	throttleRemote   = 10                     // distinct failures of an address until it is blocked
	throttleLoopback = 100                    // the same for this machine itself
	throttleAccount  = 50                     // distinct failures of an account, from anywhere, until it is blocked
	throttleBlock    = 15 * time.Minute       // how long
	throttleLoopTime = time.Minute            // how long for this machine itself
	throttleForget   = 30 * time.Minute       // after the last failure, all is forgotten
	throttleTrust    = 30 * 24 * time.Hour    // an address that an account has logged in from is not blocked with it
	throttleDelay    = 250 * time.Millisecond // before the answer to the first failure, doubled with each
	throttleMaxDelay = 8 * time.Second        // and not more than this
	throttleEntries  = 10_000                 // addresses, accounts and pairs that are remembered, each
)

// Throttle makes guessing passwords slow. It counts failures by address (IPv6:
// by /64) and by account. The same wrong password for the same account counts
// once, however often a forgotten phone tries it (but not by SCRAM, where no two
// proofs are alike and each counts); of passwords only a keyed hash is held.
// Safe for concurrent use; its memory is bounded.
type Throttle struct {
	now func() time.Time
	key [32]byte

	mu       sync.Mutex
	remotes  map[netip.Addr]*failures
	accounts map[string]*failures
	trusted  map[trustedPair]time.Time
}

// trustedPair is an address from which an account has logged in.
type trustedPair struct {
	remote  netip.Addr
	account string
}

// guess is the keyed hash of an account and a password.
type guess [16]byte

// failures is what is known of an address or an account.
type failures struct {
	distinct map[guess]struct{}
	pending  int // logins being checked now
	last     time.Time
	blocked  time.Time // until then
}

// NewThrottle gives an empty throttle; now nil means time.Now.
func NewThrottle(now func() time.Time) *Throttle {
	if now == nil {
		now = time.Now
	}
	t := &Throttle{
		now:      now,
		remotes:  map[netip.Addr]*failures{},
		accounts: map[string]*failures{},
		trusted:  map[trustedPair]time.Time{},
	}
	_, _ = rand.Read(t.key[:]) // never fails
	return t
}

// Attempt is one login that is being checked. End it.
type Attempt struct {
	t               *Throttle
	pair            trustedPair
	guess           guess
	remote, account *failures
}

// Begin asks whether a login may be tried now; ErrThrottled when not. The user
// is whatever the client gave as a name.
func (t *Throttle) Begin(remote netip.Addr, user, password string) (*Attempt, error) {
	a := &Attempt{t: t, pair: trustedPair{throttlePrefix(remote), clip(strings.ToLower(user), 256)}}
	a.guess = t.hash(a.pair.account, password)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	a.remote = entry(t.remotes, a.pair.remote, now)
	a.account = entry(t.accounts, a.pair.account, now)
	if a.remote.refuses(now, remoteLimit(a.pair.remote)) || !t.trusts(a.pair, now) && a.account.refuses(now, throttleAccount) {
		return nil, ErrThrottled
	}
	a.remote.pending++
	a.account.pending++
	return a, nil
}

// Try lets check decide about a login that the throttle allows; ErrThrottled when it allows none. After ErrBadLogin the answer has
// to be held back for as long as wait says. guess is what the client knows: the same one counts once.
func (t *Throttle) Try(remote netip.Addr, user, guess string, check func() (Identity, error)) (id Identity, wait time.Duration, err error) {
	attempt, err := t.Begin(remote, user, guess)
	if err != nil {
		return Identity{}, 0, err
	}
	defer attempt.End()
	id, err = check()
	switch {
	case err == nil:
		attempt.Succeeded()
		return id, 0, nil
	case errors.Is(err, ErrBadLogin):
		return Identity{}, attempt.Failed(), err
	}
	return Identity{}, 0, err
}

// End says that the check is over.
func (a *Attempt) End() {
	a.t.mu.Lock()
	defer a.t.mu.Unlock()
	a.remote.pending--
	a.account.pending--
}

// Failed counts a wrong password and gives how long the answer has to wait.
func (a *Attempt) Failed() time.Duration {
	a.t.mu.Lock()
	defer a.t.mu.Unlock()
	now := a.t.now()
	block := throttleBlock
	if a.pair.remote.IsLoopback() {
		block = throttleLoopTime
	}
	a.account.fail(a.guess, now, throttleAccount, throttleBlock)
	n := a.remote.fail(a.guess, now, remoteLimit(a.pair.remote), block)
	if a.pair.remote.IsLoopback() {
		n /= throttleLoopback / throttleRemote
	}
	return min(throttleMaxDelay, throttleDelay<<min(max(n-1, 0), 10))
}

// Succeeded trusts the address for the account. The failures of the address are
// kept: a guesser may own an account too.
func (a *Attempt) Succeeded() {
	a.t.mu.Lock()
	defer a.t.mu.Unlock()
	if _, known := a.t.trusted[a.pair]; !known && len(a.t.trusted) >= throttleEntries {
		evict(a.t.trusted, func(at time.Time) time.Time { return at })
	}
	a.t.trusted[a.pair] = a.t.now()
}

func (t *Throttle) trusts(p trustedPair, now time.Time) bool {
	at, ok := t.trusted[p]
	return ok && now.Sub(at) < throttleTrust
}

func (t *Throttle) hash(account, password string) guess {
	mac := hmac.New(sha256.New, t.key[:])
	mac.Write([]byte(account))
	mac.Write([]byte{0})
	mac.Write([]byte(password))
	return guess(mac.Sum(nil)[:16])
}

// refuses says whether a further login has to be refused: while blocked, and
// when those that are being checked now would reach the limit if they fail.
func (f *failures) refuses(now time.Time, limit int) bool {
	return now.Before(f.blocked) || len(f.distinct) > 0 && len(f.distinct)+f.pending >= limit
}

// fail counts a guess and gives how many different ones there are now.
func (f *failures) fail(g guess, now time.Time, limit int, block time.Duration) int {
	f.last = now
	f.distinct[g] = struct{}{}
	n := len(f.distinct)
	if n >= limit {
		f.blocked = now.Add(block)
		clear(f.distinct) // after the block it starts anew
	}
	return n
}

// entry gives the failures of a key, a fresh one when the old are forgotten.
func entry[K comparable](m map[K]*failures, key K, now time.Time) *failures {
	if f := m[key]; f != nil {
		if f.pending == 0 && now.Sub(f.last) > throttleForget {
			clear(f.distinct)
		}
		return f
	}
	if len(m) >= throttleEntries {
		evict(m, func(f *failures) time.Time { return f.last })
	}
	f := &failures{distinct: map[guess]struct{}{}, last: now}
	m[key] = f
	return f
}

// evict makes room in a full map: of some entries the one that was touched
// longest ago goes.
func evict[K comparable, V any](m map[K]V, touched func(V) time.Time) {
	var oldest K
	var at time.Time
	seen := 0
	for k, v := range m {
		if t := touched(v); seen == 0 || t.Before(at) {
			oldest, at = k, t
		}
		if seen++; seen == 16 {
			break
		}
	}
	delete(m, oldest)
}

func remoteLimit(remote netip.Addr) int {
	if remote.IsLoopback() {
		return throttleLoopback
	}
	return throttleRemote
}

// sourceCounts counts what is going on by where it comes from, as throttlePrefix has it. Safe for concurrent use; the zero value is
// ready.
type sourceCounts struct {
	mu  sync.Mutex
	all int
	of  map[netip.Addr]int
}

// enter counts one more, unless there are as many as may be from there, or in all; then leave is not called.
func (c *sourceCounts) enter(remote netip.Addr, most, all int) bool {
	remote = throttlePrefix(remote)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[remote] >= most || c.all >= all {
		return false
	}
	if c.of == nil {
		c.of = map[netip.Addr]int{}
	}
	c.of[remote]++
	c.all++
	return true
}

// leave counts one that is over.
func (c *sourceCounts) leave(remote netip.Addr) {
	remote = throttlePrefix(remote)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.of[remote]--; c.of[remote] == 0 {
		delete(c.of, remote)
	}
}

// now tells how many there are, from there and in all.
func (c *sourceCounts) now(remote netip.Addr) (there, all int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[throttlePrefix(remote)], c.all
}

// throttlePrefix gives what counts as one address: an IPv6 customer has a /64.
func throttlePrefix(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is4() || a.IsLoopback() {
		return a
	}
	return netip.PrefixFrom(a, 64).Masked().Addr()
}
