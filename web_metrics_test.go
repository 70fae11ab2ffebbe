package main

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

func TestWebMetrics(t *testing.T) {
	p := startHealth(t, pageData(t))
	p.receive(t, "ann@far.test", "bob@home.lan", "250 ")
	p.receive(t, "ann@far.test", "nobody@home.lan", "550 ")
	p.submit(t, "bob@home.lan", "slow@friends.test")
	p.imapLogin(t, "maria", mariasPassword)
	p.imapLogin(t, "maria", "guessed")
	maria := p.loggedIn(t, "maria", mariasPassword)
	maria.until("/health/queue", "mailbox full")

	answer, err := http.Get(p.plainMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != 200 || answer.Header.Get("Content-Type") != metricsType {
		t.Fatalf("%d %v %v", answer.StatusCode, answer.Header, err)
	}
	text := string(body)
	lintMetrics(t, text)
	if tool, err := exec.LookPath("promtool"); err != nil {
		t.Log("promtool (package prometheus) is not here: its opinion is not asked")
	} else {
		check := exec.Command(tool, "check", "metrics")
		check.Stdin = strings.NewReader(text)
		if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("promtool: %v\n%s", err, out)
		}
	}
	for name, want := range map[string]string{
		`appliance_messages_delivered_total{result="inbox"}`:             "1",
		`appliance_messages_delivered_total{result="junk"}`:              "0",
		`appliance_refusals_total{protocol="smtp",code="5xx"}`:           "1",
		`appliance_outbound_tries_total{result="deferred"}`:              "1",
		`appliance_queue_messages`:                                       "1",
		`appliance_accounts`:                                             "2",
		`appliance_logins_total{protocol="imap",result="success"}`:       "1",
		`appliance_logins_total{protocol="imap",result="failure"}`:       "1",
		`appliance_logins_total{protocol="pop3",result="failure"}`:       "0",
		`appliance_logins_total{protocol="submission",result="success"}`: "1",
		`appliance_logins_total{protocol="web",result="success"}`:        "1",
		`appliance_sessions{protocol="web"}`:                             "1",
		`appliance_connections_total{port="submission"}`:                 "1",
		`appliance_connections_total{port="pop3s"}`:                      "0",
		`appliance_connections_refused_total{port="smtp"}`:               "0",
		`appliance_spam_learned_messages{kind="unwanted"}`:               "0",
	} {
		if got := metric(text, name); got != want {
			t.Errorf("%s is %q, want %s", name, got, want)
		}
	}
	for _, name := range []string{"appliance_build_info{", "appliance_certificate_expiry_timestamp_seconds{name=", "appliance_disk_free_bytes ", "appliance_memory_bytes ", "appliance_queue_bytes ",
		"appliance_queue_oldest_message_age_seconds ", "appliance_store_bytes ", "appliance_store_messages ", "appliance_connections{protocol=\"imap\"}", "appliance_http_requests_total{code=\"2xx\"}", "appliance_start_time_seconds ", "go_goroutines "} {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("there is no %s:\n%s", name, text)
		}
	}
}

// From elsewhere the metrics want a token, under TLS.
func TestWebMetricsToken(t *testing.T) {
	p := startPage(t)
	b := p.browser(t)
	b.get("/metrics")
	b.says(200, "appliance_build_info")
	b.elsewhere()
	refused := func() {
		t.Helper()
		b.get("/metrics")
		b.says(401, "appliance metrics token makes one")
	}
	refused()
	b.header.Set("Authorization", "Bearer ")
	refused()
	token := strings.TrimSpace(mustRun(t, p.data, "metrics", "token"))
	refused()
	b.header.Set("Authorization", "Bearer "+token)
	b.get("/metrics")
	b.says(200, "appliance_build_info")
	for _, plain := range []struct {
		host, key, value string
		status           int
	}{
		{"", "", "", 200}, {"localhost", "", "", 200}, {"evil.example", "", "", 302},
		{"", "X-Forwarded-For", "192.0.2.1", 302},
	} {
		r, err := http.NewRequest("GET", p.plainMetrics(), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = plain.host
		r.Header.Set("Authorization", "Bearer "+token) // nobody takes it in the clear
		if plain.key != "" {
			r.Header.Set(plain.key, plain.value)
		}
		answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != plain.status {
			t.Errorf("%+v: %d", plain, answer.StatusCode)
		}
	}

	// The owner has buttons for that.
	maria := p.loggedIn(t, "maria", mariasPassword)
	maria.get("/health")
	maria.says(200, "There is a token.", "Make a new token")
	maria.post("/health/metrics")
	maria.says(200, "With this token Prometheus reads")
	made := maria.secret()
	refused()
	b.header.Set("Authorization", "Bearer "+made)
	b.get("/metrics")
	b.says(200)
	maria.get("/health")
	maria.post("/health/metrics/remove")
	maria.says(200, "The token does not count any more.", "Make a token")
	refused()
	mustRun(t, p.data, "metrics", "token")
	if out := mustRun(t, p.data, "metrics", "remove"); out != "Only this machine reads the metrics now.\n" {
		t.Error(out)
	}
	for _, secret := range []string{token, made} {
		if strings.Contains(p.stderr.String(), secret) {
			t.Error("a token is in the log")
		}
	}
	if !strings.Contains(p.stderr.String(), fmt.Sprintf("msg=changed page=%q by=maria@home.lan", "POST /health/metrics")) {
		t.Error("the log does not tell of the change")
	}
}
