package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	stressAccount  = "stress@home.lan"
	stressSessions = 10
	stressShort    = 2 * time.Second // how long it runs unless APPLIANCE_TEST_STRESS says otherwise
	stressEnough   = 4000            // among so many commands each kind comes, as good as always
)

// stressQuota is the account's quota, which nobody reaches.
var stressQuota = Quota{Bytes: 1 << 40, Messages: 1e6}

// stressProfiles are the kinds of clients.
var stressProfiles = [stressSessions]modelProfile{
	{},
	{qresync: true},
	{secure: true, compress: true, rev2: true},
	{secure: true, compress: true, rev2: true, qresync: true},
	{condstore: true, startTLS: true},
	{secure: true, qresync: true, utf8: true},
	{compress: true, sasl: true},
	{rev2: true, condstore: true, secure: true, sasl: true},
	{secure: true}, // uses CONDSTORE at some time
	{compress: true, qresync: true},
}

// stress is a run of the test: ten sessions, a server that is restarted, and another program on the same Maildir.
type stress struct {
	t        *testing.T
	server   stressServer
	facts    *stressFacts
	sessions []*modelSession
	rnd      *rand.Rand
	outside  *outsider

	up         sync.RWMutex // held for reading while a session connects, for writing while the server is down
	calm       sync.RWMutex // held for reading by whoever does something
	alone      bool         // one session does things while the others keep still
	mail       *mailer
	stopped    atomic.Bool
	selections atomic.Int64
}

// stressServer is the server under test.
type stressServer interface {
	// address gives where a port is, by its name, and what TLS needs there.
	address(port string) (string, *tls.Config)
	// lives counts the restarts; it goes up before the server is stopped.
	lives() int
	// restart stops or kills the server and starts it again on the same data.
	restart(t *testing.T, kill bool)
	// mail is the Maildir.
	mail() string
	// log is all that was logged.
	log() string
}

// TestIMAPStress lets ten clients of different kinds do everything at random on the same folders, while another program
// touches the files and the server is restarted, or killed. Each client checks every reply against what it was told
// before, and against what the others were told. Now and then, and in the end, all keep still and must agree with each
// other and with the disk.
//
// APPLIANCE_TEST_STRESS is how long it runs (30s), APPLIANCE_TEST_SEED the seed of a run that is to be repeated.
// APPLIANCE_TEST_TRACE is a directory for all that was said in a run that fails.
func TestIMAPStress(t *testing.T) {
	length := stressShort
	if text := os.Getenv("APPLIANCE_TEST_STRESS"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	seed := rand.Uint64()
	if text := os.Getenv("APPLIANCE_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	for name, start := range map[string]func(*testing.T) stressServer{"restarted": startInProcess, "killed": startChild} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" && name == "killed" {
				t.Skip("a process cannot be asked to end")
			}
			t.Logf("seed %d: APPLIANCE_TEST_SEED=%d repeats the choices", seed, seed)
			newStress(t, start(t), seed).run(length, name == "killed")
		})
	}
}

func newStress(t *testing.T, server stressServer, seed uint64) *stress {
	r := &stress{t: t, server: server, facts: newStressFacts(), rnd: rand.New(rand.NewPCG(seed, 1))}
	for n, profile := range stressProfiles {
		r.sessions = append(r.sessions, &modelSession{run: r, n: n, profile: profile, rnd: rand.New(rand.NewPCG(seed, uint64(n+2))),
			own: fmt.Sprintf("$Own%d", n), owned: map[messageKey]bool{}, remembered: map[string]*modelBox{}, notes: map[string]string{}, grants: map[string]string{},
			trace: modelTrace{all: os.Getenv("APPLIANCE_TEST_TRACE") != ""}})
	}
	r.mail = &mailer{run: r, rnd: rand.New(rand.NewPCG(seed, 1001))}
	r.outside = &outsider{run: r, rnd: rand.New(rand.NewPCG(seed, 1000)), markers: map[string]int{}, trace: modelTrace{all: os.Getenv("APPLIANCE_TEST_TRACE") != ""}}
	return r
}

// run is the test.
func (r *stress) run(length time.Duration, kill bool) {
	first := r.sessions[0]
	err := first.connect()
	for _, name := range stressFolders {
		if err == nil && name != "INBOX" {
			err = first.do(&exchange{command: "CREATE " + name, may: []string{"ALREADYEXISTS"}})
		}
	}
	if err != nil {
		r.t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, s := range r.sessions {
		wg.Go(func() { r.drive(s) })
	}
	wg.Go(r.outside.work)
	wg.Go(r.mail.work)
	end := time.Now().Add(length)
	for round := 0; time.Now().Before(end) && !r.stopped.Load(); round++ {
		time.Sleep(min(time.Until(end), max(length/8, time.Second)))
		if r.rnd.IntN(3) == 0 || length < 5*time.Second {
			r.compareAll()
		}
		r.restart(kill && r.rnd.IntN(3) > 0)
	}
	time.Sleep(min(length/8, time.Second))
	r.compareAll()
	r.stopped.Store(true)
	wg.Wait()
	total := 0
	for _, s := range r.sessions {
		total += s.done
		s.disconnect()
		s.trace.save(r, fmt.Sprintf("session%d", s.n))
	}
	r.outside.trace.save(r, "outside")
	if unused := r.facts.unused(); total >= stressEnough && len(unused) > 0 && !r.t.Failed() {
		r.t.Errorf("nobody has used %s", strings.Join(unused, ", "))
	}
	r.t.Logf("%d commands, %d messages made, %d changes by another program, %d messages delivered, %d fetched by POP3, %d restarts",
		total, len(r.facts.texts), r.outside.changes, len(r.mail.promised), r.mail.fetched, r.server.lives())
	for _, word := range []string{"panic", "command failed", "DATA RACE", "damaged"} {
		if log := r.server.log(); strings.Contains(log, word) {
			at := strings.Index(log, word)
			r.t.Errorf("the log has %q:\n%s", word, log[max(0, at-500):min(len(log), at+4000)])
		}
	}
}

// drive lets a session do things until the end.
func (r *stress) drive(s *modelSession) {
	for !r.stopped.Load() {
		r.calm.RLock()
		ok := r.settle(s, s.once())
		r.calm.RUnlock()
		if !ok {
			return
		}
	}
}

// once connects if need be, while the server is up, and does one thing.
func (s *modelSession) once() error {
	if s.conn == nil {
		s.run.up.RLock()
		defer s.run.up.RUnlock()
		return s.connect()
	}
	return s.act()
}

// settle says whether a session may go on after an error, if need be with a new connection.
func (r *stress) settle(s *modelSession, err error) bool {
	switch {
	case err == nil:
		return true
	case r.stopped.Load():
		return false
	case s.expected(err):
		s.disconnect()
		return true
	}
	r.fail(s, err)
	return false
}

// expected says whether an error is none: the server was restarted, or the selected folder deleted.
func (s *modelSession) expected(err error) bool {
	switch {
	case errors.Is(err, errDeleted):
		return s.aside
	case errors.Is(err, errLost):
		return s.box != nil && !isShared(s.box.name) || s.run.server.lives() != s.life
	case errors.Is(err, errNoMoreNews):
		return s.notifying
	case errors.Is(err, errRefused):
		return s.run.server.lives() != s.life
	}
	return false
}

// fail reports a disagreement and ends the run.
func (r *stress) fail(s *modelSession, err error) {
	if !r.stopped.Swap(true) {
		box := "nothing"
		if s.box != nil {
			box = fmt.Sprintf("%s, up to MODSEQ %d", s.box.name, s.box.modseq)
		}
		r.t.Errorf("session %d %+v with %s: %v\nIt has heard:\n%s", s.n, s.profile, box, err, s.trace.last(40))
	}
}

// restart restarts the server while the sessions go on.
func (r *stress) restart(kill bool) {
	r.up.Lock()
	defer r.up.Unlock()
	r.facts.mu.Lock()
	if kill {
		r.facts.kills++
	}
	r.facts.mu.Unlock()
	r.server.restart(r.t, kill)
}

// processServer is a server in this process.
type processServer struct {
	*portServer
	dir      string
	accounts *Accounts
	ends     atomic.Int64
	logs     []*syncBuffer
}

func startInProcess(t *testing.T) stressServer {
	s := &processServer{dir: t.TempDir(), accounts: openTestAccounts(t, "")}
	mustAdd(t, s.accounts, stressAccount, imapPassword)
	mustAdd(t, s.accounts, stressFriend, imapPassword)
	if _, err := s.accounts.SetQuota(stressAccount, QuotaChange{&stressQuota.Bytes, &stressQuota.Messages}); err != nil {
		t.Fatal(err)
	}
	s.start(t)
	return s
}

func (s *processServer) start(t *testing.T) {
	store, err := OpenStore(StoreConfig{MailDir: filepath.Join(s.dir, "mail"), IndexDir: filepath.Join(s.dir, "index"), Host: "mail.test",
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	store.quota = s.accounts.Quota
	s.portServer = startPorts(t, &Protocols{Accounts: s.accounts, Store: store, MaxSize: 1 << 20})
	s.portServer.store = store
	s.logs = append(s.logs, s.portServer.log)
}

func (s *processServer) address(port string) (string, *tls.Config) {
	return fmt.Sprintf("127.0.0.1:%d", s.ports[port]), s.client
}

func (s *processServer) lives() int { return int(s.ends.Load()) }

func (s *processServer) restart(t *testing.T, _ bool) {
	s.ends.Add(1)
	s.stop()
	if err := s.portServer.store.Close(); err != nil {
		t.Error(err)
	}
	s.start(t)
}

func (s *processServer) mail() string { return filepath.Join(s.dir, "mail", "home.lan", "stress") }

func (s *processServer) log() string {
	var all strings.Builder
	for _, log := range s.logs {
		all.WriteString(log.String())
	}
	return all.String()
}

// childServer is the appliance in a process of its own, which can be killed.
type childServer struct {
	data    string
	offset  int
	roots   *x509.CertPool
	process *exec.Cmd
	stderr  lockedBuffer
	ends    atomic.Int64
}

func startChild(t *testing.T) stressServer {
	s := &childServer{data: t.TempDir(), offset: freeOffset(t), roots: x509.NewCertPool()}
	startRun(t, s.data).stop(t) // makes the certificate
	for _, account := range []string{stressAccount, stressFriend} {
		if status, _, errs := runCommand(t, s.data, imapPassword+"\n", "user", "add", account, "--password-stdin"); status != exitDone {
			t.Fatal(errs)
		}
	}
	quota := []string{"user", "quota", stressAccount, fmt.Sprintf("%dG", stressQuota.Bytes>>30), "--messages", fmt.Sprint(stressQuota.Messages)}
	if status, _, errs := runCommand(t, s.data, "", quota...); status != exitDone {
		t.Fatal(errs)
	}
	ca, err := os.ReadFile(filepath.Join(s.data, "tls", "ca.pem"))
	if err != nil || !s.roots.AppendCertsFromPEM(ca) {
		t.Fatal("no certificate authority", err)
	}
	s.start(t)
	t.Cleanup(func() { s.stop(t, false) })
	return s
}

// start starts the process and waits until it listens.
func (s *childServer) start(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.process = exec.Command(self, "run", "--data", s.data, "--listen", "127.0.0.1", "--port-offset", strconv.Itoa(s.offset))
	s.process.Env = append(os.Environ(), "APPLIANCE_TEST_RUN=1", "GOCOVERDIR="+os.TempDir())
	s.process.Stderr = &s.stderr
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	address, _ := s.address("imaps")
	for range 2000 {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("it does not listen: %s", s.stderr.String())
}

// stop ends the process.
func (s *childServer) stop(t *testing.T, kill bool) {
	if s.process == nil {
		return
	}
	sig := os.Signal(syscall.SIGTERM)
	if kill {
		sig = os.Kill
	}
	if err := s.process.Process.Signal(sig); err != nil {
		t.Error(err)
	}
	if err := s.process.Wait(); err != nil && !kill {
		t.Errorf("it ends with %v: %s", err, s.stderr.String())
	}
	s.process = nil
}

func (s *childServer) address(port string) (string, *tls.Config) {
	for _, spec := range portTable() {
		if spec.name == port {
			return fmt.Sprintf("127.0.0.1:%d", spec.number+s.offset), &tls.Config{RootCAs: s.roots, ServerName: "127.0.0.1"}
		}
	}
	return "", nil
}

func (s *childServer) lives() int { return int(s.ends.Load()) }

func (s *childServer) restart(t *testing.T, kill bool) {
	s.ends.Add(1)
	s.stop(t, kill)
	s.start(t)
}

func (s *childServer) mail() string { return filepath.Join(s.data, "mail", "home.lan", "stress") }

func (s *childServer) log() string { return s.stderr.String() }
