package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-msgauth/authres"
	"github.com/emersion/go-msgauth/dkim"
)

// maxARCSets is how many servers may have sealed a message (RFC 8617 §4.2.1).
const maxARCSets = 50

// ARCFinding says whether the seals of the servers that a message came through hold (RFC 8617). It tells nothing of whether
// one may believe them.
type ARCFinding struct {
	Result authres.ResultValue // none, pass or fail
	Sets   int                 // seals of a chain that holds
	Sealer string              // d= of the last seal of such a chain
	Reason string              // why it fails
}

func (f ARCFinding) result() authres.Result {
	return &authres.GenericResult{Method: "arc", Value: f.Result, Params: map[string]string{"reason": resultText(f.Reason), "header.d": f.Sealer}}
}

// arcSet is what one server has added.
type arcSet struct {
	results, message, seal []byte // the three fields, whole
	signature, sealed      map[string]string
}

// arcError is why a chain does not hold.
type arcError string

func (e arcError) Error() string { return string(e) }

// checkARC checks the chain of seals, if there is one. go-msgauth has no ARC; its canonicalisation of bodies is used.
func (v *Verifier) checkARC(ctx context.Context, m *openedMail) (ARCFinding, error) {
	sets, err := arcSets(m.fields)
	if err == nil && len(sets) == 0 {
		return ARCFinding{Result: authres.ResultNone}, nil
	}
	if err == nil && (m.tooLong || !affordable(m.fields, nil)) {
		err = arcError("the header is too long to be checked")
	}
	if err == nil {
		keys := &dkimKeyRecords{resolver: v.Resolver, ctx: ctx, found: map[string]string{}}
		err = verifyChain(keys, m, sets)
	}
	var broken arcError
	switch {
	case errors.As(err, &broken):
		return ARCFinding{Result: authres.ResultFail, Reason: broken.Error()}, nil
	case err != nil:
		return ARCFinding{}, fmt.Errorf("checking ARC seals: %w", err)
	}
	return ARCFinding{Result: authres.ResultPass, Sets: len(sets), Sealer: strings.ToLower(sets[len(sets)-1].sealed["d"])}, nil
}

// arcSets gathers the sets in order and checks that each is whole (RFC 8617 §5.2, steps 1 to 3).
func arcSets(fields []headerField) ([]arcSet, error) {
	var sets []arcSet
	for _, field := range fields {
		kind := strings.ToLower(field.Name)
		if kind != "arc-authentication-results" && kind != "arc-message-signature" && kind != "arc-seal" {
			continue
		}
		_, value, _ := bytes.Cut(field.Raw, []byte{':'})
		tags, ok := parseTags(string(value))
		if kind == "arc-authentication-results" { // no tags but the first
			first, _, _ := strings.Cut(string(value), ";")
			tags, ok = parseTags(first)
		}
		i, err := strconv.Atoi(tags["i"])
		if !ok || err != nil || i < 1 || i > maxARCSets || strconv.Itoa(i) != tags["i"] {
			return nil, arcError("a field of the chain has no valid number")
		}
		for len(sets) < i {
			sets = append(sets, arcSet{})
		}
		if !sets[i-1].add(kind, field.Raw, tags) {
			return nil, arcError("set " + tags["i"] + " has a field twice")
		}
	}
	for i, set := range sets {
		switch {
		case set.results == nil || set.message == nil || set.seal == nil:
			return nil, arcError("set " + strconv.Itoa(i+1) + " is not whole")
		case i == 0 && set.sealed["cv"] != "none", i > 0 && set.sealed["cv"] != "pass":
			return nil, arcError("seal " + strconv.Itoa(i+1) + " says that the chain did not hold")
		}
	}
	return sets, nil
}

// add puts a field into a set; it is false where there is one already.
func (s *arcSet) add(kind string, raw []byte, tags map[string]string) bool {
	place := &s.results
	switch kind {
	case "arc-message-signature":
		place, s.signature = &s.message, tags
	case "arc-seal":
		place, s.sealed = &s.seal, tags
	}
	if *place != nil {
		return false
	}
	*place = raw
	return true
}

// verifyChain checks the last signature of the message and all seals (RFC 8617 §5.2, steps 4 and 6).
func verifyChain(keys *dkimKeyRecords, m *openedMail, sets []arcSet) error {
	last := sets[len(sets)-1]
	if err := verifyARCMessage(keys, m, last); err != nil {
		return err
	}
	var sealed []byte
	for i, set := range sets {
		if _, has := set.sealed["h"]; has {
			return arcError("seal " + strconv.Itoa(i+1) + " has a list of fields")
		}
		sealed = append(append(sealed, relaxedField(set.results)...), relaxedField(set.message)...)
		own := strings.TrimSuffix(relaxedField(withoutSignature(set.seal)), "\r\n")
		if err := keys.verify(set.sealed, append(slices.Clip(sealed), own...)); err != nil {
			return reasonOf(err, "seal "+strconv.Itoa(i+1))
		}
		sealed = append(sealed, relaxedField(set.seal)...)
	}
	return nil
}

// reasonOf puts in front what did not hold.
func reasonOf(err error, what string) error {
	if broken, ok := err.(arcError); ok {
		return arcError(what + ": " + string(broken))
	}
	return err
}

// verifyARCMessage checks an ARC-Message-Signature, which is a DKIM-Signature by another name (RFC 8617 §4.1.2).
func verifyARCMessage(keys *dkimKeyRecords, m *openedMail, set arcSet) error {
	const what = "message signature"
	names := strings.Split(strings.ToLower(set.signature["h"]), ":")
	headerWay, bodyWay, _ := strings.Cut(set.signature["c"], "/")
	_, partial := set.signature["l"]
	switch {
	case partial:
		return arcError(what + ": it does not sign the whole body")
	case !slices.Contains(names, "from") || slices.Contains(names, "arc-seal"):
		return arcError(what + ": it signs the wrong fields")
	case len(names)*len(m.fields) > maxPickingCost:
		return arcError(what + ": it signs too many fields")
	case headerWay != "" && headerWay != "simple" && headerWay != "relaxed" || bodyWay != "" && bodyWay != "simple" && bodyWay != "relaxed":
		return arcError(what + ": its canonicalisation is not known")
	case expired(set.signature["x"]):
		return arcError(what + ": it has expired")
	}
	canonical := func(raw []byte) string { return string(raw) }
	if headerWay == "relaxed" {
		canonical = relaxedField
	}
	var signed strings.Builder
	for _, raw := range pickFields(m.fields, names) {
		signed.WriteString(canonical(raw))
	}
	signed.WriteString(strings.TrimSuffix(canonical(withoutSignature(set.message)), "\r\n"))
	if err := keys.verify(set.signature, []byte(signed.String())); err != nil {
		return reasonOf(err, what)
	}
	hash, err := bodyHash(m.body(), dkim.Canonicalization(bodyWay))
	if err != nil {
		return err
	}
	if hash != set.signature["bh"] {
		return arcError(what + ": the body was changed")
	}
	return nil
}

// expired says whether a time in seconds is over; one that cannot be read is.
func expired(x string) bool {
	seconds, err := strconv.ParseInt(x, 10, 64)
	return x != "" && (err != nil || time.Now().After(time.Unix(seconds, 0)))
}

// pickFields gives the fields of the names, from the last of each name up (RFC 6376 §5.4.2).
func pickFields(fields []headerField, names []string) [][]byte {
	var picked [][]byte
	next := map[string]int{}
	for _, name := range names {
		i, begun := next[name]
		if !begun {
			i = len(fields) - 1
		}
		for i >= 0 && !fields[i].Is(name) {
			i--
		}
		if i >= 0 {
			picked = append(picked, fields[i].Raw)
		}
		next[name] = i - 1
	}
	return picked
}

// relaxedField is the relaxed canonicalisation of a field (RFC 6376 §3.4.2).
func relaxedField(raw []byte) string {
	name, value, _ := strings.Cut(string(raw), ":")
	space := func(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' }
	return strings.ToLower(strings.TrimFunc(name, space)) + ":" + strings.Join(strings.FieldsFunc(value, space), " ") + "\r\n"
}

// withoutSignature gives a field with its b= emptied.
func withoutSignature(raw []byte) []byte {
	start := bytes.IndexByte(raw, ':') + 1
	for start < len(raw) {
		end := len(raw)
		if i := bytes.IndexByte(raw[start:], ';'); i >= 0 {
			end = start + i
		}
		name, _, ok := bytes.Cut(raw[start:end], []byte{'='})
		if ok && string(bytes.TrimSpace(name)) == "b" {
			return append(raw[:start+len(name)+1:start+len(name)+1], raw[end:]...)
		}
		start = end + 1
	}
	return raw
}

// bodyHash gives the hash of a body as bh= has it. The library canonicalises a body only while it signs a message, so it
// signs one with this body.
func bodyHash(body io.Reader, way dkim.Canonicalization) (string, error) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	signer, err := dkim.NewSigner(&dkim.SignOptions{Domain: "body.invalid", Selector: "body", Signer: key, BodyCanonicalization: way, HeaderKeys: []string{"From"}})
	if err != nil {
		return "", err
	}
	_, err = io.Copy(signer, io.MultiReader(strings.NewReader("From: body@body.invalid\r\n\r\n"), body))
	if cerr := signer.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", err
	}
	_, tags, _ := strings.Cut(signer.Signature(), ":")
	signature, _ := parseTags(tags)
	return signature["bh"], nil
}

// verify checks a signature of data by the key that its tags name. The error is an arcError.
func (k *dkimKeyRecords) verify(tags map[string]string, data []byte) error {
	domain, ok := asciiDomain(tags["d"])
	if !ok || tags["s"] == "" {
		return arcError("it names no key")
	}
	signature, err := base64.StdEncoding.DecodeString(tags["b"])
	if err != nil {
		return arcError("it is damaged")
	}
	record, err := k.record(tags["s"] + "._domainkey." + domain)
	switch {
	case err != nil && !isNotFound(err) && err != errLongKey:
		return arcError("its key cannot be looked up at the moment")
	case err != nil:
		return arcError("there is no such key")
	}
	algorithm, hash, _ := strings.Cut(strings.ToLower(tags["a"]), "-")
	key, err := parseDKIMKey(record)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(data)
	switch key := key.(type) {
	case *rsa.PublicKey:
		ok = algorithm == "rsa" && rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) == nil
	case ed25519.PublicKey:
		ok = algorithm == "ed25519" && ed25519.Verify(key, digest[:], signature)
	}
	if !ok || hash != "sha256" {
		return arcError("it does not hold")
	}
	return nil
}

// record gives the one key record of a name, from what was looked up already if it can.
func (k *dkimKeyRecords) record(name string) (string, error) {
	k.mu.Lock()
	text, known := k.found[strings.ToLower(name)]
	k.mu.Unlock()
	if known {
		return text, nil
	}
	texts, err := k.lookUp(name)
	if err != nil {
		return "", err
	}
	if len(texts) != 1 {
		return "", notFound(name)
	}
	return texts[0], nil
}

// parseDKIMKey reads a key record (RFC 6376 §3.6.1, RFC 8463). The error is an arcError.
func parseDKIMKey(record string) (crypto.PublicKey, error) {
	tags, ok := parseTags(record)
	version, versioned := tags["v"]
	der, err := base64.StdEncoding.DecodeString(tags["p"])
	hashes, services := tags["h"], tags["s"]
	switch {
	case !ok || versioned && version != "DKIM1" || err != nil:
		return nil, arcError("its key is damaged")
	case len(der) == 0:
		return nil, arcError("its key was revoked")
	case hashes != "" && !slices.Contains(strings.Split(hashes, ":"), "sha256"),
		services != "" && !slices.Contains(strings.Split(services, ":"), "*") && !slices.Contains(strings.Split(services, ":"), "email"):
		return nil, arcError("its key is for something else")
	}
	switch tags["k"] {
	case "", "rsa":
		key, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			key, err = x509.ParsePKCS1PublicKey(der) // erratum 3017 of RFC 6376
		}
		if public, ok := key.(*rsa.PublicKey); err == nil && ok && public.Size()*8 >= 1024 { // RFC 8301 §3.2
			return public, nil
		}
	case "ed25519":
		if len(der) == ed25519.PublicKeySize {
			return ed25519.PublicKey(der), nil
		}
	}
	return nil, arcError("its key cannot be used")
}
