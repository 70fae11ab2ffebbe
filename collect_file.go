package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// The accounts elsewhere that mail is collected from lie with their passwords in DATA/collect.toml. The process that owns
// the data folder writes it; an edit by hand is taken over with the next command about it, and at the next start.

// collectPreamble opens the file.
const collectPreamble = `# Accounts elsewhere that mail is collected from. Written by "appliance collect add",
# which tries the login first.
`

const (
	maxCollectSources   = 1000
	defaultCollectEvery = 5 * time.Minute
	minCollectEvery     = time.Minute
	maxCollectEvery     = 24 * time.Hour
	maxOutsideText      = 1024 // bytes of a login or a password
)

// The two protocols that mail is collected by.
const (
	protocolPOP3 = "pop3"
	protocolIMAP = "imap"
)

// OutsideServer is a mailbox on another server, and how to log in there.
type OutsideServer struct {
	Protocol string `toml:"protocol" json:"protocol"` // "pop3" or "imap"
	Host     string `toml:"host" json:"host"`         // name or IP address
	Port     int    `toml:"port" json:"port"`
	TLS      string `toml:"tls" json:"tls"` // "implicit" or "starttls"
	Login    string `toml:"login" json:"login"`
	Password string `toml:"password" json:"-"`
}

// CollectSource is one account elsewhere and where its mail goes.
type CollectSource struct {
	Account string `toml:"account" json:"account"` // whose maildrop the mail comes into
	OutsideServer
	Keep   bool   `toml:"keep,omitempty" json:"keep"`
	Every  string `toml:"every,omitempty" json:"every,omitempty"`   // "5m"; "": defaultCollectEvery
	Folder string `toml:"folder,omitempty" json:"folder,omitempty"` // "": INBOX
}

// CollectChange is what a command says about the options of a source; nil says nothing.
type CollectChange struct {
	Keep   *bool   `json:"keep,omitempty"`
	Every  *string `json:"every,omitempty"`
	Folder *string `json:"folder,omitempty"`
}

// apply changes what the command has said something about.
func (change CollectChange) apply(s *CollectSource) {
	if change.Keep != nil {
		s.Keep = *change.Keep
	}
	if change.Every != nil {
		s.Every = *change.Every
	}
	if change.Folder != nil {
		s.Folder = *change.Folder
	}
}

// renew gives a source the options that it has in the list, where it is there at all, and changes them. at is its place
// there, -1 for none.
func (s *CollectSource) renew(sources []CollectSource, change CollectChange) (at int, err error) {
	at = slices.IndexFunc(sources, func(other CollectSource) bool { return other.name() == s.name() })
	if at >= 0 {
		s.Keep, s.Every, s.Folder = sources[at].Keep, sources[at].Every, sources[at].Folder
	}
	change.apply(s)
	_, err = s.check()
	return at, err
}

// command gives the command that adds the source with all its options, without the program's name.
func (s *CollectSource) command() string {
	words := []string{"collect add", s.Account, s.Protocol, s.where(), quoteWord(s.Login)}
	if s.Keep {
		words = append(words, "--keep")
	}
	if s.Every != "" {
		words = append(words, "--every", s.Every)
	}
	if s.Folder != "" {
		words = append(words, "--folder", quoteWord(s.Folder))
	}
	return strings.Join(words, " ")
}

// where names the server and its port.
func (s *OutsideServer) where() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// name tells one mailbox elsewhere from all others, whatever its port and password are.
func (s *CollectSource) name() string {
	return strings.Join([]string{s.Account, s.Protocol, s.Host, s.Login}, " ")
}

// id is the name as a name of files.
func (s *CollectSource) id() string {
	sum := sha256.Sum256([]byte(s.name()))
	return hex.EncodeToString(sum[:8])
}

// every is how much time lies between two looks.
func (s *CollectSource) every() time.Duration {
	if d, err := time.ParseDuration(s.Every); err == nil {
		return d
	}
	return defaultCollectEvery
}

// folder is where the mail goes.
func (s *CollectSource) folder() string {
	if s.Folder == "" {
		return inboxName
	}
	return s.Folder
}

// check brings a source into its normal form and gives the first field that is wrong, with a sentence. Port and TLS may be
// missing where they are still to be found out.
func (s *CollectSource) check() (key string, err error) {
	if s.Account, err = accountAddress(s.Account); err != nil {
		return "account", err
	}
	if key, err = s.OutsideServer.check(); err != nil {
		return key, err
	}
	if s.Every != "" {
		d, err := time.ParseDuration(s.Every)
		if err != nil || d < minCollectEvery || d > maxCollectEvery {
			return "every", fmt.Errorf("%q is no time between two looks: take one from 1m to 24h, such as 5m", s.Every)
		}
	}
	if s.Folder != "" {
		if s.Folder = canonicalName(s.Folder); s.Folder == inboxName {
			s.Folder = ""
		} else if s.Folder == outboxName || strings.HasPrefix(s.Folder, outboxName+"/") {
			return "folder", errors.New("the Outbox shows what waits to be sent: take another folder")
		} else if _, err := encodeFolder(s.Folder); err != nil {
			return "folder", fmt.Errorf("no folder can be named %q: take a name such as Work, or Work/Old for one below another", s.Folder)
		}
	}
	return "", nil
}

// check is CollectSource.check for the part about the other server.
func (s *OutsideServer) check() (key string, err error) {
	if s.Protocol != protocolPOP3 && s.Protocol != protocolIMAP {
		return "protocol", fmt.Errorf("%q is no way to collect mail: take imap or pop3", s.Protocol)
	}
	s.Host = normalDomain(strings.TrimSpace(s.Host))
	if _, err := netip.ParseAddr(s.Host); err != nil {
		if err := checkDomain(s.Host); err != nil {
			return "host", fmt.Errorf("%q is no name of a server: %w", s.Host, err)
		}
	}
	switch {
	case s.Port < 0 || s.Port > 65535:
		return "port", fmt.Errorf("%d is no port: take 1 to 65535", s.Port)
	case s.TLS != "" && s.TLS != tlsImplicit && s.TLS != tlsStart:
		return "tls", fmt.Errorf("%q is no way to TLS: take implicit or starttls", s.TLS)
	}
	if err := checkOutsideText(s.Login); err != nil {
		return "login", fmt.Errorf("the login %w", err)
	}
	if err := checkOutsideText(s.Password); err != nil {
		return "password", fmt.Errorf("the password %w", err)
	}
	return "", nil
}

// checkOutsideText keeps commands apart from each other: what is part of one has no line end.
func checkOutsideText(s string) error {
	switch {
	case s == "":
		return errors.New("is missing")
	case len(s) > maxOutsideText:
		return fmt.Errorf("is longer than %d bytes", maxOutsideText)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("has a character that none can have")
	}
	return nil
}

// collectBook is the file. Safe for concurrent use.
type collectBook struct {
	file string

	mu      sync.Mutex
	sources []CollectSource
	seen    bookStamp // of the file as last read
}

// collectTables is the file's form.
type collectTables struct {
	Sources []CollectSource `toml:"source,omitempty"`
}

// list gives all sources as the file has them now. An error names the line and the field.
func (b *collectBook) list() ([]CollectSource, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.read()
	return slices.Clone(b.sources), err
}

// read takes the file in if it is another one than before. The lock is held.
func (b *collectBook) read() error {
	stamp := bookStampOf(b.file)
	if stamp == b.seen {
		return nil
	}
	text, err := os.ReadFile(b.file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reading where mail is collected from: %w", err)
	}
	sources, err := parseCollect(string(text), b.file)
	if err == nil {
		b.sources, b.seen = sources, stamp
	}
	return err
}

// parseCollect reads the text of the file. Its errors are of the type *tomlError.
func parseCollect(text, file string) ([]CollectSource, error) {
	var tables collectTables
	if err := decodeTOML(text, file, &tables); err != nil {
		return nil, err
	}
	mistake := func(n int, key string, err error) error {
		return &tomlError{file, lineOfPlace(text, tomlPlace{table: "source", n: n, m: -1, key: key}), key + ": " + err.Error()}
	}
	if n := len(tables.Sources); n > maxCollectSources {
		return nil, &tomlError{file, 0, fmt.Sprintf("there are %d accounts to collect from, and %d is the most", n, maxCollectSources)}
	}
	names := map[string]bool{}
	for i := range tables.Sources {
		s := &tables.Sources[i]
		key, err := s.check()
		switch {
		case err == nil && s.Port == 0:
			key, err = "port", errors.New("it is missing; `appliance collect add` finds it out")
		case err == nil && s.TLS == "":
			key, err = "tls", errors.New("it is missing: write implicit or starttls")
		case err == nil && names[s.name()]:
			key, err = "login", errors.New("the same account is there twice")
		}
		if err != nil {
			return nil, mistake(i, key, err)
		}
		names[s.name()] = true
	}
	return tables.Sources, nil
}

// change edits the list, and is done when the new one is on disk. On an error nothing is changed.
func (b *collectBook) change(edit func(sources []CollectSource) ([]CollectSource, error)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.read(); err != nil {
		return err
	}
	sources, err := edit(slices.Clone(b.sources))
	if err != nil {
		return err
	}
	var text strings.Builder
	text.WriteString(collectPreamble)
	if err := toml.NewEncoder(&text).Encode(collectTables{sources}); err != nil {
		return fmt.Errorf("writing where mail is collected from: %w", err)
	}
	if err := writeFileAtomic(b.file, []byte(text.String())); err != nil {
		return fmt.Errorf("writing where mail is collected from: %w", err)
	}
	b.sources, b.seen = sources, bookStampOf(b.file)
	return nil
}
