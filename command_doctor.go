package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

func doctorCommands() []command {
	return append([]command{{
		name: "doctor", about: "check whether mail comes in and goes out, and say what helps",
		more: "It asks outside, for half a minute at most. The exit status is 1 if something is wrong.\n" +
			"While the appliance runs, the same is done once a day.",
		flags: listFlags, run: runDoctor,
	}}, checkCommands()...)
}

// runDoctor makes the checks here. The appliance that runs tells what it is like, and learns what was found.
func runDoctor(ctx context.Context, c *call) error {
	a, err := c.order(ctx, order{Do: "doctor facts"})
	if err != nil {
		return err
	}
	found, err := c.doctor(func() (*DoctorFacts, error) { return a.Facts, nil }).Examine(ctx)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.opt.json {
		err = c.sayJSON(nonNil(found.Findings))
	} else {
		c.sayFindings(found)
	}
	if _, failed := c.order(ctx, order{Do: "doctor learn", Diagnosis: found}); err == nil {
		err = failed
	}
	if wrong := found.wrong(); err == nil && wrong != "" {
		err = errors.New(wrong)
	}
	return err
}

// sayFindings prints what was found.
func (c *call) sayFindings(d *Diagnosis) {
	const indent = "                      "
	for i := range d.Findings {
		f := &d.Findings[i]
		c.say("%s", wrapWords(fmt.Sprintf("%-8s %-12s ", f.State, f.Name), indent, f.Sentence))
		if f.Do != "" {
			c.say("%s", wrapWords(indent+"> ", indent+"  ", f.Do))
		}
	}
	switch warn := d.count(StateWarn); {
	case d.count(StateBad) > 0:
	case warn == 1:
		c.say("\nNothing is wrong; one thing deserves a look.")
	case warn > 1:
		c.say("\nNothing is wrong; %d things deserve a look.", warn)
	default:
		c.say("\nNothing is wrong.")
	}
}

// wrong says in one line what is bad, "" where nothing is.
func (d *Diagnosis) wrong() string {
	names := d.names(StateBad)
	if len(names) == 0 {
		return ""
	}
	return "not as it should be: " + strings.Join(names, ", ")
}

// names gives the checks that came out as one of these states, each once.
func (d *Diagnosis) names(states ...FindingState) []string {
	var names []string
	for i := range d.Findings {
		f := &d.Findings[i]
		if name := strings.TrimSpace(f.Name + " " + f.Subject); slices.Contains(states, f.State) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// doctor makes one that starts from these facts.
func (c *call) doctor(facts func() (*DoctorFacts, error)) *Doctor {
	d := &Doctor{Facts: facts, Resolver: &Resolver{}}
	if c.adjustDoctor != nil {
		c.adjustDoctor(d)
	}
	return d
}

// checkDaily begins the daily check, and gives what ends it. Nil: there is none, since somebody does not want it or the
// appliance is there for this machine alone.
func (c *call) checkDaily(h *house, out *Outbound, facts func() (*DoctorFacts, error)) (end func()) {
	h.check.Doctor, h.check.Tell = c.doctor(facts), out.TellOwner
	h.check.Reopened = func() {
		if err := out.Queue.Retry(""); err != nil {
			h.log.Error("what waits could not be tried again", "error", err)
		}
	}
	listen, err := netip.ParseAddr(c.opt.run.listen)
	if err == nil && listen.IsLoopback() || h.settings.DailyCheck != nil && !*h.settings.DailyCheck {
		return nil
	}
	return inBackground(h.check.Run)
}

// runningFacts is what the doctor knows of the appliance that runs in this process.
func (h *house) runningFacts(sender *Sender, p *Protocols, ports []Port) (*DoctorFacts, error) {
	f, err := h.facts(sender)
	if err != nil {
		return nil, err
	}
	f.Running, f.Listen, f.Ports, f.Visitor = true, p.Listen, ports, p.Visitor()
	if f.Visitor.IsZero() && f.Last != nil {
		f.Visitor = f.Last.Visitor
	}
	return f, nil
}

// facts is what is known also where none runs.
func (h *house) facts(sender *Sender) (*DoctorFacts, error) {
	f := &DoctorFacts{Hostname: h.hostname, Data: string(h.data), Last: h.check.Last()}
	for _, domain := range h.accounts.Domains() {
		fact := DomainFact{Name: domain}
		fact.Relay = relayFact(sender, "postmaster@"+domain)
		if isPublicName(domain) && len(f.Domains) < doctorDomains {
			var err error
			if fact.DKIM, err = h.signer.Records(domain); err != nil {
				return nil, err
			}
		}
		f.Domains = append(f.Domains, fact)
	}
	for _, o := range h.accounts.Outside() {
		f.Outside = append(f.Outside, OutsideFact{o.Address, relayFact(sender, o.Address)})
	}
	return f, nil
}

// relayFact is what the doctor knows of the relay that takes mail from an address, nil for none.
func relayFact(sender *Sender, from string) *RelayFact {
	relay := sender.RelayOf(from)
	if relay == nil {
		return nil
	}
	return &RelayFact{relay.Host, relay.Port, relay.Implicit}
}
