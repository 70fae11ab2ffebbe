package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// onQueue carries out an order about what waits to be sent.
func (ad *admin) onQueue(verb string, o order) (a answer, known bool, err error) {
	q, err := ad.queue()
	if err != nil {
		return answer{}, true, err
	}
	id := o.ID
	switch verb {
	case "list":
		a.Listing = true
		a.list = func(w io.Writer) error { return writeQueue(w, q, o.JSON) }
	case "show":
		a, err = showQueued(q, id)
	case "retry":
		if a.Count = 1; id == "" {
			a.Count = q.Len()
		}
		err = q.Retry(id)
	case "oldest":
		a.Queue, a.Count = q.Oldest(o.Name, queueShown)
	case "bounce":
		a.Count = 1
		err = q.GiveUp(context.Background(), id)
	case "cancel":
		a.Count = 1
		err = q.Cancel(id)
	default:
		return answer{}, false, nil
	}
	if errors.Is(err, ErrNotQueued) {
		err = fmt.Errorf("no message %s waits; it may have been sent: see `appliance queue list`", id)
	}
	if errors.Is(err, ErrBeingTried) {
		err = fmt.Errorf("%s is being sent at this moment: try again when that is over", id)
	}
	return a, true, err
}

// queueShown is how many messages the page shows that wait.
const queueShown = 40

// showQueued gives one message that waits, with its header.
func showQueued(q *Queue, id string) (answer, error) {
	entry, err := q.Entry(id)
	if err != nil {
		return answer{}, err
	}
	message, err := q.Open(id)
	if err != nil {
		return answer{}, err
	}
	defer message.Close()
	header, err := headerOf(message)
	return answer{Queue: []QueueEntry{entry}, Header: string(header)}, err
}

// writeQueue writes what waits: in words, or as a JSON array with a message a line.
func writeQueue(w io.Writer, q *Queue, asJSON bool) error {
	out := bufio.NewWriterSize(w, 64<<10) // keeps an error for the end
	var err error
	if asJSON {
		err = writeQueueJSON(out, q)
	} else {
		writeQueueWords(out, q, time.Now())
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return fmt.Errorf("listing the queue: %w", err)
	}
	return nil
}

func writeQueueJSON(out *bufio.Writer, q *Queue) (failed error) {
	between := "[\n"
	q.Each(func(e *QueueEntry) {
		line, err := json.Marshal(e)
		if err != nil {
			failed = err
		}
		out.WriteString(between)
		out.Write(line)
		between = ",\n"
	})
	if between == "[\n" {
		out.WriteByte('[')
	}
	out.WriteString("\n]\n")
	return failed
}

func writeQueueWords(out *bufio.Writer, q *Queue, now time.Time) {
	any := false
	q.Each(func(e *QueueEntry) {
		any = true
		fmt.Fprintf(out, "%s  from %s, %s\n", e.ID, senderWords(e), roundSize(e.Size))
		for i := range e.Recipients {
			fmt.Fprintf(out, "  %s\n", recipientWords(e, &e.Recipients[i], now))
		}
	})
	if !any {
		out.WriteString("Nothing waits.\n")
	}
}
