package main

import (
	"io"
	"log/slog"

	"golang.org/x/sys/windows/svc/eventlog"
)

// isJournal is false: there is no journal here.
func isJournal(io.Writer) bool { return false }

// eventSource is the name under which Windows knows the events; installing the service registers it.
const eventSource = "appliance"

// eventNumber is that of all events: their text says what they are.
const eventNumber = 1

// systemEvents gives what reports to the Application log of Windows. Nil: it is not to be had.
func systemEvents() (report func(level, text string), done func()) {
	events, err := eventlog.Open(eventSource)
	if err != nil {
		return nil, func() {}
	}
	report = func(level, text string) { // what fails is in the file, too
		if level == slog.LevelError.String() {
			_ = events.Error(eventNumber, text)
		} else {
			_ = events.Warning(eventNumber, text)
		}
	}
	return report, func() { _ = events.Close() }
}
