package main

import (
	"fmt"
	"slices"
	"strings"
)

// What changes about a person besides passwords and quota: the name, the address, whether they may log in.

// maxPersonName is the bytes of a person's name.
const maxPersonName = 200

// checkPersonName says what is wrong with the name of a person.
func checkPersonName(name string) error {
	if len(name) > maxPersonName || strings.ContainsAny(name, "\r\n\x00") {
		return fmt.Errorf("a name is one line of at most %d bytes", maxPersonName)
	}
	return nil
}

// SetName changes the name of a person; "": none.
func (a *Accounts) SetName(address, name string) error {
	return a.edit(address, func(u *User) error {
		u.Name = strings.TrimSpace(name)
		return nil
	})
}

// SetLanguage changes the language of the page for a person; "": what the browser asks for.
func (a *Accounts) SetLanguage(address, language string) error {
	return a.edit(address, func(u *User) error {
		u.Language = language
		return nil
	})
}

// SetDisabled says whether somebody may not log in any more; mail still comes. The owner always may: nobody else can look after
// the appliance.
func (a *Accounts) SetDisabled(address string, disabled bool) error {
	return a.change(func(book *accountBook) error {
		u, err := book.user(address)
		if err != nil {
			return err
		}
		if disabled && u.Address == book.owner() {
			return fmt.Errorf("%s is the owner, who looks after this appliance and cannot be disabled", u.Address)
		}
		u.Disabled = disabled
		return nil
	})
}

// Rename gives an account another address. The old one becomes an alias of it, so that mail to it still arrives, and aliases that
// went to it go to the new one. What the mail of the account is called is not changed: Store.Rename does that.
func (a *Accounts) Rename(address, to string) error {
	key, err := accountAddress(to)
	if err != nil {
		return err
	}
	var old string
	err = a.change(func(book *accountBook) error {
		u, err := book.user(address)
		if err != nil {
			return err
		}
		old = u.Address
		if err := a.checkNotProvider(book, key); err != nil {
			return err
		}
		if err := book.makeFree(key, old); err != nil {
			return err
		}
		if u, err = book.user(old); err != nil { // makeFree may have moved it
			return err
		}
		u.Address, book.renamed = key, map[string]string{old: key}
		for i := range book.Aliases {
			to := book.Aliases[i].To
			if at := slices.Index(to, old); at >= 0 {
				to[at] = key
			}
		}
		book.Aliases = append(book.Aliases, Alias{Address: old, To: []string{key}})
		return nil
	})
	if err == nil {
		a.logins.move(old, key)
	}
	return err
}

// makeFree makes sure that an address can become that of an account: one that is an alias of that account alone stops being one.
func (b *accountBook) makeFree(key, account string) error {
	switch alias := b.byAlias[key]; {
	case b.byUser[key] != nil:
		return fmt.Errorf("%s has an account already", key)
	case alias == nil:
		return nil
	case !slices.Equal(alias.To, []string{account}):
		return fmt.Errorf("%s is an alias; remove that first", key)
	}
	b.Aliases = slices.DeleteFunc(b.Aliases, func(alias Alias) bool { return alias.Address == key })
	b.index()
	return nil
}

// RemoveFromAlias takes people out of an alias; one that then goes to nobody is removed. It gives what is left of it.
func (a *Accounts) RemoveFromAlias(address string, from []string) (Alias, error) {
	key, err := aliasAddress(address)
	if err != nil {
		return Alias{}, err
	}
	result := Alias{Address: key}
	return result, a.change(func(book *accountBook) error {
		alias := book.byAlias[key]
		if alias == nil {
			return noAlias(address)
		}
		for _, f := range from {
			target, err := splitAddress(f)
			if err != nil {
				return err
			}
			at := slices.Index(alias.To, keyOf(target))
			if at < 0 {
				return fmt.Errorf("%s does not go to %s", key, keyOf(target))
			}
			alias.To = slices.Delete(alias.To, at, at+1)
		}
		result.To = slices.Clone(alias.To)
		book.dropTargets()
		return nil
	})
}

// noAlias says that an address is no alias.
func noAlias(address string) error {
	return fmt.Errorf("%s is no alias here; `appliance alias list` shows all", address)
}
