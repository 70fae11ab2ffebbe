package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// fillDiary makes a diary that is as large as it becomes, of the mail of 50 people.
func fillDiary(b *testing.B, data string) {
	b.Helper()
	d := &Diary{dir: dataDir(data).diary()}
	if err := makeDiaryDir(d.dir); err != nil {
		b.Fatal(err)
	}
	people := append([]string{"maria", "bob"}, make([]string, 48)...)
	for i := range 48 {
		people[i+2] = fmt.Sprintf("person%d", i)
	}
	var text strings.Builder
	lines := json.NewEncoder(&text)
	for n := 0; text.Len() < diaryFileSize-1000; n++ {
		e := DiaryEvent{Time: time.Unix(int64(1790000000+n*60), 0).UTC(), Kind: DiaryDelivered, ID: fmt.Sprintf("%026d", n), From: "somebody@example.org",
			To: []string{people[n%50] + "@home.lan"}, Protocol: "smtp", Remote: "mail.example.org [192.0.2.1]", Size: 4000}
		if err := lines.Encode(&e); err != nil {
			b.Fatal(err)
		}
	}
	for _, file := range []string{d.mailFile(), before(d.mailFile()), d.refusedFile(), before(d.refusedFile())} {
		if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWebPages is one page after the other, over TLS, the browser's work included.
func BenchmarkWebPages(b *testing.B) {
	data := pageData(b)
	fillDiary(b, data)
	p := servePage(b, startRun(b, data))
	maria := p.loggedIn(b, "maria", mariasPassword)
	for _, path := range []string{"/", "/people", "/account", "/connect", "/domain", "/health", "/health/mail", "/mine/away", "/mine/forward", "/mine/movein", "/mine/mail"} {
		b.Run(strings.ReplaceAll(path[1:], "/", "_"), func(b *testing.B) {
			maria.t = b
			for b.Loop() {
				if maria.get(path); maria.status != 200 {
					b.Fatal(maria.status)
				}
			}
		})
	}
}
