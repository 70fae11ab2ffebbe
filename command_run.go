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
)

// runOptions are the flags of run.
type runOptions struct {
	listen    string
	offset    int
	hostname  string
	logFormat string
	logLevel  string

	acmeDirectory string
	acmeRoot      string
}

// The highest port of the table plus this is still a port.
const maxPortOffset = 64000

func runCommands() []command {
	return []command{{
		name: "run", about: "run the mail server until it is told to end",
		more: "It opens the ports 25 465 587 110 995 143 993, and 80 and 443 where they are free.\n" +
			"Where the system refuses low ports it adds 1000 to all of them.",
		flags: func(fs *flag.FlagSet, o *options) {
			dataFlag(fs, o)
			fs.StringVar(&o.run.listen, "listen", "", "bind only the address `ADDR`")
			fs.IntVar(&o.run.offset, "port-offset", 0, "add `N` to all port numbers")
			fs.StringVar(&o.run.hostname, "hostname", "", "`NAME` of this machine in greetings and certificates")
			fs.StringVar(&o.run.acmeDirectory, "acme-directory", "", "get certificates from the authority with this `URL`, or default")
			fs.StringVar(&o.run.acmeRoot, "acme-root", "", "`FILE` in PEM with who vouches for that authority")
			fs.StringVar(&o.run.logFormat, "log-format", "text", "`FORMAT` of the log: text or json")
			fs.StringVar(&o.run.logLevel, "log-level", "info", "lowest `LEVEL` that is logged: debug, info, warn or error")
		},
		run: runServer,
	}}
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
	return nil
}

// logger makes the log that the flags ask for.
func (o *runOptions) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return nil, &usageError{fmt.Sprintf("--log-level is debug, info, warn or error, not %q", o.logLevel)}
	}
	options := &slog.HandlerOptions{Level: level}
	if o.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return slog.New(slog.NewTextHandler(w, options)), nil
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
	accounts *Accounts
	store    *Store
	signer   *DKIMSigner
	check    *DailyCheck
	relays   *Relays
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
	h := &house{data: data, settings: settings, hostname: machineName(system), log: log}
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
	h.accounts, err = OpenAccounts(AccountsConfig{File: data.accounts(), Secret: data.secret(), Domain: domain, Fixed: settings.Domain != "", Log: log})
	if err != nil {
		return nil, err
	}
	h.signer = &DKIMSigner{Dir: data.dkim(), IsLocal: h.accounts.IsLocalDomain}
	h.check = OpenDailyCheck(data.doctor(), log)
	if h.relays, err = OpenRelays(data.relays()); err != nil {
		return nil, err
	}
	h.store, err = OpenStore(StoreConfig{MailDir: data.mail(), IndexDir: data.index(), Host: h.hostname, Log: log, Quota: h.accounts.Quota})
	return h, err
}

func (h *house) close() {
	if err := h.store.Close(); err != nil {
		h.log.Error("closing the mail", "err", err)
	}
}

// newSender makes what brings mail to other servers.
func (h *house) newSender(adjust func(*Sender)) *Sender {
	sender := &Sender{Resolver: &Resolver{}, Hostname: func() string { return h.hostname }, Sign: h.signer.Sign, Log: h.log,
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
		Hostname: h.hostname, PerHour: h.sendsPerHour(), Sent: h.data.sent(), Log: h.log,
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
// until ctx ends, and closes everything in the opposite order.
func runServer(ctx context.Context, c *call) error {
	if err := c.opt.run.check(); err != nil {
		return err
	}
	log, err := c.opt.run.logger(c.stderr)
	if err != nil {
		return err
	}
	tuneMemory()
	if err := c.data.make(); err != nil {
		return err
	}
	lock, err := c.data.lockForRun()
	if err != nil {
		return err
	}
	defer lock.release()
	// One that crashed may have left its control file: nobody listens there.
	if err := os.Remove(c.data.control()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing an old control file: %w", err)
	}
	h, err := openHouse(c.data, c.opt.run.hostname, log)
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.keepAuthority(&c.opt.run); err != nil {
		return err
	}
	return c.serve(ctx, h)
}

// serve opens the ports and serves.
func (c *call) serve(ctx context.Context, h *house) error {
	certs, err := h.openCertificates(c.opt.run.listen, c.adjustCertificates)
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
	p := &Protocols{
		Accounts: h.accounts, Store: h.store, TLS: certs.Config(), Hostname: h.hostname, Throttle: NewThrottle(nil),
		Listen: c.opt.run.listen, Offset: c.opt.run.offset, MaxSize: h.maxSize(), Log: h.log,
		Queue: out.Queue, Flood: out.Flood,
		Judge: spam.Judge,
	}
	if c.adjustPorts != nil {
		c.adjustPorts(p)
	}
	ports, shifted, err := p.Open()
	if err != nil {
		return err
	}
	defer p.Close()
	web := h.openWebPorts(certs, p, ports)
	defer web.Close()
	news := &startNews{house: h, ports: ports, shifted: shifted, listen: c.opt.run.listen, authority: certs.AuthorityFile(), custom: c.customData(), program: programName()}
	if err := c.greet(ctx, news); err != nil {
		return err
	}
	defer inBackground(out.Run)() // ends when the sessions have
	facts := func() (*DoctorFacts, error) { return h.runningFacts(sender, p, ports) }
	if end := c.checkDaily(h, out, facts); end != nil {
		defer end()
	}
	collector := h.openCollector(out, spam, c.adjustOutside)
	ad := &admin{accounts: h.accounts, store: h.store, queue: out.openedQueue,
		relays: h.relays, sender: sender, facts: facts, check: h.check, collector: collector,
		spam: func() (*SpamFilter, error) { return spam, nil }, tls: &tlsAdmin{
			open: func() (*Certificates, error) { return certs, nil }, names: h.names, settings: h.data.settings()}, log: h.log}
	if web.Handler, err = h.newPage(web, ad, p.Throttle, ports); err != nil {
		return err
	}
	defer inBackground(web.Serve)()
	defer inBackground(certs.Run)()
	defer inBackground(collector.Run)()
	control, err := openControl(h.data.control(), ad)
	if err != nil {
		return err
	}
	defer control.close()
	return p.Serve(ctx)
}

// customData says whether commands need --data to find the folder.
func (c *call) customData() bool {
	usual, err := chooseDataDir("", os.Getenv)
	return err != nil || usual != c.data
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
