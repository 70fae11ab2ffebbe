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

// The servers that take our mail for others after a login: one for each address or domain of senders that has its own, one for
// everybody else, or none. People with accounts at the same provider have one each: it takes no mail of one by the login of
// the other. They lie with their passwords in DATA/relays.toml, which the process that owns the data folder
// writes, and which it reads once.

// relaysPreamble opens the file.
const relaysPreamble = `# Servers that take mail for other servers. Written by "appliance relay set", which
# tries the login first; an edit by hand counts from the next start on.
`

// maxRelays is how many relays there may be.
const maxRelays = 100

// RelaySetting is one relay as the file has it.
type RelaySetting struct {
	For      string `toml:"for,omitempty" json:"for,omitempty"` // address or domain of the senders whose mail it takes; "": all that have no own
	Host     string `toml:"host" json:"host"`                   // name or IP address
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
	r.Host = normalDomain(strings.TrimSpace(r.Host))
	if _, err := netip.ParseAddr(r.Host); err != nil {
		if err := checkDomain(r.Host); err != nil {
			return "host", fmt.Errorf("%q is no name of a server: %w", r.Host, err)
		}
		if r.Host, err = asciiName(r.Host); err != nil { // certificates are for that form
			return "host", fmt.Errorf("%q is no name of a server", r.Host)
		}
	}
	if r.For, err = relayScope(r.For); err != nil {
		return "for", err
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

// relayScope gives the normal form of whom a relay is for: an address, a domain, or "".
func relayScope(text string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return "", nil
	}
	if isAddress(text) {
		return outsideAddress(text)
	}
	domain := normalDomain(text)
	if err := checkDomain(domain); err != nil {
		return "", fmt.Errorf("%q is neither an address nor a domain: %w", text, err)
	}
	return domain, nil
}

// splitServer reads HOST[:PORT]; port is 0 without one.
func splitServer(s string) (host string, port int, err error) {
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
		s = strings.TrimSuffix(inner, "]")
	}
	if _, err := netip.ParseAddr(s); err == nil || !strings.Contains(s, ":") {
		return s, 0, nil
	}
	host, text, err := net.SplitHostPort(s)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil || port < 1 || port > 65535 || host == "" {
		return "", 0, fmt.Errorf("%q is no server: write it as HOST or HOST:PORT, such as smtp.example.org:587", s)
	}
	return host, port, nil
}

// isAddress tells an address from a domain.
func isAddress(scope string) bool { return strings.Contains(scope, "@") }

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
		if err == nil && seen[r.For] {
			key, err = "for", errors.New("there is a relay for these senders already")
		}
		if err != nil {
			return nil, &tomlError{file, lineOfPlace(string(text), tomlPlace{table: "relay", n: i, m: -1, key: key}), key + ": " + err.Error()}
		}
		seen[r.For] = true
	}
	b.list.Store(&book.Relays)
	return b, nil
}

// List gives all relays, the one for everybody first, then by whom they are for.
func (b *Relays) List() []RelaySetting {
	list := slices.Clone(*b.list.Load())
	sortFunc(list, func(x, y RelaySetting) int { return strings.Compare(x.For, y.For) })
	return list
}

// For gives the relay that takes mail with this reverse-path, nil for none: the one of the address, else of its domain, else
// the one for everybody. Reports have no sender: they go by that.
func (b *Relays) For(from string) *Relay {
	list := *b.list.Load()
	if len(list) == 0 {
		return nil
	}
	at := strings.LastIndexByte(from, '@')
	domain := normalDomain(from[at+1:])
	scopes := []string{"", domain}
	if at > 0 {
		scopes = append(scopes, normalLocal(from[:at])+"@"+domain)
	}
	best, found := -1, (*RelaySetting)(nil)
	for i := range list {
		if rank := slices.Index(scopes, list[i].For); rank > best {
			best, found = rank, &list[i]
		}
	}
	if found == nil {
		return nil
	}
	return found.relay()
}

// Any gives a relay that takes mail of those who have none, nil for none: where nothing else is open, another's is better
// than no way at all. Only one for everybody or for a domain of ours may be that: by one for addresses at a provider the
// mail would go out under somebody else's name.
func (b *Relays) Any(isLocal func(domain string) bool) *Relay {
	for _, r := range b.List() {
		if r.For == "" || isLocal(r.For) {
			return r.relay()
		}
	}
	return nil
}

// Set stores a relay in place of the one that the same senders had.
func (b *Relays) Set(r RelaySetting) error {
	if key, err := r.check(); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return b.change(func(list []RelaySetting) ([]RelaySetting, error) {
		if at := relayOf(list, r.For); at >= 0 {
			list[at] = r
			return list, nil
		}
		if len(list) >= maxRelays {
			return nil, fmt.Errorf("there are %d relays already, and there can be no more", maxRelays)
		}
		return append(list, r), nil
	})
}

// Remove takes the relay of an address or of a domain's senders away; "" is the one for everybody.
func (b *Relays) Remove(scope string) error {
	scope, err := relayScope(scope)
	if err != nil {
		return err
	}
	return b.change(func(list []RelaySetting) ([]RelaySetting, error) {
		at := relayOf(list, scope)
		switch {
		case at < 0 && scope == "":
			return nil, errors.New("there is no relay for everybody; `appliance relay list` shows all")
		case at < 0:
			return nil, fmt.Errorf("%s has no relay of its own; `appliance relay list` shows all", scope)
		}
		return slices.Delete(list, at, at+1), nil
	})
}

// Keep takes out those that are for nobody who is to be kept, and gives them.
func (b *Relays) Keep(keep func(scope string) bool) (gone []RelaySetting, err error) {
	for _, r := range b.List() {
		if !keep(r.For) {
			gone = append(gone, r)
		}
	}
	if len(gone) == 0 {
		return nil, nil
	}
	return gone, b.change(func(list []RelaySetting) ([]RelaySetting, error) {
		return slices.DeleteFunc(list, func(r RelaySetting) bool { return !keep(r.For) }), nil
	})
}

func relayOf(list []RelaySetting, scope string) int {
	return slices.IndexFunc(list, func(r RelaySetting) bool { return r.For == scope })
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
