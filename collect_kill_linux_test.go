package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// trusting gives the environment of an appliance of its own process that trusts these fakes.
func trusting(t *testing.T, fakes ...*fakeOutside) []string {
	t.Helper()
	var pems []byte
	for _, f := range fakes {
		pems = append(pems, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.tls.Certificates[0].Certificate[0]})...)
	}
	file := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(file, pems, 0o600); err != nil {
		t.Fatal(err)
	}
	return append(os.Environ(), "APPLIANCE_TEST_RUN=1", "SSL_CERT_FILE="+file, "SSL_CERT_DIR=/nonexistent")
}

// TestCollectKill kills the appliance again and again while it collects: each message comes exactly once, and none is deleted
// over there that is not here.
func TestCollectKill(t *testing.T) {
	const each = 150
	numbers := map[bool][]int{}
	fakes := map[bool]*fakeOutside{}
	var all []string
	for _, imap := range []bool{false, true} {
		for n := range each {
			number := n + 1
			if imap {
				number += 1000
			}
			numbers[imap] = append(numbers[imap], number)
		}
		fakes[imap] = startFake(t, mailsNo(imap, numbers[imap]...)...)
		all = append(all, textsNo(numbers[imap]...)...)
	}
	slices.Sort(all)
	data := homeData(t)
	book := collectBook{file: dataDir(data).collect()}
	err := book.change(func(sources []CollectSource) ([]CollectSource, error) {
		for imap, f := range fakes {
			protocol := map[bool]string{false: protocolPOP3, true: protocolIMAP}[imap]
			sources = append(sources, CollectSource{Account: "maria@home.lan",
				OutsideServer: OutsideServer{Protocol: protocol, Host: "localhost", Port: f.port, TLS: tlsImplicit, Login: "maria", Password: "secret"}})
		}
		return sources, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	env := trusting(t, fakes[false], fakes[true])
	offset := freeOffset(t)
	start := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0], "run", "--data", data, "--listen", "127.0.0.1", "--port-offset", strconv.Itoa(offset), "--log-level", "error")
		cmd.Env, cmd.Stderr = env, os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	here := func() (texts []string) {
		for _, sub := range []string{"new", "cur"} {
			names, _ := listNames(filepath.Join(dataDir(data).mail(), "home.lan", "maria", sub))
			for _, name := range names {
				text, err := os.ReadFile(filepath.Join(dataDir(data).mail(), "home.lan", "maria", sub, name))
				if err != nil {
					t.Fatal(err)
				}
				if at := bytes.Index(text, []byte("Received: from a by b;")); at >= 0 { // behind what the spam filter says
					texts = append(texts, string(text[at:]))
				}
			}
		}
		slices.Sort(texts)
		return texts
	}
	kills := 0
	for ; kills < 20 && len(here()) < len(all); kills++ {
		cmd := start()
		time.Sleep(time.Duration(60+rand.IntN(150)) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it tells of the kill
		got := here()
		for _, f := range fakes {
			got = append(got, f.left()...)
		}
		for _, text := range all {
			if !slices.Contains(got, text) {
				t.Fatalf("after kill %d a message is nowhere: %q", kills, text)
			}
		}
	}
	_ = os.Remove(dataDir(data).control()) // of one that was killed
	cmd := start()
	for range 2000 {
		if _, err := os.Stat(dataDir(data).control()); err == nil && len(here()) >= len(all) && len(fakes[false].left())+len(fakes[true].left()) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if got := here(); !slices.Equal(got, all) {
		t.Errorf("%d messages after %d kills, %d different ones; want %d", len(got), kills, len(slices.Compact(got)), len(all))
	}
	if n := len(fakes[false].left()) + len(fakes[true].left()); n != 0 {
		t.Errorf("%d messages are left over there", n)
	}
	t.Logf("%d kills", kills)
}

// The whole way of a person, with and without a running appliance.
func TestCollectCommands(t *testing.T) {
	for _, up := range []bool{false, true} {
		t.Run(fmt.Sprintf("running=%v", up), func(t *testing.T) {
			pop, imap := startFake(t, mailsNo(false, 1)...), startFake(t, mailsNo(true, 2)...)
			for _, f := range []*fakeOutside{pop, imap} {
				f.set(func() { f.password = "right" })
			}
			env := trusting(t, pop, imap)
			data := homeData(t)
			if up {
				cmd := exec.Command(os.Args[0], "run", "--data", data, "--listen", "127.0.0.1", "--port-offset", strconv.Itoa(freeOffset(t)), "--log-level", "error")
				cmd.Env, cmd.Stderr = env, os.Stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					_ = cmd.Process.Signal(os.Interrupt)
					if err := cmd.Wait(); err != nil {
						t.Error(err)
					}
				})
				for range 1000 {
					if _, err := os.Stat(dataDir(data).control()); err == nil {
						break
					}
					time.Sleep(5 * time.Millisecond)
				}
			}
			// What logs in over there trusts the fakes, so it is a process of its own; the rest need not be.
			say := func(stdin, args string) (string, int) {
				if !strings.HasPrefix(args, "collect add") || !strings.Contains(args, " me --password-stdin") || !strings.Contains(args, "imap ") && !strings.Contains(args, "pop3 localhost:") {
					status, out, errs := runCommand(t, data, stdin, strings.Fields(args)...)
					return out + errs, status
				}
				cmd := exec.Command(os.Args[0], append(strings.Fields(args), "--data", data)...)
				cmd.Env, cmd.Stdin = env, strings.NewReader(stdin)
				out, err := cmd.CombinedOutput()
				if err != nil && cmd.ProcessState == nil {
					t.Fatal(err)
				}
				return string(out), cmd.ProcessState.ExitCode()
			}
			server := func(f *fakeOutside) string { return fmt.Sprintf("localhost:%d", f.port) }
			for _, step := range []struct {
				stdin, args string
				status      int
				want        string
			}{
				{"", "collect list", 0, "Nothing is collected from elsewhere.\n"},
				{"wrong\n", "collect add maria pop3 " + server(pop) + " me --password-stdin", 1, "appliance: nothing was stored: localhost does not take the login of me (it says: no such luck): look at login and password; "},
				{"wrong\n", "collect add maria imap " + server(imap) + " me --password-stdin", 1, "appliance: nothing was stored: localhost does not take the login of me (it says: no such luck): look at login and password; "},
				{"right\n", "collect add nobody pop3 " + server(pop) + " me --password-stdin", 1, "appliance: nobody@home.lan has no account here; "},
				{"right\n", "collect add maria nntp " + server(pop) + " me --password-stdin", 1, "appliance: \"nntp\" is no way to collect mail: take imap or pop3\n"},
				{"right\n", "collect add maria pop3 localhost:0 me --password-stdin", 1, "appliance: \"localhost:0\" is no server: write it as HOST or HOST:PORT"},
				{"right\n", "collect add maria pop3 a/b me --password-stdin", 1, "appliance: \"a/b\" is no name of a server: "},
				{"right\n", "collect add maria pop3 localhost:1 me --password-stdin", 1, "appliance: nothing was stored: localhost:1 refuses connections"},
				{"right\n", "collect add maria pop3 " + server(pop) + " me --password-stdin --every 5s", 1, "appliance: \"5s\" is no time between two looks: take one from 1m to 24h, such as 5m\n"},
				{"right\n", "collect add maria pop3 " + server(pop) + " me --password-stdin --folder a//b", 1, "appliance: no folder can be named \"a//b\": "},
				{"right\n", "collect add maria pop3 " + server(pop) + " me --password-stdin --folder Outbox", 1, "appliance: the Outbox shows what waits to be sent: take another folder"},
				{"", "collect add maria pop3 " + server(pop) + " me", 2, "appliance: there is no terminal to ask for the password: give it with --password-stdin\n"},
				{"", "collect add nobody pop3 " + server(pop) + " me", 1, "appliance: nobody@home.lan has no account here; "},
				{"", "collect add maria pop3 " + server(pop) + " me --every 10s", 1, "appliance: \"10s\" is no time between two looks: "},
				{"se\rcret\n", "collect add maria pop3 " + server(pop) + " me --password-stdin", 1, "appliance: the password has a character that none can have\n"},
				{"", "collect now", 1, "appliance: nothing is collected: `appliance collect add` begins that\n"},
				{"", "collect add maria pop3", 2, "appliance: collect add needs USER pop3|imap HOST[:PORT] LOGIN\n"},
				{"right\n", "collect add maria pop3 " + server(pop) + " me --password-stdin --every 10m", 0, "Mail of me at " + server(pop) + " is collected for maria@home.lan now.\nIt is deleted over there when it is safe here.\n"},
				{"right\n", "collect add maria imap " + server(imap) + " me --password-stdin --keep --folder Old", 0, "Mail of me at " + server(imap) + " is collected for maria@home.lan now.\nIt stays over there as well.\n"},
				{"right\n", "collect add maria imap " + server(imap) + " me --password-stdin --keep=false --every 1s", 1, "appliance: \"1s\" is no time between two looks"},
				{"", "collect add maria imap " + server(imap) + " me --keep=maybe", 2, "appliance: invalid boolean value \"maybe\" for -keep"},
				{"wrong\n", "collect add maria imap " + server(imap) + " me --password-stdin --keep=false", 1, "Mail of me at localhost has stayed over there so far. From now on it is deleted there\nwhen it is safe here, also what was fetched before.\nappliance: nothing was stored: localhost does not take the login"},
				{"right\n", "collect add maria imap " + server(imap) + " me --password-stdin --folder New", 0, "Mail of me at " + server(imap) + " is collected anew for maria@home.lan now.\nIt stays over there as well.\n"},
				{"", "collect now bob", 1, "appliance: nothing is collected for bob@home.lan: see `appliance collect list`\n"},
				{"", "collect remove maria elsewhere.test", 1, "appliance: nothing is collected for maria@home.lan elsewhere.test: see `appliance collect list`\n"},
			} {
				out, status := say(step.stdin, step.args)
				if status != step.status || !strings.HasPrefix(out, step.want) {
					t.Errorf("%s: %d %q, want %d %q", step.args, status, out, step.status, step.want)
				}
			}
			if imap.count() > 10 {
				t.Errorf("%d logins", imap.count())
			}
			out, _ := say("", "collect list maria")
			want := "maria@home.lan  from me at " + server(imap) + " by IMAP, into New, kept there\n"
			if !strings.Contains(out, want) || !strings.Contains(out, "maria@home.lan  from me at "+server(pop)+" by POP3\n") || strings.Contains(out, "right") {
				t.Errorf("%q", out)
			}
			out, _ = say("", "collect list --json")
			if !strings.Contains(out, `"protocol": "imap",`) || !strings.Contains(out, `"keep": true`) || strings.Contains(out, "right") {
				t.Errorf("%q", out)
			}
			if up {
				// The first look by IMAP may have come before New took the place of Old.
				arrived := func() int {
					files, _ := filepath.Glob(filepath.Join(dataDir(data).mail(), "home.lan/maria/.[ON]*/[cn]*", "*"))
					return len(files)
				}
				looked := func(out string) bool {
					return strings.Count(out, " so far; next look ") == 2 && strings.Contains(out, "POP3\n  1 message so far") && arrived() == 1
				}
				for range 1000 {
					if out, _ = say("", "collect list"); looked(out) {
						break
					}
					time.Sleep(20 * time.Millisecond)
				}
				if !looked(out) {
					t.Errorf("%q, %d in Old and New", out, arrived())
				}
			}
			out, _ = say("", "collect now")
			if !strings.HasPrefix(out, map[bool]string{true: "It looks into 2 accounts now; ", false: "The appliance does not run. It looks into 2 accounts as soon as it does.\n"}[up]) {
				t.Errorf("%q", out)
			}
			if out, status := say("", "collect remove maria localhost"); status != 1 || !strings.Contains(out, "several accounts at localhost are collected for maria@home.lan: add the login") {
				t.Errorf("%q", out)
			}
			if out, status := say("", "user remove maria"); status != 0 {
				t.Errorf("%q", out)
			}
			if out, _ := say("", "collect list"); out != "Nothing is collected from elsewhere.\n" {
				t.Errorf("%q", out)
			}
			if text, _ := os.ReadFile(dataDir(data).collect()); strings.Contains(string(text), "right") {
				t.Errorf("%s", text)
			}
		})
	}
}
