package main

import (
	"strconv"
	"strings"
	"unicode"
)

// foreignWords gives what another server or program has said as it may stand in a sentence of ours: in one line of valid
// UTF-8, of most characters at the most, without anything that commands a terminal or turns the order of the text around.
func foreignWords(text string, most int) string {
	if octets := (most + 1) * 16; len(text) > octets { // more white space than words is nothing to read through
		text = text[:octets]
	}
	text = tameWords(strings.Join(strings.Fields(text), " "))
	n := 0
	for at := range text {
		if n++; n > most {
			return strings.TrimRight(text[:at], " ") + "…"
		}
	}
	return text
}

// tameWords puts "?" for what is no UTF-8, and for what commands a terminal.
func tameWords(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

// quoteWord writes a word so that it can be pasted into a command: as it is where no shell sees anything in it, between double
// quotes where that does for all systems, else between single quotes as the shells of Unix read them. Control characters, which
// nothing that we name has, become "?".
func quoteWord(word string) string {
	word = tameWords(word)
	switch {
	case plainWord(word):
		return word
	case !strings.ContainsAny(word, "`$\\\"!“”„"): // these mean something between double quotes, too
		return `"` + word + `"`
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// plainWord says whether a word means itself in the shells of all systems.
func plainWord(word string) bool {
	if word == "" || word[0] == '=' { // zsh looks for a program behind that
		return false
	}
	return !strings.ContainsFunc(word, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@%+=:./_-", r))
	})
}

// messagesText counts messages in words.
func messagesText(n int64) string {
	if n == 1 {
		return "1 message"
	}
	return strconv.FormatInt(n, 10) + " messages"
}
