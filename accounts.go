package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

var (
	// ErrBadLogin is all that a failed login tells: not which half was wrong.
	ErrBadLogin = errors.New("wrong address or password")
	// ErrNoUser says that a local domain has no such address.
	ErrNoUser = errors.New("no such user here")
	// ErrNotLocal says that mail for the domain is not kept here.
	ErrNotLocal = errors.New("not a domain of this appliance")
)

// How often an edited accounts file is looked for, at most.
const accountsRecheck = time.Second

// AccountsConfig is what OpenAccounts needs.
type AccountsConfig struct {
	File   string       // DATA/accounts.toml; need not exist
	Secret string       // DATA/scram.key; made if it does not exist; "": another one each time
	Logins string       // DATA/logins.json; "": it is not kept
	Domain string       // the default domain as long as there is no owner
	Fixed  bool         // Domain was set by a person and stands above the owner's
	Log    *slog.Logger // nil: slog.Default
	Now    func() time.Time
}

// Accounts is the people, aliases and passwords of the appliance. The file is
// the truth: an edit by hand is noticed within a second of the next question,
// and one that cannot be read is said once in the log while the last good
// state stands. Safe for concurrent use.
type Accounts struct {
	cfg    AccountsConfig
	hasher *passwordHasher
	secret []byte // what new salts of SCRAM come from
	logins *loginTimes

	mu      sync.Mutex
	book    *accountBook
	seen    bookStamp // of the file as last read
	checked time.Time // when seen was last compared
	broken  error     // why the file as it is now cannot be read

	keysUnderWay map[string]bool // accounts whose SCRAM keys a login is making
	noKeysUntil  time.Time       // logins make none before

	factorsUsed map[string]uint64 // by account, the period of the last code of a second factor
}

// Identity is who has logged in.
type Identity struct {
	Account string // lower-case address
	Via     string // "" for the main password, else the app password's name
}

// bookStamp tells whether a file was changed by somebody else.
type bookStamp struct {
	exists bool
	size   int64
	mtime  time.Time
}

func bookStampOf(path string) bookStamp {
	info, err := os.Stat(path)
	if err != nil {
		return bookStamp{}
	}
	return bookStamp{true, info.Size(), info.ModTime()}
}

// OpenAccounts reads the accounts file. A missing file is an appliance
// without people; a bad one is an error that names the line and the field.
func OpenAccounts(cfg AccountsConfig) (*Accounts, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &Accounts{cfg: cfg, hasher: newPasswordHasher(), book: newAccountBook(), logins: openLoginTimes(cfg.Logins, cfg.Log)}
	if err := a.read(); err != nil {
		return nil, err
	}
	return a, a.readSecret()
}

// read takes the file in, whatever its stamp. Called with mu held, or before
// anyone else knows a.
func (a *Accounts) read() error {
	stamp := bookStampOf(a.cfg.File)
	a.checked = a.cfg.Now()
	text, err := os.ReadFile(a.cfg.File)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		a.seen, a.broken = stamp, fmt.Errorf("reading the accounts: %w", err)
		return a.broken
	}
	book, err := parseAccounts(string(text), a.cfg.File)
	a.seen, a.broken = stamp, err
	if err == nil {
		a.book = book
	}
	return err
}

// current gives the state to answer from, after a look at the file.
func (a *Accounts) current() *accountBook {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Now()
	if since := now.Sub(a.checked); since >= 0 && since < accountsRecheck {
		return a.book
	}
	a.checked = now
	if bookStampOf(a.cfg.File) != a.seen {
		if err := a.read(); err != nil {
			a.cfg.Log.Error("accounts file not taken over, the last good state stands", "err", err)
		} else {
			a.cfg.Log.Info("accounts file taken over", "people", len(a.book.Users))
		}
	}
	return a.book
}

// Login checks credentials: the full address, or the local part alone where
// only one account has it. The only errors are ErrBadLogin and the context's.
// It costs one password hash at most, the same for a user that does not
// exist, and a repeated good login next to nothing. The first good login of a
// password without SCRAM keys makes them, see keepKeys.
func (a *Accounts) Login(ctx context.Context, user, password string) (Identity, error) {
	if password == "" || len(password) > maxPassword {
		return Identity{}, ErrBadLogin
	}
	password = normalPassword(password)
	u := a.current().login(user)
	if u == nil || u.Disabled {
		return Identity{}, a.hasher.pretend(ctx, password)
	}
	// App passwords are random enough for a fast hash, so asking them first
	// costs nothing however many there are.
	for _, app := range u.Apps {
		if hash, _ := splitPassword(app.Password); matchAppPassword(hash, password) {
			a.keepKeys(ctx, u, app.Name, shownAppPassword(password))
			return Identity{u.Address, app.Name}, nil
		}
	}
	if u.Password == "" {
		return Identity{}, a.hasher.pretend(ctx, password)
	}
	hash, _ := splitPassword(u.Password)
	if err := a.hasher.verify(ctx, hash, password); err != nil {
		return Identity{}, err
	}
	a.keepKeys(ctx, u, "", password)
	return Identity{Account: u.Address}, nil
}

// LoginName gives what failed logins with a name are counted by: the account that it is one of, however it is written, else the
// name itself.
func (a *Accounts) LoginName(name string) string {
	if u := a.current().login(name); u != nil {
		return u.Address
	}
	return strings.ToLower(strings.TrimSpace(name))
}

// Means says whether a login name is one of the account.
func (a *Accounts) Means(name, account string) bool {
	u := a.current().login(name)
	return u != nil && u.Address == account
}

// Resolve gives the accounts (lower case, each once, sorted) that mail to the
// address reaches: an account, an alias, either with +tag, the owner for
// postmaster, abuse and root, or the domain's catch-all. A bare <postmaster>
// has no domain and counts as one of the default domain (RFC 5321 §4.5.1).
// ErrNotLocal for other domains, ErrNoUser. Disabled accounts still get mail.
func (a *Accounts) Resolve(to Address) ([]string, error) {
	book := a.current()
	key := normalAddress(to)
	if key.Domain == "" {
		key.Domain = a.defaultDomain(book)
	}
	if !a.isLocal(book, key.Domain) {
		return nil, ErrNotLocal
	}
	reached := book.resolve(key)
	if len(reached) == 0 {
		return nil, ErrNoUser
	}
	return reached, nil
}

// Owns says whether the account may send as the address: its own, with or
// without a tag, any other local address whose mail reaches it, or one
// elsewhere that it was given.
func (a *Accounts) Owns(account string, from Address) bool {
	if from.Local == "" || from.Domain == "" {
		return false
	}
	account = strings.ToLower(account)
	reached, err := a.Resolve(from)
	if errors.Is(err, ErrNotLocal) {
		return a.current().sendsWith(account, from)
	}
	return err == nil && slices.Contains(reached, account)
}

// IsLocalDomain says whether the domain is one of ours: the default domain or
// that of any account or alias.
func (a *Accounts) IsLocalDomain(domain string) bool {
	return a.isLocal(a.current(), normalDomain(domain))
}

func (a *Accounts) isLocal(book *accountBook, domain string) bool {
	return domain != "" && (book.domains[domain] || domain == a.defaultDomain(book))
}

// Domains gives the local domains, the default domain first, the others sorted.
func (a *Accounts) Domains() []string {
	book := a.current()
	first := a.defaultDomain(book)
	others := slices.DeleteFunc(slices.Sorted(maps.Keys(book.domains)), func(d string) bool { return d == first })
	return append([]string{first}, others...)
}

// DefaultDomain is the domain of the owner's address (unless the settings say
// otherwise), and the one that bare local parts such as <postmaster> get.
func (a *Accounts) DefaultDomain() string { return a.defaultDomain(a.current()) }

func (a *Accounts) defaultDomain(book *accountBook) string {
	if !a.cfg.Fixed && len(book.Users) > 0 {
		_, domain, _ := strings.Cut(book.Users[0].Address, "@")
		return domain
	}
	return normalDomain(a.cfg.Domain)
}

// Owner is the address of the first account, "" when there is none.
func (a *Accounts) Owner() string { return a.current().owner() }

// Users gives the people in the order of the file, the owner first.
func (a *Accounts) Users() []User { return a.current().clone().Users }

// Aliases gives the aliases in the order of the file. One for a whole domain
// (a catch-all) has an address without local part: "@example.org".
func (a *Accounts) Aliases() []Alias { return a.current().clone().Aliases }

// Addresses gives the addresses of all accounts in the order of the file.
func (a *Accounts) Addresses() []string {
	book := a.current()
	addresses := make([]string, len(book.Users))
	for i := range book.Users {
		addresses[i] = book.Users[i].Address
	}
	return addresses
}

// ShortName is what an account is called in the names of mailboxes: its local part in the default domain, the whole address in
// another. So nobody's name changes or means somebody else when others join.
func (a *Accounts) ShortName(account string) string {
	if local, ok := strings.CutSuffix(account, "@"+a.DefaultDomain()); ok {
		return local
	}
	return account
}

// ByShortName is the way back, from exactly that name; "" for nobody's.
func (a *Accounts) ByShortName(name string) string {
	account := a.Complete(name)
	if !a.Exists(account) || a.ShortName(account) != name {
		return ""
	}
	return account
}

// Find gives the account that a person means by an address or by a local part: the one in the default domain, else the only
// one that has it. "" for none; aliases and tags are nobody's account.
func (a *Accounts) Find(name string) string {
	book := a.current()
	if !strings.Contains(name, "@") {
		if u := book.login(a.Complete(name)); u != nil {
			return u.Address
		}
	}
	if u := book.login(name); u != nil {
		return u.Address
	}
	return ""
}
