package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// target is the server that gets the work, and how much of it.
type target struct {
	imap, pop3, smtp string // addresses, IMAP and POP3 under TLS from the start
	user, password   string // the password is everybody's
	big, small       string // accounts with many and with few messages
	post             string // who gets what is delivered
	crowd            string // accounts of the idle sessions, with %d
	pids             []int  // processes whose memory, with that of their children, is the server's

	samples    int // repetitions of what only reads
	appends    int // messages that are appended
	deliveries int // messages over one connection
	notices    int // deliveries to a session that idles
	sessions   int // that idle

	question string // the IMAP command of ask

	out    io.Writer
	idlers []*client // sessions that are kept open
}

// parts are the pieces of work by their names on the command line.
var parts = map[string]func(*target) error{
	"tls":      (*target).tellTLS,
	"open":     (*target).opening,
	"reopen":   (*target).reopening,
	"first":    (*target).readingFirst,
	"read":     (*target).reading,
	"login":    (*target).logins,
	"pop3":     (*target).pop3All,
	"change":   (*target).changing,
	"append":   (*target).appending,
	"smtp":     (*target).accepting,
	"notice":   (*target).noticing,
	"size":     (*target).sizes,
	"sessions": (*target).idling,
	"ask":      (*target).asking,
}

func runParts(args []string) error {
	t := target{out: os.Stdout}
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.StringVar(&t.imap, "imap", "", "`address` of IMAP with TLS from the start")
	flags.StringVar(&t.pop3, "pop3", "", "`address` of POP3 with TLS from the start, for pop3")
	flags.StringVar(&t.smtp, "smtp", "", "`address` of SMTP, for smtp, notice and size")
	flags.StringVar(&t.user, "user", "", "`account` with the messages that are read and changed")
	flags.StringVar(&t.password, "password", "", "`password` of all accounts")
	flags.StringVar(&t.big, "big", "", "`account` with very many messages, for open, reopen and size")
	flags.StringVar(&t.small, "small", "", "`account` with few messages, for size")
	flags.StringVar(&t.post, "post", "", "`account` that gets the mail of smtp and notice")
	flags.StringVar(&t.crowd, "crowd", "", "`pattern` of the accounts of sessions, %d being 0 to 24")
	flags.IntVar(&t.samples, "samples", 5, "`repetitions` of what only reads")
	flags.IntVar(&t.appends, "appends", 200, "`messages` that are appended")
	flags.IntVar(&t.deliveries, "deliveries", 400, "`messages` that are delivered over one connection")
	flags.IntVar(&t.notices, "notices", 50, "`deliveries` to a session that idles")
	flags.IntVar(&t.sessions, "sessions", 500, "`number` of sessions that idle")
	flags.StringVar(&t.question, "command", "NOOP", "IMAP `command`, for ask")
	pids := flags.String("pids", "", "comma-separated `process ids` of the server, for sessions")
	err := flags.Parse(args)
	if err == nil && *pids != "" {
		t.pids, err = numbers(strings.Split(*pids, ","))
	}
	if err != nil {
		return err
	}
	return t.run(flags.Args())
}

// run does parts of the work.
func (t *target) run(names []string) error {
	for _, name := range names {
		part := parts[name]
		if part == nil {
			return fmt.Errorf("there is no part %q", name)
		}
		if err := part(t); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// print says what was measured.
func (t *target) print(name string, value float64) {
	fmt.Fprintf(t.out, "%s %.6f\n", name, value)
}

// timed prints how long f took.
func (t *target) timed(name string, f func() error) error {
	start := time.Now()
	if err := f(); err != nil {
		return err
	}
	t.print(name, time.Since(start).Seconds())
	return nil
}

// command is the time of an IMAP command.
func (t *target) command(c *client, name, command string) error {
	return t.timed(name, func() error { _, err := c.do(command); return err })
}

// tellTLS says what protects the connections, so that nobody compares two different things.
func (t *target) tellTLS() error {
	c, err := dialTLS(t.imap, "", clientBuffer)
	if err != nil {
		return err
	}
	defer c.Close()
	state := c.Conn.(*tls.Conn).ConnectionState()
	fmt.Fprintln(t.out, tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite), state.CurveID, state.PeerCertificates[0].PublicKeyAlgorithm)
	return nil
}

// opening is the first SELECT of a very large mailbox since the server was started.
func (t *target) opening() error {
	c, err := t.login(t.big)
	if err != nil {
		return err
	}
	defer c.Close()
	return t.command(c, "open", "SELECT INBOX")
}

// asking is one command in the large mailbox.
func (t *target) asking() error {
	c, err := t.selected(t.big, "INBOX")
	if err != nil {
		return err
	}
	defer c.Close()
	return t.command(c, "ask", t.question)
}

// reopening is a SELECT in new sessions when others have had the mailbox open.
func (t *target) reopening() error {
	for range t.samples {
		c, err := t.login(t.big)
		if err != nil {
			return err
		}
		err = t.command(c, "reopen", "SELECT INBOX")
		c.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// readings are the commands that only read: the same for the first time and when all that can be remembered is.
var readings = []struct{ name, command string }{
	{"fetch_flags", "FETCH 1:* (UID FLAGS)"},
	{"fetch_envelope", "FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)"},
	{"fetch_headers", "FETCH 1:* (UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (From To Cc Bcc Subject Date Message-ID Priority X-Priority References Newsgroups In-Reply-To Content-Type Reply-To)])"},
	{"fetch_bodystructure", "FETCH 1:* (UID BODYSTRUCTURE)"},
	{"fetch_body", "FETCH 1:* (UID BODY.PEEK[])"},
	{"search_from", "SEARCH FROM person77"},
	{"search_subject", "SEARCH SUBJECT \"project 12\""},
	{"search_body", "SEARCH BODY holiday"},
	{"search_text_miss", "SEARCH TEXT xyzzyplugh"},
}

// readingFirst does each reading once, for a server that has not seen the messages before.
func (t *target) readingFirst() error {
	c, err := t.selected(t.user, "INBOX")
	if err != nil {
		return err
	}
	defer c.Close()
	for _, r := range readings {
		if err := t.command(c, "first_"+r.name, r.command); err != nil {
			return err
		}
	}
	return nil
}

// reading does each reading several times, after once that is not counted.
func (t *target) reading() error {
	c, err := t.selected(t.user, "INBOX")
	if err != nil {
		return err
	}
	defer c.Close()
	for _, r := range readings {
		if _, err := c.do(r.command); err != nil {
			return err
		}
		for range t.samples {
			if err := t.command(c, r.name, r.command); err != nil {
				return err
			}
		}
	}
	return nil
}

// logins connect, log in and select, one after the other.
func (t *target) logins() error {
	for i := range 10 * t.samples {
		start := time.Now()
		c, err := t.selected(t.user, "INBOX")
		if err != nil {
			return err
		}
		if i > 0 { // the first password is checked at length
			t.print("login", time.Since(start).Seconds())
		}
		c.Close()
	}
	return nil
}

// changing is the work on flags, copies and removals; the latter two of 1,000 messages, if there are as many.
func (t *target) changing() error {
	c, err := t.login(t.user)
	if err != nil {
		return err
	}
	defer c.Close()
	n, err := c.messages("INBOX")
	if err != nil {
		return err
	}
	for _, step := range []struct{ name, command string }{
		{"", "CREATE benchcopy"},
		{"", "SELECT INBOX"},
		{"store", "STORE 1:* +FLAGS.SILENT (\\Flagged)"},
		{"copy", fmt.Sprintf("COPY 1:%d benchcopy", min(n, 1000))},
		{"", "SELECT benchcopy"},
		{"", "STORE 1:* +FLAGS.SILENT (\\Deleted)"},
		{"expunge", "EXPUNGE"},
		{"", "SELECT INBOX"},
		{"", "STORE 1:* -FLAGS.SILENT (\\Flagged)"},
		{"", "DELETE benchcopy"},
	} {
		work := func() error { _, err := c.do(step.command); return err }
		if step.name != "" {
			err = t.timed(step.name, work)
		} else {
			err = work()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// appending adds the same number of messages to a new mailbox over one connection, then over four.
func (t *target) appending() error {
	c, err := t.login(t.user)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.do("CREATE benchappend"); err != nil {
		return err
	}
	for _, connections := range []int{1, 4} {
		clients := make(chan *client, connections)
		for range connections {
			c, err := t.selected(t.user, "benchappend")
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.append("benchappend", smallMessage()); err != nil {
				return err
			}
			clients <- c
		}
		err := t.timed(fmt.Sprintf("append_%d", connections), func() error {
			return atOnce(connections, func() error { return appendMany(<-clients, t.appends/connections) })
		})
		if err != nil {
			return err
		}
	}
	_, err = c.do("DELETE benchappend")
	return err
}

func appendMany(c *client, n int) error {
	for range n {
		if err := c.append("benchappend", smallMessage()); err != nil {
			return err
		}
	}
	return nil
}

// sizes compares what single things cost in a mailbox with very many messages and in one with few. Both get their turns
// one after the other, so that what else the machine does falls on both.
func (t *target) sizes() error {
	boxes := []struct{ name, account string }{{"few", t.small}, {"many", t.big}}
	var sessions [2]*client
	var senders [2]*sender
	for i, box := range boxes {
		c, err := t.selected(box.account, "INBOX")
		if err != nil {
			return err
		}
		defer c.Close()
		s, err := t.sender(box.account)
		if err != nil {
			return err
		}
		defer s.quit()
		sessions[i], senders[i] = c, s
	}
	for round := range 20 * t.samples {
		sign := [2]string{"+", "-"}[round%2]
		for i, box := range boxes {
			if err := t.timed("deliver_"+box.name, senders[i].send); err != nil {
				return err
			}
			if err := t.command(sessions[i], "noop_"+box.name, "NOOP"); err != nil {
				return err
			}
			if err := t.command(sessions[i], "flag_"+box.name, "STORE 50 "+sign+"FLAGS (\\Seen)"); err != nil {
				return err
			}
			err := t.timed("login_"+box.name, func() error {
				c, err := t.selected(box.account, "INBOX")
				if err == nil {
					c.Close()
				}
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// atOnce runs f n times at once and gives one of the errors.
func atOnce(n int, f func() error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

// pop3All retrieves all messages: one command after the other, and all commands at once (RFC 2449 §6.8).
func (t *target) pop3All() error {
	for _, mode := range []struct {
		name     string
		together int
	}{{"pop3", 1}, {"pop3_pipelined", 50}} {
		c, n, err := t.maildrop()
		if err != nil {
			return err
		}
		err = t.timed(mode.name, func() error { return c.retrieve(n, mode.together) })
		if err == nil {
			_, err = c.ask("RSET") // RETR may have marked messages
		}
		if err == nil {
			_, err = c.ask("QUIT")
		}
		c.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// maildrop opens a POP3 session and gives the number of messages.
func (t *target) maildrop() (*client, int, error) {
	c, err := dialTLS(t.pop3, "", clientBuffer)
	if err != nil {
		return nil, 0, err
	}
	var line string
	for _, command := range []string{"", "USER " + t.user, "PASS " + t.password, "STAT"} {
		if line, err = c.ask(command); err != nil {
			c.Close()
			return nil, 0, err
		}
	}
	fields := strings.Fields(line)
	n := 0
	if len(fields) > 1 {
		n, err = strconv.Atoi(fields[1])
	}
	if err == nil && n == 0 {
		err = fmt.Errorf("STAT: %s", line)
	}
	return c, n, err
}

// ask sends a POP3 command ("" none) and gives its reply.
func (c *client) ask(command string) (string, error) {
	if command != "" {
		if _, err := io.WriteString(c, command+"\r\n"); err != nil {
			return "", err
		}
	}
	line, err := c.line()
	if err == nil && !strings.HasPrefix(line, "+OK") {
		err = fmt.Errorf("%.10s: %s", command, line)
	}
	return line, err
}

// retrieve reads messages 1 to n, sending so many commands together.
func (c *client) retrieve(n, together int) error {
	for first := 1; first <= n; first += together {
		last := min(first+together-1, n)
		var commands strings.Builder
		for i := first; i <= last; i++ {
			fmt.Fprintf(&commands, "RETR %d\r\n", i)
		}
		if _, err := io.WriteString(c, commands.String()); err != nil {
			return err
		}
		for range last - first + 1 {
			if _, err := c.ask(""); err != nil {
				return err
			}
			if err := c.skipText(); err != nil {
				return err
			}
		}
	}
	return nil
}

// skipText reads up to the dot that ends a multi-line reply.
func (c *client) skipText() error {
	for {
		line, err := c.raw()
		if err != nil {
			return err
		}
		if len(line) == 3 && line[0] == '.' {
			return nil
		}
	}
}
