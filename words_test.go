package main

import (
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"
)

// What others say stands in our sentences in one line, whatever it is.
func TestForeignWords(t *testing.T) {
	for in, want := range map[string]string{
		"":                           "",
		"  plain \r\n\twords ":       "plain words",
		"a\x00b\x07c\x7fd":           "a?b?c?d",
		"\x1b[31mred\u009b31m":       "?[31mred?31m",
		"bad \xff\xfe octets":        "bad ? octets",
		"abc\u202egnp.exe":           "abc?gnp.exe",
		"grüße 😀":                    "grüße 😀",
		strings.Repeat("ü", 20):      strings.Repeat("ü", 20),
		strings.Repeat("ü", 21):      strings.Repeat("ü", 20) + "…",
		"nineteen characters ab":     "nineteen characters…",
		strings.Repeat(" ", 999):     "",
		strings.Repeat("\xff", 9999): "?",
	} {
		if got := foreignWords(in, 20); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzForeignWords(f *testing.F) {
	f.Add("a\x00\u202e b\xff", uint8(3))
	f.Fuzz(func(t *testing.T, text string, most uint8) {
		got := foreignWords(text, int(most))
		if n := utf8.RuneCountInString(got); n > int(most)+1 || !utf8.ValidString(got) || strings.ContainsAny(got, "\r\n\t\x00\x1b\u202e") {
			t.Errorf("%q becomes %q, of %d characters", text, got, n)
		}
	})
}

// Words that are quoted come out of a shell as they were.
func TestQuoteWord(t *testing.T) {
	for word, want := range map[string]string{
		"":                    `""`,
		"ann@gmx.example":     "ann@gmx.example",
		"ann+list_1-x.y:z%/=": "ann+list_1-x.y:z%/=",
		"=ann":                `"=ann"`,
		"two words":           `"two words"`,
		"[::1]{a,b}":          `"[::1]{a,b}"`,
		"o'neil":              `"o'neil"`,
		`a"b`:                 `'a"b'`,
		"a!b":                 `'a!b'`,
		`back\slash`:          `'back\slash'`,
		"$HOME`id`'":          "'$HOME`id`'\\'''",
		"grüße 😀":             `"grüße 😀"`,
		"a\x00\nb\x1b":        `"a??b?"`,
		"\xff":                `"?"`,
	} {
		if got := quoteWord(word); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
}

// What quoteWord writes, a real shell reads back.
func TestQuoteWordInShell(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("there is no sh here")
	}
	words := []string{"", "a", "-", "~", "~root", "#", "a b", "  ", "''", `"`, `\`, `\\`, "$(id)", "`id`", "!!", "*", "?", "[a]", "{a,b}",
		"a;b", "a|b&c", "<>", "ü", "’“”„", strings.Repeat("x y'", 5000)}
	odd := []rune("ab \"'\\$`!*?[]{}()<>|&;~#=%^ü")
	for range 300 {
		var word []rune
		for range rand.IntN(12) {
			word = append(word, odd[rand.IntN(len(odd))])
		}
		words = append(words, string(word))
	}
	var script strings.Builder
	for _, word := range words {
		script.WriteString("printf '%s\\n' " + quoteWord(word) + "\n")
	}
	cmd := exec.Command(sh)
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(got) != len(words) {
		t.Fatalf("%d words come back of %d", len(got), len(words))
	}
	for i, word := range words {
		if got[i] != word {
			t.Errorf("%q comes back as %q", word, got[i])
		}
	}
}
