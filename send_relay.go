package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
)

// A relay is tried before it is stored: its port and its kind of TLS are found, the login is made, and it is asked whether it
// takes our senders.

// relayTrial is how long one port has for a whole login. Two of them end before a command gives up.
const relayTrial = 12 * time.Second

// relayWay is one way in that is tried.
type relayWay struct {
	port     int
	implicit bool // TLS from the start; else STARTTLS
}

// relayWays are the ways to a port, 0 for those that are usual (RFC 8314 §3.3). A server that greets at once ends a TLS
// handshake at once, and one that waits for TLS never greets: so that is tried first where anything may be.
func relayWays(port int) []relayWay {
	switch port {
	case 0:
		return []relayWay{{465, true}, {587, false}}
	case 465:
		return []relayWay{{465, true}}
	case 25, 587, 2525:
		return []relayWay{{port, false}}
	}
	return []relayWay{{port, true}, {port, false}}
}

// How far a trial came; of several the one is told that came farthest.
const (
	trialConnect = iota
	trialSpeak   // something is there
	trialTLS     // TLS without a certificate that is right
	trialLogin
)

// trialError is why a relay cannot be used, in a sentence with what to do.
type trialError struct {
	stage int
	text  string
}

func (e *trialError) Error() string { return e.text }

// FindRelay tries to log in to a relay and gives it with its port and kind of TLS; want.Port may be 0. sender is an address
// that mail is to go out from: where the relay takes only its own user as envelope sender, and want.From is "", the relay
// that is found has it. Errors are sentences for people that tell what to do. The password goes nowhere without TLS.
func (s *Sender) FindRelay(ctx context.Context, want Relay, sender string) (*Relay, error) {
	want.Host = strings.ToLower(want.Host)
	ascii, err := asciiName(want.Host)
	if err == nil {
		_, _, err = s.Resolver.Addresses(ctx, ascii)
	}
	switch {
	case err != nil && (ascii == "" || isNotFound(err)):
		return nil, &trialError{trialConnect, fmt.Sprintf("there is no server %s: check how the provider writes its name", want.Host)}
	case err != nil:
		return nil, &trialError{trialConnect, fmt.Sprintf("the DNS does not tell the address of %s: check whether this machine has a connection to the internet, then try again", want.Host)}
	}
	var farthest *trialError
	var ports []string
	for _, way := range relayWays(want.Port) {
		relay := want
		relay.Host, relay.Port, relay.Implicit = ascii, way.port, way.implicit
		found, why := s.tryRelay(ctx, relay, sender)
		if why == nil {
			return found, nil
		}
		if port := fmt.Sprint(way.port); !strings.Contains(strings.Join(ports, " "), port) {
			ports = append(ports, port)
		}
		if farthest == nil || why.stage > farthest.stage {
			farthest = why
		}
		if why.stage == trialLogin { // more tries of a wrong password would only lock it
			break
		}
	}
	if farthest.stage == trialConnect {
		return nil, &trialError{trialConnect, fmt.Sprintf("nobody answers at %s on port %s (%s): check the name and the port; if they are right, a firewall between here and there keeps the port closed",
			want.Host, strings.Join(ports, " or "), farthest.text)}
	}
	return nil, farthest
}

// tryRelay tries one way.
func (s *Sender) tryRelay(ctx context.Context, relay Relay, sender string) (*Relay, *trialError) {
	ctx, cancel := context.WithTimeout(ctx, relayTrial)
	defer cancel()
	r := &route{destination: relay.key(), relay: &relay}
	host := &sendHost{name: relay.Host}
	addrs, why := s.addresses(ctx, r, host)
	if why != nil {
		return nil, &trialError{trialConnect, why.Text}
	}
	demand, _ := s.demandFor(ctx, r, host, uint16(relay.Port)) // a relay's needs no DNS
	var failed *trialError
	for _, addr := range addrs[:min(len(addrs), sendAddrs)] {
		c, err := s.open(ctx, r, relay.Host, addr, demand, true)
		if err == nil {
			defer c.quit()
			return c.askSender(relay, sender)
		}
		if why := trialWords(&relay, err); failed == nil || why.stage > failed.stage {
			failed = why
		}
		if failed.stage != trialConnect {
			break
		}
	}
	return nil, failed
}

// trialWords says why a relay did not let us in.
func trialWords(relay *Relay, err error) *trialError {
	at := fmt.Sprintf("%s on port %d", relay.Host, relay.Port)
	words := strings.TrimSuffix(netWords(err), ".")
	words = strings.ToLower(words[:1]) + words[1:]
	var login *loginError
	var reply *smtp.SMTPError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, errNoLogin):
		return &trialError{trialLogin, at + " offers no login by user and password: take the server and port that the provider names for outgoing mail (SMTP)"}
	case errors.As(err, &login):
		return &trialError{trialLogin, fmt.Sprintf("%s does not take this user and password (it says: %d %s): some providers want the whole address as the user, or a password that their web site makes for mail programs",
			at, login.reply.Code, foreignWords(login.reply.Message, 400))}
	case errors.Is(err, errNoTLS):
		return &trialError{trialSpeak, at + " offers no TLS, and a password is not sent without: take the port that the provider names for TLS, mostly 465 or 587"}
	case errors.As(err, &certificate):
		return &trialError{trialTLS, fmt.Sprintf("the certificate of %s is not right (%s): check the name of the server and the clock of this machine", at, words)}
	case errors.Is(err, errHandshake):
		return &trialError{trialSpeak, fmt.Sprintf("TLS with %s fails (%s): take the port that the provider names for outgoing mail, mostly 465 or 587", at, words)}
	case errors.As(err, &reply):
		return &trialError{trialSpeak, fmt.Sprintf("%s does not want to talk to us (it says: %d %s): try again later, or ask the provider", at, reply.Code, foreignWords(reply.Message, 400))}
	}
	return &trialError{trialConnect, words}
}

// askSender asks a relay that has let us in whether it takes a sender, and else whether it takes its user as one.
func (c *sendConn) askSender(relay Relay, sender string) (*Relay, *trialError) {
	first := relay.From
	if first == "" {
		first = sender
	}
	refused := c.tryMail(first)
	if refused == nil {
		return &relay, nil
	}
	if _, err := ParseAddress(relay.User); err == nil && relay.From == "" && c.tryMail(relay.User) == nil {
		relay.From = relay.User
		return &relay, nil
	}
	return nil, &trialError{trialLogin, fmt.Sprintf("the login works, but %s takes no mail from %s (it says: %d %s): give the address that the provider knows you by with --from",
		relay.Host, first, refused.Code, foreignWords(refused.Message, 400))}
}

// tryMail begins a transaction and leaves it again. Only a refusal for good counts.
func (c *sendConn) tryMail(from string) (refused *smtp.SMTPError) {
	err := c.client.Mail(wireAddress(from, false), nil)
	if !errors.As(err, &refused) || refused.Code < 500 {
		refused = nil
	}
	c.reset()
	return refused
}
