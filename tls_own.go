package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A certificate that a person brings. Its files stay where they are and are watched: whatever renews them, certbot or a
// NAS, goes on doing so and need not know of us. What was good last is kept as a copy in the data folder, too, so that a
// start finds it when the files are gone, damaged, or not to be read by the user as whom the service runs.

const (
	ownRecheck = 2 * time.Second // between two looks at the files, at most
	maxOwnFile = 256 << 10       // bytes of a file with certificates or a key
)

// OwnFiles are the files of a certificate that a person brings, in PEM.
type OwnFiles struct {
	Cert string // the certificate and, behind it, those that lead to its authority
	Key  string
}

// ownCertificate serves it. Safe for concurrent use.
type ownCertificate struct {
	copied string // file of the copy
	now    func() time.Time
	log    *slog.Logger

	mu      sync.Mutex
	files   OwnFiles // empty: nobody brings one
	pair    *tls.Certificate
	seen    string // state of the files when they were read last
	checked time.Time
	problem string // what is wrong with the files, "" for nothing
}

// openOwnCertificate takes the files, or else the copy. What is wrong is said in the log; it keeps nobody from running.
func openOwnCertificate(files OwnFiles, copied string, now func() time.Time, log *slog.Logger) *ownCertificate {
	o := &ownCertificate{copied: copied, now: now, log: log, files: files}
	if files == (OwnFiles{}) {
		return o
	}
	if o.look(); o.pair != nil {
		return o
	}
	text, err := os.ReadFile(copied)
	if err == nil {
		o.pair, err = parsePair(text, text)
	}
	if err != nil {
		log.Warn("there is no copy of the certificate that was set, either; another one is used", "err", err)
	}
	return o
}

// current gives the certificate while it is good, nil when there is none. At most every two seconds it looks at the files.
func (o *ownCertificate) current() *tls.Certificate {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.files == (OwnFiles{}) {
		return nil
	}
	now := o.now()
	if since := now.Sub(o.checked); since < 0 || since >= ownRecheck {
		o.look()
	}
	if o.pair == nil || now.After(o.pair.Leaf.NotAfter) {
		return nil
	}
	return o.pair
}

// look reads the files if they have changed, or could not be read. Those that are not good change nothing. o.mu is held.
func (o *ownCertificate) look() {
	o.checked = o.now()
	state := o.files.state()
	if state == o.seen && o.problem == "" { // a right to read them that is given does not show in their state
		return
	}
	first := o.seen == ""
	o.seen = state
	text, pair, err := o.files.read(o.now())
	if err != nil {
		if problem := watchWords(err); o.problem != problem {
			o.problem = problem
			o.log.Warn("the certificate that was set cannot be used; the one before stays", "reason", o.problem)
		}
		return
	}
	o.problem = ""
	if !first && (o.pair == nil || !pair.Leaf.Equal(o.pair.Leaf)) {
		o.log.Info("the certificate that was set has changed", "names", strings.Join(certNames(pair.Leaf), " "), "until", pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	o.pair = pair
	o.keepCopy(text)
}

// watchWords says why the files cannot be used. Those that this process may not read are the most common case: certbot and most
// others keep them for root alone, and a service is not root.
func watchWords(err error) string {
	if file := (*fs.PathError)(nil); errors.Is(err, fs.ErrPermission) && errors.As(err, &file) {
		return fmt.Sprintf("the appliance may not read %s, and does not see when it is renewed: run `appliance tls set` again after each renewal", file.Path)
	}
	return err.Error()
}

func (o *ownCertificate) keepCopy(text []byte) {
	if have, err := os.ReadFile(o.copied); err == nil && bytes.Equal(have, text) {
		return
	}
	if err := writeFileAtomic(o.copied, text); err != nil {
		o.log.Error("the certificate that was set cannot be copied", "file", o.copied, "err", err)
	}
}

// set takes a certificate that was read from files and checked, by somebody who may read more than this process. trouble tells
// then whether the files can be watched.
func (o *ownCertificate) set(files OwnFiles, text []byte) error {
	pair, err := parsePair(text, text)
	if err != nil {
		return err
	}
	if err := writeFileAtomic(o.copied, text); err != nil {
		return fmt.Errorf("copying the certificate: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.files, o.pair, o.problem, o.seen = files, pair, "", ""
	o.look()
	return nil
}

// unset forgets it.
func (o *ownCertificate) unset() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.files, o.pair, o.problem, o.seen = OwnFiles{}, nil, "", ""
	if err := removeFile(o.copied); err != nil && !isMissing(err) {
		return fmt.Errorf("deleting the copy of the certificate: %w", err)
	}
	return nil
}

// state tells versions of the files apart without reading them.
func (f OwnFiles) state() string {
	var b strings.Builder
	for _, file := range []string{f.Cert, f.Key} {
		info, err := os.Stat(file)
		if err != nil {
			fmt.Fprintf(&b, "%v;", err)
			continue
		}
		fmt.Fprintf(&b, "%d %d;", info.Size(), info.ModTime().UnixNano())
	}
	return b.String()
}

// read reads the files and checks all that can be told from them alone. text holds the certificates and the key.
func (f OwnFiles) read(now time.Time) (text []byte, pair *tls.Certificate, err error) {
	certs, err := readOwnFile(f.Cert)
	if err != nil {
		return nil, nil, err
	}
	key, err := readOwnFile(f.Key)
	if err != nil {
		return nil, nil, err
	}
	if pair, err = f.check(certs, key, now); err != nil {
		return nil, nil, err
	}
	for _, der := range pair.Certificate {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return append(text, keyBlock(key)...), pair, nil
}

func readOwnFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate or its key: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxOwnFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the certificate or its key: %w", err)
	}
	if len(text) > maxOwnFile {
		return nil, fmt.Errorf("%s is larger than %d KiB: it holds something else than a certificate or its key", file, maxOwnFile>>10)
	}
	return text, nil
}

// parsePair is tls.X509KeyPair with the leaf in any case.
func parsePair(certs, key []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(certs, key)
	if err != nil {
		return nil, err
	}
	if pair.Leaf == nil {
		pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0])
	}
	return &pair, err
}

// keyBlock gives the private key alone.
func keyBlock(text []byte) []byte {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return pem.EncodeToMemory(block)
		}
		text = rest
	}
}

// check says in a sentence what is wrong with a certificate and its key.
func (f OwnFiles) check(certs, key []byte, now time.Time) (*tls.Certificate, error) {
	chain, err := f.chain(certs)
	if err != nil {
		return nil, err
	}
	switch block := keyBlock(key); {
	case block == nil:
		return nil, fmt.Errorf("there is no private key in %s: it is to be a file in PEM, with a line BEGIN PRIVATE KEY", f.Key)
	case bytes.Contains(block, []byte("BEGIN ENCRYPTED")) || bytes.Contains(block, []byte("Proc-Type: 4,ENCRYPTED")):
		return nil, fmt.Errorf("the key in %s is locked with a passphrase: save it without one (openssl pkey -in %s -out NEW)", f.Key, filepath.Base(f.Key))
	}
	pair, err := parsePair(certs, key)
	if err != nil {
		for i := 1; i < len(chain); i++ {
			other := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chain[i].Raw})
			if _, err := parsePair(other, key); err == nil {
				return nil, fmt.Errorf("the certificates in %s are in the wrong order: this server's own comes first, then the one that signed it, and so on", f.Cert)
			}
		}
		return nil, fmt.Errorf("the key in %s does not belong to the certificate in %s", f.Key, f.Cert)
	}
	return pair, f.checkChain(chain, now)
}

// chain gives the certificates of a file.
func (f OwnFiles) chain(text []byte) (chain []*x509.Certificate, err error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		if text = rest; block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a certificate in %s is damaged: %w", f.Cert, err)
		}
		chain = append(chain, cert)
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("there is no certificate in %s: it is to be a file in PEM, with a line BEGIN CERTIFICATE", f.Cert)
	}
	return chain, nil
}

// checkChain looks at the time, the purpose, and whether each certificate is signed by the next one.
func (f OwnFiles) checkChain(chain []*x509.Certificate, now time.Time) error {
	leaf := chain[0]
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate in %s has run out on %s", f.Cert, leaf.NotAfter.Format(time.DateOnly))
	case saneTime(now).Before(leaf.NotBefore):
		return fmt.Errorf("the certificate in %s begins on %s only", f.Cert, leaf.NotBefore.Format(time.DateOnly))
	case leaf.IsCA && len(chain) > 1:
		return fmt.Errorf("the certificates in %s are in the wrong order: this server's own comes first, then the one that signed it, and so on", f.Cert)
	case len(certNames(leaf)) == 0:
		return fmt.Errorf("the certificate in %s is for no name", f.Cert)
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 &&
		!slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return fmt.Errorf("the certificate in %s is not for servers", f.Cert)
	}
	for i := 1; i < len(chain); i++ {
		if chain[i-1].CheckSignatureFrom(chain[i]) != nil {
			return fmt.Errorf("the certificates in %s do not follow each other: number %d was not signed by number %d", f.Cert, i, i+1)
		}
	}
	return nil
}

// certNames gives the names and addresses that a certificate is for.
func certNames(leaf *x509.Certificate) []string {
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

// covers says whether a certificate is for one of the names; names are in lower case.
func covers(leaf *x509.Certificate, names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return name != "" && leaf.VerifyHostname(name) == nil })
}
