package main

import (
	"io"
	"net/netip"
)

// ReceivedMail is a message that is complete and not yet delivered.
type ReceivedMail struct {
	ID       string
	Remote   netip.Addr
	Helo     string
	Account  string // who has logged in to send it, "" on port 25
	From     string // reverse-path, "" for the null one
	Rcpts    []Address
	Accounts []string // that it will reach
	TLS      bool
	Message  io.ReaderAt // with the trace fields in front
	Size     int64
}

// Verdict is what shall become of a message. The zero value delivers it to the
// INBOX.
type Verdict struct {
	Refuse string // the sentence with which it is refused, "" takes it
	Detail int    // last part of the refusal's enhanced code X.7.N (RFC 3463 §3.8, RFC 7372), 0: 1
	Later  bool   // refuse for now: the sender tries again
	Folder string // where it is delivered, "" for the INBOX
	Fields string // header fields to put in front, each with its CRLF
}
