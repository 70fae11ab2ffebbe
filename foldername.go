package main

import (
	"strings"
	"unicode/utf8"
)

// Mailbox names and the folders that hold them (Maildir++): levels are separated by '/' outside and by '.' on disk, each
// level is modified UTF-7. A '.' within a level, and what Windows cannot have in a file name, is written as modified UTF-7
// too ("&AC4-"), so that every name works on every system and any Maildir++ reader can list it.

// diskReserved are the ASCII characters that are escaped within a level.
const diskReserved = `.\:*?"<>|`

// maxDirName is what common file systems allow for one name, in bytes.
const maxDirName = 255

// maxLevels bounds how deep folders may lie.
const maxLevels = 50

// inboxName is the mailbox that is the Maildir itself.
const inboxName = "INBOX"

// junkName is the folder for unwanted mail, where a maildrop names no other.
const junkName = "Junk"

// canonicalName brings INBOX, alone or as the first level, into capitals (RFC 9051 §5.1).
func canonicalName(name string) string {
	first, rest, deep := strings.Cut(name, "/")
	if !strings.EqualFold(first, inboxName) {
		return name
	}
	if deep {
		return inboxName + "/" + rest
	}
	return inboxName
}

// encodeFolder gives the directory of a mailbox below the maildrop: "." for INBOX, else ".Level.Level". ErrBadName for
// empty levels, control characters, broken UTF-8 and names that are too long.
func encodeFolder(name string) (string, error) {
	name = canonicalName(name)
	if name == inboxName {
		return ".", nil
	}
	if name == "" || !utf8.ValidString(name) || strings.Count(name, "/") >= maxLevels {
		return "", ErrBadName
	}
	var dir strings.Builder
	for level := range strings.SplitSeq(name, "/") {
		if level == "" || strings.ContainsFunc(level, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return "", ErrBadName
		}
		dir.WriteByte('.')
		dir.WriteString(encodeLevel(level))
	}
	if dir.Len() > maxDirName {
		return "", ErrBadName
	}
	return dir.String(), nil
}

func encodeLevel(level string) string {
	enc := encodeMUTF7(level)
	if strings.ContainsAny(enc, diskReserved) {
		var b strings.Builder
		for i := 0; i < len(enc); i++ {
			if strings.IndexByte(diskReserved, enc[i]) >= 0 {
				b.WriteString(reservedEscape(enc[i]))
			} else {
				b.WriteByte(enc[i])
			}
		}
		enc = b.String()
	}
	if strings.HasSuffix(enc, " ") {
		enc = enc[:len(enc)-1] + reservedEscape(' ')
	}
	return enc
}

// reservedEscape is modified UTF-7's shifted form of one ASCII character, which that encoding itself never writes.
func reservedEscape(c byte) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,"
	// 16 bits 0x00cc in three base64 digits of six bits: 000000 00cccc cccc00.
	return string([]byte{'&', 'A', digits[c>>4], digits[c<<2&0x3f], '-'})
}

// decodeFolder is the way back. A level that is not modified UTF-7 is shown as it stands on disk.
func decodeFolder(dir string) string {
	if dir == "." {
		return inboxName
	}
	levels := strings.Split(strings.TrimPrefix(dir, "."), ".")
	for i, l := range levels {
		levels[i] = decodeLevel(l)
	}
	return canonicalName(strings.Join(levels, "/"))
}

func decodeLevel(level string) string {
	var b strings.Builder
	for rest := level; rest != ""; {
		amp := strings.IndexByte(rest, '&')
		if amp < 0 {
			amp = len(rest)
		}
		end := strings.IndexByte(rest[amp:], '-')
		if amp == len(rest) || end < 0 {
			if !utf8.ValidString(rest) {
				return strings.ToValidUTF8(level, "\ufffd")
			}
			b.WriteString(rest)
			break
		}
		b.WriteString(rest[:amp])
		seq := rest[amp : amp+end+1]
		rest = rest[amp+end+1:]
		if c, ok := unescapeReserved(seq); ok {
			b.WriteByte(c)
			continue
		}
		s, err := decodeMUTF7(seq)
		if err != nil || strings.ContainsAny(s, "/\x00") {
			return strings.ToValidUTF8(level, "\ufffd")
		}
		b.WriteString(s)
	}
	if s := b.String(); utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(level, "\ufffd")
}

func unescapeReserved(seq string) (byte, bool) {
	for i := 0; i < len(diskReserved); i++ {
		if seq == reservedEscape(diskReserved[i]) {
			return diskReserved[i], true
		}
	}
	return ' ', seq == reservedEscape(' ')
}
