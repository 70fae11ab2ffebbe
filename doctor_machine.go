package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// The machine itself: its certificate, its clock, its disk.

const (
	certSoon = 7 * 24 * time.Hour // before its end a certificate should have been renewed

	clockFine  = time.Minute      // so far off is nobody's trouble
	clockWrong = 15 * time.Minute // from here on others notice

	diskTight   = 1 << 30   // octets free
	diskFull    = 100 << 20 // below, mail is soon refused
	inodesTight = 10_000    // files that can still be made
	inodesFull  = 1_000
)

// checkCertificate looks at what our ports show to mail programs.
func (x *examination) checkCertificate(ctx context.Context) []Finding {
	const name = "certificate"
	if !x.facts.Running {
		return single(name, "", StateUnknown, "The appliance does not run, so that its certificate cannot be looked at.", "Start it, and run the doctor again.")
	}
	host := x.host
	if host == "" {
		host = x.facts.Hostname
	}
	order := map[FindingState]int{StateOK: 0, StateNote: 1, StateUnknown: 2, StateWarn: 3, StateBad: 4}
	worst := Finding{State: StateOK, Sentence: "No port has TLS from the start."}
	first := true
	for _, p := range x.facts.Ports {
		if p.TLS == "STARTTLS" { // the configuration is the same
			continue
		}
		if f := x.judgePort(ctx, p, host); first || order[f.State] > order[worst.State] {
			worst, first = f, false
		}
	}
	return []Finding{worst}
}

// judgePort looks at the certificate of one port.
func (x *examination) judgePort(ctx context.Context, p Port, host string) Finding {
	f := Finding{Name: "certificate", Subject: host}
	chain, err := x.shownAt(ctx, net.JoinHostPort(x.ownAddress(), strconv.Itoa(p.Number)), host)
	if err != nil {
		f.State, f.Sentence = StateBad, fmt.Sprintf("Port %d (%s) of this machine shows no certificate: %s.", p.Number, p.Name, netWords(err))
		f.Do = "Start the appliance again; its log tells more."
		return f
	}
	x.judgeCertificate(&f, chain, host)
	return f
}

// shownAt gives the certificates that a port shows, whatever they are worth.
func (x *examination) shownAt(ctx context.Context, address, host string) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, probeConnect)
	defer cancel()
	conn, err := x.d.dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	secure := tls.Client(conn, &tls.Config{ServerName: host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	chain := secure.ConnectionState().PeerCertificates
	if len(chain) == 0 {
		return nil, errors.New("it shows none")
	}
	return chain, nil
}

// judgeCertificate says what a certificate is worth.
func (x *examination) judgeCertificate(f *Finding, chain []*x509.Certificate, host string) {
	leaf, now := chain[0], x.d.now()
	end := leaf.NotAfter.Local().Format("2 January 2006")
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, strangers := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: x.d.Roots, Intermediates: between, CurrentTime: now})
	switch {
	case now.After(leaf.NotAfter):
		f.State, f.Sentence = StateBad, fmt.Sprintf("The certificate has run out on %s: mail programs refuse to connect.", end)
		f.Do = "Start the appliance again, and see whether the clock of this machine is right."
	case now.Before(leaf.NotBefore):
		f.State, f.Sentence = StateBad, fmt.Sprintf("The certificate begins on %s only: the clock of this machine is wrong, or was when it was made.", leaf.NotBefore.Local().Format("2 January 2006"))
		f.Do = "Set the clock, and start the appliance again."
	case leaf.VerifyHostname(host) != nil:
		f.State, f.Sentence = x.forInternet(StateWarn), fmt.Sprintf("The certificate is not for the name %s: mail programs that use that name warn.", host)
		f.Do = fmt.Sprintf("Write hostname = %q into settings.toml in %s, and start the appliance again.", host, x.facts.Data)
	case leaf.NotAfter.Sub(now) < certSoon:
		f.State, f.Sentence = StateWarn, fmt.Sprintf("The certificate runs out on %s and has not been renewed.", end)
		f.Do = "Start the appliance again; its log tells why it is not renewed."
	case strangers == nil:
		f.State, f.Sentence = StateOK, fmt.Sprintf("The certificate for %s is one that everybody trusts, until %s.", host, end)
	default:
		f.State, f.Sentence = StateNote, fmt.Sprintf("The certificate for %s is of this machine's own authority, until %s: a device trusts it once it has been told to.", host, end)
		f.Do = "For each device: take the file that `appliance ca` prints, and open it there."
	}
}

// checkClock compares our clock with the world's.
func (x *examination) checkClock(context.Context) []Finding {
	const name = "clock"
	if !x.timed {
		return single(name, "", StateUnknown, "Whether the clock is right cannot be told: no time server answers.", "")
	}
	off := x.clock.Abs()
	words := "ahead"
	if x.clock < 0 {
		words = "behind"
	}
	sentence := fmt.Sprintf("The clock of this machine is %s %s.", durationWords(off), words)
	const do = "Switch on that the system sets its clock by the internet (NTP)."
	switch {
	case off <= clockFine:
		return single(name, "", StateOK, "The clock is right.", "")
	case off <= clockWrong:
		return single(name, "", StateWarn, sentence, do)
	}
	return single(name, "", StateBad, sentence+" Certificates and signatures may not count, and mail bears the wrong date.", do)
}

// durationWords gives a time span in its largest unit.
func durationWords(d time.Duration) string {
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "days"}, {time.Hour, "hours"}, {time.Minute, "minutes"}} {
		if d >= 2*unit.length {
			return fmt.Sprintf("%d %s", d.Round(unit.length)/unit.length, unit.name)
		}
	}
	if d.Round(time.Second) == time.Second {
		return "a second"
	}
	return fmt.Sprintf("%d seconds", d.Round(time.Second)/time.Second)
}

// diskSpace is what is free on a file system.
type diskSpace struct {
	free   int64 // octets
	all    int64 // octets of the whole file system
	files  int64 // that can still be made
	counts bool  // it has such a limit
}

// checkDisk says whether there is room for mail.
func (x *examination) checkDisk(context.Context) []Finding {
	const name = "disk"
	space := x.d.Space
	if space == nil {
		space = freeSpace
	}
	s, err := space(x.facts.Data)
	const do = "Make room on the disk, or move the data folder to a larger one."
	switch {
	case err != nil:
		return single(name, x.facts.Data, StateUnknown, fmt.Sprintf("How much room there is for mail cannot be told: %s.", err), "")
	case s.free < diskFull:
		return single(name, x.facts.Data, StateBad, fmt.Sprintf("The disk is full (%s free): mail is refused until there is room.", roundSize(s.free)), do)
	case s.counts && s.files < inodesFull:
		return single(name, x.facts.Data, StateBad, "The file system can hold hardly any more files (inodes): mail is refused until there is room.", do)
	case s.free < diskTight:
		return single(name, x.facts.Data, StateWarn, fmt.Sprintf("The disk is nearly full: %s free.", roundSize(s.free)), do)
	case s.counts && s.files < inodesTight:
		return single(name, x.facts.Data, StateWarn, fmt.Sprintf("The file system can hold only %d more files (inodes); each message is one.", s.files), do)
	}
	return single(name, x.facts.Data, StateOK, fmt.Sprintf("There is room for mail: %s free.", roundSize(s.free)), "")
}
