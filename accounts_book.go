package main

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// User is one person's account.
type User struct {
	Address  string    `toml:"address" json:"address"` // lower case
	Name     string    `toml:"name,omitempty" json:"name,omitempty"`
	Password string    `toml:"password,omitempty" json:"-"`                  // a hash and SCRAM keys, see splitPassword; "": no main password
	Disabled bool      `toml:"disabled,omitempty" json:"disabled,omitempty"` // may not log in; mail still comes
	Created  time.Time `toml:"created,omitempty" json:"created,omitzero"`

	TOTP     string   `toml:"totp,omitempty" json:"-"`                      // secret of the second factor on the page; "": none
	Recovery []string `toml:"recovery,omitempty" json:"-"`                  // hashes of the codes in its place
	Language string   `toml:"language,omitempty" json:"language,omitempty"` // of the page, "de"; "": what the browser asks for

	Quota         string `toml:"quota,omitempty" json:"quota,omitempty"`                   // "500M"; "": none
	QuotaMessages int64  `toml:"quota_messages,omitempty" json:"quota_messages,omitempty"` // 0: none

	SendAs []string `toml:"send_as,omitempty" json:"send_as,omitempty"` // addresses elsewhere

	Forward     []string `toml:"forward,omitempty" json:"forward,omitempty"`           // addresses elsewhere that mail goes on to
	ForwardOnly bool     `toml:"forward_only,omitempty" json:"forward_only,omitempty"` // and no copy stays here

	Away *AwayNote `toml:"away,omitempty" json:"away,omitempty"` // nil: none

	Apps []AppPassword `toml:"app_password,omitempty" json:"app_passwords,omitempty"`
}

// AppPassword is a password for one program or device, revoked by its name.
type AppPassword struct {
	Name     string    `toml:"name" json:"name"`
	Password string    `toml:"password" json:"-"` // as a User's
	Created  time.Time `toml:"created,omitempty" json:"created,omitzero"`
}

// Alias is an address that stands for others.
type Alias struct {
	Address string   `toml:"address" json:"address"` // "@domain": all that is left over there
	To      []string `toml:"to" json:"to"`
}

// accountBook is one state of the accounts. It is never changed once others
// can see it: edits work on a clone.
type accountBook struct {
	Users   []User  `toml:"user"`
	Aliases []Alias `toml:"alias"`

	text    string            // the file it was read from
	renamed map[string]string // by its address before, an account that this change gives another one
	byUser  map[string]*User
	byAlias map[string]*Alias
	domains map[string]bool
}

// An alias reaches at most this many accounts.
const maxAliasReach = 100

func newAccountBook() *accountBook {
	b := &accountBook{}
	b.index()
	return b
}

// index fills the maps from the lists.
func (b *accountBook) index() {
	b.byUser = make(map[string]*User, len(b.Users))
	b.byAlias = make(map[string]*Alias, len(b.Aliases))
	b.domains = make(map[string]bool)
	for i := range b.Users {
		b.byUser[b.Users[i].Address] = &b.Users[i]
		b.domains[domainOf(b.Users[i].Address)] = true
	}
	for i := range b.Aliases {
		b.byAlias[b.Aliases[i].Address] = &b.Aliases[i]
		b.domains[domainOf(b.Aliases[i].Address)] = true
	}
}

// clone gives a deep copy to work on.
func (b *accountBook) clone() *accountBook {
	c := &accountBook{Users: slices.Clone(b.Users), Aliases: slices.Clone(b.Aliases), text: b.text}
	for i := range c.Users {
		c.Users[i].Apps = slices.Clone(c.Users[i].Apps)
		c.Users[i].Recovery = slices.Clone(c.Users[i].Recovery)
		c.Users[i].SendAs = slices.Clone(c.Users[i].SendAs)
		c.Users[i].Forward = slices.Clone(c.Users[i].Forward)
		if note := c.Users[i].Away; note != nil {
			own := *note
			c.Users[i].Away = &own
		}
	}
	for i := range c.Aliases {
		c.Aliases[i].To = slices.Clone(c.Aliases[i].To)
	}
	c.index()
	return c
}

func (b *accountBook) owner() string {
	if len(b.Users) == 0 {
		return ""
	}
	return b.Users[0].Address
}

// login finds the account that a login name means, nil for none or for a
// local part that two accounts share.
func (b *accountBook) login(name string) *User {
	name = strings.TrimSpace(name)
	if strings.Contains(name, "@") {
		address, err := ParseAddress(name)
		if err != nil {
			return nil
		}
		return b.byUser[keyOf(normalAddress(address))]
	}
	local := normalLocal(name)
	var found *User
	for i := range b.Users {
		if l, _, _ := strings.Cut(b.Users[i].Address, "@"); l == local {
			if found != nil {
				return nil
			}
			found = &b.Users[i]
		}
	}
	return found
}

// resolve gives the accounts that mail to a normalised local address reaches.
func (b *accountBook) resolve(to Address) []string {
	reached := map[string]bool{}
	b.reach(to, map[string]bool{}, reached)
	return slices.Sorted(maps.Keys(reached))
}

// reach adds the accounts behind to. seen holds the aliases already followed,
// so that a circle ends.
func (b *accountBook) reach(to Address, seen, reached map[string]bool) {
	key := b.target(to)
	if b.byUser[key] != nil {
		reached[key] = true
		return
	}
	alias := b.byAlias[key]
	if alias == nil || seen[key] {
		return
	}
	seen[key] = true
	for _, next := range alias.To {
		if len(reached) >= maxAliasReach {
			return
		}
		b.reach(addressOfKey(next), seen, reached)
	}
}

// target gives the account or alias that answers for an address: itself,
// itself without +tag, the owner for the names every domain must have
// (RFC 2142 §5, RFC 5321 §4.5.1), or the domain's catch-all; "" for nobody.
func (b *accountBook) target(to Address) string {
	base, _, tagged := strings.Cut(to.Local, "+")
	candidates := []string{to.Local}
	if tagged && base != "" {
		candidates = append(candidates, base)
	}
	for _, local := range candidates {
		key := local + "@" + to.Domain
		if b.byUser[key] != nil || b.byAlias[key] != nil {
			return key
		}
	}
	for _, local := range candidates {
		if local == "postmaster" || local == "abuse" || local == "root" {
			return b.owner()
		}
	}
	if all := "@" + to.Domain; b.byAlias[all] != nil {
		return all
	}
	return ""
}

// targetOf is target for a stored address.
func (b *accountBook) targetOf(key string) string { return b.target(addressOfKey(key)) }

// addressOfKey splits a stored address, whose local part may be empty.
func addressOfKey(key string) Address {
	at := strings.LastIndexByte(key, '@')
	return Address{Local: key[:max(0, at)], Domain: key[at+1:]}
}

func domainOf(address string) string {
	return address[strings.LastIndexByte(address, '@')+1:]
}
