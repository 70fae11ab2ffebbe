package main

import (
	"encoding/base64"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
)

// author writes messages of many different words, with files attached: a mailbox of years, whose text index has something to
// keep. The words are as frequent as in a language (Zipf's law), and there are names and numbers that come once.
type author struct {
	rnd   *rand.Rand
	words []string
	bytes int // of a message on average
}

// vocabulary is how many words an author knows.
const vocabulary = 60_000

func newAuthor(bytes int) *author {
	a := &author{rnd: rand.New(rand.NewPCG(1, 2)), bytes: bytes}
	for range vocabulary {
		a.words = append(a.words, a.letters(3+a.rnd.IntN(9)))
	}
	return a
}

// letters is a word of so many letters, as often as not one that can be spoken.
func (a *author) letters(n int) string {
	const vowels, others = "aeiou", "bcdfghjklmnprstvwz"
	word := make([]byte, n)
	for i := range word {
		from := others
		if i%2 == 1 {
			from = vowels
		}
		word[i] = from[a.rnd.IntN(len(from))]
	}
	return string(word)
}

// word picks a word: the first ones often, the last ones seldom.
func (a *author) word() string {
	return a.words[int(math.Pow(vocabulary, a.rnd.Float64()))-1]
}

// message is the i-th: the header of sample's, some 3 KB of text, and a file that makes up the rest, from nothing to four
// times the average.
func (a *author) message(i int) string {
	header, _, _ := strings.Cut(sample(i), "Content-Type: ")
	var b strings.Builder
	fmt.Fprintf(&b, "%sContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n", header)
	for end := b.Len() + 500 + a.rnd.IntN(5000); b.Len() < end; {
		for range 12 {
			b.WriteString(a.word())
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s%d\r\n", a.letters(6), a.rnd.IntN(1e9))
	}
	fmt.Fprintf(&b, "--b\r\nContent-Type: application/pdf; name=\"%s.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n", a.word())
	share := a.rnd.Float64()
	a.attach(&b, int(share*share*3*float64(a.bytes)))
	b.WriteString("--b--\r\n")
	return b.String()
}

// attach writes a file of so many bytes in base64, each line its own.
func (a *author) attach(b *strings.Builder, size int) {
	const line = 57 // bytes that make 76 characters
	var raw [line + 7]byte
	for ; size > 0; size -= 78 {
		for i := 0; i < line; i += 8 {
			for j, n := 0, a.rnd.Uint64(); j < 8; j++ {
				raw[i+j], n = byte(n), n>>8
			}
		}
		b.WriteString(base64.StdEncoding.EncodeToString(raw[:line]))
		b.WriteString("\r\n")
	}
}
