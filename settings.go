package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Settings is what two appliances may need different. The file is absent
// until somebody needs it; a key that is missing has its default.
type Settings struct {
	Hostname     string `toml:"hostname"`       // in greetings and certificates; "": found out
	Domain       string `toml:"domain"`         // of bare names; "": the owner's, or the host name
	MaxMessageMB int64  `toml:"max_message_mb"` // MiB, 1 to 1024; 0: 50
	SendsPerHour int64  `toml:"sends_per_hour"` // addresses elsewhere that one person may write to, 1 to 100000; 0: 200
	DailyCheck   *bool  `toml:"daily_check"`    // whether the doctor asks outside once a day how all is; nil: yes
	MDNS         *bool  `toml:"mdns"`           // whether this machine answers to its name on the network; nil: yes

	DNSBL    []string `toml:"dnsbl"`    // lists that are asked for the addresses of other servers; usually none
	Greylist bool     `toml:"greylist"` // strangers are asked to come again
	Milter   string   `toml:"milter"`   // where another filter is asked, as milterAddress reads it; "": none

	TLSCert       string `toml:"tls_cert"`       // file of a certificate that a person brings; "": none
	TLSKey        string `toml:"tls_key"`        // file of its key
	ACMEDirectory string `toml:"acme_directory"` // URL of the authority that gives certificates; "": those of the internet
	TimeZone      string `toml:"time_zone"`      // in which the page tells times; "": the machine's
	ACMERoot      string `toml:"acme_root"`      // file with who vouches for that; "": whom the system trusts
}

// The largest message that may be allowed, in MiB.
const maxMessageLimit = 1024

// maxLists is how many DNS lists are asked at most.
const maxLists = 8

const (
	defaultSendsPerHour = 200
	maxSendsPerHour     = 100_000
)

// readSettings reads DATA/settings.toml. An error names the line and the
// field.
func readSettings(file string) (Settings, error) {
	var s Settings
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("reading the settings: %w", err)
	}
	if err := decodeTOML(string(text), file, &s); err != nil {
		return Settings{}, err
	}
	if key, err := s.check(); err != nil {
		return Settings{}, &tomlError{file, lineOfKey(string(text), []string{key}), key + ": " + err.Error()}
	}
	return s, nil
}

// check brings names to lower case and gives the first field that is wrong.
func (s *Settings) check() (key string, err error) {
	for _, name := range []struct {
		key   string
		value *string
	}{{"hostname", &s.Hostname}, {"domain", &s.Domain}} {
		*name.value = normalDomain(strings.TrimSpace(*name.value))
		if *name.value == "" {
			continue
		}
		if err := checkDomain(*name.value); err != nil {
			return name.key, err
		}
	}
	if (s.TLSCert == "") != (s.TLSKey == "") {
		return "tls_cert", errors.New("tls_cert and tls_key are set together")
	}
	if s.ACMEDirectory != "" {
		if err := checkDirectory(s.ACMEDirectory); err != nil {
			return "acme_directory", err
		}
	}
	if s.TimeZone != "" {
		if err := checkZone(s.TimeZone); err != nil {
			return "time_zone", err
		}
	}
	if s.MaxMessageMB < 0 || s.MaxMessageMB > maxMessageLimit {
		return "max_message_mb", fmt.Errorf("%d is not between 1 and %d", s.MaxMessageMB, maxMessageLimit)
	}
	if s.SendsPerHour < 0 || s.SendsPerHour > maxSendsPerHour {
		return "sends_per_hour", fmt.Errorf("%d is not between 1 and %d", s.SendsPerHour, maxSendsPerHour)
	}
	if len(s.DNSBL) > maxLists {
		return "dnsbl", fmt.Errorf("there are %d lists, and %d at most are asked", len(s.DNSBL), maxLists)
	}
	for i := range s.DNSBL {
		s.DNSBL[i] = normalDomain(strings.TrimSpace(s.DNSBL[i]))
		if err := checkDomain(s.DNSBL[i]); err != nil {
			return "dnsbl", err
		}
	}
	if s.Milter != "" {
		if _, _, err := milterAddress(s.Milter); err != nil {
			return "milter", err
		}
	}
	return "", nil
}

// milterAddress reads where a milter listens: unix:/path, HOST:PORT, or as Sendmail and Postfix write it, local:/path,
// inet:PORT@HOST, inet:HOST:PORT, inet6:….
func milterAddress(s string) (network, address string, err error) {
	kind, rest, _ := strings.Cut(s, ":")
	switch kind {
	case "unix", "local":
		if !strings.HasPrefix(rest, "/") && !filepath.IsAbs(rest) {
			return "", "", fmt.Errorf("%q is no absolute path of a socket", rest)
		}
		return "unix", rest, nil
	case "inet", "inet6":
		if port, host, ok := strings.Cut(rest, "@"); ok {
			rest = net.JoinHostPort(strings.Trim(host, "[]"), port)
		}
	default:
		rest = s
	}
	host, port, err := net.SplitHostPort(rest)
	n, bad := strconv.Atoi(port)
	if err != nil || bad != nil || host == "" || n < 1 || n > 65535 {
		return "", "", fmt.Errorf("%q is neither unix:/path nor HOST:PORT", s)
	}
	return "tcp", rest, nil
}

// checkDirectory says what is wrong with the URL of an authority's directory (RFC 8555 §7.1.1).
func checkDirectory(directory string) error {
	if u, err := url.Parse(directory); err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is not the URL of an authority, such as https://ca.example.org/acme/directory", directory)
	}
	return nil
}

// machineName makes a host name out of what the system says, without asking
// any network: as it is when it has a domain, else under .local, where
// multicast DNS finds the machine on most home networks (RFC 6762 §3).
func machineName(system string) string {
	var clean strings.Builder
	for _, r := range strings.ToLower(system) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '-':
			clean.WriteRune(r)
		case r == '_', r == ' ':
			clean.WriteByte('-')
		}
	}
	name := strings.Trim(clean.String(), ".-")
	if short, _, _ := strings.Cut(name, "."); short == "localhost" || checkDomain(name) != nil {
		return "appliance.local"
	}
	if !strings.Contains(name, ".") {
		name += ".local"
	}
	return name
}
