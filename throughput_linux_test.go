package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestThroughput has many messages accepted by submission, signed, and sent on, at full speed, and looks at the memory of the
// appliance, which is a process of its own. APPLIANCE_TEST_THROUGHPUT is how many: 720000 are an hour of 200 a second.
func TestThroughput(t *testing.T) {
	total, err := strconv.Atoi(os.Getenv("APPLIANCE_TEST_THROUGHPUT"))
	if err != nil || total < 1000 {
		t.Skip("APPLIANCE_TEST_THROUGHPUT is not a number of messages, 1000 or more")
	}
	const people, domains, underway = 8, 20, 500
	var arrived atomic.Int64
	room := make(chan struct{}, underway) // one for each message that has not arrived
	next := (&remoteServer{extensions: []string{"8BITMIME", "SIZE", "DSN"}, took: func() {
		arrived.Add(1)
		<-room
	}}).start(t)
	var zone strings.Builder
	for i := range domains {
		fmt.Fprintf(&zone, "d%d.test. MX 10 mx.test.\n", i)
	}
	dns := startDNS(t, zone.String()+"mx.test. A 127.0.0.1")
	w := &killWorld{t: t, data: t.TempDir(), offset: freeOffset(t), next: dns.Servers[0] + " " + strconv.Itoa(next.listener.Addr().(*net.TCPAddr).Port)}
	w.people(people)
	w.start()
	defer w.kill()

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
	if last > first+first/2+8<<10 {
		t.Errorf("the memory grows from %d to %d MiB", first>>10, last>>10)
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
	body := strings.Repeat("A line of text such as people write in their mail, over and over.\r\n", 30)
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
