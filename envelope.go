package main

import (
	"slices"
	"strings"
)

// Envelope is what SMTP says of a message besides its text (RFC 5321 §2.3.1), as it is kept for one that waits to be sent.
type Envelope struct {
	ID         string      `json:"-"`                 // names it in Received and in the queue; "": the queue chooses
	From       string      `json:"from"`              // reverse-path without brackets, "" for the null one
	Account    string      `json:"account,omitempty"` // who has submitted it, "" for the appliance itself
	Recipients []Recipient `json:"recipients"`
	EnvelopeID string      `json:"envid,omitempty"` // ENVID, decoded (RFC 3461 §4.4)
	Return     string      `json:"ret,omitempty"`   // RET: "FULL", "HDRS" or ""
	UTF8       bool        `json:"utf8,omitempty"`  // SMTPUTF8: the next server must know it, too (RFC 6531 §3.1)
	EightBit   bool        `json:"eightbit,omitempty"`
	RequireTLS bool        `json:"requiretls,omitempty"` // RFC 8689

	Forward string `json:"forward,omitempty"` // the account here whose mail goes on; it is told what becomes of it
	Moved   bool   `json:"moved,omitempty"`   // no copy of that stays here
}

// Recipient is one forward-path of an envelope.
type Recipient struct {
	Address  string    `json:"address"`          // LOCAL@DOMAIN, the domain in lower case and not as xn--
	Original string    `json:"orcpt,omitempty"`  // ORCPT as "type;address", decoded (RFC 3461 §4.2); "" without one
	Notify   NotifySet `json:"notify,omitempty"` // NOTIFY; 0 without one: failures and delays are told
}

// queueAddress gives an address as a Recipient has it.
func queueAddress(a Address) string {
	a.Domain = normalDomain(a.Domain)
	return a.String()
}

// ReportTo gives who is told what becomes of the message; "" for nobody.
func (e *Envelope) ReportTo() string {
	if e.Forward != "" {
		return e.Forward
	}
	return e.From
}

// addresses lists the recipients, for the log.
func (e *Envelope) addresses() string {
	list := make([]string, len(e.Recipients))
	for i := range e.Recipients {
		list[i] = e.Recipients[i].Address
	}
	return strings.Join(list, " ")
}

// NotifySet is when a sender wants to be told of a recipient (RFC 3461 §4.1).
type NotifySet uint8

const (
	NotifyNever NotifySet = 1 << iota // excludes the others
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// Wants says whether a report of the kind is wanted. Without NOTIFY failures and delays are.
func (n NotifySet) Wants(kind NotifySet) bool {
	if n == 0 {
		return kind != NotifySuccess
	}
	return n&kind != 0
}

// Domain gives the domain of a recipient, the part that is asked for in the DNS.
func (r *Recipient) Domain() string {
	_, domain, _ := cutLast(r.Address, '@')
	return strings.ToLower(domain)
}

// Domains gives the domains of the recipients, each once, in their order.
func (e *Envelope) Domains() []string {
	var domains []string
	for i := range e.Recipients {
		if d := e.Recipients[i].Domain(); !slices.Contains(domains, d) {
			domains = append(domains, d)
		}
	}
	return domains
}

// returnPath is the field that tells the reverse-path (RFC 5321 §4.4).
func returnPath(from string) string { return "Return-Path: <" + from + ">\r\n" }
