package main

import (
	"cmp"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"time"
)

// What is known of domains' MTA-STS policies, in memory and in DATA/mta-sts.json. A policy holds for its max_age, even where neither
// the DNS nor the web server tells it any more (RFC 8461 §5.1): that a restart would forget it, an attacker could wait for.

const (
	stsKept     = 1000        // domains that are remembered; beyond, the one whose policy was fetched first is forgotten
	stsSave     = time.Minute // how long a policy may be on its way into the file; a crash forgets no more
	stsKeptSize = 8 << 10     // octets of the servers' names of a policy that is kept in the file
	stsFileSize = stsKept * (stsKeptSize + 1<<10)
)

// policyCache is safe for concurrent use.
type policyCache struct {
	writing sync.Mutex // held while the file is written; taken before mu
	mu      sync.Mutex
	domains map[string]*cachedPolicy // nil: the file was not read yet
	timer   *time.Timer              // the next writing; nil: nothing has changed
}

// cachedPolicy is what is known of one domain.
type cachedPolicy struct {
	policy  *stsPolicy // nil: there is none
	unsure  bool       // there may be one that could not be had
	id      string
	fetched time.Time
	expires time.Time
	recheck time.Time // when the DNS is asked again
}

// holds says whether there is a policy that counts now.
func (c *cachedPolicy) holds(now time.Time) bool {
	return c != nil && c.policy != nil && now.Before(c.expires)
}

// policyRecord is what the file holds of a domain.
type policyRecord struct {
	ID      string    `json:"id"`                // of the record in the DNS
	Enforce bool      `json:"enforce,omitempty"` // else it is only tested, or has ended
	MX      []string  `json:"mx,omitempty"`
	Fetched time.Time `json:"fetched"`
	Expires time.Time `json:"expires"`
}

// known gives what is known of a domain, nil for nothing that counts any more.
func (s *Sender) known(domain string, now time.Time) *cachedPolicy {
	p := &s.policies
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.domains == nil {
		p.domains = s.readPolicies(now)
	}
	if c := p.domains[domain]; c != nil && now.Before(c.expires) {
		return c
	}
	return nil
}

// keepPolicy remembers what was found out, and gives what counts: a policy that another message has brought meanwhile stands above
// not having found any.
func (s *Sender) keepPolicy(domain string, fresh *cachedPolicy, now time.Time) *cachedPolicy {
	p := &s.policies
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.domains[domain]
	if old.holds(now) && fresh.policy == nil {
		return old
	}
	if _, there := p.domains[domain]; !there && len(p.domains) >= stsKept {
		p.forgetOldest()
	}
	p.domains[domain] = fresh
	if fresh.policy != nil && (old == nil || !old.fetched.Equal(fresh.fetched)) && s.Policies != "" && p.timer == nil {
		p.timer = time.AfterFunc(stsSave, s.writePolicies)
	}
	return fresh
}

// forgetOldest makes room for one: of those without a policy the one that ends first, else the one that was fetched first.
func (p *policyCache) forgetOldest() {
	oldest := ""
	for domain, c := range p.domains {
		if o := p.domains[oldest]; o == nil || cmp.Or(c.fetched.Compare(o.fetched), c.expires.Compare(o.expires)) < 0 {
			oldest = domain
		}
	}
	delete(p.domains, oldest)
}

// readPolicies reads the file. One that is damaged is as none, and what a wrong clock has put into the future is asked for again
// at once, or has ended.
func (s *Sender) readPolicies(now time.Time) map[string]*cachedPolicy {
	domains := map[string]*cachedPolicy{}
	if s.Policies == "" {
		return domains
	}
	records := map[string]policyRecord{}
	err := readJSON(s.Policies, stsFileSize, &records)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log().Info("the MTA-STS policies of other domains are forgotten, and asked for again: the file cannot be read", "path", s.Policies, "error", err)
		return domains
	}
	for domain, r := range records {
		c := &cachedPolicy{policy: &stsPolicy{enforce: r.Enforce, mx: r.MX}, id: r.ID, fetched: r.Fetched, expires: r.Expires}
		if c.fetched.After(now) {
			c.fetched = time.Time{}
		}
		usable := len(r.MX) > 0 || !r.Enforce
		if usable && c.holds(now) && c.expires.Sub(now) <= stsMaxAge*time.Second && len(domains) < stsKept {
			domains[domain] = c
		}
	}
	return domains
}

// writePolicies writes the file, of the policies that count.
func (s *Sender) writePolicies() {
	p := &s.policies
	p.writing.Lock() // the newest last
	defer p.writing.Unlock()
	p.mu.Lock()
	if p.timer == nil { // by Close, this moment
		p.mu.Unlock()
		return
	}
	p.timer.Stop()
	p.timer = nil
	now := s.now()
	records := map[string]policyRecord{}
	for domain, c := range p.domains {
		if c.holds(now) && len(strings.Join(c.policy.mx, `","`)) <= stsKeptSize {
			records[domain] = policyRecord{c.id, c.policy.enforce, c.policy.mx, c.fetched.UTC(), c.expires.UTC()}
		}
	}
	p.mu.Unlock()
	if err := writeJSON(s.Policies, records); err != nil {
		s.log().Info("the MTA-STS policies of other domains cannot be written", "path", s.Policies, "error", err)
	}
}
