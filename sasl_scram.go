package main

// SCRAM-SHA-256 and SCRAM-SHA-256-PLUS: RFC 5802, RFC 7677. The messages are the library's affair; what is here
// chooses the credentials and the channel binding that it is to compare.

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/xdg-go/scram"
)

// saslScramExchange is the state of one exchange by SCRAM.
type saslScramExchange struct {
	*saslExchange
	nonce   string // the server's part
	binding scram.ChannelBinding
	user    string // as the client names itself
	authz   string // the user to act as, "" for none
	opening string // the client's first message
	proven  Identity
}

func newSASLScram(x *saslExchange) *saslScramExchange {
	return &saslScramExchange{saslExchange: x, nonce: rand.Text()} // 130 random bits
}

// first takes the client's first message and answers with the salt.
func (s *saslScramExchange) first(response []byte) ([]byte, error) {
	if response == nil {
		return nil, nil
	}
	s.opening = string(response)
	var err error
	if s.binding, err = s.chooseBinding(); err != nil {
		return nil, err
	}
	conversation, reply, err := s.talk(func(user string) scram.StoredCredentials {
		s.user = user
		return s.c.env.accounts.SCRAMCredentials(user)[0].Keys
	}, s.opening)
	switch {
	case conversation == nil:
		return nil, err
	case err != nil:
		return nil, &saslError{saslMalformed, "The response is not a first message of SCRAM"}
	}
	s.authz, s.next = conversation.AuthzID(), s.final
	return []byte(reply), nil
}

// chooseBinding finds the channel binding that the GS2 header (RFC 5802 §7) asks for. A conversation of the library
// knows one type alone, so it has to be known before it begins.
func (s *saslScramExchange) chooseBinding() (scram.ChannelBinding, error) {
	flag, _, _ := strings.Cut(s.opening, ",")
	kind, bound := strings.CutPrefix(flag, "p=")
	var none scram.ChannelBinding
	switch {
	case s.mechanism == saslScramPlus && !bound:
		return none, &saslError{saslUnbound, "SCRAM-SHA-256-PLUS needs a channel binding"}
	case s.mechanism != saslScramPlus && bound:
		return none, &saslError{saslUnbound, "A channel binding needs SCRAM-SHA-256-PLUS"}
	case flag == "y" && s.c.TLS() != nil:
		// RFC 5802 §6: the client would have used PLUS. Somebody has taken it from our list.
		return none, s.refuse("", saslUnbound, "SCRAM-SHA-256-PLUS is offered here, and the client did not hear of it")
	case !bound:
		return none, nil
	}
	binding, err := s.c.ChannelBinding(kind)
	if errors.Is(err, errNoBinding) {
		return none, &saslError{saslUnbound, "This connection has no channel binding of this type"}
	}
	return binding, err
}

// talk plays messages of the client to a fresh conversation that knows one credential, and gives the last reply. Without
// a conversation the error is the appliance's own.
func (s *saslScramExchange) talk(lookup func(user string) scram.StoredCredentials, messages ...string) (
	*scram.ServerConversation, string, error,
) {
	server, err := scram.SHA256.NewServer(func(user string) (scram.StoredCredentials, error) { return lookup(user), nil })
	if err != nil {
		return nil, "", fmt.Errorf("beginning SCRAM: %w", err)
	}
	server.WithNonceGenerator(func() string { return s.nonce })
	conversation := server.NewConversation()
	if s.binding.IsSupported() {
		conversation = server.NewConversationWithChannelBindingRequired(s.binding)
	}
	reply := ""
	for _, message := range messages {
		if reply, err = conversation.Step(message); err != nil {
			break
		}
	}
	return conversation, reply, err
}

// final takes the client's proof. What is right is answered with the server's own proof, and the client may still
// say that it does not believe it.
func (s *saslScramExchange) final(response []byte) (challenge []byte, err error) {
	message := string(response)
	// The proof is the guess: a wrong password cannot be recognised when it comes again, since each proof is another one.
	s.proven, err = s.c.tryLogin(s.ctx, s.protocol, s.user, message, func() (id Identity, err error) {
		challenge, id, err = s.check(message)
		return id, err
	})
	if errors.Is(err, ErrBadLogin) && s.c.env.accounts.LacksSCRAMKeys(s.user) {
		s.c.Log.Info("no SCRAM yet for a password of this account: its first login by PLAIN or LOGIN prepares it", "user", clip(s.user, 100))
	}
	if err == nil {
		err = s.authorize(s.authz, s.user, s.proven)
	}
	if err != nil {
		return nil, err
	}
	s.next = s.confirmed
	return challenge, nil
}

// check looks for the one of a person's passwords that the proof fits. They are asked for again, since one may have
// been revoked or changed after the first message; with another salt no proof fits.
func (s *saslScramExchange) check(message string) ([]byte, Identity, error) {
	for _, credential := range s.c.env.accounts.SCRAMCredentials(s.user) {
		conversation, reply, err := s.talk(func(string) scram.StoredCredentials { return credential.Keys }, s.opening, message)
		switch {
		case conversation == nil:
			return nil, Identity{}, err
		case conversation.Valid() && credential.Account != "":
			return []byte(reply), credential.Identity, nil
		case reply == scram.ErrChannelBindingsDontMatch:
			return nil, Identity{}, s.refuse(s.user, saslUnbound,
				"The channel binding is that of another connection: somebody may be in between")
		case err != nil && reply == "":
			return nil, Identity{}, &saslError{saslMalformed, "The response is not a final message of SCRAM"}
		}
	}
	return nil, Identity{}, ErrBadLogin
}

// confirmed takes the empty response to the server's proof: the client has checked it.
func (s *saslScramExchange) confirmed(response []byte) ([]byte, error) {
	if len(response) > 0 {
		return nil, &saslError{saslMalformed, "Nothing may follow the proof of SCRAM"}
	}
	s.finish(s.proven)
	return nil, nil
}
