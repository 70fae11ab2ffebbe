package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// startWeb opens and serves the web's ports on loopback.
func startWeb(t *testing.T, w *WebPorts) (get func(method, scheme, host, path string) (int, string)) {
	t.Helper()
	certs := newTestCerts(t)
	w.Certificates, w.Listen, w.Offset = certs.open(t), "127.0.0.1", freeOffset(t)
	if w.Log == nil {
		w.Log = slog.New(slog.DiscardHandler)
	}
	w.Open()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return func(method, scheme, host, path string) (int, string) {
		t.Helper()
		plain, secure := w.Numbers()
		port := map[string]int{"http": plain, "https": secure}[scheme]
		request, err := http.NewRequest(method, fmt.Sprintf("%s://127.0.0.1:%d%s", scheme, port, path), nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = host
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
}

func TestWebPorts(t *testing.T) {
	w := &WebPorts{Policy: func(domain string) string {
		if domain == "example.org" {
			return "version: STSv1\r\n"
		}
		return ""
	}}
	get := startWeb(t, w)
	for _, test := range []struct {
		method, scheme, host, path string
		status                     int
		want                       string
	}{
		{"GET", "http", "example.org", "/", 404, "This is a mail server."},
		{"GET", "https", "example.org", "/", 404, "This is a mail server."},
		{"GET", "https", "MTA-STS.example.org.", policyPath, 200, "version: STSv1\r\n"},
		{"GET", "https", "mta-sts.example.org:8443", policyPath, 200, "version: STSv1\r\n"},
		{"HEAD", "https", "mta-sts.example.org", policyPath, 200, ""},
		{"POST", "https", "mta-sts.example.org", policyPath, 405, "can only be read"},
		{"GET", "https", "mta-sts.example.net", policyPath, 404, "no rules"},
		{"GET", "https", "example.org", policyPath, 404, "no page"},
		{"GET", "http", "mta-sts.example.org", policyPath, 404, "no page"}, // RFC 8461 §3.3: by HTTPS alone
		{"GET", "http", "example.org", "/.well-known/acme-challenge/abc", 404, "no page"},
		{"GET", "http", "example.org", "/.well-known/acme-challenge/../../../etc/passwd", 404, "no page"},
	} {
		if status, body := get(test.method, test.scheme, test.host, test.path); status != test.status || !strings.Contains(body, test.want) {
			t.Errorf("%s %s %s%s: %d %q", test.method, test.scheme, test.host, test.path, status, body)
		}
	}
}

// What comes later is hung in.
func TestWebPortsHandler(t *testing.T) {
	get := startWeb(t, &WebPorts{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(rw, "%t %s", r.TLS != nil, r.URL.Path)
	})})
	for scheme, want := range map[string]string{"http": "false /page", "https": "true /page"} {
		if status, body := get("GET", scheme, "example.org", "/page"); status != 200 || body != want {
			t.Errorf("%s: %d %q", scheme, status, body)
		}
	}
	if status, body := get("GET", "https", "mta-sts.example.org", policyPath); status != 404 {
		t.Errorf("rules where there are none: %d %q", status, body)
	}
}

// A port that another program has, as on a NAS, is another one then; that is said in one line, and mail runs.
func TestWebPortIsTaken(t *testing.T) {
	offset := freeOffset(t)
	take := func(number int) {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", number+offset))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	take(80)
	take(80 + webPortShift)
	take(443)
	r := startAdjusted(t, filepath.Join(t.TempDir(), "data"), offset, nil, "--hostname", "pi.home.lan")
	if _, _, answer := r.imapLogin(t, "nobody", "x"); !strings.Contains(answer, "x NO") {
		t.Errorf("IMAP: %s", answer)
	}
	if n := strings.Count(r.stderr.String(), "mail does not need it"); n != 1 {
		t.Errorf("said %d times:\n%s", n, r.stderr.String())
	}
	want := fmt.Sprintf("https://127.0.0.1:%d/?code=", 443+webPortShift+offset)
	if n := strings.Count(r.stderr.String(), "ours is another one"); n != 1 || !strings.Contains(r.stdout.String(), want) {
		t.Errorf("%d times, %s:\n%s\n%s", n, want, r.stderr.String(), r.stdout.String())
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	answer, err := client.Get(fmt.Sprintf("https://127.0.0.1:%d/login", 443+webPortShift+offset))
	if err != nil {
		t.Fatal(err)
	}
	if answer.Body.Close(); answer.StatusCode != http.StatusOK {
		t.Errorf("the page: %s", answer.Status)
	}
}

// Whoever opens a connection and says nothing, or speaks what nobody understands, gets nothing, and holds up no end.
func TestWebPortsNoise(t *testing.T) {
	var log lockedBuffer
	w := &WebPorts{Log: slog.New(slog.NewTextHandler(&log, nil))}
	startWeb(t, w)
	plain, secure := w.Numbers()
	for _, port := range []int{plain, secure} {
		for _, noise := range []string{"", "\x00\x01\x02\r\n\r\n", "GET / HTTP/1.1\r\nHost: " + strings.Repeat("x", 2*webHeader) + "\r\n\r\n"} {
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, noise)
		}
	}
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", secure), &tls.Config{ServerName: "x.org", InsecureSkipVerify: true, NextProtos: []string{"acme-tls/1"}})
	if err == nil { // no authority was asked, so nobody can want to see this
		conn.Close()
		t.Error("a challenge of nobody's was answered")
	}
	if bytes.Contains([]byte(log.String()), []byte("level=WARN")) || strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("noise is worth a line:\n%s", log.String())
	}
}
