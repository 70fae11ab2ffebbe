package main

import (
	"bufio"
	"compress/flate"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// A client's side of the wire: what the server says, taken apart without any of the server's own code.

// wireToken is one thing of a response: an atom, a string, or a list.
type wireToken struct {
	text string
	list []wireToken
	kind byte // 'a' atom, 's' string (quoted or literal), 'l' list
}

// word gives an atom in capitals, "" for anything else.
func (t wireToken) word() string {
	if t.kind != 'a' {
		return ""
	}
	return strings.ToUpper(t.text)
}

// number gives an atom's number; ok is false when it is none.
func (t wireToken) number() (n uint64, ok bool) {
	n, err := strconv.ParseUint(t.text, 10, 64)
	return n, err == nil && t.kind == 'a'
}

// wireReply is one response. A status response has status, code and text; any other has tokens.
type wireReply struct {
	tag    string // "*", "+" or a tag
	status string // OK, NO, BAD, BYE, PREAUTH; "" for data
	code   []wireToken
	text   string
	data   []wireToken
	raw    string
}

// readReply reads a response with its literals.
func readReply(r *bufio.Reader) (*wireReply, error) {
	var raw []byte
	for {
		line, err := r.ReadBytes('\n')
		if raw = append(raw, line...); err != nil {
			if len(raw) > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if len(line) < 2 || line[len(line)-2] != '\r' {
			return nil, fmt.Errorf("a line without CRLF: %q", raw)
		}
		lit, ok := literalSize(string(line[:len(line)-2]))
		if !ok {
			break
		}
		start := len(raw)
		raw = append(raw, make([]byte, lit)...)
		if _, err := io.ReadFull(r, raw[start:]); err != nil {
			return nil, err
		}
	}
	return parseReply(string(raw[:len(raw)-2]))
}

// literalSize finds {n} at the end of a line.
func literalSize(line string) (int, bool) {
	open := strings.LastIndexByte(line, '{')
	if open < 0 || !strings.HasSuffix(line, "}") {
		return 0, false
	}
	n, err := strconv.Atoi(line[open+1 : len(line)-1])
	return n, err == nil && n >= 0
}

// parseReply takes a response apart.
func parseReply(raw string) (*wireReply, error) {
	r := &wireReply{raw: raw}
	var rest string
	r.tag, rest, _ = strings.Cut(raw, " ")
	first, after, _ := strings.Cut(rest, " ")
	switch first {
	case "OK", "NO", "BAD", "BYE", "PREAUTH":
		r.status, r.text = first, after
		if strings.HasPrefix(after, "[") {
			p := tokenParser{rest: after[1:], inCode: true}
			var err error
			if r.code, err = p.list(']'); err != nil {
				return nil, fmt.Errorf("%w in %q", err, raw)
			}
			r.text = strings.TrimPrefix(p.rest, " ")
		}
		return r, nil
	}
	if r.tag != "*" {
		r.text = rest
		return r, nil
	}
	p := tokenParser{rest: rest}
	var err error
	if r.data, err = p.list(0); err != nil {
		return nil, fmt.Errorf("%w in %q", err, raw)
	}
	return r, nil
}

// codeWord gives the name of the response code.
func (r *wireReply) codeWord() string {
	if len(r.code) == 0 {
		return ""
	}
	return r.code[0].word()
}

// tokenParser reads tokens.
type tokenParser struct {
	rest   string
	inCode bool // "]" ends an atom
}

// list reads up to the byte end, which it takes; 0 is the end of the text.
func (p *tokenParser) list(end byte) ([]wireToken, error) {
	tokens := []wireToken{}
	for {
		if p.rest == "" {
			if end != 0 {
				return nil, errors.New("a list does not end")
			}
			return tokens, nil
		}
		if p.rest[0] == end {
			p.rest = p.rest[1:]
			return tokens, nil
		}
		if len(tokens) > 0 {
			// Only the lists of THREAD and of BODYSTRUCTURE stand side by side.
			if p.rest[0] == ' ' {
				p.rest = p.rest[1:]
			} else if p.rest[0] != '(' || tokens[len(tokens)-1].kind != 'l' {
				return nil, fmt.Errorf("no space before %q", p.rest)
			}
		}
		t, err := p.token()
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, t)
	}
}

// token reads one.
func (p *tokenParser) token() (wireToken, error) {
	switch {
	case p.rest == "":
		return wireToken{}, errors.New("something is missing at the end")
	case p.rest[0] == '(':
		p.rest = p.rest[1:]
		list, err := p.list(')')
		return wireToken{list: list, kind: 'l'}, err
	case p.rest[0] == '"':
		return p.quoted()
	case p.rest[0] == '{' || strings.HasPrefix(p.rest, "~{"):
		line, after, _ := strings.Cut(p.rest, "\r\n")
		n, ok := literalSize(line)
		if !ok || n > len(after) {
			return wireToken{}, fmt.Errorf("a bad literal %q", line)
		}
		p.rest = after[n:]
		return wireToken{text: after[:n], kind: 's'}, nil
	}
	end, depth := 0, 0
	for ; end < len(p.rest); end++ {
		c := p.rest[end]
		if c == '[' {
			depth++
		}
		if c == ']' {
			if depth == 0 && p.inCode {
				break
			}
			depth--
		}
		if depth <= 0 && (c == ' ' || c == '(' || c == ')') {
			break
		}
	}
	if end == 0 {
		return wireToken{}, fmt.Errorf("unexpected %q", p.rest)
	}
	t := wireToken{text: p.rest[:end], kind: 'a'}
	p.rest = p.rest[end:]
	return t, nil
}

// quoted reads a quoted string.
func (p *tokenParser) quoted() (wireToken, error) {
	var text []byte
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; c {
		case '"':
			p.rest = p.rest[i+1:]
			return wireToken{text: string(text), kind: 's'}, nil
		case '\\':
			i++
			if i < len(p.rest) {
				text = append(text, p.rest[i])
			}
		default:
			text = append(text, c)
		}
	}
	return wireToken{}, errors.New("a quoted string does not end")
}

// parseUIDs reads a set of numbers without "*"; ranges are expanded in the order in which they come.
func parseUIDs(set string) ([]uint32, error) {
	var uids []uint32
	for part := range strings.SplitSeq(set, ",") {
		lo, hi, ranged := strings.Cut(part, ":")
		if !ranged {
			hi = lo
		}
		a, err := strconv.ParseUint(lo, 10, 32)
		b, err2 := strconv.ParseUint(hi, 10, 32)
		if err != nil || err2 != nil || a == 0 || b < a || b-a > 1<<20 {
			return nil, fmt.Errorf("a bad set %q", set)
		}
		for n := a; n <= b; n++ {
			uids = append(uids, uint32(n))
		}
	}
	return uids, nil
}

// formatUIDs writes a set of UIDs.
func formatUIDs(uids []uint32) string {
	set := imap.UIDSet{}
	for _, uid := range uids {
		set.AddNum(imap.UID(uid))
	}
	return set.String()
}

// modelConn is a client's connection: plain or TLS, compressed from some time on.
type modelConn struct {
	net.Conn
	r *bufio.Reader
	w io.Writer
}

// dialModel connects, and reads the greeting. settings is nil for a port without TLS.
func dialModel(address string, settings *tls.Config) (*modelConn, error) {
	raw, err := net.DialTimeout("tcp", address, time.Minute)
	if err != nil {
		return nil, err
	}
	if settings != nil {
		raw = tls.Client(raw, settings)
	}
	c := &modelConn{Conn: raw, r: bufio.NewReader(raw), w: raw}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	greeting, err := readReply(c.r)
	if err == nil && greeting.status != "OK" {
		err = fmt.Errorf("the greeting is %q", greeting.raw)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// secure begins TLS, which the server has agreed to.
func (c *modelConn) secure(settings *tls.Config) {
	c.Conn = tls.Client(c.Conn, settings)
	c.r, c.w = bufio.NewReader(c.Conn), c.Conn
}

// compress begins DEFLATE, which the server has agreed to.
func (c *modelConn) compress() error {
	w, err := flate.NewWriter(c.Conn, flate.BestSpeed)
	if err != nil {
		return err
	}
	packed := &flateConn{c.Conn, flate.NewReader(c.r), w}
	c.r, c.w = bufio.NewReader(packed), packed
	return nil
}

// sortedWords gives words sorted, joined by blanks, those in without left out.
func sortedWords(words []wireToken, without string) string {
	var names []string
	for _, w := range words {
		if w.text != without {
			names = append(names, w.text)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}
