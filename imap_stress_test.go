package main

import (
	"bytes"
	"cmp"
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
	"slices"
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
)

// stressProfiles are the kinds of clients.
var stressProfiles = [stressSessions]modelProfile{
	{},
	{qresync: true},
	{secure: true, compress: true, rev2: true},
	{secure: true, compress: true, rev2: true, qresync: true},
	{condstore: true},
	{secure: true, qresync: true, utf8: true},
	{compress: true},
	{rev2: true, condstore: true, secure: true},
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
	stopped    atomic.Bool
	selections atomic.Int64
}

// stressServer is the server under test.
type stressServer interface {
	// address gives where IMAP is served and, for a secure port, what TLS needs.
	address(secure bool) (string, *tls.Config)
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
// APPLIANCE_TEST_TRACE is a directory for all that the session was told which finds a disagreement.
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
			own: fmt.Sprintf("$Own%d", n), remembered: map[string]*modelBox{},
			trace: modelTrace{all: os.Getenv("APPLIANCE_TEST_TRACE") != ""}})
	}
	r.outside = &outsider{run: r, rnd: rand.New(rand.NewPCG(seed, 1000)), markers: map[string]int{}}
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
	}
	r.t.Logf("%d commands, %d messages made, %d changes by another program, %d restarts", total, len(r.facts.texts), r.outside.changes, r.server.lives())
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

// settle says whether a session may go on after an error: the server may have been restarted, or the mailbox deleted.
func (r *stress) settle(s *modelSession, err error) bool {
	switch {
	case err == nil:
		return true
	case r.stopped.Load():
		return false
	case (errors.Is(err, errDeleted) || errors.Is(err, errLost)) && s.box != nil && !isShared(s.box.name),
		(errors.Is(err, errLost) || errors.Is(err, errRefused)) && r.server.lives() != s.life:
		s.disconnect()
		return true
	}
	r.fail(s, err)
	return false
}

// fail reports a disagreement and ends the run.
func (r *stress) fail(s *modelSession, err error) {
	if !r.stopped.Swap(true) {
		box := "nothing"
		if s.box != nil {
			box = fmt.Sprintf("%s, up to MODSEQ %d", s.box.name, s.box.modseq)
		}
		if dir := os.Getenv("APPLIANCE_TEST_TRACE"); dir != "" {
			_ = os.WriteFile(filepath.Join(dir, fmt.Sprintf("session%d.txt", s.n)), []byte(s.trace.last(len(s.trace.lines))), 0o600)
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
	s.start(t)
	return s
}

func (s *processServer) start(t *testing.T) {
	store, err := OpenStore(StoreConfig{MailDir: filepath.Join(s.dir, "mail"), IndexDir: filepath.Join(s.dir, "index"), Host: "mail.test",
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	p := &Protocols{Accounts: s.accounts, Store: store, MaxSize: 1 << 20}
	p.specs = []portSpec{{143, "imap", false, serveIMAP, "* BYE busy\r\n"}, {993, "imaps", true, serveIMAP, ""}}
	s.portServer = startPorts(t, p)
	s.portServer.store = store
	s.logs = append(s.logs, s.portServer.log)
}

func (s *processServer) address(secure bool) (string, *tls.Config) {
	if secure {
		return fmt.Sprintf("127.0.0.1:%d", s.ports["imaps"]), s.client
	}
	return fmt.Sprintf("127.0.0.1:%d", s.ports["imap"]), nil
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
	if status, _, errs := runCommand(t, s.data, imapPassword+"\n", "user", "add", stressAccount, "--password-stdin"); status != exitDone {
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
	address, _ := s.address(true)
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

func (s *childServer) address(secure bool) (string, *tls.Config) {
	if secure {
		return fmt.Sprintf("127.0.0.1:%d", 993+s.offset), &tls.Config{RootCAs: s.roots, ServerName: "127.0.0.1"}
	}
	return fmt.Sprintf("127.0.0.1:%d", 143+s.offset), nil
}

func (s *childServer) lives() int { return int(s.ends.Load()) }

func (s *childServer) restart(t *testing.T, kill bool) {
	s.ends.Add(1)
	s.stop(t, kill)
	s.start(t)
}

func (s *childServer) mail() string { return filepath.Join(s.data, "mail", "home.lan", "stress") }

func (s *childServer) log() string { return s.stderr.String() }

// outsider is another program that works on the Maildir, as mutt and mbsync do.
type outsider struct {
	run     *stress
	rnd     *rand.Rand
	markers map[string]int // by base
	changes int
}

// folderPath gives the directory of a folder.
func (r *stress) folderPath(name string) string {
	if name == "INBOX" {
		return r.server.mail()
	}
	return filepath.Join(r.server.mail(), "."+strings.ReplaceAll(name, "/", "."))
}

// work does something every few milliseconds, whether the server is up or not.
func (o *outsider) work() {
	for !o.run.stopped.Load() {
		o.run.calm.RLock()
		if o.change() {
			o.changes++
		}
		o.run.calm.RUnlock()
		time.Sleep(time.Duration(5+o.rnd.IntN(40)) * time.Millisecond)
	}
}

// change does one thing, and says whether it could.
func (o *outsider) change() bool {
	dir := o.run.folderPath([]string{"INBOX", "INBOX", "Work", "Archive"}[o.rnd.IntN(4)])
	sub := []string{"cur", "cur", "cur", "new"}[o.rnd.IntN(4)]
	entries, err := os.ReadDir(filepath.Join(dir, sub))
	if err != nil {
		return false
	}
	action := o.rnd.IntN(10)
	if action < 3 || len(entries) == 0 {
		return len(entries) < stressCrowd && o.add(dir)
	}
	name := entries[o.rnd.IntN(len(entries))].Name()
	path := filepath.Join(dir, sub, name)
	base, info := splitName(name)
	marker := o.marker(path)
	if marker == 0 {
		return false
	}
	if action == 3 {
		return !kept(marker) && os.Remove(path) == nil
	}
	letters := strings.TrimPrefix(info[min(1, len(info)):], "2,")
	if letter := []string{"S", "F", "R"}[o.rnd.IntN(3)]; strings.Contains(letters, letter) {
		letters = strings.Replace(letters, letter, "", 1)
	} else {
		letters += letter
	}
	if action == 4 && !kept(marker) && !strings.Contains(letters, "T") {
		letters += "T"
	}
	sorted := []byte(letters)
	slices.Sort(sorted)
	return os.Rename(path, filepath.Join(dir, "cur", fmt.Sprintf("%s%c2,%s", base, infoSeparator(), sorted))) == nil
}

// add delivers a message, into new or with flags into cur, with sizes in its name or without, with CRLF or LF.
func (o *outsider) add(dir string) bool {
	marker, made := o.run.facts.newText("")
	text := made.text
	if o.rnd.IntN(2) == 0 {
		text = strings.ReplaceAll(text, "\r\n", "\n")
	}
	base := fmt.Sprintf("%d.M%dP%dQ%d.outside", time.Now().Unix(), time.Now().Nanosecond()/1000, os.Getpid(), marker)
	if o.rnd.IntN(2) == 0 {
		base += fmt.Sprintf(",S=%d", len(text))
		if o.rnd.IntN(2) == 0 {
			base += fmt.Sprintf(",W=%d", len(made.text))
		}
	}
	tmp := filepath.Join(dir, "tmp", base)
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return false
	}
	to := filepath.Join(dir, "new", base)
	if o.rnd.IntN(2) == 0 {
		to = filepath.Join(dir, "cur", fmt.Sprintf("%s%c2,%s", base, infoSeparator(), []string{"", "S", "FS"}[o.rnd.IntN(3)]))
	}
	return os.Rename(tmp, to) == nil
}

// marker finds which message a file is, 0 when it cannot be read.
func (o *outsider) marker(path string) int {
	base, _ := splitName(filepath.Base(path))
	if m := o.markers[base]; m != 0 {
		return m
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	header, _, _ := bytes.Cut(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\n\n"))
	for line := range strings.Lines(string(header)) {
		if strings.HasPrefix(line, "Message-ID:") {
			o.markers[base] = markerIn(line)
		}
	}
	return o.markers[base]
}

// diskMessage is a message as the files tell it.
type diskMessage struct {
	uid    uint32
	marker int
	flags  string
}

// onDisk reads a folder as any other program may: the files, dovecot-uidlist and dovecot-keywords.
func (o *outsider) onDisk(dir string) ([]diskMessage, error) {
	uids := map[string]uint32{}
	list, err := os.ReadFile(filepath.Join(dir, "dovecot-uidlist"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(list)) {
		if number, rest, ok := strings.Cut(strings.TrimSpace(line), " :"); ok {
			uid, _ := strconv.ParseUint(strings.Fields(number)[0], 10, 32)
			uids[rest] = uint32(uid)
		}
	}
	keywords := map[byte]string{}
	text, _ := os.ReadFile(filepath.Join(dir, "dovecot-keywords"))
	for line := range strings.Lines(string(text)) {
		number, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, _ := strconv.Atoi(number)
		keywords['a'+byte(n)] = name
	}
	for letter, name := range map[byte]string{'S': `\Seen`, 'F': `\Flagged`, 'R': `\Answered`, 'D': `\Draft`, 'T': `\Deleted`} {
		keywords[letter] = name
	}
	var msgs []diskMessage
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			base, info := splitName(e.Name())
			var flags []string
			for i := 3; i < len(info); i++ {
				flags = append(flags, keywords[info[i]])
			}
			slices.Sort(flags)
			msgs = append(msgs, diskMessage{uids[base], o.marker(filepath.Join(dir, sub, e.Name())), strings.Join(flags, " ")})
		}
	}
	slices.SortFunc(msgs, func(a, b diskMessage) int { return cmp.Compare(a.uid, b.uid) })
	return msgs, nil
}
