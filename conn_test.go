package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// serverTLS makes a certificate for localhost and the two sides' settings.
func serverTLS(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: pool, ServerName: "localhost"}
}

// syncBuffer is a log that a test may read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// portServer is a Protocols that serves on free ports of 127.0.0.1.
type portServer struct {
	*Protocols
	ports  map[string]int
	log    *syncBuffer
	client *tls.Config
	stop   func() // shuts down and waits
	store  *Store // closed after it
	mail   string // the folder of all mail
}

// startPorts opens and serves p until the test ends. It fails the test when
// goroutines are left over after that.
func startPorts(t testing.TB, p *Protocols) *portServer {
	t.Helper()
	before := goroutinesOf(t)
	s := &portServer{Protocols: p, ports: map[string]int{}, log: &syncBuffer{}}
	p.TLS, s.client = serverTLS(t)
	p.Listen, p.anyPort, p.Hostname = "127.0.0.1", true, "mail.test"
	p.Log = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	setDefault(&p.limits.Linger, 20*time.Millisecond)
	ports, _, err := p.Open()
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range ports {
		s.ports[port.Name] = port.Number
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Serve(ctx); err != nil {
			t.Error(err)
		}
	}()
	s.stop = func() { cancel(); <-done }
	t.Cleanup(func() {
		s.stop()
		if s.store != nil {
			if err := s.store.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, fuzzing := t.(*testing.F); fuzzing {
			return // its engine has goroutines of its own
		}
		for range 200 {
			if goroutinesOf(t) <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		buf := make([]byte, 1<<20)
		t.Errorf("goroutines are left over:\n%s", buf[:runtime.Stack(buf, true)])
	})
	return s
}

// goroutinesOf counts the goroutines that a test has started since it called this first, and those that they have started, so
// that tests can run at once. Goroutines inherit the label by which it knows them.
func goroutinesOf(t testing.TB) int {
	t.Helper()
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("test", t.Name())))
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		t.Fatal(err)
	}
	return labelled(profile.String(), t.Name())
}

// labelled counts in a profile of goroutines those with a label: for each stack a line begins with their number, and the next
// one has the labels.
func labelled(profile, test string) (n int) {
	stacks := 0
	for line := range strings.Lines(profile) {
		if number, _, ok := strings.Cut(line, " @ "); ok {
			stacks, _ = strconv.Atoi(number)
		} else if strings.HasPrefix(line, "# labels:") && strings.Contains(line, fmt.Sprintf("%q:%q", "test", test)) {
			n += stacks
		}
	}
	return n
}

// TestGoroutinesOf makes sure that a goroutine that is left over is seen, and those of other tests are not.
func TestGoroutinesOf(t *testing.T) {
	t.Parallel()
	if n := goroutinesOf(t); n != 1 {
		t.Errorf("%d goroutines, not this one alone", n)
	}
	end := make(chan struct{})
	var all sync.WaitGroup
	started := make(chan struct{})
	all.Go(func() {
		all.Go(func() { close(started); <-end })
		<-end
	})
	<-started
	if n := goroutinesOf(t); n != 3 {
		t.Errorf("%d goroutines, not this one, one that it started, and one that this started", n)
	}
	close(end)
	all.Wait()
	for deadline := time.Now().Add(20 * time.Second); goroutinesOf(t) > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("goroutines that have ended are counted")
		}
	}
}

// dial connects to a port by its name.
func (s *portServer) dial(t testing.TB, name string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.ports[name]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// lineServer is a table with one port, "line", that answers each line by f; f
// gives false to end the session.
func lineServer(implicit bool, f func(c *Conn, line string) bool) []portSpec {
	serve := func(_ context.Context, c *Conn, _ *Protocols) {
		for {
			line, err := c.Reader().ReadString('\n')
			if err != nil {
				fmt.Fprintf(c.Writer(), "end %v\n", errKind(err))
				return
			}
			if !f(c, strings.TrimSpace(line)) {
				return
			}
			if c.Writer().Flush() != nil {
				return
			}
		}
	}
	return []portSpec{{1, "line", implicit, serve, "busy: "}}
}

func errKind(err error) string {
	switch {
	case errors.Is(err, ErrShutdown):
		return "shutdown"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.Is(err, io.EOF):
		return "eof"
	}
	return err.Error()
}

func echo(c *Conn, line string) bool {
	fmt.Fprintf(c.Writer(), "> %s\n", line)
	return true
}

func readAll(t testing.TB, c net.Conn) string {
	t.Helper()
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

func TestConnSilentClientEnds(t *testing.T) {
	s := startPorts(t, &Protocols{specs: lineServer(false, echo), limits: connLimits{PreLogin: 30 * time.Millisecond}})
	if got := readAll(t, s.dial(t, "line")); got != "end timeout\n" {
		t.Errorf("got %q", got)
	}
}

func TestConnTrickleEnds(t *testing.T) {
	// Each byte comes within the idle time, but the transfer is slower than MinRate.
	s := startPorts(t, &Protocols{specs: lineServer(false, echo), limits: connLimits{Slack: 60 * time.Millisecond}})
	c := s.dial(t, "line")
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				_, _ = c.Write([]byte("x"))
			}
		}
	})
	line, err := bufio.NewReader(c).ReadString('\n')
	close(stop)
	writer.Wait()
	if line != "end timeout\n" {
		t.Errorf("got %q, %v", line, err)
	}
}

// deadlineRecorder notes the read deadlines that are set.
type deadlineRecorder struct {
	net.Conn
	deadlines []time.Time
}

func (d *deadlineRecorder) SetReadDeadline(t time.Time) error {
	d.deadlines = append(d.deadlines, t)
	return nil
}

func TestConnDeadlinesSlide(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	rec := &deadlineRecorder{Conn: ours}
	limits := connLimits{Slack: time.Minute, MinRate: 10}.withDefaults()
	c := newDeadlineConn(rec, limits)
	c.setIdle(time.Hour)
	go func() {
		for range 4 {
			_, _ = theirs.Write(make([]byte, 100)) // the reader sees what is missing
		}
	}()
	buf := make([]byte, 100)
	began := time.Now()
	read := func() time.Time {
		t.Helper()
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Fatal(err)
		}
		return rec.deadlines[len(rec.deadlines)-1]
	}
	// Waiting for a transfer may take the idle time, the transfer its slack and ten
	// seconds more for each hundred bytes.
	if d := read(); d.Before(began.Add(time.Hour)) {
		t.Errorf("idle: %v", d.Sub(began))
	}
	second, third := read(), read()
	if second.After(time.Now().Add(limits.Slack+10*time.Second)) || third.Sub(second) != 10*time.Second {
		t.Errorf("transfer: %v, then %v more", second.Sub(began), third.Sub(second))
	}
	// What is sent to the client ends the transfer.
	go func() { _, _ = io.ReadFull(theirs, make([]byte, 2)) }()
	if _, err := c.Write([]byte("ok")); err != nil {
		t.Fatal(err)
	}
	if d := read(); d.Before(began.Add(time.Hour)) {
		t.Errorf("idle again: %v", d.Sub(began))
	}
}

func TestConnEndsWithoutLogin(t *testing.T) {
	s := startPorts(t, &Protocols{specs: lineServer(false, echo), limits: connLimits{Login: 50 * time.Millisecond}})
	if got := readAll(t, s.dial(t, "line")); !strings.HasPrefix(got, "end timeout") && got != "" {
		t.Errorf("got %q", got)
	}
}

func TestConnStartTLS(t *testing.T) {
	starttls := func(c *Conn, line string) bool {
		if line != "tls" {
			fmt.Fprintf(c.Writer(), "%v %v %v\n", line, c.TLS() != nil, c.MayLogin())
			return true
		}
		fmt.Fprint(c.Writer(), "go\n")
		if c.Writer().Flush() != nil {
			return false
		}
		if err := c.StartTLS(); err != nil {
			fmt.Fprintf(c.Writer(), "%v\n", err)
			return false
		}
		return true
	}
	s := startPorts(t, &Protocols{specs: lineServer(false, starttls)})

	c := s.dial(t, "line")
	fmt.Fprint(c, "tls\n")
	if line, _ := bufio.NewReader(c).ReadString('\n'); line != "go\n" {
		t.Fatalf("got %q", line)
	}
	secure := tls.Client(c, s.client)
	fmt.Fprint(secure, "hello\n")
	if line, err := bufio.NewReader(secure).ReadString('\n'); line != "hello true true\n" {
		t.Errorf("got %q, %v", line, err)
	}

	c = s.dial(t, "line")
	fmt.Fprint(c, "tls\ninjected\n")
	if got := readAll(t, c); got != "go\n"+ErrPlaintextAfterStartTLS.Error()+"\n" {
		t.Errorf("injected plaintext: got %q", got)
	}
}

func TestConnHandshakeTimeout(t *testing.T) {
	s := startPorts(t, &Protocols{specs: lineServer(true, echo), limits: connLimits{Handshake: 30 * time.Millisecond}})
	if got := readAll(t, s.dial(t, "line")); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestConnWaitInputHoldsNoBuffer(t *testing.T) {
	wait := func(_ context.Context, c *Conn, _ *Protocols) {
		for {
			c.ReleaseBuffers()
			if err := c.WaitInput(); err != nil {
				return
			}
			if c.r != nil || c.w != nil {
				fmt.Fprintln(c.Writer(), "a buffer is held")
			}
			line, err := c.Reader().ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprintf(c.Writer(), "> %s", line)
			if c.Writer().Flush() != nil {
				return
			}
		}
	}
	s := startPorts(t, &Protocols{specs: []portSpec{{1, "line", true, wait, ""}}})
	c := tls.Client(s.dial(t, "line"), s.client)
	r := bufio.NewReader(c)
	for i := range 3 {
		fmt.Fprintf(c, "line %d\n", i)
		if line, err := r.ReadString('\n'); line != fmt.Sprintf("> line %d\n", i) {
			t.Fatalf("got %q, %v", line, err)
		}
	}
}

func TestPanicEndsOneSession(t *testing.T) {
	bomb := func(c *Conn, line string) bool {
		if line == "boom" {
			panic("out of order")
		}
		return echo(c, line)
	}
	s := startPorts(t, &Protocols{specs: lineServer(false, bomb)})
	other := s.dial(t, "line")
	c := s.dial(t, "line")
	fmt.Fprint(c, "boom\n")
	if got := readAll(t, c); got != "" {
		t.Errorf("got %q", got)
	}
	fmt.Fprint(other, "still here\n")
	if line, err := bufio.NewReader(other).ReadString('\n'); line != "> still here\n" {
		t.Errorf("got %q, %v", line, err)
	}
	if log := s.log.String(); !strings.Contains(log, "out of order") || !strings.Contains(log, "stack=") || !strings.Contains(log, "conn=2") {
		t.Errorf("log: %s", log)
	}
}

func TestConnectionCaps(t *testing.T) {
	s := startPorts(t, &Protocols{specs: lineServer(false, echo), limits: connLimits{PerLAN: 2}})
	var kept []net.Conn
	for range 2 {
		c := s.dial(t, "line")
		fmt.Fprint(c, "x\n")
		if line, err := bufio.NewReader(c).ReadString('\n'); line != "> x\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		kept = append(kept, c)
	}
	if got := readAll(t, s.dial(t, "line")); got != "busy: Too many connections from your address, try again later\r\n" {
		t.Errorf("third connection: %q", got)
	}
	kept[0].Close()
	for range 200 { // until the server has seen it
		c := s.dial(t, "line")
		fmt.Fprint(c, "again\n")
		if line, _ := bufio.NewReader(c).ReadString('\n'); line == "> again\n" {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("no connection after one was closed")
}

func TestShutdownOfSessions(t *testing.T) {
	started := make(chan struct{})
	serve := func(c *Conn, line string) bool {
		if line != "body" {
			return echo(c, line)
		}
		c.Busy(true)
		close(started)
		rest, err := c.Reader().ReadString('\n')
		c.Busy(false)
		fmt.Fprintf(c.Writer(), "got %s%v\n", rest, err)
		return true
	}
	s := startPorts(t, &Protocols{specs: lineServer(false, serve)})
	idle, busy := s.dial(t, "line"), s.dial(t, "line")
	fmt.Fprint(idle, "x\n")
	r := bufio.NewReader(idle)
	if line, err := r.ReadString('\n'); line != "> x\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	fmt.Fprint(busy, "body\n")
	<-started
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	if line, err := r.ReadString('\n'); line != "end shutdown\n" {
		t.Errorf("idle session: %q, %v", line, err)
	}
	fmt.Fprint(busy, "the rest\n")
	if got := readAll(t, busy); got != "got the rest\n<nil>\nend shutdown\n" {
		t.Errorf("busy session: %q", got)
	}
	<-stopped
}

func TestShutdownByForce(t *testing.T) {
	serve := func(c *Conn, line string) bool {
		c.Busy(true)
		_, err := c.Reader().ReadString('\n')
		return err == nil
	}
	s := startPorts(t, &Protocols{specs: lineServer(false, serve), limits: connLimits{Shutdown: 50 * time.Millisecond}})
	c := s.dial(t, "line")
	fmt.Fprint(c, "body\n")
	s.stop()
	if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open")
	}
}

func TestOpenSaysWhichPortIsInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := l.Addr().(*net.TCPAddr).Port
	p := &Protocols{specs: lineServer(false, echo), Listen: "127.0.0.1", Offset: n - 1}
	_, _, err = p.Open()
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("port %d (line) is in use by another program", n)) {
		t.Errorf("got %v", err)
	}
}

func TestOpenBindsAllOrNone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	free := freeOffset(t) + portTable()[0].number
	specs := append(lineServer(false, echo), lineServer(false, echo)...)
	specs[0].number, specs[1].number = free, taken
	p := &Protocols{specs: specs, Listen: "127.0.0.1"}
	if _, _, err := p.Open(); err == nil {
		t.Fatal("opened a port that is taken")
	}
	again, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", free))
	if err != nil {
		t.Fatalf("the first port is still bound: %v", err)
	}
	again.Close()
}

func TestOpenShiftsRefusedPorts(t *testing.T) {
	var asked []string
	refuse := func(address string) (net.Listener, error) {
		asked = append(asked, address)
		if _, port, _ := net.SplitHostPort(address); len(port) < 4 {
			return nil, &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)}
		}
		return net.Listen("tcp", "127.0.0.1:0")
	}
	p := &Protocols{listen: refuse}
	ports, shifted, err := p.Open()
	if err != nil || !shifted || len(ports) != 7 {
		t.Fatalf("%v, shifted %v, %v", ports, shifted, err)
	}
	p.Close()
	if want := ":25 :1025 :1465 :1587 :1110 :1995 :1143 :1993"; strings.Join(asked, " ") != want {
		t.Errorf("asked for %v", asked)
	}
	p = &Protocols{listen: refuse, Offset: 100}
	if _, _, err := p.Open(); err == nil || !strings.Contains(err.Error(), "port 125 (smtp) is refused by the operating system") {
		t.Errorf("got %v", err)
	}
}
