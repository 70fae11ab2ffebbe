package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// change makes one change to the accounts: edit works on a copy, which is
// checked, written to disk and only then answered from. On any error nothing
// is changed, in memory or on disk.
func (a *Accounts) change(edit func(book *accountBook) error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if bookStampOf(a.cfg.File) != a.seen || a.broken != nil {
		if err := a.read(); err != nil {
			return err
		}
	}
	book := a.book.clone()
	if err := edit(book); err != nil {
		return err
	}
	if mistake := book.check(); mistake != nil {
		return mistake.err
	}
	book.text = book.render(a.book)
	if err := writeFileAtomic(a.cfg.File, []byte(book.text)); err != nil {
		return fmt.Errorf("writing the accounts: %w", err)
	}
	a.book, a.seen, a.checked = book, bookStampOf(a.cfg.File), a.cfg.Now()
	return nil
}

func (a *Accounts) today() time.Time { return a.cfg.Now().UTC().Truncate(time.Second) }

// Complete gives the address that a person means on the command line: a bare
// name gets the default domain.
func (a *Accounts) Complete(address string) string {
	if strings.Contains(address, "@") || address == "" {
		return address
	}
	return address + "@" + a.DefaultDomain()
}

// Add creates an account. The error is a sentence: the address cannot be one,
// is taken, or the password is too short.
func (a *Accounts) Add(address, name, password string) (User, error) {
	key, err := accountAddress(address)
	if err != nil {
		return User{}, err
	}
	if err := checkNewPassword(password); err != nil {
		return User{}, err
	}
	field, err := a.withKeys(hashPassword(password), key, password)
	if err != nil {
		return User{}, err
	}
	u := User{Address: key, Name: name, Password: field, Created: a.today()}
	return u, a.change(func(book *accountBook) error {
		if book.byUser[key] != nil {
			return fmt.Errorf("%s has an account already", key)
		}
		if book.byAlias[key] != nil {
			return fmt.Errorf("%s is an alias; remove that first", key)
		}
		if err := a.checkNotProvider(book, key); err != nil {
			return err
		}
		book.Users = append(book.Users, u)
		return nil
	})
}

// SetPassword changes the main password. App passwords stay.
func (a *Accounts) SetPassword(address, password string) error {
	if err := checkNewPassword(password); err != nil {
		return err
	}
	field, err := a.withKeys(hashPassword(password), address, password)
	if err != nil {
		return err
	}
	return a.edit(address, func(u *User) error {
		u.Password = field
		return nil
	})
}

// edit changes one person's account.
func (a *Accounts) edit(address string, edit func(u *User) error) error {
	return a.change(func(book *accountBook) error {
		u, err := book.user(address)
		if err != nil {
			return err
		}
		return edit(u)
	})
}

// user finds an account by its address, with a sentence for none.
func (b *accountBook) user(address string) (*User, error) {
	if parsed, err := ParseAddress(address); err == nil {
		if u := b.byUser[keyOf(normalAddress(parsed))]; u != nil {
			return u, nil
		}
	}
	return nil, fmt.Errorf("%s has no account here; `appliance user list` shows all", address)
}

// Remove removes an account, and with it its place in aliases; an alias that
// went to nobody else goes too. The mail is not touched: Store.SetAside does
// that. Gives the account's lower-case address.
func (a *Accounts) Remove(address string) (string, error) {
	var key string
	err := a.change(func(book *accountBook) error {
		u, err := book.user(address)
		if err != nil {
			return err
		}
		key = u.Address
		book.Users = slices.DeleteFunc(book.Users, func(u User) bool { return u.Address == key })
		book.index()
		book.dropTargets()
		return nil
	})
	if err == nil {
		a.logins.move(key, "")
	}
	return key, err
}

// dropTargets takes out of the aliases what is nobody any more, until nothing
// is left to take out.
func (b *accountBook) dropTargets() {
	for again := true; again; {
		again = false
		for i := range b.Aliases {
			alias := &b.Aliases[i]
			n := len(alias.To)
			alias.To = slices.DeleteFunc(alias.To, func(to string) bool {
				key := b.targetOf(to)
				return key == "" || strings.HasPrefix(key, "@")
			})
			again = again || len(alias.To) != n
		}
		b.Aliases = slices.DeleteFunc(b.Aliases, func(alias Alias) bool { return len(alias.To) == 0 })
		b.index()
	}
}

// AddAppPassword makes a password for one program or device and gives it; it
// cannot be had again.
func (a *Accounts) AddAppPassword(address, name string) (string, error) {
	if err := checkAppName(name); err != nil {
		return "", err
	}
	password := generateAppPassword()
	field, err := a.withKeys(hashAppPassword(password), address, password)
	if err != nil {
		return "", err
	}
	return password, a.edit(address, func(u *User) error {
		if u.app(name) >= 0 {
			return fmt.Errorf("%s has an app password named %q already", u.Address, name)
		}
		u.Apps = append(u.Apps, AppPassword{Name: name, Password: field, Created: a.today()})
		return nil
	})
}

// RemoveAppPassword revokes one app password.
func (a *Accounts) RemoveAppPassword(address, name string) error {
	return a.edit(address, func(u *User) error {
		i := u.app(name)
		if i < 0 {
			return fmt.Errorf("%s has no app password named %q", u.Address, name)
		}
		u.Apps = slices.Delete(u.Apps, i, i+1)
		a.logins.forgetApp(u.Address, name)
		return nil
	})
}

func (u *User) app(name string) int {
	return slices.IndexFunc(u.Apps, func(app AppPassword) bool { return app.Name == name })
}

// User gives one account.
func (a *Accounts) User(address string) (User, error) {
	u, err := a.current().clone().user(address)
	if err != nil {
		return User{}, err
	}
	return *u, nil
}

// Exists says whether there is an account of this address, in lower case.
func (a *Accounts) Exists(account string) bool { return a.current().byUser[account] != nil }

// AddAlias makes an address stand for others, or for more of them when it is
// an alias already. "@domain" stands for all addresses of the domain that are
// nobody's else.
func (a *Accounts) AddAlias(address string, to []string) (Alias, error) {
	key, err := aliasAddress(address)
	if err != nil {
		return Alias{}, err
	}
	var result Alias
	err = a.change(func(book *accountBook) error {
		if book.byUser[key] != nil {
			return fmt.Errorf("%s has an account; an alias is another address", key)
		}
		if err := a.checkNotProvider(book, key); err != nil {
			return err
		}
		alias := book.byAlias[key]
		if alias == nil {
			book.Aliases = append(book.Aliases, Alias{Address: key})
			alias = &book.Aliases[len(book.Aliases)-1]
		}
		for _, t := range to {
			target, err := splitAddress(t)
			if err != nil {
				return err
			}
			if !slices.Contains(alias.To, keyOf(target)) {
				alias.To = append(alias.To, keyOf(target))
			}
		}
		result = Alias{alias.Address, slices.Clone(alias.To)}
		return nil
	})
	return result, err
}

// RemoveAlias removes an alias, and its place in others.
func (a *Accounts) RemoveAlias(address string) error {
	key, err := aliasAddress(address)
	if err != nil {
		return err
	}
	return a.change(func(book *accountBook) error {
		if book.byAlias[key] == nil {
			return noAlias(address)
		}
		book.Aliases = slices.DeleteFunc(book.Aliases, func(alias Alias) bool { return alias.Address == key })
		book.index()
		book.dropTargets()
		return nil
	})
}
