package main

// Mail addresses as envelopes and accounts have them: RFC 5321 §4.1.2 and
// §4.5.3.1, RFC 6531 (UTF-8), RFC 5890 (domain names in other scripts).

import (
	"errors"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// Address is a mailbox address of an envelope or an account: a local part
// without its quotes and a domain, both spelled as given. Compare by Key.
type Address struct {
	Local, Domain string
}

// ErrBadAddress says that a string is no mailbox address.
var ErrBadAddress = errors.New("not a mail address")

// Longest parts of an address in octets, RFC 5321 §4.5.3.1.1 to §4.5.3.1.3
// (a path of 256 octets includes the angle brackets). The limit of the local
// part holds for addresses that are made here: senders of lists and of
// forwarders (srs.go) are often longer, and RFC 5321 §4.5.3.1 asks to take them.
const (
	maxLocalPart = 64
	maxDomain    = 255
	maxAddress   = 254
)

// ParseAddress reads LOCAL@DOMAIN, where LOCAL may be quoted and DOMAIN may be
// an address literal such as [192.0.2.1] or [IPv6:2001:db8::1]. The error is
// ErrBadAddress.
func ParseAddress(s string) (Address, error) {
	if len(s) > maxAddress || !utf8.ValidString(s) {
		return Address{}, ErrBadAddress
	}
	at := strings.LastIndexByte(s, '@')
	if at < 1 {
		return Address{}, ErrBadAddress
	}
	local, ok := unquoteLocal(s[:at])
	if !ok {
		return Address{}, ErrBadAddress
	}
	a := Address{Local: local, Domain: s[at+1:]}
	if !a.valid() {
		return Address{}, ErrBadAddress
	}
	return a, nil
}

// valid says whether the parts could stand in an envelope.
func (a Address) valid() bool {
	if a.Local == "" || len(a.Local)+1+len(a.Domain) > maxAddress {
		return false
	}
	if !utf8.ValidString(a.Local) || !utf8.ValidString(a.Domain) || strings.IndexFunc(a.Local, unicode.IsControl) >= 0 {
		return false
	}
	_, ok := asciiDomain(a.Domain)
	return ok
}

// String gives LOCAL@DOMAIN, the local part quoted where it must be.
func (a Address) String() string { return quoteLocal(a.Local) + "@" + a.Domain }

// Key gives the form in which addresses are compared and stored: lower case,
// Unicode in NFC, the domain in its ASCII form. RFC 5321 §2.4 leaves the case
// of local parts to the receiving host: here it does not matter.
func (a Address) Key() string {
	domain, ok := asciiDomain(a.Domain)
	if !ok {
		domain = strings.ToLower(a.Domain)
	}
	local := norm.NFC.String(strings.ToLower(norm.NFC.String(a.Local)))
	return quoteLocal(local) + "@" + domain
}

// domainProfile maps domain names to ASCII. Names of a LAN may hold an
// underscore, so the rules of host names are not asked for.
func domainProfile() *idna.Profile {
	return idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false))
}

// asciiDomain gives the lower-case ASCII form of a domain or address literal.
func asciiDomain(domain string) (string, bool) {
	if domain == "" || len(domain) > maxDomain {
		return "", false
	}
	if domain[0] == '[' {
		return addressLiteral(domain)
	}
	ascii := strings.ToLower(domain)
	if !isPlainDomain(domain) {
		var err error
		ascii, err = domainProfile().ToASCII(domain)
		if err != nil {
			return "", false
		}
	}
	if len(ascii) > maxDomain {
		return "", false
	}
	for label := range strings.SplitSeq(ascii, ".") {
		if !isDomainLabel(label) {
			return "", false
		}
	}
	return ascii, true
}

// isPlainDomain says that a name has no character outside ASCII and no label
// that is encoded already, so that it needs no mapping.
func isPlainDomain(domain string) bool {
	for i := 0; i < len(domain); i++ {
		if domain[i] >= utf8.RuneSelf {
			return false
		}
	}
	return !strings.Contains(strings.ToLower(domain), "xn--")
}

// isDomainLabel accepts letters, digits, hyphens inside and underscores, up to
// 63 octets (RFC 1035 §2.3.4).
func isDomainLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := 0; i < len(label); i++ {
		c := label[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// addressLiteral gives the one spelling of [192.0.2.1] or [IPv6:…], RFC 5321
// §4.1.3.
func addressLiteral(s string) (string, bool) {
	inner, ok := strings.CutSuffix(s[1:], "]")
	if !ok {
		return "", false
	}
	if len(inner) > 5 && strings.EqualFold(inner[:5], "ipv6:") {
		ip, err := netip.ParseAddr(inner[5:])
		if err != nil || !ip.Is6() || ip.Zone() != "" {
			return "", false
		}
		return "[ipv6:" + ip.String() + "]", true
	}
	ip, err := netip.ParseAddr(inner)
	if err != nil || !ip.Is4() {
		return "", false
	}
	return "[" + ip.String() + "]", true
}

// unquoteLocal gives a local part without quotes and backslashes; ok is false
// when it is neither a dot-string nor one quoted string (RFC 5321 §4.1.2).
func unquoteLocal(s string) (local string, ok bool) {
	if s[0] != '"' {
		return s, isDotString(s)
	}
	if len(s) < 3 || s[len(s)-1] != '"' {
		return "", false
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		c := s[i]
		if c == '"' {
			return "", false
		}
		if c == '\\' {
			i++
			if i == len(s)-1 {
				return "", false // the backslash hides the closing quote
			}
			c = s[i]
		}
		b.WriteByte(c)
	}
	return b.String(), true
}

// quoteLocal is the inverse of unquoteLocal.
func quoteLocal(local string) string {
	if isDotString(local) {
		return local
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(local); i++ {
		if local[i] == '"' || local[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(local[i])
	}
	b.WriteByte('"')
	return b.String()
}

// isDotString says whether a local part needs no quotes. Dots at an end or in a
// row are let pass: some providers give such addresses out.
func isDotString(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < utf8.RuneSelf && c != '.' && !isAtomByte(c) {
			return false
		}
	}
	return s != ""
}

// isAtomByte is atext of RFC 5322 §3.2.3.
func isAtomByte(c byte) bool {
	if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
		return true
	}
	return c != 0 && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}
