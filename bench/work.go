package main

import (
	"bufio"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// target is the server that gets the work.
type target struct {
	imap, pop3, smtp   string // addresses, IMAP and POP3 under TLS from the start
	user, password, to string
	rounds             int
}

func runWork(args []string) error {
	var t target
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.StringVar(&t.imap, "imap", "", "address of IMAP with TLS")
	flags.StringVar(&t.pop3, "pop3", "", "address of POP3 with TLS")
	flags.StringVar(&t.smtp, "smtp", "", "address of SMTP, plain")
	flags.StringVar(&t.user, "user", "", "who logs in")
	flags.StringVar(&t.password, "password", "", "with what")
	flags.StringVar(&t.to, "to", "", "recipient of SMTP")
	flags.IntVar(&t.rounds, "rounds", 5, "repetitions of what only reads; the median counts")
	if err := flags.Parse(args); err != nil {
		return err
	}
	for _, part := range []func() error{t.reading, t.logins, t.pop3All, t.changing, t.appending, t.delivering} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// conn is a client that sends a command and reads until its answer, looking at as little as it can.
type conn struct {
	net.Conn
	r *bufio.Reader
	n int
}

func dialTLS(addr string) (*conn, error) {
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, r: bufio.NewReaderSize(c, 256<<10)}, nil
}

func (t *target) login() (*conn, error) {
	c, err := dialTLS(t.imap)
	if err != nil {
		return nil, err
	}
	if _, err := c.line(); err != nil {
		return nil, err
	}
	_, err = c.do(fmt.Sprintf("LOGIN %q %q", t.user, t.password))
	return c, err
}

func (c *conn) line() (string, error) {
	line, err := c.r.ReadSlice('\n')
	for err == bufio.ErrBufferFull {
		line, err = c.r.ReadSlice('\n')
	}
	return string(line), err
}

// do runs an IMAP command and gives the last untagged line.
func (c *conn) do(command string) (last string, err error) {
	c.n++
	tag := "t" + strconv.Itoa(c.n) + " "
	if _, err := io.WriteString(c, tag+command+"\r\n"); err != nil {
		return "", err
	}
	for {
		line, err := c.r.ReadSlice('\n')
		for err == bufio.ErrBufferFull {
			line, err = c.r.ReadSlice('\n')
		}
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(string(line[:min(len(line), len(tag))]), tag) {
			if !strings.HasPrefix(string(line[len(tag):]), "OK") {
				return last, fmt.Errorf("%s: %s", command, line)
			}
			return last, nil
		}
		if n := len(line); n > 3 && line[n-3] == '}' {
			if err := c.skipLiteral(line); err != nil {
				return "", err
			}
			continue
		}
		if line[0] == '*' {
			last = string(line)
		}
	}
}

func (c *conn) skipLiteral(line []byte) error {
	open := strings.LastIndexByte(string(line), '{')
	size, err := strconv.Atoi(string(line[open+1 : len(line)-3]))
	if err != nil {
		return nil
	}
	_, err = c.r.Discard(size)
	return err
}

// timed prints how long f took.
func timed(name string, f func() error) error {
	start := time.Now()
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Printf("%s %.6f\n", name, time.Since(start).Seconds())
	return nil
}

// median prints the median of some rounds, after one that warms up and is printed by itself.
func median(name string, rounds int, f func() error) error {
	if err := timed(name+"_first", f); err != nil {
		return err
	}
	var took []float64
	for range rounds {
		start := time.Now()
		if err := f(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		took = append(took, time.Since(start).Seconds())
	}
	slices.Sort(took)
	fmt.Printf("%s %.6f\n", name, took[len(took)/2])
	return nil
}

func (t *target) reading() error {
	c, err := t.login()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := median("SELECT", t.rounds, func() error { _, err := c.do("SELECT INBOX"); return err }); err != nil {
		return err
	}
	for _, work := range []struct{ name, command string }{
		{"FETCH_FLAGS", "FETCH 1:* (UID FLAGS)"},
		{"FETCH_ENVELOPE", "FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)"},
		{"FETCH_HEADERS", "FETCH 1:* (UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (From To Cc Bcc Subject Date Message-ID Priority X-Priority References Newsgroups In-Reply-To Content-Type Reply-To)])"},
		{"FETCH_BODYSTRUCTURE", "FETCH 1:* (UID BODYSTRUCTURE)"},
		{"FETCH_BODY", "FETCH 1:* (UID BODY.PEEK[])"},
		{"SEARCH_FROM", "SEARCH FROM person77"},
		{"SEARCH_SUBJECT", "SEARCH SUBJECT \"project 12\""},
		{"SEARCH_BODY", "SEARCH BODY holiday"},
		{"SEARCH_TEXT_MISS", "SEARCH TEXT xyzzyplugh"},
	} {
		if err := median(work.name, t.rounds, func() error { _, err := c.do(work.command); return err }); err != nil {
			return err
		}
	}
	return nil
}

func (t *target) logins() error {
	return timed("LOGIN_SELECT_50", func() error {
		for range 50 {
			c, err := t.login()
			if err != nil {
				return err
			}
			if _, err := c.do("SELECT INBOX"); err != nil {
				return err
			}
			c.Close()
		}
		return nil
	})
}

func (t *target) pop3All() error {
	if t.pop3 == "" {
		return nil
	}
	c, err := dialTLS(t.pop3)
	if err != nil {
		return err
	}
	defer c.Close()
	say := func(command string) (string, error) {
		if command != "" {
			io.WriteString(c, command+"\r\n")
		}
		line, err := c.line()
		if err == nil && !strings.HasPrefix(line, "+OK") {
			err = fmt.Errorf("%s: %s", command, line)
		}
		return line, err
	}
	for _, command := range []string{"", "USER " + t.user, "PASS " + t.password} {
		if _, err := say(command); err != nil {
			return err
		}
	}
	stat, err := say("STAT")
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.Fields(stat)[1])
	if err != nil {
		return err
	}
	err = timed("POP3_RETR_ALL", func() error {
		for i := 1; i <= n; i++ {
			if _, err := say("RETR " + strconv.Itoa(i)); err != nil {
				return err
			}
			for {
				line, err := c.r.ReadSlice('\n')
				for err == bufio.ErrBufferFull {
					line, err = c.r.ReadSlice('\n')
				}
				if err != nil {
					return err
				}
				if len(line) == 3 && line[0] == '.' {
					break
				}
			}
		}
		return nil
	})
	say("RSET")
	say("QUIT")
	return err
}

func (t *target) changing() error {
	c, err := t.login()
	if err != nil {
		return err
	}
	defer c.Close()
	c.do("CREATE benchcopy")
	for _, step := range []struct{ name, command string }{
		{"", "SELECT INBOX"},
		{"STORE_ALL", "STORE 1:* +FLAGS.SILENT (\\Flagged)"},
		{"COPY_1000", "COPY 1:1000 benchcopy"},
		{"", "SELECT benchcopy"},
		{"", "STORE 1:* +FLAGS.SILENT (\\Deleted)"},
		{"EXPUNGE_1000", "EXPUNGE"},
		{"", "SELECT INBOX"},
		{"", "STORE 1:* -FLAGS.SILENT (\\Flagged)"},
	} {
		work := func() error { _, err := c.do(step.command); return err }
		if step.name != "" {
			err = timed(step.name, work)
		} else {
			err = work()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *target) appending() error {
	text := sample(1)
	appendTo := func(n int) error {
		c, err := t.login()
		if err != nil {
			return err
		}
		defer c.Close()
		for range n {
			if _, err := c.do(fmt.Sprintf("APPEND benchcopy {%d+}\r\n%s", len(text), text)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := timed("APPEND_200_one", func() error { return appendTo(200) }); err != nil {
		return err
	}
	return timed("APPEND_200_four", func() error { return atOnce(4, func() error { return appendTo(50) }) })
}

func atOnce(n int, f func() error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *target) delivering() error {
	if t.smtp == "" {
		return nil
	}
	text := strings.ReplaceAll(sample(1), "\r\n.", "\r\n..")[:1900] + "\r\n.\r\n"
	deliver := func(n int) error {
		raw, err := net.Dial("tcp", t.smtp)
		if err != nil {
			return err
		}
		defer raw.Close()
		r := bufio.NewReader(raw)
		say := func(command, want string) error {
			if command != "" {
				io.WriteString(raw, command)
			}
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return err
				}
				if len(line) > 3 && line[3] == '-' {
					continue
				}
				if !strings.HasPrefix(line, want) {
					return fmt.Errorf("%.20q: %s", command, line)
				}
				return nil
			}
		}
		steps := []struct{ command, want string }{{"", "220"}, {"EHLO bench\r\n", "250"}}
		for range n {
			steps = append(steps, []struct{ command, want string }{{"MAIL FROM:<bench@example.com>\r\n", "250"}, {"RCPT TO:<" + t.to + ">\r\n", "250"}, {"DATA\r\n", "354"}, {text, "250"}}...)
		}
		for _, s := range steps {
			if err := say(s.command, s.want); err != nil {
				return err
			}
		}
		return nil
	}
	if err := timed("SMTP_400_one", func() error { return deliver(400) }); err != nil {
		return err
	}
	return timed("SMTP_800_eight", func() error { return atOnce(8, func() error { return deliver(100) }) })
}
