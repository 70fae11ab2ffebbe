package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"howett.net/plist"
)

// Configuration profiles of Apple's systems: one file that sets up a mail account (the documentation calls the parts payloads:
// TopLevel, CertificateRoot and Mail of Device Management).

// profileKind is the media type by which Apple's systems know a profile.
const profileKind = "application/x-apple-aspen-config"

// mailProfile is what a profile is made from.
type mailProfile struct {
	Address, Name string // of the person
	Device        string // which the password is for
	Password      string
	Host          string // of both servers
	IMAPS, SMTPS  int    // ports with TLS from the start
	Authority     []byte // the certificate of who vouches for Host, in DER; nil: one that everybody trusts
	Title, About  string // what the person reads before they install it
}

// The fields have the names that Apple gives them. The embedded one is exported for the library, which sees no others.
type (
	ApplePayload struct {
		PayloadDescription  string
		PayloadDisplayName  string
		PayloadIdentifier   string
		PayloadOrganization string
		PayloadType         string
		PayloadUUID         string
		PayloadVersion      int
	}

	appleProfile struct {
		ApplePayload
		PayloadContent           []any
		PayloadRemovalDisallowed bool
	}

	appleAuthority struct {
		ApplePayload
		PayloadCertificateFileName string
		PayloadContent             []byte
	}

	appleMail struct {
		ApplePayload
		EmailAccountDescription                string
		EmailAccountName                       string
		EmailAccountType                       string
		EmailAddress                           string
		IncomingMailServerAuthentication       string
		IncomingMailServerHostName             string
		IncomingMailServerPortNumber           int
		IncomingMailServerUseSSL               bool
		IncomingMailServerUsername             string
		IncomingPassword                       string
		OutgoingMailServerAuthentication       string
		OutgoingMailServerHostName             string
		OutgoingMailServerPortNumber           int
		OutgoingMailServerUseSSL               bool
		OutgoingMailServerUsername             string
		OutgoingPassword                       string
		OutgoingPasswordSameAsIncomingPassword bool
		SMIMEEnabled                           bool
	}
)

// plist gives the profile as a property list in XML. It is as secret as the password in it.
func (p *mailProfile) plist() ([]byte, error) {
	profile := appleProfile{ApplePayload: p.payload("Configuration", "", p.Title, p.About)}
	if p.Authority != nil {
		profile.PayloadContent = append(profile.PayloadContent, appleAuthority{
			ApplePayload:               p.payload("com.apple.security.root", ".authority", p.Host, ""),
			PayloadCertificateFileName: "authority.crt", PayloadContent: p.Authority,
		})
	}
	const byPassword = "EmailAuthPassword"
	profile.PayloadContent = append(profile.PayloadContent, appleMail{
		ApplePayload: p.payload("com.apple.mail.managed", ".mail", p.Address, ""), EmailAccountDescription: p.Address,
		EmailAccountName: p.Name, EmailAccountType: "EmailTypeIMAP", EmailAddress: p.Address,
		IncomingMailServerAuthentication: byPassword, IncomingMailServerHostName: p.Host, IncomingMailServerPortNumber: p.IMAPS,
		IncomingMailServerUseSSL: true, IncomingMailServerUsername: p.Address, IncomingPassword: p.Password,
		OutgoingMailServerAuthentication: byPassword, OutgoingMailServerHostName: p.Host, OutgoingMailServerPortNumber: p.SMTPS,
		OutgoingMailServerUseSSL: true, OutgoingMailServerUsername: p.Address, OutgoingPassword: p.Password,
		OutgoingPasswordSameAsIncomingPassword: true,
	})
	return plist.MarshalIndent(profile, plist.XMLFormat, "\t")
}

// payload gives what all payloads have. A profile with the identifier of one that is installed takes its place: it is the same
// for the same account and device.
func (p *mailProfile) payload(kind, part, title, about string) ApplePayload {
	sum := sha256.Sum256([]byte(p.Address + "\x00" + p.Device))
	return ApplePayload{
		PayloadDescription: about, PayloadDisplayName: title, PayloadOrganization: p.Host, PayloadType: kind, PayloadVersion: 1,
		PayloadIdentifier: "appliance." + hex.EncodeToString(sum[:8]) + part, PayloadUUID: newUUID(),
	}
}

// newUUID makes a random one (RFC 9562 §5.4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%X-%X-%X-%X-%X", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
