package main

import (
	"crypto/tls"
	"errors"
	"net"
)

// toldKey gives the text in front of what an order says: of trouble with a server elsewhere it says in the reader's language what to
// look at.
func toldKey(err error) string {
	var name *net.DNSError
	var certificate *tls.CertificateVerificationError
	var outside *outsideError
	var trial *trialError
	switch {
	case errors.Is(err, errNoMoveServer):
		return "error.told_find"
	case faultOf(err) == faultLogin, errors.As(err, &trial) && trial.stage == trialLogin:
		return "error.told_login"
	case errors.As(err, &name):
		return "error.told_name"
	case errors.As(err, &certificate), trial != nil && trial.stage == trialTLS:
		return "error.told_certificate"
	case errors.As(err, &outside), trial != nil:
		return "error.told_server"
	}
	return "error.told"
}
