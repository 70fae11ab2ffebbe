package main

import (
	"fmt"
	"slices"
)

// maxForwards is to how many addresses elsewhere the mail of one person goes on.
const maxForwards = 10

// checkForward brings the addresses that a person's mail goes on to into their normal form.
func (u *User) checkForward() (key string, err error) {
	if len(u.Forward) > maxForwards {
		return "forward", fmt.Errorf("the mail of %s can go on to %d addresses at most", u.Address, maxForwards)
	}
	for i, text := range u.Forward {
		address, err := outsideAddress(text)
		if err != nil {
			return "forward", err
		}
		if slices.Contains(u.Forward[:i], address) {
			return "forward", fmt.Errorf("%s is there twice", address)
		}
		u.Forward[i] = address
	}
	if u.ForwardOnly && len(u.Forward) == 0 {
		return "forward_only", fmt.Errorf("the mail of %s goes on to nobody, and so has to stay here", u.Address)
	}
	return "", nil
}

// SetForward lets the mail of a person go on to addresses elsewhere, to none with an empty list; only says that no copy stays
// here. The error is a sentence.
func (a *Accounts) SetForward(address string, to []string, only bool) (User, error) {
	var after User
	err := a.change(func(book *accountBook) error {
		u, err := book.user(address)
		if err != nil {
			return err
		}
		u.Forward, u.ForwardOnly = slices.Clone(to), only && len(to) > 0
		if _, err := u.checkForward(); err != nil {
			return err
		}
		for _, to := range u.Forward {
			if a.isLocal(book, domainOf(to)) {
				return fmt.Errorf("%s is an address of this appliance; mail goes on to addresses elsewhere, and `appliance alias` does that for those here", to)
			}
		}
		after = *u
		return nil
	})
	return after, err
}

// Forward gives where the mail of a person goes on to, and whether no copy stays here. Not to be changed.
func (a *Accounts) Forward(account string) (to []string, only bool) {
	u := a.current().byUser[account]
	if u == nil {
		return nil, false
	}
	return u.Forward, u.ForwardOnly
}
