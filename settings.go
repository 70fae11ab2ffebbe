package main

import (
	"errors"
	"fmt"
	"os"
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
}

// The largest message that may be allowed, in MiB.
const maxMessageLimit = 1024

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
	if s.MaxMessageMB < 0 || s.MaxMessageMB > maxMessageLimit {
		return "max_message_mb", fmt.Errorf("%d is not between 1 and %d", s.MaxMessageMB, maxMessageLimit)
	}
	if s.SendsPerHour < 0 || s.SendsPerHour > maxSendsPerHour {
		return "sends_per_hour", fmt.Errorf("%d is not between 1 and %d", s.SendsPerHour, maxSendsPerHour)
	}
	return "", nil
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
