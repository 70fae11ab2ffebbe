package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestThroughput has many messages accepted by submission, signed, and sent on, at full speed: each arrives whole and once, nothing
// waits at the end, and neither the memory of the appliance, which is a process of its own, nor its files and goroutines grow.
// APPLIANCE_TEST_THROUGHPUT is how many: 720000 are an hour of 200 a second.
func TestThroughput(t *testing.T) {
	total, err := strconv.Atoi(os.Getenv("APPLIANCE_TEST_THROUGHPUT"))
	if err != nil || total < 1000 {
		t.Skip("APPLIANCE_TEST_THROUGHPUT is not a number of messages, 1000 or more")
	}
	const people, domains, underway = 8, 20, 500
	var arrived atomic.Int64
	room := make(chan struct{}, underway) // one for each message that has not arrived
	seen := make([]atomic.Int32, total+1) // how often each number has come
	next := (&remoteServer{extensions: []string{"8BITMIME", "SIZE", "DSN", "PIPELINING"}, took: func(m remoteMail) {
		if n := numberOf(m, domains); n < 1 || n > total {
			t.Errorf("what has arrived is none of the messages: %+.500v", m)
		} else if seen[n].Add(1) == 1 {
			arrived.Add(1)
			<-room
		}
	}}).start(t)
	var zone strings.Builder
	for i := range domains {
		fmt.Fprintf(&zone, "d%d.test. MX 10 mx.test.\n", i)
	}
	dns := startDNS(t, zone.String()+"mx.test. A 127.0.0.1")
	w := &killWorld{t: t, data: t.TempDir(), offset: freeOffset(t), next: dns.Servers[0] + " " + strconv.Itoa(next.listener.Addr().(*net.TCPAddr).Port), stderr: new(bytes.Buffer)}
	w.people(people)
	w.start()
	defer w.kill()
	w.up()
	files := w.openFiles()

	began := time.Now()
	var work sync.WaitGroup
	var number atomic.Int64
	for i := range people {
		work.Go(func() { submitMany(t, w, i, room, &number, total, domains) })
	}
	done := make(chan struct{})
	go func() {
		work.Wait()
		close(done)
	}()
	var first, last int
	report := func() {
		n := int(arrived.Load())
		last = w.memory()
		if first == 0 && n >= total/10 {
			first = last
		}
		t.Logf("%7d messages, %5.0f a second, %3d MiB", n, float64(n)/time.Since(began).Seconds(), last>>10)
	}
	step := total / 10
	for at, idle := step, time.Now(); int(arrived.Load()) < total; time.Sleep(50 * time.Millisecond) {
		if n := int(arrived.Load()); n >= at {
			report()
			at, idle = n-n%step+step, time.Now()
		}
		if time.Since(idle) > 10*time.Minute {
			t.Fatalf("%d of %d messages arrive", arrived.Load(), total)
		}
	}
	<-done
	report()
	if last > first+first/2+8<<10 || last > mostMemory {
		t.Errorf("the memory grows from %d to %d MiB", first>>10, last>>10)
	}
	for n := 1; n <= total; n++ {
		if times := seen[n].Load(); times != 1 {
			t.Errorf("message %d has arrived %d times", n, times)
		}
	}
	w.atRest(files, people+domains)
}

// mostMemory is what the appliance may take in all, in KiB: half of the smallest machine's.
const mostMemory = 256 << 10

// numberOf gives the number of a message of submitMany that is whole, 0 for any other.
func numberOf(m remoteMail, domains int) int {
	if len(m.rcpts) != 1 {
		return 0
	}
	var n, domain int
	if _, err := fmt.Sscanf(m.rcpts[0], "RCPT TO:<r%d@d%d.test>", &n, &domain); err != nil || domain != n%domains {
		return 0
	}
	if !strings.Contains(m.text, fmt.Sprintf("\r\nSubject: number %d\r\n", n)) || !strings.HasSuffix(m.text, "\r\n\r\n"+throughputBody()) ||
		!strings.HasPrefix(m.text, "DKIM-Signature: ") {
		return 0
	}
	return n
}

// openFiles is how many files and connections the appliance has open.
func (w *killWorld) openFiles() int {
	w.t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.process.Process.Pid))
	if err != nil {
		w.t.Fatal(err)
	}
	return len(names)
}

// atRest looks whether the appliance, when all is sent, has nothing left that waits, and no more files open than before and few
// goroutines, of which it tells as it ends. Connections to other servers may stay open for a while.
func (w *killWorld) atRest(files, conns int) {
	w.t.Helper()
	waiting := func() []string {
		names, err := filepath.Glob(filepath.Join(dataDir(w.data).queue(), "*.*"))
		if err != nil {
			w.t.Fatal(err)
		}
		return names
	}
	for range 6000 { // of ten milliseconds
		if len(waiting()) == 0 && w.openFiles() <= files+conns {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if left := waiting(); len(left) > 0 {
		w.t.Errorf("%d files are left in the queue, such as %s", len(left), left[0])
	}
	if n := w.openFiles(); n > files+conns {
		w.t.Errorf("%d files and connections are open, and %d were before", n, files)
	}
	if err := w.process.Process.Signal(syscall.SIGQUIT); err != nil { // the Go runtime lists all goroutines, and ends
		w.t.Fatal(err)
	}
	_ = w.process.Wait() // it tells of the signal
	dump := w.process.Stderr.(*bytes.Buffer).String()
	n := strings.Count(dump, "\ngoroutine ")
	w.t.Logf("%d goroutines, %d files at the beginning", n, files)
	if n == 0 || n > 100+2*conns {
		w.t.Errorf("%d goroutines at the end:\n%.5000s", n, dump)
	}
}

// people gives the appliance some people, whose password is ann-secret.
func (w *killWorld) people(n int) {
	w.t.Helper()
	if err := os.WriteFile(dataDir(w.data).settings(), []byte("domain = 'home.lan'\nsends_per_hour = 100000\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	for i := range n {
		if status, _, errs := runCommand(w.t, w.data, "ann-secret\n", "user", "add", fmt.Sprintf("p%d", i), "--password-stdin"); status != exitDone {
			w.t.Fatal(errs)
		}
	}
}

// memory is what the appliance has of the machine's, in KiB.
func (w *killWorld) memory() int {
	w.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.process.Process.Pid))
	if err != nil {
		w.t.Fatal(err)
	}
	found := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(text)
	if found == nil {
		w.t.Fatalf("no VmRSS in %s", text)
	}
	n, err := strconv.Atoi(string(found[1]))
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// throughputBody is the text of each message of submitMany.
func throughputBody() string {
	return strings.Repeat("A line of text such as people write in their mail, over and over.\r\n", 30)
}

// submitMany submits one person's messages until all are.
func submitMany(t *testing.T, w *killWorld, person int, room chan<- struct{}, number *atomic.Int64, total, domains int) {
	var conn net.Conn
	var err error
	for range 1000 {
		if conn, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", 587+w.offset)); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	c := &rawClient{t, conn, bufio.NewReader(conn)}
	say := func(text string, replies int) bool {
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Error(err)
			return false
		}
		for replies > 0 {
			line, err := c.r.ReadString('\n')
			if err != nil || line[0] > '3' {
				t.Errorf("%q: %q %v", clip(text, 60), line, err)
				return false
			}
			if line[3] == ' ' {
				replies--
			}
		}
		return true
	}
	from := fmt.Sprintf("p%d@home.lan", person)
	if !say("EHLO laptop\r\nAUTH PLAIN "+encodeLine("{plain "+from+" ann-secret}")+"\r\n", 3) {
		return
	}
	body := throughputBody()
	for {
		n := number.Add(1)
		if n > int64(total) {
			return
		}
		room <- struct{}{}
		if !say(fmt.Sprintf("MAIL FROM:<%s>\r\nRCPT TO:<r%d@d%d.test>\r\nDATA\r\n", from, n, n%int64(domains)), 3) ||
			!say(fmt.Sprintf("From: %s\r\nSubject: number %d\r\n\r\n%s.\r\n", from, n, body), 1) {
			return
		}
	}
}
