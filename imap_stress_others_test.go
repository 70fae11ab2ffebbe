package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"net"
	"net/smtp"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Who else changes the folders of the stress test: another program that works on the files, and mail that is delivered by
// SMTP and fetched by POP3.

// outsider is another program that works on the Maildir, as mutt and mbsync do.
type outsider struct {
	run     *stress
	rnd     *rand.Rand
	markers map[string]int // by base
	changes int
	trace   modelTrace
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
		if kept(marker) {
			return false
		}
		err := os.Remove(path)
		o.trace.note("O", fmt.Sprintf("remove message %d %s: %v", marker, path, err))
		return err == nil
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
	err = os.Rename(path, filepath.Join(dir, "cur", fmt.Sprintf("%s%c2,%s", base, infoSeparator(), sorted)))
	o.trace.note("O", fmt.Sprintf("rename message %d %s to %s: %v", marker, path, sorted, err))
	return err == nil
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
	err := os.Rename(tmp, to)
	o.trace.note("O", fmt.Sprintf("add message %d %s: %v", marker, to, err))
	return err == nil
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
	if marker := markerIn(messageIDLine(string(header))); marker != 0 {
		o.markers[base] = marker
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

// mailer delivers mail by SMTP and fetches it by POP3.
type mailer struct {
	run      *stress
	rnd      *rand.Rand
	promised []int // markers of messages that SMTP has taken
	fetched  int
}

// work does so now and then.
func (m *mailer) work() {
	for !m.run.stopped.Load() {
		m.run.calm.RLock()
		m.run.up.RLock()
		life := m.run.server.lives()
		m.run.up.RUnlock()
		err := m.deliver()
		if err == nil && m.rnd.IntN(3) == 0 {
			err = m.collect()
		}
		if err != nil && life == m.run.server.lives() && !m.run.stopped.Swap(true) {
			m.run.t.Errorf("SMTP or POP3: %v", err)
		}
		m.run.calm.RUnlock()
		time.Sleep(time.Duration(50+m.rnd.IntN(300)) * time.Millisecond)
	}
}

// dial connects to a port while the server is up.
func (m *mailer) dial(port string) (net.Conn, error) {
	m.run.up.RLock()
	defer m.run.up.RUnlock()
	address, _ := m.run.server.address(port)
	conn, err := net.DialTimeout("tcp", address, time.Minute)
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
	}
	return conn, err
}

// deliver sends a message to the account.
func (m *mailer) deliver() error {
	marker, text := m.run.facts.newText("")
	m.run.facts.mu.Lock()
	text.delivered = true
	m.run.facts.mu.Unlock()
	conn, err := m.dial("smtp")
	if err != nil {
		return err
	}
	defer conn.Close()
	c, err := smtp.NewClient(conn, "localhost")
	if err != nil {
		return err
	}
	if err = c.Mail("writer@example.org"); err == nil {
		err = c.Rcpt(stressAccount)
	}
	if err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(text.text)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	m.promised = append(m.promised, marker)
	return c.Quit()
}

// collect reads a message by POP3, compares it, and deletes it if it may go.
func (m *mailer) collect() error {
	conn, err := m.dial("pop3")
	if err != nil {
		return err
	}
	defer conn.Close()
	c := textproto.NewReader(bufio.NewReader(conn))
	say := func(command string) (string, error) {
		if command != "" {
			if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
				return "", err
			}
		}
		line, err := c.ReadLine()
		if err == nil && !strings.HasPrefix(line, "+OK") {
			err = fmt.Errorf("%s: %s", command, line)
		}
		return line, err
	}
	line := ""
	for _, command := range []string{"", "USER " + stressAccount, "PASS " + imapPassword, "STAT"} {
		if line, err = say(command); err != nil {
			return err
		}
	}
	var count, size int
	if _, err := fmt.Sscanf(line, "+OK %d %d", &count, &size); err != nil || count == 0 {
		return err
	}
	number := 1 + m.rnd.IntN(count)
	if _, err := say(fmt.Sprintf("RETR %d", number)); err != nil {
		if strings.Contains(err.Error(), "-ERR") { // it is gone since
			return nil
		}
		return err
	}
	got, err := c.ReadDotBytes()
	if err != nil {
		return err
	}
	header, _, _ := bytes.Cut(got, []byte("\n\n"))
	marker := markerIn(messageIDLine(string(header)))
	if text := m.run.facts.textOf(marker); text == nil || !strings.HasSuffix(strings.ReplaceAll(string(got), "\n", "\r\n"), text.text) {
		return fmt.Errorf("message %d is %q", marker, got)
	}
	m.fetched++
	if !kept(marker) {
		if _, err := say(fmt.Sprintf("DELE %d", number)); err != nil {
			return err
		}
	}
	_, err = say("QUIT")
	return err
}

// messageIDLine finds the line with the Message-ID.
func messageIDLine(header string) string {
	for line := range strings.Lines(header) {
		if strings.HasPrefix(line, "Message-ID:") {
			return line
		}
	}
	return ""
}
