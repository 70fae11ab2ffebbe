package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// restart forgets what is in memory alone, as a restart does.
func (w *policyWorld) restart() {
	w.Close()
	old := w.Sender
	w.Sender = &Sender{Hostname: old.Hostname, Policies: old.Policies, limits: old.limits}
	w.adjust(w.Sender)
}

// A policy that is known holds over a restart, though neither the DNS nor the web server tells it any more (RFC 8461 §5.1), and ends
// with its max_age.
func TestPolicyOverRestart(t *testing.T) {
	w := openPolicyWorld(t, stsTestPolicy)
	w.Policies = filepath.Join(t.TempDir(), "mta-sts.json")
	w.try("fetched", SendSent, "mx.x.test [192.0.2.1]")
	w.restart()
	if st, err := os.Stat(w.Policies); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	broken := ""
	w.policy.Store(&broken)
	w.dns.set(func(s *testDNS) { s.broken["_mta-sts.x.test."] = true })
	w.place("192.0.2.1:25", w.second.listener.Addr().String()) // another server, with the wrong certificate
	w.try("the DNS is silent", SendWaiting, "for another name", "4.7.0")
	w.dns.set(func(s *testDNS) { s.broken, s.records["_mta-sts.x.test."] = map[string]bool{}, nil })
	w.restart()
	w.try("the record is gone", SendWaiting, "for another name", "4.7.0")
	w.dns.add(t, `_mta-sts.x.test. TXT "v=STSv1; id=2;"`)
	w.restart()
	w.try("the web server is broken", SendWaiting, "for another name", "4.7.0")
	w.pass(25 * time.Hour)
	w.restart()
	w.try("its time is over", SendSent)
	if len(w.second.got()) != 1 {
		t.Errorf("%d messages", len(w.second.got()))
	}
}

// The file is written when a policy is new, not with each message.
func TestPolicyIsWrittenSeldom(t *testing.T) {
	w := openPolicyWorld(t, stsTestPolicy)
	w.Policies = filepath.Join(t.TempDir(), "mta-sts.json")
	written := func() bool {
		_, err := os.Stat(w.Policies)
		if err == nil {
			err = os.Remove(w.Policies)
		}
		return err == nil
	}
	w.try("the first", SendSent) // closes the sender before it sends
	w.Close()
	if !written() {
		t.Error("it is not written")
	}
	for range 3 {
		w.pass(2 * stsRecheck)
		w.try("the next", SendSent)
		w.Close()
	}
	if written() {
		t.Error("it is written though nothing is new")
	}
	w.pass(stsRefresh - 6*stsRecheck)
	w.try("a day later", SendSent)
	w.Close()
	if !written() {
		t.Error("it is not written when it was fetched once more")
	}
}

// A thousand domains are remembered. Those without a policy go first, then the one whose policy was fetched first.
func TestPolicyBound(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mta-sts.json")
	s := &Sender{Policies: file}
	now := time.Now()
	s.known("", now) // reads
	put := func(i int, policy *stsPolicy) {
		c := &cachedPolicy{policy: policy, id: "1", expires: now.Add(time.Hour)}
		if policy != nil {
			c.fetched = now.Add(-time.Duration(2*stsKept-i) * time.Second)
		}
		s.keepPolicy(fmt.Sprintf("d%d.test", i), c, now)
	}
	enforced := &stsPolicy{enforce: true, mx: []string{"mx.test"}}
	for i := range stsKept {
		if i%10 == 0 {
			put(i, nil)
		} else {
			put(i, enforced)
		}
	}
	for i := range stsKept/10 + 2 { // the last two drive out policies
		put(stsKept+i, enforced)
	}
	for i := range stsKept + stsKept/10 + 2 {
		want := i >= stsKept || i%10 != 0 && i > 2
		if got := s.known(fmt.Sprintf("d%d.test", i), now) != nil; got != want {
			t.Errorf("domain %d: known %v", i, got)
		}
	}
	if len(s.policies.domains) != stsKept {
		t.Errorf("%d are known", len(s.policies.domains))
	}
	s.keepPolicy("d5.test", &cachedPolicy{unsure: true, expires: now.Add(time.Hour)}, now)
	if c := s.known("d5.test", now); !c.holds(now) {
		t.Error("not to have found any drives a policy out")
	}
	s.Close()
	again := &Sender{Policies: file}
	again.known("", now)
	if len(again.policies.domains) != stsKept {
		t.Errorf("%d are read", len(again.policies.domains))
	}
	long := &cachedPolicy{policy: &stsPolicy{mx: []string{strings.Repeat("x", stsKeptSize+1)}}, fetched: now, expires: now.Add(time.Hour)}
	again.keepPolicy("long.test", long, now)
	again.Close()
	third := &Sender{Policies: file}
	if third.known("long.test", now) != nil || len(third.policies.domains) != stsKept-1 {
		t.Error("a policy of any length is kept")
	}
}

// A file that is damaged, or written under a wrong clock, is no harm.
func TestPolicyFileDamaged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mta-sts.json")
	now := time.Now()
	record := func(r policyRecord) string {
		text, err := json.Marshal(map[string]policyRecord{"x.test": r})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	mx := []string{"mx.test"}
	for text, want := range map[string]bool{
		"":              false,
		"{":             false,
		`{"x.test":3}`:  false,
		`{"x.test":{}}`: false,
		strings.Repeat(" ", stsFileSize) + record(policyRecord{ID: "1", Enforce: true, MX: mx, Fetched: now, Expires: now.Add(time.Hour)}): false,
		record(policyRecord{ID: "1", Enforce: true, MX: mx, Fetched: now, Expires: now.Add(time.Hour)}):                                    true,
		record(policyRecord{ID: "1", Fetched: now, Expires: now.Add(time.Hour)}):                                                           true, // mode none
		record(policyRecord{ID: "1", Enforce: true, Fetched: now, Expires: now.Add(time.Hour)}):                                            false,
		record(policyRecord{ID: "1", Enforce: true, MX: mx, Fetched: now, Expires: now.Add(-time.Hour)}):                                   false,
		record(policyRecord{ID: "1", Enforce: true, MX: mx, Fetched: now, Expires: now.Add(20_000 * time.Hour)}):                           false,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := &Sender{Policies: file}
		if got := s.known("x.test", now) != nil; got != want {
			t.Errorf("%.200s: known %v", text, got)
		}
	}
	future := record(policyRecord{ID: "1", Enforce: true, MX: mx, Fetched: now.Add(time.Hour), Expires: now.Add(2 * time.Hour)})
	if err := os.WriteFile(file, []byte(future), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Sender{Policies: file}
	if c := s.known("x.test", now); c == nil || !c.fetched.IsZero() {
		t.Errorf("from the future: %+v", c)
	}
}
