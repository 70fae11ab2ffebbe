package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// movedClock is a clock that a test moves.
type movedClock struct {
	mu sync.Mutex
	at time.Time
}

func (c *movedClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *movedClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// openRulesWorld is openOutWorld whose people have rules for what arrives; what says "unwanted" is judged to be so.
func openRulesWorld(t *testing.T) (*outWorld, *movedClock) {
	t.Helper()
	clock := &movedClock{at: time.Now()}
	w := openOutWorldOf(t, &Protocols{Judge: func(_ context.Context, m *ReceivedMail) (Verdict, error) {
		text := make([]byte, m.Size)
		if _, err := m.Message.ReadAt(text, 0); err != nil {
			return Verdict{}, err
		}
		if strings.Contains(string(text), "Subject: unwanted") {
			return Verdict{Folder: junkName}, nil
		}
		return Verdict{}, nil
	}})
	signer := &DKIMSigner{Dir: t.TempDir(), IsLocal: w.Accounts.IsLocalDomain}
	w.adjust = func(s *Sender) { s.Sign = signer.Sign }
	w.clock = clock.now
	var err error
	if w.srs, err = OpenSRS("", slog.New(slog.DiscardHandler), clock.now); err != nil {
		t.Fatal(err)
	}
	w.reopen(w.next.port)
	return w, clock
}

// arrives brings a message from elsewhere.
func (w *outWorld) arrives(from, text string, to ...string) {
	w.t.Helper()
	c := w.raw(w.t, "smtp")
	defer c.Close()
	c.send("EHLO mx.friends.test\r\nMAIL FROM:<" + from + ">\r\n")
	c.expect("220 ", "250 ", "250 ")
	for _, rcpt := range to {
		c.send("RCPT TO:<" + rcpt + ">\r\n")
		c.expect("250 ")
	}
	c.send("DATA\r\n" + strings.ReplaceAll(text, "\r\n.", "\r\n..") + "\r\n.\r\n")
	c.expect("354 ", "250 ")
}

// awaitNoSessions waits until the sessions whose clients have gone are over: they use what reopen changes.
func (w *outWorld) awaitNoSessions() {
	w.t.Helper()
	for range 2000 {
		w.mu.Lock()
		n := len(w.conns)
		w.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.t.Fatal("a session does not end")
}

// answered gives to whom messages have gone out, sorted, when nothing waits any more: one for cat comes last, and is answered.
func (w *outWorld) answered() (to []string) {
	w.t.Helper()
	w.setAway("cat@test.lan", AwayNote{Text: "Away"})
	w.markers++
	mark := fmt.Sprintf("mark%d@friends.test", w.markers)
	w.arrives(mark, "To: cat@test.lan\r\n\r\n", "cat@test.lan")
	gone := func() bool {
		w.next.mu.Lock()
		defer w.next.mu.Unlock()
		return slices.ContainsFunc(w.next.got, func(m nextMail) bool { return m.to[0] == mark })
	}
	w.until("the last answer", gone)
	w.empty()
	w.next.mu.Lock()
	defer w.next.mu.Unlock()
	for _, m := range w.next.got {
		if !strings.HasPrefix(m.to[0], "mark") {
			to = append(to, m.to...)
		}
	}
	slices.Sort(to)
	return to
}

// quiet waits until all sessions have ended: what they use is changed by reopen.
func (w *outWorld) quiet() {
	w.t.Helper()
	w.until("the end of the sessions", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.conns) == 0
	})
}

func (w *outWorld) setAway(account string, note AwayNote) {
	w.t.Helper()
	if _, err := w.Accounts.SetAway(account, &note); err != nil {
		w.t.Fatal(err)
	}
}

func TestAwayAnswer(t *testing.T) {
	w, _ := openRulesWorld(t)
	w.setAway("bob@test.lan", AwayNote{Text: "Ich bin im Süden.\n\n.Bob"})
	w.arrives("friend@friends.test", "From: friend@friends.test\r\nTo: Bob+x <BOB+x@test.lan>\r\nMessage-ID: <a1@friends.test>\r\nReferences: <a0@friends.test> junk\r\n"+
		"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nAuto-Submitted: no (a person)\r\n\r\nhi", "bob+x@test.lan")
	m := w.next.wait(t)
	if m.from != "" || !slices.Equal(m.to, []string{"friend@friends.test"}) {
		t.Errorf("envelope: %q %v", m.from, m.to)
	}
	for _, want := range []string{
		"From: <BOB+x@test.lan>\r\n", "To: <friend@friends.test>\r\n", "Subject: =?utf-8?q?Auto:_Gr=C3=BC=C3=9Fe?=\r\n",
		"In-Reply-To: <a1@friends.test>\r\n", "References: <a0@friends.test>\r\n <a1@friends.test>\r\n", "Auto-Submitted: auto-replied\r\n",
		"\r\n\r\nIch bin im S=C3=BCden.\r\n\r\n.Bob\r\n", "DKIM-Signature: ", "d=test.lan;",
	} {
		if !strings.Contains(m.text, want) {
			t.Errorf("%q is not in\n%s", want, m.text)
		}
	}
	if got := w.wait("bob@test.lan", 1); !strings.Contains(got[0], "\r\n\r\nhi") {
		t.Error("the message itself is lost")
	}
	w.setAway("bob@test.lan", AwayNote{Text: "Later", Subject: "Gone"})
	w.arrives("other@friends.test", "To: bob@test.lan\r\nSubject: x\r\n\r\n", "bob@test.lan")
	if m = w.next.wait(t); !strings.Contains(m.text, "Subject: Auto: Gone\r\n") || strings.Contains(m.text, "\r\nIn-Reply-To:") {
		t.Errorf("a subject of one's own:\n%s", m.text)
	}
}

// TestAwayNobodyElse has all kinds of messages come that are not to be answered, and one at the end that is.
func TestAwayNobodyElse(t *testing.T) {
	w, _ := openRulesWorld(t)
	w.setAway("bob@test.lan", AwayNote{Text: "Away"})
	for i, header := range []string{
		"Auto-Submitted: auto-replied", "Auto-Submitted: auto-generated; x=y", "Precedence: bulk", "precedence: List", "Precedence: junk",
		"List-Id: <a.b>", "LIST-UNSUBSCRIBE: <mailto:x@y.z>", "X-Auto-Response-Suppress: DR, OOF", "X-Auto-Response-Suppress: All",
		"Content-Type: multipart/report; report-type=delivery-status; boundary=x", "Subject: unwanted", "X-Mailing-List: x",
	} {
		w.arrives(fmt.Sprintf("h%d@friends.test", i), "To: bob@test.lan\r\n"+header+"\r\n\r\n", "bob@test.lan")
	}
	for i, to := range []string{"To: undisclosed-recipients:;", "To: team@test.lan", "To: ann@test.lan", "Bcc: bob@test.lan", "To: x@friends.test", "X: y"} {
		w.arrives(fmt.Sprintf("t%d@friends.test", i), to+"\r\n\r\n", "bob@test.lan")
	}
	for _, from := range []string{"", "MAILER-DAEMON@friends.test", "owner-list@friends.test", "list-request@friends.test", "no-reply@friends.test",
		"noreply+1@friends.test", "do_not_reply@friends.test", "list-bounces@friends.test", "bounce-17@friends.test", "bob@test.lan", "bob+me@test.lan"} {
		w.arrives(from, "To: bob@test.lan\r\n\r\n", "bob@test.lan")
	}
	w.arrives("cc@friends.test", "To: x@friends.test\r\nCc: team@test.lan, Bob <bob@test.lan>\r\n\r\n", "bob@test.lan")
	w.arrives("resent@friends.test", "To: x@friends.test\r\nResent-To: bob@test.lan\r\n\r\n", "bob@test.lan", "ann@test.lan")
	w.arrives("huge@friends.test", "To: bob@test.lan\r\n"+strings.Repeat("X: "+strings.Repeat("y", 900)+"\r\n", maxRuledHeader/900)+"\r\n", "bob@test.lan")
	if got := w.answered(); !slices.Equal(got, []string{"cc@friends.test", "resent@friends.test"}) {
		t.Errorf("answered: %v", got)
	}
	if n := len(w.inboxOf(t, "bob@test.lan")); n != 12-1+6+11+3 {
		t.Errorf("%d messages in the INBOX", n)
	}
}

func TestAwayDays(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at := func(text string) time.Time {
		day, err := time.ParseInLocation("2006-01-02 15:04:05", text, berlin)
		if err != nil {
			t.Fatal(err)
		}
		return day
	}
	note := AwayNote{Text: "x", From: "2026-12-24", Until: "2027-01-02", Zone: "Europe/Berlin"}
	for when, want := range map[string]bool{"2026-12-23 23:59:59": false, "2026-12-24 00:00:00": true, "2027-01-02 23:59:59": true, "2027-01-03 00:00:00": false} {
		if got := note.Active(at(when), time.UTC); got != want {
			t.Errorf("%s: %t", when, got)
		}
	}
	note.Zone = ""
	if note.Active(at("2026-12-24 00:30:00"), time.UTC) || !note.Active(at("2026-12-24 00:30:00"), berlin) {
		t.Error("the zone of the house does not count")
	}
	for _, bad := range []AwayNote{{}, {Text: " \r\n"}, {Text: "a\x00b"}, {Text: "\xff"}, {Text: strings.Repeat("x", maxAwayText+1)}, {Text: "x", Subject: "a\nb"},
		{Text: "x", From: "24.12.2026"}, {Text: "x", Until: "2026-13-01"}, {Text: "x", From: "2026-12-24", Until: "2026-12-23"}, {Text: "x", Zone: "Mars/Base"}, {Text: "x", Zone: "../x"}} {
		if _, err := bad.check(); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// TestAwayOnceAWeek compares who is answered with a plain model, at random times, with restarts and with a clock that is set back.
func TestAwayOnceAWeek(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(7, 8))
	dir := filepath.Join(t.TempDir(), "away")
	memory := NewAwayMemory(dir)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	last := map[string]time.Time{}
	answers := 0
	for range 5000 {
		now = now.Add(time.Duration(random.IntN(5000)) * time.Second)
		if random.IntN(20) == 0 {
			memory = NewAwayMemory(dir)
		}
		account, sender := fmt.Sprintf("p%d@home.lan", random.IntN(3)), fmt.Sprintf("s%d@example.org", random.IntN(40))
		key := account + " " + sender
		before, told := last[key]
		want := !told || now.Sub(before) >= awayGap
		got, err := memory.take(account, sender, now)
		if err != nil || got != want {
			t.Fatalf("%s at %s, answered last at %s: %t, %v", key, now, before, got, err)
		}
		if got {
			last[key] = now.Truncate(time.Second)
			answers++
		}
	}
	if answers < 500 || answers > 4500 {
		t.Errorf("%d answers tell little", answers)
	}
	memory.take("p0@home.lan", "late@example.org", now.Add(1000*24*time.Hour))
	if got, _ := memory.take("p0@home.lan", "late@example.org", now); got {
		t.Error("answered again when the clock was set back")
	}
	if got, _ := memory.take("p0@home.lan", "late@example.org", now.Add(awayGap)); !got {
		t.Error("a clock that was wrong once silences for ever")
	}
}

func TestAwayMemoryIsBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "away")
	memory, now := NewAwayMemory(dir), time.Now()
	senders := map[string]time.Time{}
	for i := range awaySenders - 1 {
		senders[fmt.Sprintf("s%d@example.org", i)] = now
	}
	if err := memory.write("bob@home.lan", senders); err != nil {
		t.Fatal(err)
	}
	if got, err := memory.take("bob@home.lan", "one@example.org", now); !got || err != nil {
		t.Fatal(got, err)
	}
	if got, err := memory.take("bob@home.lan", "two@example.org", now); got || !errors.Is(err, errAwayFull) {
		t.Fatal(got, err)
	}
	if got, err := memory.take("bob@home.lan", "two@example.org", now.Add(awayGap)); !got || err != nil {
		t.Fatal(got, err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if info, err := files[0].Info(); err != nil || info.Size() > 200 {
		t.Errorf("what is over is kept: %v %v", info, err)
	}
	if err := memory.Forget("bob@home.lan"); err != nil {
		t.Fatal(err)
	}
	if got, _ := memory.take("bob@home.lan", "one@example.org", now.Add(awayGap)); !got {
		t.Error("nothing was forgotten")
	}
}

// TestAwayAcrossRestarts writes again after a restart, and after a week.
func TestAwayAcrossRestarts(t *testing.T) {
	w, clock := openRulesWorld(t)
	w.setAway("bob@test.lan", AwayNote{Text: "Away"})
	write := func() []string {
		w.arrives("friend@friends.test", "To: bob@test.lan\r\n\r\n", "bob@test.lan")
		return w.answered()
	}
	for i, want := range []int{1, 1, 1, 2, 2} {
		if i == 2 {
			w.awaitNoSessions()
			w.quiet()
			w.reopen(w.next.port)
		}
		if i == 3 {
			clock.add(awayGap)
		}
		if got := write(); len(got) != want {
			t.Fatalf("message %d: answers %v, want %d", i+1, got, want)
		}
	}
	if _, err := w.Accounts.SetAway("bob@test.lan", nil); err != nil {
		t.Fatal(err)
	}
	clock.add(awayGap)
	if got := write(); len(got) != 2 {
		t.Errorf("answered without a note: %v", got)
	}
	w.setAway("bob@test.lan", AwayNote{Text: "Away", From: clock.now().AddDate(0, 0, 2).Format(time.DateOnly)})
	if got := write(); len(got) != 2 {
		t.Errorf("answered before the first day: %v", got)
	}
}

// TestAwayHourlyLimit has more people write within an hour than are answered.
func TestAwayHourlyLimit(t *testing.T) {
	w, clock := openRulesWorld(t)
	w.setAway("bob@test.lan", AwayNote{Text: "Away"})
	for i := range awayPerHour + 3 {
		w.arrives(fmt.Sprintf("s%d@friends.test", i), "To: bob@test.lan\r\n\r\n", "bob@test.lan")
	}
	if got := w.answered(); len(got) != awayPerHour {
		t.Errorf("%d answers", len(got))
	}
	clock.add(time.Hour)
	w.arrives("s31@friends.test", "To: bob@test.lan\r\n\r\n", "bob@test.lan")
	if got := w.answered(); len(got) != awayPerHour+1 {
		t.Errorf("%d answers after the hour", len(got))
	}
}

// TestAwayBetweenPeopleHere answers those who have an account here, by both ways in which their mail is delivered.
func TestAwayBetweenPeopleHere(t *testing.T) {
	w, _ := openRulesWorld(t)
	w.setAway("bob@test.lan", AwayNote{Text: "Away"})
	w.setAway("ann@test.lan", AwayNote{Text: "Away, too"})
	w.submit("", "To: bob@test.lan\r\nSubject: direct\r\n\r\nhi", "<bob@test.lan>")
	got := w.wait("ann@test.lan", 1)
	if !strings.Contains(got[0], "Subject: Auto: direct\r\n") || !strings.HasPrefix(got[0], "Return-Path: <>\r\n") {
		t.Errorf("ann has %q", got)
	}
	w.empty()
	if got := w.inboxOf(t, "bob@test.lan"); len(got) != 1 {
		t.Errorf("answers are answered: %q", got)
	}
	w.setAway("cat@test.lan", AwayNote{Text: "Away"})
	w.submit("", "To: cat@test.lan, x@friends.test\r\nSubject: queued\r\n\r\nhi", "<cat@test.lan>", "<x@friends.test>")
	if got := w.wait("ann@test.lan", 2); !slices.ContainsFunc(got, func(text string) bool { return strings.Contains(text, "Subject: Auto: queued\r\n") }) {
		t.Errorf("ann has %q", got)
	}
}

// TestAwayCommand sets, shows and ends a note, with the appliance running and without.
func TestAwayCommand(t *testing.T) {
	data := pageData(t)
	file := filepath.Join(t.TempDir(), "note.txt")
	if err := os.WriteFile(file, []byte("I am away.\r\nBob\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		out := mustRun(t, data, "user", "away", "bob", "--text-file", file, "--subject", "Gone", "--from", "2026-12-24", "--until", "2027-01-02")
		if out != "bob@home.lan has an out-of-office note from 2026-12-24 until 2027-01-02.\n\n  Subject: Auto: Gone\n\n  I am away.\n  Bob\n" {
			t.Errorf("%q", out)
		}
		if again := mustRun(t, data, "user", "away", "bob"); again != out {
			t.Errorf("%q", again)
		}
		if list := mustRun(t, data, "user", "list"); !strings.Contains(list, "out-of-office note from 2026-12-24 until 2027-01-02") {
			t.Error(list)
		}
		if out := mustRun(t, data, "user", "away", "bob", "off"); out != "bob@home.lan has no out-of-office note.\n" {
			t.Errorf("%q", out)
		}
	}
	check()
	startRun(t, data)
	check()
	status, _, errs := runCommand(t, data, "From standard input", "user", "away", "bob", "--text-file", "-", "--until", "tomorrow")
	if status != exitFailed || !strings.Contains(errs, "write it as 2026-12-24") {
		t.Error(status, errs)
	}
	for _, args := range [][]string{{"user", "away", "bob", "on"}, {"user", "away", "bob", "--until", "2027-01-02"}, {"user", "away", "bob", "off", "--text-file", file}} {
		if status, _, errs := runCommand(t, data, "", args...); status != exitUsage {
			t.Errorf("%v: %d %s", args, status, errs)
		}
	}
	if status, _, errs := runCommand(t, data, "x", "user", "away", "nobody", "--text-file", "-"); status != exitFailed || !strings.Contains(errs, "nobody@home.lan has no account here") {
		t.Error(status, errs)
	}
}
