package main

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/smallstep/pkcs7"
)

// Signing files that devices are to believe come from this machine.

// SignFor gives a text as signed data of CMS (RFC 5652 §5), in DER: signed with the certificate that clients get who ask for
// the name, and with the certificates that vouch for that one in it.
func (c *Certificates) SignFor(name string, text []byte) ([]byte, error) {
	pair, err := c.signer(name)
	if err != nil {
		return nil, err
	}
	chain := make([]*x509.Certificate, len(pair.Certificate))
	for i, der := range pair.Certificate {
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("reading the certificate of %s: %w", name, err)
		}
	}
	if len(chain) == 1 && chain[0].CheckSignatureFrom(c.ca) == nil {
		chain = append(chain, c.ca)
	}
	data, err := pkcs7.NewSignedData(text)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	data.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := data.AddSignerChain(chain[0], pair.PrivateKey, chain[1:], pkcs7.SignerInfoConfig{}); err != nil {
		return nil, fmt.Errorf("signing with the certificate of %s: %w", name, err)
	}
	return data.Finish()
}

// signer gives the certificate of a name, or our authority's where its key is of a kind that signs no files.
func (c *Certificates) signer(name string) (*tls.Certificate, error) {
	pair, err := c.certificate(&tls.ClientHelloInfo{ServerName: name})
	if err != nil {
		return nil, err
	}
	switch pair.PrivateKey.(type) {
	case *ecdsa.PrivateKey, *rsa.PrivateKey:
		return pair, nil
	}
	return c.local(), nil
}

// Authority gives the certificate of the machine's own authority, in DER.
func (c *Certificates) Authority() []byte { return c.ca.Raw }
