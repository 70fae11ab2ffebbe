package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Outbound joins what sends mail: the queue tries, and here is decided who takes it: another server, or the mailboxes of
// this one. Mail for a domain of ours never leaves the machine.

// localMail is the queue's destination for mailboxes here; no domain has a space.
const localMail = "these mailboxes"

// OutboundConfig is what OpenOutbound needs.
type OutboundConfig struct {
	QueueDir string // DATA/queue
	Accounts *Accounts
	Store    *Store
	Sender   *Sender
	Hostname string
	PerHour  int                   // recipients elsewhere that one person may write to within an hour
	Sent     string                // DATA/sent.json, how many it were; "": a restart forgets it
	Answered *AwayMemory           // by out-of-office notes
	SRS      *SRS                  // of forwarded mail; nil: nothing is forwarded
	Zone     func() *time.Location // of the house; nil: the machine's
	Log      *slog.Logger
	Now      func() time.Time // nil: time.Now

	step func(name string) // see RulesConfig
}

// Outbound is safe for concurrent use.
type Outbound struct {
	cfg   OutboundConfig
	Queue *Queue
	Flood *FloodLimit
	Rules *Rules
	boxes *outboxes
}

// OpenOutbound reads what waits. Nothing is sent before Run.
func OpenOutbound(cfg OutboundConfig) (*Outbound, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	o := &Outbound{cfg: cfg}
	o.Flood = NewFloodLimit(cfg.PerHour, o.tellOfFlood, cfg.Now)
	if cfg.Sent != "" {
		o.Flood.Remember(cfg.Sent, cfg.Log)
	}
	o.boxes = &outboxes{accounts: cfg.Accounts, store: cfg.Store, hostname: cfg.Hostname, log: cfg.Log, now: cfg.Now,
		wake: make(chan struct{}, 1), boxes: map[string]*outbox{}, changes: map[string]QueueEntry{}, looks: map[string]bool{}}
	var err error
	o.Queue, err = OpenQueue(QueueConfig{
		Dir: cfg.QueueDir, Send: o.send, Destination: o.destination, Report: o.report, GiveBack: o.giveBack, Changed: o.boxes.changed, Damaged: o.tellOfDamage,
		Hostname: func() string { return cfg.Hostname }, Log: cfg.Log, Now: cfg.Now,
	})
	o.boxes.queue = o.Queue
	o.Rules = NewRules(RulesConfig{Answered: cfg.Answered, SRS: cfg.SRS, step: cfg.step, Accounts: cfg.Accounts, Store: cfg.Store, Queue: o.Queue,
		Zone: cfg.Zone, Log: cfg.Log, Now: cfg.Now})
	if err == nil {
		cfg.Store.GuardTransfers(o.boxes.mayTransfer)
	}
	return o, err
}

// openedQueue is how orders come to the queue.
func (o *Outbound) openedQueue() (*Queue, error) { return o.Queue, nil }

// Run sends what waits until ctx ends.
func (o *Outbound) Run(ctx context.Context) {
	end := inBackground(o.boxes.run)
	defer end()
	endRules := inBackground(o.Rules.Run)
	o.Queue.Run(ctx)
	endRules()
	o.cfg.Sender.Close()
	o.Flood.Close()
}

// destination groups what waits: all mailboxes here are one.
func (o *Outbound) destination(from, domain string) string {
	if o.cfg.Accounts.IsLocalDomain(domain) {
		return localMail
	}
	return o.cfg.Sender.Destination(from, domain)
}

// send makes one try.
func (o *Outbound) send(ctx context.Context, destination string, m *Outgoing) []Outcome {
	if destination == localMail {
		return o.deliverLocal(ctx, m)
	}
	return o.cfg.Sender.Send(ctx, destination, m)
}

// deliverLocal puts a message into the mailboxes of its recipients here: into all at once, and where one of them does not
// take it, into those of one recipient after the other. Nobody gets it twice through two addresses.
func (o *Outbound) deliverLocal(ctx context.Context, m *Outgoing) []Outcome {
	outcomes := make([]Outcome, len(m.Recipients))
	reached := make([][]string, len(m.Recipients))
	var all []string
	for n, i := range m.Recipients {
		accounts, failed := o.accountsOf(m.Envelope.Recipients[i].Address)
		if failed != nil {
			outcomes[n] = *failed
			continue
		}
		for _, account := range accounts {
			if !slices.Contains(all, account) {
				reached[n] = append(reached[n], account)
				all = append(all, account)
			}
		}
		outcomes[n] = Outcome{State: SendSent, Enhanced: "2.1.5", Text: "It is in the mailbox", Delivered: true}
	}
	if len(all) == 0 || o.put(ctx, m.Envelope.From, m.text(), all, o.Rules.Deliver) == nil {
		return outcomes
	}
	for n := range outcomes {
		if len(reached[n]) == 0 {
			continue
		}
		if err := o.put(ctx, m.Envelope.From, m.text(), reached[n], o.Rules.Deliver); err != nil {
			outcomes[n] = o.undelivered(ctx, err)
		}
	}
	return outcomes
}

// text reads the message.
func (m *Outgoing) text() io.Reader { return io.NewSectionReader(m.Message, 0, m.Size) }

// accountsOf gives the accounts that mail to an address reaches, or what it means that there are none.
func (o *Outbound) accountsOf(address string) ([]string, *Outcome) {
	addr, err := ParseAddress(address)
	if err != nil {
		return nil, &Outcome{State: SendFailed, Enhanced: "5.1.3", Text: address + " is no mail address"}
	}
	accounts, err := o.cfg.Accounts.Resolve(addr)
	switch {
	case errors.Is(err, ErrNoUser):
		return nil, &Outcome{State: SendFailed, Enhanced: "5.1.1", Text: "There is no " + address + " here"}
	case err != nil: // the domain has just gone: the queue finds the way there
		return nil, &Outcome{Enhanced: "4.3.0", Text: "It cannot be delivered at the moment"}
	}
	return accounts, nil
}

// deliver writes a message with its reverse-path into the INBOX of accounts, whatever they have set for mail that arrives.
func (o *Outbound) deliver(ctx context.Context, from string, text io.Reader, accounts []string) error {
	return o.put(ctx, from, text, accounts, func(ctx context.Context, in *Incoming, _ string, to []Delivery) error {
		return o.cfg.Store.Deliver(ctx, in, to)
	})
}

// put is deliver with the function that does it at the end.
func (o *Outbound) put(ctx context.Context, from string, text io.Reader, accounts []string, deliver func(ctx context.Context, in *Incoming, from string, to []Delivery) error) error {
	drop, err := o.cfg.Store.Maildrop(accounts[0])
	if err != nil {
		return err
	}
	defer drop.Release()
	in, err := drop.Receive()
	if err != nil {
		return err
	}
	defer in.Discard()
	if _, err := io.WriteString(in, returnPath(from)); err != nil {
		return err
	}
	if _, err := io.Copy(in, text); err != nil {
		return err
	}
	to := make([]Delivery, len(accounts))
	for i, account := range accounts {
		to[i] = Delivery{Account: account, Folder: inboxName}
	}
	if err := deliver(ctx, in, from, to); err != nil {
		return err
	}
	o.cfg.Log.Info("delivered", "from", from, "to", strings.Join(accounts, " "))
	return nil
}

// undelivered says what a failed delivery means for a recipient. What is full may have room again; what is larger than the
// mailbox may ever be fails.
func (o *Outbound) undelivered(ctx context.Context, err error) Outcome {
	switch {
	case errors.Is(err, ErrAboveQuota):
		return Outcome{State: SendFailed, Enhanced: "5.2.3", Text: "The mailbox cannot hold a message of this size"}
	case errors.Is(err, ErrOverQuota):
		return Outcome{Enhanced: "4.2.2", Text: "The mailbox is full"}
	case errors.Is(err, ErrDiskFull):
		return Outcome{Enhanced: "4.3.1", Text: "The disk of this server is full"}
	}
	if ctx.Err() == nil {
		o.cfg.Log.Error("a message could not be delivered", "error", err)
	}
	return Outcome{Enhanced: "4.3.0", Text: "It cannot be delivered at the moment"}
}

// giveBack puts a message into the INBOX of the person for whom it should have gone on, and could not.
func (o *Outbound) giveBack(ctx context.Context, env *Envelope, text io.Reader) error {
	accounts, failed := o.accountsOf(env.Forward)
	if failed != nil {
		if failed.State == SendFailed {
			o.cfg.Log.Warn("a message that could not be forwarded is for nobody any more", "account", env.Forward)
			return nil
		}
		return errors.New(failed.Text)
	}
	from := env.From
	if sender, known, err := o.Rules.ReturnTo(from); known && err == nil {
		from = sender.String()
	}
	return o.deliver(ctx, from, text, accounts)
}

// report brings a report to the sender of a message: into the INBOX of somebody here, else back into the queue with the null
// reverse-path, so that nobody is told of it in turn (RFC 5321 §4.5.5). Who has sent with an address elsewhere is told here:
// the provider of that address may be what cannot be reached.
func (o *Outbound) report(ctx context.Context, about *Envelope, message []byte) error {
	to := about.ReportTo()
	addr, err := ParseAddress(to)
	if err != nil {
		return fmt.Errorf("reporting to %q: %w", to, err)
	}
	accounts, err := o.cfg.Accounts.Resolve(addr)
	if errors.Is(err, ErrNotLocal) {
		if own, failed := o.accountsOf(about.Account); failed == nil { // the account may have another address by now
			accounts, err = own, nil
		}
	}
	switch {
	case errors.Is(err, ErrNotLocal):
		return o.queueReport(to, message)
	case errors.Is(err, ErrNoUser):
		o.cfg.Log.Warn("a report is for nobody any more", "to", to)
		return nil
	case err != nil:
		return fmt.Errorf("reporting to %s: %w", to, err)
	}
	err = o.deliver(ctx, "", bytes.NewReader(message), accounts)
	if errors.Is(err, ErrAboveQuota) {
		o.cfg.Log.Warn("a report is larger than the mailbox may be", "to", to)
		return nil
	}
	return err
}

// queueReport sends a report to another server.
func (o *Outbound) queueReport(to string, message []byte) error {
	in, err := o.cfg.Store.Receive(o.Queue.TmpDir())
	if err != nil {
		return err
	}
	defer in.Discard()
	if _, err := in.Write(message); err != nil {
		return err
	}
	_, err = o.Queue.Submit(in, &Envelope{Recipients: []Recipient{{Address: to}}, EightBit: true, UTF8: !isASCII([]byte(to))})
	return err
}

// TellOwner leaves a message of the appliance in the owner's INBOX. Without an owner nobody is told.
func (o *Outbound) TellOwner(subject, text string) error {
	owner := o.cfg.Accounts.Owner()
	if owner == "" {
		return nil
	}
	message := noticeMessage(o.cfg.Hostname, owner, subject, text, o.cfg.Now())
	return o.deliver(context.Background(), "", bytes.NewReader(message), []string{owner})
}

// tellOfDamage writes to the owner that messages which waited cannot be sent.
func (o *Outbound) tellOfDamage(ids []string) {
	text := fmt.Sprintf(`These messages waited to be sent, and their files on the disk are damaged:

  %s

They are not sent. Their files are kept, with the ending .damaged, in

  %s

A text editor shows in them what is left of the text and of the addresses, so that
the senders can be told. Damaged files often mean that the disk or SD card fails.
`, strings.Join(ids[:min(len(ids), 100)], "\n  "), o.cfg.QueueDir)
	if err := o.TellOwner("Messages that waited to be sent are damaged", text); err != nil {
		o.cfg.Log.Error("the owner could not be told that queued messages are damaged", "error", err)
	}
}

// tellOfFlood writes to the owner that somebody has reached the hourly limit.
func (o *Outbound) tellOfFlood(r FloodReport) {
	account := r.Sender.Account
	if err := o.TellOwner(account+" has sent very much mail", r.words()); err != nil {
		o.cfg.Log.Error("the owner could not be told that somebody sends very much mail", "account", account, "error", err)
	}
	o.cfg.Log.Warn("rejected", "account", account, "via", r.Sender.Via, "remote", r.Sender.Remote, "reason", "the hourly limit of recipients elsewhere is reached")
}

// inBackground runs f until the function that it gives is called, which waits for its end.
func inBackground(f func(ctx context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}
