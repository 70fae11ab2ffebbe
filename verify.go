package main

// What the origin of a message is worth: SPF (RFC 7208), DKIM (RFC 6376, RFC 8301, RFC 8463), DMARC (RFC 7489), the name of
// the client's address (iprev, RFC 8601 §3) and ARC (RFC 8617), and the Authentication-Results field that tells it (RFC 8601).

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/emersion/go-msgauth/authres"
)

const (
	verifyTimeout   = 10 * time.Second // for all that one check asks the DNS; the checks run at once
	probeTimeout    = 2 * time.Second  // for a resolver to show that it is there
	probeAgain      = 10 * time.Second // how long one that is not there is not asked again
	probeHolds      = time.Minute      // how long one that is there is not asked again
	maxVerifyHeader = 512 << 10        // octets of a header that is looked at
)

// Verifier finds out where messages are from. Its exported fields are set before use and not changed after. Safe for
// concurrent use.
//
// Judged is what other machines bring from beyond the LAN. Mail of people who have logged in, and of clients on loopback,
// private (RFC 1918, RFC 4193) and link-local addresses is not judged: a LAN has no DNS that could tell, and its printers
// and scanners no signatures.
//
// Nothing waits for the DNS longer than 10 s, and 2 s where no resolver answers at all. What could not be found out is
// temperror, and never a reason to refuse a message.
type Verifier struct {
	Resolver *Resolver
	Hostname func() string // the authserv-id of the field
	Log      *slog.Logger  // nil: none

	draw func() int // 0 to 99, for the share of mail that DMARC's pct applies to; nil: by chance

	mu      sync.Mutex
	probed  time.Time // when the resolver was asked last whether it is there
	present bool
}

// Findings are what is known of a message's origin.
type Findings struct {
	Host    string // who found it: the authserv-id
	Judged  bool   // false: the message is not from outside, and the rest is empty
	Offline bool   // no resolver answered, so that nothing could be asked
	// Collected says that the message was fetched from elsewhere, so that nothing is known of the client: SPF and IPRev are
	// empty, and DMARC passes, or says that nobody can tell who the author is, or says nothing.
	Collected bool
	SPF       SPFFinding
	IPRev     IPRevFinding
	DKIM      []DKIMFinding // in the order of the fields, 10 at most
	DMARC     DMARCFinding
	ARC       ARCFinding
}

// Verify finds out where a message is from. An error is one of reading the message, or that ctx has ended.
func (v *Verifier) Verify(ctx context.Context, m *ReceivedMail) (*Findings, error) {
	f := &Findings{Host: v.Hostname()}
	if m.Account != "" || isNear(m.Remote) {
		return f, nil
	}
	f.Judged = true
	if err := v.examine(ctx, m, f); err != nil {
		return nil, err
	}
	if v.Log != nil {
		v.Log.Debug("verified", "id", m.ID, "remote", m.Remote, "spf", f.SPF.Result, "dkim", len(f.DKIM), "dmarc", f.DMARC.Result,
			"policy", f.DMARC.Policy, "arc", f.ARC.Result, "offline", f.Offline)
	}
	return f, nil
}

// VerifyCollected finds out what signatures tell of a message that was fetched from an account elsewhere. Only Message and Size
// are asked for.
func (v *Verifier) VerifyCollected(ctx context.Context, m *ReceivedMail) (*Findings, error) {
	f := &Findings{Host: v.Hostname(), Judged: true, Collected: true}
	if err := v.examine(ctx, m, f); err != nil {
		return nil, err
	}
	return f, nil
}

// examine opens a message and checks it as far as the DNS can be asked.
func (v *Verifier) examine(ctx context.Context, m *ReceivedMail, f *Findings) error {
	message, err := openMail(m)
	if err != nil {
		return err
	}
	f.Offline = !v.online(ctx)
	if err := v.check(ctx, message, f); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("verifying a message: %w", err)
	}
	return nil
}

// openMail takes the header of a message apart.
func openMail(m *ReceivedMail) (*openedMail, error) {
	header, err := readHeader(bufio.NewReader(io.NewSectionReader(m.Message, 0, m.Size)), maxVerifyHeader)
	tooLong := errors.Is(err, errHeaderTooLong)
	if err != nil && !tooLong {
		return nil, fmt.Errorf("reading a message's header: %w", err)
	}
	return &openedMail{ReceivedMail: m, header: header, fields: splitHeader(header), tooLong: tooLong}, nil
}

// openedMail is a message with its header taken apart.
type openedMail struct {
	*ReceivedMail
	header  []byte // with the blank line, as far as it is looked at
	fields  []headerField
	tooLong bool // there is more of it
}

// body reads what follows the header.
func (m *openedMail) body() io.Reader {
	return io.NewSectionReader(m.Message, int64(len(m.header)), m.Size-int64(len(m.header)))
}

// check runs the checks at once, each with a deadline of its own: who names slow servers in one must not keep another from
// its answer.
func (v *Verifier) check(ctx context.Context, m *openedMail, f *Findings) error {
	var checks sync.WaitGroup
	run := func(check func(ctx context.Context)) {
		checks.Go(func() {
			dns, cancel := context.WithTimeout(ctx, verifyTimeout)
			defer cancel()
			if f.Offline {
				cancel()
			}
			check(dns)
		})
	}
	var policies []authorPolicy
	var dkimErr, arcErr error
	if !f.Collected {
		run(func(dns context.Context) { f.SPF = v.checkSPF(dns, m.ReceivedMail) })
		run(func(dns context.Context) { f.IPRev = v.checkIPRev(dns, m.Remote) })
	}
	run(func(dns context.Context) { f.DKIM, dkimErr = v.checkDKIM(dns, m) })
	run(func(dns context.Context) { policies = v.authorPolicies(dns, m) })
	run(func(dns context.Context) { f.ARC, arcErr = v.checkARC(dns, m) })
	checks.Wait()
	if err := errors.Join(dkimErr, arcErr); err != nil {
		return err
	}
	f.DMARC = v.decideDMARC(policies, m, f)
	if unfit := unfitAuthors(m); f.Collected && unfit != "" {
		f.DMARC = unfitFinding(unfit)
	} else if f.Collected && f.DMARC.Result != authres.ResultPass { // SPF might have passed
		f.DMARC = DMARCFinding{Result: authres.ResultNone, Disposition: "none"}
	}
	return nil
}

// isNear says whether an address is on this machine or the LAN, or none at all.
func isNear(a netip.Addr) bool {
	a = a.Unmap()
	return !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast()
}

// online says whether a resolver answers. It asks for a name that no sender of mail has a say in, so that nobody can make
// us believe that there is none.
func (v *Verifier) online(ctx context.Context) bool {
	v.mu.Lock()
	age := time.Since(v.probed)
	present, known := v.present, !v.probed.IsZero() && (age < probeAgain || v.present && age < probeHolds)
	v.mu.Unlock()
	if known {
		return present
	}
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := v.Resolver.TXT(probe, "localhost")
	present = err == nil || isNotFound(err)
	if ctx.Err() == nil {
		v.mu.Lock()
		v.probed, v.present = time.Now(), present
		v.mu.Unlock()
	}
	return present
}

// chance gives 0 to 99.
func (v *Verifier) chance() int {
	if v.draw != nil {
		return v.draw()
	}
	return rand.IntN(100)
}

// Verdict is what the findings alone demand.
func (f *Findings) Verdict() Verdict {
	verdict := Verdict{Fields: f.Field()}
	switch f.DMARC.Disposition {
	case "reject":
		verdict.Refuse, verdict.Detail = f.DMARC.refusal(), 26
	case "quarantine":
		verdict.Folder = "Junk"
	}
	return verdict
}

// Field gives the Authentication-Results field with its CRLF, "" for a message that was not judged.
func (f *Findings) Field() string {
	if !f.Judged {
		return ""
	}
	var results []authres.Result
	if !f.Collected {
		results = append(results, f.SPF.result(), f.IPRev.result())
	}
	if len(f.DKIM) == 0 {
		results = append(results, &authres.GenericResult{Method: "dkim", Value: authres.ResultNone})
	}
	for _, d := range f.DKIM {
		results = append(results, d.result())
	}
	return resultsField(f.Host, append(results, f.DMARC.result(), f.ARC.result()))
}
