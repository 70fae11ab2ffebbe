package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// stepPatience is how long one step may take on a busy machine.
const stepPatience = 30 * time.Second

// chromium is the browser, with a window for each person.
type chromium struct {
	trial *trial
	ctx   context.Context
	ends  []context.CancelFunc
}

// startBrowser starts Chromium. It believes the certificates of both appliances, whose keys it is told: they have been verified
// against their authorities before.
func startBrowser(ctx context.Context, t *trial) (*chromium, error) {
	rules := []string{}
	for name, address := range names() {
		rules = append(rules, fmt.Sprintf("MAP %s %s", strings.TrimSuffix(name, "."), address))
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.UserDataDir(filepath.Join(t.work, "profile")),
		chromedp.Flag("ignore-certificate-errors-spki-list", t.home.pin+","+t.other.pin),
		chromedp.Flag("host-resolver-rules", strings.Join(append(rules, "MAP * ~NOTFOUND"), ", ")),
		chromedp.Flag("lang", "en-GB"), chromedp.Flag("force-color-profile", "srgb"),
		chromedp.WSURLReadTimeout(time.Minute))
	b := &chromium{trial: t}
	allocator, end := chromedp.NewExecAllocator(ctx, options...)
	b.ends = append(b.ends, end)
	b.ctx, end = chromedp.NewContext(allocator)
	b.ends = append(b.ends, end)
	if err := chromedp.Run(b.ctx); err != nil {
		return nil, fmt.Errorf("chromium: %w", err)
	}
	return b, nil
}

func (b *chromium) close() {
	for i := range b.ends {
		b.ends[len(b.ends)-1-i]()
	}
}

// tab is a window with cookies of its own. Its steps do nothing after one has failed; err tells why.
type tab struct {
	trial *trial
	ctx   context.Context
	end   context.CancelFunc
	base  string
	name  string // what pictures are called
	// Pages run no script: it is off whenever one is loaded.
	scriptless bool
	status     int64
	err        error

	mu     sync.Mutex
	bytes  float64  // that were transferred since the last clear
	faults []string // what the browser complained about
}

// tab opens a window on an appliance's page, for a browser that wants a language.
func (b *chromium) tab(a *appliance, language string) *tab {
	t := &tab{trial: b.trial, base: a.base, name: language}
	person, window, err := b.window()
	t.ctx, t.end = chromedp.NewContext(b.ctx, chromedp.WithTargetID(window))
	if t.err = err; err == nil {
		t.err = chromedp.Run(t.ctx) // the window itself must outlive the step
	}
	chromedp.ListenTarget(t.ctx, t.hear)
	t.run("open a window", network.Enable(), log.Enable(), network.SetCacheDisabled(true),
		network.SetExtraHTTPHeaders(network.Headers{"Accept-Language": language}),
		browser.SetDownloadBehavior(browser.SetDownloadBehaviorBehaviorAllow).WithDownloadPath(b.trial.work).
			WithBrowserContextID(person))
	t.size(1280, 900, false)
	return t
}

// window opens one for a person whom the browser does not know yet.
func (b *chromium) window() (person cdp.BrowserContextID, window target.ID, err error) {
	ctx := cdp.WithExecutor(b.ctx, chromedp.FromContext(b.ctx).Browser)
	if person, err = target.CreateBrowserContext().Do(ctx); err != nil {
		return "", "", err
	}
	window, err = target.CreateTarget("about:blank").WithBrowserContextID(person).WithNewWindow(true).Do(ctx)
	return person, window, err
}

// hear takes note of what the browser does.
func (t *tab) hear(event any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		at, err := url.Parse(e.Request.URL)
		if base, _ := url.Parse(t.base); err != nil || at.Scheme != "data" && (at.Scheme != "https" || at.Host != base.Host) {
			t.faults = append(t.faults, "asks another host: "+e.Request.URL)
		}
	case *network.EventLoadingFinished:
		t.bytes += e.EncodedDataLength
	case *runtime.EventExceptionThrown:
		t.faults = append(t.faults, "script: "+e.ExceptionDetails.Error())
	case *log.EventEntryAdded: // a refused form is no fault of the page
		if e.Entry.Level == log.LevelError && e.Entry.Source != log.SourceNetwork {
			t.faults = append(t.faults, string(e.Entry.Source)+": "+e.Entry.Text)
		}
	}
}

// done gives what went wrong in the steps so far, and begins anew.
func (t *tab) done() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.err
	for _, fault := range t.faults {
		err = errors.Join(err, errors.New(fault))
	}
	t.err, t.faults = nil, nil
	return err
}

// run does steps, and says what was tried where they fail.
func (t *tab) run(what string, actions ...chromedp.Action) {
	if t.err != nil {
		return
	}
	if t.scriptless { // our own looks at the page need it
		actions = append(append([]chromedp.Action{emulation.SetScriptExecutionDisabled(false)}, actions...), emulation.SetScriptExecutionDisabled(true))
	}
	ctx, cancel := context.WithTimeout(t.ctx, stepPatience)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		t.err = fmt.Errorf("%s: %w", what, err)
	}
}

// leads does steps that lead to another page, and waits for it.
func (t *tab) leads(what string, actions ...chromedp.Action) {
	if t.err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(t.ctx, stepPatience)
	defer cancel()
	answer, err := chromedp.RunResponse(ctx, actions...)
	switch {
	case err != nil:
		t.err = fmt.Errorf("%s: %w", what, err)
	case answer != nil:
		t.status = answer.Status
	}
}

// open goes to a path.
func (t *tab) open(path string) { t.leads("open "+path, chromedp.Navigate(t.base+path)) }

// fill types into the fields of a form: name, text, name, text. A text of "on" ticks a box.
func (t *tab) fill(form string, fields ...string) {
	for i := 0; i+1 < len(fields); i += 2 {
		field := fmt.Sprintf(`form[action=%q] [name=%q]`, form, fields[i])
		var kind string
		t.run("find "+field, chromedp.JavascriptAttribute(field, "type", &kind, chromedp.ByQuery))
		switch kind {
		case "date", "select-one":
			t.run("fill "+field, chromedp.SetValue(field, fields[i+1], chromedp.ByQuery))
		case "checkbox":
			t.run("tick "+field, chromedp.Click(fmt.Sprintf(`%s[value=%q]`, field, fields[i+1]), chromedp.ByQuery))
		default:
			t.run("type into "+field, chromedp.Focus(field, chromedp.ByQuery), chromedp.Evaluate(`document.activeElement.value = ""`, nil), input.InsertText(fields[i+1]))
		}
	}
}

// send fills in a form and clicks on its button.
func (t *tab) send(form string, fields ...string) {
	t.fill(form, fields...)
	t.click(fmt.Sprintf(`form[action=%q] button:not([type=button])`, form))
}

// click clicks on what leads to another page; without script the keyboard does it.
func (t *tab) click(selector string) {
	if t.scriptless {
		t.run("go to "+selector, chromedp.Focus(selector, chromedp.ByQuery, chromedp.NodeVisible))
		t.leads("Enter on "+selector, chromedp.KeyEvent(kb.Enter))
		return
	}
	t.leads("click on "+selector, chromedp.Click(selector, chromedp.ByQuery, chromedp.NodeVisible))
}

// follow clicks on a link by where it leads.
func (t *tab) follow(path string) { t.click(fmt.Sprintf(`a[href=%q]`, path)) }

// eval gives what an expression is in the page.
func (t *tab) eval(expression string, into any) {
	t.run("look at the page", chromedp.Evaluate(expression, into, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
}

// text gives the words of an element, "" where there is none.
func (t *tab) text(selector string) (text string) {
	t.eval(fmt.Sprintf(`(document.querySelector(%q)||{innerText:""}).innerText.trim()`, selector), &text)
	return text
}

// says wants a status, and words on the page.
func (t *tab) says(status int64, words ...string) {
	text := t.text("body")
	if t.err == nil && t.status != status {
		t.err = fmt.Errorf("status %d, not %d:\n%s", t.status, status, text)
	}
	for _, w := range words {
		if t.err == nil && !strings.Contains(text, w) {
			t.err = fmt.Errorf("the page does not say %q:\n%s", w, text)
		}
	}
}

// at wants the path of the page.
func (t *tab) at(path string) {
	var where string
	t.eval(`location.pathname`, &where)
	if t.err == nil && where != path {
		t.err = fmt.Errorf("led to %s, not %s", where, path)
	}
}

// size sets that of the window.
func (t *tab) size(width, height int64, phone bool) {
	t.run("size", emulation.SetDeviceMetricsOverride(width, height, 1, phone))
}

// colours sets what the system prefers: light or dark.
func (t *tab) colours(scheme string) {
	t.run("colours", emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
}

// picture gives one of the whole page.
func (t *tab) picture() (png []byte) {
	t.run("picture", chromedp.FullScreenshot(&png, 100))
	return png
}
