package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// startNews is what is to be told when the appliance has started.
type startNews struct {
	house     *house
	ports     []Port
	shifted   bool   // low ports were refused
	listen    string // the one address that is bound, "" for all
	authority string // file of the authority's certificate
	custom    bool   // commands need --data
	program   string // how commands begin
	web       *WebPorts

	address, password string // of the owner who was just created
	code              string // for the owner's first visit of the page
}

// greet prints what a person needs to know; at the first start it creates the
// owner's account before. A service leaves that to who installs it: what it prints
// may be kept where others read it.
func (c *call) greet(ctx context.Context, n *startNews) error {
	if owner := n.house.accounts.Owner(); owner != "" || c.opt.run.service {
		page := ""
		if where := n.page(); where != "" {
			page = "; its page: " + where
		}
		c.say("The mail server of %s is running: %s%s", n.house.accounts.DefaultDomain(), n.portList(), page)
		if owner == "" {
			n.house.log.Info("there is no account yet; `appliance install` makes the first one, and so does `appliance user add NAME`")
		}
		return nil
	}
	first, err := n.firstAccount(ownerName(os.Getenv))
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(c.stdout, first.Text); err != nil {
		n.house.log.Warn("nobody saw the owner's password; `appliance user passwd` makes a new one", "account", first.Address)
	}
	return nil
}

// firstAccount creates the owner's account with a new password and leaves a
// welcome there. Where there are accounts already it gives the owner's address alone.
func (n *startNews) firstAccount(name string) (FirstAccount, error) {
	accounts := n.house.accounts
	if owner := accounts.Owner(); owner != "" {
		return FirstAccount{Address: owner, Text: n.againText(owner)}, nil
	}
	password := generatePassword()
	user, err := accounts.Add(name+"@"+accounts.DefaultDomain(), "", password)
	if err != nil {
		return FirstAccount{}, fmt.Errorf("creating the owner's account: %w", err)
	}
	told := *n
	told.address, told.password = user.Address, password
	if told.code, err = n.house.codes.Make(codeFirst, user.Address); err != nil {
		return FirstAccount{}, err
	}
	if err := told.leaveWelcome(context.Background()); err != nil {
		n.house.log.Warn("the welcome message could not be delivered", "err", err)
	}
	return FirstAccount{Address: user.Address, New: true, Text: told.firstText()}, nil
}

// ownerName names the first account after the person at the keyboard.
func ownerName(getenv func(string) string) string {
	for _, variable := range []string{"SUDO_USER", "USER", "USERNAME"} {
		name := typeableName(getenv(variable))
		if name == "" || name == "root" || name == "administrator" || name == "system" {
			continue
		}
		if _, err := accountAddress(name + "@x"); err == nil {
			return name
		}
	}
	return "postmaster"
}

// typeableName makes a login name one that every mail program can write: ASCII
// letters without accents, dots for spaces.
func typeableName(name string) string {
	var out strings.Builder
	for _, r := range norm.NFD.String(strings.ToLower(strings.TrimSpace(name))) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '-', r == '_':
			out.WriteRune(r)
		case unicode.IsSpace(r):
			out.WriteByte('.')
		}
	}
	words := strings.FieldsFunc(out.String(), func(r rune) bool { return r == '.' })
	return strings.Trim(strings.Join(words, "."), "-")
}

// numbers gives the ports of the named services: "993 (TLS from the start) or
// 143 (STARTTLS)".
func (n *startNews) numbers(names ...string) string {
	var out []string
	for _, name := range names {
		for _, p := range n.ports {
			if p.Name == name {
				out = append(out, fmt.Sprintf("%d (%s)", p.Number, tlsWords(p.TLS)))
			}
		}
	}
	return strings.Join(out, " or ")
}

func tlsWords(kind string) string {
	if kind == "STARTTLS" {
		return kind
	}
	return "TLS " + kind
}

func (n *startNews) number(name string) int {
	for _, p := range n.ports {
		if p.Name == name {
			return p.Number
		}
	}
	return 0
}

func (n *startNews) portList() string {
	var out []string
	for _, p := range n.ports {
		out = append(out, fmt.Sprintf("%s %d", p.Name, p.Number))
	}
	return strings.Join(out, ", ")
}

// servers gives the names and addresses under which devices find the machine.
func (n *startNews) servers() string {
	if n.listen != "" {
		return n.listen
	}
	names := []string{n.house.hostname}
	for _, a := range machineAddresses() {
		if a.Is4() && len(names) < 4 {
			names = append(names, a.String())
		}
	}
	return strings.Join(names, " or ")
}

// page is the address of the page in a browser, "" where its port is not open.
func (n *startNews) page() string {
	_, secure := n.web.Numbers()
	return pageURL(n.server(), secure)
}

// command gives a command as it must be typed for this data folder.
func (n *startNews) command(words string) string {
	if n.custom {
		words += " --data " + string(n.house.data)
	}
	return n.program + " " + words
}

// programName gives what a person types to call this program: its name where the shell finds it, "go run ." where Go has
// built it into a folder that is gone with it, else where it lies.
func programName() string {
	const name = "appliance"
	self, err := os.Executable()
	if err != nil {
		return name
	}
	if strings.Contains(filepath.ToSlash(self), "/go-build") {
		return "go run ."
	}
	if found, err := exec.LookPath(name); err == nil {
		a, aerr := os.Stat(found)
		b, berr := os.Stat(self)
		if aerr == nil && berr == nil && os.SameFile(a, b) {
			return name
		}
	}
	if strings.ContainsAny(self, " \t") {
		return `"` + self + `"`
	}
	return self
}

// firstText is what the first start prints.
func (n *startNews) firstText() string {
	var out strings.Builder
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(&out, format+"\n", args...) }
	line("Your mail server is running. This is your account:\n")
	line("  Address      %s", n.address)
	line("  Password     %s\n", n.password)
	line("Write the password down: it is not shown again.")
	line("A new one: %s\n", n.command("user passwd "+n.address))
	if page := n.page(); page != "" {
		line("Set up the rest in a browser, where you can also choose another name and password:\n")
		line("  %s?code=%s\n", page, n.code)
		line("This address works once, for %d days. The browser warns that it does not know this", codeFirst.keeps()/(24*time.Hour))
		line("server yet: go on.\n")
	}
	line("Put this into your mail program, with the address as user name:\n")
	line("%s", n.serverText())
	if n.shifted {
		line("The system does not let this user open the usual ports, so %d was added to all", portShift)
		line("of them. Started as root, the appliance takes the usual ones.\n")
	}
	line("  Mail         %s", n.house.data.mail())
	line("  Certificate  %s\n", n.authority)
	line("Let your devices trust that certificate once; then they know this server.")
	line("The message in your INBOX tells how to set up a phone and Thunderbird.")
	line("An account for somebody else: %s", n.command("user add NAME"))
	return out.String()
}

// serverText is what people put into their mail programs.
func (n *startNews) serverText() string {
	var out strings.Builder
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(&out, format+"\n", args...) }
	line("  Server       %s", n.servers())
	line("  IMAP         port %s", n.numbers("imaps", "imap"))
	line("  POP3         port %s", n.numbers("pop3s", "pop3"))
	line("  Sending      port %s", n.numbers("submissions", "submission"))
	line("  Other servers bring mail to port %d", n.number("smtp"))
	return out.String()
}

// againText is what whoever installs the appliance over an older one is told.
func (n *startNews) againText(owner string) string {
	others := len(n.house.accounts.Users()) - 1
	who := owner
	if others > 0 {
		who += fmt.Sprintf(" and %d more", others)
	}
	return fmt.Sprintf("Your mail server is running, with the accounts that it had: %s.\n\n%s", who, n.serverText())
}

// leaveWelcome delivers the welcome message to the owner.
func (n *startNews) leaveWelcome(ctx context.Context) error {
	drop, err := n.house.store.Maildrop(n.address)
	if err != nil {
		return err
	}
	defer drop.Release()
	in, err := drop.Receive()
	if err != nil {
		return err
	}
	defer in.Discard()
	if _, err := in.Write(n.welcome(time.Now())); err != nil {
		return err
	}
	return n.house.store.Deliver(ctx, in, []Delivery{{Account: n.address, Folder: "INBOX"}})
}

// welcome is the message that waits in the owner's INBOX.
func (n *startNews) welcome(now time.Time) []byte {
	_, domain, _ := strings.Cut(n.address, "@")
	head := strings.Join([]string{
		"From: Appliance <postmaster@" + domain + ">",
		"To: " + n.address,
		"Subject: Welcome to your mail server",
		"Date: " + now.Format("Mon, 02 Jan 2006 15:04:05 -0700"),
		"Message-ID: <welcome." + strings.ToLower(rand.Text()) + "@" + n.house.hostname + ">",
		"Auto-Submitted: auto-generated",
		"MIME-Version: 1.0",
		"Content-Type: text/plain; charset=utf-8",
		"Content-Transfer-Encoding: 8bit",
	}, "\n")
	return []byte(strings.ReplaceAll(head+"\n\n"+n.welcomeText(), "\n", "\r\n"))
}

func (n *startNews) welcomeText() string {
	return fmt.Sprintf(`Welcome!

This mailbox lives on your own machine, %[1]s. Here is how to reach it.

First, once per device: the certificate
---------------------------------------
Copy %[2]s
to the device and open it there, so that the device knows this server.
The command `+"`%[3]s`"+` prints the same file.

  iPhone, iPad  open the file, then Settings, Profile Downloaded, Install;
                then General, About, Certificate Trust Settings: switch it on
  Android       Settings, Security, Install a certificate, CA certificate
  Thunderbird   Settings, Privacy & Security, Manage Certificates,
                Authorities, Import: trust it to identify websites

The account on a phone
----------------------
Add an account of the kind "Other" (IMAP) with your address and password:

  Address, user name  %[4]s
  Incoming server     %[5]s, IMAP, port %[6]d, SSL/TLS
  Outgoing server     %[5]s, port %[7]d, SSL/TLS, with the same
                      user name and password

The account in Thunderbird
--------------------------
New account, Existing email, enter name, address and password, then
"Configure manually":

  Incoming  IMAP, %[5]s, port %[6]d, SSL/TLS, normal password
  Outgoing  %[5]s, port %[7]d, SSL/TLS, normal password

If the name %[5]s is not found, take the machine's address
(for example 192.168.1.20) in its place.
%[11]s
Good to know
------------
A password for each device, which you can revoke alone:
  %[8]s

An account for somebody else:
  %[9]s

What you write reaches everybody who has an account on this server. Mail to
addresses elsewhere is sent too, if the network lets it through; what cannot be
delivered comes back to you with the reason. What waits shows in
your folder Outbox, and here:
  %[10]s
`, n.house.hostname, n.authority, n.command("ca"), n.address, n.server(),
		n.number("imaps"), n.number("submissions"),
		n.command("user app-password add "+n.address+" phone"), n.command("user add NAME"), n.command("queue list"), n.pageText())
}

// pageText tells of the page, "" where its port is not open.
func (n *startNews) pageText() string {
	page := n.page()
	if page == "" {
		return ""
	}
	return fmt.Sprintf(`
The page
--------
In a browser you change your password, connect devices and add people:

  %s
`, page)
}

// server is the one name that the welcome message tells.
func (n *startNews) server() string {
	if n.listen != "" {
		return n.listen
	}
	return n.house.hostname
}
