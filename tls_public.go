package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// PublicConfig is what is needed for certificates that an authority gives by ACME (RFC 8555). The zero value asks for none.
type PublicConfig struct {
	Wanted    func() []string     // names that may point here, in ASCII, the most important first; nil: none
	Contact   func() string       // the owner's address, for the authority
	Directory string              // URL of the one authority to ask; "": Let's Encrypt, and after it ZeroSSL
	Root      string              // file with the certificate of who vouches for Directory; "": whom the system trusts
	Resolver  *Resolver           // nil: that of the system
	Outside   func() []netip.Addr // addresses of this machine as others see them, as far as they are known; nil: none
	// Ask asks others for them, where a name leads to an address on the internet that is not known: that of a router at home
	// changes, and at the first start nobody has asked. Nil: nobody is asked.
	Ask    func(ctx context.Context) []netip.Addr
	Listen string // the one address that our ports are bound on, "" for all

	issuers func(magic *certmagic.Config) []certmagic.Issuer // nil: those above
}

const (
	// A name that is wanted and does not lead here yet is looked up this often: in the first minutes after a start or a
	// change, when somebody may be entering it into the DNS; for the first hour; for the first day; later.
	lookSoon, lookSoonFor   = 5 * time.Second, 10 * time.Minute
	lookOften, lookOftenFor = time.Minute, time.Hour
	lookAtTimes, lookDay    = 10 * time.Minute, 24 * time.Hour
	lookRarely              = time.Hour

	maxRenewalPause = 6 * time.Hour   // between two looks at a certificate that is there
	obtainTimeout   = 5 * time.Minute // for one try with all authorities
	obtainAtOnce    = 4
	askPause        = time.Minute      // between two questions how others see this machine
	refusedPause    = 20 * time.Minute // after a failure, when somebody is at work on a name; see obtainBackOff
	visitPause      = time.Minute      // between two looks because somebody asks for a name that we have no certificate for
	acmeStopTimeout = 3 * time.Second
)

// obtainBackOff are the pauses after failures; the last one stays. Let's Encrypt takes five failures for a name in an hour.
func obtainBackOff(failures int) time.Duration {
	pauses := []time.Duration{2 * time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 6 * time.Hour}
	return pauses[min(max(failures, 1), len(pauses))-1]
}

// publicCertificates gets certificates for the wanted names from an authority as soon as they lead here, and renews them.
// Until a name is wanted it does nothing; until one leads here it asks only the DNS. Safe for concurrent use.
type publicCertificates struct {
	cfg  PublicConfig
	dir  string
	now  func() time.Time
	log  *slog.Logger
	wake chan struct{} // holds one: there is something to look at
	jobs sync.WaitGroup
	slot chan struct{} // one for each try that runs
	seen seenAddresses

	mu     sync.Mutex
	names  map[string]*publicName
	order  []string // the wanted ones
	magic  *acmeMagic
	broken string // why nothing can be asked for, "" while it can
	ports  acmePorts
	ended  bool
}

// publicName is what is known of one wanted name.
type publicName struct {
	since    time.Time // the news about it, from which the pace of looking it up follows
	visited  time.Time // when somebody asked for it last
	next     time.Time // not before then it is looked at
	busy     bool      // it is looked at now
	failures int       // since the last success
	tried    time.Time // when the last of them was
	refused  bool      // the last of them was an authority's
	problem  string    // why there is no new certificate, a sentence; "" while all is well
}

func newPublicCertificates(cfg PublicConfig, dir string, now func() time.Time, log *slog.Logger) *publicCertificates {
	if cfg.Resolver == nil {
		cfg.Resolver = &Resolver{}
	}
	p := &publicCertificates{cfg: cfg, dir: dir, now: now, log: log, names: map[string]*publicName{},
		wake: make(chan struct{}, 1), slot: make(chan struct{}, obtainAtOnce)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.learnNames()
	if newACMEStorage(dir).Exists(context.Background(), "certificates") {
		p.loadStored()
	}
	return p
}

// learnNames takes over which names are wanted. p.mu is held.
func (p *publicCertificates) learnNames() {
	var wanted []string
	if p.cfg.Wanted != nil {
		wanted = p.cfg.Wanted()
	}
	p.order = wanted
	for name := range p.names {
		if slices.Contains(wanted, name) {
			continue
		}
		delete(p.names, name)
		if p.magic != nil {
			p.magic.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: name}})
		}
	}
	for _, name := range wanted {
		if p.names[name] == nil {
			p.names[name] = &publicName{since: p.now()}
		}
	}
}

// loadStored takes the certificates that were got before, without asking anybody. p.mu is held.
func (p *publicCertificates) loadStored() {
	for _, name := range p.order {
		if !p.needMagic() {
			return
		}
		p.magic.load(context.Background(), p.magic.offline, name, p.log)
	}
}

// needMagic makes what speaks ACME, at the first time. p.mu is held.
func (p *publicCertificates) needMagic() bool {
	if p.magic == nil && p.broken == "" && !p.ended {
		magic, err := newACMEMagic(p.cfg, p.dir, p.log)
		if err != nil {
			p.broken = err.Error()
			p.log.Warn("no certificate can be got from an authority", "err", err)
			return false
		}
		p.magic = magic
		p.magic.use(p.ports, p.contact())
	}
	return p.magic != nil
}

func (p *publicCertificates) contact() string {
	if p.cfg.Contact == nil {
		return ""
	}
	return p.cfg.Contact()
}

// usePorts tells which of our ports 80 and 443 are open, under which numbers. It comes before Run and before they are served.
func (p *publicCertificates) usePorts(ports acmePorts) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ports = ports
	if p.magic != nil {
		p.magic.use(ports, p.contact())
	}
}

// Run works until ctx ends. Without a wanted name it wakes up once an hour and asks nobody.
func (p *publicCertificates) Run(ctx context.Context) {
	for ctx.Err() == nil {
		pause := p.look(ctx)
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-time.After(pause):
		}
	}
	atMost(acmeStopTimeout, p.jobs.Wait)
}

// atMost lets something that waits for the network at its end go on without us after a while; it ends with the answer.
func atMost(limit time.Duration, wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		wait()
	}()
	select {
	case <-done:
	case <-time.After(limit):
	}
}

// close ends what runs beside Run, after it. No certificate is served any more.
func (p *publicCertificates) close() {
	p.mu.Lock()
	magic := p.magic
	p.magic, p.ended = nil, true
	p.mu.Unlock()
	if magic != nil {
		atMost(acmeStopTimeout, magic.cache.Stop)
	}
}

// stir makes Run look at all that waits now.
func (p *publicCertificates) stir() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// news makes all names that have no certificate be looked up at once, and often for a while: somebody is at work on them. Those
// that an authority has refused wait, but not for hours: what was in the way may just have been mended.
func (p *publicCertificates) news() {
	p.mu.Lock()
	now := p.now()
	for name, n := range p.names {
		switch soon := n.tried.Add(refusedPause); {
		case p.magic.certificate(name, now) != nil:
		case !n.refused:
			n.since, n.next = now, time.Time{}
		case soon.Before(n.next):
			n.next = soon
		}
	}
	p.mu.Unlock()
	p.stir()
}

// visited notes that somebody asks us for a name: it may have begun to lead here.
func (p *publicCertificates) visited(name string) {
	p.mu.Lock()
	n, now := p.names[name], p.now()
	due := n != nil && !n.refused && now.Sub(n.visited) >= visitPause && n.next.Sub(now) > lookSoon
	if due {
		n.visited, n.next = now, time.Time{}
	}
	p.mu.Unlock()
	if due {
		p.stir()
	}
}

// look begins with all names whose time has come, and gives the pause until it is the next one's.
func (p *publicCertificates) look(ctx context.Context) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.learnNames()
	now, pause := p.now(), lookRarely
	for _, name := range p.order {
		n := p.names[name]
		if n.busy {
			continue
		}
		if wait := p.untilDue(name, n, now); wait > 0 {
			pause = min(pause, wait)
			continue
		}
		n.busy = true
		p.jobs.Go(func() { p.tend(ctx, name) })
	}
	return pause
}

// untilDue is how long a name need not be looked at. p.mu is held.
func (p *publicCertificates) untilDue(name string, n *publicName, now time.Time) time.Duration {
	if p.broken != "" {
		n.problem = p.broken
		return lookRarely
	}
	wait := n.next.Sub(now)
	if cert := p.magic.newest(name); cert != nil && n.failures == 0 {
		wait = max(wait, p.magic.untilRenewal(cert))
	}
	return wait
}

// pace is how long to wait before a name is looked up again that has not led here so far. Many names are asked for less often.
func (p *publicCertificates) pace(n *publicName, now time.Time) time.Duration {
	switch waited := now.Sub(n.since); {
	case waited < lookSoonFor:
		return max(lookSoon, time.Duration(len(p.order))*time.Second)
	case waited < lookOftenFor:
		return lookOften
	case waited < lookDay:
		return lookAtTimes
	}
	return lookRarely
}

// tend sees to one name: whether it leads here, and if so that there is a certificate.
func (p *publicCertificates) tend(ctx context.Context, name string) {
	p.slot <- struct{}{}
	defer func() { <-p.slot }()
	problem, failed := p.elsewhere(ctx, name), false
	if problem == "" {
		problem, failed = p.obtain(ctx, name)
	}
	p.mu.Lock()
	p.outcome(name, problem, failed)
	p.mu.Unlock()
	p.stir()
}

// outcome notes what became of a name. p.mu is held.
func (p *publicCertificates) outcome(name, problem string, failed bool) {
	n := p.names[name]
	if n == nil {
		return // not wanted any more
	}
	now, held := p.now(), p.magic.certificate(name, p.now())
	said := n.problem
	n.busy, n.problem, n.refused = false, problem, failed
	switch {
	case problem == "":
		n.failures, n.next = 0, time.Time{}
		if cert := p.magic.newest(name); cert == nil || p.magic.untilRenewal(cert) == 0 {
			n.next = now.Add(lookOften) // it was renewed only just, and there is no use in doing it again at once
		}
		return
	case failed:
		n.failures++
		n.tried = now
		n.next = now.Add(obtainBackOff(n.failures))
	case held != nil: // it is to be renewed, and does not lead here; towards the end that is looked at more often
		n.failures++
		n.next = now.Add(min(obtainBackOff(n.failures), max(held.Leaf.NotAfter.Sub(now)/4, lookSoon)))
	default:
		if n.failures > 0 {
			n.failures, n.since = 0, now
		}
		n.next = now.Add(p.pace(n, now))
	}
	switch {
	case said == problem:
	case failed || held != nil:
		p.log.Warn("no certificate could be got", "name", name, "reason", problem, "retry", n.next.Sub(now).String())
	case name == p.order[0]:
		p.log.Info("a certificate is got as soon as the name leads here", "name", name, "reason", problem)
	}
}

// obtain gets or renews the certificate of a name.
func (p *publicCertificates) obtain(ctx context.Context, name string) (problem string, failed bool) {
	p.mu.Lock()
	ready := p.needMagic()
	magic, ports, broken := p.magic, p.ports, p.broken
	p.mu.Unlock()
	switch {
	case !ready:
		return broken, true
	case ports.plain == 0 && ports.secure == 0:
		return "neither port 80 nor port 443 is open here, and an authority looks at one of them before it gives a certificate", true
	}
	ctx, cancel := context.WithTimeout(ctx, obtainTimeout)
	defer cancel()
	cert, problem := magic.obtain(ctx, name, p.log)
	if problem != "" {
		return problem, true
	}
	debug.FreeOSMemory() // an order takes some MiB, and comes every two months
	p.log.Info("certificate received", "name", name, "issuer", issuerWords(cert.Leaf), "until", cert.Leaf.NotAfter.Format(time.DateOnly))
	return "", false
}

// certificate gives the one of a name that is good now, nil for none.
func (p *publicCertificates) certificate(name string) *tls.Certificate {
	p.mu.Lock()
	magic := p.magic
	p.mu.Unlock()
	return magic.certificate(name, p.now())
}

// challengeCertificate answers an authority that looks at port 443 (RFC 8737).
func (p *publicCertificates) challengeCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	magic := p.magic
	p.mu.Unlock()
	if magic == nil {
		return nil, errors.New("no authority was asked for a certificate")
	}
	return magic.online.GetCertificate(hello)
}

// answerChallenge answers an authority that looks at port 80 (RFC 8555 §8.3); false: it was not one.
func (p *publicCertificates) answerChallenge(w http.ResponseWriter, r *http.Request) bool {
	p.mu.Lock()
	magic := p.magic
	p.mu.Unlock()
	return magic != nil && magic.challenge != nil && magic.challenge(w, r)
}

// isMissing says that nothing is stored for a name.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
