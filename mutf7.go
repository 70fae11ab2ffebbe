package main

// Modified UTF-7, the form of mailbox names in IMAP4rev1 (RFC 3501 §5.1.3) and of folder names on disk (Maildir++).
// IMAP4rev2 and UTF8=ACCEPT sessions speak plain UTF-8 instead.

import (
	"encoding/base64"
	"errors"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// errBadMUTF7 says that a string is not modified UTF-7, or not the one form of it that RFC 3501 §5.1.3 allows.
var errBadMUTF7 = errors.New("not modified UTF-7")

// mutf7Alphabet is base64 with "," for "/", and without padding (RFC 3501 §5.1.3).
const mutf7Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,"

// mutf7Encoding refuses bits that are left over and not zero, so that a name has one spelling only.
var mutf7Encoding = base64.NewEncoding(mutf7Alphabet).WithPadding(base64.NoPadding).Strict()

// encodeMUTF7 gives the modified UTF-7 form of a UTF-8 string. Bytes that are not UTF-8 become U+FFFD.
func encodeMUTF7(s string) string {
	if isPlainMUTF7(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '&':
			b.WriteString("&-")
		case directMUTF7(r):
			b.WriteByte(byte(r))
		default:
			n = len(s) - len(strings.TrimLeftFunc(s, func(r rune) bool { return !directMUTF7(r) }))
			b.WriteByte('&')
			b.WriteString(mutf7Encoding.EncodeToString(utf16Bytes(s[:n])))
			b.WriteByte('-')
		}
		s = s[n:]
	}
	return b.String()
}

// decodeMUTF7 gives the UTF-8 form of a modified UTF-7 string. It accepts the canonical spelling only: what it accepts,
// encodeMUTF7 turns into the same string again, so two spellings never name one folder. Anything else is errBadMUTF7.
func decodeMUTF7(s string) (string, error) {
	if isPlainMUTF7(s) {
		return s, nil
	}
	var b strings.Builder
	for rest := s; rest != ""; {
		i := strings.IndexByte(rest, '&')
		if i < 0 {
			b.WriteString(rest)
			break
		}
		b.WriteString(rest[:i])
		rest = rest[i+1:]
		end := strings.IndexByte(rest, '-')
		if end < 0 {
			return "", errBadMUTF7
		}
		if end == 0 {
			b.WriteByte('&')
		} else if err := decodeMUTF7Run(&b, rest[:end]); err != nil {
			return "", err
		}
		rest = rest[end+1:]
	}
	if encodeMUTF7(b.String()) != s {
		return "", errBadMUTF7
	}
	return b.String(), nil
}

// decodeMUTF7Run decodes the base64 between "&" and "-".
func decodeMUTF7Run(b *strings.Builder, run string) error {
	raw, err := mutf7Encoding.DecodeString(run)
	if err != nil || len(raw)%2 != 0 {
		return errBadMUTF7
	}
	for i := 0; i < len(raw); i += 2 {
		r := rune(raw[i])<<8 | rune(raw[i+1])
		if utf16.IsSurrogate(r) {
			if i+4 > len(raw) {
				return errBadMUTF7
			}
			r = utf16.DecodeRune(r, rune(raw[i+2])<<8|rune(raw[i+3]))
			if r == utf8.RuneError {
				return errBadMUTF7
			}
			i += 2
		}
		b.WriteRune(r)
	}
	return nil
}

// directMUTF7 says whether a character stands for itself: printable ASCII ("&" is among it, written "&-").
func directMUTF7(r rune) bool { return r >= 0x20 && r <= 0x7e }

// isPlainMUTF7 says whether both forms of the string are the same.
func isPlainMUTF7(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e || s[i] == '&' {
			return false
		}
	}
	return true
}

// utf16Bytes gives UTF-16 in network order.
func utf16Bytes(s string) []byte {
	units := utf16.Encode([]rune(s))
	raw := make([]byte, 0, 2*len(units))
	for _, u := range units {
		raw = append(raw, byte(u>>8), byte(u))
	}
	return raw
}
