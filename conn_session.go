package main

import (
	"net/netip"
	"strings"
	"time"
)

// MailSession is one connection in which somebody is logged in.
type MailSession struct {
	ID string `json:"id"` // ends it; unique as long as the appliance runs
	Identity
	Protocol string     `json:"protocol"`
	Client   string     `json:"client,omitempty"` // what it calls itself (ID of IMAP, User-Agent of a browser)
	Remote   netip.Addr `json:"remote"`
	TLS      bool       `json:"tls"`
	Since    time.Time  `json:"since"`             // of the login
	Command  string     `json:"command,omitempty"` // the last one, without its arguments
	Active   time.Time  `json:"active"`            // when that began
}

// maxClientName is how many bytes are kept of what a program calls itself.
const maxClientName = 100

// sessionCommand is what a session does, or has done last.
type sessionCommand struct {
	name string
	at   time.Time
}

// Begins notes the command that a session begins; name is one of ours, in upper case.
func (c *Conn) Begins(name string) {
	if c.who.Load() != nil {
		c.doing.Store(&sessionCommand{name, time.Now()})
	}
}

// CallsItself notes what a program says of itself. It is shown to people.
func (c *Conn) CallsItself(name string) {
	name = clip(strings.Join(strings.Fields(tameWords(name)), " "), maxClientName)
	c.client.Store(&name)
}

// Session describes who is logged in, nil for nobody. It may be called while the session goes on.
func (c *Conn) Session() *MailSession {
	who := c.who.Load()
	if who == nil {
		return nil
	}
	s := *who
	s.ID, s.Active = c.ID, s.Since
	if client := c.client.Load(); client != nil {
		s.Client = *client
	}
	if doing := c.doing.Load(); doing != nil && !doing.at.Before(s.Since) {
		s.Command, s.Active = doing.name, doing.at
	}
	return &s
}
