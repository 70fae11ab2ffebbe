package main

import (
	"math"
	"slices"
)

// The classifier is that of Gary Robinson, as SpamBayes has it: each token has a probability by the messages that were
// learned, and Fisher's method joins those of the tokens that tell most.

const (
	// minLearned is how many messages of each kind must have been learned before there is an opinion.
	minLearned = 20
	// fullyLearned is from how many of each kind on an opinion counts in full. With fewer, words that were met by chance in one
	// kind alone seem to tell much: of the wanted mail of the corpus, one in twenty seems spam after twenty of each kind, and
	// one in some hundreds after a hundred.
	fullyLearned = 100
	// firstWeight is what an opinion counts as soon as there is one.
	firstWeight = 0.4
	// ownWeight is how many times more a person's own corrections count in their eyes than what everybody has taught.
	ownWeight = 4
	// unsureStrength and unsureProbability are what is believed of a token before it was seen (Robinson's s and x).
	unsureStrength, unsureProbability = 1.0, 0.5
	// leastTelling is how far from one half the probability of a token must be to count, mostTelling how many do.
	leastTelling, mostTelling = 0.1, 300
)

// spamClass is what a message is.
type spamClass uint8

const (
	classNone spamClass = iota
	classHam
	classSpam
)

// classCount is how many messages of each kind were learned.
type classCount struct{ spam, ham int }

// opinion gives the probability that a message with these tokens is spam in the eyes of a person (0: of the appliance), and
// what it counts, 1 at most; 0 while too little is learned.
func (l *spamLearned) opinion(tokens []uint32, person uint64) (probability, weight float64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	all := l.totals[0]
	learned := min(all.spam, all.ham)
	if learned < minLearned {
		return 0, 0
	}
	weight = min(1, firstWeight+(1-firstWeight)*float64(learned-minLearned)/(fullyLearned-minLearned))
	total := all
	if person != 0 {
		own := l.totals[person]
		total = classCount{all.spam + ownWeight*own.spam, all.ham + ownWeight*own.ham}
	}
	telling := make([]float64, 0, len(tokens))
	for _, token := range tokens {
		spam, ham := l.words.counts(wordKey(token, 0))
		if person != 0 && spam+ham > 0 { // what a person has taught everybody has
			ownSpam, ownHam := l.words.counts(wordKey(token, person))
			spam, ham = spam+ownWeight*ownSpam, ham+ownWeight*ownHam
		}
		if spam+ham == 0 {
			continue
		}
		if p := tokenProbability(spam, ham, total); math.Abs(p-0.5) >= leastTelling {
			telling = append(telling, p)
		}
	}
	slices.SortFunc(telling, func(a, b float64) int {
		switch da, db := math.Abs(a-0.5), math.Abs(b-0.5); {
		case da > db:
			return -1
		case da < db:
			return 1
		}
		return 0
	})
	return fisher(telling[:min(len(telling), mostTelling)]), weight
}

// tokenProbability gives how likely a message with a token is spam.
func tokenProbability(spam, ham int, total classCount) float64 {
	inSpam := min(float64(spam)/float64(total.spam), 1)
	inHam := min(float64(ham)/float64(total.ham), 1)
	n := float64(spam + ham)
	return (unsureStrength*unsureProbability + n*inSpam/(inSpam+inHam)) / (unsureStrength + n)
}

// fisher joins probabilities: near 1 is spam, near 0 is none, and the middle is "cannot tell", also where much speaks for
// both.
func fisher(probabilities []float64) float64 {
	if len(probabilities) == 0 {
		return 0.5
	}
	var forSpam, forHam float64
	for _, p := range probabilities {
		forSpam += math.Log(1 - p)
		forHam += math.Log(p)
	}
	n := 2 * len(probabilities)
	spam, ham := 1-chiSquare(-2*forSpam, n), 1-chiSquare(-2*forHam, n)
	return (spam - ham + 1) / 2
}

// chiSquare gives the probability that a sum of n squares, n even, is as large as x by chance.
func chiSquare(x float64, n int) float64 {
	m := x / 2
	if m > 700 { // beyond what exp can tell
		return 0
	}
	term := math.Exp(-m)
	sum := term
	for i := 1; i < n/2; i++ {
		term *= m / float64(i)
		sum += term
	}
	return min(sum, 1)
}
