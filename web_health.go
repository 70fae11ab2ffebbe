package main

import (
	"slices"
	"time"
)

// How the server is, as the owner sees it: how much mail there is, the machine, the filter and the log. web_health_mail.go tells
// what has become of mail, web_health_queue.go what waits.

const (
	healthDays   = 30  // of the charts
	webMaxSearch = 200 // octets of what is searched for
	healthLines  = 200 // of the log, at most
	healthLine   = 300 // octets of one of them
)

func healthRoutes() []webRoute {
	return slices.Concat([]webRoute{
		{pattern: "GET /health", who: forOwner, do: (*webRequest).health},
		{pattern: "GET /health/log", who: forOwner, do: (*webRequest).healthLog},
	}, healthMailRoutes(), healthQueueRoutes())
}

// healthOrders are the orders that these pages give.
func healthOrders() []string {
	return []string{"status", "spam status", "queue oldest", "queue retry", "queue bounce", "metrics token", "metrics remove"}
}

// webHealth is what health.html shows.
type webHealth struct {
	Status *ServerStatus
	Spam   *SpamStatus
	Days   []DayCount // those on which there was something, the last first
	Mail   webChart
	Junk   webChart
	People []webPerson
	Used   int64 // octets of all of them
	Share  int   // of the disk that is in use, in percent
	Full   bool
}

func (q *webRequest) health() error {
	a, err := q.order(order{Do: "status"})
	if err != nil {
		return err
	}
	spam, err := q.order(order{Do: "spam status"})
	if err != nil {
		return err
	}
	data := webHealth{Status: a.Status, Spam: spam.Spam}
	if data.People, data.Used, err = q.storage(); err != nil {
		return err
	}
	data.Share = share(a.Status.DiskAll-a.Status.DiskFree, a.Status.DiskAll)
	data.Full = data.Share >= nearlyFull
	days := q.Diary.Days(healthDays)
	data.Mail, data.Junk = q.mailChart(days), q.junkChart(days)
	slices.Reverse(days)
	data.Days = slices.DeleteFunc(days, func(c DayCount) bool { return c.In+c.Out+c.Refused+c.Bounced == 0 })
	return q.show("health", data)
}

// storage gives the people with what they keep, who has most first, and how much that is.
func (q *webRequest) storage() (people []webPerson, used int64, err error) {
	users := q.Accounts.Users()
	for i := range users {
		p, err := q.person(&users[i])
		if err != nil {
			return nil, 0, err
		}
		used += p.Used
		people = append(people, p)
	}
	slices.SortStableFunc(people, func(a, b webPerson) int { return int(max(-1, min(1, b.Used-a.Used))) })
	for i := range people {
		if p := &people[i]; p.Limit == 0 {
			p.Share = share(p.Used, people[0].Used)
		}
	}
	return people, used, nil
}

// mailChart draws how much mail came and went each day.
func (q *webRequest) mailChart(days []DayCount) webChart {
	in, out := webSeries{Class: "in", Values: make([]int, len(days))}, webSeries{Class: "out", Values: make([]int, len(days))}
	received, sent, most := 0, 0, 0
	for i, c := range days {
		in.Values[i], out.Values[i] = c.In, c.Out
		received, sent = received+c.In, sent+c.Out
		if c.In+c.Out > days[most].In+days[most].Out {
			most = i
		}
	}
	c := newChart(10, in, out)
	c.Label = q.words.text("health.mail_label", received, sent, len(days), q.words.day(days[most].Day))
	return q.dated(c, days)
}

// junkChart draws how much of the mail that came was unwanted, in percent.
func (q *webRequest) junkChart(days []DayCount) webChart {
	part := webSeries{Class: "junk", Values: make([]int, len(days))}
	received, junk := 0, 0
	for i, c := range days {
		part.Values[i] = share(int64(c.Junk), int64(c.In))
		received, junk = received+c.In, junk+c.Junk
	}
	c := newChart(100, part)
	c.Label = q.words.text("health.junk_label", junk, received, share(int64(junk), int64(received)))
	return q.dated(c, days)
}

// dated writes the days below a chart.
func (q *webRequest) dated(c webChart, days []DayCount) webChart {
	c.From, c.Until = q.words.day(days[0].Day), q.words.day(days[len(days)-1].Day)
	return c
}

// day writes a day of the diary as people do.
func (w *webWords) day(day string) string {
	t, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return day
	}
	return t.Format(w.text("format.day"))
}

// DayOf writes a day of the diary as people do.
func (v *webView) DayOf(day string) string { return v.q.words.day(day) }

// Percent gives how much of all something is.
func (v *webView) Percent(part, all int) int { return share(int64(part), int64(all)) }

// Age says how long ago something was.
func (v *webView) Age(t time.Time) string {
	age := max(0, v.q.Now().Sub(t))
	switch {
	case age < time.Hour:
		return v.T("health.minutes", int(age.Minutes()))
	case age < 48*time.Hour:
		return v.T("health.hours", int(age.Hours()))
	}
	return v.T("health.days", int(age.Hours()/24))
}

// At says whether the page is the one at a path.
func (v *webView) At(path string) bool { return v.q.r.URL.Path == path }

// Later says whether a time is still to come.
func (v *webView) Later(t time.Time) bool { return t.After(v.q.Now()) }

// search gives what is searched for in a list.
func (q *webRequest) search() string { return clip(q.r.URL.Query().Get("q"), webMaxSearch) }

// webLog is what log.html shows.
type webLog struct {
	Lines []LogLine // the last first
	More  int       // that are not shown
}

func (q *webRequest) healthLog() error {
	data := webLog{Lines: q.Recent(q.search())}
	if data.More = max(0, len(data.Lines)-healthLines); data.More > 0 {
		data.Lines = data.Lines[:healthLines]
	}
	for i := range data.Lines {
		data.Lines[i].Text = foreignWords(data.Lines[i].Text, healthLine)
	}
	return q.show("log", data)
}
