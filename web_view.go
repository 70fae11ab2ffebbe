package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/language"
)

// What the pages look like: templates, style sheet, script and texts, all from the program itself.

//go:embed web
var webFiles embed.FS

// webWords is the texts in one language.
type webWords struct {
	tag   language.Tag
	texts map[string]string
}

// readWebWords reads the texts, English first.
func readWebWords() ([]*webWords, error) {
	files, err := fs.Glob(webFiles, "web/*.toml")
	if err != nil {
		return nil, err
	}
	var all []*webWords
	for _, file := range files {
		text, err := webFiles.ReadFile(file)
		if err != nil {
			return nil, err
		}
		sections := map[string]map[string]string{}
		if err := decodeTOML(string(text), file, &sections); err != nil {
			return nil, err
		}
		words := &webWords{language.Make(strings.TrimSuffix(path.Base(file), ".toml")), map[string]string{}}
		for section, texts := range sections {
			for key, text := range texts {
				words.texts[section+"."+key] = text
			}
		}
		all = append(all, words)
	}
	slices.SortFunc(all, func(a, b *webWords) int { return rank(a) - rank(b) })
	return all, nil
}

// rank puts the language that is taken for all unknown ones first.
func rank(w *webWords) int {
	if w.tag == language.English {
		return 0
	}
	return 1
}

// text gives a text with its arguments put in.
func (w *webWords) text(key string, args ...any) string {
	text, ok := w.texts[key]
	if !ok {
		return "[" + key + "]" // TestWebTexts finds it
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// chooseWords gives the texts in the language that somebody has chosen, else the first that their browser asks for.
func (w *Web) chooseWords(chosen, accept string) *webWords {
	var tags []language.Tag
	for _, words := range w.words {
		if words.tag.String() == chosen {
			return words
		}
		tags = append(tags, words.tag)
	}
	_, i := language.MatchStrings(language.NewMatcher(tags), accept)
	return w.words[i]
}

// webAsset is a file that pages refer to.
type webAsset struct {
	text    []byte
	kind    string // its media type
	version string // a hash of it: a new one is another address
}

func readWebAssets() (map[string]webAsset, error) {
	assets := map[string]webAsset{}
	for _, name := range []string{"style.css", "script.js", "icon.svg"} {
		text, err := webFiles.ReadFile("web/" + name)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(text)
		assets[name] = webAsset{text, mime.TypeByExtension(path.Ext(name)), hex.EncodeToString(sum[:6])}
	}
	return assets, nil
}

// asset gives one of the files.
func (q *webRequest) asset() error {
	asset, ok := q.assets[q.r.PathValue("name")]
	if !ok {
		return errWebMissing
	}
	if q.r.URL.RawQuery == asset.version {
		q.rw.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	q.rw.Header().Set("Content-Type", asset.kind)
	_, _ = q.rw.Write(asset.text) // the browser's loss
	return nil
}

// readWebPages reads the templates of all pages, each with the frame around it.
func readWebPages() (map[string]*template.Template, error) {
	files, err := fs.Glob(webFiles, "web/*.html")
	if err != nil {
		return nil, err
	}
	const frame, parts = "web/frame.html", "web/parts.html"
	pages := map[string]*template.Template{}
	for _, file := range files {
		if file == frame || file == parts {
			continue
		}
		page, err := template.ParseFS(webFiles, frame, parts, file)
		if err != nil {
			return nil, err
		}
		pages[strings.TrimSuffix(path.Base(file), ".html")] = page
	}
	return pages, nil
}

// webLink is a line of the navigation.
type webLink struct {
	Path, Key string
	who       webAccess
}

// webNav is the navigation, in its order.
func webNav() []webLink {
	return []webLink{
		{"/", "nav.home", forPerson},
		{"/people", "nav.people", forOwner},
		{"/connect", "nav.connect", forPerson},
		{"/account", "nav.account", forPerson},
		{"/domain", "nav.domain", forOwner},
		{"/health", "nav.health", forOwner},
	}
}

// webView is what a template sees.
type webView struct {
	q      *webRequest
	name   string
	Data   any
	Notice *webNotice
}

// show answers with a page: the template of this name, and what it is about.
func (q *webRequest) show(name string, data any) error {
	page := q.pages[name]
	if page == nil {
		return fmt.Errorf("there is no page %q", name)
	}
	view := &webView{q: q, name: name, Data: data}
	if q.session != nil {
		view.Notice = q.sessions.told(q.session, q.r.URL)
	}
	var out bytes.Buffer
	if err := page.ExecuteTemplate(&out, "frame", view); err != nil {
		return err
	}
	q.rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	q.rw.WriteHeader(q.status)
	_, _ = q.rw.Write(out.Bytes()) // the browser's loss
	return nil
}

// field gives what a person has typed into a field, without the space around it. Passwords are taken as they are.
func (q *webRequest) field(name string) string { return strings.TrimSpace(q.r.PostForm.Get(name)) }

// T gives a text in the language of whoever reads.
func (v *webView) T(key string, args ...any) string { return v.q.words.text(key, args...) }

// N gives one of two texts: KEY.one for 1, KEY.many with the number for all else.
func (v *webView) N(key string, n int) string {
	if n == 1 {
		return v.T(key + "_one")
	}
	return v.T(key+"_many", n)
}

// Title is the heading of the page.
func (v *webView) Title() string {
	if name, ok := v.Data.(string); ok && v.name == "refusal" {
		return v.T(name + ".title")
	}
	if about, ok := v.Data.(interface{ Heading() string }); ok && v.q.words.texts[v.name+".title"] == "" {
		return about.Heading()
	}
	return v.T(v.name + ".title")
}

// Lang is the language of the page, for its html element.
func (v *webView) Lang() string { return v.q.words.tag.String() }

// Host is the name of this machine.
func (v *webView) Host() string { return v.q.name() }

// Person is the address of who is logged in, "" for nobody.
func (v *webView) Person() string { return v.q.user.Address }

// Owner says whether the owner is logged in.
func (v *webView) Owner() bool { return v.q.owns() }

// Nav gives the navigation of whoever reads.
func (v *webView) Nav() []webLink {
	return slices.DeleteFunc(webNav(), func(l webLink) bool {
		return l.who == forPerson && v.q.user.Address == "" || l.who == forOwner && !v.q.owns()
	})
}

// Here says whether a line of the navigation is where the page belongs.
func (v *webView) Here(l webLink) bool {
	at := v.q.r.URL.Path
	return at == l.Path || l.Path != "/" && strings.HasPrefix(at, l.Path+"/")
}

// Account is the person who reads, as the account book has them.
func (v *webView) Account() *User { return &v.q.user }

// Token is what every form carries.
func (v *webView) Token() string { return v.q.token() }

// Asset is the address of the style sheet and the like.
func (v *webView) Asset(name string) string {
	return "/static/" + name + "?" + v.q.assets[name].version
}

// Mistake is what was wrong with the form that was sent, "" for nothing.
func (v *webView) Mistake() string {
	if v.q.mistake == nil {
		return ""
	}
	return v.T(v.q.mistake.key, v.q.mistake.args...)
}

// Detail is what an order says to that, in English; "" for nothing.
func (v *webView) Detail() string {
	if v.q.mistake == nil {
		return ""
	}
	return v.q.mistake.told
}

// Told is the sentence about what was just done.
func (v *webView) Told() string {
	told := v.T(v.Notice.Key, v.Notice.Args...)
	if v.Notice.Domain != "" {
		told += " " + v.T("people.new_domain", v.Notice.Domain)
	}
	return told
}

// Value is what was typed into a field of a form that is shown again.
func (v *webView) Value(name string) string {
	if v.q.mistake == nil {
		return ""
	}
	return v.q.field(name)
}

// Picked says whether a box of a form that is shown again was ticked.
func (v *webView) Picked(name, value string) bool {
	return v.q.mistake != nil && slices.Contains(v.q.r.PostForm[name], value)
}

// webPart is what a part of a page that several pages have is about.
type webPart struct {
	View *webView
	Of   any
	Path string // where its forms go
}

// With gives a part of the page what it needs.
func (v *webView) With(of any, path string) webPart { return webPart{v, of, path} }

// Int makes a number one that N takes.
func (v *webView) Int(n int64) int { return int(n) }

// Param is a parameter of the address of the page.
func (v *webView) Param(name string) string { return v.q.r.URL.Query().Get(name) }

// Never says that there is no time.
func (v *webView) Never(t time.Time) bool { return t.IsZero() }

// Day writes a day as people do.
func (v *webView) Day(t time.Time) string { return t.In(v.q.Zone.Location()).Format(v.T("format.day")) }

// Time writes a time as people do.
func (v *webView) Time(t time.Time) string {
	return t.In(v.q.Zone.Location()).Format(v.T("format.time"))
}
