package main

// The server's side of SASL, RFC 4422, for IMAP, POP3 and submission: PLAIN (RFC 4616), LOGIN (which has no RFC beyond
// draft-murchison-sasl-login), SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (sasl_scram.go). EXTERNAL is not there: no client
// here has a certificate.

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
)

// The names of the mechanisms.
const (
	saslPlain     = "PLAIN"
	saslLogin     = "LOGIN"
	saslScram     = "SCRAM-SHA-256"
	saslScramPlus = "SCRAM-SHA-256-PLUS"
)

// saslMaxResponse is the octets of one response of a client, decoded: a password of 1,024 and two names fit.
const saslMaxResponse = 4 << 10

// saslFault is a kind of fault in an exchange, for which the protocols have different replies.
type saslFault int

const (
	saslUnoffered    saslFault = iota // no such mechanism, or not now
	saslCancelled                     // the client has sent "*"
	saslMalformed                     // the response is not what the mechanism asks for
	saslUnbound                       // SCRAM without the channel binding that is due, or with a wrong one
	saslUnauthorized                  // the password is right, and is not one of the user to act as
)

// saslError ends an exchange for another reason than a wrong password. The text is one sentence for the client, without
// a full stop.
type saslError struct {
	fault saslFault
	text  string
}

func (e *saslError) Error() string { return e.text }

// SASLMechanisms lists what a client may log in with now, none where no password may be sent.
//
// SCRAM does not send the password, and yet needs what MayLogin asks for, as all do: who listens on the line could try
// passwords on the proof, at home and with nobody to count, and would read the mail that follows. SCRAM-SHA-256-PLUS is
// there under TLS alone, for it binds a login to TLS.
func (c *Conn) SASLMechanisms() []string {
	switch {
	case !c.MayLogin():
		return nil
	case c.TLS() == nil:
		return []string{saslPlain, saslLogin, saslScram}
	}
	return []string{saslPlain, saslLogin, saslScram, saslScramPlus}
}

// saslExchange is the server's side of one exchange. It begins with newSASL and a nil response.
type saslExchange struct {
	ctx       context.Context
	c         *Conn
	protocol  string // for the log
	mechanism string

	// next takes the client's response and gives the next challenge. It sets itself to what comes after, and done.
	next func(response []byte) (challenge []byte, err error)
	done bool
	id   Identity // who has logged in, when done
}

// newSASL begins an exchange of a mechanism, in any case of letters. The caller has seen to MayLogin.
func (c *Conn) newSASL(ctx context.Context, protocol, mechanism string) (*saslExchange, error) {
	x := &saslExchange{ctx: ctx, c: c, protocol: protocol, mechanism: strings.ToUpper(mechanism)}
	offered := c.SASLMechanisms()
	if !slices.Contains(offered, x.mechanism) {
		return nil, &saslError{saslUnoffered, "This mechanism is not offered, only " + strings.Join(offered, ", ")}
	}
	switch x.mechanism {
	case saslPlain:
		x.next = x.plain
	case saslLogin:
		x.next = x.loginUser
	default:
		x.next = newSASLScram(x).first
	}
	return x, nil
}

// Next is the server's step of an exchange: it takes a response, nil for none at the beginning, and gives a challenge,
// or says that the client has logged in. Errors are *saslError, ErrBadLogin, ErrThrottled or the appliance's own; the
// exchange is over then.
func (x *saslExchange) Next(response []byte) (challenge []byte, done bool, err error) {
	if len(response) > saslMaxResponse {
		return nil, false, &saslError{saslMalformed, "The response is too long"}
	}
	if challenge, err = x.next(response); err != nil {
		x.next = func([]byte) ([]byte, error) { return nil, errSASLOver }
	}
	return challenge, x.done, err
}

// errSASLOver says that a step was asked of an exchange that has failed.
var errSASLOver = errors.New("the exchange is over")

// converse speaks an exchange to its end, and gives who has logged in. ask sends a challenge, in base64, and gives the
// line that answers it. initial is the initial response in base64, "" for none.
func (x *saslExchange) converse(initial string, ask func(challenge string) (string, error)) (Identity, error) {
	var response []byte
	var err error
	if initial != "" {
		if response, err = decodeSASL(initial); err != nil {
			return Identity{}, err
		}
	}
	for {
		challenge, done, err := x.Next(response)
		if err != nil || done {
			return x.id, err
		}
		line, err := ask(base64.StdEncoding.EncodeToString(challenge))
		if err != nil {
			return Identity{}, err
		}
		if response, err = decodeSASL(line); err != nil {
			return Identity{}, err
		}
	}
}

// decodeSASL reads a response, which is never nil: "*" cancels (RFC 9051 §6.2.2, RFC 5034 §4), "=" is an empty one
// (RFC 4959 §3).
func decodeSASL(line string) ([]byte, error) {
	switch line {
	case "*":
		return nil, &saslError{saslCancelled, "The login was cancelled"}
	case "=", "":
		return []byte{}, nil
	}
	response, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		return nil, &saslError{saslMalformed, "The response is not base64"}
	}
	return response, nil
}

// plain takes the response of PLAIN: [authzid] NUL authcid NUL passwd (RFC 4616 §2).
func (x *saslExchange) plain(response []byte) ([]byte, error) {
	if response == nil {
		return nil, nil
	}
	parts := strings.Split(string(response), "\x00")
	if len(parts) != 3 || parts[1] == "" {
		return nil, &saslError{saslMalformed, "The response is not one of PLAIN: NUL user NUL password"}
	}
	return nil, x.password(parts[0], parts[1], parts[2])
}

// loginUser takes the name, which some clients send at once.
func (x *saslExchange) loginUser(response []byte) ([]byte, error) {
	if response == nil {
		return []byte("Username:"), nil
	}
	x.next = func(password []byte) ([]byte, error) { return nil, x.password("", string(response), string(password)) }
	return []byte("Password:"), nil
}

// password checks a password, and ends the exchange when it is right. authz is the user to act as, "" for none.
func (x *saslExchange) password(authz, user, password string) error {
	id, err := x.c.tryLogin(x.ctx, x.protocol, user, password, func() (Identity, error) {
		return x.c.env.accounts.Login(x.ctx, user, password)
	})
	if err == nil {
		err = x.authorize(authz, user, id)
	}
	if err == nil {
		x.finish(id)
	}
	return err
}

// authorize refuses to let somebody act as anybody else. It is asked about those alone who have proved who they
// are: before, the answer would tell whose account a name is.
func (x *saslExchange) authorize(authz, user string, id Identity) error {
	if authz == "" || strings.EqualFold(authz, user) || x.c.env.accounts.Means(authz, id.Account) {
		return nil
	}
	return x.refuse(user, saslUnauthorized, "One cannot act as somebody else here")
}

// refuse logs and makes an error that is no fault of the client's software.
func (x *saslExchange) refuse(user string, fault saslFault, text string) error {
	err := &saslError{fault, text}
	x.c.rejectLogin(x.protocol, user, err)
	return err
}

func (x *saslExchange) finish(id Identity) {
	x.id, x.done = id, true
	x.c.loggedIn(x.protocol, x.mechanism, id)
}
