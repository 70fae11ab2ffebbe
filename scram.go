package main

// What the accounts keep so that a password can be proved without being sent: SCRAM-SHA-256, RFC 5802 and RFC 7677.

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/xdg-go/scram"
)

// scramIterations is how often PBKDF2 hashes a password for SCRAM; RFC 7677 §4 demands 4,096 at least. It is the most
// that clients built on Cyrus SASL compute: mbsync and others end a login above it.
//
// Only clients pay it at a login: 65,536 iterations take 12 ms on one core of a 2020s server with instructions for
// SHA-256, and 49 ms in portable code (BenchmarkSCRAMKeys, and with -tags purego). A phone has such instructions if its
// processor is a 64-bit one, and need not pay twice, for the salt of an account stays. The server pays once for
// each password that is set.
//
// Whoever steals the accounts file can try passwords on these keys as well as on the argon2id hash beside them, and
// takes what is cheaper. On a processor they cost about the same, but these need no memory, so that a graphics card
// tries far more of them at once. That is the price of SCRAM. The passwords that the appliance makes have 63 random bits
// and app passwords 80, which no one finds at any price.
const scramIterations = 65_536

// Limits of what is taken from a hand-edited or migrated file.
const (
	minSCRAMIterations = 4096
	maxSCRAMIterations = 1 << 20
	minSCRAMSalt       = 8  // bytes
	maxSCRAMSalt       = 64 // bytes
)

// scramRetry is how long logins make no keys after the accounts file could not be written.
const scramRetry = 10 * time.Minute

// scramCredential is one of the passwords that log an account in, as the server's side of SCRAM knows it.
type scramCredential struct {
	Identity // zero: made up, for a name that may not log in
	Keys     scram.StoredCredentials
}

// SCRAMCredentials gives the passwords that log in under a name: at least one, and all with the same salt and iteration
// count.
//
// A client tells its name and is then told a salt, once; it does not tell which of a person's passwords it has, the
// main one or one of the app passwords. So all of a person's passwords share the salt, and whoever checks a proof tries
// them one after the other. A salt has to keep apart persons, so that nobody can try a guess on all of them at once.
//
// For a name that is nobody's or may not log in there is one that no proof fits.
func (a *Accounts) SCRAMCredentials(name string) []scramCredential {
	u := a.current().login(name)
	if u != nil && !u.Disabled {
		if found := u.scramCredentials(); len(found) > 0 {
			return found
		}
	}
	made := scramCredential{Keys: scram.StoredCredentials{
		KeyFactors: a.scramFactors(name, u), StoredKey: make([]byte, sha256.Size), ServerKey: make([]byte, sha256.Size),
	}}
	_, _ = rand.Read(made.Keys.StoredKey) // never fails
	return []scramCredential{made}
}

// scramFactors gives the salt and iteration count of a name, whose account is u, nil for none: those that its keys have,
// else those that new ones are made with.
//
// A new salt comes from the name and the secret of the appliance, so that it can be told for names that are nobody's, is
// the same at every time of asking and says nothing about who has an account here. It comes from the local part
// alone, because a name may be given without its domain.
func (a *Accounts) scramFactors(name string, u *User) scram.KeyFactors {
	if u != nil {
		if keys, err := parseSCRAMKeys(u.scramKeys()); err == nil {
			return keys.KeyFactors
		}
	}
	local := name[:max(0, strings.LastIndexByte(name, '@'))]
	if address, err := ParseAddress(strings.TrimSpace(name)); err == nil {
		local = address.Local
	} else if local == "" {
		local = name
	}
	mac := hmac.New(sha256.New, a.secret)
	_, _ = mac.Write([]byte(normalLocal(strings.TrimSpace(local))))
	return scram.KeyFactors{Salt: string(mac.Sum(nil)[:saltLength]), Iters: scramIterations}
}

// passwords goes through a person's passwords: the app password's name, "" for the main one, and its field in the file.
func (u *User) passwords(yield func(via string, field *string) bool) {
	if u.Password != "" && !yield("", &u.Password) {
		return
	}
	for i := range u.Apps {
		if !yield(u.Apps[i].Name, &u.Apps[i].Password) {
			return
		}
	}
}

// scramKeys gives the SCRAM keys whose salt and iteration count are those of the account: the first ones; "" for none.
func (u *User) scramKeys() string {
	for _, field := range u.passwords {
		if _, keys := splitPassword(*field); keys != "" {
			return keys
		}
	}
	return ""
}

// hasKeys says whether a password has SCRAM keys that can be used: with the salt of the account, which a block that
// a person copied from elsewhere has not.
func (u *User) hasKeys(field string) bool {
	_, keys := splitPassword(field)
	return keys != "" && scramHead(keys) == scramHead(u.scramKeys())
}

// scramCredentials gives those of a person's passwords that have keys.
func (u *User) scramCredentials() []scramCredential {
	var found []scramCredential
	for via, field := range u.passwords {
		if !u.hasKeys(*field) {
			continue
		}
		_, text := splitPassword(*field)
		if keys, err := parseSCRAMKeys(text); err == nil {
			found = append(found, scramCredential{Identity{u.Address, via}, keys})
		}
	}
	return found
}

// LacksSCRAMKeys says whether the account of a name has a password that cannot log in by SCRAM yet.
func (a *Accounts) LacksSCRAMKeys(name string) bool {
	u := a.current().login(name)
	if u == nil {
		return false
	}
	for _, field := range u.passwords {
		if !u.hasKeys(*field) {
			return true
		}
	}
	return false
}

// splitPassword takes a password field of the accounts file apart: the hash, and behind a space the SCRAM keys of the
// same password, "" for none. They are one field so that whoever pastes another hash there replaces both: the keys of an
// old password cannot be left behind.
func splitPassword(field string) (hash, keys string) {
	hash, keys, _ = strings.Cut(field, " ")
	return hash, keys
}

const scramPrefix = "$scram-sha-256$"

var errNotSCRAMKeys = errors.New("what follows the hash are no SCRAM keys; take it away, and the next login makes new ones")

// parseSCRAMKeys reads keys as a PHC string: $scram-sha-256$i=ITERATIONS$SALT$STOREDKEY$SERVERKEY, the last three in
// base64 without padding (RFC 5802 §3).
func parseSCRAMKeys(s string) (scram.StoredCredentials, error) {
	var k scram.StoredCredentials
	rest, ok := strings.CutPrefix(s, scramPrefix+"i=")
	fields := strings.Split(rest, "$")
	if !ok || len(fields) != 4 {
		return k, errNotSCRAMKeys
	}
	iterations, err := strconv.Atoi(fields[0])
	if err != nil {
		return k, errNotSCRAMKeys
	}
	if iterations < minSCRAMIterations || iterations > maxSCRAMIterations {
		return k, fmt.Errorf("the cost of its SCRAM keys is out of bounds: i from %d to %d", minSCRAMIterations, maxSCRAMIterations)
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(fields[1])
	stored, err2 := base64.RawStdEncoding.DecodeString(fields[2])
	server, err3 := base64.RawStdEncoding.DecodeString(fields[3])
	if err := errors.Join(err1, err2, err3); err != nil || len(salt) < minSCRAMSalt || len(salt) > maxSCRAMSalt ||
		len(stored) != sha256.Size || len(server) != sha256.Size {
		return k, errNotSCRAMKeys
	}
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(salt), Iters: iterations}, StoredKey: stored, ServerKey: server,
	}, nil
}

// scramHead gives what keys of one account have in common: all but the StoredKey and the ServerKey.
func scramHead(keys string) string {
	for range 2 {
		keys = keys[:max(0, strings.LastIndexByte(keys, '$'))]
	}
	return keys
}

// newSCRAMKeys makes the keys of a password. SASLprep (RFC 4013) prepares it as clients do, though not where it knows
// a character not yet, such as an emoji: there the password is what normalPassword makes of it.
func newSCRAMKeys(password string, factors scram.KeyFactors) (string, error) {
	client, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		client, err = scram.SHA256.NewClientUnprepped("", normalPassword(password), "")
	}
	if err != nil {
		return "", fmt.Errorf("preparing a password for SCRAM: %w", err)
	}
	k, err := client.GetStoredCredentialsWithError(factors)
	if err != nil {
		return "", fmt.Errorf("making SCRAM keys: %w", err)
	}
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("%si=%d$%s$%s$%s", scramPrefix, k.Iters, encode([]byte(k.Salt)), encode(k.StoredKey), encode(k.ServerKey)), nil
}

// withKeys gives the password field of an account for a new password with this hash.
func (a *Accounts) withKeys(hash, account, password string) (string, error) {
	u := a.current().login(account)
	keys, err := newSCRAMKeys(password, a.scramFactors(account, u))
	return hash + " " + keys, err
}

// keepKeys makes the SCRAM keys of a password that has just been right, if it has none: it was set by an older version,
// or its hash came from elsewhere. That happens once for a password. It never fails a login: what could not be
// written is made again later.
func (a *Accounts) keepKeys(ctx context.Context, u *User, via, password string) {
	field := *u.password(via)
	if u.hasKeys(field) || !a.beginKeys(u.Address) {
		return
	}
	defer a.endKeys(u.Address)
	if a.hasher.take(ctx) != nil {
		return // the client has gone; the next login makes them
	}
	hash, _ := splitPassword(field)
	full, err := a.withKeys(hash, u.Address, password)
	a.hasher.free()
	if err == nil {
		err = a.edit(u.Address, func(u *User) error {
			now := u.password(via)
			if now == nil || *now != field {
				return errPasswordChanged
			}
			*now = full
			return nil
		})
	}
	switch {
	case err == nil:
		a.cfg.Log.Info("SCRAM keys made", "account", u.Address, "via", via)
	case !errors.Is(err, errPasswordChanged):
		a.cfg.Log.Warn("SCRAM keys not kept, a later login makes them", "account", u.Address, "err", err)
		a.delayKeys()
	}
}

// errPasswordChanged ends an edit that would put keys behind the hash of another password.
var errPasswordChanged = errors.New("the password was changed meanwhile")

// password gives the field of a password by its app password's name, "" for the main one; nil for none.
func (u *User) password(via string) *string {
	for name, field := range u.passwords {
		if name == via {
			return field
		}
	}
	return nil
}

// beginKeys says whether keys may be made for an account now: not twice at a time, and not soon after a failure.
func (a *Accounts) beginKeys(account string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keysUnderWay[account] || a.cfg.Now().Before(a.noKeysUntil) {
		return false
	}
	if a.keysUnderWay == nil {
		a.keysUnderWay = map[string]bool{}
	}
	a.keysUnderWay[account] = true
	return true
}

// endKeys ends what beginKeys began.
func (a *Accounts) endKeys(account string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.keysUnderWay, account)
}

// delayKeys notes that the file cannot be written at the moment.
func (a *Accounts) delayKeys() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.noKeysUntil = a.cfg.Now().Add(scramRetry)
}

// readSecret reads what made-up and new salts come from, or makes it. The file may be lost: then names
// without an account get other salts, and accounts keep theirs.
func (a *Accounts) readSecret() (err error) {
	a.secret, err = keptSecret(a.cfg.Secret, "the secret of SCRAM salts", a.cfg.Log)
	return err
}

// keptSecret reads a secret from a file, or makes one and keeps it there; file "" means that it is another one each time.
func keptSecret(file, what string, log *slog.Logger) ([]byte, error) {
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("reading %s: %w", what, err)
		}
		secret, decodeErr := hex.DecodeString(strings.TrimSpace(string(text)))
		if err == nil && decodeErr == nil && len(secret) == sha256.Size {
			return secret, nil
		}
		if err == nil {
			log.Warn(what+" is damaged and made again", "file", file)
		}
	}
	secret := make([]byte, sha256.Size)
	_, _ = rand.Read(secret) // never fails
	if file == "" {
		return secret, nil
	}
	if err := writeFileAtomic(file, []byte(hex.EncodeToString(secret)+"\n")); err != nil {
		log.Warn(what+" could not be kept, the next start makes another", "err", err)
	}
	return secret, nil
}
