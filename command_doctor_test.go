package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// command runs a command whose doctor asks nobody outside the world.
func (w *doctorWorld) command(data string, args ...string) (stdout string, err error) {
	var out bytes.Buffer
	c := &call{stdin: strings.NewReader(""), stdout: &out, stderr: &out, data: dataDir(data), adjustDoctor: func(d *Doctor) {
		facts := d.Facts
		*d = *w.doctor
		d.Facts = facts
	}}
	cmd, rest := findCommand(commands(), args)
	if err := c.parse(cmd, rest); err != nil {
		return "", err
	}
	err = cmd.run(context.Background(), c)
	return out.String(), err
}

// The whole way: a domain is set up, its records are published, and the doctor agrees; with the appliance running and stopped.
func TestDoctorCommand(t *testing.T) {
	w := openDoctorWorld(t)
	w.set(func(s *testDNS) { // nothing is published yet
		for name := range s.records {
			if strings.HasSuffix(name, "example.org.") {
				delete(s.records, name)
			}
		}
	})
	data := t.TempDir()
	if err := os.WriteFile(dataDir(data).settings(), []byte("hostname = \"mail.example.org\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startRun(t, data)
	mustRun(t, data, "user", "add", "maria@example.org")
	for _, spec := range portTable() {
		address := fmt.Sprintf("127.0.0.1:%d", spec.number+r.offset)
		w.routes["tcp "+address] = address
	}
	out, err := w.command(data, "doctor")
	if err == nil || !strings.HasPrefix(err.Error(), "not as it should be: inbound, name mail.example.org, ") || !strings.Contains(err.Error(), "mx example.org") {
		t.Errorf("before: %v\n%s", err, out)
	}
	zone, err := w.command(data, "dns")
	if err != nil {
		t.Fatal(err)
	}
	if got := parsedZone(t, zone); !got["mail.example.org A "+worldV4] || !got["mail.example.org AAAA "+worldV6] || !got["example.org MX 10 mail.example.org"] || got["mail.example.org MX 10 mail.example.org"] {
		t.Errorf("the records:\n%s", zone)
	}
	w.add(t, zone)
	out, err = w.command(data, "doctor")
	if err == nil || err.Error() != "not as it should be: inbound" || !strings.Contains(out, "bad      inbound      The appliance listens on 127.0.0.1 alone") ||
		!strings.Contains(out, "\nok       spf          example.org lets this machine send its mail (SPF).\n") {
		t.Errorf("published: %v\n%s", err, out)
	}
	for line := range strings.Lines(out) {
		if len(line) > textWidth+1 && !strings.Contains(line, "/") {
			t.Errorf("a line of %d characters: %s", len(line), line)
		}
	}
	r.stop(t)
	out, err = w.command(data, "doctor", "--json")
	var found []Finding
	if err != nil || json.Unmarshal([]byte(out), &found) != nil || !slices.ContainsFunc(found, func(f Finding) bool { return f.Name == "inbound" && f.State == StateUnknown }) {
		t.Errorf("stopped: %v\n%s", err, out)
	}
	check := OpenDailyCheck(dataDir(data).doctor(), slog.Default())
	if last := check.Last(); last == nil || len(last.Findings) != len(found) || last.Port25 != AnswerYes {
		t.Errorf("it is not kept: %+v", last)
	}
	// Where nobody tells the address any more, the last one is printed.
	w.unseen(false)
	w.unseen(true)
	w.local = nil
	if zone, err = w.command(data, "dns", "EXAMPLE.org"); err != nil || !parsedZone(t, zone)["mail.example.org A "+worldV4] {
		t.Errorf("the last address: %v\n%s", err, zone)
	}
}

func TestDNSCommand(t *testing.T) {
	w := openDoctorWorld(t)
	data := t.TempDir()
	mustRun(t, data, "user", "add", "maria@home.lan")
	out, err := w.command(data, "dns")
	if err != nil || !strings.HasPrefix(out, "There is no domain of the internet here yet") || !strings.Contains(strings.Join(strings.Fields(out), " "), "appliance user add NAME@DOMAIN") {
		t.Errorf("without a domain: %v\n%s", err, out)
	}
	if out, err := w.command(data, "dns", "--json"); err != nil || out != "[]\n" {
		t.Errorf("without a domain: %v %q", err, out)
	}
	mustRun(t, data, "user", "add", "maria@bücher.example.org")
	mustRun(t, data, "alias", "add", "info@example.net", "maria@home.lan")
	for domain, want := range map[string]string{
		"home.lan":       "home.lan is a name that only the network here knows, so that there is nothing to publish for it",
		"example.com":    "nobody has an address in example.com here: make one first, with `appliance user add NAME@example.com`",
		"a_b":            `"a_b" is not a domain: only letters, digits, hyphens and dots can be in it, not '_'`,
		"x@example.net":  `"x@example.net" is not a domain: only letters, digits, hyphens and dots can be in it, not '@'`,
		"../etc":         `"../etc" is not a domain: each part between dots has 1 to 63 characters and no hyphen at either end`,
		"bücher.example": "nobody has an address in bücher.example here: make one first, with `appliance user add NAME@bücher.example`",
	} {
		if out, err := w.command(data, "dns", domain); err == nil || err.Error() != want || out != "" {
			t.Errorf("%s: %v %q", domain, err, out)
		}
	}
	out, err = w.command(data, "dns", "--json", "xn--bcher-kva.example.org")
	var list []publishedDomain
	if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	d := list[0]
	if d.Domain != "xn--bcher-kva.example.org" || d.Host != "mail.xn--bcher-kva.example.org" || len(d.Reverse) != 2 || d.Reverse[0].Address != netip.MustParseAddr(worldV4) {
		t.Errorf("%+v", d)
	}
	if at := slices.IndexFunc(d.Records, func(r PublishedRecord) bool { return r.Kind == RecordDKIM }); at < 0 || d.Records[at].Name != "rsa1._domainkey.xn--bcher-kva.example.org" || d.Records[at].Purpose == "" {
		t.Errorf("%+v", d.Records)
	}
	if out, err = w.command(data, "dns"); err != nil || strings.Count(out, "; The records of ") != 2 {
		t.Errorf("all: %v\n%s", err, out)
	}
	again, err := w.command(data, "dns")
	if err != nil || again != out {
		t.Error("the keys are other ones the second time")
	}
}

func TestDoctorCommandMistakes(t *testing.T) {
	for args, want := range map[string]string{
		"doctor x":                  `doctor does not know what to do with "x"`,
		"doctor --frob":             "flag provided but not defined: -frob",
		"dns example.org other.org": `dns does not know what to do with "other.org"`,
	} {
		status, out, errs := runCommand(t, t.TempDir(), "", strings.Fields(args)...)
		if status != exitUsage || out != "" || !strings.HasPrefix(errs, "appliance: "+want) {
			t.Errorf("%s: %d %q %q", args, status, out, errs)
		}
	}
	missing := filepath.Join(t.TempDir(), "none")
	for _, command := range []string{"doctor", "dns"} {
		status, out, errs := runCommand(t, missing, "", command)
		if status != exitFailed || out != "" || !strings.HasPrefix(errs, "appliance: there is no data folder ") {
			t.Errorf("%s: %d %q %q", command, status, out, errs)
		}
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("the data folder was made")
	}
}

// The daily check is there unless nobody wants it, or nobody else could reach the appliance; it writes to the owner and
// hastens what waits.
func TestDailyCheckOfTheAppliance(t *testing.T) {
	w := openDoctorWorld(t)
	data := t.TempDir()
	fillQueue(t, data, 1)
	h, err := openHouse(dataDir(data), "mail.example.org", slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	if _, err := h.accounts.Add("maria@example.org", "", "a long password"); err != nil {
		t.Fatal(err)
	}
	sender := h.newSender(nil)
	out, err := h.openOutbound(sender, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &call{data: dataDir(data), adjustDoctor: func(d *Doctor) {
		facts := d.Facts
		*d = *w.doctor
		d.Facts = facts
	}}
	facts := func() (*DoctorFacts, error) { return h.facts(sender) }
	no := false
	for _, off := range []func(){
		func() { c.opt.run.listen = "127.0.0.1" },
		func() { c.opt.run.listen = "::1" },
		func() { c.opt.run.listen, h.settings.DailyCheck = "", &no },
	} {
		if off(); c.checkDaily(h, out, facts) != nil {
			t.Error("it is there")
		}
	}
	h.settings.DailyCheck = nil
	end := c.checkDaily(h, out, facts)
	if end == nil {
		t.Fatal("it is not there")
	}
	end()

	// What it finds comes to the owner, and what it knows to the sender.
	w.route("tcp 192.0.2.1", routeSilent)
	for range 2 {
		h.check.look(context.Background())
	}
	if !sender.closed25() {
		t.Error("the sender does not know that port 25 is closed")
	}
	// With a relay for another domain of ours that takes the mail of all, and the doctor knows.
	if _, err := h.accounts.AddAlias("info@example.net", []string{"maria@example.org"}); err != nil {
		t.Fatal(err)
	}
	if got := sender.Destination("maria@example.org", "friends.test"); got != "friends.test" {
		t.Errorf("without a relay mail goes to %s", got)
	}
	if err := h.relays.Set(RelaySetting{For: "example.net", Host: "relay.example", Port: 587, TLS: tlsStart, User: "u", Password: "p"}); err != nil {
		t.Fatal(err)
	}
	if got := sender.Destination("maria@example.org", "friends.test"); got != "relay relay.example:587 u" {
		t.Errorf("with a relay mail goes to %s", got)
	}
	if f, err := facts(); err != nil || *f.Domains[0].Relay != (RelayFact{Host: "relay.example", Port: 587}) {
		t.Errorf("the doctor knows %+v, %v", f, err)
	}
	if _, err := h.accounts.AddOutside("maria@example.org", "maria@big.example"); err != nil {
		t.Fatal(err)
	}
	if err := h.relays.Set(RelaySetting{For: "maria@big.example", Host: "smtp.big.example", Port: 465, TLS: tlsImplicit, User: "u", Password: "p"}); err != nil {
		t.Fatal(err)
	}
	if f, err := facts(); err != nil || len(f.Outside) != 1 || f.Outside[0].Address != "maria@big.example" || *f.Outside[0].Relay != (RelayFact{"smtp.big.example", 465, true}) {
		t.Errorf("the doctor knows %+v, %v", f, err)
	}
	if err := h.relays.Remove("example.net"); err != nil {
		t.Fatal(err)
	}
	drop, err := h.store.Maildrop("maria@example.org")
	if err != nil {
		t.Fatal(err)
	}
	defer drop.Release()
	usage, err := drop.Usage()
	if err != nil || usage.Messages != 1 {
		t.Errorf("the owner has %+v, %v", usage, err)
	}
	if next := out.Queue.List()[0].Recipients[0].Next; time.Until(next) < 50*time.Minute {
		t.Fatalf("the queue is not as it should be: next try %v", next)
	}
	h.check.Reopened()
	if next := out.Queue.List()[0].Recipients[0].Next; next.After(time.Now()) {
		t.Errorf("what waits is not tried: %v", next)
	}
}
