package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

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
