package main

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// webMaxPage is the bytes that a page may have with all that it fetches.
const webMaxPage = 100 << 10

// TestWebPagesAreSound reads all pages, in all languages, as a browser with a screen reader does.
func TestWebPagesAreSound(t *testing.T) {
	p := startPage(t)
	mustRun(t, p.data, "user", "app-password", "add", "bob", "phone")
	mustRun(t, p.data, "alias", "add", "family", "bob", "maria")
	assets := 0
	for _, name := range []string{"style.css", "script.js", "icon.svg"} {
		text, err := os.ReadFile("web/" + name)
		if err != nil {
			t.Fatal(err)
		}
		assets += len(text)
	}
	nobody, maria := p.browser(t), p.loggedIn(t, "maria", mariasPassword)
	for _, language := range []string{"en", "de"} {
		for _, b := range []*browser{nobody, maria} {
			b.header.Set("Accept-Language", language)
		}
		for _, route := range webRoutes() {
			method, path := concrete(route.pattern)
			if method != "GET" || route.raw {
				continue
			}
			b := maria
			if route.who == forAnyone {
				b = nobody
			}
			b.get(path)
			name := language + " " + path
			if len(b.body)+assets > webMaxPage {
				t.Errorf("%s: %d bytes with what it fetches", name, len(b.body)+assets)
			}
			if strings.Contains(b.body, "%!") || regexp.MustCompile(`\[[a-z]+\.[a-z0-9_]+\]`).MatchString(b.body) {
				t.Errorf("%s: a text is wrong:\n%s", name, b.body)
			}
			if !strings.Contains(b.body, `<html lang="`+language+`">`) {
				t.Errorf("%s: another language", name)
			}
			root, err := html.Parse(strings.NewReader(b.body))
			if err != nil {
				t.Fatal(err)
			}
			checkSound(t, name, root)
		}
	}
}

// TestWebLinkedPagesAreSound does the same for the pages that only a link leads to.
func TestWebLinkedPagesAreSound(t *testing.T) {
	p, printed := firstPage(t)
	b := p.browser(t).elsewhere()
	b.get(printed)
	b.says(200)
	link := regexp.MustCompile(`/reset\?code=\S+`).FindString(mustRun(t, p.data, "user", "reset-link", "maria"))
	pages := map[string]string{"the first visit": b.body}
	b.get(link)
	b.says(200)
	pages["a new password"] = b.body
	b.post("/reset", "code", strings.TrimPrefix(link, "/reset?code="), "password", "new password", "again", "new password")
	b.says(200)
	pages["the password is set"] = b.body
	for name, body := range pages {
		root, err := html.Parse(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		checkSound(t, name, root)
	}
}

// attributesOf gives the attributes of an element.
func attributesOf(n *html.Node) map[string]string {
	all := map[string]string{}
	for _, a := range n.Attr {
		all[a.Key] = a.Val
	}
	return all
}

// checkSound holds a page to what the rules for content and for accessible pages ask for.
func checkSound(t *testing.T, page string, root *html.Node) {
	t.Helper()
	ids, labels, described := map[string]int{}, map[string]bool{}, []string{}
	var fields []*html.Node
	headings := map[string]int{}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		a := attributesOf(n)
		if id, ok := a["id"]; ok {
			ids[id]++
		}
		for _, key := range []string{"aria-describedby", "list"} {
			if a[key] != "" {
				described = append(described, a[key])
			}
		}
		for key, value := range a {
			if key == "style" || strings.HasPrefix(key, "on") {
				t.Errorf("%s: <%s %s=%q> is not allowed by the policy", page, n.Data, key, value)
			}
			if (key == "src" || key == "href" || key == "action") && !strings.HasPrefix(value, "/") && !strings.HasPrefix(value, "#") {
				t.Errorf("%s: <%s %s=%q> leads to another place", page, n.Data, key, value)
			}
		}
		switch n.Data {
		case "label":
			labels[a["for"]] = true
			labels[""] = true
		case "input", "select", "textarea":
			if a["type"] != "hidden" {
				fields = append(fields, n)
			}
		case "button", "a", "summary", "th", "h1", "h2", "h3":
			headings[n.Data]++
			if strings.TrimSpace(textOf(n)) == "" && a["aria-label"] == "" {
				t.Errorf("%s: a <%s> without words", page, n.Data)
			}
		case "style", "iframe":
			t.Errorf("%s: <%s>", page, n.Data)
		case "script":
			if a["src"] == "" {
				t.Errorf("%s: a script in the page", page)
			}
		case "svg":
			if a["aria-hidden"] != "true" && (a["role"] != "img" || a["aria-label"] == "") {
				t.Errorf("%s: a picture without words", page)
			}
		case "form":
			if a["method"] == "post" && !hasToken(n) {
				t.Errorf("%s: the form for %s has no token", page, a["action"])
			}
		}
	}
	if headings["h1"] != 1 {
		t.Errorf("%s: %d headings of the first rank", page, headings["h1"])
	}
	for id, n := range ids {
		if n > 1 {
			t.Errorf("%s: %d elements with the id %q", page, n, id)
		}
	}
	for _, list := range described {
		for _, id := range strings.Fields(list) {
			if ids[id] == 0 {
				t.Errorf("%s: there is no element %q", page, id)
			}
		}
	}
	for _, field := range fields {
		a := attributesOf(field)
		if !labels[a["id"]] && field.Parent.Data != "label" || a["id"] == "" && field.Parent.Data != "label" {
			t.Errorf("%s: the field %q has no label", page, a["name"])
		}
	}
}

// hasToken says whether a form carries the token.
func hasToken(form *html.Node) bool {
	for n := range form.Descendants() {
		if n.Type == html.ElementNode && n.Data == "input" && attributesOf(n)["name"] == webTokenField {
			return true
		}
	}
	return false
}

// textOf gives the words of an element.
func textOf(n *html.Node) string {
	var out strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			out.WriteString(c.Data)
		}
	}
	return out.String()
}

// TestWebContrast holds the colours to WCAG 2.2 §1.4.3 and §1.4.11, in light and in dark.
func TestWebContrast(t *testing.T) {
	text, err := os.ReadFile("web/style.css")
	if err != nil {
		t.Fatal(err)
	}
	sheets := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(string(text), -1)
	if len(sheets) != 2 {
		t.Fatalf("%d sets of colours", len(sheets))
	}
	for i, sheet := range sheets {
		colours := map[string]string{}
		for _, found := range regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6});`).FindAllStringSubmatch(sheet[1], -1) {
			colours[found[1]] = found[2]
		}
		for _, test := range []struct {
			on, under string
			least     float64
		}{
			{"text", "page", 4.5}, {"text", "card", 4.5}, {"soft", "page", 4.5}, {"soft", "card", 4.5}, {"main", "page", 4.5}, {"main", "card", 4.5},
			{"on-main", "main", 4.5}, {"on-good", "good", 4.5}, {"on-good", "card", 4.5}, {"on-bad", "bad", 4.5}, {"on-bad", "card", 4.5},
			{"warn", "card", 4.5}, {"main", "tint", 4.5}, {"soft", "tint", 4.5}, {"field", "card", 3}, {"bar", "bar-back", 3}, {"bar", "card", 3}, {"second", "card", 3},
		} {
			if got := contrast(t, colours[test.on], colours[test.under]); got < test.least {
				t.Errorf("set %d: %s on %s has a contrast of %.2f, not %.1f", i, test.on, test.under, got, test.least)
			}
		}
	}
}

// contrast is that of two colours, by WCAG 2.2.
func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	light := []float64{luminance(t, a), luminance(t, b)}
	slices.Sort(light)
	return (light[1] + 0.05) / (light[0] + 0.05)
}

func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	n, err := strconv.ParseUint(strings.TrimPrefix(colour, "#"), 16, 32)
	if err != nil {
		t.Fatal(fmt.Errorf("%q is no colour: %w", colour, err))
	}
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		c := float64(n>>(16-8*i)&0xff) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}
