package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// fillQueue puts messages into a data folder's queue that were tried in vain an hour ago.
func fillQueue(t testing.TB, data string, n int) (id string) {
	t.Helper()
	dir := dataDir(data).queue()
	if err := os.MkdirAll(filepath.Join(dir, queueTmp), 0o700); err != nil {
		t.Fatal(err)
	}
	files := queueFiles{dir: dir}
	now := time.Now()
	for i := range n {
		id = fmt.Sprintf("message%09d", i)
		record := queueRecord{
			Envelope: Envelope{From: "maria@home.lan", Account: "maria@home.lan", Recipients: []Recipient{{Address: fmt.Sprintf("friend%d@friends.test", i)}}},
			Queued:   now.Add(-time.Hour), Size: 40,
			States: []recipientState{{Tries: 1, Last: now.Add(-time.Hour), Next: now.Add(time.Hour), Text: "Come back\x1b[2J later.", Remote: "mx.friends.test [192.0.2.1]"}},
		}
		if err := os.WriteFile(filepath.Join(dir, id+queueMessage), []byte("Subject: hi \x1b[2J\r\n\r\ntext\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := files.write(id, &record, false); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

// The queue's commands with a message that waits, with and without a running appliance.
func TestQueueCommands(t *testing.T) {
	for _, up := range []bool{false, true} {
		t.Run(fmt.Sprintf("running=%v", up), func(t *testing.T) {
			data := homeData(t)
			id := fillQueue(t, data, 1)
			if up {
				startRun(t, data)
			}
			clock := `(\d+ [A-Z][a-z]+, )?\d\d:\d\d`
			line := `waits since ` + clock + ` for friend0@friends\.test: mx\.friends\.test \[192\.0\.2\.1\]: Come back\?\[2J later; next try ` + clock + `\n`
			for args, want := range map[string]string{
				"list":        id + `  from maria@home\.lan, 0\.1K\n  ` + line,
				"list --json": `\[\n\{"id":"` + id + `","from":"maria@home\.lan",.*"tries":1,.*\}\n\]\n`,
				"show " + id:  `Message    ` + id + `\nFrom       maria@home\.lan\nSize       0\.1K\nRecipient  ` + line + `           tried once\n\nSubject: hi \?\[2J\n`,
			} {
				if got := mustRun(t, data, strings.Fields("queue "+args)...); !regexp.MustCompile(`\A` + want + `\z`).MatchString(got) {
					t.Errorf("%s: %q, want %s", args, got, want)
				}
			}
			var shown queuedMessage
			if err := json.Unmarshal([]byte(mustRun(t, data, "queue", "show", id, "--json")), &shown); err != nil || shown.ID != id || !strings.HasPrefix(shown.Header, "Subject: hi") {
				t.Errorf("show --json: %+v, %v", shown, err)
			}
			if !up { // nobody tries it here: whoever starts next does
				mustRun(t, data, "queue", "retry", id)
				if got := mustRun(t, data, "queue", "list"); !strings.Contains(got, "its turn comes next") {
					t.Errorf("after retry: %s", got)
				}
			}
			if status, _, errs := runCommand(t, data, "", "queue", "bounce", "none"); status != exitFailed || !strings.Contains(errs, "no message none waits") {
				t.Errorf("bounce: %d %s", status, errs)
			}
			if got := mustRun(t, data, "queue", "cancel", id); got != id+" is not sent.\n" {
				t.Errorf("cancel: %s", got)
			}
			if got := mustRun(t, data, "queue", "list"); got != "Nothing waits.\n" {
				t.Errorf("after cancel: %s", got)
			}
			if names, err := listNames(dataDir(data).queue()); err != nil || len(names) != 1 { // tmp
				t.Errorf("left: %v, %v", names, err)
			}
		})
	}
}

// The appliance starts at once without any DNS, whatever waits.
func TestStartWithoutDNS(t *testing.T) {
	data := t.TempDir()
	fillQueue(t, data, 200)
	began := time.Now()
	r := startRun(t, data)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the start took %v", took)
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", 25+r.offset))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	began = time.Now()
	r.stop(t)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the end took %v", took)
	}
}

// BenchmarkQueueList lists 100,000 messages that wait, from a running appliance.
func BenchmarkQueueList(b *testing.B) {
	data := b.TempDir()
	fillQueue(b, data, 100_000)
	began := time.Now()
	startRun(b, data)
	b.ReportMetric(time.Since(began).Seconds(), "s/start")
	for _, args := range []string{"queue list", "queue list --json"} {
		b.Run(args, func(b *testing.B) {
			for b.Loop() {
				if got := mustRun(b, data, strings.Fields(args)...); strings.Count(got, "friends.test") < 100_000 {
					b.Fatal(len(got))
				}
			}
		})
	}
}
