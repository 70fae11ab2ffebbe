package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	_ "image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
	"github.com/pquerna/otp/totp"
)

// The people of the trial, and their passwords.
const (
	domainName     = "example.org"
	mariasPassword = "seven green kettles"
	bobsPassword   = "nine slow trains"
	leasPassword   = "a new chosen word"
)

// firstVisit is that of the owner, with the code that the start has printed.
func (t *trial) firstVisit(b *chromium) {
	m := b.tab(t.home, "en")
	defer m.end()
	t.check("before the first visit nobody gets in without the code", func() error {
		m.open("/")
		m.at("/login")
		m.open("/welcome")
		m.says(403, "This link does not work any more")
		m.open("/?code=wrong")
		m.says(403, "This link does not work any more")
		return m.done()
	})
	t.check("the printed address leads to the first visit", func() error {
		m.open("/?code=" + t.home.code)
		m.at("/welcome")
		m.says(200, "Welcome to your mail server")
		var zone string
		m.eval(`document.getElementById("zone").value`, &zone)
		if m.err == nil && zone == "" {
			m.err = errors.New("the time zone is not filled in")
		}
		return m.done()
	})
	t.check("the skip link leads past the navigation", m.skips)
	m.look("welcome")
	t.check("a mistake is told, and what was typed stays", func() error {
		m.send("/welcome", "name", "Maria Rossi", "local", "maria", "domain", domainName, "password", mariasPassword, "again", "something else")
		m.says(422, "The two passwords are not the same")
		var name string
		m.eval(`document.getElementById("name").value`, &name)
		if m.err == nil && name != "Maria Rossi" {
			m.err = fmt.Errorf("the name is %q now", name)
		}
		return m.done()
	})
	m.look("welcome-mistake")
	t.check("the first visit", func() error {
		m.send("/welcome", "password", mariasPassword, "again", mariasPassword)
		m.at("/")
		m.says(200, "Welcome! You are maria@"+domainName+" now.")
		return m.done()
	})
	t.check("the three next steps, with their state", func() error {
		m.says(200, "Add people", "Nobody but you has an account yet", "Connect a phone", "No mail program has logged in", "Open to the internet")
		return m.done()
	})
	m.look("home-welcome")
	t.check("the new owner's password works for IMAP", func() error { return t.home.imapLogin("maria@"+domainName, mariasPassword) })
}

// login gives a window in which somebody is logged in.
func (b *chromium) login(a *appliance, language, name, password string) *tab {
	m := b.tab(a, language)
	m.open("/login")
	m.send("/login", "name", name, "password", password)
	return m
}

// people adds two of them, and does what can be done for one.
func (t *trial) people(b *chromium) {
	m := b.login(t.home, "en", "maria", mariasPassword)
	defer m.end()
	t.check("adding two people", func() error {
		m.follow("/people")
		m.send("/people", "address", "bob", "name", "Bob Baker", "password", bobsPassword)
		m.says(200, "bob@"+domainName+" has an account now.")
		m.send("/people", "address", "lea", "name", "Lea")
		m.says(200, "lea@"+domainName+" has an account now, with this password:")
		return m.done()
	})
	secret := m.text("#secret")
	m.look("people-added")
	t.check("both get in by IMAP", func() error {
		return errors.Join(t.home.imapLogin("bob", bobsPassword), t.home.imapLogin("lea@"+domainName, secret))
	})
	t.check("one cannot be added twice", func() error {
		m.send("/people", "address", "bob")
		m.says(422, "has an account already")
		return m.done()
	})
	m.look("people-mistake")
	person := "/people/lea@" + domainName
	t.check("an app password for somebody else, and it works for IMAP", func() error {
		m.open(person)
		m.send(person+"/app", "app", "Lea's old tablet")
		m.says(200, "This is the password for Lea's old tablet")
		return errors.Join(m.done(), t.home.imapLogin("lea", m.text("#secret")))
	})
	t.check("name, limit and address of somebody", func() error {
		m.send(person+"/name", "name", "Lea Rossi")
		m.says(200, "has another name now")
		m.send(person+"/quota", "quota", "500M")
		m.says(200, "The limit for lea@"+domainName+" is set.")
		m.send(person+"/quota", "quota", "much")
		m.says(422, "much is no amount of storage")
		m.open(person)
		m.send(person+"/rename", "to", "leonie")
		m.says(200, "The address is leonie@"+domainName+" now.")
		return m.done()
	})
	person = "/people/leonie@" + domainName
	t.check("nobody logs in to an account that is switched off, until it is on again", func() error {
		m.send(person + "/disable")
		m.says(200, "can log in no more")
		if err := t.home.imapLogin("leonie", secret); err == nil {
			return errors.New("a disabled account logs in")
		}
		m.send(person + "/enable")
		m.says(200, "can log in again")
		return errors.Join(m.done(), t.home.imapLogin("leonie", secret))
	})
	t.check("a group, and mail for nobody", func() error {
		m.open("/addresses")
		m.send("/addresses", "address", "family", "to", "bob@"+domainName, "to", "maria@"+domainName)
		m.says(200, "family@"+domainName+" reaches")
		m.send("/addresses/rest", "to", "maria@"+domainName)
		m.says(200, "goes to maria@"+domainName+" now.")
		return m.done()
	})
	t.check("removing somebody wants the address typed", func() error {
		m.open("/people")
		m.send("/people", "address", "guest", "password", "only for a day")
		m.open("/people/guest@" + domainName + "/remove")
		m.send("/people/guest@"+domainName+"/remove", "address", "bob@"+domainName)
		m.says(422, "Type the address guest@"+domainName)
		m.send("/people/guest@"+domainName+"/remove", "address", "guest@"+domainName)
		m.says(200, "guest@"+domainName+" has no account any more.")
		return m.done()
	})
	t.reset(b, m)
}

// reset lets somebody choose a new password by a link.
func (t *trial) reset(b *chromium, m *tab) {
	person := "/people/leonie@" + domainName
	m.open(person)
	m.send(person + "/link")
	link := m.text("#secret")
	m.look("person-link")
	path := strings.TrimPrefix(link, t.home.base)
	l := b.tab(t.home, "en")
	defer l.end()
	t.check("a link for a new password works", func() error {
		l.open(path)
		l.says(200, "Choose a new password for leonie@"+domainName)
		return l.done()
	})
	l.look("reset")
	t.check("and only once", func() error {
		l.send("/reset", "password", leasPassword, "again", leasPassword)
		l.says(200, "The new password of leonie@"+domainName+" works from now on")
		return errors.Join(l.done(), t.home.imapLogin("leonie", leasPassword))
	})
	l.look("resetdone")
	t.check("a used link says so", func() error {
		l.open(path)
		l.says(403, "This link does not work any more")
		return l.done()
	})
	l.look("used")
}

// mine is what bob does for himself.
func (t *trial) mine(b *chromium) {
	m := b.login(t.home, "en", "bob", bobsPassword)
	defer m.end()
	t.check("an app password of one's own, and it works for IMAP", func() error {
		m.follow("/account")
		m.send("/account/app", "app", "phone")
		m.says(200, "This is the password for phone")
		return errors.Join(m.done(), t.home.imapLogin("bob", m.text("#secret")))
	})
	m.look("account-app")
	t.check("out of office", func() error {
		m.open("/mine/away")
		m.send("/mine/away", "text", "I am away until Monday.", "subject", "Away", "from", "2026-12-24", "until", "2026-12-20")
		m.says(422, "The last day is before the first")
		m.send("/mine/away", "until", time.Now().AddDate(1, 0, 0).Format("2006-01-02"), "from", time.Now().AddDate(0, 0, -2).Format("2006-01-02"))
		m.says(200, "The note is saved.", "Answers are being sent.")
		return m.done()
	})
	m.look("away-on")
	t.check("forwarding", func() error {
		m.open("/mine/forward")
		m.send("/mine/forward", "to", "bob")
		m.says(422, "bob is no address")
		m.send("/mine/forward", "to", "bob@outside.example")
		m.says(200, "Your mail goes on to these addresses from now on.")
		return m.done()
	})
	m.look("forward-on")
	t.check("moving in from an old account", func() error {
		m.open("/mine/movein")
		m.send("/mine/movein", "login", "bob@provider.example", "password", "wrong", "host", "provider.example")
		m.says(422)
		m.send("/mine/movein", "password", bobsPassword)
		m.says(200, "It has begun.")
		err := eventually(m.ctx, func() error {
			m.open("/mine/movein")
			m.says(200, "All is here. The password of the old account is forgotten.")
			return m.done()
		})
		m.says(200, "INBOX", "messages")
		return errors.Join(err, m.done())
	})
	m.look("movein-done")
	t.twoFactor(b, m)
	t.check("the name, the language, and German pages from then on", func() error {
		m.open("/account")
		m.send("/account/language", "language", "de")
		m.says(200, "Die Sprache")
		m.send("/account/language", "language", "en")
		m.says(200, "The language is saved.")
		return m.done()
	})
}

// twoFactor switches it on, and logs in with it.
func (t *trial) twoFactor(b *chromium, m *tab) {
	var secret, recovery string
	t.check("the second factor: the QR code is read", func() error {
		m.open("/account/second")
		text, err := m.readCode("svg.code")
		if err != nil {
			return err
		}
		secret = strings.ReplaceAll(m.text("main code"), " ", "")
		if !strings.HasPrefix(text, "otpauth://totp/") || !strings.Contains(text, "secret="+secret) {
			return fmt.Errorf("it holds %q, and the page %q", text, secret)
		}
		return m.done()
	})
	m.look("second")
	t.check("the second factor is switched on", func() error {
		m.send("/account/second", "code", "000000")
		m.says(422, "This code is not right any more")
		code, err := totp.GenerateCode(secret, time.Now())
		if err != nil {
			return err
		}
		m.send("/account/second", "code", code)
		m.says(200, "From now on the login here asks for a code")
		recovery, _, _ = strings.Cut(m.text("#secret"), "\n")
		return m.done()
	})
	m.look("account-recovery")
	l := b.login(t.home, "en", "bob", bobsPassword)
	defer l.end()
	t.check("the login asks for a code", func() error {
		l.at("/login/code")
		l.send("/login/code", "code", "000000")
		l.says(422, "This code is not right any more")
		return l.done()
	})
	l.look("code")
	t.check("a code of the phone lets in", func() error {
		code, err := totp.GenerateCode(secret, time.Now().Add(30*time.Second)) // the one of now has been used
		if err != nil {
			return err
		}
		l.send("/login/code", "code", code)
		l.at("/")
		l.says(200, "bob@"+domainName)
		return l.done()
	})
	t.check("so does one for a lost phone", func() error {
		r := b.login(t.home, "en", "bob", bobsPassword)
		defer r.end()
		r.send("/login/code", "code", recovery)
		r.at("/")
		return r.done()
	})
	t.check("all other browsers are logged out", func() error {
		m.open("/account")
		m.click(`form:has(input[value="others"]) button`)
		m.says(200, "All other browsers were logged out.")
		l.open("/account")
		l.at("/login")
		return errors.Join(m.done(), l.done())
	})
}

// readCode reads a QR code as a camera does: from a picture of it.
func (t *tab) readCode(selector string) (string, error) {
	var picture []byte
	t.run("picture of "+selector, chromedp.Screenshot(selector, &picture, chromedp.ByQuery))
	if t.err != nil {
		return "", t.done()
	}
	shown, _, err := image.Decode(bytes.NewReader(picture))
	if err != nil {
		return "", err
	}
	bits, err := gozxing.NewBinaryBitmapFromImage(shown)
	if err != nil {
		return "", err
	}
	found, err := qrcode.NewQRCodeReader().Decode(bits, map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_TRY_HARDER: true})
	if err != nil {
		return "", fmt.Errorf("no QR code is seen: %w", err)
	}
	return found.GetText(), nil
}

// devices connects two: an iPhone, and one that is set up by hand.
func (t *trial) devices(b *chromium) {
	m := b.login(t.home, "en", "maria", mariasPassword)
	defer m.end()
	phone := b.tab(t.home, "en")
	defer phone.end()
	phone.size(390, 844, true)
	link := func(device string) error {
		m.open("/connect")
		m.send("/connect", "device", device)
		m.says(200, "Point the camera of "+device)
		text, err := m.readCode("svg.code")
		if err != nil {
			return err
		}
		if shown := m.text("#link"); text != shown || !strings.HasPrefix(text, t.home.base+"/device/") {
			return fmt.Errorf("the code holds %q, the page shows %q", text, shown)
		}
		phone.open(strings.TrimPrefix(text, t.home.base))
		phone.says(200, "This sets up the mail of maria@"+domainName, device)
		return errors.Join(m.done(), phone.done())
	}
	t.check("the QR code leads a device to its page", func() error { return link("Maria's iPhone") })
	m.look("connect-link")
	phone.look("device")
	t.check("an iPhone gets its profile", func() error {
		phone.run("install", chromedp.Click(`form:has(input[value="apple"]) button`, chromedp.ByQuery))
		return errors.Join(phone.done(), eventually(phone.ctx, func() error { _, err := os.Stat(phone.download()); return err }))
	})
	t.check("its signature is verified by openssl, by our authority", func() error {
		return quietly("openssl", "cms", "-verify", "-inform", "DER", "-in", phone.download(), "-CAfile", filepath.Join(t.home.data, "tls", "ca.pem"),
			"-purpose", "any", "-out", phone.download()+".plist")
	})
	t.check("the profile is a property list by its DTD", func() error {
		return errors.Join(quietly("xmllint", "--nonet", "--noout", "--dtdvalid", filepath.Join(t.work, "plist.dtd"), phone.download()+".plist"), quietly("plistutil", "-i", phone.download()+".plist", "-o", "/dev/null"))
	})
	t.check("another device is shown a password, which works for IMAP", func() error {
		if err := link("old laptop"); err != nil {
			return err
		}
		phone.click(`form:has(input[value="other"]) button`)
		phone.says(200, "maria@"+domainName, "kitchen.home.lan", "993")
		return errors.Join(phone.done(), t.home.imapLogin("maria@"+domainName, phone.text("#secret")))
	})
	phone.look("device-password")
	t.check("a used link says so", func() error {
		phone.open(strings.TrimPrefix(m.text("#link"), t.home.base))
		phone.says(410, "This link is used up")
		return errors.Join(phone.done(), m.done())
	})
	t.check("the owner's passwords for devices are listed, and one is taken away", func() error {
		m.open("/account")
		m.says(200, "Maria's iPhone", "old laptop")
		m.click(`form:has(input[value="old laptop"]) button`)
		m.says(200, "The password for old laptop works no more.")
		return m.done()
	})
}

// download is the profile that was downloaded.
func (t *tab) download() string { return filepath.Join(t.trial.work, "mail.mobileconfig") }

// quietly runs a program, and gives what it says if it fails.
func quietly(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// domain looks at the records.
func (t *trial) domain(b *chromium) {
	m := b.login(t.home, "en", "maria", mariasPassword)
	defer m.end()
	t.check("the domain's records, with their state", func() error {
		m.follow("/domain")
		m.says(200, "The records of "+domainName, "MX", "_dmarc")
		m.send("/domain/look")
		m.says(200, "The server looks at everything anew.")
		err := eventually(m.ctx, func() error {
			m.open("/domain")
			m.says(200, "Looked at on")
			return m.done()
		})
		var states int
		m.eval(`document.querySelectorAll(".records .state").length`, &states)
		if m.err == nil && states == 0 {
			m.says(200, "nothing was found about any record")
		}
		return errors.Join(err, m.done())
	})
	t.check("a record is copied", func() error {
		m.run("copy", chromedp.Click("button.copy:not([hidden])", chromedp.ByQuery), chromedp.WaitVisible(`//button[text()="Copied"]`))
		return m.done()
	})
	t.check("mail that finds no way waits", func() error {
		return errors.Join(t.home.send("maria@"+domainName, mariasPassword, "uncle@outside.example", "Sunday"),
			t.home.send("maria@"+domainName, mariasPassword, "aunt@outside.example", "Sunday"))
	})
	if err := m.done(); err != nil {
		t.check("the domain", func() error { return err })
	}
}

// relay lets mail go by the provider.
func (t *trial) relay(b *chromium) {
	m := b.login(t.home, "en", "maria", mariasPassword)
	defer m.end()
	t.check("a relay whose login fails is refused", func() error {
		m.open("/domain")
		m.send("/domain/relay", "server", "provider.example", "user", "maria@provider.example", "password", "wrong")
		m.says(422, "nothing is changed")
		return m.done()
	})
	m.look("domain-mistake")
	t.check("a relay is set", func() error {
		m.run("open the rest", chromedp.Click(`form[action="/domain/relay"] summary`, chromedp.ByQuery))
		m.send("/domain/relay", "password", mariasPassword, "from", "maria@provider.example")
		m.says(200, "The login works. Mail goes by provider.example")
		return m.done()
	})
	t.check("what waited goes to it", func() error {
		return eventually(context.Background(), func() error {
			if log := t.home.out.String(); !strings.Contains(log, `to=aunt@outside.example remote="provider.example [192.168.77.2]`) {
				return errors.New("it was not asked to take anything:\n" + log[max(0, len(log)-2000):])
			}
			return nil
		})
	})
}
