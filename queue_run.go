package main

import (
	"cmp"
	"container/heap"
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// When what is tried. Messages are grouped by destination. A destination that nobody answers for is asked again only after
// a pause of its own, by one message; the others for it wait without being tried, and those for other destinations are not
// held up.

// queueDest is a destination with what waits for it.
type queueDest struct {
	name     string
	jobs     jobHeap
	running  int
	failures int       // in a row: nobody answered
	retryAt  time.Time // not before
	reason   string    // why it is not asked before
	lies     destStanding
	at       int // its place in Queue.ready[lies], -1: not in it
}

// destStanding is what is to be expected of a destination. Each has a heap of its own, so that one for which no more may be
// tried at the moment does not hide the others.
type destStanding uint8

const (
	destAnswers   destStanding = iota // it answered last time
	destUnknown                       // not asked since the start, or long ago
	destSuspect                       // it did not answer last time
	destStandings                     // how many there are
)

// queueJob is a message's recipients at one destination, to be tried at a time.
type queueJob struct {
	item *queueItem
	next time.Time
}

// jobHeap has the earliest job first.
type jobHeap []queueJob

func (h jobHeap) Len() int           { return len(h) }
func (h jobHeap) Less(i, j int) bool { return h[i].next.Before(h[j].next) }
func (h jobHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *jobHeap) Push(x any)        { *h = append(*h, x.(queueJob)) }
func (h *jobHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// due is when the destination's first job may run.
func (d *queueDest) due() time.Time {
	if d.retryAt.After(d.jobs[0].next) {
		return d.retryAt
	}
	return d.jobs[0].next
}

// destHeap has the destination with the earliest job first.
type destHeap []*queueDest

func (h destHeap) Len() int           { return len(h) }
func (h destHeap) Less(i, j int) bool { return h[i].due().Before(h[j].due()) }
func (h destHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}
func (h *destHeap) Push(x any) {
	x.(*queueDest).at = len(*h)
	*h = append(*h, x.(*queueDest))
}
func (h *destHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	last.at = -1
	return last
}

// plan enters a message's waiting recipients at their destinations. What was entered before and no longer holds is
// recognised when its turn comes. The lock is held.
func (q *Queue) plan(item *queueItem) {
	for name, at := range q.dueTimes(item) {
		q.planAt(item, name, at)
	}
}

// planAt enters a message at one of its destinations. The lock is held.
func (q *Queue) planAt(item *queueItem, name string, at time.Time) {
	if item.busy[name] {
		return // it is entered when the try has ended
	}
	d := q.dest(name)
	heap.Push(&d.jobs, queueJob{item, at})
	q.offer(d)
}

// planAgain enters a message anew after a try of some recipients, for where they belong now. The lock is held.
func (q *Queue) planAgain(item *queueItem, tried string, rcpts []int) {
	names := map[string]bool{tried: true} // also of others, whom the try kept from being entered
	for _, i := range rcpts {
		delete(item.trying, i)
		names[q.destination(item, i)] = true
	}
	if item.removed {
		return
	}
	due := q.dueTimes(item)
	for name := range names {
		if at, waits := due[name]; waits {
			q.planAt(item, name, at)
		}
	}
}

// dueTimes gives when a message's waiting recipients are due, by destination. Those that are being tried are not among them,
// wherever they belong now: what is on its way by one server must not go by another, too.
func (q *Queue) dueTimes(item *queueItem) map[string]time.Time {
	next := map[string]time.Time{}
	for i := range item.States {
		if st := &item.States[i]; st.State == SendWaiting && !item.trying[i] {
			name := q.destination(item, i)
			if at, ok := next[name]; !ok || st.Next.Before(at) {
				next[name] = st.Next
			}
		}
	}
	return next
}

func (q *Queue) destination(item *queueItem, i int) string {
	return q.cfg.Destination(item.Envelope.From, item.Envelope.Recipients[i].Domain())
}

func (q *Queue) dest(name string) *queueDest {
	d := q.dests[name]
	if d == nil {
		d = &queueDest{name: name, at: -1}
		q.dests[name] = d
	}
	return d
}

// open lets a destination be asked at once.
func (q *Queue) open(name string) {
	if d := q.dests[name]; d != nil {
		d.retryAt, d.failures = time.Time{}, 0
		q.offer(d)
	}
}

// standing says what is to be expected of a destination. The lock is held.
func (q *Queue) standing(d *queueDest) destStanding {
	switch {
	case d.failures > 0:
		return destSuspect
	case q.answered[d.name]:
		return destAnswers
	}
	return destUnknown
}

// hasRoom says whether one more try may run for a destination of a standing. The lock is held.
func (q *Queue) hasRoom(standing destStanding) bool {
	unproven := q.running[destUnknown] + q.running[destSuspect]
	if unproven+q.running[destAnswers] >= queueAtOnce || standing != destAnswers && unproven >= queueUnproven {
		return false
	}
	return standing != destSuspect || q.running[destSuspect] < queueSuspects
}

// nextDest gives the destination that is due first of those for which a try may run, nil without one. The lock is held.
func (q *Queue) nextDest() (first *queueDest) {
	for standing := range destStandings {
		if h := q.ready[standing]; len(h) > 0 && q.hasRoom(standing) && (first == nil || h[0].due().Before(first.due())) {
			first = h[0]
		}
	}
	return first
}

// offer puts a destination where it belongs among those that are ready. The lock is held.
func (q *Queue) offer(d *queueDest) {
	room := queuePerHost
	if d.failures > 0 {
		room = 1
	}
	wanted := len(d.jobs) > 0 && d.running < room
	lies := q.standing(d)
	if d.at >= 0 && (!wanted || d.lies != lies) {
		heap.Remove(&q.ready[d.lies], d.at)
	}
	switch d.lies = lies; {
	case wanted && d.at < 0:
		heap.Push(&q.ready[lies], d)
	case wanted:
		heap.Fix(&q.ready[lies], d.at)
	}
	if len(d.jobs) == 0 && d.running == 0 && d.failures == 0 {
		delete(q.dests, d.name)
	}
}

// Run tries what waits until ctx ends; then it ends the tries and returns.
func (q *Queue) Run(ctx context.Context) {
	defer q.work.Wait()
	q.mu.Lock()
	q.started = true
	q.mu.Unlock()
	q.tellDamaged()
	sweep := q.cfg.Now().Add(queueSweep)
	for ctx.Err() == nil {
		now := q.cfg.Now()
		if !now.Before(sweep) || sweep.Sub(now) > queueSweep { // or the clock was set back
			q.sweep(ctx)
			sweep = now.Add(queueSweep)
		}
		next := q.start(ctx, now)
		if (q.Len() > 0 || q.files.toRead()) && (next.IsZero() || sweep.Before(next)) {
			next = sweep
		}
		q.sleep(ctx, next)
	}
}

// sleep waits until a time (zero: for ever), a change of the plan or the end.
func (q *Queue) sleep(ctx context.Context, until time.Time) {
	var timer <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(max(until.Sub(q.cfg.Now()), time.Millisecond))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
	case <-q.wake:
	case <-timer:
	}
}

// start begins the tries that are due, and says when the next one is: zero when something that runs has to end first, or
// nothing is planned.
func (q *Queue) start(ctx context.Context, now time.Time) time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	for d := q.nextDest(); d != nil; d = q.nextDest() {
		if due := d.due(); due.After(now) {
			return due
		}
		job := heap.Pop(&d.jobs).(queueJob)
		if rcpts := q.waiting(job, d.name); rcpts != nil {
			q.begin(ctx, d, job.item, rcpts)
		}
		q.offer(d)
		q.move(job.item, d.name)
	}
	return time.Time{}
}

// waiting gives the recipients that a job still means, nil when it is out of date.
func (q *Queue) waiting(job queueJob, dest string) []int {
	item := job.item
	if item.removed || item.busy[dest] {
		return nil
	}
	var rcpts []int
	current := false
	for i := range item.States {
		if item.States[i].State == SendWaiting && !item.trying[i] && q.destination(item, i) == dest {
			rcpts = append(rcpts, i)
			current = current || !item.States[i].Next.After(job.next)
		}
	}
	if !current { // planned anew since, for later
		return nil
	}
	return rcpts
}

// move enters a message anew of which nothing waits for a destination any more: a relay was set or removed meanwhile, or a
// domain has come here, and its recipients belong elsewhere now. The lock is held.
func (q *Queue) move(item *queueItem, dest string) {
	if _, still := q.dueTimes(item)[dest]; !still && !item.removed && !item.busy[dest] {
		q.plan(item)
	}
}

// begin runs a try in a goroutine of its own. The lock is held.
func (q *Queue) begin(ctx context.Context, d *queueDest, item *queueItem, rcpts []int) {
	if item.busy == nil {
		item.busy, item.trying = map[string]bool{}, map[int]bool{}
	}
	item.busy[d.name] = true
	for _, i := range rcpts {
		item.trying[i] = true
	}
	d.running++
	standing := q.standing(d)
	q.running[standing]++
	env := item.Envelope
	env.Recipients = slices.Clone(env.Recipients)
	q.work.Go(func() {
		outcomes := q.try(ctx, d.name, item.id, &env, rcpts)
		q.settle(ctx, d, item, rcpts, outcomes, standing)
		q.nudge()
	})
}

// try sends a message to one destination.
func (q *Queue) try(ctx context.Context, dest, id string, env *Envelope, rcpts []int) []Outcome {
	message, err := q.files.open(id)
	if err != nil {
		q.cfg.Log.Error("a queued message cannot be read", "id", id, "error", err)
		return sameOutcome(len(rcpts), Outcome{Enhanced: "4.3.0", Text: "The message cannot be read from the disk at the moment"})
	}
	defer message.Close()
	outcomes := q.cfg.Send(ctx, dest, &Outgoing{Envelope: env, Recipients: rcpts, Message: message, Size: message.Size})
	if len(outcomes) != len(rcpts) {
		q.cfg.Log.Error("a try gave another number of outcomes than recipients", "id", id, "destination", dest)
		return sameOutcome(len(rcpts), Outcome{Enhanced: "4.3.0", Text: "The message cannot be sent at the moment"})
	}
	return outcomes
}

// settle takes over what a try has brought: reports first, so that a crash tells a sender twice rather than never; then the
// state on disk; then the plan.
func (q *Queue) settle(ctx context.Context, d *queueDest, item *queueItem, rcpts []int, outcomes []Outcome, standing destStanding) {
	now := q.cfg.Now()
	q.mu.Lock()
	stopped := ctx.Err() != nil
	var news []reportedRecipient
	for n, i := range rcpts {
		news = append(news, q.note(item, i, &outcomes[n], now, stopped)...)
		if q.destination(item, i) != d.name { // a relay was set meanwhile: it need not wait for what is said of the way before
			item.States[i].Next = now
		}
	}
	q.noteReached(d, outcomes, now, stopped)
	q.offer(d)
	q.mu.Unlock()

	q.report(ctx, item, news, now)
	q.store(item)

	q.mu.Lock()
	if delete(item.busy, d.name); len(item.busy) == 0 {
		item.busy, item.trying = nil, nil
	}
	d.running--
	q.running[standing]--
	q.planAgain(item, d.name, rcpts)
	q.offer(d)
	q.mu.Unlock()
	q.conclude(item)
}

// conclude tells of a change, and removes a message of which nothing waits and nothing is being tried any more.
func (q *Queue) conclude(item *queueItem) {
	q.mu.Lock()
	if item.removed { // cancelled, or concluded by the try that ended last
		q.mu.Unlock()
		return
	}
	done := len(item.busy) == 0 && item.finished()
	entry := q.entry(item)
	if done {
		q.forget(item)
	}
	q.mu.Unlock()
	if done {
		if err := q.files.remove(item.id); err != nil {
			q.cfg.Log.Error("a message that is done with cannot be removed from the queue", "id", item.id, "error", err)
		}
	}
	q.tell(entry, done)
}

// logOf is the log about one recipient.
func (q *Queue) logOf(item *queueItem, i int) *slog.Logger {
	env := &item.Envelope
	return q.cfg.Log.With("id", item.id, "account", cmp.Or(env.Account, env.Forward), "from", env.From, "to", env.Recipients[i].Address)
}

// note takes over one outcome, and gives what the sender is to be told of it. The lock is held.
func (q *Queue) note(item *queueItem, i int, o *Outcome, now time.Time, stopped bool) []reportedRecipient {
	st, to := &item.States[i], &item.Envelope.Recipients[i]
	if st.State != SendWaiting && o.State != SendSent {
		return nil // cancelled meanwhile
	}
	if stopped && o.State == SendWaiting { // the shutdown broke it off: that is no try
		return nil
	}
	st.Tries++
	st.Last, st.Code, st.Enhanced, st.Text, st.Remote = now.UTC(), o.Code, o.Enhanced, o.Text, o.Remote
	st.State = o.State
	log := q.logOf(item, i).With("remote", o.Remote, "status", o.Enhanced, "reply", o.Text)
	switch o.State {
	case SendSent:
		log.Info("sent", "here", o.Delivered)
		if !o.Reported && to.Notify.Wants(NotifySuccess) {
			return []reportedRecipient{{index: i, action: o.successAction(), state: *st}}
		}
	case SendFailed:
		log.Warn("bounced")
		return []reportedRecipient{{index: i, action: actionFailed, state: *st}}
	default:
		st.State = SendWaiting
		st.Next = now.Add(jitter(queueGaps[min(st.Tries-1, len(queueGaps)-1)]))
		log.Info("deferred", "next", st.Next)
	}
	return nil
}

// successAction is what a report of success says was done.
func (o *Outcome) successAction() reportAction {
	if o.Delivered {
		return actionDelivered
	}
	return actionRelayed
}

// jitter spreads tries by a tenth, so that what failed together is not tried together for ever.
func jitter(d time.Duration) time.Duration {
	return d - d/20 + time.Duration(rand.Int64N(int64(d/10)+1))
}

// noteReached remembers whether the destination could be talked to. The lock is held.
func (q *Queue) noteReached(d *queueDest, outcomes []Outcome, now time.Time, stopped bool) {
	down := slices.IndexFunc(outcomes, func(o Outcome) bool { return o.Unreachable })
	switch {
	case stopped:
	case down < 0:
		d.failures, d.retryAt, d.reason = 0, time.Time{}, ""
		if slices.ContainsFunc(outcomes, func(o Outcome) bool { return o.State == SendSent || o.Code != 0 }) {
			q.noteAnswer(d.name)
		}
	default:
		d.failures++
		delete(q.answered, d.name)
		d.retryAt = now.Add(jitter(queueGaps[min(d.failures-1, len(queueGaps)-1)]))
		o := &outcomes[down]
		st := recipientState{Text: o.Text, Remote: o.Remote}
		d.reason = st.reason()
	}
}

// noteAnswer remembers that a destination answers; any other one is forgotten where there are too many. The lock is held.
func (q *Queue) noteAnswer(name string) {
	if len(q.answered) >= queueKnown && !q.answered[name] {
		for other := range q.answered {
			delete(q.answered, other)
			break
		}
	}
	q.answered[name] = true
}

// finished says whether no recipient waits any more.
func (r *queueRecord) finished() bool {
	return !slices.ContainsFunc(r.States, func(s recipientState) bool { return s.State == SendWaiting })
}

// store puts the state of a message on disk, unless nothing of it waits any more: that is removed soon.
func (q *Queue) store(item *queueItem) {
	item.saving.Lock()
	defer item.saving.Unlock()
	q.mu.Lock()
	record := item.queueRecord
	record.States = slices.Clone(record.States)
	removed := item.removed
	q.mu.Unlock()
	if removed || record.finished() {
		return
	}
	save := func(id string, r *queueRecord) error { return q.files.write(id, r, false) }
	isDone := func(s recipientState) bool { return s.State != SendWaiting }
	if record.Told || slices.ContainsFunc(record.States, isDone) { // what must not be done again
		save = q.files.save
	}
	if err := save(item.id, &record); err != nil {
		q.cfg.Log.Error("the state of a queued message cannot be written", "id", item.id, "error", err)
	}
}

// sweep gives up what is too old, and tells senders what waits for long.
func (q *Queue) sweep(ctx context.Context) {
	q.reread()
	now := q.cfg.Now()
	q.mu.Lock()
	q.forgetDests(now)
	late := make([]*queueItem, 0, 16)
	var held []QueueEntry // wait for a destination that others have found closed
	for _, item := range q.items {
		q.mendTimes(item, now)
		age := now.Sub(item.Queued)
		if age >= queueLifetime || age >= queueDelayTold && !item.Told {
			late = append(late, item)
		}
		if item.Envelope.Account != "" && item.States[0].Tries == 0 && len(item.busy) == 0 {
			if e := q.entry(item); e.held() {
				held = append(held, e)
			}
		}
	}
	q.mu.Unlock()
	for _, e := range held {
		q.tell(e, false)
	}
	for _, item := range late {
		if ctx.Err() != nil {
			return
		}
		q.lateItem(ctx, item, now)
	}
}

// reread takes over what could not be read before.
func (q *Queue) reread() {
	records := q.files.reload()
	q.tellDamaged()
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, record := range records {
		q.take(&queueItem{queueRecord: *record, id: id, loaded: true})
	}
}

// tellDamaged tells what was set aside.
func (q *Queue) tellDamaged() {
	if ids := q.files.takeDamaged(); len(ids) > 0 && q.cfg.Damaged != nil {
		q.cfg.Damaged(ids)
	}
}

// held says that a message was not tried since its destination is known not to answer.
func (e *QueueEntry) held() bool {
	return slices.ContainsFunc(e.Recipients, func(r QueueRecipient) bool { return r.State == SendWaiting && r.Tries == 0 && r.Reason != "" })
}

// mendTimes takes back what was planned by a clock that has been set back since. The lock is held.
func (q *Queue) mendTimes(item *queueItem, now time.Time) {
	latest := now.Add(2 * queueGaps[len(queueGaps)-1])
	if item.Queued.After(now) {
		item.Queued = now
	}
	for i := range item.States {
		if st := &item.States[i]; st.State == SendWaiting && st.Next.After(latest) {
			st.Next = now
			q.plan(item)
		}
	}
}

// forgetDests drops what is known of destinations for which nothing waits, and opens those that a clock which has been set
// back since keeps shut. The lock is held.
func (q *Queue) forgetDests(now time.Time) {
	for name, d := range q.dests {
		if d.retryAt.After(now.Add(2 * queueGaps[len(queueGaps)-1])) {
			q.open(name)
		}
		if len(d.jobs) == 0 && d.running == 0 {
			delete(q.dests, name)
		}
	}
}

// lateItem gives a message up, or tells its sender that it waits.
func (q *Queue) lateItem(ctx context.Context, item *queueItem, now time.Time) {
	q.mu.Lock()
	if item.removed || len(item.busy) > 0 { // next time
		q.mu.Unlock()
		return
	}
	expired := now.Sub(item.Queued) >= queueLifetime
	var news []reportedRecipient
	for i := range item.States {
		if item.States[i].State == SendWaiting {
			news = append(news, q.lateRecipient(item, i, expired, now)...)
		}
	}
	item.Told = true
	q.mu.Unlock()
	q.report(ctx, item, news, now)
	q.store(item)
	q.conclude(item)
}

// fail ends the waiting for a recipient; why begins what the log says. The lock is held.
func (q *Queue) fail(item *queueItem, i int, why string) reportedRecipient {
	st := &item.States[i]
	st.State = SendFailed
	if d := q.dests[q.destination(item, i)]; d != nil && d.reason != "" {
		st.Text, st.Remote = d.reason, ""
	}
	st.Enhanced = "4.4.7" // RFC 3463 §3.5: delivery time expired
	q.logOf(item, i).Warn("bounced", "status", st.Enhanced, "reply", strings.TrimSuffix(why+st.reason(), ": "))
	return reportedRecipient{index: i, action: actionFailed, expired: true, state: *st}
}

// lateRecipient is lateItem for one recipient. A recipient that was hardly tried is not given up: a clock that was wrong
// when the message came, or is wrong now, must not make mail come back. A machine that is off at night does not count many
// failures of a destination in a row, as they are not on disk: there, few do. The lock is held.
func (q *Queue) lateRecipient(item *queueItem, i int, expired bool, now time.Time) []reportedRecipient {
	st := &item.States[i]
	d := q.dests[q.destination(item, i)]
	enough := queueMinTries
	if item.loaded {
		enough = queueFewTries
	}
	if expired && (st.Tries >= queueMinTries || d != nil && d.failures >= enough) {
		return []reportedRecipient{q.fail(item, i, "too old: ")}
	}
	if item.Told {
		return nil
	}
	shown := *st
	if d != nil && d.reason != "" {
		shown.Text, shown.Remote = d.reason, ""
	}
	return []reportedRecipient{{index: i, action: actionDelayed, state: shown}}
}
