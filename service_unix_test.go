//go:build !windows

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// oddPlan has all in it that could mean something to a shell, to systemd or in XML.
func oddPlan() *ServicePlan {
	odd := `/srv/my mail's "<&>" $x %h \n -- --> ü`
	return &ServicePlan{
		Program: "/usr/local/bin/appliance", Data: odd, User: "appliance",
		Args: []string{"run", "--service", "--data", odd, "--hostname", "mail.home.lan"}, Options: []string{"--data", odd, "--hostname", "mail.home.lan"},
	}
}

// The next installation knows what a person has asked for at this one.
func TestServiceFilesKeepOptions(t *testing.T) {
	plain := &ServicePlan{Program: "/usr/local/bin/appliance", Data: "/var/lib/appliance", Args: []string{"run"}}
	for _, s := range initSystems() {
		for _, plan := range []*ServicePlan{oddPlan(), plain} {
			text := s.script(plan)
			if got := planOptions([]byte(text)); !slices.Equal(got, plan.Options) {
				t.Errorf("%s: %q, want %q", s.name, got, plan.Options)
			}
			if strings.Contains(text, "%!") {
				t.Errorf("%s:\n%s", s.name, text)
			}
		}
	}
	if got := planOptions([]byte("# somebody else's")); got != nil {
		t.Errorf("%q", got)
	}
	if got := planOptions([]byte(optionsMark + "junk")); got != nil {
		t.Errorf("%q", got)
	}
}

func TestLaunchdFileIsXML(t *testing.T) {
	plan := oddPlan()
	var words []string
	in := xml.NewDecoder(strings.NewReader(launchdPlist(plan)))
	in.Strict = true
	inString := false
	for {
		token, err := in.Token()
		if token == nil {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			inString = token.Name.Local == "string"
		case xml.EndElement:
			inString = false
		case xml.CharData:
			if inString {
				words = append(words, string(token))
			}
		}
	}
	want := append([]string{serviceName, plan.Program}, plan.Args...)
	if len(words) < len(want) || !slices.Equal(words[:len(want)], want) {
		t.Errorf("got %q, want %q", words, want)
	}
}

// A shell that runs the scripts gives the program its words as they were meant.
func TestServiceScriptsQuote(t *testing.T) {
	plan := oddPlan()
	plan.Program = "printf"
	plan.Args = append([]string{`%s\n`}, plan.Args...)
	want := strings.Join(plan.Args[1:], "\n") + "\n"
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	openrc := file("openrc", openrcScript(plan))
	procd := file("procd", procdScript(plan))
	for name, script := range map[string]string{
		"OpenRC": fmt.Sprintf(`. '%s'; eval "$command $command_args"`, openrc),
		"procd": fmt.Sprintf(`procd_open_instance() { :; }; procd_close_instance() { :; }
procd_set_param() { [ "$1" != command ] || { shift; "$@"; }; }
. '%s'; start_service`, procd),
	} {
		out, err := exec.Command("sh", "-c", script).CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("%s: %v: got %q, want %q", name, err, out, want)
		}
	}
	if err := exec.Command("sh", "-n", file("sysv", sysvScript(plan))).Run(); err != nil {
		t.Errorf("the script of System V init: %v", err)
	}
}

// The script of System V init is run as that init would, with a program that does not stay.
func TestSysvScript(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	runs := filepath.Join(dir, "runs")
	plan := &ServicePlan{Program: "sh", Args: []string{"-c", "echo $$ >>" + runs + "; exec sleep 1000"}}
	script := filepath.Join(dir, serviceName)
	text := strings.NewReplacer("/run/$name.pid", filepath.Join(dir, "$name.pid"), "/etc/init.d/", dir+"/", "sleep 2 ", "sleep 0.1 ").Replace(sysvScript(plan))
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	call := func(word string, want int) {
		t.Helper()
		cmd := exec.Command(script, word)
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != want {
			t.Fatalf("%s: %d %v %s", word, code, err, out)
		}
	}
	started := func(n int) string {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			text, _ := os.ReadFile(runs)
			if list := strings.Fields(string(text)); len(list) >= n && bytes.HasSuffix(text, []byte("\n")) {
				return list[len(list)-1]
			}
			if time.Now().After(end) {
				t.Fatalf("it was not started %d times: %q", n, text)
			}
		}
	}
	call("status", 3)
	call("stop", 0)
	call("start", 0)
	t.Cleanup(func() { _ = exec.Command(script, "stop").Run() })
	first := started(1)
	call("status", 0)
	call("start", 0) // it runs already
	if err := exec.Command("kill", "-9", first).Run(); err != nil {
		t.Fatal(err)
	}
	second := started(2)
	call("restart", 0)
	third := started(3)
	if exec.Command("kill", "-0", second).Run() == nil {
		t.Error("the process from before the restart is still there")
	}
	call("stop", 0)
	call("status", 3)
	if exec.Command("kill", "-0", third).Run() == nil {
		t.Error("the process is still there after stop")
	}
	if _, err := os.Stat(filepath.Join(dir, serviceName+".pid")); !errors.Is(err, os.ErrNotExist) {
		t.Error("its number is left behind")
	}
}

// fakeInit is a service manager whose commands note down that they were called.
func fakeInit(t *testing.T) (s *initSystem, calls func() string) {
	dir := t.TempDir()
	notes := filepath.Join(dir, "calls")
	note := func(word string) [][]string {
		return [][]string{{"no-such-command-here"}, {"sh", "-c", "echo " + word + " >>" + notes}}
	}
	s = &initSystem{
		name: "test", file: filepath.Join(dir, "service"), mode: 0o755, script: func(p *ServicePlan) string { return "# " + p.optionsLine() + "\n" },
		reload: note("reload"), enable: note("enable"), disable: note("disable"), start: note("start"), stop: note("stop"),
		running: [][]string{{"test", "-e", filepath.Join(dir, "runs")}}, atBoot: [][]string{{"true"}}, left: []string{filepath.Join(dir, "left*")},
	}
	return s, func() string {
		text, _ := os.ReadFile(notes)
		_ = os.Remove(notes)
		return strings.Join(strings.Fields(string(text)), " ")
	}
}

// A service is stopped when it has ended, whatever the command that stops it says, and when it returns: launchctl says that the
// operation is in progress.
func TestInitSystemStops(t *testing.T) {
	s, _ := fakeInit(t)
	runs := s.running[0][2]
	if err := os.WriteFile(runs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.stop = [][]string{{"sh", "-c", "(sleep 0.5; rm " + runs + ") >/dev/null 2>&1 & echo in progress; exit 36"}}
	if err := s.Stop(t.Context()); err != nil || isThere(runs) {
		t.Errorf("%v, still there: %v", err, isThere(runs))
	}
	if err := os.WriteFile(runs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.stop = [][]string{{"true"}}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Stop(ctx); err == nil {
		t.Error("it goes on, and that is no error")
	}
}

func TestInitSystem(t *testing.T) {
	s, calls := fakeInit(t)
	if state := s.State(); state.Installed || state.Manager != "test" {
		t.Errorf("%+v", state)
	}
	undoFirst, err := s.Write(&ServicePlan{Options: []string{"--listen", "127.0.0.1"}})
	if err != nil || calls() != "reload enable" {
		t.Fatal(err)
	}
	if state := s.State(); !state.Installed || state.Running || !state.AtBoot || !slices.Equal(state.Options, []string{"--listen", "127.0.0.1"}) {
		t.Errorf("%+v", state)
	}
	if info, err := os.Stat(s.file); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v %v", info, err)
	}
	undo, err := s.Write(&ServicePlan{})
	if err != nil {
		t.Fatal(err)
	}
	if err := undo(); err != nil || len(s.State().Options) != 2 {
		t.Errorf("not brought back: %v %+v", err, s.State())
	}
	calls()
	if err := os.WriteFile(filepath.Join(filepath.Dir(s.file), "left1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := undoFirst(); err != nil || calls() != "disable reload" || s.State().Installed {
		t.Errorf("%v", err)
	}
	if left, _ := filepath.Glob(s.left[0]); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	s.enable = [][]string{{"sh", "-c", "echo it has no; echo room; exit 1"}}
	if _, err := s.Write(&ServicePlan{}); err == nil || !strings.Contains(err.Error(), "it has no room") || s.State().Installed {
		t.Errorf("%v %+v", err, s.State())
	}
	s.enable = [][]string{{"no-such-command-here"}}
	if _, err := s.Write(&ServicePlan{}); err == nil || !strings.Contains(err.Error(), "no-such-command-here is not there to speak to test") {
		t.Errorf("%v", err)
	}
}

func TestManagerIsTold(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "30000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	well := make(chan error, 100)
	ctx, cancel := context.WithCancel(t.Context())
	end := attendManager(ctx, func(context.Context) error { return <-well })
	next := func() string {
		t.Helper()
		_ = l.SetReadDeadline(time.Now().Add(20 * time.Second))
		buf := make([]byte, 100)
		n, err := l.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	if got := next(); got != "READY=1" {
		t.Error(got)
	}
	well <- nil
	if got := next(); got != "WATCHDOG=1" {
		t.Error(got)
	}
	well <- errors.New("it hangs") // and nothing is said
	cancel()
	close(well)
	for {
		got := next()
		if got == "STOPPING=1" {
			break
		}
		if got != "WATCHDOG=1" {
			t.Fatal(got)
		}
	}
	end()
}

func TestWatchdogPause(t *testing.T) {
	for _, test := range []struct {
		micros, pid string
		want        time.Duration
	}{{"", "", 0}, {"x", "", 0}, {"-3", "", 0}, {"3000000", "", time.Second}, {"3000000", "1", 0}, {"3000000", fmt.Sprint(os.Getpid()), time.Second}} {
		got := watchdogPause(func(name string) string {
			return map[string]string{"WATCHDOG_USEC": test.micros, "WATCHDOG_PID": test.pid}[name]
		})
		if got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

func TestStatus(t *testing.T) {
	data := homeData(t)
	status, out, errs := runCommand(t, data, "", "status")
	if status != exitFailed || out != "" || !strings.Contains(errs, "does not run with the data folder "+data) || !strings.Contains(errs, "appliance install") {
		t.Errorf("%d %q %q", status, out, errs)
	}
	status, out, _ = runCommand(t, data, "", "status", "--json")
	var report statusReport
	if err := json.Unmarshal([]byte(out), &report); err != nil || status != exitFailed || report.Running {
		t.Errorf("%d %v %s", status, err, out)
	}
	r := startRun(t, data)
	out = mustRun(t, data, "status")
	for _, want := range []string{"The appliance has run for ", "  Accounts      1\n", fmt.Sprintf("%d smtp, ", 25+r.offset), fmt.Sprintf("%d https\n", 443+r.offset), data, "nothing waits", "Certificate "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	report = statusReport{}
	if err := json.Unmarshal([]byte(mustRun(t, data, "status", "--json")), &report); err != nil {
		t.Fatal(err)
	}
	if !report.Running || report.ServerStatus == nil || report.PID != os.Getpid() || report.Accounts != 1 || len(report.Ports) != 9 ||
		report.Certificates == nil || report.Troubles == nil || time.Since(report.Since) > time.Hour {
		t.Errorf("%+v", report)
	}
	r.stop(t)
	if status, _, errs := runCommand(t, data, "", "status"); status != exitFailed || !strings.Contains(errs, "does not run") {
		t.Errorf("%d %q", status, errs)
	}
}

// The first account is made once, whoever asks for it.
func TestFirstAccountIsMadeOnce(t *testing.T) {
	data := dataDir(t.TempDir())
	startRun(t, string(data), "--service", "--hostname", "pi.home.lan")
	first, err := ask(t.Context(), data.control(), order{Do: "first account", Name: "maria"})
	if err != nil || first.Error != "" || first.Address != "maria@pi.home.lan" || !strings.Contains(first.Text, "Password ") || first.Changed {
		t.Fatalf("%v %+v", err, first)
	}
	again, err := ask(t.Context(), data.control(), order{Do: "first account", Name: "eve"})
	if err != nil || again.Error != "" || again.Address != "maria@pi.home.lan" || strings.Contains(again.Text, "Password") || !again.Changed {
		t.Fatalf("%v %+v", err, again)
	}
	log := mustRun(t, string(data), "log", "-n", "10000")
	_, password, _ := strings.Cut(first.Text, "  Password     ")
	if password, _, _ = strings.Cut(password, "\n"); len(password) < 8 || strings.Contains(log, password) {
		t.Error("the password is in the log")
	}
}

// A place from which the mail would be gone after the next start is none, also not behind a link.
func TestFoldersThatAreEmptied(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "var")
	if err := os.Symlink("/dev", link); err != nil { // as OpenWrt's /var leads to /tmp
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"/tmp": true, "/tmp/mail": true, "/var/tmp/not/there": true, "/run/mail": true, "/dev/shm/x": true, filepath.Join(link, "lib", "x"): true,
		"/": false, "/var/lib/appliance": false, "/srv/mail": false, "/not/there": false, "/tmpx/mail": false, "/home/maria/tmp": false,
	} {
		if got := emptiedAtStart(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	if got := unixDataDir(link); got != "/srv/appliance" {
		t.Errorf("on OpenWrt: %s", got)
	}
	if got := unixDataDir("/var"); got != "/var/lib/appliance" {
		t.Errorf("elsewhere: %s", got)
	}
	c := &call{data: dataDir(filepath.Join("/dev", "shm", "mail"))}
	if err := c.checkFolder(ServiceState{}); err == nil || !strings.Contains(err.Error(), "/dev/shm/mail is emptied when the machine starts") {
		t.Error(err)
	}
}

// A folder that the service's user does not reach is refused before it is given away.
func TestServiceUserReachesFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can act as somebody else")
	}
	open, closed := filepath.Join("/", "var"), t.TempDir() // the folders of tests are for their user alone
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	if !reaches(nobody, nobody, open) || reaches(nobody, nobody, closed) {
		t.Errorf("%s: %v, %s: %v", open, reaches(nobody, nobody, open), closed, reaches(nobody, nobody, closed))
	}
	if reaches(0, 0, filepath.Join(closed, "not there")) {
		t.Error("what is not there is reached")
	}
}
