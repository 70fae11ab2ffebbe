package main

// APPEND of pieces (RFC 4469): text that the client sends and parts of messages that lie here already, named by URLs
// (RFC 5092). The URLs are those of the session's own mailboxes; no other server is ever asked.

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// imapMaxParts is how many pieces a message may be put together from.
const imapMaxParts = 1000

// catenate puts a message together from the list of pieces.
func (s *imapSession) catenate(cmd *imapCommand, in *Incoming) error {
	parts := 0
	w := &lineEnds{w: in}
	err := cmd.list(func() error {
		if parts++; parts > imapMaxParts {
			return imapNo("LIMIT", "The message has too many pieces")
		}
		word := cmd.keyword()
		if word != "TEXT" && word != "URL" {
			return cmd.expected("TEXT or URL before this")
		}
		if err := cmd.sp(); err != nil {
			return err
		}
		if word == "URL" {
			return s.catenateURL(cmd, w, in)
		}
		lit, err := cmd.literalHeader()
		if err != nil {
			return err
		}
		if lit.size > s.p.MaxSize-in.Size() {
			return s.tooBig()
		}
		w.noNUL = !lit.binary
		return s.receiveInto(cmd, lit, w)
	})
	if err == nil && parts == 0 {
		return imapBad("The list of pieces is empty")
	}
	if err == nil && in.Size() == 0 {
		return imapNo("CANNOT", "A message cannot be empty")
	}
	return err
}

// tooBig is the reply to a message that is larger than APPENDLIMIT (RFC 7889 §4; RFC 4469 §4: TOOBIG).
func (s *imapSession) tooBig() error {
	return imapNo("TOOBIG", fmt.Sprintf("A message may have %d bytes", s.p.MaxSize))
}

// catenateURL appends what a URL names. One that names nothing is told in BADURL (RFC 4469 §4).
func (s *imapSession) catenateURL(cmd *imapCommand, w io.Writer, in *Incoming) error {
	text, err := cmd.astring()
	if err != nil {
		return err
	}
	err = s.copyURL(text, w, s.p.MaxSize-in.Size())
	var bad *badURL
	if errors.As(err, &bad) {
		return imapNo("BADURL "+string(appendQuoted(nil, imapText(text))), bad.why)
	}
	return err
}

// badURL says why a URL names nothing.
type badURL struct{ why string }

// Error is error.
func (b *badURL) Error() string { return b.why }

// imapURL is a URL of a part of a message, taken apart.
type imapURL struct {
	mailbox  string // decoded; "" in a relative URL of the selected mailbox
	validity uint32 // 0: not said
	uid      imap.UID
	section  *bodySection
}

// copyURL writes the part of a message that a URL names, up to room bytes.
func (s *imapSession) copyURL(text string, w io.Writer, room int64) error {
	u, err := s.parseURL(text)
	if err != nil {
		return err
	}
	folder, err := s.urlFolder(u)
	if err != nil {
		return err
	}
	defer folder.Release()
	if u.validity != 0 && u.validity != folder.UIDValidity() {
		return &badURL{"The UIDVALIDITY is another one"}
	}
	m, err := folder.OpenMessage(u.uid)
	if errors.Is(err, ErrExpunged) {
		return &badURL{"There is no such message"}
	}
	if err != nil {
		return err
	}
	defer m.Close()
	return s.copySection(m, u, w, room)
}

// urlFolder opens the mailbox of a URL.
func (s *imapSession) urlFolder(u *imapURL) (*Folder, error) {
	name := u.mailbox
	switch {
	case name == "" && s.view == nil:
		return nil, &badURL{"The URL has no mailbox, and none is selected"}
	case name == "":
		name = s.nameOf(s.view.Folder())
	case strings.EqualFold(name, "INBOX"):
		name = "INBOX"
	}
	folder, err := s.open(name, needURL)
	if errors.Is(err, ErrNoFolder) || errors.Is(err, ErrBadName) || errors.Is(err, ErrNoRight) {
		return nil, &badURL{"There is no such mailbox"}
	}
	return folder, err
}

// copySection writes the section of an open message.
func (s *imapSession) copySection(m *Message, u *imapURL, w io.Writer, room int64) error {
	var tree treePart
	if len(u.section.path) > 0 || u.section.kind != sectionBody {
		root, err := parseMessage(m.Section(0, m.Size()))
		if err != nil {
			return fmt.Errorf("reading a message: %w", err)
		}
		tree, _ = parseTree(appendTree(nil, root, 0))
	}
	at, _, ok := u.section.locate(&tree, m.Size())
	if !ok {
		return &badURL{"The message has no such section"}
	}
	r := m.Section(at.off, at.len)
	if kind := u.section.kind; kind == sectionFields || kind == sectionFieldsNot {
		held := heldText{limit: int(min(room+1, 1<<20))}
		if err := u.section.filterHeader(&held, r); err != nil {
			return fmt.Errorf("reading a message: %w", err)
		}
		at, r = span{0, held.n}, strings.NewReader(string(held.text))
	}
	if u.section.partial {
		cut := u.section.cut(at)
		if _, err := io.CopyN(io.Discard, r, cut.off-at.off); err != nil {
			return fmt.Errorf("reading a message: %w", err)
		}
		at, r = cut, io.LimitReader(r, cut.len)
	}
	if at.len > room {
		return s.tooBig()
	}
	_, err := io.Copy(w, r)
	return err
}

// parseURL takes apart imap://USER@HOST/MAILBOX;UIDVALIDITY=n/;UID=n/;SECTION=s/;PARTIAL=n.n, or a part of it from a
// slash or from ";UID=" on (RFC 5092 §7).
func (s *imapSession) parseURL(text string) (*imapURL, error) {
	rest := text
	if scheme, after, ok := strings.Cut(text, "://"); ok && strings.EqualFold(scheme, "imap") {
		server, path, _ := strings.Cut(after, "/")
		at := strings.LastIndexByte(server, '@') // the one in the user's name should be %40, and is not always
		named := at >= 0
		user, _, _ := strings.Cut(server[:max(at, 0)], ";") // ;AUTH=…
		user, err := url.PathUnescape(user)
		if err != nil || named && !strings.EqualFold(user, s.drop.Account()) {
			return nil, &badURL{"The URL is of somebody else's mail"}
		}
		if !s.isOurName(server[at+1:]) {
			return nil, &badURL{"The URL is of another server"}
		}
		rest = "/" + path
	}
	u := &imapURL{section: new(bodySection)}
	path, found := strings.CutPrefix(rest, "/")
	if found && !strings.HasPrefix(path, ";") {
		i := indexParam(path)
		if i < 0 {
			return nil, &badURL{"The URL has no UID"}
		}
		name, err := url.PathUnescape(strings.TrimSuffix(path[:i], "/"))
		if err != nil || name == "" {
			return nil, &badURL{"The mailbox of the URL is not written well"}
		}
		u.mailbox, path = name, path[i:]
	}
	section, partial := "", ""
	for _, field := range strings.Split(path, "/") {
		name, value, _ := strings.Cut(strings.TrimPrefix(field, ";"), "=")
		value, err := url.PathUnescape(value)
		if err != nil || !strings.HasPrefix(field, ";") {
			return nil, &badURL{"The URL is not written well"}
		}
		n, numErr := strconv.ParseUint(value, 10, 32)
		switch strings.ToUpper(name) {
		case "UIDVALIDITY":
			u.validity = uint32(n)
		case "UID":
			u.uid = imap.UID(n)
		case "SECTION":
			section, numErr = value, nil
		case "PARTIAL":
			partial, numErr = value, nil
		default:
			return nil, &badURL{"The URL has a field that is not known"}
		}
		if numErr != nil {
			return nil, &badURL{"A number of the URL is not one"}
		}
	}
	if u.uid == 0 {
		return nil, &badURL{"The URL has no UID"}
	}
	return u, u.parseSection(section, partial)
}

// isOurName says whether a client may mean us by the host of a URL, which may have a port: by our name, the address or the
// name that the client has connected to, or a name in a local domain.
func (s *imapSession) isOurName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	if address, err := netip.ParseAddr(host); err == nil {
		local, err := netip.ParseAddrPort(s.c.raw.LocalAddr().String())
		return err == nil && local.Addr().Unmap() == address.Unmap()
	}
	if state := s.c.TLS(); state != nil && state.ServerName != "" && strings.EqualFold(host, state.ServerName) {
		return true
	}
	_, parent, _ := strings.Cut(host, ".")
	return strings.EqualFold(host, s.p.Hostname) || s.c.Loopback() && strings.EqualFold(host, "localhost") ||
		s.p.Accounts.IsLocalDomain(host) || s.p.Accounts.IsLocalDomain(parent)
}

// indexParam finds the first ";UIDVALIDITY=" or "/;UID=" of a path, which ends the mailbox's name.
func indexParam(path string) int {
	upper := strings.ToUpper(path)
	if i := strings.Index(upper, ";UIDVALIDITY="); i >= 0 {
		return i
	}
	if i := strings.Index(upper, "/;UID="); i >= 0 {
		return i + 1
	}
	return -1
}

// parseSection reads SECTION and PARTIAL, which are written as in FETCH.
func (u *imapURL) parseSection(section, partial string) error {
	text := "[" + section + "]"
	if partial != "" {
		offset, length, found := strings.Cut(partial, ".")
		if !found {
			length = "4294967295"
		}
		text += "<" + offset + "." + length + ">"
	}
	c := &imapCommand{in: &imapInput{line: []byte(text)}}
	b, err := c.parseSection("BODY")
	if err == nil {
		err = c.end()
	}
	if err != nil {
		return &badURL{"The section of the URL is not written well"}
	}
	u.section = b
	return nil
}
