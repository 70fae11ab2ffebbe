package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/emersion/go-msgauth/authres"
	"github.com/emersion/go-msgauth/dkim"
)

const (
	maxDKIMSignatures = 10      // of a message that are checked, the first ones
	maxKeyRecord      = 744     // octets of p=; a key of 4096 bits has 736
	maxFoldingCost    = 1 << 29 // octets that the library may copy while it joins folded lines
	maxPickingCost    = 1 << 21 // fields that it may look at while it picks the signed ones
)

// DKIMFinding is what a DKIM-Signature field is worth (RFC 6376).
type DKIMFinding struct {
	Result   authres.ResultValue // pass, fail, temperror or permerror
	Domain   string              // d=, "" where it cannot be read
	Selector string              // s=
	Agent    string              // i=, or its default
	Mark     string              // the first octets of b=, which tell signatures of a domain apart (RFC 6008)
	Reason   string              // why it is not pass

	names int // how many fields it signs
}

// checkDKIM checks the signatures of a message. The body is read once, and not held.
func (v *Verifier) checkDKIM(ctx context.Context, m *openedMail) ([]DKIMFinding, error) {
	findings := signatures(m.fields)
	if len(findings) == 0 {
		return nil, nil
	}
	if m.tooLong || !affordable(m.fields, findings) {
		for i := range findings {
			findings[i].Result, findings[i].Reason = authres.ResultPermError, "the header is too long to be checked"
		}
		return findings, nil
	}
	keys := &dkimKeyRecords{resolver: v.Resolver, ctx: ctx, found: map[string]string{}}
	body := &quietReader{r: m.body()}
	verified, err := dkim.VerifyWithOptions(io.MultiReader(bytes.NewReader(m.endedHeader()), body),
		&dkim.VerifyOptions{LookupTXT: keys.lookUp, MaxVerifications: maxDKIMSignatures})
	if errors.Is(err, dkim.ErrTooManySignatures) {
		err = nil
	}
	if err = errors.Join(err, body.err); err != nil {
		return nil, fmt.Errorf("checking DKIM signatures: %w", err)
	}
	for i := range min(len(verified), len(findings)) {
		findings[i].set(verified[i], keys)
	}
	return findings, nil
}

// signatures reads what the DKIM-Signature fields say, as far as they will be checked.
func signatures(fields []headerField) []DKIMFinding {
	var found []DKIMFinding
	for _, field := range fields {
		// The name is read as the library reads it, so that it finds the same ones.
		name, value, _ := bytes.Cut(field.Raw, []byte{':'})
		if !strings.EqualFold(string(bytes.TrimSpace(name)), "DKIM-Signature") || len(found) == maxDKIMSignatures {
			continue
		}
		tags, _ := parseTags(string(value))
		mark := tags["b"]
		found = append(found, DKIMFinding{Selector: tags["s"], Mark: mark[:min(len(mark), 8)], names: 1 + strings.Count(tags["h"], ":")})
	}
	return found
}

// affordable says whether the library can check the signatures of a header without work that grows by the square.
func affordable(fields []headerField, found []DKIMFinding) bool {
	folding, names := 0, 0
	for _, field := range fields {
		folding += bytes.Count(field.Raw, []byte{'\n'}) * len(field.Raw)
	}
	for _, f := range found {
		names += f.names
	}
	return folding <= maxFoldingCost && names*len(fields) <= maxPickingCost
}

// set takes over what the library found.
func (f *DKIMFinding) set(one *dkim.Verification, keys *dkimKeyRecords) {
	f.Domain, f.Agent = strings.ToLower(one.Domain), one.Identifier
	_, agentDomain, _ := cutLast(f.Agent, '@')
	switch {
	case one.Err == nil && keys.strict(f.Selector+"._domainkey."+one.Domain) && !strings.EqualFold(agentDomain, f.Domain):
		f.Result, f.Reason = authres.ResultPermError, "the key is for "+f.Domain+" alone" // RFC 6376 §3.6.1, t=s
	case one.Err == nil:
		f.Result = authres.ResultPass
	case dkim.IsTempFail(one.Err):
		f.Result = authres.ResultTempError
	case dkim.IsPermFail(one.Err):
		f.Result = authres.ResultPermError
	default:
		f.Result = authres.ResultFail
	}
	if one.Err != nil {
		f.Reason = strings.TrimPrefix(one.Err.Error(), "dkim: ")
	}
}

func (f DKIMFinding) result() authres.Result {
	return &authres.GenericResult{Method: "dkim", Value: f.Result, Params: map[string]string{
		"reason": resultText(f.Reason), "header.d": resultText(f.Domain), "header.s": resultText(f.Selector), "header.b": resultText(f.Mark)}}
}

// endedHeader gives the header with a blank line at its end, which a message that is all header lacks.
func (m *openedMail) endedHeader() []byte {
	length := 0
	for _, field := range m.fields {
		length += len(field.Raw)
	}
	switch {
	case len(m.header) > length:
		return m.header
	case bytes.HasSuffix(m.header, []byte{'\n'}):
		return append(slices.Clip(m.header), "\r\n"...)
	}
	return append(slices.Clip(m.header), "\r\n\r\n"...)
}

// quietReader ends at an error and keeps it: the library leaves goroutines behind when its reader fails.
type quietReader struct {
	r   io.Reader
	err error
}

func (q *quietReader) Read(p []byte) (int, error) {
	n, err := q.r.Read(p)
	if err != nil && err != io.EOF {
		q.err, err = err, io.EOF
	}
	return n, err
}

// dkimKeyRecords looks up the keys of one message and keeps them.
type dkimKeyRecords struct {
	resolver *Resolver
	ctx      context.Context
	mu       sync.Mutex
	found    map[string]string // by name in small letters
}

// lookUp gives the key records of SELECTOR._domainkey.DOMAIN. Keys above 4096 bits, which take long to try, are none.
func (k *dkimKeyRecords) lookUp(name string) ([]string, error) {
	texts, err := k.resolver.TXT(k.ctx, name)
	if err != nil {
		return nil, err
	}
	for _, text := range texts {
		if tags, _ := parseTags(text); len(tags["p"]) > maxKeyRecord {
			return nil, errLongKey
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.found[strings.ToLower(name)] = texts[0]
	return texts, nil
}

var errLongKey = errors.New("the key is longer than 4096 bits")

// strict says whether a key that was found does not sign for names below its domain.
func (k *dkimKeyRecords) strict(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	tags, _ := parseTags(k.found[strings.ToLower(name)])
	return slices.Contains(strings.Split(tags["t"], ":"), "s")
}

// parseTags reads a list of tags (RFC 6376 §3.2) without any white space. ok is false when it is not one; what could be read
// is given in any case.
func parseTags(s string) (tags map[string]string, ok bool) {
	tags, ok = map[string]string{}, true
	for one := range strings.SplitSeq(s, ";") {
		name, value, cut := strings.Cut(one, "=")
		name = strings.TrimSpace(name)
		if name == "" && !cut {
			continue // behind the last semicolon
		}
		if _, double := tags[name]; double || !cut || name == "" {
			ok = false
			continue
		}
		tags[name] = strings.Join(strings.Fields(value), "")
	}
	return tags, ok
}
