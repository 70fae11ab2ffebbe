package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// acmeMagic is certmagic, set up for us: what it stores, what it has in memory, whom it asks. A nil one has no certificate.
type acmeMagic struct {
	cache     *certmagic.Cache
	online    *certmagic.Config
	offline   *certmagic.Config // the same, asking nobody
	storage   *acmeStorage
	issuers   []*authority
	ports     acmePorts
	challenge func(w http.ResponseWriter, r *http.Request) bool // nil: none by HTTP
}

// acmePorts are our ports that authorities look at, as bound; 0 where they are not open.
type acmePorts struct{ plain, secure int }

// authority is one that gives certificates.
type authority struct {
	*certmagic.ACMEIssuer
	name         string // for people
	needsContact bool
}

// zeroSSLKeys gives keys for an account with ZeroSSL to whoever tells an address.
const zeroSSLKeys = "https://api.zerossl.com/acme/eab-credentials-email"

const (
	// certmagic looks at certificates this often, for what authorities wish about renewals (RFC 9773). Apart from that we say
	// when. It wants all renewed whose rest is below five times this: those that live less than shortLife would be all the time.
	acmeCheckInterval = time.Hour
	shortLife         = 15 * acmeCheckInterval
)

func newACMEMagic(cfg PublicConfig, dir string, log *slog.Logger) (*acmeMagic, error) {
	roots, err := readRoots(cfg.Root)
	if err != nil {
		return nil, err
	}
	m := &acmeMagic{storage: newACMEStorage(dir)}
	zap := acmeLogger(log)
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return m.online, nil },
		RenewCheckInterval: acmeCheckInterval, Logger: zap,
	})
	m.online = certmagic.New(m.cache, certmagic.Config{Storage: m.storage, Logger: zap, Issuers: []certmagic.Issuer{}})
	if cfg.issuers != nil {
		m.online.Issuers = cfg.issuers(m.online)
	} else {
		m.addAuthorities(cfg, roots)
	}
	offline := *m.online
	offline.OCSP.DisableStapling = true
	m.offline = &offline
	return m, nil
}

// addAuthorities chooses whom to ask: the one that was named, or Let's Encrypt and then ZeroSSL.
func (m *acmeMagic) addAuthorities(cfg PublicConfig, roots *x509.CertPool) {
	add := func(a *authority, template certmagic.ACMEIssuer) {
		template.Agreed, template.ListenHost, template.Logger = true, cfg.Listen, m.online.Logger
		a.ACMEIssuer = certmagic.NewACMEIssuer(m.online, template)
		m.issuers = append(m.issuers, a)
		m.online.Issuers = append(m.online.Issuers, a)
	}
	if cfg.Directory != "" {
		add(&authority{name: directoryName(cfg.Directory)}, certmagic.ACMEIssuer{CA: cfg.Directory, TrustedRoots: roots})
	} else {
		add(&authority{name: "Let's Encrypt"}, certmagic.ACMEIssuer{CA: certmagic.LetsEncryptProductionCA})
		add(&authority{name: "ZeroSSL", needsContact: true}, certmagic.ACMEIssuer{CA: certmagic.ZeroSSLProductionCA, NewAccountFunc: zeroSSLAccount(zeroSSLKeys)})
	}
	m.challenge = m.issuers[0].HandleHTTPChallenge // it knows the questions of all
}

// use tells the authorities on which ports they find us, and whom they find here. It comes before the first order.
func (m *acmeMagic) use(ports acmePorts, contact string) {
	m.ports = ports
	for _, a := range m.issuers {
		a.AltHTTPPort, a.DisableHTTPChallenge = ports.plain, ports.plain == 0
		a.AltTLSALPNPort, a.DisableTLSALPNChallenge = ports.secure, ports.secure == 0
		if _, domain, ok := strings.Cut(contact, "@"); ok && !strings.ContainsFunc(contact, beyondASCII) && isPublicName(domain) {
			a.Email = contact
		}
	}
}

func beyondASCII(r rune) bool { return r > 0x7e }

// directoryName names an authority after its host.
func directoryName(directory string) string {
	if u, err := url.Parse(directory); err == nil && u.Host != "" {
		return u.Host
	}
	return directory
}

// readRoots reads whom to trust, nil for those whom the system trusts.
func readRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading whom to trust for certificates: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("there is no certificate in %s, which was given as acme_root: it is to be a file in PEM", file)
	}
	return roots, nil
}

// refusal is why an authority gave no certificate.
type refusal struct {
	authority string
	err       error
}

// refusalsKey is where a context holds the *[]refusal of a try.
type refusalsKey struct{}

// PreCheck is the one that is embedded, which learns the address from Email; it never asks a person on the terminal. Without an
// address it is left out: it would take one from the files of an earlier account, and there the word "default" stands for none.
func (a *authority) PreCheck(ctx context.Context, names []string, _ bool) error {
	if a.needsContact && a.Email == "" {
		return fmt.Errorf("%s wants to know an address", a.name)
	}
	if a.Email == "" {
		return nil
	}
	return a.ACMEIssuer.PreCheck(ctx, names, false)
}

// Issue is the one that is embedded; it notes what goes wrong.
func (a *authority) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	cert, err := a.ACMEIssuer.Issue(ctx, csr)
	if list, ok := ctx.Value(refusalsKey{}).(*[]refusal); ok && err != nil {
		*list = append(*list, refusal{a.name, err})
	}
	return cert, err
}

// obtain gets a certificate that is missing, or renews one whose time has come. problem is a sentence, "" when it is there.
func (m *acmeMagic) obtain(ctx context.Context, name string, log *slog.Logger) (cert *certmagic.Certificate, problem string) {
	var refusals []refusal
	ctx = context.WithValue(ctx, refusalsKey{}, &refusals)
	if m.newest(name) == nil {
		m.load(ctx, m.online, name, log)
	}
	old := m.newest(name)
	var err error
	switch {
	case old == nil:
		err = m.online.ObtainCertSync(ctx, name)
	case m.untilRenewal(old) == 0:
		err = m.online.RenewCertSync(ctx, name, true)
	default:
		return old, ""
	}
	if err == nil {
		var got certmagic.Certificate
		if got, err = m.online.CacheManagedCertificate(ctx, name); err == nil {
			m.forgetOthers(name, got.Hash())
			return &got, ""
		}
	}
	return nil, refusalWords(name, refusals, err, m.ports)
}

// load takes a stored certificate into memory. What is damaged is deleted, so that it can be got anew.
func (m *acmeMagic) load(ctx context.Context, cfg *certmagic.Config, name string, log *slog.Logger) {
	_, err := cfg.CacheManagedCertificate(ctx, name)
	if err == nil || isMissing(err) {
		return
	}
	log.Warn("the stored certificate of a name is damaged; a new one is got", "name", name, "err", err)
	for _, issuer := range cfg.Issuers {
		if err := m.storage.Delete(ctx, certmagic.StorageKeys.CertsSitePrefix(issuer.IssuerKey(), name)); err != nil {
			log.Error("a damaged certificate cannot be deleted", "name", name, "err", err)
		}
	}
}

// forgetOthers leaves a name the one certificate. What runs out is not to be served.
func (m *acmeMagic) forgetOthers(name, hash string) {
	var others []string
	for _, cert := range m.cache.AllMatchingCertificates(name) {
		if cert.Hash() != hash {
			others = append(others, cert.Hash())
		}
	}
	m.cache.Remove(others)
}

// newest gives the certificate of a name that ends last, good or not; nil for none.
func (m *acmeMagic) newest(name string) *certmagic.Certificate {
	if m == nil {
		return nil
	}
	var best *certmagic.Certificate
	for _, cert := range m.cache.AllMatchingCertificates(name) {
		if cert.Leaf != nil && slices.Contains(cert.Names, name) && (best == nil || cert.Leaf.NotAfter.After(best.Leaf.NotAfter)) {
			best = &cert
		}
	}
	return best
}

// certificate is newest as long as it is good.
func (m *acmeMagic) certificate(name string, now time.Time) *tls.Certificate {
	if cert := m.newest(name); cert != nil && now.Before(cert.Leaf.NotAfter) {
		return &cert.Certificate
	}
	return nil
}

// untilRenewal is how long a certificate need not be looked at: until a third of its life is left, or what its authority
// wishes. 0: it is to be renewed now.
func (m *acmeMagic) untilRenewal(cert *certmagic.Certificate) time.Duration {
	life := cert.Lifetime()
	rest := time.Until(cert.Leaf.NotAfter) - life/3
	if rest <= 0 || life > shortLife && cert.NeedsRenewal(m.online) {
		return 0
	}
	return min(rest, maxRenewalPause)
}

// zeroSSLAccount gives the function that gets keys for a new account, as ZeroSSL wants it, for the account's address.
func zeroSSLAccount(endpoint string) func(context.Context, *certmagic.ACMEIssuer, acme.Account) (acme.Account, error) {
	return func(ctx context.Context, issuer *certmagic.ACMEIssuer, account acme.Account) (acme.Account, error) {
		if issuer.ExternalAccount != nil {
			return account, nil
		}
		keys, err := fetchEABKeys(ctx, endpoint, issuer.Email)
		if err != nil {
			return account, fmt.Errorf("getting keys for an account: %w", err)
		}
		issuer.ExternalAccount = keys
		return account, nil
	}
}

// An answer with the keys has this many bytes at most.
const maxEABAnswer = 64 << 10

func fetchEABKeys(ctx context.Context, endpoint, email string) (*acme.EAB, error) {
	form := strings.NewReader(url.Values{"email": {email}}.Encode())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, form)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := &http.Client{Timeout: 30 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	defer client.CloseIdleConnections()
	var answer struct {
		Success bool   `json:"success"`
		KeyID   string `json:"eab_kid"`
		HMAC    string `json:"eab_hmac_key"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxEABAnswer)).Decode(&answer); err != nil {
		return nil, fmt.Errorf("reading the answer (%s): %w", response.Status, err)
	}
	if !answer.Success || answer.KeyID == "" || answer.HMAC == "" {
		return nil, errors.New("there are none: " + response.Status)
	}
	return &acme.EAB{KeyID: answer.KeyID, MACKey: answer.HMAC}, nil
}
