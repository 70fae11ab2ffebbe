package main

import (
	"bufio"
	"bytes"
	"io"
	"strings"
)

// An mbox file holds one message after another, each behind a line that begins with "From " (RFC 4155). Such a line within a text is
// quoted as ">From " by most programs, which makes no difference to who only counts words, so that it stays quoted here.

// mboxMessages calls each with the messages of an mbox file, from and size being octets of it. It ends with the first error, of
// reading or of each.
func mboxMessages(file io.Reader, each func(from, size int64) error) error {
	r := bufio.NewReaderSize(file, 64<<10)
	begun, from, at := false, int64(0), int64(0) // from is where the text of the message in hand begins
	blank, lineStart := true, true               // whether the line before is blank, as one before a message is
	for {
		piece, err := r.ReadSlice('\n')
		if lineStart && blank && isMboxLine(piece) {
			if begun {
				if err := each(from, at-from); err != nil {
					return err
				}
			}
			begun, from = true, at+int64(len(piece))
		}
		if lineStart {
			blank = isBlankLine(piece)
		}
		lineStart = err == nil
		at += int64(len(piece))
		switch err {
		case nil, bufio.ErrBufferFull:
		case io.EOF:
			if begun {
				return each(from, max(at-from, 0))
			}
			return nil
		default:
			return err
		}
	}
}

// isMboxLine says whether a line stands between two messages: "From ", who sent it, and the time as asctime writes it, sometimes with
// a zone: "From ann@example.org Thu Nov 26 10:32:07 2026". A line of text that begins with "From " does not.
func isMboxLine(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("From "))
	if !ok {
		return false
	}
	words := strings.Fields(string(rest))
	for i := range words {
		if i+3 < len(words) && isOneOf(words[i], "Mon Tue Wed Thu Fri Sat Sun") && isOneOf(words[i+1], "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec") &&
			len(words[i+2]) <= 2 && strings.Count(words[i+3], ":") >= 1 {
			return true
		}
	}
	return false
}

// isOneOf says whether a word is one of a list.
func isOneOf(word, list string) bool {
	return len(word) == 3 && strings.Contains(" "+list+" ", " "+word+" ")
}
