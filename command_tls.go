package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

func tlsCommands() []command {
	return []command{
		{name: "tls status", about: "list the certificates: for which names, from whom, until when",
			more: "Names that lead to this machine get certificates by themselves. Asking makes the appliance look again at once,\n" +
				"or where an authority has just refused one, 20 minutes after that.",
			flags: listFlags, run: tlsStatus},
		{name: "tls set", about: "use a certificate of your own",
			more: "Both files are in PEM. They stay where they are and are watched: when they are renewed, the new ones are used at once.\n" +
				"Where the service may not read them, the command says so; then run it again after each renewal.\n" +
				"The file of the certificate also holds those that lead to its authority (fullchain.pem).",
			flags: func(fs *flag.FlagSet, o *options) {
				dataFlag(fs, o)
				fs.StringVar(&o.own.Cert, "cert", "", "`FILE` with the certificate")
				fs.StringVar(&o.own.Key, "key", "", "`FILE` with its key")
			}, run: tlsSet},
		{name: "tls unset", about: "do not use a certificate of your own any more", flags: dataFlag, run: tlsUnset},
	}
}

func tlsStatus(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "tls status"})
	if err != nil {
		return err
	}
	if c.opt.json {
		return c.sayJSON(a.Certificates)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 8, 2, ' ', 0)
	for i := range a.Certificates {
		s := &a.Certificates[i]
		line := fmt.Sprintf("%s\t%s\tuntil %s", s.Name, s.Issuer, s.Until.Local().Format(time.DateOnly))
		if trouble := s.troubleWords(time.Now()); trouble != "" {
			line += "\t" + trouble
		}
		_, _ = fmt.Fprintln(w, line) // Flush tells
	}
	return w.Flush()
}

// troubleWords says why there is no better certificate, "" for no reason.
func (s *CertificateState) troubleWords(now time.Time) string {
	if s.Error == "" || s.Retry.IsZero() {
		return s.Error
	}
	return fmt.Sprintf("%s (looked at again in %s)", s.Error, max(s.Retry.Sub(now), 0).Round(time.Second))
}

func tlsSet(ctx context.Context, c *call) error {
	if c.opt.own.Cert == "" || c.opt.own.Key == "" {
		return &usageError{"tls set needs --cert FILE and --key FILE"}
	}
	files, err := absoluteFiles(c.opt.own)
	if err != nil {
		return err
	}
	text, _, err := files.read(time.Now())
	if err != nil {
		return err
	}
	a, err := c.order(ctx, order{Do: "tls set", Own: files, OwnPEM: text})
	if err != nil {
		return err
	}
	flags := ""
	if c.opt.data != "" {
		flags = " --data " + quoteWord(string(c.data))
	}
	c.say("%s", ownSetWords(files, a.Text, flags))
	return nil
}

// certbotFolder is where certbot keeps what it gets, for root alone.
const certbotFolder = "/etc/letsencrypt/"

// ownSetWords says that a certificate is used, and where its files cannot be watched what keeps it new.
func ownSetWords(files OwnFiles, trouble, flags string) string {
	if trouble == "" {
		return "The certificate is used from now on. When its files change, the new ones are."
	}
	command := "appliance tls set --cert " + quoteWord(files.Cert) + " --key " + quoteWord(files.Key) + flags
	text := "The certificate is used from now on. But " + trouble + ":\n\n  " + elevated(command)
	if !strings.HasPrefix(files.Cert, certbotFolder) {
		return text
	}
	hook := certbotFolder + "renewal-hooks/deploy/appliance"
	return text + "\n\ncertbot does that by itself from now on, if you enter these two lines:\n\n" +
		"  printf '#!/bin/sh\\n%s\\n' '" + command + "' | " + elevated("tee "+hook) + "\n  " + elevated("chmod +x "+hook)
}

func absoluteFiles(files OwnFiles) (OwnFiles, error) {
	cert, err := filepath.Abs(files.Cert)
	if err == nil {
		files.Key, err = filepath.Abs(files.Key)
	}
	if err != nil {
		return OwnFiles{}, fmt.Errorf("finding the files: %w", err)
	}
	files.Cert = cert
	return files, nil
}

func tlsUnset(ctx context.Context, c *call) error {
	if _, err := c.order(ctx, order{Do: "tls unset"}); err != nil {
		return err
	}
	c.say("The certificate that was set is not used any more.")
	return nil
}

// anyAuthority is what --acme-directory takes for those of the internet.
const anyAuthority = "default"

// checkAuthority says what is wrong with the flags for an authority.
func (o *runOptions) checkAuthority() error {
	if o.acmeDirectory != "" && o.acmeDirectory != anyAuthority {
		if err := checkDirectory(o.acmeDirectory); err != nil {
			return &usageError{"--acme-directory: " + err.Error()}
		}
	}
	if o.acmeRoot != "" && (o.acmeDirectory == "" || o.acmeDirectory == anyAuthority) {
		return &usageError{"--acme-root goes with --acme-directory"}
	}
	if _, err := readRoots(o.acmeRoot); err != nil {
		return err
	}
	return nil
}

// takeAuthority puts the authority of the flags into the settings, so that the service has it, too.
func (h *house) takeAuthority(o *runOptions) error {
	if o.acmeDirectory == "" {
		return nil
	}
	root := o.acmeRoot
	if root != "" {
		var err error
		if root, err = filepath.Abs(root); err != nil {
			return fmt.Errorf("finding the file of --acme-root: %w", err)
		}
	}
	h.settings.ACMEDirectory, h.settings.ACMERoot = namedAuthority(o.acmeDirectory), root
	return h.data.keepAuthority(h.settings.ACMEDirectory, root)
}

// namedAuthority is what the settings have for the value of --acme-directory.
func namedAuthority(flag string) string {
	if flag == anyAuthority {
		return ""
	}
	return flag
}

func (d dataDir) keepAuthority(directory, root string) error {
	return changeSettings(d.settings(), settingChange{"acme_directory", directory}, settingChange{"acme_root", root})
}

// fillAuthority is takeAuthority for a service that is not there yet. Who vouches is copied: the service may not be able to read
// the file of whoever installs it.
func (d dataDir) fillAuthority(o *runOptions) error {
	if o.acmeDirectory == "" {
		return nil
	}
	root := ""
	if o.acmeRoot != "" {
		text, err := os.ReadFile(o.acmeRoot)
		if err != nil {
			return fmt.Errorf("reading the file of --acme-root: %w", err)
		}
		root = filepath.Join(d.tls(), "acme-root.pem")
		if err := os.MkdirAll(d.tls(), 0o700); err != nil {
			return fmt.Errorf("making the folder for certificates: %w", err)
		}
		if err := writeFileAtomic(root, text); err != nil {
			return fmt.Errorf("copying who vouches for the authority: %w", err)
		}
	}
	return d.keepAuthority(namedAuthority(o.acmeDirectory), root)
}

// names is what this machine may be called.
func (h *house) names() *HostNames {
	return &HostNames{Host: h.hostname, Chosen: h.chosen, Exposed: hasPublicIPv4(), Domains: h.accounts.Domains, Private: h.settings.ACMEDirectory != ""}
}

// openCertificates opens them for the process that owns the data folder. An appliance for this machine alone asks nobody but an
// authority that somebody has named.
func (h *house) openCertificates(listen string, adjust func(*CertificatesConfig)) (*Certificates, error) {
	cfg := CertificatesConfig{
		Dir: h.data.tls(), Names: []string{h.hostname, h.accounts.DefaultDomain()}, Log: h.log,
		Own: OwnFiles{h.settings.TLSCert, h.settings.TLSKey},
		Public: PublicConfig{
			Contact: h.accounts.Owner, Directory: h.settings.ACMEDirectory, Root: h.settings.ACMERoot, Listen: listen, Outside: h.outside,
		},
	}
	if only, err := netip.ParseAddr(listen); err != nil || !only.IsLoopback() || cfg.Public.Directory != "" {
		cfg.Public.Wanted = h.names().Wanted
	}
	if adjust != nil {
		adjust(&cfg)
	}
	return OpenCertificates(cfg)
}

// askOutside lets an appliance that others may reach ask them how they see it.
func (c *call) askOutside(cfg *CertificatesConfig) {
	if only, err := netip.ParseAddr(c.opt.run.listen); err != nil || !only.IsLoopback() {
		cfg.Public.Ask = func(ctx context.Context) []netip.Addr {
			seen, _ := c.doctor(nil).Addresses(ctx)
			return seen
		}
	}
	if c.adjustCertificates != nil {
		c.adjustCertificates(cfg)
	}
}

// outside gives the addresses of this machine as the internet saw them at the last daily check.
func (h *house) outside() []netip.Addr {
	if last := h.check.Last(); last != nil {
		return last.Addresses
	}
	return nil
}

// stoppedTLS is what orders about certificates need where no appliance runs.
func (h *house) stoppedTLS() *tlsAdmin {
	open := func() (*Certificates, error) {
		if _, err := os.Stat(authorityFile(h.data.tls())); errors.Is(err, os.ErrNotExist) {
			return nil, errors.New("there is no certificate yet: start the appliance once, and it makes one")
		}
		return h.openCertificates("", func(cfg *CertificatesConfig) { cfg.AsIs = true })
	}
	return &tlsAdmin{open: open, names: h.names, settings: h.data.settings()}
}

// openWebPorts makes the ports 80 and 443 ready as far as they are to be had, and gives those.
func (h *house) openWebPorts(certs *Certificates, p *Protocols, web *WebPorts) []Port {
	web.Certificates, web.Log = certs, h.log
	web.Policy = func(domain string) string { return h.policy(certs, domain) }
	ports := web.Open()
	plain, secure := web.Numbers()
	certs.UsePorts(p.Exchange(), plain, secure)
	return ports
}

// policy gives a domain's rules for mail under TLS. There are none while the certificate is not there that they promise.
func (h *house) policy(certs *Certificates, domain string) string {
	if !h.accounts.IsLocalDomain(domain) {
		return ""
	}
	host := h.names().hostOf(normalDomain(domain))
	if !certs.Trusted(host) {
		return ""
	}
	return stsPolicyText(host)
}
