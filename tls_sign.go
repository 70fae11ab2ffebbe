package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	// Some systems refuse more than 825 days, and 398 for public ones.
	leafLife = 397 * 24 * time.Hour
	// Made anew this long before the end.
	leafReserve = 30 * 24 * time.Hour
	// Certificates begin a day back: the clocks of two machines differ, and
	// time zones are set wrongly.
	clockSlack = 24 * time.Hour
)

// saneTime is now, or on a machine that has no clock of its own and thinks it
// is 1970, a day when this code was there already: what is signed must not be
// over when the clock is set.
func saneTime(now time.Time) time.Time {
	if floor := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC); now.Before(floor) {
		return floor
	}
	return now
}

// begin is a certificate's first moment.
func begin(now time.Time) time.Time {
	if sane := saneTime(now); sane.After(now) {
		return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return now.Add(-clockSlack)
}

// signAuthority makes the certificate of the local authority. Its name and key
// identifier depend on the host and the key alone, so that a certificate made
// again from the same key stands for the same authority.
func signAuthority(key *ecdsa.PrivateKey, host string, now time.Time) ([]byte, error) {
	id, err := keyID(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serialNumber(),
		Subject:               pkix.Name{CommonName: "Appliance local CA (" + host + ")", Organization: []string{"Appliance"}},
		NotBefore:             begin(now),
		NotAfter:              saneTime(now).Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          id,
	}
	return x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
}

// signLeaf makes the machine's certificate with a new key, and the PEM text
// of both.
func signLeaf(ca *x509.Certificate, caKey *ecdsa.PrivateKey, now time.Time, names []string, addresses []netip.Addr) (*tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serialNumber(),
		Subject:      pkix.Name{CommonName: names[0], Organization: []string{"Appliance"}},
		NotBefore:    begin(now),
		NotAfter:     saneTime(now).Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     names,
	}
	for _, a := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(a.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, nil, err
	}
	keyText, err := keyPEM(key)
	if err != nil {
		return nil, nil, err
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyText...)
	pair, err := tls.X509KeyPair(text, text)
	return &pair, text, err
}

// leafFits says whether a certificate is good for the time and covers the
// names and addresses. One that covers more is left alone: an address that
// went may come back.
func leafFits(leaf *x509.Certificate, now time.Time, names []string, addresses []netip.Addr) bool {
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter.Add(-leafReserve)) {
		return false
	}
	for _, name := range names {
		if !slices.Contains(leaf.DNSNames, name) {
			return false
		}
	}
	have := map[netip.Addr]bool{}
	for _, ip := range leaf.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			have[a.Unmap()] = true
		}
	}
	return !slices.ContainsFunc(addresses, func(a netip.Addr) bool { return !have[a] })
}

func serialNumber() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	b[0] = b[0]&0x7f | 0x40 // positive and not short (RFC 5280 §4.1.2.2)
	return new(big.Int).SetBytes(b)
}

func keyID(key *ecdsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return sum[:20], nil
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an ECDSA key")
	}
	return private, nil
}
