package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// tlsAdmin carries out orders about certificates.
type tlsAdmin struct {
	open     func() (*Certificates, error) // gives those that are open, or opens them
	names    func() *HostNames
	settings string // file
}

// perform carries out an order about certificates.
func (ad *tlsAdmin) perform(verb string, o order) (a answer, known bool, err error) {
	if !slices.Contains([]string{"status", "set", "unset"}, verb) {
		return answer{}, false, nil
	}
	certs, err := ad.open()
	if err != nil {
		return answer{}, true, err
	}
	switch verb {
	case "set":
		a.Text, err = ad.set(certs, o.Own, o.OwnPEM)
	case "unset":
		err = ad.unset(certs)
	default:
		certs.Look() // whoever asks may have changed the DNS
	}
	a.Certificates = certs.State()
	return a, true, err
}

// set takes a certificate that a person brings, if it is for a name that this machine has. trouble says why its files cannot be
// watched, "" where they are.
func (ad *tlsAdmin) set(certs *Certificates, files OwnFiles, text []byte) (trouble string, err error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return "", errors.New("no certificate came with the order")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("reading the certificate: %w", err)
	}
	if own := ad.names(); !covers(leaf, own.All()...) {
		names := certNames(leaf)
		return "", fmt.Errorf("the certificate is for %s, and this machine is called %s: choose its name with --hostname, or hostname in settings.toml",
			strings.Join(names, ", "), own.Host)
	}
	if err := changeSettings(ad.settings, settingChange{"tls_cert", files.Cert}, settingChange{"tls_key", files.Key}); err != nil {
		return "", err
	}
	return certs.SetOwn(files, text)
}

func (ad *tlsAdmin) unset(certs *Certificates) error {
	settings, err := readSettings(ad.settings)
	if err != nil {
		return err
	}
	if settings.TLSCert == "" {
		return errors.New("no certificate was set; see `appliance tls status`")
	}
	if err := changeSettings(ad.settings, settingChange{key: "tls_cert"}, settingChange{key: "tls_key"}); err != nil {
		return err
	}
	return certs.UnsetOwn()
}
