package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// AwayNote is what a person has answered to those who write while they are away. Whoever writes gets it once a week at most.
type AwayNote struct {
	Subject string `toml:"subject,omitempty" json:"subject,omitempty"` // behind "Auto: "; "": the subject of the message that is answered
	Text    string `toml:"text" json:"text"`                           // line ends are \n
	From    string `toml:"from,omitempty" json:"from,omitempty"`       // the first day, such as 2026-12-24; "": at once
	Until   string `toml:"until,omitempty" json:"until,omitempty"`     // the last day; "": until it is switched off
	Zone    string `toml:"zone,omitempty" json:"zone,omitempty"`       // in which the days begin and end; "": that of the house
}

const (
	maxAwayText    = 4000 // bytes: accounts.toml holds the notes of all
	maxAwaySubject = 200  // bytes
)

// check brings a note into its normal form and gives the first field that is wrong, with a sentence.
func (n *AwayNote) check() (key string, err error) {
	n.Subject = strings.TrimSpace(n.Subject)
	n.Text = strings.TrimSpace(strings.ReplaceAll(n.Text, "\r\n", "\n"))
	odd := func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }
	switch {
	case n.Text == "":
		return "text", errors.New("an out-of-office note needs a text")
	case len(n.Text) > maxAwayText:
		return "text", fmt.Errorf("the text has %d bytes, and %d is the most", len(n.Text), maxAwayText)
	case !utf8.ValidString(n.Text) || strings.ContainsFunc(n.Text, odd):
		return "text", errors.New("the text is no plain text in UTF-8")
	case len(n.Subject) > maxAwaySubject:
		return "subject", fmt.Errorf("the subject has %d bytes, and %d is the most", len(n.Subject), maxAwaySubject)
	case !utf8.ValidString(n.Subject) || strings.ContainsFunc(n.Subject, unicode.IsControl):
		return "subject", errors.New("the subject is one line")
	}
	for _, day := range []struct {
		key  string
		text *string
	}{{"from", &n.From}, {"until", &n.Until}} {
		if *day.text = strings.TrimSpace(*day.text); *day.text == "" {
			continue
		}
		if _, err := time.Parse(time.DateOnly, *day.text); err != nil {
			return day.key, fmt.Errorf("%q is no day: write it as 2026-12-24", *day.text)
		}
	}
	if n.From != "" && n.Until != "" && n.Until < n.From {
		return "until", fmt.Errorf("the last day, %s, is before the first, %s", n.Until, n.From)
	}
	if n.Zone != "" {
		if err := checkZone(n.Zone); err != nil {
			return "zone", err
		}
	}
	return "", nil
}

// today gives the day that it is for whoever has written the note.
func (n *AwayNote) today(now time.Time, house *time.Location) string {
	if zone, err := loadZone(n.Zone); err == nil && n.Zone != "" {
		house = zone
	}
	return now.In(house).Format(time.DateOnly)
}

// Active says whether a note is sent at a time. The days are those of its zone, else of the house.
func (n *AwayNote) Active(now time.Time, house *time.Location) bool {
	today := n.today(now, house)
	return (n.From == "" || n.From <= today) && !n.Over(now, house)
}

// Over says that the last day of a note has gone by.
func (n *AwayNote) Over(now time.Time, house *time.Location) bool {
	return n.Until != "" && n.Until < n.today(now, house)
}

// words says when a note is sent.
func (n *AwayNote) words() string {
	text := "out-of-office note"
	if n.From != "" {
		text += " from " + n.From
	}
	if n.Until != "" {
		text += " until " + n.Until
	}
	return text
}

// write writes a note as accounts.toml has it.
func (n *AwayNote) write(out *strings.Builder) {
	out.WriteString("\n  [user.away]\n")
	for _, field := range []struct{ key, value string }{{"subject", n.Subject}, {"text", n.Text}, {"from", n.From}, {"until", n.Until}, {"zone", n.Zone}} {
		if field.value != "" {
			writeField(out, "  ", field.key, field.value)
		}
	}
}

// checkAway brings the person's note into its normal form. The error names the field.
func (u *User) checkAway(i int) *accountsMistake {
	if u.Away == nil {
		return nil
	}
	if key, err := u.Away.check(); err != nil {
		return &accountsMistake{tomlPlace{"user", i, "away", 0, key}, err}
	}
	return nil
}

// SetAway gives a person an out-of-office note, or with nil none. The error is a sentence that says what is wrong with it.
func (a *Accounts) SetAway(address string, note *AwayNote) (User, error) {
	var after User
	err := a.edit(address, func(u *User) error {
		u.Away = nil
		if note != nil {
			own := *note
			if _, err := own.check(); err != nil {
				return err
			}
			u.Away = &own
		}
		after = *u
		return nil
	})
	return after, err
}

// Away gives a person's note, nil for none.
func (a *Accounts) Away(account string) *AwayNote {
	u := a.current().byUser[account]
	if u == nil {
		return nil
	}
	return u.Away
}

// Alone says whether mail to an address reaches this account and nobody else.
func (a *Accounts) Alone(account string, to Address) bool {
	reached, err := a.Resolve(to)
	return err == nil && len(reached) == 1 && reached[0] == account
}

// Name is what a person is called, "" where that is not known.
func (a *Accounts) Name(account string) string {
	u := a.current().byUser[account]
	if u == nil {
		return ""
	}
	return u.Name
}
