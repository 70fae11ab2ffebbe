package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/textproto"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-milter"
)

// testMilter is a milter that notes what it is told and does what the test wants.
type testMilter struct {
	milter.NoOpMilter
	world *milterWorld
}

// milterWorld is a milter that listens, and a filter that asks it.
type milterWorld struct {
	f    *SpamFilter
	log  *syncBuffer
	stop func()

	mu   sync.Mutex
	told strings.Builder
	end  func(m *milter.Modifier) milter.Response // what it answers at the end
	rcpt milter.Response                          // what it answers to recipients; nil: go on
}

func (w *milterWorld) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(&w.told, format+"\n", args...)
}

// heard gives what the milter was told, and forgets it.
func (w *milterWorld) heard() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	told := w.told.String()
	w.told.Reset()
	return told
}

func (m *testMilter) Connect(host, family string, _ uint16, addr net.IP, _ *milter.Modifier) (milter.Response, error) {
	m.world.note("connect %s %s %s", host, family, addr)
	return milter.RespContinue, nil
}

func (m *testMilter) Helo(name string, _ *milter.Modifier) (milter.Response, error) {
	m.world.note("helo %s", name)
	return milter.RespContinue, nil
}

func (m *testMilter) MailFrom(from string, mod *milter.Modifier) (milter.Response, error) {
	m.world.note("mail %s id %s", from, mod.Macros["i"])
	return milter.RespContinue, nil
}

func (m *testMilter) RcptTo(to string, _ *milter.Modifier) (milter.Response, error) {
	m.world.note("rcpt %s", to)
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	if m.world.rcpt != nil {
		return m.world.rcpt, nil
	}
	return milter.RespContinue, nil
}

func (m *testMilter) Header(name, value string, _ *milter.Modifier) (milter.Response, error) {
	m.world.note("header %s: %q", name, value)
	return milter.RespContinue, nil
}

func (m *testMilter) Headers(textproto.MIMEHeader, *milter.Modifier) (milter.Response, error) {
	m.world.note("end of header")
	return milter.RespContinue, nil
}

func (m *testMilter) BodyChunk(chunk []byte, _ *milter.Modifier) (milter.Response, error) {
	m.world.note("body %d", len(chunk))
	return milter.RespContinue, nil
}

func (m *testMilter) Body(mod *milter.Modifier) (milter.Response, error) {
	m.world.mu.Lock()
	end := m.world.end
	m.world.mu.Unlock()
	if end == nil {
		return milter.RespAccept, nil
	}
	return end(mod), nil
}

// newMilterWorld starts both, on a socket of the file system.
func newMilterWorld(t *testing.T, setting string, listen func() net.Listener) *milterWorld {
	t.Helper()
	w := &milterWorld{log: new(syncBuffer)}
	w.f = testSpamFilter(t, SpamConfig{Milter: setting, Verifier: testVerifier(startDNS(t, friendZone)), Log: slog.New(slog.NewTextHandler(w.log, nil))})
	w.f.milter.step, w.f.milter.whole = time.Second, 2*time.Second
	w.serve(t, listen())
	return w
}

func (w *milterWorld) serve(t *testing.T, l net.Listener) {
	server := &milter.Server{
		NewMilter: func() milter.Milter { return &testMilter{world: w} },
		Actions:   milter.OptAddHeader | milter.OptChangeHeader | milter.OptQuarantine,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(l); err != nil && !errors.Is(err, milter.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}()
	w.stop = sync.OnceFunc(func() {
		_ = server.Close()
		<-done
	})
	t.Cleanup(w.stop)
}

func listenOn(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func unixMilterWorld(t *testing.T) *milterWorld {
	socket := filepath.Join(t.TempDir(), "milter")
	return newMilterWorld(t, "unix:"+socket, func() net.Listener { return listenOn(t, "unix", socket) })
}

func TestMilterIsTold(t *testing.T) {
	w := unixMilterWorld(t)
	text := strings.Replace(friendLetter, "Subject: ", "Subject: a folded\r\n\tone: ", 1) + strings.Repeat("x", 70_000)
	m := mailTo("192.0.2.1", "carl@friend.example", text, "ann@test.lan", "bob@test.lan")
	if v := judged(t, w.f, m); v.Refuse != "" || v.Folder != "" {
		t.Errorf("%+v", v)
	}
	want := `connect mail.friend.example tcp4 192.0.2.1
helo client.example.net
mail carl@friend.example id 1
rcpt ann@test.lan
rcpt bob@test.lan
header From: "Carl <carl@friend.example>"
header To: "ann@test.lan"
header Subject: "a folded\n\tone: The garden"
header Date: "Tue, 24 Nov 2026 10:00:00 +0000"
header Message-ID: "<1@friend.example>"
end of header
body 65535
body 4503
`
	if got := w.heard(); got != want {
		t.Errorf("the milter is told:\n%s", got)
	}
	judged(t, w.f, mailTo("2001:db8::1", "", friendLetter, "ann@test.lan"))
	if got := w.heard(); !strings.HasPrefix(got, "connect [2001:db8::1] tcp6 2001:db8::1\n") || !strings.Contains(got, "mail  id 1\n") {
		t.Errorf("the milter is told:\n%s", got)
	}
	if _, err := w.f.JudgeCollected(context.Background(), "ann@test.lan", strings.NewReader(friendLetter), int64(len(friendLetter))); err != nil {
		t.Fatal(err)
	}
	if got := w.heard(); !strings.HasPrefix(got, "connect unknown unknown <nil>\nmail  id \nrcpt ann@test.lan\nheader From:") {
		t.Errorf("of a collected message the milter is told:\n%s", got)
	}
}

// milterCase is what a milter answers, and what becomes of the message.
type milterCase struct {
	end     func(m *milter.Modifier) milter.Response
	refuse  string
	later   bool
	folder  string
	fields  string
	changes []FieldChange
	without string // what the fields must not have
}

// must makes calls of the library's modifier one line each.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func TestMilterIsObeyed(t *testing.T) {
	w := unixMilterWorld(t)
	respond := func(r milter.Response) func(*milter.Modifier) milter.Response {
		return func(*milter.Modifier) milter.Response { return r }
	}
	for name, test := range map[string]milterCase{
		"accept":   {end: respond(milter.RespAccept)},
		"continue": {end: respond(milter.RespContinue)},
		"reject":   {end: respond(milter.RespReject), refuse: "refused by the filter of this server"},
		"later":    {end: respond(milter.RespTempFail), refuse: "try again later", later: true},
		"words":    {end: respond(milter.NewResponseStr('y', "554 5.7.1 Eicar-Test-Signature found;\r\ngo away\x01 \xff")), refuse: "Eicar-Test-Signature found; go away"},
		"soft":     {end: respond(milter.NewResponseStr('y', "451 4.7.1 Greylisted")), refuse: "Greylisted", later: true},
		"code":     {end: respond(milter.NewResponseStr('y', "550 5.7.1")), refuse: "refused by the filter"},
		// A message that was taken is not thrown away.
		"discard":    {end: respond(milter.RespDiscard), folder: "Junk", fields: "the milter wants it thrown away (+5.0)"},
		"quarantine": {end: func(m *milter.Modifier) milter.Response { must(m.Quarantine("why")); return milter.RespAccept }, folder: "Junk", fields: "the milter holds it back (+5.0)"},
		"field": {end: func(m *milter.Modifier) milter.Response {
			must(m.AddHeader("X-Virus-Scanned", "clean\n and\r\n\r\n.evil: yes"))
			return milter.RespAccept
		}, fields: "X-Virus-Scanned: clean\r\n\tand\r\n\t.evil: yes\r\n"},
		"calls it spam": {end: func(m *milter.Modifier) milter.Response { must(m.AddHeader("X-Spam", "Yes")); return milter.RespAccept },
			folder: "Junk", fields: "X-Spam: Yes\r\n"},
		"insert": {end: func(m *milter.Modifier) milter.Response {
			must(m.InsertHeader(1, "X-In", "v"))
			return milter.RespAccept
		}, fields: "X-In: v\r\n"},
		"ours": {end: func(m *milter.Modifier) milter.Response {
			must(m.AddHeader("X-Spam-Status", "No, by somebody else"))
			must(m.AddHeader("Authentication-Results", "mail.test; dkim=pass"))
			must(m.ChangeHeader(1, "X-Spam-Reasons", "none"))
			must(m.AddHeader("Bad Name", "v"))
			must(m.AddHeader("", "v"))
			must(m.AddHeader("Authentication-Results", "other.test; dkim=pass"))
			return milter.RespAccept
		}, fields: "Authentication-Results: other.test; dkim=pass\r\n", without: "somebody else"},
		"change": {end: func(m *milter.Modifier) milter.Response {
			must(m.ChangeHeader(1, "Subject", "[spam] The garden"))
			must(m.ChangeHeader(1, "DATE", ""))
			must(m.ChangeHeader(3, "Date", ""))
			must(m.ChangeHeader(1, "X-New", "is added"))
			return milter.RespAccept
		}, changes: []FieldChange{{"Subject", 1, "Subject: [spam] The garden\r\n"}, {"DATE", 1, ""}, {"Date", 3, ""}}, fields: "X-New: is added\r\n"},
		"much": {end: func(m *milter.Modifier) milter.Response {
			for range 20 {
				must(m.AddHeader("X-Much", strings.Repeat("x", 10_000)))
			}
			return milter.RespAccept
		}, fields: "X-Much: "},
	} {
		w.mu.Lock()
		w.end = test.end
		w.mu.Unlock()
		v := judged(t, w.f, mailTo("192.0.2.1", "carl@friend.example", friendLetter, "ann@test.lan"))
		if (v.Refuse == "") != (test.refuse == "") || !strings.Contains(v.Refuse, test.refuse) || v.Later != test.later || v.Folder != test.folder ||
			!strings.Contains(v.Fields, test.fields) || fmt.Sprint(v.Changes) != fmt.Sprint(test.changes) || test.without != "" && strings.Contains(v.Fields, test.without) {
			t.Errorf("%s: %+v", name, v)
		}
		if v.Refuse == "" && !fieldsAreWhole(v.Fields) || !isASCII([]byte(v.Refuse)) || len(v.Fields) > milterAdds+4096 || strings.Count(v.Fields, "mail.test;") > 1 {
			t.Errorf("%s: %d octets: %.3000q", name, len(v.Fields), v.Fields)
		}
		if test.folder == "Junk" && !strings.Contains(v.Fields, "X-Spam-Status: Yes") {
			t.Errorf("%s: in Junk with %s", name, v.Fields)
		}
		// What was collected is not refused any more.
		v, err := w.f.JudgeCollected(context.Background(), "ann@test.lan", strings.NewReader(friendLetter), int64(len(friendLetter)))
		if err != nil || v.Refuse != "" || test.refuse != "" && !test.later && (v.Folder != "Junk" || !strings.Contains(v.Fields, spamStatusField)) {
			t.Errorf("%s, collected: %+v %v", name, v, err)
		}
	}
	w.mu.Lock()
	w.rcpt = milter.RespReject
	w.mu.Unlock()
	if v := judged(t, w.f, mailTo("192.0.2.1", "carl@friend.example", friendLetter, "ann@test.lan")); v.Refuse == "" {
		t.Errorf("refused at RCPT: %+v", v)
	}
}

// TestMilterDown has none at first, then one, then none again: mail is taken throughout, and the log says so once each time.
func TestMilterDown(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "milter")
	clock := &testClock{time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	w := &milterWorld{log: new(syncBuffer)}
	w.f = testSpamFilter(t, SpamConfig{Milter: "unix:" + socket, Log: slog.New(slog.NewTextHandler(w.log, nil)), Now: clock.now})
	judge := func() {
		t.Helper()
		if v := judged(t, w.f, mailTo("192.0.2.1", "carl@friend.example", friendLetter, "ann@test.lan")); v.Refuse != "" || v.Folder != "" || !strings.Contains(v.Fields, spamStatusField) {
			t.Errorf("%+v", v)
		}
	}
	says := func(down, again int) {
		t.Helper()
		if d, a := strings.Count(w.log.String(), "mail is taken without it"), strings.Count(w.log.String(), "answers again"); d != down || a != again {
			t.Errorf("it is said %d times that it is down and %d that it is up:\n%s", d, a, w.log)
		}
	}
	for range 5 {
		judge()
	}
	says(1, 0)
	w.serve(t, listenOn(t, "unix", socket))
	judge()
	if w.heard() != "" {
		t.Error("one that has just failed is asked")
	}
	clock.t = clock.t.Add(milterRest + time.Second)
	judge()
	says(1, 1)
	if w.heard() == "" {
		t.Error("it is not asked")
	}
	w.stop()
	judge()
	judge()
	says(2, 1)
}

// TestMilterNonsense asks programs that are no milters, or have gone mad. All of them are left within the time they have.
func TestMilterNonsense(t *testing.T) {
	negotiated := "\x00\x00\x00\x0dO\x00\x00\x00\x06\x00\x00\x00\x31\x00\x00\x00\x00"
	for name, say := range map[string]func(c net.Conn){
		"web server":   func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") },
		"closes":       func(net.Conn) {},
		"silent":       func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"zeros":        func(c net.Conn) { _, _ = c.Write(make([]byte, 64)) },
		"long packet":  func(c net.Conn) { _, _ = io.WriteString(c, "\x7f\xff\xff\xffO") },
		"half a reply": func(c net.Conn) { _, _ = io.WriteString(c, negotiated+"\x00\x00\x00\x05") },
		"unknown code": func(c net.Conn) {
			_, _ = io.WriteString(c, negotiated+strings.Repeat("\x00\x00\x00\x01?", 9))
			drain(c)
		},
		"silent later": func(c net.Conn) { _, _ = io.WriteString(c, negotiated); drain(c) },
		"progress": func(c net.Conn) { // for ever
			_, _ = io.WriteString(c, negotiated)
			go drain(c)
			for {
				if _, err := io.WriteString(c, "\x00\x00\x00\x01p"); err != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		},
		"bad reply": func(c net.Conn) {
			_, _ = io.WriteString(c, negotiated+strings.Repeat("\x00\x00\x00\x04y12", 9))
			drain(c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := listenOn(t, "tcp", "127.0.0.1:0")
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					say(c)
					_ = c.Close()
				}
			}()
			t.Cleanup(func() { _ = l.Close(); <-done })
			log := new(syncBuffer)
			f := testSpamFilter(t, SpamConfig{Milter: l.Addr().String(), Log: slog.New(slog.NewTextHandler(log, nil))})
			f.milter.step, f.milter.whole = 100*time.Millisecond, 300*time.Millisecond
			v := judged(t, f, mailTo("192.0.2.1", "carl@friend.example", friendLetter, "ann@test.lan"))
			if v.Refuse != "" || v.Folder != "" || !strings.Contains(log.String(), "mail is taken without it") {
				t.Errorf("%+v\n%s", v, log)
			}
		})
	}
}

// drain reads until the other side closes.
func drain(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func TestMilterAddress(t *testing.T) {
	for setting, want := range map[string]string{
		"unix:/run/m.sock": "unix /run/m.sock", "local:/run/m": "unix /run/m", "127.0.0.1:11332": "tcp 127.0.0.1:11332", "inet:localhost:11332": "tcp localhost:11332",
		"inet:11332@localhost": "tcp localhost:11332", "inet6:11332@[::1]": "tcp [::1]:11332", "[::1]:11332": "tcp [::1]:11332",
		"": "", "unix:": "", "unix:run/m": "", "localhost": "", "localhost:0": "", "localhost:99999": "", ":11332": "", "inet:": "", "/run/m.sock": "",
	} {
		network, address, err := milterAddress(setting)
		if got := strings.TrimSpace(network + " " + address); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q %v", setting, got, err)
		}
	}
}
