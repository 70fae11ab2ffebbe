package main

import (
	"encoding/base64"
	"errors"
	"strings"
)

var (
	errBadPlain = errors.New("the response is not what PLAIN asks for")
	errProxy    = errors.New("logging in for somebody else is not allowed")
)

// decodePlain takes a response of SASL PLAIN apart: base64 of
// [authzid] NUL authcid NUL passwd (RFC 4616 §2).
func decodePlain(response string) (user, password string, err error) {
	raw, err := base64.StdEncoding.DecodeString(response)
	if err != nil {
		return "", "", errBadPlain
	}
	return splitPlain(raw)
}

func splitPlain(raw []byte) (user, password string, err error) {
	parts := strings.Split(string(raw), "\x00")
	switch {
	case len(parts) != 3 || parts[1] == "":
		return "", "", errBadPlain
	case parts[0] != "" && !strings.EqualFold(parts[0], parts[1]):
		return "", "", errProxy
	}
	return parts[1], parts[2], nil
}
