package main

import (
	"net/url"
	"slices"
)

// The mail that waits for other servers.

func healthQueueRoutes() []webRoute {
	queue := (*webRequest).queuePage
	return []webRoute{
		{pattern: "GET /health/queue", who: forOwner, do: queue},
		{pattern: "POST /health/queue/retry", who: forOwner, do: (*webRequest).retryQueued, again: queue},
		{pattern: "GET /health/queue/{id}/bounce", who: forOwner, do: (*webRequest).bouncePage},
		{pattern: "POST /health/queue/{id}/bounce", who: forOwner, do: (*webRequest).bounceQueued, again: queue},
	}
}

// webQueue is what queue.html shows.
type webQueue struct {
	Entries []QueueEntry
	All     int // that there are
}

// queued gives the messages that wait and have a text in their ID or addresses.
func (q *webRequest) queued(text string) (webQueue, error) {
	a, err := q.order(order{Do: "queue oldest", Name: text})
	if err != nil {
		return webQueue{}, err
	}
	for i := range a.Queue {
		for n := range a.Queue[i].Recipients {
			r := &a.Queue[i].Recipients[n]
			r.Reason = foreignWords(r.Reason, diaryReason)
		}
	}
	return webQueue{a.Queue, a.Count}, nil
}

func (q *webRequest) queuePage() error {
	data, err := q.queued(q.search())
	if err != nil {
		return err
	}
	return q.show("queue", data)
}

// retryQueued has one message tried now, or all.
func (q *webRequest) retryQueued() error {
	id := q.field("id")
	if _, err := q.order(order{Do: "queue retry", ID: id}); mistakeOf(err) != nil {
		return q.done("/health/queue", "queue.gone")
	} else if err != nil {
		return err
	}
	if id == "" {
		return q.done("/health/queue", "queue.retried_all")
	}
	q.note("message", id)
	return q.done("/health/queue", "queue.retried", id)
}

// bouncePage asks once more before a message is given up.
func (q *webRequest) bouncePage() error {
	id := q.r.PathValue("id")
	data, err := q.queued(id)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(data.Entries, func(e QueueEntry) bool { return e.ID == id })
	if i < 0 {
		return errWebMissing
	}
	return q.show("bounce", data.Entries[i])
}

func (q *webRequest) bounceQueued() error {
	id := q.r.PathValue("id")
	if _, err := q.order(order{Do: "queue bounce", ID: id}); err != nil {
		return err
	}
	q.note("message", id)
	return q.done("/health/queue", "queue.bounced", id)
}

// BouncePath is where a message can be given up.
func (v *webView) BouncePath(id string) string {
	return "/health/queue/" + url.PathEscape(id) + "/bounce"
}
