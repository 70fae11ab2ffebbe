package main

import (
	"errors"
	"fmt"
	"strings"
)

// newPassword gives the order's password, or a new one and says so.
func newPassword(o order) (password, generated string) {
	if o.Password != "" {
		return o.Password, ""
	}
	generated = generatePassword()
	return generated, generated
}

func (ad *admin) addUser(o order) (answer, error) {
	password, generated := newPassword(o)
	domain := ad.newDomain(o.Address)
	user, err := ad.accounts.Add(o.Address, o.Name, password)
	if err != nil {
		return answer{}, err
	}
	ad.store.Admit(user.Address)
	drop, err := ad.store.Maildrop(user.Address)
	if err != nil {
		// The maildrop is made when it is first needed, too.
		ad.log.Warn("the folders of a new account could not be made yet", "account", user.Address, "err", err)
	} else {
		drop.Release()
	}
	return answer{Address: user.Address, Password: generated, NewDomain: domain}, nil
}

func (ad *admin) setPassword(o order) (answer, error) {
	password, generated := newPassword(o)
	if err := ad.accounts.SetPassword(o.Address, password); err != nil {
		return answer{}, err
	}
	ad.end(o.Address, "", false)
	return answer{Address: o.Address, Password: generated}, nil
}

// removeUser removes the account first: no new session can then open the
// mail that is set aside. What others have let it see it does not leave to
// whoever gets the address next.
func (ad *admin) removeUser(o order) (answer, error) {
	user, err := ad.accounts.User(o.Address)
	if err != nil {
		return answer{}, err
	}
	who := Grantee{user.Address, ad.accounts.ShortName(user.Address)}
	address, err := ad.accounts.Remove(o.Address)
	if err != nil {
		return answer{}, err
	}
	ad.end(address, "", true)
	collecting := errors.Join(ad.codes.Used("", address), ad.answered.Forget(address))
	if ad.collector != nil {
		collecting = errors.Join(collecting, ad.collector.RemoveAccount(address))
	}
	if ad.mover != nil {
		collecting = errors.Join(collecting, ad.mover.RemoveAccount(address))
	}
	path, err := ad.store.SetAside(address)
	if err != nil {
		return answer{}, fmt.Errorf("%s is removed, but its mail could not be set aside: %w", address, err)
	}
	if err := ad.store.RevokeGrants(who); err != nil {
		return answer{}, fmt.Errorf("%s is removed, but still named in access lists of others: %w", address, err)
	}
	if collecting != nil {
		return answer{}, fmt.Errorf("%s is removed, but not all that belongs to it (links, accounts elsewhere with their passwords) could be taken out: %w", address, collecting)
	}
	relays, err := ad.forgetRelays()
	if err != nil {
		return answer{}, fmt.Errorf("%s is removed, but its relays, with their passwords, could not be taken out: %w", address, err)
	}
	return answer{Address: address, Path: path, Relays: relays}, nil
}

// end ends the sessions of mail programs that are logged in with a password that does not count any more.
func (ad *admin) end(address, via string, any bool) {
	if ad.endSessions == nil {
		return
	}
	if u, err := ad.accounts.User(address); err == nil {
		address = u.Address
	}
	ad.endSessions(address, via, any)
}

func (ad *admin) removeAppPassword(o order) (answer, error) {
	if err := ad.accounts.RemoveAppPassword(o.Address, o.Name); err != nil {
		return answer{}, err
	}
	ad.end(o.Address, o.Name, false)
	return answer{Address: o.Address}, nil
}

// disableUser lets somebody log in no more, or again.
func (ad *admin) disableUser(o order, disabled bool) (answer, error) {
	if err := ad.accounts.SetDisabled(o.Address, disabled); err != nil {
		return answer{}, err
	}
	if disabled {
		ad.end(o.Address, "", true)
	}
	return answer{Address: o.Address}, nil
}

// resetLink makes a code by which somebody chooses a new password, and the link with it.
func (ad *admin) resetLink(o order) (answer, error) {
	user, err := ad.accounts.User(o.Address)
	if err != nil {
		return answer{}, err
	}
	if ad.page == nil || ad.page() == "" {
		return answer{}, errors.New("a link needs the page: start the appliance, with port 443 open")
	}
	code, err := ad.codes.Make(codeReset, user.Address)
	if err != nil {
		return answer{}, err
	}
	return answer{Address: user.Address, Password: code, Path: strings.TrimSuffix(ad.page(), "/") + resetPath(code)}, nil
}

// lastLogins tells when somebody has logged in last.
func (ad *admin) lastLogins(o order) (answer, error) {
	user, err := ad.accounts.User(o.Address)
	if err != nil {
		return answer{}, err
	}
	return answer{Address: user.Address, Logins: ad.accounts.LastLogins(user.Address)}, nil
}

// renameUser gives an account another address, with its mail, what is collected for it and what others have let it see.
func (ad *admin) renameUser(o order) (answer, error) {
	if len(o.To) != 1 {
		return answer{}, errors.New("an account gets one new address")
	}
	user, err := ad.accounts.User(o.Address)
	if err != nil {
		return answer{}, err
	}
	to, err := accountAddress(ad.accounts.Complete(o.To[0]))
	if err != nil {
		return answer{}, err
	}
	if to == user.Address {
		return answer{Address: to}, nil
	}
	domain := ad.newDomain(to)
	names := ad.shortNames()
	err = ad.store.Rename(user.Address, to, func() error { return ad.accounts.Rename(user.Address, to) })
	if err != nil {
		return answer{}, err
	}
	ad.end(user.Address, "", true)
	err = errors.Join(ad.codes.Rename(user.Address, to), ad.answered.Rename(user.Address, to))
	if ad.collector != nil {
		err = errors.Join(err, ad.collector.RenameAccount(user.Address, to))
	}
	if ad.mover != nil {
		err = errors.Join(err, ad.mover.RenameAccount(user.Address, to))
	}
	for account, was := range names {
		now := account
		if account == user.Address {
			now = to
		} else if ad.accounts.ShortName(account) == was.Short {
			continue
		}
		err = errors.Join(err, ad.store.RenameGrants(was, now))
	}
	if err != nil {
		return answer{}, fmt.Errorf("%s is %s now, but not all could be changed: %w", user.Address, to, err)
	}
	return answer{Address: to, NewDomain: domain}, nil
}

// shortNames gives what all people may be called in access lists. The short names change with the domain of the owner.
func (ad *admin) shortNames() map[string]Grantee {
	names := map[string]Grantee{}
	for _, account := range ad.accounts.Addresses() {
		names[account] = Grantee{account, ad.accounts.ShortName(account)}
	}
	return names
}
