package main

import (
	"fmt"
	"slices"
)

// Addresses elsewhere that people here send with: of mailboxes at a provider, whose domain belongs to others. Mail to them
// leaves the appliance as all mail for that domain does; it comes back where somebody collects it. Two people may send with
// the same one, as those who share a mailbox do: what is reported goes to whoever has sent, and no address stands for a
// person here.

// maxOutside is how many addresses elsewhere one person may send with.
const maxOutside = 20

// OutsideAddress is an address elsewhere and who sends with it.
type OutsideAddress struct {
	Account string `json:"account"`
	Address string `json:"address"`
}

// checkOutside brings a person's addresses elsewhere into their normal form.
func (u *User) checkOutside() error {
	if len(u.SendAs) > maxOutside {
		return fmt.Errorf("%s can send with %d addresses elsewhere at most", u.Address, maxOutside)
	}
	for i, text := range u.SendAs {
		address, err := outsideAddress(text)
		if err != nil {
			return err
		}
		if slices.Contains(u.SendAs[:i], address) {
			return fmt.Errorf("%s is there twice", address)
		}
		u.SendAs[i] = address
	}
	return nil
}

// checkElsewhere says whose address elsewhere has come to a domain of ours: then nobody would know any more whether its mail
// leaves.
func (b *accountBook) checkElsewhere() *accountsMistake {
	for i := range b.Users {
		for _, address := range b.Users[i].SendAs {
			if domain := domainOf(address); b.domains[domain] {
				return &accountsMistake{tomlPlace{table: "user", n: i, key: "send_as"},
					fmt.Errorf("%s cannot be a domain of this appliance while %s sends with %s, a mailbox elsewhere; `appliance user sender remove` ends that",
						domain, b.Users[i].Address, address)}
			}
		}
	}
	return nil
}

// AddOutside lets a person send with an address elsewhere, and gives its normal form. The error is a sentence: it is no
// address, its domain is kept here, or it is one too many.
func (a *Accounts) AddOutside(account, address string) (string, error) {
	key, err := outsideAddress(address)
	if err != nil {
		return "", err
	}
	return key, a.change(func(book *accountBook) error {
		u, err := book.user(account)
		switch {
		case err != nil:
			return err
		case a.isLocal(book, domainOf(key)):
			return fmt.Errorf("%s is a domain of this appliance; `appliance alias add %s %s` makes it an address of %s", domainOf(key), key, u.Address, u.Address)
		case slices.Contains(u.SendAs, key):
			return fmt.Errorf("%s can send with %s already", u.Address, key)
		case len(u.SendAs) >= maxOutside:
			return fmt.Errorf("%s can send with %d addresses elsewhere already, and there can be no more", u.Address, maxOutside)
		}
		u.SendAs = append(u.SendAs, key)
		return nil
	})
}

// RemoveOutside ends that a person sends with an address elsewhere, and gives its normal form.
func (a *Accounts) RemoveOutside(account, address string) (string, error) {
	key, err := outsideAddress(address)
	if err != nil {
		return "", err
	}
	return key, a.edit(account, func(u *User) error {
		at := slices.Index(u.SendAs, key)
		if at < 0 {
			return fmt.Errorf("%s does not send with %s; `appliance user sender list` shows all", u.Address, key)
		}
		u.SendAs = slices.Delete(u.SendAs, at, at+1)
		return nil
	})
}

// Outside gives all addresses elsewhere, by the order of the people.
func (a *Accounts) Outside() (list []OutsideAddress) {
	for _, u := range a.current().Users {
		for _, address := range u.SendAs {
			list = append(list, OutsideAddress{u.Address, address})
		}
	}
	return list
}

// OutsideOf gives those of a domain, or those that are one address.
func (a *Accounts) OutsideOf(scope string) []OutsideAddress {
	return slices.DeleteFunc(a.Outside(), func(o OutsideAddress) bool { return o.Address != scope && domainOf(o.Address) != scope })
}

// sendsWith says whether an address elsewhere is one of the account's. A tag counts as part of the name: whether the provider
// knows tags is not known here.
func (b *accountBook) sendsWith(account string, from Address) bool {
	u := b.byUser[account]
	return u != nil && slices.Contains(u.SendAs, keyOf(normalAddress(from)))
}

// isProvider knows domains of which everybody has heard that very many people have their addresses there. They are nobody's
// own: no list that is whole is needed to keep a newcomer from the most likely mistake.
func isProvider(domain string) bool {
	switch domain {
	case "gmail.com", "googlemail.com", "outlook.com", "outlook.de", "outlook.fr", "hotmail.com", "hotmail.de", "hotmail.fr", "hotmail.it", "hotmail.co.uk",
		"live.com", "live.de", "live.fr", "msn.com", "icloud.com", "me.com", "mac.com", "yahoo.com", "yahoo.de", "yahoo.fr", "yahoo.it", "yahoo.es", "yahoo.co.uk",
		"ymail.com", "aol.com", "aol.de", "gmx.de", "gmx.net", "gmx.at", "gmx.ch", "gmx.com", "web.de", "t-online.de", "freenet.de", "mail.de", "posteo.de", "mailbox.org",
		"arcor.de", "vodafone.de", "kabelmail.de", "bluewin.ch", "hispeed.ch", "a1.net", "orange.fr", "wanadoo.fr", "free.fr", "sfr.fr", "laposte.net",
		"libero.it", "virgilio.it", "tiscali.it", "telefonica.net", "ziggo.nl", "kpnmail.nl", "telenet.be", "skynet.be", "btinternet.com", "sky.com",
		"comcast.net", "verizon.net", "att.net", "sbcglobal.net", "cox.net", "charter.net", "bigpond.com", "mail.com", "proton.me", "protonmail.com", "pm.me",
		"tuta.io", "tutanota.com", "fastmail.com", "fastmail.fm", "zoho.com", "hey.com", "wp.pl", "o2.pl", "onet.pl", "interia.pl", "seznam.cz", "centrum.cz",
		"yandex.com", "yandex.ru", "mail.ru", "qq.com", "163.com", "126.com", "naver.com", "rediffmail.com", "uol.com.br", "terra.com.br":
		return true
	}
	return false
}

// checkNotProvider says why an account or alias cannot be at a provider's domain: mail from here to everybody else there would
// never arrive. There is no way around it: whoever has such an address has it over there. A domain that the file has already
// stays as it is.
func (a *Accounts) checkNotProvider(book *accountBook, key string) error {
	address := addressOfKey(key)
	if !isProvider(address.Domain) || a.isLocal(book, address.Domain) {
		return nil
	}
	const why = "%s is a provider's domain, and mail from here to everybody else there would be lost"
	if address.Local == "" {
		return fmt.Errorf(why+"; to send with an address there: `appliance user sender add USER ADDRESS`", address.Domain)
	}
	return fmt.Errorf(why+"; to send with that address, take an account of this appliance, such as `appliance user add %s`, then `appliance user sender add %s %s`",
		address.Domain, address.Local, address.Local, key)
}
