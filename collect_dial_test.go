package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// plainServer says what a script has for each line, in the clear, and keeps what it was told.
func plainServer(t *testing.T, greeting string, script map[string]string) (port int, heard func() string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := &syncBuffer{}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				io.WriteString(conn, greeting)
				r := bufio.NewReader(io.TeeReader(conn, log))
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					for prefix, reply := range script {
						if strings.HasPrefix(line, prefix) {
							io.WriteString(conn, reply)
						}
					}
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().(*net.TCPAddr).Port, log.String
}

// No password is ever sent but under TLS with a certificate that is right.
func TestCollectOnlyUnderTLS(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	for _, protocol := range []string{protocolPOP3, protocolIMAP} {
		greeting, command, ok := "+OK hi\r\n", "STLS", "+OK\r\n"
		if protocol == protocolIMAP {
			greeting, command, ok = "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n", "a STARTTLS", "a OK\r\n"
		}
		for _, test := range []struct {
			name, greeting, reply, want string
			fault                       outsideFault
		}{
			{"no TLS", greeting, strings.Replace(strings.Replace(ok, "+OK", "-ERR", 1), "OK", "BAD", 1), "offers no TLS on port", faultSetup},
			{"text behind the reply", greeting, ok + "* OK injected\r\n", "text follows the reply", faultPassing},
			{"no handshake", greeting, ok, "", faultPassing},
			{"logged in already", strings.Replace(greeting, "* OK", "* PREAUTH", 1), ok, "", faultPassing},
			{"busy", strings.Replace(strings.Replace(greeting, "+OK", "-ERR", 1), "* OK", "* BYE", 1), ok, "does not let anybody in now", faultPassing},
		} {
			port, heard := plainServer(t, test.greeting, map[string]string{command: test.reply})
			d := outsideDialer{Roots: s.client.RootCAs, Patience: 300 * time.Millisecond}
			server := OutsideServer{Protocol: protocol, Host: "localhost", Port: port, TLS: tlsStart, Login: "ann", Password: "ann-secret"}
			err := d.tryLogin(context.Background(), &server)
			if test.name == "no TLS" {
				test.want = fmt.Sprintf("localhost:%d offers no TLS, and a password is never sent without it", port)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || faultOf(err) != test.fault {
				t.Errorf("%s %s: %v, %d", protocol, test.name, err, faultOf(err))
			}
			if said := heard(); strings.Contains(said, "ann") {
				t.Errorf("%s %s: it was told %q", protocol, test.name, said)
			}
		}
		// A certificate that is for another name, or from nobody.
		for _, test := range []struct {
			host  string
			roots *tls.Config
			want  string
		}{
			{"127.0.0.1", s.client, "its certificate is for another name: take the name of the server that the provider gives"},
			{"localhost", &tls.Config{}, "its certificate comes from nobody who is trusted"},
		} {
			logins := strings.Count(s.log.String(), "login")
			for _, port := range []int{s.ports[protocol], s.ports[protocol+"s"]} {
				d := outsideDialer{Roots: test.roots.RootCAs}
				_, err := d.find(context.Background(), OutsideServer{Protocol: protocol, Host: test.host, Port: port, Login: "ann", Password: "ann-secret"})
				if err == nil || !strings.Contains(err.Error(), test.want) || faultOf(err) != faultSetup {
					t.Errorf("%s %s:%d: %v", protocol, test.host, port, err)
				}
			}
			if strings.Count(s.log.String(), "login") != logins {
				t.Error("a login was tried")
			}
		}
	}
}

// The port and the kind of TLS are found out; the sentence for what fails tells of all that was tried.
func TestCollectFindsServer(t *testing.T) {
	s := transcriptServer(t, &Protocols{})
	for _, protocol := range []string{protocolPOP3, protocolIMAP} {
		usual := map[string][2]string{protocolPOP3: {":995", ":110"}, protocolIMAP: {":993", ":143"}}[protocol]
		for _, test := range []struct {
			open int // 0: the implicit one, 1: STARTTLS, 2: none
			want string
		}{
			{0, tlsImplicit}, {1, tlsStart}, {2, fmt.Sprintf("localhost%s refuses connections; localhost%s refuses connections", usual[0], usual[1])},
		} {
			var asked []string
			d := outsideDialer{Roots: s.client.RootCAs, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				asked = append(asked, address)
				port := 1 // nobody is there
				if test.open < 2 && strings.HasSuffix(address, usual[test.open]) {
					port = s.ports[protocol+map[int]string{0: "s"}[test.open]]
				}
				return new(net.Dialer).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", port))
			}}
			found, err := d.find(context.Background(), OutsideServer{Protocol: protocol, Host: "localhost", Login: "ann", Password: "ann-secret"})
			switch {
			case test.open < 2 && (err != nil || found.TLS != test.want || ":"+fmt.Sprint(found.Port) != usual[test.open]):
				t.Errorf("%s: %+v %v", protocol, found, err)
			case test.open == 2 && (err == nil || err.Error() != test.want):
				t.Errorf("%s: %v", protocol, err)
			}
			// A wrong password is tried once, not once more in another way.
			asked = nil
			if _, err := d.find(context.Background(), OutsideServer{Protocol: protocol, Host: "localhost", Login: "ann", Password: "wrong"}); test.open == 0 && (faultOf(err) != faultLogin || len(asked) != 1) {
				t.Errorf("%s: %v %v", protocol, asked, err)
			}
		}
	}
	var d outsideDialer
	_, err := d.find(context.Background(), OutsideServer{Protocol: protocolIMAP, Host: "nobody.invalid", Login: "ann", Password: "x"})
	if err == nil || strings.Count(err.Error(), "nobody.invalid") != 1 {
		t.Errorf("%v", err)
	}
}

func TestSplitServer(t *testing.T) {
	for text, want := range map[string]string{
		"imap.example.org": "imap.example.org 0", "imap.example.org:993": "imap.example.org 993", "[::1]:143": "::1 143", "::1": "::1 0", "[::1]": "::1 0",
		"a:0": "", "a:x": "", "a:": "", "a:70000": "", ":993": "", "[::1": "",
	} {
		host, port, err := splitServer(text)
		if got := fmt.Sprint(host, " ", port); err == nil && got != want || err != nil && want != "" {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
}

// The dots go, everything else stays, however the bytes come.
func TestDotReader(t *testing.T) {
	long := strings.Repeat("y", 10000)
	for wire, want := range map[string]string{
		".\r\n": "", "a\r\n.\r\n": "a\r\n", "..\r\n.\r\n": ".\r\n", "..a\r\n...\r\n.\r\nnext": ".a\r\n..\r\n",
		"a\n.\n": "a\n", long + "\r\n.." + long + "\r\n.\r\n": long + "\r\n." + long + "\r\n", "\x00\xff\r\r\n.\r\n": "\x00\xff\r\r\n",
	} {
		for _, r := range []io.Reader{strings.NewReader(wire), iotest.OneByteReader(strings.NewReader(wire)), iotest.DataErrReader(strings.NewReader(wire))} {
			got, err := io.ReadAll(&dotReader{r: bufio.NewReader(r), start: true})
			if err != nil || string(got) != want {
				t.Errorf("%q: %q %v", clip(wire, 50), clip(string(got), 50), err)
			}
		}
		for cut := range min(len(wire)-4, 20) {
			if cut >= 0 && !strings.HasPrefix(wire[:cut], ".\r\n") && !strings.Contains(wire[:cut], "\n.\n") && !strings.Contains(wire[:cut], "\n.\r\n") {
				if _, err := io.ReadAll(&dotReader{r: bufio.NewReader(strings.NewReader(wire[:cut])), start: true}); err != io.ErrUnexpectedEOF {
					t.Errorf("%q is taken for whole: %v", wire[:cut], err)
				}
			}
		}
	}
}

// FuzzDotReader gives back whatever was sent by the rules.
func FuzzDotReader(f *testing.F) {
	f.Add([]byte(".a\r\n..\r\nb"))
	f.Fuzz(func(t *testing.T, text []byte) {
		text = append(bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), "\r\n"...)
		wire := bytes.ReplaceAll(append([]byte("\n"), text...), []byte("\n."), []byte("\n.."))[1:]
		got, err := io.ReadAll(&dotReader{r: bufio.NewReaderSize(bytes.NewReader(append(wire, ".\r\n+OK"...)), 16), start: true})
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%q: %q %v", text, got, err)
		}
	})
}

// A large message takes no more memory than a small one.
func TestCollectLargeMessage(t *testing.T) {
	large := "Subject: large\r\n\r\n" + strings.Repeat(strings.Repeat("z", 76)+"\r\n", 300_000)
	for _, protocol := range []string{protocolPOP3, protocolIMAP} {
		mail := fakeMail{uidl: "a", text: large}
		if protocol == protocolIMAP {
			mail.uid = 1
		}
		f := startFake(t, mail)
		w := openCollectWorld(t)
		w.reopen(func(cfg *CollectorConfig) { cfg.MaxSize = 30 << 20 })
		w.fromFake(f, protocol, true)
		var before, after runtime.MemStats
		peak := uint64(0)
		w.c.cfg.Judge = func(context.Context, string, io.ReaderAt, int64) (Verdict, error) {
			runtime.ReadMemStats(&after)
			peak = after.HeapAlloc
			return Verdict{}, nil
		}
		runtime.GC()
		runtime.ReadMemStats(&before)
		w.mustLook()
		w.expect(inboxName, large)
		if more := int64(peak) - int64(before.HeapAlloc); more > 8<<20 {
			t.Errorf("%s: %d bytes more", protocol, more)
		} else {
			t.Logf("%s: %d KiB more for %d MiB", protocol, more>>10, len(large)>>20)
		}
	}
}
