package main

import (
	"math/rand/v2"
	"reflect"
	"testing"
)

// learnedModel counts anew each time what was learned, by the last word on each message.
type learnedModel struct {
	words map[uint64]learnedWord
}

// learnedWord is what somebody, or (0) nobody, has said of a message.
type learnedWord struct {
	class  spamClass
	person uint64
	tokens []uint32
}

// learn is spamLearned.learn.
func (m *learnedModel) learn(message, person uint64, class spamClass, tokens []uint32) bool {
	before := m.words[message]
	if before.class == class && (before.person != 0 || person == 0) || before.person != 0 && person == 0 {
		return false
	}
	m.words[message] = learnedWord{class, person, tokens}
	return true
}

// counts gives how many messages of each kind there are, and for each token how many have it.
func (m *learnedModel) counts() (totals map[uint64]classCount, words map[uint32]wordSlot) {
	totals, words = map[uint64]classCount{}, map[uint32]wordSlot{}
	for _, w := range m.words {
		for i, person := range []uint64{0, w.person} {
			if i == 1 && person == 0 {
				continue
			}
			total := totals[person]
			if w.class == classSpam {
				total.spam++
			} else {
				total.ham++
			}
			totals[person] = total
			for _, token := range w.tokens {
				slot := words[wordKey(token, person)]
				slot.key = wordKey(token, person)
				if w.class == classSpam {
					slot.spam++
				} else {
					slot.ham++
				}
				words[slot.key] = slot
			}
		}
	}
	return totals, words
}

// TestLearnedModel lets people and nobody say things of messages, over and over: what is taken back is taken from the counts it was
// added to, also after a restart.
func TestLearnedModel(t *testing.T) {
	const people, perPerson = 4, 15
	dir := t.TempDir()
	l, m := testLearned(t, dir, nil), &learnedModel{map[uint64]learnedWord{}}
	seed := rand.Uint64()
	draw := rand.New(rand.NewPCG(seed, 1))
	for step := range 4000 {
		person := uint64(draw.IntN(people))
		message := 100*person + uint64(draw.IntN(perPerson))
		tokens := []uint32{uint32(message), uint32(message % 7), 1000} // a message always has the same
		class := classHam
		if draw.IntN(2) == 0 {
			class = classSpam
		}
		by := 5000 + person
		if draw.IntN(3) == 0 {
			by = 0
		}
		if got, want := l.learn(message, by, class, tokens), m.learn(message, by, class, tokens); got != want {
			t.Fatalf("seed %d, step %d: changed %v, want %v", seed, step, got, want)
		}
		if got, want := l.learnedAs(message), m.words[message].class; got != want {
			t.Fatalf("seed %d, step %d: learned as %d, want %d", seed, step, got, want)
		}
		switch draw.IntN(200) {
		case 0:
			if err := l.compact(); err != nil {
				t.Fatal(err)
			}
		case 1:
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = testLearned(t, dir, nil)
		}
		if step%10 != 0 {
			continue
		}
		got := l.state()
		totals, words := m.counts()
		for person, n := range got.totals { // zero is as good as none
			if n == (classCount{}) && totals[person] == (classCount{}) {
				totals[person] = n
			}
		}
		if !reflect.DeepEqual(got.totals, totals) || !reflect.DeepEqual(got.words, words) {
			t.Fatalf("seed %d, step %d: counted %v and %d words, want %v and %d", seed, step, got.totals, len(got.words), totals, len(words))
		}
	}
}

// TestLearnedByNobody has a message that was taken for wanted because of who wrote it moved into Junk: the person's own counts do not
// fall for what they never said.
func TestLearnedByNobody(t *testing.T) {
	l := testLearned(t, t.TempDir(), nil)
	const ann = 9
	tokens := []uint32{1, 2, 3}
	l.learn(10, ann, classHam, tokens) // another one that she has moved out of Junk
	l.learn(11, 0, classHam, tokens)
	if !l.learn(11, ann, classSpam, tokens) {
		t.Error("no news")
	}
	if own, all := l.totals[ann], l.total(); own != (classCount{spam: 1, ham: 1}) || all != (classCount{spam: 1, ham: 1}) {
		t.Errorf("hers %+v, all %+v", own, all)
	}
	if spam, ham := l.words.counts(wordKey(2, ann)); spam != 1 || ham != 1 {
		t.Errorf("her words: %d %d", spam, ham)
	}
	if l.learn(11, 0, classHam, tokens) || l.learnedAs(11) != classSpam {
		t.Error("nobody's word stands against hers")
	}
}
