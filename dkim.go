package main

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/emersion/go-msgauth/dkim"
)

// DKIM (RFC 6376): mail for other servers carries signatures of the domain in its From field, by two keys: RSA, which all
// know, and Ed25519 (RFC 8463), which some prefer. The keys of a domain are made when they are first needed and lie in
// DATA/dkim/DOMAIN/SELECTOR.pem.

// dkimKeys are the keys of a domain, by selector.
var dkimKeys = [...]struct {
	selector, kind string
	make           func() (crypto.Signer, error)
}{
	{"rsa1", "rsa", func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }}, // RFC 8301 §3.2
	{"ed1", "ed25519", func() (crypto.Signer, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}},
}

// dkimFields are the fields that are signed (RFC 6376 §5.4.1). From stands twice, so that none can be added.
var dkimFields = []string{"From", "From", "Sender", "Reply-To", "Subject", "Date", "Message-ID", "To", "Cc", "MIME-Version", "Content-Type",
	"Content-Transfer-Encoding", "In-Reply-To", "References", "List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "Auto-Submitted"}

// DKIMSigner signs for the domains of this appliance. Safe for concurrent use.
type DKIMSigner struct {
	Dir     string                   // DATA/dkim
	IsLocal func(domain string) bool // which domains are signed for

	mu   sync.Mutex
	keys map[string][]dkimKey // by domain in its ASCII form
}

type dkimKey struct {
	selector, kind string
	signer         crypto.Signer
}

// DNSRecord is one record to publish.
type DNSRecord struct {
	Name  string `json:"name"` // whole, without the dot at its end
	Type  string `json:"type"`
	Value string `json:"value"` // as a person sees it: a TXT without quotes
}

// Sign writes the signature fields for a message, whose lines end in CRLF. signed is false where its domain is not ours.
func (s *DKIMSigner) Sign(w io.Writer, domain string, message io.Reader) (signed bool, err error) {
	if !s.IsLocal(domain) {
		return false, nil
	}
	ascii, keys, err := s.keysOf(domain)
	if err != nil {
		return false, err
	}
	signers := make([]*dkim.Signer, len(keys))
	writers := make([]io.Writer, len(keys))
	for i, key := range keys {
		signers[i], err = dkim.NewSigner(&dkim.SignOptions{Domain: ascii, Selector: key.selector, Signer: key.signer, Hash: crypto.SHA256,
			HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed, HeaderKeys: dkimFields})
		if err != nil {
			return false, fmt.Errorf("signing a message: %w", err)
		}
		writers[i] = signers[i]
	}
	_, err = io.Copy(io.MultiWriter(writers...), message)
	for _, signer := range signers {
		if cerr := signer.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return false, fmt.Errorf("signing a message: %w", err)
	}
	for _, signer := range signers {
		if _, err := io.WriteString(w, signer.Signature()); err != nil {
			return false, err
		}
	}
	return true, nil
}

// Records gives what a domain publishes for its signatures.
func (s *DKIMSigner) Records(domain string) ([]DNSRecord, error) {
	ascii, keys, err := s.keysOf(domain)
	if err != nil {
		return nil, err
	}
	var records []DNSRecord
	for _, key := range keys {
		public, err := publicKey(key.signer)
		if err != nil {
			return nil, err
		}
		records = append(records, DNSRecord{key.selector + "._domainkey." + ascii, "TXT", "v=DKIM1; k=" + key.kind + "; p=" + public})
	}
	return records, nil
}

// publicKey gives a key as the p= tag has it (RFC 6376 §3.6.1, RFC 8463 §3.1).
func publicKey(signer crypto.Signer) (string, error) {
	if key, ok := signer.Public().(ed25519.PublicKey); ok {
		return base64.StdEncoding.EncodeToString(key), nil
	}
	der, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return "", fmt.Errorf("reading a DKIM key: %w", err)
	}
	return base64.StdEncoding.EncodeToString(der), nil
}

// keysOf gives the keys of a domain, making what is missing. One at a time: a Raspberry Pi takes seconds for an RSA key.
func (s *DKIMSigner) keysOf(domain string) (ascii string, keys []dkimKey, err error) {
	if ascii, err = asciiName(domain); err != nil || !plainName(ascii) {
		return "", nil, fmt.Errorf("signing for %q: %w", domain, ErrBadAddress)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if keys = s.keys[ascii]; keys != nil {
		return ascii, keys, nil
	}
	dir := filepath.Join(s.Dir, ascii)
	if err := makeDirs(dir); err != nil {
		return "", nil, err
	}
	for _, k := range dkimKeys {
		signer, err := readOrMakeKey(filepath.Join(dir, k.selector+".pem"), k.make)
		if err != nil {
			return "", nil, fmt.Errorf("the DKIM key %s of %s: %w", k.selector, ascii, err)
		}
		keys = append(keys, dkimKey{k.selector, k.kind, signer})
	}
	if s.keys == nil {
		s.keys = map[string][]dkimKey{}
	}
	s.keys[ascii] = keys
	return ascii, keys, nil
}

// readOrMakeKey reads a key, or makes one where there is none. One that is damaged is an error: another in its place would
// not fit to what is published.
func readOrMakeKey(path string, fresh func() (crypto.Signer, error)) (crypto.Signer, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		return parsePrivateKey(text)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	signer, err := fresh()
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, err
	}
	return signer, writeFileAtomic(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

var errBadKey = errors.New("the file is damaged; put it back from a backup, or delete it and publish the new key that is made then")

func parsePrivateKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(bytes.TrimSpace(text))
	if block == nil {
		return nil, errBadKey
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errBadKey
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errBadKey
	}
	return signer, nil
}
