//go:build !windows

package main

import (
	"bufio"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// resolvConf is where the system says whom to ask (resolv.conf(5)).
const resolvConf = "/etc/resolv.conf"

// systemResolvers reads the system's resolvers; the file is small and may change when the network does. trusted is the
// option trust-ad.
func systemResolvers() (servers []string, trusted bool) {
	conf, err := dns.ClientConfigFromFile(resolvConf)
	if err != nil {
		return nil, false
	}
	for _, s := range conf.Servers {
		servers = append(servers, net.JoinHostPort(s, conf.Port))
	}
	return servers, trustsAD(resolvConf)
}

// trustsAD looks for "options trust-ad".
func trustsAD(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) > 1 && words[0] == "options" && slices.Contains(words[1:], "trust-ad") {
			return true
		}
	}
	return false
}
