// Appliance is a mail server in one file: SMTP, submission, POP3 and IMAP with
// TLS, for the people of one network, with nothing to configure.
//
// Where to find what:
//
//	main.go                 start and end of the process
//	command*.go             the commands, one noun a file
//	firststart.go           the owner's account and the welcome
//	admin*.go, control.go   changes to accounts, queue, relays, filter and certificates, also while it runs
//	datadir.go, lock_*.go, rights_*.go  the data folder and who owns it; giving up root
//	service.go              running under the service manager of the system
//	service_*.go            installing it there: _install, one file for each manager, users, Windows
//	log.go, log_*.go        the log: the journal, a file, the event log
//	settings*.go            the few settings
//	accounts*.go, password.go, scram.go  people, aliases, passwords
//	naming.go               what can be an address or a host name here
//	tomlfile.go             the files that people edit
//	tls.go, tls_sign.go     the local certificate authority
//	tls_*.go                certificates of authorities (public, acme, names) and of people (own); which one is served
//	webport*.go             the ports 80 and 443
//	web.go, web_*.go, web/  the page that people see in a browser; web.go tells how to add to it
//	mdns*.go                the name of this machine on the network at home
//	protocols.go            the table of ports, accept loops, caps, shutdown
//	conn*.go, throttle.go, strangers.go  what all sessions share
//	sasl*.go                logging in, the same for all protocols
//	smtp*.go, pop3.go       one session type each
//	imap*.go                the IMAP session, a family
//	textindex*.go           what SEARCH keeps of the texts of messages
//	mailbox*.go, delivery.go, folder*.go, view.go, watch.go, incoming.go, mailfile.go, quota.go, metadata.go
//	                        the store as the protocols see it
//	maildir*.go, foldername.go, uidlist.go, keywords*.go, subscriptions.go, attributes.go, acl.go
//	                        its files, as Dovecot has them too
//	flagjournal.go          flags that file names are still to get
//	diary*.go               what has become of mail, for "where is my mail?"
//	metrics*.go             numbers for Prometheus, and who may read them
//	queue*.go, envelope.go, outbound*.go, outbox*.go, flood*.go, notice.go  mail that waits for other servers
//	rules.go, away*.go, forward.go, srs.go  what people have set for mail that arrives
//	send*.go, relay.go, dkim.go, resolver*.go  the way there, directly or by a relay; signatures; the DNS
//	spam*.go                whether it is wanted
//	verify*.go, received.go  where mail that arrives comes from
//	doctor*.go, dns.go      whether mail comes in and goes out; the records that a domain publishes
//	collect*.go, movein*.go  mail from accounts elsewhere, for good or once
//	check*.go, carry*.go    what stands in the way of a data folder, here and on other systems; copying one
//	index*.go, mailstate.go the disposable cache; the words of the store
//	message*.go, address.go, mutf7.go, words.go, sorting.go  the formats of mail, what others say, without any state
//
// layout_test.go holds which of these may call which.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if startedByServiceManager() {
		os.Exit(runAsService(func(ctx context.Context) int {
			return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		}))
	}
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup wants it to stay so
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
