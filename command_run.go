package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"time"
)

// runOptions are the flags of run.
type runOptions struct {
	listen    string
	offset    int
	hostname  string
	logFormat string
	logLevel  string
	level     slog.Level // what logLevel says
	service   bool       // a service manager has started the process

	acmeDirectory string
	acmeRoot      string
}

// The highest port of the table plus this is still a port.
const maxPortOffset = 64000

func runCommands() []command {
	return []command{{
		name: "run", about: "run the mail server until it is told to end",
		more: "It opens the ports 25 465 587 110 995 143 993, and 80 and 443, or 8080 and 8443 where another program has those.\n" +
			"Where the system refuses low ports it adds 1000 to all of them.",
		flags: func(fs *flag.FlagSet, o *options) {
			placeFlags(fs, o)
			authorityFlags(fs, o)
			fs.StringVar(&o.run.logFormat, "log-format", "text", "`FORMAT` of the log: text or json")
			fs.StringVar(&o.run.logLevel, "log-level", "info", "lowest `LEVEL` that is logged: debug, info, warn or error")
			fs.BoolVar(&o.run.service, "service", false, "run as the installed service does: log as the system does, make no account")
		},
		run: runServer,
	}}
}

// placeFlags are the flags that an installed service keeps.
func placeFlags(fs *flag.FlagSet, o *options) {
	dataFlag(fs, o)
	fs.StringVar(&o.run.listen, "listen", "", "bind only the address `ADDR`")
	fs.IntVar(&o.run.offset, "port-offset", 0, "add `N` to all port numbers")
	fs.StringVar(&o.run.hostname, "hostname", "", "`NAME` of this machine in greetings and certificates")
}

// authorityFlags are kept in the settings.
func authorityFlags(fs *flag.FlagSet, o *options) {
	fs.StringVar(&o.run.acmeDirectory, "acme-directory", "", "get certificates from the authority with this `URL`, or default")
	fs.StringVar(&o.run.acmeRoot, "acme-root", "", "`FILE` in PEM with who vouches for that authority")
}

// check says what is wrong with the values of the flags.
func (o *runOptions) check() error {
	if o.listen != "" {
		if _, err := netip.ParseAddr(o.listen); err != nil {
			return &usageError{fmt.Sprintf("--listen takes an IP address, not %q", o.listen)}
		}
	}
	if o.offset < 0 || o.offset > maxPortOffset {
		return &usageError{fmt.Sprintf("--port-offset is between 0 and %d, not %d", maxPortOffset, o.offset)}
	}
	if o.hostname != "" {
		if o.hostname = normalDomain(o.hostname); checkDomain(o.hostname) != nil {
			return &usageError{fmt.Sprintf("--hostname cannot be %q: %v", o.hostname, checkDomain(o.hostname))}
		}
	}
	if err := o.checkAuthority(); err != nil {
		return err
	}
	if o.logFormat != "text" && o.logFormat != "json" {
		return &usageError{fmt.Sprintf("--log-format is text or json, not %q", o.logFormat)}
	}
	if err := o.level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return &usageError{fmt.Sprintf("--log-level is debug, info, warn or error, not %q", o.logLevel)}
	}
	return nil
}

// quietLog is the log of commands that do one thing: what went wrong.
func quietLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// house is what lies in the data folder, opened.
type house struct {
	data     dataDir
	settings Settings
	hostname string
	chosen   bool // by a person, not by the system
	since    time.Time
	troubles RecentTroubles
	recent   RecentLog
	diary    *Diary
	metrics  *MetricsToken
	accounts *Accounts
	store    *Store
	signer   *DKIMSigner
	check    *DailyCheck
	relays   *Relays
	codes    *OneTimeCodes
	zone     *HouseZone
	answered *AwayMemory
	srs      *SRS
	log      *slog.Logger
}

// openHouse opens settings, accounts and mail for the process that owns the
// data folder. hostname stands above the settings', "" leaves it to them.
func openHouse(data dataDir, hostname string, log *slog.Logger) (*house, error) {
	settings, err := readSettings(data.settings())
	if err != nil {
		return nil, err
	}
	system, err := os.Hostname()
	if err != nil {
		log.Warn("the system does not tell its name", "err", err)
	}
	h := &house{data: data, settings: settings, hostname: machineName(system), since: time.Now()}
	if h.zone, err = OpenZone(data.settings(), settings.TimeZone); err != nil {
		return nil, err
	}
	h.diary = OpenDiary(data.diary(), h.zone.Location, nil)
	h.log = h.diary.Watch(h.recent.Watch(h.troubles.Watch(log)))
	log = h.log
	for _, name := range []string{settings.Hostname, hostname} {
		if name != "" {
			h.hostname, h.chosen = name, true
		}
	}
	if ascii, ok := asciiDomain(h.hostname); ok { // the form that greetings, trace fields and certificates have
		h.hostname = ascii
	}
	domain := settings.Domain
	if domain == "" {
		domain = h.hostname
	}
	h.accounts, err = OpenAccounts(AccountsConfig{File: data.accounts(), Secret: data.secret(), Logins: data.logins(), Domain: domain, Fixed: settings.Domain != "", Log: log})
	if err != nil {
		return nil, err
	}
	if h.codes, err = OpenCodes(data.codes(), nil); err != nil {
		return nil, err
	}
	if h.metrics, err = OpenMetricsToken(data.metrics()); err != nil {
		return nil, err
	}
	h.answered = NewAwayMemory(data.away())
	if h.srs, err = OpenSRS(data.senders(), log, nil); err != nil {
		return nil, err
	}
	h.signer = &DKIMSigner{Dir: data.dkim(), IsLocal: h.accounts.IsLocalDomain}
	h.check = OpenDailyCheck(data.doctor(), log)
	if h.relays, err = OpenRelays(data.relays()); err != nil {
		return nil, err
	}
	h.store, err = OpenStore(StoreConfig{MailDir: data.mail(), IndexDir: data.index(), Host: h.hostname, Log: log, Quota: h.accounts.Quota})
	if err != nil {
		return nil, err
	}
	return h, h.store.FinishRename(h.accounts.Exists)
}

func (h *house) close() {
	h.accounts.Close()
	if err := h.store.Close(); err != nil {
		h.log.Error("closing the mail", "err", err)
	}
	if err := h.diary.Close(); err != nil {
		h.log.Error("closing the diary", "err", err)
	}
}

// newSender makes what brings mail to other servers.
func (h *house) newSender(adjust func(*Sender)) *Sender {
	sender := &Sender{Resolver: &Resolver{}, Hostname: func() string { return h.hostname }, Sign: h.signer.Sign, Log: h.log, Policies: h.data.policies(),
		Relay: h.relays.For, Spare: func() *Relay { return h.relays.Any(h.accounts.IsLocalDomain) }, NoIPv6: h.check.NoIPv6, Closed: h.check.Closed}
	if adjust != nil {
		adjust(sender)
	}
	return sender
}

// openOutbound opens the queue, and all that sends what is in it.
func (h *house) openOutbound(sender *Sender, adjust func(*OutboundConfig)) (*Outbound, error) {
	cfg := OutboundConfig{
		QueueDir: h.data.queue(), Accounts: h.accounts, Store: h.store, Sender: sender,
		Hostname: h.hostname, PerHour: h.sendsPerHour(), Sent: h.data.sent(), Answered: h.answered, SRS: h.srs, Zone: h.zone.Location, Log: h.log,
	}
	if adjust != nil {
		adjust(&cfg)
	}
	return OpenOutbound(cfg)
}

// openSpam opens what judges the mail that arrives.
func (h *house) openSpam(resolver *Resolver) (*SpamFilter, error) {
	return OpenSpamFilter(SpamConfig{
		Dir: h.data.spam(), Store: h.store, IsLocalDomain: h.accounts.IsLocalDomain, Log: h.log,
		Verifier: &Verifier{Resolver: resolver, Hostname: func() string { return h.hostname }, Log: h.log},
		Lists:    h.settings.DNSBL, Greylist: h.settings.Greylist, Milter: h.settings.Milter,
	})
}

func (h *house) closeSpam(spam *SpamFilter) {
	if err := spam.Close(); err != nil {
		h.log.Error("closing the spam filter", "err", err)
	}
}

// sendsPerHour is to how many addresses elsewhere one person may write within an hour.
func (h *house) sendsPerHour() int {
	if h.settings.SendsPerHour == 0 {
		return defaultSendsPerHour
	}
	return int(h.settings.SendsPerHour)
}

// maxSize is the size of a message in bytes that is taken; 0 is the default.
func (h *house) maxSize() int64 { return h.settings.MaxMessageMB << 20 }

// runServer is the appliance's main job: it opens everything in order, serves
// until ctx ends, and closes everything in the opposite order. What only root may
// open is opened first; the rest is done as the owner of the data folder.
func runServer(ctx context.Context, c *call) error {
	if err := c.opt.run.check(); err != nil {
		return err
	}
	tuneMemory()
	g := c.bindGates()
	defer g.close()
	if err := becomeOwner(string(c.data)); err != nil {
		return err
	}
	if err := c.data.make(); err != nil {
		return err
	}
	log, closeLog, err := OpenLog(LogConfig{Level: c.opt.run.level, JSON: c.opt.run.logFormat == "json",
		Service: c.opt.run.service, Dir: c.data.log(), Stderr: c.stderr})
	if err != nil {
		return err
	}
	defer closeLog()
	err = c.runHouse(ctx, g, log)
	if err != nil && c.opt.run.service {
		log.Error(endMessage, "err", err) // nobody may see what the process prints
	}
	return err
}

// runHouse serves what is in the data folder behind the ports that are bound.
func (c *call) runHouse(ctx context.Context, g *gates, log *slog.Logger) error {
	lock, err := c.data.lockForRun()
	if err != nil {
		return err // the other one has the ports, too
	}
	defer lock.release()
	if g.problem != nil {
		return g.problem
	}
	// One that crashed may have left its control file: nobody listens there.
	if err := os.Remove(c.data.control()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing an old control file: %w", err)
	}
	h, err := openHouse(c.data, c.opt.run.hostname, log)
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.takeAuthority(&c.opt.run); err != nil {
		return err
	}
	return c.serve(ctx, h, g)
}

// gates are the ports of the appliance, bound before anything else is opened.
type gates struct {
	mail    *Protocols
	web     *WebPorts
	problem error // why those for mail are not to be had
}

func (c *call) bindGates() *gates {
	g := &gates{mail: &Protocols{Listen: c.opt.run.listen, Offset: c.opt.run.offset, Throttle: NewThrottle(nil)}}
	if c.adjustPorts != nil {
		c.adjustPorts(g.mail)
	}
	if g.problem = g.mail.Bind(); g.problem != nil {
		return g
	}
	g.web = &WebPorts{Listen: g.mail.Listen, Offset: g.mail.Exchange() - portTable()[0].number} // moved as those for mail are
	g.web.Bind()
	return g
}

func (g *gates) close() {
	g.mail.Close()
	if g.web != nil {
		g.web.Close()
	}
}

// serve serves at the ports.
func (c *call) serve(ctx context.Context, h *house, g *gates) error {
	certs, err := h.openCertificates(c.opt.run.listen, c.askOutside)
	if err != nil {
		return err
	}
	defer certs.Close()
	sender := h.newSender(c.adjust)
	out, err := h.openOutbound(sender, c.adjustOutbound)
	if err != nil {
		return err
	}
	spam, err := h.openSpam(sender.Resolver)
	if err != nil {
		return err
	}
	defer h.closeSpam(spam)
	p := g.mail
	p.Accounts, p.Store, p.TLS, p.Hostname = h.accounts, h.store, certs.Config(), h.hostname
	p.MaxSize, p.Log, p.Queue, p.Flood, p.Judge = h.maxSize(), h.log, out.Queue, out.Flood, spam.Judge
	p.Deliver, p.Returns = out.Rules.Deliver, out.Rules
	if p.Throttle == nil {
		p.Throttle = NewThrottle(nil)
	}
	ports, shifted, err := p.Open()
	if err != nil {
		return err
	}
	all := slices.Concat(ports, h.openWebPorts(certs, p, g.web))
	news := &startNews{house: h, ports: ports, shifted: shifted, listen: c.opt.run.listen, authority: certs.AuthorityFile(), web: g.web, custom: c.customData(), program: c.programWords()}
	if err := c.greet(ctx, news); err != nil {
		return err
	}
	defer inBackground(out.Run)() // ends when the sessions have
	facts := func() (*DoctorFacts, error) { return h.runningFacts(sender, p, ports) }
	if end := c.checkDaily(h, out, facts); end != nil {
		defer end()
	}
	collector := h.openCollector(out, spam, c.adjustOutside)
	mover := h.openMover(out, sender.Resolver, c.adjustOutside)
	ad := &admin{accounts: h.accounts, store: h.store, queue: out.openedQueue,
		relays: h.relays, sender: sender, facts: facts, check: h.check, collector: collector, mover: mover,
		spam: func() (*SpamFilter, error) { return spam, nil }, tls: &tlsAdmin{
			open: func() (*Certificates, error) { return certs, nil }, names: h.names, settings: h.data.settings()}, log: h.log,
		status: func() *ServerStatus { return h.status(all, out.Queue, certs) }, firstAccount: news.firstAccount, endSessions: p.EndSessions, codes: h.codes, answered: h.answered, metrics: h.metrics,
		page: func() string { return h.pageURL(g.web) }}
	page, err := h.newPage(g.web, ad, p, ports)
	if err != nil {
		return err
	}
	page.Metrics = (&houseMetrics{house: h, protocols: p, queue: out.Queue, spam: spam, certs: certs, page: page}).all
	ad.sessions = []openSessions{p, page}
	g.web.Handler = page
	defer inBackground(page.Run)()
	defer inBackground(g.web.Serve)()
	if end := h.announce(c.opt.run.listen, all, certs, page); end != nil {
		defer end()
	}
	defer inBackground(certs.Run)()
	defer inBackground(collector.Run)()
	defer inBackground(mover.Run)()
	control, err := openControl(h.data.control(), ad)
	if err != nil {
		return err
	}
	defer control.close()
	defer attendManager(ctx, p.Answers)()
	return p.Serve(ctx)
}

// customData says whether commands need --data to find the folder.
func (c *call) customData() bool {
	usual, err := chooseDataDir("", os.Getenv)
	if c.opt.run.service {
		usual = systemDataDir(os.Getenv) // where an administrator's commands look
	}
	return err != nil || usual != c.data
}

// programWords gives how commands begin that people are told. A service is installed where shells find it, and commands for it
// need an administrator.
func (c *call) programWords() string {
	if !c.opt.run.service {
		return programName()
	}
	return elevated("appliance")
}

// A machine with 512 MB shall keep most of them.
const (
	gcPercent   = 50
	memoryLimit = 96 << 20 // bytes; above, the collector works harder, nothing fails
)

// tuneMemory trades a little time in the garbage collector for memory, unless
// the person who starts us has set Go's own variables.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
}
