package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// corpusMail is one message of the real mail.
type corpusMail struct {
	path string
	spam bool
	odd  bool
}

// corpusMails lists the real mail, or skips the test.
func corpusMails(t testing.TB) (mails []corpusMail) {
	t.Helper()
	for _, path := range corpusFiles(t) {
		digit := strings.TrimSuffix(path, ".eml")
		digit = digit[len(digit)-1:]
		mails = append(mails, corpusMail{path, filepath.Base(filepath.Dir(path)) == "spam", strings.Contains("13579", digit)})
	}
	return mails
}

// taughtFilter is a filter that has learned the odd ones.
func taughtFilter(t testing.TB, mails []corpusMail) *SpamFilter {
	t.Helper()
	f := testSpamFilter(t, SpamConfig{})
	for _, m := range mails {
		class := classHam
		if m.spam {
			class = classSpam
		}
		if !m.odd {
			continue
		}
		if r, err := trainDir(f, m.path, class); err != nil || len(r.Skipped) > 0 {
			t.Fatal(r, err)
		}
	}
	return f
}

// TestSpamCorpus trains with the odd half of the real mail and judges the even half: of 500 wanted messages at most one may
// be called spam, of 100 unwanted ones at most five missed.
func TestSpamCorpus(t *testing.T) {
	mails := corpusMails(t)
	f := taughtFilter(t, mails)
	var wanted, unwanted, wrong, missed int
	for _, m := range mails {
		if m.odd {
			continue
		}
		verdict := judgeFile(t, f, m.path)
		junk := verdict.Folder == junkName
		switch {
		case m.spam:
			unwanted++
			if !junk {
				missed++
				t.Logf("missed: %s\n%s", m.path, verdict.Fields)
			}
		default:
			wanted++
			if junk {
				wrong++
				t.Logf("called spam: %s\n%s", m.path, verdict.Fields)
			}
		}
	}
	t.Logf("%d of %d wanted messages called spam, %d of %d unwanted ones missed", wrong, wanted, missed, unwanted)
	if wrong*500 > wanted+499 || wrong > wanted/500 || missed*100 > 5*unwanted {
		t.Error("more mistakes than allowed")
	}
}

// judgeFile judges a message as one that was collected: nothing but itself tells of it.
func judgeFile(t testing.TB, f *SpamFilter, path string) Verdict {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	verdict, err := f.JudgeCollected(context.Background(), "ann@test.lan", file, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	return verdict
}

// BenchmarkSpamScore scores real messages, one after another, as they lie on disk.
func BenchmarkSpamScore(b *testing.B) {
	mails := corpusMails(b)
	f := taughtFilter(b, mails)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		judgeFile(b, f, mails[i%len(mails)].path)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
