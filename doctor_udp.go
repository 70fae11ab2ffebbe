package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"net"
	"net/netip"
	"time"
)

// Two questions over UDP: what address do we have (STUN, RFC 8489), and what time is it (SNTP, RFC 4330).

// udpWaits is how long each try waits for an answer.
var udpWaits = [...]time.Duration{700 * time.Millisecond, 1300 * time.Millisecond, 2 * time.Second}

// askUDP sends a question to the servers in turn, some times to each, until one gives an answer that read takes.
func (x *examination) askUDP(ctx context.Context, servers []string, v6 bool, question func() []byte, read func(question, answer []byte, sent, got time.Time) bool) {
	for _, server := range servers {
		conn, err := x.d.dialHost(ctx, "udp", server, v6)
		if err != nil {
			continue
		}
		answered := askOver(ctx, conn, question, read)
		_ = conn.Close()
		if answered || ctx.Err() != nil {
			return
		}
	}
}

// askOver asks over one connection.
func askOver(ctx context.Context, conn net.Conn, question func() []byte, read func(question, answer []byte, sent, got time.Time) bool) bool {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	answer := make([]byte, 1500)
	for _, wait := range udpWaits {
		q := question()
		sent := time.Now()
		if _, err := conn.Write(q); err != nil {
			return false
		}
		_ = conn.SetReadDeadline(sent.Add(wait))
		for {
			n, err := conn.Read(answer)
			if err != nil {
				if reasonOfDial(err) != dialSilent {
					return false
				}
				break
			}
			if read(q, answer[:n], sent, time.Now()) {
				return true
			}
		}
	}
	return false
}

const (
	stunBinding  = 0x0001
	stunSuccess  = 0x0101
	stunCookie   = 0x2112A442
	stunHeader   = 20
	stunMapped   = 0x0001
	stunXORed    = 0x0020
	stunFamily4  = 1
	stunFamily6  = 2
	stunIDOffset = 8
)

// askSTUN asks how our address looks from outside, in one family; the answer is invalid where nobody tells.
func (x *examination) askSTUN(ctx context.Context, v6 bool) (seen netip.Addr) {
	x.askUDP(ctx, x.places.stun, v6, stunQuestion, func(q, a []byte, _, _ time.Time) bool {
		found, ok := parseSTUN(q, a)
		if ok = ok && found.Is6() == v6 && isInternetAddress(found); ok {
			seen = found
		}
		return ok
	})
	return seen
}

// stunQuestion asks for a binding. It has an ID that nobody else knows (RFC 8489 §5).
func stunQuestion() []byte {
	q := binary.BigEndian.AppendUint16(nil, stunBinding)
	q = binary.BigEndian.AppendUint16(q, 0)
	q = binary.BigEndian.AppendUint32(q, stunCookie)
	return append(q, randomBytes(stunHeader-stunIDOffset)...)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails
	return b
}

// parseSTUN reads the answer to a question (RFC 8489 §5, §14.1, §14.2).
func parseSTUN(question, answer []byte) (netip.Addr, bool) {
	if len(answer) < stunHeader || binary.BigEndian.Uint16(answer) != stunSuccess || !bytes.Equal(answer[4:stunHeader], question[4:stunHeader]) {
		return netip.Addr{}, false
	}
	var found netip.Addr
	for rest := answer[stunHeader:]; len(rest) >= 4; {
		kind, size := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		if size > len(rest)-4 {
			break
		}
		value := rest[4 : 4+size]
		switch kind {
		case stunXORed:
			return stunAddress(value, answer[4:stunHeader])
		case stunMapped:
			found, _ = stunAddress(value, make([]byte, 16))
		}
		rest = rest[min(len(rest), 4+(size+3)/4*4):]
	}
	return found, found.IsValid()
}

// stunAddress reads the value of an attribute with an address, which is hidden from meddling routers by mask.
func stunAddress(value, mask []byte) (netip.Addr, bool) {
	const start = 4 // a zero octet, the family, the port
	size := map[byte]int{stunFamily4: 4, stunFamily6: 16}
	if len(value) < start || size[value[1]] == 0 || len(value) != start+size[value[1]] {
		return netip.Addr{}, false
	}
	ip := make([]byte, len(value)-start)
	for i := range ip {
		ip[i] = value[start+i] ^ mask[i]
	}
	return netip.AddrFromSlice(ip)
}

const (
	ntpSize     = 48
	ntpClient   = 4<<3 | 3 // version 4, mode client
	ntpServer   = 4
	ntpOrigin   = 24 // offsets of timestamps
	ntpReceive  = 32
	ntpTransmit = 40
	ntpEpoch    = -2208988800 // 1900 in Unix seconds
	ntpEra      = 1 << 32     // seconds until the count begins anew, in 2036
)

// clockOffset gives how far our clock is ahead of the world's.
func (x *examination) clockOffset(ctx context.Context) (ahead time.Duration, known bool) {
	question := func() []byte {
		q := make([]byte, ntpSize)
		q[0] = ntpClient
		copy(q[ntpTransmit:], randomBytes(8)) // comes back as the origin: nobody else can answer
		return q
	}
	for _, v6 := range []bool{false, true} {
		x.askUDP(ctx, x.places.clocks, v6, question, func(q, a []byte, sent, got time.Time) bool {
			theirs, ok := parseNTP(q, a)
			if ok {
				ours := x.d.now().Add(sent.Sub(got) / 2) // in the middle of the way there and back
				ahead, known = ours.Sub(theirs), true
			}
			return ok
		})
		if known {
			break
		}
	}
	return ahead, known
}

// parseNTP gives a server's time, in the middle between its receiving and sending (RFC 4330 §5).
func parseNTP(question, answer []byte) (time.Time, bool) {
	if len(answer) < ntpSize || answer[0]&7 != ntpServer || answer[0]>>6 == 3 || answer[1] == 0 || answer[1] > 15 {
		return time.Time{}, false // not a server, or one that has no time itself
	}
	if !bytes.Equal(answer[ntpOrigin:ntpReceive], question[ntpTransmit:ntpSize]) {
		return time.Time{}, false
	}
	received, sent := ntpTime(answer[ntpReceive:]), ntpTime(answer[ntpTransmit:])
	return received.Add(sent.Sub(received) / 2), true
}

// ntpTime reads a timestamp. One without its highest bit is of the era that begins in 2036 (RFC 4330 §3).
func ntpTime(b []byte) time.Time {
	seconds, fraction := int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))
	if seconds < ntpEra/2 {
		seconds += ntpEra
	}
	return time.Unix(ntpEpoch+seconds, fraction*int64(time.Second)>>32)
}
