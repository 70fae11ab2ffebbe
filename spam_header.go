package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The fields in which the filter says what it thinks of a message. Nobody else's are believed: they are taken out of what
// arrives.
const (
	spamStatusField  = "X-Spam-Status"
	spamReasonsField = "X-Spam-Reasons"
)

// isVerdictField says whether only this program may write a field of this name.
func isVerdictField(name string) bool {
	return strings.EqualFold(name, spamStatusField) || strings.EqualFold(name, spamReasonsField)
}

// forgedFields removes what only this server may write from a message that has not come by SMTP, where that is done as it comes
// in: verdicts of the filter, and Authentication-Results that claim to be of this host.
func forgedFields(m *ReceivedMail, host string) (changes []FieldChange, err error) {
	header, err := readHeader(bufio.NewReader(io.NewSectionReader(m.Message, 0, m.Size)), maxChangedHeader)
	if err != nil && !errors.Is(err, errHeaderTooLong) {
		return nil, fmt.Errorf("reading a message's header: %w", err)
	}
	number := map[string]int{}
	for _, h := range splitHeader(header) {
		results := h.Is("Authentication-Results")
		if !results && !isVerdictField(h.Name) {
			continue
		}
		name := strings.ToLower(h.Name)
		number[name]++
		if !results || claimsResults(h.Raw, host) {
			changes = append(changes, FieldChange{Name: name, Index: number[name]})
		}
	}
	return changes, nil
}
