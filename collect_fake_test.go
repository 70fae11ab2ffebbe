package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeMail is a message on a server that does not always tell the truth.
type fakeMail struct {
	uidl  string // of POP3
	uid   int    // of IMAP
	text  string
	size  int    // as it is told; 0: the true one
	flags string // of IMAP
}

// fakeOutside is a server of POP3 and IMAP with one mailbox and bad manners.
type fakeOutside struct {
	t    testing.TB
	port int
	tls  *tls.Config // server's; its clients trust it by client
	root *tls.Config

	mu         sync.Mutex
	mail       []fakeMail
	imap       bool // it speaks IMAP, for its messages have UIDs
	validity   int
	caps       string         // of IMAP, besides IMAP4rev1
	password   string         // "": any
	logins     int            // that were tried
	open, most int            // connections
	removes    bool           // deletes what it is told to
	mute       string         // says nothing any more after a line that begins so
	end        string         // closes the connection after a line that begins so
	cut        map[string]int // RETR or FETCH of this uidl or uid ends after so many bytes, and the connection with it
	refuse     map[string]bool
	reply      map[string]string // what is said to a line that begins so, in place of the truth
	lines      []string          // that came in
}

// startFake begins to serve on a free port, with TLS from the start.
func startFake(t testing.TB, mail ...fakeMail) *fakeOutside {
	t.Helper()
	f := &fakeOutside{t: t, mail: slices.Clone(mail), imap: slices.ContainsFunc(mail, func(m fakeMail) bool { return m.uid != 0 }), validity: 7, caps: "UIDPLUS", removes: true, cut: map[string]int{}, refuse: map[string]bool{}, reply: map[string]string{}}
	f.tls, f.root = serverTLS(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.port = l.Addr().(*net.TCPAddr).Port
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { f.serve(raw) })
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return f
}

// set changes the manners.
func (f *fakeOutside) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// left gives the texts that are still there.
func (f *fakeOutside) left() (texts []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.mail {
		texts = append(texts, m.text)
	}
	return texts
}

// count gives how many logins were tried.
func (f *fakeOutside) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logins
}

// came counts the lines that begin so.
func (f *fakeOutside) came(prefix string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, line := range f.lines {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

// serve is one session.
func (f *fakeOutside) serve(raw net.Conn) {
	defer raw.Close()
	f.set(func() { f.open++; f.most = max(f.most, f.open) })
	defer f.set(func() { f.open-- })
	_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
	conn := tls.Server(raw, f.tls)
	s := &fakeSession{f: f, w: conn, r: bufio.NewReader(conn)}
	s.run()
}

// fakeSession is one connection.
type fakeSession struct {
	f      *fakeOutside
	w      io.Writer
	r      *bufio.Reader
	mail   []fakeMail // as it was at the login
	marked map[int]bool
	idle   string // the tag of IDLE
}

// send writes a text without a copy of the whole of it.
func (s *fakeSession) send(text string) {
	_, _ = io.Copy(s.w, struct{ io.Reader }{strings.NewReader(text)}) // whoever is gone is gone
}

func (s *fakeSession) say(format string, args ...any) {
	fmt.Fprintf(s.w, format+"\r\n", args...)
}

// run serves the fake's protocol.
func (s *fakeSession) run() {
	s.f.mu.Lock()
	imap := s.f.imap
	greeting, ok := s.f.reply["greeting"]
	mute := s.f.mute == "greeting"
	s.f.mu.Unlock()
	switch {
	case mute:
	case ok:
		io.WriteString(s.w, greeting)
	case imap:
		s.say("* OK ready")
	default:
		s.say("+OK ready")
	}
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		command := line
		tag := ""
		if imap {
			tag, command, _ = strings.Cut(line, " ")
		}
		s.f.mu.Lock()
		s.f.lines = append(s.f.lines, command)
		mute, end := s.f.mute, s.f.end
		odd := ""
		for prefix, text := range s.f.reply {
			if strings.HasPrefix(command, prefix) {
				odd = text
			}
		}
		s.f.mu.Unlock()
		switch {
		case end != "" && strings.HasPrefix(command, end):
			return
		case mute != "" && strings.HasPrefix(command, mute):
			io.Copy(io.Discard, s.r)
			return
		case odd != "":
			io.WriteString(s.w, strings.ReplaceAll(odd, "<T>", tag))
			continue
		}
		more := false
		if imap {
			more = s.imap(tag, command)
		} else {
			more = s.pop3(command)
		}
		if !more {
			return
		}
	}
}

// login counts and checks.
func (s *fakeSession) login(password string) bool {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.f.logins++
	s.mail, s.marked = slices.Clone(s.f.mail), map[int]bool{}
	return s.f.password == "" || s.f.password == password
}

func (s *fakeSession) pop3(line string) bool {
	verb, arg, _ := strings.Cut(line, " ")
	n, _ := strconv.Atoi(arg)
	switch verb {
	case "CAPA":
		s.say("+OK\r\nUIDL\r\n.")
	case "USER":
		s.say("+OK")
	case "PASS":
		if !s.login(arg) {
			s.say("-ERR [AUTH] no such luck")
			return true
		}
		s.say("+OK")
	case "UIDL", "LIST":
		s.say("+OK")
		for i, m := range s.mail {
			size := m.size
			if size == 0 {
				size = len(m.text)
			}
			if verb == "UIDL" {
				s.say("%d %s", i+1, m.uidl)
			} else {
				s.say("%d %d", i+1, size)
			}
		}
		s.say(".")
	case "RETR":
		m := s.mail[n-1]
		s.f.mu.Lock()
		cut, cuts := s.f.cut[m.uidl]
		refused := s.f.refuse[m.uidl]
		s.f.mu.Unlock()
		if refused {
			s.say("-ERR it is broken")
			return true
		}
		text := m.text
		if strings.HasPrefix(text, ".") || strings.Contains(text, "\n.") {
			text = strings.ReplaceAll("\n"+text, "\n.", "\n..")[1:]
		}
		if cuts {
			io.WriteString(s.w, "+OK\r\n"+text[:min(cut, len(text))])
			return false
		}
		s.say("+OK")
		s.send(text)
		s.say(".")
	case "DELE":
		s.marked[n] = true
		s.say("+OK")
	case "QUIT":
		s.f.set(func() {
			for n := range s.marked {
				if s.f.removes {
					s.f.mail = slices.DeleteFunc(s.f.mail, func(m fakeMail) bool { return m == s.mail[n-1] })
				}
			}
		})
		s.say("+OK")
		return false
	default:
		s.say("-ERR what?")
	}
	return true
}

func (s *fakeSession) imap(tag, line string) bool {
	f := s.f
	words := strings.Fields(line)
	if tag == "DONE" {
		s.say("%s OK done", s.idle)
		return true
	}
	if len(words) > 1 && words[0] == "UID" {
		words = append([]string{"UID " + words[1]}, words[2:]...)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch words[0] {
	case "IDLE":
		s.idle = tag
		s.say("+ waiting")
		return true
	case "CAPABILITY":
		s.say("* CAPABILITY IMAP4rev1 %s", f.caps)
	case "LOGIN":
		f.logins++
		if f.password != "" && words[2] != strconv.Quote(f.password) {
			s.say("%s NO [AUTHENTICATIONFAILED] no such luck", tag)
			return true
		}
	case "SELECT", "EXAMINE":
		s.say("* %d EXISTS\r\n* OK [UIDVALIDITY %d] so\r\n* FLAGS (\\Seen)", len(f.mail), f.validity)
	case "UID SEARCH":
		found := "* SEARCH"
		from, deleted := 0, strings.Contains(line, "DELETED")
		if at := strings.Index(line, "SEARCH UID "); at >= 0 {
			fmt.Sscanf(line[at:], "SEARCH UID %d:*", &from)
		}
		for i, m := range f.mail {
			if deleted && !strings.Contains(m.flags, `\Deleted`) || !deleted && m.uid < from && i < len(f.mail)-1 {
				continue
			}
			found += " " + strconv.Itoa(m.uid)
		}
		s.say("%s", found)
	case "UID FETCH":
		return s.fetch(tag, words)
	case "UID STORE":
		for i := range f.mail {
			if inSet(words[1], f.mail[i].uid) {
				f.mail[i].flags = strings.TrimSpace(f.mail[i].flags + ` \Deleted`)
			}
		}
	case "UID EXPUNGE", "EXPUNGE":
		f.mail = slices.DeleteFunc(f.mail, func(m fakeMail) bool {
			return f.removes && strings.Contains(m.flags, `\Deleted`) && (words[0] == "EXPUNGE" || inSet(words[1], m.uid))
		})
	case "LOGOUT":
		s.say("* BYE\r\n%s OK", tag)
		return false
	default:
		s.say("%s BAD what?", tag)
		return true
	}
	s.say("%s OK done", tag)
	return true
}

// inSet says whether a set of the simple kind has a number in it.
func inSet(set string, n int) bool {
	for part := range strings.SplitSeq(set, ",") {
		from, to, ranged := strings.Cut(part, ":")
		a, _ := strconv.Atoi(from)
		b, _ := strconv.Atoi(to)
		if !ranged {
			b = a
		}
		if a <= n && n <= b {
			return true
		}
	}
	return false
}

func (s *fakeSession) fetch(tag string, words []string) bool {
	body := strings.Contains(strings.Join(words, " "), "BODY.PEEK[]")
	for i, m := range s.f.mail {
		if !inSet(words[1], m.uid) {
			continue
		}
		size := m.size
		if size == 0 {
			size = len(m.text)
		}
		name := strconv.Itoa(m.uid)
		cut, cuts := s.f.cut[name]
		switch {
		case !body:
			s.say(`* %d FETCH (UID %d RFC822.SIZE %d FLAGS (%s) INTERNALDATE "01-Feb-2020 03:04:05 +0000")`, i+1, m.uid, size, m.flags)
		case s.f.refuse[name]:
			s.say("%s NO it is broken", tag)
			return true
		case cuts:
			fmt.Fprintf(s.w, "* %d FETCH (UID %d BODY[] {%d}\r\n%s", i+1, m.uid, len(m.text), m.text[:cut])
			return false
		default:
			s.say("* %d FETCH (UID %d BODY[] {%d}", i+1, m.uid, len(m.text))
			s.send(m.text)
			s.say(")")
		}
	}
	s.say("%s OK done", tag)
	return true
}
