package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// How often a handshake looks whether the machine's certificate still fits,
// at most.
const certRecheck = time.Minute

// Certificates keeps a certificate authority of this machine's own and the
// certificate that it gives the machine, those that authorities on the internet
// give (tls_public.go), and one that a person brings (tls_own.go). Which of them
// a client gets is in tls_serve.go. Safe for concurrent use.
type Certificates struct {
	cfg    CertificatesConfig
	ca     *x509.Certificate
	caKey  *ecdsa.PrivateKey
	public *publicCertificates
	own    *ownCertificate

	exchange atomic.Int32 // port where other servers bring mail, 0: not known

	mu      sync.Mutex
	leaf    *tls.Certificate
	checked time.Time
}

// CertificatesConfig is what OpenCertificates needs.
type CertificatesConfig struct {
	Dir       string              // DATA/tls
	Names     []string            // the host name first, then other names of the machine
	Addresses func() []netip.Addr // nil: those of the network interfaces
	Now       func() time.Time    // nil: time.Now
	Log       *slog.Logger        // nil: slog.Default

	Public PublicConfig
	Own    OwnFiles
	AsIs   bool // leave the machine's certificate as it is: this process only looks at it
}

// OpenCertificates reads the authority and the certificate, or makes them at
// the first start. A key of the authority that is damaged or missing is an
// error: a new one would have to be trusted anew by every device, which is for
// people to decide. All else is made again, and said in the log.
func OpenCertificates(cfg CertificatesConfig) (*Certificates, error) {
	if cfg.Addresses == nil {
		cfg.Addresses = machineAddresses
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	c := &Certificates{cfg: cfg}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder for certificates: %w", err)
	}
	if err := c.openAuthority(); err != nil {
		return nil, err
	}
	c.leaf = c.readLeaf()
	if err := c.refresh(); err != nil {
		return nil, err
	}
	c.own = openOwnCertificate(cfg.Own, filepath.Join(cfg.Dir, "own.pem"), cfg.Now, cfg.Log)
	public := cfg.Public
	public.Wanted = c.wanted
	c.public = newPublicCertificates(public, filepath.Join(cfg.Dir, "acme"), cfg.Now, cfg.Log)
	return c, nil
}

// AuthorityFile is where the authority's certificate lies, in PEM.
func (c *Certificates) AuthorityFile() string { return authorityFile(c.cfg.Dir) }

func authorityFile(dir string) string { return filepath.Join(dir, "ca.pem") }

func (c *Certificates) keyFile() string  { return filepath.Join(c.cfg.Dir, "ca.key") }
func (c *Certificates) leafFile() string { return filepath.Join(c.cfg.Dir, "server.pem") }

// local gives the certificate of the machine's own authority.
func (c *Certificates) local() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if since := c.cfg.Now().Sub(c.checked); since < 0 || since >= certRecheck {
		if err := c.refresh(); err != nil {
			c.cfg.Log.Error("the machine's certificate could not be renewed", "err", err)
		}
	}
	return c.leaf
}

// openAuthority reads or makes the authority.
func (c *Certificates) openAuthority() error {
	text, err := os.ReadFile(c.keyFile())
	_, noCertificate := os.Stat(c.AuthorityFile())
	switch {
	case err == nil:
		if c.caKey, err = parseKey(text); err != nil {
			return fmt.Errorf("the key of the certificate authority, %s, is damaged: put it back from a backup, or delete %s to have new ones made, which every device must trust anew",
				c.keyFile(), c.cfg.Dir)
		}
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("reading the key of the certificate authority: %w", err)
	case noCertificate == nil:
		return fmt.Errorf("the key of the certificate authority, %s, is missing: put it back from a backup, or delete %s to have new ones made, which every device must trust anew",
			c.keyFile(), c.cfg.Dir)
	default:
		return c.makeAuthority()
	}
	if c.ca = c.readAuthority(); c.ca != nil {
		return nil
	}
	c.cfg.Log.Warn("the certificate of the local authority is made again from its key", "file", c.AuthorityFile())
	return c.issueAuthority()
}

func (c *Certificates) makeAuthority() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	text, err := keyPEM(key)
	if err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	if err := writeFileAtomic(c.keyFile(), text); err != nil {
		return fmt.Errorf("writing the key of the certificate authority: %w", err)
	}
	c.caKey = key
	return c.issueAuthority()
}

// readAuthority gives the authority's certificate if it is there, belongs to
// the key, and will outlive the certificates it signs; else nil.
func (c *Certificates) readAuthority() *x509.Certificate {
	text, err := os.ReadFile(c.AuthorityFile())
	if err != nil {
		return nil
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !ca.IsCA || !c.caKey.PublicKey.Equal(ca.PublicKey) {
		return nil
	}
	if now := saneTime(c.cfg.Now()); now.Before(ca.NotBefore) || now.Add(leafLife).After(ca.NotAfter) {
		return nil
	}
	return ca
}

func (c *Certificates) issueAuthority() error {
	der, err := signAuthority(c.caKey, c.cfg.Names[0], c.cfg.Now())
	if err != nil {
		return fmt.Errorf("making the certificate authority: %w", err)
	}
	if c.ca, err = x509.ParseCertificate(der); err != nil {
		return fmt.Errorf("making the certificate authority: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := writeFileAtomic(c.AuthorityFile(), text); err != nil {
		return fmt.Errorf("writing the certificate authority: %w", err)
	}
	return nil
}

// readLeaf gives the machine's certificate as it is on disk, nil when there
// is none or it is damaged; refresh makes it then.
func (c *Certificates) readLeaf() *tls.Certificate {
	text, err := os.ReadFile(c.leafFile())
	if err != nil {
		return nil
	}
	pair, err := tls.X509KeyPair(text, text)
	if err != nil || pair.Leaf == nil || pair.Leaf.CheckSignatureFrom(c.ca) != nil {
		c.cfg.Log.Warn("the machine's certificate is damaged and made again", "file", c.leafFile())
		return nil
	}
	return &pair
}

// refresh makes a new certificate if the one there is does not fit the time,
// the names or the addresses. It is served even if it cannot be written down.
func (c *Certificates) refresh() error {
	now := c.cfg.Now()
	c.checked = now
	names, addresses := c.names(), c.addresses()
	if c.leaf != nil && (c.cfg.AsIs || leafFits(c.leaf.Leaf, saneTime(now), names, addresses)) {
		return nil
	}
	pair, text, err := signLeaf(c.ca, c.caKey, now, names, addresses)
	if err != nil {
		return fmt.Errorf("making the machine's certificate: %w", err)
	}
	c.leaf = pair
	c.cfg.Log.Info("certificate made", "names", strings.Join(names, " "), "until", pair.Leaf.NotAfter.Format(time.DateOnly))
	if err := writeFileAtomic(c.leafFile(), text); err != nil {
		return fmt.Errorf("writing the machine's certificate: %w", err)
	}
	return nil
}

// names gives what the machine is called: the names it was told, the first
// label of the host name alone and under .local, and localhost.
func (c *Certificates) names() []string {
	short, _, _ := strings.Cut(c.cfg.Names[0], ".")
	var names []string
	for _, name := range slices.Concat(c.cfg.Names, []string{short + ".local", short, "localhost"}) {
		if ascii, ok := asciiDomain(name); ok && !slices.Contains(names, ascii) {
			names = append(names, ascii)
		}
	}
	return names
}

// Called takes in a name that the machine goes by now.
func (c *Certificates) Called(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.cfg.Names, name) {
		return
	}
	c.cfg.Names = append(slices.Clone(c.cfg.Names), name)
	if err := c.refresh(); err != nil {
		c.cfg.Log.Error("the machine's certificate could not be renewed", "err", err)
	}
}

// A certificate names this many addresses at most.
const maxCertAddresses = 32

func (c *Certificates) addresses() []netip.Addr {
	addresses := append([]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}, c.cfg.Addresses()...)
	sortFunc(addresses, netip.Addr.Compare)
	addresses = slices.Compact(addresses)
	return addresses[:min(len(addresses), maxCertAddresses)]
}

// machineAddresses gives the addresses under which others on the network find
// this machine: of IPv6 only the private ones, for the public ones change
// daily on most systems (RFC 8981).
func machineAddresses() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var addresses []netip.Addr
	for _, a := range list {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		ip := prefix.Addr().Unmap().WithZone("")
		if ip.IsGlobalUnicast() && (ip.Is4() || ip.IsPrivate()) {
			addresses = append(addresses, ip)
		}
	}
	return addresses
}

// readAuthorityPEM gives the authority's certificate for `appliance ca`.
func readAuthorityPEM(dir string) ([]byte, error) {
	text, err := os.ReadFile(authorityFile(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, errors.New("there is no certificate authority yet: start the appliance once, and it makes one")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the certificate authority: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || !bytes.HasPrefix(text, []byte("-----BEGIN CERTIFICATE-----")) {
		return nil, fmt.Errorf("%s is damaged: restart the appliance, and it makes it again", authorityFile(dir))
	}
	return text, nil
}
