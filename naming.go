package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// normalAddress gives the form in which addresses are compared and stored.
func normalAddress(a Address) Address {
	return Address{Local: normalLocal(a.Local), Domain: normalDomain(a.Domain)}
}

// keyOf gives the text under which a normalised address is stored. Unlike
// Address.String it never quotes: nothing that needs quotes is stored, and an
// empty local part stands for a whole domain.
func keyOf(a Address) string { return a.Local + "@" + a.Domain }

// normalLocal folds what people do not tell apart: case, and the ways in
// which Unicode composes the same letter.
func normalLocal(local string) string {
	return norm.NFC.String(strings.ToLower(local))
}

// normalDomain also gives both spellings of an international domain, as
// letters and as xn--, the same form.
func normalDomain(domain string) string {
	domain = strings.TrimSuffix(norm.NFC.String(strings.ToLower(domain)), ".")
	if strings.Contains(domain, "xn--") {
		if u, err := idna.ToUnicode(domain); err == nil {
			return norm.NFC.String(u)
		}
	}
	return domain
}

// accountAddress checks that an address can be an account's, whose parts
// become folder names on Linux and on Windows, and gives its normal form.
// The error is a sentence for the person who chose it.
func accountAddress(s string) (string, error) {
	address, err := splitAddress(s)
	if err != nil {
		return "", err
	}
	if err := checkLocal(address.Local); err != nil {
		return "", fmt.Errorf("%q cannot be an account: %w", s, err)
	}
	if strings.Contains(address.Local, "+") {
		return "", fmt.Errorf("%q cannot be an account: what follows a + is a tag that everyone may add to their own address", s)
	}
	return checkedDomain(s, address)
}

// aliasAddress is accountAddress for an alias, which may also have a + or
// stand for a whole domain ("@example.org").
func aliasAddress(s string) (string, error) {
	if domain, whole := strings.CutPrefix(strings.TrimSpace(s), "@"); whole {
		return checkedDomain(s, Address{Domain: normalDomain(domain)})
	}
	address, err := splitAddress(s)
	if err != nil {
		return "", err
	}
	if err := checkLocal(address.Local); err != nil {
		return "", fmt.Errorf("%q cannot be an alias: %w", s, err)
	}
	return checkedDomain(s, address)
}

// outsideAddress checks that an address can be one elsewhere, and gives its
// normal form. One that needs quotes is not stored anywhere.
func outsideAddress(s string) (string, error) {
	address, err := splitAddress(s)
	if err != nil {
		return "", err
	}
	if !isDotString(address.Local) {
		return "", fmt.Errorf("%q has a part before the @ that needs quotes, which no program here can send with", s)
	}
	return checkedDomain(s, address)
}

func splitAddress(s string) (Address, error) {
	address, err := ParseAddress(strings.TrimSpace(s))
	if err != nil {
		return Address{}, fmt.Errorf("%q is not an address: write it as name@domain", s)
	}
	return normalAddress(address), nil
}

func checkedDomain(s string, address Address) (string, error) {
	if err := checkDomain(address.Domain); err != nil {
		return "", fmt.Errorf("the domain of %q is not usable: %w", s, err)
	}
	return keyOf(address), nil
}

func checkLocal(local string) error {
	switch {
	case local == "":
		return fmt.Errorf("the part before the @ is missing")
	case len(local) > maxLocalPart:
		return fmt.Errorf("the part before the @ is longer than %d bytes", maxLocalPart)
	case !utf8.ValidString(local):
		return fmt.Errorf("it is not UTF-8")
	case strings.Trim(local, ".") != local || strings.Contains(local, ".."):
		return fmt.Errorf("dots stand only between other characters, one at a time")
	case strings.HasPrefix(local, "-"):
		return fmt.Errorf("it must not begin with a hyphen")
	case strings.Contains(local, ".removed-"):
		return fmt.Errorf("names with .removed- are kept for the mail of removed accounts")
	case reservedName(local):
		return fmt.Errorf("%s is a device's name on Windows and cannot be a folder there", local)
	}
	for _, r := range local {
		if !nameRune(r) && !strings.ContainsRune("._-+", r) {
			return fmt.Errorf("only letters, digits, dot, hyphen and underscore can stand before the @, not %q", r)
		}
	}
	return nil
}

// checkDomain takes host names of one label or more (RFC 5321 §2.3.5), also
// such that only the LAN knows.
func checkDomain(domain string) error {
	switch {
	case domain == "":
		return fmt.Errorf("it is missing")
	case len(domain) > maxDomain:
		return fmt.Errorf("it is longer than %d bytes", maxDomain)
	case !utf8.ValidString(domain):
		return fmt.Errorf("it is not UTF-8")
	case reservedName(domain):
		return fmt.Errorf("%s is a device's name on Windows and cannot be a folder there", domain)
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "-") != label {
			return fmt.Errorf("each part between dots has 1 to 63 characters and no hyphen at either end")
		}
		for _, r := range label {
			if !nameRune(r) && r != '-' {
				return fmt.Errorf("only letters, digits, hyphens and dots can be in it, not %q", r)
			}
		}
	}
	return nil
}

func nameRune(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r)
}

// reservedName says whether Windows takes the name for a device, with or
// without an ending.
func reservedName(name string) bool {
	base, _, _ := strings.Cut(name, ".")
	switch base {
	case "con", "prn", "aux", "nul":
		return true
	}
	device, number := base[:max(0, len(base)-1)], base[max(0, len(base)-1):]
	return (device == "com" || device == "lpt") && number >= "0" && number <= "9"
}
