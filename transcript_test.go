package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// A transcript is a file of lines:
//
//	# a comment
//	@ open NAME PORT     connect to a port by its name (pop3s: under TLS); the connection is called NAME
//	@ use NAME           go on with another connection
//	@ tls                begin TLS on the connection, after STARTTLS
//	@ quota NAME SIZE    a person's quota, 0K: none
//	@ queue              mail for other domains is queued; nothing is sent
//	@ remote ADDRESS     later connections seem to come from there
//	@ dns RECORD         a record that the server's resolver finds from now on
//	C: a line            is sent with CRLF; {plain USER PASSWORD} and {base64 TEXT} are encoded
//	C> "octets"          a Go string that is sent as it is
//	S: a line            is what must come; … stands for any text
//	S* a line            is what must come after any others
//	S.                   the server closes the connection
//
// The people are ann, bob and cat at test.lan, whose passwords are NAME-secret;
// team@test.lan reaches ann and bob.

// transcriptServer opens all ports with the people of transcripts.
func transcriptServer(t testing.TB, p *Protocols) *portServer {
	t.Helper()
	p.Accounts = openTestAccounts(t, transcriptAccounts(t))
	dir := t.TempDir()
	p.Store = testStore(t, dir)
	p.Store.quota = p.Accounts.Quota
	s := startPorts(t, p)
	s.store, s.mail = p.Store, filepath.Join(dir, "mail")
	return s
}

// transcriptAccounts is the accounts file of transcripts.
func transcriptAccounts(t testing.TB) string {
	t.Helper()
	text := ""
	for _, name := range []string{"ann", "bob", "cat"} {
		hash, err := bcrypt.GenerateFromPassword([]byte(name+"-secret"), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf("[[user]]\naddress = \"%s@test.lan\"\npassword = '%s'\n", name, hash)
	}
	return text + "[[alias]]\naddress = \"team@test.lan\"\nto = [\"ann@test.lan\", \"bob@test.lan\"]\n"
}

// runTranscripts runs each transcript of a folder against a server of its own.
func runTranscripts(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts in %s: %v", dir, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			play := &transcript{t: t, conns: map[string]*transcriptConn{}}
			play.dns = startDNS(t, "")
			verifier := &Verifier{Resolver: play.dns.Resolver, Hostname: func() string { return "mail.test" }}
			var filter *SpamFilter
			judge := func(ctx context.Context, m *ReceivedMail) (Verdict, error) { return filter.Judge(ctx, m) }
			play.server = transcriptServer(t, &Protocols{wrapConn: play.wrap, wait: noWait, Judge: judge})
			filter = testSpamFilter(t, SpamConfig{Verifier: verifier, Store: play.server.Store, IsLocalDomain: play.server.Accounts.IsLocalDomain})
			for i, line := range strings.Split(string(text), "\n") {
				play.place = fmt.Sprintf("%s:%d: %s", file, i+1, line)
				play.line(strings.TrimSuffix(line, "\r"))
			}
		})
	}
}

// noWait makes a tarpit that holds nobody.
func noWait(*Conn, context.Context, time.Duration) {}

// transcript is one that is being played.
type transcript struct {
	t      *testing.T
	server *portServer
	dns    *testDNS
	conns  map[string]*transcriptConn
	now    *transcriptConn
	place  string
	remote atomic.Pointer[net.TCPAddr]
}

// transcriptConn is a client's connection.
type transcriptConn struct {
	net.Conn
	r *bufio.Reader
}

// elsewhere is a connection that seems to come from another machine.
type elsewhere struct {
	net.Conn
	addr net.Addr
}

func (e elsewhere) RemoteAddr() net.Addr { return e.addr }

// wrap runs in the server, after the transcript has dialled and before it goes on.
func (p *transcript) wrap(c net.Conn) net.Conn {
	if addr := p.remote.Load(); addr != nil {
		return elsewhere{c, addr}
	}
	return c
}

func (p *transcript) fail(format string, args ...any) {
	p.t.Helper()
	p.t.Fatalf("%s\n%s", p.place, fmt.Sprintf(format, args...))
}

func (p *transcript) line(line string) {
	kind, rest, _ := strings.Cut(line, " ")
	switch kind {
	case "", "#":
	case "@":
		if record, ok := strings.CutPrefix(rest, "dns "); ok {
			p.dns.add(p.t, record)
			return
		}
		p.direct(strings.Fields(rest))
	case "C:":
		p.send(encodeLine(rest) + "\r\n")
	case "C>":
		raw, err := strconv.Unquote(rest)
		if err != nil {
			p.fail("%v", err)
		}
		p.send(raw)
	case "S:":
		if got := p.read(); !matches(rest, got) {
			p.fail("got: %s", got)
		}
	case "S*":
		var got []string
		for len(got) == 0 || !matches(rest, got[len(got)-1]) {
			got = append(got, p.read())
			if len(got) > 10_000 {
				p.fail("not within %d lines", len(got))
			}
		}
	case "S.":
		if rest, err := io.ReadAll(p.now.r); len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			p.fail("got: %q, %v", rest, err)
		}
	default:
		p.fail("what is that?")
	}
}

func (p *transcript) direct(words []string) {
	switch {
	case len(words) == 1 && words[0] == "queue": // before the first connection
		out, err := OpenOutbound(OutboundConfig{QueueDir: p.t.TempDir(), Accounts: p.server.Accounts, Store: p.server.Store, Sender: &Sender{}, PerHour: 100})
		if err != nil {
			p.t.Fatal(err)
		}
		p.server.Queue, p.server.Flood = out.Queue, out.Flood
	case len(words) == 3 && words[0] == "open":
		c := p.server.dial(p.t, words[2])
		if strings.HasSuffix(words[2], "s") {
			c = tls.Client(c, p.server.client)
		}
		p.now = &transcriptConn{c, bufio.NewReader(c)}
		p.conns[words[1]] = p.now
	case len(words) == 2 && words[0] == "use" && p.conns[words[1]] != nil:
		p.now = p.conns[words[1]]
	case len(words) == 1 && words[0] == "tls":
		c := tls.Client(p.now.Conn, p.server.client)
		p.now.Conn, p.now.r = c, bufio.NewReader(c)
	case len(words) == 3 && words[0] == "quota":
		setQuota(p.t, p.server.Accounts, words[1]+"@test.lan", words[2])
	case len(words) == 2 && words[0] == "remote":
		p.remote.Store(&net.TCPAddr{IP: net.ParseIP(words[1]), Port: 4321})
	default:
		p.fail("what is that?")
	}
}

func (p *transcript) send(s string) {
	if _, err := io.WriteString(p.now, s); err != nil {
		p.fail("%v", err)
	}
}

func (p *transcript) read() string {
	line, err := p.now.r.ReadString('\n')
	if err != nil {
		p.fail("got: %q, %v", line, err)
	}
	if !strings.HasSuffix(line, "\r\n") {
		p.fail("line end of %q", line)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// matches compares a line to a pattern in which … stands for any text.
func matches(pattern, line string) bool {
	parts := strings.Split(pattern, "…")
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(part)
	}
	return regexp.MustCompile(`(?s)\A` + strings.Join(parts, ".*") + `\z`).MatchString(line)
}

// encodeLine replaces {plain USER PASSWORD} and {base64 TEXT}.
func encodeLine(line string) string {
	encoded := regexp.MustCompile(`\{(plain|base64) ([^}]*)\}`)
	return encoded.ReplaceAllStringFunc(line, func(s string) string {
		m := encoded.FindStringSubmatch(s)
		if m[1] == "plain" {
			m[2] = "\x00" + strings.Replace(m[2], " ", "\x00", 1)
		}
		return base64.StdEncoding.EncodeToString([]byte(m[2]))
	})
}
