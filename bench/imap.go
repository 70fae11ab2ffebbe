package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// client is a connection that sends a command and reads until its answer, looking at as little as it can: what it does
// counts into what is measured.
type client struct {
	net.Conn
	r *bufio.Reader
	n int // commands sent
}

// clientBuffer is what a client reads at once, in bytes.
const clientBuffer = 256 << 10

// dialTLS connects by TLS, whose certificate nobody vouches for, with the key exchange that all servers have: a newer one
// costs more. from is the address to come from, "" any.
func dialTLS(addr, from string, buffer int) (*client, error) {
	d := &net.Dialer{}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := tls.DialWithDialer(d, "tcp", addr, &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}})
	if err != nil {
		return nil, err
	}
	return &client{Conn: c, r: bufio.NewReaderSize(c, buffer)}, nil
}

// login opens an IMAP session.
func (t *target) login(user string) (*client, error) {
	return t.loginFrom(user, "", clientBuffer)
}

func (t *target) loginFrom(user, from string, buffer int) (*client, error) {
	c, err := dialTLS(t.imap, from, buffer)
	if err != nil {
		return nil, err
	}
	if _, err := c.line(); err != nil {
		c.Close()
		return nil, err
	}
	if _, err = c.do(fmt.Sprintf("LOGIN %q %q", user, t.password)); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// selected opens an IMAP session with a mailbox selected.
func (t *target) selected(user, mailbox string) (*client, error) {
	c, err := t.login(user)
	if err != nil {
		return nil, err
	}
	if _, err := c.do("SELECT " + mailbox); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// raw reads a line, of which the end is given when it is longer than the buffer. It is valid until the next read.
func (c *client) raw() ([]byte, error) {
	line, err := c.r.ReadSlice('\n')
	for err == bufio.ErrBufferFull {
		line, err = c.r.ReadSlice('\n')
	}
	return line, err
}

func (c *client) line() (string, error) {
	line, err := c.raw()
	return strings.TrimRight(string(line), "\r\n"), err
}

// do runs an IMAP command and gives the last untagged line.
func (c *client) do(command string) (last string, err error) {
	c.n++
	tag := []byte("t" + strconv.Itoa(c.n) + " ")
	if _, err := fmt.Fprintf(c, "%s%s\r\n", tag, command); err != nil {
		return "", err
	}
	for {
		line, err := c.raw()
		if err != nil {
			return "", err
		}
		if bytes.HasPrefix(line, tag) {
			if !bytes.HasPrefix(line[len(tag):], []byte("OK")) {
				return last, fmt.Errorf("%.60s: %s", command, line)
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

// skipLiteral reads the literal that a line announces, if it does.
func (c *client) skipLiteral(line []byte) error {
	open := bytes.LastIndexByte(line, '{')
	size, err := strconv.Atoi(string(line[open+1 : len(line)-3]))
	if err != nil {
		return nil
	}
	_, err = c.r.Discard(size)
	return err
}

// append is APPEND of a message.
func (c *client) append(mailbox, text string) error {
	_, err := c.do(fmt.Sprintf("APPEND %s {%d+}\r\n%s", mailbox, len(text), text))
	return err
}

// messages gives the number of messages in a mailbox.
func (c *client) messages(mailbox string) (int, error) {
	line, err := c.do("STATUS " + mailbox + " (MESSAGES)")
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(line, "(MESSAGES ")
	number, _, ok := strings.Cut(after, ")")
	n, err := strconv.Atoi(number)
	if !ok || err != nil {
		return 0, fmt.Errorf("STATUS: %s", line)
	}
	return n, nil
}

// idle begins IDLE; done ends it.
func (c *client) idle() error {
	if _, err := io.WriteString(c, "i IDLE\r\n"); err != nil {
		return err
	}
	for {
		line, err := c.line()
		if err != nil {
			return err
		}
		if strings.HasPrefix(line, "+") {
			return nil
		}
		if !strings.HasPrefix(line, "*") {
			return fmt.Errorf("IDLE: %s", line)
		}
	}
}

func (c *client) done() error {
	if _, err := io.WriteString(c, "DONE\r\n"); err != nil {
		return err
	}
	for {
		line, err := c.line()
		if err != nil || strings.HasPrefix(line, "i OK") {
			return err
		}
	}
}
