package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// queueWorld is what a queue under test has around it.
type queueWorld struct {
	t     testing.TB
	dir   string
	store *Store
	queue *Queue
	stop  func() // ends Run, if it runs

	mu      sync.Mutex
	send    func(dest string, m *Outgoing) []Outcome // nil: all is sent
	tries   []string                                 // "DEST RECIPIENT…" of all tries
	sent    map[string]int                           // by "FROM>RECIPIENT"
	reports []string                                 // "TO\n" and the message
	refuse  error                                    // of Report
	changes []string
	log     lockedBuffer
}

func openQueueWorld(t testing.TB) *queueWorld {
	w := &queueWorld{t: t, dir: filepath.Join(t.TempDir(), "queue"), sent: map[string]int{}}
	w.store = testStore(t, t.TempDir())
	w.reopen()
	return w
}

// reopen gives the world a queue read from disk, as after a crash.
func (w *queueWorld) reopen() {
	w.t.Helper()
	q, err := OpenQueue(QueueConfig{
		Dir: w.dir, Send: w.doSend, Report: w.doReport, Changed: w.changed,
		Destination: func(_, domain string) string { return domain },
		Hostname:    func() string { return "mail.test" },
		Log:         slog.New(slog.NewTextHandler(&w.log, nil)),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.queue = q
}

func (w *queueWorld) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	q := w.queue
	go func() {
		q.Run(ctx)
		close(ended)
	}()
	w.stop = func() {
		cancel()
		<-ended
	}
}

func (w *queueWorld) doSend(ctx context.Context, dest string, m *Outgoing) []Outcome {
	text, err := io.ReadAll(io.NewSectionReader(m.Message, 0, m.Size))
	if err != nil || !strings.HasPrefix(string(text), "Subject:") {
		w.t.Errorf("text: %q, %v", text, err)
	}
	line := dest
	for _, i := range m.Recipients {
		line += " " + m.Envelope.Recipients[i].Address
	}
	w.mu.Lock()
	w.tries = append(w.tries, line)
	send := w.send
	w.mu.Unlock()
	outcomes := sameOutcome(len(m.Recipients), Outcome{State: SendSent, Code: 250, Text: "fine", Remote: "mx." + dest})
	if send != nil {
		outcomes = send(dest, m)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for n, o := range outcomes {
		if o.State == SendSent {
			w.sent[m.Envelope.From+">"+m.Envelope.Recipients[m.Recipients[n]].Address]++
		}
	}
	return outcomes
}

func (w *queueWorld) doReport(_ context.Context, about *Envelope, message []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return w.refuse
	}
	w.reports = append(w.reports, about.From+"\n"+string(message))
	return nil
}

func (w *queueWorld) changed(e QueueEntry, gone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	line := e.ID
	for _, r := range e.Recipients {
		line += " " + string(r.State)
	}
	w.changes = append(w.changes, fmt.Sprint(line, " ", gone))
}

// answers makes all tries have one outcome.
func (w *queueWorld) answers(o Outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.send = func(_ string, m *Outgoing) []Outcome { return sameOutcome(len(m.Recipients), o) }
}

// submit queues a message.
func (w *queueWorld) submit(env *Envelope) string {
	w.t.Helper()
	in := w.receive("Subject: Bücher\r\nFrom: ann@test.lan\r\n\r\nHello.\r\n")
	id, err := w.queue.Submit(in, env)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *queueWorld) receive(text string) *Incoming {
	w.t.Helper()
	in, err := w.store.Receive(w.queue.TmpDir())
	if err == nil {
		_, err = io.WriteString(in, text)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return in
}

func envelopeTo(from string, to ...string) *Envelope {
	env := &Envelope{From: from, Account: from}
	for _, a := range to {
		env.Recipients = append(env.Recipients, Recipient{Address: a})
	}
	return env
}

func (w *queueWorld) files() []string {
	names, err := listNames(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// sentTimes gives how often a recipient's mail from ann was sent.
func (w *queueWorld) sentTimes(to string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent["ann@test.lan>"+to]
}

// tried gives the tries up to now.
func (w *queueWorld) tried() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.tries)
}

func (w *queueWorld) wantReports(n int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.reports) != n {
		w.t.Fatalf("%d reports, want %d: %q", len(w.reports), n, w.reports)
	}
}

func TestQueueSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := openQueueWorld(t)
		w.run()
		defer func() { w.stop() }()
		id := w.submit(envelopeTo("ann@test.lan", "a@one.example", "b@one.example", "c@two.example"))
		synctest.Wait()
		tries := w.tried()
		slices.Sort(tries)
		if want := []string{"one.example a@one.example b@one.example", "two.example c@two.example"}; !slices.Equal(tries, want) {
			t.Errorf("tries: %q, want %q", tries, want)
		}
		if got := w.files(); !slices.Equal(got, []string{queueTmp}) {
			t.Errorf("files: %q", got)
		}
		if len(w.queue.List()) != 0 || w.queue.Len() != 0 {
			t.Errorf("still listed: %v", w.queue.List())
		}
		if err := w.queue.Cancel(id); !errors.Is(err, ErrNotQueued) {
			t.Errorf("cancel of what is sent: %v", err)
		}
		w.stop()
		if last := w.changes[len(w.changes)-1]; last != id+" sent sent sent true" {
			t.Errorf("last change: %s", last)
		}
		w.wantReports(0)
	})
}

// TestQueueRetries watches a message for five days.
func TestQueueRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := openQueueWorld(t)
		w.answers(Outcome{Code: 451, Enhanced: "4.7.1", Text: "Greylisted", Remote: "mx.one.example [192.0.2.1]"})
		w.run()
		defer func() { w.stop() }()
		start := time.Now()
		w.submit(envelopeTo("ann@test.lan", "a@one.example"))
		time.Sleep(queueDelayTold - time.Minute)
		w.wantReports(0)
		early := len(w.tried())
		if early < 5 || early > 8 {
			t.Errorf("%d tries in the first four hours", early)
		}
		list := w.queue.List()
		if len(list) != 1 || list[0].Recipients[0].Reason != "mx.one.example [192.0.2.1]: Greylisted" || !list[0].Recipients[0].Next.After(time.Now()) {
			t.Errorf("list: %+v", list)
		}
		time.Sleep(queueSweep + time.Minute)
		w.wantReports(1)
		time.Sleep(queueLifetime - time.Since(start) - time.Minute)
		w.wantReports(1)
		time.Sleep(queueSweep + time.Minute)
		w.wantReports(2)
		if n := len(w.tried()); n < 30 || n > 45 {
			t.Errorf("%d tries in five days", n)
		}
		if got := w.files(); !slices.Equal(got, []string{queueTmp}) {
			t.Errorf("files: %q", got)
		}
		w.stop()
		for i, want := range []string{"Action: delayed\r\nStatus: 4.7.1\r\nRemote-MTA: dns; mx.one.example\r\nDiagnostic-Code: smtp; 451 4.7.1 Greylisted", "Action: failed\r\nStatus: 5.4.7"} {
			if !strings.Contains(w.reports[i], want) {
				t.Errorf("report %d lacks %q:\n%s", i, want, w.reports[i])
			}
		}
	})
}

// TestQueueDownDestination sees that one message at a time asks for a destination that is down, and none is held up by it.
func TestQueueDownDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := openQueueWorld(t)
		w.send = func(dest string, m *Outgoing) []Outcome {
			if dest == "down.example" {
				time.Sleep(time.Minute) // a connection that times out
				return sameOutcome(len(m.Recipients), Outcome{Text: "Nobody answers", Unreachable: true})
			}
			return sameOutcome(len(m.Recipients), Outcome{State: SendSent})
		}
		w.run()
		defer func() { w.stop() }()
		for i := range 200 {
			w.submit(envelopeTo("ann@test.lan", fmt.Sprintf("u%d@down.example", i)))
		}
		w.submit(envelopeTo("ann@test.lan", "a@up.example"))
		synctest.Wait()
		if w.sentTimes("a@up.example") != 1 {
			t.Errorf("the other destination was held up: %q", w.tried())
		}
		time.Sleep(2 * time.Hour)
		if n := len(w.tried()); n > 20 {
			t.Errorf("%d tries for a destination that is down for two hours", n)
		}
		for _, e := range w.queue.List() {
			if r := e.Recipients[0]; r.Reason != "Nobody answers" || r.Next.IsZero() {
				t.Fatalf("%+v", e)
			}
		}
		w.mu.Lock()
		w.send = nil
		w.mu.Unlock()
		time.Sleep(5 * time.Hour)
		if n := w.queue.Len(); n != 0 {
			t.Errorf("%d messages left when it is up again", n)
		}
		w.stop()
		if len(w.sent) != 201 {
			t.Errorf("%d messages sent", len(w.sent))
		}
	})
}

func TestQueueReports(t *testing.T) {
	failed := Outcome{State: SendFailed, Code: 550, Enhanced: "5.1.1", Text: "No such user", Remote: "mx.one.example [192.0.2.1]"}
	sent := Outcome{State: SendSent, Code: 250, Text: "ok", Remote: "mx.one.example"}
	for _, c := range []struct {
		name    string
		from    string
		notify  NotifySet
		outcome Outcome
		action  string // "" for no report
	}{
		{"failure", "ann@test.lan", 0, failed, "failed"},
		{"failure of a report", "", 0, failed, ""},
		{"failure, NEVER", "ann@test.lan", NotifyNever, failed, ""},
		{"failure, SUCCESS", "ann@test.lan", NotifySuccess, failed, ""},
		{"failure, FAILURE", "ann@test.lan", NotifyFailure | NotifyDelay, failed, "failed"},
		{"success", "ann@test.lan", 0, sent, ""},
		{"success, SUCCESS", "ann@test.lan", NotifySuccess, sent, "relayed"},
		{"success, told by the next server", "ann@test.lan", NotifySuccess, Outcome{State: SendSent, Reported: true}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := openQueueWorld(t)
				w.answers(c.outcome)
				w.run()
				defer func() { w.stop() }()
				env := envelopeTo(c.from, "a@one.example")
				env.EnvelopeID = "QQ 314+"
				env.Recipients[0].Notify, env.Recipients[0].Original = c.notify, "rfc822;A=b@one.example"
				w.submit(env)
				synctest.Wait()
				if c.action == "" {
					w.wantReports(0)
					return
				}
				w.wantReports(1)
				to, message, _ := strings.Cut(w.reports[0], "\n")
				if to != "ann@test.lan" {
					t.Errorf("to %s", to)
				}
				checkReport(t, message, c.action)
			})
		})
	}
}

// checkReport reads a report as a mail program would.
func checkReport(t *testing.T, message, action string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatalf("%s %v %v", kind, params, err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil || !strings.HasSuffix(subject, ": Bücher") || m.Header.Get("Auto-Submitted") != "auto-replied" {
		t.Errorf("subject %q, %v", subject, m.Header)
	}
	if _, err := m.Header.Date(); err != nil {
		t.Error(err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	var kinds, texts []string
	for {
		p, err := parts.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		kinds, texts = append(kinds, p.Header.Get("Content-Type")), append(texts, string(text))
	}
	last := "text/rfc822-headers"
	if action == "failed" {
		last = "message/rfc822"
	}
	if want := []string{"text/plain; charset=utf-8", "message/delivery-status", last}; !slices.Equal(kinds, want) {
		t.Fatalf("parts %q, want %q", kinds, want)
	}
	for _, want := range []string{"Reporting-MTA: dns; mail.test\r\n", "Original-Envelope-Id: QQ+20314+2B\r\n",
		"\r\n\r\nOriginal-Recipient: rfc822; A+3Db@one.example\r\nFinal-Recipient: rfc822; a@one.example\r\nAction: " + action + "\r\n", "\r\nStatus: "} {
		if !strings.Contains(texts[1], want) {
			t.Errorf("%q lacks %q", texts[1], want)
		}
	}
	if action == "failed" && (!strings.Contains(texts[0], "550 5.1.1 No such user") || !strings.HasSuffix(texts[2], "Hello.\r\n")) {
		t.Errorf("%q", texts)
	}
	if strings.Contains(strings.ReplaceAll(message, "\r\n", ""), "\n") {
		t.Error("a line ends in LF alone")
	}
}

// TestQueueReportRefused sees that a failure which cannot be told is told later.
func TestQueueReportRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := openQueueWorld(t)
		w.refuse = errors.New("disk full")
		w.answers(Outcome{State: SendFailed, Text: "no"})
		w.run()
		defer func() { w.stop() }()
		w.submit(envelopeTo("ann@test.lan", "a@one.example"))
		synctest.Wait()
		if w.queue.Len() != 1 {
			t.Fatal("the message is gone and nobody was told")
		}
		w.mu.Lock()
		w.refuse = nil
		w.mu.Unlock()
		time.Sleep(time.Hour)
		w.wantReports(1)
		if w.queue.Len() != 0 {
			t.Error("still queued")
		}
	})
}

func TestQueueRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := openQueueWorld(t)
		w.send = func(dest string, m *Outgoing) []Outcome {
			if dest == "one.example" {
				return sameOutcome(len(m.Recipients), Outcome{State: SendSent})
			}
			return sameOutcome(len(m.Recipients), Outcome{Text: "later", Code: 450})
		}
		w.run()
		id := w.submit(envelopeTo("ann@test.lan", "a@one.example", "b@two.example"))
		synctest.Wait()
		w.stop()
		w.reopen()
		e, err := w.queue.Entry(id)
		if err != nil || e.Recipients[0].State != SendSent || e.Recipients[1].State != SendWaiting || e.Recipients[1].Tries != 1 {
			t.Fatalf("%+v, %v", e, err)
		}
		w.run()
		defer func() { w.stop() }()
		w.mu.Lock()
		w.send = nil
		w.mu.Unlock()
		time.Sleep(2 * time.Minute)
		if w.sentTimes("a@one.example") != 1 || w.sentTimes("b@two.example") != 1 || w.queue.Len() != 0 {
			t.Errorf("tries: %q, left %d", w.tried(), w.queue.Len())
		}
	})
}

func TestQueueRetryAndCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := openQueueWorld(t)
		w.answers(Outcome{Text: "Nobody answers", Unreachable: true})
		w.run()
		defer func() { w.stop() }()
		first := w.submit(envelopeTo("ann@test.lan", "a@one.example"))
		second := w.submit(envelopeTo("ann@test.lan", "b@one.example"))
		synctest.Wait()
		before := len(w.tried())
		if err := w.queue.Retry(first); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(w.tried()) == before {
			t.Error("retry tried nothing")
		}
		if err := w.queue.Cancel(second); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{second, "../etc/passwd", "nosuch"} {
			if err := w.queue.Cancel(id); !errors.Is(err, ErrNotQueued) {
				t.Errorf("%s: %v", id, err)
			}
			if err := w.queue.Retry(id); !errors.Is(err, ErrNotQueued) {
				t.Errorf("%s: %v", id, err)
			}
			if _, err := w.queue.Open(id); !errors.Is(err, ErrNotQueued) {
				t.Errorf("%s: %v", id, err)
			}
		}
		m, err := w.queue.Open(first)
		if err != nil || m.Size == 0 {
			t.Fatal(m, err)
		}
		m.Close()
		w.mu.Lock()
		w.send = nil
		w.mu.Unlock()
		if err := w.queue.Retry(""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if w.sentTimes("a@one.example") != 1 || w.sentTimes("b@one.example") != 0 {
			t.Errorf("tries: %q", w.tried())
		}
		w.wantReports(0)
		if got := w.files(); !slices.Equal(got, []string{queueTmp}) {
			t.Errorf("files: %q", got)
		}
	})
}

// TestQueueCancelWhileTrying sees that a message cancelled during a try does not come back, in memory or on disk.
func TestQueueCancelWhileTrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := openQueueWorld(t)
		w.send = func(_ string, m *Outgoing) []Outcome {
			time.Sleep(time.Second)
			return sameOutcome(len(m.Recipients), Outcome{State: SendFailed, Code: 550, Text: "no"})
		}
		w.run()
		defer func() { w.stop() }()
		id := w.submit(envelopeTo("ann@test.lan", "a@one.example", "b@two.example"))
		synctest.Wait()
		if err := w.queue.Cancel(id); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		w.wantReports(0)
		if got := w.files(); w.queue.Len() != 0 || !slices.Equal(got, []string{queueTmp}) {
			t.Errorf("files: %q", got)
		}
	})
}

// A relay that is set or removed while a message is on its way does not send it a second time; what then still waits goes by it at once.
func TestQueueDestinationChangesWhileTrying(t *testing.T) {
	for _, state := range []SendState{SendSent, SendFailed, SendWaiting} {
		synctest.Test(t, func(t *testing.T) {
			w := openQueueWorld(t)
			var way atomic.Value
			way.Store("direct")
			w.queue.cfg.Destination = func(_, domain string) string { return way.Load().(string) }
			w.send = func(dest string, m *Outgoing) []Outcome {
				time.Sleep(time.Minute)
				if dest == "relay" {
					return sameOutcome(len(m.Recipients), Outcome{State: SendSent, Code: 250, Text: "fine"})
				}
				return sameOutcome(len(m.Recipients), Outcome{State: state, Code: 451, Text: "words"})
			}
			w.run()
			defer func() { w.stop() }()
			w.submit(envelopeTo("ann@test.lan", "a@one.example"))
			time.Sleep(time.Second)
			way.Store("relay")
			if err := w.queue.Retry(""); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Second)
			want := []string{"direct a@one.example"}
			if got := w.tried(); !slices.Equal(got, want) {
				t.Fatalf("%q: tries while the first one runs: %q", state, got)
			}
			time.Sleep(2 * time.Minute)
			if state == SendWaiting {
				want = append(want, "relay a@one.example")
			}
			if got := w.tried(); !slices.Equal(got, want) || w.queue.Len() != 0 {
				t.Errorf("%q: tries: %q, %d messages wait", state, got, w.queue.Len())
			}
		})
	}
}

// TestQueueClock sees that a clock which jumps makes no mail come back.
func TestQueueClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := openQueueWorld(t)
		jump := time.Duration(0)
		w.queue.cfg.Now = func() time.Time {
			w.mu.Lock()
			defer w.mu.Unlock()
			return time.Now().Add(jump)
		}
		w.answers(Outcome{Code: 451, Text: "later"})
		w.run()
		defer func() { w.stop() }()
		id := w.submit(envelopeTo("ann@test.lan", "a@one.example"))
		synctest.Wait()
		for _, to := range []time.Duration{56 * 365 * 24 * time.Hour, 0} { // a machine without a clock learns the time, and forgets it
			w.mu.Lock()
			jump = to
			tries := len(w.tries)
			w.mu.Unlock()
			time.Sleep(queueSweep + 2*queueGaps[len(queueGaps)-1])
			if _, err := w.queue.Entry(id); err != nil {
				t.Fatalf("given up after a jump: %v", err)
			}
			w.mu.Lock()
			if len(w.tries) == tries {
				t.Error("not tried any more after a jump")
			}
			w.mu.Unlock()
		}
	})
}

// TestQueueDamage sees what becomes of a folder that a crash or a person has changed.
func TestQueueDamage(t *testing.T) {
	w := openQueueWorld(t)
	good := w.submit(envelopeTo("ann@test.lan", "a@one.example"))
	cut := w.submit(envelopeTo("ann@test.lan", "b@one.example"))
	gone := w.submit(envelopeTo("ann@test.lan", "c@one.example"))
	if err := errors.Join(
		os.WriteFile(filepath.Join(w.dir, cut+queueState), []byte(`{"envelope`), 0o600),
		os.Remove(filepath.Join(w.dir, gone+queueMessage)),
		os.WriteFile(filepath.Join(w.dir, "orphan"+queueMessage), []byte("x"), 0o600),
		os.WriteFile(filepath.Join(w.dir, queueTmp, "half"), []byte("x"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	if list := w.queue.List(); len(list) != 1 || list[0].ID != good {
		t.Errorf("list: %+v", list)
	}
	want := []string{good + queueMessage, good + queueState, cut + queueMessage + ".damaged", cut + queueState + ".damaged", gone + queueState + ".damaged", queueTmp}
	slices.Sort(want)
	if got := w.files(); !slices.Equal(got, want) {
		t.Errorf("files: %q, want %q", got, want)
	}
	if left, _ := listNames(filepath.Join(w.dir, queueTmp)); len(left) != 0 {
		t.Errorf("tmp: %q", left)
	}
	if st, err := os.Stat(filepath.Join(w.dir, good+queueState)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode: %v %v", st.Mode(), err)
	}
}

// TestQueueRandom runs many messages with destinations that come and go and a queue that is stopped and read anew: each
// recipient is sent to exactly once, or reported exactly once.
func TestQueueRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := openQueueWorld(t)
		var round int
		w.send = func(dest string, m *Outgoing) []Outcome {
			outcomes := make([]Outcome, len(m.Recipients))
			for n, i := range m.Recipients {
				hash := len(m.Envelope.Recipients[i].Address)*7 + int(m.Envelope.Recipients[i].Address[1])
				switch (hash + round) % 4 {
				case 0:
					outcomes[n] = Outcome{State: SendSent}
				case 1:
					outcomes[n] = Outcome{State: SendFailed, Code: 550, Text: "no"}
				case 2:
					outcomes[n] = Outcome{Code: 450, Text: "later"}
				default:
					return sameOutcome(len(m.Recipients), Outcome{Text: "down", Unreachable: true})
				}
			}
			time.Sleep(time.Duration(len(dest)) * time.Second)
			return outcomes
		}
		all := map[string]bool{}
		for round = range 12 {
			w.run()
			for i := range 10 {
				var to []string
				for j := range 1 + i%4 {
					to = append(to, fmt.Sprintf("r%d-%d-%d@d%d.example", round, i, j, (i+j)%3))
				}
				for _, a := range to {
					all[a] = true
				}
				w.submit(envelopeTo("ann@test.lan", to...))
			}
			time.Sleep(time.Duration(round) * 11 * time.Minute)
			w.stop()
			w.reopen()
		}
		w.run()
		defer func() { w.stop() }()
		time.Sleep(queueLifetime + 5*time.Hour)
		if n := w.queue.Len(); n != 0 {
			t.Fatalf("%d left", n)
		}
		w.stop()
		reported := map[string]int{}
		for _, r := range w.reports {
			if strings.Contains(r, "Action: failed") {
				for line := range strings.Lines(r) {
					if a, ok := strings.CutPrefix(line, "Final-Recipient: rfc822; "); ok {
						reported[strings.TrimSpace(a)]++
					}
				}
			}
		}
		for a := range all {
			if n := w.sent["ann@test.lan>"+a] + reported[a]; n != 1 {
				for _, r := range w.reports {
					if strings.Contains(r, a) {
						t.Log(r)
					}
				}
				t.Errorf("%s: sent %d times, reported %d times", a, w.sent["ann@test.lan>"+a], reported[a])
			}
		}
	})
}

func TestXtext(t *testing.T) {
	if got := xtext("a b+c=d\x00é~"); got != "a+20b+2Bc+3Dd+00+C3+A9~" {
		t.Error(got)
	}
	if !bytes.Equal([]byte(xtext("plain@example.org")), []byte("plain@example.org")) {
		t.Error("plain text changed")
	}
}

// BenchmarkQueueOpen reads a queue of many messages and lists it.
func BenchmarkQueueOpen(b *testing.B) {
	w := openQueueWorld(b)
	const n = 10_000
	for i := range n {
		record := queueRecord{Envelope: *envelopeTo("ann@test.lan", fmt.Sprintf("u%d@d%d.example", i, i%100)), Queued: time.Now(), States: make([]recipientState, 1)}
		id := fmt.Sprintf("m%06d", i)
		if err := errors.Join(w.queue.files.write(id, &record, false), os.WriteFile(w.queue.files.path(id, queueMessage), []byte("Subject: x\r\n\r\n"), 0o600)); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			w.reopen()
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "µs/message")
	})
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			if len(w.queue.List()) != n {
				b.Fatal("not all")
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "µs/message")
	})
}

func TestQueueGiveUp(t *testing.T) {
	w := openQueueWorld(t)
	id := w.submit(envelopeTo("maria@home.test", "a@b.test", "c@d.test"))
	if err := w.queue.GiveUp(t.Context(), "none"); err != ErrNotQueued {
		t.Error(err)
	}
	if err := w.queue.GiveUp(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.wantReports(1)
	if text := w.reports[0]; !strings.Contains(text, "has given it up.") || strings.Count(text, "Action: failed") != 2 {
		t.Error(text)
	}
	if files := w.files(); len(files) != 1 || w.queue.Len() != 0 {
		t.Errorf("left: %v", files) // tmp alone
	}
	trying, goOn := make(chan struct{}), make(chan struct{})
	w.send = func(string, *Outgoing) []Outcome {
		close(trying)
		<-goOn
		return []Outcome{{State: SendSent}}
	}
	id = w.submit(envelopeTo("maria@home.test", "a@b.test"))
	w.run()
	<-trying
	if err := w.queue.GiveUp(t.Context(), id); err != ErrBeingTried {
		t.Error(err)
	}
	close(goOn)
	w.stop()
}
