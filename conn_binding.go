package main

// Channel bindings: what ties a login to the TLS connection it comes over, so that nobody can pass it on from another
// one. RFC 9266 (tls-exporter) and RFC 5929 (tls-server-end-point, tls-unique).

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/xdg-go/scram"
)

// errNoBinding says that the connection has no channel binding of the type that a client asks for.
var errNoBinding = errors.New("no such channel binding")

// ChannelBinding gives the channel binding of a type; errNoBinding where TLS is not active, the type is unknown, or the
// connection has none:
//
//   - tls-exporter is there with TLS 1.3, and with TLS 1.2 where the client has the extended master secret (RFC 9266 §2);
//   - tls-unique is there with TLS 1.2 alone (RFC 9266 §1);
//   - tls-server-end-point is not there with a certificate whose signature has no hash of its own, such as Ed25519
//     (RFC 5929 §4.1).
func (c *Conn) ChannelBinding(kind string) (scram.ChannelBinding, error) {
	state := c.TLS()
	var binding scram.ChannelBinding
	var err error
	switch kind := scram.ChannelBindingType(kind); {
	case state == nil:
	case kind == scram.ChannelBindingTLSExporter:
		binding, err = scram.NewTLSExporterBinding(state)
	case kind == scram.ChannelBindingTLSUnique:
		binding = scram.NewTLSUniqueBinding(state.TLSUnique) // crypto/tls gives none where it would not be unique
	case kind == scram.ChannelBindingTLSServerEndpoint:
		binding, err = endPointBinding(c.raw.certificate)
	}
	if err != nil || !binding.IsSupported() {
		c.Log.Debug("no channel binding", "type", clip(kind, 40), "error", err)
		return scram.ChannelBinding{}, errNoBinding
	}
	return binding, nil
}

// endPointBinding gives tls-server-end-point for the certificate, in DER, that the client was shown.
func endPointBinding(der []byte) (scram.ChannelBinding, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return scram.ChannelBinding{}, fmt.Errorf("reading the served certificate: %w", err)
	}
	// The library knows the client's side, where the server's certificate is the peer's.
	return scram.NewTLSServerEndpointBinding(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}})
}

// At most this many certificates have settings of their own at a time.
const maxServedCertificates = 16

// servedCertificates notes at each handshake which certificate the client gets, in its deadlineConn, and sees to it
// that a resumed session, in which no certificate is sent, is one of the same certificate. For that each certificate has
// settings of its own, which put its digest into the session tickets. A client with a ticket from the time of
// another certificate gets a full handshake. The keys of the tickets are those of base.
type servedCertificates struct {
	base *tls.Config

	mu       sync.Mutex
	settings map[[sha256.Size]byte]*tls.Config
}

// serveCertificates gives the settings to serve with in the place of base, nil for nil.
func serveCertificates(base *tls.Config) *tls.Config {
	if base == nil {
		return nil
	}
	s := &servedCertificates{base: base, settings: map[[sha256.Size]byte]*tls.Config{}}
	outer := base.Clone()
	outer.GetConfigForClient = s.forClient
	return outer
}

// certificate chooses as base does, and notes it.
func (s *servedCertificates) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, err := s.choose(hello)
	if err != nil {
		return nil, err
	}
	if d, ok := hello.Conn.(*deadlineConn); ok {
		d.certificate = cert.Certificate[0]
	}
	return cert, nil
}

func (s *servedCertificates) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s.base.GetCertificate != nil {
		cert, err := s.base.GetCertificate(hello)
		if err != nil || cert != nil && len(cert.Certificate) > 0 {
			return cert, err
		}
	}
	if len(s.base.Certificates) == 0 {
		return nil, errors.New("there is no certificate to serve")
	}
	return &s.base.Certificates[0], nil
}

// forClient gives the settings for the certificate that the client is going to get.
func (s *servedCertificates) forClient(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	cert, err := s.certificate(hello)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(cert.Certificate[0])
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.settings[digest]; have != nil {
		return have, nil
	}
	if len(s.settings) >= maxServedCertificates {
		clear(s.settings)
	}
	made := s.base.Clone()
	made.GetCertificate = s.certificate
	made.WrapSession, made.UnwrapSession = s.tickets(digest)
	s.settings[digest] = made
	return made, nil
}

// tickets gives the two functions that mark the tickets of sessions with a certificate, and take only such.
func (s *servedCertificates) tickets(digest [sha256.Size]byte) (
	wrap func(tls.ConnectionState, *tls.SessionState) ([]byte, error),
	unwrap func([]byte, tls.ConnectionState) (*tls.SessionState, error),
) {
	mark := append([]byte("appliance certificate "), digest[:]...)
	wrap = func(cs tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		session.Extra = append(session.Extra, mark)
		return s.base.EncryptTicket(cs, session)
	}
	unwrap = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		session, err := s.base.DecryptTicket(ticket, cs)
		if err != nil || session == nil || !slices.ContainsFunc(session.Extra, func(b []byte) bool { return string(b) == string(mark) }) {
			return nil, err
		}
		return session, nil
	}
	return wrap, unwrap
}
