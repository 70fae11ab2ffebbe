package main

import (
	"strconv"
	"testing"
)

// setQuota gives an account a quota: a size, "0K" for none, and a number of messages.
func setQuota(t testing.TB, accounts *Accounts, account string, limits ...string) {
	t.Helper()
	var change QuotaChange
	bytes, messages := int64(0), int64(0)
	if limits[0] != "0K" {
		var err error
		if bytes, err = parseSize(limits[0]); err != nil {
			t.Fatal(err)
		}
	}
	if len(limits) > 1 {
		messages, _ = strconv.ParseInt(limits[1], 10, 64)
	}
	change.Bytes, change.Messages = &bytes, &messages
	if _, err := accounts.SetQuota(account, change); err != nil {
		t.Fatal(err)
	}
}
