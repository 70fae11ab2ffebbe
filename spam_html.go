package main

import (
	"bytes"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/html"
)

// spamLinks is how many links of one message are looked at.
const spamLinks = 200

// readHTML makes tokens of what is to be seen of a text in HTML, which is folded, and of its links. It appends the text to
// visible and gives that. Elements inside a word do not part it.
func (m *spamMessage) readHTML(text, visible []byte) []byte {
	z := html.NewTokenizer(bytes.NewReader(text))
	z.SetMaxBuf(spamPartText)
	links := 0
	var link anchor
	for {
		switch z.Next() {
		case html.ErrorToken: // the end, or an element as long as the text
			m.words(tokenWord, visible)
			return visible
		case html.TextToken:
			piece := z.Text()
			visible = append(visible, piece...)
			link.take(piece)
		case html.StartTagToken, html.SelfClosingTagToken:
			name, more := z.TagName()
			tag := string(name)
			if !inlineElements[tag] {
				visible = append(visible, ' ')
			}
			m.mark(tag)
			if tag == "script" || tag == "style" {
				skipElement(z)
				continue
			}
			for more {
				var key, value []byte
				key, value, more = z.TagAttr()
				if k := string(key); (k == "href" || k == "src" || k == "action" || k == "background") && links < spamLinks {
					links++
					host := m.linkHost(string(value))
					if tag == "a" && k == "href" {
						link = anchor{host: host, open: host != ""}
					}
				}
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			if !inlineElements[string(name)] {
				visible = append(visible, ' ')
			}
			if string(name) == "a" {
				if link.lies() {
					m.facts.liars++
				}
				link = anchor{}
			}
		}
	}
}

// inlineElements are those that may stand inside a word.
var inlineElements = map[string]bool{
	"a": true, "b": true, "big": true, "em": true, "font": true, "i": true, "s": true, "small": true, "span": true, "strong": true, "sub": true,
	"sup": true, "tt": true, "u": true,
}

// skipElement passes what is between the tags of a script or a style.
func skipElement(z *html.Tokenizer) {
	for {
		if kind := z.Next(); kind == html.EndTagToken || kind == html.ErrorToken {
			return
		}
	}
}

// mark notes an element.
func (m *spamMessage) mark(tag string) {
	switch tag {
	case "img":
		m.facts.images++
	case "form":
		m.facts.forms++
	}
	m.tokens.named(tokenMark, clip(tag, longestWord))
}

// linkHost notes where a link leads, and gives the host, "" for none.
func (m *spamMessage) linkHost(link string) string {
	u, err := url.Parse(strings.TrimSpace(clip(link, 2<<10)))
	if err != nil || u.Host == "" {
		return ""
	}
	host := strings.Trim(u.Hostname(), ".")
	m.hostTokens(host)
	return host
}

// hostTokens makes tokens of the host of a link.
func (m *spamMessage) hostTokens(host string) {
	if _, err := netip.ParseAddr(host); err == nil {
		m.facts.numberLinks++
	}
	m.tokens.named(tokenHost, host)
	if org := organisation(host); org != host {
		m.tokens.named(tokenHost, org)
	}
}

// textLinks looks for links in a plain text, which is folded.
func (m *spamMessage) textLinks(text []byte) {
	for range spamLinks {
		at := bytes.Index(text, []byte("://"))
		if at < 0 {
			return
		}
		text = text[at+3:]
		end := bytes.IndexAny(text, "/?#:<>\"') \t\r\n")
		if end < 0 {
			end = len(text)
		}
		if host := bytes.Trim(text[:end], ".,;"); len(host) > 0 && len(host) <= 255 {
			m.hostTokens(string(host))
		}
	}
}

// anchor is a link whose text is being read.
type anchor struct {
	open bool
	host string
	text []byte
}

// take takes a piece of the text, of which a host's name is short.
func (a *anchor) take(piece []byte) {
	if a.open && len(a.text) < 256 {
		a.text = append(a.text, piece[:min(len(piece), 256)]...)
	}
}

// lies says whether the text of a link names a host of another organisation than the one it leads to.
func (a *anchor) lies() bool {
	text := strings.TrimSpace(string(a.text))
	_, shown, ok := strings.Cut(text, "://")
	if !ok {
		if shown = text; !strings.HasPrefix(text, "www.") {
			return false
		}
	}
	if end := strings.IndexAny(shown, "/?#: \t\r\n"); end >= 0 {
		shown = shown[:end]
	}
	return a.open && strings.Contains(shown, ".") && organisation(shown) != organisation(a.host)
}
