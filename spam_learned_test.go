package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// testLearned opens what was learned in a folder.
func testLearned(t testing.TB, dir string, log *syncBuffer) *spamLearned {
	t.Helper()
	if log == nil {
		log = new(syncBuffer)
	}
	l, err := openLearned(dir, slog.New(slog.NewTextHandler(log, nil)), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // a second time does nothing
	return l
}

// learnedState is all that counts of what was learned.
type learnedState struct {
	words          map[uint32]wordSlot
	totals         map[uint64]classCount
	trained, known map[uint64]memo
	seed           uint64
}

func (l *spamLearned) state() learnedState {
	s := learnedState{words: map[uint32]wordSlot{}, totals: l.totals, trained: l.trained.memos, known: l.known.memos, seed: l.seed}
	for _, slot := range l.words.slots {
		if slot.spam > 0 || slot.ham > 0 {
			s.words[slot.key] = slot
		}
	}
	return s
}

// learnSome learns some messages, takes some back, and notes addresses.
func learnSome(l *spamLearned, n int) {
	for i := range n {
		class := classSpam
		if i%3 == 0 {
			class = classHam
		}
		l.learn(uint64(i%40), uint64(i%3), class, []uint32{uint32(i), 7, uint32(i % 5), 0})
		l.note(fmt.Sprint("ann", i%3), Address{"x" + fmt.Sprint(i%9), "example.org"}, knownAs(1+i%4), 0)
	}
}

func TestLearnedIsKept(t *testing.T) {
	dir := t.TempDir()
	l := testLearned(t, dir, nil)
	learnSome(l, 200)
	want := l.state()
	// As after a crash: nothing was closed.
	again := testLearned(t, dir, nil)
	if got := again.state(); !reflect.DeepEqual(got, want) {
		t.Errorf("after a crash: %d words, %v", len(got.words), got.totals)
	}
	if err := again.compact(); err != nil {
		t.Fatal(err)
	}
	learnSome(again, 77)
	want = again.state()
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	third := testLearned(t, dir, nil)
	if got := third.state(); !reflect.DeepEqual(got, want) {
		t.Errorf("from the file and the log: %d words, %v", len(got.words), got.totals)
	}
	for _, name := range []string{learnedName, learnedLogName} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v %v", name, st.Mode(), err)
		}
	}
}

// TestLearnedLogCut cuts the log anywhere, as a power cut does: what was whole before is kept, and learning goes on.
func TestLearnedLogCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := testLearned(t, dir, nil)
	learnSome(l, 6)
	log, err := os.ReadFile(filepath.Join(dir, learnedLogName))
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(dir, learnedName))
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for cut := range len(log) + 1 {
		other := t.TempDir()
		for name, text := range map[string][]byte{learnedName: file, learnedLogName: log[:cut]} {
			if err := os.WriteFile(filepath.Join(other, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cutOff := testLearned(t, other, nil)
		n := len(cutOff.trained.memos)
		if n < last {
			t.Fatalf("%d messages are known with %d octets, and %d with one less", n, cut, last)
		}
		last = n
		cutOff.learn(99, 0, classSpam, []uint32{1})
		if err := cutOff.Close(); err != nil {
			t.Fatal(err)
		}
		if again := testLearned(t, other, nil); again.learnedAs(99) != classSpam || len(again.trained.memos) != n+1 {
			t.Fatalf("cut at %d: %d messages", cut, len(again.trained.memos))
		}
	}
	if last != 6 {
		t.Errorf("%d messages are known at the end", last)
	}
}

// TestLearnedDamaged has files that nobody can read: they are set aside, and learning begins anew.
func TestLearnedDamaged(t *testing.T) {
	whole := t.TempDir()
	l := testLearned(t, whole, nil)
	learnSome(l, 50)
	if err := l.compact(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(whole, learnedName))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(file)
	flipped[len(flipped)/2] ^= 4
	for name, text := range map[string][]byte{
		"flipped": flipped, "cut": file[:len(file)-9], "empty": {}, "other": []byte("# my notes\n"), "long": make([]byte, learnedLimit+2),
		"lies": append(bytes.Clone(file[:len(learnedMagic)+16]), 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0),
	} {
		dir, log := t.TempDir(), new(syncBuffer)
		path := filepath.Join(dir, learnedName)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		l := testLearned(t, dir, log)
		if n := l.total(); n != (classCount{}) || len(l.known.memos) != 0 || !strings.Contains(log.String(), "set aside") {
			t.Errorf("%s: %v, %s", name, n, log)
		}
		if aside, err := os.ReadFile(path + ".damaged"); err != nil || !bytes.Equal(aside, text) {
			t.Errorf("%s: %v", name, err)
		}
		l.learn(1, 0, classSpam, []uint32{1})
		if again := testLearned(t, dir, nil); again.total().spam != 1 {
			t.Errorf("%s: nothing is learned after", name)
		}
	}
	// Checksums that fit do not make it true.
	for n := range 2000 {
		random := rand.New(rand.NewPCG(uint64(n), 1))
		change := make([]byte, random.IntN(60))
		for i := range change {
			change[i] = byte(random.Uint32())
		}
		if len(change) > 0 && n%2 == 0 {
			change[0] = "luk"[n/2%3]
		}
		l.apply(change)
	}
}

// TestLearnedTakenBack learns messages one way and the other: nothing is left of what was taken back.
func TestLearnedTakenBack(t *testing.T) {
	l := testLearned(t, t.TempDir(), nil)
	tokens := []uint32{10, 11, 12}
	if !l.learn(1, 5, classSpam, tokens) || l.learn(1, 5, classSpam, tokens) {
		t.Error("news is not what it should be")
	}
	if spam, ham := l.words.counts(wordKey(10, 0)); spam != 1 || ham != 0 {
		t.Errorf("%d and %d", spam, ham)
	}
	if !l.learn(1, 5, classHam, tokens) {
		t.Error("no news")
	}
	for _, person := range []uint64{0, 5} {
		if spam, ham := l.words.counts(wordKey(10, person)); spam != 0 || ham != 1 || l.totals[person] != (classCount{0, 1}) {
			t.Errorf("person %d: %d and %d of %v", person, spam, ham, l.totals)
		}
	}
	l.learn(1, 5, classSpam, tokens)
	if spam, ham := l.words.counts(wordKey(12, 5)); spam != 1 || ham != 0 || l.total() != (classCount{1, 0}) {
		t.Errorf("%d and %d of %v", spam, ham, l.totals)
	}
}

// TestWordTable compares the table with a map, and bounds it.
func TestWordTable(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var table wordTable
	want := map[uint32]wordSlot{}
	for range 20_000 {
		key := wordKey(random.Uint32N(3000), uint64(random.Uint32N(2)))
		slot := want[key]
		slot.key = key
		class, n := classHam, 1
		if random.IntN(3) == 0 {
			n = -1
		}
		if random.IntN(2) == 0 {
			class = classSpam
			slot.spam = uint16(max(0, int(slot.spam)+n))
		} else {
			slot.ham = uint16(max(0, int(slot.ham)+n))
		}
		want[key] = slot
		table.add(key, class, n)
	}
	for key, slot := range want {
		if spam, ham := table.counts(key); spam != int(slot.spam) || ham != int(slot.ham) {
			t.Fatalf("%d: %d %d, want %+v", key, spam, ham, slot)
		}
	}
	table = wordTable{limit: 1 << 12}
	for i := range uint32(100_000) {
		table.add(i+1000, classSpam, 1)
		table.add(i%100+1, classHam, 1) // what is met often is kept
	}
	if len(table.slots) != 1<<12 || table.used > len(table.slots)*3/4+1 {
		t.Errorf("%d of %d", table.used, len(table.slots))
	}
	for key := range uint32(100) {
		if _, ham := table.counts(key + 1); ham != 1000 {
			t.Fatalf("%d was met %d times", key, ham)
		}
	}
	for range 70_000 {
		table.add(5, classSpam, 1)
	}
	if spam, _ := table.counts(5); spam != maxWordCount {
		t.Errorf("counted to %d", spam)
	}
}

func TestMemory(t *testing.T) {
	m := newMemory(100)
	for i := range 1000 {
		m.set(uint64(i), memo{uint32(i), 3})
		if len(m.memos) > 100 {
			t.Fatalf("%d are remembered", len(m.memos))
		}
	}
	if m.memos[999].what != 3 || m.memos[100].what != 0 {
		t.Error("the oldest are not forgotten first")
	}
	text := m.append([]byte(nil))
	read := newMemory(100)
	if rest, ok := read.parse(append(text, 'x')); !ok || string(rest) != "x" || !reflect.DeepEqual(read.memos, m.memos) {
		t.Errorf("read %d, %v", len(read.memos), ok)
	}
	for _, bad := range [][]byte{nil, {1}, text[:len(text)-1], binary.LittleEndian.AppendUint32(nil, math.MaxUint32)} {
		if _, ok := newMemory(100).parse(bad); ok {
			t.Errorf("%d octets are taken", len(bad))
		}
	}
	if _, ok := newMemory(10).parse(text); ok {
		t.Error("more are taken than there is room for")
	}
}

// TestFisher holds the classifier against what Fisher's method gives by other ways.
func TestFisher(t *testing.T) {
	for _, test := range []struct {
		x    float64
		n    int
		want float64
	}{{0, 2, 1}, {2, 2, 0.36787944}, {4, 4, 0.40600585}, {18.307, 10, 0.05}, {1e6, 300, 0}} { // tables of the chi-square distribution
		if got := chiSquare(test.x, test.n); math.Abs(got-test.want) > 1e-4 {
			t.Errorf("%g %d: %g, want %g", test.x, test.n, got, test.want)
		}
	}
	for _, test := range []struct {
		p        []float64
		low, top float64
	}{
		{nil, 0.5, 0.5}, {slices.Repeat([]float64{0.99}, 20), 0.999, 1}, {slices.Repeat([]float64{0.01}, 20), 0, 0.001},
		{append(slices.Repeat([]float64{0.01}, 50), slices.Repeat([]float64{0.99}, 50)...), 0.49, 0.51},
	} {
		if got := fisher(test.p); got < test.low || got > test.top || math.IsNaN(got) {
			t.Errorf("%v: %g", test.p, got)
		}
	}
}

// TestOpinionNeedsTeaching has no opinion on little ground, and a full one only on much.
func TestOpinionNeedsTeaching(t *testing.T) {
	l := testLearned(t, t.TempDir(), nil)
	tokens := make([]uint32, 30)
	for i := range tokens {
		tokens[i] = uint32(i + 1)
	}
	before := 0.0
	for n := 1; n <= 110; n++ {
		l.learn(uint64(2*n), 0, classSpam, tokens)
		l.learn(uint64(2*n+1), 0, classHam, []uint32{77})
		p, weight := l.opinion(tokens, 0)
		switch {
		case n < minLearned && weight != 0, n == minLearned && weight != firstWeight, n >= fullyLearned && weight != 1, weight < before:
			t.Fatalf("%d of each: %g counts %g", n, p, weight)
		case weight > 0 && p < 0.99:
			t.Fatalf("%d of each: %g", n, p)
		}
		before = weight
	}
}

// TestOwnCorrections lets one person hold for wanted what all others do not.
func TestOwnCorrections(t *testing.T) {
	l := testLearned(t, t.TempDir(), nil)
	ann, bob := l.personKey("ann@test.lan"), l.personKey("bob@test.lan")
	tokens := []uint32{1, 2, 3, 4, 5, 6, 7, 8}
	for n := range uint64(120) {
		l.learn(1000+n, bob, classSpam, append([]uint32{uint32(100 + n)}, tokens[:n%8]...))
		l.learn(2000+n, 0, classHam, []uint32{uint32(300 + n), 99})
	}
	before, _ := l.opinion(tokens, ann)
	for n := range uint64(12) {
		l.learn(3000+n, ann, classHam, tokens)
	}
	inAnns, _ := l.opinion(tokens, ann)
	inBobs, _ := l.opinion(tokens, bob)
	if before < 0.9 || inAnns > 0.3 || inBobs < 0.6 {
		t.Errorf("%g before, then %g for one and %g for the other", before, inAnns, inBobs)
	}
}

func TestForget(t *testing.T) {
	f := testSpamFilter(t, SpamConfig{})
	learnSome(f.learned, 30)
	seed := f.learned.seedOf()
	if err := f.Forget(); err != nil {
		t.Fatal(err)
	}
	if s := f.Status(); s.Unwanted+s.Wanted+s.Senders+s.Tokens != 0 || f.learned.seedOf() != seed {
		t.Errorf("%+v", s)
	}
	if again := testLearned(t, f.cfg.Dir, nil); again.total() != (classCount{}) || again.seed != seed {
		t.Errorf("after a restart: %v", again.totals)
	}
}
