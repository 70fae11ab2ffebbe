package main

import (
	"errors"
	"fmt"
	"strings"
)

// withoutScript is the main flow in a browser that runs no script, on the provider's appliance; in German.
func (t *trial) withoutScript(b *chromium) {
	m := b.tab(t.other, "de")
	defer m.end()
	m.name, m.scriptless = "de-noscript", true
	m.run("switch script off")
	t.check("without script: the first visit", func() error {
		m.open("/?code=" + t.other.code)
		m.says(200, "Zeitzone")
		var zone string
		m.eval(`document.getElementById("zone").value`, &zone)
		if m.err == nil && zone != "" {
			m.err = errors.New("a script has run")
		}
		m.send("/welcome", "name", "Maria", "local", "maria", "password", mariasPassword, "again", mariasPassword, "zone", "Europe/Berlin")
		m.at("/")
		m.says(200, "maria@provider.example")
		return m.done()
	})
	m.look("home")
	t.check("without script: a person, an app password, out of office", func() error {
		m.follow("/people")
		m.send("/people", "address", "bob", "password", bobsPassword)
		m.says(200, "bob@provider.example")
		m.follow("/account")
		m.send("/account/app", "app", "Telefon")
		secret := m.text("#secret")
		m.open("/mine/away")
		m.send("/mine/away", "text", "Bin bald wieder da.")
		m.says(200, "Antworten")
		m.send("/mine/away/off")
		m.says(200)
		return errors.Join(m.done(), t.other.imapLogin("maria", secret), t.other.imapLogin("bob", bobsPassword))
	})
	t.check("without script: a device, the domain, logging out", func() error {
		m.follow("/connect")
		m.send("/connect", "device", "Telefon")
		text, err := m.readCode("svg.code")
		if err != nil {
			return err
		}
		if !strings.HasPrefix(text, t.other.base+"/device/") {
			return fmt.Errorf("the code holds %q", text)
		}
		m.open(strings.TrimPrefix(text, t.other.base))
		m.says(200, "maria@provider.example")
		m.open("/domain")
		m.says(200)
		m.click("form.leave button")
		m.at("/login")
		return m.done()
	})
	t.check("mail for the move", func() error {
		for _, subject := range []string{"one", "two", "three"} {
			if err := t.other.send("maria@provider.example", mariasPassword, "bob@provider.example", subject); err != nil {
				return err
			}
		}
		return nil
	})
}

// health is the pages that tell how the server is. Two messages wait.
func (t *trial) health(b *chromium) {
	m := b.login(t.home, "en", "maria", mariasPassword)
	defer m.end()
	t.check("health: mail, the machine, and a failed login", func() error {
		m.follow("/health")
		m.says(200, "Mail a day", "Unwanted mail", "The server", "Version")
		m.follow("/health/mail")
		return errors.Join(m.done(), eventually(m.ctx, func() error { // it is written down a moment later
			m.open("/health/mail")
			m.says(200, "uncle@outside.example", "It waits; the server tries again by itself.")
			return m.done()
		}))
	})
	t.check("health: where is my mail?", func() error {
		m.send("/health/mail", "q", "uncle@")
		m.says(200, "uncle@outside.example")
		m.send("/health/mail", "q", "nobody-at-all")
		m.says(200, "Nothing was found.")
		return m.done()
	})
	t.check("health: what waits is tried again, and given up", func() error {
		m.follow("/health/queue")
		m.says(200, "uncle@outside.example", "next try")
		m.click(`form[action="/health/queue/retry"]:has(input[value=""]) button`)
		m.says(200, "All that waits is being tried now.")
		return m.done()
	})
	m.look("queue")
	t.check("health: a message is given up, and its sender told", func() error {
		m.click(`a[href$="/bounce"]`)
		m.says(200, "It is not sent any more")
		return m.done()
	})
	m.look("bounce")
	t.check("health: it waits no more", func() error {
		m.click("form button.danger")
		m.says(200, "is given up, and its sender is told.", "aunt@outside.example")
		return m.done()
	})
	t.check("health: the log is searched", func() error {
		m.open("/health/log")
		m.send("/health/log", "q", "queued")
		m.says(200, "queued")
		return m.done()
	})
	m.look("health-log-found")
}

// refusals are what is said to who may not, or was too slow.
func (t *trial) refusals(b *chromium) {
	m := b.tab(t.home, "en")
	defer m.end()
	t.check("a wrong password is refused, and the address stays", func() error {
		m.open("/login")
		m.send("/login", "name", "leonie", "password", "wrong")
		m.says(422, "The address or the password is not right")
		return m.done()
	})
	m.look("login-mistake")
	t.check("who is not logged in is led to the login, and then to the page", func() error {
		m.open("/account")
		m.at("/login")
		m.send("/login", "name", "leonie", "password", leasPassword)
		m.at("/account")
		return m.done()
	})
	t.check("who is not the owner gets 403", func() error {
		m.open("/people")
		m.says(403, "This is not yours to do")
		return m.done()
	})
	m.look("forbidden")
	t.check("a page that does not exist", func() error {
		m.open("/nothing")
		m.says(404, "This page does not exist")
		return m.done()
	})
	m.look("missing")
	t.check("a form of an old login is refused", func() error {
		m.open("/account")
		m.eval(`document.querySelectorAll("[name=token]").forEach(e => e.value = "0".repeat(32)), 1`, nil)
		m.send("/account/name", "name", "Leonie")
		m.says(403, "The form is too old")
		return m.done()
	})
	m.look("stale")
	t.check("logging out", func() error {
		m.open("/")
		m.click("form.leave button")
		m.at("/login")
		m.open("/account")
		m.at("/login")
		return m.done()
	})
}

// lookAround looks at all pages in both languages, and weighs them.
func (t *trial) lookAround(b *chromium) {
	for _, language := range []string{"en", "de"} {
		l := b.tab(t.home, language)
		l.weigh("/login")
		l.look("login")
		l.end()
		m := b.login(t.home, language, "maria", mariasPassword)
		for _, path := range pages() {
			m.weigh(path)
			m.look(strings.ReplaceAll(strings.Trim(path, "/"), "/", "-"))
		}
		if err := m.done(); err != nil {
			t.check("all pages in "+language, func() error { return err })
		}
		m.end()
	}
}

// pages are those that the owner opens from the navigation.
func pages() []string {
	return []string{"/", "/people", "/people/bob@" + domainName, "/people/leonie@" + domainName + "/remove", "/addresses", "/connect", "/account", "/account/second",
		"/mine/away", "/mine/forward", "/mine/movein", "/mine/mail", "/sessions", "/domain", "/health", "/health/mail", "/health/queue", "/health/log"}
}
