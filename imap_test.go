package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const imapPassword = "correct horse"

// imapServer is a running appliance with IMAP and accounts made as they are asked for.
type imapServer struct {
	*portServer
	store *Store
}

// startIMAP serves IMAP on free ports until the test ends.
func startIMAP(t testing.TB) *imapServer { return startIMAPWith(t, func(*Protocols) {}) }

// fromAfar lets clients seem to come from another machine.
func fromAfar(p *Protocols) {
	for i, spec := range p.specs {
		p.specs[i].serve = func(ctx context.Context, c *Conn, p *Protocols) {
			c.Remote = netip.MustParseAddr("192.0.2.7")
			spec.serve(ctx, c, p)
		}
	}
}

// startIMAPWith is startIMAP with other settings.
func startIMAPWith(t testing.TB, set func(*Protocols)) *imapServer {
	t.Helper()
	dir := t.TempDir()
	store, err := OpenStore(StoreConfig{MailDir: filepath.Join(dir, "mail"), IndexDir: filepath.Join(dir, "index"), Host: "mail.test",
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	p := &Protocols{Accounts: openTestAccounts(t, ""), Store: store, MaxSize: 1 << 20}
	store.quota = p.Accounts.Quota
	p.specs = []portSpec{{143, "imap", false, serveIMAP, "* BYE "}, {993, "imaps", true, serveIMAP, ""}}
	set(p)
	s := &imapServer{startPorts(t, p), store}
	t.Cleanup(func() { // before goroutines are counted
		s.stop()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// imapLine is one end of an IMAP connection, read line by line.
type imapLine struct {
	net.Conn
	r *bufio.Reader
}

func (s *imapServer) connect(t testing.TB) *imapLine {
	c := s.dial(t, "imap")
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute)) // a busy machine is slow
	return &imapLine{c, bufio.NewReader(c)}
}

// readLine reads a line without its end.
func (c *imapLine) readLine(t testing.TB) string {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	line, err := c.r.ReadString('\n')
	if err == io.EOF && line == "" {
		return "<EOF>"
	}
	if err != nil {
		t.Fatalf("reading after %q: %v", line, err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
}

// send sends text as it is.
func (c *imapLine) send(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// do sends a command and gives the lines up to its tagged reply.
func (c *imapLine) do(t testing.TB, command string) []string {
	t.Helper()
	c.send(t, "zz "+command+"\r\n")
	var lines []string
	for {
		line := c.readLine(t)
		if lines = append(lines, line); strings.HasPrefix(line, "zz ") || line == "<EOF>" {
			return lines
		}
	}
}

// ok is do for a command that must succeed.
func (c *imapLine) ok(t testing.TB, command string) []string {
	t.Helper()
	lines := c.do(t, command)
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "zz OK") {
		t.Fatalf("%s: %s", command, last)
	}
	return lines
}

// login connects and logs in.
func (s *imapServer) login(t testing.TB, account string) *imapLine {
	t.Helper()
	c := s.connect(t)
	c.readLine(t)
	c.ok(t, fmt.Sprintf("LOGIN %s %q", account, imapPassword))
	return c
}

// TestIMAPTranscripts plays testdata/imap/*.txt. Lines are
//
//	# a remark
//	C: what the client sends     C2: by the second connection …
//	S: the line that must come   S2: to the second connection …
//	= login                      the greeting and LOGIN; = login 2 for the second connection
//	= peer 2                     the same, as another person
//	= message FLAGS              a message in INBOX by APPEND, the flags as in (\Seen)
//	= quota SIZE [MESSAGES]      the account's quota, 0K: none
//
// A connection opens when it is first spoken of. In C lines, <CRLF> <LF> <CR> <NUL> <SP> stand for themselves, in literals <LT> <GT> too,
// <REPEAT n text> is repeated text, <B64 text> is text in base64, and <LIT text>, <LIT+ text>, <LIT8 text>, <LIT8+ text> are literals with text; before
// the text of the synchronizing ones the server's "+" is awaited. <ME> is the user's address, <me> its local part, <PEER> and
// <peer> those of the other person. A C line that ends in <MORE> has no CRLF. In S lines <n>
// is a number, <n=x> one that is called x from then on, <…> anything and <EOF> the end. <$x> is the number called x and
// <$x-1> the one below it. At the end each connection logs out, which shows that nothing more was said.
func TestIMAPTranscripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/imap/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	s := startIMAP(t)
	for i, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			account := fmt.Sprintf("user%d@home.lan", i)
			mustAdd(t, s.Accounts, account, imapPassword)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := &imapTranscript{s: s, account: account, conns: map[string]*imapLine{}, file: file, numbers: map[string]uint64{}}
			for n, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
				p.line = n + 1
				p.play(t, line)
			}
			p.end(t)
		})
	}
	if log := s.log.String(); strings.Contains(log, "panic") || strings.Contains(log, "command failed") {
		t.Errorf("the log has failures:\n%s", log)
	}
}

// imapTranscript is one that is being played.
type imapTranscript struct {
	s       *imapServer
	account string
	conns   map[string]*imapLine
	file    string
	line    int
	numbers map[string]uint64 // by the names that S lines gave them
}

// numbered puts numbers in the place of their names.
func (p *imapTranscript) numbered(text string) string {
	return namedNumber.ReplaceAllStringFunc(text, func(token string) string {
		m := namedNumber.FindStringSubmatch(token)
		less, _ := strconv.ParseUint(m[2], 10, 64)
		return strconv.FormatUint(p.numbers[m[1]]-less, 10)
	})
}

var (
	namedNumber  = regexp.MustCompile(`<\$(\w+)(?:-(\d+))?>`)
	namingNumber = regexp.MustCompile(`<n=(\w+)>`)
)

var imapTranscriptLine = regexp.MustCompile(`^([CS=])(\d?)(?:: ?| )(.*)$`)

func (p *imapTranscript) play(t *testing.T, line string) {
	t.Helper()
	if line == "" || line[0] == '#' {
		return
	}
	m := imapTranscriptLine.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("%s:%d: not a transcript's line: %q", p.file, p.line, line)
	}
	if m[1] == "=" {
		p.direct(t, strings.Fields(m[3]))
		return
	}
	c := p.conn(t, m[2])
	peer := "peer-" + p.account
	me, _, _ := strings.Cut(p.account, "@")
	m[3] = strings.NewReplacer("<ME>", p.account, "<me>", me, "<PEER>", peer, "<peer>", "peer-"+me).Replace(p.numbered(m[3]))
	if m[1] == "C" {
		p.speak(t, c, m[3])
		return
	}
	p.expect(t, c, m[3])
}

func (p *imapTranscript) conn(t *testing.T, n string) *imapLine {
	if p.conns[n] == nil {
		p.conns[n] = p.s.connect(t)
	}
	return p.conns[n]
}

// direct does what "=" lines ask for.
func (p *imapTranscript) direct(t *testing.T, words []string) {
	n := ""
	switch words[0] {
	case "login", "peer":
		if len(words) > 1 {
			n = words[1]
		}
		account := p.account
		if words[0] == "peer" {
			account = "peer-" + account
			if !p.s.Accounts.Exists(account) {
				mustAdd(t, p.s.Accounts, account, imapPassword)
			}
		}
		c := p.conn(t, n)
		c.readLine(t)
		c.ok(t, fmt.Sprintf("LOGIN %s %q", account, imapPassword))
	case "message":
		const text = "Subject: test\r\n\r\nhello\r\n"
		flags := strings.Join(words[1:], " ")
		p.conn(t, n).ok(t, fmt.Sprintf("APPEND INBOX (%s) {%d+}\r\n%s", strings.Trim(flags, "()"), len(text), text))
	case "quota":
		setQuota(t, p.s.Accounts, p.account, words[1:]...)
	default:
		t.Fatalf("%s:%d: unknown directive", p.file, p.line)
	}
}

var (
	repeatToken   = regexp.MustCompile(`<REPEAT (\d+) ([^<>]*)>`)
	literalToken  = regexp.MustCompile(`<LIT(8?)(\+?) ((?:[^<>]|<REPEAT \d+ [^<>]*>|<[LG]T>)*)>`)
	base64Token   = regexp.MustCompile(`<B64 ([^<>]*)>`)
	bracketTokens = strings.NewReplacer("<LT>", "<", "<GT>", ">")
	plainTokens   = strings.NewReplacer("<CRLF>", "\r\n", "<LF>", "\n", "<CR>", "\r", "<NUL>", "\x00", "<SP>", " ")
)

// speak sends what a C line says.
func (p *imapTranscript) speak(t *testing.T, c *imapLine, text string) {
	t.Helper()
	text, more := strings.CutSuffix(plainTokens.Replace(text), "<MORE>")
	text = base64Token.ReplaceAllStringFunc(text, func(token string) string {
		return base64.StdEncoding.EncodeToString([]byte(base64Token.FindStringSubmatch(token)[1]))
	})
	for {
		m := literalToken.FindStringSubmatchIndex(text)
		if m == nil {
			break
		}
		tilde := map[string]string{"": "", "8": "~"}[text[m[2]:m[3]]]
		plus, literal := text[m[4]:m[5]], bracketTokens.Replace(repeated(text[m[6]:m[7]]))
		c.send(t, fmt.Sprintf("%s%s{%d%s}\r\n", repeated(text[:m[0]]), tilde, len(literal), plus))
		if plus == "" {
			if got := c.readLine(t); !strings.HasPrefix(got, "+ ") {
				t.Fatalf("%s:%d: wanted a continuation, got %q", p.file, p.line, got)
			}
		}
		c.send(t, literal)
		text = text[m[1]:]
	}
	if text = repeated(text); !more {
		text += "\r\n"
	}
	c.send(t, text)
}

// repeated expands <REPEAT n text>.
func repeated(text string) string {
	return repeatToken.ReplaceAllStringFunc(text, func(token string) string {
		m := repeatToken.FindStringSubmatch(token)
		n, _ := strconv.Atoi(m[1])
		return strings.Repeat(m[2], n)
	})
}

// expect reads a line and compares it.
func (p *imapTranscript) expect(t *testing.T, c *imapLine, want string) {
	t.Helper()
	got := c.readLine(t)
	pattern := regexp.QuoteMeta(plainTokens.Replace(want))
	pattern = strings.ReplaceAll(strings.ReplaceAll(pattern, "<n>", `\d+`), "<…>", ".*")
	pattern = namingNumber.ReplaceAllString(pattern, `(\d+)`)
	m := regexp.MustCompile("^(?s:" + pattern + ")$").FindStringSubmatch(got)
	if m == nil {
		t.Fatalf("%s:%d:\n got %q\nwant %q", p.file, p.line, got, want)
	}
	for i, name := range namingNumber.FindAllStringSubmatch(want, -1) {
		p.numbers[name[1]], _ = strconv.ParseUint(m[i+1], 10, 64)
	}
	if want == "<EOF>" {
		for n, have := range p.conns {
			if have == c {
				delete(p.conns, n)
			}
		}
	}
}

// end logs out, and so finds what was said and not expected.
func (p *imapTranscript) end(t *testing.T) {
	t.Helper()
	for _, c := range p.conns {
		c.send(t, "zz LOGOUT\r\n")
		for _, want := range []string{"* BYE Until next time", "zz OK LOGOUT completed", "<EOF>"} {
			if got := c.readLine(t); got != want {
				t.Fatalf("%s: at the end:\n got %q\nwant %q", p.file, got, want)
			}
		}
	}
}
