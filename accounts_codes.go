package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Codes that let somebody in once, as parts of links. The file DATA/codes.json holds their hashes alone.

const (
	maxCodes     = 1000
	maxCodesFile = 1 << 20 // bytes
)

// codeKind is what a code is for.
type codeKind string

const (
	codeFirst codeKind = "first" // the owner's first visit
	codeReset codeKind = "reset" // a new password for somebody
)

// keeps is how long a code works.
func (k codeKind) keeps() time.Duration {
	if k == codeReset {
		return 24 * time.Hour
	}
	return 7 * 24 * time.Hour
}

// resetPath is the part of a link behind the host by which somebody chooses a new password.
func resetPath(code string) string { return "/reset?code=" + url.QueryEscape(code) }

// oneTimeCode is a code that has not been used.
type oneTimeCode struct {
	Kind    codeKind  `json:"kind"`
	Account string    `json:"account"`
	Hash    string    `json:"hash"` // SHA-256 in hex: the code has 63 random bits
	Until   time.Time `json:"until"`
}

// OneTimeCodes is all of them. Safe for concurrent use.
type OneTimeCodes struct {
	file string
	now  func() time.Time

	mu    sync.Mutex
	codes []oneTimeCode
}

// OpenCodes reads the file; now nil means time.Now.
func OpenCodes(file string, now func() time.Time) (*OneTimeCodes, error) {
	if now == nil {
		now = time.Now
	}
	c := &OneTimeCodes{file: file, now: now}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err == nil && len(text) > maxCodesFile {
		err = errors.New("it is too long")
	}
	if err == nil {
		err = json.Unmarshal(text, &c.codes)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s (it may be deleted; links that were sent then do not work any more): %w", file, err)
	}
	return c, nil
}

// Make makes a code, in the place of an earlier one of this kind for the account.
func (c *OneTimeCodes) Make(kind codeKind, account string) (code string, err error) {
	code = generatePassword()
	return code, c.change(func(codes []oneTimeCode) ([]oneTimeCode, error) {
		codes = slices.DeleteFunc(codes, func(o oneTimeCode) bool { return o.Kind == kind && o.Account == account })
		if len(codes) >= maxCodes {
			return nil, fmt.Errorf("%d links wait to be used, which is the most", maxCodes)
		}
		return append(codes, oneTimeCode{kind, account, hashCode(code), c.now().Add(kind.keeps()).UTC().Truncate(time.Second)}), nil
	})
}

// hashCode forgives how a code is typed.
func hashCode(code string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(strings.TrimSpace(code))))
	return hex.EncodeToString(sum[:])
}

// change edits the list, and is done when the new one is on disk. What is too old is left out.
func (c *OneTimeCodes) change(edit func(codes []oneTimeCode) ([]oneTimeCode, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	codes, err := edit(slices.DeleteFunc(slices.Clone(c.codes), func(o oneTimeCode) bool { return !now.Before(o.Until) }))
	if err != nil || slices.Equal(codes, c.codes) {
		return err
	}
	text, err := json.MarshalIndent(codes, "", "  ")
	if err == nil {
		err = writeFileAtomic(c.file, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("writing the codes: %w", err)
	}
	c.codes = codes
	return nil
}

// Account gives whose a code is that works; "" for none.
func (c *OneTimeCodes) Account(kind codeKind, code string) string {
	hash, now := hashCode(code), c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.codes {
		if o.Kind == kind && now.Before(o.Until) && hmac.Equal([]byte(o.Hash), []byte(hash)) {
			return o.Account
		}
	}
	return ""
}

// Waiting gives for whom a code of this kind waits to be used; "" for nobody.
func (c *OneTimeCodes) Waiting(kind codeKind) string {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.codes {
		if o.Kind == kind && now.Before(o.Until) {
			return o.Account
		}
	}
	return ""
}

// Used ends the codes of a kind for an account; kind "" means all.
func (c *OneTimeCodes) Used(kind codeKind, account string) error {
	return c.change(func(codes []oneTimeCode) ([]oneTimeCode, error) {
		return slices.DeleteFunc(codes, func(o oneTimeCode) bool { return o.Account == account && (kind == "" || o.Kind == kind) }), nil
	})
}

// Rename lets the codes of an account be those of its new address.
func (c *OneTimeCodes) Rename(account, to string) error {
	return c.change(func(codes []oneTimeCode) ([]oneTimeCode, error) {
		for i := range codes {
			if codes[i].Account == account {
				codes[i].Account = to
			}
		}
		return codes, nil
	})
}
