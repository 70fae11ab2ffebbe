package main

import (
	"errors"
	"fmt"
)

// onQueue carries out an order about what waits to be sent.
func (ad *admin) onQueue(verb, id string) (a answer, known bool, err error) {
	q, err := ad.queue()
	if err != nil {
		return answer{}, true, err
	}
	switch verb {
	case "list":
		a.Queue = q.List()
	case "show":
		a, err = showQueued(q, id)
	case "retry":
		if a.Count = 1; id == "" {
			a.Count = q.Len()
		}
		err = q.Retry(id)
	case "cancel":
		a.Count = 1
		err = q.Cancel(id)
	default:
		return answer{}, false, nil
	}
	if errors.Is(err, ErrNotQueued) {
		err = fmt.Errorf("no message %s waits; it may have been sent: see `appliance queue list`", id)
	}
	return a, true, err
}

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
