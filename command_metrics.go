package main

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"
)

func metricsCommands() []command {
	return []command{
		{name: "metrics token", about: "make a token with which Prometheus reads /metrics of the page from another machine",
			more:  "It is shown once. A new one ends the one before. From this machine itself no token is needed.",
			flags: dataFlag, run: metricsToken},
		{name: "metrics remove", about: "remove that token: only this machine reads /metrics then", flags: dataFlag, run: metricsRemove},
	}
}

func metricsToken(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "metrics token"})
	if err != nil {
		return err
	}
	c.say("%s", a.Password)
	return nil
}

func metricsRemove(ctx context.Context, c *call) error {
	if _, err := c.order(ctx, order{Do: "metrics remove"}); err != nil {
		return err
	}
	c.say("Only this machine reads the metrics now.")
	return nil
}

// storeEvery is how often the mailboxes are looked at for the metrics, however often those are asked for.
const storeEvery = 5 * time.Minute

// houseMetrics tells the numbers of an appliance that runs.
type houseMetrics struct {
	house     *house
	protocols *Protocols
	queue     *Queue
	spam      *SpamFilter
	certs     *Certificates
	page      *Web

	mu     sync.Mutex
	looked time.Time
	held   Quota // by all mailboxes
}

// all gives them.
func (h *houseMetrics) all() []*Metric {
	totals := h.house.diary.Totals()
	return slices.Concat(h.machine(), h.traffic(totals), mailMetrics(totals), h.waiting(), h.store(), h.certificates(), h.filter())
}

func (h *houseMetrics) machine() []*Metric {
	disk := gauge("appliance_disk_size_bytes", "Size of the file system of the data folder.")
	free := gauge("appliance_disk_free_bytes", "What is free there.")
	if space, err := freeSpace(string(h.house.data)); err == nil {
		free.add(float64(space.free))
		if space.all > 0 {
			disk.add(float64(space.all))
		}
	}
	v := thisVersion()
	return []*Metric{
		gauge("appliance_build_info", "The program that runs; the value is always 1.").add(1, "version", v.Version, "goversion", runtime.Version()),
		gauge("appliance_start_time_seconds", "When it was started, in seconds since 1970.").add(float64(h.house.since.Unix())),
		gauge("appliance_memory_bytes", "Memory that the process has from the system.").add(float64(processMemory())),
		gauge("go_goroutines", "Number of goroutines that currently exist.").add(float64(runtime.NumGoroutine())),
		disk, free,
	}
}

// traffic is connections, logins and sessions of each protocol.
func (h *houseMetrics) traffic(totals map[DiaryCount]uint64) []*Metric {
	open := gauge("appliance_connections", "Connections that are open, by protocol.")
	taken := counter("appliance_connections_total", "Connections that were served, by port.")
	refused := counter("appliance_connections_refused_total", "Connections that were turned away because there were too many, by port.")
	for _, t := range h.protocols.Traffic() {
		taken.add(float64(t.Served), "port", t.Port)
		refused.add(float64(t.Refused), "port", t.Port)
		if t.Open >= 0 {
			open.add(float64(t.Open), "protocol", t.Protocol)
		}
	}
	requests := counter("appliance_http_requests_total", "Requests to the page that were answered, by the class of the status.")
	for class, n := range h.page.Answered() {
		requests.add(float64(n), "code", class)
	}
	logins := counter("appliance_logins_total", "Logins, by protocol and result.")
	sessions := gauge("appliance_sessions", "Sessions in which somebody is logged in, by protocol.")
	count := map[string]int{}
	for _, s := range append(h.protocols.Sessions(""), h.page.Sessions("")...) {
		count[s.Protocol]++
	}
	for _, protocol := range []string{"imap", "pop3", "submission", "web"} {
		sessions.add(float64(count[protocol]), "protocol", protocol)
		logins.add(float64(totals[DiaryCount{What: "login", Protocol: protocol}]), "protocol", protocol, "result", "success")
		logins.add(float64(totals[DiaryCount{What: "login", Protocol: protocol, Failed: true}]), "protocol", protocol, "result", "failure")
	}
	sortSamples(requests)
	return []*Metric{open, taken, refused, requests, logins, sessions}
}

// sortSamples brings samples that come from a map into one order.
func sortSamples(m *Metric) {
	sortFunc(m.Samples, func(a, b MetricSample) int { return slices.Compare(a.Labels, b.Labels) })
}

// mailMetrics is what has become of messages since the start.
func mailMetrics(totals map[DiaryCount]uint64) []*Metric {
	of := func(kind DiaryKind) float64 { return float64(totals[DiaryCount{What: string(kind)}]) }
	delivered := counter("appliance_messages_delivered_total", "Messages that were put into mailboxes, by mailbox that got them and result.").
		add(of(DiaryDelivered), "result", "inbox").add(of("junk"), "result", "junk").add(of(DiaryCollected), "result", "collected")
	tries := counter("appliance_outbound_tries_total", "What came of sending mail to recipients elsewhere, by result.").
		add(of(DiarySent), "result", "sent").add(of(DiaryDeferred), "result", "deferred").add(of(DiaryBounced), "result", "bounced")
	refusals := counter("appliance_refusals_total", "What was refused, by protocol and the class of the reply.")
	for c, n := range totals {
		if c.What == string(DiaryRefused) {
			refusals.add(float64(n), "protocol", c.Protocol, "code", replyClass(c.Code))
		}
	}
	sortSamples(refusals)
	return []*Metric{delivered, tries, refusals,
		counter("appliance_messages_forwarded_total", "Messages that went on to addresses elsewhere that people have set.").add(of(DiaryForwarded))}
}

// replyClass names the class of a reply of SMTP; connections that were refused have none.
func replyClass(class int) string {
	switch class {
	case 4:
		return "4xx"
	case 5:
		return "5xx"
	}
	return "none"
}

func (h *houseMetrics) waiting() []*Metric {
	load := h.queue.Load()
	age := gauge("appliance_queue_oldest_message_age_seconds", "How long the oldest message waits for another server.")
	if load.Messages > 0 {
		age.add(time.Since(load.Oldest).Seconds())
	} else {
		age.add(0)
	}
	return []*Metric{
		gauge("appliance_queue_messages", "Messages that wait for other servers.").add(float64(load.Messages)),
		gauge("appliance_queue_bytes", "Their size.").add(float64(load.Bytes)),
		age,
	}
}

func (h *houseMetrics) store() []*Metric {
	held := h.storeHeld()
	return []*Metric{
		gauge("appliance_accounts", "People with an account.").add(float64(len(h.house.accounts.Addresses()))),
		gauge("appliance_store_messages", "Messages in all mailboxes, counted every five minutes.").add(float64(held.Messages)),
		gauge("appliance_store_bytes", "Their size.").add(float64(held.Bytes)),
	}
}

// storeHeld gives what all mailboxes hold, counted anew where the last count is old.
func (h *houseMetrics) storeHeld() Quota {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.looked.IsZero() && time.Since(h.looked) < storeEvery {
		return h.held
	}
	var sum Quota
	for _, account := range h.house.accounts.Addresses() {
		drop, err := h.house.store.Maildrop(account)
		if err != nil {
			continue // it is told where somebody wants to read it
		}
		if held, err := drop.Usage(); err == nil {
			sum.Bytes += held.Bytes
			sum.Messages += held.Messages
		}
		drop.Release()
	}
	h.looked, h.held = time.Now(), sum
	return sum
}

func (h *houseMetrics) certificates() []*Metric {
	ends := gauge("appliance_certificate_expiry_timestamp_seconds", "When the certificate of a name ends, in seconds since 1970.")
	for _, c := range h.certs.State() {
		ends.add(float64(c.Until.Unix()), "name", c.Name, "kind", string(c.Kind))
	}
	return []*Metric{ends}
}

func (h *houseMetrics) filter() []*Metric {
	s := h.spam.Status()
	return []*Metric{gauge("appliance_spam_learned_messages", "Messages from which the spam filter has learned.").
		add(float64(s.Unwanted), "kind", "unwanted").add(float64(s.Wanted), "kind", "wanted")}
}
