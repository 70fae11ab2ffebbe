package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(ours, "store 0.030\nstore 0.010\nstore 0.020\nsmtp_1 900\nloop_1 1500\nreopen 0.004\ncopy 1\nmemory_session 10240\n")
	write(theirs, "store 0.100\nsmtp_1 200\nreopen 0.001\nmemory_session 1024000\n")
	var out bytes.Buffer
	if err := printTable(&out, ours, theirs); err != nil {
		t.Fatal(err)
	}
	want := `| work | appliance | other | ratio | goal | |
|---|---:|---:|---:|---:|---|
| any later open | 4.00 ms | 1.00 ms | 4.00 | < 3.00 ms | missed |
| STORE 1:* +FLAGS.SILENT | 20.00 ms | 100 ms | 0.20 | ≤ 0.7 | ok |
| SMTP accept, 1 connection | 900/s | 200/s | 4.50 | ≥ 3 | ok |
| SMTP, 1 connection, to a bare loop | 900/s | 1500/s | 0.60 | ≥ 0.7 | missed |
| memory of an idle session | 10 KiB | 1000 KiB | 0.0100 | ≤ 0.025 | ok |
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	write(theirs, "store fast\n")
	if err := printTable(io.Discard, ours, theirs); err == nil {
		t.Error("a line that is no result was taken")
	}
}

func TestMessages(t *testing.T) {
	dir := t.TempDir()
	if err := fill(dir, 7, sample); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "cur", "*"))
	if err != nil || len(files) != 7 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(file, fmt.Sprintf(",S=%d,W=%d:", len(text), len(text))) {
			t.Errorf("%s has %d bytes", file, len(text))
		}
		if strings.Contains(strings.ReplaceAll(string(text), "\r\n", ""), "\n") {
			t.Errorf("%s has a LF alone", file)
		}
	}
	small := smallMessage()
	if len(small) != 2048 || !strings.HasSuffix(small, "\r\n") || strings.Contains(small, "\n.") {
		t.Errorf("%d bytes: %q", len(small), small)
	}
}

func TestLoops(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	if err := measureLoops(&out, dir, 16); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(out.String(), "loop_"); lines != 2 {
		t.Errorf("got %q", out.String())
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPSS(t *testing.T) {
	n, err := pss("Rss:     100 kB\nPss:      42 kB\nPss_Anon: 7 kB\n")
	if err != nil || n != 42<<10 {
		t.Errorf("got %d, %v", n, err)
	}
	if _, err := pss("Rss: 1 kB\n"); err == nil {
		t.Error("nothing was found to be something")
	}
}

func TestBusyShare(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("looks at /proc")
	}
	var stop atomic.Bool
	defer stop.Store(true)
	for range runtime.NumCPU() {
		go func() {
			for n := 0; !stop.Load(); n++ {
			}
		}()
	}
	share, err := awaitCalm(0)
	if err != nil || share <= calmShare || share > 1 {
		t.Errorf("%.2f of a machine that does much is used, %v", share, err)
	}
}

func TestBadCommands(t *testing.T) {
	for _, args := range [][]string{
		nil, {"fill", "x"}, {"fill", t.TempDir(), "many"}, {"run", "-pids", "x"}, {"run", "nothing"}, {"settle"}, {"settle", "-1"},
		{"calm", "down"},
		{"table", "nowhere", "nowhere"}, {"loop"}, {"other"},
	} {
		if command(args) == nil {
			t.Errorf("%q was taken", args)
		}
	}
}

// TestParts gives the appliance a little of each work and looks whether every row of the table gets a value.
func TestParts(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("looks at processes in /proc")
	}
	dir := t.TempDir()
	server, data := filepath.Join(dir, "appliance"), filepath.Join(dir, "data")
	if out, err := exec.Command("go", "build", "-o", server, "..").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	accounts := []string{"bench", "big", "small", "post"}
	for i := range crowdSize {
		accounts = append(accounts, fmt.Sprintf("u%d", i))
	}
	for _, name := range accounts {
		add := exec.Command(server, "user", "add", name+"@bench.test", "--password-stdin", "--data", data)
		add.Stdin = strings.NewReader("bench-secret-1\n")
		if out, err := add.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := fill(filepath.Join(data, "mail/bench.test", name), 60, sample); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := printOffset(&out); err != nil {
		t.Fatal(err)
	}
	offset, err := strconv.Atoi(strings.TrimSpace(out.String()))
	if err != nil {
		t.Fatal(err)
	}
	run := exec.Command(server, "run", "--data", data, "--listen", "127.0.0.1", "--port-offset", strconv.Itoa(offset))
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer run.Wait()
	defer run.Process.Signal(os.Interrupt)
	at := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port+offset)) }
	await(t, at(995))
	out.Reset()
	err = (&target{
		imap: at(993), pop3: at(995), smtp: at(25), user: "bench@bench.test", password: "bench-secret-1", big: "big@bench.test",
		small: "small@bench.test", post: "post@bench.test", crowd: "u%d@bench.test", pids: []int{run.Process.Pid},
		samples: 1, appends: 4, deliveries: 8, notices: 2, sessions: 30, out: &out,
	}).run([]string{"tls", "open", "reopen", "first", "read", "login", "pop3", "change", "append", "smtp", "notice", "size", "sessions"})
	if err != nil {
		t.Fatal(err)
	}
	protection, measured, _ := strings.Cut(out.String(), "\n")
	if !strings.HasPrefix(protection, "TLS 1.3 ") {
		t.Errorf("protected by %s", protection)
	}
	for _, name := range []string{"_bare", "_no_index", "_restart"} { // what compare.sh makes of "open"
		measured += "open" + name + " 1\n"
	}
	measured += "loop_1 1\nloop_8 1\n"
	results := filepath.Join(dir, "results")
	if err := os.WriteFile(results, []byte(measured), 0o600); err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	if err := printTable(&table, results, results); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows() {
		if !strings.Contains(table.String(), "| "+r.work+" |") {
			t.Errorf("nothing was measured for: %s", r.work)
		}
	}
}

func await(t *testing.T, addr string) {
	t.Helper()
	for range 200 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("nobody answers at %s", addr)
}
