package main

import (
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"
)

// The second factor of the page: codes of six digits that an app on a phone makes (TOTP, RFC 6238), and codes for the day when the
// phone is lost. Mail programs cannot ask for it; they have app passwords.

const (
	factorPeriod  = 30 // seconds that a code counts
	factorSkew    = 1  // periods that a phone's clock may be off
	recoveryCodes = 10
)

// NewFactor makes a secret for a person's phone, and the link with it that the phone reads from a QR code. It counts with SetFactor.
func NewFactor(host, account string) (secret, link string, err error) {
	key, err := totp.Generate(totp.GenerateOpts{Issuer: host, AccountName: account, Period: factorPeriod})
	if err != nil {
		return "", "", fmt.Errorf("making a second factor: %w", err)
	}
	return key.Secret(), key.URL(), nil
}

// SetFactor has the page ask a person for a second factor, once the phone has shown by a code that it has the secret; ErrBadLogin
// when the code is wrong. It gives the codes that work once each without the phone.
func (a *Accounts) SetFactor(account, secret, code string) (recovery []string, err error) {
	if !a.takeFactorCode(account, secret, code) {
		return nil, ErrBadLogin
	}
	hashes := make([]string, recoveryCodes)
	recovery = make([]string, recoveryCodes)
	for i := range recovery {
		recovery[i] = generateAppPassword()
		hashes[i] = hashAppPassword(recovery[i])
	}
	return recovery, a.edit(account, func(u *User) error {
		u.TOTP, u.Recovery = secret, hashes
		return nil
	})
}

// RemoveFactor ends that a person is asked for a second factor.
func (a *Accounts) RemoveFactor(account string) error {
	return a.edit(account, func(u *User) error {
		if u.TOTP == "" {
			return fmt.Errorf("%s has no second factor", u.Address)
		}
		u.TOTP, u.Recovery = "", nil
		return nil
	})
}

// CheckFactor says whether a code is the second factor of a person now, or one for a lost phone, which is used up by that:
// ErrBadLogin when it is neither.
func (a *Accounts) CheckFactor(account, code string) error {
	u, err := a.User(account)
	if err != nil || u.TOTP == "" {
		return ErrBadLogin
	}
	if a.takeFactorCode(account, u.TOTP, code) {
		return nil
	}
	i := slices.IndexFunc(u.Recovery, func(hash string) bool { return matchAppPassword(hash, code) })
	if i < 0 {
		return ErrBadLogin
	}
	hash := u.Recovery[i]
	return a.edit(account, func(u *User) error {
		i := slices.Index(u.Recovery, hash)
		if i < 0 {
			return ErrBadLogin // somebody was faster
		}
		u.Recovery = slices.Delete(u.Recovery, i, i+1)
		return nil
	})
}

// takeFactorCode says whether a code belongs to a secret now. Each counts once (RFC 6238 §5.2).
func (a *Accounts) takeFactorCode(account, secret, code string) bool {
	code = strings.ReplaceAll(code, " ", "")
	if len(code) != otp.DigitsSix.Length() {
		return false
	}
	now := uint64(a.cfg.Now().Unix() / factorPeriod)
	a.mu.Lock()
	defer a.mu.Unlock()
	for counter := now - factorSkew; counter <= now+factorSkew; counter++ {
		right, err := hotp.ValidateCustom(code, counter, secret, hotp.ValidateOpts{Digits: otp.DigitsSix})
		if err != nil || !right || counter <= a.factorsUsed[account] {
			continue
		}
		if a.factorsUsed == nil {
			a.factorsUsed = map[string]uint64{}
		}
		a.factorsUsed[account] = counter
		return true
	}
	return false
}

// checkFactor says what is wrong with the second factor in the file.
func (u *User) checkFactor() (key string, err error) {
	if _, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(u.TOTP); err != nil {
		return "totp", errors.New("it is no secret of a second factor; the page makes one")
	}
	for _, hash := range u.Recovery {
		if err := checkAppHash(hash); err != nil {
			return "recovery", errors.New("one of them is no hash; the page makes them")
		}
	}
	return "", nil
}
