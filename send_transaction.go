package main

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/emersion/go-smtp"
)

// One message over a connection: MAIL, RCPT and DATA, together where the server takes them so (RFC 2920), and once more for the
// recipients that were too many for one transaction (RFC 5321 §4.5.3.1.10).

// pipelineMost is how many recipients are named at a time. Their replies fit into what systems buffer, so that the two sides never
// wait for each other to read (RFC 2920 §3.1).
const pipelineMost = 100

// pipeConn lets go-smtp's client, which waits for the reply to each command, have several underway: the client says them twice.
// The first time they are gathered, and it is told that all went well; then they are sent together, and what it says the second
// time goes nowhere, while it reads what the server answers.
type pipeConn struct {
	net.Conn
	mode pipeMode
	held []byte
}

type pipeMode int

const (
	pipePass   pipeMode = iota // as if it were not there
	pipeGather                 // nothing is sent yet
	pipeHear                   // what the client says was sent before
)

// Write is io.Writer.
func (p *pipeConn) Write(b []byte) (int, error) {
	switch p.mode {
	case pipeGather:
		p.held = append(p.held, b...)
		return len(b), nil
	case pipeHear:
		return len(b), nil
	}
	return p.Conn.Write(b)
}

// Read is io.Reader.
func (p *pipeConn) Read(b []byte) (int, error) {
	if p.mode == pipeGather {
		return copy(b, "250 ok\r\n"), nil
	}
	return p.Conn.Read(b)
}

// send sends what was gathered.
func (p *pipeConn) send() error {
	p.mode = pipeHear
	_, err := p.Conn.Write(p.held)
	p.held = p.held[:0]
	return err
}

// transaction is a message that goes to its recipients at one server.
type transaction struct {
	*sendConn
	m        *Outgoing
	text     *sendText
	outcomes []Outcome // of m.Recipients
}

// opening is what became of the commands before the text.
type opening struct {
	together bool // they are said without a look at what became of those before
	mail     error
	rcpts    []error           // of the recipients, as far as the session went; nil: accepted
	data     error             // of DATA
	text     *smtp.DataCommand // nil: the server does not wait for the text
	dead     error             // what ended the session before DATA
}

// transact sends one message over a connection. usable says that it can take another one.
func (c *sendConn) transact(ctx context.Context, m *Outgoing) (outcomes []Outcome, usable bool) {
	ctx, cancel := context.WithTimeout(ctx, c.sender.limit().whole)
	defer cancel()
	stop := context.AfterFunc(ctx, c.hangUp)
	defer func() { usable = stop() && usable }()
	text, failed := c.prepare(m)
	if failed != nil {
		c.sent++
		return sameOutcome(len(m.Recipients), *failed), true
	}
	t := &transaction{c, m, text, make([]Outcome, len(m.Recipients))}
	some := make([]int, len(m.Recipients))
	for n := range some {
		some[n] = n
	}
	some, usable = t.round(some)
	for usable && len(some) > 0 && c.sent < sendPerConn {
		some, usable = t.round(some)
	}
	return t.outcomes, usable
}

// round is one transaction for some of the recipients, by their places in outcomes. later are those to be named in the next one;
// they have an outcome for the case that it does not come to that.
func (t *transaction) round(some []int) (later []int, usable bool) {
	t.sent++
	t.inData, t.dotted = false, false
	begun := t.open(some)
	var accepted []int
	for i, n := range some {
		err := begun.of(i)
		if err == nil {
			accepted = append(accepted, n)
			continue
		}
		t.outcomes[n], _ = t.outcome(err)
		if len(accepted) > 0 && tooMany(err) {
			t.outcomes[n].State = SendWaiting
			later = append(later, n)
		}
	}
	switch {
	case begun.dead != nil:
		o, _ := t.outcome(begun.dead)
		t.settle(accepted, o)
		return nil, false
	case len(accepted) == 0:
		return nil, t.abandon(begun.text) && t.reset()
	}
	reply, err := "", begun.data
	if err == nil {
		reply, err = t.data(begun.text)
	}
	if err != nil {
		o, alive := t.outcome(err)
		o.Unreachable = o.Unreachable && len(accepted) == len(t.outcomes)
		t.settle(accepted, o)
		return nil, alive && t.reset()
	}
	t.settle(accepted, Outcome{State: SendSent, Code: 250, Text: reply, Remote: t.remote})
	return later, true
}

// of gives what became of the recipient that was named as number i.
func (b *opening) of(i int) error {
	switch {
	case b.mail != nil:
		return b.mail
	case i >= len(b.rcpts):
		return b.dead
	}
	return b.rcpts[i]
}

// settle gives an outcome to recipients.
func (t *transaction) settle(some []int, o Outcome) {
	o.Reported = o.State == SendSent && t.passesReports(t.m)
	for _, n := range some {
		t.outcomes[n] = o
	}
}

// tooMany says whether a recipient was refused for coming after too many others (RFC 5321 §4.5.3.1.10): by 452 or the older 552,
// which both mean other things as well, as the enhanced code tells where there is one (RFC 3463 §3.6).
func tooMany(err error) bool {
	var reply *smtp.SMTPError
	if !errors.As(err, &reply) || reply.Code != 452 && reply.Code != 552 {
		return false
	}
	code := enhancedOf(reply)
	return code == "" || strings.HasSuffix(code, ".5.3")
}

// open says MAIL, RCPT for some recipients, and DATA.
func (t *transaction) open(some []int) *opening {
	defer func() { t.pipe.mode = pipePass }()
	begun := &opening{}
	begun.together, _ = t.client.Extension("PIPELINING")
	for at := 0; at < len(some) && begun.mail == nil && begun.dead == nil; at += pipelineMost {
		group := some[at:min(at+pipelineMost, len(some))]
		first, last := at == 0, at+len(group) == len(some)
		if begun.together {
			t.pipe.mode = pipeGather
			t.say(&opening{together: true}, group, first, last)
			if begun.dead = t.pipe.send(); begun.dead != nil {
				break
			}
		}
		t.say(begun, group, first, last)
	}
	return begun
}

// say says MAIL if these are the first recipients, RCPT for each, and DATA if they are the last: it ends its group (RFC 2920
// §3.1).
func (t *transaction) say(b *opening, some []int, first, last bool) {
	if first {
		if b.mail = t.mail(t.m, t.text); !t.alive(b.mail) {
			b.mail, b.dead = nil, b.mail
			return
		}
	}
	if b.mail != nil && (!b.together || errors.Is(b.mail, errUnsayable)) {
		return
	}
	for _, n := range some {
		err := t.rcpt(t.m, &t.m.Envelope.Recipients[t.m.Recipients[n]], t.text)
		if !t.alive(err) {
			b.dead = err
			return
		}
		b.rcpts = append(b.rcpts, err)
	}
	switch {
	case !last || !b.together && !slices.Contains(b.rcpts, nil):
	case t.pipe.mode == pipeGather: // the client would wait for the text
		_, b.data = io.WriteString(t.pipe, "DATA\r\n")
	default:
		b.text, b.data = t.client.Data()
	}
}

// alive says whether the session goes on after a reply.
func (c *sendConn) alive(err error) bool {
	if err == nil {
		return true
	}
	_, alive := c.outcome(err)
	return alive
}

// abandon ends DATA to which a server has said 354 although it took no recipient: with a dot alone (RFC 2920 §3.1). The client
// would say an empty line before.
func (t *transaction) abandon(text *smtp.DataCommand) bool {
	if text == nil {
		return true
	}
	defer func() { t.pipe.mode = pipePass }()
	t.pipe.mode = pipeGather
	_ = text.Close() // it is told that this went well
	t.pipe.held = append(t.pipe.held[:0], ".\r\n"...)
	if t.pipe.send() != nil {
		return false
	}
	return t.alive(t.client.Noop()) // hears what the server answers
}

// data sends the text and gives the reply to it.
func (t *transaction) data(w *smtp.DataCommand) (reply string, err error) {
	t.inData = true
	if _, err = w.Write(t.text.signed); err == nil {
		_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.NewSectionReader(t.text.message, 0, t.text.size)}, make([]byte, writeChunk))
	}
	if err != nil { // the connection is closed without the dot: nobody takes half a message
		return "", err
	}
	t.dotted = true
	t.whole.Store(true)
	defer t.whole.Store(false)
	response, err := w.CloseWithResponse()
	if err != nil {
		return "", err
	}
	return response.StatusText, nil
}
