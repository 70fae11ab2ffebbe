package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// What is looked at on every page: whether it fits, whether axe-core finds nothing, and whether the keyboard reaches everything.

// screen is a width that pages are looked at, in CSS pixels.
type screen struct {
	width, height int64
	phone         bool
	axe           bool // axe-core looks, too
}

func screens() []screen {
	return []screen{{320, 640, true, false}, {390, 844, true, true}, {2000, 1100, false, false}, {1280, 900, false, true}}
}

// look looks at the page as it stands, and prints a line about it.
func (t *tab) look(page string) {
	if t.err != nil {
		return
	}
	name := t.name + "-" + page
	t.trial.check("looks: "+name, func() error {
		var all error
		for _, s := range screens() {
			t.size(s.width, s.height, s.phone)
			for _, scheme := range []string{"light", "dark"} {
				t.colours(scheme)
				all = errors.Join(all, t.lookOnce(fmt.Sprintf("%s-%d-%s", name, s.width, scheme), &s))
			}
		}
		t.colours("light")
		return errors.Join(all, t.keyboard(), t.done())
	})
}

// lookOnce looks at one width in one set of colours.
func (t *tab) lookOnce(name string, s *screen) error {
	var all error
	var wide []string
	t.eval(tooWide, &wide)
	if len(wide) > 0 {
		all = fmt.Errorf("%s: is too wide: %s", name, strings.Join(wide, "; "))
	}
	if s.axe {
		var violations []string
		t.eval(`window.axe ? 1 : (()=>{`+t.trial.axe+`; return 1})()`, nil)
		t.eval(axeRun, &violations)
		if len(violations) > 0 {
			all = errors.Join(all, fmt.Errorf("%s: axe-core: %s", name, strings.Join(violations, "\n")))
		}
	}
	if t.trial.shots != "" {
		if err := os.WriteFile(filepath.Join(t.trial.shots, name+".png"), t.picture(), 0o600); err != nil {
			all = errors.Join(all, err)
		}
	}
	return all
}

// axeRun lets axe-core look by all its rules but those that are experiments, and those of WCAG's third level.
const axeRun = `axe.run(document, {resultTypes: ["violations"], rules: {"target-size": {enabled: true}},
	runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
	.then(r => r.violations.map(v => v.id + ": " + v.help + ": " + v.nodes.map(n => n.html + " " + n.failureSummary).join(" | ")))`

// tooWide lists what makes the page scroll sideways, and what has to be scrolled sideways in it. What is preformatted may.
const tooWide = `(() => {
	const name = e => e.localName + (e.id ? "#" + e.id : "") + (e.className ? "." + e.className : ""), wide = [];
	const at = document.scrollingElement;
	if (at.scrollWidth > at.clientWidth) {
		wide.push("the page, " + at.scrollWidth);
		for (const e of document.querySelectorAll("main *, header *"))
			if (e.checkVisibility() && e.getBoundingClientRect().right > at.clientWidth + 1) wide.push(name(e));
	}
	for (const e of document.querySelectorAll("main *"))
		if (e.localName != "pre" && e.checkVisibility() && ["auto", "scroll"].includes(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth)
			wide.push(name(e) + " scrolls");
	return wide.slice(0, 6);
})()`

// stops marks all that Tab should reach, and says how much that is.
const stops = `(() => {
	let n = 0;
	for (const e of document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']"))
		if (e.type != "hidden" && !e.disabled && e.checkVisibility({visibilityProperty: true}) && !(e.closest("details:not([open])") && e.localName != "summary")) {
			e.dataset.stop = "1";
			n++;
		}
	document.activeElement.blur();
	return n;
})()`

// stop tells what has the focus: its name, whether it is seen there, whether it was to be reached. Then it is not to be any more.
const stop = `(() => {
	const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
	if (e == document.body) return {Name: ""};
	const ring = style.outlineStyle != "none" && parseFloat(style.outlineWidth) >= 2;
	const seen = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
	const first = e.dataset.stop == "1";
	if (first) e.dataset.stop = "2";
	return {Name: e.localName + " " + (e.name || e.innerText || e.id).slice(0, 40), Seen: ring && seen, First: first, Again: e.dataset.stop == "2"};
})()`

// keyboard goes through the page by Tab, and wants to see where it is at each stop, and to come by all of them.
func (t *tab) keyboard() error {
	var n int
	t.eval(`scrollTo({top: 0, behavior: "instant"})`, nil)
	t.eval(stops, &n)
	reached := 0
	for range n*3 + 20 { // a date has several stops of its own
		var at struct {
			Name               string
			Seen, First, Again bool
		}
		t.run("Tab", chromedp.KeyEvent(kb.Tab))
		t.eval(stop, &at)
		if t.err != nil {
			return nil // done tells it
		}
		if at.Name != "" && !at.Seen {
			return fmt.Errorf("with the keyboard one does not see that %q has the focus", at.Name)
		}
		if at.First {
			reached++
		}
		if reached == n {
			return nil
		}
	}
	var left []string
	t.eval(`[...document.querySelectorAll("[data-stop='1']")].map(e => e.outerHTML.slice(0, 120))`, &left)
	return fmt.Errorf("Tab does not reach %s", strings.Join(left, "; "))
}

// skips tries the link that leads past the navigation.
func (t *tab) skips() error {
	t.eval(`document.activeElement.blur()`, nil)
	var at string
	var seen bool
	t.run("Tab", chromedp.KeyEvent(kb.Tab))
	t.eval(`document.activeElement.className`, &at)
	t.eval(`document.activeElement.getBoundingClientRect().left >= 0`, &seen)
	if t.err == nil && (at != "skip" || !seen) {
		return fmt.Errorf("the first stop is %q, seen: %v", at, seen)
	}
	t.run("Enter", chromedp.KeyEvent(kb.Enter))
	t.eval(`document.activeElement.id`, &at)
	if t.err == nil && at != "main" {
		return fmt.Errorf("it leads to %q", at)
	}
	return t.done()
}

// paint is what one page costs.
type paint struct {
	page  string
	bytes float64
	first float64 // ms
}

// The budget of a page: bytes in all, and milliseconds to the first paint on this machine; a busy one gets several tries.
const (
	maxBytes = 100 << 10
	maxPaint = 200
	maxTries = 15
)

// weigh opens a page and notes what it costs.
func (t *tab) weigh(path string) {
	p := paint{page: t.name + " " + path}
	for range maxTries {
		t.mu.Lock()
		t.bytes = 0
		t.mu.Unlock()
		t.open(path)
		var first float64
		t.eval(`new Promise(done => {
			const look = () => { const e = performance.getEntriesByName("first-contentful-paint")[0]; e ? done(e.startTime) : setTimeout(look, 10); };
			look();
		})`, &first)
		t.mu.Lock()
		p.bytes = t.bytes
		t.mu.Unlock()
		if p.first == 0 || first < p.first {
			p.first = first
		}
		if t.err != nil || p.first < maxPaint {
			break
		}
	}
	t.trial.paints = append(t.trial.paints, p)
}

// printPaints prints the table of what the pages cost, and judges it.
func (t *trial) printPaints() {
	heavy, slow := []string{}, []string{}
	fmt.Printf("   %-42s %9s %12s\n", "page", "KB in all", "first paint")
	for _, p := range t.paints {
		fmt.Printf("   %-42s %9.1f %9.0f ms\n", p.page, p.bytes/1024, p.first)
		if p.bytes > maxBytes || p.bytes == 0 {
			heavy = append(heavy, p.page)
		}
		if p.first > maxPaint || p.first == 0 {
			slow = append(slow, p.page)
		}
	}
	t.check("each page has less than 100 KB in all", func() error { return anyOf(heavy) })
	if load := busyness(); len(slow) > 0 && load > 2 {
		fmt.Printf("note: %.0f programs wait for each processor here: not painted within 200 ms is no fault of %s\n", load, strings.Join(slow, ", "))
		return
	}
	t.check("each page is painted within 200 ms", func() error { return anyOf(slow) })
}

// busyness is how many programs want each processor, within the last minutes; 0 where the system does not tell.
func busyness() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	var load float64
	if _, err := fmt.Sscan(string(text), &load); err != nil {
		return 0
	}
	return load / float64(runtime.NumCPU())
}

func anyOf(pages []string) error {
	if len(pages) == 0 {
		return nil
	}
	return errors.New("not " + strings.Join(pages, ", "))
}
