package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// answerSTUN answers with an address, as RFC 8489 §14.2 hides it.
func (w *doctorWorld) answerSTUN(v6 bool) func(q []byte) []byte {
	return func(q []byte) []byte {
		if len(q) != stunHeader {
			return nil
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		return stunAnswer(q, stunXORed, w.seen[v6], q[4:])
	}
}

func stunAnswer(q []byte, kind uint16, seen netip.Addr, mask []byte) []byte {
	family := byte(stunFamily4)
	if seen.Is6() {
		family = stunFamily6
	}
	value := []byte{0, family, 0x12, 0x34}
	for i, b := range seen.AsSlice() {
		value = append(value, b^mask[i])
	}
	software := []byte{0x80, 0x22, 0, 3, 'x', 'y', 'z', 0} // an attribute of no meaning comes first
	a := binary.BigEndian.AppendUint16(nil, stunSuccess)
	a = binary.BigEndian.AppendUint16(a, uint16(len(software)+4+len(value)))
	a = append(append(a, q[4:stunHeader]...), software...)
	a = binary.BigEndian.AppendUint16(a, kind)
	a = binary.BigEndian.AppendUint16(a, uint16(len(value)))
	return append(a, value...)
}

// answerTime is a time server.
func (w *doctorWorld) answerTime(q []byte) []byte {
	if len(q) != ntpSize || q[0] != ntpClient {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return ntpAnswer(q, time.Now().Add(w.ahead))
}

func ntpAnswer(q []byte, at time.Time) []byte {
	a := make([]byte, ntpSize)
	a[0], a[1] = 4<<3|ntpServer, 2
	copy(a[ntpOrigin:], q[ntpTransmit:])
	seconds := uint32(at.Unix() - ntpEpoch) // of whatever era
	fraction := uint32(int64(at.Nanosecond()) << 32 / int64(time.Second))
	for _, where := range []int{ntpReceive, ntpTransmit} {
		binary.BigEndian.PutUint32(a[where:], seconds)
		binary.BigEndian.PutUint32(a[where+4:], fraction)
	}
	return a
}

func TestParseSTUN(t *testing.T) {
	question := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42}, make([]byte, 12)...)
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	good := stunAnswer(question, stunXORed, v4, question[4:])
	change := func(at int, to byte) []byte {
		a := append([]byte{}, good...)
		a[at] = to
		return a
	}
	for name, c := range map[string]struct {
		answer []byte
		want   string
	}{
		"IPv4":            {good, "192.0.2.1"},
		"IPv6":            {stunAnswer(question, stunXORed, v6, question[4:]), "2001:db8::1"},
		"plain":           {stunAnswer(question, stunMapped, v4, make([]byte, 16)), "192.0.2.1"},
		"empty":           {nil, ""},
		"another's":       {change(10, 1), ""},
		"an error":        {change(0, 0x11), ""},
		"no address":      {good[:stunHeader], ""},
		"cut":             {good[:len(good)-1], ""},
		"no family":       {change(len(good)-7, 9), ""},
		"the other":       {change(len(good)-7, stunFamily6), ""},
		"endless":         {change(stunHeader+2, 0xff), ""},
		"the bare header": {good[:stunHeader+3], ""},
	} {
		found, ok := parseSTUN(question, c.answer)
		if ok != (c.want != "") || ok && found.String() != c.want {
			t.Errorf("%s: %v %v", name, found, ok)
		}
	}
}

// The answers of RFC 5769 §2.2 and §2.3.
func TestSTUNVectors(t *testing.T) {
	id := "2112a442b7e7a701bc34d686fa87dfae"
	for answer, want := range map[string]string{
		"0101003c" + id + "8022000b7465737420766563746f7220" + "002000080001a147e112a643" + "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7" + "80280004c07d4c96":                         "192.0.2.1",
		"01010048" + id + "8022000b7465737420766563746f7220" + "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9" + "00080014a382954e4be67bf11784c97c8292c275bfe3ed41" + "80280004c8fb0b4c": "2001:db8:1234:5678:11:2233:4455:6677",
	} {
		a, err := hex.DecodeString(answer)
		if err != nil {
			t.Fatal(err)
		}
		if found, ok := parseSTUN(a, a); !ok || found.String() != want {
			t.Errorf("%v %v, want %s", found, ok, want)
		}
	}
}

func TestParseNTP(t *testing.T) {
	question := make([]byte, ntpSize)
	copy(question[ntpTransmit:], "cookie!!")
	for _, at := range []time.Time{time.Unix(1_800_000_000, 500_000_000), time.Date(2035, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)} {
		got, ok := parseNTP(question, ntpAnswer(question, at))
		if !ok || got.Sub(at).Abs() > time.Microsecond {
			t.Errorf("%v is read as %v, %v", at, got, ok)
		}
	}
	for name, change := range map[string]func(a []byte) []byte{
		"short":       func(a []byte) []byte { return a[:ntpSize-1] },
		"a client":    func(a []byte) []byte { a[0] = ntpClient; return a },
		"no time":     func(a []byte) []byte { a[0] |= 3 << 6; return a },
		"stratum 0":   func(a []byte) []byte { a[1] = 0; return a }, // "kiss of death"
		"stratum 16":  func(a []byte) []byte { a[1] = 16; return a },
		"not for us":  func(a []byte) []byte { a[ntpOrigin]++; return a },
		"from before": func(a []byte) []byte { copy(a[ntpOrigin:], make([]byte, 8)); return a },
	} {
		if _, ok := parseNTP(question, change(ntpAnswer(question, time.Now()))); ok {
			t.Errorf("%s is taken", name)
		}
	}
}

// A question is sent again where no answer comes, and answers to others are passed over.
func TestAskUDPAgain(t *testing.T) {
	var asked atomic.Int32
	server := startUDP(t, func(q []byte) []byte {
		n := asked.Add(1)
		if n == 1 {
			return nil
		}
		return append([]byte(fmt.Sprint(n)), q...)
	})
	conn, err := net.Dial("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answered := askOver(context.Background(), conn, func() []byte { return []byte("x") }, func(q, a []byte, _, _ time.Time) bool { return string(a) == "2x" })
	if !answered || asked.Load() != 2 {
		t.Errorf("answered %v, asked %d times", answered, asked.Load())
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if askOver(ended, conn, func() []byte { return []byte("x") }, func(_, _ []byte, _, _ time.Time) bool { return false }) {
		t.Error("an ended question is answered")
	}
}

// The STUN server of coturn and the time server of chrony understand us.
func TestUDPServersOfOthers(t *testing.T) {
	w := openDoctorWorld(t)
	x := &examination{d: w.doctor, places: w.doctor.places}
	t.Run("coturn", func(t *testing.T) {
		turn, err := exec.LookPath("turnserver")
		if err != nil {
			t.Skip("turnserver (Debian package coturn) is not there")
		}
		port := freeUDP(t)
		startProgram(t, turn, "-n", "-S", "--listening-ip", "127.0.0.1", "--listening-port", fmt.Sprint(port), "--no-tls", "--no-dtls", "--no-cli",
			"--log-file", filepath.Join(t.TempDir(), "log"), "--pidfile", filepath.Join(t.TempDir(), "pid"))
		conn, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var seen netip.Addr
		untilTrue(t, "an answer of turnserver", func() bool {
			return askOver(context.Background(), conn, stunQuestion, func(q, a []byte, _, _ time.Time) (ok bool) {
				seen, ok = parseSTUN(q, a)
				return ok
			})
		})
		if seen.String() != "127.0.0.1" {
			t.Errorf("we are %v", seen)
		}
	})
	t.Run("chrony", func(t *testing.T) {
		chronyd, err := exec.LookPath("chronyd")
		if err != nil {
			t.Skip("chronyd (Debian package chrony) is not there")
		}
		dir, port := t.TempDir(), freeUDP(t)
		conf := filepath.Join(dir, "chrony.conf")
		text := fmt.Sprintf("local stratum 3\nallow 127.0.0.1\nbindaddress 127.0.0.1\nport %d\ncmdport 0\nbindcmdaddress /\npidfile %s\n", port, filepath.Join(dir, "pid"))
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		startProgram(t, chronyd, "-x", "-d", "-U", "-f", conf)
		w.routes["udp 192.0.2.22:123"] = fmt.Sprintf("127.0.0.1:%d", port)
		untilTrue(t, "an answer of chronyd", func() bool {
			ahead, known := x.clockOffset(context.Background())
			if known && ahead.Abs() > time.Second {
				t.Errorf("the same clock is %v ahead", ahead)
			}
			return known
		})
	})
}

// startProgram runs a program until the test ends.
func startProgram(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it tells of the kill
		if t.Failed() {
			t.Log(said.String())
		}
	})
}

// freeUDP finds a port that is free for UDP and for TCP, below those that systems give to clients.
func freeUDP(t *testing.T) int {
	t.Helper()
	for range 100 {
		at := fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(21000))
		conn, err := net.ListenPacket("udp", at)
		if err != nil {
			continue
		}
		conn.Close()
		l, err := net.Listen("tcp", at)
		if err != nil {
			continue
		}
		l.Close()
		return l.Addr().(*net.TCPAddr).Port
	}
	t.Fatal("no port is free")
	return 0
}

// untilTrue waits for something that another program does.
func untilTrue(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}

// FuzzDoctorUDP holds the readers to what anybody may send.
func FuzzDoctorUDP(f *testing.F) {
	question := make([]byte, ntpSize)
	f.Add(stunAnswer(question, stunXORed, netip.MustParseAddr("2001:db8::1"), question[4:]))
	f.Add(ntpAnswer(question, time.Unix(1_800_000_000, 0)))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if a, ok := parseSTUN(question, answer); ok != a.IsValid() {
			t.Errorf("%v %v", a, ok)
		}
		if at, ok := parseNTP(question, answer); ok && (at.Year() < 1968 || at.Year() > 2104) {
			t.Errorf("the year %d", at.Year())
		}
	})
}
