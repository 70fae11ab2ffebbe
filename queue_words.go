package main

import (
	"strings"
	"time"
)

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
