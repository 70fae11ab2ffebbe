package main

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// The largest size that a quota may have, in bytes: what 1024T are.
const maxQuotaBytes = 1 << 50

// sizePattern is how a person writes a size: a number and its unit.
var sizePattern = regexp.MustCompile(`^(\d{1,15}(?:\.\d{1,6})?) ?([KMGT])(?:I?B)?$`)

// sizeUnits are the units of sizes, each 1024 of the one before.
const sizeUnits = "KMGT"

// parseSize reads a size such as 500M, 1.5G or 20 GB, in bytes. The units are
// powers of 1024, as disks fill up by them; parts of a K are left out.
func parseSize(text string) (int64, error) {
	m := sizePattern.FindStringSubmatch(strings.ToUpper(strings.TrimSpace(text)))
	if m == nil {
		return 0, fmt.Errorf("%q is no size: take a number and K, M, G or T, such as 500M", text)
	}
	number, _ := strconv.ParseFloat(m[1], 64) // the pattern lets nothing else through
	kib := math.Floor(math.Ldexp(number, 10*strings.Index(sizeUnits, m[2])))
	if kib < 1 || kib > maxQuotaBytes>>10 {
		return 0, fmt.Errorf("%q is no size for a quota: between 1K and 1024T", text)
	}
	return int64(kib) << 10, nil
}

// formatSize writes a size of whole K as parseSize reads it, in the largest
// unit that says it exactly.
func formatSize(bytes int64) string {
	n, unit := bytes>>10, 0
	for n >= 1024 && n%1024 == 0 && unit+1 < len(sizeUnits) {
		n, unit = n/1024, unit+1
	}
	return strconv.FormatInt(n, 10) + sizeUnits[unit:unit+1]
}

// roundSize writes any number of bytes for people: 0K, 12.3M.
func roundSize(bytes int64) string {
	n, unit := float64(bytes)/1024, 0
	for n >= 1023.95 && unit+1 < len(sizeUnits) {
		n, unit = n/1024, unit+1
	}
	text := strings.TrimSuffix(strconv.FormatFloat(n, 'f', 1, 64), ".0")
	if bytes > 0 && text == "0" {
		text = "0.1"
	}
	return text + sizeUnits[unit:unit+1]
}

// checkQuota brings the quota of a person into its normal form. key is the
// field that is wrong.
func (u *User) checkQuota() (key string, err error) {
	if u.Quota != "" {
		bytes, err := parseSize(u.Quota)
		if err != nil {
			return "quota", err
		}
		u.Quota = formatSize(bytes)
	}
	if u.QuotaMessages < 0 {
		return "quota_messages", fmt.Errorf("%d is no number of messages", u.QuotaMessages)
	}
	return "", nil
}

// limit is what the person's maildrop may hold.
func (u *User) limit() Quota {
	limit := Quota{Messages: u.QuotaMessages}
	if u.Quota != "" {
		limit.Bytes, _ = parseSize(u.Quota) // checkQuota has read it
	}
	return limit
}

// Quota is what the account's maildrop may hold; the zero value: anything.
func (a *Accounts) Quota(account string) Quota {
	u := a.current().byUser[account]
	if u == nil {
		return Quota{}
	}
	return u.limit()
}

// QuotaChange says what of a quota is to be changed: a nil field stays as it
// is, and a limit of 0 is none.
type QuotaChange struct {
	Bytes    *int64 `json:"bytes,omitempty"`
	Messages *int64 `json:"messages,omitempty"`
}

// SetQuota changes an account's quota and gives the account as it is then.
func (a *Accounts) SetQuota(address string, change QuotaChange) (User, error) {
	var after User
	err := a.edit(address, func(u *User) error {
		if change.Bytes != nil {
			u.Quota = ""
			if *change.Bytes != 0 {
				u.Quota = formatSize(*change.Bytes)
			}
		}
		if change.Messages != nil {
			u.QuotaMessages = *change.Messages
		}
		after = *u
		return nil
	})
	return after, err
}
