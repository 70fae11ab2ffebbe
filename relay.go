package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/BurntSushi/toml"
)

// The servers that take our mail for others after a login: one for the senders of each domain that has its own, one for
// everybody else, or none. They lie with their passwords in DATA/relays.toml, which the process that owns the data folder
// writes, and which it reads once.

// relaysPreamble opens the file.
const relaysPreamble = `# Servers that take mail for other servers. Written by "appliance relay set", which
# tries the login first; an edit by hand counts from the next start on.
`

// maxRelays is how many relays there may be.
const maxRelays = 100

// RelaySetting is one relay as the file has it.
type RelaySetting struct {
	Domain   string `toml:"domain,omitempty" json:"domain,omitempty"` // of the senders whose mail it takes; "": of all that have no own
	Host     string `toml:"host" json:"host"`                         // name or IP address
	Port     int    `toml:"port" json:"port"`
	TLS      string `toml:"tls" json:"tls"` // "implicit" or "starttls"; without TLS there is none
	User     string `toml:"user" json:"user"`
	Password string `toml:"password" json:"-"`
	From     string `toml:"from,omitempty" json:"from,omitempty"` // envelope sender that it demands, "" for that of each message
}

// relay gives the setting as the sender has it.
func (r *RelaySetting) relay() *Relay {
	return &Relay{Host: r.Host, Port: r.Port, Implicit: r.TLS == tlsImplicit, User: r.User, Password: r.Password, From: r.From}
}

// where names the server.
func (r *RelaySetting) where() string { return net.JoinHostPort(r.Host, strconv.Itoa(r.Port)) }

// check brings names to the form in which they are compared and gives the first field that is wrong.
func (r *RelaySetting) check() (key string, err error) {
	r.Host, r.Domain = normalDomain(strings.TrimSpace(r.Host)), normalDomain(strings.TrimSpace(r.Domain))
	if _, err := netip.ParseAddr(r.Host); err != nil {
		if err := checkDomain(r.Host); err != nil {
			return "host", fmt.Errorf("%q is no name of a server: %w", r.Host, err)
		}
		if r.Host, err = asciiName(r.Host); err != nil { // certificates are for that form
			return "host", fmt.Errorf("%q is no name of a server", r.Host)
		}
	}
	if r.Domain != "" {
		if err := checkDomain(r.Domain); err != nil {
			return "domain", fmt.Errorf("%q is no domain: %w", r.Domain, err)
		}
	}
	switch {
	case r.Port < 1 || r.Port > 65535:
		return "port", fmt.Errorf("%d is not between 1 and 65535", r.Port)
	case r.TLS != tlsImplicit && r.TLS != tlsStart:
		return "tls", fmt.Errorf("%q is neither %s nor %s", r.TLS, tlsImplicit, tlsStart)
	case !isLoginText(r.User):
		return "user", errors.New("the user name has 1 to 255 characters in one line")
	case !isLoginText(r.Password):
		return "password", errors.New("the password has 1 to 255 characters in one line")
	}
	if r.From != "" {
		if _, err := ParseAddress(r.From); err != nil {
			return "from", fmt.Errorf("%q is not an address: write it as name@domain", r.From)
		}
	}
	return "", nil
}

// isLoginText says whether a text can be half of a login: SASL PLAIN has no way to say more (RFC 4616 §2).
func isLoginText(s string) bool {
	return s != "" && len(s) <= 255 && !strings.ContainsAny(s, "\r\n\x00")
}

// Relays is the book of relays. Safe for concurrent use.
type Relays struct {
	file string
	mu   sync.Mutex // held while the file is changed
	list atomic.Pointer[[]RelaySetting]
}

// OpenRelays reads the file; a missing one is a book without relays, a bad one an error that names line and field.
func OpenRelays(file string) (*Relays, error) {
	b := &Relays{file: file}
	var book struct {
		Relays []RelaySetting `toml:"relay"`
	}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading the relays: %w", err)
	}
	if err := decodeTOML(string(text), file, &book); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for i := range book.Relays {
		r := &book.Relays[i]
		key, err := r.check()
		if err == nil && seen[r.Domain] {
			key, err = "domain", errors.New("there is a relay for these senders already")
		}
		if err != nil {
			return nil, &tomlError{file, lineOfPlace(string(text), tomlPlace{table: "relay", n: i, m: -1, key: key}), key + ": " + err.Error()}
		}
		seen[r.Domain] = true
	}
	b.list.Store(&book.Relays)
	return b, nil
}

// List gives all relays, the one for everybody first, then by domain.
func (b *Relays) List() []RelaySetting {
	list := slices.Clone(*b.list.Load())
	slices.SortFunc(list, func(x, y RelaySetting) int { return strings.Compare(x.Domain, y.Domain) })
	return list
}

// For gives the relay that takes mail with this reverse-path, nil for none. Reports have no sender: they go by the one for
// everybody.
func (b *Relays) For(from string) *Relay {
	list := *b.list.Load()
	if len(list) == 0 {
		return nil
	}
	domain := normalDomain(from[strings.LastIndexByte(from, '@')+1:])
	var general *Relay
	for i := range list {
		switch r := &list[i]; r.Domain {
		case domain:
			return r.relay()
		case "":
			general = r.relay()
		}
	}
	return general
}

// Any gives a relay that takes mail of those who have none, nil for none: where nothing else is open, another's is better
// than no way at all.
func (b *Relays) Any() *Relay {
	list := b.List()
	if len(list) == 0 {
		return nil
	}
	return list[0].relay()
}

// Set stores a relay in place of the one that the same senders had.
func (b *Relays) Set(r RelaySetting) error {
	if key, err := r.check(); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return b.change(func(list []RelaySetting) ([]RelaySetting, error) {
		if at := relayOf(list, r.Domain); at >= 0 {
			list[at] = r
			return list, nil
		}
		if len(list) >= maxRelays {
			return nil, fmt.Errorf("there are %d relays already, and there can be no more", maxRelays)
		}
		return append(list, r), nil
	})
}

// Remove takes the relay of a domain's senders away; "" is the one for everybody.
func (b *Relays) Remove(domain string) error {
	domain = normalDomain(domain)
	return b.change(func(list []RelaySetting) ([]RelaySetting, error) {
		at := relayOf(list, domain)
		switch {
		case at < 0 && domain == "":
			return nil, errors.New("there is no relay for everybody; `appliance relay list` shows all")
		case at < 0:
			return nil, fmt.Errorf("%s has no relay of its own; `appliance relay list` shows all", domain)
		}
		return slices.Delete(list, at, at+1), nil
	})
}

func relayOf(list []RelaySetting, domain string) int {
	return slices.IndexFunc(list, func(r RelaySetting) bool { return r.Domain == domain })
}

// change writes a changed list down and then answers from it.
func (b *Relays) change(edit func(list []RelaySetting) ([]RelaySetting, error)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	list, err := edit(slices.Clone(*b.list.Load()))
	if err != nil {
		return err
	}
	text, err := toml.Marshal(map[string][]RelaySetting{"relay": list})
	if err != nil {
		return fmt.Errorf("writing the relays: %w", err)
	}
	if err := writeFileAtomic(b.file, append([]byte(relaysPreamble+"\n"), text...)); err != nil {
		return fmt.Errorf("writing the relays: %w", err)
	}
	b.list.Store(&list)
	return nil
}
