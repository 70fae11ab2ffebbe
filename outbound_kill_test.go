package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// nextServerVariable makes the test binary an appliance whose other servers are in the test: "DNS PORT".
const nextServerVariable = "APPLIANCE_TEST_NEXT"

// stepVariable names a step of Rules.Deliver at which such an appliance ends as if it were killed.
const stepVariable = "APPLIANCE_TEST_STEP"

func endAtStep(name string) {
	if name != os.Getenv(stepVariable) {
		return
	}
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Kill()
	}
	select {}
}

// runTowards is run of the command run, for such an appliance.
func runTowards(next string, args []string) int {
	dns, port, _ := strings.Cut(next, " ")
	number, err := strconv.Atoi(port)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	c := &call{stdin: strings.NewReader(""), stdout: io.Discard, stderr: os.Stderr, adjust: func(s *Sender) {
		s.Resolver, s.Port = &Resolver{Servers: []string{dns}}, number
	}, adjustOutbound: func(cfg *OutboundConfig) { cfg.step = endAtStep }}
	return c.do(context.Background(), args)
}

// killWorld is an appliance in a process of its own, that is killed again and again.
type killWorld struct {
	t       *testing.T
	data    string
	offset  int
	next    string
	step    string // at which it ends; "": at none
	process *exec.Cmd
	number  int
	most    int       // so many are submitted
	sure    []string  // subjects of messages that were taken
	stderr  io.Writer // of the appliance; nil: ours

	longer time.Duration // than usual a kill may wait
}

func (w *killWorld) start() {
	w.t.Helper()
	w.process = exec.Command(os.Args[0], "run", "--data", w.data, "--listen", "127.0.0.1", "--port-offset", strconv.Itoa(w.offset), "--log-level", "error")
	w.process.Env = append(os.Environ(), nextServerVariable+"="+w.next, stepVariable+"="+w.step)
	w.process.Stderr = w.stderr
	if w.stderr == nil {
		w.process.Stderr = os.Stderr
	}
	if err := w.process.Start(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *killWorld) kill() {
	_ = w.process.Process.Kill()
	_ = w.process.Wait() // it tells of the kill
}

// submitUntil submits messages until a kill breaks the connection.
func (w *killWorld) submitUntil(killed <-chan struct{}) {
	var conn net.Conn
	for {
		select {
		case <-killed:
			return
		default:
		}
		var err error
		if conn, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", 587+w.offset)); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	in := bufio.NewReader(conn)
	say := func(line, want string) bool {
		if line != "" {
			if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
				return false
			}
		}
		got, err := in.ReadString('\n')
		for err == nil && strings.HasPrefix(got, "250-") {
			got, err = in.ReadString('\n')
		}
		if err == nil && !strings.HasPrefix(got, want) {
			w.t.Errorf("%q: %s", line, got)
		}
		return err == nil
	}
	if !say("", "220") || !say("EHLO test", "250") || !say("AUTH PLAIN "+encodeLine("{plain ann@home.lan ann-secret}"), "235") {
		return
	}
	for len(w.sure) < w.most {
		w.number++
		subject := fmt.Sprintf("number-%d", w.number)
		if !say("MAIL FROM:<ann@home.lan>", "250") || !say("RCPT TO:<friend@friends.test>", "250") || !say("DATA", "354") ||
			!say("From: ann@home.lan\r\nSubject: "+subject+"\r\n\r\ntext\r\n.", "250 ") {
			return
		}
		w.sure = append(w.sure, subject)
	}
}

// up waits until the appliance has opened its ports.
func (w *killWorld) up() {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", 587+w.offset))
		if err == nil {
			conn.Close()
			return
		}
	}
	w.t.Error("the appliance does not open its ports")
}

// killSoon kills the appliance at a random moment: now and then while it starts, else while it works. The channel is closed
// when that is done.
func (w *killWorld) killSoon() <-chan struct{} {
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		if rand.IntN(4) > 0 {
			w.up()
		}
		time.Sleep(time.Duration(rand.Int64N(int64(400*time.Millisecond + w.longer))))
		w.kill()
	}()
	return killed
}

// TestOutboundKill kills the appliance while mail comes in and goes out: what was taken arrives. A message arrives twice only
// if the next server had it when the kill came and this one had not noted that yet: one for each connection that was open.
// APPLIANCE_TEST_KILLS is how often, and makes 1,000 messages wait for a slow server.
func TestOutboundKill(t *testing.T) {
	kills, most, pause := 12, 100_000, time.Duration(0)
	if n, err := strconv.Atoi(os.Getenv("APPLIANCE_TEST_KILLS")); err == nil && n > 0 {
		kills, most, pause = n, 1000, 75*time.Millisecond
	}
	next := startNextServer(t)
	next.pause = pause
	dns := startDNS(t, "friends.test. MX 10 mx.friends.test.\nmx.friends.test. A 127.0.0.1")
	w := &killWorld{t: t, data: t.TempDir(), offset: freeOffset(t), next: dns.Servers[0] + " " + strconv.Itoa(next.port), most: most}
	settings := "domain = 'home.lan'\nsends_per_hour = 100000\n"
	if err := os.WriteFile(dataDir(w.data).settings(), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := runCommand(t, w.data, "ann-secret\n", "user", "add", "ann", "--password-stdin"); status != exitDone {
		t.Fatal(errs)
	}
	early := 0 // kills when nothing waited any more
	for round := 0; round < kills || len(w.sure) < kills && round < 3*kills; round++ {
		w.start()
		killed := w.killSoon()
		w.submitUntil(killed)
		<-killed
		if len(w.sure) < kills { // a busy machine takes longer than that to log in
			w.longer = min(2*w.longer+200*time.Millisecond, 5*time.Second)
		}
		next.mu.Lock()
		if len(w.sure) == most && len(next.got) >= most {
			early++
		}
		next.mu.Unlock()
	}
	w.start()
	defer w.kill()
	times := func() map[string]int {
		next.mu.Lock()
		defer next.mu.Unlock()
		count := map[string]int{}
		for _, m := range next.got {
			_, rest, _ := strings.Cut(m.text, "Subject: ")
			subject, _, _ := strings.Cut(rest, "\r\n")
			count[subject]++
		}
		return count
	}
	missing := func() (list []string) {
		count := times()
		for _, subject := range w.sure {
			if count[subject] == 0 {
				list = append(list, subject)
			}
		}
		return list
	}
	for end := time.Now().Add(60*time.Second + 2*time.Duration(most)*pause); len(missing()) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d messages are lost: %v", len(missing()), len(w.sure), missing())
		}
	}
	twice := 0
	for _, n := range times() {
		twice += n - 1
	}
	t.Logf("%d kills (%d when all had arrived), %d messages taken, none lost, %d arrived twice", kills, early, len(w.sure), twice)
	if twice > kills*queuePerHost {
		t.Errorf("%d messages arrived twice", twice)
	}
	if len(w.sure) < kills {
		t.Errorf("only %d messages were taken", len(w.sure))
	}
}
