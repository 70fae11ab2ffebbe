package main

// The page on which a person writes an out-of-office note. The rules that it has to keep are those of AwayNote.check.

import (
	"time"
)

func awayRoutes() []webRoute {
	return []webRoute{
		{pattern: "GET /mine/away", who: forPerson, do: (*webRequest).awayPage},
		{pattern: "POST /mine/away", who: forPerson, do: (*webRequest).setAway, again: (*webRequest).awayAgain},
		{pattern: "POST /mine/away/off", who: forPerson, do: (*webRequest).endAway, again: (*webRequest).awayPage},
	}
}

// webAway is what away.html shows.
type webAway struct {
	Note   AwayNote
	State  string // key of the text that says whether it is sent
	House  string // the zone of the house, "" where it has no name
	Zones  []string
	Length int // of the text: half of the bytes that it may have
}

func (q *webRequest) awayPage() error {
	data := webAway{}
	if q.user.Away != nil {
		data.Note = *q.user.Away
	}
	return q.showAway(data)
}

// awayAgain shows the form as it was filled in.
func (q *webRequest) awayAgain() error { return q.showAway(webAway{Note: q.awayNote()}) }

func (q *webRequest) showAway(data webAway) error {
	data.State = awayState(q.user.Away, q.Now(), q.Zone.Location())
	data.House, data.Zones, data.Length = q.zoneName(), commonZones(), maxAwayText/2
	return q.show("away", data)
}

// awayState gives the key of the text that says whether a note is sent.
func awayState(note *AwayNote, now time.Time, house *time.Location) string {
	switch {
	case note == nil:
		return "away.state_off"
	case note.Active(now, house):
		return "away.state_on"
	case note.Over(now, house):
		return "away.state_over"
	}
	return "away.state_later"
}

// awayNote is the note that was filled in.
func (q *webRequest) awayNote() AwayNote {
	return AwayNote{Subject: q.field("subject"), Text: q.field("text"), From: q.field("from"), Until: q.field("until"), Zone: q.field("zone")}
}

func (q *webRequest) setAway() error {
	note := q.awayNote()
	if key, err := note.check(); err != nil {
		return q.wrongAway(key, &note)
	}
	if _, err := q.order(order{Do: "user away set", Address: q.user.Address, Away: &note}); err != nil {
		return err
	}
	return q.done("/mine/away", "away.saved")
}

// wrongAway says what is wrong with a field of a note.
func (q *webRequest) wrongAway(key string, note *AwayNote) error {
	switch {
	case key == "text" && note.Text == "":
		return q.wrong("away.no_text")
	case key == "text":
		return q.wrong("away.bad_text", maxAwayText/2)
	case key == "subject":
		return q.wrong("away.bad_subject")
	case key == "from":
		return q.wrong("away.bad_from")
	case key == "until" && note.From != "" && note.Until < note.From:
		return q.wrong("away.bad_order")
	case key == "until":
		return q.wrong("away.bad_until")
	}
	return q.wrong("welcome.bad_zone", note.Zone)
}

func (q *webRequest) endAway() error {
	if _, err := q.order(order{Do: "user away off", Address: q.user.Address}); err != nil {
		return err
	}
	return q.done("/mine/away", "away.ended")
}
