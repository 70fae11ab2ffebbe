package main

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// listTimeout is for all lists, which are asked at once.
const listTimeout = 5 * time.Second

// spamLists asks DNS lists for the addresses of clients (RFC 5782).
type spamLists struct {
	zones    []string
	resolver *Resolver
	log      *slog.Logger

	mu     sync.Mutex
	warned map[string]bool // zones whose answer was an error
}

// listLookup is a question that is on its way.
type listLookup struct {
	found  chan string // closed when all have answered
	cancel context.CancelFunc
}

// begin asks all lists. wait must be called for the answer, end in any case.
func (l *spamLists) begin(ctx context.Context, addr netip.Addr) *listLookup {
	if len(l.zones) == 0 || isNear(addr) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	lookup := &listLookup{make(chan string, len(l.zones)), cancel}
	var asking sync.WaitGroup
	for _, zone := range l.zones {
		asking.Go(func() {
			if l.lists(ctx, zone, addr) {
				lookup.found <- zone
			}
		})
	}
	go func() {
		asking.Wait()
		close(lookup.found)
	}()
	return lookup
}

// wait gives the lists that have the address.
func (l *listLookup) wait() (zones []string) {
	if l == nil {
		return nil
	}
	for zone := range l.found {
		zones = append(zones, zone)
	}
	return zones
}

func (l *listLookup) end() {
	if l != nil {
		l.cancel()
	}
}

// lists says whether a list has an address. Only 127.0.0.2 to 127.0.0.255 mean that it has: 127.255.255.x is how lists tell
// that they do not answer (as Spamhaus does for resolvers that very many people use), and what is outside 127.0.0.0/8 comes
// from somebody who sells names that do not exist.
func (l *spamLists) lists(ctx context.Context, zone string, addr netip.Addr) bool {
	name, err := listName(addr, zone)
	if err != nil {
		return false
	}
	answers, err := l.resolver.IPv4(ctx, name)
	if err != nil { // not listed, or nobody can tell
		return false
	}
	listed := false
	for _, a := range answers {
		b := a.As4()
		switch {
		case b[0] == 127 && b[1] == 0 && b[2] == 0 && b[3] >= 2:
			listed = true
		default:
			l.warn(zone, a)
			return false
		}
	}
	return listed
}

// warn says once that a list does not answer as a list does.
func (l *spamLists) warn(zone string, answer netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.warned[zone] {
		return
	}
	if l.warned == nil {
		l.warned = map[string]bool{}
	}
	l.warned[zone] = true
	l.log.Warn("a DNS list gives no answer; take it out of dnsbl in settings.toml, or use a resolver of your own", "list", zone, "answer", answer)
}
