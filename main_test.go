package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain lets the test program be the appliance, for what needs a process of
// its own.
func TestMain(m *testing.M) {
	if os.Getenv("APPLIANCE_TEST_RUN") != "" {
		main()
	}
	if next := os.Getenv(nextServerVariable); next != "" {
		os.Exit(runTowards(next, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// freeOffset finds an offset at which all ports are free. It stays below the
// ports that systems give to clients.
func freeOffset(t testing.TB) int {
	t.Helper()
	for range 100 {
		offset := 10000 + rand.IntN(21000)
		free := true
		numbers := []int{80, 443}
		for _, spec := range portTable() {
			numbers = append(numbers, spec.number)
		}
		for _, number := range numbers {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", number+offset))
			if free = free && err == nil; err == nil {
				l.Close()
			}
		}
		if free {
			return offset
		}
	}
	t.Fatal("no free ports")
	return 0
}

// lockedBuffer is a buffer that can be read while a program writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// running is an appliance in this process.
type running struct {
	data           string
	offset         int
	stdout, stderr lockedBuffer
	cancel         context.CancelFunc
	status         chan int
}

// startRun starts one on a data folder and waits for its first line; it is
// stopped with the test.
func startRun(t testing.TB, data string, args ...string) *running {
	t.Helper()
	return startRunWith(t, data, nil, args...)
}

// startRunWith is startRun of an appliance with hooks, nil for none.
func startRunWith(t testing.TB, data string, hooks *call, args ...string) *running {
	t.Helper()
	return startAdjusted(t, data, freeOffset(t), hooks, args...)
}

// startAdjusted is startRunWith on ports that were chosen before.
func startAdjusted(t testing.TB, data string, offset int, hooks *call, args ...string) *running {
	t.Helper()
	r := &running{data: data, offset: offset, status: make(chan int, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	args = append([]string{"--data", data, "--listen", "127.0.0.1", "--port-offset", strconv.Itoa(r.offset)}, args...)
	if hooks == nil {
		hooks = &call{}
	}
	hooks.stdin, hooks.stdout, hooks.stderr = strings.NewReader(""), &r.stdout, &r.stderr
	go func() { r.status <- hooks.do(ctx, args) }()
	for {
		select {
		case status := <-r.status:
			r.status <- status
			cancel()
			t.Fatalf("ended with %d: %s", status, r.stderr.String())
		case <-time.After(5 * time.Millisecond):
		}
		if _, err := os.Stat(dataDir(data).control()); err == nil && strings.HasSuffix(r.stdout.String(), "\n") {
			break
		}
	}
	t.Cleanup(func() { r.stop(t) })
	return r
}

// stop ends it and looks at its exit status.
func (r *running) stop(t testing.TB) {
	t.Helper()
	r.cancel()
	if status := <-r.status; status != exitDone {
		t.Errorf("ended with %d: %s", status, r.stderr.String())
	}
	r.status <- exitDone // for a second stop
}

// command runs a command on a data folder.
func runCommand(t testing.TB, data, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	t.Setenv("APPLIANCE_DATA", data)
	var out, errs bytes.Buffer
	status = run(context.Background(), args, strings.NewReader(stdin), &out, &errs)
	return status, out.String(), errs.String()
}

// mustRun is runCommand for what has to succeed.
func mustRun(t testing.TB, data string, args ...string) string {
	t.Helper()
	status, out, errs := runCommand(t, data, "", args...)
	if status != exitDone || errs != "" {
		t.Fatalf("%v: %d %s", args, status, errs)
	}
	return out
}

// imapLogin logs in by IMAP over TLS and gives the connection behind it.
func (r *running) imapLogin(t testing.TB, user, password string) (*bufio.Reader, *tls.Conn, string) {
	t.Helper()
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(r.data, "tls", "ca.pem"))
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("authority: %v", err)
	}
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", 993+r.offset), &tls.Config{RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	in := bufio.NewReader(conn)
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return in, conn, imapSay(t, in, conn, fmt.Sprintf("LOGIN %q %q", user, password))
}

// imapSay gives everything that answers a command.
func imapSay(t testing.TB, in *bufio.Reader, conn io.Writer, command string) string {
	t.Helper()
	if _, err := fmt.Fprintf(conn, "x %s\r\n", command); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v after %q", command, err, all.String())
		}
		all.WriteString(line)
		if strings.HasPrefix(line, "x ") {
			return all.String()
		}
	}
}

func TestFirstStart(t *testing.T) {
	t.Setenv("SUDO_USER", "")
	t.Setenv("USER", "Maria Müller")
	data := filepath.Join(t.TempDir(), "data")
	r := startRun(t, data, "--hostname", "Pi.Home.LAN")
	text := r.stdout.String()
	found := regexp.MustCompile(`(?m)^  Address +(\S+)\n  Password +(\S+)$`).FindStringSubmatch(text)
	if found == nil || found[1] != "maria.muller@pi.home.lan" {
		t.Fatalf("address and password are not in:\n%s", text)
	}
	address, password := found[1], found[2]
	for _, want := range []string{
		fmt.Sprintf("IMAP         port %d (TLS from the start) or %d (STARTTLS)\n", 993+r.offset, 143+r.offset),
		fmt.Sprintf("POP3         port %d (TLS from the start) or %d (STARTTLS)\n", 995+r.offset, 110+r.offset),
		fmt.Sprintf("Sending      port %d (TLS from the start) or %d (STARTTLS)\n", 465+r.offset, 587+r.offset),
		fmt.Sprintf("bring mail to port %d\n", 25+r.offset),
		filepath.Join(data, "mail") + "\n", filepath.Join(data, "tls", "ca.pem") + "\n",
		"go run . user add NAME --data " + data + "\n", "go run . user passwd " + address + " --data " + data + "\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
	in, conn, reply := r.imapLogin(t, address, password)
	if !strings.Contains(reply, "x OK") {
		t.Fatal(reply)
	}
	imapSay(t, in, conn, "EXAMINE INBOX")
	welcome := imapSay(t, in, conn, "FETCH 1 (BODY[])")
	for _, want := range []string{
		"To: " + address + "\r\n", "Subject: Welcome to your mail server\r\n", "\r\nDate: ", "\r\nMessage-ID: <",
		"pi.home.lan", fmt.Sprintf("port %d, SSL/TLS", 993+r.offset), fmt.Sprintf("port %d, SSL/TLS", 465+r.offset),
	} {
		if !strings.Contains(welcome, want) {
			t.Errorf("%q is not in:\n%s", want, welcome)
		}
	}
	if strings.Contains(welcome, "%!") || strings.Contains(text, "%!") || strings.Contains(welcome, password) {
		t.Errorf("the welcome is wrong:\n%s", welcome)
	}
	conn.Close()
	r.stop(t)

	again := startRun(t, data)
	if text := again.stdout.String(); strings.Count(text, "\n") != 1 || strings.Contains(text, password) || !strings.Contains(text, strconv.Itoa(993+again.offset)) {
		t.Errorf("the second start says:\n%s", text)
	}
	if _, _, reply := again.imapLogin(t, "maria.muller", password); !strings.Contains(reply, "x OK") {
		t.Error(reply)
	}
	if strings.Contains(again.stderr.String()+r.stderr.String(), password) {
		t.Error("the password is in the log")
	}
}

func TestOwnerName(t *testing.T) {
	for _, test := range []struct{ sudo, user, windows, want string }{
		{"maria", "root", "", "maria"}, {"", "root", "", "postmaster"}, {"", "", "Zoë Q. Doe", "zoe.q.doe"},
		{"", "", "", "postmaster"}, {"", "con", "", "postmaster"}, {"root", "bob", "", "bob"}, {"", "вася", "", "postmaster"},
		{"", "DOMAIN\\bob", "", "domainbob"},
	} {
		got := ownerName(func(name string) string {
			return map[string]string{"SUDO_USER": test.sudo, "USER": test.user, "USERNAME": test.windows}[name]
		})
		if got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

func TestSecondAppliance(t *testing.T) {
	data := t.TempDir()
	startRun(t, data)
	status, out, errs := runCommand(t, data, "", "run", "--listen", "127.0.0.1", "--port-offset", strconv.Itoa(freeOffset(t)))
	want := fmt.Sprintf("appliance: another appliance (process %d) is running with the data folder %s\n", os.Getpid(), data)
	if status != exitFailed || out != "" || errs != want {
		t.Errorf("%d %q %q, want %q", status, out, errs, want)
	}
}

func TestPortsInUse(t *testing.T) {
	r := startRun(t, t.TempDir())
	data := t.TempDir()
	status, out, errs := runCommand(t, data, "", "run", "--listen", "127.0.0.1", "--port-offset", strconv.Itoa(r.offset))
	if status != exitFailed || strings.Contains(out, "Password") || !strings.Contains(errs, "appliance: ") {
		t.Errorf("%d %q %q", status, out, errs)
	}
	if _, err := os.Stat(dataDir(data).accounts()); !errors.Is(err, os.ErrNotExist) {
		t.Error("an account was made whose password nobody saw")
	}
}

func TestBrokenFilesStopTheStart(t *testing.T) {
	for file, text := range map[string]string{"settings.toml": "colour = 1\n", "accounts.toml": "[[user]]\naddress = 'x'\n", "tls/ca.key": "junk"} {
		data := t.TempDir()
		path := filepath.Join(data, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		status, out, errs := runCommand(t, data, "", "run", "--listen", "127.0.0.1", "--port-offset", strconv.Itoa(freeOffset(t)))
		if status != exitFailed || out != "" || strings.Count(errs, "appliance: ") != 1 || !strings.Contains(errs, filepath.Base(file)) {
			t.Errorf("%s: %d %q %q", file, status, out, errs)
		}
		if after, _ := os.ReadFile(path); string(after) != text {
			t.Errorf("%s was changed", file)
		}
	}
}

func TestWrongUsage(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"frob", `there is no command "frob"`},
		{"user", `there is no command "user"`},
		{"user frob", `there is no command "user frob"`},
		{"user add", "user add needs ADDRESS"},
		{"user add a@b c@d", `user add does not know what to do with "c@d"`},
		{"user list x", `user list does not know what to do with "x"`},
		{"user quota", "user quota needs ADDRESS"},
		{"user quota a@b 1G 2G", `user quota does not know what to do with "2G"`},
		{"alias add a@b", "alias add needs ADDRESS TO..."},
		{"user app-password add a@b", "user app-password add needs ADDRESS NAME"},
		{"run --frob", "flag provided but not defined: -frob"},
		{"--port-offset x", "invalid value"},
		{"--port-offset -1", "--port-offset is between 0 and 64000, not -1"},
		{"--listen localhost", `--listen takes an IP address, not "localhost"`},
		{"--hostname a_b", `--hostname cannot be "a_b"`},
		{"--log-format xml", `--log-format is text or json, not "xml"`},
		{"--log-level loud", `--log-level is debug, info, warn or error, not "loud"`},
		{"run x", `run does not know what to do with "x"`},
		{"help frob", `there is no command "frob"`},
		{"version --data x", "flag provided but not defined: -data"},
	} {
		data := filepath.Join(t.TempDir(), "data")
		status, out, errs := runCommand(t, data, "", strings.Fields(test.args)...)
		if status != exitUsage || out != "" || !strings.HasPrefix(errs, "appliance: "+test.want) || !strings.Contains(errs, "\nUsage:") {
			t.Errorf("%s: %d %q %q", test.args, status, out, errs)
		}
		if _, err := os.Stat(data); err == nil {
			t.Errorf("%s made the data folder", test.args)
		}
	}
}

func TestHelp(t *testing.T) {
	for args, want := range map[string]string{
		"help": "Usage:\n  appliance run ", "--help": "Usage:\n  appliance run ", "-h": "Usage:\n  appliance run ",
		"help user": "  appliance user add ADDRESS", "user --help": "  appliance user add ADDRESS",
		"help user add": "Usage: appliance user add ADDRESS [flags]", "user add a@b --help": "Usage: appliance user add ADDRESS [flags]",
		"run --data x --help": "--port-offset N", "help run": "  --service                  run as", "help log": "  -f                         go on", "help help": "Usage:", "help user app-password": "user app-password list",
		"frob --help": "",
	} {
		status, out, errs := runCommand(t, t.TempDir(), "", strings.Fields(args)...)
		if want == "" {
			if status != exitUsage {
				t.Errorf("%s: %d %q", args, status, errs)
			}
			continue
		}
		if status != exitDone || errs != "" || !strings.Contains(out, want) {
			t.Errorf("%s: %d %q %q", args, status, out, errs)
		}
	}
	all := mustRun(t, t.TempDir(), "help")
	for _, cmd := range commands() {
		if !strings.Contains(all, "appliance "+cmd.name) {
			t.Errorf("%s is not in the help", cmd.name)
		}
		for line := range strings.Lines(mustRun(t, t.TempDir(), append([]string{"help"}, strings.Fields(cmd.name)...)...)) {
			if len(line) > 122 {
				t.Errorf("%s: a line of %d characters", cmd.name, len(line))
			}
		}
	}
}

// homeData makes a data folder of the domain home.lan, whose owner is maria.
func homeData(t testing.TB) string {
	t.Helper()
	data := t.TempDir()
	if err := os.WriteFile(dataDir(data).settings(), []byte("domain = 'home.lan'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, data, "user", "add", "maria")
	return data
}

// TestCommandsUpAndDown runs the same commands with and without a running
// appliance.
func TestCommandsUpAndDown(t *testing.T) {
	for _, up := range []bool{false, true} {
		t.Run(fmt.Sprintf("running=%v", up), func(t *testing.T) {
			data := homeData(t)
			if up {
				startRun(t, data)
			}
			commandsRun(t, data)
		})
	}
}

func commandsRun(t *testing.T, data string) {
	password := `[a-z]{4}(-[a-z]{4}){4}`
	app := `[a-z2-9]{4}(-[a-z2-9]{4}){3}`
	steps := []struct {
		args, stdin string
		status      int
		want        string // pattern of stdout, or of stderr if it fails
	}{
		{"user add bob@home.lan --name Bob", "", 0, `bob@home\.lan has an account now\.\nPassword: ` + password + `\n`},
		{"user add --password-stdin eve", "correct horse\n", 0, `eve@home\.lan has an account now\.\n`},
		{"user add bob", "", 1, `appliance: bob@home\.lan has an account already\n`},
		{"user add a/b", "", 1, `appliance: "a/b@home\.lan" cannot be an account: only letters.*\n`},
		{"user add fred --password-stdin", "short\n", 1, `appliance: the password has 5 characters; it needs at least 8\n`},
		{"user add fred --password-stdin", "", 1, `appliance: there is no password on standard input\n`},
		{"user passwd bob", "", 0, `bob@home\.lan has a new password now\.\nPassword: ` + password + `\n`},
		{"user passwd bob --password-stdin", "battery staple\r\n", 0, `bob@home\.lan has a new password now\.\n`},
		{"user passwd nobody", "", 1, "appliance: nobody@home.lan has no account here; `appliance user list` shows all\n"},
		{"user app-password add bob phone", "", 0, `App password "phone" of bob@home\.lan: ` + app + `\n`},
		{"user app-password add bob phone", "", 1, `appliance: bob@home\.lan has an app password named "phone" already\n`},
		{"user app-password list bob", "", 0, `phone  \d{4}-\d\d-\d\d\n`},
		{"user app-password list bob --json", "", 0, `\[\n  \{\n    "name": "phone",\n    "created": ".*"\n  \}\n\]\n`},
		{"user app-password list eve --json", "", 0, `\[\]\n`},
		{"user list", "", 0, `maria@home\.lan  +owner\nbob@home\.lan +Bob  app passwords: 1\neve@home\.lan *\n`},
		{"user quota bob", "", 0, `bob@home\.lan holds 0K in 0 messages; there is no quota\.\n`},
		{"user quota bob --json", "", 0, `\{\n  "address": "bob@home\.lan",\n  "used_bytes": 0,\n  "used_messages": 0\n\}\n`},
		{"user quota bob 1.5g --messages 1000", "", 0, `bob@home\.lan holds 0K in 0 messages; the quota is 1536M and 1000 messages\.\n`},
		{"user quota bob none", "", 0, `bob@home\.lan holds 0K in 0 messages; the quota is 1000 messages\.\n`},
		{"user quota bob 500M --messages none", "", 0, `bob@home\.lan holds 0K in 0 messages; the quota is 500M\.\n`},
		{"user quota bob 500", "", 1, `appliance: "500" is no size: take a number and K, M, G or T, such as 500M\n`},
		{"user quota bob 5000T", "", 1, `appliance: "5000T" is no size for a quota: between 1K and 1024T\n`},
		{"user quota bob --messages many", "", 1, `appliance: "many" is no number of messages: take 1 or more, or none\n`},
		{"user quota bob --messages 0", "", 1, `appliance: "0" is no number of messages: take 1 or more, or none\n`},
		{"user quota nobody 1G", "", 1, "appliance: nobody@home.lan has no account here; `appliance user list` shows all\n"},
		{"user quota info", "", 1, "appliance: info@home.lan has no account here; `appliance user list` shows all\n"},
		{"user quota bob --json", "", 0, `\{\n.*\n.*\n  "used_messages": 0,\n  "quota_bytes": 524288000\n\}\n`},
		{"user list", "", 0, `maria@home\.lan  +owner\nbob@home\.lan +Bob  quota 500M, app passwords: 1\neve@home\.lan *\n`},
		{"user quota bob none", "", 0, `bob@home\.lan holds 0K in 0 messages; there is no quota\.\n`},
		{"alias list --json", "", 0, `\[\]\n`},
		{"alias add info bob eve", "", 0, `info@home\.lan goes to bob@home\.lan eve@home\.lan now\.\n`},
		{"alias add @home.lan maria", "", 0, `@home\.lan goes to maria@home\.lan now\.\n`},
		{"alias add info info", "", 1, `appliance: the alias goes in a circle: .*\n`},
		{"alias add x somebody@example.org", "", 1, `appliance: somebody@example\.org is nobody here; .*\n`},
		{"alias list", "", 0, `info@home\.lan +bob@home\.lan eve@home\.lan\n@home\.lan +maria@home\.lan\n`},
		{"alias list --json", "", 0, `(?s)\[.*"address": "info@home\.lan",\n    "to": \[\n      "bob@home\.lan".*\]\n`},
		{"user app-password remove bob phone", "", 0, `App password "phone" of bob@home\.lan is revoked\.\n`},
		{"user app-password remove bob phone", "", 1, `appliance: bob@home\.lan has no app password named "phone"\n`},
		{"alias add family bob eve maria", "", 0, `family@home\.lan goes to bob@home\.lan eve@home\.lan maria@home\.lan now\.\n`},
		{"alias remove family eve", "", 0, `family@home\.lan goes to bob@home\.lan maria@home\.lan now\.\n`},
		{"alias remove family eve", "", 1, `appliance: family@home\.lan does not go to eve@home\.lan\n`},
		{"alias remove family bob maria", "", 0, `family@home\.lan is no alias any more\.\n`},
		{"user disable bob", "", 0, `bob@home\.lan cannot log in any more\. Mail still comes\.\n`},
		{"user enable bob", "", 0, `bob@home\.lan can log in again\.\n`},
		{"user disable maria", "", 1, `appliance: maria@home\.lan is the owner, who looks after .*\n`},
		{"user logins bob", "", 0, `bob@home\.lan has not logged in yet\.\n`},
		{"user rename bob robert", "", 0, `The account is robert@home\.lan now\. Mail to the old address still arrives\.\n`},
		{"user rename robert eve", "", 1, `appliance: (eve@home\.lan has an account already|there is mail of an earlier eve@home\.lan .*)\n`},
		{"user rename robert a/b", "", 1, `appliance: "a/b@home\.lan" cannot be an account: .*\n`},
		{"user rename robert info", "", 1, `appliance: info@home\.lan is an alias; remove that first\n`},
		{"user rename robert bob", "", 0, `The account is bob@home\.lan now\..*\n`},
		{"alias remove robert", "", 0, `robert@home\.lan is no alias any more\.\n`},
		{"user name bob Robert", "", 0, `bob@home\.lan has another name now\.\n`},
		{"user list", "", 0, `maria@home\.lan  +owner\nbob@home\.lan +Robert *\neve@home\.lan *\n`},
		{"user remove bob", "", 0, `bob@home\.lan has no account any more\.\nThe mail lies in .*\.removed-.*\n`},
		{"user remove bob", "", 1, "appliance: bob@home.lan has no account here; .*\n"},
		{"user add bob", "", 0, `bob@home\.lan has an account now\.\nPassword: ` + password + `\n`},
		{"alias remove info", "", 0, `info@home\.lan is no alias any more\.\n`},
		{"alias remove info", "", 1, "appliance: info@home.lan is no alias here; .*\n"},
		{"queue list", "", 0, `Nothing waits\.\n`},
		{"queue list --json", "", 0, `\[\n\]\n`},
		{"queue show abc", "", 1, "appliance: no message abc waits; it may have been sent: see `appliance queue list`\n"},
		{"queue retry abc", "", 1, "appliance: no message abc waits; .*\n"},
		{"queue retry --all", "", 0, `0 messages are tried now\.\n`},
		{"queue retry", "", 2, `(?s)appliance: queue retry takes the ID of a message, or --all\n.*`},
		{"queue retry abc --all", "", 2, `(?s)appliance: queue retry takes .*`},
		{"queue cancel ../../accounts", "", 1, "appliance: no message ../../accounts waits; .*\n"},
		{"user list --json", "", 0, `(?s)\[\n.*"address": "maria@home\.lan".*\]\n`},
	}
	for _, step := range steps {
		status, out, errs := runCommand(t, data, step.stdin, strings.Fields(step.args)...)
		got := out
		if step.status != 0 {
			got = errs
		}
		if status != step.status || out != "" && errs != "" || !regexp.MustCompile(`\A`+step.want+`\z`).MatchString(got) {
			t.Errorf("%s: %d %q %q, want %d %s", step.args, status, out, errs, step.status, step.want)
		}
	}
	_, list, _ := runCommand(t, data, "", "user", "list", "--json")
	var users []map[string]any
	if err := json.Unmarshal([]byte(list), &users); err != nil || len(users) != 3 || strings.Contains(list, "argon2") {
		t.Errorf("%v: %s", err, list)
	}
}

// TestQuotaReachesOpenSessions sets a quota while somebody is logged in, and lifts it again.
func TestQuotaReachesOpenSessions(t *testing.T) {
	data := t.TempDir()
	r := startRun(t, data)
	if status, _, errs := runCommand(t, data, "correct horse\n", "user", "add", "bob@x.lan", "--password-stdin"); status != 0 {
		t.Fatal(errs)
	}
	in, conn, reply := r.imapLogin(t, "bob@x.lan", "correct horse")
	if !strings.Contains(reply, "x OK") {
		t.Fatal(reply)
	}
	say := func(command, want string) {
		t.Helper()
		if got := imapSay(t, in, conn, command); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	message := "APPEND INBOX {2000+}\r\n" + strings.Repeat("x", 2000)
	say(message, "OK [APPENDUID")
	if got := mustRun(t, data, "user", "quota", "bob@x.lan", "2K"); got != "bob@x.lan holds 2K in 1 message; the quota is 2K.\n" {
		t.Errorf("%q", got)
	}
	say("GETQUOTAROOT INBOX", `* QUOTA "" (STORAGE 2 2)`)
	say(message, "NO [OVERQUOTA]")
	if got := mustRun(t, data, "user", "quota", "bob@x.lan", "1K"); !strings.HasSuffix(got, "the quota is 1K. Until something is deleted, new mail is refused.\n") {
		t.Errorf("%q", got)
	}
	mustRun(t, data, "user", "quota", "bob@x.lan", "none")
	say(message, "OK [APPENDUID")
}

func TestChangesReachOpenSessions(t *testing.T) {
	data := t.TempDir()
	r := startRun(t, data)
	status, _, errs := runCommand(t, data, "correct horse\n", "user", "add", "bob@x.lan", "--password-stdin")
	if status != 0 {
		t.Fatal(errs)
	}
	if _, _, reply := r.imapLogin(t, "bob@x.lan", "correct horse"); !strings.Contains(reply, "x OK") {
		t.Error(reply)
	}
	mustRun(t, data, "user", "remove", "bob@x.lan")
	if _, _, reply := r.imapLogin(t, "bob@x.lan", "correct horse"); !strings.Contains(reply, "x NO") {
		t.Error(reply)
	}
}

func TestCAAndVersion(t *testing.T) {
	data := t.TempDir()
	if status, out, errs := runCommand(t, data, "", "ca"); status != exitFailed || out != "" || strings.Count(errs, "\n") != 1 {
		t.Errorf("%d %q %q", status, out, errs)
	}
	r := startRun(t, data)
	up := mustRun(t, data, "ca")
	r.stop(t)
	if down := mustRun(t, data, "ca"); down != up || !strings.HasPrefix(up, "-----BEGIN CERTIFICATE-----\n") {
		t.Errorf("%q, %q", up, down)
	}
	if out := mustRun(t, data, "version"); !strings.HasPrefix(out, "appliance ") || strings.Count(out, "\n") != 1 {
		t.Error(out)
	}
	var v version
	if err := json.Unmarshal([]byte(mustRun(t, data, "version", "--json")), &v); err != nil || v.Go != runtime.Version() {
		t.Errorf("%v %v", v, err)
	}
}

func TestNoDataFolderYet(t *testing.T) {
	data := filepath.Join(t.TempDir(), "none")
	status, _, errs := runCommand(t, data, "", "user", "list")
	if status != exitFailed || !strings.Contains(errs, "there is no data folder") {
		t.Errorf("%d %q", status, errs)
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("it was made")
	}
	if err := os.WriteFile(data, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := runCommand(t, data, "", "user", "add", "a@b"); status != exitFailed || !strings.Contains(errs, "is a file") {
		t.Errorf("%d %q", status, errs)
	}
}

func TestControlWantsItsSecret(t *testing.T) {
	data := t.TempDir()
	startRun(t, data)
	file := dataDir(data).control()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var where controlFile
	if err := json.Unmarshal(text, &where); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); runtime.GOOS != "windows" && (err != nil || info.Mode().Perm() != 0o600) {
		t.Errorf("mode %v", info.Mode())
	}
	for _, line := range []string{
		`{"do":"user list"}`, `{"do":"user list","secret":""}`, `{"do":"user list","secret":"` + strings.ToLower(where.Secret) + `"}`, "junk", "",
	} {
		conn, err := net.Dial("tcp", where.Address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, line+"\n")
		if reply, _ := io.ReadAll(conn); len(reply) != 0 {
			t.Errorf("%s: %s", line, reply)
		}
		conn.Close()
	}
	a, err := ask(t.Context(), file, order{Do: "frob"})
	if err != nil || !strings.Contains(a.Error, "does not know") {
		t.Errorf("%v %v", a, err)
	}
}

func TestControlFileGoesWithTheAppliance(t *testing.T) {
	data := dataDir(t.TempDir())
	if err := os.WriteFile(data.control(), []byte(`{"address":"127.0.0.1:1"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startRun(t, string(data))
	mustRun(t, string(data), "user", "list")
	r.stop(t)
	if _, err := os.Stat(data.control()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	mustRun(t, string(data), "user", "list")
}

// BenchmarkStart measures a process of its own with an existing data folder:
// the time to the first greeting, and the memory it has then.
func BenchmarkStart(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	data := b.TempDir()
	startRun(b, data).stop(b)
	offset := freeOffset(b)
	var resident float64
	for b.Loop() {
		cmd := exec.Command(self, "run", "--data", data, "--listen", "127.0.0.1", "--port-offset", strconv.Itoa(offset))
		cmd.Env = append(os.Environ(), "APPLIANCE_TEST_RUN=1")
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		for {
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", 143+offset))
			if err != nil {
				time.Sleep(time.Millisecond)
				continue
			}
			if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
				b.Fatal(err)
			}
			conn.Close()
			break
		}
		b.StopTimer()
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		if found := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status); found != nil {
			kib, _ := strconv.ParseFloat(string(found[1]), 64)
			resident = max(resident, kib/1024)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		b.StartTimer()
	}
	b.ReportMetric(resident, "MiB-resident")
}
