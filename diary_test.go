package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

func utc() *time.Location { return time.UTC }

// testDiary gives a diary and the log that feeds it.
func testDiary(t testing.TB, now func() time.Time) (*Diary, *slog.Logger) {
	t.Helper()
	d := OpenDiary(filepath.Join(t.TempDir(), "diary"), utc, now)
	return d, d.Watch(slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError})))
}

// find gives what is found, an event a word: KIND:TO.
func (d *Diary) find(t *testing.T, s DiarySearch) string {
	t.Helper()
	if s.Most == 0 {
		s.Most = diaryMost
	}
	events, more, err := d.Find(s)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, e := range events {
		words = append(words, string(e.Kind)+":"+strings.Join(e.To, "+"))
	}
	if more {
		words = append(words, "more")
	}
	return strings.Join(words, " ")
}

func TestDiary(t *testing.T) {
	d, log := testDiary(t, nil)
	conn := log.With("conn", "1", "remote", "192.0.2.7")
	conn.Info("delivered", "id", "one", "account", "", "from", "ann@far.test", "to", "bob@home.lan maria@home.lan", "junk", "maria@home.lan", "size", int64(1234))
	conn.Info("rejected", "protocol", "smtp", "account", "", "from", "ann@far.test", "to", "Nobody@home.lan", "code", 550, "status", "5.1.1", "reason", "There is no\x1b[2J\n Nobody@home.lan here")
	conn.Warn("rejected", "protocol", "imap", "user", "bob", "reason", "wrong user or password")
	log.Warn("rejected", "protocol", "web", "page", "GET /people", "account", "bob@home.lan", "reason", "forbidden") // is about no mail
	conn.Info("login", "protocol", "imap", "account", "bob@home.lan", "via", "")
	log.Info("delivered", "collected", "imap.isp.test", "to", "bob@home.lan", "folder", "INBOX", "junk", "", "size", int64(5))
	queued := log.With("id", "two", "account", "bob@home.lan", "from", "bob@home.lan", "to", "friend@far.test", "remote", "mx.far.test [192.0.2.9]")
	queued.With("status", "4.2.2", "reply", "full").Info("deferred", "next", time.Now())
	queued.Info("sent", "here", false)
	queued.Info("sent", "here", true) // the mailbox has told of it
	queued.With("status", "5.1.1", "reply", "no such user").Warn("bounced")
	log.Error(smtpFailure, "doing", "receiving", "error", errors.New("secret of the disk"), "from", "x@far.test", "to", "bob@home.lan")
	log.Info("forwarded", "account", "bob@home.lan", "id", "three", "from", "SRS0=a=b=far.test=ann@home.lan", "to", "bob@elsewhere.test", "kept", true)
	log.Info("cancelled", "id", "three", "from", "bob@home.lan", "to", "friend@far.test")
	log.Info("learned", "account", "bob@home.lan", "messages", 3, "unwanted", true)
	log.Info("listening", "protocol", "smtp")

	all := DiarySearch{Mail: true, Refused: true}
	want := "cancelled:friend@far.test forwarded:bob@elsewhere.test refused:bob@home.lan bounced:friend@far.test sent:friend@far.test deferred:friend@far.test " +
		"collected:bob@home.lan login: refused:Nobody@home.lan delivered:bob@home.lan+maria@home.lan"
	if got := d.find(t, all); got != want {
		t.Errorf("all: %s", got)
	}
	for _, test := range []struct {
		s    DiarySearch
		want string
	}{
		{DiarySearch{Text: "NOBODY@", Mail: true, Refused: true}, "refused:Nobody@home.lan"},
		{DiarySearch{Text: "192.0.2.9", Mail: true, Refused: true}, "bounced:friend@far.test sent:friend@far.test deferred:friend@far.test"},
		{DiarySearch{Text: `delivered`, Mail: true, Refused: true}, ""}, // a word of the file, and of no event
		{DiarySearch{Text: "maria", Mail: true}, "delivered:bob@home.lan+maria@home.lan"},
		{DiarySearch{Refused: true}, "refused:bob@home.lan login: refused:Nobody@home.lan"},
		{DiarySearch{Refused: true, Most: 1}, "refused:bob@home.lan more"},
		{DiarySearch{Names: []string{"elsewhere.example", "NOBODY@"}, Mail: true, Refused: true}, "refused:Nobody@home.lan"},
		{DiarySearch{Mail: true, Most: 2, Keep: func(e *DiaryEvent) bool { return e.ID == "two" }}, "bounced:friend@far.test sent:friend@far.test more"},
	} {
		if got := d.find(t, test.s); got != test.want {
			t.Errorf("%+v: %q", test.s, got)
		}
	}
	events, _, err := d.Find(DiarySearch{Text: "nobody@home.lan", Refused: true, Most: 1})
	if err != nil || len(events) != 1 || events[0].Reason != "There is no?[2J Nobody@home.lan here" || events[0].Remote != "192.0.2.7" || events[0].Code != 550 {
		t.Errorf("%+v %v", events, err)
	}
	totals := d.Totals()
	for c, n := range map[DiaryCount]uint64{
		{What: "delivered"}: 1, {What: "junk"}: 1, {What: "collected"}: 1, {What: "sent"}: 1, {What: "bounced"}: 1, {What: "learned"}: 3,
		{What: "login", Protocol: "imap"}: 1, {What: "login", Protocol: "imap", Failed: true}: 1,
		{What: "refused", Protocol: "smtp", Code: 5}: 1, {What: "refused", Protocol: "smtp", Code: 4}: 1,
	} {
		if totals[c] != n {
			t.Errorf("%+v: %d, want %d", c, totals[c], n)
		}
	}

	// A restart loses nothing.
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again := OpenDiary(d.dir, utc, nil)
	if got := again.find(t, all); got != want {
		t.Errorf("after a restart: %s", got)
	}
	if day := again.Days(1)[0]; day.In != 3 || day.Junk != 1 || day.Out != 1 || day.Refused != 2 || day.Bounced != 1 {
		t.Errorf("%+v", day)
	}
	for _, file := range []string{d.mailFile(), d.refusedFile(), d.daysFile()} {
		text, err := os.ReadFile(file)
		if err != nil || strings.Contains(string(text), "secret") {
			t.Errorf("%s: %v\n%s", file, err, text)
		}
	}
	checkClosed(t, d.dir)
}

// checkClosed holds that nobody else may read what lies in a folder.
func checkClosed(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err != nil || os.PathSeparator == '/' && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", entry.Name(), info.Mode(), err)
		}
	}
}

// What strangers make pushes out nothing else, and all of it has a bound.
func TestDiaryBounds(t *testing.T) {
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	d, log := testDiary(t, nil)
	log.Info("delivered", "from", "ann@far.test", "to", "bob@home.lan")
	refuse := func(n int) {
		for i := range n {
			from, to := "ann@far.test", "bob@home.lan"
			if i == 0 {
				from, to = strings.Repeat("x", 400), strings.Repeat("y ", diaryPeople+7)
			}
			r := slog.NewRecord(at, slog.LevelInfo, "rejected", 0)
			r.Add("protocol", "smtp", "from", from, "to", to, "code", 550, "reason", strings.Repeat("z", 1000))
			_ = log.Handler().Handle(t.Context(), r)
		}
	}
	for range 5 {
		refuse(diaryRefusals + 50)
		d.flush()
		at = at.Add(time.Minute)
	}
	refuse(1)
	events, _, err := d.Find(DiarySearch{Refused: true, Most: diaryMost})
	if err != nil || len(events) != diaryMost || events[1].More != 50 || len(events[0].From) != diaryAddress || events[0].More != 7 || len([]rune(events[0].Reason)) != diaryReason+1 {
		t.Errorf("%d %v", len(events), err)
	}
	for _, file := range []string{d.refusedFile(), before(d.refusedFile())} {
		if info, err := os.Stat(file); err == nil && info.Size() > diaryFileSize+diaryWaiting*1000 {
			t.Errorf("%s has %d bytes", file, info.Size())
		}
	}
	if got := d.find(t, DiarySearch{Mail: true}); got != "delivered:bob@home.lan" {
		t.Errorf("mail: %s", got)
	}
	if n := d.Totals()[DiaryCount{What: "refused", Protocol: "smtp", Code: 5}]; n != 5*(diaryRefusals+50)+1 {
		t.Errorf("%d are counted", n)
	}
}

// A file that is full makes room for the next; a search goes back into the one before it.
func TestDiaryNextFile(t *testing.T) {
	d, log := testDiary(t, nil)
	long := strings.Repeat("w", 250)
	n := 0
	for ; ; n++ {
		log.Info("delivered", "from", long, "to", fmt.Sprintf("person%d@home.lan", n))
		if n%diaryHurry == 0 {
			d.flush()
			if _, err := os.Stat(before(d.mailFile())); err == nil {
				break
			}
		}
	}
	log.Info("delivered", "from", "ann@far.test", "to", "last@home.lan")
	if got := d.find(t, DiarySearch{Text: "person0@", Mail: true}); got != "delivered:person0@home.lan" {
		t.Errorf("the first of %d: %q", n, got)
	}
	if got := d.find(t, DiarySearch{Mail: true, Most: 2}); got != fmt.Sprintf("delivered:last@home.lan delivered:person%d@home.lan more", n) {
		t.Error(got)
	}
	// A power cut tears a line; what comes next is whole.
	f, err := os.OpenFile(d.mailFile(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.WriteString(`{"time":"2026-`)
	f.Close()
	log.Info("delivered", "from", "ann@far.test", "to", "next@home.lan")
	if got := d.find(t, DiarySearch{Text: "ann@far.test", Mail: true}); got != "delivered:next@home.lan delivered:last@home.lan" {
		t.Error(got)
	}
}

// The files are written by themselves a moment later, and what they cannot take is no trouble to mail.
func TestDiaryWrites(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		d := OpenDiary(filepath.Join(dir, "diary"), utc, nil)
		log := d.Watch(slog.New(slog.NewTextHandler(&out, nil)))
		log.Info("delivered", "from", "ann@far.test", "to", "bob@home.lan")
		if _, err := os.Stat(d.mailFile()); err == nil {
			t.Error("it was written at once")
		}
		time.Sleep(diaryDelay + time.Millisecond)
		synctest.Wait()
		if text, err := os.ReadFile(d.mailFile()); err != nil || !strings.Contains(string(text), "bob@home.lan") {
			t.Errorf("%s %v", text, err)
		}
		broken := OpenDiary(filepath.Join(d.mailFile(), "diary"), utc, nil)
		log = broken.Watch(slog.New(slog.NewTextHandler(&out, nil)))
		for range 3 {
			log.Info("delivered", "from", "ann@far.test", "to", "bob@home.lan")
			time.Sleep(2 * diaryDelay)
			synctest.Wait()
		}
		if n := strings.Count(out.String(), "what has become of mail cannot be written"); n != 1 {
			t.Errorf("said %d times:\n%s", n, out.String())
		}
		if broken.Close() == nil {
			t.Error("what cannot be written is no error at the end")
		}
		_ = d.Close()
	})
}

func TestDiaryDays(t *testing.T) {
	at := time.Date(2026, 1, 1, 23, 30, 0, 0, time.UTC)
	now := func() time.Time { return at }
	zone := time.FixedZone("east", 3600)
	dir := filepath.Join(t.TempDir(), "diary")
	d := OpenDiary(dir, func() *time.Location { return zone }, now)
	for range diaryDaysKept + 50 {
		d.add(&DiaryEvent{Time: at, Kind: DiarySent})
		at = at.AddDate(0, 0, 1)
	}
	at = at.AddDate(0, 0, -1)
	if len(d.days.list) != diaryDaysKept {
		t.Errorf("%d days", len(d.days.list))
	}
	days := d.Days(30)
	if last := days[29]; last.Day != at.In(zone).Format(time.DateOnly) || last.Out != 1 || days[0].Out != 1 || days[0].Day != at.In(zone).AddDate(0, 0, -29).Format(time.DateOnly) {
		t.Errorf("%+v", days)
	}
	d.add(&DiaryEvent{Time: at.AddDate(-3, 0, 0), Kind: DiarySent}) // the clock was wrong
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if again := OpenDiary(dir, func() *time.Location { return zone }, now).Days(30); again[29] != days[29] {
		t.Errorf("%+v", again[29])
	}
	if err := os.WriteFile(d.daysFile(), []byte(`[{"day":"x"},{"day":"2026-01-02","in":1},{"day":"2026-01-02"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if again := OpenDiary(dir, utc, now); len(again.days.list) != 0 {
		t.Errorf("damage: %+v", again.days.list)
	}
}

// Whatever the sizes of lines and pieces are, a search finds what a look at each event finds.
func TestDiaryFind(t *testing.T) {
	d, _ := testDiary(t, nil)
	if err := makeDiaryDir(d.dir); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	words := []string{"Ann@Far.Test", "ann@far.test", "BOB@home.lan", "bob@home.lan", "Jörg@far.test", "JÖRG@far.test", "<a&b>@[far]", "Zoë{|}@`far`", "x"}
	var all []DiaryEvent // the last first
	var text bytes.Buffer
	line := json.NewEncoder(&text)
	line.SetEscapeHTML(false)
	for n := range 3000 {
		e := DiaryEvent{Time: time.Unix(int64(n), 0).UTC(), Kind: DiaryDelivered, From: words[random.IntN(len(words))], To: []string{words[random.IntN(len(words))]}}
		if n%500 == 250 { // longer than a piece
			e.To = slices.Repeat(e.To, 3*diaryPiece/len(e.To[0]))
		}
		e.Reason = strings.Repeat("r", random.IntN(60))
		all = slices.Insert(all, 0, e)
		if err := line.Encode(&e); err != nil {
			t.Fatal(err)
		}
	}
	whole := text.Bytes()
	half := bytes.IndexByte(whole[len(whole)/2:], '\n') + len(whole)/2 + 1
	for file, part := range map[string][]byte{before(d.mailFile()): whole[:half], d.mailFile(): whole[half:]} {
		if err := os.WriteFile(file, part, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []DiarySearch{{}, {Text: "ann@"}, {Text: "ANN@FAR"}, {Text: "jörg"}, {Text: "<A&B>@["}, {Text: "{|}@`"}, {Text: "nobody"}, {Text: "rrrrrrrrr", Names: []string{"bob"}},
		{Names: []string{"Bob@HOME.lan", "ann"}}, {Text: "x", Names: []string{"x"}}} {
		s.Mail = true
		s.Keep = func(e *DiaryEvent) bool {
			line, _ := json.Marshal(e)
			return len(s.Names) == 0 || slices.ContainsFunc(s.Names, func(name string) bool { return bytes.Contains(bytes.ToLower(line), []byte(strings.ToLower(name))) })
		}
		want := slices.DeleteFunc(slices.Clone(all), func(e DiaryEvent) bool { return !e.says(s.Text) || !s.Keep(&e) })
		for _, s.Most = range []int{1, 7, 400} {
			got, more, err := d.Find(s)
			if n := min(s.Most, len(want)); err != nil || more != (len(want) > n) || !reflect.DeepEqual(got, want[:n]) && n > 0 {
				t.Errorf("%q %q, %d at most: %d events, more %v, %v; want %d of %d", s.Text, s.Names, s.Most, len(got), more, err, n, len(want))
			}
		}
	}
}

// Letters are made small as bytes.ToLower does with ASCII.
func TestAppendSmall(t *testing.T) {
	var text []byte
	for c := range 256 {
		text = append(text, byte(c), 'Q', byte(255-c))
	}
	want := slices.Clone(text)
	for i, c := range want {
		if c < utf8.RuneSelf {
			want[i] = bytes.ToLower([]byte{c})[0]
		}
	}
	for n := range len(text) {
		if got := appendSmall([]byte("X"), text[n:]); string(got) != "X"+string(want[n:]) {
			t.Fatalf("from %d: %q, want %q", n, got, want[n:])
		}
	}
}

// BenchmarkDiary measures what an event costs whoever logs it.
func BenchmarkDiary(b *testing.B) {
	for name, watch := range map[string]bool{"without": false, "with": true} {
		b.Run(name, func(b *testing.B) {
			log := slog.New(slog.NewTextHandler(io.Discard, nil))
			if watch {
				d := OpenDiary(filepath.Join(b.TempDir(), "diary"), utc, nil)
				defer d.Close()
				log = d.Watch(log)
			}
			log = log.With("conn", "1", "remote", "192.0.2.7")
			b.ReportAllocs()
			for b.Loop() {
				log.Info("delivered", "id", "abcdefgh", "account", "", "from", "ann@far.test", "to", "bob@home.lan", "junk", "", "size", int64(1234))
			}
		})
	}
}
