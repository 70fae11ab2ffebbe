package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// pageLoad is people who use the page while mail is delivered.
type pageLoad struct {
	target
	base        string // of the page
	people      int
	connections int // that deliver
	length      time.Duration
	rounds      int
	browsers    []*http.Client
}

// readPages are those that everybody opens.
func readPages() []string {
	return []string{"/", "/account", "/connect", "/mine/away", "/mine/forward", "/mine/movein", "/mine/mail"}
}

// measurePage delivers mail in turns alone, while everybody opens a page a second, and while everybody opens one after the
// other without a pause. It prints messages a second, and seconds to the end of a page.
func measurePage(args []string) error {
	l := pageLoad{target: target{out: os.Stdout}}
	flags := flag.NewFlagSet("web", flag.ContinueOnError)
	flags.StringVar(&l.base, "page", "", "`URL` of the page")
	flags.StringVar(&l.smtp, "smtp", "", "`address` of SMTP")
	flags.StringVar(&l.post, "post", "", "`account` that gets what is delivered")
	flags.StringVar(&l.crowd, "crowd", "", "`accounts` of the people, with %d for 1 and so on")
	flags.StringVar(&l.password, "password", "", "`password` of all")
	flags.IntVar(&l.people, "people", 50, "people who are logged in")
	flags.IntVar(&l.connections, "connections", 8, "connections that deliver")
	flags.DurationVar(&l.length, "length", 10*time.Second, "of each measurement")
	flags.IntVar(&l.rounds, "rounds", 3, "of all measurements")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := l.login(); err != nil {
		return err
	}
	for range l.rounds {
		for _, kind := range []struct {
			name  string
			pause time.Duration
			with  bool
		}{{"alone", 0, false}, {"steady", time.Second, true}, {"flat_out", 0, true}} {
			if err := l.round(kind.name, kind.pause, kind.with); err != nil {
				return err
			}
		}
	}
	return nil
}

var formToken = regexp.MustCompile(`name="token" value="([0-9a-f]+)"`)

// login logs everybody in, one after the other: that is no part of what is measured.
func (l *pageLoad) login() error {
	for i := range l.people {
		jar, err := cookiejar.New(nil)
		if err != nil {
			return err
		}
		b := &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // it is a server of ours, on loopback
		body, err := openPage(b, l.base+"/login")
		if err != nil {
			return err
		}
		found := formToken.FindStringSubmatch(body)
		if found == nil {
			return errors.New("there is no form to log in")
		}
		start := time.Now()
		answer, err := b.PostForm(l.base+"/login", url.Values{"token": {found[1]}, "name": {fmt.Sprintf(l.crowd, i+1)}, "password": {l.password}})
		if err != nil {
			return err
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK || strings.HasSuffix(answer.Request.URL.Path, "/login") {
			return fmt.Errorf("the login of %d: %s", i+1, answer.Status)
		}
		l.print("page_login", time.Since(start).Seconds())
		l.browsers = append(l.browsers, b)
	}
	return nil
}

// openPage gives the text of a page.
func openPage(b *http.Client, at string) (string, error) {
	answer, err := b.Get(at)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && (answer.StatusCode != http.StatusOK || strings.HasSuffix(answer.Request.URL.Path, "/login") != strings.HasSuffix(at, "/login")) {
		err = fmt.Errorf("%s: %s", at, answer.Status)
	}
	return string(text), err
}

// round is one measurement: deliveries for a time, with or without the people.
func (l *pageLoad) round(name string, pause time.Duration, with bool) error {
	var group sync.WaitGroup
	var mu sync.Mutex
	var failed error
	var pages []float64
	end := time.Now().Add(l.length)
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		failed = errors.Join(failed, err)
	}
	for _, b := range l.browsers {
		if !with {
			break
		}
		group.Go(func() {
			times, err := l.browse(b, pause, end)
			if err != nil {
				fail(err)
			}
			mu.Lock()
			defer mu.Unlock()
			pages = append(pages, times...)
		})
	}
	messages := 0
	start := time.Now()
	for range l.connections {
		group.Go(func() {
			n, err := l.keepDelivering(end)
			if err != nil {
				fail(err)
			}
			mu.Lock()
			defer mu.Unlock()
			messages += n
		})
	}
	group.Wait()
	if failed != nil {
		return failed
	}
	l.print("smtp_"+name, float64(messages)/time.Since(start).Seconds())
	if len(pages) > 0 {
		slices.Sort(pages)
		l.print("pages_"+name, float64(len(pages))/l.length.Seconds())
		l.print("page_p50_"+name, pages[len(pages)/2])
		l.print("page_p99_"+name, pages[len(pages)*99/100])
	}
	return nil
}

// browse opens pages as one person until the end, and gives how long each took.
func (l *pageLoad) browse(b *http.Client, pause time.Duration, end time.Time) (times []float64, err error) {
	pages := readPages()
	time.Sleep(time.Duration(rand.Int64N(int64(pause) + 1))) // people do not click all at once
	for time.Now().Before(end) {
		start := time.Now()
		if _, err := openPage(b, l.base+pages[rand.IntN(len(pages))]); err != nil {
			return times, err
		}
		took := time.Since(start)
		times = append(times, took.Seconds())
		time.Sleep(pause - took)
	}
	return times, nil
}

// keepDelivering sends messages over one connection until the end.
func (l *pageLoad) keepDelivering(end time.Time) (n int, err error) {
	s, err := l.sender(l.post)
	if err != nil {
		return 0, err
	}
	defer s.quit()
	for ; time.Now().Before(end); n++ {
		if err := s.send(); err != nil {
			return n, err
		}
	}
	return n, nil
}
