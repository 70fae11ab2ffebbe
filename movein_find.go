package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// moveServers are the servers of providers whose names cannot be guessed.
var moveServers = map[string]string{
	"gmail.com": "imap.gmail.com", "googlemail.com": "imap.gmail.com", "gmx.de": "imap.gmx.net", "gmx.net": "imap.gmx.net", "gmx.at": "imap.gmx.net", "gmx.ch": "imap.gmx.net",
	"web.de": "imap.web.de", "t-online.de": "secureimap.t-online.de", "freenet.de": "mx.freenet.de", "yahoo.com": "imap.mail.yahoo.com", "yahoo.de": "imap.mail.yahoo.com",
	"icloud.com": "imap.mail.me.com", "me.com": "imap.mail.me.com", "mac.com": "imap.mail.me.com", "aol.com": "imap.aol.com", "fastmail.com": "imap.fastmail.com",
	"posteo.de": "posteo.de", "outlook.com": "outlook.office365.com", "hotmail.com": "outlook.office365.com", "live.com": "outlook.office365.com",
}

// errNoMoveServer says that a server has to be named.
var errNoMoveServer = errors.New("no server for the mail of this address was found: name it, as the provider's help tells under IMAP")

// Find logs in once, and gives the server with the port and the kind of TLS that did it. Without a host it is found by the domain
// of the login: a provider that is known, what the domain publishes (RFC 6186, within the domain alone: whoever changes the DNS on
// the way shall not get the password), or the usual names. The password goes to nobody else once a server has refused it.
func (m *Mover) Find(ctx context.Context, server OutsideServer) (OutsideServer, error) {
	server.Protocol = protocolIMAP
	if server.Host != "" {
		if _, err := server.check(); err != nil {
			return server, err
		}
		return m.cfg.Dialer.find(ctx, server)
	}
	_, domain, ok := cutLast(server.Login, '@')
	if domain = normalDomain(domain); !ok || checkDomain(domain) != nil {
		return server, errNoMoveServer
	}
	for _, host := range m.hosts(ctx, domain) {
		server.Host = host
		if _, err := server.check(); err != nil {
			return server, err
		}
		found, err := m.cfg.Dialer.find(ctx, server)
		var name *net.DNSError
		switch {
		case err == nil:
			return found, nil
		case ctx.Err() != nil:
			return server, fmt.Errorf("%s does not answer in time; try again, or name the server", host)
		case faultOf(err) == faultLogin, moveServers[domain] != "":
			return server, err
		case !errors.As(err, &name):
			m.cfg.Log.Info("no server to move in from", "host", host, "reason", err.Error())
		}
	}
	return server, errNoMoveServer
}

// hosts gives the servers that a domain may have.
func (m *Mover) hosts(ctx context.Context, domain string) (hosts []string) {
	if known := moveServers[domain]; known != "" {
		return []string{known}
	}
	add := func(host string) {
		if !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	if m.cfg.Resolver != nil {
		if records, err := m.cfg.Resolver.SRV(ctx, "_imaps._tcp."+domain); err == nil {
			for _, srv := range records {
				if host := normalDomain(strings.TrimSuffix(srv.Target, ".")); host == domain || strings.HasSuffix(host, "."+domain) {
					add(host)
				}
			}
		}
	}
	add("imap." + domain)
	add("mail." + domain)
	return hosts
}
