package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-msgauth/authres"
)

// spamLimit is the score from which on a message is for Junk. No message is refused for its score.
const spamLimit = 5.0

// SpamConfig is what OpenSpamFilter needs.
type SpamConfig struct {
	Dir           string // DATA/spam
	Verifier      *Verifier
	Store         *Store                   // whose people teach the filter by what they move; nil: nobody does
	IsLocalDomain func(domain string) bool // nil: none is
	Lists         []string                 // DNS lists that are asked for the client's address; usually none
	Greylist      bool                     // strangers are asked to come again
	Milter        string                   // where another program is asked, too; "": none
	Log           *slog.Logger             // nil: none
	Now           func() time.Time         // nil: time.Now
}

// SpamFilter says of each message that arrives from outside whether it is wanted: by what is known of its origin, by rules
// about its header and its parts, by what people have taught it, and by what others say whom the owner of the appliance has
// chosen to ask. Untaught it judges by rules alone, and says so. Safe for concurrent use.
type SpamFilter struct {
	cfg     SpamConfig
	learned *spamLearned
	grey    *greylist // nil: nobody is asked to come again
	milter  *milterClient
	lists   *spamLists
	readers chan *spamReader // as many messages are scored at once as there are processors
	teacher *spamTeacher
}

// OpenSpamFilter reads what was learned and begins to learn from what people move. What is damaged is set aside and begun
// anew; an error is one of the disk.
func OpenSpamFilter(cfg SpamConfig) (*SpamFilter, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.IsLocalDomain == nil {
		cfg.IsLocalDomain = func(string) bool { return false }
	}
	learned, err := openLearned(cfg.Dir, cfg.Log, cfg.Now)
	if err != nil {
		return nil, err
	}
	f := &SpamFilter{cfg: cfg, learned: learned, readers: make(chan *spamReader, max(2, runtime.GOMAXPROCS(0)))}
	for range cap(f.readers) {
		f.readers <- new(spamReader)
	}
	if cfg.Greylist {
		f.grey = openGreylist(cfg.Dir, cfg.Log, cfg.Now)
	}
	if cfg.Milter != "" {
		if f.milter, err = newMilterClient(cfg.Milter, cfg.Verifier.Hostname, cfg.Log, cfg.Now); err != nil {
			return nil, err
		}
	}
	f.lists = &spamLists{zones: cfg.Lists, resolver: cfg.Verifier.Resolver, log: cfg.Log}
	f.teacher = newSpamTeacher(f)
	if cfg.Store != nil {
		cfg.Store.OnFiling(f.teacher.filed)
	}
	return f, nil
}

// Close writes what has been learned. What people have moved and the filter has not looked at yet is not learned.
func (f *SpamFilter) Close() error {
	f.teacher.close()
	if f.grey != nil {
		f.grey.close()
	}
	return f.learned.Close()
}

// Judge says what becomes of a message that has come by SMTP. Mail of people who have logged in is not judged: whom they
// write to is no stranger from then on. Mail of the LAN is not judged either (see Verifier).
func (f *SpamFilter) Judge(ctx context.Context, m *ReceivedMail) (Verdict, error) {
	if m.Account != "" {
		for _, rcpt := range m.Rcpts {
			if !f.cfg.IsLocalDomain(rcpt.Domain) {
				f.learned.note(m.Account, rcpt, knownWritten, knownUnwanted)
			}
		}
		return Verdict{}, nil
	}
	listed := f.lists.begin(ctx, m.Remote)
	defer listed.end()
	findings, err := f.cfg.Verifier.Verify(ctx, m)
	if err != nil {
		return Verdict{}, err
	}
	verdict := findings.Verdict()
	if verdict.Refuse != "" || !findings.Judged {
		return verdict, nil
	}
	return f.judge(ctx, m, findings, verdict, listed)
}

// JudgeCollected says what becomes of a message that was fetched from an account of somebody elsewhere: which folder it is
// for, and what is added to its header and taken out of it (see Verdict.Write; it has no trace fields). It cannot be refused
// any more, and who has brought it there is not known: of its origin only signatures tell.
func (f *SpamFilter) JudgeCollected(ctx context.Context, account string, message io.ReaderAt, size int64) (Verdict, error) {
	m := &ReceivedMail{Accounts: []string{account}, Message: message, Size: size}
	findings, err := f.cfg.Verifier.VerifyCollected(ctx, m)
	if err != nil {
		return Verdict{}, err
	}
	verdict := findings.Verdict()
	if verdict.Changes, err = forgedFields(m, findings.Host); err != nil {
		return Verdict{}, err
	}
	return f.judge(ctx, m, findings, verdict, nil)
}

// judge asks all that there is to ask about a message whose origin is found out. verdict is what the origin demands.
func (f *SpamFilter) judge(ctx context.Context, m *ReceivedMail, findings *Findings, verdict Verdict, listed *listLookup) (Verdict, error) {
	var reader *spamReader
	select {
	case reader = <-f.readers:
	case <-ctx.Done():
		return Verdict{}, fmt.Errorf("judging a message: %w", context.Cause(ctx))
	}
	j := &spamJudgment{filter: f, mail: m, findings: findings}
	err := j.look(reader)
	f.readers <- reader
	if err != nil {
		return Verdict{}, err
	}
	if f.grey != nil && !findings.Collected && f.grey.refuses(j) {
		return Verdict{Refuse: greylistWords, Later: true}, nil
	}
	switch {
	case verdict.Folder != "" && findings.DMARC.Result == authres.ResultPermError:
		j.add(spamLimit, "who wrote it cannot be told: "+findings.DMARC.Reason)
	case verdict.Folder != "":
		j.add(spamLimit, "its author's domain asks that such mail be treated as suspicious (DMARC)")
	}
	for _, zone := range listed.wait() {
		j.add(listPoints, "the address it comes from is on the list "+zone)
	}
	if f.milter != nil {
		if refusal := f.milter.ask(ctx, j, &verdict); refusal.Refuse != "" {
			return refusal, nil
		}
	}
	j.conclude(&verdict)
	return verdict, nil
}

// spamReason is one thing that speaks for (above 0) or against a message's being spam.
type spamReason struct {
	points float64
	text   string // ASCII, without semicolons
}

// spamJudgment is what is found out about one message.
type spamJudgment struct {
	filter   *SpamFilter
	mail     *ReceivedMail
	findings *Findings

	author   Address // of From, the first
	authored bool    // there is one
	vouched  bool    // SPF or DKIM shows that the message is from the author's domain
	message  string  // names the message; see messageName
	tokens   []uint32
	reasons  []spamReason // for everybody
}

func (j *spamJudgment) add(points float64, text string) {
	j.reasons = append(j.reasons, spamReason{points, text})
}

// look reads the message and applies the rules.
func (j *spamJudgment) look(reader *spamReader) error {
	m, err := reader.read(j.filter.learned.seedOf(), j.mail.Message, j.mail.Size)
	if err != nil {
		return err
	}
	if list, ok := fromAddresses(m.fields); len(list) > 0 {
		j.author, j.authored = list[0], true
		j.vouched = ok && j.findings.Vouches(j.author.Domain)
	}
	j.tokens = slices.Clone(m.tokens.list)
	j.message = messageName(m.fields)
	j.originRules()
	j.headerRules(m.fields)
	j.contentRules(&m.facts)
	return nil
}

// opinion gives what speaks for and against a message in the eyes of a person; of "" what is the same for all.
func (j *spamJudgment) opinion(account string) (reasons []spamReason, score float64, taught bool) {
	reasons = slices.Clone(j.reasons)
	person := uint64(0)
	if account != "" {
		person = j.filter.learned.personKey(account)
		if reason, ok := j.acquaintance(account); ok {
			reasons = append(reasons, reason)
		}
	}
	probability, weight := j.filter.learned.opinion(j.tokens, person)
	if points := math.Round(10*weight*wordPoints(probability)) / 10; points != 0 {
		text := "its words are mostly those of wanted mail"
		if points > 0 {
			text = "its words are mostly those of unwanted mail"
		}
		reasons = append(reasons, spamReason{points, text})
	}
	for _, r := range reasons {
		score += r.points
	}
	return reasons, math.Round(score*10) / 10, weight > 0
}

// conclude completes the verdict. What the fields say of a message to several people is what holds for all of them: what one
// of them thinks of the sender is not the others' concern.
func (j *spamJudgment) conclude(verdict *Verdict) {
	accounts := j.mail.Accounts
	shared := ""
	if len(accounts) == 1 {
		shared = accounts[0]
	}
	reasons, score, taught := j.opinion(shared)
	decided := verdict.Folder != "" // by others, whatever the score
	if decided {
		score = max(score, spamLimit)
	}
	if score >= spamLimit {
		verdict.Folder = junkName
	}
	verdict.Fields += spamFields(score, j.vouched, reasons, j.filter.untaught(taught))
	if len(accounts) > 1 && !decided {
		j.concludeEach(verdict)
	}
	if verdict.Folder == "" {
		j.learnWanted()
	}
	j.filter.cfg.Log.Debug("scored", "id", j.mail.ID, "score", score, "folder", verdict.Folder)
}

// concludeEach says where a message goes for those of several people who think of it otherwise than all together.
func (j *spamJudgment) concludeEach(verdict *Verdict) {
	for _, account := range j.mail.Accounts {
		folder := ""
		if _, score, _ := j.opinion(account); score >= spamLimit {
			folder = junkName
		}
		if folder == verdict.Folder {
			continue
		}
		if verdict.Folders == nil {
			verdict.Folders = map[string]string{}
		}
		verdict.Folders[account] = folder
	}
}

// learnWanted takes a message from somebody to whom one of its recipients has written for a wanted one, as long as there is
// need of such: they must not crowd out what is learned of unwanted mail.
func (j *spamJudgment) learnWanted() {
	if !j.vouched {
		return
	}
	total := j.filter.learned.total()
	if total.ham >= max(wantedAtFirst, 2*total.spam) {
		return
	}
	for _, account := range j.mail.Accounts {
		if j.filter.learned.knows(account, j.author)&knownWritten != 0 {
			j.filter.learned.learn(j.filter.learned.messageKey(account, j.message), 0, classHam, j.tokens)
			return
		}
	}
}

// wantedAtFirst is how many wanted messages are learned without any that are unwanted.
const wantedAtFirst = 200

// untaught says in words how much the filter has learned where that is too little; "" where it is enough.
func (f *SpamFilter) untaught(taught bool) string {
	if taught {
		return ""
	}
	total := f.learned.total()
	return fmt.Sprintf("words are not judged yet (%d of %d unwanted and %d of %d wanted messages are learned)",
		min(total.spam, minLearned), minLearned, min(total.ham, minLearned), minLearned)
}

// wordBands are the points for the probability that the words of a message are those of spam; between two of them they grow
// evenly.
var wordBands = []struct{ probability, points float64 }{
	{0, -3}, {0.01, -2.5}, {0.1, -2}, {0.3, -1}, {0.5, 0}, {0.6, 4}, {0.7, 5}, {0.99, 6}, {1, 7},
}

// wordPoints gives the points for a probability.
func wordPoints(p float64) float64 {
	i := 1
	for i < len(wordBands)-1 && p > wordBands[i].probability {
		i++
	}
	low, high := wordBands[i-1], wordBands[i]
	return low.points + (p-low.probability)/(high.probability-low.probability)*(high.points-low.points)
}

// spamFields writes what the filter thinks of a message, with the three strongest reasons.
func spamFields(score float64, vouched bool, reasons []spamReason, note string) string {
	word, sender := "No", "unproven"
	if score >= spamLimit {
		word = "Yes"
	}
	if vouched {
		sender = "proven"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, score=%.1f required=%.1f sender=%s\r\n", spamStatusField, word, score, spamLimit, sender)
	sortStableFunc(reasons, func(a, b spamReason) int { return cmp.Compare(math.Abs(b.points), math.Abs(a.points)) })
	var lines []string
	for _, r := range reasons[:min(len(reasons), 3)] {
		lines = append(lines, fmt.Sprintf("%s (%+.1f)", r.text, r.points))
	}
	if note != "" {
		lines = append(lines, note)
	}
	if len(lines) == 0 {
		lines = []string{"nothing speaks for or against it"}
	}
	b.WriteString(spamReasonsField + ": " + strings.Join(lines, ";\r\n\t") + "\r\n")
	return b.String()
}
