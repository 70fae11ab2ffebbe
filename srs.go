package main

// The Sender Rewriting Scheme (Meng Weng Wong, 2003; as libsrs2 and postsrsd speak it): a forwarder puts an address of its own
// domain in the place of the sender, so that SPF finds it right, and knows from that address whom a bounce is for.
//
//	SRS0=HASH=DAY=DOMAIN=LOCAL@ours    of LOCAL@DOMAIN
//	SRS1=HASH=FIRST==REST@ours         of SRS0=REST@FIRST, or of SRS1=…=FIRST==REST of yet another forwarder
//
// The hash is keyed: nobody can have mail sent to somebody else through here by such an address.

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"log/slog"
	"strings"
	"time"
)

const (
	srsDays = 21 // for which bounces come back
	srsHash = 8  // letters of the hash, of 5 bits each

	srsAlphabet = "abcdefghijklmnopqrstuvwxyz234567" // of hashes and days
	srsCycle    = 1024                               // days that two letters can count
)

// errNotSRS says that an address was not made here, or too long ago.
var errNotSRS = errors.New("not an address of a forwarded sender")

// SRS makes and reads such addresses. Safe for concurrent use.
type SRS struct {
	secret []byte
	now    func() time.Time
}

// OpenSRS reads the secret of a file, or makes one; now nil means time.Now. Without it, bounces of what was forwarded before do
// not come back.
func OpenSRS(file string, log *slog.Logger, now func() time.Time) (*SRS, error) {
	secret, err := keptSecret(file, "the secret of forwarded senders", log)
	if now == nil {
		now = time.Now
	}
	return &SRS{secret, now}, err
}

// hash gives the letters that prove that a text is from here.
func (s *SRS) hash(kind, text string) string {
	mac := hmac.New(sha256.New, s.secret)
	_, _ = mac.Write([]byte(kind + strings.ToLower(text))) // servers on the way may change the case
	return base32.NewEncoding(srsAlphabet).EncodeToString(mac.Sum(nil))[:srsHash]
}

// today counts days.
func (s *SRS) today() int { return int(s.now().Unix() / (24 * 60 * 60) % srsCycle) }

// Forward gives the address at a domain of ours that stands for a sender; false where none can.
func (s *SRS) Forward(from Address, domain string) (string, bool) {
	if !isDotString(from.Local) || !isASCII([]byte(from.Local)) {
		return "", false
	}
	ascii, ok := asciiDomain(from.Domain)
	if !ok || strings.HasPrefix(ascii, "[") {
		return "", false
	}
	local := s.forward(from.Local, ascii)
	address := local + "@" + domain
	return address, len(address) <= maxAddress
}

func (s *SRS) forward(local, domain string) string {
	kind, rest := srsKind(local)
	switch kind {
	case "srs0":
		text := domain + "=" + rest // rest begins with its separator
		return "SRS1=" + s.hash("srs1", text) + "=" + text
	case "srs1":
		if _, text, ok := strings.Cut(rest[1:], "="); ok && strings.Contains(text, "=") {
			return "SRS1=" + s.hash("srs1", text) + "=" + text
		}
	}
	day := s.today()
	text := string([]byte{srsAlphabet[day>>5], srsAlphabet[day&31]}) + "=" + domain + "=" + local
	return "SRS0=" + s.hash("srs0", text) + "=" + text
}

// srsKind says whether a local part is one of this scheme, and gives what follows from its separator on.
func srsKind(local string) (kind, rest string) {
	if len(local) < 6 || !strings.ContainsRune("=+-", rune(local[4])) {
		return "", ""
	}
	switch kind = strings.ToLower(local[:4]); kind {
	case "srs0", "srs1":
		return kind, local[4:]
	}
	return "", ""
}

// Reverse gives the sender that a local part stands for; errNotSRS if it was not made here within srsDays. The hash of SRS1 has
// no day: the one that it stands for has.
func (s *SRS) Reverse(local string) (Address, error) {
	kind, rest := srsKind(local)
	if kind == "" {
		return Address{}, errNotSRS
	}
	hash, text, ok := strings.Cut(rest[1:], "=")
	if !ok || !hmac.Equal([]byte(strings.ToLower(hash)), []byte(s.hash(kind, text))) {
		return Address{}, errNotSRS
	}
	var from Address
	if kind == "srs1" {
		from.Domain, rest, _ = strings.Cut(text, "=")
		from.Local = "SRS0" + rest
	} else {
		parts := strings.SplitN(text, "=", 3)
		if len(parts) != 3 || !s.recent(parts[0]) {
			return Address{}, errNotSRS
		}
		from = Address{Local: parts[2], Domain: parts[1]}
	}
	if from.Local == "" || !isASCII([]byte(from.Local)) || !isDotString(from.Local) || len(from.Local)+1+len(from.Domain) > maxAddress {
		return Address{}, errNotSRS
	}
	if _, ok := asciiDomain(from.Domain); !ok {
		return Address{}, errNotSRS
	}
	return from, nil
}

// recent says whether a day is not too long ago.
func (s *SRS) recent(day string) bool {
	if len(day) != 2 {
		return false
	}
	day = strings.ToLower(day)
	high, low := strings.IndexByte(srsAlphabet, day[0]), strings.IndexByte(srsAlphabet, day[1])
	if high < 0 || low < 0 {
		return false
	}
	age := (s.today() - (high<<5 + low) + srsCycle) % srsCycle
	return age <= srsDays || age == srsCycle-1 // the clock may have been set back over midnight
}
