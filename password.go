package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/text/unicode/norm"
)

// The cost of a password hash. 8 MiB three times over takes 12.5 ms in Go's
// portable code on one core of a 2020s server (BenchmarkPasswordHash, with
// -tags purego), and some seven times that, 90 ms, on the Cortex-A53 of a
// Raspberry Pi 3 or Zero 2, while two at once fit beside everything else in a
// machine with 512 MB.
const (
	hashPasses  = 3
	hashMemory  = 8 << 10 // KiB
	hashThreads = 1
	hashLength  = 32
	saltLength  = 16

	hashesAtOnce = 2
)

// Limits of what is taken from a hand-edited or migrated file, so that no
// single login can take the machine's memory or minutes of its time.
const (
	maxHashMemory  = 64 << 10 // KiB
	maxHashPasses  = 16
	maxHashThreads = 8
	maxBcryptCost  = 13
)

const (
	minPassword = 8    // characters, of a password that a person chooses
	maxPassword = 1024 // bytes, of any password
)

// passwordHasher verifies main passwords: few at once, and a good one that
// was seen before without hashing. Safe for concurrent use.
type passwordHasher struct {
	slots chan struct{} // holds one token for each hash that runs
	key   []byte        // of this process alone; never stored

	mu   sync.Mutex
	good map[[sha256.Size]byte]struct{}
}

// At most this many good logins are remembered, some 50 bytes each.
const maxGoodLogins = 4096

func newPasswordHasher() *passwordHasher {
	h := &passwordHasher{
		slots: make(chan struct{}, hashesAtOnce),
		key:   make([]byte, 32),
		good:  map[[sha256.Size]byte]struct{}{},
	}
	_, _ = rand.Read(h.key) // never fails
	return h
}

// verify checks a password against a hash: nil, ErrBadLogin, or the context's
// error when it ended while others were hashing. A password that was right
// before is remembered under a keyed digest of both; a changed password has a
// different hash, so nothing need be forgotten.
func (h *passwordHasher) verify(ctx context.Context, hash, password string) error {
	digest := h.digest(hash, password)
	h.mu.Lock()
	_, known := h.good[digest]
	h.mu.Unlock()
	if known {
		return nil
	}
	ok, err := h.compare(ctx, hash, password)
	if err != nil {
		return err
	}
	if !ok {
		return ErrBadLogin
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.good) >= maxGoodLogins {
		clear(h.good)
	}
	h.good[digest] = struct{}{}
	return nil
}

// pretend takes as long as verify does for a wrong password, and gives
// ErrBadLogin, or the context's error.
func (h *passwordHasher) pretend(ctx context.Context, password string) error {
	if _, err := h.compare(ctx, nobodysHash, password); err != nil {
		return err
	}
	return ErrBadLogin
}

// nobodysHash has today's cost and a result that no password gives.
const nobodysHash = "$argon2id$v=19$m=8192,t=3,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func (h *passwordHasher) digest(hash, password string) (d [sha256.Size]byte) {
	mac := hmac.New(sha256.New, h.key)
	_, _ = fmt.Fprintf(mac, "%d %s%s", len(hash), hash, password)
	mac.Sum(d[:0])
	return d
}

// take waits for one of the slots, or gives the context's error. Free it.
func (h *passwordHasher) take(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h *passwordHasher) free() { <-h.slots }

// compare hashes, when one of the slots is free.
func (h *passwordHasher) compare(ctx context.Context, hash, password string) (bool, error) {
	if err := h.take(ctx); err != nil {
		return false, err
	}
	defer h.free()
	if strings.HasPrefix(hash, "$2") {
		return bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil, nil
	}
	p, err := parseArgon2(hash)
	if err != nil {
		return false, nil
	}
	sum := argon2.IDKey([]byte(password), p.salt, p.passes, p.memory, p.threads, uint32(len(p.sum)))
	return subtle.ConstantTimeCompare(sum, p.sum) == 1, nil
}

// hashPassword gives the hash of a main password as a PHC string.
func hashPassword(password string) string {
	salt := make([]byte, saltLength)
	_, _ = rand.Read(salt)
	sum := argon2.IDKey([]byte(normalPassword(password)), salt, hashPasses, hashMemory, hashThreads, hashLength)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, hashMemory, hashPasses, hashThreads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(sum))
}

// argon2Hash is a parsed PHC string.
type argon2Hash struct {
	memory, passes uint32
	threads        uint8
	salt, sum      []byte
}

var errNotAHash = errors.New("it is not a password hash; `appliance user passwd ADDRESS` sets one")

func parseArgon2(s string) (argon2Hash, error) {
	var p argon2Hash
	fields := strings.Split(s, "$")
	if len(fields) != 6 || fields[0] != "" || fields[1] != "argon2id" || fields[2] != "v=19" {
		return p, errNotAHash
	}
	if _, err := fmt.Sscanf(fields[3], "m=%d,t=%d,p=%d", &p.memory, &p.passes, &p.threads); err != nil {
		return p, errNotAHash
	}
	if p.passes < 1 || p.passes > maxHashPasses || p.memory < 8 || p.memory > maxHashMemory ||
		p.threads < 1 || p.threads > maxHashThreads {
		return p, fmt.Errorf("its cost is out of bounds: m up to %d, t up to %d, p up to %d",
			maxHashMemory, maxHashPasses, maxHashThreads)
	}
	var err1, err2 error
	p.salt, err1 = base64.RawStdEncoding.DecodeString(fields[4])
	p.sum, err2 = base64.RawStdEncoding.DecodeString(fields[5])
	if err1 != nil || err2 != nil || len(p.salt) < 8 || len(p.sum) < 16 || len(p.sum) > 64 {
		return p, errNotAHash
	}
	return p, nil
}

// checkHash says what is wrong with a main password's hash in the file:
// argon2id as we write it, or bcrypt as other programs do.
func checkHash(s string) error {
	if strings.HasPrefix(s, "$2") {
		cost, err := bcrypt.Cost([]byte(s))
		if err != nil {
			return errNotAHash
		}
		if cost > maxBcryptCost {
			return fmt.Errorf("its cost is out of bounds: bcrypt up to %d", maxBcryptCost)
		}
		return nil
	}
	_, err := parseArgon2(s)
	return err
}

// normalPassword makes the same password typed on different systems the same
// bytes (RFC 8265 §4.2: NFC).
func normalPassword(password string) string { return norm.NFC.String(password) }

// checkNewPassword says what is wrong with a password that a person chose.
func checkNewPassword(password string) error {
	switch n := len([]rune(password)); {
	case n < minPassword:
		return fmt.Errorf("the password has %d characters; it needs at least %d", n, minPassword)
	case len(password) > maxPassword:
		return fmt.Errorf("the password is longer than %d bytes", maxPassword)
	case strings.ContainsAny(password, "\x00\r\n"):
		return errors.New("the password has a line end or a NUL in it, which no mail program can send")
	}
	return nil
}

// generatePassword makes a main password that can be read over the phone:
// five groups of two syllables, 63 bits.
func generatePassword() string {
	const consonants, vowels = "bdfghjklmnprstvz", "aeiou"
	groups := make([]string, 5)
	for i := range groups {
		groups[i] = randomText(consonants, 1) + randomText(vowels, 1) + randomText(consonants, 1) + randomText(vowels, 1)
	}
	return strings.Join(groups, "-")
}

// An app password is four groups of four characters.
const (
	appGroups = 4
	appGroup  = 4
)

// generateAppPassword makes one that is pasted rather than typed: four groups
// of four out of 32 characters, 80 bits, without those that look alike.
func generateAppPassword() string {
	const characters = "abcdefghijkmnpqrstuvwxyz23456789"
	return shownAppPassword(randomText(characters, appGroups*appGroup))
}

// randomText picks n characters, all equally likely.
func randomText(from string, n int) string {
	out := make([]byte, 0, n)
	limit := 256 - 256%len(from)
	var b [1]byte
	for len(out) < n {
		_, _ = rand.Read(b[:])
		if int(b[0]) < limit {
			out = append(out, from[int(b[0])%len(from)])
		}
	}
	return string(out)
}

// App passwords have 80 random bits, which no one finds by trying: a salted
// fast hash is enough and keeps a login with one of them nearly free.
const appHashPrefix = "$sha256$"

func hashAppPassword(password string) string {
	salt := make([]byte, saltLength)
	_, _ = rand.Read(salt)
	return appHashPrefix + base64.RawStdEncoding.EncodeToString(salt) + "$" +
		base64.RawStdEncoding.EncodeToString(appSum(salt, password))
}

// appSum hashes an app password.
func appSum(salt []byte, password string) []byte {
	mac := hmac.New(sha256.New, salt)
	_, _ = mac.Write([]byte(plainAppPassword(password)))
	return mac.Sum(nil)
}

// plainAppPassword forgives what people do to groups of letters when they copy them.
func plainAppPassword(password string) string {
	return strings.ToLower(strings.NewReplacer("-", "", " ", "").Replace(password))
}

// shownAppPassword gives an app password as it was shown, however it was typed: a proof by SCRAM can be of one spelling
// alone.
func shownAppPassword(password string) string {
	plain := plainAppPassword(password)
	if len(plain) != appGroups*appGroup {
		return password // not one of ours
	}
	var groups []string
	for group := range slices.Chunk([]byte(plain), appGroup) {
		groups = append(groups, string(group))
	}
	return strings.Join(groups, "-")
}

func parseAppHash(s string) (salt, sum []byte, err error) {
	rest, ok := strings.CutPrefix(s, appHashPrefix)
	saltText, sumText, ok2 := strings.Cut(rest, "$")
	salt, err1 := base64.RawStdEncoding.DecodeString(saltText)
	sum, err2 := base64.RawStdEncoding.DecodeString(sumText)
	if !ok || !ok2 || err1 != nil || err2 != nil || len(salt) < 8 || len(sum) != sha256.Size {
		return nil, nil, errors.New("it is not an app password's hash; `appliance user app-password add ADDRESS NAME` makes one")
	}
	return salt, sum, nil
}

// checkAppHash says what is wrong with an app password's hash in the file.
func checkAppHash(s string) error {
	_, _, err := parseAppHash(s)
	return err
}

func matchAppPassword(hash, password string) bool {
	salt, sum, err := parseAppHash(hash)
	return err == nil && hmac.Equal(sum, appSum(salt, password))
}
