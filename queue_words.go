package main

import (
	"fmt"
	"strings"
	"time"
)

func senderWords(e *QueueEntry) string {
	if e.From == "" {
		return "the mail server"
	}
	return e.From
}

// recipientWords says in one line what a recipient waits for: "waits since 10:32 for ann@example.org: nobody answers; next
// try 11:02".
func recipientWords(e *QueueEntry, r *QueueRecipient, now time.Time) string {
	reason := foreignWords(r.Reason, 1000)
	switch r.State {
	case SendSent:
		return "sent to " + r.Address
	case SendFailed:
		return "failed for " + r.Address + ": " + reason
	case SendCancelled:
		return "cancelled for " + r.Address
	}
	words := fmt.Sprintf("waits since %s for %s", clockWords(e.Queued, now), r.Address)
	if r.Relay != "" {
		words += " by the relay " + r.Relay
	}
	if reason != "" {
		words += ": " + strings.TrimSuffix(reason, ".")
	}
	if !r.Next.After(now) {
		return words + "; its turn comes next"
	}
	return words + "; next try " + clockWords(r.Next, now)
}

// clockWords gives a time as people here have it: the day only where it is not today.
func clockWords(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04")
	}
	return t.Format("2 January, 15:04")
}

// cleanText makes a header fit for a terminal: what a sender has written shall not command it.
func cleanText(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\r':
			return -1
		case r == '\n', r == '\t':
			return r
		case r < ' ', r >= 0x7f && r < 0xa0:
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
