package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/mholt/acmez/v3"
)

// Which certificate a client gets.

// Config is the configuration that all listeners for mail share.
func (c *Certificates) Config() *tls.Config {
	// Lists and messages are taken whole: small first records would only cost calls.
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.certificate, DynamicRecordSizingDisabled: true}
}

// WebConfig is the configuration of the listener for HTTPS, on which authorities look for their answers, too (RFC 8737).
func (c *Certificates) WebConfig() *tls.Config {
	config := c.Config()
	config.NextProtos = []string{"http/1.1", acmez.ACMETLS1Protocol}
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if slices.Equal(hello.SupportedProtos, []string{acmez.ACMETLS1Protocol}) {
			return c.public.challengeCertificate(hello)
		}
		return c.certificate(hello)
	}
	return config
}

// UsePorts tells under which numbers our ports are open: the one where other servers bring mail, and 80 and 443; 0 where one
// is not. It comes before Run and before they are served.
func (c *Certificates) UsePorts(exchange, plain, secure int) {
	c.exchange.Store(int32(exchange))
	c.public.usePorts(acmePorts{plain, secure})
}

// Run gets and renews certificates until ctx ends.
func (c *Certificates) Run(ctx context.Context) { c.public.Run(ctx) }

// Close ends what works in the background, after Run and all sessions.
func (c *Certificates) Close() { c.public.close() }

// wanted gives the names that an authority is to be asked for: those for which nobody has brought a certificate.
func (c *Certificates) wanted() []string {
	if c.cfg.Public.Wanted == nil {
		return nil
	}
	names := c.cfg.Public.Wanted()
	if own := c.own.current(); own != nil {
		names = slices.DeleteFunc(names, func(name string) bool { return covers(own.Leaf, name) })
	}
	return names
}

// Visited notes that somebody asks us by that name, which may have begun to lead here.
func (c *Certificates) Visited(name string) { c.public.visited(name) }

// AnswerChallenge answers an authority that looks at port 80; false: it was somebody else, and nothing was answered.
func (c *Certificates) AnswerChallenge(w http.ResponseWriter, r *http.Request) bool {
	return c.public.answerChallenge(w, r)
}

// Look makes names that have no certificate be looked up at once, and often for a while.
func (c *Certificates) Look() { c.public.news() }

// SetOwn takes a certificate that was read from files and checked. It is used from the next handshake on. trouble is a sentence
// where its files cannot be watched, "" where they are.
func (c *Certificates) SetOwn(files OwnFiles, text []byte) (trouble string, err error) {
	if err := c.own.set(files, text); err != nil {
		return "", err
	}
	return c.own.trouble(), nil
}

// UnsetOwn goes back to the certificates of authorities and our own.
func (c *Certificates) UnsetOwn() error {
	err := c.own.unset()
	c.Look()
	return err
}

// Trusted says whether strangers are shown a certificate of that name which they can trust: one that a person has brought or
// an authority has given.
func (c *Certificates) Trusted(name string) bool {
	own := c.own.current()
	return own != nil && covers(own.Leaf, name) || c.public.certificate(name) != nil
}

// certificate answers a handshake: with the certificate of the name that the client wants, the one that a person has brought
// before one of an authority's, and those before our own authority's.
func (c *Certificates) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	local, own := c.local(), c.own.current()
	if name == "" {
		return c.nameless(hello, local, own), nil
	}
	if own != nil && covers(own.Leaf, name) {
		return own, nil
	}
	if public := c.public.certificate(name); public != nil {
		return public, nil
	}
	c.public.visited(name)
	if covers(local.Leaf, name) {
		return local, nil
	}
	return c.forStrangers(local, own), nil
}

// forStrangers gives the certificate of this machine's name on the internet, our authority's where there is none.
func (c *Certificates) forStrangers(local, own *tls.Certificate) *tls.Certificate {
	if own != nil {
		return own
	}
	if public := c.public.main(); public != nil {
		return public
	}
	return local
}

// nameless chooses for a client that names nobody. Mail servers do that, and mail programs that were given an address in the
// place of a name: on the network here they have learned to trust our authority, whose certificate has the address in it.
func (c *Certificates) nameless(hello *tls.ClientHelloInfo, local, own *tls.Certificate) *tls.Certificate {
	if hello.Conn == nil {
		return c.forStrangers(local, own)
	}
	here, there := addressOf(hello.Conn.LocalAddr()), addressOf(hello.Conn.RemoteAddr())
	near := there.Addr().IsLoopback() || there.Addr().IsPrivate() || there.Addr().IsLinkLocalUnicast()
	if !near || int32(here.Port()) == c.exchange.Load() || own != nil && covers(own.Leaf, here.Addr().String()) {
		return c.forStrangers(local, own)
	}
	return local
}

// addressOf gives an address of IPv4 never in its IPv6 form; the zero value for what is none.
func addressOf(a net.Addr) netip.AddrPort {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
