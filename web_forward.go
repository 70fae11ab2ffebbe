package main

import (
	"slices"
	"strings"
)

// The page on which a person lets mail go on to addresses elsewhere.

func forwardRoutes() []webRoute {
	return []webRoute{
		{pattern: "GET /mine/forward", who: forPerson, do: (*webRequest).forwardPage},
		{pattern: "POST /mine/forward", who: forPerson, do: (*webRequest).setForward, again: (*webRequest).forwardAgain},
		{pattern: "POST /mine/forward/off", who: forPerson, do: (*webRequest).endForward, again: (*webRequest).forwardPage},
	}
}

// webForward is what forward.html shows.
type webForward struct {
	To   string // as filled in: an address a line
	Copy bool
	Most int
}

func (q *webRequest) forwardPage() error {
	return q.show("forward", webForward{strings.Join(q.user.Forward, "\n"), !q.user.ForwardOnly, maxForwards})
}

// forwardAgain shows the form as it was filled in.
func (q *webRequest) forwardAgain() error {
	return q.show("forward", webForward{q.field("to"), q.field("copy") != "", maxForwards})
}

func (q *webRequest) setForward() error {
	to := strings.FieldsFunc(q.field("to"), func(r rune) bool { return strings.ContainsRune(" \t\r\n,;", r) })
	switch {
	case len(to) == 0:
		return q.wrong("forward.nobody")
	case len(to) > maxForwards:
		return q.wrong("forward.many", maxForwards)
	}
	for i, text := range to {
		address, err := outsideAddress(text)
		switch {
		case err != nil:
			return q.wrong("forward.bad", text)
		case q.Accounts.IsLocalDomain(domainOf(address)):
			return q.wrong("forward.local", address)
		case slices.Contains(to[:i], address):
			return q.wrong("forward.twice", address)
		}
		to[i] = address
	}
	if _, err := q.order(order{Do: "user forward set", Address: q.user.Address, To: to, NoCopy: q.field("copy") == ""}); err != nil {
		return err
	}
	q.note("to", strings.Join(to, " "), "copy", q.field("copy") != "")
	return q.done("/mine/forward", "forward.saved")
}

func (q *webRequest) endForward() error {
	if _, err := q.order(order{Do: "user forward off", Address: q.user.Address}); err != nil {
		return err
	}
	return q.done("/mine/forward", "forward.ended")
}
