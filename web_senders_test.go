package main

import (
	"strings"
	"testing"
)

func TestWebSenders(t *testing.T) {
	p := startPage(t)
	b := p.loggedIn(t, "maria", mariasPassword)
	path := "/people/bob@home.lan"
	b.get(path)
	b.says(200, "Addresses at a provider")
	for typed, want := range map[string]string{
		"bob": "bob is no mail address.", `"b b"@isp.test`: "is no mail address.", "bob2@home.lan": "bob2@home.lan is an address of this server.",
	} {
		b.post(path+"/sender", "sender", typed)
		b.says(422, want)
	}
	b.post(path+"/sender", "sender", "Bob@ISP.test")
	b.says(200, "bob@home.lan can send with bob@isp.test now. Set the provider", "Remove bob@isp.test")
	b.post(path+"/sender", "sender", "bob@isp.test")
	b.says(422, "bob@isp.test is there already.")
	if out := mustRun(t, p.data, "user", "sender", "list"); !strings.Contains(out, "bob@isp.test") {
		t.Error(out)
	}
	b.post(path+"/sender/remove", "sender", "other@isp.test")
	b.says(422, "other@isp.test is none of these addresses any more.")
	b.post(path+"/sender/remove", "sender", "bob@isp.test")
	b.says(200, "bob@home.lan does not send with bob@isp.test any more.")
	if !strings.Contains(p.stderr.String(), `msg=changed page="POST /people/{address}/sender" by=maria@home.lan`) {
		t.Error("the log does not tell of the change")
	}
}

func TestWebName(t *testing.T) {
	for host, want := range map[string]string{"pi.local": "pi-2.local", "mail.example.org": "mail.example.org"} {
		w := &Web{WebConfig: WebConfig{Host: host}}
		if w.name() != host {
			t.Errorf("%s: %s", host, w.name())
		}
		if w.Called("pi-2.local"); w.name() != want {
			t.Errorf("%s: %s, want %s", host, w.name(), want)
		}
	}
}
